/* snapshot.c: saving a paused machine into two files, and making one from them. */
#include "vmm/snapshot.h"
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include "devices/block/blk.h"
#include "devices/block/chain.h"
#include "devices/block/file.h"
#include "vmm/core/log.h"
#include "vmm/core/state.h"

enum { VERSION = SNAPSHOT_VERSION, ID_LEN = SNAPSHOT_ID_LEN, STATE_MAX = 64 << 20, COPY = 1 << 20 };

/* After the name of the memory file. */
#define WORKING_SET	".working-set"
#define ASIDE		".before"	/* what the state needs until that is replaced, too */

static const char magic[8] = "VMMSTATE", mem_magic[8] = "VMM-RAM", diff_magic[8] = "VMM-DIFF";
static const char set_magic[8] = "VMM-WSET";

struct trailer {
	char magic[8];
	u32 version, crc;		/* little-endian; of the tree and of what stands above */
	u64 mem_size;
	u8 id[ID_LEN];
	u8 reserved[24];
};
_Static_assert(sizeof(struct trailer) == 64, "trailer");

/* The last bytes of a memory file. */
struct mem_trailer {
	char magic[8];
	u64 size, map_len;		/* of RAM, of a diff's map after it; little-endian */
	u8 id[ID_LEN], base[ID_LEN];
};

/* In front of a working set's bits. */
struct set_header {
	char magic[8];
	u64 size;			/* of RAM, little-endian */
	u8 id[ID_LEN];
};

struct snapshot {
	char *state_path, *mem_path;	/* without mem_fd: the handler's socket */
	void *tree;
	size_t tree_len;
	int mem_fd;
	struct trailer trailer;
	struct mem_trailer mem_trailer;
};

/* CRC-32C, the bytes of a state at most: a table of 16 is quick enough. */
static u32 crc32c(u32 crc, const void *data, size_t len)
{
	static const u32 table[16] = {
		0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
		0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
		0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
	};
	const u8 *p = data;

	crc = ~crc;
	while (len--) {
		crc = table[(crc ^ *p) & 15] ^ crc >> 4;
		crc = table[(crc ^ *p++ >> 4) & 15] ^ crc >> 4;
	}
	return ~crc;
}

static u32 checksum(const void *tree, size_t len, const struct trailer *t)
{
	struct trailer copy = *t;

	copy.crc = 0;
	return crc32c(crc32c(0, tree, len), &copy, sizeof(copy));
}

/* --- save -------------------------------------------------------------------------------------- */

struct new_file {
	const char *path;
	char *temp;
	int fd;
};

static const char new_suffix[] = ".new-XXXXXX";

static int new_file(struct new_file *f, const char *path, struct err *err)
{
	*f = (struct new_file){ .path = path, .fd = -1 };
	if (asprintf(&f->temp, "%s%s", path, new_suffix) < 0) {
		f->temp = NULL;
		return err_set(err, -ENOMEM, "out of memory");
	}
	f->fd = mkostemp(f->temp, O_CLOEXEC);
	if (f->fd >= 0)
		return 0;
	free(f->temp);
	f->temp = NULL;
	return err_set(err, -errno, "snapshot %s: %s", path, strerror(errno));
}

/* However their paths are written, one would take the other's place. */
static int check_apart(const struct new_file *a, const struct new_file *b, struct err *err)
{
	char *one = realpath(a->temp, NULL), *two = realpath(b->temp, NULL);
	int rc = 0;

	if (!one || !two)
		rc = err_set(err, -errno, "snapshot %s: %s", one ? b->path : a->path, strerror(errno));
	else if (strlen(one) == strlen(two) && !strncmp(one, two, strlen(one) - strlen(new_suffix)))
		rc = err_set(err, -EINVAL, "snapshot %s: state and memory are two files; give each a name",
			     a->path);
	free(one);
	free(two);
	return rc;
}

/* What has been written, under its name. */
static int keep_file(struct new_file *f, struct err *err)
{
	int rc = rename(f->temp, f->path) ? -errno : 0;

	if (rc)
		return err_set(err, rc, "snapshot %s: %s", f->path, strerror(-rc));
	free(f->temp);
	f->temp = NULL;
	rc = chain_sync_dir(f->path, err);
	return rc ? err_prefix(err, "snapshot %s: ", f->path) : 0;
}

