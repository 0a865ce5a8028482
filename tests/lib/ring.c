/* ring.c: see ring.h. */
#include "tests/lib/ring.h"
#include "tests/lib/test.h"

static void put(struct mem *m, u64 addr, const void *data, size_t len)
{
	assert_int_equal(mem_write(m, GPA(addr), data, len), 0);
}

/* What both sides look at while the other may change it: as a driver must, in one piece and in order. */
static u16 *shared(struct mem *m, u64 addr)
{
	u16 *p = mem_ring(m, GPA(addr), sizeof(*p), sizeof(*p));

	assert_non_null(p);
	return p;
}

static u16 get16(struct mem *m, u64 addr)
{
	return load_acquire(shared(m, addr));
}

static void put16(struct mem *m, u64 addr, u16 value)
{
	store_release(shared(m, addr), value);
}

void ring_init(struct ring *r, struct mem *m, u64 base, u16 size)
{
	*r = (struct ring){ .mem = m, .size = size, .desc = base };
	r->avail = ALIGN_UP(base + 16ULL * size, 4096ULL);
	r->used = ALIGN_UP(r->avail + 6 + 2ULL * size, 4096ULL);
	assert_int_equal(mem_fill(m, GPA(base), 0, r->used + 6 + 8 * size - base), 0);
}

void ring_desc_at(struct mem *m, u64 table, u16 i, u64 addr, u32 len, u16 flags, u16 next)
{
	struct vring_desc d = { .addr = addr, .len = len, .flags = flags, .next = next };

	put(m, table + 16ULL * i, &d, sizeof(d));
}

void ring_desc(struct ring *r, u16 i, u64 addr, u32 len, u16 flags, u16 next)
{
	ring_desc_at(r->mem, r->desc, i, addr, len, flags, next);
}

void ring_offer(struct ring *r, u16 head)
{
	put(r->mem, r->avail + 4 + 2ULL * (r->next_avail % r->size), &head, sizeof(head));
	ring_set_avail_idx(r, r->next_avail + 1);
}

void ring_set_avail_idx(struct ring *r, u16 idx)
{
	r->next_avail = idx;
	put16(r->mem, r->avail + 2, idx);
}

void ring_set_avail_flags(struct ring *r, u16 flags)
{
	put16(r->mem, r->avail, flags);
}

void ring_set_used_event(struct ring *r, u16 idx)
{
	put16(r->mem, r->avail + 4 + 2ULL * r->size, idx);
}

u16 ring_used_idx(struct ring *r)
{
	return get16(r->mem, r->used + 2);
}

u16 ring_used_flags(struct ring *r)
{
	return get16(r->mem, r->used);
}

u16 ring_avail_event(struct ring *r)
{
	return get16(r->mem, r->used + 4 + 8ULL * r->size);
}

struct vring_used_elem ring_used(struct ring *r, u16 i)
{
	struct vring_used_elem e;

	assert_int_equal(mem_read_obj(r->mem, GPA(r->used + 4 + 8ULL * (i % r->size)), &e), 0);
	return e;
}

u16 ring_add(struct ring *r, const struct piece *p, int nr)
{
	u16 head = r->next_desc % r->size;

	for (int i = 0; i < nr; i++) {
		u16 at = r->next_desc++ % r->size;

		ring_desc(r, at, p[i].addr, p[i].len, (p[i].in ? VRING_DESC_F_WRITE : 0) |
			  (i + 1 < nr ? VRING_DESC_F_NEXT : 0), (at + 1) % r->size);
	}
	ring_offer(r, head);
	return head;
}
