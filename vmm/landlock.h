/* landlock.h: which files a thread may open by path, by the kernel's Landlock. */
#pragma once
#include "vmm/core/base.h"
#include "vmm/core/err.h"

/* The version of its interface; 0: this kernel has none, or it is switched off. */
int landlock_abi(void);

/* As <linux/landlock.h> numbers them; what this kernel does not know is left out. */
enum landlock_access {
	LANDLOCK_EXECUTE = 1 << 0, LANDLOCK_WRITE = 1 << 1 | 1 << 14, LANDLOCK_READ = 1 << 2 | 1 << 3,
	LANDLOCK_REMOVE = 1 << 5, LANDLOCK_MAKE_DEVICE = 1 << 6 | 1 << 11, LANDLOCK_DEVICE_IOCTL = 1 << 15,
	LANDLOCK_ALL = 0xffff,
};

/*
 * A set of rules, by which nothing of handled is allowed, nor, from version 6 on, the abstract sockets of who does not
 * keep to it: a descriptor, or -errno.
 */
int landlock_new(u32 handled) must_check;
/* But this is, for the file, or all below the directory; one that is not there needs none. */
void landlock_allow(int rules, const char *path, u32 access);
/* The calling thread, and those that it makes, from now on; no_new_privs is set. */
int landlock_enter(int rules) must_check;
