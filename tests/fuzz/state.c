/*
 * state.c: a machine in the middle of something is saved, the stream is changed here and
 * there, and another is made of it.  Unchanged it becomes the same machine; changed it is
 * refused with a reason, or becomes one that runs, can be reset, and can be saved again.
 */
#include <errno.h>
#include <libfdt.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "devices/block/blk.h"
#include "devices/chardev.h"
#include "devices/legacy.h"
#include "devices/net/net.h"
#include "devices/pci/pci.h"
#include "tests/fuzz/lib/hostile.h"
#include "vmm/core/state.h"

enum { NR = 8, DISK = 4, MOST_IO = 1024, BLOB_MAX = 64 * 1024, TURNS = 4 };
enum { ECAM = 0xe0000000, WINDOW = 0xc0000000, RNG_BASE = HOSTILE_BASE + 0x1000 };

static struct hostile *h;
static struct fuzz_file image;
static struct blk *blk;
static struct device *dev[NR];

/* --- what is behind the devices -------------------------------------------------------- */

static struct aio_req *todo[MOST_IO];
static int nr_todo;

int aio_new(struct aio **a, struct loop *l, enum aio_engine e, struct err *err)
{
	(void)a, (void)l, (void)e, (void)err;
	abort();
}

void aio_free(struct aio *a)
{
	(void)a;
}

void aio_submit(struct aio *a, struct aio_req *r)
{
	(void)a;
	fuzz_check(nr_todo < MOST_IO, "more requests than any queue holds");
	todo[nr_todo++] = r;
}

static int perform(struct aio_req *r)
{
	ssize_t n = 0;

	if (r->op == AIO_CALL)
		return r->call(r);
	if (r->op == AIO_READ)
		n = preadv(r->fd, r->iov, r->nr_iov, r->offset);
	else if (r->op == AIO_WRITE)
		n = pwritev(r->fd, r->iov, r->nr_iov, r->offset);
	return n < 0 ? -EIO : n;
}

static void do_io(void)
{
	while (nr_todo) {
		struct aio_req *r = todo[--nr_todo];

		r->done(r, perform(r));
	}
}

void aio_drain(struct aio *a, const unsigned *count)
{
	(void)a;
	do_io();
	fuzz_check(!*count, "%u in flight, and nothing to wait for", *count);
}

size_t chardev_read(struct chardev *c, u8 *buf, size_t len)
{
	(void)c, (void)buf, (void)len;
	return 0;
}

size_t chardev_room(struct chardev *c)
{
	(void)c;
	return 1024;
}

void chardev_write(struct chardev *c, const u8 *buf, size_t len)
{
	(void)c, (void)buf, (void)len;
}

void chardev_set_user(struct chardev *c, const struct chardev_user *user)
{
	(void)c, (void)user;
}

static int wire_send(struct net *n, const struct iovec *iov, int nr)
{
	(void)n, (void)iov, (void)nr;
	return 0;
}

static ssize_t wire_recv(struct net *n, const struct iovec *iov, int nr)
{
	(void)n, (void)iov, (void)nr;
	return -EAGAIN;
}

static int wire_start(struct net *n, struct loop *l)
{
	(void)n, (void)l;
	return 0;
}

static void wire_stop(struct net *n)
{
	(void)n;
}

static void wire_want(struct net *n, bool rx, bool tx)
{
	(void)n, (void)rx, (void)tx;
}

static int wire_offload(struct net *n, u64 features)
{
	(void)n, (void)features;
	return 0;
}

static const struct net_ops wire_ops = {
	.kind = "wire", .send = wire_send, .recv = wire_recv, .start = wire_start,
	.stop = wire_stop, .want = wire_want, .set_offload = wire_offload,
};
static struct net wire = { .ops = &wire_ops, .mtu = 1500 };
static struct net *const far_end = &wire;

/* --- a machine -------------------------------------------------------------------------------- */

static void check_ok(int rc, const struct err *err)
{
	fuzz_check(!rc, "%s", err->msg);
}

