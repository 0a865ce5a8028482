/* virtio_vsock_test.c: a vsock device between a driver in memory and programs at unix sockets. */
#include <fcntl.h>
#include <libfdt.h>
#include <linux/vm_sockets.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_vsock.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include "devices/virtio/vsock_own.h"
#include "tests/lib/driver.h"
#include "tests/lib/test.h"
#include "vmm/core/socket.h"
#include "vmm/core/state.h"

enum { RX, TX, EVENT, CID = 77, SIZE = 64, PACKET = 44, BUFFER = 4096, PORT = 1 << 30, GUEST_ROOM = 1 << 18 };
enum { BUFFERS = 0x100000, OUT = 0x300000, EVENTS = 0x500000, OUT_LEN = 0x10000 };
enum { REQUEST = 1, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST };
enum { RUNNING = 15, NEEDS_RESET = 64 };
#define SECOND	1000000000ULL

struct fixture {
	struct fake fake;
	struct driver d;
	struct device *dev;
	struct virtio *v;
	struct vsock_host *host;
	char dir[40], path[60];
	u16 seen;			/* of the receive queue's answers */
	u32 buf_alloc, fwd_cnt;		/* of the guest, as it says */
	struct virtio_vsock_hdr h;	/* of the last packet... */
	u8 data[VSOCK_ROOM];		/* ...and what is in it */
	u32 buffer_len;			/* of receive buffers */
};

int __real_clock_gettime(clockid_t, struct timespec *);
int __wrap_clock_gettime(clockid_t, struct timespec *);

static u64 fake_ns;			/* 0: the real one */

int __wrap_clock_gettime(clockid_t clock, struct timespec *t)
{
	if (!fake_ns || clock != CLOCK_MONOTONIC)
		return __real_clock_gettime(clock, t);
	*t = (struct timespec){ fake_ns / SECOND, fake_ns % SECOND };
	return 0;
}

static void offer(struct fixture *f, int nr)
{
	for (int i = 0; i < nr; i++) {
		struct ring *r = &f->d.ring[RX];

		/* A slot of the ring is a place in memory. */
		ring_add(r, &(struct piece){ BUFFERS + (r->next_desc % SIZE) * 0x4000ULL, f->buffer_len, true }, 1);
	}
}

static void start(struct fixture *f)
{
	assert_int_equal(driver_start(&f->d, 0, VSOCK_QUEUES, SIZE), RUNNING);
	f->seen = 0;
	fake_settle(&f->fake);
}

static void plug(struct fixture *f)
{
	assert_int_equal(virtio_vsock_new(&f->fake.p, "vsock0", CID, f->host, &f->v, NULL), 0);
	assert_int_equal(virtio_mmio_new(f->v, DRIVER_BASE, DRIVER_GSI, &f->dev, NULL), 0);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct err err;

	assert_non_null(f);
	fake_init(&f->fake, 8 * MIB, -1);
	f->d.fake = &f->fake;
	strcpy(f->dir, "/tmp/vmm-vsock-test-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/v", f->dir);
	if (vsock_host_open(&f->host, f->path, &err))
		fail_msg("%s", err.msg);
	plug(f);
	f->buf_alloc = GUEST_ROOM;
	f->buffer_len = BUFFER;
	start(f);
	offer(f, 32);
	driver_kick(&f->d, RX);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	device_destroy(f->dev);
	vsock_host_close(f->host);
	assert_int_equal(stat(f->path, &st), -1);
	assert_int_equal(rmdir(f->dir), 0);
	fake_fini(&f->fake);
	free(f);
	fake_ns = 0;
	return 0;
}

/* --- the driver ------------------------------------------------------------------------- */

static struct virtio_vsock_hdr header(struct fixture *f, u32 guest, u32 host, u16 op, u32 len, u32 flags)
{
	return (struct virtio_vsock_hdr){
		.src_cid = CID, .dst_cid = VMADDR_CID_HOST, .src_port = guest, .dst_port = host, .len = len,
		.type = VIRTIO_VSOCK_TYPE_STREAM, .op = op, .flags = flags, .buf_alloc = f->buf_alloc,
		.fwd_cnt = f->fwd_cnt,
	};
}

/* As it is, with have bytes behind it in pieces of that length. */
static void send_raw(struct fixture *f, const struct virtio_vsock_hdr *h, const void *data, u32 have, u32 cut)
{
	struct piece p[SIZE];
	u16 before = ring_used_idx(&f->d.ring[TX]);
	u32 len = sizeof(*h) + have;
	int nr = 0;

	assert_int_equal(mem_write_obj(f->fake.p.mem, GPA(OUT), h), 0);
	if (have)
		assert_int_equal(mem_write(f->fake.p.mem, GPA(OUT + sizeof(*h)), data, have), 0);
	for (u32 at = 0; at < len; at += cut)
		p[nr++] = (struct piece){ OUT + at, MIN(cut, len - at), false };
	ring_add(&f->d.ring[TX], p, nr);
	driver_kick(&f->d, TX);
	assert_int_equal(ring_used_idx(&f->d.ring[TX]), (u16)(before + 1));
}

static void say(struct fixture *f, u32 guest, u32 host, u16 op, u32 flags)
{
	struct virtio_vsock_hdr h = header(f, guest, host, op, 0, flags);

	send_raw(f, &h, NULL, 0, 64);
}

static void say_data(struct fixture *f, u32 guest, u32 host, const void *data, u32 len)
{
	struct virtio_vsock_hdr h = header(f, guest, host, RW, len, 0);

	send_raw(f, &h, data, len, OUT_LEN + 64);
}

/* The next that the guest was sent; its op, or 0. */
static int next(struct fixture *f)
{
	struct ring *r = &f->d.ring[RX];
	struct vring_used_elem e;
	u64 at;

	if (ring_used_idx(r) == f->seen)
		return 0;
	e = ring_used(r, f->seen++);
	at = BUFFERS + e.id * 0x4000ULL;
	assert_in_range(e.len, PACKET, f->buffer_len);
	assert_int_equal(mem_read_obj(f->fake.p.mem, GPA(at), &f->h), 0);
	assert_int_equal(f->h.len, e.len - PACKET);
	assert_int_equal(mem_read(f->fake.p.mem, GPA(at + PACKET), f->data, f->h.len), 0);
	assert_int_equal(f->h.src_cid, VMADDR_CID_HOST);
	assert_int_equal(f->h.dst_cid, CID);
	return f->h.op;
}

#define assert_next(f, op_, guest, host) \
	do { \
		assert_int_equal(next(f), op_); \
		assert_int_equal((f)->h.src_port, host); \
		assert_int_equal((f)->h.dst_port, guest); \
	} while (0)
#define assert_quiet(f)	assert_int_equal(next(f), 0)

/* --- programs of the host --------------------------------------------------------------- */

static int listen_at(struct fixture *f, u32 port)
{
	char path[80];
	struct err err;
	int fd;

	snprintf(path, sizeof(path), "%s_%u", f->path, port);
	if (socket_listen(path, &fd, &err))
		fail_msg("%s", err.msg);
	return fd;
}

static void leave(struct fixture *f, u32 port, int fd)
{
	char path[80];

	snprintf(path, sizeof(path), "%s_%u", f->path, port);
	unlink(path);
	close(fd);
}

static int accept_one(int fd)
{
	int one = accept4(fd, NULL, NULL, SOCK_NONBLOCK);

	assert_return_code(one, errno);
	return one;
}

