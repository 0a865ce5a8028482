/* net.c: virtio network card (virtio 1.2, 5.1): its queues, and who serves them. */
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include "devices/net/vhost.h"
#include "devices/virtio/net_own.h"
#include "vmm/core/log.h"

static struct virtio_net *to_net(struct virtio *v)
{
	return container_of(v, struct virtio_net, v);
}

/* Its place depends on what was negotiated (5.1.2); so does how many pairs there are. */
static unsigned pairs_in_use(const struct virtio_net *n)
{
	return virtio_has(&n->v, VIRTIO_NET_F_MQ) || virtio_has(&n->v, VIRTIO_NET_F_RSS) ?
	       n->nr_pairs : 1;
}

static struct virtq *control_queue(struct virtio_net *n)
{
	return &n->v.vq[2UL * pairs_in_use(n)];
}

static void readable(struct net *net)
{
	struct pair *p = net->card;

	counter_add(&p->counters->rx_ready, 1);
	net_receive(p);
}

static void writable(struct net *net)
{
	net_transmit_more(net->card);
}

static void change_link(struct virtio_net *n, bool up)
{
	if (__atomic_exchange_n(&n->link, up, __ATOMIC_SEQ_CST) == up)
		return;
	net_set_status(n, VIRTIO_NET_S_LINK_UP, up);
	virtio_config_changed(&n->v);
}

static void lost(struct net *net)
{
	struct virtio_net *n = ((struct pair *)net->card)->card;

	if (!__atomic_exchange_n(&n->gone, true, __ATOMIC_SEQ_CST))
		log_warn("%s: its %s is gone; the link is down", n->v.dev.name, net->ops->kind);
	change_link(n, false);
}

int net_steer(struct virtio_net *n)
{
	struct net *first = n->pair[0]->net;
	int rc = 0;

	for (unsigned i = 0; i < n->nr_pairs && n->nr_pairs > 1 && !rc; i++) {
		struct net *net = n->pair[i]->net;

		rc = net->ops->attach ? net->ops->attach(net, i < n->active) : 0;
	}
	if (!rc && n->v.offered >> VIRTIO_NET_F_RSS & 1)
		rc = first->ops->set_rss(first, n->by_hash ? &n->rss : NULL);
	return rc;
}

int net_set_offload(struct virtio_net *n)
{
	struct net *net = n->pair[0]->net;

	return net->ops->set_offload(net, n->v.accepted & ~n->offload_off);
}

/* --- by vhost-net --------------------------------------------------------------------------- */

static void vhost_broken(void *arg)
{
	struct pair *p = arg;

	virtio_broken(&p->card->v, "queue %u or %u: malformed ring or chain, says vhost-net",
		      p->rx->index, p->tx->index);
}

static void vhost_lost(void *arg);

static struct vhost_ring ring_of(const struct pair *p, const struct virtq *q)
{
	return (struct vhost_ring){
		.desc = q->desc_ring, .avail = q->avail_ring, .used = q->used_ring,
		.used_gpa = q->used, .size = q->size, .next_avail = q->next_avail,
		.kick_fd = p->kick[q == p->tx].fd, .irq = q->irq,
	};
}

static bool is_on(const struct limit *l)
{
	return l && load_once(&l->on);
}

/* Without a cable, frames are to be dropped; the rest only this program can do. */
static bool can_vhost(const struct pair *p)
{
	const struct virtio_net *n = p->card;

	return p->vhost && load_once(&n->link) && p->rx->ready && p->tx->ready && !n->dump &&
	       !is_on(n->rx_limit) && !is_on(n->tx_limit);
}

/* With what the kernel has served by then. */
static void take_back(struct pair *p, const u16 next_avail[VHOST_RINGS])
{
	virtq_served(p->rx, next_avail[VHOST_RX]);
	virtq_served(p->tx, next_avail[VHOST_TX]);
}

