/* qcow2_refcount.c: how often each cluster of the file is referred to, and which are free. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "devices/block/file.h"
#include "devices/block/qcow2.h"

/* To be used again, but not before they have been flushed. */
#define FREED_BYTES_MAX		(64 * MIB)

u64 refcount_max(const struct qcow2 *q)
{
	return q->refcount_order == 6 ? UINT64_MAX : (1ULL << (1 << q->refcount_order)) - 1;
}

u64 refcount_read(const struct qcow2 *q, const u8 *block, u64 index)
{
	unsigned bits = 1 << q->refcount_order;
	u16 v16;
	u32 v32;
	u64 v64;

	switch (q->refcount_order) {
	case 4:
		memcpy(&v16, block + 2 * index, 2);
		return be16toh(v16);
	case 5:
		memcpy(&v32, block + 4 * index, 4);
		return be32toh(v32);
	case 6:
		memcpy(&v64, block + 8 * index, 8);
		return be64toh(v64);
	}
	return block[index * bits / 8] >> index * bits % 8 & ((1u << bits) - 1);
}

void refcount_write(const struct qcow2 *q, u8 *block, u64 index, u64 value)
{
	unsigned bits = 1 << q->refcount_order, shift = index * bits % 8;
	u16 v16 = htobe16(value);
	u32 v32 = htobe32(value);
	u64 v64 = htobe64(value);
	u8 *byte = block + index * bits / 8;

	switch (q->refcount_order) {
	case 4:
		memcpy(block + 2 * index, &v16, 2);
		break;
	case 5:
		memcpy(block + 4 * index, &v32, 4);
		break;
	case 6:
		memcpy(block + 8 * index, &v64, 8);
		break;
	default:
		*byte = (*byte & ~(((1u << bits) - 1) << shift)) | value << shift;
	}
}

/* The slice that has the cluster's count, and where in it.  NULL: there is no
 * block for it, so the count is 0. */
struct place { struct slice *slice; u64 index; };

static int find(struct qcow2 *q, u64 cluster, struct place *p)
{
	u64 block_index = cluster >> q->block_bits, index = cluster & ((1ULL << q->block_bits) - 1);
	u64 per_slice = ((u64)q->slice_len * 8) >> q->refcount_order, block;

	*p = (struct place){ 0 };
	if (block_index >= q->reftable_len || !q->reftable[block_index])
		return 0;
	block = q->reftable[block_index];
	p->index = index % per_slice;
	return cache_get(q, block + index / per_slice * q->slice_len, true, false, &p->slice);
}

int refcount_get(struct qcow2 *q, u64 cluster, u64 *value)
{
	struct place p;
	int rc = find(q, cluster, &p);

	*value = rc || !p.slice ? 0 : refcount_read(q, p.slice->data, p.index);
	return rc;
}

bool qcow2_is_table(const struct qcow2 *q, u64 cluster)
{
	u64 at = cluster << q->cluster_bits;

	return !cluster || at - q->reftable_offset < q->reftable_len * 8ULL ||
	       at - q->l1_offset < ALIGN_UP(q->l1_len * 8ULL, cluster_len(q));
}

int refcount_add(struct qcow2 *q, u64 cluster, int delta, u64 *now)
{
	struct place p;
	u64 value;
	int rc = find(q, cluster, &p);

	if (rc)
		return rc;
	value = p.slice ? refcount_read(q, p.slice->data, p.index) : 0;
	if (delta < 0 ? !value : value == refcount_max(q))
		return delta < 0 ? qcow2_damage(q, "no reference is left to the cluster",
						cluster << q->cluster_bits) : -EMLINK;
	BUG_ON(!p.slice);
	value += delta;
	if (!value && qcow2_is_table(q, cluster))
		return qcow2_damage(q, "given up as data is the table at", cluster << q->cluster_bits);
	refcount_write(q, p.slice->data, p.index, value);
	cache_dirty(q, p.slice, (p.index << q->refcount_order) / 8);
	if (now)
		*now = value;
	return 0;
}

int refcount_set(struct qcow2 *q, u64 cluster, u64 value)
{
	struct place p;
	int rc = find(q, cluster, &p);

	if (rc || !p.slice)
		return rc ? rc : value ? -EINVAL : 0;
	if (value > refcount_max(q))
		return -EMLINK;
	refcount_write(q, p.slice->data, p.index, value);
	cache_dirty(q, p.slice, (p.index << q->refcount_order) / 8);
	return 0;
}

/* --- growing --------------------------------------------------------------------------------------- */

/* A block, empty but for the count of its own first clusters. */
static int write_block(struct qcow2 *q, u64 cluster, u64 used)
{
	u8 *block = calloc(1, cluster_len(q));
	int rc;

	if (!block)
		return -ENOMEM;
	for (u64 i = 0; i < used; i++)
		refcount_write(q, block, i, 1);
	cache_forget(q, cluster << q->cluster_bits, cluster_len(q));
	rc = file_write(q->image->fd, cluster << q->cluster_bits, block, cluster_len(q));
	free(block);
	q->virgin = MAX(q->virgin, cluster + 1);
	return rc;
}

