/* image.h: disk images: a chain of files, and where in them the disk's bytes are. */
#pragma once
#include <pthread.h>
#include "vmm/core/base.h"
#include "vmm/core/err.h"

/*
 * A format only says where bytes live; image.c does reading through the backing
 * chain, copy-on-write and the order of writes, once for all formats.  Nothing
 * here locks: one thread at a time per chain (blk.c sees to it).  Offsets and
 * lengths are in bytes, multiples of BLK_SECTOR unless said otherwise.
 */
enum extent_kind {
	EXTENT_DATA,		/* in this file, at file_offset */
	EXTENT_ZERO,		/* zeroes, whatever the backing image says */
	EXTENT_ABSENT,		/* ask the backing image; zeroes if there is none */
	EXTENT_PACKED,		/* compressed: unpack */
};

struct extent {
	enum extent_kind kind;
	u64 start, len;		/* in the disk: len >= 1 */
	u64 file_offset;	/* EXTENT_DATA; also EXTENT_ZERO with space kept for it, else 0 */
	bool writable;		/* EXTENT_DATA: nothing else refers to it, write in place */
	bool fresh;		/* from alloc: reads as zeroes in the file already */
};

struct image;

struct image_ops {
	const char *format;				/* "qcow2" */
	int  (*open)(struct image *, struct err *);	/* fd, path, read_only, size (of the file) are set */
	/*
	 * What is at start, at most len bytes on.  nowait: -EAGAIN where that
	 * would take reading the file.
	 */
	int  (*map)(struct image *, u64 start, u64 len, bool nowait, struct extent *);
	/*
	 * The following are NULL where every byte always is EXTENT_DATA and
	 * writable (raw).  alloc: room for at most len bytes from start on, both
	 * multiples of the cluster size, in one piece, referred to by nothing
	 * yet.  publish: the data is in it, the disk's bytes are there from now
	 * on.  cancel: give it back.
	 */
	int  (*alloc)(struct image *, u64 start, u64 len, struct extent *);
	int  (*publish)(struct image *, const struct extent *);
	void (*cancel)(struct image *, const struct extent *);
	int  (*unpack)(struct image *, const struct extent *, void *cluster);
	/* A cluster, compressed; 1: it would not be smaller, nothing was written.
	 * NULL: this format has no compression. */
	int  (*write_packed)(struct image *, u64 start, const void *cluster);
	/* Whole clusters, or up to the disk's end, as zeroes from now on. */
	int  (*zero)(struct image *, u64 start, u64 len, bool unmap);
	/* A part of image_flush_step. */
	int  (*flush)(struct image *, unsigned *step);
	/* What was freed before the previous call is reused from now on.  Call it
	 * after flush, and when no I/O from before that call is under way. */
	void (*reclaim)(struct image *);
	/* More waits for that than should wait for a flush that a driver may never ask for. */
	bool (*reclaim_due)(const struct image *);
	/* Before the disk grows, tables for that size; then the size itself, last. */
	int  (*reserve)(struct image *, u64 size, struct err *);
	int  (*resize)(struct image *, u64 size, struct err *);
	void (*close)(struct image *);
};

enum { CLUSTER_MIN = 512, CLUSTER_MAX = 2 * MIB };
enum { CHAIN_MAX_FILES = 200 };
/* What is copied for direct I/O at a time. */
#define IMAGE_DIRECT_BUF	(256 * KIB)

struct image {
	const struct image_ops *ops;
	int fd;
	int direct_fd;			/* for data, past the page cache; -1: not asked for */
	u32 direct_align;		/* of offset, length and memory, a power of two */
	u8 *direct_buf;			/* of image.c's, so aligned */
	bool read_only;			/* atomic: a snapshot is so when it is on the disk */
	bool guessed;			/* its format, as the user named none */
	bool lost;			/* atomic: a sync failed */
	pthread_mutex_t sync_lock;	/* of what follows: see image_sync */
	pthread_cond_t sync_ended;
	bool syncing;
	u64 syncs_asked, syncs_done;	/* how many; of those the first so many are done */
	char *path;
	u64 size;			/* of the disk */
	u32 cluster;			/* bytes; what alloc and zero go by */
	char *backing_path, *backing_format;	/* as recorded; NULL: none */
	struct image *backing;
	u8 *bounce;			/* a cluster, for copy-on-write */
	void *own;			/* the format's */
};

struct image_options {
	const char *format;		/* NULL: by the file's first bytes... */
	bool guessed;			/* ...or what they once said */
	bool read_only;
	bool backing_anywhere;		/* else only in the image's own directory */
	bool no_backing;		/* only this file: ABSENT reads as zeroes */
	bool no_lock;			/* look at one that is in use (info, map) */
	bool direct;			/* with direct_fd, all of the chain */
	bool repairing;			/* open it even where a format says it is not consistent */
	const struct stat *is;		/* that file and no other, which may have its name by now; NULL: any */
};

extern const struct image_ops raw_image, qcow2_image;

/* --- image_open.c: a chain of images, found and locked ----------------------------------- */

const struct image_ops *image_format(const char *name);	/* NULL: not known */

/*
 * Open path and all it is backed by, locked against a second writer.  The
 * file's name stands in front of every error.  -EINVAL: not an image that can
 * be used, and why.
 */