static int sync_file(const struct new_file *f, struct err *err)
{
	return fsync(f->fd) ? err_set(err, -errno, "snapshot %s: %s", f->path, strerror(errno)) : 0;
}

static int open_pair(struct snapshot **, const char *, const char *, struct err *) must_check;

static bool are_pair(const char *state, const char *memory)
{
	struct snapshot *s;
	struct err err;

	if (open_pair(&s, state, memory, &err))
		return false;
	snapshot_close(s);
	return true;
}

/* A link to the memory that will be replaced; NULL: there is none, or no links there. */
static char *set_aside(const char *state, const char *memory)
{
	char *aside;

	if (asprintf(&aside, "%s" ASIDE, memory) < 0)
		return NULL;
	/* Of one who was killed between the two. */
	if (!are_pair(state, memory) && are_pair(state, aside))
		(void)!rename(aside, memory);
	unlink(aside);
	if (!link(memory, aside))
		return aside;
	free(aside);
	return NULL;
}

/* At any moment there is a state with its memory, the old or the new. */
static int keep_both(struct new_file *state, struct new_file *memory, struct err *err)
{
	char *aside = set_aside(state->path, memory->path);
	int rc = keep_file(memory, err);

	if (!rc)
		rc = keep_file(state, err);
	if (aside && rc && !memory->temp && !rename(aside, memory->path)) {
		memory->temp = aside;	/* and is gone: nothing to drop */
		return rc;
	}
	if (aside)
		unlink(aside);
	free(aside);
	return rc;
}

/* failed: neither under its name nor under the other is anything left. */
static void drop_file(struct new_file *f, bool failed)
{
	if (f->fd < 0)
		return;
	if (failed)
		unlink(f->temp ?: f->path);
	free(f->temp);
	close(f->fd);
}

static int save_memory(struct machine *m, struct new_file *f, const struct trailer *t, bool diff,
		       struct err *err)
{
	struct mem *mem = machine_mem(m);
	struct mem_trailer mt = { .size = t->mem_size, .map_len = htole64(diff ? mem_dirty_len(mem) : 0) };
	const u64 *pages = diff ? mem_dirty_pages(mem, 0) : NULL;
	u64 size = le64toh(t->mem_size), map = le64toh(mt.map_len);
	int rc = mem_tracks_dirty(mem) ? machine_fetch_dirty(m, err) : 0;

	if (rc)
		return rc;
	memcpy(mt.magic, diff ? diff_magic : mem_magic, sizeof(mt.magic));
	memcpy(mt.id, t->id, ID_LEN);
	memcpy(mt.base, machine_snapshot_id(m), ID_LEN);
	rc = mem_save(mem, f->fd, pages);
	if (!rc && diff)
		rc = file_write(f->fd, size, pages, map);
	if (!rc)
		rc = file_write(f->fd, size + map, &mt, sizeof(mt));
	return rc ? err_set(err, rc, "snapshot %s: %s", f->path, strerror(-rc)) : 0;
}

/* The machine's, as another process has to know it: whole paths, addresses of cards.
 * What is in path is the caller's to free. */
static int portable_config(struct machine *m, bool bases, struct config *c,
			   char *path[CONFIG_MAX_DISKS], struct err *err)
{
	const struct resources *r = machine_resources(m);

	*c = *machine_config(m);
	for (unsigned i = 0; i < c->nr_disks; i++) {
		/* Not as it was given: a snapshot taken since made a delta of it. */
		const char *format = blk_format(r->disk[i]), *file = blk_path(r->disk[i]);

		if (bases && !c->disk[i].read_only) {
			file = blk_base_path(r->disk[i], &format);
			c->disk[i].is_base = true;
		}
		c->disk[i].format = (char *)(uintptr_t)format;
		c->disk[i].guessed = !c->disk[i].is_base && blk_is_guessed(r->disk[i]);
		path[i] = realpath(file, NULL);
		if (!path[i])
			return err_set(err, -errno, "snapshot: disk %s: %s", file, strerror(errno));
		c->disk[i].path = path[i];
	}
	for (unsigned i = 0; i < c->nr_nets; i++) {
		if (!c->net[i].has_mac)
			machine_net_mac(c, i, c->net[i].mac);
		c->net[i].has_mac = true;
	}
	return 0;
}

