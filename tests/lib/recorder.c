/* recorder.c: see recorder.h. */
#include "tests/lib/recorder.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include "devices/block/file.h"
#include "tests/lib/test.h"

enum { SECTOR = 512, CHUNK = 4096, FILES_MAX = 256, NAME_LEN = 256 };
#define FILE_MAX	GIB

#define WRAP(type, name, ...) \
	type __real_##name(__VA_ARGS__); \
	type __wrap_##name(__VA_ARGS__)

WRAP(int, file_read, int fd, u64 offset, void *buf, size_t len);
WRAP(int, file_write, int fd, u64 offset, const void *buf, size_t len);
WRAP(int, file_sync, int fd);
WRAP(int, file_truncate, int fd, u64 size);
WRAP(int, file_allocate, int fd, u64 offset, u64 len);
WRAP(int, file_zero, int fd, u64 offset, u64 len, bool unmap);
WRAP(ssize_t, preadv, int fd, const struct iovec *iov, int nr, off_t offset);
WRAP(ssize_t, pwritev, int fd, const struct iovec *iov, int nr, off_t offset);
WRAP(int, fdatasync, int fd);
WRAP(int, fallocate, int fd, int mode, off_t offset, off_t len);
WRAP(int, open, const char *path, int flags, ...);
WRAP(int, link, const char *from, const char *to);
WRAP(int, linkat, int from_dir, const char *from, int to_dir, const char *to, int flags);
WRAP(int, rename, const char *from, const char *to);
WRAP(int, unlink, const char *path);
WRAP(int, fsync, int fd);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
/* file.c is at work: what it asks of the host has been seen. */
static __thread bool inside;

/* --- failures and waits ------------------------------------------------------------------ */

static struct fault fault;
static unsigned failed, hold, nr_held;
static u64 count[FILE_OPS], nr_direct;

void recorder_fail(const struct fault *f)
{
	pthread_mutex_lock(&lock);
	fault = f ? *f : (struct fault){ 0 };
	failed = 0;
	pthread_mutex_unlock(&lock);
}

unsigned recorder_failed(void)
{
	unsigned ops;

	pthread_mutex_lock(&lock);
	ops = failed;
	pthread_mutex_unlock(&lock);
	return ops;
}

u64 recorder_count(unsigned ops)
{
	u64 n = 0;

	pthread_mutex_lock(&lock);
	for (int i = 0; i < FILE_OPS; i++)
		n += ops >> i & 1 ? count[i] : 0;
	pthread_mutex_unlock(&lock);
	return n;
}

u64 recorder_direct(void)
{
	return load_once(&nr_direct);
}

