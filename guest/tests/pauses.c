/*
 * pauses.c: promise: a guest that is paused and resumed, however often, loses and repeats nothing:
 * one processor writes a disk and reads back what it wrote before, all others count, each twice, and
 * the first one's timer ticks on. Says "ready" when it has begun; goes on until the power button.
 *
 * cpus=N. Spec: virtio 1.2, 5.2; Intel SDM vol. 3, 11.5.4 (APIC timer); ACPI 6.5, 5.6.9.
 */
#include "guest/lib/apic.h"
#include "guest/lib/blk.h"
#include "guest/lib/start.h"
#include "guest/lib/trap.h"

enum { MAX_CPUS = 8, SECTORS = 64, TICK = 0x2b, BUTTON = 0x26, PERIOD = 100000 };

static struct virtio v;
static struct virtq q;
static u64 data[SECTOR / 8], wanted[SECTORS];
static volatile u64 counted[MAX_CPUS], strange;
static volatile u32 ticks, pressed;

static void on_tick(struct trap_frame *f)
{
	(void)f;
	ticks++;
	apic_eoi();
}

static void on_button(struct trap_frame *f)
{
	(void)f;
	pressed |= inb(PORT_GED) & GED_POWER_BUTTON;
	apic_eoi();
}

/* In memory and in a register. */
static void count(u32 n)
{
	u64 own = 0;

	while (n < MAX_CPUS && !pressed) {
		counted[n]++;
		if (counted[n] != ++own)
			strange++;
	}
	for (;;)
		irq_wait();
}

/* Another word in each sector, and each time. */
static bool write(u64 round)
{
	u64 sector = round % SECTORS, i;

	wanted[sector] = round * 0x9e3779b97f4a7c15ull;
	for (i = 0; i < SECTOR / 8; i++)
		data[i] = wanted[sector] + i;
	return blk_do(&q, BLK_OUT, sector, data, SECTOR, 1, NULL) == BLK_OK;
}

static bool read_back(u64 sector)
{
	u64 i;

	if (blk_do(&q, BLK_IN, sector, data, SECTOR, 1, NULL) != BLK_OK)
		return false;
	for (i = 0; i < SECTOR / 8; i++)
		if (data[i] != wanted[sector] + i)
			return false;
	return true;
}

static void start_timer(void)
{
	trap_set(TICK, on_tick);
	apic_write(APIC_TIMER_DIVIDE, DIVIDE_BY_1);
	apic_write(APIC_LVT_TIMER, TICK | LVT_PERIODIC);
	apic_write(APIC_TIMER_INITIAL, PERIOD * 100);
}

int main(const struct start_info *info, const char *cmdline)
{
	u32 others = (u32)arg_u64("cpus", 1) - 1, i;
	bool good = true;
	u64 round = 0;

	(void)info;
	(void)cmdline;
	apic_init();
	trap_set(BUTTON, on_button);
	ioapic_route(GSI_GED, BUTTON);
	check(blk_start(&v, &q, 0, ~0ull), "the disk starts");
	check(!others || ap_start_all(others, count), "all processors run");
	start_timer();
	asm volatile("sti");
	say("ready\n");
	for (; good && !pressed; round++) {
		good = write(round) && (round < SECTORS || read_back((round * 7) % SECTORS));
		if (round % 16 == 0)
			good = good && blk_do(&q, BLK_FLUSH, 0, NULL, 0, 1, NULL) == BLK_OK;
	}
	asm volatile("cli");
	check(good, "the disk has what was written, for %llu rounds", round);
	check(ticks > 0, "the timer came %u times", ticks);
	for (i = 0; i < others; i++)
		check(counted[i] > 0, "processor %u counted to %llu", i + 1, counted[i]);
	check(!strange, "each by one");
	if (check_result())
		return 1;
	serial_drain();
	outb(PORT_SLEEP_CONTROL, SLEEP_S5);
	poll_until(false);
	return 2;
}
