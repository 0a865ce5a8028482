/* escape.h: what somebody at a terminal says to vmm among what he types to the guest. */
#pragma once
#include "vmm/core/base.h"

/* Ctrl-A, then x: quit; h: help; Ctrl-A: that byte itself; anything else: nothing. */
struct escape {
	bool began;			/* the byte before was Ctrl-A */
};
enum escape_order { ESCAPE_QUIT = 1, ESCAPE_HELP = 2 };
extern const char escape_help[];

/* Takes it out of what was typed, in place, however that comes in pieces; returns how
 * much is left for the guest.  *orders: a set of what was said. */
size_t escape_filter(struct escape *, u8 *buf, size_t len, unsigned *orders);
