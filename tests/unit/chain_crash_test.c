/*
 * chain_crash_test.c: power cuts in the middle of what 'vmm disk' does to a disk of several files.
 *
 * After each operation on its files or their names: what was synced is there, and any of the rest; of names, too, any
 * change since the directory's last sync may be lost without those after it.
 *
 *   CRASH_SEED, CRASH_CUTS (after each operation), CRASH_CASE (one only)
 */
#include <fcntl.h>
#include <sys/stat.h>
#include "devices/block/blk.h"
#include "devices/block/chain.h"
#include "tests/lib/disk.h"
#include "tests/lib/recorder.h"
#include "tests/lib/test.h"
#include "vmm/core/loop.h"

enum { DISK = 256 * 1024, LARGER = 5 * DISK, SMALLER = 100 * 512 };

static u64 seed, cuts;
static char dir[DISK_DIR_LEN], left[DISK_DIR_LEN];

struct contents { u64 size; u8 bytes[LARGER]; };

/* The disk, and what it was at each snapshot. */
static struct contents now, one, two, got;

/* A name that goes on into the header's second sector. */
#define FIFTY	"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
#define OTHER	"other" FIFTY FIFTY FIFTY FIFTY

static const char *in(const char *where, const char *name)
{
	static char path[4][400];
	static unsigned n;

	n = (n + 1) % 4;
	snprintf(path[n], sizeof(path[n]), "%s/%s", where, name);
	return path[n];
}

static void check(int rc, struct err *err)
{
	if (rc)
		fail_msg("%s", err->msg);
}

/* --- disks --------------------------------------------------------------------------------- */

static void change(const char *path, unsigned nr)
{
	struct image_options o = { 0 };
	struct err err = { 0 };
	struct image *i;

	check(image_open(&i, path, &o, &err), &err);
	while (nr--) {
		u64 at = draw(&seed) % (now.size / 512) * 512;
		u64 len = (1 + draw(&seed) % 64) * 512;
		bool zero = draw(&seed) % 4 == 0;

		len = MIN(len, now.size - at);
		if (zero && draw(&seed) & 1) {
			memset(now.bytes + at, 0, len);
			assert_int_equal(image_zero(i, at, len, draw(&seed) & 1), 0);
			continue;
		}
		for (u64 n = at; n < at + len; n += 8) {
			u64 word = zero ? 0 : draw(&seed);

			memcpy(now.bytes + n, &word, 8);
		}
		assert_int_equal(image_write(i, at, now.bytes + at, len), 0);
	}
	assert_int_equal(chain_settle(i), 0);
	image_close(i);
}

static void create(const char *name, const char *format, u32 cluster, const char *backing)
{
	struct image_create c = { .format = format, .size = now.size, .cluster = cluster,
				  .backing = backing, .backing_format = backing ? "raw" : NULL };
	struct err err = { 0 };

	check(image_create(in(dir, name), &c, &err), &err);
}

static const struct image_options any = { 0 };

/* As disk_resize does it. */
static int resize(const char *path, u64 size, struct err *err)
{
	struct image *i;
	int rc = image_open(&i, path, &any, err);

	if (rc)
		return rc;
	rc = image_resize(i, size, err);
	if (!rc)
		rc = chain_settle(i);
	image_close(i);
	return rc;
}

/* disk, on disk@two, on disk@one, which has that format. */
static void three_deep(const char *format, u32 cluster)
{
	struct image_options o = { 0 };
	struct err err = { 0 };

	now = (struct contents){ .size = DISK };
	create("disk", format, cluster, NULL);
	change(in(dir, "disk"), 12);
	one = now;
	check(chain_snapshot(in(dir, "disk"), "one", &o, NULL, &err), &err);
	change(in(dir, "disk"), 8);
	two = now;
	check(chain_snapshot(in(dir, "disk"), "two", &o, NULL, &err), &err);
	change(in(dir, "disk"), 8);
}

/* And disk@three. */
static void four_deep(void)
{
	struct image_options o = { 0 };
	struct err err = { 0 };

	three_deep("raw", 0);
	check(chain_snapshot(in(dir, "disk"), "three", &o, NULL, &err), &err);
	change(in(dir, "disk"), 8);
}

static void raw_first(void)	{ three_deep("raw", 0); }
static void qcow2_first(void)	{ three_deep("qcow2", 4096); }
static void small_clusters(void)	{ three_deep("qcow2", 512); }

static void raw_alone(void)
{
	int fd;

	now = (struct contents){ .size = DISK };
	create("disk", "raw", 0, NULL);
	change(in(dir, "disk"), 20);
	/* Zeroes that are written as such. */
	fd = open(in(dir, "disk"), O_WRONLY);
	memset(now.bytes + DISK / 2, 0, DISK / 4);
	assert_int_equal(pwrite(fd, now.bytes + DISK / 2, DISK / 4, DISK / 2), DISK / 4);
	close(fd);
}

