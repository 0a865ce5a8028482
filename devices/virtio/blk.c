/* blk.c: virtio block device (virtio 1.2, 5.2). */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include "devices/block/blk.h"
#include "devices/virtio/virtio.h"
#include "vmm/core/limit.h"
#include "vmm/core/log.h"
#include "vmm/core/state.h"

enum {
	QUEUE_SIZE = VIRTQ_MAX,
	REQUESTS = QUEUE_SIZE + 1,	/* one to look with, also when all others are in flight */
	SEG_MAX = CHAIN_MAX - 4,	/* header, status, and two cuts at a region's end */
	SIZE_MAX_BYTES = 256 * KIB,
	MAX_DISCARD_SECTORS = (1U << 30) / BLK_SECTOR,
	/* A guest's reset waits for what is in flight: this much, and one request more. */
	REQUEST_MAX = SEG_MAX * SIZE_MAX_BYTES, IN_FLIGHT_MAX = 64 * MIB,
};

struct request {
	struct blk_req blk;
	struct blk_queue *queue;
	struct chain chain;
	u8 *status;
	u32 bytes;			/* of data, also of zeroes */
	u32 written;			/* into the chain, on success, status included */
	int op;				/* enum blk_op, what the driver asked for; -1: nothing such */
	u64 len, taken_ns;		/* of the disk; when it was taken off the queue */
	struct request *next;
};

/* All on the queue's loop, but for forget. */
struct blk_queue {
	struct virtio_blk *dev;
	struct virtq *vq;
	struct kick *kick;
	struct loop_hook hook;
	struct timer timer;		/* the limit allows more */
	struct limit_user turn;
	struct request *answered;	/* these wait for virtq_flush */
	struct disk_counters *counters;
	struct metric_set metrics;
	u64 now_ns;			/* when the driver's kick was seen */
	bool held_back;			/* the queue has more: when fewer bytes are in flight */
	unsigned in_flight;
	u64 bytes_in_flight;
	struct request *free, *pool;	/* last in, first out: few are ever touched */
	unsigned nr_used;		/* of pool, never on the free list before */
	struct request *failed;		/* kept for a resume... */
	struct request *reread;		/* the same, of a VM that was saved: only the chains */
	bool retry;			/* the resume that was waited for */
};

struct virtio_blk {
	struct virtio v;
	struct blk *blk;
	struct virtio_blk_config config;
	char serial[VIRTIO_BLK_ID_BYTES];
	struct limit *limit;		/* NULL: none */
	bool write_through;		/* what the driver finds after a reset */
	bool no_flush, stop_on_error;
	bool write_back;		/* atomic */
	struct blk_queue queue[];
};

/* One of each for an operation. */
struct disk_counters {
	u64 requests[BLK_NR_OPS], bytes[BLK_NR_OPS], errors[BLK_NR_OPS];
	struct histogram latency[BLK_NR_OPS];
	u64 invalid, kicks, empty, throttled, released, held_back, waiting;
};

/* NULL: more in flight than the queue has entries; only a driver that offers a
 * head twice gets there. */
static struct request *request_get(struct blk_queue *q)
{
	struct request *r = q->free;

	if (r) {
		q->free = r->next;
	} else if (q->nr_used < REQUESTS) {
		r = &q->pool[q->nr_used++];
		r->queue = q;
	}
	return r;
}

static void request_put(struct request *r)
{
	r->next = r->queue->free;
	r->queue->free = r;
}

static void count_answer(const struct request *r, u8 status)
{
	struct disk_counters *n = r->queue->counters;

	if (r->op >= 0) {
		counter_add(&n->requests[r->op], 1);
		if (status == VIRTIO_BLK_S_OK)
			counter_add(&n->bytes[r->op], r->len);
		else
			counter_add(&n->errors[r->op], 1);
	} else if (status != VIRTIO_BLK_S_OK) {
		counter_add(&n->invalid, 1);
	}
}

static void finish(struct request *r, u8 status)
{
	struct blk_queue *q = r->queue;

	*r->status = status;
	virtq_push(q->vq, r->chain.head, status == VIRTIO_BLK_S_OK ? r->written : 1);
	count_answer(r, status);
	r->next = q->answered;
	q->answered = r;
}

