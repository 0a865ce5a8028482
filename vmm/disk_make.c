/* disk_make.c: 'vmm disk create', 'convert', 'resize' and 'compact'. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "devices/block/blk.h"
#include "devices/block/file.h"
#include "vmm/commands.h"
#include "vmm/config.h"
#include "vmm/core/log.h"
#include "vmm/disk.h"

/* --- what the options say --------------------------------------------------------------------- */

static bool ends_in(const char *path, const char *end)
{
	size_t len = strlen(path), k = strlen(end);

	return len > k && !strcmp(path + len - k, end);
}

static int pick_format(const struct subcommand_args *a, const char *path, struct image_create *c)
{
	static const struct { enum disk_option option; const char *name; } only_qcow2[] = {
		{ DISK_CLUSTER_SIZE, "cluster-size" }, { DISK_REFCOUNT_BITS, "refcount-bits" },
		{ DISK_COMPAT, "compat" }, { DISK_LAZY_REFCOUNTS, "lazy-refcounts" },
		{ DISK_COMPRESSION, "compression" }, { DISK_COMPRESS, "compress" },
		{ DISK_BACKING, "backing" },
	};
	const char *given = a->value[DISK_MAKE_FORMAT], *asks = NULL;

	for (unsigned i = 0; i < ARRAY_SIZE(only_qcow2) && !asks; i++)
		if (a->value[only_qcow2[i].option])
			asks = only_qcow2[i].name;
	c->format = given ? given : asks || ends_in(path, ".qcow2") ? "qcow2" : "raw";
	if (strcmp(c->format, "raw") && strcmp(c->format, "qcow2"))
		return subcommand_misused(a, "format '%s' is not known; known: raw, qcow2",
					  c->format);
	if (asks && !strcmp(c->format, "raw"))
		return subcommand_misused(a, "--%s is for qcow2; leave it or --format raw out",
					  asks);
	return EXIT_OK;
}

static int pick_space(const struct subcommand_args *a, struct image_create *c)
{
	static const char *const names[] = { "off", "metadata", "falloc", "full" };
	const char *how = a->value[DISK_PREALLOCATION];

	if (!!how + !!a->value[DISK_THIN] + !!a->value[DISK_THICK] > 1)
		return subcommand_misused(a, "--thin, --thick and --preallocation exclude each "
					  "other");
	if (a->value[DISK_THICK])
		how = "falloc";
	for (unsigned i = 0; how && i < ARRAY_SIZE(names); i++)
		if (!strcmp(how, names[i])) {
			c->preallocation = i;
			return EXIT_OK;
		}
	return !how ? EXIT_OK :
		subcommand_misused(a, "preallocation '%s' is none of off, metadata, falloc, full",
				   how);
}

static int pick_number(const struct subcommand_args *a, enum disk_option option, const char *what,
		       u64 max, u32 *out)
{
	struct err err;
	u64 n;

	if (!a->value[option])
		return EXIT_OK;
	if (config_parse_size(a->value[option], 1, &n, &err) || n > max || n & (n - 1))
		return subcommand_misused(a, "%s '%s' is not a power of two up to %s", what,
					  a->value[option], disk_size_text(max).text);
	*out = n;
	return EXIT_OK;
}

static int pick_word(const struct subcommand_args *a, enum disk_option option, const char *what,
		     const char *usual, const char *other, bool *is_other)
{
	const char *v = a->value[option];

	*is_other = v && !strcmp(v, other);
	return !v || *is_other || !strcmp(v, usual) ? EXIT_OK :
		subcommand_misused(a, "%s '%s' is neither %s nor %s", what, v, usual, other);
}

/* A name on the command line is as seen from here; in the image, from there.  The
 * caller frees c->backing. */
static int pick_backing(const struct subcommand_args *a, const char *path, struct image_create *c)
{
	const char *file = a->value[DISK_BACKING];
	struct err err;

	c->backing_format = a->value[DISK_BACKING_FORMAT];
	if (!file)
		return !c->backing_format ? EXIT_OK :
			subcommand_misused(a, "--backing-format without --backing");
	if (chain_refuse_marked(file, &err))
		return disk_failed(&err);
	c->backing = chain_recorded_as(path, file);
	if (!c->backing) {
		log_err("disk %s: %s", file, strerror(errno));
		return EXIT_USAGE;
	}
	if (c->backing[0] == '/')
		log_warn("disk %s: its backing file %s is outside its directory; a VM that uses "
			 "it needs 'backing=anywhere'", path, c->backing);
	return EXIT_OK;
}

