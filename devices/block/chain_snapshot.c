/* chain_snapshot.c: making a snapshot of a disk, and going back to one. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "devices/block/chain.h"

/* An empty delta of the file below, like the image that it replaces as path. */
static int go_on_above(const char *path, const struct image *was, const char *below,
		       const char *format, u64 size, struct stat *made, bool *done, struct err *err)
{
	struct image_create c = { .made = made };
	char *temp = chain_temp(path), *name = chain_no_protocol(chain_last_part(below));
	int rc = temp && name ? 0 : err_set(err, -ENOMEM, "out of memory");

	*done = false;
	chain_like(was, &c);
	c.format = "qcow2";
	c.size = size;
	c.backing = name;
	c.backing_format = format;
	if (!rc)
		rc = chain_make(path, temp, &c, err);
	if (!rc) {
		rc = chain_replace(temp, path, done, err);
		if (!*done)
			unlink(temp);
	}
	free(name);
	free(temp);
	return rc;
}

/* --- snapshot ---------------------------------------------------------------------------- */

static bool is_image(const struct image *i, const char *name)
{
	struct stat a, b;

	return !fstat(i->fd, &a) && !lstat(name, &b) && same_file(&a, &b);
}

/* By its number, as its name may be another's by now; but a jail has no /proc. */
static int link_image(const struct image *i, const char *path, const char *below)
{
	char self[40];

	snprintf(self, sizeof(self), "/proc/self/fd/%d", i->fd);
	if (!linkat(AT_FDCWD, self, AT_FDCWD, below, AT_SYMLINK_FOLLOW))
		return 0;
	if (errno != ENOENT)
		return -errno;
	if (link(path, below))
		return -errno;
	if (is_image(i, below))
		return 0;
	unlink(below);
	return -ESTALE;
}

/* A second name for the file.  It may be there already, from one who was interrupted. */
static int add_name(const struct image *i, const char *path, const char *below, bool *made, struct err *err)
{
	int rc = link_image(i, path, below);

	*made = !rc;
	if (!rc || (rc == -EEXIST && is_image(i, below)))
		return 0;
	if (rc == -ESTALE)
		return err_set(err, rc, "disk %s: somebody put another file in its place", path);
	if (rc == -EEXIST)
		return err_set(err, rc, "disk %s: %s is there already; choose another name", path,
			       below);
	return rc ? err_set(err, rc, "disk %s: it needs a second name (a hard link) with '@' and the "
			    "snapshot's: %s%s", path, strerror(-rc), rc == -ENAMETOOLONG ?
			    "; give one of them a shorter name" : "") : 0;
}

int chain_take(struct image *i, const char *path, const char *name, struct chain_job *job,
	       struct stat *delta, bool *done, struct err *err)
{
	char *below = chain_snapshot_path(path, name);
	bool made;
	int rc;

	*done = false;
	if (!below)
		return err_set(err, -ENOMEM, "out of memory");
	rc = add_name(i, path, below, &made, err);
	if (!rc) {
		chain_unmark(below);	/* of another of that name, which is gone */
		rc = go_on_above(path, i, below, i->ops->format, i->size, delta, done, err);
		if (!*done && made)
			unlink(below);
	}
	if (*done)
		chain_tell(job, "%s is the snapshot %s; %s goes on as a delta of it, in qcow2",
			   below, name, path);
	free(below);
	return rc;
}

int chain_snapshot(const char *given, const char *name, const struct image_options *o,
		   struct chain_job *job, struct err *err)
{
	struct chain_family f;
	struct image *i;
	bool done;
	char *path;
	int rc;

	if (!chain_good_name(name))
		return err_set(err, -EINVAL, "'%s' cannot name a snapshot; use 1 to %d letters, "
			       "digits, '.', '_' or '-', the first a letter or digit", name,
			       CHAIN_NAME_MAX);
	path = chain_resolve(given);
	if (!path)
		return err_set(err, -errno, "disk %s: %s", given, strerror(errno));
	rc = chain_open(&i, path, o, &f, err);
	if (!rc) {
		rc = chain_refuse_device(i, err);
		if (!rc && (rc = image_flush(i)))
			err_set(err, rc, "disk %s: %s", path, strerror(-rc));
		if (!rc)
			rc = chain_take(i, path, name, job, NULL, &done, err);
		image_close(i);
		chain_family_free(&f);
	}
	free(path);
	return rc;
}

