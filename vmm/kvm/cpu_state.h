/* cpu_state.h: what a vCPU remembers, saved and loaded. */
#pragma once
#include "vmm/core/state.h"
#include "vmm/kvm/kvm.h"

/*
 * The vCPU does not run.  Loading: into a fresh one, after the irqchip's; fails
 * with the missing feature's name where the guest has seen one that this host
 * does not have.
 */
void cpu_state(struct state *, const struct kvm *, int vcpu_fd);
