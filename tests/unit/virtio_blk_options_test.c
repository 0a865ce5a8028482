/* virtio_blk_options_test.c: what a disk is told by its user and its driver: caching, limits, errors, size. */
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <stddef.h>
#include <sys/stat.h>
#include <time.h>
#include "tests/lib/recorder.h"
#include "tests/lib/test.h"
#include "tests/lib/vblk.h"
#include "vmm/core/limit.h"
#include "vmm/core/state.h"

enum {
	IN = VIRTIO_BLK_T_IN, OUT = VIRTIO_BLK_T_OUT, FLUSH = VIRTIO_BLK_T_FLUSH,
	DISCARD = VIRTIO_BLK_T_DISCARD, ZEROES = VIRTIO_BLK_T_WRITE_ZEROES, GET_ID = VIRTIO_BLK_T_GET_ID,
	OK = VIRTIO_BLK_S_OK, IOERR = VIRTIO_BLK_S_IOERR, UNSUPP = VIRTIO_BLK_S_UNSUPP,
};
#define BIT(n)	(1ULL << VIRTIO_BLK_F_##n)
#define WCE	offsetof(struct virtio_blk_config, wce)
#define SECOND	1000000000ULL

static struct vblk vblk;
static struct vblk_setup setup;

/* The simplest disk there is: what a test wants otherwise it says. */
static struct vblk_setup plain(void)
{
	return (struct vblk_setup){
		.engine = AIO_THREADS, .size = 4 * MIB, .features = ~0ULL,
		.o = { .nr_queues = 1, .discard = true, .write_zeroes = true },
	};
}

static struct vblk *begin(const struct vblk_setup *s)
{
	setup = *s;
	vblk_new(&vblk, &setup);
	return &vblk;
}

static int teardown(void **state)
{
	(void)state;
	recorder_hold(0);
	recorder_fail(NULL);
	if (vblk.dev)
		vblk_free(&vblk);
	vblk.dev = NULL;
	return 0;
}

static void end(void)
{
	vblk_free(&vblk);
	vblk.dev = NULL;
}

/* --- what is offered ---------------------------------------------------------------------- */

static void test_features(void **state)
{
	struct vblk_setup s = plain();
	struct vblk *f;
	u64 offered;

	(void)state;
	f = begin(&s);
	offered = driver_offered(&f->d);
	assert_int_equal(offered & (BIT(FLUSH) | BIT(CONFIG_WCE) | BIT(DISCARD) | BIT(WRITE_ZEROES) |
				    BIT(TOPOLOGY) | BIT(BLK_SIZE) | BIT(SEG_MAX) | BIT(SIZE_MAX)),
			 BIT(FLUSH) | BIT(CONFIG_WCE) | BIT(DISCARD) | BIT(WRITE_ZEROES) |
			 BIT(TOPOLOGY) | BIT(BLK_SIZE) | BIT(SEG_MAX) | BIT(SIZE_MAX));
	assert_false(offered & (BIT(MQ) | BIT(RO)));
	assert_int_equal(vblk_config(f, offsetof(struct virtio_blk_config, write_zeroes_may_unmap), 1), 1);
	assert_int_equal(vblk_config(f, WCE, 1), 1);
	end();
	s.o.nr_queues = 3;
	s.o.write_through = true;
	f = begin(&s);
	assert_true(driver_offered(&f->d) & BIT(MQ));
	assert_int_equal(vblk_config(f, offsetof(struct virtio_blk_config, num_queues), 2), 3);
	assert_int_equal(vblk_config(f, WCE, 1), 0);
	end();
	s.read_only = true;
	f = begin(&s);
	offered = driver_offered(&f->d);
	assert_true(offered & BIT(RO) && offered & BIT(FLUSH));
	assert_false(offered & (BIT(CONFIG_WCE) | BIT(DISCARD) | BIT(WRITE_ZEROES)));
	assert_int_equal(vblk_do(f, OUT, 0, 512), IOERR);
	assert_int_equal(vblk_do(f, FLUSH, 0, 0), OK);
	end();
}

static u64 blocks(struct vblk *f)
{
	struct stat st;

	assert_int_equal(stat(f->path, &st), 0);
	return st.st_blocks;
}

static void fill(struct vblk *f, u8 byte)
{
	static u8 data[VBLK_SLOT_LEN];

	memset(data, byte, sizeof(data));
	for (u64 at = 0; at < f->setup->size; at += sizeof(data)) {
		vblk_put(f, 0, 0, data, sizeof(data));
		assert_int_equal(vblk_do(f, OUT, at / 512, sizeof(data)), OK);
	}
}

static bool reads_as(struct vblk *f, u64 sector, u32 nr, u8 byte)
{
	static u8 data[VBLK_SLOT_LEN];

	assert_int_equal(vblk_do(f, IN, sector, nr * 512), OK);
	vblk_get(f, 0, 0, data, nr * 512);
	for (u32 i = 0; i < nr * 512; i++)
		if (data[i] != byte)
			return false;
	return true;
}

