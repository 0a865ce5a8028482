/* fuzz.h: what the fuzzers share: an input read as a script, and promises that hold for all of them. */
#pragma once
#include "vmm/core/base.h"

/* What libFuzzer made up, taken from the front; where it ends, all is zero. */
struct fuzz {
	const u8 *data;
	size_t left;
};

/* The target: called once for each input, in a process that lives for many. */
void fuzz_one(struct fuzz *);

u8  fuzz_u8(struct fuzz *);
u16 fuzz_u16(struct fuzz *);
u32 fuzz_u32(struct fuzz *);
u64 fuzz_u64(struct fuzz *);
u32 fuzz_below(struct fuzz *, u32 n);			/* less than n, of n <= 65536 */
/* 1, 2, 4 or 8. */
unsigned fuzz_size(struct fuzz *);
void fuzz_bytes(struct fuzz *, void *to, size_t len);
/* A string of at most len bytes, up to a zero byte or the input's end. */
void fuzz_text(struct fuzz *, char *to, size_t len);

/* A promise was broken: libFuzzer keeps the input. */
_Noreturn void fuzz_fail(const char *file, int line, const char *fmt, ...) printf_like(3, 4);
#define fuzz_check(cond, ...) ((cond) ? (void)0 : fuzz_fail(__FILE__, __LINE__, __VA_ARGS__))

/* A new file in memory with these bytes, and the name under which to open it. */
struct fuzz_file {
	int fd;
	char path[32];
};
struct fuzz_file fuzz_file(const void *data, size_t len);
/* A name in a directory of this process's own, which is removed at its end. */
const char *fuzz_temp(const char *name);
