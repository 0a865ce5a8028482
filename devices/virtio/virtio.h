/* virtio.h: a virtio device, whichever transport carries it (virtio 1.2, 2). */
#pragma once
#include "devices/virtio/virtq.h"
#include "vmm/core/device.h"

enum { VIRTIO_MAX_QUEUES = 17 };	/* eight pairs of a network card, and its control queue */

struct pci_bus;
struct virtio;

/*
 * What a device type is.  Each queue is served by one loop, its own or that of
 * others.  start: before any queue runs, and again after a stop; what the driver
 * said is in accepted, the queues' rings are checked.  stop: after all queues were
 * drained.  Both on queue 0's loop.  negotiated: accepted is final.  kick, and drain: on the queue's loop; drain is
 * the last there: afterwards nothing that was popped is in flight.  forget: what
 * still waits in the device is nobody's any more; no loop runs then.  config_write:
 * true: the driver may write that; the bytes are in value.  irq_moved, between start and
 * stop: irq_fd() of the queue's irq is another one now.  It, forget, negotiated and the
 * rest are under dev.lock.
 */
struct virtio_ops {
	const char *kind;			/* "virtio-blk" */
	u32 id;					/* VIRTIO_ID_BLOCK */
	u16 queue_size;
	u16 config_len;
	void (*negotiated)(struct virtio *);
	int  (*start)(struct virtio *);		/* 0 or -errno: NEEDS_RESET */
	void (*stop)(struct virtio *);
	void (*kick)(struct virtio *, struct virtq *);
	void (*drain)(struct virtio *, struct virtq *);
	void (*forget)(struct virtio *, struct virtq *);
	void (*state)(struct virtio *, struct state *);	/* quiesced; queues are loaded */
	bool (*config_write)(struct virtio *, u64 offset, unsigned size, u64 value);
	void (*irq_moved)(struct virtio *, struct virtq *);
	void (*destroy)(struct virtio *);
};

struct virtio {
	struct device dev;
	const struct virtio_ops *ops;
	struct platform *platform;
	void *config;			/* device config bytes the driver reads */
	u64 offered, accepted;		/* feature bits */
	u8 status;
	bool started;			/* the driver is ready... */
	u8 held;			/* ...but 0 or more reasons say no */
	bool needs_reset;		/* atomic */
	u32 generation;			/* of config; atomic */
	struct irq *config_irq;		/* set by the transport */
	unsigned nr_queues;
	struct virtq vq[VIRTIO_MAX_QUEUES];
	struct kick {
		struct watch watch;
		struct virtio *v;
		struct io_thread io;	/* that serves the queue */
		int fd;			/* eventfd: the driver notified the queue */
		bool lent;		/* from start to drain: somebody else watches fd */
	} kick[VIRTIO_MAX_QUEUES];
	struct metric_set metrics;
	struct virtio_counters {
		u64 failed_starts, config_errors, vectors;	/* under dev.lock */
		u64 interrupts;		/* as they were when somebody asked */
	} counters;
	u64 config_interrupts;		/* atomic */
	void *transport;
	void (*transport_state)(struct virtio *, struct state *);
	void (*transport_free)(struct virtio *);
};

/* --- for device types ---------------------------------------------------------- */

/* Queues are served by the platform's loop, unless kick[].io is changed now. */
int  virtio_init(struct virtio *, const struct virtio_ops *, unsigned nr_queues,
		 struct platform *, const char *name, u64 features, struct err *) must_check;
void virtio_fini(struct virtio *);
bool virtio_has(const struct virtio *, unsigned feature);	/* negotiated */
/* Any thread: config was changed; tell the driver. */
void virtio_config_changed(struct virtio *);
/* Status NEEDS_RESET: the guest broke a rule and must start over.  Any thread. */
void virtio_broken(struct virtio *, const char *fmt, ...) printf_like(2, 3);
/* On the queue's loop: it was lent, and is not any more. */
int  virtio_start_queue(struct kick *) must_check;

/* The device types: everything another file may know about them.  name is the
 * device's own: "disk0".  The backend stays the caller's. */
