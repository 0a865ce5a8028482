/* cpu.h: what a guest's processors are, and how they start. */
#pragma once
#include "vmm/core/cpu_start.h"
#include "vmm/core/err.h"
#include "vmm/core/mem.h"
#include "vmm/kvm/kvm.h"

enum { CPU_MAX = 64 };

/*
 * CPUID and MSRs of vCPU index of nr: one package, a core each, APIC id = index;
 * everything the host's KVM offers a guest, x2APIC, TSC deadline and KVM's
 * paravirtual features among it.
 */
int cpu_setup(const struct kvm *, int vcpu_fd, unsigned index, unsigned nr, struct err *) must_check;
/* Registers of the first processor; the others wait for INIT and SIPI. */
int cpu_start(int vcpu_fd, const struct cpu_start *, struct err *) must_check;
/* The registers and the code at rip, as log lines (level err). */
void cpu_dump(int vcpu_fd, unsigned index, struct mem *);
