/* responder_test.c: a guest's conversations with a responder, frame by frame; time is a number here. */
#include <arpa/inet.h>
#include "devices/net/responder.h"
#include "tests/lib/test.h"
#include "tests/lib/wire.h"

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16, PORT = 80, ME = 40000 };
#define SECOND	1000000000ULL
#define ADDRESS	"169.254.169.254"

static const u8 my_mac[6] = { 2, 0, 0, 1, 2, 3 };
static struct responder *r;
static struct err err;
static u64 now;

/* --- what it answers ------------------------------------------------------------------------ */

static char question[RESPONDER_REQUEST_MAX + 1];
static bool was_too_long;
static const char *say;			/* NULL: it has no answer */
static unsigned asked;

static char *answer(void *arg, const char *request, size_t len, bool too_long, size_t *answer_len)
{
	(void)arg;
	asked++;
	was_too_long = too_long;
	memcpy(question, request, len);
	question[len] = 0;
	*answer_len = say ? strlen(say) : 0;
	return say ? strdup(say) : NULL;
}

static int setup(void **state)
{
	struct responder_options o = { .port = PORT, .answer = answer };

	(void)state;
	now = 5 * SECOND;
	say = "hello";
	asked = 0;
	inet_pton(AF_INET, ADDRESS, &o.address);
	return responder_new(&r, &o, &err);
}

static int teardown(void **state)
{
	(void)state;
	responder_free(r);
	return 0;
}

/* --- frames to it ------------------------------------------------------------------------------ */

static u16 get16(const u8 *p) { return p[0] << 8 | p[1]; }
static u32 get32(const u8 *p) { return (u32)get16(p) << 16 | get16(p + 2); }
static void put32(u8 *p, u32 v) { v = htonl(v); memcpy(p, &v, 4); }
static void put16(u8 *p, u16 v) { v = htons(v); memcpy(p, &v, 2); }

struct me {
	u16 port, to_port, window, mss;
	u32 seq, ack;			/* its next, ours */
};

static u8 frame[NET_FRAME_MAX];
static size_t frame_len;

static void make(const struct me *g, u8 flags, const void *data, size_t len)
{
	static u8 tcp[65535];
	struct wire_ip h = { .from = "169.254.1.2", .to = ADDRESS, .protocol = IPPROTO_TCP };
	size_t head = g->mss && flags & SYN ? 28 : 20;
	u16 start;

	memset(tcp, 0, head);
	put16(tcp, g->port ?: ME);
	put16(tcp + 2, g->to_port ?: PORT);
	put32(tcp + 4, g->seq);
	put32(tcp + 8, g->ack);
	tcp[12] = head / 4 << 4;
	tcp[13] = flags;
	put16(tcp + 14, g->window);
	if (head > 20) {
		memcpy(tcp + 20, "\1\1\2\4", 4);
		put16(tcp + 24, g->mss);
	}
	if (len)
		memcpy(tcp + head, data, len);
	memcpy(h.mac_from, my_mac, 6);
	memset(h.mac_to, 6, 6);
	frame_len = wire_ip(frame, &h, tcp, head + len, 16, &start);
}

static void give(bool summed)
{
	assert_true(responder_takes(r, frame, frame_len));
	responder_input(r, frame, frame_len, summed, now);
}

static void send_tcp(struct me *g, u8 flags, const void *data, size_t len)
{
	make(g, flags, data, len);
	give(true);
	g->seq += len + !!(flags & SYN) + !!(flags & FIN);
}

static void say_text(struct me *g, const char *text)
{
	send_tcp(g, ACK | PSH, text, strlen(text));
}

/* --- frames from it ------------------------------------------------------------------------------ */

static u8 heard[RESPONDER_FRAME_MAX];
static size_t heard_len;

static void silence(void)
{
	assert_false(responder_has_output(r));
	assert_int_equal(responder_output(r, heard, now), 0);
}

static const u8 *next_frame(void)
{
	assert_true(responder_has_output(r));
	heard_len = responder_output(r, heard, now);
	assert_true(heard_len >= 42);
	assert_memory_equal(heard, my_mac, 6);
	assert_memory_equal(heard + 6, "\6\1\x23\x45\x67\1", 6);
	return heard;
}

struct seg {
	u8 flags;
	u16 window;
	u32 seq, ack;
	size_t len;
	const u8 *data;
};

