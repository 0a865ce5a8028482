/* virtio_test.c: features, status and queues, through both transports, with an rng. */
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_pci.h>
#include <sys/eventfd.h>
#include "devices/pci/pci.h"
#include "tests/lib/driver.h"
#include "vmm/core/limit.h"
#include "vmm/core/ports.h"
#include "vmm/core/state.h"
#include "tests/lib/test.h"

enum { ACK = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8, NEEDS_RESET = 64 };
enum { RUNNING = ACK | DRIVER | FEATURES_OK | DRIVER_OK, DATA = 0x100000 };
enum { ECAM = 0xe0000000, WINDOW = 0xc0000000 };

struct fixture {
	struct fake fake;
	struct driver d;
	struct device *dev;
	struct pci_bus *pci;
	u64 bar;
};

static struct fixture *setup_any(void)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	fake_init(&f->fake, 8 * MIB, -1);
	f->d.fake = &f->fake;
	return f;
}

static int setup_mmio(void **state)
{
	struct fixture *f = setup_any();
	struct virtio *v;

	assert_int_equal(virtio_rng_new(&f->fake.p, "rng0", NULL, &v, NULL), 0);
	assert_int_equal(virtio_mmio_new(v, DRIVER_BASE, DRIVER_GSI, &f->dev, NULL), 0);
	*state = f;
	return 0;
}

static void cfg_set(struct fixture *f, unsigned at, unsigned size, u32 value)
{
	bus_write(&f->fake.mmio, ECAM + (1 << 15) + at, size, value);
}

static int setup_pci(void **state)
{
	struct fixture *f = setup_any();
	struct virtio *v;

	assert_int_equal(pci_bus_new(&f->pci, &f->fake.p, ECAM, WINDOW, 0x20000000, NULL), 0);
	assert_int_equal(virtio_rng_new(&f->fake.p, "rng0", NULL, &v, NULL), 0);
	assert_int_equal(virtio_pci_new(v, f->pci, &f->dev, NULL), 0);
	f->bar = WINDOW;
	cfg_set(f, PCI_COMMAND, 2, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY | PCI_COMMAND_IO);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	device_destroy(f->dev);
	if (f->pci)
		device_destroy(pci_bus_device(f->pci));
	fake_fini(&f->fake);
	free(f);
	return 0;
}

static bool all_zero(struct fixture *f, u64 addr, size_t len)
{
	u8 buf[256], zero[256] = { 0 };

	assert_int_equal(mem_read(f->fake.p.mem, GPA(addr), buf, len), 0);
	return !memcmp(buf, zero, len);
}

/* --- MMIO ------------------------- */

static void test_mmio_identity(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_VERSION), 2);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_DEVICE_ID), VIRTIO_ID_RNG);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_QUEUE_NUM_MAX), 64);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_SEL, 1);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_SEL, 0xffffffff);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_READY, 1);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_QUEUE_READY), 0);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_SHM_LEN_LOW), 0xffffffff);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_STATUS), 0);
	assert_int_equal(f->fake.nr_bells, 1);
}

static void test_mmio_entropy(void **state)
{
	struct fixture *f = *state;
	struct piece p = { DATA, 64, true }, two[] = { { DATA + 64, 16, true },
						       { DATA + 128, 16, true } };

	assert_int_equal(driver_start(&f->d, 0, 1, 16), RUNNING);
	ring_add(&f->d.ring[0], &p, 1);
	ring_add(&f->d.ring[0], two, 2);
	driver_kick(&f->d, 0);
	assert_int_equal(ring_used_idx(&f->d.ring[0]), 2);
	assert_int_equal(ring_used(&f->d.ring[0], 0).id, 0);
	assert_int_equal(ring_used(&f->d.ring[0], 0).len, 64);
	assert_int_equal(ring_used(&f->d.ring[0], 1).id, 1);
	assert_int_equal(ring_used(&f->d.ring[0], 1).len, 32);
	assert_false(all_zero(f, DATA, 64));
	assert_false(all_zero(f, DATA + 64, 16));
	assert_true(all_zero(f, DATA + 80, 48));
	assert_false(all_zero(f, DATA + 128, 16));
	assert_int_equal(driver_irqs(&f->d), 1);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_INTERRUPT_STATUS), 1);
	driver_set(&f->d, VIRTIO_MMIO_INTERRUPT_ACK, 1);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	assert_int_equal(f->dev->guest_errors, 0);
}

/* By a clock that only the test moves. */
int __real_clock_gettime(clockid_t, struct timespec *);
int __wrap_clock_gettime(clockid_t, struct timespec *);

static time_t fake_s;			/* 0: the real one */

int __wrap_clock_gettime(clockid_t clock, struct timespec *t)
{
	if (!fake_s || clock != CLOCK_MONOTONIC)
		return __real_clock_gettime(clock, t);
	*t = (struct timespec){ .tv_sec = fake_s };
	return 0;
}

static int real_clock(void **state)
{
	fake_s = 0;
	return teardown(state);
}

/* Two at once, then one a second; over a pause none is lost. */
static int setup_limited(void **state)
{
	struct limit_config c = { .ops = { .rate = 1, .burst = 2 } };
	struct fixture *f = setup_any();
	struct virtio *v;

	fake_s = 1000;
	assert_int_equal(virtio_rng_new(&f->fake.p, "rng0", &c, &v, NULL), 0);
	assert_int_equal(virtio_mmio_new(v, DRIVER_BASE, DRIVER_GSI, &f->dev, NULL), 0);
	*state = f;
	return 0;
}

static void test_mmio_entropy_limit(void **state)
{
	struct fixture *f = *state;
	struct piece p = { DATA, 8, true };

	assert_int_equal(driver_start(&f->d, 0, 1, 16), RUNNING);
	for (int i = 0; i < 6; i++)
		ring_add(&f->d.ring[0], &p, 1);
	driver_kick(&f->d, 0);
	assert_int_equal(ring_used_idx(&f->d.ring[0]), 2);
	driver_kick(&f->d, 0);
	assert_int_equal(ring_used_idx(&f->d.ring[0]), 2);
	for (int n = 3; n <= 6; n++) {
		if (n == 5) {
			device_quiesce(f->dev);
			device_resume(f->dev);
		}
		fake_s++;
		fake_settle(&f->fake);
		assert_int_equal(ring_used_idx(&f->d.ring[0]), n);
		assert_int_equal(ring_used(&f->d.ring[0], n - 1).id, n - 1);
	}
	assert_int_equal(f->dev->guest_errors, 0);
	/* A guest that resets it while it waits. */
	for (int i = 0; i < 2; i++)
		ring_add(&f->d.ring[0], &p, 1);
	driver_kick(&f->d, 0);
	driver_set(&f->d, VIRTIO_MMIO_STATUS, 0);
	fake_s += 10;
	fake_settle(&f->fake);
	assert_int_equal(ring_used_idx(&f->d.ring[0]), 6);
	/* One that goes while it waits. */
	assert_int_equal(driver_start(&f->d, 0, 1, 16), RUNNING);
	for (int i = 0; i < 3; i++)
		ring_add(&f->d.ring[0], &p, 1);
	driver_kick(&f->d, 0);
	assert_int_equal(ring_used_idx(&f->d.ring[0]), 2);
	device_destroy(f->dev);
	f->dev = NULL;
	fake_s += 10;
	fake_settle(&f->fake);
}

