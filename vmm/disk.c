/* disk.c: 'vmm disk': its commands, their options, and how they are read. */
#include "vmm/disk.h"
#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "vmm/commands.h"
#include "vmm/config.h"
#include "vmm/core/log.h"

static const struct {
	const char *name, *metavar;	/* NULL: a switch */
	const char *help;
} options[DISK_NR_OPTIONS] = {
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

static const struct command {
	const char *name, *words;
	int min, max;			/* of words */
	u32 options;
	const char *help;
	int (*run)(const struct disk_args *);
} commands[] = {
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
	{ "snapshot", "PATH NAME", 2, 2, O(FORMAT),
	  "keep it as it is now, and go on in a delta", disk_snapshot },
	{ "list", "PATH", 1, 1, O(FORMAT) | O(JSON), "its snapshots, as a tree", disk_list },
	{ "revert", "PATH NAME", 2, 2, 0,
	  "go back to a snapshot; what came after it is lost", disk_revert },
	{ "delete", "PATH NAME", 2, 2, 0, "delete a snapshot inside a qcow2 file", disk_delete },
	{ "commit", "PATH", 1, 1, O(BACKING_ANYWHERE),
	  "fold the delta into what is below it", disk_commit },
	{ "rebase", "PATH", 1, 1,
	  O(NEW_BACKING) | O(NEW_BACKING_FORMAT) | O(UNSAFE) | O(BACKING_ANYWHERE),
	  "give it another backing file; its content stays", disk_rebase },
	{ "compact", "PATH", 1, 1, O(FORMAT) | O(BACKING_ANYWHERE),
	  "give unused space back", disk_compact },
};

/* --- what the commands share ---------------------------------------------------------------- */

int disk_misused(const struct disk_args *a, const char *fmt, ...)
{
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_err("disk %s: %s", a->command, text);
	return EXIT_USAGE;
}

int disk_failed(const struct err *err)
{
	static const int users[] = {	/* by what was asked, not by what happened */
		EINVAL, ENOENT, EACCES, EPERM, EBUSY, ENOTSUP, ENOTDIR, EISDIR, EROFS, ELOOP,
		ENAMETOOLONG, EUCLEAN, EFBIG,
	};

	log_err("%s", err->msg);
	for (unsigned i = 0; i < ARRAY_SIZE(users); i++)
		if (err->code == -users[i])
			return EXIT_USAGE;
	return EXIT_RUNTIME;
}

struct image_options disk_options(const struct disk_args *a)
{
	return (struct image_options){ .format = a->value[DISK_FORMAT],
				       .backing_anywhere = a->value[DISK_BACKING_ANYWHERE] };
}

static volatile sig_atomic_t interrupted;
static bool show_progress;
static int percent = -1;

static void interrupt(int signal)
{
	(void)signal;
	interrupted = 1;
}

static int step(struct chain_job *job, u64 done, u64 total)
{
	int now = done * 100.0 / total;

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
	puts(line);
}

struct chain_job *disk_job(void)
{
	static struct chain_job job = { .step = step, .tell = tell };
	struct sigaction sa = { .sa_handler = interrupt };

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
	show_progress = isatty(STDERR_FILENO);
	return &job;
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

/* --- help ---------------------------------------------------------------------------- */

static int print_commands(void)
{
	char left[40];

	puts("vmm disk makes, shows and changes disk images that no VM uses.\n\n"
	     "usage: vmm disk COMMAND [options] ...\n");
	for (unsigned i = 0; i < ARRAY_SIZE(commands); i++) {
		snprintf(left, sizeof(left), "%s %s", commands[i].name, commands[i].words);
		printf("  %-24s %s\n", left, commands[i].help);
	}
	puts("\n'vmm disk COMMAND --help' shows the options of one. Exit status: 0 done, 1\n"
	     "failed, 2 wrong usage. See vmm(1).");
	return EXIT_OK;
}

static int print_command(const struct command *c)
{
	char left[40];

	printf("usage: vmm disk %s [options] %s\n%s\n\noptions:\n", c->name, c->words, c->help);
	for (unsigned i = 0; i < DISK_NR_OPTIONS; i++) {
		if (!(c->options & 1u << i))
			continue;
		snprintf(left, sizeof(left), "--%s %s", options[i].name, options[i].metavar ?: "");
		printf("  %-22s ", left);
		for (const char *s = options[i].help; *s; s++) {
			putchar(*s);
			if (*s == '\n')
				printf("%25s", "");
		}
		putchar('\n');
	}
	puts("  --help                 also -h");
	return EXIT_OK;
}

/* --- the command line ----------------------------------------------------------------- */

static int unknown_option(const struct command *c, const struct disk_args *a, const char *arg,
			  const char *name)
{
	const char *names[DISK_NR_OPTIONS + 1], *near;
	unsigned n = 0;

	for (unsigned i = 0; i < DISK_NR_OPTIONS; i++)
		if (c->options & 1u << i)
			names[n++] = options[i].name;
	names[n++] = "help";
	near = config_nearest(name, names, n);
	if (near)
		return disk_misused(a, "unknown option '%s'; did you mean '--%s'?", arg, near);
	return disk_misused(a, "unknown option '%s'; 'vmm disk %s --help' lists all", arg, c->name);
}

static int read_option(const struct command *c, struct disk_args *a, char **argv, int left,
		       int *used)
{
	char *eq = strchr(argv[0], '='), name[40];
	unsigned i = 0;

	snprintf(name, sizeof(name), "%.*s", eq ? (int)(eq - argv[0]) - 2 : 30, argv[0] + 2);
	while (i < DISK_NR_OPTIONS && (!(c->options & 1u << i) || strcmp(options[i].name, name)))
		i++;
	if (argv[0][1] != '-' || i == DISK_NR_OPTIONS)
		return unknown_option(c, a, argv[0], name);
	*used = 1;
	if (!options[i].metavar) {
		a->value[i] = "";
		return !eq ? EXIT_OK :
			disk_misused(a, "--%s takes no value, not '%s'", name, eq + 1);
	}
	if (eq) {
		a->value[i] = eq + 1;
	} else if (left > 1) {
		a->value[i] = argv[1];
		*used = 2;
	}
	return a->value[i] && *a->value[i] ? EXIT_OK :
		disk_misused(a, "--%s needs a value: --%s %s", name, name, options[i].metavar);
}

/* '-1G' is a word, of resize. */
static bool is_option(const char *arg)
{
	return arg[0] == '-' && arg[1] && !isdigit((unsigned char)arg[1]);
}

static int run(const struct command *c, int argc, char **argv)
{
	struct disk_args a = { .command = c->name };
	bool only_words = false;
	int n = 0, status;

	for (int i = 0, used = 1; i < argc; i += used) {
		used = 1;
		if (only_words || !is_option(argv[i])) {
			if (n == c->max)
				return disk_misused(&a, "one word too many: '%s'; usage: vmm disk "
						    "%s [options] %s", argv[i], c->name, c->words);
			a.word[n++] = argv[i];
		} else if (!strcmp(argv[i], "--")) {
			only_words = true;
		} else if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			return print_command(c);
		} else {
			status = read_option(c, &a, argv + i, argc - i, &used);
			if (status)
				return status;
		}
	}
	for (int i = 0; i < n; i++)
		if (!*a.word[i])
			return disk_misused(&a, "an empty word; usage: vmm disk %s [options] %s",
					    c->name, c->words);
	if (n < c->min)
		return disk_misused(&a, "no %s; usage: vmm disk %s [options] %s", n ?
				    strchr(c->words, ' ') + 1 : c->run == disk_convert ? "SOURCE" :
				    "PATH", c->name, c->words);
	status = c->run(&a);
	if (fflush(stdout) || ferror(stdout)) {
		log_err("disk %s: standard output: %s", c->name, strerror(errno));
		return status ? status : EXIT_RUNTIME;
	}
	return status;
}

int command_disk(int argc, char **argv)
{
	const char *names[ARRAY_SIZE(commands)], *near;

	if (!argc) {
		log_err("disk: no command; 'vmm disk --help' lists them");
		return EXIT_USAGE;
	}
	if (!strcmp(argv[0], "--help") || !strcmp(argv[0], "-h"))
		return print_commands();
	for (unsigned i = 0; i < ARRAY_SIZE(commands); i++) {
		names[i] = commands[i].name;
		if (!strcmp(argv[0], names[i]))
			return run(&commands[i], argc - 1, argv + 1);
	}
	near = config_nearest(argv[0], names, ARRAY_SIZE(commands));
	log_err(near ? "disk: unknown command '%s'; did you mean '%s'?" :
		       "disk: unknown command '%s'; 'vmm disk --help' lists all", argv[0], near);
	return EXIT_USAGE;
}
