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
};

static struct platform *platform_of(struct device *dev)
{
	return container_of(dev, struct ports, dev)->platform;
}

/* No keyboard: both buffers are always empty. */
static u64 i8042_read(struct device *dev, u64 offset, unsigned size)
{
	(void)dev, (void)offset, (void)size;
	return 0;
}

static void i8042_write(struct device *dev, u64 offset, unsigned size, u64 value)
{
	(void)offset, (void)size;
	if ((u8)value == I8042_RESET)
		platform_of(dev)->event(platform_of(dev), MACHINE_RESET, 0);
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

static const struct io_ops data_io = { .read = i8042_read };
static const struct io_ops command_io = { .read = i8042_read, .write = i8042_write };
static const struct io_ops reset_io = { .read = i8042_read, .write = reset_write };
static const struct io_ops exit_io = { .write = exit_write };
static const struct io_ops pvpanic_io = { .read = pvpanic_read, .write = pvpanic_write };

static void ports_destroy(struct device *dev)
{
	struct ports *p = container_of(dev, struct ports, dev);

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
	*out = &p->dev;
	return 0;
}
