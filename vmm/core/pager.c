/* pager.c: hands ranges of memory to a page fault handler. */
#include "vmm/core/pager.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>
#include "vmm/core/socket.h"

enum { MAX_RANGES = 4, RANGE_TEXT = 160, PATIENCE = 5 /* s */, LOOKS = 50 /* in 50 ms */ };

/* --- a handler that is gone ------------------------------------------------------------------- */

/* By a signal, as the thread that started it may itself wait for a page. */
static struct {
	struct pager *pager;		/* NULL: none */
	int about;			/* what the kernel says of it; -1: there is no /proc here */
	struct uffdio_range range[MAX_RANGES];
	unsigned nr;
	unsigned seconds;		/* that pages are waited for, and there is no handler, or no time */
	bool hurry;
	greg_t at[REG_RIP + 1];		/* where the last signal found its thread, and with what */
	bool has_timer;
	timer_t timer;
} watched = { .about = -1 };
static void (*when_lost)(bool gone);
static sigset_t ends;

void pager_set_lost(void (*lost)(bool gone), const sigset_t *end)
{
	when_lost = lost;
	ends = *end;
}

void pager_hurry(bool on)
{
	watched.seconds = 0;
	store_once(&watched.hurry, on);
}

/* By a signal that its loop would be told of. */
static bool is_to_end(void)
{
	sigset_t pending;

	if (sigpending(&pending) || sigandset(&pending, &pending, &ends))
		return false;
	return !sigisemptyset(&pending);
}

/* Those whose fault it had read, and did not answer, fault again. */
static void wake_all(void)
{
	for (unsigned i = 0; i < watched.nr; i++)
		(void)!ioctl(watched.pager->uffd, UFFDIO_WAKE, &watched.range[i]);
}

static bool one_waits(void)
{
	static const char key[] = "\ntotal:\t";
	char text[512];
	const char *at;
	ssize_t n = pread(watched.about, text, sizeof(text) - 1, 0);

	text[MAX(n, 0)] = 0;
	at = strstr(text, key);
	return at && at[sizeof(key) - 1] != '0';
}

/* Where the kernel does not say so: one whose fault the handler has not read yet. */
static bool one_faults(void)
{
	struct pollfd p = { .fd = watched.pager->uffd, .events = POLLIN };

	wake_all();
	return poll(&p, 1, 1) > 0 && p.revents & POLLIN;
}

/* Does another thread wait for a page, be it in the kernel?  Who has a signal while the kernel itself needs the page, a
 * vCPU that is kicked, asks for it again and again, and between two times is none that waits. */
static bool others_wait(void)
{
	for (int n = 0; n < LOOKS; n++) {
		if (watched.about < 0 ? one_faults() : one_waits())
			return true;
		if (watched.about >= 0)
			(void)!poll(NULL, 0, 1);
	}
	return false;
}

/* While it is here the thread itself does not wait.  Where it was found before, and nothing it computes with has changed,
 * and not in a call of the kernel's, nor at one that is to be made again, there it does. */
static bool waits(const ucontext_t *c)
{
	static const u8 syscall_code[] = { 0x0f, 0x05 };
	const greg_t *r = c->uc_mcontext.gregs;
	const u8 *at = (const u8 *)r[REG_RIP];
	bool moved = memcmp(r, watched.at, sizeof(watched.at));

	memcpy(watched.at, r, sizeof(watched.at));
	return !moved && memcmp(at - 2, syscall_code, sizeof(syscall_code)) &&
	       memcmp(at, syscall_code, sizeof(syscall_code));
}

/* A handler may be done, and go; only who waits for a page then waits in vain. */
static void look(int sig, siginfo_t *info, void *context)
{
	struct pollfd p[] = { { .fd = -1 }, { .fd = -1, .events = POLLIN } };
	int was = errno;
	bool stuck, gone, ending;

	(void)sig;
	if (!watched.pager || info->si_code != SI_TIMER)
		return;
	stuck = waits(context);
	p[0].fd = watched.pager->socket;
	p[1].fd = watched.pager->uffd;
	gone = poll(p, ARRAY_SIZE(p), 0) > 0 && p[0].revents & POLLHUP;
	ending = load_once(&watched.hurry) || is_to_end();
	if ((gone && (stuck || p[1].revents & POLLIN)) || (ending && (stuck || others_wait())))
		watched.seconds++;
	else if (!ending || watched.about >= 0)		/* a handler that reads all at once hides who waits */
		watched.seconds = 0;
	if (gone)
		wake_all();
	if (watched.seconds == PATIENCE)
		when_lost(gone);
	errno = was;
}

static int watch(struct pager *p, const struct pager_range *range, unsigned nr)
{
	struct sigaction sa = { .sa_sigaction = look, .sa_flags = SA_SIGINFO | SA_RESTART };
	struct sigevent to_us = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGALRM };
	struct itimerspec each_second = { { .tv_sec = 1 }, { .tv_sec = 1 } };
	char path[32];

	if (!when_lost)
		return 0;
	watched.nr = nr;
	watched.seconds = 0;
	for (unsigned i = 0; i < nr; i++)
		watched.range[i] = (struct uffdio_range){ (uintptr_t)range[i].host, range[i].size };
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", p->uffd);
	watched.about = open(path, O_RDONLY | O_CLOEXEC);
	watched.pager = p;
	if (watched.has_timer)
		return 0;
	to_us._sigev_un._tid = (pid_t)syscall(SYS_gettid);
	if (sigaction(SIGALRM, &sa, NULL) || timer_create(CLOCK_MONOTONIC, &to_us, &watched.timer))
		return -errno;
	watched.has_timer = true;
	return timer_settime(watched.timer, 0, &each_second, NULL) ? -errno : 0;
}

/* --- its beginning ---------------------------------------------------------------------------- */

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
	if (!rc) {
		rc = watch(p, range, nr);
		if (rc)
			err_set(err, rc, "page fault handler: timer: %s", strerror(-rc));
	}
	if (rc)
		pager_stop(p);
	return rc;
}

void pager_stop(struct pager *p)
{
	if (watched.pager == p) {
		watched.pager = NULL;
		if (watched.about >= 0)
			close(watched.about);
		watched.about = -1;
	}
	if (p->uffd >= 0)
		close(p->uffd);
	if (p->socket >= 0)
		close(p->socket);
	*p = (struct pager){ .uffd = -1, .socket = -1 };
}
