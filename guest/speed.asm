; speed.asm: the loop by which `vmm check` measures how fast this host's KVM runs code at CPL 0.
;
; Flat binary, position-independent, entered at offset 0 in 64-bit mode with the number of
; iterations (two instructions each) in rcx; ends by writing to the exit port. No memory is
; touched, no stack is needed.

%include "guest/abi.inc"

bits 64

again:
	dec	rcx
	jnz	again
	xor	eax, eax
	out	PORT_EXIT, al
stop:
	hlt
	jmp	stop
