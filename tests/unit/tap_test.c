/* tap_test.c: taps of a kernel that is made of a few variables, and of every kind. */
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include "tests/lib/recorder.h"
#include "tests/lib/test.h"
#include "tests/lib/wire.h"

enum { QUEUES = 4, USO4 = 0x20, USO6 = 0x40, USO = USO4 | USO6 };	/* of Linux 6.2 */
enum { TSO = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN };

/* --- the kernel ----------------------------------------------------------------------------- */

/* Each -errno answers that request, in the order of the queues where there are several. */
static struct {
	unsigned known;			/* TUN_F_* */
	int attach[2 * QUEUES], nr_attach;
	short flags[2 * QUEUES];	/* that were asked for */
	char name[IFNAMSIZ];		/* likewise, last */
	int get, hdr_size, queue, set_mtu, get_mtu, get_flags, get_mac;
	int mtu;
	short state;			/* IFF_UP */
	unsigned offload;		/* in force */
	int hdr_len, carrier, nr_queue_calls, nr_up;
	short last_queue;
	struct tun_filter filter;
	u8 mac[NET_FILTER_MAX][6];
	int map, load, steer, nr_loads, nr_steers;
	int program, steered_by;	/* descriptors; the last that was loaded, and what steers */
} kernel;

static struct err err;
static struct net *queue[QUEUES];

static int attach(struct ifreq *ifr)
{
	int i = kernel.nr_attach++;

	assert_in_range(i, 0, 2 * QUEUES - 1);
	kernel.flags[i] = ifr->ifr_flags;
	memcpy(kernel.name, ifr->ifr_name, IFNAMSIZ);
	return kernel.attach[i];
}

static int set_filter(const struct tun_filter *f)
{
	assert_in_range(f->count, 0, NET_FILTER_MAX);
	kernel.filter = *f;
	memcpy(kernel.mac, f->addr, f->count * 6);
	return 0;
}

static int request(unsigned long nr, void *arg)
{
	struct ifreq *ifr = arg;

	switch (nr) {
	case TUNSETIFF:
		return attach(ifr);
	case TUNGETIFF:
		strcpy(ifr->ifr_name, "given7");
		return kernel.get;
	case TUNSETVNETHDRSZ:
		kernel.hdr_len = *(int *)arg;
		return kernel.hdr_size;
	case TUNSETOFFLOAD:
		if ((uintptr_t)arg & ~(uintptr_t)kernel.known)
			return -EINVAL;
		kernel.offload = (uintptr_t)arg;
		return 0;
	case TUNSETQUEUE:
		kernel.last_queue = ifr->ifr_flags;
		kernel.nr_queue_calls++;
		return kernel.queue;
	case TUNSETCARRIER:
		kernel.carrier = *(int *)arg;
		return 0;
	case TUNSETTXFILTER:
		return set_filter(arg);
	case TUNSETSTEERINGEBPF:
		kernel.nr_steers++;
		if (!kernel.steer)
			kernel.steered_by = *(int *)arg;
		return kernel.steer;
	case SIOCGIFMTU:
		assert_string_equal(ifr->ifr_name, "given7");
		ifr->ifr_mtu = kernel.mtu;
		return kernel.get_mtu;
	case SIOCSIFMTU:
		if (!kernel.set_mtu)
			kernel.mtu = ifr->ifr_mtu;
		return kernel.set_mtu;
	case SIOCGIFFLAGS:
		assert_string_equal(ifr->ifr_name, "given7");
		ifr->ifr_flags = kernel.state;
		return kernel.get_flags;
	case SIOCGIFHWADDR:
		memcpy(ifr->ifr_hwaddr.sa_data, "\2host", 6);
		return kernel.get_mac;
	case SIOCSIFFLAGS:
		kernel.state = ifr->ifr_flags;
		kernel.nr_up++;
		return 0;
	}
	fail_msg("request %#lx", nr);
	return 0;
}

