/*
 * mmds.c: a guest that sends the metadata service what it likes.  Each frame that comes back is
 * whole, has right sums, is from the service's address and to somebody who wrote, and no longer
 * than that one takes; of a connection each byte is the same however often it is sent; all of
 * an answer is one of HTTP; and without more input there is an end to it.
 */
#include <arpa/inet.h>
#include <string.h>
#include "devices/net/responder.h"
#include "tests/fuzz/lib/fuzz.h"
#include "vmm/api/metadata.h"

enum {
	FIN = 1, SYN = 2, RST = 4, ACK = 16,
	PEERS = 4, FIRST_PORT = 1000, STREAM = 4096,
	MOST_FRAMES = 64 * 1024,
};

/* A port of the guest's, as it sees the service. */
struct peer {
	u32 seq, ack, base;		/* its next, ours that came, the answer's first */
	bool open;			/* the service has said SYN */
	u8 stream[STREAM];
	bool known[STREAM];
};

static struct {
	struct metadata *metadata;
	struct responder *responder;
	struct peer peer[PEERS];
	u64 now;
} w;

static const u8 address[4] = { 169, 254, 169, 254 }, guest_mac[6] = { 2, 1, 2, 3, 4, 5 };

static u16 get16(const u8 *p) { return p[0] << 8 | p[1]; }
static u32 get32(const u8 *p) { return (u32)get16(p) << 16 | get16(p + 2); }
static void put16(u8 *p, u16 v) { p[0] = v >> 8; p[1] = v; }
static void put32(u8 *p, u32 v) { put16(p, v >> 16); put16(p + 2, v); }

/* The plain way; 0xffff: it is right. */
static u16 sum(const u8 *p, size_t len, u32 s)
{
	for (size_t i = 0; i < len; i++)
		s += i & 1 ? p[i] : p[i] << 8;
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return s;
}

/* --- from the service --------------------------------------------------------------------------- */

static void take_stream(struct peer *p, u32 seq, const u8 *data, size_t len)
{
	static const char start[] = "HTTP/1.1 ";

	fuzz_check(p->open, "%zu bytes before there is a connection", len);
	for (size_t i = 0; i < len; i++) {
		u32 at = seq - p->base + i;

		if (at >= STREAM)
			continue;
		fuzz_check(!p->known[at] || p->stream[at] == data[i], "byte %u is another now", at);
		fuzz_check(at >= sizeof(start) - 1 || data[i] == start[at], "byte %u is none of HTTP's", at);
		p->stream[at] = data[i];
		p->known[at] = true;
	}
}

static void take_tcp(const u8 *ip, size_t len)
{
	const u8 *tcp = ip + 20;
	unsigned port = get16(tcp + 2) - FIRST_PORT;
	u32 seq = get32(tcp + 4), head = (tcp[12] >> 4) * 4U;
	struct peer *p;

	fuzz_check(head >= 20 && head <= len - 20, "a head of %u bytes in %zu", head, len);
	fuzz_check(sum(tcp, len - 20, sum(ip + 12, 8, IPPROTO_TCP + len - 20)) == 0xffff, "TCP's sum");
	if (tcp[13] & RST) {
		fuzz_check(len == 40, "a reset with data");
		return;
	}
	if (port >= PEERS || get16(tcp) != 80)
		return;			/* of a frame that was made up as a whole */
	p = &w.peer[port];
	if (tcp[13] & SYN) {
		memset(p->known, 0, sizeof(p->known));
		p->open = true;
		p->base = seq + 1;
	}
	if (p->open)
		p->ack = seq + !!(tcp[13] & SYN) + len - 20 - head + (tcp[13] & FIN);
	if (len - 20 > head)
		take_stream(p, seq, tcp + head, len - 20 - head);
}

static bool take_one(void)
{
	bool has = responder_has_output(w.responder);
	u8 f[RESPONDER_FRAME_MAX];
	size_t len = responder_output(w.responder, f, w.now);

	fuzz_check(has == !!len, "it says %d, and has %zu bytes", has, len);
	if (!len)
		return false;
	fuzz_check(len >= 42 && len <= sizeof(f), "a frame of %zu bytes", len);
	if (get16(f + 12) == 0x0806) {
		fuzz_check(len == 42 && !memcmp(f + 28, address, 4) && f[21] == 2, "not the answer to ARP");
		return true;
	}
	fuzz_check(get16(f + 12) == 0x0800 && f[14] == 0x45 && get16(f + 16) == len - 14 && f[23] == IPPROTO_TCP &&
		   !memcmp(f + 26, address, 4), "not of IPv4");
	fuzz_check(sum(f + 14, 20, 0) == 0xffff, "IP's sum");
	take_tcp(f + 14, len - 14);
	return true;
}

static void take_all(void)
{
	unsigned n = 0;

	while (take_one())
		fuzz_check(++n < MOST_FRAMES, "it does not end");
}

/* --- to it -------------------------------------------------------------------------------------------- */

static void give(u8 *frame, size_t len, bool summed)
{
	if (responder_takes(w.responder, frame, MIN(len, (size_t)RESPONDER_HEAD)))
		responder_input(w.responder, frame, len, summed, w.now);
}

