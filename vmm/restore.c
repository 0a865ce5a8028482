/* restore.c: 'vmm restore', 'vmm clone' and 'vmm snapshot': VMs that were saved. */
#include "vmm/restore.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "devices/block/image.h"
#include "vmm/commands.h"
#include "vmm/core/log.h"
#include "vmm/disk.h"
#include "vmm/jail.h"
#include "vmm/logfile.h"
#include "vmm/snapshot.h"
#include "vmm/subcommand.h"
#include "vmm/version.h"
#include "vmm/vm.h"

/* --- disks -------------------------------------------------------------------------------- */

static int make_delta(struct disk_config *d, const char *dir, const char *name, unsigned i,
		      struct err *err)
{
	struct image_create create = { .format = "qcow2", .backing = d->path,
				       .backing_format = d->format };
	const char *slash = strrchr(d->path, '/');
	char *path;
	int rc;

	if (dir)
		rc = asprintf(&path, "%s/%s-disk%u.qcow2", dir, name, i);
	else
		rc = asprintf(&path, "%.*s.vmm-%d-disk%u.qcow2", (int)(slash + 1 - d->path), d->path,
			      (int)getpid(), i);
	if (rc < 0)
		return err_set(err, -ENOMEM, "out of memory");
	rc = image_create(path, &create, err);
	if (rc) {
		free(path);
		return rc;
	}
	free(d->path);
	free(d->format);
	d->path = path;
	d->format = strdup("qcow2");
	d->is_base = !dir;		/* still to be removed */
	d->fresh = true;
	d->backing_anywhere = true;
	return d->format ? 0 : err_set(err, -ENOMEM, "out of memory");
}

int restore_disks(struct config *c, const char *dir, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; i < c->nr_disks && !rc; i++) {
		struct disk_config *d = &c->disk[i];

		if (!d->is_base)
			continue;
		if (!d->format || *d->path != '/')
			rc = err_set(err, -EINVAL, "disk %s: a snapshot names it by a whole path and "
				     "its format", d->path);
		else
			rc = make_delta(d, dir, c->name ?: "vm", i, err);
	}
	if (rc)
		restore_undo(c);
	return rc;
}

static void forget_deltas(struct config *c, bool bases_only, bool remove)
{
	for (unsigned i = 0; i < c->nr_disks; i++) {
		struct disk_config *d = &c->disk[i];

		if (!d->fresh || (bases_only && !d->is_base))
			continue;
		if (remove)
			unlink(d->path);
		d->fresh = false;
	}
}

void restore_unlink(struct config *c)
{
	forget_deltas(c, true, true);
}

void restore_keep(struct config *c)
{
	forget_deltas(c, false, false);
}

void restore_undo(struct config *c)
{
	forget_deltas(c, false, true);
}

/* --- arguments -------------------------------------------------------------------------------- */

struct words {
	const char *dir, *disk_dir;
	char *name;
	unsigned nr;			/* of clones */
	char **rest;			/* options of run */
	int nr_rest;
	bool help;
};

static int misused(const char *command, const char *what, const char *word)
{
	log_err("%s: %s%s%s%s", command, what, word ? " '" : "", word ?: "", word ? "'" : "");
	return EXIT_USAGE;
}

static char *without_slashes(char *dir)
{
	dir[snapshot_directory_len(dir)] = 0;
	return dir;
}

/* Of an option of run: what follows is not the directory. */
static bool takes_value(const char *word)
{
	if (strncmp(word, "--", 2))
		return false;
	for (unsigned i = 0; i < config_nr_options; i++)
		if (!strcmp(word + 2, config_options[i].name))
			return config_options[i].metavar;
	return !strcmp(word, "--config");
}