/* If it cannot be had, that is no failure: then this thread moves the frames. */
static int start_vhost(struct pair *p)
{
	const struct virtio *v = &p->card->v;
	struct vhost_setup s = {
		.mem = v->platform->mem, .loop = p->kick->io.loop,
		.tap_fd = p->net->ops->vhost_fd(p->net), .features = v->accepted,
		.ring = { [VHOST_RX] = ring_of(p, p->rx), [VHOST_TX] = ring_of(p, p->tx) },
		.broken = vhost_broken, .lost = vhost_lost, .arg = p,
	};
	u16 next_avail[VHOST_RINGS];
	int rc = vhost_start(p->vhost, &s, next_avail);
	u64 missed;

	/* A driver may begin as often as it likes. */
	if (rc && rc != -EBADFD && log_allows(&p->noise, now_ns(), &missed))
		log_warn("%s: vhost-net refuses: %s; vmm itself moves the frames", v->dev.name,
			 strerror(-rc));
	if (rc)
		take_back(p, next_avail);
	p->kick[0].lent = p->kick[1].lent = p->by_vhost = !rc;
	store_once(&p->counters->by_vhost, p->by_vhost);
	return rc;
}

static void stop_vhost(struct pair *p)
{
	u16 next_avail[VHOST_RINGS];

	vhost_stop(p->vhost, next_avail);
	take_back(p, next_avail);
	p->kick[0].lent = p->kick[1].lent = p->by_vhost = false;
	store_once(&p->counters->by_vhost, 0);
}

/* The frames that the kernel did not give back come back from here. */
static void vhost_lost(void *arg)
{
	struct pair *p = arg;
	int rc;

	stop_vhost(p);
	rc = p->net->ops->start(p->net, p->kick->io.loop);
	lost(p->net);
	for (int i = 0; i < 2 && !rc; i++)
		rc = virtio_start_queue(&p->kick[i]);
	if (rc)
		virtio_broken(&p->card->v, "its queues cannot be taken back: %s", strerror(-rc));
}

static void net_irq_moved(struct virtio *v, struct virtq *q)
{
	struct virtio_net *n = to_net(v);
	struct pair *p = q->index / 2 < n->nr_pairs ? n->pair[q->index / 2] : NULL;

	if (p && p->by_vhost)
		vhost_irq_moved(p->vhost, q == p->tx ? VHOST_TX : VHOST_RX);
}

/* --- start and stop ------------------------------------------------------------------------- */

struct start {
	struct pair *pair;
	int rc;
};

static void start_pair(void *arg)
{
	struct start *s = arg;
	struct pair *p = s->pair;
	int rc = 0;

	net_frames_init(p);
	p->net->card = p;
	p->net->readable = readable;
	p->net->writable = writable;
	p->net->lost = lost;
	if (can_vhost(p))
		rc = start_vhost(p);
	s->rc = p->by_vhost ? 0 : p->net->ops->start(p->net, p->kick->io.loop);
	p->running = !s->rc;
	if (rc == -EBADFD)
		lost(p->net);
}

static int net_start(struct virtio *v)
{
	struct virtio_net *n = to_net(v);
	int rc = net_set_offload(n);

	if (!rc)
		rc = net_steer(n);
	/* Gone while nobody used it: as it says itself when it is started. */
	if (rc == -EBADFD)
		rc = 0;
	for (unsigned i = 0; i < pairs_in_use(n) && !rc; i++) {
		struct start s = { .pair = n->pair[i] };

		loop_call(s.pair->kick->io.loop, start_pair, &s);
		rc = s.rc;
	}
	/* No queue runs yet. */
	n->filters_on_host = n->pair[0]->by_vhost;
	net_filter_on_host(n);
	return rc;
}

static void transmit_kicked(struct pair *p)
{
	u16 next = p->tx->next_avail;

	net_transmit(p);
	counter_add(&p->counters->tx_empty,
		    p->tx->next_avail == next && !p->tx_limited.timer.loop && !p->want_tx);
}

static void net_kick(struct virtio *v, struct virtq *q)
{
	struct virtio_net *n = to_net(v);
	struct pair *p;

	if (v->nr_queues % 2 && q == control_queue(n))
		net_control(n, q);
	if (q->index / 2 >= pairs_in_use(n))
		return;
	p = n->pair[q->index / 2];
	counter_add(q == p->rx ? &p->counters->rx_kicks : &p->counters->tx_kicks, 1);
	if (q == p->rx)
		net_receive(p);
	else
		transmit_kicked(p);
}

