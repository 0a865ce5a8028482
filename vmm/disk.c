/* disk.c: 'vmm disk': its commands and their options. */
#include "vmm/disk.h"
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "vmm/commands.h"
#include "vmm/core/log.h"

static const struct subcommand_option options[DISK_NR_OPTIONS] = {
	[DISK_MAKE_FORMAT] = { "format", "F",
		"raw or qcow2; without, qcow2 if PATH ends so or an option\nneeds it, else raw" },
	[DISK_FORMAT] = { "format", "F", "what PATH is; without, by its first bytes" },
	[DISK_SOURCE_FORMAT] = { "source-format", "F",
		"what SOURCE is; without, by its first bytes" },
	[DISK_THIN] = { "thin", NULL, "take space as it is written to (default)" },
	[DISK_THICK] = { "thick", NULL, "take all space now" },
	[DISK_PREALLOCATION] = { "preallocation", "P",
		"off (thin), metadata (of qcow2), falloc (thick), full" },
	[DISK_CLUSTER_SIZE] = { "cluster-size", "N", "512 to 2M, a power of two (default 64K)" },
	[DISK_REFCOUNT_BITS] = { "refcount-bits", "N", "1, 2, 4, 8, 16 (default), 32 or 64" },
	[DISK_COMPAT] = { "compat", "V", "v3 (default), or v2 for programs from before 2011" },
	[DISK_LAZY_REFCOUNTS] = { "lazy-refcounts", NULL,
		"count clusters after a crash, instead of all along" },
	[DISK_COMPRESSION] = { "compression", "C",
		"zlib (default) or zstd, for what is compressed" },
	[DISK_COMPRESS] = { "compress", NULL, "compress what is copied" },
	[DISK_BACKING] = { "backing", "FILE", "make a delta: what it lacks is in FILE" },
	[DISK_BACKING_FORMAT] = { "backing-format", "F",
		"what FILE is; without, by its first bytes" },
	[DISK_NEW_BACKING] = { "backing", "FILE", "the new backing file; 'none': make PATH whole" },
	[DISK_NEW_BACKING_FORMAT] = { "format", "F",
		"what FILE, or without it the present one, is" },
	[DISK_UNSAFE] = { "unsafe", NULL,
		"FILE has the same bytes as the present one: copy nothing" },
	[DISK_SHRINK] = { "shrink", NULL, "make it smaller: what is beyond the new end is lost" },
	[DISK_REPAIR] = { "repair", NULL, "mend it, and give leaked clusters back" },
	[DISK_JSON] = { "json", NULL, "for programs" },
	[DISK_BACKING_ANYWHERE] = { "backing-anywhere", NULL,
		"allow backing files outside the image's directory" },
};

#define O(name) (1u << DISK_##name)
#define O_MADE (O(MAKE_FORMAT) | O(THIN) | O(THICK) | O(PREALLOCATION) | O(CLUSTER_SIZE) | \
		O(REFCOUNT_BITS) | O(COMPAT) | O(LAZY_REFCOUNTS) | O(COMPRESSION) | O(BACKING) | \
		O(BACKING_FORMAT))

static const struct subcommand commands[] = {
	{ "create", "PATH [SIZE]", 1, 2, O_MADE, "make an image", disk_create },
	{ "info", "PATH", 1, 1, O(FORMAT) | O(JSON),
	  "what an image is, and what it is backed by", disk_info },
	{ "check", "PATH", 1, 1, O(FORMAT) | O(REPAIR) | O(JSON), "is it sound?", disk_check },
	{ "map", "PATH", 1, 1, O(FORMAT) | O(JSON) | O(BACKING_ANYWHERE),
	  "where in which file the disk's bytes are", disk_map },
	{ "convert", "SOURCE PATH", 2, 2,
	  O_MADE | O(SOURCE_FORMAT) | O(COMPRESS) | O(BACKING_ANYWHERE),
	  "copy into a new image", disk_convert },
	{ "resize", "PATH [+|-]SIZE", 2, 2, O(FORMAT) | O(SHRINK) | O(BACKING_ANYWHERE),
	  "make the disk larger or smaller", disk_resize },
	{ "snapshot", "PATH NAME", 2, 2, O(FORMAT) | O(JSON),
	  "keep it as it is now, and go on in a delta", disk_snapshot },
	{ "list", "PATH", 1, 1, O(FORMAT) | O(JSON), "its snapshots, as a tree", disk_list },
	{ "revert", "PATH NAME", 2, 2, O(JSON),
	  "go back to a snapshot; what came after it is lost", disk_revert },
	{ "delete", "PATH NAME", 2, 2, O(BACKING_ANYWHERE) | O(JSON),
	  "delete a snapshot; the disk and its others stay as they are", disk_delete },
	{ "commit", "PATH", 1, 1, O(BACKING_ANYWHERE) | O(JSON),
	  "fold the delta into what is below it", disk_commit },
	{ "rebase", "PATH", 1, 1,
	  O(NEW_BACKING) | O(NEW_BACKING_FORMAT) | O(UNSAFE) | O(BACKING_ANYWHERE) | O(JSON),
	  "give it another backing file; its content stays", disk_rebase },
	{ "compact", "PATH", 1, 1, O(FORMAT) | O(BACKING_ANYWHERE) | O(JSON),
	  "give unused space back", disk_compact },
};

