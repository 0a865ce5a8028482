/*
 * virtio-abuse.c: promise: whatever a driver does to its queues and registers, vmm lives, the
 * device says NEEDS_RESET where its rings make no sense, and after a reset it works again.
 * dev=rng|blk|net; of a card it is the queue that sends.
 *
 * Spec: virtio 1.2, 2.1.2 (NEEDS_RESET), 2.2.2 (features), 2.7.5 (descriptors), 3.1.1.
 */
#include "guest/lib/apic.h"
#include "guest/lib/blk.h"
#include "guest/lib/mem.h"
#include "guest/lib/start.h"
#include "guest/lib/string.h"

enum { LEN = 64, NOWHERE_LEN = 0x1000 };

#define NOWHERE		0xd0000000ull	/* between RAM and the ECAM */
#define FAR_AWAY	0x123456789000ull

static struct virtio v;
static struct virtq q;
static struct virtq_desc table[8] __attribute__((aligned(16)));
static struct virtq_desc many[256] __attribute__((aligned(16)));
static u8 bytes[SECTOR + 8] __attribute__((aligned(512)));
static bool blk, net;
static u16 queue;
static struct virtq rx;			/* of a card, and not looked at */
static u8 frame[72] = {			/* with its header */
	[12] = 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5,
};

/* Of what lies below the hole. */
static u64 ram_end(void)
{
	const struct start_memmap *e = mem_at(start_info->memmap_paddr);
	u64 end = 0;
	u32 i;

	for (i = 0; i < start_info->memmap_entries; i++)
		if (e[i].type == MEMMAP_RAM && e[i].addr + e[i].size > end &&
		    e[i].addr < RAM_LOW_END)
			end = e[i].addr + e[i].size;
	return end;
}

/* All but the queue in question. */
static bool prepare(u64 features)
{
	if (!virtio_negotiate(&v, features))
		return false;
	virtio_enable_interrupts(&v);
	return !net || virtq_init(&rx, &v, 0, VIRTQ_SIZE);
}

static bool start_with(u64 features)
{
	if (!prepare(features) || !virtq_init(&q, &v, queue, VIRTQ_SIZE))
		return false;
	virtio_add_status(&v, STATUS_DRIVER_OK);
	return true;
}

static bool works(void)
{
	struct virtq_buf b = { bytes, LEN, true }, sent = { frame, sizeof(frame), false };
	u32 len = 0;

	if (net)
		return virtq_do(&q, &sent, 1, NULL, &len) && !len;
	if (blk)
		return blk_do(&q, BLK_IN, 0, bytes, SECTOR, 1, NULL) == BLK_OK;
	return virtq_do(&q, &b, 1, NULL, &len) && len > 0 && len <= LEN;
}

static void desc(u16 at, u64 addr, u32 len, u16 flags, u16 next)
{
	q.desc[at] = (struct virtq_desc) { addr, len, flags, next };
}

static void entry(u16 at, u64 addr, u32 len, u16 flags, u16 next)
{
	table[at] = (struct virtq_desc) { addr, len, flags, next };
}

static void indirect(u64 addr, u32 len)
{
	desc(0, addr, len, DESC_INDIRECT, 0);
}

static void table_at_0(u32 len)
{
	indirect(mem_addr(table), len);
}

/* Each leaves a chain at descriptor 0, or does the damage itself and returns false. */
static bool loop_of_one(void)
{
	desc(0, mem_addr(bytes), LEN, DESC_NEXT | DESC_WRITE, 0);
	return true;
}

static bool loop_of_two(void)
{
	desc(0, mem_addr(bytes), LEN, DESC_NEXT | DESC_WRITE, 1);
	desc(1, mem_addr(bytes), LEN, DESC_NEXT | DESC_WRITE, 0);
	return true;
}

static bool next_beyond(void)
{
	desc(0, mem_addr(bytes), LEN, DESC_NEXT | DESC_WRITE, q.size);
	return true;
}