static int pick_all(const struct subcommand_args *a, const char *path, struct image_create *c)
{
	bool is_v2 = false;
	int status = pick_format(a, path, c);

	if (!status)
		status = pick_space(a, c);
	if (!status)
		status = pick_number(a, DISK_CLUSTER_SIZE, "cluster size", CLUSTER_MAX,
				     &c->cluster);
	if (!status)
		status = pick_number(a, DISK_REFCOUNT_BITS, "refcount bits", 64, &c->refcount_bits);
	if (!status)
		status = pick_word(a, DISK_COMPAT, "compat", "v3", "v2", &is_v2);
	if (!status)
		status = pick_word(a, DISK_COMPRESSION, "compression", "zlib", "zstd", &c->zstd);
	if (!status)
		status = pick_backing(a, path, c);
	c->version = is_v2 ? 2 : 3;
	c->lazy_refcounts = a->value[DISK_LAZY_REFCOUNTS];
	return status;
}

static int pick_size(const struct subcommand_args *a, const char *text, u64 *size)
{
	struct err err;

	if (config_parse_size(text, 1, size, &err))
		return subcommand_misused(a, "%s", err.msg);
	if (*size % BLK_SECTOR || *size > INT64_MAX)
		return subcommand_misused(a, "size '%s' is not a multiple of %d bytes, or too "
					  "large", text, BLK_SECTOR);
	return EXIT_OK;
}

/* Too large is what was asked for, and else what the host has met. */
static int size_failed(const char *path, struct err *err)
{
	if (err->code == -EFBIG)
		err_set(err, -EINVAL, "disk %s: the host makes no file as large as that; choose a smaller size", path);
	return disk_failed(err);
}

int disk_create(const struct subcommand_args *a)
{
	struct image_create c = { 0 };
	struct err err;
	int status = pick_all(a, a->word[0], &c);

	disk_job(a);	/* A signal ends taking the space, and what was made is removed. */
	if (!status && a->word[1])
		status = pick_size(a, a->word[1], &c.size);
	else if (!status && !c.backing)
		status = subcommand_misused(a, "no SIZE; usage: vmm disk create [options] PATH "
					    "SIZE");
	if (!status && image_create(a->word[0], &c, &err))
		status = size_failed(a->word[0], &err);
	free((char *)(uintptr_t)c.backing);
	return status;
}

/* --- convert ---------------------------------------------------------------------------------- */

/* A format that is named is the user's word; else a guest must not choose it (see blk.c). */
static int check_head(const struct subcommand_args *a, struct image *from, const char *path,
		      struct err *err)
{
	bool qcow2;
	int rc = image_begins_as_qcow2(from, &qcow2);

	if (rc)
		return err_set(err, rc, "disk %s: %s", from->path, strerror(-rc));
	if (!qcow2)
		return 0;
	if (!a->value[DISK_MAKE_FORMAT])
		return err_set(err, -EINVAL, "disk %s: its first bytes are those of a qcow2 image, for "
			       "which a raw %s would be taken; say --format qcow2, or --format raw and "
			       "use it with format=raw", from->path, path);
	log_warn("disk %s: its first bytes are those of a qcow2 image: use it with format=raw", path);
	return 0;
}

