/* jail.c: setns(2), pivot_root(2), setresuid(2), and what a VM needs where there is nothing. */
#include "vmm/jail.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "vmm/cgroup.h"

static gid_t group_of(const struct config *c)
{
	return c->has_gid ? c->gid : c->uid;
}

static int enter_netns(const char *name, struct err *err)
{
	char path[PATH_MAX];
	int fd, rc = 0;

	snprintf(path, sizeof(path), "%s%s", strchr(name, '/') ? "" : "/run/netns/", name);
	/* Non-blocking, or a FIFO given by mistake would hang here for ever. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || setns(fd, CLONE_NEWNET))
		rc = err_set(err, -errno, "netns %s: %s", name, fd >= 0 && errno == EINVAL ?
			     "this is no network namespace" : errno == ENOENT && !strchr(name, '/') ?
			     "there is none; 'ip netns list' shows all" : strerror(errno));
	if (fd >= 0)
		close(fd);
	return rc;
}

/* --- the directory ---------------------------------------------------------------------------- */

/*
 * Whoever was in there before may have left links, to have root change what they lead
 * to: nothing is followed, and what is there already must be what we would make.  What is
 * mounted there, the host's own /dev perhaps, is not the jail's: -EXDEV.
 */
static int open_own(int at, const char *name, int flags)
{
	struct open_how how = { .flags = flags | O_NOFOLLOW | O_CLOEXEC,
				.resolve = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS };
	int fd = syscall(SYS_openat2, at, name, &how, sizeof(how));
	struct stat dir, st;

	if (fd >= 0 || (errno != ENOSYS && errno != EPERM))
		return fd < 0 ? -errno : fd;
	/* A kernel before 5.6, or a container of that time. */
	fd = openat(at, name, flags | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (!fstat(at, &dir) && !fstat(fd, &st) && dir.st_dev == st.st_dev)
		return fd;
	close(fd);
	return -EXDEV;
}

/* Nobody but the user is to put anything there. */
static int make_dir(int at, const char *name, const struct config *c)
{
	struct stat st;
	int fd;

	if (mkdirat(at, name, 0755) && errno != EEXIST)
		return -errno;
	fd = open_own(at, name, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) || fchown(fd, c->uid, group_of(c)) ||
	    fchmod(fd, st.st_mode & 07777 & ~(S_IWGRP | S_IWOTH))) {
		int rc = -errno;

		close(fd);
		return rc;
	}
	return fd;
}

static int make_device(int at, const char *name, unsigned major_nr, unsigned minor_nr,
		       const struct config *c)
{
	struct stat st;
	int fd, rc = 0;

	if (mknodat(at, name, S_IFCHR | 0600, makedev(major_nr, minor_nr)) && errno != EEXIST)
		return -errno;
	/* Whoever is still in there may put something else in its place at any time. */
	fd = open_own(at, name, O_PATH);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st))
		rc = -errno;
	if (!rc && (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(major_nr, minor_nr) || st.st_nlink != 1))
		rc = -EEXIST;
	if (!rc && fchownat(fd, "", c->uid, group_of(c), AT_EMPTY_PATH))
		rc = -errno;
	close(fd);
	return rc;
}

/* Where the host has it.  Its number there is another whenever the host is started. */
static int make_userfaultfd(int dev, const struct config *c)
{
	struct stat st;

	if (stat("/dev/userfaultfd", &st) || !S_ISCHR(st.st_mode))
		return 0;
	unlinkat(dev, "userfaultfd", 0);
	return make_device(dev, "userfaultfd", major(st.st_rdev), minor(st.st_rdev), c);
}

