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

int new_file_open(struct new_file *f, const char *path, struct err *err)
{
	const char *name = chain_last_part(path);
	struct stat st;

	*f = (struct new_file){ .path = path, .fd = -1 };
	/* A socket, /dev/null: it would be replaced as well. */
	if (!stat(path, &st) && !S_ISREG(st.st_mode))
		return err_set(err, -EEXIST, "snapshot %s: there is something of that name that is no file", path);
	if (asprintf(&f->temp, "%.*s.%s.XXXXXX" NEW_END, (int)(name - path), path, name) < 0) {
		f->temp = NULL;
		return err_set(err, -ENOMEM, "out of memory");
	}
	f->fd = mkostemps(f->temp, sizeof(NEW_END) - 1, O_CLOEXEC);
	if (f->fd < 0) {
		free(f->temp);
		f->temp = NULL;
		return err_set(err, -errno, "snapshot %s: %s", path, strerror(errno));
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
	int rc = rename(f->temp, f->path) ? -errno : 0;

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
	if (failed)
		unlink(f->temp ?: f->path);
	free(f->temp);
	close(f->fd);
}
