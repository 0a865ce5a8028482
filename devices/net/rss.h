/* rss.h: receive-side scaling by the host's kernel: a program that finds a frame's queue (bpf(2)). */
#pragma once
#include "devices/net/net.h"

/*
 * The program and what it looks things up in.  Loading it takes CAP_BPF, or a kernel that
 * lets everybody.  Control thread; what comes later is of any thread, one at a time.
 */
struct rss;
int  rss_open(struct rss **, struct err *) must_check;
void rss_close(struct rss *);			/* NULL is allowed */
/* Of a socket filter, whose result is the queue; for TUNSETSTEERINGEBPF.  The rss's. */
int  rss_program(const struct rss *);
/* By memory alone: frames that come from now on are found by this.  It is in order. */
void rss_configure(struct rss *, const struct net_rss *);
