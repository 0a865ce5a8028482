/* device.c: what all devices share. */
#include "vmm/core/device.h"
#include <stdarg.h>
#include <stdio.h>
#include "vmm/core/log.h"
#include "vmm/core/state.h"

enum { LOGGED_ERRORS = 5 };	/* a hostile guest must not fill a log */

void device_init(struct device *dev, const struct device_ops *ops, const char *name)
{
	dev->ops = ops;
	snprintf(dev->name, sizeof(dev->name), "%s", name);
	pthread_mutex_init(&dev->lock, NULL);
	dev->guest_errors = 0;
}

void device_fini(struct device *dev)
{
	pthread_mutex_destroy(&dev->lock);
}

void device_quiesce(struct device *dev)
{
	if (dev->ops->quiesce)
		dev->ops->quiesce(dev);
}

void device_resume(struct device *dev)
{
	if (dev->ops->resume)
		dev->ops->resume(dev);
}

void device_state(struct device *dev, struct state *s)
{
	state_enter(s, dev->name, 0);
	if (dev->ops->state)
		dev->ops->state(dev, s);
	state_leave(s);
}

void device_destroy(struct device *dev)
{
	if (dev && dev->ops->destroy)
		dev->ops->destroy(dev);
}

void device_guest_error(struct device *dev, const char *fmt, ...)
{
	u32 n = __atomic_add_fetch(&dev->guest_errors, 1, __ATOMIC_RELAXED);
	char text[200];
	va_list ap;

	if (n > LOGGED_ERRORS)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_warn("%s: guest error: %s%s", dev->name, text,
		 n == LOGGED_ERRORS ? " (further ones are only counted)" : "");
}
