/* net.h: the commands of 'vmm net', and what they share. */
#pragma once
#include "vmm/net_host.h"
#include "vmm/subcommand.h"

enum net_option {
	NET_TYPE, NET_SUBNET, NET_VLAN_FILTERING, NET_MTU, NET_JSON, NET_NR_OPTIONS,
};

/* Each returns the exit status. */
int net_create(const struct subcommand_args *);
int net_delete(const struct subcommand_args *);
int net_list(const struct subcommand_args *);
int net_show(const struct subcommand_args *);

/* Say what is wrong, and return the exit status for it. */
int net_failed(const struct err *);
