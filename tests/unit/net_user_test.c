/* net_user_test.c: --net user, spoken to by hand-made frames; sockets are on loopback only. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/virtio_net.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include "devices/net/forward.h"
#include "tests/lib/test.h"
#include "tests/lib/wire.h"

#define GUEST_CSUM	(1ULL << VIRTIO_NET_F_GUEST_CSUM)

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16, TCP_HDR = 20, BIG = 60000, FEW = 128 };

static const u8 guest_mac[6] = { 2, 0, 0, 1, 2, 3 };
static const u8 host_mac[6] = { 0x52, 0x55, 10, 0, 2, 2 };
static struct wire wire;
static struct err err;

static struct net *open_net(const struct net_user_options *o)
{
	struct net *n;

	if (net_open_user(&n, o, &err))
		fail_msg("%s", err.msg);
	return n;
}

/* --- what the guest says ------------------------------------------------------------------ */

static u16 get16(const u8 *p) { return p[0] << 8 | p[1]; }
static u32 get32(const u8 *p) { return (u32)get16(p) << 16 | get16(p + 2); }
static void put32(u8 *p, u32 v) { v = htonl(v); memcpy(p, &v, 4); }
static void put16(u8 *p, u16 v) { v = htons(v); memcpy(p, &v, 2); }

static int send_ip_result;		/* what is to come of it */

static void send_ip_from(const char *from, const char *to, u8 protocol, const void *payload,
			 size_t len, u16 csum_offset)
{
	struct wire_ip h = { .from = from, .to = to, .protocol = protocol };
	static u8 frame[NET_FRAME_MAX];
	u16 start;

	memcpy(h.mac_to, host_mac, 6);
	memcpy(h.mac_from, guest_mac, 6);
	len = wire_ip(frame, &h, payload, len, csum_offset, &start);
	assert_int_equal(wire_send(&wire, frame, len, start, csum_offset), send_ip_result);
}

static void send_ip(const char *to, u8 protocol, const void *payload, size_t len, u16 csum_offset)
{
	send_ip_from(strchr(to, ':') ? "fec0::15" : "10.0.2.15", to, protocol, payload, len,
		     csum_offset);
}

static void send_arp(u8 op, const u8 to[4])
{
	u8 f[42] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 1, 2, 3, 8, 6,
		     0, 1, 8, 0, 6, 4, 0, op, 2, 0, 0, 1, 2, 3, 10, 0, 2, 15 };

	memcpy(f + 38, to, 4);
	assert_int_equal(wire_send(&wire, f, sizeof(f), 0, 0), 0);
}

static void send_tcp(const char *to, u16 from_port, u16 to_port, u32 seq, u32 ack, u8 flags,
		     const void *data, size_t len)
{
	static u8 tcp[65535];

	memset(tcp, 0, TCP_HDR);
	put16(tcp, from_port);
	put16(tcp + 2, to_port);
	put32(tcp + 4, seq);
	put32(tcp + 8, ack);
	tcp[12] = TCP_HDR / 4 << 4;
	tcp[13] = flags;
	put16(tcp + 14, 65535);
	if (len)
		memcpy(tcp + TCP_HDR, data, len);
	send_ip(to, IPPROTO_TCP, tcp, TCP_HDR + len, 16);
}

static void send_udp(const char *from, const char *to, u16 from_port, u16 to_port,
		     const void *data, size_t len)
{
	u8 udp[2000];

	put16(udp, from_port);
	put16(udp + 2, to_port);
	put16(udp + 4, 8 + len);
	memcpy(udp + 8, data, len);
	send_ip_from(from, to, IPPROTO_UDP, udp, 8 + len, 6);
}

/* --- what it hears ------------------------------------------------------------------------- */

static bool is_arp(const u8 *f, size_t len, void *op)
{
	return len >= 42 && get16(f + 12) == 0x0806 && f[21] == *(u8 *)op;
}

struct ip_match { u8 protocol, flags; u16 port; };	/* 0: any */

static bool is_ip(const u8 *f, size_t len, void *arg)
{
	const struct ip_match *m = arg;
	bool six = get16(f + 12) == 0x86dd;
	const u8 *l4 = f + (six ? 54 : 34);

	if ((!six && get16(f + 12) != 0x0800) || f[six ? 20 : 23] != m->protocol)
		return false;
	assert_true(wire_sum_is_right(f, len));
	return (!m->port || get16(l4 + 2) == m->port) && (!m->flags || (l4[13] & m->flags) == m->flags);
}

/* From its transport header on. */
static const u8 *hear(u8 protocol, u8 flags, u16 port, size_t *len)
{
	struct ip_match m = { protocol, flags, port };
	const u8 *f = wire_expect(&wire, is_ip, &m, len);
	size_t start;

	if (!f)
		return NULL;
	start = get16(f + 12) == 0x86dd ? 54 : 34;
	*len -= start;
	return f + start;
}

