/*
 * names.c: the names of a disk's files.  A snapshot's is found again in its file's name,
 * and no other is; what is recorded as a backing file leads to that file again; an image
 * gets no file outside of its directory unless the user says so.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "devices/block/chain.h"
#include "tests/fuzz/lib/fuzz.h"

enum { LEN = 200 };

/* A disk's directory, another beside it, and links from each to each. */
static const char *root;
static int inside, outside;		/* the working directory: while an input runs, and else */

static void make_file(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	fuzz_check(fd >= 0 && !ftruncate(fd, 4096), "%s: %s", path, strerror(errno));
	close(fd);
}

static void make_tree(void)
{
	if (root)
		return;
	root = fuzz_temp("names");
	outside = open(".", O_PATH | O_CLOEXEC);
	fuzz_check(!mkdir(root, 0700) && !chdir(root), "%s: %s", root, strerror(errno));
	inside = open(".", O_PATH | O_CLOEXEC);
	(void)!(mkdir("dir", 0700) | mkdir("dir/sub", 0700) | mkdir("out", 0700));
	make_file("dir/a.img");
	make_file("dir/sub/b");
	make_file("out/c.img");
	make_file("dirt");		/* its name begins as the directory's does */
	(void)!(symlink("../out/c.img", "dir/link") | symlink("../dir/a.img", "out/back") |
		symlink("../out", "dir/away") | symlink("dir", "to-dir") | symlink("../dir", "dir/up"));
}

/* --- names of snapshots ------------------------------------------------------------------- */

static bool good(const char *name)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < len; i++) {
		bool letter = (name[i] | 32) >= 'a' && (name[i] | 32) <= 'z';
		bool digit = name[i] >= '0' && name[i] <= '9';

		if (!letter && !digit && (!i || !strchr("._-", name[i])))
			return false;
	}
	return len >= 1 && len <= CHAIN_NAME_MAX;
}

static void snapshot_names(struct fuzz *f)
{
	char base[LEN], name[LEN], path[LEN + 8], found[CHAIN_NAME_MAX + 1];
	struct chain_file file = { 0 };
	struct stat st;
	bool is;
	int fd;

	fuzz_text(f, base, 60);
	fuzz_text(f, name, 100);
	fuzz_check(chain_good_name(name) == good(name), "name '%s'", name);
	if (!*base || strchr(base, '/') || strchr(name, '/') || !strcmp(base, ".") ||
	    !strcmp(base, ".."))
		return;
	snprintf(path, sizeof(path), "out/%s", base);
	file.path = chain_snapshot_path(path, name);
	fd = open(file.path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd >= 0) {
		fuzz_check(!fstat(fd, &st), "fstat");
		file.dev = st.st_dev;
		file.ino = st.st_ino;
		is = chain_snapshot_name(path, &file, found);
		fuzz_check(is == good(name) && (!is || !strcmp(found, name)),
			   "snapshot '%s' of %s, as %s: %d, '%s'", name, path, file.path, is, found);
		/* Another file of that name is not it. */
		file.ino++;
		fuzz_check(!chain_snapshot_name(path, &file, found), "taken for a snapshot");
		close(fd);
		unlink(file.path);
	}
	free(file.path);
}

/* --- backing files -------------------------------------------------------------------------- */

static const char *pick_path(struct fuzz *f, char *path)
{
	static const char *const part[] = { "dir", "sub", "out", "..", ".", "a.img", "b", "c.img",
					    "link", "back", "away", "to-dir", "up", "dirt", "", "x" };
	u8 b = fuzz_u8(f);

	*path = 0;
	if (b & 0x80)
		snprintf(path, LEN, "%s/", root);
	for (int n = 1 + b % 6; n; n--) {
		strcat(path, part[fuzz_u8(f) % ARRAY_SIZE(part)]);
		if (n > 1)
			strcat(path, "/");
	}
	return path;
}

static bool leads_to_same(const char *a, const char *b)
{
	struct stat s, t;

	return !stat(a, &s) && !stat(b, &t) && s.st_dev == t.st_dev && s.st_ino == t.st_ino;
}

static void recorded(struct fuzz *f)
{
	char one[LEN], two[LEN], *name, *seen;
	const char *path = pick_path(f, one), *file = pick_path(f, two);
	struct stat st;

	/* The image itself is never a link: its name was resolved, or is new. */
	if (stat(file, &st) || !S_ISREG(st.st_mode) || (!lstat(path, &st) && !S_ISREG(st.st_mode)))
		return;
	name = chain_recorded_as(path, file);
	if (name) {
		seen = chain_seen_from(path, name);
		fuzz_check(seen && leads_to_same(seen, file), "%s of %s was recorded as %s, which is %s",
			   file, path, name, seen);
		free(seen);
	}
	free(name);
}

static void confined(struct fuzz *f)
{
	char backing[LEN], own[PATH_MAX], below[PATH_MAX];
	struct image_options o = { .format = "qcow2", .read_only = true };
	struct image_create c = { .format = "qcow2", .size = 4096, .cluster = 512,
				  .backing = backing, .backing_format = "raw" };
	struct image *i;
	struct err err;
	size_t len;

	pick_path(f, backing);
	unlink("dir/top");
	if (image_create("dir/top", &c, &err))
		return;
	if (!image_open(&i, "dir/top", &o, &err)) {
		fuzz_check(realpath("dir", own) && i->backing && realpath(i->backing->path, below),
			   "a backing file that is not there: %s", backing);
		len = strlen(own);
		fuzz_check(!strncmp(own, below, len) && below[len] == '/',
			   "%s leads out of the directory, to %s", backing, below);
		image_close(i);
	}
}

void fuzz_one(struct fuzz *f)
{
	make_tree();
	fuzz_check(!fchdir(inside), "%s is gone", root);
	fuzz_check(!chain_good_name(""), "a name without letters");
	while (f->left)
		switch (fuzz_u8(f) % 3) {
		case 0:
			snapshot_names(f);
			break;
		case 1:
			recorded(f);
			break;
		default:
			confined(f);
		}
	fuzz_check(!fchdir(outside), "no way back");
}
