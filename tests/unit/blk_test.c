/* blk_test.c: a disk's requests, many in flight, by both engines, over raw and qcow2 chains, against a plain array. */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include "devices/block/blk_own.h"
#include "tests/lib/disk.h"
#include "tests/lib/recorder.h"
#include "tests/lib/test.h"

enum {
	DISK = 4 << 20, SLOT = 96 * 1024, SLOTS = DISK / SLOT, IN_FLIGHT = 24, ROUNDS = 60,
	PIECES = 5,
};

/* Each request has a slot of the disk to itself, so it is known what it reads;
 * slots and clusters do not match, so neighbours meet in clusters. */
struct request {
	struct blk_req blk;
	struct iovec iov[PIECES];
	u8 *buf;
	u64 offset, len;
	int res;
	unsigned *left;
};

struct fixture {
	char dir[DISK_DIR_LEN], path[80];
	struct loop *loop;
	struct aio *aio;
	struct blk *blk;
	struct request r[IN_FLIGHT];
	u8 *model;
	u64 seed;
};

struct shape { enum aio_engine engine; const char *format; u32 cluster; bool below; u32 direct; };

static u64 draw_below(struct fixture *f, u64 n)
{
	f->seed ^= f->seed << 13;
	f->seed ^= f->seed >> 7;
	f->seed ^= f->seed << 17;
	return f->seed % n;
}

static void make_images(struct fixture *f, const struct shape *s)
{
	struct image_create base = { .format = "raw", .size = DISK };
	struct image_create top = { .format = s->format, .size = DISK, .cluster = s->cluster,
				    .backing = s->below ? "base" : NULL, .backing_format = s->below ? "raw" : NULL };
	char path[80];
	struct err err;

	if (s->below) {
		FILE *file;

		snprintf(path, sizeof(path), "%s/base", f->dir);
		assert_int_equal(image_create(path, &base, &err), 0);
		for (u64 i = 0; i < DISK; i++)
			f->model[i] = i / 512 % 3 ? i * 7 + i / 512 : 0;
		file = fopen(path, "r+");
		assert_non_null(file);
		assert_int_equal(fwrite(f->model, 1, DISK, file), DISK);
		assert_int_equal(fclose(file), 0);
	}
	assert_int_equal(image_create(f->path, &top, &err), 0);
}

/* Of any block size, as there are hosts of any. */
static void open_disk(struct fixture *f, const struct blk_options *o, u32 align)
{
	struct err err;

	if (blk_open(&f->blk, f->path, o, &err))
		fail_msg("%s", err.msg);
	for (struct image *i = f->blk->image; i && align; i = i->backing)
		i->direct_align = align;
}

static int setup(void **state)
{
	const struct shape *s = *state;
	struct fixture *f = calloc(1, sizeof(*f));
	struct blk_options o = { .format = s->format, .direct = s->direct };
	struct err err;

	*f = (struct fixture){ .seed = 88172645463325252ULL };
	if (!s->direct)
		disk_mkdir(f->dir);
	else if (!disk_mkdir_direct(f->dir))
		skip();
	snprintf(f->path, sizeof(f->path), "%s/top", f->dir);
	f->model = calloc(1, DISK);
	make_images(f, s);
	assert_int_equal(loop_new(&f->loop, &err), 0);
	if (aio_new(&f->aio, f->loop, s->engine, &err))
		f->aio = NULL;		/* this host refuses io_uring */
	open_disk(f, &o, s->direct);
	for (int i = 0; i < IN_FLIGHT; i++)
		f->r[i].buf = malloc(SLOT);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char path[80];

	blk_close(f->blk);
	aio_free(f->aio);
	loop_free(f->loop);
	for (int i = 0; i < IN_FLIGHT; i++)
		free(f->r[i].buf);
	unlink(f->path);
	snprintf(path, sizeof(path), "%s/base", f->dir);
	unlink(path);
	rmdir(f->dir);
	free(f->model);
	free(f);
	return 0;
}

static void done(struct blk_req *b, int res)
{
	struct request *r = container_of(b, struct request, blk);

	r->res = res;
	--*r->left;
}

