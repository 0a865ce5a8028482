/* chain_change.c: folding a delta into what is below it, another backing file, no snapshot, less space. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "devices/block/blk.h"
#include "devices/block/chain.h"
#include "devices/block/file.h"

/* --- commit --------------------------------------------------------------------------------- */

struct commit {
	char *path, *below;
	struct image *top, *base;
	struct chain_family family;
	u64 base_end;		/* of its file, before anything was done */
	bool own;		/* base is a snapshot of this disk */
};

static int open_base(struct commit *c, const struct image_options *o, struct err *err)
{
	struct image_options all = { .format = "qcow2", .read_only = true, .no_lock = true,
				     .backing_anywhere = o->backing_anywhere };
	struct image_options base = { .format = c->top->backing_format,
				      .backing_anywhere = o->backing_anywhere };
	const struct chain_file *user = chain_user(&c->family, 1);
	char name[CHAIN_NAME_MAX + 1];
	struct stat top, below;
	struct image *i;
	int rc;

	/* The rules for chains hold for a file that is written to, too: for that very one. */
	if (fstat(c->top->fd, &top))
		return err_set(err, -errno, "disk %s: %s", c->path, strerror(errno));
	all.is = &top;
	rc = image_open(&i, c->path, &all, err);
	if (rc)
		return rc;
	rc = i->backing && fstat(i->backing->fd, &below) ? err_set(err, -errno, "%s: %s", c->below, strerror(errno)) : 0;
	base.is = i->backing ? &below : NULL;
	image_close(i);
	if (rc)
		return rc;
	if (user)
		return err_set(err, -EBUSY, "disk %s: %s is based on %s, too, and would no longer "
			       "be right; 'vmm disk rebase --backing none' makes that one whole",
			       c->path, user->path, c->below);
	c->own = chain_snapshot_name(c->path, &c->family.file[1], name);
	rc = image_open(&c->base, c->below, &base, err);
	if (!rc && file_size(c->base->fd, &c->base_end))
		c->base_end = UINT64_MAX;
	return rc;
}

static int fold(struct commit *c, struct chain_job *job, struct err *err)
{
	struct image *top = c->top, *base = c->base;
	struct chain_copy how = { .own = true };
	int rc = 0;

	if (base->size < top->size)
		rc = image_resize(base, top->size, err);
	if (!rc)
		rc = chain_copy(top, base, &how, job, err);
	if (!rc && c->own && base->size > top->size)
		rc = image_resize(base, top->size, err);
	if (rc)
		err_prefix(err, "disk %s, which may have a part of %s now (try again): ", c->below,
			   c->path);
	return rc;
}

/* The base has all; until then the delta had it, so any number of tries do the same. */
static int finish(struct commit *c, struct chain_job *job, struct err *err)
{
	struct image_create empty = { .size = c->top->size, .backing = c->top->backing_path,
				      .backing_format = c->top->backing_format };
	char *temp;
	bool done;
	int rc;

	if (c->own) {
		rc = chain_replace(c->below, c->path, &done, err);
		if (done)
			chain_unmark(c->below);
		if (done)
			chain_tell(job, "%s is what %s was, with its changes, in %s", c->path,
				   c->below, c->base->ops->format);
		return rc;
	}
	temp = chain_temp(c->path);
	if (!temp)
		return err_set(err, -ENOMEM, "out of memory");
	chain_like(c->top, &empty);
	rc = chain_make(c->path, temp, &empty, err);
	if (!rc) {
		rc = chain_replace(temp, c->path, &done, err);
		if (done)
			chain_tell(job, "%s has all changes; %s is an empty delta of it", c->below,
				   c->path);
		else
			unlink(temp);
	}
	free(temp);
	return rc;
}

static int refuse_internal(struct image *i, struct err *err)
{
	struct image_snapshot *s = NULL;
	unsigned nr = 0;
	int rc = image_snapshots(i, &s, &nr, err);

	image_snapshots_free(s, nr);
	if (rc)
		return err_prefix(err, "disk %s: ", i->path), rc;
	return nr ? err_set(err, -ENOTSUP, "disk %s: it has snapshots inside, which this would lose"
			    " or change; delete them first with 'vmm disk delete'", i->path) : 0;
}

