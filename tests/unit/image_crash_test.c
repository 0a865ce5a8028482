/*
 * image_crash_test.c: power cuts in the middle of random use: what was flushed is there.
 *
 *   CRASH_SEED, CRASH_STEPS and CRASH_IMAGES (for each shape), CRASH_SHAPE (one only), DISK_TRACE=1, DISK_DIR
 */
#include "devices/block/blk.h"
#include "tests/lib/disk.h"
#include "tests/lib/test.h"
#include "vmm/core/loop.h"

#define SHAPE(c, v, bits, lazy, below, kb, max) { \
	"qcow2 v" #v ", " #c ", " #bits " bits, " #below " below" lazy, "qcow2", c, v, bits, \
	sizeof(lazy) > 1, below, (kb) * KIB, (max) * KIB }

static const struct disk_shape shapes[] = {
	{ "raw", "raw", 0x10000, 0, 0, false, 0, 256 * KIB, 512 * KIB },
	SHAPE(512, 3, 16, "", 0, 128, 256),	SHAPE(512, 3, 64, "", 1, 128, 512),
	SHAPE(512, 3, 8, ", lazy", 1, 128, 256),	SHAPE(512, 2, 16, "", 1, 128, 256),
	SHAPE(512, 3, 64, "", 0, 1024, 4096),
	SHAPE(4096, 3, 16, "", 0, 256, 512),	SHAPE(4096, 3, 2, "", 2, 256, 512),
	SHAPE(4096, 3, 64, ", lazy", 0, 256, 3072),	SHAPE(4096, 2, 16, "", 1, 256, 512),
	SHAPE(65536, 3, 16, "", 1, 1024, 1536),	SHAPE(65536, 3, 16, ", lazy", 0, 1024, 1536),
	SHAPE(2097152, 3, 16, "", 1, 4096, 8192),
};

static u64 seed, steps, images;
static struct disk disk;

/* The image after the power cut: right, right to all it may hold, and fit for use. */
static struct image *open_crashed(struct disk *d, const char *path, u32 flushed, u32 upto)
{
	struct image_options o = { .format = d->shape->format };
	struct err err = { 0 };
	struct image *i;

	if (image_open(&i, path, &o, &err))
		disk_fail(d, "after the cut: %s", err.msg);
	disk_check(d, i, false);
	disk_verify(d, i, flushed, upto);
	return i;
}

static void use(struct disk *d, struct image *i)
{
	u8 sector[3][BLK_SECTOR];
	u64 at[3];

	memset(sector, 0x5a, sizeof(sector));
	for (int n = 0; n < 3; n++) {
		at[n] = draw(&d->seed) % (i->size / BLK_SECTOR) * BLK_SECTOR;
		memcpy(sector[n], &n, sizeof(n));
		assert_int_equal(image_write(i, at[n], sector[n], BLK_SECTOR), 0);
		assert_int_equal(image_flush(i), 0);
		image_reclaim(i);
	}
	for (int n = 0; n < 3; n++) {
		assert_int_equal(image_read(i, at[n], d->buf, BLK_SECTOR), 0);
		if (memcmp(sector[n], d->buf, BLK_SECTOR) && at[0] != at[1] && at[1] != at[2] &&
		    at[0] != at[2])
			disk_fail(d, "what was written after the cut is not there");
	}
	assert_int_equal(image_flush(i), 0);
	disk_check(d, i, false);
}

static struct disk_flush after(const struct disk *d, u32 mark)
{
	struct disk_flush f = { mark, d->nr_events };

	while (f.events && d->event[f.events - 1].mark > mark)
		f.events--;
	return f;
}

static u32 flushed_at(const struct disk *d, u32 mark)
{
	u32 n = d->nr_flushes;

	while (n && d->flush[n - 1].mark > mark)
		n--;
	return n ? d->flush[n - 1].events : 0;
}

/* A second cut, while the image is opened after the first. */
static void cut_again(struct disk *d, const char *path, u32 flushed, u32 upto)
{
	char again[128];

	snprintf(again, sizeof(again), "%s", disk_file(d, "again"));
	recorder_start(path);
	image_close(open_crashed(d, path, flushed, upto));
	for (u32 mark = 0; mark <= recorder_mark(); mark++) {
		recorder_crash(mark, draw(&d->seed), again);
		image_close(open_crashed(d, again, flushed, upto));
	}
	recorder_stop();
}

static void test_crash(void **state)
{
	struct disk *d = &disk;
	enum { KEPT = 8 };
	struct { u32 flushed, upto; } kept[KEPT];
	char path[KEPT + 1][128];	/* the last one: of all that are not kept */
	unsigned nr_kept = 0;
	u32 marks;

	disk_new(d, *state, seed);
	assert_int_equal(disk_open(d), 0);
	for (u64 n = 0; n < 2 * steps; n++)
		assert_int_equal(disk_step(d), 0);
	assert_int_equal(disk_flush(d), 0);
	disk_settle(d);

	recorder_start(d->path);
	for (u64 n = 0; n < steps; n++) {
		if (disk_step(d))
			disk_fail(d, "failed");
		if (draw(&d->seed) % 32)
			continue;
		assert_int_equal(disk_flush(d), 0);
		disk_close(d);
		assert_int_equal(disk_open(d), 0);
	}
	disk_close(d);

	for (unsigned n = 0; n <= KEPT; n++) {
		char name[16];

		snprintf(name, sizeof(name), "cut%u", n);
		snprintf(path[n], sizeof(path[n]), "%s", disk_file(d, name));
	}
	marks = recorder_mark();
	for (u64 n = 0; n <= images; n++) {
		u32 mark = n * marks / images, flushed = flushed_at(d, mark);
		u32 upto = after(d, mark).events;
		u64 s = draw(&d->seed);
		struct image *i;

		snprintf(d->note, sizeof(d->note), ", cut after operation %u of %u, %#llx", mark, marks,
			 (unsigned long long)s);
		if (draw(&d->seed) % (images / KEPT + 1) == 0 && nr_kept < KEPT) {
			kept[nr_kept].flushed = flushed;
			kept[nr_kept].upto = upto;
			recorder_crash(mark, s, path[nr_kept++]);
		}
		recorder_crash(mark, s, path[KEPT]);
		i = open_crashed(d, path[KEPT], flushed, upto);
		if (n % 4 == 0)
			use(d, i);
		image_close(i);
	}
	recorder_stop();
	snprintf(d->note, sizeof(d->note), ", cut a second time");
	while (nr_kept--)
		cut_again(d, path[nr_kept], kept[nr_kept].flushed, kept[nr_kept].upto);
}

static int teardown(void **state)
{
	(void)state;
	recorder_stop();
	disk_free(&disk);
	return 0;
}

int main(void)
{
	struct CMUnitTest test[ARRAY_SIZE(shapes)];
	const char *only = getenv("CRASH_SHAPE");
	size_t nr = 0;

	seed = env_seed("CRASH_SEED");
	steps = env_number("CRASH_STEPS", 80);
	images = env_number("CRASH_IMAGES", 300);
	print_message("CRASH_SEED=%llu CRASH_STEPS=%llu CRASH_IMAGES=%llu\n", (unsigned long long)seed,
		      (unsigned long long)steps, (unsigned long long)images);
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
		if (!only || !strcmp(only, shapes[i].name))
			test[nr++] = (struct CMUnitTest){
				.name = shapes[i].name, .test_func = test_crash, .teardown_func = teardown,
				.initial_state = (void *)(uintptr_t)&shapes[i],
			};
	return _cmocka_run_group_tests("image_crash", test, nr, NULL, NULL);
}