/* Buffers that were there before DRIVER_OK need no kick. */
static void test_mmio_early_buffers(void **state)
{
	struct fixture *f = *state;
	struct piece p = { DATA, 8, true };

	driver_set(&f->d, VIRTIO_MMIO_STATUS, ACK | DRIVER);
	driver_set(&f->d, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	driver_set(&f->d, VIRTIO_MMIO_DRIVER_FEATURES, 1);
	driver_set(&f->d, VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK);
	driver_setup_queue(&f->d, 0, 8);
	ring_add(&f->d.ring[0], &p, 1);
	fake_settle(&f->fake);
	assert_int_equal(ring_used_idx(&f->d.ring[0]), 0);
	driver_set(&f->d, VIRTIO_MMIO_STATUS, RUNNING);
	assert_int_equal(ring_used_idx(&f->d.ring[0]), 1);
}

static void test_features(void **state)
{
	struct fixture *f = *state;

	assert_true(driver_offered(&f->d) == (1ULL << VIRTIO_F_VERSION_1 | 3ULL << 28));
	driver_set(&f->d, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_DEVICE_FEATURES), 0);
	/* One that was not offered: FEATURES_OK does not stick, nor does DRIVER_OK. */
	assert_int_equal(driver_start(&f->d, 1, 1, 8) & (FEATURES_OK | NEEDS_RESET), NEEDS_RESET);
	assert_int_equal(driver_start(&f->d, 1ULL << 63, 1, 8) & FEATURES_OK, 0);
	assert_int_equal(driver_start(&f->d, 1ULL << 28, 1, 8), RUNNING);
	/* Without VERSION_1. */
	driver_set(&f->d, VIRTIO_MMIO_STATUS, 0);
	driver_set(&f->d, VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_STATUS), ACK | DRIVER);
}

static void test_features_are_fixed_after_ok(void **state)
{
	struct fixture *f = *state;
	struct virtio *v = container_of(f->dev, struct virtio, dev);

	driver_start(&f->d, 0, 1, 8);
	driver_set(&f->d, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	driver_set(&f->d, VIRTIO_MMIO_DRIVER_FEATURES, 0xffffffff);
	assert_true(v->accepted == 1ULL << VIRTIO_F_VERSION_1);
	assert_int_equal(f->dev->guest_errors, 1);
	driver_set(&f->d, VIRTIO_MMIO_STATUS, 0);
	assert_true(v->accepted == 0);
}

static void test_live_queue_does_not_move(void **state)
{
	static const u32 regs[] = {
		VIRTIO_MMIO_QUEUE_NUM, VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_DESC_HIGH,
		VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_AVAIL_HIGH,
		VIRTIO_MMIO_QUEUE_USED_LOW, VIRTIO_MMIO_QUEUE_USED_HIGH,
	};
	struct fixture *f = *state;
	struct virtio *v = container_of(f->dev, struct virtio, dev);
	struct virtq before;

	driver_start(&f->d, 0, 1, 8);
	before = v->vq[0];
	for (unsigned i = 0; i < ARRAY_SIZE(regs); i++) {
		driver_set(&f->d, regs[i], 0x5000);
		driver_set(&f->d, regs[i], 0);
		assert_int_equal(f->dev->guest_errors, 2 * (i + 1));
	}
	assert_memory_equal(&before, &v->vq[0], sizeof(before));
	/* A reset makes it free again. */
	driver_set(&f->d, VIRTIO_MMIO_STATUS, 0);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_QUEUE_READY), 0);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_DESC_LOW, 0x5000);
	assert_int_equal(v->vq[0].desc.addr, 0x5000);
}

/* What the driver took back: rings, and a buffer that was not filled yet. */
static void scribble(struct fixture *f)
{
	assert_int_equal(mem_fill(f->fake.p.mem, GPA(DRIVER_RINGS), 0x5a, 0x10000), 0);
	assert_int_equal(mem_fill(f->fake.p.mem, GPA(DATA), 0x5a, 0x10000), 0);
}

static void check_scribbles(struct fixture *f)
{
	static u8 got[0x10000];

	assert_int_equal(mem_read_obj(f->fake.p.mem, GPA(DRIVER_RINGS), &got), 0);
	for (unsigned i = 0; i < sizeof(got); i++)
		assert_int_equal(got[i], 0x5a);
	assert_int_equal(mem_read_obj(f->fake.p.mem, GPA(DATA), &got), 0);
	for (unsigned i = 0; i < sizeof(got); i++)
		assert_int_equal(got[i], 0x5a);
}

static void mmio_request(struct fixture *f, u16 used)
{
	struct piece p = { DATA, 8, true };

	ring_add(&f->d.ring[0], &p, 1);
	driver_kick(&f->d, 0);
	assert_int_equal(ring_used_idx(&f->d.ring[0]), used);
}

/* An interrupt that was under way as all was saved comes to the copy, too; and none that was not. */
static void test_mmio_interrupt_copied(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(driver_start(&f->d, 0, 1, 16), RUNNING);
	for (int waits = 1; waits >= 0; waits--) {
		struct state *save, *load;
		const void *blob;
		size_t len;
		int before;

		if (waits)
			mmio_request(f, 1);
		else
			driver_set(&f->d, VIRTIO_MMIO_INTERRUPT_ACK, 1);
		before = driver_irqs(&f->d);
		device_quiesce(f->dev);
		assert_int_equal(state_new_save(&save, NULL), 0);
		device_state(f->dev, save);
		assert_int_equal(state_finish_save(save, &blob, &len, NULL), 0);
		assert_int_equal(driver_irqs(&f->d), before);
		assert_int_equal(state_new_load(&load, blob, len, NULL), 0);
		device_state(f->dev, load);
		assert_int_equal(state_finish_load(load, NULL), 0);
		assert_int_equal(driver_irqs(&f->d), before + waits);
		assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_INTERRUPT_STATUS), waits);
		state_free(load);
		state_free(save);
		device_resume(f->dev);
	}
}