/* It knows the guest's address from here on. */
static void meet(void)
{
	static const u8 gateway[4] = { 10, 0, 2, 2 };
	u8 reply = 2;

	send_arp(1, gateway);
	assert_non_null(wire_expect(&wire, is_arp, &reply, NULL));
}

static int setup(void **state)
{
	struct net_user_options o = { .hostname = "web" };

	(void)state;
	wire_init(&wire, open_net(&o), GUEST_CSUM);
	meet();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	wire_fini(&wire);
	return 0;
}

/* --- the host -------------------------------------------------------------------------------- */

static int bound_socket(int type, u16 *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, type, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (void *)&a, sizeof(a)), 0);
	assert_int_equal(getsockname(fd, (void *)&a, &len), 0);
	if (type & SOCK_STREAM)
		assert_int_equal(listen(fd, 8), 0);
	*port = ntohs(a.sin_port);
	return fd;
}

static int connect_to(int type, u16 port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) },
				 .sin_port = htons(port) };
	int fd = socket(AF_INET, type, 0);

	assert_true(fd >= 0);
	if (connect(fd, (void *)&a, sizeof(a))) {
		close(fd);
		return -errno;
	}
	return fd;
}

/* The guest connects to the server: the socket that it accepted, and where both stand. */
static int open_tcp(int server, u16 from_port, u16 port, u32 *seq, u32 *ack)
{
	const u8 *tcp;
	size_t len;
	int fd;

	send_tcp("10.0.2.2", from_port, port, 1000, 0, SYN, NULL, 0);
	tcp = hear(IPPROTO_TCP, SYN | ACK, from_port, &len);
	assert_non_null(tcp);
	*seq = 1001;
	*ack = get32(tcp + 4) + 1;
	assert_int_equal(get32(tcp + 8), *seq);
	/* Its MSS: the most that fits a frame. */
	assert_int_equal(tcp[TCP_HDR], 2);
	assert_int_equal(get16(tcp + TCP_HDR + 2), NET_MTU_MOST - 40);
	send_tcp("10.0.2.2", from_port, port, *seq, *ack, ACK, NULL, 0);
	fd = accept(server, NULL, NULL);
	assert_true(fd >= 0);
	return fd;
}

/* --- the tests --------------------------------------------------------------------------------- */

static void test_arp_and_header(void **state)
{
	static const u8 gateway[4] = { 10, 0, 2, 2 }, nobody[4] = { 10, 0, 2, 99 };
	struct virtio_net_hdr_v1 *hdr;
	u8 reply = 2;
	const u8 *f;

	(void)state;
	send_arp(1, nobody);
	send_arp(1, gateway);
	f = wire_expect(&wire, is_arp, &reply, NULL);
	assert_non_null(f);
	assert_memory_equal(f, guest_mac, 6);
	assert_memory_equal(f + 6, host_mac, 6);
	assert_memory_equal(f + 28, gateway, 4);
	assert_int_equal(wire.nr, wire.first);
	hdr = (void *)(uintptr_t)(f - NET_HDR_LEN);
	assert_int_equal(hdr->flags, VIRTIO_NET_HDR_F_DATA_VALID);
	assert_int_equal(hdr->gso_type, VIRTIO_NET_HDR_GSO_NONE);
}

/* The option's value in a DHCP message. */
static const u8 *dhcp_option(const u8 *dhcp, size_t len, u8 option)
{
	for (size_t i = 240; i + 1 < len && dhcp[i] != 255; i += 2 + dhcp[i + 1])
		if (dhcp[i] == option)
			return dhcp + i + 2;
	return NULL;
}

/* What is said to a discover. */
static const u8 *discover(size_t *len)
{
	u8 dhcp[300] = { 1, 1, 6, 0, 0xca, 0xfe, 0xba, 0xbe };
	const u8 *d;

	memcpy(dhcp + 28, guest_mac, 6);
	memcpy(dhcp + 236, "\x63\x82\x53\x63\x35\x01\x01\xff", 8);
	send_udp("0.0.0.0", "255.255.255.255", 68, 67, dhcp, sizeof(dhcp));
	d = hear(IPPROTO_UDP, 0, 68, len);
	assert_non_null(d);
	d += 8;
	*len -= 8;
	assert_memory_equal(d + 4, dhcp + 4, 4);
	return d;
}

static void test_dhcp(void **state)
{
	static const u8 address[4] = { 10, 0, 2, 15 }, router[4] = { 10, 0, 2, 2 },
			dns[4] = { 10, 0, 2, 3 }, mask[4] = { 255, 255, 255, 0 };
	const u8 *d;
	size_t len;

	(void)state;
	d = discover(&len);
	assert_memory_equal(d + 16, address, 4);
	assert_int_equal(*dhcp_option(d, len, 53), 2);
	assert_memory_equal(dhcp_option(d, len, 1), mask, 4);
	assert_memory_equal(dhcp_option(d, len, 3), router, 4);
	assert_memory_equal(dhcp_option(d, len, 6), dns, 4);
	assert_memory_equal(dhcp_option(d, len, 12), "web", 3);
}

