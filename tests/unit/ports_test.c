/* ports_test.c: clock, reset, exit and panic ports, and PCI by its old ports. */
#include <time.h>
#include "devices/legacy.h"
#include "devices/pci/pci.h"
#include "tests/lib/fake.h"
#include "tests/lib/test.h"
#include "vmm/core/bus.h"
#include "vmm/core/state.h"

static struct fake fake;
static struct device *dev;

static int setup(void **state)
{
	(void)state;
	fake_init(&fake, 8 * MIB, -1);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	device_destroy(dev);
	dev = NULL;
	fake_fini(&fake);
	return 0;
}

static u8 cmos_get(u8 index)
{
	bus_write(&fake.pio, 0x70, 1, index);
	return bus_read(&fake.pio, 0x71, 1);
}

static void cmos_set(u8 index, u8 value)
{
	bus_write(&fake.pio, 0x70, 1, index);
	bus_write(&fake.pio, 0x71, 1, value);
}

static void test_rtc_is_set_and_held(void **state)
{
	(void)state;
	assert_int_equal(rtc_new(&fake.p, &dev, NULL), 0);
	assert_int_equal(cmos_get(0x0d), 0x80);
	cmos_set(0x0d, 0);
	assert_int_equal(cmos_get(0x0d), 0x80);
	cmos_set(0x0b, 0x82);		/* hold the clock, BCD, 24 hours */
	cmos_set(0x32, 0x20);
	cmos_set(9, 0x31);
	cmos_set(8, 0x12);
	cmos_set(7, 0x05);
	cmos_set(4, 0x23);
	cmos_set(2, 0x15);
	cmos_set(0, 0x00);
	assert_int_equal(cmos_get(9), 0x31);
	cmos_set(0x0b, 0x02);
	assert_int_equal(cmos_get(0x32), 0x20);
	assert_int_equal(cmos_get(9), 0x31);
	assert_int_equal(cmos_get(8), 0x12);
	assert_int_equal(cmos_get(7), 0x05);
	assert_int_equal(cmos_get(6), 6);	/* a Friday */
	assert_int_equal(cmos_get(4), 0x23);
	cmos_set(0x0b, 0x06);			/* binary */
	assert_int_equal(cmos_get(4), 23);
	assert_int_equal(cmos_get(9), 31);
	cmos_set(0x0b, 0x04);			/* 12 hours */
	assert_int_equal(cmos_get(4), 0x80 | 11);
	cmos_set(0x0b, 0x82);
	cmos_set(9, 0x31);
	cmos_set(8, 0x12);
	cmos_set(7, 0x05);
	cmos_set(4, 0x03);
	cmos_set(2, 0x15);
	cmos_set(0, 0x00);
	cmos_set(0x32, 0);			/* the year 31 is none of ours to judge */
	cmos_set(0x0b, 0x02);
	assert_int_equal(cmos_get(0x32), 0);
	assert_int_equal(cmos_get(9), 0x31);
	cmos_set(0x40, 0x5a);			/* plain memory */
	assert_int_equal(cmos_get(0x40), 0x5a);
}

/* Twelve is the first hour of either half, and a clock that is not held goes on from what is written. */
static void test_rtc_half_days(void **state)
{
	static const struct { u8 written, hour; } row[] = {
		{ 0x12, 0x00 }, { 0x01, 0x01 }, { 0x11, 0x11 }, { 0x92, 0x12 }, { 0x81, 0x13 }, { 0x91, 0x23 },
	};

	(void)state;
	assert_int_equal(rtc_new(&fake.p, &dev, NULL), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(row); i++) {
		cmos_set(0x0b, 0x80);		/* hold it: BCD, 12 hours */
		cmos_set(4, row[i].written);
		cmos_set(2, 0x15);
		cmos_set(0, 0);
		cmos_set(0x0b, 0x02);
		assert_int_equal(cmos_get(4), row[i].hour);
		cmos_set(0x0b, 0x00);
		assert_int_equal(cmos_get(4), row[i].written);
	}
	cmos_set(0x0b, 0x02);
	cmos_set(4, 0x07);
	assert_int_equal(cmos_get(4), 0x07);
	assert_int_equal(cmos_get(2), 0x15);
	bus_write(&fake.pio, 0x70, 1, 0x80 | 0x32);	/* with the NMI's mask */
	assert_int_equal(bus_read(&fake.pio, 0x70, 1), 0x32);
}

