/* kvm.h: one KVM virtual machine: the ioctls, and nothing clever. */
#pragma once
#include "vmm/core/bus.h"
#include "vmm/core/err.h"
#include "vmm/core/mem.h"
#include "vmm/core/state.h"

struct kvm_cpuid2;

struct kvm {
	int sys_fd, vm_fd;
	size_t run_size;		/* of a vCPU's shared page */
	struct kvm_cpuid2 *cpuid;	/* what the host can give a guest */
	bool has_tsc_deadline, has_any_length_doorbell;
};

/* /dev/kvm, an empty VM.  The message names the cure where there is one. */
int  kvm_open(struct kvm *, struct err *) must_check;
void kvm_close(struct kvm *);			/* idempotent */

/* Guest RAM as memory slots; where its dirty pages are tracked, KVM tracks the guest's.  Before kvm_create_irqchip: the other way round
 * costs milliseconds (a grace period in the kernel for every slot). */
int  kvm_set_memory(struct kvm *, struct mem *, struct err *) must_check;
/* Adds what the guest wrote to since the last time to mem's dirty pages. */
int  kvm_fetch_dirty(struct kvm *, struct mem *, struct err *) must_check;
/* PIC, I/O APIC and local APICs in the kernel, and the timer of a PC. */
int  kvm_create_irqchip(struct kvm *, struct err *) must_check;
/* Make the bus ring doorbells in the kernel.  mmio or port I/O. */
void kvm_attach_bus(struct kvm *, struct bus *, bool mmio);

/* PICs, I/O APIC and timer; no vCPU runs.  The clock: when loading, from now on. */
void kvm_irqchip_state(struct kvm *, struct state *);
void kvm_clock_state(struct kvm *, struct state *);

int  kvm_extension(const struct kvm *, int cap);	/* KVM_CHECK_EXTENSION, 0: no */
