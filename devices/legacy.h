/* legacy.h: the devices of a PC that live at fixed ports. */
#pragma once
#include "vmm/core/device.h"
#include "vmm/core/ports.h"

struct chardev;

/* 16550A; the chardev stays the caller's. */
int serial_new(struct platform *, const char *name, u64 port, u32 gsi, struct chardev *,
	       struct device **, struct err *) must_check;

/* MC146818 clock and its 128 bytes of CMOS, in UTC. */
int rtc_new(struct platform *, struct device **, struct err *) must_check;

/* i8042 (its reset line only), the test-exit port, pvpanic; and the reset control
 * register, where no PCI bus has it among its own ports. */
int ports_new(struct platform *, bool reset_control, struct device **, struct err *) must_check;

/* The hardware-reduced ACPI registers: sleep control, and the events of a
 * generic event device. */
int acpi_ports_new(struct platform *, struct device **, struct err *) must_check;
void acpi_event(struct device *, u8 event);		/* ACPI_EVENT_*; any thread */
