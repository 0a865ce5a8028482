; user.asm: how code at CPL 3 sleeps: an invalid instruction takes it to CPL 0, whose few
; instructions may be interpreted ones.
;
; Spec: Intel SDM vol. 3, 6.14 (exception handling in 64-bit mode), 11.8.5 (EOI).

%include "guest/abi.inc"

bits 64

UD		equ 6
STUB_SIZE	equ 16		; of trap.asm
LAPIC_EOI	equ 0xfee000b0

extern trap_stubs
global user_sleep, user_on_invalid, user_on_queue

section .text

user_sleep:
	ud2
	ret

; Interrupts were off: one that has come since the caller looked for work wakes this hlt.
user_on_invalid:
	cmp	qword [rsp], user_sleep
	jne	trap_stubs + UD * STUB_SIZE
	sti
	hlt
	cli
	add	qword [rsp], 2
	iretq

user_on_queue:
	push	rax
	mov	eax, LAPIC_EOI
	mov	dword [rax], 0
	pop	rax
	iretq

section .note.GNU-stack noalloc noexec nowrite progbits
