/* disk_show.c: 'vmm disk info', 'check', 'map' and 'list'. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "vmm/commands.h"
#include "vmm/core/log.h"
#include "vmm/disk.h"

struct date { char text[24]; };
static struct date date_text(time_t at)
{
	struct date d = { "" };
	struct tm tm;

	if (localtime_r(&at, &tm))
		strftime(d.text, sizeof(d.text), "%Y-%m-%d %H:%M", &tm);
	return d;
}

/* A file as all of these show it. */
static json_t *file_json(const char *disk, const struct chain_file *f)
{
	char name[CHAIN_NAME_MAX + 1];
	bool is_snapshot = chain_snapshot_name(disk, f, name);

	return json_pack("{s:o, s:s, s:I, s:I, s:I, s:o, s:o, s:o}", "filename", disk_json(f->path),
			 "format", f->format, "virtual-size", (json_int_t)f->size, "actual-size",
			 (json_int_t)f->on_host, "changed", (json_int_t)f->changed, "snapshot",
			 disk_json_or_null(is_snapshot ? name : NULL), "backing-filename",
			 disk_json_or_null(f->backing), "backing-format",
			 disk_json_or_null(f->backing_format));
}

/* --- info ------------------------------------------------------------------------------------- */

struct subject {
	const char *path;
	struct image *image;		/* only the file itself */
	struct chain_family family;
	struct image_snapshot *inside;
	unsigned nr_inside;
};

static void subject_close(struct subject *s)
{
	image_snapshots_free(s->inside, s->nr_inside);
	chain_family_free(&s->family);
	image_close(s->image);
}

static int subject_open(struct subject *s, const struct subcommand_args *a, struct err *err)
{
	struct image_options o = { .format = a->value[DISK_FORMAT], .read_only = true,
				   .no_backing = true, .no_lock = true };
	int rc;

	*s = (struct subject){ .path = a->word[0] };
	rc = image_open(&s->image, s->path, &o, err);
	if (!rc)
		rc = chain_family(&s->family, s->path, o.format, err);
	if (!rc) {
		s->path = s->family.file[0].path;	/* not of a symbolic link */
		rc = image_snapshots(s->image, &s->inside, &s->nr_inside, err);
		if (rc)
			err_prefix(err, "disk %s: ", s->path);
	}
	if (rc)
		subject_close(s);
	return rc;
}

static json_t *one_inside_json(const struct image_snapshot *s)
{
	return json_pack("{s:o, s:o, s:I, s:I, s:I}", "id", disk_json(s->id), "name",
			 disk_json(s->name), "virtual-size", (json_int_t)s->size,
			 "vm-state-size", (json_int_t)s->vm_state, "date",
			 (json_int_t)s->date_s);
}

static json_t *inside_json(const struct subject *s)
{
	json_t *list = json_array();

	for (unsigned n = 0; n < s->nr_inside; n++)
		json_array_append_new(list, one_inside_json(&s->inside[n]));
	return list;
}

static json_t *chain_json(const struct subject *s)
{
	json_t *list = json_array();

	for (unsigned n = 0; n < s->family.depth; n++)
		json_array_append_new(list, file_json(s->path, &s->family.file[n]));
	return list;
}

static void info_json(const struct subject *s)
{
	json_t *root = file_json(s->path, &s->family.file[0]);
	struct image_create how = { 0 };

	chain_like(s->image, &how);
	if (how.version) {
		json_object_set_new(root, "cluster-size", json_integer(how.cluster));
		json_object_set_new(root, "version", json_integer(how.version));
		json_object_set_new(root, "refcount-bits", json_integer(how.refcount_bits));
		json_object_set_new(root, "lazy-refcounts", json_boolean(how.lazy_refcounts));
		json_object_set_new(root, "compression", json_string(how.zstd ? "zstd" : "zlib"));
	}
	json_object_set_new(root, "state", json_string(chain_state(s->image) ?: "clean"));
	json_object_set_new(root, "chain", chain_json(s));
	if (s->family.broken.code)
		json_object_set_new(root, "chain-error", disk_json(s->family.broken.msg));
	json_object_set_new(root, "inside", inside_json(s));
	subcommand_print_json(root);
}

static void info_text(const struct subject *s)
{
	const struct chain_file *f = s->family.file;
	struct image_create how = { 0 };
	char name[CHAIN_NAME_MAX + 1];

	print_row("image", "%s", s->path);
	chain_like(s->image, &how);
	if (how.version)
		print_row("format", "qcow2, version %u", how.version);
	else
		print_row("format", "raw");
	print_row("size", "%s (%" PRIu64 " bytes)", disk_size_text(f->size).text, f->size);
	print_row("on the host", "%s", disk_size_text(f->on_host).text);
	if (how.version) {
		print_row("clusters", "%s, counted in %u bits%s", disk_size_text(how.cluster).text,
			  how.refcount_bits, how.lazy_refcounts ? ", lazily" : "");
		print_row("compression", "%s", how.zstd ? "zstd" : "zlib");
	}
	if (chain_state(s->image))
		print_row("state", "%s; see 'vmm disk check'", chain_state(s->image));
	for (unsigned n = 1; n < s->family.depth; n++)
		print_row(n == 1 ? "backed by" : "", "%s (%s)%s%s", f[n].path, f[n].format,
			  chain_snapshot_name(s->path, &f[n], name) ? ", snapshot " : "",
			  chain_snapshot_name(s->path, &f[n], name) ? name : "");
	if (s->family.broken.code)
		print_row(s->family.depth == 1 ? "backed by" : "", "? %s", s->family.broken.msg);
	for (unsigned n = 0; n < s->nr_inside; n++)
		print_row(n ? "" : "inside", "snapshot %s (%s), %s", s->inside[n].name,
			  s->inside[n].id, date_text(s->inside[n].date_s).text);
}

