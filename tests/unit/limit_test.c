/* limit_test.c: token buckets, over simulated time, against what integers say they must give. */
#include <inttypes.h>
#include <pthread.h>
#include "tests/lib/recorder.h"
#include "tests/lib/test.h"
#include "vmm/core/limit.h"

#define SECOND	1000000000ULL
#define BEGIN	(12345 * SECOND + 678)

static struct limit limit;

static void start(struct limit_rate bytes, struct limit_rate ops)
{
	struct limit_config c = { bytes, ops };

	limit_init(&limit, &c);
}

#define NONE	((struct limit_rate){ 0 })

static void test_none(void **state)
{
	(void)state;
	start(NONE, NONE);
	assert_int_equal(limit_take(&limit, UINT64_MAX, 0), 0);
	assert_int_equal(limit_take(&limit, UINT64_MAX, 0), 0);
	limit_fini(&limit);
	/* Bytes alone, operations alone: the other costs nothing. */
	start((struct limit_rate){ .rate = 1, .burst = 1 }, NONE);
	for (int n = 0; n < 1000; n++)
		assert_int_equal(limit_take(&limit, 0, BEGIN), 0);
	assert_int_equal(limit_take(&limit, 1, BEGIN), 0);
	assert_int_not_equal(limit_take(&limit, 0, BEGIN), 0);
	limit_fini(&limit);
	start(NONE, (struct limit_rate){ .rate = 1, .burst = 1 });
	assert_int_equal(limit_take(&limit, UINT64_MAX, BEGIN), 0);
	assert_int_not_equal(limit_take(&limit, 0, BEGIN), 0);
	limit_fini(&limit);
}

/*
 * Asked again and again, whenever: what was given is the burst and the rate times
 * the time, to the unit, however the time was cut into pieces.
 */
static void saturate(u64 rate, u64 burst, u64 step_ns, u64 size, u64 *seed)
{
	unsigned __int128 given = 0;
	u64 now = BEGIN;

	start((struct limit_rate){ .rate = rate, .burst = burst }, NONE);
	for (int n = 0; n < 20000; n++) {
		u64 bytes = 1 + draw(seed) % size;
		unsigned __int128 due = burst + (unsigned __int128)rate * (now - BEGIN) / SECOND;
		u64 wait = limit_take(&limit, bytes, now);

		if (!wait != (given < due))
			fail_msg("rate %" PRIu64 ", %" PRIu64 " ns on: %" PRIu64 " given, %" PRIu64
				 " due, to wait %" PRIu64, rate, now - BEGIN, (u64)given, (u64)due, wait);
		if (wait) {
			now += draw(seed) % step_ns;
			continue;
		}
		given += bytes;
	}
	limit_fini(&limit);
}

static void test_rates(void **state)
{
	static const u64 rates[] = { 1, 3, 7, 10, 1000, 4096, 65537, 999983, 1000003, 700000001,
				     999999937, 3000000007ULL, 1ULL << 40, (1ULL << 45) - 1 };
	u64 seed = 1;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(rates); i++) {
		u64 unit = SECOND / rates[i] + 2, per_us = rates[i] / 1000000 + 1;

		/* It never is full again: then all must add up. */
		saturate(rates[i], rates[i] * 10 + 1000, 3 * unit, 3, &seed);
		saturate(rates[i], 50 + 100 * per_us, 1000, per_us, &seed);
	}
}

/* Not a nanosecond early, nor one too late. */
static void test_wait(void **state)
{
	static const u64 rates[] = { 1, 3, 1000, 999983, 999999937, 1ULL << 33 };
	u64 seed = 7;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(rates); i++) {
		u64 now = BEGIN;

		start(NONE, (struct limit_rate){ .rate = rates[i], .burst = 1 });
		for (int n = 0; n < 1000; n++) {
			u64 wait, back;

			while (!(wait = limit_take(&limit, 0, now)))
				;
			back = wait - 1;
			if (draw(&seed) & 1)	/* asking does not change the answer */
				assert_int_equal(limit_take(&limit, 0, now + wait / 2),
						 wait - wait / 2);
			if (back)
				assert_int_equal(limit_take(&limit, 0, now + back), 1);
			now += wait;
			assert_int_equal(limit_take(&limit, 0, now), 0);
		}
		limit_fini(&limit);
	}
}

static unsigned take_all(u64 bytes, u64 now)
{
	unsigned n = 0;

	while (!limit_take(&limit, bytes, now))
		assert_in_range(++n, 0, 1000000);
	return n;
}

