/*
 * virtio_blk_queues_test.c: several queues on threads of their own, all busy, stopped and reset at any time, against
 * a plain array.
 *
 *   QUEUES_SEED, QUEUES_REQUESTS (for each shape)
 */
#include <linux/virtio_blk.h>
#include <linux/virtio_mmio.h>
#include <pthread.h>
#include <sched.h>
#include "tests/lib/recorder.h"
#include "tests/lib/test.h"
#include "tests/lib/traffic.h"

enum { IN = VIRTIO_BLK_T_IN, OUT = VIRTIO_BLK_T_OUT, FLUSH = VIRTIO_BLK_T_FLUSH, OK = VIRTIO_BLK_S_OK };

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
	{ .engine = AIO_AUTO, .nr_loops = 4, .o.nr_queues = 4, .direct = true },
	{ .engine = AIO_THREADS, .nr_loops = 2, .o.nr_queues = 4, .direct = true },
	{ .engine = AIO_AUTO, .format = "qcow2", .cluster = 65536, .below = true, .nr_loops = 4,
	  .o.nr_queues = 4, .direct = true },
	{ .engine = AIO_THREADS, .format = "qcow2", .cluster = 16384, .nr_loops = 2, .o.nr_queues = 4,
	  .direct = true },
	{ .engine = AIO_AUTO, .nr_loops = 4, .o.nr_queues = 4, .direct = true, .direct_align = 4096 },
	{ .engine = AIO_AUTO, .format = "qcow2", .cluster = 16384, .below = true, .nr_loops = 4,
	  .o.nr_queues = 4, .direct = true, .direct_align = 4096 },
};

static struct traffic traffic;
static struct vblk *const vblk = &traffic.v;
static u64 seed, requests;

static int setup(void **state)
{
	const struct vblk_setup *s = *state;

	/* No multiple of any cluster, or page, so that neighbours meet in those. */
	traffic_new(&traffic, *state, s->direct ? 1536 : 40 * 1024 + 512, seed);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	recorder_hold(0);
	traffic_free(&traffic);
	return 0;
}

/* --- in the middle of it --------------------------------------------------------------------- */

struct still { u16 used[VBLK_QUEUES]; u64 ops; u8 memory[4096]; };

static void look(struct still *s)
{
	memset(s, 0, sizeof(*s));
	for (unsigned q = 0; q < vblk->nr_queues; q++)
		s->used[q] = ring_used_idx(&vblk->d.ring[q]);
	s->ops = recorder_count(FILE_DATA_OPS);
	assert_int_equal(recorder_held(), 0);
	for (unsigned q = 0; q < vblk->nr_queues; q++)
		for (unsigned n = 0; n < VBLK_SLOTS; n++)
			vblk_get(vblk, q, n, s->memory + (q * VBLK_SLOTS + n) * 64, 64);
}

static void nothing_moves(void)
{
	static struct still a, b;

	look(&a);
	vblk_settle(vblk);
	look(&b);
	assert_memory_equal(&a, &b, sizeof(a));
}

/* Whatever the guest does meanwhile waits for the resume, and nothing is lost. */
static void pause_in_traffic(void)
{
	device_quiesce(vblk->dev);
	traffic_reap(&traffic);
	if (draw(&traffic.seed) & 1)
		device_quiesce(vblk->dev);
	traffic_offer(&traffic, draw(&traffic.seed) % 20);
	nothing_moves();
	device_resume(vblk->dev);
	if (draw(&traffic.seed) & 1)
		device_resume(vblk->dev);
}

static void reset_in_traffic(void)
{
	switch (draw(&traffic.seed) % 3) {
	case 0:
		traffic_start_over(&traffic);
		break;
	case 1:
		device_quiesce(vblk->dev);
		traffic_start_over(&traffic);
		nothing_moves();
		device_resume(vblk->dev);
		break;
	case 2:
		device_quiesce(vblk->dev);
		traffic_reap(&traffic);
		driver_set(&vblk->d, VIRTIO_MMIO_STATUS, 0);
		device_resume(vblk->dev);
		nothing_moves();
		traffic_start_over(&traffic);
		break;
	}
}

/* --- tests ----------------------------------------------------------------------------------- */

