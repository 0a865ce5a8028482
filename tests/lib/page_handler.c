/* page_handler.c: serves a userfaultfd that came over a socket. */
#include "tests/lib/page_handler.h"
#include <errno.h>
#include <jansson.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PAGE = 4096 };

static json_t *receive(int socket, int *uffd)
{
	union { char buf[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
	char text[4096];
	struct iovec iov = { text, sizeof(text) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(socket, &m, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	if (n <= 0 || !c || c->cmsg_type != SCM_RIGHTS)
		return NULL;
	memcpy(uffd, CMSG_DATA(c), sizeof(*uffd));
	return json_loadb(text, n, 0, NULL);
}

static u64 number(const json_t *range, const char *key)
{
	return json_integer_value(json_object_get(range, key));
}

/* As others' handlers insist: the regions are all of the file. */
static bool is_all(const json_t *ranges, u64 size)
{
	const json_t *r;
	u64 sum = 0;
	size_t i;

	json_array_foreach(ranges, i, r)
		sum += number(r, "size");
	return sum == size;
}

/* Where in memory the page at address is; UINT64_MAX: nowhere. */
static u64 find(const json_t *ranges, u64 address)
{
	const json_t *r;
	size_t i;

	json_array_foreach(ranges, i, r) {
		u64 at = address - number(r, "base_host_virt_addr");

		if (at < number(r, "size") && number(r, "page_size") == PAGE)
			return number(r, "offset") + at;
	}
	return UINT64_MAX;
}

static bool fill(int uffd, const json_t *ranges, const u8 *memory, u64 size)
{
	struct uffdio_copy copy = { .len = PAGE };
	struct uffd_msg msg;
	u64 at;

	if (read(uffd, &msg, sizeof(msg)) != sizeof(msg))
		return errno == EAGAIN;
	if (msg.event != UFFD_EVENT_PAGEFAULT)
		return false;
	copy.dst = msg.arg.pagefault.address & ~(PAGE - 1ULL);
	at = find(ranges, copy.dst);
	if (at > size - PAGE)
		return false;
	copy.src = (uintptr_t)memory + at;
	/* Two may ask for a page at once. */
	return !ioctl(uffd, UFFDIO_COPY, &copy) || errno == EEXIST;
}

/* Until the other end is gone. */
static void give_nothing(int socket, int uffd, bool reads)
{
	struct pollfd p[2] = { { .fd = socket, .events = POLLIN }, { .fd = reads ? uffd : -1, .events = POLLIN } };
	struct uffd_msg msg;

	while (poll(p, 2, -1) > 0 && !p[0].revents)
		(void)!read(uffd, &msg, sizeof(msg));
}

long page_handler(int listener, const u8 *memory, u64 size, long pages, bool (*silent)(void))
{
	int socket = accept(listener, NULL, NULL), uffd = -1;
	json_t *ranges = receive(socket, &uffd);
	struct pollfd p[2] = { { .fd = uffd, .events = POLLIN }, { .fd = socket, .events = POLLIN } };
	long filled = ranges && is_all(ranges, size) ? 0 : -1;

	while (filled >= 0 && poll(p, 2, -1) > 0 && !p[1].revents) {
		if (silent && filled == pages) {
			give_nothing(socket, uffd, silent());
			break;
		}
		filled = fill(uffd, ranges, memory, size) ? filled + 1 : -1;
	}
	json_decref(ranges);
	close(uffd);
	close(socket);
	return filled;
}
