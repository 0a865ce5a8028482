/*
 * pci.c: promise: PCI configuration space by ports and by ECAM is one space; BARs can be sized,
 * moved and switched off, doorbells included, and take nobody's place; MSI-X tables hold what is
 * written; odd accesses hurt nobody.
 *
 * Spec: PCI Local Bus 3.0, 3.2.2.3.2 (mechanism #1), 6.2 (header), 6.2.5 (BARs), 6.8.2 (MSI-X).
 */
#include "guest/lib/acpi.h"
#include "guest/lib/apic.h"
#include "guest/lib/mem.h"
#include "guest/lib/start.h"
#include "guest/lib/virtq.h"

enum {
	BAR_MAX = 6, HEADER_TYPE = 0x7f,
	CLASS_HOST = 0x0600, PCI_CLASS = 0x0a,
	NUM_QUEUES = 0x12,		/* in virtio's common configuration */
};

static struct pci_dev devs[PCI_SLOTS];
static unsigned nr_devs;

static void scan(void)
{
	struct pci_dev *d = devs;
	u8 slot;

	for (slot = 0; slot < PCI_SLOTS; slot++)
		if (pci_probe(slot, 0, d))
			d++;
	nr_devs = (unsigned)(d - devs);
	check(nr_devs > 0 && !devs[0].slot && pci_read(&devs[0], PCI_CLASS, 2) == CLASS_HOST,
	      "slot 0 is the host bridge, %d functions in all", nr_devs);
}

static void test_one_space(void)
{
	unsigned i, at, dwords = 0, parts = 0;
	u32 port;
	u64 ecam;

	for (i = 0; i < nr_devs; i++)
		for (at = 0; at < 256; at += 4) {
			port = pci_read(&devs[i], at, 4);
			ecam = pci_ecam(&devs[i], at);
			dwords += mmio_read32(ecam) != port;
			if (at >= 0x40)
				continue;
			parts += mmio_read16(ecam + 2) != port >> 16;
			parts += mmio_read8(ecam + 3) != port >> 24;
			parts += mmio_read8(ecam + 1) != (port >> 8 & 0xff);
			parts += pci_read(&devs[i], at + 2, 2) != port >> 16;
			parts += pci_read(&devs[i], at + 1, 1) != (port >> 8 & 0xff);
			parts += pci_read(&devs[i], at + 3, 1) != port >> 24;
		}
	check(!dwords, "ports and ECAM agree (%d dwords do not)", dwords);
	check(!parts, "words and bytes are parts of dwords (%d are not)", parts);
}

static void test_absent(void)
{
	struct pci_dev none = { .slot = 31, .fn = 7 }, d = devs[0];

	check(pci_read(&none, PCI_VENDOR, 4) == ~0u && pci_read(&none, PCI_VENDOR, 2) == 0xffff &&
	      mmio_read32(pci_ecam(&none, 0)) == ~0u, "no function there: ones");
	pci_write(&none, PCI_COMMAND, 2, 7);
	mmio_write32(pci_ecam(&none, PCI_COMMAND), 7);

	outl(PORT_PCI_ADDRESS, 0x80000008);
	check(inl(PORT_PCI_ADDRESS) == 0x80000008, "the address register reads back");
	outl(PORT_PCI_ADDRESS, 0);
	check(inl(PORT_PCI_DATA) == ~0u, "without its enable bit the data port gives ones");
	outl(PORT_PCI_ADDRESS, 0x80ff0000);
	check(inl(PORT_PCI_DATA) == ~0u, "another bus is empty");

	pci_write(&d, PCI_VENDOR, 4, 0x12345678);
	mmio_write32(pci_ecam(&d, PCI_VENDOR), 0x12345678);
	check(pci_read(&d, PCI_VENDOR, 2) == d.vendor, "ids cannot be written");
}

static bool sane(const struct pci_bar *b)
{
	return b->size >= (b->io ? 4 : 16) && !(b->size & (b->size - 1)) &&
		!(b->base & (b->size - 1));
}

