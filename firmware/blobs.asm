; blobs.asm: compiled AML and the speed payload, as data of the program.
section .rodata
%macro blob 2
	global %1, %1 %+ _end
%1:	incbin %2
%1 %+ _end:
%endmacro
blob aml_dsdt, "dsdt.aml"
blob aml_pci, "pci.aml"
blob aml_cpu, "cpu.aml"
blob aml_virtio, "virtio.aml"
blob speed_payload, "guest/speed.bin"
section .note.GNU-stack noalloc noexec nowrite progbits