/* Space that a user said is to be kept is kept, whatever the driver sends. */
static void keeps_space(const char *format)
{
	struct vblk_setup s = plain();
	struct vblk *f;
	u64 before;

	s.format = format;
	s.o.discard = false;
	f = begin(&s);
	assert_false(driver_offered(&f->d) & BIT(DISCARD));
	assert_true(driver_offered(&f->d) & BIT(WRITE_ZEROES));
	assert_int_equal(vblk_config(f, offsetof(struct virtio_blk_config, write_zeroes_may_unmap), 1), 0);
	fill(f, 0x77);
	assert_int_equal(vblk_do(f, FLUSH, 0, 0), OK);
	before = blocks(f);
	assert_int_equal(vblk_range(f, DISCARD, 0, 2048, 0), UNSUPP);
	assert_true(reads_as(f, 0, 8, 0x77));
	for (u32 unmap = 0; unmap < 2; unmap++) {
		assert_int_equal(vblk_range(f, ZEROES, 2048 * unmap, 2048, unmap), OK);
		assert_true(reads_as(f, 2048 * unmap, 128, 0));
		assert_int_equal(vblk_do(f, FLUSH, 0, 0), OK);
		assert_int_equal(vblk_do(f, FLUSH, 0, 0), OK);
	}
	assert_true(blocks(f) >= before);
	end();
}

static void test_no_discard(void **state)
{
	struct vblk_setup s = plain();
	struct vblk *f;
	u64 before;

	(void)state;
	keeps_space("raw");
	keeps_space("qcow2");
	s.o.write_zeroes = false;
	f = begin(&s);
	assert_true(driver_offered(&f->d) & BIT(DISCARD));
	assert_false(driver_offered(&f->d) & BIT(WRITE_ZEROES));
	fill(f, 0x66);
	assert_int_equal(vblk_range(f, ZEROES, 0, 8, 0), UNSUPP);
	assert_true(reads_as(f, 0, 8, 0x66));
	before = blocks(f);
	assert_int_equal(vblk_range(f, DISCARD, 0, 2048, 0), OK);
	assert_true(blocks(f) <= before - 2048);
	end();
}

static void test_topology(void **state)
{
	struct vblk_setup s = plain();
	struct stat st;
	u32 physical;
	struct vblk *f;

	(void)state;
	f = begin(&s);
	assert_int_equal(stat(f->path, &st), 0);
	physical = st.st_blksize;
	assert_int_equal(512 << vblk_config(f, offsetof(struct virtio_blk_config, physical_block_exp), 1),
			 physical);
	assert_int_equal(vblk_config(f, offsetof(struct virtio_blk_config, alignment_offset), 1), 0);
	assert_int_equal(vblk_config(f, offsetof(struct virtio_blk_config, min_io_size), 2), physical / 512);
	assert_int_equal(vblk_config(f, offsetof(struct virtio_blk_config, opt_io_size), 4), 0);
	assert_int_equal(vblk_config(f, offsetof(struct virtio_blk_config, blk_size), 4), 512);
	end();
	s.format = "qcow2";
	s.cluster = 256 * KIB;
	f = begin(&s);
	assert_int_equal(vblk_config(f, offsetof(struct virtio_blk_config, opt_io_size), 4), 512);
	assert_int_equal(vblk_config(f, offsetof(struct virtio_blk_config, discard_sector_alignment), 4),
			 512);
	end();
}

/* --- caching --------------------------------------------------------------------------------- */

static bool held(struct vblk *f)
{
	assert_int_equal(vblk_reap(f), 0);
	return recorder_held();
}

/* The write is done, the answer is not there before the sync is. */
static void waits_for_sync(struct vblk *f, u32 type, u32 len)
{
	struct virtio_blk_discard_write_zeroes seg = { 64, 64, 0 };
	u64 syncs = recorder_count(FILE_SYNC), writes = recorder_count(FILE_WRITE | FILE_ZERO);

	if (type == ZEROES)
		vblk_put(f, 0, 0, &seg, sizeof(seg));
	recorder_hold(FILE_SYNC);
	vblk_offer(f, 0, 0, type, 8, len);
	vblk_kick(f, 0);
	vblk_until(f, held);
	assert_true(recorder_count(FILE_WRITE | FILE_ZERO) > writes);
	assert_int_equal(recorder_count(FILE_SYNC), syncs);
	vblk_settle(f);
	assert_int_equal(vblk_reap(f), 0);
	recorder_hold(0);
	vblk_wait(f);
	assert_int_equal(f->slot[0][0].status, OK);
	assert_int_equal(f->slot[0][0].written, 1);
	assert_true(recorder_count(FILE_SYNC) > syncs);
}

static bool syncs(struct vblk *f, u32 type, u32 len)
{
	u64 before = recorder_count(FILE_SYNC);

	assert_int_equal(vblk_do(f, type, 0, len), OK);
	return recorder_count(FILE_SYNC) > before;
}

static void test_write_through(void **state)
{
	static const char *const formats[] = { "raw", "qcow2" };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(formats); i++) {
		struct vblk_setup s = plain();
		struct vblk *f;

		s.format = formats[i];
		s.o.write_through = true;
		f = begin(&s);
		fill(f, 1);
		waits_for_sync(f, OUT, 4096);
		waits_for_sync(f, ZEROES, sizeof(struct virtio_blk_discard_write_zeroes));
		assert_false(syncs(f, IN, 4096));
		assert_false(syncs(f, GET_ID, 20));

		/* The driver may know better, until it is reset. */
		vblk_config_write(f, WCE, 1, 1);
		assert_int_equal(vblk_config(f, WCE, 1), 1);
		assert_false(syncs(f, OUT, 4096));
		assert_true(syncs(f, FLUSH, 0));
		vblk_config_write(f, WCE, 1, 0);
		assert_int_equal(vblk_config(f, WCE, 1), 0);
		waits_for_sync(f, OUT, 4096);
		vblk_config_write(f, WCE, 1, 1);
		vblk_start(f);
		assert_int_equal(vblk_config(f, WCE, 1), 0);
		waits_for_sync(f, OUT, 4096);
		assert_int_equal(f->dev->guest_errors, 0);
		end();
	}
}

