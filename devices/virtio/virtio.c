/* virtio.c: features, status and the life of queues (virtio 1.2, 2.1, 3). */
#include "devices/virtio/virtio.h"
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "vmm/core/state.h"

enum {
	STATUS_KNOWN = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
		       VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FEATURES_OK |
		       VIRTIO_CONFIG_S_FAILED,
	KICK_BUDGET = VIRTQ_MAX,
	HELD_QUIESCED = 1, HELD_NO_BUS_MASTER = 2,
};

static void run_queues(struct virtio *v);
static void halt_queues(struct virtio *v);

static void set_ring_features(const struct virtio *v, struct virtq *q)
{
	q->event_idx = virtio_has(v, VIRTIO_RING_F_EVENT_IDX);
	q->indirect = virtio_has(v, VIRTIO_RING_F_INDIRECT_DESC);
}

static bool running(const struct virtio *v)
{
	return v->started && !v->held;
}

static void hold(struct virtio *v, u8 reason)
{
	if (running(v))
		halt_queues(v);
	v->held |= reason;
}

static void release(struct virtio *v, u8 reason)
{
	if (v->started && v->held == reason)
		run_queues(v);
	v->held &= ~reason;
}

static void virtio_quiesce(struct device *dev)
{
	struct virtio *v = container_of(dev, struct virtio, dev);

	pthread_mutex_lock(&dev->lock);
	hold(v, HELD_QUIESCED);
	pthread_mutex_unlock(&dev->lock);
}

static void virtio_resume(struct device *dev)
{
	struct virtio *v = container_of(dev, struct virtio, dev);

	pthread_mutex_lock(&dev->lock);
	release(v, HELD_QUIESCED);
	pthread_mutex_unlock(&dev->lock);
}

/* The same checks as for what a driver writes: a stream may come from anybody. */
static void load_queues(struct virtio *v, struct state *s)
{
	struct err err;

	/* Before FEATURES_OK a driver may have written anything. */
	if (v->status & VIRTIO_CONFIG_S_FEATURES_OK && v->accepted & ~v->offered)
		state_fail(s, "features %#llx, of which this machine has not %#llx",
			   (unsigned long long)v->accepted,
			   (unsigned long long)(v->accepted & ~v->offered));
	/* A driver that said DRIVER_OK too soon has a device that needs a reset. */
	if (v->status & ~STATUS_KNOWN || (v->status & VIRTIO_CONFIG_S_DRIVER_OK && !v->needs_reset &&
					  !(v->status & VIRTIO_CONFIG_S_FEATURES_OK)))
		state_fail(s, "status %#x", v->status);
	v->started = v->status & VIRTIO_CONFIG_S_DRIVER_OK && !v->needs_reset;
	for (unsigned i = 0; i < v->nr_queues && v->started && !state_failed(s); i++) {
		struct virtq *q = &v->vq[i];
		bool broken = q->broken;

		set_ring_features(v, q);
		if (q->ready && virtq_start(q, &err))
			state_fail(s, "%s", err.msg);
		q->broken = broken;
	}
}

static void virtio_state(struct device *dev, struct state *s)
{
	struct virtio *v = container_of(dev, struct virtio, dev);

	BUG_ON(!(v->held & HELD_QUIESCED));
	state_u8(s, "status", &v->status);
	state_u64(s, "accepted", &v->accepted);
	state_u32(s, "generation", &v->generation);
	state_bool(s, "needs-reset", &v->needs_reset);
	state_same(s, "nr-queues", v->nr_queues);
	for (unsigned i = 0; i < v->nr_queues; i++) {
		state_enter(s, "queue", i);
		virtq_state(&v->vq[i], s);
		state_leave(s);
	}
	if (state_loading(s) && !state_failed(s))
		load_queues(v, s);
	state_enter(s, "transport", 0);
	v->transport_state(v, s);
	state_leave(s);
	if (!v->ops->state)
		return;
	state_enter(s, v->ops->kind, 0);
	v->ops->state(v, s);
	state_leave(s);
}

static void virtio_destroy(struct device *dev)
{
	struct virtio *v = container_of(dev, struct virtio, dev);

	pthread_mutex_lock(&dev->lock);
	virtio_set_status(v, 0);
	pthread_mutex_unlock(&dev->lock);
	if (v->transport_free)
		v->transport_free(v);
	v->ops->destroy(v);
}

