/* qcow2_cache_test.c: more tables than are kept in memory: those that were not used for the longest make room. */
#include "devices/block/blk.h"
#include "devices/block/qcow2.h"
#include "tests/lib/disk.h"
#include "tests/lib/test.h"

/* A table of 512 bytes leads to 64 clusters of as many. */
enum { CLUSTER = 512, REACH = CLUSTER / 8 * CLUSTER, TABLES = CACHE_SLICES + 300 };

static char dir[DISK_DIR_LEN], path[DISK_DIR_LEN + 8];

static int setup(void **state)
{
	struct image_create c = { .format = "qcow2", .size = (u64)TABLES * REACH, .cluster = CLUSTER };

	(void)state;
	disk_mkdir(dir);
	snprintf(path, sizeof(path), "%s/disk", dir);
	return image_create(path, &c, NULL);
}

static int teardown(void **state)
{
	(void)state;
	disk_rmdir(dir);
	return 0;
}

static struct image *open_it(void)
{
	struct image_options o = { .format = "qcow2" };
	struct image *i;

	assert_int_equal(image_open(&i, path, &o, NULL), 0);
	return i;
}

static const struct qcow2 *own(const struct image *i)
{
	return i->own;
}

static void put(struct image *i, u64 table, u32 value)
{
	u32 sector[BLK_SECTOR / 4] = { value };

	assert_int_equal(image_write(i, table * REACH, sector, sizeof(sector)), 0);
	assert_true(own(i)->nr_slices <= CACHE_SLICES);
}

static void expect(struct image *i, u64 table, u32 value)
{
	u32 sector[BLK_SECTOR / 4];

	assert_int_equal(image_read(i, table * REACH, sector, sizeof(sector)), 0);
	assert_int_equal(sector[0], value);
	assert_true(own(i)->nr_slices <= CACHE_SLICES);
}

/* All of them changed: they are written first.  Twice, so that all had to go. */
static void test_all_dirty(void **state)
{
	struct image_check c = { 0 };
	struct image *i = open_it();

	(void)state;
	for (u32 n = 0; n < TABLES; n++)
		put(i, n, n + 1);
	assert_int_equal(own(i)->nr_slices, CACHE_SLICES);
	for (int twice = 0; twice < 2; twice++)
		for (u32 n = 0; n < TABLES; n++)
			expect(i, n, n + 1);
	for (u32 n = 0; n < TABLES; n += 2)
		put(i, n, n + 1000000);
	assert_int_equal(image_flush(i), 0);
	image_close(i);
	i = open_it();
	for (u32 n = 0; n < TABLES; n++)
		expect(i, n, n % 2 ? n + 1 : n + 1000000);
	assert_int_equal(image_check(i, false, &c, NULL), 0);
	assert_int_equal(c.corruptions + c.leaks, 0);
	image_close(i);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_all_dirty, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
