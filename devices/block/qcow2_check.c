/* qcow2_check.c: count every reference in the file anew, and compare. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "devices/block/file.h"
#include "devices/block/qcow2.h"

enum { TOLD_MAX = 100 };

struct checker {
	struct qcow2 *q;
	struct image_check *c;
	u64 file_clusters;
	u64 nr;				/* clusters with room in seen */
	u64 most;			/* it may have */
	u32 *seen;			/* references found... */
	u32 *tables;			/* ...of those as L1 or L2 tables */
	const struct checker *before;	/* who has counted them without a change; NULL: drop nothing */
	const u64 *more_l1;		/* which is to be referred to soon */
	u32 more_len;
	u64 more_offset;
	bool beyond;			/* the place last seen is there */
	bool blind;			/* a table makes no sense: what it leads to was not seen */
	bool bad_bitmaps;		/* the same of theirs */
	bool mixed;			/* a table is something else, too: mending the one would change the other */
	unsigned told;
	int rc;				/* -errno: could not look */
};

static void tell(struct checker *k, const char *fmt, ...) printf_like(2, 3);
static void tell(struct checker *k, const char *fmt, ...)
{
	char line[200];
	va_list ap;

	if (!k->c->tell || k->told > TOLD_MAX)
		return;
	if (k->told++ == TOLD_MAX) {
		k->c->tell("and so on", k->c->arg);
		return;
	}
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	k->c->tell(line, k->c->arg);
}

/* False: it cannot be. */
static bool see(struct checker *k, u64 offset, u64 len, const char *what)
{
	u64 first = offset >> k->q->cluster_bits, last = (offset + len - 1) >> k->q->cluster_bits;

	k->beyond = offset + len < offset || last >= k->file_clusters;
	if (k->beyond) {
		tell(k, "corrupt: %s at %#" PRIx64 " is beyond the end of the file", what, offset);
		k->c->corruptions++;
		return false;
	}
	for (u64 c = first; c <= last; c++)
		if (k->seen[c] != UINT32_MAX)
			k->seen[c]++;
	return true;
}

static bool see_table(struct checker *k, u64 offset, u64 len, const char *what)
{
	k->beyond = false;
	if (offset & (cluster_len(k->q) - 1)) {
		tell(k, "corrupt: %s at %#" PRIx64 " is not at the beginning of a cluster", what, offset);
		k->c->corruptions++;
		return false;
	}
	return see(k, offset, len, what);
}

/* To be dropped: it led to where the file, which was cut off, has nothing any more.  What is
 * read there is zeroes, and stays so; left alone, a new cluster might come to lie there. */
static bool is_lost(struct checker *k)
{
	if (!k->before || !k->beyond)
		return false;
	k->c->corruptions--;
	k->c->fixed++;
	k->c->lost++;
	return true;
}

/* Nobody can use what is said to be there. */
static bool is_no_table(struct checker *k, u64 v, const char *what)
{
	if (!qcow2_is_table(k->q, (v & QCOW2_OFFSET) >> k->q->cluster_bits))
		return true;
	v &= QCOW2_OFFSET;
	tell(k, "corrupt: %s at %#" PRIx64 " is where a table is that leads to others", what, v);
	k->c->corruptions++;
	return false;
}

/* What they may be meant to say nobody knows. */
static void see_reserved(struct checker *k, u64 bits, const char *what, u64 v)
{
	if (!bits)
		return;
	tell(k, "corrupt: an entry of %s has bits that it cannot have: %#" PRIx64, what, v);
	k->c->corruptions++;
}

static u64 l2_reserved(const struct qcow2 *q, u64 v)
{
	return v & QCOW2_PACKED ? 0 : v & (QCOW2_L2_RESERVED | (q->version < 3 ? QCOW2_ZERO : 0));
}

/* False: it cannot be. */
static bool see_entry(struct checker *k, u64 v, bool active)
{
	struct qcow2 *q = k->q;
	bool good;

	if (v & QCOW2_PACKED) {
		struct packed p = packed_place(q, v);
		u64 end = k->file_clusters << q->cluster_bits;

		/* Its last sector may be cut off by the end of the file, but not all of it. */
		good = see(k, p.offset, p.offset < end ? MIN(p.len, end - p.offset) : p.len, "compressed data");
		k->c->packed += active;
	} else if (v & QCOW2_OFFSET) {
		good = see_table(k, v & QCOW2_OFFSET, cluster_len(q), "data") && is_no_table(k, v, "data");
	} else {
		return true;
	}
	k->c->allocated += active && good;
	return good;
}