static const struct device_ops virtio_device_ops = {
	.kind = "virtio", .quiesce = virtio_quiesce, .resume = virtio_resume, .state = virtio_state,
	.destroy = virtio_destroy,
};

/* --- what is counted ---------------------------------------------------------------------- */

#define ROW(name, field, help) { name, NULL, help, .offset = offsetof(struct virtio_counters, field) }

static const struct metric virtio_metric[] = {
	ROW("virtio_interrupts_total", interrupts, "That were sent, but for vhost-net's"),
	ROW("virtio_vector_changes_total", vectors, "How often the driver moved or masked one"),
	ROW("virtio_failed_starts_total", failed_starts, "How often it could not do what its driver set up"),
	ROW("virtio_config_errors_total", config_errors, "Accesses to configuration that is not there"),
};
static const struct metric_table virtio_table = { "device", virtio_metric, ARRAY_SIZE(virtio_metric) };

static void refresh(struct metric_set *s)
{
	struct virtio *v = container_of(s, struct virtio, metrics);
	u64 n = load_once(&v->config_interrupts);

	for (unsigned i = 0; i < v->nr_queues; i++)
		n += load_once(&v->vq[i].interrupts);
	v->counters.interrupts = n;
}

int virtio_init(struct virtio *v, const struct virtio_ops *ops, unsigned nr_queues,
		struct platform *p, const char *name, u64 features, struct err *err)
{
	BUG_ON(nr_queues > VIRTIO_MAX_QUEUES);
	v->ops = ops;
	v->nr_queues = nr_queues;
	v->platform = p;
	v->offered = features | 1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_RING_F_EVENT_IDX |
		     1ULL << VIRTIO_RING_F_INDIRECT_DESC;
	device_init(&v->dev, &virtio_device_ops, name);
	v->metrics = (struct metric_set){ .table = &virtio_table, .owner = v->dev.name,
					  .counters = &v->counters, .refresh = refresh };
	metrics_add(p->metrics, &v->metrics);
	for (int i = 0; i < VIRTIO_MAX_QUEUES; i++)
		v->kick[i].fd = -1;
	for (unsigned i = 0; i < nr_queues; i++) {
		struct virtq *q = &v->vq[i];

		*q = (struct virtq){ .mem = p->mem, .index = i, .max_size = ops->queue_size };
		virtq_reset(q);
		v->kick[i].v = v;
		v->kick[i].io = (struct io_thread){ p->io_loop, p->aio };
		v->kick[i].fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (v->kick[i].fd < 0) {
			int rc = -errno;

			virtio_fini(v);
			return err_set(err, rc, "%s: eventfd: %s", name, strerror(-rc));
		}
	}
	return 0;
}

void virtio_fini(struct virtio *v)
{
	for (int i = 0; i < VIRTIO_MAX_QUEUES; i++)
		if (v->kick[i].fd >= 0)
			close(v->kick[i].fd);
	metrics_remove(&v->metrics);
	device_fini(&v->dev);
}

bool virtio_has(const struct virtio *v, unsigned feature)
{
	return v->accepted >> feature & 1;
}

static void interrupt(struct virtio *v)
{
	if (!v->config_irq)
		return;
	__atomic_add_fetch(&v->config_interrupts, 1, __ATOMIC_RELAXED);
	irq_raise(v->config_irq);
}

void virtio_broken(struct virtio *v, const char *fmt, ...)
{
	char text[160];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	device_guest_error(&v->dev, "%s; the device needs a reset", text);
	for (unsigned i = 0; i < v->nr_queues; i++)
		store_once(&v->vq[i].broken, true);
	store_release(&v->needs_reset, true);
	interrupt(v);
}

/* --- start and stop, on the I/O loop ------------------------------------------------ */

static void kick_queue(struct kick *k)
{
	struct virtq *q = &k->v->vq[k - k->v->kick];

	q->budget = KICK_BUDGET;
	k->v->ops->kick(k->v, q);
	if (!q->budget)
		eventfd_write(k->fd, 1);	/* others first, then the rest of it */
}

static void kick_ready(struct watch *w, u32 events)
{
	(void)events;
	kick_queue(container_of(w, struct kick, watch));
}

