/*
 * modules.c: promise: --initrd arrives as the first PVH module, whole and untouched. size=N says
 * how long it is; its contents are printed, so keep it short.
 *
 * Spec: Xen PVH direct boot ABI, hvm_modlist_entry.
 */
#include "guest/lib/mem.h"
#include "guest/lib/start.h"

int main(const struct start_info *info, const char *cmdline)
{
	const struct start_module *m = mem_at(info->modlist_paddr);
	const struct start_memmap *map = mem_at(info->memmap_paddr);
	bool in_ram = false;
	u32 i;

	(void)cmdline;
	if (!check(info->nr_modules == 1 && m, "%d module(s)", info->nr_modules))
		return 1;
	check(m->size == arg_u64("size", 0), "its size is %lld", m->size);
	check(!(m->paddr & 4095), "it begins on a page, %llx", m->paddr);
	for (i = 0; i < info->memmap_entries; i++)
		in_ram |= map[i].type == MEMMAP_RAM && m->paddr >= map[i].addr &&
			m->paddr + m->size <= map[i].addr + map[i].size;
	check(in_ram, "it lies in RAM");
	say("contents: ");
	serial_write(mem_at(mem_map(m->paddr)), m->size);
	say("\n");
	return check_result();
}