int __wrap_ioctl(int, unsigned long, ...);

int __wrap_ioctl(int fd, unsigned long nr, ...)
{
	va_list ap;
	int rc;

	assert_true(fd >= 0);
	va_start(ap, nr);
	rc = request(nr, va_arg(ap, void *));
	va_end(ap);
	errno = -rc;
	return rc ? -1 : 0;
}

/* A map is a file in memory, a program any file. */
static int bpf(int command, const union bpf_attr *attr)
{
	int fd;

	if (command == BPF_MAP_CREATE) {
		assert_int_equal(attr->map_type, BPF_MAP_TYPE_ARRAY);
		assert_int_equal(attr->map_flags, BPF_F_MMAPABLE);
		fd = memfd_create("map", MFD_CLOEXEC);
		assert_int_equal(ftruncate(fd, attr->value_size), 0);
		return kernel.map ? close(fd), kernel.map : fd;
	}
	assert_int_equal(command, BPF_PROG_LOAD);
	assert_int_equal(attr->prog_type, BPF_PROG_TYPE_SOCKET_FILTER);
	kernel.nr_loads++;
	if (kernel.load)
		return kernel.load;
	kernel.program = fcntl(0, F_DUPFD_CLOEXEC, 0);
	return kernel.program;
}

long __real_syscall(long, ...);
long __wrap_syscall(long, ...);

