/* snapshot.h: a machine that was saved: a file of its state, a file of its memory. */
#pragma once
#include "vmm/machine.h"

/*
 * The state file is a device tree (core/state.h) with a trailer of 64 bytes: magic,
 * version, the snapshot's id and a checksum.  The memory file is RAM, page by page,
 * with holes for zeroes, and the id where no guest has anything.  That of a diff has only
 * the pages that were written to since the snapshot before, and behind them a map of them
 * and both ids; merged with that one it is a whole memory file.
 */
enum { SNAPSHOT_ID_LEN = 16, SNAPSHOT_VERSION = 1 };
struct snapshot;

/*
 * Of a paused machine.  Each file appears under its name only when it is whole and on
 * the disk, the state last; what was there is replaced, and until then kept beside the
 * new memory, where snapshot_open finds it.  A diff of one that was neither
 * saved before nor made from a snapshot is a whole one.  bases: each disk has just had a
 * snapshot taken, which is what the saved machine goes on from.
 */
int  snapshot_save(struct machine *, const char *state_path, const char *memory_path,
		   bool diff, bool bases, struct err *) must_check;
/*
 * The same into a directory, which is made: state, memory, and a snapshot of each disk
 * that can be written to, named after the directory.  Whoever is made from it gets
 * deltas of these.
 */
int  snapshot_save_directory(struct machine *, const char *dir, bool diff, struct err *) must_check;
/* For one: a new directory, or an own one that has none, nor a file of another kind in its place. */
int  snapshot_make_directory(const char *dir, bool *made, struct err *) must_check;
/* Of its name: without the slashes at its end, as completion leaves them; "/" is one itself. */
size_t snapshot_directory_len(const char *dir);
/*
 * Of a machine that was made from the snapshot in dir: which pages it has needed until
 * now, as dir/memory.working-set.  Whoever is made from that memory file later has
 * these read in while it starts.
 */
int  snapshot_save_working_set(struct machine *, const char *dir, struct err *) must_check;
/* base with diff's pages, as a new file out. */
int  snapshot_merge_memory(const char *base, const char *diff, const char *out,
			   struct err *) must_check;

/* A state that is whole, as a new file. */
int  snapshot_copy_state(const char *from, const char *to, struct err *) must_check;

/* Both files are checked as far as that can be without reading all of memory. */
int  snapshot_open(struct snapshot **, const char *state_path, const char *memory_path,
		   struct err *) must_check;
/* Those that snapshot_save_directory made. */
int  snapshot_open_directory(struct snapshot **, const char *dir, struct err *) must_check;
/* The memory is what the page fault handler at socket has (core/pager.h), unchecked. */
int  snapshot_open_paged(struct snapshot **, const char *state_path, const char *socket,
			 struct err *) must_check;
/* Whether the state alone is one: whole, and of SNAPSHOT_VERSION. */
int  snapshot_check_state(const char *state_path, struct err *) must_check;
void snapshot_close(struct snapshot *);			/* NULL is allowed */
struct snapshot_info {
	u8 id[SNAPSHOT_ID_LEN];
	u64 mem_size;
	bool diff;		/* memory is a diff */
	bool paged;		/* by a page fault handler */
	u8 base[SNAPSHOT_ID_LEN];
};
struct snapshot_info snapshot_info(const struct snapshot *);
/* For who is to run it: a diff alone cannot be. */
int  snapshot_refuse_diff(const struct snapshot *, struct err *) must_check;
/* What such a one writes is none of its files. */
int  snapshot_check_files(const struct snapshot *, const struct config *, struct err *) must_check;
/* How its machine was made, into a config after config_init. */
int  snapshot_config(struct snapshot *, struct config *, struct err *) must_check;
/* For machine.c. */
int  snapshot_load(struct snapshot *, struct machine *, struct err *) must_check;
int  snapshot_make_mem(const struct snapshot *, struct mem **, struct err *) must_check;