/* Buffers of odd lengths, as drivers give them. */
static void cut(struct fixture *f, struct request *r)
{
	u64 left = r->len;
	int n = 0;

	for (; left && n < PIECES - 1; n++) {
		u64 k = 1 + draw_below(f, left);

		r->iov[n] = (struct iovec){ r->buf + (r->len - left), k };
		left -= k;
	}
	if (left)
		r->iov[n++] = (struct iovec){ r->buf + (r->len - left), left };
	r->blk.iov = r->iov;
	r->blk.nr_iov = n;
}

static void begin(struct fixture *f, struct request *r, unsigned slot, unsigned *left)
{
	static const enum blk_op ops[] = { BLK_READ, BLK_READ, BLK_WRITE, BLK_WRITE, BLK_WRITE, BLK_ZERO,
					   BLK_DISCARD, BLK_FLUSH };
	enum blk_op op = ops[draw_below(f, ARRAY_SIZE(ops))];
	u64 in = draw_below(f, SLOT / 512) * 512;

	r->offset = (u64)slot * SLOT + in;
	r->len = 512 + draw_below(f, (SLOT - in) / 512) * 512;
	r->blk = (struct blk_req){ .op = op, .offset = r->offset, .len = r->len, .done = done,
				   .unmap = draw_below(f, 2) };
	cut(f, r);
	r->res = 1;
	r->left = left;
	for (u64 i = 0; i < r->len && op == BLK_WRITE; i++)
		r->buf[i] = draw_below(f, 256);
	++*left;
	assert_int_equal(blk_submit(f->blk, f->aio, &r->blk), 0);
	assert_int_equal(r->res, 1);	/* never done in there */
}

static void end(struct fixture *f, struct request *r)
{
	u8 *model = f->model + r->offset;

	assert_int_equal(r->res, 0);
	switch (r->blk.op) {
	case BLK_READ:
		assert_memory_equal(r->buf, model, r->len);
		break;
	case BLK_WRITE:
		memcpy(model, r->buf, r->len);
		break;
	case BLK_ZERO:
		memset(model, 0, r->len);
		break;
	default:
		break;
	}
}

/* A discard leaves what was there, or zeroes, in each sector: find out which. */
static void look_again(struct fixture *f, struct image *i)
{
	u8 sector[512];

	for (u64 at = 0; at < DISK; at += sizeof(sector)) {
		static const u8 zeroes[512];

		assert_int_equal(image_read(i, at, sector, sizeof(sector)), 0);
		if (memcmp(sector, f->model + at, sizeof(sector)))
			assert_memory_equal(sector, zeroes, sizeof(sector));
	}
}

static void settle_discard(struct fixture *f, struct request *r)
{
	unsigned left = 1;
	u8 *now = malloc(r->len);

	r->blk = (struct blk_req){ .op = BLK_READ, .offset = r->offset, .len = r->len, .done = done };
	r->iov[0] = (struct iovec){ now, r->len };
	r->blk.iov = r->iov;
	r->blk.nr_iov = 1;
	r->left = &left;
	assert_int_equal(blk_submit(f->blk, f->aio, &r->blk), 0);
	aio_drain(f->aio, &left);
	for (u64 s = 0; s < r->len; s += 512) {
		static const u8 zeroes[512];

		if (memcmp(now + s, f->model + r->offset + s, 512))
			assert_memory_equal(now + s, zeroes, 512);
	}
	memcpy(f->model + r->offset, now, r->len);
	free(now);
}

static void test_many(void **state)
{
	struct fixture *f = *state;
	struct image_options o = { .read_only = true };
	struct image_check c = { 0 };
	unsigned left = 0;
	struct image *i;
	struct err err;

	if (!f->aio)
		skip();
	for (int round = 0; round < ROUNDS; round++) {
		unsigned first = draw_below(f, SLOTS);

		for (int n = 0; n < IN_FLIGHT; n++)
			begin(f, &f->r[n], (first + n) % SLOTS, &left);
		aio_drain(f->aio, &left);
		for (int n = 0; n < IN_FLIGHT; n++) {
			end(f, &f->r[n]);
			if (f->r[n].blk.op == BLK_DISCARD)
				settle_discard(f, &f->r[n]);
		}
	}
	blk_close(f->blk);
	f->blk = NULL;
	assert_int_equal(image_open(&i, f->path, &o, &err), 0);
	look_again(f, i);
	assert_int_equal(image_check(i, false, &c, &err), 0);
	assert_int_equal(c.corruptions, 0);
	assert_int_equal(c.leaks, 0);
	image_close(i);
}

