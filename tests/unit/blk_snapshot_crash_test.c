/*
 * blk_snapshot_crash_test.c: power cuts while a disk in use has its snapshot taken: what was flushed is there, and what
 * the snapshot has.
 *
 *   CRASH_SEED, CRASH_CUTS (at each operation of taking a snapshot), CRASH_SHAPE (one only)
 */
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include "devices/block/chain.h"
#include "tests/lib/disk.h"
#include "tests/lib/recorder.h"
#include "tests/lib/test.h"
#include "tests/lib/vblk.h"

enum {
	IN = VIRTIO_BLK_T_IN, OUT = VIRTIO_BLK_T_OUT, FLUSH = VIRTIO_BLK_T_FLUSH,
	ZEROES = VIRTIO_BLK_T_WRITE_ZEROES, OK = VIRTIO_BLK_S_OK,
	SECTORS = 512, SNAPSHOTS = 3, MAX_WRITES = 1 << 16,
};

static struct vblk_setup shapes[] = {
	{ .engine = AIO_THREADS },
	{ .engine = AIO_THREADS, .format = "qcow2", .cluster = 4096 },
	{ .engine = AIO_THREADS, .format = "qcow2", .cluster = 512, .below = true },
	{ .engine = AIO_THREADS, .format = "qcow2", .cluster = 65536, .below = true },
};

/* A sector was given this number, from this of the recorder's marks on. */
struct written { u32 sector, id, begin, prev; };

/* From mark end on the first of the writes are for good. */
struct flushed { u32 writes, end; };

static struct vblk vblk;
static struct written written[MAX_WRITES];
static u32 nr_written, last[SECTORS];		/* of each sector, + 1; 0: none */
static struct flushed flushed[4096];
static u32 nr_flushed;
static u32 then[SNAPSHOTS][SECTORS];		/* what a snapshot has... */
static struct { u32 begin, end; } taking[SNAPSHOTS];	/* ...and the marks it was taken between */
static u64 seed, cuts;

/* --- sectors by number ---------------------------------------------------------------------- */

static void fill(u8 *sector, u32 id)
{
	u64 word = id * 0x9e3779b97f4a7c15ULL;

	for (int i = 0; i < 512; i += 8)
		memcpy(sector + i, &word, 8);
}

static bool has(const u8 *sector, u32 id)
{
	u8 want[512];

	fill(want, id);
	return !memcmp(sector, want, 512);
}

/* Before all else it was zeroes, or the disk below. */
static bool is_first(const u8 *sector, u32 n)
{
	u8 want[512] = { 0 };

	for (u64 i = 0; i < 512 && vblk.setup->below; i++)
		want[i] = vblk_below(n * 512ULL + i);
	return !memcmp(sector, want, 512);
}

static u32 flushed_at(u32 mark)
{
	u32 writes = 0;

	for (u32 i = 0; i < nr_flushed; i++)
		if (flushed[i].end <= mark)
			writes = MAX(writes, flushed[i].writes);
	return writes;
}

/* The last that was flushed, or any after it. */
static bool allowed(const u8 *sector, u32 n, u32 sure, u32 mark)
{
	for (u32 w = last[n]; w; w = written[w - 1].prev) {
		const struct written *v = &written[w - 1];

		if (v->begin > mark)
			continue;
		if (has(sector, v->id))
			return true;
		if (w <= sure)
			return false;
	}
	return is_first(sector, n);
}

/* --- use ----------------------------------------------------------------------------------- */

static void add(u32 first, u32 nr, bool zero)
{
	for (u32 n = first; n < first + nr; n++) {
		assert_in_range(nr_written, 0, MAX_WRITES - 1);
		written[nr_written] = (struct written){ n, zero ? 0 : nr_written + 1, recorder_mark(), last[n] };
		last[n] = ++nr_written;
	}
}

static void write_some(bool zero)
{
	u32 first = draw(&seed) % SECTORS, nr = 1 + draw(&seed) % MIN(24, SECTORS - first);
	u32 from = nr_written;
	u8 data[24 * 512];

	add(first, nr, zero);
	for (u32 n = 0; n < nr && !zero; n++)
		fill(data + 512 * n, written[from + n].id);
	if (zero) {
		assert_int_equal(vblk_range(&vblk, ZEROES, first, nr, draw(&seed) & 1), OK);
	} else {
		vblk_put(&vblk, 0, 0, data, 512 * nr);
		assert_int_equal(vblk_do(&vblk, OUT, first, 512 * nr), OK);
	}
}

static void flush(void)
{
	assert_int_equal(vblk_do(&vblk, FLUSH, 0, 0), OK);
	flushed[nr_flushed++] = (struct flushed){ nr_written, recorder_mark() };
}

static void use(unsigned steps)
{
	while (steps--)
		switch (draw(&seed) % 8) {
		case 0: case 1:
			flush();
			break;
		case 2:
			write_some(true);
			break;
		default:
			write_some(false);
		}
}

static void take_snapshot(unsigned n)
{
	struct err err = { 0 };
	char name[16];
	u32 writes;

	snprintf(name, sizeof(name), "s%u", n);
	taking[n].begin = recorder_mark();
	if (blk_snapshot_prepare(vblk.blk, name, &err))
		fail_msg("%s", err.msg);
	use(6);
	device_quiesce(vblk.dev);
	writes = nr_written;
	blk_snapshot_take(vblk.blk);
	device_resume(vblk.dev);
	for (u32 i = 0; i < SECTORS; i++)
		then[n][i] = last[i];
	/* Who flushes first settles it. */
	use(draw(&seed) % 6);
	if (blk_snapshot_settle(vblk.blk, &err))
		fail_msg("%s", err.msg);
	taking[n].end = recorder_mark();
	flushed[nr_flushed++] = (struct flushed){ writes, taking[n].end };
}

