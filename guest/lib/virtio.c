/*
 * virtio.c: virtio devices as a driver sees them: what both transports share, and which of them is
 * used.
 *
 * Spec: virtio 1.2, 2.1, 2.2, 3.1.
 */
#include "guest/lib/virtio.h"

#include "guest/lib/apic.h"
#include "guest/lib/start.h"
#include "guest/lib/trap.h"
#include "guest/lib/virtio_transport.h"

static struct virtio *interrupting;
static volatile u32 queue_irqs, config_irqs;

bool virtio_use_mmio(void)
{
	return arg_is("transport", "mmio");
}

bool virtio_find(struct virtio *v, u16 id, unsigned n)
{
	*v = (struct virtio) { .id = id, .mmio = virtio_use_mmio(), .queue_entry = 1 };
	return v->mmio ? virtio_mmio_find(v, n) : virtio_pci_find(v, n);
}

u8 virtio_status(struct virtio *v)
{
	return v->mmio ? virtio_mmio_status(v) : virtio_pci_status(v);
}

void virtio_set_status(struct virtio *v, u8 status)
{
	if (v->mmio)
		virtio_mmio_set_status(v, status);
	else
		virtio_pci_set_status(v, status);
}

void virtio_add_status(struct virtio *v, u8 status)
{
	virtio_set_status(v, virtio_status(v) | status);
}

bool virtio_reset(struct virtio *v)
{
	v->features = 0;
	virtio_set_status(v, 0);
	return poll_until(virtio_status(v) == 0);
}

u64 virtio_features(struct virtio *v)
{
	return v->mmio ? virtio_mmio_features(v) : virtio_pci_features(v);
}

void virtio_accept(struct virtio *v, u64 features)
{
	v->features = features;
	if (v->mmio)
		virtio_mmio_accept(v, features);
	else
		virtio_pci_accept(v, features);
}

bool virtio_negotiate(struct virtio *v, u64 wanted)
{
	if (!virtio_reset(v))
		return false;
	virtio_add_status(v, STATUS_ACKNOWLEDGE);
	virtio_add_status(v, STATUS_DRIVER);
	virtio_accept(v, virtio_features(v) & (wanted | FEATURE(F_VERSION_1)));
	virtio_add_status(v, STATUS_FEATURES_OK);
	return virtio_status(v) & STATUS_FEATURES_OK;
}

static void on_queue(struct trap_frame *f)
{
	u8 isr;

	(void)f;
	if (interrupting->mmio) {
		isr = virtio_isr(interrupting);
		if (isr & ISR_QUEUE)
			queue_irqs++;
		if (isr & ISR_CONFIG)
			config_irqs++;
	} else {
		queue_irqs++;
	}
	apic_eoi();
}

static void on_config(struct trap_frame *f)
{
	(void)f;
	config_irqs++;
	apic_eoi();
}

void virtio_enable_interrupts(struct virtio *v)
{
	interrupting = v;
	v->interrupts = true;
	trap_set(VECTOR_QUEUE, on_queue);
	trap_set(VECTOR_CONFIG, on_config);
	if (v->mmio)
		ioapic_route(v->gsi, VECTOR_QUEUE);
	else
		virtio_pci_enable_interrupts(v);
}

u32 virtio_irqs(void)
{
	return queue_irqs;
}

u32 virtio_config_irqs(void)
{
	return config_irqs;
}

u16 virtio_queue_max(struct virtio *v, u16 queue)
{
	return v->mmio ? virtio_mmio_queue_max(v, queue) : virtio_pci_queue_max(v, queue);
}

void virtio_queue_set(struct virtio *v, u16 queue, const struct virtio_rings *r)
{
	if (v->mmio)
		virtio_mmio_queue_set(v, queue, r);
	else
		virtio_pci_queue_set(v, queue, r);
}

bool virtio_queue_enable(struct virtio *v, u16 queue)
{
	if (v->mmio)
		virtio_mmio_queue_enable(v, queue);
	else
		virtio_pci_queue_enable(v, queue);
	return virtio_queue_is_enabled(v, queue);
}

void virtio_queue_size(struct virtio *v, u16 queue, u16 size)
{
	if (v->mmio)
		virtio_mmio_queue_size(v, queue, size);
	else
		virtio_pci_queue_size(v, queue, size);
}

bool virtio_queue_is_enabled(struct virtio *v, u16 queue)
{
	return v->mmio ? virtio_mmio_queue_is_enabled(v, queue)
		       : virtio_pci_queue_is_enabled(v, queue);
}

void virtio_notify(struct virtio *v, u16 queue)
{
	if (v->mmio)
		virtio_mmio_notify(v, queue);
	else
		virtio_pci_notify(v, queue);
}

u8 virtio_isr(struct virtio *v)
{
	return v->mmio ? virtio_mmio_isr(v) : mmio_read8(v->isr);
}

u8 virtio_generation(struct virtio *v)
{
	return v->mmio ? virtio_mmio_generation(v) : virtio_pci_generation(v);
}

u64 virtio_config(struct virtio *v, u32 offset, unsigned size)
{
	u64 at = v->device + offset;

	/* 64-bit fields are read as two halves: 4.1.3.1, 4.2.2.2. */
	if (size == 8)
		return mmio_read32(at) | (u64)mmio_read32(at + 4) << 32;
	return size == 1 ? mmio_read8(at) : size == 2 ? mmio_read16(at) : mmio_read32(at);
}

void virtio_config_write(struct virtio *v, u32 offset, unsigned size, u64 value)
{
	u64 at = v->device + offset;

	if (size == 1)
		mmio_write8(at, (u8)value);
	else if (size == 2)
		mmio_write16(at, (u16)value);
	else
		mmio_write32(at, (u32)value);
	if (size == 8)
		mmio_write32(at + 4, (u32)(value >> 32));
}

u64 virtio_registers(struct virtio *v)
{
	return v->mmio ? v->base : v->common;
}