/* Ours are taken out; what is left is for config_parse. */
static int read_words(const char *command, int argc, char **argv, bool many, struct words *w)
{
	static const char *const ours[] = { "--disk-dir", "-n", "--name" };

	*w = (struct words){ .nr = 1, .rest = argv };
	for (int i = 0; i < argc; i++) {
		char *value = i + 1 < argc ? argv[i + 1] : NULL;
		unsigned o = 0;

		w->help |= !strcmp(argv[i], "--help") || !strcmp(argv[i], "-h");
		while (o < ARRAY_SIZE(ours) && strcmp(argv[i], ours[o]))
			o++;
		if (o == ARRAY_SIZE(ours) || (o && !many)) {
			if (argv[i][0] != '-' && !w->dir)
				w->dir = without_slashes(argv[i]);
			else
				w->rest[w->nr_rest++] = argv[i];
			if (value && takes_value(argv[i]))
				w->rest[w->nr_rest++] = argv[++i];
			continue;
		}
		if (!value)
			return misused(command, "no value for", argv[i]);
		if (o == 0) {
			w->disk_dir = value;
		} else if (o == 2) {
			w->name = value;
		} else {
			char *end;

			w->nr = strtoul(value, &end, 10);
			if (*end || !*value || !w->nr || w->nr > 10000)
				return misused(command, "-n takes a number from 1 to 10000, not", value);
		}
		i++;
	}
	return w->dir || w->help ? EXIT_OK : misused(command, "no directory of a snapshot", NULL);
}

static const char same[] = "restore: the saved VM has another %s; it cannot be changed";

static int check_same(const struct config *a, const struct config *b, struct err *err)
{
	const char *what = a->mem != b->mem ? "memory size" : a->cpus != b->cpus ? "number of processors" :
		a->transport != b->transport ? "transport" : a->nr_disks != b->nr_disks ?
		"number of disks" : a->nr_nets != b->nr_nets ? "number of network cards" : NULL;

	return what ? err_set(err, -EINVAL, same, what) : 0;
}

/* Of a reboot: the saved one's own may not be here, but what the command line names is. */
static int check_kernel(const struct config *c, const struct config *saved, struct err *err)
{
	int rc = 0;

	if (c->kernel && strcmp(c->kernel, saved->kernel ?: ""))
		rc = resources_check_file("kernel", c->kernel, err);
	if (!rc && c->initrd && strcmp(c->initrd, "none") && strcmp(c->initrd, saved->initrd ?: ""))
		rc = resources_check_file("initrd", c->initrd, err);
	return rc;
}

/* What it goes on from stays so where it is now: others do, too. */
static int find_bases(struct config *c, const struct config *saved, struct err *err)
{
	for (unsigned i = 0; i < c->nr_disks; i++) {
		struct disk_config *d = &c->disk[i];
		char *path;

		if (!saved->disk[i].is_base || d->is_base || d->read_only)
			continue;
		path = realpath(d->path, NULL);
		if (!path)
			return err_set(err, -errno, "disk %s: %s", d->path, strerror(errno));
		free(d->path);
		d->path = path;
		d->is_base = true;
		if (!d->format && !(d->format = strdup(saved->disk[i].format)))
			return err_set(err, -ENOMEM, "out of memory");
	}
	return 0;
}

/* c: how the saved one was made, with what the command line changes. */
static int configure(struct snapshot *s, struct words *w, struct config *c, struct err *err)
{
	struct config saved;
	bool help, version;
	int rc;

	config_init(&saved);
	config_init(c);
	rc = snapshot_config(s, &saved, err);
	if (!rc)
		rc = snapshot_config(s, c, err);
	free(c->name);
	c->name = NULL;
	if (!rc)
		rc = config_parse(c, w->nr_rest, w->rest, &help, &version, err);
	if (!rc)
		rc = check_same(c, &saved, err);
	if (!rc)
		rc = check_kernel(c, &saved, err);
	if (!rc && c->hugepages)
		rc = err_set(err, -EINVAL, "restore: not with --hugepages: memory is read page by page");
	if (!rc && c->chroot)
		rc = err_set(err, -EINVAL, "restore: not with --chroot: what was saved names files outside of "
			     "it");
	for (unsigned i = 0; i < c->nr_nets && !rc; i++)
		c->net[i].plain = saved.net[i].plain;
	if (!rc)
		rc = find_bases(c, &saved, err);
	config_fini(&saved);
	return rc;
}

