/*
 * apic.c: the local APIC, in either of its modes, the IOAPIC, and further processors.
 *
 * Spec: Intel SDM vol. 3, 11 (APIC), 9.4 (MP initialization); Intel 82093AA.
 */
#include "guest/lib/apic.h"

#include "guest/lib/mem.h"
#include "guest/lib/string.h"
#include "guest/lib/trap.h"

enum {
	MSR_X2APIC = 0x800,		/* + register / 16 */
	ICR_PENDING = 1 << 12,
	AP_PAGE = 0x60000,		/* vmm puts what it hands over elsewhere */
	PORT_PIC_MASTER = 0x21, PORT_PIC_SLAVE = 0xa1,
	IOAPIC_SELECT = 0, IOAPIC_WINDOW = 0x10, IOAPIC_REDIRECTION = 0x10,
};

extern const u8 ap_trampoline[], ap_trampoline_end[];
extern void (*volatile ap_main)(u32 n);
extern volatile u32 ap_count;

static bool x2;

u32 apic_read(u32 reg)
{
	return x2 ? (u32)rdmsr(MSR_X2APIC + reg / 16) : mmio_read32(LAPIC_BASE + reg);
}

void apic_write(u32 reg, u32 v)
{
	if (x2)
		wrmsr(MSR_X2APIC + reg / 16, v);
	else
		mmio_write32(LAPIC_BASE + reg, v);
}

void apic_init(void)
{
	/* A PIC, where there is one, would deliver the same lines a second time. */
	outb(PORT_PIC_MASTER, 0xff);
	outb(PORT_PIC_SLAVE, 0xff);
	apic_write(APIC_TPR, 0);
	apic_write(APIC_SVR, SVR_ENABLE | TRAP_SPURIOUS);
}

void apic_enable_x2(void)
{
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_BASE_ENABLE | APIC_BASE_X2);
	x2 = true;
	apic_init();
}

u32 apic_id(void)
{
	return x2 ? apic_read(APIC_ID) : apic_read(APIC_ID) >> 24;
}

void apic_eoi(void)
{
	apic_write(APIC_EOI, 0);
}

void apic_send(u32 to, u32 icr_low)
{
	if (x2) {
		wrmsr(MSR_X2APIC + APIC_ICR / 16, (u64)to << 32 | icr_low);
		return;
	}
	mmio_write32(LAPIC_BASE + APIC_ICR + 0x10, to << 24);
	mmio_write32(LAPIC_BASE + APIC_ICR, icr_low);
	poll_until(!(mmio_read32(LAPIC_BASE + APIC_ICR) & ICR_PENDING));
}

u32 ioapic_read(u32 reg)
{
	mmio_write32(IOAPIC_BASE + IOAPIC_SELECT, reg);
	return mmio_read32(IOAPIC_BASE + IOAPIC_WINDOW);
}

void ioapic_write(u32 reg, u32 v)
{
	mmio_write32(IOAPIC_BASE + IOAPIC_SELECT, reg);
	mmio_write32(IOAPIC_BASE + IOAPIC_WINDOW, v);
}

void ioapic_route(u32 gsi, u8 vector)
{
	ioapic_write(IOAPIC_REDIRECTION + gsi * 2 + 1, apic_id() << 24);
	ioapic_write(IOAPIC_REDIRECTION + gsi * 2, vector);
}

void ioapic_mask(u32 gsi)
{
	ioapic_write(IOAPIC_REDIRECTION + gsi * 2, IOAPIC_MASKED);
}

static bool ap_send_and_wait(u32 to, u32 shorthand, u32 nr, void (*run)(u32 n))
{
	u32 want = ap_count + nr;
	u32 sipi = shorthand | ICR_SIPI | AP_PAGE >> 12;

	memcpy(mem_at(AP_PAGE), ap_trampoline, (size_t)(ap_trampoline_end - ap_trampoline));
	ap_main = run;
	barrier_full();
	apic_send(to, shorthand | ICR_INIT | ICR_ASSERT);
	apic_send(to, sipi);
	if (poll_until(ap_count >= want))
		return true;
	/* Hardware may want a second one; a processor that already runs ignores it. */
	apic_send(to, sipi);
	return poll_until(ap_count >= want);
}

bool ap_start(u32 id, void (*run)(u32 n))
{
	return ap_send_and_wait(id, 0, 1, run);
}

bool ap_start_all(u32 nr, void (*run)(u32 n))
{
	return ap_send_and_wait(0, ICR_ALL_BUT_SELF, nr, run);
}
