/* net_state.c: networks and their users, as files in the runtime directory. */
#include "vmm/net_state.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <linux/capability.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "devices/block/file.h"
#include "vmm/program.h"
#include "vmm/runtime.h"

const char *const network_types[] = {
	[NETWORK_NAT] = "nat", [NETWORK_HOSTONLY] = "hostonly", [NETWORK_BRIDGE] = "bridge",
};

struct net_state {
	int dir, lock;			/* dir -1: there is none, and nothing in it */
	bool to_change;
	char path[PATH_MAX / 2];
};

int network_check_name(const char *name, struct err *err)
{
	size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");

	if (!len || name[len] || len > NETWORK_NAME_LEN || *name == '-')
		return err_set(err, -EINVAL, "network name '%s' is not 1 to %d letters, digits, '_' or "
			       "'-', the first no '-'", name, NETWORK_NAME_LEN);
	return 0;
}

const char *network_of_bridge(const char *bridge)
{
	return !strncmp(bridge, "vmm-", 4) && !network_check_name(bridge + 4, NULL) ? bridge + 4 : NULL;
}

struct network_mac network_mac_text(const u8 m[6])
{
	struct network_mac t;

	snprintf(t.text, sizeof(t.text), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3],
		 m[4], m[5]);
	return t;
}

bool network_may_change(void)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = { 0 };

	return !syscall(SYS_capget, &h, data) && data[0].effective & 1u << CAP_NET_ADMIN;
}

struct network_user_text network_user_text(const struct network_user *u)
{
	struct network_user_text t;

	if (*u->vm)
		snprintf(t.text, sizeof(t.text), "VM '%s', process %d", u->vm, u->pid);
	else
		snprintf(t.text, sizeof(t.text), "process %d", u->pid);
	return t;
}

/* --- the directory -------------------------------------------------------------------------- */

/* Who may not make any looks at root's. */
static int networks_dir(char *path, size_t room, struct err *err)
{
	if (!network_may_change() && !getenv("VMM_RUNTIME_DIR")) {
		snprintf(path, room, "/run/vmm/net");
		return 0;
	}
	return runtime_dir(path, room, "net") ? 0 :
		err_set(err, -ENOENT, "no directory for what runs: XDG_RUNTIME_DIR, or VMM_RUNTIME_DIR, "
			"must be set to a whole path, of less than %zu characters", room);
}

static int make_dir(const char *path, struct err *err)
{
	if (mkdir(path, 0755) && errno != EEXIST)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	/* Who can write there could make us remove others' interfaces. */
	errno = 0;
	if (is_own_directory(path))
		return 0;
	return err_of_host(-errno) ? err_set(err, -errno, "%s: %s", path, strerror(errno)) :
		err_set(err, -EPERM, "%s: must be a directory that only its owner, this user, can "
			"write to", path);
}

enum { LOCK_MS = 10 };

/*
 * Waits: whoever holds it is busy for milliseconds, or for as long as a program that
 * it runs may take.  Not closed on exec: an nft that we started and did not live to see
 * the end of keeps it until it is done.
 */
static int take_lock(struct net_state *s, const char *path, struct err *err)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int rc;

	s->lock = open(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
	if (s->lock < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	for (int ms = 0; (rc = fcntl(s->lock, F_OFD_SETLK, &lock)) && ms < PROGRAM_MS * 2; ms += LOCK_MS) {
		if (errno != EAGAIN && errno != EACCES && errno != EINTR)
			break;
		poll(NULL, 0, LOCK_MS);
	}
	if (!rc)
		return 0;
	rc = errno == EAGAIN || errno == EACCES ?
		err_set(err, -EBUSY, "%s: another vmm, or a program that it has started, has held it for %d s", path,
			PROGRAM_MS * 2 / 1000) : err_set(err, -errno, "%s: %s", path, strerror(errno));
	close(s->lock);
	s->lock = -1;
	return rc;
}

int net_state_lock(const struct net_state *s)
{
	return s->lock;
}

static int open_dir(struct net_state *s, struct err *err)
{
	char path[PATH_MAX / 2 - 64], lock[PATH_MAX / 2], *slash;
	struct stat ns;
	int rc = networks_dir(path, sizeof(path), err);

	if (rc)
		return rc;
	if (stat("/proc/self/ns/net", &ns))
		return err_set(err, -errno, "/proc/self/ns/net: %s", strerror(errno));
	snprintf(lock, sizeof(lock), "%s/lock", path);
	snprintf(s->path, sizeof(s->path), "%s/%llu", path, (unsigned long long)ns.st_ino);
	slash = strrchr(path, '/');
	*slash = 0;
	if (s->to_change)
		rc = make_dir(path, err);
	*slash = '/';
	if (!rc && s->to_change)
		rc = make_dir(path, err);
	if (!rc && s->to_change)
		rc = take_lock(s, lock, err);
	if (!rc && s->to_change)
		rc = make_dir(s->path, err);
	if (rc)
		return rc;
	s->dir = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->dir < 0 && (errno != ENOENT || s->to_change))
		return err_set(err, -errno, "%s: %s", s->path, strerror(errno));
	return 0;
}