static int furnish(int root, const struct config *c, struct err *err)
{
	int dev = make_dir(root, "dev", c), net = dev < 0 ? dev : make_dir(dev, "net", c);
	int run = net < 0 ? net : make_dir(root, "run", c), rc = MIN(run, 0);
	const char *what = dev < 0 ? "dev" : net < 0 ? "dev/net" : "run";

	if (!rc) {
		rc = make_device(dev, what = "kvm", 10, 232, c);
		if (!rc)
			rc = make_device(net, what = "tun", 10, 200, c);
		for (unsigned i = 0; i < c->nr_nets && !rc; i++)
			if (c->net[i].vhost != NET_VHOST_OFF)
				rc = make_device(dev, what = "vhost-net", 10, 238, c);
		if (!rc)
			rc = make_device(dev, what = "urandom", 1, 9, c);
		if (!rc) {
			what = "userfaultfd";
			rc = make_userfaultfd(dev, c);
		}
	}
	if (dev >= 0)
		close(dev);
	if (net >= 0)
		close(net);
	if (run >= 0)
		close(run);
	return rc ? err_set(err, rc, "chroot %s: %s: %s", c->chroot, what, rc == -EEXIST || rc == -ELOOP ?
			    "something else of that name is there" : rc == -EXDEV ?
			    "something is mounted there; unmount it: vmm makes what a VM needs" : strerror(-rc)) : 0;
}

/* The old root is on no path of this mount namespace any more. */
static int change_root(int root, const char *path, struct err *err)
{
	struct stat a, b;

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) ||
	    mount(path, path, NULL, MS_BIND | MS_REC, NULL) || chdir(path))
		return err_set(err, -errno, "chroot %s: %s", path, strerror(errno));
	if (fstat(root, &a) || stat(".", &b) || !same_file(&a, &b))
		return err_set(err, -EAGAIN, "chroot %s: it was moved meanwhile", path);
	if (syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
		return err_set(err, -errno, "chroot %s: %s", path, strerror(errno));
	return 0;
}

static int enter_root(const struct config *c, struct err *err)
{
	char *path = realpath(c->chroot, NULL);
	int root = path ? open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1, rc;

	if (root < 0) {
		rc = err_set(err, -errno, "chroot %s: %s", c->chroot, strerror(errno));
		free(path);
		return rc;
	}
	/* Its dev and run become the user's. */
	rc = strcmp(path, "/") ? furnish(root, c, err) :
		err_set(err, -EINVAL, "chroot /: that is all of the host; choose a directory of the VM's own");
	if (!rc)
		rc = change_root(root, path, err);
	close(root);
	free(path);
	return rc;
}

int jail_become(const struct config *c, struct err *err)
{
	gid_t gid = group_of(c);

	if (setgroups(0, NULL) || setresgid(gid, gid, gid) || setresuid(c->uid, c->uid, c->uid))
		return err_set(err, -errno, "uid %u: %s", c->uid, strerror(errno));
	return 0;
}

void jail_forget_environment(void)
{
	for (char **e = environ; e && *e; e++)
		explicit_bzero(*e, strlen(*e));
	clearenv();
}

void jail_forget_starter(const struct config *c)
{
	unsigned from = STDERR_FILENO + 1, to;
	char *where;

	if (!c->chroot)
		return;
	where = getenv("VMM_RUNTIME_DIR");
	where = where ? strdup(where) : NULL;
	jail_forget_environment();
	if (where)
		setenv("VMM_RUNTIME_DIR", where, true);
	free(where);
	do {
		to = UINT_MAX;
		for (unsigned i = 0; i < c->nr_nets; i++)
			if (c->net[i].mode == NET_FD && (unsigned)c->net[i].fd >= from)
				to = MIN(to, (unsigned)c->net[i].fd);
		if (to > from)
			close_range(from, to - 1, 0);
		from = to + 1;
	} while (to != UINT_MAX);
}

int jail_refused(int code, struct err *err)
{
	return code == -EPERM || code == -EACCES ?
		err_suffix(err, "; it takes root and its capabilities") : code;
}

int jail_enter(const struct config *c, struct err *err)
{
	int rc = cgroup_limit(c, err);

	if (rc)
		return rc;
	if (c->netns)
		rc = enter_netns(c->netns, err);
	if (!rc && c->chroot)
		rc = enter_root(c, err);
	if (!rc && c->has_uid)
		rc = jail_become(c, err);
	return jail_refused(rc, err);
}
