/*
 * escape.c: what a guest does next that has broken into vmm, by the hole in tests/guest/faulty.c:
 * the system call call=N with arguments a=, b= and c=, in the thread of its processor, or, with io,
 * in that of a device. Says "still here" where it may.
 */
#include "guest/lib/apic.h"
#include "guest/lib/start.h"
#include "guest/lib/virtq.h"

enum { PORT_ARGUMENT = 0x5e0, PORT_CALL = 0x5ec, PORT_CALL_LATER = 0x5f0 };

static struct virtio v;
static struct virtq q;
static u8 bytes[16];

static bool kick(void)
{
	struct virtq_buf b = { bytes, sizeof(bytes), true };
	u32 len;

	if (!virtio_find(&v, VIRTIO_RNG, 0) || !virtio_negotiate(&v, 0) ||
	    !virtq_init(&q, &v, 0, VIRTQ_SIZE))
		return false;
	virtio_add_status(&v, STATUS_DRIVER_OK);
	return virtq_do(&q, &b, 1, NULL, &len);
}

int main(const struct start_info *info, const char *cmdline)
{
	u32 nr = (u32)arg_u64("call", 0);

	(void)info;
	(void)cmdline;
	apic_init();
	outl(PORT_ARGUMENT, (u32)arg_u64("a", 0));
	outl(PORT_ARGUMENT + 4, (u32)arg_u64("b", 0));
	outl(PORT_ARGUMENT + 8, (u32)arg_u64("c", 0));
	outl(arg_find("io") ? PORT_CALL_LATER : PORT_CALL, nr);
	if (arg_find("io") && !check(kick(), "a request is answered"))
		return 1;
	say("still here\n");
	return 0;
}
