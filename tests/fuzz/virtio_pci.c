/*
 * virtio_pci.c: a guest reads and writes the config space and the BAR of virtio over PCI
 * in any order and size, and moves the BAR about.  Config space changes where it may and
 * nowhere else; the BAR answers where it was put; each register reads as virtio 1.2, 4.1
 * says; an interrupt is one message to where its vector points, or waits for its mask.
 */
#include <linux/pci_regs.h>
#include <linux/virtio_pci.h>
#include <string.h>
#include "devices/pci/pci.h"
#include "tests/fuzz/lib/probe.h"

/* The second half of the ECAM is a guest's to put a BAR over, in vain. */
enum { ECAM = 0xe0000000, WINDOW = 0xc0000000, FUNCTION = ECAM + (1 << 15), BAR_LEN = 0x8000 };
enum { PORTS_LEN = 0x80, CONF1 = 0xcf8 };
enum { COMMON = 0, ISR = 0x1000, CONFIG = 0x2000, NOTIFY = 0x3000, TABLE = 0x4000, PBA = 0x5000,
       PART = 0x1000 };
enum { VECTORS = PROBE_QUEUES + 1, NONE = 0xffff };
enum { MSIX_ON = 0x8000, MSIX_ALL_MASKED = 0x4000 };

static struct probe_model m;
static struct {
	u8 config[PCI_CONFIG_LEN], writable[PCI_CONFIG_LEN];
	unsigned msix, window;			/* the capabilities */
	u64 bar, ports;				/* 0: nowhere */
	u32 offered_sel, accepted_sel;
	u16 queue_sel, vector[VECTORS];		/* the last is the configuration's */
	u8 isr;
	struct {
		u32 entry[4];
		bool pending;
	} table[VECTORS];
	int sent;
} pci;

/* --- config space --------------------------------------------------------------------- */

static u32 get(unsigned at, unsigned size)
{
	u32 value = 0;

	memcpy(&value, pci.config + at, size);
	return value;
}

static void find_caps(struct hostile *h)
{
	for (int i = 0; i < PCI_CONFIG_LEN; i++)
		pci.config[i] = bus_read(&h->fake.mmio, FUNCTION + i, 1);
	for (unsigned at = get(PCI_CAPABILITY_LIST, 1); at; at = get(at + PCI_CAP_LIST_NEXT, 1)) {
		if (get(at, 1) == PCI_CAP_ID_MSIX)
			pci.msix = at;
		if (get(at, 1) == PCI_CAP_ID_VNDR && get(at + 3, 1) == VIRTIO_PCI_CAP_PCI_CFG)
			pci.window = at;
	}
	fuzz_check(pci.msix && pci.window, "capabilities are missing");
	fuzz_check((get(pci.msix + PCI_MSIX_FLAGS, 2) & PCI_MSIX_FLAGS_QSIZE) == VECTORS - 1,
		   "%u vectors", get(pci.msix + PCI_MSIX_FLAGS, 2) + 1);
}

/* PCI 3.0, 6.1 and 6.8.2; virtio 1.2, 4.1.4.9. */
static void find_writable(void)
{
	u64 bar = ~(u64)(BAR_LEN - 1);
	u32 ports = ~(u32)(PORTS_LEN - 1);

	memcpy(pci.writable + PCI_BASE_ADDRESS_0, &bar, sizeof(bar));
	memcpy(pci.writable + PCI_BASE_ADDRESS_2, &ports, sizeof(ports));
	pci.writable[PCI_COMMAND] = PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	pci.writable[PCI_COMMAND + 1] = PCI_COMMAND_INTX_DISABLE >> 8;
	pci.writable[PCI_CACHE_LINE_SIZE] = pci.writable[PCI_INTERRUPT_LINE] = 0xff;
	pci.writable[pci.msix + PCI_MSIX_FLAGS + 1] = (MSIX_ON | MSIX_ALL_MASKED) >> 8;
	pci.writable[pci.window + 4] = 0xff;
	memset(pci.writable + pci.window + 8, 0xff, 12);
}

static bool msix_on(void)
{
	return get(pci.msix + PCI_MSIX_FLAGS, 2) & MSIX_ON;
}

static bool masked(int i)
{
	return !msix_on() || get(pci.msix + PCI_MSIX_FLAGS, 2) & MSIX_ALL_MASKED ||
	       pci.table[i].entry[3] & 1;
}

