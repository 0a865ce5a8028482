/* bzimage.c: Linux's own format (Linux, Documentation/arch/x86/boot.rst). */
#include <asm/bootparam.h>
#include <errno.h>
#include <string.h>
#include "firmware/layout.h"
#include "firmware/loader.h"

enum {
	HEADER = 0x1f1,			/* struct setup_header in the file and the zero page */
	JUMP_OFFSET = 0x201,		/* the header ends this byte's value after 0x202 */
	BOOT_FLAG = 0xaa55,
	SECTOR = 512,
	ENTRY64 = 0x200,		/* after the protected-mode code's start */
	TYPE_UNDEFINED = 0xff,		/* of loader */
	PROTOCOL_MIN = 0x206, PROTOCOL_INIT_SIZE = 0x20a, PROTOCOL_XLOADFLAGS = 0x20c,
};

#define MAGIC	0x53726448U		/* "HdrS" */

struct image {
	struct setup_header hdr;
	size_t hdr_len;			/* in the file; the rest of hdr is 0 */
	u64 code, code_len;		/* protected-mode part: where in the file */
	u64 load, need;			/* where in memory, and how much while it unpacks */
};

bool bzimage_probe(const struct boot_file *f)
{
	const struct setup_header *h = (const void *)(f->map + HEADER);

	return f->size >= HEADER + offsetof(struct setup_header, realmode_swtch) &&
	       h->boot_flag == BOOT_FLAG && h->header == MAGIC;
}

static int parse(const struct boot_file *f, struct image *img, struct err *err)
{
	struct setup_header *h = &img->hdr;

	memset(img, 0, sizeof(*img));
	if (f->size < HEADER + sizeof(*h))
		return err_set(err, -ENOEXEC, "kernel: truncated: a bzImage whose header is cut off");
	img->hdr_len = 0x202 - HEADER + f->map[JUMP_OFFSET];
	img->hdr_len = MIN(img->hdr_len, sizeof(*h));
	memcpy(h, f->map + HEADER, img->hdr_len);
	if (h->version < PROTOCOL_MIN)
		return err_set(err, -ENOEXEC, "kernel: boot protocol %u.%02u is too old; 2.06 (Linux "
			       "2.6.22) and later are supported", h->version >> 8,
			       h->version & 0xff);
	if (!(h->loadflags & LOADED_HIGH))
		return err_set(err, -ENOEXEC, "kernel: a zImage, which loads below 1 MiB; build a "
			       "bzImage");
	/* 0 stands for 4, from the days of floppy disks. */
	img->code = SECTOR * (1ULL + (h->setup_sects ? h->setup_sects : 4));
	img->code_len = h->syssize * 16ULL;
	if (img->code >= f->size || !img->code_len ||
	    f->size - img->code + 15 < img->code_len)	/* counted in 16 bytes, rounded up */
		return err_set(err, -ENOEXEC, "kernel: truncated: the header announces %llu bytes, "
			       "the file has %llu",
			       (unsigned long long)(img->code + img->code_len),
			       (unsigned long long)f->size);
	img->code_len = MIN(img->code_len, f->size - img->code);
	return 0;
}

static bool has_64bit_entry(const struct image *img)
{
	return img->hdr.version >= PROTOCOL_XLOADFLAGS && img->hdr.xloadflags & XLF_KERNEL_64 &&
	       img->code_len > ENTRY64;
}

/*
 * Where the kernel prefers to be.  One that can be moved does not take a lower
 * place: it would move itself back up there while it unpacks.
 */
static int place(struct boot_context *c, struct image *img, struct err *err)
{
	const struct setup_header *h = &img->hdr;
	u64 low_end = boot_low_end(c), align = h->kernel_alignment;

	img->load = LAYOUT_HIGH;
	img->need = img->code_len;
	if (h->version >= PROTOCOL_INIT_SIZE)
		img->need = MAX(img->code_len, h->init_size);
	if (h->version >= PROTOCOL_INIT_SIZE && h->pref_address) {
		img->load = h->pref_address;
	} else if (h->relocatable_kernel) {
		img->load = ALIGN_UP(LAYOUT_HIGH, MAX(align, 4096ULL));
	}
	if (h->relocatable_kernel && (!align || (align & (align - 1)) || align > GIB))
		return err_set(err, -ENOEXEC, "kernel: alignment %#x in its header is not a power of "
			       "two", h->kernel_alignment);
	if (img->load < LAYOUT_HIGH || img->load > low_end || low_end - img->load < img->need)
		return err_set(err, -E2BIG, "kernel: it needs %llu MiB from %llu MiB on to unpack, "
			       "the guest has %llu MiB; give it more with --mem",
			       (unsigned long long)((img->need + MIB - 1) >> 20),
			       (unsigned long long)(img->load >> 20),
			       (unsigned long long)(mem_size(c->mem) >> 20));
	return 0;
}

static int put_zero_page(struct boot_context *c, const struct image *img)
{
	struct boot_range map[BOOT_MAP_MAX];
	struct boot_params p;

	memset(&p, 0, sizeof(p));
	memcpy(&p.hdr, &img->hdr, img->hdr_len);
	p.hdr.type_of_loader = TYPE_UNDEFINED;
	p.hdr.code32_start = img->load;
	p.hdr.cmd_line_ptr = LAYOUT_CMDLINE;
	p.hdr.ramdisk_image = c->initrd_addr;
	p.hdr.ramdisk_size = c->initrd.size;
	p.acpi_rsdp_addr = c->rsdp;
	p.e820_entries = boot_memory_map(c, map);
	for (unsigned i = 0; i < p.e820_entries; i++) {
		p.e820_table[i].addr = map[i].addr;
		p.e820_table[i].size = map[i].len;
		p.e820_table[i].type = map[i].type;
	}
	return mem_write_obj(c->mem, GPA(LAYOUT_ZERO_PAGE), &p);
}

int bzimage_load(struct boot_context *c, struct cpu_start *start, struct err *err)
{
	struct image img;
	int rc = parse(&c->kernel, &img, err);

	if (!rc)
		rc = place(c, &img, err);
	if (!rc)
		rc = boot_copy(c, &c->kernel, img.code, img.code_len, img.load, err);
	if (!rc)
		rc = boot_load_initrd(c, img.hdr.initrd_addr_max + 1ULL, img.load,
				      img.load + img.need, err);
	if (!rc)
		rc = boot_put_cmdline(c, img.hdr.cmdline_size, err);
	if (rc)
		return rc;
	if (put_zero_page(c, &img) || boot_put_page_tables(c->mem))
		return err_set(err, -E2BIG, "kernel: the guest has no memory for its tables");
	start->rsi = LAYOUT_ZERO_PAGE;
	if (has_64bit_entry(&img)) {
		start->mode = CPU_LONG;
		start->rip = img.load + ENTRY64;
		start->cr3 = LAYOUT_PAGE_TABLES;
	} else {
		start->mode = CPU_PROTECTED;
		start->rip = img.load;
	}
	return 0;
}
