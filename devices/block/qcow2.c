/* qcow2.c: qcow2 files: the header, opening, creating, resizing. */
#include "devices/block/qcow2.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "devices/block/blk.h"
#include "devices/block/file.h"
#include "vmm/core/log.h"

enum {
	EXT_END = 0, EXT_BACKING_FORMAT = 0xe2792aca, EXT_FEATURE_NAMES = 0x6803f857,
	EXT_BITMAPS = 0x23852875,
	NAME_MAX_LEN = 1023, FORMAT_MAX_LEN = 31,
	KNOWN_INCOMPATIBLE = QCOW2_DIRTY | QCOW2_CORRUPT | QCOW2_COMPRESSION,
};

struct extension { u32 type, len; };
struct feature_name { u8 kind, bit; char name[46]; };
struct bitmaps { u32 nr, pad; u64 len, offset; };

/* --- the header ---------------------------------------------------------------------------- */

static int update_header(struct qcow2 *q)
{
	u8 sector[512];
	struct qcow2_header *h = (void *)sector;
	int rc = file_read(q->image->fd, 0, sector, sizeof(sector));

	if (rc)
		return rc;
	h->size = htobe64(q->size);
	h->l1_len = htobe32(q->l1_len);
	h->l1_offset = htobe64(q->l1_offset);
	h->reftable_offset = htobe64(q->reftable_offset);
	h->reftable_clusters = htobe32(q->reftable_len * 8ULL >> q->cluster_bits);
	h->nr_snapshots = htobe32(q->nr_snapshots);
	h->snapshots_offset = htobe64(q->snapshots_offset);
	if (q->version >= 3) {
		h->incompatible = htobe64(q->incompatible);
		h->autoclear = htobe64(q->autoclear);
	}
	/* One sector: it is there as a whole, or not. */
	return file_write(q->image->fd, 0, sector, sizeof(sector));
}

int qcow2_write_header(struct qcow2 *q)
{
	int rc = update_header(q);

	return rc ? rc : image_sync(q->image);
}

int qcow2_damage(struct qcow2 *q, const char *what, u64 where)
{
	if (!q->damaged)
		log_err("disk %s: the image is damaged: %s %#llx; nothing is written to it any more. "
			"'vmm disk check' says more", q->image->path, what, (unsigned long long)where);
	if (!q->damaged && !q->image->read_only && q->version >= 3) {
		q->incompatible |= QCOW2_CORRUPT;
		(void)!qcow2_write_header(q);
	}
	q->damaged = true;
	return -EIO;
}

/* --- open ------------------------------------------------------------------------------------- */

/* Features are refused by the name that the file itself has for them. */
static int refuse_features(u64 unknown, const u8 *names, u32 len, struct err *err)
{
	unsigned bit = __builtin_ctzll(unknown);

	for (u32 at = 0; at + sizeof(struct feature_name) <= len; at += sizeof(struct feature_name)) {
		struct feature_name f;

		memcpy(&f, names + at, sizeof(f));
		if (f.kind == 0 && f.bit == bit)
			return err_set(err, -ENOTSUP, "it uses a feature that is not known here: %.46s",
				       f.name);
	}
	return err_set(err, -ENOTSUP, "it uses a feature that is not known here: bit %u", bit);
}

static int refuse_known(u64 incompatible, struct err *err)
{
	if (incompatible & QCOW2_DATA_FILE)
		return err_set(err, -ENOTSUP, "its data is in another file (data_file), which is not "
			       "supported; convert it with 'qemu-img convert'");
	if (incompatible & QCOW2_EXTENDED_L2)
		return err_set(err, -ENOTSUP, "it has extended L2 entries (extended_l2), which are not "
			       "supported; convert it with 'qemu-img convert -o extended_l2=off'");
	return 0;
}

static int read_name(const u8 *from, u32 len, char **out)
{
	*out = strndup((const char *)from, len);
	return *out ? 0 : -ENOMEM;
}

