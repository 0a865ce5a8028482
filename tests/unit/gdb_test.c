/* gdb_test.c: GDB's protocol: frames, commands, breakpoints, and clients that are rude. */
#include <poll.h>
#include <sys/socket.h>
#include "tests/lib/fake_target.h"
#include "tests/lib/test.h"
#include "vmm/core/socket.h"
#include "vmm/gdb_registers.h"
#include "vmm/gdb_session.h"

static struct fake_target target;
static struct gdb_session s;
static struct gdb_parser parser;
static char answer[sizeof(s.reply.data)];

static int setup(void **state)
{
	(void)state;
	fake_target_init(&target);
	s = (struct gdb_session){ .ops = &fake_target_ops, .arg = &target };
	parser = (struct gdb_parser){ 0 };
	gdb_session_begin(&s);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_target_fini(&target);
	return 0;
}

/* --- frames ---------------------------------------------------------------------------------- */

static enum gdb_event feed(const char *text, size_t len, size_t *used)
{
	const u8 *from = (const u8 *)text;
	enum gdb_event e = gdb_parse(&parser, &from, from + len);

	*used = from - (const u8 *)text;
	return e;
}

static enum gdb_event feed_all(const char *text)
{
	size_t used;
	enum gdb_event e = feed(text, strlen(text), &used);

	assert_int_equal(used, strlen(text));
	return e;
}

static void test_frames(void **state)
{
	size_t used;

	(void)state;
	assert_int_equal(feed_all("$g#67"), GDB_PACKET);
	assert_string_equal(parser.data, "g");
	assert_int_equal(feed_all("$g#68"), GDB_DAMAGED);
	assert_int_equal(feed_all("$g#6x"), GDB_DAMAGED);
	assert_int_equal(feed_all("$#00"), GDB_PACKET);
	assert_int_equal(parser.len, 0);
	assert_int_equal(feed_all("+"), GDB_ACK);
	assert_int_equal(feed_all("-"), GDB_NAK);
	assert_int_equal(feed_all("\003"), GDB_INTERRUPT);
	assert_int_equal(feed_all("noise"), GDB_MORE);
	/* In pieces; and one that begins anew. */
	assert_int_equal(feed_all("$zzz$m0"), GDB_MORE);
	assert_int_equal(feed_all(",1#f"), GDB_MORE);
	assert_int_equal(feed_all("a"), GDB_PACKET);
	assert_string_equal(parser.data, "m0,1");
	/* It stops at each. */
	assert_int_equal(feed("+$g#67\003", 7, &used), GDB_ACK);
	assert_int_equal(used, 1);
	assert_int_equal(feed("$g#67\003", 6, &used), GDB_PACKET);
	assert_int_equal(used, 5);
}

static void test_escapes(void **state)
{
	(void)state;
	/* } then each of the four, and a 3, which is no interrupt in here. */
	assert_int_equal(feed_all("$X}\003}\004}]}\n\003#bd"), GDB_PACKET);
	assert_int_equal(parser.len, 6);
	assert_memory_equal(parser.data, "X#$}*\003", 6);
	assert_int_equal(feed_all("$X}#d5"), GDB_DAMAGED);

	gdb_reply_begin(&s.reply);
	gdb_reply_raw(&s.reply, "a$#}*", 5);
	gdb_reply_end(&s.reply);
	assert_int_equal(s.reply.len, 13);
	assert_memory_equal(s.reply.data, "$a}\004}\003}]}\n#c3", 13);
}

static void test_too_long(void **state)
{
	static char text[GDB_PACKET_MAX + 16];
	u8 sum = (u8)(GDB_PACKET_MAX * 'a');
	size_t used;

	(void)state;
	memset(text, 'a', sizeof(text));
	text[0] = '$';
	sprintf(text + 1 + GDB_PACKET_MAX, "#%02x", sum);
	assert_int_equal(feed(text, GDB_PACKET_MAX + 4, &used), GDB_PACKET);
	assert_int_equal(parser.len, GDB_PACKET_MAX);
	memset(text + 1, 'a', sizeof(text) - 1);
	sprintf(text + 2 + GDB_PACKET_MAX, "#%02x", (u8)(sum + 'a'));
	assert_int_equal(feed(text, GDB_PACKET_MAX + 5, &used), GDB_DAMAGED);
	/* It is none the worse for it. */
	assert_int_equal(feed_all("$g#67"), GDB_PACKET);
}

