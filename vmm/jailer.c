/* jailer.c: 'vmm jailer': the command line of Firecracker's jailer, version 1.17, around 'vmm firecracker'. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "vmm/api/api.h"
#include "vmm/cgroup.h"
#include "vmm/commands.h"
#include "vmm/core/log.h"
#include "vmm/jail.h"
#include "vmm/version.h"

#define DEFAULT_BASE	"/srv/jailer"

enum { MAX_LIST = 32, DEFAULT_FILES = 2048 };

enum option_id {
	ID, EXEC_FILE, UID, GID, BASE, NETNS, DAEMONIZE, NEW_PID_NS, CGROUP, CGROUP_VERSION, PARENT_CGROUP,
	RESOURCE_LIMIT, VERSION, HELP, NR_OPTIONS
};

static const struct {
	const char *name, *metavar;	/* NULL: a switch */
	const char *help;
} known[NR_OPTIONS] = {
	[ID] = { "id", "ID", "the VM's id, letters, digits and '-'" },
	[EXEC_FILE] = { "exec-file", "FILE", "its name is part of the jail's path; vmm itself is what runs" },
	[UID] = { "uid", "N", "the user that it becomes" },
	[GID] = { "gid", "N", "the group that it becomes" },
	[BASE] = { "chroot-base-dir", "DIR", "the jail is DIR/NAME/ID/root (default " DEFAULT_BASE ")" },
	[NETNS] = { "netns", "PATH", "be in this network namespace" },
	[DAEMONIZE] = { "daemonize", NULL, "in the background, in a session of its own" },
	[NEW_PID_NS] = { "new-pid-ns", NULL, "in a new PID namespace" },
	[CGROUP] = { "cgroup", "FILE=VALUE", "of the VM's control group; repeatable" },
	[CGROUP_VERSION] = { "cgroup-version", "N", "1 (default) or 2" },
	[PARENT_CGROUP] = { "parent-cgroup", "PATH", "below this group (default NAME)" },
	[RESOURCE_LIMIT] = { "resource-limit", "NAME=N", "no-file (default 2048) or fsize; repeatable" },
	[VERSION] = { "version", NULL, "which version of Firecracker's jailer this is" },
	[HELP] = { "help", NULL, "also -h" },
};

struct arguments {
	const char *value[NR_OPTIONS];	/* "" of a switch; NULL: not given; of a list the last */
	const char *cgroup[MAX_LIST], *limit[MAX_LIST];
	unsigned nr_cgroups, nr_limits;
	char **rest;			/* behind "--" */
	int nr_rest;
	const char *name;		/* of the executable file */
	u32 uid, gid;
	unsigned cgroup_version;
	struct rlimit files, size;
};

/* --- the command line ------------------------------------------------------------------------- */

static int find(const char *arg, size_t len, struct err *err)
{
	const char *names[NR_OPTIONS], *near;

	for (unsigned id = 0; id < NR_OPTIONS; id++) {
		names[id] = known[id].name;
		if (len == strlen(names[id]) + 2 && !strncmp(arg, "--", 2) && !strncmp(arg + 2, names[id], len - 2))
			return id;
	}
	if (!strcmp(arg, "-h"))
		return HELP;
	near = config_nearest(arg + strspn(arg, "-"), names, NR_OPTIONS);
	return near ? err_set(err, -EINVAL, "unknown option '%s'; did you mean '--%s'?", arg, near) :
		      err_set(err, -EINVAL, "unknown option '%s'; 'vmm jailer --help' lists all", arg);
}

static int take(struct arguments *a, int id, const char *value, struct err *err)
{
	const char **list = id == CGROUP ? a->cgroup : id == RESOURCE_LIMIT ? a->limit : NULL;
	unsigned *nr = id == CGROUP ? &a->nr_cgroups : &a->nr_limits;

	if (!list && a->value[id])
		return err_set(err, -EINVAL, "--%s stands twice", known[id].name);
	if (list && *nr == MAX_LIST)
		return err_set(err, -EINVAL, "--%s: more than %d", known[id].name, MAX_LIST);
	if (list)
		list[(*nr)++] = value;
	a->value[id] = value;
	return 0;
}

