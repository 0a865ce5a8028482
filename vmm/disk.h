/* disk.h: the commands of 'vmm disk', and what they share. */
#pragma once
#include <limits.h>
#include "devices/block/chain.h"
#include "vmm/subcommand.h"

/* Options by what they mean: some names mean another thing in another command. */
enum disk_option {
	DISK_MAKE_FORMAT, DISK_FORMAT, DISK_SOURCE_FORMAT, DISK_THIN, DISK_THICK,
	DISK_PREALLOCATION, DISK_CLUSTER_SIZE, DISK_REFCOUNT_BITS, DISK_COMPAT,
	DISK_LAZY_REFCOUNTS, DISK_COMPRESSION, DISK_COMPRESS, DISK_BACKING, DISK_BACKING_FORMAT,
	DISK_NEW_BACKING, DISK_NEW_BACKING_FORMAT, DISK_UNSAFE, DISK_SHRINK, DISK_REPAIR,
	DISK_JSON, DISK_BACKING_ANYWHERE, DISK_NR_OPTIONS,
};

/* Each returns the exit status. */
int disk_create(const struct subcommand_args *);
int disk_convert(const struct subcommand_args *);
int disk_resize(const struct subcommand_args *);
int disk_compact(const struct subcommand_args *);
int disk_info(const struct subcommand_args *);
int disk_check(const struct subcommand_args *);
int disk_map(const struct subcommand_args *);
int disk_list(const struct subcommand_args *);
int disk_snapshot(const struct subcommand_args *);
int disk_revert(const struct subcommand_args *);
int disk_delete(const struct subcommand_args *);
int disk_commit(const struct subcommand_args *);
int disk_rebase(const struct subcommand_args *);

/* Say what is wrong, and return the exit status for it. */
int disk_failed(const struct err *);

/* What the user says of the image at PATH, to open it by. */
struct image_options disk_options(const struct subcommand_args *);
/* Progress on a terminal; a signal ends it; lines go to stdout, with --json those of a command
 * that succeeds by disk_done, which returns EXIT_OK. */
struct chain_job *disk_job(const struct subcommand_args *);
void disk_tell(const char *fmt, ...) printf_like(1, 2);
int disk_done(const struct subcommand_args *);
/* File names are bytes, and need not be UTF-8, as JSON is. */
json_t *disk_json(const char *bytes);
json_t *disk_json_or_null(const char *bytes);	/* NULL: null */
/* A name of a file, or in an image, which anybody may have made: nothing that a terminal obeys. */
struct disk_line { char text[2 * PATH_MAX]; };
struct disk_line disk_shown(const char *bytes);
/* "64K", "1.5G" */
struct disk_text { char text[16]; };
struct disk_text disk_size_text(u64 size);
