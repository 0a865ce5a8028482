/* fake.c: see fake.h. */
#include "tests/lib/fake.h"
#include <sched.h>
#include "tests/lib/test.h"

/* --- wires --------------------------------------------------------------------------- */

static void wire_set(struct irq *irq, bool level)
{
	struct fake_irq *f = container_of(irq, struct fake_irq, irq);

	if (f->kind == FAKE_MSI && !f->routes)
		return;
	if (level)
		__atomic_add_fetch(&f->raises, 1, __ATOMIC_SEQ_CST);
	store_release(&f->level, level);
}

static int wire_fd(struct irq *irq)
{
	struct fake_irq *f = container_of(irq, struct fake_irq, irq);

	return f->kind == FAKE_MSI && f->routes ? FAKE_FD + (int)f->gsi : -1;
}

static int wire_new(struct irqchip *chip, enum fake_irq_kind kind, u32 gsi, struct irq **out,
		    struct err *err)
{
	struct fake_irqchip *c = container_of(chip, struct fake_irqchip, chip);

	if (c->fail_next) {
		int rc = c->fail_next;

		c->fail_next = 0;
		return err_set(err, rc, "fake: no wire");
	}
	for (int i = 0; i < FAKE_MAX_IRQS; i++) {
		struct fake_irq *f = &c->irq[i];

		if (f->kind)
			continue;
		*f = (struct fake_irq){ .irq = { wire_set, wire_fd }, .kind = kind, .gsi = gsi };
		c->nr_live++;
		*out = &f->irq;
		return 0;
	}
	return err_set(err, -ENOSPC, "fake: out of wires");
}

static int chip_line(struct irqchip *chip, u32 gsi, struct irq **out, struct err *err)
{
	return wire_new(chip, FAKE_LINE, gsi, out, err);
}

static int chip_edge(struct irqchip *chip, u32 gsi, struct irq **out, struct err *err)
{
	return wire_new(chip, FAKE_EDGE, gsi, out, err);
}

static int chip_msi(struct irqchip *chip, struct irq **out, struct err *err)
{
	struct fake_irqchip *c = container_of(chip, struct fake_irqchip, chip);

	return wire_new(chip, FAKE_MSI, c->nr_msi++, out, err);
}

static int chip_route(struct irq *irq, u64 addr, u32 data)
{
	struct fake_irq *f = container_of(irq, struct fake_irq, irq);

	f->addr = addr;
	f->data = data;
	f->routes++;
	return 0;
}

static void chip_free(struct irqchip *chip, struct irq *irq)
{
	struct fake_irqchip *c = container_of(chip, struct fake_irqchip, chip);

	if (!irq)
		return;
	container_of(irq, struct fake_irq, irq)->kind = 0;
	c->nr_live--;
}

static const struct irqchip_ops chip_ops = {
	.line = chip_line, .edge = chip_edge, .msi = chip_msi, .route = chip_route,
	.free = chip_free,
};

struct fake_irq *fake_line(struct fake *f, enum fake_irq_kind kind, u32 gsi)
{
	for (int i = 0; i < FAKE_MAX_IRQS; i++)
		if (f->chip.irq[i].kind == kind && f->chip.irq[i].gsi == gsi)
			return &f->chip.irq[i];
	return NULL;
}

struct fake_irq *fake_msi(struct fake *f, u64 addr, u32 data)
{
	for (int i = 0; i < FAKE_MAX_IRQS; i++) {
		struct fake_irq *q = &f->chip.irq[i];

		if (q->kind == FAKE_MSI && q->routes && q->addr == addr && q->data == data)
			return q;
	}
	return NULL;
}

int fake_nr_msi(struct fake *f)
{
	int n = 0;

	for (int i = 0; i < FAKE_MAX_IRQS; i++)
		n += f->chip.irq[i].kind == FAKE_MSI;
	return n;
}

/* --- the machine ----------------------------------------------------------------------- */

static void record_event(struct platform *p, enum machine_event event, int code)
{
	struct fake *f = container_of(p, struct fake, p);

	f->event = event;
	f->event_code = code;
	__atomic_add_fetch(&f->nr_events, 1, __ATOMIC_SEQ_CST);
}

static bool same_bell(const struct doorbell *a, const struct doorbell *b)
{
	return a->addr == b->addr && a->size == b->size && a->match == b->match &&
	       a->value == b->value && a->fd == b->fd;
}

static int hang_bell(struct bus *bus, const struct doorbell *bell, bool on)
{
	struct fake *f = bus->owner;

	for (int i = 0; i < f->nr_bells; i++)
		if (f->bell_bus[i] == bus && same_bell(&f->bell[i], bell)) {
			if (on)
				return -EEXIST;
			f->bell[i] = f->bell[--f->nr_bells];
			f->bell_bus[i] = f->bell_bus[f->nr_bells];
			return 0;
		}
	if (!on)
		return -ENOENT;
	if (f->nr_bells == ARRAY_SIZE(f->bell))
		return -ENOSPC;
	f->bell_bus[f->nr_bells] = bus;
	f->bell[f->nr_bells++] = *bell;
	return 0;
}

void fake_init(struct fake *f, u64 mem_len, int engine)
{
	struct err err = { 0 };

	memset(f, 0, sizeof(*f));
	f->chip.chip.ops = &chip_ops;
	bus_init(&f->mmio, "mmio");
	bus_init(&f->pio, "pio");
	f->mmio.doorbell = hang_bell;
	f->pio.doorbell = hang_bell;
	f->mmio.owner = f;
	f->pio.owner = f;
	f->p.mmio = &f->mmio;
	f->p.pio = &f->pio;
	f->p.irqchip = &f->chip.chip;
	f->p.event = record_event;
	f->p.metrics = &f->metrics;
	assert_int_equal(mem_new(&f->p.mem, mem_len, false, &err), 0);
	assert_int_equal(loop_new(&f->p.io_loop, &err), 0);
	f->p.main_loop = f->p.io_loop;
	if (engine >= 0)
		assert_int_equal(aio_new(&f->p.aio, f->p.io_loop, engine, &err), 0);
}

void fake_fini(struct fake *f)
{
	aio_free(f->p.aio);
	loop_free(f->p.io_loop);
	mem_free(f->p.mem);
	assert_null(f->metrics.first);
	assert_int_equal(f->chip.nr_live, 0);
	assert_int_equal(f->nr_bells, 0);
	assert_int_equal(f->mmio.nr, 0);
	assert_int_equal(f->pio.nr, 0);
	bus_fini(&f->mmio);
	bus_fini(&f->pio);
}

struct stop_task {
	struct task task;
	struct loop *loop;
};

static void stop_now(struct task *t)
{
	loop_stop(container_of(t, struct stop_task, task)->loop);
}

void fake_turn(struct fake *f)
{
	struct stop_task s = { .task.run = stop_now, .loop = f->p.io_loop };

	loop_post(f->p.io_loop, &s.task);
	loop_run(f->p.io_loop);
}

void fake_settle(struct fake *f)
{
	for (int i = 0; i < 6; i++)
		fake_turn(f);
}

bool fake_turn_until(struct fake *f, bool (*fn)(void *), void *arg)
{
	u64 end = now_ns() + 300 * 1000000000ULL;

	while (!fn(arg)) {
		if (now_ns() > end)
			return false;
		fake_turn(f);
		sched_yield();
	}
	return true;
}
