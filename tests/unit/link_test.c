/* link_test.c: interfaces and bridges of the host: rtnetlink's messages by hand, and a kernel's own in a namespace. */
#include "devices/net/link.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include "devices/net/bridge.h"
#include "tests/lib/recorder.h"
#include "tests/lib/test.h"

enum { PORT = 77, ASKED = 16, DATAGRAMS = 64, ROOM = 32768, TRIES = 10 };

static struct err err;
static struct netlink *nl;
static struct libmnl library;		/* as it is */
static bool own_network;

/* --- a kernel that says what it was told to -------------------------------------------------------- */

/* Each request takes datagrams from the script, until one ends its answer. */
static struct {
	_Alignas(8) u8 asked[ASKED][ROOM];
	int nr_asked;
	struct datagram { _Alignas(8) u8 data[2048]; size_t len; } script[DATAGRAMS];
	int nr_script, next;
	struct nlmsghdr *last;		/* is being written */
	int nr_sockets, nr_opened;
	int fail_open, fail_bind, fail_send, fail_receive;	/* -errno */
	int open_after;			/* so many opens go well before one fails */
} kernel;

static struct mnl_socket *open_socket(int bus, int flags)
{
	assert_int_equal(bus, NETLINK_ROUTE);
	assert_int_equal(flags, SOCK_CLOEXEC);
	if (kernel.fail_open && !kernel.open_after--) {
		errno = -kernel.fail_open;
		return NULL;
	}
	kernel.nr_sockets++;
	kernel.nr_opened++;
	return (struct mnl_socket *)&kernel;
}

static int bind_socket(struct mnl_socket *s, unsigned groups, pid_t pid)
{
	assert_ptr_equal(s, &kernel);
	assert_int_equal(groups, 0);
	assert_int_equal(pid, MNL_SOCKET_AUTOPID);
	errno = -kernel.fail_bind;
	return errno ? -1 : 0;
}

static int close_socket(struct mnl_socket *s)
{
	assert_ptr_equal(s, &kernel);
	kernel.nr_sockets--;
	return 0;
}

static unsigned port_of(const struct mnl_socket *s)
{
	(void)s;
	return PORT;
}

static ssize_t take_request(const struct mnl_socket *s, const void *buf, size_t len)
{
	const struct nlmsghdr *h = buf;

	(void)s;
	errno = -kernel.fail_send;
	if (errno)
		return -1;
	assert_in_range(kernel.nr_asked, 0, ASKED - 1);
	assert_in_range(len, NLMSG_HDRLEN, ROOM);
	assert_int_equal(h->nlmsg_len, len);
	assert_true(h->nlmsg_flags & NLM_F_REQUEST);
	memcpy(kernel.asked[kernel.nr_asked++], buf, len);
	return len;
}

static ssize_t give_answer(const struct mnl_socket *s, void *buf, size_t room)
{
	struct datagram *d = &kernel.script[kernel.next];
	u32 seq = ((struct nlmsghdr *)kernel.asked[kernel.nr_asked - 1])->nlmsg_seq;

	(void)s;
	errno = -kernel.fail_receive;
	if (errno)
		return -1;
	assert_in_range(kernel.next, 0, kernel.nr_script - 1);
	kernel.next++;
	for (size_t at = 0; at < d->len;) {
		struct nlmsghdr *h = (void *)(d->data + at);

		h->nlmsg_seq = seq;
		h->nlmsg_pid = PORT;
		at += NLMSG_ALIGN(h->nlmsg_len);
	}
	assert_true(room >= sizeof(d->data));
	memcpy(buf, d->data, d->len);
	return d->len;
}

/* The next message of the datagram that is being written, which end() ends. */
static void say(u16 type, u16 flags, const void *header, size_t len)
{
	struct datagram *d = &kernel.script[kernel.nr_script];

	assert_in_range(kernel.nr_script, 0, DATAGRAMS - 1);
	if (kernel.last)
		d->len += NLMSG_ALIGN(kernel.last->nlmsg_len);
	kernel.last = library.nlmsg_put_header(d->data + d->len);
	kernel.last->nlmsg_type = type;
	kernel.last->nlmsg_flags = flags;
	memcpy(library.nlmsg_put_extra_header(kernel.last, len), header, len);
}

static void end(void)
{
	kernel.script[kernel.nr_script++].len += NLMSG_ALIGN(kernel.last->nlmsg_len);
	kernel.last = NULL;
}

static void put(u16 type, const void *data, size_t len)
{
	library.attr_put(kernel.last, type, len, data);
}

static void put_u32(u16 type, u32 v) { put(type, &v, sizeof(v)); }

/* 0: yes. */
static void answer(int code)
{
	struct nlmsgerr e = { .error = code };

	say(NLMSG_ERROR, 0, &e, sizeof(e));
	end();
}

