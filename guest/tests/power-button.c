/*
 * power-button.c: promise: SIGTERM to vmm is the power button: an event on the GED's line, once,
 * and out of hlt. Says "ready" when it may be sent; then switches the machine off. deaf: does not
 * listen at all.
 *
 * Spec: ACPI 6.5, 5.6.9 (generic event device), 4.8.3.7.
 */
#include "guest/lib/apic.h"
#include "guest/lib/start.h"
#include "guest/lib/trap.h"

enum { VECTOR = 0x26 };

static volatile u32 irqs;
static volatile u8 events;

static void on_ged(struct trap_frame *f)
{
	(void)f;
	irqs++;
	events |= inb(PORT_GED);
	apic_eoi();
}

int main(const struct start_info *info, const char *cmdline)
{
	(void)info;
	(void)cmdline;
	apic_init();
	trap_set(VECTOR, on_ged);
	check(!inb(PORT_GED), "no event at first");
	ioapic_route(GSI_GED, VECTOR);
	say("ready\n");
	serial_drain();
	if (arg_find("deaf"))
		guest_stop();
	while (!irqs)
		irq_wait();
	check(events == GED_POWER_BUTTON, "the power button, got %x", events);
	check(!inb(PORT_GED), "which reading has cleared");
	check(irqs == 1, "by one interrupt");
	if (check_result())
		return 1;
	serial_drain();
	outb(PORT_SLEEP_CONTROL, SLEEP_S5);
	poll_until(false);
	return 2;
}
