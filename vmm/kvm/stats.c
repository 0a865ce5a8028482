/* stats.c: what KVM counts of a vCPU by itself (api.rst, 4.133). */
#include "vmm/kvm/stats.h"
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define AT(member)	(offsetof(struct kvm_counts, member) / sizeof(u64))
static const char *const kvm_name[KVM_NR_COUNTS] = {
	[AT(exits)] = "exits", [AT(halts)] = "halt_exits", [AT(halt_ns)] = "halt_wait_ns",
	[AT(irq)] = "irq_exits", [AT(irq_window)] = "irq_window_exits",
	[AT(nmi_window)] = "nmi_window_exits", [AT(io)] = "io_exits", [AT(mmio)] = "mmio_exits",
	[AT(signal)] = "signal_exits", [AT(request)] = "request_irq_exits",
	[AT(injected)] = "irq_injections", [AT(injected_nmi)] = "nmi_injections",
	[AT(page_faults)] = "pf_taken", [AT(emulated)] = "insn_emulation",
	[AT(hypercalls)] = "hypercalls", [AT(tlb_flushes)] = "tlb_flush",
};

void kvm_stats_open(struct kvm_stats *s, int vcpu_fd)
{
	s->fd = ioctl(vcpu_fd, KVM_GET_STATS_FD, 0);
}

void kvm_stats_close(struct kvm_stats *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

/* The kernel may have others, elsewhere, and need not have all of ours. */
static void look_up(struct kvm_stats *s)
{
	struct kvm_stats_header h;
	struct kvm_stats_desc *d;
	size_t len, one;
	char *all;

	s->known = true;
	if (pread(s->fd, &h, sizeof(h), 0) != sizeof(h))
		return;
	one = sizeof(*d) + h.name_size;
	len = one * h.num_desc;
	all = malloc(len);
	if (all && pread(s->fd, all, len, h.desc_offset) == (ssize_t)len)
		for (unsigned i = 0; i < h.num_desc; i++) {
			d = (struct kvm_stats_desc *)(all + i * one);
			for (unsigned k = 0; k < KVM_NR_COUNTS; k++)
				if (!strncmp(d->name, kvm_name[k], h.name_size))
					s->offset[k] = h.data_offset + d->offset;
		}
	free(all);
}

void kvm_stats_read(struct kvm_stats *s, struct kvm_counts *counts)
{
	u64 *into = (u64 *)counts;

	if (s->fd < 0)
		return;
	if (!s->known)
		look_up(s);
	for (unsigned k = 0; k < KVM_NR_COUNTS; k++)
		if (s->offset[k])
			(void)!pread(s->fd, &into[k], sizeof(into[k]), s->offset[k]);
}
