/* virtio_blk_test.c: virtio-blk on a file, through both aio engines. */
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <fcntl.h>
#include "devices/block/blk.h"
#include "tests/lib/driver.h"
#include "tests/lib/fetch.h"
#include "tests/lib/recorder.h"
#include "tests/lib/test.h"

enum { SECTORS = 256, HDR = 0x100000, DATA = 0x200000, STATUS = 0x300000, ANSWERED = 0xee };
enum { OK = VIRTIO_BLK_S_OK, IOERR = VIRTIO_BLK_S_IOERR, UNSUPP = VIRTIO_BLK_S_UNSUPP };

struct fixture {
	struct fake fake;
	struct driver d;
	struct blk *blk;
	struct device *dev;
	char path[32];
	int fd;
	u16 done;
};

static u8 pattern(u64 i)
{
	return i * 31 + i / 512 * 7 + 1;
}

static int setup(void **state, int engine, bool read_only, u64 size)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct blk_options o = { .read_only = read_only };
	struct virtio_blk_options vo = { .serial = "serial-7", .nr_queues = 1, .discard = true,
					 .write_zeroes = true };
	u8 image[SECTORS * 512];
	struct virtio *v;

	assert_non_null(f);
	strcpy(f->path, "/tmp/vmm-blk-test-XXXXXX");
	f->fd = mkstemp(f->path);
	for (unsigned i = 0; i < sizeof(image); i++)
		image[i] = pattern(i);
	assert_int_equal(write(f->fd, image, sizeof(image)), sizeof(image));
	assert_int_equal(ftruncate(f->fd, size), 0);
	fake_init(&f->fake, 8 * MIB, engine);
	assert_int_equal(blk_open(&f->blk, f->path, &o, NULL), 0);
	assert_int_equal(virtio_blk_new(&f->fake.p, "disk0", f->blk, &vo, &v, NULL), 0);
	assert_int_equal(virtio_mmio_new(v, DRIVER_BASE, DRIVER_GSI, &f->dev, NULL), 0);
	f->d.fake = &f->fake;
	driver_start(&f->d, 0, 1, 16);
	*state = f;
	return 0;
}

static int setup_threads(void **state)	{ return setup(state, AIO_THREADS, false, SECTORS * 512); }
static int setup_auto(void **state)	{ return setup(state, AIO_AUTO, false, SECTORS * 512); }
static int setup_ro(void **state)	{ return setup(state, AIO_AUTO, true, SECTORS * 512); }
static int setup_large(void **state)	{ return setup(state, AIO_THREADS, false, 2 * GIB); }

static int teardown(void **state)
{
	struct fixture *f = *state;

	device_destroy(f->dev);
	blk_close(f->blk);
	fake_fini(&f->fake);
	unlink(f->path);
	close(f->fd);
	free(f);
	return 0;
}

static bool answered(void *arg)
{
	struct fixture *f = arg;

	return ring_used_idx(&f->d.ring[0]) == f->done;
}

/* One request of a header, data and a status byte, into the ring. */
static u16 offer(struct fixture *f, u32 type, u64 sector, u32 len, bool in)
{
	struct virtio_blk_outhdr hdr = { .type = type, .sector = sector };
	struct piece p[] = { { HDR, sizeof(hdr), false }, { DATA, len, in }, { STATUS, 1, true } };
	u8 status = ANSWERED;

	assert_int_equal(mem_write_obj(f->fake.p.mem, GPA(HDR), &hdr), 0);
	assert_int_equal(mem_write_obj(f->fake.p.mem, GPA(STATUS), &status), 0);
	if (!len)
		p[1] = p[2];
	f->done++;
	return ring_add(&f->d.ring[0], p, len ? 3 : 2);
}

/* Its status. */
static u8 wait_for_answer(struct fixture *f)
{
	u8 status;

	driver_set(&f->d, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	assert_true(fake_turn_until(&f->fake, answered, f));
	assert_int_equal(mem_read_obj(f->fake.p.mem, GPA(STATUS), &status), 0);
	return status;
}

static u8 request(struct fixture *f, u32 type, u64 sector, u32 len, bool in, u32 want_written)
{
	u16 head = offer(f, type, sector, len, in);
	u8 status = wait_for_answer(f);

	assert_int_equal(ring_used(&f->d.ring[0], f->done - 1).id, head);
	assert_int_equal(ring_used(&f->d.ring[0], f->done - 1).len, want_written);
	return status;
}

static void test_config(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_DEVICE_ID), 2);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_CONFIG), SECTORS);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_CONFIG + 4), 0);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_CONFIG + 20), 512);
	assert_true(driver_offered(&f->d) >> VIRTIO_BLK_F_FLUSH & 1);
	assert_false(driver_offered(&f->d) >> VIRTIO_BLK_F_RO & 1);
	assert_true(driver_offered(&f->d) >> VIRTIO_BLK_F_DISCARD & 1);
}

