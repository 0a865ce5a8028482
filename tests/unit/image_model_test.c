/*
 * image_model_test.c: random use of disk images against what a disk is.
 *
 *   MODEL_SEED, MODEL_OPS (for each shape, see nr_ops), MODEL_SHAPE (one only), DISK_TRACE=1, DISK_DIR
 */
#include "devices/block/blk.h"
#include "devices/block/file.h"
#include "tests/lib/disk.h"
#include "tests/lib/test.h"
#include "vmm/core/loop.h"

#define Q2(c, bits, below, mb, max)	{ "qcow2 v2, " #c ", " #below " below", "qcow2", c, 2, bits, \
					  false, below, (mb) * MIB, (max) * MIB }
#define Q3(c, bits, below, mb, max)	{ "qcow2, " #c ", " #bits " bits, " #below " below", "qcow2", \
					  c, 3, bits, false, below, (mb) * MIB, (max) * MIB }
#define LAZY(c, bits, below, mb, max)	{ "qcow2 lazy, " #c ", " #below " below", "qcow2", c, 3, bits, \
					  true, below, (mb) * MIB, (max) * MIB }

/* The larger ones have several L2 tables and refcount blocks, and outgrow their first L1 table. */
static const struct disk_shape shapes[] = {
	{ "raw", "raw", 0x10000, 0, 0, false, 0, 3 * MIB, 8 * MIB },
	Q3(512, 1, 0, 1, 3),		Q3(512, 16, 1, 1, 8),		Q3(512, 64, 0, 3, 12),
	Q3(512, 64, 3, 1, 3),		Q2(512, 16, 0, 2, 5),		Q2(512, 16, 2, 1, 3),
	Q3(4096, 2, 0, 3, 20),		Q3(4096, 4, 1, 2, 9),		Q3(4096, 8, 2, 3, 5),
	Q3(4096, 32, 3, 3, 20),		Q2(4096, 16, 1, 3, 4),		LAZY(4096, 16, 1, 3, 20),
	Q3(65536, 16, 0, 600, 1500),	Q3(65536, 1, 1, 5, 1200),	Q3(65536, 64, 3, 600, 1500),
	Q2(65536, 16, 0, 5, 600),	Q2(65536, 16, 2, 2, 9),		LAZY(65536, 16, 0, 5, 9),
	Q3(2097152, 16, 0, 16, 700000),	Q3(2097152, 64, 1, 16, 40),	Q2(2097152, 16, 1, 16, 40),
	LAZY(512, 8, 2, 1, 3),
};

static u64 seed, ops;
static struct disk disk;

/* Every sector is where image_where says, and nothing is where it says zeroes. */
static void walk(struct disk *d)
{
	struct image *i = d->image;
	struct image_where w;
	u8 sector[BLK_SECTOR];

	for (u64 at = 0; at < i->size; at += w.extent.len) {
		int rc = image_where(i, at, i->size - at, &w);

		if (rc || !w.extent.len || w.extent.len > i->size - at)
			disk_fail(d, "where is %#llx: %d, %#llx bytes on", (unsigned long long)at, rc,
				  (unsigned long long)w.extent.len);
		for (u64 n = 0; n < w.extent.len; n += BLK_SECTOR) {
			u32 id = disk_sector(d, at + n), is = 0;

			if (id == (u32)-1) {	/* outside the spans: on to the next cluster */
				n = ALIGN_DOWN(at + n, (u64)d->shape->cluster) + d->shape->cluster -
				    at - BLK_SECTOR;
				continue;
			}
			if (w.depth >= 0 && w.extent.kind == EXTENT_PACKED)
				continue;
			if (w.depth >= 0) {
				assert_int_equal(w.extent.kind, EXTENT_DATA);
				assert_int_equal(file_read(w.image->fd, w.extent.file_offset + n, sector,
							   BLK_SECTOR), 0);
				is = disk_id(sector);
			}
			if (is != id)
				disk_fail(d, "where says %#llx holds %d, not %d",
					  (unsigned long long)(at + n), is, id);
		}
	}
}

/* All that was freed is free, too. */
static void finish(struct disk *d)
{
	for (int n = 0; n < 2; n++) {
		assert_int_equal(disk_flush(d), 0);
		image_reclaim(d->image);
	}
	assert_int_equal(disk_flush(d), 0);
}

/* Closed without finish, it may have leaks, which repair finds. */
static void reopen(struct disk *d, bool finished)
{
	struct image_check c = { 0 };

	if (finished)
		finish(d);
	else
		assert_int_equal(disk_flush(d), 0);
	disk_close(d);
	if (disk_open(d))
		disk_fail(d, "cannot open it again");
	disk_check(d, d->image, finished);
	if (finished)
		return;
	assert_int_equal(image_check(d->image, true, &c, NULL), 0);
	disk_check(d, d->image, true);
}

/* A step may copy a cluster of 2 MiB, or change an entry for each of 512 bytes. */
static u64 nr_ops(const struct disk_shape *s)
{
	return s->cluster == 512 ? ops / 3 : s->cluster > MIB ? ops / 40 : ops;
}

static void test_model(void **state)
{
	struct disk *d = &disk;
	struct image *i;
	struct image_options o = { .read_only = true };

	disk_new(d, *state, seed);
	assert_int_equal(disk_open(d), 0);
	disk_verify_now(d);
	for (u64 n = 0; n < nr_ops(d->shape); n++) {
		int rc = disk_step(d);

		if (rc)
			disk_fail(d, "%s", strerror(-rc));
		disk_settle(d);
		if (draw(&d->seed) % 64 == 0)
			reopen(d, draw(&d->seed) & 1);
	}
	disk_verify_now(d);
	walk(d);
	finish(d);
	disk_close(d);

	o.format = d->shape->format;
	assert_int_equal(image_open(&i, d->path, &o, NULL), 0);
	snprintf(d->doing, sizeof(d->doing), "read-only");
	disk_check(d, i, true);
	disk_verify(d, i, d->nr_events, d->nr_events);
	image_close(i);
}

static int teardown(void **state)
{
	(void)state;
	disk_free(&disk);
	return 0;
}

int main(void)
{
	struct CMUnitTest test[ARRAY_SIZE(shapes)];
	const char *only = getenv("MODEL_SHAPE");
	size_t nr = 0;

	seed = env_seed("MODEL_SEED");
	ops = env_number("MODEL_OPS", 2000);
	print_message("MODEL_SEED=%llu MODEL_OPS=%llu\n", (unsigned long long)seed,
		      (unsigned long long)ops);
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
		if (!only || !strcmp(only, shapes[i].name))
			test[nr++] = (struct CMUnitTest){
				.name = shapes[i].name, .test_func = test_model, .teardown_func = teardown,
				.initial_state = (void *)(uintptr_t)&shapes[i],
			};
	return _cmocka_run_group_tests("image_model", test, nr, NULL, NULL);
}