static void build(void)
{
	static const u8 mac[6] = { 2, 0, 0, 1, 2, 3 };
	struct virtio_blk_options o = { .serial = "s", .nr_queues = 2, .discard = true,
					.stop_on_error = true };
	struct virtio_net_options n = { .mac = mac, .net = &far_end, .nr_pairs = 1 };
	struct platform *p = &h->fake.p;
	struct pci_bus *bus;
	struct virtio *v;
	struct err err;

	check_ok(serial_new(p, "com1", PORT_COM1, COM1_GSI, NULL, &dev[0], &err), &err);
	check_ok(rtc_new(p, &dev[1], &err), &err);
	check_ok(acpi_ports_new(p, &dev[2], &err), &err);
	check_ok(pci_bus_new(&bus, p, ECAM, WINDOW, 0x1000000, &err), &err);
	dev[3] = pci_bus_device(bus);
	check_ok(blk_open(&blk, image.path, &(struct blk_options){ .format = "raw" }, &err), &err);
	check_ok(virtio_blk_new(p, "disk0", blk, &o, &v, &err), &err);
	dev[DISK] = hostile_plug(v);
	check_ok(virtio_rng_new(p, "rng0", NULL, &v, &err), &err);
	check_ok(virtio_mmio_new(v, RNG_BASE, HOSTILE_GSI + 1, &dev[5], &err), &err);
	check_ok(virtio_rng_new(p, "rng1", NULL, &v, &err), &err);
	check_ok(virtio_pci_new(v, bus, &dev[6], &err), &err);
	check_ok(virtio_net_new(p, "net0", &n, &v, &err), &err);
	check_ok(virtio_pci_new(v, bus, &dev[7], &err), &err);
	for (u64 function = 1; function <= 2; function++)
		bus_write(&h->fake.mmio, ECAM + (function << 15) + PCI_COMMAND, 2,
			  PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

static void destroy(void)
{
	for (int i = NR; i--;)
		device_destroy(dev[i]);
	do_io();
	blk_close(blk);
}

static void run(void)
{
	for (int i = 0; i < TURNS; i++) {
		fake_turn(&h->fake);
		do_io();
	}
}

static void pause_all(bool on)
{
	for (int i = 0; i < NR; i++)
		(on ? device_quiesce : device_resume)(dev[i]);
}

/* A blob of its own: its length. */
static size_t save(void *out)
{
	struct state *s;
	const void *blob;
	struct err err;
	size_t len;

	pause_all(true);
	check_ok(state_new_save(&s, &err), &err);
	for (int i = 0; i < NR; i++)
		device_state(dev[i], s);
	check_ok(state_finish_save(s, &blob, &len, &err), &err);
	fuzz_check(len <= BLOB_MAX, "%zu bytes of state", len);
	memcpy(out, blob, len);
	state_free(s);
	return len;
}

static int load(const void *blob, size_t len, struct err *err)
{
	struct state *s;
	int rc;

	memset(err, 0, sizeof(*err));
	rc = state_new_load(&s, blob, len, err);
	if (!rc) {
		pause_all(true);
		for (int i = 0; i < NR; i++)
			device_state(dev[i], s);
		rc = state_finish_load(s, err);
		state_free(s);
	}
	fuzz_check(err->code == rc && !rc == !*err->msg, "%d, and %d says '%s'", rc, err->code,
		   err->msg);
	return rc;
}

/* --- what is done to it ------------------------------------------------------------------------- */

static void write_registers(struct fuzz *f)
{
	static const u64 base[] = { WINDOW, WINDOW + 0x4000, WINDOW + 0x8000, RNG_BASE,
				    ECAM + (1 << 15), ECAM + (2 << 15) };
	u8 b = fuzz_u8(f);

	if (b & 0x80)
		bus_write(&h->fake.pio, (b & 0x40 ? PORT_COM1 : PORT_RTC) + b % 8, 1, fuzz_u8(f));
	else
		bus_write(&h->fake.mmio, base[b % ARRAY_SIZE(base)] + fuzz_u8(f), 1U << (b >> 4 & 3),
			  fuzz_u32(f));
}

static void use(struct fuzz *f)
{
	u8 how = fuzz_u8(f);

	hostile_start(h, ~0ULL, 2, true);
	hostile_kick(h, 0);
	for (int n = how % 8; n; n--)
		write_registers(f);
	for (int n = how >> 5; n; n--) {
		hostile_offer(h, n & 1);
		hostile_set(h, VIRTIO_MMIO_QUEUE_NOTIFY, n & 1);
	}
	run();
	fuzz_bytes(f, h->ram + HOSTILE_DATA, 64);
}

/* A field of the stream: how many there are, or where the nth is. */
static unsigned find_field(void *blob, unsigned nth, u8 **value, int *len)
{
	unsigned n = 0;
	int node = -1, depth = 0, prop;

	while ((node = fdt_next_node(blob, node, &depth)) >= 0)
		fdt_for_each_property_offset(prop, blob, node) {
			if (n++ == nth)
				*value = (u8 *)(uintptr_t)fdt_getprop_by_offset(blob, prop, NULL, len);
		}
	return n;
}

static bool change(struct fuzz *f, u8 *blob, size_t len)
{
	unsigned nr = find_field(blob, ~0U, NULL, NULL);
	u8 how = fuzz_u8(f), *value = NULL;
	int k = 0;

	for (int n = how % 4; n; n--) {
		find_field(blob, fuzz_u16(f) % nr, &value, &k);
		if (value && k)
			value[fuzz_u8(f) % k] = fuzz_u8(f);
	}
	if (how >= 0xf0)
		blob[fuzz_u16(f) % len] ^= 1U << how % 8;
	return how % 4 || how >= 0xf0;
}

/* It goes on, whatever it was made of; then its driver begins anew. */
static void go_on(struct fuzz *f)
{
	pause_all(false);
	for (int n = 0; n < 4; n++) {
		hostile_set(h, VIRTIO_MMIO_QUEUE_NOTIFY, n & 1);
		bus_write(&h->fake.mmio, RNG_BASE + VIRTIO_MMIO_QUEUE_NOTIFY, 4, 0);
		write_registers(f);
		run();
	}
	hostile_set(h, VIRTIO_MMIO_STATUS, 0);
	fuzz_check(!hostile_status(h), "status %#x after a reset", hostile_status(h));
	bus_write(&h->fake.mmio, RNG_BASE + VIRTIO_MMIO_STATUS, 4, 0);
	fuzz_check(!bus_read(&h->fake.mmio, RNG_BASE + VIRTIO_MMIO_STATUS, 4), "no reset");
	hostile_start(h, 0, 2, true);
	hostile_kick(h, 0);
	fuzz_check(hostile_status(h) == STATUS_RUNNING, "status %#x", hostile_status(h));
	run();
}

void fuzz_one(struct fuzz *f)
{
	static u8 one[BLOB_MAX], two[BLOB_MAX], three[BLOB_MAX], zeroes[64 * 1024];
	size_t len, len2, len3;
	bool changed;
	struct err err;

	h = hostile_begin(f);
	image = fuzz_file(zeroes, sizeof(zeroes));
	build();
	use(f);
	len = save(one);
	destroy();
	changed = change(f, one, len);
	build();
	if (!load(one, len, &err)) {
		len2 = save(two);
		fuzz_check(changed || (len == len2 && !memcmp(one, two, len)), "it became another");
		go_on(f);
		destroy();
		/* What was accepted once is accepted, and then stays as it is. */
		build();
		fuzz_check(!load(two, len2, &err), "%s", err.msg);
		len3 = save(three);
		fuzz_check(len2 == len3 && !memcmp(two, three, len2), "it becomes another each time");
	} else {
		fuzz_check(changed, "%s", err.msg);
	}
	destroy();
	close(image.fd);
}
