/* mmio.c: virtio over MMIO, version 2 (virtio 1.2, 4.2). */
#include <errno.h>
#include <linux/virtio_mmio.h>
#include <stdlib.h>
#include "devices/virtio/virtio.h"
#include "vmm/core/bus.h"
#include "vmm/core/state.h"

enum { MAGIC = 0x74726976, VERSION = 2, VENDOR = 0x004d4d56 };

struct mmio {
	struct virtio *v;
	struct io_range range;
	struct irq *pin;
	/* Two wires on one pin; they differ in what the status register says. */
	struct wire {
		struct irq irq;
		struct mmio *mmio;
		u32 bit;
	} used, config;
	u32 interrupt_status;		/* atomic: the I/O loop sets, vCPUs clear */
	u32 offered_sel, accepted_sel, queue_sel;
};

static void wire_set(struct irq *irq, bool level)
{
	struct wire *w = container_of(irq, struct wire, irq);

	(void)level;
	__atomic_or_fetch(&w->mmio->interrupt_status, w->bit, __ATOMIC_SEQ_CST);
	irq_raise(w->mmio->pin);
}

static struct mmio *to_mmio(struct device *dev)
{
	return container_of(dev, struct virtio, dev)->transport;
}

static u64 mmio_read(struct device *dev, u64 offset, unsigned size)
{
	struct mmio *m = to_mmio(dev);
	struct virtio *v = m->v;
	struct virtq *q = virtio_queue(v, m->queue_sel);

	if (offset >= VIRTIO_MMIO_CONFIG)
		return virtio_config_read(v, offset - VIRTIO_MMIO_CONFIG, size);
	if (size != 4) {
		device_guest_error(dev, "read of %u bytes from register %#x", size,
				   (unsigned)offset);
		return 0;
	}
	switch (offset) {
	case VIRTIO_MMIO_MAGIC_VALUE:
		return MAGIC;
	case VIRTIO_MMIO_VERSION:
		return VERSION;
	case VIRTIO_MMIO_DEVICE_ID:
		return v->ops->id;
	case VIRTIO_MMIO_VENDOR_ID:
		return VENDOR;
	case VIRTIO_MMIO_DEVICE_FEATURES:
		return virtio_offered(v, m->offered_sel);
	case VIRTIO_MMIO_QUEUE_NUM_MAX:
		return q ? q->max_size : 0;
	case VIRTIO_MMIO_QUEUE_READY:
		return q ? q->ready : 0;
	case VIRTIO_MMIO_INTERRUPT_STATUS:
		return load_acquire(&m->interrupt_status);
	case VIRTIO_MMIO_STATUS:
		return virtio_status(v);
	case VIRTIO_MMIO_SHM_LEN_LOW:	/* no shared memory regions: length -1 */
	case VIRTIO_MMIO_SHM_LEN_HIGH:
	case VIRTIO_MMIO_SHM_BASE_LOW:
	case VIRTIO_MMIO_SHM_BASE_HIGH:
		return 0xffffffff;
	case VIRTIO_MMIO_CONFIG_GENERATION:
		return load_once(&v->generation);
	}
	return 0;
}

static void write_queue(struct mmio *m, u64 offset, u32 value)
{
	struct virtq *q;

	if (offset == VIRTIO_MMIO_QUEUE_READY && !value) {
		virtio_queue_disable(m->v, m->queue_sel);
		return;
	}
	q = virtio_queue_setup(m->v, m->queue_sel);
	if (!q)
		return;
	switch (offset) {
	case VIRTIO_MMIO_QUEUE_NUM:
		q->size = MIN(value, 0xffff);
		break;
	case VIRTIO_MMIO_QUEUE_READY:
		q->ready = true;
		break;
	case VIRTIO_MMIO_QUEUE_DESC_LOW:
	case VIRTIO_MMIO_QUEUE_DESC_HIGH:
		virtio_set_half(&q->desc, offset == VIRTIO_MMIO_QUEUE_DESC_HIGH, value);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
		virtio_set_half(&q->avail, offset == VIRTIO_MMIO_QUEUE_AVAIL_HIGH, value);
		break;
	case VIRTIO_MMIO_QUEUE_USED_LOW:
	case VIRTIO_MMIO_QUEUE_USED_HIGH:
		virtio_set_half(&q->used, offset == VIRTIO_MMIO_QUEUE_USED_HIGH, value);
		break;
	}
}

