/* api.c: a request, from its text to its answer. */
#include "vmm/api/api.h"
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/api/http.h"
#include "vmm/api/route.h"
#include "vmm/core/log.h"

enum { OK = 200, NO_CONTENT = 204, BAD_REQUEST = 400, NOT_FOUND = 404, TOO_LARGE = 413,
       HOST_FAILED = 500 };

/* --- which one it is -------------------------------------------------------------------------- */

/* "//drives/x/" is "/drives/x".  id: what stands for {...}, as far as there is room. */
static bool path_matches(const char *pattern, const char *path, char *id, size_t room)
{
	*id = 0;
	for (;;) {
		size_t want, have;

		pattern += strspn(pattern, "/");
		path += strspn(path, "/");
		want = strcspn(pattern, "/");
		have = strcspn(path, "/");
		if (!want || !have)
			return want == have;
		if (*pattern == '{') {
			snprintf(id, room, "%.*s", (int)have, path);
		} else if (want != have || strncmp(pattern, path, have)) {
			return false;
		}
		pattern += want;
		path += have;
	}
}

static const struct route *find_route(const char *method, const char *path, struct call *call)
{
	bool known = false;

	for (unsigned i = 0; i < api_nr_routes; i++) {
		if (!path_matches(api_routes[i].path, path, call->id, sizeof(call->id)))
			continue;
		if (!strcmp(api_routes[i].method, method))
			return &api_routes[i];
		known = true;
	}
	err_set(&call->err, -EINVAL, known ? "invalid request: %s is not for %s" :
		"invalid request: %s %s: there is no such path", method, path);
	return NULL;
}

/* --- is it well-formed? ----------------------------------------------------------------------- */

int api_check_id(const struct call *call, struct err *err)
{
	if (strlen(call->id) > API_MAX_ID)
		return err_set(err, -EINVAL, "the id is too long: it has more than %d characters",
			       API_MAX_ID);
	return 0;
}

static int check_path_id(const struct call *call, struct err *err)
{
	int rc = api_check_id(call, err);

	if (rc || !strchr(call->route->path, '{') || !strncmp(call->route->path, "/vmm/", 5))
		return rc;
	for (const char *s = call->id; *s; s++)
		if (!isalnum((unsigned char)*s) && *s != '_')
			return err_set(err, -EINVAL, "'%s' is no id: letters, digits and '_' make one",
				       call->id);
	return 0;
}

/* The id in the path is that of the body. */
static int check_same_id(const struct call *call, struct err *err)
{
	const char *id = call->route->id ?
		json_string_value(json_object_get(call->body, call->route->id)) : NULL;

	if (!id || !strcmp(id, call->id))
		return 0;
	return err_set(err, -EINVAL, "the path says '%s', and %s in the body '%s'", call->id,
		       call->route->id, id);
}

static int check_body(struct call *call, const char *text, size_t len, json_t **root)
{
	const struct route *r = call->route;
	struct seen seen = { 0 };
	json_error_t why;
	int rc;

	if (!len && r->body && !r->body_optional)
		return err_set(&call->err, -EINVAL, "a %s request needs a body", r->method);
	if (len && !r->body)
		return err_set(&call->err, -EINVAL, "a %s request to %s has no body", r->method,
			       r->path);
	if (!len)
		return 0;
	if (memchr(text, 0, len))	/* the library would skip some */
		return err_set(&call->err, -EINVAL, "the body is no valid JSON: there is a zero byte in it");
	*root = json_parse(text, len, &why);
	if (json_starved())
		return err_set(&call->err, -ENOMEM, "out of memory");
	if (!*root)
		return err_set(&call->err, -EINVAL, "the body is no valid JSON: line %d column %d: %s",
			       why.line, why.column, why.text);
	call->body = *root;
	rc = json_read(r->body, *root, NULL, &seen, &call->err);
	if (rc)
		return err_prefix(&call->err, "the body is no %s: ", r->body->name);
	call->deprecated = seen.deprecated;
	return check_same_id(call, &call->err);
}

void api_take(const struct call *call, void *into)
{
	struct seen seen = { 0 };

	if (call->body)
		BUG_ON(json_read(call->route->body, call->body, into, &seen, NULL));
}

/* --- what comes of it ------------------------------------------------------------------------- */

static int perform(struct api *a, struct call *call)
{
	const struct route *r = call->route;
	bool started = a->vm->ops->state(a->vm) != API_NOT_STARTED;

	if (r->when == BEFORE_START && started)
		return err_set(&call->err, -EBUSY, "%s %s is not possible after the VM was started",
			       r->method, r->path);
	if (r->when == AFTER_START && !started)
		return err_set(&call->err, -EBUSY, "%s %s is not possible before the VM was started",
			       r->method, r->path);
	if (r->lacks)
		return err_set(&call->err, -ENOTSUP, "this version of vmm does not have %s", r->lacks);
	a->configured |= r->configures;
	return r->handle(a, call);
}