/* The driver hears of no cache, and does not flush; there is one all the same. */
static void test_no_flush(void **state)
{
	struct vblk_setup s = plain();
	struct vblk *f;

	(void)state;
	s.o.no_flush = true;
	f = begin(&s);
	assert_false(driver_offered(&f->d) & (BIT(FLUSH) | BIT(CONFIG_WCE)));
	assert_int_equal(vblk_config(f, WCE, 1), 0);
	assert_false(syncs(f, OUT, 4096));
	fill(f, 0x17);
	assert_true(reads_as(f, 0, 8, 0x17));
	vblk_start(f);
	assert_false(syncs(f, OUT, 4096));
	assert_int_equal(f->dev->guest_errors, 0);
	end();
}

/* A driver that was told of no cache has none (5.2.5.2). */
static void test_cache_not_negotiated(void **state)
{
	struct vblk_setup s = plain();
	struct vblk *f;

	(void)state;
	f = begin(&s);
	assert_false(syncs(f, OUT, 4096));
	setup.features = ~(BIT(FLUSH) | BIT(CONFIG_WCE));
	vblk_start(f);
	waits_for_sync(f, OUT, 4096);
	/* Nor may it write what it has not negotiated. */
	vblk_config_write(f, WCE, 1, 1);
	assert_int_equal(f->dev->guest_errors, 1);
	waits_for_sync(f, OUT, 4096);
	/* Not after a pause either, and again with one after a reset. */
	device_quiesce(f->dev);
	device_resume(f->dev);
	waits_for_sync(f, OUT, 4096);
	setup.features = ~BIT(CONFIG_WCE);
	vblk_start(f);
	assert_false(syncs(f, OUT, 4096));

	/* It may ask for a cache, which it cannot flush; it is not given one unasked. */
	setup.features = ~BIT(FLUSH);
	vblk_start(f);
	assert_int_equal(vblk_config(f, WCE, 1), 0);
	waits_for_sync(f, OUT, 4096);
	vblk_config_write(f, WCE, 1, 1);
	assert_false(syncs(f, OUT, 4096));
	device_quiesce(f->dev);
	device_resume(f->dev);
	assert_int_equal(vblk_config(f, WCE, 1), 1);
	assert_false(syncs(f, OUT, 4096));
}

static void test_config_writes(void **state)
{
	struct vblk_setup s = plain();
	struct virtio_blk_config before, after;
	struct vblk *f;

	(void)state;
	f = begin(&s);
	for (unsigned i = 0; i < sizeof(before); i++)
		((u8 *)&before)[i] = vblk_config(f, i, 1);
	for (unsigned i = 0; i < 0x100; i++)
		for (unsigned size = 1; size <= 8; size *= 2)
			if (i % size == 0 && (i != WCE || size != 1))
				vblk_config_write(f, i, size, i % 3 == 1 ? ~0ULL : 0);
	for (unsigned i = 0; i < sizeof(after); i++)
		((u8 *)&after)[i] = vblk_config(f, i, 1);
	assert_memory_equal(&before, &after, sizeof(before));
	assert_true(f->dev->guest_errors > 100);
	assert_int_equal(vblk_do(f, IN, 0, 512), OK);
}

/* An answer says that it is on the disk, or that it is not. */
static void test_sync_fails(void **state)
{
	struct vblk_setup s = plain();
	struct fault fault = { .ops = FILE_SYNC, .error = EIO };
	struct vblk *f;

	(void)state;
	s.o.write_through = true;
	f = begin(&s);
	recorder_fail(&fault);
	assert_int_equal(vblk_do(f, OUT, 0, 4096), IOERR);
	assert_int_equal(f->slot[0][0].written, 1);
}

/* --- limits, by a clock that only the test moves ------------------------------------------------ */

int __real_clock_gettime(clockid_t, struct timespec *);
int __wrap_clock_gettime(clockid_t, struct timespec *);

static u64 fake_ns;			/* 0: the real one */

int __wrap_clock_gettime(clockid_t clock, struct timespec *t)
{
	if (!fake_ns || clock != CLOCK_MONOTONIC)
		return __real_clock_gettime(clock, t);
	*t = (struct timespec){ fake_ns / SECOND, fake_ns % SECOND };
	return 0;
}

/* Requests that need no host: what is answered is what was let through. */
static unsigned offer_ids(struct vblk *f, u32 len)
{
	unsigned nr = 0;

	for (unsigned q = 0; q < f->nr_queues; q++) {
		for (unsigned n = 0; n < VBLK_SLOTS; n++)
			if (!f->slot[q][n].busy) {
				vblk_offer(f, q, n, GET_ID, 0, len);
				nr++;
			}
		vblk_kick(f, q);
	}
	return nr;
}

static unsigned answered_now(struct vblk *f)
{
	fake_settle(&f->fake);
	return vblk_reap(f);
}

static struct limit limit;

static void test_limits(void **state)
{
	struct limit_config c = { .ops = { .rate = 100, .burst = 7 } };
	struct vblk_setup s = plain();
	u64 done = 0, offered = 0;
	struct vblk *f;

	(void)state;
	fake_ns = 1000 * SECOND;
	limit_init(&limit, &c);
	s.o.nr_queues = 3;
	s.o.limit = &limit;
	f = begin(&s);
	/* Queues that always have more: together they get what one would. */
	for (u64 ms = 0; ms <= 3000; ms++, fake_ns += SECOND / 1000) {
		offered += offer_ids(f, 20);
		done += answered_now(f);
		assert_int_equal(done, 7 + ms / 10);
	}
	/* None is lost, and none answered twice. */
	while (f->nr_busy) {
		fake_ns += SECOND / 100;
		done += answered_now(f);
	}
	assert_int_equal(done, offered);

	/* Every queue had its share. */
	for (int q = 0; q < 3; q++)
		assert_in_range(f->seen[q], offered / 3 - 16, offered / 3 + 16);

	/* Nothing is left that would hold it up. */
	limit_set(&limit, &(struct limit_config){ 0 });
	offered = offer_ids(f, 20);
	assert_int_equal(answered_now(f), offered);
	limit_fini(&limit);
}

