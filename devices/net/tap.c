/* tap.c: a tap interface of the host as the far end of a network card. */
#include <errno.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "devices/net/bridge.h"
#include "devices/net/net.h"
#include "devices/net/rss.h"
#include "vmm/core/log.h"

/* Of Linux 6.2. */
#ifndef TUN_F_USO4
#define TUN_F_USO4	0x20
#define TUN_F_USO6	0x40
#endif
#define TUN_F_USO	(TUN_F_USO4 | TUN_F_USO6)

/*
 * That the interface is deleted wakes those who wait to read, and epoll passes over a watch
 * that does not.  This is what such a watch waits for: it is said with each wake to read, and
 * a tap itself is never ready for it.
 */
#define DELETED	EPOLLPRI

struct tap {
	struct net net;
	int fd;
	struct watch watch;
	u32 events;
	bool attached;			/* of several queues: frames come to this one */
	bool filtered;
	struct rss *rss;		/* of the first of several; NULL: this host has none */
	bool steered;			/* by it */
};

static int tap_send(struct net *n, const struct iovec *iov, int nr)
{
	struct tap *t = container_of(n, struct tap, net);
	ssize_t rc;

	do
		rc = writev(t->fd, iov, nr);
	while (rc < 0 && errno == EINTR);
	return rc < 0 ? -errno : 0;
}

static ssize_t tap_recv(struct net *n, const struct iovec *iov, int nr)
{
	struct tap *t = container_of(n, struct tap, net);
	ssize_t rc;

	do
		rc = readv(t->fd, iov, nr);
	while (rc < 0 && errno == EINTR);
	return rc < 0 ? -errno : rc;
}

static void tap_ready(struct watch *w, u32 events)
{
	struct tap *t = container_of(w, struct tap, watch);

	if (events & EPOLLOUT)
		t->net.writable(&t->net);
	/* The watch is gone where writable stopped the device. */
	if (events & EPOLLIN && t->watch.loop)
		t->net.readable(&t->net);
	/* An error with nothing to read: the interface was deleted under us. */
	if (events & EPOLLERR && !(events & (EPOLLIN | EPOLLOUT))) {
		watch_stop(w);
		t->net.lost(&t->net);
	}
}

static void tap_want(struct net *n, bool rx, bool tx)
{
	struct tap *t = container_of(n, struct tap, net);
	u32 events = DELETED | (rx ? EPOLLIN : 0) | (tx ? EPOLLOUT : 0);

	if (events == t->events || !t->watch.loop)
		return;
	t->events = events;
	watch_change(&t->watch, events);
}

static int tap_start(struct net *n, struct loop *loop)
{
	struct tap *t = container_of(n, struct tap, net);

	t->events = DELETED;
	t->watch.ready = tap_ready;
	return watch_start(&t->watch, loop, t->fd, t->events);
}

static void tap_stop(struct net *n)
{
	watch_stop(&container_of(n, struct tap, net)->watch);
}

static int tap_set_offload(struct net *n, u64 features)
{
	static const struct { u8 feature; unsigned flag; } map[] = {
		{ VIRTIO_NET_F_GUEST_CSUM, TUN_F_CSUM }, { VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4 },
		{ VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6 }, { VIRTIO_NET_F_GUEST_ECN, TUN_F_TSO_ECN },
		{ VIRTIO_NET_F_GUEST_UFO, TUN_F_UFO }, { NET_F_GUEST_USO4, TUN_F_USO4 },
		{ NET_F_GUEST_USO6, TUN_F_USO6 },
	};
	struct tap *t = container_of(n, struct tap, net);
	unsigned flags = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(map); i++)
		if (features >> map[i].feature & 1)
			flags |= map[i].flag;
	/* Linux has these two together only. */
	if ((flags & TUN_F_USO) != TUN_F_USO)
		flags &= ~TUN_F_USO;
	return ioctl(t->fd, TUNSETOFFLOAD, flags) ? -errno : 0;
}

static int tap_attach(struct net *n, bool on)
{
	struct tap *t = container_of(n, struct tap, net);
	struct ifreq ifr = { .ifr_flags = on ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE };

	if (on == t->attached)
		return 0;
	if (ioctl(t->fd, TUNSETQUEUE, &ifr))
		return -errno;
	t->attached = on;
	return 0;
}

static int steer(int fd, int program)
{
	return ioctl(fd, TUNSETSTEERINGEBPF, &program) ? -errno : 0;
}

