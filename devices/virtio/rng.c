/* rng.c: virtio entropy (virtio 1.2, 5.4): fill whatever the driver offers. */
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <sys/random.h>
#include "devices/virtio/virtio.h"

struct rng {
	struct virtio v;
};

static void rng_kick(struct virtio *v, struct virtq *q)
{
	struct chain c;
	u8 buf[256];
	int rc;

	while ((rc = virtq_pop(q, &c)) > 0) {
		/* At most 256 bytes: getrandom never comes back short of that. */
		ssize_t n = getrandom(buf, MIN(c.in.len, sizeof(buf)), 0);

		virtq_push(q, c.head, n > 0 ? sg_write(&c.in, buf, n) : 0);
	}
	virtq_flush(q);
	if (rc)
		virtio_broken(v, "request queue: malformed chain");
}

static void rng_destroy(struct virtio *v)
{
	virtio_fini(v);
	free(container_of(v, struct rng, v));
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

	if (rc)
		free(rng);
	else
		*out = &rng->v;
	return rc;
}
