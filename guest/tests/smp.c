/*
 * smp.c: promise: every processor that the MADT names starts by INIT and SIPI, is who CPUID says,
 * and takes interrupts, also out of hlt. cpus=N; how=broadcast starts all with one IPI; x2apic uses
 * that mode.
 *
 * Spec: Intel SDM vol. 3, 9.4 (MP initialization), 11.6 (IPIs), 11.12 (x2APIC).
 */
#include "guest/lib/acpi.h"
#include "guest/lib/apic.h"
#include "guest/lib/start.h"
#include "guest/lib/trap.h"

enum { MAX_CPUS = 64, VECTOR = 0x2a };

struct cpu {
	u32 apic_id, leaf1_id, leafb_id;
};

static u32 ids[MAX_CPUS];
static struct cpu cpus[MAX_CPUS];
static volatile u32 arrived, answered, strange;
static bool x2;

static void on_ipi(struct trap_frame *f)
{
	(void)f;
	apic_eoi();
	atomic_add(&answered, 1);
}

static void look(struct cpu *c)
{
	c->apic_id = apic_id();
	c->leaf1_id = cpuid(1, 0).ebx >> 24;
	c->leafb_id = cpuid(0xb, 0).edx;
}

static void run(u32 n)
{
	if (n + 1 >= MAX_CPUS) {
		atomic_add(&strange, 1);
		return;
	}
	if (x2)
		apic_enable_x2();
	else
		apic_init();
	look(&cpus[n + 1]);
	if (rdmsr(MSR_APIC_BASE) & APIC_BASE_BSP)
		atomic_add(&strange, 1);
	atomic_add(&arrived, 1);
	for (;;)
		irq_wait();
}

static bool seen(u32 id, unsigned nr)
{
	unsigned i;

	for (i = 0; i < nr; i++)
		if (cpus[i].apic_id == id)
			return true;
	return false;
}

static void test_ids(unsigned nr)
{
	unsigned i, missing = 0, leaf1 = 0, leafb = 0;
	bool has_b = cpuid(0, 0).eax >= 0xb && cpuid(0xb, 0).ebx;

	for (i = 0; i < nr; i++) {
		missing += !seen(ids[i], nr);
		leaf1 += cpus[i].leaf1_id != cpus[i].apic_id;
		leafb += cpus[i].leafb_id != cpus[i].apic_id;
	}
	check(!missing, "each id of the MADT was met (%d were not)", missing);
	check(!leaf1, "CPUID leaf 1 has the APIC id (%d have not)", leaf1);
	if (has_b)
		check(!leafb, "and so has leaf B (%d have not)", leafb);
	else
		check_skip("no CPUID leaf B");
}

static void test_topology(unsigned nr)
{
	struct cpuid b;
	u32 level, most = 0;

	if (cpuid(0, 0).eax < 0xb || !cpuid(0xb, 0).ebx)
		return;
	for (level = 0; level < 8; level++) {
		b = cpuid(0xb, level);
		if (!(b.ecx >> 8 & 0xff))
			break;
		most = b.ebx & 0xffff;
	}
	check(level > 0 && most >= nr, "CPUID leaf B: %d levels, the last of %d processors", level,
	      most);
}

static void test_start(unsigned nr)
{
	unsigned i;
	u32 me = apic_id();

	if (arg_is("how", "broadcast")) {
		check(nr == 1 || ap_start_all(nr - 1, run), "one INIT and SIPI for all others");
	} else {
		for (i = 0; i < nr; i++)
			if (ids[i] != me && !ap_start(ids[i], run))
				check(false, "APIC id %d starts", ids[i]);
	}
	poll_until(arrived == nr - 1);
	check(arrived == nr - 1, "%d others arrived", arrived);
}

/* One at a time, so that a lost one is known by its id; then all at once. */
static void test_ipis(unsigned nr)
{
	unsigned i, lost = 0;
	u32 before;

	for (i = 0; i < nr; i++) {
		before = answered;
		apic_send(ids[i], ICR_FIXED | ICR_ASSERT | VECTOR);
		lost += !poll_until(answered == before + 1);
	}
	check(!lost, "each answers an IPI (%d did not)", lost);
	before = answered;
	apic_send(0, ICR_ALL_BUT_SELF | ICR_FIXED | ICR_ASSERT | VECTOR);
	check(poll_until(answered == before + nr - 1), "and all others one broadcast");
}

int main(const struct start_info *info, const char *cmdline)
{
	unsigned nr = acpi_cpus(ids, MAX_CPUS);

	(void)info;
	(void)cmdline;
	x2 = arg_find("x2apic");
	if (x2 && !(cpuid(1, 0).ecx >> 21 & 1)) {
		check(false, "CPUID has x2APIC");
		return 1;
	}
	if (!check(nr == arg_u64("cpus", 1) && nr <= MAX_CPUS, "the MADT has %d processors", nr))
		return 1;
	if (x2)
		apic_enable_x2();
	else
		apic_init();
	check(rdmsr(MSR_APIC_BASE) & APIC_BASE_BSP, "this is the boot processor");
	trap_set(VECTOR, on_ipi);
	look(&cpus[0]);
	test_start(nr);
	test_ids(nr);
	test_topology(nr);
	irq_enable();
	test_ipis(nr);
	check(!strange, "no stray processors");
	return check_result();
}