static void test_limit_bytes(void **state)
{
	struct limit_config c = { .bytes = { .rate = 1000 * 1000, .burst = 4096 } };
	struct vblk_setup s = plain();
	struct vblk *f;

	(void)state;
	fake_ns = 1000 * SECOND;
	limit_init(&limit, &c);
	s.o.limit = &limit;
	f = begin(&s);
	/* The data alone counts: one of 4096 bytes empties the bucket, to the byte. */
	vblk_offer(f, 0, 0, GET_ID, 0, 4095);
	vblk_offer(f, 0, 1, GET_ID, 0, 1);
	vblk_offer(f, 0, 2, GET_ID, 0, 1);
	vblk_kick(f, 0);
	assert_int_equal(answered_now(f), 2);
	fake_ns += 999;
	assert_int_equal(answered_now(f), 0);
	fake_ns += 1000001;	/* a timer's loop counts milliseconds */
	assert_int_equal(answered_now(f), 1);
	/* What has no data waits as long as there is none to take. */
	fake_ns += 10 * SECOND;
	vblk_offer(f, 0, 0, IN, 0, VBLK_SLOT_LEN);
	vblk_kick(f, 0);
	vblk_wait(f);
	vblk_offer(f, 0, 0, FLUSH, 0, 0);
	vblk_offer(f, 0, 1, OUT, 0, 512);
	vblk_kick(f, 0);
	fake_ns += (VBLK_SLOT_LEN - 4096) * 1000ULL;
	assert_int_equal(answered_now(f), 0);
	assert_int_equal(f->nr_busy, 2);
	fake_ns += 2 * SECOND / 1000;
	vblk_wait(f);

	/* Zeroes are as many as they cover, whatever the host makes of them. */
	fake_ns += 10 * SECOND;
	assert_int_equal(vblk_range(f, ZEROES, 0, 256, 0), OK);
	vblk_offer(f, 0, 0, OUT, 0, 512);
	vblk_kick(f, 0);
	fake_ns += (256 * 512 - 4096) * 1000ULL;
	assert_int_equal(answered_now(f), 0);
	fake_ns += 2 * SECOND / 1000;
	vblk_wait(f);

	/* Stopped in the middle of waiting, it goes on where it was; reset, it forgets. */
	limit_set(&limit, &(struct limit_config){ .ops = { .rate = 1, .burst = 1 } });
	offer_ids(f, 20);
	assert_int_equal(answered_now(f), 1);
	device_quiesce(f->dev);
	fake_ns += 5 * SECOND / 2;
	assert_int_equal(answered_now(f), 0);
	device_resume(f->dev);
	assert_int_equal(answered_now(f), 1);
	fake_ns += SECOND + 1;
	assert_int_equal(answered_now(f), 1);
	vblk_start(f);
	fake_ns += 1000 * SECOND;
	assert_int_equal(answered_now(f), 0);
	offer_ids(f, 20);
	assert_int_equal(answered_now(f), 1);
	/* Nor does a device that is gone come back for more. */
	vblk_reopen(f);
	fake_ns += 1000 * SECOND;
	assert_int_equal(answered_now(f), 0);
	limit_fini(&limit);
}

static int real_clock(void **state)
{
	int rc = teardown(state);

	fake_ns = 0;
	return rc;
}

/* --- errors ---------------------------------------------------------------------------------------- */

static bool failed(struct vblk *f)
{
	assert_int_equal(vblk_reap(f), 0);
	return load_acquire(&f->fake.nr_events);
}

static void pause_and_resume(struct vblk *f)
{
	device_quiesce(f->dev);
	device_resume(f->dev);
}

static void on_error_stop(const struct vblk_setup *s, u32 type, unsigned ops, int error)
{
	struct fault fault = { .ops = ops, .error = error, .lasting = true };
	u8 data[4096], got[4096];
	struct vblk *f = begin(s);
	u32 len = type == FLUSH ? 0 : sizeof(data);

	fill(f, 0x11);
	if (type == ZEROES || type == DISCARD) {
		struct virtio_blk_discard_write_zeroes seg = { 8, 256, 0 };

		vblk_put(f, 0, 0, &seg, sizeof(seg));
		len = sizeof(seg);
	} else {
		memset(data, 0x5b, sizeof(data));
		vblk_put(f, 0, 0, data, sizeof(data));
	}
	recorder_fail(&fault);
	vblk_offer(f, 0, 0, type, 8, len);
	vblk_kick(f, 0);
	vblk_until(f, failed);
	assert_true(recorder_failed() & ops);
	vblk_settle(f);
	assert_int_equal(vblk_reap(f), 0);
	assert_int_equal(f->fake.nr_events, 1);
	assert_int_equal(f->fake.event, MACHINE_IO_ERROR);

	/* Resumed too early, it is the same again. */
	f->fake.nr_events = 0;
	pause_and_resume(f);
	vblk_until(f, failed);
	assert_int_equal(f->fake.nr_events, 1);

	recorder_fail(NULL);
	pause_and_resume(f);
	vblk_wait(f);
	assert_int_equal(f->slot[0][0].status, OK);
	assert_int_equal(f->fake.nr_events, 1);
	if (type == OUT) {
		assert_int_equal(vblk_do(f, IN, 8, sizeof(got)), OK);
		vblk_get(f, 0, 0, got, sizeof(got));
		assert_memory_equal(got, data, sizeof(got));
	} else if (type == IN) {
		vblk_get(f, 0, 0, got, sizeof(got));
		memset(data, 0x11, sizeof(data));
		assert_memory_equal(got, data, sizeof(got));
	} else if (type == ZEROES) {
		assert_true(reads_as(f, 8, 256, 0));
	}
	end();
}

