/* boot.c: recognise the kernel, and what all ways to boot it share. */
#include "firmware/boot.h"
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "firmware/acpi.h"
#include "firmware/layout.h"
#include "firmware/loader.h"
#include "vmm/core/ports.h"

static int map_file(struct boot_file *f, const char *what, int fd, struct err *err)
{
	struct stat st;
	void *map;

	*f = (struct boot_file){ .what = what, .fd = fd };
	if (fd < 0)
		return 0;
	if (fstat(fd, &st))
		return err_set(err, -errno, "%s: %s", what, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "%s: not a regular file", what);
	if (!st.st_size)
		return err_set(err, -EINVAL, "%s: the file is empty", what);
	map = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (map == MAP_FAILED)
		return err_set(err, -errno, "%s: %s", what, strerror(errno));
	f->map = map;
	f->size = st.st_size;
	return 0;
}

static void unmap_file(struct boot_file *f)
{
	if (f->map)
		munmap((void *)(uintptr_t)f->map, f->size);
}

int boot_copy(struct boot_context *c, const struct boot_file *f, u64 offset, u64 len, u64 addr,
	      struct err *err)
{
	struct iovec iov[2];
	int nr = mem_iov(c->mem, GPA(addr), len, iov, ARRAY_SIZE(iov));

	if (nr < 0)
		return err_set(err, -E2BIG, "%s: %llu bytes at %#llx do not fit into the guest's "
			       "memory; give it more with --mem", f->what, (unsigned long long)len,
			       (unsigned long long)addr);
	for (int i = 0; i < nr; i++) {
		u8 *at = iov[i].iov_base;

		for (size_t left = iov[i].iov_len; left;) {
			ssize_t n = pread(f->fd, at, left, offset);

			if (n < 0 && errno == EINTR)
				continue;
			if (n <= 0)
				return err_set(err, -EIO, "%s: cannot read it: %s", f->what,
					       n ? strerror(errno) : "it became shorter");
			at += n;
			left -= n;
			offset += n;
		}
	}
	return 0;
}

u64 boot_low_end(const struct boot_context *c)
{
	struct mem_region low = mem_region(c->mem, 0);

	return low.base + low.size;
}

int boot_load_initrd(struct boot_context *c, u64 limit, u64 from, u64 to, struct err *err)
{
	u64 end = MIN(limit, boot_low_end(c)), size = c->initrd.size, at;

	if (!size)
		return 0;
	at = size <= end ? ALIGN_DOWN(end - size, 4096ULL) : 0;
	if (size <= end && at < to && at + size > from)	/* over the kernel: then below it */
		at = size <= from ? ALIGN_DOWN(from - size, 4096ULL) : 0;
	if (at < LAYOUT_HIGH)
		return err_set(err, -E2BIG, "initrd: %llu MiB do not fit beside the kernel (%llu MiB "
			       "while it unpacks) in %llu MiB; give the guest more with --mem",
			       (unsigned long long)(size >> 20) + 1,
			       (unsigned long long)((to - from) >> 20) + 1,
			       (unsigned long long)(mem_size(c->mem) >> 20));
	c->initrd_addr = at;
	return boot_copy(c, &c->initrd, 0, size, at, err);
}

int boot_put_cmdline(struct boot_context *c, u64 max, struct err *err)
{
	size_t len = strlen(c->cmdline);

	max = MIN(max, (u64)LAYOUT_CMDLINE_MAX - 1);
	if (len > max)
		return err_set(err, -E2BIG, "cmdline: %zu bytes, but this kernel takes %llu at most",
			       len, (unsigned long long)max);
	return mem_write(c->mem, GPA(LAYOUT_CMDLINE), c->cmdline, len + 1);
}

int boot_put_gdt(struct mem *mem)
{
	/* Null, unused, CPU_CODE, CPU_DATA, CPU_TSS; the code segment's mode is in
	 * the hidden part that the vCPU is started with. */
	static const u64 gdt[CPU_GDT_LEN / 8] = {
		[CPU_CODE / 8] = 0x00af9b000000ffff,
		[CPU_DATA / 8] = 0x00cf93000000ffff,
		[CPU_TSS / 8] = 0x00008b0000000067,
	};

	return mem_write(mem, GPA(LAYOUT_GDT), gdt, sizeof(gdt));
}

