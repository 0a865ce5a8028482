/* vsock.c: the queues of a virtio vsock device (virtio 1.2, 5.10); its connections are in vsock_connection.c. */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_ids.h>
#include <linux/vm_sockets.h>
#include <stdlib.h>
#include <sys/random.h>
#include "devices/virtio/vsock_own.h"
#include "vmm/core/state.h"

/* Packets, before others on the loop have their turn. */
enum { RX_BUDGET = 64, TX_BUDGET = 64 };

static struct vsock *of(struct virtio *v)
{
	return container_of(v, struct vsock, v);
}

#define ROW(name, label, field, help, ...) \
	{ name, label, help, .offset = offsetof(struct vsock_counters, field), ##__VA_ARGS__ }
static const struct metric vsock_metric[] = {
	ROW("vsock_kicks_total", "queue=\"rx\"", rx_kicks, "How often the driver's notification was seen"),
	ROW("vsock_kicks_total", "queue=\"tx\"", tx_kicks, NULL),
	ROW("vsock_kicks_total", "queue=\"event\"", event_kicks, NULL),
	ROW("vsock_packets_total", "direction=\"rx\"", rx_packets, "Packets, seen by the guest"),
	ROW("vsock_packets_total", "direction=\"tx\"", tx_packets, NULL),
	ROW("vsock_bytes_total", "direction=\"rx\"", rx_bytes, "Bytes of connections in them"),
	ROW("vsock_bytes_total", "direction=\"tx\"", tx_bytes, NULL),
	ROW("vsock_errors_total", "direction=\"rx\"", rx_errors, "Sockets of the host's that failed"),
	ROW("vsock_errors_total", "direction=\"tx\"", tx_errors, NULL),
	ROW("vsock_flush_errors_total", NULL, flush_errors, "The same of what waited to be read there"),
	ROW("vsock_dropped_total", NULL, dropped, "Packets that were not for this host, or made no sense"),
	ROW("vsock_opened_total", NULL, opened, "Connections that there were"),
	ROW("vsock_ended_total", NULL, ended, "And that there are no more"),
	ROW("vsock_resets_total", NULL, resets, "How often the guest was told that there is none"),
	ROW("vsock_refused_total", NULL, refused, "Connections that nobody was there for, or that were too many"),
	ROW("vsock_connections", NULL, connections, "That there are", .kind = METRIC_GAUGE),
};
#undef ROW
static const struct metric_table vsock_table = { "device", vsock_metric, ARRAY_SIZE(vsock_metric) };

/* --- to the guest --------------------------------------------------------------------------- */

/* False: there was no buffer, or nothing to put into it. */
static bool put_packet(struct vsock *s, struct virtq *q)
{
	struct virtio_vsock_hdr h;
	struct chain c;
	ssize_t len;
	int rc = virtq_pop(q, &c);

	if (rc < 0 || (rc > 0 && c.in.len <= sizeof(h))) {
		virtio_broken(&s->v, "receive queue: malformed chain");
		return false;
	}
	if (!rc)
		return false;
	len = vsock_next_packet(s, &h, MIN(c.in.len - sizeof(h), sizeof(s->data)));
	if (len < 0) {
		virtq_unpop(q);
		return false;
	}
	sg_write(&c.in, &h, sizeof(h));
	sg_write(&c.in, s->data, len);
	virtq_push(q, c.head, sizeof(h) + len);
	counter_add(&s->counters.rx_packets, 1);
	return true;
}

void vsock_pump(struct vsock *s)
{
	struct virtq *q = &s->v.vq[VSOCK_RX];

	if (!s->running)
		return;
	q->budget = RX_BUDGET;
	while (vsock_has_packet(s) && put_packet(s, q))
		;
	virtq_flush(q);
	if (!q->budget)
		virtio_notify(&s->v, VSOCK_RX);
	if (s->stalled && s->nr_resets < VSOCK_RESETS) {
		s->stalled = false;
		virtio_notify(&s->v, VSOCK_TX);
	}
}

/* --- from the guest ------------------------------------------------------------------------- */

/* Each byte is fetched once, and all before any is judged. */
static void take_packet(struct vsock *s, struct sg *out)
{
	struct virtio_vsock_hdr h;
	size_t len;

	if (sg_read(out, &h, sizeof(h)) < sizeof(h)) {
		counter_add(&s->counters.dropped, 1);
		device_guest_error(&s->v.dev, "a packet without a whole header");
		return;
	}
	counter_add(&s->counters.tx_packets, 1);
	if (le64toh(h.src_cid) != s->cid || le64toh(h.dst_cid) != VMADDR_CID_HOST) {
		counter_add(&s->counters.dropped, 1);
		return;
	}
	len = le32toh(h.len);
	if (len > out->len || len > sizeof(s->data))
		vsock_take_malformed(s, &h);
	else
		vsock_take(s, &h, sg_read(out, s->data, len));
}

static void tx_kick(struct vsock *s, struct virtq *q)
{
	struct chain c;
	int rc = 0;

	counter_add(&s->counters.tx_kicks, 1);
	q->budget = MIN(q->budget, TX_BUDGET);
	while (!(s->stalled = s->nr_resets >= VSOCK_RESETS) && (rc = virtq_pop(q, &c)) > 0) {
		take_packet(s, &c.out);
		virtq_push(q, c.head, 0);
	}
	virtq_flush(q);
	if (rc < 0)
		virtio_broken(&s->v, "transmit queue: malformed chain");
	vsock_pump(s);
}

/* --- events --------------------------------------------------------------------------------- */

/* To what runs on from a saved VM: the programs at the other ends are the first one's. */
static void event_kick(struct vsock *s, struct virtq *q)
{
	struct virtio_vsock_event e = { .id = htole32(VIRTIO_VSOCK_EVENT_TRANSPORT_RESET) };
	struct chain c;
	int rc;

	counter_add(&s->counters.event_kicks, 1);
	if (!s->was_copied)
		return;
	rc = virtq_pop(q, &c);
	if (rc < 0 || (rc > 0 && c.in.len < sizeof(e))) {
		virtio_broken(&s->v, "event queue: malformed chain");
	} else if (rc) {
		virtq_push(q, c.head, sg_write(&c.in, &e, sizeof(e)));
		virtq_flush(q);
		s->was_copied = false;
	}
}

/* --- its life ------------------------------------------------------------------------------- */

static void vsock_kick(struct virtio *v, struct virtq *q)
{
	struct vsock *s = of(v);

	switch (q->index) {
	case VSOCK_RX:
		counter_add(&s->counters.rx_kicks, 1);
		vsock_pump(s);
		break;
	case VSOCK_TX:
		tx_kick(s, q);
		break;
	default:
		event_kick(s, q);
	}
}

static int vsock_start(struct virtio *v)
{
	vsock_connections_start(of(v));
	return 0;
}

static void vsock_stop(struct virtio *v)
{
	vsock_connections_stop(of(v));
}

/* Also where only one of its queues is gone: without each of them there is no connection. */
static void vsock_forget(struct virtio *v, struct virtq *q)
{
	(void)q;
	vsock_connections_forget(of(v));
	of(v)->was_copied = false;
}

/* Of ports that were used the guest may still have sockets. */
static void ports_state(struct vsock *s, struct state *st)
{
	u32 port = s->next_port;

	if (state_if(st, "ports", true)) {
		state_u32(st, "last", &port);
		if (port < VSOCK_FIRST_PORT - 1 || port > INT32_MAX)
			state_fail(st, "last is %u, from %d to %d", port, VSOCK_FIRST_PORT - 1, INT32_MAX);
		state_leave(st);
	} else if (getrandom(&port, sizeof(port), 0) == sizeof(port)) {
		/* Versions before did not say. */
		port = VSOCK_FIRST_PORT | port % VSOCK_FIRST_PORT;
	}
	if (!state_failed(st))
		s->next_port = port;
}

static void vsock_state(struct virtio *v, struct state *st)
{
	ports_state(of(v), st);
	if (state_loading(st) && !state_failed(st))
		of(v)->was_copied = v->started;
}

static void vsock_destroy(struct virtio *v)
{
	struct vsock *s = of(v);

	metrics_remove(&s->metrics);
	virtio_fini(v);
	free(s);
}

static const struct virtio_ops vsock_ops = {
	.kind = "virtio-vsock", .id = VIRTIO_ID_VSOCK, .queue_size = VIRTQ_MAX,
	.config_len = sizeof(struct virtio_vsock_config),
	.start = vsock_start, .stop = vsock_stop, .kick = vsock_kick, .forget = vsock_forget,
	.state = vsock_state, .destroy = vsock_destroy,
};

int virtio_vsock_new(struct platform *p, const char *name, u32 cid, struct vsock_host *host,
		     struct virtio **out, struct err *err)
{
	struct vsock *s = calloc(1, sizeof(*s));
	int rc = s ? virtio_init(&s->v, &vsock_ops, VSOCK_QUEUES, p, name, 0, err) :
		     err_set(err, -ENOMEM, "%s: out of memory", name);

	if (rc) {
		free(s);
		return rc;
	}
	s->cid = cid;
	s->config.guest_cid = htole64(cid);
	s->v.config = &s->config;
	s->host = host;
	vsock_connections_init(s);
	s->metrics = (struct metric_set){ .table = &vsock_table, .owner = s->v.dev.name,
					  .counters = &s->counters };
	metrics_add(p->metrics, &s->metrics);
	*out = &s->v;
	return 0;
}
