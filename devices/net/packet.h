/* packet.h: a descriptor with one frame a read: a datagram socket, a tap without headers. */
#pragma once
#include "devices/net/net.h"

/* The descriptor, which does not block, becomes the net's unless this fails. */
int packet_new(struct net **, int fd, struct err *) must_check;
