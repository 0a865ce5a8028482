/* image.c: opening a chain of images, reading through it, copy-on-write. */
#include "devices/block/image.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/stat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "devices/block/blk.h"
#include "devices/block/file.h"
#include "devices/block/qcow2.h"
#include "vmm/core/log.h"

/* --- open ------------------------------------------------------------------------------- */

/* Does the process have a lock on the file?  /proc says so of our own user's. */
static bool holds(const char *pid, const struct stat *file)
{
	char path[600], line[256], want[64];
	DIR *fds;
	struct dirent *d;
	bool found = false;

	snprintf(want, sizeof(want), "%02x:%02x:%llu ", major(file->st_dev), minor(file->st_dev),
		 (unsigned long long)file->st_ino);
	snprintf(path, sizeof(path), "/proc/%s/fdinfo", pid);
	fds = opendir(path);
	while (fds && !found && (d = readdir(fds))) {
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%s/fdinfo/%s", pid, d->d_name);
		f = d->d_name[0] == '.' ? NULL : fopen(path, "re");
		while (f && !found && fgets(line, sizeof(line), f))
			found = !strncmp(line, "lock:", 5) && strstr(line, want);
		if (f)
			fclose(f);
	}
	if (fds)
		closedir(fds);
	return found;
}

/* " (pid 1234)", or nothing where it cannot be known: another user's, another host's. */
static void find_holder(const struct image *i, char *text, size_t len)
{
	DIR *proc = opendir("/proc");
	struct dirent *d;
	struct stat st;

	*text = 0;
	while (proc && !*text && !fstat(i->fd, &st) && (d = readdir(proc)))
		if (d->d_name[0] >= '1' && d->d_name[0] <= '9' && holds(d->d_name, &st))
			snprintf(text, len, " (pid %.10s)", d->d_name);
	if (proc)
		closedir(proc);
}

static int lock_image(const struct image *i, struct err *err)
{
	char holder[32];
	struct flock lock = {
		.l_type = i->read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET,
	};

	if (!fcntl(i->fd, F_OFD_SETLK, &lock))
		return 0;
	if (errno != EAGAIN && errno != EACCES)
		return 0;	/* this file system has no locks: nothing to respect */
	find_holder(i, holder, sizeof(holder));
	return err_set(err, -EBUSY, "in use by another program%s%s", holder, i->read_only ?
		       ", which writes to it" : "; several may have it only if all only read");
}

/* Locked, but is it still the file of that name?  'vmm disk snapshot' and others
 * rename over it, and what they renamed away must not be written to. */
static bool was_replaced(const struct image *i)
{
	struct stat is, named;

	return !fstat(i->fd, &is) && !stat(i->path, &named) &&
	       (is.st_dev != named.st_dev || is.st_ino != named.st_ino);
}

