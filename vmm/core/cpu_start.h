/* cpu_start.h: where the first processor begins: firmware says, the vCPU does. */
#pragma once
#include "vmm/core/base.h"

enum cpu_mode {
	CPU_PROTECTED,		/* 32-bit, flat segments, no paging */
	CPU_LONG,		/* 64-bit, flat segments, paging by cr3 */
};

/* Flat code and data in a GDT at gdt: selectors CPU_CODE and CPU_DATA (Linux's
 * __BOOT_CS and __BOOT_DS). */
enum { CPU_CODE = 0x10, CPU_DATA = 0x18, CPU_GDT_LEN = 0x28, CPU_TSS = 0x20 };

struct cpu_start {
	enum cpu_mode mode;
	u64 rip, rsi, rbx, rcx;
	u64 cr3;		/* CPU_LONG */
	u64 gdt;
};