static void test_read(void **state)
{
	struct fixture *f = *state;
	u8 got[1024];

	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 5, 1024, true, 1025), OK);
	assert_int_equal(mem_read_obj(f->fake.p.mem, GPA(DATA), &got), 0);
	for (int i = 0; i < 1024; i++)
		assert_int_equal(got[i], pattern(5 * 512 + i));
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, SECTORS - 1, 512, true, 513), OK);
	assert_true(driver_irqs(&f->d) >= 2);
}

static void test_write_and_flush(void **state)
{
	struct fixture *f = *state;
	u8 data[512], got[512];

	memset(data, 0x5a, sizeof(data));
	assert_int_equal(mem_write_obj(f->fake.p.mem, GPA(DATA), &data), 0);
	assert_int_equal(request(f, VIRTIO_BLK_T_OUT, 9, 512, false, 1), OK);
	assert_int_equal(request(f, VIRTIO_BLK_T_FLUSH, 0, 0, false, 1), OK);
	assert_int_equal(pread(f->fd, got, 512, 9 * 512), 512);
	assert_memory_equal(got, data, 512);
	assert_int_equal(pread(f->fd, got, 512, 10 * 512), 512);
	assert_int_equal(got[0], pattern(10 * 512));
	assert_int_equal(pread(f->fd, got, 512, 8 * 512), 512);
	assert_int_equal(got[511], pattern(9 * 512 - 1));
}

static u8 range_request(struct fixture *f, u32 type, u64 sector, u32 nr, u32 flags, u32 len)
{
	struct virtio_blk_discard_write_zeroes seg = { sector, nr, flags };

	assert_int_equal(mem_write_obj(f->fake.p.mem, GPA(DATA), &seg), 0);
	return request(f, type, 0, len, false, 1);
}

static void test_write_zeroes_and_discard(void **state)
{
	struct fixture *f = *state;
	u8 got[512], zero[512] = { 0 };

	for (u32 flags = 0; flags <= 1; flags++) {
		u64 at = 16 + 16 * flags;

		assert_int_equal(range_request(f, VIRTIO_BLK_T_WRITE_ZEROES, at, 8, flags, 16), OK);
		for (int i = 0; i < 8; i++) {
			assert_int_equal(pread(f->fd, got, 512, (at + i) * 512), 512);
			assert_memory_equal(got, zero, 512);
		}
		assert_int_equal(pread(f->fd, got, 512, (at + 8) * 512), 512);
		assert_int_equal(got[0], pattern((at + 8) * 512));
	}
	assert_int_equal(range_request(f, VIRTIO_BLK_T_DISCARD, 64, 8, 0, 16), OK);
	assert_int_equal(range_request(f, VIRTIO_BLK_T_DISCARD, 64, 8, 1, 16), UNSUPP);
	assert_int_equal(range_request(f, VIRTIO_BLK_T_WRITE_ZEROES, 64, 8, 2, 16), UNSUPP);
	assert_int_equal(range_request(f, VIRTIO_BLK_T_DISCARD, 64, 0, 0, 16), IOERR);
	assert_int_equal(range_request(f, VIRTIO_BLK_T_DISCARD, SECTORS - 7, 8, 0, 16), IOERR);
	assert_int_equal(range_request(f, VIRTIO_BLK_T_DISCARD, ~0ULL, 1, 0, 16), IOERR);
	assert_int_equal(range_request(f, VIRTIO_BLK_T_DISCARD, 0, 0xffffffff, 0, 16), IOERR);
	assert_int_equal(range_request(f, VIRTIO_BLK_T_DISCARD, 0, 1, 0, 15), IOERR);
	assert_int_equal(range_request(f, VIRTIO_BLK_T_DISCARD, 0, 1, 0, 32), IOERR);
}

