/* blk_test.c: a disk's requests, many in flight, by both engines, over raw and qcow2 chains, against a plain array. */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include "devices/block/blk.h"
#include "devices/block/image.h"
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
	char dir[32], path[64];
	struct loop *loop;
	struct aio *aio;
	struct blk *blk;
	struct request r[IN_FLIGHT];
	u8 *model;
	u64 seed;
};

struct shape { enum aio_engine engine; const char *format; u32 cluster; bool below; };

static u64 draw(struct fixture *f, u64 n)
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
	char path[64];
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

static int setup(void **state)
{
	const struct shape *s = *state;
	struct fixture *f = calloc(1, sizeof(*f));
	struct blk_options o = { .format = s->format };
	struct err err;

	*f = (struct fixture){ .dir = "/tmp/vmm-blk-XXXXXX", .seed = 88172645463325252ULL };
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/top", f->dir);
	f->model = calloc(1, DISK);
	make_images(f, s);
	assert_int_equal(loop_new(&f->loop, &err), 0);
	if (aio_new(&f->aio, f->loop, s->engine, &err))
		f->aio = NULL;		/* this host refuses io_uring */
	assert_int_equal(blk_open(&f->blk, f->path, &o, &err), 0);
	for (int i = 0; i < IN_FLIGHT; i++)
		f->r[i].buf = malloc(SLOT);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char path[64];

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
		u64 k = 1 + draw(f, left);

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
	enum blk_op op = ops[draw(f, ARRAY_SIZE(ops))];
	u64 in = draw(f, SLOT / 512) * 512;

	r->offset = (u64)slot * SLOT + in;
	r->len = 512 + draw(f, (SLOT - in) / 512) * 512;
	r->blk = (struct blk_req){ .op = op, .offset = r->offset, .len = r->len, .done = done,
				   .unmap = draw(f, 2) };
	cut(f, r);
	r->res = 1;
	r->left = left;
	for (u64 i = 0; i < r->len && op == BLK_WRITE; i++)
		r->buf[i] = draw(f, 256);
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
		unsigned first = draw(f, SLOTS);

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

/* A disk that was taken for raw stays so, unless the user said that it is raw. */
static void test_disguise(void **state)
{
	struct fixture *f = *state;
	struct blk_options o = { 0 };
	struct request *r = &f->r[0];
	struct err err;

	for (int named = 0; named < 2; named++) {
		unsigned left = 1;

		blk_close(f->blk);
		o.format = named ? "raw" : NULL;
		assert_int_equal(blk_open(&f->blk, f->path, &o, &err), 0);
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
		{ AIO_THREADS, "raw", 0, false }, { AIO_URING, "raw", 0, false },
		{ AIO_THREADS, "qcow2", 65536, false }, { AIO_URING, "qcow2", 65536, true },
		{ AIO_THREADS, "qcow2", 4096, true }, { AIO_URING, "qcow2", 4096, false },
		{ AIO_THREADS, "qcow2", 512, true }, { AIO_URING, "qcow2", 2 << 20, true },
	};
	struct CMUnitTest tests[2 * ARRAY_SIZE(shapes) + 1];

	for (unsigned i = 0; i < ARRAY_SIZE(shapes); i++) {
		tests[2 * i] = (struct CMUnitTest)cmocka_unit_test_prestate_setup_teardown(test_many,
			setup, teardown, &shapes[i]);
		tests[2 * i + 1] = (struct CMUnitTest)cmocka_unit_test_prestate_setup_teardown(
			test_range, setup, teardown, &shapes[i]);
	}
	tests[2 * ARRAY_SIZE(shapes)] = (struct CMUnitTest)cmocka_unit_test_prestate_setup_teardown(
		test_disguise, setup, teardown, &shapes[0]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
