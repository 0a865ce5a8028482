/*
 * vsock_connection.c: connections of a vsock device, between programs' sockets on the host and the guest
 * (virtio 1.2, 5.10.6; Firecracker's docs/vsock.md).  The guest may send no more ahead than VSOCK_ROOM bytes
 * of each; what it has no room for stays in the socket.
 */
#include <ctype.h>
#include <endian.h>
#include <errno.h>
#include <linux/vm_sockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "devices/virtio/vsock_own.h"

enum { SAY_REQUEST = 1, SAY_RESPONSE = 2, SAY_SHUTDOWN = 4, SAY_CREDIT_REQUEST = 8, SAY_CREDIT = 16 };
enum { RECEIVE = VIRTIO_VSOCK_SHUTDOWN_RCV, SEND = VIRTIO_VSOCK_SHUTDOWN_SEND, BOTH = RECEIVE | SEND };
enum { ACCEPT_BUDGET = 16 };

#define PATIENCE_NS	1000000000ULL
#define GREETING_NS	60000000000ULL		/* a line may be typed by hand */
#define ANSWER_NS	10000000000ULL

static void listen_on(struct vsock *s);

/* --- who has something for the guest ---------------------------------------------------- */

static u32 credit(const struct vsock_connection *c)
{
	u32 ahead = c->sent - c->peer_forwarded;

	return ahead < c->peer_alloc ? c->peer_alloc - ahead : 0;
}

static bool may_read(const struct vsock_connection *c)
{
	return c->phase == OPEN && c->readable && !(c->guest_down & RECEIVE) && !(c->down & SEND);
}

static void wake(struct vsock_connection *c)
{
	struct vsock *s = c->s;

	/* The program has gone, and nothing of its is left that the guest would read. */
	if (c->closed && c->down != BOTH && (c->down & SEND || c->guest_down & RECEIVE)) {
		c->down = BOTH;
		c->say |= SAY_SHUTDOWN;
	}
	if (may_read(c) && !credit(c) && !c->asked_credit) {
		c->asked_credit = true;
		c->say |= SAY_CREDIT_REQUEST;
	}
	if (c->queued || c->phase == GREETING || c->phase == LEFT || !(c->say || (may_read(c) && credit(c))))
		return;
	c->queued = true;
	c->next = NULL;
	*s->last = c;
	s->last = &c->next;
}

static void leave_line(struct vsock_connection *c)
{
	struct vsock_connection **p = &c->s->first;

	if (!c->queued)
		return;
	while (*p != c)
		p = &(*p)->next;
	*p = c->next;
	if (c->s->last == &c->next)
		c->s->last = p;
	c->queued = false;
}

static void refuse(struct vsock *s, u32 guest_port, u32 host_port, u16 type)
{
	unsigned at = (s->first_reset + s->nr_resets) % ARRAY_SIZE(s->reset);

	/* Each is for a connection that was, or for one of the packets until stalled. */
	if (s->nr_resets == ARRAY_SIZE(s->reset))
		return;
	s->nr_resets++;
	s->reset[at] = (struct vsock_reset){ guest_port, host_port, type };
}

/* --- their beginning and end ------------------------------------------------------------ */

static void drop(struct vsock_connection *c)
{
	leave_line(c);
	watch_stop(&c->watch);
	close(c->fd);
	free(c->ahead);
	free(c);
}

static void end(struct vsock_connection *c)
{
	struct vsock *s = c->s;
	unsigned i = 0;

	while (s->connection[i] != c)
		i++;
	s->connection[i] = s->connection[--s->nr];
	if (c->phase == GREETING)
		s->nr_greeters--;
	else
		counter_add(&s->counters.ended, 1);
	store_once(&s->counters.connections, s->nr);
	drop(c);
	listen_on(s);
}

static void reset(struct vsock_connection *c)
{
	refuse(c->s, c->guest_port, c->host_port, VIRTIO_VSOCK_TYPE_STREAM);
	end(c);
}

/* The guest is told, if it knows of it. */
static void give_up(struct vsock_connection *c)
{
	if (c->phase == GREETING || c->phase == LEFT || c->say & SAY_REQUEST)
		end(c);
	else
		reset(c);
}

