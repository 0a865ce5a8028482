/* blk_own.h: what blk.c and blk_file.c share. */
#pragma once
#include <pthread.h>
#include "devices/block/blk.h"
#include "devices/block/image.h"

struct blk {
	struct image *image, *next;		/* next: a snapshot's delta, not in use yet */
	struct image *unsettled;		/* a snapshot, not all of it on the disk */
	struct blk_info info;			/* size: atomic */
	bool raw;
	bool no_zero_range, no_punch_hole;	/* atomic: the host's file system said so */
	/*
	 * Who changes what an image has where holds change; lock is of image, of its
	 * tables in memory and of generation.  Both: change first.  A flush lets go of
	 * lock while it syncs, so that reads, and writes in place, need not wait for it.
	 * settling, never together with change, is of unsettled, which nobody writes to.
	 */
	pthread_mutex_t settling, change, lock;
	bool slow;				/* atomic: who has the lock may wait for the disk */
	/*
	 * Requests that go straight to the file, by when they began.  What a
	 * discard freed is reused only when all from before it are done.
	 */
	unsigned generation, straight[2];	/* straight: atomic, raised under lock */
};

/* lock, of who may wait for the disk with it. */
void blk_lock(struct blk *);
void blk_unlock(struct blk *);
/* image_flush; under change, or it is unsettled. */
int  blk_flush_image(struct blk *, struct image *) must_check;
int  blk_settle(struct blk *) must_check;
