/*
 * net-many.c: promise: a guest that sends from ports=N, for each of which its network has a socket,
 * gets all back that it sent. Says "ready" then, sends one more for each '.' of the console's, and
 * ends at another byte.
 *
 * Spec: virtio 1.2, 5.1 (network device); RFC 768.
 */
#include "guest/lib/apic.h"
#include "guest/lib/start.h"
#include "guest/lib/string.h"
#include "guest/lib/virtq.h"

enum { HEADER = 12, ETHERNET = 14, IP = 20, UDP = 8, FRAME = ETHERNET + IP + UDP + 1, FIRST = 1024 };

static struct virtio v;
static struct virtq tx;
static u8 out[HEADER + FRAME] = {
	[HEADER] = 0x52, 0x55, 10, 0, 2, 2, 2, 0, 0, 0, 0, 1, 8, 0,
	0x45, 0, 0, IP + UDP + 1, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2,
	0, 0, 0, 9, 0, UDP + 1, 0, 0, 'x',
};

static void put16(u8 *p, u32 value)
{
	p[0] = (u8)(value >> 8);
	p[1] = (u8)value;
}

static u16 sum(const u8 *p, u32 len)
{
	u32 n = 0;

	for (; len; p += 2, len -= 2)
		n += (u32)p[0] << 8 | p[1];
	n = (n & 0xffff) + (n >> 16);
	return (u16)~(n + (n >> 16));
}

int main(const struct start_info *info, const char *cmdline)
{
	struct virtq_buf b = { out, sizeof(out), false };
	u8 *ip = out + HEADER + ETHERNET;
	bool good = true;
	u32 n, len;
	int byte;

	(void)info;
	(void)cmdline;
	apic_init();
	if (!check(virtio_find(&v, VIRTIO_NET, 0) && virtio_negotiate(&v, 0) &&
		   virtq_init(&tx, &v, 1, VIRTQ_SIZE), "a card"))
		return 1;
	virtio_add_status(&v, STATUS_DRIVER_OK);
	put16(ip + 10, sum(ip, IP));
	for (n = 0; good && n < arg_u64("ports", 1000); n++) {
		put16(ip + IP, FIRST + n);
		good = virtq_do(&tx, &b, 1, NULL, &len);
	}
	check(good, "%u datagrams", n);
	say("ready\n");
	while (good && ((byte = serial_read()) < 0 || byte == '.'))
		if (byte == '.')
			good = virtq_do(&tx, &b, 1, NULL, &len);
	check(good, "one more");
	return check_result();
}