static int parse(struct arguments *a, int argc, char **argv, struct err *err)
{
	for (int i = 0; i < argc; i++) {
		size_t len = strcspn(argv[i], "=");
		const char *value = argv[i][len] ? argv[i] + len + 1 : NULL;
		int id, rc;

		if (!strcmp(argv[i], "--")) {
			a->rest = argv + i + 1;
			a->nr_rest = argc - i - 1;
			break;
		}
		id = find(argv[i], len, err);
		if (id < 0)
			return id;
		if (!known[id].metavar && value)
			return err_set(err, -EINVAL, "--%s takes no value: '%s'", known[id].name, argv[i]);
		if (known[id].metavar && !value) {
			if (i + 1 == argc)
				return err_set(err, -EINVAL, "%s needs a value: %s %s", argv[i], argv[i],
					       known[id].metavar);
			value = argv[++i];
		}
		rc = take(a, id, value ?: "", err);
		if (rc)
			return rc;
	}
	return 0;
}

static int number(const struct arguments *a, int id, u32 *n, struct err *err)
{
	unsigned long long value;
	char *end;

	errno = 0;
	value = strtoull(a->value[id], &end, 10);
	*n = value;
	if (!isdigit((unsigned char)*a->value[id]) || *end || errno || value >= UINT32_MAX)
		return err_set(err, -EINVAL, "--%s: '%s' is not a number from 0 to %u", known[id].name, a->value[id],
			       UINT32_MAX - 1);
	return 0;
}

static int read_limits(struct arguments *a, struct err *err)
{
	a->files = (struct rlimit){ DEFAULT_FILES, DEFAULT_FILES };
	a->size = (struct rlimit){ RLIM_INFINITY, RLIM_INFINITY };
	for (unsigned i = 0; i < a->nr_limits; i++) {
		const char *eq = strchr(a->limit[i], '=');
		struct rlimit *l = !strncmp(a->limit[i], "no-file=", 8) ? &a->files :
				   !strncmp(a->limit[i], "fsize=", 6) ? &a->size : NULL;
		char *end = NULL;

		errno = 0;
		if (l)
			l->rlim_cur = l->rlim_max = strtoull(eq + 1, &end, 10);
		if (!l || !isdigit((unsigned char)eq[1]) || *end || errno)
			return err_set(err, -EINVAL, "--resource-limit: '%s' is neither no-file=N nor fsize=N",
				       a->limit[i]);
	}
	return 0;
}

static int check(struct arguments *a, struct err *err)
{
	static const int needed[] = { ID, EXEC_FILE, UID, GID };
	const char *slash, *id;
	struct stat st;

	for (unsigned i = 0; i < ARRAY_SIZE(needed); i++)
		if (!a->value[needed[i]])
			return err_set(err, -EINVAL, "--%s is missing", known[needed[i]].name);
	id = a->value[ID];
	if (!*id || strlen(id) > 64)
		return err_set(err, -EINVAL, "--id: '%s' does not have 1 to 64 characters", id);
	for (const char *s = id; *s; s++)
		if (!isalnum((unsigned char)*s) && *s != '-')
			return err_set(err, -EINVAL, "--id: '%s' has other characters than letters, digits and "
				       "'-'", id);
	if (!strncmp(id, "--", 2))
		return err_set(err, -EINVAL, "--id: '%s' would be an option", id);
	if (stat(a->value[EXEC_FILE], &st) || !S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "--exec-file: %s is not a file", a->value[EXEC_FILE]);
	slash = strrchr(a->value[EXEC_FILE], '/');
	a->name = slash ? slash + 1 : a->value[EXEC_FILE];
	if (number(a, UID, &a->uid, err) || number(a, GID, &a->gid, err))
		return err->code;
	if (a->value[NETNS] && !*a->value[NETNS])
		return err_set(err, -EINVAL, "--netns is empty; leave it out to stay in this network");
	if (a->value[BASE] && !*a->value[BASE])
		return err_set(err, -EINVAL, "--chroot-base-dir is empty: that would be /");
	a->cgroup_version = 1;
	if (a->value[CGROUP_VERSION] && (number(a, CGROUP_VERSION, &a->cgroup_version, err) ||
					 a->cgroup_version < 1 || a->cgroup_version > 2))
		return err_set(err, -EINVAL, "--cgroup-version is 1 or 2, not '%s'", a->value[CGROUP_VERSION]);
	if (read_limits(a, err))
		return err->code;
	for (unsigned i = 0; i < a->nr_cgroups; i++)
		if (cgroup_check_setting(a->cgroup[i], err))
			return err->code;
	return a->value[PARENT_CGROUP] ? cgroup_check(a->value[PARENT_CGROUP], err) : 0;
}

