/* irqchip.h: KVM's interrupt controllers behind irq.h. */
#pragma once
#include "vmm/core/irq.h"
#include "vmm/kvm/kvm.h"

/* I/O APIC pins, which are also the first GSIs. */
enum { IRQCHIP_PINS = 24 };

int  irqchip_new(struct irqchip **, struct kvm *, struct err *) must_check;
void irqchip_free(struct irqchip *);		/* all wires freed; NULL is allowed */