/* A name server of the user's, and a name that is too long to be said. */
static void test_dhcp_options(void **state)
{
	static const u8 address[4] = { 10, 9, 0, 15 }, dns[4] = { 9, 9, 9, 9 };
	struct net_user_options o = { .network = { htonl(0x0a090000) }, .prefix_len = 27,
				      .dns = { htonl(0x09090909) },
				      .hostname = "a-name-of-thirty-three-characters" };
	const u8 *d;
	size_t len;

	(void)state;
	wire_init(&wire, open_net(&o), GUEST_CSUM);
	d = discover(&len);
	assert_memory_equal(d + 16, address, 4);
	assert_memory_equal(dhcp_option(d, len, 6), dns, 4);
	assert_memory_equal(dhcp_option(d, len, 1), "\xff\xff\xff\xe0", 4);
	assert_null(dhcp_option(d, len, 12));
	wire_fini(&wire);
}

/* A guest's connections are a file each: as many as may be, and no fewer than there were. */
static void test_fd_limit(void **state)
{
	struct net_user_options o = { 0 };
	struct rlimit old, low, now;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	low = (struct rlimit){ 256, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	net_close(open_net(&o));
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &now), 0);
	assert_int_equal(now.rlim_cur, MIN(old.rlim_max, (rlim_t)16384));
	assert_int_equal(now.rlim_max, old.rlim_max);
	net_close(open_net(&o));
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	net_close(open_net(&o));
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &now), 0);
	assert_true(now.rlim_cur >= old.rlim_cur);
}

static void test_ping(void **state)
{
	u8 echo[64] = { 8, 0, 0, 0, 0x12, 0x34, 0, 1, 'h', 'i' };
	const u8 *icmp;
	size_t len;

	(void)state;
	send_ip("10.0.2.2", IPPROTO_ICMP, echo, sizeof(echo), 2);
	icmp = hear(IPPROTO_ICMP, 0, 0, &len);
	assert_non_null(icmp);
	assert_int_equal(icmp[0], 0);
	assert_memory_equal(icmp + 4, echo + 4, sizeof(echo) - 4);
}

static void test_router_advertisement(void **state)
{
	static const u8 prefix[8] = { 0xfe, 0xc0 };
	u8 solicit[8] = { 133 };
	const u8 *ra;
	size_t len, i = 16;

	(void)state;
	send_ip_from("fe80::15", "ff02::2", IPPROTO_ICMPV6, solicit, sizeof(solicit), 2);
	ra = hear(IPPROTO_ICMPV6, 0, 0, &len);
	assert_non_null(ra);
	assert_int_equal(ra[0], 134);
	while (i < len && ra[i] != 3)
		i += 8 * ra[i + 1];
	assert_true(i + 32 <= len);
	assert_int_equal(ra[i + 2], 64);
	assert_memory_equal(ra + i + 16, prefix, sizeof(prefix));
}

/* Both ways, in frames as long as they may be, whose checksums the device puts in. */
static void test_tcp(void **state)
{
	static u8 data[BIG], got[BIG];
	u16 port;
	int server = bound_socket(SOCK_STREAM, &port), fd;
	u32 seq, ack;
	const u8 *tcp;
	size_t len, done = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = i * 7 + i / 251;
	fd = open_tcp(server, 5000, port, &seq, &ack);
	send_tcp("10.0.2.2", 5000, port, seq, ack, ACK | PSH, data, BIG);
	seq += BIG;
	while (done < BIG) {
		ssize_t n = recv(fd, got + done, BIG - done, 0);

		assert_true(n > 0);
		done += n;
	}
	assert_memory_equal(got, data, BIG);
	assert_int_equal(send(fd, data, BIG, 0), BIG);
	for (done = 0; done < BIG; done += len - TCP_HDR) {
		do
			tcp = hear(IPPROTO_TCP, ACK, 5000, &len);
		while (tcp && len == TCP_HDR);
		assert_non_null(tcp);
		assert_int_equal(get32(tcp + 4), ack + done);
		memcpy(got + done, tcp + TCP_HDR, len - TCP_HDR);
		send_tcp("10.0.2.2", 5000, port, seq, ack + done + len - TCP_HDR, ACK, NULL, 0);
	}
	assert_memory_equal(got, data, BIG);
	close(fd);
	assert_non_null(hear(IPPROTO_TCP, FIN, 5000, &len));
	close(server);
}

/* A frame with a wrong checksum goes nowhere: the right one above was no accident. */
static void test_wrong_checksum(void **state)
{
	struct wire_ip h = { .from = "10.0.2.15", .to = "10.0.2.2", .protocol = IPPROTO_ICMP };
	u8 echo[16] = { 8, 0, 0, 0, 1, 1 }, frame[100];
	u16 start;
	size_t len = wire_ip(frame, &h, echo, sizeof(echo), 2, &start);

	(void)state;
	assert_int_equal(wire_send(&wire, frame, len, 0, 0), 0);
	echo[4] = 2;
	send_ip("10.0.2.2", IPPROTO_ICMP, echo, sizeof(echo), 2);
	assert_int_equal(hear(IPPROTO_ICMP, 0, 0, &len)[4], 2);
}