long __wrap_syscall(long nr, ...)
{
	long arg[6], rc;
	va_list ap;

	va_start(ap, nr);
	for (unsigned i = 0; i < ARRAY_SIZE(arg); i++)
		arg[i] = va_arg(ap, long);
	va_end(ap);
	if (nr != SYS_bpf)
		return __real_syscall(nr, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
	rc = bpf(arg[0], (const union bpf_attr *)arg[1]);
	errno = rc < 0 ? -rc : errno;
	return rc < 0 ? -1 : rc;
}

static int setup(void **state)
{
	(void)state;
	memset(&kernel, 0, sizeof(kernel));
	kernel.known = TSO | TUN_F_UFO | USO;
	kernel.mtu = 1500;
	kernel.carrier = kernel.program = -1;
	kernel.steered_by = 77;		/* of somebody who was killed */
	recorder_null = "/dev/net/tun";
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	recorder_null = NULL;
	return 0;
}

/* How many descriptors this program has: what is refused leaves none. */
static int nr_files(void)
{
	int nr = 0;

	for (int fd = 0; fd < 100; fd++)
		nr += fcntl(fd, F_GETFD) >= 0;
	return nr;
}

static void open_tap(unsigned nr, u16 mtu)
{
	if (net_open_tap(queue, nr, "tap9", mtu, &err))
		fail_msg("%s", err.msg);
}

static void close_all(unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		net_close(queue[i]);
}

static void refuse(unsigned nr, int code, const char *says)
{
	int before = nr_files();

	assert_int_equal(net_open_tap(queue, nr, "tap9", 0, &err), code);
	assert_says(err.msg, "net: tap tap9: ");
	assert_says(err.msg, says);
	for (unsigned i = 0; i < nr; i++)
		assert_null(queue[i]);
	assert_int_equal(nr_files(), before);
	kernel.nr_attach = 0;
	memset(kernel.attach, 0, sizeof(kernel.attach));
}

/* --- opening ----------------------------------------------------------------------------------- */

static void test_open(void **state)
{
	(void)state;
	kernel.filter.count = 7;	/* of somebody who was killed */
	open_tap(1, 0);
	assert_int_equal(kernel.flags[0], IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
	assert_string_equal(kernel.name, "tap9");
	assert_int_equal(kernel.hdr_len, NET_HDR_LEN);
	assert_int_equal(kernel.offload, 0);
	assert_int_equal(kernel.filter.count, 0);
	assert_int_equal(queue[0]->mtu, 1500);
	assert_true(queue[0]->calls_again);
	assert_memory_equal(queue[0]->host_mac, "\2host", 6);
	assert_int_equal(kernel.state, IFF_UP);
	assert_int_equal(kernel.nr_up, 1);
	assert_true(queue[0]->ops->vhost_fd(queue[0]) >= 0);
	close_all(1);
	/* One that is up stays as it is; so does one of which nothing can be learned. */
	open_tap(1, 0);
	close_all(1);
	assert_int_equal(kernel.nr_up, 1);
	kernel.state = 0;
	kernel.get_flags = kernel.get_mac = -EPERM;
	open_tap(1, 0);
	assert_memory_equal(queue[0]->host_mac, "\0\0\0\0\0", 6);
	close_all(1);
	assert_int_equal(kernel.nr_up, 1);
}

static void test_queues(void **state)
{
	int first;

	(void)state;
	open_tap(QUEUES, 0);
	assert_int_equal(kernel.nr_attach, QUEUES);
	for (int i = 0; i < QUEUES; i++)
		assert_int_equal(kernel.flags[i], IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE);
	assert_string_equal(kernel.name, "given7");	/* the pattern was for the first */
	close_all(QUEUES);
	/* The first is somebody else's gift. */
	setup(NULL);
	first = fcntl(0, F_DUPFD_CLOEXEC, 0);
	assert_int_equal(net_open_tap_fd(&queue[0], first, &err), 0);
	assert_int_equal(net_open_tap_queues(queue, QUEUES, "vmm1-0", &err), 0);
	assert_int_equal(kernel.nr_attach, QUEUES - 1);
	assert_string_equal(kernel.name, "vmm1-0");
	assert_int_equal(queue[0]->ops->vhost_fd(queue[0]), first);
	for (int i = 0; i < QUEUES; i++)
		assert_int_equal(queue[i]->offload >> VIRTIO_NET_F_RSS & 1, i == 0);
	close_all(QUEUES);
	setup(NULL);
	kernel.attach[2] = -E2BIG;
	assert_int_equal(net_open_tap_queues(queue, QUEUES, "vmm1-0", &err), -E2BIG);
	assert_says(err.msg, "net: tap vmm1-0: another program has all of its queues but fewer than 4");
	for (int i = 1; i < QUEUES; i++)
		assert_null(queue[i]);
}

/* Made for several queues, and wanted for one. */
static void test_one_of_many(void **state)
{
	(void)state;
	kernel.attach[0] = -EINVAL;
	open_tap(1, 0);
	assert_int_equal(kernel.nr_attach, 2);
	assert_int_equal(kernel.flags[1], kernel.flags[0] | IFF_MULTI_QUEUE);
	close_all(1);
}

static void test_refused(void **state)
{
	char text[80];

	(void)state;
	kernel.attach[0] = -EPERM;
	snprintf(text, sizeof(text), "'ip tuntap add tap9 mode tap user %u'", geteuid());
	refuse(1, -EPERM, text);
	kernel.attach[0] = -EPERM;
	snprintf(text, sizeof(text), "mode tap multi_queue user %u'", geteuid());
	refuse(2, -EPERM, text);
	kernel.attach[0] = -EBUSY;
	refuse(1, -EBUSY, "in use by another program; end that, or choose another name");
	kernel.attach[0] = kernel.attach[1] = -EINVAL;
	refuse(1, -EINVAL, "not a tap; choose another name");
	kernel.attach[0] = -EINVAL;
	refuse(2, -EINVAL, "or leave out queues=");
	for (unsigned nr = 1; nr <= 2; nr++) {
		kernel.nr_attach = 0;
		kernel.attach[0] = kernel.attach[1] = -EINVAL;
		assert_int_equal(net_open_tap(queue, nr, "a/b", 0, &err), -EINVAL);
		assert_says(err.msg, "tap a/b: no interface can have that name");
	}
	kernel.nr_attach = 0;
	memset(kernel.attach, 0, sizeof(kernel.attach));
	assert_int_equal(net_open_tap(queue, 1, "tap%d", 0, &err), -EINVAL);
	assert_says(err.msg, "tap tap%d: no interface can have that name");
	assert_int_equal(kernel.nr_attach, 0);
	kernel.attach[3] = -E2BIG;
	refuse(4, -E2BIG, "fewer than 4");
	kernel.attach[0] = -ENOMEM;
	refuse(1, -ENOMEM, "Cannot allocate memory");
	kernel.get = -EBADFD;
	refuse(1, -EBADFD, "bad state");
	kernel.get = 0;
	kernel.hdr_size = -EINVAL;
	refuse(1, -EINVAL, "Invalid argument");
	assert_int_equal(net_open_tap(queue, 1, "", 0, &err), -EINVAL);
	assert_says(err.msg, "1 to 15 characters");
	assert_int_equal(net_open_tap(queue, 1, "sixteen_bytes_xx", 0, &err), -EINVAL);
	assert_says(err.msg, "1 to 15 characters");
	assert_int_equal(kernel.nr_attach, 0);
	assert_int_equal(net_open_tap_fd(queue, 0, &err), -EINVAL);
	assert_says(err.msg, "net: fd=0: Invalid argument");
}

/* No more files: for the device, and for the socket that the MTU is asked by. */
static void test_no_more_files(void **state)
{
	static const char *const says[] = { "/dev/net/tun: Too many open files",
					    "socket: Too many open files" };
	int next = fcntl(0, F_DUPFD_CLOEXEC, 0);
	struct rlimit old, few;

	(void)state;
	close(next);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(says); i++) {
		few = (struct rlimit){ next + i, old.rlim_max };
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
		assert_int_equal(net_open_tap(queue, 1, "tap9", 0, &err), -EMFILE);
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
		assert_says(err.msg, "net: tap tap9: ");
		assert_says(err.msg, says[i]);
		assert_null(strstr(err.msg, "modprobe"));	/* would be no cure */
		assert_int_equal(fcntl(next, F_GETFD), -1);
	}
}

static void test_mtu(void **state)
{
	static const struct { int has; u16 wants, gets; int is; } row[] = {
		{ 1500, 0, 1500, 1500 }, { 9000, 0, 9000, 9000 }, { 1500, 9000, 9000, 9000 },
		{ 9000, 1500, 1500, 9000 }, { 10, 0, NET_MTU_LEAST, 10 }, { 65535, 0, NET_MTU_MOST, 65535 },
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(row); i++) {
		kernel.nr_attach = 0;
		kernel.mtu = row[i].has;
		open_tap(2, row[i].wants);
		assert_int_equal(queue[0]->mtu, row[i].gets);
		assert_int_equal(queue[1]->mtu, row[i].gets);
		assert_int_equal(kernel.mtu, row[i].is);
		close_all(2);
	}
	/* It cannot be asked: then it has the usual one. */
	kernel.nr_attach = 0;
	kernel.mtu = 9000;
	kernel.get_mtu = -EPERM;
	open_tap(1, 0);
	assert_int_equal(queue[0]->mtu, 1500);
	close_all(1);
	kernel.set_mtu = -EPERM;
	assert_int_equal(net_open_tap(queue, 2, "tap9", 9000, &err), -EPERM);
	assert_says(err.msg, "cannot set its mtu to 9000: Operation not permitted");
	assert_says(err.msg, "'ip link set given7 mtu 9000'");
	assert_null(queue[0]);
	assert_null(queue[1]);
}

/* --- what it can do ---------------------------------------------------------------------------- */

#define BIT(n)	(1ULL << (n))

static u64 offered(unsigned known)
{
	u64 offload;

	setup(NULL);
	kernel.known = known;
	open_tap(1, 0);
	assert_int_equal(kernel.offload, 0);
	offload = queue[0]->offload;
	close_all(1);
	return offload;
}

static void test_offload(void **state)
{
	u64 least = BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_HOST_TSO6) |
		    BIT(VIRTIO_NET_F_HOST_ECN);
	u64 tso = least | BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) |
		  BIT(VIRTIO_NET_F_GUEST_TSO6) | BIT(VIRTIO_NET_F_GUEST_ECN);
	u64 ufo = tso | BIT(VIRTIO_NET_F_HOST_UFO) | BIT(VIRTIO_NET_F_GUEST_UFO);
	u64 uso = BIT(NET_F_HOST_USO) | BIT(NET_F_GUEST_USO4) | BIT(NET_F_GUEST_USO6);

	(void)state;
	assert_true(offered(0) == least);
	assert_true(offered(TSO) == tso);
	assert_true(offered(TSO | TUN_F_UFO) == ufo);
	assert_true(offered(TSO | TUN_F_UFO | USO) == (ufo | uso));
}

