/* vhost.c: vhost-net (linux/vhost.h). */
#include "devices/net/vhost.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* What changes how rings and frames look; of the rest only the driver and the tap know. */
#define RING_FEATURES	(1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_RING_F_EVENT_IDX | \
			 1ULL << VIRTIO_RING_F_INDIRECT_DESC | 1ULL << VIRTIO_NET_F_MRG_RXBUF)
#define LOG_ALL		(1ULL << VHOST_F_LOG_ALL)

struct vhost {
	int fd;
	bool owned;
	unsigned lent;			/* rings, since it was started */
	struct vhost_setup setup;
	/* Raised for irqs that the kernel cannot raise itself, and for errors; and a socket that hears of
	 * the host's links. */
	struct event {
		struct watch watch;
		struct vhost *vhost;
		int fd;
	} call[VHOST_RINGS], error, links;
	u64 *log;			/* a bit for each page that was written to; NULL: not asked */
	size_t log_len;			/* in words */
};

/* --- life --------------------------------------------------------------------------------- */

static int open_event(struct event *e, struct vhost *v)
{
	e->vhost = v;
	e->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return e->fd < 0 ? -errno : 0;
}

/*
 * A watch of the tap itself would be woken by each frame: what says that it was deleted says
 * nothing else.  So we look at it when a link of this network namespace is, or changes.
 */
static int open_links(struct vhost *v)
{
	struct sockaddr_nl a = { .nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK };

	v->links.vhost = v;
	v->links.fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	return v->links.fd < 0 || bind(v->links.fd, (struct sockaddr *)&a, sizeof(a)) ? -errno : 0;
}

static int open_device(struct vhost *v, struct err *err)
{
	u64 known;

	v->fd = open("/dev/vhost-net", O_RDWR | O_CLOEXEC);
	if (v->fd < 0)
		return err_set(err, -errno, "/dev/vhost-net: %s%s", strerror(errno),
			       errno == EACCES || errno == EPERM ?
			       "; be root or in its group (under --uid: by --gid)" :
			       "; load the module with 'modprobe vhost_net'");
	if (ioctl(v->fd, VHOST_GET_FEATURES, &known))
		return err_set(err, -errno, "/dev/vhost-net: %s", strerror(errno));
	if (~known & (RING_FEATURES | LOG_ALL))
		return err_set(err, -EOPNOTSUPP, "/dev/vhost-net: this kernel's is too old");
	return 0;
}

int vhost_open(struct vhost **out, struct err *err)
{
	struct vhost *v = calloc(1, sizeof(*v));
	int rc;

	if (!v)
		return err_set(err, -ENOMEM, "out of memory");
	v->call[VHOST_RX].fd = v->call[VHOST_TX].fd = v->error.fd = v->links.fd = -1;
	rc = open_device(v, err);
	if (!rc) {
		rc = open_event(&v->error, v);
		for (unsigned i = 0; i < VHOST_RINGS && !rc; i++)
			rc = open_event(&v->call[i], v);
		if (rc)
			err_set(err, rc, "eventfd: %s", strerror(-rc));
	}
	if (!rc) {
		rc = open_links(v);
		if (rc)
			err_set(err, rc, "netlink: %s", strerror(-rc));
	}
	if (rc) {
		vhost_close(v);
		return rc;
	}
	*out = v;
	return 0;
}

void vhost_close(struct vhost *v)
{
	if (!v)
		return;
	for (unsigned i = 0; i < VHOST_RINGS; i++)
		if (v->call[i].fd >= 0)
			close(v->call[i].fd);
	if (v->error.fd >= 0)
		close(v->error.fd);
	if (v->links.fd >= 0)
		close(v->links.fd);
	if (v->fd >= 0)
		close(v->fd);
	free(v);
}

/* --- what the kernel tells ----------------------------------------------------------------- */

static void called(struct watch *w, u32 events)
{
	struct event *e = container_of(w, struct event, watch);
	eventfd_t count;

	(void)events;
	if (!eventfd_read(e->fd, &count))
		irq_raise(e->vhost->setup.ring[e - e->vhost->call].irq);
}