static void test_burst(void **state)
{
	(void)state;
	/* A tenth of a second's, where nothing else is said; at least one. */
	start(NONE, (struct limit_rate){ .rate = 1000 });
	assert_int_equal(take_all(0, BEGIN), 100);
	assert_int_equal(take_all(0, BEGIN + SECOND / 100), 10);
	/* After a pause, however long: no more than that. */
	assert_int_equal(take_all(0, BEGIN + 1000000 * SECOND), 100);
	assert_int_equal(take_all(0, UINT64_MAX), 100);
	limit_fini(&limit);
	start(NONE, (struct limit_rate){ .rate = 5 });
	assert_int_equal(take_all(0, BEGIN), 1);
	limit_fini(&limit);
	start(NONE, (struct limit_rate){ .rate = 10, .burst = 500 });
	assert_int_equal(take_all(0, BEGIN), 500);
	assert_int_equal(take_all(0, BEGIN + 10 * SECOND), 100);
	limit_fini(&limit);
}

/* What is larger than the burst goes at once, and what follows waits for it. */
static void test_overdraft(void **state)
{
	u64 wait;

	(void)state;
	start((struct limit_rate){ .rate = 1000, .burst = 10 }, NONE);
	assert_int_equal(limit_take(&limit, 9, BEGIN), 0);
	assert_int_equal(limit_take(&limit, 5001, BEGIN), 0);
	wait = limit_take(&limit, 1, BEGIN);
	assert_int_equal(wait, 5001 * SECOND / 1000);
	assert_int_equal(limit_take(&limit, 1, BEGIN + wait - 1), 1);
	assert_int_equal(limit_take(&limit, 1, BEGIN + wait), 0);
	limit_fini(&limit);
}

/* Both must allow it, and one that does not costs the other nothing. */
static void test_both(void **state)
{
	(void)state;
	start((struct limit_rate){ .rate = 100, .burst = 100 }, (struct limit_rate){ .rate = 10, .burst = 3 });
	assert_int_equal(take_all(1, BEGIN), 3);
	for (int n = 0; n < 50; n++)
		assert_int_equal(limit_take(&limit, 1, BEGIN), SECOND / 10);
	limit_set(&limit, &(struct limit_config){ .bytes = limit.bytes.r, .ops = { .rate = 0 } });
	assert_int_equal(take_all(1, BEGIN), 100);
	limit_fini(&limit);
	start((struct limit_rate){ .rate = 100, .burst = 100 }, (struct limit_rate){ .rate = 10, .burst = 50 });
	assert_int_equal(take_all(60, BEGIN), 2);
	for (int n = 0; n < 50; n++)
		assert_int_equal(limit_take(&limit, 1, BEGIN), 21 * SECOND / 100);
	limit_fini(&limit);
}

static void test_extra(void **state)
{
	(void)state;
	start(NONE, (struct limit_rate){ .rate = 10, .burst = 4, .extra = 1000 });
	assert_int_equal(take_all(0, BEGIN), 1004);
	assert_int_equal(take_all(0, BEGIN + 3600 * SECOND), 4);	/* once */
	limit_fini(&limit);
	/* One request takes all of it, and more than there is. */
	start((struct limit_rate){ .rate = 10, .burst = 4, .extra = 1000 }, NONE);
	assert_int_equal(limit_take(&limit, 1104, BEGIN), 0);
	assert_int_equal(limit_take(&limit, 1, BEGIN), 101 * SECOND / 10);
	limit_fini(&limit);
}

static void test_huge(void **state)
{
	struct limit_rate most = { UINT64_MAX, UINT64_MAX, UINT64_MAX };

	(void)state;
	start(most, most);
	for (u64 n = 0; n < 1000; n++)
		limit_take(&limit, UINT64_MAX, BEGIN + n);
	assert_int_equal(limit_take(&limit, UINT64_MAX, UINT64_MAX), 0);
	limit_fini(&limit);
	/* Whatever was overdrawn, one is told to ask again some day. */
	start((struct limit_rate){ .rate = 1, .burst = 1 }, NONE);
	assert_int_equal(limit_take(&limit, UINT64_MAX, BEGIN), 0);
	assert_int_equal(limit_take(&limit, 1, BEGIN), 3600 * SECOND);
	assert_in_range(limit_take(&limit, 1, UINT64_MAX), 1, 3600 * SECOND);
	limit_fini(&limit);
	start((struct limit_rate){ .rate = UINT64_MAX, .burst = 1 }, NONE);
	assert_int_equal(limit_take(&limit, UINT64_MAX, BEGIN), 0);
	assert_in_range(limit_take(&limit, 1, BEGIN), 1, SECOND);
	assert_int_equal(limit_take(&limit, 1, BEGIN + SECOND), 0);
	limit_fini(&limit);
}

/* Queues look at the clock before they have the lock. */
static void test_clock_steps_back(void **state)
{
	u64 given = 0, seed = 3, top = BEGIN;

	(void)state;
	start(NONE, (struct limit_rate){ .rate = 1000000, .burst = 10 });
	for (int n = 0; n < 100000; n++) {
		u64 now = top - draw(&seed) % MIN(top - BEGIN + 1, 5000);

		given += !limit_take(&limit, 0, now);
		top += draw(&seed) % 300;
	}
	assert_in_range(given, (top - BEGIN) / 1000 - 10, 10 + (top - BEGIN) / 1000);
	limit_fini(&limit);
}