/* A segment with these flags, whose sums are right. */
static struct seg hear(u8 flags)
{
	const u8 *f = next_frame(), *tcp = f + 34;
	u32 sum = 0, address;
	struct seg s;

	assert_int_equal(get16(f + 12), 0x0800);
	assert_int_equal(get16(f + 16), heard_len - 14);
	for (int i = 0; i < 20; i += 2)
		sum += get16(f + 14 + i);
	assert_int_equal((sum & 0xffff) + (sum >> 16), 0xffff);
	assert_true(wire_sum_is_right(f, heard_len));
	inet_pton(AF_INET, ADDRESS, &address);
	assert_memory_equal(f + 26, &address, 4);
	s = (struct seg){ .flags = tcp[13], .window = get16(tcp + 14), .seq = get32(tcp + 4),
			  .ack = get32(tcp + 8), .data = tcp + (tcp[12] >> 4) * 4 };
	s.len = f + heard_len - s.data;
	assert_int_equal(s.flags, flags);
	return s;
}

/* Connected. */
static struct me open_as(u16 port, u16 window, u16 mss)
{
	struct me g = { .port = port, .window = window, .mss = mss, .seq = 1000U * port };
	struct seg s;

	send_tcp(&g, SYN, NULL, 0);
	s = hear(SYN | ACK);
	assert_int_equal(s.ack, g.seq);
	assert_int_equal(s.len, 0);
	assert_memory_equal(heard + 54, "\2\4\5\xb4", 4);
	g.ack = s.seq + 1;
	send_tcp(&g, ACK, NULL, 0);
	return g;
}

static void ended(void)
{
	silence();
	assert_int_equal(responder_due(r), 0);
	assert_int_equal(responder_counters(r)->connections, responder_counters(r)->closed);
}

/* --- what goes well ------------------------------------------------------------------------------ */

static void test_arp(void **state)
{
	u8 f[42] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 1, 2, 3, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1,
		     2, 0, 0, 1, 2, 3, 10, 0, 0, 5, 0, 0, 0, 0, 0, 0, 169, 254, 169, 254 };
	static const u8 want[28] = { 0, 1, 8, 0, 6, 4, 0, 2, 6, 1, 0x23, 0x45, 0x67, 1, 169, 254, 169, 254,
				     2, 0, 0, 1, 2, 3, 10, 0, 0, 5 };

	(void)state;
	assert_true(responder_takes(r, f, sizeof(f)));
	responder_input(r, f, sizeof(f), false, now);
	assert_memory_equal(next_frame() + 14, want, sizeof(want));
	silence();
	assert_false(responder_takes(r, f, 41));
	f[41] = 1;
	assert_false(responder_takes(r, f, sizeof(f)));
	f[41] = 254;
	f[21] = 2;
	assert_false(responder_takes(r, f, sizeof(f)));
}

static void test_conversation(void **state)
{
	struct me g = open_as(ME, 65535, 1460);
	struct seg s;

	(void)state;
	silence();
	say_text(&g, "GET / HTTP/1.1\r\nHost: x\r\n");
	s = hear(ACK);
	assert_int_equal(s.ack, g.seq);
	assert_int_equal(s.window, RESPONDER_REQUEST_MAX - 25);
	assert_int_equal(asked, 0);
	say_text(&g, "\r\nwhat is behind it");
	assert_int_equal(asked, 1);
	assert_false(was_too_long);
	assert_string_equal(question, "GET / HTTP/1.1\r\nHost: x\r\n\r\nwhat is behind it");
	s = hear(ACK | PSH | FIN);
	assert_int_equal(s.seq, g.ack);
	assert_int_equal(s.ack, g.seq);
	assert_int_equal(s.len, 5);
	assert_memory_equal(s.data, "hello", 5);
	silence();
	g.ack += 6;
	send_tcp(&g, ACK | FIN, NULL, 0);
	assert_int_equal(hear(ACK).ack, g.seq);
	ended();
}

/* The guest closes its half at once, as "printf ... | nc" does. */
static void test_closed_early(void **state)
{
	struct me g = open_as(ME, 65535, 1460);

	(void)state;
	send_tcp(&g, ACK | PSH | FIN, "GET\r\n\r\n", 7);
	assert_int_equal(hear(ACK | PSH | FIN).ack, g.seq);
	g.ack += 6;
	send_tcp(&g, ACK, NULL, 0);
	ended();
}

