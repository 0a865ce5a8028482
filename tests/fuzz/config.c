/*
 * config.c: a configuration file that is made up.  What is accepted is one that the rest
 * of the program can rely on; all else is refused with a reason; and an option means the
 * same there and on the command line.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/fuzz/lib/configs.h"

enum { MOST = 12, LEN = 100 };

static char text[2 * MOST][LEN];

static int parse_file(struct config *c, const char *json, size_t len, struct err *err)
{
	struct fuzz_file file = fuzz_file(json, len);
	char option[] = "--config", *argv[] = { option, file.path };
	int rc = configs_parse(c, 2, argv, err);

	close(file.fd);
	return rc;
}

/* Text is UTF-8 there; on the command line it may be anything. */
static bool add(json_t *root, const struct option *o, const char *value)
{
	json_t *v = o->metavar ? json_string(value) : json_boolean(!strcmp(value, "true")), *list;

	if (!v)
		return false;
	if (!o->is_list)
		return !json_object_set_new(root, o->name, v);
	list = json_object_get(root, o->name);
	if (!list) {
		list = json_array();
		json_object_set_new(root, o->name, list);
	}
	return !json_array_append_new(list, v);
}

static void compare(struct fuzz *f)
{
	struct config by_file, by_args;
	json_t *root = json_object();
	struct err err, other;
	char *argv[2 * MOST], value[LEN - 24], *json;
	int argc = 0, a, b;

	while (f->left && argc + 2 <= 2 * MOST) {
		const struct option *o = configs_pick(f, value, sizeof(value));

		if (!o->metavar)
			strcpy(value, *value & 1 ? "true" : "false");
		if ((!o->is_list && json_object_get(root, o->name)) || !add(root, o, value))
			continue;
		argv[argc] = text[argc];
		if (o->metavar) {
			snprintf(text[argc++], LEN, "--%s", o->name);
			argv[argc] = text[argc];
			strcpy(text[argc++], value);
		} else {
			snprintf(text[argc++], LEN, "--%s=%s", o->name, value);
		}
	}
	json = json_dumps(root, 0);
	a = parse_file(&by_file, json, strlen(json), &err);
	b = configs_parse(&by_args, argc, argv, &other);
	fuzz_check(a == b, "the file: %d %s, arguments: %d %s", a, err.msg, b, other.msg);
	fuzz_check(a || configs_same(&by_file, &by_args), "the same options, but not the same VM");
	config_fini(&by_file);
	config_fini(&by_args);
	free(json);
	json_decref(root);
}

void fuzz_one(struct fuzz *f)
{
	struct config c;
	struct err err;

	if (fuzz_u8(f) & 1) {
		compare(f);
		return;
	}
	parse_file(&c, (const char *)f->data, f->left, &err);
	config_fini(&c);
}
