/*
 * virtio-blk.c: promise: a disk does what virtio-blk asks of it, and refuses what it must:
 * sectors=N says how large it is, id=TEXT what serial it has, readonly that it is. After a good run
 * on a writable disk sector 5 says "written by a guest".
 *
 * Spec: virtio 1.2, 5.2.
 */
#include "guest/lib/apic.h"
#include "guest/lib/blk.h"
#include "guest/lib/start.h"
#include "guest/lib/string.h"

enum { BIG = 64 << 10, FIRST = 64 };

static struct virtio v;
static struct virtq q;
static u64 capacity;
static u8 out[BIG] NOINIT __attribute__((aligned(4096)));
static u8 in[BIG] NOINIT __attribute__((aligned(4096)));

static u8 do_data(u32 type, u64 sector, void *data, u32 len)
{
	return blk_do(&q, type, sector, data, len, 1, NULL);
}

static bool filled(const void *p, u64 word, u32 len)
{
	const u64 *at = p;

	for (len /= 8; len--; at++)
		if (*at != word)
			return false;
	return true;
}

static bool all_same(const void *a, const void *b, u32 len)
{
	const u64 *x = a, *y = b;

	for (len /= 8; len--; x++, y++)
		if (*x != *y)
			return false;
	return true;
}

static void test_config(u64 offered)
{
	capacity = virtio_config(&v, BLK_CAPACITY, 8);
	check(capacity == arg_u64("sectors", capacity), "capacity is %lld sectors", capacity);
	check(offered & FEATURE(BLK_F_FLUSH), "offers FLUSH");
	check(offered & FEATURE(F_EVENT_IDX) && offered & FEATURE(F_INDIRECT),
	      "offers EVENT_IDX and INDIRECT_DESC");
	check(!(offered & FEATURE(BLK_F_RO)) == !arg_find("readonly"),
	      "RO is offered just for a read-only disk");
	if (offered & FEATURE(BLK_F_SEG_MAX))
		check(virtio_config(&v, BLK_CONFIG_SEG_MAX, 4) > 0, "seg_max is %lld",
		      virtio_config(&v, BLK_CONFIG_SEG_MAX, 4));
	if (offered & FEATURE(BLK_F_BLK_SIZE))
		check(virtio_config(&v, BLK_CONFIG_BLK_SIZE, 4) >= SECTOR, "blk_size is %lld",
		      virtio_config(&v, BLK_CONFIG_BLK_SIZE, 4));
	check(virtio_config(&v, BLK_CAPACITY, 4) == (u32)capacity &&
	      virtio_config(&v, BLK_CAPACITY, 2) == (u16)capacity &&
	      virtio_config(&v, BLK_CAPACITY, 1) == (u8)capacity,
	      "configuration reads by 1, 2 and 4 bytes");
}

static void test_read(void)
{
	u32 before = virtio_irqs(), len = 0;

	memset(in, 0xee, SECTOR);
	check(blk_do(&q, BLK_IN, 0, in, SECTOR, 1, &len) == BLK_OK, "reads sector 0");
	check(len == SECTOR + 1, "used length is data and status: %d", len);
	check(!filled(in, 0xeeeeeeeeeeeeeeeeull, SECTOR), "which brings data");
	check(poll_until(virtio_irqs() > before), "and an interrupt");
	check(do_data(BLK_IN, capacity - 1, in, SECTOR) == BLK_OK, "reads the last sector");
}

static void test_id(void)
{
	const char *id = arg_find("id");
	u32 n = 0;

	memset(in, 0xee, 64);
	check(do_data(BLK_GET_ID, 0, in, BLK_ID_LEN) == BLK_OK && in[BLK_ID_LEN] == 0xee,
	      "tells its id");
	while (id && id[n] && id[n] != ' ')
		n++;
	if (id)
		check(!memcmp(in, id, n) && (n == BLK_ID_LEN || !in[n]), "as given");
}