static void test_get_id(void **state)
{
	struct fixture *f = *state;
	char id[20];

	assert_int_equal(request(f, VIRTIO_BLK_T_GET_ID, 0, 20, true, 21), OK);
	assert_int_equal(mem_read_obj(f->fake.p.mem, GPA(DATA), &id), 0);
	assert_memory_equal(id, "serial-7\0\0\0\0\0\0\0\0\0\0\0\0", 20);
	/* No more than there is room for. */
	assert_int_equal(mem_fill(f->fake.p.mem, GPA(DATA), ANSWERED, sizeof(id)), 0);
	assert_int_equal(request(f, VIRTIO_BLK_T_GET_ID, 0, 6, true, 7), OK);
	assert_int_equal(mem_read_obj(f->fake.p.mem, GPA(DATA), &id), 0);
	assert_memory_equal(id, "serial\xee\xee\xee", 9);
}

static void test_errors(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(request(f, VIRTIO_BLK_T_IN, SECTORS, 512, true, 1), IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, SECTORS - 1, 1024, true, 1), IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_OUT, ~0ULL, 512, false, 1), IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_OUT, ~0ULL / 512, 1024, false, 1), IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_OUT, 1ULL << 55, 512, false, 1), IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 511, true, 1), IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 0, true, 1), IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_OUT, 0, 0, false, 1), IOERR);
	assert_int_equal(request(f, 0x7777, 0, 0, false, 1), UNSUPP);
	assert_int_equal(request(f, 0xffffffff, 0, 512, true, 1), UNSUPP);
	/* After all that it still works. */
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 512, true, 513), OK);
	assert_int_equal(f->dev->guest_errors, 0);
}

static void assert_counted(struct fixture *f, const char *name, const char *op, u64 want)
{
	u64 got = metrics_sum(&f->fake.metrics, "disk0", name, op);

	if (got != want)
		fail_msg("%s{%s}: %llu, not %llu", name, op, (unsigned long long)got,
			 (unsigned long long)want);
}

/* What the driver asked for and got, refused or not; each latency once. */
static void test_counters(void **state)
{
	struct fixture *f = *state;
	struct histogram h;

	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 5, 1024, true, 1025), OK);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 5, 512, true, 513), OK);
	assert_int_equal(request(f, VIRTIO_BLK_T_OUT, 9, 512, false, 1), OK);
	assert_int_equal(request(f, VIRTIO_BLK_T_FLUSH, 0, 0, false, 1), OK);
	assert_int_equal(range_request(f, VIRTIO_BLK_T_DISCARD, 64, 8, 0, 16), OK);
	assert_int_equal(request(f, VIRTIO_BLK_T_GET_ID, 0, 20, true, 21), OK);
	assert_counted(f, "disk_requests_total", "op=\"read\"", 2);
	assert_counted(f, "disk_bytes_total", "op=\"read\"", 1536);
	assert_counted(f, "disk_requests_total", "op=\"write\"", 1);
	assert_counted(f, "disk_bytes_total", "op=\"write\"", 512);
	assert_counted(f, "disk_requests_total", "op=\"flush\"", 1);
	assert_counted(f, "disk_bytes_total", "op=\"discard\"", 4096);
	assert_counted(f, "disk_requests_total", NULL, 5);
	assert_counted(f, "disk_kicks_total", NULL, 7);		/* and a look when it started */
	assert_counted(f, "disk_invalid_requests_total", NULL, 0);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, SECTORS, 512, true, 1), IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 511, true, 1), IOERR);
	assert_int_equal(request(f, 0x7777, 0, 0, false, 1), UNSUPP);
	assert_counted(f, "disk_invalid_requests_total", NULL, 3);
	assert_counted(f, "disk_errors_total", NULL, 0);
	assert_int_equal(blk_resize(f->blk, 2 * SECTORS * 512, NULL), 0);
	assert_int_equal(ftruncate(f->fd, 0), 0);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 512, true, 1), IOERR);
	assert_counted(f, "disk_errors_total", "op=\"read\"", 1);
	assert_counted(f, "disk_bytes_total", "op=\"read\"", 1536);
	h = metrics_histogram(&f->fake.metrics, "disk0", "disk_latency_seconds", "op=\"read\"");
	assert_int_equal(histogram_count(&h), 3);
	assert_true(h.min_ns && h.min_ns <= h.max_ns && h.max_ns <= h.sum_ns);
	/* The look when it started found nothing; each request was answered by an interrupt. */
	assert_counted(f, "disk_empty_kicks_total", NULL, 1);
	driver_kick(&f->d, 0);
	assert_counted(f, "disk_empty_kicks_total", NULL, 2);
	metrics_refresh(&f->fake.metrics);
	assert_counted(f, "virtio_interrupts_total", NULL, 10);
}