static bool next_far_beyond(void)
{
	desc(0, mem_addr(bytes), LEN, DESC_NEXT | DESC_WRITE, 0xffff);
	return true;
}

static bool head_beyond(void)
{
	virtq_publish(&q, q.size);
	return false;
}

static bool head_far_beyond(void)
{
	virtq_publish(&q, 0xffff);
	return false;
}

static bool avail_too_far(void)
{
	desc(0, mem_addr(bytes), LEN, DESC_WRITE, 0);
	q.avail.idx = (u16)(q.avail.idx + q.size + 1);
	return false;
}

static bool avail_backwards(void)
{
	desc(0, mem_addr(bytes), LEN, DESC_WRITE, 0);
	q.avail.idx--;
	return false;
}

static bool buffer_in_hole(void)
{
	desc(0, NOWHERE, LEN, DESC_WRITE, 0);
	return true;
}

static bool buffer_far_away(void)
{
	desc(0, FAR_AWAY, LEN, DESC_WRITE, 0);
	return true;
}

static bool buffer_wraps(void)
{
	desc(0, ~0ull - 15, LEN, DESC_WRITE, 0);
	return true;
}

static bool buffer_too_long(void)
{
	desc(0, mem_addr(bytes), ~0u, DESC_WRITE, 0);
	return true;
}

/* Where a processor would reach a device, memory ends for another device. */
static bool buffer_in_own_registers(void)
{
	desc(0, virtio_registers(&v), LEN, DESC_WRITE, 0);
	return true;
}

static bool buffer_in_lapic(void)
{
	desc(0, LAPIC_BASE, LEN, DESC_WRITE, 0);
	return true;
}

static bool buffer_in_ioapic(void)
{
	desc(0, IOAPIC_BASE, LEN, DESC_WRITE, 0);
	return true;
}

static bool buffer_in_config_space(void)
{
	desc(0, ECAM_BASE, LEN, DESC_WRITE, 0);
	return true;
}

static bool buffer_across_ram_end(void)
{
	desc(0, ram_end() - LEN / 2, LEN, DESC_WRITE, 0);
	return true;
}

static bool second_buffer_in_hole(void)
{
	desc(0, mem_addr(bytes), 16, DESC_NEXT, 1);
	desc(1, NOWHERE, LEN, DESC_WRITE, 0);
	return true;
}

static bool table_in_hole(void)
{
	indirect(NOWHERE, sizeof(table));
	return true;
}

static bool table_far_away(void)
{
	indirect(FAR_AWAY, sizeof(table));
	return true;
}

static bool table_in_own_registers(void)
{
	indirect(virtio_registers(&v), sizeof(table));
	return true;
}

static bool table_wraps(void)
{
	indirect(~0ull - 15, sizeof(table));
	return true;
}

static bool table_across_ram_end(void)
{
	indirect(ram_end() - sizeof(*table), sizeof(table));
	return true;
}

static bool table_empty(void)
{
	table_at_0(0);
	return true;
}

static bool table_of_part(void)
{
	entry(0, mem_addr(bytes), LEN, DESC_WRITE, 0);
	table_at_0(sizeof(*table) + 1);
	return true;
}

static bool table_huge(void)
{
	entry(0, mem_addr(bytes), LEN, DESC_WRITE, 0);
	table_at_0(0xfffffff0);
	return true;
}

static bool table_loops(void)
{
	entry(0, mem_addr(bytes), LEN, DESC_NEXT | DESC_WRITE, 1);
	entry(1, mem_addr(bytes), LEN, DESC_NEXT | DESC_WRITE, 0);
	table_at_0(sizeof(table));
	return true;
}

static bool table_next_beyond(void)
{
	entry(0, mem_addr(bytes), LEN, DESC_NEXT | DESC_WRITE, 2);
	entry(2, mem_addr(bytes), LEN, DESC_WRITE, 0);
	table_at_0(2 * sizeof(*table));
	return true;
}