void recorder_hold(unsigned ops)
{
	pthread_mutex_lock(&lock);
	hold = ops;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

unsigned recorder_held(void)
{
	unsigned n;

	pthread_mutex_lock(&lock);
	n = nr_held;
	pthread_mutex_unlock(&lock);
	return n;
}

/* What the operation begins with; true: it is to fail. */
static bool fails(enum file_op op)
{
	bool now;

	pthread_mutex_lock(&lock);
	if (hold & op) {
		nr_held++;
		while (hold & op)
			pthread_cond_wait(&changed, &lock);
		nr_held--;
	}
	now = fault.ops & op && (!failed || fault.lasting) && (failed || !fault.nth--);
	if (now)
		failed |= op;
	pthread_mutex_unlock(&lock);
	return now;
}

static void ended(enum file_op op)
{
	pthread_mutex_lock(&lock);
	count[__builtin_ctz(op)]++;
	pthread_mutex_unlock(&lock);
}

/* --- recording ------------------------------------------------------------------------ */

struct copy {
	u8 *data;
	u64 size;
};

/* In memory; never touched, so never there, beyond its first few chunks. */
struct file {
	dev_t dev;
	ino_t ino;
	u32 synced;			/* the operations before this one are in stable */
	struct copy stable, live, disk;
	bool *used;			/* chunks, else zeroes in all three */
};

/*
 * FILE_TRUNCATE: from offset on the file is no more, len bytes of it, if it became
 * shorter.  FILE_SYNC, FILE_DIR_SYNC: those before `covers` are for good.  The others
 * about names: name is `file` from now on, and gone is nobody's name.
 */
struct entry {
	enum file_op op;
	int file;
	u64 offset, len;
	u8 *data;
	u32 covers;
	char name[NAME_LEN], gone[NAME_LEN];
};

struct name { char name[NAME_LEN]; int file; };
struct names { struct name name[FILES_MAX]; int nr; };

static struct {
	bool on;
	dev_t dir_dev;
	ino_t dir_ino;			/* 0: of one file only */
	struct file file[FILES_MAX];
	int nr_files;
	struct names names;		/* those for good, by the operations before names_synced */
	u32 names_synced;
	struct entry *log;
	u32 nr, max;
} rec;

static int find_file(const struct stat *st)
{
	for (int i = 0; i < rec.nr_files; i++)
		if (rec.file[i].dev == st->st_dev && rec.file[i].ino == st->st_ino)
			return i;
	return -1;
}

/* Under lock, as all of these; -1: not a recorded one. */
static int file_of(int fd)
{
	struct stat st;

	return rec.on && !fstat(fd, &st) ? find_file(&st) : -1;
}

static struct entry *new_entry(enum file_op op, int file)
{
	struct entry *e;

	if (rec.nr == rec.max) {
		rec.max = rec.max ? 2 * rec.max : 256;
		rec.log = reallocarray(rec.log, rec.max, sizeof(*rec.log));
		assert_non_null(rec.log);
	}
	e = &rec.log[rec.nr++];
	*e = (struct entry){ .op = op, .file = file };
	return e;
}

static void record(int fd, enum file_op op, u64 offset, u64 len, const void *data)
{
	struct entry *e;
	int file;

	pthread_mutex_lock(&lock);
	file = file_of(fd);
	if (file >= 0) {
		assert_in_range(offset + len, 0, FILE_MAX);
		e = new_entry(op, file);
		e->offset = offset;
		e->len = len;
		if (data) {
			e->data = malloc(len);
			assert_non_null(e->data);
			memcpy(e->data, data, len);
		}
	}
	pthread_mutex_unlock(&lock);
}

/* What was not done when it began it does not cover. */
static void record_sync(int fd, u32 covers)
{
	struct stat st;
	int file;

	pthread_mutex_lock(&lock);
	file = file_of(fd);
	if (file >= 0)
		new_entry(FILE_SYNC, file)->covers = covers;
	else if (rec.on && rec.dir_ino && !fstat(fd, &st) && st.st_dev == rec.dir_dev &&
		 st.st_ino == rec.dir_ino)
		new_entry(FILE_DIR_SYNC, -1)->covers = covers;
	pthread_mutex_unlock(&lock);
}

u32 recorder_mark(void)
{
	u32 nr;

	pthread_mutex_lock(&lock);
	nr = rec.nr;
	pthread_mutex_unlock(&lock);
	return nr;
}

/* --- files -------------------------------------------------------------------------------- */

int __wrap_file_read(int fd, u64 offset, void *buf, size_t len)
{
	int rc;

	if (fails(FILE_READ)) {
		memset(buf, 0xa5, len / 2);
		rc = -fault.error;
	} else {
		rc = __real_file_read(fd, offset, buf, len);
	}
	ended(FILE_READ);
	return rc;
}

static int torn_write(int fd, u64 offset, const void *buf, size_t len)
{
	u64 half = ALIGN_DOWN(offset + len / 2, SECTOR);

	if (fault.torn && half > offset)
		assert_int_equal(__real_file_write(fd, offset, buf, half - offset), 0);
	return -fault.error;
}

int __wrap_file_write(int fd, u64 offset, const void *buf, size_t len)
{
	int rc = fails(FILE_WRITE) ? torn_write(fd, offset, buf, len) :
		 __real_file_write(fd, offset, buf, len);

	if (!rc)
		record(fd, FILE_WRITE, offset, len, buf);
	ended(FILE_WRITE);
	return rc;
}

int __wrap_file_sync(int fd)
{
	bool fail = fails(FILE_SYNC);
	u32 covers = recorder_mark();
	int rc;

	inside = true;
	rc = fail ? -fault.error : __real_file_sync(fd);
	inside = false;
	if (!rc)
		record_sync(fd, covers);
	ended(FILE_SYNC);
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
	ended(FILE_TRUNCATE);
	return rc;
}

int __wrap_file_allocate(int fd, u64 offset, u64 len)
{
	int rc = fails(FILE_ALLOCATE) ? -fault.error : __real_file_allocate(fd, offset, len);

	if (!rc)
		record(fd, FILE_ALLOCATE, offset, len, NULL);
	ended(FILE_ALLOCATE);
	return rc;
}

int __wrap_file_zero(int fd, u64 offset, u64 len, bool unmap)
{
	int rc;

	inside = true;
	rc = fails(FILE_ZERO) ? -fault.error : __real_file_zero(fd, offset, len, unmap);
	inside = false;
	if (!rc)
		record(fd, FILE_ZERO, offset, len, NULL);
	ended(FILE_ZERO);
	return rc;
}

/* --- what aio's threads do ----------------------------------------------------------------- */

static int refuse(void)
{
	errno = fault.error;
	return -1;
}

static void count_direct(int fd)
{
	if (fcntl(fd, F_GETFL) & O_DIRECT)
		__atomic_add_fetch(&nr_direct, 1, __ATOMIC_RELAXED);
}

ssize_t __wrap_preadv(int fd, const struct iovec *iov, int nr, off_t offset)
{
	ssize_t n = fails(FILE_READ) ? refuse() : __real_preadv(fd, iov, nr, offset);

	count_direct(fd);
	ended(FILE_READ);
	return n;
}

ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int nr, off_t offset)
{
	ssize_t n = fails(FILE_WRITE) ? refuse() : __real_pwritev(fd, iov, nr, offset), left = n;

	for (int i = 0; left > 0; i++) {
		size_t k = MIN((size_t)left, iov[i].iov_len);

		record(fd, FILE_WRITE, offset, k, iov[i].iov_base);
		offset += k;
		left -= k;
	}
	count_direct(fd);
	ended(FILE_WRITE);
	return n;
}

