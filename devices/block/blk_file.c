/* blk_file.c: a disk's files: opened, grown, and snapshots of them while they are in use. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "devices/block/blk_own.h"
#include "devices/block/chain.h"
#include "devices/block/file.h"
#include "vmm/core/log.h"

static int get_device_info(struct blk *b, struct err *err)
{
	unsigned physical = 0, min_io = 0, opt_io = 0;
	int offset = 0, read_only = 0, fd = b->image->fd;

	ioctl(fd, BLKPBSZGET, &physical);
	ioctl(fd, BLKIOMIN, &min_io);
	ioctl(fd, BLKIOOPT, &opt_io);
	ioctl(fd, BLKALIGNOFF, &offset);
	ioctl(fd, BLKROGET, &read_only);
	b->info.physical_block = physical ? physical : BLK_SECTOR;
	b->info.min_io = min_io ? min_io : b->info.physical_block;
	b->info.opt_io = opt_io;
	b->info.alignment_offset = MAX(offset, 0);
	return read_only && !b->info.read_only ?
		err_set(err, -EROFS, "the device is read-only; add ',readonly'") : 0;
}

static int get_info(struct blk *b, struct err *err)
{
	struct stat st;
	int rc = 0;

	b->info.size = ALIGN_DOWN(b->image->size, BLK_SECTOR);
	b->info.can_discard = !b->info.read_only;
	if (fstat(b->image->fd, &st))
		return err_set(err, -errno, "%s", strerror(errno));
	if (S_ISBLK(st.st_mode)) {
		rc = get_device_info(b, err);
	} else {
		b->info.physical_block = st.st_blksize >= BLK_SECTOR && st.st_blksize <= 65536 &&
			!(st.st_blksize & (st.st_blksize - 1)) ? (u32)st.st_blksize : 4096;
		b->info.min_io = b->info.physical_block;
	}
	b->info.discard_granularity = MAX(b->info.physical_block, b->image->cluster);
	if (!b->raw)
		b->info.opt_io = b->image->cluster;
	return rc;
}

int blk_open(struct blk **out, const char *path, const struct blk_options *o, struct err *err)
{
	struct image_options io = { .format = o->format, .guessed = o->guessed,
				    .read_only = o->read_only,
				    .backing_anywhere = o->backing_anywhere,
				    .direct = o->direct, .is = o->is };
	struct blk *b = calloc(1, sizeof(*b));
	int rc;

	if (!b)
		return err_set(err, -ENOMEM, "out of memory");
	pthread_mutex_init(&b->settling, NULL);
	pthread_mutex_init(&b->change, NULL);
	pthread_mutex_init(&b->lock, NULL);
	b->info.read_only = o->read_only;
	rc = image_open(&b->image, path, &io, err);
	if (!rc) {
		b->raw = b->image->ops == &raw_image;
		rc = get_info(b, err);
		if (!rc && !o->read_only)
			rc = chain_refuse_snapshot(b->image, err);
		if (rc)
			err_prefix(err, "disk %s: ", path);
		else
			rc = chain_refuse_marked(path, err);
	}
	if (rc) {
		blk_close(b);
		return rc;
	}
	*out = b;
	return 0;
}

void blk_close(struct blk *b)
{
	int rc;

	if (!b)
		return;
	if (b->image && !b->raw) {
		rc = blk_settle(b);
		if (!rc)
			rc = chain_settle(b->image);
		if (rc)
			log_err("disk %s: what was written last may be lost: %s", b->image->path,
				strerror(-rc));
	}
	image_close(b->next);
	image_close(b->image);
	pthread_mutex_destroy(&b->lock);
	pthread_mutex_destroy(&b->change);
	pthread_mutex_destroy(&b->settling);
	free(b);
}

struct blk_info blk_info(const struct blk *b)
{
	return b->info;
}

const char *blk_path(const struct blk *b)
{
	return b->image->path;
}

const char *blk_format(const struct blk *b)
{
	return b->image->ops->format;
}

bool blk_has_file(const struct blk *b, const struct stat *file)
{
	struct stat st;

	for (const struct image *i = b->image; i; i = i->backing)
		if (!fstat(i->fd, &st) && same_file(&st, file))
			return true;
	return false;
}

bool blk_is_guessed(const struct blk *b)
{
	return b->image->guessed;
}

const char *blk_base_path(const struct blk *b, const char **format)
{
	const struct image *i = b->next ? b->image : b->image->backing;

	*format = i ? i->ops->format : NULL;
	return i ? i->path : NULL;
}

/* --- while it is in use ---------------------------------------------------------------------- */

