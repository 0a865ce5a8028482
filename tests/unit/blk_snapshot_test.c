/*
 * blk_snapshot_test.c: snapshots of a disk that is in use: what each has, and what becomes of failures.
 *
 *   SNAPSHOT_SEED, SNAPSHOT_DEPTH
 */
#include <dirent.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <sys/stat.h>
#include "devices/block/chain.h"
#include "tests/lib/recorder.h"
#include "tests/lib/test.h"
#include "tests/lib/traffic.h"

enum {
	IN = VIRTIO_BLK_T_IN, OUT = VIRTIO_BLK_T_OUT, FLUSH = VIRTIO_BLK_T_FLUSH, OK = VIRTIO_BLK_S_OK,
};

static struct vblk_setup shapes[] = {
	{ .engine = AIO_THREADS, .nr_loops = 4, .o.nr_queues = 4 },
	{ .engine = AIO_AUTO, .nr_loops = 2, .o.nr_queues = 4, .o.write_through = true },
	{ .engine = AIO_AUTO, .format = "qcow2", .cluster = 65536, .nr_loops = 3, .o.nr_queues = 4 },
	{ .engine = AIO_THREADS, .format = "qcow2", .cluster = 4096, .below = true, .nr_loops = 2,
	  .o.nr_queues = 3 },
	{ .engine = AIO_THREADS, .format = "qcow2", .cluster = 512, .nr_loops = 2, .o.nr_queues = 2 },
};

static struct traffic traffic;
static struct vblk *const vblk = &traffic.v;
static u64 seed, depth;

static int setup(void **state)
{
	traffic_new(&traffic, *state, 13 * 1024 + 512, seed);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	recorder_fail(NULL);
	traffic_free(&traffic);
	return 0;
}

/* Of the first. */
static const char *format(void) { return vblk->setup->format ? vblk->setup->format : "raw"; }

static const char *beside(const char *name)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", vblk->dir, name);
	return path;
}

static const char *snapshot_file(unsigned n)
{
	char name[32];

	snprintf(name, sizeof(name), "disk@s%u", n);
	return beside(name);
}

/* As machine_snapshot_disk does it. */
static int snapshot(const char *name, struct err *err)
{
	int rc = blk_snapshot_prepare(vblk->blk, name, err);

	if (rc)
		return rc;
	vblk->format = "qcow2";
	device_quiesce(vblk->dev);
	blk_snapshot_take(vblk->blk);
	device_resume(vblk->dev);
	return blk_snapshot_settle(vblk->blk, err);
}

/* --- in traffic ---------------------------------------------------------------------------- */

struct moment { u8 *bytes; bool *unsure; };

static struct moment remember(void)
{
	struct moment m = { malloc(traffic.size), calloc(traffic.size / 512, sizeof(bool)) };

	memcpy(m.bytes, traffic.model, traffic.size);
	for (u64 at = 0; at < traffic.size; at += 512)
		m.unsure[at / 512] = traffic_is_unsure(&traffic, at);
	return m;
}

static void compare(const struct moment *m, const char *path, const char *how)
{
	struct image_options o = { .format = how, .read_only = true };
	static const u8 zeroes[512];
	struct image_check c = { 0 };
	u8 *got = malloc(traffic.size);
	struct err err = { 0 };
	struct image *i;

	if (image_open(&i, path, &o, &err))
		fail_msg("%s", err.msg);
	assert_int_equal(i->size, traffic.size);
	assert_int_equal(image_read(i, 0, got, traffic.size), 0);
	for (u64 at = 0; at < traffic.size; at += 512)
		if (!m->unsure[at / 512] || memcmp(got + at, zeroes, 512))
			if (memcmp(got + at, m->bytes + at, 512))
				fail_msg("%s: another sector at %llu", path, (unsigned long long)at);
	assert_int_equal(image_check(i, false, &c, &err), 0);
	assert_int_equal(c.corruptions + c.leaks, 0);
	image_close(i);
	free(got);
}

/* The file that is there has no writer but the VM, and a second is refused. */
static void is_locked(const char *path, const char *how)
{
	struct image_options o = { .format = how };
	struct err err = { 0 };
	struct image *i;

	assert_int_equal(image_open(&i, path, &o, &err), -EBUSY);
	assert_says(err.msg, "in use");
}

