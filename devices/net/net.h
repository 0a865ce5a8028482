/* net.h: the far end of a network card. */
#pragma once
#include <sys/types.h>
#include <sys/uio.h>
#include "vmm/core/base.h"
#include "vmm/core/err.h"
#include "vmm/core/loop.h"

struct net;

enum {
	NET_HDR_LEN = 12,		/* struct virtio_net_hdr_v1 */
	NET_FRAME_MAX = 65535 + 14 + 4 + NET_HDR_LEN,	/* with TSO, VLAN tag and header */
};

/*
 * Frames travel with struct virtio_net_hdr_v1 in front, always.  start to stop
 * run on the loop given to start.
 */
struct net_ops {
	const char *kind;			/* "tap" */
	/* One frame.  0; -EAGAIN: full, wait for writable; else the frame is lost. */
	int     (*send)(struct net *, const struct iovec *, int nr);
	/* One frame into iov: its length, -EAGAIN: none. */
	ssize_t (*recv)(struct net *, const struct iovec *, int nr);
	int     (*start)(struct net *, struct loop *);
	void    (*stop)(struct net *);
	/* What to call readable and writable for: no buffers, stay quiet. */
	void    (*want)(struct net *, bool rx, bool tx);
	/* The GUEST_* features that the driver took. */
	int     (*set_offload)(struct net *, u64 features);
	void    (*close)(struct net *);
};

struct net {
	const struct net_ops *ops;
	u64 offload;			/* VIRTIO_NET_F_* it can do */
	u16 mtu;
	void (*readable)(struct net *);	/* set by the card before start */
	void (*writable)(struct net *);
	void *card;
};

/*
 * A tap: the one of that name, or a new one, which then goes away with the
 * program.
 */
int  net_open_tap(struct net **, const char *name, struct err *) must_check;
void net_close(struct net *);			/* stopped; NULL is allowed */
