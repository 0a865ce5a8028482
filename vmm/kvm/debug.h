/* debug.h: a vCPU under a debugger: its registers, its address space, and where it stops. */
#pragma once
#include "vmm/core/cpu_debug.h"
#include "vmm/core/err.h"
#include "vmm/kvm/kvm.h"

/* All while the vCPU is not in the guest; 0 or -errno. */
int  cpu_get_registers(int vcpu_fd, struct cpu_registers *) must_check;
/* -EINVAL: segment selectors cannot be changed. */
int  cpu_set_registers(int vcpu_fd, const struct cpu_registers *) must_check;
/* Where a linear address lies in guest physical memory; -EFAULT: nowhere. */
int  cpu_translate(int vcpu_fd, u64 linear, u64 *gpa) must_check;

struct cpu_debug {
	bool on;			/* its int3 stop it; false: as if there were no debugger */
	bool step;			/* one instruction; no interrupt is taken, where KVM can */
	struct cpu_point point[CPU_POINTS];
};
int  cpu_set_debug(const struct kvm *, int vcpu_fd, const struct cpu_debug *) must_check;
/* It stopped for what is not the debugger's: let the guest have the exception, once,
 * when it runs again. */
int  cpu_inject(int vcpu_fd, const struct cpu_debug *, unsigned vector) must_check;
