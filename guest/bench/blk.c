/*
 * blk.c: 32 random reads of 4 KiB in flight all the time, by code at CPL 3, which runs at full
 * speed also where a host's KVM interprets CPL 0: count=N of them, in the first span=BYTES of the
 * disk. Says "blk: N CYCLES".
 *
 * Spec: virtio 1.2, 2.7, 5.2.
 */
#include "guest/lib/blk.h"
#include "guest/lib/mem.h"
#include "guest/lib/start.h"
#include "guest/lib/user.h"

enum { DEPTH = 32, ENTRIES = 128, BLOCK = 4096 };

static struct virtio v;
static struct virtq_desc desc[ENTRIES] __attribute__((aligned(16)));
static volatile struct { u16 flags, idx, ring[ENTRIES], used_event; } avail;
static volatile struct {
	u16 flags, idx;
	struct { u32 id, len; } ring[ENTRIES];
	u16 avail_event;
} used __attribute__((aligned(4)));
static struct { u32 type, reserved; u64 sector; } head[DEPTH];
static volatile u8 status[DEPTH];
static u8 data[DEPTH][BLOCK] NOINIT __attribute__((aligned(4096)));
static u64 bell, blocks, count, seed = 88172645463325252ull;

static u64 next_random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static void offer(u32 i)
{
	head[i].sector = next_random() % blocks * (BLOCK / SECTOR);
	status[i] = BLK_LOST;
	avail.ring[avail.idx % ENTRIES] = (u16)(3 * i);
	barrier();
	avail.idx++;
}

static void kick(u16 before)
{
	barrier_full();
	if ((u16)(avail.idx - used.avail_event - 1) >= (u16)(avail.idx - before))
		return;
	if (v.notify_port)
		outw((u16)bell, 0);
	else
		mmio_write16(bell, 0);
}

/* At CPL 3. */
static void load(void)
{
	u64 sent = DEPTH, back = 0, began = rdtsc();
	u16 seen = 0;
	u32 i;

	for (i = 0; i < DEPTH; i++)
		offer(i);
	kick(0);
	while (back < count) {
		u16 before = avail.idx;

		while (used.idx == seen)
			asm volatile("pause");
		for (; seen != used.idx; seen++, back++) {
			i = used.ring[seen % ENTRIES].id / 3;
			if (i >= DEPTH || status[i] != BLK_OK) {
				say("not ok - a read failed\n");
				guest_exit(1);
			}
			if (sent++ < count)
				offer(i);
		}
		if (avail.idx != before)
			kick(before);
	}
	say("blk: %llu %llu\n", count, rdtsc() - began);
	guest_exit(0);
}

static bool start(void)
{
	struct virtio_rings r = { ENTRIES, mem_addr(desc), mem_addr(&avail), mem_addr(&used) };
	u32 i;

	if (!virtio_find(&v, VIRTIO_BLK, 0) || !virtio_negotiate(&v, FEATURE(F_EVENT_IDX)))
		return false;
	for (i = 0; i < DEPTH; i++) {
		struct virtq_desc *d = &desc[3 * i];

		head[i].type = BLK_IN;
		d[0] = (struct virtq_desc) { mem_addr(&head[i]), 16, DESC_NEXT, (u16)(3 * i + 1) };
		d[1] = (struct virtq_desc) { mem_addr(data[i]), BLOCK, DESC_NEXT | DESC_WRITE,
					     (u16)(3 * i + 2) };
		d[2] = (struct virtq_desc) { mem_addr(&status[i]), 1, DESC_WRITE, 0 };
	}
	virtio_queue_set(&v, 0, &r);
	/* Nobody wants an interrupt: one is due when used.idx has come round. */
	avail.used_event = 0xffff;
	if (!virtio_queue_enable(&v, 0))
		return false;
	virtio_add_status(&v, STATUS_DRIVER_OK);
	bell = virtio_pci_bell(&v, 0);
	return true;
}

int main(const struct start_info *info, const char *cmdline)
{
	(void)info;
	(void)cmdline;
	count = arg_u64("count", 100000);
	if (!check(start(), "the disk starts"))
		return 1;
	blocks = arg_u64("span", virtio_config(&v, BLK_CAPACITY, 8) * SECTOR) / BLOCK;
	user_enter(load);
	return 1;
}
