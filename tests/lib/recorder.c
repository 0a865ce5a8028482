/* recorder.c: see recorder.h. */
#include "tests/lib/recorder.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "devices/block/file.h"
#include "tests/lib/test.h"

enum { SECTOR = 512, CHUNK = 4096 };
#define FILE_MAX	GIB

int __real_file_read(int fd, u64 offset, void *buf, size_t len);
int __real_file_write(int fd, u64 offset, const void *buf, size_t len);
int __real_file_sync(int fd);
int __real_file_truncate(int fd, u64 size);
int __real_file_allocate(int fd, u64 offset, u64 len);
int __real_file_zero(int fd, u64 offset, u64 len, bool unmap);
int __wrap_file_read(int fd, u64 offset, void *buf, size_t len);
int __wrap_file_write(int fd, u64 offset, const void *buf, size_t len);
int __wrap_file_sync(int fd);
int __wrap_file_truncate(int fd, u64 size);
int __wrap_file_allocate(int fd, u64 offset, u64 len);
int __wrap_file_zero(int fd, u64 offset, u64 len, bool unmap);

/* --- failures ------------------------------------------------------------------------- */

static struct fault fault;
static unsigned failed;

void recorder_fail(const struct fault *f)
{
	fault = f ? *f : (struct fault){ 0 };
	failed = 0;
}

unsigned recorder_failed(void)
{
	return failed;
}

static bool fails(enum file_op op)
{
	if (!(fault.ops & op) || (failed && !fault.lasting) || (!failed && fault.nth--))
		return false;
	failed |= op;
	return true;
}

/* --- recording ------------------------------------------------------------------------ */

/* FILE_TRUNCATE: from offset on the file is no more, len bytes of it, if it became shorter. */
struct entry {
	enum file_op op;
	u64 offset, len;
	u8 *data;
};

/* A file in memory; never touched, so never there, beyond its first few chunks. */
struct copy {
	u8 *data;
	u64 size;
};

static struct {
	bool on;
	dev_t dev;
	ino_t ino;
	struct entry *log;
	u32 nr, max;
	u32 synced;			/* the operations that are in stable */
	struct copy stable, live, disk;
	bool used[FILE_MAX / CHUNK];	/* else zeroes in all three */
} rec;

static bool is_recorded(int fd)
{
	struct stat st;

	return rec.on && !fstat(fd, &st) && st.st_dev == rec.dev && st.st_ino == rec.ino;
}

static void record(int fd, enum file_op op, u64 offset, u64 len, const void *data)
{
	struct entry *e;

	if (!is_recorded(fd))
		return;
	assert_in_range(offset + len, 0, FILE_MAX);
	if (rec.nr == rec.max) {
		rec.max = rec.max ? 2 * rec.max : 256;
		rec.log = reallocarray(rec.log, rec.max, sizeof(*rec.log));
		assert_non_null(rec.log);
	}
	e = &rec.log[rec.nr++];
	*e = (struct entry){ op, offset, len, NULL };
	if (data) {
		e->data = malloc(len);
		assert_non_null(e->data);
		memcpy(e->data, data, len);
	}
}

int __wrap_file_read(int fd, u64 offset, void *buf, size_t len)
{
	if (fails(FILE_READ)) {
		memset(buf, 0xa5, len / 2);
		return -fault.error;
	}
	return __real_file_read(fd, offset, buf, len);
}

int __wrap_file_write(int fd, u64 offset, const void *buf, size_t len)
{
	int rc;

	if (fails(FILE_WRITE)) {
		u64 half = ALIGN_DOWN(offset + len / 2, SECTOR);

		if (fault.torn && half > offset)
			assert_int_equal(__real_file_write(fd, offset, buf, half - offset), 0);
		return -fault.error;
	}
	rc = __real_file_write(fd, offset, buf, len);
	if (!rc)
		record(fd, FILE_WRITE, offset, len, buf);
	return rc;
}

int __wrap_file_sync(int fd)
{
	int rc = fails(FILE_SYNC) ? -fault.error : __real_file_sync(fd);

	if (!rc)
		record(fd, FILE_SYNC, 0, 0, NULL);
	return rc;
}

int __wrap_file_truncate(int fd, u64 size)
{
	u64 old = 0;
	int rc = fails(FILE_TRUNCATE) ? -fault.error : file_size(fd, &old);

	if (!rc)
		rc = __real_file_truncate(fd, size);
	if (!rc)
		record(fd, FILE_TRUNCATE, size, old > size ? old - size : 0, NULL);
	return rc;
}

int __wrap_file_allocate(int fd, u64 offset, u64 len)
{
	int rc = fails(FILE_ALLOCATE) ? -fault.error : __real_file_allocate(fd, offset, len);

	if (!rc)
		record(fd, FILE_ALLOCATE, offset, len, NULL);
	return rc;
}

int __wrap_file_zero(int fd, u64 offset, u64 len, bool unmap)
{
	int rc = fails(FILE_ZERO) ? -fault.error : __real_file_zero(fd, offset, len, unmap);

	if (!rc)
		record(fd, FILE_ZERO, offset, len, NULL);
	return rc;
}

