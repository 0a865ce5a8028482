/* rng.c: virtio entropy (virtio 1.2, 5.4): fill whatever the driver offers, as fast as it may. */
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <sys/random.h>
#include "devices/virtio/virtio.h"
#include "vmm/core/limit.h"
#include "vmm/core/loop.h"

struct rng {
	struct virtio v;
	struct limit limit;
	struct timer timer;		/* it allows more */
	struct metric_set metrics;
	struct rng_counters { u64 requests, bytes, kicks, throttled, released, fails; } counters;	/* of the queue's loop */
};

static const struct metric rng_metric[] = {
	{ "entropy_requests_total", NULL, "Buffers that were filled with random bytes",
	  .offset = offsetof(struct rng_counters, requests) },
	{ "entropy_bytes_total", NULL, "Random bytes that the guest got",
	  .offset = offsetof(struct rng_counters, bytes) },
	{ "entropy_kicks_total", NULL, "How often the driver's notification was seen",
	  .offset = offsetof(struct rng_counters, kicks) },
	{ "entropy_throttled_total", NULL, "How often a buffer had to wait for the limit",
	  .offset = offsetof(struct rng_counters, throttled) },
	{ "entropy_released_total", NULL, "How often the limit let go on what waited for it",
	  .offset = offsetof(struct rng_counters, released) },
	{ "entropy_errors_total", NULL, "Buffers that the host had no random bytes for",
	  .offset = offsetof(struct rng_counters, fails) },
};
static const struct metric_table rng_table = { "device", rng_metric, ARRAY_SIZE(rng_metric) };

/* Not yet: a timer asks again. */
static bool limited(struct rng *rng, size_t len)
{
	u64 wait = load_once(&rng->limit.on) ? limit_take(&rng->limit, len, now_ns()) : 0;

	if (wait) {
		counter_add(&rng->counters.throttled, 1);
		timer_start(&rng->timer, rng->v.kick[0].io.loop, wait);
	}
	return wait;
}

static void limit_allows(struct timer *t)
{
	struct rng *rng = container_of(t, struct rng, timer);

	counter_add(&rng->counters.released, 1);
	virtio_notify(&rng->v, 0);
}

static void rng_kick(struct virtio *v, struct virtq *q)
{
	struct rng *rng = container_of(v, struct rng, v);
	struct rng_counters *n = &rng->counters;
	struct chain c;
	u8 buf[256];
	int rc = 0;

	counter_add(&n->kicks, 1);
	while (!rng->timer.loop && (rc = virtq_pop(q, &c)) > 0) {
		/* At most 256 bytes: getrandom never comes back short of that. */
		size_t want = MIN(c.in.len, sizeof(buf)), len;
		ssize_t got;

		if (limited(rng, want)) {
			virtq_unpop(q);
			rc = 0;
			break;
		}
		got = getrandom(buf, want, 0);
		len = got > 0 ? sg_write(&c.in, buf, got) : 0;
		virtq_push(q, c.head, len);
		counter_add(&n->requests, 1);
		counter_add(&n->bytes, len);
		counter_add(&n->fails, got < 0);
	}
	virtq_flush(q);
	if (rc)
		virtio_broken(v, "request queue: malformed chain");
}

static void rng_drain(struct virtio *v, struct virtq *q)
{
	(void)q;
	timer_stop(&container_of(v, struct rng, v)->timer);
}

static void rng_destroy(struct virtio *v)
{
	struct rng *rng = container_of(v, struct rng, v);

	metrics_remove(&rng->metrics);
	virtio_fini(v);
	limit_fini(&rng->limit);
	free(rng);
}

static const struct virtio_ops rng_ops = {
	.kind = "virtio-rng", .id = VIRTIO_ID_RNG, .queue_size = 64,
	.kick = rng_kick, .drain = rng_drain,
	.destroy = rng_destroy,
};

int virtio_rng_new(struct platform *p, const char *name, const struct limit_config *limit,
		   struct virtio **out, struct err *err)
{
	struct rng *rng = calloc(1, sizeof(*rng));
	int rc = rng ? virtio_init(&rng->v, &rng_ops, 1, p, name, 0, err) :
		       err_set(err, -ENOMEM, "%s: out of memory", name);

	if (rc) {
		free(rng);
		return rc;
	}
	limit_init(&rng->limit, limit ?: &(struct limit_config){ 0 });
	rng->timer.fire = limit_allows;
	rng->metrics = (struct metric_set){ .table = &rng_table, .owner = rng->v.dev.name,
					    .counters = &rng->counters };
	metrics_add(p->metrics, &rng->metrics);
	*out = &rng->v;
	return 0;
}