/* A disk that was taken for raw stays so, unless the user said that it is raw; not a VM that
 * was saved when it was. */
static void test_disguise(void **state)
{
	struct fixture *f = *state;
	struct blk_options o = { 0 };
	struct request *r = &f->r[0];
	struct err err;

	for (int n = 0; n < 3; n++) {
		bool named = n == 2;
		unsigned left = 1;

		blk_close(f->blk);
		o.format = n ? "raw" : NULL;
		o.guessed = n == 1;
		assert_int_equal(blk_open(&f->blk, f->path, &o, &err), 0);
		assert_int_equal(blk_is_guessed(f->blk), !named);
		memset(r->buf, 0, 1024);
		memcpy(r->buf, "QFI\xfb", 4);
		r->iov[0] = (struct iovec){ r->buf, 3 };
		r->iov[1] = (struct iovec){ r->buf + 3, 1021 };
		r->blk = (struct blk_req){ .op = BLK_WRITE, .len = 1024, .iov = r->iov, .nr_iov = 2,
					   .done = done };
		r->left = &left;
		assert_int_equal(blk_submit(f->blk, f->aio, &r->blk), 0);
		aio_drain(f->aio, &left);
		assert_int_equal(r->res, named ? 0 : -EPERM);
	}
}

/* --- past the page cache --------------------------------------------------------------- */

static int move_at_all(struct fixture *f, enum blk_op op, u64 offset, u8 *buf, u64 len)
{
	struct request *r = &f->r[0];
	unsigned left = 1;

	r->iov[0] = (struct iovec){ buf, len };
	r->blk = (struct blk_req){ .op = op, .offset = offset, .len = len, .iov = r->iov, .nr_iov = 1,
				   .done = done };
	r->left = &left;
	assert_int_equal(blk_submit(f->blk, f->aio, &r->blk), 0);
	aio_drain(f->aio, &left);
	return r->res;
}

static void move(struct fixture *f, enum blk_op op, u64 offset, u8 *buf, u64 len)
{
	assert_int_equal(move_at_all(f, op, offset, buf, len), 0);
}

/* A device whose blocks are larger than the guest's zeroes no part of one, nor gives it back. */
static void test_parts_of_blocks(void **state)
{
	struct fault fault = { .ops = FILE_ZERO, .error = EINVAL };
	struct fixture *f = *state;
	static const u8 zeroes[512];
	u8 *buf = f->r[0].buf;

	memset(buf, 1, 1536);
	move(f, BLK_WRITE, 0, buf, 1536);
	recorder_fail(&fault);
	move(f, BLK_ZERO, 512, NULL, 512);
	recorder_fail(&fault);
	move(f, BLK_DISCARD, 0, NULL, 512);
	recorder_fail(NULL);
	move(f, BLK_READ, 0, buf, 1536);
	assert_memory_equal(buf + 512, zeroes, 512);
	assert_int_equal(buf[511], 1);
	assert_int_equal(buf[1024], 1);
}

/* Nothing was written, so a host that cannot sync has lost nothing. */
static void test_flush_read_only(void **state)
{
	struct fixture *f = *state;
	struct blk_options o = { .read_only = true };
	struct fault fault = { .ops = FILE_SYNC, .error = EIO, .lasting = true };
	u64 syncs;

	blk_close(f->blk);
	open_disk(f, &o, 0);
	syncs = recorder_count(FILE_SYNC);
	recorder_fail(&fault);
	move(f, BLK_FLUSH, 0, NULL, 0);
	move(f, BLK_READ, 0, f->r[0].buf, 512);
	move(f, BLK_FLUSH, 0, NULL, 0);
	for (struct image *i = f->blk->image; i; i = i->backing)
		assert_false(i->lost);
	blk_close(f->blk);
	f->blk = NULL;
	recorder_fail(NULL);
	assert_int_equal(recorder_count(FILE_SYNC), syncs);
}

