/* net_fd_test.c: --net fd with descriptors of every kind. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include "devices/net/link.h"
#include "devices/net/stream.h"
#include "tests/lib/test.h"
#include "tests/lib/wire.h"

enum { LONGEST = NET_FRAME_MAX - NET_HDR_LEN, PORT = 7777 };

static struct wire wire;
static struct err err;
static bool own_network;
static u8 data[LONGEST];

static bool any(const u8 *f, size_t len, void *arg)
{
	(void)f;
	(void)len;
	(void)arg;
	return true;
}

static void give(int fd)
{
	struct net *n;

	fcntl(fd, F_SETFD, 0);		/* as if it were inherited */
	if (net_open_fd(&n, fd, &err))
		fail_msg("%s", err.msg);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	wire_init(&wire, n, 0);
}

/* Returns the far end. */
static int give_pair(int type)
{
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, type, 0, fd), 0);
	give(fd[0]);
	return fd[1];
}

static void refuse(int fd, const char *says)
{
	struct net *n;

	assert_true(net_open_fd(&n, fd, &err) < 0);
	assert_says(err.msg, says);
	if (fd >= 0)
		close(fd);
}

static void far_write(int fd, const void *p, size_t len)
{
	assert_int_equal(send(fd, p, len, 0), len);
}

static void far_read(int fd, void *p, size_t len)
{
	assert_int_equal(recv(fd, p, len, MSG_WAITALL), len);
}

static void heard(const void *frame, size_t frame_len)
{
	const u8 *f;
	size_t len;

	f = wire_expect(&wire, any, NULL, &len);
	assert_non_null(f);
	assert_int_equal(len, frame_len);
	assert_memory_equal(f, frame, len);
}

static void bring_up(struct ifreq *ifr)
{
	int s = socket(AF_INET, SOCK_DGRAM, 0);

	ifr->ifr_flags = IFF_UP;
	assert_int_equal(ioctl(s, SIOCSIFFLAGS, ifr), 0);
	close(s);
}

static int prepare(void **state)
{
	struct ifreq lo = { .ifr_name = "lo" };

	(void)state;
	own_network = !unshare(geteuid() ? CLONE_NEWUSER | CLONE_NEWNET : CLONE_NEWNET);
	if (own_network)
		bring_up(&lo);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = i * 11 + i / 253;
	return 0;
}

/* --- streams ------------------------------------------------------------------------------- */

static void test_stream(void **state)
{
	static u8 got[4 + LONGEST];
	int far = give_pair(SOCK_STREAM);
	u32 length = htonl(100);

	(void)state;
	assert_int_equal(wire.net->mtu, 0);
	assert_int_equal(wire_send(&wire, data, 100, 0, 0), 0);
	far_read(far, got, 104);
	assert_memory_equal(got, &length, 4);
	assert_memory_equal(got + 4, data, 100);
	far_write(far, got, 104);
	heard(data, 100);
	/* A byte at a time, two frames in one piece, and one of nothing between them. */
	for (int i = 0; i < 104; i++) {
		assert_int_equal(wire_turn(&wire, 2), 0);
		far_write(far, got + i, 1);
	}
	heard(data, 100);
	memmove(got + 108, got, 104);
	memset(got + 104, 0, 4);
	far_write(far, got, 212);
	heard(data, 100);
	heard(data, 100);
	wire_fini(&wire);
	close(far);
}

/* A sum whose complement is 0 is sent as the other zero: UDP has 0 for "none". */
static void test_checksum(void **state)
{
	static const struct { u8 put[2], get[2]; } sum[] = {
		{ { 0xff, 0xff }, { 0xff, 0xff } }, { { 0, 0 }, { 0xff, 0xff } },
		{ { 0x12, 0x34 }, { 0xed, 0xcb } }, { { 0xff, 0xfe }, { 0, 1 } },
	};
	u8 frame[75] = { 0 }, got[4 + sizeof(frame)];
	int far = give_pair(SOCK_STREAM);

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(sum); i++) {
		memcpy(frame + 40, sum[i].put, 2);
		assert_int_equal(wire_send(&wire, frame, sizeof(frame), 34, 6), 0);
		far_read(far, got, sizeof(got));
		assert_memory_equal(got + 4 + 40, sum[i].get, 2);
	}
	wire_fini(&wire);
	close(far);
}

