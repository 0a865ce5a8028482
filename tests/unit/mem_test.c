/* mem_test.c: guest memory: bounds, the hole between 3 and 4 GiB, overflow. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/lib/page_handler.h"
#include "tests/lib/test.h"
#include "vmm/core/mem.h"
#include "vmm/core/pager.h"
#include "vmm/core/socket.h"

#define SMALL	(8 * MIB)
#define LARGE	(5 * GIB)	/* never touched but in a few places */

static struct mem *small, *large;

static int setup(void **state)
{
	(void)state;
	assert_int_equal(mem_new(&small, SMALL, false, NULL), 0);
	assert_int_equal(mem_new(&large, LARGE, false, NULL), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	mem_free(small);
	mem_free(large);
	mem_free(NULL);
	return 0;
}

static void test_regions(void **state)
{
	struct mem_region r;
	struct mem *m;

	(void)state;
	assert_int_equal(mem_size(small), SMALL);
	assert_int_equal(mem_nr_regions(small), 1);
	r = mem_region(small, 0);
	assert_int_equal(r.base, 0);
	assert_int_equal(r.size, SMALL);
	assert_int_equal((uintptr_t)r.host % (2 * MIB), 0);

	assert_int_equal(mem_size(large), LARGE);
	assert_int_equal(mem_nr_regions(large), 2);
	r = mem_region(large, 0);
	assert_int_equal(r.base, 0);
	assert_int_equal(r.size, 3 * GIB);
	r = mem_region(large, 1);
	assert_int_equal(r.base, 4 * GIB);
	assert_int_equal(r.size, 2 * GIB);
	assert_int_equal((uintptr_t)r.host % (2 * MIB), 0);

	assert_int_equal(mem_new(&m, 3 * GIB, false, NULL), 0);
	assert_int_equal(mem_nr_regions(m), 1);
	mem_free(m);
	assert_int_equal(mem_new(&m, 3 * GIB + 4096, false, NULL), 0);
	assert_int_equal(mem_nr_regions(m), 2);
	assert_int_equal(mem_region(m, 1).size, 4096);
	mem_free(m);
}

/* Memory is no file, whatever the host keeps it in. */
static void test_limit_of_files(void **state)
{
	struct rlimit old, tiny;
	struct mem *m;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	tiny = (struct rlimit){ 4096, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &tiny), 0);
	assert_int_equal(mem_new(&m, 2 * SMALL, false, NULL), 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(mem_write_obj(m, GPA(2 * SMALL - 8), &(u64){ 1 }), 0);
	mem_free(m);
}

static void test_fresh_memory_is_zero(void **state)
{
	u8 got[64] = { 1 }, zero[64] = { 0 };

	(void)state;
	assert_int_equal(mem_read_obj(small, GPA(SMALL - 64), &got), 0);
	assert_memory_equal(got, zero, 64);
}

static void test_what_is_written_is_read(void **state)
{
	u64 value = 0x1122334455667788, got = 0;
	u8 one = 0;

	(void)state;
	assert_int_equal(mem_write_obj(small, GPA(0x1003), &value), 0);
	assert_int_equal(mem_read_obj(small, GPA(0x1003), &got), 0);
	assert_int_equal(got, value);
	assert_int_equal(mem_read_obj(small, GPA(0x1004), &one), 0);
	assert_int_equal(one, 0x77);
	assert_int_equal(((u8 *)mem_region(small, 0).host)[0x1003], 0x88);
	assert_int_equal(mem_fill(small, GPA(0x1004), 0xaa, 2), 0);
	assert_int_equal(mem_read_obj(small, GPA(0x1003), &got), 0);
	assert_int_equal(got, 0x1122334455aaaa88);
}

static const struct { u64 addr, len; bool ok; } ranges[] = {
	{ 0, 1, true }, { SMALL - 1, 1, true }, { 0, SMALL, true }, { SMALL - 4096, 4096, true },
	{ SMALL, 0, true }, { 0, 0, true },
	{ SMALL, 1, false }, { SMALL - 1, 2, false }, { 0, SMALL + 1, false },
	{ ~0ULL, 1, false }, { ~0ULL, 2, false }, { ~0ULL - 7, 8, false },
	{ ~0ULL - 7, 16, false }, { 1, ~0ULL, false }, { 4096, ~0ULL - 4095, false },
	{ 1ULL << 63, 1ULL << 63, false }, { 4 * GIB, 1, false },
};

static void test_bounds(void **state)
{
	u8 *buf = calloc(1, SMALL + 1);

	(void)state;
	assert_non_null(buf);
	for (unsigned i = 0; i < ARRAY_SIZE(ranges); i++) {
		struct iovec iov[2];
		gpa_t at = GPA(ranges[i].addr);
		u64 len = ranges[i].len;
		int want = ranges[i].ok ? 0 : -EFAULT, want_nr = ranges[i].ok ? len > 0 : -EFAULT;

		if (len <= SMALL + 1) {
			assert_int_equal(mem_read(small, at, buf, len), want);
			assert_int_equal(mem_write(small, at, buf, len), want);
		}
		if (!ranges[i].ok || len < 8192)
			assert_int_equal(mem_fill(small, at, 0, len), want);
		assert_int_equal(mem_iov(small, at, len, iov, 2), want_nr);
	}
	free(buf);
}

/* A write that does not fit changes nothing, also where its beginning is RAM. */
static void test_all_or_nothing(void **state)
{
	u8 data[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, got[4];

	(void)state;
	assert_int_equal(mem_fill(small, GPA(SMALL - 4), 0x55, 4), 0);
	assert_int_equal(mem_write(small, GPA(SMALL - 4), data, 8), -EFAULT);
	assert_int_equal(mem_fill(small, GPA(SMALL - 4), 9, 5), -EFAULT);
	assert_int_equal(mem_read(small, GPA(SMALL - 4), got, 4), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(got[i], 0x55);
}

static void test_the_hole_is_not_memory(void **state)
{
	u8 buf[16];

	(void)state;
	assert_int_equal(mem_read(large, GPA(3 * GIB), buf, 1), -EFAULT);
	assert_int_equal(mem_read(large, GPA(3 * GIB - 8), buf, 16), -EFAULT);
	assert_int_equal(mem_read(large, GPA(4 * GIB - 1), buf, 1), -EFAULT);
	assert_int_equal(mem_read(large, GPA(4 * GIB - 8), buf, 16), -EFAULT);
	assert_int_equal(mem_read(large, GPA(3 * GIB - 16), buf, 16), 0);
	assert_int_equal(mem_read(large, GPA(4 * GIB), buf, 16), 0);
	assert_int_equal(mem_read(large, GPA(6 * GIB - 16), buf, 16), 0);
	assert_int_equal(mem_read(large, GPA(6 * GIB - 15), buf, 16), -EFAULT);
	assert_int_equal(mem_read(large, GPA(6 * GIB), buf, 1), -EFAULT);
}

/* The last byte below the hole and the first above it are different bytes. */
static void test_regions_do_not_alias(void **state)
{
	u8 a = 0x11, b = 0x22, got = 0;

	(void)state;
	assert_int_equal(mem_write_obj(large, GPA(3 * GIB - 1), &a), 0);
	assert_int_equal(mem_write_obj(large, GPA(4 * GIB), &b), 0);
	assert_int_equal(mem_read_obj(large, GPA(3 * GIB - 1), &got), 0);
	assert_int_equal(got, 0x11);
	assert_int_equal(mem_read_obj(large, GPA(4 * GIB), &got), 0);
	assert_int_equal(got, 0x22);
	assert_int_equal(mem_read_obj(large, GPA(0), &got), 0);
	assert_int_equal(got, 0);
}

static void test_iov(void **state)
{
	struct iovec iov[2] = { { 0 } };

	(void)state;
	assert_int_equal(mem_iov(small, GPA(0x2000), 0x3000, iov, 2), 1);
	assert_ptr_equal(iov[0].iov_base, (u8 *)mem_region(small, 0).host + 0x2000);
	assert_int_equal(iov[0].iov_len, 0x3000);
	assert_int_equal(mem_iov(small, GPA(0x2000), 0x3000, iov, 0), -E2BIG);
	assert_int_equal(mem_iov(small, GPA(0x2000), 0, iov, 0), 0);
	assert_int_equal(mem_iov(large, GPA(4 * GIB + 5), 7, iov, 1), 1);
	assert_ptr_equal(iov[0].iov_base, (u8 *)mem_region(large, 1).host + 5);
}

static void test_ring(void **state)
{
	(void)state;
	assert_ptr_equal(mem_ring(small, GPA(0x1000), 256, 16),
			 (u8 *)mem_region(small, 0).host + 0x1000);
	assert_null(mem_ring(small, GPA(0x1008), 256, 16));
	assert_non_null(mem_ring(small, GPA(0x1008), 256, 8));
	assert_null(mem_ring(small, GPA(0x1001), 256, 2));
	assert_non_null(mem_ring(small, GPA(SMALL - 256), 256, 16));
	assert_null(mem_ring(small, GPA(SMALL - 240), 256, 16));
	assert_null(mem_ring(small, GPA(SMALL), 256, 16));
	assert_null(mem_ring(small, GPA(~0ULL - 15), 256, 16));
	assert_null(mem_ring(small, GPA(0x1000), ~0ULL, 16));
	assert_null(mem_ring(large, GPA(3 * GIB - 128), 256, 16));
	assert_non_null(mem_ring(large, GPA(4 * GIB), 256, 16));
}

/* Beside a list that has a byte for each page; ranges that begin and end anywhere, and in words of 64 pages. */
static void test_dirty(void **state)
{
	enum { PAGES = SMALL / MEM_PAGE };
	static bool model[PAGES];
	u32 seed = 1;

	(void)state;
	mem_dirty(small, GPA(0), 1);		/* nobody asked */
	assert_int_equal(mem_track_dirty(small, NULL), 0);
	for (int round = 0; round < 2000; round++) {
		u64 from, len;

		seed = seed * 1664525 + 1013904223;
		from = seed >> 8 & (SMALL - 1);
		seed = seed * 1664525 + 1013904223;
		len = MIN(seed >> 8 & 0xfffffULL >> (seed >> 28), SMALL - from);
		if (round % 20 == 0) {
			mem_forget_dirty(small);
			memset(model, 0, sizeof(model));
		}
		mem_dirty(small, GPA(from), len);
		for (u64 page = from / MEM_PAGE; len && page <= (from + len - 1) / MEM_PAGE; page++)
			model[page] = true;
		for (u64 page = 0; page < PAGES; page++)
			assert_int_equal(mem_dirty_pages(small, 0)[page / 64] >> page % 64 & 1, model[page]);
	}
	mem_forget_dirty(small);
	assert_int_equal(mem_write(small, GPA(MEM_PAGE - 1), "ab", 2), 0);
	assert_int_equal(mem_dirty_pages(small, 0)[0], 3);
	mem_forget_dirty(small);
	assert_int_equal(mem_fill(small, GPA(3 * MEM_PAGE - 1), 0, 2), 0);
	assert_int_equal(mem_dirty_pages(small, 0)[0], 0xc);
}

/* --- memory that somebody else fills -------------------------------------------------------- */

struct handler {
	int listener;
	const u8 *memory;
	u64 size;
	long filled;
};

static void *serve(void *arg)
{
	struct handler *h = arg;

	h->filled = page_handler(h->listener, h->memory, h->size, 0, NULL);
	return NULL;
}

/* Both regions, by a read, by a write into a page's middle, and by saving all of it. */
static void test_pager(void **state)
{
	enum { PAGE = MEM_PAGE };
	static const u64 touched[] = { 0, 1, 511, 512, 700, 768 * 1024 - 1, 768 * 1024, 768 * 1024 + 255 };
	struct handler h = { .size = 3 * GIB + MIB };
	char dir[] = "/tmp/vmm-pager-XXXXXX", path[64], got[PAGE], want[PAGE];
	struct err err = { 0 };
	pthread_t thread;
	struct mem *m;
	u8 *memory;
	int rc;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/socket", dir);
	assert_int_equal(mem_new_from_pager(&m, h.size, path, &err), -ENOENT);
	assert_non_null(strstr(err.msg, path));
	memory = mmap(NULL, h.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		      -1, 0);
	assert_true(memory != MAP_FAILED);
	h.memory = memory;
	for (unsigned i = 0; i < ARRAY_SIZE(touched); i++)
		memset(memory + touched[i] * PAGE, i + 1, PAGE);
	assert_int_equal(socket_listen(path, &h.listener, &err), 0);
	assert_int_equal(fcntl(h.listener, F_SETFL, 0), 0);
	assert_int_equal(pthread_create(&thread, NULL, serve, &h), 0);
	rc = mem_new_from_pager(&m, h.size, path, &err);
	if (!rc) {
		u64 high = MEM_HIGH_START - MEM_LOW_END;

		for (unsigned i = 0; i < ARRAY_SIZE(touched); i++) {
			u64 at = touched[i] * PAGE, gpa = at < MEM_LOW_END ? at : at + high;

			memset(want, i + 1, PAGE);
			if (i % 2) {
				assert_int_equal(mem_fill(m, GPA(gpa + 5), 0xee, 7), 0);
				memset(want + 5, 0xee, 7);
			}
			assert_int_equal(mem_read(m, GPA(gpa), got, PAGE), 0);
			assert_memory_equal(got, want, PAGE);
		}
		mem_free(m);
	}
	pthread_join(thread, NULL);
	close(h.listener);
	munmap(memory, h.size);
	unlink(path);
	rmdir(dir);
	if (rc == -EPERM)
		skip();
	assert_int_equal(rc, 0);
	assert_int_equal(h.filled, ARRAY_SIZE(touched));
}

/* --- one that gives nothing, and who is to end meanwhile ------------------------------------------- */

enum { TICKS = 20, MANY_TICKS = 2000, ENDED = 7, NOT_ALLOWED = 77 };

struct silent_life {
	bool waits;			/* somebody does, for a page */
	bool hurry, signalled;
	bool reads;			/* the handler does, and gives nothing */
	bool jailed;			/* without /proc */
	bool busy;			/* the control thread is, by one instruction */
};
static const struct silent_life *life;
static sem_t waited_for;

static bool is_silent(void)
{
	sem_post(&waited_for);
	return life->reads;
}

static void *serve_nothing(void *arg)
{
	struct handler *h = arg;

	h->filled = page_handler(h->listener, h->memory, h->size, 0, is_silent);
	return NULL;
}

static void *touch(void *arg)
{
	char byte;

	(void)!mem_read(arg, GPA(0), &byte, 1);
	return NULL;
}

static void ended(bool gone)
{
	_exit(gone ? 1 : ENDED);
}

/* As a second that passes. */
static void tick(void)
{
	siginfo_t info = { .si_signo = SIGALRM, .si_code = SI_TIMER };

	syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), SIGALRM, &info);
	poll(NULL, 0, 0);	/* ThreadSanitizer keeps signals until a call like this */
}

/* Between two such seconds the other thread gets on with what it does. */
static struct busy {
	pid_t tid;
	volatile u8 memory[4 * MIB];
	bool done;
} busy;

static void *tick_other(void *arg)
{
	siginfo_t info = { .si_signo = SIGALRM, .si_code = SI_TIMER };
	volatile u8 *at = &busy.memory[sizeof(busy.memory) / 2];

	for (int i = 0; i < TICKS; i++) {
		syscall(SYS_rt_tgsigqueueinfo, getpid(), busy.tid, SIGALRM, &info);
		for (int round = 0; round < 2; round++) {
			*at = 0;
			while (!*at)
				sched_yield();
		}
	}
	store_once(&busy.done, true);
	return arg;
}

static int fill_by_one_instruction(void)
{
	pthread_t other;

	busy.tid = gettid();
	if (pthread_create(&other, NULL, tick_other, NULL))
		return 5;
	while (!load_once(&busy.done)) {
		volatile u8 *at = busy.memory;
		size_t n = sizeof(busy.memory);

		__asm__ volatile("rep stosb" : "+D"(at), "+c"(n) : "a"(1) : "memory");
	}
	return pthread_join(other, NULL);
}

static int live_with_silent(const char *dir)
{
	static u8 memory[2 * MIB];
	struct handler h = { .memory = memory, .size = sizeof(memory) };
	char path[64];
	pthread_t thread[2];
	struct err err;
	struct mem *m;
	sigset_t end;
	int rc;

	snprintf(path, sizeof(path), "%s/socket", dir);
	if (life->jailed && (chroot(dir) || strcpy(path, "/socket") != path))
		return NOT_ALLOWED;
	sigemptyset(&end);
	sigaddset(&end, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &end, NULL);
	sem_init(&waited_for, 0, 0);
	pager_set_lost(ended, &end);
	if (socket_listen(path, &h.listener, &err) || fcntl(h.listener, F_SETFL, 0) ||
	    pthread_create(&thread[0], NULL, serve_nothing, &h))
		return 2;
	rc = mem_new_from_pager(&m, h.size, path, &err);
	if (rc)
		return rc == -EPERM ? NOT_ALLOWED : 3;
	if (life->waits && pthread_create(&thread[1], NULL, touch, m))
		return 4;
	while (life->waits && sem_wait(&waited_for))
		continue;
	pager_hurry(life->hurry);
	if (life->signalled)
		raise(SIGTERM);
	/* Who reads all at once is not seen to be asked at each of them. */
	for (int i = 0; i < (life->jailed && life->waits ? MANY_TICKS : TICKS) && !life->busy; i++)
		tick();
	return life->busy ? fill_by_one_instruction() : 0;
}

/* In a process of its own, which ends as vmm would. */
static int ends_with_silent(struct silent_life one)
{
	char dir[] = "/tmp/vmm-pager-XXXXXX", path[64];
	int status;
	pid_t pid;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/socket", dir);
	fflush(NULL);
	life = &one;
	pid = fork();
	assert_true(pid >= 0);
	if (!pid)
		_exit(live_with_silent(dir));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	unlink(path);
	rmdir(dir);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == NOT_ALLOWED)
		skip();
	return WEXITSTATUS(status);
}

