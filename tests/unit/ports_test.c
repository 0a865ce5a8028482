/* ports_test.c: clock, reset, exit and panic ports, and PCI by its old ports. */
#include <time.h>
#include "devices/legacy.h"
#include "devices/pci/pci.h"
#include "tests/lib/fake.h"
#include "tests/lib/test.h"

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

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_rtc_is_set_and_held), T(test_exit_reset_panic), T(test_pci_conf1_and_ecam),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
