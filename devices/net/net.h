/* net.h: the far end of a network card. */
#pragma once
#include <netinet/in.h>
#include <sys/types.h>
#include <sys/uio.h>
#include "vmm/core/base.h"
#include "vmm/core/err.h"
#include "vmm/core/loop.h"

struct net;
struct net_forward;

enum {
	NET_HDR_LEN = 12,		/* struct virtio_net_hdr_v1 */
	NET_FRAME_MAX = 65535 + 14 + 4 + NET_HDR_LEN,	/* with TSO, VLAN tag and header */
	NET_MTU_LEAST = 68,		/* of IPv4 */
	NET_MTU_MOST = 65520,		/* where no wire says otherwise */
	NET_FILTER_MAX = 66,		/* a table of 64, the card's own and everybody's */
};

/* Of virtio 1.3, 5.1.3; older headers of Linux do not have them. */
enum { NET_F_GUEST_USO4 = 54, NET_F_GUEST_USO6 = 55, NET_F_HOST_USO = 56 };

/* Frames for these addresses: stations' first, then groups'.  nr 0: all there are. */
struct net_filter {
	u8 mac[NET_FILTER_MAX][6];
	unsigned nr;
	bool all_groups;		/* whatever their address */
};

enum { NET_RSS_KEY_LEN = 40, NET_RSS_TABLE_LEN = 128 };

/* Which pair a frame comes to, by what is hashed of it (virtio 1.2, 5.1.6.5.7). */
struct net_rss {
	u32 hash_types;			/* VIRTIO_NET_RSS_HASH_TYPE_*, the first six */
	u16 mask;			/* of the hash: its place in table; a power of 2, less 1 */
	u16 unclassified;		/* the pair of frames that are not hashed */
	u8 table[NET_RSS_TABLE_LEN];	/* pairs */
	u8 key[NET_RSS_KEY_LEN];	/* zeroes after a shorter one */
};

/*
 * Frames travel with struct virtio_net_hdr_v1 in front, always.  start to stop
 * run on the loop given to start.  A card with several pairs of queues has such a far
 * end for each pair.
 */
struct net_ops {
	const char *kind;			/* "tap" */
	/* One frame.  0; -EAGAIN: full, wait for writable; else the frame is lost. */
	int     (*send)(struct net *, const struct iovec *, int nr);
	/* One frame into iov, which may be guest memory: its length, -EAGAIN: none.  Of one
	 * that is longer the rest is lost. */
	ssize_t (*recv)(struct net *, const struct iovec *, int nr);
	int     (*start)(struct net *, struct loop *);
	void    (*stop)(struct net *);
	/* What to call readable and writable for: no buffers, stay quiet. */
	void    (*want)(struct net *, bool rx, bool tx);
	/* The GUEST_* features that the driver took, in force for all pairs.  -EBADFD: it is gone, and is
	 * lost once it is started.  Any thread. */
	int     (*set_offload)(struct net *, u64 features);
	/* These may be unset.  attach: frames come to this pair, or to others.  set_link: the
	 * cable is in, or was pulled, at the guest's end.  set_rss, where offload has RSS, of the
	 * first pair: by what frames come to which; NULL: as the host thinks best.  Any thread. */
	int     (*attach)(struct net *, bool on);
	void    (*set_link)(struct net *, bool up);
	int     (*set_rss)(struct net *, const struct net_rss *);
	/* Where vhost-net can send frames and receive them.  set_filter: of those only these
	 * are to be received; it is of all pairs. */
	int     (*vhost_fd)(struct net *);
	void    (*set_filter)(struct net *, const struct net_filter *);
	void    (*close)(struct net *);
};

struct net {
	const struct net_ops *ops;
	u64 offload;			/* VIRTIO_NET_F_* it can do */
	u16 mtu;			/* 0: not known */
	u8 host_mac[6];			/* of the host's interface; zeroes: not known */
	pid_t child;			/* a process that it ends when it is closed; 0: none */
	bool calls_again;		/* readable, without another frame, while there are any */
	/* Set by the card before start, called on the loop. */
	void (*readable)(struct net *);
	void (*writable)(struct net *);
	void (*lost)(struct net *);	/* it is gone for good: once after each start, or in it */
	void *card;
};

/*
 * A tap: the one of that name, or a new one, which then goes away with the
 * program; queue[0..nr) are its queues.  It takes packets of mtu bytes at least;
 * 0: what it has.
 */
int  net_open_tap(struct net *queue[], unsigned nr, const char *name, u16 mtu,
		  struct err *) must_check;
/*
 * An open descriptor, which becomes the net's unless this fails: a tap, a connected
 * stream socket (each frame behind its length, 4 bytes, big-endian), or a connected
 * datagram socket (a frame each).
 */
int  net_open_fd(struct net **, int fd, struct err *) must_check;
/* The first of these, when it is known to be one that has IFF_VNET_HDR. */
int  net_open_tap_fd(struct net **, int fd, struct err *) must_check;
/*
 * queue[0] is open, of a tap of that name in this network namespace that was made for
 * several queues: the others, up to nr.  When this fails, there are none of them.
 */
int  net_open_tap_queues(struct net *queue[], unsigned nr, const char *name, struct err *) must_check;

/* NAT in this process, by libslirp; 10.0.2.0/24, if no other network is asked for. */
enum { USER_NETWORK = 0x0a000200, USER_PREFIX_LEN = 24 };
struct net_user_options {
	const struct net_forward *forward;	/* kept by the caller until it is open */
	unsigned nr_forwards;
	bool restricted;		/* nothing but what comes in by a forward */
	struct in_addr network;		/* 0: USER_NETWORK */
	u8 prefix_len;			/* to 27 */
	struct in_addr dns;		/* what DHCP says; 0: a forwarder to the host's own */
	const char *hostname;		/* likewise, NULL: nothing */
};
int  net_open_user(struct net **, const struct net_user_options *, struct err *) must_check;
/* The same by a child process, passt. */
int  net_open_passt(struct net **, const struct net_forward *, unsigned nr, struct err *) must_check;

void net_close(struct net *);			/* stopped; NULL is allowed */
