/* prefetch.h: pages of a mapping that are read before somebody waits for them. */
#pragma once
#include "vmm/core/base.h"

struct prefetch;
struct prefetch_range {
	void *host;
	u64 size;		/* bytes, whole pages */
};

/*
 * A thread of its own reads those pages in whose bits are set: one for each page of all
 * ranges, one after the other.  It takes bits over (malloc).  NULL: it could not be
 * started, which costs no more than time.
 */
struct prefetch *prefetch_start(const struct prefetch_range *, unsigned nr, u64 *bits);
/* Before the ranges go.  Returns when the thread has ended; NULL is allowed. */
void prefetch_stop(struct prefetch *);
