/* acpi_test.c: the ACPI tables, walked the way an operating system does. */
#include "firmware/acpi.h"
#include "firmware/layout.h"
#include "tests/lib/test.h"

static struct mem *mem;
static u8 area[LAYOUT_ACPI_END - LAYOUT_ACPI];
static u64 rsdp;

static void build(const struct boot_machine *m)
{
	assert_int_equal(mem_new(&mem, 2 * MIB, false, NULL), 0);
	assert_int_equal(acpi_build(mem, m, &rsdp, NULL), 0);
	assert_int_equal(mem_read_obj(mem, GPA(LAYOUT_ACPI), &area), 0);
	mem_free(mem);
}

static const u8 *at(u64 addr)
{
	assert_in_range(addr, LAYOUT_ACPI, LAYOUT_ACPI_END - 1);
	return area + (addr - LAYOUT_ACPI);
}

static u64 get(const u8 *p, unsigned size)
{
	u64 value = 0;

	memcpy(&value, p, size);
	return value;
}

static u8 sum(const u8 *p, size_t len)
{
	u8 s = 0;

	while (len--)
		s += *p++;
	return s;
}

/* A table whose length and checksum are right. */
static const u8 *table(u64 addr)
{
	const u8 *t = at(addr);
	u32 len = get(t + 4, 4);

	assert_in_range(len, 36, sizeof(area) - (t - area));
	assert_int_equal(sum(t, len), 0);
	return t;
}

/* The table of that name in the XSDT; all of them are checked on the way. */
static const u8 *find(const char *name)
{
	const u8 *x = table(get(at(rsdp) + 24, 8)), *found = NULL;
	u32 len = get(x + 4, 4);

	assert_memory_equal(x, "XSDT", 4);
	assert_int_equal((len - 36) % 8, 0);
	for (u32 i = 36; i < len; i += 8) {
		const u8 *t = table(get(x + i, 8));

		if (memcmp(t, name, 4))
			continue;
		assert_null(found);
		found = t;
	}
	return found;
}

static int count(const u8 *t, const void *what, size_t len)
{
	int n = 0;

	for (u32 i = 0; i + len <= get(t + 4, 4); i++)
		n += !memcmp(t + i, what, len);
	return n;
}

static struct boot_machine machine(unsigned cpus, unsigned mmio, bool pci)
{
	struct boot_machine m = {
		.nr_cpus = cpus, .has_pci = pci, .nr_mmio_dev = mmio,
		.pci_ecam = LAYOUT_PCI_ECAM, .pci_ecam_len = 1 << 20,
	};

	for (unsigned i = 0; i < mmio; i++) {
		m.mmio_dev[i].base = LAYOUT_VIRTIO_MMIO + i * LAYOUT_VIRTIO_MMIO_STEP;
		m.mmio_dev[i].gsi = 16 + i;
	}
	return m;
}

static void test_rsdp(void **state)
{
	struct boot_machine m = machine(1, 0, true);

	(void)state;
	build(&m);
	assert_int_equal(rsdp % 16, 0);
	assert_memory_equal(at(rsdp), "RSD PTR ", 8);
	assert_int_equal(sum(at(rsdp), 20), 0);
	assert_int_equal(at(rsdp)[15], 2);
	assert_int_equal(get(at(rsdp) + 20, 4), 36);
	assert_int_equal(sum(at(rsdp), 36), 0);
	assert_int_equal(get(at(rsdp) + 24, 8) % 8, 0);
}

static void test_fadt_and_dsdt(void **state)
{
	struct boot_machine m = machine(2, 0, true);
	const u8 *f, *dsdt;

	(void)state;
	build(&m);
	f = find("FACP");
	assert_non_null(f);
	assert_int_equal(get(f + 4, 4), 276);
	assert_int_equal(get(f + 112, 4) >> 20 & 1, 1);		/* hardware-reduced */
	assert_int_equal(get(f + 112, 4) >> 10 & 1, 1);		/* has a reset register */
	assert_int_equal(get(f + 112, 4) >> 4 & 1, 0);		/* a fixed power button: none */
	/* Reset: a byte, 0xfe, to port 0x64. */
	assert_int_equal(f[116], 1);
	assert_int_equal(f[117], 8);
	assert_int_equal(get(f + 120, 8), 0x64);
	assert_int_equal(f[128], 0xfe);
	/* Sleep control and status at 0x600 and 0x601. */
	assert_int_equal(f[244], 1);
	assert_int_equal(get(f + 248, 8), 0x600);
	assert_int_equal(f[256], 1);
	assert_int_equal(get(f + 260, 8), 0x601);
	assert_int_equal(get(f + 40, 4), get(f + 140, 8));
	dsdt = table(get(f + 140, 8));
	assert_memory_equal(dsdt, "DSDT", 4);
	assert_int_equal(count(dsdt, "COM1", 4), 1);
	assert_true(count(dsdt, "_S5_", 4) == 1);
}

