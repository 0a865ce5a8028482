/*
 * image_fault_test.c: every operation on an image's file fails once, and every malloc: nothing flushed is lost.
 *
 *   FAULT_SEED, FAULT_STEPS, FAULT_SHAPE (one only), FAULT_ALL=1 (else of many operations more and more
 *   are left out), DISK_TRACE=1, DISK_DIR
 */
#include <fcntl.h>
#include "devices/block/blk.h"
#include "tests/lib/disk.h"
#include "tests/lib/test.h"
#include "vmm/core/loop.h"

#define SHAPE(c, v, bits, lazy, below, kb, max) { \
	"qcow2 v" #v ", " #c ", " #bits " bits, " #below " below" lazy, "qcow2", c, v, bits, \
	sizeof(lazy) > 1, below, (kb) * KIB, (max) * KIB }

static const struct disk_shape shapes[] = {
	{ "raw", "raw", 0x10000, 0, 0, false, 0, 128 * KIB, 256 * KIB },
	SHAPE(512, 3, 64, "", 1, 128, 256),	SHAPE(512, 2, 16, "", 1, 64, 128),
	SHAPE(4096, 3, 16, ", lazy", 0, 256, 512),	SHAPE(4096, 3, 64, "", 2, 256, 3072),
	SHAPE(65536, 3, 16, "", 1, 512, 768),
};

static u64 seed, steps, all;
static struct disk disk;

/* --- malloc ------------------------------------------------------------------------------- */

void *__real_malloc(size_t);
void *__real_calloc(size_t, size_t);
void *__real_realloc(void *, size_t);
void *__real_reallocarray(void *, size_t, size_t);
char *__real_strdup(const char *);
void *__wrap_malloc(size_t);
void *__wrap_calloc(size_t, size_t);
void *__wrap_realloc(void *, size_t);
void *__wrap_reallocarray(void *, size_t, size_t);
char *__wrap_strdup(const char *);

static bool counting, out_of_memory;
static u64 allocations_left;

static bool fails(void)
{
	if (!counting || allocations_left--)
		return false;
	counting = false;
	out_of_memory = true;
	errno = ENOMEM;
	return true;
}

void *__wrap_malloc(size_t n)			{ return fails() ? NULL : __real_malloc(n); }
void *__wrap_calloc(size_t n, size_t k)		{ return fails() ? NULL : __real_calloc(n, k); }
void *__wrap_realloc(void *p, size_t n)		{ return fails() ? NULL : __real_realloc(p, n); }
char *__wrap_strdup(const char *s)		{ return fails() ? NULL : __real_strdup(s); }

void *__wrap_reallocarray(void *p, size_t n, size_t k)
{
	return fails() ? NULL : __real_reallocarray(p, n, k);
}

/* --- faults ---------------------------------------------------------------------------------- */

#define CHANGES	(FILE_WRITE | FILE_TRUNCATE | FILE_ALLOCATE | FILE_ZERO)

static const struct kind {
	const char *name;
	struct fault fault;	/* .ops 0: of malloc */
} kinds[] = {
	{ "EIO, once", { .ops = CHANGES | FILE_READ | FILE_SYNC, .error = EIO } },
	{ "EIO, torn, from then on", { .ops = CHANGES | FILE_READ | FILE_SYNC, .error = EIO,
				       .lasting = true, .torn = true } },
	{ "ENOSPC, torn, once", { .ops = CHANGES, .error = ENOSPC, .torn = true } },
	{ "ENOSPC, from then on", { .ops = CHANGES, .error = ENOSPC, .lasting = true } },
	{ "ENOMEM, once", { .error = ENOMEM } },
};

static void arm(const struct kind *k, u64 nth)
{
	struct fault f = k->fault;

	f.nth = allocations_left = nth;
	out_of_memory = false;
	recorder_fail(&f);
}

static bool struck(void)
{
	return out_of_memory || recorder_failed();
}

static void copy_file(const char *from, const char *to)
{
	static char buf[MIB];
	int in = open(from, O_RDONLY | O_CLOEXEC);
	int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ssize_t n;

	assert_true(in >= 0 && out >= 0);
	while ((n = read(in, buf, sizeof(buf))) > 0)
		assert_int_equal(write(out, buf, n), n);
	close(in);
	close(out);
}

/* A damaged image says EIO to all, whatever it was that damaged it; and after a sync
 * that failed none is believed. */
static void judge(struct disk *d, const struct kind *k, int rc)
{
	if (rc == -ENOTRECOVERABLE && recorder_failed() & FILE_SYNC)
		return;
	if (rc && (!struck() || (rc != -k->fault.error && rc != -EIO)))
		disk_fail(d, "%s", strerror(-rc));
}

static bool is_advice(const struct disk *d)
{
	return !strncmp(d->doing, "discard", 7) || !strncmp(d->doing, "flush, reclaim", 14);
}

static void use(struct disk *d, const struct kind *k)
{
	for (u64 n = 0; n < steps; n++) {
		bool before = struck();
		u64 again = d->seed;
		int rc;

		counting = !k->fault.ops && !before;
		rc = disk_step(d);
		counting = false;
		judge(d, k, rc);
		if (before || !struck())
			continue;
		/* Others may be tried again, or in another place: what was lost is seen in the end. */
		if (!rc && recorder_failed() & FILE_SYNC && !is_advice(d))
			disk_fail(d, "a sync failed, but it does not say so");
		/* Who made room on the host's disk, or found some memory, goes on. */
		if (rc && k->fault.error != EIO && !k->fault.lasting) {
			d->seed = again;
			rc = disk_step(d);
			if (rc)
				disk_fail(d, "the second time too: %s", strerror(-rc));
		}
	}
	judge(d, k, disk_flush(d));
}

