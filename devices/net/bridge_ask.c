/* bridge_ask.c: has vmm-bridge-helper, which has the capability, make a tap. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "devices/net/bridge.h"
#include "vmm/core/spawn.h"

enum { HELPER_FD = 3 };

/* Installed, PREFIX/bin/vmm has it in PREFIX/libexec/vmm; built, it is beside vmm. */
static int find_helper(char path[PATH_MAX], struct err *err)
{
	static const char *const places[] = { "../libexec/vmm/", "" };
	char self[PATH_MAX - 64], *slash;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n < 0)
		return err_set(err, -errno, "/proc/self/exe: %s", strerror(errno));
	self[n] = 0;
	slash = strrchr(self, '/');
	for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
		snprintf(path, PATH_MAX, "%.*s%svmm-bridge-helper", (int)(slash + 1 - self), self,
			 places[i]);
		if (!access(path, X_OK))
			return 0;
	}
	return err_set(err, -ENOENT, "making a tap needs root, or the program vmm-bridge-helper, which "
		       "is not there: 'make install' installs it");
}

static int start_helper(const char *path, const char *bridge, const char *vlans, bool multi_queue,
			int socket, pid_t *pid)
{
	static const char *const env[] = { NULL };
	const char *argv[] = { "vmm-bridge-helper", NULL, NULL, NULL, NULL };
	char bridge_arg[64], *vlan_arg = NULL;
	unsigned nr = 1;
	int rc;

	snprintf(bridge_arg, sizeof(bridge_arg), "--bridge=%s", bridge);
	argv[nr++] = bridge_arg;
	if (vlans && asprintf(&vlan_arg, "--vlan=%s", vlans) < 0)
		return -ENOMEM;
	if (vlan_arg)
		argv[nr++] = vlan_arg;
	if (multi_queue)
		argv[nr] = "--multi-queue";
	rc = spawn(pid, path, argv, env, &(struct spawn_file){ socket, HELPER_FD }, 1);
	free(vlan_arg);
	return rc;
}

/* The tap and its name, or a message without one. */
static int receive(int socket, char name[IFNAMSIZ], struct err *err)
{
	/* Not CMSG_SPACE: its padding has room for another descriptor. */
	union { char buf[CMSG_LEN(sizeof(int))]; struct cmsghdr align; } control;
	char text[BRIDGE_HELPER_TEXT + 1];
	struct iovec iov = { text, BRIDGE_HELPER_TEXT };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			    .msg_controllen = sizeof(control.buf) };
	struct cmsghdr *c;
	ssize_t n;
	int fd;

	do
		n = recvmsg(socket, &m, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return err_set(err, -EPIPE, "vmm-bridge-helper ended without an answer");
	text[n] = 0;
	c = CMSG_FIRSTHDR(&m);
	if (!c || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(fd)))
		return err_set(err, -EPERM, "%s", text);
	memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	snprintf(name, IFNAMSIZ, "%.*s", IFNAMSIZ - 1, text);
	return fd;
}

int bridge_ask_helper(const char *bridge, const char *vlans, bool multi_queue,
		      char name[IFNAMSIZ], struct err *err)
{
	char path[PATH_MAX];
	int pair[2], rc = find_helper(path, err);
	pid_t pid;

	if (rc)
		return rc;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return err_set(err, -errno, "a socket: %s", strerror(errno));
	rc = start_helper(path, bridge, vlans, multi_queue, pair[1], &pid);
	close(pair[1]);
	if (rc) {
		close(pair[0]);
		return err_set(err, rc, "%s: %s", path, strerror(-rc));
	}
	rc = receive(pair[0], name, err);
	close(pair[0]);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return rc;
}
