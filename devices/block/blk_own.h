/* blk_own.h: what blk.c and blk_file.c share. */
#pragma once
#include <pthread.h>
#include "devices/block/blk.h"
#include "devices/block/image.h"

struct blk {
	struct image *image, *next;		/* next: a snapshot's delta, not in use yet */
	struct blk_info info;			/* size: atomic */
	bool raw;
	bool no_zero_range, no_punch_hole;	/* atomic: the host's file system said so */
	pthread_mutex_t lock;			/* of image and generation */
	bool slow;				/* atomic: who has the lock may wait for the disk */
	/*
	 * Requests that go straight to the file, by when they began.  What a
	 * discard freed is reused only when all from before it are done.
	 */
	unsigned generation, straight[2];	/* straight: atomic, raised under lock */
};
