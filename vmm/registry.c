/* registry.c: the VMs that run under a name, a directory each. */
#include "vmm/registry.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include "vmm/pidfile.h"
#include "vmm/runtime.h"

/* False: there is no place for one. */
static bool base_dir(char dir[PATH_MAX])
{
	return runtime_dir(dir, PATH_MAX - NAME_MAX - 16, "vm");
}

/* The last is ours alone: who may open it could lock it, and so keep all others waiting. */
static int make_dirs(char *path)
{
	struct stat st;

	for (char *s = path; (s = strchr(s + 1, '/')); ) {
		*s = 0;
		if (mkdir(path, 0755) && errno != EEXIST)
			return -errno;
		*s = '/';
	}
	if (mkdir(path, 0700) && errno != EEXIST)
		return -errno;
	/* It may have been there before, of another's making. */
	if (lstat(path, &st) || !S_ISDIR(st.st_mode) || st.st_uid != geteuid())
		return -EPERM;
	return chmod(path, 0700) ? -errno : 0;
}

/* Entering, leaving and cleaning are one at a time: what is held is the directory, for no longer than that takes. */
static int lock_dir(const char *dir)
{
	enum { LOCK_MS = 5, LONGEST_MS = 10000 };
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	for (int ms = 0; flock(fd, LOCK_EX | LOCK_NB); ms += LOCK_MS) {
		int rc = errno == EWOULDBLOCK || errno == EINTR ? 0 : -errno;

		if (rc || ms >= LONGEST_MS) {
			close(fd);
			return rc ?: -EBUSY;
		}
		poll(NULL, 0, LOCK_MS);
	}
	return fd;
}

static void join(char to[PATH_MAX], const char *dir, const char *name)
{
	if (snprintf(to, PATH_MAX, "%s/%s", dir, name) >= PATH_MAX)
		*to = 0;
}

/* Under the lock. */
static void remove_entry(const char *dir)
{
	static const char *const files[] = { "api.sock", "pid" };
	char path[PATH_MAX];

	for (unsigned i = 0; i < ARRAY_SIZE(files); i++) {
		join(path, dir, files[i]);
		unlink(path);
	}
	rmdir(dir);
}

int registry_enter(struct registry *r, const char *name, struct err *err)
{
	char base[PATH_MAX], pid[PATH_MAX], socket[PATH_MAX], who[32];
	int lock, rc;
	pid_t owner;

	r->fd = -1;
	if (!base_dir(base))
		return err_set(err, -ENOENT, "name: no directory for it: XDG_RUNTIME_DIR, or VMM_RUNTIME_DIR, must "
			       "be set to a whole path");
	rc = make_dirs(base);
	lock = rc ? rc : lock_dir(base);
	if (lock < 0)
		return err_set(err, lock, "name: %s: %s", base, strerror(-lock));
	join(r->dir, base, name);
	join(pid, r->dir, "pid");
	rc = mkdir(r->dir, 0700) && errno != EEXIST ?
		err_set(err, -errno, "name: %s: %s", r->dir, strerror(errno)) :
		pidfile_open(pid, &r->fd, err);
	if (rc == -EBUSY) {
		owner = pidfile_owner(pid);
		err_set(err, rc, "name: a VM that is called '%s' runs already", name);
		snprintf(who, sizeof(who), ", as process %d", (int)owner);
		if (owner > 0)
			err_suffix(err, who);
	} else if (rc)
		rmdir(r->dir);
	registry_socket(r, socket);
	if (!rc)
		unlink(socket);		/* of one that was killed; it may be a link */
	close(lock);
	return rc;
}

void registry_leave(struct registry *r)
{
	char base[PATH_MAX];
	int lock;

	if (r->fd < 0)
		return;
	lock = base_dir(base) ? lock_dir(base) : -1;
	remove_entry(r->dir);
	close(r->fd);
	r->fd = -1;
	if (lock >= 0)
		close(lock);
}

void registry_socket(const struct registry *r, char path[PATH_MAX])
{
	join(path, r->dir, "api.sock");
}

void registry_link_socket(const struct registry *r, const char *path)
{
	char link[PATH_MAX], whole[PATH_MAX];

	registry_socket(r, link);
	if (realpath(path, whole) && symlink(whole, link))
		unlink(link);
}

/* --- looking ---------------------------------------------------------------------------------- */

/* 0: it does not run, and what was left of it is gone; negative: an error, and it may. */
static pid_t look(const char *base, const char *name, struct registered *one)
{
	char dir[PATH_MAX], pid[PATH_MAX];

	*one = (struct registered){ 0 };
	snprintf(one->name, sizeof(one->name), "%s", name);
	join(dir, base, name);
	join(pid, dir, "pid");
	join(one->socket, dir, "api.sock");
	one->pid = pidfile_owner(pid);
	if (!one->pid)
		remove_entry(dir);
	return one->pid;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct registered *)a)->name, ((const struct registered *)b)->name);
}

static int read_all(DIR *d, const char *base, struct registered **list, unsigned *nr)
{
	struct dirent *e;

	while ((e = readdir(d))) {
		struct registered *more;
		pid_t pid;

		if (e->d_name[0] == '.')
			continue;
		more = reallocarray(*list, *nr + 1, sizeof(**list));
		if (!more)
			return -ENOMEM;
		*list = more;
		pid = look(base, e->d_name, &more[*nr]);
		if (err_of_host(pid))
			return pid;
		if (pid > 0)
			(*nr)++;
	}
	qsort(*list, *nr, sizeof(**list), by_name);
	return 0;
}

int registry_list(struct registered **list, unsigned *nr, struct err *err)
{
	char base[PATH_MAX];
	int lock, rc;
	DIR *d;

	*list = NULL;
	*nr = 0;
	lock = base_dir(base) ? lock_dir(base) : -ENOENT;
	if (lock == -ENOENT)
		return 0;	/* nobody was ever entered */
	if (lock < 0)
		return err_set(err, lock, "%s: %s", base, strerror(-lock));
	d = opendir(base);
	rc = d ? read_all(d, base, list, nr) : -errno;
	if (d)
		closedir(d);
	close(lock);
	return rc ? err_set(err, rc, "%s: %s", base, strerror(-rc)) : 0;
}

int registry_find(struct registered *one, const char *name, struct err *err)
{
	struct registered *list;
	unsigned nr;
	int rc = registry_list(&list, &nr, err);
	bool found = false;

	for (unsigned i = 0; i < nr && !found; i++) {
		found = !strcmp(list[i].name, name);
		if (found)
			*one = list[i];
	}
	free(list);
	return rc ? rc : found ? 0 :
		err_set(err, -ENOENT, "no VM that is called '%s' runs; 'vmm ps' lists those that do",
			name);
}
