/* metrics.c: counters, the registry that finds them, and how they are told. */
#include "vmm/core/metrics.h"
#include <stdlib.h>
#include <string.h>
#include "vmm/core/loop.h"

enum { CACHE_LINE = 64 };

void *counters_new(size_t len)
{
	void *counters;

	len = ALIGN_UP(len, CACHE_LINE);
	counters = aligned_alloc(CACHE_LINE, len);
	return counters ? memset(counters, 0, len) : NULL;
}

void histogram_add(struct histogram *h, u64 ns)
{
	u64 us = (ns + 999) / 1000;
	unsigned i = us <= 1 ? 0 : 64 - __builtin_clzll(us - 1);

	counter_add(&h->bucket[MIN(i, HISTOGRAM_BUCKETS)], 1);
	counter_add(&h->sum_ns, ns);
	if (ns < h->min_ns || !h->min_ns)
		store_once(&h->min_ns, ns);
	if (ns > h->max_ns)
		store_once(&h->max_ns, ns);
}

u64 histogram_count(const struct histogram *h)
{
	u64 n = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(h->bucket); i++)
		n += h->bucket[i];
	return n;
}

/* --- the processor's clock ----------------------------------------------------------------------- */

static u64 first_ticks, first_ns;

/* From when the first counters were registered until now, it had this rate. */
static u64 ticks_to_ns(u64 ticks)
{
	u64 passed = ticks_now() - first_ticks, ns = now_ns() - first_ns;

	return passed ? (u64)((double)ticks * (double)ns / (double)passed) : 0;
}

/* --- the registry ------------------------------------------------------------------------------ */

void metrics_add(struct metrics *m, struct metric_set *s)
{
	struct metric_set **at;

	if (!m)
		return;
	if (!first_ns) {
		first_ticks = ticks_now();
		first_ns = now_ns();
	}
	for (at = &m->first; *at; at = &(*at)->next)
		continue;
	s->next = NULL;
	s->link = at;
	*at = s;
}

void metrics_remove(struct metric_set *s)
{
	if (!s->link)
		return;
	*s->link = s->next;
	if (s->next)
		s->next->link = s->link;
	s->link = NULL;
}

void metrics_refresh(struct metrics *m)
{
	for (struct metric_set *s = m->first; s; s = s->next)
		if (s->refresh)
			s->refresh(s);
}

static bool is(const char *text, const char *wanted)
{
	return !wanted || (text && !strcmp(text, wanted));
}

static u64 value_of(const struct metric_set *s, const struct metric *d)
{
	return load_once((const u64 *)((const char *)s->counters + d->offset));
}

static void merge(struct histogram *into, const struct metric_set *s, const struct metric *d)
{
	const struct histogram *h = (const void *)((const char *)s->counters + d->offset);
	u64 min_ns = load_once(&h->min_ns), max_ns = load_once(&h->max_ns);

	for (unsigned i = 0; i < ARRAY_SIZE(h->bucket); i++)
		into->bucket[i] += load_once(&h->bucket[i]);
	into->sum_ns += load_once(&h->sum_ns);
	if (min_ns && (min_ns < into->min_ns || !into->min_ns))
		into->min_ns = min_ns;
	into->max_ns = MAX(into->max_ns, max_ns);
}

static void merge_ticks(struct ticks *into, const struct metric_set *s, const struct metric *d)
{
	const struct ticks *from = (const void *)((const char *)s->counters + d->offset);
	u64 min = load_once(&from->min), max = load_once(&from->max);

	into->count += load_once(&from->count);
	into->sum += load_once(&from->sum);
	if (min && (min < into->min || !into->min))
		into->min = min;
	into->max = MAX(into->max, max);
}

/* The next one so called, of all sets, after *i of *s; NULL: none. */
static const struct metric *next_of(const struct metric_set **s, unsigned *i, const char *owner,
				    const char *name, const char *label)
{
	for (; *s; *s = (*s)->next, *i = 0)
		while (*i < (*s)->table->nr && is((*s)->owner, owner)) {
			const struct metric *d = &(*s)->table->metric[(*i)++];

			if (is(d->name, name) && is(d->label, label))
				return d;
		}
	return NULL;
}

u64 metrics_sum(const struct metrics *m, const char *owner, const char *name, const char *label)
{
	const struct metric_set *s = m->first;
	const struct metric *d;
	unsigned i = 0;
	u64 sum = 0;

	while ((d = next_of(&s, &i, owner, name, label)))
		sum += value_of(s, d);
	return sum;
}

struct histogram metrics_histogram(const struct metrics *m, const char *owner, const char *name,
				   const char *label)
{
	const struct metric_set *s = m->first;
	struct histogram sum = { 0 };
	const struct metric *d;
	unsigned i = 0;

	while ((d = next_of(&s, &i, owner, name, label)))
		if (d->kind == METRIC_HISTOGRAM)
			merge(&sum, s, d);
	return sum;
}

struct ticks metrics_ticks(const struct metrics *m, const char *owner, const char *name,
			 const char *label)
{
	const struct metric_set *s = m->first;
	struct ticks sum = { 0 };
	const struct metric *d;
	unsigned i = 0;

	while ((d = next_of(&s, &i, owner, name, label)))
		if (d->kind == METRIC_TICKS)
			merge_ticks(&sum, s, d);
	sum.sum = ticks_to_ns(sum.sum);
	sum.min = ticks_to_ns(sum.min);
	sum.max = ticks_to_ns(sum.max);
	return sum;
}

