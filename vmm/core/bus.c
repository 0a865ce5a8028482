/* bus.c: a sorted array of ranges; few ranges, many look-ups. */
#include "vmm/core/bus.h"
#include <errno.h>
#include <string.h>

void bus_init(struct bus *bus, const char *name)
{
	memset(bus, 0, sizeof(*bus));
	bus->name = name;
	pthread_rwlock_init(&bus->lock, NULL);
}

void bus_fini(struct bus *bus)
{
	pthread_rwlock_destroy(&bus->lock);
}

/* Index of the first range that ends above addr. */
static int position(const struct bus *bus, u64 addr)
{
	int lo = 0, hi = bus->nr;

	while (lo < hi) {
		int mid = (lo + hi) / 2;

		if (bus->range[mid]->base + (bus->range[mid]->len - 1) < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

int bus_map(struct bus *bus, struct io_range *r, u64 base, struct err *err)
{
	u64 last;
	int i, rc = 0;

	if (r->mapped)
		bus_unmap(bus, r);
	if (!r->len || add_overflows(base, r->len - 1, &last))
		return err_set(err, -EINVAL, "%s: %s wraps at %#llx", bus->name, r->name,
			       (unsigned long long)base);
	pthread_rwlock_wrlock(&bus->lock);
	i = position(bus, base);
	if (i < bus->nr && bus->range[i]->base <= last)
		rc = err_set(err, -EEXIST, "%s: %s at %#llx overlaps %s", bus->name, r->name,
			     (unsigned long long)base, bus->range[i]->name);
	else if (bus->nr == BUS_MAX_RANGES)
		rc = err_set(err, -ENOSPC, "%s: no room for %s", bus->name, r->name);
	if (!rc) {
		memmove(&bus->range[i + 1], &bus->range[i], (bus->nr - i) * sizeof(bus->range[0]));
		bus->range[i] = r;
		bus->nr++;
		r->base = base;
		r->mapped = true;
	}
	pthread_rwlock_unlock(&bus->lock);
	return rc;
}

void bus_unmap(struct bus *bus, struct io_range *r)
{
	if (!r->mapped)
		return;
	pthread_rwlock_wrlock(&bus->lock);
	for (int i = 0; i < bus->nr; i++)
		if (bus->range[i] == r) {
			bus->nr--;
			memmove(&bus->range[i], &bus->range[i + 1], (bus->nr - i) * sizeof(bus->range[0]));
			break;
		}
	r->mapped = false;
	pthread_rwlock_unlock(&bus->lock);
}

int bus_doorbell(struct bus *bus, const struct doorbell *bell)
{
	return bus->doorbell ? bus->doorbell(bus, bell, true) : 0;
}

void bus_undoorbell(struct bus *bus, const struct doorbell *bell)
{
	if (bus->doorbell)
		bus->doorbell(bus, bell, false);
}

struct target {
	struct io_range *range;		/* NULL: nobody */
	u64 offset;
};

/* The lock is given back before the device is called: it may map and unmap. */
static struct target find(struct bus *bus, u64 addr, unsigned size)
{
	struct target t = { 0 };
	int i;

	pthread_rwlock_rdlock(&bus->lock);
	i = position(bus, addr);
	if (i < bus->nr) {
		struct io_range *r = bus->range[i];

		if (addr >= r->base && size <= r->len && addr - r->base <= r->len - size)
			t = (struct target){ r, addr - r->base };
	}
	pthread_rwlock_unlock(&bus->lock);
	return t;
}

u64 bus_read(struct bus *bus, u64 addr, unsigned size)
{
	struct target t = find(bus, addr, size);
	u64 ones = size == 8 ? ~0ULL : (1ULL << 8 * size) - 1;
	u64 value;

	if (!t.range || !t.range->ops->read)
		return ones;
	pthread_mutex_lock(&t.range->dev->lock);
	value = t.range->ops->read(t.range->dev, t.offset, size);
	pthread_mutex_unlock(&t.range->dev->lock);
	return value & ones;
}

void bus_write(struct bus *bus, u64 addr, unsigned size, u64 value)
{
	struct target t = find(bus, addr, size);

	if (!t.range || !t.range->ops->write)
		return;
	pthread_mutex_lock(&t.range->dev->lock);
	t.range->ops->write(t.range->dev, t.offset, size, value);
	pthread_mutex_unlock(&t.range->dev->lock);
}
