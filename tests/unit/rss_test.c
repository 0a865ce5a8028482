/* rss_test.c: the program that finds a frame's queue, run by the kernel, against a plain Toeplitz hash. */
#include <arpa/inet.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include "devices/net/rss.h"
#include "devices/virtio/net_own.h"
#include "tests/lib/recorder.h"
#include "tests/lib/test.h"

enum { QUEUES = 4, FRAME_MAX = 512 };

static struct rss *rss;
static struct err err;

/* --- the hash, bit by bit ------------------------------------------------------------------- */

static u32 toeplitz(const u8 *key, const u8 *input, unsigned len)
{
	u32 hash = 0;

	for (unsigned i = 0; i < len * 8; i++)
		for (unsigned k = 0; k < 32 && input[i / 8] >> (7 - i % 8) & 1; k++)
			hash ^= (u32)(key[(i + k) / 8] >> (7 - (i + k) % 8) & 1) << (31 - k);
	return hash;
}

/* Those that Microsoft published for whoever makes a card ("Verifying the RSS hash calculation"). */
static const u8 microsoft_key[NET_RSS_KEY_LEN] = {
	0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
	0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
	0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
};
static const struct vector {
	const char *to;
	u16 to_port;
	const char *from;
	u16 from_port;
	u32 of_addresses, of_all;
} vector[] = {
	{ "161.142.100.80", 1766, "66.9.149.187", 2794, 0x323e8fc2, 0x51ccc178 },
	{ "65.69.140.83", 4739, "199.92.111.2", 14230, 0xd718262a, 0xc626b0ea },
	{ "12.22.207.184", 38024, "24.19.198.95", 12898, 0xd2d0a5de, 0x5c2b394a },
	{ "209.142.163.6", 2217, "38.27.205.30", 48228, 0x82989176, 0xafc7327f },
	{ "202.188.127.2", 1303, "153.39.163.191", 44251, 0x5d1809c5, 0x10e828a2 },
	{ "3ffe:2501:200:3::1", 1766, "3ffe:2501:200:1fff::7", 2794, 0x2cc18cd5, 0x40207d3d },
	{ "ff02::1", 4739, "3ffe:501:8::260:97ff:fe40:efab", 14230, 0x0f0c461c, 0xdde51bbf },
	{ "fe80::200:f8ff:fe21:67cf", 38024, "3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251,
	  0x4b61e985, 0x02d1feef },
};

/* The addresses, from and to, then the ports; the length of the first. */
static unsigned input_of(const struct vector *v, u8 input[36])
{
	bool six = strchr(v->to, ':');
	unsigned len = six ? 16 : 4;

	assert_int_equal(inet_pton(six ? AF_INET6 : AF_INET, v->from, input), 1);
	assert_int_equal(inet_pton(six ? AF_INET6 : AF_INET, v->to, input + len), 1);
	memcpy(input + 2UL * len, (u8[]){ v->from_port >> 8, v->from_port, v->to_port >> 8, v->to_port }, 4);
	return 2 * len;
}

static void test_reference(void **state)
{
	u8 input[36];

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(vector); i++) {
		unsigned len = input_of(&vector[i], input);

		assert_int_equal(toeplitz(microsoft_key, input, len), vector[i].of_addresses);
		assert_int_equal(toeplitz(microsoft_key, input, len + 4), vector[i].of_all);
	}
}

/* --- frames --------------------------------------------------------------------------------- */

struct frame {
	u8 at[FRAME_MAX];
	unsigned len;
	/* Where there is an answer: what of it is hashed, and as what. */
	u8 input[36];
	unsigned input_len;		/* without ports */
	u32 type, port_type;		/* 0: it is not hashed so */
};

static void put(struct frame *f, const void *bytes, unsigned len)
{
	assert_in_range(f->len + len, 0, FRAME_MAX);
	memcpy(f->at + f->len, bytes, len);
	f->len += len;
}

#define PUT(f, ...) put(f, (u8[]){ __VA_ARGS__ }, sizeof((u8[]){ __VA_ARGS__ }))

enum { FIRST_FRAGMENT = 1 << 0, LATER_FRAGMENT = 1 << 1, OPTIONS = 1 << 2 };

