/*
 * virtio_blk_queues_test.c: several queues on threads of their own, all busy, stopped and reset at any time, against
 * a plain array.
 *
 *   QUEUES_SEED, QUEUES_REQUESTS (for each shape)
 */
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <pthread.h>
#include <sched.h>
#include "tests/lib/recorder.h"
#include "tests/lib/test.h"
#include "tests/lib/vblk.h"

enum {
	IN = VIRTIO_BLK_T_IN, OUT = VIRTIO_BLK_T_OUT, FLUSH = VIRTIO_BLK_T_FLUSH,
	DISCARD = VIRTIO_BLK_T_DISCARD, ZEROES = VIRTIO_BLK_T_WRITE_ZEROES,
	OK = VIRTIO_BLK_S_OK,
	/* Of the disk: a request has one to itself.  No multiple of any cluster. */
	REGION = 81 * 1024, REGIONS = 100, DISK = REGION * REGIONS,
};

static struct vblk_setup shapes[] = {
	{ .engine = AIO_THREADS, .nr_loops = 4, .o.nr_queues = 4 },
	{ .engine = AIO_AUTO, .nr_loops = 2, .o.nr_queues = 4 },
	{ .engine = AIO_THREADS, .format = "qcow2", .cluster = 65536, .nr_loops = 4, .o.nr_queues = 4 },
	{ .engine = AIO_AUTO, .format = "qcow2", .cluster = 4096, .below = true, .nr_loops = 3,
	  .o.nr_queues = 4 },
	{ .engine = AIO_THREADS, .format = "qcow2", .cluster = 65536, .below = true, .nr_loops = 2,
	  .o.nr_queues = 3, .o.write_through = true },
	{ .engine = AIO_AUTO, .format = "qcow2", .cluster = 512, .nr_loops = 2, .o.nr_queues = 2 },
	{ .engine = AIO_THREADS, .format = "qcow2", .cluster = 2 * MIB, .below = true, .nr_loops = 4,
	  .o.nr_queues = 4 },
};

/* What a slot's request is about, for when it is answered. */
struct work {
	u32 type;
	int region;			/* -1: none */
	u64 offset;
	u32 len;
	u8 *data;
	bool pinning;			/* a read that finds out what an unsure one before it did... */
	u32 unsure;			/* ...which was this */
};

static struct vblk vblk;
static struct work work[VBLK_QUEUES][VBLK_SLOTS];
static bool taken[REGIONS];
static u8 *model;
static u64 seed, requests;

/* --- traffic ------------------------------------------------------------------------------- */

static int free_region(void)
{
	int n = draw(&seed) % REGIONS;

	while (taken[n])
		n = (n + 1) % REGIONS;
	taken[n] = true;
	return n;
}

static void offer(unsigned q, unsigned n)
{
	static const u32 types[] = { IN, IN, IN, OUT, OUT, OUT, OUT, ZEROES, DISCARD, FLUSH };
	struct work *w = &work[q][n];
	u64 in = draw(&seed) % (REGION / 512) * 512;

	w->type = types[draw(&seed) % ARRAY_SIZE(types)];
	w->pinning = false;
	w->region = -1;
	if (w->type == FLUSH) {
		vblk_offer(&vblk, q, n, FLUSH, 0, 0);
		return;
	}
	w->region = free_region();
	w->offset = (u64)w->region * REGION + in;
	w->len = 512 + draw(&seed) % ((REGION - in) / 512) * 512;
	if (draw(&seed) & 1)
		w->len = MIN(w->len, 4096);
	if (w->type == OUT) {
		for (u32 i = 0; i < w->len; i += 8) {
			u64 word = draw(&seed);

			memcpy(w->data + i, &word, 8);
		}
		vblk_put(&vblk, q, n, w->data, w->len);
	} else if (w->type != IN) {
		struct virtio_blk_discard_write_zeroes seg = { w->offset / 512, w->len / 512,
							       w->type == ZEROES && draw(&seed) & 1 };

		vblk_put(&vblk, q, n, &seg, sizeof(seg));
		vblk_offer(&vblk, q, n, w->type, 0, sizeof(seg));
		return;
	}
	vblk_offer(&vblk, q, n, w->type, w->offset / 512, w->len);
}

/* What was it that this one did?  Read it, before anything else uses the region. */
static void offer_pin(unsigned q, unsigned n)
{
	struct work *w = &work[q][n];

	w->unsure = w->type;
	w->type = IN;
	w->pinning = true;
	vblk_offer(&vblk, q, n, IN, w->offset / 512, w->len);
	vblk_kick(&vblk, q);
}