/* While the host syncs, what the tables need not change for goes on. */
static void test_flush_meanwhile(void **state)
{
	static const enum blk_op ops[] = { BLK_FLUSH, BLK_READ, BLK_WRITE, BLK_WRITE, BLK_FLUSH };
	struct fixture *f = *state;
	unsigned left[ARRAY_SIZE(ops)], syncs = 0;

	for (int n = 0; n < 3; n++) {
		u64 before = recorder_count(FILE_SYNC);

		memset(f->r[0].buf, n + 1, SLOT);
		move(f, BLK_WRITE, 0, f->r[0].buf, SLOT);
		move(f, BLK_WRITE, (u64)(n + 1) * SLOT, f->r[0].buf, SLOT);
		recorder_hold(FILE_SYNC);
		for (unsigned i = 0; i < ARRAY_SIZE(ops); i++) {
			struct request *r = &f->r[1 + i];

			left[i] = 1;
			r->left = &left[i];
			r->iov[0] = (struct iovec){ r->buf, 512 };
			/* The second write is the first to its cluster. */
			r->blk = (struct blk_req){ .op = ops[i], .offset = i == 3 ? (u64)(n + 20) * SLOT : 512,
						   .len = 512, .iov = r->iov, .nr_iov = 1, .done = done };
			memset(r->buf, 0xe5, 512);
			assert_int_equal(blk_submit(f->blk, f->aio, &r->blk), 0);
			while (!i && !recorder_held())
				sched_yield();
			assert_int_equal(r->blk.io.op == AIO_CALL, i != 1 && i != 2);
		}
		aio_drain(f->aio, &left[1]);
		aio_drain(f->aio, &left[2]);
		assert_int_equal(recorder_held(), 1);
		assert_true(left[0] && left[3] && left[4]);
		assert_int_equal(recorder_count(FILE_SYNC), before);
		recorder_hold(0);
		for (unsigned i = 0; i < ARRAY_SIZE(ops); i++) {
			aio_drain(f->aio, &left[i]);
			assert_int_equal(f->r[1 + i].res, 0);
		}
		syncs += recorder_count(FILE_SYNC) - before;
		move(f, BLK_READ, 512, f->r[0].buf, 512);
		assert_memory_equal(f->r[0].buf, f->r[3].buf, 512);
	}
	assert_true(syncs >= 6);
}

static u64 syncs_asked(struct image *i)
{
	u64 n;

	pthread_mutex_lock(&i->sync_lock);
	n = i->syncs_asked;
	pthread_mutex_unlock(&i->sync_lock);
	return n;
}

/*
 * Those that come while the host syncs share the next one.  A host tells only one of them
 * of what it could not write: none of them may end well.
 */
static void test_flushes_at_once(void **state)
{
	enum { FLUSHES = 4 };
	struct fault fault = { .ops = FILE_SYNC, .error = EIO };
	struct fixture *f = *state;
	unsigned left = 0;

	for (int fails = 0; fails < 2; fails++) {
		u64 before = recorder_count(FILE_SYNC), asked = syncs_asked(f->blk->image);

		recorder_fail(fails ? &fault : NULL);
		recorder_hold(FILE_SYNC);
		for (unsigned i = 0; i < FLUSHES; i++) {
			struct request *r = &f->r[i];

			left++;
			r->left = &left;
			r->blk = (struct blk_req){ .op = BLK_FLUSH, .done = done };
			assert_int_equal(blk_submit(f->blk, f->aio, &r->blk), 0);
			while (syncs_asked(f->blk->image) == asked + i)
				sched_yield();
		}
		while (!recorder_held())
			sched_yield();
		assert_int_equal(recorder_held(), 1);
		recorder_hold(0);
		aio_drain(f->aio, &left);
		recorder_fail(NULL);
		for (unsigned i = 0; i < FLUSHES; i++)
			assert_true(fails ? f->r[i].res < 0 : !f->r[i].res);
		assert_int_equal(recorder_count(FILE_SYNC) - before, fails ? 1 : 2);
	}
}