int net_state_open(struct net_state **out, bool to_change, struct err *err)
{
	struct net_state *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return err_set(err, -ENOMEM, "out of memory");
	s->dir = s->lock = -1;
	s->to_change = to_change;
	rc = open_dir(s, err);
	if (rc) {
		net_state_close(s);
		return rc;
	}
	*out = s;
	return 0;
}

void net_state_close(struct net_state *s)
{
	if (!s)
		return;
	if (s->dir >= 0)
		close(s->dir);
	if (s->lock >= 0) {
		rmdir(s->path);		/* if it is empty */
		close(s->lock);
	}
	free(s);
}

/* --- files ------------------------------------------------------------------------------------ */

static json_t *read_json(int dir, const char *path, struct err *err)
{
	int fd = openat(dir, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	json_error_t why;
	json_t *j;

	if (fd < 0) {
		err_set(err, -errno, "%s: %s", path, strerror(errno));
		return NULL;
	}
	j = json_loadfd(fd, 0, &why);
	close(fd);
	if (!j)
		err_set(err, -EUCLEAN, "%s: %s", path, why.text);
	return j;
}

static int write_json(int fd, json_t *j)
{
	/* json_dumpfd would not say why it failed. */
	char *text = j ? json_dumps(j, JSON_INDENT(2)) : NULL;
	int rc = text ? file_write(fd, 0, text, strlen(text)) : -ENOMEM;

	free(text);
	json_decref(j);
	return rc;
}

static bool text_fits(char *to, size_t room, const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));

	return s && (size_t)snprintf(to, room, "%s", s) < room;
}

static bool read_network(const json_t *j, struct network *n)
{
	char type[16], subnet[32];
	bool known = false;

	if (!text_fits(type, sizeof(type), j, "type") ||
	    !text_fits(n->bridge, sizeof(n->bridge), j, "bridge") ||
	    !text_fits(subnet, sizeof(subnet), j, "subnet") ||
	    !text_fits(n->prefix6, sizeof(n->prefix6), j, "prefix6"))
		return false;
	for (unsigned i = 0; i < ARRAY_SIZE(network_types); i++)
		if (!strcmp(type, network_types[i])) {
			n->type = i;
			known = true;
		}
	n->mtu = json_integer_value(json_object_get(j, "mtu"));
	n->routes6 = json_is_true(json_object_get(j, "routes6"));
	n->vlan_filtering = json_is_true(json_object_get(j, "vlan-filtering"));
	n->is_kept = json_is_true(json_object_get(j, "kept"));
	return known && (!*subnet || !subnet_parse(subnet, &n->subnet, NULL));
}

int net_state_load(struct net_state *s, const char *name, struct network *n, struct err *err)
{
	char path[64];
	struct err why = { 0 };
	json_t *j;
	int rc = 0;

	snprintf(path, sizeof(path), "%s/network.json", name);
	if (s->dir < 0 || (faccessat(s->dir, path, F_OK, 0) && errno == ENOENT))
		return -ENOENT;
	j = read_json(s->dir, path, &why);
	*n = (struct network){ 0 };
	snprintf(n->name, sizeof(n->name), "%s", name);
	if (err_of_host(why.code))
		rc = err_set(err, why.code, "%s/%s", s->path, why.msg);
	else if (!j || !read_network(j, n))
		rc = err_set(err, -EUCLEAN, "%s/%s: not what vmm wrote; 'vmm net delete %s' removes it",
			     s->path, path, name);
	json_decref(j);
	return rc;
}