static void done(u16 flags)
{
	say(NLMSG_DONE, NLM_F_MULTI | flags, &(int){ 0 }, sizeof(int));
	end();
}

static void forget(void)
{
	kernel.nr_asked = kernel.nr_script = kernel.next = 0;
	memset(kernel.script, 0, sizeof(kernel.script));
}

static int setup(void **state)
{
	(void)state;
	memset(&kernel, 0, sizeof(kernel));
	mnl = library;
	mnl.socket_open2 = open_socket;
	mnl.socket_bind = bind_socket;
	mnl.socket_close = close_socket;
	mnl.socket_get_portid = port_of;
	mnl.socket_sendto = take_request;
	mnl.socket_recvfrom = give_answer;
	return netlink_open(&nl, &err);
}

static int teardown(void **state)
{
	(void)state;
	assert_int_equal(kernel.next, kernel.nr_script);	/* it was all read */
	netlink_close(nl);
	nl = NULL;
	assert_int_equal(kernel.nr_sockets, 0);
	mnl = library;
	recorder_null = NULL;
	return 0;
}

/* --- what it was asked, read without the library ------------------------------------------------------ */

static const struct nlattr *find(const void *from, size_t len, unsigned type)
{
	for (size_t at = 0; at + NLA_HDRLEN <= len;) {
		const struct nlattr *a = (const void *)((const u8 *)from + at);

		assert_in_range(a->nla_len, NLA_HDRLEN, len - at);
		if ((a->nla_type & NLA_TYPE_MASK) == type)
			return a;
		at += NLA_ALIGN(a->nla_len);
	}
	return NULL;
}

static const void *value(const struct nlattr *a) { return a + 1; }
static size_t length(const struct nlattr *a) { return a->nla_len - NLA_HDRLEN; }

static const struct nlattr *within(const struct nlattr *a, unsigned type)
{
	assert_non_null(a);
	return find(value(a), length(a), type);
}

static const void *asked(int i, u16 type)
{
	const struct nlmsghdr *h = (void *)kernel.asked[i];

	assert_in_range(i, 0, kernel.nr_asked - 1);
	assert_int_equal(h->nlmsg_type, type);
	return NLMSG_DATA(h);
}

static const struct nlattr *asked_attr(int i, size_t header_len, unsigned type)
{
	const struct nlmsghdr *h = (void *)kernel.asked[i];
	size_t at = NLMSG_HDRLEN + NLMSG_ALIGN(header_len);

	return find(kernel.asked[i] + at, h->nlmsg_len - at, type);
}

static bool is_u32(const struct nlattr *a, u32 v)
{
	return a && length(a) == 4 && !memcmp(value(a), &v, 4);
}

/* --- the socket ------------------------------------------------------------------------------------------ */

static void test_open_fails(void **state)
{
	struct netlink *other;

	(void)state;
	kernel.fail_open = -EMFILE;
	assert_int_equal(netlink_open(&other, &err), -EMFILE);
	assert_says(err.msg, "netlink: Too many open files");
	kernel.fail_open = 0;
	kernel.fail_bind = -EADDRINUSE;
	assert_int_equal(netlink_open(&other, &err), -EADDRINUSE);
	assert_says(err.msg, "netlink: Address already in use");
	assert_int_equal(kernel.nr_sockets, 1);
	netlink_close(NULL);
}

static void test_ask_fails(void **state)
{
	struct link l;

	(void)state;
	answer(-ENODEV);
	assert_int_equal(link_find(nl, 0, "no0", &l), -ENODEV);
	kernel.fail_send = -ENOBUFS;
	assert_int_equal(link_find(nl, 0, "no0", &l), -ENOBUFS);
	kernel.fail_send = 0;
	kernel.fail_receive = -ENOMEM;
	assert_int_equal(link_find(nl, 0, "no0", &l), -ENOMEM);
	kernel.fail_receive = 0;
	answer(0);
	assert_int_equal(link_delete(nl, 5), 0);	/* the socket is as good as before */
	assert_int_equal(((const struct ifinfomsg *)asked(2, RTM_DELLINK))->ifi_index, 5);
}

/* --- interfaces ---------------------------------------------------------------------------------------------- */

static void say_link(int index, const char *name, unsigned flags)
{
	struct ifinfomsg i = { .ifi_index = index, .ifi_flags = flags };

	say(RTM_NEWLINK, NLM_F_MULTI, &i, sizeof(i));
	if (name)
		put(IFLA_IFNAME, name, strlen(name) + 1);
}