/* All over each other, so that RAM does not bound their sum: 4 GiB. */
static bool table_of_gigabytes(void)
{
	const u32 len = 16 << 20;
	u16 i;

	for (i = 0; i < ARRAY_SIZE(many); i++)
		many[i] = (struct virtq_desc) {
			ram_end() - len, len, DESC_WRITE | DESC_NEXT, (u16)(i + 1),
		};
	many[ARRAY_SIZE(many) - 1].flags = DESC_WRITE;
	indirect(mem_addr(many), sizeof(many));
	return true;
}

static bool table_in_table(void)
{
	entry(0, mem_addr(table), sizeof(*table), DESC_INDIRECT, 0);
	table_at_0(sizeof(*table));
	return true;
}

static bool table_and_next(void)
{
	entry(0, mem_addr(bytes), LEN, DESC_WRITE, 0);
	desc(0, mem_addr(table), sizeof(*table), DESC_INDIRECT | DESC_NEXT, 1);
	desc(1, mem_addr(bytes), LEN, DESC_WRITE, 0);
	return true;
}

static bool read_after_write(void)
{
	desc(0, mem_addr(bytes), LEN, DESC_NEXT | DESC_WRITE, 1);
	desc(1, mem_addr(bytes), LEN, 0, 0);
	return true;
}

static bool buffer_empty(void)
{
	desc(0, mem_addr(bytes), 0, DESC_WRITE, 0);
	return true;
}

static bool nothing_to_write(void)
{
	desc(0, mem_addr(bytes), LEN, 0, 0);
	return true;
}

static bool half_a_header(void)
{
	desc(0, mem_addr(bytes), 8, DESC_NEXT, 1);
	desc(1, mem_addr(bytes), 1, DESC_WRITE, 0);
	return true;
}

static bool odd_flags(void)
{
	desc(0, mem_addr(bytes), LEN, 0xfff8 | DESC_WRITE, 0);
	return true;
}

static bool events_everywhere(void)
{
	virtq_want_irq_after(&q, 0x7fff);
	desc(0, mem_addr(bytes), LEN, DESC_WRITE, 0);
	return true;
}

static const struct abuse {
	const char *what;
	bool (*make)(void);
	bool must_break;
} abuses[] = {
	{ "a descriptor that is its own next", loop_of_one, true },
	{ "two that are each other's", loop_of_two, true },
	{ "a next behind the table", next_beyond, true },
	{ "a next far behind it", next_far_beyond, true },
	{ "a head behind the table", head_beyond, true },
	{ "a head far behind it", head_far_beyond, true },
	{ "more available than the ring holds", avail_too_far, true },
	{ "an available index that goes back", avail_backwards, true },
	{ "a buffer in the hole", buffer_in_hole, true },
	{ "a buffer far away", buffer_far_away, true },
	{ "a buffer that wraps around", buffer_wraps, true },
	{ "a buffer of 4 GiB", buffer_too_long, true },
	{ "a buffer in the device's own registers", buffer_in_own_registers, true },
	{ "a buffer in the local APIC", buffer_in_lapic, true },
	{ "a buffer in the IOAPIC", buffer_in_ioapic, true },
	{ "a buffer in configuration space", buffer_in_config_space, true },
	{ "a buffer across the end of RAM", buffer_across_ram_end, true },
	{ "a second buffer in the hole", second_buffer_in_hole, true },
	{ "an indirect table in the hole", table_in_hole, true },
	{ "an indirect table far away", table_far_away, true },
	{ "an indirect table in the device's own registers", table_in_own_registers, true },
	{ "an indirect table that wraps around", table_wraps, true },
	{ "an indirect table across the end of RAM", table_across_ram_end, true },
	{ "an empty indirect table", table_empty, true },
	{ "an indirect table of 17 bytes", table_of_part, true },
	{ "an indirect table of 4 GiB", table_huge, true },
	{ "a loop in an indirect table", table_loops, true },
	{ "a next behind an indirect table", table_next_beyond, true },
	{ "descriptors of 4 GiB, all in one place", table_of_gigabytes, true },
	{ "an indirect table in one", table_in_table, true },
	{ "an indirect descriptor with a next", table_and_next, false },
	{ "read after write", read_after_write, false },
	{ "an empty buffer", buffer_empty, false },
	{ "nothing to write to", nothing_to_write, false },
	{ "half a header", half_a_header, false },
	{ "reserved flags", odd_flags, false },
	{ "a used_event at random", events_everywhere, false },
};