/* By the guest's size and room, and both change nothing of what arrives. */
static void test_long_answer(void **state)
{
	static char text[50001], got[sizeof(text)];
	static const u16 sizes[][3] = {		/* mss, window, what a segment has */
		{ 1460, 65535, 1460 }, { 0, 65535, 536 }, { 9000, 65535, 1460 }, { 1, 2000, 28 },
		{ 1460, 1000, 1000 }, { 100, 1, 1 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(text) - 1; i++)
		text[i] = 'a' + i % 23;
	say = text;
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		size_t len = sizes[i][1] == 1 ? 300 : sizeof(text) - 1, done = 0;
		struct me g = open_as(ME + i, sizes[i][1], sizes[i][0]);
		bool end = false;

		text[len] = 0;
		say_text(&g, "x\r\n\r\n");
		while (!end) {
			struct seg s;

			next_frame();
			s = (struct seg){ .flags = heard[47], .seq = get32(heard + 38), .data = heard + 54,
					  .len = heard_len - 54 };
			assert_true(wire_sum_is_right(heard, heard_len));
			assert_int_equal(s.seq, g.ack);
			assert_in_range(s.len, 1, sizes[i][2]);
			memcpy(got + done, s.data, s.len);
			done += s.len;
			end = s.flags & FIN;
			g.ack += s.len + end;
			if (!responder_has_output(r))
				send_tcp(&g, ACK, NULL, 0);
		}
		assert_int_equal(done, len);
		assert_memory_equal(got, text, len);
		send_tcp(&g, ACK | FIN, NULL, 0);
		hear(ACK);
		ended();
		text[len] = 'a' + len % 23;
		text[sizeof(text) - 1] = 0;
	}
}

/* Byte by byte, the last twice, one too early. */
static void test_pieces(void **state)
{
	static const char text[] = "GET / HTTP/1.1\r\n\r\n";
	struct me g = open_as(ME, 65535, 1460);

	(void)state;
	for (size_t i = 0; i < sizeof(text) - 2; i++) {
		send_tcp(&g, ACK, text + i, 1);
		assert_int_equal(hear(ACK).ack, g.seq);
		g.seq--;
		send_tcp(&g, ACK, text + i, 1);
		assert_int_equal(hear(ACK).ack, g.seq);
		g.seq++;
		send_tcp(&g, ACK, "early", 5);
		g.seq -= 6;
		assert_int_equal(hear(ACK).ack, g.seq);
	}
	/* Of long ago, all of it. */
	g.seq -= 9;
	send_tcp(&g, ACK, text, 1);
	g.seq += 8;
	assert_int_equal(hear(ACK).ack, g.seq);
	/* With what came before it. */
	g.seq -= 3;
	send_tcp(&g, ACK, text + sizeof(text) - 5, 4);
	assert_int_equal(asked, 1);
	assert_string_equal(question, text);
	hear(ACK | PSH | FIN);
	assert_int_equal(responder_counters(r)->rx_unusual, 2 * (sizeof(text) - 2) + 2);
}

static void test_too_long(void **state)
{
	static char text[RESPONDER_REQUEST_MAX + 1000];
	struct me g = open_as(ME, 65535, 1460);

	(void)state;
	memset(text, 'x', sizeof(text));
	send_tcp(&g, ACK, text, RESPONDER_REQUEST_MAX - 1);
	assert_int_equal(hear(ACK).window, 1);
	/* Beyond the window: what there is room for is taken. */
	send_tcp(&g, ACK, text, 1000);
	assert_int_equal(asked, 1);
	assert_true(was_too_long);
	assert_int_equal(strlen(question), RESPONDER_REQUEST_MAX);
	assert_int_equal(hear(ACK | PSH | FIN).ack, g.seq - 999);
}

/* As much as there is room for is no more than that. */
static void test_just_fits(void **state)
{
	static char text[RESPONDER_REQUEST_MAX];
	struct me g = open_as(ME, 65535, 1460);

	(void)state;
	memset(text, 'x', sizeof(text));
	memcpy(text + sizeof(text) - 4, "\r\n\r\n", 4);
	send_tcp(&g, ACK, text, sizeof(text));
	assert_int_equal(asked, 1);
	assert_false(was_too_long);
	hear(ACK | PSH | FIN);
}

static void test_no_answer(void **state)
{
	struct me g = open_as(ME, 65535, 1460);

	(void)state;
	say = NULL;
	say_text(&g, "x\r\n\r\n");
	assert_int_equal(hear(RST | ACK).seq, g.ack);
	ended();
}

/* --- what is lost ----------------------------------------------------------------------------------- */

