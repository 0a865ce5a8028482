// pci.asl: the PCI root; its windows are those of layout.h and ports.h.  Interrupts are MSI-X
// alone, so there is no _PRT.
DefinitionBlock ("", "SSDT", 2, "VMM", "PCI", 1)
{
	Device (\_SB.PCI0)
	{
		Name (_HID, "PNP0A03")
		Name (_UID, Zero)
		Name (_SEG, Zero)
		Name (_BBN, Zero)
		Name (_CRS, ResourceTemplate ()
		{
			WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode,
				0, 0, 0, 0, 1)
			IO (Decode16, 0x0CF8, 0x0CF8, 1, 8)
			WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
				0, 0x1000, 0x1FFF, 0, 0x1000)
			DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable,
				ReadWrite, 0, 0xC0000000, 0xDFFFFFFF, 0, 0x20000000)
		})
	}
}
