/* image.c: reading through a chain of images, zero fill, copy-on-write, syncs. */
#include "devices/block/image.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "devices/block/blk.h"
#include "devices/block/file.h"
#include "devices/block/qcow2.h"
#include "vmm/core/log.h"

/* --- data ------------------------------------------------------------------------------------ */

/* A block of which only a part is asked for. */
static int part_of_block(struct image *i, u64 at, u8 *buf, size_t len, bool write)
{
	u64 start = ALIGN_DOWN(at, (u64)i->direct_align);
	u8 *part = i->direct_buf + (at - start);
	int rc = file_read(i->direct_fd, start, i->direct_buf, i->direct_align);

	if (rc)
		return rc;
	if (!write) {
		memcpy(buf, part, len);
		return 0;
	}
	memcpy(part, buf, len);
	return file_write(i->direct_fd, start, i->direct_buf, i->direct_align);
}

static int whole_blocks(struct image *i, u64 at, u8 *buf, size_t len, bool write)
{
	bool fits = !((uintptr_t)buf & (i->direct_align - 1));
	u8 *from = fits ? buf : i->direct_buf;
	int rc;

	if (!write) {
		rc = file_read(i->direct_fd, at, from, len);
		if (!rc && !fits)
			memcpy(buf, from, len);
		return rc;
	}
	if (!fits)
		memcpy(from, buf, len);
	return file_write(i->direct_fd, at, from, len);
}

/* The file's last bytes, which are no whole block, only the page cache has. */
static int data_io(struct image *i, u64 at, u8 *buf, size_t len, bool write)
{
	u64 end = 0;
	int rc = i->direct_fd < 0 ? 0 : file_size(i->fd, &end);

	end = ALIGN_DOWN(end, (u64)MAX(i->direct_align, 1u));
	for (size_t k; len && at < end && !rc; at += k, buf += k, len -= k) {
		u64 in = at & (i->direct_align - 1);

		k = MIN(MIN(len, end - at), IMAGE_DIRECT_BUF);
		if (in || k < i->direct_align) {
			k = MIN(k, i->direct_align - in);
			rc = part_of_block(i, at, buf, k, write);
		} else {
			k = ALIGN_DOWN(k, (size_t)i->direct_align);
			rc = whole_blocks(i, at, buf, k, write);
		}
	}
	if (rc || !len)
		return rc;
	return write ? file_write(i->fd, at, buf, len) : file_read(i->fd, at, buf, len);
}

static int data_read(struct image *i, u64 at, void *buf, size_t len)
{
	u64 end = 0;
	int rc = data_io(i, at, buf, len, false);

	if (rc || i->ops != &raw_image)
		return rc;
	/* Else it became shorter than the disk it was: what it had there are not zeroes. */
	rc = file_size(i->fd, &end);
	return rc ? rc : ALIGN_UP(end, BLK_SECTOR) < at + len ? -EIO : 0;
}

static int data_write(struct image *i, u64 at, const void *buf, size_t len)
{
	return data_io(i, at, (u8 *)(uintptr_t)buf, len, true);
}

/* --- read ----------------------------------------------------------------------------------- */

static int read_packed(struct image *i, const struct extent *e, u64 offset, u8 *buf, size_t len)
{
	u8 *cluster = i->bounce + i->cluster;
	u64 start = ALIGN_DOWN(offset, i->cluster);
	int rc = i->ops->unpack(i, e, cluster);

	if (!rc)
		memcpy(buf, cluster + (offset - start), len);
	return rc;
}

static int read_below(struct image *i, u64 offset, u8 *buf, size_t len)
{
	size_t k = !i || offset >= i->size ? 0 : MIN(len, i->size - offset);
	int rc = k ? image_read(i, offset, buf, k) : 0;

	memset(buf + k, 0, len - k);
	return rc;
}

int image_read(struct image *i, u64 offset, void *buf, size_t len)
{
	u8 *to = buf;

	while (len) {
		struct extent e;
		size_t k;
		int rc = i->ops->map(i, offset, len, false, &e);

		if (rc)
			return rc;
		k = MIN(len, e.len);
		switch (e.kind) {
		case EXTENT_DATA:
			rc = data_read(i, e.file_offset, to, k);
			break;
		case EXTENT_ZERO:
			memset(to, 0, k);
			break;
		case EXTENT_ABSENT:
			rc = read_below(i->backing, offset, to, k);
			break;
		case EXTENT_PACKED:
			rc = read_packed(i, &e, offset, to, k);
			break;
		}
		if (rc)
			return rc;
		to += k;
		offset += k;
		len -= k;
	}
	return 0;
}

