/*
 * virtq.c: a split virtqueue, from the driver's side.
 *
 * Spec: virtio 1.2, 2.7.
 */
#include "guest/lib/virtq.h"

#include "guest/lib/mem.h"
#include "guest/lib/string.h"

bool virtq_init(struct virtq *q, struct virtio *v, u16 queue, u16 size)
{
	struct virtio_rings r;
	u16 max = virtio_queue_max(v, queue);

	memset(q, 0, sizeof(*q));
	q->v = v;
	q->queue = queue;
	q->size = size < max ? size : max;
	if (!q->size)
		return false;
	r.size = q->size;
	r.desc = mem_addr(q->desc);
	r.avail = mem_addr(&q->avail);
	r.used = mem_addr(&q->used);
	virtio_queue_set(v, queue, &r);
	return virtio_queue_enable(v, queue);
}

/* used_event and avail_event lie behind the last entry of the ring's real size. */
void virtq_want_irq_after(struct virtq *q, u16 idx)
{
	q->avail.ring[q->size] = idx;
	barrier_full();
}

u16 virtq_avail_event(struct virtq *q)
{
	return (u16)q->used.ring[q->size].id;
}

u16 virtq_add(struct virtq *q, const struct virtq_buf *b, unsigned nr, struct virtq_desc *table)
{
	struct virtq_desc *d = NULL;
	u16 head = q->next_desc, i;

	for (i = 0; i < nr; i++, b++) {
		d = table ? &table[i] : &q->desc[q->next_desc];
		if (!table)
			q->next_desc = (u16)((q->next_desc + 1) % q->size);
		d->addr = mem_addr(b->p);
		d->len = b->len;
		d->flags = (b->write ? DESC_WRITE : 0) | DESC_NEXT;
		d->next = table ? (u16)(i + 1) : q->next_desc;
	}
	if (d)
		d->flags &= (u16)~DESC_NEXT;
	if (table) {
		d = &q->desc[head];
		d->addr = mem_addr(table);
		d->len = nr * (u32)sizeof(*table);
		d->flags = DESC_INDIRECT;
		q->next_desc = (u16)((head + 1) % q->size);
	}
	virtq_publish(q, head);
	return head;
}

void virtq_publish(struct virtq *q, u16 head)
{
	q->avail.ring[q->avail.idx % q->size] = head;
	barrier();			/* x86 keeps stores in order: the compiler must, too */
	q->avail.idx++;
}

void virtq_kick(struct virtq *q)
{
	u16 idx = q->avail.idx, event;

	/* The device sets the event and then looks at idx: we do it the other way round. */
	barrier_full();
	if (q->v->features & FEATURE(F_EVENT_IDX)) {
		event = virtq_avail_event(q);
		if ((u16)(idx - event - 1) < (u16)(idx - q->kicked))
			virtio_notify(q->v, q->queue);
	} else if (!(q->used.flags & USED_NO_NOTIFY)) {
		virtio_notify(q->v, q->queue);
	}
	q->kicked = idx;
}

bool virtq_wait(struct virtq *q)
{
	return poll_until(q->used.idx != q->seen);
}

bool virtq_pop(struct virtq *q, u32 *id, u32 *len)
{
	unsigned at = q->seen % q->size;

	if (q->used.idx == q->seen)
		return false;
	barrier();
	*id = q->used.ring[at].id;
	*len = q->used.ring[at].len;
	q->seen++;
	virtq_want_irq_after(q, q->seen);
	return true;
}

bool virtq_do(struct virtq *q, const struct virtq_buf *b, unsigned nr, struct virtq_desc *table,
	      u32 *len)
{
	u16 head = virtq_add(q, b, nr, table);
	u32 id;

	virtq_kick(q);
	return virtq_wait(q) && virtq_pop(q, &id, len) && id == head;
}