static bool apart(const struct pci_bar *a, const struct pci_bar *b)
{
	return a->io != b->io || a->base + a->size <= b->base || b->base + b->size <= a->base;
}

static struct pci_bar bars[PCI_SLOTS * BAR_MAX];
static unsigned nr_bars;

static void test_bars(void)
{
	unsigned i, j, n, wrong = 0, overlap = 0;
	struct pci_bar b;

	for (i = 0; i < nr_devs; i++) {
		if (pci_read(&devs[i], PCI_HEADER, 1) & HEADER_TYPE)
			continue;
		for (n = 0; n < BAR_MAX; n++) {
			b = pci_bar(&devs[i], n);
			n += b.wide;
			if (!b.size)
				continue;
			wrong += !sane(&b) || pci_bar_base(&devs[i], n - b.wide) != b.base;
			for (j = 0; j < nr_bars; j++)
				overlap += !apart(&b, &bars[j]);
			bars[nr_bars++] = b;
		}
	}
	check(nr_bars > 0, "there are %d BARs", nr_bars);
	check(!wrong, "their sizes are powers of two, their places aligned (%d are not)", wrong);
	check(!overlap, "none overlap (%d do)", overlap);
}

/* Behind all other BARs below 4 GiB or, where that is not PCI's any more, before them. */
static u64 free_place(u64 size)
{
	u64 first = IOAPIC_BASE, end = 0, above;
	unsigned i;

	for (i = 0; i < nr_bars; i++) {
		if (bars[i].io || bars[i].base >= 1ull << 32)
			continue;
		if (bars[i].base + bars[i].size > end)
			end = bars[i].base + bars[i].size;
		if (bars[i].base < first)
			first = bars[i].base;
	}
	above = (end + size - 1) & ~(size - 1);
	return above + size <= IOAPIC_BASE ? above : (first - size) & ~(size - 1);
}

static struct virtio v;
static struct virtq q;
static u8 bytes[16];

static bool live(void)
{
	struct virtq_buf b = { bytes, sizeof(bytes), true };
	u32 len;

	return virtq_do(&q, &b, 1, NULL, &len) && len > 0;
}

static bool bring_up(void)
{
	if (!virtio_find(&v, VIRTIO_RNG, 0) || !virtio_negotiate(&v, 0))
		return false;
	v.notify_port = 0;		/* in memory, which is what moves */
	virtio_enable_interrupts(&v);
	if (!virtq_init(&q, &v, 0, VIRTQ_SIZE))
		return false;
	virtio_add_status(&v, STATUS_DRIVER_OK);
	return live();
}

static u16 queues_at(u64 bar, u64 offset)
{
	return mmio_read16(mem_map(bar) + offset + NUM_QUEUES);
}

static void test_move_to(const char *where, unsigned n, const struct pci_bar *bar, u64 to)
{
	u64 offset = v.common - bar->base;
	u32 before;

	pci_write(&v.pci, PCI_COMMAND, 2, COMMAND_MASTER | COMMAND_NO_INTX);
	check(queues_at(bar->base, offset) == 0xffff, "not decoding, the BAR is silent");
	pci_bar_set(&v.pci, n, to);
	pci_write(&v.pci, PCI_COMMAND, 2, COMMAND_MASTER | COMMAND_MEMORY | COMMAND_NO_INTX);
	check(pci_bar_base(&v.pci, n) == to && queues_at(to, offset) == 1,
	      "moved %s, to %llx, it answers there", where, to);
	check(queues_at(bar->base, offset) == 0xffff, "and no longer where it was");

	/* The queue was not told: only addresses changed, and its doorbell with them. */
	v.common += to - bar->base;
	v.notify += to - bar->base;
	v.isr += to - bar->base;
	v.msix.table += to - bar->base;
	v.msix.pba += to - bar->base;
	before = virtio_irqs();
	check(live() && poll_until(virtio_irqs() > before), "its queue lives on, by its new bell");
	check(bring_up(), "and after a reset, too");

	pci_bar_set(&v.pci, n, bar->base);
	check(bring_up(), "moved back it works as before");
}

