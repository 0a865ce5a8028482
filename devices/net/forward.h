/* forward.h: ports of the host that are published: what connects there reaches the guest. */
#pragma once
#include <netinet/in.h>
#include "vmm/core/base.h"
#include "vmm/core/err.h"

struct net_forward {
	bool udp;
	struct in_addr host, guest;	/* 0: any address of the host, the guest's own */
	u16 host_port, guest_port;	/* host byte order, never 0 */
};

/* "tcp:127.0.0.1:8080-:80": {tcp|udp}:[HOST]:PORT-[GUEST]:PORT. */
int forward_parse(struct net_forward *, const char *text, struct err *) must_check;

/* -EADDRINUSE and the like, where the port could have been had; it is not kept. */
int forward_probe(const struct net_forward *, struct err *) must_check;

/* Fills err for a port that could not be had for the reason code, which it returns. */
int forward_failed(const struct net_forward *, int code, struct err *);
