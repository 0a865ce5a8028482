/* blk.c: virtio block device (virtio 1.2, 5.2). */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include "devices/block/blk.h"
#include "devices/virtio/virtio.h"

enum {
	QUEUE_SIZE = VIRTQ_MAX,
	SEG_MAX = CHAIN_MAX - 4,	/* header, status, and two cuts at a region's end */
	SIZE_MAX_BYTES = 256 * KIB,
	MAX_DISCARD_SECTORS = (1U << 30) / BLK_SECTOR,
	/* A guest's reset waits for what is in flight: this much, and one request more. */
	REQUEST_MAX = SEG_MAX * SIZE_MAX_BYTES, IN_FLIGHT_MAX = 64 * MIB,
};

struct request {
	struct blk_req blk;
	struct virtio_blk *dev;
	struct chain chain;
	u8 *status;
	u32 bytes;			/* of data */
	u32 written;			/* into the chain, on success, status included */
	struct request *next;
};

struct virtio_blk {
	struct virtio v;
	struct blk *blk;
	struct virtio_blk_config config;
	char serial[VIRTIO_BLK_ID_BYTES];
	struct loop_hook hook;
	bool staged;			/* answers wait for virtq_flush */
	unsigned in_flight;
	u64 bytes_in_flight;
	bool held_back;			/* the queue has more: when fewer bytes are in flight */
	struct request *free, *pool;	/* last in, first out: few are ever touched */
	unsigned nr_used;		/* of pool, never on the free list before */
};

/* NULL: as many in flight as the queue has entries; only a driver that offers
 * a head twice gets there. */
static struct request *request_get(struct virtio_blk *d)
{
	struct request *r = d->free;

	if (r) {
		d->free = r->next;
	} else if (d->nr_used < QUEUE_SIZE) {
		r = &d->pool[d->nr_used++];
		r->dev = d;
	}
	return r;
}

static void request_put(struct request *r)
{
	r->next = r->dev->free;
	r->dev->free = r;
}

static void finish(struct request *r, u8 status)
{
	struct virtio_blk *d = r->dev;

	*r->status = status;
	virtq_push(&d->v.vq[0], r->chain.head, status == VIRTIO_BLK_S_OK ? r->written : 1);
	d->staged = true;
	request_put(r);
}