static void test_traffic(void **state)
{
	struct moment *then = calloc(depth, sizeof(*then));

	(void)state;
	for (unsigned n = 0; n < depth; n++) {
		struct err err = { 0 };
		char name[16];
		u64 asked;

		for (u64 some = draw(&traffic.seed) % 4; some; some--) {
			traffic_wait_for_room(&traffic);
			traffic_offer(&traffic, 20);
		}
		snprintf(name, sizeof(name), "s%u", n);
		if (blk_snapshot_prepare(vblk->blk, name, &err))
			fail_msg("%s", err.msg);
		/* Requests go on, to what will be the snapshot. */
		is_locked(snapshot_file(n), n ? "qcow2" : format());
		is_locked(vblk->path, "qcow2");
		traffic_reap(&traffic);
		traffic_offer(&traffic, draw(&traffic.seed) % 20);
		device_quiesce(vblk->dev);
		traffic_reap(&traffic);
		asked = recorder_count((1 << FILE_OPS) - 1);
		blk_snapshot_take(vblk->blk);
		/* The guest waits for no file. */
		assert_int_equal(recorder_count((1 << FILE_OPS) - 1), asked);
		then[n] = remember();
		device_resume(vblk->dev);
		if (draw(&traffic.seed) & 1)
			traffic_offer(&traffic, 10);
		/* The next does it, if nobody does before. */
		if (draw(&traffic.seed) % 4 == 0)
			continue;
		if (blk_snapshot_settle(vblk->blk, &err))
			fail_msg("%s", err.msg);
		/* Others may read it, or base disks on it. */
		compare(&then[n], snapshot_file(n), n ? "qcow2" : format());
		is_locked(snapshot_file(n), n ? "qcow2" : format());
		is_locked(vblk->path, "qcow2");
	}
	traffic_wait(&traffic);
	traffic_compare(&traffic);
	device_quiesce(vblk->dev);
	blk_close(vblk->blk);
	vblk->blk = NULL;
	traffic_compare_file(&traffic, vblk->path, "qcow2", NULL, true);
	for (unsigned n = 0; n < depth; n++) {
		compare(&then[n], snapshot_file(n), n ? "qcow2" : format());
		free(then[n].bytes);
		free(then[n].unsure);
	}
	free(then);
}

/* The same file, sound and right, as 'vmm disk' sees it. */
static void test_family(void **state)
{
	struct image_options o = { 0 };
	char name[CHAIN_NAME_MAX + 1];
	struct chain_family f;
	struct err err = { 0 };

	(void)state;
	traffic_offer(&traffic, 50);
	assert_int_equal(snapshot("one", &err), 0);
	traffic_wait_for_room(&traffic);
	traffic_offer(&traffic, 50);
	assert_int_equal(snapshot("two", &err), 0);
	traffic_wait(&traffic);
	device_quiesce(vblk->dev);
	blk_close(vblk->blk);
	vblk->blk = NULL;
	assert_int_equal(chain_family(&f, vblk->path, NULL, &err), 0);
	assert_int_equal(f.broken.code, 0);
	assert_int_equal(f.depth, vblk->setup->below ? 4 : 3);
	assert_true(chain_snapshot_name(vblk->path, &f.file[1], name));
	assert_string_equal(name, "two");
	assert_true(chain_snapshot_name(vblk->path, &f.file[2], name));
	assert_string_equal(name, "one");
	assert_string_equal(f.file[2].format, format());
	chain_family_free(&f);
	assert_int_equal(chain_commit(vblk->path, &o, NULL, &err), 0);
	traffic_compare_file(&traffic, vblk->path, "qcow2", NULL, false);
	assert_int_equal(chain_commit(vblk->path, &o, NULL, &err), 0);
	traffic_compare_file(&traffic, vblk->path, format(), NULL, false);
}

