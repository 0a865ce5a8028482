/* firecracker.c: what the requests of Firecracker's API do; of devices: devices.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/api/route.h"

/* --- what it is ------------------------------------------------------------------------------- */

int api_get_instance(struct api *a, struct call *call)
{
	call->answer = json_write(&api_instance_schema, &(struct api_instance){
		.app_name = a->app, .id = a->id, .state = a->vm->ops->state(a->vm),
		.vmm_version = a->version,
	});
	return call->answer ? 0 : err_set(&call->err, -ENOMEM, "out of memory");
}

int api_get_version(struct api *a, struct call *call)
{
	(void)a;
	call->answer = json_pack("{s:s}", "firecracker_version", API_VERSION);
	return 0;
}

/* --- how it runs ------------------------------------------------------------------------------ */

int api_cannot(struct call *call, const char *what)
{
	return err_set(&call->err, -ENOTSUP, "this VM cannot be %s", what);
}

int api_patch_vm(struct api *a, struct call *call)
{
	const struct api_vm_ops *ops = a->vm->ops;
	struct api_vm_request r = { 0 };
	bool pause;
	u64 start;
	int rc;

	api_take(call, &r);
	pause = r.state == API_PAUSED_STATE;
	if (pause ? !ops->pause : !ops->resume)
		return api_cannot(call, pause ? "paused" : "resumed");
	start = now_ns();
	rc = pause ? ops->pause(a->vm, &call->err) : ops->resume(a->vm, &call->err);
	if (!rc)
		api_time(a, pause ? API_PAUSE : API_RESUME, start);
	return rc;
}

int api_put_action(struct api *a, struct call *call)
{
	bool started = a->vm->ops->state(a->vm) != API_NOT_STARTED;
	struct api_action_info r = { 0 };
	int rc;

	api_take(call, &r);
	if (started == (r.action_type == API_INSTANCE_START))
		return err_set(&call->err, -EBUSY, started ?
			       "InstanceStart is not possible after the VM was started" :
			       "this action is not possible before the VM was started");
	switch (r.action_type) {
	case API_INSTANCE_START:
		rc = a->vm->ops->start(a->vm, &call->err);
		return rc ? err_prefix(&call->err, "Start error: ") : 0;
	case API_FLUSH_METRICS:
		return api_metrics_flush(a, &call->err);
	default:
		/* There is no keyboard; what those keys are meant for has a button of its own. */
		return a->vm->ops->power_button(a->vm, &call->err);
	}
}

/* --- the machine ------------------------------------------------------------------------------ */

static void current_machine(const struct api *a, struct api_machine *m)
{
	const struct config *c = a->vm->config;

	*m = a->machine;
	m->vcpu_count = c->cpus;
	m->mem_size_mib = c->mem / MIB;
	m->smt = c->smt;
	m->track_dirty_pages = c->track_dirty_pages;
}

static json_t *machine_json(const struct api *a)
{
	struct api_machine m;
	json_t *o;

	current_machine(a, &m);
	o = json_write(&api_machine_schema, &m);
	json_object_del(o, "cpu_template");
	return o;
}

int api_get_machine(struct api *a, struct call *call)
{
	call->answer = machine_json(a);
	return 0;
}

static int set_machine(struct api *a, const struct api_machine *m, struct err *err)
{
	struct config *c = a->vm->config;

	if (m->cpu_template != API_CPU_TEMPLATE_NONE)
		return err_set(err, -ENOTSUP, "Machine config error: this version of vmm does not have "
			       "CPU templates");
	if (m->mem_size_mib < CONFIG_MEM_MIN_MIB || m->mem_size_mib > CONFIG_MEM_MAX_MIB)
		return err_set(err, -EINVAL, "Machine config error: mem_size_mib: %llu is not between "
			       "%d and %llu", (unsigned long long)m->mem_size_mib, CONFIG_MEM_MIN_MIB,
			       CONFIG_MEM_MAX_MIB);
	if (m->huge_pages != API_HUGE_NONE && m->mem_size_mib % 2)
		return err_set(err, -EINVAL, "Machine config error: mem_size_mib: with huge pages a "
			       "multiple of 2, not %llu", (unsigned long long)m->mem_size_mib);
	if (m->smt && m->vcpu_count > 1 && m->vcpu_count % 2)
		return err_set(err, -EINVAL, "Machine config error: vcpu_count: with smt 1 or an even "
			       "number, not %llu", (unsigned long long)m->vcpu_count);
	c->cpus = m->vcpu_count;
	c->mem = m->mem_size_mib * MIB;
	c->hugepages = m->huge_pages == API_HUGE_2M;
	c->smt = m->smt;
	c->track_dirty_pages = m->track_dirty_pages;
	a->machine = *m;
	return 0;
}

