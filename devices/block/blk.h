/* blk.h: a disk, as virtio-blk sees it. */
#pragma once
#include <sys/uio.h>
#include "vmm/core/aio.h"
#include "vmm/core/base.h"
#include "vmm/core/err.h"

enum blk_op { BLK_READ, BLK_WRITE, BLK_FLUSH, BLK_DISCARD, BLK_ZERO };

enum { BLK_SECTOR = 512 };

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
	struct iovec zeroes;
	u64 piece;			/* bytes of the step under way */
	struct iovec *cut;		/* shortened for it, by this much */
	size_t cut_len;
	unsigned generation;
};

struct blk;
struct blk_info {
	u64 size;			/* bytes, a multiple of BLK_SECTOR */
	u32 physical_block;		/* bytes: what the host writes without reading first */
	bool read_only, can_discard;
};

struct blk_options {
	const char *format;		/* NULL: by its first bytes */
	bool read_only;
	bool backing_anywhere;		/* else backing files lie in the image's directory */
};

/*
 * Open an image, and all it is backed by, or a block device; locked against a
 * second writer.  size is what it is now.  The name of the file stands in front
 * of every error.
 */
int  blk_open(struct blk **, const char *path, const struct blk_options *, struct err *) must_check;
void blk_close(struct blk *);		/* flushed; nothing in flight; NULL is allowed */
struct blk_info blk_info(const struct blk *);

/* On the loop of aio.  The range is checked here: -EINVAL outside the disk,
 * -EROFS for writing to a read-only one; then done is not called. */
int  blk_submit(struct blk *, struct aio *, struct blk_req *) must_check;
