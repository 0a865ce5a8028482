/* qcow2_map.c: where the disk's clusters are: L1 and L2 tables. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "devices/block/file.h"
#include "devices/block/pack.h"
#include "devices/block/qcow2.h"

void l1_set(struct qcow2 *q, u32 index, u64 entry)
{
	q->l1[index] = entry;
	q->l1_dirty[index / 64] = 1;
	q->any_l1_dirty = true;
}

struct packed packed_place(const struct qcow2 *q, u64 entry)
{
	unsigned bits = 62 - (q->cluster_bits - 8);
	u64 offset = entry & ((1ULL << bits) - 1);
	u32 sectors = entry >> bits & ((1ULL << (q->cluster_bits - 8)) - 1);

	return (struct packed){ offset, (sectors + 1ULL) * 512 - (offset & 511) };
}

/* Of tables, or of data that may be written in place: nowhere near the tables
 * that lead to them. */
static bool good_offset(const struct qcow2 *q, u64 offset)
{
	u64 table = q->reftable_offset, l1 = q->l1_offset;

	return offset && !(offset & (cluster_len(q) - 1)) &&
	       offset - table >= q->reftable_len * 8ULL &&
	       offset - l1 >= ALIGN_UP(q->l1_len * 8ULL, cluster_len(q));
}

/* --- finding an entry ------------------------------------------------------------------------ */

/* An L2 entry in the cache, good until the next look into it. */
struct entry { struct slice *slice; unsigned byte; };

static u64 get(const struct entry *e)
{
	u64 v;

	memcpy(&v, e->slice->data + e->byte, 8);
	return be64toh(v);
}

static void set(struct qcow2 *q, const struct entry *e, u64 value)
{
	u64 v = htobe64(value);

	memcpy(e->slice->data + e->byte, &v, 8);
	cache_dirty(q, e->slice, e->byte);
}

static u64 l2_index(const struct qcow2 *q, u64 start)
{
	return start >> q->cluster_bits & ((1ULL << q->l2_bits) - 1);
}

/* slice NULL: there is no table. */
static int find(struct qcow2 *q, u64 start, bool nowait, struct entry *e)
{
	u64 index = start >> (q->cluster_bits + q->l2_bits), table, at;
	int rc;

	BUG_ON(index >= q->l1_len);
	*e = (struct entry){ 0 };
	table = q->l1[index] & QCOW2_OFFSET;
	if (!table)
		return 0;
	if (!good_offset(q, table))
		return qcow2_damage(q, "no L2 table can be", table);
	at = table + l2_index(q, start) * 8;
	rc = cache_get(q, at, false, nowait, &e->slice);
	e->byte = at & (q->slice_len - 1);
	return rc;
}

static int new_table(struct qcow2 *q, u32 index)
{
	u64 old = q->l1[index] & QCOW2_OFFSET, cluster, got;
	u8 *data = calloc(1, cluster_len(q));
	int rc = data ? clusters_alloc(q, 1, true, &cluster, &got) : -ENOMEM;

	if (rc) {
		free(data);
		return rc;
	}
	/* A shared table does not change, so the file has what the cache has. */
	if (old)
		rc = file_read(q->image->fd, old, data, cluster_len(q));
	q->virgin = MAX(q->virgin, cluster + 1);
	if (!rc)
		rc = file_write(q->image->fd, cluster << q->cluster_bits, data, cluster_len(q));
	free(data);
	if (rc) {
		clusters_free_now(q, cluster, 1);
		return rc;
	}
	l1_set(q, index, cluster << q->cluster_bits | QCOW2_COPIED);
	if (old)
		clusters_free_later(q, old >> q->cluster_bits, 1);
	return 0;
}

/* From now on there is a table for start, and it may be changed. */
static int ensure_table(struct qcow2 *q, u64 start)
{
	u64 index = start >> (q->cluster_bits + q->l2_bits), entry;

	BUG_ON(index >= q->l1_len);
	entry = q->l1[index];
	if (q->damaged)
		return -EIO;
	if (entry & QCOW2_OFFSET && entry & QCOW2_COPIED)
		return 0;
	if (entry & QCOW2_OFFSET && !good_offset(q, entry & QCOW2_OFFSET))
		return qcow2_damage(q, "no L2 table can be", entry & QCOW2_OFFSET);
	return new_table(q, index);
}

/* --- map ------------------------------------------------------------------------------------------ */

