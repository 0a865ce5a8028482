/*
 * disk.c: a load on a disk, run in a guest: what it does a second.
 *
 *   disk DEVICE read|write random|sequential BLOCK DEPTH COUNT
 *
 * O_DIRECT and native AIO: DEPTH requests in flight, COUNT in all, in blocks of
 * BLOCK bytes, over the first 256 MiB.  Prints "disk: ready", is idle for a while
 * (who counts something about the guest looks now), then
 * "disk: REQUESTS_PER_S MIB_PER_S", and is idle again.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SPAN = 256 << 20, DEPTH_MAX = 64, IDLE_US = 300000 };

static uint64_t seed = 88172645463325252ULL;

static uint64_t next_random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

int main(int argc, char **argv)
{
	struct iocb cb[DEPTH_MAX], *submit[DEPTH_MAX];
	struct io_event done[DEPTH_MAX];
	aio_context_t context = 0;
	unsigned block, depth, count, sent = 0, back = 0, fresh;
	int fd, is_write, is_random;
	double began, took;
	char *buf;

	if (argc != 7)
		return 2;
	is_write = !strcmp(argv[2], "write");
	is_random = !strcmp(argv[3], "random");
	block = atoi(argv[4]);
	depth = atoi(argv[5]);
	count = atoi(argv[6]);
	fd = open(argv[1], O_RDWR | O_DIRECT);
	if (fd < 0 || depth > DEPTH_MAX || syscall(SYS_io_setup, depth, &context))
		die("disk");
	buf = aligned_alloc(4096, (size_t)block * depth);
	memset(buf, 0x5a, (size_t)block * depth);
	printf("disk: ready\n");
	fflush(stdout);
	usleep(IDLE_US);
	began = now();
	fresh = depth;
	for (unsigned i = 0; i < depth; i++)
		submit[i] = &cb[i];
	while (back < count) {
		unsigned nr = 0;
		long got;

		for (; nr < fresh && sent < count; nr++, sent++) {
			struct iocb *c = submit[nr];
			uint64_t at = (is_random ? next_random() : sent) % (SPAN / block) * block;

			*c = (struct iocb){
				.aio_fildes = fd, .aio_offset = at, .aio_nbytes = block,
				.aio_lio_opcode = is_write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
				.aio_buf = (uintptr_t)(buf + (size_t)(c - cb) * block),
			};
		}
		if (nr && syscall(SYS_io_submit, context, (long)nr, submit) != nr)
			die("submit");
		got = syscall(SYS_io_getevents, context, 1L, (long)depth, done, NULL);
		if (got < 1)
			die("getevents");
		fresh = got;
		for (long i = 0; i < got; i++) {
			if (done[i].res != block)
				die("short");
			submit[i] = (struct iocb *)(uintptr_t)done[i].obj;
			back++;
		}
	}
	took = now() - began;
	printf("disk: %.0f %.0f\n", count / took, (double)count * block / took / (1 << 20));
	fflush(stdout);
	usleep(IDLE_US);
	return 0;
}
