/*
 * virtio.h: virtio devices as a driver sees them: finding one, status, features, queues,
 * interrupts; the same calls for both transports. Which one is used is said by transport=pci|mmio
 * on the command line.
 *
 * Spec: virtio 1.2, 2.1-2.7, 3.1 (initialization), 4.1 (PCI), 4.2 (MMIO).
 */
#ifndef GUEST_LIB_VIRTIO_H
#define GUEST_LIB_VIRTIO_H

#include "guest/lib/pci.h"

enum {
	VIRTIO_NET = 1, VIRTIO_BLK = 2, VIRTIO_RNG = 4, VIRTIO_VSOCK = 19,

	STATUS_ACKNOWLEDGE = 1, STATUS_DRIVER = 2, STATUS_DRIVER_OK = 4, STATUS_FEATURES_OK = 8,
	STATUS_NEEDS_RESET = 64, STATUS_FAILED = 128,

	F_INDIRECT = 28, F_EVENT_IDX = 29, F_VERSION_1 = 32,

	ISR_QUEUE = 1, ISR_CONFIG = 2,
	NO_VECTOR = 0xffff,

	/* The library's vectors; with MSI-X the table's entries 0 and 1. */
	VECTOR_CONFIG = 0x28, VECTOR_QUEUE = 0x29,
};

#define FEATURE(bit) (1ull << (bit))

struct virtio {
	u16 id;
	bool mmio;

	/* MMIO */
	u64 base;
	u32 gsi;

	/* PCI: addresses of the structures that the capabilities name */
	struct pci_dev pci;
	struct pci_msix msix;
	u64 common, isr, device, notify;
	u16 notify_port;		/* what to use instead; 0: none, or doorbell=memory was asked for */
	u32 notify_multiplier, device_len;
	bool interrupts;
	u16 queue_entry;		/* of the MSI-X table, for every queue: 1 unless set */

	u64 features;			/* negotiated */
};

/* A queue's place, as the driver tells the device. */
struct virtio_rings {
	u16 size;
	u64 desc, avail, used;
};

bool virtio_use_mmio(void);
bool virtio_find(struct virtio *, u16 id, unsigned n);

u8 virtio_status(struct virtio *);
void virtio_set_status(struct virtio *, u8 status);	/* replaces what was set */
void virtio_add_status(struct virtio *, u8 status);
bool virtio_reset(struct virtio *);			/* false: status did not become 0 */

u64 virtio_features(struct virtio *);			/* what the device offers */
void virtio_accept(struct virtio *, u64 features);
/* Reset, ACKNOWLEDGE, DRIVER, those of `wanted` that are offered, FEATURES_OK. */
bool virtio_negotiate(struct virtio *, u64 wanted);

/* Between negotiation and DRIVER_OK, before queues are set up: completions raise VECTOR_QUEUE on
 * this processor, configuration changes VECTOR_CONFIG (with MMIO both raise VECTOR_QUEUE). */
void virtio_enable_interrupts(struct virtio *);
u32 virtio_irqs(void);					/* how many have come for queues, */
u32 virtio_config_irqs(void);				/* and for configuration */

u16 virtio_queue_max(struct virtio *, u16 queue);	/* 0: there is no such queue */
void virtio_queue_set(struct virtio *, u16 queue, const struct virtio_rings *);
bool virtio_queue_enable(struct virtio *, u16 queue);	/* reads back as enabled */
void virtio_queue_size(struct virtio *, u16 queue, u16 size);
bool virtio_queue_is_enabled(struct virtio *, u16 queue);
void virtio_notify(struct virtio *, u16 queue);
/* MMIO only: the driver stops using a queue; PCI can do that by a reset alone. */
void virtio_mmio_queue_disable(struct virtio *, u16 queue);
/* PCI only: the MSI-X entry of a queue, and where in memory, or from notify_port on, its number is
 * written to notify. */
u16 virtio_queue_entry(struct virtio *, u16 queue);
u64 virtio_pci_bell(struct virtio *, u16 queue);

u8 virtio_isr(struct virtio *);				/* reading clears it, by either transport */
u8 virtio_generation(struct virtio *);
u64 virtio_config(struct virtio *, u32 offset, unsigned size);		/* size 1, 2, 4 or 8 */
void virtio_config_write(struct virtio *, u32 offset, unsigned size, u64 v);

/* The register by its number in the transport's own layout, for tests that misuse it. */
u64 virtio_registers(struct virtio *);

#endif
