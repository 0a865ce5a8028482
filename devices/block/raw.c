/* raw.c: the image that is the disk, byte by byte. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
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

/* A device has the size that it has. */
static int raw_resize(struct image *i, u64 size, struct err *err)
{
	struct stat st;
	u64 now = 0;
	int rc = fstat(i->fd, &st) ? -errno : 0;

	if (!rc && S_ISBLK(st.st_mode))
		rc = file_size(i->fd, &now) || size > now ? -ENOSPC : 0;
	else if (!rc)
		rc = file_truncate(i->fd, size);
	return rc ? err_set(err, rc, "%s", strerror(-rc)) : 0;
}

const struct image_ops raw_image = {
	.format = "raw", .open = raw_open, .map = raw_map, .resize = raw_resize,
};
