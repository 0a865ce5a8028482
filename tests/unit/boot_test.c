/* boot_test.c: kernels made by hand, good and broken, and what is loaded of them. */
#include <asm/bootparam.h>
#include <elf.h>
#include <sys/mman.h>
#include "firmware/boot.h"
#include "firmware/layout.h"
#include "tests/lib/test.h"

enum { SETUP = 0x400, CODE = 0x3000, FILE_LEN = SETUP + CODE };	/* one setup sector */
#define MEM_LEN	(32 * MIB)

struct fixture {
	struct mem *mem;
	struct boot_machine machine;
	struct cpu_start start;
	struct err err;
	u8 file[FILE_LEN];
	struct setup_header *hdr;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	assert_int_equal(mem_new(&f->mem, MEM_LEN, false, NULL), 0);
	f->machine = (struct boot_machine){
		.nr_cpus = 1, .has_pci = true, .pci_ecam = LAYOUT_PCI_ECAM,
		.pci_ecam_len = 1 << 20,
	};
	for (unsigned i = SETUP; i < FILE_LEN; i++)
		f->file[i] = i * 7 + (i >> 8);
	f->hdr = (void *)(f->file + 0x1f1);
	*f->hdr = (struct setup_header){
		.setup_sects = 1, .boot_flag = 0xaa55, .jump = 0x66eb, .header = 0x53726448,
		.version = 0x20f, .loadflags = LOADED_HIGH, .syssize = CODE / 16,
		.initrd_addr_max = 0x7fffffff, .kernel_alignment = 2 * MIB,
		.relocatable_kernel = 1, .xloadflags = XLF_KERNEL_64, .cmdline_size = 2047,
		.pref_address = 16 * MIB, .init_size = 4 * MIB,
	};
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	mem_free(f->mem);
	free(f);
	return 0;
}

static int file_of(const void *data, size_t len)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), len);
	return fd;
}

static void new_mem(struct fixture *f, u64 len)
{
	mem_free(f->mem);
	assert_int_equal(mem_new(&f->mem, len, false, NULL), 0);
}

static int load_bytes(struct fixture *f, const void *kernel, size_t len, const void *initrd,
		      size_t initrd_len, const char *cmdline)
{
	int k = file_of(kernel, len), i = initrd ? file_of(initrd, initrd_len) : -1, rc;

	memset(&f->err, 0, sizeof(f->err));
	rc = boot_load(f->mem, &f->machine, k, i, cmdline, &f->start, &f->err);
	assert_int_equal(f->err.code, rc);
	assert_int_equal(rc != 0, f->err.msg[0] != 0);
	close(k);
	if (i >= 0)
		close(i);
	return rc;
}

static int load(struct fixture *f)
{
	return load_bytes(f, f->file, FILE_LEN, NULL, 0, "console=ttyS0");
}

static struct boot_params zero_page(struct fixture *f)
{
	struct boot_params p;

	assert_int_equal(mem_read_obj(f->mem, GPA(LAYOUT_ZERO_PAGE), &p), 0);
	return p;
}

static void code_is_at(struct fixture *f, u64 addr)
{
	u8 got[CODE];

	assert_int_equal(mem_read_obj(f->mem, GPA(addr), &got), 0);
	assert_memory_equal(got, f->file + SETUP, CODE);
}

/* --- bzImage ------------------------- */

static void test_64bit_entry(void **state)
{
	struct fixture *f = *state;
	u64 entry;

	assert_int_equal(load(f), 0);
	code_is_at(f, 16 * MIB);
	assert_int_equal(f->start.mode, CPU_LONG);
	assert_int_equal(f->start.rip, 16 * MIB + 0x200);
	assert_int_equal(f->start.rsi, LAYOUT_ZERO_PAGE);
	assert_int_equal(f->start.cr3, LAYOUT_PAGE_TABLES);
	assert_int_equal(f->start.gdt, LAYOUT_GDT);
	/* The kernel's own address, by the page tables: PML4, PDPT, PD. */
	assert_int_equal(mem_read_obj(f->mem, GPA(LAYOUT_PAGE_TABLES), &entry), 0);
	assert_int_equal(mem_read_obj(f->mem, GPA(entry & ~0xfffULL), &entry), 0);
	assert_int_equal(mem_read_obj(f->mem, GPA((entry & ~0xfffULL) + 8 * 8), &entry), 0);
	assert_int_equal(entry, 16 * MIB | 0x83);
	assert_int_equal(mem_read_obj(f->mem, GPA(LAYOUT_GDT + CPU_CODE), &entry), 0);
	assert_int_equal(entry, 0x00af9b000000ffff);
}

