/* pci.c: virtio over PCI, modern devices only (virtio 1.2, 4.1). */
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>
#include <stdlib.h>
#include <string.h>
#include "devices/pci/msix.h"
#include "devices/virtio/virtio.h"
#include "vmm/core/state.h"

/* BAR 0.  Each queue has a notification address of its own: one ioeventfd each. */
enum {
	BAR_COMMON = 0x0000, BAR_ISR = 0x1000, BAR_DEVICE = 0x2000, BAR_NOTIFY = 0x3000,
	BAR_TABLE = 0x4000, BAR_PBA = 0x5000, BAR_LEN = 0x8000, BAR_PART = 0x1000,
	NOTIFY_STEP = 4,
};

/*
 * BAR 2, of ports, has the notification addresses once more, and is what drivers are
 * to prefer: where a processor does not tell KVM what a guest's instruction wrote to
 * memory (AMD's), the instruction is fetched, decoded and emulated for it.
 */
enum { PORTS_LEN = 128 };
_Static_assert(PORTS_LEN >= VIRTIO_MAX_QUEUES * NOTIFY_STEP, "a port for each queue");

enum { VENDOR_VIRTIO = 0x1af4, DEVICE_MODERN = 0x1040 };

/* A wire of the device, and the MSI-X vector the driver gave it. */
struct source {
	struct irq irq;
	struct vpci *vpci;
	u16 vector;			/* atomic */
	u8 isr_bit;
};

struct vpci {
	struct pci_dev pci;
	struct virtio *v;
	struct msix msix;
	u32 offered_sel, accepted_sel;
	u16 queue_sel;
	u8 isr;				/* atomic */
	struct source config, queue[VIRTIO_MAX_QUEUES];
	unsigned cfg_cap;		/* the window onto the BAR in config space */
};

static struct vpci *to_vpci(struct device *dev)
{
	return container_of(dev, struct virtio, dev)->transport;
}

static void source_set(struct irq *irq, bool level)
{
	struct source *s = container_of(irq, struct source, irq);
	struct vpci *p = s->vpci;
	struct irq *vector = msix_enabled(&p->msix) ? msix_irq(&p->msix, load_once(&s->vector)) :
						      NULL;

	(void)level;
	/* Without MSI-X there is no pin, but a driver may still poll; that the
	 * configuration changed it may always read there (4.1.4.5.1). */
	if (!vector || s->isr_bit == VIRTIO_PCI_ISR_CONFIG)
		__atomic_or_fetch(&p->isr, s->isr_bit, __ATOMIC_SEQ_CST);
	if (vector)
		irq_raise(vector);
}

static int source_fd(struct irq *irq)
{
	struct source *s = container_of(irq, struct source, irq);
	struct irq *vector = msix_irq(&s->vpci->msix, load_once(&s->vector));

	return vector ? irq_fd(vector) : -1;
}

static void vector_changed(struct msix *m, unsigned vector)
{
	struct vpci *p = container_of(m, struct vpci, msix);

	for (unsigned i = 0; i < p->v->nr_queues; i++)
		if (p->queue[i].vector == vector)
			virtio_irq_moved(p->v, i);
}

static void set_vector(struct vpci *p, struct source *s, u64 vector)
{
	/* One that does not exist reads back as none: the driver asks (4.1.5.1.2). */
	store_once(&s->vector, vector < p->msix.nr ? vector : VIRTIO_MSI_NO_VECTOR);
}

/* --- common configuration (4.1.4.3) ------------------------------------------------------ */

