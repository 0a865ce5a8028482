/* qcow2_hostile_test.c: qcow2 files that somebody made to do harm: too large for the fuzzers, or at one exact place. */
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include "devices/block/qcow2.h"
#include "tests/lib/disk.h"
#include "tests/lib/test.h"

enum { LONG_S = 20 };			/* under ASan, on a busy host; else it is hours */

static char dir[DISK_DIR_LEN], path[200];
static int fd;

static int setup(void **state)
{
	(void)state;
	disk_mkdir(dir);
	snprintf(path, sizeof(path), "%s/disk.qcow2", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	close(fd);
	disk_rmdir(dir);
	return 0;
}

/* Made as it should be, and held open to be spoilt. */
static struct qcow2_header create(struct image_create c)
{
	struct qcow2_header h;
	struct err err;

	c.format = "qcow2";
	if (image_create(path, &c, &err))
		fail_msg("%s", err.msg);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_int_equal(pread(fd, &h, sizeof(h), 0), sizeof(h));
	return h;
}

static void put(u64 at, const void *bytes, size_t len)
{
	assert_int_equal(pwrite(fd, bytes, len, at), len);
}

static void put_u64(u64 at, u64 value)
{
	put(at, &(u64){ htobe64(value) }, 8);
}

/* nr entries from at on, all the same. */
static void put_table(u64 at, u64 nr, u64 value)
{
	u64 *table = malloc(nr * 8);

	assert_non_null(table);
	for (u64 n = 0; n < nr; n++)
		table[n] = htobe64(value);
	put(at, table, nr * 8);
	free(table);
}

static u64 size_of_file(void)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_size;
}

static struct image *must_open(const struct image_options *o)
{
	struct image *i;
	struct err err;

	if (image_open(&i, path, o, &err))
		fail_msg("%s", err.msg);
	return i;
}

static u64 count_corruptions(bool repair)
{
	struct image_options o = { .format = "qcow2", .read_only = !repair, .no_backing = true, .repairing = true };
	struct image *i = must_open(&o);
	struct image_check c = { 0 };
	struct err err;

	if (image_check(i, repair, &c, &err))
		fail_msg("%s", err.msg);
	image_close(i);
	return c.corruptions;
}

#define FIELD(name_, value_, says_) \
	{ offsetof(struct qcow2_header, name_), sizeof(((struct qcow2_header *)0)->name_), value_, says_ }

/* Each number of the header at its worst. */
static void refused_headers(void **state)
{
	enum { CLUSTER = 4096, EXTENSION = sizeof(struct qcow2_header), MISPLACED = 1000 };
	static const struct { size_t at, len; u64 value; const char *says; } cases[] = {
		FIELD(version, 1, "version 1"), FIELD(version, 4, "version 4"),
		FIELD(cluster_bits, 8, "2^8 bytes"), FIELD(cluster_bits, 22, "2^22 bytes"),
		FIELD(cluster_bits, UINT32_MAX, "clusters cannot"),
		FIELD(crypt_method, 1, "encrypted"), FIELD(refcount_order, 7, "2^7 bits"),
		FIELD(refcount_order, UINT32_MAX, "counts cannot"),
		FIELD(header_len, QCOW2_V3_HEADER - 8, "header cannot"), FIELD(header_len, CLUSTER + 8, "header cannot"),
		FIELD(header_len, UINT32_MAX, "header cannot"),
		FIELD(incompatible, QCOW2_DATA_FILE, "data_file"), FIELD(incompatible, QCOW2_EXTENDED_L2, "extended_l2"),
		FIELD(incompatible, 1ULL << 63, "bit 63"), FIELD(incompatible, QCOW2_COMPRESSION, "compression type 0"),
		FIELD(compression, QCOW2_ZSTD, "compression type 1"),
		FIELD(l1_len, 0, "size cannot"), FIELD(l1_len, L1_BYTES_MAX / 8 + 1, "L1 table"),
		FIELD(l1_len, UINT32_MAX, "L1 table"), FIELD(l1_len, L1_BYTES_MAX / 8, "cut off"),
		FIELD(l1_offset, 0, "L1 table"), FIELD(l1_offset, MISPLACED, "L1 table"),
		FIELD(l1_offset, -(u64)CLUSTER, "cut off"),
		FIELD(reftable_clusters, 0, "refcount table"), FIELD(reftable_clusters, UINT32_MAX, "refcount table"),
		FIELD(reftable_clusters, REFTABLE_BYTES_MAX / CLUSTER, "cut off"),
		FIELD(reftable_offset, 0, "refcount table"), FIELD(reftable_offset, MISPLACED, "refcount table"),
		FIELD(reftable_offset, -(u64)CLUSTER, "cut off"),
		FIELD(size, 1ULL << 62, "size cannot"), FIELD(size, UINT64_MAX, "size cannot"),
		{ EXTENSION + 4, 4, CLUSTER - EXTENSION - 7, "header extension" },
		{ EXTENSION + 4, 4, UINT32_MAX, "header extension" },
	};
	struct image_options o = { .format = "qcow2", .read_only = true };
	struct qcow2_header good = create((struct image_create){ .size = MIB, .cluster = CLUSTER });
	struct image *i;
	struct err err;

	(void)state;
	for (size_t n = 0; n < ARRAY_SIZE(cases); n++) {
		u64 value = htobe64(cases[n].value << (64 - 8 * cases[n].len));

		put(0, &good, sizeof(good));
		put(cases[n].at, &value, cases[n].len);
		assert_true(image_open(&i, path, &o, &err) < 0);
		assert_says(err.msg, cases[n].says);
	}
	put(0, &good, sizeof(good));
	for (u64 at = CLUSTER - 3; at <= CLUSTER + 1; at++) {
		put_u64(offsetof(struct qcow2_header, backing_offset), at);
		put(offsetof(struct qcow2_header, backing_len), &(u32){ htobe32(4) }, 4);
		assert_true(image_open(&i, path, &o, &err) < 0);
		assert_says(err.msg, "backing file lies outside");
	}
}