/* As it was saved, but for what cannot have been. */
static void load_rtc(u8 index, u64 offset, const char *wrong)
{
	u8 cmos[128] = { [0x0b] = 0x02, [0x40] = 0x5a };
	struct state *saved, *s;
	const void *blob;
	struct err err;
	size_t len;

	assert_int_equal(state_new_save(&saved, &err), 0);
	state_enter(saved, "rtc", 0);
	state_u8(saved, "index", &index);
	state_bytes(saved, "cmos", cmos, sizeof(cmos));
	state_u64(saved, "offset", &offset);
	state_leave(saved);
	assert_int_equal(state_finish_save(saved, &blob, &len, &err), 0);
	assert_int_equal(state_new_load(&s, blob, len, &err), 0);
	state_enter(s, "rtc", 0);
	dev->ops->state(dev, s);
	state_leave(s);
	assert_int_equal(!state_finish_load(s, &err), !wrong);
	if (wrong)
		assert_says(err.msg, wrong);
	state_free(s);
	state_free(saved);
}

static void test_rtc_state(void **state)
{
	(void)state;
	assert_int_equal(rtc_new(&fake.p, &dev, NULL), 0);
	load_rtc(0x40, 0, NULL);
	assert_int_equal(bus_read(&fake.pio, 0x70, 1), 0x40);
	assert_int_equal(bus_read(&fake.pio, 0x71, 1), 0x5a);
	load_rtc(200, 0, "index 200");
	assert_int_equal(bus_read(&fake.pio, 0x70, 1), 200 - 128);
	bus_read(&fake.pio, 0x71, 1);		/* within what there is */
	/* The furthest that a guest can be off: all digits of the year are fifteens. */
	load_rtc(0, 16565 * 366ULL * 86400, NULL);
	bus_read(&fake.pio, 0x71, 1);
	load_rtc(0, -(16565 * 366ULL * 86400), NULL);
	bus_read(&fake.pio, 0x71, 1);
	load_rtc(0, INT64_MAX, "offset");
	bus_read(&fake.pio, 0x71, 1);
	load_rtc(0, INT64_MIN, "offset");
	bus_read(&fake.pio, 0x71, 1);
}

static void test_exit_reset_panic(void **state)
{
	(void)state;
	assert_int_equal(ports_new(&fake.p, false, &dev, NULL), 0);
	bus_write(&fake.pio, 0x64, 1, 0xfd);
	assert_int_equal(fake.nr_events, 0);
	bus_write(&fake.pio, 0x64, 1, 0xfe);
	assert_int_equal(fake.nr_events, 1);
	assert_int_equal(fake.event, MACHINE_RESET);
	bus_write(&fake.pio, 0xf4, 1, 42);
	assert_int_equal(fake.event, MACHINE_EXIT);
	assert_int_equal(fake.event_code, 42);
	assert_int_equal(bus_read(&fake.pio, 0x505, 1) & 1, 1);
	bus_write(&fake.pio, 0x505, 1, 2);
	assert_int_equal(fake.nr_events, 2);
	bus_write(&fake.pio, 0x505, 1, 1);
	assert_int_equal(fake.event, MACHINE_PANIC);
	assert_int_equal(bus_read(&fake.pio, 0x64, 1), 0);
	assert_int_equal(bus_read(&fake.pio, 0x60, 1), 0);
	bus_write(&fake.pio, 0x60, 1, 0xfe);		/* a keyboard's */
	assert_int_equal(metrics_sum(&fake.metrics, NULL, "i8042_accesses_total", "op=\"read\""), 2);
	assert_int_equal(metrics_sum(&fake.metrics, NULL, "i8042_accesses_total", "op=\"write\""), 2);
	assert_int_equal(metrics_sum(&fake.metrics, NULL, "i8042_resets_total", NULL), 1);
	assert_int_equal(metrics_sum(&fake.metrics, NULL, "i8042_ignored_total", NULL), 1);
	assert_int_equal(fake.event, MACHINE_PANIC);
}

