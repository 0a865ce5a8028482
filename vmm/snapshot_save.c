/* snapshot_save.c: a paused machine into two files. */
#include "vmm/snapshot_own.h"
#include <endian.h>
#include <errno.h>
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

static bool are_pair(const char *state, const char *memory)
{
	struct snapshot *s;
	struct err err;

	if (snapshot_open_pair(&s, state, memory, &err))
		return false;
	snapshot_close(s);
	return true;
}

/* At any moment there is a state with its memory, the old or the new. */
static int keep_both(struct new_file *state, struct new_file *memory, struct err *err)
{
	int rc = 0;

	/* Of one who was killed between the two. */
	if (!are_pair(state->path, memory->path) && are_pair(state->path, memory->aside) &&
	    rename(memory->aside, memory->path))
		rc = err_set(err, -errno, "snapshot %s: %s", memory->path, strerror(errno));
	if (!rc)
		rc = new_file_keep(memory, err);
	if (!rc)
		rc = new_file_keep(state, err);
	return rc;
}

/*
 * What a diff is of, or a diff between, may stand where the diff is to go: both become one there, as
 * by Firecracker.  -1: it does not.
 */
static int open_below(struct machine *m, const char *path, struct mem_trailer *below)
{
	struct err ignored;
	int fd, rc = snapshot_open_memory(path, &fd, below, &ignored);

	if (!rc && !memcmp(below->id, machine_snapshot_id(m), ID_LEN) &&
	    le64toh(below->size) == mem_size(machine_mem(m)))
		return fd;
	if (fd >= 0)
		close(fd);
	*below = (struct mem_trailer){ .size = 0 };
	return -1;
}

/* Behind RAM: which pages a diff has, with those of the one below it, if that is a diff, too. */
static int save_map(struct machine *m, int fd, int below_fd, u64 len)
{
	u64 size = mem_size(machine_mem(m)), *map = malloc(len);
	const u64 *pages = mem_dirty_pages(machine_mem(m), 0);
	int rc = !map ? -ENOMEM : below_fd >= 0 ? file_read(below_fd, size, map, len) : 0;

	if (!rc && below_fd < 0)
		memcpy(map, pages, len);
	for (u64 i = 0; !rc && i < len / sizeof(*map); i++)
		map[i] |= pages[i];
	if (!rc)
		rc = file_write(fd, size, map, len);
	free(map);
	return rc;
}

static int save_memory(struct machine *m, struct new_file *f, const struct trailer *t, bool diff,
		       struct err *err)
{
	struct mem *mem = machine_mem(m);
	struct mem_trailer mt = { .size = t->mem_size }, below = { .size = 0 };
	int rc = mem_tracks_dirty(mem) ? machine_fetch_dirty(m, err) : 0, below_fd;
	u64 size = le64toh(t->mem_size), map;