/* A name of the backing file's format takes more room than the one that stood there. */
static void extensions_to_the_end(void **state)
{
	enum { CLUSTER = 4096 };
	struct { u32 type, len; } format = { htobe32(0xe2792aca), 0 };
	struct { u32 type, len; } other = { htobe32(0x12345678), htobe32(CLUSTER - sizeof(struct qcow2_header) - 16) };
	struct image_options o = { .format = "qcow2", .no_backing = true };
	struct image *i;
	struct err err;

	(void)state;
	create((struct image_create){ .size = MIB, .cluster = CLUSTER });
	put(sizeof(struct qcow2_header), &format, sizeof(format));
	put(sizeof(struct qcow2_header) + sizeof(format), &other, sizeof(other));
	i = must_open(&o);
	assert_int_equal(image_set_backing(i, "below.raw", "raw", &err), -EINVAL);
	assert_says(err.msg, "too long");
	assert_int_equal(image_set_backing(i, NULL, NULL, &err), 0);
	image_close(i);
	i = must_open(&o);
	assert_null(i->backing_path);
	image_close(i);
}

/* A million times the same L2 table: a check looks at it as often as the file is large. */
static void one_table_for_all(void **state)
{
	enum { NR = 1 << 20, CLUSTER = 65536 };
	struct qcow2_header h = create((struct image_create){ .size = MIB });
	u64 l1 = ALIGN_UP(size_of_file(), (u64)CLUSTER), l2 = l1 + NR * 8;
	time_t start = time(NULL);

	(void)state;
	put_table(l1, NR, l2 | QCOW2_COPIED);
	put_table(l2, CLUSTER / 8, 0);
	h.l1_offset = htobe64(l1);
	h.l1_len = htobe32(NR);
	put(0, &h, sizeof(h));
	assert_true(count_corruptions(false));
	assert_true(count_corruptions(true));
	assert_true(time(NULL) - start < LONG_S);
}

static long peak_kib(void)
{
	struct rusage u;

	assert_int_equal(getrusage(RUSAGE_SELF, &u), 0);
	return u.ru_maxrss;
}

/* What a check needs of memory is for clusters that are referred to, not for a hole. */
static void large_hole(void **state)
{
	struct qcow2_header h = create((struct image_create){ .size = MIB, .cluster = 512 });
	struct image_options o = { .format = "qcow2" };
	long before = peak_kib();
	struct image *i;

	(void)state;
	h.incompatible = htobe64(QCOW2_DIRTY);
	put(0, &h, sizeof(h));
	assert_int_equal(ftruncate(fd, 32 * GIB), 0);
	i = must_open(&o);
	image_close(i);
	assert_true(peak_kib() - before < 64 * 1024);
}

