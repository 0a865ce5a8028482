/*
 * bridge_helper.c: vmm-bridge-helper, which puts a tap on a bridge for a user who may not.
 *
 * It has CAP_NET_ADMIN by its file, and is started by anybody: what it does
 * depends on its arguments and /etc/vmm/bridge.conf alone.  The tap goes to
 * whoever has the other end of the socket that is its file 3.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "devices/net/bridge.h"
#include "vmm/helper/allow.h"

#define ALLOW_LIST	"/etc/vmm/bridge.conf"

enum { SOCKET = 3 };

/* A name, or without a tap (-1) a message. */
static int answer(const char *text, int tap)
{
	union { char buf[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = { { 0 } };
	struct iovec iov = { (void *)(uintptr_t)text, MIN(strlen(text), (size_t)BRIDGE_HELPER_TEXT) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (tap >= 0) {
		m.msg_control = &control;
		m.msg_controllen = sizeof(control);
		*CMSG_FIRSTHDR(&m) = (struct cmsghdr){ .cmsg_level = SOL_SOCKET,
						       .cmsg_type = SCM_RIGHTS,
						       .cmsg_len = CMSG_LEN(sizeof(tap)) };
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &tap, sizeof(tap));
	}
	return sendmsg(SOCKET, &m, MSG_NOSIGNAL) < 0 || tap < 0;
}

static int read_arguments(int argc, char **argv, const char **bridge, struct vlans *vlans,
			  bool *multi_queue, struct err *err)
{
	*vlans = (struct vlans){ 0 };
	*multi_queue = argc > 2 && !strcmp(argv[argc - 1], "--multi-queue");
	argc -= *multi_queue;
	if (argc < 2 || argc > 3 || strncmp(argv[1], "--bridge=", 9) ||
	    (argc == 3 && strncmp(argv[2], "--vlan=", 7)))
		return err_set(err, -EINVAL, "vmm-bridge-helper: usage: --bridge=NAME [--vlan=LIST] "
			       "[--multi-queue]");
	*bridge = argv[1] + 9;
	if (!link_name_valid(*bridge))
		return err_set(err, -EINVAL, "'%.32s' is not an interface's name", *bridge);
	return argc == 3 ? vlans_parse(argv[2] + 7, vlans, err) : 0;
}

/* Whoever started us may have closed the standard files: no other is to have their numbers. */
static bool files_are_right(void)
{
	int type, fd = open("/dev/null", O_RDWR);
	socklen_t len = sizeof(type);

	while (fd >= 0 && fd < STDERR_FILENO)
		fd = dup(fd);
	if (fd > STDERR_FILENO)
		close(fd);
	return fd >= STDERR_FILENO && !getsockopt(SOCKET, SOL_SOCKET, SO_TYPE, &type, &len);
}

int main(int argc, char **argv)
{
	char name[IFNAMSIZ];
	struct err err = { 0 };
	const char *bridge = NULL;
	struct vlans vlans;
	bool multi_queue;
	int tap, rc;

	prctl(PR_SET_DUMPABLE, 0);
	if (!files_are_right()) {
		fputs("vmm-bridge-helper: vmm starts it, with a socket; see vmm(1)\n", stderr);
		return 2;
	}
	rc = read_arguments(argc, argv, &bridge, &vlans, &multi_queue, &err);
	if (!rc)
		rc = allow_check(ALLOW_LIST, bridge, &vlans, &err);
	if (rc)
		return answer(err.msg, -1);
	tap = bridge_new_tap(bridge, &vlans, getppid(), multi_queue, name, &err);
	if (tap == -EPERM)
		return answer("vmm-bridge-helper lacks a capability; 'setcap cap_net_admin+ep' on it, as "
			      "root, gives it", -1);
	return answer(tap < 0 ? err.msg : name, tap);
}