int virtio_start_queue(struct kick *k)
{
	int rc;

	if (!k->v->vq[k - k->v->kick].ready || k->watch.loop)
		return 0;
	if (k->lent) {
		eventfd_write(k->fd, 1);	/* for what came before, as below */
		return 0;
	}
	k->watch.ready = kick_ready;
	/* By the edge: every kick is one, whatever was never read from the eventfd. */
	rc = watch_start(&k->watch, k->io.loop, k->fd, EPOLLIN | EPOLLET);
	/* What the driver put there before DRIVER_OK may come without a kick. */
	if (!rc)
		kick_queue(k);
	return rc;
}

static void stop_queue(struct kick *k)
{
	watch_stop(&k->watch);
	if (k->v->ops->drain)
		k->v->ops->drain(k->v, &k->v->vq[k - k->v->kick]);
}

/* Something for all queues of one loop. */
struct visit {
	struct virtio *v;
	struct loop *loop;
	bool start;
	int rc;
};

static void visit_queues(void *arg)
{
	struct visit *t = arg;

	for (unsigned i = 0; i < t->v->nr_queues && !t->rc; i++) {
		struct kick *k = &t->v->kick[i];

		if (k->io.loop != t->loop)
			continue;
		if (t->start)
			t->rc = virtio_start_queue(k);
		else
			stop_queue(k);
	}
}

static int visit_loops(struct virtio *v, bool start)
{
	struct visit t = { .v = v, .start = start };

	for (unsigned i = 0; i < v->nr_queues && !t.rc; i++) {
		unsigned before = 0;

		t.loop = v->kick[i].io.loop;
		while (v->kick[before].io.loop != t.loop)
			before++;
		if (before == i)
			loop_call(t.loop, visit_queues, &t);
	}
	return t.rc;
}

static void start_device(void *arg)
{
	struct visit *t = arg;

	t->rc = t->v->ops->start(t->v);
}

static void stop_device(void *arg)
{
	struct virtio *v = arg;

	v->ops->stop(v);
}

static void cannot_start(struct virtio *v, const char *why)
{
	counter_add(&v->counters.failed_starts, 1);
	virtio_broken(v, "cannot start: %s", why);
}

static void run_queues(struct virtio *v)
{
	struct visit t = { .v = v };

	if (v->ops->start)
		loop_call(v->kick[0].io.loop, start_device, &t);
	if (!t.rc)
		t.rc = visit_loops(v, true);
	if (t.rc)
		cannot_start(v, strerror(-t.rc));
}

static void halt_queues(struct virtio *v)
{
	visit_loops(v, false);
	if (v->ops->stop)
		loop_call(v->kick[0].io.loop, stop_device, v);
}

static void start(struct virtio *v)
{
	/* Only a reset mends it. */
	if (load_acquire(&v->needs_reset))
		return;
	for (unsigned i = 0; i < v->nr_queues; i++) {
		struct virtq *q = &v->vq[i];
		struct err err;

		if (!q->ready)
			continue;
		set_ring_features(v, q);
		if (virtq_start(q, &err)) {
			cannot_start(v, err.msg);
			return;
		}
	}
	v->started = true;
	if (running(v))
		run_queues(v);
}

static void reset(struct virtio *v)
{
	if (running(v))
		halt_queues(v);
	v->started = false;
	v->accepted = 0;
	store_once(&v->status, 0);
	for (unsigned i = 0; i < v->nr_queues; i++) {
		if (v->ops->forget)
			v->ops->forget(v, &v->vq[i]);
		virtq_reset(&v->vq[i]);
	}
	store_release(&v->needs_reset, false);
}

/* --- what transports ask ---------------------------------------------------------------- */

u32 virtio_offered(const struct virtio *v, u32 select)
{
	return select < 2 ? v->offered >> 32 * select : 0;
}

u32 virtio_accepted(const struct virtio *v, u32 select)
{
	return select < 2 ? v->accepted >> 32 * select : 0;
}

void virtio_accept(struct virtio *v, u32 select, u32 features)
{
	u64 mask = 0xffffffffULL << 32 * (select & 1);

	if (v->status & VIRTIO_CONFIG_S_FEATURES_OK) {
		device_guest_error(&v->dev, "features written after FEATURES_OK");
		return;
	}
	if (select < 2)
		v->accepted = (v->accepted & ~mask) | (u64)features << 32 * select;
}