static int open_snapshot(const char *dir, struct snapshot **s, struct err *err)
{
	char *state = NULL, *memory = NULL;
	int rc;

	if (!*dir)
		rc = err_set(err, -EINVAL, "snapshot: the directory has no name");
	else if (asprintf(&state, "%s/state", dir) < 0 || asprintf(&memory, "%s/memory", dir) < 0)
		rc = err_set(err, -ENOMEM, "out of memory");
	else
		rc = snapshot_open(s, state, memory, err);
	free(state);
	free(memory);
	return rc;
}

/* ready: told once it runs; -1: nobody. */
static int run_one(struct words *w, int ready)
{
	struct snapshot *s = NULL;
	struct err err = { 0 };
	struct config c;
	int status;

	config_init(&c);
	if (!open_snapshot(w->dir, &s, &err) && !configure(s, w, &c, &err) &&
	    !logfile_start(&c, &err) && !jail_enter(&c, &err) &&
	    !restore_disks(&c, w->disk_dir, &err)) {
		if (c.name)
			prctl(PR_SET_NAME, c.name);
		status = vm_run(&c, &(struct vm_options){
			.api = { .app = "vmm", .version = VMM_VERSION,
				 .id = c.name ?: "anonymous-instance", .max_body = API_MAX_BODY },
			.named = true, .from = s, .ready = ready,
		}, &err);
		s = NULL;
		restore_undo(&c);
	} else {
		status = err_of_host(err.code) ? EXIT_RUNTIME : EXIT_USAGE;
	}
	logfile_end(&c, &err);
	snapshot_close(s);
	config_fini(&c);
	return status;
}

int command_restore(int argc, char **argv)
{
	struct words w;
	int status = read_words("restore", argc, argv, false, &w);

	if (status)
		return status;
	if (w.help) {
		puts("usage: vmm restore DIR [options]\n"
		     "go on with the VM that was saved into DIR ('vmm ctl NAME save DIR')\n\noptions:\n"
		     "  --disk-dir D           keep what it writes to its disks, as D/NAME-diskN.qcow2;\n"
		     "                         else it is gone when the VM ends\n"
		     "  --name NAME            its name; by default it has none\n"
		     "  --serial, --net, --disk, --pidfile, --api-sock, --log-level ... as of 'vmm run'\n"
		     "  --help                 also -h");
		return EXIT_OK;
	}
	return run_one(&w, -1);
}

/* --- clones ------------------------------------------------------------------------------------- */

/* The N-th of them: tap=t% is t1, t2, ... Whatever comes of it is for forget_words(). */
static int count_up(const struct words *w, const char *prefix, unsigned n, struct words *one)
{
	/* A console that nobody needs to read; no line about each. */
	const char *own[] = { "--serial", "pty", "--log-level", "warn", "--name", NULL };
	int nr_own = ARRAY_SIZE(own), nr = nr_own + w->nr_rest;

	*one = *w;
	one->nr_rest = 0;
	one->rest = calloc(nr, sizeof(*one->rest));
	if (asprintf(&one->name, "%s-%u", prefix, n) < 0)
		one->name = NULL;
	if (!one->rest || !one->name)
		return -ENOMEM;
	own[nr_own - 1] = one->name;
	for (int i = 0; i < nr; i++) {
		const char *word = i < nr_own ? own[i] : w->rest[i - nr_own];
		const char *at = i < nr_own ? NULL : strchr(word, '%');
		char *text = NULL;

		if (!at)
			text = strdup(word);
		else if (asprintf(&text, "%.*s%u%s", (int)(at - word), word, n, at + 1) < 0)
			text = NULL;
		if (!text)
			return -ENOMEM;
		one->rest[one->nr_rest++] = text;
	}
	return 0;
}

static void forget_words(struct words *one)
{
	for (int i = 0; i < one->nr_rest; i++)
		free(one->rest[i]);
	free(one->rest);
	free(one->name);
}

