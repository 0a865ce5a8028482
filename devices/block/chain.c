/* chain.c: the files of a disk, their names, and replacing one by another. */
#include "devices/block/chain.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "devices/block/file.h"
#include "devices/block/qcow2.h"

#define TEMP_END ".vmm-new"
#define MARK_END ".vmm-mix"	/* as long: where the one has room, the other has */

void chain_tell(struct chain_job *job, const char *fmt, ...)
{
	char line[2 * PATH_MAX];
	va_list ap;

	if (!job || !job->tell)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	job->tell(job, line);
}

/* --- names ------------------------------------------------------------------------------- */

const char *chain_last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

char *chain_resolve(const char *path)
{
	struct stat st;

	return !lstat(path, &st) && S_ISLNK(st.st_mode) ? realpath(path, NULL) : strdup(path);
}

char *chain_seen_from(const char *path, const char *name)
{
	char *real, *out = NULL;

	if (name[0] == '/')
		return strdup(name);
	real = chain_resolve(path);
	if (real && asprintf(&out, "%.*s%s", (int)(chain_last_part(real) - real), real, name) < 0)
		out = NULL;
	free(real);
	return out;
}

char *chain_directory_of(const char *path)
{
	int len = chain_last_part(path) - path;

	return len ? strndup(path, len) : strdup("./");
}

char *chain_no_protocol(const char *name)
{
	char *out;

	if (name[strcspn(name, ":/")] != ':')
		return strdup(name);
	return asprintf(&out, "./%s", name) < 0 ? NULL : out;
}

/* Relative if that can be, so that a disk may be moved with all its files. */
char *chain_recorded_as(const char *path, const char *file)
{
	char *dir = chain_directory_of(path), *base = dir ? realpath(dir, NULL) : NULL;
	char *real = realpath(file, NULL), *out = NULL;
	size_t len = base ? strlen(base) : 0;

	if (base && real && len > 1 && !strncmp(real, base, len) && real[len] == '/')
		out = chain_no_protocol(real + len + 1);
	else if (real)
		out = strdup(real);
	free(dir);
	free(base);
	free(real);
	return out;
}

bool chain_good_name(const char *name)
{
	size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				  "0123456789._-");

	return len && !name[len] && len <= CHAIN_NAME_MAX && !strchr("._-", *name);
}

/* ".qcow2" of "disk.qcow2"; a dot in front begins a hidden name. */
static const char *extension_of(const char *path)
{
	const char *base = chain_last_part(path), *dot = strrchr(base, '.');

	return dot && dot != base ? dot : base + strlen(base);
}

char *chain_snapshot_path(const char *path, const char *name)
{
	const char *extension = extension_of(path);
	char *out;

	return asprintf(&out, "%.*s@%s%s", (int)(extension - path), path, name, extension) < 0 ?
		NULL : out;
}

bool chain_snapshot_name(const char *path, const struct chain_file *file,
			 char name[CHAIN_NAME_MAX + 1])
{
	const char *base = chain_last_part(path), *extension = extension_of(path);
	const char *other = chain_last_part(file->path);
	size_t stem = extension - base, end = strlen(extension), len = strlen(other);
	struct stat st;
	char *beside;
	bool is;

	if (len < stem + 2 + end || strncmp(other, base, stem) || other[stem] != '@' ||
	    strcmp(other + len - end, extension) || len - end - stem - 1 > CHAIN_NAME_MAX)
		return false;
	snprintf(name, CHAIN_NAME_MAX + 1, "%.*s", (int)(len - end - stem - 1), other + stem + 1);
	beside = chain_good_name(name) ? chain_snapshot_path(path, name) : NULL;
	is = beside && !stat(beside, &st) && st.st_dev == file->dev && st.st_ino == file->ino;
	free(beside);
	return is;
}

bool chain_backing_snapshot(const char *path, const char *backing, char name[CHAIN_NAME_MAX + 1])
{
	struct chain_file below = { .path = chain_seen_from(path, backing) };
	struct stat st;
	bool is = false;

	if (below.path && !stat(below.path, &st)) {
		below.dev = st.st_dev;
		below.ino = st.st_ino;
		is = chain_snapshot_name(path, &below, name);
	}
	free(below.path);
	return is;
}

/* --- the family ---------------------------------------------------------------------------- */

