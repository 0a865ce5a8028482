/*
 * memmap.c: promise: the guest has the RAM it was given, where the memory map says, and nothing
 * answers in between. mem=SIZE as given to vmm.
 *
 * Spec: Xen PVH direct boot ABI, hvm_memmap_table_entry; ACPI 6.5, 15 (E820 types).
 */
#include "guest/lib/mem.h"
#include "guest/lib/start.h"

enum { PAGE = 4096, LEGACY_HOLE = 0xa0000, LOW_MIB = 0x100000 };

/* The PCI window starts where low RAM ends at most; its end is free. */
#define BEHIND_BARS	0xdff00000ull

static const struct start_memmap *map;
static u32 nr;

static bool works(u64 addr)
{
	u64 at = mem_map(addr), old = mmio_read64(at), pattern = ~old ^ addr;
	bool held;

	mmio_write64(at, pattern);
	held = mmio_read64(at) == pattern;
	mmio_write64(at, old);
	return held && mmio_read64(at) == old;
}

static bool mapped(u64 addr)
{
	u32 i;

	for (i = 0; i < nr; i++)
		if (addr >= map[i].addr && addr < map[i].addr + map[i].size)
			return true;
	return false;
}

/* Nothing is told about this place, so nothing may be there. */
static void test_hole(const char *what, u64 addr)
{
	u64 at;

	if (mapped(addr))
		return;
	at = mem_map(addr);
	mmio_write64(at, 0);
	check(mmio_read64(at) == ~0ull && mmio_read32(at + 4) == ~0u && mmio_read16(at) == 0xffff &&
	      mmio_read8(at + 1) == 0xff, "%s (%llx): ones, and writes vanish", what, addr);
}

static void test_order(void)
{
	u64 end = 0;
	bool sorted = true;
	u32 i;

	for (i = 0; i < nr; i++) {
		if (map[i].addr < end || !map[i].size)
			sorted = false;
		end = map[i].addr + map[i].size;
	}
	check(sorted, "%d entries, sorted, none empty, none overlapping", nr);
}

static void test_ram(u64 mem)
{
	u64 total = 0, low_end = 0, high_end = RAM_HIGH_BASE, end;
	u64 low = mem < RAM_LOW_END ? mem : RAM_LOW_END;
	u32 i;

	for (i = 0; i < nr; i++) {
		if (map[i].type != MEMMAP_RAM)
			continue;
		end = map[i].addr + map[i].size;
		total += map[i].size;
		if (end > RAM_HIGH_BASE)
			high_end = end;
		else
			low_end = end;
		check(map[i].size >= PAGE * 2 && works(map[i].addr) && works(end - 8),
		      "RAM %llx-%llx: first and last page", map[i].addr, end - 1);
	}
	check(low_end <= low && low - low_end < LOW_MIB, "RAM ends at %llx", low_end);
	check(high_end - RAM_HIGH_BASE == mem - low, "and above 4 GiB at %llx", high_end);
	check(total <= mem && mem - total <= LOW_MIB, "%lld KiB of %lld KiB are RAM", total >> 10,
	      mem >> 10);
	test_hole("behind the last RAM", high_end > RAM_HIGH_BASE ? high_end :
		  low == RAM_LOW_END ? BEHIND_BARS : low);
}

int main(const struct start_info *info, const char *cmdline)
{
	(void)cmdline;
	map = mem_at(info->memmap_paddr);
	nr = info->memmap_entries;
	if (!check(map && nr, "there is a memory map"))
		return 1;
	test_order();
	check(mapped(0) && map[0].type == MEMMAP_RAM && map[0].size <= LEGACY_HOLE,
	      "it begins with RAM below 640 KiB");
	test_ram(arg_u64("mem", 0));
	test_hole("PCI hole", 0xd0000000);
	test_hole("between IOAPIC and LAPIC", 0xfed80000);
	test_hole("far away", 0x4000000000);
	check(inb(PORT_NOTHING) == 0xff && inw(0x1234) == 0xffff && inl(0xfff0) == ~0u,
	      "a port that nobody has: ones");
	return check_result();
}
