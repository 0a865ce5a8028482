/* config_files.c: what a VM writes by name is none of what it reads, nor takes the place of another of these. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "vmm/config.h"

enum { MAX_FILES = CONFIG_FILES_WRITTEN + CONFIG_MAX_DISKS + 3 };

static unsigned list_files(const struct config *c, struct config_file *to)
{
	unsigned n = 0;

	if (c->log_file)
		to[n++] = (struct config_file){ "log", c->log_file, FILE_APPENDED };
	if (c->logger_file)
		to[n++] = (struct config_file){ "logger", c->logger_file, FILE_APPENDED };
	if (c->metrics_file)
		to[n++] = (struct config_file){ "metrics", c->metrics_file, FILE_APPENDED };
	if (c->serial && !strncmp(c->serial, "file:", 5))
		to[n++] = (struct config_file){ "serial", c->serial + 5, FILE_REPLACED };
	for (unsigned i = 0; i < c->nr_nets; i++)
		if (c->net[i].dump)
			to[n++] = (struct config_file){ "dump", c->net[i].dump, FILE_REPLACED };
	if (c->kernel)
		to[n++] = (struct config_file){ "kernel", c->kernel, FILE_READ };
	if (c->initrd && strcmp(c->initrd, "none"))
		to[n++] = (struct config_file){ "initrd", c->initrd, FILE_READ };
	if (c->metadata)
		to[n++] = (struct config_file){ "metadata", c->metadata, FILE_READ };
	for (unsigned i = 0; i < c->nr_disks; i++)
		if (c->disk[i].path)
			to[n++] = (struct config_file){ "disk", c->disk[i].path, FILE_READ };
	return n;
}

unsigned config_written(const struct config *c, struct config_file to[CONFIG_FILES_WRITTEN])
{
	struct config_file all[MAX_FILES];
	unsigned n = 0;

	for (unsigned i = 0, nr = list_files(c, all); i < nr; i++)
		if (all[i].use != FILE_READ)
			to[n++] = all[i];
	return n;
}

static bool same_directory(const char *a, size_t a_len, const char *b, size_t b_len)
{
	char *x = a_len ? strndup(a, a_len) : strdup("."), *y = b_len ? strndup(b, b_len) : strdup(".");
	struct stat s, t;
	bool same = x && y && !stat(x, &s) && !stat(y, &t) && same_file(&s, &t);

	free(x);
	free(y);
	return same;
}

/* Also of such as are to be made.  What is no file may have several writers: /dev/null, a pipe. */
static bool is_one_file(const char *a, const char *b)
{
	const char *a_name = strrchr(a, '/'), *b_name = strrchr(b, '/');
	struct stat s, t;
	bool has_a = !stat(a, &s), has_b = !stat(b, &t);

	if (has_a || has_b)
		return has_a && has_b && same_file(&s, &t) && (S_ISREG(s.st_mode) || S_ISBLK(s.st_mode));
	a_name = a_name ? a_name + 1 : a;
	b_name = b_name ? b_name + 1 : b;
	return !strcmp(a_name, b_name) && same_directory(a, a_name - a, b, b_name - b);
}

static int check_pair(const struct config_file *f, const struct config_file *other, struct err *err)
{
	const struct config_file *written = f->use >= other->use ? f : other, *rest = written == f ? other : f;

	/* Lines of two may follow each other. */
	if ((f->use == other->use && f->use != FILE_REPLACED) || !is_one_file(f->path, other->path))
		return 0;
	return err_set(err, -EINVAL, "%s %s: that is the file of %s %s, too; choose another", written->what,
		       written->path, rest->what, rest->path);
}

int config_check_file(const struct config *c, const struct config_file *f, struct err *err)
{
	struct config_file all[MAX_FILES];
	unsigned n = list_files(c, all);
	int rc = 0;

	for (unsigned i = 0; i < n && !rc; i++)
		if (f->use == FILE_READ || strcmp(f->what, all[i].what))	/* else it takes that one's place */
			rc = check_pair(f, &all[i], err);
	return rc;
}

int config_check_files(const struct config *c, struct err *err)
{
	struct config_file all[MAX_FILES];
	unsigned n = list_files(c, all);

	for (unsigned i = 0; i < n; i++)
		for (unsigned j = 0; j < i; j++) {
			int rc = check_pair(&all[i], &all[j], err);

			if (rc)
				return rc;
		}
	return 0;
}