/* --- what the commands share ---------------------------------------------------------------- */

int disk_failed(const struct err *err)
{
	static const int users[] = {	/* by what was asked, not by what happened */
		EINVAL, ENOENT, EACCES, EPERM, EBUSY, ENOTSUP, ENOTDIR, EISDIR, EROFS, ELOOP,
		ENAMETOOLONG, EUCLEAN, EEXIST,
	};

	log_err("%s", err->msg);
	for (unsigned i = 0; i < ARRAY_SIZE(users); i++)
		if (err->code == -users[i])
			return EXIT_USAGE;
	return EXIT_RUNTIME;
}

struct image_options disk_options(const struct subcommand_args *a)
{
	return (struct image_options){ .format = a->value[DISK_FORMAT],
				       .backing_anywhere = a->value[DISK_BACKING_ANYWHERE] };
}

static volatile sig_atomic_t interrupted;
static bool show_progress;
static json_t *told;		/* with --json */
static int percent = -1;

static void interrupt(int signal)
{
	(void)signal;
	interrupted = 1;
}

static int step(struct chain_job *job, u64 done, u64 total)
{
	int now = total ? done * 100.0 / total : 100;

	(void)job;
	if (show_progress && now != percent) {
		fprintf(stderr, now < 100 ? "\r%3d%%" : "\r    \r", now);
		percent = now;
	}
	if (!interrupted)
		return 0;
	if (show_progress)
		fputs("\r    \r", stderr);
	return -EINTR;
}

static void tell(struct chain_job *job, const char *line)
{
	(void)job;
	if (told)
		json_array_append_new(told, disk_json(line));
	else
		puts(disk_shown(line).text);
}

struct chain_job *disk_job(const struct subcommand_args *a)
{
	static struct chain_job job = { .step = step, .tell = tell };
	struct sigaction sa = { .sa_handler = interrupt };

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
	show_progress = isatty(STDERR_FILENO);
	if (a->value[DISK_JSON])
		told = json_array();
	return &job;
}

void disk_tell(const char *fmt, ...)
{
	char line[2 * PATH_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	tell(NULL, line);
}

int disk_done(const struct subcommand_args *a)
{
	if (told)
		subcommand_print_json(json_pack("{s:o, s:o}", "filename",
						disk_json(a->word[0]), "messages", told));
	return EXIT_OK;
}

json_t *disk_json(const char *bytes)
{
	json_t *o = json_string(bytes);
	char *copy = o ? NULL : strdup(bytes);

	for (char *c = copy; c && *c; c++)
		if (*c & 0x80)
			*c = '?';
	if (copy)
		o = json_string(copy);
	free(copy);
	return o;
}

json_t *disk_json_or_null(const char *bytes)
{
	return bytes ? disk_json(bytes) : json_null();
}

struct disk_line disk_shown(const char *bytes)
{
	struct disk_line s;

	snprintf(s.text, sizeof(s.text), "%s", bytes);
	mask_controls(s.text);
	return s;
}

struct disk_text disk_size_text(u64 size)
{
	struct disk_text t;
	double n = size;
	unsigned unit = 0;

	for (; n >= 1024 && unit < 5; unit++)
		n /= 1024;
	/* Rounded, but not over the unit's end. */
	snprintf(t.text, sizeof(t.text), n == (u64)n || n >= 99.95 ? "%.0f%.*s" : "%.1f%.*s", n,
		 unit ? 1 : 0, &"BKMGTP"[unit]);
	return t;
}

int command_disk(int argc, char **argv)
{
	static const struct subcommands disk = {
		"disk", "vmm disk makes, shows and changes disk images that no VM uses.",
		options, ARRAY_SIZE(options), commands, ARRAY_SIZE(commands),
	};

	return subcommand_run(&disk, argc, argv);
}
