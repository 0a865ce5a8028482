/* stream.c: frames over a stream socket: four bytes of length, big-endian, and the frame. */
#include "devices/net/stream.h"
#include <endian.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LENGTH = 4, BUFFER = 4 << 20 };

static struct stream *of(struct net *n)
{
	return container_of(n, struct stream, net);
}

static void end(struct stream *s, const char *why)
{
	if (s->gone)
		return;
	s->gone = true;
	s->from = s->to = 0;
	watch_stop(&s->watch);
	s->events = 0;
	s->ended(s, why);
	s->net.lost(&s->net);
}

/* Wait for what is of use now, and nothing else. */
static void update(struct stream *s)
{
	bool tx = s->want_tx || s->out_from < s->out_to;
	u32 events = (s->want_rx ? EPOLLIN : 0) | (tx ? EPOLLOUT : 0);

	if (s->gone || !s->loop || events == s->events)
		return;
	s->events = events;
	watch_stop(&s->watch);
	if (events && watch_start(&s->watch, s->loop, s->fd, events))
		s->events = 0;
}

/* --- to the socket ----------------------------------------------------------------------- */

/* Send what there is of out.  0: nothing is left. */
static int flush(struct stream *s)
{
	while (s->out_from < s->out_to) {
		ssize_t n = send(s->fd, s->out + s->out_from, s->out_to - s->out_from,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return -EAGAIN;
		if (n < 0) {
			s->out_from = s->out_to = 0;
			end(s, strerror(errno));
			return -EPIPE;
		}
		s->out_from += n;
	}
	return 0;
}

/*
 * One system call a frame: passt loses its place where the end of what it reads
 * cuts a length in two, which does not happen so.
 */
static int stream_send(struct net *n, const struct iovec *iov, int nr)
{
	struct stream *s = of(n);
	ssize_t len;
	u32 length;
	int rc;

	if (s->gone)
		return -EPIPE;
	rc = flush(s);
	if (rc)
		return rc;
	len = frame_take(iov, nr, s->out);
	if (len < 0)
		return len;
	/* The header has been used: its place is free for the length. */
	length = htobe32(len);
	s->out_from = NET_HDR_LEN - LENGTH;
	s->out_to = NET_HDR_LEN + len;
	memcpy(s->out + s->out_from, &length, LENGTH);
	rc = flush(s);
	if (rc == -EAGAIN && s->out_from == NET_HDR_LEN - LENGTH) {
		s->out_from = s->out_to = 0;
		return -EAGAIN;
	}
	if (rc == -EAGAIN)
		update(s);
	return 0;
}

/* --- from the socket --------------------------------------------------------------------- */

/* The next whole frame that has come: its length, or 0. */
static size_t whole(struct stream *s)
{
	while (s->to - s->from >= LENGTH) {
		u32 length;

		memcpy(&length, s->in + s->from, LENGTH);
		length = be32toh(length);
		if (length > FRAME_MAX) {
			end(s, "a frame longer than any is");
			return 0;
		}
		if (s->to - s->from - LENGTH < length)
			return 0;
		if (length >= FRAME_MIN)
			return length;
		s->from += LENGTH + length;
	}
	return 0;
}

/* Read more.  False: there is none now. */
static bool fill(struct stream *s)
{
	ssize_t n;

	memmove(s->in, s->in + s->from, s->to - s->from);
	s->to -= s->from;
	s->from = 0;
	do
		n = recv(s->fd, s->in + s->to, STREAM_ROOM - s->to, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n > 0)
		s->to += n;
	else if (!n || errno != EAGAIN)
		end(s, n ? strerror(errno) : "closed");
	return n > 0;
}

static ssize_t stream_recv(struct net *n, const struct iovec *iov, int nr)
{
	struct stream *s = of(n);
	ssize_t done;
	size_t len;

	len = whole(s);
	/* Once: of what is too short for a frame there may be more all the time. */
	if (!len && !s->gone && fill(s))
		len = whole(s);
	if (!len)
		return -EAGAIN;
	done = frame_give(iov, nr, s->flags, s->in + s->from + LENGTH, len);
	s->from += LENGTH + len;
	return done;
}

/* What has been read already makes no socket readable. */
static bool before_sleep(struct loop_hook *h)
{
	struct stream *s = container_of(h, struct stream, hook);

	if (s->want_rx && whole(s))
		s->net.readable(&s->net);
	/* Nor does one that is closed ever take what the card waits to send. */
	if (s->gone && s->want_tx)
		s->net.writable(&s->net);
	return s->loop && s->want_rx && whole(s);
}

static void ready(struct watch *w, u32 events)
{
	struct stream *s = container_of(w, struct stream, watch);

	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && s->want_rx)
		s->net.readable(&s->net);
	else if (events & (EPOLLHUP | EPOLLERR))
		end(s, "closed");
	if (!s->loop || s->gone)
		return;
	if (events & EPOLLOUT && !flush(s) && s->want_tx)
		s->net.writable(&s->net);
	update(s);
}

/* --- its life ---------------------------------------------------------------------------- */

static void stream_want(struct net *n, bool rx, bool tx)
{
	struct stream *s = of(n);

	s->want_rx = rx;
	s->want_tx = tx;
	update(s);
}

static int stream_start(struct net *n, struct loop *loop)
{
	struct stream *s = of(n);

	s->loop = loop;
	s->want_rx = s->want_tx = false;
	s->watch.ready = ready;
	s->hook.before_sleep = before_sleep;
	loop_add_hook(loop, &s->hook);
	update(s);
	/* Of a guest that has booted again: its card has not heard of it. */
	if (s->gone)
		s->net.lost(&s->net);
	return 0;
}

static void stream_stop(struct net *n)
{
	struct stream *s = of(n);

	if (!s->loop)
		return;
	loop_remove_hook(s->loop, &s->hook);
	watch_stop(&s->watch);
	s->events = 0;
	s->loop = NULL;
	s->want_rx = s->want_tx = false;
}

/* Only who offers it knows its frames to be right. */
static int stream_set_offload(struct net *n, u64 features)
{
	bool valid = features >> VIRTIO_NET_F_GUEST_CSUM & 1;

	of(n)->flags = valid ? VIRTIO_NET_HDR_F_DATA_VALID : 0;
	return 0;
}

static void stream_close(struct net *n)
{
	struct stream *s = of(n);

	close(s->fd);
	free(s->in);
	s->release(s);
}

static const struct net_ops stream_ops = {
	.kind = "stream", .send = stream_send, .recv = stream_recv, .start = stream_start,
	.stop = stream_stop, .want = stream_want, .set_offload = stream_set_offload,
	.close = stream_close,
};

void stream_widen(int fd)
{
	int size = BUFFER;

	/* Past what the host grants anybody, with the capability for it. */
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)))
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

int stream_init(struct stream *s, int fd, struct err *err)
{
	int one = 1;

	s->in = malloc(STREAM_ROOM);
	if (!s->in)
		return err_set(err, -ENOMEM, "net: out of memory");
	s->fd = fd;
	s->net.ops = &stream_ops;
	s->net.offload = FRAME_OFFLOAD;
	stream_widen(fd);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return 0;
}
