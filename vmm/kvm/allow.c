/* allow.c: KVM's requests by name, for the sandbox. */
#include "vmm/kvm/allow.h"
#include <linux/kvm.h>

_Static_assert(KVMIO == KVM_REQUEST_TYPE, "the type of KVM's requests");

const u32 kvm_vcpu_requests[KVM_NR_VCPU_REQUESTS] = {
	KVM_RUN,
	KVM_IRQ_LINE, KVM_IRQFD, KVM_SET_GSI_ROUTING,	/* pins; MSI-X that the guest sets up */
	KVM_IOEVENTFD,					/* doorbells: queues start, BARs move */
	KVM_GET_REGS, KVM_GET_SREGS, KVM_TRANSLATE,	/* what is said of a vCPU that failed */
};
