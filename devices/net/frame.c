/* frame.c: a virtio_net_hdr taken off and put on (virtio 1.2, 5.1.6). */
#include "devices/net/frame.h"
#include <endian.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <string.h>

/* 8 bytes at a time. */
u16 frame_add(u16 before, const void *data, size_t len)
{
	const u8 *p = data;
	u64 sum = before, word;

	for (; len >= sizeof(word); p += sizeof(word), len -= sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		sum += word;
		sum += sum < word;
	}
	word = 0;
	memcpy(&word, p, len);
	sum += word;
	sum += sum < word;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

int frame_sum(const struct virtio_net_hdr_v1 *hdr, u8 *frame, size_t len)
{
	size_t start = le16toh(hdr->csum_start), at = start + le16toh(hdr->csum_offset);
	u16 sum;

	if (!(hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
		return 0;
	if (start > len || at + sizeof(sum) > len)
		return -EPROTO;
	/* UDP has 0 for "none"; for all others the two zeroes are the same. */
	sum = (u16)~frame_add(0, frame + start, len - start) ?: 0xffff;
	memcpy(frame + at, &sum, sizeof(sum));
	return 0;
}

ssize_t frame_copy(const struct iovec *iov, int nr, u8 buf[NET_FRAME_MAX],
		   struct virtio_net_hdr_v1 *hdr)
{
	size_t len = 0;

	for (int i = 0; i < nr; i++) {
		if (iov[i].iov_len > NET_FRAME_MAX - len)
			return -EPROTO;
		memcpy(buf + len, iov[i].iov_base, iov[i].iov_len);
		len += iov[i].iov_len;
	}
	if (len < NET_HDR_LEN + FRAME_MIN)
		return -EPROTO;
	memcpy(hdr, buf, sizeof(*hdr));
	return len - NET_HDR_LEN;
}

ssize_t frame_take(const struct iovec *iov, int nr, u8 buf[NET_FRAME_MAX])
{
	struct virtio_net_hdr_v1 hdr;
	ssize_t len = frame_copy(iov, nr, buf, &hdr);

	if (len < 0)
		return len;
	if (hdr.gso_type != VIRTIO_NET_HDR_GSO_NONE)
		return -EPROTO;
	return frame_sum(&hdr, buf + NET_HDR_LEN, len) ?: len;
}

/* Write at an offset of what iov describes; returns the bytes that had room. */
static size_t put(const struct iovec *iov, int nr, size_t offset, const void *from, size_t len)
{
	size_t done = 0;

	for (int i = 0; i < nr && done < len; i++) {
		size_t skip = MIN(offset, iov[i].iov_len);
		size_t n = MIN(iov[i].iov_len - skip, len - done);

		memcpy((u8 *)iov[i].iov_base + skip, (const u8 *)from + done, n);
		offset -= skip;
		done += n;
	}
	return done;
}

ssize_t frame_give(const struct iovec *iov, int nr, u8 flags, const void *frame, size_t len)
{
	struct virtio_net_hdr_v1 hdr = { .flags = flags };

	return put(iov, nr, 0, &hdr, sizeof(hdr)) + put(iov, nr, sizeof(hdr), frame, len);
}