/* All of it, or nothing; but a discard may do what it likes with each sector. */
static void pin(struct work *w, const u8 *got)
{
	static const u8 zeroes[512];
	u8 *at = model + w->offset;

	if (w->unsure == DISCARD) {
		for (u32 i = 0; i < w->len; i += 512)
			if (memcmp(got + i, at + i, 512))
				assert_memory_equal(got + i, zeroes, 512);
	} else if (memcmp(got, at, w->len)) {
		if (w->unsure == ZEROES)
			memset(w->data, 0, w->len);
		assert_memory_equal(got, w->data, w->len);
	}
	memcpy(at, got, w->len);
}

static void answered(unsigned q, unsigned n)
{
	static u8 got[REGION];
	struct work *w = &work[q][n];

	assert_int_equal(vblk.slot[q][n].status, OK);
	if (w->type == DISCARD) {
		offer_pin(q, n);
		return;
	}
	if (w->type == IN) {
		assert_int_equal(vblk.slot[q][n].written, w->len + 1);
		vblk_get(&vblk, q, n, got, w->len);
		if (w->pinning)
			pin(w, got);
		else
			assert_memory_equal(got, model + w->offset, w->len);
	} else if (w->type == OUT) {
		memcpy(model + w->offset, w->data, w->len);
	} else if (w->type == ZEROES) {
		memset(model + w->offset, 0, w->len);
	}
	if (w->region >= 0)
		taken[w->region] = false;
}

static void reap(void)
{
	bool busy[VBLK_QUEUES][VBLK_SLOTS];

	for (unsigned q = 0; q < vblk.nr_queues; q++)
		for (unsigned n = 0; n < VBLK_SLOTS; n++)
			busy[q][n] = vblk.slot[q][n].busy;
	vblk_reap(&vblk);
	for (unsigned q = 0; q < vblk.nr_queues; q++)
		for (unsigned n = 0; n < VBLK_SLOTS; n++)
			if (busy[q][n] && !vblk.slot[q][n].busy)
				answered(q, n);
}

static bool has_room(struct vblk *f)
{
	reap();
	return f->nr_busy < f->nr_queues * VBLK_SLOTS - 4;
}

static bool is_idle(struct vblk *f)
{
	reap();
	return !f->nr_busy;
}

static void offer_some(unsigned nr)
{
	while (nr--) {
		unsigned q = draw(&seed) % vblk.nr_queues, n = 0;

		while (n < VBLK_SLOTS && vblk.slot[q][n].busy)
			n++;
		if (n == VBLK_SLOTS)
			continue;
		offer(q, n);
		if (draw(&seed) % 3)
			vblk_kick(&vblk, q);
	}
	for (unsigned q = 0; q < vblk.nr_queues; q++)
		vblk_kick(&vblk, q);
}

/* --- in the middle of it --------------------------------------------------------------------- */

struct still { u16 used[VBLK_QUEUES]; u64 ops; u8 memory[4096]; };

static void look(struct still *s)
{
	memset(s, 0, sizeof(*s));
	for (unsigned q = 0; q < vblk.nr_queues; q++)
		s->used[q] = ring_used_idx(&vblk.d.ring[q]);
	s->ops = recorder_count(FILE_DATA_OPS);
	assert_int_equal(recorder_held(), 0);
	for (unsigned q = 0; q < vblk.nr_queues; q++)
		for (unsigned n = 0; n < VBLK_SLOTS; n++)
			vblk_get(&vblk, q, n, s->memory + (q * VBLK_SLOTS + n) * 64, 64);
}

static void nothing_moves(void)
{
	static struct still a, b;

	look(&a);
	vblk_settle(&vblk);
	look(&b);
	assert_memory_equal(&a, &b, sizeof(a));
}

/* Whatever the guest does meanwhile waits for the resume, and nothing is lost. */
static void pause_in_traffic(void)
{
	device_quiesce(vblk.dev);
	reap();
	if (draw(&seed) & 1)
		device_quiesce(vblk.dev);
	offer_some(draw(&seed) % 20);
	nothing_moves();
	device_resume(vblk.dev);
	if (draw(&seed) & 1)
		device_resume(vblk.dev);
}

/* What was in flight was done, or not begun; find out. */
static void start_over(bool quiet)
{
	bool was_busy[VBLK_QUEUES][VBLK_SLOTS];

	reap();
	for (unsigned q = 0; q < vblk.nr_queues; q++)
		for (unsigned n = 0; n < VBLK_SLOTS; n++)
			was_busy[q][n] = vblk.slot[q][n].busy;
	vblk_start(&vblk);
	for (unsigned q = 0; q < vblk.nr_queues; q++)
		for (unsigned n = 0; n < VBLK_SLOTS; n++) {
			struct work *w = &work[q][n];

			if (!was_busy[q][n])
				continue;
			if (w->region >= 0 && (w->type != IN || w->pinning)) {
				u32 unsure = w->unsure;
				bool again = w->pinning;

				offer_pin(q, n);
				if (again)
					w->unsure = unsure;
			} else if (w->region >= 0) {
				taken[w->region] = false;
			}
		}
	if (quiet)
		nothing_moves();
}

