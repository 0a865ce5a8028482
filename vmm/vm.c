/* vm.c: a VM's states: not started, running, paused, ended. */
#include "vmm/vm.h"
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "devices/block/blk.h"
#include "devices/chardev.h"
#include "devices/net/net.h"
#include "vmm/api/json.h"
#include "vmm/api/metadata.h"
#include "vmm/commands.h"
#include "vmm/control.h"
#include "vmm/core/log.h"
#include "vmm/debugger.h"
#include "vmm/machine.h"
#include "vmm/pidfile.h"
#include "vmm/registry.h"
#include "vmm/restore.h"
#include "vmm/sandbox.h"
#include "vmm/snapshot.h"
#include "vmm/usage.h"

enum { LAST_LINE_MS = 2000 };

struct vm {
	struct api_vm api_vm;
	struct config *config;
	struct resources r;
	struct control control;
	struct debugger debugger;
	struct registry registry;
	int pidfile;
	struct api *api;		/* NULL: nobody asked for it */
	bool bad_input;			/* it did not start for what the user gave */
	u64 started_ns;
	struct usage usage;
};

static struct vm *vm_of(struct api_vm *v)
{
	return container_of(v, struct vm, api_vm);
}

/* --- starting --------------------------------------------------------------------------------- */

static void end_at_once(void *arg)
{
	struct vm *v = arg;

	machine_end(v->r.machine, OUTCOME_FATAL);
}

/* From here on nothing of the guest's meets a process that could do more than it must. */
static int shut_in(struct vm *v, struct err *err)
{
	pid_t child[CONFIG_MAX_NETS] = { 0 };

	for (unsigned i = 0; i < v->config->nr_nets; i++)
		child[i] = v->r.net[i][0]->child;
	return sandbox_enter(v->config, v->api, child, end_at_once, v, err);
}

static int boot(struct vm *v, struct err *err)
{
	struct machine *m;
	int rc = machine_new(&m, &v->r, &v->bad_input, err);

	if (rc)
		return rc;
	rc = debugger_attach(&v->debugger, err);
	if (!rc)
		rc = shut_in(v, err);
	if (!rc)
		rc = machine_start(m, err);
	if (!rc)
		rc = debugger_serve(&v->debugger, err);
	if (rc)
		machine_free(m);
	return rc;
}

/* Of a reboot: what a saved VM was once booted from may not be here. */
static int boot_again(struct vm *v, struct err *err)
{
	int rc = v->r.kernel_fd < 0 ? resources_open_kernel(&v->r, err) : 0;

	if (rc)
		err_prefix(err, "the guest reboots, but ");
	return rc ? rc : boot(v, err);
}

/* Of a start that failed when all was open: what takes more than its sandbox leaves cannot be opened again.  One that
 * only logs has taken the capabilities that a card may need. */
static int check_again(const struct vm *v, struct err *err)
{
	const struct config *c = v->config;
	const char *serial = c->serial ?: "stdio", *what = NULL;
	bool logs = c->sandbox == SANDBOX_LOG;

	if (!sandbox_is_entered())
		return 0;
	for (unsigned i = 0; i < c->nr_nets; i++)
		if (c->net[i].mode != NET_USER || (!logs && !sandbox_has_user_net()))
			what = "network card";
	if (!logs && c->vsock.path)
		what = "vsock";
	if (!logs && (!strncmp(serial, "unix:", 5) || !strcmp(serial, "pty")))
		what = "console of that kind";
	if (!logs && v->r.from && snapshot_info(v->r.from).paged)
		what = "page fault handler";
	return what ? err_set(err, -EPERM, "the sandbox is up since a start that failed, and lets no %s be opened: "
			      "start vmm anew", what) : 0;
}

/* After a failure nothing is open: it can be configured better, and tried again. */
static int start(struct vm *v, struct err *err)
{
	int rc = check_again(v, err);

	if (!rc)
		rc = resources_open(&v->r, err);
	v->bad_input = rc && !err_of_host(rc);
	if (rc)
		return rc;
	restore_unlink(v->config);
	v->started_ns = now_ns();
	rc = boot(v, err);
	snapshot_close(v->r.from);
	v->r.from = NULL;
	if (rc)
		resources_close(&v->r);
	else
		restore_keep(v->config);
	return rc;
}

