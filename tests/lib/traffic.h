/* traffic.h: a busy disk: random requests on all queues of a device, and what it must hold. */
#pragma once
#include "tests/lib/vblk.h"

enum {
	TRAFFIC_REGIONS = 100,		/* of the disk: a request has one to itself */
	TRAFFIC_REGION_MAX = 81 * 1024,
};

/* What a slot's request is about, for when it is answered. */
struct work {
	u32 type;
	int region;			/* -1: none */
	u64 offset;
	u32 len;
	u8 *data;
	bool pinning;			/* a read that finds out what an unsure one before it did... */
	u32 unsure;			/* ...which was this */
};

struct traffic {
	struct vblk v;
	struct work work[VBLK_QUEUES][VBLK_SLOTS];
	bool taken[TRAFFIC_REGIONS];
	u32 region;			/* bytes */
	u64 size;			/* of the disk */
	u8 *model;			/* its bytes, by what was answered */
	u64 seed;
};

/* A device whose setup says all but the size, which is that of all regions. */
void traffic_new(struct traffic *, struct vblk_setup *, u32 region, u64 seed);
void traffic_free(struct traffic *);
/* Where there is room for them, and kicks. */
void traffic_offer(struct traffic *, unsigned nr);
/* Take the answers, and compare. */
void traffic_reap(struct traffic *);
void traffic_wait_for_room(struct traffic *);
void traffic_wait(struct traffic *);
/* The driver resets the device and goes on; what was in flight was done, or not begun. */
void traffic_start_over(struct traffic *);
/* What the model says of a sector, or (it was discarded just now) zeroes. */
bool traffic_is_unsure(const struct traffic *, u64 offset);
/* All of the disk, by its requests; nothing is in flight. */
void traffic_compare(struct traffic *);
/* All of it by its file, and that is sound: no VM has it open.  expect NULL: the model. */
void traffic_compare_file(struct traffic *, const char *path, const char *format, const u8 *expect,
			  bool no_leaks);