static int save_state(struct machine *m, bool bases, struct new_file *f, struct trailer *t,
		      struct err *err)
{
	char *path[CONFIG_MAX_DISKS] = { NULL };
	struct state *s = NULL;
	struct config c;
	const void *tree;
	size_t len;
	int rc = portable_config(m, bases, &c, path, err);

	if (!rc)
		rc = state_new_save(&s, err);
	if (rc)
		goto out;
	config_state(&c, s);
	machine_state(m, s);
	rc = state_finish_save(s, &tree, &len, err);
	if (rc) {
		err_prefix(err, "snapshot: ");
		rc = -EIO;		/* the kernel did not tell all */
	} else {
		t->crc = htole32(checksum(tree, len, t));
		rc = file_write(f->fd, 0, tree, len);
		if (!rc)
			rc = file_write(f->fd, len, t, sizeof(*t));
		if (rc)
			err_set(err, rc, "snapshot %s: %s", f->path, strerror(-rc));
	}
out:
	state_free(s);
	for (unsigned i = 0; i < CONFIG_MAX_DISKS; i++)
		free(path[i]);
	return rc;
}

/* Before anything is made. */
static int may_save(struct machine *m, bool diff, struct err *err)
{
	const struct config *c = machine_config(m);

	for (unsigned i = 0; i < c->nr_disks; i++)
		if (c->disk[i].is_base)
			return err_set(err, -EINVAL, "snapshot: this VM was restored without --disk-dir, so "
				       "what it writes to its disks is not kept; only one with it can be saved");
	if (diff && !mem_tracks_dirty(machine_mem(m)))
		return err_set(err, -EINVAL, "snapshot: a diff needs a VM that was started with "
			       "--track-dirty-pages");
	return 0;
}

/* What changed since the VM was made is all there is: the first diff is a whole snapshot. */
static bool was_saved(struct machine *m)
{
	static const u8 none[ID_LEN];

	return memcmp(machine_snapshot_id(m), none, ID_LEN);
}

int snapshot_save(struct machine *m, const char *state_path, const char *memory_path, bool diff,
		  bool bases, struct err *err)
{
	struct trailer t = { .version = htole32(VERSION),
			     .mem_size = htole64(mem_size(machine_mem(m))) };
	struct new_file state, memory = { .fd = -1 };
	int rc = may_save(m, diff, err);

	if (!rc)
		rc = new_file(&state, state_path, err);
	if (rc)
		return rc;
	memcpy(t.magic, magic, sizeof(t.magic));
	if (getrandom(t.id, ID_LEN, 0) != ID_LEN)
		rc = err_set(err, -errno, "snapshot: no random number: %s", strerror(errno));
	if (!rc)
		rc = new_file(&memory, memory_path, err);
	if (!rc)
		rc = check_apart(&state, &memory, err);
	if (!rc)
		rc = save_state(m, bases, &state, &t, err);
	if (!rc)
		rc = save_memory(m, &memory, &t, diff && was_saved(m), err);
	if (!rc)
		rc = sync_file(&memory, err);
	if (!rc)
		rc = sync_file(&state, err);
	if (!rc)
		rc = keep_both(&state, &memory, err);
	if (!rc) {
		memcpy(machine_snapshot_id(m), t.id, ID_LEN);
		if (mem_tracks_dirty(machine_mem(m)))
			mem_forget_dirty(machine_mem(m));
	}
	drop_file(&memory, rc);
	drop_file(&state, rc);
	return rc;
}

/* --- load -------------------------------------------------------------------------------------- */

