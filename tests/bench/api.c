/*
 * api.c: how long the API takes, as a client sees it.
 *
 *   api start SOCKET COMMAND [ARG...]   from the command's exec to its answer; it is then killed
 *   api pause SOCKET TIMES              a pause, the median of so many; the guest runs for 5 ms before each
 *
 * Prints milliseconds.  Exit status 1: the answer was none, or a refusal.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static int dial(const char *path)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strncpy(to.sun_path, path, sizeof(to.sun_path) - 1);
	if (!connect(fd, (struct sockaddr *)&to, sizeof(to)))
		return fd;
	close(fd);
	return -1;
}

/* All answers here are short, and come in one piece. */
static int ask(int fd, const char *method, const char *path, const char *body)
{
	char text[4096];
	int n = snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n%s",
			 method, path, strlen(body), body);

	if (write(fd, text, n) != n)
		return -1;
	n = read(fd, text, sizeof(text) - 1);
	return n > 12 && !strncmp(text, "HTTP/1.1 20", 11) ? 0 : -1;
}

static int start(const char *path, char **argv)
{
	double from = now_ms(), end;
	pid_t pid = fork();
	int fd, rc, status;

	if (!pid) {
		execv(argv[0], argv);
		_exit(127);
	}
	while ((fd = dial(path)) < 0)
		if (waitpid(pid, &status, WNOHANG) == pid)
			return 1;
	rc = ask(fd, "GET", "/", "");
	end = now_ms();
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	unlink(path);
	printf("%.3f\n", end - from);
	return !!rc;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static int pauses(const char *path, int times)
{
	double *ms = calloc(times, sizeof(*ms));
	int fd = dial(path);

	for (int i = 0; i < times; i++) {
		double from;

		usleep(5000);	/* a vCPU that did not even wake is no work to stop */
		from = now_ms();
		if (ask(fd, "PATCH", "/vm", "{\"state\":\"Paused\"}"))
			return 1;
		ms[i] = now_ms() - from;
		if (ask(fd, "PATCH", "/vm", "{\"state\":\"Resumed\"}"))
			return 1;
	}
	qsort(ms, times, sizeof(*ms), by_size);
	printf("%.3f\n", ms[times / 2]);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc > 3 && !strcmp(argv[1], "start"))
		return start(argv[2], argv + 3);
	if (argc == 4 && !strcmp(argv[1], "pause") && atoi(argv[3]) > 0)
		return pauses(argv[2], atoi(argv[3]));
	return 2;
}