static void test_traffic(void **state)
{
	(void)state;
	for (u64 n = 0; n < requests / 10; n++) {
		traffic_wait_for_room(&traffic);
		traffic_offer(&traffic, 10);
		if (draw(&traffic.seed) % 16 == 0)
			pause_in_traffic();
		else if (draw(&traffic.seed) % 32 == 0)
			reset_in_traffic();
	}
	traffic_wait(&traffic);
	assert_int_equal(vblk->dev->guest_errors, 0);
	traffic_compare(&traffic);
	device_quiesce(vblk->dev);
	blk_close(vblk->blk);
	vblk->blk = NULL;
	traffic_compare_file(&traffic, vblk->path, vblk->format, NULL, true);
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
	for (unsigned q = 0; q < vblk->nr_queues; q++)
		vblk_offer(vblk, q, 0, OUT, q * 256, 65536);
	recorder_hold(FILE_WRITE);
	for (unsigned q = 0; q < vblk->nr_queues; q++)
		vblk_kick(vblk, q);
	vblk_until(vblk, all_held);
	done = false;
	assert_int_equal(pthread_create(&thread, NULL, quiesce, vblk->dev), 0);
	/* It has begun when it has the lock. */
	while (!pthread_mutex_trylock(&vblk->dev->lock)) {
		pthread_mutex_unlock(&vblk->dev->lock);
		sched_yield();
	}
	for (int n = 0; n < 1000; n++) {
		assert_false(load_acquire(&done));
		sched_yield();
	}
	assert_int_equal(vblk_reap(vblk), 0);
	recorder_hold(0);
	pthread_join(thread, NULL);
	/* Those that were taken are answered, at least the one that was held. */
	assert_true(vblk_reap(vblk));
	nothing_moves();
	device_resume(vblk->dev);
	vblk_wait(vblk);
	assert_int_equal(vblk_do(vblk, IN, 0, 512), OK);
}

/* One queue taken back, the others go on; by a device that is quiet or not. */
static void test_disable(void **state)
{
	unsigned last = vblk->nr_queues - 1;

	(void)state;
	for (int quiet = 0; quiet < 2; quiet++) {
		u16 used;

		vblk_start(vblk);
		for (unsigned q = 0; q < vblk->nr_queues; q++)
			for (unsigned n = 0; n < 8; n++)
				vblk_offer(vblk, q, n, OUT, (q * 8 + n) * 128, 65536);
		for (unsigned q = 0; q < vblk->nr_queues; q++)
			vblk_kick(vblk, q);
		if (quiet)
			device_quiesce(vblk->dev);
		driver_set(&vblk->d, VIRTIO_MMIO_QUEUE_SEL, last);
		driver_set(&vblk->d, VIRTIO_MMIO_QUEUE_READY, 0);
		assert_int_equal(driver_get(&vblk->d, VIRTIO_MMIO_QUEUE_READY), 0);
		vblk_reap(vblk);
		used = ring_used_idx(&vblk->d.ring[last]);
		if (quiet) {
			nothing_moves();
			device_resume(vblk->dev);
		}
		for (unsigned n = 0; n < VBLK_SLOTS; n++) {
			vblk->nr_busy -= vblk->slot[last][n].busy;
			vblk->slot[last][n].busy = false;
		}
		vblk_wait(vblk);
		vblk_offer(vblk, last, 15, OUT, 0, 512);
		vblk_kick(vblk, last);
		vblk->nr_busy--;
		assert_int_equal(vblk_do(vblk, FLUSH, 0, 0), OK);
		vblk_settle(vblk);
		assert_int_equal(ring_used_idx(&vblk->d.ring[last]), used);
	}
}

/* The driver comes while the device is quiet: it has to wait. */
static void test_start_while_quiet(void **state)
{
	(void)state;
	driver_set(&vblk->d, VIRTIO_MMIO_STATUS, 0);
	device_quiesce(vblk->dev);
	vblk_start(vblk);
	for (unsigned q = 0; q < vblk->nr_queues; q++) {
		vblk_offer(vblk, q, 0, IN, q, 512);
		vblk_kick(vblk, q);
	}
	nothing_moves();
	device_resume(vblk->dev);
	vblk_wait(vblk);
	for (unsigned q = 0; q < vblk->nr_queues; q++)
		assert_int_equal(vblk->slot[q][0].status, OK);
	/* Destroyed while quiet, with work that nobody does any more. */
	vblk_offer(vblk, 0, 0, IN, 0, 512);
	device_quiesce(vblk->dev);
	vblk_kick(vblk, 0);
}

/* --- many processors ------------------------------------------------------------------------- */

enum { STORM_CPUS = 4 };

static void set_up_queue(struct driver *d, unsigned q)
{
	const struct ring *r = &d->ring[q];

	driver_set(d, VIRTIO_MMIO_QUEUE_SEL, q);
	driver_set(d, VIRTIO_MMIO_QUEUE_NUM, r->size);
	driver_set(d, VIRTIO_MMIO_QUEUE_DESC_LOW, r->desc);
	driver_set(d, VIRTIO_MMIO_QUEUE_AVAIL_LOW, r->avail);
	driver_set(d, VIRTIO_MMIO_QUEUE_USED_LOW, r->used);
	driver_set(d, VIRTIO_MMIO_QUEUE_READY, 1);
}