/* Under a name of its own until all is there. */
static int make_copy(const struct subcommand_args *a, struct image *from, const char *path,
		     const struct image_create *asked, struct err *err)
{
	struct image_create c = *asked;
	struct stat made, st;
	struct image_options o = { .format = asked->format, .backing_anywhere = true, .is = &made };
	struct chain_copy how = { .compare = asked->backing, .blank = !asked->backing,
				  .pack = a->value[DISK_COMPRESS] };
	struct chain_job *job = disk_job(a);
	char *temp = chain_temp(path);
	struct image *to = NULL;
	int rc;

	if (!temp)
		return err_set(err, -ENOMEM, "out of memory");
	c.size = from->size;
	c.called = path;
	c.made = &made;
	/* Who may not read the one, or what it is backed by, is not to read the other. */
	c.mode = 0666;
	for (const struct image *i = from; i; i = i->backing)
		c.mode &= fstat(i->fd, &st) ? 0 : st.st_mode;
	c.mode |= S_IRUSR | S_IWUSR;
	rc = chain_refuse_long_name(path, err);
	if (!rc && !strcmp(c.format, "raw"))
		rc = check_head(a, from, path, err);
	if (!rc)
		rc = image_create(temp, &c, err);
	if (rc) {
		free(temp);
		return rc;
	}
	rc = image_open(&to, temp, &o, err);
	if (!rc)
		rc = chain_copy(from, to, &how, job, err);
	image_close(to);
	if (!rc)
		rc = chain_sync_dir(path, err);
	/* Neither replaces a file that somebody made meanwhile. */
	if (!rc && renameat2(AT_FDCWD, temp, AT_FDCWD, path, RENAME_NOREPLACE) &&
	    (errno != EINVAL || link(temp, path)))
		rc = err_set(err, -errno, "disk %s: %s", path, strerror(errno));
	unlink(temp);
	free(temp);
	return rc ? rc : chain_sync_dir(path, err);
}

int disk_convert(const struct subcommand_args *a)
{
	struct image_options o = { .format = a->value[DISK_SOURCE_FORMAT], .read_only = true,
				   .backing_anywhere = a->value[DISK_BACKING_ANYWHERE] };
	const char *path = a->word[1];
	struct image_create c = { 0 };
	struct image *from = NULL;
	struct err err;
	int status;

	if (image_refuse_existing(path, &err))
		return disk_failed(&err);
	status = pick_all(a, path, &c);
	if (!status && (chain_refuse_marked(a->word[0], &err) || image_open(&from, a->word[0], &o, &err) ||
			make_copy(a, from, path, &c, &err)))
		status = disk_failed(&err);
	image_close(from);
	free((char *)(uintptr_t)c.backing);
	return status;
}

/* --- resize, compact -------------------------------------------------------------------------- */

static int resize(const struct subcommand_args *a, struct image *i, const struct chain_family *f)
{
	const char *text = a->word[1];
	struct err err;
	u64 by, size;
	int status = pick_size(a, text + (*text == '+' || *text == '-'), &by);

	if (status)
		return status;
	size = *text == '+' ? i->size + by : *text == '-' ? i->size - by : by;
	if (*text == '-' && by >= i->size)
		return subcommand_misused(a, "%s has only %s", a->word[0],
					  disk_size_text(i->size).text);
	if (i->ops == &raw_image && file_is_device(i->fd))
		return subcommand_misused(a, "%s is a block device, whose size is not vmm's to "
					  "change", a->word[0]);
	if (chain_refuse_used(f, a->word[0], &err))
		return disk_failed(&err);
	if (size < i->size && !a->value[DISK_SHRINK])
		return subcommand_misused(a, "%s is smaller than the %s of %s; what is beyond "
					  "would be lost. If that is meant, say --shrink",
					  disk_size_text(size).text, disk_size_text(i->size).text,
					  a->word[0]);
	if (image_resize(i, size, &err)) {
		err_prefix(&err, "disk %s: ", a->word[0]);
		return size_failed(a->word[0], &err);
	}
	return EXIT_OK;
}

int disk_resize(const struct subcommand_args *a)
{
	struct image_options o = disk_options(a);
	struct chain_family f;
	struct image *i;
	struct err err;
	int status, rc;

	if (image_open(&i, a->word[0], &o, &err))
		return disk_failed(&err);
	status = chain_family(&f, a->word[0], i->ops->format, &err) ? disk_failed(&err) :
		 resize(a, i, &f);
	rc = status ? 0 : chain_settle(i);
	if (rc) {
		log_err("disk %s: %s", a->word[0], strerror(-rc));
		status = EXIT_RUNTIME;
	}
	chain_family_free(&f);
	image_close(i);
	return status;
}

int disk_compact(const struct subcommand_args *a)
{
	struct image_options o = disk_options(a);
	struct stat before, after;
	struct err err;

	if (stat(a->word[0], &before))
		before.st_blocks = 0;
	if (chain_compact(a->word[0], &o, disk_job(a), &err))
		return disk_failed(&err);
	if (!stat(a->word[0], &after))
		disk_tell("%s: %s on the host, was %s", a->word[0],
			  disk_size_text(after.st_blocks * 512ULL).text,
			  disk_size_text(before.st_blocks * 512ULL).text);
	return disk_done(a);
}