static int tap_set_rss(struct net *n, const struct net_rss *r)
{
	struct tap *t = container_of(n, struct tap, net);
	int rc = 0;

	if (r)
		rss_configure(t->rss, r);
	if (t->steered != !!r)
		rc = steer(t->fd, r ? rss_program(t->rss) : -1);
	if (!rc)
		t->steered = r;
	return rc;
}

static void tap_set_link(struct net *n, bool up)
{
	int carrier = up;

	(void)!ioctl(container_of(n, struct tap, net)->fd, TUNSETCARRIER, &carrier);
}

static int tap_vhost_fd(struct net *n)
{
	return container_of(n, struct tap, net)->fd;
}

/* Where there are too many stations for the kernel it lets all frames in. */
static void filter(int fd, const struct net_filter *f)
{
	union {
		struct tun_filter filter;
		u8 room[sizeof(struct tun_filter) + sizeof(f->mac)];
	} t = { .filter = { .flags = f->all_groups ? TUN_FLT_ALLMULTI : 0, .count = f->nr } };

	memcpy(t.filter.addr, f->mac, sizeof(f->mac));
	(void)!ioctl(fd, TUNSETTXFILTER, &t);
}

static void tap_set_filter(struct net *n, const struct net_filter *f)
{
	struct tap *t = container_of(n, struct tap, net);

	t->filtered = f->nr;
	filter(t->fd, f);
}

/* These would stay with a tap that stays. */
static void tap_close(struct net *n)
{
	struct tap *t = container_of(n, struct tap, net);

	if (t->filtered)
		filter(t->fd, &(struct net_filter){ 0 });
	if (t->steered)
		(void)!steer(t->fd, -1);
	rss_close(t->rss);
	close(t->fd);
	free(t);
}

static const struct net_ops tap_ops = {
	.kind = "tap", .send = tap_send, .recv = tap_recv, .start = tap_start, .stop = tap_stop,
	.want = tap_want, .set_offload = tap_set_offload, .attach = tap_attach,
	.set_link = tap_set_link, .set_rss = tap_set_rss, .vhost_fd = tap_vhost_fd,
	.set_filter = tap_set_filter, .close = tap_close,
};

static int refused(int rc, const char *name, unsigned nr, struct err *err)
{
	switch (rc) {
	case -EPERM:
		/* By number: root's $USER is root, and who has --uid may have no name. */
		return err_set(err, rc, "no permission to use or make it; make it first as root with "
			       "'ip tuntap add %s mode tap%s user %u'", name,
			       nr > 1 ? " multi_queue" : "", geteuid());
	case -EBUSY:
		return err_set(err, rc, "in use by another program; end that, or choose another name");
	case -EINVAL:
		if (!link_name_valid(name))
			return err_set(err, rc, "no interface can have that name; leave out blanks, '/', "
				       "':' and '%%'");
		return nr > 1 ?
			err_set(err, rc, "it was made for one queue, or is no tap; make it with 'ip "
				"tuntap add %s mode tap multi_queue', or leave out queues=", name) :
			err_set(err, rc, "there is an interface of that name that is not a tap; choose "
				"another name");
	case -E2BIG:
		return err_set(err, rc, "another program has all of its queues but fewer than %u", nr);
	}
	return err_set(err, rc, "%s", strerror(-rc));
}

static int open_queue(const char *name, unsigned nr, struct err *err)
{
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int rc, fd;

	if (strchr(name, '%'))		/* the kernel would put a number there: another name */
		return refused(-EINVAL, name, nr, err);
	fd = tun_open(err);
	if (fd < 0)
		return fd;
	memcpy(ifr.ifr_name, name, strlen(name));
	if (nr > 1)
		ifr.ifr_flags |= IFF_MULTI_QUEUE;
	rc = ioctl(fd, TUNSETIFF, &ifr) ? -errno : 0;
	if (rc == -EINVAL && nr == 1) {	/* made by someone else for several queues */
		ifr.ifr_flags |= IFF_MULTI_QUEUE;
		rc = ioctl(fd, TUNSETIFF, &ifr) ? -errno : 0;
	}
	if (!rc)
		return fd;
	close(fd);
	return refused(rc, name, nr, err);
}

/* An interface that is down drops everything; one that somebody else set up, or
 * took down on purpose, is left alone when we may not touch it. */