static void note_bitmaps(struct qcow2 *q, const u8 *from)
{
	struct bitmaps b;

	memcpy(&b, from, sizeof(b));
	q->nr_bitmaps = be32toh(b.nr);
	q->bitmaps_len = be64toh(b.len);
	q->bitmaps_offset = be64toh(b.offset);
}

/* Extensions lie between the header and the backing file's name or the cluster's end. */
static int read_extensions(struct image *i, const u8 *head, u64 end, u64 unknown, struct err *err)
{
	struct qcow2 *q = i->own;
	u64 at = q->header_len, names = 0;
	u32 names_len = 0;

	while (at + sizeof(struct extension) <= end) {
		struct extension x;

		memcpy(&x, head + at, sizeof(x));
		x.type = be32toh(x.type);
		x.len = be32toh(x.len);
		at += sizeof(x);
		if (x.type == EXT_END)
			break;
		if (x.len > end - at)
			return err_set(err, -EINVAL, "a header extension is longer than the header");
		if (x.type == EXT_BACKING_FORMAT && x.len <= FORMAT_MAX_LEN && !i->backing_format &&
		    read_name(head + at, x.len, &i->backing_format))
			return err_set(err, -ENOMEM, "out of memory");
		if (x.type == EXT_FEATURE_NAMES) {
			names = at;
			names_len = x.len;
		}
		if (x.type == EXT_BITMAPS && x.len >= sizeof(struct bitmaps))
			note_bitmaps(q, head + at);
		at += ALIGN_UP(x.len, 8u);
	}
	return unknown ? refuse_features(unknown, head + names, names_len, err) : 0;
}

int qcow2_read_table(struct qcow2 *q, u64 offset, u32 len, u64 **out)
{
	u64 *table = calloc(MAX(len, 1u), 8);
	int rc = table ? file_read(q->image->fd, offset, table, len * 8ULL) : -ENOMEM;

	if (rc) {
		free(table);
		return rc;
	}
	for (u32 i = 0; i < len; i++)
		table[i] = be64toh(table[i]);
	*out = table;
	return 0;
}

/* No more entries than can matter: hostile headers do not get to take memory. */
static int check_tables(struct image *i, struct err *err)
{
	struct qcow2 *q = i->own;
	u64 mask = cluster_len(q) - 1, file = i->size;

	if (q->l1_len > L1_BYTES_MAX / 8 || q->l1_offset & mask || (q->l1_len && !q->l1_offset))
		return err_set(err, -EINVAL, "its L1 table cannot be: %u entries at %#llx", q->l1_len,
			       (unsigned long long)q->l1_offset);
	if (!q->reftable_len || q->reftable_len > REFTABLE_BYTES_MAX / 8 || !q->reftable_offset ||
	    q->reftable_offset & mask)
		return err_set(err, -EINVAL, "its refcount table cannot be: %u entries at %#llx",
			       q->reftable_len, (unsigned long long)q->reftable_offset);
	if (q->l1_offset > file || q->l1_len * 8ULL > file - q->l1_offset ||
	    q->reftable_offset > file || q->reftable_len * 8ULL > file - q->reftable_offset)
		return err_set(err, -EINVAL, "the file ends before its tables do: it was cut off");
	return 0;
}

