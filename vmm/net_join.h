/* net_join.h: a card of a VM joins a bridge, or a network that vmm makes and removes. */
#pragma once
#include "devices/net/net.h"
#include "vmm/config.h"

/*
 * Of NET_BRIDGE, NET_NAT and NET_HOSTONLY, with as many queues as the config says.
 * *user: an fd that keeps the network there, or as it was: none is needed.  A network
 * that is not there is made; if this fails, it is not there again.
 */
int  net_join(const struct config *, unsigned i, struct net *queue[], int *user,
	      struct err *) must_check;
/* After the taps were closed: networks that nobody uses any more go.  Entries become -1. */
void net_leave(int *users, unsigned nr);
