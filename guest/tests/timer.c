/*
 * timer.c: promise: time passes: local APIC timer, one-shot and periodic, TSC deadline, TSC,
 * kvmclock and RTC. That they come is checked, not when.
 *
 * Each wait is a hlt: a timer that does not come hangs, and the runner's time limit says so.
 *
 * Spec: Intel SDM vol. 3, 11.5.4 (APIC timer), 18.17 (TSC); Linux
 * Documentation/virt/kvm/x86/msr.rst; Motorola MC146818A.
 */
#include "guest/lib/apic.h"
#include "guest/lib/mem.h"
#include "guest/lib/start.h"
#include "guest/lib/string.h"
#include "guest/lib/trap.h"

enum {
	VECTOR = 0x2b, COUNT = 100000,
	ECX_TSC_DEADLINE = 1 << 24,
	KVM_LEAF = 0x40000000, KVM_FEATURES = 0x40000001, KVM_CLOCKSOURCE2 = 1 << 3,
	MSR_WALL_CLOCK = 0x4b564d00, MSR_SYSTEM_TIME = 0x4b564d01,
	RTC_SECONDS = 0, RTC_MINUTES = 2, RTC_HOURS = 4, RTC_DAY = 7, RTC_MONTH = 8, RTC_YEAR = 9,
	RTC_A = 10, RTC_B = 11, RTC_D = 13,
	RTC_A_UPDATING = 0x80, RTC_B_BINARY = 4, RTC_B_24H = 2, RTC_D_VALID = 0x80,
};

struct pv_time {
	u32 version, pad0;
	u64 tsc_timestamp, system_time;
	u32 tsc_to_system_mul;
	signed char tsc_shift;
	u8 flags, pad[2];
};

struct pv_wall {
	u32 version, seconds, nanoseconds;
};

static volatile struct pv_time pv_time __attribute__((aligned(32)));
static volatile struct pv_wall pv_wall __attribute__((aligned(4)));
static volatile u32 ticks;

static void on_tick(struct trap_frame *f)
{
	(void)f;
	ticks++;
	apic_eoi();
}

static void wait_for(u32 nr)
{
	while (ticks < nr)
		irq_wait();
}

static void test_apic_timer(const char *mode)
{
	ticks = 0;
	apic_write(APIC_TIMER_DIVIDE, DIVIDE_BY_1);
	apic_write(APIC_LVT_TIMER, VECTOR);
	apic_write(APIC_TIMER_INITIAL, COUNT);
	wait_for(1);
	check(ticks == 1 && !apic_read(APIC_TIMER_CURRENT), "%s one-shot timer", mode);

	ticks = 0;
	apic_write(APIC_LVT_TIMER, VECTOR | LVT_PERIODIC);
	apic_write(APIC_TIMER_INITIAL, COUNT * 10);
	wait_for(3);
	apic_write(APIC_TIMER_INITIAL, 0);
	apic_write(APIC_LVT_TIMER, LVT_MASKED);
	check(true, "%s periodic timer, three times", mode);
}

static void test_deadline(void)
{
	if (!(cpuid(1, 0).ecx & ECX_TSC_DEADLINE)) {
		check_skip("no TSC deadline");
		return;
	}
	ticks = 0;
	apic_write(APIC_LVT_TIMER, VECTOR | LVT_TSC_DEADLINE);
	barrier_full();
	wrmsr(MSR_TSC_DEADLINE, rdtsc() + COUNT);
	wait_for(1);
	check(!rdmsr(MSR_TSC_DEADLINE), "TSC deadline, which is then 0");
	wrmsr(MSR_TSC_DEADLINE, 1);
	wait_for(2);
	check(true, "one in the past comes at once");
	apic_write(APIC_LVT_TIMER, LVT_MASKED);
}

static void test_tsc(void)
{
	u64 last = rdtsc(), now;
	unsigned i, back = 0;

	for (i = 0; i < 100; i++, last = now) {
		poll_pause();
		now = rdtsc();
		back += now <= last;
	}
	check(!back, "the TSC goes forward");
}

static u64 pv_now(void)
{
	u64 delta = rdtsc() - pv_time.tsc_timestamp;

	if (pv_time.tsc_shift < 0)
		delta >>= -pv_time.tsc_shift;
	else
		delta <<= pv_time.tsc_shift;
	return pv_time.system_time + (u64)((unsigned __int128)delta * pv_time.tsc_to_system_mul >>
					   32);
}

static void test_kvmclock(void)
{
	struct cpuid c = cpuid(KVM_LEAF, 0);
	u64 before;
	u32 i;

	if (memcmp(&c.ebx, "KVMK", 4) || !(cpuid(KVM_FEATURES, 0).eax & KVM_CLOCKSOURCE2)) {
		check_skip("no kvmclock");
		return;
	}
	wrmsr(MSR_SYSTEM_TIME, mem_addr(&pv_time) | 1);
	/* The page is filled on the way into the guest. */
	poll_until(pv_time.version && !(pv_time.version & 1));
	check(pv_time.version && pv_time.tsc_to_system_mul, "kvmclock fills its page");
	before = pv_now();
	for (i = 0; i < 100; i++)
		poll_pause();
	check(pv_now() > before, "kvmclock goes forward");
	wrmsr(MSR_WALL_CLOCK, mem_addr(&pv_wall));
	poll_pause();
	check(pv_wall.seconds > 1700000000, "its wall clock is of this time: %d", pv_wall.seconds);
	wrmsr(MSR_SYSTEM_TIME, 0);
}

static u8 rtc(u8 reg)
{
	outb(PORT_RTC_INDEX, reg);
	return inb(PORT_RTC_DATA);
}

static u8 rtc_number(u8 reg)
{
	u8 v = rtc(reg);

	return rtc(RTC_B) & RTC_B_BINARY ? v : (u8)((v >> 4) * 10 + (v & 15));
}

static void test_rtc(void)
{
	check(rtc(RTC_D) & RTC_D_VALID, "RTC: time is valid");
	check(poll_until(!(rtc(RTC_A) & RTC_A_UPDATING)), "RTC: no update lasts for ever");
	check(rtc(RTC_B) & RTC_B_24H, "RTC: 24 hours");
	check(rtc_number(RTC_SECONDS) < 60 && rtc_number(RTC_MINUTES) < 60 &&
	      rtc_number(RTC_HOURS) < 24 && rtc_number(RTC_DAY) - 1u < 31 &&
	      rtc_number(RTC_MONTH) - 1u < 12 && rtc_number(RTC_YEAR) >= 24,
	      "RTC: a date of this century, day %d month %d year %d", rtc_number(RTC_DAY),
	      rtc_number(RTC_MONTH), rtc_number(RTC_YEAR));
}

int main(const struct start_info *info, const char *cmdline)
{
	(void)info;
	(void)cmdline;
	apic_init();
	trap_set(VECTOR, on_tick);
	test_tsc();
	test_apic_timer("xAPIC");
	test_deadline();
	test_kvmclock();
	test_rtc();
	if (cpuid(1, 0).ecx >> 21 & 1) {
		apic_enable_x2();
		test_apic_timer("x2APIC");
		test_deadline();
	}
	return check_result();
}
