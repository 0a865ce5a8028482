/* bus_test.c: who answers at an address, and what happens where nobody does. */
#include <sched.h>
#include "tests/lib/test.h"
#include "vmm/core/bus.h"

struct answerer {
	struct device dev;
	struct io_range range;
	u64 offset, value;
	unsigned size;
	int nr_reads, nr_writes;
	int nr_inside, nr_met;		/* atomic: handlers that run now; that met another */
};

static u64 on_read(struct device *dev, u64 offset, unsigned size)
{
	struct answerer *a = container_of(dev, struct answerer, dev);

	a->nr_reads++;
	a->offset = offset;
	a->size = size;
	return 0xaabbccddeeff1122;
}

static void on_write(struct device *dev, u64 offset, unsigned size, u64 value)
{
	struct answerer *a = container_of(dev, struct answerer, dev);

	a->nr_writes++;
	a->offset = offset;
	a->size = size;
	a->value = value;
}

static const struct io_ops ops = { .read = on_read, .write = on_write };
static const struct io_ops mute = { 0 };
static const struct device_ops dev_ops = { .kind = "answerer" };

static struct bus bus;

static void make(struct answerer *a, const struct io_ops *o, u64 len, const char *name)
{
	memset(a, 0, sizeof(*a));
	device_init(&a->dev, &dev_ops, name);
	a->range = (struct io_range){ .ops = o, .dev = &a->dev, .len = len, .name = name };
}

static int setup(void **state)
{
	(void)state;
	bus_init(&bus, "mmio");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	bus_fini(&bus);
	return 0;
}

static void test_unmapped(void **state)
{
	(void)state;
	assert_int_equal(bus_read(&bus, 0, 1), 0xff);
	assert_int_equal(bus_read(&bus, 0x1000, 2), 0xffff);
	assert_int_equal(bus_read(&bus, ~0ULL - 3, 4), 0xffffffff);
	assert_true(bus_read(&bus, ~0ULL, 8) == ~0ULL);
	bus_write(&bus, 0x1000, 4, 1);
}

static void test_range_without_handlers(void **state)
{
	struct answerer a;

	(void)state;
	make(&a, &mute, 16, "mute");
	assert_int_equal(bus_map(&bus, &a.range, 0x100, NULL), 0);
	assert_int_equal(bus_read(&bus, 0x100, 4), 0xffffffff);
	bus_write(&bus, 0x100, 4, 0);
	bus_unmap(&bus, &a.range);
}

static void test_offset_size_and_value(void **state)
{
	struct answerer a;

	(void)state;
	make(&a, &ops, 0x100, "a");
	assert_int_equal(bus_map(&bus, &a.range, 0x1000, NULL), 0);
	assert_true(a.range.mapped);
	assert_int_equal(a.range.base, 0x1000);
	assert_int_equal(bus_read(&bus, 0x1010, 4), 0xeeff1122);
	assert_int_equal(a.offset, 0x10);
	assert_int_equal(a.size, 4);
	assert_int_equal(bus_read(&bus, 0x10ff, 1), 0x22);
	assert_int_equal(a.offset, 0xff);
	assert_true(bus_read(&bus, 0x10f8, 8) == 0xaabbccddeeff1122);
	bus_write(&bus, 0x1004, 2, 0xbeef);
	assert_int_equal(a.nr_writes, 1);
	assert_int_equal(a.offset, 4);
	assert_int_equal(a.value, 0xbeef);
	bus_unmap(&bus, &a.range);
}