static void limit_time(struct vsock_connection *c)
{
	struct vsock *s = c->s;
	u64 ns = c->phase == GREETING ? GREETING_NS : ANSWER_NS;

	c->until_ns = now_ns() + ns;
	if (!s->deadline.loop || s->deadline.at_ns > c->until_ns)
		timer_start(&s->deadline, s->v.kick[VSOCK_RX].io.loop, ns);
}

static void time_is_up(struct timer *t)
{
	struct vsock *s = container_of(t, struct vsock, deadline);
	u64 now = now_ns(), next = 0;

	for (unsigned i = s->nr; i-- > 0; ) {
		struct vsock_connection *c = s->connection[i];

		if (c->phase != GREETING && c->phase != ASKED)
			continue;
		if (c->until_ns <= now)
			give_up(c);
		else
			next = next ? MIN(next, c->until_ns) : c->until_ns;
	}
	if (next)
		timer_start(t, s->v.kick[VSOCK_RX].io.loop, next - now);
	vsock_pump(s);
}

static void ready(struct watch *w, u32 events);

static int listen_to(struct vsock_connection *c)
{
	return watch_start(&c->watch, c->s->v.kick[VSOCK_RX].io.loop, c->fd,
			   EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
}

/* fd is taken over, also when there is none: NULL. */
static struct vsock_connection *begin(struct vsock *s, int fd)
{
	struct vsock_connection *c = s->nr < VSOCK_CONNECTIONS ? calloc(1, sizeof(*c)) : NULL;

	if (c) {
		c->s = s;
		c->fd = fd;
		c->watch.ready = ready;
	}
	if (!c || listen_to(c)) {
		free(c);
		close(fd);
		return NULL;
	}
	s->connection[s->nr++] = c;
	store_once(&s->counters.connections, s->nr);
	return c;
}

static struct vsock_connection *find(struct vsock *s, u32 guest_port, u32 host_port)
{
	for (unsigned i = 0; i < s->nr; i++) {
		struct vsock_connection *c = s->connection[i];

		if (c->guest_port == guest_port && c->host_port == host_port &&
		    (c->phase == ASKED || c->phase == OPEN))
			return c;
	}
	return NULL;
}

/* --- to the program --------------------------------------------------------------------- */

/* The guest waits for room where it believes to have little. */
static void tell_room(struct vsock_connection *c)
{
	if (c->forwarded != c->told && VSOCK_ROOM - (c->taken - c->told) < VSOCK_ROOM / 2)
		c->say |= SAY_CREDIT;
}

static void go_deaf(struct vsock_connection *c)
{
	c->deaf = true;
	c->ahead_len = 0;
	c->forwarded = c->taken;
	c->down |= RECEIVE;
	c->say |= SAY_SHUTDOWN;
	tell_room(c);
}

/* How many bytes the socket took. */
static size_t push(struct vsock_connection *c, const u8 *data, size_t len, u64 *errors)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = send(c->fd, data + done, len - done, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN) {
			counter_add(errors, errno != EPIPE);
			go_deaf(c);
		}
		if (n < 0)
			break;
		done += n;
	}
	return done;
}

/* The program has all that the guest sent: what else the guest said.  False: that was the end. */
static bool settle(struct vsock_connection *c)
{
	if (c->ahead_len || !(c->guest_down & SEND))
		return true;
	if (c->phase == LEFT) {
		end(c);
		return false;
	}
	if (c->guest_down == BOTH) {
		reset(c);
		return false;
	}
	shutdown(c->fd, SHUT_WR);
	return true;
}

static bool flush(struct vsock_connection *c)
{
	while (c->ahead_len) {
		u32 len = MIN(c->ahead_len, VSOCK_ROOM - c->ahead_at);
		size_t done = push(c, c->ahead + c->ahead_at, len, &c->s->counters.flush_errors);

		if (c->deaf)
			break;
		c->ahead_at = (c->ahead_at + done) % VSOCK_ROOM;
		c->ahead_len -= done;
		c->forwarded += done;
		if (done < len)
			break;
	}
	tell_room(c);
	return settle(c);
}

