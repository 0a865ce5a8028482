/* mem.c: guest RAM as at most two regions, below and above the PCI hole. */
#include "vmm/core/mem.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "vmm/core/pager.h"
#include "vmm/core/prefetch.h"

#define HUGE_PAGE	(2 * MIB)

struct mem {
	struct mem_region region[2];
	int nr;
	bool anonymous;		/* what is not there is zeroes */
	int pagemap;		/* opened at the start: a sandbox may not let us later; -1: it is not there */
	struct pager pager;
	u64 *wanted;		/* to be read in by mem_start; NULL: nothing */
	struct prefetch *prefetch;
	u64 *dirty;		/* atomic words; NULL: not tracked */
};

/*
 * A memfd is backed by 2 MiB pages only where the host's administrator allows
 * it for shared memory; private memory gets them from madvise alone.  Nested
 * paging wants large pages more than anything wants a memfd.
 */
static bool memfd_gets_huge_pages(void)
{
	char s[128];
	int fd = open("/sys/kernel/mm/transparent_hugepage/shmem_enabled", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, s, sizeof(s) - 1);

	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return false;	/* nothing to choose, or a jail, where nobody knows */
	s[n] = 0;
	return !strstr(s, "[never]") && !strstr(s, "[deny]");
}

/* Map at a 2 MiB boundary: slots start at one too, so nested page tables can
 * use a large page wherever the host has one. */