/* An access that is partly outside is nobody's: the device never sees it. */
static void test_straddling(void **state)
{
	struct answerer a, b;

	(void)state;
	make(&a, &ops, 0x10, "a");
	make(&b, &ops, 2, "b");
	assert_int_equal(bus_map(&bus, &a.range, 0x1000, NULL), 0);
	assert_int_equal(bus_map(&bus, &b.range, 0x1010, NULL), 0);
	assert_int_equal(bus_read(&bus, 0x100e, 4), 0xffffffff);
	assert_int_equal(bus_read(&bus, 0xffe, 4), 0xffffffff);
	assert_int_equal(bus_read(&bus, 0x1010, 4), 0xffffffff);	/* wider than the range */
	bus_write(&bus, 0x100d, 4, 0);
	bus_write(&bus, 0xfff, 2, 0);
	assert_int_equal(a.nr_reads + a.nr_writes + b.nr_reads + b.nr_writes, 0);
	assert_int_equal(bus_read(&bus, 0x1010, 2), 0x1122);
	assert_int_equal(b.nr_reads, 1);
	bus_unmap(&bus, &a.range);
	bus_unmap(&bus, &b.range);
}

static void test_overlap(void **state)
{
	static const u64 over[] = { 0x1000, 0x1001, 0xfff, 0x10ff, 0xf01 };
	struct answerer a, b;

	(void)state;
	make(&a, &ops, 0x100, "first");
	make(&b, &ops, 0x100, "second");
	assert_int_equal(bus_map(&bus, &a.range, 0x1000, NULL), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(over); i++) {
		struct err err = { 0 };

		assert_int_equal(bus_map(&bus, &b.range, over[i], &err), -EEXIST);
		assert_says(err.msg, "first");
		assert_says(err.msg, "second");
		assert_false(b.range.mapped);
	}
	assert_int_equal(bus_map(&bus, &b.range, 0x1100, NULL), 0);
	assert_int_equal(bus_map(&bus, &b.range, 0xf00, NULL), 0);
	bus_unmap(&bus, &a.range);
	bus_unmap(&bus, &b.range);
}

/* One that swallows others whole, and one inside of another. */
static void test_overlap_inside(void **state)
{
	struct answerer a, b, c;

	(void)state;
	make(&a, &ops, 0x10, "a");
	make(&b, &ops, 0x1000, "b");
	make(&c, &ops, 0x10, "c");
	assert_int_equal(bus_map(&bus, &a.range, 0x1500, NULL), 0);
	assert_int_equal(bus_map(&bus, &b.range, 0x1000, NULL), -EEXIST);
	bus_unmap(&bus, &a.range);
	assert_int_equal(bus_map(&bus, &b.range, 0x1000, NULL), 0);
	assert_int_equal(bus_map(&bus, &c.range, 0x1500, NULL), -EEXIST);
	bus_unmap(&bus, &b.range);
}

static void test_wrap(void **state)
{
	struct answerer a;

	(void)state;
	make(&a, &ops, 0x100, "a");
	assert_int_equal(bus_map(&bus, &a.range, ~0ULL - 0xfe, NULL), -EINVAL);
	assert_int_equal(bus_map(&bus, &a.range, ~0ULL, NULL), -EINVAL);
	assert_int_equal(bus_map(&bus, &a.range, ~0ULL - 0xff, NULL), 0);
	assert_int_equal(bus_read(&bus, ~0ULL, 1), 0x22);
	assert_int_equal(a.offset, 0xff);
	assert_int_equal(bus_read(&bus, ~0ULL, 2), 0xffff);
	bus_unmap(&bus, &a.range);
	a.range.len = 0;
	assert_int_equal(bus_map(&bus, &a.range, 0x1000, NULL), -EINVAL);
}

static void test_remap_and_unmap(void **state)
{
	struct answerer a;

	(void)state;
	make(&a, &ops, 0x10, "a");
	assert_int_equal(bus_map(&bus, &a.range, 0x1000, NULL), 0);
	assert_int_equal(bus_map(&bus, &a.range, 0x1008, NULL), 0);	/* over itself */
	assert_int_equal(bus.nr, 1);
	assert_int_equal(bus_read(&bus, 0x1000, 4), 0xffffffff);
	assert_int_equal(bus_read(&bus, 0x1014, 4), 0xeeff1122);
	bus_unmap(&bus, &a.range);
	bus_unmap(&bus, &a.range);
	assert_false(a.range.mapped);
	assert_int_equal(bus.nr, 0);
	assert_int_equal(bus_read(&bus, 0x1008, 4), 0xffffffff);
	assert_int_equal(a.nr_reads, 1);
}