/* What is there is L1 and L2 tables and nothing else, or mending them would be writing to that. */
static bool only_tables(const struct checker *k, u64 offset, u64 len)
{
	u64 first = offset >> k->q->cluster_bits, last = (offset + len - 1) >> k->q->cluster_bits;

	for (u64 c = first; c <= last; c++)
		if (!k->before || c >= k->before->nr || k->before->seen[c] != k->before->tables[c])
			return false;
	return true;
}

static void are_tables(struct checker *k, u64 offset, u64 len)
{
	u64 first = offset >> k->q->cluster_bits, last = (offset + len - 1) >> k->q->cluster_bits;

	for (u64 c = first; c <= last; c++)
		if (k->tables[c] != UINT32_MAX)
			k->tables[c]++;
}

/* In pieces: an L2 table may have two megabytes. */
static void see_l2(struct checker *k, u64 table, bool active)
{
	struct qcow2 *q = k->q;
	u64 piece[512], len = MIN(sizeof(piece), cluster_len(q));

	for (u64 at = 0; at < cluster_len(q) && !k->rc; at += len) {
		bool changed = false;

		k->rc = file_read(q->image->fd, table + at, piece, len);
		for (u64 n = 0; n < len / 8 && !k->rc; n++) {
			u64 v = be64toh(piece[n]);

			see_reserved(k, l2_reserved(q, v), "an L2 table", v);
			if (see_entry(k, v, active) || !only_tables(k, table, 1) || !is_lost(k))
				continue;
			piece[n] = htobe64(q->version < 3 ? 0 : QCOW2_ZERO);
			changed = true;
		}
		if (changed && !k->rc) {
			cache_forget(q, table + at, len);
			k->rc = file_write(q->image->fd, table + at, piece, len);
		}
	}
}

static void drop_l2(struct checker *k, u64 l1_offset, u32 n, bool active)
{
	static const u64 none;

	if (active)
		l1_set(k->q, n, none);
	else
		k->rc = file_write(k->q->image->fd, l1_offset + n * 8ULL, &none, sizeof(none));
}

static void see_l1(struct checker *k, const u64 *l1, u32 len, u64 l1_offset, bool active)
{
	u64 left = k->file_clusters;

	for (u32 n = 0; n < len && !k->rc; n++) {
		u64 table = l1[n] & QCOW2_OFFSET;

		see_reserved(k, l1[n] & QCOW2_L1_RESERVED, "an L1 table", l1[n]);
		/* Or a small file has a check read the same table millions of times. */
		if (table && !left--) {
			tell(k, "corrupt: an L1 table has more L2 tables than the file has clusters");
			k->c->corruptions++;
			k->blind = true;
			return;
		}
		if (!table)
			continue;
		if (see_table(k, table, cluster_len(k->q), "an L2 table")) {
			are_tables(k, table, 1);
			if (is_no_table(k, table, "an L2 table"))
				see_l2(k, table, active);
		} else if ((active || only_tables(k, l1_offset, len * 8ULL)) && is_lost(k)) {
			drop_l2(k, l1_offset, n, active);
		}
	}
}

/* --- internal snapshots: their L1 tables refer to clusters too ------------------------------- */

