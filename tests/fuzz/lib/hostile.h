/* hostile.h: a guest that a fuzzer's input drives, and a second opinion on what a device may do to it. */
#pragma once
#include "devices/virtio/virtio.h"
#include "tests/fuzz/lib/fuzz.h"
#include "tests/lib/fake.h"

/*
 * Little memory: a ring area for each queue (descriptors, available ring, used
 * ring, indirect tables), then data.  The device is at HOSTILE_BASE, over MMIO.
 */
enum {
	HOSTILE_MEM = 0x24000, HOSTILE_QUEUES = 5,
	HOSTILE_RING = 0x4000,		/* of queue i: i times this */
	HOSTILE_DESC = 0, HOSTILE_AVAIL = 0x1000, HOSTILE_USED = 0x2000, HOSTILE_TABLE = 0x3000,
	HOSTILE_DATA = 0x14000, HOSTILE_DATA_LEN = HOSTILE_MEM - HOSTILE_DATA,
	HOSTILE_BASE = 0xe8000000, HOSTILE_GSI = 20,
};
enum { STATUS_ACK = 1, STATUS_DRIVER = 2, STATUS_DRIVER_OK = 4, STATUS_FEATURES_OK = 8,
       STATUS_NEEDS_RESET = 64, STATUS_RUNNING = 15 };

struct hostile_piece {
	u64 addr;
	u32 len;
	bool in;
};

/* A request as the rings have it (virtio 1.2, 2.7.5). */
struct hostile_chain {
	u16 head;
	int nr;				/* of pieces; readable ones first */
	u64 out, in;			/* bytes of each kind */
	bool in_seen;
	struct hostile_piece piece[CHAIN_MAX];
};

struct hostile_queue {
	bool ready, broken;		/* broken: the rings make no sense */
	bool event_idx, indirect;
	u64 desc, avail, used;
	u16 size;
	u16 next_avail, next_used;	/* taken and answered, by our count */
	u16 offered, next_desc;		/* the driver's side */
};

struct hostile {
	struct fake fake;
	struct fuzz *in;
	u8 *ram;
	u8 before[HOSTILE_MEM];		/* as the device found it */
	u8 mark[HOSTILE_MEM];		/* what the device looks at, and may write to */
	struct hostile_queue q[HOSTILE_QUEUES];
	/* Set up, but for DRIVER_OK; in such a way that the device can use it; in use. */
	bool prepared, sound, running;
	bool paused;			/* the device was quiesced: it does nothing */
	u64 features;			/* that were taken */
	/* Of this round: the device writes where it reads, so that all depends on the
	 * order; it may read a descriptor twice; it reads a byte for two requests; it writes
	 * to a byte twice. */
	bool entangled, again, twice, overlap;
	bool scribble;			/* see hostile_before */
	bool stale;			/* kicked while it did not run: the kick comes later */
	int raises;			/* of the wire, up to now */
};

/* The same one every time, its memory all zeroes; then the device is made. */
struct hostile *hostile_begin(struct fuzz *);
/* Over MMIO, at HOSTILE_BASE. */
struct device *hostile_plug(struct virtio *);
/* Destroys the device; it gave everything back. */
void hostile_end(struct hostile *, struct device *);

u32  hostile_get(struct hostile *, u32 reg);
void hostile_set(struct hostile *, u32 reg, u32 value);
u8   hostile_status(struct hostile *);

/* Reset, take these features and VERSION_1, set up queues as the input says (well: as a
 * driver should).  DRIVER_OK comes with the next hostile_kick. */
void hostile_start(struct hostile *, u64 features, int nr_queues, bool well);
void hostile_reset(struct hostile *);
/* Something a driver does, as the input says: it offers a chain to one of the
 * queues, or scribbles over its rings. */
void hostile_offer(struct hostile *, int queue);
void hostile_poke(struct hostile *, int queue);
/* The driver's store, but not where a device counts its answers (a ring may be anywhere):
 * then nobody could tell what it did. */
void hostile_put(struct hostile *, u64 at, const void *data, size_t len);
/* A sound chain of these, for the queue's next free descriptors; its head. */
u16  hostile_chain(struct hostile *, int queue, const struct hostile_piece *, int nr);

/*
 * A round is: hostile_look, hostile_next until it ends, hostile_allow for what may
 * be written, hostile_before, hostile_kick or what else it is, the device's turn, and
 * hostile_after.
 */
void hostile_look(struct hostile *, bool kick);		/* kick: hostile_kick is to come */
/* Is there anything the device may do with this queue? */
bool hostile_live(const struct hostile *, int queue);
/* The queue's next request, as the rings are now: 1; 0: none; -1: they are broken. */
int  hostile_next(struct hostile *, int queue, struct hostile_chain *);
/* The device may write the first len bytes of the chain's room for an answer. */
void hostile_allow(struct hostile *, const struct hostile_chain *, u64 len);
void hostile_reads(struct hostile *, const struct hostile_chain *, u64 len);
/*
 * With scribble, what the device fetches by sg_read changes as soon as it was
 * fetched, as another CPU of the guest could do it: that must make no difference.
 */
void hostile_before(struct hostile *, bool scribble);
void hostile_kick(struct hostile *, int queue);
/* Nothing but what was allowed has changed; the status is what the rings say. */
void hostile_after(struct hostile *);
/* The next answer in the queue's used ring; false: there is none. */
bool hostile_answer(struct hostile *, int queue, u16 *head, u32 *len);
/* What these pieces of the chain hold now, at most max bytes of them; how many. */
size_t hostile_gather(struct hostile *, const struct hostile_chain *, bool in, u8 *to, size_t max);
/* Interrupts since the last call: as the driver asked for them, with so many new
 * answers in each queue?  While no queue is broken.  others: there may be more. */
void hostile_check_interrupts(struct hostile *, const u16 answers[HOSTILE_QUEUES], bool others);
/* A queue that ran empty wants to be kicked for the next request. */
void hostile_check_armed(struct hostile *, int queue);