/* What may change by nobody's BAR lying over it. */
static bool all_as_before(const u64 *others, u64 offset)
{
	static u32 apic, ioapic, id, queues;
	u32 now[] = {
		apic_id(), ioapic_read(1), mmio_read32(pci_ecam(&devs[0], 0)),
		others ? queues_at(*others, offset) : 0,
	};
	bool same = apic == now[0] && ioapic == now[1] && id == now[2] && queues == now[3];

	apic = now[0];
	ioapic = now[1];
	id = now[2];
	queues = now[3];
	return same;
}

/* Who was there first stays; for a BAR that is over something there is no place. */
static void test_move_over(const char *what, unsigned n, const struct pci_bar *bar, u64 to,
			   const u64 *others)
{
	u64 offset = v.common - bar->base;

	all_as_before(others, offset);
	pci_bar_set(&v.pci, n, to);
	check(all_as_before(others, offset), "a BAR over %s: that is as before", what);
	check(queues_at(bar->base, offset) == 0xffff, "and the device has none");
	pci_bar_set(&v.pci, n, bar->base);
	check(bring_up(), "back in its place it works");
}

static void test_over_ram(unsigned n, const struct pci_bar *bar)
{
	static u8 ram[0x10000];
	u64 to = (mem_addr(ram) + bar->size - 1) & ~(bar->size - 1);
	u8 *p = mem_at(to);
	unsigned i, wrong = 0;

	if (bar->size > sizeof(ram) / 2) {
		check_skip("a BAR of %llx bytes over RAM", bar->size);
		return;
	}
	for (i = 0; i < bar->size; i++)
		p[i] = (u8)(i * 7);
	pci_bar_set(&v.pci, n, to);
	for (i = 0; i < bar->size; i++)
		wrong += p[i] != (u8)(i * 7);
	mmio_write8(to + (v.common - bar->base) + 20, 0xee);
	check(!wrong && p[v.common - bar->base + 20] == 0xee, "a BAR over RAM: it is RAM");
	pci_bar_set(&v.pci, n, bar->base);
	check(virtio_status(&v) != 0 && bring_up(), "back in its place it works");
}

static void test_move_nowhere(unsigned n, const struct pci_bar *bar)
{
	unsigned i;

	test_move_over("the local APIC", n, bar, LAPIC_BASE, NULL);
	test_move_over("the IOAPIC", n, bar, IOAPIC_BASE, NULL);
	test_move_over("configuration space", n, bar, ECAM_BASE, NULL);
	test_move_over("its end", n, bar, ECAM_BASE + ECAM_SIZE - bar->size, NULL);
	test_move_over("the end of everything", n, bar, ~0ull, NULL);
	for (i = 0; i < nr_bars; i++)
		if (!bars[i].io && bars[i].base != bar->base && bars[i].size == bar->size)
			test_move_over("another device's", n, bar, bars[i].base, &bars[i].base);
	test_over_ram(n, bar);
}

static void test_move(void)
{
	unsigned n;
	struct pci_bar bar;

	if (!check(bring_up(), "virtio-rng works"))
		return;
	for (n = 0; n < BAR_MAX; n++) {
		bar = pci_bar(&v.pci, n);
		if (!bar.io && bar.size && v.common >= bar.base && v.common < bar.base + bar.size)
			break;
	}
	if (n == BAR_MAX)
		return;
	test_move_to("below 4 GiB", n, &bar, free_place(bar.size));
	if (bar.wide)
		test_move_to("above 4 GiB", n, &bar, 64ull << 30);
	else
		check_skip("the BAR has 32 bits");
	test_move_nowhere(n, &bar);
}