/* --- write -------------------------------------------------------------------------------------- */

/* The extent's bytes are zeroes now, without looking into any file. */
static bool is_void(const struct image *i, const struct extent *e)
{
	return e->kind == EXTENT_ZERO ||
	       (e->kind == EXTENT_ABSENT && (!i->backing || e->start >= i->backing->size));
}

/* A part of a cluster that cannot be written in place. */
static int write_part(struct image *i, const struct extent *old, u64 offset, const u8 *buf, size_t len)
{
	u64 start = ALIGN_DOWN(offset, i->cluster), valid = MIN(i->cluster, i->size - start);
	struct extent e, at = *old;
	int rc = i->ops->alloc(i, start, i->cluster, &e);

	if (rc)
		return rc;
	at.start = start;
	if (e.fresh && is_void(i, &at)) {
		rc = data_write(i, e.file_offset + (offset - start), buf, len);
	} else {
		rc = image_read(i, start, i->bounce, valid);
		memset(i->bounce + valid, 0, i->cluster - valid);
		memcpy(i->bounce + (offset - start), buf, len);
		if (!rc)
			rc = data_write(i, e.file_offset, i->bounce, i->cluster);
	}
	if (!rc)
		rc = i->ops->publish(i, &e);
	if (rc)
		i->ops->cancel(i, &e);
	return rc;
}

static int write_clusters(struct image *i, u64 offset, const u8 *buf, size_t len, size_t *done)
{
	struct extent e;
	int rc = i->ops->alloc(i, offset, len, &e);

	if (rc)
		return rc;
	rc = data_write(i, e.file_offset, buf, e.len);
	if (!rc)
		rc = i->ops->publish(i, &e);
	if (rc)
		i->ops->cancel(i, &e);
	*done = e.len;
	return rc;
}

int image_write(struct image *i, u64 offset, const void *buf, size_t len)
{
	const u8 *from = buf;

	while (len) {
		u64 in = offset % i->cluster;
		struct extent e;
		size_t k;
		int rc = i->ops->map(i, offset, len, false, &e);

		if (rc)
			return rc;
		k = MIN(len, e.len);
		if (e.kind == EXTENT_DATA && e.writable) {
			rc = data_write(i, e.file_offset, from, k);
		} else if (!in && k >= i->cluster) {
			rc = write_clusters(i, offset, from, ALIGN_DOWN(k, (size_t)i->cluster), &k);
		} else {
			k = MIN(k, i->cluster - in);
			rc = write_part(i, &e, offset, from, k);
		}
		if (rc)
			return rc;
		from += k;
		offset += k;
		len -= k;
	}
	return 0;
}

int image_write_packed(struct image *i, u64 offset, const void *buf, size_t len)
{
	const u8 *from = buf;

	if (!i->ops->write_packed)
		return -EOPNOTSUPP;
	while (len) {
		size_t k = MIN(len, i->cluster);
		int rc;

		memcpy(i->bounce, from, k);
		memset(i->bounce + k, 0, i->cluster - k);
		rc = i->ops->write_packed(i, offset, i->bounce);
		if (rc > 0)
			rc = image_write(i, offset, from, k);
		if (rc)
			return rc;
		from += k;
		offset += k;
		len -= k;
	}
	return 0;
}

static int write_zeroes(struct image *i, u64 offset, u64 len)
{
	static const u8 zeroes[64 * KIB];
	int rc = 0;

	while (len && !rc) {
		struct extent e;
		u64 k;

		rc = i->ops->map(i, offset, MIN(len, sizeof(zeroes)), false, &e);
		if (rc)
			break;
		k = MIN(e.len, MIN(len, sizeof(zeroes)));
		if (!is_void(i, &e))
			rc = image_write(i, offset, zeroes, k);
		offset += k;
		len -= k;
	}
	return rc;
}

/* Cut [offset, offset + len) into what is whole clusters and the rest on either
 * side.  The disk's end ends a cluster. */
struct cut { u64 head, whole, tail; };
static struct cut cut_clusters(const struct image *i, u64 offset, u64 len)
{
	u64 end = offset + len, first = ALIGN_UP(offset, (u64)i->cluster);
	u64 last = end == i->size ? end : ALIGN_DOWN(end, i->cluster);

