/*
 * ports.c: a guest reads and writes the ports that say something to the machine, those
 * of ACPI among them, while things happen that it is to be told.  The machine is told
 * what was said, once, and nothing else; each event is seen once.
 */
#include "devices/legacy.h"
#include "tests/fuzz/lib/fuzz.h"
#include "tests/lib/fake.h"

static struct fake fake;
static bool has_reset;
static u8 events;		/* that wait to be seen */

struct said {
	int nr;
	enum machine_event event;
	int code;
};

static struct said expected_write(u64 port, unsigned size, u64 value)
{
	bool sleeps = value & 0x20 && (value >> 2 & 7) == 5;

	if (port == PORT_I8042 + 4 && size == 1)
		return (struct said){ value == I8042_RESET, MACHINE_RESET, 0 };
	if (port == PORT_RESET_CONTROL && size == 1 && has_reset)
		return (struct said){ value >> 2 & 1, MACHINE_RESET, 0 };
	if (port >= PORT_EXIT && port + size <= PORT_EXIT + 4)
		return (struct said){ 1, MACHINE_EXIT, value & 0xff };
	if (port == PORT_PVPANIC && size == 1)
		return (struct said){ value & 1, MACHINE_PANIC, 0 };
	if (port == PORT_ACPI + ACPI_SLEEP_CONTROL && size <= 2)
		return (struct said){ sleeps, MACHINE_POWEROFF, 0 };
	return (struct said){ 0 };
}

static u64 expected_read(u64 port, unsigned size)
{
	u64 value;

	if (size == 1 && (port == PORT_I8042 || port == PORT_I8042 + 4 ||
			  (port == PORT_RESET_CONTROL && has_reset)))
		return 0;
	if (port == PORT_PVPANIC && size == 1)
		return 3;
	if (port >= PORT_ACPI && port + size <= PORT_ACPI + ACPI_LEN) {
		if (port != PORT_ACPI + ACPI_EVENTS)
			return 0;
		value = events;
		events = 0;
		return value;
	}
	return ~0ULL >> (64 - 8 * size);
}

static u64 pick_port(struct fuzz *f)
{
	static const u16 base[] = { PORT_I8042, PORT_RESET_CONTROL, PORT_EXIT, PORT_PVPANIC,
				    PORT_ACPI, PORT_ACPI + ACPI_EVENTS };
	u8 b = fuzz_u8(f);

	return b >= 0xf0 ? fuzz_u16(f) : base[b % ARRAY_SIZE(base)] - 4 + (b >> 4);
}

static void write_one(struct fuzz *f)
{
	u64 port = pick_port(f), value;
	unsigned size = fuzz_size(f);
	struct said want;

	fuzz_bytes(f, &value, sizeof(value));
	value &= ~0ULL >> (64 - 8 * size);
	want = expected_write(port, size, value);
	fake.nr_events = 0;
	bus_write(&fake.pio, port, size, value);
	fuzz_check(fake.nr_events == want.nr && (!want.nr || (fake.event == want.event &&
							      fake.event_code == want.code)),
		   "%#llx to port %#llx: %d events, the last %d with %d", (unsigned long long)value,
		   (unsigned long long)port, fake.nr_events, fake.event, fake.event_code);
}

static void read_one(struct fuzz *f)
{
	u64 port = pick_port(f), got, want;
	unsigned size = fuzz_size(f);

	want = expected_read(port, size);
	fake.nr_events = 0;
	got = bus_read(&fake.pio, port, size);
	fuzz_check(got == want && !fake.nr_events, "%u bytes of port %#llx: %#llx, not %#llx", size,
		   (unsigned long long)port, (unsigned long long)got, (unsigned long long)want);
}

static void happen(struct device *acpi, u8 event)
{
	struct fake_irq *wire = fake_line(&fake, FAKE_EDGE, ACPI_GSI);
	int before = wire->raises;

	acpi_event(acpi, event);
	fuzz_check(wire->raises == before + 1, "%d interrupts", wire->raises - before);
	events |= event;
}

void fuzz_one(struct fuzz *f)
{
	struct device *ports, *acpi;

	if (!fake.p.mem)
		fake_init(&fake, 0x10000, -1);
	has_reset = fuzz_u8(f) & 1;
	events = 0;
	fuzz_check(!ports_new(&fake.p, has_reset, &ports, NULL), "no ports");
	fuzz_check(!acpi_ports_new(&fake.p, &acpi, NULL), "no ACPI");
	while (f->left) {
		u8 step = fuzz_u8(f);

		if (step < 0x10)
			happen(acpi, 1 << (step & 1));
		else if (step & 1)
			write_one(f);
		else
			read_one(f);
	}
	device_destroy(acpi);
	device_destroy(ports);
	fuzz_check(!fake.pio.nr && !fake.chip.nr_live, "something was left behind");
}
