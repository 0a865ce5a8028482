/* cpu_debug.h: what a debugger sees of a processor, and why one stopped for it. */
#pragma once
#include "vmm/core/base.h"

/* In the order, and with the sizes, of GDB's features org.gnu.gdb.i386.core, .sse and .segments;
 * at the end what we add. */
struct cpu_registers {
	u64 rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8[8], rip;
	u32 eflags, cs, ss, ds, es, fs, gs;
	u8 st[8][10];
	u32 fctrl, fstat, ftag, fiseg, fioff, foseg, fooff, fop;
	u8 xmm[16][16];
	u32 mxcsr;
	u64 fs_base, gs_base;
	u64 k_gs_base, cr0, cr2, cr3, cr4, cr8, efer;
} __attribute__((packed));

/* A debug register's worth: kind 1 to 4 as in GDB's Z packets. */
enum cpu_point_kind { CPU_POINT_EXEC = 1, CPU_POINT_WRITE, CPU_POINT_READ, CPU_POINT_ACCESS };
enum { CPU_POINTS = 4 };

struct cpu_point {
	enum cpu_point_kind kind;	/* 0: free */
	unsigned len;			/* 1, 2, 4, 8; EXEC: 1 */
	u64 addr;			/* linear, a multiple of len */
};

enum { CPU_VECTOR_DEBUG = 1, CPU_VECTOR_BREAKPOINT = 3 };

struct cpu_stop {
	unsigned vector;		/* one of these two */
	u64 pc;				/* linear; of the int3 itself */
	u64 dr6;			/* of CPU_VECTOR_DEBUG: bits 0 to 3 the points, 14 a step */
};
enum { CPU_DR6_STEP = 1 << 14 };