#define SILENT(...) ends_with_silent((struct silent_life){ __VA_ARGS__ })

static void test_silent_pager(void **state)
{
	(void)state;
	/* Somebody waits for a page: whoever is to end does. */
	assert_int_equal(SILENT(.waits = true, .hurry = true), ENDED);
	assert_int_equal(SILENT(.waits = true, .signalled = true), ENDED);
	assert_int_equal(SILENT(.waits = true, .hurry = true, .reads = true), ENDED);
	/* Nobody is to: a handler may take its time. */
	assert_int_equal(SILENT(.waits = true), 0);
	/* Nobody waits for one: it is not the handler that takes so long. */
	assert_int_equal(SILENT(.hurry = true), 0);
	assert_int_equal(SILENT(.hurry = true, .signalled = true), 0);
	assert_int_equal(SILENT(.signalled = true, .busy = true), 0);
}

/* Where the kernel does not say who waits. */
static void test_silent_pager_in_jail(void **state)
{
	(void)state;
	assert_int_equal(SILENT(.jailed = true, .waits = true, .hurry = true), ENDED);
	assert_int_equal(SILENT(.jailed = true, .waits = true, .hurry = true, .reads = true), ENDED);
	assert_int_equal(SILENT(.jailed = true, .waits = true, .reads = true), 0);
	assert_int_equal(SILENT(.jailed = true, .hurry = true), 0);
	assert_int_equal(SILENT(.jailed = true, .hurry = true, .busy = true), 0);
}