/*
 * What is raw because the delta's header says so need not be told from qcow2 by its bytes, until
 * they are the guest's: it could name any file beside it as its backing file (see blk.c).
 */
static int refuse_disguise(const struct commit *c, struct err *err)
{
	struct extent e = { .kind = EXTENT_ABSENT };
	bool qcow2 = false;
	int rc = 0;

	if (c->base->ops != &raw_image)
		return 0;
	if (c->top->size)
		rc = c->top->ops->map(c->top, 0, BLK_SECTOR, false, &e);
	/* A base that keeps its name and its first bytes is taken for what it was. */
	if (!rc && (e.kind != EXTENT_ABSENT || c->own))
		rc = image_begins_as_qcow2(e.kind == EXTENT_ABSENT ? c->base : c->top, &qcow2);
	if (rc)
		return err_set(err, rc, "disk %s: %s", c->path, strerror(-rc));
	return qcow2 ? err_set(err, -EINVAL, "disk %s: its first bytes are those of a qcow2 image, for "
			       "which the raw %s would be taken; 'vmm disk convert --format raw' makes a "
			       "copy, to be used with format=raw", c->path,
			       c->own ? c->path : c->below) : 0;
}

/* What is folded cannot be unfolded when in the end nothing can be renamed. */
static int refuse_read_only(const struct commit *c, struct err *err)
{
	char *dir = chain_directory_of(c->path);
	int rc = dir && faccessat(AT_FDCWD, dir, W_OK | X_OK, AT_EACCESS) ? -errno : 0;

	free(dir);
	return rc ? err_set(err, rc, "disk %s: its directory cannot be written to, so the disk cannot be "
			    "replaced: %s", c->path, strerror(-rc)) : 0;
}

/* What c.path and its family are is known. */
static int fold_top(struct commit *c, const struct image_options *o, struct chain_job *job,
		    struct err *err)
{
	int rc = chain_refuse_device(c->top, err);

	if (!rc)
		rc = refuse_internal(c->top, err);
	if (!rc && c->family.depth < 2)
		rc = err_set(err, c->family.broken.code, "%s", c->family.broken.msg);
	if (!rc) {
		c->below = c->family.file[1].path;
		rc = open_base(c, o, err);
	}
	if (!rc)
		rc = refuse_disguise(c, err);
	if (!rc)
		rc = refuse_read_only(c, err);
	if (!rc && !c->own)
		rc = chain_refuse_long_name(c->path, err);
	if (!rc && c->own)
		rc = chain_mark(c->below, err);
	if (!rc)
		rc = fold(c, job, err);
	if (!rc)
		rc = finish(c, job, err);
	return rc;
}

static void commit_fini(struct commit *c, int rc)
{
	struct stat base;
	bool give_back = rc && c->base && !fstat(c->base->fd, &base);

	image_close(c->base);
	if (give_back)
		chain_give_back(c->below, &base, c->family.file[1].format, c->base_end);
	image_close(c->top);
	chain_family_free(&c->family);
	free(c->path);
}

int chain_commit(const char *given, const struct image_options *o, struct chain_job *job,
		 struct err *err)
{
	struct commit c = { .path = chain_resolve(given) };
	int rc;

	if (!c.path)
		return err_set(err, -errno, "disk %s: %s", given, strerror(errno));
	rc = chain_open(&c.top, c.path, o, &c.family, err);
	if (!rc && !c.top->backing_path)
		rc = err_set(err, -EINVAL, "disk %s: it has no backing file to commit to", c.path);
	if (!rc)
		rc = fold_top(&c, o, job, err);
	commit_fini(&c, rc);
	return rc;
}

/* --- rebase --------------------------------------------------------------------------------- */

/* A look that takes no lock: ours would be in the way. */
static int not_of_itself(const struct image *top, const char *file, const char *format,
			 struct err *err)
{
	struct chain_family f;
	struct stat st;
	int rc = chain_family(&f, file, format, err);

