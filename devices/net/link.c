/* link.c: interfaces of the host, by rtnetlink(7). */
#include "devices/net/link.h"
#include <errno.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

bool link_name_valid(const char *name)
{
	size_t len = strlen(name);

	if (!len || len >= IFNAMSIZ || !strcmp(name, ".") || !strcmp(name, ".."))
		return false;
	for (const char *s = name; *s; s++)
		if (*s <= ' ' || *s == '/' || *s == ':' || *s == '%' || *s > '~')
			return false;
	return true;
}

static void copy_text(char *to, size_t room, const struct nlattr *a)
{
	size_t len = a ? MIN(mnl.attr_get_payload_len(a), room - 1) : 0;

	if (len)
		memcpy(to, mnl.attr_get_payload(a), len);
	to[len] = 0;
}

static bool copy_mac(u8 mac[6], const struct nlattr *a)
{
	if (!a || mnl.attr_get_payload_len(a) != 6)
		return false;
	memcpy(mac, mnl.attr_get_payload(a), 6);
	return true;
}

/* --- interfaces ---------------------------------------------------------------------------- */

static void read_bridge(struct link *l, const struct nlattr *data)
{
	const struct nlattr *a[IFLA_BR_VLAN_DEFAULT_PVID + 1];

	l->is_bridge = true;
	netlink_nested(data, a, ARRAY_SIZE(a));
	if (a[IFLA_BR_VLAN_FILTERING])
		l->vlan_filtering = *(u8 *)mnl.attr_get_payload(a[IFLA_BR_VLAN_FILTERING]);
	if (a[IFLA_BR_VLAN_DEFAULT_PVID])
		memcpy(&l->default_pvid, mnl.attr_get_payload(a[IFLA_BR_VLAN_DEFAULT_PVID]), 2);
}

static void read_tap(struct link *l, const struct nlattr *data)
{
	const struct nlattr *a[IFLA_TUN_NUM_DISABLED_QUEUES + 1];

	netlink_nested(data, a, ARRAY_SIZE(a));
	l->queues = netlink_u32(a[IFLA_TUN_NUM_QUEUES]) + netlink_u32(a[IFLA_TUN_NUM_DISABLED_QUEUES]);
}

static void read_link(const struct nlmsghdr *h, struct link *l)
{
	const struct ifinfomsg *i = mnl.nlmsg_get_payload(h);
	const struct nlattr *a[IFLA_LINKINFO + 1], *info[IFLA_INFO_DATA + 1];
	char kind[16];

	netlink_attributes(h, sizeof(*i), a, ARRAY_SIZE(a));
	*l = (struct link){ .index = i->ifi_index, .up = i->ifi_flags & IFF_UP,
			    .master = netlink_u32(a[IFLA_MASTER]), .mtu = netlink_u32(a[IFLA_MTU]) };
	copy_text(l->name, sizeof(l->name), a[IFLA_IFNAME]);
	copy_mac(l->mac, a[IFLA_ADDRESS]);
	netlink_nested(a[IFLA_LINKINFO], info, ARRAY_SIZE(info));
	copy_text(kind, sizeof(kind), info[IFLA_INFO_KIND]);
	if (!strcmp(kind, "bridge"))
		read_bridge(l, info[IFLA_INFO_DATA]);
	else if (!strcmp(kind, "tun"))
		read_tap(l, info[IFLA_INFO_DATA]);
}

struct link_sink {
	void (*fn)(const struct link *, void *);
	void *arg;
};

static void one_link(const struct nlmsghdr *h, void *arg)
{
	struct link_sink *s = arg;
	struct link l;

	if (h && h->nlmsg_type != RTM_NEWLINK)
		return;
	if (h)
		read_link(h, &l);
	s->fn(h ? &l : NULL, s->arg);
}

int link_each(struct netlink *nl, void (*fn)(const struct link *, void *), void *arg)
{
	struct link_sink s = { fn, arg };

	netlink_begin(nl, RTM_GETLINK, NLM_F_DUMP, sizeof(struct ifinfomsg));
	return netlink_ask(nl, one_link, &s);
}

static void keep(const struct link *l, void *arg)
{
	if (l)
		*(struct link *)arg = *l;
}

int link_find(struct netlink *nl, int index, const char *name, struct link *l)
{
	struct link_sink s = { keep, l };
	struct ifinfomsg *i = netlink_begin(nl, RTM_GETLINK, 0, sizeof(*i));

	i->ifi_index = index;
	if (!index)
		mnl.attr_put_strz(netlink_message(nl), IFLA_IFNAME, name);
	return netlink_ask(nl, one_link, &s);
}

int link_delete(struct netlink *nl, int index)
{
	struct ifinfomsg *i = netlink_begin(nl, RTM_DELLINK, 0, sizeof(*i));

	i->ifi_index = index;
	return netlink_ask(nl, NULL, NULL);
}

