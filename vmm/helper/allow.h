/* allow.h: which bridges, and VLANs of them, a user may put a tap on. */
#pragma once
#include "devices/net/vlan.h"

/*
 * A file of lines: "allow BRIDGE [vlan=LIST|all]", "deny BRIDGE", "include
 * PATH"; BRIDGE may be "all", # begins a comment.  Without vlan= a line allows the
 * VLAN that the bridge gives, with a list only those.  Nothing is allowed that no line allows,
 * and what one line denies none allows.
 */
struct allow {
	const char *bridge;		/* what is asked for */
	const struct vlans *vlans;
	bool allowed, denied;		/* what the lines say to it */
	unsigned depth;			/* of include */
};

/* The text of the file called path; it is cut up.  A line not understood is an error. */
int allow_read(struct allow *, char *text, const char *path, struct err *) must_check;

/*
 * 0: allowed.  The file, and those included, must be root's and writable by root
 * alone; one that is included and that the user may not read says nothing.
 */
int allow_check(const char *path, const char *bridge, const struct vlans *, struct err *) must_check;
