/* net_own.h: a network card's parts, for its own files alone. */
#pragma once
#include <endian.h>
#include <linux/virtio_net.h>
#include <pthread.h>
#include "devices/net/net.h"
#include "devices/virtio/virtio.h"
#include "vmm/core/limit.h"

enum { MACS_MAX = 64, VLANS = 4096 };

/* What the driver may take, and switch off again. */
#define NET_GUEST_OFFLOADS \
	(1ULL << VIRTIO_NET_F_GUEST_CSUM | 1ULL << VIRTIO_NET_F_GUEST_TSO4 | \
	 1ULL << VIRTIO_NET_F_GUEST_TSO6 | 1ULL << VIRTIO_NET_F_GUEST_ECN | \
	 1ULL << VIRTIO_NET_F_GUEST_UFO | 1ULL << NET_F_GUEST_USO4 | 1ULL << NET_F_GUEST_USO6)

/* What of a frame can be hashed. */
enum {
	NET_HASH_TYPES = VIRTIO_NET_RSS_HASH_TYPE_IPv4 | VIRTIO_NET_RSS_HASH_TYPE_TCPv4 |
			 VIRTIO_NET_RSS_HASH_TYPE_UDPv4 | VIRTIO_NET_RSS_HASH_TYPE_IPv6 |
			 VIRTIO_NET_RSS_HASH_TYPE_TCPv6 | VIRTIO_NET_RSS_HASH_TYPE_UDPv6,
};

/* Which frames the driver wants to see (virtio 1.2, 5.1.6.5.1 to 5.1.6.5.3). */
struct filter {
	bool promisc, all_multi, all_uni, no_multi, no_uni, no_bcast;
	bool too_many_uni, too_many_multi;	/* for the table: then all of the kind */
	unsigned nr_macs;
	u8 mac[MACS_MAX][6];
	u8 vlan[VLANS / 8];
};

/* A chain of the most pieces fits. */
enum { AHEAD_BUFFERS = 64, AHEAD_PIECES = CHAIN_MAX };
/* What frames are taken to be as long as at first: short ones, with a VLAN tag. */
enum { NET_SHORT_FRAME = 1500 + 18 + NET_HDR_LEN };

/*
 * The next receive buffers, taken off the queue before it is known how long the frame
 * will be that goes there: the host's kernel writes it where it belongs, and a buffer
 * is looked at once.
 */
struct ahead {
	unsigned nr, nr_iov;
	size_t len;
	struct { u16 head, nr_iov; u32 len; } buffer[AHEAD_BUFFERS];
	struct iovec iov[AHEAD_PIECES + 1];	/* of all in order; the last for what is too long */
};

/* Without the virtio header; of a frame that segmentation is left for, once. */
struct net_counters {
	u64 rx_frames, rx_bytes, rx_dropped, rx_errors, rx_waits, rx_kicks, rx_throttled, rx_released,
	    rx_ready;
	u64 tx_frames, tx_bytes, tx_dropped, tx_errors, tx_waits, tx_kicks, tx_throttled, tx_released,
	    tx_empty, tx_malformed, tx_waiting;
	struct ticks send;
	u64 by_vhost;
};

/* A receive and a transmit queue, and their far end.  All on the loop of the two. */
struct pair {
	struct virtio_net *card;
	struct net *net;
	struct vhost *vhost;		/* NULL: this program moves all frames */
	bool by_vhost;			/* from start to drain: the host's kernel does */
	struct log_limit noise;		/* that it does not */
	struct virtq *rx, *tx;
	struct kick *kick;		/* of rx; tx has the same thread */
	struct net_counters *counters;
	struct metric_set metrics;
	bool running;
	bool want_rx, want_tx;
	bool paid;			/* for the next one to be sent, within the limit */
	unsigned burst, full_bursts;	/* frames to take in without asking what else there is */
	/* One way of the traffic: whose turn it is, and when the limit allows more. */
	struct limited {
		struct limit_user turn;
		struct timer timer;
	} rx_limited, tx_limited;
	struct timer signal_timer;	/* answers were published, but nobody was told */
	unsigned unsignalled, unsignalled_bytes;
	u16 signal_upto;		/* what signal_timer is about */
	size_t expected;		/* as long as frames were lately */
	/* A frame that came: the first part is in the buffers ahead, the rest in spill. */
	size_t pending, spill_at, spill_len;
	struct ahead ahead;
	u8 spill[NET_FRAME_MAX];
};

struct virtio_net {
	struct virtio v;
	struct virtio_net_config config;
	u8 mac[6];			/* that it has after a reset */
	bool link, gone;		/* atomic; gone: the far end, for good */
	bool plugged;			/* the cable, by whoever may pull it: link, if not gone */
	unsigned nr_pairs, active;	/* active: frames come to the first so many... */
	bool by_hash;			/* ...by rss */
	struct net_rss rss;
	u64 offload_off;		/* GUEST_* that the driver has no use for now */
	struct limit *rx_limit, *tx_limit;	/* NULL: none */
	struct pcap *dump;		/* likewise */
	bool filters_on_host;		/* the far ends do, not net_wanted */
	pthread_rwlock_t lock;		/* of filter, and of config.mac */
	struct filter filter;
	struct pair *pair[VIRTIO_NET_MAX_PAIRS];
};

/* Status bits of the configuration.  Any thread. */
static inline void net_set_status(struct virtio_net *n, u16 bit, bool on)
{
	u16 *status = (u16 *)((u8 *)&n->config + offsetof(struct virtio_net_config, status));

	if (on)
		__atomic_or_fetch(status, htole16(bit), __ATOMIC_SEQ_CST);
	else
		__atomic_and_fetch(status, htole16((u16)~bit), __ATOMIC_SEQ_CST);
}

/* --- net_frames.c, on the pair's loop --------------------------------------------------- */

void net_receive(struct pair *);
void net_transmit(struct pair *);
/* Where no kick is the reason. */
void net_transmit_more(struct pair *);
void net_frames_init(struct pair *);
/* What was taken off the queues goes back, and all answers to the driver. */
void net_frames_stop(struct pair *);

/* --- net_control.c ------------------------------------------------------------------------ */

/* On the control queue's loop. */
void net_control(struct virtio_net *, struct virtq *);
/* As the driver finds it after a reset.  No loop runs. */
void net_control_reset(struct virtio_net *);
void net_control_state(struct virtio *, struct state *);	/* as virtio_ops.state */
/* With filters_on_host, as far as the far ends can; a host's kernel knows no VLANs here. */
void net_filter_on_host(struct virtio_net *);
/* Under lock.  head: the frame's first bytes, len of them. */
bool net_wanted(const struct virtio_net *, const u8 *head, size_t len);

/* --- net.c, any thread ---------------------------------------------------------------------- */

int  net_steer(struct virtio_net *) must_check;		/* frames to the active pairs */
int  net_set_offload(struct virtio_net *) must_check;	/* of those taken, without offload_off */
void net_apply_link(struct virtio_net *);		/* the far ends see it */
