/* snapshot_file.c: files that appear whole. */
#include "vmm/snapshot_own.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "devices/block/chain.h"

/* Of the state: .state.XXXXXX.vmm-new, beside it. */
#define NEW_END ".vmm-new"
#define ASIDE_END ".vmm-before"
enum { NEW_RANDOM = sizeof(".XXXXXX") - 1, NEW_REST = NEW_RANDOM + sizeof(NEW_END) - 1 };

/* As long as it is written to it is held. */
static bool take(int fd)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	return !fcntl(fd, F_OFD_SETLK, &lock);
}

/* Whether it would be a new file of that name's. */
static bool is_new_file(const char *entry, const char *name)
{
	size_t len = strlen(name);

	return *entry == '.' && strlen(entry) == 1 + len + NEW_REST && !strncmp(entry + 1, name, len) &&
	       entry[1 + len] == '.' && !strcmp(entry + 1 + len + NEW_RANDOM, NEW_END);
}

/* What one left who was killed: nobody holds it.  True: somebody does another. */
static bool remove_left(const struct new_file *f)
{
	char *dir = chain_directory_of(f->path);
	DIR *d = dir ? opendir(dir) : NULL;
	bool others = false;
	struct dirent *e;

	while (d && (e = readdir(d))) {
		int fd = is_new_file(e->d_name, chain_last_part(f->path)) && strcmp(e->d_name, chain_last_part(f->temp)) ?
			openat(dirfd(d), e->d_name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC) : -1;

		if (fd >= 0 && take(fd))
			unlinkat(dirfd(d), e->d_name, 0);
		else if (fd >= 0)
			others |= errno == EAGAIN || errno == EACCES;
		if (fd >= 0)
			close(fd);
	}
	if (d)
		closedir(d);
	free(dir);
	return others;
}

/* NAME in its directory: .NAMEEND. */
static char *hidden(const char *path, const char *end)
{
	const char *name = chain_last_part(path);
	char *out;

	return asprintf(&out, "%.*s.%s%s", (int)(name - path), path, name, end) < 0 ? NULL : out;
}

char *new_file_aside(const char *path)
{
	return hidden(path, ASIDE_END);
}

/* A socket, /dev/null: it would be replaced as well.  What is set aside is a link where the name was one. */
static int check_plain(const char *path, bool is_aside, struct err *err)
{
	struct stat st;

	return (is_aside ? lstat(path, &st) : stat(path, &st)) || S_ISREG(st.st_mode) ||
	       (is_aside && S_ISLNK(st.st_mode)) ? 0 :
		err_set(err, -EEXIST, "snapshot %s: there is something of that name that is no file", path);
}

static int open_temp(struct new_file *f, struct err *err)
{
	int rc;

	f->temp = hidden(f->path, ".XXXXXX" NEW_END);
	f->aside = new_file_aside(f->path);
	if (!f->temp || !f->aside)
		return err_set(err, -ENOMEM, "out of memory");
	rc = check_plain(f->path, false, err);
	if (!rc)
		rc = check_plain(f->aside, true, err);
	if (rc)
		return rc;
	f->fd = mkostemps(f->temp, sizeof(NEW_END) - 1, O_CLOEXEC);
	return f->fd < 0 ? err_set(err, -errno, "snapshot %s: %s", f->path, strerror(errno)) : 0;
}

int new_file_open(struct new_file *f, const char *path, struct err *err)
{
	int rc;

	*f = (struct new_file){ .path = path, .fd = -1 };
	rc = open_temp(f, err);
	if (rc) {
		free(f->temp);
		free(f->aside);
		*f = (struct new_file){ .path = path, .fd = -1 };
		return rc;
	}
	(void)take(f->fd);	/* where there are no locks, nothing is removed */
	/* Of two that end at one time each could take the place of one of the other's files. */
	if (!remove_left(f))
		return 0;
	new_file_drop(f, true);
	f->fd = -1;
	return err_set(err, -EBUSY, "snapshot %s: another is being saved under that name", path);
}

static char *whole_directory_of(const char *path, struct err *err)
{
	char *dir = chain_directory_of(path), *whole = dir ? realpath(dir, NULL) : NULL;

	if (!whole)
		err_set(err, -errno, "snapshot %s: %s", path, strerror(errno));
	free(dir);
	return whole;
}

int new_file_check_apart(const char *a, const char *b, struct err *err)
{
	char *one = whole_directory_of(a, err), *two = one ? whole_directory_of(b, err) : NULL;
	int rc = two ? 0 : err->code;

	if (!rc && !strcmp(one, two) && !strcmp(chain_last_part(a), chain_last_part(b)))
		rc = err_set(err, -EINVAL, "snapshot %s: state and memory are two files; give each a name", a);
	free(one);
	free(two);
	return rc;
}

int new_file_keep(struct new_file *f, struct err *err)
{
	int rc;

	unlink(f->aside);	/* of one who was killed when all was there */
	f->is_aside = !link(f->path, f->aside);
	f->replaces = f->is_aside || errno != ENOENT;
	rc = rename(f->temp, f->path) ? -errno : 0;
	if (rc)
		return err_set(err, rc, "snapshot %s: %s", f->path, strerror(-rc));
	free(f->temp);
	f->temp = NULL;
	rc = chain_sync_dir(f->path, err);
	return rc ? err_prefix(err, "snapshot %s: ", f->path) : 0;
}

int new_file_sync(const struct new_file *f, struct err *err)
{
	return fsync(f->fd) ? err_set(err, -errno, "snapshot %s: %s", f->path, strerror(errno)) : 0;
}

void new_file_drop(struct new_file *f, bool failed)
{
	if (f->fd < 0)
		return;
	if (f->temp && failed)
		unlink(f->temp);
	/* What cannot come back is better replaced than lost. */
	else if (failed && f->is_aside)
		f->is_aside = rename(f->aside, f->path);
	else if (failed && !f->replaces)
		unlink(f->path);
	if (f->is_aside && (f->temp || !failed))
		unlink(f->aside);
	free(f->temp);
	free(f->aside);
	close(f->fd);
}
