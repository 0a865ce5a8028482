/* chain.h: the files of a disk that no VM uses: snapshots, commit, rebase, copies. */
#pragma once
#include <sys/types.h>
#include "devices/block/image.h"

/*
 * A disk is the file PATH.  A snapshot of it, DIR/BASE@NAME.EXT beside DIR/BASE.EXT,
 * is what the file was until then; PATH goes on as a delta of it.  PATH changes by one
 * rename from one whole image to another with everything it needs already on the
 * disk, so it can be opened after a crash at any instant; what a crash may leave is a
 * file that nothing refers to.
 */
struct chain_job {
	/* NULL is allowed.  -errno: stop; the disk reads as before. */
	int  (*step)(struct chain_job *, u64 done, u64 total);
	void (*tell)(struct chain_job *, const char *line);	/* what became of which file */
};

/* Of the options format and backing_anywhere count. */
int chain_snapshot(const char *path, const char *name, const struct image_options *,
		   struct chain_job *, struct err *) must_check;
/* The same of an image that is open.  It stays the file that it is; who still writes
 * to it changes what both the snapshot and the disk have.  *done: path is the delta,
 * though (after a failure) that may not be on the disk yet. */
int chain_take(struct image *, const char *path, const char *name, struct chain_job *, struct stat *delta,
	       bool *done, struct err *) must_check;
/* Drops what is above the snapshot, but for files that something else uses. */
int chain_revert(const char *path, const char *name, const struct image_options *,
		 struct chain_job *, struct err *) must_check;
/*
 * The disk, and each other snapshot, reads as before.  The newest becomes the disk, as by
 * commit; what is based on another one has then all that it had from there.  -ENOENT:
 * the disk has no snapshot of that name, and nothing was locked.
 */
int chain_delete(const char *path, const char *name, const struct image_options *,
		 struct chain_job *, struct err *) must_check;
/* Into the file below.  If that is a snapshot of this disk it becomes PATH. */
int chain_commit(const char *path, const struct image_options *, struct chain_job *,
		 struct err *) must_check;
/* Without what nothing refers to, and without zeroes. */
int chain_compact(const char *path, const struct image_options *, struct chain_job *,
		  struct err *) must_check;

struct chain_rebase {
	const char *backing;	/* as seen from here; "": none; NULL: the one it has */
	const char *format;	/* NULL: by its first bytes */
	bool trust;		/* it has the same bytes: do not compare */
};
int chain_rebase(const char *path, const struct chain_rebase *, const struct image_options *,
		 struct chain_job *, struct err *) must_check;

struct chain_copy {
	bool own;		/* only what the file itself has */
	bool compare;		/* leave out what to reads as anyway */
	bool blank;		/* that is zeroes, whatever space it has for them */
	bool pack;		/* compressed */
	bool keep_packed;	/* compressed where from is; to has clusters of the same size */
};
/* to, of the same size or larger, reads as from does; it is on the disk. */
int chain_copy(struct image *from, struct image *to, const struct chain_copy *,
	       struct chain_job *, struct err *) must_check;

/* --- the files and their names ------------------------------------------------------- */

struct chain_file {
	char *path;			/* as seen from here */
	const char *format;
	char *backing, *backing_format;	/* as recorded; NULL: none */
	u64 size, on_host;
	time_t changed;
	dev_t dev;
	ino_t ino;
	int parent;			/* what it is backed by; -1: nothing known */
};

/* [0] is the disk, [1] below it, to [depth - 1]; then images beside it with a backing file. */
struct chain_family {
	struct chain_file *file;
	unsigned nr, depth;
	struct err broken;		/* code not 0: why the chain cannot be followed further */
	struct err unseen;		/* likewise: why there may be more images beside it */
};
/* A look from outside: nothing is locked, images may be in use.  To be freed after a
 * failure, too. */
int  chain_family(struct chain_family *, const char *path, const char *format,
		  struct err *) must_check;
void chain_family_free(struct chain_family *);
/* For who is to change [0]: fails if something is based on it, or may be. */
int  chain_refuse_used(const struct chain_family *, const char *path, struct err *) must_check;
/* One of the files that is backed by file k and is not in the chain; NULL: there is none. */
const struct chain_file *chain_user(const struct chain_family *, int k);