/* --- what the API asks ------------------------------------------------------------------------ */

static enum api_state state(struct api_vm *a)
{
	struct vm *v = vm_of(a);

	return !v->r.machine ? API_NOT_STARTED : machine_is_paused(v->r.machine) ? API_PAUSED :
	       API_RUNNING;
}

static u64 uptime_ms(struct api_vm *a)
{
	struct vm *v = vm_of(a);

	return v->r.machine ? (now_ns() - v->started_ns) / 1000000 : 0;
}

static void refresh(struct metric_set *s)
{
	struct vm *v = container_of(s, struct vm, usage.metrics);
	enum api_state now = state(&v->api_vm);

	usage_read(&v->usage);
	v->usage.memory = v->config->mem;
	v->usage.uptime_ns = v->r.machine ? now_ns() - v->started_ns : 0;
	v->usage.running = now == API_RUNNING;
	v->usage.paused = now == API_PAUSED;
}

static struct metrics *metrics(struct api_vm *a)
{
	return &vm_of(a)->r.metrics;
}

static int check_file(struct api_vm *a, const char *what, const char *path, struct err *err)
{
	(void)a;
	return resources_check_file(what, path, err);
}

static int check_disk(struct api_vm *a, const struct disk_config *d, struct err *err)
{
	struct blk *blk = NULL;
	int rc = resources_open_disk(vm_of(a)->config, &blk, d, err);

	blk_close(blk);
	return rc;
}

static int start_asked(struct api_vm *a, struct err *err)
{
	struct vm *v = vm_of(a);
	int rc = 0;

	if (!v->config->kernel)
		rc = err_set(err, -EINVAL, "there is no kernel: PUT /boot-source names one");
	if (!rc)
		rc = config_check(v->config, err);
	return rc ? rc : start(v, err);
}

static int pause_vm(struct api_vm *a, struct err *err)
{
	(void)err;
	machine_hold(vm_of(a)->r.machine, HOLD_USER);
	return 0;
}

static int resume(struct api_vm *a, struct err *err)
{
	struct vm *v = vm_of(a);

	if (debugger_holds(&v->debugger))
		return err_set(err, -EBUSY, "a debugger has stopped it; continue there");
	machine_let_go(v->r.machine, HOLD_USER | HOLD_ERROR);
	return 0;
}

static int save(struct api_vm *a, const char *state_path, const char *memory_path, bool diff,
		struct err *err)
{
	struct vm *v = vm_of(a);
	int rc;

	debugger_hide(&v->debugger, true);
	rc = snapshot_save(v->r.machine, state_path, memory_path, diff, false, err);
	debugger_hide(&v->debugger, false);
	return rc;
}

static int save_directory(struct api_vm *a, const char *dir, bool diff, struct err *err)
{
	struct vm *v = vm_of(a);
	int rc;

	machine_hold(v->r.machine, HOLD_SAVE);
	debugger_hide(&v->debugger, true);
	rc = snapshot_save_directory(v->r.machine, dir, diff, err);
	debugger_hide(&v->debugger, false);
	machine_let_go(v->r.machine, HOLD_SAVE);
	return rc;
}

static int save_working_set(struct api_vm *a, const char *dir, struct err *err)
{
	return snapshot_save_working_set(vm_of(a)->r.machine, dir, err);
}

static int set_taps(struct config *c, const json_t *taps, struct err *err)
{
	const json_t *one;
	size_t n;

	json_array_foreach(taps, n, one) {
		const char *id = json_string_value(json_object_get(one, "iface_id"));
		const char *tap = json_string_value(json_object_get(one, "host_dev_name"));
		unsigned i = 0;

		while (i < c->nr_nets && (!c->net[i].id || strcmp(c->net[i].id, id)))
			i++;
		if (i == c->nr_nets)
			return err_set(err, -ENOENT, "the saved microVM has no network interface '%s'",
				       id);
		if (config_use_tap(&c->net[i], tap, err))
			return err->code;
	}
	return 0;
}