static void test_refused_port(void **state)
{
	u16 port;
	size_t len;

	(void)state;
	close(bound_socket(SOCK_STREAM, &port));
	send_tcp("10.0.2.2", 5001, port, 1, 0, SYN, NULL, 0);
	assert_non_null(hear(IPPROTO_TCP, RST, 5001, &len));
}

static void test_udp(void **state)
{
	struct sockaddr_in peer;
	socklen_t peer_len = sizeof(peer);
	char text[32];
	u16 port;
	int fd = bound_socket(SOCK_DGRAM, &port);
	const u8 *udp;
	size_t len;

	(void)state;
	send_udp("10.0.2.15", "10.0.2.2", 6000, port, "question", 8);
	assert_int_equal(recvfrom(fd, text, sizeof(text), 0, (void *)&peer, &peer_len), 8);
	assert_memory_equal(text, "question", 8);
	assert_int_equal(sendto(fd, "answer", 6, 0, (void *)&peer, peer_len), 6);
	udp = hear(IPPROTO_UDP, 0, 6000, &len);
	assert_non_null(udp);
	assert_int_equal(get16(udp), port);
	assert_int_equal(len, 8 + 6);
	assert_memory_equal(udp + 8, "answer", 6);
	close(fd);
}

/* --- forwards ------------------------------------------------------------------------------- */

static void open_with_forward(struct net_user_options *o, struct net_forward *f, bool udp)
{
	static const int type[] = { SOCK_STREAM, SOCK_DGRAM };
	u16 port;

	close(bound_socket(type[udp], &port));
	*f = (struct net_forward){ .udp = udp, .host = { htonl(INADDR_LOOPBACK) },
				   .host_port = port, .guest_port = 80 };
	o->forward = f;
	o->nr_forwards = 1;
	wire_init(&wire, open_net(o), 0);
}

static void answer_arp(void)
{
	static const u8 gateway[4] = { 10, 0, 2, 2 };
	u8 request = 1;

	assert_non_null(wire_expect(&wire, is_arp, &request, NULL));
	send_arp(2, gateway);
}

static void test_forward_tcp(void **state)
{
	struct net_user_options o = { .restricted = true };
	struct net_forward f;
	const u8 *tcp;
	char text[8];
	u32 ack;
	size_t len;
	int fd, other;

	(void)state;
	open_with_forward(&o, &f, false);
	/* Whoever wants the port now is told. */
	assert_int_equal(forward_probe(&f, &err), -EADDRINUSE);
	assert_says(err.msg, "in use");
	fd = connect_to(SOCK_STREAM, f.host_port);
	assert_true(fd >= 0);
	answer_arp();
	tcp = hear(IPPROTO_TCP, SYN, 80, &len);
	assert_non_null(tcp);
	ack = get32(tcp + 4) + 1;
	send_tcp("10.0.2.2", 80, get16(tcp), 77, ack, SYN | ACK, NULL, 0);
	send_tcp("10.0.2.2", 80, get16(tcp), 78, ack, ACK | PSH, "hello", 5);
	assert_true(wire_turn(&wire, 4) >= 0);
	assert_int_equal(recv(fd, text, sizeof(text), 0), 5);
	assert_memory_equal(text, "hello", 5);
	close(fd);
	wire_fini(&wire);
	other = connect_to(SOCK_STREAM, f.host_port);
	assert_int_equal(other, -ECONNREFUSED);
}

static void test_forward_udp(void **state)
{
	struct net_user_options o = { 0 };
	struct net_forward f;
	const u8 *udp;
	size_t len;
	int fd;

	(void)state;
	open_with_forward(&o, &f, true);
	fd = connect_to(SOCK_DGRAM, f.host_port);
	assert_int_equal(send(fd, "ping", 4, 0), 4);
	answer_arp();
	udp = hear(IPPROTO_UDP, 0, 80, &len);
	assert_non_null(udp);
	assert_memory_equal(udp + 8, "ping", 4);
	close(fd);
	wire_fini(&wire);
}

static void test_forward_in_use(void **state)
{
	struct net_forward f[2];
	struct net_user_options o = { .forward = f, .nr_forwards = 2 };
	u16 port, other;
	int fd = bound_socket(SOCK_STREAM, &port);
	struct net *n;

	(void)state;
	close(bound_socket(SOCK_STREAM, &other));
	f[1] = (struct net_forward){ .host = { htonl(INADDR_LOOPBACK) }, .host_port = port,
				     .guest_port = 80 };
	f[0] = f[1];
	f[0].host_port = other;
	assert_int_equal(net_open_user(&n, &o, &err), -EADDRINUSE);
	assert_says(err.msg, "hostfwd tcp:127.0.0.1:");
	assert_says(err.msg, "choose another port");
	/* The one that could be had has been given back. */
	assert_int_equal(forward_probe(&f[0], &err), 0);
	close(fd);
}

