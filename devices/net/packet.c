/* packet.c: a descriptor with one frame a read: a datagram socket, a tap without headers. */
#include "devices/net/packet.h"
#include <errno.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "devices/net/frame.h"

enum { SHORT_MAX = 8 };		/* that go by until others on the loop have their turn */

struct packet {
	struct net net;
	int fd;
	u32 events;
	struct loop *loop;
	struct watch watch;
	u8 in[FRAME_MAX], out[NET_FRAME_MAX];
};

static struct packet *of(struct net *n)
{
	return container_of(n, struct packet, net);
}

static int packet_send(struct net *n, const struct iovec *iov, int nr)
{
	struct packet *p = of(n);
	ssize_t rc, len = frame_take(iov, nr, p->out);

	if (len < 0)
		return len;
	do
		rc = write(p->fd, p->out + NET_HDR_LEN, len);
	while (rc < 0 && errno == EINTR);
	return rc < 0 ? -errno : 0;
}

static ssize_t packet_recv(struct net *n, const struct iovec *iov, int nr)
{
	struct packet *p = of(n);
	ssize_t len = 0;

	/* What is too short for a frame goes by. */
	for (int i = 0; i < SHORT_MAX && len < FRAME_MIN; i++) {
		len = read(p->fd, p->in, sizeof(p->in));
		if (len < 0 && errno != EINTR)
			return -errno;
	}
	return len < FRAME_MIN ? -EAGAIN : frame_give(iov, nr, 0, p->in, len);
}

static void ready(struct watch *w, u32 events)
{
	struct packet *p = container_of(w, struct packet, watch);
	int error;
	socklen_t len = sizeof(error);

	if (events & EPOLLOUT)
		p->net.writable(&p->net);
	if (events & EPOLLIN && p->watch.loop)
		p->net.readable(&p->net);
	/* A socket's error goes away when it is asked for; a tap that was deleted stays so. */
	if (events & EPOLLERR && !(events & (EPOLLIN | EPOLLOUT)) &&
	    getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &error, &len)) {
		watch_stop(w);
		p->net.lost(&p->net);
	}
}

static void packet_want(struct net *n, bool rx, bool tx)
{
	struct packet *p = of(n);
	u32 events = (rx ? EPOLLIN : 0) | (tx ? EPOLLOUT : 0);

	if (events == p->events)
		return;
	p->events = events;
	watch_stop(&p->watch);
	if (events && watch_start(&p->watch, p->loop, p->fd, events))
		p->events = 0;
}

static int packet_start(struct net *n, struct loop *loop)
{
	struct packet *p = of(n);

	p->loop = loop;
	p->events = 0;
	p->watch.ready = ready;
	return 0;
}

static void packet_stop(struct net *n)
{
	struct packet *p = of(n);

	watch_stop(&p->watch);
	p->events = 0;
}

static int packet_set_offload(struct net *n, u64 features)
{
	(void)n;
	(void)features;
	return 0;
}

static void packet_close(struct net *n)
{
	struct packet *p = of(n);

	close(p->fd);
	free(p);
}

static const struct net_ops packet_ops = {
	.kind = "packet", .send = packet_send, .recv = packet_recv, .start = packet_start,
	.stop = packet_stop, .want = packet_want, .set_offload = packet_set_offload,
	.close = packet_close,
};

int packet_new(struct net **out, int fd, struct err *err)
{
	struct packet *p = calloc(1, sizeof(*p));

	if (!p)
		return err_set(err, -ENOMEM, "net: out of memory");
	p->fd = fd;
	p->net.ops = &packet_ops;
	p->net.offload = FRAME_OFFLOAD;
	p->net.calls_again = true;
	*out = &p->net;
	return 0;
}