/* QUEUE_READY = 0 takes a live queue back (4.2.2): until a reset it is not looked at. */
static void test_mmio_queue_taken_back(void **state)
{
	struct fixture *f = *state;
	struct virtio *v = container_of(f->dev, struct virtio, dev);

	assert_int_equal(driver_start(&f->d, 1ULL << VIRTIO_RING_F_EVENT_IDX, 1, 8), RUNNING);
	mmio_request(f, 1);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_READY, 0);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_QUEUE_READY), 0);
	mmio_request(f, 1);
	scribble(f);
	driver_kick(&f->d, 0);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_READY, 0);		/* idempotent */
	driver_kick(&f->d, 0);
	assert_int_equal(f->dev->guest_errors, 0);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_READY, 1);		/* live device: refused */
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_QUEUE_READY), 0);
	assert_int_equal(f->dev->guest_errors, 1);
	driver_kick(&f->d, 0);
	check_scribbles(f);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_STATUS), RUNNING);
	assert_int_equal(driver_irqs(&f->d), 1);
	/* A reset forgets the queue, and where it was. */
	driver_set(&f->d, VIRTIO_MMIO_STATUS, 0);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_QUEUE_READY), 0);
	assert_true(!v->vq[0].desc.addr && !v->vq[0].avail.addr && !v->vq[0].used.addr);
	driver_kick(&f->d, 0);
	check_scribbles(f);
	for (u16 size = 4; size <= 16; size *= 2) {
		assert_int_equal(driver_start(&f->d, 0, 1, size), RUNNING);
		assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_QUEUE_READY), 1);
		mmio_request(f, 1);
		mmio_request(f, 2);
	}
	assert_int_equal(f->dev->guest_errors, 1);
}

/* Before DRIVER_OK it may be taken back and set up elsewhere. */
static void test_mmio_queue_set_up_twice(void **state)
{
	struct fixture *f = *state;
	struct virtio *v = container_of(f->dev, struct virtio, dev);
	struct piece p = { DATA, 8, true };
	u64 first;

	driver_set(&f->d, VIRTIO_MMIO_STATUS, ACK | DRIVER);
	driver_set(&f->d, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	driver_set(&f->d, VIRTIO_MMIO_DRIVER_FEATURES, 1);
	driver_set(&f->d, VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK);
	driver_setup_queue(&f->d, 1, 16);		/* there is none */
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_QUEUE_READY), 0);
	driver_setup_queue(&f->d, 0, 8);
	ring_add(&f->d.ring[0], &p, 1);
	first = f->d.ring[0].used;
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_NUM, 4);	/* not before it is taken back */
	assert_int_equal(v->vq[0].size, 8);
	assert_int_equal(f->dev->guest_errors, 1);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_READY, 0);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_QUEUE_READY), 0);
	ring_init(&f->d.ring[0], f->fake.p.mem, DRIVER_RINGS + 0x20000, 4);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_NUM, 4);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_DESC_LOW, f->d.ring[0].desc);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_AVAIL_LOW, f->d.ring[0].avail);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_USED_LOW, f->d.ring[0].used);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_READY, 1);
	driver_set(&f->d, VIRTIO_MMIO_STATUS, RUNNING);
	mmio_request(f, 1);
	assert_true(all_zero(f, first, 64));
	assert_int_equal(f->dev->guest_errors, 1);
}

static void test_status_rules(void **state)
{
	struct fixture *f = *state;

	driver_set(&f->d, VIRTIO_MMIO_STATUS, ACK | DRIVER);
	driver_set(&f->d, VIRTIO_MMIO_STATUS, ACK);		/* takes one back: refused */
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_STATUS), ACK | DRIVER);
	assert_int_equal(f->dev->guest_errors, 1);
	driver_set(&f->d, VIRTIO_MMIO_STATUS, ACK | DRIVER | NEEDS_RESET | 0x30);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_STATUS), ACK | DRIVER);
	driver_set(&f->d, VIRTIO_MMIO_STATUS, ACK | DRIVER | DRIVER_OK);
	assert_true(driver_get(&f->d, VIRTIO_MMIO_STATUS) & NEEDS_RESET);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_INTERRUPT_STATUS), 2);
	driver_set(&f->d, VIRTIO_MMIO_STATUS, 0);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_STATUS), 0);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}

static void test_malformed_needs_reset_then_works(void **state)
{
	struct fixture *f = *state;
	struct piece p = { DATA, 8, true };

	driver_start(&f->d, 0, 1, 8);
	ring_offer(&f->d.ring[0], 999);
	driver_kick(&f->d, 0);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_STATUS), RUNNING | NEEDS_RESET);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_INTERRUPT_STATUS), 2);
	ring_add(&f->d.ring[0], &p, 1);
	driver_kick(&f->d, 0);
	assert_int_equal(ring_used_idx(&f->d.ring[0]), 0);
	assert_int_equal(driver_start(&f->d, 0, 1, 8), RUNNING);
	ring_add(&f->d.ring[0], &p, 1);
	driver_kick(&f->d, 0);
	assert_int_equal(ring_used_idx(&f->d.ring[0]), 1);
}

static void test_bad_rings_need_reset(void **state)
{
	struct fixture *f = *state;

	driver_start(&f->d, 0, 0, 8);
	driver_set(&f->d, VIRTIO_MMIO_STATUS, 0);
	driver_set(&f->d, VIRTIO_MMIO_STATUS, ACK | DRIVER);
	driver_set(&f->d, VIRTIO_MMIO_DRIVER_FEATURES, 1);
	driver_set(&f->d, VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_SEL, 0);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_DESC_HIGH, 0x1000);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_READY, 1);
	driver_set(&f->d, VIRTIO_MMIO_STATUS, RUNNING);
	assert_true(driver_get(&f->d, VIRTIO_MMIO_STATUS) & NEEDS_RESET);
	driver_kick(&f->d, 0);
}

static void poke(struct fixture *f, u64 base, u64 from, u64 to)
{
	for (u64 i = from; i < to; i++)
		for (unsigned size = 1; size <= 8 && i + size <= to; size *= 2) {
			bus_read(&f->fake.mmio, base + i, size);
			bus_write(&f->fake.mmio, base + i, size, 0xa5a5a5a5a5a5a5a5);
			bus_write(&f->fake.mmio, base + i, size, ~0ULL);
			bus_write(&f->fake.mmio, base + i, size, i);
		}
	fake_settle(&f->fake);
}

static void test_mmio_poke_everything(void **state)
{
	struct fixture *f = *state;

	poke(f, DRIVER_BASE, 0, VIRTIO_MMIO_LEN);
	driver_start(&f->d, 0, 1, 8);
	poke(f, DRIVER_BASE, 0, VIRTIO_MMIO_LEN);
	assert_int_equal(driver_start(&f->d, 0, 1, 8), RUNNING);
}

/* A register is four bytes wide, nothing else. */
static void test_mmio_odd_sizes(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(bus_read(&f->fake.mmio, DRIVER_BASE, 1), 0);
	assert_int_equal(bus_read(&f->fake.mmio, DRIVER_BASE, 8), 0);
	bus_write(&f->fake.mmio, DRIVER_BASE + VIRTIO_MMIO_STATUS, 1, 1);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_STATUS), 0);
	assert_int_equal(f->dev->guest_errors, 3);
}