/* The guest's port 1000 with the host's port 5. */
static int connect_out(struct fixture *f, u32 guest)
{
	int fd = listen_at(f, 5), one;

	say(f, guest, 5, REQUEST, 0);
	assert_next(f, RESPONSE, guest, 5);
	assert_int_equal(f->h.buf_alloc, VSOCK_ROOM);
	assert_int_equal(f->h.fwd_cnt, 0);
	one = accept_one(fd);
	leave(f, 5, fd);
	return one;
}

static int knock(struct fixture *f, const char *text)
{
	struct err err;
	int fd;

	if (socket_connect(f->path, &fd, &err))
		fail_msg("%s", err.msg);
	if (*text)
		assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	fake_settle(&f->fake);
	return fd;
}

static void check_text(int fd, const char *text)
{
	char got[64];

	assert_int_equal(read(fd, got, sizeof(got)), strlen(text));
	assert_memory_equal(got, text, strlen(text));
}

/* The guest's port 52 with the host's port *port. */
static int connect_in(struct fixture *f, u32 *port)
{
	int fd = knock(f, "CONNECT 52\n");
	char text[32];

	assert_int_equal(next(f), REQUEST);
	assert_int_equal(f->h.dst_port, 52);
	*port = f->h.src_port;
	say(f, 52, *port, RESPONSE, 0);
	snprintf(text, sizeof(text), "OK %u\n", *port);
	check_text(fd, text);
	return fd;
}

static bool at_end(int fd)
{
	char c;

	return read(fd, &c, 1) == 0;
}

static bool has_nothing(int fd)
{
	char c;

	return read(fd, &c, 1) < 0 && errno == EAGAIN;
}

static u64 count(struct fixture *f, const char *name, const char *label)
{
	return metrics_sum(&f->fake.metrics, "vsock0", name, label);
}

static u64 nr_connections(struct fixture *f)
{
	return count(f, "vsock_connections", NULL);
}

/* --- tests ------------------------------------------------------------------------------ */

static void test_identity(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_DEVICE_ID), VIRTIO_ID_VSOCK);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_CONFIG), CID);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_CONFIG + 4), 0);
}

static void test_guest_connects(void **state)
{
	struct fixture *f = *state;
	int fd = connect_out(f, 1000), irqs = driver_irqs(&f->d);

	assert_int_equal(nr_connections(f), 1);
	say_data(f, 1000, 5, "hello", 5);
	check_text(fd, "hello");
	assert_quiet(f);
	assert_int_equal(write(fd, "and back", 8), 8);
	fake_settle(&f->fake);
	assert_true(driver_irqs(&f->d) > irqs);
	assert_next(f, RW, 1000, 5);
	assert_int_equal(f->h.len, 8);
	assert_memory_equal(f->data, "and back", 8);
	assert_int_equal(f->h.fwd_cnt, 5);
	say(f, 1000, 5, CREDIT_REQUEST, 0);
	assert_next(f, CREDIT_UPDATE, 1000, 5);
	assert_int_equal(f->h.fwd_cnt, 5);
	/* It closes: the answer is the end. */
	say(f, 1000, 5, SHUTDOWN, 3);
	assert_next(f, RST, 1000, 5);
	assert_true(at_end(fd));
	close(fd);
	assert_quiet(f);
	assert_int_equal(nr_connections(f), 0);
	assert_int_equal(count(f, "vsock_opened_total", NULL), 1);
	assert_int_equal(count(f, "vsock_ended_total", NULL), 1);
	assert_int_equal(count(f, "vsock_bytes_total", "direction=\"rx\""), 8);
	assert_int_equal(count(f, "vsock_bytes_total", "direction=\"tx\""), 5);
	assert_int_equal(count(f, "vsock_resets_total", NULL), 1);
}

static void test_nobody_there(void **state)
{
	struct fixture *f = *state;
	char path[80];
	int fd;

	say(f, 1000, 6, REQUEST, 0);
	assert_next(f, RST, 1000, 6);
	/* A socket that nobody listens on any more, and a file. */
	leave(f, 0, listen_at(f, 0));
	fd = listen_at(f, 7);
	close(fd);
	say(f, 1000, 7, REQUEST, 0);
	assert_next(f, RST, 1000, 7);
	snprintf(path, sizeof(path), "%s_7", f->path);
	unlink(path);
	fclose(fopen(path, "w"));
	say(f, 1000, 7, REQUEST, 0);
	assert_next(f, RST, 1000, 7);
	unlink(path);
	assert_int_equal(count(f, "vsock_refused_total", NULL), 3);
	assert_int_equal(nr_connections(f), 0);
}

static void test_host_connects(void **state)
{
	struct fixture *f = *state;
	int fd, other;
	u32 port, second;

	fd = connect_in(f, &port);
	assert_int_equal(port, PORT);
	say_data(f, 52, port, "agent", 5);
	check_text(fd, "agent");
	assert_int_equal(write(fd, "x", 1), 1);
	fake_settle(&f->fake);
	assert_next(f, RW, 52, port);
	other = connect_in(f, &second);
	assert_int_not_equal(port, second);
	/* It closes: both ends of it are down. */
	close(fd);
	fake_settle(&f->fake);
	assert_next(f, SHUTDOWN, 52, port);
	assert_int_equal(f->h.flags, 3);
	say(f, 52, port, RST, 0);
	assert_int_equal(nr_connections(f), 1);
	say(f, 52, second, RST, 0);
	assert_true(at_end(other));
	close(other);
	assert_quiet(f);
	assert_int_equal(nr_connections(f), 0);
}

/* What comes with the line, and what comes before the guest has answered. */
static void test_data_behind_the_line(void **state)
{
	struct fixture *f = *state;
	int fd = knock(f, "CONNECT 52\nearly");
	u32 port;

	assert_int_equal(next(f), REQUEST);
	port = f->h.src_port;
	assert_int_equal(write(fd, " bird", 5), 5);
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	fake_settle(&f->fake);
	assert_quiet(f);
	say(f, 52, port, RESPONSE, 0);
	assert_next(f, RW, 52, port);
	assert_int_equal(f->h.len, 10);
	assert_memory_equal(f->data, "early bird", 10);
	assert_next(f, SHUTDOWN, 52, port);
	assert_int_equal(f->h.flags, VIRTIO_VSOCK_SHUTDOWN_SEND);
	say_data(f, 52, port, "thanks", 6);
	check_text(fd, "OK 1073741824\nthanks");
	close(fd);
	fake_settle(&f->fake);
	assert_next(f, SHUTDOWN, 52, port);
	assert_int_equal(f->h.flags, 3);
}

static void test_line_in_pieces(void **state)
{
	struct fixture *f = *state;
	static const char line[] = "connect  4294967295 \r\n";
	int fd = knock(f, "");

	for (unsigned i = 0; i < sizeof(line) - 1; i++) {
		assert_quiet(f);
		assert_int_equal(write(fd, line + i, 1), 1);
		fake_settle(&f->fake);
	}
	assert_int_equal(next(f), REQUEST);
	assert_int_equal(f->h.dst_port, UINT32_MAX);
	/* Nobody listens there. */
	say(f, UINT32_MAX, f->h.src_port, RST, 0);
	assert_true(at_end(fd));
	close(fd);
}

static void test_garbage(void **state)
{
	static const char *const line[] = {
		"\n", "CONNECT\n", "CONNECT \n", "CONNECT x\n", "CONNECT -1\n", "CONNECT 4294967296\n",
		"CONNECT 1 2\n", "CONNECT 99999999999999999999\n", "CONNECTED 5\n", "CON 5\n", " CONNECT 5\n",
		"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "CONNECT 000000000000000000000000000000005\n",
		"CONNECT 0x5\n", "CONNECT5\n",
	};
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(line); i++) {
		int fd = knock(f, line[i]);

		if (nr_connections(f))
			fail_msg("'%s' was taken", line[i]);
		assert_int_not_equal(read(fd, &(char){ 0 }, 1), 1);
		close(fd);
		assert_quiet(f);
	}
	/* Who goes before the line is there. */
	close(knock(f, ""));
	close(knock(f, "CONN"));
	close(knock(f, "CONNECT 1\n"));
	assert_int_equal(next(f), REQUEST);
	fake_settle(&f->fake);
	assert_next(f, RST, 1, PORT);
	assert_quiet(f);
	assert_int_equal(nr_connections(f), 0);
}

