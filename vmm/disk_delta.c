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

	return chain_snapshot(a->word[0], a->word[1], &o, disk_job(), &err) ?
		disk_failed(&err) : EXIT_OK;
}

/* Snapshots inside the file.  found: there is one of that name, or id. */
static int inside(const struct subcommand_args *a, bool delete, bool *found, struct err *err)
{
	struct image_options o = { .format = "qcow2", .no_backing = true };
	struct image_snapshot *s = NULL;
	struct chain_family f = { 0 };
	struct image *i;
	unsigned nr = 0;
	/* Going back changes what is based on it. */
	int rc = delete ? image_open(&i, a->word[0], &o, err) :
			  chain_open(&i, a->word[0], &o, &f, err);

	*found = false;
	if (rc)
		return rc;
	rc = image_snapshots(i, &s, &nr, err);
	for (unsigned n = 0; n < nr && !*found; n++)
		*found = !strcmp(s[n].name, a->word[1]) || !strcmp(s[n].id, a->word[1]);
	if (!rc && *found)
		rc = delete ? image_snapshot_delete(i, a->word[1], err) :
			      image_snapshot_apply(i, a->word[1], err);
	else if (!rc)
		rc = err_set(err, -ENOENT, "no snapshot '%s' inside it", a->word[1]);
	if (!rc) {
		rc = chain_settle(i);
		if (rc)
			err_set(err, rc, "%s", strerror(-rc));
	}
	if (rc)
		err_prefix(err, "disk %s: ", a->word[0]);
	image_snapshots_free(s, nr);
	image_close(i);
	chain_family_free(&f);
	return rc;
}

int disk_revert(const struct subcommand_args *a)
{
	struct image_options o = { .format = NULL };
	struct err err, why;
	bool found;

	if (!chain_revert(a->word[0], a->word[1], &o, disk_job(), &err))
		return EXIT_OK;
	if (err.code == -ENOENT) {
		if (!inside(a, false, &found, &why)) {
			printf("%s is what the snapshot %s inside it was\n", a->word[0],
			       a->word[1]);
			return EXIT_OK;
		}
		if (found)
			err = why;
	}
	return disk_failed(&err);
}

int disk_delete(const struct subcommand_args *a)
{
	struct image_options o = disk_options(a);
	struct err err, why;
	bool found;

	if (!chain_delete(a->word[0], a->word[1], &o, disk_job(), &err))
		return EXIT_OK;
	if (err.code == -ENOENT) {
		if (!inside(a, true, &found, &why)) {
			printf("the snapshot %s inside %s: removed\n", a->word[1], a->word[0]);
			return EXIT_OK;
		}
		if (found || why.code == -EBUSY)
			err = why;
	}
	return disk_failed(&err);
}

int disk_commit(const struct subcommand_args *a)
{
	struct image_options o = disk_options(a);
	struct err err;

	return chain_commit(a->word[0], &o, disk_job(), &err) ? disk_failed(&err) : EXIT_OK;
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
	return chain_rebase(a->word[0], &r, &o, disk_job(), &err) ? disk_failed(&err) : EXIT_OK;
}
