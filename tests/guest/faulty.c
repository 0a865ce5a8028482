/*
 * faulty.c: a vmm for tests/guest: in front of libc's memory and clock, which fail and jump when
 * the file that $FAULTS names says so. That is mapped before main begins, so no sandbox is in the
 * way. And with a hole, by which a guest makes vmm's threads do what it likes.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "devices/virtio/virtq.h"
#include "vmm/core/bus.h"

/* tests/guest/cases.sh: faults. */
static struct told {
	int64_t memory;			/* the n-th allocation from now on fails; 0: it has, or none is to */
	int64_t clock_s;			/* by so much the time of day is wrong */
} *told;

static __attribute__((constructor)) void listen_to_test(void)
{
	const char *path = getenv("FAULTS");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *at;

	if (fd < 0)
		return;
	at = mmap(NULL, sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	told = at == MAP_FAILED ? NULL : at;
	close(fd);
}

static bool is_out(void)
{
	if (!told || load_once(&told->memory) <= 0 ||
	    __atomic_sub_fetch(&told->memory, 1, __ATOMIC_RELAXED))
		return false;
	errno = ENOMEM;
	return true;
}

#define WRAP(type, name, params, ...) \
	type __real_##name params; \
	type __wrap_##name params; \
	type __wrap_##name params { return is_out() ? NULL : __real_##name(__VA_ARGS__); }

WRAP(void *, malloc, (size_t n), n)
WRAP(void *, calloc, (size_t nr, size_t n), nr, n)
WRAP(void *, realloc, (void *p, size_t n), p, n)
WRAP(void *, reallocarray, (void *p, size_t nr, size_t n), p, nr, n)
WRAP(void *, aligned_alloc, (size_t align, size_t n), align, n)
WRAP(char *, strdup, (const char *s), s)
WRAP(char *, strndup, (const char *s, size_t n), s, n)

int __real_vasprintf(char **out, const char *fmt, va_list ap);
int __wrap_vasprintf(char **out, const char *fmt, va_list ap);
int __wrap_vasprintf(char **out, const char *fmt, va_list ap)
{
	return is_out() ? -1 : __real_vasprintf(out, fmt, ap);
}

int __wrap_asprintf(char **out, const char *fmt, ...);
int __wrap_asprintf(char **out, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = __wrap_vasprintf(out, fmt, ap);
	va_end(ap);
	return n;
}

/* What _FORTIFY_SOURCE makes of it. */
int __wrap___asprintf_chk(char **out, int flag, const char *fmt, ...);
int __wrap___asprintf_chk(char **out, int flag, const char *fmt, ...)
{
	va_list ap;
	int n;

	(void)flag;
	va_start(ap, fmt);
	n = __wrap_vasprintf(out, fmt, ap);
	va_end(ap);
	return n;
}

int __real_posix_memalign(void **out, size_t align, size_t n);
int __wrap_posix_memalign(void **out, size_t align, size_t n);
int __wrap_posix_memalign(void **out, size_t align, size_t n)
{
	return is_out() ? ENOMEM : __real_posix_memalign(out, align, n);
}

int __real_clock_gettime(clockid_t clock, struct timespec *t);
int __wrap_clock_gettime(clockid_t clock, struct timespec *t);
int __wrap_clock_gettime(clockid_t clock, struct timespec *t)
{
	int rc = __real_clock_gettime(clock, t);

	if (!rc && told && clock == CLOCK_REALTIME)
		t->tv_sec += load_once(&told->clock_s);
	return rc;
}

time_t __wrap_time(time_t *out);
time_t __wrap_time(time_t *out)
{
	struct timespec t;

	__wrap_clock_gettime(CLOCK_REALTIME, &t);
	if (out)
		*out = t.tv_sec;
	return t.tv_sec;
}

/* --- the hole -------------------------------------------------------------------------------- */

/* guest/tests/escape.c: three of a system call's arguments, all ones for a path; then its number,
 * for the vCPU's thread, or for the one that takes a request from a virtqueue next. */
enum { PORT_ARGUMENT = 0x5e0, PORT_CALL = 0x5ec, PORT_CALL_LATER = 0x5f0 };

static struct {
	long argument[3];
	long later;
} hole;

static void come_through(long nr)
{
	syscall(nr, hole.argument[0], hole.argument[1], hole.argument[2], 0, 0, 0);
}

void __real_bus_write(struct bus *b, u64 addr, unsigned size, u64 value);
void __wrap_bus_write(struct bus *b, u64 addr, unsigned size, u64 value);
void __wrap_bus_write(struct bus *b, u64 addr, unsigned size, u64 value)
{
	static const char path[] = "/etc/passwd";

	if (!told || strcmp(b->name, "pio") || addr < PORT_ARGUMENT || addr > PORT_CALL_LATER)
		__real_bus_write(b, addr, size, value);
	else if (addr < PORT_CALL)
		hole.argument[(addr - PORT_ARGUMENT) / 4] = value == UINT32_MAX ? (long)path : (long)value;
	else if (addr == PORT_CALL)
		come_through((long)value);
	else
		store_release(&hole.later, (long)value);
}

int __real_virtq_pop(struct virtq *q, struct chain *c);
int __wrap_virtq_pop(struct virtq *q, struct chain *c);
int __wrap_virtq_pop(struct virtq *q, struct chain *c)
{
	if (load_acquire(&hole.later))
		come_through(hole.later);
	return __real_virtq_pop(q, c);
}
