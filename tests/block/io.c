/*
 * io.c: what tests/block/interop does to an image with this project's code.
 *
 *   image-io [-r] [-f FORMAT] FILE OP...
 *
 *   -r    read-only
 *   create FORMAT SIZE [KEY=VALUE]...    as the first: cluster, refcount_bits, version, lazy, zstd, prealloc,
 *                                        backing, backing_format
 *   write, pack OFFSET LENGTH BYTE       read OFFSET LENGTH BYTE: it must be that
 *   zero, unmap, discard OFFSET LENGTH   flush
 *   resize SIZE                          abort: no more, not even a close
 *   check: nothing wrong once all that was freed is free                  sound: at most leaks         repair
 *   apply, delete NAME: of a snapshot    snapshots: their names           backing FILE FORMAT
 *   dump FILE                            load FILE: the disk, all of it
 *   record                               cut BEFORE AFTER: wherever the power goes off between the two, it is sound,
 *                                        and the disk is as in one of the files
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "devices/block/image.h"
#include "tests/lib/recorder.h"

enum { BUF = 4 * MIB, WORDS = 12, CUTS = 4 };

static struct image *image;
static const char *doing = "start";
static struct err err;
static u8 buf[BUF];

static _Noreturn void die(const char *why)
{
	fprintf(stderr, "image-io: %s: %s\n", doing, why);
	exit(1);
}

static void must(int rc)
{
	if (rc)
		die(err.code == rc ? err.msg : strerror(-rc));
}

static u64 number(const char *s)
{
	char *end;
	u64 n = strtoull(s ? s : "", &end, 0);

	if (end == s || !s || strlen(end) > 1)
		die("not a number");
	switch (*end) {
	case 0:		return n;
	case 'k':	return n * KIB;
	case 'M':	return n * MIB;
	case 'G':	return n * GIB;
	default:	die("not a number");
	}
}

static void create(const char *path, char **word, int nr)
{
	static const char *const how[] = { "off", "metadata", "falloc", "full" };
	struct image_create c = { .format = word[1], .size = number(word[2]) };

	for (int i = 3; i < nr; i++) {
		char *key = word[i], *value = strchr(key, '=');

		if (!value)
			die("not KEY=VALUE");
		*value++ = 0;
		if (!strcmp(key, "cluster")) {
			c.cluster = number(value);
		} else if (!strcmp(key, "refcount_bits")) {
			c.refcount_bits = number(value);
		} else if (!strcmp(key, "version")) {
			c.version = number(value);
		} else if (!strcmp(key, "lazy")) {
			c.lazy_refcounts = number(value);
		} else if (!strcmp(key, "zstd")) {
			c.zstd = number(value);
		} else if (!strcmp(key, "backing")) {
			c.backing = value;
		} else if (!strcmp(key, "backing_format")) {
			c.backing_format = value;
		} else if (!strcmp(key, "prealloc")) {
			while (c.preallocation <= PREALLOC_FULL && strcmp(how[c.preallocation], value))
				c.preallocation++;
			if (c.preallocation > PREALLOC_FULL)
				die("no such preallocation");
		} else {
			die("no such option");
		}
	}
	must(image_create(path, &c, &err));
}

static void transfer(const char *op, u64 offset, u64 len, int byte)
{
	u8 *want = malloc(BUF);
	u64 k;

	memset(want, byte, BUF);
	for (; len; offset += k, len -= k) {
		k = MIN(len, BUF);
		if (!strcmp(op, "write")) {
			must(image_write(image, offset, want, k));
		} else if (!strcmp(op, "pack")) {
			must(image_write_packed(image, offset, want, k));
		} else {
			must(image_read(image, offset, buf, k));
			if (memcmp(buf, want, k))
				die("it holds something else");
		}
	}
	free(want);
}

static void copy(const char *path, bool load)
{
	int fd = open(path, load ? O_RDONLY : O_WRONLY | O_CREAT | O_TRUNC, 0600);
	u64 k;

	if (fd < 0 || (!load && ftruncate(fd, image->size)))
		die(strerror(errno));
	for (u64 at = 0; at < image->size; at += k) {
		k = MIN(image->size - at, BUF);
		if (!load)
			must(image_read(image, at, buf, k));
		if ((load ? pread(fd, buf, k, at) : pwrite(fd, buf, k, at)) != (ssize_t)k)
			die(strerror(errno));
		if (load)
			must(image_write(image, at, buf, k));
	}
	close(fd);
}

static bool is_as(struct image *i, const char *path)
{
	static u8 want[BUF];
	int fd = open(path, O_RDONLY);
	bool same = fd >= 0 && lseek(fd, 0, SEEK_END) == (off_t)i->size;
	u64 k;

	for (u64 at = 0; at < i->size && same; at += k) {
		k = MIN(i->size - at, BUF);
		must(image_read(i, at, buf, k));
		same = pread(fd, want, k, at) == (ssize_t)k && !memcmp(buf, want, k);
	}
	close(fd);
	return same;
}

static void cut(const char *path, const struct image_options *o, const char *before, const char *after)
{
	char *left;

	if (asprintf(&left, "%s.cut", path) < 0)
		die("out of memory");
	for (u32 n = 0; n <= recorder_mark() * CUTS; n++) {
		struct image_check c = { 0 };
		struct image *i;

		recorder_crash(n / CUTS, n, left);
		must(image_open(&i, left, o, &err));
		must(image_check(i, false, &c, &err));
		if (c.corruptions || !(is_as(i, before) || is_as(i, after))) {
			fprintf(stderr, "image-io: after operation %u of %u, seed %u: %s\n", n / CUTS,
				recorder_mark(), n, left);
			die(c.corruptions ? "it is not right" : "it is neither");
		}
		image_close(i);
	}
	unlink(left);
	free(left);
	recorder_stop();
}

static void tell(const char *line, void *arg)
{
	(void)arg;
	fprintf(stderr, "image-io: check: %s\n", line);
}

/* All that was freed is free. */
static void settle(void)
{
	for (int i = 0; i < 2; i++) {
		must(image_flush(image));
		image_reclaim(image);
	}
	must(image_flush(image));
}

