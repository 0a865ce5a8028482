/* stats.h: what KVM counts of a vCPU by itself (api.rst, 4.133). */
#pragma once
#include "vmm/core/base.h"

/* All are 0 where the host's kernel does not tell (before 5.14). */
struct kvm_counts {
	u64 exits, halts, halt_ns;
	u64 irq, irq_window, nmi_window, io, mmio, signal, request;	/* exits by reason */
	u64 injected, injected_nmi, page_faults, emulated, hypercalls, tlb_flushes;
};

enum { KVM_NR_COUNTS = sizeof(struct kvm_counts) / sizeof(u64) };

/* Zeroed, but for fd. */
struct kvm_stats {
	int fd;				/* -1: not open */
	u32 offset[KVM_NR_COUNTS];	/* in the file, of each; 0: it has none */
	bool known;			/* they were looked up */
};

/* All on the control thread.  Open: before the vCPU runs, or it would wait for that to
 * leave the guest. */
void kvm_stats_open(struct kvm_stats *, int vcpu_fd);
void kvm_stats_close(struct kvm_stats *);
void kvm_stats_read(struct kvm_stats *, struct kvm_counts *);