static void test_madt(void **state)
{
	static const unsigned nr[] = { 1, 2, 7, 64 };

	(void)state;
	for (unsigned k = 0; k < ARRAY_SIZE(nr); k++) {
		struct boot_machine m = machine(nr[k], 0, true);
		unsigned cpus = 0, ioapics = 0;
		const u8 *t, *end;

		build(&m);
		t = find("APIC");
		assert_non_null(t);
		assert_int_equal(get(t + 36, 4), 0xfee00000);
		end = t + get(t + 4, 4);
		for (const u8 *p = t + 44; p < end; p += p[1]) {
			assert_true(p[1] >= 2 && p + p[1] <= end);
			if (p[0] == 0) {
				assert_int_equal(p[1], 8);
				assert_int_equal(p[2], cpus);	/* uid, apic id */
				assert_int_equal(p[3], cpus);
				assert_int_equal(get(p + 4, 4), 1);
				cpus++;
			} else if (p[0] == 1) {
				assert_int_equal(p[1], 12);
				assert_int_equal(get(p + 4, 4), 0xfec00000);
				assert_int_equal(get(p + 8, 4), 0);
				ioapics++;
			}
		}
		assert_int_equal(cpus, nr[k]);
		assert_int_equal(ioapics, 1);
	}
}

static void test_mcfg(void **state)
{
	struct boot_machine m = machine(1, 0, true);
	const u8 *t;

	(void)state;
	build(&m);
	t = find("MCFG");
	assert_non_null(t);
	assert_int_equal(get(t + 4, 4), 60);
	assert_int_equal(get(t + 44, 8), LAYOUT_PCI_ECAM);
	assert_int_equal(t[54], 0);
	assert_int_equal(t[55], 0);
	assert_int_equal(count(find("SSDT"), "PCI0", 4), 1);
}

static void test_without_pci(void **state)
{
	struct boot_machine m = machine(1, 1, false);

	(void)state;
	build(&m);
	assert_null(find("MCFG"));
	assert_non_null(find("FACP"));
	assert_non_null(find("APIC"));
	assert_int_equal(count(find("SSDT"), "PCI0", 4), 0);
}

/* No template's mark is left over, and every device has its own values. */
static void test_ssdt_at_its_largest(void **state)
{
	struct boot_machine m = machine(64, 20, false);
	const u8 *t;

	(void)state;
	build(&m);
	t = find("SSDT");
	assert_non_null(t);
	assert_int_equal(count(t, "CPUN", 4), 0);
	assert_int_equal(count(t, "VION", 4), 0);
	for (u32 mark = 0x5aa50001; mark <= 0x5aa50003; mark++)
		assert_int_equal(count(t, &mark, 4), 0);
	assert_int_equal(count(t, "ACPI0007", 8), 64);
	assert_int_equal(count(t, "LNRO0005", 8), 20);
	for (u32 i = 0; i < 64; i++) {
		char name[8];

		snprintf(name, sizeof(name), "C%03X", i);
		assert_int_equal(count(t, name, 4), 1);
	}
	for (u32 i = 0; i < 20; i++) {
		u32 base = m.mmio_dev[i].base, gsi = m.mmio_dev[i].gsi;
		u8 irq[] = { 0x89, 6, 0, 3, 1, gsi, 0, 0, 0 };	/* consumer, edge, high */
		char name[8];

		snprintf(name, sizeof(name), "V%03X", i);
		assert_int_equal(count(t, name, 4), 1);
		assert_int_equal(count(t, &base, 4), 1);
		assert_int_equal(count(t, irq, sizeof(irq)), 1);
	}
}

static void test_all_there_can_be(void **state)
{
	struct boot_machine m = machine(64, BOOT_MAX_MMIO, true);

	(void)state;
	build(&m);
	assert_non_null(find("SSDT"));
	assert_int_equal(count(find("SSDT"), "LNRO0005", 8), BOOT_MAX_MMIO);
}

static void test_no_room(void **state)
{
	struct boot_machine m = machine(1, 0, true);
	struct err err = { 0 };

	(void)state;
	assert_int_equal(mem_new(&mem, 512 * KIB, false, NULL), 0);
	assert_int_equal(acpi_build(mem, &m, &rsdp, &err), -ENOSPC);
	assert_says(err.msg, "acpi");
	mem_free(mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rsdp), cmocka_unit_test(test_fadt_and_dsdt),
		cmocka_unit_test(test_madt), cmocka_unit_test(test_mcfg),
		cmocka_unit_test(test_without_pci), cmocka_unit_test(test_ssdt_at_its_largest),
		cmocka_unit_test(test_all_there_can_be), cmocka_unit_test(test_no_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
