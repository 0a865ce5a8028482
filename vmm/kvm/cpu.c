/* cpu.c: CPUID, MSRs and start state (Intel SDM vol. 3, AMD APM vol. 2 and 3). */
#include "vmm/kvm/cpu.h"
#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include "vmm/core/log.h"

enum { MSR_MISC_ENABLE = 0x1a0, MISC_FAST_STRINGS = 1, MSR_MTRR_DEF_TYPE = 0x2ff,
       MTRR_ENABLE = 1 << 11, MTRR_WRITE_BACK = 6 };
enum { CR0_PE = 1, CR0_ET = 1 << 4, CR0_NE = 1 << 5, CR0_PG = 1U << 31, CR4_PAE = 1 << 5,
       EFER_LME = 1 << 8, EFER_LMA = 1 << 10 };

/* --- CPUID ----------------------------------------------------------------------------------- */

static unsigned log2_up(unsigned n)
{
	unsigned bits = 0;

	while (1U << bits < n)
		bits++;
	return bits;
}

/* Extended topology (0xb, 0x1f): threads of a core: 1; cores of the package. */
static void topology(struct kvm_cpuid_entry2 *e, unsigned index, unsigned nr)
{
	enum { LEVEL_NONE, LEVEL_SMT, LEVEL_CORE };
	unsigned level = e->index == 0 ? LEVEL_SMT : e->index == 1 ? LEVEL_CORE : LEVEL_NONE;

	e->eax = level == LEVEL_CORE ? log2_up(nr) : 0;
	e->ebx = level == LEVEL_CORE ? nr : level == LEVEL_SMT ? 1 : 0;
	e->ecx = level << 8 | (e->index & 0xff);
	e->edx = index;
}

/* How many share a cache (4, 0x8000001d): the last level all, the others one. */
static void cache(struct kvm_cpuid_entry2 *e, unsigned nr, bool intel)
{
	unsigned level = e->eax >> 5 & 7, share = level >= 3 ? (1U << log2_up(nr)) - 1 : 0;

	if (!(e->eax & 0x1f))
		return;
	e->eax = (e->eax & 0x3fff) | share << 14;
	if (intel)
		e->eax |= ((1U << log2_up(nr)) - 1) << 26;
}

static void adjust(const struct kvm *k, struct kvm_cpuid_entry2 *e, unsigned index, unsigned nr)
{
	enum { X2APIC = 1 << 21, TSC_DEADLINE = 1 << 24, HYPERVISOR = 1U << 31, HTT = 1 << 28 };

	switch (e->function) {
	case 1:
		e->ebx = (e->ebx & 0xff00) | index << 24 | MIN(1U << log2_up(nr), 255U) << 16;
		e->ecx |= X2APIC | HYPERVISOR | (k->has_tsc_deadline ? TSC_DEADLINE : 0);
		e->edx = nr > 1 ? e->edx | HTT : e->edx & ~HTT;
		break;
	case 4:
		cache(e, nr, true);
		break;
	case 0xb:
	case 0x1f:
		topology(e, index, nr);
		break;
	case 0x80000001:
		if (nr > 1)
			e->ecx |= 1 << 1;	/* CmpLegacy */
		else
			e->ecx &= ~(1U << 1);
		break;
	case 0x80000008:
		e->ecx = (e->ecx & ~0xf0ffU) | log2_up(nr) << 12 | (nr - 1);
		break;
	case 0x8000001d:
		cache(e, nr, false);
		break;
	case 0x8000001e:
		e->eax = index;
		e->ebx = (e->ebx & ~0xffffU) | index;	/* core id, one thread a core */
		e->ecx &= ~0x7ffU;			/* one node */
		break;
	}
}

static bool has_leaf(const struct kvm_cpuid2 *c, u32 function, u32 index)
{
	for (u32 i = 0; i < c->nent; i++)
		if (c->entries[i].function == function && c->entries[i].index == index)
			return true;
	return false;
}

static void add_leaf(struct kvm_cpuid2 *c, u32 function, u32 index)
{
	c->entries[c->nent++] = (struct kvm_cpuid_entry2){
		.function = function, .index = index, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
	};
}

static int set_cpuid(const struct kvm *k, int fd, unsigned index, unsigned nr, struct err *err)
{
	enum { LEVELS = 3 };
	u32 n = k->cpuid->nent;
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + (n + 2 * LEVELS) * sizeof(c->entries[0]));
	int rc = 0;

	if (!c)
		return err_set(err, -ENOMEM, "out of memory");
	memcpy(c, k->cpuid, sizeof(*c) + n * sizeof(c->entries[0]));
	/* Leaf 0xb is where a guest learns its x2APIC id, on hosts without it too.  One
	 * that is there has all levels: KVM need not say more of it than that. */
	for (u32 i = 0; i < LEVELS; i++) {
		if (!has_leaf(k->cpuid, 0xb, i))
			add_leaf(c, 0xb, i);
		if (has_leaf(k->cpuid, 0x1f, 0) && !has_leaf(k->cpuid, 0x1f, i))
			add_leaf(c, 0x1f, i);
	}
	for (u32 i = 0; i < c->nent; i++) {
		struct kvm_cpuid_entry2 *e = &c->entries[i];

		if (e->function == 0 && e->eax < 0xb)
			e->eax = 0xb;
		adjust(k, e, index, nr);
	}
	if (ioctl(fd, KVM_SET_CPUID2, c))
		rc = err_set(err, -errno, "vcpu %u: CPUID: %s", index, strerror(errno));
	free(c);
	return rc;
}