static void test_32bit_entry(void **state)
{
	struct fixture *f = *state;

	f->hdr->xloadflags = 0;
	assert_int_equal(load(f), 0);
	code_is_at(f, 16 * MIB);
	assert_int_equal(f->start.mode, CPU_PROTECTED);
	assert_int_equal(f->start.rip, 16 * MIB);
	assert_int_equal(f->start.rsi, LAYOUT_ZERO_PAGE);
}

static void test_oldest_protocol(void **state)
{
	struct fixture *f = *state;

	f->hdr->version = 0x206;
	f->hdr->relocatable_kernel = 0;
	assert_int_equal(load(f), 0);
	code_is_at(f, MIB);
	assert_int_equal(f->start.rip, MIB);
	assert_int_equal(f->start.mode, CPU_PROTECTED);
	f->hdr->version = 0x205;
	assert_int_equal(load(f), -ENOEXEC);
	assert_says(f->err.msg, "2.05");
}

static void test_refused_headers(void **state)
{
	struct fixture *f = *state;

	f->hdr->loadflags = 0;
	assert_int_equal(load(f), -ENOEXEC);
	assert_says(f->err.msg, "zImage");
	f->hdr->loadflags = LOADED_HIGH;
	f->hdr->syssize++;
	assert_int_equal(load(f), -ENOEXEC);
	assert_says(f->err.msg, "truncated");
	f->hdr->syssize = 0;
	assert_int_equal(load(f), -ENOEXEC);
	f->hdr->syssize = 0xffffffff;
	assert_int_equal(load(f), -ENOEXEC);
	f->hdr->syssize = CODE / 16;
	f->hdr->setup_sects = 255;
	assert_int_equal(load(f), -ENOEXEC);
	f->hdr->setup_sects = 1;
	f->hdr->header = 0;
	assert_int_equal(load(f), -ENOEXEC);
	assert_says(f->err.msg, "neither");
}

static void test_bad_alignment(void **state)
{
	static const u32 bad[] = { 0, 3, 0x1001, 0x80000000, 0xffffffff };
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		f->hdr->kernel_alignment = bad[i];
		assert_int_equal(load(f), -ENOEXEC);
		assert_says(f->err.msg, "alignment");
	}
}

static void test_truncated_everywhere(void **state)
{
	struct fixture *f = *state;

	for (size_t len = 0; len <= 600; len++) {
		int rc = load_bytes(f, f->file, len, NULL, 0, "");

		assert_int_equal(rc, len ? -ENOEXEC : -EINVAL);
	}
	assert_int_equal(load_bytes(f, f->file, FILE_LEN - 16, NULL, 0, ""), -ENOEXEC);
	/* syssize counts in 16 bytes: a file may end inside of the last. */
	assert_int_equal(load_bytes(f, f->file, FILE_LEN - 15, NULL, 0, ""), 0);
}

/* A kernel moves itself back up to where it prefers to be: lower is no way out. */
static void test_small_memory_is_refused(void **state)
{
	struct fixture *f = *state;

	new_mem(f, 16 * MIB);
	assert_int_equal(load(f), -E2BIG);
	assert_says(f->err.msg, "--mem");
	f->hdr->relocatable_kernel = 0;
	assert_int_equal(load(f), -E2BIG);
	assert_says(f->err.msg, "--mem");
}