static void send_pending(void)
{
	for (int i = 0; i < VECTORS; i++) {
		if (!masked(i) && pci.table[i].pending)
			pci.sent++;
		if (!msix_on() || !masked(i))
			pci.table[i].pending = false;
	}
}

static void place_bar(void)
{
	u64 bar = (u64)get(PCI_BASE_ADDRESS_1, 4) << 32 | (get(PCI_BASE_ADDRESS_0, 4) & ~15U);
	bool asked = (u32)bar == (u32)-BAR_LEN, last = bar > ~0ULL - BAR_LEN;
	u32 ports = get(PCI_BASE_ADDRESS_2, 4) & ~3U;

	pci.bar = get(PCI_COMMAND, 2) & PCI_COMMAND_MEMORY && !asked && !last &&
		  (bar >= ECAM + PCI_ECAM_LEN || bar + BAR_LEN <= ECAM) ? bar : 0;
	pci.ports = get(PCI_COMMAND, 2) & PCI_COMMAND_IO && ports <= 0x10000 - PORTS_LEN &&
		    (ports >= CONF1 + 8 || ports + PORTS_LEN <= CONF1) ? ports : 0;
}

/* --- the BAR --------------------------------------------------------------------------------- */

static u64 expected_queue(u64 at)
{
	struct probe_queue *q = probe_queue(&m, pci.queue_sel);

	if (!q)
		return 0;
	switch (at) {
	case VIRTIO_PCI_COMMON_Q_SIZE:		return q->size;
	case VIRTIO_PCI_COMMON_Q_MSIX:		return pci.vector[pci.queue_sel];
	case VIRTIO_PCI_COMMON_Q_ENABLE:	return q->ready;
	case VIRTIO_PCI_COMMON_Q_NOFF:		return pci.queue_sel;
	case VIRTIO_PCI_COMMON_Q_DESCLO:	return q->addr[0];
	case VIRTIO_PCI_COMMON_Q_DESCHI:	return q->addr[0] >> 32;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:	return q->addr[1];
	case VIRTIO_PCI_COMMON_Q_AVAILHI:	return q->addr[1] >> 32;
	case VIRTIO_PCI_COMMON_Q_USEDLO:	return q->addr[2];
	case VIRTIO_PCI_COMMON_Q_USEDHI:	return q->addr[2] >> 32;
	}
	return 0;
}

static u64 expected_common(u64 at)
{
	switch (at) {
	case VIRTIO_PCI_COMMON_DFSELECT:	return pci.offered_sel;
	case VIRTIO_PCI_COMMON_DF:		return probe_offered(&m, pci.offered_sel);
	case VIRTIO_PCI_COMMON_GFSELECT:	return pci.accepted_sel;
	case VIRTIO_PCI_COMMON_GF:		return probe_accepted(&m, pci.accepted_sel);
	case VIRTIO_PCI_COMMON_MSIX:		return pci.vector[PROBE_QUEUES];
	case VIRTIO_PCI_COMMON_NUMQ:		return PROBE_QUEUES;
	case VIRTIO_PCI_COMMON_STATUS:		return probe_status(&m);
	case VIRTIO_PCI_COMMON_CFGGENERATION:	return m.generation;
	case VIRTIO_PCI_COMMON_Q_SELECT:	return pci.queue_sel;
	}
	return expected_queue(at);
}

/* Only as wide as it is; an address also in one. */
static bool good_width(u64 at, unsigned size)
{
	static const u8 width[] = { 4, 4, 4, 4, 0x22, 0x12, 2, 2, 2, 2, 4, 4, 4, 4, 4, 4 };

	if (at >= 0x20 && at < 0x38)
		return (size == 4 && at % 4 == 0) || (size == 8 && at % 8 == 0);
	switch (at) {
	case VIRTIO_PCI_COMMON_STATUS:
	case VIRTIO_PCI_COMMON_CFGGENERATION:
		return size == 1;
	}
	if (at < 0x10)
		return size == width[at / 4] && at % 4 == 0;
	return at < 0x20 && at != 0x14 && at % 2 == 0 && size == 2;
}

static u64 expected_table(u64 at, unsigned size)
{
	u64 value = 0;

	if (size >= 4 && at % size == 0 && at < 16 * VECTORS)
		memcpy(&value, (u8 *)pci.table[at / 16].entry + at % 16, size);
	return value;
}

