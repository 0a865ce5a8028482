/*
 * user.c: code at CPL 3: segments, a TSS, pages, and a way to sleep.
 *
 * Spec: Intel SDM vol. 3, 6.14 (IDT in 64-bit mode), 8.7 (TSS in 64-bit mode), 19.5.2 (I/O
 * permission).
 */
#include "guest/lib/user.h"

#include "guest/lib/mem.h"
#include "guest/lib/trap.h"
#include "guest/lib/virtio.h"

enum { GDT_USER_DATA = 4, GDT_USER_CODE, GDT_TSS, GDT_ENTRIES = 8, PAGE_USER = 4 };

/* user.asm */
extern const u8 user_on_invalid[], user_on_queue[];

static struct {
	u32 reserved0;
	u64 rsp[3], reserved1, ist[7], reserved2;
	u16 reserved3, io_map;
	u8 io[8193];			/* zeroes: all ports */
} __attribute__((packed)) tss;

static u8 trap_stack[4096] NOINIT __attribute__((aligned(16)));
static u8 user_stack[4096] NOINIT __attribute__((aligned(16)));

/* Every page of the first 4 GiB, for CPL 3 too. */
static void open_pages(void)
{
	u64 *pml4, *pdpt, *pd;
	u32 i, j;

	asm volatile("mov %%cr3, %0" : "=r"(pml4));
	pml4[0] |= PAGE_USER;
	pdpt = (u64 *)(uintptr_t)(pml4[0] & ~0xfffull);
	for (i = 0; i < 4; i++) {
		pdpt[i] |= PAGE_USER;
		pd = (u64 *)(uintptr_t)(pdpt[i] & ~0xfffull);
		for (j = 0; j < 512; j++)
			pd[j] |= PAGE_USER;
	}
	asm volatile("mov %0, %%cr3" : : "r"(pml4) : "memory");
}

void user_enter(void (*fn)(void))
{
	static u64 gdt[GDT_ENTRIES] = {
		0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff,
		[GDT_USER_DATA] = 0x00cff3000000ffff, [GDT_USER_CODE] = 0x00affb000000ffff,
	};
	struct { u16 limit; u64 base; } __attribute__((packed)) gdtr = {
		sizeof(gdt) - 1, mem_addr(gdt),
	};
	u64 base = mem_addr(&tss);

	open_pages();
	trap_gate(TRAP_UD, user_on_invalid);
	trap_gate(VECTOR_QUEUE, user_on_queue);
	tss.rsp[0] = mem_addr(trap_stack + sizeof(trap_stack));
	tss.io_map = 0x68;
	tss.io[8192] = 0xff;
	gdt[GDT_TSS] = 0x0000890000000000 | (sizeof(tss) - 1) | (base & 0xffffff) << 16 |
		(base >> 24 & 0xff) << 56;
	asm volatile("lgdt %0\n\tltr %w1" : : "m"(gdtr), "r"(GDT_TSS * 8) : "memory");
	asm volatile("push %0\n\tpush %1\n\tpush $2\n\tpush %2\n\tpush %3\n\tiretq"
		     : : "r"(GDT_USER_DATA * 8ull | 3),
			 "r"(mem_addr(user_stack + sizeof(user_stack) - 8)),
			 "r"(GDT_USER_CODE * 8ull | 3), "r"(fn) : "memory");
}