static u64 moved_directly(struct fixture *f, enum blk_op op, u64 offset, u8 *buf, u64 len)
{
	u64 before = recorder_direct();

	move(f, op, offset, buf, len);
	return recorder_direct() - before;
}

/* Every alignment of offset, length and memory, up to the end of a file of odd length. */
static void test_direct(void **state)
{
	static const u64 offsets[] = { 0, 512, 3584, 4096, 8192 + 1024, MIB - 512, MIB, MIB + 512 };
	static const u64 lens[] = { 512, 1024, 4096, 4608, 8192, 300 * KIB };
	static const unsigned mems[] = { 0, 1, 3, 512, 4095 };
	enum { SIZE = 1 << 20, TAIL = 1536 + 100 };
	struct fixture *f = *state;
	struct blk_options o = { .format = "raw", .direct = true };
	u8 *buf = aligned_alloc(4096, SIZE), *disk = malloc(SIZE + TAIL);
	struct stat st;
	int fd;

	for (u32 align = 512; align <= 4096; align *= 8) {
		blk_close(f->blk);
		assert_int_equal(truncate(f->path, 0), 0);
		for (u64 i = 0; i < SIZE + TAIL; i++)
			disk[i] = i * 5 + i / 512;
		fd = open(f->path, O_RDWR);
		assert_int_equal(write(fd, disk, SIZE + TAIL), SIZE + TAIL);
		o.read_only = false;
		open_disk(f, &o, align);
		assert_int_equal(blk_info(f->blk).size, SIZE + 1536);
		for (unsigned a = 0; a < ARRAY_SIZE(offsets); a++)
			for (unsigned b = 0; b < ARRAY_SIZE(lens); b++)
				for (unsigned c = 0; c < ARRAY_SIZE(mems); c++) {
					u64 len = MIN(lens[b], SIZE + 1536 - offsets[a]);
					u8 *at = buf + mems[c];
					bool whole = !((offsets[a] | len) & (align - 1));

					memset(at, 0, len);
					/* All of it, or (a part of a block, or the file's last) none. */
					assert_int_equal(!!moved_directly(f, BLK_READ, offsets[a], at, len), whole);
					assert_memory_equal(at, disk + offsets[a], len);
					for (u64 i = 0; i < len; i++)
						disk[offsets[a] + i] = at[i] = draw_below(f, 256);
					assert_int_equal(!!moved_directly(f, BLK_WRITE, offsets[a], at, len), whole);
				}
		/* By the page cache, too; the file has kept its length and its odd end. */
		assert_int_equal(fstat(fd, &st), 0);
		assert_int_equal(st.st_size, SIZE + TAIL);
		assert_int_equal(pread(fd, buf, SIZE, 0), SIZE);
		assert_memory_equal(buf, disk, SIZE);
		assert_int_equal(pread(fd, buf, TAIL, SIZE), TAIL);
		assert_memory_equal(buf, disk + SIZE, TAIL);
		close(fd);
		/* A reader sees the odd end as well. */
		blk_close(f->blk);
		o.read_only = true;
		open_disk(f, &o, align);
		assert_int_equal(blk_info(f->blk).size, SIZE + 2048);
		move(f, BLK_READ, SIZE, buf, 2048);
		assert_memory_equal(buf, disk + SIZE, TAIL);
		for (unsigned i = TAIL; i < 2048; i++)
			assert_int_equal(buf[i], 0);
	}
	free(buf);
	free(disk);
}

