/* spawn.c: starts another program. */
#include "vmm/core/spawn.h"
#include <signal.h>
#include <spawn.h>

int spawn(pid_t *pid, const char *path, const char *const argv[], const char *const env[],
	  const struct spawn_file *file, unsigned nr)
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none, all;
	int rc = 0;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &all);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawn_file_actions_init(&files);
	/* To itself, where it has that number already: it loses close-on-exec. */
	for (unsigned i = 0; i < nr && !rc; i++)
		rc = posix_spawn_file_actions_adddup2(&files, file[i].fd, file[i].as);
	if (!rc)
		rc = posix_spawn(pid, path, &files, &attr, (char *const *)(uintptr_t)argv,
				 (char *const *)(uintptr_t)env);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attr);
	return -rc;
}
