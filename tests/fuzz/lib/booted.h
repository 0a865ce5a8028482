/* booted.h: for fuzzers: load a kernel made up, and look at what is in the guest's memory then. */
#pragma once
#include "firmware/boot.h"
#include "tests/fuzz/lib/fuzz.h"

enum { BOOTED_FILE_MAX = 0x4000, BOOTED_MEM_MAX = 8 << 20 };

struct booted {
	u8 file[BOOTED_FILE_MAX];
	size_t file_len;
	u8 initrd[BOOTED_FILE_MAX];
	size_t initrd_len;
	char cmdline[256];
	struct boot_machine machine;
	struct mem *mem;
	u64 mem_len;
	u8 *ram;
	struct cpu_start start;
	/* Where something may be, and what must be there. */
	u8 expected[BOOTED_MEM_MAX];
	struct { u64 from, to; } place[16];
	int nr_places;
};

/* A kernel that is sound (or, raw: anything), changed here and there, cut short; an initrd,
 * a command line and a machine, all as the input says. */
struct booted *booted_new(struct fuzz *, const void *sound, size_t len, size_t header, bool *raw);
/* Load it.  False: it was refused, and why; then all is over. */
bool booted_load(struct booted *);
/* The file's bytes [offset, offset+len) are to be at addr, inside [from, to). */
void booted_expect(struct booted *, u64 addr, const u8 *bytes, u64 len, u64 from, u64 to);
void booted_copy(struct booted *, u64 addr, void *to, size_t len);
/* A table of ranges: in order, apart, RAM where RAM is, and not over what is reserved. */
void booted_check_map(struct booted *, const u64 (*range)[3], unsigned nr);
/* All that is expected is there, and nothing else but firmware's tables. */
void booted_end(struct booted *);
