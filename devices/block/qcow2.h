/* qcow2.h: the qcow2 format, versions 2 and 3: what its files share. */
#pragma once
#include <endian.h>
#include "devices/block/image.h"

/*
 * A disk's clusters are found by two levels of tables, L1 (in memory) and L2;
 * every cluster of the file has a reference count, in blocks that the refcount
 * table (in memory) points to.
 *
 * At any instant the file holds no reference to a cluster whose count is lower
 * than its references.  Hence the order: new counts, and all data, are synced
 * before a table that refers to them is written; and a count falls, and its
 * cluster is reused, only after the table that no longer refers to it is synced.
 * L2 tables and counts are changed in a cache and written by flush, in slices.
 */
#define QCOW2_MAGIC "QFI\xfb"

struct qcow2_header {			/* big-endian */
	char magic[4];
	u32 version;
	u64 backing_offset;
	u32 backing_len;
	u32 cluster_bits;
	u64 size;
	u32 crypt_method;
	u32 l1_len;			/* entries */
	u64 l1_offset;
	u64 reftable_offset;
	u32 reftable_clusters;
	u32 nr_snapshots;
	u64 snapshots_offset;
	/* version 3 */
	u64 incompatible, compatible, autoclear;
	u32 refcount_order;
	u32 header_len;
	u8 compression;
	u8 pad[7];
};
_Static_assert(sizeof(struct qcow2_header) == 112, "as in the specification");

enum {
	QCOW2_V2_HEADER = 72, QCOW2_V3_HEADER = 104,
	QCOW2_DIRTY = 1 << 0, QCOW2_CORRUPT = 1 << 1, QCOW2_DATA_FILE = 1 << 2,
	QCOW2_COMPRESSION = 1 << 3, QCOW2_EXTENDED_L2 = 1 << 4,		/* incompatible */
	QCOW2_LAZY_REFCOUNTS = 1 << 0,					/* compatible */
	QCOW2_BITMAPS = 1 << 0,						/* autoclear */
	QCOW2_ZLIB = 0, QCOW2_ZSTD = 1,
};

#define QCOW2_OFFSET	0x00fffffffffffe00ULL
#define QCOW2_COPIED	(1ULL << 63)	/* of a count of exactly one */
#define QCOW2_PACKED	(1ULL << 62)
#define QCOW2_ZERO	1ULL
/* Of entries that have none of what follows them: bits without a meaning. */
#define QCOW2_L1_RESERVED	0x7f000000000001ffULL
#define QCOW2_L2_RESERVED	0x3f000000000001feULL

enum { SLICE_MAX = 4096, CACHE_SLICES = 1024, CACHE_HASH = 256 };
enum { L1_BYTES_MAX = 32 * MIB, REFTABLE_BYTES_MAX = 8 * MIB, SNAPSHOTS_MAX = 65536 };

/* A piece of an L2 table or of a refcount block. */
struct slice {
	u64 offset;			/* in the file */
	struct slice *next;		/* same hash */
	u64 used;			/* when, by the cache's clock */
	u8 dirty;			/* a bit for each 512 bytes */
	bool counts;			/* of a refcount block */
	u8 data[];
};

struct freed { u64 cluster, nr; };
struct freed_list { struct freed *entry; size_t nr, max; u64 clusters; };

struct qcow2 {
	struct image *image;
	unsigned version, cluster_bits, l2_bits, refcount_order, block_bits;
	u64 incompatible, compatible, autoclear;
	u32 header_len;
	u8 compression;

	u64 l1_offset;
	u32 l1_len;			/* entries */
	u64 *l1;			/* host order */
	u8 *l1_dirty;			/* a byte for each 512 bytes of it */
	bool any_l1_dirty;

	u64 reftable_offset;
	u32 reftable_len;		/* entries */
	u64 *reftable;

	u32 nr_snapshots;
	u64 snapshots_offset;

	u32 nr_bitmaps;			/* others', and right while autoclear says so */
	u64 bitmaps_offset, bitmaps_len;

	struct slice *hash[CACHE_HASH];
	unsigned nr_slices, nr_dirty_l2, nr_dirty_counts;
	u32 slice_len;
	u64 clock;

	u64 hint;			/* no cluster below it is free */
	u64 virgin;			/* the file has nothing from this cluster on */
	u64 pack_at;			/* where the next compressed cluster may go; 0: nowhere yet */
	struct freed_list freed[2];	/* since the last reclaim; before it */
	u64 size;			/* of the disk, as in the header */
	bool header_dirty, reftable_dirty;	/* a write of them failed: flush does it first */
	bool damaged;			/* tables make no sense: no more writing */
};

static inline u64 cluster_len(const struct qcow2 *q) { return 1ULL << q->cluster_bits; }