/* False: out of memory. */
static bool keep(struct vsock_connection *c, const u8 *data, size_t len)
{
	u32 at = (c->ahead_at + c->ahead_len) % VSOCK_ROOM, first = MIN(len, VSOCK_ROOM - at);

	if (!c->ahead && !(c->ahead = malloc(VSOCK_ROOM)))
		return false;
	memcpy(c->ahead + at, data, first);
	memcpy(c->ahead, data + first, len - first);
	c->ahead_len += len;
	return true;
}

/* False: it is no more. */
static bool take_data(struct vsock_connection *c, const u8 *data, size_t len)
{
	size_t done = 0;

	if (c->guest_down & SEND || len > VSOCK_ROOM - c->ahead_len) {
		device_guest_error(&c->s->v.dev, "%zu bytes where it may send no more", len);
		reset(c);
		return false;
	}
	counter_add(&c->s->counters.tx_bytes, len);
	c->taken += len;
	if (!c->deaf && !c->ahead_len)
		done = push(c, data, len, &c->s->counters.tx_errors);
	if (c->deaf)
		done = len;
	if (done < len && !keep(c, data + done, len - done)) {
		reset(c);
		return false;
	}
	c->forwarded = c->taken - c->ahead_len;
	tell_room(c);
	return true;
}

/* --- who is asked for by the host ------------------------------------------------------- */

static u32 new_port(struct vsock *s, u32 guest_port)
{
	do
		s->next_port = s->next_port < INT32_MAX ? s->next_port + 1 : VSOCK_FIRST_PORT;
	while (find(s, guest_port, s->next_port));
	return s->next_port;
}

/* "CONNECT 1024\n" */
static bool read_port(const char *text, u32 *port)
{
	const char *s = text + strcspn(text, " \t");
	unsigned long n;
	char *rest;

	if (s - text != 7 || strncasecmp(text, "connect", 7))
		return false;
	s += strspn(s, " \t");
	n = strtoul(s, &rest, 10);
	*port = n;
	return isdigit((unsigned char)*s) && n <= UINT32_MAX && !rest[strspn(rest, " \t\r\n")];
}

/* What comes behind the line is the guest's: not a byte more is read.  1: it is whole; 0: not yet;
 * -1: it never will be. */
