/* thread.h: what every thread of a VM does first. */
#pragma once

enum thread_kind {
	THREAD_CONTROL,			/* the one that main() began on */
	THREAD_VCPU,
	THREAD_IO,			/* of the devices in common, or a card's own */
	THREAD_DISK,			/* a disk's own */
	THREAD_POOL,
	THREAD_KINDS
};

/*
 * By the new thread itself, before anything else: it has this name, of at most 15
 * characters, and can do what its kind is for and no more, if a sandbox was set.
 */
void thread_begin(enum thread_kind, const char *name);
/* Before there are others.  enter: run by each that begins; NULL: nothing is. */
void thread_set_sandbox(void (*enter)(enum thread_kind));
