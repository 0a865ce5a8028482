/*
 * virtio_mmio.c: virtio over MMIO, version 2 registers, found in the AML.
 *
 * Spec: virtio 1.2, 4.2.2.
 */
#include "guest/lib/acpi.h"
#include "guest/lib/mem.h"
#include "guest/lib/virtio_transport.h"

enum {
	MAGIC = 0x000, MAGIC_VALUE = 0x74726976,
	VERSION = 0x004, DEVICE_ID = 0x008,
	DEVICE_FEATURES = 0x010, DEVICE_FEATURES_SEL = 0x014,
	DRIVER_FEATURES = 0x020, DRIVER_FEATURES_SEL = 0x024,
	QUEUE_SEL = 0x030, QUEUE_NUM_MAX = 0x034, QUEUE_NUM = 0x038, QUEUE_READY = 0x044,
	QUEUE_NOTIFY = 0x050,
	INTERRUPT_STATUS = 0x060, INTERRUPT_ACK = 0x064,
	STATUS = 0x070,
	QUEUE_DESC = 0x080, QUEUE_DRIVER = 0x090, QUEUE_DEVICE = 0x0a0,
	CONFIG_GENERATION = 0x0fc, CONFIG = 0x100,
};

bool virtio_mmio_find(struct virtio *v, unsigned n)
{
	unsigned i;

	for (i = 0; acpi_virtio_mmio(i, &v->base, &v->gsi); i++)
		if (mmio_read32(v->base + MAGIC) == MAGIC_VALUE &&
		    mmio_read32(v->base + VERSION) == 2 &&
		    mmio_read32(v->base + DEVICE_ID) == v->id && !n--) {
			v->device = v->base + CONFIG;
			v->device_len = MMIO_STRIDE - CONFIG;
			return true;
		}
	return false;
}

u8 virtio_mmio_status(struct virtio *v)
{
	return (u8)mmio_read32(v->base + STATUS);
}

void virtio_mmio_set_status(struct virtio *v, u8 status)
{
	mmio_write32(v->base + STATUS, status);
}

u64 virtio_mmio_features(struct virtio *v)
{
	u64 low;

	mmio_write32(v->base + DEVICE_FEATURES_SEL, 0);
	low = mmio_read32(v->base + DEVICE_FEATURES);
	mmio_write32(v->base + DEVICE_FEATURES_SEL, 1);
	return (u64)mmio_read32(v->base + DEVICE_FEATURES) << 32 | low;
}

void virtio_mmio_accept(struct virtio *v, u64 features)
{
	mmio_write32(v->base + DRIVER_FEATURES_SEL, 0);
	mmio_write32(v->base + DRIVER_FEATURES, (u32)features);
	mmio_write32(v->base + DRIVER_FEATURES_SEL, 1);
	mmio_write32(v->base + DRIVER_FEATURES, (u32)(features >> 32));
}

static void select(struct virtio *v, u16 queue)
{
	mmio_write32(v->base + QUEUE_SEL, queue);
}

u16 virtio_mmio_queue_max(struct virtio *v, u16 queue)
{
	select(v, queue);
	return (u16)mmio_read32(v->base + QUEUE_NUM_MAX);
}

static void write_addr(u64 at, u64 addr)
{
	mmio_write32(at, (u32)addr);
	mmio_write32(at + 4, (u32)(addr >> 32));
}

void virtio_mmio_queue_set(struct virtio *v, u16 queue, const struct virtio_rings *r)
{
	select(v, queue);
	mmio_write32(v->base + QUEUE_NUM, r->size);
	write_addr(v->base + QUEUE_DESC, r->desc);
	write_addr(v->base + QUEUE_DRIVER, r->avail);
	write_addr(v->base + QUEUE_DEVICE, r->used);
}

void virtio_mmio_queue_enable(struct virtio *v, u16 queue)
{
	select(v, queue);
	mmio_write32(v->base + QUEUE_READY, 1);
}

void virtio_mmio_queue_disable(struct virtio *v, u16 queue)
{
	select(v, queue);
	mmio_write32(v->base + QUEUE_READY, 0);
}

void virtio_mmio_queue_size(struct virtio *v, u16 queue, u16 size)
{
	select(v, queue);
	mmio_write32(v->base + QUEUE_NUM, size);
}

bool virtio_mmio_queue_is_enabled(struct virtio *v, u16 queue)
{
	select(v, queue);
	return mmio_read32(v->base + QUEUE_READY) == 1;
}

void virtio_mmio_notify(struct virtio *v, u16 queue)
{
	mmio_write32(v->base + QUEUE_NOTIFY, queue);
}

u8 virtio_mmio_isr(struct virtio *v)
{
	u32 isr = mmio_read32(v->base + INTERRUPT_STATUS);

	mmio_write32(v->base + INTERRUPT_ACK, isr);
	return (u8)isr;
}

u8 virtio_mmio_generation(struct virtio *v)
{
	return (u8)mmio_read32(v->base + CONFIG_GENERATION);
}
