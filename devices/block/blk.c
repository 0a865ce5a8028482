/* blk.c: raw images and block devices. */
#include "devices/block/blk.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

struct blk {
	int fd;
	struct blk_info info;
	bool no_zero_range, no_punch_hole;	/* the host's file system said so */
};

/* What BLK_ZERO writes where the host cannot zero by itself. */
static const u8 zero_page[64 * 1024];

/* --- open and close ---------------------------------------------------------- */

static int lock_image(int fd, bool read_only, struct err *err)
{
	struct flock lock = {
		.l_type = read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET,
	};

	if (!fcntl(fd, F_OFD_SETLK, &lock))
		return 0;
	if (errno != EAGAIN && errno != EACCES)
		return 0;	/* this file system has no locks: nothing to respect */
	return err_set(err, -EBUSY, "in use by another program%s",
		       read_only ? " that writes to it" : "; stop it, or add ',readonly' to both");
}

/* Without a word from the user, bytes that say "I am qcow2" are not taken for
 * raw: the guest would see, and overwrite, the format's own tables. */
static int check_format(int fd, const char *format, struct err *err)
{
	char head[4];

	if (format && strcmp(format, "raw"))
		return err_set(err, -EINVAL, "format '%s' is not known; known: raw", format);
	if (!format && pread(fd, head, sizeof(head), 0) == sizeof(head) &&
	    !memcmp(head, "QFI\xfb", 4))
		return err_set(err, -EINVAL, "this is a qcow2 image, which vmm cannot open; convert "
			       "it with 'qemu-img convert -O raw', or say ',format=raw' to give the "
			       "guest its bytes as they are");
	return 0;
}

static int get_info(struct blk *b, struct err *err)
{
	struct stat st;

	if (fstat(b->fd, &st))
		return err_set(err, -errno, "%s", strerror(errno));
	if (S_ISBLK(st.st_mode)) {
		unsigned physical = 0, read_only = 0;

		if (ioctl(b->fd, BLKGETSIZE64, &b->info.size))
			return err_set(err, -errno, "no size: %s", strerror(errno));
		ioctl(b->fd, BLKPBSZGET, &physical);
		ioctl(b->fd, BLKROGET, &read_only);
		b->info.physical_block = physical ? physical : BLK_SECTOR;
		if (read_only && !b->info.read_only)
			return err_set(err, -EROFS, "the device is read-only; add ',readonly'");
	} else if (S_ISREG(st.st_mode)) {
		b->info.size = st.st_size;
		b->info.physical_block = st.st_blksize >= BLK_SECTOR && st.st_blksize <= 65536 &&
			!(st.st_blksize & (st.st_blksize - 1)) ? st.st_blksize : 4096;
	} else {
		return err_set(err, -EINVAL, "neither a file nor a block device");
	}
	if (b->info.size < BLK_SECTOR)
		return err_set(err, -EINVAL, "%llu bytes are too small for a disk",
			       (unsigned long long)b->info.size);
	b->info.size = ALIGN_DOWN(b->info.size, BLK_SECTOR);
	b->info.can_discard = !b->info.read_only;
	return 0;
}

