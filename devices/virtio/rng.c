/* rng.c: virtio entropy (virtio 1.2, 5.4): fill whatever the driver offers. */
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <sys/random.h>
#include "devices/virtio/virtio.h"

struct rng {
	struct virtio v;
	struct metric_set metrics;
	struct rng_counters { u64 requests, bytes, kicks; } counters;	/* of the queue's loop */
};

static const struct metric rng_metric[] = {
	{ "entropy_requests_total", NULL, "Buffers that were filled with random bytes",
	  .offset = offsetof(struct rng_counters, requests) },
	{ "entropy_bytes_total", NULL, "Random bytes that the guest got",
	  .offset = offsetof(struct rng_counters, bytes) },
	{ "entropy_kicks_total", NULL, "How often the driver's notification was seen",
	  .offset = offsetof(struct rng_counters, kicks) },
};
static const struct metric_table rng_table = { "device", rng_metric, ARRAY_SIZE(rng_metric) };

static void rng_kick(struct virtio *v, struct virtq *q)
{
	struct rng_counters *n = &container_of(v, struct rng, v)->counters;
	struct chain c;
	u8 buf[256];
	int rc;

	counter_add(&n->kicks, 1);
	while ((rc = virtq_pop(q, &c)) > 0) {
		/* At most 256 bytes: getrandom never comes back short of that. */
		ssize_t got = getrandom(buf, MIN(c.in.len, sizeof(buf)), 0);
		size_t len = got > 0 ? sg_write(&c.in, buf, got) : 0;

		virtq_push(q, c.head, len);
		counter_add(&n->requests, 1);
		counter_add(&n->bytes, len);
	}
	virtq_flush(q);
	if (rc)
		virtio_broken(v, "request queue: malformed chain");
}

static void rng_destroy(struct virtio *v)
{
	struct rng *rng = container_of(v, struct rng, v);

	metrics_remove(&rng->metrics);
	virtio_fini(v);
	free(rng);
}

static const struct virtio_ops rng_ops = {
	.kind = "virtio-rng", .id = VIRTIO_ID_RNG, .queue_size = 64,
	.kick = rng_kick,
	.destroy = rng_destroy,
};

int virtio_rng_new(struct platform *p, const char *name, struct virtio **out, struct err *err)
{
	struct rng *rng = calloc(1, sizeof(*rng));
	int rc = rng ? virtio_init(&rng->v, &rng_ops, 1, p, name, 0, err) :
		       err_set(err, -ENOMEM, "%s: out of memory", name);

	if (rc) {
		free(rng);
		return rc;
	}
	rng->metrics = (struct metric_set){ .table = &rng_table, .owner = rng->v.dev.name,
					    .counters = &rng->counters };
	metrics_add(p->metrics, &rng->metrics);
	*out = &rng->v;
	return 0;
}
