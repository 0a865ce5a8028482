/*
 * virtio_pci.c: virtio over PCI, modern devices: the structures that the vendor capabilities name.
 *
 * Spec: virtio 1.2, 4.1.
 */
#include "guest/lib/virtio_transport.h"

#include "guest/lib/mem.h"
#include "guest/lib/start.h"

enum {
	VENDOR = 0x1af4, DEVICE_MODERN = 0x1040,

	CAP_TYPE = 3, CAP_BAR = 4, CAP_OFFSET = 8, CAP_LENGTH = 12, CAP_MULTIPLIER = 16,
	TYPE_COMMON = 1, TYPE_NOTIFY = 2, TYPE_ISR = 3, TYPE_DEVICE = 4,

	DEVICE_FEATURE_SELECT = 0x00, DEVICE_FEATURE = 0x04,
	DRIVER_FEATURE_SELECT = 0x08, DRIVER_FEATURE = 0x0c,
	CONFIG_VECTOR = 0x10, NUM_QUEUES = 0x12,
	DEVICE_STATUS = 0x14, CONFIG_GENERATION = 0x15,
	QUEUE_SELECT = 0x16, QUEUE_SIZE = 0x18, QUEUE_VECTOR = 0x1a, QUEUE_ENABLE = 0x1c,
	QUEUE_NOTIFY_OFF = 0x1e, QUEUE_DESC = 0x20, QUEUE_DRIVER = 0x28, QUEUE_DEVICE = 0x30,
};

bool virtio_pci_find(struct virtio *v, unsigned n)
{
	const struct pci_dev *dev = &v->pci;
	u8 cap = 0, bar;
	u32 len;
	u64 at;

	if (!pci_find(VENDOR, DEVICE_MODERN + v->id, n, &v->pci))
		return false;
	pci_write(dev, PCI_COMMAND, 2,
		  COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER | COMMAND_NO_INTX);
	while ((cap = pci_cap(dev, CAP_VENDOR, cap))) {
		bar = (u8)pci_read(dev, cap + CAP_BAR, 1);
		at = pci_bar_base(dev, bar) + pci_read(dev, cap + CAP_OFFSET, 4);
		len = pci_read(dev, cap + CAP_LENGTH, 4);
		switch (pci_read(dev, cap + CAP_TYPE, 1)) {
		case TYPE_COMMON:
			v->common = mem_map(at);
			break;
		case TYPE_NOTIFY:
			if (pci_bar_is_io(dev, bar))
				v->notify_port = (u16)at;
			else
				v->notify = mem_map(at);
			v->notify_multiplier = pci_read(dev, cap + CAP_MULTIPLIER, 4);
			break;
		case TYPE_ISR:
			v->isr = mem_map(at);
			break;
		case TYPE_DEVICE:
			v->device = mem_map(at);
			v->device_len = len;
			break;
		default:
			break;
		}
	}
	pci_msix(dev, &v->msix);
	if (arg_is("doorbell", "memory"))
		v->notify_port = 0;
	return v->common && v->notify && v->isr;
}

u8 virtio_pci_status(struct virtio *v)
{
	return mmio_read8(v->common + DEVICE_STATUS);
}

void virtio_pci_set_status(struct virtio *v, u8 status)
{
	mmio_write8(v->common + DEVICE_STATUS, status);
}

u64 virtio_pci_features(struct virtio *v)
{
	u64 low;

	mmio_write32(v->common + DEVICE_FEATURE_SELECT, 0);
	low = mmio_read32(v->common + DEVICE_FEATURE);
	mmio_write32(v->common + DEVICE_FEATURE_SELECT, 1);
	return (u64)mmio_read32(v->common + DEVICE_FEATURE) << 32 | low;
}

void virtio_pci_accept(struct virtio *v, u64 features)
{
	mmio_write32(v->common + DRIVER_FEATURE_SELECT, 0);
	mmio_write32(v->common + DRIVER_FEATURE, (u32)features);
	mmio_write32(v->common + DRIVER_FEATURE_SELECT, 1);
	mmio_write32(v->common + DRIVER_FEATURE, (u32)(features >> 32));
}

void virtio_pci_enable_interrupts(struct virtio *v)
{
	pci_msix_enable(&v->pci, &v->msix, true, false);
	pci_msix_set(&v->msix, 0, VECTOR_CONFIG);
	pci_msix_set(&v->msix, 1, VECTOR_QUEUE);
	mmio_write16(v->common + CONFIG_VECTOR, 0);
}

static void select(struct virtio *v, u16 queue)
{
	mmio_write16(v->common + QUEUE_SELECT, queue);
}

u16 virtio_pci_queue_max(struct virtio *v, u16 queue)
{
	if (queue >= mmio_read16(v->common + NUM_QUEUES))
		return 0;
	select(v, queue);
	return mmio_read16(v->common + QUEUE_SIZE);
}

static void write_addr(u64 at, u64 addr)
{
	mmio_write32(at, (u32)addr);
	mmio_write32(at + 4, (u32)(addr >> 32));
}

void virtio_pci_queue_set(struct virtio *v, u16 queue, const struct virtio_rings *r)
{
	select(v, queue);
	mmio_write16(v->common + QUEUE_SIZE, r->size);
	write_addr(v->common + QUEUE_DESC, r->desc);
	write_addr(v->common + QUEUE_DRIVER, r->avail);
	write_addr(v->common + QUEUE_DEVICE, r->used);
	if (v->interrupts)
		mmio_write16(v->common + QUEUE_VECTOR, v->queue_entry);
}

u16 virtio_queue_entry(struct virtio *v, u16 queue)
{
	select(v, queue);
	return mmio_read16(v->common + QUEUE_VECTOR);
}

void virtio_pci_queue_enable(struct virtio *v, u16 queue)
{
	select(v, queue);
	mmio_write16(v->common + QUEUE_ENABLE, 1);
}

void virtio_pci_queue_size(struct virtio *v, u16 queue, u16 size)
{
	select(v, queue);
	mmio_write16(v->common + QUEUE_SIZE, size);
}

bool virtio_pci_queue_is_enabled(struct virtio *v, u16 queue)
{
	select(v, queue);
	return mmio_read16(v->common + QUEUE_ENABLE) == 1;
}

u64 virtio_pci_bell(struct virtio *v, u16 queue)
{
	u64 base = v->notify_port ? v->notify_port : v->notify;

	select(v, queue);
	return base + (u64)mmio_read16(v->common + QUEUE_NOTIFY_OFF) * v->notify_multiplier;
}

void virtio_pci_notify(struct virtio *v, u16 queue)
{
	u64 bell = virtio_pci_bell(v, queue);

	if (v->notify_port)
		outw((u16)bell, queue);
	else
		mmio_write16(bell, queue);
}

u8 virtio_pci_generation(struct virtio *v)
{
	return mmio_read8(v->common + CONFIG_GENERATION);
}
