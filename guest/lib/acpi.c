/*
 * acpi.c: ACPI tables: finding them and what is in them.
 *
 * Spec: ACPI 6.5, 5.2 (tables), 6.4 (resource descriptors).
 */
#include "guest/lib/acpi.h"

#include "guest/lib/mem.h"
#include "guest/lib/start.h"
#include "guest/lib/string.h"

enum { FADT_DSDT = 40, FADT_X_DSDT = 140 };

const struct acpi_rsdp *acpi_rsdp(void)
{
	return mem_at(start_info->rsdp_paddr);
}

const struct acpi_rsdp *acpi_scan_rsdp(void)
{
	u64 at;

	for (at = RSDP_AREA; at < 0x100000; at += 16)
		if (!memcmp(mem_at(at), "RSD PTR ", 8))
			return mem_at(at);
	return NULL;
}

const struct acpi_table *acpi_nth(unsigned n)
{
	const struct acpi_rsdp *r = acpi_rsdp();
	const struct acpi_table *root;
	u64 addr = 0;
	size_t size;

	if (!r)
		return NULL;
	/* This machine has an XSDT; QEMU's q35, where payloads are tried first, only an RSDT. */
	root = mem_at(r->revision >= 2 ? r->xsdt : r->rsdt);
	size = r->revision >= 2 ? sizeof(u64) : sizeof(u32);
	if (sizeof(*root) + (n + 1) * size > root->length)
		return NULL;
	memcpy(&addr, (const u8 *)(root + 1) + n * size, size);
	return mem_at(addr);
}

const struct acpi_table *acpi_find(const char *signature)
{
	const struct acpi_table *t;
	unsigned n;

	for (n = 0; (t = acpi_nth(n)); n++)
		if (!memcmp(t->signature, signature, 4))
			return t;
	return NULL;
}

const struct acpi_table *acpi_dsdt(void)
{
	const struct acpi_table *fadt = acpi_find("FACP");
	u64 addr = 0;

	if (!fadt)
		return NULL;
	if (fadt->length >= FADT_X_DSDT + sizeof(addr))
		memcpy(&addr, (const u8 *)fadt + FADT_X_DSDT, sizeof(addr));
	if (!addr)
		memcpy(&addr, (const u8 *)fadt + FADT_DSDT, sizeof(u32));
	return mem_at(addr);
}

bool acpi_sum_is_zero(const void *p, size_t len)
{
	const u8 *at = p;
	u8 sum = 0;

	while (len--)
		sum = (u8)(sum + *at++);
	return !sum;
}

const struct madt_entry *acpi_madt_next(const struct acpi_madt *madt, const struct madt_entry *e)
{
	const u8 *end = (const u8 *)madt + madt->head.length;
	const u8 *next = e ? (const u8 *)e + e->length : madt->entries;

	/* A length of 0 would go round for ever. */
	return end - next < 2 || next[1] < 2 ? NULL : (const void *)next;
}

unsigned acpi_cpus(u32 *ids, unsigned max)
{
	const struct acpi_madt *madt = (const void *)acpi_find("APIC");
	const struct madt_entry *e = NULL;
	unsigned nr = 0;
	u32 id;

	while (madt && (e = acpi_madt_next(madt, e))) {
		if (e->type == MADT_LAPIC && e->lapic.flags & MADT_ENABLED)
			id = e->lapic.id;
		else if (e->type == MADT_X2APIC && e->x2apic.flags & MADT_ENABLED)
			id = e->x2apic.id;
		else
			continue;
		if (nr < max)
			ids[nr] = id;
		nr++;
	}
	return nr;
}

static const u8 *find_bytes(const u8 *from, const u8 *end, const char *what, size_t len)
{
	for (; (size_t)(end - from) >= len && from < end; from++)
		if (*from == (u8)*what && !memcmp(from, what, len))
			return from;
	return NULL;
}

/* The n-th in one table; how many there were before it is taken from *n. */
static bool find_virtio_mmio(const struct acpi_table *t, unsigned *n, u64 *base, u32 *gsi)
{
	const u8 *at = (const u8 *)t, *end = at + t->length;
	u32 base32;

	do {
		at = find_bytes(at, end, "LNRO0005", 8);
		if (!at)
			return false;
		at += 8;
	} while ((*n)--);

	/* Memory32Fixed, then Interrupt with one GSI. */
	at = find_bytes(at, end, "\x86\x09\x00", 3);
	if (!at)
		return false;
	memcpy(&base32, at + 4, sizeof(base32));
	*base = base32;
	at = find_bytes(at, end, "\x89\x06\x00", 3);
	if (!at)
		return false;
	memcpy(gsi, at + 5, sizeof(*gsi));
	return true;
}

bool acpi_virtio_mmio(unsigned n, u64 *base, u32 *gsi)
{
	const struct acpi_table *t = acpi_dsdt();
	unsigned i;

	if (t && find_virtio_mmio(t, &n, base, gsi))
		return true;
	for (i = 0; (t = acpi_nth(i)); i++)
		if (!memcmp(t->signature, "SSDT", 4) && find_virtio_mmio(t, &n, base, gsi))
			return true;
	return false;
}