static void test_stream_longest(void **state)
{
	static u8 got[4 + LONGEST];
	int far = give_pair(SOCK_STREAM);

	(void)state;
	assert_int_equal(wire_send(&wire, data, LONGEST, 0, 0), 0);
	far_read(far, got, sizeof(got));
	assert_memory_equal(got + 4, data, LONGEST);
	far_write(far, got, sizeof(got));
	heard(data, LONGEST);
	wire_fini(&wire);
	close(far);
}

/* Many short ones: more than the card takes at a time, so no event follows the last. */
static void test_stream_many(void **state)
{
	u8 all[300 * 64];
	u32 length = htonl(60);
	int far = give_pair(SOCK_STREAM);

	(void)state;
	for (int i = 0; i < 300; i++) {
		memcpy(all + 64 * i, &length, 4);
		memset(all + 64 * i + 4, i, 60);
	}
	wire_listen(&wire, false);
	far_write(far, all, sizeof(all));
	assert_int_equal(wire_turn(&wire, 4), 0);
	wire_listen(&wire, true);
	for (int i = 0; i < 300; i++)
		heard(all + 64 * i + 4, 60);
	wire_fini(&wire);
	close(far);
}

/* The other end does not read: frames wait in the ring, none is lost or cut. */
static void test_stream_full(void **state)
{
	static u8 got[4 + 50000];
	int far = give_pair(SOCK_STREAM), sent = 0, rc;

	(void)state;
	do
		rc = wire_send(&wire, data + sent, 50000, 0, 0);
	while (!rc && ++sent < 1000);
	assert_int_equal(rc, -EAGAIN);
	assert_true(sent > 1);
	wire_turn(&wire, 3);
	assert_int_equal(wire.nr_writable, 0);
	for (int i = 0; i < sent; i++) {
		for (size_t n = 0; n < sizeof(got);) {
			ssize_t some = recv(far, got + n, sizeof(got) - n, MSG_DONTWAIT);

			assert_true(some > 0 || errno == EAGAIN);
			n += MAX(some, 0);
			wire_turn(&wire, 1);
		}
		assert_memory_equal(got + 4, data + i, 50000);
	}
	wire_turn(&wire, 3);
	assert_int_equal(wire.nr_writable, 1);
	assert_int_equal(wire_send(&wire, data, 100, 0, 0), 0);
	wire_fini(&wire);
	close(far);
}

static void test_stream_hostile(void **state)
{
	static const u32 length[] = { LONGEST + 1, 0x7fffffff, 0x80000000, 0xffffffff };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(length); i++) {
		int far = give_pair(SOCK_STREAM);
		u32 wire_length = htonl(length[i]);

		far_write(far, &wire_length, 4);
		far_write(far, data, 5000);
		assert_int_equal(wire_turn(&wire, 4), 0);
		assert_int_equal(wire_send(&wire, data, 100, 0, 0), -EPIPE);
		wire_fini(&wire);
		close(far);
	}
}

/* A card that waits to send is told, and that it is for good: what it sends is lost; the loop sleeps. */
static void test_stream_closed(void **state)
{
	int far = give_pair(SOCK_STREAM);

	(void)state;
	while (!wire_send(&wire, data, 50000, 0, 0))
		;
	close(far);
	assert_int_equal(wire.nr_lost, 0);
	wire_turn(&wire, 4);
	assert_int_equal(wire.nr_writable, 1);
	assert_int_equal(wire_send(&wire, data, 100, 0, 0), -EPIPE);
	assert_int_equal(wire.nr_lost, 1);
	/* The next card, of a guest that has booted again, is told, too. */
	wire.net->ops->stop(wire.net);
	assert_int_equal(wire.net->ops->start(wire.net, wire.fake.p.io_loop), 0);
	assert_int_equal(wire.nr_lost, 2);
	wire_fini(&wire);
	/* Half a frame was its last. */
	far = give_pair(SOCK_STREAM);
	far_write(far, "\0\0\0\144abc", 7);
	close(far);
	assert_int_equal(wire_turn(&wire, 4), 0);
	assert_int_equal(wire_send(&wire, data, 100, 0, 0), -EPIPE);
	assert_int_equal(wire.nr_lost, 1);
	wire_fini(&wire);
}