static void test_save_paged(void **state)
{
	struct handler h = { .size = 2 * MIB };
	char dir[] = "/tmp/vmm-pager-XXXXXX", path[64];
	u8 *memory = malloc(h.size), *saved = malloc(h.size);
	struct err err = { 0 };
	pthread_t thread;
	struct mem *m;
	int fd, rc;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/socket", dir);
	assert_int_equal(socket_listen(path, &h.listener, &err), 0);
	assert_int_equal(fcntl(h.listener, F_SETFL, 0), 0);
	for (u64 i = 0; i < h.size; i++)
		memory[i] = i / MEM_PAGE % 3 ? i * 7 : 0;
	h.memory = memory;
	assert_int_equal(pthread_create(&thread, NULL, serve, &h), 0);
	rc = mem_new_from_pager(&m, h.size, path, &err);
	fd = memfd_create("saved", 0);
	if (!rc) {
		assert_int_equal(mem_save(m, fd, NULL), 0);
		assert_int_equal(pread(fd, saved, h.size, 0), h.size);
		assert_memory_equal(saved, memory, h.size);
		mem_free(m);
	}
	pthread_join(thread, NULL);
	close(fd);
	close(h.listener);
	free(memory);
	free(saved);
	unlink(path);
	rmdir(dir);
	if (rc == -EPERM)
		skip();
	assert_int_equal(rc, 0);
	assert_int_equal(h.filled, h.size / MEM_PAGE);
}