static void say_bridge(int index, const char *name, u8 filtering, u16 pvid)
{
	struct nlattr *info, *data;

	say_link(index, name, IFF_UP);
	put(IFLA_ADDRESS, "\2\0\0\0\0\11", 6);
	put_u32(IFLA_MTU, 9000);
	info = library.attr_nest_start(kernel.last, IFLA_LINKINFO);
	put(IFLA_INFO_KIND, "bridge", 7);
	data = library.attr_nest_start(kernel.last, IFLA_INFO_DATA);
	put(IFLA_BR_VLAN_FILTERING, &filtering, 1);
	put(IFLA_BR_VLAN_DEFAULT_PVID, &pvid, 2);
	library.attr_nest_end(kernel.last, data);
	library.attr_nest_end(kernel.last, info);
}

static void test_find(void **state)
{
	struct link l;

	(void)state;
	say_bridge(3, "br0", 1, 100);
	end();
	answer(0);
	assert_int_equal(link_find(nl, 0, "br0", &l), 0);
	assert_int_equal(((const struct ifinfomsg *)asked(0, RTM_GETLINK))->ifi_index, 0);
	assert_string_equal(value(asked_attr(0, sizeof(struct ifinfomsg), IFLA_IFNAME)), "br0");
	assert_true(l.index == 3 && l.up && l.is_bridge && l.vlan_filtering && !l.master);
	assert_int_equal(l.mtu, 9000);
	assert_int_equal(l.default_pvid, 100);
	assert_string_equal(l.name, "br0");
	assert_memory_equal(l.mac, "\2\0\0\0\0\11", 6);
	/* By its number, and with less than others have: a long address, no kind, a bridge that tells nothing. */
	forget();
	say_link(4, NULL, 0);
	put(IFLA_ADDRESS, "12345678", 8);
	put_u32(IFLA_MASTER, 3);
	put(IFLA_MTU, "\1", 1);
	end();
	answer(0);
	assert_int_equal(link_find(nl, 4, NULL, &l), 0);
	assert_int_equal(((const struct ifinfomsg *)asked(0, RTM_GETLINK))->ifi_index, 4);
	assert_null(asked_attr(0, sizeof(struct ifinfomsg), IFLA_IFNAME));
	assert_true(l.index == 4 && !l.up && !l.is_bridge && l.master == 3 && !l.mtu && !*l.name);
	assert_memory_equal(l.mac, "\0\0\0\0\0\0", 6);
}

static void test_names(void **state)
{
	static const char *const good[] = { "a", "eth0", "vmm-a", "br.100", "fifteen_letters" };
	static const char *const bad[] = { "", ".", "..", "a/b", "a b", "a:b", "a%d", "a\n", "sixteen_letters_", "\xc3\xa4" };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(good); i++)
		assert_true(link_name_valid(good[i]));
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(link_name_valid(bad[i]));
}

/* --- dumps ------------------------------------------------------------------------------------------------------ */

struct seen {
	int begins, nr;
	struct link link[4];
	struct route route[4];
	struct neighbour neighbour[4];
};

static int next_of(struct seen *s, const void *item)
{
	if (!item) {
		s->begins++;
		s->nr = 0;
		return -1;
	}
	assert_in_range(s->nr, 0, 3);
	return s->nr++;
}

static void see_link(const struct link *l, void *arg)
{
	struct seen *s = arg;
	int i = next_of(s, l);

	if (l)
		s->link[i] = *l;
}

static void see_route(const struct route *r, void *arg)
{
	struct seen *s = arg;
	int i = next_of(s, r);

	if (r)
		s->route[i] = *r;
}

static void see_neighbour(const struct neighbour *n, void *arg)
{
	struct seen *s = arg;
	int i = next_of(s, n);

	if (n)
		s->neighbour[i] = *n;
}

static void test_each_link(void **state)
{
	struct ifinfomsg gone = { .ifi_index = 9 };
	struct seen s = { 0 };

	(void)state;
	say_link(1, "lo", IFF_UP);
	say_bridge(2, "br0", 0, 1);
	end();
	say_link(3, "eth0", 0);
	say(RTM_DELLINK, NLM_F_MULTI, &gone, sizeof(gone));
	end();
	done(0);
	assert_int_equal(link_each(nl, see_link, &s), 0);
	assert_int_equal(((struct nlmsghdr *)kernel.asked[0])->nlmsg_flags, NLM_F_REQUEST | NLM_F_DUMP);
	assert_true(s.begins == 1 && s.nr == 3);
	assert_string_equal(s.link[0].name, "lo");
	assert_true(s.link[1].is_bridge && !s.link[1].vlan_filtering && s.link[1].default_pvid == 1);
	assert_true(s.link[2].index == 3 && !s.link[2].up);
}