/* Larger than what is below it, and snapshots of that. */
static void test_grows(void **state)
{
	u64 size = traffic.size;
	struct err err = { 0 };
	u8 data[4096], got[4096];

	(void)state;
	for (unsigned n = 0; n < 6; n++) {
		char name[16];

		traffic_wait_for_room(&traffic);
		traffic_offer(&traffic, 20);
		snprintf(name, sizeof(name), "s%u", n);
		assert_int_equal(snapshot(name, &err), 0);
		size += 150 * 1024 + 512;
		assert_int_equal(blk_resize(vblk->blk, size, &err), 0);
		virtio_blk_resized(vblk->v);
		traffic_wait(&traffic);
		memset(data, n + 1, sizeof(data));
		vblk_put(vblk, 0, 0, data, sizeof(data));
		assert_int_equal(vblk_do(vblk, OUT, size / 512 - 8, sizeof(data)), OK);
		assert_int_equal(vblk_do(vblk, OUT, size / 512 - 7, sizeof(data)), VIRTIO_BLK_S_IOERR);
	}
	traffic_compare(&traffic);
	vblk_reopen(vblk);
	assert_int_equal(vblk_config(vblk, 0, 8), size / 512);
	traffic_compare(&traffic);
	for (unsigned n = 6; n--; size -= 150 * 1024 + 512) {
		memset(data, n + 1, sizeof(data));
		assert_int_equal(vblk_do(vblk, IN, size / 512 - 8, sizeof(data)), OK);
		vblk_get(vblk, 0, 0, got, sizeof(got));
		assert_memory_equal(got, data, sizeof(data));
		memset(data, 0, sizeof(data));
		assert_int_equal(vblk_do(vblk, IN, size / 512 - 32, sizeof(data)), OK);
		vblk_get(vblk, 0, 0, got, sizeof(got));
		assert_memory_equal(got, data, sizeof(data));
	}
}

/* --- refused --------------------------------------------------------------------------------- */

/* The names and inodes there are, in one line. */
static char *listing(const char *dir)
{
	struct dirent **e;
	int nr = scandir(dir, &e, NULL, alphasort);
	char *out = calloc(1, 65536);

	for (int n = 0; n < nr; n++) {
		char path[512];
		struct stat st;

		snprintf(path, sizeof(path), "%s/%s", dir, e[n]->d_name);
		assert_int_equal(lstat(path, &st), 0);
		if (!S_ISDIR(st.st_mode))
			sprintf(out + strlen(out), "%s %lu %lu; ", e[n]->d_name, st.st_ino, st.st_nlink);
		free(e[n]);
	}
	free(e);
	return out;
}

static void refused(const char *name, int rc, const char *why)
{
	char *before = listing(vblk->dir), *after;
	struct err err = { 0 };

	assert_int_equal(blk_snapshot_prepare(vblk->blk, name, &err), rc);
	assert_int_equal(err.code, rc);
	assert_says(err.msg, why);
	after = listing(vblk->dir);
	assert_string_equal(before, after);
	free(before);
	free(after);
}

static void goes_on(void)
{
	traffic_offer(&traffic, 100);
	traffic_wait(&traffic);
	traffic_compare(&traffic);
}

static void test_names(void **state)
{
	static const char *const bad[] = { "", "a/b", "../x", ".a", "-a", "_a", "a b", "a@b", "ä", "a\n", "..",
		"aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffaaaab" };
	struct err err = { 0 };
	int fd;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		refused(bad[i], -EINVAL, "cannot name a snapshot");
	assert_int_equal(snapshot("one", &err), 0);
	refused("one", -EEXIST, "is there already; choose another name");
	fd = open(beside("disk@two"), O_WRONLY | O_CREAT | O_EXCL, 0600);
	close(fd);
	refused("two", -EEXIST, "is there already; choose another name");
	assert_int_equal(symlink("nowhere", beside("disk@three")), 0);
	refused("three", -EEXIST, "is there already; choose another name");
	assert_int_equal(mkdir(beside("disk@four"), 0700), 0);
	refused("four", -EEXIST, "is there already; choose another name");
	assert_int_equal(rmdir(beside("disk@four")), 0);
	assert_int_equal(snapshot("aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffaaaa", &err), 0);
	goes_on();
	/* Somebody moved it away, or put another in its place. */
	assert_int_equal(rename(vblk->path, beside("moved")), 0);
	refused("five", -EBUSY, "try again");
	fd = open(vblk->path, O_WRONLY | O_CREAT | O_EXCL, 0600);
	close(fd);
	refused("five", -EBUSY, "another program has just replaced it");
	assert_int_equal(rename(beside("moved"), vblk->path), 0);
	assert_int_equal(snapshot("five", &err), 0);
	goes_on();
}

