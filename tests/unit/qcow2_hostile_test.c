/* qcow2_hostile_test.c: qcow2 files that somebody made to do harm: too large for the fuzzers, or at one exact place. */
#include <fcntl.h>
#include "devices/block/qcow2.h"
#include "tests/lib/disk.h"
#include "tests/lib/test.h"

static char dir[DISK_DIR_LEN], path[200];
static int fd;

static int setup(void **state)
{
	(void)state;
	disk_mkdir(dir);
	snprintf(path, sizeof(path), "%s/disk.qcow2", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	close(fd);
	disk_rmdir(dir);
	return 0;
}

/* Made as it should be, and held open to be spoilt. */
static struct qcow2_header create(struct image_create c)
{
	struct qcow2_header h;
	struct err err;

	c.format = "qcow2";
	if (image_create(path, &c, &err))
		fail_msg("%s", err.msg);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_int_equal(pread(fd, &h, sizeof(h), 0), sizeof(h));
	return h;
}

static void put(u64 at, const void *bytes, size_t len)
{
	assert_int_equal(pwrite(fd, bytes, len, at), len);
}

static struct image *must_open(const struct image_options *o)
{
	struct image *i;
	struct err err;

	if (image_open(&i, path, o, &err))
		fail_msg("%s", err.msg);
	return i;
}

/* A name of the backing file's format takes more room than the one that stood there. */
static void extensions_to_the_end(void **state)
{
	enum { CLUSTER = 4096 };
	struct { u32 type, len; } format = { htobe32(0xe2792aca), 0 };
	struct { u32 type, len; } other = { htobe32(0x12345678), htobe32(CLUSTER - sizeof(struct qcow2_header) - 16) };
	struct image_options o = { .format = "qcow2", .no_backing = true };
	struct image *i;
	struct err err;

	(void)state;
	create((struct image_create){ .size = MIB, .cluster = CLUSTER });
	put(sizeof(struct qcow2_header), &format, sizeof(format));
	put(sizeof(struct qcow2_header) + sizeof(format), &other, sizeof(other));
	i = must_open(&o);
	assert_int_equal(image_set_backing(i, "below.raw", "raw", &err), -EINVAL);
	assert_says(err.msg, "too long");
	assert_int_equal(image_set_backing(i, NULL, NULL, &err), 0);
	image_close(i);
	i = must_open(&o);
	assert_null(i->backing_path);
	image_close(i);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(extensions_to_the_end, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