static void file_free(struct chain_file *f)
{
	free(f->path);
	free(f->backing);
	free(f->backing_format);
}

void chain_family_free(struct chain_family *f)
{
	for (unsigned n = 0; n < f->nr; n++)
		file_free(&f->file[n]);
	free(f->file);
	*f = (struct chain_family){ 0 };
}

static bool is_same(const struct chain_file *f, const struct stat *st)
{
	return f->dev == st->st_dev && f->ino == st->st_ino;
}

static struct chain_file *find_file(const struct chain_family *f, const struct stat *st)
{
	for (unsigned n = 0; n < f->nr; n++)
		if (is_same(&f->file[n], st))
			return &f->file[n];
	return NULL;
}

/* As the last of the family. */
static int add_file(struct chain_family *f, const char *path, const char *format, struct err *err)
{
	struct image_options o = { .format = format, .read_only = true, .no_backing = true,
				   .no_lock = true };
	struct chain_file *file = reallocarray(f->file, f->nr + 1, sizeof(*file));
	struct image *i;
	struct stat st;
	int rc;

	if (!file)
		return err_set(err, -ENOMEM, "out of memory");
	f->file = file;
	rc = image_open(&i, path, &o, err);
	if (rc)
		return rc;
	file = &f->file[f->nr];
	if (fstat(i->fd, &st)) {
		rc = err_set(err, -errno, "disk %s: %s", path, strerror(errno));
		image_close(i);
		return rc;
	}
	*file = (struct chain_file){
		.path = strdup(path), .format = i->ops->format, .size = i->size, .parent = -1,
		.on_host = st.st_blocks * 512ULL, .changed = st.st_mtime, .dev = st.st_dev,
		.ino = st.st_ino, .backing = i->backing_path, .backing_format = i->backing_format,
	};
	if (file_is_device(i->fd))
		(void)!file_size(i->fd, &file->on_host);	/* it takes all of it */
	i->backing_path = i->backing_format = NULL;
	image_close(i);
	if (!file->path) {
		file_free(file);
		return err_set(err, -ENOMEM, "out of memory");
	}
	f->nr++;
	return 0;
}

int chain_no_format(const char *path, const char *backing, struct err *err)
{
	return err_set(err, -EINVAL, "disk %s: it does not say what format its backing file %s "
		       "has; record it with 'vmm disk rebase --format'", path, backing);
}

static int add_chain(struct chain_family *f, struct err *err)
{
	struct chain_file *last = &f->file[f->nr - 1];
	struct stat st;
	char *below;
	int rc;

	if (!last->backing_format)
		return chain_no_format(last->path, last->backing, err);
	if (f->nr >= CHAIN_MAX_FILES)
		return err_set(err, -EINVAL, "disk %s: more than %d files deep", last->path,
			       CHAIN_MAX_FILES);
	below = chain_seen_from(last->path, last->backing);
	if (!below)
		return err_set(err, -ENOMEM, "out of memory");
	if (!stat(below, &st) && find_file(f, &st))
		rc = err_set(err, -EINVAL, "disk %s: its backing files go round in a circle",
			     last->path);
	else
		rc = add_file(f, below, last->backing_format, err);
	if (rc == -ENOENT) {
		image_no_backing(below, err);
		err_prefix(err, "disk %s: ", f->file[f->nr - 1].path);
	}
	free(below);
	if (!rc)
		f->file[f->nr - 2].parent = f->nr - 1;
	return rc;
}

/* By way of its own snapshots alone: no other name that the files have in them is opened. */
static int is_based_on(const char *disk, const struct stat *st, struct err *err)
{
	struct chain_family f = { 0 };
	char name[CHAIN_NAME_MAX + 1];
	bool found = false;
	struct err why;
	int rc = add_file(&f, disk, NULL, &why);

	while (!rc && !found) {
		const struct chain_file *last = &f.file[f.nr - 1];

		found = is_same(last, st);
		if (!last->backing || !chain_backing_snapshot(disk, last->backing, name))
			break;
		if (!found)
			rc = add_chain(&f, &why);
	}
	chain_family_free(&f);
	return err_of_host(rc) ? err_set(err, rc, "%s", why.msg) : found;
}

