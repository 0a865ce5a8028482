/* qcow2_snapshot.c: snapshots inside the file: listed, gone back to, deleted. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "devices/block/file.h"
#include "devices/block/qcow2.h"

#define TABLE_MAX (64 * MIB)

struct snapshot {
	struct image_snapshot shown;
	u64 at, len;			/* its entry, in the table's bytes */
	u64 l1_offset;
	u32 l1_len;
};

struct table {
	u8 *bytes;
	u64 len;
	struct snapshot *entry;
	unsigned nr;
};

static void table_free(struct table *t)
{
	for (unsigned n = 0; t->entry && n < t->nr; n++) {
		free(t->entry[n].shown.id);
		free(t->entry[n].shown.name);
	}
	free(t->entry);
	free(t->bytes);
}

static int parse_entry(const struct qcow2 *q, const struct table *t, u64 at, struct snapshot *s)
{
	struct snapshot_header h;
	u64 extra[2] = { 0 }, names, id_len, name_len, extra_len;

	if (at + sizeof(h) > t->len)
		return -EINVAL;
	memcpy(&h, t->bytes + at, sizeof(h));
	id_len = be16toh(h.id_len);
	name_len = be16toh(h.name_len);
	extra_len = be32toh(h.extra_len);
	names = at + sizeof(h) + extra_len;
	if (names + id_len + name_len > t->len || be32toh(h.l1_len) > L1_BYTES_MAX / 8)
		return -EINVAL;
	memcpy(extra, t->bytes + at + sizeof(h), MIN(extra_len, sizeof(extra)));
	*s = (struct snapshot){
		.at = at, .len = ALIGN_UP(names + id_len + name_len, 8) - at,
		.l1_offset = be64toh(h.l1_offset), .l1_len = be32toh(h.l1_len),
		.shown = {
			.date_s = be32toh(h.date_s),
			.vm_state = extra_len >= 8 ? be64toh(extra[0]) : be32toh(h.vm_state_len),
			.size = extra_len >= 16 ? be64toh(extra[1]) : q->image->size,
			.id = strndup((char *)t->bytes + names, id_len),
			.name = strndup((char *)t->bytes + names + id_len, name_len),
		},
	};
	return s->shown.id && s->shown.name ? 0 : -ENOMEM;
}

/* The table's length is not recorded: it ends with its last entry. */
static int read_table(struct qcow2 *q, struct table *t, struct err *err)
{
	u64 file, at = 0;
	int rc = file_size(q->image->fd, &file);

	*t = (struct table){ 0 };
	if (!q->nr_snapshots)
		return 0;
	if (rc)
		return err_set(err, rc, "%s", strerror(-rc));
	if (q->nr_snapshots > SNAPSHOTS_MAX || q->snapshots_offset >= file)
		return err_set(err, -EINVAL, "its table of snapshots cannot be");
	t->len = MIN(file - q->snapshots_offset, MIN(TABLE_MAX, 192 * KIB * q->nr_snapshots));
	t->bytes = calloc(1, t->len + 7);	/* the last entry's padding may not be in the file */
	t->entry = calloc(q->nr_snapshots, sizeof(*t->entry));
	rc = t->bytes && t->entry ? file_read(q->image->fd, q->snapshots_offset, t->bytes, t->len) : -ENOMEM;
	for (t->nr = 0; t->nr < q->nr_snapshots && !rc; t->nr++) {
		rc = parse_entry(q, t, at, &t->entry[t->nr]);
		at += t->entry[t->nr].len;
	}
	t->len = at;
	if (!rc)
		return 0;
	table_free(t);
	return err_set(err, rc, rc == -EINVAL ? "its table of snapshots makes no sense" : "%s",
		       strerror(-rc));
}

static struct snapshot *find(struct table *t, const char *name, struct err *err)
{
	/* A name may look like another's id. */
	for (unsigned n = 0; n < t->nr; n++)
		if (!strcmp(t->entry[n].shown.name, name))
			return &t->entry[n];
	for (unsigned n = 0; n < t->nr; n++)
		if (!strcmp(t->entry[n].shown.id, name))
			return &t->entry[n];
	err_set(err, -ENOENT, "it has no snapshot '%s'", name);
	return NULL;
}

int image_snapshots(struct image *i, struct image_snapshot **out, unsigned *nr, struct err *err)
{
	struct table t;
	int rc;

	*nr = 0;
	*out = NULL;
	if (i->ops != &qcow2_image)
		return 0;
	rc = read_table(i->own, &t, err);
	if (rc || !t.nr)
		return rc;
	*out = calloc(t.nr, sizeof(**out));
	if (!*out) {
		table_free(&t);
		return err_set(err, -ENOMEM, "out of memory");
	}
	for (unsigned n = 0; n < t.nr; n++)
		(*out)[n] = t.entry[n].shown;
	*nr = t.nr;
	free(t.entry);
	free(t.bytes);
	return 0;
}

