/* pci.h: one PCI bus, its functions, their config space and BARs (PCI 3.0, PCIe ECAM). */
#pragma once
#include "vmm/core/bus.h"
#include "vmm/core/device.h"

enum { PCI_SLOTS = 32, PCI_CONFIG_LEN = 256, PCI_ECAM_LEN = 1 << 20 };

struct pci_bus;
struct pci_dev;

struct pci_ops {
	/* All under dev->lock.  Config space outside of what pci.c owns (header,
	 * BARs, capabilities with their write masks): after the bytes changed. */
	void (*config_written)(struct pci_dev *, unsigned offset, unsigned size);
	/* Before a read: the bytes may be made up to date. */
	void (*config_read)(struct pci_dev *, unsigned offset, unsigned size);
	/* A BAR has come to answer at its range's base, or ceases to. */
	void (*bar_mapped)(struct pci_dev *, struct io_range *, bool mapped);
};

/*
 * A function: embedded in its owner.  It has at most two BARs: numbers 0 and 1, of
 * 64-bit memory, not prefetchable; and number 2, of ports.
 */
struct pci_dev {
	struct device *dev;		/* its life, lock and name */
	const struct pci_ops *ops;
	struct pci_bus *bus;
	unsigned slot;
	u8 config[PCI_CONFIG_LEN], writable[PCI_CONFIG_LEN];
	unsigned next_cap, last_cap;	/* offsets: first free, last linked */
	struct io_range bar, ports;	/* len 0: none */
};

struct pci_ids {
	u16 vendor, device, subsystem_vendor, subsystem;
	u32 class;			/* base << 16 | sub << 8 | interface */
	u8 revision;
};

/*
 * The bus answers at CF8/CFC and in the ECAM window at ecam; BARs are first
 * placed in [window, window + window_len), and at PORT_PCI_WINDOW.  A host bridge sits in slot 0.
 */
int  pci_bus_new(struct pci_bus **, struct platform *, u64 ecam, u64 window, u64 window_len,
		 struct err *) must_check;
struct device *pci_bus_device(struct pci_bus *);	/* destroying it frees the bus */

void pci_dev_init(struct pci_dev *, struct device *, const struct pci_ops *,
		  const struct pci_ids *);
/* Room for a capability of len bytes, linked in; returns its offset. */
unsigned pci_add_cap(struct pci_dev *, u8 id, unsigned len);
void pci_set_bar(struct pci_dev *, const struct io_ops *, u64 len);	/* len: a power of two */
void pci_set_ports(struct pci_dev *, const struct io_ops *, u64 len);
/* Next free slot; the BARs are placed and decoded, as firmware would leave them. */
int  pci_plug(struct pci_bus *, struct pci_dev *, struct err *) must_check;
void pci_unplug(struct pci_dev *);			/* idempotent */

/* Config space; loading moves the BARs.  By the owner's state. */
void pci_dev_state(struct pci_dev *, struct state *);

/* Little-endian access to config bytes, for owners. */
u32  pci_get(const struct pci_dev *, unsigned offset, unsigned size);
void pci_set(struct pci_dev *, unsigned offset, unsigned size, u32 value);