static int decode(struct qcow2 *q, u64 v, struct extent *e)
{
	e->file_offset = v & QCOW2_OFFSET;
	e->writable = false;
	if (v & QCOW2_PACKED) {
		e->kind = EXTENT_PACKED;
		e->file_offset = v;
		return 0;
	}
	if (v & QCOW2_L2_RESERVED & (CLUSTER_MIN - 1) || (e->file_offset && !good_offset(q, e->file_offset)) ||
	    (v & QCOW2_ZERO && q->version < 3))
		return qcow2_damage(q, "no L2 entry can be", v);
	if (v & QCOW2_ZERO) {
		e->kind = EXTENT_ZERO;
	} else if (e->file_offset) {
		e->kind = EXTENT_DATA;
		e->writable = v & QCOW2_COPIED && !q->image->read_only && !q->damaged;
	} else {
		e->kind = EXTENT_ABSENT;
	}
	return 0;
}

/* The next cluster goes on where this extent ends. */
static bool goes_on(const struct qcow2 *q, const struct extent *a, const struct extent *b, u64 len)
{
	(void)q;
	if (a->kind != b->kind || a->writable != b->writable || a->kind == EXTENT_PACKED)
		return false;
	return a->kind != EXTENT_DATA || a->file_offset + len == b->file_offset;
}

int qcow2_map(struct image *i, u64 start, u64 len, bool nowait, struct extent *out)
{
	struct qcow2 *q = i->own;
	u64 in = start & (cluster_len(q) - 1), covered, left;
	struct entry at;
	int rc = find(q, start, nowait, &at);

	if (rc)
		return rc;
	*out = (struct extent){ .kind = EXTENT_ABSENT, .start = start };
	left = cluster_len(q) << q->l2_bits;
	left -= start & (left - 1);
	if (!at.slice) {
		out->len = MIN(len, left);
		return 0;
	}
	rc = decode(q, get(&at), out);
	if (rc)
		return rc;
	covered = cluster_len(q) - in;
	for (at.byte += 8; at.byte < q->slice_len && covered < len; at.byte += 8) {
		struct extent next = { 0 };

		if (decode(q, get(&at), &next) || !goes_on(q, out, &next, covered + in))
			break;
		covered += cluster_len(q);
	}
	if (out->kind == EXTENT_DATA)
		out->file_offset += in;
	out->len = MIN(len, covered);
	return 0;
}

int qcow2_unpack(struct image *i, const struct extent *e, void *cluster)
{
	struct qcow2 *q = i->own;
	struct packed p = packed_place(q, e->file_offset);
	u8 *packed = malloc(p.len);
	int rc = packed ? file_read(i->fd, p.offset, packed, p.len) : -ENOMEM;

	if (!rc)
		rc = unpack(q->compression == QCOW2_ZSTD, packed, p.len, cluster, cluster_len(q));
	free(packed);
	return rc;
}

/* --- change ------------------------------------------------------------------------------------------- */

int qcow2_alloc(struct image *i, u64 start, u64 len, struct extent *e)
{
	struct qcow2 *q = i->own;
	u64 nr = len >> q->cluster_bits, left = (1ULL << q->l2_bits) - l2_index(q, start);
	u64 first, got, end, size;
	struct entry at;
	int rc = ensure_table(q, start);

	if (!rc)
		rc = find(q, start, false, &at);
	if (rc)
		return rc;
	*e = (struct extent){ .kind = EXTENT_DATA, .start = start, .writable = true };
	/* A zero cluster may have kept its place. */
	if (!(get(&at) & QCOW2_PACKED) && get(&at) & QCOW2_ZERO && get(&at) & QCOW2_COPIED &&
	    get(&at) & QCOW2_OFFSET) {
		e->file_offset = get(&at) & QCOW2_OFFSET;
		e->len = cluster_len(q);
		return good_offset(q, e->file_offset) ? 0 :
			qcow2_damage(q, "no L2 entry can be", get(&at));
	}
	rc = clusters_alloc(q, MIN(nr, left), false, &first, &got);
	if (rc)
		return rc;
	e->file_offset = first << q->cluster_bits;
	e->len = got << q->cluster_bits;
	e->fresh = first >= q->virgin;
	end = e->file_offset + e->len;
	q->virgin = MAX(q->virgin, first + got);
	/* A file that ends inside a cluster makes some readers stumble. */
	rc = file_size(i->fd, &size);
	if (!rc && size < end)
		rc = file_truncate(i->fd, end);
	if (rc)
		clusters_free_now(q, first, got);
	return rc;
}

/* What an entry referred to has one reference less. */
static void let_go(struct qcow2 *q, u64 v)
{
	if (v & QCOW2_PACKED) {
		struct packed p = packed_place(q, v);
		u64 first = p.offset >> q->cluster_bits;

		clusters_free_later(q, first, ((p.offset + p.len - 1) >> q->cluster_bits) - first + 1);
	} else if (v & QCOW2_OFFSET) {
		clusters_free_later(q, (v & QCOW2_OFFSET) >> q->cluster_bits, 1);
	}
}

