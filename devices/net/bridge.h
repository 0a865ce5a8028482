/* bridge.h: a tap of our own as a port of a bridge of the host. */
#pragma once
#include "devices/net/link.h"

/*
 * A new tap, up, on that bridge with its MTU, in those VLANs (none: the
 * bridge's default): its fd, and its name, which begins with "vmm" and the
 * number of process owner.  It goes away with the fd, unless who has that wants it
 * to stay; multi_queue: which is the first of several, the last of which it goes away
 * with.  -EPERM without a message's cure: CAP_NET_ADMIN is lacking, and nothing was made.
 * Messages begin with what is wrong, not with the bridge.
 */
int bridge_new_tap(const char *bridge, const struct vlans *, int owner, bool multi_queue,
		   char name[IFNAMSIZ], struct err *) must_check;

/* The same, made by vmm-bridge-helper for a user who may not. */
int bridge_ask_helper(const char *bridge, const char *vlans, bool multi_queue,
		      char name[IFNAMSIZ], struct err *) must_check;

/* What the helper sends with the tap, or instead of it: a name, or a message. */
enum { BRIDGE_HELPER_TEXT = 400 };

/* /dev/net/tun, which does not block. */
int tun_open(struct err *) must_check;
