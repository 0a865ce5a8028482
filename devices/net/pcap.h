/* pcap.h: a card's traffic as a file for tcpdump and Wireshark (libpcap's format 2.4). */
#pragma once
#include <sys/uio.h>
#include "vmm/core/base.h"
#include "vmm/core/err.h"

struct pcap;

/* The file is made, or emptied. */
int  pcap_open(struct pcap **, const char *path, struct err *) must_check;
void pcap_close(struct pcap *);			/* NULL is allowed */
/*
 * One frame of len bytes with struct virtio_net_hdr_v1 in front; a checksum that the
 * header leaves to others is filled in.  Any thread.  A full disk ends the file with
 * the last whole frame.
 */
void pcap_frame(struct pcap *, const struct iovec *, int nr, size_t len);
