/* msix.h: message-signalled interrupts of a PCI function (PCI 3.0, 6.8.2). */
#pragma once
#include "devices/pci/pci.h"

enum { MSIX_MAX = 32, MSIX_ENTRY_LEN = 16 };

struct msix;

struct msix_vector {
	struct irq irq;			/* what the device pulls */
	struct msix *msix;
	struct irq *wire;		/* what it comes out of */
	u32 entry[4];			/* address low, high, data, control, as the guest wrote */
	u32 routed[3];			/* what wire was last told */
	u32 state;			/* atomic: MSIX_MASKED, MSIX_PENDING */
};

struct msix {
	struct pci_dev *pci;
	struct irqchip *irqchip;
	/* Under dev->lock: a vector was masked, or is no longer.  May be unset. */
	void (*changed)(struct msix *, unsigned vector);
	u64 *updates;			/* counted under dev->lock; may be unset */
	struct log_limit noise;		/* of what the host has failed at */
	unsigned nr, cap;		/* cap: offset in config space */
	bool enabled;			/* atomic copy of the capability's bit */
	struct msix_vector vector[MSIX_MAX];
};

/* table and pba are offsets in BAR 0.  Nothing is made in the irqchip until the
 * guest unmasks a vector. */
void msix_init(struct msix *, struct pci_dev *, struct irqchip *, unsigned nr, u32 table, u32 pba);
void msix_fini(struct msix *);
bool msix_enabled(const struct msix *);		/* any thread */

/* Under dev->lock: from the BAR, offsets in the table or the PBA... */
u64  msix_table_read(struct msix *, u64 offset, unsigned size);
void msix_table_write(struct msix *, u64 offset, unsigned size, u64 value);
u64  msix_pba_read(struct msix *, u64 offset, unsigned size);
/* ...and when config space was written. */
void msix_config_written(struct msix *, unsigned offset, unsigned size);

/* After pci_dev_state. */
void msix_state(struct msix *, struct state *);

/* The wire of a vector; NULL: none of that number. */
struct irq *msix_irq(struct msix *, unsigned vector);