static int read_tree(struct snapshot *s, struct err *err)
{
	struct stat st;
	int rc, fd = open(s->state_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	u8 *all = NULL;

	if (fd < 0)
		return err_set(err, -errno, "%s", strerror(errno));
	if (fstat(fd, &st) || !S_ISREG(st.st_mode))
		rc = err_set(err, -EINVAL, "not a regular file");
	else if (st.st_size < (off_t)sizeof(struct trailer) || st.st_size > STATE_MAX)
		rc = err_set(err, -EINVAL, "not a machine's state: %lld bytes", (long long)st.st_size);
	else
		rc = (all = malloc(st.st_size)) ? 0 : err_set(err, -ENOMEM, "out of memory");
	if (!rc) {
		rc = file_read(fd, 0, all, st.st_size);
		if (rc)
			err_set(err, rc, "%s", strerror(-rc));
	}
	close(fd);
	s->tree = all;
	if (rc)
		return rc;
	s->tree_len = st.st_size - sizeof(struct trailer);
	memcpy(&s->trailer, all + s->tree_len, sizeof(s->trailer));
	return 0;
}

static int check_tree(struct snapshot *s, struct err *err)
{
	const struct trailer *t = &s->trailer;

	if (memcmp(t->magic, magic, sizeof(magic)))
		return err_set(err, -EINVAL, "not a machine's state, or not all of it");
	if (le32toh(t->version) != VERSION)
		return err_set(err, -EINVAL, "version %u; this vmm knows version %d", le32toh(t->version),
			       VERSION);
	if (le32toh(t->crc) != checksum(s->tree, s->tree_len, t))
		return err_set(err, -EINVAL, "damaged: its checksum is wrong");
	return 0;
}

/* What it is, and whether it has the size for that. */
static int open_memory(const char *path, int *out, struct mem_trailer *mt, struct err *err)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	u64 have, size, map;

	*out = fd;
	if (fd < 0)
		return err_set(err, -errno, "snapshot %s: %s", path, strerror(errno));
	if (fstat(fd, &st) || !S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "snapshot %s: not a regular file", path);
	have = st.st_size;
	if (have < sizeof(*mt) || pread(fd, mt, sizeof(*mt), have - sizeof(*mt)) != sizeof(*mt) ||
	    (memcmp(mt->magic, mem_magic, sizeof(mt->magic)) &&
	     memcmp(mt->magic, diff_magic, sizeof(mt->magic))))
		return err_set(err, -EINVAL, "snapshot %s: not a machine's memory, or not all of it",
			       path);
	size = le64toh(mt->size);
	map = memcmp(mt->magic, diff_magic, sizeof(mt->magic)) ? 0 : size / MEM_PAGE / 8;
	if (size > INT64_MAX / 2 || size % MIB || le64toh(mt->map_len) != map ||
	    have != size + map + sizeof(*mt))
		return err_set(err, -EINVAL, "snapshot %s: damaged: %llu bytes do not fit what it says "
			       "of itself", path, (unsigned long long)have);
	return 0;
}

/* The state, checked. */
static int open_state(struct snapshot **out, const char *path, const char *mem_path, struct err *err)
{
	struct snapshot *s = calloc(1, sizeof(*s));
	int rc;

	*out = s;
	if (!s)
		return err_set(err, -ENOMEM, "out of memory");
	s->mem_fd = -1;
	s->state_path = strdup(path);
	s->mem_path = strdup(mem_path);
	rc = s->state_path && s->mem_path ? read_tree(s, err) : err_set(err, -ENOMEM, "out of memory");
	if (!rc)
		rc = check_tree(s, err);
	return rc ? err_prefix(err, "snapshot %s: ", path), rc : 0;
}

static int open_pair(struct snapshot **out, const char *state_path, const char *memory_path,
		     struct err *err)
{
	struct snapshot *s;
	int rc = open_state(&s, state_path, memory_path, err);

	if (!rc)
		rc = open_memory(memory_path, &s->mem_fd, &s->mem_trailer, err);
	if (!rc && (memcmp(s->mem_trailer.id, s->trailer.id, ID_LEN) ||
		    s->mem_trailer.size != s->trailer.mem_size))
		rc = err_set(err, -EINVAL, "snapshot %s: the memory of another snapshot", memory_path);
	if (rc) {
		snapshot_close(s);
		return rc;
	}
	*out = s;
	return 0;
}

int snapshot_open(struct snapshot **out, const char *state_path, const char *memory_path,
		  struct err *err)
{
	int rc = open_pair(out, state_path, memory_path, err);
	struct err ignored;
	char *aside;

	if (!rc || asprintf(&aside, "%s" ASIDE, memory_path) < 0)
		return rc;
	if (!open_pair(out, state_path, aside, &ignored)) {
		*err = (struct err){ 0 };
		rc = 0;
	}
	free(aside);
	return rc;
}