static void test_set_offload(void **state)
{
	static const struct { u64 features; unsigned flags; } row[] = {
		{ 0, 0 }, { BIT(VIRTIO_NET_F_CSUM), 0 },
		{ BIT(VIRTIO_NET_F_GUEST_CSUM), TUN_F_CSUM },
		{ BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4), TUN_F_CSUM | TUN_F_TSO4 },
		{ BIT(VIRTIO_NET_F_GUEST_TSO6) | BIT(VIRTIO_NET_F_GUEST_ECN), TUN_F_TSO6 | TUN_F_TSO_ECN },
		{ BIT(VIRTIO_NET_F_GUEST_UFO), TUN_F_UFO },
		{ BIT(NET_F_GUEST_USO4) | BIT(NET_F_GUEST_USO6), USO },
		{ BIT(NET_F_GUEST_USO4), 0 }, { BIT(NET_F_GUEST_USO6), 0 },
	};
	const struct net_ops *ops;

	(void)state;
	open_tap(1, 0);
	ops = queue[0]->ops;
	for (unsigned i = 0; i < ARRAY_SIZE(row); i++) {
		assert_int_equal(ops->set_offload(queue[0], row[i].features), 0);
		assert_int_equal(kernel.offload, row[i].flags);
	}
	kernel.known = 0;
	assert_int_equal(ops->set_offload(queue[0], BIT(VIRTIO_NET_F_GUEST_CSUM)), -EINVAL);
	close_all(1);
}

