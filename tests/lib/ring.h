/* ring.h: the driver's side of a split virtqueue, for tests. */
#pragma once
#include <linux/virtio_ring.h>
#include "vmm/core/mem.h"

/* At base: descriptors, then the available and the used ring, a page each or more. */
struct ring {
	struct mem *mem;
	u64 desc, avail, used;
	u16 size, next_avail, next_desc;
};

void ring_init(struct ring *, struct mem *, u64 base, u16 size);
void ring_desc(struct ring *, u16 i, u64 addr, u32 len, u16 flags, u16 next);
/* A descriptor in a table elsewhere. */
void ring_desc_at(struct mem *, u64 table, u16 i, u64 addr, u32 len, u16 flags, u16 next);
void ring_offer(struct ring *, u16 head);		/* into the ring, and count up */
void ring_set_avail_idx(struct ring *, u16 idx);
void ring_set_avail_flags(struct ring *, u16 flags);
void ring_set_used_event(struct ring *, u16 idx);
u16  ring_used_idx(struct ring *);
u16  ring_used_flags(struct ring *);
u16  ring_avail_event(struct ring *);
struct vring_used_elem ring_used(struct ring *, u16 i);

struct piece {
	u64 addr;
	u32 len;
	bool in;		/* the device writes */
};
/* Offer a chain of these; returns its head. */
u16 ring_add(struct ring *, const struct piece *, int nr);
