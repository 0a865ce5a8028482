/* limit.c: token buckets that may be overdrawn once, so that no size is too large. */
#include "vmm/core/limit.h"

#define SECOND		1000000000ULL
#define HOUR		3600000000000ULL

#define UNITS_MAX	(1ULL << 62)		/* two of them still fit */
#define BEHIND_NS	1000000ULL		/* what comes is another's, who is about to take it */

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
	b->rest = (u64)(more % SECOND);
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
	return ns > HOUR ? HOUR : (u64)ns;
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
	l->line = NULL;
	limit_set(l, c);
}

void limit_fini(struct limit *l)
{
	pthread_mutex_destroy(&l->lock);
}

/* 0: there is something of both. */
static u64 look(struct limit *l, u64 now)
{
	u64 a = wait_for(&l->bytes, now), b = wait_for(&l->ops, now);

	return MAX(a, b);
}

static void take_both(struct limit *l, u64 bytes)
{
	take(&l->bytes, bytes);
	take(&l->ops, 1);
}

u64 limit_take(struct limit *l, u64 bytes, u64 now)
{
	u64 wait;

	if (!load_acquire(&l->on))
		return 0;
	pthread_mutex_lock(&l->lock);
	wait = look(l, now);
	if (!wait)
		take_both(l, bytes);
	pthread_mutex_unlock(&l->lock);
	return wait;
}

void limit_charge(struct limit *l, u64 bytes)
{
	pthread_mutex_lock(&l->lock);
	take(&l->bytes, bytes);
	pthread_mutex_unlock(&l->lock);
}

static void leave_line(struct limit *l, struct limit_user *u)
{
	struct limit_user **at = &l->line;

	while (*at != u)
		at = &(*at)->next;
	*at = u->next;
	u->waits = u->took = false;
}

static void stand_in_line(struct limit *l, struct limit_user *u)
{
	struct limit_user **at = &l->line;

	if (u->waits && !u->took)
		return;
	if (u->waits)
		leave_line(l, u);
	while (*at)
		at = &(*at)->next;
	*at = u;
	u->next = NULL;
	u->waits = true;
}

u64 limit_take_turn(struct limit *l, struct limit_user *u, u64 bytes, u64 now)
{
	u64 wait;

	if (!load_acquire(&l->on))
		return 0;
	pthread_mutex_lock(&l->lock);
	wait = look(l, now);
	if (!wait && l->line && l->line != u)
		wait = BEHIND_NS;
	if (wait) {
		stand_in_line(l, u);
	} else {
		take_both(l, bytes);
		u->took = u->waits;
	}
	pthread_mutex_unlock(&l->lock);
	return wait;
}

void limit_leave(struct limit *l, struct limit_user *u)
{
	if (!u->waits)
		return;
	pthread_mutex_lock(&l->lock);
	leave_line(l, u);
	pthread_mutex_unlock(&l->lock);
}
