/*
 * pci.c: a bus of several functions, reached by the ECAM and by the old ports, in any
 * order and size.  Both ways see the same; a write changes the bits of one function that
 * may be written; a BAR answers where it was put unless something else is there, and two
 * never answer at one place.
 */
#include <linux/pci_regs.h>
#include <string.h>
#include "devices/pci/pci.h"
#include "tests/fuzz/lib/fuzz.h"
#include "tests/lib/fake.h"

enum { ECAM = 0xe0000000, WINDOW = 0xc0000000, WINDOW_LEN = 0x800000, TAKEN = 0xc0080000 };
enum { MOST = 6, SLOTS = MOST + 1, CONF1 = 0xcf8, RESET_PORT = 0xcf9 };

static struct fake fake;
static struct pci_bus *bus;
static struct function {
	struct device dev;
	struct pci_dev pci;
	u8 want[PCI_CONFIG_LEN];
	u64 bar;			/* where it has to answer; 0: nowhere */
	bool says_mapped;		/* by its callback */
	int changes;
} fn[MOST];
static int nr, resets;
static u32 address;
static struct io_range taken;		/* somebody else's */
static struct device other;

static u64 bar_read(struct device *dev, u64 offset, unsigned size)
{
	(void)size;
	return (u64)(container_of(dev, struct function, dev) - fn + 1) << 16 | (offset & 0xffff);
}

static void bar_mapped(struct pci_dev *d, struct io_range *r, bool mapped)
{
	struct function *f = container_of(d, struct function, pci);

	fuzz_check(r == &d->bar, "%s: no such BAR", f->dev.name);
	fuzz_check(f->says_mapped != mapped, "%s: mapped %d twice", f->dev.name, mapped);
	f->says_mapped = mapped;
}

static void config_written(struct pci_dev *d, unsigned offset, unsigned size)
{
	fuzz_check(offset + size <= PCI_CONFIG_LEN, "%u bytes at %#x were written", size, offset);
	container_of(d, struct function, pci)->changes++;
}

static const struct io_ops bar_ops = { .read = bar_read };
static const struct pci_ops ops = { .bar_mapped = bar_mapped, .config_written = config_written };
static const struct device_ops dev_ops = { .kind = "function" };

static void add_function(struct fuzz *f, int i)
{
	static const char *const name[MOST] = { "fn0", "fn1", "fn2", "fn3", "fn4", "fn5" };
	struct pci_ids ids = { .vendor = 0x1234, .device = i, .class = 0xff0000 };
	u8 how = fuzz_u8(f);
	struct err err;

	memset(&fn[i], 0, sizeof(fn[i]));
	device_init(&fn[i].dev, &dev_ops, name[i]);
	pci_dev_init(&fn[i].pci, &fn[i].dev, &ops, &ids);
	if (how & 0x80)
		pci_set_bar(&fn[i].pci, &bar_ops, 16ULL << (how & 15));
	for (int n = how >> 4 & 3; n; n--) {
		unsigned at = pci_add_cap(&fn[i].pci, PCI_CAP_ID_VNDR, 4 + (how & 15));

		fn[i].pci.writable[at + 3] = 0x5a;
	}
	fuzz_check(!pci_plug(bus, &fn[i].pci, &err), "%s", err.msg);
	memcpy(fn[i].want, fn[i].pci.config, PCI_CONFIG_LEN);
}

/* --- what must be ------------------------------------------------------------------------- */

static u64 bar_of(const struct function *f)
{
	u64 bar;

	memcpy(&bar, f->want + PCI_BASE_ADDRESS_0, sizeof(bar));
	return bar & ~15ULL;
}

static bool meets(u64 a, u64 a_len, u64 b, u64 b_len)
{
	return a < b + b_len && b < a + a_len;
}

static void place(struct function *f)
{
	u64 bar = bar_of(f), len = f->pci.bar.len;
	bool on = f->want[PCI_COMMAND] & PCI_COMMAND_MEMORY;

	if (!len || (on && f->bar && f->bar == bar))
		return;
	f->bar = 0;
	if (!on || !bar || bar >= ALIGN_DOWN(~0ULL, len) || (u32)bar == (u32)-len ||
	    meets(bar, len, ECAM, PCI_ECAM_LEN) || meets(bar, len, TAKEN, 0x1000))
		return;
	for (int i = 0; i < nr; i++)
		if (fn[i].bar && meets(bar, len, fn[i].bar, fn[i].pci.bar.len))
			return;
	f->bar = bar;
}

static u64 ones(unsigned size)
{
	return ~0ULL >> (64 - 8 * size);
}

/* The slot's function; slot 0 is the host bridge, which is not looked at here. */
static struct function *at_slot(u32 slot)
{
	return slot - 1 < (u32)nr ? &fn[slot - 1] : NULL;
}

static u64 expected(const struct function *f, unsigned at, unsigned size)
{
	u64 value = 0;

	if (!f || size > 4)
		return ones(size);
	if (at + size <= PCI_CONFIG_LEN)
		memcpy(&value, f->want + at, size);
	return value;
}

static void expect_write(struct function *f, unsigned at, unsigned size, u32 value)
{
	if (!f || size > 4 || at + size > PCI_CONFIG_LEN)
		return;
	for (unsigned i = 0; i < size; i++)
		f->want[at + i] = (f->want[at + i] & ~f->pci.writable[at + i]) |
				  (value >> 8 * i & f->pci.writable[at + i]);
	if (at >= PCI_BASE_ADDRESS_3)	/* that of ports is looked at with it */
		return;
	place(f);
	for (int i = 0; i < nr; i++)
		if (&fn[i] != f)
			place(&fn[i]);
}

/* --- what the guest does ---------------------------------------------------------------------- */

