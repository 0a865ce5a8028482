/* virtq.c: split virtqueues, device side (virtio 1.2, 2.7). */
#include "devices/virtio/virtq.h"
#include <errno.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include "vmm/core/metrics.h"
#include "vmm/core/state.h"

/* No queue, and so no chain, is longer (2.7.5.3.1). */
enum { INDIRECT_MAX = 32768 };

static u16 *avail_event(struct virtq *q) { return (u16 *)&q->used_ring->ring[q->size]; }
static u16 *used_event(struct virtq *q)  { return &q->avail_ring->ring[q->size]; }

int virtq_start(struct virtq *q, struct err *err)
{
	u16 n = q->size;

	if (!n || n > q->max_size || (n & (n - 1)))
		return err_set(err, -EINVAL, "queue %u: size %u", q->index, n);
	q->desc_ring = mem_ring(q->mem, q->desc, 16UL * n, 16);
	q->avail_ring = mem_ring(q->mem, q->avail, 6 + 2UL * n, 2);
	q->used_ring = mem_ring(q->mem, q->used, 6 + 8UL * n, 4);
	if (!q->desc_ring || !q->avail_ring || !q->used_ring) {
		virtq_stop(q);
		return err_set(err, -EFAULT, "queue %u: rings outside memory", q->index);
	}
	q->broken = false;
	return 0;
}

void virtq_stop(struct virtq *q)
{
	q->desc_ring = NULL;
	q->avail_ring = NULL;
	q->used_ring = NULL;
}

void virtq_reset(struct virtq *q)
{
	enum { KEPT = offsetof(struct virtq, desc) };

	memset((u8 *)q + KEPT, 0, sizeof(*q) - KEPT);
	q->size = q->max_size;
}

/* Append one descriptor to the chain.  Readable before writable. */
static int take(struct virtq *q, struct chain *c, int *n, const struct vring_desc *d)
{
	bool in = d->flags & VRING_DESC_F_WRITE;
	struct sg *sg = in ? &c->in : &c->out;
	int got;

	if (!in && c->in.nr)
		return -EPROTO;
	/* No used entry could say how much of it was written (2.7.5.2): who keeps 32 bits may. */
	if (c->out.len + c->in.len + d->len > UINT32_MAX)
		return -EPROTO;
	got = mem_iov(q->mem, GPA(d->addr), d->len, &c->iov[*n], CHAIN_MAX - *n);
	if (got < 0)
		return -EPROTO;
	/* Whoever saves the memory has had it answered before. */
	if (in)
		mem_dirty(q->mem, GPA(d->addr), d->len);
	if (!sg->nr)
		sg->iov = &c->iov[*n];
	sg->nr += got;
	sg->len += d->len;
	*n += got;
	return 0;
}

/* A table need not be aligned. */
static struct vring_desc copy_desc(const struct vring_desc *table, u32 i)
{
	struct vring_desc d;

	memcpy(&d, (const u8 *)table + i * sizeof(d), sizeof(d));
	compiler_barrier();
	return d;
}

/* Walk a chain.  Every descriptor is copied once, then judged; `left` bounds
 * the walk, so a loop ends like any other chain that is too long. */
static int walk(struct virtq *q, struct chain *c)
{
	const struct vring_desc *table = q->desc_ring;
	u32 nr = q->size, i = c->head, left = q->size;
	bool indirect = false;
	int n = 0, rc;

	c->out = c->in = (struct sg){ 0 };
	for (;;) {
		struct vring_desc d;

		if (i >= nr || !left--)
			return -EPROTO;
		d = copy_desc(table, i);
		if (d.flags & VRING_DESC_F_INDIRECT) {
			if (!q->indirect || indirect || (d.flags & VRING_DESC_F_NEXT) || !d.len ||
			    d.len % 16 || d.len / 16 > INDIRECT_MAX)
				return -EPROTO;
			table = mem_ring(q->mem, GPA(d.addr), d.len, 1);
			if (!table)
				return -EPROTO;
			nr = d.len / 16;
			left = MIN(nr, CHAIN_MAX);
			indirect = true;
			i = 0;
			continue;
		}
		rc = take(q, c, &n, &d);
		if (rc)
			return rc;
		if (!(d.flags & VRING_DESC_F_NEXT))
			return 0;
		i = d.next;
	}
}

