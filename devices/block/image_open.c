/* image_open.c: an image and what it is backed by, found, locked, taken for what they are. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/stat.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "devices/block/file.h"
#include "devices/block/image.h"
#include "devices/block/qcow2.h"
#include "vmm/core/log.h"
#include "vmm/core/loop.h"

enum { LOOK_NS = 500000000, TRIES = 5 };

/* Does the process have a lock on the file?  /proc says so of our own user's.  No other user is to keep us long with his. */
static bool holds(const char *pid, const struct stat *file, u64 end_ns)
{
	enum { MAX_LINES = 100 };
	char path[600], line[256], want[64];
	DIR *fds;
	struct dirent *d;
	bool found = false;

	snprintf(want, sizeof(want), "%02x:%02x:%llu ", major(file->st_dev), minor(file->st_dev),
		 (unsigned long long)file->st_ino);
	snprintf(path, sizeof(path), "/proc/%s/fdinfo", pid);
	fds = opendir(path);
	while (fds && !found && now_ns() < end_ns && (d = readdir(fds))) {
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%s/fdinfo/%s", pid, d->d_name);
		f = d->d_name[0] == '.' ? NULL : fopen(path, "re");
		for (int n = 0; n < MAX_LINES && f && !found && fgets(line, sizeof(line), f); n++)
			found = !strncmp(line, "lock:", 5) && strstr(line, want);
		if (f)
			fclose(f);
	}
	if (fds)
		closedir(fds);
	return found;
}

/* "another program (pid 1234)", or nothing where it cannot be known: another user's, another host's. */
static void find_holder(const struct image *i, char *text, size_t len)
{
	u64 end_ns = now_ns() + LOOK_NS;
	DIR *proc = opendir("/proc");
	struct dirent *d;
	struct stat st;

	*text = 0;
	while (proc && !*text && now_ns() < end_ns && !fstat(i->fd, &st) && (d = readdir(proc)))
		if (d->d_name[0] >= '1' && d->d_name[0] <= '9' && holds(d->d_name, &st, end_ns)) {
			if (atoi(d->d_name) == getpid())
				snprintf(text, len, "this process already");
			else
				snprintf(text, len, "another program (pid %.10s)", d->d_name);
		}
	if (proc)
		closedir(proc);
}

/*
 * QEMU's writers have a lock for reading as well, on bytes of the file that stand for what they
 * may do; one is for writing.  Who only reads has one on all of it here, and there not on this.
 */
static bool qemu_writes(const struct image *i)
{
	enum { MAY_WRITE = 101 };
	struct flock lock = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = MAY_WRITE, .l_len = 1,
	};

	return !fcntl(i->fd, F_OFD_GETLK, &lock) && lock.l_type != F_UNLCK && lock.l_start;
}

/*
 * What a program that was killed had asked of io_uring is still done, and until then the lock
 * is nobody's that can be seen: such a one is waited for.
 */
static int lock_image(const struct image *i, struct err *err)
{
	enum { LONGEST_MS = 1024 };
	char holder[48] = "";
	struct flock lock = {
		.l_type = i->read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET,
	};

	for (int ms = 1; ; ms *= 2) {
		int rc;

		do
			rc = fcntl(i->fd, F_OFD_SETLK, &lock);
		while (rc && errno == EINTR);
		if (rc) {
			if (errno == EINVAL || errno == EOPNOTSUPP || errno == ENOSYS)
				return 0;	/* this file system has no locks: nothing to respect */
			if (errno == ENOLCK) {
				log_warn("disk %s: the host gives no lock: nothing keeps others from writing to it, "
					 "too", i->path);
				return 0;
			}
			if (errno != EAGAIN && errno != EACCES)
				return err_set(err, -errno, "no lock: %s", strerror(errno));
		} else if (!i->read_only || !qemu_writes(i)) {
			return 0;
		}
		if (ms == 1 || ms > LONGEST_MS)
			find_holder(i, holder, sizeof(holder));
		if (*holder || ms > LONGEST_MS)
			return err_set(err, -EBUSY, "in use by %s%s", *holder ? holder : "another program",
				       i->read_only ? ", which writes to it" :
				       "; several may have it only if all only read");
		poll(NULL, 0, ms);
	}
	return 0;
}