/* --- what it does ------------------------------------------------------------------------------- */

static int set_limits(const struct arguments *a, struct err *err)
{
	if (!setrlimit(RLIMIT_NOFILE, &a->files)) {
		if (a->size.rlim_cur == RLIM_INFINITY || !setrlimit(RLIMIT_FSIZE, &a->size))
			return 0;
	} else if (errno == EPERM) {
		return err_set(err, -EINVAL, "--resource-limit no-file=%llu: more than this host allows (fs.nr_open), or "
			       "than who is not root may have", (unsigned long long)a->files.rlim_cur);
	}
	return err_set(err, -errno, "--resource-limit: %s", strerror(errno));
}

/* All but the last are root's: nobody else can put a link there. */
static int make_jail(const struct arguments *a, char path[PATH_MAX], struct err *err)
{
	const char *base = a->value[BASE] ?: DEFAULT_BASE;
	size_t base_len = strlen(base);
	struct stat st;

	if (snprintf(path, PATH_MAX, "%s/%s/%s/root", base, a->name, a->value[ID]) >= PATH_MAX)
		return err_set(err, -ENAMETOOLONG, "--chroot-base-dir %s: too long", base);
	for (char *s = path + 1; ; s++) {
		bool is_end = !*s;

		if (*s != '/' && !is_end)
			continue;
		*s = 0;
		if (mkdir(path, is_end ? 0700 : 0755) && errno != EEXIST)
			return err_set(err, -errno, "%s: %s", path, strerror(errno));
		if (is_end)
			break;
		/* Else somebody could put a link there, or has. */
		if ((size_t)(s - path) > base_len && !is_own_directory(path))
			return err_set(err, -EEXIST, "%s: must be a directory that only its owner, this user, can "
				       "write to", path);
		*s = '/';
	}
	return lstat(path, &st) || !S_ISDIR(st.st_mode) ? err_set(err, -ENOTDIR, "%s: not a directory", path) : 0;
}

/*
 * Until the VM ends, whichever process that is by then: by a file beside the jail, where who is in there does not come.
 * A descriptor of a directory would be a way out.
 */
static int lock_jail(const struct arguments *a, const char *jail, struct err *err)
{
	static int fd;
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%.*slock", (int)(strlen(jail) - strlen("root")), jail);
	fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (!flock(fd, LOCK_EX | LOCK_NB))
		return 0;
	return errno == EWOULDBLOCK ?
		err_set(err, -EBUSY, "--id %s: a VM is in %s already", a->value[ID], jail) :
		err_set(err, -errno, "%s: %s", path, strerror(errno));
}

/* It may have been another VM's before, or whoever made it let others in. */
static int own_jail(const struct arguments *a, const char *jail, struct err *err)
{
	int fd = open(jail, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), rc = 0;

	if (fd < 0 || fchown(fd, a->uid, a->gid) || fchmod(fd, 0700))
		rc = err_set(err, -errno, "%s: %s", jail, strerror(errno));
	if (fd >= 0)
		close(fd);
	return rc;
}