/* Registers are read and written whole; a 64-bit one as two halves. */
static const u8 common_width[] = {
	[VIRTIO_PCI_COMMON_DFSELECT] = 4, [VIRTIO_PCI_COMMON_DF] = 4,
	[VIRTIO_PCI_COMMON_GFSELECT] = 4, [VIRTIO_PCI_COMMON_GF] = 4,
	[VIRTIO_PCI_COMMON_MSIX] = 2, [VIRTIO_PCI_COMMON_NUMQ] = 2,
	[VIRTIO_PCI_COMMON_STATUS] = 1, [VIRTIO_PCI_COMMON_CFGGENERATION] = 1,
	[VIRTIO_PCI_COMMON_Q_SELECT] = 2, [VIRTIO_PCI_COMMON_Q_SIZE] = 2,
	[VIRTIO_PCI_COMMON_Q_MSIX] = 2, [VIRTIO_PCI_COMMON_Q_ENABLE] = 2,
	[VIRTIO_PCI_COMMON_Q_NOFF] = 2,
	[VIRTIO_PCI_COMMON_Q_DESCLO] = 4, [VIRTIO_PCI_COMMON_Q_DESCHI] = 4,
	[VIRTIO_PCI_COMMON_Q_AVAILLO] = 4, [VIRTIO_PCI_COMMON_Q_AVAILHI] = 4,
	[VIRTIO_PCI_COMMON_Q_USEDLO] = 4, [VIRTIO_PCI_COMMON_Q_USEDHI] = 4,
};

static u64 common_read_queue(struct vpci *p, const struct virtq *q, u64 offset)
{
	switch (offset) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		return q->size;
	case VIRTIO_PCI_COMMON_Q_MSIX:
		return load_once(&p->queue[q->index].vector);
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		return q->ready;
	case VIRTIO_PCI_COMMON_Q_NOFF:
		return q->index;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
		return q->desc.addr;
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		return q->desc.addr >> 32;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
		return q->avail.addr;
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		return q->avail.addr >> 32;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
		return q->used.addr;
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		return q->used.addr >> 32;
	}
	return 0;
}

static u64 common_read(struct vpci *p, u64 offset)
{
	struct virtio *v = p->v;
	struct virtq *q = virtio_queue(v, p->queue_sel);

	switch (offset) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		return p->offered_sel;
	case VIRTIO_PCI_COMMON_DF:
		return virtio_offered(v, p->offered_sel);
	case VIRTIO_PCI_COMMON_GFSELECT:
		return p->accepted_sel;
	case VIRTIO_PCI_COMMON_GF:
		return virtio_accepted(v, p->accepted_sel);
	case VIRTIO_PCI_COMMON_MSIX:
		return load_once(&p->config.vector);
	case VIRTIO_PCI_COMMON_NUMQ:
		return v->nr_queues;
	case VIRTIO_PCI_COMMON_STATUS:
		return virtio_status(v);
	case VIRTIO_PCI_COMMON_CFGGENERATION:
		return load_once(&v->generation) & 0xff;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		return p->queue_sel;
	}
	return q ? common_read_queue(p, q, offset) : 0;
}

static void common_write_queue(struct vpci *p, u64 offset, u32 value)
{
	struct virtq *q;

	if (offset == VIRTIO_PCI_COMMON_Q_ENABLE && value != 1) {
		device_guest_error(&p->v->dev, "queue %u: %u written to queue_enable",
				   p->queue_sel, value);
		return;
	}
	/* To be written before queue_enable (4.1.4.3.2), but the BSDs' drivers do so after it. */
	q = virtio_queue(p->v, p->queue_sel);
	if (offset == VIRTIO_PCI_COMMON_Q_MSIX && q && !(virtio_status(p->v) & VIRTIO_CONFIG_S_DRIVER_OK)) {
		set_vector(p, &p->queue[q->index], value);
		return;
	}
	q = virtio_queue_setup(p->v, p->queue_sel);
	if (!q)
		return;
	switch (offset) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		q->size = value;
		break;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		q->ready = true;
		break;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		virtio_set_half(&q->desc, offset == VIRTIO_PCI_COMMON_Q_DESCHI, value);
		break;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		virtio_set_half(&q->avail, offset == VIRTIO_PCI_COMMON_Q_AVAILHI, value);
		break;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		virtio_set_half(&q->used, offset == VIRTIO_PCI_COMMON_Q_USEDHI, value);
		break;
	}
}

static void forget_vectors(struct vpci *p)
{
	store_once(&p->config.vector, VIRTIO_MSI_NO_VECTOR);
	for (int i = 0; i < VIRTIO_MAX_QUEUES; i++)
		store_once(&p->queue[i].vector, VIRTIO_MSI_NO_VECTOR);
	store_release(&p->isr, 0);
}

