/* cpu_state.c: all that a vCPU remembers (Linux, Documentation/virt/kvm/api.rst). */
#include "vmm/kvm/cpu_state.h"
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

enum { MSRS_MAX = 1024, CPUID_MAX = 256, XSAVE_MAX = 256 * 1024, MSR_TSC_DEADLINE = 0x6e0 };

static void kvm_failed(struct state *s, const char *what)
{
	state_error(s, -errno, what);
}

/* One of KVM's structures, got when saving and set when loading. */
static void raw(struct state *s, int fd, const char *name, unsigned long get, unsigned long set,
		void *p, size_t len)
{
	if (!state_loading(s) && ioctl(fd, get, p))
		kvm_failed(s, name);
	state_bytes(s, name, p, len);
	if (state_loading(s) && !state_failed(s) && ioctl(fd, set, p))
		kvm_failed(s, name);
}

/* --- CPUID: what the guest has seen must be there ------------------------------------------------ */

struct feature_word { u32 function, index; unsigned reg; const char *name; };
enum { EAX, EBX, ECX, EDX };

/* The words whose bits are features: one the host has not is missing. */
static const struct feature_word feature_words[] = {
	{ 1, 0, ECX, "1.ecx" }, { 1, 0, EDX, "1.edx" },
	{ 7, 0, EBX, "7.ebx" }, { 7, 0, ECX, "7.ecx" }, { 7, 0, EDX, "7.edx" },
	{ 7, 1, EAX, "7/1.eax" },
	{ 0xd, 0, EAX, "xcr0" }, { 0xd, 1, EAX, "xsave" },
	{ 0x80000001, 0, ECX, "80000001.ecx" }, { 0x80000001, 0, EDX, "80000001.edx" },
	{ 0x80000007, 0, EDX, "80000007.edx" }, { 0x80000008, 0, EBX, "80000008.ebx" },
	{ 0x40000001, 0, EAX, "kvm" },
};

/* The names of those that differ between machines in use; others go by number. */
static const struct { const char *word; unsigned bit; const char *name; } feature_names[] = {
	{ "1.ecx", 1, "pclmulqdq" }, { "1.ecx", 9, "ssse3" }, { "1.ecx", 12, "fma" },
	{ "1.ecx", 13, "cx16" }, { "1.ecx", 17, "pcid" }, { "1.ecx", 19, "sse4.1" },
	{ "1.ecx", 20, "sse4.2" }, { "1.ecx", 21, "x2apic" }, { "1.ecx", 22, "movbe" },
	{ "1.ecx", 23, "popcnt" }, { "1.ecx", 24, "tsc-deadline" }, { "1.ecx", 25, "aes" },
	{ "1.ecx", 26, "xsave" }, { "1.ecx", 28, "avx" }, { "1.ecx", 29, "f16c" },
	{ "1.ecx", 30, "rdrand" },
	{ "7.ebx", 0, "fsgsbase" }, { "7.ebx", 3, "bmi1" }, { "7.ebx", 4, "hle" },
	{ "7.ebx", 5, "avx2" }, { "7.ebx", 7, "smep" }, { "7.ebx", 8, "bmi2" },
	{ "7.ebx", 9, "erms" }, { "7.ebx", 10, "invpcid" }, { "7.ebx", 11, "rtm" },
	{ "7.ebx", 16, "avx512f" }, { "7.ebx", 17, "avx512dq" }, { "7.ebx", 18, "rdseed" },
	{ "7.ebx", 19, "adx" }, { "7.ebx", 20, "smap" }, { "7.ebx", 23, "clflushopt" },
	{ "7.ebx", 24, "clwb" }, { "7.ebx", 28, "avx512cd" }, { "7.ebx", 29, "sha" },
	{ "7.ebx", 30, "avx512bw" }, { "7.ebx", 31, "avx512vl" },
	{ "7.ecx", 1, "avx512vbmi" }, { "7.ecx", 2, "umip" }, { "7.ecx", 3, "pku" },
	{ "7.ecx", 8, "gfni" }, { "7.ecx", 9, "vaes" }, { "7.ecx", 10, "vpclmulqdq" },
	{ "7.ecx", 11, "avx512vnni" }, { "7.ecx", 16, "la57" }, { "7.ecx", 22, "rdpid" },
	{ "7.edx", 4, "fsrm" }, { "7.edx", 22, "amx-bf16" }, { "7.edx", 23, "avx512fp16" },
	{ "7.edx", 24, "amx-tile" }, { "7.edx", 25, "amx-int8" },
	{ "80000001.ecx", 5, "lzcnt" }, { "80000001.ecx", 6, "sse4a" },
	{ "80000001.edx", 20, "nx" }, { "80000001.edx", 26, "1-gbyte-pages" },
	{ "80000001.edx", 27, "rdtscp" },
};

