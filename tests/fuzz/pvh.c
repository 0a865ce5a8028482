/*
 * pvh.c: an ELF file that is made up.  It is refused with a reason, or its segments,
 * the initrd and the command line are in the guest's memory, whole and apart, nothing
 * else is, and it starts at an address of its own.
 */
#include <elf.h>
#include <string.h>
#include "firmware/layout.h"
#include "tests/fuzz/lib/booted.h"

enum { CODE = 0x200, CODE_LEN = 0x600, NOTE = 0x180, PHDRS = 4, LEN = CODE + CODE_LEN };

struct kernel {
	Elf64_Ehdr e;
	Elf64_Phdr p[PHDRS];
};
_Static_assert(sizeof(struct kernel) <= NOTE, "the headers are before the note");

static const u8 *sound_kernel(void)
{
	static u8 file[LEN];
	struct kernel *k = (void *)file;
	Elf64_Nhdr n = { .n_namesz = 4, .n_descsz = 8, .n_type = 18 };
	u64 entry = LAYOUT_HIGH + 0x1000, half = CODE_LEN / 2;

	if (file[CODE])
		return file;
	k->e = (Elf64_Ehdr){ .e_machine = EM_X86_64, .e_phoff = sizeof(Elf64_Ehdr),
			     .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = PHDRS };
	memcpy(k->e.e_ident, ELFMAG "\2\1\1", 7);
	k->p[0] = (Elf64_Phdr){ .p_type = PT_LOAD, .p_offset = CODE, .p_filesz = half,
				.p_memsz = half, .p_paddr = entry };
	k->p[1] = (Elf64_Phdr){ .p_type = PT_NOTE, .p_offset = NOTE, .p_filesz = 24 };
	k->p[2] = (Elf64_Phdr){ .p_type = PT_LOAD, .p_offset = CODE + half, .p_filesz = half,
				.p_memsz = 0x3000, .p_paddr = entry + 0x2000 };
	memcpy(file + NOTE, &n, sizeof(n));
	memcpy(file + NOTE + sizeof(n), "Xen", 4);
	memcpy(file + NOTE + sizeof(n) + 4, &entry, sizeof(entry));
	for (int i = CODE; i < LEN; i++)
		file[i] = 1 + i % 251;
	return file;
}

static bool meet(u64 a, u64 a_len, u64 b, u64 b_len)
{
	return a < b + b_len && b < a + a_len;
}

/* Xen's start_info, its modules and its memory map. */
static void check_info(struct booted *b, u64 *initrd)
{
	struct { u32 magic, version, flags, nr_modules; u64 modules, cmdline, rsdp, map;
		 u32 nr_ranges, zero; } info;
	struct { u64 addr, size, cmdline, zero; } module = { 0 };
	struct { u64 addr, size; u32 type, zero; } range[16];
	u64 map[16][3];

	booted_copy(b, b->start.rbx, &info, sizeof(info));
	fuzz_check(info.magic == 0x336ec578 && info.version == 1, "no start_info");
	fuzz_check(info.nr_modules == !!b->initrd_len, "%u modules", info.nr_modules);
	if (info.nr_modules)
		booted_copy(b, info.modules, &module, sizeof(module));
	fuzz_check(module.size == b->initrd_len, "initrd: %llu bytes",
		   (unsigned long long)module.size);
	fuzz_check(!strcmp((char *)b->ram + info.cmdline, b->cmdline), "another command line");
	fuzz_check(info.nr_ranges <= 16, "%u ranges", info.nr_ranges);
	booted_copy(b, info.map, range, info.nr_ranges * sizeof(range[0]));
	for (u32 i = 0; i < info.nr_ranges; i++) {
		map[i][0] = range[i].addr;
		map[i][1] = range[i].size;
		map[i][2] = range[i].type;
	}
	booted_check_map(b, (const u64 (*)[3])map, info.nr_ranges);
	*initrd = module.addr;
}

static void check(struct booted *b)
{
	u64 entry = b->start.rip, initrd;
	bool inside = false;
	Elf64_Ehdr e;

	memcpy(&e, b->file, sizeof(e));
	check_info(b, &initrd);
	for (int i = 0; i < e.e_phnum && b->nr_places < 12; i++) {
		Elf64_Phdr p;

		fuzz_check(e.e_phoff + (i + 1) * sizeof(p) <= b->file_len, "headers beyond the file");
		memcpy(&p, b->file + e.e_phoff + i * sizeof(p), sizeof(p));
		if (p.p_type != PT_LOAD || !p.p_memsz)
			continue;
		fuzz_check(p.p_filesz <= p.p_memsz && p.p_offset + p.p_filesz <= b->file_len &&
			   p.p_memsz <= b->mem_len, "segment %d is not in the file", i);
		booted_expect(b, p.p_paddr, b->file + p.p_offset, p.p_filesz, LAYOUT_HIGH,
			      b->mem_len);
		fuzz_check(p.p_paddr + p.p_memsz <= b->mem_len, "segment %d does not fit", i);
		inside |= entry >= p.p_paddr;
		fuzz_check(!b->initrd_len || !meet(p.p_paddr, p.p_memsz, initrd, b->initrd_len),
			   "the initrd is over segment %d", i);
	}
	fuzz_check(inside, "it starts at %#llx, below itself", (unsigned long long)entry);
	if (b->initrd_len)
		booted_expect(b, initrd, b->initrd, b->initrd_len, LAYOUT_HIGH, b->mem_len);
}

void fuzz_one(struct fuzz *f)
{
	bool raw;
	struct booted *b = booted_new(f, sound_kernel(), LEN, 0, &raw);

	if (b->file_len < 4 || memcmp(b->file, ELFMAG, SELFMAG))
		return;
	if (booted_load(b)) {
		check(b);
		booted_end(b);
	}
}
