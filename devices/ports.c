/* ports.c: ports whose whole purpose is to say one thing to the machine. */
#include <errno.h>
#include <stdlib.h>
#include "devices/legacy.h"
#include "vmm/core/bus.h"

enum { I8042_DATA = 0, I8042_COMMAND = 4, PVPANIC_PANICKED = 1, PVPANIC_CRASH_LOADED = 2 };

struct ports {
	struct device dev;
	struct platform *platform;
	struct io_range data, command, reset, exit, pvpanic;
	struct metric_set metrics;
	struct i8042_counters { u64 reads, writes, ignored, resets; } counters;
};

static const struct metric i8042_metric[] = {
	{ "i8042_accesses_total", "op=\"read\"", "Of the keyboard controller that resets the machine",
	  .offset = offsetof(struct i8042_counters, reads) },
	{ "i8042_accesses_total", "op=\"write\"", .offset = offsetof(struct i8042_counters, writes) },
	{ "i8042_ignored_total", NULL, "Bytes for a keyboard, which there is not",
	  .offset = offsetof(struct i8042_counters, ignored) },
	{ "i8042_resets_total", NULL, "How often the guest asked it for a reset",
	  .offset = offsetof(struct i8042_counters, resets) },
};
static const struct metric_table i8042_table = { NULL, i8042_metric, ARRAY_SIZE(i8042_metric) };

static struct platform *platform_of(struct device *dev)
{
	return container_of(dev, struct ports, dev)->platform;
}

/* No keyboard: both buffers are always empty. */
static u64 i8042_read(struct device *dev, u64 offset, unsigned size)
{
	(void)offset, (void)size;
	counter_add(&container_of(dev, struct ports, dev)->counters.reads, 1);
	return 0;
}

static void i8042_write(struct device *dev, u64 offset, unsigned size, u64 value)
{
	struct i8042_counters *n = &container_of(dev, struct ports, dev)->counters;
	bool reset = (u8)value == I8042_RESET;

	(void)offset, (void)size;
	counter_add(&n->writes, 1);
	counter_add(&n->resets, reset);
	if (reset)
		platform_of(dev)->event(platform_of(dev), MACHINE_RESET, 0);
}

static void i8042_data_write(struct device *dev, u64 offset, unsigned size, u64 value)
{
	(void)offset, (void)size, (void)value;
	counter_add(&container_of(dev, struct ports, dev)->counters.ignored, 1);
}

static u64 reset_read(struct device *dev, u64 offset, unsigned size)
{
	(void)dev, (void)offset, (void)size;
	return 0;
}

static void reset_write(struct device *dev, u64 offset, unsigned size, u64 value)
{
	(void)offset, (void)size;
	if (value & RESET_CONTROL_RESET)
		platform_of(dev)->event(platform_of(dev), MACHINE_RESET, 0);
}

static void exit_write(struct device *dev, u64 offset, unsigned size, u64 value)
{
	(void)offset, (void)size;
	platform_of(dev)->event(platform_of(dev), MACHINE_EXIT, value & 0xff);
}

static u64 pvpanic_read(struct device *dev, u64 offset, unsigned size)
{
	(void)dev, (void)offset, (void)size;
	return PVPANIC_PANICKED | PVPANIC_CRASH_LOADED;
}

/* CRASH_LOADED: the guest has a crash kernel and goes on by itself. */
static void pvpanic_write(struct device *dev, u64 offset, unsigned size, u64 value)
{
	(void)offset, (void)size;
	if (value & PVPANIC_PANICKED)
		platform_of(dev)->event(platform_of(dev), MACHINE_PANIC, 0);
}

static const struct io_ops data_io = { .read = i8042_read, .write = i8042_data_write };
static const struct io_ops command_io = { .read = i8042_read, .write = i8042_write };
static const struct io_ops reset_io = { .read = reset_read, .write = reset_write };
static const struct io_ops exit_io = { .write = exit_write };
static const struct io_ops pvpanic_io = { .read = pvpanic_read, .write = pvpanic_write };

static void ports_destroy(struct device *dev)
{
	struct ports *p = container_of(dev, struct ports, dev);

	metrics_remove(&p->metrics);
	bus_unmap(p->platform->pio, &p->data);
	bus_unmap(p->platform->pio, &p->command);
	bus_unmap(p->platform->pio, &p->reset);
	bus_unmap(p->platform->pio, &p->exit);
	bus_unmap(p->platform->pio, &p->pvpanic);
	device_fini(dev);
	free(p);
}

static const struct device_ops ports_ops = { .kind = "ports", .destroy = ports_destroy };

static int map_port(struct ports *p, struct io_range *r, const struct io_ops *ops, u64 port,
		    u64 len, const char *name, struct err *err)
{
	*r = (struct io_range){ .ops = ops, .dev = &p->dev, .len = len, .name = name };
	return bus_map(p->platform->pio, r, port, err);
}

int ports_new(struct platform *platform, bool reset_control, struct device **out, struct err *err)
{
	struct ports *p = calloc(1, sizeof(*p));
	int rc;

	if (!p)
		return err_set(err, -ENOMEM, "ports: out of memory");
	device_init(&p->dev, &ports_ops, "ports");
	p->platform = platform;
	rc = map_port(p, &p->data, &data_io, PORT_I8042 + I8042_DATA, 1, "i8042-data", err);
	if (!rc)
		rc = map_port(p, &p->command, &command_io, PORT_I8042 + I8042_COMMAND, 1,
			      "i8042-command", err);
	if (!rc && reset_control)
		rc = map_port(p, &p->reset, &reset_io, PORT_RESET_CONTROL, 1, "reset", err);
	/* Four, so that a wider access is heard as well. */
	if (!rc)
		rc = map_port(p, &p->exit, &exit_io, PORT_EXIT, 4, "exit", err);
	if (!rc)
		rc = map_port(p, &p->pvpanic, &pvpanic_io, PORT_PVPANIC, 1, "pvpanic", err);
	if (rc) {
		ports_destroy(&p->dev);
		return rc;
	}
	p->metrics = (struct metric_set){ .table = &i8042_table, .counters = &p->counters };
	metrics_add(platform->metrics, &p->metrics);
	*out = &p->dev;
	return 0;
}