static u8 pattern(u64 at)
{
	return at * 7 + (at >> 8);
}

/* The program does not read: the guest may send what fits, and no more; then it does. */
static void test_program_does_not_read(void **state)
{
	struct fixture *f = *state;
	int fd = connect_out(f, 1000);
	u64 sent = 0, got = 0, fwd = 0;
	static u8 chunk[OUT_LEN];
	ssize_t n;

	for (;;) {
		u32 len = MIN(VSOCK_ROOM - (sent - fwd), 10000);

		if (!len)
			break;
		for (u32 i = 0; i < len; i++)
			chunk[i] = pattern(sent + i);
		say_data(f, 1000, 5, chunk, len);
		sent += len;
		while (next(f)) {
			assert_int_equal(f->h.op, CREDIT_UPDATE);
			fwd = f->h.fwd_cnt;
		}
	}
	assert_true(sent >= VSOCK_ROOM);
	while (got < sent) {
		n = read(fd, chunk, sizeof(chunk));
		if (n < 0)
			assert_int_equal(errno, EAGAIN);
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(chunk[i], pattern(got + i));
		got += MAX(n, 0);
		fake_settle(&f->fake);
	}
	while (next(f)) {
		assert_int_equal(f->h.op, CREDIT_UPDATE);
		fwd = f->h.fwd_cnt;
	}
	assert_true(fwd + VSOCK_ROOM / 2 >= sent);
	say(f, 1000, 5, CREDIT_REQUEST, 0);
	assert_next(f, CREDIT_UPDATE, 1000, 5);
	assert_int_equal(f->h.fwd_cnt, sent);
	close(fd);
}

/* Now and then it reads some, and the guest sends as much: what waits goes round and round in its room. */
static void test_program_reads_little(void **state)
{
	enum { ALL = 6 * VSOCK_ROOM, LITTLE = 9973 };
	struct fixture *f = *state;
	int fd = connect_out(f, 1000);
	u64 sent = 0, got = 0, fwd = 0;
	static u8 chunk[OUT_LEN];
	ssize_t n;

	/* A host whose sockets hold little; which of them is the device's end is not for us to know. */
	for (int i = 3; i < 256; i++)
		(void)!setsockopt(i, SOL_SOCKET, SO_SNDBUF, &(int){ 20000 }, sizeof(int));
	do {
		for (u32 len; (len = MIN(VSOCK_ROOM - (sent - fwd), 10000)) && sent < ALL; sent += len) {
			for (u32 i = 0; i < len; i++)
				chunk[i] = pattern(sent + i);
			say_data(f, 1000, 5, chunk, len);
		}
		n = read(fd, chunk, LITTLE);
		assert_true(n > 0);
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(chunk[i], pattern(got + i));
		got += n;
		fake_settle(&f->fake);
		say(f, 1000, 5, CREDIT_REQUEST, 0);
		for (; next(f); offer(f, 1))
			fwd = f->h.fwd_cnt;
	} while (got < ALL || got < sent);
	assert_int_equal(fwd, sent);
	assert_int_equal(nr_connections(f), 1);
	close(fd);
}

/* More than there is room for is against the rules: that connection ends, and memory is bounded. */
static void test_beyond_credit(void **state)
{
	struct fixture *f = *state;
	int fd = connect_out(f, 1000), n = 0;
	static u8 chunk[VSOCK_ROOM];

	for (; nr_connections(f) && n < 1000; n++)
		say_data(f, 1000, 5, chunk, sizeof(chunk));
	assert_in_range(n, 2, 999);
	while (next(f) == CREDIT_UPDATE)
		;
	assert_int_equal(f->h.op, RST);
	assert_true(f->dev->guest_errors > 0 || f->v->dev.guest_errors > 0);
	close(fd);
}

/* The guest has no room: what the program sends waits in its socket. */
static void test_guest_has_no_room(void **state)
{
	struct fixture *f = *state;
	int fd, listener = listen_at(f, 5);
	u8 chunk[1000];
	u32 got = 0;

	f->buf_alloc = 100;
	say(f, 1000, 5, REQUEST, 0);
	assert_next(f, RESPONSE, 1000, 5);
	fd = accept_one(listener);
	leave(f, 5, listener);
	for (unsigned i = 0; i < sizeof(chunk); i++)
		chunk[i] = pattern(i);
	assert_int_equal(write(fd, chunk, sizeof(chunk)), sizeof(chunk));
	fake_settle(&f->fake);
	while (got < sizeof(chunk)) {
		assert_next(f, RW, 1000, 5);
		assert_int_equal(f->h.len, 100);
		for (u32 i = 0; i < f->h.len; i++)
			assert_int_equal(f->data[i], pattern(got + i));
		got += f->h.len;
		assert_next(f, CREDIT_REQUEST, 1000, 5);
		assert_quiet(f);
		f->fwd_cnt = got;
		say(f, 1000, 5, CREDIT_UPDATE, 0);
	}
	/* Less than nothing is nothing. */
	f->fwd_cnt = got + 1;
	say(f, 1000, 5, CREDIT_UPDATE, 0);
	f->buf_alloc = 0;
	say(f, 1000, 5, CREDIT_UPDATE, 0);
	assert_int_equal(write(fd, chunk, 1), 1);
	fake_settle(&f->fake);
	assert_next(f, CREDIT_REQUEST, 1000, 5);
	assert_quiet(f);
	close(fd);
}

/* No buffers: nothing is taken off the sockets; with them it goes on, in order. */
static void test_guest_has_no_buffers(void **state)
{
	struct fixture *f = *state;
	int fd = connect_out(f, 1000);
	static u8 chunk[300000];
	u64 got = 0;
	ssize_t n;

	f->buf_alloc = 1 << 20;
	say(f, 1000, 5, CREDIT_UPDATE, 0);
	for (unsigned i = 0; i < sizeof(chunk); i++)
		chunk[i] = pattern(i);
	n = write(fd, chunk, sizeof(chunk));
	assert_true(n > 32 * BUFFER);
	fake_settle(&f->fake);
	while (got < (u64)n) {
		int nr = 0;

		while (next(f) == RW) {
			for (u32 i = 0; i < f->h.len; i++)
				assert_int_equal(f->data[i], pattern(got + i));
			got += f->h.len;
			nr++;
		}
		assert_true(nr);
		offer(f, 3);
		driver_kick(&f->d, RX);
	}
	assert_int_equal(got, n);
	close(fd);
}

/* A buffer of any length is filled. */
static void test_lengths_of_buffers(void **state)
{
	struct fixture *f = *state;
	int fd;

	f->buffer_len = PACKET + 1;
	start(f);
	offer(f, 32);
	driver_kick(&f->d, RX);
	fd = connect_out(f, 1000);
	assert_int_equal(write(fd, "abc", 3), 3);
	fake_settle(&f->fake);
	for (int i = 0; i < 3; i++) {
		assert_next(f, RW, 1000, 5);
		assert_int_equal(f->h.len, 1);
		assert_int_equal(f->data[0], 'a' + i);
	}
	close(fd);
	/* But one without room for data is none. */
	f->buffer_len = PACKET;
	start(f);
	offer(f, 1);
	say(f, 1, 1, RW, 0);
	assert_true(driver_get(&f->d, VIRTIO_MMIO_STATUS) & NEEDS_RESET);
	assert_quiet(f);
	f->buffer_len = BUFFER;
	start(f);
	offer(f, 8);
	driver_kick(&f->d, RX);
	close(connect_out(f, 1));
}

