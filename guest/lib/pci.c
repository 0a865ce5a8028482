/*
 * pci.c: PCI configuration space by both its ways, BARs, and MSI-X.
 *
 * Spec: PCI Local Bus 3.0, 3.2.2.3 (mechanism #1), 6.2.5 (BARs), 6.8.2 (MSI-X); PCIe 5.0, 7.2.2
 * (ECAM).
 */
#include "guest/lib/pci.h"

#include "guest/lib/acpi.h"
#include "guest/lib/apic.h"
#include "guest/lib/mem.h"
#include "guest/lib/string.h"

enum {
	CONF1_ENABLE = 1 << 31,
	MCFG_BASE = 44,
	BAR_IO = 1, BAR_TYPE = 6, BAR_64 = 4,
	MSIX_CONTROL = 2, MSIX_TABLE = 4, MSIX_PBA = 8,
	MSIX_ENABLE = 0x8000, MSIX_MASK_ALL = 0x4000, MSIX_SIZE = 0x7ff,
	MSIX_ENTRY = 16, MSIX_ADDR = 0, MSIX_ADDR_HIGH = 4, MSIX_DATA = 8, MSIX_VECTOR = 12,
};

static void select(const struct pci_dev *dev, u32 offset)
{
	outl(PORT_PCI_ADDRESS, (u32)CONF1_ENABLE | (u32)dev->slot << 11 | (u32)dev->fn << 8 |
	     (offset & 0xfc));
}

u32 pci_read(const struct pci_dev *dev, u32 offset, unsigned size)
{
	u16 port = (u16)(PORT_PCI_DATA + (offset & 3));

	select(dev, offset);
	return size == 1 ? inb(port) : size == 2 ? inw(port) : inl(port);
}

void pci_write(const struct pci_dev *dev, u32 offset, unsigned size, u32 v)
{
	u16 port = (u16)(PORT_PCI_DATA + (offset & 3));

	select(dev, offset);
	if (size == 1)
		outb(port, (u8)v);
	else if (size == 2)
		outw(port, (u16)v);
	else
		outl(port, v);
}

u64 pci_ecam(const struct pci_dev *dev, u32 offset)
{
	const struct acpi_table *mcfg = acpi_find("MCFG");
	u64 base;

	if (!mcfg)
		return 0;
	memcpy(&base, (const u8 *)mcfg + MCFG_BASE, sizeof(base));
	return mem_map(base) + ((u64)dev->slot << 15 | (u64)dev->fn << 12 | offset);
}

bool pci_probe(u8 slot, u8 fn, struct pci_dev *dev)
{
	u32 id;

	dev->slot = slot;
	dev->fn = fn;
	id = pci_read(dev, PCI_VENDOR, 4);
	dev->vendor = (u16)id;
	dev->device = (u16)(id >> 16);
	return dev->vendor != 0xffff;
}

bool pci_find(u16 vendor, u16 device, unsigned n, struct pci_dev *dev)
{
	u8 slot;

	for (slot = 0; slot < PCI_SLOTS; slot++)
		if (pci_probe(slot, 0, dev) && dev->vendor == vendor && dev->device == device &&
		    !n--)
			return true;
	return false;
}

u8 pci_cap(const struct pci_dev *dev, u8 id, u8 after)
{
	u8 at = after, hops;

	if (!(pci_read(dev, PCI_STATUS, 2) & STATUS_CAPS))
		return 0;
	at = (u8)pci_read(dev, after ? after + 1u : PCI_CAP_PTR, 1) & 0xfc;
	/* 192 bytes hold 48 capabilities: more means a loop. */
	for (hops = 0; at && hops < 48; hops++) {
		if (pci_read(dev, at, 1) == id)
			return at;
		at = (u8)pci_read(dev, at + 1u, 1) & 0xfc;
	}
	return 0;
}

bool pci_bar_is_io(const struct pci_dev *dev, unsigned n)
{
	return pci_read(dev, PCI_BAR0 + n * 4, 4) & BAR_IO;
}

u64 pci_bar_base(const struct pci_dev *dev, unsigned n)
{
	u32 at = PCI_BAR0 + n * 4, low = pci_read(dev, at, 4);

	if (low & BAR_IO)
		return low & ~3u;
	if ((low & BAR_TYPE) == BAR_64)
		return (u64)pci_read(dev, at + 4, 4) << 32 | (low & ~15u);
	return low & ~15u;
}

void pci_bar_set(const struct pci_dev *dev, unsigned n, u64 base)
{
	u32 at = PCI_BAR0 + n * 4, low = pci_read(dev, at, 4);

	pci_write(dev, at, 4, (u32)base);
	if (!(low & BAR_IO) && (low & BAR_TYPE) == BAR_64)
		pci_write(dev, at + 4, 4, (u32)(base >> 32));
}

struct pci_bar pci_bar(const struct pci_dev *dev, unsigned n)
{
	u32 at = PCI_BAR0 + n * 4, low = pci_read(dev, at, 4);
	u32 command = pci_read(dev, PCI_COMMAND, 2);
	struct pci_bar bar = { .base = pci_bar_base(dev, n) };
	u64 mask;

	bar.io = low & BAR_IO;
	bar.wide = !bar.io && (low & BAR_TYPE) == BAR_64;
	pci_write(dev, PCI_COMMAND, 2, command & ~(u32)(COMMAND_IO | COMMAND_MEMORY));
	pci_bar_set(dev, n, ~0ull);
	mask = pci_bar_base(dev, n);
	pci_bar_set(dev, n, bar.base);
	pci_write(dev, PCI_COMMAND, 2, command);
	if (!mask)
		return bar;
	if (bar.io)
		mask |= ~0xffffull;
	else if (!bar.wide)
		mask |= ~0ull << 32;
	bar.size = ~mask + 1;
	return bar;
}

bool pci_msix(const struct pci_dev *dev, struct pci_msix *m)
{
	u32 table, pba;

	m->cap = pci_cap(dev, CAP_MSIX, 0);
	if (!m->cap)
		return false;
	m->nr = (u16)((pci_read(dev, m->cap + MSIX_CONTROL, 2) & MSIX_SIZE) + 1);
	table = pci_read(dev, m->cap + MSIX_TABLE, 4);
	pba = pci_read(dev, m->cap + MSIX_PBA, 4);
	m->table = mem_map(pci_bar_base(dev, table & 7)) + (table & ~7u);
	m->pba = mem_map(pci_bar_base(dev, pba & 7)) + (pba & ~7u);
	return true;
}

void pci_msix_enable(const struct pci_dev *dev, const struct pci_msix *m, bool enable,
		     bool mask_all)
{
	pci_write(dev, m->cap + MSIX_CONTROL, 2,
		  (enable ? MSIX_ENABLE : 0) | (mask_all ? MSIX_MASK_ALL : 0));
}

void pci_msix_set(const struct pci_msix *m, unsigned n, u8 vector)
{
	u64 entry = m->table + n * MSIX_ENTRY;

	mmio_write32(entry + MSIX_ADDR, (u32)LAPIC_BASE | apic_id() << 12);
	mmio_write32(entry + MSIX_ADDR_HIGH, 0);
	mmio_write32(entry + MSIX_DATA, vector);
	mmio_write32(entry + MSIX_VECTOR, 0);
}

void pci_msix_mask(const struct pci_msix *m, unsigned n, bool masked)
{
	mmio_write32(m->table + n * MSIX_ENTRY + MSIX_VECTOR, masked);
}

bool pci_msix_pending(const struct pci_msix *m, unsigned n)
{
	return mmio_read32(m->pba + n / 32 * 4) >> n % 32 & 1;
}