int __wrap_fdatasync(int fd)
{
	u32 covers;
	int rc;

	if (inside)
		return __real_fdatasync(fd);
	rc = fails(FILE_SYNC);
	covers = recorder_mark();
	rc = rc ? refuse() : __real_fdatasync(fd);
	if (!rc)
		record_sync(fd, covers);
	ended(FILE_SYNC);
	return rc;
}

int __wrap_fallocate(int fd, int mode, off_t offset, off_t len)
{
	int rc;

	if (inside)
		return __real_fallocate(fd, mode, offset, len);
	rc = fails(FILE_ZERO) ? refuse() : __real_fallocate(fd, mode, offset, len);
	if (!rc && mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		record(fd, FILE_ZERO, offset, len, NULL);
	ended(FILE_ZERO);
	return rc;
}

/* --- names -------------------------------------------------------------------------------- */

/* The name in the recorded directory; NULL: it is somewhere else. */
static const char *name_in_dir(const char *path)
{
	const char *slash = strrchr(path, '/');
	char dir[256] = ".";
	struct stat st;

	if (slash)
		snprintf(dir, sizeof(dir), "%.*s", (int)(slash - path), path);
	if (!rec.on || !rec.dir_ino || stat(dir, &st) || st.st_dev != rec.dir_dev ||
	    st.st_ino != rec.dir_ino)
		return NULL;
	return slash ? slash + 1 : path;
}

static void new_copy(struct copy *c)
{
	c->data = mmap(NULL, FILE_MAX, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_true(c->data != MAP_FAILED);
}

static int add_file(const struct stat *st)
{
	struct file *f = &rec.file[rec.nr_files];

	assert_in_range(rec.nr_files, 0, FILES_MAX - 1);
	*f = (struct file){ .dev = st->st_dev, .ino = st->st_ino };
	new_copy(&f->stable);
	new_copy(&f->live);
	new_copy(&f->disk);
	f->used = calloc(FILE_MAX / CHUNK, 1);
	assert_non_null(f->used);
	return rec.nr_files++;
}

static void record_name(enum file_op op, const char *path, const char *gone, int file)
{
	struct entry *e = new_entry(op, file);

	snprintf(e->name, NAME_LEN, "%s", path ? path : "");
	snprintf(e->gone, NAME_LEN, "%s", gone ? gone : "");
}

const char *recorder_null;

int __wrap_open(const char *path, int flags, ...)
{
	mode_t mode = 0;
	const char *name;
	struct stat st;
	va_list ap;
	int fd;

	if (recorder_null && !strcmp(path, recorder_null))
		path = "/dev/null";
	if (!(flags & O_CREAT))
		return __real_open(path, flags);
	va_start(ap, flags);
	mode = va_arg(ap, unsigned);
	va_end(ap);
	fd = fails(FILE_CREATE) ? refuse() : __real_open(path, flags, mode);
	pthread_mutex_lock(&lock);
	name = fd < 0 ? NULL : name_in_dir(path);
	if (name && !fstat(fd, &st)) {
		int file = find_file(&st);

		/* An inode's number may have been another's, who is gone. */
		if (file >= 0 && flags & O_EXCL)
			rec.file[file].ino = 0;
		if (file < 0 || flags & O_EXCL)
			record_name(FILE_CREATE, name, NULL, add_file(&st));
	}
	pthread_mutex_unlock(&lock);
	ended(FILE_CREATE);
	return fd;
}

static int linked(int rc, const char *to)
{
	struct stat st;

	pthread_mutex_lock(&lock);
	if (!rc && name_in_dir(to) && !stat(to, &st))
		record_name(FILE_LINK, name_in_dir(to), NULL, find_file(&st));
	pthread_mutex_unlock(&lock);
	ended(FILE_LINK);
	return rc;
}

int __wrap_link(const char *from, const char *to)
{
	return linked(fails(FILE_LINK) ? refuse() : __real_link(from, to), to);
}

int __wrap_linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
	return linked(fails(FILE_LINK) ? refuse() : __real_linkat(from_dir, from, to_dir, to, flags), to);
}

int __wrap_rename(const char *from, const char *to)
{
	int rc = fails(FILE_RENAME) ? refuse() : __real_rename(from, to);
	struct stat st;

	pthread_mutex_lock(&lock);
	/* Of two names of one file both stay. */
	if (!rc && name_in_dir(to) && !stat(to, &st) && access(from, F_OK))
		record_name(FILE_RENAME, name_in_dir(to), name_in_dir(from), find_file(&st));
	pthread_mutex_unlock(&lock);
	ended(FILE_RENAME);
	return rc;
}

int __wrap_unlink(const char *path)
{
	int rc = fails(FILE_UNLINK) ? refuse() : __real_unlink(path);

	pthread_mutex_lock(&lock);
	if (!rc && name_in_dir(path))
		record_name(FILE_UNLINK, NULL, name_in_dir(path), -1);
	pthread_mutex_unlock(&lock);
	ended(FILE_UNLINK);
	return rc;
}

int __wrap_fsync(int fd)
{
	int rc = fails(FILE_DIR_SYNC);
	u32 covers = recorder_mark();

	rc = rc ? refuse() : __real_fsync(fd);
	if (!rc)
		record_sync(fd, covers);
	ended(FILE_DIR_SYNC);
	return rc;
}

/* --- start and stop -------------------------------------------------------------------------- */

static void load(const char *path, int n)
{
	struct file *f = &rec.file[n];
	u8 chunk[CHUNK], zeroes[CHUNK] = { 0 };
	int fd = __real_open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	ssize_t k;

	assert_int_equal(fstat(fd, &st), 0);
	assert_in_range(st.st_size, 0, FILE_MAX);
	f->stable.size = f->live.size = f->disk.size = st.st_size;
	for (u64 at = 0; (k = pread(fd, chunk, CHUNK, at)) > 0; at += CHUNK) {
		if (!memcmp(chunk, zeroes, k))
			continue;
		f->used[at / CHUNK] = true;
		memcpy(f->stable.data + at, chunk, k);
		memcpy(f->live.data + at, chunk, k);
		memcpy(f->disk.data + at, chunk, k);
	}
	close(fd);
}

void recorder_start(const char *path)
{
	struct stat st;

	recorder_stop();
	assert_int_equal(stat(path, &st), 0);
	load(path, add_file(&st));
	rec.on = true;
}

void recorder_start_dir(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *entry;
	struct stat st;

	recorder_stop();
	assert_true(d && !fstat(dirfd(d), &st));
	rec.dir_dev = st.st_dev;
	rec.dir_ino = st.st_ino;
	while ((entry = readdir(d))) {
		char path[512];
		int n;

		snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
		if (stat(path, &st) || !S_ISREG(st.st_mode))
			continue;
		n = find_file(&st);
		if (n < 0) {
			n = add_file(&st);
			load(path, n);
		}
		rec.names.name[rec.names.nr].file = n;
		snprintf(rec.names.name[rec.names.nr++].name, NAME_LEN, "%s", entry->d_name);
	}
	closedir(d);
	rec.on = true;
}

void recorder_stop(void)
{
	pthread_mutex_lock(&lock);
	for (u32 i = 0; i < rec.nr; i++)
		free(rec.log[i].data);
	free(rec.log);
	for (int i = 0; i < rec.nr_files; i++) {
		struct file *f = &rec.file[i];

		munmap(f->stable.data, FILE_MAX);
		munmap(f->live.data, FILE_MAX);
		munmap(f->disk.data, FILE_MAX);
		free(f->used);
	}
	memset(&rec, 0, sizeof(rec));
	pthread_mutex_unlock(&lock);
}

/* --- power cuts ------------------------------------------------------------------------- */

static void apply(struct file *f, struct copy *c, const struct entry *e)
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
			f->used[at / CHUNK] = true;
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

static int write_file(const char *path, const struct file *f)
{
	int fd = __real_open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	const struct copy *c = &f->disk;
	int rc = fd < 0 || ftruncate(fd, c->size) ? -errno : 0;
	u64 end;

	for (u64 at = 0; at < c->size && !rc; at = end) {
		end = at + CHUNK;
		if (!f->used[at / CHUNK])
			continue;
		while (end < c->size && f->used[end / CHUNK])
			end += CHUNK;
		end = MIN(end, c->size);
		rc = __real_file_write(fd, at, c->data + at, end - at);
	}
	if (fd >= 0)
		close(fd);
	return rc;
}

static bool is_of(const struct entry *e, int file)
{
	return e->file == file && e->op & FILE_DATA_OPS;
}

/* All before that is for good: what the last sync before upto covers. */
static u32 covered(enum file_op sync, int file, u32 upto)
{
	u32 covers = 0;

	for (u32 i = 0; i < upto; i++)
		if (rec.log[i].op == sync && rec.log[i].file == file)
			covers = MAX(covers, rec.log[i].covers);
	return covers;
}

/* disk becomes what is left of the file. */
static u32 cut_file(int n, u32 upto, u64 seed)
{
	struct file *f = &rec.file[n];
	u32 from = covered(FILE_SYNC, n, upto), nr = 0, chosen, size_at, k = 0;
	enum cut cut = draw(&seed) % CUTS;

	for (; f->synced < from; f->synced++) {
		const struct entry *e = &rec.log[f->synced];

		if (!is_of(e, n))
			continue;
		apply(f, &f->stable, e);
		apply(f, &f->live, e);
		apply(f, &f->disk, e);
	}
	f->live.size = f->disk.size = f->stable.size;
	for (u32 i = from; i < upto; i++)
		nr += is_of(&rec.log[i], n);
	chosen = nr ? draw(&seed) % nr : 0;
	/* A file system keeps the changes of a file's size in order. */
	size_at = cut == ALL || cut == LAST_TORN ? nr : cut == NONE ? 0 : draw(&seed) % (nr + 1);
	for (u32 i = from; i < upto; i++) {
		const struct entry *e = &rec.log[i];
		bool whole, torn;

		if (!is_of(e, n))
			continue;
		whole = survives(cut, k, nr, chosen, &seed);
		torn = cut == SECTORS || (cut == LAST_TORN && k + 1 == nr);
		apply(f, &f->live, e);
		if (e->op == FILE_TRUNCATE) {
			whole = k < size_at;
			torn = false;
		}
		for (u64 at = ALIGN_DOWN(e->offset, SECTOR); at < e->offset + e->len; at += SECTOR)
			if (torn ? draw(&seed) & 1 : whole)
				copy_sector(&f->disk, &f->live, at);
		if (k++ < size_at)
			f->disk.size = f->live.size;
	}
	return from;
}

/* As it was after the last sync, for the next cut. */
static void mend_file(int n, u32 from, u32 upto)
{
	struct file *f = &rec.file[n];

	for (u32 i = from; i < upto; i++) {
		const struct entry *e = &rec.log[i];

		if (!is_of(e, n))
			continue;
		for (u64 at = ALIGN_DOWN(e->offset, SECTOR); at < e->offset + e->len; at += SECTOR) {
			copy_sector(&f->live, &f->stable, at);
			copy_sector(&f->disk, &f->stable, at);
		}
	}
}

static int leave_file(int n, u32 upto, u64 seed, const char *path)
{
	u32 from = cut_file(n, upto, seed);
	int rc = write_file(path, &rec.file[n]);

	mend_file(n, from, upto);
	return rc;
}

static void set_name(struct names *names, const char *name, int file)
{
	int i = 0;

	while (i < names->nr && strcmp(names->name[i].name, name))
		i++;
	if (file < 0) {
		if (i < names->nr)
			names->name[i] = names->name[--names->nr];
		return;
	}
	assert_in_range(i, 0, FILES_MAX - 1);
	names->nr = MAX(names->nr, i + 1);
	names->name[i].file = file;
	snprintf(names->name[i].name, NAME_LEN, "%s", name);
}

static void apply_name(struct names *names, const struct entry *e)
{
	if (*e->name)
		set_name(names, e->name, e->file);
	if (*e->gone)
		set_name(names, e->gone, -1);
}

static bool is_name(const struct entry *e)
{
	return e->op & (FILE_CREATE | FILE_LINK | FILE_RENAME | FILE_UNLINK);
}

static void cut_names(struct names *left, u32 upto, u64 seed)
{
	u32 from = covered(FILE_DIR_SYNC, -1, upto), nr = 0, chosen, k = 0;
	enum cut cut = draw(&seed) % LAST_TORN;

	for (; rec.names_synced < from; rec.names_synced++)
		if (is_name(&rec.log[rec.names_synced]))
			apply_name(&rec.names, &rec.log[rec.names_synced]);
	*left = rec.names;
	for (u32 i = from; i < upto; i++)
		nr += is_name(&rec.log[i]);
	chosen = nr ? draw(&seed) % nr : 0;
	for (u32 i = from; i < upto; i++)
		if (is_name(&rec.log[i]) && survives(cut, k++, nr, chosen, &seed))
			apply_name(left, &rec.log[i]);
}

static int leave_dir(u32 upto, u64 seed, const char *dir)
{
	static struct names left;
	char path[512], first[512];
	int rc = 0;

	cut_names(&left, upto, draw(&seed));
	for (int i = 0; i < left.nr && !rc; i++) {
		int same = 0;

		snprintf(path, sizeof(path), "%s/%s", dir, left.name[i].name);
		while (left.name[same].file != left.name[i].file)
			same++;
		if (same == i) {
			rc = leave_file(left.name[i].file, upto, draw(&seed), path);
			continue;
		}
		snprintf(first, sizeof(first), "%s/%s", dir, left.name[same].name);
		rc = __real_link(first, path) ? -errno : 0;
	}
	return rc;
}

void recorder_crash(u32 upto, u64 seed, const char *path)
{
	int rc;

	pthread_mutex_lock(&lock);
	rc = upto > rec.nr ? -ERANGE : rec.dir_ino ? leave_dir(upto, seed, path) :
	     leave_file(0, upto, seed, path);
	pthread_mutex_unlock(&lock);
	/* Whoever ends the test asks for the lock. */
	if (rc)
		fail_msg("%s: %s", path, strerror(-rc));
}