static void put_ethernet(struct frame *f, unsigned nr_tags, u16 type)
{
	*f = (struct frame){ 0 };
	PUT(f, 2, 0, 0, 1, 2, 3, 2, 'r', 's', 's', 0, 1);
	for (unsigned i = 0; i < nr_tags; i++)
		PUT(f, i + 1 < nr_tags ? 0x88 : 0x81, i + 1 < nr_tags ? 0xa8 : 0, 0x20, 100 + i);
	PUT(f, type >> 8, type & 0xff);
}

static u32 port_type(u8 protocol, u32 tcp, u32 udp)
{
	return protocol == IPPROTO_TCP ? tcp : protocol == IPPROTO_UDP ? udp : 0;
}

static void put_ip4(struct frame *f, const u8 input[12], u8 protocol, unsigned how)
{
	u8 options = how & OPTIONS ? 8 : 0;

	PUT(f, 0x40 | (20 + options) / 4, 0, 0, 40 + options, 0, 1,
	    (how & FIRST_FRAGMENT ? 0x20 : 0x40), how & LATER_FRAGMENT ? 3 : 0, 64, protocol, 0, 0);
	put(f, input, 8);
	put(f, (u8[8]){ 1, 1, 1, 1, 1, 1, 1, 0 }, options);
	put(f, input + 8, 4);
	put(f, (u8[28]){ 0 }, 28);
	memcpy(f->input, input, 12);
	f->input_len = 8;
	f->type = VIRTIO_NET_RSS_HASH_TYPE_IPv4;
	f->port_type = how & (FIRST_FRAGMENT | LATER_FRAGMENT) ? 0 :
		port_type(protocol, VIRTIO_NET_RSS_HASH_TYPE_TCPv4, VIRTIO_NET_RSS_HASH_TYPE_UDPv4);
}

/* extension: of each header, in order; a fragment's is as how has it. */
static void put_ip6(struct frame *f, const u8 input[36], u8 protocol, const u8 *extension, unsigned nr,
		    unsigned how)
{
	bool whole = true;

	PUT(f, 0x60, 0, 0, 0, 0, 60, nr ? extension[0] : protocol, 64);
	put(f, input, 32);
	for (unsigned i = 0; i < nr; i++) {
		u8 next = i + 1 < nr ? extension[i + 1] : protocol;

		if (extension[i] == IPPROTO_FRAGMENT) {
			/* A fragment's second byte is no length. */
			PUT(f, next, 77, 0, (how & LATER_FRAGMENT ? 8 : 0) | (how & FIRST_FRAGMENT ? 1 : 0),
			    0, 0, 0, 1);
			whole &= !(how & (FIRST_FRAGMENT | LATER_FRAGMENT));
		} else {
			PUT(f, next, i % 3, 1, 4, 0, 0, 0, 0);
			put(f, (u8[16]){ 0 }, i % 3 * 8);
		}
	}
	put(f, input + 32, 4);
	put(f, (u8[28]){ 0 }, 28);
	memcpy(f->input, input, 36);
	f->input_len = 32;
	f->type = VIRTIO_NET_RSS_HASH_TYPE_IPv6;
	f->port_type = !whole || nr > 6 ? 0 :
		port_type(protocol, VIRTIO_NET_RSS_HASH_TYPE_TCPv6, VIRTIO_NET_RSS_HASH_TYPE_UDPv6);
}

static unsigned queue_of(const struct frame *f, const struct net_rss *r)
{
	unsigned len = f->port_type & r->hash_types ? f->input_len + 4 :
		       f->type & r->hash_types ? f->input_len : 0;

	return len ? r->table[toeplitz(r->key, f->input, len) & r->mask] : r->unclassified;
}

/* --- the program ----------------------------------------------------------------------------- */

/* The kernel takes a header of Ethernet off first, as if the frame had come in. */
static unsigned run(const struct frame *f, unsigned len)
{
	u8 data[14 + FRAME_MAX] = { 0 };
	union bpf_attr attr = { .test = { .prog_fd = rss_program(rss), .data_in = (uintptr_t)data,
					  .data_size_in = 14 + len } };

	memcpy(data + 14, f->at, len);
	assert_int_equal(syscall(SYS_bpf, BPF_PROG_TEST_RUN, &attr, sizeof(attr)), 0);
	return attr.test.retval;
}

static int setup(void **state)
{
	(void)state;
	rss = NULL;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	rss_close(rss);
	return 0;
}

static void load(void)
{
	int rc = rss_open(&rss, &err);

	if (rc == -EPERM || rc == -ENOSYS)
		skip();
	if (rc)
		fail_msg("%s", err.msg);
}

