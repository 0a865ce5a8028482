/* pci.c: config space by conf1 and ECAM, BAR decoding, the host bridge. */
#include "devices/pci/pci.h"
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/core/ports.h"
#include "vmm/core/state.h"

enum {
	CONF1_BASE = PORT_RESET_CONTROL - 1, CONF1_LEN = 8,
	CONF1_ENABLE = 1U << 31,
	PORTS = 0x10000,
};

struct pci_bus {
	struct device dev;		/* the host bridge's */
	struct pci_dev host;
	struct platform *platform;
	struct pci_dev *slot[PCI_SLOTS];
	u64 window, window_end, next_bar, next_ports;
	struct io_range conf1, ecam;
	u32 address;			/* what 0xcf8 was last written */
};

/* --- a function's config space ------------------------------------------------------- */

u32 pci_get(const struct pci_dev *d, unsigned offset, unsigned size)
{
	u32 value = 0;

	BUG_ON(offset + size > PCI_CONFIG_LEN);
	memcpy(&value, d->config + offset, size);
	return value;
}

void pci_set(struct pci_dev *d, unsigned offset, unsigned size, u32 value)
{
	BUG_ON(offset + size > PCI_CONFIG_LEN);
	memcpy(d->config + offset, &value, size);
}

void pci_dev_init(struct pci_dev *d, struct device *dev, const struct pci_ops *ops,
		  const struct pci_ids *ids)
{
	memset(d, 0, sizeof(*d));
	d->dev = dev;
	d->ops = ops;
	d->next_cap = PCI_STD_HEADER_SIZEOF;
	pci_set(d, PCI_VENDOR_ID, 2, ids->vendor);
	pci_set(d, PCI_DEVICE_ID, 2, ids->device);
	pci_set(d, PCI_CLASS_REVISION, 4, ids->class << 8 | ids->revision);
	pci_set(d, PCI_SUBSYSTEM_VENDOR_ID, 2, ids->subsystem_vendor);
	pci_set(d, PCI_SUBSYSTEM_ID, 2, ids->subsystem);
	d->writable[PCI_COMMAND] = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	d->writable[PCI_COMMAND + 1] = PCI_COMMAND_INTX_DISABLE >> 8;
	d->writable[PCI_CACHE_LINE_SIZE] = 0xff;
	d->writable[PCI_INTERRUPT_LINE] = 0xff;
}

unsigned pci_add_cap(struct pci_dev *d, u8 id, unsigned len)
{
	unsigned offset = d->next_cap;

	BUG_ON(offset + len > PCI_CONFIG_LEN);
	d->config[offset] = id;
	d->config[d->last_cap ? d->last_cap + PCI_CAP_LIST_NEXT : PCI_CAPABILITY_LIST] = offset;
	d->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
	d->last_cap = offset;
	d->next_cap = ALIGN_UP(offset + len, 4U);
	return offset;
}

void pci_set_bar(struct pci_dev *d, const struct io_ops *ops, u64 len)
{
	u64 mask = ~(len - 1);

	BUG_ON(len < 16 || (len & (len - 1)));
	d->bar = (struct io_range){ .ops = ops, .dev = d->dev, .len = len, .name = d->dev->name };
	pci_set(d, PCI_BASE_ADDRESS_0, 4, PCI_BASE_ADDRESS_MEM_TYPE_64);
	memcpy(d->writable + PCI_BASE_ADDRESS_0, &mask, sizeof(mask));
}

void pci_set_ports(struct pci_dev *d, const struct io_ops *ops, u64 len)
{
	u32 mask = ~(len - 1);

	BUG_ON(len < 4 || len > 256 || (len & (len - 1)));
	d->ports = (struct io_range){ .ops = ops, .dev = d->dev, .len = len, .name = d->dev->name };
	pci_set(d, PCI_BASE_ADDRESS_2, 4, PCI_BASE_ADDRESS_SPACE_IO);
	memcpy(d->writable + PCI_BASE_ADDRESS_2, &mask, sizeof(mask));
	d->writable[PCI_COMMAND] |= PCI_COMMAND_IO;
}

