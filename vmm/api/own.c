/* own.c: what the requests below /vmm/v1 do (vmm/api/openapi.yaml). */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "vmm/api/route.h"
#include "vmm/version.h"

int api_own_get_vm(struct api *a, struct call *call)
{
	const struct config *c = a->vm->config;
	char console[PATH_MAX + 8];

	a->vm->ops->console(a->vm, console, sizeof(console));
	call->answer = json_write(&api_vm_info_schema, &(struct api_vm_info){
		.name = c->name, .pid = getpid(), .state = a->vm->ops->state(a->vm),
		.version = VMM_VERSION, .cpus = c->cpus, .memory_bytes = c->mem,
		.uptime_ms = a->vm->ops->uptime_ms(a->vm),
		.kernel = c->kernel, .console = console,
	});
	return call->answer ? 0 : err_set(&call->err, -ENOMEM, "out of memory");
}

int api_own_start(struct api *a, struct call *call)
{
	return a->vm->ops->start(a->vm, &call->err);
}

int api_own_pause(struct api *a, struct call *call)
{
	return a->vm->ops->pause ? a->vm->ops->pause(a->vm, &call->err) :
				   api_cannot(call, "paused");
}

int api_own_resume(struct api *a, struct call *call)
{
	return a->vm->ops->resume ? a->vm->ops->resume(a->vm, &call->err) :
				    api_cannot(call, "resumed");
}

int api_own_stop(struct api *a, struct call *call)
{
	return a->vm->ops->stop(a->vm, &call->err);
}

int api_own_power_button(struct api *a, struct call *call)
{
	return a->vm->ops->power_button(a->vm, &call->err);
}

/* --- what is counted -------------------------------------------------------------------------- */

int api_own_metrics(struct api *a, struct call *call)
{
	struct metrics *m = a->vm->ops->metrics(a->vm);
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return err_set(&call->err, -ENOMEM, "out of memory");
	metrics_refresh(m);
	/* A name has no character that would have to be hidden; --id neither. */
	fprintf(out, "# HELP vmm_info What runs here\n# TYPE vmm_info gauge\n"
		"vmm_info{name=\"%s\",version=\"%s\"} 1\n", a->id, VMM_VERSION);
	metrics_write(m, out);
	fclose(out);
	call->answer = text ? json_stringn(text, len) : NULL;
	free(text);
	return call->answer ? 0 : err_set(&call->err, -ENOMEM, "out of memory");
}

int api_own_stats(struct api *a, struct call *call)
{
	struct metrics *m = a->vm->ops->metrics(a->vm);

	metrics_refresh(m);
#define SUM(name, label) metrics_sum(m, NULL, name, label)
	call->answer = json_write(&api_stats_schema, &(struct api_stats){
		.name = a->vm->config->name, .pid = getpid(), .state = a->vm->ops->state(a->vm),
		.time_ns = now_ns(), .cpu_ns = SUM("process_cpu_seconds_total", NULL),
		.memory_bytes = a->vm->config->mem,
		.resident_bytes = SUM("process_resident_bytes", NULL),
		.exits = SUM("vcpu_exits_total", NULL),
		.halts = SUM("vcpu_halts_total", NULL),
		.steal_ns = SUM("vcpu_steal_seconds_total", NULL),
		.disk_read_bytes = SUM("disk_bytes_total", "op=\"read\""),
		.disk_write_bytes = SUM("disk_bytes_total", "op=\"write\""),
		.disk_reads = SUM("disk_requests_total", "op=\"read\""),
		.disk_writes = SUM("disk_requests_total", "op=\"write\""),
		.disk_errors = SUM("disk_errors_total", NULL),
		.net_rx_bytes = SUM("net_bytes_total", "direction=\"rx\""),
		.net_tx_bytes = SUM("net_bytes_total", "direction=\"tx\""),
		.guest_errors = SUM("device_guest_errors_total", NULL),
	});
#undef SUM
	return call->answer ? 0 : err_set(&call->err, -ENOMEM, "out of memory");
}

/* --- disks ------------------------------------------------------------------------------------ */

static int find(struct api *a, struct call *call)
{
	int i = api_find_disk(a->vm->config, call->id);

	return i >= 0 ? i : err_set(&call->err, -ENOENT, "there is no disk '%s'", call->id);
}

static json_t *disk_json(struct api *a, unsigned i, struct err *err)
{
	const struct config *c = a->vm->config;
	const struct disk_config *d = &c->disk[i];
	struct disk_name name = api_disk_name(c, i);
	struct api_disk info = { 0 };

	if (a->vm->ops->disk(a->vm, i, &info, err))
		return NULL;
	return json_write(&api_disk_info_schema, &(struct api_disk_info){
		.disk = name.text, .path = d->path, .format = info.format, .size = info.size,
		.read_only = d->read_only, .root = d->is_root,
	});
}

int api_own_get_disks(struct api *a, struct call *call)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < a->vm->config->nr_disks; i++) {
		json_t *disk = disk_json(a, i, &call->err);

		if (!disk) {
			json_decref(list);
			return call->err.code ?: err_set(&call->err, -ENOMEM, "out of memory");
		}
		json_array_append_new(list, disk);
	}
	call->answer = json_pack("{s:o}", "disks", list);
	return call->answer ? 0 : err_set(&call->err, -ENOMEM, "out of memory");
}

int api_own_snapshot(struct api *a, struct call *call)
{
	struct api_snapshot_request r = { 0 };
	int i = find(a, call);

	api_take(call, &r);
	if (i < 0)
		return i;
	return a->vm->ops->disk_snapshot ?
		a->vm->ops->disk_snapshot(a->vm, i, r.name, &call->err) :
		err_set(&call->err, -ENOTSUP, "this VM cannot take a snapshot of a disk while it runs");
}

int api_own_resize(struct api *a, struct call *call)
{
	struct api_size_request r = { 0 };
	int i = find(a, call);

	api_take(call, &r);
	if (i < 0)
		return i;
	return a->vm->ops->disk_resize ?
		a->vm->ops->disk_resize(a->vm, i, r.size, &call->err) :
		err_set(&call->err, -ENOTSUP, "this VM cannot resize a disk while it runs");
}

/* --- networks --------------------------------------------------------------------------------- */

int api_own_set_link(struct api *a, struct call *call)
{
	struct api_link_request r = { 0 };
	int i = api_find_net(a->vm->config, call->id);

	api_take(call, &r);
	if (i < 0)
		return err_set(&call->err, -ENOENT, "there is no network interface '%s'", call->id);
	return a->vm->ops->net_link ?
		a->vm->ops->net_link(a->vm, i, r.link, &call->err) :
		err_set(&call->err, -ENOTSUP, "this VM cannot change a link");
}
