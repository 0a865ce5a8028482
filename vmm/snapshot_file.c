/* snapshot_file.c: files that appear whole. */
#include "vmm/snapshot_own.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "devices/block/chain.h"

static const char new_suffix[] = ".new-XXXXXX";

int new_file_open(struct new_file *f, const char *path, struct err *err)
{
	*f = (struct new_file){ .path = path, .fd = -1 };
	if (asprintf(&f->temp, "%s%s", path, new_suffix) < 0) {
		f->temp = NULL;
		return err_set(err, -ENOMEM, "out of memory");
	}
	f->fd = mkostemp(f->temp, O_CLOEXEC);
	if (f->fd >= 0)
		return 0;
	free(f->temp);
	f->temp = NULL;
	return err_set(err, -errno, "snapshot %s: %s", path, strerror(errno));
}

int new_file_check_apart(const struct new_file *a, const struct new_file *b, struct err *err)
{
	char *one = realpath(a->temp, NULL), *two = realpath(b->temp, NULL);
	int rc = 0;

	if (!one || !two)
		rc = err_set(err, -errno, "snapshot %s: %s", one ? b->path : a->path, strerror(errno));
	else if (strlen(one) == strlen(two) && !strncmp(one, two, strlen(one) - strlen(new_suffix)))
		rc = err_set(err, -EINVAL, "snapshot %s: state and memory are two files; give each a name",
			     a->path);
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
