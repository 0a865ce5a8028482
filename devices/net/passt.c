/* passt.c: a network that needs no privileges, by passt(1): a child, and a socket to it. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "devices/net/forward.h"
#include "devices/net/stream.h"
#include "vmm/core/log.h"

#define MTU_TEXT	"65520"
_Static_assert(NET_MTU_MOST == 65520, "MTU_TEXT");

enum { PATIENCE_MS = 10000, ARG_LEN = 48, NOT_RUN = 127 };
enum { TALK = 2048, TALK_TURNS = 64 };		/* more than a pipe has */

struct passt {
	struct stream stream;	/* its net's child is 0 when that has ended */
	int errors;		/* what it writes on its standard error, never blocking it */
};

/* The last thing it said.  Of a host without syslog it complains with every line. */
static void last_words(struct passt *p, char *text, size_t room)
{
	char all[2 * TALK + 1], *rest = all, *line;
	size_t len = 0;
	ssize_t n;

	/* It may go on talking. */
	for (int i = 0; i < TALK_TURNS && (n = read(p->errors, all + len, sizeof(all) - 1 - len)) > 0; i++) {
		len += (size_t)n;
		if (len <= TALK)
			continue;
		memmove(all, all + len - TALK, TALK);
		len = TALK;
	}
	snprintf(text, room, "no reason given");
	all[len] = 0;
	while ((line = strsep(&rest, "\n")))
		if (*line && !strstr(line, " to syslog"))
			snprintf(text, room, "%s", line);
}

static void end_child(struct passt *p)
{
	if (p->stream.net.child && !kill(p->stream.net.child, SIGKILL))
		waitpid(p->stream.net.child, NULL, 0);
	p->stream.net.child = 0;
}

static void ended(struct stream *s, const char *why)
{
	struct passt *p = container_of(s, struct passt, stream);
	char text[200];

	(void)why;
	last_words(p, text, sizeof(text));
	end_child(p);
	log_err("net: passt ended: %s", text);
}

static void release(struct stream *s)
{
	struct passt *p = container_of(s, struct passt, stream);

	end_child(p);
	close(p->errors);
	free(p);
}

/* --- the child ---------------------------------------------------------------------------- */

/*
 * In the new process, which has nothing of ours but the socket, and ends with us:
 * by the signal, or, when that was lost with a change of credentials, because the
 * socket is closed.  Its standard output is for the process id alone.
 */
static _Noreturn void become_passt(char **argv, pid_t parent, int fd, int out, int errors)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	sigset_t none;

	sigemptyset(&none);
	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();		/* the terminal's signals are the guest's */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() == parent && null >= 0 && dup2(null, STDIN_FILENO) >= 0 &&
	    dup2(out, STDOUT_FILENO) >= 0 && dup2(errors, STDERR_FILENO) >= 0 &&
	    !fcntl(fd, F_SETFD, 0))
		execvp(argv[0], argv);
	dprintf(errors, "%s\n", strerror(errno));
	_exit(errno == ENOENT ? NOT_RUN : EXIT_FAILURE);
}

/* "127.0.0.1/8080:80" */
static void forward_arg(const struct net_forward *f, char text[ARG_LEN])
{
	char host[INET_ADDRSTRLEN] = "";

	if (f->host.s_addr)
		inet_ntop(AF_INET, &f->host, host, sizeof(host));
	snprintf(text, ARG_LEN, "%s%s%u:%u", host, *host ? "/" : "", f->host_port, f->guest_port);
}

struct args {
	const char **argv;
	char (*text)[ARG_LEN];
};

static int make_args(struct args *a, const struct net_forward *forward, unsigned nr, int fd)
{
	static const char *const fixed[] = { "passt", "--foreground", "--quiet", "--mtu", MTU_TEXT,
					     "--pid", "/proc/self/fd/1", "--fd" };
	unsigned n = ARRAY_SIZE(fixed);

	a->argv = calloc(n + 1 + 2 * nr + 1, sizeof(*a->argv));
	a->text = calloc(1 + nr, sizeof(*a->text));
	if (!a->argv || !a->text)
		return -ENOMEM;
	memcpy(a->argv, fixed, sizeof(fixed));
	snprintf(a->text[nr], ARG_LEN, "%d", fd);
	a->argv[n++] = a->text[nr];
	for (unsigned i = 0; i < nr; i++) {
		forward_arg(&forward[i], a->text[i]);
		a->argv[n++] = forward[i].udp ? "--udp-ports" : "--tcp-ports";
		a->argv[n++] = a->text[i];
	}
	return 0;
}

static void free_args(struct args *a)
{
	free(a->argv);
	free(a->text);
}