/* What is behind the configuration is the program's. */
static void test_config_ends(void **state)
{
	struct fixture *f = *state;
	struct virtio *v = container_of(f->dev, struct virtio, dev);
	static u8 config[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };
	static struct virtio_ops ops;
	u64 at = f->pci ? f->bar + 0x2000 : DRIVER_BASE + VIRTIO_MMIO_CONFIG;

	ops = *v->ops;
	ops.config_len = 5;
	v->ops = &ops;
	v->config = config;
	assert_int_equal(bus_read(&f->fake.mmio, at, 4), 0x04030201);
	assert_int_equal(bus_read(&f->fake.mmio, at + 4, 1), 5);
	for (unsigned size = 2; size <= 4; size *= 2)
		assert_int_equal(bus_read(&f->fake.mmio, at + 4, size), 5);
	for (unsigned offset = 5; offset < 8; offset++)
		assert_int_equal(bus_read(&f->fake.mmio, at + offset, 1), 0);
	assert_int_equal(bus_read(&f->fake.mmio, at + 8, 4), 0);
}

static void test_mmio_without_wire(void **state)
{
	struct fake f;
	struct virtio *v;
	struct device *dev;
	struct err err = { 0 };

	(void)state;
	fake_init(&f, 8 * MIB, -1);
	assert_int_equal(virtio_rng_new(&f.p, "rng0", NULL, &v, NULL), 0);
	f.chip.fail_next = -ENOSPC;
	assert_int_equal(virtio_mmio_new(v, DRIVER_BASE, 5, &dev, &err), -ENOSPC);
	fake_fini(&f);
}

/* --- PCI ------------------------- */

static u32 cfg_get(struct fixture *f, unsigned at, unsigned size)
{
	return bus_read(&f->fake.mmio, ECAM + (1 << 15) + at, size);
}

static u64 bar_get(struct fixture *f, u64 at, unsigned size)
{
	return bus_read(&f->fake.mmio, f->bar + at, size);
}

static void bar_set(struct fixture *f, u64 at, unsigned size, u64 value)
{
	bus_write(&f->fake.mmio, f->bar + at, size, value);
}

/* The capability of that id (and, if vendor, cfg_type); 0: none. */
static unsigned find_cap(struct fixture *f, u8 id, int type)
{
	unsigned at = cfg_get(f, PCI_CAPABILITY_LIST, 1);

	for (int left = 48; at && left; left--, at = cfg_get(f, at + 1, 1)) {
		assert_in_range(at, 0x40, 0xfc);
		assert_int_equal(at % 4, 0);
		if (cfg_get(f, at, 1) == id && (type < 0 || cfg_get(f, at + 3, 1) == (u32)type))
			return at;
	}
	return 0;
}

static void test_pci_identity_and_caps(void **state)
{
	static const u32 offset[] = { 0, 0, 0x3000, 0x1000 };
	struct fixture *f = *state;

	assert_int_equal(cfg_get(f, PCI_VENDOR_ID, 4), 0x1af4 | (0x1040 + VIRTIO_ID_RNG) << 16);
	assert_int_equal(cfg_get(f, PCI_REVISION_ID, 1), 1);
	assert_true(cfg_get(f, PCI_STATUS, 2) & PCI_STATUS_CAP_LIST);
	for (int type = VIRTIO_PCI_CAP_COMMON_CFG; type <= VIRTIO_PCI_CAP_ISR_CFG; type++) {
		unsigned at = find_cap(f, PCI_CAP_ID_VNDR, type);

		/* To notify there are ports before there is memory. */
		if (type == VIRTIO_PCI_CAP_NOTIFY_CFG) {
			assert_int_equal(cfg_get(f, at + 4, 1), 2);
			assert_int_equal(cfg_get(f, at + 8, 4), 0);
			assert_in_range(cfg_get(f, at + 12, 4), 2, 128);
			at = cfg_get(f, at + 1, 1);
			assert_int_equal(cfg_get(f, at + 3, 1), type);
		}
		assert_true(at);
		assert_int_equal(cfg_get(f, at + 4, 1), 0);
		assert_int_equal(cfg_get(f, at + 8, 4), offset[type]);
	}
	assert_int_equal(find_cap(f, PCI_CAP_ID_VNDR, VIRTIO_PCI_CAP_DEVICE_CFG), 0);
	assert_true(find_cap(f, PCI_CAP_ID_VNDR, VIRTIO_PCI_CAP_PCI_CFG));
	assert_true(find_cap(f, PCI_CAP_ID_MSIX, -1));
	assert_int_equal(cfg_get(f, PCI_BASE_ADDRESS_0, 4), WINDOW | 4);
	assert_int_equal(cfg_get(f, PCI_BASE_ADDRESS_2, 4), PORT_PCI_WINDOW | 1);
	assert_int_equal(f->fake.nr_bells, 2);
}

/* All of it but the last two steps: queue_enable and DRIVER_OK. */
static void pci_prepare(struct fixture *f)
{
	struct ring *r = &f->d.ring[0];

	ring_init(r, f->fake.p.mem, DRIVER_RINGS, 8);
	bar_set(f, VIRTIO_PCI_COMMON_STATUS, 1, 0);
	bar_set(f, VIRTIO_PCI_COMMON_STATUS, 1, ACK | DRIVER);
	bar_set(f, VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
	bar_set(f, VIRTIO_PCI_COMMON_GF, 4, 1);
	bar_set(f, VIRTIO_PCI_COMMON_STATUS, 1, ACK | DRIVER | FEATURES_OK);
	assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_STATUS, 1), ACK | DRIVER | FEATURES_OK);
	bar_set(f, VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
	bar_set(f, VIRTIO_PCI_COMMON_Q_SIZE, 2, 8);
	bar_set(f, VIRTIO_PCI_COMMON_Q_DESCLO, 4, r->desc);
	bar_set(f, VIRTIO_PCI_COMMON_Q_DESCHI, 4, 0);
	bar_set(f, VIRTIO_PCI_COMMON_Q_AVAILLO, 8, r->avail);
	bar_set(f, VIRTIO_PCI_COMMON_Q_USEDLO, 8, r->used);
	bar_set(f, VIRTIO_PCI_COMMON_MSIX, 2, 0);
	bar_set(f, VIRTIO_PCI_COMMON_Q_MSIX, 2, 1);
}

static void pci_start(struct fixture *f)
{
	pci_prepare(f);
	bar_set(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
	bar_set(f, VIRTIO_PCI_COMMON_STATUS, 1, RUNNING);
	assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_STATUS, 1), RUNNING);
}

/* By the bell in memory, or at this port. */
static void pci_request_by(struct fixture *f, u16 port)
{
	struct piece p = { DATA, 8, true };
	u16 before = ring_used_idx(&f->d.ring[0]);

	ring_add(&f->d.ring[0], &p, 1);
	if (port)
		bus_write(&f->fake.pio, port, 2, 0);
	else
		bar_set(f, 0x3000, 2, 0);
	fake_settle(&f->fake);
	assert_int_equal(ring_used_idx(&f->d.ring[0]), (u16)(before + 1));
}

static void pci_request(struct fixture *f)
{
	pci_request_by(f, 0);
}

static bool has_bell(struct fixture *f, struct bus *bus, u64 addr)
{
	for (int i = 0; i < f->fake.nr_bells; i++)
		if (f->fake.bell_bus[i] == bus && f->fake.bell[i].addr == addr)
			return true;
	return false;
}

