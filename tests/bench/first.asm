; first.asm: a guest whose first act is to say '!' on its serial port.
bits 32
section .note.pvh note alloc
	dd 4, 4, 18
	db "Xen", 0
	dd start
section .text
global start
start:	mov	dx, 0x3f8
	mov	al, '!'
	out	dx, al
	hlt
