/* cgroup.c: control groups, by files. */
#include "vmm/cgroup.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mntent.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "vmm/cleaner.h"

enum { CONTROLLER_MAX = 64 };

/* Where a hierarchy is; of version 1 that of a controller. */
static int find_mount(unsigned version, const char *controller, char path[PATH_MAX], struct err *err)
{
	FILE *f = setmntent("/proc/self/mounts", "re");
	bool found = false;
	struct mntent *m;

	while (f && !found && (m = getmntent(f))) {
		found = version == 2 ? !strcmp(m->mnt_type, "cgroup2") :
				       !strcmp(m->mnt_type, "cgroup") && hasmntopt(m, controller);
		if (found)
			snprintf(path, PATH_MAX, "%s", m->mnt_dir);
	}
	if (f)
		endmntent(f);
	return found ? 0 : err_set(err, -ENOENT, "cgroup: no hierarchy of version %u%s%s is mounted", version,
				   version == 2 ? "" : " with ", version == 2 ? "" : controller);
}

static int write_file(const char *dir, const char *name, const char *value, struct err *err)
{
	char path[PATH_MAX];
	int fd, rc = 0;

	if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path))
		return err_set(err, -ENAMETOOLONG, "cgroup: %s", name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		rc = err_set(err, -errno, "cgroup: %s: cannot write '%s': %s", path, value, strerror(errno));
	if (fd >= 0)
		close(fd);
	return rc;
}

/* Without the end of its line; 0: nothing is in there. */
static ssize_t read_file(const char *dir, const char *name, char *value, size_t room)
{
	char path[PATH_MAX];
	ssize_t n = -1;
	int fd = -1;

	if (snprintf(path, sizeof(path), "%s/%s", dir, name) < (int)sizeof(path))
		fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, value, room - 1);
		close(fd);
	}
	n = MAX(n, 0);
	while (n && value[n - 1] == '\n')
		n--;
	value[n] = 0;
	return n;
}

/* A new group's processors and memory nodes are none, until its parent's are copied. */
static int inherit_cpuset(const char *path, struct err *err)
{
	static const char *const file[] = { "cpuset.cpus", "cpuset.mems" };
	char parent[PATH_MAX], value[4096];
	int rc = 0;

	snprintf(parent, sizeof(parent), "%.*s", (int)(strrchr(path, '/') - path), path);
	for (unsigned i = 0; i < ARRAY_SIZE(file) && !rc; i++)
		if (!read_file(path, file[i], value, sizeof(value)) &&
		    read_file(parent, file[i], value, sizeof(value)))
			rc = write_file(path, file[i], value, err);
	return rc;
}

/* Each part in turn: in version 2 what a group may have is its parent's to say. */
static int make_group(char path[PATH_MAX], const char *group, unsigned version, const char *controller,
		      struct err *err)
{
	char enable[NAME_MAX];

	snprintf(enable, sizeof(enable), "+%s", controller);
	while (*group) {
		size_t len = strcspn(group, "/"), at = strlen(path);

		if (at + len + 2 > PATH_MAX)
			return err_set(err, -ENAMETOOLONG, "cgroup: %s: too long", group);
		if (version == 2 && *controller && write_file(path, "cgroup.subtree_control", enable, err))
			return err->code == -ENOENT || err->code == -EINVAL ?
				err_set(err, err->code, "cgroup: %s has no controller '%s'; 'vmm check' says "
					"what to do", path, controller) : err->code;
		snprintf(path + at, PATH_MAX - at, "/%.*s", (int)len, group);
		if (mkdir(path, 0755) && errno != EEXIST)
			return err_set(err, -errno, "cgroup: %s: %s", path, strerror(errno));
		if (version == 1 && !strcmp(controller, "cpuset") && inherit_cpuset(path, err))
			return err->code;
		group += len;
		group += strspn(group, "/");
	}
	return 0;
}

int cgroup_check_setting(const char *setting, struct err *err)
{
	const char *eq = strchr(setting, '=');

	if (eq && strcspn(setting, ".=") && eq[1] && eq - setting < CONTROLLER_MAX &&
	    memchr(setting, '.', eq - setting) && !strchr(setting, '/') && !strstr(setting, ".."))
		return 0;
	return err_set(err, -EINVAL, "cgroup: '%s' is not FILE=VALUE, like cpu.weight=50", setting);
}

static int apply(unsigned version, const char *group, const char *setting, struct err *err)
{
	char path[PATH_MAX], file[NAME_MAX], controller[CONTROLLER_MAX];
	const char *eq = strchr(setting, '=');
	int rc = cgroup_check_setting(setting, err);

	if (rc)
		return rc;
	snprintf(file, sizeof(file), "%.*s", (int)(eq - setting), setting);
	snprintf(controller, sizeof(controller), "%.*s", (int)strcspn(file, "."), file);
	rc = find_mount(version, controller, path, err);
	if (!rc)
		rc = make_group(path, group, version, controller, err);
	if (!rc)
		rc = write_file(path, file, eq + 1, err);
	return rc ? rc : write_file(path, "cgroup.procs", "0", err);
}