static bool broken(void)
{
	return virtio_status(&v) & STATUS_NEEDS_RESET;
}

static void recover(const char *what)
{
	if (!check(start_with(0) && works(), "after %s: reset, and it works", what))
		guest_exit(1);
}

static void test_rings(u64 features)
{
	const struct abuse *a;
	u32 before;

	for (a = abuses; a < abuses + ARRAY_SIZE(abuses); a++) {
		if (!start_with(features)) {
			check(false, "starts for %s", a->what);
			return;
		}
		before = virtio_config_irqs();
		if (a->make())
			virtq_publish(&q, 0);
		virtio_notify(&v, queue);
		if (a->must_break) {
			check(poll_until(broken()), "%s: NEEDS_RESET", a->what);
			check(poll_until(virtio_config_irqs() > before),
			      "and a configuration interrupt");
		} else {
			poll_until(q.used.idx != q.seen || broken());
		}
		recover(a->what);
	}
}

static void test_features(void)
{
	u64 offered = virtio_features(&v);

	virtio_reset(&v);
	virtio_add_status(&v, STATUS_ACKNOWLEDGE);
	virtio_add_status(&v, STATUS_DRIVER);
	virtio_accept(&v, offered | ~0ull << 40);
	virtio_add_status(&v, STATUS_FEATURES_OK);
	check(!(virtio_status(&v) & STATUS_FEATURES_OK), "features it has not are refused");
	recover("that");

	virtio_reset(&v);
	virtio_set_status(&v, 0xff);
	virtio_notify(&v, queue);
	recover("all status bits at once");

	virtio_negotiate(&v, 0);
	virtio_add_status(&v, STATUS_DRIVER_OK);
	virtio_notify(&v, queue);
	recover("DRIVER_OK without a queue");

	start_with(0);
	entry(0, mem_addr(bytes), LEN, DESC_WRITE, 0);
	table_at_0(sizeof(*table));
	virtq_publish(&q, 0);
	virtio_notify(&v, queue);
	check(poll_until(broken()), "an indirect table, not negotiated: NEEDS_RESET");
	recover("that");
}

/* What was agreed on stays, whatever is written later. */
static void test_features_are_fixed(void)
{
	u8 status;

	start_with(0);
	status = virtio_status(&v);
	virtio_accept(&v, virtio_features(&v));
	v.features = FEATURE(F_VERSION_1);
	virtio_set_status(&v, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
	check(virtio_status(&v) == status, "FEATURES_OK cannot be taken back");
	virtio_add_status(&v, STATUS_FEATURES_OK);
	check(works(), "features of a running device: written, and nothing happens");
	entry(0, mem_addr(bytes), LEN, DESC_WRITE, 0);
	table_at_0(sizeof(*table));
	virtq_publish(&q, 0);
	virtio_notify(&v, queue);
	check(poll_until(broken()), "an indirect table, accepted too late: NEEDS_RESET");
	recover("that");

	prepare(0);
	virtio_accept(&v, virtio_features(&v));
	v.features = FEATURE(F_VERSION_1);
	virtq_init(&q, &v, queue, VIRTQ_SIZE);
	virtio_add_status(&v, STATUS_DRIVER_OK);
	entry(0, mem_addr(bytes), LEN, DESC_WRITE, 0);
	table_at_0(sizeof(*table));
	virtq_publish(&q, 0);
	virtio_notify(&v, queue);
	check(poll_until(broken()), "between FEATURES_OK and DRIVER_OK, as well");
	recover("that");
}

static void test_queue_sizes(void)
{
	static const u16 sizes[] = { 0, 3, 1, 0x8000, 0xffff };
	static const char *const what[] = {
		"queue size 0", "queue size 3", "queue size 1", "queue size 8000",
		"queue size ffff",
	};
	struct virtio_rings r = {
		0, mem_addr(q.desc), mem_addr(&q.avail), mem_addr(&q.used),
	};
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		prepare(0);
		r.size = sizes[i];
		virtio_queue_set(&v, queue, &r);
		virtio_queue_enable(&v, queue);
		virtio_add_status(&v, STATUS_DRIVER_OK);
		virtio_notify(&v, queue);
		poll_pause();
		recover(what[i]);
	}
}

