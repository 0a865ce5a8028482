/* booted.c: see booted.h. */
#include "tests/fuzz/lib/booted.h"
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "firmware/layout.h"

enum { PAGE = 4096 };

static void change(struct booted *b, struct fuzz *f, size_t header)
{
	for (int n = fuzz_u8(f) % 16; n; n--) {
		u8 how = fuzz_u8(f);
		size_t at = how & 0x80 ? fuzz_u16(f) : header + fuzz_u8(f);
		unsigned size = 1U << (how & 3);
		u64 value = how & 0x40 ? fuzz_u64(f) : how & 0x20 ? ~0ULL - fuzz_u8(f) : fuzz_u8(f);

		if (how & 0x10)
			value <<= how & 0x08 ? 20 : 8;
		if (at + size <= b->file_len)
			memcpy(b->file + at, &value, size);
	}
}

struct booted *booted_new(struct fuzz *f, const void *sound, size_t len, size_t header, bool *raw)
{
	static const u32 lens[] = { 0, 1, 100, PAGE, PAGE + 1, BOOTED_FILE_MAX };
	static struct booted b;
	u8 how = fuzz_u8(f), size = fuzz_u8(f);

	memset(&b.machine, 0, sizeof(b.machine));
	b.machine.nr_cpus = 1 + size % 64;
	b.machine.has_pci = how & 0x40;
	b.machine.pci_ecam = LAYOUT_PCI_ECAM;
	b.machine.pci_ecam_len = 1 << 20;
	b.machine.nr_mmio_dev = how & 0x40 ? 0 : size % BOOT_MAX_MMIO;
	b.mem_len = (1 + size / 32) * MIB + (how & 3) * PAGE;
	b.mem_len = MIN(b.mem_len, (u64)BOOTED_MEM_MAX);
	b.initrd_len = lens[(how >> 2 & 7) % ARRAY_SIZE(lens)];
	for (size_t i = 0; i < b.initrd_len; i++)
		b.initrd[i] = 1 + i % 255;
	fuzz_text(f, b.cmdline, how & 0x20 ? 20 : 255);
	*raw = how & 0x80;
	b.file_len = *raw ? MIN(f->left, BOOTED_FILE_MAX) : len;
	if (*raw) {
		fuzz_bytes(f, b.file, b.file_len);
	} else {
		memcpy(b.file, sound, len);
		change(&b, f, header);
		if (fuzz_u8(f) & 1)
			b.file_len = fuzz_u16(f) % (len + 1);
	}
	b.nr_places = 0;
	return &b;
}

bool booted_load(struct booted *b)
{
	struct fuzz_file kernel = fuzz_file(b->file, b->file_len);
	struct fuzz_file initrd = fuzz_file(b->initrd, b->initrd_len);
	struct err err = { 0 };
	int rc;

	fuzz_check(!mem_new(&b->mem, b->mem_len, false, &err), "%s", err.msg);
	b->ram = mem_region(b->mem, 0).host;
	rc = boot_load(b->mem, &b->machine, kernel.fd, b->initrd_len ? initrd.fd : -1, b->cmdline,
		       &b->start, &err);
	close(kernel.fd);
	close(initrd.fd);
	fuzz_check(err.code == rc && !rc == !*err.msg, "%d, and %d says '%s'", rc, err.code, err.msg);
	fuzz_check(!strchr(err.msg, '\n'), "more than a line: '%s'", err.msg);
	if (rc)
		mem_free(b->mem);
	return !rc;
}

void booted_expect(struct booted *b, u64 addr, const u8 *bytes, u64 len, u64 from, u64 to)
{
	fuzz_check(len <= b->mem_len && addr >= from && addr <= to && len <= to - addr &&
		   to <= b->mem_len, "%#llx+%#llx is not inside %#llx to %#llx",
		   (unsigned long long)addr, (unsigned long long)len, (unsigned long long)from,
		   (unsigned long long)to);
	fuzz_check(b->nr_places < (int)ARRAY_SIZE(b->place), "too many places");
	b->place[b->nr_places].from = addr;
	b->place[b->nr_places++].to = addr + len;
	memcpy(b->expected + addr, bytes, len);
}

void booted_copy(struct booted *b, u64 addr, void *to, size_t len)
{
	fuzz_check(addr < b->mem_len && len <= b->mem_len - addr, "%#llx is no memory",
		   (unsigned long long)addr);
	memcpy(to, b->ram + addr, len);
}

void booted_check_map(struct booted *b, const u64 (*range)[3], unsigned nr)
{
	u64 at = 0, ram = 0;

	for (unsigned i = 0; i < nr; i++) {
		u64 from = range[i][0], len = range[i][1];

		fuzz_check(from >= at && len && from + len > from, "range %u at %#llx", i,
			   (unsigned long long)from);
		at = from + len;
		if (range[i][2] != 1)
			continue;
		fuzz_check(at <= b->mem_len, "RAM up to %#llx", (unsigned long long)at);
		fuzz_check(from >= LAYOUT_ACPI_END || at <= LAYOUT_ACPI, "RAM where ACPI is");
		ram += len;
	}
	fuzz_check(ram + (LAYOUT_ACPI_END - LAYOUT_LOW_END) == b->mem_len, "%#llx bytes of RAM",
		   (unsigned long long)ram);
}

static bool is_place(const struct booted *b, u64 at)
{
	for (int i = 0; i < b->nr_places; i++)
		if (at >= b->place[i].from && at < b->place[i].to)
			return true;
	/* Below 1 MiB it is firmware's. */
	return at < LAYOUT_HIGH && at < LAYOUT_CMDLINE + LAYOUT_CMDLINE_MAX;
}

static void check_page(const struct booted *b, u64 page)
{
	for (u64 at = page; at < page + PAGE; at++)
		fuzz_check(!b->ram[at] || is_place(b, at), "%#x at %#llx", b->ram[at],
			   (unsigned long long)at);
}

/* Untouched pages are not looked at, which would make them be there. */
void booted_end(struct booted *b)
{
	static unsigned char there[BOOTED_MEM_MAX / PAGE];
	u64 high = ALIGN_DOWN((u64)LAYOUT_HIGH, PAGE);

	for (int i = 0; i < b->nr_places; i++) {
		u64 from = b->place[i].from, len = b->place[i].to - from;

		fuzz_check(!memcmp(b->ram + from, b->expected + from, len),
			   "%#llx+%#llx is not what was to be there", (unsigned long long)from,
			   (unsigned long long)len);
	}
	fuzz_check(!mincore(b->ram, b->mem_len, there), "mincore");
	for (u64 page = high; page < b->mem_len; page += PAGE)
		if (there[page / PAGE] & 1)
			check_page(b, page);
	for (u64 page = LAYOUT_LOW_END; page < LAYOUT_ACPI; page += PAGE)
		fuzz_check(!(there[page / PAGE] & 1), "something between low memory and ACPI");
	mem_free(b->mem);
}