/* An answer that is longer than any may be is an error, and not written behind its end. */
static void test_reply_too_long(void **state)
{
	struct gdb_reply *r = malloc(sizeof(*r));

	(void)state;
	assert_non_null(r);
	gdb_reply_begin(r);
	for (unsigned i = 0; i < GDB_PACKET_MAX; i++)
		gdb_reply_hex(r, "x", 1);
	gdb_reply_end(r);
	assert_int_equal(r->len, sizeof(r->data));
	gdb_reply_begin(r);
	for (unsigned i = 0; i < 2 * GDB_PACKET_MAX; i++)
		gdb_reply_text(r, "ab");
	gdb_reply_end(r);
	assert_int_equal(r->len, 7);
	assert_memory_equal(r->data, "$E00#a5", 7);
	free(r);
}

static void test_numbers(void **state)
{
	const char *t = "ffffffff81000000,";
	u8 bytes[2];
	u64 n;

	(void)state;
	assert_true(gdb_number(&t, &n));
	assert_true(n == FAKE_BASE && *t == ',');
	assert_false(gdb_number(&t, &n));
	t = "00000000000000001";
	assert_false(gdb_number(&t, &n));
	t = "aBc";
	assert_false(gdb_bytes(&t, bytes, 2));
	t = "aBcD";
	assert_true(gdb_bytes(&t, bytes, 2));
	assert_memory_equal(bytes, "\xab\xcd", 2);
}

/* --- commands -------------------------------------------------------------------------------- */

/* The reply, without its frame; NULL: there was none. */
static const char *ask_bytes(const char *data, size_t len)
{
	char *copy = malloc(len + 1);		/* of its own, so that ASan sees its end */
	bool there;

	memcpy(copy, data, len);
	copy[len] = 0;
	there = gdb_session_command(&s, copy, len);
	free(copy);
	if (!there)
		return NULL;
	memcpy(answer, s.reply.data + 1, s.reply.len - 4);
	answer[s.reply.len - 4] = 0;
	return answer;
}

static const char *ask(const char *data)
{
	return ask_bytes(data, strlen(data));
}

#define assert_reply(command, reply)	assert_string_equal(ask(command), reply)

static void stop(unsigned cpu, struct cpu_stop stop, const char *reply)
{
	bool there;

	assert_true(gdb_session_stopped(&s, cpu, &stop, &there));
	assert_int_equal(there, !!reply);
	if (reply) {
		s.reply.data[s.reply.len - 3] = 0;
		assert_string_equal(s.reply.data + 1, reply);
	}
}

static bool is_ours(unsigned cpu, struct cpu_stop stop)
{
	bool there;

	return gdb_session_stopped(&s, cpu, &stop, &there);
}

static void test_questions(void **state)
{
	(void)state;
	assert_int_equal(target.nr_stops, 1);
	assert_says(ask("qSupported:swbreak+;hwbreak+;xmlRegisters=i386"), "PacketSize=4000;");
	assert_reply("?", "T05thread:1;");
	assert_reply("qfThreadInfo", "m1,2,3");
	assert_reply("qsThreadInfo", "l");
	assert_reply("qThreadExtraInfo,2", "4350552031");	/* CPU 1 */
	assert_says(ask("qThreadExtraInfo,4"), "E");
	assert_reply("T3", "OK");
	assert_says(ask("T4"), "E");
	assert_reply("Hg2", "OK");
	assert_reply("qC", "QC2");
	assert_reply("Hc-1", "OK");
	assert_says(ask("Hg4"), "E");
	assert_says(ask("H"), "E");
	assert_reply("qAttached", "1");
	assert_reply("vMustReplyEmpty", "");
	assert_reply("qWhatever", "");
	assert_reply("", "");
	assert_reply("QStartNoAckMode", "OK");
	assert_true(s.no_ack);
}

static void test_description(void **state)
{
	char xml[16384] = "", command[64];
	const char *part;
	size_t len = 0;

	(void)state;
	do {
		snprintf(command, sizeof(command), "qXfer:features:read:target.xml:%zx,100", len);
		part = ask(command);
		for (const char *p = part + 1; *p; p++)	/* } escapes */
			xml[len++] = *p == '}' ? *++p ^ 0x20 : *p;
	} while (*part == 'm');
	assert_int_equal(*part, 'l');
	assert_string_equal(xml, gdb_target_xml);
	assert_reply("qXfer:features:read:other.xml:0,100", "E00");
	assert_reply("qXfer:features:read:target.xml:ffffff,100", "E00");
	assert_reply("qXfer:features:read:target.xml:", "E00");
}