static void common_write(struct vpci *p, u64 offset, u32 value)
{
	switch (offset) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		p->offered_sel = value;
		break;
	case VIRTIO_PCI_COMMON_GFSELECT:
		p->accepted_sel = value;
		break;
	case VIRTIO_PCI_COMMON_GF:
		virtio_accept(p->v, p->accepted_sel, value);
		break;
	case VIRTIO_PCI_COMMON_MSIX:
		set_vector(p, &p->config, value);
		break;
	case VIRTIO_PCI_COMMON_STATUS:
		virtio_set_status(p->v, value);
		if (!value)
			forget_vectors(p);
		break;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		p->queue_sel = value;
		break;
	default:
		common_write_queue(p, offset, value);
	}
}

/* Drivers write the 64-bit fields as two halves, but may use one access. */
static bool common_access_ok(struct vpci *p, u64 offset, unsigned size)
{
	if (offset < sizeof(common_width) && common_width[offset] == size)
		return true;
	if (size == 8 && (offset == VIRTIO_PCI_COMMON_Q_DESCLO ||
			  offset == VIRTIO_PCI_COMMON_Q_AVAILLO ||
			  offset == VIRTIO_PCI_COMMON_Q_USEDLO))
		return true;
	device_guest_error(&p->v->dev, "access of %u bytes at %#llx of the common configuration",
			   size, (unsigned long long)offset);
	return false;
}

/* --- BAR 0 ----------------------------------------------------------------------------------- */

static u64 bar_read(struct device *dev, u64 offset, unsigned size)
{
	struct vpci *p = to_vpci(dev);
	u64 at = offset % BAR_PART;

	switch (ALIGN_DOWN(offset, BAR_PART)) {
	case BAR_COMMON:
		if (!common_access_ok(p, at, size))
			return 0;
		if (size == 8)
			return common_read(p, at) | common_read(p, at + 4) << 32;
		return common_read(p, at) & (~0ULL >> (64 - 8 * size));
	case BAR_ISR:
		return at ? 0 : __atomic_exchange_n(&p->isr, 0, __ATOMIC_SEQ_CST);
	case BAR_DEVICE:
		return virtio_config_read(p->v, at, size);
	case BAR_TABLE:
		return msix_table_read(&p->msix, at, size);
	case BAR_PBA:
		return msix_pba_read(&p->msix, at, size);
	}
	return 0;
}

static void bar_write(struct device *dev, u64 offset, unsigned size, u64 value)
{
	struct vpci *p = to_vpci(dev);
	u64 at = offset % BAR_PART;

	switch (ALIGN_DOWN(offset, BAR_PART)) {
	case BAR_COMMON:
		if (!common_access_ok(p, at, size))
			break;
		common_write(p, at, value);
		if (size == 8)
			common_write(p, at + 4, value >> 32);
		break;
	case BAR_DEVICE:
		virtio_config_write(p->v, at, size, value);
		break;
	case BAR_NOTIFY:	/* only where the doorbell did not take it */
		virtio_notify(p->v, at / NOTIFY_STEP);
		break;
	case BAR_TABLE:
		msix_table_write(&p->msix, at, size, value);
		break;
	}
}

static const struct io_ops bar_ops = { .read = bar_read, .write = bar_write };

/* Only where the doorbell did not take it. */
static void ports_write(struct device *dev, u64 offset, unsigned size, u64 value)
{
	(void)size, (void)value;
	virtio_notify(to_vpci(dev)->v, offset / NOTIFY_STEP);
}

static const struct io_ops ports_ops = { .write = ports_write };

static void bar_mapped(struct pci_dev *d, struct io_range *r, bool mapped)
{
	struct vpci *p = container_of(d, struct vpci, pci);
	bool in_memory = r == &d->bar;
	struct bus *bus = in_memory ? p->v->platform->mmio : p->v->platform->pio;

	for (unsigned i = 0; i < p->v->nr_queues; i++) {
		struct doorbell bell = {
			.addr = r->base + (in_memory ? BAR_NOTIFY : 0) + (u64)i * NOTIFY_STEP,
			.fd = p->v->kick[i].fd,
		};

		/* Where KVM has no more of them, bar_write and ports_write notify. */
		if (!mapped)
			bus_undoorbell(bus, &bell);
		else if (bus_doorbell(bus, &bell))
			device_guest_error(&p->v->dev, "no doorbell for queue %u", i);
	}
}