int api_put_machine(struct api *a, struct call *call)
{
	struct api_machine m = { 0 };

	api_take(call, &m);
	return set_machine(a, &m, &call->err);
}

int api_patch_machine(struct api *a, struct call *call)
{
	struct seen seen = { 0 };
	struct api_machine m;
	int rc;

	current_machine(a, &m);
	rc = json_read(call->route->body, call->body, &m, &seen, &call->err);
	if (!rc && !seen.given)
		rc = err_set(&call->err, -EINVAL, "a PATCH request that changes nothing");
	return rc ? rc : set_machine(a, &m, &call->err);
}

int api_put_cpu_config(struct api *a, struct call *call)
{
	struct api_cpu_config r = { 0 };

	(void)a;
	api_take(call, &r);
	if (json_array_size(r.kvm_capabilities) || json_array_size(r.cpuid_modifiers) ||
	    json_array_size(r.msr_modifiers) || json_array_size(r.reg_modifiers) ||
	    json_array_size(r.vcpu_features))
		return err_set(&call->err, -ENOTSUP, "Configure CPU error: this version of vmm does not "
			       "have CPU templates");
	return 0;
}

/* --- what it boots ---------------------------------------------------------------------------- */

int api_put_boot_source(struct api *a, struct call *call)
{
	struct config *c = a->vm->config;
	struct api_boot_source b = { 0 };
	int rc;

	api_take(call, &b);
	rc = a->vm->ops->check_file(a->vm, "kernel", b.kernel_image_path, &call->err);
	if (!rc && b.initrd_path)
		rc = a->vm->ops->check_file(a->vm, "initrd", b.initrd_path, &call->err);
	if (rc)
		return err_prefix(&call->err, "Boot source error: ");
	return config_set_texts((struct config_text[]){
		{ &c->kernel, b.kernel_image_path },
		{ &c->initrd, b.initrd_path ?: "none" },	/* or vmm would look for one beside the kernel */
		{ &c->cmdline, b.boot_args },
		{ &c->append, b.boot_args ? NULL : c->append },
	}, 4, &call->err);
}

static json_t *boot_source_json(const struct config *c)
{
	struct api_boot_source b = { .kernel_image_path = c->kernel, .boot_args = c->cmdline };

	if (!c->kernel)
		return json_null();
	if (c->initrd && strcmp(c->initrd, "none"))
		b.initrd_path = c->initrd;
	return json_write(&api_boot_source_schema, &b);
}

/* --- what goes where -------------------------------------------------------------------------- */

int api_put_serial(struct api *a, struct call *call)
{
	struct config *c = a->vm->config;
	struct api_serial s = { 0 };
	char *where = NULL;

	api_take(call, &s);
	if (s.rate_limiter.given)
		return err_set(&call->err, -ENOTSUP, "Serial error: this version of vmm does not have a "
			       "limit for it");
	if (s.serial_out_path && !*s.serial_out_path)
		return err_set(&call->err, -EINVAL, "Serial error: serial_out_path is empty");
	if (s.serial_out_path && asprintf(&where, "file:%s", s.serial_out_path) < 0)
		return err_set(&call->err, -ENOMEM, "out of memory");
	free(c->serial);
	c->serial = where;
	return 0;
}

/* --- all of it -------------------------------------------------------------------------------- */

int api_get_config(struct api *a, struct call *call)
{
	const struct config *c = a->vm->config;

	call->answer = json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
		"boot-source", boot_source_json(c), "machine-config", machine_json(a),
		"drives", api_drives_json(c), "network-interfaces", api_nets_json(c),
		"logger", a->has_logger ? json_write(&api_logger_schema, &a->logger) : json_null(),
		"metrics", api_metrics_json(a), "vsock", api_vsock_json(c),
		"entropy", api_entropy_json(a), "cpu-config", json_null(),
		"mmds-config", api_mmds_json(c));
	for (unsigned i = 0; call->answer && i < 2; i++) {
		static const char *const none[] = { "balloon", "memory-hotplug" };

		json_object_set_new(call->answer, none[i], json_null());
	}
	json_object_set_new(call->answer, "pmem", json_array());
	return call->answer ? 0 : err_set(&call->err, -ENOMEM, "out of memory");
}