/* DISK.EXT of DISK@NAME.EXT; a name may have dots, too.  NULL: there is none. */
static char *snapshot_of(const char *path, bool extended)
{
	const char *base = chain_last_part(path), *at = strrchr(base, '@');
	const char *extension = at && extended ? strrchr(at, '.') : "";
	char *out;

	if (!at || at == base || !extension)
		return NULL;
	return asprintf(&out, "%.*s%s", (int)(at - path), path, extension) < 0 ? NULL : out;
}

int chain_refuse_snapshot(const struct image *i, struct err *err)
{
	char *path = chain_resolve(i->path);
	struct stat st;
	int rc = 0;

	for (int extended = 0; path && !rc && extended < 2; extended++) {
		char *disk = snapshot_of(path, extended);

		if (fstat(i->fd, &st))
			rc = err_set(err, -errno, "%s", strerror(errno));
		else
			rc = disk ? is_based_on(disk, &st, err) : 0;
		if (rc > 0)
			rc = err_set(err, -EBUSY, "it is a snapshot of %s, which is based on it and would "
				     "no longer be right; add ',readonly', or make a delta of it with "
				     "'vmm disk create --backing'", disk);
		free(disk);
	}
	free(path);
	return rc;
}

static bool is_temp(const char *name)
{
	size_t len = strlen(name), end = strlen(TEMP_END);

	return *name == '.' && len > end && !strcmp(name + len - end, TEMP_END);
}

/* If it is a qcow2 file that has a backing file.  Fails if the host does not say. */
static int add_one_beside(struct chain_family *f, const char *name, struct err *err)
{
	struct stat st;
	int rc;

	if (stat(name, &st))
		return err_of_host(-errno) ? err_set(err, -errno, "disk %s: %s", name, strerror(errno)) : 0;
	if (!S_ISREG(st.st_mode) || find_file(f, &st))
		return 0;
	rc = add_file(f, name, "qcow2", err);
	if (!rc && !f->file[f->nr - 1].backing)
		file_free(&f->file[--f->nr]);
	return err_of_host(rc) ? rc : 0;
}

/* What is no such file is passed over. */
static int list_beside(struct chain_family *f, const char *path, struct err *err)
{
	char *dir = chain_directory_of(path);
	DIR *d = dir ? opendir(dir) : NULL;
	struct dirent *entry;
	int rc = 0;

	while (d && !rc && (errno = 0, entry = readdir(d))) {
		char *name;

		if (is_temp(entry->d_name))
			continue;
		name = chain_seen_from(path, entry->d_name);
		if (name)
			rc = add_one_beside(f, name, err);
		else
			rc = err_set(err, errno ? -errno : -ENOMEM, "%s: %s", entry->d_name, strerror(errno ?: ENOMEM));
		free(name);
	}
	if (!rc && (!d || errno))
		rc = err_set(err, dir ? -errno : -ENOMEM, "its directory cannot be listed: %s",
			     strerror(dir ? errno : ENOMEM));
	if (d)
		closedir(d);
	free(dir);
	return rc;
}

static int find_parents(struct chain_family *f, struct err *err)
{
	int rc = 0;

	for (unsigned n = f->depth; n < f->nr && !rc; n++) {
		char *below = chain_seen_from(f->file[n].path, f->file[n].backing);
		struct chain_file *parent = NULL;
		struct stat st;

		if (!below)
			rc = err_set(err, -ENOMEM, "out of memory");
		else if (!stat(below, &st))
			parent = find_file(f, &st);
		else if (err_of_host(-errno))
			rc = err_set(err, -errno, "%s: %s", below, strerror(errno));
		f->file[n].parent = parent ? parent - f->file : -1;
		free(below);
	}
	return rc;
}

static void add_beside(struct chain_family *f, const char *path)
{
	struct err why;
	bool failed = list_beside(f, path, &why);

	if (find_parents(f, failed ? NULL : &why) || failed) {
		f->unseen = why;
		err_suffix(&f->unseen, "; another image there may be based on it");
	}
}

int chain_family(struct chain_family *f, const char *given, const char *format, struct err *err)
{
	char *path = chain_resolve(given);
	int rc;

	*f = (struct chain_family){ 0 };
	if (!path)
		return err_set(err, -errno, "disk %s: %s", given, strerror(errno));
	rc = add_file(f, path, format, err);
	while (!rc && f->file[f->nr - 1].backing && !add_chain(f, &f->broken))
		;
	f->depth = f->nr;
	if (!rc)
		add_beside(f, path);
	free(path);
	return rc;
}