static int write_table(struct qcow2 *q, const u64 *table, u32 first, u32 nr, u64 offset)
{
	u64 sector[64];
	int rc = 0;

	for (u32 i = 0; i < nr && !rc; i += 64) {
		u32 k, n = MIN(64u, nr - i);

		for (k = 0; k < n; k++)
			sector[k] = htobe64(table[first + i + k]);
		rc = file_write(q->image->fd, offset + 8ULL * i, sector, 8ULL * n);
	}
	return rc;
}

int qcow2_write_reftable(struct qcow2 *q)
{
	return write_table(q, q->reftable, 0, q->reftable_len, q->reftable_offset);
}

/*
 * A longer refcount table, with an entry for the block at index.  It is placed
 * where the old one did not reach, so where nothing can be, with the blocks
 * that count it; the header then changes over in one sector.
 */
static int grow_table(struct qcow2 *q, u64 index)
{
	u64 per_table_cluster = cluster_len(q) / 8, start = index << q->block_bits;
	u64 clusters = (index + index / 2) / per_table_cluster + 2, old, old_clusters;
	u64 len = clusters * per_table_cluster;
	u64 per_block = 1ULL << q->block_bits, used, blocks = 1;
	u64 *table;
	int rc = 0;

	while ((blocks * per_block) < clusters + blocks)
		blocks++;
	if (len * 8 > REFTABLE_BYTES_MAX || index + blocks > len)
		return -EFBIG;
	table = calloc(len, 8);
	if (!table)
		return -ENOMEM;
	memcpy(table, q->reftable, q->reftable_len * 8ULL);
	/* Blocks first, then the table: the first block counts its own cluster first. */
	used = blocks + clusters;
	for (u64 i = 0; i < blocks && !rc; i++) {
		table[index + i] = (start + i) << q->cluster_bits;
		rc = write_block(q, start + i, MIN(per_block, used - i * per_block));
	}
	if (!rc)
		rc = write_table(q, table, 0, len, (start + blocks) << q->cluster_bits);
	if (!rc)
		rc = image_sync(q->image);
	if (rc) {
		free(table);
		return rc;
	}
	cache_forget(q, (start + blocks) << q->cluster_bits, clusters << q->cluster_bits);
	old = q->reftable_offset;
	old_clusters = q->reftable_len / per_table_cluster;
	free(q->reftable);
	q->reftable = table;
	q->reftable_len = len;
	q->reftable_offset = (start + blocks) << q->cluster_bits;
	q->virgin = MAX(q->virgin, start + used);
	/* Should it fail, flush tries again; until then both tables stay. */
	rc = qcow2_write_header(q);
	q->header_dirty = rc;
	clusters_free_later(q, old >> q->cluster_bits, old_clusters);
	return rc;
}

static int compare(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return (x > y) - (x < y);
}

int qcow2_blocks_differ(const struct qcow2 *q, bool *yes)
{
	u64 *sorted = calloc(MAX(q->reftable_len, 1u), sizeof(*sorted));
	u32 nr = 0;

	*yes = true;
	if (!sorted)
		return -ENOMEM;
	for (u32 i = 0; i < q->reftable_len; i++)
		if (q->reftable[i])
			sorted[nr++] = q->reftable[i];
	qsort(sorted, nr, sizeof(*sorted), compare);
	for (u32 i = 1; i < nr && *yes; i++)
		*yes = sorted[i] != sorted[i - 1];
	free(sorted);
	return 0;
}

/* There is a block for the cluster's count from now on: the first cluster that
 * it would count, which nothing can use yet. */
static int ensure_block(struct qcow2 *q, u64 cluster)
{
	u64 index = cluster >> q->block_bits, first = index << q->block_bits;
	int rc;

	if (index >= q->reftable_len)
		return grow_table(q, index);
	if (q->reftable[index])
		return 0;
	if (qcow2_is_table(q, first))
		return qcow2_damage(q, "no count is kept of the table at",
				    first << q->cluster_bits);
	rc = write_block(q, first, 1);
	/* A table must not name a block that is not there. */
	if (!rc)
		rc = image_sync(q->image);
	if (rc)
		return rc;
	q->reftable[index] = first << q->cluster_bits;
	if (write_table(q, q->reftable, ALIGN_DOWN(index, 64), MIN(64, q->reftable_len -
			ALIGN_DOWN(index, 64)), q->reftable_offset + ALIGN_DOWN(index, 64) * 8))
		q->reftable_dirty = true;
	return 0;
}

/*
 * nr clusters in one piece, where the file had nothing so far; blocks that
 * count them lie before them, as one in their midst would part them.
 */