static void test_half_close_by_program(void **state)
{
	struct fixture *f = *state;
	int fd = connect_out(f, 1000);

	assert_int_equal(write(fd, "last", 4), 4);
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	fake_settle(&f->fake);
	assert_next(f, RW, 1000, 5);
	assert_next(f, SHUTDOWN, 1000, 5);
	assert_int_equal(f->h.flags, VIRTIO_VSOCK_SHUTDOWN_SEND);
	say_data(f, 1000, 5, "still", 5);
	check_text(fd, "still");
	close(fd);
	fake_settle(&f->fake);
	assert_next(f, SHUTDOWN, 1000, 5);
	assert_int_equal(f->h.flags, 3);
	say(f, 1000, 5, SHUTDOWN, 3);
	assert_next(f, RST, 1000, 5);
	assert_quiet(f);
	assert_int_equal(nr_connections(f), 0);
}

static void test_half_close_by_guest(void **state)
{
	struct fixture *f = *state;
	int fd = connect_out(f, 1000);

	say_data(f, 1000, 5, "last", 4);
	say(f, 1000, 5, SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_SEND);
	check_text(fd, "last");
	assert_true(at_end(fd));
	assert_int_equal(write(fd, "still", 5), 5);
	fake_settle(&f->fake);
	assert_next(f, RW, 1000, 5);
	/* What it sends all the same is against the rules. */
	say_data(f, 1000, 5, "more", 4);
	assert_next(f, RST, 1000, 5);
	assert_quiet(f);
	assert_int_equal(nr_connections(f), 0);
	close(fd);
	/* The other half: programs hear that nobody reads. */
	fd = connect_out(f, 1001);
	say(f, 1001, 5, SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_RCV);
	assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), -1);
	assert_int_equal(errno, EPIPE);
	say_data(f, 1001, 5, "on", 2);
	check_text(fd, "on");
	say(f, 1001, 5, SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_SEND);
	assert_next(f, RST, 1001, 5);
	assert_true(at_end(fd));
	close(fd);
	assert_quiet(f);
}

/* So it would not come to the end of what a program sent: it is told that the program is gone. */
static void test_guest_does_not_read(void **state)
{
	struct fixture *f = *state;
	int fd = connect_out(f, 1000);

	say(f, 1000, 5, SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_RCV);
	assert_quiet(f);
	close(fd);
	fake_settle(&f->fake);
	assert_next(f, SHUTDOWN, 1000, 5);
	assert_int_equal(f->h.flags, 3);
	assert_quiet(f);
	say(f, 1000, 5, RST, 0);
	/* One that went before. */
	fd = connect_out(f, 1001);
	f->buf_alloc = 0;
	say(f, 1001, 5, CREDIT_UPDATE, 0);
	assert_int_equal(write(fd, "unread", 6), 6);
	close(fd);
	fake_settle(&f->fake);
	assert_next(f, CREDIT_REQUEST, 1001, 5);
	assert_quiet(f);
	say(f, 1001, 5, SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_RCV);
	assert_next(f, SHUTDOWN, 1001, 5);
	assert_int_equal(f->h.flags, 3);
	say(f, 1001, 5, RST, 0);
	assert_quiet(f);
	assert_int_equal(nr_connections(f), 0);
}

/* What the program has closed the guest may have forgotten: its port is free for another. */
static void test_port_used_again(void **state)
{
	struct fixture *f = *state;
	int fd = connect_out(f, 1000);

	close(fd);
	fake_settle(&f->fake);
	assert_next(f, SHUTDOWN, 1000, 5);
	assert_int_equal(f->h.flags, 3);
	fd = connect_out(f, 1000);
	assert_int_equal(nr_connections(f), 1);
	say_data(f, 1000, 5, "new", 3);
	check_text(fd, "new");
	assert_quiet(f);
	close(fd);
}

/* The guest closes while the program has not read all: it gets the rest, then the end. */
static u64 send_ahead(struct fixture *f)
{
	static u8 chunk[16384];
	u64 sent = 0;
	u32 before;

	say(f, 1000, 5, CREDIT_REQUEST, 0);
	assert_next(f, CREDIT_UPDATE, 1000, 5);
	before = f->h.fwd_cnt;
	/* Until some of it waits in the device. */
	do {
		say_data(f, 1000, 5, chunk, sizeof(chunk));
		sent += sizeof(chunk);
		say(f, 1000, 5, CREDIT_REQUEST, 0);
		while (next(f))
			;
	} while (f->h.fwd_cnt == before + sent);
	return sent;
}

static u64 read_all(struct fixture *f, int fd)
{
	static u8 chunk[16384];
	u64 got = 0;
	ssize_t n;

	while ((n = read(fd, chunk, sizeof(chunk))) != 0) {
		assert_true(n > 0);
		got += n;
		fake_settle(&f->fake);
	}
	return got;
}

static void test_close_with_data_ahead(void **state)
{
	struct fixture *f = *state;
	int fd = connect_out(f, 1000);
	u64 sent = send_ahead(f);

	say(f, 1000, 5, SHUTDOWN, 3);
	assert_quiet(f);
	assert_int_equal(nr_connections(f), 1);
	assert_int_equal(read_all(f, fd), sent);
	while (next(f) == CREDIT_UPDATE)
		;
	assert_int_equal(f->h.op, RST);
	assert_int_equal(nr_connections(f), 0);
	close(fd);
}

/* The guest does not wait until then: what it sent is the program's all the same, and the port is free. */
static void test_guest_leaves_data_ahead(void **state)
{
	struct fixture *f = *state;
	int fd = connect_out(f, 1000), other;
	static u8 chunk[16384];
	u64 sent = send_ahead(f);

	/* So much that it would be told of room, were it there still. */
	for (int i = 0; i < 2; i++, sent += sizeof(chunk))
		say_data(f, 1000, 5, chunk, sizeof(chunk));
	say(f, 1000, 5, SHUTDOWN, 3);
	say(f, 1000, 5, RST, 0);
	assert_quiet(f);
	assert_int_equal(nr_connections(f), 1);
	say(f, 1000, 5, CREDIT_REQUEST, 0);
	assert_next(f, RST, 1000, 5);
	offer(f, 32);
	driver_kick(&f->d, RX);
	other = connect_out(f, 1000);
	assert_int_equal(nr_connections(f), 2);
	assert_int_equal(read_all(f, fd), sent);
	assert_quiet(f);
	assert_int_equal(nr_connections(f), 1);
	close(fd);
	say_data(f, 1000, 5, "second", 6);
	check_text(other, "second");
	/* Over a pause; and a program that does not want the rest. */
	send_ahead(f);
	say(f, 1000, 5, SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_SEND);
	say(f, 1000, 5, RST, 0);
	device_quiesce(f->dev);
	device_resume(f->dev);
	fake_settle(&f->fake);
	assert_int_equal(write(other, "unheard", 7), 7);
	fake_settle(&f->fake);
	assert_quiet(f);
	assert_int_equal(nr_connections(f), 1);
	close(other);
	fake_settle(&f->fake);
	assert_int_equal(nr_connections(f), 0);
	offer(f, 16);
	driver_kick(&f->d, RX);
	/* One that breaks off has not said that this was all. */
	other = connect_out(f, 1000);
	send_ahead(f);
	say(f, 1000, 5, RST, 0);
	assert_int_equal(nr_connections(f), 0);
	assert_quiet(f);
	close(other);
}