const struct chain_file *chain_user(const struct chain_family *f, int k)
{
	for (unsigned n = f->depth; n < f->nr; n++)
		if (f->file[n].parent == k)
			return &f->file[n];
	return NULL;
}

int chain_refuse_used(const struct chain_family *f, const char *path, struct err *err)
{
	const struct chain_file *user = chain_user(f, 0);

	if (user)
		return err_set(err, -EBUSY, "disk %s: %s is based on it and would no longer be right;"
			       " 'vmm disk rebase --backing none' makes that one whole", path, user->path);
	return f->unseen.code ? err_set(err, f->unseen.code, "disk %s: %s", path, f->unseen.msg) : 0;
}

/* --- opening, making, replacing --------------------------------------------------------------- */

/* Who replaced it held the lock until just now. */
int chain_still_there(const struct image *i, struct err *err)
{
	struct stat a, b = { 0 };

	if (fstat(i->fd, &a) || (stat(i->path, &b) && errno != ENOENT))
		return err_set(err, -errno, "disk %s: %s", i->path, strerror(errno));
	if (same_file(&a, &b))
		return 0;
	return err_set(err, -EBUSY, "disk %s: another program has just replaced it; try again",
		       i->path);
}

int chain_refuse_device(const struct image *i, struct err *err)
{
	struct stat st;

	if (fstat(i->fd, &st))
		return err_set(err, -errno, "disk %s: %s", i->path, strerror(errno));
	return S_ISREG(st.st_mode) ? 0 :
		err_set(err, -EINVAL, "disk %s: not a file, which could be renamed", i->path);
}

int chain_open(struct image **out, const char *path, const struct image_options *o,
	       struct chain_family *f, struct err *err)
{
	struct image_options own = { .format = o->format, .no_backing = true };
	int rc;

	*f = (struct chain_family){ 0 };
	rc = image_open(out, path, &own, err);
	if (rc)
		return rc;
	rc = chain_still_there(*out, err);
	if (!rc)
		rc = chain_family(f, path, (*out)->ops->format, err);
	if (!rc)
		rc = chain_refuse_used(f, path, err);
	if (rc) {
		image_close(*out);
		*out = NULL;
		chain_family_free(f);
	}
	return rc;
}

void chain_give_back(const char *path, const struct stat *is, const char *format, u64 size)
{
	struct image_options o = { .format = format, .no_backing = true, .is = is };
	struct image *i;

	if (strcmp(format, "qcow2") || image_open(&i, path, &o, NULL))
		return;
	qcow2_trim(i, size);
	image_close(i);
}

void chain_like(const struct image *i, struct image_create *c)
{
	const struct qcow2 *q = i->own;

	c->format = i->ops->format;
	if (i->ops != &qcow2_image)
		return;
	c->cluster = i->cluster;
	c->refcount_bits = 1u << q->refcount_order;
	c->version = q->version;
	c->lazy_refcounts = q->compatible & QCOW2_LAZY_REFCOUNTS;
	c->zstd = q->compression == QCOW2_ZSTD;
}

const char *chain_state(const struct image *i)
{
	const struct qcow2 *q = i->own;

	if (i->ops != &qcow2_image || !(q->incompatible & (QCOW2_DIRTY | QCOW2_CORRUPT)))
		return NULL;
	return q->incompatible & QCOW2_CORRUPT ? "damaged" : "dirty";
}

char *chain_temp(const char *path)
{
	const char *base = chain_last_part(path);
	char *out;

	return asprintf(&out, "%.*s.%s" TEMP_END, (int)(base - path), path, base) < 0 ? NULL : out;
}

static char *mark_of(const char *snapshot)
{
	const char *base = chain_last_part(snapshot);
	char *out;

	return asprintf(&out, "%.*s.%s" MARK_END, (int)(base - snapshot), snapshot, base) < 0 ? NULL : out;
}

/* 1: it is marked, 0: not; -errno.  The mark of another file of that name, which is gone, is none. */
static int is_marked(const char *snapshot, const char *mark)
{
	int fd = open(mark, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), rc = 0;
	char text[24] = "";
	struct stat st;

	if (fd < 0)
		return errno == ENOENT || errno == ENAMETOOLONG ? 0 : -errno;
	if (read(fd, text, sizeof(text) - 1) < 0 || stat(snapshot, &st))
		rc = errno == ENOENT ? 0 : -errno;
	else
		rc = strtoull(text, NULL, 10) == st.st_ino;
	close(fd);
	return rc;
}