static size_t make_tcp(struct fuzz *f, u8 *frame, struct peer *p, u8 flags, const void *data, size_t len)
{
	u8 *ip = frame + 14, *tcp = ip + 20;

	memset(frame, 0, 54);
	memcpy(frame + 6, guest_mac, 6);
	put16(frame + 12, 0x0800);
	ip[0] = 0x45;
	put16(ip + 2, 40 + len);
	ip[9] = IPPROTO_TCP;
	memcpy(ip + 12, "\x0a\0\0\2", 4);
	memcpy(ip + 16, address, 4);
	put16(tcp, FIRST_PORT + (p - w.peer));
	put16(tcp + 2, 80);
	put32(tcp + 4, p->seq);
	put32(tcp + 8, p->ack);
	tcp[12] = 0x50;
	tcp[13] = flags;
	put16(tcp + 14, fuzz_u8(f) << (fuzz_u8(f) % 9));
	memcpy(tcp + 20, data, len);
	return 54 + len;
}

static const char *const texts[] = {
	"GET / HTTP/1.1\r\nAccept: application/json\r\n\r\n", "GET /a/b HTTP/1.0\r\n\r\n", "GET /list/1 HTTP/1.1\r\n",
	"PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: 60\r\n\r\n", "\r\n", "\r\n\r\n", "GET ",
	"X-metadata-token: 0\r\n",
};

static void converse(struct fuzz *f)
{
	struct peer *p = &w.peer[fuzz_u8(f) % PEERS];
	u8 what = fuzz_u8(f), frame[600], data[256];
	const char *text = texts[fuzz_u8(f) % ARRAY_SIZE(texts)];
	u8 flags = what & 1 ? fuzz_u8(f) : p->open ? ACK | (what & 2 ? FIN : 0) : SYN;
	size_t len = p->open || what & 1 ? strlen(text) : 0;

	if (what & 4) {
		len = fuzz_u8(f);
		fuzz_bytes(f, data, len);
	} else {
		memcpy(data, text, len);
	}
	if (what & 8)
		p->seq += (u32)fuzz_u8(f) - 128;
	if (what & 16)
		p->ack += (u32)fuzz_u8(f) - 128;
	len = make_tcp(f, frame, p, flags, data, len);
	for (unsigned i = 0; i < (what >> 6); i++)
		frame[12 + fuzz_u8(f) % 50] = fuzz_u8(f);
	give(frame, what & 32 ? fuzz_u8(f) + 34UL : len, true);
	p->seq += len - 54 + !!(flags & SYN) + !!(flags & FIN);
}

static void make_up(struct fuzz *f)
{
	u8 frame[128] = { 0 };
	size_t len = fuzz_u8(f) % sizeof(frame);

	fuzz_bytes(f, frame, len);
	if (len > 34 && frame[0] & 1) {
		put16(frame + 12, 0x0800);
		memcpy(frame + 30, address, 4);
	} else if (len > 42 && frame[0] & 2) {
		memcpy(frame + 12, "\x08\x06\0\1\x08\0\6\4\0\1", 10);
		memcpy(frame + 38, address, 4);
	}
	give(frame, len, frame[0] & 4);
}

/* --- one input ------------------------------------------------------------------------------------------ */

static char *answer(void *arg, const char *request, size_t len, bool too_long, size_t *answer_len)
{
	(void)arg;
	return metadata_answer(w.metadata, request, len, too_long, w.now, answer_len);
}

void fuzz_one(struct fuzz *f)
{
	struct responder_options o = { .port = 80, .answer = answer };
	json_t *root = json_pack("{s:{s:s}, s:[i, s]}", "a", "b", "c", "list", 1, "two");
	struct err err;

	memcpy(&o.address, address, 4);
	memset(w.peer, 0, sizeof(w.peer));
	w.now = 1;
	fuzz_check(!metadata_new(&w.metadata, 1000, &err) && !metadata_put(w.metadata, root, &err) &&
		   !responder_new(&w.responder, &o, &err), "%s", err.msg);
	json_decref(root);
	metadata_configure(w.metadata, &(struct mmds_config){ .v2 = fuzz_u8(f) & 1 });
	while (f->left) {
		switch (fuzz_u8(f) % 8) {
		case 0:
			make_up(f);
			break;
		case 1:
			w.now += (u64)fuzz_u16(f) << 20;
			responder_late(w.responder, w.now);
			break;
		case 2:
			take_one();
			break;
		case 3:
			take_all();
			break;
		default:
			converse(f);
		}
	}
	take_all();
	/* Nobody speaks any more: all of it is given up, in time. */
	for (unsigned i = 0; responder_due(w.responder); i++) {
		fuzz_check(i < 1000, "a connection that nothing ends");
		w.now = MAX(w.now, responder_due(w.responder));
		responder_late(w.responder, w.now);
		take_all();
	}
	fuzz_check(responder_counters(w.responder)->connections == responder_counters(w.responder)->closed,
		   "connections are left");
	responder_free(w.responder);
	metadata_free(w.metadata);
}
