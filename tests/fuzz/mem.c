/*
 * mem.c: guest memory in two parts, read, written, filled and described around its ends.
 * Each access is inside as a whole and does what it says, or fails and does nothing.
 */
#include <errno.h>
#include <string.h>
#include "tests/fuzz/lib/fuzz.h"
#include "vmm/core/mem.h"

/* The ends are looked at, WINDOW bytes of each; between them all is taken for zero. */
enum { WINDOW = 4096, HIGH_LEN = 0x10000 };

static struct mem *mem;
static u8 model[4][WINDOW];
static const u64 base[4] = { 0, MEM_LOW_END - WINDOW, MEM_HIGH_START,
			     MEM_HIGH_START + HIGH_LEN - WINDOW };

static u64 pick(struct fuzz *f)
{
	u8 b = fuzz_u8(f);
	u64 at = base[b & 3] + (b & 0x80 ? WINDOW - 64 : 0);

	return (b & 0x7c) == 0x7c ? fuzz_u64(f) : at + fuzz_u8(f) - (b & 0x40 ? 128 : 0);
}

static bool inside(u64 at, u64 len)
{
	u64 end;

	if (!len)
		return true;
	return !add_overflows(at, len, &end) &&
	       (end <= MEM_LOW_END || (at >= MEM_HIGH_START && end <= MEM_HIGH_START + HIGH_LEN));
}

/* NULL: not looked at, or none. */
static u8 *byte_of(u64 at)
{
	for (int i = 0; i < 4; i++)
		if (at - base[i] < WINDOW)
			return &model[i][at - base[i]];
	return NULL;
}

static void check_all(void)
{
	static u8 got[WINDOW];

	for (int i = 0; i < 4; i++) {
		fuzz_check(!mem_read(mem, GPA(base[i]), got, WINDOW), "it shrank");
		fuzz_check(!memcmp(got, model[i], WINDOW), "memory at %#llx is something else",
			   (unsigned long long)base[i]);
	}
}

static void check_iov(u64 at, u64 len)
{
	struct iovec iov[2];
	int n = mem_iov(mem, GPA(at), len, iov, 2);
	u8 *p = byte_of(at);

	fuzz_check((n >= 0) == inside(at, len), "%#llx+%#llx: %d", (unsigned long long)at,
		   (unsigned long long)len, n);
	if (n <= 0)
		return;
	fuzz_check(n == 1 && iov[0].iov_len == len, "%d pieces, the first of %zu bytes", n,
		   iov[0].iov_len);
	fuzz_check(!p || *(u8 *)iov[0].iov_base == *p, "another byte");
}

static void check_ring(u64 at, u64 len, u64 align)
{
	u8 *ring = mem_ring(mem, GPA(at), len, align), *p = byte_of(at);

	fuzz_check(!!ring == (inside(at, len) && at % align == 0), "%#llx+%#llx: %p",
		   (unsigned long long)at, (unsigned long long)len, (void *)ring);
	fuzz_check(!ring || !p || *ring == *p, "another byte");
}

static void change(u64 at, size_t len, u8 byte, bool fills)
{
	static u8 data[512];
	int rc;

	for (size_t i = 0; i < len; i++)
		data[i] = fills ? byte : byte + i;
	rc = fills ? mem_fill(mem, GPA(at), byte, len) : mem_write(mem, GPA(at), data, len);
	fuzz_check(rc == (inside(at, len) ? 0 : -EFAULT), "%#llx+%#zx: %d", (unsigned long long)at,
		   len, rc);
	for (size_t i = 0; i < len && !rc; i++)
		if (byte_of(at + i))
			*byte_of(at + i) = data[i];
}

static void look(u64 at, size_t len)
{
	static u8 got[512];
	int rc;

	memset(got, 0xee, sizeof(got));
	rc = mem_read(mem, GPA(at), got, len);
	fuzz_check(rc == (inside(at, len) ? 0 : -EFAULT), "%#llx+%#zx: %d", (unsigned long long)at,
		   len, rc);
	for (size_t i = 0; i < len; i++)
		fuzz_check(rc ? got[i] == 0xee : !byte_of(at + i) || got[i] == *byte_of(at + i),
			   "byte %#llx is %#x", (unsigned long long)(at + i), got[i]);
}

void fuzz_one(struct fuzz *f)
{
	if (!mem)
		fuzz_check(!mem_new(&mem, MEM_LOW_END + HIGH_LEN, false, NULL), "no memory");
	for (int i = 0; i < 4; i++)
		fuzz_check(!mem_fill(mem, GPA(base[i]), 0, WINDOW), "no memory");
	memset(model, 0, sizeof(model));
	while (f->left) {
		u8 step = fuzz_u8(f);
		u64 at = pick(f), len = fuzz_u16(f) % 512;

		if (step & 0x80)
			look(at, len);
		else if (step & 0x40)
			change(at, len, step, step & 0x20);
		else if (step & 0x20)
			check_iov(at, step & 0x10 ? fuzz_u64(f) : len);
		else
			check_ring(at, 1 + len, 1U << step % 5);
	}
	check_all();
}