/* False: not all of them. */
static bool see_snapshots(struct checker *k)
{
	struct qcow2 *q = k->q;
	u64 at = q->snapshots_offset, end = k->file_clusters << q->cluster_bits, left = k->file_clusters;

	if (q->nr_snapshots > SNAPSHOTS_MAX || (q->nr_snapshots && at >= end)) {
		tell(k, "corrupt: %u snapshots, their table at %#" PRIx64, q->nr_snapshots, at);
		k->c->corruptions++;
		return false;
	}
	for (u32 n = 0; n < q->nr_snapshots && !k->rc; n++) {
		struct snapshot_header h;
		u64 *l1 = NULL, len, clusters;

		k->rc = file_read(q->image->fd, at, &h, sizeof(h));
		if (k->rc)
			return false;
		len = be32toh(h.l1_len);
		clusters = (len * 8 + cluster_len(q) - 1) >> q->cluster_bits;
		/* Each has its own, or a small file has a check read the same one many times. */
		if (len > L1_BYTES_MAX / 8 || clusters > left) {
			tell(k, "corrupt: a snapshot's L1 table has %" PRIu64 " entries", len);
			k->c->corruptions++;
			return false;
		}
		left -= clusters;
		if (len && !see_table(k, be64toh(h.l1_offset), len * 8, "a snapshot's L1 table"))
			return false;
		if (len)
			are_tables(k, be64toh(h.l1_offset), len * 8);
		k->rc = qcow2_read_table(q, be64toh(h.l1_offset), len, &l1);
		if (!k->rc)
			see_l1(k, l1, len, be64toh(h.l1_offset), false);
		free(l1);
		at += sizeof(h) + be32toh(h.extra_len) + be16toh(h.id_len) + be16toh(h.name_len);
		at = ALIGN_UP(at, 8);
		if (at > end || at - q->snapshots_offset > 64 * MIB) {
			tell(k, "corrupt: the table of snapshots is too long");
			k->c->corruptions++;
			return false;
		}
	}
	return !q->nr_snapshots || k->rc ||
	       see_table(k, q->snapshots_offset, at - q->snapshots_offset, "the table of snapshots");
}

/* --- bitmaps: others keep them beside the data, and are to find them again ------------------- */

static bool bad_bitmaps(struct checker *k, u64 at)
{
	tell(k, "corrupt: the bitmaps' directory makes no sense at %#" PRIx64, at);
	k->c->corruptions++;
	return false;
}

/* It is theirs alone, or whoever writes it writes to what else is there.  They are seen last, and one
 * that is not is not counted: the other has not to be mended for it. */
static bool see_own(struct checker *k, u64 offset, u64 len, const char *what)
{
	u64 first = offset >> k->q->cluster_bits, last = (offset + len - 1) >> k->q->cluster_bits;

	for (u64 c = first; c <= last && c < k->file_clusters; c++) {
		if (!k->seen[c])
			continue;
		tell(k, "corrupt: %s at %#" PRIx64 " is something else, too", what, offset);
		k->c->corruptions++;
		return false;
	}
	return see_table(k, offset, len, what);
}

static bool see_bitmap(struct checker *k, const struct bitmap_entry *e, u64 *left)
{
	bool good = true;
	u64 table = be64toh(e->table_offset), nr = be32toh(e->table_len), piece[512];
	u64 clusters = (nr * 8 + cluster_len(k->q) - 1) >> k->q->cluster_bits;

	/* Or a small file has a check read the same table many times. */
	if (clusters > *left)
		return bad_bitmaps(k, table);
	*left -= clusters;
	if (nr && !see_own(k, table, nr * 8, "a bitmap's table"))
		return false;
	for (u64 at = 0; at < nr * 8 && !k->rc; at += sizeof(piece)) {
		u64 len = MIN(sizeof(piece), nr * 8 - at);

		k->rc = file_read(k->q->image->fd, table + at, piece, len);
		for (u64 n = 0; n < len / 8 && !k->rc; n++)
			if (be64toh(piece[n]) & QCOW2_OFFSET)
				good &= see_own(k, be64toh(piece[n]) & QCOW2_OFFSET, cluster_len(k->q), "a bitmap");
	}
	return good;
}

/* False: not all of them. */
static bool see_bitmaps(struct checker *k)
{
	struct qcow2 *q = k->q;
	u64 at = q->bitmaps_offset, end = at + q->bitmaps_len, left = k->file_clusters;

	if (!(q->autoclear & QCOW2_BITMAPS) || !q->bitmaps_len)
		return true;
	if (!see_own(k, at, q->bitmaps_len, "the bitmaps' directory"))
		return false;
	for (u32 n = 0; n < q->nr_bitmaps; n++) {
		struct bitmap_entry e;

		if (end - at < sizeof(e))
			return bad_bitmaps(k, at);
		k->rc = file_read(q->image->fd, at, &e, sizeof(e));
		if (k->rc || !see_bitmap(k, &e, &left) || k->rc)
			return false;
		at += ALIGN_UP(sizeof(e) + (u64)be32toh(e.extra_len) + be16toh(e.name_len), 8);
		at = MIN(at, end);
	}
	return true;
}

