/* debug.c: guest debugging by KVM (Linux, Documentation/virt/kvm/api.rst; Intel SDM vol. 3, 18.2). */
#include "vmm/kvm/debug.h"
#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

enum { MSR_KERNEL_GS_BASE = 0xc0000102 };

struct raw {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_fpu fpu;
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msr;
};

static int get_raw(int fd, struct raw *r)
{
	memset(r, 0, sizeof(*r));
	r->msr.head.nmsrs = 1;
	r->msr.entry.index = MSR_KERNEL_GS_BASE;
	if (ioctl(fd, KVM_GET_REGS, &r->regs) || ioctl(fd, KVM_GET_SREGS, &r->sregs) ||
	    ioctl(fd, KVM_GET_FPU, &r->fpu))
		return -errno;
	return ioctl(fd, KVM_GET_MSRS, &r->msr) < 0 ? -errno : 0;
}

/* Two bits a register, where the processor's own format has one: 3 is empty. */
static u32 long_tag(u8 valid)
{
	u32 tag = 0;

	for (int i = 0; i < 8; i++)
		tag |= valid >> i & 1 ? 0 : 3U << 2 * i;
	return tag;
}

static u8 short_tag(u32 tag)
{
	u8 valid = 0;

	for (int i = 0; i < 8; i++)
		valid |= (tag >> 2 * i & 3) != 3 ? 1 << i : 0;
	return valid;
}

static void from_raw(struct cpu_registers *c, const struct raw *r)
{
	const struct kvm_regs *g = &r->regs;
	const struct kvm_sregs *s = &r->sregs;
	const struct kvm_fpu *f = &r->fpu;

	*c = (struct cpu_registers){
		.rax = g->rax, .rbx = g->rbx, .rcx = g->rcx, .rdx = g->rdx, .rsi = g->rsi,
		.rdi = g->rdi, .rbp = g->rbp, .rsp = g->rsp,
		.r8 = { g->r8, g->r9, g->r10, g->r11, g->r12, g->r13, g->r14, g->r15 },
		.rip = g->rip, .eflags = g->rflags, .cs = s->cs.selector, .ss = s->ss.selector,
		.ds = s->ds.selector, .es = s->es.selector, .fs = s->fs.selector,
		.gs = s->gs.selector, .fctrl = f->fcw, .fstat = f->fsw, .ftag = long_tag(f->ftwx),
		.fiseg = f->last_ip >> 32, .fioff = f->last_ip, .foseg = f->last_dp >> 32,
		.fooff = f->last_dp, .fop = f->last_opcode, .mxcsr = f->mxcsr,
		.fs_base = s->fs.base, .gs_base = s->gs.base, .k_gs_base = r->msr.entry.data,
		.cr0 = s->cr0, .cr2 = s->cr2, .cr3 = s->cr3, .cr4 = s->cr4, .cr8 = s->cr8,
		.efer = s->efer,
	};
	for (int i = 0; i < 8; i++)
		memcpy(c->st[i], f->fpr[i], sizeof(c->st[i]));
	memcpy(c->xmm, f->xmm, sizeof(c->xmm));
}

static void to_raw(struct raw *r, const struct cpu_registers *c)
{
	struct kvm_regs *g = &r->regs;
	struct kvm_sregs *s = &r->sregs;
	struct kvm_fpu *f = &r->fpu;

	*g = (struct kvm_regs){
		.rax = c->rax, .rbx = c->rbx, .rcx = c->rcx, .rdx = c->rdx, .rsi = c->rsi,
		.rdi = c->rdi, .rbp = c->rbp, .rsp = c->rsp, .r8 = c->r8[0], .r9 = c->r8[1],
		.r10 = c->r8[2], .r11 = c->r8[3], .r12 = c->r8[4], .r13 = c->r8[5],
		.r14 = c->r8[6], .r15 = c->r8[7], .rip = c->rip, .rflags = c->eflags,
	};
	s->fs.base = c->fs_base;
	s->gs.base = c->gs_base;
	s->cr0 = c->cr0;
	s->cr2 = c->cr2;
	s->cr3 = c->cr3;
	s->cr4 = c->cr4;
	s->cr8 = c->cr8;
	s->efer = c->efer;
	r->msr.entry.data = c->k_gs_base;
	f->fcw = c->fctrl;
	f->fsw = c->fstat;
	f->ftwx = short_tag(c->ftag);
	f->last_ip = (u64)c->fiseg << 32 | c->fioff;
	f->last_dp = (u64)c->foseg << 32 | c->fooff;
	f->last_opcode = c->fop;
	f->mxcsr = c->mxcsr;
	for (int i = 0; i < 8; i++)
		memcpy(f->fpr[i], c->st[i], sizeof(c->st[i]));
	memcpy(f->xmm, c->xmm, sizeof(c->xmm));
}