static void test_attach(void **state)
{
	struct net *n;

	(void)state;
	open_tap(2, 0);
	n = queue[1];
	assert_int_equal(n->ops->attach(n, true), 0);
	assert_int_equal(kernel.nr_queue_calls, 0);	/* so it was made */
	assert_int_equal(n->ops->attach(n, false), 0);
	assert_int_equal(kernel.last_queue, IFF_DETACH_QUEUE);
	assert_int_equal(n->ops->attach(n, false), 0);
	assert_int_equal(kernel.nr_queue_calls, 1);
	/* What failed is asked for again. */
	kernel.queue = -E2BIG;
	assert_int_equal(n->ops->attach(n, true), -E2BIG);
	kernel.queue = 0;
	assert_int_equal(n->ops->attach(n, true), 0);
	assert_int_equal(kernel.last_queue, IFF_ATTACH_QUEUE);
	assert_int_equal(kernel.nr_queue_calls, 3);
	close_all(2);
}

static bool has_rss(unsigned nr)
{
	bool has;

	setup(NULL);
	open_tap(nr, 0);
	has = queue[0]->offload >> VIRTIO_NET_F_RSS & 1;
	close_all(nr);
	return has;
}

static void test_rss(void **state)
{
	struct net_rss r = { .hash_types = VIRTIO_NET_RSS_HASH_TYPE_IPv4, .mask = 1, .table = { 1, 0 } };
	int before = nr_files();
	struct net *n;

	(void)state;
	/* One queue does not pay for it. */
	assert_false(has_rss(1));
	assert_int_equal(kernel.nr_loads + kernel.nr_steers, 0);
	assert_true(has_rss(2));
	assert_int_equal(kernel.nr_loads, 1);
	assert_int_equal(nr_files(), before);
	open_tap(2, 0);
	n = queue[0];
	assert_int_equal(kernel.steered_by, -1);
	assert_int_equal(n->ops->set_rss(n, NULL), 0);
	assert_int_equal(kernel.nr_steers, 2);		/* as they were opened */
	kernel.steer = -EINVAL;
	assert_int_equal(n->ops->set_rss(n, &r), -EINVAL);
	kernel.steer = 0;
	assert_int_equal(n->ops->set_rss(n, &r), 0);
	assert_int_equal(kernel.steered_by, kernel.program);
	assert_int_equal(n->ops->set_rss(n, &r), 0);
	assert_int_equal(kernel.nr_steers, 4);		/* what changes is in memory */
	assert_int_equal(n->ops->set_rss(n, NULL), 0);
	assert_int_equal(kernel.steered_by, -1);
	assert_int_equal(n->ops->set_rss(n, &r), 0);
	close_all(2);
	assert_int_equal(kernel.steered_by, -1);	/* a tap that stays has none */
	assert_int_equal(nr_files(), before);
}