int link_new_bridge(struct netlink *nl, const struct link *what)
{
	struct nlmsghdr *h = netlink_message(nl);
	struct nlattr *info, *data;

	netlink_begin(nl, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof(struct ifinfomsg));
	mnl.attr_put_strz(h, IFLA_IFNAME, what->name);
	mnl.attr_put(h, IFLA_ADDRESS, 6, what->mac);
	info = mnl.attr_nest_start(h, IFLA_LINKINFO);
	mnl.attr_put_strz(h, IFLA_INFO_KIND, "bridge");
	data = mnl.attr_nest_start(h, IFLA_INFO_DATA);
	mnl.attr_put_u32(h, IFLA_BR_STP_STATE, 0);
	/* Kernels without it refuse even "off". */
	if (what->vlan_filtering)
		mnl.attr_put_u8(h, IFLA_BR_VLAN_FILTERING, 1);
	mnl.attr_nest_end(h, data);
	mnl.attr_nest_end(h, info);
	return netlink_ask(nl, NULL, NULL);
}

int link_filter_vlans(struct netlink *nl, int bridge)
{
	struct nlmsghdr *h = netlink_message(nl);
	struct ifinfomsg *i = netlink_begin(nl, RTM_NEWLINK, 0, sizeof(*i));
	struct nlattr *info, *data;

	i->ifi_index = bridge;
	info = mnl.attr_nest_start(h, IFLA_LINKINFO);
	mnl.attr_put_strz(h, IFLA_INFO_KIND, "bridge");
	data = mnl.attr_nest_start(h, IFLA_INFO_DATA);
	mnl.attr_put_u8(h, IFLA_BR_VLAN_FILTERING, 1);
	mnl.attr_nest_end(h, data);
	mnl.attr_nest_end(h, info);
	return netlink_ask(nl, NULL, NULL);
}

int link_change(struct netlink *nl, int index, const struct link_change *c)
{
	struct nlmsghdr *h = netlink_message(nl);
	struct ifinfomsg *i = netlink_begin(nl, RTM_NEWLINK, 0, sizeof(*i));

	i->ifi_index = index;
	i->ifi_change = i->ifi_flags = c->up ? IFF_UP : 0;
	if (c->mac)
		mnl.attr_put(h, IFLA_ADDRESS, 6, c->mac);
	if (c->mtu)
		mnl.attr_put_u32(h, IFLA_MTU, c->mtu);
	if (c->master)
		mnl.attr_put_u32(h, IFLA_MASTER, c->master);
	return netlink_ask(nl, NULL, NULL);
}

