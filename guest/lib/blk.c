/*
 * blk.c: virtio-blk requests, as the block tests issue them.
 *
 * Spec: virtio 1.2, 5.2.6.
 */
#include "guest/lib/blk.h"

enum { MAX_PARTS = 12 };

bool blk_start(struct virtio *v, struct virtq *q, unsigned n, u64 features)
{
	if (!virtio_find(v, VIRTIO_BLK, n) || !virtio_negotiate(v, features))
		return false;
	virtio_enable_interrupts(v);
	if (!virtq_init(q, v, 0, VIRTQ_SIZE))
		return false;
	virtio_add_status(v, STATUS_DRIVER_OK);
	return true;
}

u8 blk_do(struct virtq *q, u32 type, u64 sector, void *data, u32 data_len, unsigned parts, u32 *len)
{
	static struct virtq_desc table[MAX_PARTS + 2] __attribute__((aligned(16)));
	static struct { u32 type, reserved; u64 sector; } head;
	static volatile u8 status;
	struct virtq_buf b[MAX_PARTS + 2];
	bool to_guest = type == BLK_IN || type == BLK_GET_ID, indirect;
	unsigned i, nr = 0;
	u32 used;

	if (parts > MAX_PARTS)
		return BLK_LOST;
	head.type = type;
	head.sector = sector;
	status = BLK_LOST;
	b[nr++] = (struct virtq_buf) { &head, sizeof(head), false };
	for (i = 0; data_len && i < parts; i++)
		b[nr++] = (struct virtq_buf) {
			(u8 *)data + data_len / parts * i, data_len / parts, to_guest
		};
	b[nr++] = (struct virtq_buf) { (u8 *)(u64)&status, 1, true };
	indirect = q->v->features & FEATURE(F_INDIRECT);
	if (!virtq_do(q, b, nr, indirect ? table : NULL, &used))
		return BLK_LOST;
	if (len)
		*len = used;
	return status;
}