/* Where it cannot be had, that is all that is missing. */
static void test_no_rss(void **state)
{
	int *const fails[] = { &kernel.map, &kernel.load, &kernel.steer };
	int before = nr_files();

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(fails); i++) {
		setup(NULL);
		*fails[i] = -EPERM;
		open_tap(2, 0);
		assert_int_equal(queue[0]->offload >> VIRTIO_NET_F_RSS & 1, 0);
		assert_true(queue[0]->offload >> VIRTIO_NET_F_GUEST_CSUM & 1);
		close_all(2);
		assert_int_equal(nr_files(), before);
	}
}

static void test_link_and_filter(void **state)
{
	struct net_filter f = { .mac = { { 2, 0, 0, 0, 0, 1 }, { 1, 0, 0x5e, 0, 0, 1 } }, .nr = 2 };
	struct net *n;

	(void)state;
	open_tap(1, 0);
	n = queue[0];
	n->ops->set_link(n, false);
	assert_int_equal(kernel.carrier, 0);
	n->ops->set_link(n, true);
	assert_int_equal(kernel.carrier, 1);
	n->ops->set_filter(n, &f);
	assert_int_equal(kernel.filter.count, 2);
	assert_int_equal(kernel.filter.flags, 0);
	assert_memory_equal(kernel.mac, f.mac, 12);
	f.all_groups = true;
	f.nr = NET_FILTER_MAX;
	n->ops->set_filter(n, &f);
	assert_int_equal(kernel.filter.count, NET_FILTER_MAX);
	assert_int_equal(kernel.filter.flags, TUN_FLT_ALLMULTI);
	/* A tap that stays lets all in again. */
	close_all(1);
	assert_int_equal(kernel.filter.count, 0);
	assert_int_equal(kernel.filter.flags, 0);
	kernel.filter.count = 5;
	kernel.nr_attach = 0;
	open_tap(1, 0);
	kernel.filter.count = 5;
	close_all(1);
	assert_int_equal(kernel.filter.count, 5);	/* none was set */
}

/* --- frames: a socket is the tap, with the headers ---------------------------------------------- */

static struct wire wire;