static void test_lost(void **state)
{
	struct me g = { .window = 100, .mss = 1460, .seq = 7 };
	u32 first;

	(void)state;
	send_tcp(&g, SYN, NULL, 0);
	first = hear(SYN | ACK).seq;
	silence();
	/* The guest's comes again: ours does, too. */
	g.seq--;
	send_tcp(&g, SYN, NULL, 0);
	assert_int_equal(hear(SYN | ACK).seq, first);
	now += SECOND;
	responder_late(r, now - 1);
	silence();
	responder_late(r, now);
	assert_int_equal(hear(SYN | ACK).seq, first);
	g.ack = first + 1;
	send_tcp(&g, ACK, NULL, 0);
	say_text(&g, "x\r\n\r\n");
	hear(ACK | PSH | FIN);
	/* Late, it is sent again; what the guest says of the first one is right all the same. */
	assert_int_equal(responder_due(r), now + SECOND);
	now += SECOND;
	responder_late(r, now);
	assert_true(responder_has_output(r));
	g.ack += 6;
	send_tcp(&g, ACK, NULL, 0);
	silence();
	send_tcp(&g, ACK | FIN, NULL, 0);
	hear(ACK);
	ended();
}

static void test_given_up(void **state)
{
	struct me g = open_as(ME, 100, 1460);
	u64 start = now;

	(void)state;
	say_text(&g, "x\r\n\r\n");
	for (int i = 0; i < 6; i++) {
		assert_int_equal(hear(ACK | PSH | FIN).seq, g.ack);
		silence();
		now = responder_due(r);
		responder_late(r, now);
	}
	hear(RST | ACK);
	ended();
	assert_int_equal(now - start, 63 * SECOND);
}

/* A guest that has no room is asked whether it has some; one byte at a time. */
static void test_no_room(void **state)
{
	struct me g = open_as(ME, 0, 1460);
	struct seg s;

	(void)state;
	say_text(&g, "x\r\n\r\n");
	hear(ACK);
	silence();
	assert_int_equal(responder_due(r), now + SECOND);
	now += SECOND;
	responder_late(r, now);
	s = hear(ACK);
	assert_int_equal(s.len, 1);
	silence();
	g.ack++;
	g.window = 3;
	send_tcp(&g, ACK, NULL, 0);
	s = hear(ACK);
	assert_int_equal(s.len, 3);
	assert_memory_equal(s.data, "ell", 3);
	g.ack += 3;
	send_tcp(&g, ACK, NULL, 0);
	s = hear(ACK | PSH | FIN);
	assert_int_equal(s.len, 1);
}

/* It threw away what it was asked with, as Linux does: then all of it comes, and at once. */
static void test_no_room_at_all(void **state)
{
	struct me g = open_as(ME, 0, 1460);
	struct seg s;

	(void)state;
	say_text(&g, "x\r\n\r\n");
	hear(ACK);
	for (unsigned i = 0; i < 5; i++) {
		now += SECOND << i;
		responder_late(r, now);
		assert_int_equal(hear(ACK).len, 1);
		send_tcp(&g, ACK, NULL, 0);
		silence();
	}
	g.window = 100;
	send_tcp(&g, ACK, NULL, 0);
	s = hear(ACK | PSH | FIN);
	assert_int_equal(s.seq, g.ack);
	assert_int_equal(s.len, 5);
	/* And should that be lost: it has all its tries again. */
	now += SECOND;
	responder_late(r, now);
	assert_int_equal(hear(ACK | PSH | FIN).len, 5);
}

/* While the VM stands still nobody is late. */
static void test_stood_still(void **state)
{
	struct me g = open_as(ME, 100, 1460);

	(void)state;
	now += 3600 * SECOND;
	responder_goes_on(r, now);
	assert_int_equal(responder_due(r), now + 60 * SECOND);
	responder_late(r, now);
	say_text(&g, "x\r\n\r\n");
	assert_int_equal(hear(ACK | PSH | FIN).len, 5);
	now += 3600 * SECOND;
	responder_goes_on(r, now);
	assert_int_equal(responder_due(r), now + SECOND);
}

static void test_quiet(void **state)
{
	(void)state;
	open_as(ME, 100, 1460);
	assert_int_equal(responder_due(r), now + 60 * SECOND);
	now += 60 * SECOND;
	responder_late(r, now);
	hear(RST | ACK);
	ended();
}

/* --- what is wrong ------------------------------------------------------------------------------------- */