/* A pair's two queues are drained one after the other, and nothing comes between. */
static void net_drain(struct virtio *v, struct virtq *q)
{
	struct virtio_net *n = to_net(v);
	struct pair *p;

	if (q->index % 2 == 0)
		return;
	p = n->pair[q->index / 2];
	if (!p->running)
		return;
	p->running = false;
	if (p->by_vhost) {
		stop_vhost(p);
		return;
	}
	net_frames_stop(p);
	p->net->ops->stop(p->net);
}

static void net_forget(struct virtio *v, struct virtq *q)
{
	/* Once, and only in a reset, which takes all queues back. */
	if (q->index == 0 && !(v->status & VIRTIO_CONFIG_S_DRIVER_OK))
		net_control_reset(to_net(v));
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
	ROW("net_errors_total", "direction=\"rx\"", rx_errors, "Reads and writes that the host could not do"),
	ROW("net_errors_total", "direction=\"tx\"", tx_errors, NULL),
	ROW("net_malformed_total", "direction=\"tx\"", tx_malformed, "Frames that no correct driver sends"),
	ROW("net_waits_total", "direction=\"rx\"", rx_waits,
	    "How often a frame waited: rx: for the driver's buffers, tx: for the host"),
	ROW("net_waits_total", "direction=\"tx\"", tx_waits, NULL),
	ROW("net_throttled_total", "direction=\"rx\"", rx_throttled,
	    "How often the limit made a frame wait"),
	ROW("net_throttled_total", "direction=\"tx\"", tx_throttled, NULL),
	ROW("net_released_total", "direction=\"rx\"", rx_released,
	    "How often the limit let go on what waited for it"),
	ROW("net_released_total", "direction=\"tx\"", tx_released, NULL),
	ROW("net_left_total", "direction=\"tx\"", tx_waiting,
	    "Frames that were in the queue when they began to wait"),
	ROW("net_kicks_total", "direction=\"rx\"", rx_kicks,
	    "How often the driver's notification was seen"),
	ROW("net_kicks_total", "direction=\"tx\"", tx_kicks, NULL),
	ROW("net_empty_kicks_total", "direction=\"tx\"", tx_empty, "Notifications of nothing"),
	ROW("net_ready_total", "direction=\"rx\"", rx_ready, "How often there were frames for the guest"),
	{ "net_send_seconds", NULL, "How long the host took for frames of the guest", METRIC_TICKS,
	  .offset = offsetof(struct net_counters, send) },
	{ "net_vhost_pairs", NULL, "Pairs of queues that vhost-net serves, uncounted", METRIC_GAUGE,
	  .offset = offsetof(struct net_counters, by_vhost) },
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
	struct virtio_net *n = to_net(v);

	for (unsigned i = 0; i < n->nr_pairs && n->pair[i]; i++) {
		stop_counting(n->pair[i]);
		free(n->pair[i]);
	}
	pthread_rwlock_destroy(&n->lock);
	virtio_fini(v);
	free(n);
}

static const struct virtio_ops net_ops = {
	.kind = "virtio-net", .id = VIRTIO_ID_NET, .queue_size = VIRTQ_MAX,
	.config_len = sizeof(struct virtio_net_config),
	.start = net_start,
	.kick = net_kick,
	.drain = net_drain,
	.forget = net_forget,
	.irq_moved = net_irq_moved,
	.state = net_control_state,
	.destroy = net_destroy,
};

/* With nothing that was not there always: so that what was saved then can be loaded. */
static const struct virtio_ops plain_ops = {
	.kind = "virtio-net", .id = VIRTIO_ID_NET, .queue_size = VIRTQ_MAX,
	.config_len = sizeof(struct virtio_net_config),
	.start = net_start,
	.kick = net_kick,
	.drain = net_drain,
	.forget = net_forget,
	.irq_moved = net_irq_moved,
	.destroy = net_destroy,
};

/* --- what the control thread asks ----------------------------------------------------------- */

void net_apply_link(struct virtio_net *n)
{
	for (unsigned i = 0; i < n->nr_pairs; i++)
		if (n->pair[i]->net->ops->set_link)
			n->pair[i]->net->ops->set_link(n->pair[i]->net, load_once(&n->link));
}

int virtio_net_set_link(struct virtio *v, bool up)
{
	struct virtio_net *n = to_net(v);

	if (up && load_once(&n->gone))
		return -ENODEV;
	n->plugged = up;
	change_link(n, up);
	net_apply_link(n);
	return 0;
}

