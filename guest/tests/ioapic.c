/*
 * ioapic.c: promise: a device's line reaches a processor through the IOAPIC: COM1's THRE interrupt
 * on pin 4, masked, unmasked, once per edge, and out of hlt.
 *
 * Spec: Intel 82093AA, 3.2; PC16550D, 8.5.
 */
#include "guest/lib/apic.h"
#include "guest/lib/start.h"
#include "guest/lib/trap.h"

enum { VECTOR = 0x25, REDIRECTION_COM1 = 0x10 + GSI_COM1 * 2, IOAPIC_VERSION = 1 };

static volatile u32 irqs;
static volatile u8 cause;

static void on_serial(struct trap_frame *f)
{
	(void)f;
	cause = inb(UART_IIR) & IIR_ID;
	irqs++;
	apic_eoi();
}

/* THRE is pending from the moment it is enabled while the holding register is empty. */
static void raise(void)
{
	outb(UART_IER, 0);
	outb(UART_IER, IER_THRE);
}

int main(const struct start_info *info, const char *cmdline)
{
	u32 pins = ioapic_read(IOAPIC_VERSION) >> 16 & 0xff;
	bool woke;

	(void)info;
	(void)cmdline;
	apic_init();
	trap_set(VECTOR, on_serial);
	check(pins >= 23, "the IOAPIC has %d pins", pins + 1);
	check(ioapic_read(REDIRECTION_COM1) & IOAPIC_MASKED, "pin 4 starts masked");

	irq_enable();
	serial_drain();
	raise();
	check(!irqs, "masked, it is quiet");
	outb(UART_IER, 0);
	inb(UART_IIR);

	ioapic_route(GSI_COM1, VECTOR);
	check((ioapic_read(REDIRECTION_COM1) & 0xff) == VECTOR, "the route reads back");
	serial_drain();
	raise();
	poll_until(irqs);
	outb(UART_IER, 0);
	check(irqs == 1 && cause == IIR_THRE, "THRE interrupts, once (%d)", irqs);

	irq_disable();
	irqs = 0;
	serial_drain();
	raise();
	irq_wait();
	woke = irqs == 1;
	outb(UART_IER, 0);
	check(woke, "and ends hlt");

	ioapic_mask(GSI_COM1);
	irqs = 0;
	irq_enable();
	serial_drain();
	raise();
	poll_pause();
	outb(UART_IER, 0);
	inb(UART_IIR);
	check(!irqs, "masked again, quiet again");
	return check_result();
}