/* The program goes, with data that waits for it and data that it sent. */
static void test_program_dies(void **state)
{
	struct fixture *f = *state;
	int fd = connect_out(f, 1000);

	say_data(f, 1000, 5, "not read", 8);
	assert_int_equal(write(fd, "bye", 3), 3);
	close(fd);
	fake_settle(&f->fake);
	/* The kernel says that what was sent was not read: a reset, not an end. */
	while (next(f) == RW)
		;
	assert_true(f->h.op == RST || f->h.op == SHUTDOWN);
	say_data(f, 1000, 5, "to nobody", 9);
	while (next(f))
		;
	say(f, 1000, 5, RST, 0);
	assert_int_equal(nr_connections(f), 0);
	/* It only stops reading. */
	fd = connect_out(f, 1001);
	assert_int_equal(shutdown(fd, SHUT_RD), 0);
	say_data(f, 1001, 5, "to nobody", 9);
	assert_next(f, SHUTDOWN, 1001, 5);
	assert_int_equal(f->h.flags, VIRTIO_VSOCK_SHUTDOWN_RCV);
	assert_int_equal(f->h.fwd_cnt, 9);
	assert_int_equal(write(fd, "on", 2), 2);
	fake_settle(&f->fake);
	assert_next(f, RW, 1001, 5);
	say_data(f, 1001, 5, "again", 5);
	assert_quiet(f);
	close(fd);
}

static void test_not_for_us(void **state)
{
	struct fixture *f = *state;
	struct virtio_vsock_hdr h = header(f, 1000, 5, REQUEST, 0, 0);
	int fd = listen_at(f, 5);

	h.dst_cid = 3;
	send_raw(f, &h, NULL, 0, 64);
	h.dst_cid = VMADDR_CID_HOST | 1ULL << 32;
	send_raw(f, &h, NULL, 0, 64);
	h.dst_cid = VMADDR_CID_HOST;
	h.src_cid = CID + 1;
	send_raw(f, &h, NULL, 0, 64);
	h.src_cid = CID | 1ULL << 40;
	send_raw(f, &h, NULL, 0, 64);
	assert_quiet(f);
	assert_int_equal(count(f, "vsock_dropped_total", NULL), 4);
	assert_int_equal(nr_connections(f), 0);
	leave(f, 5, fd);
}

static void test_unknown(void **state)
{
	struct fixture *f = *state;
	struct virtio_vsock_hdr h;
	int fd;

	/* Of no connection. */
	for (u16 op = 0; op < 12; op++) {
		if (op == REQUEST)
			continue;
		say(f, 9, 9, op, 0);
		if (op != RST)
			assert_next(f, RST, 9, 9);
		assert_quiet(f);
	}
	/* Of another type: the answer is of that type. */
	fd = connect_out(f, 1000);
	h = header(f, 1000, 5, REQUEST, 0, 0);
	h.type = VIRTIO_VSOCK_TYPE_SEQPACKET;
	send_raw(f, &h, NULL, 0, 64);
	assert_next(f, RST, 1000, 5);
	assert_int_equal(f->h.type, VIRTIO_VSOCK_TYPE_SEQPACKET);
	assert_int_equal(nr_connections(f), 1);
	close(fd);
	say(f, 1000, 5, RST, 0);
	/* Of one that there is, what cannot be said: its end. */
	while (next(f))
		;
	offer(f, 40);
	for (u16 op = 0; op < 12; op++) {
		if (op >= RST && op <= CREDIT_REQUEST)
			continue;
		fd = connect_out(f, 1000);
		say(f, 1000, 5, op, 0);
		assert_next(f, RST, 1000, 5);
		assert_true(at_end(fd));
		close(fd);
		assert_quiet(f);
	}
	/* And of one that it was asked for. */
	for (u16 op = 0; op < 12; op++) {
		u32 port;

		if (op == RESPONSE || op == RST || op == CREDIT_UPDATE)
			continue;
		fd = knock(f, "CONNECT 52\n");
		assert_int_equal(next(f), REQUEST);
		port = f->h.src_port;
		say(f, 52, port, op, 3);
		assert_next(f, RST, 52, port);
		assert_true(at_end(fd));
		close(fd);
	}
	assert_int_equal(nr_connections(f), 0);
}

/* It is as long as it says, and longer than any may be. */
static void test_longest_packet(void **state)
{
	struct fixture *f = *state;
	struct virtio_vsock_hdr h = header(f, 1000, 5, RW, 0, 0);
	struct piece p[] = { { OUT, PACKET, false }, { BUFFERS, 0, false } };

	for (u32 more = 0; more <= 1; more++) {
		int fd = connect_out(f, 1000);

		h.len = p[1].len = VSOCK_ROOM + 64 * more;
		assert_int_equal(mem_write_obj(f->fake.p.mem, GPA(OUT), &h), 0);
		ring_add(&f->d.ring[TX], p, 2);
		driver_kick(&f->d, TX);
		assert_int_equal(nr_connections(f), !more);
		if (more)
			assert_next(f, RST, 1000, 5);
		else
			say(f, 1000, 5, RST, 0);
		close(fd);
		while (next(f))
			;
	}
}

/* The guest's buffers are longer than any packet is. */
static void test_longer_buffers(void **state)
{
	static u8 sent[VSOCK_ROOM + 1000];
	struct fixture *f = *state;
	int fd;

	start(f);
	f->buffer_len = PACKET + 2 * VSOCK_ROOM;
	offer(f, 1);
	fd = connect_out(f, 1000);
	for (u32 i = 0; i < sizeof(sent); i++)
		sent[i] = pattern(i);
	assert_int_equal(write(fd, sent, sizeof(sent)), sizeof(sent));
	for (u32 got = 0; got < sizeof(sent); got += f->h.len) {
		offer(f, 1);
		driver_kick(&f->d, RX);
		fake_settle(&f->fake);
		assert_next(f, RW, 1000, 5);
		assert_int_equal(f->h.len, MIN(VSOCK_ROOM, sizeof(sent) - got));
		assert_memory_equal(f->data, sent + got, f->h.len);
	}
	close(fd);
}

/* It cannot have been asked yet: it has no buffer to hear of it. */
static void test_answer_before_the_question(void **state)
{
	struct fixture *f = *state;
	int fd;

	start(f);
	fd = knock(f, "CONNECT 52\n");
	assert_int_equal(nr_connections(f), 1);
	say(f, 52, PORT, RESPONSE, 0);
	assert_int_equal(nr_connections(f), 0);
	assert_true(at_end(fd));
	close(fd);
	offer(f, 4);
	driver_kick(&f->d, RX);
	assert_next(f, RST, 52, PORT);
	assert_quiet(f);
}

