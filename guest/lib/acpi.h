/*
 * acpi.h: ACPI tables, as far as a payload needs them: finding one, the processors and interrupt
 * lines in the MADT, and virtio-mmio windows in the AML, found by their shape instead of by running
 * it.
 *
 * Spec: ACPI 6.5, 5.2 (tables), 6.4 (resource descriptors).
 */
#ifndef GUEST_LIB_ACPI_H
#define GUEST_LIB_ACPI_H

#include "guest/lib/io.h"

struct acpi_rsdp {
	char signature[8];
	u8 checksum;
	char oem_id[6];
	u8 revision;
	u32 rsdt;
	u32 length;
	u64 xsdt;
	u8 extended_checksum, reserved[3];
} __attribute__((packed));

struct acpi_table {
	char signature[4];
	u32 length;
	u8 revision, checksum;
	char oem_id[6], oem_table_id[8];
	u32 oem_revision;
	char creator_id[4];
	u32 creator_revision;
} __attribute__((packed));

struct acpi_madt {
	struct acpi_table head;
	u32 lapic, flags;
	u8 entries[];
} __attribute__((packed));

enum { MADT_LAPIC = 0, MADT_IOAPIC = 1, MADT_OVERRIDE = 2, MADT_X2APIC = 9, MADT_ENABLED = 1 };

struct madt_entry {
	u8 type, length;
	union {
		struct { u8 uid, id; u32 flags; } __attribute__((packed)) lapic;
		struct { u8 id, reserved; u32 addr, gsi_base; } __attribute__((packed)) ioapic;
		struct { u8 bus, irq; u32 gsi; u16 flags; } __attribute__((packed)) override;
		struct { u16 reserved; u32 id, flags, uid; } __attribute__((packed)) x2apic;
	};
} __attribute__((packed));

const struct acpi_rsdp *acpi_rsdp(void);		/* start_info's; NULL: none */
const struct acpi_rsdp *acpi_scan_rsdp(void);		/* found in low memory; NULL: none */
const struct acpi_table *acpi_nth(unsigned n);		/* of the XSDT; NULL: no more */
const struct acpi_table *acpi_find(const char *signature);
const struct acpi_table *acpi_dsdt(void);
bool acpi_sum_is_zero(const void *p, size_t len);

/* The next MADT entry, or the first after NULL; NULL at the end. */
const struct madt_entry *acpi_madt_next(const struct acpi_madt *, const struct madt_entry *);

/* APIC ids of the processors that are enabled; returns how many there are. */
unsigned acpi_cpus(u32 *ids, unsigned max);

/* The n-th LNRO0005 device of the DSDT and the SSDTs. */
bool acpi_virtio_mmio(unsigned n, u64 *base, u32 *gsi);

#endif
