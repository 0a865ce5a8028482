/* blk.h: a disk, as virtio-blk sees it. */
#pragma once
#include <sys/uio.h>
#include "vmm/core/aio.h"
#include "vmm/core/base.h"
#include "vmm/core/err.h"

enum blk_op { BLK_READ, BLK_WRITE, BLK_FLUSH, BLK_DISCARD, BLK_ZERO };
enum { BLK_NR_OPS = BLK_ZERO + 1 };

enum { BLK_SECTOR = 512 };

struct blk;
struct image;

/*
 * Embedded in the caller's request, who keeps it and the iovecs until done;
 * the iovecs are changed.  done runs on the loop of the aio, never inside
 * blk_submit; res is 0 or -errno, and 0 means all of it: never short.
 */
struct blk_req {
	enum blk_op op;
	bool unmap;			/* BLK_ZERO: the space may be given back */
	u64 offset, len;
	struct iovec *iov;		/* BLK_READ, BLK_WRITE: len bytes in all */
	int nr_iov;
	void (*done)(struct blk_req *, int res);
	struct blk *blk;		/* blk.c's own, from here on */
	struct aio *aio;
	struct aio_req io;
	struct iovec own_iov;
	const struct image *from;	/* whose file the step is about */
	void *bounce;			/* aligned memory; NULL: none */
	u64 piece;			/* bytes of the step under way */
	struct iovec *cut;		/* shortened for it, by this much */
	size_t cut_len;
	unsigned generation;
};

struct blk_info {
	u64 size;			/* bytes, a multiple of BLK_SECTOR */
	u32 physical_block;		/* bytes: what the host writes without reading first */
	u32 alignment_offset;		/* bytes: where the first of them begins */
	u32 min_io, opt_io;		/* bytes; opt_io 0: nothing known */
	u32 discard_granularity;	/* bytes */
	bool read_only, can_discard;
};

struct blk_options {
	const char *format;		/* NULL: by its first bytes... */
	bool guessed;			/* ...or what they once said */
	bool read_only;
	bool backing_anywhere;		/* else backing files lie in the image's directory */
	bool direct;			/* data past the host's page cache (O_DIRECT) */
	const struct stat *is;		/* that file alone, which may have lost its name; NULL: any */
};

/*
 * Open an image, and all it is backed by, or a block device; locked against a
 * second writer.  size is what it is now.  The name of the file stands in front
 * of every error.
 */
int  blk_open(struct blk **, const char *path, const struct blk_options *, struct err *) must_check;
/* The file that is written to, and what is below it; NULL: nothing.  Theirs until the
 * next snapshot. */
const char *blk_path(const struct blk *);
const char *blk_format(const struct blk *);
bool blk_has_file(const struct blk *, const struct stat *);	/* in its chain */
bool blk_is_guessed(const struct blk *);	/* nobody named the format */
/* While a snapshot is being taken: what will be below. */
const char *blk_base_path(const struct blk *, const char **format);
void blk_close(struct blk *);		/* flushed; nothing in flight; NULL is allowed */
struct blk_info blk_info(const struct blk *);

/*
 * On the control thread, while requests go on.  It can only grow; size 0: what the
 * file or device has now.
 */
int  blk_resize(struct blk *, u64 size, struct err *) must_check;
/*
 * A snapshot while the disk is in use, in three steps, on the control thread.
 * prepare: files are made, requests go on; the disk's file is an empty delta of
 * the snapshot, DIR/BASE@NAME.EXT, which is still being written to; when it fails
 * the disk is as before.  take, with no request in flight: what comes goes to the
 * delta.  settle, requests go on: the snapshot is on the disk, and others may read
 * it; until then each flush does that first, also should settle fail.  A crash
 * anywhere loses nothing that was flushed.
 */
int  blk_snapshot_prepare(struct blk *, const char *name, struct err *) must_check;
void blk_snapshot_cancel(struct blk *);	/* instead of take, with no request since prepare: as before it */
void blk_snapshot_take(struct blk *);
int  blk_snapshot_settle(struct blk *, struct err *) must_check;

/* On the loop of aio.  The range is checked here: -EINVAL outside the disk,
 * -EROFS for writing to a read-only one; then done is not called. */
int  blk_submit(struct blk *, struct aio *, struct blk_req *) must_check;
