/* station.h: a station on a card's wire that is not behind its far end, but here. */
#pragma once
#include "devices/net/net.h"
#include "devices/net/responder.h"

/*
 * Between a card and its far end, whichever that is: what the guest sends to the responder's
 * address does not go further, and its answers come before the far end's frames.  All else
 * passes as it is.  vhost-net cannot look at frames, and is not offered.
 */
struct station;

/*
 * queue[0..nr), a card's pairs, are replaced by what has them as far ends, and closes them;
 * with the last of them the station is gone.  After a failure they are as they were.
 */
int  station_new(struct station **, struct net *queue[], unsigned nr,
		 const struct responder_options *, struct err *) must_check;
/* Another guest: connections are forgotten, counts begin at 0.  No loop runs. */
void station_restart(struct station *);
const struct responder_counters *station_counters(struct station *);
