/* gdb_registers.h: the registers as GDB numbers them, and as it is told so. */
#pragma once
#include "vmm/core/cpu_debug.h"

extern const char gdb_target_xml[];

/* Where register nr lies in struct cpu_registers; len 0: there is none. */
struct gdb_register { size_t offset, len; };
struct gdb_register gdb_register(u64 nr);
