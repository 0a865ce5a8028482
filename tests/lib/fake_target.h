/* fake_target.h: something to debug for vmm/gdb*.c: processors without a machine. */
#pragma once
#include "vmm/gdb.h"

enum { FAKE_CPUS = 3, FAKE_RAM = 64 * 1024 };
/* Where linear addresses begin that are RAM's; of the pages there one is not mapped. */
#define FAKE_BASE	0xffffffff81000000ULL
#define FAKE_HOLE	(FAKE_BASE + 5 * MEM_PAGE)

struct fake_target {
	struct mem *mem;
	struct cpu_registers regs[FAKE_CPUS];
	bool stopped, detached, killed;
	unsigned nr_stops, nr_resumes;
	enum gdb_action action[FAKE_CPUS];
	struct cpu_point point[CPU_POINTS];
};

extern const struct gdb_ops fake_target_ops;
void fake_target_init(struct fake_target *);
void fake_target_fini(struct fake_target *);
