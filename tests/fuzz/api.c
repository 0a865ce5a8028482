/*
 * api.c: requests that are made up, to a VM in any state.  Each has an answer of the
 * published form; what is accepted has the fields of its schema and no others; what is
 * refused has changed nothing; and the configuration stays one that can be started.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/fuzz/lib/fuzz.h"
#include "tests/lib/fake_vm.h"
#include "vmm/api/route.h"

enum { REQUESTS = 24 };

static struct fake_vm vm;

/* --- making one up ----------------------------------------------------------------------------- */

static json_t *value_for(struct fuzz *f, const struct field *fd, unsigned depth);

static json_t *object_for(struct fuzz *f, const struct schema *s, unsigned depth)
{
	json_t *o = json_object();

	for (unsigned i = 0; i < s->nr; i++)
		if (fuzz_u8(f) % 8 >= (s->fields[i].required ? 1 : 4))
			json_object_set_new(o, s->fields[i].name,
					    value_for(f, &s->fields[i], depth + 1));
	if (!(fuzz_u8(f) % 32))
		json_object_set_new(o, "no_such_field", json_true());
	return o;
}

static json_t *odd_value(struct fuzz *f)
{
	switch (fuzz_below(f, 6)) {
	case 0:
		return json_null();
	case 1:
		return json_integer((json_int_t)fuzz_u64(f));
	case 2:
		return json_real(fuzz_u32(f) / 7.0);
	case 3:
		return json_array();
	case 4:
		return json_object();
	default:
		return json_boolean(fuzz_u8(f) & 1);
	}
}

static json_t *text_for(struct fuzz *f)
{
	static const char *const some[] = { "a", "b", "tap0", "02:00:00:00:00:01", "/missing", "" };
	char text[40];
	json_t *v;

	if (fuzz_u8(f) % 4)
		return json_string(some[fuzz_below(f, ARRAY_SIZE(some))]);
	fuzz_text(f, text, sizeof(text) - 1);
	v = json_string(text);
	return v ? v : json_string("not UTF-8");
}

static json_t *value_for(struct fuzz *f, const struct field *fd, unsigned depth)
{
	unsigned nr = 0;

	if (!(fuzz_u8(f) % 16) || depth > 4)
		return odd_value(f);
	switch (fd->kind) {
	case FIELD_BOOL:
		return json_boolean(fuzz_u8(f) & 1);
	case FIELD_NUMBER:
		return json_integer(fuzz_u8(f) & 1 ? fuzz_u16(f) : (json_int_t)(fuzz_u64(f) >> 1));
	case FIELD_WORD:
		while (fd->words[nr])
			nr++;
		return json_string(fd->words[fuzz_below(f, nr)]);
	case FIELD_OBJECT:
		return object_for(f, fd->object, depth);
	case FIELD_OBJECTS:
		return json_pack("[o]", object_for(f, fd->object, depth));
	case FIELD_TEXTS:
		return json_pack("[o]", text_for(f));
	case FIELD_TEXT_MAP:
		return json_pack("{s:o}", "key", text_for(f));
	default:
		return text_for(f);
	}
}

static void make_path(struct fuzz *f, const struct route *r, char *path, size_t len)
{
	const char *open = strchr(r->path, '{'), *close = strchr(r->path, '}');
	char id[100];

	if (!open) {
		snprintf(path, len, "%s", r->path);
		return;
	}
	if (fuzz_u8(f) % 4)
		snprintf(id, sizeof(id), "%c", 'a' + fuzz_u8(f) % 2);
	else
		fuzz_text(f, id, sizeof(id) - 1);
	snprintf(path, len, "%.*s%s%s", (int)(open - r->path), r->path, id, close + 1);
}

/* --- what must hold ------------------------------------------------------------------------------ */

/* Again, by other means: every name is known, and none is missing. */
static void is_of(const json_t *o, const struct schema *s)
{
	const char *name;
	json_t *v;

	json_object_foreach((json_t *)(uintptr_t)o, name, v) {
		const struct field *fd = NULL;

		for (unsigned i = 0; i < s->nr && !fd; i++)
			if (!strcmp(s->fields[i].name, name))
				fd = &s->fields[i];
		fuzz_check(fd || !s->nr, "%s was taken with a '%s'", s->name, name);
		if (!fd)
			continue;
		fuzz_check(!json_is_null(v) || fd->nullable, "%s.%s is null", s->name, name);
		if (fd->kind == FIELD_OBJECT && json_is_object(v))
			is_of(v, fd->object);
		if (fd->kind == FIELD_NUMBER && !json_is_null(v))
			fuzz_check(json_is_integer(v) &&
				   json_integer_value(v) >= (json_int_t)fd->min &&
				   (!fd->max || json_integer_value(v) <= (json_int_t)fd->max),
				   "%s.%s", s->name, name);
	}
	for (unsigned i = 0; i < s->nr; i++)
		fuzz_check(!s->fields[i].required || json_object_get(o, s->fields[i].name),
			   "%s was taken without '%s'", s->name, s->fields[i].name);
}