static int read_header(struct image *i, const u8 *head, struct err *err)
{
	struct qcow2 *q = i->own;
	const struct qcow2_header *h = (const void *)head;
	u64 backing = be64toh(h->backing_offset), size = be64toh(h->size), unknown, reach, end;
	u32 backing_len = be32toh(h->backing_len);
	int rc;

	q->version = be32toh(h->version);
	q->cluster_bits = be32toh(h->cluster_bits);
	if (q->version < 2 || q->version > 3)
		return err_set(err, -ENOTSUP, "qcow2 version %u is not supported", q->version);
	if (q->cluster_bits < 9 || q->cluster_bits > 21)
		return err_set(err, -EINVAL, "its clusters cannot have 2^%u bytes", q->cluster_bits);
	if (h->crypt_method)
		return err_set(err, -ENOTSUP, "it is encrypted, which is not supported");
	q->header_len = QCOW2_V2_HEADER;
	q->refcount_order = 4;
	if (q->version >= 3) {
		q->incompatible = be64toh(h->incompatible);
		q->compatible = be64toh(h->compatible);
		q->autoclear = be64toh(h->autoclear);
		q->refcount_order = be32toh(h->refcount_order);
		q->header_len = be32toh(h->header_len);
		if (q->header_len < QCOW2_V3_HEADER || q->header_len > cluster_len(q))
			return err_set(err, -EINVAL, "its header cannot have %u bytes", q->header_len);
		if (q->header_len > QCOW2_V3_HEADER)
			q->compression = h->compression;
	}
	if (q->refcount_order > 6)
		return err_set(err, -EINVAL, "its reference counts cannot have 2^%u bits",
			       q->refcount_order);
	unknown = q->incompatible & ~(u64)KNOWN_INCOMPATIBLE;
	rc = refuse_known(q->incompatible, err);
	if (rc)
		return rc;
	if (q->compression > QCOW2_ZSTD ||
	    !!q->compression != !!(q->incompatible & QCOW2_COMPRESSION))
		return err_set(err, -ENOTSUP, "compression type %u is not supported", q->compression);
	if (backing && (backing_len > NAME_MAX_LEN || backing > cluster_len(q) ||
			backing_len > cluster_len(q) - backing))
		return err_set(err, -EINVAL, "the name of its backing file lies outside its header");
	end = backing > q->header_len ? backing : cluster_len(q);
	rc = read_extensions(i, head, end, unknown, err);
	if (!rc && backing && backing_len && read_name(head + backing, backing_len, &i->backing_path))
		rc = err_set(err, -ENOMEM, "out of memory");
	if (rc)
		return rc;
	q->l2_bits = q->cluster_bits - 3;
	q->block_bits = q->cluster_bits + 3 - q->refcount_order;
	q->l1_offset = be64toh(h->l1_offset);
	q->l1_len = be32toh(h->l1_len);
	q->reftable_offset = be64toh(h->reftable_offset);
	q->reftable_len = MIN((u64)be32toh(h->reftable_clusters) << (q->cluster_bits - 3),
			      UINT32_MAX);
	q->nr_snapshots = be32toh(h->nr_snapshots);
	q->snapshots_offset = be64toh(h->snapshots_offset);
	rc = check_tables(i, err);
	if (rc)
		return rc;
	reach = (u64)q->l1_len << (q->cluster_bits + q->l2_bits);
	if (size > reach || size > INT64_MAX)
		return err_set(err, -EINVAL, "its size cannot be %llu bytes", (unsigned long long)size);
	/* Where the file ends, before size becomes the disk's. */
	q->virgin = (i->size + cluster_len(q) - 1) >> q->cluster_bits;
	q->size = size;
	/* As QEMU has it: what is no whole sector is not the disk's. */
	i->size = ALIGN_DOWN(size, BLK_SECTOR);
	i->cluster = cluster_len(q);
	return 0;
}

static int load_tables(struct qcow2 *q, struct err *err)
{
	int rc = qcow2_read_table(q, q->l1_offset, q->l1_len, &q->l1);

	if (!rc)
		rc = qcow2_read_table(q, q->reftable_offset, q->reftable_len, &q->reftable);
	if (!rc && !(q->l1_dirty = calloc(1, q->l1_len / 64 + 1)))
		rc = -ENOMEM;
	for (u32 i = 0; i < q->reftable_len && !rc; i++)
		if (q->reftable[i] & (cluster_len(q) - 1))
			return err_set(err, -EINVAL, "entry %u of its refcount table cannot be %#llx", i,
				       (unsigned long long)q->reftable[i]);
	return rc ? err_set(err, rc, "its tables: %s", strerror(-rc)) : 0;
}

