/*
 * virtio-storm.c: promise: whatever several processors do to a disk at one time - bells, registers,
 * resets, a BAR that moves, rings that change while they are read - vmm lives, the disk writes
 * nowhere but where it may, another device never notices, and after a reset the disk works.
 * cpus=N: one drives both devices, the others are the storm. rounds=N, of each of them.
 *
 * Spec: virtio 1.2, 2.1 (status), 2.7 (split virtqueues), 4.1.4 (PCI), 4.2.2 (MMIO).
 */
#include "guest/lib/acpi.h"
#include "guest/lib/apic.h"
#include "guest/lib/blk.h"
#include "guest/lib/mem.h"
#include "guest/lib/start.h"
#include "guest/lib/string.h"

enum { MAX_CPUS = 16, GUARD = 4096, AREA = 65536, HALF = AREA / 2, OTHER_LEN = 16 };

#define NOWHERE		0xd0000000ull	/* between RAM and the ECAM */
#define OTHER_PLACE	0xd8000000ull	/* there, too: of the disk's BAR */
#define FAR_AWAY	0x123456789000ull

/* Wherever a ring lies, one of the largest size has room behind it. */
static struct {
	u8 before[GUARD];
	struct virtq q;
	u8 room[AREA];
	u8 area[AREA];
	u8 after[GUARD];
} m __attribute__((aligned(4096)));

static struct virtio v, other;
static struct virtio view[2];		/* of the same device, its BAR here and there */
static struct virtq other_q;
static u64 bar0, ecam_bar0, ecam_command;
static volatile u32 finished;

static u32 next(u32 *seed)
{
	*seed = *seed * 1664525 + 1013904223;
	return *seed >> 8;
}

/* Of these any address goes with any length: inside the area, or nothing at all. */
static u64 place(u32 n)
{
	const u64 places[] = {
		mem_addr(m.area), mem_addr(m.area) + HALF, mem_addr(m.area) + 1, NOWHERE,
		ECAM_BASE, LAPIC_BASE, IOAPIC_BASE, virtio_registers(&v), FAR_AWAY, ~0ull - 15,
	};

	return places[n % ARRAY_SIZE(places)];
}

static u32 length(u32 n)
{
	static const u32 lengths[] = { 0, 1, 16, 512, 4096, HALF - 1, 0xfffffff0, ~0u };

	return lengths[n % ARRAY_SIZE(lengths)];
}

static void ring_bells(struct virtio *w, u32 *seed)
{
	u32 n = next(seed);

	virtio_notify(w, n & 1 ? 0 : (u16)(n >> 8));
	if (!w->mmio && w->notify_port)
		outw((u16)(w->notify_port + (n & 0x7c)), (u16)n);
}

static void set_registers(struct virtio *w, u32 *seed)
{
	static const u16 sizes[] = { 16, 8, 1, 256, 3, 0, 0x8000 };
	static const u8 status[] = { 0, 1, 3, 11, 15, 0x4f, 0xff };
	u32 n = next(seed);
	struct virtio_rings r = {
		sizes[n % ARRAY_SIZE(sizes)], n & 64 ? mem_addr(m.q.desc) : place(n >> 7),
		n & 1024 ? mem_addr(&m.q.avail) : place(n >> 11), place(n >> 14),
	};

	switch (n >> 3 & 7) {
	case 0:
		virtio_set_status(w, status[next(seed) % ARRAY_SIZE(status)]);
		break;
	case 1:
		virtio_accept(w, (u64)next(seed) << 32 | next(seed));
		break;
	case 2:
		virtio_queue_enable(w, n & 1);
		break;
	case 3:
		mmio_write64(virtio_registers(w) + (n >> 8 & 0x3f), (u64)next(seed) << 40);
		break;
	case 4:
		mmio_write8(virtio_registers(w) + (n >> 8 & 0x3f), (u8)n);
		break;
	case 5:
		virtio_config_write(w, n >> 8 & 63, 1 << (n & 3), n);
		break;
	default:
		virtio_queue_set(w, 0, &r);
	}
}

/* With MMIO, which has no BAR: what it has instead. */
static void move(struct virtio *w, u32 *seed)
{
	static const u16 commands[] = { 0, COMMAND_IO, COMMAND_MEMORY, COMMAND_IO | COMMAND_MEMORY };
	u32 n = next(seed);

	if (w->mmio) {
		if (n & 1)
			virtio_isr(w);
		else
			virtio_mmio_queue_disable(w, 0);
		return;
	}
	switch (n & 3) {
	case 0:
		mmio_write16(ecam_command, commands[n >> 2 & 3]);
		break;
	case 1:
		pci_msix_mask(&w->msix, n >> 2 & 1, n >> 3 & 1);
		break;
	default:
		mmio_write16(ecam_command, COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER);
		mmio_write32(ecam_bar0, (u32)(n & 4 ? bar0 : OTHER_PLACE));
		mmio_write32(ecam_bar0 + 4, 0);
	}
}

