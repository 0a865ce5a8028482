/* vhost.h: vhost-net: the host's kernel moves frames between a pair of queues and a tap. */
#pragma once
#include "vmm/core/err.h"
#include "vmm/core/irq.h"
#include "vmm/core/loop.h"
#include "vmm/core/mem.h"

enum { VHOST_RX, VHOST_TX, VHOST_RINGS };

/* A split virtqueue (virtio 1.2, 2.7): its parts where this process has them. */
struct vhost_ring {
	void *desc, *avail, *used;
	gpa_t used_gpa;
	u16 size;
	u16 next_avail;			/* the first request that is not answered */
	int kick_fd;			/* eventfd of the driver's notifications */
	struct irq *irq;
};

struct vhost_setup {
	struct mem *mem;
	struct loop *loop;
	int tap_fd;			/* of a tap with struct virtio_net_hdr_v1 before its frames */
	u64 features;			/* that the driver took */
	struct vhost_ring ring[VHOST_RINGS];
	/* On the loop.  broken, once: a ring is not as it must be.  lost: the tap was deleted, and
	 * what the kernel had under way stays so until the rings are taken back: that is done there. */
	void (*broken)(void *arg);
	void (*lost)(void *arg);
	void *arg;
};

struct vhost;

/* /dev/vhost-net for one pair.  Nothing runs yet; it is one VM's for good. */
int  vhost_open(struct vhost **, struct err *) must_check;
void vhost_close(struct vhost *);		/* stopped; NULL is allowed */

/*
 * On the loop.  From start to stop the rings are the kernel's: it hears kick_fd and raises
 * irq, without this program where irq_fd() allows.  What it writes to is among mem's dirty
 * pages when it is stopped.  0 or -errno: then they are not,
 * and next_avail as vhost_stop has it; -EBADFD: the tap was deleted.
 */
int  vhost_start(struct vhost *, const struct vhost_setup *, u16 next_avail[VHOST_RINGS]) must_check;
/* On the loop, started.  On return nothing is in flight; next_avail is how far each got. */
void vhost_stop(struct vhost *, u16 next_avail[VHOST_RINGS]);
/* Started; by a thread that a stop would wait for: irq_fd() of that ring's irq is another. */
void vhost_irq_moved(struct vhost *, unsigned ring);