	if (rc)
		return rc;
	below_fd = diff ? open_below(m, f->path, &below) : -1;
	map = diff && (below_fd < 0 || below.map_len) ? mem_dirty_len(mem) : 0;
	memcpy(mt.magic, map ? diff_magic : mem_magic, sizeof(mt.magic));
	mt.map_len = htole64(map);
	memcpy(mt.id, t->id, ID_LEN);
	memcpy(mt.base, below.map_len ? below.base : machine_snapshot_id(m), ID_LEN);
	if (below_fd >= 0)
		rc = snapshot_copy_ram(below_fd, f->fd, size);
	if (!rc)
		rc = mem_save(mem, f->fd, diff ? mem_dirty_pages(mem, 0) : NULL);
	if (!rc && map)
		rc = save_map(m, f->fd, below_fd, map);
	if (!rc)
		rc = file_write(f->fd, map ? size + map : LAYOUT_SNAPSHOT, &mt, sizeof(mt));
	if (below_fd >= 0)
		close(below_fd);
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
		t->crc = htole32(snapshot_checksum(tree, len, t));
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

/* The new file would take its name, and the VM write on into one that has none. */
static int check_no_disk(struct machine *m, const char *path, struct err *err)
{
	struct stat file, disk;

	if (stat(path, &file))
		return 0;
	for (unsigned i = 0; i < machine_config(m)->nr_disks; i++)
		if (!stat(blk_path(machine_resources(m)->disk[i]), &disk) &&
		    same_file(&file, &disk))
			return err_set(err, -EBUSY, "snapshot %s: that is a disk of this VM; choose another "
				       "name", path);
	return 0;
}

/* None of the names that are taken, if for a while, is a disk's or that of the other file. */
static int check_names(struct machine *m, const char *state, const char *memory, struct err *err)
{
	char *state_aside = new_file_aside(state), *memory_aside = new_file_aside(memory);
	int rc = state_aside && memory_aside ? 0 : err_set(err, -ENOMEM, "out of memory");

	if (!rc)
		rc = check_no_disk(m, state, err);
	if (!rc)
		rc = check_no_disk(m, memory, err);
	if (!rc)
		rc = check_no_disk(m, state_aside, err);
	if (!rc)
		rc = check_no_disk(m, memory_aside, err);
	if (!rc)
		rc = new_file_check_apart(state, memory, err);
	if (!rc)
		rc = new_file_check_apart(state, memory_aside, err);
	if (!rc)
		rc = new_file_check_apart(memory, state_aside, err);
	free(state_aside);
	free(memory_aside);
	return rc;
}

/* Before anything is made. */
static int may_save(struct machine *m, bool diff, struct err *err)
{
	const struct config *c = machine_config(m);
	int code;

	/* Its processors have done all that they would: who went on from there would wait for nothing. */
	if (machine_outcome(m, &code) != OUTCOME_NONE)
		return err_set(err, -EBUSY, "snapshot: the guest ends, or resets, at this moment");
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

static int check_none(const char *state_path, struct err *err)
{
	return access(state_path, F_OK) ? 0 :
		err_set(err, -EEXIST, "snapshot %s: there is one already; choose another directory", state_path);
}

int snapshot_save(struct machine *m, const char *state_path, const char *memory_path, bool diff,
		  bool bases, struct err *err)
{
	struct trailer t = { .version = htole32(SNAPSHOT_VERSION),
			     .mem_size = htole64(mem_size(machine_mem(m))) };
	struct new_file state, memory = { .fd = -1 };
	int rc = may_save(m, diff, err);

	if (!rc)
		rc = check_names(m, state_path, memory_path, err);
	if (!rc)
		rc = new_file_open(&state, state_path, err);
	if (rc)
		return rc;
	memcpy(t.magic, state_magic, sizeof(t.magic));
	if (getrandom(t.id, ID_LEN, 0) != ID_LEN)
		rc = err_set(err, -errno, "snapshot: no random number: %s", strerror(errno));
	/* Since it was looked at another may have been saved; from here on none is. */
	if (!rc && bases)
		rc = check_none(state_path, err);
	if (!rc)
		rc = new_file_open(&memory, memory_path, err);
	if (!rc)
		rc = save_state(m, bases, &state, &t, err);
	if (!rc)
		rc = save_memory(m, &memory, &t, diff && was_saved(m), err);
	if (!rc)
		rc = new_file_sync(&memory, err);
	if (!rc)
		rc = new_file_sync(&state, err);
	if (!rc)
		rc = keep_both(&state, &memory, err);
	if (!rc) {
		memcpy(machine_snapshot_id(m), t.id, ID_LEN);
		if (mem_tracks_dirty(machine_mem(m)))
			mem_forget_dirty(machine_mem(m));
	}
	/* The old state comes back first: it finds its memory where that is set aside. */
	new_file_drop(&state, rc);
	new_file_drop(&memory, rc);
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
		rc = new_file_open(&f, path, err);
	if (!rc) {
		memcpy(h.magic, set_magic, sizeof(h.magic));
		memcpy(h.id, machine_snapshot_id(m), ID_LEN);
		mem_working_set(mem, pages);
		rc = file_write(f.fd, 0, &h, sizeof(h));
		if (!rc)
			rc = file_write(f.fd, sizeof(h), pages, mem_dirty_len(mem));
		rc = rc ? err_set(err, rc, "snapshot %s: %s", path, strerror(-rc)) :
			  new_file_sync(&f, err);
		if (!rc)
			rc = new_file_keep(&f, err);
		new_file_drop(&f, rc);
	}
	free(path);
	free(pages);
	return rc;
}

int snapshot_save_working_set(struct machine *m, const char *dir, struct err *err)
{
	struct snapshot *s = NULL;
	int rc = snapshot_open_directory(&s, dir, err);

	if (!rc && memcmp(s->trailer.id, machine_snapshot_id(m), ID_LEN))
		rc = err_set(err, -EINVAL, "snapshot %s: not what this VM was restored from, or it was saved "
			     "since", dir);
	if (!rc)
		rc = write_working_set(m, s->mem_path, err);
	snapshot_close(s);
	return rc;
}

/* --- a directory -------------------------------------------------------------------------------------- */

size_t snapshot_directory_len(const char *dir)
{
	size_t len = strlen(dir);

	while (len > 1 && dir[len - 1] == '/')
		len--;
	return len;
}

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

static bool is_others(const struct stat *st)
{
	return st->st_uid && st->st_uid != geteuid();
}

/* One that is there may be of another user's making, who could put another VM there. */
static int make_directory(const char *dir, bool *made, struct err *err)
{
	struct stat link, st;

	*made = !mkdir(dir, 0777);
	if (*made)
		return 0;
	if (errno != EEXIST || lstat(dir, &link) || stat(dir, &st))
		return err_set(err, -errno, "snapshot %s: %s", dir, strerror(errno));
	return is_others(&link) || is_others(&st) ?
		err_set(err, -EPERM, "snapshot %s: it is there, and another user's", dir) : 0;
}

/* A snapshot's without its state is of a save that was killed, and goes; nothing else does. */
static int check_memory(const char *path, struct err *err)
{
	struct mem_trailer was;
	struct err why;
	int fd, rc;

	if (access(path, F_OK))
		return 0;
	rc = snapshot_open_memory(path, &fd, &was, &why);
	if (fd >= 0)
		close(fd);
	if (err_of_host(rc) || rc == -EACCES)
		return err_set(err, rc, "%s", why.msg);
	return rc ? err_set(err, -EEXIST, "snapshot %s: there is a file already, and no snapshot's; choose another "
			    "directory", path) : 0;
}

int snapshot_make_directory(const char *dir, bool *made, struct err *err)
{
	char *state = NULL, *memory = NULL;
	int rc = make_directory(dir, made, err);

	if (!rc && (asprintf(&state, "%s/state", dir) < 0 || asprintf(&memory, "%s/memory", dir) < 0))
		rc = err_set(err, -ENOMEM, "out of memory");
	if (!rc)
		rc = check_none(state, err);
	if (!rc)
		rc = check_memory(memory, err);
	/* What is to be in it is only as safe as its name. */
	if (!rc && *made)
		rc = chain_sync_dir(dir, err);
	if (rc && *made) {
		rmdir(dir);
		*made = false;
	}
	free(state);
	free(memory);
	return rc;
}

int snapshot_save_directory(struct machine *m, const char *path, bool diff, struct err *err)
{
	char *dir = strndup(path, snapshot_directory_len(path)), *state = NULL, *memory = NULL;
	bool made = false;
	int rc;

	if (!dir)
		return err_set(err, -ENOMEM, "out of memory");
	rc = *dir ? may_save(m, diff, err) :
		    err_set(err, -EINVAL, "snapshot: the directory has no name");
	if (!rc && (asprintf(&state, "%s/state", dir) < 0 || asprintf(&memory, "%s/memory", dir) < 0))
		rc = err_set(err, -ENOMEM, "out of memory");
	if (!rc)
		rc = snapshot_make_directory(dir, &made, err);
	if (!rc)
		rc = begin_disks(m, chain_last_part(dir), err);
	if (!rc) {
		rc = snapshot_save(m, state, memory, diff, true, err);
		end_disks(m, machine_config(m)->nr_disks, rc);
	}
	if (rc && made)
		rmdir(dir);
	free(dir);
	free(state);
	free(memory);
	return rc;
}
