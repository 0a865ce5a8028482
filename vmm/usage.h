/* usage.h: what a VM takes of its host, for its metrics. */
#pragma once
#include "vmm/core/metrics.h"

struct usage {
	struct metric_set metrics;
	u64 cpu_ns, anonymous, file, shared, minor_faults, major_faults, lost_lines;
	u64 memory, uptime_ns, running, paused;		/* the owner's */
};

/* In the registry until usage_fini.  refresh is the owner's; it calls usage_read. */
void usage_init(struct usage *, struct metrics *, void (*refresh)(struct metric_set *));
void usage_fini(struct usage *);
void usage_read(struct usage *);
