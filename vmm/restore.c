/* restore.c: 'vmm restore' and 'vmm clone': on with VMs that were saved. */
#include "vmm/restore.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
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
				       .backing_format = d->format, .made = &d->made };
	struct stat base;
	const char *slash = strrchr(d->path, '/');
	u64 number;
	char *path;
	int rc;

	rc = chain_refuse_marked(d->path, err);
	if (rc)
		return rc;
	/* Not the process's: in each container that may be the same, and one that is killed here leaves it. */
	if (getrandom(&number, sizeof(number), 0) != sizeof(number))
		return err_set(err, -errno, "disk %s: no random number: %s", d->path, strerror(errno));
	if (dir)
		rc = asprintf(&path, "%s/%s-disk%u.qcow2", dir, name, i);
	else
		rc = asprintf(&path, "%.*s.vmm-%016llx-disk%u.qcow2", (int)(slash + 1 - d->path), d->path,
			      (unsigned long long)number, i);
	if (rc < 0)
		return err_set(err, -ENOMEM, "out of memory");
	/* Whoever may use the one may use the other. */
	if (!stat(d->path, &base)) {
		base.st_mode |= S_IRUSR | S_IWUSR;
		create.mode = base.st_mode & 0666;
		create.like = S_ISREG(base.st_mode) ? &base : NULL;
	}
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

enum { CLONES_MAX = 10000 };

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

/* "--name VALUE" or "--name=VALUE", at argv[*i], which goes on to the last word of it.  False: it is not
 * that option; *value NULL: it has no value. */
static bool is_ours(const char *name, int argc, char **argv, int *i, char **value)
{
	size_t len = strlen(name);
	char *word = argv[*i];

	if (strncmp(word, name, len) || (word[len] && word[len] != '='))
		return false;
	*value = word[len] ? word + len + 1 : *i + 1 < argc ? argv[++*i] : NULL;
	if (*value && !**value)
		*value = NULL;
	return true;
}

/* Ours are taken out; what is left is for config_parse. */
static int read_words(const char *command, int argc, char **argv, bool many, struct words *w)
{
	unsigned long nr;
	char *value;

	*w = (struct words){ .nr = 1, .rest = argv };
	for (int i = 0; i < argc; i++) {
		const char *word = argv[i];

		if (!strcmp(word, "--help") || !strcmp(word, "-h")) {
			w->help = true;
		} else if (is_ours("--disk-dir", argc, argv, &i, &value)) {
			w->disk_dir = value;
			if (!value)
				return misused(command, "no value for", word);
		} else if (many && is_ours("--name", argc, argv, &i, &value)) {
			w->name = value;
			if (!value)
				return misused(command, "no value for", word);
		} else if (many && is_ours("-n", argc, argv, &i, &value)) {
			if (!value || config_parse_number(value, 1, CLONES_MAX, &nr))
				return misused(command, "-n takes a number from 1 to 10000, not", value ?: "");
			w->nr = nr;
		} else if (word[0] != '-' && !w->dir) {
			w->dir = without_slashes(argv[i]);
		} else {
			w->rest[w->nr_rest++] = argv[i];
			if (takes_value(word) && i + 1 < argc)
				w->rest[w->nr_rest++] = argv[++i];
		}
	}
	return (w->dir && *w->dir) || w->help ? EXIT_OK :
		misused(command, "no directory of a snapshot", NULL);
}

