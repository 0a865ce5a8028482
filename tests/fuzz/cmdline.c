/*
 * cmdline.c: a command line that is made up.  What is accepted is a configuration that
 * the rest of the program can rely on, the same every time; all else is refused with a
 * reason, and the arguments are left as they were.
 */
#include <stdio.h>
#include <string.h>
#include "tests/fuzz/lib/configs.h"

enum { MOST = 48, LEN = 100 };

static char text[MOST][LEN], before[MOST][LEN];

static int build(struct fuzz *f)
{
	char value[LEN - 24];
	int n = 0;

	while (f->left && n + 2 <= MOST) {
		u8 b = fuzz_u8(f);
		const struct option *o;

		if (b < 0x40) {
			fuzz_text(f, text[n], LEN - 1);
			/* Files are tests/fuzz/config.c's. */
			if (!strstr(text[n], "config"))
				n++;
			continue;
		}
		o = configs_pick(f, value, sizeof(value));
		if (b & 1) {
			snprintf(text[n++], LEN, "--%s=%s", o->name, value);
			continue;
		}
		snprintf(text[n++], LEN, "--%s", o->name);
		if (o->metavar)
			strcpy(text[n++], value);
	}
	return n;
}

void fuzz_one(struct fuzz *f)
{
	struct config c, again;
	struct err err, err_again;
	char *argv[MOST];
	int argc = build(f), rc;

	for (int i = 0; i < argc; i++)
		argv[i] = text[i];
	memcpy(before, text, sizeof(text));
	rc = configs_parse(&c, argc, argv, &err);
	fuzz_check(!memcmp(before, text, sizeof(text)), "the arguments were changed");
	fuzz_check(configs_parse(&again, argc, argv, &err_again) == rc &&
		   !strcmp(err.msg, err_again.msg) && configs_same(&c, &again),
		   "another outcome the second time");
	config_fini(&c);
	config_fini(&again);
}