static void request_done(struct blk_req *b, int res)
{
	struct request *r = container_of(b, struct request, blk);
	struct virtio_blk *d = r->dev;

	d->in_flight--;
	d->bytes_in_flight -= r->bytes;
	if (d->held_back && d->bytes_in_flight <= IN_FLIGHT_MAX / 2) {
		d->held_back = false;
		virtio_notify(&d->v, 0);
	}
	finish(r, res ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
}

static bool flush_answers(struct loop_hook *h)
{
	struct virtio_blk *d = container_of(h, struct virtio_blk, hook);

	if (d->staged)
		virtq_flush(&d->v.vq[0]);
	d->staged = false;
	return false;
}

static void submit(struct request *r, enum blk_op op)
{
	struct virtio_blk *d = r->dev;

	r->blk.op = op;
	r->blk.done = request_done;
	d->in_flight++;
	d->bytes_in_flight += r->bytes;
	if (blk_submit(d->blk, d->v.platform->aio, &r->blk)) {
		d->in_flight--;
		d->bytes_in_flight -= r->bytes;
		finish(r, VIRTIO_BLK_S_IOERR);
	}
}

static void read_or_write(struct request *r, u64 sector, enum blk_op op)
{
	struct sg *data = op == BLK_READ ? &r->chain.in : &r->chain.out;

	if (!data->len || data->len > REQUEST_MAX || data->len % BLK_SECTOR || sector > UINT64_MAX / BLK_SECTOR) {
		finish(r, VIRTIO_BLK_S_IOERR);
		return;
	}
	r->written = op == BLK_READ ? data->len + 1 : 1;
	r->blk.offset = sector * BLK_SECTOR;
	r->blk.len = data->len;
	r->blk.iov = data->iov;
	r->blk.nr_iov = data->nr;
	r->bytes = data->len;
	submit(r, op);
}

static void discard_or_zero(struct request *r, enum blk_op op)
{
	struct virtio_blk_discard_write_zeroes seg;
	u32 flags, sectors;

	if (r->chain.out.len != sizeof(seg)) {	/* one segment: max_*_seg say so */
		finish(r, VIRTIO_BLK_S_IOERR);
		return;
	}
	sg_read(&r->chain.out, &seg, sizeof(seg));
	flags = le32toh(seg.flags);
	sectors = le32toh(seg.num_sectors);
	if (flags & ~VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP || (op == BLK_DISCARD && flags)) {
		finish(r, VIRTIO_BLK_S_UNSUPP);
		return;
	}
	if (!sectors || sectors > MAX_DISCARD_SECTORS ||
	    le64toh(seg.sector) > UINT64_MAX / BLK_SECTOR) {
		finish(r, VIRTIO_BLK_S_IOERR);
		return;
	}
	r->blk.offset = le64toh(seg.sector) * BLK_SECTOR;
	r->blk.len = (u64)sectors * BLK_SECTOR;
	r->blk.unmap = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
	submit(r, op);
}

/* False: the chain has no room for an answer, so there is nobody to answer. */
static bool handle(struct request *r)
{
	struct virtio_blk_outhdr hdr;

	r->status = sg_take_last(&r->chain.in);
	if (!r->status || sg_read(&r->chain.out, &hdr, sizeof(hdr)) != sizeof(hdr))
		return false;
	memset(&r->blk, 0, sizeof(r->blk));
	r->written = 1;
	r->bytes = 0;
	switch (le32toh(hdr.type)) {
	case VIRTIO_BLK_T_IN:
		read_or_write(r, le64toh(hdr.sector), BLK_READ);
		break;
	case VIRTIO_BLK_T_OUT:
		read_or_write(r, le64toh(hdr.sector), BLK_WRITE);
		break;
	case VIRTIO_BLK_T_FLUSH:
		submit(r, BLK_FLUSH);
		break;
	case VIRTIO_BLK_T_DISCARD:
		discard_or_zero(r, BLK_DISCARD);
		break;
	case VIRTIO_BLK_T_WRITE_ZEROES:
		discard_or_zero(r, BLK_ZERO);
		break;
	case VIRTIO_BLK_T_GET_ID:
		r->written = sg_write(&r->chain.in, r->dev->serial, sizeof(r->dev->serial)) + 1;
		finish(r, VIRTIO_BLK_S_OK);
		break;
	default:
		finish(r, VIRTIO_BLK_S_UNSUPP);
	}
	return true;
}

static void blk_kick(struct virtio *v, struct virtq *q)
{
	struct virtio_blk *d = container_of(v, struct virtio_blk, v);
	struct request *r;

	for (;;) {
		int rc;

		d->held_back = d->bytes_in_flight > IN_FLIGHT_MAX;
		if (d->held_back || !(r = request_get(d)))
			return;
		rc = virtq_pop(q, &r->chain);
		if (rc > 0 && handle(r))
			continue;
		request_put(r);
		if (rc)
			virtio_broken(v, rc < 0 ? "malformed chain" :
				      "request without a header or room for its status");
		return;
	}
}

static void blk_stop(struct virtio *v)
{
	struct virtio_blk *d = container_of(v, struct virtio_blk, v);

	if (d->in_flight)
		aio_drain(v->platform->aio, &d->in_flight);
	flush_answers(&d->hook);
}

static void remove_hook(void *arg)
{
	struct virtio_blk *d = arg;

	loop_remove_hook(d->v.platform->io_loop, &d->hook);
}

static void blk_destroy(struct virtio *v)
{
	struct virtio_blk *d = container_of(v, struct virtio_blk, v);

	/* The loop may be walking its hooks. */
	loop_call(v->platform->io_loop, remove_hook, d);
	virtio_fini(v);
	free(d->pool);
	free(d);
}

static const struct virtio_ops blk_ops = {
	.kind = "virtio-blk", .id = VIRTIO_ID_BLOCK, .nr_queues = 1, .queue_size = QUEUE_SIZE,
	.config_len = sizeof(struct virtio_blk_config),
	.stop = blk_stop,
	.kick = blk_kick,
	.destroy = blk_destroy,
};

static void fill_config(struct virtio_blk_config *c, const struct blk_info *info)
{
	u32 block = info->physical_block;

	c->capacity = htole64(info->size / BLK_SECTOR);
	c->size_max = htole32(SIZE_MAX_BYTES);
	c->seg_max = htole32(SEG_MAX);
	c->blk_size = htole32(BLK_SECTOR);
	while (block > BLK_SECTOR) {
		c->physical_block_exp++;
		block /= 2;
	}
	c->num_queues = htole16(1);
	c->max_discard_sectors = htole32(MAX_DISCARD_SECTORS);
	c->max_discard_seg = htole32(1);
	c->discard_sector_alignment = htole32(info->physical_block / BLK_SECTOR);
	c->max_write_zeroes_sectors = htole32(MAX_DISCARD_SECTORS);
	c->max_write_zeroes_seg = htole32(1);
	c->write_zeroes_may_unmap = 1;
}

int virtio_blk_new(struct platform *p, const char *name, struct blk *blk, const char *serial,
		   struct virtio **out, struct err *err)
{
	struct virtio_blk *d = calloc(1, sizeof(*d));
	struct blk_info info = blk_info(blk);
	u64 features = 1ULL << VIRTIO_BLK_F_SIZE_MAX | 1ULL << VIRTIO_BLK_F_SEG_MAX |
		       1ULL << VIRTIO_BLK_F_BLK_SIZE | 1ULL << VIRTIO_BLK_F_FLUSH |
		       1ULL << VIRTIO_BLK_F_TOPOLOGY;
	int rc;

	if (!d || !(d->pool = calloc(QUEUE_SIZE, sizeof(*d->pool)))) {
		free(d);
		return err_set(err, -ENOMEM, "%s: out of memory", name);
	}
	if (info.read_only)
		features |= 1ULL << VIRTIO_BLK_F_RO;
	else if (info.can_discard)
		features |= 1ULL << VIRTIO_BLK_F_DISCARD | 1ULL << VIRTIO_BLK_F_WRITE_ZEROES;
	rc = virtio_init(&d->v, &blk_ops, p, name, features, err);
	if (rc) {
		free(d->pool);
		free(d);
		return rc;
	}
	d->blk = blk;
	d->v.config = &d->config;
	fill_config(&d->config, &info);
	memcpy(d->serial, serial, strnlen(serial, sizeof(d->serial)));
	d->hook.before_sleep = flush_answers;
	loop_add_hook(p->io_loop, &d->hook);
	*out = &d->v;
	return 0;
}
