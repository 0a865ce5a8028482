/* state_test.c: the visitor, and every device's state: saved, loaded, saved again; and hostile streams. */
#include <fcntl.h>
#include <libfdt.h>
#include <linux/pci_regs.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_pci.h>
#include "devices/block/blk.h"
#include "devices/chardev.h"
#include "devices/legacy.h"
#include "devices/pci/pci.h"
#include "tests/lib/driver.h"
#include "tests/lib/test.h"
#include "tests/lib/vnet.h"
#include "vmm/config.h"
#include "vmm/core/state.h"

/* --- the visitor ------------------------------------------------------------------------- */

struct part {
	u8 a;
	u16 b;
	u32 c;
	u64 d;
	bool e;
	char *text, *none;
	u8 bytes[5], some[8];
	size_t some_len;
	u32 rare, sub[2];
};

static void part_state(struct part *p, struct state *s)
{
	state_u8(s, "a", &p->a);
	state_u16(s, "b", &p->b);
	state_u32(s, "c", &p->c);
	state_u64(s, "d", &p->d);
	state_bool(s, "e", &p->e);
	state_string(s, "text", &p->text);
	state_string(s, "none", &p->none);
	state_bytes(s, "bytes", p->bytes, sizeof(p->bytes));
	state_some_bytes(s, "some", p->some, &p->some_len, sizeof(p->some));
	state_same(s, "same", 77);
	for (unsigned i = 0; i < 2; i++) {
		state_enter(s, "sub", i);
		state_u32(s, "value", &p->sub[i]);
		state_leave(s);
	}
	if (state_if(s, "rarely", p->rare)) {
		state_u32(s, "rare", &p->rare);
		state_leave(s);
	}
}

static struct part example(void)
{
	return (struct part){ .a = 255, .b = 65535, .c = ~0U, .d = ~0ULL - 1, .e = true,
			      .text = (char *)(uintptr_t)"a text", .bytes = "abcd", .some = "xyz",
			      .some_len = 3, .sub = { 5, 6 } };
}

static struct state *save(struct part *p, const void **blob, size_t *len)
{
	struct state *s;
	struct err err;

	assert_int_equal(state_new_save(&s, &err), 0);
	state_enter(s, "part", 0);
	part_state(p, s);
	state_leave(s);
	assert_int_equal(state_finish_save(s, blob, len, &err), 0);
	return s;
}

static int load(struct part *p, const void *blob, size_t len, struct err *err)
{
	struct state *s;
	int rc = state_new_load(&s, blob, len, err);

	if (rc)
		return rc;
	state_enter(s, "part", 0);
	part_state(p, s);
	state_leave(s);
	rc = state_finish_load(s, err);
	state_free(s);
	return rc;
}

static void test_round_trip(void **state)
{
	struct part p = example(), q = { .text = strdup("old"), .none = strdup("old") };
	const void *blob;
	size_t len;
	struct err err;
	struct state *s = save(&p, &blob, &len);

	(void)state;
	assert_int_equal(load(&q, blob, len, &err), 0);
	assert_int_equal(q.a, 255);
	assert_int_equal(q.b, 65535);
	assert_int_equal(q.c, ~0U);
	assert_true(q.d == ~0ULL - 1);
	assert_true(q.e);
	assert_string_equal(q.text, "a text");
	assert_null(q.none);
	assert_memory_equal(q.bytes, "abcd", 5);
	assert_int_equal(q.some_len, 3);
	assert_memory_equal(q.some, "xyz", 3);
	assert_int_equal(q.sub[0], 5);
	assert_int_equal(q.sub[1], 6);
	assert_int_equal(q.rare, 0);
	free(q.text);
	state_free(s);
	p.rare = 9;
	s = save(&p, &blob, &len);
	q = (struct part){ 0 };
	assert_int_equal(load(&q, blob, len, &err), 0);
	assert_int_equal(q.rare, 9);
	free(q.text);
	state_free(s);
}

