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

enum { FLAGS = O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW };

/* What a killed vmm left, or nothing: no other file is overwritten, or removed later. */
static int check_contents(int fd)
{
	struct stat st;
	char text[16];
	ssize_t n;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EEXIST;
	n = pread(fd, text, sizeof(text), 0);
	if (n < 0)
		return -errno;
	for (ssize_t i = 0; i < n; i++)
		if (!isdigit((unsigned char)text[i]) && text[i] != '\n')
			return -EEXIST;
	return n < (ssize_t)sizeof(text) ? 0 : -EEXIST;
}

static int take(int fd)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET }, other = lock;
	int rc;

	if (fcntl(fd, F_OFD_SETLK, &lock)) {
		if (errno != EAGAIN && errno != EACCES)
			return -errno;
		return !fcntl(fd, F_OFD_GETLK, &other) && other.l_type == F_RDLCK ? -EDEADLK : -EBUSY;
	}
	if (!ftruncate(fd, 0) && dprintf(fd, "%d\n", getpid()) > 0)
		return 0;
	rc = -errno;
	(void)!ftruncate(fd, 0);	/* a part of it is another's */
	return rc;
}

/* Its owner ended after we opened it, and has removed it. */
static bool is_gone(const char *path, int fd)
{
	struct stat st;

	return (!fstat(fd, &st) && !st.st_nlink) || was_replaced(fd, path);
}

int pidfile_open(const char *path, int *out, struct err *err)
{
	int rc, fd = open(path, FLAGS | O_EXCL, 0644);
	bool made = fd >= 0;

	if (!made && errno == EEXIST)
		fd = open(path, FLAGS, 0644);
	if (fd < 0)
		return err_set(err, -errno, "pidfile %s: %s", path, errno == ELOOP ? "a link; name the file itself" :
			       strerror(errno));
	rc = check_contents(fd);
	if (!rc)
		rc = take(fd);
	/* Who may read it has a lock that no VM has: it is left to him. */
	if (rc == -EDEADLK && !was_replaced(fd, path) && !unlink(path)) {
		close(fd);
		return pidfile_open(path, out, err);
	}
	if (!rc && is_gone(path, fd)) {
		close(fd);
		return pidfile_open(path, out, err);
	}
	if (rc == -EDEADLK)
		rc = -EBUSY;
	if (rc) {
		if (made && rc != -EBUSY)
			unlink(path);
		close(fd);
		return err_set(err, rc, "pidfile %s: %s", path,
			       rc == -EBUSY ? "in use by another VM" :
			       rc == -EEXIST ? "there is something else of that name" :
					       strerror(-rc));
	}
	*out = fd;
	return 0;
}

void pidfile_close(const char *path, int fd)
{
	if (fd < 0)
		return;
	if (!was_replaced(fd, path))
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
		return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
	/* A lock of an open file has no pid to tell. */
	if (fcntl(fd, F_OFD_GETLK, &lock) ||
	    (lock.l_type != F_UNLCK && pread(fd, text, sizeof(text) - 1, 0) < 0))
		pid = -errno;
	else if (lock.l_type == F_WRLCK)
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
