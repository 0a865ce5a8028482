/* virtio_net_vhost_test.c: virtio-net's queues lent to vhost-net, which is a kernel made of arrays. */
#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/rtnetlink.h>
#include <linux/vhost.h>
#include <linux/virtio_pci.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "devices/net/vhost.h"
#include "devices/pci/pci.h"
#include "tests/lib/recorder.h"
#include "tests/lib/test.h"
#include "tests/lib/vnet.h"

enum { NEEDS_RESET = 64, COMMAND = 0x600000, ANSWER = 0x6f0000, MAX_FDS = 1024 };
#define EVENT_IDX	F(VIRTIO_RING_F_EVENT_IDX)
#define LOG_ALL		F(VHOST_F_LOG_ALL)

/* --- the kernel ----------------------------------------------------------------------------- */

struct kernel {
	bool owned;
	u64 features, log;
	struct vhost_memory_region region[2];
	unsigned nr_regions;
	struct kernel_ring {
		unsigned size;
		u16 base;
		struct vhost_vring_addr addr;
		int kick, call, error, tap;
		int nr_calls_set;
	} ring[VHOST_RINGS];
};

static struct {
	struct kernel of[MAX_FDS];	/* by descriptor */
	u64 known;
	int fail_after;			/* so many requests go well, then one fails; negative: none does */
	int nr_opened, last;		/* the descriptor that was asked for features last */
	int news;			/* of links: whoever was bound to them last */
	u16 taken_by_then;		/* of each ring that is lent, and then the taps are deleted; 0: they stay */
	bool stays;			/* it does, and the next request fails */
	bool gone;			/* the taps are */
} kernel;

static struct kernel_ring *ring_at(struct kernel *k, void *arg)
{
	unsigned index = *(unsigned *)arg;

	assert_in_range(index, 0, VHOST_RINGS - 1);
	return &k->ring[index];
}

static bool is_stopped(const struct kernel *k)
{
	return k->ring[RX].tap == -1 && k->ring[TX].tap == -1;
}

static void take_memory(struct kernel *k, const struct vhost_memory *m)
{
	assert_in_range(m->nregions, 1, 2);
	k->nr_regions = m->nregions;
	memcpy(k->region, m->regions, m->nregions * sizeof(k->region[0]));
}

static void take_addr(struct kernel *k, const struct vhost_vring_addr *a)
{
	assert_true(is_stopped(k));
	assert_int_equal(a->desc_user_addr % 16, 0);
	assert_int_equal(a->avail_user_addr % 2, 0);
	assert_int_equal(a->used_user_addr % 4, 0);
	assert_int_equal(a->flags, k->log ? 1 << VHOST_VRING_F_LOG : 0);
	k->ring[a->index].addr = *a;
}

/* Where a frame's first byte is to go or come from, all else must be there. */
static void take_backend(struct kernel *k, struct kernel_ring *r, int fd)
{
	assert_true(k->nr_regions && r->size && r->addr.desc_user_addr);
	assert_true(r->kick >= 0 && r->call >= 0 && r->error >= 0);
	assert_int_equal(!!(k->features & LOG_ALL), !!k->log);
	r->tap = fd;
}

static int request(struct kernel *k, unsigned long nr, void *arg)
{
	struct vhost_vring_file *file = arg;
	struct vhost_vring_state *state = arg;

	switch (nr) {
	case VHOST_GET_FEATURES:
		*k = (struct kernel){ .ring = { [RX] = { .tap = -1, .kick = -1, .call = -1, .error = -1 },
						[TX] = { .tap = -1, .kick = -1, .call = -1, .error = -1 } } };
		*(u64 *)arg = kernel.known;
		kernel.last = k - kernel.of;
		kernel.nr_opened++;
		return 0;
	case VHOST_SET_OWNER:
		assert_false(k->owned);
		k->owned = true;
		return 0;
	case VHOST_SET_FEATURES:
		assert_true(is_stopped(k));
		k->features = *(u64 *)arg;
		assert_int_equal(k->features & ~kernel.known, 0);
		return 0;
	case VHOST_SET_MEM_TABLE:
		take_memory(k, arg);
		return 0;
	case VHOST_SET_LOG_BASE:
		k->log = *(u64 *)arg;
		return 0;
	case VHOST_SET_VRING_NUM:
		ring_at(k, arg)->size = state->num;
		return 0;
	case VHOST_SET_VRING_BASE:
		assert_int_equal(ring_at(k, arg)->tap, -1);
		ring_at(k, arg)->base = state->num;
		return 0;
	case VHOST_GET_VRING_BASE:
		assert_int_equal(ring_at(k, arg)->tap, -1);
		state->num = ring_at(k, arg)->base;
		return 0;
	case VHOST_SET_VRING_ADDR:
		(void)ring_at(k, arg);
		take_addr(k, arg);
		return 0;
	case VHOST_SET_VRING_KICK:
		ring_at(k, arg)->kick = file->fd;
		return 0;
	case VHOST_SET_VRING_CALL:
		ring_at(k, arg)->call = file->fd;
		ring_at(k, arg)->nr_calls_set++;
		return 0;
	case VHOST_SET_VRING_ERR:
		ring_at(k, arg)->error = file->fd;
		return 0;
	case VHOST_NET_SET_BACKEND:
		if (file->fd >= 0 && kernel.gone) {
			errno = EINVAL;
			return -1;
		}
		if (file->fd >= 0)
			take_backend(k, ring_at(k, arg), file->fd);
		ring_at(k, arg)->tap = file->fd;
		if (file->fd >= 0 && kernel.taken_by_then) {
			ring_at(k, arg)->base += kernel.taken_by_then;
			kernel.gone = !kernel.stays;
			kernel.fail_after = kernel.stays ? 0 : -1;
		}
		return 0;
	}
	fail_msg("request %#lx", nr);
	return 0;
}