static bool tap_is_gone(const struct vhost *v)
{
	struct pollfd p = { .fd = v->setup.tap_fd };

	return poll(&p, 1, 0) == 1 && p.revents & POLLERR;
}

/* It says so again with each frame, and once is enough.  Of a tap that is gone it says the same. */
static void failed(struct watch *w, u32 events)
{
	struct vhost *v = container_of(w, struct event, watch)->vhost;

	(void)events;
	watch_stop(w);
	if (tap_is_gone(v))
		v->setup.lost(v->setup.arg);
	else
		v->setup.broken(v->setup.arg);
}

/* What it says does not matter, nor what there was no room for. */
static void links_changed(struct watch *w, u32 events)
{
	enum { AT_ONCE = 64 };
	struct event *e = container_of(w, struct event, watch);
	char some[64];

	(void)events;
	for (int i = 0; i < AT_ONCE; i++)
		if (recv(e->fd, some, sizeof(some), MSG_DONTWAIT) < 0 && errno != ENOBUFS)
			break;
	if (tap_is_gone(e->vhost))
		e->vhost->setup.lost(e->vhost->setup.arg);
}

static int set_call(struct vhost *v, unsigned ring)
{
	struct vhost_vring_file f = { .index = ring, .fd = irq_fd(v->setup.ring[ring].irq) };

	if (f.fd < 0)
		f.fd = v->call[ring].fd;
	return ioctl(v->fd, VHOST_SET_VRING_CALL, &f) ? -errno : 0;
}

void vhost_irq_moved(struct vhost *v, unsigned ring)
{
	(void)!set_call(v, ring);
}

/* --- pages that were written to -------------------------------------------------------------- */

/* The kernel's log is by address, holes and all; mem's is not. */
static int new_log(struct vhost *v)
{
	struct mem *mem = v->setup.mem;
	struct mem_region last = mem_region(mem, mem_nr_regions(mem) - 1);
	u64 base;

	if (!mem_tracks_dirty(mem))
		return 0;
	v->log_len = (last.base + last.size + VHOST_PAGE_SIZE * 64 - 1) / (VHOST_PAGE_SIZE * 64);
	v->log = calloc(v->log_len, sizeof(v->log[0]));
	if (!v->log)
		return -ENOMEM;
	base = (uintptr_t)v->log;
	return ioctl(v->fd, VHOST_SET_LOG_BASE, &base) ? -errno : 0;
}

static void take_log(struct vhost *v)
{
	for (size_t i = 0; v->log && i < v->log_len; i++)
		for (u64 bits = v->log[i]; bits; bits &= bits - 1)
			mem_dirty(v->setup.mem,
				  GPA((i * 64 + __builtin_ctzll(bits)) * VHOST_PAGE_SIZE), VHOST_PAGE_SIZE);
	free(v->log);
	v->log = NULL;
}

/* --- start and stop ------------------------------------------------------------------------- */

static int set_memory(struct vhost *v)
{
	const struct mem *m = v->setup.mem;
	union {
		struct vhost_memory memory;
		u8 room[sizeof(struct vhost_memory) + 2 * sizeof(struct vhost_memory_region)];
	} t = { .room = { 0 } };

	t.memory.nregions = mem_nr_regions(m);
	BUG_ON(t.memory.nregions > 2);
	for (unsigned i = 0; i < t.memory.nregions; i++) {
		struct mem_region r = mem_region(m, i);

		t.memory.regions[i] = (struct vhost_memory_region){
			.guest_phys_addr = r.base, .memory_size = r.size,
			.userspace_addr = (uintptr_t)r.host,
		};
	}
	return ioctl(v->fd, VHOST_SET_MEM_TABLE, &t) ? -errno : 0;
}