/*
 * All of them, as nobody opens the image with some that make no sense.  What they have is counted
 * as in use in this pass, and in the next no more.
 */
static void drop_bitmaps(struct checker *k)
{
	tell(k, "lost: the bitmaps: the next backup that would go by them is to be a full one");
	k->q->autoclear &= ~(u64)QCOW2_BITMAPS;
	k->rc = qcow2_write_header(k->q);
	k->c->fixed++;
}

/* --- compare ------------------------------------------------------------------------------------ */

/* What leads to it was seen as one more of the clusters that it leads to, or it is one. */
static void see_mixed(struct checker *k)
{
	u64 left = k->file_clusters;

	for (u32 n = 0; n < k->q->l1_len && left; n++) {
		u64 table = k->q->l1[n] & QCOW2_OFFSET, c = table >> k->q->cluster_bits;

		if (!table || c >= k->file_clusters || !k->tables[c])
			continue;
		left--;
		if (k->seen[c] == k->tables[c])
			continue;
		tell(k, "corrupt: an L2 table at %#" PRIx64 " is something else, too", table);
		k->c->corruptions++;
		k->mixed = true;
	}
}

static void see_all(struct checker *k)
{
	struct qcow2 *q = k->q;

	see(k, 0, cluster_len(q), "the header");
	if (q->l1_len)
		see_table(k, q->l1_offset, q->l1_len * 8ULL, "the L1 table");
	see_l1(k, q->l1, q->l1_len, q->l1_offset, true);
	if (k->more_len && see_table(k, k->more_offset, k->more_len * 8ULL, "the L1 table"))
		see_l1(k, k->more_l1, k->more_len, k->more_offset, false);
	if (!see_snapshots(k))
		k->blind = true;
	see_table(k, q->reftable_offset, q->reftable_len * 8ULL, "the refcount table");
	for (u32 n = 0; n < q->reftable_len; n++) {
		u64 block = q->reftable[n];

		if (!block)
			continue;
		if (see_table(k, block, cluster_len(q), "a refcount block")) {
			if (k->seen[block >> q->cluster_bits] > 1) {
				tell(k, "corrupt: a refcount block at %#" PRIx64 " is something else, too", block);
				k->c->corruptions++;
				k->mixed = true;
			}
			continue;
		}
		/* One that counts what is there is written there. */
		if ((u64)n << q->block_bits >= k->file_clusters && is_lost(k)) {
			cache_forget(q, q->reftable[n], cluster_len(q));
			q->reftable[n] = 0;
			q->reftable_dirty = true;
		}
	}
	see_mixed(k);
	k->bad_bitmaps = !see_bitmaps(k);
}

/* COPIED says "exactly one": a lie lets a writer change what others see. */
static void check_copied_entry(struct checker *k, u64 *v, bool *changed, const char *what)
{
	u64 offset = *v & QCOW2_OFFSET, c = offset >> k->q->cluster_bits;
	bool should;

	if (!offset || c >= k->nr || (*v & QCOW2_PACKED))
		return;
	should = k->seen[c] == 1;
	if (should == !!(*v & QCOW2_COPIED))
		return;
	*v ^= QCOW2_COPIED;
	*changed = true;
	/* Not copied, but alone: it merely costs a copy. */
	if (!should) {
		tell(k, "corrupt: %s at %#" PRIx64 " has %u references but claims one", what, offset,
		     k->seen[c]);
		k->c->corruptions++;
	}
}

static void check_copied(struct checker *k, bool repair)
{
	struct qcow2 *q = k->q;
	u64 left = k->file_clusters;

	for (u32 n = 0; n < q->l1_len && !k->rc; n++) {
		u64 entry = q->l1[n], table = entry & QCOW2_OFFSET;
		bool changed = false;

		if (!table || table & (cluster_len(q) - 1) || table >> q->cluster_bits >= k->file_clusters ||
		    qcow2_is_table(q, table >> q->cluster_bits))
			continue;
		/* As in see_l1, which has told. */
		if (!left--)
			return;
		check_copied_entry(k, &entry, &changed, "an L2 table");
		if (changed && repair)
			l1_set(q, n, entry);
		for (u64 at = 0; at < cluster_len(q) && !k->rc; at += 8) {
			struct slice *s;
			u64 v;

			changed = false;
			k->rc = cache_get(q, table + at, false, false, &s);
			if (k->rc)
				return;
			memcpy(&v, s->data + (at & (q->slice_len - 1)), 8);
			v = be64toh(v);
			check_copied_entry(k, &v, &changed, "data");
			if (!changed || !repair)
				continue;
			v = htobe64(v);
			memcpy(s->data + (at & (q->slice_len - 1)), &v, 8);
			cache_dirty(q, s, at & (q->slice_len - 1));
		}
	}
}