static int qcow2_open(struct image *i, struct err *err)
{
	struct qcow2 *q = calloc(1, sizeof(*q));
	struct qcow2_header h;
	u8 *head = NULL;
	u64 len;
	int rc;

	if (!q)
		return err_set(err, -ENOMEM, "out of memory");
	i->own = q;
	q->image = i;
	rc = file_read(i->fd, 0, &h, sizeof(h));
	if (rc)
		return err_set(err, rc, "%s", strerror(-rc));
	if (memcmp(h.magic, QCOW2_MAGIC, 4))
		return err_set(err, -EINVAL, "this is not a qcow2 image");
	len = be32toh(h.cluster_bits) <= 21 ? 1ULL << be32toh(h.cluster_bits) : 0;
	len = MAX(len, sizeof(h));
	head = malloc(len);
	rc = head ? file_read(i->fd, 0, head, len) : -ENOMEM;
	rc = rc ? err_set(err, rc, "%s", strerror(-rc)) : read_header(i, head, err);
	free(head);
	if (rc)
		return rc;
	q->slice_len = MIN(cluster_len(q), SLICE_MAX);
	return load_tables(q, err);
}

static void qcow2_close(struct image *i)
{
	struct qcow2 *q = i->own;

	cache_free(q);
	for (int n = 0; n < 2; n++)
		free(q->freed[n].entry);
	free(q->l1);
	free(q->l1_dirty);
	free(q->reftable);
	free(q);
}

int qcow2_made_consistent(struct image *i, struct err *err)
{
	struct qcow2 *q = i->own;
	struct image_check c = { .keep_lost = true };
	bool differ;
	int rc;

	if (i->read_only)
		return 0;
	if (q->incompatible & QCOW2_CORRUPT)
		return err_set(err, -EUCLEAN, "it is marked as damaged; 'vmm disk check --repair' may "
			       "mend it, ',readonly' reads what can be read");
	rc = qcow2_blocks_differ(q, &differ);
	if (rc)
		return err_set(err, rc, "%s", strerror(-rc));
	if (!differ)
		return err_set(err, -EUCLEAN, "its refcount table leads to the same block twice; see 'vmm disk check'");
	/* What others keep beside the data (bitmaps) does not follow our writes. */
	if (q->autoclear) {
		q->autoclear = 0;
		rc = qcow2_write_header(q);
		if (rc)
			return err_set(err, rc, "%s", strerror(-rc));
	}
	if (q->incompatible & QCOW2_DIRTY) {
		log_info("disk %s: was not closed, and its reference counts are lazy: counting anew",
			 i->path);
		rc = qcow2_check(i, true, &c, err);
		if (!rc && c.corruptions)
			rc = err_set(err, -EUCLEAN, "%llu things are wrong in it; see 'vmm disk check'",
				     (unsigned long long)c.corruptions);
	}
	return rc;
}

/* --- resize -------------------------------------------------------------------------------------- */

static int grow_l1(struct qcow2 *q, u32 len, struct err *err)
{
	u64 clusters = (len * 8ULL + cluster_len(q) - 1) >> q->cluster_bits, first, got;
	u64 old = q->l1_offset >> q->cluster_bits;
	u64 old_clusters = (q->l1_len * 8ULL + cluster_len(q) - 1) >> q->cluster_bits;
	u64 *l1 = calloc(len, 8), *disk = calloc(clusters, cluster_len(q));
	u8 *dirty = calloc(1, (len + 63) / 64);
	int rc = l1 && disk && dirty ? clusters_alloc(q, clusters, true, &first, &got) : -ENOMEM;

	if (!rc) {
		memcpy(l1, q->l1, q->l1_len * 8ULL);
		for (u32 n = 0; n < len; n++)
			disk[n] = htobe64(l1[n]);
		q->virgin = MAX(q->virgin, first + clusters);
		rc = file_write(q->image->fd, first << q->cluster_bits, disk, clusters << q->cluster_bits);
		if (!rc)
			rc = image_flush(q->image);
		if (rc)
			clusters_free_now(q, first, clusters);
	}
	free(disk);
	if (rc) {
		free(l1);
		free(dirty);
		return err_set(err, rc, "%s", strerror(-rc));
	}
	free(q->l1);
	free(q->l1_dirty);
	q->l1 = l1;
	q->l1_dirty = dirty;
	q->l1_len = len;
	q->l1_offset = first << q->cluster_bits;
	/* Should it fail, flush tries again; until then both tables stay. */
	rc = qcow2_write_header(q);
	q->header_dirty = rc;
	clusters_free_later(q, old, old_clusters);
	return rc ? err_set(err, rc, "%s", strerror(-rc)) : 0;
}

