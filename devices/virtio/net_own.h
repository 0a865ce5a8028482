/* net_own.h: a network card's parts, for its own files alone. */
#pragma once
#include <linux/virtio_net.h>
#include "devices/net/net.h"
#include "devices/virtio/virtio.h"

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
	u64 rx_frames, rx_bytes, rx_dropped, rx_errors, rx_waits, rx_kicks;
	u64 tx_frames, tx_bytes, tx_dropped, tx_waits, tx_kicks;
};

/* A receive and a transmit queue, and their far end.  All on the loop of the two. */
struct pair {
	struct virtio_net *card;
	struct net *net;
	struct virtq *rx, *tx;
	struct kick *kick;		/* of rx; tx has the same thread */
	struct net_counters *counters;
	struct metric_set metrics;
	bool running;
	bool want_rx, want_tx;
	unsigned burst, full_bursts;	/* frames to take in without asking what else there is */
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
	struct pair pair;
};

/* --- net_frames.c, on the pair's loop --------------------------------------------------- */

void net_receive(struct pair *);
void net_transmit(struct pair *);
void net_frames_init(struct pair *);
/* What was taken off the queues goes back, and all answers to the driver. */
void net_frames_stop(struct pair *);