int __real_ioctl(int, unsigned long, ...);
int __wrap_ioctl(int, unsigned long, ...);

int __wrap_ioctl(int fd, unsigned long nr, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, nr);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (_IOC_TYPE(nr) != VHOST_VIRTIO)
		return __real_ioctl(fd, nr, arg);
	assert_in_range(fd, 0, MAX_FDS - 1);
	errno = kernel.fail_after >= 0 && !kernel.fail_after-- ? EFAULT :
		!kernel.of[fd].owned && nr != VHOST_GET_FEATURES && nr != VHOST_SET_OWNER ? EPERM : 0;
	if (errno)
		return -1;
	return request(&kernel.of[fd], nr, arg);
}

int __real_socket(int, int, int);
int __wrap_socket(int, int, int);
int __real_bind(int, const struct sockaddr *, socklen_t);
int __wrap_bind(int, const struct sockaddr *, socklen_t);
int __real_poll(struct pollfd *, nfds_t, int);
int __wrap_poll(struct pollfd *, nfds_t, int);

int __wrap_socket(int domain, int type, int protocol)
{
	if (domain != AF_NETLINK)
		return __real_socket(domain, type, protocol);
	assert_int_equal(protocol, NETLINK_ROUTE);
	return __real_socket(AF_UNIX, SOCK_DGRAM | (type & SOCK_CLOEXEC), 0);
}

int __wrap_bind(int fd, const struct sockaddr *a, socklen_t len)
{
	const struct sockaddr any = { .sa_family = AF_UNIX };

	if (a->sa_family != AF_NETLINK)
		return __real_bind(fd, a, len);
	assert_int_equal(((const struct sockaddr_nl *)a)->nl_groups, RTMGRP_LINK);
	kernel.news = fd;
	return __real_bind(fd, &any, sizeof(any.sa_family));
}

int __wrap_poll(struct pollfd *p, nfds_t nr, int timeout)
{
	if (nr != 1 || p->fd < VNET_FD || p->fd >= VNET_FD + VNET_PAIRS)
		return __real_poll(p, nr, timeout);
	p->revents = kernel.gone ? POLLERR : 0;
	return kernel.gone;
}

/* Something happened to a link. */
static void tell_of_link(void)
{
	int fd = __real_socket(AF_UNIX, SOCK_DGRAM, 0);
	struct sockaddr_un a;
	socklen_t len = sizeof(a);
	char news[1000] = { 0 };

	assert_int_equal(getsockname(kernel.news, (struct sockaddr *)&a, &len), 0);
	assert_int_equal(sendto(fd, news, sizeof(news), 0, (struct sockaddr *)&a, len), sizeof(news));
	close(fd);
}

/* It answers nr requests of that ring, all of them with nothing, but for some that it forgets. */
static void serve_all_but(struct kernel *k, struct ring *ring, unsigned i, u16 forgotten, u16 nr)
{
	struct kernel_ring *r = &k->ring[i];
	u16 idx = ring_used_idx(ring), head;

	assert_int_equal(r->tap, VNET_FD);
	r->base += forgotten;
	for (; nr; nr--, r->base++, idx++) {
		struct vring_used_elem e = { 0 };

		assert_int_equal(mem_read_obj(ring->mem, GPA(ring->avail + 4 + r->base % ring->size * 2), &head), 0);
		e.id = head;
		assert_int_equal(mem_write_obj(ring->mem, GPA(ring->used + 4 + idx % ring->size * 8), &e), 0);
	}
	assert_int_equal(mem_write_obj(ring->mem, GPA(ring->used + 2), &idx), 0);
	eventfd_write(r->call, 1);
}

static void serve(struct kernel *k, struct ring *ring, unsigned i, u16 nr)
{
	serve_all_but(k, ring, i, 0, nr);
}

/* --- a card ----------------------------------------------------------------------------------- */

struct card {
	struct vnet n;			/* the first: vnet_* find it */
	struct vhost *vhost[VNET_PAIRS];
	struct kernel *k[VNET_PAIRS];
	struct pci_bus *bus;		/* NULL: over MMIO */
};

static struct card *open_card(u64 mem, unsigned nr_pairs, bool track)
{
	struct card *c = calloc(1, sizeof(*c));
	struct err err;

	assert_non_null(c);
	memset(&kernel, 0, sizeof(kernel));
	kernel.known = F(VIRTIO_F_VERSION_1) | EVENT_IDX | F(VIRTIO_RING_F_INDIRECT_DESC) | MRG | LOG_ALL |
		       F(VHOST_NET_F_VIRTIO_NET_HDR);
	kernel.fail_after = -1;
	recorder_null = "/dev/vhost-net";
	fake_init(&c->n.fake, mem, -1);
	if (track)
		assert_int_equal(mem_track_dirty(c->n.fake.p.mem, &err), 0);
	for (unsigned i = 0; i < nr_pairs; i++) {
		assert_int_equal(vhost_open(&c->vhost[i], &err), 0);
		c->k[i] = &kernel.of[kernel.last];
	}
	return c;
}

static struct card *new_card(u64 mem, unsigned nr_pairs, bool track)
{
	struct card *c = open_card(mem, nr_pairs, track);

	vnet_plug(&c->n, (struct virtio_net_options){ .vhost = c->vhost }, nr_pairs);
	return c;
}

static int setup(void **state)
{
	*state = new_card(8 * MIB, 1, false);
	return 0;
}

static int setup_pairs(void **state)
{
	*state = new_card(8 * MIB, VNET_PAIRS, false);
	return 0;
}

/* RAM on both sides of the hole. */
static int setup_tracked(void **state)
{
	*state = new_card(MEM_LOW_END + 16 * MIB, 1, true);
	return 0;
}