static void needs_reset(struct fixture *f, const struct piece *p, int nr)
{
	driver_start(&f->d, 0, 1, 16);
	ring_add(&f->d.ring[0], p, nr);
	driver_kick(&f->d, 0);
	assert_true(driver_get(&f->d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_int_equal(ring_used_idx(&f->d.ring[0]), 0);
}

static void test_malformed(void **state)
{
	struct fixture *f = *state;
	struct piece no_status[] = { { HDR, 16, false } };
	struct piece empty_status[] = { { HDR, 16, false }, { STATUS, 0, true } };
	struct piece no_header[] = { { STATUS, 1, true } };
	struct piece short_header[] = { { HDR, 15, false }, { STATUS, 1, true } };
	struct piece outside[] = { { HDR, 16, false }, { GIB, 512, true }, { STATUS, 1, true } };

	needs_reset(f, no_status, 1);
	needs_reset(f, empty_status, 2);
	needs_reset(f, no_header, 1);
	needs_reset(f, short_header, 2);
	needs_reset(f, outside, 3);
	driver_start(&f->d, 0, 1, 16);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 512, true, 513), OK);
	assert_counted(f, "virtio_failed_starts_total", NULL, 0);
	assert_counted(f, "virtio_config_errors_total", NULL, 0);
	driver_set(&f->d, VIRTIO_MMIO_CONFIG, 7);
	driver_get(&f->d, VIRTIO_MMIO_CONFIG + 0x80);
	assert_counted(f, "virtio_config_errors_total", NULL, 2);
	driver_set(&f->d, VIRTIO_MMIO_STATUS, 0);
	driver_set(&f->d, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_DRIVER_OK);
	assert_counted(f, "virtio_failed_starts_total", NULL, 1);
}

/* What 16 bytes at addr ask for changes after each of the reads of them, in turn, to something
 * that is refused, and that without its check is the first sector. */
static void change_between_reads(struct fixture *f, u32 type, u32 len, u64 addr,
				 const void *now)
{
	u8 *at = (u8 *)mem_region(f->fake.p.mem, 0).host + addr, got[512], status;
	unsigned after = 0, reads;

	do {
		struct virtio_blk_discard_write_zeroes seg = { 9, 1, 0 };

		assert_int_equal(mem_write_obj(f->fake.p.mem, GPA(DATA), &seg), 0);
		offer(f, type, 9, len, false);
		fetch_begin(at, now, 16, ++after);
		status = wait_for_answer(f);
		reads = fetch_end();
		assert_true(status == OK || status == IOERR);
		assert_int_equal(pread(f->fd, got, sizeof(got), 0), sizeof(got));
		for (unsigned i = 0; i < sizeof(got); i++)
			assert_int_equal(got[i], pattern(i));
	} while (after < reads);
	assert_true(reads > 0);
}

static void test_request_changes(void **state)
{
	static const struct virtio_blk_outhdr hdr = { VIRTIO_BLK_T_OUT, 0, 1ULL << 55 };
	static const struct virtio_blk_discard_write_zeroes seg = { 1ULL << 55, 1, 0 };
	struct fixture *f = *state;

	change_between_reads(f, VIRTIO_BLK_T_OUT, 512, HDR, &hdr);
	change_between_reads(f, VIRTIO_BLK_T_WRITE_ZEROES, sizeof(seg), DATA, &seg);
}

static void test_read_only(void **state)
{
	struct fixture *f = *state;

	assert_true(driver_offered(&f->d) >> VIRTIO_BLK_F_RO & 1);
	assert_false(driver_offered(&f->d) >> VIRTIO_BLK_F_DISCARD & 1);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 512, true, 513), OK);
	assert_int_equal(request(f, VIRTIO_BLK_T_OUT, 0, 512, false, 1), IOERR);
	assert_int_equal(range_request(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0, 16), UNSUPP);
}

