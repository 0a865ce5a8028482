/* snapshot.h: a machine that was saved: a file of its state, a file of its memory. */
#pragma once
#include "vmm/machine.h"

/*
 * The state file is a device tree (core/state.h) with a trailer of 64 bytes: magic,
 * version, the snapshot's id and a checksum.  The memory file is RAM, page by page,
 * with holes for zeroes, and the id after it.
 */
struct snapshot;

/*
 * Of a paused machine.  Each file appears under its name only when it is whole and on
 * the disk, the state last; what was there is replaced.
 */
int  snapshot_save(struct machine *, const char *state_path, const char *memory_path,
		   struct err *) must_check;

/* Both files are checked as far as that can be without reading all of memory. */
int  snapshot_open(struct snapshot **, const char *state_path, const char *memory_path,
		   struct err *) must_check;
void snapshot_close(struct snapshot *);			/* NULL is allowed */
/* How its machine was made, into a config after config_init. */
int  snapshot_config(struct snapshot *, struct config *, struct err *) must_check;
/* For machine.c. */
int  snapshot_load(struct snapshot *, struct machine *, struct err *) must_check;
int  snapshot_mem_fd(const struct snapshot *);
