/* vcpu.h: one virtual processor, one thread. */
#pragma once
#include <pthread.h>
#include "vmm/core/bus.h"
#include "vmm/core/cpu_debug.h"
#include "vmm/core/cpu_start.h"
#include "vmm/core/metrics.h"
#include "vmm/core/state.h"
#include "vmm/kvm/kvm.h"

struct vcpu;

/* Shared by all vCPUs of a machine, who outlives them. */
struct vcpu_host {
	struct kvm *kvm;
	struct mem *mem;
	struct bus *mmio, *pio;
	unsigned nr_vcpus;
	struct metrics *metrics;
	bool stop;			/* atomic: no vCPU enters the guest any more */
	bool pause;			/* atomic: nor now; changed under lock */
	pthread_mutex_t lock;		/* of what follows */
	pthread_cond_t changed;
	unsigned nr_running, nr_parked;	/* threads; parked ones are counted as running, too */
	/* The guest cannot go on (triple fault, a KVM error): it has been explained
	 * in the log.  On the vCPU's thread, which ends. */
	void (*fatal)(struct vcpu_host *);
	bool debugged;			/* atomic: there is a debugger */
	/* A vCPU stopped for it, and is held.  On the vCPU's thread. */
	void (*stopped)(struct vcpu_host *);
};

void vcpu_host_init(struct vcpu_host *);	/* the lock; the rest is the caller's */
void vcpu_host_fini(struct vcpu_host *);
/* start: NULL for all but the first. */
int  vcpu_new(struct vcpu **, struct vcpu_host *, unsigned index, const struct cpu_start *start,
	      struct err *) must_check;
int  vcpu_run(struct vcpu *, struct err *) must_check;	/* start its thread */
/* Both from one thread.  When pause returns, no vCPU is in the guest or in a device,
 * and what its last exit asked for is complete. */
void vcpus_pause(struct vcpu_host *, struct vcpu *const *);
void vcpus_resume(struct vcpu_host *, struct vcpu *const *);
/* One that is held stays out of the guest when the others run, until it is no more.
 * To hold: paused; to let go: any time. */
void vcpu_hold(struct vcpu *, bool hold);
/* Did it stop for the debugger since the last time it was asked? */
bool vcpu_take_stop(struct vcpu *, struct cpu_stop *);
int  vcpu_fd(const struct vcpu *);	/* for vmm/kvm/debug.h, while paused or held by a stop */
/* Paused, or never run. */
void vcpu_state(struct vcpu *, struct state *);
/* After host->stop: make it leave the guest.  Then wait for its thread. */
void vcpu_kick(struct vcpu *);
void vcpu_join(struct vcpu *);
void vcpu_free(struct vcpu *);		/* joined, or never run; NULL is allowed */
