/* gdb_packet.h: frames, numbers and escapes of GDB's remote serial protocol; no I/O. */
#pragma once
#include "vmm/core/base.h"

enum { GDB_PACKET_MAX = 16384 };	/* bytes between $ and #, both ways */

enum gdb_event {
	GDB_MORE,			/* all was used, and nothing is complete */
	GDB_PACKET, GDB_DAMAGED,	/* its checksum is wrong, or it is too long */
	GDB_INTERRUPT, GDB_ACK, GDB_NAK,
};

/* Zeroed is ready.  After GDB_PACKET, and until the next call: the packet, without
 * escapes, and a 0 behind it that does not count. */
struct gdb_parser {
	enum { GDB_OUTSIDE, GDB_DATA, GDB_ESCAPED, GDB_SUM1, GDB_SUM2 } state;
	bool damaged;
	u8 sum, sent;			/* of what came; what the client says */
	size_t len;
	char data[GDB_PACKET_MAX + 1];
};

/* Up to the next event; *from moves on to what follows it. */
enum gdb_event gdb_parse(struct gdb_parser *, const u8 **from, const u8 *end);

/* A packet that is being made; what does not fit is left out, and it is damaged. */
struct gdb_reply {
	size_t len;
	bool overflow;
	/* $, data with every byte escaped at worst, #, two digits. */
	char data[2 * GDB_PACKET_MAX + 4];
};

void gdb_reply_begin(struct gdb_reply *);
void gdb_reply_text(struct gdb_reply *, const char *);
void gdb_reply_hex(struct gdb_reply *, const void *, size_t len);	/* two digits a byte */
void gdb_reply_number(struct gdb_reply *, u64);				/* the fewest digits */
void gdb_reply_raw(struct gdb_reply *, const void *, size_t len);	/* escaped */
void gdb_reply_end(struct gdb_reply *);		/* after an overflow it says E00 */

/* *text moves on behind what was read; 1 to 16 digits, or bytes of two each, or false. */
bool gdb_number(const char **text, u64 *value);
bool gdb_bytes(const char **text, void *to, size_t len);
/* Is it at text?  Then text moves on behind it. */
bool gdb_word(const char **text, const char *word);
