/* wire.h: a card at the near end of a struct net, and frames made by hand for it. */
#pragma once
#include "devices/net/net.h"
#include "tests/lib/fake.h"

enum { WIRE_FRAMES = 512 };

struct wire {
	struct fake fake;
	struct net *net;
	bool deaf;			/* has no buffers */
	bool want_tx;
	int nr_writable, nr_lost;
	struct { u8 *data; size_t len; } frame[WIRE_FRAMES];	/* with their headers */
	int first, nr;			/* those that were not taken yet */
};

/* Takes the net, which it starts with these GUEST_* features. */
void wire_init(struct wire *, struct net *, u64 features);
void wire_fini(struct wire *);		/* stops and closes the net */
void wire_listen(struct wire *, bool);	/* has buffers, or none */

/* A frame after a header: NEEDS_CSUM if csum_start is not 0.  What send returned. */
int wire_send(struct wire *, const void *frame, size_t len, u16 csum_start, u16 csum_offset);
/* The next frame that match says is the one, without its header; others before it are
 * dropped.  NULL: none came.  It stays valid until the wire is gone. */
const u8 *wire_expect(struct wire *, bool (*match)(const u8 *frame, size_t len, void *arg),
		      void *arg, size_t *len);
/* How many came while the loop turned so often. */
int wire_turn(struct wire *, int turns);

/* --- frames ------------------------------------------------------------------------ */

struct wire_ip {
	u8 mac_to[6], mac_from[6];
	const char *from, *to;		/* of IPv4, or of IPv6 */
	u8 protocol;
};

/* An Ethernet and IP frame around payload, whose checksum field is at csum_offset; it is
 * filled in as a driver leaves it to the device.  Returns the frame's length. */
size_t wire_ip(u8 *frame, const struct wire_ip *, const void *payload, size_t len,
	       u16 csum_offset, u16 *csum_start);
/* The checksum over what an IP frame carries is right. */
bool wire_sum_is_right(const u8 *frame, size_t len);