static void identity(struct net_rss *r, u32 types)
{
	*r = (struct net_rss){ .hash_types = types, .mask = 127, .unclassified = 200 };
	memcpy(r->key, microsoft_key, sizeof(r->key));
	for (unsigned i = 0; i < NET_RSS_TABLE_LEN; i++)
		r->table[i] = i;
}

static void test_vectors(void **state)
{
	u8 input[36];

	(void)state;
	load();
	for (unsigned i = 0; i < ARRAY_SIZE(vector); i++) {
		struct net_rss r;
		struct frame f;

		put_ethernet(&f, 0, strchr(vector[i].to, ':') ? ETH_P_IPV6 : ETH_P_IP);
		if (input_of(&vector[i], input) == 8)
			put_ip4(&f, input, IPPROTO_TCP, 0);
		else
			put_ip6(&f, input, IPPROTO_TCP, NULL, 0, 0);
		identity(&r, NET_HASH_TYPES);
		rss_configure(rss, &r);
		assert_int_equal(run(&f, f.len), vector[i].of_all & 127);
		identity(&r, VIRTIO_NET_RSS_HASH_TYPE_IPv4 | VIRTIO_NET_RSS_HASH_TYPE_IPv6);
		rss_configure(rss, &r);
		assert_int_equal(run(&f, f.len), vector[i].of_addresses & 127);
		identity(&r, 0);
		rss_configure(rss, &r);
		assert_int_equal(run(&f, f.len), 200);
	}
}

static void random_rss(struct net_rss *r, u64 *seed, unsigned nr_queues)
{
	*r = (struct net_rss){ .hash_types = draw(seed) & NET_HASH_TYPES, .mask = (1 << draw(seed) % 8) - 1,
			       .unclassified = draw(seed) % nr_queues };
	for (unsigned i = 0; i < NET_RSS_TABLE_LEN; i++)
		r->table[i] = draw(seed) % nr_queues;
	for (unsigned i = 0; i < NET_RSS_KEY_LEN; i++)
		r->key[i] = draw(seed);
}

static void random_frame(struct frame *f, u64 *seed)
{
	static const u8 protocol[] = { IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP, IPPROTO_NONE };
	static const u8 known[] = { IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_DSTOPTS, IPPROTO_FRAGMENT };
	static const u16 others[] = { ETH_P_ARP, 0x88cc, 60, ETH_P_MPLS_UC };
	unsigned nr_tags = draw(seed) % 4, nr = draw(seed) % 9;
	u8 input[36], extension[8], p = protocol[draw(seed) % ARRAY_SIZE(protocol)];
	unsigned how = draw(seed) % 2 ? 0 : draw(seed) % 8;

	for (unsigned i = 0; i < sizeof(input); i++)
		input[i] = draw(seed);
	for (unsigned i = 0; i < sizeof(extension); i++)
		extension[i] = known[draw(seed) % ARRAY_SIZE(known)];
	switch (draw(seed) % 4) {
	case 0:
		put_ethernet(f, nr_tags, others[draw(seed) % ARRAY_SIZE(others)]);
		put(f, input, sizeof(input));
		return;
	case 1:
		put_ethernet(f, nr_tags, ETH_P_IP);
		put_ip4(f, input, p, how);
		break;
	default:
		put_ethernet(f, nr_tags, ETH_P_IPV6);
		put_ip6(f, input, p, extension, draw(seed) % 2 ? 0 : nr > 8 ? 8 : nr, how);
	}
	if (nr_tags > 2)
		f->type = f->port_type = 0;
}

static void test_random(void **state)
{
	u64 seed = strtoull(getenv("SEED") ?: "1", NULL, 0);
	struct net_rss r;
	struct frame f;

	(void)state;
	load();
	for (unsigned i = 0; i < 20000; i++) {
		u64 before = seed;

		if (i % 8 == 0) {
			random_rss(&r, &seed, 256);
			rss_configure(rss, &r);
		}
		random_frame(&f, &seed);
		if (run(&f, f.len) != queue_of(&f, &r))
			fail_msg("seed %llu: %u, not %u", (unsigned long long)before, run(&f, f.len),
				 queue_of(&f, &r));
	}
}