/* Neither a new cluster, nor what is copied to it, leaves data in the page cache. */
static void test_direct_chain(void **state)
{
	struct fixture *f = *state;
	u8 *buf = aligned_alloc(4096, MIB);

	for (u64 at = 0; at < MIB; at += 512)
		memset(buf + at, at / 512 + 1, 512);
	assert_true(moved_directly(f, BLK_READ, 0, buf + MIB / 2, MIB / 2));
	assert_memory_equal(buf + MIB / 2, f->model, MIB / 2);
	move(f, BLK_WRITE, 512 * 3, buf, 512);
	memcpy(f->model + 512 * 3, buf, 512);
	move(f, BLK_WRITE, 128 * KIB, buf, 64 * KIB);
	memcpy(f->model + 128 * KIB, buf, 64 * KIB);
	move(f, BLK_WRITE, 300 * KIB + 512, buf, 100 * KIB);
	memcpy(f->model + 300 * KIB + 512, buf, 100 * KIB);
	for (int n = 0; n < 2; n++) {
		move(f, BLK_READ, 0, buf, MIB);
		assert_memory_equal(buf, f->model, MIB);
		assert_true(moved_directly(f, BLK_READ, 128 * KIB, buf, 64 * KIB));
		assert_memory_equal(buf, f->model + 128 * KIB, 64 * KIB);
	}
	free(buf);
}

/* In memory: no direct I/O, or (later kernels) as if it had some, by the page. */
static void test_direct_refused(void **state)
{
	struct fixture *f = *state;
	struct blk_options o = { .direct = true };
	struct blk *b;
	struct err err;

	blk_close(f->blk);
	f->blk = NULL;
	assert_int_equal(blk_open(&b, f->path, &o, &err), -EINVAL);
	assert_says(err.msg, f->path);
	assert_says(err.msg, "direct=on: its ");
}

/*
 * Somebody cuts off the file below while it is in use: what it had is not zeroes, nor does the
 * rest of a cluster become so for good.
 */
static void test_base_cut_off(void **state)
{
	struct fixture *f = *state;
	u64 cluster = f->blk->image->cluster;
	char path[80];
	FILE *file;

	snprintf(path, sizeof(path), "%s/base", f->dir);
	assert_int_equal(truncate(path, DISK / 2), 0);
	for (int n = 0; n < 2; n++) {
		assert_int_equal(move_at_all(f, BLK_READ, DISK / 2, f->r[0].buf, 4096), -EIO);
		assert_int_equal(move_at_all(f, BLK_READ, DISK / 2 - 512, f->r[0].buf, 1024), -EIO);
		assert_int_equal(move_at_all(f, BLK_READ, DISK - 512, f->r[0].buf, 512), -EIO);
		assert_int_equal(move_at_all(f, BLK_READ, DISK / 2 - 4096, f->r[0].buf, 4096), 0);
		assert_memory_equal(f->r[0].buf, f->model + DISK / 2 - 4096, 4096);
		assert_int_equal(move_at_all(f, BLK_WRITE, DISK - 2 * cluster + 512, f->r[0].buf, 512), -EIO);
	}
	assert_int_equal(move_at_all(f, BLK_WRITE, DISK - cluster, f->r[0].buf, cluster), 0);
	memcpy(f->model + DISK - cluster, f->r[0].buf, cluster);
	file = fopen(path, "r+");
	assert_non_null(file);
	assert_int_equal(fwrite(f->model, 1, DISK, file), DISK);
	assert_int_equal(fclose(file), 0);
	for (u64 at = 0; at < DISK; at += 64 * KIB) {
		assert_int_equal(move_at_all(f, BLK_READ, at, f->r[0].buf, 64 * KIB), 0);
		assert_memory_equal(f->r[0].buf, f->model + at, 64 * KIB);
	}
}

static u64 place_of(struct fixture *f, u64 offset)
{
	struct image *i = f->blk->image;
	struct extent e;

	assert_int_equal(i->ops->map(i, offset, 512, false, &e), 0);
	return e.kind == EXTENT_DATA ? e.file_offset : 0;
}

/* Whether a new cluster is where the freed one was, after so many flushes. */
static bool is_taken_again(struct fixture *f, u64 freed, u64 next)
{
	for (int n = 0; n < 3; n++)
		move(f, BLK_FLUSH, 0, NULL, 0);
	move(f, BLK_WRITE, next, f->r[0].buf, 64 * KIB);
	return place_of(f, next) == freed;
}

