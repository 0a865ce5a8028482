/*
 * mmds.c: promise: the metadata service answers a guest over its card. Asks 169.254.169.254 by ARP and
 * TCP, with all that the card takes off a driver's hands (checksums, segmentation), for ask=PATH with
 * token=1 after a token for it, and says the last answer's status line and body.
 *
 * Spec: RFC 826, 791, 9293; virtio 1.2, 5.1.6.
 */
#include "guest/lib/apic.h"
#include "guest/lib/start.h"
#include "guest/lib/string.h"
#include "guest/lib/virtq.h"

enum {
	F_CSUM = 0, F_HOST_TSO4 = 11, NEEDS_CSUM = 1, GSO_TCPV4 = 1,
	HEADER = 12, ETHERNET = 14, IP = 20, TCP = 20, ARP = 28, IP_TCP = 6, TCP_CSUM = 16,
	FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16, PORT = 80, WINDOW = 30000,
	BUFFERS = 8, ROOM = 2048, TEXT = 4096, PAD = 3000,
};

static struct virtio v;
static struct virtq rx, tx;
static u8 out[HEADER + ETHERNET + IP + TCP + TEXT], in[BUFFERS][ROOM];
static u8 them[6], us[6] = { 2, 0, 0, 0, 0, 1 };
static const u8 addresses[8] = { 10, 0, 0, 2, 169, 254, 169, 254 };
static u32 seq = 1000, ack;
static u16 port = 40000;
static char text[TEXT], token[64];
static u32 text_len;

static void put16(u8 *p, u32 value)
{
	p[0] = (u8)(value >> 8);
	p[1] = (u8)value;
}

static void put32(u8 *p, u32 value)
{
	put16(p, value >> 16);
	put16(p + 2, value);
}

static u32 get16(const u8 *p)
{
	return (u32)p[0] << 8 | p[1];
}

static u32 get32(const u8 *p)
{
	return get16(p) << 16 | get16(p + 2);
}

static u32 sum(const u8 *p, u32 len, u32 start)
{
	for (; len > 1; p += 2, len -= 2)
		start += get16(p);
	start += len ? (u32)p[0] << 8 : 0;
	start = (start & 0xffff) + (start >> 16);
	return (start & 0xffff) + (start >> 16);
}

static bool send(u32 len)
{
	struct virtq_buf b = { out, HEADER + len, false };
	u32 used;

	return virtq_do(&tx, &b, 1, NULL, &used);
}

static void offer(u32 i)
{
	struct virtq_buf b = { in[i], ROOM, true };

	virtq_add(&rx, &b, 1, NULL);
}

/* The next frame to us of this type, which stays until there were as many more as buffers; NULL: none
 * came. Others on this wire have things to say, too. */
static const u8 *receive(u32 type, u32 *len)
{
	const u8 *f;
	u32 id;

	do {
		if (!virtq_wait(&rx) || !virtq_pop(&rx, &id, len))
			return NULL;
		offer(id);
		virtq_kick(&rx);
		*len -= HEADER;
		f = in[id] + HEADER;
	} while (get16(f + 12) != type || memcmp(f, us, 6));
	return f;
}

static bool resolve(void)
{
	u8 *p = out + HEADER, *arp = p + ETHERNET;
	const u8 *f;
	u32 len;

	memset(out, 0, sizeof(out));
	memset(p, 0xff, 6);
	memcpy(p + 6, us, 6);
	put16(p + 12, 0x0806);
	memcpy(arp, "\0\1\x08\0\6\4\0\1", 8);
	memcpy(arp + 8, us, 6);
	memcpy(arp + 14, addresses, 4);
	memcpy(arp + 24, addresses + 4, 4);
	if (!send(ETHERNET + ARP))
		return false;
	f = receive(0x0806, &len);
	if (!f || f[21] != 2 || memcmp(f + 28, addresses + 4, 4))
		return false;
	memcpy(them, f + 22, 6);
	return true;
}

