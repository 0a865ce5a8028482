/* bus.h: an address space (MMIO or port I/O) and who answers where. */
#pragma once
#include <pthread.h>
#include "vmm/core/device.h"

/*
 * size is 1, 2, 4 or 8 and offset + size is inside the range: the bus checked.
 * Called under dev->lock, on the vCPU's thread.
 */
struct io_range;
struct io_ops {
	u64  (*read)(struct device *, u64 offset, unsigned size);
	void (*write)(struct device *, u64 offset, unsigned size, u64 value);
};

/* Embedded in its owner, who keeps it alive while mapped. */
struct io_range {
	const struct io_ops *ops;
	struct device *dev;
	u64 base, len;
	const char *name;	/* "com1", "virtio-mmio" */
	bool mapped;
};

/* An eventfd rung by the guest's write, without an exit to this program. */
struct doorbell {
	u64 addr;
	unsigned size;		/* 0: any, value ignored */
	bool match;		/* only for a write of this value */
	u64 value;
	int fd;
};

enum { BUS_MAX_RANGES = 256 };

struct bus {
	const char *name;		/* "mmio", "pio" */
	pthread_rwlock_t lock;
	struct io_range *range[BUS_MAX_RANGES];	/* sorted by base */
	int nr;
	/* Who makes doorbells; NULL: nobody (unit tests). */
	int (*doorbell)(struct bus *, const struct doorbell *, bool on);
	void *owner;
};

void bus_init(struct bus *, const char *name);
void bus_fini(struct bus *);

/* -EEXIST where another range answers already, -EINVAL if it wraps. */
int  bus_map(struct bus *, struct io_range *, u64 base, struct err *) must_check;
void bus_unmap(struct bus *, struct io_range *);	/* idempotent */
int  bus_doorbell(struct bus *, const struct doorbell *) must_check;
void bus_undoorbell(struct bus *, const struct doorbell *);

/* From vcpu.c.  Unclaimed reads give all ones; unclaimed writes vanish.  A value is of size
 * bytes: the rest of it is 0. */
u64  bus_read(struct bus *, u64 addr, unsigned size);
void bus_write(struct bus *, u64 addr, unsigned size, u64 value);