/* --- after the cut --------------------------------------------------------------------------- */

static struct image *open_at(const char *path, bool read_only, u32 mark, u64 cut)
{
	struct image_options o = { .read_only = read_only };
	struct image_check c = { 0 };
	struct err err = { 0 };
	struct image *i;

	if (image_open(&i, path, &o, &err))
		fail_msg("cut after %u, %#llx: %s", mark, (unsigned long long)cut, err.msg);
	for (struct image *at = i; at; at = at->backing)
		assert_int_equal(image_check(at, false, &c, &err), 0);
	if (c.corruptions)
		fail_msg("cut after %u, %#llx: %s: %llu corruptions", mark, (unsigned long long)cut,
			 path, (unsigned long long)c.corruptions);
	return i;
}

static u8 bytes[SECTORS * 512];

static void judge_snapshot(const char *dir, unsigned n, u32 mark, u64 cut)
{
	char path[128];
	struct image *i;

	snprintf(path, sizeof(path), "%s/disk@s%u", dir, n);
	i = open_at(path, true, mark, cut);
	assert_int_equal(image_read(i, 0, bytes, sizeof(bytes)), 0);
	for (u32 s = 0; s < SECTORS; s++) {
		u32 w = then[n][s];

		if (w ? !has(bytes + 512 * s, written[w - 1].id) : !is_first(bytes + 512 * s, s))
			fail_msg("cut after %u, %#llx: snapshot %u has another sector %u", mark,
				 (unsigned long long)cut, n, s);
	}
	image_close(i);
}

static void judge(const char *dir, u32 mark, u64 cut)
{
	u32 sure = flushed_at(mark);
	struct image *i;
	char path[128];
	u8 sector[512];

	snprintf(path, sizeof(path), "%s/disk", dir);
	i = open_at(path, false, mark, cut);
	assert_int_equal(i->size, sizeof(bytes));
	assert_int_equal(image_read(i, 0, bytes, sizeof(bytes)), 0);
	for (u32 s = 0; s < SECTORS; s++)
		if (!allowed(bytes + 512 * s, s, sure, mark))
			fail_msg("cut after %u, %#llx: sector %u is lost", mark, (unsigned long long)cut, s);
	/* And it can be used. */
	fill(sector, 77);
	assert_int_equal(image_write(i, 512 * 100, sector, 512), 0);
	assert_int_equal(image_flush(i), 0);
	assert_int_equal(image_read(i, 0, bytes, sizeof(bytes)), 0);
	assert_true(has(bytes + 512 * 100, 77));
	image_close(i);
	for (unsigned n = 0; n < SNAPSHOTS; n++)
		if (taking[n].end <= mark)
			judge_snapshot(dir, n, mark, cut);
}

static char left[DISK_DIR_LEN];

static void cut_after(u32 mark)
{
	u64 cut = draw(&seed);

	disk_empty_dir(left);
	recorder_crash(mark, cut, left);
	judge(left, mark, cut);
}

static bool is_taking(u32 mark)
{
	for (unsigned n = 0; n < SNAPSHOTS; n++)
		if (mark >= taking[n].begin && mark <= taking[n].end)
			return true;
	return false;
}

static void test_crash(void **state)
{
	struct vblk_setup *s = *state;

	s->size = sizeof(bytes);
	s->features = ~0ULL;
	s->o = (struct virtio_blk_options){ .nr_queues = 1, .discard = true, .write_zeroes = true };
	nr_written = nr_flushed = 0;
	memset(last, 0, sizeof(last));
	disk_mkdir(left);
	vblk_new(&vblk, s);
	use(4);
	flush();
	recorder_start_dir(vblk.dir);
	for (unsigned n = 0; n < SNAPSHOTS; n++) {
		use(8);
		take_snapshot(n);
	}
	use(8);
	for (u32 mark = 0; mark <= recorder_mark(); mark++)
		for (u64 n = is_taking(mark) ? cuts : mark % 8 == 0; n; n--)
			cut_after(mark);
}

static int teardown(void **state)
{
	(void)state;
	recorder_stop();
	disk_rmdir(left);
	vblk_free(&vblk);
	return 0;
}

int main(void)
{
	struct CMUnitTest test[ARRAY_SIZE(shapes)];
	static char name[ARRAY_SIZE(shapes)][32];
	const char *only = getenv("CRASH_SHAPE");
	size_t nr = 0;

	seed = env_seed("CRASH_SEED");
	cuts = env_number("CRASH_CUTS", 2);
	print_message("CRASH_SEED=%llu CRASH_CUTS=%llu\n", (unsigned long long)seed, (unsigned long long)cuts);
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
		snprintf(name[i], sizeof(name[i]), "%s, %u", shapes[i].format ? shapes[i].format : "raw",
			 shapes[i].cluster);
		if (!only || !strcmp(only, name[i]))
			test[nr++] = (struct CMUnitTest){ name[i], test_crash, NULL, teardown, &shapes[i] };
	}
	return _cmocka_run_group_tests("blk_snapshot_crash", test, nr, NULL, NULL);
}
