/* net.c: virtio network card (virtio 1.2, 5.1). */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include "devices/net/net.h"
#include "devices/virtio/virtio.h"

enum { RX, TX, NR_QUEUES };
enum { RX_BUDGET = 64 };	/* frames, before others on the loop have their turn */

/* Without the virtio header; of a frame that segmentation is left for, once. */
struct net_counters {
	u64 rx_frames, rx_bytes, rx_dropped, rx_errors, rx_waits, rx_kicks;
	u64 tx_frames, tx_bytes, tx_dropped, tx_waits, tx_kicks;
};

struct virtio_net {
	struct virtio v;
	struct net_counters *counters;		/* of the loop */
	struct metric_set metrics;
	struct net *net;
	struct virtio_net_config config;
	bool want_rx, want_tx;
	/* A frame taken off the wire, in whole or in part not delivered yet. */
	size_t pending;
	u8 frame[NET_FRAME_MAX];
};

static void update_wants(struct virtio_net *n)
{
	n->net->ops->want(n->net, n->want_rx, n->want_tx);
}

/* --- to the guest ------------------------------------------------------------------ */

enum { MAX_BUFFERS = 128 };

/*
 * Put the pending frame into as many buffers as it takes (one, unless they may
 * be merged: 5.1.6.4).  False: too few of them now; they were put back.
 */
static bool deliver(struct virtio_net *n, struct virtq *q)
{
	bool merge = virtio_has(&n->v, VIRTIO_NET_F_MRG_RXBUF);
	struct { u16 head; u32 len; } used[MAX_BUFFERS];
	struct virtio_net_hdr_v1 *hdr = (void *)n->frame;
	struct sg first = { 0 };
	struct iovec first_iov[NET_HDR_LEN];	/* as many as can hold the header */
	size_t done = 0;
	u16 nr = 0;

	while (done < n->pending && nr < MAX_BUFFERS) {
		struct chain c;
		int rc = virtq_pop(q, &c);

		if (rc < 0)
			virtio_broken(&n->v, "receive queue: malformed chain");
		if (rc <= 0)
			break;
		if (!nr) {	/* num_buffers is known, and written, last */
			first.iov = first_iov;
			first.nr = MIN(c.in.nr, NET_HDR_LEN);
			for (int i = 0; i < first.nr; i++)
				first_iov[i] = c.in.iov[i];
		}
		used[nr].head = c.head;
		used[nr].len = sg_write(&c.in, n->frame + done, n->pending - done);
		done += used[nr++].len;
		if (!merge)
			break;
	}
	if (done < n->pending) {
		bool retry = nr < MAX_BUFFERS && merge && !q->broken;

		if (!nr)
			return false;
		if (retry) {
			while (nr--)
				virtq_unpop(q);
			return false;
		}
		/* The driver's buffer is smaller than the frame it may get: lost. */
		device_guest_error(&n->v.dev, "no room for a frame of %zu bytes", n->pending);
		counter_add(&n->counters->rx_dropped, 1);
		while (nr--)
			virtq_unpop(q);
		n->pending = 0;
		return true;
	}
	hdr->num_buffers = htole16(nr);
	sg_write(&first, n->frame, offsetof(struct virtio_net_hdr_v1, num_buffers) + 2);
	for (u16 i = 0; i < nr; i++)
		virtq_push(q, used[i].head, used[i].len);
	counter_add(&n->counters->rx_frames, 1);
	counter_add(&n->counters->rx_bytes, n->pending - NET_HDR_LEN);
	n->pending = 0;
	return true;
}

static void receive(struct virtio_net *n)
{
	struct virtq *q = &n->v.vq[RX];
	struct iovec iov = { n->frame, sizeof(n->frame) };

	q->budget = VIRTQ_MAX;
	n->want_rx = true;
	for (int i = 0; i < RX_BUDGET && q->budget; i++) {
		ssize_t len;

		if (!n->pending) {
			len = n->net->ops->recv(n->net, &iov, 1);
			if (len < NET_HDR_LEN) {
				counter_add(&n->counters->rx_errors, len != -EAGAIN);
				break;
			}
			n->pending = len;
		}
		if (!deliver(n, q)) {
			n->want_rx = q->budget == 0;	/* else the driver's kick says when */
			counter_add(&n->counters->rx_waits, !n->want_rx);
			break;
		}
	}
	virtq_flush(q);
	/* A frame of which a part waits, or the rest of the buffers: after others. */
	if (!q->budget)
		eventfd_write(n->v.kick[RX].fd, 1);
	update_wants(n);
}

static void readable(struct net *net)
{
	receive(net->card);
}

/* --- to the wire ---------------------------------------------------------------------- */

/* False: not now. */
static bool send_one(struct virtio_net *n, const struct chain *c)
{
	size_t len = c->out.len;
	int rc = len <= NET_FRAME_MAX ? n->net->ops->send(n->net, c->out.iov, c->out.nr) : -EMSGSIZE;

	if (rc == -EAGAIN) {
		counter_add(&n->counters->tx_waits, 1);
		return false;
	}
	if (rc) {
		counter_add(&n->counters->tx_dropped, 1);
		return true;
	}
	counter_add(&n->counters->tx_frames, 1);
	counter_add(&n->counters->tx_bytes, len - NET_HDR_LEN);
	return true;
}

