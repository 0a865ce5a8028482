/* metrics_test.c: counters, histograms, the registry, and the text that is made of it. */
#include <pthread.h>
#include "tests/lib/prometheus.h"
#include "tests/lib/test.h"
#include "vmm/core/metrics.h"

struct counts {
	u64 in, out, level, spent_ns;
	struct histogram latency;
};

static const struct metric metric[] = {
	{ "x_bytes_total", "op=\"in\"", "Bytes", .offset = offsetof(struct counts, in) },
	{ "x_bytes_total", "op=\"out\"", .offset = offsetof(struct counts, out) },
	{ "x_level", NULL, "Now", METRIC_GAUGE, .offset = offsetof(struct counts, level) },
	{ "x_spent_seconds_total", NULL, "Time", .ns = true,
	  .offset = offsetof(struct counts, spent_ns) },
	{ "x_latency_seconds", NULL, "How long", METRIC_HISTOGRAM,
	  .offset = offsetof(struct counts, latency) },
};
static const struct metric_table table = { "x", metric, ARRAY_SIZE(metric) };
static const struct metric one_metric[] = { { "y", NULL, "One", METRIC_GAUGE, .offset = 0 } };
static const struct metric_table one_table = { NULL, one_metric, 1 };

static char text[65536];

static const char *write_all(const struct metrics *m)
{
	FILE *out = fmemopen(text, sizeof(text), "w");

	assert_non_null(out);
	metrics_write(m, out);
	assert_int_equal(fclose(out), 0);
	prometheus_check(text);
	return text;
}

static struct metric_set set(const char *owner, const struct counts *c)
{
	return (struct metric_set){ .table = &table, .owner = owner, .counters = c };
}

static void test_own_lines(void **state)
{
	char *a = counters_new(8), *b = counters_new(65);

	(void)state;
	assert_true((uintptr_t)a % 64 == 0 && (uintptr_t)b % 64 == 0);
	for (int i = 0; i < 128; i++)
		assert_int_equal(b[i], 0);	/* of both lines */
	free(a);
	free(b);
}

static void test_buckets(void **state)
{
	static const struct { u64 ns; unsigned bucket; } want[] = {
		{ 0, 0 }, { 1, 0 }, { 1000, 0 }, { 1001, 1 }, { 2000, 1 }, { 2001, 2 }, { 4000, 2 },
		{ 4001, 3 }, { 1024000, 10 }, { 1024001, 11 }, { 8388608000, 23 },
		{ 8388608001, 24 }, { 1ULL << 60, 24 },
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(want); i++) {
		struct histogram h = { 0 };

		histogram_add(&h, want[i].ns);
		if (h.bucket[want[i].bucket] != 1)
			fail_msg("%llu ns", (unsigned long long)want[i].ns);
		assert_int_equal(histogram_count(&h), 1);
		assert_int_equal(h.sum_ns, want[i].ns);
	}
}

static void test_extremes(void **state)
{
	struct histogram h = { 0 };

	(void)state;
	histogram_add(&h, 5000);
	histogram_add(&h, 3000);
	histogram_add(&h, 9000);
	assert_int_equal(h.min_ns, 3000);
	assert_int_equal(h.max_ns, 9000);
	assert_int_equal(h.sum_ns, 17000);
}

static void test_nobody_asks(void **state)
{
	struct counts c = { 0 };
	struct metric_set s = set("a", &c);

	(void)state;
	metrics_add(NULL, &s);
	metrics_remove(&s);
	metrics_remove(&s);
}