/* What was in memory once is read in by the next, and nothing is lost by ending amid that. */
static void test_prefetch(void **state)
{
	enum { PAGES = 3 * 1024 };
	u64 size = (u64)PAGES * MEM_PAGE, seen[PAGES / 64], *pages = calloc(PAGES / 64, 8);
	int fd = memfd_create("ram", 0);
	struct mem *m;
	u8 byte;

	(void)state;
	assert_int_equal(ftruncate(fd, size), 0);
	assert_int_equal(mem_new_from_file(&m, size, fd, NULL), 0);
	for (u64 n = 0; n < PAGES; n += n % 7 ? 1 : 40) {
		assert_int_equal(mem_fill(m, GPA(n * MEM_PAGE), 1, 1), 0);
		pages[n / 64] |= 1ULL << n % 64;
	}
	mem_working_set(m, seen);
	assert_memory_equal(seen, pages, sizeof(seen));
	mem_free(m);

	assert_int_equal(mem_new_from_file(&m, size, fd, NULL), 0);
	mem_prefetch(m, memcpy(calloc(PAGES / 64, 8), pages, sizeof(seen)));
	mem_start(m);
	for (bool all = false; !all; sched_yield()) {
		mem_working_set(m, seen);
		all = true;
		for (unsigned i = 0; i < PAGES / 64; i++)
			all &= (seen[i] & pages[i]) == pages[i];
	}
	assert_int_equal(mem_read(m, GPA(0), &byte, 1), 0);
	assert_int_equal(byte, 0);		/* private, as it was */
	mem_free(m);
	assert_int_equal(mem_new_from_file(&m, size, fd, NULL), 0);
	mem_prefetch(m, pages);
	mem_start(m);
	mem_free(m);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_regions), cmocka_unit_test(test_limit_of_files),
		cmocka_unit_test(test_fresh_memory_is_zero),
		cmocka_unit_test(test_what_is_written_is_read), cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_all_or_nothing),
		cmocka_unit_test(test_the_hole_is_not_memory),
		cmocka_unit_test(test_regions_do_not_alias), cmocka_unit_test(test_iov),
		cmocka_unit_test(test_ring), cmocka_unit_test(test_dirty), cmocka_unit_test(test_pager),
		cmocka_unit_test(test_silent_pager), cmocka_unit_test(test_silent_pager_in_jail),
		cmocka_unit_test(test_save_paged), cmocka_unit_test(test_prefetch),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
