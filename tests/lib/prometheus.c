/* prometheus.c: is this what Prometheus reads (text format, version 0.0.4)? */
#include "tests/lib/prometheus.h"
#include <ctype.h>
#include "tests/lib/test.h"

enum { FAMILIES = 200, SAMPLES = 2000, NAME = 100, LINE = 400 };

struct reader {
	char family[FAMILIES][NAME], type[NAME];	/* of the last */
	unsigned nr_families;
	char sample[SAMPLES][LINE];			/* name and labels */
	unsigned nr_samples;
	bool has_help, has_type;
	double bucket;					/* the last, of one histogram */
	char line[LINE];
};

static const char *take_name(struct reader *r, const char *s, const char *more, char *name)
{
	size_t n = 0;

	if (!isalpha((unsigned char)*s) && *s != '_')
		fail_msg("'%s': no name at '%s'", r->line, s);
	while (isalnum((unsigned char)*s) || *s == '_' || (*s && strchr(more, *s))) {
		assert_true(n < NAME - 1);
		name[n++] = *s++;
	}
	name[n] = 0;
	return s;
}

/* le: what that label says, "" if there is none. */
static const char *take_labels(struct reader *r, const char *s, char *le)
{
	char seen[10][NAME], *out;
	unsigned nr = 0;

	*le = 0;
	do {
		char value[LINE];

		assert_true(nr < ARRAY_SIZE(seen));
		s = take_name(r, s + 1, "", seen[nr]);
		for (unsigned i = 0; i < nr; i++)
			assert_string_not_equal(seen[i], seen[nr]);
		if (s[0] != '=' || s[1] != '"')
			fail_msg("'%s': no =\" at '%s'", r->line, s);
		for (s += 2, out = value; *s && *s != '"'; s++) {
			if (*s == '\\' && !strchr("\\\"n", *++s))
				fail_msg("'%s': a \\ before '%s'", r->line, s);
			*out++ = *s;
		}
		*out = 0;
		if (!*s)
			fail_msg("'%s': a value does not end", r->line);
		if (!strcmp(seen[nr++], "le"))
			strcpy(le, value);
		s++;
	} while (*s == ',');
	if (*s != '}')
		fail_msg("'%s': no } at '%s'", r->line, s);
	return s + 1;
}

/* name is that of the last family, or of a part of such a histogram. */
static void check_family(struct reader *r, const char *name)
{
	const char *family = r->nr_families ? r->family[r->nr_families - 1] : "";
	size_t len = strlen(family), have = strlen(name);

	if (!r->has_help || !r->has_type)
		fail_msg("'%s': no HELP and TYPE in front of it", r->line);
	if (strncmp(name, family, len))
		fail_msg("'%s' stands in %s", r->line, family);
	if (!strcmp(r->type, "histogram"))
		assert_true(!strcmp(name + len, "_bucket") || !strcmp(name + len, "_sum") ||
			    !strcmp(name + len, "_count"));
	else if (!strcmp(r->type, "summary"))
		assert_true(!strcmp(name + len, "_sum") || !strcmp(name + len, "_count"));
	else
		assert_string_equal(name, family);
	if (!strcmp(r->type, "counter") && (have < 6 || strcmp(name + have - 6, "_total")))
		fail_msg("%s is a counter, and does not say so", name);
}

static void check_histogram(struct reader *r, const char *name, const char *le, double value)
{
	size_t len = strlen(name);

	if (!strcmp(r->type, "histogram") && !strcmp(name + len - 7, "_bucket")) {
		assert_true(*le);
		if (value < r->bucket)
			fail_msg("'%s': less than in the bucket before", r->line);
		r->bucket = value;
	} else if (!strcmp(r->type, "histogram") && !strcmp(name + len - 6, "_count")) {
		if (value != r->bucket)
			fail_msg("'%s': not what is in the last bucket, %f", r->line, r->bucket);
		r->bucket = 0;
	}
}

static void read_sample(struct reader *r)
{
	const char *s;
	char name[NAME], le[LINE] = "", *end;
	double value;

	s = take_name(r, r->line, ":", name);
	if (*s == '{')
		s = take_labels(r, s, le);
	if (*s != ' ')
		fail_msg("'%s': no blank at '%s'", r->line, s);
	assert_true(r->nr_samples < SAMPLES);
	snprintf(r->sample[r->nr_samples], LINE, "%.*s", (int)(s - r->line), r->line);
	for (unsigned i = 0; i < r->nr_samples; i++)
		if (!strcmp(r->sample[i], r->sample[r->nr_samples]))
			fail_msg("'%s' stands twice", r->line);
	r->nr_samples++;
	value = strtod(s + 1, &end);
	if (end == s + 1 || *end)
		fail_msg("'%s': '%s' is no number", r->line, s + 1);
	check_family(r, name);
	check_histogram(r, name, le, value);
}

static void read_comment(struct reader *r)
{
	static const char *const types[] = { "counter", "gauge", "histogram", "summary", "untyped" };
	bool help = !strncmp(r->line, "# HELP ", 7), known = false;
	char name[NAME];
	const char *s;

	if (!help && strncmp(r->line, "# TYPE ", 7))
		fail_msg("'%s' is neither help nor type", r->line);
	s = take_name(r, r->line + 7, ":", name);
	assert_true(*s == ' ' && s[1]);
	if (help) {
		for (unsigned i = 0; i < r->nr_families; i++)
			if (!strcmp(r->family[i], name))
				fail_msg("%s stands in two places", name);
		assert_true(r->nr_families < FAMILIES);
		strcpy(r->family[r->nr_families++], name);
		r->has_help = true;
		r->has_type = false;
		return;
	}
	assert_true(r->has_help && !r->has_type);
	assert_string_equal(name, r->family[r->nr_families - 1]);
	for (unsigned i = 0; i < ARRAY_SIZE(types); i++)
		known |= !strcmp(s + 1, types[i]);
	if (!known)
		fail_msg("'%s': there is no such type", r->line);
	strcpy(r->type, s + 1);
	r->has_type = true;
	r->bucket = 0;
}

void prometheus_check(const char *text)
{
	struct reader *r = calloc(1, sizeof(*r));

	assert_non_null(r);
	while (*text) {
		const char *end = strchr(text, '\n');

		if (!end)
			fail_msg("the last line has no end");
		assert_true(end - text < LINE);
		snprintf(r->line, LINE, "%.*s", (int)(end - text), text);
		if (*r->line == '#')
			read_comment(r);
		else
			read_sample(r);
		text = end + 1;
	}
	free(r);
}

double prometheus_value(const char *text, const char *sample)
{
	size_t len = strlen(sample);

	for (const char *s = text; (s = strstr(s, sample)); s++)
		if ((s == text || s[-1] == '\n') && s[len] == ' ')
			return strtod(s + len, NULL);
	fail_msg("there is no %s", sample);
	return 0;
}