/* A state larger than its first room is no different. */
static void test_grows(void **state)
{
	static u8 big[300 * 1024], back[sizeof(big)];
	struct state *s, *l;
	struct err err;
	const void *blob;
	size_t len;

	(void)state;
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = i * 7;
	assert_int_equal(state_new_save(&s, &err), 0);
	state_bytes(s, "first", big, 10);
	for (unsigned i = 0; i < 3; i++) {
		state_enter(s, "big", i);
		state_bytes(s, "bytes", big, sizeof(big));
		state_leave(s);
	}
	assert_int_equal(state_finish_save(s, &blob, &len, &err), 0);
	assert_int_equal(state_new_load(&l, blob, len, &err), 0);
	state_bytes(l, "first", back, 10);
	for (unsigned i = 0; i < 3; i++) {
		state_enter(l, "big", i);
		state_bytes(l, "bytes", back, sizeof(back));
		state_leave(l);
		assert_memory_equal(big, back, sizeof(big));
	}
	assert_int_equal(state_finish_load(l, &err), 0);
	state_free(l);
	state_free(s);
}

static void refuses(void (*visit)(struct state *), const char *why)
{
	struct part p = example();
	const void *blob;
	size_t len;
	struct err err = { 0 };
	struct state *s = save(&p, &blob, &len), *l;

	assert_int_equal(state_new_load(&l, blob, len, &err), 0);
	visit(l);
	assert_int_equal(state_finish_load(l, &err), -EINVAL);
	if (!strstr(err.msg, why))
		fail_msg("'%s' is not in '%s'", why, err.msg);
	state_free(l);
	state_free(s);
}

static void visit_nothing(struct state *s)	{ (void)s; }
static void visit_other(struct state *s)
{
	state_enter(s, "trap", 0);
	state_leave(s);
}
static void visit_too_little(struct state *s)
{
	u8 a;

	state_enter(s, "part", 0);
	state_u8(s, "a", &a);
	state_leave(s);
}
static void visit_missing(struct state *s)
{
	u32 x = 5;

	state_enter(s, "part", 0);
	state_u32(s, "x", &x);
	assert_int_equal(x, 5);
	state_leave(s);
}
static void visit_narrow(struct state *s)
{
	u8 c = 3;

	state_enter(s, "part", 0);
	state_u8(s, "c", &c);
	assert_int_equal(c, 3);
	state_leave(s);
}
static void visit_wrong_size(struct state *s)
{
	u64 c = 3;

	state_enter(s, "part", 0);
	state_u64(s, "c", &c);
	assert_true(c == 3);
	state_leave(s);
}
static void visit_not_same(struct state *s)
{
	state_enter(s, "part", 0);
	state_same(s, "same", 78);
	state_leave(s);
}
static void visit_too_long(struct state *s)
{
	u8 two[2];
	size_t len = 0;

	state_enter(s, "part", 0);
	state_some_bytes(s, "some", two, &len, sizeof(two));
	assert_int_equal(len, 0);
	state_leave(s);
}
static void visit_no_text(struct state *s)
{
	char *text = NULL;

	state_enter(s, "part", 0);
	state_string(s, "bytes", &text);
	free(text);
	text = NULL;
	state_string(s, "some", &text);
	assert_null(text);
	state_leave(s);
}

static void test_refusals(void **state)
{
	(void)state;
	refuses(visit_nothing, "1 fields, of which this version knows 0");
	refuses(visit_other, "trap@0 is missing");
	refuses(visit_too_little, "/part@0: 12 fields, of which this version knows 1");
	refuses(visit_missing, "/part@0: x is missing");
	refuses(visit_narrow, "c is 4294967295, more than 255");
	refuses(visit_wrong_size, "c has 4 bytes, not 8");
	refuses(visit_not_same, "same is 0x4d; this machine has 0x4e");
	refuses(visit_too_long, "some has 3 bytes, more than 2");
	refuses(visit_no_text, "some is no string");
}

/* Each byte wrong, each length: refused or loaded, but nothing worse. */
static void test_hostile_trees(void **state)
{
	struct part p = example(), q;
	const void *blob;
	size_t len;
	struct err err;
	struct state *s = save(&p, &blob, &len);
	u8 *copy = malloc(len);

	(void)state;
	assert_non_null(copy);
	for (size_t n = 0; n < len; n++) {
		u8 *cut = malloc(n ? n : 1);

		assert_non_null(cut);
		memcpy(cut, blob, n);
		assert_true(load(&q, cut, n, &err) < 0);
		free(cut);
	}
	for (size_t at = 0; at < len; at++)
		for (int bit = 0; bit < 8; bit++) {
			q = (struct part){ 0 };
			memcpy(copy, blob, len);
			copy[at] ^= 1 << bit;
			(void)!load(&q, copy, len, &err);
			free(q.text);
			free(q.none);
		}
	free(copy);
	state_free(s);
}

/* --- all devices ---------------------------------------------------------------------------- */