static int write_mark(const char *snapshot, const char *mark, struct err *err)
{
	int fd = open(mark, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644), rc;
	struct stat st;

	/* With a name that long it has to do without. */
	if (fd < 0 && errno == ENAMETOOLONG)
		return 0;
	rc = fd < 0 || stat(snapshot, &st) || dprintf(fd, "%llu\n", (unsigned long long)st.st_ino) < 0 || fsync(fd) ?
		err_set(err, -errno, "disk %s: a file beside it: %s", snapshot, strerror(errno)) : 0;
	if (fd >= 0)
		close(fd);
	if (!rc)
		rc = chain_sync_dir(snapshot, err);
	if (rc && fd >= 0)
		unlink(mark);
	return rc;
}

int chain_mark(const char *snapshot, struct err *err)
{
	char *mark = mark_of(snapshot);
	int rc = mark ? is_marked(snapshot, mark) : -ENOMEM;

	if (rc < 0)
		err_set(err, rc, "disk %s: a file beside it: %s", snapshot, strerror(-rc));
	else	/* or it is, by who was interrupted, who may have been another user */
		rc = rc ? 0 : write_mark(snapshot, mark, err);
	free(mark);
	return rc;
}

void chain_unmark(const char *snapshot)
{
	char *mark = mark_of(snapshot);

	if (mark)
		unlink(mark);
	free(mark);
}

int chain_refuse_marked(const char *given, struct err *err)
{
	char *path = chain_resolve(given), *mark = path ? mark_of(path) : NULL;
	/* Who opens it will say that it is not there. */
	int rc = mark ? is_marked(path, mark) : path ? -ENOMEM : 0;

	free(mark);
	free(path);
	if (rc <= 0)
		return rc ? err_set(err, rc, "disk %s: whether it is whole: %s", given, strerror(-rc)) : 0;
	return err_set(err, -EBUSY, "disk %s: it has a part of the disk that is based on it, whose 'vmm disk commit', or "
		       "'delete', was interrupted; 'vmm disk commit' of that one goes on", given);
}

int chain_refuse_long_name(const char *path, struct err *err)
{
	char *temp = chain_temp(path);
	struct stat st;
	bool is_long = temp && lstat(temp, &st) && errno == ENAMETOOLONG;

	free(temp);
	return is_long ? err_set(err, -ENAMETOOLONG, "disk %s: too long a name: what is to have it is .NAME"
				 TEMP_END " until it is whole; give it a shorter one", path) : 0;
}

int chain_make(const char *path, const char *temp, const struct image_create *asked,
	       struct err *err)
{
	struct image_create c = *asked;
	int rc = chain_refuse_long_name(path, err);
	struct stat st;

	if (rc)
		return rc;
	/* The lock on path is held: what is there is from one who did not come to an end. */
	unlink(temp);
	c.called = path;
	/* Whoever could use the disk can go on doing so; an owner only root may set. */
	c.like = stat(path, &st) ? NULL : &st;
	return image_create(temp, &c, err);
}

int chain_sync_dir(const char *path, struct err *err)
{
	char *dir = chain_directory_of(path);
	int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	int rc = fd < 0 ? -errno : 0;

	/* Some file systems do not sync directories, and need not. */
	if (!rc && fsync(fd) && errno != EINVAL && errno != EBADF)
		rc = -errno;
	if (fd >= 0)
		close(fd);
	free(dir);
	return rc ? err_set(err, rc, "the directory of %s: %s", path, strerror(-rc)) : 0;
}

int chain_replace(const char *temp, const char *path, bool *done, struct err *err)
{
	int rc = chain_sync_dir(path, err);

	*done = false;
	if (rc)
		return rc;
	if (rename(temp, path))
		return err_set(err, -errno, "disk %s: renaming %s to it: %s", path, temp,
			       strerror(errno));
	*done = true;
	return chain_sync_dir(path, err);
}

int chain_settle(struct image *i)
{
	int rc = 0;

	/* Twice: what was freed since the first is given back by the second. */
	for (int n = 0; n < 2 && !rc; n++) {
		rc = image_flush(i);
		if (!rc)
			image_reclaim(i);
	}
	return rc ? rc : image_flush(i);
}