/* What changed while it was told is told again, by a socket without the rest of it. */
static void test_interrupted(void **state)
{
	struct seen s = { 0 };

	(void)state;
	for (int i = 0; i < 3; i++) {
		say_link(1 + i, "lo", IFF_UP);
		kernel.last->nlmsg_flags |= i < 2 ? NLM_F_DUMP_INTR : 0;
		end();
	}
	done(0);
	assert_int_equal(link_each(nl, see_link, &s), 0);
	assert_true(s.begins == 3 && s.nr == 1 && s.link[0].index == 3);
	assert_int_equal(kernel.nr_opened, 3);
	assert_int_equal(kernel.nr_sockets, 1);
	/* It never comes to an end; there is no other socket. */
	forget();
	for (int i = 0; i < TRIES; i++) {
		say_link(1, "lo", IFF_UP);
		kernel.last->nlmsg_flags |= NLM_F_DUMP_INTR;
		end();
	}
	s.begins = 0;
	assert_int_equal(link_each(nl, see_link, &s), -EINTR);
	assert_int_equal(s.begins, TRIES);
	forget();
	for (int i = 0; i < 2; i++) {
		say_link(1, "lo", IFF_UP);
		kernel.last->nlmsg_flags |= NLM_F_DUMP_INTR;
		end();
	}
	/* The rest of the last answer is not taken for this one's: a socket more. */
	kernel.fail_open = -EMFILE;
	kernel.open_after = 2;
	s.begins = 0;
	assert_int_equal(link_each(nl, see_link, &s), -EMFILE);
	assert_int_equal(s.begins, 2);
	assert_int_equal(kernel.nr_sockets, 1);
}

static void test_each_route(void **state)
{
	struct rtmsg m = { .rtm_family = AF_INET, .rtm_dst_len = 24, .rtm_protocol = RTPROT_KERNEL };
	struct seen s = { 0 };

	(void)state;
	say(RTM_NEWROUTE, NLM_F_MULTI, &m, sizeof(m));
	put(RTA_DST, "\12\11\0\0", 4);
	put_u32(RTA_OIF, 7);
	m.rtm_flags = RTM_F_CLONED;
	say(RTM_NEWROUTE, NLM_F_MULTI, &m, sizeof(m));
	m.rtm_flags = 0;
	say(RTM_DELROUTE, NLM_F_MULTI, &m, sizeof(m));
	m = (struct rtmsg){ .rtm_family = AF_INET, .rtm_protocol = RTPROT_STATIC };
	say(RTM_NEWROUTE, NLM_F_MULTI, &m, sizeof(m));	/* the default, by several links */
	end();
	done(0);
	assert_int_equal(link_each_route(nl, AF_INET, see_route, &s), 0);
	assert_int_equal(((const struct rtmsg *)asked(0, RTM_GETROUTE))->rtm_family, AF_INET);
	assert_true(s.begins == 1 && s.nr == 2);
	assert_true(s.route[0].link == 7 && s.route[0].protocol == RTPROT_KERNEL && s.route[0].to.len == 24);
	assert_memory_equal(s.route[0].to.addr, "\12\11\0\0", 4);
	assert_true(!s.route[1].link && !s.route[1].to.len && s.route[1].protocol == RTPROT_STATIC);
}

static void test_each_neighbour(void **state)
{
	struct ndmsg m = { .ndm_family = AF_BRIDGE, .ndm_ifindex = 5, .ndm_state = NUD_REACHABLE };
	struct nda_cacheinfo age = { .ndm_updated = 3 * sysconf(_SC_CLK_TCK) };
	struct seen s = { 0 };
	u8 six[16] = { 0xfd, [15] = 9 };

	(void)state;
	say(RTM_NEWNEIGH, NLM_F_MULTI, &m, sizeof(m));
	put(NDA_LLADDR, "\2\0\0\0\0\1", 6);
	put_u32(NDA_MASTER, 3);
	put(NDA_VLAN, "\144\0", 2);
	put(NDA_CACHEINFO, &age, sizeof(age));
	put(NDA_DST, "\12\0\0\1", 4);		/* of a tunnel: not the station's */
	say(RTM_DELNEIGH, NLM_F_MULTI, &m, sizeof(m));
	m.ndm_state = NUD_PERMANENT;
	say(RTM_NEWNEIGH, NLM_F_MULTI, &m, sizeof(m));
	end();
	m = (struct ndmsg){ .ndm_family = AF_INET6, .ndm_ifindex = 6 };
	say(RTM_NEWNEIGH, NLM_F_MULTI, &m, sizeof(m));
	put(NDA_DST, six, sizeof(six));
	end();
	done(0);
	assert_int_equal(link_each_neighbour(nl, AF_BRIDGE, see_neighbour, &s), 0);
	assert_int_equal(((const struct ndmsg *)asked(0, RTM_GETNEIGH))->ndm_family, AF_BRIDGE);
	assert_true(s.begins == 1 && s.nr == 3);
	assert_true(s.neighbour[0].link == 5 && s.neighbour[0].bridge == 3 && s.neighbour[0].vlan == 100);
	assert_true(s.neighbour[0].has_mac && !s.neighbour[0].is_own && s.neighbour[0].age_s == 3);
	assert_memory_equal(s.neighbour[0].mac, "\2\0\0\0\0\1", 6);
	assert_int_equal(s.neighbour[0].at.len, 0);
	assert_true(!s.neighbour[1].has_mac && s.neighbour[1].is_own && !s.neighbour[1].vlan);
	assert_true(s.neighbour[2].at.family == AF_INET6 && s.neighbour[2].at.len == 128);
	assert_memory_equal(s.neighbour[2].at.addr, six, 16);
}

