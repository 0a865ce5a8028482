/* acpi_ports.c: hardware-reduced ACPI registers (ACPI 6.5, 4.8.3.7, 5.6.9). */
#include <errno.h>
#include <stdlib.h>
#include "devices/legacy.h"
#include "vmm/core/bus.h"
#include "vmm/core/state.h"

enum { SLEEP_ENABLE = 1 << 5, SLEEP_TYPE_SHIFT = 2, SLEEP_TYPE_MASK = 7, S5 = 5 };

struct acpi_ports {
	struct device dev;
	struct platform *platform;
	struct io_range range;
	struct irq *irq;
	u8 events;			/* atomic: the control thread sets, the guest takes */
};

static u64 acpi_read(struct device *dev, u64 offset, unsigned size)
{
	struct acpi_ports *a = container_of(dev, struct acpi_ports, dev);

	(void)size;
	if (offset == ACPI_EVENTS)
		return __atomic_exchange_n(&a->events, 0, __ATOMIC_SEQ_CST);
	return 0;
}

static void acpi_write(struct device *dev, u64 offset, unsigned size, u64 value)
{
	struct acpi_ports *a = container_of(dev, struct acpi_ports, dev);

	(void)size;
	if (offset == ACPI_SLEEP_CONTROL && value & SLEEP_ENABLE &&
	    (value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK) == S5)
		a->platform->event(a->platform, MACHINE_POWEROFF, 0);
}

static const struct io_ops acpi_io = { .read = acpi_read, .write = acpi_write };

void acpi_event(struct device *dev, u8 event)
{
	struct acpi_ports *a = container_of(dev, struct acpi_ports, dev);

	__atomic_or_fetch(&a->events, event, __ATOMIC_SEQ_CST);
	irq_raise(a->irq);
}

static void acpi_state(struct device *dev, struct state *s)
{
	state_u8(s, "events", &container_of(dev, struct acpi_ports, dev)->events);
}

static void acpi_destroy(struct device *dev)
{
	struct acpi_ports *a = container_of(dev, struct acpi_ports, dev);

	bus_unmap(a->platform->pio, &a->range);
	a->platform->irqchip->ops->free(a->platform->irqchip, a->irq);
	device_fini(dev);
	free(a);
}

static const struct device_ops acpi_ops = {
	.kind = "acpi", .state = acpi_state, .destroy = acpi_destroy,
};

int acpi_ports_new(struct platform *p, struct device **out, struct err *err)
{
	struct acpi_ports *a = calloc(1, sizeof(*a));
	int rc;

	if (!a)
		return err_set(err, -ENOMEM, "acpi: out of memory");
	device_init(&a->dev, &acpi_ops, "acpi");
	a->platform = p;
	a->range = (struct io_range){ .ops = &acpi_io, .dev = &a->dev, .len = ACPI_LEN,
				      .name = "acpi" };
	rc = p->irqchip->ops->edge(p->irqchip, ACPI_GSI, &a->irq, err);
	if (!rc)
		rc = bus_map(p->pio, &a->range, PORT_ACPI, err);
	if (rc) {
		acpi_destroy(&a->dev);
		return rc;
	}
	*out = &a->dev;
	return 0;
}
