/* boot.h: put a guest into memory and say where it starts.  No KVM here. */
#pragma once
#include "vmm/core/cpu_start.h"
#include "vmm/core/err.h"
#include "vmm/core/mem.h"

enum { BOOT_MAX_MMIO = 32 };

/* What the tables must describe; filled by machine.c from what it built. */
struct boot_machine {
	unsigned nr_cpus;
	bool has_pci;
	u64 pci_ecam, pci_ecam_len;
	struct { u64 base; u32 gsi; } mmio_dev[BOOT_MAX_MMIO];
	unsigned nr_mmio_dev;
};

/*
 * Put kernel, initrd (fd -1: none), command line and tables into memory that
 * is all zero.  The kernel is recognised by its content: bzImage (boot protocol
 * 2.06 and later, by the 64-bit entry where it has one, else the 32-bit one) or
 * a 64-bit ELF file with a PVH entry.  Errors say what is wrong with which of
 * the two files.
 */
int boot_load(struct mem *, const struct boot_machine *, int kernel_fd, int initrd_fd,
	      const char *cmdline, struct cpu_start *, struct err *) must_check;

/* Code at `code` in 64-bit mode at address `at`, as a bzImage would start. */
int boot_flat(struct mem *, u64 at, const void *code, size_t len, struct cpu_start *,
	      struct err *) must_check;