int disk_info(const struct subcommand_args *a)
{
	struct subject s;
	struct err err;

	if (subject_open(&s, a, &err))
		return disk_failed(&err);
	if (a->value[DISK_JSON])
		info_json(&s);
	else
		info_text(&s);
	subject_close(&s);
	return EXIT_OK;
}

/* --- list ------------------------------------------------------------------------------------- */

static void print_tree(const struct subject *s, int k, int depth)
{
	const struct chain_file *f = &s->family.file[k];
	char name[CHAIN_NAME_MAX + 1];
	bool is_snapshot = chain_snapshot_name(s->path, f, name);

	printf("%-20s %-6s %6s %6s  %s  %*s%s%s\n", is_snapshot ? name : k ? "-" : "(now)",
	       f->format, disk_size_text(f->size).text, disk_size_text(f->on_host).text,
	       date_text(f->changed).text, 2 * depth, "", depth ? "`- " : "", disk_shown(f->path).text);
	for (unsigned n = 0; n < s->family.nr; n++)
		if (s->family.file[n].parent == k && (int)n != k)
			print_tree(s, n, depth + 1);
}

static void list_text(const struct subject *s)
{
	printf("%-20s %-6s %6s %6s  %-16s  %s\n", "SNAPSHOT", "FORMAT", "SIZE", "HOST", "CHANGED",
	       "FILE");
	print_tree(s, s->family.depth - 1, 0);
	for (unsigned n = 0; n < s->nr_inside; n++)
		printf("%-20s %-6s %6s %6s  %s  inside %s\n", disk_shown(s->inside[n].name).text, "",
		       disk_size_text(s->inside[n].size).text, "",
		       date_text(s->inside[n].date_s).text, disk_shown(s->path).text);
}

static bool is_related(const struct chain_family *f, unsigned n)
{
	/* No chain is longer than the family; one that is goes round. */
	for (unsigned k = 0; k < f->nr; k++) {
		if (n < f->depth)
			return true;
		if (f->file[n].parent < 0)
			return false;
		n = f->file[n].parent;
	}
	return false;
}

static void list_json(const struct subject *s)
{
	json_t *files = json_array();

	for (unsigned n = 0; n < s->family.nr; n++) {
		const struct chain_file *f = &s->family.file[n];
		json_t *o;

		if (!is_related(&s->family, n))
			continue;
		o = file_json(s->path, f);
		json_object_set_new(o, "in-chain", json_boolean(n < s->family.depth));
		json_object_set_new(o, "parent", f->parent < 0 ? json_null() :
				    disk_json(s->family.file[f->parent].path));
		json_array_append_new(files, o);
	}
	subcommand_print_json(json_pack("{s:o, s:o}", "files", files, "inside", inside_json(s)));
}

int disk_list(const struct subcommand_args *a)
{
	struct subject s;
	struct err err;

	if (subject_open(&s, a, &err))
		return disk_failed(&err);
	if (a->value[DISK_JSON])
		list_json(&s);
	else
		list_text(&s);
	if (s.family.broken.code)
		log_warn("%s", s.family.broken.msg);
	subject_close(&s);
	return EXIT_OK;
}

/* --- check ------------------------------------------------------------------------------------ */

static void say(const char *line, void *arg)
{
	(void)arg;
	puts(disk_shown(line).text);
}

static void check_text(const char *name, const struct image_check *c, bool repair, bool clusters)
{
	const struct disk_line line = disk_shown(name);
	const char *path = line.text;

	if (c->fixed)
		printf("%s: mended %" PRIu64 " things\n", path, c->fixed);
	if (c->lost)
		printf("%s: it was cut off: %" PRIu64 " clusters were beyond its end, and read as zeroes\n",
		       path, c->lost);
	if (c->corruptions)
		printf("%s: %" PRIu64 " things are wrong%s\n", path, c->corruptions,
		       repair ? " still; copy what can be read with 'vmm disk convert'" :
				"; --repair may mend them");
	if (c->leaks)
		printf("%s: %" PRIu64 " clusters are leaked, which wastes space and does no harm"
		       "%s\n", path, c->leaks, repair ? "" : "; --repair gives them back");
	if (!c->corruptions && !c->leaks)
		printf("%s: sound\n", path);
	if (clusters)
		printf("%" PRIu64 " of %" PRIu64 " clusters are allocated, %" PRIu64 " of them "
		       "compressed\n", c->allocated, c->total, c->packed);
}