static void give(int fd)
{
	struct net *n;

	if (net_open_tap_fd(&n, fd, &err))
		fail_msg("%s", err.msg);
	assert_int_equal(n->mtu, 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	wire_init(&wire, n, BIT(VIRTIO_NET_F_GUEST_CSUM));
	assert_int_equal(kernel.offload, TUN_F_CSUM);
}

static bool any(const u8 *f, size_t len, void *arg)
{
	(void)f;
	(void)len;
	(void)arg;
	return true;
}

static void test_frames(void **state)
{
	u8 frame[200], got[NET_HDR_LEN + sizeof(frame)];
	int fd[2], sent = 0;
	const u8 *f;
	size_t len;

	(void)state;
	for (size_t i = 0; i < sizeof(frame); i++)
		frame[i] = i * 11;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fd), 0);
	give(fd[0]);
	assert_int_equal(wire_send(&wire, frame, sizeof(frame), 0, 0), 0);
	assert_int_equal(recv(fd[1], got, sizeof(got), 0), sizeof(got));
	assert_memory_equal(got + NET_HDR_LEN, frame, sizeof(frame));
	assert_int_equal(send(fd[1], got, sizeof(got), 0), sizeof(got));
	f = wire_expect(&wire, any, NULL, &len);
	assert_non_null(f);
	assert_int_equal(len, sizeof(frame));
	assert_memory_equal(f, frame, len);
	/* A card without buffers is not told. */
	wire_listen(&wire, false);
	assert_int_equal(send(fd[1], got, sizeof(got), 0), sizeof(got));
	assert_int_equal(wire_turn(&wire, 3), 0);
	wire_listen(&wire, true);
	assert_non_null(wire_expect(&wire, any, NULL, &len));
	/* Full: it is told when there is room, once. */
	while (sent < 10000 && !wire_send(&wire, frame, sizeof(frame), 0, 0))
		sent++;
	assert_in_range(sent, 1, 9999);
	wire_turn(&wire, 3);
	assert_int_equal(wire.nr_writable, 0);
	while (recv(fd[1], got, sizeof(got), MSG_DONTWAIT) > 0)
		sent--;
	assert_int_equal(sent, 0);
	wire_turn(&wire, 3);
	assert_int_equal(wire.nr_writable, 1);
	assert_int_equal(wire.nr_lost, 0);
	wire_fini(&wire);
	close(fd[1]);
}

/* Writable stopped the card: readable is not called any more. */
static void stop_in_writable(struct net *n)
{
	wire.nr_writable++;
	n->ops->stop(n);
}

static void test_stopped_meanwhile(void **state)
{
	u8 frame[100] = { 0 };
	int fd[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fd), 0);
	give(fd[0]);
	wire.net->writable = stop_in_writable;
	assert_int_equal(send(fd[1], frame, sizeof(frame), 0), sizeof(frame));
	wire.net->ops->want(wire.net, true, true);
	assert_int_equal(wire_turn(&wire, 3), 0);
	assert_int_equal(wire.nr_writable, 1);
	wire.net->ops->want(wire.net, true, false);	/* of one that is stopped: nothing */
	assert_int_equal(wire_turn(&wire, 1), 0);
	wire_fini(&wire);
	close(fd[1]);
}

/* As a pipe nobody reads any more, a tap that was deleted has an error, and nothing else. */
static void test_lost(void **state)
{
	u8 frame[100] = { 0 };
	int fd[2];

	(void)state;
	assert_int_equal(pipe2(fd, O_CLOEXEC), 0);
	give(fd[1]);
	wire_turn(&wire, 2);
	assert_int_equal(wire.nr_lost, 0);
	close(fd[0]);
	wire_turn(&wire, 3);
	assert_int_equal(wire.nr_lost, 1);
	assert_int_equal(wire_send(&wire, frame, sizeof(frame), 0, 0), -EPIPE);
	assert_int_equal(wire.net->ops->recv(wire.net, &(struct iovec){ frame, sizeof(frame) }, 1), -EBADF);
	wire_fini(&wire);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_open), T(test_queues), T(test_one_of_many), T(test_refused), T(test_no_more_files),
		T(test_mtu),
		T(test_offload), T(test_set_offload), T(test_attach), T(test_rss), T(test_no_rss),
		T(test_link_and_filter),
		T(test_frames), T(test_stopped_meanwhile), T(test_lost),
	};

	closefrom(3);		/* what was inherited has holes */
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