static void test_stop(void **state)
{
	static const char *const formats[] = { "raw", "qcow2" };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(formats); i++) {
		struct vblk_setup s = plain();

		s.format = formats[i];
		s.o.stop_on_error = true;
		on_error_stop(&s, OUT, FILE_WRITE, ENOSPC);
		on_error_stop(&s, IN, FILE_READ, EIO);
		if (i == 0) {
			on_error_stop(&s, ZEROES, FILE_ZERO, ENOSPC);
			on_error_stop(&s, DISCARD, FILE_ZERO, EIO);
		}
		s.o.write_through = true;
		on_error_stop(&s, OUT, FILE_WRITE, ENOSPC);
	}
}

/*
 * What the host had taken and could not write is gone, and its next sync would not
 * know: no flush ends well any more, though nothing fails then.
 */
static void test_sync_lost(void **state)
{
	static const char *const formats[] = { "raw", "qcow2" };
	struct fault fault = { .ops = FILE_SYNC, .error = EIO };

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		struct vblk_setup s = plain();
		struct vblk *f;

		s.format = formats[i % 2];
		s.o.stop_on_error = i / 2;
		f = begin(&s);
		fill(f, 5);
		recorder_fail(&fault);
		vblk_offer(f, 0, 0, FLUSH, 0, 0);
		vblk_kick(f, 0);
		if (s.o.stop_on_error) {
			/* Somebody is told, before the guest is. */
			vblk_until(f, failed);
			assert_int_equal(f->fake.nr_events, 1);
			f->fake.nr_events = 0;
			pause_and_resume(f);
		}
		vblk_wait(f);
		assert_int_equal(f->slot[0][0].status, IOERR);
		for (int n = 0; n < 3; n++)
			assert_int_equal(vblk_do(f, FLUSH, 0, 0), IOERR);
		vblk_config_write(f, WCE, 1, 0);
		assert_int_equal(vblk_do(f, OUT, 0, 512), IOERR);
		assert_int_equal(vblk_do(f, IN, 0, 512), OK);
		assert_int_equal(f->fake.nr_events, 0);
		assert_int_equal(blk_snapshot_prepare(f->blk, "s", NULL), -ENOTRECOVERABLE);
		vblk_reopen(f);
		assert_int_equal(vblk_do(f, FLUSH, 0, 0), OK);
		end();
	}
}

/* Many at once, some of which the host can do: each is answered once, and all is there. */
static void test_stop_many(void **state)
{
	static const char *const formats[] = { "raw", "qcow2" };
	struct fault fault = { .ops = FILE_WRITE, .nth = 5, .error = ENOSPC, .lasting = true };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(formats); i++) {
		struct vblk_setup s = plain();
		struct vblk *f;
		u8 data[8192];

		s.format = formats[i];
		s.cluster = 4096;
		s.o.stop_on_error = true;
		s.o.nr_queues = 2;
		f = begin(&s);
		recorder_fail(&fault);
		for (unsigned q = 0; q < 2; q++) {
			for (unsigned n = 0; n < VBLK_SLOTS; n++) {
				memset(data, q * VBLK_SLOTS + n + 1, sizeof(data));
				vblk_put(f, q, n, data, sizeof(data));
				vblk_offer(f, q, n, OUT, (q * VBLK_SLOTS + n) * 16, sizeof(data));
			}
			vblk_kick(f, q);
		}
		for (int round = 0; round < 4; round++) {
			vblk_settle(f);
			vblk_reap(f);
			pause_and_resume(f);
		}
		assert_true(f->nr_busy);
		assert_true(f->fake.nr_events);
		recorder_fail(NULL);
		pause_and_resume(f);
		vblk_wait(f);
		for (unsigned n = 0; n < 2 * VBLK_SLOTS; n++) {
			assert_int_equal(f->slot[n / VBLK_SLOTS][n % VBLK_SLOTS].status, OK);
			if (n)
				assert_true(reads_as(f, n * 16, 16, n + 1));
		}
		assert_true(reads_as(f, 0, 16, 1));
		end();
	}
}

static bool both_failed(struct vblk *f)
{
	return failed(f) && load_acquire(&f->fake.nr_events) == 2;
}