/* Five at once, each into a page of its own. */
static void offer_reads(struct fixture *f)
{
	struct virtio_blk_outhdr hdr = { .type = VIRTIO_BLK_T_IN };

	assert_int_equal(mem_write_obj(f->fake.p.mem, GPA(HDR), &hdr), 0);
	for (u64 i = 0; i < 5; i++) {
		struct piece p[] = { { HDR, 16, false }, { DATA + i * 4096, 4096, true },
				     { STATUS, 1, true } };

		ring_add(&f->d.ring[0], p, 3);
	}
}

/* A reset waits for what is in flight, and nothing is left of it. */
static void test_reset_with_requests(void **state)
{
	struct fixture *f = *state;

	offer_reads(f);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	fake_turn(&f->fake);
	driver_set(&f->d, VIRTIO_MMIO_STATUS, 0);
	assert_int_equal(ring_used_idx(&f->d.ring[0]), 5);
	driver_start(&f->d, 0, 1, 16);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 512, true, 513), OK);
}

/* So does a queue taken back; then its rings and buffers are the driver's. */
static void test_disable_with_requests(void **state)
{
	struct fixture *f = *state;
	struct piece p[] = { { HDR, 16, false }, { DATA, 4096, true }, { STATUS, 1, true } };
	u8 got[5 * 4096];

	offer_reads(f);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	fake_turn(&f->fake);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_READY, 0);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_QUEUE_READY), 0);
	assert_int_equal(ring_used_idx(&f->d.ring[0]), 5);
	assert_int_equal(mem_fill(f->fake.p.mem, GPA(DATA), ANSWERED, sizeof(got)), 0);
	ring_add(&f->d.ring[0], p, 3);
	driver_kick(&f->d, 0);
	assert_int_equal(ring_used_idx(&f->d.ring[0]), 5);
	assert_int_equal(mem_read_obj(f->fake.p.mem, GPA(DATA), &got), 0);
	for (unsigned i = 0; i < sizeof(got); i++)
		assert_int_equal(got[i], ANSWERED);
	assert_int_equal(f->dev->guest_errors, 0);
	driver_start(&f->d, 0, 1, 16);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 512, true, 513), OK);
}