static u64 expected_pba(u64 at, unsigned size)
{
	u64 bits = 0;

	for (int i = 0; i < VECTORS; i++)
		bits |= (u64)pci.table[i].pending << i;
	return at < 8 && at % size == 0 ? bits >> 8 * at : 0;
}

static u64 read_bar(u64 at, unsigned size)
{
	u64 value = 0;

	switch (at / PART * PART) {
	case COMMON:
		if (good_width(at, size))
			value = expected_common(at);
		if (good_width(at, size) && size == 8)
			value |= expected_common(at + 4) << 32;
		break;
	case ISR:
		if (at == ISR) {
			value = pci.isr;
			pci.isr = 0;
		}
		break;
	case CONFIG:
		value = probe_config(&m, at - CONFIG, size);
		break;
	case TABLE:
		value = expected_table(at - TABLE, size);
		break;
	case PBA:
		value = expected_pba(at - PBA, size);
		break;
	}
	return value & ~0ULL >> (64 - 8 * size);
}

static void write_queue(u64 at, u32 value)
{
	struct probe_queue *q = probe_setup(&m, pci.queue_sel);

	if (at == VIRTIO_PCI_COMMON_Q_MSIX && pci.queue_sel < PROBE_QUEUES && !(m.status & STATUS_DRIVER_OK))
		pci.vector[pci.queue_sel] = value < VECTORS ? value : NONE;
	if (!q)
		return;
	switch (at) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		q->size = value;
		break;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		q->ready |= value == 1;
		break;
	case VIRTIO_PCI_COMMON_Q_DESCLO ... VIRTIO_PCI_COMMON_Q_USEDHI:
		probe_set_half(&q->addr[(at - VIRTIO_PCI_COMMON_Q_DESCLO) / 8], at & 4, value);
		break;
	}
}

static void pull(int vector, u8 bit)
{
	if (msix_on() && vector < VECTORS) {
		pci.table[vector].pending = true;
		send_pending();
	}
	if (!msix_on() || vector >= VECTORS || bit == VIRTIO_PCI_ISR_CONFIG)
		pci.isr |= bit;
}

static void write_common(u64 at, u32 value)
{
	int changes = m.config_changes;

	switch (at) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		pci.offered_sel = value;
		break;
	case VIRTIO_PCI_COMMON_GFSELECT:
		pci.accepted_sel = value;
		break;
	case VIRTIO_PCI_COMMON_GF:
		probe_accept(&m, pci.accepted_sel, value);
		break;
	case VIRTIO_PCI_COMMON_MSIX:
		pci.vector[PROBE_QUEUES] = value < VECTORS ? value : NONE;
		break;
	case VIRTIO_PCI_COMMON_STATUS:
		probe_set_status(&m, value);
		if (m.config_changes != changes)
			pull(pci.vector[PROBE_QUEUES], VIRTIO_PCI_ISR_CONFIG);
		if (!value) {
			memset(pci.vector, 0xff, sizeof(pci.vector));
			pci.isr = 0;
		}
		break;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		pci.queue_sel = value;
		break;
	default:
		write_queue(at, value);
	}
}

static void write_bar(u64 at, unsigned size, u64 value)
{
	switch (at / PART * PART) {
	case COMMON:
		if (!good_width(at, size))
			break;
		write_common(at, value);
		if (size == 8)
			write_common(at + 4, value >> 32);
		break;
	case NOTIFY:
		probe_kick(&m, (at - NOTIFY) / 4);
		break;
	case TABLE:
		at -= TABLE;
		if (size < 4 || at % size || at >= 16 * VECTORS)
			break;
		memcpy((u8 *)pci.table[at / 16].entry + at % 16, &value, size);
		pci.table[at / 16].entry[0] &= ~3U;
		pci.table[at / 16].entry[3] &= 1;
		send_pending();
		break;
	}
}

/* The window onto the BAR in config space: is it meant, and where does it look? */
static bool by_window(unsigned at, unsigned size, u32 *bar, unsigned *len)
{
	*bar = get(pci.window + 8, 4);
	*len = get(pci.window + 12, 4);
	return at < pci.window + 20 && at + size > pci.window + 16 && !get(pci.window + 4, 1) &&
	       (*len == 1 || *len == 2 || *len == 4) && *bar % *len == 0 && *bar < BAR_LEN;
}