static void test_init_size_too_large(void **state)
{
	struct fixture *f = *state;

	f->hdr->init_size = 16 * MIB;		/* fits from 16 MiB on, exactly */
	assert_int_equal(load(f), 0);
	assert_int_equal(f->start.rip, 16 * MIB + 0x200);
	f->hdr->init_size++;
	assert_int_equal(load(f), -E2BIG);
	f->hdr->init_size = 0xffffffff;
	assert_int_equal(load(f), -E2BIG);
	f->hdr->init_size = 4 * MIB;
	f->hdr->relocatable_kernel = 0;
	f->hdr->pref_address = ~0ULL;
	assert_int_equal(load(f), -E2BIG);
	f->hdr->pref_address = 0x1000;
	assert_int_equal(load(f), -E2BIG);
}

static void test_zero_page(void **state)
{
	struct fixture *f = *state;
	struct boot_params p;
	char cmdline[16];

	assert_int_equal(load(f), 0);
	p = zero_page(f);
	assert_int_equal(p.hdr.header, 0x53726448);
	assert_int_equal(p.hdr.type_of_loader, 0xff);
	assert_int_equal(p.hdr.cmd_line_ptr, LAYOUT_CMDLINE);
	assert_int_equal(p.hdr.ramdisk_size, 0);
	assert_int_equal(p.hdr.init_size, 4 * MIB);
	assert_int_equal(p.acpi_rsdp_addr, LAYOUT_ACPI);
	assert_int_equal(mem_read(f->mem, GPA(LAYOUT_CMDLINE), cmdline, 14), 0);
	assert_string_equal(cmdline, "console=ttyS0");
	assert_int_equal(p.e820_entries, 4);
	assert_int_equal(p.e820_table[0].addr, 0);
	assert_int_equal(p.e820_table[0].size, LAYOUT_LOW_END);
	assert_int_equal(p.e820_table[0].type, 1);
	assert_int_equal(p.e820_table[1].addr, LAYOUT_ACPI);
	assert_int_equal(p.e820_table[1].size, LAYOUT_ACPI_END - LAYOUT_ACPI);
	assert_int_equal(p.e820_table[1].type, 2);
	assert_int_equal(p.e820_table[2].addr, MIB);
	assert_int_equal(p.e820_table[2].size, MEM_LEN - MIB);
	assert_int_equal(p.e820_table[2].type, 1);
	assert_int_equal(p.e820_table[3].addr, LAYOUT_PCI_ECAM);
	assert_int_equal(p.e820_table[3].size, 1 << 20);
	assert_int_equal(p.e820_table[3].type, 2);
}

static void test_e820_of_large_memory(void **state)
{
	struct fixture *f = *state;
	struct boot_params p;

	f->machine.has_pci = false;
	new_mem(f, 5 * GIB);
	assert_int_equal(load(f), 0);
	p = zero_page(f);
	assert_int_equal(p.e820_entries, 4);
	assert_int_equal(p.e820_table[2].size, 3 * GIB - MIB);
	assert_int_equal(p.e820_table[3].addr, 4 * GIB);
	assert_int_equal(p.e820_table[3].size, 2 * GIB);
	assert_int_equal(p.e820_table[3].type, 1);
}

/* Header fields that the file's header does not have stay zero. */
static void test_short_header(void **state)
{
	struct fixture *f = *state;

	f->hdr->jump = 0x3eeb;	/* ends at 0x240, before xloadflags' successors */
	assert_int_equal(load(f), 0);
	assert_int_equal(zero_page(f).hdr.init_size, 0);
	assert_int_equal(zero_page(f).hdr.cmdline_size, 2047);
}

/* --- initrd and command line ------------------------- */

static void initrd_is_at(struct fixture *f, const u8 *initrd, size_t len, u64 want)
{
	struct boot_params p = zero_page(f);
	u8 *got = malloc(len);

	assert_int_equal(p.hdr.ramdisk_image, want);
	assert_int_equal(p.hdr.ramdisk_size, len);
	assert_int_equal(mem_read(f->mem, GPA(want), got, len), 0);
	assert_memory_equal(got, initrd, len);
	free(got);
}