static int open_file(struct image *i, const struct image_options *o, struct err *err)
{
	struct stat st;
	int rc;

	/* Non-blocking, or a FIFO given by mistake would hang here for ever. */
	i->fd = open(i->path, (i->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK);
	if (i->fd < 0) {
		const char *cure = "";

		rc = -errno;
		if (rc == -ENOENT)
			cure = "; make one with 'vmm disk create'";
		else if ((rc == -EACCES || rc == -EROFS) && !i->read_only)
			cure = "; add ',readonly' if reading is enough";
		return err_set(err, rc, "%s%s", strerror(-rc), cure);
	}
	/* io_uring would take it for "rather fail than wait". */
	fcntl(i->fd, F_SETFL, 0);
	if (fstat(i->fd, &st))
		return err_set(err, -errno, "%s", strerror(errno));
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return err_set(err, -EINVAL, "neither a file nor a block device");
	rc = file_size(i->fd, &i->size);
	if (rc)
		return err_set(err, rc, "no size: %s", strerror(-rc));
	rc = o->no_lock ? 0 : lock_image(i, err);
	if (rc || o->no_lock || !was_replaced(i))
		return rc;
	close(i->fd);
	return open_file(i, o, err);
}

/* What is copied for direct I/O at a time. */
#define DIRECT_BUF	(256 * KIB)

/*
 * The same file once more: by its number, as its name may be another's by now.
 *
 * Data is never read or written both ways: where the kernel meets pages of one in
 * the way of the other it may lose either, and says so by an EIO to the next sync.
 * Tables, which go through the cache, have clusters of their own; without reading
 * ahead the cache has no page, however large, that goes beyond them.
 */
static int open_direct(struct image *i, struct err *err)
{
	struct statx x;
	char self[40];
	struct stat st;

	snprintf(self, sizeof(self), "/proc/self/fd/%d", i->fd);
	i->direct_fd = open(self, (i->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_DIRECT);
	if (i->direct_fd < 0)
		return err_set(err, -errno, "direct=on: %s", errno == EINVAL ?
			       "its file system has no direct I/O" : strerror(errno));
	/* Where the kernel does not say (before 6.1), a page always is enough. */
	i->direct_align = 4096;
	if (!statx(i->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &x) && x.stx_mask & STATX_DIOALIGN &&
	    x.stx_dio_offset_align)
		i->direct_align = MAX(x.stx_dio_offset_align, x.stx_dio_mem_align);
	else if (!fstat(i->fd, &st) && S_ISBLK(st.st_mode))
		ioctl(i->fd, BLKSSZGET, &i->direct_align);
	posix_fadvise(i->fd, 0, 0, POSIX_FADV_RANDOM);
	i->direct_buf = aligned_alloc(MAX(i->direct_align, 4096u), DIRECT_BUF);
	return i->direct_buf ? 0 : err_set(err, -ENOMEM, "out of memory");
}

static const struct image_ops *find_format(const char *name)
{
	static const struct image_ops *const known[] = { &raw_image, &qcow2_image };

	for (size_t n = 0; n < ARRAY_SIZE(known); n++)
		if (!strcmp(known[n]->format, name))
			return known[n];
	return NULL;
}

static int pick_format(struct image *i, const struct image_options *o, struct err *err)
{
	char head[IMAGE_HEAD];
	int rc;

	i->guessed = o->guessed || !o->format;
	if (o->format) {
		i->ops = find_format(o->format);
		if (!i->ops)
			return err_set(err, -EINVAL, "format '%s' is not known; known: raw, qcow2",
				       o->format);
		return i->ops == &raw_image ? image_refuse_delta(i, err) : 0;
	}
	rc = file_read(i->fd, 0, head, sizeof(head));
	if (rc)
		return err_set(err, rc, "%s", strerror(-rc));
	i->ops = image_head_is_qcow2(head) ? &qcow2_image : &raw_image;
	return 0;
}

static int open_one(struct image **out, const char *path, const struct image_options *o,
		    struct err *err)
{
	struct image *i = calloc(1, sizeof(*i));
	int rc = 0;

	if (!i || !(i->path = strdup(path))) {
		free(i);
		return err_set(err, -ENOMEM, "out of memory");
	}
	i->fd = i->direct_fd = -1;
	i->read_only = o->read_only;
	pthread_mutex_init(&i->sync_lock, NULL);
	pthread_cond_init(&i->sync_ended, NULL);
	rc = open_file(i, o, err);
	if (!rc && o->direct)
		rc = open_direct(i, err);
	if (!rc)
		rc = pick_format(i, o, err);
	if (!rc)
		rc = i->ops->open(i, err);
	if (!rc && o->direct && i->cluster < i->direct_align && i->ops != &raw_image)
		rc = err_set(err, -EINVAL, "direct=on: its clusters of %u bytes are smaller than what "
			     "this host reads and writes directly, %u", i->cluster, i->direct_align);
	if (!rc && !(i->bounce = malloc(2 * (size_t)i->cluster)))
		rc = err_set(err, -ENOMEM, "out of memory");
	if (rc) {
		image_close(i);
		return rc;
	}
	*out = i;
	return 0;
}

/* Where i says its backing file is: relative names begin in its own directory,
 * not in that of a link to it. */
static char *backing_name(const struct image *i)
{
	char own[PATH_MAX], *name;
	const char *path = i->path, *slash;
	int n;

	if (readlink(path, own, sizeof(own)) > 0 && realpath(path, own))
		path = own;
	slash = strrchr(path, '/');
	if (i->backing_path[0] == '/' || !slash)
		return strdup(i->backing_path);
	n = asprintf(&name, "%.*s%s", (int)(slash + 1 - path), path, i->backing_path);
	return n < 0 ? NULL : name;
}

/* An image is data; it does not get to choose which other files of the host the
 * guest reads. */
static int check_place(const struct image *i, const char *name, struct err *err)
{
	char own[PATH_MAX], other[PATH_MAX], *slash;

	if (!realpath(i->path, own) || !realpath(name, other))
		return err_set(err, -errno, "its backing file %s: %s", name, strerror(errno));
	slash = strrchr(own, '/');
	if (!strncmp(own, other, slash + 1 - own))
		return 0;
	return err_set(err, -EPERM, "its backing file %s is outside its directory; if that is meant, "
		       "say so with 'backing=anywhere'", name);
}

static bool in_chain(const struct image *top, const struct image *i)
{
	struct stat a, b;

	for (; top && top != i; top = top->backing)
		if (!fstat(top->fd, &a) && !fstat(i->fd, &b) && a.st_dev == b.st_dev &&
		    a.st_ino == b.st_ino)
			return true;
	return false;
}

static int open_backing(struct image *top, struct image *i, const struct image_options *o,
			unsigned depth, struct err *err)
{
	struct image_options below = { .format = i->backing_format, .read_only = true,
				       .no_lock = o->no_lock, .direct = o->direct };
	char *name;
	int rc = 0;

	if (depth >= CHAIN_MAX_FILES)
		return err_set(err, -EINVAL, "more than %d files deep", CHAIN_MAX_FILES);
	if (!i->backing_format)
		return err_set(err, -EINVAL, "it does not say what format its backing file %s has, and "
			       "guessing is not safe; record it with 'vmm disk rebase --format'",
			       i->backing_path);
	name = backing_name(i);
	if (!name)
		return err_set(err, -ENOMEM, "out of memory");
	if (!o->backing_anywhere)
		rc = check_place(i, name, err);
	if (!rc) {
		rc = open_one(&i->backing, name, &below, err);
		if (rc)
			err_prefix(err, "backing file %s: ", name);
	}
	free(name);
	if (!rc && in_chain(top, i->backing))
		rc = err_set(err, -EINVAL, "its backing files go round in a circle");
	return rc;
}

int image_open(struct image **out, const char *path, const struct image_options *o, struct err *err)
{
	struct image *top = NULL;
	unsigned depth = 0;
	int rc = open_one(&top, path, o, err);

	if (!o->no_backing)
		for (struct image *i = top; i && i->backing_path && !rc; i = i->backing)
			rc = open_backing(top, i, o, ++depth, err);
	if (!rc && top->ops == &qcow2_image && !o->repairing)
		rc = qcow2_made_consistent(top, err);
	if (rc) {
		image_close(top);
		err_prefix(err, "disk %s: ", path);
		return rc;
	}
	*out = top;
	return 0;
}

void image_close(struct image *i)
{
	while (i) {
		struct image *below = i->backing;

		if (i->own)
			i->ops->close(i);
		if (i->direct_fd >= 0)
			close(i->direct_fd);
		if (i->fd >= 0)
			close(i->fd);
		free(i->path);
		free(i->backing_path);
		free(i->backing_format);
		free(i->bounce);
		free(i->direct_buf);
		pthread_mutex_destroy(&i->sync_lock);
		pthread_cond_destroy(&i->sync_ended);
		free(i);
		i = below;
	}
}

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

		k = MIN(MIN(len, end - at), DIRECT_BUF);
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
	return data_io(i, at, buf, len, false);
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
	if (path && !find_format(format))
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

int image_create(const char *path, const struct image_create *c, struct err *err)
{
	int rc, fd;

	if (!find_format(c->format))
		return err_set(err, -EINVAL, "format '%s' is not known; known: raw, qcow2", c->format);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return err_set(err, -errno, "disk %s: %s", path,
			       errno == EEXIST ? "there is a file already; remove it first" :
						 strerror(errno));
	rc = !strcmp(c->format, "raw") ? create_raw(fd, c, err) : qcow2_create(fd, path, c, err);
	close(fd);
	if (rc) {
		unlink(path);
		err_prefix(err, "disk %s: ", path);
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
