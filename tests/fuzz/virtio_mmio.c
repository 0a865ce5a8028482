/*
 * virtio_mmio.c: a guest reads and writes the registers of virtio over MMIO in any order
 * and size.  Each reads as virtio 1.2, 4.2 says; the device is started and stopped and
 * its queues are kicked when, and only when, the registers say so.
 */
#include <linux/virtio_mmio.h>
#include <string.h>
#include "tests/fuzz/lib/probe.h"

static struct probe_model m;
static struct {
	u32 offered_sel, accepted_sel, queue_sel, interrupts;
} reg;

static u64 expected(u64 at, unsigned size)
{
	struct probe_queue *q = probe_queue(&m, reg.queue_sel);

	if (at + size > VIRTIO_MMIO_LEN)
		return ~0ULL >> (64 - 8 * size);
	if (at >= VIRTIO_MMIO_CONFIG)
		return probe_config(&m, at - VIRTIO_MMIO_CONFIG, size);
	if (size != 4)
		return 0;
	switch (at) {
	case VIRTIO_MMIO_MAGIC_VALUE:		return 0x74726976;
	case VIRTIO_MMIO_VERSION:		return 2;
	case VIRTIO_MMIO_DEVICE_ID:		return PROBE_ID;
	case VIRTIO_MMIO_VENDOR_ID:		return 0x4d4d56;
	case VIRTIO_MMIO_DEVICE_FEATURES:	return probe_offered(&m, reg.offered_sel);
	case VIRTIO_MMIO_QUEUE_NUM_MAX:		return q ? PROBE_QUEUE_MAX : 0;
	case VIRTIO_MMIO_QUEUE_READY:		return q && q->ready;
	case VIRTIO_MMIO_INTERRUPT_STATUS:	return reg.interrupts;
	case VIRTIO_MMIO_STATUS:		return probe_status(&m);
	case VIRTIO_MMIO_CONFIG_GENERATION:	return m.generation;
	case VIRTIO_MMIO_SHM_LEN_LOW:
	case VIRTIO_MMIO_SHM_LEN_HIGH:
	case VIRTIO_MMIO_SHM_BASE_LOW:
	case VIRTIO_MMIO_SHM_BASE_HIGH:		return ~0U;
	}
	return 0;
}

static void expect_queue(u64 at, u32 value)
{
	static const u16 half[] = { VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_AVAIL_LOW,
				    VIRTIO_MMIO_QUEUE_USED_LOW };
	struct probe_queue *q = probe_setup(&m, reg.queue_sel);

	if (at == VIRTIO_MMIO_QUEUE_READY && !value)
		probe_disable(&m, reg.queue_sel);
	if (!q)
		return;
	if (at == VIRTIO_MMIO_QUEUE_READY)
		q->ready = value;
	if (at == VIRTIO_MMIO_QUEUE_NUM)
		q->size = MIN(value, 0xffff);
	for (int i = 0; i < 3; i++)
		if (at == half[i] || at == half[i] + 4U)
			probe_set_half(&q->addr[i], at != half[i], value);
}

static void expect_write(u64 at, unsigned size, u32 value)
{
	int changes = m.config_changes;

	if (size != 4 || at >= VIRTIO_MMIO_CONFIG)
		return;
	switch (at) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
		reg.offered_sel = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
		reg.accepted_sel = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES:
		probe_accept(&m, reg.accepted_sel, value);
		break;
	case VIRTIO_MMIO_QUEUE_SEL:
		reg.queue_sel = value;
		break;
	case VIRTIO_MMIO_QUEUE_NOTIFY:
		probe_kick(&m, value);
		break;
	case VIRTIO_MMIO_INTERRUPT_ACK:
		reg.interrupts &= ~value;
		break;
	case VIRTIO_MMIO_STATUS:
		probe_set_status(&m, value);
		if (!(u8)value)
			reg.interrupts = 0;
		break;
	default:
		expect_queue(at, value);
	}
	if (m.config_changes != changes)
		reg.interrupts |= VIRTIO_MMIO_INT_CONFIG;
}

static void check(struct hostile *h, u64 at, unsigned size)
{
	u64 got = bus_read(&h->fake.mmio, HOSTILE_BASE + at, size), want = expected(at, size);

	fuzz_check(got == want, "%u bytes at %#llx: %#llx, not %#llx", size, (unsigned long long)at,
		   (unsigned long long)got, (unsigned long long)want);
}

static void write_to(struct hostile *h, u64 at, unsigned size, u64 value)
{
	value &= ~0ULL >> (64 - 8 * size);
	bus_write(&h->fake.mmio, HOSTILE_BASE + at, size, value);
	expect_write(at, size, value);
}

