/* vsock_host.h: the host's end of a vsock device: unix sockets, named as Firecracker names them (its docs/vsock.md). */
#pragma once
#include "vmm/core/base.h"
#include "vmm/core/err.h"

struct vsock_host;

/* Binds the socket at path, on which programs of the host ask for ports of the guest's. */
int  vsock_host_open(struct vsock_host **, const char *path, struct err *) must_check;
void vsock_host_close(struct vsock_host *);		/* removes its socket; NULL is allowed */

/* Any thread. */
int  vsock_host_listener(const struct vsock_host *);
/* Who listens at PATH_PORT: a descriptor that is non-blocking and the caller's, or -errno. */
int  vsock_host_connect(const struct vsock_host *, u32 port);
