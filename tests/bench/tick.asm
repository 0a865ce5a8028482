; tick.asm: a guest that says '.' on its serial port for ever; between two, it counts.
bits 32
section .note.pvh note alloc
	dd 4, 4, 18
	db "Xen", 0
	dd start
section .text
global start
start:	mov	dx, 0x3f8
	mov	al, '.'
	out	dx, al
	mov	ecx, 2000
.wait:	loop	.wait
	jmp	start
