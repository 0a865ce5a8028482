// dsdt.asl: what every machine has, at the ports of devices/legacy.h.
DefinitionBlock ("", "DSDT", 2, "VMM", "VMM", 1)
{
	Scope (\_SB)
	{
		Device (PWRB)
		{
			Name (_HID, "PNP0C0C")
			Name (_UID, Zero)
		}

		// Another number in another copy of the same VM (Virtual Machine Generation ID).
		Device (VGEN)
		{
			Name (_HID, "VMMG0001")
			Name (_CID, Package () { "VM_Gen_Counter", "VM_GEN_COUNTER" })
			Name (_DDN, "VM_Gen_Counter")
			Name (ADDR, Package () { 0x000FFFE0, Zero })
		}

		// Generic event device: stands in for the SCI of a full ACPI machine.
		Device (GED0)
		{
			Name (_HID, "ACPI0013")
			Name (_UID, Zero)
			Name (_CRS, ResourceTemplate ()
			{
				Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 9 }
			})
			OperationRegion (EVTR, SystemIO, 0x602, 1)
			Field (EVTR, ByteAcc, NoLock, WriteAsZeros) { EVTS, 8 }
			Method (_EVT, 1, Serialized)
			{
				// Reading takes the events.
				Local0 = EVTS
				If (Local0 & 1)
				{
					Notify (PWRB, 0x80)
				}
				If (Local0 & 2)
				{
					Notify (VGEN, 0x80)
				}
			}
		}

		Device (COM1)
		{
			Name (_HID, "PNP0501")
			Name (_UID, One)
			Name (_CRS, ResourceTemplate ()
			{
				IO (Decode16, 0x03F8, 0x03F8, 0, 8)
				Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 4 }
			})
		}

		Device (RTC0)
		{
			Name (_HID, "PNP0B00")
			Name (_CRS, ResourceTemplate ()
			{
				IO (Decode16, 0x0070, 0x0070, 0, 2)
			})
		}

		Device (PVPN)
		{
			Name (_HID, "QEMU0001")
			Name (_CRS, ResourceTemplate ()
			{
				IO (Decode16, 0x0505, 0x0505, 0, 1)
			})
		}
	}

	Name (\_S5, Package () { 5, Zero, Zero, Zero })
}
