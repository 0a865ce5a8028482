/* state.c: the visitor, on libfdt: written from front to back, read by name. */
#include "vmm/core/state.h"
#include <errno.h>
#include <libfdt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 8, NAME_LEN = 32, FIRST_ROOM = 64 * 1024, ROOM_MAX = 64 * 1024 * 1024 };

struct state {
	bool loading;
	struct err err;
	char path[MAX_DEPTH][NAME_LEN];
	int depth;			/* of path; the root is not in it */
	bool has_parts[MAX_DEPTH + 1];
	/* saving */
	void *tree;
	size_t room;
	/* loading */
	const void *blob;
	int node[MAX_DEPTH + 1];
	int seen[MAX_DEPTH + 1];	/* properties and nodes asked for */
};

static void fail(struct state *s, int rc, const char *text)
{
	char place[MAX_DEPTH * NAME_LEN] = "";

	if (s->err.code)
		return;
	for (int i = 0; i < s->depth; i++)
		snprintf(place + strlen(place), sizeof(place) - strlen(place), "/%s", s->path[i]);
	err_set(&s->err, rc, "%s: %s", *place ? place : "/", text);
}

void state_fail(struct state *s, const char *fmt, ...)
{
	char text[200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fail(s, -EINVAL, text);
}

void state_error(struct state *s, int rc, const char *what)
{
	char text[200];

	snprintf(text, sizeof(text), "%s%s%s", what ?: "", what ? ": " : "", strerror(-rc));
	fail(s, rc, text);
}

bool state_loading(const struct state *s)
{
	return s->loading;
}

bool state_failed(const struct state *s)
{
	return s->err.code;
}

/* --- saving: the tree grows as it has to ------------------------------------------------ */

static bool grow(struct state *s)
{
	size_t room = s->room * 2;
	void *tree = room <= ROOM_MAX ? calloc(1, room) : NULL;

	if (!tree || fdt_resize(s->tree, tree, room)) {
		free(tree);
		err_set(&s->err, -ENOMEM, "out of memory");
		return false;
	}
	free(s->tree);
	s->tree = tree;
	s->room = room;
	return true;
}

/* One of libfdt's calls, again with more room where that is what it lacks. */
#define WRITE(s, call) do { \
	int rc_ = (s)->err.code ? 0 : -FDT_ERR_NOSPACE; \
	while (rc_ == -FDT_ERR_NOSPACE && !(s)->err.code) { \
		rc_ = (call); \
		if (rc_ == -FDT_ERR_NOSPACE) \
			grow(s); \
	} \
	BUG_ON(rc_ && rc_ != -FDT_ERR_NOSPACE); \
} while (0)

int state_new_save(struct state **out, struct err *err)
{
	struct state *s = calloc(1, sizeof(*s));

	if (!s || !(s->tree = calloc(1, FIRST_ROOM))) {
		free(s);
		return err_set(err, -ENOMEM, "out of memory");
	}
	s->room = FIRST_ROOM;
	BUG_ON(fdt_create(s->tree, s->room) || fdt_finish_reservemap(s->tree) ||
	       fdt_begin_node(s->tree, ""));
	*out = s;
	return 0;
}

int state_finish_save(struct state *s, const void **blob, size_t *len, struct err *err)
{
	BUG_ON(s->depth && !s->err.code);
	WRITE(s, fdt_end_node(s->tree));
	WRITE(s, fdt_finish(s->tree));
	if (s->err.code) {
		*err = s->err;
		return s->err.code;
	}
	*blob = s->tree;
	*len = fdt_totalsize(s->tree);
	return 0;
}

/* --- loading: nothing may be left over -------------------------------------------------------- */

int state_new_load(struct state **out, const void *blob, size_t len, struct err *err)
{
	struct state *s;
	int rc = len > ROOM_MAX ? -FDT_ERR_BADSTRUCTURE : fdt_check_full(blob, len);

	if (rc)
		return err_set(err, -EINVAL, "not a device tree: %s", fdt_strerror(rc));
	s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(err, -ENOMEM, "out of memory");
	s->loading = true;
	s->blob = blob;
	*out = s;
	return 0;
}

static int count(const void *blob, int node)
{
	int n = 0, at;

	fdt_for_each_property_offset(at, blob, node)
		n++;
	fdt_for_each_subnode(at, blob, node)
		n++;
	return n;
}

static void check_all_seen(struct state *s)
{
	int there = s->err.code ? 0 : count(s->blob, s->node[s->depth]);

	if (!s->err.code && there != s->seen[s->depth])
		state_fail(s, "%d fields, of which this version knows %d", there, s->seen[s->depth]);
}

int state_finish_load(struct state *s, struct err *err)
{
	BUG_ON(s->depth);
	check_all_seen(s);
	if (s->err.code)
		*err = s->err;
	return s->err.code;
}

void state_free(struct state *s)
{
	if (!s)
		return;
	free(s->tree);
	free(s);
}

/* --- parts -------------------------------------------------------------------------------------- */