/* --- changes ------------------------------------------------------------------------------------------------------- */

static void test_new_bridge(void **state)
{
	struct link what = { .name = "vmm-a", .mac = { 2, 0, 0, 0, 0, 1 } };
	const size_t len = sizeof(struct ifinfomsg);
	const struct nlattr *info;

	(void)state;
	for (int filters = 0; filters < 2; filters++) {
		what.vlan_filtering = filters;
		answer(filters ? -EEXIST : 0);
		assert_int_equal(link_new_bridge(nl, &what), filters ? -EEXIST : 0);
		asked(filters, RTM_NEWLINK);
		assert_int_equal(((struct nlmsghdr *)kernel.asked[filters])->nlmsg_flags,
				 NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
		assert_string_equal(value(asked_attr(filters, len, IFLA_IFNAME)), "vmm-a");
		assert_memory_equal(value(asked_attr(filters, len, IFLA_ADDRESS)), what.mac, 6);
		info = asked_attr(filters, len, IFLA_LINKINFO);
		assert_string_equal(value(within(info, IFLA_INFO_KIND)), "bridge");
		info = within(info, IFLA_INFO_DATA);
		assert_true(is_u32(within(info, IFLA_BR_STP_STATE), 0));
		assert_int_equal(!!within(info, IFLA_BR_VLAN_FILTERING), filters);
	}
	answer(-EOPNOTSUPP);
	assert_int_equal(link_filter_vlans(nl, 8), -EOPNOTSUPP);
	assert_int_equal(((const struct ifinfomsg *)asked(2, RTM_NEWLINK))->ifi_index, 8);
	info = within(asked_attr(2, len, IFLA_LINKINFO), IFLA_INFO_DATA);
	assert_int_equal(*(const u8 *)value(within(info, IFLA_BR_VLAN_FILTERING)), 1);
}

static void test_change(void **state)
{
	static const u8 mac[6] = { 0xfe, 1, 2, 3, 4, 5 };
	const size_t len = sizeof(struct ifinfomsg);
	const struct ifinfomsg *i;

	(void)state;
	answer(0);
	assert_int_equal(link_change(nl, 4, &(struct link_change){ .up = true }), 0);
	i = asked(0, RTM_NEWLINK);
	assert_true(i->ifi_index == 4 && i->ifi_flags == IFF_UP && i->ifi_change == IFF_UP);
	assert_true(!asked_attr(0, len, IFLA_MTU) && !asked_attr(0, len, IFLA_MASTER));
	answer(0);
	assert_int_equal(link_change(nl, 4, &(struct link_change){ .mtu = 9000, .master = 3, .mac = mac }), 0);
	i = asked(1, RTM_NEWLINK);
	assert_true(!i->ifi_flags && !i->ifi_change);
	assert_true(is_u32(asked_attr(1, len, IFLA_MTU), 9000) && is_u32(asked_attr(1, len, IFLA_MASTER), 3));
	assert_memory_equal(value(asked_attr(1, len, IFLA_ADDRESS)), mac, 6);
}

static void test_add_address(void **state)
{
	static const struct { struct prefix p; u8 broadcast[4]; } four[] = {
		{ { AF_INET, 24, { 10, 9, 8, 1 } }, { 10, 9, 8, 255 } },
		{ { AF_INET, 29, { 203, 0, 113, 1 } }, { 203, 0, 113, 7 } },
		{ { AF_INET, 12, { 172, 16, 0, 1 } }, { 172, 31, 255, 255 } },
	};
	const struct prefix six = { AF_INET6, 64, { 0xfd, 1, [15] = 1 } };
	const size_t len = sizeof(struct ifaddrmsg);
	const struct ifaddrmsg *m;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(four); i++) {
		answer(0);
		assert_int_equal(link_add_address(nl, 6, &four[i].p), 0);
		m = asked(i, RTM_NEWADDR);
		assert_true(m->ifa_family == AF_INET && m->ifa_index == 6 && m->ifa_prefixlen == four[i].p.len);
		assert_memory_equal(value(asked_attr(i, len, IFA_LOCAL)), four[i].p.addr, 4);
		assert_memory_equal(value(asked_attr(i, len, IFA_BROADCAST)), four[i].broadcast, 4);
	}
	answer(-EEXIST);
	assert_int_equal(link_add_address(nl, 6, &six), -EEXIST);
	m = asked(3, RTM_NEWADDR);
	assert_true(m->ifa_family == AF_INET6 && m->ifa_prefixlen == 64 && m->ifa_flags == IFA_F_NODAD);
	assert_int_equal(length(asked_attr(3, len, IFA_LOCAL)), 16);
	assert_null(asked_attr(3, len, IFA_BROADCAST));
}

