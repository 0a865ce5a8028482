/* file.c: the file under an image, by the host's system calls. */
#include "devices/block/file.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

int file_read(int fd, u64 offset, void *buf, size_t len)
{
	char *to = buf;

	while (len) {
		ssize_t n = pread(fd, to, len, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n) {
			memset(to, 0, len);
			return 0;
		}
		to += n;
		offset += n;
		len -= n;
	}
	return 0;
}

int file_write(int fd, u64 offset, const void *buf, size_t len)
{
	const char *from = buf;

	while (len) {
		ssize_t n = pwrite(fd, from, len, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		from += n;
		offset += n;
		len -= n;
	}
	return 0;
}

int file_sync(int fd)
{
	int rc;

	do
		rc = fdatasync(fd) ? -errno : 0;
	while (rc == -EINTR);
	return rc;
}

int file_size(int fd, u64 *size)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	*size = st.st_size;
	if (S_ISBLK(st.st_mode) && ioctl(fd, BLKGETSIZE64, size))
		return -errno;
	return 0;
}

bool file_is_device(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && S_ISBLK(st.st_mode);
}

int file_truncate(int fd, u64 size)
{
	int rc = ftruncate(fd, size) ? -errno : 0;

	return rc == -EINVAL && file_is_device(fd) ? -ENOSPC : rc;
}

int file_allocate(int fd, u64 offset, u64 len)
{
	return -posix_fallocate(fd, offset, len);
}

int file_zero(int fd, u64 offset, u64 len, bool unmap)
{
	int mode = FALLOC_FL_KEEP_SIZE | (unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
	u64 size = 0, end = offset + len;
	int rc = file_size(fd, &size);

	if (rc)
		return rc;
	/* Past the end there is nothing that a hole could be made in. */
	if (end > size && file_truncate(fd, end))
		return -EOPNOTSUPP;
	if (!fallocate(fd, mode, offset, len))
		return 0;
	return errno == EINVAL ? -EOPNOTSUPP : -errno;
}

bool file_is_data(int fd, u64 offset, u64 end, u64 *until)
{
	off_t data = lseek(fd, offset, SEEK_DATA), hole;

	*until = end;
	if (data < 0)	/* ENXIO: a hole to the end; else this file system cannot tell */
		return errno != ENXIO;
	if ((u64)data > offset) {
		*until = MIN((u64)data, end);
		return false;
	}
	hole = lseek(fd, offset, SEEK_HOLE);
	if (hole > data)
		*until = MIN((u64)hole, end);
	return true;
}
