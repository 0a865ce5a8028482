/* recorder.h: between disks and their files: what was asked for, failures, waits, power cuts. */
#pragma once
#include "vmm/core/base.h"

/*
 * The linker puts it in front of devices/block/file.c, of what aio's threads do, and of
 * what changes directories (--wrap, see the Makefile); until told otherwise it only
 * passes on, and counts.  Any thread asks; one thread tells it what to do.
 */
enum file_op {
	FILE_READ = 1 << 0, FILE_WRITE = 1 << 1, FILE_SYNC = 1 << 2,
	FILE_TRUNCATE = 1 << 3, FILE_ALLOCATE = 1 << 4, FILE_ZERO = 1 << 5,
	FILE_CREATE = 1 << 6, FILE_LINK = 1 << 7, FILE_RENAME = 1 << 8,
	FILE_UNLINK = 1 << 9, FILE_DIR_SYNC = 1 << 10,
	FILE_DATA_OPS = (1 << 6) - 1, FILE_OPS = 11,
};

/* A number that the seed repeats. */
static inline u64 draw(u64 *seed)
{
	u64 x = *seed += 0x9e3779b97f4a7c15ULL;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

struct fault {
	unsigned ops;		/* of these... */
	u64 nth;		/* ...this one from now on, counted from 0... */
	int error;		/* ...fails with -error */
	bool lasting;		/* and all after it */
	bool torn;		/* a write gets half-way before it fails */
};
void recorder_fail(const struct fault *);	/* NULL: no more */
/* What it failed since it was told to: a set of ops. */
unsigned recorder_failed(void);

/* How many of a set of ops have come to their end, well or not; of those by aio's
 * threads how many were past the page cache. */
u64  recorder_count(unsigned ops);
u64  recorder_direct(void);
/* These ops, and no others, wait from now on; how many do. */
void recorder_hold(unsigned ops);
unsigned recorder_held(void);

/* Whoever opens this path gets /dev/null instead; NULL: nobody. */
extern const char *recorder_null;

/* Record what happens to this file; what it holds now is on the disk for good. */
void recorder_start(const char *path);
/* The same of a directory, its names and all files in it, those to come, too. */
void recorder_start_dir(const char *dir);
void recorder_stop(void);
/* Operations recorded; 0 without a recording. */
u32 recorder_mark(void);
/*
 * What a power cut after that many operations may have left of the file, as a
 * file at path: all that was synced, and of the rest what the seed says, torn
 * between sectors, in any order that leaves each sector as it once was.  The
 * calls for one recording are in the order of upto.
 *
 * Of a directory, in an empty one at path: each file so, and of the changes to names
 * that no sync of the directory was after, any; a rename is one change.
 */
void recorder_crash(u32 upto, u64 seed, const char *path);
