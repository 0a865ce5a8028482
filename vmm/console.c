/* console.c: 'vmm console': this terminal on the serial line of a VM that runs. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>
#include "vmm/client.h"
#include "vmm/commands.h"
#include "vmm/core/log.h"
#include "vmm/core/socket.h"
#include "vmm/registry.h"

enum { ESCAPE = 1, PATIENCE_S = 5 };	/* Ctrl-A */

static struct termios saved;
static bool is_raw;

/* Async-signal-safe. */
static void restore(void)
{
	if (is_raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &saved);
	is_raw = false;
}

static void die(int sig)
{
	restore();
	signal(sig, SIG_DFL);
	raise(sig);
}

static void make_raw(void)
{
	static const int deadly[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT };
	struct termios t;

	if (tcgetattr(STDIN_FILENO, &saved))
		return;		/* no terminal: bytes as they come */
	for (unsigned i = 0; i < ARRAY_SIZE(deadly); i++)
		signal(deadly[i], die);
	t = saved;
	cfmakeraw(&t);
	is_raw = !tcsetattr(STDIN_FILENO, TCSANOW, &t);
}

static bool write_all(int fd, const char *buf, size_t len)
{
	while (len) {
		ssize_t n = write(fd, buf, len);

		if (n < 0 && errno == EAGAIN)
			poll(&(struct pollfd){ .fd = fd, .events = POLLOUT }, 1, -1);
		else if (n < 0 && errno != EINTR)
			return false;
		else if (n > 0)
			buf += n, len -= n;
	}
	return true;
}

/* What was typed, without the escapes.  False: Ctrl-A x. */
static bool unescape(char *buf, ssize_t *len)
{
	static bool escaped;
	ssize_t n = 0;

	for (ssize_t i = 0; i < *len; i++) {
		if (is_raw && !escaped && buf[i] == ESCAPE) {
			escaped = true;
			continue;
		}
		if (escaped && buf[i] == 'x')
			return false;
		escaped = false;
		buf[n++] = buf[i];
	}
	*len = n;
	return true;
}

/* What was typed and the guest has not taken yet. */
static struct { char text[64 << 10]; size_t len; } typed;

/* At a terminal what is too much is lost, but not the escape.  False: Ctrl-A x. */
static bool hear(bool *open)
{
	char buf[4096];
	ssize_t n = read(STDIN_FILENO, buf, sizeof(buf));

	if (n <= 0)
		*open = false;		/* the rest is still to be heard */
	else if (!unescape(buf, &n))
		return false;
	n = MIN(MAX(n, 0), (ssize_t)(sizeof(typed.text) - typed.len));
	memcpy(typed.text + typed.len, buf, n);
	typed.len += n;
	return true;
}

static bool pass_on(int fd)
{
	ssize_t n = write(fd, typed.text, typed.len);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	typed.len -= n;
	memmove(typed.text, typed.text + n, typed.len);
	return true;
}

static bool show(int fd)
{
	char buf[4096];
	ssize_t n = read(fd, buf, sizeof(buf));

	return n < 0 ? errno == EAGAIN || errno == EINTR : n && write_all(STDOUT_FILENO, buf, n);
}

/* Until one of the ends goes. */
static void carry(int fd)
{
	bool open = true, goes_on = true;

	while (goes_on) {
		struct pollfd p[] = {
			{ .fd = open && (is_raw || !typed.len) ? STDIN_FILENO : -1, .events = POLLIN },
			{ .fd = fd, .events = POLLIN | (typed.len ? POLLOUT : 0) },
		};

		if (poll(p, ARRAY_SIZE(p), -1) < 0)
			continue;
		if (p[0].revents)
			goes_on = hear(&open);
		if (goes_on && typed.len && p[1].revents & POLLOUT)
			goes_on = pass_on(fd);
		if (goes_on && p[1].revents & ~POLLOUT)
			goes_on = show(fd);
	}
}

static int open_console(const char *name, const char *where, int *fd, struct err *err)
{
	if (!strncmp(where, "unix:", 5))
		return socket_connect(where + 5, fd, err);
	if (!strncmp(where, "pty:", 4)) {
		*fd = open(where + 4, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
		/* Nothing else is read or written, whatever answers for the VM says. */
		if (*fd >= 0 && isatty(*fd))
			return 0;
		err_set(err, -errno, "%s: %s", where + 4, strerror(errno));
		if (*fd >= 0)
			close(*fd);
		return err->code;
	}
	return err_set(err, -EINVAL, "the console of '%s' is %s: only one of --serial pty or "
		       "unix:PATH can be come to", name, where);
}

int command_console(int argc, char **argv)
{
	struct registered r;
	struct err err;
	json_t *info;
	int fd, rc;

	if (argc == 1 && (!strcmp(argv[0], "--help") || !strcmp(argv[0], "-h"))) {
		puts("usage: vmm console NAME\nthis terminal on the VM's serial line; Ctrl-A x leaves it, "
		     "Ctrl-A Ctrl-A sends\nCtrl-A\n\noptions:\n  --help                 also -h");
		return EXIT_OK;
	}
	if (argc != 1 || argv[0][0] == '-') {
		log_err("console: one NAME, and no options; 'vmm ps' lists the VMs");
		return EXIT_USAGE;
	}
	rc = registry_find(&r, argv[0], &err);
	if (!rc)
		rc = client_call(r.socket, r.pid, "GET", "/vmm/v1/vm", NULL, PATIENCE_S, &info, &err);
	if (rc) {
		log_err("%s", err.msg);
		return rc == -ENOENT ? EXIT_USAGE : EXIT_RUNTIME;
	}
	rc = open_console(argv[0], json_string_value(json_object_get(info, "console")) ?: "unknown",
			  &fd, &err);
	json_decref(info);
	if (rc) {
		log_err("console: %s", err.msg);
		return EXIT_USAGE;
	}
	signal(SIGPIPE, SIG_IGN);
	make_raw();
	if (is_raw)
		fputs("[Ctrl-A x leaves]\r\n", stderr);
	carry(fd);
	restore();
	close(fd);
	return EXIT_OK;
}