static int add_region(struct mem *m, u64 base, u64 size, int fd, u64 offset, int share)
{
	int flags = (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : share) | MAP_NORESERVE;
	u64 span = size + HUGE_PAGE;
	u8 *area = mmap(NULL, span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	u8 *host = (u8 *)ALIGN_UP((uintptr_t)area, HUGE_PAGE);
	u8 *end = (u8 *)ALIGN_UP((uintptr_t)host + size, 4096);

	if (area == MAP_FAILED)
		return -errno;
	if (mmap(host, size, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, offset) == MAP_FAILED) {
		int rc = -errno;

		munmap(area, span);
		return rc;
	}
	if (host > area)
		munmap(area, host - area);
	if (area + span > end)
		munmap(end, area + span - end);
	madvise(host, size, MADV_HUGEPAGE);	/* advice: an old kernel may say no */
	madvise(host, size, MADV_DONTDUMP);
	m->region[m->nr++] = (struct mem_region){ .base = base, .size = size, .host = host };
	return 0;
}

static int map_all(struct mem *m, u64 size, int fd, int share)
{
	u64 low = MIN(size, MEM_LOW_END);
	int rc = add_region(m, 0, low, fd, 0, share);

	if (!rc && size > low)
		rc = add_region(m, MEM_HIGH_START, size - low, fd, low, share);
	return rc;
}

static struct mem *new_mem(void)
{
	struct mem *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->pager = (struct pager){ .uffd = -1, .socket = -1 };
	m->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	return m;
}

int mem_new(struct mem **out, u64 size, bool hugepages, struct err *err)
{
	struct mem *m = new_mem();
	int fd = -1, rc = 0;

	if (!m)
		return err_set(err, -ENOMEM, "out of memory");
	if (hugepages || memfd_gets_huge_pages()) {
		fd = memfd_create("vmm-guest-ram", MFD_CLOEXEC | (hugepages ? MFD_HUGETLB : 0));
		if (fd < 0 || ftruncate(fd, size))
			rc = -errno;
		/* Reserved pages are taken now, so that a guest never meets SIGBUS. */
		if (!rc && hugepages && fallocate(fd, 0, 0, size))
			rc = -errno;
		/* A jailer's limit is meant for files: memory that is none does not have it. */
		if (rc == -EFBIG && !hugepages) {
			close(fd);
			fd = -1;
			rc = 0;
		}
	}
	if (!rc)
		rc = map_all(m, size, fd, MAP_SHARED);
	m->anonymous = fd < 0;
	if (fd >= 0)
		close(fd);
	if (rc) {
		mem_free(m);
		if (hugepages)
			return err_set(err, rc, "mem: cannot get %llu MiB of huge pages: %s; reserve "
				       "them with 'sysctl vm.nr_hugepages=%llu' or leave out --hugepages",
				       (unsigned long long)(size >> 20), strerror(-rc),
				       (unsigned long long)(size / HUGE_PAGE));
		return err_set(err, rc, "mem: cannot map %llu MiB of guest memory: %s",
			       (unsigned long long)(size >> 20), strerror(-rc));
	}
	*out = m;
	return 0;
}

/* Without a file: pages that are not known here. */
static int new_saved(struct mem **out, u64 size, int fd, struct err *err)
{
	struct mem *m = new_mem();
	int rc = m ? map_all(m, size, fd, MAP_PRIVATE) : -ENOMEM;

	if (rc) {
		mem_free(m);
		return err_set(err, rc, "mem: cannot map %llu MiB of saved memory: %s",
			       (unsigned long long)(size >> 20), strerror(-rc));
	}
	*out = m;
	return 0;
}

int mem_new_from_file(struct mem **out, u64 size, int fd, struct err *err)
{
	return new_saved(out, size, fd, err);
}

int mem_new_from_pager(struct mem **out, u64 size, const char *socket, struct err *err)
{
	struct pager_range range[2] = { 0 };
	struct mem *m;
	int rc = new_saved(&m, size, -1, err);

	if (rc)
		return rc;
	for (int i = 0; i < m->nr; i++)
		range[i] = (struct pager_range){ m->region[i].host, m->region[i].size,
						 i ? m->region[0].size : 0 };
	rc = pager_start(&m->pager, socket, range, m->nr, err);
	if (rc) {
		mem_free(m);
		return rc;
	}
	*out = m;
	return 0;
}

void mem_free(struct mem *m)
{
	if (!m)
		return;
	prefetch_stop(m->prefetch);
	free(m->wanted);
	for (int i = 0; i < m->nr; i++)
		munmap(m->region[i].host, m->region[i].size);
	pager_stop(&m->pager);
	if (m->pagemap >= 0)
		close(m->pagemap);
	free(m->dirty);
	free(m);
}

/* --- to a file ------------------------------------------------------------------------------ */

enum { PAGE = MEM_PAGE, PAGES_AT_ONCE = 512 };
#define PRESENT (3ULL << 62)	/* of a pagemap's entry: in memory, or swapped out */

/* Which pages of a stretch were ever touched: the kernel's word, or all of them. */
static void find_touched(int pagemap, const u8 *host, u64 nr, u64 entry[PAGES_AT_ONCE])
{
	ssize_t want = nr * sizeof(entry[0]);

	if (pagemap < 0 || pread(pagemap, entry, want, (uintptr_t)host / PAGE * 8) != want)
		memset(entry, 0xff, want);
}

static bool is_zero(const u8 *page)
{
	return !page[0] && !memcmp(page, page + 1, PAGE - 1);
}

static int write_all(int fd, const u8 *p, u64 len, u64 offset)
{
	while (len) {
		ssize_t n = pwrite(fd, p, len, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		p += n;
		len -= n;
		offset += n;
	}
	return 0;
}

static bool has_bit(const u64 *bits, u64 n)
{
	return bits[n / 64] >> n % 64 & 1;
}

/* first: the number of the region's first page in pages. */
static int save_region(const struct mem_region *r, int fd, u64 offset, int pagemap,
		       const u64 *pages, u64 first)
{
	u64 entry[PAGES_AT_ONCE];
	const u8 *host = r->host;
	int rc = 0;

	for (u64 at = 0; at < r->size && !rc; at += (u64)PAGES_AT_ONCE * PAGE) {
		u64 nr = MIN((u64)PAGES_AT_ONCE, (r->size - at) / PAGE), from = 0;

		if (!pages)
			find_touched(pagemap, host + at, nr, entry);
		for (u64 i = 0; i <= nr && !rc; i++) {
			if (i < nr && (pages ? has_bit(pages, first + at / PAGE + i) :
				       entry[i] & PRESENT && !is_zero(host + at + i * PAGE)))
				continue;
			if (i > from)
				rc = write_all(fd, host + at + from * PAGE, (i - from) * PAGE,
					       offset + at + from * PAGE);
			from = i + 1;
		}
	}
	return rc;
}

int mem_save(struct mem *m, int fd, const u64 *pages)
{
	/* What of a file is not present is not zeroes for that. */
	int pagemap = m->anonymous ? m->pagemap : -1;
	int rc = ftruncate(fd, mem_size(m)) ? -errno : 0;
	u64 offset = 0;

	for (int i = 0; i < m->nr && !rc; i++) {
		rc = save_region(&m->region[i], fd, offset, pagemap, pages, offset / PAGE);
		offset += m->region[i].size;
	}
	return rc;
}

/* --- the working set ----------------------------------------------------------------------- */

void mem_working_set(struct mem *m, u64 *pages)
{
	u64 entry[PAGES_AT_ONCE], first = 0;

	memset(pages, 0, mem_dirty_len(m));
	for (int i = 0; i < m->nr; i++) {
		const struct mem_region *r = &m->region[i];

		for (u64 at = 0; at < r->size; at += (u64)PAGES_AT_ONCE * PAGE) {
			u64 nr = MIN((u64)PAGES_AT_ONCE, (r->size - at) / PAGE);

			find_touched(m->pagemap, (u8 *)r->host + at, nr, entry);
			for (u64 n = first + at / PAGE, k = 0; k < nr; n++, k++)
				if (entry[k] & PRESENT)
					pages[n / 64] |= 1ULL << n % 64;
		}
		first += r->size / PAGE;
	}
}

void mem_prefetch(struct mem *m, u64 *pages)
{
	free(m->wanted);
	m->wanted = pages;
}

void mem_start(struct mem *m)
{
	struct prefetch_range range[2] = { 0 };

	for (int i = 0; i < m->nr; i++)
		range[i] = (struct prefetch_range){ m->region[i].host, m->region[i].size };
	if (m->wanted)
		m->prefetch = prefetch_start(range, m->nr, m->wanted);
	m->wanted = NULL;
}

/* --- what was written to ----------------------------------------------------------------- */

size_t mem_dirty_len(const struct mem *m)
{
	/* Regions are whole MiB, so each begins with a word of its own. */
	return mem_size(m) / PAGE / 8;
}

int mem_track_dirty(struct mem *m, struct err *err)
{
	m->dirty = calloc(1, mem_dirty_len(m));
	return m->dirty ? 0 : err_set(err, -ENOMEM, "out of memory");
}

bool mem_tracks_dirty(const struct mem *m)
{
	return m->dirty;
}

u64 *mem_dirty_pages(struct mem *m, int i)
{
	return m->dirty + (i ? m->region[0].size / PAGE / 64 : 0);
}

void mem_forget_dirty(struct mem *m)
{
	memset(m->dirty, 0, mem_dirty_len(m));
}

/* A word at a time: a guest has gigabytes marked with each request. */
static void mark(struct mem *m, u64 first, u64 last)
{
	for (u64 at = first; at <= last; at = at / 64 * 64 + 64) {
		u64 *word = &m->dirty[at / 64], bits = ~0ULL << at % 64;

		if (at / 64 == last / 64)
			bits &= ~0ULL >> (63 - last % 64);
		if (~load_once(word) & bits)
			__atomic_or_fetch(word, bits, __ATOMIC_RELAXED);
	}
}

void mem_dirty(struct mem *m, gpa_t gpa, u64 len)
{
	u64 first = 0;

	if (!m->dirty || !len)
		return;
	for (int i = 0; i < m->nr; first += m->region[i++].size / PAGE) {
		const struct mem_region *r = &m->region[i];
		u64 from = MAX(gpa.addr, r->base), to = MIN(gpa.addr + len, r->base + r->size);

		if (from < to)
			mark(m, first + (from - r->base) / PAGE, first + (to - 1 - r->base) / PAGE);
	}
}

u64 mem_size(const struct mem *m)
{
	u64 sum = 0;

	for (int i = 0; i < m->nr; i++)
		sum += m->region[i].size;
	return sum;
}

int mem_nr_regions(const struct mem *m)
{
	return m->nr;
}

struct mem_region mem_region(const struct mem *m, int i)
{
	BUG_ON(i < 0 || i >= m->nr);
	return m->region[i];
}

struct span {
	u8 *host;		/* NULL: not RAM */
	u64 len;
};

/* The part of [addr, addr+len) that starts at addr and stays in one region.
 * The single bounds check that every access goes through. */
static struct span find(const struct mem *m, u64 addr, u64 len)
{
	for (int i = 0; i < m->nr; i++) {
		const struct mem_region *r = &m->region[i];
		u64 off = addr - r->base;

		if (addr >= r->base && off < r->size)
			return (struct span){ (u8 *)r->host + off, MIN(len, r->size - off) };
	}
	return (struct span){ 0 };
}

static bool all_ram(const struct mem *m, u64 addr, u64 len)
{
	u64 end;

	if (add_overflows(addr, len, &end))
		return false;
	while (len) {
		struct span s = find(m, addr, len);

		if (!s.host)
			return false;
		addr += s.len;
		len -= s.len;
	}
	return true;
}

int mem_read(struct mem *m, gpa_t gpa, void *dst, size_t len)
{
	if (!all_ram(m, gpa.addr, len))
		return -EFAULT;
	for (u64 done = 0; done < len;) {
		struct span s = find(m, gpa.addr + done, len - done);

		memcpy((u8 *)dst + done, s.host, s.len);
		done += s.len;
	}
	return 0;
}

int mem_write(struct mem *m, gpa_t gpa, const void *src, size_t len)
{
	if (!all_ram(m, gpa.addr, len))
		return -EFAULT;
	mem_dirty(m, gpa, len);
	for (u64 done = 0; done < len;) {
		struct span s = find(m, gpa.addr + done, len - done);

		memcpy(s.host, (const u8 *)src + done, s.len);
		done += s.len;
	}
	return 0;
}

int mem_fill(struct mem *m, gpa_t gpa, u8 byte, size_t len)
{
	if (!all_ram(m, gpa.addr, len))
		return -EFAULT;
	mem_dirty(m, gpa, len);
	for (u64 done = 0; done < len;) {
		struct span s = find(m, gpa.addr + done, len - done);

		memset(s.host, byte, s.len);
		done += s.len;
	}
	return 0;
}

int mem_iov(struct mem *m, gpa_t gpa, u64 len, struct iovec *iov, int max)
{
	struct span whole = find(m, gpa.addr, len);
	int n = 0;

	if (whole.len == len && len && max) {
		*iov = (struct iovec){ whole.host, len };
		return 1;
	}
	if (!all_ram(m, gpa.addr, len))
		return -EFAULT;
	for (u64 done = 0; done < len;) {
		struct span s = find(m, gpa.addr + done, len - done);

		if (n == max)
			return -E2BIG;
		iov[n++] = (struct iovec){ s.host, s.len };
		done += s.len;
	}
	return n;
}

void *mem_ring(struct mem *m, gpa_t gpa, size_t len, size_t align)
{
	struct span s = find(m, gpa.addr, len);

	return s.len == len && gpa.addr % align == 0 ? s.host : NULL;
}
