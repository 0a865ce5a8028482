/* irq.h: one interrupt wire, whatever is behind it. */
#pragma once
#include "vmm/core/base.h"
#include "vmm/core/err.h"

/*
 * A device pulls wires; it never learns whether a wire is an I/O APIC pin, an
 * MSI-X vector, or (in a unit test) a counter.  Any thread.
 */
struct irq {
	void (*set)(struct irq *, bool level);
	/* An eventfd that does what a raise does when it is written, so that the kernel can,
	 * too.  -1: none now (masked, say).  Unset: never. */
	int  (*fd)(struct irq *);
};

static inline void irq_raise(struct irq *irq) { irq->set(irq, true); }
static inline void irq_lower(struct irq *irq) { irq->set(irq, false); }
static inline int irq_fd(struct irq *irq) { return irq->fd ? irq->fd(irq) : -1; }

/*
 * Where wires come from.  line: an I/O APIC pin, set like a level.  edge: a
 * pin pulsed once for every raise, from the data path (an irqfd).  msi: sends
 * the message it was last routed to; unrouted, it sends nothing.
 */
struct irqchip;
struct irqchip_ops {
	int  (*line)(struct irqchip *, u32 gsi, struct irq **, struct err *);
	int  (*edge)(struct irqchip *, u32 gsi, struct irq **, struct err *);
	int  (*msi)(struct irqchip *, struct irq **, struct err *);
	int  (*route)(struct irq *, u64 addr, u32 data);
	void (*free)(struct irqchip *, struct irq *);	/* NULL irq is allowed */
};
struct irqchip {
	const struct irqchip_ops *ops;
};
