/*
 * block.c: the disks' own engine, without a guest: 32 requests of 4 KiB in flight.
 *
 *   block load FILE FORMAT COUNT       random reads: "load: REQUESTS_PER_S"
 *   block pause FILE FORMAT SNAPSHOTS  random reads and writes, and snapshots meanwhile: for how long
 *                                      each held requests back, and the longest that none was done,
 *                                      "pause: MEDIAN_MS MAX_MS NONE_DONE_MS"
 *   block open FILE FORMAT             "open: MS KIB", the memory that it took
 *   block clock                        "clock: KHZ", of the time stamp counter
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "devices/block/blk.h"

enum { DEPTH = 32, BLOCK = 4096, APART = 5000 };

struct slot {
	struct blk_req req;
	struct iovec iov;
	void *buf;
};

static struct loop *loop;
static struct aio *aio;
static struct blk *blk;
static struct slot slot[DEPTH];
static u64 size, count, limit, seed = 88172645463325252ULL;	/* count: atomic */
static unsigned in_flight;
static u64 last, longest;
static bool writes, hold;

static void die(const char *what)
{
	fprintf(stderr, "block: %s\n", what);
	exit(1);
}

static u64 next_random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static void done(struct blk_req *r, int res);

static void send(struct slot *s)
{
	u64 n = next_random();

	s->iov = (struct iovec){ s->buf, BLOCK };
	s->req = (struct blk_req){
		.op = writes && n >> 60 < 4 ? BLK_WRITE : BLK_READ, .offset = n % (size / BLOCK) * BLOCK,
		.len = BLOCK, .iov = &s->iov, .nr_iov = 1, .done = done,
	};
	in_flight++;
	if (blk_submit(blk, aio, &s->req))
		die("a request was refused");
}

static void done(struct blk_req *r, int res)
{
	struct slot *s = container_of(r, struct slot, req);

	if (res)
		die(strerror(-res));
	in_flight--;
	if (writes) {
		u64 now = now_ns();

		longest = MAX(longest, now - last);
		last = now;
	}
	if (__atomic_add_fetch(&count, 1, __ATOMIC_RELEASE) == limit)
		loop_stop(loop);
	if (!hold && (!limit || count < limit))
		send(s);
}

static void go(void *arg)
{
	(void)arg;
	hold = false;
	for (int i = 0; i < DEPTH; i++)
		send(&slot[i]);
}

static void halt(void *arg)
{
	(void)arg;
	hold = true;
	aio_drain(aio, &in_flight);
}

static void open_disk(const char *path, const char *format)
{
	struct blk_options o = { .format = format };
	struct err err;

	if (blk_open(&blk, path, &o, &err))
		die(err.msg);
	size = blk_info(blk).size;
}

static void start_engine(void)
{
	struct err err;

	if (loop_new(&loop, &err) || aio_new(&aio, loop, AIO_AUTO, &err))
		die(err.msg);
	for (int i = 0; i < DEPTH; i++) {
		slot[i].buf = aligned_alloc(BLOCK, BLOCK);
		memset(slot[i].buf, i + 1, BLOCK);
	}
}

static void load(void)
{
	u64 began;

	start_engine();
	go(NULL);
	began = now_ns();
	loop_run(loop);
	printf("load: %.0f\n", limit * 1e9 / (now_ns() - began));
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void pause_for_snapshots(int nr)
{
	double *ms = calloc(nr, sizeof(*ms));
	struct err err;

	writes = true;
	last = now_ns();
	start_engine();
	if (loop_start_thread(loop, THREAD_IO, "io/0", &err))
		die(err.msg);
	loop_call(loop, go, NULL);
	for (int i = 0; i < nr; i++) {
		u64 from = load_acquire(&count), began;
		char name[16];

		while (load_acquire(&count) < from + APART)
			nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
		snprintf(name, sizeof(name), "s%d", i);
		if (blk_snapshot_prepare(blk, name, &err))
			die(err.msg);
		began = now_ns();
		loop_call(loop, halt, NULL);
		blk_snapshot_take(blk);
		loop_call(loop, go, NULL);
		ms[i] = (now_ns() - began) / 1e6;
		if (blk_snapshot_settle(blk, &err))
			die(err.msg);
	}
	loop_call(loop, halt, NULL);
	loop_stop_thread(loop);
	qsort(ms, nr, sizeof(*ms), by_size);
	printf("pause: %.2f %.2f %.2f\n", ms[nr / 2], ms[nr - 1], longest / 1e6);
}

static void measure_open(const char *path, const char *format)
{
	size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
	u64 began = now_ns();

	open_disk(path, format);
	began = now_ns() - began;
	printf("open: %.3f %.0f\n", began / 1e6,
	       (mallinfo2().uordblks + mallinfo2().hblkhd - before) / 1024.0);
}

static void measure_clock(void)
{
	u64 began = now_ns(), tsc = __builtin_ia32_rdtsc(), took;

	while ((took = now_ns() - began) < 100000000)
		;
	printf("clock: %.0f\n", (__builtin_ia32_rdtsc() - tsc) * 1e6 / took);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "clock")) {
		measure_clock();
	} else if (!strcmp(what, "open") && argc == 4) {
		measure_open(argv[2], argv[3]);
	} else if (!strcmp(what, "load") && argc == 5) {
		open_disk(argv[2], argv[3]);
		limit = atoll(argv[4]);
		load();
	} else if (!strcmp(what, "pause") && argc == 5) {
		open_disk(argv[2], argv[3]);
		pause_for_snapshots(atoi(argv[4]));
	} else {
		return 2;
	}
	return 0;
}