/* As many as the description has, of the sizes that it says. */
static void test_register_table(void **state)
{
	size_t offset = 0;
	u64 nr = 0;

	(void)state;
	for (const char *p = gdb_target_xml; (p = strstr(p, "<reg ")); p++, nr++) {
		size_t bits = strtoul(strstr(p, "bitsize=\"") + 9, NULL, 10);
		struct gdb_register r = gdb_register(nr);

		assert_int_equal(r.offset, offset);
		assert_int_equal(r.len, bits / 8);
		offset += r.len;
	}
	assert_int_equal(offset, sizeof(struct cpu_registers));
	assert_int_equal(gdb_register(nr).len, 0);
	assert_int_equal(gdb_register(~0ULL).len, 0);
}

static void test_registers(void **state)
{
	char all[2 * sizeof(struct cpu_registers) + 2] = "G";

	(void)state;
	assert_reply("p10", "00000081ffffffff");
	assert_reply("Hg2", "OK");
	assert_reply("p10", "00010081ffffffff");
	assert_reply("P0=8877665544332211", "OK");
	assert_true(target.regs[1].rax == 0x1122334455667788);
	assert_true(target.regs[0].rax == 0);
	strcat(all, ask("g"));
	assert_int_equal(strlen(all), 2 * sizeof(struct cpu_registers) + 1);
	memcpy(all + 1, "01", 2);
	assert_reply(all, "OK");
	assert_true(target.regs[1].rax == 0x1122334455667701);
	all[strlen(all) - 1] = 0;
	assert_says(ask(all), "E");
	assert_says(ask("P0=88"), "E");
	assert_says(ask("Pffff=88"), "E");
	assert_says(ask("pffffffffffffffff"), "E");
	assert_says(ask("p"), "E");
}

static void test_memory(void **state)
{
	char bytes[4];

	(void)state;
	assert_reply("Mffffffff81000ffe,4:01020304", "OK");		/* over a page's end */
	assert_reply("mffffffff81000ffe,4", "01020304");
	assert_int_equal(mem_read(target.mem, GPA(0xffe), bytes, 4), 0);
	assert_memory_equal(bytes, "\1\2\3\4", 4);
	assert_string_equal(ask_bytes("Xffffffff81000000,3:a\0b", 23), "OK");
	assert_reply("mffffffff81000000,3", "610062");
	assert_reply("Xffffffff81000000,0:", "OK");
	/* What is there of it; nothing of what is not. */
	assert_reply("mffffffff81004fff,2", "00");
	assert_reply("mffffffff81005000,1", "E0e");
	assert_reply("m0,1", "E0e");
	assert_reply("mffffffffffffffff,2", "E0e");
	assert_reply("Mffffffff81004fff,2:ffff", "E0e");
	assert_reply("mffffffff81004fff,1", "00");
	assert_int_equal(strlen(ask("mffffffff81006000,ffffffffffffffff")), GDB_PACKET_MAX);
	assert_says(ask("mffffffff81000000"), "E16");
	assert_says(ask("Mffffffff81000000,4:0102"), "E16");
	assert_says(ask("Mffffffff81000000,1:010"), "E16");
	assert_says(ask("Mffffffff81000000,ffffffffffffffff:01"), "E16");
	assert_says(ask("Xffffffff81000000,4:ab"), "E16");
	assert_says(ask("X"), "E16");
}

/* --- breakpoints ----------------------------------------------------------------------------- */

static u8 byte_at(u64 gpa)
{
	u8 b;

	assert_int_equal(mem_read_obj(target.mem, GPA(gpa), &b), 0);
	return b;
}

