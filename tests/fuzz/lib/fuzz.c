/* fuzz.c: see fuzz.h. */
#include "tests/fuzz/lib/fuzz.h"
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "vmm/core/log.h"

u64 fuzz_u64(struct fuzz *f)
{
	u64 value;

	fuzz_bytes(f, &value, sizeof(value));
	return value;
}

u32 fuzz_u32(struct fuzz *f)
{
	u32 value;

	fuzz_bytes(f, &value, sizeof(value));
	return value;
}

u16 fuzz_u16(struct fuzz *f)
{
	u16 value;

	fuzz_bytes(f, &value, sizeof(value));
	return value;
}

u8 fuzz_u8(struct fuzz *f)
{
	u8 value;

	fuzz_bytes(f, &value, sizeof(value));
	return value;
}

u32 fuzz_below(struct fuzz *f, u32 n)
{
	return (n <= 256 ? fuzz_u8(f) : fuzz_u16(f)) % n;
}

unsigned fuzz_size(struct fuzz *f)
{
	return 1U << fuzz_below(f, 4);
}

void fuzz_bytes(struct fuzz *f, void *to, size_t len)
{
	size_t k = MIN(len, f->left);

	memcpy(to, f->data, k);
	memset((u8 *)to + k, 0, len - k);
	f->data += k;
	f->left -= k;
}

void fuzz_text(struct fuzz *f, char *to, size_t len)
{
	size_t k = strnlen((const char *)f->data, MIN(len, f->left));

	fuzz_bytes(f, to, k);
	to[k] = 0;
	if (k < len && f->left)
		fuzz_u8(f);		/* the zero byte itself */
}

void fuzz_fail(const char *file, int line, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s:%d: ", file, line);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	abort();
}

struct fuzz_file fuzz_file(const void *data, size_t len)
{
	struct fuzz_file file = { .fd = memfd_create("fuzz", MFD_CLOEXEC) };

	if (file.fd < 0 || write(file.fd, data, len) != (ssize_t)len)
		abort();
	snprintf(file.path, sizeof(file.path), "/proc/self/fd/%d", file.fd);
	return file;
}

static char temp_dir[64];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static void remove_temp_dir(void)
{
	nftw(temp_dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

const char *fuzz_temp(const char *name)
{
	static char path[4][96];
	static unsigned n;
	const char *tmp = getenv("TMPDIR");

	if (!*temp_dir) {
		snprintf(temp_dir, sizeof(temp_dir), "%s/vmm-fuzz-XXXXXX", tmp ? tmp : "/tmp");
		if (!mkdtemp(temp_dir) || atexit(remove_temp_dir))
			abort();
	}
	fuzz_check(n < ARRAY_SIZE(path), "too many names");
	snprintf(path[n], sizeof(path[n]), "%s/%s", temp_dir, name);
	return path[n++];
}

/* The linker puts it in front of vmm/core/log.c: what is wrong with each input is
 * made into words, but not worth a line. */
void __wrap_log_write(enum log_level, const char *fmt, ...) printf_like(2, 3);
void __wrap_log_write(enum log_level level, const char *fmt, ...)
{
	char line[640];
	va_list ap;

	(void)level;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
}

/* --- libFuzzer's side ----------------------------------------------------------------- */

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	/* tests/lib asserts by cmocka. */
	setenv("CMOCKA_TEST_ABORT", "1", 1);
	/* A guest that uses little memory is not to have 2 MiB of it cleared. */
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz f = { data, len };

	fuzz_one(&f);
	return 0;
}
