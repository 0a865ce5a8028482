/* vsock_host.c: see vsock_host.h. */
#include "devices/vsock_host.h"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "vmm/core/log.h"
#include "vmm/core/socket.h"

struct vsock_host {
	char *path;
	int fd;
	struct socket_file file;
};

/* "_4294967295" */
enum { LONGEST_PORT = 11 };

int vsock_host_open(struct vsock_host **out, const char *path, struct err *err)
{
	struct vsock_host *h = calloc(1, sizeof(*h));
	int rc;

	if (!h || !(h->path = strdup(path)))
		rc = err_set(err, -ENOMEM, "vsock: out of memory");
	else if (socket_listen(path, &h->fd, err))
		rc = err_prefix(err, "vsock: ");
	else
		rc = 0;
	if (rc) {
		if (h)
			free(h->path);
		free(h);
		return rc;
	}
	socket_file_note(&h->file, path);
	if (strlen(path) + LONGEST_PORT >= sizeof(h->file.path))
		log_warn("vsock: %s: too long for a guest to connect to every port: with _PORT behind it a "
			 "socket's path has at most %zu bytes", path, sizeof(h->file.path) - 1);
	*out = h;
	return 0;
}

void vsock_host_close(struct vsock_host *h)
{
	if (!h)
		return;
	socket_file_remove(&h->file);
	close(h->fd);
	free(h->path);
	free(h);
}

int vsock_host_listener(const struct vsock_host *h)
{
	return h->fd;
}

int vsock_host_connect(const struct vsock_host *h, u32 port)
{
	char path[PATH_MAX];
	int fd, rc;

	snprintf(path, sizeof(path), "%s_%u", h->path, port);
	rc = socket_connect(path, &fd, NULL);
	return rc ? rc : fd;
}
