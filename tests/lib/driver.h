/* driver.h: a virtio driver over MMIO registers, for tests. */
#pragma once
#include "devices/virtio/virtio.h"
#include "tests/lib/fake.h"
#include "tests/lib/ring.h"

enum { DRIVER_BASE = 0xe8000000, DRIVER_GSI = 20, DRIVER_RINGS = 0x10000 };

struct driver {
	struct fake *fake;
	struct ring ring[VIRTIO_MAX_QUEUES];
};

u32  driver_get(struct driver *, u32 reg);
void driver_set(struct driver *, u32 reg, u32 value);
u64  driver_offered(struct driver *);
/* Reset, take these features and VERSION_1, set up queues of that size, DRIVER_OK.
 * Returns the status. */
u8   driver_start(struct driver *, u64 features, int nr_queues, u16 size);
void driver_setup_queue(struct driver *, int i, u16 size);
void driver_kick(struct driver *, int queue);		/* and let the device work */
int  driver_irqs(struct driver *);			/* so far */
