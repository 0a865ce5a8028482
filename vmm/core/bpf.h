/* bpf.h: lists of system calls as programs for the kernel's filter (seccomp(2)). */
#pragma once
#include <linux/filter.h>
#include "vmm/core/base.h"

enum bpf_check {
	BPF_ALWAYS,
	BPF_ONE_OF,		/* the argument is one of these values */
	BPF_BITS,		/* of the argument the bits of value[0] are value[1] */
};

/* A call may stand in several rows; any that fits allows it.  Arguments are compared by
 * their low 32 bits, which is all that the kernel takes of those that are worth it. */
struct bpf_rule {
	u16 nr;
	u8 check, arg;		/* arg: its number, from 0 */
	u8 nr_values;
	u8 refuse;		/* what fits is not allowed, but fails with this errno */
	const u32 *value;
};

/*
 * The rows are in the order of nr; the call first is looked for first.  rest: the action (SECCOMP_RET_*) for what no
 * row allows, and for the calls of other architectures than x86-64.  The program's length, or -E2BIG if room is too
 * small.
 */
int bpf_compile(const struct bpf_rule *, unsigned nr, u16 first, u32 rest, struct sock_filter *,
		unsigned room) must_check;
