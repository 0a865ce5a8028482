/* pack.h: compressed clusters; the libraries are loaded on first use. */
#pragma once
#include "vmm/core/base.h"

/* Now, for one that may open no library later.  One that is not there is told of when it is missed. */
void pack_load(bool zstd);
/* All of `to` is filled, or -EIO; -ENOTSUP without the library (logged once). */
int unpack(bool zstd, const void *from, size_t from_len, void *to, size_t to_len) must_check;
/* At most to_len bytes; 0: it does not fit. */
size_t pack(bool zstd, const void *from, size_t from_len, void *to, size_t to_len) must_check;