int blk_open(struct blk **out, const char *path, const struct blk_options *o, struct err *err)
{
	struct blk *b = calloc(1, sizeof(*b));
	int rc;

	if (!b)
		return err_set(err, -ENOMEM, "out of memory");
	b->info.read_only = o->read_only;
	/* Non-blocking, or a FIFO given by mistake would hang here for ever. */
	b->fd = open(path, (o->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK);
	if (b->fd < 0) {
		const char *cure = "";

		rc = -errno;
		if (rc == -ENOENT)
			cure = "; make one with 'vmm disk create'";
		else if (rc == -EACCES || rc == -EROFS)
			cure = o->read_only ? "" : "; add ',readonly' if reading is enough";
		rc = err_set(err, rc, "%s%s", strerror(-rc), cure);
	} else {
		/* io_uring would take it for "rather fail than wait". */
		fcntl(b->fd, F_SETFL, 0);
		rc = get_info(b, err);
	}
	if (!rc)
		rc = check_format(b->fd, o->format, err);
	if (!rc)
		rc = lock_image(b->fd, o->read_only, err);
	if (rc) {
		blk_close(b);
		err_prefix(err, "disk %s: ", path);
		return rc;
	}
	*out = b;
	return 0;
}

void blk_close(struct blk *b)
{
	if (!b)
		return;
	if (b->fd >= 0)
		close(b->fd);
	free(b);
}

struct blk_info blk_info(const struct blk *b)
{
	return b->info;
}

/* --- requests -------------------------------------------------------------------- */

static void io_done(struct aio_req *io, int res);

/* Drop what has moved off the front of the iovecs. */
static void advance(struct blk_req *r, size_t n)
{
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

static void next_step(struct blk_req *r)
{
	struct blk *b = r->blk;

	r->io.fd = b->fd;
	r->io.offset = r->offset;
	r->io.len = r->len;
	r->io.done = io_done;
	switch (r->op) {
	case BLK_READ:
	case BLK_WRITE:
		r->io.op = r->op == BLK_READ ? AIO_READ : AIO_WRITE;
		r->io.iov = r->iov;
		r->io.nr_iov = r->nr_iov;
		break;
	case BLK_FLUSH:
		r->io.op = AIO_DATASYNC;
		break;
	case BLK_DISCARD:
		r->io.op = AIO_FALLOCATE;
		r->io.mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
		break;
	case BLK_ZERO:
		r->io.op = AIO_FALLOCATE;
		if (!b->no_punch_hole && (r->unmap || b->no_zero_range)) {
			r->io.mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
		} else if (!b->no_zero_range) {
			r->io.mode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
		} else {
			r->io.op = AIO_WRITE;
			r->zeroes = (struct iovec){ (void *)(uintptr_t)zero_page,
						    MIN(r->len, sizeof(zero_page)) };
			r->io.iov = &r->zeroes;
			r->io.nr_iov = 1;
		}
		break;
	}
	aio_submit(r->aio, &r->io);
}

/* A host file system that cannot do what was asked: true, try another way. */
static bool fall_back(struct blk_req *r, int res)
{
	struct blk *b = r->blk;

	if (r->op != BLK_ZERO || r->io.op != AIO_FALLOCATE || res != -EOPNOTSUPP)
		return false;
	if (r->io.mode & FALLOC_FL_PUNCH_HOLE)
		b->no_punch_hole = true;
	else
		b->no_zero_range = true;
	return true;
}

static void io_done(struct aio_req *io, int res)
{
	struct blk_req *r = container_of(io, struct blk_req, io);

	if (fall_back(r, res)) {
		next_step(r);
		return;
	}
	if (r->op == BLK_DISCARD && res == -EOPNOTSUPP)
		res = 0;	/* a discard is advice */
	if (res == -EINTR || res == -EAGAIN) {
		next_step(r);
		return;
	}
	if (res >= 0 && (io->op == AIO_READ || io->op == AIO_WRITE)) {
		r->offset += res;
		r->len -= res;
		if (r->op != BLK_ZERO)
			advance(r, res);
		if (r->len && res) {
			next_step(r);
			return;
		}
		/* The file became shorter than the disk it was. */
		res = r->len ? -EIO : 0;
	}
	r->done(r, MIN(res, 0));
}

int blk_submit(struct blk *b, struct aio *aio, struct blk_req *r)
{
	u64 end;

	if (r->op != BLK_FLUSH && (add_overflows(r->offset, r->len, &end) || end > b->info.size))
		return -EINVAL;
	if (b->info.read_only && r->op != BLK_READ && r->op != BLK_FLUSH)
		return -EROFS;
	r->blk = b;
	r->aio = aio;
	next_step(r);
	return 0;
}

/* --- create ------------------------------------------------------------------------ */

int blk_create(const char *path, u64 size, bool thick, struct err *err)
{
	int rc = 0, fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

	if (fd < 0)
		return err_set(err, -errno, "disk %s: %s", path,
			       errno == EEXIST ? "there is a file already; remove it first" :
						 strerror(errno));
	if (ftruncate(fd, size))
		rc = -errno;
	if (!rc && thick)
		rc = -posix_fallocate(fd, 0, size);
	if (!rc && fsync(fd))
		rc = -errno;
	if (close(fd) && !rc)
		rc = -errno;
	if (rc) {
		unlink(path);
		return err_set(err, rc, "disk %s: %s", path, strerror(-rc));
	}
	return 0;
}