static u16 waiting(const struct virtq *q)
{
	/* Pairs with the driver's barrier between its entries and the index. */
	return load_acquire(&q->avail_ring->idx) - q->next_avail;
}

unsigned virtq_waiting(const struct virtq *q)
{
	return q->avail_ring ? MIN(waiting(q), q->size) : 0;
}

static void set_kicks(struct virtq *q, bool on)
{
	if (q->event_idx) {
		if (!on)
			return;
		store_release(avail_event(q), q->next_avail);
		mem_dirty(q->mem, q->used, 6 + 8UL * q->size);
	} else {
		mem_dirty(q->mem, q->used, 2);
		store_release(&q->used_ring->flags, on ? 0 : VRING_USED_F_NO_NOTIFY);
	}
}

int virtq_pop(struct virtq *q, struct chain *c)
{
	u16 n;

	if (!q->avail_ring || load_once(&q->broken) || !q->budget)
		return 0;
	n = waiting(q);
	if (!n) {
		set_kicks(q, true);
		/* Pairs with the driver's barrier between its index and the look at
		 * whether to kick: one of the two sees the other. */
		full_barrier();
		n = waiting(q);
		if (!n)
			return 0;
	}
	if (n > q->size) {
		q->broken = true;
		return -EPROTO;
	}
	set_kicks(q, false);
	q->budget--;
	c->head = load_once(&q->avail_ring->ring[q->next_avail % q->size]);
	q->next_avail++;
	if (walk(q, c)) {
		q->broken = true;
		return -EPROTO;
	}
	return 1;
}

int virtq_walk(struct virtq *q, u16 head, struct chain *c)
{
	c->head = head;
	return q->desc_ring ? walk(q, c) : -EPROTO;
}

void virtq_state(struct virtq *q, struct state *s)
{
	state_same(s, "max-size", q->max_size);
	state_u16(s, "size", &q->size);
	state_u64(s, "desc", &q->desc.addr);
	state_u64(s, "avail", &q->avail.addr);
	state_u64(s, "used", &q->used.addr);
	state_bool(s, "ready", &q->ready);
	state_bool(s, "broken", &q->broken);
	state_u16(s, "next-avail", &q->next_avail);
	state_u16(s, "next-used", &q->next_used);
	state_u16(s, "signalled", &q->signalled);
}

void virtq_unpop(struct virtq *q)
{
	q->next_avail--;
}

void virtq_push(struct virtq *q, u16 head, size_t written)
{
	struct vring_used_elem *e;

	if (!q->used_ring)
		return;
	e = &q->used_ring->ring[q->next_used++ % q->size];
	e->id = head;
	e->len = (u32)written;
}

void virtq_publish(struct virtq *q)
{
	if (!q->used_ring)
		return;
	store_release(&q->used_ring->idx, q->next_used);
	mem_dirty(q->mem, q->used, 6 + 8UL * q->size);
}

void virtq_signal(struct virtq *q, u16 upto)
{
	u16 old = q->signalled;
	bool wanted;

	if (!q->used_ring || old == upto)
		return;
	/* Pairs with the driver's barrier after it asked for an interrupt. */
	full_barrier();
	if (q->event_idx)
		wanted = vring_need_event(load_once(used_event(q)), upto, old);
	else
		wanted = !(load_once(&q->avail_ring->flags) & VRING_AVAIL_F_NO_INTERRUPT);
	q->signalled = upto;
	if (!wanted)
		return;
	counter_add(&q->interrupts, 1);
	irq_raise(q->irq);
}

void virtq_flush(struct virtq *q)
{
	if (q->signalled == q->next_used)
		return;
	virtq_publish(q);
	virtq_signal(q, q->next_used);
}