static int qcow2_reserve(struct image *i, u64 size, struct err *err)
{
	struct qcow2 *q = i->own;
	u64 reach = cluster_len(q) << q->l2_bits, len = (size + reach - 1) / reach;

	if (q->damaged)
		return err_set(err, -EIO, "the image is damaged");
	if (q->nr_snapshots && q->version < 3)
		return err_set(err, -ENOTSUP, "an image of version 2 with internal snapshots cannot be "
			       "resized");
	if (len > L1_BYTES_MAX / 8)
		return err_set(err, -EINVAL, "too large for clusters of %u bytes", i->cluster);
	return len > q->l1_len ? grow_l1(q, len, err) : 0;
}

static int qcow2_resize(struct image *i, u64 size, struct err *err)
{
	struct qcow2 *q = i->own;
	u64 old = q->size;
	int rc;

	q->size = size;
	rc = qcow2_write_header(q);
	if (!rc)
		return 0;
	q->size = old;
	q->header_dirty = true;
	return err_set(err, rc, "%s", strerror(-rc));
}

static void add_extension(u8 **at, u32 type, const void *data, u32 len)
{
	struct extension x = { htobe32(type), htobe32(len) };

	memcpy(*at, &x, sizeof(x));
	memcpy(*at + sizeof(x), data, len);
	*at += sizeof(x) + ALIGN_UP(len, 8u);
}

/* --- another backing file --------------------------------------------------------------------------- */

/* The extensions of old, but the backing format, and then the new one; their end.  NULL: there is no room. */
static u8 *copy_extensions(const struct qcow2 *q, const u8 *old, u8 *new, const char *format)
{
	u64 end = cluster_len(q) - sizeof(struct extension), at = q->header_len;
	u8 *to = new + q->header_len;
	bool done = !format;

	while (at <= end) {
		const u8 *data = old + at + sizeof(struct extension);
		struct extension x;
		u32 len;

		memcpy(&x, old + at, sizeof(x));
		x.type = be32toh(x.type);
		len = x.len = be32toh(x.len);
		at += sizeof(x);
		if (x.type == EXT_END || x.len > cluster_len(q) - at)
			break;
		at += ALIGN_UP(x.len, 8u);
		if (x.type == EXT_BACKING_FORMAT) {
			if (done)
				continue;
			data = (const u8 *)format;
			len = strlen(format);
			done = true;
		}
		/* A longer format moves all that follows it on. */
		if (sizeof(x) + ALIGN_UP(len, 8u) > (u64)(new + cluster_len(q) - to))
			return NULL;
		add_extension(&to, x.type, data, len);
	}
	if (!done && to + 2 * sizeof(struct extension) + 8 <= new + cluster_len(q))
		add_extension(&to, EXT_BACKING_FORMAT, format, strlen(format));
	return to + sizeof(struct extension);
}

/*
 * The name goes where the old one is not, so that until the first sector is
 * written the old one holds.
 */
static int new_header(struct qcow2 *q, const u8 *old, u8 *new, const char *path, const char *format)
{
	struct qcow2_header *h = (void *)new;
	const struct qcow2_header *was = (const void *)old;
	u64 at, len = path ? strlen(path) : 0;
	u64 old_at = be64toh(was->backing_offset), old_len = be32toh(was->backing_len);
	const u8 *end;

	memcpy(new, old, q->header_len);
	end = copy_extensions(q, old, new, format);
	if (!end)
		return -EINVAL;
	at = end - new;
	if (old_at && at < old_at + old_len && old_at < at + len && cluster_len(q) > 512)
		at = ALIGN_UP(old_at + old_len, 8);
	if (len > NAME_MAX_LEN || at > cluster_len(q) || len > cluster_len(q) - at)
		return -EINVAL;
	h->backing_offset = path ? htobe64(at) : 0;
	h->backing_len = htobe32(len);
	if (old_at + old_len <= cluster_len(q) && old_at >= at + len)
		memcpy(new + old_at, old + old_at, old_len);
	if (path)
		memcpy(new + at, path, len);
	return 0;
}

