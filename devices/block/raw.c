/* raw.c: the image that is the disk, byte by byte. */
#include <string.h>
#include "devices/block/blk.h"
#include "devices/block/file.h"
#include "devices/block/image.h"

static int raw_open(struct image *i, struct err *err)
{
	(void)err;
	/* Odd bytes at the end: a reader sees them, a writer leaves them alone. */
	i->size = i->read_only ? ALIGN_UP(i->size, BLK_SECTOR) : ALIGN_DOWN(i->size, BLK_SECTOR);
	i->cluster = BLK_SECTOR;
	return 0;
}

static int raw_map(struct image *i, u64 start, u64 len, bool nowait, struct extent *e)
{
	(void)nowait;
	*e = (struct extent){ .kind = EXTENT_DATA, .start = start, .len = len,
			      .file_offset = start, .writable = !i->read_only };
	return 0;
}

static int raw_resize(struct image *i, u64 size, struct err *err)
{
	int rc = file_truncate(i->fd, size);

	return rc ? err_set(err, rc, "%s", strerror(-rc)) : 0;
}

const struct image_ops raw_image = {
	.format = "raw", .open = raw_open, .map = raw_map, .resize = raw_resize,
};
