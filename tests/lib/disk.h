/* disk.h: an image under random use, and what each sector of its disk may hold. */
#pragma once
#include "devices/block/image.h"
#include "tests/lib/recorder.h"

/*
 * Every sector ever written has a number of its own, and contents made from it
 * (0: zeroes), so the disk is known by a number a sector.  Only a few spans of
 * it are written to; all the rest is zeroes for ever.
 */
struct disk_shape {
	const char *name;
	const char *format;	/* of the top image; raw has nothing below it */
	u32 cluster;
	unsigned version, refcount_bits;
	bool lazy;
	int depth;		/* images below it */
	u64 size, max_size;	/* to begin with; by resizing */
};

enum { DISK_SPANS = 4, DISK_DIR_LEN = 64 };

struct span {
	u64 start, len;
	u32 first;		/* the index of its first sector */
};

/* A sector was to be given this number; sure: the caller was told that it was. */
struct event {
	u32 sector, id, prev, mark;
	bool sure;
};

struct disk_flush { u32 mark, events; };

struct disk {
	const struct disk_shape *shape;
	char dir[DISK_DIR_LEN], path[80];
	struct image *image;		/* NULL: closed */
	u64 seed;
	u64 size;
	struct span span[DISK_SPANS];
	int nr_spans;
	u32 nr_sectors;			/* in the spans; the disk's size is one more, as it were */
	u32 *base;			/* what all held for good when events began */
	u32 *below;			/* the backing image's... */
	u64 below_size;			/* ...and where it ends */
	struct event *event;
	u32 nr_events;
	u32 *last;			/* a sector's last event + 1; 0: none */
	struct disk_flush *flush;	/* each that ended well */
	u32 nr_flushes;
	u32 next_id;
	u8 *buf;
	u32 step;
	char doing[96];			/* the last step, in words */
	char note[64];			/* the test's own, for disk_fail */
};

/* A chain in a directory of its own, the top image empty; not open yet. */
void disk_new(struct disk *, const struct disk_shape *, u64 seed);
void disk_free(struct disk *);
int  disk_open(struct disk *) must_check;
void disk_close(struct disk *);

/*
 * A random operation: read (and compare), write (packed, too), zero, discard,
 * flush, reclaim, resize, repair.  0 or what image.h said.
 */
int  disk_step(struct disk *) must_check;
int  disk_flush(struct disk *) must_check;
/* All that happened is for good: forget what was before... */
void disk_settle(struct disk *);
/* ...or did not happen. */
void disk_forget(struct disk *);

/*
 * Compare all of an image with what it may hold, when events before flushed are
 * for good, and those from upto on have not happened.
 */
void disk_verify(struct disk *, struct image *, u32 flushed, u32 upto);
void disk_verify_now(struct disk *);
/* Nothing may be wrong in it; with no_leaks, nothing wasted either. */
void disk_check(struct disk *, struct image *, bool no_leaks);
/* An empty directory, where a sync costs nothing. */
void disk_mkdir(char dir[DISK_DIR_LEN]);
void disk_rmdir(const char *dir);		/* with all that is in it */
void disk_empty_dir(const char *dir);		/* of files; it stays */
/* One where files can be read and written past the page cache, if there is any. */
bool disk_mkdir_direct(char dir[DISK_DIR_LEN]);
/* A name in its directory; good until the next call. */
const char *disk_file(struct disk *, const char *name);
/* The sector's number, if it is in a span: the one it has for sure, or (u32)-1. */
u32  disk_sector(const struct disk *, u64 offset);
/* The number that a sector's contents were made from; (u32)-1: from none. */
u32  disk_id(const u8 *sector);
_Noreturn void disk_fail(struct disk *, const char *fmt, ...) printf_like(2, 3);

/* A number from the environment. */
u64  env_number(const char *name, u64 otherwise);
/* So it is asked for, else the seed of all tests (SEED), else a new one. */
u64  env_seed(const char *name);
