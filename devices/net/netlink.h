/* netlink.h: questions to the kernel about its networks, by libmnl (NETLINK_ROUTE). */
#pragma once
#include <libmnl/libmnl.h>
#include "vmm/core/base.h"
#include "vmm/core/err.h"

/* Of libmnl, which is loaded with the first socket; few VMs need it. */
#define NETLINK_FUNCTIONS(X) \
	X(socket_open2) X(socket_bind) X(socket_close) X(socket_get_portid) X(socket_sendto) \
	X(socket_recvfrom) X(nlmsg_put_header) X(nlmsg_put_extra_header) X(nlmsg_get_payload) \
	X(attr_put) X(attr_put_u8) X(attr_put_u16) X(attr_put_u32) X(attr_put_strz) \
	X(attr_put_check) X(attr_nest_start) X(attr_nest_end) X(attr_parse) X(attr_parse_nested) \
	X(attr_get_type) X(attr_get_payload) X(attr_get_payload_len) X(cb_run)
#define NETLINK_POINTER(name)	__typeof__(&mnl_##name) name;
struct libmnl { NETLINK_FUNCTIONS(NETLINK_POINTER) };
#undef NETLINK_POINTER
extern struct libmnl mnl;

/* One request at a time; any one thread. */
struct netlink;

int  netlink_open(struct netlink **, struct err *) must_check;
void netlink_close(struct netlink *);		/* NULL is allowed */

/* A request that begins with header_len zeroed bytes, which are returned. */
void *netlink_begin(struct netlink *, u16 type, u16 flags, size_t header_len);
struct nlmsghdr *netlink_message(struct netlink *);	/* to put attributes into */
/* False: it does not fit any more. */
bool netlink_put(struct netlink *, u16 type, const void *data, size_t len) must_check;

/*
 * Send it, and hand each message of the answer to fn (which may be NULL): 0 or
 * the kernel's -errno.  fn(NULL) says that the answer begins; a dump that
 * changed meanwhile begins again.
 */
int netlink_ask(struct netlink *, void (*fn)(const struct nlmsghdr *, void *), void *arg) must_check;

/* Attributes by their number, NULL: not there; those from max on are left out. */
void netlink_attributes(const struct nlmsghdr *, size_t header_len, const struct nlattr **table,
			unsigned max);
void netlink_nested(const struct nlattr *, const struct nlattr **table, unsigned max);
/* 0 for NULL. */
u32 netlink_u32(const struct nlattr *);
