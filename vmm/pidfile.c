/* pidfile.c: a file that says who runs, and whose lock says that it still does. */
#include "vmm/pidfile.h"
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What a killed vmm left, or nothing: no other file is overwritten, or removed later. */
static bool is_pidfile(int fd)
{
	struct stat st;
	char text[16];
	ssize_t n;

	if (fstat(fd, &st) || !S_ISREG(st.st_mode))
		return false;
	n = pread(fd, text, sizeof(text), 0);
	for (ssize_t i = 0; i < n; i++)
		if (!isdigit((unsigned char)text[i]) && text[i] != '\n')
			return false;
	return n >= 0 && n < (ssize_t)sizeof(text);
}

int pidfile_open(const char *path, int *out, struct err *err)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int rc, fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0644);

	if (fd < 0)
		return err_set(err, -errno, "pidfile %s: %s", path, strerror(errno));
	if (!is_pidfile(fd))
		rc = err_set(err, -EEXIST, "pidfile %s: there is something else of that name", path);
	else if (fcntl(fd, F_OFD_SETLK, &lock))
		rc = err_set(err, -EBUSY, "pidfile %s: in use by another VM", path);
	else if (ftruncate(fd, 0) || dprintf(fd, "%d\n", getpid()) < 0)
		rc = err_set(err, -errno, "pidfile %s: %s", path, strerror(errno));
	else
		rc = 0;
	if (rc) {
		close(fd);
		return rc;
	}
	*out = fd;
	return 0;
}

void pidfile_close(const char *path, int fd)
{
	if (fd < 0)
		return;
	unlink(path);
	close(fd);
}

pid_t pidfile_owner(const char *path)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	char text[16] = "";
	pid_t pid = 0;

	if (fd < 0)
		return 0;
	/* A lock of an open file has no pid to tell. */
	if (!fcntl(fd, F_OFD_GETLK, &lock) && lock.l_type != F_UNLCK &&
	    pread(fd, text, sizeof(text) - 1, 0) > 0)
		pid = atoi(text);
	close(fd);
	return pid;
}

void pidfile_wait(const char *path)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0)
		return;
	while (fcntl(fd, F_OFD_SETLKW, &lock) && errno == EINTR)
		continue;
	close(fd);
}
