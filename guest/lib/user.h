/*
 * user.h: code at CPL 3, which runs at full speed also where a host's KVM interprets CPL 0.
 *
 * Spec: Intel SDM vol. 3, 8.7 (TSS in 64-bit mode), 19.5.2 (I/O permission).
 */
#ifndef GUEST_LIB_USER_H
#define GUEST_LIB_USER_H

#include "guest/lib/io.h"

/* From here on at CPL 3, with interrupts off, all ports and the first 4 GiB of memory; an exception
 * ends the payload. fn does not return. */
void user_enter(void (*fn)(void));

/* At CPL 3: sleeps until VECTOR_QUEUE has come, or has come since the last time; to be enabled
 * before by apic_init and virtio_enable_interrupts. No such interrupt is counted by virtio_irqs. */
void user_sleep(void);

#endif
