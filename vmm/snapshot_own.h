/* snapshot_own.h: the files of a snapshot (see snapshot.h), for those that write, read and merge them. */
#pragma once
#include "firmware/layout.h"
#include "vmm/snapshot.h"

enum { ID_LEN = SNAPSHOT_ID_LEN };

/* After the name of the memory file. */
#define WORKING_SET	".working-set"

static const char state_magic[8] = "VMMSTATE", mem_magic[8] = "VMM-RAM", diff_magic[8] = "VMM-DIFF";
static const char set_magic[8] = "VMM-WSET";

struct trailer {
	char magic[8];
	u32 version, crc;		/* little-endian; of the tree and of what stands above */
	u64 mem_size;
	u8 id[ID_LEN];
	u8 reserved[24];
};
_Static_assert(sizeof(struct trailer) == 64, "trailer");

/* Says which memory a file has: of a diff its last bytes, of all RAM at LAYOUT_SNAPSHOT of it, as
 * others' page fault handlers know files of RAM and nothing else.  Files that the first versions
 * wrote have that behind RAM, too. */
struct mem_trailer {
	char magic[8];
	u64 size, map_len;		/* of RAM, of a diff's map after it; little-endian */
	u8 id[ID_LEN], base[ID_LEN];
};
_Static_assert(LAYOUT_SNAPSHOT + sizeof(struct mem_trailer) <= LAYOUT_GENERATION_ID, "no room for it");

/* In front of a working set's bits. */
struct set_header {
	char magic[8];
	u64 size;			/* of RAM, little-endian */
	u8 id[ID_LEN];
};

struct snapshot {
	char *state_path, *mem_path;	/* without mem_fd: the handler's socket */
	void *tree;
	size_t tree_len;
	int mem_fd;
	struct trailer trailer;
	struct mem_trailer mem_trailer;
};

/* Of the tree and of the trailer, but for crc itself. */
u32 snapshot_checksum(const void *tree, size_t len, const struct trailer *);
/* The state, checked; to be closed after an error, too. */
int snapshot_open_state(struct snapshot **, const char *path, const char *mem_path,
			struct err *) must_check;
/* Both, as they are named; see snapshot_open. */
int snapshot_open_pair(struct snapshot **, const char *state_path, const char *memory_path,
		       struct err *) must_check;
/* What it is, and whether it has the size for that; *fd, if not negative, is to be closed
 * after an error, too. */
int snapshot_open_memory(const char *path, int *fd, struct mem_trailer *, struct err *) must_check;

/* RAM, the first size bytes of both; holes stay holes where the file system tells them. */
int snapshot_copy_ram(int from, int to, u64 size) must_check;

/*
 * A file that appears under its name only when it is whole.  Until then it is a hidden one beside that,
 * which the next one of that name removes if nobody holds it any more, or is refused.  Errors begin with "snapshot PATH".
 */
struct new_file {
	const char *path;		/* the caller's */
	char *temp;			/* NULL: it has its name */
	char *aside;			/* the name, hidden too, of what it takes the place of... */
	bool is_aside, replaces;	/* ...which is there, unless the file system has no links */
	int fd;				/* -1: there is none */
};
/* Where what a file of that name was is found while it is replaced; to be freed.  NULL: no memory. */
char *new_file_aside(const char *path);
/* However their paths are written, one would take the other's place. */
int  new_file_check_apart(const char *one, const char *other, struct err *) must_check;
int  new_file_open(struct new_file *, const char *path, struct err *) must_check;
int  new_file_sync(const struct new_file *, struct err *) must_check;
/* What has been written and synced, under its name; what was there is set aside. */
int  new_file_keep(struct new_file *, struct err *) must_check;
/* failed: under its name is what was there before, or nothing. */
void new_file_drop(struct new_file *, bool failed);