/* Where no PCI bus has it. */
static void test_reset_control(void **state)
{
	(void)state;
	assert_int_equal(ports_new(&fake.p, true, &dev, NULL), 0);
	bus_write(&fake.pio, 0xcf9, 1, 2);
	assert_int_equal(fake.nr_events, 0);
	assert_int_equal(bus_read(&fake.pio, 0xcf9, 1), 0);
	bus_write(&fake.pio, 0xcf9, 1, 6);
	assert_int_equal(fake.nr_events, 1);
	assert_int_equal(fake.event, MACHINE_RESET);
}

/* Somebody is there already: nothing of the new one stays (fake_fini looks). */
static void test_taken(void **state)
{
	static const u64 port[] = { 0x60, 0x64, 0xcf9, 0xf4, 0x505 };
	struct device *second = NULL;
	struct pci_bus *b = NULL;
	struct err err;

	(void)state;
	assert_int_equal(rtc_new(&fake.p, &dev, NULL), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(port); i++) {
		struct io_range r = { .ops = &(const struct io_ops){ 0 }, .dev = dev, .len = 1, .name = "other" };

		assert_int_equal(bus_map(&fake.pio, &r, port[i], &err), 0);
		assert_true(ports_new(&fake.p, true, &second, &err) < 0);
		assert_says(err.msg, "other");
		assert_null(second);
		if (port[i] == 0xcf9)
			assert_true(pci_bus_new(&b, &fake.p, 0xe0000000, 0xc0000000, 0x1000000, &err) < 0);
		bus_unmap(&fake.pio, &r);
	}
	assert_null(b);
	assert_true(rtc_new(&fake.p, &second, &err) < 0);
	assert_null(second);
	assert_int_equal(ports_new(&fake.p, true, &second, &err), 0);
	device_destroy(second);
}

static void conf1(u32 address)
{
	bus_write(&fake.pio, 0xcf8, 4, address);
}

static void test_pci_conf1_and_ecam(void **state)
{
	struct pci_bus *b;

	(void)state;
	assert_int_equal(pci_bus_new(&b, &fake.p, 0xe0000000, 0xc0000000, 0x1000000, NULL), 0);
	dev = pci_bus_device(b);
	assert_int_equal(bus_read(&fake.pio, 0xcfc, 4), 0xffffffff);	/* not enabled */
	conf1(1U << 31);
	assert_int_equal(bus_read(&fake.pio, 0xcf8, 4), 1U << 31);
	assert_int_equal(bus_read(&fake.pio, 0xcfc, 4), 0x00081b36);
	assert_int_equal(bus_read(&fake.pio, 0xcfe, 2), 0x0008);
	assert_int_equal(bus_read(&fake.mmio, 0xe0000000, 4), 0x00081b36);
	conf1(1U << 31 | 8);
	assert_int_equal(bus_read(&fake.pio, 0xcfe, 2), 0x0600);	/* host bridge */
	conf1(1U << 31 | 1 << 11);
	assert_int_equal(bus_read(&fake.pio, 0xcfc, 4), 0xffffffff);	/* empty slot */
	conf1(1U << 31 | 1 << 8);
	assert_int_equal(bus_read(&fake.pio, 0xcfc, 4), 0xffffffff);	/* no function 1 */
	conf1(1U << 31 | 1 << 16);
	assert_int_equal(bus_read(&fake.pio, 0xcfc, 4), 0xffffffff);	/* no bus 1 */
	assert_int_equal(bus_read(&fake.mmio, 0xe0000100, 4), 0);	/* no extended space */
	bus_write(&fake.mmio, 0xe0000000, 4, 0);
	assert_int_equal(bus_read(&fake.mmio, 0xe0000000, 4), 0x00081b36);
	bus_write(&fake.pio, 0xcf9, 1, 2);
	assert_int_equal(fake.nr_events, 0);
	bus_write(&fake.pio, 0xcf9, 1, 6);
	assert_int_equal(fake.event, MACHINE_RESET);
}

