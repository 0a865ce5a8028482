/* net_subnet.h: IPv4 subnets for networks: read, compared, and one found that is free. */
#pragma once
#include "devices/net/link.h"

enum { SUBNET_LEN_MIN = 8, SUBNET_LEN_MAX = 29 };

struct subnet {
	u32 addr;			/* the network's, in host order */
	unsigned len;
};
struct subnet_text { char text[20]; };

int  subnet_parse(const char *text, struct subnet *, struct err *) must_check;
struct subnet_text subnet_text(const struct subnet *);
/* Of the n-th address, without the length. */
struct subnet_text subnet_address(const struct subnet *, u32 n);
u32  subnet_size(const struct subnet *);		/* addresses, all of them */
bool subnet_overlaps(const struct subnet *, const struct subnet *);

struct subnet_list { struct subnet *at; unsigned nr; };

/* A private /24 that overlaps none of the list: the same for the same seed, if it can be. */
int  subnet_choose(const char *seed, const struct subnet_list *, struct subnet *,
		   struct err *) must_check;
/* What this host has addresses in or routes to, but for the default, where it
 * overlaps that subnet, or (NULL) the private ones. */
int  subnets_in_use(struct netlink *, const struct subnet *, struct subnet_list *,
		    struct err *) must_check;
void subnets_free(struct subnet_list *);