static void drop_pid(const struct arguments *a)
{
	char path[1 + NAME_MAX + sizeof(".pid")];

	snprintf(path, sizeof(path), "/%s.pid", a->name);
	unlink(path);
}

/* Who lives on in the jail, which is all there is by now. */
static int write_pid(const struct arguments *a, const char *jail, pid_t pid, struct err *err)
{
	int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd = -1, rc = 0;
	char name[NAME_MAX + sizeof(".pid")];

	snprintf(name, sizeof(name), "%s.pid", a->name);
	if (root >= 0)
		fd = openat(root, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0 || dprintf(fd, "%d", (int)pid) < 0)
		rc = err_set(err, -errno, "%s/%s: %s", jail, name, strerror(errno));
	if (fd >= 0)
		close(fd);
	if (root >= 0)
		close(root);
	if (fd >= 0 && rc)
		drop_pid(a);	/* a part of it is another's */
	return rc;
}

/* The parent, of which there is nothing more to come, writes who lives on: once that is told it that he does. */
static int new_pid_namespace(const struct arguments *a, const char *jail, int *tell, struct err *err)
{
	bool leads = getsid(0) == getpid();
	int ready[2];
	ssize_t n;
	pid_t pid;

	if (pipe2(ready, O_CLOEXEC) || unshare(CLONE_NEWPID) || (pid = fork()) < 0)
		return err_set(err, -errno, "--new-pid-ns: %s", strerror(errno));
	if (!pid) {
		/* The end of a terminal's first process is a SIGHUP to all others of its session. */
		if (leads)
			setsid();
		close(ready[0]);
		*tell = ready[1];
		return 0;
	}
	close(ready[1]);
	while ((n = read(ready[0], &(char){ 0 }, 1)) < 0 && errno == EINTR)
		continue;
	if (n <= 0)
		_exit(EXIT_RUNTIME);	/* it said why */
	if (write_pid(a, jail, pid, err)) {
		log_err("--new-pid-ns: %s", err->msg);
		kill(pid, SIGKILL);
		_exit(EXIT_RUNTIME);
	}
	_exit(EXIT_OK);
}

static int daemonize(int null, struct err *err)
{
	pid_t pid = null < 0 ? null : fork();

	if (pid < 0)
		return err_set(err, null < 0 ? null : -errno, "--daemonize: %s", strerror(null < 0 ? -null : errno));
	if (pid)
		_exit(EXIT_OK);
	setsid();
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		dup2(null, fd);
	return 0;
}

/* With nothing to set there, the group is one that somebody made for VMs, as it is. */
static int enter_cgroup(const struct arguments *a, struct err *err)
{
	const char *parent = a->value[PARENT_CGROUP] ?: a->name;
	char group[PATH_MAX];

	if (!a->nr_cgroups)
		return a->cgroup_version == 2 ? cgroup_join(parent, err) : 0;
	if (snprintf(group, sizeof(group), "%s/%s", parent, a->value[ID]) >= PATH_MAX)
		return err_set(err, -ENAMETOOLONG, "--parent-cgroup %s: too long", parent);
	return cgroup_enter(a->cgroup_version, group, a->cgroup, a->nr_cgroups, err);
}