static void test_other_ports(void **state)
{
	struct me g = { .to_port = 443, .seq = 99, .window = 9 };
	struct seg s;

	(void)state;
	send_tcp(&g, SYN, NULL, 0);
	s = hear(RST | ACK);
	assert_int_equal(s.ack, 100);
	assert_int_equal(get16(heard + 34), 443);
	g.ack = 77;
	send_tcp(&g, ACK | PSH, "abc", 3);
	assert_int_equal(hear(RST).seq, 77);
	send_tcp(&g, RST, NULL, 0);
	silence();
	/* And where it listens, but nobody called. */
	g.to_port = 0;
	send_tcp(&g, ACK, NULL, 0);
	assert_int_equal(hear(RST).seq, 77);
	send_tcp(&g, SYN | FIN, NULL, 0);
	hear(RST | ACK);
	ended();
}

static void test_reset_by_guest(void **state)
{
	struct me g = open_as(ME, 100, 1460);

	(void)state;
	g.seq += 5;
	send_tcp(&g, RST, NULL, 0);
	assert_int_equal(hear(ACK).ack, g.seq - 5);
	g.seq -= 5;
	send_tcp(&g, RST, NULL, 0);
	ended();
}

/* From the same port, behind a connection that the guest has forgotten. */
static void test_begun_anew(void **state)
{
	struct me g = open_as(ME, 100, 1460), other = g;

	(void)state;
	other.seq += 5000;
	send_tcp(&other, SYN, NULL, 0);
	other.seq = hear(ACK).ack;
	send_tcp(&other, RST, NULL, 0);
	ended();
	open_as(ME, 100, 1460);
}

/* What comes with the first segment comes again (RFC 9293, 3.10.7.2). */
static void test_data_with_syn(void **state)
{
	struct me g = { .seq = 7, .window = 100 };
	struct seg s;

	(void)state;
	send_tcp(&g, SYN, "x\r\n\r\n", 5);
	s = hear(SYN | ACK);
	assert_int_equal(s.ack, 8);
	g.seq = 8;
	g.ack = s.seq + 1;
	say_text(&g, "x\r\n\r\n");
	assert_int_equal(hear(ACK | PSH | FIN).len, 5);
}

static void test_wrong_ack(void **state)
{
	struct me g = open_as(ME, 100, 1460);

	(void)state;
	g.ack += 1000;
	say_text(&g, "x\r\n\r\n");
	assert_int_equal(hear(RST).seq, g.ack);
	assert_int_equal(asked, 0);
	silence();
}

/* Nobody asked, and it closes. */
static void test_nothing_asked(void **state)
{
	struct me g = open_as(ME, 100, 1460);

	(void)state;
	send_tcp(&g, ACK | FIN, "GET", 3);
	assert_int_equal(hear(RST | ACK).ack, g.seq);
	ended();
}

static void test_many(void **state)
{
	static struct me g[RESPONDER_CONNECTIONS + 1];
	struct me *last = &g[RESPONDER_CONNECTIONS];

	(void)state;
	for (unsigned i = 0; i < RESPONDER_CONNECTIONS; i++) {
		now++;
		g[i] = open_as(ME + i, 100, 1460);
	}
	/* For one more the first one goes, and hears of it; all others are answered. */
	now++;
	last->port = ME + RESPONDER_CONNECTIONS;
	last->window = 100;
	send_tcp(last, SYN, NULL, 0);
	assert_int_equal(hear(RST | ACK).seq, g[0].ack);
	assert_int_equal(get16(heard + 36), ME);
	last->ack = hear(SYN | ACK).seq + 1;
	send_tcp(last, ACK, NULL, 0);
	assert_int_equal(responder_counters(r)->closed, 1);
	say_text(&g[0], "x\r\n\r\n");
	hear(RST);
	for (unsigned i = 1; i < ARRAY_SIZE(g); i++)
		say_text(&g[i], "x\r\n\r\n");
	for (unsigned i = 1; i < ARRAY_SIZE(g); i++)
		assert_int_equal(hear(ACK | PSH | FIN).len, 5);
	silence();
	assert_int_equal(asked, RESPONDER_CONNECTIONS);
	/* SYNs that nothing follows take no more than the same places. */
	for (unsigned i = 0; i < 10000; i++) {
		struct me s = { .port = 1 + i, .seq = i };

		now++;
		send_tcp(&s, SYN, NULL, 0);
	}
	while (responder_output(r, heard, now) && heard[47] == (RST | ACK))
		;
	for (unsigned i = 1; i < RESPONDER_CONNECTIONS; i++)
		hear(SYN | ACK);
	silence();
	responder_reset(r);
	ended();
}