int qcow2_set_backing(struct image *i, const char *path, const char *format, struct err *err)
{
	struct qcow2 *q = i->own;
	u64 len = cluster_len(q);
	u8 *old = malloc(len), *new = calloc(1, len);
	char *name = path ? strdup(path) : NULL, *named = path ? strdup(format) : NULL;
	int rc = old && new && (!path || (name && named)) ? 0 : -ENOMEM;

	if (!rc)
		rc = image_flush(i);
	if (!rc)
		rc = file_read(i->fd, 0, old, len);
	if (!rc) {
		rc = new_header(q, old, new, path, path ? format : NULL);
		if (rc)
			err_set(err, rc, "the name of its backing file is too long for its header");
	} else {
		err_set(err, rc, "%s", strerror(-rc));
	}
	if (!rc) {
		rc = len > 512 ? file_write(i->fd, 512, new + 512, len - 512) : 0;
		if (!rc)
			rc = image_sync(i);
		if (!rc)
			rc = file_write(i->fd, 0, new, 512);
		if (!rc)
			rc = image_sync(i);
		if (rc)
			err_set(err, rc, "%s", strerror(-rc));
	}
	free(old);
	free(new);
	if (rc) {
		free(name);
		free(named);
		return rc;
	}
	free(i->backing_path);
	free(i->backing_format);
	i->backing_path = name;
	i->backing_format = named;
	return 0;
}

/* --- create ---------------------------------------------------------------------------------------- */

struct layout {
	u64 cluster, l1_len, l1, reftable, blocks, total;	/* in clusters, l1_len in entries */
};

static int plan(struct layout *l, const struct image_create *c, unsigned order, struct err *err)
{
	u64 reach = l->cluster * (l->cluster / 8), per_block = l->cluster * 8 >> order;
	u64 all;

	l->l1_len = (c->size + reach - 1) / reach;
	if (l->l1_len > L1_BYTES_MAX / 8)
		return err_set(err, -EINVAL, "%llu bytes are too many for clusters of %llu",
			       (unsigned long long)c->size, (unsigned long long)l->cluster);
	l->l1 = (l->l1_len * 8 + l->cluster - 1) / l->cluster;
	/* The table has room for the whole disk, so that it need not move. */
	all = (c->size / l->cluster + l->l1_len + l->l1) / per_block + 2;
	l->reftable = MIN((all * 8 + l->cluster - 1) / l->cluster, REFTABLE_BYTES_MAX / l->cluster);
	l->blocks = 1;
	while (l->blocks * per_block < 1 + l->reftable + l->blocks + l->l1)
		l->blocks++;
	l->total = 1 + l->reftable + l->blocks + l->l1;
	return 0;
}

/* -EINVAL: the backing file's name does not fit. */
static int fill_header(u8 *head, const struct layout *l, const struct image_create *c,
		       unsigned order)
{
	static const struct feature_name names[] = {
		{ 0, 0, "dirty bit" }, { 0, 1, "corrupt bit" }, { 0, 3, "compression type" },
		{ 1, 0, "lazy refcounts" },
	};
	struct qcow2_header h = {
		.magic = QCOW2_MAGIC, .version = htobe32(c->version),
		.cluster_bits = htobe32(__builtin_ctzll(l->cluster)), .size = htobe64(c->size),
		.l1_len = htobe32(l->l1_len),
		.l1_offset = htobe64((1 + l->reftable + l->blocks) * l->cluster),
		.reftable_offset = htobe64(l->cluster), .reftable_clusters = htobe32(l->reftable),
		.incompatible = htobe64(c->zstd ? QCOW2_COMPRESSION : 0),
		.compatible = htobe64(c->lazy_refcounts ? QCOW2_LAZY_REFCOUNTS : 0),
		.refcount_order = htobe32(order), .header_len = htobe32(sizeof(h)),
		.compression = c->zstd ? QCOW2_ZSTD : QCOW2_ZLIB,
	};
	u8 *at = head + (c->version < 3 ? QCOW2_V2_HEADER : sizeof(h));

	if (c->backing_format)
		add_extension(&at, EXT_BACKING_FORMAT, c->backing_format, strlen(c->backing_format));
	/* In the smallest clusters a long name matters more. */
	if (c->version >= 3 && l->cluster > 512)
		add_extension(&at, EXT_FEATURE_NAMES, names, sizeof(names));
	at += sizeof(struct extension);		/* the end */
	if (c->backing) {
		u64 len = strlen(c->backing);

		if (len > NAME_MAX_LEN || len > l->cluster - (at - head))
			return -EINVAL;
		h.backing_offset = htobe64(at - head);
		h.backing_len = htobe32(len);
		memcpy(at, c->backing, len);
	}
	memcpy(head, &h, c->version < 3 ? QCOW2_V2_HEADER : sizeof(h));
	return 0;
}