static void set_entry(struct fixture *f, int i, u64 addr, u32 data, u32 control)
{
	bar_set(f, 0x4000 + 16 * i, 4, addr);
	bar_set(f, 0x4004 + 16 * i, 4, addr >> 32);
	bar_set(f, 0x4008 + 16 * i, 4, data);
	bar_set(f, 0x400c + 16 * i, 4, control);
}

static void test_pci_queue_registers(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_NUMQ, 2), 1);
	assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_Q_SIZE, 2), 64);
	assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_Q_MSIX, 2), 0xffff);
	bar_set(f, VIRTIO_PCI_COMMON_Q_MSIX, 2, 2);		/* there are 0 and 1 */
	assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_Q_MSIX, 2), 0xffff);
	bar_set(f, VIRTIO_PCI_COMMON_Q_DESCLO, 8, 0x123456789abcdef0);
	assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_Q_DESCHI, 4), 0x12345678);
	assert_true(bar_get(f, VIRTIO_PCI_COMMON_Q_DESCLO, 8) == 0x123456789abcdef0);
	bar_set(f, VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
	assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);
	pci_start(f);
	bar_set(f, VIRTIO_PCI_COMMON_Q_SIZE, 2, 4);
	bar_set(f, VIRTIO_PCI_COMMON_Q_DESCLO, 4, 0);
	assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_Q_SIZE, 2), 8);
	assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_Q_DESCLO, 4), DRIVER_RINGS);
	assert_int_equal(f->dev->guest_errors, 2);
}

static void test_msix(void **state)
{
	struct fixture *f = *state;
	unsigned cap = find_cap(f, PCI_CAP_ID_MSIX, -1);
	struct fake_irq *msi;

	assert_int_equal(cfg_get(f, cap + 2, 2), 1);		/* two vectors */
	assert_int_equal(bar_get(f, 0x401c, 4), 1);		/* masked at first */
	pci_start(f);
	set_entry(f, 1, 0xfee01000, 0x41, 0);
	assert_int_equal(fake_nr_msi(&f->fake), 0);
	cfg_set(f, cap + 2, 2, 0x8000);
	msi = fake_msi(&f->fake, 0xfee01000, 0x41);
	assert_non_null(msi);
	pci_request(f);
	assert_int_equal(msi->raises, 1);
	/* Masked: kept as pending, and sent once when unmasked. */
	bar_set(f, 0x401c, 4, 1);
	pci_request(f);
	pci_request(f);
	assert_int_equal(msi->raises, 1);
	assert_int_equal(bar_get(f, 0x5000, 8), 2);
	bar_set(f, 0x401c, 4, 0);
	assert_int_equal(msi->raises, 2);
	assert_int_equal(bar_get(f, 0x5000, 4), 0);
	/* The mask of the whole function. */
	cfg_set(f, cap + 2, 2, 0xc000);
	pci_request(f);
	assert_int_equal(msi->raises, 2);
	assert_int_equal(bar_get(f, 0x5000, 4), 2);
	cfg_set(f, cap + 2, 2, 0x8000);
	assert_int_equal(msi->raises, 3);
	/* Moved while masked: the next goes to the new place, by the same wire. */
	bar_set(f, 0x401c, 4, 1);
	bar_set(f, 0x4018, 4, 0x42);
	bar_set(f, 0x401c, 4, 0);
	pci_request(f);
	assert_ptr_equal(fake_msi(&f->fake, 0xfee01000, 0x42), msi);
	assert_int_equal(msi->raises, 4);
	/* Switched off, what was pending is forgotten. */
	bar_set(f, 0x401c, 4, 1);
	pci_request(f);
	assert_int_equal(bar_get(f, 0x5000, 4), 2);
	cfg_set(f, cap + 2, 2, 0);
	assert_int_equal(bar_get(f, 0x5000, 4), 0);
	cfg_set(f, cap + 2, 2, 0x8000);
	bar_set(f, 0x401c, 4, 0);
	assert_int_equal(msi->raises, 4);
	/* Across an entry's end, or a part of a register: nothing. */
	for (unsigned size = 1; size <= 8; size *= 2)
		for (unsigned at = 0x4000; at < 0x4040; at++)
			if (size < 4 || at % size || at >= 0x4020)
				bar_set(f, at, size, ~0ULL);
	for (unsigned at = 0x4000; at < 0x4010; at += 4)
		assert_int_equal(bar_get(f, at, 4), at == 0x400c);
	assert_int_equal(bar_get(f, 0x4010, 8), 0xfee01000);
	assert_int_equal(bar_get(f, 0x4018, 8), 0x42);
	assert_int_equal(bar_get(f, 0x4020, 8), 0);
	assert_int_equal(fake_nr_msi(&f->fake), 1);
}

/* What the host lacks for a vector is not the guest's error; it stays as if masked until it is set up anew. */
static void test_msix_host_fails(void **state)
{
	static const int codes[] = { -ENOMEM, -EMFILE, -ENFILE, -EINVAL };
	struct fixture *f = *state;
	unsigned cap = find_cap(f, PCI_CAP_ID_MSIX, -1);

	pci_start(f);
	cfg_set(f, cap + 2, 2, 0x8000);
	for (unsigned i = 0; i < ARRAY_SIZE(codes); i++) {
		f->fake.chip.fail_next = codes[i];
		set_entry(f, 1, 0xfee01000, 0x41, 0);
		assert_int_equal(f->fake.chip.fail_next, 0);
		assert_int_equal(f->dev->guest_errors, codes[i] == -EINVAL);
		bar_set(f, 0x401c, 4, 1);
	}
	pci_request(f);
	assert_int_equal(bar_get(f, 0x5000, 4), 2);
	bar_set(f, 0x401c, 4, 0);
	assert_int_equal(fake_msi(&f->fake, 0xfee01000, 0x41)->raises, 1);
	assert_int_equal(f->dev->guest_errors, 1);
}

enum { ISR = 0x1000, ISR_QUEUE = 1, ISR_CONFIG = 2 };

static void pci_malformed(struct fixture *f)
{
	ring_offer(&f->d.ring[0], 999);
	bar_set(f, 0x3000, 2, 0);
	fake_settle(&f->fake);
	assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_STATUS, 1), RUNNING | NEEDS_RESET);
}