static void scribble(u32 *seed)
{
	u32 n = next(seed);
	struct virtq_desc *d = n & 1 ? &m.q.desc[n >> 8 & 15] :
				       (struct virtq_desc *)m.area + (n >> 8 & 15);

	d->addr = place(n >> 4);
	d->len = length(n >> 12);
	d->flags = n >> 16 & 7;
	d->next = n >> 20 & 15;
	if (!(n & 6)) {
		m.q.avail.ring[n >> 5 & 15] = n >> 9 & 15;
		m.q.avail.idx = (u16)(m.q.avail.idx + (n >> 3 & 3));
	}
}

static void storm(u32 nr)
{
	u64 rounds = arg_u64("rounds", 2000);
	u32 seed = nr + 1;

	while (rounds--) {
		struct virtio w = view[next(&seed) & 1];

		switch (nr % 4) {
		case 0:
			scribble(&seed);
			scribble(&seed);
			ring_bells(&w, &seed);
			break;
		case 1:
			set_registers(&w, &seed);
			break;
		case 2:
			move(&w, &seed);
			break;
		default:
			ring_bells(&w, &seed);
		}
	}
	atomic_add(&finished, 1);
}

static bool other_works(void)
{
	static u8 bytes[OTHER_LEN];
	struct virtq_buf b = { bytes, OTHER_LEN, true };
	u32 len = 0;

	return virtq_do(&other_q, &b, 1, NULL, &len) && len > 0 && len <= OTHER_LEN;
}

static bool start_other(void)
{
	if (!virtio_find(&other, VIRTIO_RNG, 0) || !virtio_negotiate(&other, 0) ||
	    !virtq_init(&other_q, &other, 0, VIRTQ_SIZE))
		return false;
	virtio_add_status(&other, STATUS_DRIVER_OK);
	return other_works();
}

/* As a driver would, for whom all goes wrong: it waits for nothing. */
static void drive(void)
{
	virtio_set_status(&v, 0);
	virtio_set_status(&v, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
	virtio_accept(&v, FEATURE(F_VERSION_1) | FEATURE(F_INDIRECT) | FEATURE(F_EVENT_IDX));
	virtio_set_status(&v, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
	virtq_init(&m.q, &v, 0, VIRTQ_SIZE);
	virtio_add_status(&v, STATUS_DRIVER_OK);
	if (m.q.size)
		virtq_publish(&m.q, 0);
	virtio_notify(&v, 0);
}

static bool all(const u8 *p, u8 value)
{
	unsigned i;

	for (i = 0; i < GUARD; i++)
		if (p[i] != value)
			return false;
	return true;
}

static void find_places(void)
{
	u64 by;

	view[0] = view[1] = v;
	if (v.mmio)
		return;
	bar0 = pci_bar_base(&v.pci, 0);
	ecam_bar0 = pci_ecam(&v.pci, PCI_BAR0);
	ecam_command = pci_ecam(&v.pci, PCI_COMMAND);
	by = OTHER_PLACE - bar0;
	view[1].common += by;
	view[1].notify += by;
	view[1].isr += by;
	view[1].device += by;
	view[1].msix.table += by;
	view[1].notify_port = 0;
}

static void recover(void)
{
	static u8 sector[SECTOR];

	if (!v.mmio) {
		pci_write(&v.pci, PCI_COMMAND, 2, COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER);
		pci_bar_set(&v.pci, 0, bar0);
	}
	check(blk_start(&v, &m.q, 0, 0) && blk_do(&m.q, BLK_IN, 0, sector, SECTOR, 1, NULL) == BLK_OK,
	      "reset, and the disk works");
}

int main(const struct start_info *info, const char *cmdline)
{
	u32 ids[MAX_CPUS], nr = acpi_cpus(ids, MAX_CPUS), lost = 0, turns = 0, i;

	(void)info;
	(void)cmdline;
	apic_init();
	irq_enable();
	memset(m.before, 0x5a, GUARD);
	memset(m.after, 0x5a, GUARD);
	if (!check(nr > 1 && nr == arg_u64("cpus", 0), "%d processors", nr) ||
	    !check(blk_start(&v, &m.q, 0, 0), "the disk starts") ||
	    !check(start_other(), "so does another device"))
		return 1;
	find_places();
	for (i = 0; i < nr; i++)
		if (ids[i] != apic_id() && !ap_start(ids[i], storm))
			return !check(false, "processor %d starts", ids[i]);
	for (; finished < nr - 1; turns++) {
		drive();
		lost += !other_works();
	}
	check(!lost, "the other device answered all the while (%d of %d lost)", lost, turns);
	recover();
	check(all(m.before, 0x5a) && all(m.after, 0x5a), "nothing was written where it may not be");
	check(other_works(), "the other device works at the end");
	return check_result();
}