static int teardown(void **state)
{
	struct card *c = *state;

	device_destroy(c->n.dev);
	if (c->bus)
		device_destroy(pci_bus_device(c->bus));
	for (unsigned i = 0; i < VNET_PAIRS; i++) {
		assert_int_equal(c->n.wire[i].nr_starts, c->n.wire[i].nr_stops);
		if (c->k[i])
			assert_true(is_stopped(c->k[i]));
		vhost_close(c->vhost[i]);
	}
	fake_fini(&c->n.fake);
	recorder_null = NULL;
	free(c);
	return 0;
}

static void start(struct card *c, u64 features)
{
	assert_int_equal(driver_start(&c->n.d, features, 2, 8) & NEEDS_RESET, 0);
}

static u64 served(struct card *c)
{
	return metrics_sum(&c->n.fake.metrics, "net0", "net_vhost_pairs", NULL);
}

static void assert_by_vhost(struct card *c, bool yes)
{
	for (int i = 0; i < VHOST_RINGS; i++)
		assert_int_equal(c->k[0]->ring[i].tap, yes ? VNET_FD : -1);
	assert_int_equal(c->n.wire->nr_starts - c->n.wire->nr_stops, !yes);
	assert_int_equal(served(c), yes);
}

static void *host_of(struct card *c, u64 addr)
{
	struct mem_region r = mem_region(c->n.fake.p.mem, 0);

	return (u8 *)r.host + addr;
}

static void pause_and_go(struct card *c)
{
	device_quiesce(c->n.dev);
	assert_true(is_stopped(c->k[0]));
	device_resume(c->n.dev);
}

/* A frame from the driver. */
static void send_one(struct card *c)
{
	struct piece p = { DATA + 0x80000, 100, false };

	ring_add(&c->n.d.ring[TX], &p, 1);
	driver_kick(&c->n.d, TX);
}

/* --- tests ------------------------------------------------------------------------------------- */

static void test_lent(void **state)
{
	struct card *c = *state;
	struct kernel *k = c->k[0];
	eventfd_t count;

	assert_false(k->owned);
	start(c, MRG | EVENT_IDX | F(VIRTIO_NET_F_CSUM) | F(VIRTIO_NET_F_STATUS));
	assert_by_vhost(c, true);
	/* Of what the driver took, that which is vhost-net's affair. */
	assert_true(k->features == (MRG | EVENT_IDX | F(VIRTIO_F_VERSION_1)));
	assert_int_equal(k->nr_regions, 1);
	assert_int_equal(k->region[0].guest_phys_addr, 0);
	assert_int_equal(k->region[0].memory_size, 8 * MIB);
	assert_ptr_equal((void *)k->region[0].userspace_addr, host_of(c, 0));
	for (int i = 0; i < VHOST_RINGS; i++) {
		struct ring *r = &c->n.d.ring[i];

		assert_int_equal(k->ring[i].size, 8);
		assert_int_equal(k->ring[i].base, 0);
		assert_ptr_equal((void *)k->ring[i].addr.desc_user_addr, host_of(c, r->desc));
		assert_ptr_equal((void *)k->ring[i].addr.avail_user_addr, host_of(c, r->avail));
		assert_ptr_equal((void *)k->ring[i].addr.used_user_addr, host_of(c, r->used));
		/* What came before it listened it hears of. */
		assert_int_equal(k->ring[i].kick, c->n.v->kick[i].fd);
		assert_int_equal(eventfd_read(k->ring[i].kick, &count), 0);
	}
	/* The driver's kicks are not ours, nor are its frames. */
	send_one(c);
	assert_int_equal(c->n.wire->nr_sent, 0);
	assert_int_equal(eventfd_read(k->ring[TX].kick, &count), 0);
	/* This transport's interrupts are. */
	assert_int_equal(driver_irqs(&c->n.d), 0);
	serve(k, &c->n.d.ring[TX], TX, 1);
	fake_settle(&c->n.fake);
	assert_int_equal(driver_irqs(&c->n.d), 1);
}

static void test_handed_back(void **state)
{
	struct card *c = *state;
	struct kernel *k = c->k[0];

	start(c, 0);
	serve(k, &c->n.d.ring[TX], TX, 3);
	serve(k, &c->n.d.ring[RX], RX, 0xfffe);
	device_quiesce(c->n.dev);
	assert_true(is_stopped(k) && !c->n.wire->nr_starts && !served(c));
	/* An interrupt that was on its way is there. */
	assert_true(driver_irqs(&c->n.d) >= 1);
	assert_int_equal(c->n.v->vq[TX].next_avail, 3);
	assert_int_equal(c->n.v->vq[TX].next_used, 3);
	assert_int_equal(c->n.v->vq[RX].next_avail, 0xfffe);
	assert_int_equal(c->n.v->vq[RX].next_used, 0xfffe);
	for (int i = 0; i < VHOST_RINGS; i++)
		assert_true(k->ring[i].kick == -1 && k->ring[i].call == -1 && k->ring[i].error == -1);
	device_resume(c->n.dev);
	assert_by_vhost(c, true);
	assert_int_equal(k->ring[TX].base, 3);
	serve(k, &c->n.d.ring[RX], RX, 5);
	pause_and_go(c);
	assert_int_equal(k->ring[RX].base, 3);
	/* A reset forgets all that. */
	start(c, 0);
	assert_by_vhost(c, true);
	assert_int_equal(k->ring[RX].base, 0);
	assert_int_equal(k->ring[TX].base, 0);
}

