/* image_head.c: what a file's first bytes would have it taken for; in a raw file they are the guest's. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "devices/block/blk.h"
#include "devices/block/chain.h"
#include "devices/block/file.h"
#include "devices/block/qcow2.h"

/* The specification's limit for a backing file's name. */
enum { NAME_LEN = 1023 };

bool image_head_is_qcow2(const void *head)
{
	return !memcmp(head, QCOW2_MAGIC, IMAGE_HEAD);
}

int image_begins_as_qcow2(struct image *i, bool *yes)
{
	u8 sector[BLK_SECTOR];
	int rc = i->size < sizeof(sector) ? 0 : image_read(i, 0, sector, sizeof(sector));

	*yes = !rc && i->size >= sizeof(sector) && image_head_is_qcow2(sector);
	return rc;
}

/* The backing file that a qcow2 header would record; false: this is none that has one. */
static bool read_backing(const struct image *i, char name[NAME_LEN + 1])
{
	struct qcow2_header h;
	u32 len;

	if (file_read(i->fd, 0, &h, sizeof(h)) || !image_head_is_qcow2(&h))
		return false;
	len = be32toh(h.backing_len);
	if (!len || len > NAME_LEN || file_read(i->fd, be64toh(h.backing_offset), name, len))
		return false;
	name[len] = 0;
	return strlen(name) == len;
}

int image_refuse_delta(const struct image *i, struct err *err)
{
	char backing[NAME_LEN + 1], snapshot[CHAIN_NAME_MAX + 1];
	char *path = read_backing(i, backing) ? chain_resolve(i->path) : NULL;
	int rc = 0;

	if (path && chain_backing_snapshot(path, backing, snapshot))
		rc = err_set(err, -EINVAL, "not raw: it is a delta, in qcow2, of its snapshot %s, %s; give "
			     "format=qcow2 or none (to the API: a name that ends in .qcow2)", snapshot,
			     backing);
	free(path);
	return rc;
}
