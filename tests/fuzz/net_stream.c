/*
 * net_stream.c: a stream socket with a peer at its other end that writes what it likes, and
 * a guest that does the same.  The peer's whole frames reach the guest, each once and in
 * order, and nothing else does; the guest's reach the peer whole, with the checksum that
 * it left to us, or not at all.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "devices/net/frame.h"
#include "devices/net/net.h"
#include "tests/fuzz/lib/fuzz.h"

enum { LENGTH = 4, MOST = 1 << 20 };

static struct {
	struct net *net;
	struct loop *loop;
	int fd;				/* the peer's */
	bool listens, broken;
	u8 all[MOST];			/* that the peer wrote, and the guest has seen up to at */
	size_t nr, at;
} w;

static void stop(struct task *t)
{
	(void)t;
	loop_stop(w.loop);
}

static void turn(void)
{
	struct task t = { .run = stop };

	loop_post(w.loop, &t);
	loop_run(w.loop);
}

/* Where the next whole frame is, in what the peer wrote; false: there is none. */
static bool next_whole(size_t *from, u32 *len)
{
	for (;;) {
		if (w.nr - w.at < LENGTH)
			return false;
		memcpy(len, w.all + w.at, LENGTH);
		*len = ntohl(*len);
		w.broken |= *len > FRAME_MAX;
		if (w.broken || w.nr - w.at - LENGTH < *len)
			return false;
		*from = w.at + LENGTH;
		w.at = *from + *len;
		if (*len >= FRAME_MIN)
			return true;
	}
}

static void readable(struct net *n)
{
	static u8 buf[NET_FRAME_MAX];
	struct iovec iov[3] = { { buf, 1 }, { buf + 1, 20 }, { buf + 21, sizeof(buf) - 21 } };
	size_t from;
	ssize_t got;
	u32 len;

	for (int i = 0; i < 8 && w.listens; i++) {
		got = n->ops->recv(n, iov, 3);
		if (got < 0)
			break;
		fuzz_check(next_whole(&from, &len), "a frame of %zd bytes that nobody sent", got);
		fuzz_check(got == (ssize_t)len + NET_HDR_LEN && !memcmp(buf + NET_HDR_LEN, w.all + from, len),
			   "a frame of %u bytes came as one of %zd", len, got);
	}
	n->ops->want(n, w.listens, false);
}

static void writable(struct net *n)
{
	n->ops->want(n, w.listens, false);
}

static void lost(struct net *n)
{
	(void)n;
}

/* --- the peer ------------------------------------------------------------------------------ */

static void peer_writes(const void *data, size_t len)
{
	ssize_t n;

	if (len > MOST - w.nr)
		return;
	n = send(w.fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n <= 0)
		return;
	memcpy(w.all + w.nr, data, n);
	w.nr += n;
}

static void peer_sends(struct fuzz *f)
{
	u8 b = fuzz_u8(f), data[300];
	size_t len = fuzz_u8(f) % 90;
	u32 length = htonl(b == 0xff ? fuzz_u32(f) : len);

	memset(data, b, sizeof(data));
	memcpy(data, &length, LENGTH);
	if (b & 1) {
		peer_writes(data, LENGTH + len);
		return;
	}
	peer_writes(data, 1 + b % LENGTH);
	turn();
	peer_writes(data + 1 + b % LENGTH, LENGTH + len - 1 - b % LENGTH);
}

/* --- the guest ------------------------------------------------------------------------------ */

/* The plain way; false: it is not to be sent. */
static bool whole_frame(const struct virtio_net_hdr_v1 *hdr, u8 *frame, size_t len)
{
	size_t start = hdr->csum_start, at = start + hdr->csum_offset;
	u32 sum = 0;

	if (len < FRAME_MIN || hdr->gso_type)
		return false;
	if (!(hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
		return true;
	if (start > len || at + 2 > len)
		return false;
	for (size_t i = start; i < len; i++)
		sum += (i - start) & 1 ? frame[i] : frame[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	sum = sum == 0xffff ? 0xffff : ~sum & 0xffff;
	frame[at] = sum >> 8;
	frame[at + 1] = sum;
	return true;
}

static void guest_sends(struct fuzz *f)
{
	struct virtio_net_hdr_v1 hdr;
	u8 frame[256], got[LENGTH + sizeof(frame)];
	size_t len = fuzz_u8(f), cut;
	struct iovec iov[4];
	u32 length;
	bool is;
	int rc;

	fuzz_bytes(f, &hdr, sizeof(hdr));
	if (fuzz_u8(f) & 1) {
		hdr.gso_type = 0;
		hdr.csum_start %= 64;
		hdr.csum_offset %= 64;
	}
	for (size_t i = 0; i < len; i++)
		frame[i] = i < 8 ? fuzz_u8(f) : i * 37;
	cut = len ? fuzz_u8(f) % len : 0;
	iov[0] = (struct iovec){ &hdr, 5 };
	iov[1] = (struct iovec){ (u8 *)&hdr + 5, sizeof(hdr) - 5 };
	iov[2] = (struct iovec){ frame, cut };
	iov[3] = (struct iovec){ frame + cut, len - cut };
	rc = w.net->ops->send(w.net, iov, 4);
	is = whole_frame(&hdr, frame, len);
	if (rc == -EPIPE)
		return;			/* the peer wrote nonsense before */
	fuzz_check(is ? !rc : rc == -EPROTO, "%d for a frame of %zu bytes that is %s", rc, len,
		   is ? "right" : "wrong");
	if (!is)
		return;
	fuzz_check(recv(w.fd, got, sizeof(got), 0) == (ssize_t)(LENGTH + len), "not the whole of it");
	memcpy(&length, got, LENGTH);
	fuzz_check(ntohl(length) == len && !memcmp(got + LENGTH, frame, len), "not what was sent");
}

/* --- one input ------------------------------------------------------------------------------- */

void fuzz_one(struct fuzz *f)
{
	struct err err;
	size_t from;
	u32 len;
	int fd[2];

	w.listens = true;
	w.broken = false;
	w.nr = w.at = 0;
	fuzz_check(!loop_new(&w.loop, &err), "%s", err.msg);
	fuzz_check(!socketpair(AF_UNIX, SOCK_STREAM, 0, fd), "socketpair");
	fuzz_check(!net_open_fd(&w.net, fd[0], &err), "%s", err.msg);
	w.fd = fd[1];
	w.net->readable = readable;
	w.net->writable = writable;
	w.net->lost = lost;
	fuzz_check(!w.net->ops->start(w.net, w.loop), "start");
	w.net->ops->want(w.net, true, false);
	while (f->left) {
		switch (fuzz_u8(f) % 8) {
		case 0:
			turn();
			break;
		case 1:
			w.listens = !w.listens;
			w.net->ops->want(w.net, w.listens, false);
			break;
		case 2:
			w.net->ops->stop(w.net);
			fuzz_check(!w.net->ops->start(w.net, w.loop), "start again");
			w.net->ops->want(w.net, w.listens, false);
			break;
		case 3:
			guest_sends(f);
			break;
		default:
			peer_sends(f);
		}
	}
	w.listens = true;
	w.net->ops->want(w.net, true, false);
	/* Eight a turn, and a turn to see that the socket is empty. */
	for (size_t n = 0; n < w.nr / (LENGTH + 1) / 8 + 3; n++)
		turn();
	fuzz_check(!next_whole(&from, &len), "a frame of %u bytes did not arrive", len);
	w.net->ops->stop(w.net);
	net_close(w.net);
	close(w.fd);
	loop_free(w.loop);
}