static void reopen(const char *path, bool read_only)
{
	vblk->read_only = read_only;
	snprintf(vblk->path, sizeof(vblk->path), "%s", path);
	vblk_reopen(vblk);
}

static void test_read_only(void **state)
{
	char path[80];

	(void)state;
	snprintf(path, sizeof(path), "%s", vblk->path);
	goes_on();
	reopen(path, true);
	refused("one", -EROFS, "read-only");
	traffic_compare(&traffic);
}

/* By whatever name it was given, the disk is the file, and its snapshots are beside that. */
static void test_links(void **state)
{
	char path[80], other[80];
	struct err err = { 0 };
	struct stat st;

	(void)state;
	snprintf(path, sizeof(path), "%s", vblk->path);
	assert_int_equal(mkdir(beside("links"), 0700), 0);
	snprintf(other, sizeof(other), "%s", beside("links/other"));
	assert_int_equal(symlink("../disk", other), 0);
	reopen(other, false);
	goes_on();
	assert_int_equal(snapshot("one", &err), 0);
	goes_on();
	assert_int_equal(snapshot("two", &err), 0);
	goes_on();
	assert_true(!lstat(other, &st) && S_ISLNK(st.st_mode));
	assert_int_equal(access(beside("disk@one"), F_OK), 0);
	assert_int_equal(access(beside("disk@two"), F_OK), 0);
	assert_int_not_equal(access(beside("links/other@one"), F_OK), 0);
	/* From its own directory. */
	assert_int_equal(unlink(other), 0);
	assert_int_equal(rmdir(beside("links")), 0);
	assert_int_equal(chdir(vblk->dir), 0);
	reopen("disk", false);
	goes_on();
	assert_int_equal(snapshot("three", &err), 0);
	goes_on();
	assert_int_equal(snapshot("four", &err), 0);
	goes_on();
	assert_int_equal(access(beside("disk@four"), F_OK), 0);
	reopen("./disk", false);
	assert_int_equal(snapshot("five", &err), 0);
	goes_on();
	reopen(path, false);
	assert_int_equal(chdir("/"), 0);
	goes_on();
}

/* --- failures ------------------------------------------------------------------------------ */

/*
 * Each thing asked of the host fails once, from the beginning on, and from when the snapshot is taken: then all is as if
 * nobody had asked for a snapshot, or it is there, and its sync is tried again.
 */
static void test_failures(void **state)
{
	enum { OPS = FILE_DATA_OPS | FILE_CREATE | FILE_LINK | FILE_RENAME | FILE_DIR_SYNC };
	static const int errors[] = { EIO, ENOSPC };
	unsigned failures = 0, prepared = 0, unsettled = 0, files = 1;

	for (unsigned round = 0; round < 2 * ARRAY_SIZE(errors); round++) {
		int error = errors[round / 2];
		bool hit = true, late = round % 2;

		for (u64 nth = 0; hit; nth++) {
			struct fault fault = { .ops = OPS, .nth = nth, .error = error };
			struct err err = { 0 };
			char *before, *after, name[16];
			bool taken = true;
			unsigned failed;
			int rc;

			traffic_offer(&traffic, 60);
			traffic_wait(&traffic);
			/* What fails below is to be a sync of the snapshot, with nothing older to write. */
			assert_int_equal(vblk_do(vblk, FLUSH, 0, 0), OK);
			before = listing(vblk->dir);
			snprintf(name, sizeof(name), "s%u%llu", round, (unsigned long long)nth);
			recorder_fail(late ? NULL : &fault);
			rc = blk_snapshot_prepare(vblk->blk, name, &err);
			prepared += !rc;
			if (!rc) {
				/* What the disk is asked for meanwhile it does. */
				recorder_hold(0);
				device_quiesce(vblk->dev);
				blk_snapshot_take(vblk->blk);
				vblk->format = "qcow2";
				if (late)
					recorder_fail(&fault);
				device_resume(vblk->dev);
				taken = !blk_snapshot_settle(vblk->blk, &err);
				unsettled += !taken;
			}
			failed = recorder_failed();
			hit = failed;
			recorder_fail(NULL);
			after = listing(vblk->dir);
			if (rc || !taken) {
				failures++;
				if (!hit)
					fail_msg("%s", err.msg);
				assert_true(err.code == -error || err.code == -EIO || err.code == -ENOTRECOVERABLE);
				assert_true(strlen(err.msg) > 5);
			}
			if (rc) {
				assert_int_equal(rc, err.code);
				assert_string_equal(before, after);
			} else if (!taken) {
				assert_says(err.msg, "flush tries again");
				assert_int_equal(vblk_do(vblk, FLUSH, 0, 0),
						 failed & FILE_SYNC ? VIRTIO_BLK_S_IOERR : OK);
			}
			free(before);
			free(after);
			/* Its own file could not be synced: that has nothing to do with snapshots. */
			if (failed & FILE_SYNC)
				vblk_reopen(vblk);
			goes_on();
			/* Nothing is in the way of the next. */
			if (rc && nth % 8 == 0) {
				rc = snapshot(name, &err);
				assert_int_equal(rc, 0);
				goes_on();
			}
			files += !rc;
			if (files == 4) {	/* the deeper, the more there is to fail */
				vblk_reopen(vblk);
				goes_on();
				traffic_free(&traffic);
				setup(state);
				files = 1;
			}
		}
	}
	assert_true(failures > 10);
	assert_true(prepared > 2);
	assert_true(unsettled);
}

