/* allow.h: what a vCPU's thread asks of KVM while its guest runs. */
#pragma once
#include <signal.h>
#include "vmm/core/base.h"

/* ioctl(2) requests.  KVM_RUN is the first: it is the one that counts. */
enum { KVM_NR_VCPU_REQUESTS = 8 };
extern const u32 kvm_vcpu_requests[KVM_NR_VCPU_REQUESTS];
/* All requests to KVM are of this type (the second byte). */
enum { KVM_REQUEST_TYPE = 0xae };
/* It makes a vCPU's thread leave the guest. */
enum { VCPU_KICK_SIGNAL = SIGUSR1 };
