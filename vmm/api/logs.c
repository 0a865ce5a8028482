/* logs.c: where the log and the metrics of Firecracker's API go. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include "vmm/api/route.h"
#include "vmm/core/log.h"

#define PERIOD_NS	60000000000ULL

/* A named pipe is opened for both, or this would need a reader; one that does not read
 * loses lines, and holds nobody up. */
static int open_sink(const char *path, int *fd, struct err *err)
{
	*fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0644);
	return *fd < 0 ? err_set(err, -errno, "%s: %s", path, strerror(errno)) : 0;
}

/* --- the log ---------------------------------------------------------------------------------- */

static int log_level_of(unsigned level)
{
	static const int of[] = {
		[API_LOG_OFF] = LOG_OFF, [API_LOG_TRACE] = LOG_DEBUG, [API_LOG_DEBUG] = LOG_DEBUG,
		[API_LOG_INFO] = LOG_INFO, [API_LOG_WARNING] = LOG_WARN, [API_LOG_WARN] = LOG_WARN,
		[API_LOG_ERROR] = LOG_ERR,
	};

	return of[level];
}

int api_put_logger(struct api *a, struct call *call)
{
	struct api_logger l = a->logger;
	const char *old = a->logger.log_path;
	char *path;
	int fd = -1, rc;

	l.level = API_LOG_INFO;
	api_take(call, &l);
	if (l.log_path != old) {
		path = strdup(l.log_path);
		rc = path ? open_sink(path, &fd, &call->err) :
			    err_set(&call->err, -ENOMEM, "out of memory");
		if (rc) {
			free(path);
			return err_prefix(&call->err, "Logger error: ");
		}
		free((char *)(uintptr_t)old);
		l.log_path = path;
		log_set_file(fd);
	}
	l.module = NULL;	/* everything of ours is one */
	a->logger = l;
	a->has_logger = true;
	log_set_level(log_level_of(l.level));
	log_show_level(l.show_level);
	return 0;
}

/* --- metrics ---------------------------------------------------------------------------------- */

static const char *group_of(const struct route *r)
{
	return !strcmp(r->method, "GET") ? "get_api_requests" :
	       !strcmp(r->method, "PUT") ? "put_api_requests" : "patch_api_requests";
}

static void add_to(json_t *root, const char *group, const char *name, const char *suffix, u64 n)
{
	json_t *o = json_object_get(root, group);
	char key[64];

	if (!o) {
		o = json_object();
		json_object_set_new(root, group, o);
	}
	snprintf(key, sizeof(key), "%s%s", name, suffix);
	n += json_integer_value(json_object_get(o, key));
	json_object_set_new(o, key, json_integer(n));
}

static u64 clock_us(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000ULL + t.tv_nsec / 1000;
}

static void add_start(const struct api *a, json_t *root)
{
	const struct api_options *o = &a->options;

	if (o->start_time_us)
		add_to(root, "api_server", "process_startup_time", "_us",
		       a->started_us - o->start_time_us);
	if (o->start_time_cpu_us)
		add_to(root, "api_server", "process_startup_time_cpu", "_us",
		       a->started_cpu_us - o->start_time_cpu_us + o->parent_cpu_time_us);
}

/* Counts are since the line before. */
static json_t *make_line(struct api *a)
{
	struct metrics *m = &a->metrics;
	json_t *root = json_pack("{s:I}", "utc_timestamp_ms",
				 (json_int_t)(clock_us(CLOCK_REALTIME) / 1000));

	if (!root)
		return NULL;
	if (m->emit_id)
		json_object_set_new(root, "id", json_string(a->id));
	if (m->properties)
		json_object_set(root, "properties", m->properties);
	add_start(a, root);
	for (unsigned i = 0; i < api_nr_routes; i++) {
		const struct route *r = &api_routes[i];

		if (!r->metric)
			continue;
		add_to(root, group_of(r), r->metric, "_count", m->count[i]);
		if (strcmp(r->method, "GET"))
			add_to(root, group_of(r), r->metric, "_fails", m->fails[i]);
	}
	add_to(root, "deprecated_api", "deprecated_http_api_calls", "", m->deprecated);
	memset(m->count, 0, sizeof(m->count));
	memset(m->fails, 0, sizeof(m->fails));
	m->deprecated = 0;
	return root;
}

int api_metrics_flush(struct api *a, struct err *err)
{
	struct iovec v[2] = { { 0 }, { .iov_base = (char[]){ '\n' }, .iov_len = 1 } };
	json_t *root;
	char *text;
	ssize_t n;

	if (a->metrics.fd < 0)
		return 0;
	root = make_line(a);
	text = root ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	if (!text)
		return err_set(err, -ENOMEM, "out of memory");
	v[0].iov_base = text;
	v[0].iov_len = strlen(text);
	n = writev(a->metrics.fd, v, ARRAY_SIZE(v));
	free(text);
	if (n < 0 && errno != EAGAIN)
		return err_set(err, -errno, "metrics %s: %s", a->metrics.path, strerror(errno));
	return 0;
}

static void flush_again(struct timer *t)
{
	struct api *a = container_of(t, struct api, metrics.timer);
	struct err err;

	if (api_metrics_flush(a, &err))
		log_warn("api: %s", err.msg);
	timer_start(t, a->loop, PERIOD_NS);
}

int api_put_metrics(struct api *a, struct call *call)
{
	struct metrics *m = &a->metrics;
	struct api_metrics_config c = { 0 };
	int rc;

	api_take(call, &c);
	if (m->fd >= 0)
		return err_set(&call->err, -EEXIST, "Metrics error: they go to %s already", m->path);
	rc = config_set_text(&m->path, c.metrics_path, &call->err);
	if (!rc)
		rc = open_sink(m->path, &m->fd, &call->err);
	if (rc)
		return err_prefix(&call->err, "Metrics error: ");
	m->emit_id = c.emit_id;
	m->properties = c.properties ? json_deep_copy(c.properties) : NULL;
	m->timer.fire = flush_again;
	timer_start(&m->timer, a->loop, PERIOD_NS);
	return 0;
}

json_t *api_metrics_json(const struct api *a)
{
	const struct metrics *m = &a->metrics;

	if (m->fd < 0)
		return json_null();
	return json_write(&api_metrics_schema, &(struct api_metrics_config){
		.metrics_path = m->path, .emit_id = m->emit_id, .properties = m->properties });
}

void api_logs_open(struct api *a)
{
	a->metrics.fd = -1;
	a->started_us = clock_us(CLOCK_MONOTONIC);
	a->started_cpu_us = clock_us(CLOCK_PROCESS_CPUTIME_ID);
}

void api_logs_close(struct api *a)
{
	struct metrics *m = &a->metrics;
	struct err err;

	if (api_metrics_flush(a, &err))
		log_warn("api: %s", err.msg);
	timer_stop(&m->timer);
	if (m->fd >= 0)
		close(m->fd);
	free(m->path);
	json_decref(m->properties);
	free((char *)(uintptr_t)a->logger.log_path);
}
