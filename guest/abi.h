/*
 * abi.h: the machine as code inside it sees it: ports, addresses, exit statuses, and what the PVH
 * entry hands over. vmm keeps these; guest/ knows nothing else of vmm. abi.inc says the same to
 * nasm.
 *
 * Spec: Xen's PVH direct boot ABI (hvm_start_info), version 1; the rest is vmm's own choice.
 */
#ifndef GUEST_ABI_H
#define GUEST_ABI_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

/* A byte written here ends vmm, with that byte as its exit status. */
enum { PORT_EXIT = 0xf4 };

/* Nobody answers here: reads give ones, writes vanish. */
enum { PORT_NOTHING = 0x80 };

/* Exit statuses that vmm, not the guest, chooses. */
enum {
	EXIT_POWEROFF = 0,
	EXIT_CRASH = 1,			/* triple fault, or KVM gave up */
	EXIT_PANIC = 3,			/* the guest wrote to pvpanic */
};

/* The library's own: an exception nobody expected. */
enum { EXIT_TRAP = 99 };

enum {
	PORT_COM1 = 0x3f8,
	GSI_COM1 = 4,			/* edge */

	PORT_RTC_INDEX = 0x70,
	PORT_RTC_DATA = 0x71,

	PORT_KBC_STATUS = 0x64,		/* also the command port */
	KBC_RESET = 0xfe,

	PORT_RESET = 0xcf9,
	RESET_FULL = 0x06,

	PORT_PCI_ADDRESS = 0xcf8,
	PORT_PCI_DATA = 0xcfc,

	PORT_PVPANIC = 0x505,
	PVPANIC_EVENTS = 3,		/* bits this machine supports */
	PVPANIC_PANICKED = 1,

	PORT_SLEEP_CONTROL = 0x600,
	PORT_SLEEP_STATUS = 0x601,
	SLEEP_S5 = 5 << 2 | 0x20,	/* SLP_TYP 5, SLP_EN */

	PORT_GED = 0x602,		/* pending events; reading clears them */
	GED_POWER_BUTTON = 1,
	GSI_GED = 9,			/* edge */
};

#define ECAM_BASE	0xe0000000ull	/* bus 0 only */
#define ECAM_SIZE	0x100000ull
#define MMIO_BASE	0xe8000000ull	/* virtio-mmio windows, --transport mmio */
#define MMIO_STRIDE	0x1000ull
#define IOAPIC_BASE	0xfec00000ull
#define LAPIC_BASE	0xfee00000ull
#define RAM_LOW_END	0xc0000000ull	/* RAM lies below this and, if there is more, ... */
#define RAM_HIGH_BASE	0x100000000ull	/* ... from here on */
#define RSDP_AREA	0xe0000ull	/* up to 1 MiB */

/* At entry: 32-bit protected mode, no paging, flat segments, ebx = physical address of this. */
#define START_MAGIC	0x336ec578u

struct start_info {
	u32 magic;
	u32 version;
	u32 flags;
	u32 nr_modules;
	u64 modlist_paddr;
	u64 cmdline_paddr;
	u64 rsdp_paddr;
	u64 memmap_paddr;		/* from version 1 on */
	u32 memmap_entries;
	u32 reserved;
};

struct start_module {
	u64 paddr;
	u64 size;
	u64 cmdline_paddr;
	u64 reserved;
};

struct start_memmap {
	u64 addr;
	u64 size;
	u32 type;			/* as in e820 */
	u32 reserved;
};

enum { MEMMAP_RAM = 1, MEMMAP_RESERVED = 2, MEMMAP_ACPI = 3, MEMMAP_NVS = 4 };

_Static_assert(sizeof(struct start_info) == 56, "PVH start info");
_Static_assert(sizeof(struct start_module) == 32, "PVH module");
_Static_assert(sizeof(struct start_memmap) == 24, "PVH memory map entry");

#endif