static void mmio_write(struct device *dev, u64 offset, unsigned size, u64 value)
{
	struct mmio *m = to_mmio(dev);
	struct virtio *v = m->v;

	if (offset >= VIRTIO_MMIO_CONFIG) {
		virtio_config_write(v, offset - VIRTIO_MMIO_CONFIG, size, value);
		return;
	}
	if (size != 4) {
		device_guest_error(dev, "write of %u bytes to register %#x", size,
				   (unsigned)offset);
		return;
	}
	switch (offset) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
		m->offered_sel = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
		m->accepted_sel = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES:
		virtio_accept(v, m->accepted_sel, value);
		break;
	case VIRTIO_MMIO_QUEUE_SEL:
		m->queue_sel = value;
		break;
	case VIRTIO_MMIO_QUEUE_NOTIFY:	/* only where the doorbell did not take it */
		virtio_notify(v, value);
		break;
	case VIRTIO_MMIO_INTERRUPT_ACK:
		__atomic_and_fetch(&m->interrupt_status, ~(u32)value, __ATOMIC_SEQ_CST);
		break;
	case VIRTIO_MMIO_STATUS:
		virtio_set_status(v, value);
		if (!(u8)value)
			store_release(&m->interrupt_status, 0);
		break;
	case VIRTIO_MMIO_QUEUE_NUM ... VIRTIO_MMIO_QUEUE_READY:
	case VIRTIO_MMIO_QUEUE_DESC_LOW ... VIRTIO_MMIO_QUEUE_USED_HIGH:
		write_queue(m, offset, value);
		break;
	}
}

static const struct io_ops mmio_ops = { .read = mmio_read, .write = mmio_write };

static struct doorbell bell(struct mmio *m, int queue)
{
	return (struct doorbell){
		.addr = m->range.base + VIRTIO_MMIO_QUEUE_NOTIFY, .size = 4,
		.match = true, .value = queue, .fd = m->v->kick[queue].fd,
	};
}

static void mmio_state(struct virtio *v, struct state *s)
{
	struct mmio *m = v->transport;

	state_u32(s, "interrupt-status", &m->interrupt_status);
	state_u32(s, "offered-select", &m->offered_sel);
	state_u32(s, "accepted-select", &m->accepted_sel);
	state_u32(s, "queue-select", &m->queue_sel);
	/* KVM gives what comes by an eventfd to the IOAPIC a little later: it may not have been saved. */
	if (state_loading(s) && m->interrupt_status)
		irq_raise(m->pin);
}

static void mmio_free(struct virtio *v)
{
	struct mmio *m = v->transport;

	if (m->range.mapped) {
		for (unsigned i = 0; i < v->nr_queues; i++) {
			struct doorbell b = bell(m, i);

			bus_undoorbell(v->platform->mmio, &b);
		}
		bus_unmap(v->platform->mmio, &m->range);
	}
	v->platform->irqchip->ops->free(v->platform->irqchip, m->pin);
	free(m);
}

int virtio_mmio_new(struct virtio *v, u64 base, u32 gsi, struct device **out, struct err *err)
{
	struct mmio *m = calloc(1, sizeof(*m));
	int rc;

	if (!m) {
		device_destroy(&v->dev);
		return err_set(err, -ENOMEM, "out of memory");
	}
	m->v = v;
	m->used = (struct wire){ { .set = wire_set }, m, VIRTIO_MMIO_INT_VRING };
	m->config = (struct wire){ { .set = wire_set }, m, VIRTIO_MMIO_INT_CONFIG };
	m->range = (struct io_range){ .ops = &mmio_ops, .dev = &v->dev, .len = VIRTIO_MMIO_LEN,
				      .name = v->dev.name };
	v->transport = m;
	v->transport_state = mmio_state;
	v->transport_free = mmio_free;
	v->config_irq = &m->config.irq;
	for (unsigned i = 0; i < v->nr_queues; i++)
		v->vq[i].irq = &m->used.irq;
	rc = v->platform->irqchip->ops->edge(v->platform->irqchip, gsi, &m->pin, err);
	if (!rc)
		rc = bus_map(v->platform->mmio, &m->range, base, err);
	for (unsigned i = 0; i < v->nr_queues && !rc; i++) {
		struct doorbell b = bell(m, i);

		rc = bus_doorbell(v->platform->mmio, &b);
		if (rc)
			err_set(err, rc, "%s: doorbell: errno %d", v->dev.name, -rc);
	}
	if (rc) {
		device_destroy(&v->dev);
		return rc;
	}
	*out = &v->dev;
	return 0;
}
