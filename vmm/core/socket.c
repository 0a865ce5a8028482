/* socket.c: unix stream sockets by their path. */
#include "vmm/core/socket.h"
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 64 };

static int open_socket(const char *path, struct sockaddr_un *a, int *fd, struct err *err)
{
	*a = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (!*path || strlen(path) >= sizeof(a->sun_path))
		return err_set(err, -ENAMETOOLONG, "%s: a socket's path has 1 to %zu bytes", path,
			       sizeof(a->sun_path) - 1);
	memcpy(a->sun_path, path, strlen(path));
	*fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return *fd < 0 ? err_set(err, -errno, "%s: %s", path, strerror(errno)) : 0;
}

int socket_connect(const char *path, int *out, struct err *err)
{
	struct sockaddr_un a;
	int fd, rc = open_socket(path, &a, &fd, err);

	if (rc)
		return rc;
	if (connect(fd, (struct sockaddr *)&a, sizeof(a))) {
		rc = err_set(err, -errno, "%s: %s", path, strerror(errno));
		close(fd);
		return rc;
	}
	*out = fd;
	return 0;
}

/* Left over by one that was killed: away with it. */
static int make_way(const char *path, struct err *err)
{
	struct stat st;
	int fd, rc;

	if (lstat(path, &st) || !S_ISSOCK(st.st_mode))
		return 0;
	rc = socket_connect(path, &fd, NULL);
	if (!rc)
		close(fd);
	if (!rc || rc == -EAGAIN)	/* its queue is full: somebody is there */
		return err_set(err, -EADDRINUSE, "%s: another program listens there", path);
	unlink(path);
	return 0;
}

int socket_listen(const char *path, int *out, struct err *err)
{
	struct sockaddr_un a;
	int fd, rc = open_socket(path, &a, &fd, err);

	if (rc)
		return rc;
	rc = make_way(path, err);
	if (!rc && (bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, BACKLOG)))
		rc = err_set(err, -errno, "%s: %s", path, errno == EADDRINUSE ?
			     "there is a file of that name that is no socket" : strerror(errno));
	if (rc) {
		close(fd);
		return rc;
	}
	*out = fd;
	return 0;
}