bool virtio_net_is_plugged(struct virtio *v)
{
	return to_net(v)->plugged;
}

void virtio_net_announce(struct virtio *v)
{
	struct virtio_net *n = to_net(v);

	if (!virtio_has(v, VIRTIO_NET_F_GUEST_ANNOUNCE))
		return;
	net_set_status(n, VIRTIO_NET_S_ANNOUNCE, true);
	virtio_config_changed(v);
}

/* --- its making ----------------------------------------------------------------------------- */

static u64 features(const struct virtio_net_options *o)
{
	u64 f = o->net[0]->offload | 1ULL << VIRTIO_NET_F_MAC | 1ULL << VIRTIO_NET_F_STATUS |
		1ULL << VIRTIO_NET_F_MRG_RXBUF;

	if (o->net[0]->mtu)
		f |= 1ULL << VIRTIO_NET_F_MTU;
	if (o->plain)
		return f;
	f |= 1ULL << VIRTIO_NET_F_CTRL_VQ | 1ULL << VIRTIO_NET_F_CTRL_RX |
	     1ULL << VIRTIO_NET_F_CTRL_RX_EXTRA | 1ULL << VIRTIO_NET_F_CTRL_VLAN |
	     1ULL << VIRTIO_NET_F_CTRL_MAC_ADDR | 1ULL << VIRTIO_NET_F_GUEST_ANNOUNCE;
	if (f & NET_GUEST_OFFLOADS)
		f |= 1ULL << VIRTIO_NET_F_CTRL_GUEST_OFFLOADS;
	if (o->nr_pairs > 1)
		f |= 1ULL << VIRTIO_NET_F_MQ;
	return f;
}

static int new_pair(struct virtio_net *n, unsigned i, const struct virtio_net_options *o)
{
	struct pair *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	n->pair[i] = p;
	p->card = n;
	p->net = o->net[i];
	p->vhost = o->vhost ? o->vhost[i] : NULL;
	p->rx = &n->v.vq[2UL * i];
	p->tx = &n->v.vq[2 * i + 1];
	p->kick = &n->v.kick[2UL * i];
	if (o->nr_io)
		p->kick[0].io = p->kick[1].io = o->io[i % o->nr_io];
	return count(p);
}

int virtio_net_new(struct platform *p, const char *name, const struct virtio_net_options *o,
		   struct virtio **out, struct err *err)
{
	struct virtio_net *n = calloc(1, sizeof(*n));
	int rc;

	BUG_ON(!o->nr_pairs || o->nr_pairs > VIRTIO_NET_MAX_PAIRS);
	if (!n)
		return err_set(err, -ENOMEM, "%s: out of memory", name);
	rc = virtio_init(&n->v, o->plain ? &plain_ops : &net_ops, 2 * o->nr_pairs + !o->plain, p,
			 name, features(o), err);
	if (rc) {
		free(n);
		return rc;
	}
	pthread_rwlock_init(&n->lock, NULL);
	n->nr_pairs = o->nr_pairs;
	n->rx_limit = o->rx_limit;
	n->tx_limit = o->tx_limit;
	n->dump = o->dump;
	n->plugged = n->link = !o->unplugged;
	n->v.config = &n->config;
	memcpy(n->mac, o->mac, sizeof(n->mac));
	net_set_status(n, VIRTIO_NET_S_LINK_UP, n->link);
	n->config.max_virtqueue_pairs = htole16(o->nr_pairs);
	n->config.mtu = htole16(o->net[0]->mtu);
	if (n->v.offered >> VIRTIO_NET_F_RSS & 1) {
		n->config.rss_max_key_size = NET_RSS_KEY_LEN;
		n->config.rss_max_indirection_table_length = htole16(NET_RSS_TABLE_LEN);
		n->config.supported_hash_types = htole32(NET_HASH_TYPES);
	}
	net_control_reset(n);
	for (unsigned i = 0; i < o->nr_pairs && !rc; i++)
		rc = new_pair(n, i, o);
	if (rc) {
		net_destroy(&n->v);
		return err_set(err, rc, "%s: out of memory", name);
	}
	net_apply_link(n);
	*out = &n->v;
	return 0;
}
