// cpu.asl: one processor; acpi.c repeats it with name and number replaced.
DefinitionBlock ("", "SSDT", 2, "VMM", "CPU", 1)
{
	Device (\_SB.CPUN)
	{
		Name (_HID, "ACPI0007")
		Name (_UID, 0x5AA50001)
	}
}
