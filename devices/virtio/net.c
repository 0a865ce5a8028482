/* net.c: virtio network card (virtio 1.2, 5.1): its queues and its life. */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include "devices/virtio/net_own.h"

enum { RX, TX, NR_QUEUES };

static struct virtio_net *to_net(struct virtio *v)
{
	return container_of(v, struct virtio_net, v);
}

static void readable(struct net *net)
{
	net_receive(net->card);
}

static void writable(struct net *net)
{
	struct pair *p = net->card;

	net_transmit(p);
	/* The rest when others had their turn. */
	if (!p->tx->budget)
		virtio_notify(&p->card->v, p->tx->index);
}

static void net_kick(struct virtio *v, struct virtq *q)
{
	struct pair *p = &to_net(v)->pair;

	counter_add(q->index == RX ? &p->counters->rx_kicks : &p->counters->tx_kicks, 1);
	if (q->index == RX)
		net_receive(p);
	else
		net_transmit(p);
}

static int net_start(struct virtio *v)
{
	struct pair *p = &to_net(v)->pair;
	int rc;

	net_frames_init(p);
	p->net->card = p;
	p->net->readable = readable;
	p->net->writable = writable;
	rc = p->net->ops->set_offload(p->net, v->accepted);
	if (!rc)
		rc = p->net->ops->start(p->net, p->kick->io.loop);
	p->running = !rc;
	return rc;
}

/* The two queues are drained one after the other, and nothing comes between. */
static void net_drain(struct virtio *v, struct virtq *q)
{
	struct pair *p = &to_net(v)->pair;

	if (q->index != TX || !p->running)
		return;
	p->running = false;
	net_frames_stop(p);
	p->net->ops->stop(p->net);
}

/* --- what is counted ------------------------------------------------------------------------ */

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

/* Those of all pairs are told as a sum. */
static int count(struct pair *p)
{
	p->counters = counters_new(sizeof(*p->counters));
	if (!p->counters)
		return -ENOMEM;
	p->metrics = (struct metric_set){ .table = &net_table, .owner = p->card->v.dev.name,
					  .counters = p->counters };
	metrics_add(p->card->v.platform->metrics, &p->metrics);
	return 0;
}

static void stop_counting(struct pair *p)
{
	metrics_remove(&p->metrics);
	free(p->counters);
}

static void net_destroy(struct virtio *v)
{
	stop_counting(&to_net(v)->pair);
	virtio_fini(v);
	free(to_net(v));
}

static const struct virtio_ops net_ops = {
	.kind = "virtio-net", .id = VIRTIO_ID_NET, .queue_size = VIRTQ_MAX,
	.config_len = sizeof(struct virtio_net_config),
	.start = net_start,
	.kick = net_kick,
	.drain = net_drain,
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
	n->pair = (struct pair){ .card = n, .net = net, .rx = &n->v.vq[RX], .tx = &n->v.vq[TX],
				 .kick = n->v.kick };
	rc = count(&n->pair);
	if (rc) {
		net_destroy(&n->v);
		return err_set(err, rc, "%s: out of memory", name);
	}
	n->v.config = &n->config;
	memcpy(n->config.mac, mac, sizeof(n->config.mac));
	n->config.status = htole16(VIRTIO_NET_S_LINK_UP);
	n->config.mtu = htole16(net->mtu);
	*out = &n->v;
	return 0;
}