static int set_vsock(struct config *c, const char *path, struct err *err)
{
	if (!path)
		return 0;
	return c->vsock.path ? config_set_vsock(c, 0, path, err) :
			       err_set(err, -ENOENT, "the saved microVM has no vsock device");
}

static int load(struct api_vm *a, const struct api_load *l, struct err *err)
{
	struct vm *v = vm_of(a);
	struct config *c = v->config, was;
	int rc = l->pager ? snapshot_open_paged(&v->r.from, l->state, l->pager, err) :
			    snapshot_open(&v->r.from, l->state, l->memory, err);

	if (rc)
		return rc;
	config_set_aside(c, &was);
	c->name = NULL;
	rc = snapshot_refuse_diff(v->r.from, err);
	if (!rc)
		rc = snapshot_config(v->r.from, c, err);
	free(c->name);
	c->name = was.name;
	c->track_dirty_pages = l->track_dirty_pages;
	if (!rc)
		rc = set_taps(c, l->taps, err);
	if (!rc)
		rc = set_vsock(c, l->vsock, err);
	if (!rc)
		rc = restore_disks(c, NULL, err);
	if (!l->resume)
		v->r.held |= HOLD_USER;
	if (!rc)
		rc = start(v, err);
	if (rc) {
		v->r.held &= ~HOLD_USER;
		snapshot_close(v->r.from);
		v->r.from = NULL;
		restore_undo(c);
		config_drop_machine(c);
		*c = was;
	} else {
		config_drop_machine(&was);
	}
	return rc;
}

static int stop(struct api_vm *a, struct err *err)
{
	struct vm *v = vm_of(a);

	(void)err;
	if (v->r.machine)
		machine_end(v->r.machine, OUTCOME_QUIT);
	else
		loop_stop(v->r.main_loop);
	return 0;
}

static int power_button(struct api_vm *a, struct err *err)
{
	(void)err;
	machine_press_power_button(vm_of(a)->r.machine);
	return 0;
}

/* As --serial has it; what is relative there is not here. */
static int console(struct api_vm *a, char *text, size_t room)
{
	struct vm *v = vm_of(a);
	const char *where = v->config->serial ?: "stdio", *pty = chardev_pty(v->r.serial);
	char *whole = strncmp(where, "unix:", 5) ? NULL : realpath(where + 5, NULL);

	if (pty)
		snprintf(text, room, "pty:%s", pty);
	else
		snprintf(text, room, "%s%s", whole ? "unix:" : "", whole ?: where);
	free(whole);
	return 0;
}

static int disk(struct api_vm *a, unsigned i, struct api_disk *d, struct err *err)
{
	struct vm *v = vm_of(a);
	struct blk *blk = NULL;
	int rc = v->r.disk[i] ? 0 : resources_open_disk(v->config, &blk, &v->config->disk[i], err);

	if (!rc) {
		d->size = blk_info(v->r.disk[i] ?: blk).size;
		d->format = blk_format(v->r.disk[i] ?: blk);
	}
	blk_close(blk);
	return rc;
}

static int disk_snapshot(struct api_vm *a, unsigned i, const char *name, struct err *err)
{
	return machine_snapshot_disk(vm_of(a)->r.machine, i, name, err);
}

static int disk_resize(struct api_vm *a, unsigned i, u64 size, struct err *err)
{
	return machine_resize_disk(vm_of(a)->r.machine, i, size, err);
}

/* A name may lead to another file by now; to the same one: its size may be another. */
static int disk_replace(struct api_vm *a, unsigned i, const char *path, struct err *err)
{
	struct vm *v = vm_of(a);
	struct disk_config *d = &v->config->disk[i], other = *d;
	struct blk *blk;
	int rc;

	other.path = (char *)(uintptr_t)path;
	other.format = (char *)(uintptr_t)api_disk_format(path);
	rc = resources_open_disk(v->config, &blk, &other, err);
	if (rc == -EBUSY && !strcmp(path, d->path))
		return machine_resize_disk(v->r.machine, i, 0, err);
	if (rc)
		return rc;
	rc = config_set_texts((struct config_text[]){ { &d->path, path }, { &d->format, other.format } }, 2, err);
	if (rc)
		blk_close(blk);
	else
		machine_replace_disk(v->r.machine, i, blk);
	return rc;
}