static void test_sums(void **state)
{
	struct counts a = { .in = 1, .out = 10 }, b = { .in = 2, .out = 20 }, c = { .in = 4, .out = 40 };
	struct metric_set sa = set("a", &a), sb = set("a", &b), sc = set("c", &c);
	struct metrics m = { 0 };

	(void)state;
	metrics_add(&m, &sa);
	metrics_add(&m, &sb);
	metrics_add(&m, &sc);
	assert_int_equal(metrics_sum(&m, NULL, "x_bytes_total", NULL), 77);
	assert_int_equal(metrics_sum(&m, "a", "x_bytes_total", NULL), 33);
	assert_int_equal(metrics_sum(&m, "a", "x_bytes_total", "op=\"in\""), 3);
	assert_int_equal(metrics_sum(&m, "b", "x_bytes_total", NULL), 0);
	assert_int_equal(metrics_sum(&m, NULL, "x_bytes", NULL), 0);
	counter_add(&c.in, 100);
	assert_int_equal(metrics_sum(&m, "c", "x_bytes_total", "op=\"in\""), 104);
	metrics_remove(&sb);
	assert_int_equal(metrics_sum(&m, "a", "x_bytes_total", "op=\"in\""), 1);
	metrics_remove(&sa);
	metrics_remove(&sc);
	assert_null(m.first);
}

static void test_text(void **state)
{
	struct counts a = { .in = 1, .level = 7, .spent_ns = 1500000001 }, a2 = { .in = 2 }, c = { .in = 4 };
	struct metric_set sa = set("a", &a), s2 = set("a", &a2), sc = set("c\"\\\n", &c);
	u64 y = 5;
	struct metric_set sy = { .table = &one_table, .counters = &y };
	struct metrics m = { 0 };

	(void)state;
	assert_string_equal(write_all(&m), "");
	/* The owners of one name stand together, in whatever order they came. */
	metrics_add(&m, &sa);
	metrics_add(&m, &sy);
	metrics_add(&m, &sc);
	metrics_add(&m, &s2);
	write_all(&m);
	assert_true(prometheus_value(text, "vmm_x_bytes_total{x=\"a\",op=\"in\"}") == 3);
	assert_true(prometheus_value(text, "vmm_x_bytes_total{x=\"c\\\"\\\\\\n\",op=\"in\"}") == 4);
	assert_true(prometheus_value(text, "vmm_x_level{x=\"a\"}") == 7);
	assert_says(text, "vmm_x_spent_seconds_total{x=\"a\"} 1.500000001\n");
	assert_true(prometheus_value(text, "vmm_y") == 5);
	assert_says(text, "# HELP vmm_x_bytes_total Bytes\n# TYPE vmm_x_bytes_total counter\n");
}

/* Counted in ticks, told as time. */
static void test_ticks(void **state)
{
	struct ticks a = { 0 }, b = { 0 }, sum;
	static const struct metric spans[] = { { "z_seconds", NULL, "Time", METRIC_TICKS, .offset = 0 } };
	static const struct metric_table spans_table = { "z", spans, 1 };
	struct metric_set sa = { .table = &spans_table, .owner = "a", .counters = &a },
			  sb = { .table = &spans_table, .owner = "b", .counters = &b };
	struct metrics m = { 0 };

	(void)state;
	metrics_add(&m, &sa);
	metrics_add(&m, &sb);
	sum = metrics_ticks(&m, NULL, "z_seconds", NULL);
	assert_true(!sum.count && !sum.sum && !sum.min && !sum.max);
	ticks_add(&a, ticks_now() - 5000000);
	ticks_add(&b, ticks_now() - 4000000);
	ticks_add(&b, ticks_now() - 200000000);
	assert_int_equal(b.count, 2);
	assert_true(b.sum == b.min + b.max && b.min >= 4000000 && b.max >= 200000000);
	sum = metrics_ticks(&m, NULL, "z_seconds", NULL);
	assert_int_equal(sum.count, 3);
	assert_true(sum.min && sum.min < sum.max && sum.sum > sum.max);
	/* On a processor whose clock is behind it took no time, and not ages. */
	ticks_add(&a, ticks_now() + (1ULL << 62));
	assert_true(a.count == 2 && a.max < 1ULL << 62 && a.sum < 1ULL << 62);
	assert_int_equal(metrics_ticks(&m, "b", "z_seconds", NULL).count, 2);
	write_all(&m);
	assert_says(text, "# TYPE vmm_z_seconds summary\n");
	assert_true(prometheus_value(text, "vmm_z_seconds_count{z=\"a\"}") == 2);
	assert_true(prometheus_value(text, "vmm_z_seconds_sum{z=\"a\"}") > 0);
}