static void test_limits(void)
{
	check(do_data(BLK_IN, capacity, in, SECTOR) == BLK_IOERR, "behind the end: IOERR");
	check(do_data(BLK_IN, capacity - 1, in, SECTOR * 2) == BLK_IOERR, "across the end: IOERR");
	check(do_data(BLK_IN, ~0ull, in, SECTOR * 2) == BLK_IOERR, "sector 2^64 - 1: IOERR");
	check(do_data(BLK_IN, 1ull << 55, in, SECTOR) == BLK_IOERR, "byte 2^64: IOERR");
	check(do_data(BLK_OUT, capacity, out, SECTOR) == BLK_IOERR, "writes, too: IOERR");
	check(do_data(99, 0, in, SECTOR) == BLK_UNSUPP, "an unknown request: UNSUPP");
	check(do_data(BLK_IN, 0, in, 100) == BLK_IOERR, "100 bytes are no sectors: IOERR");
	check(do_data(BLK_IN, 0, in, SECTOR) == BLK_OK, "and still it reads");
}

static void pattern(u64 seed)
{
	u64 *p = (u64 *)out;
	u32 i;

	for (i = 0; i < BIG / 8; i++)
		p[i] = seed += 0x9e3779b97f4a7c15ull;
}

static void test_write(void)
{
	static char text[SECTOR] = "written by a guest\n";

	pattern(1);
	check(do_data(BLK_OUT, FIRST, out, BIG) == BLK_OK, "writes 64 KiB");
	memset(in, 0, BIG);
	check(blk_do(&q, BLK_IN, FIRST, in, BIG, 8, NULL) == BLK_OK && all_same(in, out, BIG),
	      "reads it back in 8 parts");
	pattern(2);
	check(blk_do(&q, BLK_OUT, FIRST + 1, out, SECTOR * 9, 9, NULL) == BLK_OK,
	      "writes 9 sectors in 9 parts");
	memset(in, 0, SECTOR * 9);
	check(do_data(BLK_IN, FIRST + 1, in, SECTOR * 9) == BLK_OK &&
	      all_same(in, out, SECTOR * 9), "reads them back in one");
	/* Odd buffers: three that only together are a sector, at an odd address. */
	check(blk_do(&q, BLK_OUT, FIRST + 32, out + 3, SECTOR * 3, 4, NULL) == BLK_OK &&
	      blk_do(&q, BLK_IN, FIRST + 32, in + 5, SECTOR * 3, 6, NULL) == BLK_OK &&
	      all_same(in + 5, out + 3, SECTOR * 3), "buffers that are no sectors, unaligned");
	check(do_data(BLK_OUT, 5, text, SECTOR) == BLK_OK, "writes sector 5");
	check(do_data(BLK_FLUSH, 0, NULL, 0) == BLK_OK, "flushes");
}

static void test_ranges(u64 offered)
{
	struct blk_range r = { FIRST, 8, 0 };

	if (offered & FEATURE(BLK_F_WRITE_ZEROES)) {
		check(virtio_config(&v, BLK_MAX_WRITE_ZEROES, 4) >= 8, "max_write_zeroes_sectors");
		pattern(3);
		do_data(BLK_OUT, FIRST, out, SECTOR * 16);
		check(do_data(BLK_WRITE_ZEROES, 0, &r, sizeof(r)) == BLK_OK, "writes zeroes");
		check(do_data(BLK_IN, FIRST, in, SECTOR * 16) == BLK_OK &&
		      filled(in, 0, SECTOR * 8) &&
		      all_same(in + SECTOR * 8, out + SECTOR * 8, SECTOR * 8),
		      "zeroes are there, and only there");
		r.flags = 1;
		check(do_data(BLK_WRITE_ZEROES, 0, &r, sizeof(r)) == BLK_OK, "with unmap");
		r = (struct blk_range) { FIRST + 9, 1, 0 };
		check(do_data(BLK_WRITE_ZEROES, 0, &r, sizeof(r)) == BLK_OK &&
		      do_data(BLK_IN, FIRST + 8, in, SECTOR * 3) == BLK_OK &&
		      filled(in + SECTOR, 0, SECTOR) && all_same(in, out + SECTOR * 8, SECTOR) &&
		      all_same(in + SECTOR * 2, out + SECTOR * 10, SECTOR), "one sector amid others");
		r.flags = 2;
		check(do_data(BLK_WRITE_ZEROES, 0, &r, sizeof(r)) == BLK_UNSUPP,
		      "an unknown flag: UNSUPP");
		r = (struct blk_range) { capacity - 1, 2, 0 };
		check(do_data(BLK_WRITE_ZEROES, 0, &r, sizeof(r)) == BLK_IOERR,
		      "zeroes across the end: IOERR");
	} else {
		check(do_data(BLK_WRITE_ZEROES, 0, &r, sizeof(r)) == BLK_UNSUPP,
		      "no WRITE_ZEROES: UNSUPP");
	}
	r = (struct blk_range) { FIRST, 8, 0 };
	if (offered & FEATURE(BLK_F_DISCARD)) {
		check(virtio_config(&v, BLK_MAX_DISCARD, 4) >= 8, "max_discard_sectors");
		check(do_data(BLK_DISCARD, 0, &r, sizeof(r)) == BLK_OK, "discards");
		check(do_data(BLK_IN, FIRST, in, SECTOR * 8) == BLK_OK, "and can be read there");
		r = (struct blk_range) { FIRST + 9, 1, 0 };
		check(do_data(BLK_DISCARD, 0, &r, sizeof(r)) == BLK_OK, "one sector, too");
		r.flags = 1;
		check(do_data(BLK_DISCARD, 0, &r, sizeof(r)) == BLK_UNSUPP,
		      "discard knows no flags: UNSUPP");
		r = (struct blk_range) { ~0ull, 2, 0 };
		check(do_data(BLK_DISCARD, 0, &r, sizeof(r)) == BLK_IOERR,
		      "discard far outside: IOERR");
	} else {
		check(do_data(BLK_DISCARD, 0, &r, sizeof(r)) == BLK_UNSUPP,
		      "no DISCARD: UNSUPP");
	}
}

