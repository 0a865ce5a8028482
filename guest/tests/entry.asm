; entry.asm: promise: an ELF with a PVH note is entered as Xen's PVH ABI says: 32-bit protected mode
; without paging, flat segments, interrupts off, ebx = start info, .bss clear, the rest loaded as
; linked.
;
; Without the library, which would not come this far if much of it were false.
;
; Spec: Xen docs/misc/pvh.pandoc (x86/HVM direct boot ABI).

%include "guest/abi.inc"

LSR_THRE	equ 0x20

PVH_NOTE pvh_entry

section .text
bits 32
global pvh_entry

; check CONDITION, "what": jumps if the flags say so
%macro check 2
	j%1	%%held
	mov	byte [failed], 1
	mov	esi, text_not
	call	puts
%%held:
	mov	esi, text_ok
	call	puts
	mov	esi, %%text
	call	puts
	jmp	%%next
%%text:	db %2, 10, 0
%%next:
%endmacro

pvh_entry:
	mov	edi, cr0
	mov	esp, stack_top
	pushfd
	pop	dword [flags]
	mov	[start], ebx

	test	edi, 1
	check	nz, "protected mode"
	test	edi, 1 << 31
	check	z, "paging is off"
	mov	eax, cr4
	test	eax, eax
	check	z, "cr4 is 0"
	test	dword [flags], 1 << 9
	check	z, "interrupts are off"
	test	dword [flags], 1 << 17
	check	z, "not in virtual 8086 mode"
	mov	ebx, [start]
	cmp	dword [ebx], START_MAGIC
	check	e, "ebx points to the start info"
	cmp	dword [ebx + 4], 1
	check	ae, "of version 1 or later"
	cmp	dword [ebx + START_INFO_CMDLINE + 4], 0
	check	e, "its command line is below 4 GiB"
	cmp	dword [linked], 0x600df00d
	check	e, "data is as linked"

	mov	edi, zeroes
	mov	ecx, 1024
	xor	eax, eax
	repe scasd
	check	e, "memory that is not in the file is 0"

	; Flat means up to 4 GiB and writable: ss and es as well as ds.
	mov	eax, [0xfee00030]
	cmp	eax, [es:0xfee00030]
	check	e, "ds and es reach the local APIC"
	; Of ss only RAM: some KVMs that emulate this lose the override of an MMIO access.
	mov	eax, [linked]
	cmp	eax, [ss:linked]
	check	e, "ss reaches memory"

	movzx	eax, byte [failed]
	out	PORT_EXIT, al
stop:
	hlt
	jmp	stop

; esi: text, up to a 0. Changes eax, edx.
puts:
	lodsb
	test	al, al
	jz	.done
	mov	ah, al
.wait:
	mov	edx, PORT_COM1 + 5
	in	al, dx
	test	al, LSR_THRE
	jz	.wait
	mov	edx, PORT_COM1
	mov	al, ah
	out	dx, al
	jmp	puts
.done:
	ret

section .rodata
text_not:	db "not ", 0
text_ok:	db "ok - ", 0

section .data
linked:		dd 0x600df00d

section .bss
zeroes:		resd 1024
failed:		resb 1
align 4, resb 1
flags:		resd 1
start:		resd 1
		resb 256
stack_top:

section .note.GNU-stack noalloc noexec nowrite progbits
