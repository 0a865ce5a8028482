/*
 * mem.h: physical addresses as pointers. The first 4 GiB are mapped from the start; what lies
 * higher is mapped when asked for.
 *
 * Spec: Intel SDM vol. 3, 4.5 (4-level paging).
 */
#ifndef GUEST_LIB_MEM_H
#define GUEST_LIB_MEM_H

#include "guest/lib/io.h"

/* Makes addr, and the rest of its GiB, accessible: below 512 GiB. Returns addr. */
u64 mem_map(u64 addr);

static inline void *mem_at(u64 addr)
{
	return (void *)(uintptr_t)addr;
}

static inline u64 mem_addr(const volatile void *p)
{
	return (uintptr_t)p;
}

#endif
