; dirty.asm: a guest that for each byte from its serial port writes to one of a hundred pages of 2 GiB, and says '.'.
bits 32
section .note.pvh note alloc
	dd 4, 4, 18
	db "Xen", 0
	dd start
section .text
global start
start:	mov	dx, 0x3fd
.ask:	in	al, dx
	test	al, 1
	jz	.ask
	mov	dx, 0x3f8
	in	al, dx
	mov	edi, 0x400000
.write:	inc	dword [edi]
	add	edi, 100 * 4096
	jns	.write			; below 2 GiB
	mov	al, '.'
	out	dx, al
	jmp	start