/* --- what does not come through ---------------------------------------------------------------- */

static void test_restricted(void **state)
{
	struct net_user_options o = { .restricted = true };
	u16 port;
	int server = bound_socket(SOCK_STREAM | SOCK_NONBLOCK, &port);
	size_t len;

	(void)state;
	wire_init(&wire, open_net(&o), 0);
	meet();
	send_tcp("10.0.2.2", 5000, port, 1000, 0, SYN, NULL, 0);
	assert_non_null(hear(IPPROTO_TCP, RST, 5000, &len));
	/* Without restrict this is a connection at once: see open_tcp. */
	assert_int_equal(accept(server, NULL, NULL), -1);
	assert_int_equal(errno, EAGAIN);
	wire_fini(&wire);
	close(server);
}

static void test_other_network(void **state)
{
	static const u8 gateway[4] = { 172, 20, 0, 2 };
	struct net_user_options o = { .network = { htonl(0xac140000) }, .prefix_len = 16 };
	u8 reply = 2;

	(void)state;
	wire_init(&wire, open_net(&o), 0);
	send_arp(1, gateway);
	assert_non_null(wire_expect(&wire, is_arp, &reply, NULL));
	wire_fini(&wire);
}

/* A guest without buffers stops the sender; it does not fill our memory. */
static void test_backpressure(void **state)
{
	static u8 data[BIG];
	struct sockaddr_in peer;
	socklen_t peer_len = sizeof(peer);
	int more = 8 << 20, sent = 0, n;
	u16 port;
	int fd = bound_socket(SOCK_DGRAM, &port);

	(void)state;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &more, sizeof(more));
	send_udp("10.0.2.15", "10.0.2.2", 6000, port, "go", 2);
	assert_int_equal(recvfrom(fd, data, sizeof(data), 0, (void *)&peer, &peer_len), 2);
	wire_turn(&wire, 4);
	wire_listen(&wire, false);
	for (int i = 0; i < 40; i++) {
		sent += sendto(fd, data, BIG, MSG_DONTWAIT, (void *)&peer, peer_len) == BIG;
		assert_int_equal(wire_turn(&wire, 2), 0);
	}
	assert_true(sent > 5);
	wire_listen(&wire, true);
	n = wire_turn(&wire, 1);
	assert_in_range(n, 1, 6);
	/* It goes on. */
	assert_true(wire_turn(&wire, 40) > 0);
	close(fd);
}

/* Nor does what is answered without a sender that could be stopped. */
static void test_answers_not_taken(void **state)
{
	static u8 echo[BIG] = { 8, 0, 0, 0, 0x12, 0x34 };
	int n = 0, more;

	(void)state;
	wire_listen(&wire, false);
	for (int i = 0; i < 200; i++)
		send_ip("10.0.2.2", IPPROTO_ICMP, echo, sizeof(echo), 2);
	wire_listen(&wire, true);
	while ((more = wire_turn(&wire, 1)))
		n += more;
	assert_in_range(n, 20, 4 * MIB / BIG);
}

/* A guest that reboots: what was on its way is gone, connections from outside are not. */
static void test_stop_and_start(void **state)
{
	static const u8 gateway[4] = { 10, 0, 2, 2 };
	u16 port;
	int server = bound_socket(SOCK_STREAM, &port), fd;
	u32 seq, ack;
	size_t len;

	(void)state;
	fd = open_tcp(server, 5000, port, &seq, &ack);
	wire_turn(&wire, 2);
	wire.first = wire.nr;
	wire_listen(&wire, false);
	send_arp(1, gateway);
	wire.net->ops->stop(wire.net);
	assert_int_equal(wire.net->ops->start(wire.net, wire.fake.p.io_loop), 0);
	wire_listen(&wire, true);
	assert_int_equal(wire_turn(&wire, 3), 0);
	meet();
	assert_int_equal(send(fd, "still", 5, 0), 5);
	assert_memory_equal(hear(IPPROTO_TCP, PSH, 5000, &len) + TCP_HDR, "still", 5);
	close(fd);
	close(server);
}

/* --- what time does ---------------------------------------------------------------------------- */

int __real_clock_gettime(clockid_t, struct timespec *);
int __wrap_clock_gettime(clockid_t, struct timespec *);

static u64 ahead_ms;
static const struct timespec *stands;	/* at this time; NULL: it goes on */

int __wrap_clock_gettime(clockid_t clock, struct timespec *t)
{
	int rc = __real_clock_gettime(clock, t);

	t->tv_sec += (t->tv_nsec + ahead_ms * 1000000) / 1000000000;
	t->tv_nsec = (t->tv_nsec + ahead_ms * 1000000) % 1000000000;
	if (stands)
		*t = *stands;
	return rc;
}