static void qcow2_alone(void)
{
	now = (struct contents){ .size = DISK };
	create("disk", "qcow2", 4096, NULL);
	change(in(dir, "disk"), 20);
}

/* What is below goes on where it ends. */
static void shorter(void)
{
	now = (struct contents){ .size = DISK };
	create("base", "raw", 0, NULL);
	change(in(dir, "base"), 20);
	now.size = SMALLER;
	memset(now.bytes + SMALLER, 0, sizeof(now.bytes) - SMALLER);
	create("disk", "qcow2", 4096, "base");
	change(in(dir, "disk"), 8);
}

/* A delta of a file that is no snapshot of it. */
static void foreign(void)
{
	now = (struct contents){ .size = DISK };
	create("base", "raw", 0, NULL);
	change(in(dir, "base"), 12);
	create("disk", "qcow2", 4096, "base");
	change(in(dir, "disk"), 8);
	create(OTHER, "raw", 0, NULL);
}

/* --- commands ------------------------------------------------------------------------------- */

static int snapshot(const char *path, struct err *err)
{
	return chain_snapshot(path, "three", &any, NULL, err);
}

static int revert_one(const char *path, struct err *err)
{
	return chain_revert(path, "one", &any, NULL, err);
}

static int revert_two(const char *path, struct err *err)
{
	return chain_revert(path, "two", &any, NULL, err);
}

static int commit(const char *path, struct err *err)
{
	return chain_commit(path, &any, NULL, err);
}

static int delete_one(const char *path, struct err *err)
{
	return chain_delete(path, "one", &any, NULL, err);
}

static int delete_two(const char *path, struct err *err)
{
	return chain_delete(path, "two", &any, NULL, err);
}

static int compact(const char *path, struct err *err)
{
	return chain_compact(path, &any, NULL, err);
}

static int rebase_none(const char *path, struct err *err)
{
	struct chain_rebase r = { .backing = "" };

	return chain_rebase(path, &r, &any, NULL, err);
}

static int rebase_other(const char *path, struct err *err)
{
	char other[400];
	struct chain_rebase r = { .backing = other, .format = "raw" };

	snprintf(other, sizeof(other), "%.*s/" OTHER, (int)(strrchr(path, '/') - path), path);
	return chain_rebase(path, &r, &any, NULL, err);
}

static int grow(const char *path, struct err *err)	{ return resize(path, LARGER, err); }
static int shrink(const char *path, struct err *err)	{ return resize(path, SMALLER, err); }

static const struct command {
	const char *name;
	void (*make)(void);
	int  (*run)(const char *path, struct err *);
	const struct contents *after;	/* what it reads as then... */
	u64 size;			/* ...so much of it (0: all)... */
	int files;			/* ...from a chain of so many */
	bool twice;			/* given again, it does one thing more */
} commands[] = {
	{ "snapshot", qcow2_first, snapshot, &now, 0, 4, true },
	{ "snapshot, raw", raw_alone, snapshot, &now, 0, 2, true },
	{ "revert", qcow2_first, revert_two, &two, 0, 3, false },
	{ "revert further", raw_first, revert_one, &one, 0, 2, false },
	{ "commit", qcow2_first, commit, &now, 0, 2, true },
	{ "commit, 512", small_clusters, commit, &now, 0, 2, true },
	{ "commit to a foreign file", foreign, commit, &now, 0, 2, true },
	{ "delete the first", raw_first, delete_one, &now, 0, 2, false },
	{ "delete the first, 512", small_clusters, delete_one, &now, 0, 2, false },
	{ "delete in the middle", four_deep, delete_two, &now, 0, 3, false },
	{ "delete the last", qcow2_first, delete_two, &now, 0, 2, false },
	{ "rebase to none", raw_first, rebase_none, &now, 0, 1, false },
	{ "rebase to another", foreign, rebase_other, &now, 0, 2, false },
	{ "compact", qcow2_first, compact, &now, 0, 3, false },
	{ "compact, raw", raw_alone, compact, &now, 0, 1, false },
	{ "grow", qcow2_first, grow, &now, LARGER, 3, false },
	{ "grow, 512", small_clusters, grow, &now, LARGER, 3, false },
	{ "grow, raw", raw_alone, grow, &now, LARGER, 1, false },
	{ "grow, over more", shorter, grow, &now, LARGER, 2, false },
	{ "shrink, alone", qcow2_alone, shrink, &now, SMALLER, 1, false },
	{ "shrink", qcow2_first, shrink, &now, SMALLER, 3, false },
	{ "shrink, raw", raw_alone, shrink, &now, SMALLER, 1, false },
};

/* --- after the cut ------------------------------------------------------------------------------ */

static char where[96];		/* for messages */

