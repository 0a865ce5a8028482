/* acpi_ports_test.c: sleep control and the power button, at any width. */
#include <pthread.h>
#include <sched.h>
#include "devices/legacy.h"
#include "tests/lib/fake.h"
#include "tests/lib/test.h"
#include "vmm/core/bus.h"

enum { CONTROL = 0x600, STATUS = 0x601, EVENTS = 0x602, END = 0x603, GSI = 9 };
enum { ENABLE = 0x20, S5 = 5 << 2, PRESSES = 2000 };

static struct fake fake;
static struct device *dev;

static int setup(void **state)
{
	(void)state;
	fake_init(&fake, 8 * MIB, -1);
	return acpi_ports_new(&fake.p, &dev, NULL);
}

static int teardown(void **state)
{
	(void)state;
	device_destroy(dev);
	dev = NULL;
	fake_fini(&fake);
	return 0;
}

static u64 get(u64 port, unsigned size)
{
	return bus_read(&fake.pio, port, size);
}

static void set(u64 port, unsigned size, u64 value)
{
	bus_write(&fake.pio, port, size, value);
}

static int raises(void)
{
	return load_acquire(&fake_line(&fake, FAKE_EDGE, GSI)->raises);
}

/* Of all bytes only those that enable sleep type 5 switch off. */
static void test_sleep_control(void **state)
{
	int expected = 0;

	(void)state;
	for (unsigned value = 0; value < 256; value++) {
		set(CONTROL, 1, value);
		expected += (value & ENABLE) && (value & 0x1c) == S5;
		assert_int_equal(fake.nr_events, expected);
		assert_int_equal(get(CONTROL, 1), 0);
	}
	assert_int_equal(expected, 16);
	assert_int_equal(fake.event, MACHINE_POWEROFF);
	assert_int_equal(fake.event_code, 0);
	assert_int_equal(raises(), 0);
}

/* Only the sleep control register sleeps. */
static void test_other_writes(void **state)
{
	(void)state;
	set(STATUS, 1, ENABLE | S5);
	set(EVENTS, 1, ENABLE | S5);
	set(CONTROL - 1, 1, ENABLE | S5);
	set(END, 1, ENABLE | S5);
	assert_int_equal(fake.nr_events, 0);
	assert_int_equal(get(STATUS, 1), 0);	/* nobody was woken */
	assert_int_equal(get(EVENTS, 1), 0);	/* nor does a write press the button */
	assert_int_equal(get(CONTROL - 1, 1), 0xff);
	assert_int_equal(get(END, 1), 0xff);
}

static void test_power_button(void **state)
{
	(void)state;
	assert_int_equal(get(EVENTS, 1), 0);
	acpi_event(dev, ACPI_EVENT_POWER_BUTTON);
	assert_int_equal(raises(), 1);
	assert_int_equal(get(CONTROL, 1), 0);	/* takes nothing */
	assert_int_equal(get(STATUS, 1), 0);
	set(EVENTS, 1, 0xff);
	assert_int_equal(get(EVENTS, 1), 1);
	assert_int_equal(get(EVENTS, 1), 0);
	/* Twice before the guest looks: one event, and an edge each. */
	acpi_event(dev, ACPI_EVENT_POWER_BUTTON);
	acpi_event(dev, ACPI_EVENT_POWER_BUTTON);
	assert_int_equal(raises(), 3);
	assert_int_equal(get(EVENTS, 1), 1);
	assert_int_equal(get(EVENTS, 1), 0);
	assert_int_equal(fake.nr_events, 0);	/* what it means is the guest's to say */
}

/* The registers are bytes; a wider access does what its first byte does, or
 * nothing where it leaves the range.  An event is never taken unseen. */
static void test_odd_sizes(void **state)
{
	static const unsigned size[] = { 2, 4, 8 };

	(void)state;
	acpi_event(dev, ACPI_EVENT_POWER_BUTTON);
	for (unsigned i = 0; i < ARRAY_SIZE(size); i++) {
		u64 ones = ~0ULL >> (64 - 8 * size[i]);

		for (u64 port = CONTROL - 8; port <= END; port++) {
			u64 got = get(port, size[i]);
			bool inside = port >= CONTROL && port + size[i] <= END;

			assert_true(got == (inside ? 0 : ones));
		}
		for (u64 port = CONTROL - 8; port <= END; port++)
			if (port != CONTROL)
				set(port, size[i], 0x3434343434343434);
	}
	assert_int_equal(fake.nr_events, 0);
	set(CONTROL, 2, (ENABLE | S5) << 8);	/* that is the status register's byte */
	assert_int_equal(fake.nr_events, 0);
	set(CONTROL, 4, ENABLE | S5);
	assert_int_equal(fake.nr_events, 0);
	assert_int_equal(get(EVENTS, 1), 1);
	set(CONTROL, 2, 0xff00 | ENABLE | S5);
	assert_int_equal(fake.nr_events, 1);
	assert_int_equal(fake.event, MACHINE_POWEROFF);
}

static u64 seen;

static void look(struct irq *irq, bool level)
{
	(void)irq, (void)level;
	seen = get(EVENTS, 1);
}

/* A guest that looks as soon as the line rises finds why it did. */
static void test_event_before_interrupt(void **state)
{
	(void)state;
	fake_line(&fake, FAKE_EDGE, GSI)->irq.set = look;
	acpi_event(dev, ACPI_EVENT_POWER_BUTTON);
	assert_int_equal(seen, 1);
}

static int asked;			/* atomic: how many presses there may be by now */

static void *press(void *arg)
{
	for (int i = 1; i <= PRESSES; i++) {
		while (load_acquire(&asked) < i)
			sched_yield();
		acpi_event(arg, ACPI_EVENT_POWER_BUTTON);
	}
	return NULL;
}

/* Each press is seen once, also when it comes while the guest looks. */
static void test_presses_while_read(void **state)
{
	pthread_t thread;
	int pressed, lost = 0;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, press, dev), 0);
	for (int i = 1; i <= PRESSES; i++) {
		int taken = 0;

		store_release(&asked, i);
		do {
			pressed = raises();
			taken += get(EVENTS, 1);
		} while (pressed < i);
		lost += taken != 1;
	}
	pthread_join(thread, NULL);
	assert_int_equal(lost, 0);
}

static void test_without_wire_or_ports(void **state)
{
	struct err err = { 0 };
	struct device *second = NULL;

	(void)state;
	assert_int_equal(acpi_ports_new(&fake.p, &second, &err), -EEXIST);
	assert_int_equal(err.code, -EEXIST);
	fake.chip.fail_next = -ENOSPC;
	assert_int_equal(acpi_ports_new(&fake.p, &second, &err), -ENOSPC);
	assert_int_equal(err.code, -ENOSPC);
	assert_null(second);
	assert_int_equal(fake.chip.nr_live, 1);
	acpi_event(dev, ACPI_EVENT_POWER_BUTTON);		/* the first one lives on */
	assert_int_equal(get(EVENTS, 1), 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_sleep_control), T(test_other_writes), T(test_power_button),
		T(test_odd_sizes), T(test_event_before_interrupt), T(test_presses_while_read),
		T(test_without_wire_or_ports),
	};

	alarm(600);	/* a press without an interrupt is the end */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