/* Of a window's entries, the newest first. */
static u32 offered_head(const struct virtq *q, unsigned back)
{
	return load_once(&q->avail_ring->ring[(u16)(q->next_avail - back) % q->size]);
}

static u32 answered_head(const struct virtq *q, unsigned back)
{
	return load_once(&q->used_ring->ring[(u16)(q->next_used - back) % q->size].id);
}

/* Whether those that are left are the oldest of the window: so it looks, too, when what was forgotten is no longer in it. */
static bool are_oldest(const struct virtq *q, int *left, unsigned window, unsigned nr)
{
	for (unsigned i = window - nr + 1; i <= window; i++) {
		u32 head = offered_head(q, i);

		if (head >= q->size || left[head] != 1)
			return false;
		left[head] = 2;
	}
	return true;
}

/*
 * What it forgot is in the last entries of the one ring, and not in the other; before those, and before it had them, all
 * was answered, in its order.  Where that does not show which, as when the ring has gone round since, none is: one that is
 * answered twice is worse for a driver.
 */
static void answer_forgotten(struct virtq *q, u16 nr, u16 taken)
{
	u16 ahead = load_acquire(&q->avail_ring->idx) - q->next_avail;
	unsigned window = q->size - MIN(ahead, q->size), found = 0;
	int left[VIRTQ_MAX] = { 0 };
	u32 head;

	for (unsigned i = 1; i <= window; i++)
		if ((head = offered_head(q, i)) < q->size)
			left[head]++;
	for (unsigned i = 1; i + nr <= window; i++)
		if ((head = answered_head(q, i)) < q->size)
			left[head]--;
	for (head = 0; head < q->size; head++)
		found += left[head] == 1 ? 1U : left[head] ? q->size : 0;
	if (found != nr || (nr < window && window <= taken && are_oldest(q, left, window, nr)))
		return;
	for (u16 answer = 0; answer < q->size; answer++)
		if (left[answer])
			virtq_push(q, answer, 0);
	virtq_flush(q);
}

void virtq_served(struct virtq *q, u16 next_avail)
{
	u16 taken = next_avail - q->next_avail;
	u16 used = q->used_ring ? load_acquire(&q->used_ring->idx) : q->next_used + taken;
	u16 forgotten = taken - (u16)(used - q->next_used);

	/* It is the guest's memory: no more than it can be. */
	if (forgotten > q->size) {
		used = q->next_used + taken;
		forgotten = 0;
	}
	q->next_used = q->signalled = used;
	q->next_avail = next_avail;
	if (forgotten)
		answer_forgotten(q, forgotten, taken);
}

/* Into the buffers, or out of them: then buf is written to. */
static size_t sg_move(struct sg *sg, char *buf, size_t len, bool into)
{
	size_t done = 0;

	while (done < len && sg->nr) {
		struct iovec *v = sg->iov;
		size_t k = MIN(v->iov_len, len - done);

		if (into)
			memcpy(v->iov_base, buf + done, k);
		else
			memcpy(buf + done, v->iov_base, k);
		v->iov_base = (char *)v->iov_base + k;
		v->iov_len -= k;
		sg->len -= k;
		done += k;
		if (!v->iov_len) {
			sg->iov++;
			sg->nr--;
		}
	}
	return done;
}

size_t sg_read(struct sg *sg, void *dst, size_t len)
{
	return sg_move(sg, dst, len, false);
}

size_t sg_write(struct sg *sg, const void *src, size_t len)
{
	return sg_move(sg, (char *)(uintptr_t)src, len, true);
}

u8 *sg_take_last(struct sg *sg)
{
	struct iovec *v;

	while (sg->nr && !sg->iov[sg->nr - 1].iov_len)
		sg->nr--;
	if (!sg->nr)
		return NULL;
	v = &sg->iov[sg->nr - 1];
	v->iov_len--;
	sg->len--;
	if (!v->iov_len)
		sg->nr--;
	return (u8 *)v->iov_base + v->iov_len;
}