/* The router makes itself known unasked, now and then; not while the card is stopped. */
static void test_unasked(void **state)
{
	const u8 *ra;
	size_t len;

	(void)state;
	wire_turn(&wire, 4);
	wire.first = wire.nr;
	for (int i = 0; i < 2; i++) {
		wire.net->ops->stop(wire.net);
		ahead_ms += 1800 * 1000;
		assert_int_equal(wire_turn(&wire, 4), 0);
		assert_int_equal(wire.net->ops->start(wire.net, wire.fake.p.io_loop), 0);
		wire_listen(&wire, true);
		ra = hear(IPPROTO_ICMPV6, 0, 0, &len);
		assert_non_null(ra);
		assert_int_equal(ra[0], 134);
	}
}

/* Of the datagram of that number. */
static int send_fragment(u16 number, const u8 *payload, size_t len, unsigned offset, bool more)
{
	struct wire_ip h = { .from = "10.0.2.15", .to = "10.0.2.2", .protocol = IPPROTO_UDP };
	u8 frame[200];
	u32 sum = 0;
	u16 start;

	memcpy(h.mac_to, host_mac, 6);
	memcpy(h.mac_from, guest_mac, 6);
	wire_ip(frame, &h, payload, len, 6, &start);
	memcpy(frame + 34, payload, len);	/* without a checksum */
	put16(frame + 18, number);
	put16(frame + 20, (more ? 0x2000 : 0) | offset / 8);
	put16(frame + 24, 0);
	for (unsigned i = 14; i < 34; i += 2)
		sum += get16(frame + i);
	put16(frame + 24, ~((sum & 0xffff) + (sum >> 16)));
	return wire_send(&wire, frame, 34 + len, 0, 0);
}

/* Pieces that never become whole are no more than so many; one that does, goes out. */
static void test_fragments(void **state)
{
	u8 udp[24] = { 0 }, got[32];
	struct timespec now;
	unsigned nr = 0;
	u16 port;
	int fd = bound_socket(SOCK_DGRAM, &port), rc = 0;

	(void)state;
	put16(udp, 6000);
	put16(udp + 2, port);
	put16(udp + 4, sizeof(udp));
	memset(udp + 8, 'x', 16);
	/* Or all of them may go through on a slow host, which takes minutes. */
	clock_gettime(CLOCK_MONOTONIC, &now);
	stands = &now;
	for (unsigned i = 0; i < 20000; i++) {
		rc = send_fragment(i, udp, 8, 0, true);
		assert_true(!rc || rc == -ENOBUFS);
		nr += !rc;
	}
	stands = NULL;
	assert_in_range(nr, 4000, 4001);
	ahead_ms += 60 * 1000;
	assert_int_equal(send_fragment(30000, udp, 16, 0, true), 0);
	assert_int_equal(send_fragment(30000, udp + 16, 8, 16, false), 0);
	wire_turn(&wire, 4);
	assert_int_equal(recv(fd, got, sizeof(got), 0), 16);
	close(fd);
}

static unsigned open_files(void)
{
	unsigned nr = 0;

	for (int fd = 0; fd < FEW; fd++)
		nr += fcntl(fd, F_GETFD) >= 0;
	return nr;
}

/*
 * Half of the descriptors are not for connections, neither the guest's nor those to it: what would open one
 * more is lost, and what belongs to one goes on. When there are fewer, there may be others.
 */
static void test_many(void **state)
{
	static const struct { const char *to; u8 protocol, type; bool opens; } other[] = {
		{ "10.0.2.2", IPPROTO_ICMP, 8, true }, { "fec0::2", IPPROTO_ICMPV6, 128, true },
		{ "fec0::2", IPPROTO_ICMPV6, 133, false },
	};
	struct net_user_options o = { 0 };
	struct net_forward f;
	struct rlimit few = { FEW, FEW };
	unsigned before;
	u16 port, aside;
	int server, fd, outside;
	u8 icmp[8] = { 0 };
	u32 seq, ack;
	size_t len;

	(void)state;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);	/* for good */
	open_with_forward(&o, &f, false);
	meet();
	server = bound_socket(SOCK_STREAM, &port);
	close(bound_socket(SOCK_DGRAM, &aside));
	fd = open_tcp(server, 5000, port, &seq, &ack);
	wire_turn(&wire, 4);
	before = open_files();
	for (unsigned i = 1; i < FEW / 2; i++) {
		send_udp("10.0.2.15", "10.0.2.2", 6000 + i, aside, "x", 1);
		wire_turn(&wire, 1);
	}
	assert_int_equal(open_files(), before + FEW / 2 - 1);
	send_ip_result = -ENOBUFS;
	for (unsigned i = 0; i < 2; i++)
		send_udp("10.0.2.15", "10.0.2.2", 7000 + i, aside, "x", 1);
	send_tcp("10.0.2.2", 5001, port, 1000, 0, SYN, NULL, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(other); i++) {
		icmp[0] = other[i].type;
		send_ip_result = other[i].opens ? -ENOBUFS : 0;
		send_ip(other[i].to, other[i].protocol, icmp, sizeof(icmp), 2);
	}
	outside = connect_to(SOCK_STREAM, f.host_port);
	wire_turn(&wire, 8);
	assert_int_equal(open_files(), before + FEW / 2);
	send_tcp("10.0.2.2", 5000, port, seq, ack, ACK | PSH, "still", 5);
	wire_turn(&wire, 4);
	assert_int_equal(recv(fd, icmp, sizeof(icmp), 0), 5);
	meet();
	/* Datagrams that nobody answers are forgotten after some minutes. */
	ahead_ms += 600 * 1000;
	assert_non_null(hear(IPPROTO_TCP, SYN, 80, &len));
	send_udp("10.0.2.15", "10.0.2.2", 7000, aside, "x", 1);
	close(outside);
	close(fd);
	close(server);
	wire_fini(&wire);
}

