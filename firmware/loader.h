/* loader.h: what the loaders of boot.c share. */
#pragma once
#include "firmware/boot.h"

/* A file to load: mapped for looking at, read from its fd into guest memory. */
struct boot_file {
	const char *what;		/* "kernel" */
	int fd;
	const u8 *map;
	u64 size;
};

struct boot_context {
	struct mem *mem;
	const struct boot_machine *machine;
	struct boot_file kernel, initrd;	/* initrd.size 0: none */
	const char *cmdline;
	u64 initrd_addr;			/* where load_initrd put it */
	u64 rsdp;
};

/* file[offset, offset+len) to guest memory at addr; the range was checked. */
int boot_copy(struct boot_context *, const struct boot_file *, u64 offset, u64 len, u64 addr,
	      struct err *) must_check;

/* The initrd as high as it goes below limit, outside [from, to) of the kernel. */
int boot_load_initrd(struct boot_context *, u64 limit, u64 from, u64 to, struct err *) must_check;
int boot_put_cmdline(struct boot_context *, u64 max, struct err *) must_check;
int boot_put_gdt(struct mem *) must_check;
int boot_put_page_tables(struct mem *) must_check;	/* at LAYOUT_PAGE_TABLES */
u64 boot_low_end(const struct boot_context *);		/* of RAM below 4 GiB */

/* The memory map, for e820 and PVH alike: their types have the same numbers. */
enum { BOOT_RAM = 1, BOOT_RESERVED = 2, BOOT_MAP_MAX = 8 };
struct boot_range {
	u64 addr, len;
	u32 type;
};
unsigned boot_memory_map(const struct boot_context *, struct boot_range[BOOT_MAP_MAX]);

/* The loaders: true if the file is theirs to load or refuse. */
bool bzimage_probe(const struct boot_file *);
int  bzimage_load(struct boot_context *, struct cpu_start *, struct err *) must_check;
bool pvh_probe(const struct boot_file *);
int  pvh_load(struct boot_context *, struct cpu_start *, struct err *) must_check;
