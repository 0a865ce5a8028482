/*
 * serial.c: COM1, polled, and a small printf over it.
 *
 * Spec: National Semiconductor PC16550D.
 */
#include "guest/lib/serial.h"

#include "guest/lib/string.h"

void serial_init(void)
{
	outb(UART_IER, 0);
	outb(UART_LCR, LCR_DLAB);
	outb(UART_DATA, 1);
	outb(UART_IER, 0);
	outb(UART_LCR, LCR_8N1);
	outb(UART_FCR, FCR_ENABLE | FCR_CLEAR_RX | FCR_CLEAR_TX);
	outb(UART_MCR, MCR_DTR | MCR_RTS | MCR_OUT2);
}

void serial_write(const void *buf, size_t len)
{
	const u8 *p = buf;

	while (len) {
		size_t nr = len < UART_FIFO_SIZE ? len : UART_FIFO_SIZE;

		if (!poll_until(inb(UART_LSR) & LSR_THRE))
			return;
		outsb(UART_DATA, p, nr);
		p += nr;
		len -= nr;
	}
}

int serial_read(void)
{
	return inb(UART_LSR) & LSR_DATA ? inb(UART_DATA) : -1;
}

void serial_drain(void)
{
	poll_until(inb(UART_LSR) & LSR_TEMT);
}

struct line {
	char text[256];
	size_t len;
};

static void put(struct line *l, char c)
{
	if (l->len < sizeof(l->text))
		l->text[l->len++] = c;
}

static void put_padded(struct line *l, const char *s, size_t len, size_t width, char pad)
{
	for (; width > len; width--)
		put(l, pad);
	while (len--)
		put(l, *s++);
}

static void put_number(struct line *l, u64 v, unsigned base, bool minus, size_t width, char pad)
{
	char digits[24];
	size_t at = sizeof(digits);

	do
		digits[--at] = "0123456789abcdef"[v % base];
	while (v /= base);
	if (minus)
		digits[--at] = '-';
	put_padded(l, digits + at, sizeof(digits) - at, width, pad);
}

/* What follows one '%'; returns the end of it. */
static const char *put_field(struct line *l, const char *fmt, __builtin_va_list *args)
{
	char pad = *fmt == '0' ? '0' : ' ';
	size_t width = 0, wide = 0;
	u64 v;

	while (*fmt >= '0' && *fmt <= '9')
		width = width * 10 + (size_t)(*fmt++ - '0');
	for (; *fmt == 'l' || *fmt == 'z'; fmt++)
		wide++;

	if (*fmt == 's') {
		const char *s = __builtin_va_arg(*args, const char *);

		put_padded(l, s, strlen(s), width, ' ');
	} else if (*fmt == 'c') {
		put(l, (char)__builtin_va_arg(*args, int));
	} else if (*fmt == '%') {
		put(l, '%');
	} else if (*fmt == 'd') {
		long long n = wide ? __builtin_va_arg(*args, long long)
				   : __builtin_va_arg(*args, int);

		put_number(l, n < 0 ? -(u64)n : (u64)n, 10, n < 0, width, pad);
	} else {
		v = wide ? __builtin_va_arg(*args, u64) : __builtin_va_arg(*args, u32);
		put_number(l, v, *fmt == 'x' ? 16 : 10, false, width, pad);
	}
	return fmt + 1;
}

void say_v(const char *fmt, __builtin_va_list given)
{
	struct line l;
	__builtin_va_list args;

	l.len = 0;
	__builtin_va_copy(args, given);
	while (*fmt) {
		if (*fmt == '%')
			fmt = put_field(&l, fmt + 1, &args);
		else
			put(&l, *fmt++);
	}
	__builtin_va_end(args);
	serial_write(l.text, l.len);
}

void say(const char *fmt, ...)
{
	__builtin_va_list args;

	__builtin_va_start(args, fmt);
	say_v(fmt, args);
	__builtin_va_end(args);
}