/* A device, or a file that somebody else made larger, is as large as it is. */
static int size_of_raw(struct blk *b, u64 *size, struct err *err)
{
	struct stat st;
	u64 now = 0;
	int rc = fstat(b->image->fd, &st) ? -errno : file_size(b->image->fd, &now);

	if (rc)
		return err_set(err, rc, "%s", strerror(-rc));
	now = ALIGN_DOWN(now, BLK_SECTOR);
	if (!*size)
		*size = now;
	if (S_ISBLK(st.st_mode) && *size != now)
		return err_set(err, -EINVAL, "the device has %llu bytes; it cannot become a disk of %llu",
			       (unsigned long long)now, (unsigned long long)*size);
	return 0;
}

int blk_resize(struct blk *b, u64 size, struct err *err)
{
	u64 old = b->info.size;
	int rc = 0;

	if (b->info.read_only)
		return err_set(err, -EROFS, "disk %s: opened read-only", b->image->path);
	pthread_mutex_lock(&b->change);
	blk_lock(b);
	if (b->raw)
		rc = size_of_raw(b, &size, err);
	else if (!size)
		size = old;
	if (!rc && size < old)
		rc = err_set(err, -EINVAL, "a disk in use can only grow; it has %llu bytes",
			     (unsigned long long)old);
	if (!rc && size != old)
		rc = image_resize(b->image, size, err);
	if (rc)
		err_prefix(err, "disk %s: ", b->image->path);
	else
		store_release(&b->info.size, ALIGN_DOWN(size, BLK_SECTOR));
	blk_unlock(b);
	pthread_mutex_unlock(&b->change);
	return rc;
}

/* Whoever looks at the new file while it is being opened locks it for a moment. */
static int open_delta(struct image **out, const char *path, const struct stat *is, bool direct, struct err *err)
{
	struct image_options o = { .format = "qcow2", .no_backing = true, .direct = direct, .is = is };
	int rc = -EBUSY;

	for (int n = 0; n < 200 && rc == -EBUSY; n++) {
		if (n)
			usleep(1000);
		rc = image_open(out, path, &o, err);
	}
	return rc;
}

/* The file is called by the snapshot's name alone, until it has its own again. */
static void undo_take(const char *path, const char *below)
{
	struct err err;

	if (rename(below, path) || chain_sync_dir(path, &err))
		log_err("disk %s: its file is %s now", path, below);
}

/* From here on the disk is an empty delta of what is still being written to: the same
 * bytes, should we end now. */
static int begin_delta(struct blk *b, const char *path, const char *below, const char *name,
		       struct err *err)
{
	struct image *i = b->image;
	struct stat made;
	bool done;
	int rc = chain_take(i, path, name, NULL, &made, &done, err);

	if (!rc)
		rc = open_delta(&b->next, path, &made, i->direct_fd >= 0, err);
	if (rc && done)
		undo_take(path, below);
	return rc;
}

/*
 * Most of the work while the guest goes on: of the data first, without change, so that
 * all requests do; then of the tables, and of what was written meanwhile.
 */
static int flush_ahead(struct blk *b, const char *path, struct err *err)
{
	int rc = image_sync(b->image);

	if (!rc) {
		pthread_mutex_lock(&b->change);
		rc = blk_flush_image(b, b->image);
		pthread_mutex_unlock(&b->change);
	}
	return rc ? err_set(err, rc, "disk %s: %s", path, strerror(-rc)) : 0;
}

