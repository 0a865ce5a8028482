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
} commands[] = {
	{ "run", command_run },
	{ "check", command_check },
	{ "disk", command_disk },
	{ "net", command_net },
	{ "restore", command_restore },
	{ "clone", command_clone },
	{ "snapshot", command_snapshot },
	{ "ps", command_ps },
	{ "top", command_top },
	{ "ctl", command_ctl },
	{ "console", command_console },
	{ "stop", command_stop },
	{ "pause", command_pause },
	{ "resume", command_resume },
	{ "firecracker", command_firecracker },
	{ "jailer", command_jailer },
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
			return commands[i].run(argc - 2, argv + 2);
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