/* --- what the guest does ------------------------------------------------------------------------ */

static int messages(struct hostile *h)
{
	int n = 0;

	for (int i = 0; i < VECTORS; i++)	/* there are no other wires */
		n += h->fake.chip.irq[i].kind == FAKE_MSI ? h->fake.chip.irq[i].raises : 0;
	return n;
}

static void set_port(struct hostile *h, u64 at, unsigned size, u64 value)
{
	if (!pci.ports || at + size > PORTS_LEN)
		return;
	bus_write(&h->fake.pio, pci.ports + at, size, value & ~0ULL >> (64 - 8 * size));
	probe_kick(&m, at / 4);
}

/* What is behind the BAR answers to nobody, unless that is the ECAM. */
static bool is_ours(u64 at)
{
	return pci.bar && (at < BAR_LEN || pci.bar + BAR_LEN != ECAM);
}

static void check_bar(struct hostile *h, u64 at, unsigned size)
{
	u64 got, want = ~0ULL >> (64 - 8 * size);

	if (!is_ours(at))
		return;
	if (at + size <= BAR_LEN)
		want = read_bar(at, size);
	got = bus_read(&h->fake.mmio, pci.bar + at, size);
	fuzz_check(got == want, "BAR, %u bytes at %#llx: %#llx, not %#llx", size,
		   (unsigned long long)at, (unsigned long long)got, (unsigned long long)want);
}

static void set_bar(struct hostile *h, u64 at, unsigned size, u64 value)
{
	if (!is_ours(at))
		return;
	value &= ~0ULL >> (64 - 8 * size);
	bus_write(&h->fake.mmio, pci.bar + at, size, value);
	if (at + size <= BAR_LEN)
		write_bar(at, size, value);
	fuzz_check(messages(h) == pci.sent, "%d messages, not %d", messages(h), pci.sent);
}

static void check_config(struct hostile *h, unsigned at, unsigned size)
{
	u32 got = bus_read(&h->fake.mmio, FUNCTION + at, size), bar, data;
	unsigned len;

	if (at + size > PCI_CONFIG_LEN || size > 4)
		return;
	pci.config[PCI_STATUS] &= ~PCI_STATUS_INTERRUPT;
	pci.config[PCI_STATUS] |= pci.isr && !msix_on() ? PCI_STATUS_INTERRUPT : 0;
	if (by_window(at, size, &bar, &len)) {
		data = read_bar(bar, len);
		memcpy(pci.config + pci.window + 16, &data, 4);
	}
	fuzz_check(got == get(at, size), "config, %u bytes at %#x: %#x, not %#x", size, at, got,
		   get(at, size));
}

static void check_bells(struct hostile *h)
{
	int want = (pci.bar ? PROBE_QUEUES : 0) + (pci.ports ? PROBE_QUEUES : 0);

	fuzz_check(h->fake.nr_bells == want, "%d doorbells, BARs at %#llx, %#llx", h->fake.nr_bells,
		   (unsigned long long)pci.bar, (unsigned long long)pci.ports);
	for (int i = 0; i < h->fake.nr_bells; i++) {
		bool in_memory = h->fake.bell_bus[i] == &h->fake.mmio;
		u64 at = h->fake.bell[i].addr - (in_memory ? pci.bar + NOTIFY : pci.ports);

		fuzz_check(at < 4 * PROBE_QUEUES, "a doorbell at %#llx",
			   (unsigned long long)h->fake.bell[i].addr);
	}
}

static void set_config(struct hostile *h, unsigned at, unsigned size, u32 value)
{
	unsigned len;
	u32 bar;

	bus_write(&h->fake.mmio, FUNCTION + at, size, value);
	if (at + size > PCI_CONFIG_LEN || size > 4)
		return;
	for (unsigned i = 0; i < size; i++) {
		u8 mask = pci.writable[at + i];

		pci.config[at + i] = (pci.config[at + i] & ~mask) | (value >> 8 * i & mask);
	}
	place_bar();
	probe_bus_master(&m, get(PCI_COMMAND, 2) & PCI_COMMAND_MASTER);
	send_pending();
	if (by_window(at, size, &bar, &len))
		write_bar(bar, len, get(pci.window + 16, len));
	check_bells(h);
	fuzz_check(messages(h) == pci.sent, "%d messages, not %d", messages(h), pci.sent);
}

