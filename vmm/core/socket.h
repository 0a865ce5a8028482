/* socket.h: stream sockets: unix ones by their path, TCP ones by address. */
#pragma once
#include <sys/types.h>
#include "vmm/core/base.h"
#include "vmm/core/err.h"

/* Both give a non-blocking descriptor, closed on exec.  The path is in every message. */

/* One that nobody listens on any more is replaced: -EADDRINUSE if somebody does, or if
 * there is a file of that name that is no socket; another error if that cannot be known. */
int socket_listen(const char *path, int *fd, struct err *) must_check;
/* -ENOENT, -ECONNREFUSED: nobody is there. */
int socket_connect(const char *path, int *fd, struct err *) must_check;
/* Which file it is that somebody listens on... */
struct socket_file {
	char path[108];			/* "": none */
	bool known;			/* if the host did not say which, whatever has the name is taken for it */
	dev_t dev;
	ino_t ino;
};
void socket_file_note(struct socket_file *, const char *path);
/* ...to be removed before the socket is closed, unless another has its name by then.  Idempotent. */
void socket_file_remove(struct socket_file *);
/* host: an address in digits, not a name. */
int socket_listen_tcp(const char *host, u16 port, int *fd, struct err *) must_check;
