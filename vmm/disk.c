/* disk.c: 'vmm disk': make disk images. */
#include <errno.h>
#include <string.h>
#include "devices/block/blk.h"
#include "vmm/commands.h"
#include "vmm/config.h"
#include "vmm/core/log.h"

static int usage(const char *why, const char *what)
{
	log_err("disk: %s%s; usage: vmm disk create [--thin|--thick] PATH SIZE", why, what);
	return EXIT_USAGE;
}

static int create(int argc, char **argv)
{
	const char *word[2] = { NULL };
	struct err err;
	bool thick = false;
	int n = 0;
	u64 size;

	for (int i = 0; i < argc; i++) {
		if (!strcmp(argv[i], "--thin") || !strcmp(argv[i], "--thick"))
			thick = !strcmp(argv[i], "--thick");
		else if (argv[i][0] == '-')
			return usage("unknown option ", argv[i]);
		else if (n == 2)
			return usage("one word too many: ", argv[i]);
		else
			word[n++] = argv[i];
	}
	if (n < 2)
		return usage(n ? "no SIZE" : "no PATH", "");
	if (config_parse_size(word[1], 1, &size, &err)) {
		log_err("disk: %s", err.msg);
		return EXIT_USAGE;
	}
	if (size % BLK_SECTOR || size > INT64_MAX) {
		log_err("disk: size '%s' is not a multiple of %d bytes, or too large", word[1],
			BLK_SECTOR);
		return EXIT_USAGE;
	}
	if (blk_create(word[0], size, thick, &err)) {
		log_err("%s", err.msg);
		return EXIT_RUNTIME;
	}
	return EXIT_OK;
}

int command_disk(int argc, char **argv)
{
	if (!argc)
		return usage("no command", "");
	if (!strcmp(argv[0], "create"))
		return create(argc - 1, argv + 1);
	return usage("unknown command ", argv[0]);
}
