/*
 * bzimage.c: a bzImage that is made up.  It is refused with a reason, or kernel, initrd
 * and command line are where its header wants them, apart from each other, whole, and
 * nothing else is in the guest's memory.
 */
#include <asm/bootparam.h>
#include <string.h>
#include "firmware/layout.h"
#include "tests/fuzz/lib/booted.h"

enum { HEADER = 0x1f1, SETUP = 0x400, CODE = 0x900, LEN = SETUP + CODE };

static const u8 *sound_kernel(void)
{
	static u8 file[LEN];
	struct setup_header *h = (void *)(file + HEADER);

	if (file[SETUP])
		return file;
	*h = (struct setup_header){
		.setup_sects = 1, .boot_flag = 0xaa55, .jump = 0x66eb, .header = 0x53726448,
		.version = 0x20f, .loadflags = LOADED_HIGH, .syssize = CODE / 16,
		.initrd_addr_max = 0x7fffffff, .kernel_alignment = 0x10000,
		.relocatable_kernel = 1, .xloadflags = XLF_KERNEL_64, .cmdline_size = 2047,
		.pref_address = LAYOUT_HIGH + 0x10000, .init_size = 0x8000,
	};
	for (int i = SETUP; i < LEN; i++)
		file[i] = 1 + i % 251;
	return file;
}

static void check(struct booted *b)
{
	u64 range[E820_MAX_ENTRIES_ZEROPAGE][3], code, code_len, load, need, top;
	struct setup_header h = { 0 };
	struct boot_params p;

	booted_copy(b, b->start.rsi, &p, sizeof(p));
	/* As long as its jump says. */
	memcpy(&h, b->file + HEADER, MIN(0x202 - HEADER + b->file[0x201], (int)sizeof(h)));
	code = 512 * (1 + (h.setup_sects ? h.setup_sects : 4));
	code_len = MIN(h.syssize * 16ULL, b->file_len - code);
	load = p.hdr.code32_start;
	need = h.version >= 0x20a ? MAX(code_len, h.init_size) : code_len;
	fuzz_check(b->start.mode == CPU_LONG ? b->start.rip == load + 0x200 : b->start.rip == load,
		   "it starts at %#llx, but is at %#llx", (unsigned long long)b->start.rip,
		   (unsigned long long)load);
	fuzz_check(need <= b->mem_len - load, "%#llx bytes do not fit from %#llx",
		   (unsigned long long)need, (unsigned long long)load);
	booted_expect(b, load, b->file + code, code_len, LAYOUT_HIGH, b->mem_len);
	fuzz_check(p.hdr.ramdisk_size == b->initrd_len, "initrd: %u bytes", p.hdr.ramdisk_size);
	if (b->initrd_len) {
		top = MIN(b->mem_len, h.initrd_addr_max + 1ULL);
		booted_expect(b, p.hdr.ramdisk_image, b->initrd, b->initrd_len, LAYOUT_HIGH, top);
		fuzz_check(p.hdr.ramdisk_image >= load + need ||
			   p.hdr.ramdisk_image + b->initrd_len <= load, "initrd over the kernel");
	}
	fuzz_check(!strcmp((char *)b->ram + p.hdr.cmd_line_ptr, b->cmdline), "another command line");
	fuzz_check(strlen(b->cmdline) <= h.cmdline_size, "a command line longer than %u",
		   h.cmdline_size);
	fuzz_check(p.e820_entries <= E820_MAX_ENTRIES_ZEROPAGE, "%u ranges", p.e820_entries);
	for (int i = 0; i < p.e820_entries; i++) {
		range[i][0] = p.e820_table[i].addr;
		range[i][1] = p.e820_table[i].size;
		range[i][2] = p.e820_table[i].type;
	}
	booted_check_map(b, (const u64 (*)[3])range, p.e820_entries);
}

void fuzz_one(struct fuzz *f)
{
	bool raw;
	struct booted *b = booted_new(f, sound_kernel(), LEN, HEADER, &raw);

	if (raw && b->file_len >= 4 && !memcmp(b->file, "\177ELF", 4))
		return;
	if (booted_load(b)) {
		check(b);
		booted_end(b);
	}
}
