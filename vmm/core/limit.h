/* limit.h: how fast something may go: token buckets. */
#pragma once
#include <pthread.h>
#include "vmm/core/base.h"

/* rate 0: no limit.  A burst is what may pass at once after a pause. */
struct limit_rate {
	u64 rate, burst;		/* units a second; units */
	u64 extra;			/* units on top, once */
};

struct limit_config {
	struct limit_rate bytes, ops;
};

struct bucket {
	struct limit_rate r;
	int64_t level;			/* below 0: what went before was larger than the rest */
	u64 rest;			/* of a unit, in units of 1 / 1000000000: nothing is lost */
	u64 at_ns;			/* when both were right */
	u64 extra;
};

/* One of several that share a limit; zeroed at first.  Embedded in its owner, who
 * alone calls with it. */
struct limit_user {
	struct limit_user *next;
	bool waits, took;
};

/* Shared by all queues of a device.  Any thread. */
struct limit {
	pthread_mutex_t lock;
	bool on;			/* atomic: there is any limit */
	struct bucket bytes, ops;
	struct limit_user *line;	/* who waits, the longest first */
};

void limit_init(struct limit *, const struct limit_config *);
void limit_fini(struct limit *);
void limit_set(struct limit *, const struct limit_config *);	/* from now on, with full buckets */
/*
 * 0: one more operation of so many bytes may go.  Else the ns until it is worth
 * asking again, and nothing was taken.  Larger than a burst is fine: it goes when
 * there is anything at all, and what follows waits for longer.
 */
u64  limit_take(struct limit *, u64 bytes, u64 now_ns);
/*
 * The same for one of several: whoever waits for the longest is the first to take
 * what comes, and all of it; then he is the last.  Who was told to wait and does
 * not mean to ask again leaves, or the others would wait for him.
 */
u64  limit_take_turn(struct limit *, struct limit_user *, u64 bytes, u64 now_ns);
void limit_leave(struct limit *, struct limit_user *);	/* idempotent */
/* Of one that may go: so many bytes more than was said; what follows waits for longer. */
void limit_charge(struct limit *, u64 bytes);
