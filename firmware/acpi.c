/*
 * acpi.c: ACPI tables (ACPI 6.5, chapter 5; MCFG: PCI Firmware Specification 3.2).
 *
 * Hardware-reduced: a guest needs no PM timer, no SCI and no legacy PIC or PIT
 * probing, which saves hundreds of exits of a boot; power-off and the power
 * button go through a sleep control register and a generic event device.
 * AML is compiled by iasl; devices of which there are several are bodies that
 * are repeated here, with their marks replaced.
 */
#include "firmware/acpi.h"
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "firmware/layout.h"
#include "vmm/core/ports.h"

/* Compiled AML, from blobs.asm. */
extern const u8 aml_dsdt[], aml_dsdt_end[], aml_pci[], aml_pci_end[];
extern const u8 aml_cpu[], aml_cpu_end[], aml_virtio[], aml_virtio_end[];

struct header {
	char signature[4];
	u32 length;
	u8 revision, checksum;
	char oem_id[6], oem_table_id[8];
	u32 oem_revision;
	char creator_id[4];
	u32 creator_revision;
} __attribute__((packed));

struct address {		/* generic address structure, 5.2.3.2 */
	u8 space, width, offset, access;
	u64 addr;
} __attribute__((packed));

enum { SPACE_IO = 1, ACCESS_BYTE = 1 };

struct rsdp {
	char signature[8];
	u8 checksum;
	char oem_id[6];
	u8 revision;
	u32 rsdt, length;
	u64 xsdt;
	u8 extended_checksum, reserved[3];
} __attribute__((packed));

struct fadt {			/* 5.2.9, of which a reduced machine has little */
	struct header h;
	u32 facs, dsdt;
	u8 zero1[109 - 44];
	u16 boot_arch;
	u8 zero2;
	u32 flags;
	struct address reset;
	u8 reset_value;
	u16 arm_boot_arch;
	u8 minor;
	u64 x_facs, x_dsdt;
	u8 zero3[244 - 148];
	struct address sleep_control, sleep_status;
	u64 hypervisor;
} __attribute__((packed));
_Static_assert(sizeof(struct fadt) == 276, "FADT of ACPI 6");
_Static_assert(offsetof(struct fadt, boot_arch) == 109, "FADT: IAPC_BOOT_ARCH");
_Static_assert(offsetof(struct fadt, x_dsdt) == 140, "FADT: X_DSDT");

enum {
	FADT_WBINVD = 1 << 0, FADT_SLEEP_BUTTON = 1 << 5, FADT_RESET_REG = 1 << 10,
	FADT_HW_REDUCED = 1 << 20, BOOT_ARCH_NO_VGA = 1 << 2,
};

enum { AREA = LAYOUT_SNAPSHOT - LAYOUT_ACPI, AML_HEADER = 36 };

struct builder {
	u8 data[AREA];
	u32 len;
	u64 tables[8];
	unsigned nr_tables;
	bool full;
};

static u8 checksum(const void *data, size_t len)
{
	const u8 *p = data;
	u8 sum = 0;

	while (len--)
		sum += *p++;
	return -sum;
}

static void *append(struct builder *b, const void *data, size_t len)
{
	void *at = b->data + b->len;

	if (AREA - b->len < len) {
		b->full = true;
		return b->data;
	}
	memcpy(at, data, len);
	b->len += len;
	return at;
}

static u32 begin(struct builder *b)
{
	b->len = ALIGN_UP(b->len, 16U);
	return b->len;
}

static struct header header(const char *signature, u8 revision)
{
	struct header h = {
		.revision = revision, .oem_id = "VMM   ", .oem_revision = htole32(1),
		.creator_id = "VMM ", .creator_revision = htole32(1),
	};

	memcpy(h.signature, signature, 4);
	memcpy(h.oem_table_id, "VMM     ", 8);
	return h;
}

/* What began at start is a table: length, checksum, and a line in the XSDT. */
static u64 end(struct builder *b, u32 start)
{
	struct header *h = (void *)(b->data + start);

	h->length = htole32(b->len - start);
	h->checksum = 0;
	h->checksum = checksum(h, b->len - start);
	if (b->nr_tables < ARRAY_SIZE(b->tables))
		b->tables[b->nr_tables++] = LAYOUT_ACPI + start;
	return LAYOUT_ACPI + start;
}

static void put_madt(struct builder *b, unsigned nr_cpus)
{
	struct { struct header h; u32 lapic, flags; } __attribute__((packed)) madt = {
		header("APIC", 5), htole32(0xfee00000), 0,
	};
	struct { u8 type, len, id, zero; u32 addr, gsi; } __attribute__((packed)) ioapic = {
		1, 12, 0, 0, htole32(0xfec00000), 0,
	};
	u32 start = begin(b);

	append(b, &madt, sizeof(madt));
	for (unsigned i = 0; i < nr_cpus; i++) {
		struct { u8 type, len, uid, apic; u32 flags; } __attribute__((packed)) cpu = {
			0, 8, i, i, htole32(1),
		};

		append(b, &cpu, sizeof(cpu));
	}
	append(b, &ioapic, sizeof(ioapic));
	end(b, start);
}