/* One that was cut off with the file's end may be written again; what is further away is none. */
static bool has_block(const struct checker *k, u64 cluster)
{
	const struct qcow2 *q = k->q;
	u64 n = cluster >> q->block_bits, block = n < q->reftable_len ? q->reftable[n] : 0;

	return block && block >> q->cluster_bits < k->file_clusters + (2ULL << q->block_bits);
}

static void compare_counts(struct checker *k, bool repair)
{
	struct qcow2 *q = k->q;

	for (u64 c = 0; c < k->nr && !k->rc; c++) {
		bool has = has_block(k, c);
		u64 is = 0;

		if (has)
			k->rc = refcount_get(q, c, &is);
		if (k->rc || is == k->seen[c])
			continue;
		if (is < k->seen[c]) {
			tell(k, "corrupt: cluster %" PRIu64 " has %u references but a count of %" PRIu64,
			     c, k->seen[c], is);
			k->c->corruptions++;
		} else {
			tell(k, "leak: cluster %" PRIu64 " has %u references but a count of %" PRIu64, c,
			     k->seen[c], is);
			k->c->leaks++;
		}
		if (!repair || !has || k->seen[c] > refcount_max(q))
			continue;
		k->rc = refcount_set(q, c, k->seen[c]);
		if (k->rc)
			return;
		if (is < k->seen[c])
			k->c->corruptions--;
		else
			k->c->leaks--;
		k->c->fixed++;
	}
}

/* Counts of what was cut off, in the block that counts what is left: leaks, when the file grows. */
static void forget_lost(struct checker *k)
{
	struct qcow2 *q = k->q;
	u64 is;

	if (!has_block(k, k->nr))
		return;
	for (u64 c = k->nr; c & ((1ULL << q->block_bits) - 1) && !k->rc; c++) {
		k->rc = refcount_get(q, c, &is);
		if (!k->rc && is)
			k->rc = refcount_set(q, c, 0);
	}
}

/* What the cache has as the one is not to be found there as the other.  Nothing is changed in it. */
static void look_anew(struct checker *k)
{
	if (k->mixed)
		cache_forget(k->q, 0, UINT64_MAX);
}

static void run(struct checker *k, bool repair)
{
	k->c->allocated = k->c->packed = 0;
	k->blind = k->mixed = false;
	see_all(k);
	/* Or what could not be seen would be taken for free. */
	if (k->blind || k->mixed)
		repair = false;
	if (k->bad_bitmaps && repair && !k->rc)
		drop_bitmaps(k);
	/* What waits to be given back is unreferred to already, and counted so now. */
	if (repair)
		k->q->freed[0].nr = k->q->freed[1].nr = k->q->freed[0].clusters = 0;
	look_anew(k);
	if (!k->rc)
		compare_counts(k, repair);
	look_anew(k);
	if (!k->rc)
		check_copied(k, repair);
	if (k->c->lost && !k->c->corruptions)
		forget_lost(k);
}

static void end(struct checker *k)
{
	free(k->seen);
	free(k->tables);
	k->seen = k->tables = NULL;
}

static int begin(struct checker *k, struct err *err)
{
	struct qcow2 *q = k->q;
	u64 size;
	/* The walk reads the file, so that is where everything must be. */
	int rc = image_flush(q->image);

	if (!rc)
		rc = file_size(q->image->fd, &size);
	if (rc)
		return err_set(err, rc, "%s", strerror(-rc));
	k->file_clusters = k->nr = (size + cluster_len(q) - 1) >> q->cluster_bits;
	if (k->nr > k->most)
		return err_set(err, -EFBIG, "a file of %" PRIu64 " bytes is too large to check", size);
	/* What nothing refers to is not touched, and takes no memory: a hostile file may be a large hole. */
	k->seen = calloc(k->nr + 1, sizeof(*k->seen));
	k->tables = calloc(k->nr + 1, sizeof(*k->tables));
	if (k->seen && k->tables)
		return 0;
	end(k);
	return err_set(err, -ENOMEM, "out of memory");
}