static void test_stop_reset(void **state)
{
	struct fault fault = { .ops = FILE_WRITE, .error = ENOSPC, .lasting = true };
	struct vblk_setup s = plain();
	struct vblk *f;
	u64 writes;

	(void)state;
	s.o.stop_on_error = true;
	f = begin(&s);
	for (int quiet = 0; quiet < 3; quiet++) {
		f->fake.nr_events = 0;
		recorder_fail(&fault);
		vblk_offer(f, 0, 0, OUT, 8, 4096);
		vblk_offer(f, 0, 1, OUT, 16, 4096);
		vblk_kick(f, 0);
		vblk_until(f, both_failed);
		vblk_settle(f);
		if (quiet)
			device_quiesce(f->dev);
		recorder_fail(NULL);
		writes = recorder_count(FILE_WRITE);
		if (quiet == 2)
			driver_set(&f->d, VIRTIO_MMIO_STATUS, 0);
		else
			vblk_start(f);
		if (quiet)
			device_resume(f->dev);
		if (quiet == 2)
			vblk_start(f);
		vblk_settle(f);
		assert_int_equal(recorder_count(FILE_WRITE), writes);
		assert_int_equal(ring_used_idx(&f->d.ring[0]), 0);
		assert_int_equal(vblk_do(f, IN, 0, 4096), OK);
	}
	/* A queue taken back: what it had kept is nobody's. */
	f->fake.nr_events = 0;
	recorder_fail(&fault);
	vblk_offer(f, 0, 0, OUT, 8, 4096);
	vblk_kick(f, 0);
	vblk_until(f, failed);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_SEL, 0);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_READY, 0);
	recorder_fail(NULL);
	writes = recorder_count(FILE_WRITE);
	pause_and_resume(f);
	vblk_settle(f);
	assert_int_equal(recorder_count(FILE_WRITE), writes);
}

/* Memory is saved in the pause: what is read behind it is new to the next that is to save what changed. */
static void test_stop_dirty(void **state)
{
	struct fault fault = { .ops = FILE_READ, .error = EIO, .lasting = true };
	u64 page = vblk_data(0, 0).addr / MEM_PAGE;
	struct vblk_setup s = plain();
	struct vblk *f;
	struct mem *m;

	(void)state;
	s.o.stop_on_error = true;
	f = begin(&s);
	m = f->fake.p.mem;
	assert_int_equal(mem_track_dirty(m, NULL), 0);
	recorder_fail(&fault);
	vblk_offer(f, 0, 0, IN, 8, 4096);
	vblk_kick(f, 0);
	vblk_until(f, failed);
	device_quiesce(f->dev);
	mem_forget_dirty(m);
	recorder_fail(NULL);
	device_resume(f->dev);
	vblk_wait(f);
	assert_int_equal(f->slot[0][0].status, OK);
	assert_true(mem_dirty_pages(m, 0)[page / 64] >> page % 64 & 1);
}

/* What the device is, with f's disk anew behind it and its memory as it is; it is quiesced. */
static void save(struct vblk *f, struct state **saved, const void **blob, size_t *len)
{
	struct err err;

	device_quiesce(f->dev);
	assert_int_equal(state_new_save(saved, &err), 0);
	device_state(f->dev, *saved);
	assert_int_equal(state_finish_save(*saved, blob, len, &err), 0);
}

static void load(struct vblk *f, const void *blob, size_t len)
{
	struct state *s;
	struct err err;

	driver_set(&f->d, VIRTIO_MMIO_STATUS, 0);
	device_quiesce(f->dev);
	assert_int_equal(state_new_load(&s, blob, len, &err), 0);
	device_state(f->dev, s);
	if (state_finish_load(s, &err))
		fail_msg("%s", err.msg);
	state_free(s);
}