/* --- as text ----------------------------------------------------------------------------------- */

static bool is_part(const struct metric_set *a, const struct metric_set *b)
{
	return a->table == b->table && (!a->table->label || !strcmp(a->owner, b->owner));
}

/* Is there one before it of the same table, and owner? */
static bool told_before(const struct metrics *m, const struct metric_set *s, bool owner)
{
	for (const struct metric_set *o = m->first; o != s; o = o->next)
		if (owner ? is_part(o, s) : o->table == s->table)
			return true;
	return false;
}

/* What stands between the braces; more: another label, or "". */
static void write_name(FILE *out, const struct metric_set *s, const struct metric *d,
		       const char *suffix, const char *more)
{
	const char *sep = "{";

	fprintf(out, "vmm_%s%s", d->name, suffix);
	if (s->table->label) {
		fprintf(out, "%s%s=\"", sep, s->table->label);
		for (const char *c = s->owner; *c; c++)
			if (*c == '\n')
				fputs("\\n", out);
			else
				fprintf(out, "%s%c", *c == '"' || *c == '\\' ? "\\" : "", *c);
		fputc('"', out);
		sep = ",";
	}
	if (d->label) {
		fprintf(out, "%s%s", sep, d->label);
		sep = ",";
	}
	if (*more) {
		fprintf(out, "%s%s", sep, more);
		sep = ",";
	}
	fputs(*sep == ',' ? "} " : " ", out);
}

static void write_value(FILE *out, u64 n, bool ns)
{
	if (ns)
		fprintf(out, "%llu.%09llu\n", (unsigned long long)n / 1000000000,
			(unsigned long long)n % 1000000000);
	else
		fprintf(out, "%llu\n", (unsigned long long)n);
}

static void write_histogram(const struct metric_set *s, const struct metric *d, FILE *out)
{
	struct histogram sum = { 0 };
	char le[40];
	u64 n = 0;

	for (const struct metric_set *o = s; o; o = o->next)
		if (is_part(o, s))
			merge(&sum, o, d);
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		n += sum.bucket[i];
		snprintf(le, sizeof(le), "le=\"%u.%06u\"", (1U << i) / 1000000, (1U << i) % 1000000);
		write_name(out, s, d, "_bucket", le);
		write_value(out, n, false);
	}
	n += sum.bucket[HISTOGRAM_BUCKETS];
	write_name(out, s, d, "_bucket", "le=\"+Inf\"");
	write_value(out, n, false);
	write_name(out, s, d, "_sum", "");
	write_value(out, sum.sum_ns, true);
	write_name(out, s, d, "_count", "");
	write_value(out, n, false);
}

static void write_ticks(const struct metric_set *s, const struct metric *d, FILE *out)
{
	struct ticks sum = { 0 };

	for (const struct metric_set *o = s; o; o = o->next)
		if (is_part(o, s))
			merge_ticks(&sum, o, d);
	write_name(out, s, d, "_sum", "");
	write_value(out, ticks_to_ns(sum.sum), true);
	write_name(out, s, d, "_count", "");
	write_value(out, sum.count, false);
}

static void write_one(const struct metric_set *s, const struct metric *d, FILE *out)
{
	u64 sum = 0;

	if (d->kind == METRIC_HISTOGRAM) {
		write_histogram(s, d, out);
		return;
	}
	if (d->kind == METRIC_TICKS) {
		write_ticks(s, d, out);
		return;
	}
	for (const struct metric_set *o = s; o; o = o->next)
		if (is_part(o, s))
			sum += value_of(o, d);
	write_name(out, s, d, "", "");
	write_value(out, sum, d->ns);
}

/* Rows i to end have one name; all owners of that must stand together. */
static void write_family(const struct metrics *m, const struct metric_set *first, unsigned i,
			 unsigned end, FILE *out)
{
	static const char *const type[] = {
		[METRIC_COUNTER] = "counter", [METRIC_GAUGE] = "gauge",
		[METRIC_HISTOGRAM] = "histogram", [METRIC_TICKS] = "summary",
	};
	const struct metric *d = &first->table->metric[i];

	fprintf(out, "# HELP vmm_%s %s\n# TYPE vmm_%s %s\n", d->name, d->help, d->name,
		type[d->kind]);
	for (const struct metric_set *s = first; s; s = s->next)
		if (s->table == first->table && !told_before(m, s, true))
			for (unsigned k = i; k < end; k++)
				write_one(s, &s->table->metric[k], out);
}

void metrics_write(const struct metrics *m, FILE *out)
{
	for (const struct metric_set *s = m->first; s; s = s->next) {
		const struct metric_table *t = s->table;

		if (told_before(m, s, false))
			continue;
		for (unsigned i = 0, end; i < t->nr; i = end) {
			for (end = i + 1; end < t->nr; end++)
				if (strcmp(t->metric[i].name, t->metric[end].name))
					break;
			write_family(m, s, i, end, out);
		}
	}
}