static void unmap_range(struct pci_dev *d, struct bus *bus, struct io_range *r)
{
	if (!r->mapped)
		return;
	if (d->ops->bar_mapped)
		d->ops->bar_mapped(d, r, false);
	bus_unmap(bus, r);
}

static void unmap_bars(struct pci_dev *d)
{
	unmap_range(d, d->bus->platform->mmio, &d->bar);
	unmap_range(d, d->bus->platform->pio, &d->ports);
}

/* Let it answer there; 0: nowhere.  Where it cannot (over another range), it
 * answers nowhere until that has gone. */
static void move_range(struct pci_dev *d, struct bus *bus, struct io_range *r, u64 base)
{
	struct err err;

	if (!r->len || (r->mapped && r->base == base))
		return;
	unmap_range(d, bus, r);
	if (!base)
		return;
	if (bus_map(bus, r, base, &err))
		device_guest_error(d->dev, "BAR %d: %s", r == &d->bar ? 0 : 2, err.msg);
	else if (d->ops->bar_mapped)
		d->ops->bar_mapped(d, r, true);
}

/* Where the header says they are, if it says so at all.  While its size is asked
 * for, a BAR says all ones; it is not meant. */
static void update_bars(struct pci_dev *d)
{
	u64 base = ALIGN_DOWN((u64)pci_get(d, PCI_BASE_ADDRESS_1, 4) << 32 |
			      pci_get(d, PCI_BASE_ADDRESS_0, 4), 16);
	u64 port = ALIGN_DOWN(pci_get(d, PCI_BASE_ADDRESS_2, 4), 4U);
	u16 command = pci_get(d, PCI_COMMAND, 2);

	if (!(command & PCI_COMMAND_MEMORY) || base >= ALIGN_DOWN(~0ULL, d->bar.len) ||
	    (u32)base == (u32)-d->bar.len)
		base = 0;
	if (!(command & PCI_COMMAND_IO) || port + d->ports.len > PORTS)
		port = 0;
	move_range(d, d->bus->platform->mmio, &d->bar, base);
	move_range(d, d->bus->platform->pio, &d->ports, port);
}

/* Where this one was another may be meant to be. */
static void update_others(struct pci_dev *d)
{
	for (unsigned i = 0; i < PCI_SLOTS; i++) {
		struct pci_dev *other = d->bus->slot[i];

		if (!other || other == d)
			continue;
		pthread_mutex_lock(&other->dev->lock);
		update_bars(other);
		pthread_mutex_unlock(&other->dev->lock);
	}
}

static u32 config_read(struct pci_dev *d, unsigned offset, unsigned size)
{
	u32 value;

	pthread_mutex_lock(&d->dev->lock);
	if (d->ops->config_read)
		d->ops->config_read(d, offset, size);
	value = pci_get(d, offset, size);
	pthread_mutex_unlock(&d->dev->lock);
	return value;
}

static void config_write(struct pci_dev *d, unsigned offset, unsigned size, u32 value)
{
	pthread_mutex_lock(&d->dev->lock);
	for (unsigned i = 0; i < size; i++) {
		u8 mask = d->writable[offset + i], byte = value >> 8 * i;

		d->config[offset + i] = (d->config[offset + i] & ~mask) | (byte & mask);
	}
	if (offset < PCI_BASE_ADDRESS_3)
		update_bars(d);
	if (d->ops->config_written)
		d->ops->config_written(d, offset, size);
	pthread_mutex_unlock(&d->dev->lock);
	if (offset < PCI_BASE_ADDRESS_3)
		update_others(d);
}

/* --- the ways to it --------------------------------------------------------------------- */

static struct pci_dev *target(struct pci_bus *b, u32 bus, u32 devfn)
{
	return bus == 0 && (devfn & 7) == 0 ? b->slot[devfn >> 3] : NULL;
}

static struct pci_bus *to_bus(struct device *dev)
{
	return container_of(dev, struct pci_bus, dev);
}

/*
 * The bus lock is the host bridge's.  It is given back around a function's own:
 * the host bridge is a function too, and functions do not come and go while
 * vCPUs run.
 */
