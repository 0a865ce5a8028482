/* snapshot.c: a machine from the files of a snapshot. */
#include "vmm/snapshot_own.h"
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "devices/block/file.h"
#include "vmm/core/log.h"
#include "vmm/core/state.h"

enum { STATE_MAX = 64 << 20 };

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

u32 snapshot_checksum(const void *tree, size_t len, const struct trailer *t)
{
	struct trailer copy = *t;

	copy.crc = 0;
	return crc32c(crc32c(0, tree, len), &copy, sizeof(copy));
}

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

	if (memcmp(t->magic, state_magic, sizeof(state_magic)))
		return err_set(err, -EINVAL, "not a machine's state, or not all of it");
	if (le32toh(t->version) != SNAPSHOT_VERSION)
		return err_set(err, -EINVAL, "version %u; this vmm knows version %d", le32toh(t->version),
			       SNAPSHOT_VERSION);
	if (le32toh(t->crc) != snapshot_checksum(s->tree, s->tree_len, t))
		return err_set(err, -EINVAL, "damaged: its checksum is wrong");
	return 0;
}

int snapshot_open_memory(const char *path, int *out, struct mem_trailer *mt, struct err *err)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	u64 have, size, map, extra = sizeof(*mt);
	bool inside;
	int rc;

	*out = fd;
	if (fd < 0)
		return err_set(err, -errno, "snapshot %s: %s", path, strerror(errno));
	if (fstat(fd, &st) || !S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "snapshot %s: not a regular file", path);
	have = st.st_size;
	inside = have && have % MIB == 0;	/* RAM is that, and with a trailer it is not */
	if (inside)
		extra = 0;
	rc = have < sizeof(*mt) ? 0 : file_read(fd, inside ? LAYOUT_SNAPSHOT : have - sizeof(*mt), mt, sizeof(*mt));
	if (rc)
		return err_set(err, rc, "snapshot %s: %s", path, strerror(-rc));
	if (have < sizeof(*mt) ||
	    (memcmp(mt->magic, mem_magic, sizeof(mt->magic)) &&
	     (inside || memcmp(mt->magic, diff_magic, sizeof(mt->magic)))))
		return err_set(err, -EINVAL, "snapshot %s: not a machine's memory, or not all of it",
			       path);
	size = le64toh(mt->size);
	map = memcmp(mt->magic, diff_magic, sizeof(mt->magic)) ? 0 : size / MEM_PAGE / 8;
	if (size > INT64_MAX / 2 || size % MIB || le64toh(mt->map_len) != map ||
	    have != size + map + extra)
		return err_set(err, -EINVAL, "snapshot %s: damaged: %llu bytes do not fit what it says "
			       "of itself", path, (unsigned long long)have);
	return 0;
}

int snapshot_open_state(struct snapshot **out, const char *path, const char *mem_path, struct err *err)
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

int snapshot_open_pair(struct snapshot **out, const char *state_path, const char *memory_path,
		     struct err *err)
{
	struct snapshot *s;
	int rc = snapshot_open_state(&s, state_path, memory_path, err);

	if (!rc)
		rc = snapshot_open_memory(memory_path, &s->mem_fd, &s->mem_trailer, err);
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
	int rc = snapshot_open_pair(out, state_path, memory_path, err);
	struct err ignored;
	char *aside = rc ? new_file_aside(memory_path) : NULL;

	if (!aside)
		return rc;
	if (!snapshot_open_pair(out, state_path, aside, &ignored)) {
		*err = (struct err){ 0 };
		rc = 0;
	}
	free(aside);
	return rc;
}

int snapshot_open_directory(struct snapshot **out, const char *dir, struct err *err)
{
	char *state = NULL, *memory = NULL;
	int rc, len = snapshot_directory_len(dir);

	if (!*dir)
		rc = err_set(err, -EINVAL, "snapshot: the directory has no name");
	else if (asprintf(&state, "%.*s/state", len, dir) < 0 || asprintf(&memory, "%.*s/memory", len, dir) < 0)
		rc = err_set(err, -ENOMEM, "out of memory");
	else
		rc = snapshot_open(out, state, memory, err);
	free(state);
	free(memory);
	return rc;
}

int snapshot_open_paged(struct snapshot **out, const char *state_path, const char *socket,
			struct err *err)
{
	struct snapshot *s;
	int rc = snapshot_open_state(&s, state_path, socket, err);

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
	int rc = snapshot_open_state(&s, state_path, "", err);

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
		.mem_size = le64toh(s->trailer.mem_size), .diff = s->mem_trailer.map_len, .paged = s->mem_fd < 0,
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

int snapshot_refuse_diff(const struct snapshot *s, struct err *err)
{
	return s->mem_trailer.map_len ?
		err_set(err, -EINVAL, "snapshot %s: only what changed since the snapshot before; "
			"'vmm snapshot merge' makes a whole one of both", s->mem_path) : 0;
}

int snapshot_check_files(const struct snapshot *s, const struct config *c, struct err *err)
{
	return config_check_file(c, &(struct config_file){ "snapshot", s->state_path, FILE_READ }, err) ?:
		config_check_file(c, &(struct config_file){ "snapshot", s->mem_path, FILE_READ }, err);
}

int snapshot_config(struct snapshot *s, struct config *c, struct err *err)
{
	int rc = load(s, c, NULL, err);

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
