/* responder.h: one station of IPv4 that a guest can ask by TCP, made of memory alone. */
#pragma once
#include <netinet/in.h>
#include "vmm/core/base.h"
#include "vmm/core/err.h"

/*
 * A guest's frames to it go in, its own come out; it has no descriptor, makes no system call
 * and waits for nobody.  Of a connection it takes one request, which ends with an empty line,
 * and closes it behind the answer (RFC 9293, 826, 791).  The wire is the guest's memory:
 * nothing on it is reordered, and what comes out of order is dropped.
 */
struct responder;

enum {
	RESPONDER_CONNECTIONS = 32,	/* one more, and the one that was quiet longest goes */
	RESPONDER_REQUEST_MAX = 8192,
	RESPONDER_FRAME_MAX = 1514,
	RESPONDER_HEAD = 42,		/* of a frame: what responder_takes looks at */
};

struct responder_options {
	struct in_addr address;
	u16 port;			/* in the host's order; all others refuse */
	/* A whole request, or (too_long) the beginning of one: what to answer, from malloc; NULL:
	 * the connection is reset. */
	char *(*answer)(void *arg, const char *request, size_t len, bool too_long, size_t *answer_len);
	void *arg;
};

struct responder_counters {
	u64 rx_frames, rx_bad, rx_unusual, tx_frames, tx_bytes, tx_errors;
	u64 connections, closed;
};

int  responder_new(struct responder **, const struct responder_options *, struct err *) must_check;
void responder_free(struct responder *);	/* NULL is allowed */
/* As if nobody had ever asked. */
void responder_reset(struct responder *);

/* --- one thread at a time; now is any clock of ns that does not go back ---------------------- */

/* Is the frame for it, by its first bytes, RESPONDER_HEAD of them if it has so many? */
bool responder_takes(const struct responder *, const u8 *head, size_t len);
/* One that it takes.  summed: its checksums are right, or somebody else's to make. */
void responder_input(struct responder *, const u8 *frame, size_t len, bool summed, u64 now);
/* The next frame for the guest, of its length; 0: there is none now. */
size_t responder_output(struct responder *, u8 frame[RESPONDER_FRAME_MAX], u64 now);
bool responder_has_output(const struct responder *);
/* When responder_late is to be called next; 0: not before there is more input. */
u64  responder_due(const struct responder *);
void responder_late(struct responder *, u64 now);
/* The guest stood still until now: nothing is late because of that. */
void responder_goes_on(struct responder *, u64 now);
struct responder_counters *responder_counters(struct responder *);