static void bring_up(int fd, const char *name, struct ifreq *ifr)
{
	if (ioctl(fd, SIOCGIFFLAGS, ifr) || ifr->ifr_flags & IFF_UP)
		return;
	ifr->ifr_flags |= IFF_UP;
	if (ioctl(fd, SIOCSIFFLAGS, ifr))
		log_warn("net: tap %s is down, and takes no frame until it is up; as root, run "
			 "'ip link set %s up'", name, name);
}

/* *mtu: what has to pass at least, and what does then. */
static int set_up(const char *name, u16 *mtu, struct err *err)
{
	struct ifreq ifr = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), rc = 0;

	if (fd < 0)
		return err_set(err, -errno, "socket: %s", strerror(errno));
	memcpy(ifr.ifr_name, name, strlen(name));
	if (ioctl(fd, SIOCGIFMTU, &ifr))
		ifr.ifr_mtu = 1500;
	if (*mtu > ifr.ifr_mtu) {
		ifr.ifr_mtu = *mtu;
		if (ioctl(fd, SIOCSIFMTU, &ifr))
			rc = err_set(err, -errno, "cannot set its mtu to %u: %s; set it first as root "
				     "with 'ip link set %s mtu %u'", *mtu, strerror(errno), name, *mtu);
	} else if (!*mtu) {
		*mtu = MIN(MAX(ifr.ifr_mtu, NET_MTU_LEAST), NET_MTU_MOST);
	}
	if (!rc)
		bring_up(fd, name, &ifr);
	close(fd);
	return rc;
}

static u64 find_offload(int fd)
{
	enum { TSO = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN };
	static const unsigned known[] = { TSO | TUN_F_UFO | TUN_F_USO, TSO | TUN_F_UFO, TSO, 0 };
	unsigned i = 0;
	u64 f = 1ULL << VIRTIO_NET_F_CSUM | 1ULL << VIRTIO_NET_F_HOST_TSO4 |
		1ULL << VIRTIO_NET_F_HOST_TSO6 | 1ULL << VIRTIO_NET_F_HOST_ECN;

	while (known[i] && ioctl(fd, TUNSETOFFLOAD, known[i]))
		i++;
	if (known[i])
		f |= 1ULL << VIRTIO_NET_F_GUEST_CSUM | 1ULL << VIRTIO_NET_F_GUEST_TSO4 |
		     1ULL << VIRTIO_NET_F_GUEST_TSO6 | 1ULL << VIRTIO_NET_F_GUEST_ECN;
	if (known[i] & TUN_F_UFO)
		f |= 1ULL << VIRTIO_NET_F_HOST_UFO | 1ULL << VIRTIO_NET_F_GUEST_UFO;
	if (known[i] & TUN_F_USO)
		f |= 1ULL << NET_F_HOST_USO | 1ULL << NET_F_GUEST_USO4 | 1ULL << NET_F_GUEST_USO6;
	/* Until a driver says what it takes, frames come whole and summed, and all of them:
	 * whoever had the tap before may have been killed. */
	ioctl(fd, TUNSETOFFLOAD, 0);
	filter(fd, &(struct net_filter){ 0 });
	return f;
}

/* The descriptor is attached, with IFF_VNET_HDR; it becomes the tap's unless this fails:
 * then NULL, and errno. */
static struct tap *tap_new(int fd)
{
	int hdr_len = NET_HDR_LEN;
	struct ifreq ifr;
	struct tap *t = ioctl(fd, TUNSETVNETHDRSZ, &hdr_len) ? NULL : calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->fd = fd;
	t->net.ops = &tap_ops;
	t->net.calls_again = true;
	t->attached = true;
	t->net.offload = find_offload(fd);
	if (!ioctl(fd, SIOCGIFHWADDR, &ifr))
		memcpy(t->net.host_mac, ifr.ifr_hwaddr.sa_data, sizeof(t->net.host_mac));
	return t;
}

static bool has_others(const char *name)
{
	struct link l = { 0 };
	struct netlink *nl;
	struct err why;
	int rc = netlink_open(&nl, &why);

	if (!rc) {
		rc = link_find(nl, 0, name, &l);
		if (rc)
			err_set(&why, rc, "%s", strerror(-rc));
		netlink_close(nl);
	}
	if (rc)
		log_warn("net: tap %s: whether another program has queues of it, too, cannot be seen: %s",
			 name, why.msg);
	return !rc && l.queues > 1;
}