static void test_int3(void **state)
{
	struct cpu_stop at = { .vector = CPU_VECTOR_BREAKPOINT, .pc = FAKE_BASE + 0x10 };

	(void)state;
	ask("qSupported:swbreak+");
	assert_reply("Mffffffff81000010,2:9091", "OK");
	assert_reply("Z0,ffffffff81000010,1", "OK");
	assert_reply("Z0,ffffffff81000010,1", "OK");	/* again: still one */
	assert_int_equal(byte_at(0x10), 0xcc);
	/* The client sees what is below, and changes that. */
	assert_reply("mffffffff81000010,2", "9091");
	assert_reply("Mffffffff8100000f,3:a0a1a2", "OK");
	assert_int_equal(byte_at(0x10), 0xcc);
	assert_reply("mffffffff8100000f,3", "a0a1a2");
	assert_null(ask("c"));
	assert_false(is_ours(1, (struct cpu_stop){ .vector = CPU_VECTOR_BREAKPOINT, .pc = 0x10 }));
	assert_true(s.running);
	stop(1, at, "T05swbreak:;thread:2;");
	assert_true(target.stopped);
	/* Another that was there at the same time will be there again. */
	stop(2, at, NULL);
	assert_reply("z0,ffffffff81000010,1", "OK");
	assert_int_equal(byte_at(0x10), 0xa1);
	assert_reply("z0,ffffffff81000010,1", "OK");
	assert_null(ask("c"));
	assert_false(is_ours(1, at));
	gdb_session_interrupt(&s);
	assert_reply("Z0,ffffffff81005000,1", "E0e");
	assert_reply("Z0,0,1", "E0e");
	assert_says(ask("Z0,ffffffff81000010"), "E16");
	assert_reply("Z5,ffffffff81000010,1", "");
}

/* Out of memory for a while, but not what the guest has put there. */
static void test_hidden_int3s(void **state)
{
	static const u8 other = 0x90, before = 0x34;

	(void)state;
	assert_reply("Mffffffff81000010,2:1234", "OK");
	assert_reply("Z0,ffffffff81000010,1", "OK");
	assert_reply("Z0,ffffffff81000011,1", "OK");
	gdb_session_hide(&s, true);
	assert_int_equal(byte_at(0x10), 0x12);
	assert_int_equal(byte_at(0x11), 0x34);
	gdb_session_hide(&s, false);
	assert_int_equal(byte_at(0x10), 0xcc);
	assert_int_equal(byte_at(0x11), 0xcc);
	assert_int_equal(mem_write_obj(target.mem, GPA(0x11), &other), 0);
	gdb_session_hide(&s, true);
	gdb_session_hide(&s, false);
	assert_int_equal(byte_at(0x10), 0xcc);
	assert_int_equal(byte_at(0x11), other);
	/* Nor where that is what was there before. */
	assert_int_equal(mem_write_obj(target.mem, GPA(0x11), &before), 0);
	gdb_session_hide(&s, true);
	gdb_session_hide(&s, false);
	assert_int_equal(byte_at(0x11), before);
	assert_reply("z0,ffffffff81000010,1", "OK");
	assert_int_equal(byte_at(0x10), 0x12);
}

static void test_many_int3s(void **state)
{
	char command[64];

	(void)state;
	for (int i = 0; i < GDB_MAX_BREAKPOINTS; i++) {
		snprintf(command, sizeof(command), "Z0,%llx,1", FAKE_BASE + i);
		assert_reply(command, "OK");
	}
	assert_says(ask("Z0,ffffffff81002000,1"), "E1c");
	/* The client is gone: so are they. */
	gdb_session_end(&s);
	for (int i = 0; i < GDB_MAX_BREAKPOINTS; i++)
		assert_int_equal(byte_at(i), 0);
	assert_true(target.detached);
}

static void test_points(void **state)
{
	struct cpu_stop at = { .vector = CPU_VECTOR_DEBUG, .dr6 = 1 << 1 };

	(void)state;
	ask("qSupported:hwbreak+");
	assert_reply("Z1,ffffffff81000011,1", "OK");
	assert_reply("Z2,ffffffff81000018,8", "OK");
	assert_reply("Z2,ffffffff81000018,8", "OK");
	assert_reply("Z3,ffffffff81000024,4", "OK");
	assert_reply("Z4,ffffffff81000026,2", "OK");
	assert_says(ask("Z1,ffffffff81000001,1"), "E1c");		/* there are four */
	assert_reply("z3,ffffffff81000024,4", "OK");
	assert_says(ask("Z2,ffffffff81000019,4"), "E16");
	assert_says(ask("Z2,ffffffff81000018,3"), "E16");
	assert_says(ask("Z2,ffffffff81000018,10"), "E16");
	assert_says(ask("Z2,ffffffff81000018,0"), "E16");
	assert_null(ask("vCont;c"));
	assert_true(target.point[1].kind == CPU_POINT_WRITE && target.point[1].len == 8 &&
		    target.point[1].addr == FAKE_BASE + 0x18 && !target.point[2].kind);
	/* A free register's bit means nothing. */
	assert_false(is_ours(0, (struct cpu_stop){ .vector = CPU_VECTOR_DEBUG, .dr6 = 1 << 2 }));
	stop(1, at, "T05watch:ffffffff81000018;thread:2;");
	/* Two at once: the other one's is told as soon as the client goes on. */
	at.dr6 = 1 << 3;
	stop(2, at, NULL);
	assert_reply("c", "T05awatch:ffffffff81000026;thread:3;");
	assert_null(ask("c"));
	stop(0, (struct cpu_stop){ .vector = CPU_VECTOR_DEBUG, .dr6 = 1 }, "T05hwbreak:;thread:1;");
}

