/* net_state.h: the networks that vmm made on this host, and who uses them, as files. */
#pragma once
#include "vmm/net_subnet.h"

/*
 * DIR/NAMESPACE/NAME/network.json is a network: DIR is runtime_dir's part net,
 * NAMESPACE the number of the network namespace it is in.  NAME/users/ has a file
 * for each card, which its VM holds a lock on: whose lock is gone, died.
 */
enum { NETWORK_NAME_LEN = 11, NETWORK_VM_LEN = 64 };	/* a bridge is "vmm-NAME" */

enum network_type { NETWORK_NAT, NETWORK_HOSTONLY, NETWORK_BRIDGE, NETWORK_NR_TYPES };
extern const char *const network_types[NETWORK_NR_TYPES];

struct network {
	char name[NETWORK_NAME_LEN + 1], bridge[IFNAMSIZ];
	enum network_type type;
	struct subnet subnet;		/* len 0: none, of a bridge; the host is its first */
	char prefix6[24];		/* "fd12:3456:789a::", of 64 bits; "": none */
	bool routes6;			/* IPv6 goes out, too */
	u32 mtu;
	bool vlan_filtering;
	bool is_kept;			/* until it is deleted; else until its last VM ends */
};

struct network_user {
	int pid;
	char vm[NETWORK_VM_LEN + 1];	/* "": it has no name */
	char tap[IFNAMSIZ];
	u8 mac[6];
};

int network_check_name(const char *name, struct err *) must_check;
/* The name of the network whose bridge this would be, within it; NULL: of none. */
const char *network_of_bridge(const char *bridge);
struct network_mac { char text[18]; };
struct network_mac network_mac_text(const u8 mac[6]);

struct network_user_text { char text[NETWORK_VM_LEN + 32]; };
struct network_user_text network_user_text(const struct network_user *);

/* Could this process make networks here? */
bool network_may_change(void);

struct net_state;

/*
 * to_change: it is ours alone until it is closed.  Else what is there is read
 * as it is, and there may be nothing.
 */
int  net_state_open(struct net_state **, bool to_change, struct err *) must_check;
void net_state_close(struct net_state *);	/* NULL is allowed */
/* What makes it ours, where it was opened to change: it is so as long as anybody has this open. */
int  net_state_lock(const struct net_state *);

/* -ENOENT without a message: there is none. */
int  net_state_load(struct net_state *, const char *name, struct network *,
		    struct err *) must_check;
int  net_state_save(struct net_state *, const struct network *, struct err *) must_check;
void net_state_remove(struct net_state *, const char *name);
/* Names, sorted; free each and the list. */
int  net_state_names(struct net_state *, char ***names, unsigned *nr, struct err *) must_check;
/* Of a file of that network, for another program. */
void net_state_path(struct net_state *, const char *name, const char *file, char *path,
		    size_t room);

/* The living; who died is forgotten.  Only where it was opened to change. */
int  net_state_users(struct net_state *, const char *name, struct network_user **, unsigned *nr,
		     struct err *) must_check;
/* *fd: holds the lock; closed, the user is gone. */
int  net_state_add_user(struct net_state *, const char *name, const struct network_user *,
			int *fd, struct err *) must_check;

/* Which kernel switches vmm turned on, so that it can turn them off again. */
bool net_state_has_mark(struct net_state *, const char *mark);
int  net_state_set_mark(struct net_state *, const char *mark, struct err *) must_check;
void net_state_clear_mark(struct net_state *, const char *mark);
