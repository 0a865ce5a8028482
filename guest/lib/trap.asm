; trap.asm: where interrupts and exceptions arrive: one stub per vector, all saving the registers C
; may clobber and calling trap_dispatch(struct trap_frame *).
;
; Spec: Intel SDM vol. 3, 6.14 (exception handling in 64-bit mode).

bits 64

NR_VECTORS	equ 64		; TRAP_VECTORS in trap.h
STUB_SIZE	equ 16

extern trap_dispatch
global trap_stubs

; Exceptions that push an error code: 8, 10-14, 17, 21, 29, 30.
HAS_ERROR	equ 0x60227d00

section .text

align 16
trap_stubs:
%assign vector 0
%rep NR_VECTORS
	align	STUB_SIZE
%if vector >= 32 || !((HAS_ERROR >> vector) & 1)
	push	0
%endif
	push	vector
	jmp	near save
%assign vector vector + 1
%endrep

save:
	push	rax
	push	rcx
	push	rdx
	push	rsi
	push	rdi
	push	r8
	push	r9
	push	r10
	push	r11
	cld
	mov	rdi, rsp
	call	trap_dispatch
	pop	r11
	pop	r10
	pop	r9
	pop	r8
	pop	rdi
	pop	rsi
	pop	rdx
	pop	rcx
	pop	rax
	add	rsp, 16
	iretq

section .note.GNU-stack noalloc noexec nowrite progbits