static int claim_fresh(struct qcow2 *q, u64 nr, u64 *first)
{
	u64 per_block = 1ULL << q->block_bits, blocks = 1, start, index;
	int rc = 0;

	while (blocks * per_block < nr + blocks)
		blocks++;
	for (index = q->reftable_len; index && !q->reftable[index - 1]; index--)
		;
	/* A device ends where nothing can be; what is free in it is known by the counts alone. */
	if (!file_is_device(q->image->fd))
		index = MAX(index, (q->virgin + per_block - 1) >> q->block_bits);
	start = index << q->block_bits;
	if ((start + blocks + nr) >> (56 - q->cluster_bits))
		return -EFBIG;
	if (index + blocks > q->reftable_len)
		rc = grow_table(q, index + blocks);
	for (u64 i = 0; i < blocks && !rc; i++)
		rc = write_block(q, start + i, MIN(per_block, nr + blocks - i * per_block));
	if (!rc)
		rc = image_sync(q->image);
	if (rc)
		return rc;
	for (u64 i = 0; i < blocks; i++)
		q->reftable[index + i] = (start + i) << q->cluster_bits;
	if (qcow2_write_reftable(q))
		q->reftable_dirty = true;	/* flush tries again */
	q->virgin = MAX(q->virgin, start + blocks + nr);
	*first = start + blocks;
	return 0;
}

/* --- which are free ----------------------------------------------------------------------------------- */

/* The first free clusters, at most nr. */
static int find_run(struct qcow2 *q, u64 nr, u64 *first, u64 *got)
{
	u64 run = 0;

	for (u64 c = q->hint; ; c++) {
		u64 value;
		int rc;

		if (c >> (56 - q->cluster_bits))
			return -EFBIG;
		rc = ensure_block(q, c);
		if (!rc)
			rc = refcount_get(q, c, &value);
		if (rc)
			return rc;
		if (!value) {
			if (qcow2_is_table(q, c))
				return qcow2_damage(q, "counted as free is the table at",
						    c << q->cluster_bits);
			if (!run++)
				*first = c;
			if (run == nr)
				break;
			continue;
		}
		if (run)
			break;
	}
	*got = run;
	return 0;
}

static void is_free(struct qcow2 *q, u64 cluster)
{
	q->hint = MIN(q->hint, cluster);
	if (q->pack_at >> q->cluster_bits == cluster)
		q->pack_at = 0;
}

int clusters_alloc(struct qcow2 *q, u64 nr, bool exact, u64 *first, u64 *got)
{
	int rc;

	if (q->damaged)
		return -EIO;
	if (exact && nr > 1) {
		*got = nr;
		return claim_fresh(q, nr, first);
	}
	rc = find_run(q, nr, first, got);
	if (rc)
		return rc;
	for (u64 i = 0; i < *got; i++) {
		rc = refcount_add(q, *first + i, 1, NULL);
		if (rc) {
			clusters_free_now(q, *first, i);
			return rc;
		}
	}
	q->hint = *first + *got;
	return 0;
}

void clusters_free_now(struct qcow2 *q, u64 first, u64 nr)
{
	cache_forget(q, first << q->cluster_bits, nr << q->cluster_bits);
	for (u64 i = 0; i < nr; i++) {
		u64 now;

		if (refcount_add(q, first + i, -1, &now))
			return;	/* they leak, which is safe */
		if (!now)
			is_free(q, first + i);
	}
}

void clusters_free_later(struct qcow2 *q, u64 first, u64 nr)
{
	struct freed_list *l = &q->freed[0];

	if (l->nr) {
		struct freed *last = &l->entry[l->nr - 1];

		if (last->cluster + last->nr == first) {
			last->nr += nr;
			l->clusters += nr;
			return;
		}
	}
	if (l->nr == l->max) {
		size_t max = l->max ? 2 * l->max : 64;
		struct freed *entry = reallocarray(l->entry, max, sizeof(*entry));

		if (!entry)
			return;	/* they leak, which is safe */
		l->entry = entry;
		l->max = max;
	}
	l->entry[l->nr++] = (struct freed){ first, nr };
	l->clusters += nr;
}

bool qcow2_reclaim_due(const struct image *i)
{
	const struct qcow2 *q = i->own;

	return q->freed[0].clusters >= FREED_BYTES_MAX >> q->cluster_bits;
}

void qcow2_reclaim(struct image *i)
{
	struct qcow2 *q = i->own;
	struct freed_list done = q->freed[1];

	for (size_t n = 0; n < done.nr; n++)
		for (u64 c = done.entry[n].cluster; c < done.entry[n].cluster + done.entry[n].nr; c++) {
			u64 now = 0;

			if (refcount_add(q, c, -1, &now))
				break;
			if (now)
				continue;
			cache_forget(q, c << q->cluster_bits, cluster_len(q));
			is_free(q, c);
			/* The host gets the space back; if not, no harm is done. */
			(void)!file_zero(i->fd, c << q->cluster_bits, cluster_len(q), true);
		}
	done.nr = done.clusters = 0;
	q->freed[1] = q->freed[0];
	q->freed[0] = done;
}

void qcow2_trim(struct image *i, u64 least)
{
	struct qcow2 *q = i->own;
	u64 size, end, used;

	if (file_size(i->fd, &size))
		return;
	end = (size + cluster_len(q) - 1) >> q->cluster_bits;
	for (; end << q->cluster_bits > least; end--)
		if (qcow2_is_table(q, end - 1) || refcount_get(q, end - 1, &used) || used)
			break;
	size = MIN(size, MAX(end << q->cluster_bits, least));
	/* If not, no harm is done. */
	(void)!file_truncate(i->fd, size);
}
