/*
 * image.c: an image of any shape, alone or over another, is written, zeroed, discarded,
 * resized, flushed, closed and opened as the input says.  It reads as a plain array does,
 * its tables stay sound, and nothing is leaked once all was flushed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "devices/block/blk.h"
#include "devices/block/image.h"
#include "tests/fuzz/lib/fuzz.h"

enum { MOST = 128 * 1024, SECTOR = BLK_SECTOR };

static const char *top, *below;
static struct image *disk;
static u8 model[MOST], buf[MOST];

static void check_ok(int rc, const char *what)
{
	fuzz_check(!rc, "%s: %s", what, strerror(-rc));
}

static void open_disk(void)
{
	struct image_options o = { .format = "qcow2" };
	struct err err;

	fuzz_check(!image_open(&disk, top, &o, &err), "%s", err.msg);
}

static void create(const char *path, const struct image_create *c)
{
	struct err err;

	unlink(path);
	fuzz_check(!image_create(path, c, &err), "%s", err.msg);
}

/* Full, so that what shows through says where it came from. */
static void make_below(u8 how)
{
	struct image_create c = { .format = how & 1 ? "raw" : "qcow2", .cluster = 512 << (how & 2),
				  .size = (1 + (how >> 2)) * 2 * SECTOR };
	struct image_options o = { .format = c.format };
	struct image *i;
	struct err err;

	create(below, &c);
	fuzz_check(!image_open(&i, below, &o, &err), "%s", err.msg);
	for (u64 at = 0; at < c.size; at += SECTOR)
		memset(model + at, 0x80 | at / SECTOR, SECTOR);
	check_ok(image_write(i, 0, model, c.size), "write");
	check_ok(image_flush(i), "flush");
	image_close(i);
}

static void make_disk(struct fuzz *f)
{
	static const u16 cluster[] = { 512, 1024, 4096, 16384 };
	u8 a = fuzz_u8(f), size = fuzz_u8(f), how = fuzz_u8(f);
	struct image_create c = { .format = "qcow2", .cluster = cluster[a & 3],
				  .version = 2 + (a >> 2 & 1), .size = (1ULL + size) * SECTOR };

	if (!top) {
		top = fuzz_temp("top");
		below = fuzz_temp("below");
	}
	memset(model, 0, sizeof(model));
	if (c.version == 3) {
		c.refcount_bits = 1U << (a >> 3 & 7) % 7;
		c.lazy_refcounts = a & 0x80;
	}
	if (a & 0x40) {
		make_below(how);
		c.backing = strrchr(below, '/') + 1;
		c.backing_format = how & 1 ? "raw" : "qcow2";
		memset(model + c.size, 0, MOST - c.size);
	}
	create(top, &c);
	open_disk();
}

static void settle(void)
{
	for (int n = 0; n < 2; n++) {
		check_ok(image_flush(disk), "flush");
		image_reclaim(disk);
	}
	check_ok(image_flush(disk), "flush");
}

static void check_tables(bool repair, bool no_leaks)
{
	struct image_check c = { 0 };
	struct err err;

	fuzz_check(!image_check(disk, repair, &c, &err), "%s", err.msg);
	fuzz_check(!c.corruptions && !(no_leaks && c.leaks), "%llu corruptions, %llu leaks",
		   (unsigned long long)c.corruptions, (unsigned long long)c.leaks);
}

/* One that is not settled may leak, but nothing worse. */
static void reopen(bool settled)
{
	if (settled)
		settle();
	else
		check_ok(image_flush(disk), "flush");
	image_close(disk);
	open_disk();
	check_tables(false, settled);
	if (!settled)
		check_tables(true, true);
}

struct range { u64 at, len; };

static struct range pick(struct fuzz *f)
{
	u64 sectors = disk->size / SECTOR, at = fuzz_u8(f) % sectors;
	u8 len = fuzz_u8(f);

