/* pager.c: hands ranges of memory to a page fault handler. */
#include "vmm/core/pager.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "vmm/core/socket.h"

enum { MAX_RANGES = 4, RANGE_TEXT = 160 };

/* Not for our own faults alone: KVM's and the kernel's copies are what there is most of. */
static int open_uffd(struct err *err)
{
	int flags = O_CLOEXEC | O_NONBLOCK;
	int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	int fd = device < 0 ? -1 : ioctl(device, USERFAULTFD_IOC_NEW, flags);

	if (device >= 0)
		close(device);
	if (fd < 0)
		fd = (int)syscall(SYS_userfaultfd, flags);
	if (fd >= 0)
		return fd;
	return err_set(err, -errno, "userfaultfd: %s%s", strerror(errno), errno != EPERM ? "" :
		       "; give this user /dev/userfaultfd, or run 'sysctl "
		       "vm.unprivileged_userfaultfd=1'");
}

static int register_all(int uffd, const struct pager_range *range, unsigned nr, struct err *err)
{
	struct uffdio_api api = { .api = UFFD_API };
	int rc = ioctl(uffd, UFFDIO_API, &api);

	for (unsigned i = 0; i < nr && !rc; i++) {
		struct uffdio_register r = {
			.range = { .start = (uintptr_t)range[i].host, .len = range[i].size },
			.mode = UFFDIO_REGISTER_MODE_MISSING,
		};

		rc = ioctl(uffd, UFFDIO_REGISTER, &r);
	}
	return rc ? err_set(err, -errno, "userfaultfd: %s", strerror(errno)) : 0;
}

static size_t describe(const struct pager_range *range, unsigned nr, char *text, size_t room)
{
	size_t len = 0;

	for (unsigned i = 0; i < nr; i++)
		len += snprintf(text + len, room - len, "%c{\"base_host_virt_addr\":%llu,\"size\":%llu,"
				"\"offset\":%llu,\"page_size\":4096,\"page_size_kib\":4096}",
				i ? ',' : '[', (unsigned long long)(uintptr_t)range[i].host,
				(unsigned long long)range[i].size, (unsigned long long)range[i].offset);
	return len + snprintf(text + len, room - len, "]");
}

static int send_all(int socket, int uffd, const struct pager_range *range, unsigned nr)
{
	union { char buf[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = { { 0 } };
	char text[MAX_RANGES * RANGE_TEXT];
	struct iovec iov = { text, describe(range, nr, text, sizeof(text)) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	ssize_t n;

	*CMSG_FIRSTHDR(&m) = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
					       .cmsg_len = CMSG_LEN(sizeof(uffd)) };
	memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &uffd, sizeof(uffd));
	do
		n = sendmsg(socket, &m, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)iov.iov_len ? 0 : n < 0 ? -errno : -EIO;
}

int pager_start(struct pager *p, const char *path, const struct pager_range *range, unsigned nr,
		struct err *err)
{
	int rc;

	BUG_ON(nr > MAX_RANGES);
	*p = (struct pager){ .uffd = -1, .socket = -1 };
	rc = socket_connect(path, &p->socket, err);
	if (rc)
		return err_prefix(err, "page fault handler "), rc;
	p->uffd = open_uffd(err);
	rc = p->uffd < 0 ? p->uffd : register_all(p->uffd, range, nr, err);
	if (!rc) {
		rc = send_all(p->socket, p->uffd, range, nr);
		if (rc)
			err_set(err, rc, "page fault handler %s: %s", path, strerror(-rc));
	}
	if (rc)
		pager_stop(p);
	return rc;
}

void pager_stop(struct pager *p)
{
	if (p->uffd >= 0)
		close(p->uffd);
	if (p->socket >= 0)
		close(p->socket);
	*p = (struct pager){ .uffd = -1, .socket = -1 };
}