static void test_initrd(void **state)
{
	struct fixture *f = *state;
	u8 initrd[5000];

	for (unsigned i = 0; i < sizeof(initrd); i++)
		initrd[i] = i * 3;
	assert_int_equal(load_bytes(f, f->file, FILE_LEN, initrd, sizeof(initrd), ""), 0);
	initrd_is_at(f, initrd, sizeof(initrd), MEM_LEN - 8192);
	/* The kernel says how high it may be... */
	f->hdr->initrd_addr_max = 24 * MIB - 1;
	assert_int_equal(load_bytes(f, f->file, FILE_LEN, initrd, sizeof(initrd), ""), 0);
	initrd_is_at(f, initrd, sizeof(initrd), 24 * MIB - 8192);
	/* ...and if that is inside of what it unpacks into, it goes below. */
	f->hdr->initrd_addr_max = 18 * MIB - 1;
	assert_int_equal(load_bytes(f, f->file, FILE_LEN, initrd, sizeof(initrd), ""), 0);
	initrd_is_at(f, initrd, sizeof(initrd), 16 * MIB - 8192);
	f->hdr->initrd_addr_max = 0;
	assert_int_equal(load_bytes(f, f->file, FILE_LEN, initrd, sizeof(initrd), ""), -E2BIG);
	assert_says(f->err.msg, "initrd");
}

static void test_initrd_too_large(void **state)
{
	struct fixture *f = *state;
	int k = file_of(f->file, FILE_LEN), i = file_of("x", 1);

	assert_int_equal(ftruncate(i, 16 * MIB), 0);
	assert_int_equal(boot_load(f->mem, &f->machine, k, i, "", &f->start, &f->err), -E2BIG);
	assert_int_equal(ftruncate(i, 64 * MIB), 0);
	assert_int_equal(boot_load(f->mem, &f->machine, k, i, "", &f->start, &f->err), -E2BIG);
	assert_int_equal(ftruncate(i, 0), 0);
	assert_int_equal(boot_load(f->mem, &f->machine, k, i, "", &f->start, &f->err), -EINVAL);
	assert_says(f->err.msg, "initrd: the file is empty");
	close(k);
	close(i);
}

static void test_cmdline_size(void **state)
{
	struct fixture *f = *state;

	f->hdr->cmdline_size = 10;
	assert_int_equal(load_bytes(f, f->file, FILE_LEN, NULL, 0, "0123456789"), 0);
	assert_int_equal(load_bytes(f, f->file, FILE_LEN, NULL, 0, "0123456789a"), -E2BIG);
	assert_says(f->err.msg, "cmdline");
}

static void test_not_a_file(void **state)
{
	struct fixture *f = *state;
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	assert_int_equal(boot_load(f->mem, &f->machine, fds[0], -1, "", &f->start, &f->err),
			 -EINVAL);
	assert_says(f->err.msg, "not a regular file");
	close(fds[0]);
	close(fds[1]);
}

static void test_too_little_memory(void **state)
{
	static const u64 len[] = { 4096, 64 * KIB, 512 * KIB, MIB, MIB + 4096, 2 * MIB };
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(len); i++) {
		new_mem(f, len[i]);
		assert_true(load(f) < 0);
	}
}

/* --- PVH ------------------------- */

struct elf {
	Elf64_Ehdr e;
	Elf64_Phdr load, note;
	struct {
		Elf64_Nhdr n;
		char name[4];
		u32 entry;
	} other, xen;
	u8 code[256];
};

static struct elf make_elf(void)
{
	struct elf f = {
		.e = { .e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, 1 },
		       .e_type = ET_EXEC, .e_machine = EM_X86_64, .e_version = 1,
		       .e_phoff = offsetof(struct elf, load), .e_phentsize = sizeof(Elf64_Phdr),
		       .e_phnum = 2, .e_ehsize = sizeof(Elf64_Ehdr) },
		.load = { .p_type = PT_LOAD, .p_offset = offsetof(struct elf, code),
			  .p_paddr = 2 * MIB, .p_filesz = 256, .p_memsz = 4096 },
		.note = { .p_type = PT_NOTE, .p_offset = offsetof(struct elf, other),
			  .p_filesz = 40 },
		.other = { { 4, 4, 1 }, "GNU", 0x1234 },
		.xen = { { 4, 4, 18 }, "Xen", 2 * MIB + 0x40 },
	};

	for (int i = 0; i < 256; i++)
		f.code[i] = 255 - i;
	return f;
}

