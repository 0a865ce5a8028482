/* limit.c: token buckets that may be overdrawn once, so that no size is too large. */
#include "vmm/core/limit.h"

#define SECOND		1000000000ULL

#define UNITS_MAX	(1ULL << 62)		/* two of them still fit */

static void bucket_set(struct bucket *b, const struct limit_rate *r)
{
	*b = (struct bucket){ .r = *r };
	b->r.rate = MIN(r->rate, UNITS_MAX);
	b->r.burst = MIN(r->burst ? r->burst : r->rate / 10, UNITS_MAX);
	b->r.burst = MAX(b->r.burst, 1ULL);
	b->extra = MIN(r->extra, UNITS_MAX);
	b->level = b->r.burst;
}

static void refill(struct bucket *b, u64 now)
{
	u64 passed = now > b->at_ns ? now - b->at_ns : 0;
	unsigned __int128 more = (unsigned __int128)passed * b->r.rate + b->rest;
	u64 room = (u64)((int64_t)b->r.burst - b->level);

	b->at_ns += passed;
	if (more / SECOND >= room) {
		b->level = (int64_t)b->r.burst;
		b->rest = 0;
		return;
	}
	b->level += (int64_t)(more / SECOND);
	b->rest = more % SECOND;
}

/* 0: there is something; else when there will be. */
static u64 wait_for(struct bucket *b, u64 now)
{
	unsigned __int128 ns;

	if (!b->r.rate)
		return 0;
	refill(b, now);
	if (b->level > 0 || b->extra)
		return 0;
	ns = (unsigned __int128)(u64)(1 - b->level) * SECOND - b->rest;
	ns = (ns + b->r.rate - 1) / b->r.rate;
	return ns > 3600 * SECOND ? 3600 * SECOND : (u64)ns;
}

static void take(struct bucket *b, u64 units)
{
	u64 extra = MIN(units, b->extra);

	if (!b->r.rate)
		return;
	b->extra -= extra;
	b->level -= (int64_t)MIN(units - extra, UNITS_MAX);
}

void limit_set(struct limit *l, const struct limit_config *c)
{
	pthread_mutex_lock(&l->lock);
	bucket_set(&l->bytes, &c->bytes);
	bucket_set(&l->ops, &c->ops);
	store_release(&l->on, c->bytes.rate || c->ops.rate);
	pthread_mutex_unlock(&l->lock);
}

void limit_init(struct limit *l, const struct limit_config *c)
{
	pthread_mutex_init(&l->lock, NULL);
	limit_set(l, c);
}

void limit_fini(struct limit *l)
{
	pthread_mutex_destroy(&l->lock);
}

u64 limit_take(struct limit *l, u64 bytes, u64 now)
{
	u64 a, b;

	if (!load_acquire(&l->on))
		return 0;
	pthread_mutex_lock(&l->lock);
	a = wait_for(&l->bytes, now);
	b = wait_for(&l->ops, now);
	if (!a && !b) {
		take(&l->bytes, bytes);
		take(&l->ops, 1);
	}
	pthread_mutex_unlock(&l->lock);
	return MAX(a, b);
}
