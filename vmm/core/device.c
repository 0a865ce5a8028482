/* device.c: what all devices share. */
#include "vmm/core/device.h"
#include <stdarg.h>
#include <stdio.h>
#include "vmm/core/state.h"

static const struct metric device_metric[] = {
	{ "device_guest_errors_total", NULL, "What no correct driver does", .offset = 0 },
};
static const struct metric_table device_table = { "device", device_metric,
						  ARRAY_SIZE(device_metric) };

void device_init(struct device *dev, const struct device_ops *ops, const char *name)
{
	dev->ops = ops;
	snprintf(dev->name, sizeof(dev->name), "%s", name);
	pthread_mutex_init(&dev->lock, NULL);
	dev->guest_errors = 0;
	dev->noise = (struct log_limit){ 0 };
	dev->metrics = (struct metric_set){ .table = &device_table, .owner = dev->name,
					    .counters = &dev->guest_errors };
}

void device_fini(struct device *dev)
{
	u64 missed = load_once(&dev->noise.suppressed);

	if (missed)
		log_warn("%s: %llu more guest errors", dev->name, (unsigned long long)missed);
	metrics_remove(&dev->metrics);
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
	char text[200];
	unsigned left;
	va_list ap;
	u64 missed;

	__atomic_add_fetch(&dev->guest_errors, 1, __ATOMIC_RELAXED);
	left = log_allows(&dev->noise, now_ns(), &missed);	/* it must not fill a log */
	if (missed)
		log_warn("%s: %llu more guest errors before this", dev->name,
			 (unsigned long long)missed);
	if (!left)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_warn("%s: guest error: %s%s", dev->name, text,
		 left == 1 ? " (further ones in this minute are only counted)" : "");
}
