# rules.mk: payloads: code that runs inside a VM. Included by the top Makefile, which sets BUILD.
#
#   $(BUILD)/guest/<name>.elf   for each guest/tests/<name>.{c,asm}
#   $(BUILD)/guest/bench/<name>.elf   for each guest/bench/<name>.c
#   $(BUILD)/guest/speed.bin    flat; vmm check embeds it
#   guest-payloads              all but those of bench, which are guest-bench

NASM ?= nasm

# Nothing of the host's: payloads have their own compiler options, whatever CFLAGS says.
GUEST_CC ?= gcc
GUEST_CFLAGS := -std=gnu11 -O2 -m64 -march=x86-64 -ffreestanding -fno-stack-protector \
	-mno-red-zone -mgeneral-regs-only -fno-pic -fno-pie -fcf-protection=none \
	-fno-asynchronous-unwind-tables -fno-tree-loop-distribute-patterns \
	-U_FORTIFY_SOURCE -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	-Wimplicit-fallthrough -Wvla -Wcast-qual -I. -MMD -MP
GUEST_LDFLAGS := -nostdlib -static -no-pie -Wl,--build-id=none -Wl,-z,noexecstack \
	-Wl,-z,max-page-size=4096 -Wl,--no-warn-rwx-segments -T guest/link.ld

GUEST_LIB := $(patsubst guest/%,$(BUILD)/guest/%.o,$(wildcard guest/lib/*.c guest/lib/*.asm))
GUEST_TESTS_C := $(patsubst guest/tests/%.c,$(BUILD)/guest/%.elf,$(wildcard guest/tests/*.c))
GUEST_BENCH := $(patsubst guest/%.c,$(BUILD)/guest/%.elf,$(wildcard guest/bench/*.c))
GUEST_TESTS_ASM := $(patsubst guest/tests/%.asm,$(BUILD)/guest/%.elf,$(wildcard guest/tests/*.asm))

.PHONY: guest-payloads guest-bench
guest-payloads: $(GUEST_TESTS_C) $(GUEST_TESTS_ASM) $(BUILD)/guest/speed.bin
guest-bench: $(GUEST_BENCH)

$(BUILD)/guest/%.c.o: guest/%.c
	@mkdir -p $(@D)
	$(call say,GUEST)
	$(Q)$(GUEST_CC) $(GUEST_CFLAGS) -c -o $@ $<

$(BUILD)/guest/%.asm.o: guest/%.asm
	@mkdir -p $(@D)
	$(call say,GUEST)
	$(Q)$(NASM) -f elf64 -I ./ -MD $(@:.o=.d) -MT $@ -o $@ $<

$(BUILD)/guest/lib.a: $(GUEST_LIB)
	@rm -f $@
	$(call say,GUEST)
	$(Q)$(AR) rcs $@ $^

# A payload in C starts in the library; one in assembly has its own entry and nothing else.
$(GUEST_TESTS_C): $(BUILD)/guest/%.elf: $(BUILD)/guest/tests/%.c.o $(BUILD)/guest/lib.a \
		guest/link.ld
	$(call say,GUEST)
	$(Q)$(GUEST_CC) $(GUEST_LDFLAGS) -u pvh_entry -o $@ $< $(BUILD)/guest/lib.a

$(GUEST_BENCH): $(BUILD)/guest/%.elf: $(BUILD)/guest/%.c.o $(BUILD)/guest/lib.a guest/link.ld
	$(call say,GUEST)
	$(Q)$(GUEST_CC) $(GUEST_LDFLAGS) -u pvh_entry -o $@ $< $(BUILD)/guest/lib.a

$(GUEST_TESTS_ASM): $(BUILD)/guest/%.elf: $(BUILD)/guest/tests/%.asm.o guest/link.ld
	$(call say,GUEST)
	$(Q)$(GUEST_CC) $(GUEST_LDFLAGS) -o $@ $<

$(BUILD)/guest/speed.bin: guest/speed.asm guest/abi.inc
	@mkdir -p $(@D)
	$(call say,GUEST)
	$(Q)$(NASM) -f bin -I ./ -o $@ $<

-include $(GUEST_LIB:.o=.d) $(wildcard $(BUILD)/guest/tests/*.d $(BUILD)/guest/bench/*.d)