static const struct io_ops nothing;
static const struct pci_ops no_ops;

static void plug_until(struct pci_bus *b, struct device *owner, u64 bar, int nr, const char *says)
{
	static struct pci_dev d[PCI_SLOTS + 1];
	struct err err;
	int rc = 0, i;

	for (i = 0; !rc; i++) {
		assert_in_range(i, 0, PCI_SLOTS);
		pci_dev_init(&d[i], owner, &no_ops, &(struct pci_ids){ .vendor = 0x1af4 });
		if (bar)
			pci_set_bar(&d[i], &nothing, bar);
		rc = pci_plug(b, &d[i], &err);
	}
	assert_int_equal(rc, -ENOSPC);
	assert_int_equal(i - 1, nr);
	assert_says(err.msg, says);
	while (i--)
		pci_unplug(&d[i]);
}

/* The bus, and the window of its BARs: the next one is refused. */
static void test_pci_is_full(void **state)
{
	struct pci_bus *b;

	(void)state;
	assert_int_equal(pci_bus_new(&b, &fake.p, 0xe0000000, 0xc0000000, 0x10000, NULL), 0);
	dev = pci_bus_device(b);
	plug_until(b, dev, 0x4000, 4, "the PCI window is full");
	plug_until(b, dev, 0, PCI_SLOTS - 1, "all 32 PCI slots are taken; use fewer");
}

/* Written by the old ports as by ECAM: what may be, and no more. */
static void test_pci_conf1_writes(void **state)
{
	struct pci_dev d;
	struct pci_bus *b;
	struct err err;

	(void)state;
	assert_int_equal(pci_bus_new(&b, &fake.p, 0xe0000000, 0xc0000000, 0x10000, NULL), 0);
	dev = pci_bus_device(b);
	pci_dev_init(&d, dev, &no_ops, &(struct pci_ids){ .vendor = 0x1af4, .device = 0x1041 });
	pci_set_bar(&d, &nothing, 0x1000);
	assert_int_equal(pci_plug(b, &d, &err), 0);
	conf1(1U << 31 | 1 << 11 | 0x10);
	assert_int_equal(bus_read(&fake.pio, 0xcfc, 4), 0xc0000004);
	bus_write(&fake.pio, 0xcfc, 4, 0xffffffff);
	assert_int_equal(bus_read(&fake.pio, 0xcfc, 4), 0xfffff004);
	bus_write(&fake.pio, 0xcfe, 2, 0xc000);
	assert_int_equal(bus_read(&fake.pio, 0xcfc, 4), 0xc000f004);
	assert_int_equal(bus_read(&fake.mmio, 0xe0008010, 4), 0xc000f004);
	conf1(1U << 31 | 1 << 11);
	bus_write(&fake.pio, 0xcfc, 4, 0);
	assert_int_equal(bus_read(&fake.pio, 0xcfc, 4), 0x10411af4);
	pci_unplug(&d);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_rtc_is_set_and_held), T(test_rtc_half_days), T(test_rtc_state),
		T(test_exit_reset_panic), T(test_reset_control), T(test_taken), T(test_pci_conf1_and_ecam),
		T(test_pci_is_full), T(test_pci_conf1_writes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