int  image_open(struct image **, const char *path, const struct image_options *, struct err *) must_check;
/* Returns -ENOENT, with what to do about it. */
int image_no_backing(const char *name, struct err *);
/* NULL is allowed.  What was not flushed may be lost. */
void image_close(struct image *);

/* --- image.c: what is in it -------------------------------------------------------------- */

/* Inside the disk (the caller checked); 0 or -errno, never short. */
int image_read(struct image *, u64 offset, void *buf, size_t len) must_check;
int image_write(struct image *, u64 offset, const void *buf, size_t len) must_check;
/* The same, compressed where that makes it smaller; -EOPNOTSUPP: this format
 * cannot.  offset and len are whole clusters, or go to the disk's end. */
int image_write_packed(struct image *, u64 offset, const void *buf, size_t len) must_check;
int image_zero(struct image *, u64 offset, u64 len, bool unmap) must_check;
int image_discard(struct image *, u64 offset, u64 len) must_check;	/* advice: whole clusters */
/* Everything written and published is on the disk for good. */
int image_flush(struct image *) must_check;
/*
 * The same in steps, counted from 0.  1: image_sync, and where that went well the next;
 * 0: that was all.  Between them the image may be read, and written in place, but what
 * it has where may not change.
 */
int image_flush_step(struct image *, unsigned *step) must_check;
void image_reclaim(struct image *);
bool image_reclaim_due(const struct image *);
/*
 * What was written to the file is on the disk for good.  Any thread; those who ask
 * while a sync runs wait for its end, and the next one is for all of them.
 *
 * If it fails, what it was to write the kernel has dropped, tells only one of those who
 * ask, and its next sync would know nothing of it: until the image is opened anew each is
 * -ENOTRECOVERABLE, so that nothing is written that builds on what is not there.
 */
int  image_sync(struct image *) must_check;
int image_resize(struct image *, u64 size, struct err *) must_check;
/* Record another backing file (NULL: none) and its format; what is open stays as
 * it is.  The caller sees to it that the disk's bytes stay the same. */
int image_set_backing(struct image *, const char *path, const char *format, struct err *) must_check;

/* --- image_head.c: what a file is taken for where nobody names its format ---------------- */

enum { IMAGE_HEAD = 4 };		/* the first bytes: what that goes by */
bool image_head_is_qcow2(const void *head);
/* A raw file with the disk's bytes would be taken for qcow2. */
int image_begins_as_qcow2(struct image *, bool *yes) must_check;
/*
 * For image_open, of a file given as raw.  -EINVAL: it is what the disk's snapshot left there,
 * whose tables its guest would write over.  Its bytes alone cannot say so, they may be a
 * guest's: its backing file is the disk's snapshot, by name.
 */
int image_refuse_delta(const struct image *, struct err *) must_check;

/* --- the whole chain ---------------------------------------------------------------------- */

/* Which file holds it (depth 0: this one), or zeroes (-1). */
struct image_where {
	int depth;
	struct image *image;		/* NULL: zeroes */
	struct extent extent;
};
int image_where(struct image *, u64 offset, u64 len, struct image_where *) must_check;

enum preallocation { PREALLOC_OFF, PREALLOC_METADATA, PREALLOC_FALLOC, PREALLOC_FULL };

struct image_create {
	const char *format;		/* "raw", "qcow2" */
	const char *called;		/* by errors, where path is not what the user knows; or NULL */
	u64 size;			/* bytes; 0 with a backing image: its size */
	enum preallocation preallocation;
	/* qcow2 */
	u32 cluster;			/* 0: 64 KiB */
	u32 refcount_bits;		/* 0: 16 */
	unsigned version;		/* 0: 3 */
	bool lazy_refcounts, zstd;
	const char *backing, *backing_format;
	unsigned mode;			/* who may use it, less the umask; 0: 0644 */
	const struct stat *like;	/* or: whoever may use this file, whose owner it gets if it can; NULL */
	struct stat *made;		/* says which file it is, for struct image_options' is; or NULL */
};

/* Refuses to touch a file that exists; leaves nothing behind when it fails. */
int image_create(const char *path, const struct image_create *, struct err *) must_check;

/* -EEXIST: something is called so. */
int image_refuse_existing(const char *path, struct err *err) must_check;

/* What check found, counted; with repair, what is left after it. */
struct image_check {
	u64 corruptions, leaks;		/* wrong; merely wasted, in clusters */
	u64 fixed;
	u64 lost;			/* of those: beyond the end of a file that was cut off */
	u64 allocated, packed, total;	/* clusters of the disk */
	bool keep_lost;			/* even with repair: the user shall see */
	void (*tell)(const char *line, void *arg);	/* NULL: counts only */
	void *arg;
};
/* Of the top file only.  0 even where something is wrong; -errno: could not look. */
int image_check(struct image *, bool repair, struct image_check *, struct err *) must_check;

/* Snapshots inside a qcow2 file, as other programs make them. */
struct image_snapshot {
	char *id, *name;
	u64 date_s, size, vm_state;	/* bytes of the disk; of a stopped VM's memory, kept beside it */
};
int  image_snapshots(struct image *, struct image_snapshot **, unsigned *nr, struct err *) must_check;
void image_snapshots_free(struct image_snapshot *, unsigned nr);
/* By name, or id if none has that name.  -ENOENT: there is none such. */
int  image_snapshot_apply(struct image *, const char *name, struct err *) must_check;
int  image_snapshot_delete(struct image *, const char *name, struct err *) must_check;