/* As chain_settle; what was freed before it was taken nobody reads any more. */
static int settle_snapshot(struct blk *b, struct image *i)
{
	struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET };
	int rc = 0;

	for (int n = 0; n < 2 && !rc; n++) {
		rc = blk_flush_image(b, i);
		blk_lock(b);
		if (!rc)
			image_reclaim(i);
		blk_unlock(b);
	}
	if (!rc)
		rc = blk_flush_image(b, i);
	if (rc)
		return rc;
	blk_lock(b);
	store_once(&i->read_only, true);
	blk_unlock(b);
	/* Others may base disks on it from now on. */
	(void)fcntl(i->fd, F_OFD_SETLK, &lock);
	return 0;
}

int blk_settle(struct blk *b)
{
	int rc = 0;

	pthread_mutex_lock(&b->settling);
	if (b->unsettled) {
		rc = settle_snapshot(b, b->unsettled);
		if (!rc)
			b->unsettled = NULL;
	}
	pthread_mutex_unlock(&b->settling);
	return rc;
}

/* Who has the lock may be about to say it. */
static char *set_path(struct blk *b, char *path)
{
	char *old;

	pthread_mutex_lock(&b->lock);
	old = b->image->path;
	b->image->path = path;
	pthread_mutex_unlock(&b->lock);
	return old;
}

static int can_be_taken(const struct blk *b, const char *name, struct err *err)
{
	const struct image *i = b->image;
	struct stat st;

	if (b->info.read_only)
		return err_set(err, -EROFS, "disk %s: opened read-only", i->path);
	if (!chain_good_name(name))
		return err_set(err, -EINVAL, "'%s' cannot name a snapshot; use 1 to %d letters, "
			       "digits, '.', '_' or '-', the first a letter or digit", name,
			       CHAIN_NAME_MAX);
	if (fstat(i->fd, &st) || !S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "disk %s: not a file, which could be renamed", i->path);
	return chain_still_there(i, err);
}

/* What begin_delta did is undone. */
static void drop_delta(struct blk *b, const char *path, const char *below)
{
	undo_take(path, below);
	image_close(b->next);
	b->next = NULL;
}

static int prepare(struct blk *b, const char *path, const char *below, const char *name,
		   struct err *err)
{
	int rc = begin_delta(b, path, below, name, err);

	if (rc)
		return rc;
	rc = flush_ahead(b, path, err);
	if (rc)
		drop_delta(b, path, below);
	return rc;
}

int blk_snapshot_prepare(struct blk *b, const char *name, struct err *err)
{
	char *path, *below;
	int rc = can_be_taken(b, name, err);

	if (!rc)
		rc = blk_snapshot_settle(b, err);	/* the one before it, if that failed then */
	if (rc)
		return rc;
	path = chain_resolve(b->image->path);
	below = path ? chain_snapshot_path(path, name) : NULL;
	rc = below ? prepare(b, path, below, name, err) : err_set(err, -ENOMEM, "out of memory");
	if (!rc)
		below = set_path(b, below);
	free(path);
	free(below);
	return rc;
}

void blk_snapshot_cancel(struct blk *b)
{
	char *path = b->next->path;

	b->next->path = NULL;
	drop_delta(b, path, b->image->path);
	free(set_path(b, path));
}

void blk_snapshot_take(struct blk *b)
{
	b->unsettled = b->image;
	b->next->backing = b->image;
	b->image = b->next;
	b->next = NULL;
	b->raw = false;
	b->generation = 0;
	b->info.discard_granularity = MAX(b->info.physical_block, b->image->cluster);
}

int blk_snapshot_settle(struct blk *b, struct err *err)
{
	int rc = blk_settle(b);

	return rc ? err_set(err, rc, "disk %s: its snapshot %s is not all on the disk: %s; each flush tries "
			    "again", b->image->path, b->image->backing->path, strerror(-rc)) : 0;
}
