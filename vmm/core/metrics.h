/* metrics.h: counters, the registry that finds them, and how they are told. */
#pragma once
#include <stdio.h>
#include "vmm/core/base.h"

/*
 * A counter is a u64 in a struct of its owner.  One thread at a time writes it, so that
 * no instruction needs a lock; any thread may read it meanwhile.
 */
static inline void counter_add(u64 *counter, u64 n)
{
	store_once(counter, *counter + n);
}

/* len bytes of them, zero, on lines of the cache that nobody else writes to; for
 * free(3).  NULL: out of memory. */
void *counters_new(size_t len);

/* How long things took: bucket i has those of at most 2^i us, and more than 2^(i-1);
 * the last what took longer. */
enum { HISTOGRAM_BUCKETS = 24 };
struct histogram {
	u64 bucket[HISTOGRAM_BUCKETS + 1];
	u64 sum_ns, min_ns, max_ns;
};
void histogram_add(struct histogram *, u64 ns);
u64  histogram_count(const struct histogram *);

/*
 * The same without buckets, where even asking the clock would be felt: in ticks of the
 * processor's.  Told in ns; min, max 0: there was none.
 */
struct ticks {
	u64 count, sum, min, max;
};
static inline u64 ticks_now(void)
{
	return __builtin_ia32_rdtsc();
}

/* Since an earlier ticks_now, perhaps on another processor, whose clock is behind. */
static inline void ticks_add(struct ticks *s, u64 since)
{
	u64 now = ticks_now(), n = now > since ? now - since : 0;

	counter_add(&s->count, 1);
	counter_add(&s->sum, n);
	if (n < s->min || !s->min)
		store_once(&s->min, n);
	if (n > s->max)
		store_once(&s->max, n);
}

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM, METRIC_TICKS };

struct metric {
	const char *name;		/* "disk_requests_total"; outside vmm_ stands in front */
	const char *label;		/* "op=\"read\""; NULL: none beside the owner's */
	const char *help;		/* of the first of this name: they stand together */
	enum metric_kind kind;
	bool ns;			/* counted in them, told in seconds */
	size_t offset;			/* of the counter in its owner's struct */
};

struct metric_table {
	const char *label;		/* whose value is the owner; NULL: there is but one */
	const struct metric *metric;
	unsigned nr;
};

/* The counters of one owner, or a part of them: what has the same table and owner is
 * told as a sum.  Embedded in the owner; zeroed is in no registry. */
struct metric_set {
	const struct metric_table *table;
	const char *owner;
	const void *counters;
	void (*refresh)(struct metric_set *);	/* before they are read; NULL: need not be */
	struct metric_set *next, **link;
};

/* Zeroed is empty. */
struct metrics {
	struct metric_set *first;
};

/* --- all on the control thread ----------------------------------------------------------- */

/* metrics NULL: nobody will ask. */
void metrics_add(struct metrics *, struct metric_set *);
void metrics_remove(struct metric_set *);		/* idempotent */

void metrics_refresh(struct metrics *);		/* once before any of these */
/* Of all that match; owner, label NULL: any. */
u64  metrics_sum(const struct metrics *, const char *owner, const char *name, const char *label);
struct histogram metrics_histogram(const struct metrics *, const char *owner, const char *name,
				   const char *label);
struct ticks metrics_ticks(const struct metrics *, const char *owner, const char *name,
			 const char *label);	/* in ns */
/* As Prometheus reads it (text format, version 0.0.4). */
void metrics_write(const struct metrics *, FILE *);
