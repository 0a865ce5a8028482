/* rtc.c: MC146818 real-time clock and CMOS memory. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "devices/legacy.h"
#include "vmm/core/bus.h"
#include "vmm/core/state.h"

enum {
	SECONDS = 0, MINUTES = 2, HOURS = 4, WEEKDAY = 6, DAY = 7, MONTH = 8, YEAR = 9,
	REG_A = 10, REG_B = 11, REG_C = 12, REG_D = 13, CENTURY = 0x32,
	CMOS_LEN = 128,
	A_32768_HZ_1024 = 0x26,
	B_24_HOURS = 0x02, B_BINARY = 0x04, B_SET = 0x80,
	D_VALID = 0x80,
	HOUR_PM = 0x80,
};
#define OFFSET_MOST	(1LL << 40)	/* more than all that the registers can say, in seconds */

struct rtc {
	struct device dev;
	struct platform *platform;
	struct io_range range;
	u8 index;
	u8 cmos[CMOS_LEN];		/* clock registers: only while B_SET holds them */
	int64_t offset;			/* seconds the guest's clock is ahead of ours */
};

static struct rtc *to_rtc(struct device *dev)
{
	return container_of(dev, struct rtc, dev);
}

static u8 encode(const struct rtc *r, int value)
{
	return r->cmos[REG_B] & B_BINARY ? value : value / 10 << 4 | value % 10;
}

static int decode(const struct rtc *r, u8 value)
{
	return r->cmos[REG_B] & B_BINARY ? value : (value >> 4) * 10 + (value & 15);
}

static bool is_clock(u8 index)
{
	return index == SECONDS || index == MINUTES || index == HOURS ||
	       (index >= WEEKDAY && index <= YEAR) || index == CENTURY;
}

/* Bring the clock registers up to now. */
static void tick(struct rtc *r)
{
	time_t now = time(NULL) + r->offset;
	struct tm tm;

	/* A guest may have set any date; the registers hold those of four digits. */
	if (r->cmos[REG_B] & B_SET || !gmtime_r(&now, &tm) || tm.tm_year < -1900 ||
	    tm.tm_year > 9999 - 1900)
		return;
	r->cmos[SECONDS] = encode(r, MIN(tm.tm_sec, 59));
	r->cmos[MINUTES] = encode(r, tm.tm_min);
	if (r->cmos[REG_B] & B_24_HOURS)
		r->cmos[HOURS] = encode(r, tm.tm_hour);
	else
		r->cmos[HOURS] = encode(r, tm.tm_hour % 12 ? tm.tm_hour % 12 : 12) |
				 (tm.tm_hour >= 12 ? HOUR_PM : 0);
	r->cmos[WEEKDAY] = encode(r, tm.tm_wday + 1);
	r->cmos[DAY] = encode(r, tm.tm_mday);
	r->cmos[MONTH] = encode(r, tm.tm_mon + 1);
	r->cmos[YEAR] = encode(r, (1900 + tm.tm_year) % 100);
	r->cmos[CENTURY] = encode(r, (1900 + tm.tm_year) / 100);
}

/* The guest wrote the clock registers: keep what they say as an offset. */
static void set_clock(struct rtc *r)
{
	u8 hours = r->cmos[HOURS];
	struct tm tm = {
		.tm_sec = decode(r, r->cmos[SECONDS]),
		.tm_min = decode(r, r->cmos[MINUTES]),
		.tm_mday = decode(r, r->cmos[DAY]),
		.tm_mon = decode(r, r->cmos[MONTH]) - 1,
		.tm_year = decode(r, r->cmos[CENTURY]) * 100 + decode(r, r->cmos[YEAR]) - 1900,
	};

	if (r->cmos[REG_B] & B_24_HOURS)
		tm.tm_hour = decode(r, hours);
	else
		tm.tm_hour = decode(r, hours & ~HOUR_PM) % 12 + (hours & HOUR_PM ? 12 : 0);
	r->offset = timegm(&tm) - time(NULL);
}

static u64 rtc_read(struct device *dev, u64 offset, unsigned size)
{
	struct rtc *r = to_rtc(dev);

	(void)size;
	if (offset == 0)
		return r->index;
	if (is_clock(r->index))
		tick(r);
	return r->cmos[r->index];
}

static void rtc_write(struct device *dev, u64 offset, unsigned size, u64 value)
{
	struct rtc *r = to_rtc(dev);

	(void)size;
	if (offset == 0) {
		r->index = value & (CMOS_LEN - 1);	/* bit 7 masks NMI; none here */
		return;
	}
	if (r->index == REG_C || r->index == REG_D)
		return;			/* read-only */
	if (r->index == REG_B) {
		tick(r);		/* in the old encoding, before SET holds it */
		if (r->cmos[REG_B] & B_SET && !(value & B_SET))
			set_clock(r);
	} else if (is_clock(r->index)) {
		tick(r);
	}
	r->cmos[r->index] = value;
	if (is_clock(r->index) && !(r->cmos[REG_B] & B_SET))
		set_clock(r);
}

static const struct io_ops rtc_io = { .read = rtc_read, .write = rtc_write };

/* The clock is the host's: only how far the guest's is off is remembered. */
static void rtc_state(struct device *dev, struct state *st)
{
	struct rtc *r = to_rtc(dev);
	u64 offset = r->offset;

	state_u8(st, "index", &r->index);
	state_bytes(st, "cmos", r->cmos, sizeof(r->cmos));
	state_u64(st, "offset", &offset);
	r->offset = offset;
	if (r->index >= CMOS_LEN)
		state_fail(st, "index %u", r->index);
	r->index %= CMOS_LEN;
	if (r->offset > OFFSET_MOST || r->offset < -OFFSET_MOST) {
		state_fail(st, "offset %lld", (long long)r->offset);
		r->offset = 0;
	}
}

static void rtc_destroy(struct device *dev)
{
	struct rtc *r = to_rtc(dev);

	bus_unmap(r->platform->pio, &r->range);
	device_fini(dev);
	free(r);
}

static const struct device_ops rtc_ops = {
	.kind = "rtc", .state = rtc_state, .destroy = rtc_destroy,
};

int rtc_new(struct platform *p, struct device **out, struct err *err)
{
	struct rtc *r = calloc(1, sizeof(*r));
	int rc;

	if (!r)
		return err_set(err, -ENOMEM, "rtc: out of memory");
	device_init(&r->dev, &rtc_ops, "rtc");
	r->platform = p;
	r->range = (struct io_range){ .ops = &rtc_io, .dev = &r->dev, .len = 2, .name = "rtc" };
	r->cmos[REG_A] = A_32768_HZ_1024;
	r->cmos[REG_B] = B_24_HOURS;
	r->cmos[REG_D] = D_VALID;
	rc = bus_map(p->pio, &r->range, PORT_RTC, err);
	if (rc) {
		rtc_destroy(&r->dev);
		return rc;
	}
	*out = &r->dev;
	return 0;
}