/* Full to the byte, between two frames: the next one waits whole. */
static void test_stream_full_of_small(void **state)
{
	u8 got[64];
	int far = give_pair(SOCK_STREAM), sent = 0, rc;

	(void)state;
	do
		rc = wire_send(&wire, data + sent % 251, 60, 0, 0);
	while (!rc && ++sent < 1000000);
	assert_int_equal(rc, -EAGAIN);
	wire_turn(&wire, 3);
	assert_int_equal(wire.nr_writable, 0);
	for (int i = 0; i < sent; i++) {
		far_read(far, got, sizeof(got));
		assert_memory_equal(got, "\0\0\0\74", 4);
		assert_memory_equal(got + 4, data + i % 251, 60);
	}
	assert_int_equal(recv(far, got, 1, MSG_DONTWAIT), -1);
	wire_turn(&wire, 3);
	assert_int_equal(wire.nr_writable, 1);
	wire_fini(&wire);
	close(far);
}

/* It is gone before the loop has seen it: the frame is lost as on a wire, those after it are refused. */
static void test_stream_gone(void **state)
{
	int far = give_pair(SOCK_STREAM);

	(void)state;
	close(far);
	assert_int_equal(wire_send(&wire, data, 100, 0, 0), 0);
	assert_int_equal(wire_send(&wire, data, 100, 0, 0), -EPIPE);
	assert_int_equal(wire_turn(&wire, 3), 0);
	assert_int_equal(wire.nr_lost, 1);
	wire_fini(&wire);
}

/* A card that does not listen hears of the end all the same. */
static void test_stream_closed_unheard(void **state)
{
	int far = give_pair(SOCK_STREAM);
	u32 length = htonl(100);

	(void)state;
	wire_listen(&wire, false);
	wire_turn(&wire, 1);
	while (!wire_send(&wire, data, 50000, 0, 0))
		;
	far_write(far, &length, 4);
	far_write(far, data, 100);
	close(far);
	assert_int_equal(wire_turn(&wire, 4), 0);
	assert_int_equal(wire.nr_writable, 1);
	assert_int_equal(wire_send(&wire, data, 100, 0, 0), -EPIPE);
	wire_fini(&wire);
}

/* What no driver sends: not even one byte of it goes out. */
static void test_malformed(void **state)
{
	static const int type[] = { SOCK_STREAM, SOCK_DGRAM };
	u8 got[200];

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(type); i++) {
		int far = give_pair(type[i]);

		assert_int_equal(wire_send(&wire, data, 13, 0, 0), -EPROTO);
		assert_int_equal(wire_send(&wire, data, 100, 101, 0), -EPROTO);
		assert_int_equal(wire_send(&wire, data, 100, 50, 49), -EPROTO);
		assert_int_equal(recv(far, got, sizeof(got), MSG_DONTWAIT), -1);
		assert_int_equal(errno, EAGAIN);
		assert_int_equal(wire_send(&wire, data, 100, 50, 48), 0);
		assert_int_equal(recv(far, got, sizeof(got), 0), i ? 100 : 104);
		wire_fini(&wire);
		close(far);
	}
}

static void test_stream_stop_and_start(void **state)
{
	int far = give_pair(SOCK_STREAM);
	u8 frame[64] = { 0, 0, 0, 60 };

	(void)state;
	far_write(far, frame, 30);
	wire_turn(&wire, 2);
	wire.net->ops->stop(wire.net);
	far_write(far, frame + 30, 34);
	assert_int_equal(wire_turn(&wire, 2), 0);
	assert_int_equal(wire.net->ops->start(wire.net, wire.fake.p.io_loop), 0);
	wire_listen(&wire, true);
	heard(frame + 4, 60);
	wire_fini(&wire);
	close(far);
}

/* --- datagrams ------------------------------------------------------------------------------ */