int snapshot_open_paged(struct snapshot **out, const char *state_path, const char *socket,
			struct err *err)
{
	struct snapshot *s;
	int rc = open_state(&s, state_path, socket, err);

	if (rc) {
		snapshot_close(s);
		return rc;
	}
	memcpy(s->mem_trailer.id, s->trailer.id, ID_LEN);
	*out = s;
	return 0;
}

int snapshot_check_state(const char *state_path, struct err *err)
{
	struct snapshot *s;
	int rc = open_state(&s, state_path, "", err);

	snapshot_close(s);
	return rc;
}

void snapshot_close(struct snapshot *s)
{
	if (!s)
		return;
	if (s->mem_fd >= 0)
		close(s->mem_fd);
	free(s->tree);
	free(s->state_path);
	free(s->mem_path);
	free(s);
}

struct snapshot_info snapshot_info(const struct snapshot *s)
{
	struct snapshot_info i = {
		.mem_size = le64toh(s->trailer.mem_size), .diff = s->mem_trailer.map_len,
	};

	memcpy(i.id, s->mem_trailer.id, ID_LEN);
	memcpy(i.base, s->mem_trailer.base, ID_LEN);
	return i;
}

/* What is no working set of this snapshot changes nothing. */
static void prefetch(const struct snapshot *s, struct mem *mem)
{
	u64 size = mem_size(mem), have = 0, *pages = NULL;
	struct set_header h = { .size = 0 };
	char *path;
	int fd = -1;

	if (asprintf(&path, "%s" WORKING_SET, s->mem_path) < 0)
		return;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		goto out;
	if (file_size(fd, &have) || have != sizeof(h) + mem_dirty_len(mem) ||
	    file_read(fd, 0, &h, sizeof(h)) || memcmp(h.magic, set_magic, sizeof(h.magic)) ||
	    le64toh(h.size) != size || memcmp(h.id, s->trailer.id, ID_LEN)) {
		log_warn("snapshot %s: not a working set of this snapshot, and not used", path);
		goto out;
	}
	pages = malloc(mem_dirty_len(mem));
	if (!pages || file_read(fd, sizeof(h), pages, mem_dirty_len(mem)))
		free(pages);
	else
		mem_prefetch(mem, pages);
out:
	free(path);
	if (fd >= 0)
		close(fd);
}

int snapshot_make_mem(const struct snapshot *s, struct mem **mem, struct err *err)
{
	u64 size = le64toh(s->trailer.mem_size);
	int rc;

	if (s->mem_fd < 0)
		return mem_new_from_pager(mem, size, s->mem_path, err);
	rc = mem_new_from_file(mem, size, s->mem_fd, err);
	if (!rc)
		prefetch(s, *mem);
	return rc;
}

/* machine NULL: only how it was made. */
static int load(struct snapshot *s, struct config *c, struct machine *m, struct err *err)
{
	struct state *state;
	int rc = state_new_load(&state, s->tree, s->tree_len, err);

	if (!rc) {
		config_state(c, state);
		if (m)
			machine_state(m, state);
		if (m || state_failed(state))
			rc = state_finish_load(state, err);
		state_free(state);
	}
	return rc ? err_prefix(err, "snapshot %s: ", s->state_path) : 0;
}

int snapshot_config(struct snapshot *s, struct config *c, struct err *err)
{
	int rc = load(s, c, NULL, err);

	if (!rc && s->mem_trailer.map_len)
		rc = err_set(err, -EINVAL, "snapshot %s: only what changed since the snapshot before; "
			     "'vmm snapshot merge' makes a whole one of both", s->mem_path);
	if (!rc && c->mem != le64toh(s->trailer.mem_size))
		rc = err_set(err, -EINVAL, "snapshot %s: memory of %llu bytes, but of %llu in its files",
			     s->state_path, (unsigned long long)c->mem,
			     (unsigned long long)le64toh(s->trailer.mem_size));
	return rc ? rc : config_check(c, err);
}

int snapshot_load(struct snapshot *s, struct machine *m, struct err *err)
{
	struct config scratch;
	int rc;

	config_init(&scratch);
	rc = load(s, &scratch, m, err);
	config_fini(&scratch);
	return rc;
}

/* --- merge ------------------------------------------------------------------------------------------ */