static void check(const char *op)
{
	struct image_check c = { .tell = tell };

	if (!strcmp(op, "check"))
		settle();
	must(image_check(image, !strcmp(op, "repair"), &c, &err));
	if (c.corruptions || (c.leaks && strcmp(op, "sound")))
		die("it is not right");
}

static void list_snapshots(void)
{
	struct image_snapshot *s;
	unsigned nr;

	must(image_snapshots(image, &s, &nr, &err));
	for (unsigned i = 0; i < nr; i++)
		printf("%s %s %llu\n", s[i].id, s[i].name, (unsigned long long)s[i].size);
	image_snapshots_free(s, nr);
}

static void step(char **word, int nr, const char *path, const struct image_options *o)
{
	const char *op = word[0];

	if (nr == 4 && (!strcmp(op, "write") || !strcmp(op, "pack") || !strcmp(op, "read")))
		transfer(op, number(word[1]), number(word[2]), number(word[3]));
	else if (nr == 3 && (!strcmp(op, "zero") || !strcmp(op, "unmap")))
		must(image_zero(image, number(word[1]), number(word[2]), *op == 'u'));
	else if (nr == 3 && !strcmp(op, "discard"))
		must(image_discard(image, number(word[1]), number(word[2])));
	else if (!strcmp(op, "flush"))
		must(image_flush(image));
	else if (nr == 2 && !strcmp(op, "resize"))
		must(image_resize(image, number(word[1]), &err));
	else if (!strcmp(op, "check") || !strcmp(op, "sound") || !strcmp(op, "repair"))
		check(op);
	else if (!strcmp(op, "snapshots"))
		list_snapshots();
	else if (nr == 2 && !strcmp(op, "apply"))
		must(image_snapshot_apply(image, word[1], &err));
	else if (nr == 2 && !strcmp(op, "delete"))
		must(image_snapshot_delete(image, word[1], &err));
	else if (nr == 3 && !strcmp(op, "backing"))
		must(image_set_backing(image, word[1], word[2], &err));
	else if (nr == 2 && (!strcmp(op, "dump") || !strcmp(op, "load")))
		copy(word[1], *op == 'l');
	else if (!strcmp(op, "record"))
		recorder_start(path);
	else if (nr == 3 && !strcmp(op, "cut"))
		cut(path, o, word[1], word[2]);
	else if (!strcmp(op, "abort"))
		_exit(0);
	else
		die("no such operation");
}

int main(int argc, char **argv)
{
	struct image_options o = { 0 };
	const char *path;
	int opt;

	while ((opt = getopt(argc, argv, "rf:")) != -1)
		switch (opt) {
		case 'r': o.read_only = true; break;
		case 'f': o.format = optarg; break;
		default: return 2;
		}
	if (optind == argc)
		return 2;
	path = argv[optind];
	for (int i = optind + 1; i <= argc; i++) {
		char *word[WORDS], *save, *line = strdup(i < argc ? argv[i] : "");
		int nr = 0;

		for (char *w = strtok_r(line, " ", &save); w && nr < WORDS; w = strtok_r(NULL, " ", &save))
			word[nr++] = w;
		if (nr && !strcmp(word[0], "create")) {
			doing = argv[i];
			create(path, word, nr);
			free(line);
			continue;
		}
		if (!image) {
			doing = "open";
			must(image_open(&image, path, &o, &err));
		}
		doing = i < argc ? argv[i] : "the end";
		if (nr)
			step(word, nr, path, &o);
		free(line);
	}
	settle();
	image_close(image);
	return 0;
}