static void test_datagram(void **state)
{
	u8 got[200];
	int far = give_pair(SOCK_DGRAM), sent = 0;

	(void)state;
	assert_int_equal(wire_send(&wire, data, 100, 0, 0), 0);
	assert_int_equal(recv(far, got, sizeof(got), 0), 100);
	assert_memory_equal(got, data, 100);
	far_write(far, data, 13);	/* too short */
	far_write(far, data, 0);
	far_write(far, data + 5, 60);
	heard(data + 5, 60);
	while (sent < 10000 && !wire_send(&wire, data, 100, 0, 0))
		sent++;
	assert_in_range(sent, 1, 9999);
	wire_turn(&wire, 3);
	assert_int_equal(wire.nr_writable, 0);
	while (recv(far, got, sizeof(got), MSG_DONTWAIT) > 0)
		sent--;
	assert_int_equal(sent, 0);
	wire_turn(&wire, 3);
	assert_int_equal(wire.nr_writable, 1);
	close(far);
	wire_turn(&wire, 3);
	assert_true(wire_send(&wire, data, 100, 0, 0) < 0);
	wire_fini(&wire);
}

/* What never becomes a frame comes as fast as it is read: the others on the loop have their turn all the same. */
static void test_only_short(void **state)
{
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM };
	static const u8 nothing[65536];		/* of frames without a byte, that many */
	u8 frame[4 + 60] = { 0, 0, 0, 60 };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		bool is_stream = types[i] == SOCK_STREAM;
		struct iovec iov = { data, sizeof(data) };
		int fd[2], left = 0;

		assert_int_equal(socketpair(AF_UNIX, types[i], 0, fd), 0);
		stream_widen(fd[1]);
		give(fd[0]);
		wire_listen(&wire, false);
		while (send(fd[1], nothing, is_stream ? sizeof(nothing) : 1, MSG_DONTWAIT) > 0)
			;
		assert_int_equal(wire.net->ops->recv(wire.net, &iov, 1), -EAGAIN);
		assert_int_equal(ioctl(fd[0], FIONREAD, &left), 0);
		assert_true(left > 0);
		wire_listen(&wire, true);
		assert_int_equal(wire_turn(&wire, 100), 0);
		memset(frame + 4, 0x5a, 60);
		far_write(fd[1], is_stream ? frame : frame + 4, is_stream ? 64 : 60);
		heard(frame + 4, 60);
		wire_fini(&wire);
		close(fd[1]);
	}
}

/* --- taps, in a network namespace of this program's own ---------------------------------------- */

static int open_tun(int flags)
{
	struct ifreq ifr = { .ifr_flags = flags };
	int fd = own_network ? open("/dev/net/tun", O_RDWR) : -1;

	if (fd >= 0 && ioctl(fd, TUNSETIFF, &ifr)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* The kernel's end: up, as 10.9.9.1/8. */
static void set_up(int fd)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	struct ifreq ifr;
	int s = socket(AF_INET, SOCK_DGRAM, 0);

	assert_int_equal(ioctl(fd, TUNGETIFF, &ifr), 0);
	inet_pton(AF_INET, "10.9.9.1", &a.sin_addr);
	memcpy(&ifr.ifr_addr, &a, sizeof(a));
	assert_int_equal(ioctl(s, SIOCSIFADDR, &ifr), 0);
	close(s);
	bring_up(&ifr);
}

static bool is_arp_reply(const u8 *f, size_t len, void *arg)
{
	(void)arg;
	return len >= 42 && f[12] == 8 && f[13] == 6 && f[21] == 2;
}

/* ARP there and back, then UDP whose checksum is left to the device. */
static void check_tap(int flags)
{
	u8 arp[42] = { 255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 9, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1,
		       2, 0, 0, 0, 0, 9, 10, 9, 9, 2, 0, 0, 0, 0, 0, 0, 10, 9, 9, 1 };
	struct wire_ip h = { .mac_from = { 2, 0, 0, 0, 0, 9 }, .from = "10.9.9.2", .to = "10.9.9.1",
			     .protocol = IPPROTO_UDP };
	u8 udp[13] = { PORT >> 8, PORT & 255, PORT >> 8, PORT & 255, 0, sizeof(udp), 0, 0, 'h', 'e',
		       'l', 'l', 'o' };
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(PORT) };
	int fd = open_tun(flags), s;
	u8 frame[100];
	u16 start;
	size_t len;
	const u8 *f;

	if (fd < 0)
		skip();
	set_up(fd);
	give(fd);
	assert_int_equal(wire_send(&wire, arp, sizeof(arp), 0, 0), 0);
	f = wire_expect(&wire, is_arp_reply, NULL, NULL);
	assert_non_null(f);
	memcpy(h.mac_to, f + 6, 6);
	s = socket(AF_INET, SOCK_DGRAM, 0);
	assert_int_equal(bind(s, (void *)&a, sizeof(a)), 0);
	len = wire_ip(frame, &h, udp, sizeof(udp), 6, &start);
	assert_int_equal(wire_send(&wire, frame, len, start, 6), 0);
	assert_int_equal(recv(s, frame, sizeof(frame), 0), 5);
	assert_memory_equal(frame, "hello", 5);
	close(s);
	wire_fini(&wire);
}

