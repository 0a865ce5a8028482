/*
 * net-lost.c: promise: a card whose network goes away while it sends says so by its link, and all
 * frames that it is given, before and after, come back. Says "ready" once it sends. again: it boots
 * once more then, and finds its link down.
 *
 * Spec: virtio 1.2, 5.1 (network device).
 */
#include "guest/lib/apic.h"
#include "guest/lib/start.h"
#include "guest/lib/virtq.h"

enum { F_STATUS = 16, CONFIG_STATUS = 6, LINK_UP = 1, HEADER = 12, FRAME = 60, MORE = 100 };

static struct virtio v;
static struct virtq rx, tx;
static u8 in[2048];
static u8 out[HEADER + FRAME] = {
	[HEADER] = 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5,
};

static bool send(void)
{
	struct virtq_buf b = { out, sizeof(out), false };
	u32 len;

	return virtq_do(&tx, &b, 1, NULL, &len);
}

static bool is_up(void)
{
	return virtio_config(&v, CONFIG_STATUS, 2) & LINK_UP;
}

int main(const struct start_info *info, const char *cmdline)
{
	struct virtq_buf b = { in, sizeof(in), true };
	bool good = true;
	u64 n = 0;

	(void)info;
	(void)cmdline;
	apic_init();
	if (!check(virtio_find(&v, VIRTIO_NET, 0) && virtio_negotiate(&v, FEATURE(F_STATUS)) &&
		   virtq_init(&rx, &v, 0, VIRTQ_SIZE) && virtq_init(&tx, &v, 1, VIRTQ_SIZE),
		   "a card"))
		return 1;
	virtio_add_status(&v, STATUS_DRIVER_OK);
	virtq_add(&rx, &b, 1, NULL);
	virtq_kick(&rx);
	if (arg_find("again") && !is_up()) {
		say("down\n");
		return check_result();
	}
	check(is_up(), "its link is up");
	for (; good && is_up(); n++) {
		good = send();
		if (n == 0)
			say("ready\n");
	}
	check(good, "%llu frames were taken", n);
	check(!is_up(), "the link is down");
	for (n = 0; good && n < MORE; n++)
		good = send();
	check(good, "%llu frames more", n);
	if (arg_find("again") && good)
		outb(PORT_KBC_STATUS, KBC_RESET);
	return check_result();
}