static bool is_of_metadata(const struct call *call)
{
	return call->route && !strncmp(call->route->path, "/mmds", 5);
}

/* Others' clients know one status of all that fails, but for metadata that has no room. */
static int status_of(const struct call *call, int rc)
{
	if (!rc)
		return call->answer ? OK : NO_CONTENT;
	if (!call->route || strncmp(call->route->path, "/vmm/", 5))
		return rc == -EFBIG && is_of_metadata(call) ? TOO_LARGE : BAD_REQUEST;
	return rc == -ENOENT ? NOT_FOUND : err_of_host(rc) ? HOST_FAILED : BAD_REQUEST;
}

/* Everything but the JSON around it. */
static int run(struct api *a, const char *method, const char *path, const char *body, size_t len,
	       struct call *call)
{
	json_t *root = NULL;
	unsigned i;
	int rc;

	call->route = find_route(method, path, call);
	if (!call->route)
		return -EINVAL;
	i = call->route - api_routes;
	a->metrics.count[i]++;
	rc = check_path_id(call, &call->err);
	if (!rc)
		rc = check_body(call, body, len, &root);
	if (!rc)
		rc = perform(a, call);
	a->metrics.fails[i] += !!rc;
	a->metrics.deprecated += call->deprecated;
	json_decref(root);
	call->body = NULL;
	return rc;
}

static json_t *fault(struct err *err)
{
	json_t *text = json_string(err->msg);

	/* The path of a request, or of a file, need not be UTF-8. */
	if (!text) {
		for (char *s = err->msg; *s; s++)
			if (*s & 0x80)
				*s = '?';
		text = json_string(err->msg);
	}
	return json_pack("{s:o}", "fault_message", text);
}

/* too_long: of a body that nobody kept. */
static int answer(struct api *a, const struct http_request *r, struct call *call, json_t **root)
{
	int rc, status;

	json_begin();
	if (r->too_long)
		rc = err_set(&call->err, -EMSGSIZE, "the body is longer than %llu bytes",
			     (unsigned long long)a->options.max_body);
	else
		rc = run(a, r->method, r->path, r->body, r->len, call);
	if (!rc && json_starved())
		rc = err_set(&call->err, -ENOMEM, "out of memory");
	status = status_of(call, rc);
	if (rc) {
		json_decref(call->answer);
		json_begin();
		call->answer = fault(&call->err);
	}
	*root = call->answer;
	log_debug("api: %s %s: %d%s%s", r->method, r->path, status, rc ? ", " : "", call->err.msg);
	return status;
}

int api_request(struct api *a, const char *method, const char *path, const char *body, size_t len,
		json_t **root)
{
	struct call call = { 0 };

	return answer(a, &(struct http_request){ .method = method, .path = path, .body = body,
						 .len = len }, &call, root);
}

static void serve(void *arg, const struct http_request *r, struct http_answer *out)
{
	struct call call = { 0 };
	json_t *root;

	out->status = answer(arg, r, &call, &root);
	out->deprecated = call.deprecated;
	out->type = call.route && json_is_string(root) ? call.route->type : NULL;
	out->body = !root ? NULL : out->type ? strdup(json_string_value(root)) : json_text(root);
	if (root && !out->body)
		out->status = HOST_FAILED;
	json_decref(root);
}

/* --- its life --------------------------------------------------------------------------------- */

int api_new(struct api **out, struct loop *loop, struct api_vm *vm, const struct api_options *o,
	    struct err *err)
{
	struct api *a = calloc(1, sizeof(*a));

	if (!a)
		return err_set(err, -ENOMEM, "out of memory");
	a->vm = vm;
	a->loop = loop;
	a->options = *o;
	api_metrics_open(a);
	a->app = strdup(o->app);
	a->version = strdup(o->version);
	a->id = strdup(o->id);
	a->machine.huge_pages = vm->config->hugepages ? API_HUGE_2M : API_HUGE_NONE;
	if (!a->app || !a->version || !a->id) {
		api_free(a);
		return err_set(err, -ENOMEM, "out of memory");
	}
	*out = a;
	return 0;
}

int api_listen(struct api *a, const char *path, struct err *err)
{
	struct http_user user = { .serve = serve, .arg = a, .max_body = a->options.max_body };

	return http_listen(&a->http, a->loop, path, &user, err);
}

void api_free(struct api *a)
{
	if (!a)
		return;
	http_close(a->http);
	api_metrics_close(a);
	free(a->app);
	free(a->version);
	free(a->id);
	free(a);
}
