/*
 * start.c: a payload's frame: main's caller, the command line, checks and the way out.
 */
#include "guest/lib/start.h"

#include "guest/lib/string.h"
#include "guest/lib/trap.h"

const struct start_info *start_info;

static const char *cmdline;
static u32 failures;

void guest_start(const struct start_info *info);	/* boot.asm's way in */

void guest_start(const struct start_info *info)
{
	start_info = info;
	cmdline = info->cmdline_paddr ? (const char *)(uintptr_t)info->cmdline_paddr : "";
	trap_init();
	serial_init();
	guest_exit(main(info, cmdline));
}

void guest_exit(int code)
{
	serial_drain();
	outb(PORT_EXIT, (u8)code);
	guest_stop();
}

void guest_stop(void)
{
	for (;;)
		asm volatile("cli; hlt" : : : "memory");
}

const char *arg_find(const char *name)
{
	size_t len = strlen(name);
	const char *p = cmdline;

	while (*p) {
		if (!memcmp(p, name, len)) {
			if (p[len] == '=')
				return p + len + 1;
			if (!p[len] || p[len] == ' ')
				return p + len;
		}
		while (*p && *p != ' ')
			p++;
		while (*p == ' ')
			p++;
	}
	return NULL;
}

bool arg_is(const char *name, const char *value)
{
	const char *p = arg_find(name);
	size_t len = strlen(value);

	return p && !memcmp(p, value, len) && (!p[len] || p[len] == ' ');
}

static unsigned digit(char c)
{
	if (c >= '0' && c <= '9')
		return (unsigned)(c - '0');
	if (c >= 'a' && c <= 'f')
		return (unsigned)(c - 'a' + 10);
	return ~0u;
}

u64 arg_u64(const char *name, u64 otherwise)
{
	const char *p = arg_find(name);
	unsigned base = 10;
	u64 v = 0;

	if (!p || digit(*p) > 9)
		return otherwise;
	if (p[0] == '0' && p[1] == 'x') {
		base = 16;
		p += 2;
	}
	for (; digit(*p) < base; p++)
		v = v * base + digit(*p);
	return *p == 'K' ? v << 10 : *p == 'M' ? v << 20 : *p == 'G' ? v << 30 : v;
}

bool check(bool held, const char *fmt, ...)
{
	__builtin_va_list args;

	if (!held)
		failures++;
	say(held ? "ok - " : "not ok - ");
	__builtin_va_start(args, fmt);
	say_v(fmt, args);
	__builtin_va_end(args);
	say("\n");
	return held;
}

void check_skip(const char *fmt, ...)
{
	__builtin_va_list args;

	say("ok - # SKIP ");
	__builtin_va_start(args, fmt);
	say_v(fmt, args);
	__builtin_va_end(args);
	say("\n");
}

int check_result(void)
{
	return failures ? 1 : 0;
}