static void new_copy(struct copy *c)
{
	c->data = mmap(NULL, FILE_MAX, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_true(c->data != MAP_FAILED);
}

void recorder_start(const char *path)
{
	u8 chunk[CHUNK], zeroes[CHUNK] = { 0 };
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	ssize_t n;

	recorder_stop();
	assert_int_equal(fstat(fd, &st), 0);
	assert_in_range(st.st_size, 0, FILE_MAX);
	rec.dev = st.st_dev;
	rec.ino = st.st_ino;
	new_copy(&rec.stable);
	new_copy(&rec.live);
	new_copy(&rec.disk);
	rec.stable.size = st.st_size;
	for (u64 at = 0; (n = pread(fd, chunk, CHUNK, at)) > 0; at += CHUNK) {
		if (!memcmp(chunk, zeroes, n))
			continue;
		rec.used[at / CHUNK] = true;
		memcpy(rec.stable.data + at, chunk, n);
		memcpy(rec.live.data + at, chunk, n);
		memcpy(rec.disk.data + at, chunk, n);
	}
	close(fd);
	rec.on = true;
}

void recorder_stop(void)
{
	if (!rec.on)
		return;
	for (u32 i = 0; i < rec.nr; i++)
		free(rec.log[i].data);
	free(rec.log);
	munmap(rec.stable.data, FILE_MAX);
	munmap(rec.live.data, FILE_MAX);
	munmap(rec.disk.data, FILE_MAX);
	memset(&rec, 0, sizeof(rec));
}

u32 recorder_mark(void)
{
	return rec.nr;
}

/* --- power cuts ------------------------------------------------------------------------- */

static void apply(struct copy *c, const struct entry *e)
{
	u64 end = e->offset + e->len;

	switch (e->op) {
	case FILE_WRITE:
		memcpy(c->data + e->offset, e->data, e->len);
		break;
	case FILE_ZERO:
	case FILE_TRUNCATE:
		memset(c->data + e->offset, 0, e->len);
		break;
	default:
		break;
	}
	if (e->op == FILE_TRUNCATE)
		c->size = e->offset;
	else if (e->op != FILE_SYNC)
		c->size = MAX(c->size, end);
	if (e->data)
		for (u64 at = e->offset; at < end; at = ALIGN_DOWN(at, CHUNK) + CHUNK)
			rec.used[at / CHUNK] = true;
}

static void copy_sector(struct copy *to, const struct copy *from, u64 at)
{
	memcpy(to->data + at, from->data + at, SECTOR);
}

/* Which of the operations since the last sync reached the disk, as the whole or in part. */
enum cut { ALL, NONE, SOME, ALL_BUT_ONE, ONE, THE_LATER, LAST_TORN, SECTORS, CUTS };

static bool survives(enum cut cut, u32 i, u32 nr, u32 chosen, u64 *seed)
{
	switch (cut) {
	case NONE:		return false;
	case SOME:		return draw(seed) & 1;
	case ALL_BUT_ONE:	return i != chosen;
	case ONE:		return i == chosen;
	case THE_LATER:		return i >= chosen;
	case LAST_TORN:		return i + 1 < nr || draw(seed) & 1;
	default:		return true;
	}
}

static void write_file(const char *path, const struct copy *c)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	u64 end;

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, c->size), 0);
	for (u64 at = 0; at < c->size; at = end) {
		end = at + CHUNK;
		if (!rec.used[at / CHUNK])
			continue;
		while (end < c->size && rec.used[end / CHUNK])
			end += CHUNK;
		end = MIN(end, c->size);
		assert_int_equal(pwrite(fd, c->data + at, end - at, at), end - at);
	}
	close(fd);
}

void recorder_crash(u32 upto, u64 seed, const char *path)
{
	u32 from = upto, nr, chosen, size_at;
	enum cut cut = draw(&seed) % CUTS;

	assert_in_range(upto, rec.synced, rec.nr);
	while (from > rec.synced && rec.log[from - 1].op != FILE_SYNC)
		from--;
	for (; rec.synced < from; rec.synced++) {
		apply(&rec.stable, &rec.log[rec.synced]);
		apply(&rec.live, &rec.log[rec.synced]);
		apply(&rec.disk, &rec.log[rec.synced]);
	}
	rec.live.size = rec.disk.size = rec.stable.size;
	nr = upto - from;
	chosen = nr ? draw(&seed) % nr : 0;
	/* A file system keeps the changes of a file's size in order. */
	size_at = cut == ALL || cut == LAST_TORN ? nr : cut == NONE ? 0 : draw(&seed) % (nr + 1);
	for (u32 i = 0; i < nr; i++) {
		const struct entry *e = &rec.log[from + i];
		bool whole = survives(cut, i, nr, chosen, &seed);
		bool torn = cut == SECTORS || (cut == LAST_TORN && i + 1 == nr);

		apply(&rec.live, e);
		if (e->op == FILE_TRUNCATE) {
			whole = i < size_at;
			torn = false;
		}
		for (u64 at = ALIGN_DOWN(e->offset, SECTOR); at < e->offset + e->len; at += SECTOR)
			if (torn ? draw(&seed) & 1 : whole)
				copy_sector(&rec.disk, &rec.live, at);
		if (i < size_at)
			rec.disk.size = rec.live.size;
	}
	write_file(path, &rec.disk);
	for (u32 i = from; i < upto; i++)
		for (u64 at = ALIGN_DOWN(rec.log[i].offset, SECTOR);
		     at < rec.log[i].offset + rec.log[i].len; at += SECTOR) {
			copy_sector(&rec.live, &rec.stable, at);
			copy_sector(&rec.disk, &rec.stable, at);
		}
}
