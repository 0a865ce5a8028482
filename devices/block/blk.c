/* blk.c: a disk's requests: straight to the file where its place is known, else by a thread that may wait. */
#include <errno.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include "devices/block/blk_own.h"

/* At most so much is copied at a time for direct I/O. */
#define BOUNCE_MAX	(256 * KIB)

/* What BLK_ZERO writes where the host cannot zero by itself. */
static const u8 zero_page[64 * 1024];

/* --- requests -------------------------------------------------------------------- */

static void next_step(struct blk_req *r);
static void io_done(struct aio_req *io, int res);

/* Drop what has moved off the front of the iovecs. */
static void advance(struct blk_req *r, size_t n)
{
	r->offset += n;
	r->len -= n;
	while (n && r->nr_iov) {
		size_t k = MIN(n, r->iov->iov_len);

		r->iov->iov_base = (char *)r->iov->iov_base + k;
		r->iov->iov_len -= k;
		n -= k;
		if (!r->iov->iov_len) {
			r->iov++;
			r->nr_iov--;
		}
	}
}

/* The step is about the first len bytes only. */
static void cut_iov(struct blk_req *r, u64 len)
{
	u64 left = len;
	int n = 0;

	r->piece = len;
	r->cut = NULL;
	while (left > r->iov[n].iov_len)
		left -= r->iov[n++].iov_len;
	if (left < r->iov[n].iov_len) {
		r->cut = &r->iov[n];
		r->cut_len = r->iov[n].iov_len - left;
		r->iov[n].iov_len = left;
	}
	r->io.iov = r->iov;
	r->io.nr_iov = n + 1;
}

static void uncut_iov(struct blk_req *r)
{
	if (r->cut)
		r->cut->iov_len += r->cut_len;
	r->cut = NULL;
}

/* --- past the page cache ------------------------------------------------------------------ */

static bool memory_is_aligned(const struct blk_req *r, u32 align)
{
	uintptr_t bits = 0;

	for (int n = 0; n < r->io.nr_iov; n++)
		bits |= (uintptr_t)r->iov[n].iov_base | r->iov[n].iov_len;
	return !(bits & (align - 1));
}

static void copy_bounced(struct blk_req *r, u64 len)
{
	u8 *at = r->bounce;

	for (int n = 0; len; n++) {
		size_t k = MIN(len, r->iov[n].iov_len);

		if (r->op == BLK_READ)
			memcpy(r->iov[n].iov_base, at, k);
		else
			memcpy(at, r->iov[n].iov_base, k);
		at += k;
		len -= k;
	}
}

/* Memory of the guest's that does not fit goes by way of ours.  False: parts of blocks,
 * or no memory. */
static bool move_directly(struct blk_req *r, const struct image *i)
{
	if ((r->io.offset | r->piece) & (i->direct_align - 1))
		return false;
	if (!memory_is_aligned(r, i->direct_align)) {
		u64 len = MIN(r->piece, BOUNCE_MAX);

		r->bounce = aligned_alloc(i->direct_align, len);
		if (!r->bounce)
			return false;
		uncut_iov(r);
		cut_iov(r, len);
		r->own_iov = (struct iovec){ r->bounce, len };
		r->io.iov = &r->own_iov;
		r->io.nr_iov = 1;
		if (r->op == BLK_WRITE)
			copy_bounced(r, len);
	}
	r->io.fd = i->direct_fd;
	return true;
}

/* False: it is image.c's. */
static bool move_data(struct blk_req *r, const struct image *i, u64 at, u64 len)
{
	r->from = i;
	r->io.op = r->op == BLK_READ ? AIO_READ : AIO_WRITE;
	r->io.fd = i->fd;
	r->io.offset = at;
	cut_iov(r, len);
	if (i->direct_fd < 0 || move_directly(r, i))
		return true;
	uncut_iov(r);
	return false;
}

/* --- raw ------------------------------------------------------------------------------------ */

/* Writing zeroes that the host cannot, or in a part of a block, is writing data. */
static bool raw_zero(struct blk_req *r)
{
	const struct blk *b = r->blk;
	const struct image *i = b->image;
	bool no_zero_range = load_once(&b->no_zero_range);
	bool no_punch_hole = load_once(&b->no_punch_hole);

	r->io.op = AIO_FALLOCATE;
	if (i->direct_fd >= 0 && ((r->offset | r->len) & (i->direct_align - 1) ||
				  (no_zero_range && (!r->unmap || no_punch_hole))))
		return false;
	if (r->unmap && !no_punch_hole) {
		r->io.mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	} else if (!no_zero_range) {
		r->io.mode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
	} else {
		r->io.op = AIO_WRITE;
		r->own_iov = (struct iovec){ (void *)(uintptr_t)zero_page,
					     MIN(r->len, sizeof(zero_page)) };
		r->io.iov = &r->own_iov;
		r->io.nr_iov = 1;
	}
	return true;
}