static void try_rings(const char *what, u64 d, u64 avail, u64 used, bool must_break)
{
	struct virtio_rings r = { 8, d, avail, used };

	prepare(0);
	virtio_queue_set(&v, queue, &r);
	virtio_queue_enable(&v, queue);
	virtio_add_status(&v, STATUS_DRIVER_OK);
	virtio_notify(&v, queue);
	if (must_break)
		check(poll_until(broken()) || !virtio_queue_is_enabled(&v, queue),
		      "%s: NEEDS_RESET, or not enabled", what);
	recover(what);
}

static void test_ring_addresses(void)
{
	u64 d = mem_addr(q.desc), a = mem_addr(&q.avail), u = mem_addr(&q.used);

	try_rings("descriptors in the hole", NOWHERE, a, u, true);
	try_rings("available ring in the hole", d, NOWHERE, u, true);
	try_rings("used ring in the hole", d, a, NOWHERE, true);
	try_rings("descriptors in the device's own registers", virtio_registers(&v), a, u, true);
	try_rings("available ring in the local APIC", d, LAPIC_BASE, u, true);
	try_rings("used ring in configuration space", d, a, ECAM_BASE, true);
	try_rings("rings at the end of everything", ~0xfull, ~1ull, ~3ull, true);
	try_rings("used ring across the end of RAM", d, a, ram_end() - 4, true);
	try_rings("rings at odd addresses", d + 1, a + 1, u + 1, false);
	try_rings("all rings in one place", d, d, d, false);
}

/* A bell for each queue that a device might have, and what is written there may be anything. */
static void ring_all_bells(void)
{
	u16 i;

	for (i = 0; i < 32; i++) {
		mmio_write16(v.notify + i * 4u, i);
		mmio_write16(v.notify + i * 4u, 0xffff);
		mmio_write32(v.notify + i * 4u, ~0u);
		if (v.notify_port) {
			outw((u16)(v.notify_port + i * 4), i);
			outl((u16)(v.notify_port + i * 4), ~0u);
		}
	}
	mmio_write16(v.notify + 0xffe, 0);
}

static void test_after_driver_ok(void)
{
	struct virtio_rings r = { 4, NOWHERE, NOWHERE, NOWHERE };

	start_with(0);
	works();
	virtio_queue_set(&v, queue, &r);
	virtio_queue_enable(&v, queue);
	virtio_notify(&v, queue);
	virtio_queue_size(&v, queue, 0);
	virtio_accept(&v, 0);
	virtio_notify(&v, queue);
	check(works() && !broken(), "a live queue is where it was");
	recover("a live queue was told new places");

	start_with(0);
	virtio_queue_size(&v, 7, 16);
	virtio_queue_enable(&v, 7);
	virtio_queue_enable(&v, 0xffff);
	virtio_notify(&v, 7);
	virtio_notify(&v, 0xffff);
	check(works(), "queues it has not: told of, kicked, and nothing happens");
	if (!v.mmio)
		ring_all_bells();
	check(works() && !broken(), "any number at any bell");

	prepare(0);
	virtq_init(&q, &v, queue, VIRTQ_SIZE);
	desc(0, mem_addr(bytes), LEN, DESC_WRITE, 0);
	virtq_publish(&q, 0);
	virtio_notify(&v, queue);
	poll_pause();
	check(!q.used.idx, "before DRIVER_OK a kick does nothing");
	recover("that");
}

