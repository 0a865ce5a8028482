/* main.c: which subcommand. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "vmm/commands.h"
#include "vmm/config.h"
#include "vmm/core/base.h"
#include "vmm/core/log.h"

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	bool helps;			/* it has a --help of its own */
} commands[] = {
	{ "run", command_run, true },
	{ "check", command_check, false },
	{ "disk", command_disk, true },
	{ "net", command_net, true },
	{ "restore", command_restore, true },
	{ "clone", command_clone, true },
	{ "snapshot", command_snapshot, true },
	{ "ps", command_ps, true },
	{ "top", command_top, true },
	{ "ctl", command_ctl, true },
	{ "console", command_console, true },
	{ "stop", command_stop, true },
	{ "pause", command_pause, true },
	{ "resume", command_resume, true },
	{ "firecracker", command_firecracker, true },
	{ "jailer", command_jailer, true },
};

static int unknown(const char *word)
{
	const char *names[ARRAY_SIZE(commands)], *near;

	for (unsigned i = 0; i < ARRAY_SIZE(commands); i++)
		names[i] = commands[i].name;
	near = config_nearest(word, names, ARRAY_SIZE(commands));
	log_err(near ? "unknown command '%s'; did you mean '%s'?" :
		       "unknown command '%s'; 'vmm --help' lists all", word, near);
	return EXIT_USAGE;
}

/* A file that we open must not become what was to be our output. */
static void fill_standard_files(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

/* By a link, or by the name that a jail gave its copy. */
static bool is_called(const char *name, const char *wanted)
{
	const char *slash = strrchr(name, '/');

	return !strcmp(slash ? slash + 1 : name, wanted);
}

static int run(int argc, char **argv)
{
	if (argc && is_called(argv[0], "firecracker"))
		return command_firecracker(argc - 1, argv + 1);
	if (argc && is_called(argv[0], "jailer"))
		return command_jailer(argc - 1, argv + 1);
	if (argc < 2 || argv[1][0] == '-')
		return command_run(argc - 1, argv + 1);
	for (unsigned i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(argv[1], commands[i].name))
			return argc == 3 && !commands[i].helps &&
			       (!strcmp(argv[2], "-h") || !strcmp(argv[2], "--help")) ?
				command_run(argc - 2, argv + 2) :
				commands[i].run(argc - 2, argv + 2);
	return unknown(argv[1]);
}

int main(int argc, char **argv)
{
	int status;

	fill_standard_files();
	signal(SIGXFSZ, SIG_IGN);	/* writes say EFBIG */
	signal(SIGCHLD, SIG_DFL);	/* else nobody learns how a program has ended */
	status = run(argc, argv);
	errno = 0;
	if (!fflush(stdout) && !ferror(stdout))
		return status;
	log_err("standard output: %s", errno ? strerror(errno) : "not all could be written");
	return status ?: EXIT_RUNTIME;
}