/* --- config space ------------------------------------------------------------------------------ */

/* The BAR through config space (4.1.4.9): where it points, checked. */
static bool cfg_window(struct vpci *p, unsigned offset, unsigned size, u32 *at, unsigned *len)
{
	unsigned data = p->cfg_cap + sizeof(struct virtio_pci_cap);

	if (offset >= data + 4 || offset + size <= data)
		return false;
	*at = pci_get(&p->pci, p->cfg_cap + offsetof(struct virtio_pci_cap, offset), 4);
	*len = pci_get(&p->pci, p->cfg_cap + offsetof(struct virtio_pci_cap, length), 4);
	return p->pci.config[p->cfg_cap + offsetof(struct virtio_pci_cap, bar)] == 0 &&
	       (*len == 1 || *len == 2 || *len == 4) && *at % *len == 0 && *at < BAR_LEN;
}

static void config_read(struct pci_dev *d, unsigned offset, unsigned size)
{
	struct vpci *p = container_of(d, struct vpci, pci);
	bool polled = load_acquire(&p->isr) && !msix_enabled(&p->msix);
	unsigned len;
	u32 at;

	/* Without MSI-X it says what the ISR says (4.1.4.5.1). */
	d->config[PCI_STATUS] = (d->config[PCI_STATUS] & ~PCI_STATUS_INTERRUPT) |
				(polled ? PCI_STATUS_INTERRUPT : 0);
	if (cfg_window(p, offset, size, &at, &len))
		pci_set(d, p->cfg_cap + sizeof(struct virtio_pci_cap), 4,
			bar_read(d->dev, at, len));
}

/* PCI 3.0, 6.2.2.  A kernel that is about to start another takes it from what may still be running. */
static void follow_bus_master(struct vpci *p)
{
	virtio_set_bus_master(p->v, pci_get(&p->pci, PCI_COMMAND, 2) & PCI_COMMAND_MASTER);
}

static void config_written(struct pci_dev *d, unsigned offset, unsigned size)
{
	struct vpci *p = container_of(d, struct vpci, pci);
	unsigned len;
	u32 at;

	msix_config_written(&p->msix, offset, size);
	follow_bus_master(p);
	if (cfg_window(p, offset, size, &at, &len))
		bar_write(d->dev, at, len, pci_get(d, p->cfg_cap + sizeof(struct virtio_pci_cap),
						   len));
}

static const struct pci_ops vpci_ops = {
	.config_read = config_read, .config_written = config_written, .bar_mapped = bar_mapped,
};

static unsigned add_cap(struct vpci *p, u8 type, u8 bar, u32 offset, u32 length, unsigned extra)
{
	unsigned len = sizeof(struct virtio_pci_cap) + extra;
	unsigned at = pci_add_cap(&p->pci, PCI_CAP_ID_VNDR, len);
	struct virtio_pci_cap cap = {
		.cap_vndr = PCI_CAP_ID_VNDR, .cap_next = p->pci.config[at + 1], .cap_len = len,
		.cfg_type = type, .bar = bar, .offset = offset, .length = length,
	};

	memcpy(p->pci.config + at, &cap, sizeof(cap));
	return at;
}

