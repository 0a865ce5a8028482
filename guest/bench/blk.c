/*
 * blk.c: 32 random reads of 4 KiB in flight all the time, by code at CPL 3, which runs at full
 * speed also where a host's KVM interprets CPL 0: count=N of them, in the first span=BYTES of the
 * disk. Says "blk: N CYCLES".
 *
 * Spec: virtio 1.2, 2.7, 5.2; Intel SDM vol. 3, 8.7 (TSS in 64-bit mode), 19.5.2 (I/O permission).
 */
#include "guest/lib/blk.h"
#include "guest/lib/mem.h"
#include "guest/lib/start.h"
#include "guest/lib/string.h"

enum { DEPTH = 32, ENTRIES = 128, BLOCK = 4096 };
enum { GDT_USER_DATA = 4, GDT_USER_CODE, GDT_TSS, GDT_ENTRIES = 8, PAGE_USER = 4 };

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

static struct {
	u32 reserved0;
	u64 rsp[3], reserved1, ist[7], reserved2;
	u16 reserved3, io_map;
	u8 io[8193];			/* zeroes: all ports */
} __attribute__((packed)) tss;

/* For an exception at CPL 3, which ends the payload. */
static u8 trap_stack[4096] NOINIT __attribute__((aligned(16)));
static u8 user_stack[4096] NOINIT __attribute__((aligned(16)));

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

/* Every page of the first 4 GiB, for CPL 3 too. */
static void open_pages(void)
{
	u64 *pml4, *pdpt, *pd;
	u32 i, j;

	asm volatile("mov %%cr3, %0" : "=r"(pml4));
	pml4[0] |= PAGE_USER;
	pdpt = (u64 *)(uintptr_t)(pml4[0] & ~0xfffull);
	for (i = 0; i < 4; i++) {
		pdpt[i] |= PAGE_USER;
		pd = (u64 *)(uintptr_t)(pdpt[i] & ~0xfffull);
		for (j = 0; j < 512; j++)
			pd[j] |= PAGE_USER;
	}
	asm volatile("mov %0, %%cr3" : : "r"(pml4) : "memory");
}

static void enter_user(void (*fn)(void))
{
	static u64 gdt[GDT_ENTRIES] = {
		0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff,
		[GDT_USER_DATA] = 0x00cff3000000ffff, [GDT_USER_CODE] = 0x00affb000000ffff,
	};
	struct { u16 limit; u64 base; } __attribute__((packed)) gdtr = {
		sizeof(gdt) - 1, mem_addr(gdt),
	};
	u64 base = mem_addr(&tss);

	tss.rsp[0] = mem_addr(trap_stack + sizeof(trap_stack));
	tss.io_map = 0x68;
	tss.io[8192] = 0xff;
	gdt[GDT_TSS] = 0x0000890000000000 | (sizeof(tss) - 1) | (base & 0xffffff) << 16 |
		(base >> 24 & 0xff) << 56;
	asm volatile("lgdt %0\n\tltr %w1" : : "m"(gdtr), "r"(GDT_TSS * 8) : "memory");
	asm volatile("push %0\n\tpush %1\n\tpush $2\n\tpush %2\n\tpush %3\n\tiretq"
		     : : "r"(GDT_USER_DATA * 8ull | 3),
			 "r"(mem_addr(user_stack + sizeof(user_stack) - 8)),
			 "r"(GDT_USER_CODE * 8ull | 3), "r"(fn) : "memory");
}

int main(const struct start_info *info, const char *cmdline)
{
	(void)info;
	(void)cmdline;
	count = arg_u64("count", 100000);
	if (!check(start(), "the disk starts"))
		return 1;
	blocks = arg_u64("span", virtio_config(&v, BLK_CAPACITY, 8) * SECTOR) / BLOCK;
	open_pages();
	enter_user(load);
	return 1;
}