/* --- VLANs ----------------------------------------------------------------------------------------------------------- */

/* "100 f6, 200-299": each with its flags, as the kernel would have them. */
static void assert_vlans(int request, u16 type, const char *expected)
{
	const struct ifinfomsg *i = asked(request, type);
	const struct nlattr *spec = asked_attr(request, sizeof(*i), IFLA_AF_SPEC);
	const struct bridge_vlan_info *v;
	char text[200] = "";

	assert_true(i->ifi_family == AF_BRIDGE && i->ifi_index == 5);
	for (size_t at = 0; at < length(spec); at += NLA_ALIGN(NLA_HDRLEN + sizeof(*v))) {
		const struct nlattr *a = (const void *)((const u8 *)value(spec) + at);

		assert_int_equal(a->nla_type, IFLA_BRIDGE_VLAN_INFO);
		assert_int_equal(length(a), sizeof(*v));
		v = value(a);
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%u:%x ", v->vid, v->flags);
	}
	assert_string_equal(text, expected);
}

static void test_vlans(void **state)
{
	struct vlans v;

	(void)state;
	assert_int_equal(vlans_parse("100", &v, &err), 0);
	answer(0);
	assert_int_equal(link_join_vlans(nl, 5, &v, 0), 0);
	assert_vlans(0, RTM_SETLINK, "100:6 ");			/* untagged, and its own */
	/* What the bridge had given it goes first. */
	answer(0);
	answer(0);
	assert_int_equal(link_join_vlans(nl, 5, &v, 1), 0);
	assert_vlans(1, RTM_DELLINK, "1:0 ");
	assert_vlans(2, RTM_SETLINK, "100:6 ");
	answer(-EOPNOTSUPP);
	assert_int_equal(link_join_vlans(nl, 5, &v, 1), -EOPNOTSUPP);
	assert_int_equal(kernel.nr_asked, 4);
	assert_int_equal(vlans_parse("7+100+200-299+4094", &v, &err), 0);
	answer(0);
	assert_int_equal(link_join_vlans(nl, 5, &v, 0), 0);
	assert_vlans(4, RTM_SETLINK, "7:0 100:0 200:8 299:10 4094:0 ");
}

/* The most that anybody can ask for fits. */
static void test_many_vlans(void **state)
{
	static char text[12000];
	struct vlans v;
	char *end_of = text;

	(void)state;
	for (int id = 1; id <= VLAN_MAX; id += 2)
		end_of += sprintf(end_of, "%s%d", id > 1 ? "+" : "", id);
	assert_int_equal(vlans_parse(text, &v, &err), 0);
	answer(0);
	assert_int_equal(link_join_vlans(nl, 5, &v, 0), 0);
	assert_int_equal(length(asked_attr(0, sizeof(struct ifinfomsg), IFLA_AF_SPEC)), VLAN_MAX / 2 * 8);
}

/* --- a tap on a bridge -------------------------------------------------------------------------------------------- */

/* Of /dev/net/tun. */
static struct {
	bool is_fake;
	int fail_make, fail_owner;	/* -errno */
	short flags;
	char name[IFNAMSIZ];
	unsigned owner;
} tun;

int __real_ioctl(int, unsigned long, ...);
int __wrap_ioctl(int, unsigned long, ...);

int __wrap_ioctl(int fd, unsigned long nr, ...)
{
	struct ifreq *ifr;
	va_list ap;
	void *arg;

	va_start(ap, nr);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (!tun.is_fake)
		return __real_ioctl(fd, nr, arg);
	if (nr == TUNSETIFF) {
		ifr = arg;
		tun.flags = ifr->ifr_flags;
		memcpy(tun.name, ifr->ifr_name, IFNAMSIZ);
		strcpy(ifr->ifr_name, "vmm42-0");
		errno = -tun.fail_make;
	} else {
		assert_int_equal(nr, TUNSETOWNER);
		tun.owner = (uintptr_t)arg;
		errno = -tun.fail_owner;
	}
	return errno ? -1 : 0;
}

/* What bridge_new_tap asks first: the bridge; what after it: the tap, and nr answers, the last of which is code. */
static void say_both(u8 filtering, int nr, int code)
{
	say_bridge(3, "br0", filtering, 1);
	end();
	answer(0);
	if (!nr)
		return;
	say_link(12, "vmm42-0", 0);
	put(IFLA_ADDRESS, "\12\1\2\3\4\5", 6);
	end();
	answer(0);
	for (int i = 1; i < nr; i++)
		answer(0);
	answer(code);
}

