/* runtime.h: the directory of what runs on this host. */
#pragma once
#include <stddef.h>
#include "vmm/core/base.h"

/*
 * PART of it: $VMM_RUNTIME_DIR, else /run/vmm for root, else $XDG_RUNTIME_DIR/vmm.
 * False: there is no place for one, or its path is too long.  It need not be there.
 */
bool runtime_dir(char *path, size_t room, const char *part);