/* A request in flight knows where its bytes are: nobody else gets the place, if the guest discards it meanwhile. */
static void test_place_in_use(void **state)
{
	struct fixture *f = *state;
	unsigned *in_flight;
	u64 freed;

	memset(f->r[0].buf, 1, 64 * KIB);
	move(f, BLK_WRITE, MIB, f->r[0].buf, 64 * KIB);
	freed = place_of(f, MIB);
	assert_int_not_equal(freed, 0);
	in_flight = &f->blk->straight[f->blk->generation];
	++*in_flight;
	move(f, BLK_DISCARD, MIB, NULL, 64 * KIB);
	for (u64 n = 0; n < 4; n++)
		assert_false(is_taken_again(f, freed, 2 * MIB + n * 64 * KIB));
	--*in_flight;
	assert_true(is_taken_again(f, freed, 3 * MIB));
}

/* A driver that never flushes: the file grows no further than the disk and what waits to be used again. */
static void test_never_flushed(void **state)
{
	enum { TIMES = 5000, MOST = 140 * MIB };
	struct fixture *f = *state;
	u64 len = 64 * KIB;
	struct stat st;

	for (u64 n = 0; n < TIMES; n++) {
		memset(f->r[0].buf, n + 1, len);
		move(f, BLK_WRITE, MIB, f->r[0].buf, len);
		move(f, n % 2 ? BLK_DISCARD : BLK_WRITE, MIB, f->r[0].buf, len);
	}
	assert_int_equal(stat(f->path, &st), 0);
	assert_in_range(st.st_size, 1, MOST);
}

static void test_range(void **state)
{
	struct fixture *f = *state;
	struct blk_req r = { .op = BLK_READ, .offset = DISK, .len = 512, .done = done };

	assert_int_equal(blk_info(f->blk).size, DISK);
	assert_int_equal(blk_submit(f->blk, f->aio, &r), -EINVAL);
	r.offset = UINT64_MAX - 511;
	r.len = 1024;
	assert_int_equal(blk_submit(f->blk, f->aio, &r), -EINVAL);
}

int main(void)
{
	static struct shape shapes[] = {
		{ AIO_THREADS, "raw", 0, false, 0 }, { AIO_URING, "raw", 0, false, 0 },
		{ AIO_THREADS, "qcow2", 65536, false, 0 }, { AIO_URING, "qcow2", 65536, true, 0 },
		{ AIO_THREADS, "qcow2", 4096, true, 0 }, { AIO_URING, "qcow2", 4096, false, 0 },
		{ AIO_THREADS, "qcow2", 512, true, 0 }, { AIO_URING, "qcow2", 2 << 20, true, 0 },
		{ AIO_THREADS, "raw", 0, false, 512 }, { AIO_URING, "raw", 0, false, 4096 },
		{ AIO_THREADS, "qcow2", 65536, true, 4096 }, { AIO_URING, "qcow2", 4096, true, 512 },
	};
#define ONE(test, shape) cmocka_unit_test_prestate_setup_teardown(test, setup, teardown, &shapes[shape])
	const struct CMUnitTest others[] = {
		ONE(test_disguise, 0), ONE(test_direct, 8), ONE(test_direct_chain, 10), ONE(test_direct_refused, 6),
		ONE(test_parts_of_blocks, 0),
		ONE(test_flush_read_only, 0), ONE(test_flush_read_only, 4), ONE(test_flush_meanwhile, 2),
		ONE(test_flush_meanwhile, 5), ONE(test_flushes_at_once, 0), ONE(test_base_cut_off, 4),
		ONE(test_base_cut_off, 10), ONE(test_base_cut_off, 11), ONE(test_never_flushed, 2), ONE(test_never_flushed, 5),
		ONE(test_place_in_use, 2), ONE(test_place_in_use, 3),
	};
	struct CMUnitTest tests[2 * ARRAY_SIZE(shapes) + ARRAY_SIZE(others)];

	for (unsigned i = 0; i < ARRAY_SIZE(shapes); i++) {
		tests[2 * i] = (struct CMUnitTest)ONE(test_many, i);
		tests[2 * i + 1] = (struct CMUnitTest)ONE(test_range, i);
	}
	memcpy(&tests[2 * ARRAY_SIZE(shapes)], others, sizeof(others));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