/* Whoever may use taps could hold it for ever. */
static int lock_taps(void)
{
	enum { TRIES = 100, PAUSE_MS = 10 };
	int fd = tun_open(NULL);

	for (int i = 0; i < TRIES && fd >= 0 && flock(fd, LOCK_EX | LOCK_NB); i++)
		poll(NULL, 0, PAUSE_MS);
	return fd;
}

/*
 * Of a tap that was made for several queues the kernel gives some to whoever asks: each would
 * have a part of the frames.  Of those who begin at once one is to have it: they look one after
 * the other, and who finds another is gone before the next looks.
 */
static bool is_ours_alone(int fd, const char *name)
{
	int lock = lock_taps();
	bool alone = !has_others(name);

	if (!alone)
		close(fd);
	if (lock >= 0)
		close(lock);
	return alone;
}

/* real: the name it got, where name is a pattern.  first: all of the tap is to be ours. */
static int new_queue(struct net **out, const char *name, unsigned nr, bool first, char real[IFNAMSIZ],
		     struct err *err)
{
	struct ifreq ifr = { 0 };
	int fd = open_queue(name, nr, err), rc;
	struct tap *t;

	if (fd < 0)
		return fd;
	rc = ioctl(fd, TUNGETIFF, &ifr);
	if (!rc && first && ifr.ifr_flags & IFF_MULTI_QUEUE && !is_ours_alone(fd, ifr.ifr_name))
		return refused(-EBUSY, name, nr, err);
	t = rc ? NULL : tap_new(fd);
	if (!t) {
		rc = err_set(err, -errno, "%s", strerror(errno));
		close(fd);
		return rc;
	}
	memcpy(real, ifr.ifr_name, IFNAMSIZ);
	*out = &t->net;
	return 0;
}

/* Whoever had the tap before may have been killed, and its program is there yet. */
static void open_rss(struct net *n, const char *name)
{
	struct tap *t = container_of(n, struct tap, net);
	struct err why;
	int rc = steer(t->fd, -1);

	if (rc)
		err_set(&why, rc, "%s", strerror(-rc));
	else
		rc = rss_open(&t->rss, &why);
	if (rc)
		log_debug("net: tap %s: no receive-side scaling: %s", name, why.msg);
	else
		n->offload |= 1ULL << VIRTIO_NET_F_RSS;
}

static void close_queues(struct net *queue[], unsigned from, unsigned nr)
{
	for (unsigned i = from; i < nr; i++) {
		net_close(queue[i]);
		queue[i] = NULL;
	}
}

int net_open_tap(struct net *queue[], unsigned nr, const char *name, u16 mtu, struct err *err)
{
	char real[IFNAMSIZ];
	int rc = 0;

	memset(queue, 0, nr * sizeof(queue[0]));
	if (!*name || strlen(name) >= IFNAMSIZ)
		rc = err_set(err, -EINVAL, "a tap's name has 1 to %d characters", IFNAMSIZ - 1);
	for (unsigned i = 0; i < nr && !rc; i++)
		rc = new_queue(&queue[i], i ? real : name, nr, !i, real, err);
	if (!rc)
		rc = set_up(real, &mtu, err);
	for (unsigned i = 0; i < nr && !rc; i++)
		queue[i]->mtu = mtu;
	if (rc)
		close_queues(queue, 0, nr);
	else if (nr > 1)
		open_rss(queue[0], real);
	return rc ? err_prefix(err, "net: tap %s: ", name), rc : 0;
}

/* It may be of another network namespace: its name here would be somebody else's. */
int net_open_tap_fd(struct net **out, int fd, struct err *err)
{
	struct tap *t = tap_new(fd);

	if (!t)
		return err_set(err, -errno, "net: fd=%d: %s", fd, strerror(errno));
	*out = &t->net;
	return 0;
}

int net_open_tap_queues(struct net *queue[], unsigned nr, const char *name, struct err *err)
{
	char real[IFNAMSIZ];
	int rc = 0;

	memset(queue + 1, 0, (nr - 1) * sizeof(queue[0]));
	for (unsigned i = 1; i < nr && !rc; i++)
		rc = new_queue(&queue[i], name, nr, false, real, err);
	if (rc)
		close_queues(queue, 1, nr);
	else if (nr > 1)
		open_rss(queue[0], name);
	return rc ? err_prefix(err, "net: tap %s: ", name), rc : 0;
}

void net_close(struct net *n)
{
	if (n)
		n->ops->close(n);
}