enum { NR = 7, DISK = 4 };
enum { ECAM = 0xe0000000, BAR = 0xc0000000 };

struct machine {
	struct fake fake;
	struct chardev *line;
	struct blk *blk;
	struct device *dev[NR];
	struct driver d;
	char path[32];
};

static struct device *transport(struct machine *m, struct virtio *v, struct pci_bus *bus)
{
	struct device *dev;

	assert_int_equal(bus ? virtio_pci_new(v, bus, &dev, NULL) :
			 virtio_mmio_new(v, DRIVER_BASE, DRIVER_GSI, &dev, NULL), 0);
	(void)m;
	return dev;
}

static void machine_start(struct machine *m, const char *path)
{
	struct platform *p = &m->fake.p;
	struct virtio_blk_options o = { .serial = "s", .nr_queues = 2, .discard = true };
	struct virtio *v;
	struct pci_bus *bus;

	memset(m, 0, sizeof(*m));
	fake_init(&m->fake, 8 * MIB, AIO_THREADS);
	strcpy(m->path, path);
	assert_int_equal(blk_open(&m->blk, path, &(struct blk_options){ 0 }, NULL), 0);
	assert_int_equal(chardev_open(&m->line, "none", p->io_loop, NULL, NULL, NULL), 0);
	assert_int_equal(serial_new(p, "com1", PORT_COM1, COM1_GSI, m->line, &m->dev[0], NULL), 0);
	assert_int_equal(rtc_new(p, &m->dev[1], NULL), 0);
	assert_int_equal(acpi_ports_new(p, &m->dev[2], NULL), 0);
	assert_int_equal(pci_bus_new(&bus, p, ECAM, BAR, 0x1000000, NULL), 0);
	m->dev[3] = pci_bus_device(bus);
	assert_int_equal(virtio_blk_new(p, "disk0", m->blk, &o, &v, NULL), 0);
	m->dev[DISK] = transport(m, v, NULL);
	assert_int_equal(virtio_rng_new(p, "rng0", NULL, &v, NULL), 0);
	m->dev[5] = transport(m, v, bus);
	assert_int_equal(virtio_rng_new(p, "rng1", NULL, &v, NULL), 0);
	m->dev[6] = transport(m, v, bus);
	m->d.fake = &m->fake;
}

static void machine_stop(struct machine *m)
{
	for (int i = NR; i--; )
		device_destroy(m->dev[i]);
	chardev_close(m->line);
	blk_close(m->blk);
	fake_fini(&m->fake);
}

static struct state *machine_save(struct machine *m, const void **blob, size_t *len)
{
	struct state *s;
	struct err err;

	for (int i = 0; i < NR; i++)
		device_quiesce(m->dev[i]);
	assert_int_equal(state_new_save(&s, &err), 0);
	for (int i = 0; i < NR; i++)
		device_state(m->dev[i], s);
	assert_int_equal(state_finish_save(s, blob, len, &err), 0);
	return s;
}

static int machine_load(struct machine *m, const void *blob, size_t len, struct err *err)
{
	struct state *s;
	int rc = state_new_load(&s, blob, len, err);

	if (rc)
		return rc;
	for (int i = 0; i < NR; i++)
		device_quiesce(m->dev[i]);
	for (int i = 0; i < NR; i++)
		device_state(m->dev[i], s);
	rc = state_finish_load(s, err);
	state_free(s);
	return rc;
}

static void make_image(char path[32])
{
	int fd;

	strcpy(path, "/tmp/vmm-state-test-XXXXXX");
	fd = mkstemp(path);
	assert_int_equal(ftruncate(fd, 64 * KIB), 0);
	close(fd);
}

/* Of the disk. */
static void ask_for_name(struct machine *m, int queue)
{
	static const struct piece p[] = { { 0x200000, sizeof(struct virtio_blk_outhdr), false }, { 0x201000, 21, true } };
	struct virtio_blk_outhdr hdr = { .type = VIRTIO_BLK_T_GET_ID };
	u16 before = ring_used_idx(&m->d.ring[queue]);

	assert_int_equal(mem_write_obj(m->fake.p.mem, GPA(p[0].addr), &hdr), 0);
	ring_add(&m->d.ring[queue], p, 2);
	driver_kick(&m->d, queue);
	assert_int_equal(ring_used_idx(&m->d.ring[queue]), (u16)(before + 1));
}