static int load_elf(struct fixture *f, const struct elf *e)
{
	return load_bytes(f, e, sizeof(*e), NULL, 0, "pvh");
}

static void test_pvh(void **state)
{
	struct fixture *f = *state;
	struct elf e = make_elf();
	u8 got[256], initrd[] = "initrd";
	struct { u32 magic, version, flags, nr_modules; u64 modlist, cmdline, rsdp, memmap;
		 u32 entries, zero; } info;
	struct { u64 addr, size, cmdline, zero; } module;
	struct { u64 addr, size; u32 type, zero; } map[4];

	assert_int_equal(load_bytes(f, &e, sizeof(e), initrd, sizeof(initrd), "pvh"), 0);
	assert_int_equal(mem_read_obj(f->mem, GPA(2 * MIB), &got), 0);
	assert_memory_equal(got, e.code, 256);
	assert_int_equal(f->start.mode, CPU_PROTECTED);
	assert_int_equal(f->start.rip, 2 * MIB + 0x40);
	assert_int_equal(f->start.rbx, LAYOUT_START_INFO);
	assert_int_equal(mem_read_obj(f->mem, GPA(LAYOUT_START_INFO), &info), 0);
	assert_int_equal(info.magic, 0x336ec578);
	assert_int_equal(info.version, 1);
	assert_int_equal(info.cmdline, LAYOUT_CMDLINE);
	assert_int_equal(info.rsdp, LAYOUT_ACPI);
	assert_int_equal(info.nr_modules, 1);
	assert_int_equal(mem_read_obj(f->mem, GPA(info.modlist), &module), 0);
	assert_int_equal(module.addr, MEM_LEN - 4096);
	assert_int_equal(module.size, sizeof(initrd));
	assert_int_equal(mem_read(f->mem, GPA(module.addr), got, sizeof(initrd)), 0);
	assert_memory_equal(got, initrd, sizeof(initrd));
	assert_int_equal(info.entries, 4);
	assert_int_equal(mem_read_obj(f->mem, GPA(info.memmap), &map), 0);
	assert_int_equal(map[2].addr, MIB);
	assert_int_equal(map[2].size, MEM_LEN - MIB);
	assert_int_equal(map[2].type, 1);
	assert_int_equal(map[3].addr, LAYOUT_PCI_ECAM);
	assert_int_equal(map[3].type, 2);
}

static void test_pvh_without_initrd(void **state)
{
	struct fixture *f = *state;
	struct elf e = make_elf();
	u32 nr = 1;

	assert_int_equal(load_elf(f, &e), 0);
	assert_int_equal(mem_read_obj(f->mem, GPA(LAYOUT_START_INFO + 12), &nr), 0);
	assert_int_equal(nr, 0);
}

static void test_pvh_headers(void **state)
{
	struct fixture *f = *state;
	struct elf e;

#define REFUSED(field, value, code) \
	(e = make_elf(), e.field = (value), assert_int_equal(load_elf(f, &e), (code)))
	REFUSED(e.e_ident[EI_CLASS], ELFCLASS32, -ENOEXEC);
	REFUSED(e.e_ident[EI_DATA], ELFDATA2MSB, -ENOEXEC);
	REFUSED(e.e_machine, EM_AARCH64, -ENOEXEC);
	REFUSED(e.e_phentsize, 32, -ENOEXEC);
	REFUSED(e.e_phnum, 0, -ENOEXEC);
	REFUSED(e.e_phnum, 0xffff, -ENOEXEC);
	REFUSED(e.e_phnum, 100, -ENOEXEC);
	assert_says(f->err.msg, "program headers are cut off");
	REFUSED(e.e_phoff, ~0ULL, -ENOEXEC);
	assert_says(f->err.msg, "program headers are cut off");
	REFUSED(e.e_phoff, sizeof(e) - 1, -ENOEXEC);
	assert_says(f->err.msg, "program headers are cut off");
	REFUSED(load.p_offset, ~0ULL, -ENOEXEC);
	REFUSED(load.p_offset, sizeof(e), -ENOEXEC);
	REFUSED(load.p_filesz, ~0ULL, -ENOEXEC);
	REFUSED(load.p_memsz, 255, -ENOEXEC);
	REFUSED(load.p_memsz, ~0ULL, -ENOEXEC);
	REFUSED(load.p_paddr, ~0ULL, -ENOEXEC);
	REFUSED(load.p_paddr, 0, -ENOEXEC);
	assert_says(f->err.msg, "cannot be loaded");
	REFUSED(load.p_paddr, MIB - 1, -ENOEXEC);
	assert_says(f->err.msg, "cannot be loaded");
	REFUSED(load.p_paddr, MEM_LEN, -E2BIG);
	REFUSED(load.p_paddr, MEM_LEN - 4095, -E2BIG);
	REFUSED(load.p_memsz, 1ULL << 40, -E2BIG);
	REFUSED(load.p_paddr, 4 * GIB, -E2BIG);
	REFUSED(load.p_type, PT_NULL, -ENOEXEC);
}