/* A refcount table that counts up to the last offset there is: what comes next is not the header. */
static void counts_to_the_end(void **state)
{
	enum { CLUSTER = 2 << 20, ENTRIES = REFTABLE_BYTES_MAX / 8, LAST = ENTRIES / 2 - 1 };
	struct qcow2_header h = create((struct image_create){ .size = MIB, .cluster = CLUSTER, .refcount_bits = 1 });
	u64 table = ALIGN_UP(size_of_file(), (u64)CLUSTER), first;
	struct image_options o = { .format = "qcow2" };
	struct image *i;
	struct err err;

	(void)state;
	assert_int_equal(pread(fd, &first, 8, be64toh(h.reftable_offset)), 8);
	assert_int_equal(ftruncate(fd, table + ENTRIES * 8), 0);
	put(table, &first, 8);
	put_u64(table + LAST * 8ULL, table + ENTRIES * 8ULL);
	h.reftable_offset = htobe64(table);
	h.reftable_clusters = htobe32(ENTRIES * 8 / CLUSTER);
	put(0, &h, sizeof(h));
	i = must_open(&o);
	assert_int_equal(image_resize(i, 1ULL << 58, &err), -EFBIG);
	image_close(i);
	i = must_open(&o);
	assert_int_equal(i->size, MIB);
	image_close(i);
}

/* All counts are in one block, which says that nothing is free: the search would end in days. */
static void one_block_for_all(void **state)
{
	enum { NR = 1 << 20, CLUSTER = 65536 };
	struct qcow2_header h = create((struct image_create){ .size = MIB, .refcount_bits = 32 });
	u64 table = ALIGN_UP(size_of_file(), (u64)CLUSTER), block = table + NR * 8;
	struct image_options o = { .format = "qcow2" };
	struct image *i = NULL;
	struct err err;

	(void)state;
	put_table(table, NR, block);
	put_table(block, CLUSTER / 8, 0x0000000100000001);
	h.reftable_offset = htobe64(table);
	h.reftable_clusters = htobe32(NR * 8 / CLUSTER);
	put(0, &h, sizeof(h));
	assert_int_equal(image_open(&i, path, &o, &err), -EUCLEAN);
	assert_says(err.msg, "vmm disk check");
	assert_true(count_corruptions(false));
	/* It would have to be made anew. */
	assert_true(count_corruptions(true));
	o.read_only = true;
	image_close(must_open(&o));
}

/* Nor can all snapshots have the same L1 table, as large as there are any. */
static void one_table_for_all_snapshots(void **state)
{
	enum { NR = 20000, CLUSTER = 65536 };
	struct qcow2_header h = create((struct image_create){ .size = MIB });
	u64 l1 = ALIGN_UP(size_of_file(), (u64)CLUSTER), table = l1 + L1_BYTES_MAX;
	struct snapshot_header entry = { .l1_offset = htobe64(l1), .l1_len = htobe32(L1_BYTES_MAX / 8) };
	time_t start = time(NULL);

	(void)state;
	for (u64 n = 0; n < NR; n++)
		put(table + n * sizeof(entry), &entry, sizeof(entry));
	h.nr_snapshots = htobe32(NR);
	h.snapshots_offset = htobe64(table);
	put(0, &h, sizeof(h));
	assert_true(count_corruptions(false));
	assert_true(time(NULL) - start < LONG_S);
}

/* Compressed data that begins where the file ends is beyond it: a new cluster may come to lie there. */
static void packed_at_the_end(void **state)
{
	enum { CLUSTER = 65536, L2 = 4 };
	struct qcow2_header h = create((struct image_create){ .size = MIB, .preallocation = PREALLOC_METADATA });
	u64 l2, end = size_of_file();

	(void)state;
	assert_int_equal(count_corruptions(false), 0);
	assert_int_equal(pread(fd, &l2, 8, be64toh(h.l1_offset)), 8);
	put_u64((be64toh(l2) & QCOW2_OFFSET) + L2 * 8ULL, QCOW2_PACKED | end);
	assert_int_equal(count_corruptions(false), 1);
}