/* Mapped in a scrambled order, all are found, and one too many is refused. */
static void test_many(void **state)
{
	static struct answerer a[BUS_MAX_RANGES + 1];

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(a); i++)
		make(&a[i], &ops, 8, "x");
	for (unsigned i = 0; i < BUS_MAX_RANGES; i++) {
		unsigned k = i * 101 % BUS_MAX_RANGES;

		assert_int_equal(bus_map(&bus, &a[k].range, 0x1000 + 16 * k, NULL), 0);
	}
	assert_int_equal(bus_map(&bus, &a[BUS_MAX_RANGES].range, 0, NULL), -ENOSPC);
	for (unsigned i = 0; i < BUS_MAX_RANGES; i++) {
		bus_write(&bus, 0x1000 + 16 * i + 4, 4, i);
		assert_int_equal(a[i].value, i);
		assert_int_equal(a[i].nr_writes, 1);
		assert_int_equal(bus_read(&bus, 0x1000 + 16 * i + 8, 1), 0xff);
	}
	for (unsigned i = 0; i < BUS_MAX_RANGES; i++)
		bus_unmap(&bus, &a[i * 37 % BUS_MAX_RANGES].range);
	assert_int_equal(bus.nr, 0);
}

/* --- many processors ------------------------------------------------------------------------- */

enum { CPUS = 4, ACCESSES = 500 };

/* Long enough for others to come in between. */
static void stay(struct device *dev)
{
	struct answerer *a = container_of(dev, struct answerer, dev);

	if (__atomic_fetch_add(&a->nr_inside, 1, __ATOMIC_SEQ_CST))
		__atomic_fetch_add(&a->nr_met, 1, __ATOMIC_SEQ_CST);
	for (int i = 0; i < 10; i++)
		sched_yield();
	__atomic_fetch_sub(&a->nr_inside, 1, __ATOMIC_SEQ_CST);
}

static u64 slow_read(struct device *dev, u64 offset, unsigned size)
{
	(void)offset, (void)size;
	stay(dev);
	return 0;
}

static void slow_write(struct device *dev, u64 offset, unsigned size, u64 value)
{
	(void)offset, (void)size, (void)value;
	stay(dev);
}

static const struct io_ops slow = { .read = slow_read, .write = slow_write };

static void *access_it(void *arg)
{
	for (unsigned i = 0; i < ACCESSES; i++)
		if (arg)
			bus_write(&bus, 0x1000, 4, i);
		else
			bus_read(&bus, 0x1000, 4);
	return NULL;
}

/* A device is asked by one processor at a time, whatever all of them do. */
static void test_storm(void **state)
{
	pthread_t cpu[CPUS];
	struct answerer a;

	(void)state;
	make(&a, &slow, 16, "slow");
	assert_int_equal(bus_map(&bus, &a.range, 0x1000, NULL), 0);
	for (uintptr_t i = 0; i < CPUS; i++)
		assert_int_equal(pthread_create(&cpu[i], NULL, access_it, (void *)(i % 2)), 0);
	for (unsigned i = 0; i < CPUS; i++)
		assert_int_equal(pthread_join(cpu[i], NULL), 0);
	assert_int_equal(a.nr_met, 0);
	bus_unmap(&bus, &a.range);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_unmapped), T(test_range_without_handlers), T(test_offset_size_and_value),
		T(test_straddling), T(test_overlap), T(test_overlap_inside), T(test_wrap),
		T(test_remap_and_unmap), T(test_many), T(test_storm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
