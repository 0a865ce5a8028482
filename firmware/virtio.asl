// virtio.asl: one virtio-mmio device; acpi.c repeats it with name, number,
// address and interrupt replaced.
DefinitionBlock ("", "SSDT", 2, "VMM", "VIRTIO", 1)
{
	Device (\_SB.VION)
	{
		Name (_HID, "LNRO0005")
		Name (_UID, 0x5AA50001)
		Name (_CCA, One)
		Name (_CRS, ResourceTemplate ()
		{
			Memory32Fixed (ReadWrite, 0x5AA50002, 0x00000200)
			Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 0x5AA50003 }
		})
	}
}
