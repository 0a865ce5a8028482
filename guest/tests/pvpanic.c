/*
 * pvpanic.c: promise: a guest that reports its panic ends vmm with status 3.
 *
 * Spec: QEMU docs/specs/pvpanic.rst.
 */
#include "guest/lib/start.h"

int main(const struct start_info *info, const char *cmdline)
{
	u8 events = inb(PORT_PVPANIC);

	(void)info;
	(void)cmdline;
	if (!check(events == PVPANIC_EVENTS, "it supports panicked and crash-loaded: %x", events))
		return 1;
	serial_drain();
	outb(PORT_PVPANIC, PVPANIC_PANICKED);
	poll_until(false);
	return 2;
}
