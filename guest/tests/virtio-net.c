/*
 * virtio-net.c: promise: of two cards whose far ends are each other's, both sending all the time,
 * every frame arrives once, whole and in order, whatever pieces its buffers have on both sides,
 * through indirect tables and without, merged and not, and rings that are full; frames=N, each way,
 * for each set of features. A reset between two sets takes back what was offered.
 *
 * Spec: virtio 1.2, 2.7, 5.1.6.
 */
#include "guest/lib/apic.h"
#include "guest/lib/start.h"
#include "guest/lib/string.h"
#include "guest/lib/user.h"
#include "guest/lib/virtq.h"

enum {
	F_MRG_RXBUF = 15,
	CARDS = 2, RX = 0, TX = 1,
	HEADER = 12, NR_BUFFERS = 10,	/* where it says how many it is in */
	ADDRESSES = 14, FRAME_MIN = ADDRESSES + 4, FRAME_MAX = 1514,
	ROOM = 2048, ROOM_MIN = 256,	/* of those, a small ring's hold a frame, too */
	PIECES = 6,
};

/* What is in a queue: chains come back in order. */
struct flight {
	struct virtq q;
	struct {
		u16 head;
		u8 entries;
		u32 len;
	} chain[VIRTQ_SIZE];
	u32 first, next;		/* modulo VIRTQ_SIZE: places in chain */
	unsigned entries;
	struct virtq_desc table[VIRTQ_SIZE][PIECES] __attribute__((aligned(16)));
};

static struct card {
	struct virtio v;
	struct flight way[2];
	u32 sent, returned, received;
} card[CARDS];
static u8 buffer[CARDS][2][VIRTQ_SIZE][ROOM] NOINIT;
static u8 whole[HEADER + FRAME_MAX + ROOM], wanted[HEADER + FRAME_MAX];
static u32 seed = 1;
static bool good = true;

static u32 random(u32 below)
{
	seed = seed * 1664525 + 1013904223;
	return (seed >> 8) % below;
}

/* --- frames ------------------------------------------------------------------------------- */

/* Of what is sent by card from; the shortest, the longest and all between. */
static u32 frame_len(unsigned from, u32 n)
{
	u32 k = (n * 2 + from) * 2654435761u >> 8;

	return k % 16 == 0 ? FRAME_MIN : k % 16 == 1 ? FRAME_MAX :
	       FRAME_MIN + k / 16 % (FRAME_MAX - FRAME_MIN + 1);
}

static void make_frame(u8 *p, unsigned from, u32 n)
{
	u32 len = frame_len(from, n), i;

	memset(p, 0, HEADER);
	p += HEADER;
	memset(p, 0xff, 6);
	memcpy(p + 6, "\x02\0\0\0\0\x01\x88\xb5", 8);
	memcpy(p + ADDRESSES, &n, sizeof(n));
	for (i = FRAME_MIN; i < len; i++)
		p[i] = (u8)(n + 3 * i + 101 * from + (i >> 8));
}

static void fail(const char *what, unsigned c, u32 n)
{
	if (good)
		check(false, "card %d, %d: %s", c, n, what);
	good = false;
}

/* --- queues ------------------------------------------------------------------------------- */

static u8 *place(unsigned c, unsigned way)
{
	return buffer[c][way][card[c].way[way].next % VIRTQ_SIZE];
}

/* A chain of so many bytes at place(), in up to `most` pieces; false: there is no room. */
static bool put(unsigned c, unsigned way, u32 len, u32 most)
{
	struct flight *f = &card[c].way[way];
	struct virtq_buf b[PIECES];
	u32 nr = 1 + random(most), i, left = len, at = f->next % VIRTQ_SIZE, room = f->q.size - f->entries;
	bool indirect = card[c].v.features & FEATURE(F_INDIRECT) && random(2);
	u8 *p = place(c, way);

	if (!room)
		return false;
	if (!indirect)
		nr = nr < room ? nr : room;
	for (i = 0; i < nr; i++) {
		u32 here = i + 1 == nr ? left : 1 + random(left - (nr - i - 1));

		b[i] = (struct virtq_buf){ p, here, way == RX };
		p += here;
		left -= here;
	}
	f->chain[at].head = virtq_add(&f->q, b, nr, indirect ? f->table[at] : NULL);
	f->chain[at].entries = (u8)(indirect ? 1 : nr);
	f->chain[at].len = len;
	f->entries += f->chain[at].entries;
	f->next++;
	return true;
}

/* What was used next: where it is, and how much of it; NULL: nothing was. */
static u8 *take(unsigned c, unsigned way, u32 *len)
{
	struct flight *f = &card[c].way[way];
	u32 id, at = f->first % VIRTQ_SIZE;

	if (!virtq_pop(&f->q, &id, len))
		return NULL;
	if (f->first == f->next || id != f->chain[at].head || *len > f->chain[at].len) {
		fail("used what was not offered", c, id);
		return NULL;
	}
	f->entries -= f->chain[at].entries;
	f->first++;
	return buffer[c][way][at];
}

