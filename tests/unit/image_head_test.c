/* image_head_test.c: what a file is: its first bytes are a guest's, and do not decide; nor is a snapshot a disk. */
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include "devices/block/blk.h"
#include "devices/block/chain.h"
#include "devices/block/qcow2.h"
#include "tests/lib/disk.h"
#include "tests/lib/test.h"

enum { DISK = 256 * 1024 };

static char dir[DISK_DIR_LEN];
static const struct image_options any = { 0 }, raw = { .format = "raw" };

static const char *in(const char *name)
{
	static char path[4][200];
	static unsigned n;

	n = (n + 1) % 4;
	snprintf(path[n], sizeof(path[n]), "%s/%s", dir, name);
	return path[n];
}

static int setup(void **state)
{
	(void)state;
	disk_mkdir(dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	disk_rmdir(dir);
	return 0;
}

static void check(int rc, struct err *err)
{
	if (rc)
		fail_msg("%s", err->msg);
}

static void create(const char *name, const char *format, const char *backing)
{
	struct image_create c = { .format = format, .size = DISK, .backing = backing,
				  .backing_format = backing ? "raw" : NULL };
	struct err err;

	check(image_create(in(name), &c, &err), &err);
}

/* What a guest writes to its first sector. */
static void put(const char *name, const struct image_options *o, const void *bytes, size_t len)
{
	u8 sector[BLK_SECTOR] = { 0 };
	struct image *i;
	struct err err;

	memcpy(sector, bytes, len);
	check(image_open(&i, in(name), o, &err), &err);
	assert_int_equal(image_write(i, 0, sector, sizeof(sector)), 0);
	assert_int_equal(chain_settle(i), 0);
	image_close(i);
}

static const char *format_of(const char *name, const struct image_options *o)
{
	const char *format;
	struct image *i;
	struct err err;

	check(image_open(&i, in(name), o, &err), &err);
	format = i->ops->format;
	image_close(i);
	return format;
}

static void snapshot(const char *name, const struct image_options *o, const char *as)
{
	struct err err;

	check(chain_snapshot(in(name), as, o, NULL, &err), &err);
}

/* --- commit ---------------------------------------------------------------------------- */

static void refuses_commit(const char *name, const char *why)
{
	struct err err;

	assert_int_equal(chain_commit(in(name), &any, NULL, &err), -EINVAL);
	assert_says(err.msg, "those of a qcow2 image");
	assert_says(err.msg, why);
	assert_string_equal(format_of(name, &any), "qcow2");
}

static void commits(const char *name)
{
	struct err err;

	check(chain_commit(in(name), &any, NULL, &err), &err);
}

static void commit_to_own(void **state)
{
	(void)state;
	create("disk.img", "raw", NULL);
	snapshot("disk.img", &any, "one");
	put("disk.img", &any, QCOW2_MAGIC, 4);
	refuses_commit("disk.img", "the raw ");
	assert_string_equal(format_of("disk@one.img", &any), "raw");
	put("disk.img", &any, "QFI\xfa", 4);
	commits("disk.img");
	assert_string_equal(format_of("disk.img", &any), "raw");
}

/* What was safe by its format's name would be called by a name that has none. */
static void commit_that_leaves_the_head(void **state)
{
	(void)state;
	create("disk.img", "raw", NULL);
	put("disk.img", &raw, QCOW2_MAGIC, 4);
	snapshot("disk.img", &raw, "one");
	refuses_commit("disk.img", "disk.img");
}

static void commit_to_other(void **state)
{
	(void)state;
	create("base", "raw", NULL);
	create("delta", "qcow2", "base");
	put("delta", &any, QCOW2_MAGIC, 4);
	refuses_commit("delta", "base");
	assert_string_equal(format_of("base", &any), "raw");
	put("delta", &any, "\xfbIFQ", 4);
	commits("delta");
	assert_string_equal(format_of("base", &any), "raw");
	/* Nothing becomes of it that it was not before. */
	put("base", &raw, QCOW2_MAGIC, 4);
	commits("delta");
}

/* --- given as raw ------------------------------------------------------------------------ */

static void refuses_raw(const char *path, const char *name)
{
	struct blk_options o = { .format = "raw", .read_only = true };
	struct image *i;
	struct blk *b;
	struct err err;

	assert_int_equal(image_open(&i, path, &raw, &err), -EINVAL);
	assert_says(err.msg, "delta");
	assert_says(err.msg, name);
	assert_says(err.msg, "format=qcow2");
	assert_int_equal(chain_snapshot(path, "more", &raw, NULL, &err), -EINVAL);
	assert_int_equal(blk_open(&b, path, &o, &err), -EINVAL);
}

static void what_a_snapshot_left(void **state)
{
	static const struct image_options qcow2 = { .format = "qcow2" };
	char other[DISK_DIR_LEN + 8];

	(void)state;
	create("disk.raw", "raw", NULL);
	snapshot("disk.raw", &raw, "one");
	refuses_raw(in("disk.raw"), "disk@one.raw");
	assert_string_equal(format_of("disk.raw", &any), "qcow2");
	assert_string_equal(format_of("disk.raw", &qcow2), "qcow2");
	assert_string_equal(format_of("disk@one.raw", &raw), "raw");
	snapshot("disk.raw", &any, "two");
	refuses_raw(in("disk.raw"), "snapshot two");
	assert_int_equal(symlink("disk.raw", in("link")), 0);
	refuses_raw(in("link"), "disk@two.raw");
	snprintf(other, sizeof(other), "%s.moved", dir);
	assert_int_equal(rename(dir, other), 0);
	strcpy(dir, other);
	refuses_raw(in("disk.raw"), "disk@two.raw");
}

/* As large as a guest may choose, all of it in the disk's first sector. */
static void forge(u64 offset, u32 len, const char *name)
{
	struct { struct qcow2_header h; char name[BLK_SECTOR - sizeof(struct qcow2_header)]; } s = {
		.h = { .magic = QCOW2_MAGIC, .version = htobe32(3), .cluster_bits = htobe32(16),
		       .backing_offset = htobe64(offset), .backing_len = htobe32(len) },
	};

	strcpy(s.name, name);
	put("disk.raw", &raw, &s, sizeof(s));
	assert_string_equal(format_of("disk.raw", &raw), "raw");
}

static void what_a_guest_wrote(void **state)
{
	static const char *const names[] = {
		"other.raw", "disk.raw", "disk@.raw", "disk@gone.raw", "other@one.raw", "disk@one.img",
		"disk@one.raw@one.raw", "../disk@one.raw", "/", "", "disk@-one.raw",
	};
	const u64 at = sizeof(struct qcow2_header);

	(void)state;
	create("disk.raw", "raw", NULL);
	create("other.raw", "raw", NULL);
	create("other@one.raw", "raw", NULL);
	create("disk@one.img", "raw", NULL);
	create("disk@-one.raw", "raw", NULL);
	for (unsigned n = 0; n < ARRAY_SIZE(names); n++)
		forge(at, strlen(names[n]), names[n]);
	/* By the name of a snapshot that there is, in ways that none is recorded. */
	create("disk@one.raw", "raw", NULL);
	forge(at, 0, "disk@one.raw");
	forge(at, 11, "disk@one.raw");
	forge(at, 13, "disk@one.raw");
	forge(at, 1024, "disk@one.raw");
	forge(at, UINT32_MAX, "disk@one.raw");
	forge(UINT64_MAX, 12, "disk@one.raw");
	forge(1ULL << 63, 12, "disk@one.raw");
	forge(DISK, 12, "disk@one.raw");
}

/* Of a backing file the first bytes are a guest's, too: its format is recorded, or it is not opened. */
static void what_a_backing_file_is(void **state)
{
	enum { EXTENSIONS = 112 };
	static const u8 unknown[] = { 0x12, 0x34, 0x56, 0x78 };
	struct image *i;
	struct err err;
	int fd;

	(void)state;
	create("base.raw", "raw", NULL);
	create("disk.qcow2", "qcow2", "base.raw");
	assert_string_equal(format_of("disk.qcow2", &any), "qcow2");
	fd = open(in("disk.qcow2"), O_WRONLY | O_CLOEXEC);
	assert_int_equal(pwrite(fd, unknown, sizeof(unknown), EXTENSIONS), sizeof(unknown));
	close(fd);
	assert_int_equal(image_open(&i, in("disk.qcow2"), &any, &err), -EINVAL);
	assert_says(err.msg, "does not say what format");
}

/* --- a snapshot as a disk ------------------------------------------------------------------ */

static bool can_be_written(const char *name)
{
	struct blk_options o = { 0 };
	struct err err = { 0 };
	struct blk *b;
	int rc;

	o.read_only = true;
	check(blk_open(&b, in(name), &o, &err), &err);
	blk_close(b);
	o.read_only = false;
	rc = blk_open(&b, in(name), &o, &err);
	if (!rc) {
		blk_close(b);
		return true;
	}
	assert_int_equal(rc, -EBUSY);
	assert_says(err.msg, "is based on it");
	assert_says(err.msg, "readonly");
	return false;
}

static void snapshots_are_kept(const char *disk, const char *one, const char *two)
{
	struct err err;

	create(disk, "raw", NULL);
	create(one, "raw", NULL);		/* by its name alone it is none */
	assert_true(can_be_written(one));
	assert_int_equal(unlink(in(one)), 0);
	snapshot(disk, &any, "1.0");
	assert_false(can_be_written(one));
	assert_int_equal(symlink(one, in("link")), 0);
	assert_false(can_be_written("link"));
	snapshot(disk, &any, "2.0");
	assert_false(can_be_written(one));
	assert_false(can_be_written(two));
	assert_true(can_be_written(disk));
	create("delta", "qcow2", "link");	/* the way to go on from it */
	assert_true(can_be_written("delta"));
	assert_int_equal(unlink(in("delta")), 0);
	check(chain_commit(in(disk), &any, NULL, &err), &err);
	assert_false(can_be_written(one));
	assert_int_equal(unlink(in(disk)), 0);
	assert_true(can_be_written(one));
	assert_int_equal(unlink(in(one)), 0);
	assert_int_equal(unlink(in("link")), 0);
}

static void what_a_disk_needs(void **state)
{
	(void)state;
	snapshots_are_kept("disk.raw", "disk@1.0.raw", "disk@2.0.raw");
	snapshots_are_kept("disk", "disk@1.0", "disk@2.0");
	snapshots_are_kept("a@b.c", "a@b@1.0.c", "a@b@2.0.c");
	snapshots_are_kept(".disk", ".disk@1.0", ".disk@2.0");
}

/* --- whose it is ------------------------------------------------------------------------------ */

/* On its way from one socket to another a file is no process's: as after a kill. */
static struct { int to, from; unsigned pauses, enough; } nobody;

static void lock_by_nobody(const char *name, unsigned enough)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	union { struct cmsghdr head; char room[CMSG_SPACE(sizeof(int))]; } c = { 0 };
	struct iovec iov = { .iov_base = "", .iov_len = 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &c,
			      .msg_controllen = sizeof(c) };
	int pair[2], fd = open(in(name), O_RDWR | O_CLOEXEC);

	assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
	c.head = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
				   .cmsg_len = CMSG_LEN(sizeof(int)) };
	memcpy(CMSG_DATA(&c.head), &fd, sizeof(fd));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(sendmsg(pair[0], &msg, 0), 1);
	close(fd);
	nobody = (typeof(nobody)){ .to = pair[0], .from = pair[1], .enough = enough };
}

