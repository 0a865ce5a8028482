/* probe.c: see probe.h. */
#include "tests/fuzz/lib/probe.h"
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#define FEATURES	(1ULL << 3 | 1ULL << 17 | 1ULL << 40)

/* --- the device ------------------------------------------------------------------------ */

static struct probe *to_probe(struct virtio *v)
{
	return container_of(v, struct probe, v);
}

static int probe_start(struct virtio *v)
{
	fuzz_check(!to_probe(v)->running, "started twice");
	to_probe(v)->running = true;
	return 0;
}

static void probe_drain(struct virtio *v, struct virtq *q)
{
	fuzz_check(to_probe(v)->running, "queue %u drained while stopped", q->index);
	to_probe(v)->drained[q->index] = true;
}

static void probe_stop(struct virtio *v)
{
	struct probe *p = to_probe(v);

	fuzz_check(p->running, "stopped twice");
	for (int i = 0; i < PROBE_QUEUES; i++) {
		fuzz_check(p->drained[i], "stopped before queue %d was drained", i);
		p->drained[i] = false;
	}
	p->running = false;
}

static void on_kick(struct virtio *v, struct virtq *q)
{
	fuzz_check(to_probe(v)->running, "queue %u kicked while stopped", q->index);
	to_probe(v)->kicks[q->index]++;
}

static void probe_forget(struct virtio *v, struct virtq *q)
{
	fuzz_check(!to_probe(v)->running, "queue %u forgotten while it runs", q->index);
}

static bool probe_config_write(struct virtio *v, u64 offset, unsigned size, u64 value)
{
	if (offset || size != 1)
		return false;
	to_probe(v)->config[0] = value;
	return true;
}

static void probe_destroy(struct virtio *v)
{
	fuzz_check(!to_probe(v)->running, "destroyed while it ran");
	virtio_fini(v);
	free(to_probe(v));
}

static const struct virtio_ops ops = {
	.kind = "probe", .id = PROBE_ID, .queue_size = PROBE_QUEUE_MAX, .config_len = PROBE_CONFIG,
	.start = probe_start, .drain = probe_drain, .stop = probe_stop, .kick = on_kick,
	.forget = probe_forget, .config_write = probe_config_write, .destroy = probe_destroy,
};

static void reset(struct probe_model *m)
{
	m->accepted = m->status = 0;
	m->broken = m->running = false;
	for (int i = 0; i < PROBE_QUEUES; i++)
		m->q[i] = (struct probe_queue){ .size = PROBE_QUEUE_MAX, .began = m->q[i].began,
						.kicked = m->q[i].kicked };
}

struct probe *probe_new(struct hostile *h, struct probe_model *m)
{
	struct probe *p = calloc(1, sizeof(*p));

	fuzz_check(p && !virtio_init(&p->v, &ops, PROBE_QUEUES, &h->fake.p, "probe", FEATURES, NULL),
		   "no device");
	p->v.config = p->config;
	for (int i = 0; i < PROBE_CONFIG; i++)
		p->config[i] = 0x80 + i;
	memset(m, 0, sizeof(*m));
	m->p = p;
	reset(m);
	return p;
}

/* --- what must become of it ---------------------------------------------------------------- */

static u64 offered(void)
{
	return FEATURES | 1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_RING_F_EVENT_IDX |
	       1ULL << VIRTIO_RING_F_INDIRECT_DESC;
}

u32 probe_offered(const struct probe_model *m, u32 select)
{
	(void)m;
	return select < 2 ? offered() >> 32 * select : 0;
}

u32 probe_accepted(const struct probe_model *m, u32 select)
{
	return select < 2 ? m->accepted >> 32 * select : 0;
}

void probe_accept(struct probe_model *m, u32 select, u32 features)
{
	if (!(m->status & STATUS_FEATURES_OK) && select < 2)
		probe_set_half(&m->accepted, select, features);
}

u8 probe_status(const struct probe_model *m)
{
	return m->status | (m->broken ? STATUS_NEEDS_RESET : 0);
}

void probe_break(struct probe_model *m)
{
	m->broken = true;
	m->config_changes++;
}

static bool fits(u64 addr, u64 len, u64 align)
{
	return addr % align == 0 && addr < HOSTILE_MEM && len <= HOSTILE_MEM - addr;
}