static int copy_range(int from, int to, u64 at, u64 len, u8 *buf)
{
	while (len) {
		ssize_t n = pread(from, buf, MIN(len, (u64)COPY), at);
		int rc;

		if (n < 0 && errno == EINTR)
			continue;
		rc = n > 0 ? file_write(to, at, buf, n) : n ? -errno : -EIO;
		if (rc)
			return rc;
		at += n;
		len -= n;
	}
	return 0;
}

/* Holes stay holes where the file system tells them. */
static int copy_base(int from, int to, u64 size, u8 *buf)
{
	int rc = ftruncate(to, size) ? -errno : 0;

	for (u64 at = 0; at < size && !rc; ) {
		off_t data = lseek(from, at, SEEK_DATA), end;

		if (data < 0 && errno == ENXIO)
			break;
		if (data < 0)
			data = at;
		end = lseek(from, data, SEEK_HOLE);
		if (end < 0 || (u64)end > size)
			end = size;
		if ((u64)data < size)
			rc = copy_range(from, to, data, end - data, buf);
		at = MAX((u64)end, at + 1);
	}
	return rc;
}

static int copy_diff(int from, int to, u64 size, u8 *buf)
{
	u64 len = size / MEM_PAGE / 8;
	u64 *map = malloc(len);
	int rc = map ? 0 : -ENOMEM;

	if (!rc && pread(from, map, len, size) != (ssize_t)len)
		rc = -EIO;
	for (u64 n = 0; n < size / MEM_PAGE && !rc; n++)
		if (map[n / 64] >> n % 64 & 1)
			rc = copy_range(from, to, n * MEM_PAGE, MEM_PAGE, buf);
	free(map);
	return rc;
}

int snapshot_merge_memory(const char *base, const char *diff, const char *out, struct err *err)
{
	struct new_file f = { .fd = -1 };
	struct mem_trailer bt = { 0 }, dt = { 0 }, t;
	int base_fd = -1, diff_fd = -1;
	u8 *buf = malloc(COPY);
	u64 size = 0;
	int rc = buf ? open_memory(base, &base_fd, &bt, err) :
		       err_set(err, -ENOMEM, "out of memory");

	if (!rc)
		rc = open_memory(diff, &diff_fd, &dt, err);
	if (!rc && (bt.map_len || !dt.map_len))
		rc = err_set(err, -EINVAL, "snapshot %s: %s", bt.map_len ? base : diff, bt.map_len ?
			     "a diff itself; merge it with its own base first" :
			     "whole; there is nothing to merge");
	if (!rc && (bt.size != dt.size || memcmp(dt.base, bt.id, ID_LEN)))
		rc = err_set(err, -EINVAL, "snapshot %s: what changed since another snapshot than %s",
			     diff, base);
	if (!rc)
		rc = new_file(&f, out, err);
	if (!rc) {
		size = le64toh(bt.size);
		t = dt;
		memcpy(t.magic, mem_magic, sizeof(t.magic));
		t.map_len = 0;
		rc = copy_base(base_fd, f.fd, size, buf);
		if (!rc)
			rc = copy_diff(diff_fd, f.fd, size, buf);
		if (!rc)
			rc = file_write(f.fd, size, &t, sizeof(t));
		rc = rc ? err_set(err, rc, "snapshot %s: %s", out, strerror(-rc)) :
			  sync_file(&f, err);
	}
	if (!rc)
		rc = keep_file(&f, err);
	drop_file(&f, rc);
	if (base_fd >= 0)
		close(base_fd);
	if (diff_fd >= 0)
		close(diff_fd);
	free(buf);
	return rc;
}

int snapshot_copy_state(const char *from, const char *to, struct err *err)
{
	struct new_file f = { .fd = -1 };
	struct snapshot *s;
	int rc = open_state(&s, from, "", err);

	if (!rc)
		rc = new_file(&f, to, err);
	if (!rc) {
		/* As it was read: its trailer stands behind it. */
		rc = file_write(f.fd, 0, s->tree, s->tree_len + sizeof(s->trailer));
		rc = rc ? err_set(err, rc, "snapshot %s: %s", to, strerror(-rc)) : sync_file(&f, err);
	}
	if (!rc)
		rc = keep_file(&f, err);
	drop_file(&f, rc);
	snapshot_close(s);
	return rc;
}

/* --- a working set ------------------------------------------------------------------------------------ */

