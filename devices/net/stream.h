/* stream.h: frames over a stream socket, each behind its length, as QEMU has them. */
#pragma once
#include "devices/net/frame.h"

enum { STREAM_ROOM = 256 * KIB };

/* Embedded in what knows whose socket it is. */
struct stream {
	struct net net;
	int fd;
	bool want_rx, want_tx, gone;
	u8 flags;			/* of every header: VIRTIO_NET_HDR_F_* */
	u32 events;			/* that watch waits for */
	struct loop *loop;
	struct watch watch;
	struct loop_hook hook;
	/* The other end has closed, or is not to be listened to any more: called once. */
	void (*ended)(struct stream *, const char *why);
	void (*release)(struct stream *);	/* frees it; the socket is closed */
	u8 *in;				/* STREAM_ROOM bytes: from..to has come */
	size_t from, to;
	size_t out_from, out_to;	/* of out: what the socket did not take yet */
	u8 out[NET_FRAME_MAX];
};

/*
 * A zeroed one, with ended and release set.  The descriptor, which is connected,
 * becomes the stream's unless this fails.
 */
int stream_init(struct stream *, int fd, struct err *) must_check;

/* As much room as may be for what is sent there: some of the longest frames. */
void stream_widen(int fd);