void image_snapshots_free(struct image_snapshot *s, unsigned nr)
{
	for (unsigned n = 0; n < nr; n++) {
		free(s[n].id);
		free(s[n].name);
	}
	free(s);
}

/* --- going back ----------------------------------------------------------------------------- */

/* A copy of the snapshot's L1 table, in its own clusters, is the disk's from
 * the header's one write on. */
static int apply(struct qcow2 *q, const struct snapshot *s, struct err *err)
{
	u64 reach = cluster_len(q) << q->l2_bits, size = s->shown.size, first, got, *l1, *disk;
	u64 len = MAX(s->l1_len, size / reach + !!(size % reach));
	u64 clusters = (len * 8ULL + cluster_len(q) - 1) >> q->cluster_bits;
	u8 *dirty;
	int rc;

	if (!size || size % 512 || size > INT64_MAX || len > L1_BYTES_MAX / 8)
		return err_set(err, -EINVAL, "its snapshot '%s' makes no sense", s->shown.name);
	l1 = calloc(len, 8);
	disk = calloc(clusters, cluster_len(q));
	dirty = calloc(1, (len + 63) / 64);
	rc = l1 && disk && dirty ? file_read(q->image->fd, s->l1_offset, disk, s->l1_len * 8ULL) : -ENOMEM;
	for (u64 n = 0; n < len && !rc; n++) {
		l1[n] = be64toh(disk[n]) & ~QCOW2_COPIED;
		disk[n] = htobe64(l1[n]);
	}
	if (!rc)
		rc = clusters_alloc(q, clusters, true, &first, &got);
	if (!rc) {
		q->virgin = MAX(q->virgin, first + clusters);
		rc = file_write(q->image->fd, first << q->cluster_bits, disk, clusters << q->cluster_bits);
	}
	free(disk);
	rc = rc ? err_set(err, rc, "%s", strerror(-rc)) :
	     qcow2_recount(q, l1, len, first << q->cluster_bits, err);
	if (rc) {
		free(l1);
		free(dirty);
		return rc;
	}
	free(q->l1);
	free(q->l1_dirty);
	q->l1 = l1;
	q->l1_dirty = dirty;
	q->l1_len = len;
	q->l1_offset = first << q->cluster_bits;
	q->image->size = q->size = size;
	rc = qcow2_write_header(q);
	if (rc) {
		q->damaged = true;
		return err_set(err, rc, "%s", strerror(-rc));
	}
	return qcow2_recount(q, NULL, 0, 0, err);
}

static int remove_entry(struct qcow2 *q, const struct table *t, const struct snapshot *s,
			struct err *err)
{
	u64 len = t->len - s->len, clusters = (len + cluster_len(q) - 1) >> q->cluster_bits;
	u64 first = 0, got;
	int rc = clusters ? clusters_alloc(q, clusters, true, &first, &got) : 0;

	memmove(t->bytes + s->at, t->bytes + s->at + s->len, t->len - s->at - s->len);
	if (!rc && clusters) {
		q->virgin = MAX(q->virgin, first + clusters);
		rc = file_write(q->image->fd, first << q->cluster_bits, t->bytes, len);
	}
	if (!rc)
		rc = image_flush(q->image);
	if (!rc) {
		q->nr_snapshots--;
		q->snapshots_offset = first << q->cluster_bits;
		rc = qcow2_write_header(q);
	}
	if (rc) {
		q->damaged = true;
		return err_set(err, rc, "%s", strerror(-rc));
	}
	return qcow2_recount(q, NULL, 0, 0, err);
}

static int change(struct image *i, const char *name, bool delete, struct err *err)
{
	struct qcow2 *q = i->own;
	struct snapshot *s;
	struct table t;
	int rc;

	if (i->ops != &qcow2_image)
		return err_set(err, -ENOENT, "it has no snapshot '%s'", name);
	if (i->read_only)
		return err_set(err, -EROFS, "opened read-only");
	rc = read_table(q, &t, err);
	if (rc)
		return rc;
	s = find(&t, name, err);
	if (!s)
		rc = err->code;
	else
		rc = delete ? remove_entry(q, &t, s, err) : apply(q, s, err);
	table_free(&t);
	return rc;
}

int image_snapshot_apply(struct image *i, const char *name, struct err *err)
{
	return change(i, name, false, err);
}

int image_snapshot_delete(struct image *i, const char *name, struct err *err)
{
	return change(i, name, true, err);
}