static void set_cache(struct virtio_blk *d, bool write_back)
{
	d->config.wce = write_back;
	store_once(&d->write_back, write_back);
}

static void request_done(struct blk_req *b, int res);

static int send(struct request *r)
{
	struct blk_queue *q = r->queue;
	int rc;

	q->in_flight++;
	q->bytes_in_flight += r->bytes;
	rc = blk_submit(q->dev->blk, q->kick->io.aio, &r->blk);
	if (rc) {
		q->in_flight--;
		q->bytes_in_flight -= r->bytes;
	}
	return rc;
}

/* The host could not: keep the request, and have the machine pause. */
static void keep_for_resume(struct request *r, int res)
{
	static const char *const name[] = {
		[BLK_READ] = "read", [BLK_WRITE] = "write", [BLK_FLUSH] = "flush",
		[BLK_DISCARD] = "discard", [BLK_ZERO] = "write of zeroes",
	};
	struct blk_queue *q = r->queue;
	struct platform *p = q->dev->v.platform;

	if (!q->failed)
		log_warn("%s: %s at %llu failed: %s; the VM pauses, and tries again when resumed",
			 q->dev->v.dev.name, name[r->blk.op], (unsigned long long)r->blk.offset,
			 strerror(-res));
	r->next = q->failed;
	q->failed = r;
	p->event(p, MACHINE_IO_ERROR, 0);
}

/* By whoever pauses the machine, and tries again. */
static bool may_be_mended(int res)
{
	return res != -EPERM && res != -EINVAL && res != -EROFS && res != -ENOTRECOVERABLE;
}

