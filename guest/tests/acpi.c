/*
 * acpi.c: promise: the ACPI tables are whole, consistent, and say what this machine is. cpus=N.
 *
 * Spec: ACPI 6.5, 5.2.5 (RSDP) - 5.2.12 (MADT), 4.8.3.7 (sleep registers); PCI Firmware 3.3, 4.1.2
 * (MCFG).
 */
#include "guest/lib/acpi.h"
#include "guest/lib/mem.h"
#include "guest/lib/start.h"
#include "guest/lib/string.h"

enum {
	FADT_FLAGS = 112, FADT_RESET_REG = 116, FADT_RESET_VALUE = 128, FADT_X_DSDT = 140,
	FADT_SLEEP_CONTROL = 244, FADT_SLEEP_STATUS = 256, FADT_HW_REDUCED_LEN = 268,
	FLAG_RESET_REG = 1 << 10, FLAG_HW_REDUCED = 1 << 20,
	SPACE_IO = 1,
	MCFG_BASE = 44, MCFG_SEGMENT = 52, MCFG_FIRST_BUS = 54, MCFG_LAST_BUS = 55, MCFG_LEN = 60,
	MADT_MAX = 64,
};

static u8 byte(const struct acpi_table *t, unsigned at)
{
	return ((const u8 *)t)[at];
}

static u32 dword(const struct acpi_table *t, unsigned at)
{
	u32 v;

	memcpy(&v, (const u8 *)t + at, sizeof(v));
	return v;
}

static u64 qword(const struct acpi_table *t, unsigned at)
{
	return dword(t, at) | (u64)dword(t, at + 4) << 32;
}

static bool whole(const struct acpi_table *t)
{
	return t && t->length >= sizeof(*t) && t->length < 1 << 20 &&
		acpi_sum_is_zero(t, t->length);
}

static bool test_root(void)
{
	const struct acpi_rsdp *r = acpi_rsdp();

	if (!check(r != NULL, "start info has an RSDP"))
		return false;
	check(r == acpi_scan_rsdp(), "and scanning low memory finds the same");
	check(!memcmp(r->signature, "RSD PTR ", 8) && acpi_sum_is_zero(r, 20) && r->revision >= 2,
	      "RSDP: signature, first checksum, revision %d", r->revision);
	check(r->length >= sizeof(*r) && acpi_sum_is_zero(r, r->length),
	      "RSDP: length and extended checksum");
	return check(whole(mem_at(r->xsdt)) && !memcmp(mem_at(r->xsdt), "XSDT", 4),
		     "XSDT is whole");
}

static bool test_tables(void)
{
	const struct acpi_table *t;
	bool held = true;
	unsigned n;

	for (n = 0; (t = acpi_nth(n)); n++)
		held &= check(whole(t), "%c%c%c%c is whole: %d bytes", t->signature[0],
			      t->signature[1], t->signature[2], t->signature[3], t->length);
	return held && n;
}

static bool is_port(const struct acpi_table *t, unsigned at, u64 port)
{
	/* Generic address: space, width, offset, access size, address. */
	return byte(t, at) == SPACE_IO && byte(t, at + 1) == 8 && qword(t, at + 4) == port;
}

static void test_fadt(void)
{
	const struct acpi_table *t = acpi_find("FACP"), *dsdt;
	u32 flags;

	if (!check(t && t->length >= FADT_HW_REDUCED_LEN, "FADT is there, revision %d",
		   t ? t->revision : 0))
		return;
	flags = dword(t, FADT_FLAGS);
	check(flags & FLAG_HW_REDUCED, "it says hardware-reduced");
	check(flags & FLAG_RESET_REG, "it has a reset register");
	check((is_port(t, FADT_RESET_REG, PORT_RESET) && byte(t, FADT_RESET_VALUE) == RESET_FULL) ||
	      (is_port(t, FADT_RESET_REG, PORT_KBC_STATUS) &&
	       byte(t, FADT_RESET_VALUE) == KBC_RESET),
	      "which is one of the machine's two");
	check(is_port(t, FADT_SLEEP_CONTROL, PORT_SLEEP_CONTROL), "sleep control is 600");
	check(is_port(t, FADT_SLEEP_STATUS, PORT_SLEEP_STATUS), "sleep status is 601");
	dsdt = acpi_dsdt();
	check(qword(t, FADT_X_DSDT) && whole(dsdt) && !memcmp(dsdt->signature, "DSDT", 4),
	      "DSDT is whole: %d bytes", dsdt ? dsdt->length : 0);
}

static void test_madt(void)
{
	const struct acpi_madt *madt = (const void *)acpi_find("APIC");
	const struct madt_entry *e = NULL, *last = NULL;
	u32 ids[MADT_MAX], ioapics = 0;
	unsigned nr, i, j, twice = 0;

	if (!check(madt != NULL, "MADT is there"))
		return;
	check(madt->lapic == (u32)LAPIC_BASE, "local APICs are at %x", madt->lapic);
	while ((e = acpi_madt_next(madt, e))) {
		last = e;
		if (e->type == MADT_IOAPIC) {
			ioapics++;
			check(e->ioapic.addr == (u32)IOAPIC_BASE && !e->ioapic.gsi_base,
			      "the IOAPIC is at %x", e->ioapic.addr);
		}
	}
	check(last && (const u8 *)last + last->length == (const u8 *)madt + madt->head.length,
	      "its entries end where it does");
	check(ioapics == 1, "it has one IOAPIC");
	nr = acpi_cpus(ids, MADT_MAX);
	check(nr == arg_u64("cpus", 1), "and %d processors", nr);
	for (i = 0; i < nr && i < MADT_MAX; i++)
		for (j = 0; j < i; j++)
			twice += ids[i] == ids[j];
	check(!twice, "each with its own APIC id");
}

static void test_mcfg(void)
{
	const struct acpi_table *t = acpi_find("MCFG");

	if (arg_is("transport", "mmio")) {
		check(!t, "no MCFG: there is no PCI bus");
		return;
	}
	if (!check(t && t->length >= MCFG_LEN, "MCFG is there"))
		return;
	check(qword(t, MCFG_BASE) == ECAM_BASE, "ECAM is at %llx", qword(t, MCFG_BASE));
	check(!byte(t, MCFG_FIRST_BUS) && !byte(t, MCFG_LAST_BUS) && !byte(t, MCFG_SEGMENT),
	      "for bus 0 of segment 0");
}

static void test_mmio_devices(void)
{
	unsigned n;
	u64 base;
	u32 gsi;

	if (!arg_is("transport", "mmio"))
		return;
	for (n = 0; acpi_virtio_mmio(n, &base, &gsi); n++)
		check(base == MMIO_BASE + n * MMIO_STRIDE && gsi < 24,
		      "virtio-mmio %d is at %llx, GSI %d", n, base, gsi);
	check(n > 0, "ACPI has %d virtio-mmio devices", n);
}

int main(const struct start_info *info, const char *cmdline)
{
	(void)info;
	(void)cmdline;
	if (!test_root() || !test_tables())
		return 1;
	test_fadt();
	test_madt();
	test_mcfg();
	test_mmio_devices();
	return check_result();
}
