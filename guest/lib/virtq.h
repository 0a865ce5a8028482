/*
 * virtq.h: a split virtqueue, from the driver's side.
 *
 * Spec: virtio 1.2, 2.7.
 */
#ifndef GUEST_LIB_VIRTQ_H
#define GUEST_LIB_VIRTQ_H

#include "guest/lib/virtio.h"

enum {
	VIRTQ_SIZE = 16,		/* at most */
	DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4,
	AVAIL_NO_INTERRUPT = 1, USED_NO_NOTIFY = 1,
};

struct virtq_desc {
	u64 addr;
	u32 len;
	u16 flags, next;
};

struct virtq_avail {
	u16 flags, idx, ring[VIRTQ_SIZE];
	u16 used_event;			/* where it is if size is VIRTQ_SIZE */
};

struct virtq_used {
	u16 flags, idx;
	struct { u32 id, len; } ring[VIRTQ_SIZE + 1];	/* avail_event is the last one's half */
};

struct virtq {
	struct virtq_desc desc[VIRTQ_SIZE] __attribute__((aligned(16)));
	volatile struct virtq_avail avail;
	volatile struct virtq_used used __attribute__((aligned(4)));
	struct virtio *v;
	u16 queue, size;
	u16 next_desc;			/* in a circle: a test never has more in flight than fit */
	u16 kicked;			/* avail.idx at the last kick */
	u16 seen;			/* used.idx, as far as consumed */
};

/* What a chain is made of: first the device reads, then it writes. */
struct virtq_buf {
	void *p;
	u32 len;
	bool write;
};

/* Sets up and enables queue number `queue`, with `size` entries (no more than the device has). */
bool virtq_init(struct virtq *, struct virtio *, u16 queue, u16 size);

/* Makes a chain of nr descriptors available; table, if given, holds them and the ring only one
 * that points there. Does not kick. Returns the head. */
u16 virtq_add(struct virtq *, const struct virtq_buf *, unsigned nr, struct virtq_desc *table);
void virtq_publish(struct virtq *, u16 head);	/* the last step of virtq_add, alone */
void virtq_kick(struct virtq *);		/* if the device asked for kicks */

bool virtq_wait(struct virtq *);		/* until something is used; false: nothing came */
bool virtq_pop(struct virtq *, u32 *id, u32 *len);

/* EVENT_IDX, each way: the driver wants an interrupt once used.idx has passed idx; the device has
 * said that it wants a kick once avail.idx has. virtq_pop asks for one at the next use. */
void virtq_want_irq_after(struct virtq *, u16 idx);
u16 virtq_avail_event(struct virtq *);

/* add, kick, wait, pop. False: nothing came, or not that chain. */
bool virtq_do(struct virtq *, const struct virtq_buf *, unsigned nr, struct virtq_desc *table,
	      u32 *len);

#endif
