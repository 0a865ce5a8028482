/*
 * trap.h: interrupts and exceptions: a handler per vector. An exception without one ends the
 * payload with a line and EXIT_TRAP.
 *
 * Spec: Intel SDM vol. 3, 6.14.
 */
#ifndef GUEST_LIB_TRAP_H
#define GUEST_LIB_TRAP_H

#include "guest/lib/io.h"

enum { TRAP_VECTORS = 64, TRAP_UD = 6, TRAP_IRQ_BASE = 32, TRAP_SPURIOUS = 63 };

struct trap_frame {
	u64 r11, r10, r9, r8, rdi, rsi, rdx, rcx, rax;
	u64 vector, error;
	u64 rip, cs, rflags, rsp, ss;
};

void trap_init(void);
void trap_load(void);			/* on each further processor */

/* handler runs with interrupts off; an interrupt's must end it (apic_eoi). NULL: none. */
void trap_set(u8 vector, void (*handler)(struct trap_frame *));
/* Straight to code of its own, which returns by iretq. */
void trap_gate(u8 vector, const u8 *code);

#endif
