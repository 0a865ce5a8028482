/* vsock_own.h: a vsock device's parts, for its own files alone. */
#pragma once
#include <linux/virtio_vsock.h>
#include <sys/types.h>
#include "devices/virtio/virtio.h"
#include "devices/vsock_host.h"

enum { VSOCK_RX, VSOCK_TX, VSOCK_EVENT, VSOCK_QUEUES };
enum {
	VSOCK_CONNECTIONS = 512,
	VSOCK_GREETERS = 64,		/* of them, that have not said yet which port they want */
	VSOCK_ROOM = 64 << 10,		/* what the guest may send ahead of who reads it; the longest packet */
	VSOCK_RESETS = 64,		/* that wait for the guest, until it is not listened to any more */
	VSOCK_GREETING = 32,
	VSOCK_FIRST_PORT = 1 << 30,	/* of the host's, for what comes from there; up to INT32_MAX */
};

/*
 * One of a program's on the host with one of the guest's.  GREETING: the program is to say
 * "CONNECT PORT"; the guest knows nothing of it.  ASKED: the guest is, or will be, asked.  LEFT: it
 * is no more for the guest, and ends when the program has read what is ahead.
 */
struct vsock_connection {
	struct vsock *s;
	struct watch watch;
	struct vsock_connection *next;	/* that has something for the guest, too */
	enum { GREETING, ASKED, OPEN, LEFT } phase;
	u64 until_ns;			/* GREETING, ASKED: for so long it may be that */
	bool queued;
	u8 say;				/* SAY_*: what the guest is to be told */
	u32 guest_port, host_port;
	int fd;
	bool readable;			/* as far as is known */
	bool closed;			/* the program has closed its end */
	bool deaf;			/* it takes nothing any more: what the guest sends is dropped */
	bool asked_credit;
	u8 down, guest_down;		/* VIRTIO_VSOCK_SHUTDOWN_*: that the guest was told, or told us */
	u32 sent, peer_alloc, peer_forwarded;	/* to the guest; bytes that it has room for, and gave on */
	u32 taken, forwarded, told;	/* from the guest; what the program has; what the guest was told of that */
	u8 *ahead;			/* what the program has not read, of VSOCK_ROOM; NULL: there never was any */
	u32 ahead_at, ahead_len;
	unsigned greeting_len;
	char greeting[VSOCK_GREETING + 1];
};

/* All of one thread, the queues' loop. */
struct vsock_counters {
	u64 rx_kicks, tx_kicks, event_kicks, rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors,
	    flush_errors, dropped, opened, ended, resets, refused, connections;
};

struct vsock {
	struct virtio v;
	struct virtio_vsock_config config;
	u32 cid;
	struct vsock_host *host;
	struct vsock_counters counters;
	struct metric_set metrics;
	bool running;			/* from start to stop */
	bool was_copied;		/* the guest is to be told that its connections are no more */
	bool stalled;			/* too many resets wait: the guest is not listened to */
	struct watch listener;
	struct timer patience;		/* the host had no descriptor for one more */
	struct timer deadline;		/* the first until_ns of its connections, or before */
	struct vsock_connection *connection[VSOCK_CONNECTIONS];
	unsigned nr, nr_greeters;
	struct vsock_connection *first, **last;	/* who has something for the guest */
	struct vsock_reset {
		u32 guest_port, host_port;
		u16 type;
	} reset[VSOCK_CONNECTIONS + VSOCK_RESETS];
	unsigned first_reset, nr_resets;
	u32 next_port;			/* of the host's; the one after it for the next that comes from there */
	u8 data[VSOCK_ROOM];		/* of the packet that is moved */
};

/* --- vsock_connection.c, on the loop ---------------------------------------------------- */

void vsock_connections_init(struct vsock *);
void vsock_connections_start(struct vsock *);
void vsock_connections_stop(struct vsock *);
/* All of them are no more, and the guest is not told.  No loop runs. */
void vsock_connections_forget(struct vsock *);
/* A packet of the guest's for us, with len bytes in data. */
void vsock_take(struct vsock *, const struct virtio_vsock_hdr *, size_t len);
/* One that has no place for what it says it has. */
void vsock_take_malformed(struct vsock *, const struct virtio_vsock_hdr *);
/* Is there, perhaps, anything for the guest?  And the next of it, with at most room bytes put into
 * data: how many, or -1: there was nothing after all. */
bool vsock_has_packet(const struct vsock *);
ssize_t vsock_next_packet(struct vsock *, struct virtio_vsock_hdr *, size_t room);

/* --- vsock.c ---------------------------------------------------------------------------- */

/* There may be something for the guest. */
void vsock_pump(struct vsock *);
