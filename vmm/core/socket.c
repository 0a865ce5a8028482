/* socket.c: stream sockets: unix ones by their path, TCP ones by address. */
#include "vmm/core/socket.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* A client that does not wait, as one in Go, fails at once when the queue is full. */
enum { BACKLOG = SOMAXCONN };
enum { HOLD_TRIES = 500, HOLD_MS = 2 };

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

/*
 * From the look at who is there until somebody listens: another would take that for left over, too.  What is held is
 * the directory, so that nothing is left.  Who holds it for longer is none of us: then it goes on without.
 */
static int hold_directory(const char *path)
{
	const char *slash = strrchr(path, '/');
	char dir[sizeof(((struct sockaddr_un *)0)->sun_path) + 2];
	int fd;

	snprintf(dir, sizeof(dir), "%.*s", slash ? (int)(slash + 1 - path) : 1, slash ? path : ".");
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int n = 0; fd >= 0 && n < HOLD_TRIES && flock(fd, LOCK_EX | LOCK_NB); n++)
		poll(NULL, 0, HOLD_MS);
	return fd;
}

/* Left over by one that was killed: away with it. */
static int make_way(const char *path, struct err *err)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	bool is_ours;
	struct stat st;
	int fd, rc;

	if (lstat(path, &st) || !S_ISSOCK(st.st_mode))
		return 0;
	rc = socket_connect(path, &fd, NULL);
	is_ours = !rc && !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) && peer.pid == getpid();
	if (!rc)
		close(fd);
	if (is_ours)
		return err_set(err, -EADDRINUSE, "%s: another socket of this VM has that name", path);
	/* Its queue is full, or it is one for datagrams: somebody is there. */
	if (!rc || rc == -EAGAIN || rc == -EPROTOTYPE)
		return err_set(err, -EADDRINUSE, "%s: another program listens there", path);
	if (rc != -ECONNREFUSED && rc != -ENOENT)
		return err_set(err, rc, "%s: %s", path, strerror(-rc));
	/* Or it stays, in a directory of others'. */
	return unlink(path) && errno != ENOENT ? err_set(err, -errno, "%s: %s", path, strerror(errno)) : 0;
}

int socket_listen(const char *path, int *out, struct err *err)
{
	struct sockaddr_un a;
	int fd, held, rc = open_socket(path, &a, &fd, err);

	if (rc)
		return rc;
	/* Whoever may write to it is heard, whatever the umask: no other user. */
	(void)!fchmod(fd, S_IRWXU | S_IRWXG);
	held = hold_directory(path);
	rc = make_way(path, err);
	if (!rc && bind(fd, (struct sockaddr *)&a, sizeof(a)))
		rc = err_set(err, -errno, "%s: %s", path, errno == EADDRINUSE ?
			     "there is a file of that name that is no socket" : strerror(errno));
	if (!rc && listen(fd, BACKLOG)) {
		rc = err_set(err, -errno, "%s: %s", path, strerror(errno));
		unlink(path);
	}
	if (held >= 0)
		close(held);
	if (rc) {
		close(fd);
		return rc;
	}
	*out = fd;
	return 0;
}

void socket_file_note(struct socket_file *f, const char *path)
{
	struct stat st;

	*f = (struct socket_file){ 0 };
	if (strlen(path) >= sizeof(f->path))
		return;
	memcpy(f->path, path, strlen(path));
	f->known = !lstat(path, &st);
	if (f->known) {
		f->dev = st.st_dev;
		f->ino = st.st_ino;
	}
}

void socket_file_remove(struct socket_file *f)
{
	struct stat st;

	if (*f->path && (!f->known || lstat(f->path, &st) || (st.st_dev == f->dev && st.st_ino == f->ino)))
		unlink(f->path);
	*f->path = 0;
}

int socket_listen_tcp(const char *host, u16 port, int *out, struct err *err)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	bool is_v4 = inet_pton(AF_INET, host, &v4.sin_addr) == 1;
	const struct sockaddr *a = is_v4 ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6;
	int yes = 1, fd, rc;

	if (!is_v4 && inet_pton(AF_INET6, host, &v6.sin6_addr) != 1)
		return err_set(err, -EINVAL, "'%s' is not an IP address", host);
	fd = socket(a->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set(err, -errno, "%s port %u: %s", host, port, strerror(errno));
	/* A connection that has just ended does not keep the port. */
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) ||
	    bind(fd, a, is_v4 ? sizeof(v4) : sizeof(v6)) || listen(fd, BACKLOG)) {
		rc = err_set(err, -errno, "%s port %u: %s", host, port, strerror(errno));
		close(fd);
		return rc;
	}
	*out = fd;
	return 0;
}
