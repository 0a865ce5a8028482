/*
 * net-udp.c: promise: datagrams that the card is to cut up (UFO: into fragments, USO: into datagrams)
 * go out by both versions of IP, and those that the host has not cut up come in. Sends one of each
 * kind that is offered from 10.9.0.2 and fd09::2, port 7, to .1 and ::1, then takes 4500 bytes by each
 * version, and says what of it came: "ipv4: N frames, gso TYPE SIZE".
 *
 * Spec: virtio 1.3, 5.1.6.2 and 5.1.6.4; RFC 768.
 */
#include "guest/lib/apic.h"
#include "guest/lib/start.h"
#include "guest/lib/string.h"
#include "guest/lib/user.h"
#include "guest/lib/virtq.h"

enum {
	F_CSUM = 0, F_GUEST_CSUM = 1, F_GUEST_TSO4 = 7, F_GUEST_TSO6 = 8, F_GUEST_UFO = 10, F_HOST_UFO = 14,
	F_GUEST_USO4 = 54, F_GUEST_USO6 = 55, F_HOST_USO = 56,
	NEEDS_CSUM = 1, GSO_UDP = 3, GSO_UDP_L4 = 5,

	HEADER = 12, ETHERNET = 14, UDP = 8, UDP_CSUM = 6, IP_UDP = 17, ANY_TTL = 64, PORT = 7,
	PIECE = 1000, FRAGMENT = 1448,		/* a multiple of 8 */
	LARGE = 8000, INWARDS = 4500, BUFFERS = 8, ROOM = 65600,
};

/* What is at which place of a frame, by version. */
static const struct version {
	const char *name;
	u16 type;
	u8 len, length, protocol, addresses, address_len;
	u8 us[16], them[16];
} version[] = {
	{ "ipv4", 0x0800, 20, 2, 9, 12, 4, { 10, 9, 0, 2 }, { 10, 9, 0, 1 } },
	{ "ipv6", 0x86dd, 40, 4, 6, 8, 16, { 0xfd, 9, [15] = 2 }, { 0xfd, 9, [15] = 1 } },
};

static struct virtio v;
static struct virtq rx, tx;
static u8 out[HEADER + ETHERNET + 40 + UDP + LARGE], in[BUFFERS][ROOM] NOINIT;

static void put16(u8 *p, u32 value)
{
	p[0] = (u8)(value >> 8);
	p[1] = (u8)value;
}

static u32 get16(const u8 *p)
{
	return (u32)p[0] << 8 | p[1];
}

/* In the order of the wire. */
static u16 sum(const u8 *p, u32 len, u32 start)
{
	for (; len; p += 2, len -= 2)
		start += get16(p);
	start = (start & 0xffff) + (start >> 16);
	return (u16)(start + (start >> 16));
}

static u8 byte_at(u32 i)
{
	return (u8)(7 * i + (i >> 8));
}

static bool send(const struct version *ip, u8 gso, u16 size)
{
	u32 i, len = UDP + LARGE;
	u8 *p = out + HEADER + ETHERNET, *udp = p + ip->len;
	struct virtq_buf b = { out, HEADER + ETHERNET + ip->len + len, false };
	u32 used;

	memset(out, 0, sizeof(out));
	out[0] = NEEDS_CSUM;
	out[1] = gso;
	/* These are of the guest's byte order. */
	out[2] = (u8)(ETHERNET + ip->len + UDP);
	memcpy(out + 4, &size, 2);
	out[6] = (u8)(ETHERNET + ip->len);
	out[8] = UDP_CSUM;
	memcpy(out + HEADER, "\x02\0\0\0\0\x01\x02\0\0\0\0\x02", 12);
	put16(out + HEADER + 12, ip->type);
	p[0] = ip->len == 20 ? 0x45 : 0x60;
	put16(p + ip->length, ip->len == 20 ? ip->len + len : len);
	p[ip->protocol] = IP_UDP;
	p[ip->protocol == 9 ? 8 : 7] = ANY_TTL;
	memcpy(p + ip->addresses, ip->us, ip->address_len);
	memcpy(p + ip->addresses + ip->address_len, ip->them, ip->address_len);
	if (ip->len == 20)
		put16(p + 10, (u16)~sum(p, ip->len, 0));
	put16(udp, PORT);
	put16(udp + 2, PORT);
	put16(udp + 4, len);
	put16(udp + UDP_CSUM, sum(p + ip->addresses, 2u * ip->address_len, IP_UDP + len));
	for (i = 0; i < LARGE; i++)
		udp[UDP + i] = byte_at(i);
	return virtq_do(&tx, &b, 1, NULL, &used);
}