static int write_tables(int fd, const struct layout *l, unsigned order)
{
	struct qcow2 q = { .refcount_order = order };
	u64 per_block = l->cluster * 8 >> order;
	u8 *cluster = calloc(1, l->cluster);
	u64 *table = calloc(l->reftable, l->cluster);
	int rc = cluster && table ? 0 : -ENOMEM;

	for (u64 b = 0; b < l->blocks && !rc; b++) {
		u64 used = MIN(per_block, l->total - b * per_block);

		table[b] = htobe64((1 + l->reftable + b) * l->cluster);
		memset(cluster, 0, l->cluster);
		for (u64 n = 0; n < used; n++)
			refcount_write(&q, cluster, n, 1);
		rc = file_write(fd, (1 + l->reftable + b) * l->cluster, cluster, l->cluster);
	}
	if (!rc)
		rc = file_write(fd, l->cluster, table, l->reftable * l->cluster);
	if (!rc)	/* L1: nothing yet */
		rc = file_truncate(fd, l->total * l->cluster);
	free(cluster);
	free(table);
	return rc;
}

/* All data clusters, where the disk's bytes will be one after the other. */
static int preallocate(int fd, enum preallocation how, struct err *err)
{
	struct image i = { .ops = &qcow2_image, .fd = fd, .direct_fd = -1, .path = (char[]){ "" },
			   .sync_lock = PTHREAD_MUTEX_INITIALIZER,
			   .sync_ended = PTHREAD_COND_INITIALIZER };
	u64 size;
	int rc = file_size(fd, &i.size);

	if (rc)
		return err_set(err, rc, "%s", strerror(-rc));
	rc = qcow2_open(&i, err);
	if (rc) {
		if (i.own)
			qcow2_close(&i);
		return rc;
	}
	for (u64 at = 0; at < i.size && !rc; ) {
		struct extent e;

		rc = qcow2_alloc(&i, at, ALIGN_UP(i.size - at, (u64)i.cluster), &e);
		if (!rc)
			rc = qcow2_publish(&i, &e);
		at += e.len;
	}
	if (!rc)
		rc = image_flush(&i);
	if (!rc)
		rc = file_size(fd, &size);
	if (!rc && how != PREALLOC_METADATA)
		rc = file_allocate(fd, 0, size);
	if (!rc)
		rc = file_sync(fd);
	qcow2_close(&i);
	return rc ? err_set(err, rc, "%s", strerror(-rc)) : 0;
}