/* Each a process of its own, that outlives this one. */
static int start_clone(struct words *w)
{
	int pipe_fd[2], status, null;
	char byte;
	pid_t pid;
	ssize_t n;

	if (pipe2(pipe_fd, O_CLOEXEC) || (pid = fork()) < 0) {
		log_err("clone: %s", strerror(errno));
		return EXIT_RUNTIME;
	}
	if (!pid) {
		close(pipe_fd[0]);
		setsid();
		null = open("/dev/null", O_RDWR);
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		close(null);
		exit(run_one(w, pipe_fd[1]));
	}
	close(pipe_fd[1]);
	n = read(pipe_fd[0], &byte, 1);
	close(pipe_fd[0]);
	if (n == 1) {
		printf("%s %d\n", w->name, (int)pid);
		return EXIT_OK;
	}
	waitpid(pid, &status, 0);
	return WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : EXIT_RUNTIME;
}

int command_clone(int argc, char **argv)
{
	const char *prefix, *slash;
	struct words w, one;
	int status = read_words("clone", argc, argv, true, &w);

	if (status)
		return status;
	if (w.help) {
		puts("usage: vmm clone DIR [-n N] [options]\n"
		     "start copies of the VM that was saved into DIR, in the background\n\noptions:\n"
		     "  -n N                   how many (1)\n"
		     "  --name NAME            they are called NAME-1, NAME-2, ... (DIR's last part)\n"
		     "  --disk-dir D           keep what they write, as D/NAME-N-diskN.qcow2\n"
		     "  --net tap=T%           T1, T2, ...: a % is the copy's number\n"
		     "  --serial, --log-level ... as of 'vmm run'; the console is a pty by default\n"
		     "  --help                 also -h\n\n"
		     "They share the memory that none of them wrote to. 'vmm ps' lists them.");
		return EXIT_OK;
	}
	slash = strrchr(w.dir, '/');
	prefix = w.name ?: slash ? slash + 1 : w.dir;
	for (unsigned n = 1; n <= w.nr && !status; n++) {
		if (count_up(&w, prefix, n, &one)) {
			log_err("clone: out of memory");
			status = EXIT_RUNTIME;
		} else {
			status = start_clone(&one);
		}
		if (status && n > 1)
			log_err("clone: %u of %u were started before, and run on: 'vmm ps' lists them", n - 1,
				w.nr);
		forget_words(&one);
	}
	return status;
}

/* --- vmm snapshot --------------------------------------------------------------------------------- */

struct id_text { char text[2 * SNAPSHOT_ID_LEN + 1]; };
static struct id_text id_text(const u8 id[SNAPSHOT_ID_LEN])
{
	struct id_text t;

	for (int i = 0; i < SNAPSHOT_ID_LEN; i++)
		snprintf(t.text + 2 * i, 3, "%02x", id[i]);
	return t;
}

/* c NULL: of a diff it is not told. */
static void print_info(const struct snapshot_info *info, const struct config *c)
{
	print_row("id", "%s", id_text(info->id).text);
	print_row("kind", "%s", info->diff ? "diff" : "full");
	if (info->diff)
		print_row("base", "%s", id_text(info->base).text);
	print_row("memory", "%llu", (unsigned long long)info->mem_size);
	if (!c)
		return;
	print_row("cpus", "%u", c->cpus);
	print_row("transport", "%s", c->transport == TRANSPORT_PCI ? "pci" : "mmio");
	for (unsigned i = 0; i < c->nr_disks; i++)
		print_row("disk", "%s%s", c->disk[i].path, c->disk[i].is_base ? " (a delta of it)" : "");
	for (unsigned i = 0; i < c->nr_nets; i++)
		print_row("net", "%s%s%s", config_net_kind(&c->net[i]), config_net_name(&c->net[i]) ? "=" : "",
			  config_net_name(&c->net[i]) ?: "");
}