/* How many bytes of data a frame has that goes on at `from`; 0: it is another. */
static u32 take(const struct version *ip, const u8 *frame, u32 len, u32 from)
{
	const u8 *p = frame + HEADER + ETHERNET, *udp = p + ip->len;
	u32 i, data;

	if (len <= (u32)HEADER + ETHERNET + ip->len + UDP || get16(frame + HEADER + 12) != ip->type ||
	    p[ip->protocol] != IP_UDP || get16(udp + 2) != PORT)
		return 0;
	data = get16(udp + 4) - UDP;
	if (data > len - (HEADER + ETHERNET + ip->len + UDP))
		return 0;
	for (i = 0; i < data; i++)
		if (udp[UDP + i] != byte_at(from + i))
			return 0;
	return data;
}

static void offer(u32 i)
{
	struct virtq_buf b = { in[i], ROOM, true };

	virtq_add(&rx, &b, 1, NULL);
}

/* At CPL 3, for the sake of speed. Buffers come back in order, so that each has its entry of the ring. */
static void run(void)
{
	u32 i, n, id, len, bytes[ARRAY_SIZE(version)] = { 0 }, frames[ARRAY_SIZE(version)] = { 0 };
	u8 gso[ARRAY_SIZE(version)] = { 0 };
	u16 size[ARRAY_SIZE(version)] = { 0 };

	for (i = 0; i < ARRAY_SIZE(version); i++) {
		if (v.features & FEATURE(F_HOST_UFO))
			check(send(&version[i], GSO_UDP, FRAGMENT), "%s: UFO", version[i].name);
		if (v.features & FEATURE(F_HOST_USO))
			check(send(&version[i], GSO_UDP_L4, PIECE), "%s: USO", version[i].name);
	}
	while (bytes[0] < INWARDS || bytes[1] < INWARDS) {
		while (!virtq_pop(&rx, &id, &len))
			poll_pause();
		for (i = 0; i < ARRAY_SIZE(version); i++) {
			n = take(&version[i], in[id], len, bytes[i]);
			if (!n)
				continue;
			bytes[i] += n;
			frames[i]++;
			gso[i] = in[id][1];
			memcpy(&size[i], in[id] + 4, 2);
		}
		offer(id);
		virtq_kick(&rx);
	}
	for (i = 0; i < ARRAY_SIZE(version); i++) {
		check(bytes[i] == INWARDS, "%s: %u bytes came", version[i].name, bytes[i]);
		say("%s: %u frames, gso %u %u\n", version[i].name, frames[i], gso[i], size[i]);
	}
	guest_exit(check_result());
}

static bool start(void)
{
	const u64 wanted = FEATURE(F_CSUM) | FEATURE(F_GUEST_CSUM) | FEATURE(F_GUEST_TSO4) |
			   FEATURE(F_GUEST_TSO6) | FEATURE(F_GUEST_UFO) | FEATURE(F_HOST_UFO) |
			   FEATURE(F_GUEST_USO4) | FEATURE(F_GUEST_USO6) | FEATURE(F_HOST_USO);
	u32 i;

	if (!virtio_find(&v, VIRTIO_NET, 0) || !virtio_negotiate(&v, wanted) ||
	    !virtq_init(&rx, &v, 0, BUFFERS) || !virtq_init(&tx, &v, 1, VIRTQ_SIZE))
		return false;
	virtio_add_status(&v, STATUS_DRIVER_OK);
	for (i = 0; i < BUFFERS; i++)
		offer(i);
	virtq_kick(&rx);
	return true;
}

int main(const struct start_info *info, const char *cmdline)
{
	(void)info;
	(void)cmdline;
	apic_init();
	if (!check(start(), "a card"))
		return 1;
	user_enter(run);
	return 1;
}