enum { CHAIN_NAME_MAX = 64 };
bool chain_good_name(const char *name);
/* NULL: out of memory, as for all that return names. */
char *chain_snapshot_path(const char *path, const char *name);
/* Whether file is a snapshot of the disk, and its name. */
bool chain_snapshot_name(const char *path, const struct chain_file *file,
			 char name[CHAIN_NAME_MAX + 1]);
/* The same of what an image at path calls its backing file. */
bool chain_backing_snapshot(const char *path, const char *backing, char name[CHAIN_NAME_MAX + 1]);
/* For who is to write to it.  -EBUSY: it is a snapshot that its disk, beside it, is based on. */
int  chain_refuse_snapshot(const struct image *, struct err *) must_check;
const char *chain_last_part(const char *path);	/* in path: behind its last slash */
/* The file that an image at path calls name; what an image at path is to call file. */
char *chain_seen_from(const char *path, const char *name);
char *chain_recorded_as(const char *path, const char *file);

/* How an image was made, to make another like it. */
void chain_like(const struct image *, struct image_create *);
/* "dirty", "damaged" or NULL: nothing is the matter. */
const char *chain_state(const struct image *);

/* Copy into top, which has its old chain below it, what would read otherwise with
 * below there instead (NULL: nothing). */
int chain_keep(struct image *top, struct image *below, struct chain_job *, struct err *) must_check;
/* Holes for a raw file's zeroes: nothing moves, so this needs no space. */
int chain_punch(struct image *, struct chain_job *, struct err *) must_check;

/* --- for chain_*.c --------------------------------------------------------------------- */

/* A new image under a name of its own, DIR/.NAME.vmm-new, until it replaces PATH. */
char *chain_temp(const char *path);
int   chain_refuse_long_name(const char *path, struct err *) must_check;	/* for that one */
int   chain_make(const char *path, const char *temp, const struct image_create *,
		 struct err *) must_check;
/* *done: path is what temp was, though that may not be on the disk yet. */
int   chain_replace(const char *temp, const char *path, bool *done, struct err *) must_check;
/*
 * From when a delta begins to be folded into its snapshot until that has become the disk, the
 * snapshot is neither: a mark beside it, .NAME.vmm-mix, says so to whoever would use it by its
 * own name.
 */
int   chain_mark(const char *snapshot, struct err *) must_check;
void  chain_unmark(const char *snapshot);
int   chain_refuse_marked(const char *path, struct err *) must_check;
char *chain_directory_of(const char *path);
int   chain_sync_dir(const char *path, struct err *) must_check;
void  chain_tell(struct chain_job *, const char *fmt, ...) printf_like(2, 3);
/* Guessing it would let a guest choose. */
int   chain_no_format(const char *path, const char *backing, struct err *);
/* To write to, only the file itself; not if an image is based on it. */
int   chain_open(struct image **, const char *path, const struct image_options *,
		 struct chain_family *, struct err *) must_check;
/* After a change of the file that failed: what it took beyond size, as large as it was, and
 * nothing refers to. */
void  chain_give_back(const char *path, const struct stat *is, const char *format, u64 size);
int   chain_still_there(const struct image *, struct err *) must_check;
/* -EINVAL: a device, whose place no file can take. */
int   chain_refuse_device(const struct image *, struct err *) must_check;
/* A relative name as it is recorded: to QEMU what is before a colon is a protocol. */
char *chain_no_protocol(const char *name);
/* Symbolic links are not what is renamed, nor where names begin. */
char *chain_resolve(const char *path);
/* Its place in the family; -ENOENT. */
int   chain_find_snapshot(const struct chain_family *, const char *path, const char *name,
			  struct err *) must_check;
/* Remove file n, a snapshot that nobody uses; else say why it stays: false. */
bool  chain_drop(const struct chain_family *, const char *path, unsigned n, struct chain_job *, struct err *why);
int   chain_settle(struct image *) must_check;	/* all is on the disk, what was freed is free */