static void test_pvh_notes(void **state)
{
	struct fixture *f = *state;
	struct elf e;

	REFUSED(note.p_type, PT_NULL, -ENOEXEC);
	assert_says(f->err.msg, "CONFIG_PVH");
	REFUSED(xen.n.n_type, 17, -ENOEXEC);
	REFUSED(xen.name[0], 'x', -ENOEXEC);
	REFUSED(xen.n.n_namesz, 0xffffffff, -ENOEXEC);
	REFUSED(xen.n.n_descsz, 0xffffffff, -ENOEXEC);
	REFUSED(xen.n.n_descsz, 0xfffffffd, -ENOEXEC);
	REFUSED(xen.n.n_descsz, 3, -ENOEXEC);
	REFUSED(xen.n.n_descsz, 8, -ENOEXEC);
	REFUSED(other.n.n_descsz, 0xfffffff0, -ENOEXEC);
	REFUSED(note.p_filesz, 39, -ENOEXEC);
	REFUSED(note.p_filesz, 0, -ENOEXEC);
	REFUSED(note.p_filesz, sizeof(e), -ENOEXEC);
	REFUSED(note.p_offset, ~0ULL - 8, -ENOEXEC);
	REFUSED(xen.entry, 0, -ENOEXEC);
	REFUSED(xen.entry, 2 * MIB - 1, -ENOEXEC);
	REFUSED(xen.entry, 2 * MIB + 4096, -ENOEXEC);
	assert_says(f->err.msg, "outside");
	REFUSED(xen.entry, 2 * MIB + 4095, 0);
}

static void test_pvh_truncated(void **state)
{
	struct fixture *f = *state;
	struct elf e = make_elf();

	for (size_t len = 1; len < sizeof(e); len++)
		assert_int_equal(load_bytes(f, &e, len, NULL, 0, ""), -ENOEXEC);
	assert_int_equal(load_bytes(f, &e, sizeof(e), NULL, 0, ""), 0);
}

static void test_flat(void **state)
{
	struct fixture *f = *state;
	u8 got[4];

	assert_int_equal(boot_flat(f->mem, MIB, "code", 4, &f->start, &f->err), 0);
	assert_int_equal(f->start.rip, MIB);
	assert_int_equal(f->start.mode, CPU_LONG);
	assert_int_equal(mem_read_obj(f->mem, GPA(MIB), &got), 0);
	assert_memory_equal(got, "code", 4);
	assert_int_equal(boot_flat(f->mem, MEM_LEN - 2, "code", 4, &f->start, &f->err), -EFAULT);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_64bit_entry), T(test_32bit_entry), T(test_oldest_protocol),
		T(test_refused_headers), T(test_bad_alignment), T(test_truncated_everywhere),
		T(test_small_memory_is_refused), T(test_init_size_too_large), T(test_zero_page),
		T(test_e820_of_large_memory), T(test_short_header), T(test_initrd),
		T(test_initrd_too_large), T(test_cmdline_size), T(test_not_a_file),
		T(test_too_little_memory), T(test_pvh), T(test_pvh_without_initrd),
		T(test_pvh_headers), T(test_pvh_notes), T(test_pvh_truncated), T(test_flat),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