/* A machine in the middle of something. */
static void use(struct machine *m)
{
	struct bus *pio = &m->fake.pio, *mmio = &m->fake.mmio;

	/* The line's speed; then looped back, more than the FIFO holds. */
	bus_write(pio, PORT_COM1 + 3, 1, 0x83);
	bus_write(pio, PORT_COM1, 1, 0x12);
	bus_write(pio, PORT_COM1 + 1, 1, 0x34);
	bus_write(pio, PORT_COM1 + 3, 1, 0x1b);
	bus_write(pio, PORT_COM1 + 2, 1, 0x81);
	bus_write(pio, PORT_COM1 + 4, 1, 0x15);
	for (int n = 0; n < 20; n++)
		bus_write(pio, PORT_COM1, 1, 'a' + n);
	bus_write(pio, PORT_COM1 + 1, 1, 7);
	bus_write(pio, PORT_COM1 + 7, 1, 0x5a);
	bus_write(pio, PORT_RTC, 1, 8);
	bus_write(pio, PORT_RTC + 1, 1, 6);
	bus_write(pio, PORT_RTC, 1, 9);
	bus_write(pio, PORT_RTC + 1, 1, 0x99);
	bus_write(pio, PORT_RTC, 1, 0x20);
	bus_write(pio, PORT_RTC + 1, 1, 0x77);
	acpi_event(m->dev[2], ACPI_EVENT_POWER_BUTTON);
	bus_write(pio, 0xcf8, 4, 0x80000800);
	bus_write(mmio, ECAM + (1 << 15) + PCI_INTERRUPT_LINE, 1, 11);
	/* MSI-X of rng0, slot 1: an address, and enabled. */
	bus_write(mmio, BAR + 0x4000, 4, 0xfee00000);
	bus_write(mmio, BAR + 0x4008, 4, 0x41);
	bus_write(mmio, BAR + 0x4010, 4, 0xfee01000);
	bus_write(mmio, BAR + 0x4014, 4, 1);
	bus_write(mmio, BAR + 0x401c, 4, 0);
	bus_write(mmio, BAR + VIRTIO_PCI_COMMON_MSIX, 2, 1);
	bus_write(mmio, BAR + VIRTIO_PCI_COMMON_Q_MSIX, 2, 0);
	/* Its driver begins, and writes features that nobody offered. */
	bus_write(mmio, BAR + VIRTIO_PCI_COMMON_DFSELECT, 4, 1);
	bus_write(mmio, BAR + VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
	bus_write(mmio, BAR + VIRTIO_PCI_COMMON_GF, 4, ~0U);
	bus_write(mmio, BAR + VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
	bus_write(mmio, BAR + VIRTIO_PCI_COMMON_Q_SIZE, 2, 32);
	bus_write(mmio, BAR + VIRTIO_PCI_COMMON_Q_DESCLO, 4, 0x123000);
	bus_write(mmio, BAR + VIRTIO_PCI_COMMON_Q_AVAILLO, 4, 0x124000);
	bus_write(mmio, BAR + VIRTIO_PCI_COMMON_Q_USEDHI, 4, 0x125);
	bus_write(mmio, BAR + VIRTIO_PCI_COMMON_Q_SELECT, 2, 3);
	driver_start(&m->d, 1ULL << VIRTIO_BLK_F_FLUSH | 1ULL << VIRTIO_BLK_F_CONFIG_WCE, 2, 16);
	bus_write(mmio, DRIVER_BASE + VIRTIO_MMIO_CONFIG + offsetof(struct virtio_blk_config, wce), 1, 0);
	ask_for_name(m, 0);
	ask_for_name(m, 1);
	/* Another is started too soon. */
	bus_write(mmio, BAR + 0x8000 + VIRTIO_PCI_COMMON_STATUS, 1, VIRTIO_CONFIG_S_DRIVER_OK);
	driver_set(&m->d, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	driver_set(&m->d, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	driver_set(&m->d, VIRTIO_MMIO_QUEUE_SEL, 2);
}

/* The state of a machine that was used; its disk, a new image at PATH, is free for another. */
static struct state *machine_used(struct machine *m, char path[32], const void **blob, size_t *len)
{
	struct state *s;

	make_image(path);
	machine_start(m, path);
	use(m);
	s = machine_save(m, blob, len);
	blk_close(m->blk);
	m->blk = NULL;
	return s;
}

enum { SEEN = 4096 };

struct seen {
	u32 value[SEEN];
	unsigned nr;
};

static void see(struct seen *s, struct bus *bus, u64 at, unsigned size, unsigned count)
{
	for (; count--; at += size) {
		assert_in_range(s->nr, 0, SEEN - 1);
		s->value[s->nr++] = bus_read(bus, at, size);
	}
}

/* All that a guest can read; of what reading changes, all is read in the same order. */
static void look(struct machine *m, struct seen *s)
{
	static const u8 word[] = { VIRTIO_PCI_COMMON_MSIX, VIRTIO_PCI_COMMON_NUMQ, VIRTIO_PCI_COMMON_Q_SELECT,
				   VIRTIO_PCI_COMMON_Q_SIZE, VIRTIO_PCI_COMMON_Q_MSIX, VIRTIO_PCI_COMMON_Q_ENABLE };
	static const u8 dword[] = { VIRTIO_PCI_COMMON_DFSELECT, VIRTIO_PCI_COMMON_DF, VIRTIO_PCI_COMMON_GFSELECT,
				    VIRTIO_PCI_COMMON_GF, VIRTIO_PCI_COMMON_Q_DESCLO, VIRTIO_PCI_COMMON_Q_AVAILLO,
				    VIRTIO_PCI_COMMON_Q_USEDHI };
	struct bus *pio = &m->fake.pio, *mmio = &m->fake.mmio;

	s->nr = 0;
	see(s, pio, PORT_COM1 + 1, 1, 7);
	see(s, pio, PORT_COM1 + 2, 1, 1);		/* thri was told of; now rx */
	for (int n = 0; n < 20; n++)
		see(s, pio, PORT_COM1, 1, 1);
	see(s, pio, PORT_COM1 + 2, 1, 4);
	bus_write(pio, PORT_COM1 + 3, 1, 0x80);
	see(s, pio, PORT_COM1, 1, 2);
	see(s, pio, PORT_RTC + 1, 1, 1);
	for (int at = 9; at < 128; at++) {		/* no clock, but for the year */
		bus_write(pio, PORT_RTC, 1, at);
		see(s, pio, PORT_RTC + 1, 1, 1);
	}
	see(s, pio, PORT_ACPI, 1, 8);
	see(s, pio, 0xcf8, 4, 1);
	for (int slot = 0; slot < 4; slot++)
		see(s, mmio, ECAM + (slot << 15), 4, 64);
	for (u64 bar = BAR; bar < BAR + 2 * 0x8000; bar += 0x8000) {
		for (int select = -1; select < 2; select++) {
			if (select >= 0)
				bus_write(mmio, bar + VIRTIO_PCI_COMMON_Q_SELECT, 2, select);
			for (unsigned i = 0; i < ARRAY_SIZE(word); i++)
				see(s, mmio, bar + word[i], 2, 1);
			for (unsigned i = 0; i < ARRAY_SIZE(dword); i++)
				see(s, mmio, bar + dword[i], 4, 1);
		}
		see(s, mmio, bar + VIRTIO_PCI_COMMON_STATUS, 1, 2);
		bus_write(mmio, bar + VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
		see(s, mmio, bar + VIRTIO_PCI_COMMON_GF, 4, 1);
		see(s, mmio, bar + 0x1000, 1, 1);
		see(s, mmio, bar + 0x4000, 4, 12);
		see(s, mmio, bar + 0x5000, 4, 2);
	}
	see(s, mmio, DRIVER_BASE, 4, 64 + sizeof(struct virtio_blk_config) / 4);
	driver_set(&m->d, VIRTIO_MMIO_QUEUE_SEL, 0);
	see(s, mmio, DRIVER_BASE, 4, 64);
}

static void test_same_again(void **state)
{
	static struct seen before, after;
	struct machine a, b;
	const void *one, *two;
	struct state *s, *t;
	size_t len, len2;
	char path[32];
	struct err err;

	(void)state;
	s = machine_used(&a, path, &one, &len);
	machine_start(&b, path);
	/* RAM is loaded before. */
	for (u64 at = 0; at < 8 * MIB; at += 4096) {
		u8 page[4096];

		assert_int_equal(mem_read_obj(a.fake.p.mem, GPA(at), &page), 0);
		assert_int_equal(mem_write_obj(b.fake.p.mem, GPA(at), &page), 0);
	}
	if (machine_load(&b, one, len, &err))
		fail_msg("%s", err.msg);
	t = machine_save(&b, &two, &len2);
	assert_int_equal(len, len2);
	assert_memory_equal(one, two, len);
	/* Nor is there anything that the stream does not have. */
	look(&a, &before);
	look(&b, &after);
	assert_int_equal(before.nr, after.nr);
	for (unsigned i = 0; i < before.nr; i++)
		if (before.value[i] != after.value[i])
			fail_msg("the %uth is %#x, and was %#x", i, after.value[i], before.value[i]);
	state_free(s);
	state_free(t);
	/* What was answered is not answered again. */
	b.d = a.d;
	b.d.fake = &b.fake;
	for (int i = 0; i < NR; i++)
		device_resume(b.dev[i]);
	for (int queue = 0; queue < 2; queue++) {
		b.d.ring[queue].mem = b.fake.p.mem;
		ask_for_name(&b, queue);
	}
	machine_stop(&b);
	machine_stop(&a);
	unlink(path);
}

static void test_hostile_streams(void **state)
{
	struct machine a, b;
	const void *blob;
	struct state *s;
	size_t len;
	char path[32];
	struct err err;
	u8 *copy;

	(void)state;
	s = machine_used(&a, path, &blob, &len);
	copy = malloc(len);
	assert_non_null(copy);
	for (size_t at = 0; at < len; at += 13) {
		machine_start(&b, path);
		memcpy(copy, blob, len);
		copy[at] ^= 1 << at % 8;
		/* Loaded or not: it can be resumed, kicked and thrown away. */
		if (!machine_load(&b, copy, len, &err)) {
			for (int i = 0; i < NR; i++)
				device_resume(b.dev[i]);
			driver_set(&b.d, 0x50, 0);
			fake_settle(&b.fake);
		}
		machine_stop(&b);
	}
	free(copy);
	state_free(s);
	machine_stop(&a);
	unlink(path);
}

/* A field that says what none can. */
struct lie {
	const char *node, *name;
	u64 value;
	bool wide;
};

static u8 *with_lie(const void *blob, size_t len, const struct lie *l)
{
	u8 *copy = malloc(len);
	int node;

	assert_non_null(copy);
	memcpy(copy, blob, len);
	node = fdt_path_offset(copy, l->node);
	assert_true(node >= 0);
	assert_int_equal(l->wide ? fdt_setprop_inplace_u64(copy, node, l->name, l->value) :
			 fdt_setprop_inplace_u32(copy, node, l->name, l->value), 0);
	return copy;
}

static void test_hostile_fields(void **state)
{
	static const struct lie lies[] = {
		{ "/disk0@0", "status", 0x100, false }, { "/disk0@0", "status", 0x1f, false },
		{ "/disk0@0", "status", 5, false }, { "/disk0@0", "accepted", 1ULL << 63, true },
		{ "/disk0@0", "nr-queues", 3, true },
		{ "/disk0@0/queue@0", "size", 3, false },
		{ "/disk0@0/queue@0", "size", 0, false },
		{ "/disk0@0/queue@0", "size", 0x8000, false },
		{ "/disk0@0/queue@0", "desc", 8 * MIB - 16, true },
		{ "/disk0@0/queue@1", "desc", 1, true },
		{ "/disk0@0/queue@1", "avail", ~0ULL - 1, true },
		{ "/disk0@0/queue@1", "used", 1 * GIB, true },
		{ "/disk0@0/virtio-blk@0", "sectors", ~0ULL, true },
	};
	struct machine a, b;
	const void *blob;
	struct state *s;
	size_t len;
	char path[32];
	struct err err;

	(void)state;
	s = machine_used(&a, path, &blob, &len);
	for (unsigned i = 0; i < ARRAY_SIZE(lies); i++) {
		u8 *copy = with_lie(blob, len, &lies[i]);

		machine_start(&b, path);
		assert_int_equal(machine_load(&b, copy, len, &err), -EINVAL);
		assert_says(err.msg, "/disk0@0");
		machine_stop(&b);
		free(copy);
	}
	state_free(s);
	machine_stop(&a);
	unlink(path);
}

/* What no driver can write of a function's config space is this machine's: nothing points elsewhere. */
static void test_hostile_functions(void **state)
{
	static const struct { const char *node; u8 at[4]; } lies[] = {
		{ "/pci@0", { PCI_VENDOR_ID, PCI_HEADER_TYPE, PCI_BASE_ADDRESS_0, 0xff } },
		{ "/rng0@0/transport@0", { PCI_DEVICE_ID, PCI_CAPABILITY_LIST, PCI_BASE_ADDRESS_5, 0x41 } },
	};
	struct machine a, b;
	const void *blob;
	struct state *s;
	size_t len;
	char path[32];
	struct err err;

	(void)state;
	s = machine_used(&a, path, &blob, &len);
	for (unsigned i = 0; i < 4 * ARRAY_SIZE(lies); i++) {
		u8 *copy = malloc(len), *config;
		int node;

		assert_non_null(copy);
		memcpy(copy, blob, len);
		node = fdt_path_offset(copy, lies[i / 4].node);
		config = fdt_getprop_w(copy, node, "config", NULL);
		assert_non_null(config);
		config[lies[i / 4].at[i % 4]] ^= 0x80;
		machine_start(&b, path);
		assert_int_equal(machine_load(&b, copy, len, &err), -EINVAL);
		assert_says(err.msg, "config: byte ");
		machine_stop(&b);
		free(copy);
	}
	state_free(s);
	machine_stop(&a);
	unlink(path);
}

static void test_hostile_card(void **state)
{
	static const struct lie lies[] = {
		{ "/net0@0/virtio-net@0", "nr-macs", MACS_MAX + 1, false },
		{ "/net0@0/virtio-net@0", "nr-macs", ~0U, false },
		{ "/net0@0/virtio-net@0", "active-pairs", 0, false },
		{ "/net0@0/virtio-net@0", "active-pairs", VNET_PAIRS + 1, false },
	};
	struct vnet *f = *state;
	struct state *s, *lying;
	const void *blob;
	size_t len;
	struct err err;

	device_quiesce(f->dev);
	assert_int_equal(state_new_save(&s, &err), 0);
	device_state(f->dev, s);
	assert_int_equal(state_finish_save(s, &blob, &len, &err), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(lies); i++) {
		u8 *copy = with_lie(blob, len, &lies[i]);

		assert_int_equal(state_new_load(&lying, copy, len, &err), 0);
		device_state(f->dev, lying);
		assert_int_equal(state_finish_load(lying, &err), -EINVAL);
		state_free(lying);
		free(copy);
	}
	state_free(s);
}

/* --- the configuration ------------------------------------------------------------------------- */

static void test_config(void **state)
{
	static char *argv[] = { "--kernel", "k", "--mem", "64M", "--cpus", "3", "--transport", "mmio",
		"--append", "a b", "--name", "n",
		"--disk", "d,readonly,serial=x,queues=3,iothreads=2,bw=5M,iops=7,on_error=stop",
		"--disk", "e,discard=off,cache=writethrough,direct", "--net",
		"tap=t0,queues=4,iothreads=2,mtu=9000,bw_rx=5M,bw_rx_burst=9M,pps_tx=70", "--net", "user,restrict=on,net=172.20.0.0/16,dns=9.9.9.9,hostfwd=tcp:127.0.0.1:8080-:80,"
		"hostfwd=udp::53-172.20.0.7:5353", "--net", "passt", "--net", "fd=7",
		"--net", "bridge=b,vlan=1+2", "--net", "nat=n", "--net", "hostonly",
		"--mmds", "net1,net6,version=V2,address=169.254.1.0", "--metadata", "m" };
	struct config c, d;
	const void *one, *two;
	struct state *s, *t, *l;
	size_t len, len2;
	bool help, version;
	struct err err;

	(void)state;
	config_init(&c);
	config_init(&d);
	assert_int_equal(config_parse(&c, ARRAY_SIZE(argv), argv, &help, &version, &err), 0);
	c.disk[1].guessed = true;
	assert_int_equal(state_new_save(&s, &err), 0);
	config_state(&c, s);
	assert_int_equal(state_finish_save(s, &one, &len, &err), 0);
	assert_int_equal(state_new_load(&l, one, len, &err), 0);
	config_state(&d, l);
	assert_int_equal(state_finish_load(l, &err), 0);
	assert_int_equal(config_check(&d, &err), 0);
	assert_int_equal(state_new_save(&t, &err), 0);
	config_state(&d, t);
	assert_int_equal(state_finish_save(t, &two, &len2, &err), 0);
	assert_int_equal(len, len2);
	assert_memory_equal(one, two, len);
	assert_int_equal(d.disk[0].limit.bytes.rate, 5 * MIB);
	assert_false(d.disk[0].guessed);
	assert_true(d.disk[1].guessed);
	assert_string_equal(d.net[0].tap, "t0");
	assert_int_equal(d.net[0].mode, NET_TAP);
	assert_int_equal(d.net[0].queues, 4);
	assert_int_equal(d.net[0].iothreads, 2);
	assert_int_equal(d.net[0].mtu, 9000);
	assert_int_equal(d.net[0].rx.bytes.rate, 5 * MIB);
	assert_int_equal(d.net[0].rx.bytes.burst, 9 * MIB);
	assert_int_equal(d.net[0].tx.ops.rate, 70);
	assert_int_equal(d.net[1].mode, NET_USER);
	assert_true(d.net[1].restricted);
	assert_int_equal(d.net[1].network.s_addr, c.net[1].network.s_addr);
	assert_int_equal(d.net[1].prefix_len, 16);
	assert_int_equal(d.net[1].dns.s_addr, c.net[1].dns.s_addr);
	assert_int_equal(d.net[1].nr_forwards, 2);
	assert_memory_equal(d.net[1].forward, c.net[1].forward, 2 * sizeof(*c.net[1].forward));
	assert_int_equal(d.net[2].mode, NET_PASST);
	assert_int_equal(d.net[3].fd, 7);
	assert_string_equal(d.net[4].bridge, "b");
	assert_string_equal(d.net[4].vlan, "1+2");
	assert_int_equal(d.net[5].mode, NET_NAT);
	assert_string_equal(d.net[5].host_network, "n");
	assert_int_equal(d.net[6].mode, NET_HOSTONLY);
	assert_string_equal(d.net[6].host_network, "hostonly");
	assert_int_equal(d.mmds.cards, 0x42);
	assert_true(d.mmds.v2);
	assert_int_equal(d.mmds.address.s_addr, c.mmds.address.s_addr);
	assert_null(d.metadata);
	state_free(s);
	state_free(t);
	state_free(l);
	config_fini(&c);
	config_fini(&d);
}

/* Cards that are not there, and an address that could be any other's. */
static void test_config_of_mmds(void **state)
{
	static const struct mmds_config wrong[] = {
		{ .cards = 2, .address.s_addr = 0x0102fea9 }, { .cards = 1, .address.s_addr = 0x01010101 },
	};
	struct state *s, *l;
	const void *blob;
	struct err err;
	size_t len;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct config c, d;

		config_init(&c);
		config_init(&d);
		c.nr_nets = 1;
		c.net[0].mode = NET_USER;
		c.mmds = wrong[i];
		assert_int_equal(state_new_save(&s, &err), 0);
		config_state(&c, s);
		if (!state_finish_save(s, &blob, &len, &err)) {
			assert_int_equal(state_new_load(&l, blob, len, &err), 0);
			config_state(&d, l);
			assert_true(state_finish_load(l, &err) < 0);
			state_free(l);
		}
		assert_says(err.msg, "mmds");
		state_free(s);
		config_fini(&d);
	}
}

/* What a disk is based on has a format, and each a path: who restores it relies on both. */
static void test_config_of_bases(void **state)
{
	(void)state;
	for (int part = 0; part < 3; part++) {
		struct config c, d;
		struct state *s, *l;
		const void *blob;
		struct err err = { 0 };
		size_t len;
		bool good;

		config_init(&c);
		config_init(&d);
		c.nr_disks = 1;
		c.disk[0].is_base = true;
		c.disk[0].path = part == 1 ? NULL : strdup("disk");
		c.disk[0].format = part == 2 ? NULL : strdup("raw");
		assert_int_equal(state_new_save(&s, &err), 0);
		config_state(&c, s);
		assert_int_equal(state_finish_save(s, &blob, &len, &err), 0);
		assert_int_equal(state_new_load(&l, blob, len, &err), 0);
		config_state(&d, l);
		good = !state_finish_load(l, &err);
		assert_int_equal(good, !part);
		if (part)
			assert_says(err.msg, part == 1 ? "path is missing" : "format is missing");
		state_free(l);
		state_free(s);
		config_fini(&c);
		config_fini(&d);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip), cmocka_unit_test(test_grows),
		cmocka_unit_test(test_refusals), cmocka_unit_test(test_hostile_trees),
		cmocka_unit_test(test_same_again), cmocka_unit_test(test_hostile_streams),
		cmocka_unit_test(test_hostile_fields), cmocka_unit_test(test_hostile_functions),
		cmocka_unit_test_setup_teardown(test_hostile_card, vnet_setup_pairs, vnet_teardown),
		cmocka_unit_test(test_config),
		cmocka_unit_test(test_config_of_mmds), cmocka_unit_test(test_config_of_bases),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