/* qcow2.c */
int  qcow2_create(int fd, const char *path, const struct image_create *, struct err *) must_check;
int  qcow2_set_backing(struct image *, const char *path, const char *format, struct err *) must_check;
/* A writer cannot use an image whose counts were left behind: counts them anew. */
int  qcow2_made_consistent(struct image *, struct err *) must_check;
int  qcow2_write_header(struct qcow2 *) must_check;	/* the fields that change; then syncs */
/* len entries, in host order; the caller frees them. */
int  qcow2_read_table(struct qcow2 *, u64 offset, u32 len, u64 **) must_check;
/* Notes that tables make no sense, in the file too.  Returns -EIO. */
int  qcow2_damage(struct qcow2 *, const char *what, u64 where);

/* qcow2_cache.c */
int  cache_get(struct qcow2 *, u64 offset, bool counts, bool nowait, struct slice **) must_check;
void cache_dirty(struct qcow2 *, struct slice *, unsigned byte);	/* the 512 bytes around it */
void cache_forget(struct qcow2 *, u64 offset, u64 len);			/* what was there is void */
void cache_free(struct qcow2 *);
int  qcow2_flush(struct image *, unsigned *step) must_check;

/* qcow2_refcount.c.  Clusters are counted from the file's beginning. */
int  refcount_get(struct qcow2 *, u64 cluster, u64 *) must_check;
int  refcount_add(struct qcow2 *, u64 cluster, int delta, u64 *now) must_check;
int  qcow2_write_reftable(struct qcow2 *) must_check;
int  refcount_set(struct qcow2 *, u64 cluster, u64 value) must_check;
u64  refcount_max(const struct qcow2 *);
/* Else a small file can claim to have no cluster free in all of its table's reach. */
int  qcow2_blocks_differ(const struct qcow2 *, bool *yes) must_check;
/* The header, or a table that leads to others: never free, nor a guest's data. */
bool qcow2_is_table(const struct qcow2 *, u64 cluster);
/* At most nr clusters in one piece, at least one (exact: nr), with a count of 1 now. */
int  clusters_alloc(struct qcow2 *, u64 nr, bool exact, u64 *first, u64 *got) must_check;
/* Give up one reference, once the table without it is on the disk. */
void clusters_free_later(struct qcow2 *, u64 first, u64 nr);
/* The same for clusters that nothing on the disk ever referred to. */
void clusters_free_now(struct qcow2 *, u64 first, u64 nr);
void qcow2_reclaim(struct image *);
bool qcow2_reclaim_due(const struct image *);
/* Of an image just opened: the file ends with its last cluster in use, but not before least. */
void qcow2_trim(struct image *, u64 least);
u64  refcount_read(const struct qcow2 *, const u8 *block, u64 index);
void refcount_write(const struct qcow2 *, u8 *block, u64 index, u64 value);

/* qcow2_map.c */
struct packed { u64 offset; u32 len; };
struct packed packed_place(const struct qcow2 *, u64 entry);
void l1_set(struct qcow2 *, u32 index, u64 entry);
int  qcow2_map(struct image *, u64 start, u64 len, bool nowait, struct extent *) must_check;
int  qcow2_alloc(struct image *, u64 start, u64 len, struct extent *) must_check;
int  qcow2_publish(struct image *, const struct extent *) must_check;
void qcow2_cancel(struct image *, const struct extent *);
int  qcow2_unpack(struct image *, const struct extent *, void *cluster) must_check;
int  qcow2_zero(struct image *, u64 start, u64 len, bool unmap) must_check;
/* Compressed; 1: that would not make it smaller, nothing was written. */
int  qcow2_write_packed(struct image *, u64 start, const void *cluster) must_check;

/* qcow2_snapshot.c: snapshots inside the file; nobody makes them here, but some have them. */
struct snapshot_header {		/* big-endian */
	u64 l1_offset;
	u32 l1_len;
	u16 id_len, name_len;
	u32 date_s, date_ns;
	u64 clock_ns;
	u32 vm_state_len, extra_len;
};
_Static_assert(sizeof(struct snapshot_header) == 40, "as in the specification");

/* Of the directory of bitmaps; extra data, the name and padding follow. */
struct bitmap_entry {			/* big-endian */
	u64 table_offset;
	u32 table_len, flags;
	u8 type, granularity_bits;
	u16 name_len;
	u32 extra_len;
};
_Static_assert(sizeof(struct bitmap_entry) == 24, "as in the specification");

/* qcow2_check.c */
/* Makes all counts what the references come to, with those of another L1 table
 * at l1_offset too (len 0: none), and COPIED what the counts say. */
int  qcow2_recount(struct qcow2 *, const u64 *l1, u32 len, u64 l1_offset, struct err *) must_check;
int  qcow2_check(struct image *, bool repair, struct image_check *, struct err *) must_check;