static void test_steps(void **state)
{
	struct cpu_stop step = { .vector = CPU_VECTOR_DEBUG, .dr6 = CPU_DR6_STEP };

	(void)state;
	assert_null(ask("vCont;s:2"));
	assert_int_equal(target.action[0], GDB_HOLD);
	assert_int_equal(target.action[1], GDB_STEP);
	assert_int_equal(target.action[2], GDB_HOLD);
	/* The guest's own, on a processor that does not step for us. */
	assert_false(is_ours(0, step));
	stop(1, step, "T05thread:2;");
	assert_null(ask("vCont;s:3;c"));
	assert_int_equal(target.action[0], GDB_RUN);
	assert_int_equal(target.action[2], GDB_STEP);
	stop(2, step, "T05thread:3;");
	assert_null(ask("s"));
	assert_int_equal(target.action[2], GDB_STEP);
	assert_int_equal(target.action[0], GDB_RUN);
	stop(2, step, "T05thread:3;");
	assert_null(ask("vCont;C05"));
	/* While it runs nothing is listened to but the interrupt. */
	assert_null(ask("g"));
	assert_true(gdb_session_interrupt(&s));
	assert_memory_equal(s.reply.data, "$T02thread:3;#", 14);
	assert_false(gdb_session_interrupt(&s));
	assert_says(ask("vCont"), "E");
	assert_says(ask("vCont;"), "E");
	assert_says(ask("vCont;t"), "E");
	assert_says(ask("vCont;c:9"), "E");
	assert_says(ask("vCont;c:"), "E");
	assert_says(ask("vCont;C"), "E");
	assert_says(ask("vCont;cx"), "E");
	assert_reply("vCont?", "vCont;c;C;s;S");
}

static void test_goodbyes(void **state)
{
	(void)state;
	assert_reply("Z0,ffffffff81000010,1", "OK");
	assert_reply("D", "OK");
	assert_true(s.over && target.detached && !target.killed);
	assert_int_equal(byte_at(0x10), 0);
	assert_null(ask("g"));
	teardown(NULL);
	setup(NULL);
	assert_null(ask("k"));
	assert_true(s.over && target.killed);
}

/* --- connections ----------------------------------------------------------------------------- */

static void test_where(void **state)
{
	static const char *const good[] = { "1234", "tcp::1234", "tcp:0.0.0.0:1234", "tcp:[::1]:1",
					    "unix:/x,wait", "1234,wait", "unix:a,b" };
	static const char *const bad[] = { "", "0", "65536", "x", "tcp:", "tcp:1234x", "tcp::", "unix:",
					   "unix:,wait", ",wait", "-1", "tcp::1 ", "1234,now" };
	struct err err;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(good); i++)
		assert_int_equal(gdb_check_where(good[i], &err), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(gdb_check_where(bad[i], &err), -EINVAL);
		assert_says(err.msg, "tcp:[ADDRESS]:PORT");
	}
	assert_true(gdb_waits("1,wait"));
	assert_false(gdb_waits("1"));
}

static char dir[] = "/tmp/vmm-gdb-test-XXXXXX", path[64], where[80];
static struct loop *loop;
static struct gdb *gdb;

static int start_server(void **state)
{
	struct err err;

	(void)state;
	fake_target_init(&target);
	snprintf(path, sizeof(path), "%s/sock", dir);
	snprintf(where, sizeof(where), "unix:%s", path);
	if (loop_new(&loop, &err) || gdb_new(&gdb, where, loop, &fake_target_ops, &target, &err) ||
	    gdb_serve(gdb, &err))
		return -1;
	return loop_start_thread(loop, THREAD_IO, "main", &err);
}

static int stop_server(void **state)
{
	(void)state;
	loop_stop_thread(loop);
	gdb_free(gdb);
	loop_free(loop);
	fake_target_fini(&target);
	return access(path, F_OK) == -1 ? 0 : -1;
}

