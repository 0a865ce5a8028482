/*
 * bus.c: ranges come, go and move, and accesses of any size go to any address.  Each
 * reaches the one range that it lies in as a whole, at the right offset, or nobody;
 * ranges that would overlap or wrap are refused.
 */
#include <errno.h>
#include <string.h>
#include "tests/fuzz/lib/fuzz.h"
#include "vmm/core/bus.h"

enum { MOST = 12 };

static struct device dev;
static struct io_range range[MOST];
static struct { int who; u64 offset, value; unsigned size; bool write; } seen;

static int who(u64 offset, unsigned size, bool write, u64 value)
{
	seen.offset = offset;
	seen.size = size;
	seen.write = write;
	seen.value = value;
	return seen.who++;
}

static u64 on_read(struct device *d, u64 offset, unsigned size)
{
	(void)d;
	who(offset, size, false, 0);
	return 0x1122334455667788;
}

static void on_write(struct device *d, u64 offset, unsigned size, u64 value)
{
	(void)d;
	who(offset, size, true, value);
}

static const struct io_ops both = { .read = on_read, .write = on_write };
static const struct io_ops deaf = { .read = on_read };
static const struct io_ops mute = { .write = on_write };
static const struct device_ops dev_ops = { .kind = "test" };

/* Near the borders of others, more often than not. */
static u64 pick(struct fuzz *f)
{
	u8 b = fuzz_u8(f);
	const struct io_range *r = &range[b % MOST];

	switch (b >> 4) {
	case 0:
		return fuzz_u64(f);
	case 1:
		return ~0ULL - fuzz_u8(f);
	case 2: case 3: case 4: case 5:
		return r->base + r->len - fuzz_u8(f) % 16;
	case 6: case 7: case 8:
		return r->base - 8 + fuzz_u8(f) % 16;
	}
	return fuzz_u8(f) << 3;
}

static bool meets(const struct io_range *r, u64 base, u64 last)
{
	return r->mapped && base <= r->base + (r->len - 1) && r->base <= last;
}

static void map(struct bus *bus, struct fuzz *f, struct io_range *r)
{
	static const struct io_ops *const ops[] = { &both, &both, &deaf, &mute };
	u8 b = fuzz_u8(f);
	u64 base = pick(f), len = b & 0x80 ? pick(f) : b & 0x3f, last = base + (len - 1);
	bool sound = len && last >= base;
	int rc;

	if (r->mapped && b & 0x40)
		len = r->len;			/* it moves */
	else
		bus_unmap(bus, r);
	last = base + (len - 1);
	sound = len && last >= base;
	r->ops = ops[b % ARRAY_SIZE(ops)];
	r->len = len;
	for (int i = 0; i < MOST; i++)
		sound &= &range[i] == r || !meets(&range[i], base, last);
	rc = bus_map(bus, r, base, NULL);
	fuzz_check(!rc == sound && r->mapped == sound, "%#llx+%#llx: %d, not %d",
		   (unsigned long long)base, (unsigned long long)len, rc, sound);
	fuzz_check(!sound || r->base == base, "mapped elsewhere");
}

static void use(struct bus *bus, struct fuzz *f, bool write)
{
	unsigned size = fuzz_size(f);
	u64 addr = pick(f), value = fuzz_u64(f), got, ones = ~0ULL >> (64 - 8 * size);
	const struct io_range *to = NULL;

	for (int i = 0; i < MOST; i++)
		if (range[i].mapped && addr - range[i].base < range[i].len &&
		    size <= range[i].len - (addr - range[i].base))
			to = &range[i];
	seen.who = 0;
	if (write) {
		bus_write(bus, addr, size, value);
		to = to && to->ops->write ? to : NULL;
	} else {
		to = to && to->ops->read ? to : NULL;
		got = bus_read(bus, addr, size);
		fuzz_check(got == ((to ? 0x1122334455667788 : ~0ULL) & ones), "read %#llx",
			   (unsigned long long)got);
	}
	fuzz_check(seen.who == !!to, "%d devices saw an access to %#llx", seen.who,
		   (unsigned long long)addr);
	fuzz_check(!to || (seen.offset == addr - to->base && seen.size == size &&
			   seen.write == write && (!write || seen.value == value)),
		   "it came as %u bytes at %#llx", seen.size, (unsigned long long)seen.offset);
}

void fuzz_one(struct fuzz *f)
{
	struct bus bus;

	bus_init(&bus, "bus");
	device_init(&dev, &dev_ops, "test");
	memset(range, 0, sizeof(range));
	for (int i = 0; i < MOST; i++)
		range[i] = (struct io_range){ .dev = &dev, .name = "range" };
	while (f->left) {
		u8 step = fuzz_u8(f);

		switch (step >> 6) {
		case 0:
			map(&bus, f, &range[step % MOST]);
			break;
		case 1:
			if (step & 0x30)
				use(&bus, f, true);
			else
				bus_unmap(&bus, &range[step % MOST]);
			break;
		default:
			use(&bus, f, false);
		}
	}
	for (int i = 0; i < MOST; i++)
		bus_unmap(&bus, &range[i]);
	fuzz_check(!bus.nr, "%d ranges are left", bus.nr);
	device_fini(&dev);
	bus_fini(&bus);
}
