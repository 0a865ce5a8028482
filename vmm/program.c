/* program.c: runs nft and dnsmasq. */
#include "vmm/program.h"
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "vmm/core/loop.h"
#include "vmm/core/spawn.h"

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

/* Files in memory: neither side can wait for the other, nor a daemon for us. */
static int make_input(const char *text)
{
	int fd = memfd_create("input", MFD_CLOEXEC);

	if (fd >= 0 && (write(fd, text, strlen(text)) < 0 || lseek(fd, 0, SEEK_SET))) {
		close(fd);
		return -1;
	}
	return fd;
}

/* False: not in time, and by our signal. */
static bool ends(pid_t pid, int *status)
{
	struct pollfd p = { .fd = syscall(SYS_pidfd_open, pid, 0), .events = POLLIN };
	u64 end_ns = now_ns() + PROGRAM_MS * 1000000ULL;
	bool in_time = true;

	/* Without such descriptors (before Linux 5.3) it has its time. */
	while (p.fd >= 0 && in_time && poll(&p, 1, 1000) != 1)
		in_time = now_ns() < end_ns;
	if (!in_time)
		kill(pid, SIGKILL);
	if (p.fd >= 0)
		close(p.fd);
	while (waitpid(pid, status, 0) < 0 && errno == EINTR)
		;
	return in_time;
}

int program_run(const char *const argv[], const char *package, const char *input, int held,
		char *output, size_t room, struct err *err)
{
	static const char *const env[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", NULL };
	char path[PATH_MAX];
	int in, out, status, rc;
	ssize_t n;
	pid_t pid;

	if (!program_find(argv[0], path, sizeof(path)))
		return err_set(err, -ENOENT, "the program %s is not there: install %s", argv[0], package);
	in = input ? make_input(input) : held;
	out = memfd_create("output", MFD_CLOEXEC);
	if (in < 0 || out < 0) {
		rc = err_set(err, -errno, "%s: %s", argv[0], strerror(errno));
		goto out;
	}
	/* Not our own files: a daemon that it starts keeps them. */
	rc = spawn(&pid, path, argv, env, (struct spawn_file[]){
		{ in, STDIN_FILENO }, { out, STDOUT_FILENO }, { out, STDERR_FILENO } }, 3);
	if (rc) {
		err_set(err, rc, "%s: %s", path, strerror(-rc));
		goto out;
	}
	if (!ends(pid, &status)) {
		rc = err_set(err, -ETIMEDOUT, "%s: not done in %d s, and ended", argv[0], PROGRAM_MS / 1000);
		goto out;
	}
	n = pread(out, output, room - 1, 0);
	output[MAX(n, 0)] = 0;
	rc = report(argv[0], status, output, err);
out:
	if (in >= 0 && input)
		close(in);
	if (out >= 0)
		close(out);
	return rc;
}