/* An entry that leads to a table, or to the header, as if they were data: what it is given up for stays. */
static void data_is_a_table(void **state)
{
	enum { CLUSTER = 65536, AT = 4 };
	struct qcow2_header h = create((struct image_create){ .size = MIB, .preallocation = PREALLOC_METADATA });
	u64 l1 = be64toh(h.l1_offset), table = be64toh(h.reftable_offset), l2, now;
	const u64 leads_to[] = { 512, l1 + 512, table + 512, QCOW2_PACKED, QCOW2_PACKED | l1, QCOW2_PACKED | table };
	struct image_options o = { .format = "qcow2" };
	static u8 cluster[CLUSTER];
	struct image *i;

	(void)state;
	assert_int_equal(pread(fd, &l2, 8, l1), 8);
	l2 = be64toh(l2) & QCOW2_OFFSET;
	for (unsigned n = 0; n < 2 * ARRAY_SIZE(leads_to); n++) {
		put(0, &h, sizeof(h));
		put_u64(l2 + AT * 8, leads_to[n / 2]);
		i = must_open(&o);
		if (n % 2)
			(void)!image_write(i, AT * CLUSTER, cluster, CLUSTER);
		else
			assert_int_equal(image_discard(i, AT * CLUSTER, CLUSTER), 0);
		for (int again = 0; again < 3; again++)
			if (!image_flush(i))
				image_reclaim(i);
		image_close(i);
		assert_int_equal(pread(fd, &now, 8, 0), 8);
		assert_memory_equal(&now, h.magic, 4);
		assert_int_equal(pread(fd, &now, 8, l1), 8);
		assert_int_equal(be64toh(now) & QCOW2_OFFSET, l2);
		assert_int_equal(pread(fd, &now, 8, table), 8);
		assert_int_not_equal(now, 0);
	}
}

/* Entries that lead to the tables that lead there, in place or not: what the guest writes is not in those. */
static void tables_are_no_data(void **state)
{
	enum { CLUSTER = 65536, AT = 4 };
	struct qcow2_header h = create((struct image_create){ .size = MIB, .preallocation = PREALLOC_METADATA });
	u64 l1 = be64toh(h.l1_offset), table = be64toh(h.reftable_offset), l2, was[64], now[64];
	const u64 leads_to[] = { l1, table };
	struct image_options o = { .format = "qcow2" };
	static u8 ones[CLUSTER];
	struct image *i;

	(void)state;
	memset(ones, 1, sizeof(ones));
	assert_int_equal(pread(fd, &l2, 8, l1), 8);
	l2 = be64toh(l2);
	for (unsigned n = 0; n < 8 * ARRAY_SIZE(leads_to); n++) {
		u64 at = leads_to[n / 8], entry = at | (n & 4 ? 0 : QCOW2_COPIED);

		put(0, &h, sizeof(h));
		put_u64(l1, n & 1 ? entry : l2);
		put_u64((l2 & QCOW2_OFFSET) + AT * 8, n & 1 ? 0 : entry);
		assert_int_equal(pread(fd, was, sizeof(was), at), sizeof(was));
		if (image_open(&i, path, &o, NULL))
			continue;	/* refused at once */
		assert_true(image_write(i, AT * CLUSTER, ones, n & 2 ? CLUSTER : 512) < 0);
		(void)!image_flush(i);
		image_close(i);
		assert_int_equal(pread(fd, now, sizeof(now), at), sizeof(now));
		assert_memory_equal(now, was, sizeof(now));
	}
}

/* A check tells of what no reader or writer would take; that cannot be mended. */
static void wrong_entries(void **state)
{
	enum { CLUSTER = 65536, AT = 4 };
	struct qcow2_header h = create((struct image_create){ .size = MIB, .preallocation = PREALLOC_METADATA });
	u64 l1 = be64toh(h.l1_offset), table = be64toh(h.reftable_offset), l2, was;

	(void)state;
	assert_int_equal(pread(fd, &l2, 8, l1), 8);
	put_u64(l1, be64toh(l2) | 1ULL << 60);
	assert_int_equal(count_corruptions(true), 1);
	put_u64(l1, table | QCOW2_COPIED);
	assert_true(count_corruptions(true));
	put(l1, &l2, 8);
	l2 = be64toh(l2) & QCOW2_OFFSET;
	assert_int_equal(count_corruptions(true), 0);
	assert_int_equal(pread(fd, &was, 8, l2 + AT * 8), 8);
	put_u64(l2 + AT * 8, be64toh(was) | 4);
	assert_int_equal(count_corruptions(true), 1);
	put_u64(l2 + AT * 8, be64toh(was) | 1ULL << 57);
	assert_int_equal(count_corruptions(true), 1);
	put_u64(l2 + AT * 8, l1);
	assert_int_equal(count_corruptions(true), 1);
	put_u64(l2 + AT * 8, table);
	assert_int_equal(count_corruptions(true), 1);
	put(l2 + AT * 8, &was, 8);
	count_corruptions(true);
	assert_int_equal(count_corruptions(false), 0);
}