static bool raw_step(struct blk_req *r)
{
	struct blk *b = r->blk;

	r->io.fd = b->image->fd;
	r->io.offset = r->offset;
	r->io.len = r->len;
	switch (r->op) {
	case BLK_READ:
	case BLK_WRITE:
		return move_data(r, b->image, r->offset, r->len);
	case BLK_FLUSH:
		return false;
	case BLK_DISCARD:
		r->io.op = AIO_FALLOCATE;
		r->io.mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
		break;
	case BLK_ZERO:
		return raw_zero(r);
	}
	return true;
}

/* --- what needs the tables: by a thread that may wait ------------------------------------- */

/* Whole clusters at a time, whatever the driver's buffers are, or every buffer
 * would copy the rest of a new cluster. */
enum { GATHER = 1 << 20 };

/*
 * A guest whose raw disk was taken for raw only because it did not look like
 * qcow2 could make it look so, name any file beside it as its backing file, and
 * read that after the next start.
 */
static bool would_be_mistaken(const struct blk_req *r)
{
	return r->blk->raw && r->blk->image->guessed && r->op == BLK_WRITE && !r->offset;
}

static int move_slowly(struct blk_req *r)
{
	size_t max = MIN(r->len, GATHER);
	u8 *buf = malloc(max);
	int rc = buf ? 0 : -ENOMEM;

	while (r->len && !rc) {
		size_t k = MIN(r->len, max), in = r->offset % MIN(GATHER, r->blk->image->cluster);
		size_t at = 0;

		if (in + k > max && max > in)	/* end where a cluster does */
			k = MIN(k, max - in);
		if (r->op == BLK_READ)
			rc = image_read(r->blk->image, r->offset, buf, k);
		for (int n = 0; at < k && !rc; n++) {
			size_t part = MIN(k - at, r->iov[n].iov_len);

			if (r->op == BLK_READ)
				memcpy(r->iov[n].iov_base, buf + at, part);
			else
				memcpy(buf + at, r->iov[n].iov_base, part);
			at += part;
		}
		if (would_be_mistaken(r) && image_head_is_qcow2(buf))
			rc = -EPERM;
		if (r->op == BLK_WRITE && !rc)
			rc = image_write(r->blk->image, r->offset, buf, k);
		if (!rc)
			advance(r, k);
	}
	free(buf);
	return rc;
}

void blk_lock(struct blk *b)
{
	pthread_mutex_lock(&b->lock);
	store_once(&b->slow, true);
}

void blk_unlock(struct blk *b)
{
	store_once(&b->slow, false);
	pthread_mutex_unlock(&b->lock);
}

int blk_flush_image(struct blk *b, struct image *i)
{
	unsigned step = 0;
	int rc;

	for (blk_lock(b); (rc = image_flush_step(i, &step)) > 0; blk_lock(b)) {
		blk_unlock(b);
		rc = image_sync(i);
		if (rc)
			return rc;
	}
	blk_unlock(b);
	return rc;
}

/* Under change. */
static int flush_and_reclaim(struct blk *b)
{
	int rc = blk_flush_image(b, b->image);

	blk_lock(b);
	/* All that began in the generation before are done: what was freed then is
	 * nobody's, and a new generation begins. */
	if (!rc && !load_acquire(&b->straight[b->generation ^ 1])) {
		image_reclaim(b->image);
		b->generation ^= 1;
	}
	blk_unlock(b);
	return rc;
}

static int flush_slowly(struct blk *b)
{
	int rc;

	if (b->raw)
		return image_flush(b->image);
	rc = blk_settle(b);
	if (rc)
		return rc;
	pthread_mutex_lock(&b->change);
	rc = flush_and_reclaim(b);
	pthread_mutex_unlock(&b->change);
	return rc;
}

static int move_or_zero(struct blk_req *r)
{
	struct image *i = r->blk->image;

	switch (r->op) {
	case BLK_DISCARD:
		return image_discard(i, r->offset, r->len);
	case BLK_ZERO:
		return image_zero(i, r->offset, r->len, r->unmap);
	default:
		return move_slowly(r);
	}
}

static int slow_step(struct aio_req *io)
{
	struct blk_req *r = container_of(io, struct blk_req, io);
	struct blk *b = r->blk;
	bool due;
	int rc;

	if (r->op == BLK_FLUSH)
		return flush_slowly(b);
	if (r->op != BLK_READ)
		pthread_mutex_lock(&b->change);
	blk_lock(b);
	rc = move_or_zero(r);
	due = r->op != BLK_READ && image_reclaim_due(b->image);
	blk_unlock(b);
	/* Should it fail, the driver's next flush will say so. */
	if (due)
		(void)!flush_and_reclaim(b);
	if (r->op != BLK_READ)
		pthread_mutex_unlock(&b->change);
	return rc;
}

/* Under lock.  The file that has the bytes, where the tables in memory say so. */
static struct image *find_straight(struct blk_req *r, u64 *at, u64 *len)
{
	struct image *i = r->blk->image;
	struct extent e;