	for (unsigned n = 0; !rc && n < f.depth; n++)
		if (!fstat(top->fd, &st) && f.file[n].dev == st.st_dev &&
		    f.file[n].ino == st.st_ino)
			rc = err_set(err, -EINVAL, "disk %s: %s is %s", top->path, file,
				     n ? "based on it" : "the same file");
	chain_family_free(&f);
	return rc;
}

/* Where it is as seen from here; NULL: out of memory. */
static char *new_backing(const struct image *top, const struct chain_rebase *r)
{
	return r->backing ? strdup(r->backing) : chain_seen_from(top->path, top->backing_path);
}

static int rebase(struct image *top, const struct chain_rebase *r, bool copy,
		  const struct image_options *o, struct chain_job *job, struct err *err)
{
	struct image_options io = { .format = r->format, .read_only = true,
				    .backing_anywhere = o->backing_anywhere };
	char *file = new_backing(top, r), *name = NULL;
	struct image *below = NULL;
	int rc = file ? 0 : err_set(err, -ENOMEM, "out of memory");

	if (!rc && *file) {
		rc = r->backing ? chain_refuse_marked(file, err) : 0;
		if (!rc)
			rc = not_of_itself(top, file, r->format, err);
		if (!rc)
			rc = image_open(&below, file, &io, err);
	}
	if (!rc && below) {
		name = r->backing ? chain_recorded_as(top->path, file) : strdup(top->backing_path);
		if (!name)
			rc = err_set(err, -errno, "disk %s: %s", file, strerror(errno));
	}
	if (!rc && copy)
		rc = chain_keep(top, below, job, err);
	if (!rc) {
		rc = image_set_backing(top, name, below ? below->ops->format : NULL, err);
		if (rc)
			err_prefix(err, "disk %s: ", top->path);
	}
	if (!rc && below)
		chain_tell(job, "%s is backed by %s, %s", top->path, name, below->ops->format);
	else if (!rc)
		chain_tell(job, "%s has no backing file", top->path);
	image_close(below);
	free(file);
	free(name);
	return rc;
}

int chain_rebase(const char *given, const struct chain_rebase *r, const struct image_options *o,
		 struct chain_job *job, struct err *err)
{
	char *path = chain_resolve(given);
	bool copy = r->backing && !r->trust;
	struct image_options io = { .format = "qcow2", .backing_anywhere = o->backing_anywhere,
				    .no_backing = !copy };
	struct image *top = NULL;
	struct stat st;
	u64 size = 0;
	int rc = path ? image_open(&top, path, &io, err) :
		 err_set(err, -errno, "disk %s: %s", given, strerror(errno));

	if (!rc)
		rc = chain_still_there(top, err);
	if (!rc && !r->backing && !top->backing_path)
		rc = err_set(err, -EINVAL, "disk %s: it has no backing file whose format could be "
			     "recorded", path);
	if (!rc && copy)
		rc = refuse_internal(top, err);
	if (!rc && file_size(top->fd, &size))
		size = UINT64_MAX;
	if (!rc)
		rc = rebase(top, r, copy, o, job, err);
	if (rc && size && fstat(top->fd, &st))
		size = 0;
	image_close(top);
	if (rc && size)
		chain_give_back(path, &st, "qcow2", size);
	free(path);
	return rc;
}

/* --- delete a snapshot ------------------------------------------------------------------------ */

/* Before anything is done for it. */
static int may_go(const struct commit *c, unsigned n, const char *name, struct err *err)
{
	const struct chain_file *file = &c->family.file[n], *user = chain_user(&c->family, n);
	struct image_options o = { .format = file->format, .no_backing = true };
	struct image *i;
	int rc;

	if (user)
		return err_set(err, -EBUSY, "disk %s: %s is based on its snapshot %s, too; 'vmm disk rebase "
			       "--backing none' makes that one whole", c->path, user->path, name);
	rc = image_open(&i, file->path, &o, err);
	if (rc)
		return rc;
	rc = refuse_internal(i, err);
	image_close(i);
	return rc;
}

