/*
 * pci.h: PCI configuration space by both its ways, BARs, and MSI-X. Bus 0 only: the machine has no
 * other.
 *
 * Spec: PCI Local Bus 3.0, 3.2.2.3 (mechanism #1), 6.2.5 (BARs), 6.8.2 (MSI-X); PCIe 5.0, 7.2.2
 * (ECAM).
 */
#ifndef GUEST_LIB_PCI_H
#define GUEST_LIB_PCI_H

#include "guest/lib/io.h"

enum {
	PCI_VENDOR = 0x00, PCI_DEVICE = 0x02,
	PCI_COMMAND = 0x04, PCI_STATUS = 0x06,
	PCI_HEADER = 0x0e,
	PCI_BAR0 = 0x10,
	PCI_CAP_PTR = 0x34,

	COMMAND_IO = 1, COMMAND_MEMORY = 2, COMMAND_MASTER = 4, COMMAND_NO_INTX = 0x400,
	STATUS_CAPS = 0x10,
	HEADER_MULTI = 0x80,
	CAP_VENDOR = 0x09, CAP_MSIX = 0x11,

	PCI_SLOTS = 32,
};

struct pci_dev {
	u8 slot, fn;
	u16 vendor, device;
};

struct pci_bar {
	u64 base, size;
	bool io, wide;			/* wide: 64 bits, and takes the next BAR too */
};

struct pci_msix {
	u8 cap;
	u16 nr;
	u64 table, pba;
};

/* Through the ports, size 1, 2 or 4. */
u32 pci_read(const struct pci_dev *, u32 offset, unsigned size);
void pci_write(const struct pci_dev *, u32 offset, unsigned size, u32 v);

/* The address of a register in the ECAM that the MCFG names; 0 without one. */
u64 pci_ecam(const struct pci_dev *, u32 offset);

/* Function slot.fn is there: fills in *dev. */
bool pci_probe(u8 slot, u8 fn, struct pci_dev *dev);
/* The n-th function with these ids. */
bool pci_find(u16 vendor, u16 device, unsigned n, struct pci_dev *dev);
/* Where the next capability with this id is after the one at `after` (0: the first); 0: none. */
u8 pci_cap(const struct pci_dev *, u8 id, u8 after);

/* Sizes the BAR and puts it back; size 0: there is none. Memory decoding is off meanwhile. */
struct pci_bar pci_bar(const struct pci_dev *, unsigned n);
bool pci_bar_is_io(const struct pci_dev *, unsigned n);
u64 pci_bar_base(const struct pci_dev *, unsigned n);
void pci_bar_set(const struct pci_dev *, unsigned n, u64 base);

bool pci_msix(const struct pci_dev *, struct pci_msix *);
void pci_msix_enable(const struct pci_dev *, const struct pci_msix *, bool enable, bool mask_all);
/* Entry n interrupts this processor with this vector. */
void pci_msix_set(const struct pci_msix *, unsigned n, u8 vector);
void pci_msix_mask(const struct pci_msix *, unsigned n, bool masked);
bool pci_msix_pending(const struct pci_msix *, unsigned n);

#endif
