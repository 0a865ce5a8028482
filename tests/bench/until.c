/*
 * until.c: run a VMM until its guest prints a line, and say what that took.
 *
 *   until MARKER RAM_MIB COMMAND [ARG...]
 *
 * Prints "ms N private_kib N": milliseconds from exec to the marker on the
 * command's standard output, and the command's private memory at that moment
 * without mappings of the guest's RAM (those of at least RAM_MIB / 2).  The
 * command is then killed.  Exit status 1: it ended without the marker.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

/* Sum of Private_* of the process's mappings smaller than limit_kib. */
static long private_kib(pid_t pid, long limit_kib)
{
	char path[64], line[512];
	long sum = 0, size = 0, n;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "Size: %ld", &n) == 1)
			size = n;
		else if (size < limit_kib && (sscanf(line, "Private_Clean: %ld", &n) == 1 ||
					      sscanf(line, "Private_Dirty: %ld", &n) == 1))
			sum += n;
	}
	if (f)
		fclose(f);
	return sum;
}

int main(int argc, char **argv)
{
	char seen[65536];
	size_t len = 0;
	int fd[2], status;
	double from;
	ssize_t n;
	pid_t pid;

	if (argc < 4 || pipe(fd))
		return 2;
	from = now_ms();
	pid = fork();
	if (!pid) {
		dup2(fd[1], 1);
		close(fd[0]);
		close(fd[1]);
		execv(argv[3], argv + 3);
		_exit(127);
	}
	close(fd[1]);
	while ((n = read(fd[0], seen + len, sizeof(seen) - 1 - len)) > 0) {
		len += n;
		seen[len] = 0;
		if (strstr(seen, argv[1])) {
			double ms = now_ms() - from;

			printf("ms %.3f private_kib %ld\n", ms,
			       private_kib(pid, atol(argv[2]) * 512));
			kill(pid, SIGKILL);
			waitpid(pid, &status, 0);
			return 0;
		}
	}
	fprintf(stderr, "until: '%s' did not come:\n%s", argv[1], len ? seen : "(nothing)\n");
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return 1;
}
