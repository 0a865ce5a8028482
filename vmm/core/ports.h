/* ports.h: where a PC's fixed devices are, for those who make and describe them. */
#pragma once

/* firmware/dsdt.asl and guest/abi.h say the same. */
enum {
	PORT_COM1 = 0x3f8, COM1_GSI = 4,
	PORT_RTC = 0x70,
	PORT_I8042 = 0x60, I8042_RESET = 0xfe,
	PORT_RESET_CONTROL = 0xcf9, RESET_CONTROL_RESET = 1 << 2,
	PORT_EXIT = 0xf4,
	PORT_PVPANIC = 0x505,
	PORT_PCI_WINDOW = 0x1000, PORT_PCI_WINDOW_LEN = 0x1000,	/* BARs; pci.asl says so, too */
	PORT_ACPI = 0x600, ACPI_GSI = 9,
	/* From PORT_ACPI. */
	ACPI_SLEEP_CONTROL = 0, ACPI_SLEEP_STATUS = 1, ACPI_EVENTS = 2, ACPI_LEN = 3,
	ACPI_EVENT_POWER_BUTTON = 1, ACPI_EVENT_GENERATION = 2,
};
