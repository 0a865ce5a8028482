/* mem.h: guest physical memory.  The only way to touch it. */
#pragma once
#include <sys/uio.h>
#include "vmm/core/base.h"
#include "vmm/core/err.h"

/*
 * A guest physical address.  A struct, so that it cannot be dereferenced,
 * mixed up with a length or a host pointer, or added to without a check.
 */
typedef struct { u64 addr; } gpa_t;
#define GPA(x)	((gpa_t){ (x) })

/* RAM lies in [0, MEM_LOW_END) and, what does not fit, from MEM_HIGH_START on. */
#define MEM_LOW_END	(3 * GIB)
#define MEM_HIGH_START	(4 * GIB)

struct mem;

/*
 * size in bytes, a multiple of 4 KiB, more than the host has is fine: pages
 * come when touched.  hugepages: all of it from the host's reserved 2 MiB pages
 * (size a multiple of 2 MiB), or the call fails.
 */
int  mem_new(struct mem **, u64 size, bool hugepages, struct err *) must_check;
/* RAM is what the file has, page by page as it is touched; the file stays as it is.
 * fd may be closed afterwards. */
int  mem_new_from_file(struct mem **, u64 size, int fd, struct err *) must_check;
/* RAM is what the page fault handler at this socket says, page by page (core/pager.h). */
int  mem_new_from_pager(struct mem **, u64 size, const char *socket, struct err *) must_check;
void mem_free(struct mem *);
u64  mem_size(const struct mem *);

/* Where RAM is, for memory slots and memory maps.  At most two regions. */
struct mem_region {
	u64 base, size;
	void *host;
};
int mem_nr_regions(const struct mem *);
struct mem_region mem_region(const struct mem *, int i);

/*
 * Copies.  The whole range must be RAM (it may cross regions); otherwise
 * -EFAULT, and nothing has been copied.  Any thread.
 */
int mem_read(struct mem *, gpa_t, void *dst, size_t len) must_check;
int mem_write(struct mem *, gpa_t, const void *src, size_t len) must_check;
int mem_fill(struct mem *, gpa_t, u8 byte, size_t len) must_check;

#define mem_read_obj(m, gpa, obj)	mem_read((m), (gpa), (obj), sizeof(*(obj)))
#define mem_write_obj(m, gpa, obj)	mem_write((m), (gpa), (obj), sizeof(*(obj)))

/*
 * All of it into a file, where mem_new_from_file finds it; zeroes become holes.
 * Nobody writes to it meanwhile.  pages not NULL: only these, zeroes among them, at
 * the same places; a bit for each page of 4 KiB, of all regions one after the other.
 */
int mem_save(struct mem *, int fd, const u64 *pages) must_check;

/*
 * The working set: which pages this process has in memory, a bit for each as above, in
 * mem_dirty_len bytes.  All of them where the kernel does not say.
 */
void mem_working_set(struct mem *, u64 *pages);
/* Of memory from a file: these are to be read in, while the machine runs, by a thread that
 * mem_start starts.  pages is taken over. */
void mem_prefetch(struct mem *, u64 *pages);
void mem_start(struct mem *);

/*
 * Which pages were written to, from now on: by this program, where mem_dirty says
 * so, and by the guest, which KVM knows (vmm/kvm).  Before the machine runs.
 */
enum { MEM_PAGE = 4096 };
int  mem_track_dirty(struct mem *, struct err *) must_check;
bool mem_tracks_dirty(const struct mem *);
/* Any thread; before or after the write, but before the machine is quiesced. */
void mem_dirty(struct mem *, gpa_t, u64 len);
/* Of region i: as many words as its pages need. */
u64 *mem_dirty_pages(struct mem *, int i);
size_t mem_dirty_len(const struct mem *);		/* bytes of a bit for each page of all */
void mem_forget_dirty(struct mem *);

/*
 * Zero copy: describe [gpa, gpa+len) as host iovecs, for a syscall to fill or
 * drain.  Returns how many were used, -EFAULT outside RAM, -E2BIG if more
 * than max.  The guest may change the bytes at any time: pass the iovecs to
 * the kernel, do not parse through them.
 */
int mem_iov(struct mem *, gpa_t, u64 len, struct iovec *, int max) must_check;

/*
 * A stable host pointer to shared ring memory; NULL unless it is one aligned
 * stretch of RAM.  For virtq.c alone (scripts/check-layers).
 */
void *mem_ring(struct mem *, gpa_t, size_t len, size_t align) must_check;
