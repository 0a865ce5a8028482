/*
 * poweroff.c: promise: S5 through the sleep control register ends vmm with status 0.
 *
 * Spec: ACPI 6.5, 4.8.3.7 (sleep control and status registers).
 */
#include "guest/lib/start.h"

int main(const struct start_info *info, const char *cmdline)
{
	(void)info;
	(void)cmdline;
	check(inb(PORT_SLEEP_STATUS) != 0xff, "there is a sleep status register");
	/* Without the enable bit it is only a preparation. */
	outb(PORT_SLEEP_CONTROL, SLEEP_S5 & ~0x20);
	if (check_result())
		return 1;
	say("ok - still here\n");
	serial_drain();
	outb(PORT_SLEEP_CONTROL, SLEEP_S5);
	poll_until(false);
	return 2;
}
