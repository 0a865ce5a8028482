/* subcommand.h: commands below one of vmm's, as 'vmm disk create': how their words are read. */
#pragma once
#include <jansson.h>
#include "vmm/core/base.h"

enum { SUBCOMMAND_MAX_OPTIONS = 32, SUBCOMMAND_MAX_WORDS = 3 };

struct subcommand_option {
	const char *name, *metavar;	/* NULL: a switch */
	const char *help;
};

struct subcommand_args {
	const char *family, *command;
	const char *word[SUBCOMMAND_MAX_WORDS];		/* NULL: not given */
	const char *value[SUBCOMMAND_MAX_OPTIONS];	/* NULL: not given; "": a switch that is */
};

struct subcommand {
	const char *name, *words;	/* "PATH [SIZE]" */
	int min, max;			/* of words */
	u32 options;			/* a bit each, by their index */
	const char *help;
	int (*run)(const struct subcommand_args *);	/* the exit status */
};

struct subcommands {
	const char *name, *about;	/* "disk" */
	const struct subcommand_option *option;
	unsigned nr_options;
	const struct subcommand *command;
	unsigned nr_commands;
};

/* argv without the program's and the family's names.  The exit status. */
int subcommand_run(const struct subcommands *, int argc, char **argv);

/* Say that the user is wrong; the exit status for it. */
int subcommand_misused(const struct subcommand_args *, const char *fmt, ...) printf_like(2, 3);

/* What they print: a line "WHAT   value"; JSON, which is freed. */
void print_row(const char *what, const char *fmt, ...) printf_like(2, 3);
void subcommand_print_json(json_t *);
