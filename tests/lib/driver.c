/* driver.c: see driver.h. */
#include "tests/lib/driver.h"
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include "tests/lib/test.h"

u32 driver_get(struct driver *d, u32 reg)
{
	return bus_read(&d->fake->mmio, DRIVER_BASE + reg, 4);
}

void driver_set(struct driver *d, u32 reg, u32 value)
{
	bus_write(&d->fake->mmio, DRIVER_BASE + reg, 4, value);
}

u64 driver_offered(struct driver *d)
{
	u64 low;

	driver_set(d, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	low = driver_get(d, VIRTIO_MMIO_DEVICE_FEATURES);
	driver_set(d, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	return low | (u64)driver_get(d, VIRTIO_MMIO_DEVICE_FEATURES) << 32;
}

void driver_setup_queue(struct driver *d, int i, u16 size)
{
	struct ring *r = &d->ring[i];

	ring_init(r, d->fake->p.mem, DRIVER_RINGS + i * 0x10000, size);
	driver_set(d, VIRTIO_MMIO_QUEUE_SEL, i);
	driver_set(d, VIRTIO_MMIO_QUEUE_NUM, size);
	driver_set(d, VIRTIO_MMIO_QUEUE_DESC_LOW, r->desc);
	driver_set(d, VIRTIO_MMIO_QUEUE_DESC_HIGH, 0);
	driver_set(d, VIRTIO_MMIO_QUEUE_AVAIL_LOW, r->avail);
	driver_set(d, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, 0);
	driver_set(d, VIRTIO_MMIO_QUEUE_USED_LOW, r->used);
	driver_set(d, VIRTIO_MMIO_QUEUE_USED_HIGH, 0);
	driver_set(d, VIRTIO_MMIO_QUEUE_READY, 1);
}

u8 driver_start(struct driver *d, u64 features, int nr_queues, u16 size)
{
	u8 status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

	features |= 1ULL << VIRTIO_F_VERSION_1;
	driver_set(d, VIRTIO_MMIO_STATUS, 0);
	driver_set(d, VIRTIO_MMIO_STATUS, status);
	driver_set(d, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	driver_set(d, VIRTIO_MMIO_DRIVER_FEATURES, features);
	driver_set(d, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	driver_set(d, VIRTIO_MMIO_DRIVER_FEATURES, features >> 32);
	status |= VIRTIO_CONFIG_S_FEATURES_OK;
	driver_set(d, VIRTIO_MMIO_STATUS, status);
	for (int i = 0; i < nr_queues; i++)
		driver_setup_queue(d, i, size);
	driver_set(d, VIRTIO_MMIO_STATUS, status | VIRTIO_CONFIG_S_DRIVER_OK);
	return driver_get(d, VIRTIO_MMIO_STATUS);
}

void driver_kick(struct driver *d, int queue)
{
	driver_set(d, VIRTIO_MMIO_QUEUE_NOTIFY, queue);
	fake_settle(d->fake);
}

int driver_irqs(struct driver *d)
{
	return fake_line(d->fake, FAKE_EDGE, DRIVER_GSI)->raises;
}