/* Where the cable is pulled, or a limit is set, our own thread goes on where the kernel was; and back. */
static void test_own_thread(void **state)
{
	struct card *c = *state;
	struct kernel *k = c->k[0];
	struct ring *tx = &c->n.d.ring[TX];

	start(c, 0);
	for (int i = 0; i < 3; i++)
		send_one(c);
	serve(k, tx, TX, 3);
	device_quiesce(c->n.dev);
	limit_set(&c->n.tx_limit, &(struct limit_config){ .ops = { .rate = 1000000 } });
	device_resume(c->n.dev);
	assert_by_vhost(c, false);
	send_one(c);
	assert_int_equal(c->n.wire->nr_sent, 1);
	assert_int_equal(ring_used_idx(tx), 4);
	device_quiesce(c->n.dev);
	limit_set(&c->n.tx_limit, &(struct limit_config){ 0 });
	device_resume(c->n.dev);
	assert_by_vhost(c, true);
	assert_int_equal(k->ring[TX].base, 4);
	device_quiesce(c->n.dev);
	assert_int_equal(virtio_net_set_link(c->n.v, false), 0);
	device_resume(c->n.dev);
	assert_by_vhost(c, false);
	send_one(c);
	assert_int_equal(c->n.wire->nr_sent, 1);
	assert_int_equal(ring_used_idx(tx), 5);
	device_quiesce(c->n.dev);
	assert_int_equal(virtio_net_set_link(c->n.v, true), 0);
	device_resume(c->n.dev);
	assert_by_vhost(c, true);
	assert_int_equal(k->ring[TX].base, 5);
}

static bool link_is_up(struct card *c)
{
	return bus_read(&c->n.fake.mmio, DRIVER_BASE + VIRTIO_MMIO_CONFIG + 6, 2) & VIRTIO_NET_S_LINK_UP;
}

/* Nobody here reads of the tap or writes to it: that it was deleted is heard of all the same. */
static void test_deleted(void **state)
{
	struct card *c = *state;

	start(c, F(VIRTIO_NET_F_STATUS));
	/* What happens to others, many times a turn. */
	for (int i = 0; i < 5; i++)
		tell_of_link();
	fake_settle(&c->n.fake);
	assert_true(link_is_up(c));
	kernel.gone = true;
	fake_settle(&c->n.fake);
	assert_true(link_is_up(c));
	tell_of_link();
	fake_settle(&c->n.fake);
	assert_false(link_is_up(c));
	assert_true(driver_get(&c->n.d, VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_CONFIG);
	assert_by_vhost(c, false);
	pause_and_go(c);
	assert_by_vhost(c, false);
}

/* The kernel's worker may see it first, and takes it for the ring's fault. */
static void test_deleted_in_use(void **state)
{
	struct card *c = *state;

	start(c, F(VIRTIO_NET_F_STATUS));
	for (int i = 0; i < 4; i++)
		send_one(c);
	serve(c->k[0], &c->n.d.ring[TX], TX, 1);
	/* Three it has taken, and one of them it has answered. */
	c->k[0]->ring[TX].base += 2;
	kernel.gone = true;
	eventfd_write(c->k[0]->ring[TX].error, 1);
	fake_settle(&c->n.fake);
	assert_false(link_is_up(c));
	assert_int_equal(ring_used_idx(&c->n.d.ring[TX]), 4);
	for (u16 i = 1; i < 4; i++)
		assert_int_equal(ring_used(&c->n.d.ring[TX], i).id, i);
	tell_of_link();
	eventfd_write(c->k[0]->ring[RX].error, 1);
	fake_settle(&c->n.fake);
	assert_false(driver_get(&c->n.d, VIRTIO_MMIO_STATUS) & NEEDS_RESET);
	assert_int_equal(c->n.dev->guest_errors, 0);
}

/* It may answer those after what it forgot: each is answered once all the same, also when the ring goes round. */
static void test_deleted_out_of_order(void **state)
{
	struct card *c = *state;
	struct ring *tx = &c->n.d.ring[TX];
	bool seen[4] = { false };
	u16 first;

	start(c, F(VIRTIO_NET_F_STATUS));
	for (unsigned i = 0; i + 2 < tx->size; i++) {
		send_one(c);
		serve(c->k[0], tx, TX, 1);
	}
	first = tx->next_avail;
	for (int i = 0; i < 4; i++)
		send_one(c);
	serve_all_but(c->k[0], tx, TX, 2, 2);
	send_one(c);
	kernel.gone = true;
	eventfd_write(c->k[0]->ring[TX].error, 1);
	fake_settle(&c->n.fake);
	assert_false(link_is_up(c));
	assert_int_equal(ring_used_idx(tx), (u16)(first + 5));
	for (u16 i = 0; i < 4; i++) {
		u16 nth = ring_used(tx, first + i).id - first % tx->size;

		nth = (nth + tx->size) % tx->size;
		assert_in_range(nth, 0, 3);
		assert_false(seen[nth]);
		seen[nth] = true;
	}
	assert_int_equal(ring_used(tx, first + 4).id, (first + 4) % tx->size);
	assert_int_equal(c->n.dev->guest_errors, 0);
}

static void send_and_serve(struct card *c, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		send_one(c);
		serve(c->k[0], &c->n.d.ring[TX], TX, 1);
	}
}

static void delete_in_use(struct card *c)
{
	kernel.gone = true;
	eventfd_write(c->k[0]->ring[TX].error, 1);
	fake_settle(&c->n.fake);
	assert_false(link_is_up(c));
	assert_int_equal(c->n.dev->guest_errors, 0);
}

