/* json.c: JSON objects into structs and back, by tables. */
#include "vmm/api/json.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "vmm/config.h"
#include "vmm/core/log.h"

/* --- memory ----------------------------------------------------------------------------------- */

/*
 * The parser does not look whether a token's text found room to grow, and where it did not, it writes
 * past the token's copy.  So what it asks for in the sizes of that text is there, once; what comes of
 * it is thrown away.
 */
enum { SPARE = 256 * KIB, TEXT_MIN = 32 };

static _Thread_local bool starved, parses;
static _Alignas(16) u8 spare[SPARE];	/* one thread parses */
static size_t spare_used;

static void *take_spare(size_t n)
{
	void *p = spare + spare_used;

	if (!parses || n < TEXT_MIN || n & (n - 1))
		return NULL;
	if (n > SPARE - spare_used) {
		log_err("out of memory");
		_exit(EXIT_FAILURE);
	}
	spare_used += n;
	return p;
}

static void *take(size_t n)
{
	void *p = malloc(n);

	if (p)
		return p;
	starved = true;
	return take_spare(n);
}

static void give(void *p)
{
	if ((uintptr_t)p - (uintptr_t)spare >= SPARE)
		free(p);
}

static json_t *parsed(json_t *root)
{
	parses = false;
	if (!starved)
		return root;
	json_decref(root);
	return NULL;
}

json_t *json_parse(const char *text, size_t len, json_error_t *why)
{
	parses = true;
	return parsed(json_loadb(text, len, JSON_REJECT_DUPLICATES, why));
}

void json_begin(void)
{
	json_set_alloc_funcs(take, give);
	starved = false;
	spare_used = 0;
}

bool json_starved(void)
{
	return starved;
}

static bool has_15_digits(const json_t *v)
{
	char text[32];
	const char *key;
	json_t *below;
	size_t i;

	if (json_is_real(v)) {
		snprintf(text, sizeof(text), "%.15g", json_real_value(v));
		return strtod(text, NULL) == json_real_value(v);
	}
	json_array_foreach(v, i, below)
		if (!has_15_digits(below))
			return false;
	json_object_foreach((json_t *)(uintptr_t)v, key, below)
		if (!has_15_digits(below))
			return false;
	return true;
}

size_t json_precision(const json_t *root)
{
	return has_15_digits(root) ? JSON_REAL_PRECISION(15) : JSON_REAL_PRECISION(17);
}

char *json_text(const json_t *root)
{
	char *text = root && !starved ? json_dumps(root, JSON_COMPACT | json_precision(root)) : NULL;

	if (!starved)
		return text;
	free(text);
	return NULL;
}

/* Jansson itself takes a file that cannot be read for one that ends there. */
json_t *json_read_file(const char *path, struct err *err)
{
	FILE *f = fopen(path, "re");
	json_error_t why;
	json_t *root;
	int failed;

	if (!f) {
		err_set(err, -errno, "%s: %s", path, strerror(errno));
		return NULL;
	}
	json_begin();
	errno = 0;
	parses = true;
	root = parsed(json_loadf(f, JSON_REJECT_DUPLICATES, &why));
	failed = ferror(f) ? errno ?: EIO : 0;
	fclose(f);
	if (root && !failed && !starved)
		return root;
	if (failed)
		err_set(err, -failed, "%s: %s", path, strerror(failed));
	else if (starved)
		err_set(err, -ENOMEM, "%s: out of memory", path);
	else
		err_set(err, -EINVAL, "%s: line %d: %s", path, why.line, why.text);
	json_decref(root);
	return NULL;
}

/* --- what is wrong ---------------------------------------------------------------------------- */

static int unknown_field(const struct schema *s, const char *name, struct err *err)
{
	const char *names[32], *near;
	unsigned n = MIN(s->nr, ARRAY_SIZE(names));
	char list[256] = "";

	for (unsigned i = 0; i < n; i++) {
		names[i] = s->fields[i].name;
		snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", i ? ", " : "",
			 names[i]);
	}
	near = config_nearest(name, names, n);
	if (near)
		return err_set(err, -EINVAL, "unknown field '%s'; did you mean '%s'?", name, near);
	return err_set(err, -EINVAL, "unknown field '%s'; known: %s", name, list);
}

static int wrong_kind(const struct field *f, const char *kind, struct err *err)
{
	return err_set(err, -EINVAL, "field '%s' must be %s", f->name, kind);
}

static int wrong_word(const struct field *f, const char *word, struct err *err)
{
	char list[256] = "";

	for (unsigned i = 0; f->words[i]; i++)
		snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", i ? ", " : "",
			 f->words[i]);
	return err_set(err, -EINVAL, "field '%s': '%s' is none of %s", f->name, word, list);
}

/* --- reading ---------------------------------------------------------------------------------- */

static int read_number(const struct field *f, const json_t *v, u64 *into, struct err *err)
{
	u64 max = f->max ? f->max : INT64_MAX;
	json_int_t n = json_integer_value(v);

	if (!json_is_integer(v))
		return wrong_kind(f, "a whole number", err);
	if (n < 0 || (u64)n < f->min || (u64)n > max)
		return err_set(err, -EINVAL, f->max ? "field '%s': %lld is not between %llu and %llu" :
			       "field '%s': %lld is less than %llu", f->name, (long long)n,
			       (unsigned long long)f->min, (unsigned long long)f->max);
	if (into)
		*into = n;
	return 0;
}

