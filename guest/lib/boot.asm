; boot.asm: from the PVH entry to C: 64-bit mode on identity-mapped 2 MiB pages, a stack, a clear
; .bss. Also the way of an application processor from its SIPI to C.
;
; Spec: Xen PVH direct boot ABI; Intel SDM vol. 3, 9.8.5 (IA-32e initialization), 8.4 (MP start).

%include "guest/abi.inc"

CODE64		equ 0x08
DATA		equ 0x10
CODE32		equ 0x18

STACK_SIZE	equ 16384
AP_STACK_SIZE	equ 2048
AP_MAX		equ 64

CR0_PE		equ 1 << 0
CR0_PG		equ 1 << 31
CR4_PAE		equ 1 << 5
MSR_EFER	equ 0xc0000080
EFER_LME	equ 1 << 8

extern bss_start, bss_end, guest_start, trap_load

global pvh_entry, page_pdpt
global ap_trampoline, ap_trampoline_end, ap_main, ap_count

PVH_NOTE pvh_entry

; Processors of both kinds come here in 32-bit mode without paging. Preserves ebx.
%macro ENTER_LONG_MODE 1
	mov	eax, page_pml4
	mov	cr3, eax
	mov	eax, cr4
	or	eax, CR4_PAE
	mov	cr4, eax
	mov	ecx, MSR_EFER
	rdmsr
	or	eax, EFER_LME
	wrmsr
	mov	eax, cr0
	or	eax, CR0_PG
	mov	cr0, eax
	jmp	CODE64:%1
%endmacro

%macro LOAD_DATA_SEGMENTS 0
	mov	eax, DATA
	mov	ds, eax
	mov	es, eax
	mov	ss, eax
	mov	fs, eax
	mov	gs, eax
%endmacro

section .text
bits 32

pvh_entry:
	cli
	cld
	mov	edi, bss_start
	mov	ecx, bss_end
	sub	ecx, edi
	shr	ecx, 2
	xor	eax, eax
	rep stosd
	lgdt	[gdtr]
	ENTER_LONG_MODE start64

ap_entry32:
	LOAD_DATA_SEGMENTS
	ENTER_LONG_MODE ap_entry64

bits 64

start64:
	LOAD_DATA_SEGMENTS
	mov	esp, stack_top
	mov	edi, ebx
	xor	ebp, ebp
	call	guest_start
	jmp	park

; The number a processor draws is its stack's; ap_main gets it, counted from 0.
ap_entry64:
	LOAD_DATA_SEGMENTS
	mov	ebx, 1
	lock xadd [ap_count], ebx
	imul	esp, ebx, AP_STACK_SIZE
	add	esp, ap_stacks + AP_STACK_SIZE
	xor	ebp, ebp
	call	trap_load
	mov	edi, ebx
	call	[ap_main]
park:
	cli
	hlt
	jmp	park

; Copied to a page below 640 KiB, and entered there in real mode with ip = 0.
bits 16
ap_trampoline:
	cli
	mov	ax, cs
	mov	ds, ax
	o32 lgdt [ap_gdtr - ap_trampoline]
	mov	eax, cr0
	or	al, CR0_PE
	mov	cr0, eax
	jmp	dword CODE32:ap_entry32
align 4
ap_gdtr:
	dw	gdt_end - gdt - 1
	dd	gdt
ap_trampoline_end:

section .data align=4096

; Built at assembly time: 2048 entries are 10,000 instructions an interpreted guest need not run.
; Present, writable, accessed, dirty, 2 MiB.
page_pds:
%assign page 0
%rep 2048
	dq	page * 0x200000 + 0xe3
%assign page page + 1
%endrep
page_pdpt:
%assign page 0
%rep 4
	dq	page_pds + page * 4096 + 0x23
%assign page page + 1
%endrep
	times 508 dq 0
page_pml4:
	dq	page_pdpt + 0x23
	times 511 dq 0

; The accessed bit is set in each, so that loading a segment writes nothing.
gdt:
	dq	0
	dq	0x00af9b000000ffff
	dq	0x00cf93000000ffff
	dq	0x00cf9b000000ffff
gdt_end:

gdtr:
	dw	gdt_end - gdt - 1
	dd	gdt

section .bss
ap_main:	resq 1
ap_count:	resd 1

section .bss.noinit nobits alloc write noexec align=16
	resb	STACK_SIZE
stack_top:
ap_stacks:
	resb	AP_MAX * AP_STACK_SIZE

section .note.GNU-stack noalloc noexec nowrite progbits