static void add_caps(struct vpci *p)
{
	unsigned at;

	add_cap(p, VIRTIO_PCI_CAP_COMMON_CFG, 0, BAR_COMMON, BAR_PART, 0);
	/* The first is what the driver is to prefer (4.1.4). */
	at = add_cap(p, VIRTIO_PCI_CAP_NOTIFY_CFG, 2, 0, PORTS_LEN, 4);
	pci_set(&p->pci, at + sizeof(struct virtio_pci_cap), 4, NOTIFY_STEP);
	at = add_cap(p, VIRTIO_PCI_CAP_NOTIFY_CFG, 0, BAR_NOTIFY, BAR_PART, 4);
	pci_set(&p->pci, at + sizeof(struct virtio_pci_cap), 4, NOTIFY_STEP);
	add_cap(p, VIRTIO_PCI_CAP_ISR_CFG, 0, BAR_ISR, BAR_PART, 0);
	if (p->v->ops->config_len)
		add_cap(p, VIRTIO_PCI_CAP_DEVICE_CFG, 0, BAR_DEVICE, BAR_PART, 0);
	p->cfg_cap = add_cap(p, VIRTIO_PCI_CAP_PCI_CFG, 0, 0, 0, 4);
	p->pci.writable[p->cfg_cap + offsetof(struct virtio_pci_cap, bar)] = 0xff;
	memset(p->pci.writable + p->cfg_cap + offsetof(struct virtio_pci_cap, offset), 0xff, 4);
	memset(p->pci.writable + p->cfg_cap + offsetof(struct virtio_pci_cap, length), 0xff, 4);
	memset(p->pci.writable + p->cfg_cap + sizeof(struct virtio_pci_cap), 0xff, 4);
}

static u32 class_of(u32 virtio_id)
{
	switch (virtio_id) {
	case VIRTIO_ID_NET:
		return 0x020000;	/* Ethernet controller */
	case VIRTIO_ID_BLOCK:
		return 0x018000;	/* other mass storage controller */
	}
	return 0xff0000;		/* none of the classes */
}

static void vpci_state(struct virtio *v, struct state *s)
{
	struct vpci *p = v->transport;

	state_u32(s, "offered-select", &p->offered_sel);
	state_u32(s, "accepted-select", &p->accepted_sel);
	state_u16(s, "queue-select", &p->queue_sel);
	state_u8(s, "isr", &p->isr);
	state_u16(s, "config-vector", &p->config.vector);
	pci_dev_state(&p->pci, s);
	follow_bus_master(p);
	msix_state(&p->msix, s);
	for (unsigned i = 0; i < v->nr_queues; i++) {
		state_enter(s, "queue-vector", i);
		state_u16(s, "vector", &p->queue[i].vector);
		state_leave(s);
	}
}

static void vpci_free(struct virtio *v)
{
	struct vpci *p = v->transport;

	pci_unplug(&p->pci);
	msix_fini(&p->msix);
	free(p);
}

int virtio_pci_new(struct virtio *v, struct pci_bus *bus, struct device **out, struct err *err)
{
	struct pci_ids ids = {
		.vendor = VENDOR_VIRTIO, .device = DEVICE_MODERN + v->ops->id, .revision = 1,
		.subsystem_vendor = VENDOR_VIRTIO, .subsystem = DEVICE_MODERN + v->ops->id,
		.class = class_of(v->ops->id),
	};
	struct vpci *p = calloc(1, sizeof(*p));
	int rc;

	if (!p) {
		device_destroy(&v->dev);
		return err_set(err, -ENOMEM, "out of memory");
	}
	p->v = v;
	p->config = (struct source){ { .set = source_set }, p, VIRTIO_MSI_NO_VECTOR,
				     VIRTIO_PCI_ISR_CONFIG };
	v->config_irq = &p->config.irq;
	for (unsigned i = 0; i < v->nr_queues; i++) {
		p->queue[i] = (struct source){ { source_set, source_fd }, p,
					       VIRTIO_MSI_NO_VECTOR, 1 };
		v->vq[i].irq = &p->queue[i].irq;
	}
	v->transport = p;
	v->transport_state = vpci_state;
	v->transport_free = vpci_free;
	pci_dev_init(&p->pci, &v->dev, &vpci_ops, &ids);
	pci_set_bar(&p->pci, &bar_ops, BAR_LEN);
	pci_set_ports(&p->pci, &ports_ops, PORTS_LEN);
	msix_init(&p->msix, &p->pci, v->platform->irqchip, v->nr_queues + 1, BAR_TABLE,
		  BAR_PBA);
	p->msix.changed = vector_changed;
	p->msix.updates = &v->counters.vectors;
	add_caps(p);
	follow_bus_master(p);
	rc = pci_plug(bus, &p->pci, err);
	if (rc) {
		device_destroy(&v->dev);
		return rc;
	}
	*out = &v->dev;
	return 0;
}