static int new_tap(const char *vlans)
{
	struct vlans v = { 0 };
	char name[IFNAMSIZ];
	int fd;

	if (vlans)
		assert_int_equal(vlans_parse(vlans, &v, &err), 0);
	recorder_null = "/dev/net/tun";
	tun.is_fake = true;
	fd = bridge_new_tap("br0", &v, 42, false, name, &err);
	tun.is_fake = false;
	assert_int_equal(kernel.next, kernel.nr_script);
	assert_int_equal(kernel.nr_sockets, 1);		/* nl */
	if (fd >= 0)
		assert_string_equal(name, "vmm42-0");
	return fd;
}

static void test_new_tap(void **state)
{
	const size_t len = sizeof(struct ifinfomsg);
	int fd;

	(void)state;
	say_both(0, 3, 0);
	fd = new_tap(NULL);
	assert_true(fd >= 0);
	close(fd);
	assert_string_equal(tun.name, "vmm42-%d");
	assert_int_equal((unsigned short)tun.flags, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL);
	assert_int_equal(tun.owner, getuid());
	/* No address, the bridge's MTU, up last of all. */
	assert_non_null(asked_attr(2, len, IFLA_AF_SPEC));
	assert_true(is_u32(asked_attr(3, len, IFLA_MTU), 9000) && is_u32(asked_attr(3, len, IFLA_MASTER), 3));
	assert_memory_equal(value(asked_attr(3, len, IFLA_ADDRESS)), "\xfe\1\2\3\4\5", 6);
	assert_int_equal(((const struct ifinfomsg *)asked(4, RTM_NEWLINK))->ifi_flags, IFF_UP);
	/* With VLANs: those before it is up. */
	forget();
	say_both(1, 5, 0);
	fd = new_tap("7");
	assert_true(fd >= 0);
	close(fd);
	asked(4, RTM_DELLINK);
	asked(5, RTM_SETLINK);
	assert_int_equal(((const struct ifinfomsg *)asked(6, RTM_NEWLINK))->ifi_flags, IFF_UP);
}

static void refuse_tap(int code, const char *says)
{
	assert_int_equal(new_tap(NULL), code);
	assert_says(err.msg, says);
	forget();
	tun.fail_make = tun.fail_owner = 0;
}

static void test_tap_is_refused(void **state)
{
	int before, after;

	(void)state;
	before = open("/dev/null", O_RDONLY);
	close(before);
	answer(-ENODEV);
	refuse_tap(-ENODEV, "'ip link add br0 type bridge' makes it");
	answer(-ENOMEM);
	refuse_tap(-ENOMEM, "Cannot allocate memory");
	say_link(3, "br0", 0);
	end();
	answer(0);
	refuse_tap(-EINVAL, "this interface is not a bridge");
	/* The kernel finds it by its other names, too, which no allow list has heard of. */
	say_bridge(3, "br1", 0, 1);
	end();
	answer(0);
	refuse_tap(-EINVAL, "another name of br1; write bridge=br1");
	say_both(0, 0, 0);
	assert_int_equal(new_tap("7"), -EINVAL);
	assert_says(err.msg, "'ip link set br0 type bridge vlan_filtering 1'");
	forget();
	say_both(0, 0, 0);
	tun.fail_make = -EPERM;
	refuse_tap(-EPERM, "a tap cannot be made: Operation not permitted");
	say_both(0, 0, 0);
	tun.fail_owner = -EINVAL;
	refuse_tap(-EINVAL, "a tap cannot be made: Invalid argument");
	/* It joins, or is no more; that it keeps an IPv6 address is no reason. */
	say_both(0, 2, -EBUSY);
	refuse_tap(-EBUSY, "the tap vmm42-0 cannot join it: Device or resource busy");
	say_both(0, 3, -ENOBUFS);
	refuse_tap(-ENOBUFS, "the tap vmm42-0 cannot join it: No buffer space available");
	say_both(1, 4, -EPERM);
	assert_int_equal(new_tap("7"), -EPERM);
	forget();
	say_both(0, 0, 0);
	answer(-ENODEV);
	refuse_tap(-ENODEV, "the tap vmm42-0 cannot join it: No such device");
	kernel.fail_open = -EMFILE;
	refuse_tap(-EMFILE, "netlink: Too many open files");
	after = open("/dev/null", O_RDONLY);
	close(after);
	assert_int_equal(after, before);		/* none was left open */
}

/* --- a kernel's own, in a network namespace of this program ------------------------------------------------------- */

static int setup_real(void **state)
{
	(void)state;
	mnl = library;
	return netlink_open(&nl, &err);
}

