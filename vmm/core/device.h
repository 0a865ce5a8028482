/* device.h: the life of a device, and all it can reach. */
#pragma once
#include <pthread.h>
#include "vmm/core/base.h"
#include "vmm/core/err.h"
#include "vmm/core/irq.h"
#include "vmm/core/log.h"
#include "vmm/core/loop.h"
#include "vmm/core/mem.h"
#include "vmm/core/metrics.h"

struct device;
struct state;

/*
 * quiesce is the one hard promise: when it returns, nothing of the device runs
 * on any thread and no I/O of its is in flight, until resume, which goes on where
 * it was.  destroy = quiesce, free.  All are idempotent; unset members mean
 * "nothing to do".  Called by the control thread, without dev->lock; the vCPUs may
 * run meanwhile.
 */
struct device_ops {
	const char *kind;			/* "virtio-blk" */
	void (*quiesce)(struct device *);
	void (*resume)(struct device *);
	void (*state)(struct device *, struct state *);	/* quiesced; saves or loads */
	void (*destroy)(struct device *);
};

struct device {
	const struct device_ops *ops;
	char name[32];			/* unique: "disk0" */
	pthread_mutex_t lock;		/* held by the bus around register callbacks */
	u64 guest_errors;		/* see device_guest_error */
	struct log_limit noise;		/* of those */
	struct metric_set metrics;	/* of those; for the machine's registry */
};

void device_init(struct device *, const struct device_ops *, const char *name);
void device_fini(struct device *);
void device_quiesce(struct device *);
void device_resume(struct device *);
void device_state(struct device *, struct state *);
void device_destroy(struct device *);	/* NULL is allowed */

/* The guest did something a correct driver would not: count it, log a few in each
 * minute and how many were not, go on.  Never exits, never asserts.  Any thread. */
void device_guest_error(struct device *, const char *fmt, ...) printf_like(2, 3);

/* What a guest can ask of its machine through a device. */
enum machine_event {
	MACHINE_POWEROFF,
	MACHINE_RESET,
	MACHINE_PANIC,
	MACHINE_EXIT,			/* code: the exit status the guest chose */
	MACHINE_IO_ERROR,		/* not the guest's doing: pause until somebody saw to it */
};

/* A thread that serves queues. */
struct io_thread {
	struct loop *loop;
	struct aio *aio;			/* of the loop; NULL: no disks */
};

/* What a device is given of the machine.  All it can reach. */
struct platform {
	struct mem *mem;
	struct bus *mmio, *pio;
	struct irqchip *irqchip;
	struct loop *main_loop, *io_loop;
	struct aio *aio;			/* of io_loop */
	struct metrics *metrics;		/* NULL: nobody asks */
	/* Any thread.  But for an I/O error the calling vCPU executes no further
	 * instruction. */
	void (*event)(struct platform *, enum machine_event, int code);
};