/* Until it has written its process id, and so is ready, or has ended. */
static int wait_ready(struct passt *p, int out, struct err *err)
{
	struct pollfd poll_out = { .fd = out, .events = POLLIN };
	char text[200];
	int rc, status;

	do
		rc = poll(&poll_out, 1, PATIENCE_MS);
	while (rc < 0 && errno == EINTR);
	if (rc == 1 && read(out, text, sizeof(text)) > 0)
		return 0;
	if (rc < 1) {
		end_child(p);
		return err_set(err, -ETIMEDOUT, "net: passt is not ready after %d s", PATIENCE_MS / 1000);
	}
	/* Or lives on, and can say no more; the status of what has ended stays. */
	kill(p->stream.net.child, SIGKILL);
	rc = waitpid(p->stream.net.child, &status, 0);
	if (rc == p->stream.net.child && WIFEXITED(status) && WEXITSTATUS(status) == NOT_RUN) {
		p->stream.net.child = 0;
		return err_set(err, -ENOENT, "net: passt is not installed: install the package passt, or "
			       "use --net user");
	}
	p->stream.net.child = 0;
	last_words(p, text, sizeof(text));
	return err_set(err, -EIO, "net: passt does not start: %s; --net user may do", text);
}

struct pipes {
	int sock[2];		/* [0] is ours, of each */
	int out[2], errors[2];
};

static void close_pipe(int fd[2])
{
	for (int i = 0; i < 2; i++)
		if (fd[i] >= 0)
			close(fd[i]);
	fd[0] = fd[1] = -1;
}

static int start_child(struct passt *p, struct pipes *pipes, char **argv, struct err *err)
{
	pid_t parent = getpid();
	int rc;

	/* It may have become another user when it opens this again by its name. */
	fchmod(pipes->out[1], 0666);
	/* What does not fit it drops, and sends again a second later. */
	stream_widen(pipes->sock[1]);
	fcntl(pipes->errors[0], F_SETFL, O_NONBLOCK);
	fcntl(pipes->errors[1], F_SETFL, O_NONBLOCK);
	p->stream.net.child = fork();
	if (p->stream.net.child < 0) {
		rc = -errno;
		p->stream.net.child = 0;
		return err_set(err, rc, "net: cannot start passt: %s", strerror(-rc));
	}
	if (!p->stream.net.child)
		become_passt(argv, parent, pipes->sock[1], pipes->out[1], pipes->errors[1]);
	close(pipes->sock[1]);
	close(pipes->out[1]);
	close(pipes->errors[1]);
	pipes->sock[1] = pipes->out[1] = pipes->errors[1] = -1;
	p->errors = pipes->errors[0];
	return wait_ready(p, pipes->out[0], err);
}

static int start(struct passt *p, const struct net_forward *forward, unsigned nr, struct err *err)
{
	struct pipes pipes = { { -1, -1 }, { -1, -1 }, { -1, -1 } };
	struct args args = { NULL, NULL };
	int rc;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pipes.sock) ||
	    pipe2(pipes.out, O_CLOEXEC) || pipe2(pipes.errors, O_CLOEXEC))
		rc = err_set(err, -errno, "net: passt: %s", strerror(errno));
	else if (make_args(&args, forward, nr, pipes.sock[1]))
		rc = err_set(err, -ENOMEM, "net: out of memory");
	else
		rc = start_child(p, &pipes, (char **)(uintptr_t)args.argv, err);
	free_args(&args);
	if (!rc)
		rc = stream_init(&p->stream, pipes.sock[0], err);
	if (!rc)
		pipes.sock[0] = pipes.errors[0] = -1;
	close_pipe(pipes.sock);
	close_pipe(pipes.out);
	close_pipe(pipes.errors);
	return rc;
}

int net_open_passt(struct net **out, const struct net_forward *forward, unsigned nr,
		   struct err *err)
{
	struct passt *p;
	int rc = 0;

	/* passt is content where it has a port for IPv6 alone. */
	for (unsigned i = 0; i < nr && !rc; i++)
		rc = forward_probe(&forward[i], err);
	if (rc)
		return rc;
	p = calloc(1, sizeof(*p));
	if (!p)
		return err_set(err, -ENOMEM, "net: out of memory");
	p->stream.ended = ended;
	p->stream.release = release;
	rc = start(p, forward, nr, err);
	if (rc) {
		end_child(p);
		free(p);
		return rc;
	}
	/* What it sends has crossed no wire: its checksums are right. */
	p->stream.net.offload |= 1ULL << VIRTIO_NET_F_GUEST_CSUM;
	p->stream.net.mtu = NET_MTU_MOST;
	*out = &p->stream.net;
	return 0;
}