u8 virtio_status(const struct virtio *v)
{
	return v->status | (load_acquire(&v->needs_reset) ? VIRTIO_CONFIG_S_NEEDS_RESET : 0);
}

void virtio_set_status(struct virtio *v, u8 status)
{
	u8 new = status & STATUS_KNOWN & ~v->status;

	if (!status) {
		reset(v);
		return;
	}
	/* A driver may only add bits; taking one back needs a reset (2.1.1). */
	if (v->status & ~status & STATUS_KNOWN)
		device_guest_error(&v->dev, "status %#x after %#x", status, v->status);
	if (new & VIRTIO_CONFIG_S_FEATURES_OK &&
	    ((v->accepted & ~v->offered) || !virtio_has(v, VIRTIO_F_VERSION_1)))
		new &= ~VIRTIO_CONFIG_S_FEATURES_OK;
	store_once(&v->status, v->status | new);
	if (new & VIRTIO_CONFIG_S_FEATURES_OK && v->ops->negotiated)
		v->ops->negotiated(v);
	if (!(new & VIRTIO_CONFIG_S_DRIVER_OK))
		return;
	if (v->status & VIRTIO_CONFIG_S_FEATURES_OK)
		start(v);
	else
		cannot_start(v, "DRIVER_OK before FEATURES_OK");
}

u64 virtio_config_read(struct virtio *v, u64 offset, unsigned size)
{
	u64 value = 0;

	if (offset < v->ops->config_len)
		memcpy(&value, (u8 *)v->config + offset, MIN(size, v->ops->config_len - offset));
	else
		counter_add(&v->counters.config_errors, 1);
	return value;
}

void virtio_config_write(struct virtio *v, u64 offset, unsigned size, u64 value)
{
	if (v->ops->config_write && v->ops->config_write(v, offset, size, value))
		return;
	counter_add(&v->counters.config_errors, 1);
	device_guest_error(&v->dev, "write of %u bytes to read-only config at %llu", size,
			   (unsigned long long)offset);
}

void virtio_config_changed(struct virtio *v)
{
	__atomic_add_fetch(&v->generation, 1, __ATOMIC_SEQ_CST);
	if (load_once(&v->status) & VIRTIO_CONFIG_S_DRIVER_OK)
		interrupt(v);
}

void virtio_notify(struct virtio *v, u32 queue)
{
	if (queue < v->nr_queues)
		eventfd_write(v->kick[queue].fd, 1);
}

void virtio_set_bus_master(struct virtio *v, bool may)
{
	bool is_lost = !may && !(v->held & HELD_NO_BUS_MASTER);

	if (may)
		release(v, HELD_NO_BUS_MASTER);
	else
		hold(v, HELD_NO_BUS_MASTER);
	if (!is_lost)
		return;
	v->started = false;
	store_once(&v->status, v->status & ~VIRTIO_CONFIG_S_DRIVER_OK);
}

void virtio_irq_moved(struct virtio *v, u32 index)
{
	if (running(v) && v->ops->irq_moved)
		v->ops->irq_moved(v, &v->vq[index]);
}

struct virtq *virtio_queue(struct virtio *v, u32 index)
{
	return index < v->nr_queues ? &v->vq[index] : NULL;
}

struct virtq *virtio_queue_setup(struct virtio *v, u32 index)
{
	struct virtq *q = virtio_queue(v, index);

	if (!q)
		return NULL;
	/* Rings that move while in use are how hypervisors were broken. */
	if (q->ready || v->status & VIRTIO_CONFIG_S_DRIVER_OK) {
		device_guest_error(&v->dev, "queue %u changed while live", index);
		return NULL;
	}
	return q;
}

/* By way of a stop of the whole device: some know only that. */
void virtio_queue_disable(struct virtio *v, u32 index)
{
	struct virtq *q = virtio_queue(v, index);

	if (!q || !q->ready)
		return;
	q->ready = false;
	if (!v->started)
		return;
	if (running(v))
		halt_queues(v);
	if (v->ops->forget)
		v->ops->forget(v, q);
	virtq_stop(q);
	if (running(v))
		run_queues(v);
}