/* Where there may be no more, those of datagrams that nobody used for longest make room for new ones and for
 * connections; what is in use stays, and is the same to its peer. */
static void test_many_idle(void **state)
{
	struct net_user_options o = { 0 };
	struct rlimit few = { FEW, FEW };
	struct sockaddr_in from[3];
	socklen_t len = sizeof(from[0]);
	unsigned before, was;
	u16 port, server_port, aside;
	int server, peer, fd;
	u32 seq, ack;
	u8 byte;

	(void)state;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);	/* for good */
	wire_init(&wire, open_net(&o), 0);
	meet();
	server = bound_socket(SOCK_STREAM, &server_port);
	peer = bound_socket(SOCK_DGRAM, &port);
	close(bound_socket(SOCK_DGRAM, &aside));
	before = open_files();
	fd = open_tcp(server, 5000, server_port, &seq, &ack);
	was = open_files() - before - 1;	/* fd is ours */
	assert_int_equal(was, 1);
	for (unsigned i = was; i < FEW / 2; i++) {
		send_udp("10.0.2.15", "10.0.2.2", 6000 + i, i == 9 || i == 10 ? port : aside, "x", 1);
		wire_turn(&wire, 1);
	}
	assert_int_equal(recvfrom(peer, &byte, 1, 0, (struct sockaddr *)&from[0], &len), 1);
	assert_int_equal(recvfrom(peer, &byte, 1, 0, NULL, NULL), 1);
	/* All of them are in use, and may be used. */
	send_ip_result = -ENOBUFS;
	send_udp("10.0.2.15", "10.0.2.2", 7000, aside, "x", 1);
	send_ip_result = 0;
	assert_int_equal(open_files(), before + 1 + FEW / 2);
	send_udp("10.0.2.15", "10.0.2.2", 6009, port, "y", 1);
	assert_int_equal(recv(peer, &byte, 1, 0), 1);
	/* Now but one. */
	ahead_ms += 70 * 1000;
	wire_turn(&wire, 1);
	send_udp("10.0.2.15", "10.0.2.2", 6009, port, "y", 1);
	assert_int_equal(recvfrom(peer, &byte, 1, 0, (struct sockaddr *)&from[1], &len), 1);
	assert_int_equal(from[1].sin_port, from[0].sin_port);
	send_udp("10.0.2.15", "10.0.2.2", 7000, aside, "x", 1);
	send_tcp("10.0.2.2", 5001, server_port, 1000, 0, SYN, NULL, 0);
	wire_turn(&wire, 4);
	assert_int_equal(open_files(), before + 1 + 4);
	send_udp("10.0.2.15", "10.0.2.2", 6009, port, "z", 1);
	assert_int_equal(recvfrom(peer, &byte, 1, 0, (struct sockaddr *)&from[2], &len), 1);
	assert_int_equal(byte, 'z');
	assert_int_equal(from[2].sin_port, from[0].sin_port);
	send_tcp("10.0.2.2", 5000, server_port, seq, ack, ACK | PSH, "still", 5);
	wire_turn(&wire, 4);
	assert_int_equal(recv(fd, &byte, 1, 0), 1);
	close(fd);
	close(server);
	close(peer);
	wire_fini(&wire);
}

/* What the guest does not acknowledge comes again, as it was. */
static void test_tcp_repeats(void **state)
{
	u16 port;
	int server = bound_socket(SOCK_STREAM, &port), fd;
	u32 seq, ack;
	const u8 *tcp;
	size_t len;

	(void)state;
	fd = open_tcp(server, 5000, port, &seq, &ack);
	assert_int_equal(send(fd, "once", 4, 0), 4);
	assert_memory_equal(hear(IPPROTO_TCP, PSH, 5000, &len) + TCP_HDR, "once", 4);
	wire_turn(&wire, 4);
	wire.first = wire.nr;
	for (int i = 0; i < 60 && wire.first == wire.nr; i++) {
		ahead_ms += 500;
		wire_turn(&wire, 2);
	}
	assert_true(wire.first < wire.nr);
	tcp = hear(IPPROTO_TCP, ACK, 5000, &len);
	assert_non_null(tcp);
	assert_int_equal(get32(tcp + 4), ack);
	assert_int_equal(len, TCP_HDR + 4);
	assert_memory_equal(tcp + TCP_HDR, "once", 4);
	close(fd);
	close(server);
}

