/* net_subnet.c: which private subnet (RFC 1918) a network gets. */
#include "vmm/net_subnet.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct subnet private_space[] = {
	{ 0xc0a80000, 16 }, { 0xac100000, 12 }, { 0x0a000000, 8 },
};

u32 subnet_size(const struct subnet *s)
{
	return 1u << (32 - s->len);
}

static u32 mask(unsigned len)
{
	return len ? ~0u << (32 - len) : 0;
}

bool subnet_overlaps(const struct subnet *a, const struct subnet *b)
{
	return !((a->addr ^ b->addr) & mask(MIN(a->len, b->len)));
}

struct subnet_text subnet_address(const struct subnet *s, u32 n)
{
	struct subnet_text t;
	u32 a = s->addr + n;

	snprintf(t.text, sizeof(t.text), "%u.%u.%u.%u", a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255);
	return t;
}

struct subnet_text subnet_text(const struct subnet *s)
{
	struct subnet_text t = subnet_address(s, 0);
	size_t n = strlen(t.text);

	snprintf(t.text + n, sizeof(t.text) - n, "/%u", s->len);
	return t;
}

int subnet_parse(const char *text, struct subnet *s, struct err *err)
{
	const char *slash = strchr(text, '/');
	char addr[INET_ADDRSTRLEN], *end = NULL;
	struct in_addr in;

	snprintf(addr, sizeof(addr), "%.*s", slash ? (int)(slash - text) : 0, text);
	if (slash && slash[1] >= '1' && slash[1] <= '9')
		s->len = strtoul(slash + 1, &end, 10);
	if (!end || *end || end - slash > 3 || slash - text >= (int)sizeof(addr) ||
	    inet_pton(AF_INET, addr, &in) != 1)
		return err_set(err, -EINVAL, "'%s' is not a subnet; write it like 10.5.0.0/24", text);
	if (s->len < SUBNET_LEN_MIN || s->len > SUBNET_LEN_MAX)
		return err_set(err, -EINVAL, "'%s' does not have a length of /%d to /%d", text,
			       SUBNET_LEN_MIN, SUBNET_LEN_MAX);
	s->addr = ntohl(in.s_addr) & mask(s->len);
	if (s->addr != ntohl(in.s_addr))
		return err_set(err, -EINVAL, "'%s' is an address in a subnet; the subnet is %s", text,
			       subnet_text(s).text);
	if (s->addr >> 24 == 0 || s->addr >> 24 == 127 || s->addr >> 28 >= 14)
		return err_set(err, -EINVAL, "'%s' is not for hosts", text);
	return 0;
}

int subnet_choose(const char *seed, const struct subnet_list *used, struct subnet *out,
		  struct err *err)
{
	u32 hash = 0x811c9dc5;			/* FNV-1a */

	for (const char *s = seed; *s; s++)
		hash = (hash ^ (u8)*s) * 0x01000193;
	for (unsigned p = 0; p < ARRAY_SIZE(private_space); p++) {
		u32 slots = 1u << (24 - private_space[p].len);

		for (u32 i = 0; i < slots; i++) {
			bool is_free = true;

			*out = (struct subnet){ private_space[p].addr + ((hash + i) % slots << 8), 24 };
			for (unsigned n = 0; n < used->nr && is_free; n++)
				is_free = !subnet_overlaps(out, &used->at[n]);
			if (is_free)
				return 0;
		}
	}
	return err_set(err, -EADDRNOTAVAIL, "this host has routes to all private subnets; name one that "
		       "it can spare: vmm net create NAME --subnet CIDR");
}

struct collection {
	const struct subnet *near;
	unsigned nr_near;
	struct subnet_list *list;
	bool failed;
};

static void collect(const struct route *r, void *arg)
{
	struct collection *c = arg;
	struct subnet s, *more;
	bool is_near = false;

	if (!r) {
		c->list->nr = 0;
		return;
	}
	/* A default route, also in halves as VPNs have it, is no claim to an address. */
	if (r->to.len < SUBNET_LEN_MIN)
		return;
	s = (struct subnet){ (u32)r->to.addr[0] << 24 | r->to.addr[1] << 16 | r->to.addr[2] << 8 |
			     r->to.addr[3], r->to.len };
	for (unsigned i = 0; i < c->nr_near; i++)
		is_near |= subnet_overlaps(&s, &c->near[i]);
	if (!is_near)
		return;
	for (unsigned i = 0; i < c->list->nr; i++)
		if (c->list->at[i].len <= s.len && subnet_overlaps(&c->list->at[i], &s))
			return;
	more = reallocarray(c->list->at, c->list->nr + 1, sizeof(*more));
	if (!more) {
		c->failed = true;
		return;
	}
	c->list->at = more;
	more[c->list->nr++] = s;
}

int subnets_in_use(struct netlink *nl, const struct subnet *near, struct subnet_list *list,
		   struct err *err)
{
	struct collection c = { near ?: private_space, near ? 1 : ARRAY_SIZE(private_space), list,
				false };
	int rc;

	*list = (struct subnet_list){ 0 };
	rc = link_each_route(nl, AF_INET, collect, &c);
	if (!rc && c.failed)
		rc = -ENOMEM;
	if (rc) {
		subnets_free(list);
		return err_set(err, rc, "the routes of this host: %s", strerror(-rc));
	}
	return 0;
}

void subnets_free(struct subnet_list *list)
{
	free(list->at);
	*list = (struct subnet_list){ 0 };
}
