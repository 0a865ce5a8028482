/* irqchip.c: pins by KVM_IRQ_LINE or irqfd, messages by GSI route and irqfd. */
#include "vmm/kvm/irqchip.h"
#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { PIC_PINS = 16, MAX_MSI = 1024 };

struct wire {
	struct irq irq;
	struct kvm_irqchip_state *chip;
	u32 gsi;
	int fd;				/* eventfd bound to the gsi, -1: none */
	bool level;			/* line: what KVM was last told (atomic) */
	bool is_msi, bound;
};

/* linux/kvm.h has a struct kvm_irqchip of its own. */
struct kvm_irqchip_state {
	struct irqchip irqchip;
	struct kvm *kvm;
	pthread_mutex_t lock;		/* of the routes */
	struct kvm_irq_routing *table;
	unsigned room;
	u64 used[MAX_MSI / 64];		/* GSIs from IRQCHIP_PINS on */
};

static struct kvm_irqchip_state *to_chip(struct irqchip *chip)
{
	return container_of(chip, struct kvm_irqchip_state, irqchip);
}

/* --- wires ------------------------------------------------------------------------------- */

static void line_set(struct irq *irq, bool level)
{
	struct wire *w = container_of(irq, struct wire, irq);
	struct kvm_irq_level l = { .irq = w->gsi, .level = level };

	if (__atomic_exchange_n(&w->level, level, __ATOMIC_SEQ_CST) != level)
		(void)!ioctl(w->chip->kvm->vm_fd, KVM_IRQ_LINE, &l);
}

static void edge_set(struct irq *irq, bool level)
{
	struct wire *w = container_of(irq, struct wire, irq);

	if (level)
		eventfd_write(w->fd, 1);
}

static int edge_fd(struct irq *irq)
{
	struct wire *w = container_of(irq, struct wire, irq);

	return w->bound ? w->fd : -1;
}

static int bind_fd(struct wire *w, bool on)
{
	struct kvm_irqfd f = { .fd = w->fd, .gsi = w->gsi,
			       .flags = on ? 0 : KVM_IRQFD_FLAG_DEASSIGN };

	return ioctl(w->chip->kvm->vm_fd, KVM_IRQFD, &f) ? -errno : 0;
}

static struct wire *wire_new(struct irqchip *chip, u32 gsi, struct irq irq)
{
	struct wire *w = calloc(1, sizeof(*w));

	if (w)
		*w = (struct wire){ .irq = irq, .chip = to_chip(chip), .gsi = gsi, .fd = -1 };
	return w;
}

static int new_line(struct irqchip *chip, u32 gsi, struct irq **out, struct err *err)
{
	struct wire *w = wire_new(chip, gsi, (struct irq){ .set = line_set });

	if (!w)
		return err_set(err, -ENOMEM, "irq: out of memory");
	*out = &w->irq;
	return 0;
}

static int new_edge(struct irqchip *chip, u32 gsi, struct irq **out, struct err *err)
{
	struct wire *w = wire_new(chip, gsi, (struct irq){ edge_set, edge_fd });
	int rc;

	if (!w)
		return err_set(err, -ENOMEM, "irq: out of memory");
	w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = w->fd < 0 ? -errno : bind_fd(w, true);
	if (rc) {
		if (w->fd >= 0)
			close(w->fd);
		free(w);
		return err_set(err, rc, "irq: irqfd for GSI %u: %s", gsi, strerror(-rc));
	}
	w->bound = true;
	*out = &w->irq;
	return 0;
}

/* --- messages -------------------------------------------------------------------------------- */

static int new_msi(struct irqchip *chip, struct irq **out, struct err *err)
{
	struct kvm_irqchip_state *c = to_chip(chip);
	u32 i = 0;
	struct wire *w;

	pthread_mutex_lock(&c->lock);
	while (i < MAX_MSI && c->used[i / 64] >> i % 64 & 1)
		i++;
	if (i < MAX_MSI)
		c->used[i / 64] |= 1ULL << i % 64;
	pthread_mutex_unlock(&c->lock);
	if (i == MAX_MSI)
		return err_set(err, -ENOSPC, "irq: no free GSI");
	w = wire_new(chip, IRQCHIP_PINS + i, (struct irq){ edge_set, edge_fd });
	if (!w)
		return err_set(err, -ENOMEM, "irq: out of memory");
	w->is_msi = true;
	w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->fd < 0) {
		int rc = -errno;

		chip->ops->free(chip, &w->irq);
		return err_set(err, rc, "irq: eventfd: %s", strerror(-rc));
	}
	*out = &w->irq;
	return 0;
}