static void interrupt(struct hostile *h, int i)
{
	int vector = pci.vector[i];

	if (i < PROBE_QUEUES) {
		irq_raise(m.p->v.vq[i].irq);
		pull(vector, 1);
	} else {
		virtio_broken(&m.p->v, "says the test");
		probe_break(&m);
		pull(vector, VIRTIO_PCI_ISR_CONFIG);
	}
	fuzz_check(messages(h) == pci.sent, "%d messages, not %d", messages(h), pci.sent);
}

/* What the rest of the machine does meanwhile. */
static void change(struct hostile *h, u8 step)
{
	int changes = m.config_changes;

	if (step & 1) {
		probe_pause(&m, step & 2);
		return;
	}
	probe_change(&m);
	if (m.config_changes != changes)
		pull(pci.vector[PROBE_QUEUES], VIRTIO_PCI_ISR_CONFIG);
	fuzz_check(messages(h) == pci.sent, "%d messages, not %d", messages(h), pci.sent);
}

/* Each vector that can send has a wire to where its entry says. */
static void check_routes(struct hostile *h)
{
	for (int i = 0; i < VECTORS; i++) {
		const u32 *e = pci.table[i].entry;
		bool found = masked(i);

		for (int n = 0; n < VECTORS; n++) {
			struct fake_irq *w = &h->fake.chip.irq[n];

			found |= w->kind == FAKE_MSI && w->data == e[2] &&
				 w->addr == ((u64)e[1] << 32 | e[0]);
		}
		fuzz_check(found, "vector %d is open, but no wire goes to %#x%08x", i, e[1], e[0]);
	}
}

static u64 likely(struct fuzz *f, u64 at)
{
	u8 b = fuzz_u8(f);

	switch (at) {
	case VIRTIO_PCI_COMMON_STATUS:
		return b & 0x80 ? STATUS_RUNNING : b & 0x0f;
	case VIRTIO_PCI_COMMON_GF:
		return pci.accepted_sel ? 1 : b;
	case VIRTIO_PCI_COMMON_Q_SIZE:
		return 1U << b % 8;
	}
	return at >= VIRTIO_PCI_COMMON_Q_DESCLO ? (at & 4 ? 0 : b << 4) : b % 5;
}

static void common_step(struct hostile *h, struct fuzz *f, u8 step)
{
	static const u8 reg[][2] = {
		{ VIRTIO_PCI_COMMON_STATUS, 1 }, { VIRTIO_PCI_COMMON_GFSELECT, 4 },
		{ VIRTIO_PCI_COMMON_GF, 4 }, { VIRTIO_PCI_COMMON_Q_SELECT, 2 },
		{ VIRTIO_PCI_COMMON_Q_SIZE, 2 }, { VIRTIO_PCI_COMMON_Q_ENABLE, 2 },
		{ VIRTIO_PCI_COMMON_Q_MSIX, 2 }, { VIRTIO_PCI_COMMON_MSIX, 2 },
		{ VIRTIO_PCI_COMMON_Q_DESCLO, 4 }, { VIRTIO_PCI_COMMON_Q_AVAILLO, 8 },
		{ VIRTIO_PCI_COMMON_Q_USEDLO, 4 }, { VIRTIO_PCI_COMMON_Q_USEDHI, 4 },
		{ VIRTIO_PCI_COMMON_DFSELECT, 4 },
	};
	const u8 *r = reg[step % ARRAY_SIZE(reg)];

	set_bar(h, r[0], r[1], likely(f, r[0]));
	check_bar(h, r[0], r[1]);
}

static void config_step(struct hostile *h, struct fuzz *f, u8 step)
{
	static const u8 header[] = { PCI_BASE_ADDRESS_0, PCI_BASE_ADDRESS_1, PCI_COMMAND,
				     PCI_BASE_ADDRESS_2 };
	static const u32 value[] = { 0xffffffff, 0, WINDOW, ECAM - 0x4000, ECAM + 0xf8000, 0xd0000000,
				     PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 0xffff8000, PCI_COMMAND_IO,
				     CONF1 - PORTS_LEN + 4, 0xff80 };
	u8 b = fuzz_u8(f);

	if (step & 1)
		set_config(h, header[step >> 1 & 3], 4, value[b % ARRAY_SIZE(value)]);
	else if (step & 2)
		set_config(h, pci.msix + 2, 2, b << 8);
	else if (step & 4)
		set_config(h, pci.window + 8 + 4 * (step >> 3 & 1), 4, b & 0x80 ? TABLE + b % 64 : b);
	else
		set_config(h, pci.window + 16, 4, fuzz_u32(f));
}