static int run_again(struct checker *k, struct err *err)
{
	bool was_damaged = k->q->damaged;
	int rc;

	end(k);
	/* A table that leads far beyond the end may have been written there. */
	k->most = MIN(k->most, k->nr + (2ULL << k->q->block_bits));
	rc = begin(k, err);
	if (rc)
		return rc;
	k->c->corruptions = k->c->leaks = 0;
	run(k, true);
	k->q->damaged = was_damaged;
	return k->rc ? k->rc : image_flush(k->q->image);
}

int qcow2_recount(struct qcow2 *q, const u64 *l1, u32 len, u64 l1_offset, struct err *err)
{
	struct image_check c = { 0 };
	struct checker k = { .q = q, .c = &c, .most = UINT32_MAX, .more_l1 = l1, .more_len = len,
			     .more_offset = l1_offset };
	int rc = begin(&k, err);

	if (rc)
		return rc;
	run(&k, true);
	end(&k);
	if (!k.rc && (k.blind || k.mixed))
		return err_set(err, -EUCLEAN, "its %s; see 'vmm disk check'", k.blind ?
			       "snapshots cannot all be read" : "tables are something else, too");
	if (!k.rc)
		k.rc = image_flush(q->image);
	q->hint = 0;
	q->pack_at = 0;
	return k.rc ? err_set(err, k.rc, "%s", strerror(-k.rc)) : 0;
}

static int look_before(struct checker *k, struct err *err)
{
	int rc = begin(k, err);

	if (rc)
		return rc;
	see_all(k);
	return k->rc ? err_set(err, k->rc, "check: %s", strerror(-k->rc)) : 0;
}

static int check(struct qcow2 *q, bool repair, struct image_check *c, const struct checker *before, struct err *err)
{
	struct image *i = q->image;
	struct checker k = { .q = q, .c = c, .most = UINT32_MAX, .before = before };
	bool was_damaged = q->damaged;
	int rc = begin(&k, err);

	if (rc)
		return rc;
	/* What else others keep beside the data might be lost as a leak. */
	if (repair && q->autoclear & ~(u64)QCOW2_BITMAPS) {
		q->autoclear &= QCOW2_BITMAPS;
		k.rc = qcow2_write_header(q);
	}
	c->corruptions = c->leaks = c->fixed = c->lost = 0;
	c->total = (i->size + i->cluster - 1) / i->cluster;
	run(&k, repair);
	q->damaged = was_damaged;
	if (!k.rc && repair) {
		k.rc = image_flush(i);
		/* What the first pass mended may have hidden something, or be where the file ended. */
		if (!k.rc && c->corruptions)
			k.rc = run_again(&k, err);
		if (!k.rc && !c->corruptions && q->incompatible & (QCOW2_DIRTY | QCOW2_CORRUPT)) {
			q->incompatible &= ~(u64)(QCOW2_DIRTY | QCOW2_CORRUPT);
			k.rc = qcow2_write_header(q);
		}
		if (!k.rc && !c->corruptions)
			qcow2_trim(i, 0);
		q->hint = 0;
		q->pack_at = 0;
	}
	end(&k);
	return k.rc ? err_set(err, k.rc, "check: %s", strerror(-k.rc)) : 0;
}

int qcow2_check(struct image *i, bool repair, struct image_check *c, struct err *err)
{
	struct qcow2 *q = i->own;
	struct image_check quiet = { 0 };
	struct checker before = { .q = q, .c = &quiet, .most = UINT32_MAX };
	/* Version 2 has no zeroes but those that its backing file has. */
	bool mend = repair && !c->keep_lost && (q->version >= 3 || !i->backing_path);
	int rc = repair && i->read_only ? err_set(err, -EROFS, "opened read-only") : 0;

	if (!rc && mend)
		rc = look_before(&before, err);
	if (!rc)
		rc = check(q, repair, c, mend ? &before : NULL, err);
	end(&before);
	return rc;
}
