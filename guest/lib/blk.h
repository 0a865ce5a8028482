/*
 * blk.h: virtio-blk requests, as the block tests issue them.
 *
 * Spec: virtio 1.2, 5.2.
 */
#ifndef GUEST_LIB_BLK_H
#define GUEST_LIB_BLK_H

#include "guest/lib/virtq.h"

enum {
	BLK_IN = 0, BLK_OUT = 1, BLK_FLUSH = 4, BLK_GET_ID = 8, BLK_DISCARD = 11,
	BLK_WRITE_ZEROES = 13,

	BLK_OK = 0, BLK_IOERR = 1, BLK_UNSUPP = 2,
	BLK_LOST = 0xfe,		/* the library's: not answered, or not as it must be */

	BLK_F_SEG_MAX = 2, BLK_F_RO = 5, BLK_F_BLK_SIZE = 6, BLK_F_FLUSH = 9, BLK_F_MQ = 12,
	BLK_F_DISCARD = 13, BLK_F_WRITE_ZEROES = 14,

	/* configuration */
	BLK_CAPACITY = 0, BLK_CONFIG_SEG_MAX = 12, BLK_CONFIG_BLK_SIZE = 20,
	BLK_MAX_DISCARD = 36, BLK_MAX_WRITE_ZEROES = 48,

	SECTOR = 512, BLK_ID_LEN = 20,
};

struct blk_range {			/* what discard and write zeroes are about */
	u64 sector;
	u32 sectors, flags;
};

/* The n-th disk, negotiated with all of `features` that it offers, its queue running. */
bool blk_start(struct virtio *, struct virtq *, unsigned n, u64 features);

/* One request, its data in `parts` buffers of equal size; returns the status byte. len: what the
 * device says it has written, if not NULL. */
u8 blk_do(struct virtq *, u32 type, u64 sector, void *data, u32 data_len, unsigned parts, u32 *len);

#endif
