/*
 * apic.h: the local APIC, in either of its modes, the IOAPIC, and further processors.
 *
 * Spec: Intel SDM vol. 3, 11 (APIC), 9.4 (MP initialization); Intel 82093AA.
 */
#ifndef GUEST_LIB_APIC_H
#define GUEST_LIB_APIC_H

#include "guest/lib/io.h"

enum {
	MSR_APIC_BASE = 0x1b,
	APIC_BASE_BSP = 1 << 8, APIC_BASE_X2 = 1 << 10, APIC_BASE_ENABLE = 1 << 11,
	MSR_TSC_DEADLINE = 0x6e0,

	APIC_ID = 0x020,
	APIC_VERSION = 0x030,
	APIC_TPR = 0x080,
	APIC_EOI = 0x0b0,
	APIC_SVR = 0x0f0,
	APIC_IRR = 0x200,
	APIC_ICR = 0x300,
	APIC_LVT_TIMER = 0x320,
	APIC_TIMER_INITIAL = 0x380,
	APIC_TIMER_CURRENT = 0x390,
	APIC_TIMER_DIVIDE = 0x3e0,

	SVR_ENABLE = 1 << 8,
	ICR_FIXED = 0 << 8, ICR_INIT = 5 << 8, ICR_SIPI = 6 << 8,
	ICR_ASSERT = 1 << 14, ICR_ALL_BUT_SELF = 3 << 18,
	LVT_MASKED = 1 << 16, LVT_PERIODIC = 1 << 17, LVT_TSC_DEADLINE = 1 << 18,
	DIVIDE_BY_1 = 0xb,

	IOAPIC_LEVEL = 1 << 15, IOAPIC_MASKED = 1 << 16,
};

/* On every processor that uses its APIC: enables it, accepts every vector. */
void apic_init(void);
void apic_enable_x2(void);		/* instead, if all processors are to use x2APIC mode */

u32 apic_read(u32 reg);
void apic_write(u32 reg, u32 v);
u32 apic_id(void);
void apic_eoi(void);
void apic_send(u32 to, u32 icr_low);

/* Edge-triggered, to this processor. */
void ioapic_route(u32 gsi, u8 vector);
void ioapic_mask(u32 gsi);
u32 ioapic_read(u32 reg);
void ioapic_write(u32 reg, u32 v);

/* Starts the processor whose APIC id that is, or all others: run(n) is called there with a number
 * that counts them as they come, interrupts off, on 2 KiB of stack; returning parks it. ap_start
 * waits for it to have come, ap_start_all for nr of them. False: not in time. */
bool ap_start(u32 id, void (*run)(u32 n));
bool ap_start_all(u32 nr, void (*run)(u32 n));

#endif