static void test_histogram_text(void **state)
{
	struct counts a = { 0 }, b = { 0 };
	struct metric_set sa = set("a", &a), sb = set("a", &b);
	struct metrics m = { 0 };
	struct histogram sum;

	(void)state;
	metrics_add(&m, &sa);
	metrics_add(&m, &sb);
	histogram_add(&a.latency, 500);
	histogram_add(&a.latency, 3000);
	histogram_add(&b.latency, 1000000000);
	histogram_add(&b.latency, 100000000000);
	write_all(&m);
	assert_true(prometheus_value(text, "vmm_x_latency_seconds_bucket{x=\"a\",le=\"0.000001\"}") == 1);
	assert_true(prometheus_value(text, "vmm_x_latency_seconds_bucket{x=\"a\",le=\"0.000002\"}") == 1);
	assert_true(prometheus_value(text, "vmm_x_latency_seconds_bucket{x=\"a\",le=\"0.000004\"}") == 2);
	assert_true(prometheus_value(text, "vmm_x_latency_seconds_bucket{x=\"a\",le=\"1.048576\"}") == 3);
	assert_true(prometheus_value(text, "vmm_x_latency_seconds_bucket{x=\"a\",le=\"8.388608\"}") == 3);
	assert_true(prometheus_value(text, "vmm_x_latency_seconds_bucket{x=\"a\",le=\"+Inf\"}") == 4);
	assert_true(prometheus_value(text, "vmm_x_latency_seconds_count{x=\"a\"}") == 4);
	assert_says(text, "vmm_x_latency_seconds_sum{x=\"a\"} 101.000003500\n");
	sum = metrics_histogram(&m, NULL, "x_latency_seconds", NULL);
	assert_int_equal(sum.min_ns, 500);
	assert_int_equal(sum.max_ns, 100000000000);
}

static void make_five(struct metric_set *s)
{
	*(u64 *)(uintptr_t)s->counters = 5;
}

static void test_refresh(void **state)
{
	u64 y = 0;
	struct metric_set s = { .table = &one_table, .counters = &y, .refresh = make_five };
	struct metrics m = { 0 };

	(void)state;
	metrics_add(&m, &s);
	assert_int_equal(metrics_sum(&m, NULL, "y", NULL), 0);
	metrics_refresh(&m);
	assert_int_equal(metrics_sum(&m, NULL, "y", NULL), 5);
}

/* Read while it is written: never more than was counted, never less than before. */
enum { ROUNDS = 200000 };

static void *count_up(void *arg)
{
	struct counts *c = arg;

	for (int i = 0; i < ROUNDS; i++)
		counter_add(&c->in, 3);
	return NULL;
}

static void test_read_while_counting(void **state)
{
	struct counts *c = counters_new(sizeof(*c));
	struct metric_set s = set("a", c);
	struct metrics m = { 0 };
	u64 now = 0, before;
	pthread_t thread;

	(void)state;
	metrics_add(&m, &s);
	assert_int_equal(pthread_create(&thread, NULL, count_up, c), 0);
	do {
		before = now;
		now = metrics_sum(&m, NULL, "x_bytes_total", "op=\"in\"");
		assert_true(now >= before && now % 3 == 0);
	} while (now < 3 * ROUNDS);
	pthread_join(thread, NULL);
	assert_int_equal(now, 3 * ROUNDS);
	free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_own_lines), cmocka_unit_test(test_buckets),
		cmocka_unit_test(test_extremes), cmocka_unit_test(test_nobody_asks),
		cmocka_unit_test(test_sums), cmocka_unit_test(test_text),
		cmocka_unit_test(test_ticks), cmocka_unit_test(test_histogram_text), cmocka_unit_test(test_refresh),
		cmocka_unit_test(test_read_while_counting),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
