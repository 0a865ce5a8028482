/*
 * api.c: requests to the API, with bodies that are right, nearly right, or anything.
 * Each has a status that is in its definition, and says why it was refused; one that was
 * refused changes nothing; what was configured is a machine that could be started.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "tests/fuzz/lib/fuzz.h"
#include "tests/lib/fake_vm.h"
#include "vmm/api/route.h"

enum { DEPTH = 4 };

static struct fake_vm vm;
/* The working directory, which is where files are made: while an input runs, and else. */
static int inside, outside;

static void find_place(void)
{
	const char *dir;

	if (inside)
		return;
	dir = fuzz_temp("api");
	outside = open(".", O_PATH | O_CLOEXEC);
	fuzz_check(!mkdir(dir, 0700), "%s", dir);
	inside = open(dir, O_PATH | O_CLOEXEC);
}

static json_t *text(struct fuzz *f)
{
	static const char *const liked[] = { "x1", "x2", "disk", "eth0", "02:00:00:00:00:01", "missing",
					     "console=ttyS0", "" };
	u8 b = fuzz_u8(f);
	char any[40];
	json_t *v;

	if (b < 0xc0)
		return json_string(liked[b % ARRAY_SIZE(liked)]);
	fuzz_text(f, any, sizeof(any) - 1);
	v = strpbrk(any, "/") ? NULL : json_string(any);	/* of no other directory */
	return v ? v : json_string("none");
}

static json_t *word(struct fuzz *f, const char *const *words)
{
	unsigned nr = 0;

	while (words && words[nr])
		nr++;
	return nr ? json_string(words[fuzz_below(f, nr)]) : text(f);
}

static json_t *object(struct fuzz *f, const struct schema *s, int depth);

static json_t *value(struct fuzz *f, const struct field *fd, int depth)
{
	static const u64 number[] = { 0, 1, 2, 32, 64, 128, 1024, 1 << 20, 1ULL << 40, INT64_MAX };
	u8 b = fuzz_u8(f);

	switch (b < 0xe0 ? (int)fd->kind : b % (FIELD_ANY + 1)) {
	case FIELD_BOOL:
		return json_boolean(b & 1);
	case FIELD_NUMBER:
		return json_integer((json_int_t)(b & 0x40 ? fuzz_u64(f) : number[b % ARRAY_SIZE(number)]));
	case FIELD_WORD:
		return word(f, fd->words);
	case FIELD_OBJECT:
		return fd->object ? object(f, fd->object, depth + 1) : json_object();
	case FIELD_OBJECTS:
		return json_pack("[o]", fd->object ? object(f, fd->object, depth + 1) : json_object());
	case FIELD_TEXTS:
		return json_pack("[o]", text(f));
	case FIELD_TEXT_MAP:
		return json_pack("{s:o}", "key", text(f));
	case FIELD_ANY:
		return b & 1 ? json_null() : json_object();
	default:
		return text(f);
	}
}

static json_t *object(struct fuzz *f, const struct schema *s, int depth)
{
	json_t *o = json_object();

	for (unsigned i = 0; i < s->nr && depth < DEPTH; i++)
		if (fuzz_u8(f) & (s->fields[i].required ? 0xf0 : 1))
			json_object_set_new(o, s->fields[i].name, value(f, &s->fields[i], depth));
	return o;
}

static void put_path(struct fuzz *f, const struct route *r, char *path, size_t room)
{
	static const char *const id[] = { "x1", "x2", "0", "disk" };
	const char *open = strchr(r->path, '{'), *close = strchr(r->path, '}');

	if (open)
		snprintf(path, room, "%.*s%s%s", (int)(open - r->path), r->path,
			 id[fuzz_below(f, ARRAY_SIZE(id))], close + 1);
	else
		snprintf(path, room, "%s", r->path);
}

/* Its words, for comparing. */
static char *configuration(void)
{
	int status = fake_vm_request(&vm, "GET", "/vm/config", NULL);

	fuzz_check(status == 200 && *fake_vm_answer == '{', "the configuration: %d %s", status,
		   fake_vm_answer);
	return strdup(fake_vm_answer);
}

static void check_machine(void)
{
	const struct config *c = &vm.config;

	fuzz_check(c->cpus >= 1 && c->cpus <= CONFIG_MAX_CPUS && c->mem % MIB == 0 && c->mem,
		   "%u processors, %#llx bytes", c->cpus, (unsigned long long)c->mem);
	fuzz_check(c->nr_disks <= CONFIG_MAX_DISKS && c->nr_nets <= CONFIG_MAX_NETS,
		   "%u disks, %u networks", c->nr_disks, c->nr_nets);
	for (unsigned i = 0; i < c->nr_disks; i++)
		fuzz_check(c->disk[i].path && c->disk[i].id, "disk %u has no name", i);
	for (unsigned i = 0; i < c->nr_nets; i++)
		fuzz_check(c->net[i].tap && c->net[i].id, "network %u has no name", i);
}

static void ask(const char *method, const char *path, const char *body)
{
	char *before = configuration(), *after;
	int status = fake_vm_request(&vm, method, path, body);
	bool refused = status >= 400;

	fuzz_check(status == 200 || status == 204 || (status >= 400 && status < 500),
		   "%s %s: %d", method, path, status);
	fuzz_check(refused == !!strstr(fake_vm_answer, "\"fault_message\":") &&
		   (status == 204) == !*fake_vm_answer, "%s %s: %d says '%s'", method, path, status,
		   fake_vm_answer);
	after = configuration();
	fuzz_check(!refused || !strcmp(before, after), "%s %s was refused, but made %s of %s", method,
		   path, after, before);
	check_machine();
	free(before);
	free(after);
}

static void ask_table(struct fuzz *f)
{
	const struct route *r = &api_routes[fuzz_below(f, api_nr_routes)];
	char path[128], *body = NULL;
	json_t *o;

	put_path(f, r, path, sizeof(path));
	if (r->body) {
		o = object(f, r->body, 0);
		body = json_dumps(o, 0);
		json_decref(o);
	}
	ask(r->method, path, body);
	free(body);
}

/* Text all the same: a body may be anything, but no name of a file elsewhere. */
static void ask_anything(struct fuzz *f)
{
	static const char *const method[] = { "GET", "PUT", "PATCH", "POST", "DELETE", "HEAD" };
	char path[64], body[512];
	u8 b = fuzz_u8(f);

	if (b & 0x80)
		fuzz_text(f, path, sizeof(path) - 1);
	else
		put_path(f, &api_routes[fuzz_below(f, api_nr_routes)], path, sizeof(path));
	fuzz_text(f, body, sizeof(body) - 1);
	if (!strpbrk(body, "/\\"))
		ask(method[b % ARRAY_SIZE(method)], path, body);
}

void fuzz_one(struct fuzz *f)
{
	find_place();
	fuzz_check(!fchdir(inside), "the directory is gone");
	memset(&vm, 0, sizeof(vm));
	fake_vm_init(&vm);
	while (f->left)
		if (fuzz_u8(f) & 7)
			ask_table(f);
		else
			ask_anything(f);
	fake_vm_fini(&vm);
	fuzz_check(!fchdir(outside), "no way back");
}