/* Whatever a frame lacks, or says of itself: it comes to a queue of those that are named. */
static void test_nonsense(void **state)
{
	u64 seed = strtoull(getenv("SEED") ?: "1", NULL, 0) + 1;
	struct net_rss r;
	struct frame f;

	(void)state;
	load();
	random_rss(&r, &seed, QUEUES);
	r.hash_types = NET_HASH_TYPES;
	rss_configure(rss, &r);
	for (unsigned i = 0; i < 200; i++) {
		random_frame(&f, &seed);
		for (unsigned len = 1; len < f.len; len++)
			assert_in_range(run(&f, len), 0, QUEUES - 1);
		/* Without its last address there is nothing to hash. */
		assert_int_equal(run(&f, 14 + 19), r.unclassified);
		for (unsigned k = 0; k < 20; k++) {
			f.at[12 + draw(&seed) % (f.len - 12)] = draw(&seed);
			assert_in_range(run(&f, f.len), 0, QUEUES - 1);
		}
	}
}

/* --- a tap ------------------------------------------------------------------------------------- */

static struct net *queue[QUEUES];

/* Where it came; frames of the kernel's own are passed over. */
static unsigned came_to(const struct frame *f)
{
	u8 got[NET_HDR_LEN + FRAME_MAX];
	struct iovec iov = { got, sizeof(got) };
	struct pollfd p[QUEUES];

	for (unsigned i = 0; i < QUEUES; i++)
		p[i] = (struct pollfd){ .fd = queue[i]->ops->vhost_fd(queue[i]), .events = POLLIN };
	for (;;) {
		assert_true(poll(p, QUEUES, 10000) > 0);
		for (unsigned i = 0; i < QUEUES; i++)
			if (p[i].revents & POLLIN &&
			    queue[i]->ops->recv(queue[i], &iov, 1) == NET_HDR_LEN + f->len &&
			    !memcmp(got + NET_HDR_LEN, f->at, f->len))
				return i;
	}
}

static unsigned steered(int wire, const struct frame *f)
{
	assert_int_equal(send(wire, f->at, f->len, 0), f->len);
	return came_to(f);
}

static int open_wire(void)
{
	struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_ifindex = if_nametoindex("rss0") };
	int fd = socket(AF_PACKET, SOCK_RAW, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	return fd;
}

/* In a network of its own, which ends with this program. */
static void test_tap(void **state)
{
	u64 seed = strtoull(getenv("SEED") ?: "1", NULL, 0) + 2;
	unsigned seen[QUEUES] = { 0 };
	struct net_rss r;
	struct frame f;
	int wire;

	(void)state;
	load();
	if (unshare(CLONE_NEWNET) || net_open_tap(queue, QUEUES, "rss0", 0, &err))
		skip();
	assert_true(queue[0]->offload >> VIRTIO_NET_F_RSS & 1);
	wire = open_wire();
	for (unsigned i = 0; i < 400; i++) {
		if (i % 20 == 0) {
			random_rss(&r, &seed, QUEUES);
			assert_int_equal(queue[0]->ops->set_rss(queue[0], &r), 0);
		}
		do
			random_frame(&f, &seed);
		while (!f.type);
		seen[queue_of(&f, &r)]++;
		assert_int_equal(steered(wire, &f), queue_of(&f, &r));
	}
	for (unsigned i = 0; i < QUEUES; i++)
		assert_true(seen[i]);
	/* One that takes no part leaves the others as they are. */
	for (unsigned i = 0; i < QUEUES; i++)
		assert_int_equal(queue[i]->ops->attach(queue[i], i < 2), 0);
	memset(r.table, 1, sizeof(r.table));
	r.unclassified = 1;
	assert_int_equal(queue[0]->ops->set_rss(queue[0], &r), 0);
	assert_int_equal(steered(wire, &f), 1);
	/* What is not there is a queue all the same. */
	memset(r.table, 3, sizeof(r.table));
	r.unclassified = 3;
	assert_int_equal(queue[0]->ops->set_rss(queue[0], &r), 0);
	assert_in_range(steered(wire, &f), 0, 1);
	/* Off, one flow comes where the kernel likes, and is not lost. */
	assert_int_equal(queue[0]->ops->set_rss(queue[0], NULL), 0);
	assert_in_range(steered(wire, &f), 0, 1);
	close(wire);
	for (unsigned i = 0; i < QUEUES; i++)
		net_close(queue[i]);
}

#define T(name)	cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_reference), T(test_vectors), T(test_random), T(test_nonsense), T(test_tap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