/* Nobody has it locked, or does no more: is it the host that keeps the device for itself? */
static int claim_device(struct image *i, struct err *err)
{
	close(i->fd);
	i->fd = open(i->path, O_RDWR | O_EXCL | O_CLOEXEC);
	if (i->fd < 0)
		return err_set(err, -errno, "%s%s", strerror(errno), errno == EBUSY ?
			       "; the host has it mounted, or uses it otherwise" : "");
	return lock_image(i, err);
}

static int open_file(struct image *i, const struct image_options *o, struct err *err)
{
	/* A device that is written to is nobody else's, nor can it be mounted; to files that is nothing. */
	int how = O_CLOEXEC | O_NONBLOCK | (i->read_only ? O_RDONLY : O_RDWR | O_EXCL), rc;
	bool busy;
	struct stat st;

	/* To open some devices is to start them. */
	if (!stat(i->path, &st) && !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return err_set(err, -EINVAL, "neither a file nor a block device");
	/* Non-blocking, or a FIFO given by mistake would hang here for ever. */
	i->fd = open(i->path, how);
	busy = i->fd < 0 && errno == EBUSY;
	if (busy)
		i->fd = open(i->path, how & ~O_EXCL);
	if (i->fd < 0) {
		const char *cure = "";

		rc = -errno;
		if (rc == -ENXIO)	/* a socket, or a device that is not there */
			return err_set(err, -EINVAL, "neither a file nor a block device");
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
	if (o->is && !same_file(&st, o->is))
		return err_set(err, -ESTALE, "somebody put another file in its place");
	rc = file_size(i->fd, &i->size);
	if (rc)
		return err_set(err, rc, "no size: %s", strerror(-rc));
	rc = o->no_lock ? 0 : lock_image(i, err);
	if (!rc && busy)
		rc = claim_device(i, err);
	/* Locked, but is it still the file of that name?  'vmm disk snapshot' and others rename over it, and what they
	 * renamed away must not be written to. */
	if (rc || o->no_lock || !was_replaced(i->fd, i->path))
		return rc;
	close(i->fd);
	return open_file(i, o, err);
}

/* By its number, as its name may be another's by now; but a jail has no /proc. */
static int open_again(const struct image *i, int how)
{
	struct stat one, other;
	char self[40];
	int fd;

	snprintf(self, sizeof(self), "/proc/self/fd/%d", i->fd);
	fd = open(self, how);
	if (fd >= 0 || errno != ENOENT)
		return fd;
	fd = open(i->path, how | O_NONBLOCK);
	if (fd < 0)
		return fd;
	if (fstat(i->fd, &one) || fstat(fd, &other) || !same_file(&one, &other)) {
		close(fd);
		errno = ESTALE;
		return -1;
	}
	fcntl(fd, F_SETFL, how & O_DIRECT);
	return fd;
}

/*
 * The same file once more.  Data is never read or written both ways: where the kernel meets pages of one in
 * the way of the other it may lose either, and says so by an EIO to the next sync.
 * Tables, which go through the cache, have clusters of their own; without reading
 * ahead the cache has no page, however large, that goes beyond them.
 */
static int open_direct(struct image *i, struct err *err)
{
	struct statx x;

	i->direct_fd = open_again(i, (i->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_DIRECT);
	if (i->direct_fd < 0)
		return err_set(err, -errno, "direct=on: %s", errno == EINVAL ?
			       "its file system has no direct I/O" : strerror(errno));
	/* Where the kernel does not say (before 6.1), a page always is enough. */
	i->direct_align = 4096;
	if (!statx(i->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &x) && x.stx_mask & STATX_DIOALIGN &&
	    x.stx_dio_offset_align)
		i->direct_align = MAX(x.stx_dio_offset_align, x.stx_dio_mem_align);
	else if (file_is_device(i->fd))
		ioctl(i->fd, BLKSSZGET, &i->direct_align);
	posix_fadvise(i->fd, 0, 0, POSIX_FADV_RANDOM);
	i->direct_buf = aligned_alloc(MAX(i->direct_align, 4096u), IMAGE_DIRECT_BUF);
	return i->direct_buf ? 0 : err_set(err, -ENOMEM, "out of memory");
}

const struct image_ops *image_format(const char *name)
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
		i->ops = image_format(o->format);
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

int image_no_backing(const char *name, struct err *err)
{
	return err_set(err, -ENOENT, "its backing file %s: %s; if it is elsewhere, 'vmm disk rebase "
		       "--unsafe --backing FILE' records that", name, strerror(ENOENT));
}

/* Which file it is, below the directory that has the image, and by no link: names there may change at any time. */
static int find_below(const struct image *i, bool in_use, char *own, char *rest, struct stat *file)
{
	char *base = strrchr(own, '/') + 1, last = *base;
	struct stat image, st;
	int at, next = -1, rc;

	*base = 0;
	at = open(own, O_PATH | O_DIRECTORY | O_CLOEXEC);
	*base = last;
	rc = at < 0 ? -errno : 0;
	if (!rc && !in_use && (fstat(i->fd, &image) || fstatat(at, base, &st, AT_SYMLINK_NOFOLLOW) ||
			       !same_file(&image, &st)))
		rc = -ESTALE;
	for (char *part; !rc && (part = strsep(&rest, "/")); at = next) {
		next = openat(at, part, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (next < 0 || fstat(next, file))
			rc = -errno;
		else if (S_ISLNK(file->st_mode))
			rc = -ESTALE;
		close(at);
	}
	if (at >= 0)
		close(at);
	return rc;
}

/* An image is data; it does not get to choose which other files of the host the
 * guest reads.  in_use: whoever has it may replace it meanwhile. */
static int check_place(const struct image *i, bool in_use, const char *name, struct stat *file, struct err *err)
{
	char own[PATH_MAX], other[PATH_MAX], *slash;
	int rc;

	if (!realpath(i->path, own) || !realpath(name, other))
		return errno == ENOENT ? image_no_backing(name, err) :
			err_set(err, -errno, "its backing file %s: %s", name, strerror(errno));
	slash = strrchr(own, '/');
	if (!strncmp(own, other, slash + 1 - own)) {
		rc = find_below(i, in_use, own, other + (slash + 1 - own), file);
		return rc ? err_set(err, rc, "its backing file %s: %s", name, rc == -ESTALE ?
				    "somebody puts other files in their place" : strerror(-rc)) : 0;
	}
	return err_set(err, -EPERM, "its backing file %s is outside its directory; if that is meant, "
		       "say so with '--backing-anywhere', for a VM ',backing=anywhere'", name);
}

static bool in_chain(const struct image *top, const char *name)
{
	struct stat a, b;

	for (; top; top = top->backing)
		if (!fstat(top->fd, &a) && !stat(name, &b) && same_file(&a, &b))
			return true;
	return false;
}

static int open_backing(struct image *top, struct image *i, const struct image_options *o,
			unsigned depth, struct err *err)
{
	struct image_options below = { .format = i->backing_format, .read_only = true,
				       .no_lock = o->no_lock, .direct = o->direct };
	struct stat file;
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
	/* Another program may be putting a new one in its place, which is the one then. */
	for (int n = 0; n < TRIES && (!n || rc == -ESTALE); n++) {
		rc = 0;
		if (!o->backing_anywhere) {
			rc = check_place(i, o->no_lock && !o->is, name, &file, err);
			below.is = &file;
		}
		/* Before it is found to be in use, by us. */
		if (!rc && in_chain(top, name))
			rc = err_set(err, -EINVAL, "its backing files go round in a circle");
		if (rc)
			continue;
		rc = open_one(&i->backing, name, &below, err);
		if (rc == -ENOENT)
			image_no_backing(name, err);
		else if (rc)
			err_prefix(err, "backing file %s: ", name);
	}
	free(name);
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
