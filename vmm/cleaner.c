/* cleaner.c: a child that waits for a socket to be closed. */
#include "vmm/cleaner.h"
#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "vmm/commands.h"
#include "vmm/control.h"

static _Noreturn void wait_and_clean(int fd, const char *name, void (*clean)(void *), void *arg)
{
	char byte;

	setsid();		/* the terminal's signals are the guest's */
	control_doom(NULL);
	prctl(PR_SET_NAME, name);
	/* No lock of the VM's, nor its console. */
	dup2(fd, STDIN_FILENO);
	dup2(STDERR_FILENO, STDOUT_FILENO);
	closefrom(STDERR_FILENO + 1);
	while (read(STDIN_FILENO, &byte, 1) < 0 && errno == EINTR)
		;
	clean(arg);
	_exit(EXIT_OK);
}

int cleaner_start(struct cleaner *c, const char *name, void (*clean)(void *), void *arg, struct err *err)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return err_set(err, -errno, "%s: %s", name, strerror(errno));
	c->pid = fork();
	if (c->pid < 0) {
		int rc = err_set(err, -errno, "%s: %s", name, strerror(errno));

		close(pair[0]);
		close(pair[1]);
		return rc;
	}
	if (!c->pid)
		wait_and_clean(pair[1], name, clean, arg);
	close(pair[1]);
	c->fd = pair[0];
	return 0;
}

void cleaner_finish(struct cleaner *c)
{
	if (c->fd < 0)
		return;
	close(c->fd);
	c->fd = -1;
	while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR)
		;
}
