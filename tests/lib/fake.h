/* fake.h: a machine without KVM: memory, buses, a loop, and wires that count. */
#pragma once
#include "vmm/core/aio.h"
#include "vmm/core/bus.h"
#include "vmm/core/device.h"

enum { FAKE_MAX_IRQS = 512, FAKE_FD = 2000 };
enum fake_irq_kind { FAKE_LINE = 1, FAKE_EDGE, FAKE_MSI };

struct fake_irq {
	struct irq irq;
	enum fake_irq_kind kind;	/* 0: free */
	u32 gsi;		/* of an MSI: its number; irq_fd() is FAKE_FD + that */
	int raises;		/* atomic; of an MSI: messages sent */
	bool level;
	int routes;		/* of an MSI: how often it was told where to */
	u64 addr;
	u32 data;
};

struct fake_irqchip {
	struct irqchip chip;
	struct fake_irq irq[FAKE_MAX_IRQS];
	int nr_live;
	u32 nr_msi;		/* that were ever made */
	int fail_next;		/* -errno for the next request, then 0 again */
};

struct fake {
	struct platform p;
	struct metrics metrics;
	struct bus mmio, pio;
	struct fake_irqchip chip;
	int nr_events;		/* atomic */
	enum machine_event event;
	int event_code;
	int nr_bells;		/* doorbells that hang now */
	struct doorbell bell[64];
	struct bus *bell_bus[64];
};

/* Memory of mem_len bytes and a loop that does not run: see fake_turn.  An aio
 * engine of its own, unless engine is negative. */
void fake_init(struct fake *, u64 mem_len, int engine);
/* Also checks that every wire, doorbell and counter was given back. */
void fake_fini(struct fake *);

/* One turn of the I/O loop, here and now, without waiting. */
void fake_turn(struct fake *);
/* Turns until all that is ready was done... */
void fake_settle(struct fake *);
/* ...or until fn says so; false: it did not within five minutes. */
bool fake_turn_until(struct fake *, bool (*fn)(void *), void *arg);

/* The wire of that kind and gsi, or the n-th MSI that lives; NULL: none. */
struct fake_irq *fake_line(struct fake *, enum fake_irq_kind, u32 gsi);
struct fake_irq *fake_msi(struct fake *, u64 addr, u32 data);
int fake_nr_msi(struct fake *);
