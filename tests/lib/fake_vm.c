/* fake_vm.c: a VM for the API that only writes down what it was asked. */
#include "tests/lib/fake_vm.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/api/metadata.h"

char fake_vm_answer[8192];

static struct fake_vm *of(struct api_vm *v)
{
	return container_of(v, struct fake_vm, vm);
}

static int done(struct api_vm *v, struct err *err, const char *fmt, ...) printf_like(3, 4);
static int done(struct api_vm *v, struct err *err, const char *fmt, ...)
{
	struct fake_vm *f = of(v);
	int fail = f->fail;
	va_list ap;

	f->fail = 0;
	if (fail)
		return err_set(err, fail, "told to fail: %s", strerror(-fail));
	va_start(ap, fmt);
	vsnprintf(f->asked, sizeof(f->asked), fmt, ap);
	va_end(ap);
	return 0;
}

static enum api_state state(struct api_vm *v)
{
	return of(v)->state;
}

static u64 uptime_ms(struct api_vm *v)
{
	return of(v)->state == API_NOT_STARTED ? 0 : 1234;
}

static struct metrics *metrics(struct api_vm *v)
{
	return &of(v)->metrics;
}

static int there(const char *path, struct err *err)
{
	return strstr(path, "missing") ?
		err_set(err, -ENOENT, "%s: No such file or directory", path) : 0;
}

static int check_file(struct api_vm *v, const char *what, const char *path, struct err *err)
{
	(void)v;
	(void)what;
	return there(path, err);
}

static int check_disk(struct api_vm *v, const struct disk_config *d, struct err *err)
{
	(void)v;
	return there(d->path, err);
}

static int start(struct api_vm *v, struct err *err)
{
	int rc = of(v)->config.kernel ? done(v, err, "start") :
					err_set(err, -EINVAL, "there is no kernel");

	if (!rc) {
		of(v)->starts++;
		of(v)->state = API_RUNNING;
	}
	return rc;
}

static int pause_vm(struct api_vm *v, struct err *err)
{
	int rc = done(v, err, "pause");

	if (!rc)
		of(v)->state = API_PAUSED;
	return rc;
}

static int resume(struct api_vm *v, struct err *err)
{
	int rc = done(v, err, "resume");

	if (!rc)
		of(v)->state = API_RUNNING;
	return rc;
}

static int stop(struct api_vm *v, struct err *err)
{
	return done(v, err, "stop");
}

static int power_button(struct api_vm *v, struct err *err)
{
	return done(v, err, "power_button");
}

static int console(struct api_vm *v, char *text, size_t room)
{
	(void)v;
	snprintf(text, room, "stdio");
	return 0;
}

static int disk(struct api_vm *v, unsigned i, struct api_disk *d, struct err *err)
{
	(void)err;
	d->size = (i + 1) * MIB;
	d->format = of(v)->config.disk[i].format ?: "raw";
	return 0;
}

static int disk_snapshot(struct api_vm *v, unsigned i, const char *name, struct err *err)
{
	return done(v, err, "disk_snapshot %u %s", i, name);
}

static int save(struct api_vm *v, const char *state, const char *memory, bool diff,
		struct err *err)
{
	return done(v, err, "save %s %s %s", state, memory, diff ? "diff" : "full");
}

static int save_directory(struct api_vm *v, const char *dir, bool diff, struct err *err)
{
	return done(v, err, "save_directory %s %s", dir, diff ? "diff" : "full");
}

static int save_working_set(struct api_vm *v, const char *dir, struct err *err)
{
	return done(v, err, "working_set %s", dir);
}

static int load(struct api_vm *v, const struct api_load *l, struct err *err)
{
	return done(v, err, "load %s %s%s%s%s taps %zu%s%s", l->state, l->pager ? "pager " : "",
		    l->pager ?: l->memory,
		    l->track_dirty_pages ? " track" : "", l->resume ? " resume" : "",
		    json_array_size(l->taps), l->vsock ? " vsock " : "", l->vsock ?: "");
}

static int disk_resize(struct api_vm *v, unsigned i, u64 size, struct err *err)
{
	return done(v, err, "disk_resize %u %llu", i, (unsigned long long)size);
}

static int disk_replace(struct api_vm *v, unsigned i, const char *path, struct err *err)
{
	int rc = there(path, err);

	if (!rc)
		rc = done(v, err, "disk_replace %u %s", i, path);
	return rc ? rc : config_set_text(&of(v)->config.disk[i].path, path, err);
}

static int disk_limit(struct api_vm *v, unsigned i, const struct limit_config *l, struct err *err)
{
	return done(v, err, "disk_limit %u %llu/%llu+%llu %llu/%llu+%llu", i,
		    (unsigned long long)l->bytes.rate, (unsigned long long)l->bytes.burst,
		    (unsigned long long)l->bytes.extra, (unsigned long long)l->ops.rate,
		    (unsigned long long)l->ops.burst, (unsigned long long)l->ops.extra);
}

static int net_link(struct api_vm *v, unsigned i, bool up, struct err *err)
{
	return done(v, err, "net_link %u %s", i, up ? "up" : "down");
}

static int net_limit(struct api_vm *v, unsigned i, const struct limit_config *rx,
		     const struct limit_config *tx, struct err *err)
{
	return done(v, err, "net_limit %u %llu %llu", i, (unsigned long long)rx->bytes.rate,
		    (unsigned long long)tx->bytes.rate);
}

void fake_vm_init(struct fake_vm *f)
{
	struct err err;

	*f = (struct fake_vm){
		.ops = {
			.state = state, .uptime_ms = uptime_ms, .metrics = metrics, .check_file = check_file,
			.check_disk = check_disk, .start = start, .pause = pause_vm,
			.resume = resume, .stop = stop, .power_button = power_button,
			.console = console, .disk = disk, .disk_snapshot = disk_snapshot,
			.save = save,
			.save_directory = save_directory, .save_working_set = save_working_set,
			.load = load,
			.disk_resize = disk_resize, .disk_replace = disk_replace,
			.disk_limit = disk_limit, .net_limit = net_limit, .net_link = net_link,
		},
	};
	config_init(&f->config);
	f->vm = (struct api_vm){ .ops = &f->ops, .config = &f->config };
	if (loop_new(&f->loop, &err) || metadata_new(&f->vm.metadata, API_MAX_BODY, &err) ||
	    api_new(&f->api, f->loop, &f->vm, &(struct api_options){
		.app = "vmm", .version = "0", .id = "fake", .max_body = API_MAX_BODY }, &err))
		abort();
}

void fake_vm_fini(struct fake_vm *f)
{
	api_free(f->api);
	metadata_free(f->vm.metadata);
	loop_free(f->loop);
	config_fini(&f->config);
}

int fake_vm_request(struct fake_vm *f, const char *method, const char *path, const char *body)
{
	json_t *answer;
	int status = api_request(f->api, method, path, body ?: "", body ? strlen(body) : 0, &answer);
	char *text = !answer ? NULL : json_is_string(answer) ? strdup(json_string_value(answer)) :
		     json_dumps(answer, JSON_COMPACT);

	snprintf(fake_vm_answer, sizeof(fake_vm_answer), "%s", text ?: "");
	free(text);
	json_decref(answer);
	return status;
}