static void test_read_only(void)
{
	struct blk_range r = { FIRST, 8, 0 };
	u8 status;

	memset(out, 0x77, SECTOR);
	check(do_data(BLK_OUT, 0, out, SECTOR) == BLK_IOERR, "a write: IOERR");
	status = do_data(BLK_WRITE_ZEROES, 0, &r, sizeof(r));
	check(status == BLK_IOERR || status == BLK_UNSUPP, "write zeroes: refused");
	status = do_data(BLK_DISCARD, 0, &r, sizeof(r));
	check(status == BLK_IOERR || status == BLK_UNSUPP, "discard: refused");
	check(do_data(BLK_IN, 0, in, SECTOR) == BLK_OK &&
	      !filled(in, 0x7777777777777777ull, SECTOR), "nothing was written");
}

/* All in flight at once; each must come back, in whatever order. */
static void test_many(void)
{
	static struct { u32 type, reserved; u64 sector; } head[4];
	static u8 status[4];
	struct virtq_buf b[3];
	u32 id, len, seen = 0, distinct = 0, i;
	bool held = true;

	for (i = 0; i < 4; i++) {
		head[i].type = BLK_IN;
		head[i].sector = i;
		status[i] = BLK_LOST;
		b[0] = (struct virtq_buf) { &head[i], sizeof(head[i]), false };
		b[1] = (struct virtq_buf) { in + i * SECTOR, SECTOR, true };
		b[2] = (struct virtq_buf) { &status[i], 1, true };
		virtq_add(&q, b, 3, NULL);
	}
	virtq_kick(&q);
	for (i = 0; held && i < 4; i++) {
		held = virtq_wait(&q) && virtq_pop(&q, &id, &len) && len == SECTOR + 1;
		distinct += !(seen >> id & 1);
		seen |= 1u << id;
	}
	check(held && distinct == 4 && !status[0] && !status[1] && !status[2] &&
	      !status[3], "four requests at once");
}

static void run(const char *with, u64 features)
{
	u64 offered;

	say("with %s:\n", with);
	if (!check(blk_start(&v, &q, 0, features), "the disk starts"))
		return;
	offered = virtio_features(&v);
	test_config(offered);
	test_read();
	test_id();
	test_limits();
	test_many();
	if (offered & FEATURE(BLK_F_RO)) {
		test_read_only();
	} else {
		test_write();
		test_ranges(offered);
	}
}

int main(const struct start_info *info, const char *cmdline)
{
	u64 basic = FEATURE(BLK_F_FLUSH) | FEATURE(BLK_F_DISCARD) | FEATURE(BLK_F_WRITE_ZEROES) |
		FEATURE(BLK_F_RO) | FEATURE(BLK_F_SEG_MAX) | FEATURE(BLK_F_BLK_SIZE);

	(void)info;
	(void)cmdline;
	apic_init();
	irq_enable();
	run("direct descriptors", basic);
	run("INDIRECT_DESC and EVENT_IDX", basic | FEATURE(F_INDIRECT) | FEATURE(F_EVENT_IDX));
	check(virtio_reset(&v), "reset at the end");
	return check_result();
}