static u32 word_of(const struct kvm_cpuid2 *c, const struct feature_word *w)
{
	for (u32 i = 0; i < c->nent; i++) {
		const struct kvm_cpuid_entry2 *e = &c->entries[i];

		if (e->function == w->function && e->index == w->index)
			return w->reg == EAX ? e->eax : w->reg == EBX ? e->ebx :
			       w->reg == ECX ? e->ecx : e->edx;
	}
	return 0;
}

/* Those that repeat what the guest wrote to CR4: OSXSAVE, OSPKE. */
static u32 dynamic_bits(const struct feature_word *w)
{
	if (w->reg != ECX)
		return 0;
	return w->function == 1 ? 1 << 27 : w->function == 7 ? 1 << 4 : 0;
}

static void check_features(struct state *s, const struct kvm_cpuid2 *wanted,
			   const struct kvm_cpuid2 *host, const struct kvm_cpuid2 *ours)
{
	for (unsigned i = 0; i < ARRAY_SIZE(feature_words); i++) {
		const struct feature_word *w = &feature_words[i];
		/* What vmm adds by itself (x2APIC, hypervisor) any host can give. */
		u32 missing = word_of(wanted, w) & ~dynamic_bits(w) &
			      ~(word_of(host, w) | word_of(ours, w));
		const char *name = NULL;
		unsigned bit = __builtin_ctz(missing | 1U << 31);

		if (!missing)
			continue;
		for (unsigned n = 0; n < ARRAY_SIZE(feature_names); n++)
			if (!strcmp(feature_names[n].word, w->name) && feature_names[n].bit == bit)
				name = feature_names[n].name;
		if (name)
			state_fail(s, "the guest has used a processor with %s, which this host's lacks",
				   name);
		else
			state_fail(s, "the guest has used a processor with CPUID feature %s bit %u, "
				   "which this host's lacks", w->name, bit);
		return;
	}
}

static struct kvm_cpuid2 *new_cpuid(void)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + CPUID_MAX * sizeof(c->entries[0]));

	if (c)
		c->nent = CPUID_MAX;
	return c;
}

static void cpuid_state(struct state *s, const struct kvm *k, int fd)
{
	struct kvm_cpuid2 *ours = new_cpuid(), *c = new_cpuid();
	size_t len = 0;

	if (!ours || !c || ioctl(fd, KVM_GET_CPUID2, ours)) {
		state_error(s, ours && c ? -errno : -ENOMEM, "cpuid");
		goto out;
	}
	if (!state_loading(s)) {
		len = ours->nent * sizeof(ours->entries[0]);
		memcpy(c->entries, ours->entries, len);
	}
	state_some_bytes(s, "cpuid", c->entries, &len, CPUID_MAX * sizeof(c->entries[0]));
	if (!state_loading(s) || state_failed(s))
		goto out;
	c->nent = len / sizeof(c->entries[0]);
	if (len % sizeof(c->entries[0]))
		state_fail(s, "cpuid: %zu bytes", len);
	else
		check_features(s, c, k->cpuid, ours);
	if (!state_failed(s) && ioctl(fd, KVM_SET_CPUID2, c))
		kvm_failed(s, "cpuid");
out:
	free(ours);
	free(c);
}

/* --- MSRs ------------------------------------------------------------------------------------------ */

static struct kvm_msrs *new_msrs(void)
{
	return calloc(1, sizeof(struct kvm_msrs) + MSRS_MAX * sizeof(struct kvm_msr_entry));
}

/* All that the host knows, but for those that it lists and cannot read. */
static u32 get_msrs(struct state *s, const struct kvm *k, int fd, struct kvm_msr_entry *to)
{
	struct kvm_msr_list *list = calloc(1, sizeof(*list) + MSRS_MAX * sizeof(u32));
	struct kvm_msrs *m = new_msrs();
	u32 nr = 0;

	if (list)
		list->nmsrs = MSRS_MAX;
	if (!list || !m || ioctl(k->sys_fd, KVM_GET_MSR_INDEX_LIST, list)) {
		kvm_failed(s, "msrs");
		goto out;
	}
	for (u32 from = 0; from < list->nmsrs; ) {
		int got;

		m->nmsrs = list->nmsrs - from;
		for (u32 i = 0; i < m->nmsrs; i++)
			m->entries[i] = (struct kvm_msr_entry){ .index = list->indices[from + i] };
		got = ioctl(fd, KVM_GET_MSRS, m);
		if (got < 0) {
			kvm_failed(s, "msrs");
			break;
		}
		memcpy(to + nr, m->entries, got * sizeof(*to));
		nr += got;
		from += got + 1;
	}
out:
	free(list);
	free(m);
	return nr;
}

/* True: set, or it is what it should be anyway. */
static bool set_msr(struct state *s, int fd, struct kvm_msr_entry e)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry[1];
	} one = { .head.nmsrs = 1, .entry = { e } };
	int nr = ioctl(fd, KVM_SET_MSRS, &one);

	if (nr < 0)
		kvm_failed(s, "msrs");
	return nr == 1 || (ioctl(fd, KVM_GET_MSRS, &one) == 1 && one.entry[0].data == e.data);
}