static void works(struct hostile *h)
{
	probe_pause(&m, false);
	set_config(h, PCI_COMMAND, 2, 0);
	set_config(h, PCI_BASE_ADDRESS_0, 4, WINDOW + BAR_LEN);
	set_config(h, PCI_BASE_ADDRESS_1, 4, 0);
	set_config(h, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	fuzz_check(pci.bar == WINDOW + BAR_LEN, "no BAR");
	for (u64 at = 0; at < 0x38; at++)
		for (unsigned size = 1; size <= 8; size *= 2)
			check_bar(h, at, size);
	set_bar(h, VIRTIO_PCI_COMMON_STATUS, 1, 0);
	probe_turn(h, &m);
	set_bar(h, VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
	set_bar(h, VIRTIO_PCI_COMMON_GF, 4, 1);
	set_bar(h, VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
	set_bar(h, VIRTIO_PCI_COMMON_Q_MSIX, 2, 2);
	set_bar(h, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
	set_bar(h, VIRTIO_PCI_COMMON_STATUS, 1, STATUS_RUNNING);
	check_bar(h, VIRTIO_PCI_COMMON_STATUS, 1);
	fuzz_check(m.running, "it does not start after a reset");
	set_bar(h, NOTIFY + 4, 2, 1);
	probe_turn(h, &m);
	set_bar(h, TABLE + 0x2c, 4, 0);
	set_config(h, pci.msix + 2, 2, MSIX_ON);
	interrupt(h, 1);
	set_config(h, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	probe_turn(h, &m);
	set_config(h, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	probe_turn(h, &m);
	check_bar(h, VIRTIO_PCI_COMMON_STATUS, 1);
}

void fuzz_one(struct fuzz *f)
{
	struct hostile *h = hostile_begin(f);
	struct device *dev;
	struct pci_bus *b;
	u64 at;

	memset(&pci, 0, sizeof(pci));
	memset(pci.vector, 0xff, sizeof(pci.vector));
	for (int i = 0; i < VECTORS; i++)
		pci.table[i].entry[3] = 1;
	fuzz_check(!pci_bus_new(&b, &h->fake.p, ECAM, WINDOW, 0x20000000, NULL), "no bus");
	fuzz_check(!virtio_pci_new(&probe_new(h, &m)->v, b, &dev, NULL), "no device");
	find_caps(h);
	find_writable();
	place_bar();
	set_config(h, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	while (f->left) {
		u8 step = fuzz_u8(f);

		switch (step >> 4) {
		case 0:
			at = fuzz_u8(f);
			set_config(h, at, fuzz_size(f), fuzz_u32(f));
			break;
		case 1:
			at = fuzz_u8(f);
			check_config(h, at, 1U << (step & 3));
			break;
		case 2: case 3:
			config_step(h, f, step);
			break;
		case 4:
			at = fuzz_u16(f);
			if (step & 8)
				set_port(h, at % 0x90, 1U << (step & 3), fuzz_u64(f));
			else
				set_bar(h, at % 0x6010, 1U << (step & 3), fuzz_u64(f));
			break;
		case 5:
			check_bar(h, fuzz_u16(f) % 0x8010, 1U << (step & 3));
			break;
		case 6: case 7:
			at = fuzz_u8(f) % (16 * VECTORS) & ~3;
			set_bar(h, TABLE + at, 4, (at & 12) == 12 ? step & 1 : fuzz_u8(f));
			break;
		case 8:
			interrupt(h, step % VECTORS);
			break;
		case 9:
			change(h, step);
			break;
		case 10:
			probe_turn(h, &m);
			break;
		case 11:
			check_bar(h, (step & 8 ? ISR : PBA), 1U << (step & 3));
			break;
		default:
			common_step(h, f, step);
		}
		check_routes(h);
	}
	works(h);
	device_destroy(dev);
	hostile_end(h, pci_bus_device(b));
}