static void put_mcfg(struct builder *b, const struct boot_machine *m)
{
	struct {
		struct header h;
		u64 reserved, base;
		u16 segment;
		u8 first_bus, last_bus;
		u32 zero;
	} __attribute__((packed)) mcfg = {
		.h = header("MCFG", 1), .base = htole64(m->pci_ecam),
		.last_bus = (m->pci_ecam_len >> 20) - 1,
	};
	u32 start = begin(b);

	append(b, &mcfg, sizeof(mcfg));
	end(b, start);
}

static void put_fadt(struct builder *b, u64 dsdt)
{
	struct fadt f = {
		.h = header("FACP", 6), .dsdt = htole32(dsdt), .x_dsdt = htole64(dsdt), .minor = 5,
		.boot_arch = htole16(BOOT_ARCH_NO_VGA),
		.flags = htole32(FADT_WBINVD | FADT_SLEEP_BUTTON | FADT_RESET_REG | FADT_HW_REDUCED),
		.reset = { SPACE_IO, 8, 0, ACCESS_BYTE, htole64(PORT_I8042 + 4) },
		.reset_value = I8042_RESET,
		.sleep_control = { SPACE_IO, 8, 0, ACCESS_BYTE,
				   htole64(PORT_ACPI + ACPI_SLEEP_CONTROL) },
		.sleep_status = { SPACE_IO, 8, 0, ACCESS_BYTE, htole64(PORT_ACPI + ACPI_SLEEP_STATUS) },
	};
	u32 start = begin(b);

	append(b, &f, sizeof(f));
	end(b, start);
}

/* Replace every mark in a body of AML; the marks are values nothing else has. */
static void replace(u8 *body, size_t len, const void *mark, const void *value, size_t size)
{
	for (size_t i = 0; i + size <= len; i++)
		if (!memcmp(body + i, mark, size))
			memcpy(body + i, value, size);
}

static void replace_u32(u8 *body, size_t len, u32 mark, u32 value)
{
	mark = htole32(mark);
	value = htole32(value);
	replace(body, len, &mark, &value, sizeof(mark));
}

static void put_name(u8 *body, size_t len, const char *mark, char letter, unsigned i)
{
	char name[12];

	snprintf(name, sizeof(name), "%c%03X", letter, i & 0xfff);
	replace(body, len, mark, name, 4);
}

static void put_ssdt(struct builder *b, const struct boot_machine *m)
{
	struct header h = header("SSDT", 2);
	u32 start = begin(b);

	append(b, &h, sizeof(h));
	if (m->has_pci)
		append(b, aml_pci + AML_HEADER, aml_pci_end - aml_pci - AML_HEADER);
	for (unsigned i = 0; i < m->nr_cpus; i++) {
		size_t len = aml_cpu_end - aml_cpu - AML_HEADER;
		u8 *body = append(b, aml_cpu + AML_HEADER, len);

		put_name(body, len, "CPUN", 'C', i);
		replace_u32(body, len, 0x5aa50001, i);
	}
	for (unsigned i = 0; i < m->nr_mmio_dev; i++) {
		size_t len = aml_virtio_end - aml_virtio - AML_HEADER;
		u8 *body = append(b, aml_virtio + AML_HEADER, len);

		put_name(body, len, "VION", 'V', i);
		replace_u32(body, len, 0x5aa50001, i);
		replace_u32(body, len, 0x5aa50002, m->mmio_dev[i].base);
		replace_u32(body, len, 0x5aa50003, m->mmio_dev[i].gsi);
	}
	end(b, start);
}

static u64 put_xsdt(struct builder *b)
{
	struct header h = header("XSDT", 1);
	u32 start = begin(b);

	append(b, &h, sizeof(h));
	for (unsigned i = 0; i < b->nr_tables; i++) {
		u64 addr = htole64(b->tables[i]);

		append(b, &addr, sizeof(addr));
	}
	return end(b, start);
}

int acpi_build(struct mem *mem, const struct boot_machine *m, u64 *out, struct err *err)
{
	static struct builder b;	/* too large for a stack; the control thread's alone */
	struct rsdp rsdp = { .signature = "RSD PTR ", .oem_id = "VMM   ", .revision = 2,
			     .length = htole32(sizeof(rsdp)) };
	u32 start;

	b.nr_tables = 0;
	b.full = false;
	b.len = sizeof(rsdp);		/* first, where scanning guests find it at once */
	start = begin(&b);
	append(&b, aml_dsdt, aml_dsdt_end - aml_dsdt);
	put_fadt(&b, LAYOUT_ACPI + start);
	put_madt(&b, m->nr_cpus);
	if (m->has_pci)
		put_mcfg(&b, m);
	put_ssdt(&b, m);
	rsdp.xsdt = htole64(put_xsdt(&b));
	rsdp.checksum = checksum(&rsdp, 20);
	rsdp.extended_checksum = checksum(&rsdp, sizeof(rsdp));
	memcpy(b.data, &rsdp, sizeof(rsdp));
	if (b.full || mem_write(mem, GPA(LAYOUT_ACPI), b.data, b.len))
		return err_set(err, -ENOSPC, "acpi: no room for the tables");
	*out = LAYOUT_ACPI;
	return 0;
}