/* A refcount block that is an L2 table, too: a check says so, and a repair writes to neither. */
static void block_is_l2(void **state)
{
	enum { CLUSTER = 4096, L1 = 2 };
	struct qcow2_header h = create((struct image_create){ .size = L1 * 2 * MIB, .cluster = CLUSTER });
	u64 block, before[CLUSTER / 8], after[CLUSTER / 8];

	(void)state;
	assert_int_equal(pread(fd, &block, 8, be64toh(h.reftable_offset)), 8);
	block = be64toh(block);
	put_u64(be64toh(h.l1_offset) + 8, block | QCOW2_COPIED);
	assert_int_equal(pread(fd, before, CLUSTER, block), CLUSTER);
	assert_true(count_corruptions(false));
	assert_true(count_corruptions(true));
	assert_int_equal(pread(fd, after, CLUSTER, block), CLUSTER);
	assert_memory_equal(before, after, CLUSTER);
}

/* An L1 entry that leads to a guest's data, whose entries would be beyond the end of a file that was cut off. */
static void l2_is_data(void **state)
{
	enum { CLUSTER = 4096 };
	struct qcow2_header h = create((struct image_create){ .size = 4 * MIB, .cluster = CLUSTER });
	struct image_options o = { .format = "qcow2" };
	static u8 data[CLUSTER], got[CLUSTER];
	struct image *i = must_open(&o);
	struct image_where w;

	(void)state;
	memset(data, 'A', sizeof(data));
	assert_int_equal(image_write(i, 0, data, CLUSTER), 0);
	assert_int_equal(image_flush(i), 0);
	assert_int_equal(image_where(i, 0, CLUSTER, &w), 0);
	image_close(i);
	put_u64(be64toh(h.l1_offset) + 8, w.extent.file_offset | QCOW2_COPIED);
	assert_true(count_corruptions(true));
	assert_int_equal(pread(fd, got, CLUSTER, w.extent.file_offset), CLUSTER);
	assert_memory_equal(data, got, CLUSTER);
}

/* A refcount block far beyond the end: a repair does not write there, nor fail for it. */
static void block_far_away(void **state)
{
	struct qcow2_header h = create((struct image_create){ .size = MIB });
	u64 table = be64toh(h.reftable_offset), size = size_of_file(), block;

	(void)state;
	assert_int_equal(pread(fd, &block, 8, table), 8);
	for (unsigned bit = 37; bit < 64; bit++) {
		put_u64(table, be64toh(block) | 1ULL << bit);
		assert_true(count_corruptions(false));
		assert_true(count_corruptions(true));
		assert_int_equal(size_of_file(), size);
	}
	put(table, &block, 8);
	assert_int_equal(count_corruptions(false), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(refused_headers, setup, teardown),
		cmocka_unit_test_setup_teardown(extensions_to_the_end, setup, teardown),
		cmocka_unit_test_setup_teardown(one_table_for_all, setup, teardown),
		cmocka_unit_test_setup_teardown(large_hole, setup, teardown),
		cmocka_unit_test_setup_teardown(counts_to_the_end, setup, teardown),
		cmocka_unit_test_setup_teardown(one_block_for_all, setup, teardown),
		cmocka_unit_test_setup_teardown(one_table_for_all_snapshots, setup, teardown),
		cmocka_unit_test_setup_teardown(packed_at_the_end, setup, teardown),
		cmocka_unit_test_setup_teardown(data_is_a_table, setup, teardown),
		cmocka_unit_test_setup_teardown(tables_are_no_data, setup, teardown),
		cmocka_unit_test_setup_teardown(wrong_entries, setup, teardown),
		cmocka_unit_test_setup_teardown(block_is_l2, setup, teardown),
		cmocka_unit_test_setup_teardown(l2_is_data, setup, teardown),
		cmocka_unit_test_setup_teardown(block_far_away, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