static void reset_in_traffic(void)
{
	switch (draw(&seed) % 3) {
	case 0:
		start_over(false);
		break;
	case 1:
		device_quiesce(vblk.dev);
		start_over(true);
		device_resume(vblk.dev);
		break;
	case 2:
		device_quiesce(vblk.dev);
		reap();
		driver_set(&vblk.d, VIRTIO_MMIO_STATUS, 0);
		device_resume(vblk.dev);
		nothing_moves();
		start_over(false);
		break;
	}
}

/* --- tests ----------------------------------------------------------------------------------- */

static int setup(void **state)
{
	struct vblk_setup *s = *state;

	s->size = DISK;
	s->features = ~0ULL;
	s->o.discard = s->o.write_zeroes = true;
	model = calloc(1, DISK);
	for (u64 i = 0; i < DISK && s->below; i++)
		model[i] = vblk_below(i);
	memset(taken, 0, sizeof(taken));
	for (unsigned q = 0; q < VBLK_QUEUES; q++)
		for (unsigned n = 0; n < VBLK_SLOTS; n++)
			work[q][n] = (struct work){ .data = malloc(REGION) };
	vblk_new(&vblk, s);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	recorder_hold(0);
	vblk_free(&vblk);
	for (unsigned q = 0; q < VBLK_QUEUES; q++)
		for (unsigned n = 0; n < VBLK_SLOTS; n++)
			free(work[q][n].data);
	free(model);
	return 0;
}

/* By the device; and, once that has closed it, by itself. */
static void compare(void)
{
	struct image_options o = { .format = vblk.setup->format ? vblk.setup->format : "raw",
				   .read_only = true };
	struct image_check c = { 0 };
	struct image *i;
	u8 *got = malloc(DISK);
	struct err err;

	for (int n = 0; n < REGIONS; n++) {
		assert_int_equal(vblk_do(&vblk, IN, (u64)n * REGION / 512, REGION), OK);
		vblk_get(&vblk, 0, 0, got, REGION);
		assert_memory_equal(got, model + (u64)n * REGION, REGION);
	}
	device_quiesce(vblk.dev);
	blk_close(vblk.blk);
	vblk.blk = NULL;
	assert_int_equal(image_open(&i, vblk.path, &o, &err), 0);
	assert_int_equal(image_read(i, 0, got, DISK), 0);
	assert_memory_equal(got, model, DISK);
	assert_int_equal(image_check(i, false, &c, &err), 0);
	assert_int_equal(c.corruptions + c.leaks, 0);
	image_close(i);
	free(got);
}

static void test_traffic(void **state)
{
	(void)state;
	for (u64 n = 0; n < requests / 10; n++) {
		vblk_until(&vblk, has_room);
		offer_some(10);
		if (draw(&seed) % 16 == 0)
			pause_in_traffic();
		else if (draw(&seed) % 32 == 0)
			reset_in_traffic();
	}
	vblk_until(&vblk, is_idle);
	assert_int_equal(vblk.dev->guest_errors, 0);
	compare();
}

/* New clusters are one request's at a time. */
static bool all_held(struct vblk *f)
{
	return recorder_held() >= (f->setup->format ? 1 : f->nr_queues);
}

static bool done;

static void *quiesce(void *arg)
{
	device_quiesce(arg);
	store_release(&done, true);
	return NULL;
}

/* While the host is at it, a quiesce has not returned. */
static void test_quiesce_waits(void **state)
{
	pthread_t thread;

	(void)state;
	for (unsigned q = 0; q < vblk.nr_queues; q++)
		vblk_offer(&vblk, q, 0, OUT, q * 256, 65536);
	recorder_hold(FILE_WRITE);
	for (unsigned q = 0; q < vblk.nr_queues; q++)
		vblk_kick(&vblk, q);
	vblk_until(&vblk, all_held);
	done = false;
	assert_int_equal(pthread_create(&thread, NULL, quiesce, vblk.dev), 0);
	/* It has begun when it has the lock. */
	while (!pthread_mutex_trylock(&vblk.dev->lock)) {
		pthread_mutex_unlock(&vblk.dev->lock);
		sched_yield();
	}
	for (int n = 0; n < 1000; n++) {
		assert_false(load_acquire(&done));
		sched_yield();
	}
	assert_int_equal(vblk_reap(&vblk), 0);
	recorder_hold(0);
	pthread_join(thread, NULL);
	assert_int_equal(vblk_reap(&vblk), vblk.nr_queues);
	nothing_moves();
	device_resume(vblk.dev);
	assert_int_equal(vblk_do(&vblk, IN, 0, 512), OK);
}