static void transmit(struct virtio_net *n)
{
	struct virtq *q = &n->v.vq[TX];
	struct chain c;
	int rc;

	n->want_tx = false;
	while ((rc = virtq_pop(q, &c)) > 0) {
		if (c.out.len < NET_HDR_LEN || c.in.len) {
			rc = -EPROTO;
			break;
		}
		if (!send_one(n, &c)) {
			virtq_unpop(q);
			n->want_tx = true;
			break;
		}
		virtq_push(q, c.head, 0);
	}
	n->want_tx |= !q->budget;	/* the rest when others had their turn */
	virtq_flush(q);
	if (rc < 0)
		virtio_broken(&n->v, "transmit queue: malformed chain");
	update_wants(n);
}

static void writable(struct net *net)
{
	struct virtio_net *n = net->card;

	n->v.vq[TX].budget = VIRTQ_MAX;
	transmit(n);
}

/* --- the device ------------------------------------------------------------------------- */

static void net_kick(struct virtio *v, struct virtq *q)
{
	struct virtio_net *n = container_of(v, struct virtio_net, v);

	counter_add(q->index == RX ? &n->counters->rx_kicks : &n->counters->tx_kicks, 1);
	if (q->index == RX)
		receive(n);
	else
		transmit(n);
}

static int net_start(struct virtio *v)
{
	struct virtio_net *n = container_of(v, struct virtio_net, v);
	int rc;

	n->net->card = n;
	n->net->readable = readable;
	n->net->writable = writable;
	n->pending = 0;
	n->want_rx = n->want_tx = false;
	rc = n->net->ops->set_offload(n->net, v->accepted);
	return rc ? rc : n->net->ops->start(n->net, v->platform->io_loop);
}

static void net_stop(struct virtio *v)
{
	struct virtio_net *n = container_of(v, struct virtio_net, v);

	n->net->ops->stop(n->net);
}

static void net_destroy(struct virtio *v)
{
	struct virtio_net *n = container_of(v, struct virtio_net, v);

	metrics_remove(&n->metrics);
	free(n->counters);
	virtio_fini(v);
	free(n);
}

#define ROW(name, label, field, help) \
	{ name, label, help, .offset = offsetof(struct net_counters, field) }

static const struct metric net_metric[] = {
	ROW("net_frames_total", "direction=\"rx\"", rx_frames, "Frames; rx: to the guest"),
	ROW("net_frames_total", "direction=\"tx\"", tx_frames, NULL),
	ROW("net_bytes_total", "direction=\"rx\"", rx_bytes, "Of those frames"),
	ROW("net_bytes_total", "direction=\"tx\"", tx_bytes, NULL),
	ROW("net_dropped_total", "direction=\"rx\"", rx_dropped, "Frames that were lost"),
	ROW("net_dropped_total", "direction=\"tx\"", tx_dropped, NULL),
	ROW("net_errors_total", "direction=\"rx\"", rx_errors, "Reads that the host could not do"),
	ROW("net_waits_total", "direction=\"rx\"", rx_waits,
	    "How often a frame waited: rx: for the driver's buffers, tx: for the host"),
	ROW("net_waits_total", "direction=\"tx\"", tx_waits, NULL),
	ROW("net_kicks_total", "direction=\"rx\"", rx_kicks,
	    "How often the driver's notification was seen"),
	ROW("net_kicks_total", "direction=\"tx\"", tx_kicks, NULL),
};
static const struct metric_table net_table = { "device", net_metric, ARRAY_SIZE(net_metric) };

static const struct virtio_ops net_ops = {
	.kind = "virtio-net", .id = VIRTIO_ID_NET, .queue_size = VIRTQ_MAX,
	.config_len = sizeof(struct virtio_net_config),
	.start = net_start,
	.stop = net_stop,
	.kick = net_kick,
	.destroy = net_destroy,
};

int virtio_net_new(struct platform *p, const char *name, struct net *net, const u8 mac[6],
		   struct virtio **out, struct err *err)
{
	struct virtio_net *n = calloc(1, sizeof(*n));
	u64 features = net->offload | 1ULL << VIRTIO_NET_F_MAC | 1ULL << VIRTIO_NET_F_STATUS |
		       1ULL << VIRTIO_NET_F_MRG_RXBUF | (net->mtu ? 1ULL << VIRTIO_NET_F_MTU : 0);
	int rc = n ? virtio_init(&n->v, &net_ops, NR_QUEUES, p, name, features, err) :
		     err_set(err, -ENOMEM, "%s: out of memory", name);

	if (rc) {
		free(n);
		return rc;
	}
	n->counters = counters_new(sizeof(*n->counters));
	if (!n->counters) {
		net_destroy(&n->v);
		return err_set(err, -ENOMEM, "%s: out of memory", name);
	}
	n->metrics = (struct metric_set){ .table = &net_table, .owner = n->v.dev.name,
					  .counters = n->counters };
	metrics_add(p->metrics, &n->metrics);
	n->net = net;
	n->v.config = &n->config;
	memcpy(n->config.mac, mac, sizeof(n->config.mac));
	n->config.status = htole16(VIRTIO_NET_S_LINK_UP);
	n->config.mtu = htole16(net->mtu);
	*out = &n->v;
	return 0;
}
