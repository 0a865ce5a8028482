/* gdb_packet.c: GDB's remote serial protocol (Debugging with GDB, appendix E.1). */
#include "vmm/gdb_packet.h"
#include <stdio.h>
#include <string.h>

enum { ESCAPE = '}', ESCAPE_XOR = 0x20, CTRL_C = 3 };

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' :
	       c >= 'a' && c <= 'f' ? c - 'a' + 10 :
	       c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static void begin(struct gdb_parser *p)
{
	p->state = GDB_DATA;
	p->damaged = false;
	p->sum = p->len = 0;
}

static void keep(struct gdb_parser *p, u8 b)
{
	if (p->len < GDB_PACKET_MAX)
		p->data[p->len++] = b;
	else
		p->damaged = true;
}

static void data_byte(struct gdb_parser *p, u8 b)
{
	if (b == '$') {			/* the one before was cut off */
		begin(p);
		return;
	}
	if (b == '#') {
		p->damaged |= p->state == GDB_ESCAPED;
		p->state = GDB_SUM1;
		return;
	}
	p->sum += b;
	if (p->state == GDB_DATA && b == ESCAPE) {
		p->state = GDB_ESCAPED;
		return;
	}
	keep(p, p->state == GDB_ESCAPED ? b ^ ESCAPE_XOR : b);
	p->state = GDB_DATA;
}

static enum gdb_event outside_byte(struct gdb_parser *p, u8 b)
{
	switch (b) {
	case '$':
		begin(p);
		return GDB_MORE;
	case CTRL_C:
		return GDB_INTERRUPT;
	case '+':
		return GDB_ACK;
	case '-':
		return GDB_NAK;
	}
	return GDB_MORE;
}

static enum gdb_event sum_byte(struct gdb_parser *p, u8 b)
{
	int value = digit(b);

	p->damaged |= value < 0;
	p->sent = p->sent << 4 | (value & 0xf);
	if (p->state == GDB_SUM1) {
		p->state = GDB_SUM2;
		return GDB_MORE;
	}
	p->state = GDB_OUTSIDE;
	p->data[p->len] = 0;
	return p->damaged || p->sent != p->sum ? GDB_DAMAGED : GDB_PACKET;
}

enum gdb_event gdb_parse(struct gdb_parser *p, const u8 **from, const u8 *end)
{
	enum gdb_event e = GDB_MORE;

	while (*from < end && e == GDB_MORE) {
		u8 b = *(*from)++;

		switch (p->state) {
		case GDB_OUTSIDE:
			e = outside_byte(p, b);
			break;
		case GDB_DATA:
		case GDB_ESCAPED:
			data_byte(p, b);
			break;
		case GDB_SUM1:
		case GDB_SUM2:
			e = sum_byte(p, b);
		}
	}
	return e;
}

/* --- replies ---------------------------------------------------------------------------------- */

static void put(struct gdb_reply *r, char c)
{
	if (r->len < sizeof(r->data) - 3)
		r->data[r->len++] = c;
	else
		r->overflow = true;
}

void gdb_reply_begin(struct gdb_reply *r)
{
	r->len = 0;
	r->overflow = false;
	put(r, '$');
}

void gdb_reply_text(struct gdb_reply *r, const char *text)
{
	while (*text)
		put(r, *text++);
}

void gdb_reply_hex(struct gdb_reply *r, const void *data, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	const u8 *p = data;

	for (; len; len--, p++) {
		put(r, digits[*p >> 4]);
		put(r, digits[*p & 0xf]);
	}
}

void gdb_reply_number(struct gdb_reply *r, u64 n)
{
	char text[17];

	snprintf(text, sizeof(text), "%llx", (unsigned long long)n);
	gdb_reply_text(r, text);
}

void gdb_reply_raw(struct gdb_reply *r, const void *data, size_t len)
{
	const char *p = data;

	for (; len; len--, p++) {
		bool special = *p == '$' || *p == '#' || *p == ESCAPE || *p == '*';

		if (special)
			put(r, ESCAPE);
		put(r, special ? *p ^ ESCAPE_XOR : *p);
	}
}

void gdb_reply_end(struct gdb_reply *r)
{
	char tail[4];
	u8 sum = 0;

	if (r->overflow) {
		gdb_reply_begin(r);
		gdb_reply_text(r, "E00");
	}
	for (size_t i = 1; i < r->len; i++)
		sum += r->data[i];
	snprintf(tail, sizeof(tail), "#%02x", sum);
	memcpy(r->data + r->len, tail, 3);
	r->len += 3;
}

/* --- requests --------------------------------------------------------------------------------- */

bool gdb_number(const char **text, u64 *value)
{
	const char *p = *text;

	*value = 0;
	for (; digit(*p) >= 0; p++) {
		if (p - *text == 16)
			return false;
		*value = *value << 4 | digit(*p);
	}
	if (p == *text)
		return false;
	*text = p;
	return true;
}

bool gdb_bytes(const char **text, void *to, size_t len)
{
	u8 *out = to;

	for (; len; len--, *text += 2) {
		/* A 0 ends it: what is behind is not looked at. */
		int high = digit((*text)[0]), low = high < 0 ? -1 : digit((*text)[1]);

		if (low < 0)
			return false;
		*out++ = high << 4 | low;
	}
	return true;
}

bool gdb_word(const char **text, const char *word)
{
	size_t len = strlen(word);

	if (strncmp(*text, word, len))
		return false;
	*text += len;
	return true;
}