static int read_all(const char *path)
{
	struct image_options o = { .read_only = true };
	struct image_check c = { 0 };
	struct err err = { 0 };
	struct image *i;
	int files = 0;

	if (image_open(&i, path, &o, &err))
		fail_msg("%s: %s", where, err.msg);
	for (struct image *at = i; at; at = at->backing, files++)
		assert_int_equal(image_check(at, false, &c, &err), 0);
	if (c.corruptions)
		fail_msg("%s: %s: %llu corruptions", where, path, (unsigned long long)c.corruptions);
	assert_in_range(i->size, 512, LARGER);
	memset(got.bytes, 0, sizeof(got.bytes));
	got.size = i->size;
	assert_int_equal(image_read(i, 0, got.bytes, got.size), 0);
	image_close(i);
	return files;
}

static bool got_is(const struct contents *want, u64 size)
{
	return got.size == (size ? size : want->size) &&
	       !memcmp(got.bytes, want->bytes, MIN(got.size, MAX(want->size, size)));
}

/* What a smaller size cuts off is lost, whenever. */
static bool is_before(const struct command *c)
{
	u64 size = c->size ? MIN(c->size, now.size) : now.size;

	return got.size == now.size && !memcmp(got.bytes, now.bytes, size);
}

static void judge_snapshots(const struct command *c, const char *in_dir)
{
	static const struct { const char *name; const struct contents *want; } all[] = {
		{ "disk@one", &one }, { "disk@two", &two },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
		/* What revert drops, or commit folds into, nobody has any more. */
		if (access(in(dir, all[i].name), F_OK) || access(in(in_dir, all[i].name), F_OK) ||
		    c->run == commit)
			continue;
		read_all(in(in_dir, all[i].name));
		if (!got_is(all[i].want, 0))
			fail_msg("%s: %s is not what it was", where, all[i].name);
	}
}

/* done: it had said that it is done. */
static void judge(const struct command *c, bool done)
{
	struct err err = { 0 };
	char path[160];
	int files, rc;

	snprintf(path, sizeof(path), "%s/disk", left);
	files = read_all(path);
	if (done && (!got_is(c->after, c->size) || files != c->files))
		fail_msg("%s: %s is undone", where, c->name);
	if (!is_before(c) && !got_is(c->after, c->size))
		fail_msg("%s: the disk has other bytes", where);
	judge_snapshots(c, left);

	/* It can be done, or done again; and nothing is in the way. */
	rc = c->run(path, &err);
	if (rc && !(rc == -EEXIST && c->run == snapshot && files == c->files) &&
	    !(rc == -EINVAL && c->run == commit) &&
	    !(rc == -ENOENT && (c->run == delete_one || c->run == delete_two) && files == c->files))
		fail_msg("%s: %s again: %s", where, c->name, err.msg);
	files = read_all(path);
	if (!got_is(c->after, c->size) || (!c->twice && files != c->files))
		fail_msg("%s: %s again: the disk has other bytes", where, c->name);
	assert_int_not_equal(access(in(left, ".disk.vmm-new"), F_OK), 0);
	judge_snapshots(c, left);
	/* What was cut off does not come back. */
	if (c->size == SMALLER) {
		check(grow(path, &err), &err);
		read_all(path);
		for (u64 n = SMALLER; n < LARGER; n++)
			if (got.bytes[n])
				fail_msg("%s: grown again, it has its old bytes", where);
	}
}

static void test_command(void **state)
{
	const struct command *c = *state;
	struct err err = { 0 };
	u32 marks;

	disk_mkdir(dir);
	disk_mkdir(left);
	c->make();
	recorder_start_dir(dir);
	check(c->run(in(dir, "disk"), &err), &err);
	marks = recorder_mark();
	assert_true(marks > 1);
	for (u32 mark = 0; mark <= marks; mark++)
		for (u64 n = mark == marks ? 4 * cuts : cuts; n; n--) {
			u64 cut = draw(&seed);

			snprintf(where, sizeof(where), "%s, cut after %u of %u, %#llx", c->name, mark, marks,
				 (unsigned long long)cut);
			disk_empty_dir(left);
			recorder_crash(mark, cut, left);
			judge(c, mark == marks);
		}
	recorder_stop();
	read_all(in(dir, "disk"));
	assert_true(got_is(c->after, c->size));
}

static int teardown(void **state)
{
	(void)state;
	recorder_stop();
	disk_rmdir(left);
	disk_rmdir(dir);
	return 0;
}

int main(void)
{
	struct CMUnitTest test[ARRAY_SIZE(commands)];
	const char *only = getenv("CRASH_CASE");
	size_t nr = 0;

	seed = env_seed("CRASH_SEED");
	cuts = env_number("CRASH_CUTS", 3);
	print_message("CRASH_SEED=%llu CRASH_CUTS=%llu\n", (unsigned long long)seed, (unsigned long long)cuts);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (!only || !strcmp(only, commands[i].name))
			test[nr++] = (struct CMUnitTest){
				.name = commands[i].name, .test_func = test_command, .teardown_func = teardown,
				.initial_state = (void *)(uintptr_t)&commands[i],
			};
	return _cmocka_run_group_tests("chain_crash", test, nr, NULL, NULL);
}