/* From who is no bus master any more nothing comes, until it was reset. */
static void test_bus_master(void)
{
	struct virtq_buf b = { bytes, sizeof(bytes), true };
	u16 before, command = (u16)pci_read(&v.pci, PCI_COMMAND, 2);

	if (!check(bring_up(), "virtio-rng works"))
		return;
	before = q.used.idx;
	pci_write(&v.pci, PCI_COMMAND, 2, command & ~(u32)COMMAND_MASTER);
	virtq_add(&q, &b, 1, NULL);
	virtio_notify(&v, 0);
	pci_write(&v.pci, PCI_COMMAND, 2, command);
	check(!(virtio_status(&v) & STATUS_DRIVER_OK) && q.used.idx == before, "no bus master, it touches nothing");
	check(bring_up() && q.used.idx > 0, "after a reset it works");
}

/* Before any driver: whoever ran before us would have unmasked some. */
static void test_msix_fresh(void)
{
	unsigned i, unmasked = 0;

	if (!check(virtio_find(&v, VIRTIO_RNG, 0) && v.msix.nr >= 2, "virtio-rng has MSI-X, %d",
		   v.msix.nr))
		return;
	for (i = 0; i < v.msix.nr; i++)
		unmasked += !(mmio_read32(v.msix.table + i * 16u + 12) & 1);
	check(!unmasked, "its entries start masked (%d do not)", unmasked);
	check(!(pci_read(&v.pci, v.msix.cap + 2u, 2) & 0xc000), "MSI-X starts disabled");
}

static void test_msix(void)
{
	struct pci_msix *m = &v.msix;
	u64 entry = m->table + (m->nr - 1) * 16u;

	virtio_reset(&v);
	pci_msix_enable(&v.pci, m, false, false);
	mmio_write32(entry, 0xfee01004);
	mmio_write32(entry + 4, 0x12345678);
	mmio_write32(entry + 8, 0x4321);
	mmio_write32(entry + 12, 0);
	check(mmio_read32(entry) == 0xfee01004 && mmio_read32(entry + 4) == 0x12345678 &&
	      mmio_read32(entry + 8) == 0x4321 && !(mmio_read32(entry + 12) & 1),
	      "an entry holds what is written");
	mmio_write64(entry + 8, 0x100001234ull);
	check(mmio_read64(entry + 8) == 0x100001234ull, "by 64 bits as well");
	mmio_write32(entry + 4, 0);
	mmio_write32(m->pba, ~0u);
	check(!mmio_read32(m->pba), "pending bits cannot be written");
}

/* Whatever these give, nothing may break. */
static void test_odd(void)
{
	u64 ecam = pci_ecam(&v.pci, 0), bar = v.common;
	unsigned i;

	for (i = 0; i < 8; i++) {
		mmio_read16(ecam + i);
		mmio_read32(ecam + i);
		mmio_read64(ecam + i);
		mmio_read64(bar + i);
		mmio_read32(bar + i);
		mmio_read8(v.msix.table + i);
		mmio_write8(v.msix.table + i, 0);
		mmio_write16(v.msix.table + i, 0);
	}
	mmio_read64(ecam + 0xfff);
	mmio_read64(ECAM_BASE + ECAM_SIZE - 4);
	mmio_read32(ecam + 0x100);
	inl(PORT_PCI_DATA + 3);
	inw(PORT_PCI_DATA + 1);
	inw(PORT_PCI_ADDRESS + 3);
	outw(PORT_PCI_DATA + 3, 0);
	check(bring_up(), "after odd accesses virtio-rng works");
}

int main(const struct start_info *info, const char *cmdline)
{
	(void)info;
	(void)cmdline;
	apic_init();
	if (!check(acpi_find("MCFG") != NULL, "ACPI names an ECAM"))
		return 1;
	irq_enable();
	scan();
	test_one_space();
	test_absent();
	test_bars();
	test_msix_fresh();
	test_move();
	test_bus_master();
	test_msix();
	test_odd();
	return check_result();
}