static void check_json(const char *path, const struct image_check *c, json_t *lines)
{
	subcommand_print_json(json_pack(
			     "{s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "filename",
			     disk_json(path), "corruptions", (json_int_t)c->corruptions, "leaks",
			     (json_int_t)c->leaks, "fixed", (json_int_t)c->fixed, "lost",
			     (json_int_t)c->lost,
			     "allocated-clusters",
			     (json_int_t)c->allocated, "compressed-clusters", (json_int_t)c->packed,
			     "total-clusters", (json_int_t)c->total, "messages", lines));
}

static void keep(const char *line, void *lines)
{
	json_array_append_new(lines, json_string(line));
}

int disk_check(const struct subcommand_args *a)
{
	bool repair = a->value[DISK_REPAIR], json = a->value[DISK_JSON];
	struct image_options o = { .format = a->value[DISK_FORMAT], .read_only = !repair,
				   .no_backing = true, .repairing = true };
	json_t *lines = json_array();
	struct image_check c = { .tell = json ? keep : say, .arg = lines };
	bool raw;
	struct image *i;
	struct err err;
	int rc = image_open(&i, a->word[0], &o, &err);

	if (rc) {
		json_decref(lines);
		/* What is no image any more could not be checked; the user is not wrong. */
		return rc == -EINVAL ? log_err("%s", err.msg), EXIT_RUNTIME : disk_failed(&err);
	}
	raw = i->ops == &raw_image;
	rc = image_check(i, repair, &c, &err);
	image_close(i);
	if (rc) {
		json_decref(lines);
		log_err("disk %s: %s", a->word[0], err.msg);
		return EXIT_RUNTIME;
	}
	if (json) {
		check_json(a->word[0], &c, lines);
	} else {
		json_decref(lines);
		check_text(a->word[0], &c, repair, !raw);
	}
	return c.corruptions ? EXIT_RUNTIME : EXIT_OK;
}

/* --- map -------------------------------------------------------------------------------------- */

struct run {
	u64 start, len, at;		/* at: in the file */
	int depth;
	const char *kind;
	const struct image *image;
};

static const char *kind_of(const struct image_where *w)
{
	if (w->depth < 0)
		return "zero";
	return w->extent.kind == EXTENT_PACKED ? "packed" : "data";
}

static void print_run(const struct run *r, json_t *list)
{
	bool has_place = !strcmp(r->kind, "data");

	if (list) {
		json_t *o = json_pack("{s:I, s:I, s:s, s:i}", "start", (json_int_t)r->start,
				      "length", (json_int_t)r->len, "kind", r->kind, "depth",
				      r->depth);

		if (has_place)
			json_object_set_new(o, "offset", json_integer(r->at));
		if (r->image)
			json_object_set_new(o, "filename", disk_json(r->image->path));
		json_array_append_new(list, o);
		return;
	}
	printf("0x%-12" PRIx64 " 0x%-12" PRIx64 " %-6s", r->start, r->len, r->kind);
	if (has_place)
		printf(" %d 0x%-12" PRIx64 " %s", r->depth, r->at,
		       disk_shown(r->image->path).text);
	else if (r->image)
		printf(" %d %-14s %s", r->depth, "", disk_shown(r->image->path).text);
	putchar('\n');
}

static bool goes_on(const struct run *a, const struct run *b)
{
	return a->len && a->depth == b->depth && !strcmp(a->kind, b->kind) &&
	       (strcmp(a->kind, "data") || a->at + a->len == b->at);
}

static int walk(struct image *i, json_t *list)
{
	struct run last = { 0 };
	struct image_where w;
	int rc = 0;

	for (u64 at = 0; at < i->size && !rc; at += w.extent.len) {
		struct run now;

		rc = image_where(i, at, i->size - at, &w);
		if (rc)
			break;
		now = (struct run){ at, w.extent.len, w.extent.file_offset, w.depth, kind_of(&w),
				    w.depth < 0 ? NULL : w.image };
		if (goes_on(&last, &now)) {
			last.len += now.len;
			continue;
		}
		if (last.len)
			print_run(&last, list);
		last = now;
	}
	if (!rc && last.len)
		print_run(&last, list);
	return rc;
}

int disk_map(const struct subcommand_args *a)
{
	struct image_options o = disk_options(a);
	json_t *list = a->value[DISK_JSON] ? json_array() : NULL;
	struct image *i;
	struct err err;
	int rc;

	o.read_only = o.no_lock = true;
	if (image_open(&i, a->word[0], &o, &err)) {
		json_decref(list);
		return disk_failed(&err);
	}
	if (!list)
		printf("%-14s %-14s %-6s D %-14s FILE\n", "START", "LENGTH", "KIND", "OFFSET");
	rc = walk(i, list);
	if (rc)
		log_err("disk %s: %s", a->word[0], strerror(-rc));
	image_close(i);
	if (!rc && list)
		subcommand_print_json(list);
	else
		json_decref(list);
	return rc ? EXIT_RUNTIME : EXIT_OK;
}