static struct kvm_irq_routing_entry *entry_of(struct kvm_irqchip_state *c, u32 gsi)
{
	for (unsigned i = 0; i < c->table->nr; i++)
		if (c->table->entries[i].gsi == gsi)
			return &c->table->entries[i];
	return NULL;
}

static struct kvm_irq_routing_entry *add_entry(struct kvm_irqchip_state *c)
{
	if (c->table->nr == c->room) {
		unsigned room = c->room * 2;
		struct kvm_irq_routing *t = realloc(c->table, sizeof(*t) +
						    room * sizeof(t->entries[0]));

		if (!t)
			return NULL;
		c->table = t;
		c->room = room;
	}
	return memset(&c->table->entries[c->table->nr++], 0, sizeof(c->table->entries[0]));
}

static int route(struct irq *irq, u64 addr, u32 data)
{
	struct wire *w = container_of(irq, struct wire, irq);
	struct kvm_irqchip_state *c = w->chip;
	struct kvm_irq_routing_entry *e;
	int rc = 0;

	pthread_mutex_lock(&c->lock);
	e = entry_of(c, w->gsi);
	if (!e)
		e = add_entry(c);
	if (!e) {
		rc = -ENOMEM;
	} else {
		e->gsi = w->gsi;
		e->type = KVM_IRQ_ROUTING_MSI;
		e->u.msi.address_lo = addr;
		e->u.msi.address_hi = addr >> 32;
		e->u.msi.data = data;
		if (ioctl(c->kvm->vm_fd, KVM_SET_GSI_ROUTING, c->table))
			rc = -errno;
	}
	if (!rc && !w->bound) {
		rc = bind_fd(w, true);
		w->bound = !rc;
	}
	pthread_mutex_unlock(&c->lock);
	return rc;
}

static void wire_free(struct irqchip *chip, struct irq *irq)
{
	struct kvm_irqchip_state *c = to_chip(chip);
	struct wire *w = irq ? container_of(irq, struct wire, irq) : NULL;

	if (!w)
		return;
	if (w->bound)
		bind_fd(w, false);
	if (w->fd >= 0)
		close(w->fd);
	if (w->is_msi) {
		u32 i = w->gsi - IRQCHIP_PINS;
		struct kvm_irq_routing_entry *e;

		pthread_mutex_lock(&c->lock);
		c->used[i / 64] &= ~(1ULL << i % 64);
		e = entry_of(c, w->gsi);
		if (e)		/* the kernel's copy goes with the next route */
			*e = c->table->entries[--c->table->nr];
		pthread_mutex_unlock(&c->lock);
	}
	free(w);
}

static const struct irqchip_ops kvm_irqchip_ops = {
	.line = new_line, .edge = new_edge, .msi = new_msi, .route = route, .free = wire_free,
};

/* The table is set as a whole, so it starts with what KVM itself begins with:
 * every pin of the PICs and of the I/O APIC at the GSI of its number. */
static void add_pins(struct kvm_irqchip_state *c)
{
	for (u32 i = 0; i < PIC_PINS; i++)
		*add_entry(c) = (struct kvm_irq_routing_entry){
			.gsi = i, .type = KVM_IRQ_ROUTING_IRQCHIP,
			.u.irqchip = { i < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, i % 8 },
		};
	for (u32 i = 0; i < IRQCHIP_PINS; i++)
		*add_entry(c) = (struct kvm_irq_routing_entry){
			.gsi = i, .type = KVM_IRQ_ROUTING_IRQCHIP,
			.u.irqchip = { KVM_IRQCHIP_IOAPIC, i },
		};
}

int irqchip_new(struct irqchip **out, struct kvm *kvm, struct err *err)
{
	struct kvm_irqchip_state *c = calloc(1, sizeof(*c));

	if (c) {
		c->room = 64;
		c->table = calloc(1, sizeof(*c->table) + c->room * sizeof(c->table->entries[0]));
	}
	if (!c || !c->table) {
		free(c);
		return err_set(err, -ENOMEM, "irq: out of memory");
	}
	c->irqchip.ops = &kvm_irqchip_ops;
	c->kvm = kvm;
	pthread_mutex_init(&c->lock, NULL);
	add_pins(c);
	*out = &c->irqchip;
	return 0;
}

void irqchip_free(struct irqchip *chip)
{
	struct kvm_irqchip_state *c;

	if (!chip)
		return;
	c = to_chip(chip);
	pthread_mutex_destroy(&c->lock);
	free(c->table);
	free(c);
}