	return (struct range){ at * SECTOR, (1 + len % MIN(sectors - at, len & 0x80 ? 256 : 8)) *
			       SECTOR };
}

static void check_range(struct range r)
{
	check_ok(image_read(disk, r.at, buf, r.len), "read");
	for (u64 i = 0; i < r.len; i++)
		fuzz_check(buf[i] == model[r.at + i], "byte %#llx is %#x, not %#x",
			   (unsigned long long)(r.at + i), buf[i], model[r.at + i]);
}

static void write_range(struct range r, u8 byte, bool packed)
{
	u64 cluster = disk->cluster, end = r.at + r.len;

	if (packed) {
		r.at = ALIGN_DOWN(r.at, cluster);
		end = MIN(ALIGN_UP(end, cluster), disk->size);
		r.len = end - r.at;
	}
	for (u64 i = r.at; i < end; i++)
		model[i] = byte + i / SECTOR * 7 + (byte & 1 ? i * i >> 3 : 0);
	check_ok((packed ? image_write_packed : image_write)(disk, r.at, model + r.at, r.len),
		 "write");
}

/* Advice: each sector is what it was, or zeroes; but then stays so. */
static void discard(struct range r)
{
	static const u8 zeroes[SECTOR];

	check_ok(image_discard(disk, r.at, r.len), "discard");
	check_ok(image_read(disk, r.at, buf, r.len), "read");
	for (u64 i = 0; i < r.len; i += SECTOR) {
		fuzz_check(!memcmp(buf + i, model + r.at + i, SECTOR) ||
			   !memcmp(buf + i, zeroes, SECTOR),
			   "the sector at %#llx became something else",
			   (unsigned long long)(r.at + i));
		memcpy(model + r.at + i, buf + i, SECTOR);
	}
}

/* What is cut off is gone, and what is added is zeroes, whatever is below. */
static void resize(u64 size)
{
	struct err err;

	if (size < disk->size)
		memset(model + size, 0, disk->size - size);
	fuzz_check(!image_resize(disk, size, &err) && disk->size == size, "%s", err.msg);
}

static void check_where(struct range r)
{
	struct image_where w;

	for (u64 at = r.at; at < r.at + r.len; at += w.extent.len) {
		check_ok(image_where(disk, at, r.at + r.len - at, &w), "where");
		fuzz_check(w.extent.start == at && w.extent.len &&
			   w.extent.len <= r.at + r.len - at, "%#llx is %#llx+%#llx",
			   (unsigned long long)at, (unsigned long long)w.extent.start,
			   (unsigned long long)w.extent.len);
		for (u64 i = 0; i < w.extent.len && w.depth < 0; i++)
			fuzz_check(!model[at + i], "where says %#llx is zero",
				   (unsigned long long)(at + i));
	}
}

void fuzz_one(struct fuzz *f)
{
	make_disk(f);
	while (f->left) {
		u8 step = fuzz_u8(f);

		switch (step % 16) {
		case 0: case 1: case 2: case 3: case 4:
			write_range(pick(f), step, false);
			break;
		case 5:
			write_range(pick(f), step, true);
			break;
		case 6: case 7: {
			struct range r = pick(f);

			check_ok(image_zero(disk, r.at, r.len, step & 0x80), "zero");
			memset(model + r.at, 0, r.len);
			break;
		}
		case 8: case 9:
			discard(pick(f));
			break;
		case 10:
			check_ok(image_flush(disk), "flush");
			if (step & 0x80)
				image_reclaim(disk);
			break;
		case 11:
			resize((1 + fuzz_u8(f)) * SECTOR);
			break;
		case 12:
			reopen(step & 0x80);
			break;
		case 13:
			check_where(pick(f));
			break;
		default:
			check_range(pick(f));
		}
	}
	check_range((struct range){ 0, disk->size });
	reopen(true);
	check_range((struct range){ 0, disk->size });
	image_close(disk);
}
