/* base.c: what has no better place: our own mistakes, names of files, text for a terminal. */
#include "vmm/core/base.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

void bug(const char *file, int line, const char *what)
{
	fprintf(stderr, "vmm: bug at %s:%d: %s\n", file, line, what);
	abort();
}

bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

bool is_own_directory(const char *path)
{
	struct stat st;

	return !lstat(path, &st) && S_ISDIR(st.st_mode) && st.st_uid == geteuid() &&
	       !(st.st_mode & (S_IWGRP | S_IWOTH));
}

bool was_replaced(int fd, const char *path)
{
	struct stat is, named;

	return !fstat(fd, &is) && !stat(path, &named) && !same_file(&is, &named);
}

void mask_controls(char *text)
{
	for (u8 *s = (u8 *)text; *s; s++) {
		/* U+0080 to U+009f: what an escape and one letter say, in one. */
		if (*s == 0xc2 && s[1] >= 0x80 && s[1] < 0xa0)
			*s++ = '?';
		else if (*s >= ' ' && *s != 0x7f)
			continue;
		*s = '?';
	}
}