static int disk_limit(struct api_vm *a, unsigned i, const struct limit_config *l, struct err *err)
{
	(void)err;
	machine_limit_disk(vm_of(a)->r.machine, i, l);
	return 0;
}

static int net_limit(struct api_vm *a, unsigned i, const struct limit_config *rx,
		     const struct limit_config *tx, struct err *err)
{
	(void)err;
	machine_limit_net(vm_of(a)->r.machine, i, rx, tx);
	return 0;
}

static int net_link(struct api_vm *a, unsigned i, bool up, struct err *err)
{
	return machine_set_link(vm_of(a)->r.machine, i, up, err);
}

static const struct api_vm_ops ops = {
	.state = state, .uptime_ms = uptime_ms, .metrics = metrics, .check_file = check_file, .check_disk = check_disk,
	.start = start_asked, .pause = pause_vm, .resume = resume, .stop = stop,
	.power_button = power_button, .console = console, .disk = disk,
	.save = save, .save_directory = save_directory,
	.save_working_set = save_working_set, .load = load,
	.disk_snapshot = disk_snapshot, .disk_resize = disk_resize, .disk_replace = disk_replace,
	.disk_limit = disk_limit, .net_limit = net_limit, .net_link = net_link,
};

/* --- its whole life --------------------------------------------------------------------------- */

static int status_of(enum outcome why, int code)
{
	switch (why) {
	case OUTCOME_EXIT:
		return code;
	case OUTCOME_PANIC:
		log_warn("the guest's kernel panicked");
		return EXIT_GUEST_PANIC;
	case OUTCOME_FATAL:
	case OUTCOME_STOPPED:
		return EXIT_RUNTIME;
	default:
		return EXIT_OK;
	}
}

/* Who reads it by a pipe, as ssh does, need not wait for our end.  The sandbox has no dup2. */
static void leave_standard_error(void)
{
	struct stat st;

	if (fstat(STDERR_FILENO, &st) || !(S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode)))
		return;
	close(STDERR_FILENO);
	(void)!dup(STDOUT_FILENO);
}

static int live(struct vm *v, int ready, struct err *err)
{
	int code, rc = v->config->kernel || v->r.from ? start(v, err) : 0;

	if (!rc && ready > 0) {
		leave_standard_error();
		(void)!write(ready, "", 1);
	}

	while (!rc) {
		enum outcome why;

		loop_run(v->r.main_loop);
		if (!v->r.machine)
			return EXIT_OK;		/* told to go before it was started */
		why = machine_outcome(v->r.machine, &code);
		if (v->api)
			api_machine_ends(v->api);
		machine_free(v->r.machine);
		if (why != OUTCOME_RESET || v->config->no_reboot) {
			code = status_of(why, code);
			debugger_ended(&v->debugger, code);
			if (why == OUTCOME_FATAL && v->config->log_file)
				err_set(err, -EIO, "the VM failed; %s says of what", v->config->log_file);
			return code;
		}
		rc = boot_again(v, err);
	}
	return v->bad_input ? EXIT_USAGE : EXIT_RUNTIME;
}

/* Without a place to write it down, a name is a name all the same. */
static int enter(struct vm *v, struct err *err)
{
	int rc = registry_enter(&v->registry, v->config->name, err);

	if (!rc || rc == -EBUSY)
		return rc;
	log_warn("%s; it runs, but 'vmm ps' and its like do not find it (the environment's "
		 "VMM_RUNTIME_DIR names another directory)", err->msg);
	*err = (struct err){ 0 };
	return 0;
}

static int open_api(struct vm *v, const struct vm_options *o, struct err *err)
{
	const char *path = v->config->api_sock;
	bool named = v->registry.fd >= 0;
	char own[PATH_MAX];
	int rc;

	if (!path && !named && !o->prepare)
		return 0;
	rc = api_new(&v->api, v->r.main_loop, &v->api_vm, &o->api, err);
	if (!rc && o->prepare)
		rc = o->prepare(v->api, o->arg, err);
	if (rc)
		return rc;
	if (path) {
		rc = api_listen(v->api, path, err);
		if (!rc && !v->config->kernel)
			log_info("waiting on %s to be told what to start", path);
		if (!rc && named)
			registry_link_socket(&v->registry, path);
	} else if (named) {
		registry_socket(&v->registry, own);
		rc = api_listen(v->api, own, err);
	}
	return rc ? err_prefix(err, "api-sock: ") : 0;
}