/* As a driver kicks that follows the device's wishes. */
static void offer_and_kick(struct fixture *f, u16 nr, bool event_idx)
{
	struct ring *r = &f->d.ring[0];
	u16 old = r->next_avail;

	for (u16 i = 0; i < nr; i++)
		ring_offer(r, r->next_avail % r->size);
	if (event_idx ? vring_need_event(ring_avail_event(r), r->next_avail, old) :
			!(ring_used_flags(r) & VRING_USED_F_NO_NOTIFY))
		driver_set(&f->d, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	fake_turn(&f->fake);
	f->done += nr;
}

/* As many in flight as the queue has entries; the device hears of what comes after. */
static void full_queue(struct fixture *f, bool event_idx)
{
	enum { SIZE = VIRTQ_MAX };
	struct virtio_blk_outhdr hdr = { .type = VIRTIO_BLK_T_FLUSH };
	u64 features = 1ULL << VIRTIO_RING_F_INDIRECT_DESC |
		       (event_idx ? 1ULL << VIRTIO_RING_F_EVENT_IDX : 0);
	struct mem *m = f->fake.p.mem;

	driver_start(&f->d, features, 1, SIZE);
	f->done = 0;
	assert_int_equal(mem_write_obj(m, GPA(HDR), &hdr), 0);
	ring_desc_at(m, DATA, 0, HDR, sizeof(hdr), VRING_DESC_F_NEXT, 1);
	ring_desc_at(m, DATA, 1, STATUS, 1, VRING_DESC_F_WRITE, 0);
	for (u16 i = 0; i < SIZE; i++)
		ring_desc(&f->d.ring[0], i, DATA, 32, VRING_DESC_F_INDIRECT, 0);
	for (int first = SIZE - 1; first > 0; first -= 50) {
		recorder_hold(FILE_SYNC);
		offer_and_kick(f, first, event_idx);
		offer_and_kick(f, SIZE - first, event_idx);
		recorder_hold(0);
		assert_true(fake_turn_until(&f->fake, answered, f));
		offer_and_kick(f, 1, event_idx);
		assert_true(fake_turn_until(&f->fake, answered, f));
	}
}

static void test_full_queue(void **state)
{
	full_queue(*state, false);
	full_queue(*state, true);
}

/* So many in flight, and no more; then the rest.  A reset, or a pause, waits for no more than those. */
static void bounded(struct fixture *f, unsigned op, u16 in_flight)
{
	struct virtio *v = container_of(f->dev, struct virtio, dev);
	u16 taken, done;

	recorder_hold(op);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	for (int i = 0; i < 3; i++)
		fake_turn(&f->fake);
	taken = v->vq[0].next_avail;
	done = ring_used_idx(&f->d.ring[0]);
	recorder_hold(0);
	assert_int_equal(done, 0);
	assert_int_equal(taken, in_flight);
	assert_true(fake_turn_until(&f->fake, answered, f));
}

static void test_bytes_in_flight(void **state)
{
	enum { PIECE = 256 * KIB, PIECES = 128, TABLE = 0x180000, TABLES = 4096, PLACE = 0x400000 };	/* 32 MiB */
	struct virtio_blk_outhdr hdr = { .type = VIRTIO_BLK_T_IN };
	struct virtio_blk_discard_write_zeroes seg = { 0, 256 * MIB / 512, 0 };
	struct fixture *f = *state;
	struct mem *m = f->fake.p.mem;

	driver_start(&f->d, 1ULL << VIRTIO_RING_F_INDIRECT_DESC, 1, 16);
	assert_int_equal(mem_write_obj(m, GPA(HDR), &hdr), 0);
	for (u16 i = 0; i < 6; i++) {
		u64 table = TABLE + i * TABLES;

		/* All of one to one place, but no two to the same. */
		ring_desc_at(m, table, 0, HDR, sizeof(hdr), VRING_DESC_F_NEXT, 1);
		for (u16 j = 1; j <= PIECES; j++)
			ring_desc_at(m, table, j, PLACE + i * PIECE, PIECE, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE,
				     j + 1);
		ring_desc_at(m, table, PIECES + 1, STATUS, 1, VRING_DESC_F_WRITE, 0);
		ring_desc(&f->d.ring[0], i, table, 16 * (PIECES + 2), VRING_DESC_F_INDIRECT, 0);
		ring_offer(&f->d.ring[0], i);
	}
	f->done = 6;
	bounded(f, FILE_READ, 3);

	/* More than any driver is told that it may ask for is refused. */
	f->done = 0;
	driver_start(&f->d, 1ULL << VIRTIO_RING_F_INDIRECT_DESC, 1, 16);
	for (u16 i = PIECES + 1; i <= 255; i++)
		ring_desc_at(m, TABLE, i, DATA, PIECE, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, i + 1);
	ring_desc_at(m, TABLE, 256, STATUS, 1, VRING_DESC_F_WRITE, 0);
	ring_desc(&f->d.ring[0], 0, TABLE, 16 * 257, VRING_DESC_F_INDIRECT, 0);
	ring_offer(&f->d.ring[0], 0);
	f->done++;
	assert_int_equal(wait_for_answer(f), IOERR);
	assert_int_equal(range_request(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, GIB / 512, 0, 16), OK);
	assert_int_equal(range_request(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, GIB / 512 + 1, 0, 16), IOERR);
	assert_int_equal(range_request(f, VIRTIO_BLK_T_DISCARD, 0, GIB / 512 + 1, 0, 16), IOERR);

	/* What the host cannot do at once it writes, all of it. */
	driver_start(&f->d, 0, 1, 16);
	assert_int_equal(mem_write_obj(m, GPA(DATA), &seg), 0);
	f->done = 0;
	for (u16 i = 0; i < 4; i++)
		offer(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, sizeof(seg), false);
	bounded(f, FILE_ZERO | FILE_WRITE, 1);
}

#define BOTH(name) cmocka_unit_test_setup_teardown(name, setup_threads, teardown), \
		   cmocka_unit_test_setup_teardown(name, setup_auto, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_config), BOTH(test_read), BOTH(test_write_and_flush),
		BOTH(test_write_zeroes_and_discard), BOTH(test_get_id), BOTH(test_errors), BOTH(test_counters),
		BOTH(test_malformed), BOTH(test_reset_with_requests),
		BOTH(test_disable_with_requests), BOTH(test_request_changes),
		cmocka_unit_test_setup_teardown(test_full_queue, setup_threads, teardown),
		cmocka_unit_test_setup_teardown(test_bytes_in_flight, setup_large, teardown),
		cmocka_unit_test_setup_teardown(test_read_only, setup_ro, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