int cgroup_check(const char *group, struct err *err)
{
	bool below = *group && *group != '/';

	for (const char *part = group; *part && below; part += strspn(part, "/")) {
		size_t len = strcspn(part, "/");

		below = strncmp(part, "..", MAX(len, 2)) && strncmp(part, ".", MAX(len, 1));
		part += len;
	}
	return below ? 0 : err_set(err, -EINVAL, "cgroup: '%s' is not a path below the hierarchy", group);
}

int cgroup_join(const char *group, struct err *err)
{
	char path[PATH_MAX];
	int rc = cgroup_check(group, err);
	size_t len;

	if (!rc)
		rc = find_mount(2, "", path, err);
	if (rc)
		return rc;
	len = strlen(path);
	if (snprintf(path + len, PATH_MAX - len, "/%s", group) >= (int)(PATH_MAX - len))
		return err_set(err, -ENAMETOOLONG, "cgroup: %s: too long", group);
	return access(path, F_OK) ? 0 : write_file(path, "cgroup.procs", "0", err);
}

int cgroup_enter(unsigned version, const char *group, const char *const *setting, unsigned nr,
		 struct err *err)
{
	char path[PATH_MAX];
	int rc = cgroup_check(group, err);

	if (rc)
		return rc;
	for (unsigned i = 0; i < nr && !rc; i++)
		rc = apply(version, group, setting[i], err);
	if (nr || version != 2)
		return rc;
	/* Nothing to set: the group is there to be counted by, if it is. */
	rc = find_mount(2, "", path, err);
	if (!rc)
		rc = make_group(path, group, 2, "", err);
	return rc ? rc : write_file(path, "cgroup.procs", "0", err);
}

/* --- the limits of one VM --------------------------------------------------------------------- */

/* In a process outside of the group, which tells by a file that the last has left it. */
static void remove_group(void *arg)
{
	char path[PATH_MAX], text[256];
	struct pollfd left = { .events = POLLPRI };
	bool is_empty = false;

	snprintf(path, sizeof(path), "%s/cgroup.events", (const char *)arg);
	left.fd = open(path, O_RDONLY | O_CLOEXEC);
	while (left.fd >= 0 && rmdir(arg) && errno == EBUSY) {
		ssize_t n = pread(left.fd, text, sizeof(text) - 1, 0);

		text[MAX(n, 0)] = 0;
		if (strstr(text, "populated 1"))
			poll(&left, 1, -1);
		else if (is_empty)
			break;		/* others have made groups in it, and are to remove them */
		is_empty = !strstr(text, "populated 1");
	}
}

int cgroup_limit(const struct config *c, struct err *err)
{
	static struct cleaner cleaner = { .fd = -1 };
	static char path[PATH_MAX];
	char cpu[64], mem[64], own[32];
	const char *setting[2], *group = c->cgroup ?: own;
	unsigned nr = 0;
	size_t len;
	int rc;

	if (!c->cgroup && !c->cpu_quota && !c->mem_limit)
		return 0;
	snprintf(own, sizeof(own), "vmm/%d", getpid());
	snprintf(cpu, sizeof(cpu), "cpu.max=%u 100000", c->cpu_quota * 1000);
	snprintf(mem, sizeof(mem), "memory.max=%llu", (unsigned long long)c->mem_limit);
	if (c->cpu_quota)
		setting[nr++] = cpu;
	if (c->mem_limit)
		setting[nr++] = mem;
	/* What is refused is not to be cleaned up. */
	rc = cgroup_check(group, err);
	if (!rc)
		rc = find_mount(2, "", path, err);
	len = strlen(path);
	if (!rc && snprintf(path + len, sizeof(path) - len, "/%s", group) >= (int)(sizeof(path) - len))
		rc = err_set(err, -ENAMETOOLONG, "cgroup: %s: too long", group);
	/* Before this process is in the group, and not in what comes of it. */
	if (!rc)
		rc = cleaner_start(&cleaner, "vmm-cgroup", remove_group, path, err);
	if (!rc)
		rc = cgroup_enter(2, group, setting, nr, err);
	return rc == -EACCES || rc == -EPERM ?
		err_suffix(err, "; be root, or give a group in the part that is yours by --cgroup") : rc;
}

bool cgroup_usable(char *why, size_t room)
{
	char path[PATH_MAX], file[PATH_MAX + 32], word[256] = "";
	bool cpu = false, memory = false;
	struct err err;
	FILE *f;

	if (find_mount(2, "", path, &err)) {
		snprintf(why, room, "no hierarchy of version 2 is mounted");
		return false;
	}
	snprintf(file, sizeof(file), "%s/cgroup.controllers", path);
	f = fopen(file, "re");
	while (f && fscanf(f, "%255s", word) == 1) {
		cpu |= !strcmp(word, "cpu");
		memory |= !strcmp(word, "memory");
	}
	if (f)
		fclose(f);
	snprintf(file, sizeof(file), "%s/cgroup.procs", path);
	if (!cpu || !memory) {
		snprintf(why, room, "%s has no controller for %s", path,
			 cpu ? "memory" : memory ? "processors" : "processors and none for memory");
		return false;
	}
	if (access(file, W_OK)) {
		snprintf(why, room, "%s: %s", file, strerror(errno));
		return false;
	}
	snprintf(why, room, "version 2 at %s, for --cpu-quota and --mem-limit", path);
	return true;
}