static void test_malformed(void **state)
{
	struct virtio_net_hdr_v1 hdr = { 0 };
	u8 frame[64] = { 0 };
	struct iovec iov[2] = { { &hdr, sizeof(hdr) }, { frame, sizeof(frame) } };
	struct net *n = wire.net;
	static u8 huge[NET_FRAME_MAX];

	(void)state;
	frame[12] = 8;
	iov[1].iov_len = 13;
	assert_int_equal(n->ops->send(n, iov, 2), -EPROTO);
	assert_int_equal(n->ops->send(n, iov, 0), -EPROTO);
	iov[1] = (struct iovec){ huge, sizeof(huge) };
	assert_int_equal(n->ops->send(n, iov, 2), -EPROTO);
	iov[1] = (struct iovec){ frame, sizeof(frame) };
	hdr.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
	assert_int_equal(n->ops->send(n, iov, 2), -EPROTO);
	hdr = (struct virtio_net_hdr_v1){ .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 65535,
					  .csum_offset = 65535 };
	assert_int_equal(n->ops->send(n, iov, 2), -EPROTO);
	hdr.csum_start = 60;
	hdr.csum_offset = 3;
	assert_int_equal(n->ops->send(n, iov, 2), -EPROTO);
	hdr.csum_offset = 2;
	assert_int_equal(n->ops->send(n, iov, 2), 0);
}

/* Frames that were right once; restricted, so that none of it leaves. */
static void test_noise(void **state)
{
	static const u8 type[][2] = { { 8, 0 }, { 0x86, 0xdd }, { 8, 6 }, { 0x88, 0xf8 }, { 1, 1 } };
	static const u8 protocol[] = { IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP, IPPROTO_ICMPV6, 7 };
	struct net_user_options o = { .restricted = true };
	u8 frame[1600];
	u64 seed = 1;

	(void)state;
	wire_init(&wire, open_net(&o), 0);
	for (int i = 0; i < 20000; i++) {
		size_t len;

		for (size_t b = 0; b < sizeof(frame); b++) {
			seed = seed * 6364136223846793005 + 1442695040888963407;
			frame[b] = seed >> 56;
		}
		len = 14 + (frame[0] | frame[1] << 8) % (sizeof(frame) - 14);
		memcpy(frame + 12, type[frame[2] % 5], 2);
		frame[14] = frame[12] == 8 ? 0x45 + frame[3] % 3 : 0x60;
		frame[frame[12] == 8 ? 23 : 20] = protocol[frame[4] % 5];
		if (frame[5] & 1)
			put16(frame + (frame[12] == 8 ? 16 : 18), len - (frame[12] == 8 ? 14 : 54));
		wire_send(&wire, frame, len, frame[6] & 1 ? 34 : 0, 16);
		if (i % 64 == 0) {
			wire_turn(&wire, 1);
			while (wire.nr)
				free(wire.frame[--wire.nr].data);
			wire.first = 0;
		}
	}
	wire_fini(&wire);
}

/* Two VMs of the same addresses know nothing of each other. */
static void test_side_by_side(void **state)
{
	struct net_user_options o = { 0 };
	static struct wire other;

	(void)state;
	wire_init(&other, open_net(&o), 0);
	wire_init(&wire, open_net(&o), 0);
	meet();
	assert_int_equal(wire_turn(&other, 3), 0);
	wire_fini(&wire);
	wire_fini(&other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_arp_and_header, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dhcp, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ping, setup, teardown),
		cmocka_unit_test_setup_teardown(test_router_advertisement, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tcp, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wrong_checksum, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused_port, setup, teardown),
		cmocka_unit_test_setup_teardown(test_udp, setup, teardown),
		cmocka_unit_test_setup_teardown(test_backpressure, setup, teardown),
		cmocka_unit_test_setup_teardown(test_answers_not_taken, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stop_and_start, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unasked, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tcp_repeats, setup, teardown),
		cmocka_unit_test_setup_teardown(test_malformed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fragments, setup, teardown),
		cmocka_unit_test(test_forward_tcp), cmocka_unit_test(test_forward_udp),
		cmocka_unit_test(test_forward_in_use), cmocka_unit_test(test_restricted),
		cmocka_unit_test(test_other_network), cmocka_unit_test(test_noise),
		cmocka_unit_test(test_side_by_side), cmocka_unit_test(test_dhcp_options),
		cmocka_unit_test(test_fd_limit), cmocka_unit_test(test_many),
		cmocka_unit_test(test_many_idle),
	};

	signal(SIGPIPE, SIG_IGN);
	alarm(120);		/* a socket here may wait for ever */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
