/* tap.c: a tap interface of the host as the far end of a network card. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "devices/net/net.h"

struct tap {
	struct net net;
	int fd;
	struct watch watch;
	struct loop *loop;
	u32 events;
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
	if (events & EPOLLERR && !(events & (EPOLLIN | EPOLLOUT)))
		watch_stop(w);
}

static void tap_want(struct net *n, bool rx, bool tx)
{
	struct tap *t = container_of(n, struct tap, net);
	u32 events = (rx ? EPOLLIN : 0) | (tx ? EPOLLOUT : 0);

	if (events == t->events)
		return;
	t->events = events;
	watch_stop(&t->watch);
	if (events && watch_start(&t->watch, t->loop, t->fd, events))
		t->events = 0;
}

static int tap_start(struct net *n, struct loop *loop)
{
	struct tap *t = container_of(n, struct tap, net);

	t->loop = loop;
	t->events = 0;
	t->watch.ready = tap_ready;
	return 0;
}

static void tap_stop(struct net *n)
{
	struct tap *t = container_of(n, struct tap, net);

	watch_stop(&t->watch);
	t->events = 0;
}

static int tap_set_offload(struct net *n, u64 features)
{
	struct tap *t = container_of(n, struct tap, net);
	unsigned flags = 0;

	if (features >> VIRTIO_NET_F_GUEST_CSUM & 1)
		flags |= TUN_F_CSUM;
	if (features >> VIRTIO_NET_F_GUEST_TSO4 & 1)
		flags |= TUN_F_TSO4;
	if (features >> VIRTIO_NET_F_GUEST_TSO6 & 1)
		flags |= TUN_F_TSO6;
	if (features >> VIRTIO_NET_F_GUEST_ECN & 1)
		flags |= TUN_F_TSO_ECN;
	if (features >> VIRTIO_NET_F_GUEST_UFO & 1)
		flags |= TUN_F_UFO;
	return ioctl(t->fd, TUNSETOFFLOAD, flags) ? -errno : 0;
}

static void tap_close(struct net *n)
{
	struct tap *t = container_of(n, struct tap, net);

	close(t->fd);
	free(t);
}

static const struct net_ops tap_ops = {
	.kind = "tap", .send = tap_send, .recv = tap_recv, .start = tap_start, .stop = tap_stop,
	.want = tap_want, .set_offload = tap_set_offload, .close = tap_close,
};

static int open_by_name(const char *name, struct err *err)
{
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int rc, fd;

	if (!*name || strlen(name) >= sizeof(ifr.ifr_name))
		return err_set(err, -EINVAL, "a tap's name has 1 to %zu characters",
			       sizeof(ifr.ifr_name) - 1);
	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return err_set(err, -errno, "/dev/net/tun: %s%s", strerror(errno),
			       errno == EACCES ? "; be root or in its group" :
						 "; load the module with 'modprobe tun'");
	memcpy(ifr.ifr_name, name, strlen(name));
	rc = ioctl(fd, TUNSETIFF, &ifr) ? -errno : 0;
	if (rc == -EINVAL) {	/* made by someone else for several queues */
		ifr.ifr_flags |= IFF_MULTI_QUEUE;
		rc = ioctl(fd, TUNSETIFF, &ifr) ? -errno : 0;
	}
	if (!rc)
		return fd;
	close(fd);
	switch (rc) {
	case -EPERM:
		return err_set(err, rc, "no permission to use or make it; make it first as root with "
			       "'ip tuntap add %s mode tap user $USER'", name);
	case -EBUSY:
		return err_set(err, rc, "in use by another program");
	case -EINVAL:
		return err_set(err, rc, "there is an interface of that name that is not a tap");
	}
	return err_set(err, rc, "%s", strerror(-rc));
}

/* An interface that is down drops everything; one that somebody else set up, or
 * took down on purpose, is left alone when we may not touch it. */
static void bring_up(const char *name, u16 *mtu)
{
	struct ifreq ifr = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return;
	memcpy(ifr.ifr_name, name, strlen(name));
	if (!ioctl(fd, SIOCGIFMTU, &ifr) && ifr.ifr_mtu >= 68 && ifr.ifr_mtu <= 65535)
		*mtu = ifr.ifr_mtu;
	if (!ioctl(fd, SIOCGIFFLAGS, &ifr) && !(ifr.ifr_flags & IFF_UP)) {
		ifr.ifr_flags |= IFF_UP;
		(void)!ioctl(fd, SIOCSIFFLAGS, &ifr);
	}
	close(fd);
}

/* The descriptor is attached, with IFF_VNET_HDR; it becomes the tap's unless this fails:
 * then NULL, and errno. */
static struct tap *tap_new(int fd)
{
	int hdr_len = NET_HDR_LEN;
	struct tap *t = ioctl(fd, TUNSETVNETHDRSZ, &hdr_len) ? NULL : calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->fd = fd;
	t->net.ops = &tap_ops;
	t->net.offload = 1ULL << VIRTIO_NET_F_CSUM | 1ULL << VIRTIO_NET_F_HOST_TSO4 |
			 1ULL << VIRTIO_NET_F_HOST_TSO6 | 1ULL << VIRTIO_NET_F_HOST_ECN;
	if (!ioctl(t->fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN))
		t->net.offload |= 1ULL << VIRTIO_NET_F_GUEST_CSUM |
				  1ULL << VIRTIO_NET_F_GUEST_TSO4 |
				  1ULL << VIRTIO_NET_F_GUEST_TSO6 |
				  1ULL << VIRTIO_NET_F_GUEST_ECN;
	if (!ioctl(t->fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_UFO))
		t->net.offload |= 1ULL << VIRTIO_NET_F_HOST_UFO | 1ULL << VIRTIO_NET_F_GUEST_UFO;
	/* Until a driver says what it takes, frames come whole and summed. */
	ioctl(t->fd, TUNSETOFFLOAD, 0);
	return t;
}

int net_open_tap(struct net **out, const char *name, struct err *err)
{
	int rc, fd = open_by_name(name, err);
	struct ifreq ifr = { 0 };
	struct tap *t;

	if (fd < 0)
		return err_prefix(err, "net: tap %s: ", name), fd;
	t = ioctl(fd, TUNGETIFF, &ifr) ? NULL : tap_new(fd);
	if (!t) {
		rc = err_set(err, -errno, "net: tap %s: %s", name, strerror(errno));
		close(fd);
		return rc;
	}
	t->net.mtu = 1500;
	bring_up(ifr.ifr_name, &t->net.mtu);
	*out = &t->net;
	return 0;
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

void net_close(struct net *n)
{
	if (n)
		n->ops->close(n);
}