/* Indices have 16 bits: that so many were taken is not seen from them. */
static void test_deleted_after_many(void **state)
{
	struct card *c = *state;
	struct ring *tx = &c->n.d.ring[TX];
	u16 first;

	start(c, F(VIRTIO_NET_F_STATUS));
	send_and_serve(c, 65533);
	first = tx->next_avail;
	for (int i = 0; i < 5; i++)
		send_one(c);
	serve_all_but(c->k[0], tx, TX, 2, 3);
	delete_in_use(c);
	assert_int_equal(ring_used_idx(tx), (u16)(first + 5));
	assert_int_equal(ring_used(tx, first + 3).id + ring_used(tx, first + 4).id,
			 first % tx->size + (first + 1) % tx->size);
	assert_int_not_equal(ring_used(tx, first + 3).id, ring_used(tx, first + 4).id);
}

/* The ring has gone round since: which they were is not to be seen, and none is answered twice. */
static void test_deleted_long_after(void **state)
{
	struct card *c = *state;
	struct ring *tx = &c->n.d.ring[TX];
	u16 used;

	start(c, F(VIRTIO_NET_F_STATUS));
	send_and_serve(c, tx->size);
	send_one(c);
	send_one(c);
	serve_all_but(c->k[0], tx, TX, 2, 0);
	send_and_serve(c, tx->size);
	used = ring_used_idx(tx);
	delete_in_use(c);
	assert_int_equal(ring_used_idx(tx), used);
}

/* Both rings are the guest's memory: heads that no queue has, and more answers than there were requests. */
static void test_deleted_nonsense(void **state)
{
	struct card *c = *state;
	struct ring *tx = &c->n.d.ring[TX];
	u32 id = 0xffffffff;
	u16 head = 0xffff;

	start(c, F(VIRTIO_NET_F_STATUS));
	for (int i = 0; i < 4; i++)
		send_one(c);
	serve_all_but(c->k[0], tx, TX, 2, 2);
	for (unsigned i = 0; i < tx->size; i++)
		assert_int_equal(mem_write_obj(tx->mem, GPA(tx->avail + 4 + i * 2), &head), 0);
	for (unsigned i = 0; i < tx->size; i++)
		assert_int_equal(mem_write_obj(tx->mem, GPA(tx->used + 4 + i * 8), &id), 0);
	delete_in_use(c);
	assert_int_equal(ring_used_idx(tx), 2);
}

static void test_deleted_far_off(void **state)
{
	struct card *c = *state;
	struct ring *tx = &c->n.d.ring[TX];
	u16 idx = 40000;

	start(c, F(VIRTIO_NET_F_STATUS));
	for (int i = 0; i < 4; i++)
		send_one(c);
	serve_all_but(c->k[0], tx, TX, 2, 2);
	assert_int_equal(mem_write_obj(tx->mem, GPA(tx->used + 2), &idx), 0);
	delete_in_use(c);
	/* It goes on from what it can have been. */
	send_one(c);
	fake_settle(&c->n.fake);
	assert_int_equal(ring_used_idx(tx), 5);
}

/* The only one there ever was. */
static void test_deleted_at_once(void **state)
{
	struct card *c = *state;
	struct ring *tx = &c->n.d.ring[TX];

	start(c, F(VIRTIO_NET_F_STATUS));
	send_one(c);
	serve_all_but(c->k[0], tx, TX, 1, 0);
	delete_in_use(c);
	assert_int_equal(ring_used_idx(tx), 1);
	assert_int_equal(ring_used(tx, 0).id, 0);
}

static void test_deleted_meanwhile(void **state)
{
	struct card *c = *state;

	start(c, F(VIRTIO_NET_F_STATUS));
	device_quiesce(c->n.dev);
	kernel.gone = true;
	device_resume(c->n.dev);
	assert_false(link_is_up(c));
}

/* RX, of which one is taken, and then not TX: because the tap is gone, or for another reason. */
static void lend_half(struct card *c, bool stays)
{
	start(c, F(VIRTIO_NET_F_STATUS));
	device_quiesce(c->n.dev);
	vnet_offer(&c->n, DATA, 2000);
	vnet_offer(&c->n, DATA + 4096, 2000);
	kernel.taken_by_then = 1;
	kernel.stays = stays;
	device_resume(c->n.dev);
	fake_settle(&c->n.fake);
	assert_int_equal(link_is_up(c), stays);
	assert_by_vhost(c, false);
	assert_int_equal(ring_used_idx(&c->n.d.ring[RX]), 1);
	assert_int_equal(ring_used(&c->n.d.ring[RX], 0).id, 0);
}

/* Between the one ring and the other: what was taken from the first comes back, once. */
static void test_deleted_half_lent(void **state)
{
	struct card *c = *state;
	struct virtq *rx = &c->n.v->vq[RX];
	u64 unsaid = log_suppressed();

	lend_half(c, false);
	device_quiesce(c->n.dev);
	assert_int_equal(rx->next_avail, 1);
	device_resume(c->n.dev);
	assert_int_equal(log_suppressed(), unsaid);
	assert_int_equal(c->n.dev->guest_errors, 0);
}

/* So it does where the kernel refuses the other for a reason of its own. */
static void test_refused_half_lent(void **state)
{
	struct card *c = *state;
	struct virtq *rx = &c->n.v->vq[RX];

	lend_half(c, true);
	kernel.taken_by_then = 0;
	device_quiesce(c->n.dev);
	assert_int_equal(rx->next_avail, 1);
	device_resume(c->n.dev);
	assert_by_vhost(c, true);
	assert_int_equal(c->k[0]->ring[RX].base, 1);
	assert_int_equal(c->n.dev->guest_errors, 0);
}

