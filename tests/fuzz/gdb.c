/*
 * gdb.c: what a client sends, right or wrong, and processors that stop between.  Nothing
 * is looked at while it runs, replies are whole packets, and when the client has gone its
 * breakpoints have, too.
 */
#include <string.h>
#include "tests/fuzz/lib/fuzz.h"
#include "tests/lib/fake_target.h"
#include "vmm/gdb_session.h"

enum { PIECE = 600 };

static struct gdb_session s;
static struct gdb_parser parser;
static struct fake_target target;

static void check_reply(bool there)
{
	const struct gdb_reply *r = &s.reply;
	u8 sum = 0;

	if (!there)
		return;
	fuzz_check(r->len >= 4 && r->len <= sizeof(r->data) && r->data[0] == '$' &&
		   r->data[r->len - 3] == '#', "a reply of %zu bytes", r->len);
	for (size_t i = 1; i < r->len - 3; i++) {
		fuzz_check(r->data[i] != '#' && r->data[i] != '$', "%#x in a reply", r->data[i]);
		sum += r->data[i];
	}
	fuzz_check("0123456789abcdef"[sum >> 4] == r->data[r->len - 2], "checksum");
}

/* One command without its frame, which a fuzzer would hardly ever get right. */
static void command(struct fuzz *f)
{
	static const char *const begin[] = { "m", "M", "X", "Z0,ffffffff8100", "Z1,", "Z2,", "z0,",
		"vCont;", "vCont;s:", "qXfer:features:read:target.xml:", "qSupported:", "P", "p",
		"Hg", "G", "mffffffff81000", "Mffffffff8100", "Xffffffff8100", "c", "s", "T" };
	char text[PIECE + 1];
	size_t len;

	strcpy(text, begin[fuzz_below(f, ARRAY_SIZE(begin))]);
	len = strlen(text);
	fuzz_text(f, text + len, sizeof(text) - 1 - len);
	check_reply(gdb_session_command(&s, text, strlen(text)));
}

static void bytes(struct fuzz *f)
{
	u8 piece[PIECE];
	size_t len = MIN(f->left, 1 + fuzz_below(f, PIECE));
	const u8 *from = piece;

	fuzz_bytes(f, piece, len);
	while (from < piece + len)
		switch (gdb_parse(&parser, &from, piece + len)) {
		case GDB_PACKET:
			check_reply(gdb_session_command(&s, parser.data, parser.len));
			break;
		case GDB_INTERRUPT:
			check_reply(gdb_session_interrupt(&s));
			break;
		default:
			break;
		}
}

static void stop(struct fuzz *f)
{
	struct cpu_stop stop = { .vector = fuzz_u8(f) & 1 ? CPU_VECTOR_BREAKPOINT : CPU_VECTOR_DEBUG,
				 .pc = FAKE_BASE + fuzz_u8(f), .dr6 = fuzz_u16(f) };
	unsigned cpu = fuzz_below(f, FAKE_CPUS);
	bool reply;

	(void)!gdb_session_stopped(&s, cpu, &stop, &reply);
	check_reply(reply);
}

void fuzz_one(struct fuzz *f)
{
	fake_target_init(&target);
	s = (struct gdb_session){ .ops = &fake_target_ops, .arg = &target };
	parser.state = GDB_OUTSIDE;
	gdb_session_begin(&s);
	while (f->left && !s.over) {
		switch (fuzz_u8(f) % 8) {
		case 0:
			stop(f);
			break;
		case 1:
			check_reply(gdb_session_interrupt(&s));
			break;
		case 2:
		case 3:
			bytes(f);
			break;
		default:
			command(f);
		}
		fuzz_check(s.running == !target.stopped || s.over, "it runs, and it does not");
	}
	if (!s.over)
		gdb_session_end(&s);
	fuzz_check(!s.nr_breakpoints && target.detached, "something was left");
	fake_target_fini(&target);
}