static int open_metadata(struct vm *v, u64 limit, struct err *err)
{
	const char *path = v->config->metadata;
	int rc = metadata_new(&v->r.metadata, limit, err);
	json_t *root;

	v->api_vm.metadata = v->r.metadata;
	if (rc || !path)
		return rc;
	root = json_read_file(path, err);
	if (!root)
		return err_prefix(err, "metadata ");
	rc = !json_is_object(root) ? err_set(err, -EINVAL, "not an object: {...}") :
				     metadata_put(v->r.metadata, root, err);
	json_decref(root);
	if (rc == -EFBIG)
		rc = err_set(err, -EINVAL, "more than the %llu bytes that there is room for",
			     (unsigned long long)limit);
	return rc ? err_prefix(err, "metadata %s: ", path) : 0;
}

static int open_all(struct vm *v, const struct vm_options *o, struct err *err)
{
	const struct config *c = v->config;
	int rc = resources_init(&v->r, c, err);		/* first: close_all closes them */

	if (!rc && c->pidfile)
		rc = pidfile_open(c->pidfile, &v->pidfile, err);
	if (!rc && c->pidfile)
		control_doom(c->pidfile);
	if (!rc && o->named && c->name)
		rc = enter(v, err);
	if (!rc) {
		usage_init(&v->usage, &v->r.metrics, refresh);
		rc = control_start(&v->control, &v->r, err);
	}
	if (!rc)
		rc = debugger_open(&v->debugger, &v->r, err);
	v->r.from = o->from;
	if (!rc)
		rc = open_metadata(v, o->api.mmds_limit ?: API_MAX_BODY, err);
	return rc ? rc : open_api(v, o, err);
}

static void close_all(struct vm *v)
{
	control_doom(NULL);
	pidfile_close(v->config->pidfile, v->pidfile);
	control_stop(&v->control);
	api_free(v->api);
	debugger_close(&v->debugger);
	registry_leave(&v->registry);
	usage_fini(&v->usage);
	resources_fini(&v->r);
	metadata_free(v->r.metadata);
}

/* Of those that were asked for the kernel takes those that are there. */
static void say_processors(const struct config *c)
{
	u64 got[ARRAY_SIZE(c->affinity)] = { 0 };
	unsigned missing = 0, first = 0;

	if (sched_getaffinity(0, sizeof(got), (cpu_set_t *)got))
		return;
	for (unsigned i = CONFIG_MAX_HOST_CPUS; i--; )
		if (c->affinity[i / 64] & ~got[i / 64] & 1ULL << i % 64) {
			missing++;
			first = i;
		}
	if (missing)
		log_warn("cpu-affinity: %s: %u of these, processor %u first, this host or this process's control group "
			 "does not have; it runs on the others", c->affinity_list, missing, first);
}

/* Before there are threads, which have it from this one. */
static int take_processors(const struct config *c, struct err *err)
{
	if (!c->affinity_list)
		return 0;
	if (!sched_setaffinity(0, sizeof(c->affinity), (const cpu_set_t *)c->affinity)) {
		say_processors(c);
		return 0;
	}
	return err_set(err, -errno, "cpu-affinity: %s: %s", c->affinity_list, errno == EINVAL ?
		       "this host, or this process's control group, has none of these processors" :
		       strerror(errno));
}

int vm_run(struct config *c, const struct vm_options *o, struct err *err)
{
	struct vm v = {
		.api_vm = { .ops = &ops, .config = c }, .config = c, .control.fd = -1,
		.registry.fd = -1, .pidfile = -1,
	};
	int rc, status;

	control_block_signals();
	log_set_patience(0);		/* who does not read it does not hold the guest up */
	rc = take_processors(c, err);
	if (!rc)
		rc = open_all(&v, o, err);
	status = rc ? exit_status_of(rc) : live(&v, o->ready, err);
	snapshot_close(v.r.from);
	close_all(&v);
	log_set_patience(LAST_LINE_MS);
	return status;
}
