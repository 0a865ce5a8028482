/* msix.c: the MSI-X table, masks and pending bits (PCI 3.0, 6.8.2). */
#include "devices/pci/msix.h"
#include <linux/pci_regs.h>
#include <string.h>
#include "vmm/core/state.h"

enum { MSIX_MASKED = 1, MSIX_PENDING = 2 };
enum { ADDR_LOW, ADDR_HIGH, DATA, CONTROL };

static void send_if_due(struct msix_vector *v)
{
	if (load_acquire(&v->state) & MSIX_MASKED)
		return;
	if (__atomic_fetch_and(&v->state, ~MSIX_PENDING, __ATOMIC_SEQ_CST) & MSIX_PENDING &&
	    v->wire)
		irq_raise(v->wire);
}

/* Without a lock, against a vCPU that unmasks: set pending first, then look. */
static void vector_set(struct irq *irq, bool level)
{
	struct msix_vector *v = container_of(irq, struct msix_vector, irq);

	if (!level)
		return;
	__atomic_or_fetch(&v->state, MSIX_PENDING, __ATOMIC_SEQ_CST);
	send_if_due(v);
}

/* While it is masked, what comes goes by vector_set, which remembers it. */
static int vector_fd(struct irq *irq)
{
	struct msix_vector *v = container_of(irq, struct msix_vector, irq);

	return load_acquire(&v->state) & MSIX_MASKED || !v->wire ? -1 : irq_fd(v->wire);
}

void msix_init(struct msix *m, struct pci_dev *pci, struct irqchip *irqchip, unsigned nr, u32 table,
	       u32 pba)
{
	BUG_ON(nr > MSIX_MAX);
	memset(m, 0, sizeof(*m));
	m->pci = pci;
	m->irqchip = irqchip;
	m->nr = nr;
	m->cap = pci_add_cap(pci, PCI_CAP_ID_MSIX, PCI_CAP_MSIX_SIZEOF);
	pci_set(pci, m->cap + PCI_MSIX_FLAGS, 2, nr - 1);
	pci->writable[m->cap + PCI_MSIX_FLAGS + 1] =
		(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL) >> 8;
	pci_set(pci, m->cap + PCI_MSIX_TABLE, 4, table);
	pci_set(pci, m->cap + PCI_MSIX_PBA, 4, pba);
	for (unsigned i = 0; i < nr; i++)
		m->vector[i] = (struct msix_vector){
			.irq = { vector_set, vector_fd }, .msix = m, .state = MSIX_MASKED,
			.entry[CONTROL] = PCI_MSIX_ENTRY_CTRL_MASKBIT,
		};
}

void msix_fini(struct msix *m)
{
	for (unsigned i = 0; i < m->nr; i++)
		m->irqchip->ops->free(m->irqchip, m->vector[i].wire);
}

bool msix_enabled(const struct msix *m)
{
	return load_acquire(&m->enabled);
}

/* Tell the irqchip where the message goes; dear, so only when it changed. */
static int route(struct msix_vector *v)
{
	struct irqchip *chip = v->msix->irqchip;
	int rc = 0;

	if (v->wire && !memcmp(v->routed, v->entry, sizeof(v->routed)))
		return 0;
	if (!v->wire)
		rc = chip->ops->msi(chip, &v->wire, NULL);
	if (!rc)
		rc = chip->ops->route(v->wire, (u64)v->entry[ADDR_HIGH] << 32 | v->entry[ADDR_LOW],
				      v->entry[DATA]);
	if (!rc)
		memcpy(v->routed, v->entry, sizeof(v->routed));
	return rc;
}

static void set_masked(struct msix_vector *v, bool masked)
{
	u32 was = masked ? __atomic_fetch_or(&v->state, MSIX_MASKED, __ATOMIC_SEQ_CST) :
			   __atomic_fetch_and(&v->state, ~MSIX_MASKED, __ATOMIC_SEQ_CST);

	if (!(was & MSIX_MASKED) == masked && v->msix->changed)
		v->msix->changed(v->msix, v - v->msix->vector);
}

/* Of its host's failures a guest can cause many, too. */
static void not_routed(struct msix_vector *v, int rc)
{
	struct msix *m = v->msix;
	u64 addr = (u64)v->entry[ADDR_HIGH] << 32 | v->entry[ADDR_LOW], missed;

	if (!err_of_host(rc))
		device_guest_error(m->pci->dev, "MSI-X: cannot route to %#llx", (unsigned long long)addr);
	else if (log_allows(&m->noise, now_ns(), &missed))
		log_warn("%s: interrupt %u stays off until the guest sets it up anew: the host: %s",
			 m->pci->dev->name, (unsigned)(v - m->vector), strerror(-rc));
}