/* One queue taken back, the others go on; by a device that is quiet or not. */
static void test_disable(void **state)
{
	unsigned last = vblk.nr_queues - 1;

	(void)state;
	for (int quiet = 0; quiet < 2; quiet++) {
		u16 used;

		vblk_start(&vblk);
		for (unsigned q = 0; q < vblk.nr_queues; q++)
			for (unsigned n = 0; n < 8; n++)
				vblk_offer(&vblk, q, n, OUT, (q * 8 + n) * 128, 65536);
		for (unsigned q = 0; q < vblk.nr_queues; q++)
			vblk_kick(&vblk, q);
		if (quiet)
			device_quiesce(vblk.dev);
		driver_set(&vblk.d, VIRTIO_MMIO_QUEUE_SEL, last);
		driver_set(&vblk.d, VIRTIO_MMIO_QUEUE_READY, 0);
		assert_int_equal(driver_get(&vblk.d, VIRTIO_MMIO_QUEUE_READY), 0);
		vblk_reap(&vblk);
		used = ring_used_idx(&vblk.d.ring[last]);
		if (quiet) {
			nothing_moves();
			device_resume(vblk.dev);
		}
		for (unsigned n = 0; n < VBLK_SLOTS; n++) {
			vblk.nr_busy -= vblk.slot[last][n].busy;
			vblk.slot[last][n].busy = false;
		}
		vblk_wait(&vblk);
		vblk_offer(&vblk, last, 15, OUT, 0, 512);
		vblk_kick(&vblk, last);
		vblk.nr_busy--;
		assert_int_equal(vblk_do(&vblk, FLUSH, 0, 0), OK);
		vblk_settle(&vblk);
		assert_int_equal(ring_used_idx(&vblk.d.ring[last]), used);
	}
}

/* The driver comes while the device is quiet: it has to wait. */
static void test_start_while_quiet(void **state)
{
	(void)state;
	driver_set(&vblk.d, VIRTIO_MMIO_STATUS, 0);
	device_quiesce(vblk.dev);
	vblk_start(&vblk);
	for (unsigned q = 0; q < vblk.nr_queues; q++) {
		vblk_offer(&vblk, q, 0, IN, q, 512);
		vblk_kick(&vblk, q);
	}
	nothing_moves();
	device_resume(vblk.dev);
	vblk_wait(&vblk);
	for (unsigned q = 0; q < vblk.nr_queues; q++)
		assert_int_equal(vblk.slot[q][0].status, OK);
	/* Destroyed while quiet, with work that nobody does any more. */
	vblk_offer(&vblk, 0, 0, IN, 0, 512);
	device_quiesce(vblk.dev);
	vblk_kick(&vblk, 0);
}

int main(void)
{
	static const struct { const char *name; CMUnitTestFunction fn; bool threads; } kinds[] = {
		{ "traffic", test_traffic, false }, { "quiesce waits", test_quiesce_waits, true },
		{ "disable", test_disable, false }, { "start while quiet", test_start_while_quiet, false },
	};
	static char name[ARRAY_SIZE(kinds) * ARRAY_SIZE(shapes)][64];
	struct CMUnitTest test[ARRAY_SIZE(kinds) * ARRAY_SIZE(shapes)];
	size_t nr = 0;

	seed = env_number("QUEUES_SEED", now_ns());
	requests = env_number("QUEUES_REQUESTS", 2000);
	print_message("QUEUES_SEED=%llu QUEUES_REQUESTS=%llu\n", (unsigned long long)seed,
		      (unsigned long long)requests);
	for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++)
		for (unsigned i = 0; i < ARRAY_SIZE(shapes); i++) {
			/* What io_uring does is not the recorder's to hold. */
			if (kinds[k].threads && shapes[i].engine != AIO_THREADS)
				continue;
			snprintf(name[nr], sizeof(name[nr]), "%s: %s, %u, %u queues on %u", kinds[k].name,
				 shapes[i].format ? shapes[i].format : "raw", shapes[i].cluster,
				 shapes[i].o.nr_queues, shapes[i].nr_loops);
			test[nr] = (struct CMUnitTest){ name[nr], kinds[k].fn, setup, teardown, &shapes[i] };
			nr++;
		}
	return _cmocka_run_group_tests("virtio_blk_queues", test, nr, NULL, NULL);
}
