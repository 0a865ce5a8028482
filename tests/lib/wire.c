/* wire.c: a card at the near end of a struct net, and frames made by hand for it. */
#include "tests/lib/wire.h"
#include <arpa/inet.h>
#include <linux/virtio_net.h>
#include "tests/lib/test.h"

static void readable(struct net *n)
{
	struct wire *w = n->card;
	u8 buf[NET_FRAME_MAX];
	struct iovec iov[2] = { { buf, 7 }, { buf + 7, sizeof(buf) - 7 } };
	ssize_t len;

	for (int i = 0; i < 64 && !w->deaf; i++) {
		len = n->ops->recv(n, iov, 2);
		if (len < 0)
			break;
		assert_true(len >= NET_HDR_LEN);
		assert_in_range(w->nr, 0, WIRE_FRAMES - 1);
		w->frame[w->nr].data = malloc(len);
		assert_non_null(w->frame[w->nr].data);
		memcpy(w->frame[w->nr].data, buf, len);
		w->frame[w->nr++].len = len;
	}
	n->ops->want(n, !w->deaf, w->want_tx);
}

static void writable(struct net *n)
{
	struct wire *w = n->card;

	w->nr_writable++;
	w->want_tx = false;
	n->ops->want(n, !w->deaf, false);
}

static void lost(struct net *n)
{
	((struct wire *)n->card)->nr_lost++;
}

void wire_init(struct wire *w, struct net *net, u64 features)
{
	*w = (struct wire){ .net = net };
	fake_init(&w->fake, MIB, -1);
	net->card = w;
	net->readable = readable;
	net->writable = writable;
	net->lost = lost;
	assert_int_equal(net->ops->set_offload(net, features), 0);
	assert_int_equal(net->ops->start(net, w->fake.p.io_loop), 0);
	wire_listen(w, true);
}

void wire_fini(struct wire *w)
{
	w->net->ops->stop(w->net);
	w->net->ops->stop(w->net);
	net_close(w->net);
	fake_fini(&w->fake);
	for (int i = 0; i < w->nr; i++)
		free(w->frame[i].data);
}

void wire_listen(struct wire *w, bool listens)
{
	w->deaf = !listens;
	w->net->ops->want(w->net, listens, w->want_tx);
}

int wire_send(struct wire *w, const void *frame, size_t len, u16 csum_start, u16 csum_offset)
{
	struct virtio_net_hdr_v1 hdr = {
		.flags = csum_start ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0,
		.csum_start = csum_start, .csum_offset = csum_offset,
	};
	/* As drivers cut it: the header alone, and the frame in pieces. */
	size_t cut = len / 3;
	struct iovec iov[3] = {
		{ &hdr, sizeof(hdr) }, { (void *)(uintptr_t)frame, cut },
		{ (u8 *)(uintptr_t)frame + cut, len - cut },
	};
	int rc = w->net->ops->send(w->net, iov, 3);

	w->want_tx = rc == -EAGAIN;
	w->net->ops->want(w->net, !w->deaf, w->want_tx);
	return rc;
}

struct wait {
	struct wire *wire;
	bool (*match)(const u8 *, size_t, void *);
	void *arg;
	int found;
};

static bool look(void *arg)
{
	struct wait *wait = arg;
	struct wire *w = wait->wire;

	while (w->first < w->nr) {
		int i = w->first++;

		if (wait->match(w->frame[i].data + NET_HDR_LEN, w->frame[i].len - NET_HDR_LEN,
				wait->arg)) {
			wait->found = i;
			return true;
		}
	}
	return false;
}

const u8 *wire_expect(struct wire *w, bool (*match)(const u8 *, size_t, void *), void *arg,
		      size_t *len)
{
	struct wait wait = { w, match, arg, 0 };

	if (!look(&wait) && !fake_turn_until(&w->fake, look, &wait))
		return NULL;
	if (len)
		*len = w->frame[wait.found].len - NET_HDR_LEN;
	return w->frame[wait.found].data + NET_HDR_LEN;
}

int wire_turn(struct wire *w, int turns)
{
	int before = w->nr;

	while (turns--)
		fake_turn(&w->fake);
	return w->nr - before;
}

/* --- frames ------------------------------------------------------------------------------- */

/* The plain way, which has nothing in common with the code under test. */
static u32 sum16(const u8 *p, size_t len, u32 sum)
{
	for (size_t i = 0; i < len; i++)
		sum += i & 1 ? p[i] : p[i] << 8;
	return sum;
}

static u16 fold(u32 sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static void put16(u8 *p, u16 value)
{
	p[0] = value >> 8;
	p[1] = value;
}

/* Sum of the pseudo header of what frame carries. */
static u32 pseudo(const u8 *frame, size_t len)
{
	bool six = frame[12] == 0x86;
	const u8 *ip = frame + 14;

	if (six)
		return sum16(ip + 8, 32, ip[6] + len - 54);
	return ip[9] == IPPROTO_ICMP ? 0 : sum16(ip + 12, 8, ip[9] + len - 34);
}

size_t wire_ip(u8 *frame, const struct wire_ip *h, const void *payload, size_t len,
	       u16 csum_offset, u16 *csum_start)
{
	bool six = strchr(h->from, ':');
	size_t start = six ? 54 : 34;
	u8 *ip = frame + 14;

	memset(frame, 0, start);
	memcpy(frame, h->mac_to, 6);
	memcpy(frame + 6, h->mac_from, 6);
	put16(frame + 12, six ? 0x86dd : 0x0800);
	if (six) {
		ip[0] = 0x60;
		put16(ip + 4, len);
		ip[6] = h->protocol;
		ip[7] = 255;
		assert_int_equal(inet_pton(AF_INET6, h->from, ip + 8), 1);
		assert_int_equal(inet_pton(AF_INET6, h->to, ip + 24), 1);
	} else {
		ip[0] = 0x45;
		put16(ip + 2, 20 + len);
		ip[8] = 64;
		ip[9] = h->protocol;
		assert_int_equal(inet_pton(AF_INET, h->from, ip + 12), 1);
		assert_int_equal(inet_pton(AF_INET, h->to, ip + 16), 1);
		put16(ip + 10, ~fold(sum16(ip, 20, 0)));
	}
	memcpy(frame + start, payload, len);
	put16(frame + start + csum_offset, fold(pseudo(frame, start + len)));
	*csum_start = start;
	return start + len;
}

bool wire_sum_is_right(const u8 *frame, size_t len)
{
	size_t start = frame[12] == 0x86 ? 54 : 34;

	return fold(sum16(frame + start, len - start, pseudo(frame, len))) == 0xffff;
}