static void unlock_by_nobody(void)
{
	close(nobody.to);
	close(nobody.from);
}

int __real_poll(struct pollfd *, nfds_t, int);
int __wrap_poll(struct pollfd *fds, nfds_t nr, int ms);

int __wrap_poll(struct pollfd *fds, nfds_t nr, int ms)
{
	if (nr)
		return __real_poll(fds, nr, ms);
	if (++nobody.pauses == nobody.enough)
		unlock_by_nobody();
	return 0;
}

static void after_a_kill(void **state)
{
	struct image *i, *j;
	struct err err = { 0 };

	(void)state;
	create("disk", "raw", NULL);
	lock_by_nobody("disk", 3);
	check(image_open(&i, in("disk"), &raw, &err), &err);
	assert_int_equal(nobody.pauses, 3);
	/* A lock of somebody's is not waited for. */
	assert_int_equal(image_open(&j, in("disk"), &raw, &err), -EBUSY);
	assert_says(err.msg, "in use by this process already; several");
	assert_int_equal(nobody.pauses, 3);
	image_close(i);

	lock_by_nobody("disk", 0);
	assert_int_equal(image_open(&i, in("disk"), &raw, &err), -EBUSY);
	assert_says(err.msg, "in use by another program; several");
	assert_true(nobody.pauses > 3);
	unlock_by_nobody();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(commit_to_own, setup, teardown),
		cmocka_unit_test_setup_teardown(commit_that_leaves_the_head, setup, teardown),
		cmocka_unit_test_setup_teardown(commit_to_other, setup, teardown),
		cmocka_unit_test_setup_teardown(what_a_snapshot_left, setup, teardown),
		cmocka_unit_test_setup_teardown(what_a_guest_wrote, setup, teardown),
		cmocka_unit_test_setup_teardown(what_a_backing_file_is, setup, teardown),
		cmocka_unit_test_setup_teardown(what_a_disk_needs, setup, teardown),
		cmocka_unit_test_setup_teardown(after_a_kill, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