static u32 interrupt_status(struct fixture *f)
{
	return cfg_get(f, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT;
}

/* Without MSI-X a driver finds out by reading, which takes what it reads (4.1.4.5). */
static void test_isr_without_msix(void **state)
{
	struct fixture *f = *state;

	pci_start(f);
	assert_int_equal(bar_get(f, ISR, 1), 0);
	assert_int_equal(interrupt_status(f), 0);
	pci_request(f);
	assert_int_equal(interrupt_status(f), PCI_STATUS_INTERRUPT);
	assert_int_equal(bar_get(f, ISR, 1), ISR_QUEUE);
	assert_int_equal(bar_get(f, ISR, 1), 0);
	assert_int_equal(interrupt_status(f), 0);
	pci_request(f);
	pci_request(f);
	bar_set(f, ISR, 1, 0xff);			/* not for writing */
	assert_int_equal(bar_get(f, ISR + 1, 1), 0);	/* nor does its neighbour take it */
	assert_int_equal(bar_get(f, ISR, 1), ISR_QUEUE);
	assert_int_equal(bar_get(f, ISR, 1), 0);
	ring_set_avail_flags(&f->d.ring[0], VRING_AVAIL_F_NO_INTERRUPT);
	pci_request(f);
	assert_int_equal(bar_get(f, ISR, 1), 0);
	ring_set_avail_flags(&f->d.ring[0], 0);
	pci_request(f);
	pci_malformed(f);				/* a configuration change besides */
	assert_int_equal(interrupt_status(f), PCI_STATUS_INTERRUPT);
	assert_int_equal(bar_get(f, ISR, 1), ISR_QUEUE | ISR_CONFIG);
	assert_int_equal(bar_get(f, ISR, 1), 0);
	assert_int_equal(interrupt_status(f), 0);
}

/* There is no pin, and the function says so: it has no wire for one. */
static void test_no_pin(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(cfg_get(f, PCI_INTERRUPT_PIN, 1), 0);
	cfg_set(f, PCI_INTERRUPT_PIN, 1, 1);
	assert_int_equal(cfg_get(f, PCI_INTERRUPT_PIN, 1), 0);
	pci_start(f);
	pci_request(f);
	assert_int_equal(f->fake.chip.nr_live, 0);
	cfg_set(f, PCI_COMMAND, 2, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE);
	pci_request(f);
	assert_int_equal(bar_get(f, ISR, 1), ISR_QUEUE);
	assert_int_equal(f->fake.chip.nr_live, 0);
}

static void test_isr_is_reset(void **state)
{
	struct fixture *f = *state;

	pci_start(f);
	bar_set(f, VIRTIO_PCI_COMMON_Q_MSIX, 2, 0);	/* live: refused */
	pci_request(f);
	bar_set(f, VIRTIO_PCI_COMMON_STATUS, 1, 0);
	assert_int_equal(interrupt_status(f), 0);
	assert_int_equal(bar_get(f, ISR, 1), 0);
	assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_Q_MSIX, 2), 0xffff);
	bar_set(f, VIRTIO_PCI_COMMON_STATUS, 1, ACK | DRIVER | DRIVER_OK);
	assert_int_equal(bar_get(f, ISR, 1), ISR_CONFIG);	/* broke a rule */
	assert_int_equal(bar_get(f, ISR, 1), 0);
}

/* With MSI-X a used buffer is a message and nothing else; a change of the
 * configuration stands in the ISR as well (4.1.4.5.1). */
static void test_isr_beside_msix(void **state)
{
	struct fixture *f = *state;
	unsigned cap = find_cap(f, PCI_CAP_ID_MSIX, -1);
	struct fake_irq *config, *queue;

	pci_start(f);
	set_entry(f, 0, 0xfee01000, 0x40, 0);
	set_entry(f, 1, 0xfee01000, 0x41, 0);
	cfg_set(f, cap + 2, 2, 0x8000);
	config = fake_msi(&f->fake, 0xfee01000, 0x40);
	queue = fake_msi(&f->fake, 0xfee01000, 0x41);
	assert_true(config && queue);
	pci_request(f);
	assert_int_equal(queue->raises, 1);
	assert_int_equal(bar_get(f, ISR, 1), 0);
	/* Switched off, and on again. */
	cfg_set(f, cap + 2, 2, 0);
	pci_request(f);
	assert_int_equal(queue->raises, 1);
	assert_int_equal(bar_get(f, ISR, 1), ISR_QUEUE);
	cfg_set(f, cap + 2, 2, 0x8000);
	pci_request(f);
	assert_int_equal(queue->raises, 2);
	assert_int_equal(bar_get(f, ISR, 1), 0);
	assert_int_equal(config->raises, 0);
	pci_malformed(f);
	assert_int_equal(config->raises, 1);
	assert_int_equal(queue->raises, 2);
	assert_int_equal(interrupt_status(f), 0);
	assert_int_equal(bar_get(f, ISR, 1), ISR_CONFIG);
}

static void add_and_ring(struct fixture *f)
{
	struct piece p = { DATA, 8, true };

	ring_add(&f->d.ring[0], &p, 1);
	bar_set(f, 0x3000, 2, 0);
	eventfd_write(f->fake.bell[0].fd, 1);
	fake_settle(&f->fake);
}

/* Without being bus master it touches nothing.  What it was asked before it does when it is; but where that was taken
 * from it the rings may be nobody's any more, whoever gives it back. */
static void test_pci_bus_master(void **state)
{
	struct fixture *f = *state;
	struct ring *r = &f->d.ring[0];
	u16 before;

	cfg_set(f, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	pci_start(f);
	add_and_ring(f);
	assert_int_equal(ring_used_idx(r), 0);
	assert_true(all_zero(f, DATA, 8));
	cfg_set(f, PCI_COMMAND, 2, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY);
	fake_settle(&f->fake);
	assert_int_equal(ring_used_idx(r), 1);
	for (int paused = 0; paused < 2; paused++) {
		pci_request(f);
		before = ring_used_idx(r);
		cfg_set(f, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
		assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_STATUS, 1), RUNNING & ~DRIVER_OK);
		add_and_ring(f);
		if (paused)
			device_quiesce(f->dev);
		cfg_set(f, PCI_COMMAND, 2, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY);
		if (paused)
			device_resume(f->dev);
		add_and_ring(f);
		assert_int_equal(ring_used_idx(r), before);
		pci_start(f);
	}
	pci_request(f);
	assert_int_equal(f->dev->guest_errors, 0);
	/* What is broken only a reset mends. */
	ring_offer(r, 999);
	bar_set(f, 0x3000, 2, 0);
	eventfd_write(f->fake.bell[0].fd, 1);
	fake_settle(&f->fake);
	assert_true(bar_get(f, VIRTIO_PCI_COMMON_STATUS, 1) & VIRTIO_CONFIG_S_NEEDS_RESET);
	before = ring_used_idx(r);
	cfg_set(f, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	cfg_set(f, PCI_COMMAND, 2, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY);
	bar_set(f, VIRTIO_PCI_COMMON_STATUS, 1, RUNNING);
	add_and_ring(f);
	assert_int_equal(ring_used_idx(r), before);
	pci_start(f);
	pci_request(f);
}

/* A queue that was not enabled is not used, and cannot be enabled once all runs. */
static void test_pci_queue_not_enabled(void **state)
{
	struct fixture *f = *state;
	struct piece p = { DATA, 8, true };

	pci_prepare(f);
	bar_set(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 0);	/* only 1 may be written */
	assert_int_equal(f->dev->guest_errors, 1);
	assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
	bar_set(f, VIRTIO_PCI_COMMON_STATUS, 1, RUNNING);
	assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_STATUS, 1), RUNNING);
	ring_add(&f->d.ring[0], &p, 1);
	bar_set(f, 0x3000, 2, 0);
	fake_settle(&f->fake);
	assert_int_equal(ring_used_idx(&f->d.ring[0]), 0);
	assert_int_equal(f->dev->guest_errors, 1);
	bar_set(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
	assert_int_equal(f->dev->guest_errors, 2);
	assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
	fake_settle(&f->fake);
	assert_int_equal(ring_used_idx(&f->d.ring[0]), 0);
	pci_start(f);
	pci_request(f);
}