static int read_line(struct vsock_connection *c)
{
	while (c->greeting_len < VSOCK_GREETING) {
		char *at = c->greeting + c->greeting_len, *newline;
		ssize_t n = recv(c->fd, at, VSOCK_GREETING - c->greeting_len, MSG_PEEK | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n && errno == EAGAIN ? 0 : -1;
		newline = memchr(at, '\n', n);
		n = recv(c->fd, at, newline ? newline + 1 - at : n, MSG_DONTWAIT);
		if (n <= 0)
			return -1;
		c->greeting_len += n;
		c->greeting[c->greeting_len] = 0;
		if (newline)
			return memchr(c->greeting, 0, c->greeting_len) ? -1 : 1;
	}
	return -1;
}

/* False: it is no more. */
static bool greet(struct vsock_connection *c)
{
	struct vsock *s = c->s;
	int whole = read_line(c);
	u32 port;

	if (!whole)
		return true;
	if (whole < 0 || !read_port(c->greeting, &port)) {
		end(c);
		return false;
	}
	c->guest_port = port;
	c->host_port = new_port(s, port);
	c->phase = ASKED;
	c->say = SAY_REQUEST;
	s->nr_greeters--;
	counter_add(&s->counters.opened, 1);
	limit_time(c);
	listen_on(s);
	return true;
}

/* False: it is no more. */
static bool accepted(struct vsock_connection *c)
{
	char text[24];
	int len = snprintf(text, sizeof(text), "OK %u\n", c->host_port);

	if (c->phase != ASKED || c->say & SAY_REQUEST) {
		reset(c);
		return false;
	}
	c->phase = OPEN;
	push(c, (u8 *)text, len, &c->s->counters.tx_errors);
	return true;
}

static void ask_again(struct timer *t)
{
	listen_on(container_of(t, struct vsock, patience));
}

static void knocked(struct watch *w, u32 events)
{
	struct vsock *s = container_of(w, struct vsock, listener);

	(void)events;
	for (int i = 0; i < ACCEPT_BUDGET && s->nr_greeters < VSOCK_GREETERS && s->nr < VSOCK_CONNECTIONS; i++) {
		int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		struct vsock_connection *c;

		if (fd < 0 && errno != EINTR && errno != ECONNABORTED) {
			/* No more of anything: whoever knocks waits, and so do we. */
			if (errno != EAGAIN) {
				watch_stop(w);
				timer_start(&s->patience, s->v.kick[VSOCK_RX].io.loop, PATIENCE_NS);
			}
			return;
		}
		c = fd < 0 ? NULL : begin(s, fd);
		if (c) {
			s->nr_greeters++;
			limit_time(c);
		}
	}
	if (s->nr_greeters == VSOCK_GREETERS || s->nr == VSOCK_CONNECTIONS)
		watch_stop(w);
}

static void listen_on(struct vsock *s)
{
	struct loop *loop = s->v.kick[VSOCK_RX].io.loop;

	if (!s->running || s->listener.loop || s->nr_greeters == VSOCK_GREETERS || s->nr == VSOCK_CONNECTIONS)
		return;
	timer_stop(&s->patience);
	if (watch_start(&s->listener, loop, vsock_host_listener(s->host), EPOLLIN))
		timer_start(&s->patience, loop, PATIENCE_NS);
}

/* --- what a socket says ----------------------------------------------------------------- */

static void ready(struct watch *w, u32 events)
{
	struct vsock_connection *c = container_of(w, struct vsock_connection, watch);
	struct vsock *s = c->s;

	/* By the edge: each of these is said once. */
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		c->readable = true;
	if (events & EPOLLHUP)
		c->closed = true;
	if (c->phase == GREETING && !greet(c))
		return;
	if (c->phase == ASKED && c->closed) {
		give_up(c);
	} else if (!c->ahead_len || flush(c)) {
		wake(c);
	}
	vsock_pump(s);
}

/* --- what the guest says ---------------------------------------------------------------- */

static void connect_to(struct vsock *s, const struct virtio_vsock_hdr *h)
{
	u32 guest_port = le32toh(h->src_port), host_port = le32toh(h->dst_port);
	int fd = s->nr < VSOCK_CONNECTIONS ? vsock_host_connect(s->host, host_port) : -EMFILE;
	struct vsock_connection *c = fd < 0 ? NULL : begin(s, fd);

	if (!c) {
		counter_add(&s->counters.refused, 1);
		refuse(s, guest_port, host_port, VIRTIO_VSOCK_TYPE_STREAM);
		return;
	}
	counter_add(&s->counters.opened, 1);
	c->phase = OPEN;
	c->guest_port = guest_port;
	c->host_port = host_port;
	c->peer_alloc = le32toh(h->buf_alloc);
	c->peer_forwarded = le32toh(h->fwd_cnt);
	c->say = SAY_RESPONSE;
	wake(c);
}

/* False: it is no more. */
static bool shut(struct vsock_connection *c, u32 flags)
{
	c->guest_down |= flags & BOTH;
	if (flags & RECEIVE)
		shutdown(c->fd, SHUT_RD);
	return settle(c);
}

/* Whose end of it is closed waits some seconds for an answer: the program has the rest to read all the same. */
static void leave(struct vsock_connection *c)
{
	if (!(c->guest_down & SEND) || !c->ahead_len) {
		end(c);
		return;
	}
	leave_line(c);
	c->phase = LEFT;
}

/* False: it is no more. */
static bool take(struct vsock_connection *c, const struct virtio_vsock_hdr *h, size_t len)
{
	u16 op = le16toh(h->op);

	if (op == VIRTIO_VSOCK_OP_RST) {
		leave(c);
		return false;
	}
	if (op == VIRTIO_VSOCK_OP_RESPONSE)
		return accepted(c);
	if (c->phase == OPEN && op == VIRTIO_VSOCK_OP_RW)
		return take_data(c, c->s->data, len);
	if (c->phase == OPEN && op == VIRTIO_VSOCK_OP_SHUTDOWN)
		return shut(c, le32toh(h->flags));
	if (c->phase == OPEN && op == VIRTIO_VSOCK_OP_CREDIT_REQUEST)
		c->say |= SAY_CREDIT;
	else if (c->phase != OPEN || op != VIRTIO_VSOCK_OP_CREDIT_UPDATE) {
		reset(c);
		return false;
	}
	return true;
}

static struct vsock_connection *concerned(struct vsock *s, const struct virtio_vsock_hdr *h)
{
	return le16toh(h->type) == VIRTIO_VSOCK_TYPE_STREAM ?
	       find(s, le32toh(h->src_port), le32toh(h->dst_port)) : NULL;
}

/* An answer that there is nothing of the kind; an RST wants none. */
static void refuse_packet(struct vsock *s, const struct virtio_vsock_hdr *h)
{
	if (le16toh(h->op) != VIRTIO_VSOCK_OP_RST)
		refuse(s, le32toh(h->src_port), le32toh(h->dst_port), le16toh(h->type));
}

void vsock_take(struct vsock *s, const struct virtio_vsock_hdr *h, size_t len)
{
	u16 type = le16toh(h->type), op = le16toh(h->op);
	struct vsock_connection *c = concerned(s, h);

	/* The program has closed it, and the guest knows nothing of it any more. */
	if (c && op == VIRTIO_VSOCK_OP_REQUEST && c->phase == OPEN && c->down == BOTH) {
		end(c);
		c = NULL;
	}
	if (!c && type == VIRTIO_VSOCK_TYPE_STREAM && op == VIRTIO_VSOCK_OP_REQUEST) {
		connect_to(s, h);
	} else if (!c) {
		refuse_packet(s, h);
	} else {
		c->peer_alloc = le32toh(h->buf_alloc);
		c->peer_forwarded = le32toh(h->fwd_cnt);
		c->asked_credit &= !credit(c);
		if (take(c, h, len))
			wake(c);
	}
}

void vsock_take_malformed(struct vsock *s, const struct virtio_vsock_hdr *h)
{
	struct vsock_connection *c = concerned(s, h);

	counter_add(&s->counters.dropped, 1);
	device_guest_error(&s->v.dev, "a packet of %u bytes that are not there", le32toh(h->len));
	if (c)
		end(c);
	refuse_packet(s, h);
}

/* --- to the guest ----------------------------------------------------------------------- */

static void fill(struct vsock_connection *c, struct virtio_vsock_hdr *h, u16 op, size_t len)
{
	*h = (struct virtio_vsock_hdr){
		.src_cid = htole64(VMADDR_CID_HOST), .dst_cid = htole64(c->s->cid),
		.src_port = htole32(c->host_port), .dst_port = htole32(c->guest_port),
		.len = htole32(len), .type = htole16(VIRTIO_VSOCK_TYPE_STREAM), .op = htole16(op),
		.flags = htole32(op == VIRTIO_VSOCK_OP_SHUTDOWN ? c->down : 0),
		.buf_alloc = htole32(VSOCK_ROOM), .fwd_cnt = htole32(c->forwarded),
	};
	c->told = c->forwarded;
	c->say &= ~SAY_CREDIT;
}

/* What there is to say but for data. */
static bool speak(struct vsock_connection *c, struct virtio_vsock_hdr *h, u8 among)
{
	static const struct { u8 say; u16 op; } words[] = {
		{ SAY_REQUEST, VIRTIO_VSOCK_OP_REQUEST }, { SAY_RESPONSE, VIRTIO_VSOCK_OP_RESPONSE },
		{ SAY_SHUTDOWN, VIRTIO_VSOCK_OP_SHUTDOWN },
		{ SAY_CREDIT_REQUEST, VIRTIO_VSOCK_OP_CREDIT_REQUEST },
		{ SAY_CREDIT, VIRTIO_VSOCK_OP_CREDIT_UPDATE },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
		if (c->say & among & words[i].say) {
			c->say &= ~words[i].say;
			fill(c, h, words[i].op, 0);
			return true;
		}
	return false;
}

/* -EAGAIN: there is none now; 0: nor will there ever be; -EPIPE: it is no more. */
static ssize_t read_data(struct vsock_connection *c, size_t room)
{
	ssize_t n;

	do
		n = recv(c->fd, c->s->data, MIN(room, credit(c)), MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno != EAGAIN) {
		counter_add(&c->s->counters.rx_errors, 1);
		reset(c);
		return -EPIPE;
	}
	c->readable = n > 0;
	return n < 0 ? -EAGAIN : n;
}

/* -EAGAIN: nothing; -EPIPE: nor is there the connection any more. */
static ssize_t packet_of(struct vsock_connection *c, struct virtio_vsock_hdr *h, size_t room)
{
	ssize_t n = -EAGAIN;

	if (speak(c, h, (u8)~SAY_CREDIT))
		return 0;
	if (may_read(c) && credit(c))
		n = read_data(c, room);
	if (n == -EPIPE)
		return n;
	if (n > 0) {
		fill(c, h, VIRTIO_VSOCK_OP_RW, n);
		c->sent += n;
		counter_add(&c->s->counters.rx_bytes, n);
		return n;
	}
	if (!n) {
		c->down |= c->closed ? BOTH : SEND;
		c->say |= SAY_SHUTDOWN;
	}
	return speak(c, h, (u8)~0) ? 0 : -EAGAIN;
}

static void take_reset(struct vsock *s, struct virtio_vsock_hdr *h)
{
	const struct vsock_reset *r = &s->reset[s->first_reset];

	*h = (struct virtio_vsock_hdr){
		.src_cid = htole64(VMADDR_CID_HOST), .dst_cid = htole64(s->cid),
		.src_port = htole32(r->host_port), .dst_port = htole32(r->guest_port),
		.type = htole16(r->type), .op = htole16(VIRTIO_VSOCK_OP_RST),
	};
	s->first_reset = (s->first_reset + 1) % ARRAY_SIZE(s->reset);
	s->nr_resets--;
	counter_add(&s->counters.resets, 1);
}

bool vsock_has_packet(const struct vsock *s)
{
	return s->nr_resets || s->first;
}

ssize_t vsock_next_packet(struct vsock *s, struct virtio_vsock_hdr *h, size_t room)
{
	while (!s->nr_resets && s->first) {
		struct vsock_connection *c = s->first;
		ssize_t n;

		leave_line(c);
		n = packet_of(c, h, room);
		if (n != -EPIPE)
			wake(c);
		if (n >= 0)
			return n;
	}
	if (!s->nr_resets)
		return -1;
	take_reset(s, h);
	return 0;
}

/* --- all of them ------------------------------------------------------------------------ */

void vsock_connections_init(struct vsock *s)
{
	s->last = &s->first;
	s->next_port = VSOCK_FIRST_PORT - 1;
	s->listener.ready = knocked;
	s->patience.fire = ask_again;
	s->deadline.fire = time_is_up;
}

void vsock_connections_start(struct vsock *s)
{
	s->running = true;
	for (unsigned i = s->nr; i-- > 0; ) {
		struct vsock_connection *c = s->connection[i];

		if (listen_to(c))
			give_up(c);
		else if (c->phase == GREETING || c->phase == ASKED)
			limit_time(c);
	}
	listen_on(s);
}

void vsock_connections_stop(struct vsock *s)
{
	s->running = false;
	watch_stop(&s->listener);
	timer_stop(&s->patience);
	timer_stop(&s->deadline);
	for (unsigned i = 0; i < s->nr; i++)
		watch_stop(&s->connection[i]->watch);
}

void vsock_connections_forget(struct vsock *s)
{
	while (s->nr)
		drop(s->connection[--s->nr]);
	s->nr_greeters = s->nr_resets = 0;
	s->stalled = false;
	store_once(&s->counters.connections, 0);
}