void link_no_address(struct netlink *nl, int index)
{
	struct nlmsghdr *h = netlink_message(nl);
	struct ifinfomsg *i = netlink_begin(nl, RTM_NEWLINK, 0, sizeof(*i));
	struct nlattr *spec, *inet6;

	i->ifi_index = index;
	spec = mnl.attr_nest_start(h, IFLA_AF_SPEC);
	inet6 = mnl.attr_nest_start(h, AF_INET6);
	mnl.attr_put_u8(h, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
	mnl.attr_nest_end(h, inet6);
	mnl.attr_nest_end(h, spec);
	/* A host without IPv6 refuses, and needs none of it. */
	(void)!netlink_ask(nl, NULL, NULL);
}

/* --- VLANs --------------------------------------------------------------------------------- */

static int ask_vlans(struct netlink *nl, u16 type, int port, const struct bridge_vlan_info *v,
		     unsigned nr)
{
	struct nlmsghdr *h = netlink_message(nl);
	struct ifinfomsg *i = netlink_begin(nl, type, 0, sizeof(*i));
	struct nlattr *spec;

	i->ifi_family = AF_BRIDGE;
	i->ifi_index = port;
	spec = mnl.attr_nest_start(h, IFLA_AF_SPEC);
	for (unsigned n = 0; n < nr; n++)
		if (!netlink_put(nl, IFLA_BRIDGE_VLAN_INFO, &v[n], sizeof(v[n])))
			return -EMSGSIZE;
	mnl.attr_nest_end(h, spec);
	return netlink_ask(nl, NULL, NULL);
}

int link_join_vlans(struct netlink *nl, int port, const struct vlans *vlans, u16 pvid)
{
	struct bridge_vlan_info list[VLAN_MAX + 1] = { 0 }, old = { .vid = pvid };
	unsigned nr = 0, id = 0, run;
	int rc = pvid ? ask_vlans(nl, RTM_DELLINK, port, &old, 1) : 0;

	if (rc)
		return rc;
	while ((run = vlans_run(vlans, &id))) {
		list[nr].vid = id;
		if (!vlans->trunk)
			list[nr].flags = BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED;
		nr++;
		if (run > 1) {
			list[nr - 1].flags |= BRIDGE_VLAN_INFO_RANGE_BEGIN;
			list[nr].vid = id + run - 1;
			list[nr++].flags |= BRIDGE_VLAN_INFO_RANGE_END;
		}
		id += run;
	}
	return ask_vlans(nl, RTM_SETLINK, port, list, nr);
}

/* --- addresses, routes, neighbours ----------------------------------------------------------- */

static unsigned family_len(int family)
{
	return family == AF_INET ? 4 : 16;
}

int link_add_address(struct netlink *nl, int index, const struct prefix *p)
{
	struct nlmsghdr *h = netlink_message(nl);
	struct ifaddrmsg *m = netlink_begin(nl, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, sizeof(*m));
	u8 broadcast[4];
	u32 hosts;

	m->ifa_family = p->family;
	m->ifa_prefixlen = p->len;
	m->ifa_index = index;
	/* No other host can have it: it is not looked for. */
	if (p->family == AF_INET6)
		m->ifa_flags = IFA_F_NODAD;
	mnl.attr_put(h, IFA_LOCAL, family_len(p->family), p->addr);
	mnl.attr_put(h, IFA_ADDRESS, family_len(p->family), p->addr);
	if (p->family == AF_INET) {
		hosts = (1ULL << (32 - p->len)) - 1;
		for (int i = 0; i < 4; i++)
			broadcast[i] = p->addr[i] | hosts >> (24 - 8 * i);
		mnl.attr_put(h, IFA_BROADCAST, 4, broadcast);
	}
	return netlink_ask(nl, NULL, NULL);
}

struct route_sink {
	void (*fn)(const struct route *, void *);
	void *arg;
};

static void one_route(const struct nlmsghdr *h, void *arg)
{
	const struct rtmsg *m = h ? mnl.nlmsg_get_payload(h) : NULL;
	const struct nlattr *a[RTA_OIF + 1];
	struct route_sink *s = arg;
	struct route r = { 0 };

	if (!h) {
		s->fn(NULL, s->arg);
		return;
	}
	if (h->nlmsg_type != RTM_NEWROUTE || m->rtm_flags & RTM_F_CLONED)
		return;
	netlink_attributes(h, sizeof(*m), a, ARRAY_SIZE(a));
	r.to.family = m->rtm_family;
	r.to.len = m->rtm_dst_len;
	r.protocol = m->rtm_protocol;
	r.link = netlink_u32(a[RTA_OIF]);
	if (a[RTA_DST])
		memcpy(r.to.addr, mnl.attr_get_payload(a[RTA_DST]), family_len(m->rtm_family));
	s->fn(&r, s->arg);
}

int link_each_route(struct netlink *nl, int family, void (*fn)(const struct route *, void *),
		    void *arg)
{
	struct rtmsg *m = netlink_begin(nl, RTM_GETROUTE, NLM_F_DUMP, sizeof(*m));
	struct route_sink s = { fn, arg };

	m->rtm_family = family;
	return netlink_ask(nl, one_route, &s);
}

struct neighbour_sink {
	void (*fn)(const struct neighbour *, void *);
	void *arg;
};

static void one_neighbour(const struct nlmsghdr *h, void *arg)
{
	const struct ndmsg *m = h ? mnl.nlmsg_get_payload(h) : NULL;
	const struct nlattr *a[NDA_MASTER + 1];
	struct neighbour_sink *s = arg;
	struct neighbour n = { 0 };
	struct nda_cacheinfo age;

	if (!h) {
		s->fn(NULL, s->arg);
		return;
	}
	if (h->nlmsg_type != RTM_NEWNEIGH)
		return;
	netlink_attributes(h, sizeof(*m), a, ARRAY_SIZE(a));
	n.link = m->ndm_ifindex;
	n.bridge = netlink_u32(a[NDA_MASTER]);
	n.has_mac = copy_mac(n.mac, a[NDA_LLADDR]);
	n.is_own = m->ndm_state & NUD_PERMANENT;
	if (a[NDA_VLAN])
		memcpy(&n.vlan, mnl.attr_get_payload(a[NDA_VLAN]), sizeof(n.vlan));
	if (a[NDA_CACHEINFO]) {
		memcpy(&age, mnl.attr_get_payload(a[NDA_CACHEINFO]), sizeof(age));
		n.age_s = age.ndm_updated / sysconf(_SC_CLK_TCK);
	}
	if (a[NDA_DST] && m->ndm_family != AF_BRIDGE) {
		n.at = (struct prefix){ m->ndm_family, 8 * family_len(m->ndm_family), { 0 } };
		memcpy(n.at.addr, mnl.attr_get_payload(a[NDA_DST]), family_len(m->ndm_family));
	}
	s->fn(&n, s->arg);
}

int link_each_neighbour(struct netlink *nl, int family,
			void (*fn)(const struct neighbour *, void *), void *arg)
{
	struct ndmsg *m = netlink_begin(nl, RTM_GETNEIGH, NLM_F_DUMP, sizeof(*m));
	struct neighbour_sink s = { fn, arg };

	m->ndm_family = family;
	return netlink_ask(nl, one_neighbour, &s);
}
