/* file.c: a whole configuration in one file, as Firecracker's --config-file has it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "vmm/api/route.h"

/* A section is a request, in this order; of a list each item is one. */
static const struct {
	const char *name, *path;
} sections[] = {
	{ "logger", "/logger" }, { "metrics", "/metrics" },
	{ "machine-config", "/machine-config" }, { "cpu-config", "/cpu-config" },
	{ "boot-source", "/boot-source" }, { "drives", "/drives/{drive_id}" },
	{ "network-interfaces", "/network-interfaces/{iface_id}" }, { "vsock", "/vsock" },
	{ "balloon", "/balloon" }, { "mmds-config", "/mmds/config" }, { "entropy", "/entropy" },
	{ "serial", "/serial" }, { "pmem", "/pmem/{id}" }, { "memory-hotplug", "/hotplug/memory" },
};

static const struct route *find_put(const char *path)
{
	for (unsigned i = 0; i < api_nr_routes; i++)
		if (!strcmp(api_routes[i].path, path) && !strcmp(api_routes[i].method, "PUT"))
			return &api_routes[i];
	return NULL;
}

static int put(struct api *a, const struct route *r, const json_t *body, struct err *err)
{
	struct call call = { .route = r, .body = body };
	struct seen seen = { 0 };
	int rc = json_read(r->body, body, NULL, &seen, err);

	if (rc)
		return rc;
	if (r->lacks)
		return err_set(err, -ENOTSUP, "this version of vmm does not have %s", r->lacks);
	/* Not as strict as a path: Firecracker takes any characters here, and flintlock has them. */
	if (r->id) {
		snprintf(call.id, sizeof(call.id), "%s",
			 json_string_value(json_object_get(body, r->id)));
		rc = *call.id ? api_check_id(&call, err) : err_set(err, -EINVAL, "field '%s' is empty", r->id);
	}
	if (rc)
		return rc;
	rc = r->handle(a, &call);
	return rc ? err_set(err, rc, "%s", call.err.msg) : 0;
}

static int put_section(struct api *a, unsigned s, const json_t *body, struct err *err)
{
	const struct route *r = find_put(sections[s].path);
	const json_t *item;
	size_t i;
	int rc = 0;

	if (!r->id) {
		rc = put(a, r, body, err);
		return rc ? err_prefix(err, "%s: ", sections[s].name) : 0;
	}
	if (!json_is_array(body))
		return err_set(err, -EINVAL, "%s: must be a list", sections[s].name);
	json_array_foreach(body, i, item) {
		rc = put(a, r, item, err);
		if (rc)
			return err_prefix(err, "%s[%zu]: ", sections[s].name, i);
	}
	return 0;
}

/* Processors alone may be in a file of their own, of which the section is the name. */
static int put_named(struct api *a, unsigned s, const char *path, struct err *err)
{
	json_t *body = json_read_file(path, err);
	int rc = body ? put_section(a, s, body, err) : err->code;

	json_decref(body);
	return rc;
}

static int apply(struct api *a, const json_t *root, struct err *err)
{
	struct seen seen = { 0 };
	int rc = json_read(&api_file_schema, root, NULL, &seen, err);

	for (unsigned s = 0; s < ARRAY_SIZE(sections) && !rc; s++) {
		const json_t *body = json_object_get(root, sections[s].name);

		if (json_is_string(body) && !strcmp(sections[s].name, "cpu-config"))
			rc = put_named(a, s, json_string_value(body), err);
		else if (body && !json_is_null(body))
			rc = put_section(a, s, body, err);
	}
	return rc;
}

int api_read_file(struct api *a, const char *path, struct err *err)
{
	json_t *root = json_read_file(path, err);
	int rc;

	if (!root)
		return err->code;
	rc = apply(a, root, err);
	json_decref(root);
	return rc ? err_prefix(err, "%s: ", path) : 0;
}