enum { THREADS = 4 };

static void *taker(void *arg)
{
	u64 *given = arg;

	for (int n = 0; n < 20000; n++)
		*given += !limit_take(&limit, 3, BEGIN + n * 1000);
	return NULL;
}

static void test_shared(void **state)
{
	pthread_t t[THREADS];
	u64 given[THREADS] = { 0 }, sum = 0;

	(void)state;
	start((struct limit_rate){ .rate = 300000, .burst = 300 }, NONE);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, taker, &given[i]), 0);
	for (int i = 0; i < THREADS; i++) {
		pthread_join(t[i], NULL);
		sum += given[i];
	}
	/* 20 ms: 6000 bytes, and the burst. */
	assert_in_range(sum, 6000 / 3, (6300 + 2) / 3);
	limit_fini(&limit);
}

/* --- several who share it ------------------------------------------------------------------ */

enum { USERS = 3 };

/* All always want more, and are asked in the same order; each has his share. */
static void test_turns(void **state)
{
	static const u64 steps[] = { SECOND / 1000, SECOND / 100, SECOND / 7, 12345678 };

	(void)state;
	for (unsigned s = 0; s < ARRAY_SIZE(steps); s++) {
		struct limit_user user[USERS] = { 0 };
		u64 given[USERS] = { 0 }, now = BEGIN, most = 0, least = UINT64_MAX;

		start(NONE, (struct limit_rate){ .rate = 100, .burst = 10 });
		for (int n = 0; n < 3000; n++, now += steps[s])
			for (int i = 0; i < USERS; i++)
				while (!limit_take_turn(&limit, &user[i], 0, now))
					given[i]++;
		for (int i = 0; i < USERS; i++) {
			most = MAX(most, given[i]);
			least = MIN(least, given[i]);
		}
		/* What came between two looks is one user's, be it one or two. */
		assert_in_range(most - least, 0, 10 + least / 10);
		/* And nothing of it is lost, but for what a full bucket cannot take. */
		if (steps[s] <= SECOND / 100)
			assert_int_equal(given[0] + given[1] + given[2],
					 10 + (now - steps[s] - BEGIN) / (SECOND / 100));
		for (int i = 0; i < USERS; i++)
			limit_leave(&limit, &user[i]);
		assert_null(limit.line);
		limit_fini(&limit);
	}
}

static void test_leave(void **state)
{
	struct limit_user a = { 0 }, b = { 0 }, c = { 0 };
	u64 now = BEGIN;

	(void)state;
	start(NONE, (struct limit_rate){ .rate = 10, .burst = 2 });
	limit_leave(&limit, &a);
	assert_int_equal(limit_take_turn(&limit, &a, 0, now), 0);
	assert_int_equal(limit_take_turn(&limit, &b, 0, now), 0);
	assert_int_equal(limit_take_turn(&limit, &a, 0, now), SECOND / 10);
	assert_int_equal(limit_take_turn(&limit, &b, 0, now), SECOND / 10);
	assert_int_equal(limit_take_turn(&limit, &c, 0, now), SECOND / 10);
	now += SECOND / 10;
	/* It is a's, who is late: the others look again soon. */
	assert_in_range(limit_take_turn(&limit, &c, 0, now), 1, SECOND / 100);
	assert_in_range(limit_take_turn(&limit, &b, 0, now), 1, SECOND / 100);
	assert_int_equal(limit_take_turn(&limit, &a, 0, now), 0);
	assert_int_equal(limit_take_turn(&limit, &a, 0, now), SECOND / 10);
	now += SECOND / 10;
	assert_int_not_equal(limit_take_turn(&limit, &a, 0, now), 0);
	limit_leave(&limit, &b);
	limit_leave(&limit, &b);
	assert_int_equal(limit_take_turn(&limit, &c, 0, now), 0);
	limit_leave(&limit, &c);
	now += SECOND;
	assert_int_equal(limit_take_turn(&limit, &a, 0, now), 0);
	assert_int_equal(limit_take_turn(&limit, &a, 0, now), 0);
	assert_int_equal(limit_take_turn(&limit, &a, 0, now), SECOND / 10);
	/* Without a limit there is no line either. */
	assert_int_equal(limit_take_turn(&limit, &b, 0, now), SECOND / 10);
	limit_set(&limit, &(struct limit_config){ 0 });
	assert_int_equal(limit_take_turn(&limit, &b, 0, now), 0);
	limit_leave(&limit, &b);
	limit_leave(&limit, &a);
	assert_null(limit.line);
	limit_fini(&limit);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_none), cmocka_unit_test(test_rates), cmocka_unit_test(test_wait),
		cmocka_unit_test(test_burst), cmocka_unit_test(test_overdraft), cmocka_unit_test(test_both),
		cmocka_unit_test(test_extra), cmocka_unit_test(test_huge),
		cmocka_unit_test(test_clock_steps_back), cmocka_unit_test(test_shared),
		cmocka_unit_test(test_turns), cmocka_unit_test(test_leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