static void test_lengths(void **state)
{
	struct fixture *f = *state;
	struct virtio_vsock_hdr h = header(f, 1000, 5, RW, 0, 0);
	static const u32 bad[] = { 6, 1 << 16, (1 << 16) + 1, UINT32_MAX };
	struct piece p = { OUT, PACKET - 1, false };
	u16 used;
	int fd;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		fd = connect_out(f, 1000);
		h.len = bad[i];
		send_raw(f, &h, "12345", 5, 64);
		assert_next(f, RST, 1000, 5);
		assert_int_equal(nr_connections(f), 0);
		assert_true(at_end(fd));
		close(fd);
		send_raw(f, &h, "12345", 5, 64);
		assert_next(f, RST, 1000, 5);
		assert_quiet(f);
	}
	/* No RST is answered by another. */
	h.op = RST;
	fd = connect_out(f, 1000);
	send_raw(f, &h, "12345", 5, 64);
	assert_int_equal(nr_connections(f), 0);
	assert_true(at_end(fd));
	close(fd);
	send_raw(f, &h, "12345", 5, 64);
	assert_quiet(f);
	h.op = RW;
	/* Of another type: nor has the connection to do with it. */
	fd = connect_out(f, 1000);
	h.type = VIRTIO_VSOCK_TYPE_SEQPACKET;
	send_raw(f, &h, "12345", 5, 64);
	assert_next(f, RST, 1000, 5);
	assert_int_equal(f->h.type, VIRTIO_VSOCK_TYPE_SEQPACKET);
	assert_int_equal(nr_connections(f), 1);
	h.type = VIRTIO_VSOCK_TYPE_STREAM;
	say(f, 1000, 5, RST, 0);
	close(fd);
	offer(f, 8);
	driver_kick(&f->d, RX);
	/* Less than there is: that much. */
	fd = connect_out(f, 1000);
	h.len = 3;
	send_raw(f, &h, "12345", 5, 64);
	check_text(fd, "123");
	h.len = 0;
	send_raw(f, &h, NULL, 0, 64);
	assert_true(has_nothing(fd));
	/* In pieces, cut anywhere. */
	h.len = 20;
	for (u32 cut = 1; cut < 64; cut++) {
		send_raw(f, &h, "abcdefghijklmnopqrst", 20, cut);
		check_text(fd, "abcdefghijklmnopqrst");
	}
	/* No whole header; none at all. */
	for (p.len = 0; p.len < PACKET; p.len += PACKET - 1) {
		used = ring_used_idx(&f->d.ring[TX]);
		ring_add(&f->d.ring[TX], &p, 1);
		driver_kick(&f->d, TX);
		assert_int_equal(ring_used_idx(&f->d.ring[TX]), (u16)(used + 1));
	}
	assert_quiet(f);
	assert_int_equal(nr_connections(f), 1);
	close(fd);
}

static void test_too_many(void **state)
{
	struct fixture *f = *state;
	static int fd[VSOCK_CONNECTIONS + 1];
	struct rlimit l;
	int listener;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &l), 0);
	l.rlim_cur = MIN(l.rlim_max, 4096);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &l), 0);
	listener = listen_at(f, 5);
	for (int i = 0; i <= VSOCK_CONNECTIONS; i++) {
		say(f, i, 5, REQUEST, 0);
		offer(f, 1);
		driver_kick(&f->d, RX);
		if (i == VSOCK_CONNECTIONS) {
			assert_next(f, RST, i, 5);
			break;
		}
		assert_next(f, RESPONSE, i, 5);
		fd[i] = accept_one(listener);
	}
	assert_int_equal(nr_connections(f), VSOCK_CONNECTIONS);
	/* A program of the host waits, until one goes. */
	fd[VSOCK_CONNECTIONS] = knock(f, "CONNECT 52\n");
	assert_quiet(f);
	say(f, 17, 5, RST, 0);
	fake_settle(&f->fake);
	assert_int_equal(next(f), REQUEST);
	/* All of them have something to say, and all are heard. */
	for (int i = 0; i < VSOCK_CONNECTIONS; i++)
		if (i != 17)
			assert_int_equal(write(fd[i], "x", 1), 1);
	fake_settle(&f->fake);
	for (int i = 0; i < VSOCK_CONNECTIONS - 1; i++) {
		if (next(f) != RW) {
			offer(f, 16);
			driver_kick(&f->d, RX);
			assert_int_equal(next(f), RW);
		}
		assert_non_null(memchr("x", f->data[0], 1));
	}
	leave(f, 5, listener);
	for (int i = 0; i <= VSOCK_CONNECTIONS; i++)
		close(fd[i]);
}

/* Those that say nothing take no more than their part. */
static void test_silent_programs(void **state)
{
	struct fixture *f = *state;
	int fd[VSOCK_GREETERS + 1];

	for (int i = 0; i <= VSOCK_GREETERS; i++)
		fd[i] = knock(f, i < VSOCK_GREETERS ? "" : "CONNECT 52\n");
	assert_int_equal(nr_connections(f), VSOCK_GREETERS);
	assert_quiet(f);
	close(connect_out(f, 1000));
	fake_settle(&f->fake);
	while (next(f))
		;
	close(fd[0]);
	fake_settle(&f->fake);
	assert_int_equal(next(f), REQUEST);
	for (int i = 1; i <= VSOCK_GREETERS; i++)
		close(fd[i]);
}

static void pass(struct fixture *f, u64 seconds)
{
	fake_ns += seconds * SECOND;
	fake_settle(&f->fake);
}

/* Nor do they take it for ever. */
static void test_silent_for_a_minute(void **state)
{
	struct fixture *f = *state;
	int fd[VSOCK_GREETERS], last, late;

	fake_ns = 1000 * SECOND;
	for (int i = 0; i < VSOCK_GREETERS; i++)
		fd[i] = knock(f, i % 2 ? "" : "CONN");
	last = knock(f, "CONNECT 52\n");
	pass(f, 59);
	assert_quiet(f);
	assert_int_equal(nr_connections(f), VSOCK_GREETERS);
	/* A line that comes late is as good as any. */
	assert_int_equal(write(fd[0], "ECT 51\n", 7), 7);
	pass(f, 0);
	late = next(f);
	assert_int_equal(late, REQUEST);
	assert_int_equal(f->h.dst_port, 51);
	say(f, 51, f->h.src_port, RESPONSE, 0);
	pass(f, 1);
	for (int i = 1; i < VSOCK_GREETERS; i++)
		assert_true(at_end(fd[i]));
	assert_int_equal(next(f), REQUEST);
	assert_int_equal(f->h.dst_port, 52);
	assert_int_equal(nr_connections(f), 2);
	for (int i = 0; i < VSOCK_GREETERS; i++)
		close(fd[i]);
	close(last);
}

/* The guest does not say whether anybody listens there. */
static void test_no_answer(void **state)
{
	struct fixture *f = *state;
	u32 port, second;
	int fd, other, fds[2];

	fake_ns = 1000 * SECOND;
	fd = knock(f, "CONNECT 52\n");
	assert_int_equal(next(f), REQUEST);
	port = f->h.src_port;
	pass(f, 9);
	other = knock(f, "CONNECT 53\n");
	assert_int_equal(next(f), REQUEST);
	second = f->h.src_port;
	assert_quiet(f);
	pass(f, 1);
	assert_next(f, RST, 52, port);
	assert_true(at_end(fd));
	assert_true(has_nothing(other));
	assert_int_equal(nr_connections(f), 1);
	close(fd);
	/* One that it answered may be as silent as it wants. */
	say(f, 53, second, RESPONSE, 0);
	check_text(other, "OK 1073741825\n");
	pass(f, 100);
	assert_quiet(f);
	assert_int_equal(nr_connections(f), 1);
	/* Each has its own time. */
	for (int i = 0; i < 2; i++) {
		fds[i] = knock(f, "CONNECT 56\n");
		assert_int_equal(next(f), REQUEST);
		pass(f, 6 - i * 3);
		assert_quiet(f);
	}
	pass(f, 1);
	assert_int_equal(next(f), RST);
	assert_quiet(f);
	pass(f, 5);
	assert_quiet(f);
	pass(f, 1);
	assert_int_equal(next(f), RST);
	assert_int_equal(nr_connections(f), 1);
	close(fds[0]);
	close(fds[1]);
	/* No time passes in a pause. */
	fd = knock(f, "CONNECT 54\n");
	assert_int_equal(next(f), REQUEST);
	port = f->h.src_port;
	device_quiesce(f->dev);
	pass(f, 100);
	device_resume(f->dev);
	pass(f, 9);
	assert_quiet(f);
	assert_int_equal(nr_connections(f), 2);
	pass(f, 1);
	assert_next(f, RST, 54, port);
	close(fd);
	close(other);
	/* One that was not asked hears nothing of it. */
	start(f);
	fd = knock(f, "CONNECT 55\n");
	assert_int_equal(nr_connections(f), 1);
	pass(f, 10);
	assert_int_equal(nr_connections(f), 0);
	assert_true(at_end(fd));
	close(fd);
	offer(f, 8);
	driver_kick(&f->d, RX);
	assert_quiet(f);
}