/* A driver's beginning, of which others may do a part, or undo it. */
static void begin(struct driver *d)
{
	static const u8 status[] = { 0, 1, 3, 11, 15 };

	for (unsigned i = 0; i < ARRAY_SIZE(status); i++) {
		if (status[i] == 11) {
			driver_set(d, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
			driver_set(d, VIRTIO_MMIO_DRIVER_FEATURES, 1);
		}
		for (unsigned q = 0; q < vblk->nr_queues && status[i] == 15; q++)
			set_up_queue(d, q);
		driver_set(d, VIRTIO_MMIO_STATUS, status[i]);
	}
}

static void *storm(void *arg)
{
	struct driver *d = &vblk->d;
	u64 own = seed + (uintptr_t)arg;

	for (u64 i = 0; i < 2 * requests; i++) {
		u64 n = draw(&own);

		switch (n & 7) {
		case 0:
			driver_set(d, VIRTIO_MMIO_STATUS, n >> 8 & 1 ? 0 : n >> 16);
			break;
		case 1 ... 4:
			begin(d);
			break;
		case 5:
			driver_set(d, VIRTIO_MMIO_QUEUE_SEL, n >> 8 & 7);
			driver_set(d, VIRTIO_MMIO_QUEUE_READY, 0);
			break;
		case 6:
			driver_set(d, n >> 8 & 0xfc, n >> 16 & 15);
			break;
		default:
			driver_set(d, VIRTIO_MMIO_QUEUE_NOTIFY, n >> 8 & 7);
		}
	}
	return NULL;
}

/* A guest that puts two queues in one place races with itself: in this last test that is none of ours. */
static void ignore_races_in_ram(void)
{
#ifdef __SANITIZE_THREAD__
	void AnnotateBenignRaceSized(const char *file, int line, void *at, size_t len, const char *why);
	struct iovec ram;

	assert_int_equal(mem_iov(vblk->fake.p.mem, GPA(0), VBLK_MEM, &ram, 1), 1);
	AnnotateBenignRaceSized(__FILE__, __LINE__, ram.iov_base, ram.iov_len, "the guest's memory");
#endif
}

/* Whatever processors write at one time to the registers of a disk that is at work, and is paused meanwhile. */
static void test_storm(void **state)
{
	pthread_t cpu[STORM_CPUS];

	(void)state;
	ignore_races_in_ram();
	for (unsigned q = 0; q < vblk->nr_queues; q++)
		for (unsigned n = 0; n < VBLK_SLOTS; n++)
			vblk_offer(vblk, q, n, IN, n * 8, 4096);
	for (uintptr_t i = 0; i < STORM_CPUS; i++)
		assert_int_equal(pthread_create(&cpu[i], NULL, storm, (void *)i), 0);
	for (int i = 0; i < 50; i++) {
		device_quiesce(vblk->dev);
		sched_yield();
		device_resume(vblk->dev);
	}
	for (unsigned i = 0; i < STORM_CPUS; i++)
		assert_int_equal(pthread_join(cpu[i], NULL), 0);
	vblk_start(vblk);
	for (unsigned n = 0; n < VBLK_SLOTS; n++)
		vblk_offer(vblk, n % vblk->nr_queues, n, IN, n * 8, 4096);
	for (unsigned q = 0; q < vblk->nr_queues; q++)
		vblk_kick(vblk, q);
	vblk_wait(vblk);
	for (unsigned n = 0; n < VBLK_SLOTS; n++)
		assert_int_equal(vblk->slot[n % vblk->nr_queues][n].status, OK);
}

int main(void)
{
	static const struct { const char *name; CMUnitTestFunction fn; bool threads; } kinds[] = {
		{ "traffic", test_traffic, false }, { "quiesce waits", test_quiesce_waits, true },
		{ "disable", test_disable, false }, { "start while quiet", test_start_while_quiet, false },
		{ "storm", test_storm, false },
	};
	static char name[ARRAY_SIZE(kinds) * ARRAY_SIZE(shapes)][64];
	struct CMUnitTest test[ARRAY_SIZE(kinds) * ARRAY_SIZE(shapes)];
	size_t nr = 0;

	seed = env_seed("QUEUES_SEED");
	requests = env_number("QUEUES_REQUESTS", 2000);
	print_message("QUEUES_SEED=%llu QUEUES_REQUESTS=%llu\n", (unsigned long long)seed,
		      (unsigned long long)requests);
	for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++)
		for (unsigned i = 0; i < ARRAY_SIZE(shapes); i++) {
			/* What io_uring does is not the recorder's to hold. */
			if (kinds[k].threads && shapes[i].engine != AIO_THREADS)
				continue;
			/* A small disk, for neighbours to meet often. */
			if (shapes[i].direct && k)
				continue;
			snprintf(name[nr], sizeof(name[nr]), "%s: %s, %u, %u queues on %u%s", kinds[k].name,
				 shapes[i].format ? shapes[i].format : "raw", shapes[i].cluster,
				 shapes[i].o.nr_queues, shapes[i].nr_loops,
				 shapes[i].direct ? ", direct" : "");
			test[nr] = (struct CMUnitTest){ name[nr], kinds[k].fn, setup, teardown, &shapes[i] };
			nr++;
		}
	return _cmocka_run_group_tests("virtio_blk_queues", test, nr, NULL, NULL);
}