/* Whatever it refuses: nothing is half lent, and the card works. */
static void test_refused(void **state)
{
	struct card *c = *state;
	u64 unsaid = log_suppressed();
	int nr = 0;

	kernel.fail_after = 0;
	start(c, 0);
	assert_by_vhost(c, false);
	start(c, 0);
	assert_by_vhost(c, true);
	driver_set(&c->n.d, VIRTIO_MMIO_STATUS, 0);
	do {
		kernel.fail_after = nr++;
		start(c, 0);
		if (kernel.fail_after >= 0)
			break;
		assert_by_vhost(c, false);
		send_one(c);
		assert_int_equal(c->n.wire->nr_sent, nr);
	} while (nr < 100);
	/* It keeps its owner; memory, features, and seven of each ring. */
	assert_int_equal(nr, 16 + 1);
	/* A driver that does nothing but reset does not fill the log with it. */
	assert_int_equal(log_suppressed() - unsaid, 17 - LOG_LIMIT_LINES);
	kernel.fail_after = -1;
	assert_by_vhost(c, true);
}

static void test_broken(void **state)
{
	struct card *c = *state;
	struct kernel *k = c->k[0];

	start(c, 0);
	eventfd_write(k->ring[RX].error, 1);
	fake_settle(&c->n.fake);
	assert_true(driver_get(&c->n.d, VIRTIO_MMIO_STATUS) & NEEDS_RESET);
	assert_int_equal(c->n.dev->guest_errors, 1);
	eventfd_write(k->ring[RX].error, 1);
	fake_settle(&c->n.fake);
	assert_int_equal(c->n.dev->guest_errors, 1);
	start(c, 0);
	fake_settle(&c->n.fake);
	assert_false(driver_get(&c->n.d, VIRTIO_MMIO_STATUS) & NEEDS_RESET);
	assert_by_vhost(c, true);
}

/* One queue alone is not lent. */
static void test_half(void **state)
{
	struct card *c = *state;

	driver_start(&c->n.d, 0, 1, 8);
	assert_by_vhost(c, false);
}

static bool is_dirty(struct card *c, int region, u64 page)
{
	return mem_dirty_pages(c->n.fake.p.mem, region)[page / 64] >> page % 64 & 1;
}

static void test_dirty(void **state)
{
	struct card *c = *state;
	struct mem *mem = c->n.fake.p.mem;
	struct kernel *k = c->k[0];
	u8 *log;

	start(c, 0);
	assert_true(k->features & LOG_ALL);
	assert_int_equal(k->nr_regions, 2);
	assert_true(k->region[1].guest_phys_addr == MEM_HIGH_START);
	assert_int_equal(k->region[1].memory_size, 16 * MIB);
	for (int i = 0; i < VHOST_RINGS; i++)
		assert_int_equal(k->ring[i].addr.log_guest_addr, c->n.d.ring[i].used);
	mem_forget_dirty(mem);
	log = (u8 *)k->log;
	log[0x345 / 8] |= 1 << 0x345 % 8;
	log[(MEM_HIGH_START / 4096 + 4095) / 8] |= 1 << 7;	/* the last */
	device_quiesce(c->n.dev);
	assert_true(is_dirty(c, 0, 0x345));
	assert_false(is_dirty(c, 0, 0x344));
	assert_false(is_dirty(c, 0, 0x346));
	assert_true(is_dirty(c, 1, 4095));
	assert_false(is_dirty(c, 1, 4094));
	mem_forget_dirty(mem);
	device_resume(c->n.dev);
	assert_by_vhost(c, true);
	device_quiesce(c->n.dev);
	assert_false(is_dirty(c, 0, 0x345));
	assert_false(is_dirty(c, 1, 4095));
	device_resume(c->n.dev);
}

static void test_pairs(void **state)
{
	struct card *c = *state;

	driver_start(&c->n.d, F(VIRTIO_NET_F_CTRL_VQ) | F(VIRTIO_NET_F_MQ), 2 * VNET_PAIRS + 1, 8);
	assert_int_equal(served(c), VNET_PAIRS);
	for (int i = 0; i < VNET_PAIRS; i++) {
		struct kernel_ring *r = c->k[i]->ring;

		assert_true(r[RX].tap == VNET_FD + i && r[TX].tap == VNET_FD + i);
		assert_ptr_equal((void *)r[TX].addr.desc_user_addr, host_of(c, c->n.d.ring[2 * i + 1].desc));
		assert_int_equal(r[RX].kick, c->n.v->kick[2 * i].fd);
	}
	/* A driver of one pair. */
	driver_start(&c->n.d, 0, 2, 8);
	assert_int_equal(served(c), 1);
	assert_by_vhost(c, true);
	for (int i = 1; i < VNET_PAIRS; i++)
		assert_true(is_stopped(c->k[i]));
}

/* --- filters ------------------------------------------------------------------------------------- */

static void command(struct card *c, u8 class, u8 cmd, const void *data, u32 len)
{
	struct ring *r = &c->n.d.ring[2];
	struct mem *mem = c->n.fake.p.mem;
	struct piece p[2] = { { COMMAND, len + 2, false }, { ANSWER, 1, true } };
	u8 head[2] = { class, cmd }, answer;

	assert_int_equal(mem_write(mem, GPA(COMMAND), head, 2), 0);
	assert_int_equal(mem_write(mem, GPA(COMMAND + 2), data, len), 0);
	ring_add(r, p, 2);
	driver_kick(&c->n.d, 2);
	assert_int_equal(mem_read_obj(mem, GPA(ANSWER), &answer), 0);
	assert_int_equal(answer, VIRTIO_NET_OK);
}

static void set_mode(struct card *c, u8 cmd, u8 on)
{
	command(c, VIRTIO_NET_CTRL_RX, cmd, &on, 1);
}

static void assert_lets_in(struct card *c, const char *macs, bool all_groups)
{
	const struct net_filter *f = &c->n.wire->filter;

	assert_int_equal(f->nr, strlen(macs));
	for (unsigned i = 0; i < f->nr; i++)
		assert_int_equal(f->mac[i][5], *macs == 'f' ? 0xff : *macs - '0'), macs++;
	assert_int_equal(f->all_groups, all_groups);
}