static u64 read_function(struct pci_bus *b, struct pci_dev *d, unsigned offset, unsigned size)
{
	u32 value = ~0U;

	if (!d || size > 4)
		return ~0ULL;
	if (offset + size > PCI_CONFIG_LEN)
		return 0;		/* no extended capabilities */
	pthread_mutex_unlock(&b->dev.lock);
	value = config_read(d, offset, size);
	pthread_mutex_lock(&b->dev.lock);
	return value;
}

static void write_function(struct pci_bus *b, struct pci_dev *d, unsigned offset, unsigned size,
			   u32 value)
{
	if (!d || size > 4 || offset + size > PCI_CONFIG_LEN)
		return;
	pthread_mutex_unlock(&b->dev.lock);
	config_write(d, offset, size, value);
	pthread_mutex_lock(&b->dev.lock);
}

static u64 ecam_read(struct device *dev, u64 offset, unsigned size)
{
	struct pci_bus *b = to_bus(dev);

	return read_function(b, target(b, offset >> 20, offset >> 12 & 0xff), offset & 0xfff, size);
}

static void ecam_write(struct device *dev, u64 offset, unsigned size, u64 value)
{
	struct pci_bus *b = to_bus(dev);

	write_function(b, target(b, offset >> 20, offset >> 12 & 0xff), offset & 0xfff, size, value);
}

static struct pci_dev *conf1_target(struct pci_bus *b)
{
	return b->address & CONF1_ENABLE ? target(b, b->address >> 16 & 0xff,
						   b->address >> 8 & 0xff) : NULL;
}

static u64 conf1_read(struct device *dev, u64 offset, unsigned size)
{
	struct pci_bus *b = to_bus(dev);

	if (offset < 4)
		return offset == 0 && size == 4 ? b->address : ~0ULL;
	return read_function(b, conf1_target(b), (b->address & 0xfc) + (offset & 3), size);
}

static void conf1_write(struct device *dev, u64 offset, unsigned size, u64 value)
{
	struct pci_bus *b = to_bus(dev);

	/* The chipset's reset control lies amid the address register's bytes. */
	if (offset == PORT_RESET_CONTROL - CONF1_BASE && size == 1) {
		if (value & RESET_CONTROL_RESET)
			b->platform->event(b->platform, MACHINE_RESET, 0);
	} else if (offset == 0 && size == 4) {
		b->address = value;
	} else if (offset >= 4) {
		write_function(b, conf1_target(b), (b->address & 0xfc) + (offset & 3), size, value);
	}
}

static const struct io_ops ecam_ops = { .read = ecam_read, .write = ecam_write };
static const struct io_ops conf1_ops = { .read = conf1_read, .write = conf1_write };

void pci_dev_state(struct pci_dev *d, struct state *s)
{
	u8 config[PCI_CONFIG_LEN];

	memcpy(config, d->config, sizeof(config));
	state_bytes(s, "config", config, sizeof(config));
	if (!state_loading(s) || state_failed(s))
		return;
	for (unsigned i = 0; i < PCI_CONFIG_LEN; i++) {
		u8 fixed = ~d->writable[i];

		if (i == PCI_STATUS)		/* says what the ISR says */
			continue;
		if ((config[i] ^ d->config[i]) & fixed)
			state_fail(s, "config: byte %#x is %#x; this machine has %#x", i, config[i],
				   d->config[i]);
		d->config[i] = (d->config[i] & fixed) | (config[i] & ~fixed);
	}
	update_bars(d);
}

/* --- the bus --------------------------------------------------------------------------------- */

static void bus_destroy(struct device *dev)
{
	struct pci_bus *b = to_bus(dev);

	bus_unmap(b->platform->pio, &b->conf1);
	bus_unmap(b->platform->mmio, &b->ecam);
	device_fini(dev);
	free(b);
}

static void bus_state(struct device *dev, struct state *s)
{
	struct pci_bus *b = to_bus(dev);

	state_u32(s, "address", &b->address);
	pci_dev_state(&b->host, s);
	/* The others follow, each of which may be where another is at first. */
	for (unsigned i = 0; i < PCI_SLOTS && state_loading(s); i++)
		if (b->slot[i])
			unmap_bars(b->slot[i]);
}