/* Queues are enabled one by one, and disabled by a reset alone (4.1.4.3.2): there is
 * no queue_reset, because VIRTIO_F_RING_RESET is not offered. */
static void test_pci_queue_enable(void **state)
{
	struct fixture *f = *state;
	u32 errors = 0;

	bar_set(f, VIRTIO_PCI_COMMON_DFSELECT, 4, 1);
	assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_DF, 4) >> (VIRTIO_F_RING_RESET - 32) & 1, 0);
	pci_start(f);
	pci_request(f);
	assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
	for (u32 value = 0; value <= 2; value++) {
		bar_set(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2, value);
		assert_int_equal(f->dev->guest_errors, ++errors);
		bar_set(f, VIRTIO_PCI_COMMON_Q_RESET, 2, value);
		assert_int_equal(f->dev->guest_errors, ++errors);
		assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_Q_RESET, 2), 0);
		assert_int_equal(f->dev->guest_errors, ++errors);
		assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
		pci_request(f);
	}
	assert_int_equal(ring_used_idx(&f->d.ring[0]), 4);
	assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_STATUS, 1), RUNNING);
}

/* Where its interrupts go may be said late, but not once all runs. */
static void test_pci_late_vector(void **state)
{
	struct fixture *f = *state;

	pci_prepare(f);
	bar_set(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
	bar_set(f, VIRTIO_PCI_COMMON_Q_MSIX, 2, 0);
	assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_Q_MSIX, 2), 0);
	assert_int_equal(f->dev->guest_errors, 0);
	bar_set(f, VIRTIO_PCI_COMMON_STATUS, 1, RUNNING);
	bar_set(f, VIRTIO_PCI_COMMON_Q_MSIX, 2, 1);
	assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_Q_MSIX, 2), 0);
	assert_int_equal(f->dev->guest_errors, 1);
	pci_request(f);
}

/* After a reset the rings are the driver's, whatever it rings; then all may begin again. */
static void test_pci_reset(void **state)
{
	struct fixture *f = *state;

	for (int round = 0; round < 3; round++) {
		struct piece p = { DATA, 8, true };

		pci_start(f);
		pci_request(f);
		pci_request(f);
		assert_int_equal(ring_used_idx(&f->d.ring[0]), 2);
		ring_add(&f->d.ring[0], &p, 1);
		bar_set(f, VIRTIO_PCI_COMMON_STATUS, 1, 0);
		assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_STATUS, 1), 0);
		assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
		assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_Q_SIZE, 2), 64);
		assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_Q_DESCLO, 8), 0);
		assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_Q_AVAILLO, 8), 0);
		assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_Q_USEDLO, 8), 0);
		scribble(f);
		bar_set(f, 0x3000, 2, 0);
		eventfd_write(f->fake.bell[0].fd, 1);	/* as the doorbell does */
		fake_settle(&f->fake);
		check_scribbles(f);
		assert_int_equal(bar_get(f, ISR, 1), 0);
	}
	assert_int_equal(f->dev->guest_errors, 0);
}

static void test_cfg_window(void **state)
{
	struct fixture *f = *state;
	unsigned at = find_cap(f, PCI_CAP_ID_VNDR, VIRTIO_PCI_CAP_PCI_CFG);

	cfg_set(f, at + 8, 4, VIRTIO_PCI_COMMON_NUMQ);
	cfg_set(f, at + 12, 4, 2);
	assert_int_equal(cfg_get(f, at + 16, 2), 1);
	cfg_set(f, at + 8, 4, VIRTIO_PCI_COMMON_STATUS);
	cfg_set(f, at + 12, 4, 1);
	cfg_set(f, at + 16, 1, ACK);
	assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_STATUS, 1), ACK);
	/* Nonsense is ignored. */
	cfg_set(f, at + 8, 4, 0xfffffffc);
	cfg_set(f, at + 12, 4, 4);
	cfg_get(f, at + 16, 4);
	for (u32 len = 0; len <= 4096; len = len < 16 ? len + 1 : len * 2)
		if (len != 1 && len != 2 && len != 4) {
			cfg_set(f, at + 8, 4, len < 16 ? len * VIRTIO_PCI_COMMON_STATUS : 0);
			cfg_set(f, at + 12, 4, len);
			cfg_get(f, at + 16, 4);
			cfg_set(f, at + 16, 4, 0);
		}
	assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_STATUS, 1), ACK);
}

/* Registers are read and written whole, or not at all. */
static void test_pci_odd_sizes(void **state)
{
	static const u8 width[] = {
		[VIRTIO_PCI_COMMON_MSIX] = 2, [VIRTIO_PCI_COMMON_STATUS] = 1, [VIRTIO_PCI_COMMON_Q_SELECT] = 2,
	};
	struct fixture *f = *state;
	u32 errors = 0;

	pci_start(f);
	bar_set(f, VIRTIO_PCI_COMMON_MSIX, 2, 1);
	for (unsigned at = 0; at < sizeof(width); at++)
		for (unsigned size = 1; size <= 8; size *= 2)
			if (width[at] && width[at] != size) {
				bar_set(f, at, size, 0);
				assert_int_equal(bar_get(f, at, size), 0);
				errors += 2;
			}
	assert_int_equal(f->dev->guest_errors, errors);
	assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_STATUS, 1), RUNNING);
	assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_MSIX, 2), 1);
	pci_request(f);
}

static void test_bar_moves(void **state)
{
	struct fixture *f = *state;

	cfg_set(f, PCI_BASE_ADDRESS_0, 4, 0xffffffff);
	assert_int_equal(cfg_get(f, PCI_BASE_ADDRESS_0, 4), 0xffff8004);
	cfg_set(f, PCI_BASE_ADDRESS_1, 4, 0xffffffff);
	assert_int_equal(cfg_get(f, PCI_BASE_ADDRESS_1, 4), 0xffffffff);
	cfg_set(f, PCI_BASE_ADDRESS_0, 4, 0xd0000000);
	cfg_set(f, PCI_BASE_ADDRESS_1, 4, 0);
	assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_NUMQ, 2), 0xffff);
	f->bar = 0xd0000000;
	assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_NUMQ, 2), 1);
	assert_int_equal(f->fake.nr_bells, 2);
	assert_true(has_bell(f, &f->fake.mmio, 0xd0003000));
	cfg_set(f, PCI_COMMAND, 2, PCI_COMMAND_IO);
	assert_int_equal(bar_get(f, VIRTIO_PCI_COMMON_NUMQ, 2), 0xffff);
	assert_int_equal(f->fake.nr_bells, 1);
	cfg_set(f, PCI_COMMAND, 2, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY);
	pci_start(f);
	pci_request(f);
}