/* What a driver would write to this register next, or nearly. */
static u64 likely(struct fuzz *f, u64 at)
{
	u8 b = fuzz_u8(f);

	switch (at) {
	case VIRTIO_MMIO_STATUS:
		return b & 0x80 ? STATUS_RUNNING : b == 0x40 ? 0x100 : b & 0x0f;
	case VIRTIO_MMIO_DRIVER_FEATURES:
		return reg.accepted_sel ? 1 : b;
	case VIRTIO_MMIO_QUEUE_NUM:
		return 1U << b % 8;
	case VIRTIO_MMIO_QUEUE_NOTIFY:
		return b & 0x80 ? b << 8 : b % 4;
	}
	return at >= VIRTIO_MMIO_QUEUE_DESC_LOW ? (at & 4 ? 0 : b << 4) : b % 4;
}

/* What the rest of the machine does meanwhile. */
static void change(struct hostile *h, u8 step)
{
	struct fake_irq *pin = fake_line(&h->fake, FAKE_EDGE, HOSTILE_GSI);
	int before = pin->raises, changes = m.config_changes;

	if (step & 4) {
		probe_pause(&m, step & 8);
		return;
	}
	probe_change(&m);
	fuzz_check(pin->raises - before == m.config_changes - changes, "%d interrupts",
		   pin->raises - before);
	if (m.config_changes != changes)
		reg.interrupts |= VIRTIO_MMIO_INT_CONFIG;
}

static void interrupt(struct hostile *h, int i)
{
	struct fake_irq *pin = fake_line(&h->fake, FAKE_EDGE, HOSTILE_GSI);
	int before = pin->raises;

	if (i < PROBE_QUEUES) {
		irq_raise(m.p->v.vq[i].irq);
		reg.interrupts |= VIRTIO_MMIO_INT_VRING;
	} else {
		virtio_broken(&m.p->v, "says the test");
		probe_break(&m);
		reg.interrupts |= VIRTIO_MMIO_INT_CONFIG;
	}
	fuzz_check(pin->raises == before + 1, "%d interrupts", pin->raises - before);
}

void fuzz_one(struct fuzz *f)
{
	static const u8 registers[] = {
		VIRTIO_MMIO_STATUS, VIRTIO_MMIO_DRIVER_FEATURES_SEL, VIRTIO_MMIO_DRIVER_FEATURES,
		VIRTIO_MMIO_QUEUE_SEL, VIRTIO_MMIO_QUEUE_NUM, VIRTIO_MMIO_QUEUE_READY,
		VIRTIO_MMIO_QUEUE_NOTIFY, VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_AVAIL_LOW,
		VIRTIO_MMIO_QUEUE_USED_LOW, VIRTIO_MMIO_DEVICE_FEATURES_SEL,
		VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_QUEUE_USED_HIGH,
	};
	struct hostile *h = hostile_begin(f);
	struct device *dev = hostile_plug(&probe_new(h, &m)->v);
	u64 at;

	memset(&reg, 0, sizeof(reg));
	fuzz_check(h->fake.nr_bells == PROBE_QUEUES, "%d doorbells", h->fake.nr_bells);
	while (f->left) {
		u8 step = fuzz_u8(f);

		switch (step >> 5) {
		case 0:
			at = fuzz_u16(f) % VIRTIO_MMIO_LEN;
			check(h, at, fuzz_size(f));
			break;
		case 1:
			at = fuzz_u16(f) % VIRTIO_MMIO_LEN;
			write_to(h, at, fuzz_size(f), fuzz_u64(f));
			break;
		case 2:
			if (step & 0x10)
				change(h, step);
			else
				interrupt(h, step % (PROBE_QUEUES + 1));
			break;
		case 3:
			probe_turn(h, &m);
			break;
		default:
			at = registers[step % sizeof(registers)];
			write_to(h, at, 4, likely(f, at));
		}
	}
	for (at = 0; at < 0x140; at += 4)
		check(h, at, 4);
	/* Whatever was done to it, it can be used after a reset. */
	probe_pause(&m, false);
	write_to(h, VIRTIO_MMIO_STATUS, 4, 0);
	probe_turn(h, &m);
	write_to(h, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 4, 1);
	write_to(h, VIRTIO_MMIO_DRIVER_FEATURES, 4, 1);
	write_to(h, VIRTIO_MMIO_QUEUE_SEL, 4, 1);
	write_to(h, VIRTIO_MMIO_QUEUE_READY, 4, 1);
	write_to(h, VIRTIO_MMIO_STATUS, 4, STATUS_RUNNING);
	check(h, VIRTIO_MMIO_STATUS, 4);
	fuzz_check(m.running, "it does not start after a reset");
	probe_turn(h, &m);
	write_to(h, VIRTIO_MMIO_QUEUE_NOTIFY, 4, 1);
	probe_turn(h, &m);
	hostile_end(h, dev);
}
