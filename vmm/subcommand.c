/* subcommand.c: the command line of a family of commands, and its help. */
#include "vmm/subcommand.h"
#include <ctype.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "vmm/commands.h"
#include "vmm/config.h"
#include "vmm/core/log.h"

enum { MAX_COMMANDS = 32 };

int subcommand_misused(const struct subcommand_args *a, const char *fmt, ...)
{
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_err("%s %s: %s", a->family, a->command, text);
	return EXIT_USAGE;
}

void print_row(const char *what, const char *fmt, ...)
{
	char line[2 * PATH_MAX + 100];
	int n = snprintf(line, 100, "%-14s ", what);
	va_list ap;

	n = MIN(n, 99);
	va_start(ap, fmt);
	vsnprintf(line + n, sizeof(line) - n, fmt, ap);
	va_end(ap);
	mask_controls(line);
	puts(line);
}

void subcommand_print_json(json_t *root)
{
	json_dumpf(root, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
	putchar('\n');
	json_decref(root);
}

/* --- help ---------------------------------------------------------------------------- */

static int print_commands(const struct subcommands *f)
{
	char left[40];

	printf("%s\n\nusage: vmm %s COMMAND [options] ...\n\n", f->about, f->name);
	for (unsigned i = 0; i < f->nr_commands; i++) {
		snprintf(left, sizeof(left), "%s %s", f->command[i].name, f->command[i].words);
		printf("  %-24s %s\n", left, f->command[i].help);
	}
	printf("\n'vmm %s COMMAND --help' shows the options of one. Exit status: 0 done, 1\n"
	       "failed, 2 wrong usage. See vmm(1).\n", f->name);
	return EXIT_OK;
}

static int print_command(const struct subcommands *f, const struct subcommand *c)
{
	char left[40];

	printf("usage: vmm %s %s [options]%s%s\n%s\n\noptions:\n", f->name, c->name,
	       *c->words ? " " : "", c->words, c->help);
	for (unsigned i = 0; i < f->nr_options; i++) {
		if (!(c->options & 1u << i))
			continue;
		snprintf(left, sizeof(left), "--%s %s", f->option[i].name,
			 f->option[i].metavar ?: "");
		printf("  %-22s ", left);
		for (const char *s = f->option[i].help; *s; s++) {
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

static int unknown_option(const struct subcommands *f, const struct subcommand *c,
			  const struct subcommand_args *a, const char *arg, const char *name)
{
	const char *names[SUBCOMMAND_MAX_OPTIONS + 1], *near;
	unsigned n = 0;

	for (unsigned i = 0; i < f->nr_options; i++)
		if (c->options & 1u << i)
			names[n++] = f->option[i].name;
	names[n++] = "help";
	near = config_nearest(name, names, n);
	if (near)
		return subcommand_misused(a, "unknown option '%s'; did you mean '--%s'?", arg,
					  near);
	return subcommand_misused(a, "unknown option '%s'; 'vmm %s %s --help' lists all", arg,
				  f->name, c->name);
}

static int read_option(const struct subcommands *f, const struct subcommand *c,
		       struct subcommand_args *a, char **argv, int left, int *used)
{
	const struct subcommand_option *o = f->option;
	char *eq = strchr(argv[0], '='), name[40];
	unsigned i = 0;

	snprintf(name, sizeof(name), "%.*s", eq ? (int)(eq - argv[0]) - 2 : 30, argv[0] + 2);
	while (i < f->nr_options && (!(c->options & 1u << i) || strcmp(o[i].name, name)))
		i++;
	if (argv[0][1] != '-' || i == f->nr_options)
		return unknown_option(f, c, a, argv[0], name);
	*used = 1;
	if (!o[i].metavar) {
		a->value[i] = "";
		return !eq ? EXIT_OK :
			subcommand_misused(a, "--%s takes no value, not '%s'", name, eq + 1);
	}
	if (eq) {
		a->value[i] = eq + 1;
	} else if (left > 1) {
		a->value[i] = argv[1];
		*used = 2;
	}
	return a->value[i] && *a->value[i] ? EXIT_OK :
		subcommand_misused(a, "--%s needs a value: --%s %s", name, name, o[i].metavar);
}

/* '-1G' is a word, of resize. */
static bool is_option(const char *arg)
{
	return arg[0] == '-' && arg[1] && !isdigit((unsigned char)arg[1]);
}

static int check_words(const struct subcommands *f, const struct subcommand *c,
		       const struct subcommand_args *a, int n)
{
	const char *missing = c->words;

	for (int i = 0; i < n; i++)
		if (!*a->word[i])
			return subcommand_misused(a, "an empty word; usage: vmm %s %s [options] %s",
						  f->name, c->name, c->words);
	if (n >= c->min)
		return EXIT_OK;
	for (int i = 0; i < n; i++)
		missing = strchr(missing, ' ') + 1;
	return subcommand_misused(a, "no %.*s; usage: vmm %s %s [options] %s",
				  (int)strcspn(missing, " "), missing, f->name, c->name, c->words);
}

static int run(const struct subcommands *f, const struct subcommand *c, int argc, char **argv)
{
	struct subcommand_args a = { .family = f->name, .command = c->name };
	bool only_words = false;
	int n = 0, status;

	for (int i = 0, used = 1; i < argc; i += used) {
		used = 1;
		if (only_words || !is_option(argv[i])) {
			if (n == c->max)
				return subcommand_misused(&a, "one word too many: '%s'; usage: vmm "
							  "%s %s [options]%s%s", argv[i], f->name,
							  c->name, *c->words ? " " : "", c->words);
			a.word[n++] = argv[i];
		} else if (!strcmp(argv[i], "--")) {
			only_words = true;
		} else if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			return print_command(f, c);
		} else {
			status = read_option(f, c, &a, argv + i, argc - i, &used);
			if (status)
				return status;
		}
	}
	status = check_words(f, c, &a, n);
	if (status)
		return status;
	return c->run(&a);
}

int subcommand_run(const struct subcommands *f, int argc, char **argv)
{
	const char *names[MAX_COMMANDS], *near;

	BUG_ON(f->nr_commands > MAX_COMMANDS || f->nr_options > SUBCOMMAND_MAX_OPTIONS);
	if (!argc) {
		log_err("%s: no command; 'vmm %s --help' lists them", f->name, f->name);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[0], "--help") || !strcmp(argv[0], "-h"))
		return print_commands(f);
	for (unsigned i = 0; i < f->nr_commands; i++) {
		names[i] = f->command[i].name;
		if (!strcmp(argv[0], names[i]))
			return run(f, &f->command[i], argc - 1, argv + 1);
	}
	near = config_nearest(argv[0], names, f->nr_commands);
	log_err(near ? "%s: unknown command '%s'; did you mean '%s'?" :
		       "%s: unknown command '%s'; 'vmm %s --help' lists all", f->name, argv[0],
		near ?: f->name);
	return EXIT_USAGE;
}
