/* disk_delta.c: 'vmm disk snapshot', 'revert', 'delete', 'commit' and 'rebase'. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "vmm/commands.h"
#include "vmm/disk.h"

int disk_snapshot(const struct subcommand_args *a)
{
	struct image_options o = disk_options(a);
	struct err err;

	return chain_snapshot(a->word[0], a->word[1], &o, disk_job(a), &err) ?
		disk_failed(&err) : disk_done(a);
}

static int act_inside(struct image *i, const char *name, bool delete, struct err *err)
{
	int rc = delete ? image_snapshot_delete(i, name, err) : image_snapshot_apply(i, name, err);

	if (!rc) {
		rc = chain_settle(i);
		if (rc)
			err_set(err, rc, "%s", strerror(-rc));
	}
	return rc;
}

static void add_names(struct image *i, struct err *err)
{
	size_t len = strlen(err->msg);
	struct image_snapshot *s;
	unsigned nr;

	if (image_snapshots(i, &s, &nr, NULL))
		return;
	for (unsigned n = 0; n < nr; n++, len = strlen(err->msg))
		snprintf(err->msg + len, sizeof(err->msg) - len, "%s%s", n ? ", " : "; inside it are ",
			 s[n].name);
	image_snapshots_free(s, nr);
}

/* Snapshots inside the file.  err is why there is no delta of that name, and what there is
 * inside is added to it. */
static int inside(const struct subcommand_args *a, bool delete, struct err *err)
{
	struct image_options o = { .format = "qcow2", .no_backing = true };
	struct chain_family f = { 0 };
	struct image *i;
	struct err why;
	/* Going back changes what is based on it. */
	int rc = delete ? image_open(&i, a->word[0], &o, &why) :
			  chain_open(&i, a->word[0], &o, &f, &why);

	if (rc) {
		if (delete && rc == -EBUSY)
			*err = why;
		return rc;
	}
	rc = act_inside(i, a->word[1], delete, &why);
	if (rc == -ENOENT) {
		add_names(i, err);
	} else if (rc) {
		err_prefix(&why, "disk %s: ", a->word[0]);
		*err = why;
	}
	image_close(i);
	chain_family_free(&f);
	return rc;
}

int disk_revert(const struct subcommand_args *a)
{
	struct image_options o = { .format = NULL };
	struct err err;

	if (!chain_revert(a->word[0], a->word[1], &o, disk_job(a), &err))
		return disk_done(a);
	if (err.code != -ENOENT || inside(a, false, &err))
		return disk_failed(&err);
	disk_tell("%s is what the snapshot %s inside it was", a->word[0], a->word[1]);
	return disk_done(a);
}

int disk_delete(const struct subcommand_args *a)
{
	struct image_options o = disk_options(a);
	struct err err;

	if (!chain_delete(a->word[0], a->word[1], &o, disk_job(a), &err))
		return disk_done(a);
	if (err.code != -ENOENT || inside(a, true, &err))
		return disk_failed(&err);
	disk_tell("the snapshot %s inside %s: removed", a->word[1], a->word[0]);
	return disk_done(a);
}

int disk_commit(const struct subcommand_args *a)
{
	struct image_options o = disk_options(a);
	struct err err;

	return chain_commit(a->word[0], &o, disk_job(a), &err) ? disk_failed(&err) : disk_done(a);
}

int disk_rebase(const struct subcommand_args *a)
{
	const char *file = a->value[DISK_NEW_BACKING], *format = a->value[DISK_NEW_BACKING_FORMAT];
	struct chain_rebase r = { .backing = file && !strcmp(file, "none") ? "" : file,
				  .format = format, .trust = a->value[DISK_UNSAFE] };
	struct image_options o = disk_options(a);
	struct err err;

	if (!file && !format)
		return subcommand_misused(a, "nothing to do; give --backing FILE or --format F");
	return chain_rebase(a->word[0], &r, &o, disk_job(a), &err) ?
		disk_failed(&err) : disk_done(a);
}
