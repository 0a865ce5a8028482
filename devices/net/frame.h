/* frame.h: Ethernet frames for far ends that know nothing of struct virtio_net_hdr_v1. */
#pragma once
#include <sys/types.h>
#include <sys/uio.h>
#include "vmm/core/base.h"
#include "devices/net/net.h"

/* Such a far end can still have this: frame_take puts the checksum in. */
#define FRAME_OFFLOAD	(1ULL << VIRTIO_NET_F_CSUM)

struct virtio_net_hdr_v1;

enum { FRAME_MIN = 14, FRAME_MAX = NET_FRAME_MAX - NET_HDR_LEN };

/* What an Internet checksum (RFC 1071) is the complement of, as it lies in a frame: goes on from
 * before, of which no part but the last may have an odd length; 0 at first. */
u16 frame_add(u16 before, const void *, size_t len);
/* Put in the checksum that the header leaves to others, if any.  -EPROTO: it is outside. */
int frame_sum(const struct virtio_net_hdr_v1 *, u8 *frame, size_t len) must_check;

/*
 * What net_ops.send got, in one piece, as the guest left it: the frame begins at
 * buf + NET_HDR_LEN.  Its length, or -EPROTO.
 */
ssize_t frame_copy(const struct iovec *, int nr, u8 buf[NET_FRAME_MAX],
		   struct virtio_net_hdr_v1 *) must_check;

/*
 * What net_ops.send got, in one piece: the frame begins at buf + NET_HDR_LEN, its
 * checksum is whole.  Returns its length, or -EPROTO: the guest wrote nonsense.
 */
ssize_t frame_take(const struct iovec *, int nr, u8 buf[NET_FRAME_MAX]) must_check;

/*
 * For net_ops.recv: a header with flags (VIRTIO_NET_HDR_F_*), then the frame, as far as
 * there is room.  Returns the bytes written.
 */
ssize_t frame_give(const struct iovec *, int nr, u8 flags, const void *frame, size_t len);
