/* metrics.c: what is counted, as Firecracker's API writes it into a file: a line of JSON at a time. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include "vmm/api/route.h"
#include "vmm/core/log.h"

#define PERIOD_NS	60000000000ULL

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
	u64 wall = 0, cpu = 0;

	/* Of a start that is still to come: nothing. */
	if (o->start_time_us && o->start_time_us < a->started_us)
		wall = a->started_us - o->start_time_us;
	if ((o->start_time_cpu_us || o->parent_cpu_time_us) && o->start_time_cpu_us < a->started_cpu_us)
		cpu = a->started_cpu_us - o->start_time_cpu_us + o->parent_cpu_time_us;
	add_to(root, "api_server", "process_startup_time", "_us", wall);
	add_to(root, "api_server", "process_startup_time_cpu", "_us", cpu);
}

/* --- counts of the machine's: counts.c ----------------------------------------------------------- */

/* What came since; a guest that rebooted meanwhile began at zero. */
static void subtract(json_t *now, const json_t *before)
{
	const char *key;
	json_t *v;

	json_object_foreach(now, key, v) {
		const json_t *old = json_object_get(before, key);
		bool is_extreme = !strcmp(key, "min_us") || !strcmp(key, "max_us");

		if (json_is_object(v))
			subtract(v, old);
		else if (!is_extreme && json_integer_value(v) >= json_integer_value(old))
			json_integer_set(v, json_integer_value(v) - json_integer_value(old));
	}
}

/* Since the line before. */
static json_t *new_counts(struct api *a)
{
	json_t *counts = api_machine_counts(a), *total = json_deep_copy(counts);
	struct api_metrics *m = &a->metrics;

	subtract(counts, m->before);
	api_add_counts(counts, m->kept);	/* of machines that were before this one */
	json_decref(m->before);
	json_decref(m->kept);
	m->before = total;
	m->kept = NULL;
	return counts;
}

void api_machine_ends(struct api *a)
{
	struct api_metrics *m = &a->metrics;

	if (m->fd < 0)
		return;
	m->kept = new_counts(a);
	json_decref(m->before);
	m->before = NULL;
	memset(m->updates, 0, sizeof(m->updates));
	memset(m->update_fails, 0, sizeof(m->update_fails));
}

static void add_machine(struct api *a, json_t *root)
{
	json_t *counts = new_counts(a);

	json_object_update(root, counts);
	json_decref(counts);
}

/* --- counts of the API's ------------------------------------------------------------------------ */

void api_time(struct api *a, enum api_latency what, u64 since_ns)
{
	a->metrics.latency_us[what] = (now_ns() - since_ns) / 1000;
}

static void add_latencies(const struct api *a, json_t *root)
{
	static const char *const name[] = {
		[API_PAUSE] = "pause_vm", [API_RESUME] = "resume_vm",
		[API_SAVE_FULL] = "full_create_snapshot", [API_SAVE_DIFF] = "diff_create_snapshot",
		[API_LOAD] = "load_snapshot",
	};

	for (unsigned i = 0; i < API_NR_LATENCIES; i++) {
		add_to(root, "latencies_us", name[i], "", a->metrics.latency_us[i]);
		add_to(root, "latencies_us", "vmm_", name[i], a->metrics.latency_us[i]);
	}
}

/* Counts are since the line before. */
static json_t *make_line(struct api *a)
{
	struct api_metrics *m = &a->metrics;
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
	add_to(root, "logger", "missed_metrics_count", "", m->lost);
	add_to(root, "logger", "metrics_fails", "", m->write_fails);
	add_to(root, "logger", "missed_log_count", "", log_lost() - m->log_lost);
	add_to(root, "logger", "rate_limited_log_count", "", log_suppressed() - m->log_suppressed);
	add_latencies(a, root);
	add_machine(a, root);
	m->lost = m->write_fails = 0;
	m->log_lost = log_lost();
	m->log_suppressed = log_suppressed();
	memset(m->count, 0, sizeof(m->count));
	memset(m->fails, 0, sizeof(m->fails));
	m->deprecated = 0;
	return root;
}

int api_metrics_flush(struct api *a, struct err *err)
{
	struct api_metrics *m = &a->metrics;
	struct iovec v[3] = { { .iov_base = (char[]){ '\n' }, .iov_len = m->torn },
			      { 0 }, { .iov_base = (char[]){ '\n' }, .iov_len = 1 } };
	size_t len;
	json_t *root;
	char *text;
	ssize_t n;

	if (m->fd < 0)
		return 0;
	json_begin();
	root = make_line(a);
	text = json_text(root);
	json_decref(root);
	if (!text)
		return err_set(err, -ENOMEM, "out of memory");
	v[1].iov_base = text;
	v[1].iov_len = strlen(text);
	len = m->torn + v[1].iov_len + 1;
	n = writev(m->fd, v, ARRAY_SIZE(v));
	free(text);
	/* Of a line that a pipe, or a disk, has room for a part of, the next one ends it. */
	m->torn = n < 0 ? m->torn : (size_t)n < len;
	m->lost += n < (ssize_t)len;
	m->write_fails += n < 0 && errno != EAGAIN;
	if (n < 0 && errno != EAGAIN)
		return err_set(err, -errno, "metrics %s: %s", a->vm->config->metrics_file, strerror(errno));
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
	struct api_metrics *m = &a->metrics;
	struct api_metrics_config c = { 0 };
	int rc;

	api_take(call, &c);
	if (m->fd >= 0)
		return err_set(&call->err, -EEXIST, "Metrics error: they go to %s already", a->vm->config->metrics_file);
	rc = config_check_file(a->vm->config, &(struct config_file){ "metrics", c.metrics_path, FILE_APPENDED }, &call->err);
	if (!rc)
		rc = log_open_sink(c.metrics_path, &m->fd, &call->err);
	if (!rc && config_set_text(&a->vm->config->metrics_file, c.metrics_path, &call->err)) {
		close(m->fd);
		m->fd = -1;
		rc = call->err.code;
	}
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
	const struct api_metrics *m = &a->metrics;

	if (m->fd < 0)
		return json_null();
	return json_write(&api_metrics_schema, &(struct api_metrics_config){
		.metrics_path = a->vm->config->metrics_file, .emit_id = m->emit_id, .properties = m->properties });
}

void api_metrics_open(struct api *a)
{
	a->metrics.fd = -1;
	a->started_us = clock_us(CLOCK_MONOTONIC);
	a->started_cpu_us = clock_us(CLOCK_PROCESS_CPUTIME_ID);
}

void api_metrics_close(struct api *a)
{
	struct api_metrics *m = &a->metrics;
	struct err err;

	if (api_metrics_flush(a, &err))
		log_warn("api: %s", err.msg);
	timer_stop(&m->timer);
	if (m->fd >= 0)
		close(m->fd);
	json_decref(m->properties);
	json_decref(m->before);
	json_decref(m->kept);
}