/* Answers that there are no buffers for: the guest is not listened to until there are. */
static void test_flood(void **state)
{
	struct fixture *f = *state;
	struct virtio_vsock_hdr h;
	struct ring *tx = &f->d.ring[TX];
	int nr = 0;

	start(f);
	for (u32 i = 0; i < SIZE; i++) {
		h = header(f, i, 9, RW, 0, 0);
		assert_int_equal(mem_write_obj(f->fake.p.mem, GPA(OUT + i * 64), &h), 0);
	}
	for (int round = 0; round < 3; round++)
		for (u32 i = 0; i < SIZE; i++) {
			ring_add(tx, &(struct piece){ OUT + i * 64, PACKET, false }, 1);
			driver_kick(&f->d, TX);
			if (ring_used_idx(tx) != tx->next_avail)
				goto full;
		}
full:
	assert_int_equal(ring_used_idx(tx), VSOCK_RESETS);
	for (; ring_used_idx(tx) != tx->next_avail || nr < tx->next_avail; nr++) {
		offer(f, 1);
		driver_kick(&f->d, RX);
		assert_next(f, RST, (u32)nr % SIZE, 9);
	}
	assert_int_equal(nr, VSOCK_RESETS + 1);
	assert_quiet(f);
}

/* A reset of the device ends all connections, and the driver starts with none. */
static void test_device_reset(void **state)
{
	struct fixture *f = *state;
	int out = connect_out(f, 1000), in, waits = knock(f, "CONN");
	u32 port;

	in = connect_in(f, &port);
	driver_set(&f->d, VIRTIO_MMIO_STATUS, 0);
	assert_true(at_end(out));
	assert_true(at_end(in));
	assert_true(at_end(waits));
	close(out);
	close(in);
	close(waits);
	assert_int_equal(nr_connections(f), 0);
	/* Who comes meanwhile waits. */
	in = knock(f, "CONNECT 52\n");
	start(f);
	offer(f, 8);
	driver_kick(&f->d, RX);
	assert_int_equal(next(f), REQUEST);
	say(f, 52, f->h.src_port, RESPONSE, 0);
	close(in);
}

static void test_queue_disabled(void **state)
{
	struct fixture *f = *state;
	int fd = connect_out(f, 1000);

	driver_set(&f->d, VIRTIO_MMIO_QUEUE_SEL, TX);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_READY, 0);
	assert_true(at_end(fd));
	close(fd);
	driver_kick(&f->d, TX);
	fake_settle(&f->fake);
	start(f);
	offer(f, 8);
	driver_kick(&f->d, RX);
	close(connect_out(f, 1000));
}

/* Between quiesce and resume nothing moves; what came meanwhile is not lost. */
static void test_pause(void **state)
{
	struct fixture *f = *state;
	int fd = connect_out(f, 1000), in, silent = knock(f, "CONNECT ");

	device_quiesce(f->dev);
	assert_int_equal(write(fd, "meanwhile", 9), 9);
	assert_int_equal(write(silent, "53\n", 3), 3);
	in = knock(f, "CONNECT 52\n");
	fake_settle(&f->fake);
	assert_quiet(f);
	assert_int_equal(nr_connections(f), 2);
	device_resume(f->dev);
	fake_settle(&f->fake);
	for (int i = 0; i < 3; i++)
		assert_true(next(f) == RW || (f->h.op == REQUEST && (f->h.dst_port == 52 || f->h.dst_port == 53)));
	assert_quiet(f);
	assert_int_equal(nr_connections(f), 3);
	/* And one that went. */
	device_quiesce(f->dev);
	close(fd);
	device_resume(f->dev);
	fake_settle(&f->fake);
	assert_next(f, SHUTDOWN, 1000, 5);
	assert_int_equal(f->h.flags, 3);
	close(in);
	close(silent);
}

static void hears_nothing(struct watch *w, u32 events)
{
	(void)w;
	(void)events;
}

/* The host cannot listen to its programs any more: the guest is told of those that it knows. */
static void test_resume_fails(void **state)
{
	struct fixture *f = *state;
	struct vsock *s = container_of(f->v, struct vsock, v);
	int fd[3] = { connect_out(f, 1000), knock(f, "CONN") };
	struct watch taken[3] = { 0 };

	for (int i = 0; i < 2; i++) {
		device_quiesce(f->dev);
		/* Epoll takes a file once. */
		for (unsigned n = 0; n < s->nr; n++) {
			taken[n].ready = hears_nothing;
			assert_int_equal(watch_start(&taken[n], f->fake.p.io_loop, s->connection[n]->fd, EPOLLIN), 0);
		}
		device_resume(f->dev);
		for (unsigned n = 0; n < ARRAY_SIZE(taken); n++)
			watch_stop(&taken[n]);
		assert_int_equal(nr_connections(f), 0);
		if (!i) {
			vsock_pump(s);
			assert_next(f, RST, 1000, 5);
			assert_quiet(f);
			start(f);
			fd[2] = knock(f, "CONNECT 52\n");
			assert_int_equal(nr_connections(f), 1);
		}
	}
	offer(f, 8);
	driver_kick(&f->d, RX);
	assert_quiet(f);
	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++)
		close(fd[i]);
}

/* --- copies ----------------------------------------------------------------------------- */

static void offer_event(struct fixture *f, u32 len)
{
	ring_add(&f->d.ring[EVENT], &(struct piece){ EVENTS, len, true }, 1);
	driver_kick(&f->d, EVENT);
}

/* The device's state into a new one, as for another process; with another last port, or with NO_PORT. */
enum { SAME_PORT, NO_PORT };
static int copy_port(struct fixture *f, u32 port, struct err *err)
{
	struct state *save, *load;
	const void *blob;
	size_t len;
	void *tree;
	int rc, node;

	device_quiesce(f->dev);
	assert_int_equal(state_new_save(&save, err), 0);
	device_state(f->dev, save);
	assert_int_equal(state_finish_save(save, &blob, &len, err), 0);
	tree = malloc(len);
	assert_non_null(tree);
	memcpy(tree, blob, len);
	state_free(save);
	node = fdt_path_offset(tree, "/vsock0@0/virtio-vsock@0/ports");
	assert_true(node > 0);
	if (port == NO_PORT)
		assert_int_equal(fdt_del_node(tree, node), 0);
	else if (port != SAME_PORT)
		assert_int_equal(fdt_setprop_inplace_u32(tree, node, "last", port), 0);
	device_destroy(f->dev);
	plug(f);
	device_quiesce(f->dev);
	assert_int_equal(state_new_load(&load, tree, len, err), 0);
	device_state(f->dev, load);
	rc = state_finish_load(load, err);
	state_free(load);
	free(tree);
	if (rc)
		return rc;
	device_resume(f->dev);
	fake_settle(&f->fake);
	return 0;
}

static void copy(struct fixture *f)
{
	struct err err;

	if (copy_port(f, SAME_PORT, &err))
		fail_msg("%s", err.msg);
}