struct blk;
struct limit;
struct limit_config;
struct net;
struct pcap;
struct vhost;
struct vsock_host;
struct virtio_blk_options {
	const char *serial;
	unsigned nr_queues;
	const struct io_thread *io;	/* threads of its own, taken in turn by the queues */
	unsigned nr_io;			/* 0: the platform's */
	struct limit *limit;		/* the caller's; NULL: none */
	bool write_through;		/* until the driver says otherwise */
	bool no_flush;			/* the driver knows of no cache, and there is one */
	bool discard, write_zeroes;
	bool stop_on_error;		/* MACHINE_IO_ERROR, and try again on resume */
};
int  virtio_blk_new(struct platform *, const char *name, struct blk *,
		    const struct virtio_blk_options *, struct virtio **, struct err *) must_check;
/* Control thread: the disk has another size now; tell the driver. */
void virtio_blk_resized(struct virtio *);
/* The same, with another disk behind the device; quiesced. */
void virtio_blk_replaced(struct virtio *, struct blk *);
enum { VIRTIO_NET_MAX_PAIRS = (VIRTIO_MAX_QUEUES - 1) / 2 };
struct virtio_net_options {
	const u8 *mac;			/* 6 bytes */
	struct net *const *net;		/* the far end of each pair; they stay the caller's... */
	struct vhost *const *vhost;	/* ...like these, of each pair; NULL: none.  They serve the
					 * card while its cable is in, and no limit or dump is */
	unsigned nr_pairs;
	const struct io_thread *io;	/* threads of its own, taken in turn by the pairs */
	unsigned nr_io;			/* 0: the platform's */
	struct limit *rx_limit, *tx_limit;	/* the caller's; NULL: none */
	struct pcap *dump;		/* likewise */
	bool unplugged;			/* see virtio_net_set_link */
	bool plain;			/* without a control queue: one pair */
};
int  virtio_net_new(struct platform *, const char *name, const struct virtio_net_options *,
		    struct virtio **, struct err *) must_check;
/* Control thread, quiesced: the cable is in, or not.  -ENODEV: its far end is gone. */
int  virtio_net_set_link(struct virtio *, bool up) must_check;
bool virtio_net_is_plugged(struct virtio *);	/* also if its far end is gone */
/* Control thread: it is somewhere else now; the driver, if it can, tells the network. */
void virtio_net_announce(struct virtio *);
/* limit_config: of all it gives; NULL: none. */
int  virtio_rng_new(struct platform *, const char *name, const struct limit_config *,
		    struct virtio **, struct err *) must_check;
/* cid: the guest's, 3 or more. */
int  virtio_vsock_new(struct platform *, const char *name, u32 cid, struct vsock_host *,
		      struct virtio **, struct err *) must_check;

/* --- for transports, under dev.lock ---------------------------------------------- */

/* Each takes ownership of the virtio device, also when it fails. */
enum { VIRTIO_MMIO_LEN = 0x200 };
int virtio_mmio_new(struct virtio *, u64 base, u32 gsi, struct device **, struct err *) must_check;
int virtio_pci_new(struct virtio *, struct pci_bus *, struct device **, struct err *) must_check;

u32  virtio_offered(const struct virtio *, u32 select);
u32  virtio_accepted(const struct virtio *, u32 select);
void virtio_accept(struct virtio *, u32 select, u32 features);
u8   virtio_status(const struct virtio *);
void virtio_set_status(struct virtio *, u8 status);	/* 0 resets */
u64  virtio_config_read(struct virtio *, u64 offset, unsigned size);
void virtio_config_write(struct virtio *, u64 offset, unsigned size, u64 value);
void virtio_notify(struct virtio *, u32 queue);		/* a notification that exited */
/* Whether it may touch the guest's memory; at first it may.  If not, its queues wait.  When it is taken from it DRIVER_OK
 * is, too: whoever gives it back may be another kernel, whose memory the rings are in no more. */
void virtio_set_bus_master(struct virtio *, bool);
/* The queue the driver selected; NULL: no such queue.  For writing: also NULL
 * once it is live, which is the guest's error. */
struct virtq *virtio_queue(struct virtio *, u32 index);
struct virtq *virtio_queue_setup(struct virtio *, u32 index);
/* The driver stops using a queue; what was in flight is done when this returns. */
void virtio_queue_disable(struct virtio *, u32 index);
/* irq_fd() of the queue's irq is another one now. */
void virtio_irq_moved(struct virtio *, u32 index);

/* One 32-bit half of a ring's address, as drivers write it. */
static inline void virtio_set_half(gpa_t *gpa, bool high, u32 value)
{
	gpa->addr = high ? (gpa->addr & 0xffffffff) | (u64)value << 32 :
			   (gpa->addr & ~0xffffffffULL) | value;
}