static int dial(void)
{
	int fd;

	assert_int_equal(socket_connect(path, &fd, NULL), 0);
	return fd;
}

static void put(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* "": the other end is gone. */
static void expect(int fd, const char *text)
{
	char got[256] = "";
	size_t len = 0;

	do {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		ssize_t n;

		assert_int_equal(poll(&p, 1, 20000), 1);
		n = recv(fd, got + len, *text ? strlen(text) - len : 1, 0);
		assert_true(*text ? n > 0 : n <= 0);
		len += MAX(n, 0);
	} while (len < strlen(text));
	assert_string_equal(got, text);
}

static void test_conversation(void **state)
{
	int fd = dial(), other;

	(void)state;
	put(fd, "+$?#3f");
	expect(fd, "+$T05thread:1;#");
	expect(fd, "d7");
	other = dial();
	expect(other, "");			/* one at a time */
	close(other);
	put(fd, "-");				/* say that again */
	expect(fd, "$T05thread:1;#d7");
	put(fd, "$?#00");
	expect(fd, "-");
	put(fd, "$QStartNoAckMode#b0$qC#b4");
	expect(fd, "+$OK#9a$QC1#c5");
	put(fd, "$c#63\003");
	expect(fd, "$T02thread:1;#d4");
	put(fd, "$D#44");
	expect(fd, "$OK#9a");
	expect(fd, "");
	close(fd);
}

/* On the thread that plants it. */
static void see_planted(void *arg)
{
	*(u8 *)arg = byte_at(0x10);
}

static void is_gone(void *arg)
{
	*(bool *)arg = !gdb_attached(gdb);
}

static void test_client_dies(void **state)
{
	static const char cut[] = "$Z0,ffffffff81000010,1#cd$mffff";
	bool gone = false;
	u8 planted = 0;
	int fd = dial();

	(void)state;
	put(fd, cut);
	expect(fd, "+$OK#9a");
	loop_call(loop, see_planted, &planted);
	assert_int_equal(planted, 0xcc);
	close(fd);
	while (!gone)
		loop_call(loop, is_gone, &gone);
	assert_int_equal(byte_at(0x10), 0);
	assert_true(target.detached && !target.stopped);
	/* The next one finds all as if there had been nobody. */
	fd = dial();
	put(fd, "$?#3f");
	expect(fd, "+$T05thread:1;#d7");
	close(fd);
}

/* It asks and asks, and reads nothing: it is not listened to, and costs nothing. */
static void test_client_does_not_read(void **state)
{
	char big[64 * 24];
	size_t sent = 0;
	bool gone = false;
	int fd = dial();

	(void)state;
	for (int i = 0; i < 64; i++)
		memcpy(big + 24 * i, "$mffffffff81006000,8#00\003", 24);
	while (send(fd, big, sizeof(big), MSG_NOSIGNAL | MSG_DONTWAIT) > 0 && sent < 64 * MIB)
		sent += sizeof(big);
	assert_true(sent < 64 * MIB);
	close(fd);
	while (!gone)
		loop_call(loop, is_gone, &gone);
}

static void test_end(void **state)
{
	int fd = dial();

	(void)state;
	put(fd, "$QStartNoAckMode#b0$c#63");
	expect(fd, "+$OK#9a");
	loop_stop_thread(loop);
	gdb_ended(gdb, 3);
	expect(fd, "$W03#ba");
	expect(fd, "");
	close(fd);
}

static int group_setup(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int group_teardown(void **state)
{
	(void)state;
	return rmdir(dir);
}

int main(void)
{
#define SESSION(f)	cmocka_unit_test_setup_teardown(f, setup, teardown)
#define SERVER(f)	cmocka_unit_test_setup_teardown(f, start_server, stop_server)
	const struct CMUnitTest tests[] = {
		SESSION(test_frames), SESSION(test_escapes), SESSION(test_too_long),
		SESSION(test_reply_too_long),
		SESSION(test_numbers), SESSION(test_questions), SESSION(test_description),
		SESSION(test_register_table), SESSION(test_registers), SESSION(test_memory),
		SESSION(test_int3), SESSION(test_hidden_int3s), SESSION(test_many_int3s), SESSION(test_points),
		SESSION(test_steps), SESSION(test_goodbyes), cmocka_unit_test(test_where),
		SERVER(test_conversation), SERVER(test_client_dies),
		SERVER(test_client_does_not_read), SERVER(test_end),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