static int read_word(const struct field *f, const json_t *v, unsigned *into, struct err *err)
{
	const char *word = json_string_value(v);

	if (!word)
		return wrong_kind(f, "text", err);
	for (unsigned i = 0; f->words[i]; i++)
		if (!(f->any_case ? strcasecmp : strcmp)(word, f->words[i])) {
			if (into)
				*into = i;
			return 0;
		}
	return wrong_word(f, word, err);
}

static int read_texts(const struct field *f, const json_t *v, struct err *err)
{
	const json_t *item;
	const char *key;
	size_t i;

	if (f->kind == FIELD_TEXTS ? !json_is_array(v) : !json_is_object(v))
		return wrong_kind(f, f->kind == FIELD_TEXTS ? "a list of text" :
				  "an object with text in it", err);
	json_array_foreach(v, i, item)
		if (!json_is_string(item))
			return wrong_kind(f, "a list of text", err);
	json_object_foreach((json_t *)(uintptr_t)v, key, item)
		if (!json_is_string(item))
			return wrong_kind(f, "an object with text in it", err);
	return 0;
}

static int read_objects(const struct field *f, const json_t *v, struct seen *seen, struct err *err)
{
	const json_t *item;
	size_t i;
	int rc = 0;

	if (!json_is_array(v))
		return wrong_kind(f, "a list of objects", err);
	json_array_foreach(v, i, item) {
		rc = json_read(f->object, item, NULL, seen, err);
		if (rc)
			return err_prefix(err, "%s[%zu]: ", f->name, i);
	}
	return 0;
}

static int read_object(const struct field *f, const json_t *v, void *into, struct seen *seen,
		       struct err *err)
{
	struct seen inside = { 0 };
	int rc = json_read(f->object, v, into, &inside, err);

	if (rc)
		return err_prefix(err, "%s: ", f->name);
	seen->deprecated |= inside.deprecated;
	if (into)
		*(bool *)into = true;
	return 0;
}

static int read_field(const struct field *f, const json_t *v, void *into, struct seen *seen,
		      struct err *err)
{
	int rc = 0;

	switch (f->kind) {
	case FIELD_BOOL:
		if (!json_is_boolean(v))
			return wrong_kind(f, "true or false", err);
		if (into)
			*(bool *)into = json_is_true(v);
		return 0;
	case FIELD_NUMBER:
		return read_number(f, v, into, err);
	case FIELD_TEXT:
		if (!json_is_string(v))
			return wrong_kind(f, "text", err);
		if (into)
			*(const char **)into = json_string_value(v);
		return 0;
	case FIELD_WORD:
		return read_word(f, v, into, err);
	case FIELD_OBJECT:
		return read_object(f, v, into, seen, err);
	case FIELD_OBJECTS:
		rc = read_objects(f, v, seen, err);
		break;
	case FIELD_TEXTS:
	case FIELD_TEXT_MAP:
		rc = read_texts(f, v, err);
		break;
	case FIELD_ANY:
		if (json_is_null(v))
			return wrong_kind(f, "an object or a list", err);
		break;
	}
	if (!rc && into)
		*(const json_t **)into = v;
	return rc;
}

static const struct field *find_field(const struct schema *s, const char *name)
{
	for (unsigned i = 0; i < s->nr; i++)
		if (!strcmp(s->fields[i].name, name))
			return &s->fields[i];
	return NULL;
}

int json_read(const struct schema *s, const json_t *from, void *into, struct seen *seen,
	      struct err *err)
{
	const char *name;
	json_t *v;

	if (!json_is_object(from))
		return err_set(err, -EINVAL, "not an object: {...}");
	if (!s->nr)
		return 0;
	json_object_foreach((json_t *)(uintptr_t)from, name, v) {
		const struct field *f = find_field(s, name);
		int rc;

		if (!f)
			return unknown_field(s, name, err);
		if (json_is_null(v) && f->nullable)
			continue;
		rc = read_field(f, v, into && !f->only_checked ? (char *)into + f->offset : NULL, seen,
				err);
		if (rc)
			return rc;
		seen->given++;
		seen->deprecated |= f->deprecated && !json_is_false(v);
	}
	for (unsigned i = 0; i < s->nr; i++)
		if (s->fields[i].required && !json_object_get(from, s->fields[i].name))
			return err_set(err, -EINVAL, "missing field '%s'", s->fields[i].name);
	return 0;
}

/* --- writing ---------------------------------------------------------------------------------- */

static json_t *write_field(const struct field *f, const void *from)
{
	switch (f->kind) {
	case FIELD_BOOL:
		return json_boolean(*(const bool *)from);
	case FIELD_NUMBER:
		return f->nullable && !*(const u64 *)from ? NULL : json_integer(*(const u64 *)from);
	case FIELD_TEXT:
		return *(const char *const *)from ? json_string(*(const char *const *)from) : NULL;
	case FIELD_WORD:
		return json_string(f->words[*(const unsigned *)from]);
	case FIELD_OBJECT:
		return *(const bool *)from ? json_write(f->object, from) : NULL;
	default:
		return json_incref(*(json_t *const *)from);
	}
}

json_t *json_write(const struct schema *s, const void *from)
{
	json_t *o = json_object();

	for (unsigned i = 0; i < s->nr && o; i++) {
		const struct field *f = &s->fields[i];
		json_t *v = f->only_checked ? NULL :
					      write_field(f, (const char *)from + f->offset);

		if (v || f->nullable)
			json_object_set_new(o, f->name, v ?: json_null());
	}
	return o;
}
