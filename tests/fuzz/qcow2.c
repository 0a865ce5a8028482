/*
 * qcow2.c: a hostile qcow2 file is opened, looked at, read, written, checked and
 * repaired; whatever is in it, this ends soon, touches no memory that is not
 * its own, and uses little.
 */
#include <unistd.h>
#include "devices/block/image.h"
#include "tests/fuzz/lib/fuzz.h"

enum { PIECE = 16 * 1024, FILE_MAX = 1024 * 1024 };

static u8 buf[PIECE];

static void read_around(struct image *i)
{
	u64 step = i->size / 16 & ~511ULL;
	struct image_where w;

	for (u64 at = 0; at < i->size; at += step ? step : i->size) {
		size_t len = i->size - at < PIECE ? i->size - at : PIECE;

		if (image_read(i, at, buf, len) || image_where(i, at, len, &w))
			break;
	}
}

static void write_around(struct image *i)
{
	struct err err;

	for (u64 at = 0; at + 512 <= i->size && at < 8 * PIECE; at += 3 * 512 * 7)
		if (image_write(i, at, buf, 512))
			break;
	(void)!image_zero(i, 0, i->size < PIECE ? i->size : PIECE, true);
	if (!image_flush(i))
		image_reclaim(i);
	(void)!image_resize(i, i->size + 512, &err);
	(void)!image_flush(i);
}

static void look(const char *path, bool repair)
{
	struct image_options o = { .format = "qcow2", .read_only = !repair, .no_backing = true,
				   .repairing = repair };
	struct image_check c = { 0 };
	struct image_snapshot *s;
	struct image *i;
	struct err err;
	unsigned nr;

	if (image_open(&i, path, &o, &err))
		return;
	read_around(i);
	if (!image_snapshots(i, &s, &nr, &err))
		image_snapshots_free(s, nr);
	if (!image_check(i, repair, &c, &err) && repair)
		write_around(i);
	image_close(i);
}

void fuzz_one(struct fuzz *f)
{
	struct fuzz_file file;

	if (f->left > FILE_MAX)
		return;
	file = fuzz_file(f->data, f->left);
	look(file.path, false);
	look(file.path, true);
	close(file.fd);
}