	if (first >= last)
		return (struct cut){ len, 0, 0 };
	return (struct cut){ first - offset, last - first, end - last };
}

int image_zero(struct image *i, u64 offset, u64 len, bool unmap)
{
	struct cut c = cut_clusters(i, offset, len);
	int rc;

	if (!i->ops->zero) {
		rc = file_zero(i->fd, offset, len, unmap);
		return rc == -EOPNOTSUPP ? write_zeroes(i, offset, len) : rc;
	}
	rc = write_zeroes(i, offset, c.head);
	if (!rc && c.whole) {
		rc = i->ops->zero(i, offset + c.head, c.whole, unmap);
		if (rc == -EOPNOTSUPP)
			rc = write_zeroes(i, offset + c.head, c.whole);
	}
	return rc ? rc : write_zeroes(i, offset + c.head + c.whole, c.tail);
}

int image_discard(struct image *i, u64 offset, u64 len)
{
	struct cut c = cut_clusters(i, offset, len);
	int rc = 0;

	if (!i->ops->zero)
		rc = file_zero(i->fd, offset, len, true);
	else if (c.whole)
		rc = i->ops->zero(i, offset + c.head, c.whole, true);
	return rc == -EOPNOTSUPP ? 0 : rc;
}

/* Under sync_lock, which it lets go of meanwhile. */
static int sync_all_asked(struct image *i)
{
	u64 covers = i->syncs_asked;
	int rc;

	i->syncing = true;
	pthread_mutex_unlock(&i->sync_lock);
	rc = file_sync(i->fd);
	pthread_mutex_lock(&i->sync_lock);
	i->syncing = false;
	if (!rc) {
		i->syncs_done = covers;
	} else {
		store_once(&i->lost, true);
		log_err("disk %s: the host could not write what it had taken: %s; some of what came since the "
			"last flush is lost, and from now on no flush succeeds", i->path, strerror(-rc));
	}
	pthread_cond_broadcast(&i->sync_ended);
	return rc;
}

int image_sync(struct image *i)
{
	u64 asked;
	int rc = 0;

	pthread_mutex_lock(&i->sync_lock);
	asked = ++i->syncs_asked;
	while (i->syncing)
		pthread_cond_wait(&i->sync_ended, &i->sync_lock);
	if (i->lost)
		rc = -ENOTRECOVERABLE;
	else if (i->syncs_done < asked)
		rc = sync_all_asked(i);
	pthread_mutex_unlock(&i->sync_lock);
	return rc;
}

int image_flush_step(struct image *i, unsigned *step)
{
	if (i->read_only)
		return 0;
	/* Another sync, in between, may have been told of what this one's was to write. */
	if (load_once(&i->lost))
		return -ENOTRECOVERABLE;
	return i->ops->flush ? i->ops->flush(i, step) : !(*step)++;
}

int image_flush(struct image *i)
{
	unsigned step = 0;
	int rc;

	do {
		rc = image_flush_step(i, &step);
		if (rc <= 0)
			return rc;
		rc = image_sync(i);
	} while (!rc);
	return rc;
}

void image_reclaim(struct image *i)
{
	if (i->ops->reclaim && !i->read_only)
		i->ops->reclaim(i);
}

bool image_reclaim_due(const struct image *i)
{
	return i->ops->reclaim_due && i->ops->reclaim_due(i);
}

/* What is cut off must not come back when the disk grows again. */
static int before_shrink(struct image *i, u64 size, struct err *err)
{
	int rc = image_zero(i, size, i->size - size, true);

	if (!rc)
		rc = image_flush(i);
	return rc ? err_set(err, rc, "%s", strerror(-rc)) : 0;
}

/* Nor must what the backing image has there: to the guest the disk ended. */
static int before_growth(struct image *i, u64 size, struct err *err)
{
	u64 old = i->size, end = i->backing ? MIN(size, i->backing->size) : 0;
	int rc = i->ops->reserve ? i->ops->reserve(i, size, err) : 0;

	if (rc || end <= old)
		return rc;
	i->size = size;
	rc = image_zero(i, old, end - old, true);
	if (!rc)
		rc = image_flush(i);
	i->size = old;
	return rc ? err_set(err, rc, "%s", strerror(-rc)) : 0;
}