static int teardown_real(void **state)
{
	(void)state;
	netlink_close(nl);
	nl = NULL;
	return 0;
}

static void look_for_address(const struct route *r, void *arg)
{
	int *link = arg;

	if (r && r->to.len == 24 && !memcmp(r->to.addr, "\12\11\10\0", 4) && r->protocol == RTPROT_KERNEL)
		*link = r->link;
}

static void count_bridges(const struct link *l, void *arg)
{
	int *nr = arg;

	*nr = l ? *nr + l->is_bridge : 0;
}

static void test_real_bridge(void **state)
{
	struct link what = { .name = "vmm-a", .mac = { 2, 0, 0, 0, 0, 1 } }, l;
	struct prefix p = { AF_INET, 24, { 10, 9, 8, 1 } };
	int rc, nr = -1, routed = 0;

	(void)state;
	if (!own_network)
		skip();
	assert_int_equal(link_find(nl, 0, "vmm-a", &l), -ENODEV);
	rc = link_new_bridge(nl, &what);
	if (rc == -EOPNOTSUPP)		/* this kernel has none */
		skip();
	assert_int_equal(rc, 0);
	assert_int_equal(link_new_bridge(nl, &what), -EEXIST);
	assert_int_equal(link_find(nl, 0, "vmm-a", &l), 0);
	assert_true(l.is_bridge && !l.up && l.mtu == 1500 && !l.vlan_filtering && l.index);
	assert_memory_equal(l.mac, what.mac, 6);
	assert_int_equal(link_change(nl, l.index, &(struct link_change){ .up = true }), 0);
	assert_int_equal(link_add_address(nl, l.index, &p), 0);
	assert_int_equal(link_add_address(nl, l.index, &p), -EEXIST);
	assert_int_equal(link_each_route(nl, AF_INET, look_for_address, &routed), 0);
	assert_int_equal(routed, l.index);
	assert_int_equal(link_find(nl, l.index, NULL, &l), 0);
	assert_true(l.up);
	assert_int_equal(link_each(nl, count_bridges, &nr), 0);
	assert_int_equal(nr, 1);
	assert_int_equal(link_delete(nl, l.index), 0);
	assert_int_equal(link_each(nl, count_bridges, &nr), 0);
	assert_int_equal(nr, 0);
	assert_int_equal(link_delete(nl, l.index), -ENODEV);
}

static void test_real_tap(void **state)
{
	struct link what = { .name = "vmm-a", .mac = { 2, 0, 0, 0, 0, 1 } }, bridge, tap;
	struct vlans none = { 0 };
	char name[IFNAMSIZ];
	int fd = own_network ? open("/dev/net/tun", O_RDWR | O_CLOEXEC) : -1;

	(void)state;
	if (fd < 0 || close(fd) || link_new_bridge(nl, &what))
		skip();
	assert_int_equal(link_find(nl, 0, "vmm-a", &bridge), 0);
	assert_int_equal(link_change(nl, bridge.index, &(struct link_change){ .mtu = 1400 }), 0);
	for (int several = 0; several < 2; several++) {
		fd = bridge_new_tap("vmm-a", &none, 4242, several, name, &err);
		if (fd < 0)
			fail_msg("%s", err.msg);
		assert_string_equal(name, "vmm4242-0");
		assert_int_equal(link_find(nl, 0, name, &tap), 0);
		assert_true(tap.up && tap.mtu == 1400 && tap.master == bridge.index && tap.mac[0] == 0xfe);
		/* It is its descriptor's; the bridge's MTU is not its ports'. */
		close(fd);
		assert_int_equal(link_find(nl, tap.index, NULL, &tap), -ENODEV);
		assert_int_equal(link_find(nl, bridge.index, NULL, &bridge), 0);
		assert_int_equal(bridge.mtu, 1400);
	}
	assert_int_equal(link_delete(nl, bridge.index), 0);
}

static int prepare(void **state)
{
	(void)state;
	own_network = !unshare(geteuid() ? CLONE_NEWUSER | CLONE_NEWNET : CLONE_NEWNET);
	if (netlink_open(&nl, &err))
		fail_msg("%s", err.msg);
	netlink_close(nl);
	nl = NULL;
	library = mnl;
	return 0;
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define R(name) cmocka_unit_test_setup_teardown(name, setup_real, teardown_real)
	const struct CMUnitTest tests[] = {
		T(test_open_fails), T(test_ask_fails), T(test_find), T(test_names), T(test_each_link),
		T(test_interrupted), T(test_each_route), T(test_each_neighbour), T(test_new_bridge),
		T(test_change), T(test_add_address), T(test_vlans), T(test_many_vlans), T(test_new_tap),
		T(test_tap_is_refused), R(test_real_bridge), R(test_real_tap),
	};

	return cmocka_run_group_tests(tests, prepare, NULL);
}