int qcow2_publish(struct image *i, const struct extent *e)
{
	struct qcow2 *q = i->own;
	struct entry at;
	int rc = 0;

	/* All in one slice's reach of one table: the second look cannot fail half-way. */
	for (u64 done = 0; done < e->len && !rc; done += cluster_len(q)) {
		u64 to = (e->file_offset + done) | QCOW2_COPIED, old;

		rc = find(q, e->start + done, false, &at);
		if (rc)
			break;
		old = get(&at);
		set(q, &at, to);
		if (old & QCOW2_PACKED || (old & QCOW2_OFFSET) != (to & QCOW2_OFFSET))
			let_go(q, old);
	}
	return rc;
}

void qcow2_cancel(struct image *i, const struct extent *e)
{
	struct qcow2 *q = i->own;

	/* Those that the disk does refer to, by a publish that failed half-way or
	 * a zero cluster that had kept its place, stay. */
	for (u64 done = 0; done < e->len; done += cluster_len(q)) {
		struct entry at;
		u64 v;

		if (find(q, e->start + done, false, &at) || !at.slice)
			return;
		v = get(&at);
		if (v & QCOW2_PACKED || (v & QCOW2_OFFSET) != e->file_offset + done)
			clusters_free_now(q, (e->file_offset + done) >> q->cluster_bits, 1);
	}
}

/* Room for len bytes: behind those written last, in the same cluster, or at the
 * beginning of a new one. */
static int pack_room(struct qcow2 *q, u32 len, u64 *at)
{
	u64 in = q->pack_at & (cluster_len(q) - 1), cluster, got, count;
	int rc = 0;

	if (q->pack_at && in && in + len <= cluster_len(q)) {
		cluster = q->pack_at >> q->cluster_bits;
		rc = refcount_get(q, cluster, &count);
		if (!rc && count && count < refcount_max(q)) {
			*at = q->pack_at;
			return refcount_add(q, cluster, 1, NULL);
		}
	}
	if (!rc)
		rc = clusters_alloc(q, 1, false, &cluster, &got);
	if (rc)
		return rc;
	q->virgin = MAX(q->virgin, cluster + 1);
	*at = cluster << q->cluster_bits;
	return 0;
}

int qcow2_write_packed(struct image *i, u64 start, const void *cluster)
{
	struct qcow2 *q = i->own;
	unsigned bits = 62 - (q->cluster_bits - 8);
	u8 *packed = malloc(cluster_len(q));
	size_t len = packed ? pack(q->compression == QCOW2_ZSTD, cluster, cluster_len(q), packed,
				   cluster_len(q) - 1) : 0;
	struct entry e;
	u64 at, old;
	int rc = packed ? !len : -ENOMEM;

	if (!rc)
		rc = ensure_table(q, start);
	if (!rc)
		rc = pack_room(q, len, &at);
	if (rc) {
		free(packed);
		return rc;
	}
	rc = at >> bits ? -EFBIG : file_write(i->fd, at, packed, len);
	free(packed);
	if (!rc)
		rc = find(q, start, false, &e);
	if (rc) {
		clusters_free_now(q, at >> q->cluster_bits, 1);
		return rc;
	}
	old = get(&e);
	set(q, &e, QCOW2_PACKED | ((at & 511) + len - 1) / 512 << bits | at);
	let_go(q, old);
	q->pack_at = at + len;
	return 0;
}

static int zero_one(struct qcow2 *q, u64 start, bool unmap)
{
	bool below = q->image->backing_path;
	u64 old, new = below ? QCOW2_ZERO : 0;
	struct entry at;
	int rc = find(q, start, false, &at);

	if (rc)
		return rc;
	old = at.slice ? get(&at) : 0;
	if (!below && !old)
		return 0;
	if (!(old & QCOW2_PACKED) && old & QCOW2_ZERO && (!unmap || !(old & QCOW2_OFFSET)))
		return 0;
	rc = ensure_table(q, start);
	if (!rc)
		rc = find(q, start, false, &at);
	if (rc)
		return rc;
	if (!unmap && q->version >= 3 && !(old & QCOW2_PACKED) && old & QCOW2_COPIED &&
	    old & QCOW2_OFFSET)
		new = old | QCOW2_ZERO;
	set(q, &at, new);
	if (!(new & QCOW2_OFFSET))
		let_go(q, old);
	return 0;
}

int qcow2_zero(struct image *i, u64 start, u64 len, bool unmap)
{
	struct qcow2 *q = i->own;
	u64 table = cluster_len(q) << q->l2_bits, end = start + len;
	int rc = 0;

	if (q->version < 3 && i->backing_path)
		return -EOPNOTSUPP;
	while (start < end && !rc) {
		/* Where there is no table there is nothing to let go. */
		if (!i->backing_path && !(q->l1[start >> (q->cluster_bits + q->l2_bits)] & QCOW2_OFFSET)) {
			start = ALIGN_DOWN(start, table) + table;
			continue;
		}
		rc = zero_one(q, start, unmap);
		start += cluster_len(q);
	}
	return rc;
}