static void print_info_json(const struct snapshot_info *info, const struct config *c)
{
	json_t *disks = json_array(), *nets = json_array();
	json_t *root = json_pack("{s:s, s:s, s:s*, s:I}", "id", id_text(info->id).text, "kind",
				 info->diff ? "diff" : "full", "base",
				 info->diff ? id_text(info->base).text : NULL,
				 "memory_bytes", (json_int_t)info->mem_size);

	for (unsigned i = 0; c && i < c->nr_disks; i++)
		json_array_append_new(disks, json_pack("{s:o, s:b}", "path", disk_json(c->disk[i].path),
						       "delta", (int)c->disk[i].is_base));
	for (unsigned i = 0; c && i < c->nr_nets; i++)
		json_array_append_new(nets, json_pack("{s:s, s:o}", "kind", config_net_kind(&c->net[i]),
						      "name", config_net_name(&c->net[i]) ?
						      disk_json(config_net_name(&c->net[i])) :
						      json_null()));
	if (c)
		json_object_update_new(root, json_pack("{s:i, s:s, s:O, s:O}", "cpus", (int)c->cpus,
						       "transport", c->transport == TRANSPORT_PCI ?
						       "pci" : "mmio", "disks", disks, "nets", nets));
	json_decref(disks);
	json_decref(nets);
	subcommand_print_json(root);
}

static int show(const char *dir, bool json)
{
	struct snapshot *s = NULL;
	struct snapshot_info info;
	struct config c;
	struct err err;
	int rc = open_snapshot(dir, &s, &err);

	config_init(&c);
	if (!rc) {
		info = snapshot_info(s);
		rc = info.diff ? 0 : snapshot_config(s, &c, &err);
	}
	if (rc)
		log_err("%s", err.msg);
	else
		(json ? print_info_json : print_info)(&info, info.diff ? NULL : &c);
	snapshot_close(s);
	config_fini(&c);
	return rc ? EXIT_USAGE : EXIT_OK;
}

/* The memory first: with the state it is a snapshot. */
static int merge(const char *base, const char *diff, const char *out)
{
	char path[4][PATH_MAX];
	struct err err;
	int rc;

	if (mkdir(out, 0777)) {
		log_err("snapshot %s: %s", out, errno == EEXIST ? "there is something already; choose another "
			"directory" : strerror(errno));
		return EXIT_USAGE;
	}
	snprintf(path[0], PATH_MAX, "%s/memory", base);
	snprintf(path[1], PATH_MAX, "%s/memory", diff);
	snprintf(path[2], PATH_MAX, "%s/memory", out);
	rc = snapshot_merge_memory(path[0], path[1], path[2], &err);
	snprintf(path[1], PATH_MAX, "%s/state", diff);
	snprintf(path[3], PATH_MAX, "%s/state", out);
	if (!rc)
		rc = snapshot_copy_state(path[1], path[3], &err);
	if (!rc)
		return EXIT_OK;
	log_err("%s", err.msg);
	unlink(path[3]);
	unlink(path[2]);
	rmdir(out);
	return rc == -EINVAL || rc == -ENOENT ? EXIT_USAGE : EXIT_RUNTIME;
}

int command_snapshot(int argc, char **argv)
{
	bool json = false;
	int words = 0;

	for (int i = 0; i < argc; i++) {
		if (argc && !strcmp(argv[0], "info") && !strcmp(argv[i], "--json"))
			json = true;
		else
			argv[words++] = argv[i];
	}
	argc = words;
	for (int i = 1; i < argc; i++)
		without_slashes(argv[i]);
	if (argc && (!strcmp(argv[0], "--help") || !strcmp(argv[0], "-h"))) {
		puts("usage: vmm snapshot info [--json] DIR     what a saved VM is\n"
		     "       vmm snapshot merge BASE DIFF DIR   a whole one of a diff and its base\n\n"
		     "A VM is saved by 'vmm ctl NAME save DIR' and goes on by 'vmm restore DIR'.");
		return EXIT_OK;
	}
	if (argc == 2 && !strcmp(argv[0], "info"))
		return show(argv[1], json);
	if (argc == 4 && !strcmp(argv[0], "merge"))
		return merge(argv[1], argv[2], argv[3]);
	if (argc && strcmp(argv[0], "info") && strcmp(argv[0], "merge"))
		return misused("snapshot", "neither info nor merge:", argv[0]);
	return misused("snapshot", "'vmm snapshot --help' says how", NULL);
}