static bool send_tcp(u8 flags, const char *data, u32 len)
{
	u8 *p = out + HEADER, *ip = p + ETHERNET, *tcp = ip + IP;

	memset(out, 0, sizeof(out));
	out[0] = NEEDS_CSUM;
	out[6] = ETHERNET + IP;
	out[8] = TCP_CSUM;
	if (len > 1460) {
		const u16 head = ETHERNET + IP + TCP, size = 1460;

		out[1] = GSO_TCPV4;
		memcpy(out + 2, &head, 2);
		memcpy(out + 4, &size, 2);
	}
	memcpy(p, them, 6);
	memcpy(p + 6, us, 6);
	put16(p + 12, 0x0800);
	ip[0] = 0x45;
	put16(ip + 2, IP + TCP + len);
	ip[8] = 64;
	ip[9] = IP_TCP;
	memcpy(ip + 12, addresses, 8);
	put16(ip + 10, ~sum(ip, IP, 0));
	put16(tcp, port);
	put16(tcp + 2, PORT);
	put32(tcp + 4, seq);
	put32(tcp + 8, ack);
	tcp[12] = TCP / 4 << 4;
	tcp[13] = flags;
	put16(tcp + 14, WINDOW);
	put16(tcp + TCP_CSUM, sum(addresses, 8, IP_TCP + TCP + len));
	memcpy(tcp + TCP, data, len);
	seq += len + ((flags & (SYN | FIN)) != 0);
	return send(ETHERNET + IP + TCP + len);
}

/* The next segment, with what it has of text behind what came before. 0: none is right. */
static u8 receive_tcp(void)
{
	u32 len, n, head;
	const u8 *f = receive(0x0800, &len), *tcp;

	if (!f || f[ETHERNET + 9] != IP_TCP)
		return 0;
	tcp = f + ETHERNET + IP;
	n = get16(f + ETHERNET + 2) - IP;
	head = (u32)(tcp[12] >> 4) * 4;
	if (n > len - ETHERNET - IP || sum(tcp, n, sum(addresses, 8, IP_TCP + n)) != 0xffff || n - head > TEXT - 1 - text_len)
		return 0;
	n -= head;
	memcpy(text + text_len, tcp + head, n);
	text_len += n;
	text[text_len] = 0;
	ack = get32(tcp + 4) + n + ((tcp[13] & (SYN | FIN)) != 0);
	return tcp[13];
}

/* A whole conversation; its answer is text. */
static bool ask(const char *request)
{
	u8 flags;

	text_len = 0;
	ack = 0;
	port++;
	if (!send_tcp(SYN, "", 0) || receive_tcp() != (SYN | ACK) || !send_tcp(ACK | PSH, request, (u32)strlen(request)))
		return false;
	do {
		flags = receive_tcp();
		if (!flags || (flags & RST) || !send_tcp((flags & FIN) ? ACK | FIN : ACK, "", 0))
			return false;
	} while (!(flags & FIN));
	return receive_tcp() == ACK;
}

static const char *body(void)
{
	char *p = text;

	while (*p && memcmp(p, "\r\n\r\n", 4))
		p++;
	return *p ? p + 4 : p;
}

/* Up to a blank. */
static char *add_word(char *to, const char *s)
{
	while (*s && *s != ' ')
		*to++ = *s++;
	*to = 0;
	return to;
}

static bool start(void)
{
	u32 i;

	if (!virtio_find(&v, VIRTIO_NET, 0) || !virtio_negotiate(&v, FEATURE(F_CSUM) | FEATURE(F_HOST_TSO4)) ||
	    !virtq_init(&rx, &v, 0, BUFFERS) || !virtq_init(&tx, &v, 1, VIRTQ_SIZE))
		return false;
	virtio_add_status(&v, STATUS_DRIVER_OK);
	for (i = 0; i < BUFFERS; i++)
		offer(i);
	virtq_kick(&rx);
	return true;
}

static char *add(char *to, const char *s)
{
	u32 n = (u32)strlen(s);

	memcpy(to, s, n + 1);
	return to + n;
}

int main(const struct start_info *info, const char *cmdline)
{
	static char request[TEXT];
	bool wants_token = arg_is("token", "1");
	char *p = request;
	u32 i;

	(void)info;
	(void)cmdline;
	apic_init();
	if (!check(start(), "a card") || !check(resolve(), "the service's address"))
		return 1;
	if (wants_token) {
		if (!check(ask("PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: 60\r\n\r\n"), "a token"))
			return 1;
		for (i = 0; i < sizeof(token) - 1 && body()[i]; i++)
			token[i] = body()[i];
	}
	p = add(p, "GET ");
	p = add_word(p, arg_find("ask"));
	p = add(p, " HTTP/1.1\r\nHost: x\r\n");
	if (wants_token) {
		p = add(p, "X-metadata-token: ");
		p = add(p, token);
		p = add(p, "\r\n");
	}
	/* A large one, where the card takes them. */
	if (v.features & FEATURE(F_HOST_TSO4)) {
		p = add(p, "Cookie: ");
		memset(p, 'c', PAD);
		p = add(p + PAD, "\r\n");
	}
	add(p, "\r\n");
	if (check(ask(request), "an answer")) {
		for (i = 0; text[i] && text[i] != '\r'; i++)
			say("%c", text[i]);
		say(": %s\n", body());
	}
	return check_result();
}
