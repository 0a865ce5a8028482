/* netlink.c: the routing netlink socket, by libmnl. */
#include "devices/net/netlink.h"
#include <dlfcn.h>
#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* The largest request: the VLANs of a trunk.  An answer's parts are of 32 KiB. */
enum { BUFFER = 32768, TRIES = 10 };

struct netlink {
	struct mnl_socket *socket;
	u32 seq;
	bool is_torn;			/* the rest of an answer is still to come */
	_Alignas(struct nlmsghdr) char request[BUFFER], answer[BUFFER];
};

struct libmnl mnl;

static int load(struct err *err)
{
	static const struct { const char *name; size_t at; } functions[] = {
#define NETLINK_ROW(name)	{ "mnl_" #name, offsetof(struct libmnl, name) },
		NETLINK_FUNCTIONS(NETLINK_ROW)
	};
	void *lib = dlopen("libmnl.so.0", RTLD_NOW | RTLD_LOCAL);

	if (!lib) {
		int rc = err_of_library(dlerror());

		return rc == -ENOENT ?
			err_set(err, rc, "this needs the library libmnl.so.0: install libmnl0") :
			err_set(err, rc, "libmnl.so.0: %s", strerror(-rc));
	}
	for (unsigned i = 0; i < ARRAY_SIZE(functions); i++) {
		void *f = dlsym(lib, functions[i].name);

		memcpy((char *)&mnl + functions[i].at, &f, sizeof(f));
		if (!f)
			return err_set(err, -ENOENT, "libmnl.so.0 lacks %s: install a newer libmnl0",
				       functions[i].name);
	}
	return 0;
}

int netlink_open(struct netlink **out, struct err *err)
{
	struct netlink *nl;
	int rc = mnl.cb_run ? 0 : load(err);

	if (rc)
		return rc;
	nl = calloc(1, sizeof(*nl));
	if (!nl)
		return err_set(err, -ENOMEM, "out of memory");
	nl->socket = mnl.socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	if (!nl->socket || mnl.socket_bind(nl->socket, 0, MNL_SOCKET_AUTOPID)) {
		rc = err_set(err, -errno, "netlink: %s", strerror(errno));
		netlink_close(nl);
		return rc;
	}
	*out = nl;
	return 0;
}

void netlink_close(struct netlink *nl)
{
	if (nl && nl->socket)
		mnl.socket_close(nl->socket);
	free(nl);
}

struct nlmsghdr *netlink_message(struct netlink *nl)
{
	return (struct nlmsghdr *)nl->request;
}

void *netlink_begin(struct netlink *nl, u16 type, u16 flags, size_t header_len)
{
	struct nlmsghdr *h = mnl.nlmsg_put_header(nl->request);

	h->nlmsg_type = type;
	h->nlmsg_flags = NLM_F_REQUEST | flags | 
			((flags & NLM_F_DUMP) == NLM_F_DUMP ? 0 : NLM_F_ACK);
	return mnl.nlmsg_put_extra_header(h, header_len);
}

bool netlink_put(struct netlink *nl, u16 type, const void *data, size_t len)
{
	return mnl.attr_put_check(netlink_message(nl), BUFFER, type, len, data);
}

struct sink {
	void (*fn)(const struct nlmsghdr *, void *);
	void *arg;
};

static int pass_on(const struct nlmsghdr *h, void *arg)
{
	struct sink *s = arg;

	if (s->fn)
		s->fn(h, s->arg);
	return MNL_CB_OK;
}

static int ask_once(struct netlink *nl, struct sink *s)
{
	struct nlmsghdr *h = netlink_message(nl);
	unsigned port = mnl.socket_get_portid(nl->socket);
	ssize_t n;
	int rc;

	h->nlmsg_seq = ++nl->seq;
	if (s->fn)
		s->fn(NULL, s->arg);
	if (mnl.socket_sendto(nl->socket, h, h->nlmsg_len) < 0)
		return -errno;
	do {
		n = mnl.socket_recvfrom(nl->socket, nl->answer, BUFFER);
		rc = n < 0 ? -1 : mnl.cb_run(nl->answer, n, nl->seq, port, pass_on, s);
	} while (rc > MNL_CB_STOP);
	if (rc >= 0)
		return 0;
	nl->is_torn = n < 0 || errno == EINTR;
	return -errno;
}

int netlink_ask(struct netlink *nl, void (*fn)(const struct nlmsghdr *, void *), void *arg)
{
	struct sink s = { fn, arg };
	struct err err;
	int rc = -EINTR;

	for (int i = 0; i < TRIES && rc == -EINTR; i++) {
		/* What is left of an answer that was not read to its end goes with its socket. */
		if (nl->is_torn) {
			struct netlink *fresh;

			if (netlink_open(&fresh, &err))
				return err.code;
			mnl.socket_close(nl->socket);
			nl->socket = fresh->socket;
			nl->is_torn = false;
			free(fresh);
		}
		rc = ask_once(nl, &s);
	}
	return rc;
}

struct table {
	const struct nlattr **entry;
	unsigned max;
};

static int enter(const struct nlattr *a, void *arg)
{
	struct table *t = arg;

	if (mnl.attr_get_type(a) < t->max)
		t->entry[mnl.attr_get_type(a)] = a;
	return MNL_CB_OK;
}

void netlink_attributes(const struct nlmsghdr *h, size_t header_len, const struct nlattr **table,
			unsigned max)
{
	struct table t = { table, max };

	memset(table, 0, max * sizeof(*table));
	mnl.attr_parse(h, header_len, enter, &t);
}

void netlink_nested(const struct nlattr *a, const struct nlattr **table, unsigned max)
{
	struct table t = { table, max };

	memset(table, 0, max * sizeof(*table));
	if (a)
		mnl.attr_parse_nested(a, enter, &t);
}

u32 netlink_u32(const struct nlattr *a)
{
	u32 v = 0;

	if (a && mnl.attr_get_payload_len(a) >= sizeof(v))
		memcpy(&v, mnl.attr_get_payload(a), sizeof(v));
	return v;
}