/* After an error depth is still counted, so that enter and leave stay pairs. */
static void enter(struct state *s, const char *name)
{
	int node;

	BUG_ON(s->depth == MAX_DEPTH);
	snprintf(s->path[s->depth], NAME_LEN, "%s", name);
	if (s->loading && !s->err.code) {
		node = fdt_subnode_offset(s->blob, s->node[s->depth], name);
		if (node < 0)
			state_fail(s, "%s is missing", name);
		s->seen[s->depth]++;
		s->node[s->depth + 1] = node;
		s->seen[s->depth + 1] = 0;
	} else if (!s->loading) {
		WRITE(s, fdt_begin_node(s->tree, name));
	}
	s->has_parts[s->depth++] = true;
	s->has_parts[s->depth] = false;
}

void state_enter(struct state *s, const char *name, unsigned number)
{
	char full[NAME_LEN];

	snprintf(full, sizeof(full), "%s@%x", name, number);
	enter(s, full);
}

bool state_if(struct state *s, const char *name, bool needed)
{
	if (s->loading)
		needed = !s->err.code &&
			 fdt_subnode_offset(s->blob, s->node[s->depth], name) >= 0;
	if (needed)
		enter(s, name);
	return needed;
}

void state_leave(struct state *s)
{
	if (s->loading)
		check_all_seen(s);
	else
		WRITE(s, fdt_end_node(s->tree));
	s->depth--;
}

/* --- fields ---------------------------------------------------------------------------------------- */

/* NULL: it is not there, or something failed before. */
static const void *find(struct state *s, const char *name, int *len)
{
	const void *value;

	if (s->err.code)
		return NULL;
	value = fdt_getprop(s->blob, s->node[s->depth], name, len);
	if (!value)
		state_fail(s, "%s is missing", name);
	s->seen[s->depth]++;
	return value;
}

void state_some_bytes(struct state *s, const char *name, void *p, size_t *len, size_t max)
{
	const void *value;
	int there;

	BUG_ON(s->has_parts[s->depth]);
	if (!s->loading) {
		WRITE(s, fdt_property(s->tree, name, p, *len));
		return;
	}
	value = find(s, name, &there);
	if (!value)
		return;
	if ((size_t)there > max) {
		state_fail(s, "%s has %d bytes, more than %zu", name, there, max);
		return;
	}
	memcpy(p, value, there);
	*len = there;
}

void state_bytes(struct state *s, const char *name, void *p, size_t len)
{
	const void *value;
	int there;

	BUG_ON(s->has_parts[s->depth]);
	if (!s->loading) {
		WRITE(s, fdt_property(s->tree, name, p, len));
		return;
	}
	value = find(s, name, &there);
	if (value && (size_t)there != len)
		state_fail(s, "%s has %d bytes, not %zu", name, there, len);
	else if (value)
		memcpy(p, value, len);
}

static void cell(struct state *s, const char *name, u32 *p, u32 max)
{
	fdt32_t raw = cpu_to_fdt32(*p);
	u32 value;

	state_bytes(s, name, &raw, sizeof(raw));
	if (!s->loading || s->err.code)
		return;
	value = fdt32_to_cpu(raw);
	if (value > max)
		state_fail(s, "%s is %u, more than %u", name, value, max);
	else
		*p = value;
}

void state_u8(struct state *s, const char *name, u8 *p)
{
	u32 value = *p;

	cell(s, name, &value, UINT8_MAX);
	*p = value;
}

void state_u16(struct state *s, const char *name, u16 *p)
{
	u32 value = *p;

	cell(s, name, &value, UINT16_MAX);
	*p = value;
}

void state_u32(struct state *s, const char *name, u32 *p)
{
	cell(s, name, p, UINT32_MAX);
}

void state_u64(struct state *s, const char *name, u64 *p)
{
	fdt64_t raw = cpu_to_fdt64(*p);

	state_bytes(s, name, &raw, sizeof(raw));
	if (s->loading && !s->err.code)
		*p = fdt64_to_cpu(raw);
}

void state_bool(struct state *s, const char *name, bool *p)
{
	u32 value = *p;

	cell(s, name, &value, 1);
	*p = value;
}

void state_string(struct state *s, const char *name, char **p)
{
	const char *value;
	char *copy;
	int len;

	BUG_ON(s->has_parts[s->depth]);
	if (!s->loading) {	/* NULL is a property without a value, "" has its NUL */
		WRITE(s, fdt_property(s->tree, name, *p ? *p : "", *p ? strlen(*p) + 1 : 0));
		return;
	}
	value = find(s, name, &len);
	if (!value)
		return;
	if (len && strnlen(value, len) != (size_t)len - 1) {
		state_fail(s, "%s is no string", name);
		return;
	}
	copy = len ? strdup(value) : NULL;
	if (len && !copy) {
		state_error(s, -ENOMEM, NULL);
		return;
	}
	free(*p);
	*p = copy;
}

void state_same(struct state *s, const char *name, u64 value)
{
	u64 there = value;

	state_u64(s, name, &there);
	if (s->loading && !s->err.code && there != value)
		state_fail(s, "%s is %#llx; this machine has %#llx", name, (unsigned long long)there,
			   (unsigned long long)value);
}