/* --- to and fro --------------------------------------------------------------------------- */

static bool is_used(const struct virtq *q)
{
	return q->used.idx != q->seen;
}

static void offer(unsigned c, u32 frames)
{
	struct card *k = &card[c];
	bool merge = k->v.features & FEATURE(F_MRG_RXBUF);

	while (put(c, RX, merge ? ROOM_MIN + random(ROOM - ROOM_MIN + 1) : HEADER + FRAME_MAX,
		   merge ? 1 : PIECES))
		;
	for (; k->sent < frames && k->way[TX].entries < k->way[TX].q.size; k->sent++) {
		make_frame(place(c, TX), c, k->sent);
		(void)!put(c, TX, HEADER + frame_len(c, k->sent), PIECES);
	}
	virtq_kick(&k->way[RX].q);
	virtq_kick(&k->way[TX].q);
}

static void take_sent(unsigned c)
{
	u32 len;

	for (; good && take(c, TX, &len); card[c].returned++)
		if (len)
			fail("wrote to a frame that is sent", c, card[c].returned);
}

static void take_received(unsigned c)
{
	u32 n = card[c].received, want = HEADER + frame_len(!c, n), len, nr, got;
	u8 *p = take(c, RX, &len);

	if (!p)
		return;
	memcpy(whole, p, len);
	nr = whole[NR_BUFFERS] | (u32)whole[NR_BUFFERS + 1] << 8;
	/* A frame's buffers are used all at once. */
	for (got = len; good && got < want && nr > 1; got += len, nr--) {
		p = take(c, RX, &len);
		if (!p)
			break;
		memcpy(whole + got, p, len);
	}
	make_frame(wanted, !c, n);
	memcpy(wanted + NR_BUFFERS, whole + NR_BUFFERS, 2);
	if (nr != 1 || got != want || memcmp(whole, wanted, want))
		fail("not the frame that was sent", c, n);
	card[c].received++;
}

static bool start(unsigned c, u64 features, u16 size)
{
	struct card *k = &card[c];

	if (!virtio_negotiate(&k->v, features) || k->v.features != (features | FEATURE(F_VERSION_1)))
		return false;
	memset(k->way, 0, sizeof(k->way));
	k->sent = k->returned = k->received = 0;
	if (!virtq_init(&k->way[RX].q, &k->v, 0, size) || !virtq_init(&k->way[TX].q, &k->v, 1, size))
		return false;
	virtio_add_status(&k->v, STATUS_DRIVER_OK);
	return true;
}

static bool is_over(u32 frames)
{
	unsigned c;

	for (c = 0; c < CARDS; c++)
		if (card[c].returned < frames || card[c].received < frames)
			return false;
	return true;
}

static bool blast(u32 frames)
{
	unsigned c;

	while (good && !is_over(frames)) {
		for (c = 0; c < CARDS; c++)
			offer(c, frames);
		if (!poll_until(is_used(&card[0].way[RX].q) || is_used(&card[0].way[TX].q) ||
				is_used(&card[1].way[RX].q) || is_used(&card[1].way[TX].q)))
			fail("nothing comes any more", 0, card[0].received);
		for (c = 0; c < CARDS && good; c++) {
			take_sent(c);
			while (good && is_used(&card[c].way[RX].q))
				take_received(c);
		}
	}
	for (c = 0; c < CARDS; c++)
		if (good && (card[c].received != frames || card[c].returned != frames ||
			     virtio_status(&card[c].v) & STATUS_NEEDS_RESET))
			fail("more than was sent", c, card[c].received);
	return good;
}

/* At CPL 3, for the sake of speed. */
static void run(void)
{
	static const struct {
		u64 features;
		u16 size;
		const char *what;
	} set[] = {
		{ 0, 16, "plain" }, { FEATURE(F_EVENT_IDX), 8, "event index" },
		{ FEATURE(F_INDIRECT) | FEATURE(F_EVENT_IDX), 16, "indirect" },
		{ FEATURE(F_INDIRECT) | FEATURE(F_MRG_RXBUF), 8, "merged, indirect" },
		{ FEATURE(F_EVENT_IDX) | FEATURE(F_MRG_RXBUF), 16, "merged" },
		{ FEATURE(F_INDIRECT), 2, "two entries" },
	};
	u32 frames = (u32)arg_u64("frames", 1000), i;

	for (i = 0; i < ARRAY_SIZE(set) && good; i++) {
		good = check(start(0, set[i].features, set[i].size) &&
			     start(1, set[i].features, set[i].size),
			     "%s: both start, rings of %d", set[i].what, set[i].size);
		if (good)
			check(blast(frames), "%s: %d frames each way", set[i].what, frames);
	}
	guest_exit(check_result());
}

int main(const struct start_info *info, const char *cmdline)
{
	unsigned c;

	(void)info;
	(void)cmdline;
	apic_init();
	for (c = 0; c < CARDS; c++)
		if (!check(virtio_find(&card[c].v, VIRTIO_NET, c), "card %d", c))
			return 1;
	user_enter(run);
	return 1;
}