/* One address ends in its last digit, everybody's in 'f'; the card's own is 3. */
static void test_filter(void **state)
{
	static const u8 table[] = { 1, 0, 0, 0, 2, 0, 0, 0, 0, 4,
				    2, 0, 0, 0, 1, 0, 0x5e, 0, 0, 5, 0x33, 0x33, 0, 0, 0, 6 };
	struct card *c = *state;
	u8 many[8 + 60 * 6] = { 60 };
	int nr;

	driver_start(&c->n.d, F(VIRTIO_NET_F_CTRL_VQ) | F(VIRTIO_NET_F_CTRL_RX) |
		     F(VIRTIO_NET_F_CTRL_RX_EXTRA) | F(VIRTIO_NET_F_CTRL_MAC_ADDR), 3, 8);
	assert_by_vhost(c, true);
	assert_lets_in(c, "", false);
	set_mode(c, VIRTIO_NET_CTRL_RX_PROMISC, 0);
	assert_lets_in(c, "3f", false);
	command(c, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, table, sizeof(table));
	assert_lets_in(c, "34f56", false);
	set_mode(c, VIRTIO_NET_CTRL_RX_ALLMULTI, 1);
	assert_lets_in(c, "34f56", true);
	set_mode(c, VIRTIO_NET_CTRL_RX_NOMULTI, 1);
	assert_lets_in(c, "34f", false);
	set_mode(c, VIRTIO_NET_CTRL_RX_ALLUNI, 1);
	assert_lets_in(c, "", false);
	set_mode(c, VIRTIO_NET_CTRL_RX_NOUNI, 1);
	assert_lets_in(c, "f", false);
	set_mode(c, VIRTIO_NET_CTRL_RX_NOBCAST, 1);
	assert_lets_in(c, "0", false);		/* nobody's */
	set_mode(c, VIRTIO_NET_CTRL_RX_NOUNI, 0);
	set_mode(c, VIRTIO_NET_CTRL_RX_ALLUNI, 0);
	command(c, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, "\2\0\0\0\0\7", 6);
	assert_lets_in(c, "74", false);
	/* It comes back after a pause; our own thread filters by itself, and lets the tap be. */
	c->n.wire->filter.nr = 0;
	pause_and_go(c);
	assert_lets_in(c, "74", false);
	device_quiesce(c->n.dev);
	limit_set(&c->n.rx_limit, &(struct limit_config){ .ops = { .rate = 1000 } });
	device_resume(c->n.dev);
	assert_lets_in(c, "", false);
	nr = c->n.wire->nr_filters;
	set_mode(c, VIRTIO_NET_CTRL_RX_NOBCAST, 0);
	assert_lets_in(c, "", false);
	/* A table that is full. */
	limit_set(&c->n.rx_limit, &(struct limit_config){ 0 });
	for (int i = 0; i < 60; i++)
		many[4 + 6 * i] = 2;
	command(c, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, many, sizeof(many));
	pause_and_go(c);
	assert_int_equal(c->n.wire->filter.nr, 62);
	assert_true(c->n.wire->nr_filters > nr);
	start(c, 0);
	assert_lets_in(c, "", false);
}

/* --- opening ---------------------------------------------------------------------------------------- */

static void test_open(void **state)
{
	struct vhost *v;
	struct err err;

	(void)state;
	memset(&kernel, 0, sizeof(kernel));
	kernel.fail_after = -1;
	recorder_null = "/dev/vhost-net";
	assert_int_equal(vhost_open(&v, &err), -EOPNOTSUPP);
	assert_non_null(strstr(err.msg, "too old"));
	kernel.known = ~0ULL;
	kernel.fail_after = 0;
	assert_int_equal(vhost_open(&v, &err), -EFAULT);
	kernel.fail_after = -1;
	assert_int_equal(vhost_open(&v, &err), 0);
	vhost_close(v);
	vhost_close(NULL);
	recorder_null = NULL;
}

/* The device, three events, and news of links: nothing is left of what could be had. */
static void test_open_without_files(void **state)
{
	int next = fcntl(0, F_DUPFD_CLOEXEC, 0), nr = 0, rc;
	struct rlimit old;
	struct vhost *v;
	struct err err;

	(void)state;
	close(next);
	memset(&kernel, 0, sizeof(kernel));
	kernel.fail_after = -1;
	kernel.known = ~0ULL;
	recorder_null = "/dev/vhost-net";
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	do {
		struct rlimit few = { next + nr, old.rlim_max };

		assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
		rc = vhost_open(&v, &err);
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
		if (!rc)
			break;
		assert_int_equal(rc, -EMFILE);
		assert_non_null(strstr(err.msg, nr == 4 ? "netlink: Too many open files" :
				       nr ? "eventfd: Too many open files" :
				       "/dev/vhost-net: Too many open files"));
		assert_int_equal(fcntl(next, F_GETFD), -1);
	} while (++nr < 20);
	assert_int_equal(nr, 5);
	vhost_close(v);
	recorder_null = NULL;
}

/* --- over PCI: interrupts without this program ------------------------------------------------------- */

enum { ECAM = 0xe0000000, WINDOW = 0xc0000000, RUNNING = 15 };

static void bar_set(struct card *c, u64 at, unsigned size, u64 value)
{
	bus_write(&c->n.fake.mmio, WINDOW + at, size, value);
}

static void cfg_set(struct card *c, unsigned at, u16 value)
{
	bus_write(&c->n.fake.mmio, ECAM + (1 << 15) + at, 2, value);
}

static unsigned cfg_get(struct card *c, unsigned at)
{
	return bus_read(&c->n.fake.mmio, ECAM + (1 << 15) + at, 1);
}

