# vmm: `make` builds build/vmm; `make demo` and `make check` set up all they need.
BUILD ?= build
PREFIX ?= /usr/local
CC ?= gcc
NASM ?= nasm
IASL ?= iasl
SETCAP ?= PATH=$$PATH:/usr/sbin:/sbin setcap

# A line a file; V=1 shows the commands.
, := ,
Q := $(if $(V),,@)
say = $(if $(V),,@echo "  $(1)	$@")

CFLAGS ?= -O2 -g
WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wimplicit-fallthrough \
	-Wvla -Wcast-qual $(if $(CI),-Werror)
HARDEN := -fstack-protector-strong -fPIE -fcf-protection -fstack-clash-protection
LINK := -pie -Wl,-z,relro,-z,now,-z,shstk,-z,nodynamic-undefined-weak -Wl,-O1,--as-needed
BASE := -std=gnu11 -D_GNU_SOURCE -I. -MMD -MP $(WARN)
# Static, for one small binary that starts fast and loads no code once the guest runs.
STATIC := uring jansson fdt z zstd
LIBS := -Wl,-Bstatic $(STATIC:%=-l%) -Wl,-Bdynamic -lpthread

CORE := $(wildcard vmm/core/*.c vmm/api/*.c devices/*.c devices/*/*.c firmware/*.c) \
	$(wildcard vmm/config*.c) $(addprefix vmm/,net_services.c net_state.c net_subnet.c program.c runtime.c \
	sandbox.c sandbox_rules.c landlock.c kvm/allow.c) \
	$(wildcard vmm/gdb*.c)
SRC := $(CORE) $(filter-out $(CORE),$(wildcard vmm/*.c vmm/kvm/*.c))
OBJ := $(SRC:%.c=$(BUILD)/obj/%.o) $(BUILD)/obj/firmware/blobs.o
AML := $(patsubst firmware/%.asl,$(BUILD)/%.aml,$(wildcard firmware/*.asl))

.PHONY: all fuzz fuzz-coverage lint tsan coverage breaks demo soak soak-snapshot soak-disk soak-pauses bench-boot bench-start bench-disk bench-net bench-snapshot check check-unit check-block check-guest check-net check-e2e deps-build deps-test deps-lint install clean
all: $(BUILD)/vmm $(BUILD)/vmm-bridge-helper

include guest/rules.mk

# vmm/api/http.c says why.
HTTP := $(BUILD)/libmicrohttpd.a
$(HTTP):
	@mkdir -p $(@D)
	$(Q)objcopy --wildcard --weaken-symbol='gnutls_*' "$$($(CC) -print-file-name=libmicrohttpd.a)" $@

# make coverage and tsan; not for vmm-faulty, which does what guests tell it.
ifdef UNCAGED
$(BUILD)/vmm: $(BUILD)/obj/tests/guest/uncaged.o
$(BUILD)/vmm: LINK += -Wl,--wrap=sandbox_enter
endif

$(BUILD)/vmm: $(OBJ) $(HTTP)
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(LINK) -o $@ $^ $(LIBS)

# Small: it has a capability, and anybody may start it.
HELPER := $(wildcard vmm/helper/*.c) $(addprefix devices/net/,bridge.c link.c netlink.c vlan.c) \
	vmm/core/base.c vmm/core/err.c
HELPER_OBJ := $(HELPER:%.c=$(BUILD)/obj/%.o)

$(BUILD)/vmm-bridge-helper: $(HELPER_OBJ)
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(LINK) -o $@ $^

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(BASE) $(HARDEN) $(if $(findstring -O0,$(CFLAGS)),,-D_FORTIFY_SOURCE=2) $(CFLAGS) -c -o $@ $<

$(BUILD)/%.aml: firmware/%.asl
	@mkdir -p $(@D)
	@$(IASL) -ve -p $(BUILD)/$* $< >$(BUILD)/$*.log 2>&1 || { cat $(BUILD)/$*.log; exit 1; }

$(BUILD)/obj/firmware/blobs.o: firmware/blobs.asm $(AML) $(BUILD)/guest/speed.bin
	@mkdir -p $(@D)
	$(call say,ASM)
	$(Q)$(NASM) -f elf64 -i $(BUILD)/ -o $@ $<

# --- tests ----------------------------------------------------------------------------------
SAN := -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
TEST_LIB := $(patsubst %.c,$(BUILD)/san/%.o,$(CORE) vmm/helper/allow.c vmm/kvm/cpu.c $(wildcard tests/lib/*.c))
TEST_LIBS := -lcmocka $(STATIC:%=-l%) -lpthread
UNIT := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(wildcard tests/unit/*_test.c))

$(BUILD)/san/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(BASE) $(SAN) -c -o $@ $<

# tests/lib/recorder.c stands in front of devices/block/file.c, of aio's threads and of directories.
WRAPPED := $(addprefix file_,read write sync truncate allocate zero) preadv pwritev fdatasync fallocate \
	open link linkat rename unlink fsync
$(BUILD)/unit/image_fault_test: WRAPPED += malloc calloc realloc reallocarray strdup
$(foreach d,unit tsan,$(addprefix $(BUILD)/$d/,virtio_blk_options_test virtio_test)): WRAPPED += clock_gettime
$(addprefix $(BUILD)/unit/,virtio_net_vhost_test tap_test link_test cpu_test): WRAPPED += ioctl
$(BUILD)/unit/image_head_test: WRAPPED += poll
$(BUILD)/unit/virtio_net_vhost_test: WRAPPED += socket bind poll
$(BUILD)/unit/tap_test: WRAPPED += syscall
$(BUILD)/unit/bridge_ask_test: WRAPPED += readlink
$(BUILD)/unit/socket_test: WRAPPED += connect
$(addsuffix /chardev_test,$(BUILD)/unit $(BUILD)/tsan): WRAPPED += pthread_cond_wait epoll_wait
$(addprefix $(BUILD)/unit/,net_user_test virtio_vsock_test): WRAPPED += clock_gettime

$(BUILD)/unit/%: $(BUILD)/san/tests/unit/%.o $(TEST_LIB) $(BUILD)/obj/firmware/blobs.o $(HTTP)
	@mkdir -p $(@D)
	$(call say,LD)
	$(Q)$(CC) $(SAN) $(WRAPPED:%=-Wl,--wrap=%) -o $@ $^ $(TEST_LIBS)
$(BUILD)/unit/api_definition_test: TEST_LIBS += -lyaml

# What tests/block/interop has of ours.
$(BUILD)/image-io: $(BUILD)/san/tests/block/io.o \
		$(filter $(addprefix $(BUILD)/san/,devices/block/% vmm/core/% tests/lib/recorder.o),$(TEST_LIB))
	$(call say,LD)
	$(Q)$(CC) $(SAN) $(WRAPPED:%=-Wl,--wrap=%) -o $@ $^ $(TEST_LIBS)

# A page fault handler for tests/guest/api.
$(BUILD)/page-handler: $(addprefix $(BUILD)/san/,tests/guest/page-handler.o tests/lib/page_handler.o \
		vmm/core/socket.o vmm/core/err.o vmm/core/base.o)
	$(call say,LD)
	$(Q)$(CC) $(SAN) -o $@ $^ -ljansson

# A vmm whose memory and clock fail it when tests/guest/faults or running say so, and that a guest can break into.
FAULTY := malloc calloc realloc reallocarray aligned_alloc posix_memalign strdup strndup asprintf __asprintf_chk \
	vasprintf clock_gettime time bus_write virtq_pop
$(BUILD)/vmm-faulty: $(OBJ) $(BUILD)/obj/tests/guest/faulty.o $(HTTP)
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(LINK) $(FAULTY:%=-Wl,--wrap=%) -o $@ $^ $(LIBS)

.PRECIOUS: $(BUILD)/san/%.o

# What make bench-disk has of ours, without a guest and in one.
$(BUILD)/bench/block: $(BUILD)/obj/tests/bench/block.o $(filter $(addprefix $(BUILD)/obj/,devices/block/% vmm/core/%),$(OBJ))
	@mkdir -p $(@D)
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) -pie -o $@ $^ $(LIBS)

# --- the same tests of what has threads, under ThreadSanitizer ----------------------------------
TSAN := -g -O1 -fsanitize=thread -fno-omit-frame-pointer -Wno-tsan
TSAN_LIB := $(TEST_LIB:$(BUILD)/san/%=$(BUILD)/tsan/obj/%)
TSAN_TEST := $(patsubst %,$(BUILD)/tsan/%_test,loop aio log limit serial chardev mem metrics acpi_ports virtio virtio_net \
	virtio_net_control virtio_blk virtio_blk_queues virtio_blk_options blk blk_snapshot state http gdb metadata)

$(BUILD)/tsan/obj/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(BASE) $(TSAN) -c -o $@ $<

$(TSAN_TEST): $(BUILD)/tsan/%: $(BUILD)/tsan/obj/tests/unit/%.o $(TSAN_LIB) $(BUILD)/obj/firmware/blobs.o $(HTTP)
	$(call say,LD)
	$(Q)$(CC) $(TSAN) $(WRAPPED:%=-Wl,--wrap=%) -o $@ $^ $(TEST_LIBS)

.PRECIOUS: $(BUILD)/tsan/obj/%.o

# --- fuzzing: an hour each by make fuzz, which goes on where it was stopped; scripts/run-tests says how long in make check -----------
# One archive, of which a target takes what it uses: it may stand in for a module by having
# that one's functions itself.
FUZZ := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard tests/fuzz/*.c))
FUZZ_SECONDS ?= 3600
FUZZ_SAN := -g -O2 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
FUZZ_CORE := $(CORE:%.c=$(BUILD)/fuzz/obj/%.o)
FUZZ_LIB := $(patsubst %.c,$(BUILD)/fuzz/obj/%.o,$(wildcard tests/lib/*.c tests/fuzz/lib/*.c))
FUZZ_OBJ := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/obj/tests/fuzz/%.o,$(wildcard tests/fuzz/*.c))

# What is measured is the program, not its tests.
$(FUZZ_CORE): FUZZ_SAN += -fsanitize=fuzzer-no-link

$(BUILD)/fuzz/obj/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CLANG)
	$(Q)clang $(BASE) $(FUZZ_SAN) -c -o $@ $<

$(BUILD)/fuzz/core.a: $(FUZZ_CORE) $(FUZZ_LIB) $(BUILD)/obj/firmware/blobs.o
	$(Q)rm -f $@ && ar rcs $@ $^

$(BUILD)/fuzz/virtio_% $(BUILD)/fuzz/state: FUZZ_WRAP = sg_read
$(BUILD)/fuzz/virtio_blk: FUZZ_WRAP = sg_read file_sync

$(FUZZ): $(BUILD)/fuzz/%: $(BUILD)/fuzz/obj/tests/fuzz/%.o $(BUILD)/fuzz/core.a $(HTTP)
	$(call say,LD)
	$(Q)clang $(FUZZ_SAN) -fsanitize=fuzzer $(patsubst %,-Wl$(,)--wrap=%,log_write $(FUZZ_WRAP)) \
		-o $@ $^ $(TEST_LIBS)

.PRECIOUS: $(BUILD)/fuzz/obj/%.o

fuzz: deps-test
	@$(MAKE) --no-print-directory -j$$(nproc) $(FUZZ)
	@scripts/fuzz $(BUILD) until $(FUZZ_SECONDS)

# What the fuzzers reach by what they begin with.
fuzz-coverage: deps-test
	@$(MAKE) --no-print-directory -j$$(nproc) BUILD=$(BUILD)/fuzz-cov FUZZ_SAN='-g -O1 --coverage' $(FUZZ:$(BUILD)/%=$(BUILD)/fuzz-cov/%)
	@find $(BUILD)/fuzz-cov -name '*.gcda' -delete
	@scripts/fuzz $(BUILD)/fuzz-cov replay
	@GCOV="$$(ls /usr/bin/llvm-cov-* /usr/bin/llvm-cov 2>/dev/null | head -n 1) gcov" scripts/coverage $(BUILD)/fuzz-cov

deps-build:
	@scripts/deps build
deps-test:
	@scripts/deps test
deps-lint:
	@scripts/deps lint

demo: deps-build
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@scripts/demo $(BUILD)

check: deps-test
	@$(MAKE) --no-print-directory -j$$(nproc) all guest-payloads $(UNIT) $(BUILD)/image-io $(BUILD)/page-handler $(BUILD)/vmm-faulty $(FUZZ)
	@scripts/run-tests $(BUILD)

check-unit: $(UNIT)
	@scripts/run-tests $(BUILD) unit
tsan: deps-test
	@$(MAKE) --no-print-directory -j$$(nproc) $(TSAN_TEST) guest-payloads $(BUILD)/page-handler
	@$(MAKE) --no-print-directory -j$$(nproc) BUILD=$(BUILD)/tsan/program UNCAGED=1 CFLAGS='$(TSAN)' all
	@scripts/run-tests $(BUILD) tsan
# What runs is counted by its own objects, so that all tests of a build are summed up. Those of the sandbox and of
# vmm-faulty fail.
coverage: deps-test
	@$(MAKE) --no-print-directory -j$$(nproc) BUILD=$(BUILD)/cov UNCAGED=1 SAN='-g -O1 --coverage' CFLAGS='-g -O1 --coverage' \
		all guest-payloads $(UNIT:$(BUILD)/%=$(BUILD)/cov/%) $(BUILD)/cov/image-io $(BUILD)/cov/page-handler $(BUILD)/cov/vmm-faulty
	@find $(BUILD)/cov -name '*.gcda' -delete
	@scripts/run-tests $(BUILD)/cov unit block guest net || true
	@scripts/coverage $(BUILD)/cov
# What a test sees as SECURITY.md says is made in a copy of the tree, and the test must fail.
breaks: deps-test
	@$(MAKE) --no-print-directory -j$$(nproc) all guest-payloads $(BUILD)/page-handler $(BUILD)/vmm-faulty \
		$$(sed -n 's|^test: unit \([^ ]*\).*|$(BUILD)/unit/\1_test|p; s|^test: fuzz |$(BUILD)/fuzz/|p' tests/breaks/*.patch | sort -u)
	@scripts/breaks $(BUILD)
lint: deps-lint
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@scripts/run-tests $(BUILD) lint
check-block: all $(BUILD)/image-io
	@scripts/run-tests $(BUILD) block
check-guest: all guest-payloads $(BUILD)/page-handler $(BUILD)/vmm-faulty
	@scripts/run-tests $(BUILD) guest
check-net: all guest-payloads
	@scripts/run-tests $(BUILD) net
check-e2e: all guest-payloads
	@scripts/run-tests $(BUILD) e2e

# Two hours of VMs that start, write, are saved, restored and killed, beside one that must not grow.
soak: deps-test
	@$(MAKE) --no-print-directory -j$$(nproc) all guest-payloads
	@VMM=$(BUILD)/vmm PAYLOADS=$(BUILD)/guest tests/guest/soak
# Two hundred times saved and gone on with, four ways.
soak-snapshot: deps-test
	@$(MAKE) --no-print-directory -j$$(nproc) all guest-payloads
	@VMM=$(BUILD)/vmm PAYLOADS=$(BUILD)/guest ROUNDS=$(or $(ROUNDS),200) tests/guest/saved pci mmio 'four*'
# vmm killed thirty times at random moments, and fio over snapshots: some ten minutes in the lab.
soak-disk: deps-test
	@$(MAKE) --no-print-directory -j$$(nproc) all guest-payloads
	@VMM=$(BUILD)/vmm KILLS=$(or $(KILLS),30) E2E_LIMIT=$(or $(E2E_LIMIT),7200) tests/e2e/run -v disk_fio disk_kills
# Ten thousand times paused and resumed, under fio and the network: half an hour in the lab.
soak-pauses: deps-test
	@$(MAKE) --no-print-directory -j$$(nproc) all guest-payloads
	@VMM=$(BUILD)/vmm PAUSES=$(or $(PAUSES),10000) E2E_LIMIT=$(or $(E2E_LIMIT),14400) tests/e2e/run -v pauses

bench-boot bench-start bench-disk bench-net bench-snapshot: deps-build
	@$(MAKE) --no-print-directory -j$$(nproc) all guest-bench $(if $(filter bench-disk,$@),$(BUILD)/bench/block)
	@scripts/$@ $(BUILD)

install: all
	install -D -m 755 $(BUILD)/vmm $(DESTDIR)$(PREFIX)/bin/vmm
	install -D -m 755 $(BUILD)/vmm-bridge-helper $(DESTDIR)$(PREFIX)/libexec/vmm/vmm-bridge-helper
	@$(SETCAP) cap_net_admin+ep $(DESTDIR)$(PREFIX)/libexec/vmm/vmm-bridge-helper 2>/dev/null || \
		echo "vmm-bridge-helper has no capability, so --net bridge= is root's: as root, run" \
			"'setcap cap_net_admin+ep $(PREFIX)/libexec/vmm/vmm-bridge-helper'"
	install -D -m 644 vmm/vmm.1 $(DESTDIR)$(PREFIX)/share/man/man1/vmm.1
	install -D -m 644 vmm/api/openapi.yaml $(DESTDIR)$(PREFIX)/share/vmm/openapi.yaml
	install -D -m 644 scripts/completion.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/vmm

clean:
	rm -rf $(BUILD)/obj $(BUILD)/lint $(BUILD)/cov $(BUILD)/tsan $(BUILD)/san $(BUILD)/unit $(BUILD)/guest $(BUILD)/*.aml $(BUILD)/*.log $(BUILD)/vmm \
		$(BUILD)/vmm-bridge-helper $(BUILD)/vmm-faulty

-include $(OBJ:.o=.d) $(HELPER_OBJ:.o=.d) $(TEST_LIB:.o=.d) $(UNIT:$(BUILD)/unit/%=$(BUILD)/san/tests/unit/%.d) \
	$(BUILD)/obj/tests/guest/faulty.d $(BUILD)/san/tests/block/io.d $(BUILD)/san/tests/guest/page-handler.d
-include $(FUZZ_CORE:.o=.d) $(FUZZ_LIB:.o=.d) $(FUZZ_OBJ:.o=.d)
-include $(TSAN_LIB:.o=.d) $(TSAN_TEST:$(BUILD)/tsan/%=$(BUILD)/tsan/obj/tests/unit/%.d)
