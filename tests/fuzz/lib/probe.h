/* probe.h: a virtio device that only counts, and what its transport must say of it, for fuzzers. */
#pragma once
#include "tests/fuzz/lib/hostile.h"

enum { PROBE_ID = 42, PROBE_QUEUES = 3, PROBE_QUEUE_MAX = 64, PROBE_CONFIG = 37 };

/* The first byte of its configuration may be written. */
struct probe {
	struct virtio v;
	u8 config[PROBE_CONFIG];
	bool running, drained[PROBE_QUEUES];
	int kicks[PROBE_QUEUES];
};

/* Another word for what virtio 1.2, 2.1 and 2.2 say happens. */
struct probe_model {
	struct probe *p;
	u64 accepted;
	u8 status;			/* without NEEDS_RESET */
	bool broken, running;
	bool quiet;			/* paused: it runs afterwards */
	bool no_master;			/* the same, by the guest */
	u32 generation;
	int config_changes;		/* interrupts for them, so far */
	struct probe_queue {
		u16 size;
		bool ready;
		bool began, kicked;	/* since the last turn; at any time, but in vain until now */
		u64 addr[3];		/* descriptors, available ring, used ring */
	} q[PROBE_QUEUES];
};

/* The device is its transport's from here on; destroying it frees it. */
struct probe *probe_new(struct hostile *, struct probe_model *);

u32  probe_offered(const struct probe_model *, u32 select);
u32  probe_accepted(const struct probe_model *, u32 select);
void probe_accept(struct probe_model *, u32 select, u32 features);
u8   probe_status(const struct probe_model *);
void probe_set_status(struct probe_model *, u8 status);
u64  probe_config(const struct probe_model *, u64 offset, unsigned size);
/* The device changes its configuration, and says so. */
void probe_change(struct probe_model *);
/* The machine pauses, or goes on. */
void probe_pause(struct probe_model *, bool on);
/* The guest says whether it may touch memory. */
void probe_bus_master(struct probe_model *, bool may);
/* NULL: there is none, or it may not be changed now. */
struct probe_queue *probe_queue(struct probe_model *, u32 index);
struct probe_queue *probe_setup(struct probe_model *, u32 index);
void probe_set_half(u64 *addr, bool high, u32 value);
void probe_disable(struct probe_model *, u32 index);
void probe_kick(struct probe_model *, u32 index);
/* The device itself finds something wrong. */
void probe_break(struct probe_model *);
/* A turn of the loop: who was kicked got it, nobody else did. */
void probe_turn(struct hostile *, struct probe_model *);