int boot_put_page_tables(struct mem *mem)
{
	enum { PRESENT_WRITABLE = 3, LARGE = 1 << 7, ENTRIES = 512 };
	u64 pml4 = LAYOUT_PAGE_TABLES, pdpt = pml4 + 4096, pd = pdpt + 4096;
	u64 table[ENTRIES] = { pdpt | PRESENT_WRITABLE };
	int rc = mem_write(mem, GPA(pml4), table, sizeof(table));

	for (u64 i = 0; i < 4; i++)
		table[i] = (pd + 4096 * i) | PRESENT_WRITABLE;
	rc |= mem_write(mem, GPA(pdpt), table, sizeof(table));
	for (u64 g = 0; g < 4; g++) {
		for (u64 i = 0; i < ENTRIES; i++)
			table[i] = g << 30 | i << 21 | LARGE | PRESENT_WRITABLE;
		rc |= mem_write(mem, GPA(pd + 4096 * g), table, sizeof(table));
	}
	return rc;
}

unsigned boot_memory_map(const struct boot_context *c, struct boot_range map[BOOT_MAP_MAX])
{
	unsigned n = 0;

	map[n++] = (struct boot_range){ 0, LAYOUT_LOW_END, BOOT_RAM };
	map[n++] = (struct boot_range){ LAYOUT_ACPI, LAYOUT_ACPI_END - LAYOUT_ACPI, BOOT_RESERVED };
	map[n++] = (struct boot_range){ LAYOUT_HIGH, boot_low_end(c) - LAYOUT_HIGH, BOOT_RAM };
	/* Linux takes an ECAM window for real only where the map reserves it. */
	if (c->machine->has_pci)
		map[n++] = (struct boot_range){ c->machine->pci_ecam, c->machine->pci_ecam_len,
						BOOT_RESERVED };
	for (int i = 1; i < mem_nr_regions(c->mem); i++) {
		struct mem_region r = mem_region(c->mem, i);

		map[n++] = (struct boot_range){ r.base, r.size, BOOT_RAM };
	}
	return n;
}

/*
 * Where a PC's BIOS starts: Linux jumps there in real mode to reboot, among
 * other ways.  mov al, 0xfe; out 0x64, al: the keyboard controller's reset line.
 */
static int put_reset_vector(struct mem *mem)
{
	static const u8 code[] = { 0xb0, I8042_RESET, 0xe6, PORT_I8042 + 4, 0xf4, 0xeb, 0xfd };

	return mem_write(mem, GPA(LAYOUT_RESET_VECTOR), code, sizeof(code));
}

static int load(struct boot_context *c, struct cpu_start *start, struct err *err)
{
	int rc = acpi_build(c->mem, c->machine, &c->rsdp, err);

	if (!rc && (boot_put_gdt(c->mem) || put_reset_vector(c->mem)))
		rc = err_set(err, -EFAULT, "mem: too little for a guest");
	if (rc)
		return rc;
	start->gdt = LAYOUT_GDT;
	if (bzimage_probe(&c->kernel))
		return bzimage_load(c, start, err);
	if (pvh_probe(&c->kernel))
		return pvh_load(c, start, err);
	return err_set(err, -ENOEXEC, "kernel: neither a bzImage nor an ELF file; give it the "
		       "distribution's /boot/vmlinuz-VERSION, or an uncompressed vmlinux");
}

int boot_load(struct mem *mem, const struct boot_machine *machine, int kernel_fd, int initrd_fd,
	      const char *cmdline, struct cpu_start *start, struct err *err)
{
	struct boot_context c = { .mem = mem, .machine = machine, .cmdline = cmdline };
	int rc = map_file(&c.kernel, "kernel", kernel_fd, err);

	memset(start, 0, sizeof(*start));
	if (!rc)
		rc = map_file(&c.initrd, "initrd", initrd_fd, err);
	if (!rc)
		rc = load(&c, start, err);
	unmap_file(&c.kernel);
	unmap_file(&c.initrd);
	return rc;
}

int boot_flat(struct mem *mem, u64 at, const void *code, size_t len, struct cpu_start *start,
	      struct err *err)
{
	*start = (struct cpu_start){ .mode = CPU_LONG, .rip = at, .cr3 = LAYOUT_PAGE_TABLES,
				     .gdt = LAYOUT_GDT };
	if (boot_put_gdt(mem) || boot_put_page_tables(mem) || mem_write(mem, GPA(at), code, len))
		return err_set(err, -EFAULT, "mem: too little for a guest");
	return 0;
}
