/* snapshot_merge.c: files of snapshots made of others. */
#include "vmm/snapshot_own.h"
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "devices/block/file.h"

enum { COPY = 1 << 20 };

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

int snapshot_copy_ram(int from, int to, u64 size)
{
	u8 *buf = malloc(COPY);
	int rc = !buf ? -ENOMEM : ftruncate(to, size) ? -errno : 0;

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
	free(buf);
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
	int rc = buf ? snapshot_open_memory(base, &base_fd, &bt, err) :
		       err_set(err, -ENOMEM, "out of memory");

	if (!rc)
		rc = snapshot_open_memory(diff, &diff_fd, &dt, err);
	if (!rc && (bt.map_len || !dt.map_len))
		rc = err_set(err, -EINVAL, "snapshot %s: %s", bt.map_len ? base : diff, bt.map_len ?
			     "a diff itself; merge it with its own base first" :
			     "whole; there is nothing to merge");
	if (!rc && (bt.size != dt.size || memcmp(dt.base, bt.id, ID_LEN)))
		rc = err_set(err, -EINVAL, "snapshot %s: what changed since another snapshot than %s",
			     diff, base);
	if (!rc)
		rc = new_file_open(&f, out, err);
	if (!rc) {
		size = le64toh(bt.size);
		t = dt;
		memcpy(t.magic, mem_magic, sizeof(t.magic));
		t.map_len = 0;
		rc = snapshot_copy_ram(base_fd, f.fd, size);
		if (!rc)
			rc = copy_diff(diff_fd, f.fd, size, buf);
		if (!rc)
			rc = file_write(f.fd, LAYOUT_SNAPSHOT, &t, sizeof(t));
		rc = rc ? err_set(err, rc, "snapshot %s: %s", out, strerror(-rc)) :
			  new_file_sync(&f, err);
	}
	if (!rc)
		rc = new_file_keep(&f, err);
	new_file_drop(&f, rc);
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
	int rc = snapshot_open_state(&s, from, "", err);

	if (!rc)
		rc = new_file_open(&f, to, err);
	if (!rc) {
		/* As it was read: its trailer stands behind it. */
		rc = file_write(f.fd, 0, s->tree, s->tree_len + sizeof(s->trailer));
		rc = rc ? err_set(err, rc, "snapshot %s: %s", to, strerror(-rc)) : new_file_sync(&f, err);
	}
	if (!rc)
		rc = new_file_keep(&f, err);
	new_file_drop(&f, rc);
	snapshot_close(s);
	return rc;
}