static void request_done(struct blk_req *b, int res)
{
	struct request *r = container_of(b, struct request, blk);
	struct blk_queue *q = r->queue;

	q->in_flight--;
	q->bytes_in_flight -= r->bytes;
	if (q->held_back && q->bytes_in_flight <= IN_FLIGHT_MAX / 2) {
		q->held_back = false;
		virtio_notify(&q->dev->v, q->vq->index);
	}
	if (!res && (b->op == BLK_WRITE || b->op == BLK_ZERO) &&
	    !load_once(&q->dev->write_back) && !q->dev->no_flush) {
		b->op = BLK_FLUSH;
		res = send(r);
		if (!res)
			return;
	}
	if (res && q->dev->stop_on_error && may_be_mended(res))
		keep_for_resume(r, res);
	else
		finish(r, res ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
}

static bool flush_answers(struct loop_hook *h)
{
	struct blk_queue *q = container_of(h, struct blk_queue, hook);
	struct request *r;
	u64 now;

	if (!q->answered)
		return false;
	virtq_flush(q->vq);
	now = now_ns();		/* once for all of them: the driver hears of them now */
	while ((r = q->answered)) {
		q->answered = r->next;
		if (r->op >= 0)
			histogram_add(&q->counters->latency[r->op], now - r->taken_ns);
		request_put(r);
	}
	return false;
}

static void submit(struct request *r, enum blk_op op)
{
	r->blk.op = op;
	r->op = op;
	r->len = r->blk.len;
	r->blk.done = request_done;
	if (send(r)) {
		r->op = -1;	/* outside the disk, or it is read-only: no fault of the host's */
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

/* What the user switched off a driver cannot have by just asking. */
static bool is_offered(const struct request *r, unsigned feature)
{
	return r->queue->dev->v.offered >> feature & 1;
}

static void discard_or_zero(struct request *r, enum blk_op op)
{
	struct virtio_blk_discard_write_zeroes seg;
	u32 flags, sectors;

	if (!is_offered(r, op == BLK_DISCARD ? VIRTIO_BLK_F_DISCARD : VIRTIO_BLK_F_WRITE_ZEROES)) {
		finish(r, VIRTIO_BLK_S_UNSUPP);
		return;
	}
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
	if (op == BLK_ZERO) {
		r->bytes = r->blk.len;	/* a host that has nothing better writes them */
		if (r->queue->dev->limit)
			limit_charge(r->queue->dev->limit, r->blk.len);
	}
	/* A disk that is to keep its space was not offered for discarding. */
	r->blk.unmap = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP &&
		       r->queue->dev->config.write_zeroes_may_unmap;
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
	r->op = -1;
	r->taken_ns = r->queue->now_ns;
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
		r->written = sg_write(&r->chain.in, r->queue->dev->serial, VIRTIO_BLK_ID_BYTES) + 1;
		finish(r, VIRTIO_BLK_S_OK);
		break;
	default:
		finish(r, VIRTIO_BLK_S_UNSUPP);
	}
	return true;
}

/* The limit says not yet: a timer asks again.  The header and the status are free. */
static bool limited(struct blk_queue *q, const struct chain *c)
{
	size_t len = c->in.len + c->out.len, own = sizeof(struct virtio_blk_outhdr) + 1;
	u64 wait;

	if (!q->dev->limit || !load_once(&q->dev->limit->on))
		return false;		/* without asking what time it is */
	wait = limit_take_turn(q->dev->limit, &q->turn, len > own ? len - own : 0, now_ns());
	if (wait) {
		counter_add(&q->counters->throttled, 1);
		timer_start(&q->timer, q->kick->io.loop, wait);
	}
	return wait;
}

static void broken(struct blk_queue *q, bool malformed)
{
	virtio_broken(&q->dev->v, malformed ? "malformed chain" :
		      "request without a header or room for its status");
}

static void retry_failed(struct blk_queue *q)
{
	struct request *r = q->failed, *reread = q->reread, *next;
	struct chain again;
	int rc;

	q->failed = q->reread = NULL;
	q->retry = false;
	/* Walked once more: who saved the memory meanwhile is to know what is written to from then on. */
	for (; r; r = next) {
		next = r->next;
		(void)!virtq_walk(q->vq, r->chain.head, &again);
		if (send(r))
			finish(r, VIRTIO_BLK_S_IOERR);
	}
	for (r = reread; r; r = next) {
		next = r->next;
		rc = virtq_walk(q->vq, r->chain.head, &r->chain);
		if (!rc && handle(r))
			continue;
		request_put(r);
		broken(q, rc);
	}
}

static void count_held_back(struct blk_queue *q)
{
	unsigned n = virtq_waiting(q->vq);

	counter_add(&q->counters->held_back, n > 0);
	counter_add(&q->counters->waiting, n);
}

static void take_requests(struct blk_queue *q)
{
	struct request *r;

	for (;;) {
		int rc;

		q->held_back = q->bytes_in_flight > IN_FLIGHT_MAX;
		if (q->held_back) {
			count_held_back(q);
			return;
		}
		if (q->timer.loop || !(r = request_get(q)))
			return;
		rc = virtq_pop(q->vq, &r->chain);
		if (rc > 0 && limited(q, &r->chain)) {
			virtq_unpop(q->vq);
			counter_add(&q->counters->waiting, virtq_waiting(q->vq));
			request_put(r);
			return;
		}
		if (rc > 0 && handle(r))
			continue;
		request_put(r);
		if (rc)
			broken(q, rc < 0);
		return;
	}
}

static void leave_limit(struct blk_queue *q)
{
	if (q->dev->limit)
		limit_leave(q->dev->limit, &q->turn);
}

static void blk_kick(struct virtio *v, struct virtq *vq)
{
	struct blk_queue *q = &container_of(v, struct virtio_blk, v)->queue[vq->index];
	u16 next = vq->next_avail;

	q->now_ns = now_ns();
	counter_add(&q->counters->kicks, 1);
	if (q->retry)
		retry_failed(q);
	take_requests(q);
	counter_add(&q->counters->empty, vq->next_avail == next && !q->timer.loop && !q->held_back);
	if (!q->timer.loop)
		leave_limit(q);
}

static void limit_allows(struct timer *t)
{
	struct blk_queue *q = container_of(t, struct blk_queue, timer);

	counter_add(&q->counters->released, 1);
	virtio_notify(&q->dev->v, q->vq->index);
}

/* A driver that cannot flush has no cache, unless it asks for one (5.2.5.2). */
static void blk_negotiated(struct virtio *v)
{
	if (!virtio_has(v, VIRTIO_BLK_F_FLUSH))
		set_cache(container_of(v, struct virtio_blk, v), false);
}

static int blk_start(struct virtio *v)
{
	struct virtio_blk *d = container_of(v, struct virtio_blk, v);

	for (unsigned i = 0; i < v->nr_queues; i++)
		d->queue[i].retry = d->queue[i].failed || d->queue[i].reread;
	return 0;
}

static void blk_drain(struct virtio *v, struct virtq *vq)
{
	struct blk_queue *q = &container_of(v, struct virtio_blk, v)->queue[vq->index];

	timer_stop(&q->timer);
	leave_limit(q);
	if (q->in_flight)
		aio_drain(q->kick->io.aio, &q->in_flight);
	flush_answers(&q->hook);
}

static void blk_forget(struct virtio *v, struct virtq *vq)
{
	struct virtio_blk *d = container_of(v, struct virtio_blk, v);
	struct blk_queue *q = &d->queue[vq->index];
	struct request *r;

	while ((r = q->failed)) {
		q->failed = r->next;
		request_put(r);
	}
	while ((r = q->reread)) {
		q->reread = r->next;
		request_put(r);
	}
	/* Only a reset takes all queues back. */
	if (!(v->status & VIRTIO_CONFIG_S_DRIVER_OK))
		set_cache(d, !d->write_through);
}

static bool blk_config_write(struct virtio *v, u64 offset, unsigned size, u64 value)
{
	struct virtio_blk *d = container_of(v, struct virtio_blk, v);

	if (offset != offsetof(struct virtio_blk_config, wce) || size != 1 ||
	    !virtio_has(v, VIRTIO_BLK_F_CONFIG_WCE))
		return false;
	set_cache(d, value & 1);
	return true;
}

/* What failed on the old host is tried again on the new one, from its start. */
static void load_failed(struct blk_queue *q, struct state *s, const u16 *head, unsigned nr)
{
	for (unsigned i = 0; i < nr && !state_failed(s); i++) {
		struct request *r = request_get(q);

		if (!r || virtq_walk(q->vq, le16toh(head[i]), &r->chain)) {
			state_fail(s, "failed: no request at %u", le16toh(head[i]));
			if (r)
				request_put(r);
			continue;
		}
		r->next = q->reread;
		q->reread = r;
	}
}

static void blk_state(struct virtio *v, struct state *s)
{
	struct virtio_blk *d = container_of(v, struct virtio_blk, v);
	u64 capacity = d->config.capacity;
	bool write_back = load_once(&d->write_back);

	state_bool(s, "write-back", &write_back);
	set_cache(d, write_back);
	state_u64(s, "sectors", &capacity);
	if (capacity != d->config.capacity)
		state_fail(s, "a disk of %llu sectors; here it has %llu", (unsigned long long)capacity,
			   (unsigned long long)d->config.capacity);
	for (unsigned i = 0; i < v->nr_queues; i++) {
		struct blk_queue *q = &d->queue[i];
		u16 head[REQUESTS];
		size_t len = 0;

		for (struct request *r = q->failed; r; r = r->next, len += 2)
			head[len / 2] = htole16(r->chain.head);
		for (struct request *r = q->reread; r; r = r->next, len += 2)
			head[len / 2] = htole16(r->chain.head);
		state_enter(s, "failed", i);
		state_some_bytes(s, "heads", head, &len, sizeof(head));
		state_leave(s);
		/* Whose queue is broken has no requests any more. */
		if (state_loading(s) && v->started)
			load_failed(q, s, head, len / 2);
	}
}

static void remove_hook(void *arg)
{
	struct blk_queue *q = arg;

	loop_remove_hook(q->kick->io.loop, &q->hook);
}

static void blk_destroy(struct virtio *v)
{
	struct virtio_blk *d = container_of(v, struct virtio_blk, v);

	for (unsigned i = 0; i < v->nr_queues; i++) {
		/* The loop may be walking its hooks. */
		if (d->queue[i].hook.before_sleep)
			loop_call(v->kick[i].io.loop, remove_hook, &d->queue[i]);
		metrics_remove(&d->queue[i].metrics);
		free(d->queue[i].counters);
		free(d->queue[i].pool);
	}
	virtio_fini(v);
	free(d);
}

static const struct virtio_ops blk_ops = {
	.kind = "virtio-blk", .id = VIRTIO_ID_BLOCK, .queue_size = QUEUE_SIZE,
	.config_len = sizeof(struct virtio_blk_config),
	.negotiated = blk_negotiated,
	.start = blk_start,
	.kick = blk_kick,
	.drain = blk_drain,
	.forget = blk_forget,
	.state = blk_state,
	.config_write = blk_config_write,
	.destroy = blk_destroy,
};

/* --- what is counted ----------------------------------------------------------------- */

#define OP_ROW(name, label, field, op, ...) \
	{ name, "op=\"" label "\"", .offset = offsetof(struct disk_counters, field[op]), __VA_ARGS__ }
#define OP_ROWS(name, field, ...) \
	OP_ROW(name, "read", field, BLK_READ, __VA_ARGS__), \
	OP_ROW(name, "write", field, BLK_WRITE, __VA_ARGS__), \
	OP_ROW(name, "flush", field, BLK_FLUSH, __VA_ARGS__), \
	OP_ROW(name, "discard", field, BLK_DISCARD, __VA_ARGS__), \
	OP_ROW(name, "write_zeroes", field, BLK_ZERO, __VA_ARGS__)

static const struct metric disk_metric[] = {
	OP_ROWS("disk_requests_total", requests, .help = "Requests that were answered"),
	OP_ROWS("disk_bytes_total", bytes, .help = "Of the disk, that requests were about"),
	OP_ROWS("disk_errors_total", errors, .help = "Requests that the host could not do"),
	OP_ROWS("disk_latency_seconds", latency, .kind = METRIC_HISTOGRAM,
		.help = "From when a request was taken off the queue to its answer"),
	{ "disk_invalid_requests_total", NULL, "Requests that were refused",
	  .offset = offsetof(struct disk_counters, invalid) },
	{ "disk_kicks_total", NULL, "How often the driver's notification was seen",
	  .offset = offsetof(struct disk_counters, kicks) },
	{ "disk_throttled_total", NULL, "How often the limit made requests wait",
	  .offset = offsetof(struct disk_counters, throttled) },
	{ "disk_released_total", NULL, "How often the limit let go on what waited for it",
	  .offset = offsetof(struct disk_counters, released) },
	{ "disk_held_back_total", NULL, "How often requests waited because others are that many bytes",
	  .offset = offsetof(struct disk_counters, held_back) },
	{ "disk_left_total", NULL, "Requests that were in the queue when that, or the limit, began",
	  .offset = offsetof(struct disk_counters, waiting) },
	{ "disk_empty_kicks_total", NULL, "Notifications of nothing",
	  .offset = offsetof(struct disk_counters, empty) },
};
static const struct metric_table disk_table = { "device", disk_metric, ARRAY_SIZE(disk_metric) };

/* --- what the driver is told ------------------------------------------------------------- */

static void fill_config(struct virtio_blk *d, const struct blk_info *info)
{
	struct virtio_blk_config *c = &d->config;
	u32 block = info->physical_block;

	c->capacity = htole64(info->size / BLK_SECTOR);
	c->size_max = htole32(SIZE_MAX_BYTES);
	c->seg_max = htole32(SEG_MAX);
	c->blk_size = htole32(BLK_SECTOR);
	for (; block > BLK_SECTOR; block /= 2)
		c->physical_block_exp++;
	c->alignment_offset = info->alignment_offset / BLK_SECTOR;
	c->min_io_size = htole16(MIN(info->min_io, 65535 * BLK_SECTOR) / BLK_SECTOR);
	c->opt_io_size = htole32(info->opt_io / BLK_SECTOR);
	c->num_queues = htole16(d->v.nr_queues);
	c->max_discard_sectors = htole32(MAX_DISCARD_SECTORS);
	c->max_discard_seg = htole32(1);
	c->discard_sector_alignment = htole32(info->discard_granularity / BLK_SECTOR);
	c->max_write_zeroes_sectors = htole32(MAX_DISCARD_SECTORS);
	c->max_write_zeroes_seg = htole32(1);
}

void virtio_blk_resized(struct virtio *v)
{
	struct virtio_blk *d = container_of(v, struct virtio_blk, v);

	pthread_mutex_lock(&v->dev.lock);
	d->config.capacity = htole64(blk_info(d->blk).size / BLK_SECTOR);
	virtio_config_changed(v);
	pthread_mutex_unlock(&v->dev.lock);
}

void virtio_blk_replaced(struct virtio *v, struct blk *blk)
{
	container_of(v, struct virtio_blk, v)->blk = blk;
	virtio_blk_resized(v);
}

static u64 features(const struct blk_info *info, const struct virtio_blk_options *o)
{
	u64 f = 1ULL << VIRTIO_BLK_F_SIZE_MAX | 1ULL << VIRTIO_BLK_F_SEG_MAX |
		1ULL << VIRTIO_BLK_F_BLK_SIZE | 1ULL << VIRTIO_BLK_F_TOPOLOGY;

	if (!o->no_flush)
		f |= 1ULL << VIRTIO_BLK_F_FLUSH;
	if (o->nr_queues > 1)
		f |= 1ULL << VIRTIO_BLK_F_MQ;
	if (info->read_only)
		return f | 1ULL << VIRTIO_BLK_F_RO;
	if (!o->no_flush)
		f |= 1ULL << VIRTIO_BLK_F_CONFIG_WCE;
	if (o->discard && info->can_discard)
		f |= 1ULL << VIRTIO_BLK_F_DISCARD;
	if (o->write_zeroes && info->can_discard)
		f |= 1ULL << VIRTIO_BLK_F_WRITE_ZEROES;
	return f;
}

static int init_queue(struct virtio_blk *d, unsigned i, const struct virtio_blk_options *o)
{
	struct blk_queue *q = &d->queue[i];

	q->dev = d;
	q->vq = &d->v.vq[i];
	q->kick = &d->v.kick[i];
	q->timer.fire = limit_allows;
	if (o->nr_io)
		q->kick->io = o->io[i % o->nr_io];
	q->pool = calloc(REQUESTS, sizeof(*q->pool));
	q->counters = counters_new(sizeof(*q->counters));
	if (!q->pool || !q->counters)
		return -ENOMEM;
	q->metrics = (struct metric_set){ .table = &disk_table, .owner = d->v.dev.name,
					  .counters = q->counters };
	metrics_add(d->v.platform->metrics, &q->metrics);
	/* No loop runs yet. */
	q->hook.before_sleep = flush_answers;
	loop_add_hook(q->kick->io.loop, &q->hook);
	return 0;
}

int virtio_blk_new(struct platform *p, const char *name, struct blk *blk,
		   const struct virtio_blk_options *o, struct virtio **out, struct err *err)
{
	struct virtio_blk *d = calloc(1, sizeof(*d) + o->nr_queues * sizeof(d->queue[0]));
	struct blk_info info = blk_info(blk);
	int rc;

	if (!d)
		return err_set(err, -ENOMEM, "%s: out of memory", name);
	rc = virtio_init(&d->v, &blk_ops, o->nr_queues, p, name, features(&info, o), err);
	if (rc) {
		free(d);
		return rc;
	}
	d->blk = blk;
	d->limit = o->limit;
	d->write_through = o->write_through;
	d->no_flush = o->no_flush;
	d->stop_on_error = o->stop_on_error;
	d->v.config = &d->config;
	fill_config(d, &info);
	set_cache(d, !o->write_through);
	d->config.write_zeroes_may_unmap = o->discard;
	memcpy(d->serial, o->serial, strnlen(o->serial, sizeof(d->serial)));
	for (unsigned i = 0; i < o->nr_queues && !rc; i++)
		rc = init_queue(d, i, o);
	if (rc) {
		blk_destroy(&d->v);
		return err_set(err, rc, "%s: out of memory", name);
	}
	*out = &d->v;
	return 0;
}