int image_resize(struct image *i, u64 size, struct err *err)
{
	int rc;

	if (i->read_only)
		return err_set(err, -EROFS, "opened read-only");
	if (!size || size % BLK_SECTOR || size > INT64_MAX)
		return err_set(err, -EINVAL, "size %llu is not a multiple of %d bytes, or too large",
			       (unsigned long long)size, BLK_SECTOR);
	rc = size < i->size ? before_shrink(i, size, err) : before_growth(i, size, err);
	if (!rc)
		rc = i->ops->resize(i, size, err);
	if (!rc)
		i->size = size;
	return rc;
}

int image_set_backing(struct image *i, const char *path, const char *format, struct err *err)
{
	if (i->read_only)
		return err_set(err, -EROFS, "opened read-only");
	if (i->ops != &qcow2_image)
		return err_set(err, -EINVAL, "a raw image has no backing file");
	if (path && !image_format(format))
		return err_set(err, -EINVAL, "format '%s' is not known; known: raw, qcow2", format);
	return qcow2_set_backing(i, path, format, err);
}

int image_where(struct image *i, u64 offset, u64 len, struct image_where *w)
{
	*w = (struct image_where){ .depth = -1 };
	for (int depth = 0; ; depth++, i = i->backing) {
		int rc = i->ops->map(i, offset, len, false, &w->extent);

		if (rc)
			return rc;
		len = MIN(len, w->extent.len);
		if (i->ops == &raw_image) {
			u64 until;

			if (!file_is_data(i->fd, offset, offset + len, &until))
				w->extent.kind = EXTENT_ZERO;
			len = until - offset;
		}
		w->extent.len = len;
		if (w->extent.kind == EXTENT_ZERO)
			return 0;
		if (w->extent.kind != EXTENT_ABSENT) {
			w->depth = depth;
			w->image = i;
			return 0;
		}
		if (!i->backing || offset >= i->backing->size)
			return 0;
		len = MIN(len, i->backing->size - offset);
	}
}

/* --- create and check ---------------------------------------------------------------------------- */

static int create_raw(int fd, const struct image_create *c, struct err *err)
{
	int rc;

	if (c->backing)
		return err_set(err, -EINVAL, "a raw image has no backing file; use format qcow2");
	if (c->preallocation == PREALLOC_METADATA)
		return err_set(err, -EINVAL, "a raw image has no metadata to preallocate");
	rc = file_truncate(fd, c->size);
	if (!rc && c->preallocation)
		rc = file_allocate(fd, 0, c->size);
	if (!rc)
		rc = file_sync(fd);
	return rc ? err_set(err, rc, "%s", strerror(-rc)) : 0;
}

int image_refuse_existing(const char *path, struct err *err)
{
	struct stat st;

	if (lstat(path, &st))
		return 0;
	if (stat(path, &st) || S_ISREG(st.st_mode))
		return err_set(err, -EEXIST, "disk %s: there is a file already; remove it first", path);
	return err_set(err, -EEXIST, "disk %s: %s; images are made in new files only", path,
		       S_ISDIR(st.st_mode) ? "a directory" : S_ISBLK(st.st_mode) ? "a block device" : "no regular file");
}

/* By its descriptor: its name, in another user's directory, may be another file's by now. */
static void make_like(int fd, const struct stat *like)
{
	(void)!fchown(fd, like->st_uid, like->st_gid);
	(void)!fchmod(fd, like->st_mode & 0777);
}

int image_create(const char *path, const struct image_create *c, struct err *err)
{
	int rc, fd;

	if (!image_format(c->format))
		return err_set(err, -EINVAL, "format '%s' is not known; known: raw, qcow2", c->format);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, c->like ? 0600 : c->mode ?: 0644);
	if (fd < 0 && errno == EEXIST && image_refuse_existing(path, err))
		return -EEXIST;
	if (fd < 0)
		return err_set(err, -errno, "disk %s: %s", c->called ?: path, strerror(errno));
	rc = !strcmp(c->format, "raw") ? create_raw(fd, c, err) : qcow2_create(fd, path, c, err);
	if (!rc && c->like)
		make_like(fd, c->like);
	if (!rc && c->made && fstat(fd, c->made))
		rc = err_set(err, -errno, "%s", strerror(errno));
	close(fd);
	if (rc) {
		unlink(path);
		err_prefix(err, "disk %s: ", c->called ?: path);
	}
	return rc;
}

int image_check(struct image *i, bool repair, struct image_check *c, struct err *err)
{
	if (i->ops != &qcow2_image) {
		c->total = c->allocated = (i->size + i->cluster - 1) / i->cluster;
		return 0;
	}
	return qcow2_check(i, repair, c, err);
}