static void by_ecam(struct fuzz *f, bool writes)
{
	u32 slot = 1 + fuzz_below(f, SLOTS), at = fuzz_u16(f) % 0x140;
	unsigned size = fuzz_size(f);
	u64 addr = ECAM + (slot << 15) + at, value;

	if (writes) {
		value = fuzz_u32(f);
		bus_write(&fake.mmio, addr, size, value);
		expect_write(at_slot(slot), at, size, value);
		return;
	}
	value = bus_read(&fake.mmio, addr, size);
	fuzz_check(value == expected(at_slot(slot), at, size), "slot %u, %u bytes at %#x: %#llx", slot,
		   size, at, (unsigned long long)value);
}

static void set_address(struct fuzz *f)
{
	u8 b = fuzz_u8(f);

	address = b & 0x80 ? fuzz_u32(f) :
		  1U << 31 | (1 + b % SLOTS) << 11 | (fuzz_u8(f) & 0xfc);
	bus_write(&fake.pio, CONF1, 4, address);
	fuzz_check(bus_read(&fake.pio, CONF1, 4) == address, "0xcf8 does not hold %#x", address);
}

static void by_ports(struct fuzz *f, bool writes)
{
	u32 bus_devfn = address >> 8 & 0xffff, slot = bus_devfn >> 3 & 31;
	unsigned port = fuzz_below(f, 4), size = fuzz_size(f), at = (address & 0xfc) + port;
	struct function *to = address >> 31 && !(bus_devfn & 0xff07) ? at_slot(slot) : NULL;
	u64 value;

	if (slot == 0)
		return;
	if (writes) {
		value = fuzz_u32(f);
		bus_write(&fake.pio, CONF1 + 4 + port, size, value);
		if (port + size <= 4)
			expect_write(to, at, size, value);
		return;
	}
	value = bus_read(&fake.pio, CONF1 + 4 + port, size);
	fuzz_check(value == (port + size > 4 ? ones(size) : expected(to, at, size)),
		   "address %#x, %u bytes at %u: %#llx", address, size, port,
		   (unsigned long long)value);
}

static void reset_control(struct fuzz *f)
{
	unsigned size = fuzz_size(f);
	u8 value = fuzz_u8(f);

	bus_write(&fake.pio, RESET_PORT, size, value);
	resets += size == 1 && value & 4;
	fuzz_check(fake.nr_events == resets, "%d resets, not %d", fake.nr_events, resets);
}

static void move_bar(struct fuzz *f)
{
	static const u32 bar[] = { WINDOW, WINDOW + 0x1000, TAKEN, TAKEN - 16, ECAM, ECAM + 0xffff0,
				   0, 0xffffffff, 0xfffffff0, WINDOW + 0x7f000 };
	u32 slot = 1 + fuzz_below(f, MOST), value;
	u8 b = fuzz_u8(f);
	unsigned at = b & 0x80 ? PCI_COMMAND : b & 0x40 ? PCI_BASE_ADDRESS_1 : PCI_BASE_ADDRESS_0;

	value = at == PCI_COMMAND ? b : at == PCI_BASE_ADDRESS_1 ? (b & 1) * ~0U :
		bar[b % ARRAY_SIZE(bar)];
	bus_write(&fake.mmio, ECAM + (slot << 15) + at, 4, value);
	expect_write(at_slot(slot), at, 4, value);
}

static void check_all(void)
{
	for (int i = 0; i < nr; i++) {
		u64 last = fn[i].bar + fn[i].pci.bar.len - 1;

		fuzz_check(!memcmp(fn[i].want, fn[i].pci.config, PCI_CONFIG_LEN),
			   "%s: config space changed", fn[i].dev.name);
		fuzz_check(fn[i].says_mapped == !!fn[i].bar && fn[i].pci.bar.mapped == !!fn[i].bar,
			   "%s: mapped %d, not %d", fn[i].dev.name, fn[i].says_mapped, !!fn[i].bar);
		if (!fn[i].bar)
			continue;
		fuzz_check(bus_read(&fake.mmio, fn[i].bar, 4) == (u64)(i + 1) << 16 &&
			   bus_read(&fake.mmio, last, 1) == (u8)(last - fn[i].bar),
			   "%s does not answer at %#llx", fn[i].dev.name,
			   (unsigned long long)fn[i].bar);
	}
}

void fuzz_one(struct fuzz *f)
{
	if (!fake.p.mem)
		fake_init(&fake, 0x10000, -1);
	fake.nr_events = resets = 0;
	address = 0;
	fuzz_check(!pci_bus_new(&bus, &fake.p, ECAM, WINDOW, WINDOW_LEN, NULL), "no bus");
	device_init(&other, &dev_ops, "other");
	taken = (struct io_range){ .ops = &bar_ops, .dev = &other, .len = 0x1000, .name = "other" };
	fuzz_check(!bus_map(&fake.mmio, &taken, TAKEN, NULL), "no other");
	for (nr = 0; nr < MOST && (nr < 2 || f->left > 8); nr++) {
		add_function(f, nr);
		place(&fn[nr]);
	}
	while (f->left) {
		u8 step = fuzz_u8(f);

		switch (step % 8) {
		case 0:
			set_address(f);
			break;
		case 1: case 2:
			by_ports(f, step & 0x80);
			break;
		case 3:
			reset_control(f);
			break;
		case 4: case 5:
			by_ecam(f, step & 0x80);
			break;
		default:
			move_bar(f);
		}
		check_all();
	}
	while (nr) {
		pci_unplug(&fn[--nr].pci);
		device_fini(&fn[nr].dev);
	}
	bus_unmap(&fake.mmio, &taken);
	device_fini(&other);
	device_destroy(pci_bus_device(bus));
	fuzz_check(!fake.mmio.nr && !fake.pio.nr, "ranges were left behind");
}