/* As much as the queue holds, all into `bytes`. */
static void fill_queue(void)
{
	static struct { u32 type, reserved; u64 sector; } head;
	u16 i, parts = blk ? 3 : 1;

	for (i = 0; i + parts <= q.size; i = (u16)(i + parts)) {
		if (blk) {
			desc(i, mem_addr(&head), sizeof(head), DESC_NEXT, (u16)(i + 1));
			desc((u16)(i + 1), mem_addr(bytes), SECTOR / 2, DESC_NEXT | DESC_WRITE,
			     (u16)(i + 2));
			desc((u16)(i + 2), mem_addr(bytes) + SECTOR / 2, SECTOR / 2 + 1,
			     DESC_WRITE, 0);
		} else if (net) {
			desc(i, mem_addr(frame), sizeof(frame), 0, 0);
		} else {
			desc(i, mem_addr(bytes), LEN, DESC_WRITE, 0);
		}
		virtq_publish(&q, i);
	}
}

/* A reset comes while requests may be under way: once status reads 0 memory is the driver's. */
static void test_reset_in_flight(void)
{
	unsigned round, i;
	bool held = true;

	for (round = 0; round < 8; round++) {
		start_with(0);
		fill_queue();
		virtio_notify(&v, queue);
		virtio_reset(&v);
		memset((void *)(u64)&q.used, 0x5a, sizeof(q.used));
		memset(bytes, 0x5a, sizeof(bytes));
		barrier_full();
		for (i = 0; i < 200; i++)
			poll_pause();
		held &= q.used.idx == 0x5a5a && q.used.ring[0].id == 0x5a5a5a5a;
		for (i = 0; i < sizeof(bytes); i += 8)
			held &= bytes[i] == 0x5a;
	}
	check(held, "reset under load: nothing is written any more");
	recover("that");
}

static void poke(u64 at)
{
	mmio_read8(at);
	mmio_read16(at);
	mmio_read32(at);
	mmio_read64(at);
}

/* Sizes and offsets that no register has; reading is harmless to state, writing is not. */
static void test_odd_accesses(void)
{
	u64 regs = virtio_registers(&v);
	unsigned i;

	start_with(0);
	for (i = 0; i < 0x48; i++)
		poke(regs + i);
	for (i = 0; i < 24; i++)
		poke(v.device + i);
	check(works() || broken(), "odd reads");
	for (i = 0; i < 0x40; i++) {
		mmio_write8(regs + i, 0xff);
		mmio_write64(regs + i, ~0ull);
	}
	for (i = 0; i < 24; i++) {
		virtio_config_write(&v, i, 1, 0xff);
		virtio_config_write(&v, i, 8, ~0ull);
	}
	mmio_write16(regs + 1, 0xffff);
	mmio_write32(regs + 2, ~0u);
	recover("odd writes");
	if (v.mmio) {
		poke(v.base + MMIO_STRIDE - 4);
		mmio_write8(v.base + 0x51, 0);
		mmio_write64(v.base + 0x50, ~0ull);
	} else {
		poke(v.notify + 1);
		mmio_write8(v.notify, 0xff);
		mmio_write64(v.notify, ~0ull);
		mmio_write32(v.isr, ~0u);
	}
	recover("odd kicks");
}

int main(const struct start_info *info, const char *cmdline)
{
	(void)info;
	(void)cmdline;
	apic_init();
	blk = arg_is("dev", "blk");
	net = arg_is("dev", "net");
	queue = net;
	if (!check(virtio_find(&v, blk ? VIRTIO_BLK : net ? VIRTIO_NET : VIRTIO_RNG, 0),
		   "the device is there"))
		return 1;
	irq_enable();
	recover("nothing");
	test_rings(FEATURE(F_INDIRECT));
	test_rings(FEATURE(F_INDIRECT) | FEATURE(F_EVENT_IDX));
	test_features();
	test_features_are_fixed();
	test_queue_sizes();
	test_ring_addresses();
	test_after_driver_ok();
	test_reset_in_flight();
	test_odd_accesses();
	check(virtio_reset(&v), "reset at the end");
	return check_result();
}