static void set_msrs(struct state *s, int fd, const struct kvm_msr_entry *from, u32 nr)
{
	for (u32 i = 0; i < nr && !state_failed(s); i++) {
		/* A value that a fresh processor has, of a register this host has not. */
		if (from[i].index == MSR_TSC_DEADLINE || set_msr(s, fd, from[i]) || !from[i].data)
			continue;
		state_fail(s, "msrs: this host does not take %#llx for MSR %#x",
			   (unsigned long long)from[i].data, from[i].index);
	}
}

/* Only then: it is forgotten while the local APIC's timer is in another mode. */
static void set_deadline(struct state *s, int fd, const struct kvm_msr_entry *from, u32 nr)
{
	for (u32 i = 0; i < nr && !state_failed(s); i++)
		if (from[i].index == MSR_TSC_DEADLINE && !set_msr(s, fd, from[i]) && from[i].data)
			state_fail(s, "msrs: this host does not take the timer's deadline");
}

/* --- the rest -------------------------------------------------------------------------------------- */

static void xsave_state(struct state *s, const struct kvm *k, int fd)
{
	int size = MAX(kvm_extension(k, KVM_CAP_XSAVE2), (int)sizeof(struct kvm_xsave));
	size_t len = size;
	void *x = calloc(1, XSAVE_MAX);

	if (!x || size > XSAVE_MAX) {
		state_error(s, -ENOMEM, "xsave");
	} else {
		if (!state_loading(s) && ioctl(fd, size > (int)sizeof(struct kvm_xsave) ?
					       KVM_GET_XSAVE2 : KVM_GET_XSAVE, x))
			kvm_failed(s, "xsave");
		state_some_bytes(s, "xsave", x, &len, size);
		if (state_loading(s) && !state_failed(s) && ioctl(fd, KVM_SET_XSAVE, x))
			kvm_failed(s, "xsave");
	}
	free(x);
}

/* A guest that runs guests. */
static void nested_state(struct state *s, const struct kvm *k, int fd)
{
	int max = MIN(kvm_extension(k, KVM_CAP_NESTED_STATE), XSAVE_MAX);
	struct kvm_nested_state *n = calloc(1, XSAVE_MAX);
	size_t len;

	if (!n) {
		state_error(s, -ENOMEM, NULL);
		return;
	}
	n->size = max;
	if (!state_loading(s) && max && ioctl(fd, KVM_GET_NESTED_STATE, n))
		kvm_failed(s, "nested");
	len = MIN(n->size, (u32)max);
	if (state_if(s, "nested", max && (n->flags || n->size > sizeof(*n)))) {
		state_some_bytes(s, "state", n, &len, max);
		if (state_loading(s) && !state_failed(s) &&
		    (len < sizeof(*n) || n->size != len || ioctl(fd, KVM_SET_NESTED_STATE, n)))
			state_fail(s, "this host cannot go on with the guest's own guests");
		state_leave(s);
	}
	free(n);
}

void cpu_state(struct state *s, const struct kvm *k, int fd)
{
	struct kvm_msr_entry *msr = calloc(MSRS_MAX, sizeof(*msr));
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_xcrs xcrs;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp;
	struct kvm_debugregs debug;
	size_t len = 0;

	if (!msr) {
		state_error(s, -ENOMEM, NULL);
		return;
	}
	/* The order is KVM's wish: each looks at what was set before. */
	if (!state_loading(s))
		len = get_msrs(s, k, fd, msr) * sizeof(*msr);
	cpuid_state(s, k, fd);
	/* Getting it settles what events and registers say. */
	raw(s, fd, "mp-state", KVM_GET_MP_STATE, KVM_SET_MP_STATE, &mp, sizeof(mp));
	raw(s, fd, "sregs", KVM_GET_SREGS, KVM_SET_SREGS, &sregs, sizeof(sregs));
	raw(s, fd, "regs", KVM_GET_REGS, KVM_SET_REGS, &regs, sizeof(regs));
	raw(s, fd, "xcrs", KVM_GET_XCRS, KVM_SET_XCRS, &xcrs, sizeof(xcrs));
	xsave_state(s, k, fd);
	state_some_bytes(s, "msrs", msr, &len, MSRS_MAX * sizeof(*msr));
	if (len % sizeof(*msr))
		state_fail(s, "msrs: %zu bytes", len);
	if (state_loading(s))
		set_msrs(s, fd, msr, len / sizeof(*msr));
	raw(s, fd, "lapic", KVM_GET_LAPIC, KVM_SET_LAPIC, &lapic, sizeof(lapic));
	if (state_loading(s))
		set_deadline(s, fd, msr, len / sizeof(*msr));
	raw(s, fd, "events", KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, &events, sizeof(events));
	raw(s, fd, "debugregs", KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, &debug, sizeof(debug));
	nested_state(s, k, fd);
	/* Again, as the registers of a fresh processor made it runnable. */
	if (state_loading(s) && !state_failed(s) && ioctl(fd, KVM_SET_MP_STATE, &mp))
		kvm_failed(s, "mp-state");
	free(msr);
}
