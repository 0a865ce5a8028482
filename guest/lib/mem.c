/*
 * mem.c: physical addresses as pointers: pages above 4 GiB, a GiB at a time.
 *
 * Spec: Intel SDM vol. 3, 4.5 (4-level paging).
 */
#include "guest/lib/mem.h"

#include "guest/lib/start.h"

enum { ENTRIES = 512, MAX_GIB = 8, PTR = 0x23, PAGE_2M = 0xe3 };

extern u64 page_pdpt[];

static u64 tables[MAX_GIB][ENTRIES] NOINIT __attribute__((aligned(4096)));
static unsigned nr_tables;

u64 mem_map(u64 addr)
{
	u64 gib = addr >> 30, *table, at;
	unsigned i;

	if (gib >= ENTRIES || (!page_pdpt[gib] && nr_tables == MAX_GIB)) {
		say("not ok - cannot map %llx\n", addr);
		guest_exit(EXIT_TRAP);
	}
	if (page_pdpt[gib])
		return addr;
	table = tables[nr_tables++];
	for (i = 0, at = gib << 30 | PAGE_2M; i < ENTRIES; i++, at += 1 << 21)
		table[i] = at;
	barrier();
	page_pdpt[gib] = mem_addr(table) | PTR;
	barrier();
	return addr;
}