static int check_options(const struct image_create *c, u64 cluster, struct err *err)
{
	if (cluster < CLUSTER_MIN || cluster > CLUSTER_MAX || cluster & (cluster - 1))
		return err_set(err, -EINVAL, "a cluster has 512 bytes to 2M, a power of two; not %llu",
			       (unsigned long long)cluster);
	if (c->refcount_bits > 64 || c->refcount_bits & (c->refcount_bits - 1))
		return err_set(err, -EINVAL, "a reference count has 1, 2, 4, 8, 16, 32 or 64 bits; not %u",
			       c->refcount_bits);
	if (c->version != 2 && c->version != 3)
		return err_set(err, -EINVAL, "qcow2 has versions 2 and 3; not %u", c->version);
	if (c->version == 2 && (c->lazy_refcounts || c->zstd || c->refcount_bits != 16))
		return err_set(err, -EINVAL, "version 2 has no lazy refcounts, no zstd and only counts of "
			       "16 bits; take version 3 (--compat v3)");
	if (!c->size)
		return err_set(err, -EINVAL, "size 0: a disk has %d bytes at least", BLK_SECTOR);
	if (c->size % BLK_SECTOR || c->size > INT64_MAX)
		return err_set(err, -EINVAL, "size %llu is not a multiple of %d bytes, or too large",
			       (unsigned long long)c->size, BLK_SECTOR);
	if (c->backing && c->preallocation)
		return err_set(err, -EINVAL, "an image with a backing file cannot be preallocated");
	return 0;
}

/* What is asked of the backing file now is what opening will find. */
static int look_at_backing(const char *path, struct image_create *c, struct err *err)
{
	struct image_options o = { .format = c->backing_format, .read_only = true, .no_lock = true,
				   .backing_anywhere = true };
	const char *slash = strrchr(path, '/');
	unsigned files = 1;
	struct image *below;
	char *name;
	int rc;

	if (c->backing[0] == '/' || !slash)
		name = strdup(c->backing);
	else if (asprintf(&name, "%.*s%s", (int)(slash + 1 - path), path, c->backing) < 0)
		name = NULL;
	if (!name)
		return err_set(err, -ENOMEM, "out of memory");
	rc = image_open(&below, name, &o, err);
	free(name);
	if (rc)
		return err_prefix(err, "backing "), rc;
	c->backing_format = below->ops->format;
	if (!c->size)
		c->size = below->size;
	for (struct image *i = below; i; i = i->backing)
		files++;
	image_close(below);
	return files > CHAIN_MAX_FILES ?
		err_set(err, -EINVAL, "more than %d files deep", CHAIN_MAX_FILES) : 0;
}

int qcow2_create(int fd, const char *path, const struct image_create *asked, struct err *err)
{
	struct image_create c = *asked;
	struct layout l = { .cluster = c.cluster ? c.cluster : 64 * KIB };
	unsigned order;
	u8 *head;
	int rc = 0;

	c.version = c.version ? c.version : 3;
	c.refcount_bits = c.refcount_bits ? c.refcount_bits : 16;
	order = __builtin_ctz(c.refcount_bits);
	if (c.backing)
		rc = look_at_backing(path, &c, err);
	if (!rc)
		rc = check_options(&c, l.cluster, err);
	if (!rc)
		rc = plan(&l, &c, order, err);
	if (rc)
		return rc;
	head = calloc(1, l.cluster);
	if (!head)
		return err_set(err, -ENOMEM, "out of memory");
	if (fill_header(head, &l, &c, order)) {
		free(head);
		return err_set(err, -EINVAL, "the name of its backing file is too long for its header");
	}
	/* The header last: without it the file is no image. */
	rc = write_tables(fd, &l, order);
	if (!rc)
		rc = file_sync(fd);
	if (!rc)
		rc = file_write(fd, 0, head, l.cluster);
	if (!rc)
		rc = file_sync(fd);
	free(head);
	if (rc)
		return err_set(err, rc, "%s", strerror(-rc));
	return c.preallocation ? preallocate(fd, c.preallocation, err) : 0;
}

const struct image_ops qcow2_image = {
	.format = "qcow2", .open = qcow2_open, .map = qcow2_map, .alloc = qcow2_alloc,
	.publish = qcow2_publish, .cancel = qcow2_cancel, .unpack = qcow2_unpack, .zero = qcow2_zero,
	.write_packed = qcow2_write_packed,
	.flush = qcow2_flush, .reclaim = qcow2_reclaim, .reclaim_due = qcow2_reclaim_due,
	.reserve = qcow2_reserve,
	.resize = qcow2_resize, .close = qcow2_close,
};