static int check_same(const struct config *c, const struct config *saved, struct err *err)
{
	const struct { u64 given, saved; const char *what; } part[] = {
		{ c->mem / MIB, saved->mem / MIB, "MiB of memory" },
		{ c->cpus, saved->cpus, "processors" },
		{ c->transport == TRANSPORT_PCI, saved->transport == TRANSPORT_PCI, "PCI bus" },
		{ c->nr_disks, saved->nr_disks, "disks" },
		{ c->nr_nets, saved->nr_nets, "network cards" },
		{ !!c->vsock.path, !!saved->vsock.path, "vsock devices" },
		{ c->vsock.cid, saved->vsock.cid, "as the cid of its vsock" },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(part); i++)
		if (part[i].given != part[i].saved)
			return err_set(err, -EINVAL, "restore: the saved VM has %llu %s, not %llu; that "
				       "cannot be changed", (unsigned long long)part[i].saved, part[i].what,
				       (unsigned long long)part[i].given);
	for (unsigned i = 0; i < c->nr_disks; i++)
		if (c->disk[i].read_only && !saved->disk[i].read_only)
			return err_set(err, -EINVAL, "restore: disk %s: the saved VM writes to it, so it "
				       "cannot be readonly", c->disk[i].path);
	return 0;
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

		if (!saved->disk[i].is_base || d->is_base)
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
	rc = snapshot_refuse_diff(s, err);
	if (!rc)
		rc = snapshot_config(s, &saved, err);
	if (!rc)
		rc = snapshot_config(s, c, err);
	free(c->name);
	c->name = NULL;
	if (!rc)
		rc = config_parse(c, w->nr_rest, w->rest, &help, &version, err);
	if (!rc && version)
		rc = err_set(err, -EINVAL, "restore: --version stands alone: vmm --version");
	if (!rc)
		rc = check_same(c, &saved, err);
	if (!rc)
		rc = check_kernel(c, &saved, err);
	if (!rc)
		rc = snapshot_check_files(s, c, err);
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

/* ready: told once it runs; -1: nobody. */
static int run_one(struct words *w, int ready)
{
	struct snapshot *s = NULL;
	struct err err = { 0 };
	struct config c;
	int status;

	config_init(&c);
	if (!snapshot_open_directory(&s, w->dir, &err) && !configure(s, w, &c, &err) &&
	    !jail_enter(&c, &err) && !logfile_start(&c, &err) &&
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
		status = exit_status_of(err.code);
	}
	logfile_end(&err);
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
		     "  --vsock uds=PATH       another socket than the saved VM's\n"
		     "  --serial, --net, --disk, --pidfile, --api-sock, --log-level ... as of 'vmm run'\n"
		     "  --help                 also -h");
		return EXIT_OK;
	}
	return run_one(&w, -1);
}

/* --- clones ------------------------------------------------------------------------------------- */

/* In the place of each %. */
static char *put_number(const char *word, unsigned n)
{
	size_t len;
	char *text = NULL;
	FILE *f = open_memstream(&text, &len);

	for (; f && *word; word++)
		if (*word == '%')
			fprintf(f, "%u", n);
		else
			fputc(*word, f);
	if (!f || fclose(f))
		return NULL;
	return text;
}

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
		char *text = i < nr_own ? strdup(word) : put_number(word, n);

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

/* Of a list of them, like hostfwd=. */
static bool lacks_number(const char *list, const char *key)
{
	for (const char *at = list; (at = strstr(at, key)); at++) {
		size_t len = strcspn(at, ",");
		const char *number = strchr(at, '%');

		if (!number || number >= at + len)
			return true;
	}
	return false;
}

/* What each copy would have to itself, named without its number. */
static bool is_shared(const char *option, const char *value)
{
	static const char *const names[] = { "--pidfile", "--api-sock", "--gdb" };

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(option, names[i]))
			return !strchr(value, '%');
	if (!strcmp(option, "--serial"))
		return lacks_number(value, "file:") || lacks_number(value, "unix:");
	return !strcmp(option, "--net") && (lacks_number(value, "hostfwd=") || lacks_number(value, "dump="));
}

static int check_shared(const struct words *w)
{
	for (int i = 0; i < w->nr_rest; i++) {
		const char *word = w->rest[i], *eq = strchr(word, '=');
		char option[32];
		const char *value = eq ? eq + 1 : takes_value(word) && i + 1 < w->nr_rest ? w->rest[i + 1] : NULL;

		snprintf(option, sizeof(option), "%.*s", eq ? (int)(eq - word) : (int)strlen(word), word);
		if (!value || !is_shared(option, value))
			continue;
		log_err("clone: %s %s would be that of every copy; write a %% where its number is to be", option, value);
		return EXIT_USAGE;
	}
	return EXIT_OK;
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
		     "  --net tap=T%           T1, T2, ...: in any option a % is the copy's number\n"
		     "  --vsock uds=PATH%      likewise; a VM with sockets needs it, each copy has its own\n"
		     "  --serial, --log-level ... as of 'vmm run'; the console is a pty by default\n"
		     "  --help                 also -h\n\n"
		     "They share the memory that none of them wrote to. 'vmm ps' lists them.");
		return EXIT_OK;
	}
	slash = strrchr(w.dir, '/');
	prefix = w.name ?: slash ? slash + 1 : w.dir;
	if (w.nr > 1)
		status = check_shared(&w);
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
