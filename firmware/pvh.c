/* pvh.c: ELF files with a PVH entry (Xen's x86/HVM direct boot ABI). */
#include <elf.h>
#include <errno.h>
#include <string.h>
#include "firmware/layout.h"
#include "firmware/loader.h"

enum { NOTE_PHYS32_ENTRY = 18, MAX_PHDRS = 128 };

#define START_MAGIC	0x336ec578U

struct start_info {
	u32 magic, version, flags, nr_modules;
	u64 modlist, cmdline, rsdp, memmap;
	u32 memmap_entries, reserved;
};
struct module {
	u64 addr, size, cmdline, reserved;
};
struct memmap_entry {
	u64 addr, size;
	u32 type, reserved;
};
_Static_assert(sizeof(struct start_info) == 56, "PVH: struct hvm_start_info");
_Static_assert(sizeof(struct module) == 32, "PVH: struct hvm_modlist_entry");
_Static_assert(sizeof(struct memmap_entry) == 24, "PVH: struct hvm_memmap_table_entry");

bool pvh_probe(const struct boot_file *f)
{
	return f->size >= SELFMAG && !memcmp(f->map, ELFMAG, SELFMAG);
}

static int check_header(const struct boot_file *f, Elf64_Ehdr *e, struct err *err)
{
	u64 end;

	if (f->size < sizeof(*e))
		return err_set(err, -ENOEXEC, "kernel: truncated: an ELF file whose header is cut off");
	memcpy(e, f->map, sizeof(*e));
	if (e->e_ident[EI_CLASS] != ELFCLASS64 || e->e_ident[EI_DATA] != ELFDATA2LSB ||
	    e->e_machine != EM_X86_64)
		return err_set(err, -ENOEXEC, "kernel: an ELF file, but not for x86-64");
	if (e->e_phentsize != sizeof(Elf64_Phdr) || !e->e_phnum || e->e_phnum > MAX_PHDRS)
		return err_set(err, -ENOEXEC, "kernel: an ELF file without program headers: not an "
			       "executable");
	if (add_overflows(e->e_phoff, e->e_phnum * sizeof(Elf64_Phdr), &end) || end > f->size)
		return err_set(err, -ENOEXEC, "kernel: truncated: its program headers are cut off");
	return 0;
}

static int check_segment(const struct boot_file *f, const Elf64_Phdr *p, struct err *err)
{
	u64 end;

	if (add_overflows(p->p_offset, p->p_filesz, &end) || end > f->size)
		return err_set(err, -ENOEXEC, "kernel: truncated: a segment ends at %#llx, the file "
			       "at %#llx", (unsigned long long)end, (unsigned long long)f->size);
	if (p->p_type == PT_LOAD && (p->p_filesz > p->p_memsz || p->p_paddr < LAYOUT_HIGH ||
				     add_overflows(p->p_paddr, p->p_memsz, &end)))
		return err_set(err, -ENOEXEC, "kernel: a segment of %#llx bytes at %#llx cannot be "
			       "loaded", (unsigned long long)p->p_memsz,
			       (unsigned long long)p->p_paddr);
	return 0;
}

/* Look through one note segment for the entry; 0: it is not there. */
static u64 find_entry(const u8 *at, u64 len)
{
	while (len >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr n;
		u64 name, desc, size;

		memcpy(&n, at, sizeof(n));
		name = ALIGN_UP((u64)n.n_namesz, 4);
		desc = ALIGN_UP((u64)n.n_descsz, 4);
		size = sizeof(n) + name + desc;
		if (size > len)
			return 0;
		if (n.n_type == NOTE_PHYS32_ENTRY && n.n_namesz == 4 && n.n_descsz >= 4 &&
		    !memcmp(at + sizeof(n), "Xen", 4)) {
			u32 entry;

			memcpy(&entry, at + sizeof(n) + name, sizeof(entry));
			return entry;
		}
		at += size;
		len -= size;
	}
	return 0;
}

static int put_start_info(struct boot_context *c)
{
	u64 at = LAYOUT_START_INFO + sizeof(struct start_info);
	struct boot_range map[BOOT_MAP_MAX];
	unsigned nr = boot_memory_map(c, map);
	struct module module = { .addr = c->initrd_addr, .size = c->initrd.size };
	struct start_info info = {
		.magic = START_MAGIC, .version = 1,
		.cmdline = LAYOUT_CMDLINE, .rsdp = c->rsdp,
		.modlist = c->initrd.size ? at : 0, .nr_modules = c->initrd.size ? 1 : 0,
		.memmap = at + sizeof(module), .memmap_entries = nr,
	};
	int rc = mem_write_obj(c->mem, GPA(LAYOUT_START_INFO), &info);

	rc |= mem_write_obj(c->mem, GPA(at), &module);
	for (unsigned i = 0; i < nr; i++) {
		struct memmap_entry e = { map[i].addr, map[i].len, map[i].type, 0 };

		rc |= mem_write_obj(c->mem, GPA(info.memmap + i * sizeof(e)), &e);
	}
	return rc;
}

int pvh_load(struct boot_context *c, struct cpu_start *start, struct err *err)
{
	const struct boot_file *f = &c->kernel;
	u64 from = ~0ULL, to = 0, entry = 0;
	Elf64_Ehdr e;
	int rc = check_header(f, &e, err);

	if (rc)
		return rc;
	for (unsigned i = 0; i < e.e_phnum && !rc; i++) {
		Elf64_Phdr p;

		memcpy(&p, f->map + e.e_phoff + i * sizeof(p), sizeof(p));
		if (p.p_type != PT_LOAD && p.p_type != PT_NOTE)
			continue;
		rc = check_segment(f, &p, err);
		if (!rc && p.p_type == PT_NOTE && !entry)
			entry = find_entry(f->map + p.p_offset, p.p_filesz);
		if (rc || p.p_type != PT_LOAD || !p.p_memsz)
			continue;
		if (p.p_paddr + p.p_memsz > boot_low_end(c))
			return err_set(err, -E2BIG, "kernel: a segment ends at %llu MiB, the guest has "
				       "%llu MiB; give it more with --mem",
				       (unsigned long long)((p.p_paddr + p.p_memsz + MIB - 1) >> 20),
				       (unsigned long long)(mem_size(c->mem) >> 20));
		/* The part without bytes in the file is zero, as fresh memory is. */
		rc = boot_copy(c, f, p.p_offset, p.p_filesz, p.p_paddr, err);
		from = MIN(from, p.p_paddr);
		to = MAX(to, p.p_paddr + p.p_memsz);
	}
	if (rc)
		return rc;
	if (!entry)
		return err_set(err, -ENOEXEC, "kernel: an ELF file without a PVH entry; Linux has one "
			       "when built with CONFIG_PVH");
	if (entry < from || entry >= to)
		return err_set(err, -ENOEXEC, "kernel: its PVH entry %#llx lies outside of it",
			       (unsigned long long)entry);
	rc = boot_load_initrd(c, 4 * GIB, from, to, err);
	if (!rc)
		rc = boot_put_cmdline(c, LAYOUT_CMDLINE_MAX, err);
	if (rc)
		return rc;
	if (put_start_info(c))
		return err_set(err, -E2BIG, "kernel: the guest has no memory for its tables");
	start->mode = CPU_PROTECTED;
	start->rip = entry;
	start->rbx = LAYOUT_START_INFO;
	return 0;
}
