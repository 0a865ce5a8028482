/* qcow2_cache.c: slices of L2 tables and refcount blocks, and when they are written. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "devices/block/file.h"
#include "devices/block/qcow2.h"

static struct slice **bucket(struct qcow2 *q, u64 offset)
{
	return &q->hash[(offset / q->slice_len) % CACHE_HASH];
}

static void drop(struct qcow2 *q, struct slice **at)
{
	struct slice *s = *at;

	if (s->dirty)
		*(s->counts ? &q->nr_dirty_counts : &q->nr_dirty_l2) -= 1;
	*at = s->next;
	q->nr_slices--;
	free(s);
}

/* Make room: the clean slice that was not used for the longest. */
static int evict(struct qcow2 *q)
{
	struct slice **oldest = NULL;

	if (q->nr_dirty_l2 + q->nr_dirty_counts == q->nr_slices) {
		int rc = image_flush(q->image);

		if (rc)
			return rc;
	}
	for (unsigned i = 0; i < CACHE_HASH; i++)
		for (struct slice **s = &q->hash[i]; *s; s = &(*s)->next)
			if (!(*s)->dirty && (!oldest || (*s)->used < (*oldest)->used))
				oldest = s;
	drop(q, oldest);
	return 0;
}

int cache_get(struct qcow2 *q, u64 offset, bool counts, bool nowait, struct slice **out)
{
	u64 base = ALIGN_DOWN(offset, q->slice_len);
	struct slice *s;
	int rc;

	for (s = *bucket(q, base); s; s = s->next)
		if (s->offset == base) {
			if (s->counts != counts)	/* a table in two places at once */
				return qcow2_damage(q, "two uses of the cluster", base);
			s->used = ++q->clock;
			*out = s;
			return 0;
		}
	if (nowait)
		return -EAGAIN;
	if (q->nr_slices == CACHE_SLICES) {
		rc = evict(q);
		if (rc)
			return rc;
	}
	s = malloc(sizeof(*s) + q->slice_len);
	if (!s)
		return -ENOMEM;
	rc = file_read(q->image->fd, base, s->data, q->slice_len);
	if (rc) {
		free(s);
		return rc;
	}
	s->offset = base;
	s->used = ++q->clock;
	s->dirty = 0;
	s->counts = counts;
	s->next = *bucket(q, base);
	*bucket(q, base) = s;
	q->nr_slices++;
	*out = s;
	return 0;
}

void cache_dirty(struct qcow2 *q, struct slice *s, unsigned byte)
{
	if (!s->dirty)
		*(s->counts ? &q->nr_dirty_counts : &q->nr_dirty_l2) += 1;
	s->dirty |= 1 << byte / 512;
}

void cache_forget(struct qcow2 *q, u64 offset, u64 len)
{
	for (unsigned i = 0; i < CACHE_HASH; i++)
		for (struct slice **s = &q->hash[i]; *s; )
			if ((*s)->offset - offset < len)
				drop(q, s);
			else
				s = &(*s)->next;
}

void cache_free(struct qcow2 *q)
{
	for (unsigned i = 0; i < CACHE_HASH; i++)
		while (q->hash[i])
			drop(q, &q->hash[i]);
}

/* --- write back ------------------------------------------------------------------------------ */

static int write_slice(struct qcow2 *q, struct slice *s)
{
	for (unsigned first = 0, nr; first < q->slice_len / 512; first += nr) {
		bool dirty = s->dirty >> first & 1;
		int rc = 0;

		for (nr = 1; first + nr < q->slice_len / 512; nr++)
			if ((s->dirty >> (first + nr) & 1) != dirty)
				break;
		if (dirty)
			rc = file_write(q->image->fd, s->offset + 512ULL * first,
					s->data + 512ULL * first, 512ULL * nr);
		if (rc)
			return rc;
	}
	return 0;
}

static int write_slices(struct qcow2 *q, bool counts)
{
	for (unsigned i = 0; i < CACHE_HASH; i++)
		for (struct slice *s = q->hash[i]; s; s = s->next) {
			int rc = s->dirty && s->counts == counts ? write_slice(q, s) : 0;

			if (rc)
				return rc;
		}
	return 0;
}

/* Only when a sync has returned: what failed half-way is written again. */
static void slices_clean(struct qcow2 *q, bool counts)
{
	for (unsigned i = 0; i < CACHE_HASH; i++)
		for (struct slice *s = q->hash[i]; s; s = s->next)
			if (s->counts == counts)
				s->dirty = 0;
	*(counts ? &q->nr_dirty_counts : &q->nr_dirty_l2) = 0;
}

static int write_l1(struct qcow2 *q)
{
	u64 sector[64];

	for (u32 i = 0; i < q->l1_len; i += 64) {
		u32 nr = MIN(64u, q->l1_len - i);
		int rc;

		if (!q->l1_dirty[i / 64])
			continue;
		for (u32 k = 0; k < nr; k++)
			sector[k] = htobe64(q->l1[i + k]);
		rc = file_write(q->image->fd, q->l1_offset + 8ULL * i, sector, 8ULL * nr);
		if (rc)
			return rc;
	}
	return 0;
}

/* New counts, and with them the data. */
static int write_counts(struct qcow2 *q)
{
	int rc = 0;

	if (q->reftable_dirty) {
		rc = qcow2_write_reftable(q);
		q->reftable_dirty = rc;
	}
	if (!rc && q->header_dirty) {
		rc = qcow2_write_header(q);
		q->header_dirty = rc;
	}
	return !rc && q->nr_dirty_counts ? write_slices(q, true) : rc;
}

/* A new L2 table's empty self is on the disk already, so L1 may go with it. */
static int write_map(struct qcow2 *q)
{
	int rc = write_slices(q, false);

	return !rc && q->any_l1_dirty ? write_l1(q) : rc;
}

int qcow2_flush(struct image *i, unsigned *step)
{
	struct qcow2 *q = i->own;
	int rc;

	if (q->damaged)
		return -EIO;
	switch ((*step)++) {
	case 0:		/* where nothing changed this is but a sync of the data */
		rc = write_counts(q);
		return rc ? rc : 1;
	case 1:
		if (q->nr_dirty_counts)
			slices_clean(q, true);
		if (!q->nr_dirty_l2 && !q->any_l1_dirty)
			return 0;
		rc = write_map(q);
		return rc ? rc : 1;
	default:
		slices_clean(q, false);
		if (q->any_l1_dirty)
			memset(q->l1_dirty, 0, (q->l1_len + 63) / 64);
		q->any_l1_dirty = false;
		return 0;
	}
}