static int set_ring(struct vhost *v, unsigned i)
{
	const struct vhost_ring *r = &v->setup.ring[i];
	struct vhost_vring_state size = { .index = i, .num = r->size };
	struct vhost_vring_state base = { .index = i, .num = r->next_avail };
	struct vhost_vring_addr addr = {
		.index = i, .flags = v->log ? 1 << VHOST_VRING_F_LOG : 0,
		.desc_user_addr = (uintptr_t)r->desc, .avail_user_addr = (uintptr_t)r->avail,
		.used_user_addr = (uintptr_t)r->used, .log_guest_addr = r->used_gpa.addr,
	};
	struct vhost_vring_file kick = { .index = i, .fd = r->kick_fd };
	struct vhost_vring_file error = { .index = i, .fd = v->error.fd };

	if (ioctl(v->fd, VHOST_SET_VRING_NUM, &size) || ioctl(v->fd, VHOST_SET_VRING_BASE, &base) ||
	    ioctl(v->fd, VHOST_SET_VRING_ADDR, &addr) || ioctl(v->fd, VHOST_SET_VRING_KICK, &kick) ||
	    ioctl(v->fd, VHOST_SET_VRING_ERR, &error))
		return -errno;
	return set_call(v, i);
}

static int set_backend(struct vhost *v, unsigned ring, int fd)
{
	struct vhost_vring_file f = { .index = ring, .fd = fd };

	return ioctl(v->fd, VHOST_NET_SET_BACKEND, &f) ? -errno : 0;
}

/* The owner's memory is what it works in; its thread begins with that. */
static int own(struct vhost *v)
{
	if (!v->owned && ioctl(v->fd, VHOST_SET_OWNER))
		return -errno;
	v->owned = true;
	return 0;
}

static int hand_over(struct vhost *v)
{
	u64 features = v->setup.features & RING_FEATURES;
	int rc = own(v);

	if (!rc)
		rc = set_memory(v);
	if (!rc)
		rc = new_log(v);
	if (v->log)
		features |= LOG_ALL;
	if (!rc && ioctl(v->fd, VHOST_SET_FEATURES, &features))
		rc = -errno;
	for (unsigned i = 0; i < VHOST_RINGS && !rc; i++)
		rc = set_ring(v, i);
	for (v->lent = 0; v->lent < VHOST_RINGS && !rc; v->lent += !rc)
		rc = set_backend(v, v->lent, v->setup.tap_fd);
	return rc;
}

int vhost_start(struct vhost *v, const struct vhost_setup *setup, u16 next_avail[VHOST_RINGS])
{
	eventfd_t count;
	int rc;

	v->setup = *setup;
	v->error.watch.ready = failed;
	(void)!eventfd_read(v->error.fd, &count);	/* of another driver's rings */
	rc = watch_start(&v->error.watch, setup->loop, v->error.fd, EPOLLIN);
	for (unsigned i = 0; i < VHOST_RINGS && !rc; i++) {
		v->call[i].watch.ready = called;
		rc = watch_start(&v->call[i].watch, setup->loop, v->call[i].fd, EPOLLIN);
	}
	if (!rc) {
		v->links.watch.ready = links_changed;
		rc = watch_start(&v->links.watch, setup->loop, v->links.fd, EPOLLIN);
	}
	v->lent = 0;
	if (!rc && tap_is_gone(v))
		rc = -EBADFD;
	if (!rc)
		rc = hand_over(v);
	/* Deleted before we heard of links, or in that moment. */
	if (v->lent && tap_is_gone(v))
		rc = -EBADFD;
	if (rc)
		vhost_stop(v, next_avail);
	return rc;
}

void vhost_stop(struct vhost *v, u16 next_avail[VHOST_RINGS])
{
	for (unsigned i = 0; i < VHOST_RINGS; i++) {
		struct vhost_vring_state base = { .index = i };
		struct vhost_vring_file none = { .index = i, .fd = -1 };

		set_backend(v, i, -1);		/* waits for what is in flight */
		(void)!ioctl(v->fd, VHOST_SET_VRING_KICK, &none);
		(void)!ioctl(v->fd, VHOST_SET_VRING_CALL, &none);
		(void)!ioctl(v->fd, VHOST_SET_VRING_ERR, &none);
		next_avail[i] = i >= v->lent || ioctl(v->fd, VHOST_GET_VRING_BASE, &base) ?
				v->setup.ring[i].next_avail : base.num;
	}
	for (unsigned i = 0; i < VHOST_RINGS; i++) {
		called(&v->call[i].watch, 0);	/* one on its way must not be lost */
		watch_stop(&v->call[i].watch);
	}
	watch_stop(&v->error.watch);
	watch_stop(&v->links.watch);
	take_log(v);
}