static const struct device_ops bus_ops = {
	.kind = "pci-host", .state = bus_state, .destroy = bus_destroy,
};
static const struct pci_ops host_ops = { 0 };

int pci_bus_new(struct pci_bus **out, struct platform *p, u64 ecam, u64 window, u64 window_len,
		struct err *err)
{
	/* The vendor and device of a virtual host bridge that drivers know nothing of. */
	static const struct pci_ids ids = {
		.vendor = 0x1b36, .device = 0x0008, .class = 0x060000,
		.subsystem_vendor = 0x1af4, .subsystem = 0x1100,
	};
	struct pci_bus *b = calloc(1, sizeof(*b));
	int rc;

	if (!b)
		return err_set(err, -ENOMEM, "pci: out of memory");
	device_init(&b->dev, &bus_ops, "pci");
	b->platform = p;
	b->window = b->next_bar = window;
	b->window_end = window + window_len;
	b->next_ports = PORT_PCI_WINDOW;
	pci_dev_init(&b->host, &b->dev, &host_ops, &ids);
	b->conf1 = (struct io_range){ .ops = &conf1_ops, .dev = &b->dev, .len = CONF1_LEN,
				      .name = "pci-conf1" };
	b->ecam = (struct io_range){ .ops = &ecam_ops, .dev = &b->dev, .len = PCI_ECAM_LEN,
				     .name = "pci-ecam" };
	rc = bus_map(p->pio, &b->conf1, CONF1_BASE, err);
	if (!rc)
		rc = bus_map(p->mmio, &b->ecam, ecam, err);
	if (!rc)
		rc = pci_plug(b, &b->host, err);
	if (rc) {
		bus_destroy(&b->dev);
		return rc;
	}
	*out = b;
	return 0;
}

struct device *pci_bus_device(struct pci_bus *b)
{
	return &b->dev;
}

/* As firmware would leave it. */
static int place_bar(struct pci_bus *b, struct pci_dev *d, struct err *err)
{
	u64 base = ALIGN_UP(b->next_bar, d->bar.len);

	if (base + d->bar.len > b->window_end)
		return err_set(err, -ENOSPC, "%s: the PCI window is full", d->dev->name);
	b->next_bar = base + d->bar.len;
	pci_set(d, PCI_BASE_ADDRESS_0, 4, (u32)base | PCI_BASE_ADDRESS_MEM_TYPE_64);
	pci_set(d, PCI_BASE_ADDRESS_1, 4, base >> 32);
	d->config[PCI_COMMAND] |= PCI_COMMAND_MEMORY;
	return 0;
}

/* Without ports a function has other ways to it. */
static void place_ports(struct pci_bus *b, struct pci_dev *d)
{
	u64 base = ALIGN_UP(b->next_ports, d->ports.len);

	if (base + d->ports.len > PORT_PCI_WINDOW + PORT_PCI_WINDOW_LEN)
		return;
	b->next_ports = base + d->ports.len;
	pci_set(d, PCI_BASE_ADDRESS_2, 4, (u32)base | PCI_BASE_ADDRESS_SPACE_IO);
	d->config[PCI_COMMAND] |= PCI_COMMAND_IO;
}

int pci_plug(struct pci_bus *b, struct pci_dev *d, struct err *err)
{
	unsigned slot = 0;
	int rc = 0;

	while (slot < PCI_SLOTS && b->slot[slot])
		slot++;
	if (slot == PCI_SLOTS)
		return err_set(err, -ENOSPC, "%s: all %d PCI slots are taken; use fewer disks or "
			       "networks", d->dev->name, PCI_SLOTS);
	if (d->bar.len)
		rc = place_bar(b, d, err);
	if (rc)
		return rc;
	if (d->ports.len)
		place_ports(b, d);
	d->bus = b;
	d->slot = slot;
	b->slot[slot] = d;
	update_bars(d);
	return 0;
}

void pci_unplug(struct pci_dev *d)
{
	if (!d->bus)
		return;
	unmap_bars(d);
	d->bus->slot[d->slot] = NULL;
	d->bus = NULL;
}