static int set_msrs(int fd, unsigned index, struct err *err)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry[2];
	} msrs = {
		.head.nmsrs = 2,
		.entry = {
			{ .index = MSR_MISC_ENABLE, .data = MISC_FAST_STRINGS },
			/* Memory is write-back from the start, as firmware leaves it. */
			{ .index = MSR_MTRR_DEF_TYPE, .data = MTRR_ENABLE | MTRR_WRITE_BACK },
		},
	};

	if (ioctl(fd, KVM_SET_MSRS, &msrs) < 0)
		return err_set(err, -errno, "vcpu %u: MSRs: %s", index, strerror(errno));
	return 0;	/* one that this host has not is left out */
}

int cpu_setup(const struct kvm *k, int fd, unsigned index, unsigned nr, struct err *err)
{
	int rc = set_cpuid(k, fd, index, nr, err);

	return rc ? rc : set_msrs(fd, index, err);
}

/* --- start state ------------------------------------------------------------------------------- */

static const struct kvm_segment code32 = {
	.limit = 0xffffffff, .selector = CPU_CODE, .type = 0xb, .present = 1, .db = 1, .s = 1, .g = 1,
};
static const struct kvm_segment code64 = {
	.limit = 0xffffffff, .selector = CPU_CODE, .type = 0xb, .present = 1, .l = 1, .s = 1, .g = 1,
};
static const struct kvm_segment data = {
	.limit = 0xffffffff, .selector = CPU_DATA, .type = 0x3, .present = 1, .db = 1, .s = 1, .g = 1,
};
/* VT-x wants a busy one, whatever the guest will make of it. */
static const struct kvm_segment task = {
	.limit = 0x67, .selector = CPU_TSS, .type = 0xb, .present = 1,
};

int cpu_start(int fd, const struct cpu_start *s, struct err *err)
{
	struct kvm_regs regs = { .rip = s->rip, .rsi = s->rsi, .rbx = s->rbx, .rcx = s->rcx,
				 .rflags = 2 };
	struct kvm_sregs sregs;

	if (ioctl(fd, KVM_GET_SREGS, &sregs))
		return err_set(err, -errno, "vcpu 0: registers: %s", strerror(errno));
	sregs.cs = s->mode == CPU_LONG ? code64 : code32;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.tr = task;
	sregs.gdt.base = s->gdt;
	sregs.gdt.limit = CPU_GDT_LEN - 1;
	sregs.idt.base = 0;
	sregs.idt.limit = 0;
	sregs.cr0 = CR0_PE | CR0_ET | CR0_NE;
	if (s->mode == CPU_LONG) {
		sregs.cr0 |= CR0_PG;
		sregs.cr3 = s->cr3;
		sregs.cr4 = CR4_PAE;
		sregs.efer = EFER_LME | EFER_LMA;
	}
	if (ioctl(fd, KVM_SET_SREGS, &sregs) || ioctl(fd, KVM_SET_REGS, &regs))
		return err_set(err, -errno, "vcpu 0: registers: %s", strerror(errno));
	return 0;
}

/* --- the last words of a guest -------------------------------------------------------------------- */

static void dump_code(int fd, u64 linear, struct mem *mem)
{
	struct kvm_translation t = { .linear_address = linear };
	char text[3 * 16 + 1] = "";
	u8 code[16];
	unsigned n;

	if (ioctl(fd, KVM_TRANSLATE, &t) || !t.valid) {
		log_err("  code: nothing is mapped at rip");
		return;
	}
	for (n = sizeof(code); n && mem_read(mem, GPA(t.physical_address), code, n); n--)
		;
	for (unsigned i = 0; i < n; i++)
		snprintf(text + 3UL * i, 4, " %02x", code[i]);
	log_err("  code:%s%s", text, n ? "" : " not in RAM");
}

void cpu_dump(int fd, unsigned index, struct mem *mem)
{
	struct kvm_regs r;
	struct kvm_sregs s;

	if (ioctl(fd, KVM_GET_REGS, &r) || ioctl(fd, KVM_GET_SREGS, &s))
		return;
	log_err("vcpu %u registers:", index);
#define HEX(x)	((unsigned long long)(x))
	log_err("  rip %016llx  rsp %016llx  rflags %08llx", HEX(r.rip), HEX(r.rsp), HEX(r.rflags));
	log_err("  rax %016llx  rbx %016llx  rcx %016llx  rdx %016llx", HEX(r.rax), HEX(r.rbx),
		HEX(r.rcx), HEX(r.rdx));
	log_err("  rsi %016llx  rdi %016llx  rbp %016llx  r8  %016llx", HEX(r.rsi), HEX(r.rdi),
		HEX(r.rbp), HEX(r.r8));
	log_err("  r9  %016llx  r10 %016llx  r11 %016llx  r12 %016llx", HEX(r.r9), HEX(r.r10),
		HEX(r.r11), HEX(r.r12));
	log_err("  r13 %016llx  r14 %016llx  r15 %016llx", HEX(r.r13), HEX(r.r14), HEX(r.r15));
	log_err("  cr0 %08llx  cr2 %016llx  cr3 %016llx  cr4 %08llx  efer %08llx", HEX(s.cr0),
		HEX(s.cr2), HEX(s.cr3), HEX(s.cr4), HEX(s.efer));
	log_err("  cs %04x base %llx %s  ss %04x  ds %04x  gdt %llx/%x  idt %llx/%x", s.cs.selector,
		HEX(s.cs.base), s.cs.l ? "64-bit" : s.cs.db ? "32-bit" : "16-bit", s.ss.selector,
		s.ds.selector, HEX(s.gdt.base), s.gdt.limit, HEX(s.idt.base), s.idt.limit);
	dump_code(fd, s.cs.base + r.rip, mem);
#undef HEX
}
