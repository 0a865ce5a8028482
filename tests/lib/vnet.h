/* vnet.h: a virtio network card for tests, and a wire made of arrays. */
#pragma once
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_net.h>
#include "devices/virtio/net_own.h"
#include "tests/lib/driver.h"

enum { RX, TX, VNET_PAIRS = 4, DATA = 0x100000, VNET_IN_MAX = 70000, VNET_ENDLESS = 1 << 30 };
enum { VNET_FD = 1000 };
#define F(bit)	(1ULL << (bit))
#define MRG	F(VIRTIO_NET_F_MRG_RXBUF)
#define LARGE	(F(VIRTIO_NET_F_GUEST_CSUM) | F(VIRTIO_NET_F_GUEST_TSO4))

struct vnet;

/* The far end of a pair: frames wait in a row, those that come out are kept.  For vhost-net
 * wire[i] is the tap VNET_FD + i. */
struct vnet_wire {
	struct net net;
	struct vnet *f;
	u8 in[VNET_IN_MAX], out[VNET_IN_MAX];
	size_t in_len, out_len;
	int nr_in;			/* how often in is still to come; VNET_ENDLESS: always */
	int nr_recv, nr_sent, nr_starts, nr_stops, send_result;
	bool in_place;			/* the last frame went to guest memory, all of it */
	bool want_rx, want_tx, attached, link;
	u64 offload;
	int offload_result;
	struct net_filter filter;	/* as it was last set */
	int nr_filters;			/* how often */
	struct net_rss rss;		/* likewise */
	bool by_hash;
	int nr_rss, rss_result;
};

struct vnet {
	struct fake fake;
	struct driver d;
	struct device *dev;
	struct virtio *v;
	struct limit rx_limit, tx_limit;
	struct pcap *dump;
	char path[32];			/* of dump */
	bool no_rss;			/* the wires cannot do it; before vnet_plug */
	struct vnet_wire wire[VNET_PAIRS];
};

extern const u8 vnet_mac[6];		/* 02:00:00:01:02:03 */

/* Of cmocka; *state is the struct vnet. */
int vnet_setup(void **state);
int vnet_setup_pairs(void **state);	/* VNET_PAIRS of them */
int vnet_setup_dump(void **state);
int vnet_teardown(void **state);

/* The wires, with nothing on them. */
void vnet_wires(struct vnet *);
/* Its far ends are the wires; a card of so many pairs. */
void vnet_plug(struct vnet *, struct virtio_net_options, unsigned nr_pairs);
/* len bytes with an empty header, so often. */
void vnet_bring(struct vnet_wire *, size_t len, int times);
/* Such a one comes to the first pair. */
void vnet_arrive(struct vnet *, size_t len);
/* A receive buffer of the first pair. */
void vnet_offer(struct vnet *, u64 addr, u32 len);
/* There is what vnet_bring brought, from that byte on, but for the header. */
void vnet_check_bytes(struct vnet *, u64 addr, size_t from, size_t len);
/* As the header there has it. */
u16  vnet_num_buffers(struct vnet *, u64 addr);