	*len = r->len;
	for (;; i = i->backing) {
		if (i->ops->map(i, r->offset, *len, true, &e))
			return NULL;
		*len = MIN(*len, e.len);
		if (e.kind != EXTENT_ABSENT || r->op != BLK_READ)
			break;
		if (!i->backing || r->offset >= i->backing->size)
			return NULL;
		*len = MIN(*len, i->backing->size - r->offset);
	}
	*at = e.file_offset;
	return e.kind == EXTENT_DATA && (r->op == BLK_READ || e.writable) ? i : NULL;
}

/* Another loop has the lock for no longer than a look takes; a slow step may have
 * it for as long as the disk takes. */
static bool lock_to_look(struct blk *b)
{
	while (pthread_mutex_trylock(&b->lock)) {
		if (load_once(&b->slow))
			return false;
		__builtin_ia32_pause();
	}
	return true;
}

/* Without the lock: who holds it may be waiting for the disk. */
static void leave_straight(struct blk_req *r)
{
	__atomic_sub_fetch(&r->blk->straight[r->generation], 1, __ATOMIC_RELEASE);
}

static bool straight_step(struct blk_req *r)
{
	struct blk *b = r->blk;
	struct image *found;
	u64 at, len;

	if ((r->op != BLK_READ && r->op != BLK_WRITE) || !lock_to_look(b))
		return false;
	found = find_straight(r, &at, &len);
	if (found) {
		r->generation = b->generation;
		__atomic_add_fetch(&b->straight[r->generation], 1, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&b->lock);
	if (!found || move_data(r, found, at, len))
		return found;
	leave_straight(r);
	return false;
}

static void go_slowly(struct blk_req *r)
{
	r->io.op = AIO_CALL;
	r->io.call = slow_step;
	aio_submit(r->aio, &r->io);
}

static void next_step(struct blk_req *r)
{
	r->io.done = io_done;
	if (r->blk->raw ? would_be_mistaken(r) || !raw_step(r) : !straight_step(r))
		go_slowly(r);
	else
		aio_submit(r->aio, &r->io);
}

/* A host file system that cannot do what was asked: true, try another way. */
static bool fall_back(struct blk_req *r, int res)
{
	struct blk *b = r->blk;

	if (r->op != BLK_ZERO || r->io.op != AIO_FALLOCATE || res != -EOPNOTSUPP)
		return false;
	if (r->io.mode & FALLOC_FL_PUNCH_HOLE)
		store_once(&b->no_punch_hole, true);
	else
		store_once(&b->no_zero_range, true);
	return true;
}

static void step_over(struct blk_req *r, int res)
{
	if (r->bounce && r->op == BLK_READ && res > 0)
		copy_bounced(r, res);
	free(r->bounce);
	r->bounce = NULL;
	if (r->op == BLK_READ || r->op == BLK_WRITE)
		uncut_iov(r);
	if (!r->blk->raw)
		leave_straight(r);
}

/* A file that ends there: zeroes follow where a format says that it goes on, and in the
 * sector that the odd bytes of a raw one begin (see raw.c). */
static bool goes_on_as_zeroes(const struct blk_req *r)
{
	const struct image *i = r->from;

	return r->op == BLK_READ &&
	       (i->ops != &raw_image || (load_once(&i->read_only) && r->offset > i->size - BLK_SECTOR));
}

static void io_done(struct aio_req *io, int res)
{
	struct blk_req *r = container_of(io, struct blk_req, io);

	if (io->op == AIO_CALL) {
		r->done(r, res);
		return;
	}
	step_over(r, res);
	if (fall_back(r, res)) {
		next_step(r);
		return;
	}
	/* A part of a block of a device, whose blocks are larger than the guest's. */
	if (r->op == BLK_ZERO && io->op == AIO_FALLOCATE && res == -EINVAL) {
		go_slowly(r);
		return;
	}
	if (r->op == BLK_DISCARD && (res == -EOPNOTSUPP || res == -EINVAL))
		res = 0;	/* a discard is advice */
	if (res == -EINTR || res == -EAGAIN) {
		next_step(r);
		return;
	}
	if (res >= 0 && (io->op == AIO_READ || io->op == AIO_WRITE)) {
		/* Else it became shorter than the disk it was. */
		if (!res && r->len && !goes_on_as_zeroes(r)) {
			r->done(r, -EIO);
			return;
		}
		if (!res && r->len) {
			struct iovec *v = r->iov;

			res = (int)MIN(r->piece, v->iov_len);
			memset(v->iov_base, 0, res);
		}
		if (r->op == BLK_ZERO) {
			r->offset += res;
			r->len -= res;
		} else {
			advance(r, res);
		}
		if (r->len) {
			next_step(r);
			return;
		}
		res = 0;
	}
	r->done(r, MIN(res, 0));
}

int blk_submit(struct blk *b, struct aio *aio, struct blk_req *r)
{
	u64 end;

	if (r->op != BLK_FLUSH &&
	    (add_overflows(r->offset, r->len, &end) || end > load_acquire(&b->info.size)))
		return -EINVAL;
	if (b->info.read_only && r->op != BLK_READ && r->op != BLK_FLUSH)
		return -EROFS;
	r->blk = b;
	r->aio = aio;
	r->bounce = NULL;
	r->cut = NULL;
	next_step(r);
	return 0;
}
