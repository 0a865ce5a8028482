/* pack.h: compressed clusters. */
#pragma once
#include "vmm/core/base.h"

/* All of `to` is filled, or -EIO. */
int unpack(bool zstd, const void *from, size_t from_len, void *to, size_t to_len) must_check;
/* At most to_len bytes; 0: it does not fit. */
size_t pack(bool zstd, const void *from, size_t from_len, void *to, size_t to_len) must_check;