/* Of what is refused more than a few are not. */
static void test_many_refused(void **state)
{
	unsigned n = 0;

	(void)state;
	for (unsigned i = 0; i < 1000; i++) {
		struct me s = { .port = 1 + i, .to_port = 81 };

		send_tcp(&s, SYN, NULL, 0);
	}
	while (responder_output(r, heard, now))
		n++;
	assert_in_range(n, 1, 16);
	ended();
}

/* Each byte of the heads wrong, and each length: nothing is answered that should not be. */
static void test_malformed(void **state)
{
	struct me g = { .seq = 1, .window = 100, .mss = 1460 };
	size_t whole;
	u64 bad;

	(void)state;
	make(&g, SYN, NULL, 0);
	whole = frame_len;
	for (size_t len = 34; len < whole; len++)
		responder_input(r, frame, len, true, now);
	assert_int_equal(responder_counters(r)->rx_bad, whole - 34);
	silence();
	bad = responder_counters(r)->rx_bad;
	/* A sum that is left to us is no sum. */
	give(false);
	assert_int_equal(responder_counters(r)->rx_bad, bad + 1);
	for (int i = 0; i < 8; i++) {
		static const struct { u8 at, value; } wrong[] = {
			{ 14, 0x65 }, { 14, 0x44 }, { 14, 0x4f }, { 16, 0xff }, { 17, 19 },
			{ 20, 0x20 }, { 21, 1 }, { 23, IPPROTO_UDP },
		};

		make(&g, SYN, NULL, 0);
		frame[wrong[i].at] = wrong[i].value;
		give(true);
		assert_int_equal(responder_counters(r)->rx_bad, bad + 2 + i);
	}
	make(&g, SYN, NULL, 0);
	frame[46] = 0x40;
	give(true);
	make(&g, SYN, NULL, 0);
	frame[46] = 0xf0;
	give(true);
	assert_int_equal(responder_counters(r)->rx_bad, bad + 11);
	silence();
	/* Options that lead nowhere: the usual size is taken. */
	for (int i = 0; i < 3; i++) {
		make(&g, SYN, NULL, 0);
		frame[54] = 3;
		frame[55] = i == 2 ? 9 : i;
		give(true);
		hear(SYN | ACK);
		responder_reset(r);
	}
}

static void test_sums(void **state)
{
	struct me g = { .seq = 1, .window = 100 };
	struct seg s;
	u32 sum;

	(void)state;
	make(&g, SYN, NULL, 0);
	/* What the device would put in: the pseudo header's is there. */
	sum = 0;
	for (size_t i = 34; i < frame_len; i += 2)
		sum += get16(frame + i);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	put16(frame + 50, ~sum);
	give(false);
	s = hear(SYN | ACK);
	assert_int_equal(s.ack, 2);
	frame[53] ^= 1;
	give(false);
	frame[53] ^= 1;
	frame[24] ^= 1;
	give(false);
	assert_int_equal(responder_counters(r)->rx_bad, 2);
	silence();
}

static void test_not_for_it(void **state)
{
	struct me g = { .seq = 1 };

	(void)state;
	make(&g, SYN, NULL, 0);
	assert_false(responder_takes(r, frame, 33));
	assert_true(responder_takes(r, frame, 34));
	frame[33] ^= 1;
	assert_false(responder_takes(r, frame, frame_len));
	frame[33] ^= 1;
	frame[12] = 0x86;
	frame[13] = 0xdd;
	assert_false(responder_takes(r, frame, frame_len));
	frame[12] = 0x81;
	frame[13] = 0;
	assert_false(responder_takes(r, frame, frame_len));
}

int main(void)
{
#define T(name)	cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_arp), T(test_conversation), T(test_closed_early), T(test_long_answer), T(test_pieces),
		T(test_too_long), T(test_just_fits), T(test_no_answer), T(test_lost), T(test_given_up),
		T(test_no_room), T(test_no_room_at_all), T(test_stood_still), T(test_quiet), T(test_other_ports), T(test_reset_by_guest),
		T(test_begun_anew), T(test_data_with_syn), T(test_wrong_ack), T(test_nothing_asked), T(test_many),
		T(test_many_refused), T(test_malformed), T(test_sums), T(test_not_for_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