static void test_copy(void **state)
{
	struct fixture *f = *state;
	int fd = connect_out(f, 1000);
	u32 id = 99;

	offer_event(f, 8);
	assert_int_equal(ring_used_idx(&f->d.ring[EVENT]), 0);
	assert_int_equal(mem_write_obj(f->fake.p.mem, GPA(EVENTS), &id), 0);
	copy(f);
	assert_true(at_end(fd));
	close(fd);
	assert_int_equal(nr_connections(f), 0);
	assert_int_equal(ring_used_idx(&f->d.ring[EVENT]), 1);
	assert_int_equal(ring_used(&f->d.ring[EVENT], 0).len, 4);
	assert_int_equal(mem_read_obj(f->fake.p.mem, GPA(EVENTS), &id), 0);
	assert_int_equal(id, VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
	/* Once. */
	offer_event(f, 8);
	assert_int_equal(ring_used_idx(&f->d.ring[EVENT]), 1);
	say_data(f, 1000, 5, "gone", 4);
	assert_next(f, RST, 1000, 5);
	close(connect_out(f, 1000));
}

static void test_copy_before_the_driver_is_ready(void **state)
{
	struct fixture *f = *state;

	/* No buffer for it yet. */
	copy(f);
	assert_int_equal(ring_used_idx(&f->d.ring[EVENT]), 0);
	offer_event(f, 4);
	assert_int_equal(ring_used_idx(&f->d.ring[EVENT]), 1);
	/* One that is too short. */
	copy(f);
	offer_event(f, 3);
	assert_true(driver_get(&f->d, VIRTIO_MMIO_STATUS) & NEEDS_RESET);
	/* No driver. */
	driver_set(&f->d, VIRTIO_MMIO_STATUS, 0);
	copy(f);
	start(f);
	offer_event(f, 8);
	assert_int_equal(ring_used_idx(&f->d.ring[EVENT]), 0);
}

static u32 next_port(struct fixture *f)
{
	u32 port;

	close(connect_in(f, &port));
	fake_settle(&f->fake);
	while (next(f))
		;
	return port;
}

/* The guest may have its sockets still: what is asked for from the host comes from other ports than before. */
static void test_ports_of_a_copy(void **state)
{
	static const u32 bad[] = { 5, PORT - 2, PORT * 2U, UINT32_MAX };
	struct fixture *f = *state;
	struct err err;

	assert_int_equal(next_port(f), PORT);
	assert_int_equal(next_port(f), PORT + 1);
	copy(f);
	assert_int_equal(next_port(f), PORT + 2);
	/* The last is followed by the first. */
	assert_int_equal(copy_port(f, INT32_MAX, &err), 0);
	assert_int_equal(next_port(f), PORT);
	assert_int_equal(copy_port(f, PORT - 1, &err), 0);
	/* One that older versions saved: any. */
	assert_int_equal(copy_port(f, NO_PORT, &err), 0);
	assert_in_range(next_port(f), PORT, INT32_MAX);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(copy_port(f, bad[i], &err), -EINVAL);
		assert_says(err.msg, "/vsock0@0/virtio-vsock@0/ports: last is ");
	}
}

static int unix_socket(const char *path, int type)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

/* Of others nothing is removed, whatever cannot be known of them. */
static void test_sockets_of_others(void **state)
{
	struct fixture *f = *state;
	struct vsock_host *host;
	struct rlimit l, few;
	struct err err;
	char path[64];
	int fd, rc;

	snprintf(path, sizeof(path), "%s/o", f->dir);
	fd = unix_socket(path, SOCK_DGRAM);
	assert_int_equal(vsock_host_open(&host, path, &err), -EADDRINUSE);
	assert_says(err.msg, "another program listens there");
	close(fd);
	/* Left over. */
	assert_int_equal(vsock_host_open(&host, path, &err), 0);
	/* No descriptor is left to ask with. */
	fd = dup(0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &l), 0);
	few = (struct rlimit){ fd + 1, l.rlim_max };
	close(fd);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	rc = vsock_host_open(&(struct vsock_host *){ NULL }, path, &err);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &l), 0);
	assert_int_equal(rc, -EMFILE);
	assert_int_equal(access(path, F_OK), 0);
	/* The name is another's now. */
	assert_int_equal(unlink(path), 0);
	fd = unix_socket(path, SOCK_STREAM);
	vsock_host_close(host);
	assert_int_equal(unlink(path), 0);
	close(fd);
}

/* Where there is no room for every port's number behind it, somebody is told. */
static void test_long_path(void **state)
{
	struct fixture *f = *state;
	char path[120], name[64], text[300] = "";
	struct vsock_host *host;
	struct err err;
	int fd;

	snprintf(name, sizeof(name), "%s/log", f->dir);
	assert_int_equal(log_open_sink(name, &fd, &err), 0);
	log_set_file(fd);
	for (int len = 96; len <= 97; len++) {
		memset(path, 'x', len);
		path[len] = 0;
		memcpy(path, f->dir, strlen(f->dir));
		path[strlen(f->dir)] = '/';
		assert_int_equal(vsock_host_open(&host, path, &err), 0);
		fd = open(name, O_RDONLY | O_CLOEXEC);
		memset(text, 0, sizeof(text));
		assert_true(read(fd, text, sizeof(text) - 1) >= 0);
		close(fd);
		if (len == 96)
			assert_string_equal(text, "");
		assert_int_equal(vsock_host_connect(host, UINT32_MAX), len == 96 ? -ENOENT : -ENAMETOOLONG);
		vsock_host_close(host);
	}
	log_set_file(STDERR_FILENO);
	assert_says(text, path);
	assert_says(text, "at most 107 bytes");
	unlink(name);
}

static void test_host(void **state)
{
	struct fixture *f = *state;
	struct vsock_host *host;
	struct err err = { 0 };
	char path[120];
	struct stat st;

	assert_int_equal(vsock_host_open(&host, f->path, &err), -EADDRINUSE);
	assert_says(err.msg, "vsock: ");
	assert_says(err.msg, f->path);
	/* A name that no port fits behind. */
	memset(path, 'x', sizeof(path));
	snprintf(path, sizeof(path), "%s/", f->dir);
	memset(path + strlen(path), 'x', 106 - strlen(path));
	path[106] = 0;
	assert_int_equal(vsock_host_open(&host, path, &err), 0);
	assert_int_equal(vsock_host_connect(host, 1), -ENAMETOOLONG);
	vsock_host_close(host);
	assert_int_equal(stat(path, &st), -1);
	path[106] = 'x';
	path[108] = 0;
	path[107] = 'x';
	assert_true(vsock_host_open(&host, path, &err) < 0);
	vsock_host_close(NULL);
}

int main(void)
{
#define T(name)	cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_identity), T(test_guest_connects), T(test_nobody_there), T(test_host_connects),
		T(test_data_behind_the_line), T(test_line_in_pieces), T(test_garbage),
		T(test_program_does_not_read), T(test_program_reads_little), T(test_beyond_credit), T(test_guest_has_no_room),
		T(test_guest_has_no_buffers), T(test_lengths_of_buffers), T(test_half_close_by_program),
		T(test_half_close_by_guest), T(test_guest_does_not_read), T(test_port_used_again),
		T(test_close_with_data_ahead), T(test_guest_leaves_data_ahead), T(test_program_dies),
		T(test_not_for_us), T(test_unknown), T(test_lengths), T(test_longest_packet), T(test_longer_buffers),
		T(test_too_many), T(test_answer_before_the_question), T(test_silent_programs), T(test_silent_for_a_minute),
		T(test_no_answer), T(test_flood),
		T(test_device_reset), T(test_queue_disabled),
		T(test_pause), T(test_resume_fails), T(test_copy), T(test_copy_before_the_driver_is_ready),
		T(test_ports_of_a_copy), T(test_sockets_of_others), T(test_long_path), T(test_host),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