/* What is based on it has a copy of what it reads from there, and is based on what is below. */
static int leave_out(const struct commit *c, unsigned n, const struct image_options *o,
		     struct chain_job *job, struct err *err)
{
	const struct chain_file *file = &c->family.file[n];
	char *below = file->backing ? chain_seen_from(file->path, file->backing) : strdup("");
	struct chain_rebase r = { .backing = below, .format = file->backing_format };
	struct err why;
	int rc = below ? chain_rebase(file[-1].path, &r, o, job, err) :
		 err_set(err, -ENOMEM, "out of memory");

	if (!rc && !chain_drop(&c->family, c->path, n, job, &why))
		rc = err_set(err, why.code, "disk %s: of no use any more, but there: %s", file->path, why.msg);
	free(below);
	return rc;
}

static int has_snapshot(const char *path, const char *name, struct err *err)
{
	struct chain_family f;
	int rc = chain_family(&f, path, NULL, err);

	if (!rc)
		rc = chain_find_snapshot(&f, path, name, err);
	chain_family_free(&f);
	return MIN(rc, 0);
}

int chain_delete(const char *given, const char *name, const struct image_options *o,
		 struct chain_job *job, struct err *err)
{
	struct commit c = { .path = chain_resolve(given) };
	int rc, n = 0;

	if (!c.path)
		return err_set(err, -errno, "disk %s: %s", given, strerror(errno));
	rc = has_snapshot(c.path, name, err);
	if (!rc)
		rc = chain_open(&c.top, c.path, o, &c.family, err);
	if (!rc) {
		n = chain_find_snapshot(&c.family, c.path, name, err);
		rc = MIN(n, 0);
	}
	if (!rc && n == 1) {
		rc = fold_top(&c, o, job, err);
	} else if (!rc) {
		rc = may_go(&c, n, name, err);
		if (!rc)
			rc = refuse_read_only(&c, err);
		if (!rc)
			rc = leave_out(&c, n, o, job, err);
	}
	commit_fini(&c, rc);
	return rc;
}

/* --- compact ---------------------------------------------------------------------------------- */

static int rewrite(struct image *from, const char *temp, const struct image_options *o,
		   struct chain_job *job, struct err *err)
{
	struct stat made;
	struct image_create c = { .size = from->size, .backing = from->backing_path,
				  .backing_format = from->backing_format, .made = &made };
	struct image_options io = { .format = "qcow2", .backing_anywhere = o->backing_anywhere, .is = &made };
	struct chain_copy how = { .own = true, .keep_packed = true };
	struct image *to;
	bool done = false;
	int rc;

	if (c.backing && !c.backing_format)
		return chain_no_format(from->path, c.backing, err);
	chain_like(from, &c);
	rc = chain_make(from->path, temp, &c, err);
	if (rc)
		return rc;
	rc = image_open(&to, temp, &io, err);
	if (!rc) {
		rc = chain_copy(from, to, &how, job, err);
		image_close(to);
	}
	if (!rc)
		rc = chain_replace(temp, from->path, &done, err);
	if (!done)
		unlink(temp);
	return rc;
}

int chain_compact(const char *given, const struct image_options *o, struct chain_job *job,
		  struct err *err)
{
	struct image_options io = { .format = o->format, .no_backing = true };
	char *path = chain_resolve(given), *temp = path ? chain_temp(path) : NULL;
	struct image *i = NULL;
	int rc = temp ? 0 : err_set(err, -errno, "disk %s: %s", given, strerror(errno));

	if (!rc)
		rc = image_open(&i, path, &io, err);
	if (!rc)
		rc = chain_still_there(i, err);
	if (!rc && i->ops == &raw_image) {
		rc = chain_punch(i, job, err);
	} else if (!rc) {
		rc = chain_refuse_device(i, err);
		if (!rc)
			rc = refuse_internal(i, err);
		if (!rc)
			rc = rewrite(i, temp, o, job, err);
	}
	image_close(i);
	free(temp);
	free(path);
	return rc;
}