static void update(struct msix_vector *v)
{
	int rc;
	u32 flags = pci_get(v->msix->pci, v->msix->cap + PCI_MSIX_FLAGS, 2);
	bool masked = !(flags & PCI_MSIX_FLAGS_ENABLE) || flags & PCI_MSIX_FLAGS_MASKALL ||
		      v->entry[CONTROL] & PCI_MSIX_ENTRY_CTRL_MASKBIT;

	if (masked) {
		set_masked(v, true);
		/* Switched off altogether: what was pending is forgotten. */
		if (!(flags & PCI_MSIX_FLAGS_ENABLE))
			__atomic_and_fetch(&v->state, ~MSIX_PENDING, __ATOMIC_SEQ_CST);
		return;
	}
	rc = route(v);
	if (rc) {
		not_routed(v, rc);
		return;
	}
	set_masked(v, false);
	send_if_due(v);
}

u64 msix_table_read(struct msix *m, u64 offset, unsigned size)
{
	u64 i = offset / MSIX_ENTRY_LEN, value = 0;

	/* Accesses are of 4 or 8 bytes, aligned; others are undefined: read 0. */
	if (i < m->nr && size >= 4 && offset % size == 0)
		memcpy(&value, (u8 *)m->vector[i].entry + offset % MSIX_ENTRY_LEN, size);
	return value;
}

void msix_table_write(struct msix *m, u64 offset, unsigned size, u64 value)
{
	u64 i = offset / MSIX_ENTRY_LEN;
	struct msix_vector *v;

	if (i >= m->nr || size < 4 || offset % size)
		return;
	v = &m->vector[i];
	memcpy((u8 *)v->entry + offset % MSIX_ENTRY_LEN, &value, size);
	v->entry[ADDR_LOW] &= ~3U;
	v->entry[CONTROL] &= PCI_MSIX_ENTRY_CTRL_MASKBIT;
	if (m->updates)
		counter_add(m->updates, 1);
	update(v);
}

u64 msix_pba_read(struct msix *m, u64 offset, unsigned size)
{
	u64 bits = 0;

	for (unsigned i = 0; i < m->nr; i++)
		if (load_acquire(&m->vector[i].state) & MSIX_PENDING)
			bits |= 1ULL << i;
	return offset < 8 && offset % size == 0 ? bits >> 8 * offset : 0;
}

void msix_config_written(struct msix *m, unsigned offset, unsigned size)
{
	unsigned flags = m->cap + PCI_MSIX_FLAGS + 1;

	if (offset > flags || offset + size <= flags)
		return;
	store_release(&m->enabled, pci_get(m->pci, m->cap + PCI_MSIX_FLAGS, 2) &
				   PCI_MSIX_FLAGS_ENABLE);
	for (unsigned i = 0; i < m->nr; i++)
		update(&m->vector[i]);
}

void msix_state(struct msix *m, struct state *s)
{
	for (unsigned i = 0; i < m->nr; i++) {
		struct msix_vector *v = &m->vector[i];
		bool pending = load_acquire(&v->state) & MSIX_PENDING;

		state_enter(s, "vector", i);
		state_u32(s, "address-low", &v->entry[ADDR_LOW]);
		state_u32(s, "address-high", &v->entry[ADDR_HIGH]);
		state_u32(s, "data", &v->entry[DATA]);
		state_u32(s, "control", &v->entry[CONTROL]);
		state_bool(s, "pending", &pending);
		state_leave(s);
		if (!state_loading(s) || state_failed(s))
			continue;
		v->entry[ADDR_LOW] &= ~3U;
		v->entry[CONTROL] &= PCI_MSIX_ENTRY_CTRL_MASKBIT;
		if (pending)
			__atomic_or_fetch(&v->state, MSIX_PENDING, __ATOMIC_SEQ_CST);
	}
	if (state_loading(s) && !state_failed(s))
		msix_config_written(m, m->cap + PCI_MSIX_FLAGS, 2);
}

struct irq *msix_irq(struct msix *m, unsigned vector)
{
	return vector < m->nr ? &m->vector[vector].irq : NULL;
}