static int write_working_set(struct machine *m, const char *memory, struct err *err)
{
	struct mem *mem = machine_mem(m);
	struct set_header h = { .size = htole64(mem_size(mem)) };
	u64 *pages = malloc(mem_dirty_len(mem));
	struct new_file f = { .fd = -1 };
	char *path = NULL;
	int rc = 0;

	if (!pages || asprintf(&path, "%s" WORKING_SET, memory) < 0)
		rc = err_set(err, -ENOMEM, "out of memory");
	if (!rc)
		rc = new_file(&f, path, err);
	if (!rc) {
		memcpy(h.magic, set_magic, sizeof(h.magic));
		memcpy(h.id, machine_snapshot_id(m), ID_LEN);
		mem_working_set(mem, pages);
		rc = file_write(f.fd, 0, &h, sizeof(h));
		if (!rc)
			rc = file_write(f.fd, sizeof(h), pages, mem_dirty_len(mem));
		rc = rc ? err_set(err, rc, "snapshot %s: %s", path, strerror(-rc)) :
			  sync_file(&f, err);
		if (!rc)
			rc = keep_file(&f, err);
		drop_file(&f, rc);
	}
	free(path);
	free(pages);
	return rc;
}

int snapshot_save_working_set(struct machine *m, const char *dir, struct err *err)
{
	char *state = NULL, *memory = NULL;
	struct snapshot *s = NULL;
	int rc = 0;

	if (asprintf(&state, "%s/state", dir) < 0 || asprintf(&memory, "%s/memory", dir) < 0)
		rc = err_set(err, -ENOMEM, "out of memory");
	if (!rc)
		rc = snapshot_open(&s, state, memory, err);
	if (!rc && memcmp(s->trailer.id, machine_snapshot_id(m), ID_LEN))
		rc = err_set(err, -EINVAL, "snapshot %s: not what this VM was restored from, or it was saved "
			     "since", dir);
	if (!rc)
		rc = write_working_set(m, memory, err);
	snapshot_close(s);
	free(state);
	free(memory);
	return rc;
}

/* --- a directory -------------------------------------------------------------------------------------- */

static void end_disks(struct machine *m, unsigned nr, bool failed)
{
	struct err err;

	for (unsigned i = 0; i < nr; i++) {
		struct blk *disk = machine_resources(m)->disk[i];

		if (machine_config(m)->disk[i].read_only)
			continue;
		if (failed) {
			blk_snapshot_cancel(disk);
			continue;
		}
		/* All of it is on the disk since prepare: the VM is paused. */
		blk_snapshot_take(disk);
		if (blk_snapshot_settle(disk, &err))
			log_warn("%s", err.msg);
	}
}

/* Each has a snapshot that can be cancelled, or none has. */
static int begin_disks(struct machine *m, const char *name, struct err *err)
{
	const struct config *c = machine_config(m);
	unsigned begun = 0;
	int rc = 0;

	for (; begun < c->nr_disks && !rc; begun += !rc)
		if (!c->disk[begun].read_only)
			rc = blk_snapshot_prepare(machine_resources(m)->disk[begun], name, err);
	if (rc)
		end_disks(m, begun, true);
	return rc;
}

int snapshot_save_directory(struct machine *m, const char *dir, bool diff, struct err *err)
{
	char *state = NULL, *memory = NULL;
	int rc = may_save(m, diff, err);

	if (!rc && (asprintf(&state, "%s/state", dir) < 0 || asprintf(&memory, "%s/memory", dir) < 0))
		rc = err_set(err, -ENOMEM, "out of memory");
	if (!rc && mkdir(dir, 0777) && errno != EEXIST)
		rc = err_set(err, -errno, "snapshot %s: %s", dir, strerror(errno));
	if (!rc && !access(state, F_OK))
		rc = err_set(err, -EEXIST, "snapshot %s: there is one already; choose another directory",
			     dir);
	if (!rc)
		rc = begin_disks(m, chain_last_part(dir), err);
	if (!rc) {
		rc = snapshot_save(m, state, memory, diff, true, err);
		end_disks(m, machine_config(m)->nr_disks, rc);
	}
	/* Only an empty one goes. */
	if (rc)
		rmdir(dir);
	free(state);
	free(memory);
	return rc;
}