static bool needs_reset(struct vblk *f)
{
	return driver_get(&f->d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

/* The guest breaks its queue besides: a saved VM is as good as the one that was saved. */
static void test_stop_broken(void **state)
{
	struct fault fault = { .ops = FILE_WRITE, .error = ENOSPC, .lasting = true };
	struct vblk_setup s = plain();
	struct state *saved;
	const void *blob;
	struct vblk *f;
	size_t len;

	(void)state;
	s.o.stop_on_error = true;
	f = begin(&s);
	recorder_fail(&fault);
	vblk_offer(f, 0, 0, OUT, 8, 4096);
	vblk_kick(f, 0);
	vblk_until(f, failed);
	ring_offer(&f->d.ring[0], 999);
	vblk_kick(f, 0);
	vblk_settle(f);
	assert_true(needs_reset(f));
	save(f, &saved, &blob, &len);
	recorder_fail(NULL);
	vblk_reopen(f);
	load(f, blob, len);
	state_free(saved);
	device_resume(f->dev);
	assert_true(needs_reset(f));
	vblk_start(f);
	assert_int_equal(vblk_do(f, OUT, 8, 4096), OK);
}

static bool all_but_one_answered(struct vblk *f)
{
	vblk_reap(f);
	return f->nr_busy == 1;
}

/* What failed was saved, and its chain, or its header, is none any more when it is tried again: as any
 * bad chain; the others are answered. */
static void test_stop_changed(void **state)
{
	struct fault fault = { .ops = FILE_WRITE, .error = ENOSPC, .lasting = true };
	struct vblk_setup s = plain();

	(void)state;
	s.o.stop_on_error = true;
	for (unsigned bad = 0; bad < 3; bad++) {
		struct vblk *f = begin(&s);
		struct ring *r = &f->d.ring[0];
		struct state *saved;
		const void *blob;
		size_t len;

		recorder_fail(&fault);
		for (unsigned n = 0; n < 3; n++)
			vblk_offer(f, 0, n, OUT, 8 + n * 8, 4096);
		vblk_kick(f, 0);
		vblk_until(f, failed);
		vblk_settle(f);
		save(f, &saved, &blob, &len);
		recorder_fail(NULL);
		vblk_reopen(f);
		for (unsigned n = 0; n < 3; n++)
			vblk_offer(f, 0, n, OUT, 8 + n * 8, 4096);
		load(f, blob, len);
		state_free(saved);
		if (bad < 2)		/* the one in the middle: nowhere, or of one byte */
			ring_desc(r, 3, bad ? vblk_data(0, 1).addr : ~0ULL << 20, 1, 0, 0);
		assert_false(needs_reset(f));
		device_resume(f->dev);
		if (bad < 2)
			vblk_until(f, all_but_one_answered);
		else
			vblk_wait(f);
		vblk_settle(f);
		vblk_reap(f);
		assert_int_equal(needs_reset(f), bad < 2);
		assert_int_equal(ring_used_idx(r), bad < 2 ? 2 : 3);
		assert_int_equal(f->nr_busy, bad < 2 ? 1 : 0);
		assert_int_equal(f->slot[0][0].status, OK);
		assert_int_equal(f->slot[0][1].status, bad < 2 ? VBLK_PENDING : OK);
		assert_int_equal(f->slot[0][2].status, OK);
		vblk_start(f);
		assert_int_equal(vblk_do(f, OUT, 8, 4096), OK);
		end();
	}
}

/* What the guest did wrong, or what no retry can mend, is reported. */
static void test_stop_not_for_all(void **state)
{
	struct vblk_setup s = plain();
	struct fault fault = { .ops = FILE_WRITE | FILE_READ, .error = EIO, .lasting = true };
	struct fault never = { .ops = FILE_WRITE, .error = EINVAL, .lasting = true };
	struct vblk *f;

	(void)state;
	s.o.stop_on_error = true;
	f = begin(&s);
	assert_int_equal(vblk_do(f, IN, s.size / 512, 512), IOERR);
	assert_int_equal(vblk_do(f, OUT, ~0ULL, 512), IOERR);
	assert_int_equal(vblk_do(f, OUT, 0, 100), IOERR);
	assert_int_equal(vblk_range(f, DISCARD, ~0ULL, 8, 0), IOERR);
	/* A disk taken for raw is not to look like qcow2. */
	f->format = NULL;
	vblk_reopen(f);
	vblk_put(f, 0, 0, "QFI\xfb", 4);
	assert_int_equal(vblk_do(f, OUT, 0, 512), IOERR);
	/* The host says that it never will. */
	recorder_fail(&never);
	assert_int_equal(vblk_do(f, OUT, 8, 512), IOERR);
	recorder_fail(NULL);
	assert_int_equal(f->fake.nr_events, 0);
	end();
	/* on_error=report */
	s.o.stop_on_error = false;
	f = begin(&s);
	recorder_fail(&fault);
	assert_int_equal(vblk_do(f, OUT, 0, 512), IOERR);
	assert_int_equal(vblk_do(f, IN, 0, 512), IOERR);
	assert_int_equal(f->fake.nr_events, 0);
	recorder_fail(NULL);
	assert_int_equal(vblk_do(f, OUT, 0, 512), OK);
}

/* --- size ------------------------------------------------------------------------------------------ */

static u32 config_irqs(struct vblk *f)
{
	u32 status = driver_get(&f->d, VIRTIO_MMIO_INTERRUPT_STATUS);

	driver_set(&f->d, VIRTIO_MMIO_INTERRUPT_ACK, status);
	return status & VIRTIO_MMIO_INT_CONFIG;
}

static void grow(struct vblk *f, u64 size)
{
	struct err err = { 0 };
	u32 generation = driver_get(&f->d, VIRTIO_MMIO_CONFIG_GENERATION);
	int irqs = driver_irqs(&f->d);
	u64 old = blk_info(f->blk).size;

	config_irqs(f);
	assert_int_equal(vblk_do(f, IN, old / 512 - 1, 512), OK);
	assert_int_equal(vblk_do(f, IN, old / 512, 512), IOERR);
	irqs = driver_irqs(&f->d);
	config_irqs(f);
	if (blk_resize(f->blk, size, &err))
		fail_msg("%s", err.msg);
	/* Not before the driver is told. */
	assert_int_equal(vblk_config(f, 0, 8), old / 512);
	virtio_blk_resized(f->v);
	assert_int_equal(vblk_config(f, 0, 8), size / 512);
	assert_int_not_equal(driver_get(&f->d, VIRTIO_MMIO_CONFIG_GENERATION), generation);
	assert_true(config_irqs(f));
	assert_int_equal(driver_irqs(&f->d), irqs + 1);
	assert_int_equal(blk_info(f->blk).size, size);
	assert_true(reads_as(f, old / 512, MIN(8, (size - old) / 512), 0));
	assert_int_equal(vblk_do(f, OUT, size / 512 - 8, 4096), OK);
	assert_int_equal(vblk_do(f, OUT, size / 512 - 7, 4096), IOERR);
}

static void test_resize(void **state)
{
	static const struct { const char *format; u32 cluster; bool below; } shapes[] = {
		{ "raw", 0, false }, { "qcow2", 4096, false }, { "qcow2", 65536, true },
		{ "qcow2", 512, true },
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(shapes); i++) {
		struct vblk_setup s = plain();
		struct err err = { 0 };
		struct vblk *f;

		s.format = shapes[i].format;
		s.cluster = shapes[i].cluster;
		s.below = shapes[i].below;
		s.size = MIB;
		f = begin(&s);
		grow(f, MIB + 512);
		grow(f, 3 * MIB + 1024);
		grow(f, 200 * MIB);
		assert_int_equal(blk_resize(f->blk, 200 * MIB - 512, &err), -EINVAL);
		assert_says(err.msg, "can only grow; it has 209715200 bytes");
		assert_says(err.msg, f->path);
		assert_int_equal(blk_resize(f->blk, 200 * MIB + 1, &err), -EINVAL);
		assert_int_equal(blk_resize(f->blk, UINT64_MAX, &err), -EINVAL);
		assert_int_equal(blk_info(f->blk).size, 200 * MIB);
		assert_int_equal(blk_resize(f->blk, 200 * MIB, &err), 0);
		/* 0: what it has. */
		assert_int_equal(blk_resize(f->blk, 0, &err), 0);
		assert_int_equal(blk_info(f->blk).size, 200 * MIB);
		vblk_reopen(f);
		assert_int_equal(vblk_config(f, 0, 8), 200 * MIB / 512);
		assert_true(reads_as(f, MIB / 512 + 1, 8, 0));
		end();
	}
}

/* A file that somebody else made larger, or that somebody broke. */
static void test_resize_raw(void **state)
{
	struct vblk_setup s = plain();
	struct err err = { 0 };
	struct vblk *f;

	(void)state;
	f = begin(&s);
	assert_int_equal(truncate(f->path, 6 * MIB + 100), 0);
	assert_int_equal(vblk_do(f, IN, 4 * MIB / 512, 512), IOERR);
	assert_int_equal(blk_resize(f->blk, 0, &err), 0);
	virtio_blk_resized(f->v);
	assert_int_equal(vblk_config(f, 0, 8), 6 * MIB / 512);
	assert_int_equal(vblk_do(f, OUT, 6 * MIB / 512 - 1, 512), OK);
	assert_int_equal(truncate(f->path, 5 * MIB), 0);
	assert_int_equal(blk_resize(f->blk, 0, &err), -EINVAL);
	assert_int_equal(blk_info(f->blk).size, 6 * MIB);
	assert_int_equal(vblk_do(f, IN, 6 * MIB / 512 - 1, 512), IOERR);
	end();
	s.read_only = true;
	f = begin(&s);
	assert_int_equal(blk_resize(f->blk, 8 * MIB, &err), -EROFS);
	assert_says(err.msg, "read-only");
	end();
}

static void test_resize_fails(void **state)
{
	static const char *const formats[] = { "raw", "qcow2" };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(formats); i++) {
		struct vblk_setup s = plain();
		struct vblk *f;

		s.format = formats[i];
		s.cluster = 4096;
		s.below = i;
		f = begin(&s);
		fill(f, 0x21);
		assert_int_equal(vblk_do(f, FLUSH, 0, 0), OK);
		for (u64 nth = 0; ; nth++) {
			struct fault fault = { .ops = FILE_DATA_OPS & ~FILE_READ, .nth = nth, .error = ENOSPC };
			struct err err = { 0 };
			int rc;

			recorder_fail(&fault);
			rc = blk_resize(f->blk, 64 * MIB, &err);
			if (!recorder_failed()) {
				assert_int_equal(rc, 0);
				break;
			}
			if (recorder_failed() & FILE_SYNC)
				vblk_reopen(f);		/* a disk with that is done for */
			recorder_fail(NULL);
			assert_true(rc == 0 || rc == -ENOSPC);
			assert_true(reads_as(f, 0, 8, 0x21));
			if (!rc)
				break;
			assert_says(err.msg, f->path);
			assert_int_equal(blk_info(f->blk).size, 4 * MIB);
			assert_int_equal(vblk_do(f, IN, 4 * MIB / 512, 512), IOERR);
		}
		recorder_fail(NULL);
		virtio_blk_resized(f->v);
		assert_true(reads_as(f, 4 * MIB / 512, 128, 0));
		assert_int_equal(vblk_do(f, OUT, 64 * MIB / 512 - 8, 4096), OK);
		vblk_reopen(f);
		assert_int_equal(vblk_config(f, 0, 8), 64 * MIB / 512);
		assert_true(reads_as(f, 0, 128, 0x21));
		end();
	}
}

/* An empty file until there is another. */
static void test_replace(void **state)
{
	struct vblk_setup s = plain();
	struct blk_options o = { 0 };
	struct blk *blk;
	char path[100];
	struct vblk *f;
	int fd;

	(void)state;
	f = begin(&s);
	snprintf(path, sizeof(path), "%s/other", f->dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(blk_open(&blk, path, &o, NULL), 0);
	assert_int_equal(blk_info(blk).size, 0);
	device_quiesce(f->dev);
	virtio_blk_replaced(f->v, blk);
	device_resume(f->dev);
	blk_close(f->blk);
	f->blk = blk;
	assert_int_equal(vblk_config(f, 0, 8), 0);
	assert_int_equal(vblk_do(f, IN, 0, 512), IOERR);
	assert_int_equal(vblk_do(f, OUT, 0, 512), IOERR);
	assert_int_equal(vblk_do(f, FLUSH, 0, 0), OK);
	assert_int_equal(ftruncate(fd, 8 * MIB), 0);
	assert_int_equal(blk_resize(blk, 0, NULL), 0);
	virtio_blk_resized(f->v);
	assert_int_equal(vblk_config(f, 0, 8), 8 * MIB / 512);
	assert_int_equal(vblk_do(f, OUT, 8 * MIB / 512 - 8, 4096), OK);
	close(fd);
	unlink(path);
	end();
}

#define TEST(name) cmocka_unit_test_teardown(name, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_features), TEST(test_no_discard), TEST(test_topology),
		TEST(test_write_through), TEST(test_no_flush), TEST(test_replace),
		TEST(test_cache_not_negotiated), TEST(test_config_writes),
		TEST(test_sync_fails),
		cmocka_unit_test_teardown(test_limits, real_clock),
		cmocka_unit_test_teardown(test_limit_bytes, real_clock),
		TEST(test_stop), TEST(test_sync_lost), TEST(test_stop_many), TEST(test_stop_reset),
		TEST(test_stop_broken), TEST(test_stop_changed), TEST(test_stop_dirty), TEST(test_stop_not_for_all),
		TEST(test_resize), TEST(test_resize_raw), TEST(test_resize_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
