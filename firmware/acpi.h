/* acpi.h: ACPI tables for a machine without a BIOS (ACPI 6.5). */
#pragma once
#include "firmware/boot.h"

/* RSDP, XSDT, FADT (hardware-reduced), MADT, MCFG, DSDT and an SSDT, in the
 * memory that layout.h keeps for them. */
int acpi_build(struct mem *, const struct boot_machine *, u64 *rsdp, struct err *) must_check;
