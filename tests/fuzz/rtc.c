/*
 * rtc.c: a guest sets and reads the clock in every way it can be told to count, writes
 * to all of CMOS, and the host's clock jumps.  What is set is read back, goes on from
 * there, and is a date whenever it is read; other bytes keep what was written to them.
 */
#include <string.h>
#include <time.h>
#include "devices/legacy.h"
#include "tests/fuzz/lib/fuzz.h"
#include "tests/lib/fake.h"

enum { SECONDS = 0, MINUTES = 2, HOURS = 4, WEEKDAY = 6, DAY = 7, MONTH = 8, YEAR = 9, REG_A = 10,
       REG_B = 11, REG_C = 12, REG_D = 13, CENTURY = 0x32, LEN = 128 };
enum { H24 = 2, BINARY = 4, SET = 0x80, PM = 0x80 };

static struct fake fake;
static time_t host;			/* what it says the time is */
static u8 cmos[LEN], index_now;
static bool known;			/* what date the guest has set... */
static time_t guest;			/* ...when the host's clock said `when` */
static time_t when;

time_t time(time_t *out)
{
	if (out)
		*out = host;
	return host;
}

static bool is_clock(u8 at)
{
	return at == SECONDS || at == MINUTES || at == HOURS || (at >= WEEKDAY && at <= YEAR) ||
	       at == CENTURY;
}

static void select_byte(u8 at)
{
	bus_write(&fake.pio, PORT_RTC, 1, at);
	index_now = at % LEN;
}

static u8 get(u8 at)
{
	select_byte(at);
	return bus_read(&fake.pio, PORT_RTC + 1, 1);
}

static void set(u8 at, u8 value)
{
	select_byte(at);
	bus_write(&fake.pio, PORT_RTC + 1, 1, value);
	at %= LEN;
	if (at != REG_C && at != REG_D)
		cmos[at] = value;
}

/* --- dates ------------------------------------------------------------------------------- */

static u8 encode(int value)
{
	return cmos[REG_B] & BINARY ? value : value / 10 * 16 + value % 10;
}

static int decode(u8 value)
{
	if (cmos[REG_B] & BINARY)
		return value;
	fuzz_check((value & 15) < 10 && value >> 4 < 10, "%#x is no BCD", value);
	return value / 16 * 10 + value % 16;
}

static u8 encode_hour(int hour)
{
	if (cmos[REG_B] & H24)
		return encode(hour);
	return encode(hour % 12 ? hour % 12 : 12) | (hour >= 12 ? PM : 0);
}

static int decode_hour(u8 value)
{
	int hour;

	if (cmos[REG_B] & H24)
		return decode(value);
	hour = decode(value & ~PM);
	fuzz_check(hour >= 1 && hour <= 12, "hour %d of 12", hour);
	return hour % 12 + (value & PM ? 12 : 0);
}

static void set_date(struct fuzz *f)
{
	struct tm tm = {
		.tm_sec = fuzz_below(f, 60), .tm_min = fuzz_below(f, 60),
		.tm_hour = fuzz_below(f, 24), .tm_mday = 1 + fuzz_below(f, 28),
		.tm_mon = fuzz_below(f, 12), .tm_year = fuzz_below(f, 9990) - 1900 + 5,
	};
	u8 how = fuzz_u8(f), mode = how & (H24 | BINARY);

	/* All at once, or each byte for itself. */
	set(REG_B, how & 1 ? mode : SET | mode);
	set(SECONDS, encode(tm.tm_sec));
	set(MINUTES, encode(tm.tm_min));
	set(HOURS, encode_hour(tm.tm_hour));
	set(DAY, encode(tm.tm_mday));
	set(MONTH, encode(tm.tm_mon + 1));
	set(YEAR, encode((1900 + tm.tm_year) % 100));
	set(CENTURY, encode((1900 + tm.tm_year) / 100));
	fuzz_check(get(MINUTES) == encode(tm.tm_min), "held, but it changed");
	set(REG_B, mode);
	known = true;
	guest = timegm(&tm);
	when = host;
}

static void check_date(void)
{
	time_t want = guest + (host - when);
	struct tm tm, got;

	if (!known || cmos[REG_B] & SET || !gmtime_r(&want, &tm) || tm.tm_year < -1900 ||
	    tm.tm_year > 9999 - 1900)
		return;
	got = (struct tm){
		.tm_sec = decode(get(SECONDS)), .tm_min = decode(get(MINUTES)),
		.tm_hour = decode_hour(get(HOURS)), .tm_mday = decode(get(DAY)),
		.tm_mon = decode(get(MONTH)) - 1, .tm_wday = decode(get(WEEKDAY)) - 1,
		.tm_year = decode(get(CENTURY)) * 100 + decode(get(YEAR)) - 1900,
	};
	fuzz_check(got.tm_sec == tm.tm_sec && got.tm_min == tm.tm_min && got.tm_hour == tm.tm_hour &&
		   got.tm_mday == tm.tm_mday && got.tm_mon == tm.tm_mon &&
		   got.tm_wday == tm.tm_wday && got.tm_year == tm.tm_year,
		   "%d-%d-%d %d:%d:%d (%d), not %d-%d-%d %d:%d:%d (%d)", got.tm_year + 1900,
		   got.tm_mon + 1, got.tm_mday, got.tm_hour, got.tm_min, got.tm_sec, got.tm_wday,
		   tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
		   tm.tm_wday);
}

static void check_byte(u8 at)
{
	u8 got = get(at);

	at %= LEN;
	fuzz_check(is_clock(at) || got == cmos[at], "byte %#x is %#x, not %#x", at, got, cmos[at]);
	fuzz_check(bus_read(&fake.pio, PORT_RTC, 1) == at, "the index is not %#x", at);
}

static void poke(struct fuzz *f)
{
	u8 at = fuzz_u8(f), value = fuzz_u8(f);

	/* A clock that is not set as a whole is anything; so is one that is let go after that. */
	if (is_clock(at % LEN))
		known = false;
	if (at % LEN == REG_B && cmos[REG_B] & SET)
		known = false;
	set(at, value);
	if (!is_clock(at % LEN))
		check_byte(at);
}

void fuzz_one(struct fuzz *f)
{
	struct device *dev;

	if (!fake.p.mem)
		fake_init(&fake, 0x10000, -1);
	fuzz_check(!rtc_new(&fake.p, &dev, NULL), "no clock");
	memset(cmos, 0, sizeof(cmos));
	cmos[REG_A] = 0x26;
	cmos[REG_B] = H24;
	cmos[REG_D] = 0x80;
	host = guest = when = 1700000000;
	known = true;
	while (f->left) {
		u8 step = fuzz_u8(f);

		switch (step & 7) {
		case 0:
			set_date(f);
			break;
		case 1:
			host += fuzz_u32(f) >> (step >> 3);
			break;
		case 2:
			host -= fuzz_u32(f) >> (step >> 3);
			break;
		case 3: case 4:
			poke(f);
			break;
		case 5:
			bus_read(&fake.pio, PORT_RTC + (step >> 7), fuzz_size(f));
			break;
		default:
			check_byte(fuzz_u8(f));
		}
		check_date();
	}
	set_date(f);
	check_date();
	device_destroy(dev);
	fuzz_check(!fake.pio.nr, "something was left behind");
}