/* --- revert --------------------------------------------------------------------------------- */

int chain_find_snapshot(const struct chain_family *f, const char *path, const char *wanted,
			struct err *err)
{
	char name[CHAIN_NAME_MAX + 1], known[300] = "";

	for (unsigned n = 1; n < f->depth; n++) {
		if (!chain_snapshot_name(path, &f->file[n], name))
			continue;
		if (!strcmp(name, wanted))
			return n;
		snprintf(known + strlen(known), sizeof(known) - strlen(known), "%s%s",
			 *known ? ", " : "", name);
	}
	if (f->broken.code)
		return err_set(err, f->broken.code, "%s", f->broken.msg);
	return err_set(err, -ENOENT, "disk %s: no snapshot '%s'; it has %s", path, wanted,
		       *known ? known : "none");
}

/* Locked, so no VM has it open; *why otherwise. */
static bool nobody_uses(const struct chain_family *f, unsigned n, struct err *why)
{
	struct image_options o = { .format = f->file[n].format, .no_backing = true,
				   .repairing = true };
	const struct chain_file *user = chain_user(f, n);
	struct image *i;

	if (user) {
		err_set(why, -EBUSY, "%s is based on it", user->path);
		return false;
	}
	if (image_open(&i, f->file[n].path, &o, why))
		return false;
	image_close(i);
	return true;
}

static bool drop_one(const struct chain_family *f, const char *path, unsigned n, struct err *why)
{
	char name[CHAIN_NAME_MAX + 1];

	if (!chain_snapshot_name(path, &f->file[n], name)) {
		err_set(why, -EPERM, "it is no snapshot of %s", path);
	} else if (nobody_uses(f, n, why)) {
		if (!unlink(f->file[n].path)) {
			chain_unmark(f->file[n].path);
			return true;
		}
		err_set(why, -errno, "%s", strerror(errno));
	}
	return false;
}

bool chain_drop(const struct chain_family *f, const char *path, unsigned n, struct chain_job *job, struct err *why)
{
	bool gone = drop_one(f, path, n, why);

	if (gone)
		chain_tell(job, "%s: removed", f->file[n].path);
	else
		chain_tell(job, "%s: kept: %s", f->file[n].path, why->msg);
	return gone;
}

static int go_back(const char *path, struct image *i, const struct chain_family *f,
		   const char *name, struct chain_job *job, struct err *err)
{
	int to = chain_find_snapshot(f, path, name, err), rc;
	struct err why;
	bool done;
	char *below;

	if (to < 0)
		return to;
	rc = chain_refuse_device(i, err);
	if (rc)
		return rc;
	below = chain_snapshot_path(path, name);
	if (!below)
		return err_set(err, -ENOMEM, "out of memory");
	rc = chain_refuse_marked(below, err);
	if (rc) {
		free(below);
		return rc;
	}
	rc = go_on_above(path, i, below, f->file[to].format, f->file[to].size, NULL, &done, err);
	if (!rc) {
		chain_tell(job, "%s is an empty delta of %s now", path, below);
		/* From the top: where one stays, what is below it is in use. */
		for (int n = 1; n < to && chain_drop(f, path, n, job, &why); n++)
			;
	}
	free(below);
	return rc;
}

int chain_revert(const char *given, const char *name, const struct image_options *o,
		 struct chain_job *job, struct err *err)
{
	char *path = chain_resolve(given);
	struct chain_family f;
	struct image *i;
	int rc;

	if (!path)
		return err_set(err, -errno, "disk %s: %s", given, strerror(errno));
	rc = chain_open(&i, path, o, &f, err);
	if (!rc) {
		rc = go_back(path, i, &f, name, job, err);
		image_close(i);
		chain_family_free(&f);
	}
	free(path);
	return rc;
}