static int enter(const struct arguments *a, struct err *err)
{
	struct config net = { .netns = (char *)(uintptr_t)a->value[NETNS] };
	char jail[PATH_MAX];
	struct config c = { .uid = a->uid, .gid = a->gid, .has_gid = true, .chroot = jail,
			    .api_sock = (char *)(uintptr_t)"" };
	int rc = jail_enter(&net, err), null, tell = -1;

	if (rc)
		return rc;
	rc = set_limits(a, err);
	if (!rc)
		rc = make_jail(a, jail, err);
	if (!rc)
		rc = lock_jail(a, jail, err);
	if (!rc)
		rc = own_jail(a, jail, err);
	if (!rc)
		rc = enter_cgroup(a, err);
	if (rc)
		return jail_refused(rc, err);
	/* What fails is said as long as somebody hears it, and who becomes the user can write no process id any more. */
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0)
		null = -errno;
	rc = jail_enter(&c, err);
	if (rc)
		return rc;
	drop_pid(a);			/* of the VM before */
	if (a->value[DAEMONIZE])
		rc = daemonize(null, err);
	if (null >= 0)
		close(null);
	if (!rc)
		rc = a->value[NEW_PID_NS] ? new_pid_namespace(a, jail, &tell, err) : write_pid(a, jail, getpid(), err);
	if (!rc) {
		rc = jail_become(&c, err);
		if (rc && tell < 0)
			drop_pid(a);
		if (!rc && tell >= 0 && write(tell, "", 1) != 1)
			rc = err_set(err, -EIO, "--new-pid-ns: the first process is gone");
	}
	if (tell >= 0)
		close(tell);
	return jail_refused(rc, err);
}

static u64 clock_us(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000ULL + t.tv_nsec / 1000;
}

/* As Firecracker's jailer passes it: when, and how much was spent before. */
static int run(const struct arguments *a, u64 started_us)
{
	char start[24], start_cpu[24], spent[24];
	char *own[] = {
		(char *)(uintptr_t)"--id", (char *)(uintptr_t)a->value[ID],
		(char *)(uintptr_t)"--start-time-us", start, (char *)(uintptr_t)"--start-time-cpu-us", start_cpu,
		(char *)(uintptr_t)"--parent-cpu-time-us", spent,
	};
	char **argv = calloc(ARRAY_SIZE(own) + a->nr_rest + 1, sizeof(*argv));
	int status;

	if (!argv)
		return EXIT_RUNTIME;
	snprintf(start, sizeof(start), "%llu", (unsigned long long)started_us);
	snprintf(start_cpu, sizeof(start_cpu), "%llu", (unsigned long long)clock_us(CLOCK_PROCESS_CPUTIME_ID));
	snprintf(spent, sizeof(spent), "0");
	memcpy(argv, own, sizeof(own));
	memcpy(argv + ARRAY_SIZE(own), a->rest, a->nr_rest * sizeof(*argv));
	status = command_firecracker(ARRAY_SIZE(own) + a->nr_rest, argv);
	free(argv);
	return status;
}

static void print_help(void)
{
	char left[64];

	puts("vmm jailer takes the options of Firecracker's jailer, and runs 'vmm firecracker' in the jail.\n\n"
	     "usage: vmm jailer --id ID --exec-file FILE --uid N --gid N [options] [-- ARGS]\n"
	     "       (also: run by the name of 'jailer')\n\noptions:");
	for (unsigned i = 0; i < NR_OPTIONS; i++) {
		snprintf(left, sizeof(left), "--%s%s%s", known[i].name, known[i].metavar ? " " : "",
			 known[i].metavar ?: "");
		printf("  %-29s %s\n", left, known[i].help);
	}
	puts("\nARGS are those of 'vmm firecracker', whose paths are in the jail; there NAME.pid has the\n"
	     "process id. See vmm(1).");
}

int command_jailer(int argc, char **argv)
{
	u64 started_us = clock_us(CLOCK_MONOTONIC);
	struct arguments a = { 0 };
	struct err err = { 0 };

	/* Of whoever started us, nothing but the standard files is for a jail. */
	closefrom(STDERR_FILENO + 1);
	jail_forget_environment();
	if (!parse(&a, argc, argv, &err) && a.value[HELP]) {
		print_help();
		return EXIT_OK;
	}
	if (!err.code && a.value[VERSION]) {
		puts("Jailer v" API_VERSION "\n\nby vmm " VMM_VERSION);
		return EXIT_OK;
	}
	if (!err.code && !check(&a, &err)) {
		if (!a.uid)
			log_warn("jailer: --uid 0: root, until its VM starts, is not held by a jail");
		if (!enter(&a, &err))
			return run(&a, started_us);
	}
	log_err("jailer: %s", err.msg);
	return exit_status_of(err.code);
}