static bool sound(const struct probe_queue *q)
{
	u64 n = q->size;

	return !q->ready || (n && n <= PROBE_QUEUE_MAX && !(n & (n - 1)) &&
			     fits(q->addr[0], 16 * n, 16) && fits(q->addr[1], 6 + 2 * n, 2) &&
			     fits(q->addr[2], 6 + 8 * n, 4));
}

static bool runs(const struct probe_model *m)
{
	return m->running && !m->quiet && !m->no_master;
}

/* All that is in the rings is looked at. */
static void begin(struct probe_model *m)
{
	for (int i = 0; i < PROBE_QUEUES; i++)
		m->q[i].began |= runs(m) && m->q[i].ready;
}

static void start(struct probe_model *m)
{
	if (m->broken)
		return;
	for (int i = 0; i < PROBE_QUEUES; i++)
		if (!sound(&m->q[i])) {
			probe_break(m);
			return;
		}
	m->running = true;
	begin(m);
}

void probe_set_status(struct probe_model *m, u8 status)
{
	enum { KNOWN = STATUS_RUNNING | VIRTIO_CONFIG_S_FAILED };
	u8 new = status & KNOWN & ~m->status;

	if (!status) {
		reset(m);
		return;
	}
	if (m->accepted & ~offered() || !(m->accepted >> VIRTIO_F_VERSION_1 & 1))
		new &= ~STATUS_FEATURES_OK;
	m->status |= new;
	if (new & STATUS_DRIVER_OK && m->status & STATUS_FEATURES_OK)
		start(m);
	else if (new & STATUS_DRIVER_OK)
		probe_break(m);
}

u64 probe_config(const struct probe_model *m, u64 offset, unsigned size)
{
	u64 value = 0;

	for (unsigned i = 0; i < size && offset + i < PROBE_CONFIG; i++)
		value |= (u64)m->p->config[offset + i] << 8 * i;
	return value;
}

void probe_change(struct probe_model *m)
{
	pthread_mutex_lock(&m->p->v.dev.lock);
	m->p->config[PROBE_CONFIG - 1]++;
	virtio_config_changed(&m->p->v);
	pthread_mutex_unlock(&m->p->v.dev.lock);
	m->generation++;
	m->config_changes += m->status & STATUS_DRIVER_OK ? 1 : 0;
}

void probe_pause(struct probe_model *m, bool on)
{
	if (on)
		device_quiesce(&m->p->v.dev);
	else
		device_resume(&m->p->v.dev);
	if (m->quiet == on)
		return;
	m->quiet = on;
	begin(m);
}

void probe_bus_master(struct probe_model *m, bool may)
{
	if (m->no_master == !may)
		return;
	m->no_master = !may;
	if (!may) {
		m->running = false;
		m->status &= ~STATUS_DRIVER_OK;
	}
	begin(m);
}

struct probe_queue *probe_queue(struct probe_model *m, u32 index)
{
	return index < PROBE_QUEUES ? &m->q[index] : NULL;
}

struct probe_queue *probe_setup(struct probe_model *m, u32 index)
{
	struct probe_queue *q = probe_queue(m, index);

	return q && !q->ready && !(m->status & STATUS_DRIVER_OK) ? q : NULL;
}

void probe_set_half(u64 *addr, bool high, u32 value)
{
	*addr = high ? (u64)value << 32 | (u32)*addr : (*addr >> 32 << 32) + value;
}

void probe_disable(struct probe_model *m, u32 index)
{
	struct probe_queue *q = probe_queue(m, index);

	if (!q || !q->ready)
		return;
	q->ready = false;
	begin(m);
}

void probe_kick(struct probe_model *m, u32 index)
{
	if (index < PROBE_QUEUES)
		m->q[index].kicked = true;
}

void probe_turn(struct hostile *h, struct probe_model *m)
{
	fake_turn(&h->fake);
	fuzz_check(m->p->running == runs(m), "running: %d, not %d", m->p->running, runs(m));
	for (int i = 0; i < PROBE_QUEUES; i++) {
		struct probe_queue *q = &m->q[i];
		bool live = runs(m) && q->ready, got = m->p->kicks[i];

		fuzz_check(got == (q->began || (live && q->kicked)),
			   "queue %d: kicked %d, began %d, live %d, to be kicked %d", i, got, q->began,
			   live, q->kicked);
		m->p->kicks[i] = 0;
		q->began = false;
		q->kicked &= !live;
	}
}