/* The same use of the same image, with one fault; false: it was over before that. */
static bool run(struct disk *d, const struct kind *k, u64 nth, const char *whole, u64 again)
{
	bool hit;
	int rc;

	snprintf(d->note, sizeof(d->note), ", %s, the %llu-th", k->name, (unsigned long long)nth);
	copy_file(whole, d->path);
	disk_forget(d);
	d->step = 0;
	d->seed = again;
	arm(k, nth);
	counting = !k->fault.ops;
	rc = disk_open(d);
	counting = false;
	judge(d, k, rc);
	if (!rc)
		use(d, k);
	disk_close(d);
	hit = struck();
	recorder_fail(NULL);
	return hit;
}

static void test_fault(void **state)
{
	struct disk *d = &disk;
	char whole[128];
	u64 again, skip = seed;

	disk_new(d, *state, seed);
	assert_int_equal(disk_open(d), 0);
	for (u64 n = 0; n < 3 * steps; n++)
		assert_int_equal(disk_step(d), 0);
	assert_int_equal(disk_flush(d), 0);
	disk_close(d);
	disk_settle(d);
	snprintf(whole, sizeof(whole), "%s", disk_file(d, "whole"));
	copy_file(d->path, whole);
	again = d->seed;

	for (const struct kind *k = kinds; k < kinds + ARRAY_SIZE(kinds); k++) {
		for (u64 nth = 0; run(d, k, nth, whole, again);
		     nth += 1 + (all ? 0 : draw(&skip) % (1 + nth / 32))) {
			if (disk_open(d))
				disk_fail(d, "cannot open it again");
			disk_check(d, d->image, false);
			disk_verify(d, d->image, d->nr_flushes ? d->flush[d->nr_flushes - 1].events : 0,
				    d->nr_events);
			disk_close(d);
		}
	}
}

static int teardown(void **state)
{
	(void)state;
	recorder_fail(NULL);
	disk_free(&disk);
	return 0;
}

static void check_created(const char *path)
{
	struct image_options o = { 0 };
	struct image_check c = { 0 };
	struct image *i;

	assert_int_equal(image_open(&i, path, &o, NULL), 0);
	assert_int_equal(image_check(i, false, &c, NULL), 0);
	assert_int_equal(c.corruptions, 0);
	image_close(i);
	assert_int_equal(unlink(path), 0);
}

/* Nothing is left of an image that could not be made. */
static void test_create(void **state)
{
	const struct disk_shape *shape = *state;
	char dir[DISK_DIR_LEN], path[80];
	struct image_create c = {
		.format = shape->format, .size = shape->size, .cluster = shape->cluster,
		.version = shape->version, .refcount_bits = shape->refcount_bits,
		.lazy_refcounts = shape->lazy,
	};

	disk_mkdir(dir);
	snprintf(path, sizeof(path), "%s/image", dir);
	for (int how = PREALLOC_OFF; how <= PREALLOC_FULL; how++) {
		if (how == PREALLOC_METADATA && !strcmp(shape->format, "raw"))
			continue;
		c.preallocation = how;
		for (const struct kind *k = kinds; k < kinds + ARRAY_SIZE(kinds); k++) {
			for (u64 nth = 0; ; nth++) {
				struct err err = { 0 };
				unsigned hit;
				int rc;

				arm(k, nth);
				counting = !k->fault.ops;
				rc = image_create(path, &c, &err);
				counting = false;
				hit = recorder_failed();
				recorder_fail(NULL);
				if (!rc)
					check_created(path);
				if (!hit && !out_of_memory)
					break;
				if (rc ? rc != -k->fault.error || !strstr(err.msg, path) ||
					 !access(path, F_OK) :
					 out_of_memory || hit & ~(FILE_READ | FILE_WRITE))
					fail_msg("%s, the %llu-th of %s: %d, '%s'", shape->name,
						 (unsigned long long)nth, k->name, rc, err.msg);
			}
		}
	}
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	struct CMUnitTest test[2 * ARRAY_SIZE(shapes)];
	static char name[ARRAY_SIZE(shapes)][64];
	const char *only = getenv("FAULT_SHAPE");
	size_t nr = 0;

	seed = env_seed("FAULT_SEED");
	steps = env_number("FAULT_STEPS", 20);
	all = env_number("FAULT_ALL", 0);
	print_message("FAULT_SEED=%llu FAULT_STEPS=%llu\n", (unsigned long long)seed,
		      (unsigned long long)steps);
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
		void *shape = (void *)(uintptr_t)&shapes[i];

		if (only && strcmp(only, shapes[i].name))
			continue;
		snprintf(name[i], sizeof(name[i]), "create %s", shapes[i].name);
		test[nr++] = (struct CMUnitTest){ .name = shapes[i].name, .test_func = test_fault, .teardown_func = teardown,
						  .initial_state = shape };
		test[nr++] = (struct CMUnitTest){ .name = name[i], .test_func = test_create,
						  .initial_state = shape };
	}
	return _cmocka_run_group_tests("image_fault", test, nr, NULL, NULL);
}