/* Until the snapshot is on the disk no flush is done, and nobody else may have it. */
static void test_settle(void **state)
{
	struct fault fault = { .ops = FILE_SYNC, .error = EIO };
	struct err err = { 0 };
	struct moment then;

	(void)state;
	for (unsigned n = 0; n < 3; n++) {
		char name[16];

		snprintf(name, sizeof(name), "s%u", n);
		traffic_offer(&traffic, 60);
		traffic_wait(&traffic);
		assert_int_equal(blk_snapshot_prepare(vblk->blk, name, &err), 0);
		traffic_offer(&traffic, 60);
		traffic_wait(&traffic);
		device_quiesce(vblk->dev);
		blk_snapshot_take(vblk->blk);
		then = remember();
		device_resume(vblk->dev);
		if (n < 2) {
			traffic_offer(&traffic, 60);
			traffic_wait(&traffic);
			/* By a flush of the guest's, too. */
			assert_int_equal(vblk_do(vblk, FLUSH, 0, 0), OK);
			compare(&then, snapshot_file(n), n ? "qcow2" : format());
			assert_int_equal(blk_snapshot_settle(vblk->blk, &err), 0);
		} else {
			recorder_fail(&fault);
			assert_int_equal(blk_snapshot_settle(vblk->blk, &err), -EIO);
		}
		free(then.bytes);
		free(then.unsure);
	}
	recorder_fail(NULL);
	is_locked(snapshot_file(2), "qcow2");
	assert_int_equal(vblk_do(vblk, FLUSH, 0, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(blk_snapshot_settle(vblk->blk, &err), -ENOTRECOVERABLE);
	assert_says(err.msg, "disk@s2");
	/* What was lost is; the rest is sound. */
	vblk->format = "qcow2";
	vblk_reopen(vblk);
	assert_int_equal(vblk_do(vblk, FLUSH, 0, 0), OK);
}

/* As a saved VM's disks have it, which is paused: taken when all else went well, or not at all. */
static void test_cancel(void **state)
{
	struct err err = { 0 };

	(void)state;
	for (unsigned n = 0; n < 6; n++) {
		char *before, *after, name[16];
		struct moment then;

		traffic_offer(&traffic, 60);
		before = listing(vblk->dir);
		snprintf(name, sizeof(name), "s%u", n / 2 * 2);
		device_quiesce(vblk->dev);
		traffic_reap(&traffic);
		then = remember();
		assert_int_equal(blk_snapshot_prepare(vblk->blk, name, &err), 0);
		if (n % 2 == 0) {
			blk_snapshot_cancel(vblk->blk);
			after = listing(vblk->dir);
			assert_string_equal(before, after);
			free(after);
		} else {
			blk_snapshot_take(vblk->blk);
			assert_int_equal(blk_snapshot_settle(vblk->blk, &err), 0);
			compare(&then, snapshot_file(n - 1), n == 1 ? format() : "qcow2");
			vblk->format = "qcow2";
		}
		device_resume(vblk->dev);
		goes_on();
		vblk_reopen(vblk);
		goes_on();
		free(then.bytes);
		free(then.unsure);
		free(before);
	}
}

/* A chain of so many, each an empty delta of the one before: copies but for a name. */
static void make_chain(unsigned nr)
{
	struct image_create c = { .format = "qcow2", .size = traffic.size, .cluster = 4096,
				  .backing = "file000", .backing_format = "raw" };
	static u8 bytes[65536];
	struct err err = { 0 };
	char name[16];
	ssize_t len;
	u8 *at;
	int fd;

	assert_int_equal(rename(vblk->path, beside("file000")), 0);
	assert_int_equal(image_create(beside("file001"), &c, &err), 0);
	c.backing = "file001";
	c.backing_format = "qcow2";
	assert_int_equal(image_create(beside("file002"), &c, &err), 0);
	fd = open(beside("file002"), O_RDONLY);
	len = read(fd, bytes, sizeof(bytes));
	close(fd);
	at = memmem(bytes, len, "file001", 7);
	assert_true(at && len < (ssize_t)sizeof(bytes));
	for (unsigned n = 3; n < nr; n++) {
		snprintf(name, sizeof(name), "file%03u", n - 1);
		memcpy(at, name, 7);
		snprintf(name, sizeof(name), "file%03u", n);
		fd = open(beside(name), O_WRONLY | O_CREAT | O_EXCL, 0600);
		assert_int_equal(write(fd, bytes, len), len);
		close(fd);
	}
	assert_int_equal(rename(beside(name), vblk->path), 0);
}

/* Not so deep that it cannot be opened again. */
static void test_too_deep(void **state)
{
	struct err err = { 0 };
	unsigned files = CHAIN_MAX_FILES - 5;
	char name[16];
	int rc;

	(void)state;
	make_chain(files);
	vblk->format = "qcow2";
	vblk_reopen(vblk);
	goes_on();
	do {
		snprintf(name, sizeof(name), "s%u", files++);
		rc = snapshot(name, &err);
	} while (!rc);
	assert_int_equal(rc, -EINVAL);
	assert_says(err.msg, "more than 200 files deep");
	assert_int_equal(files, CHAIN_MAX_FILES + 1);
	goes_on();
	vblk_reopen(vblk);
	goes_on();
}

int main(void)
{
	static const struct { const char *name; CMUnitTestFunction fn; unsigned shapes; } kinds[] = {
		{ "traffic", test_traffic, 5 }, { "family", test_family, 5 }, { "grows", test_grows, 5 },
		{ "names", test_names, 1 }, { "read-only", test_read_only, 1 }, { "links", test_links, 3 },
		{ "failures", test_failures, 5 }, { "settle", test_settle, 5 }, { "cancel", test_cancel, 5 },
		{ "too deep", test_too_deep, 1 },
	};
	static char name[ARRAY_SIZE(kinds) * ARRAY_SIZE(shapes)][64];
	struct CMUnitTest test[ARRAY_SIZE(kinds) * ARRAY_SIZE(shapes)];
	size_t nr = 0;

	seed = env_seed("SNAPSHOT_SEED");
	depth = env_number("SNAPSHOT_DEPTH", 30);
	print_message("SNAPSHOT_SEED=%llu SNAPSHOT_DEPTH=%llu\n", (unsigned long long)seed,
		      (unsigned long long)depth);
	for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++)
		for (unsigned i = 0; i < kinds[k].shapes; i++) {
			snprintf(name[nr], sizeof(name[nr]), "%s: %s, %u", kinds[k].name,
				 shapes[i].format ? shapes[i].format : "raw", shapes[i].cluster);
			test[nr] = (struct CMUnitTest){ name[nr], kinds[k].fn, setup, teardown, &shapes[i] };
			nr++;
		}
	return _cmocka_run_group_tests("blk_snapshot", test, nr, NULL, NULL);
}
