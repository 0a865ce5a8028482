/* program.c: runs nft and dnsmasq. */
#include "vmm/program.h"
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

bool program_find(const char *name, char *path, size_t room)
{
	static const char more[] = "/usr/sbin:/sbin:/usr/local/sbin";
	const char *dirs[] = { getenv("PATH") ?: "", more };

	for (unsigned i = 0; i < ARRAY_SIZE(dirs); i++)
		for (const char *s = dirs[i]; *s; s += strspn(s, ":")) {
			int len = strcspn(s, ":");

			if ((size_t)snprintf(path, room, "%.*s/%s", len, s, name) < room &&
			    *s == '/' && !access(path, X_OK))
				return true;
			s += len;
		}
	return false;
}

/* Neither our signals nor our files: a daemon that it starts keeps both. */
static int start(const char *path, const char *const argv[], int in, int out, pid_t *pid)
{
	static char *const env[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", NULL };
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none, all;
	int rc;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &all);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_adddup2(&files, in, STDIN_FILENO);
	posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&files, out, STDERR_FILENO);
	rc = posix_spawn(pid, path, &files, &attr, (char *const *)(uintptr_t)argv, env);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attr);
	return -rc;
}

static int report(const char *name, int status, const char *output, struct err *err)
{
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return 0;
	output += strspn(output, "\n");
	/* It may say its own name. */
	if (!strncmp(output, name, strlen(name)) && output[strlen(name)] == ':')
		output += strlen(name) + 1 + strspn(output + strlen(name) + 1, " ");
	if (*output)
		return err_set(err, -EIO, "%s: %.*s", name, (int)strcspn(output, "\n"), output);
	return err_set(err, -EIO, WIFSIGNALED(status) ? "%s: ended by signal %d" : "%s: exit status %d",
		       name, WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

int program_run(const char *const argv[], const char *package, const char *input, char *output,
		size_t room, struct err *err)
{
	char path[PATH_MAX];
	int in, out, status, rc;
	ssize_t n;
	pid_t pid;

	if (!program_find(argv[0], path, sizeof(path)))
		return err_set(err, -ENOENT, "the program %s is not there: install %s", argv[0], package);
	/* Files in memory: neither side can wait for the other, nor a daemon for us. */
	in = memfd_create("input", MFD_CLOEXEC);
	out = memfd_create("output", MFD_CLOEXEC);
	if (in < 0 || out < 0 || write(in, input, strlen(input)) < 0 || lseek(in, 0, SEEK_SET)) {
		rc = err_set(err, -errno, "%s: %s", argv[0], strerror(errno));
		goto out;
	}
	rc = start(path, argv, in, out, &pid);
	if (rc) {
		err_set(err, rc, "%s: %s", path, strerror(-rc));
		goto out;
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	n = pread(out, output, room - 1, 0);
	output[MAX(n, 0)] = 0;
	rc = report(argv[0], status, output, err);
out:
	if (in >= 0)
		close(in);
	if (out >= 0)
		close(out);
	return rc;
}
