/* pack.c: compressed clusters, by zlib (raw deflate, as qcow2 has it) and zstd. */
#include "devices/block/pack.h"
#include <errno.h>
#include <zlib.h>
#include <zstd.h>

enum { WINDOW_BITS = 12 };

static int inflate_all(const void *from, size_t from_len, void *to, size_t to_len)
{
	z_stream s = { .next_in = (Bytef *)(uintptr_t)from, .avail_in = from_len,
		       .next_out = to, .avail_out = to_len };
	int rc;

	if (inflateInit2(&s, -WINDOW_BITS) != Z_OK)
		return -ENOMEM;
	rc = inflate(&s, Z_FINISH);
	inflateEnd(&s);
	/* Sectors at the end are padding: what matters is that the cluster is full. */
	return (rc == Z_STREAM_END || rc == Z_BUF_ERROR) && !s.avail_out ? 0 : -EIO;
}

static int zstd_all(const void *from, size_t from_len, void *to, size_t to_len)
{
	ZSTD_inBuffer in = { from, from_len, 0 };
	ZSTD_outBuffer out = { to, to_len, 0 };
	ZSTD_DCtx *reader = ZSTD_createDCtx();
	size_t rc = 0;

	if (!reader)
		return -ENOMEM;
	while (out.pos < out.size) {
		size_t before = in.pos + out.pos;

		rc = ZSTD_decompressStream(reader, &out, &in);
		if (ZSTD_isError(rc) || in.pos + out.pos == before)
			break;
	}
	ZSTD_freeDCtx(reader);
	return out.pos == out.size ? 0 : -EIO;
}

int unpack(bool zstd, const void *from, size_t from_len, void *to, size_t to_len)
{
	return zstd ? zstd_all(from, from_len, to, to_len) : inflate_all(from, from_len, to, to_len);
}

size_t pack(bool zstd, const void *from, size_t from_len, void *to, size_t to_len)
{
	z_stream s = { .next_in = (Bytef *)(uintptr_t)from, .avail_in = from_len,
		       .next_out = to, .avail_out = to_len };
	size_t n;
	int rc;

	if (zstd) {
		n = ZSTD_compress(to, to_len, from, from_len, 3);
		return ZSTD_isError(n) ? 0 : n;
	}
	if (deflateInit2(&s, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -WINDOW_BITS, 9, Z_DEFAULT_STRATEGY) != Z_OK)
		return 0;
	rc = deflate(&s, Z_FINISH);
	deflateEnd(&s);
	return rc == Z_STREAM_END ? to_len - s.avail_out : 0;
}