/* Another one, in slot 2. */
static struct device *add_second(struct fixture *f)
{
	struct device *second;
	struct virtio *v;

	assert_int_equal(virtio_rng_new(&f->fake.p, "rng1", NULL, &v, NULL), 0);
	assert_int_equal(virtio_pci_new(v, f->pci, &second, NULL), 0);
	return second;
}

/* Each BAR in the place of the other's, one after the other. */
static void swap_bars(struct fixture *f)
{
	bus_write(&f->fake.mmio, WINDOW + VIRTIO_PCI_COMMON_DFSELECT, 4, 11);
	bus_write(&f->fake.mmio, WINDOW + 0x8000 + VIRTIO_PCI_COMMON_DFSELECT, 4, 22);
	cfg_set(f, PCI_BASE_ADDRESS_0, 4, WINDOW + 0x8000);
	bus_write(&f->fake.mmio, ECAM + (2 << 15) + PCI_BASE_ADDRESS_0, 4, WINDOW);
}

static void check_swapped(struct fixture *f)
{
	assert_int_equal(bus_read(&f->fake.mmio, WINDOW + VIRTIO_PCI_COMMON_DFSELECT, 4), 22);
	assert_int_equal(bus_read(&f->fake.mmio, WINDOW + 0x8000 + VIRTIO_PCI_COMMON_DFSELECT, 4), 11);
	assert_true(has_bell(f, &f->fake.mmio, WINDOW + 0x3000));
	assert_true(has_bell(f, &f->fake.mmio, WINDOW + 0xb000));
}

/* A driver that moves several may put one where another still is: it answers there when that has gone. */
static void test_bars_swap(void **state)
{
	struct fixture *f = *state;
	struct device *second = add_second(f);

	swap_bars(f);
	check_swapped(f);
	device_destroy(second);
}

static void all_state(struct fixture *f, struct device *second, struct state *s)
{
	device_quiesce(f->dev);
	device_quiesce(second);
	device_state(pci_bus_device(f->pci), s);
	device_state(f->dev, s);
	device_state(second, s);
}

static void test_swapped_bars_copied(void **state)
{
	struct fixture *f = *state, *copy;
	struct device *second = add_second(f), *second_copy;
	struct state *save, *load;
	const void *blob;
	void *p;
	size_t len;

	swap_bars(f);
	assert_int_equal(state_new_save(&save, NULL), 0);
	all_state(f, second, save);
	assert_int_equal(state_finish_save(save, &blob, &len, NULL), 0);
	setup_pci(&p);
	copy = p;
	second_copy = add_second(copy);
	assert_int_equal(state_new_load(&load, blob, len, NULL), 0);
	all_state(copy, second_copy, load);
	assert_int_equal(state_finish_load(load, NULL), 0);
	state_free(load);
	state_free(save);
	check_swapped(copy);
	assert_int_equal(copy->dev->guest_errors + second_copy->guest_errors, 0);
	device_destroy(second_copy);
	teardown(&p);
	device_destroy(second);
}

static void test_ports_move(void **state)
{
	struct fixture *f = *state;

	assert_true(has_bell(f, &f->fake.pio, PORT_PCI_WINDOW));
	cfg_set(f, PCI_BASE_ADDRESS_2, 4, 0xffffffff);
	assert_int_equal(cfg_get(f, PCI_BASE_ADDRESS_2, 4), 0xffffff81);
	assert_int_equal(f->fake.nr_bells, 1);
	cfg_set(f, PCI_BASE_ADDRESS_2, 4, 0xc000);
	assert_true(has_bell(f, &f->fake.pio, 0xc000));
	/* Over others' ports, and where there are none any more: nowhere. */
	cfg_set(f, PCI_BASE_ADDRESS_2, 4, 0xc80);
	assert_int_equal(f->fake.nr_bells, 1);
	cfg_set(f, PCI_BASE_ADDRESS_2, 4, 0x10000);
	assert_int_equal(f->fake.nr_bells, 1);
	cfg_set(f, PCI_BASE_ADDRESS_2, 4, 0xff80);
	assert_true(has_bell(f, &f->fake.pio, 0xff80));
	cfg_set(f, PCI_COMMAND, 2, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY);
	assert_int_equal(f->fake.nr_bells, 1);
	cfg_set(f, PCI_COMMAND, 2, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY | PCI_COMMAND_IO);
	assert_int_equal(bus_read(&f->fake.pio, 0xff80, 2), 0xffff);
	pci_start(f);
	/* Where KVM has no doorbell left, the write comes to us. */
	pci_request_by(f, 0xff80);
}

static void test_pci_poke_everything(void **state)
{
	struct fixture *f = *state;

	for (int pass = 0; pass < 2; pass++) {
		poke(f, f->bar, 0, 0x80);
		poke(f, f->bar, 0x1000, 0x1010);
		poke(f, f->bar, 0x2000, 0x2040);
		poke(f, f->bar, 0x3000, 0x3040);
		poke(f, f->bar, 0x4000, 0x4100);
		poke(f, f->bar, 0x5000, 0x5020);
		poke(f, f->bar, 0x7ff0, 0x8000);
		pci_start(f);
	}
	poke(f, ECAM + (1 << 15), 0, 0x110);
}

#define M(name) cmocka_unit_test_setup_teardown(name, setup_mmio, teardown)
#define P(name) cmocka_unit_test_setup_teardown(name, setup_pci, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		M(test_mmio_identity), M(test_mmio_entropy), M(test_mmio_early_buffers),
		cmocka_unit_test_setup_teardown(test_mmio_entropy_limit, setup_limited, real_clock),
		M(test_features), M(test_features_are_fixed_after_ok),
		M(test_live_queue_does_not_move), M(test_mmio_queue_taken_back),
		M(test_mmio_queue_set_up_twice), M(test_mmio_interrupt_copied), M(test_status_rules),
		M(test_malformed_needs_reset_then_works), M(test_bad_rings_need_reset),
		M(test_mmio_poke_everything), M(test_mmio_odd_sizes), M(test_config_ends),
		cmocka_unit_test(test_mmio_without_wire),
		P(test_pci_identity_and_caps), P(test_pci_queue_registers), P(test_msix), P(test_msix_host_fails),
		P(test_isr_without_msix), P(test_no_pin), P(test_isr_is_reset),
		P(test_isr_beside_msix), P(test_pci_bus_master),
		P(test_pci_queue_not_enabled), P(test_pci_queue_enable), P(test_pci_late_vector),
		P(test_pci_reset), P(test_cfg_window), P(test_pci_odd_sizes),
		P(test_config_ends), P(test_bar_moves),
		P(test_bars_swap), P(test_swapped_bars_copied), P(test_ports_move),
		P(test_pci_poke_everything),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