int net_state_save(struct net_state *s, const struct network *n, struct err *err)
{
	char path[64], temp[64], users[64];
	json_t *j = json_pack("{s:s, s:s, s:s, s:s, s:b, s:i, s:b, s:b}", "type",
			      network_types[n->type], "bridge", n->bridge, "subnet",
			      n->subnet.len ? subnet_text(&n->subnet).text : "", "prefix6", n->prefix6,
			      "routes6", n->routes6, "mtu", (int)n->mtu, "vlan-filtering",
			      n->vlan_filtering, "kept", n->is_kept);
	int fd, rc;

	snprintf(path, sizeof(path), "%s/network.json", n->name);
	snprintf(temp, sizeof(temp), "%s/network.new", n->name);
	snprintf(users, sizeof(users), "%s/users", n->name);
	if ((mkdirat(s->dir, n->name, 0755) && errno != EEXIST) ||
	    (mkdirat(s->dir, users, 0700) && errno != EEXIST)) {
		json_decref(j);
		return err_set(err, -errno, "%s/%s: %s", s->path, n->name, strerror(errno));
	}
	fd = openat(s->dir, temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0) {
		json_decref(j);
		return err_set(err, -errno, "%s/%s: %s", s->path, temp, strerror(errno));
	}
	rc = write_json(fd, j);
	close(fd);
	if (!rc && renameat(s->dir, temp, s->dir, path))
		rc = -errno;
	if (rc)
		unlinkat(s->dir, temp, 0);
	return rc ? err_set(err, rc, "%s/%s: %s", s->path, path, strerror(-rc)) : 0;
}

static void empty_dir(int at, const char *name)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	while (d && (e = readdir(d)))
		unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
}

void net_state_remove(struct net_state *s, const char *name)
{
	char users[64];

	snprintf(users, sizeof(users), "%s/users", name);
	empty_dir(s->dir, users);
	unlinkat(s->dir, users, AT_REMOVEDIR);
	empty_dir(s->dir, name);
	unlinkat(s->dir, name, AT_REMOVEDIR);
}

void net_state_path(struct net_state *s, const char *name, const char *file, char *path,
		    size_t room)
{
	snprintf(path, room, "%s/%s/%s", s->path, name, file);
}

static DIR *open_list(int at, const char *path)
{
	int fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW), why;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (fd >= 0 && !d) {
		why = errno;
		close(fd);
		errno = why;
	}
	return d;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int net_state_names(struct net_state *s, char ***out, unsigned *nr, struct err *err)
{
	DIR *d = s->dir < 0 ? NULL : open_list(s->dir, ".");
	char **names = NULL, **more;
	struct dirent *e;
	int rc = 0;

	*nr = 0;
	if (!d && s->dir >= 0)
		return err_set(err, -errno, "%s: %s", s->path, strerror(errno));
	while (d && !rc && (errno = 0, e = readdir(d))) {
		if (network_check_name(e->d_name, NULL))
			continue;
		more = reallocarray(names, *nr + 1, sizeof(*names));
		names = more ?: names;
		if (!more || !(names[*nr] = strdup(e->d_name)))
			rc = err_set(err, -ENOMEM, "out of memory");
		else
			++*nr;
	}
	if (d && !rc && errno)
		rc = err_set(err, -errno, "%s: %s", s->path, strerror(errno));
	if (d)
		closedir(d);
	if (rc) {
		while (*nr)
			free(names[--*nr]);
		free(names);
		return rc;
	}
	if (names)
		qsort(names, *nr, sizeof(*names), compare_names);
	*out = names;
	return 0;
}

/* --- users -------------------------------------------------------------------------------------- */

static bool lock_file(int fd)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	return !fcntl(fd, F_OFD_SETLK, &lock);
}

