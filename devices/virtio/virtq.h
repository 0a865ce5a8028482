/* virtq.h: the device's side of a split virtqueue (virtio 1.2, 2.7). */
#pragma once
#include <sys/uio.h>
#include "vmm/core/irq.h"
#include "vmm/core/mem.h"

/* Longest chain accepted, in pieces of guest memory. */
enum { VIRTQ_MAX = 256, CHAIN_MAX = 258 };

struct state;
struct vring_desc;
struct vring_avail;
struct vring_used;

struct virtq {
	struct mem *mem;
	struct irq *irq;		/* set by the transport */
	u16 index, max_size;
	u64 interrupts;		/* that were sent, ever; others read it at any time */

	/* From here on a reset forgets.  What the driver programmed. */
	gpa_t desc, avail, used;
	u16 size, next_avail, next_used, signalled;
	bool ready, event_idx, indirect;

	/* Derived by virtq_start, NULL when stopped. */
	struct vring_desc *desc_ring;
	struct vring_avail *avail_ring;
	struct vring_used *used_ring;
	bool broken;
	u16 budget;		/* requests left before others on the loop have their turn */
};

/*
 * One request.  Descriptors have been copied and checked, so the guest can no
 * longer change where it points.  `out` is what the driver sent, `in` is room
 * for the answer; both are cursors that shrink from the front as they are used,
 * so no device cares how the driver cut its buffers into descriptors.
 */
struct sg {
	struct iovec *iov;
	int nr;
	size_t len;
};

struct chain {
	struct sg out, in;
	u16 head;
	struct iovec iov[CHAIN_MAX];
};

/* Under dev->lock, queue not running. */
void virtq_reset(struct virtq *);
int  virtq_start(struct virtq *, struct err *) must_check;	/* checks addresses */
void virtq_stop(struct virtq *);
/* What the driver programmed, and how far it is; loading does not start it. */
void virtq_state(struct virtq *, struct state *);

/*
 * The queue's loop, alone.  1: a request.  0: none, and the driver will kick
 * when there is one (the off / on / look again dance is in here, not in the
 * devices); or the budget is used up, and whoever set it comes back.
 * -EPROTO: the guest broke the ring; say virtio_broken() and return.
 */
int  virtq_pop(struct virtq *, struct chain *) must_check;
void virtq_unpop(struct virtq *);		/* put the last one back, unused */
unsigned virtq_waiting(const struct virtq *);	/* requests that are there, and not popped */
/* A request that was popped before, by its head, once more.  0 or -EPROTO. */
int  virtq_walk(struct virtq *, u16 head, struct chain *) must_check;
/* Answer with `written` bytes of `in` filled.  Staged... */
void virtq_push(struct virtq *, u16 head, size_t written);
/* ...until here: publish everything pushed, interrupt if the driver wants it. */
void virtq_flush(struct virtq *);
/* The two apart: publish, and before long interrupt for what was published before used
 * entry upto (next_used, then), if the driver still wants it. */
void virtq_publish(struct virtq *);
void virtq_signal(struct virtq *, u16 upto);
/* While it was stopped here somebody else took all requests up to this one, and answered them.  Those of the last that
 * it forgot are answered now, where the rings show which: nothing came of them. */
void virtq_served(struct virtq *, u16 next_avail);

/* Cursors.  Return bytes moved, short at the end of the buffer. */
size_t sg_read(struct sg *, void *dst, size_t len);
size_t sg_write(struct sg *, const void *src, size_t len);
/* Cut the last byte off: where it is, NULL if there is none. */
u8    *sg_take_last(struct sg *);
