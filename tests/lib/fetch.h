/* fetch.h: guest memory that changes between two reads of it, as another vCPU may have it. */
#pragma once
#include "vmm/core/base.h"

/*
 * The page around `at` is watched, and nobody but this thread may touch it.  When so many
 * instructions have read from it or written to it as `after` says, the len bytes at `at` are
 * replaced.  One page at a time, and not by system calls, which fail there.
 */
void fetch_begin(void *at, const void *replacement, size_t len, unsigned after);
/* How many instructions there were: fewer than `after`, and nothing was replaced. */
unsigned fetch_end(void);