static bool read_user(int dir, const char *file, struct network_user *u)
{
	json_t *j = read_json(dir, file, NULL);
	const json_t *mac = json_object_get(j, "mac");
	bool ok;

	*u = (struct network_user){ .pid = json_integer_value(json_object_get(j, "pid")) };
	ok = text_fits(u->vm, sizeof(u->vm), j, "vm") &&
	     text_fits(u->tap, sizeof(u->tap), j, "tap") && json_array_size(mac) == 6;
	for (unsigned i = 0; i < 6 && ok; i++)
		u->mac[i] = json_integer_value(json_array_get(mac, i));
	json_decref(j);
	return ok;
}

/* False: it is dead, and forgotten. */
static bool is_alive(int dir, const char *file)
{
	int fd = openat(dir, file, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	/* Who cannot be looked at, for want of memory or files, is not known to be dead. */
	bool alive = fd < 0 ? errno != ENOENT : !lock_file(fd);

	if (!alive)
		unlinkat(dir, file, 0);
	if (fd >= 0)
		close(fd);
	return alive;
}

int net_state_users(struct net_state *s, const char *name, struct network_user **out, unsigned *nr,
		    struct err *err)
{
	struct network_user *users = NULL, *more;
	char path[64];
	struct dirent *e;
	int rc = 0;
	DIR *d;

	*out = NULL;
	*nr = 0;
	snprintf(path, sizeof(path), "%s/users", name);
	d = open_list(s->dir, path);
	if (!d && errno != ENOENT)
		return err_set(err, -errno, "%s/%s: %s", s->path, path, strerror(errno));
	while (d && !rc && (errno = 0, e = readdir(d))) {
		if (*e->d_name == '.' || !is_alive(dirfd(d), e->d_name))
			continue;
		more = reallocarray(users, *nr + 1, sizeof(*users));
		if (!more) {
			rc = err_set(err, -ENOMEM, "out of memory");
			break;
		}
		users = more;
		/* One that cannot be read lives all the same. */
		if (!read_user(dirfd(d), e->d_name, &users[*nr]))
			snprintf(users[*nr].tap, sizeof(users->tap), "%.15s", e->d_name);
		++*nr;
	}
	if (d && !rc && errno)
		rc = err_set(err, -errno, "%s/%s: %s", s->path, path, strerror(errno));
	if (d)
		closedir(d);
	if (rc) {
		free(users);
		users = NULL;
	}
	*out = users;
	return rc;
}

int net_state_add_user(struct net_state *s, const char *name, const struct network_user *u, int *out,
		       struct err *err)
{
	char path[64];
	json_t *j = json_pack("{s:i, s:s, s:s, s:[i, i, i, i, i, i]}", "pid", u->pid, "vm", u->vm,
			      "tap", u->tap, "mac", u->mac[0], u->mac[1], u->mac[2], u->mac[3],
			      u->mac[4], u->mac[5]);
	int fd, rc = 0;

	snprintf(path, sizeof(path), "%s/users/%s", name, u->tap);
	fd = openat(s->dir, path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || !lock_file(fd))
		rc = -errno;
	if (!rc)
		rc = write_json(fd, j);
	else
		json_decref(j);
	if (rc) {
		err_set(err, rc, "%s/%s: %s", s->path, path, strerror(-rc));
		unlinkat(s->dir, path, 0);
		if (fd >= 0)
			close(fd);
		return rc;
	}
	*out = fd;
	return 0;
}

/* --- marks ---------------------------------------------------------------------------------------- */

/* Names that no network can have. */
static void mark_path(const char *mark, char path[32])
{
	snprintf(path, 32, ".%s", mark);
}

bool net_state_has_mark(struct net_state *s, const char *mark)
{
	char path[32];

	mark_path(mark, path);
	return !faccessat(s->dir, path, F_OK, 0);
}

int net_state_set_mark(struct net_state *s, const char *mark, struct err *err)
{
	char path[32];
	int fd;

	mark_path(mark, path);
	fd = openat(s->dir, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_set(err, -errno, "%s/%s: %s", s->path, path, strerror(errno));
	close(fd);
	return 0;
}

void net_state_clear_mark(struct net_state *s, const char *mark)
{
	char path[32];

	mark_path(mark, path);
	unlinkat(s->dir, path, 0);
}