static void test_tap(void **state) { (void)state; check_tap(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR); }
static void test_raw_tap(void **state) { (void)state; check_tap(IFF_TAP | IFF_NO_PI); }

static bool is_lost(void *arg)
{
	(void)arg;
	return wire.nr_lost;
}

/* Deleted under us: said once, whether frames are wanted from it or not; of one without headers when they are. */
static void test_tap_deleted(void **state)
{
	static const struct {
		int flags;
		bool listens;
	} way[] = {
		{ IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, false }, { IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, true },
		{ IFF_TAP | IFF_NO_PI, true },
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(way); i++) {
		int fd = open_tun(way[i].flags);
		struct netlink *nl;
		struct ifreq ifr;
		struct link l;

		if (fd < 0)
			skip();
		assert_int_equal(ioctl(fd, TUNGETIFF, &ifr), 0);
		set_up(fd);
		give(fd);
		wire_listen(&wire, way[i].listens);
		wire_turn(&wire, 3);
		assert_int_equal(wire.nr_lost, 0);
		assert_int_equal(netlink_open(&nl, &err), 0);
		assert_int_equal(link_find(nl, 0, ifr.ifr_name, &l), 0);
		assert_int_equal(link_delete(nl, l.index), 0);
		netlink_close(nl);
		assert_true(fake_turn_until(&wire.fake, is_lost, NULL));
		wire_turn(&wire, 3);
		assert_int_equal(wire.nr_lost, 1);
		wire_fini(&wire);
	}
}

static void test_not_a_tap(void **state)
{
	int fd = open_tun(IFF_TUN | IFF_NO_PI);

	(void)state;
	if (fd < 0)
		skip();
	refuse(fd, "a tun");
	refuse(open("/dev/net/tun", O_RDWR), "neither a tap nor a socket");
	fd = open("/dev/net/tun", O_RDONLY);
	assert_int_equal(ioctl(fd, TUNSETIFF, &(struct ifreq){ .ifr_flags = IFF_TAP | IFF_NO_PI }), 0);
	refuse(fd, "open it for reading and writing");
}

static void test_refused(void **state)
{
	struct sockaddr_in any_port = { .sin_family = AF_INET };
	int fd[2];

	(void)state;
	refuse(999, "fd=999: no such descriptor");
	refuse(open("/dev/null", O_RDWR | O_CLOEXEC), "no such descriptor");	/* one of ours */
	refuse(open("/dev/null", O_RDWR), "neither a tap nor a socket");
	refuse(socket(AF_UNIX, SOCK_DGRAM, 0), "not connected");
	fd[0] = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(fd[0], (void *)&any_port, sizeof(any_port)), 0);
	assert_int_equal(listen(fd[0], 1), 0);
	refuse(fd[0], "not connected");
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fd), 0);
	refuse(fd[0], "stream and datagram");
	close(fd[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stream), cmocka_unit_test(test_checksum),
		cmocka_unit_test(test_stream_longest),
		cmocka_unit_test(test_stream_many), cmocka_unit_test(test_stream_full),
		cmocka_unit_test(test_stream_hostile), cmocka_unit_test(test_stream_closed),
		cmocka_unit_test(test_stream_full_of_small), cmocka_unit_test(test_stream_gone),
		cmocka_unit_test(test_stream_closed_unheard), cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_stream_stop_and_start), cmocka_unit_test(test_datagram), cmocka_unit_test(test_only_short),
		cmocka_unit_test(test_tap), cmocka_unit_test(test_raw_tap),
		cmocka_unit_test(test_tap_deleted), cmocka_unit_test(test_not_a_tap), cmocka_unit_test(test_refused),
	};

	signal(SIGPIPE, SIG_IGN);
	alarm(120);		/* a socket here may wait for ever */
	return cmocka_run_group_tests(tests, prepare, NULL);
}
