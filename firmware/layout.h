/* layout.h: the memory map that firmware lays out and describes. */
#pragma once

/* Below 1 MiB: what the loader hands to a kernel; RAM that it may take back. */
enum {
	LAYOUT_GDT = 0x500,
	LAYOUT_START_INFO = 0x1000,	/* PVH: one page, with its lists */
	LAYOUT_ZERO_PAGE = 0x7000,	/* Linux: struct boot_params */
	LAYOUT_PAGE_TABLES = 0x9000,	/* six pages: the first 4 GiB, identity */
	LAYOUT_CMDLINE = 0x20000, LAYOUT_CMDLINE_MAX = 0x10000,
	LAYOUT_LOW_END = 0x9fc00,
	LAYOUT_ACPI = 0xe0000, LAYOUT_ACPI_END = 0x100000,	/* a guest may not take it */
	LAYOUT_SNAPSHOT = 0xfff80,	/* 64 bytes, in a snapshot's file: which one that is */
	LAYOUT_GENERATION_ID = 0xfffe0,	/* 16 bytes; dsdt.asl says so, too */
	LAYOUT_RESET_VECTOR = 0xffff0,	/* the last 16 bytes of it: F000:FFF0 */
	LAYOUT_HIGH = 0x100000,		/* kernels from here */
};

/* The hole between RAM below 3 GiB and RAM above 4 GiB. */
#define LAYOUT_PCI_WINDOW	0xc0000000UL
#define LAYOUT_PCI_WINDOW_LEN	0x20000000UL
#define LAYOUT_PCI_ECAM		0xe0000000UL
#define LAYOUT_VIRTIO_MMIO	0xe8000000UL
#define LAYOUT_VIRTIO_MMIO_STEP	0x1000UL