int cpu_get_registers(int fd, struct cpu_registers *c)
{
	struct raw r;
	int rc = get_raw(fd, &r);

	if (!rc)
		from_raw(c, &r);
	return rc;
}

/* Only what is another value: to set some of them has effects of its own. */
int cpu_set_registers(int fd, const struct cpu_registers *c)
{
	struct cpu_registers old;
	struct raw was, r;
	int rc = get_raw(fd, &was);

	if (rc)
		return rc;
	from_raw(&old, &was);
	if (memcmp(&old.cs, &c->cs, offsetof(struct cpu_registers, st) -
				    offsetof(struct cpu_registers, cs)))
		return -EINVAL;
	r = was;
	to_raw(&r, c);
	if (memcmp(&r.sregs, &was.sregs, sizeof(r.sregs)) && ioctl(fd, KVM_SET_SREGS, &r.sregs))
		return -errno;
	if (memcmp(&r.regs, &was.regs, sizeof(r.regs)) && ioctl(fd, KVM_SET_REGS, &r.regs))
		return -errno;
	if (memcmp(&r.fpu, &was.fpu, sizeof(r.fpu)) && ioctl(fd, KVM_SET_FPU, &r.fpu))
		return -errno;
	if (r.msr.entry.data == was.msr.entry.data)
		return 0;
	rc = ioctl(fd, KVM_SET_MSRS, &r.msr);
	return rc < 0 ? -errno : rc == 1 ? 0 : -EINVAL;
}

int cpu_translate(int fd, u64 linear, u64 *gpa)
{
	struct kvm_translation t = { .linear_address = linear };

	if (ioctl(fd, KVM_TRANSLATE, &t) || !t.valid)
		return -EFAULT;
	*gpa = t.physical_address;
	return 0;
}

static struct kvm_guest_debug guest_debug(const struct cpu_debug *d)
{
	static const u8 type[] = { [CPU_POINT_EXEC] = 0, [CPU_POINT_WRITE] = 1,
				   [CPU_POINT_READ] = 3, [CPU_POINT_ACCESS] = 3 };
	static const u8 len[] = { [1] = 0, [2] = 1, [4] = 3, [8] = 2 };
	struct kvm_guest_debug k = { 0 };

	if (!d->on)
		return k;
	k.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
	if (d->step)
		k.control |= KVM_GUESTDBG_SINGLESTEP;
	for (unsigned i = 0; i < CPU_POINTS; i++) {
		const struct cpu_point *p = &d->point[i];

		if (!p->kind)
			continue;
		k.control |= KVM_GUESTDBG_USE_HW_BP;
		k.arch.debugreg[i] = p->addr;
		/* Exact, and on for all tasks. */
		k.arch.debugreg[7] |= 0x600 | 2ULL << 2 * i |
				      (u64)(type[p->kind] | len[p->len] << 2) << (16 + 4 * i);
	}
	return k;
}

int cpu_set_debug(const struct kvm *kvm, int fd, const struct cpu_debug *d)
{
	struct kvm_guest_debug k = guest_debug(d);

	if (d->on && d->step)
		k.control |= kvm_extension(kvm, KVM_CAP_SET_GUEST_DEBUG2) & KVM_GUESTDBG_BLOCKIRQ;
	return ioctl(fd, KVM_SET_GUEST_DEBUG, &k) ? -errno : 0;
}

int cpu_inject(int fd, const struct cpu_debug *d, unsigned vector)
{
	struct kvm_guest_debug k = guest_debug(d);

	k.control |= KVM_GUESTDBG_ENABLE | (vector == CPU_VECTOR_BREAKPOINT ?
					    KVM_GUESTDBG_INJECT_BP : KVM_GUESTDBG_INJECT_DB);
	return ioctl(fd, KVM_SET_GUEST_DEBUG, &k) ? -errno : 0;
}