static char *whole_config(void)
{
	json_t *root;
	char *text;

	fuzz_check(api_request(vm.api, "GET", "/vm/config", "", 0, &root) == 200, "/vm/config");
	text = json_dumps(root, JSON_SORT_KEYS);
	fuzz_check(text, "/vm/config is no text");
	json_decref(root);
	return text;
}

static void check_answer(const struct route *r, int status, const json_t *answer)
{
	const char *fault = json_string_value(json_object_get(answer, "fault_message"));

	/* 500 is for those of our own, when the VM is told to fail. */
	fuzz_check(status == 200 || status == 204 || status == 400 || status == 404 ||
		   (status == 500 && r && !strncmp(r->path, "/vmm/", 5)), "status %d: %s", status,
		   fault ? fault : "");
	fuzz_check((status == 204) == !answer, "status %d %s an answer", status,
		   answer ? "with" : "without");
	fuzz_check((status >= 400) == (fault && *fault), "status %d, fault '%s'", status,
		   fault ? fault : "none");
	fuzz_check(status != 200 || (r && r->answer), "200 where there is none");
}

static void check_config(void)
{
	const struct config *c = &vm.config;
	unsigned roots = 0;

	fuzz_check(c->cpus >= 1 && c->cpus <= CONFIG_MAX_CPUS && c->mem >= CONFIG_MEM_MIN_MIB * MIB &&
		   c->nr_disks <= CONFIG_MAX_DISKS && c->nr_nets <= CONFIG_MAX_NETS,
		   "%u CPUs, %llu bytes", c->cpus, (unsigned long long)c->mem);
	for (unsigned i = 0; i < c->nr_disks; i++) {
		fuzz_check(c->disk[i].path && *c->disk[i].path && c->disk[i].id, "disk %u", i);
		fuzz_check(!c->disk[i].is_root || !i, "the root device is number %u", i);
		roots += c->disk[i].is_root;
		for (unsigned j = 0; j < i; j++)
			fuzz_check(strcmp(c->disk[i].id, c->disk[j].id), "two of one name");
	}
	fuzz_check(roots <= 1, "%u root devices", roots);
	for (unsigned i = 0; i < c->nr_nets; i++)
		for (unsigned j = 0; j < i; j++)
			fuzz_check(strcmp(c->net[i].tap, c->net[j].tap), "two cards on one tap");
}

static void request(struct fuzz *f)
{
	const struct route *r = &api_routes[fuzz_u8(f) % api_nr_routes];
	json_t *body = NULL, *answer;
	char path[200], raw[200], *text = NULL, *before = whole_config(), *after;
	int status;

	make_path(f, r, path, sizeof(path));
	/* Those open a file of any name. */
	if (strstr(path, "logger") || strstr(path, "metrics"))
		goto out;
	if (!(fuzz_u8(f) % 8)) {
		fuzz_text(f, raw, sizeof(raw) - 1);
		text = strdup(raw);
		body = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	} else if (r->body) {
		body = object_for(f, r->body, 0);
		text = json_dumps(body, 0);
	}
	if (!(fuzz_u8(f) % 8))
		vm.fail = -5;
	status = api_request(vm.api, r->method, path, text ? text : "", text ? strlen(text) : 0,
			     &answer);
	vm.fail = 0;
	check_answer(r, status, answer);
	if (status < 300 && r->body && body)
		is_of(body, r->body);
	after = whole_config();
	if (status >= 400 && strcmp(r->path, "/snapshot/load"))
		fuzz_check(!strcmp(before, after), "refused, and yet: %s, not %s", after, before);
	free(after);
	check_config();
	json_decref(answer);
	json_decref(body);
out:
	free(text);
	free(before);
}

void fuzz_one(struct fuzz *f)
{
	fake_vm_init(&vm);
	for (unsigned i = 0; i < REQUESTS && f->left; i++)
		request(f);
	fake_vm_fini(&vm);
}
