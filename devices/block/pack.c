/* pack.c: compressed clusters, by zlib (raw deflate, as qcow2 has it) and zstd. */
#include "devices/block/pack.h"
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <zlib.h>
#include <zstd.h>
#include "vmm/core/log.h"

enum { WINDOW_BITS = 12 };

/* Loaded, not linked: few VMs have a compressed image, and every start would pay. */
static struct {
	__typeof__(&inflateInit2_) inflate_init;
	__typeof__(&inflate) inflate;
	__typeof__(&inflateEnd) inflate_end;
	__typeof__(&deflateInit2_) deflate_init;
	__typeof__(&deflate) deflate;
	__typeof__(&deflateEnd) deflate_end;
} z;

static struct {
	__typeof__(&ZSTD_createDCtx) new_reader;
	__typeof__(&ZSTD_decompressStream) read;
	__typeof__(&ZSTD_freeDCtx) free_reader;
	__typeof__(&ZSTD_compress) compress;
	__typeof__(&ZSTD_isError) is_error;
} zs;

static bool have_zlib, have_zstd;

static void load_zlib(void)
{
	void *lib = dlopen("libz.so.1", RTLD_NOW | RTLD_LOCAL);

	if (!lib)
		return;
	z.inflate_init = (__typeof__(z.inflate_init))dlsym(lib, "inflateInit2_");
	z.inflate = (__typeof__(z.inflate))dlsym(lib, "inflate");
	z.inflate_end = (__typeof__(z.inflate_end))dlsym(lib, "inflateEnd");
	z.deflate_init = (__typeof__(z.deflate_init))dlsym(lib, "deflateInit2_");
	z.deflate = (__typeof__(z.deflate))dlsym(lib, "deflate");
	z.deflate_end = (__typeof__(z.deflate_end))dlsym(lib, "deflateEnd");
	have_zlib = z.inflate_init && z.inflate && z.inflate_end && z.deflate_init && z.deflate &&
		    z.deflate_end;
}

static void load_zstd(void)
{
	void *lib = dlopen("libzstd.so.1", RTLD_NOW | RTLD_LOCAL);

	if (!lib)
		return;
	zs.new_reader = (__typeof__(zs.new_reader))dlsym(lib, "ZSTD_createDCtx");
	zs.read = (__typeof__(zs.read))dlsym(lib, "ZSTD_decompressStream");
	zs.free_reader = (__typeof__(zs.free_reader))dlsym(lib, "ZSTD_freeDCtx");
	zs.compress = (__typeof__(zs.compress))dlsym(lib, "ZSTD_compress");
	zs.is_error = (__typeof__(zs.is_error))dlsym(lib, "ZSTD_isError");
	have_zstd = zs.new_reader && zs.read && zs.free_reader && zs.compress && zs.is_error;
}

void pack_load(bool zstd)
{
	static pthread_once_t once_zlib = PTHREAD_ONCE_INIT, once_zstd = PTHREAD_ONCE_INIT;

	if (zstd)
		pthread_once(&once_zstd, load_zstd);
	else
		pthread_once(&once_zlib, load_zlib);
}

static void complain(bool zstd)
{
	static bool told[2];

	if (!__atomic_exchange_n(&told[zstd], true, __ATOMIC_RELAXED))
		log_err("compressed clusters need the library %s: install %s", zstd ? "libzstd.so.1" :
			"libz.so.1", zstd ? "libzstd1" : "zlib1g");
}

static bool ready(bool zstd)
{
	bool have;

	pack_load(zstd);
	have = zstd ? have_zstd : have_zlib;
	if (!have)
		complain(zstd);
	return have;
}

static int inflate_all(const void *from, size_t from_len, void *to, size_t to_len)
{
	z_stream s = { .next_in = (Bytef *)(uintptr_t)from, .avail_in = from_len,
		       .next_out = to, .avail_out = to_len };
	int rc;

	if (z.inflate_init(&s, -WINDOW_BITS, ZLIB_VERSION, sizeof(s)) != Z_OK)
		return -ENOMEM;
	rc = z.inflate(&s, Z_FINISH);
	z.inflate_end(&s);
	/* Sectors at the end are padding: what matters is that the cluster is full. */
	return (rc == Z_STREAM_END || rc == Z_BUF_ERROR) && !s.avail_out ? 0 : -EIO;
}

static int zstd_all(const void *from, size_t from_len, void *to, size_t to_len)
{
	ZSTD_inBuffer in = { from, from_len, 0 };
	ZSTD_outBuffer out = { to, to_len, 0 };
	ZSTD_DCtx *reader = zs.new_reader();
	size_t rc = 0;

	if (!reader)
		return -ENOMEM;
	while (out.pos < out.size) {
		size_t before = in.pos + out.pos;

		rc = zs.read(reader, &out, &in);
		if (zs.is_error(rc) || in.pos + out.pos == before)
			break;
	}
	zs.free_reader(reader);
	return out.pos == out.size ? 0 : -EIO;
}

int unpack(bool zstd, const void *from, size_t from_len, void *to, size_t to_len)
{
	if (!ready(zstd))
		return -ENOTSUP;
	return zstd ? zstd_all(from, from_len, to, to_len) : inflate_all(from, from_len, to, to_len);
}

size_t pack(bool zstd, const void *from, size_t from_len, void *to, size_t to_len)
{
	z_stream s = { .next_in = (Bytef *)(uintptr_t)from, .avail_in = from_len,
		       .next_out = to, .avail_out = to_len };
	size_t n;
	int rc;

	if (!ready(zstd))
		return 0;
	if (zstd) {
		n = zs.compress(to, to_len, from, from_len, 3);
		return zs.is_error(n) ? 0 : n;
	}
	if (z.deflate_init(&s, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -WINDOW_BITS, 9,
			   Z_DEFAULT_STRATEGY, ZLIB_VERSION, sizeof(s)) != Z_OK)
		return 0;
	rc = z.deflate(&s, Z_FINISH);
	z.deflate_end(&s);
	return rc == Z_STREAM_END ? to_len - s.avail_out : 0;
}