static void start_pci(struct card *c)
{
	cfg_set(c, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	bar_set(c, VIRTIO_PCI_COMMON_STATUS, 1, 0);
	bar_set(c, VIRTIO_PCI_COMMON_STATUS, 1, 3);
	bar_set(c, VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
	bar_set(c, VIRTIO_PCI_COMMON_GF, 4, 1);
	bar_set(c, VIRTIO_PCI_COMMON_STATUS, 1, 11);
	for (int i = 0; i < 2; i++) {
		struct ring *r = &c->n.d.ring[i];

		ring_init(r, c->n.fake.p.mem, DRIVER_RINGS + i * 0x10000, 8);
		bar_set(c, VIRTIO_PCI_COMMON_Q_SELECT, 2, i);
		bar_set(c, VIRTIO_PCI_COMMON_Q_SIZE, 2, 8);
		bar_set(c, VIRTIO_PCI_COMMON_Q_DESCLO, 8, r->desc);
		bar_set(c, VIRTIO_PCI_COMMON_Q_AVAILLO, 8, r->avail);
		bar_set(c, VIRTIO_PCI_COMMON_Q_USEDLO, 8, r->used);
		bar_set(c, VIRTIO_PCI_COMMON_Q_MSIX, 2, 1 + i);
		bar_set(c, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
	}
	bar_set(c, VIRTIO_PCI_COMMON_STATUS, 1, RUNNING);
}

static void set_entry(struct card *c, int i, u32 data, u32 control)
{
	bar_set(c, 0x4000 + 16 * i, 4, 0xfee01000);
	bar_set(c, 0x4008 + 16 * i, 4, data);
	bar_set(c, 0x400c + 16 * i, 4, control);
}

static void test_irqs(void **state)
{
	struct card *c = *state;
	struct kernel_ring *tx = &c->k[0]->ring[TX];
	unsigned msix = 0x34;
	struct fake_irq *msi;
	int own, nr;

	for (msix = cfg_get(c, msix); cfg_get(c, msix) != PCI_CAP_ID_MSIX; msix = cfg_get(c, msix + 1))
		assert_true(msix);
	cfg_set(c, msix + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE);
	set_entry(c, 1, 0x41, 0);
	set_entry(c, 2, 0x42, 1);
	start_pci(c);
	/* The one may go straight to KVM; the other is masked: our own thread remembers it. */
	msi = fake_msi(&c->n.fake, 0xfee01000, 0x41);
	assert_int_equal(c->k[0]->ring[RX].call, FAKE_FD + (int)msi->gsi);
	own = tx->call;
	assert_true(own < VNET_FD);
	eventfd_write(own, 1);
	fake_settle(&c->n.fake);
	assert_int_equal(bus_read(&c->n.fake.mmio, WINDOW + 0x5000, 8), 1 << 2);
	nr = c->k[0]->ring[RX].nr_calls_set;
	bar_set(c, 0x402c, 4, 0);
	msi = fake_msi(&c->n.fake, 0xfee01000, 0x42);
	assert_int_equal(msi->raises, 1);
	assert_int_equal(tx->call, FAKE_FD + (int)msi->gsi);
	bar_set(c, 0x402c, 4, 1);
	assert_int_equal(tx->call, own);
	assert_int_equal(c->k[0]->ring[RX].nr_calls_set, nr);
	/* The whole function's mask, and none. */
	cfg_set(c, msix + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	assert_true(c->k[0]->ring[RX].call < VNET_FD);
	cfg_set(c, msix + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE);
	assert_true(c->k[0]->ring[RX].call >= FAKE_FD);
	/* While it is stopped nothing is told; afterwards it is as it is then. */
	device_quiesce(c->n.dev);
	nr = tx->nr_calls_set;
	bar_set(c, 0x402c, 4, 0);
	assert_int_equal(tx->nr_calls_set, nr);
	device_resume(c->n.dev);
	assert_int_equal(tx->call, FAKE_FD + (int)msi->gsi);
	bar_set(c, VIRTIO_PCI_COMMON_STATUS, 1, 0);
}

static int setup_pci(void **state)
{
	struct card *c = open_card(8 * MIB, 1, false);
	struct virtio_net_options o = {
		.mac = vnet_mac, .vhost = c->vhost, .nr_pairs = 1, .net = (struct net *[]){ &c->n.wire->net },
	};

	vnet_wires(&c->n);
	assert_int_equal(pci_bus_new(&c->bus, &c->n.fake.p, ECAM, WINDOW, 0x20000000, NULL), 0);
	assert_int_equal(virtio_net_new(&c->n.fake.p, "net0", &o, &c->n.v, NULL), 0);
	assert_int_equal(virtio_pci_new(c->n.v, c->bus, &c->n.dev, NULL), 0);
	*state = c;
	return 0;
}

#define T(name)		cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_lent), T(test_handed_back), T(test_own_thread), T(test_deleted),
		T(test_deleted_in_use), T(test_deleted_out_of_order), T(test_deleted_after_many),
		T(test_deleted_nonsense), T(test_deleted_far_off), T(test_deleted_long_after), T(test_deleted_at_once), T(test_deleted_meanwhile), T(test_deleted_half_lent), T(test_refused_half_lent),
		T(test_refused), T(test_broken),
		T(test_half), T(test_filter), cmocka_unit_test(test_open),
		cmocka_unit_test(test_open_without_files),
		cmocka_unit_test_setup_teardown(test_dirty, setup_tracked, teardown),
		cmocka_unit_test_setup_teardown(test_pairs, setup_pairs, teardown),
		cmocka_unit_test_setup_teardown(test_irqs, setup_pci, teardown),
	};

	closefrom(3);		/* what was inherited has holes */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
