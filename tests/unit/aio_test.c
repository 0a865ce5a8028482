/* aio_test.c: file I/O by both engines: what comes back, many at once, none lost, none twice. */
#include <fcntl.h>
#include <liburing.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "tests/lib/fake.h"
#include "tests/lib/test.h"

enum { FILE_LEN = 4096, MANY = 1000, BLOCK = 512 };

struct fixture {
	struct fake fake;
	struct aio *aio;		/* NULL: this host refuses io_uring */
	int fd, read_only, write_only, pipe[2];
	pthread_t owner;
	bool submitting, wrong_place;
	unsigned left;
};

struct op {
	struct aio_req req;
	struct fixture *f;
	struct iovec iov[3];
	int nr_done, res;
};

static int interruptions;		/* atomic */

/*
 * The pool reads at an offset, which a pipe does not have, and io_uring ignores
 * there: with this a read of either can be made to wait.
 */
ssize_t preadv(int fd, const struct iovec *iov, int nr, off_t offset)
{
	ssize_t n;

	if (load_acquire(&interruptions) > 0) {
		__atomic_sub_fetch(&interruptions, 1, __ATOMIC_SEQ_CST);
		errno = EINTR;
		return -1;
	}
	n = syscall(SYS_preadv, fd, iov, nr, offset, 0);
	return n < 0 && errno == ESPIPE ? readv(fd, iov, nr) : n;
}

static int refusals;
static bool refuses_backlog;

/* The kernel may be out of memory for a while; an older one wants what is done taken first. */
int io_uring_submit(struct io_uring *ring)
{
	if (refuses_backlog && io_uring_cq_ready(ring) >= ring->cq.ring_entries)
		return -EBUSY;
	return refusals && refusals-- ? -EAGAIN : io_uring_submit_and_wait(ring, 0);
}

static u8 pattern(u64 i)
{
	return i * 31 + i / 251 + 1;
}

/* engine: negative for none. */
static int setup(void **state, int engine)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char path[] = "/tmp/vmm-aio-test-XXXXXX";
	u8 data[FILE_LEN];
	int rc = 0;

	assert_non_null(f);
	fake_init(&f->fake, 8 * MIB, -1);
	if (engine >= 0)
		rc = aio_new(&f->fake.p.aio, f->fake.p.io_loop, engine, NULL);
	f->aio = f->fake.p.aio;
	assert_true(!rc || engine == AIO_URING);
	f->fd = mkstemp(path);
	f->read_only = open(path, O_RDONLY | O_CLOEXEC);
	f->write_only = open(path, O_WRONLY | O_CLOEXEC);
	unlink(path);
	for (int i = 0; i < FILE_LEN; i++)
		data[i] = pattern(i);
	assert_int_equal(write(f->fd, data, sizeof(data)), sizeof(data));
	assert_int_equal(pipe2(f->pipe, O_CLOEXEC), 0);
	f->owner = pthread_self();
	*state = f;
	return 0;
}

static int setup_threads(void **state)	{ return setup(state, AIO_THREADS); }
static int setup_uring(void **state)	{ return setup(state, AIO_URING); }
static int setup_none(void **state)	{ return setup(state, -1); }

static int teardown(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(f->left, 0);
	assert_false(f->wrong_place);
	fake_fini(&f->fake);
	close(f->fd);
	close(f->read_only);
	close(f->write_only);
	close(f->pipe[0]);
	close(f->pipe[1]);
	free(f);
	return 0;
}

static struct fixture *ready(void **state)
{
	struct fixture *f = *state;

	if (!f->aio)
		skip();
	return f;
}

static void done(struct aio_req *r, int res)
{
	struct op *o = container_of(r, struct op, req);

	o->f->wrong_place |= o->f->submitting || !pthread_equal(o->f->owner, pthread_self());
	o->res = res;
	o->nr_done++;
	o->f->left--;
}

static void submit(struct fixture *f, struct op *o)
{
	o->f = f;
	if (!o->req.done)
		o->req.done = done;
	f->left++;
	f->submitting = true;
	aio_submit(f->aio, &o->req);
	f->submitting = false;
}

static void submit_rw(struct fixture *f, struct op *o, enum aio_op op, int fd, u64 offset,
		      void *buf, size_t len)
{
	*o = (struct op){ .iov[0] = { buf, len } };
	o->req = (struct aio_req){ .op = op, .fd = fd, .offset = offset, .iov = o->iov,
				   .nr_iov = 1 };
	submit(f, o);
}

static bool none_left(void *arg)
{
	return !((struct fixture *)arg)->left;
}

static void settle(struct fixture *f)
{
	assert_true(fake_turn_until(&f->fake, none_left, f));
}

static int finish(struct fixture *f, struct op *o)
{
	settle(f);
	assert_int_equal(o->nr_done, 1);
	return o->res;
}

static int rw(struct fixture *f, enum aio_op op, int fd, u64 offset, void *buf, size_t len)
{
	struct op o;

	submit_rw(f, &o, op, fd, offset, buf, len);
	return finish(f, &o);
}

/* --- one at a time ------------------------- */

static void test_read_and_write(void **state)
{
	struct fixture *f = ready(state);
	u8 a[100], b[1], c[300], got[401 + 2], *p = got + 1;
	struct op w = {
		.req = { .op = AIO_WRITE, .fd = f->fd, .offset = 777, .nr_iov = 3 },
		.iov = { { a, sizeof(a) }, { b, sizeof(b) }, { c, sizeof(c) } },
	}, r = {
		.req = { .op = AIO_READ, .fd = f->fd, .offset = 777, .nr_iov = 2 },
		.iov = { { p, 250 }, { p + 250, 151 } },
	};

	memset(a, 0xa1, sizeof(a));
	memset(b, 0xb2, sizeof(b));
	memset(c, 0xc3, sizeof(c));
	w.req.iov = w.iov;
	r.req.iov = r.iov;
	submit(f, &w);
	assert_int_equal(finish(f, &w), 401);
	assert_int_equal(pread(f->fd, got, sizeof(got), 776), sizeof(got));
	assert_int_equal(got[0], pattern(776));
	assert_memory_equal(p, a, sizeof(a));
	assert_memory_equal(p + 100, b, sizeof(b));
	assert_memory_equal(p + 101, c, sizeof(c));
	assert_int_equal(got[402], pattern(777 + 401));
	memset(got, 0, sizeof(got));
	submit(f, &r);
	assert_int_equal(finish(f, &r), 401);
	assert_memory_equal(p, a, sizeof(a));
	assert_memory_equal(p + 100, b, sizeof(b));
	assert_memory_equal(p + 101, c, sizeof(c));
	assert_int_equal(got[0] + got[402], 0);
}

static void test_far_offset(void **state)
{
	struct fixture *f = ready(state);
	u8 out = 0x5a, in = 0;
	u64 far = 5 * GIB + 3;

	assert_int_equal(rw(f, AIO_WRITE, f->fd, far, &out, 1), 1);
	assert_int_equal(pread(f->fd, &in, 1, far), 1);
	assert_int_equal(in, out);
	assert_int_equal(rw(f, AIO_READ, f->fd, far, &in, 1), 1);
	assert_int_equal(in, out);
	assert_int_equal(rw(f, AIO_READ, f->fd, far - 1, &in, 1), 1);
	assert_int_equal(in, 0);
}

static void test_short_read(void **state)
{
	struct fixture *f = ready(state);
	u8 got[300];
	struct op r = {
		.req = { .op = AIO_READ, .fd = f->fd, .offset = FILE_LEN - 150, .nr_iov = 3 },
		.iov = { { got, 100 }, { got + 100, 100 }, { got + 200, 100 } },
	};

	memset(got, 0xee, sizeof(got));
	r.req.iov = r.iov;
	submit(f, &r);
	assert_int_equal(finish(f, &r), 150);
	for (int i = 0; i < 300; i++)
		assert_int_equal(got[i], i < 150 ? pattern(FILE_LEN - 150 + i) : 0xee);
	assert_int_equal(rw(f, AIO_READ, f->fd, FILE_LEN, got, 100), 0);
	assert_int_equal(rw(f, AIO_READ, f->fd, 1 * GIB, got, 100), 0);
}

static void test_short_write(void **state)
{
	struct fixture *f = ready(state);
	struct rlimit before, limit;
	u8 data[1000];
	int across, beyond;

	memset(data, 0x77, sizeof(data));
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	limit = (struct rlimit){ FILE_LEN + 300, before.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	across = rw(f, AIO_WRITE, f->fd, FILE_LEN - 200, data, sizeof(data));
	beyond = rw(f, AIO_WRITE, f->fd, FILE_LEN + 300, data, sizeof(data));
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(across, 500);
	assert_int_equal(beyond, -EFBIG);
}

static void test_fallocate(void **state)
{
	struct fixture *f = ready(state);
	struct op punch = { .req = { .op = AIO_FALLOCATE, .fd = f->fd, .offset = 1000, .len = 500,
				     .mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE } };
	struct op grow = { .req = { .op = AIO_FALLOCATE, .fd = f->fd, .offset = FILE_LEN,
				    .len = 100 } };
	struct op bad = { .req = { .op = AIO_FALLOCATE, .fd = f->read_only, .len = 100 } };
	struct op empty = { .req = { .op = AIO_FALLOCATE, .fd = f->fd } };
	struct stat st;
	u8 got[502];

	submit(f, &punch);
	assert_int_equal(finish(f, &punch), 0);
	assert_int_equal(pread(f->fd, got, sizeof(got), 999), sizeof(got));
	for (int i = 0; i < 502; i++)
		assert_int_equal(got[i], i == 0 || i == 501 ? pattern(999 + i) : 0);
	submit(f, &grow);
	assert_int_equal(finish(f, &grow), 0);
	assert_int_equal(fstat(f->fd, &st), 0);
	assert_int_equal(st.st_size, FILE_LEN + 100);
	submit(f, &bad);
	assert_int_equal(finish(f, &bad), -EBADF);
	submit(f, &empty);
	assert_int_equal(finish(f, &empty), -EINVAL);
}

static void test_errors(void **state)
{
	struct fixture *f = ready(state);
	int full = open("/dev/full", O_RDWR | O_CLOEXEC), dir = open("/tmp", O_RDONLY | O_CLOEXEC);
	int own_mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC), closed = dup(f->fd);
	u8 buf[16] = { 0 };

	assert_true(full >= 0 && dir >= 0 && own_mem >= 0 && closed >= 0);
	close(closed);
	assert_int_equal(rw(f, AIO_READ, own_mem, 0, buf, 16), -EIO);	/* nothing at NULL */
	assert_int_equal(rw(f, AIO_READ, closed, 0, buf, 16), -EBADF);
	assert_int_equal(rw(f, AIO_WRITE, closed, 0, buf, 16), -EBADF);
	assert_int_equal(rw(f, AIO_READ, -1, 0, buf, 16), -EBADF);
	assert_int_equal(rw(f, AIO_WRITE, f->read_only, 0, buf, 16), -EBADF);
	assert_int_equal(rw(f, AIO_READ, f->write_only, 0, buf, 16), -EBADF);
	assert_int_equal(rw(f, AIO_READ, dir, 0, buf, 16), -EISDIR);
	assert_int_equal(rw(f, AIO_WRITE, full, 0, buf, 16), -ENOSPC);
	/* After all that it still works, and none of them wrote. */
	assert_int_equal(rw(f, AIO_READ, f->read_only, 0, buf, 16), 16);
	for (int i = 0; i < 16; i++)
		assert_int_equal(buf[i], pattern(i));
	close(full);
	close(dir);
	close(own_mem);
}

static void test_interrupted(void **state)
{
	struct fixture *f = ready(state);
	u8 buf[16];

	store_release(&interruptions, 3);
	assert_int_equal(rw(f, AIO_READ, f->fd, 0, buf, 16), 16);
	assert_int_equal(load_acquire(&interruptions), 0);
}

/* --- many --------------------------------- */

/* More in one turn than a ring has entries, good and bad ones among each other. */
static void test_many(void **state)
{
	struct fixture *f = ready(state);
	struct op *op = calloc(MANY, sizeof(*op));
	u8 (*block)[BLOCK] = calloc(MANY, BLOCK);

	assert_true(op && block);
	for (int i = 0; i < MANY; i++) {
		memset(block[i], pattern(i), BLOCK);
		submit_rw(f, &op[i], AIO_WRITE, i % 7 ? f->fd : f->read_only, i * BLOCK, block[i],
			  BLOCK);
	}
	settle(f);
	for (int i = 0; i < MANY; i++) {
		assert_int_equal(op[i].nr_done, 1);
		assert_int_equal(op[i].res, i % 7 ? BLOCK : -EBADF);
	}
	memset(block, 0xee, MANY * BLOCK);
	for (int i = MANY - 1; i >= 0; i--)
		submit_rw(f, &op[i], AIO_READ, i % 7 ? f->fd : f->write_only, i * BLOCK, block[i],
			  BLOCK);
	settle(f);
	for (int i = 0; i < MANY; i++) {
		assert_int_equal(op[i].nr_done, 1);
		assert_int_equal(op[i].res, i % 7 ? BLOCK : -EBADF);
		for (int k = 0; k < BLOCK; k++)
			assert_int_equal(block[i][k], i % 7 ? pattern(i) : 0xee);
	}
	free(op);
	free(block);
}

static void test_many_backlogged(void **state)
{
	refuses_backlog = true;
	test_many(state);
	refuses_backlog = false;
}

/* One that waits does not hold up those that came after it. */
static void test_no_order(void **state)
{
	struct fixture *f = ready(state), other = { .aio = f->aio, .owner = f->owner };
	struct op slow[3];
	u8 byte[3], got[BLOCK];

	for (int i = 0; i < 3; i++)
		submit_rw(&other, &slow[i], AIO_READ, f->pipe[0], 0, &byte[i], 1);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(rw(f, AIO_READ, f->fd, i, got, BLOCK), BLOCK);
		assert_int_equal(got[0], pattern(i));
	}
	assert_int_equal(other.left, 3);
	assert_int_equal(write(f->pipe[1], "abc", 3), 3);
	assert_true(fake_turn_until(&f->fake, none_left, &other));
	for (int i = 0; i < 3; i++) {
		assert_int_equal(slow[i].nr_done, 1);
		assert_int_equal(slow[i].res, 1);
	}
	assert_int_equal(byte[0] + byte[1] + byte[2], 'a' + 'b' + 'c');
}

/* A request may be asked again from its own completion. */
static void again(struct aio_req *r, int res)
{
	struct op *o = container_of(r, struct op, req);

	done(r, res);
	if (o->res == 1 && o->nr_done < MANY) {
		r->offset++;
		submit(o->f, o);
	}
}

static void test_submit_from_done(void **state)
{
	struct fixture *f = ready(state);
	struct op op[8];
	u8 byte[8];

	for (int pass = 0; pass < 2; pass++) {
		for (int i = 0; i < 8; i++) {
			op[i] = (struct op){ .iov = { { &byte[i], 1 } } };
			op[i].req = (struct aio_req){ .op = AIO_READ, .fd = f->fd, .offset = i,
						      .iov = op[i].iov, .nr_iov = 1,
						      .done = again };
			submit(f, &op[i]);
		}
		if (pass)
			aio_drain(f->aio, &f->left);
		else
			settle(f);
		assert_int_equal(f->left, 0);
		for (int i = 0; i < 8; i++) {
			assert_int_equal(op[i].nr_done, MANY);
			assert_int_equal(byte[i], pattern(i + MANY - 1));
		}
	}
}

/* --- the end ------------------------------- */

static void *write_later(void *arg)
{
	return (void *)(intptr_t)write(((struct fixture *)arg)->pipe[1], "x", 1);
}

/* Drained: all are done, also those that the kernel makes wait, and none again later. */
static void test_drain(void **state)
{
	struct fixture *f = ready(state);
	struct op op[200], waiting;
	u8 buf[200], byte = 0;
	pthread_t writer;
	void *wrote;

	for (int round = 0; round < 10; round++) {
		submit_rw(f, &waiting, AIO_READ, f->pipe[0], 0, &byte, 1);
		for (int i = 0; i < 200; i++)
			submit_rw(f, &op[i], AIO_READ, f->fd, i + round, &buf[i], 1);
		if (round & 1)
			fake_turn(&f->fake);
		assert_int_equal(pthread_create(&writer, NULL, write_later, f), 0);
		aio_drain(f->aio, &f->left);
		assert_int_equal(f->left, 0);
		fake_settle(&f->fake);
		assert_int_equal(f->left, 0);
		assert_int_equal(pthread_join(writer, &wrote), 0);
		assert_int_equal((intptr_t)wrote, 1);
		assert_int_equal(waiting.nr_done, 1);
		assert_int_equal(waiting.res, 1);
		assert_int_equal(byte, 'x');
		for (int i = 0; i < 200; i++) {
			assert_int_equal(op[i].nr_done, 1);
			assert_int_equal(op[i].res, 1);
			assert_int_equal(buf[i], pattern(i + round));
		}
	}
	aio_drain(f->aio, &f->left);		/* nothing to wait for */
}

/* Nobody says when the kernel has memory again. */
static void test_refused_for_a_while(void **state)
{
	struct fixture *f = ready(state);
	struct op o;
	u8 byte;

	refusals = 3;
	submit_rw(f, &o, AIO_READ, f->fd, 7, &byte, 1);
	aio_drain(f->aio, &f->left);
	assert_int_equal(refusals, 0);
	assert_int_equal(o.res, 1);
	assert_int_equal(byte, pattern(7));
	refusals = 3;
	assert_int_equal(rw(f, AIO_READ, f->fd, 8, &byte, 1), 1);
	assert_int_equal(refusals, 0);
	assert_int_equal(byte, pattern(8));
}

/* Several users of one engine: a drain ends with its own count, and forgets nobody else. */
static void test_drain_of_one_among_two(void **state)
{
	struct fixture *f = ready(state), other = { .aio = f->aio, .owner = f->owner };
	struct op slow, op[50];
	u8 byte = 0, buf[50];

	submit_rw(&other, &slow, AIO_READ, f->pipe[0], 0, &byte, 1);
	for (int i = 0; i < 50; i++)
		submit_rw(f, &op[i], AIO_READ, f->fd, i, &buf[i], 1);
	aio_drain(f->aio, &f->left);
	assert_int_equal(f->left, 0);
	assert_int_equal(other.left, 1);
	assert_int_equal(write(f->pipe[1], "y", 1), 1);
	assert_true(fake_turn_until(&f->fake, none_left, &other));
	assert_int_equal(slow.nr_done, 1);
	assert_int_equal(byte, 'y');
	assert_false(other.wrong_place);
}

struct ping {
	struct op op;
	sem_t done;
	u8 byte;
};

static void pong(struct aio_req *r, int res)
{
	done(r, res);
	sem_post(&container_of(r, struct ping, op.req)->done);
}

static void ask(void *arg)
{
	struct ping *p = arg;

	p->op.f->owner = pthread_self();
	submit(p->op.f, &p->op);
}

/* A completion wakes a loop that has nothing else to do, whoever in the kernel
 * made it: room is made by another thread there, a pipe's reader is told. */
static void test_wakes_a_sleeping_loop(void **state)
{
	struct fixture *f = ready(state);
	struct ping p = { .op.f = f, .op.iov = { { &p.byte, 1 } } };

	assert_int_equal(sem_init(&p.done, 0, 0), 0);
	assert_int_equal(loop_start_thread(f->fake.p.io_loop, THREAD_IO, "test", NULL), 0);
	for (int i = 1; i <= 200; i++) {
		u8 byte = i;

		p.op.req = (struct aio_req){ .op = AIO_FALLOCATE, .fd = f->fd, .len = 1, .done = pong };
		if (i & 1)
			p.op.req = (struct aio_req){ .op = AIO_READ, .fd = f->pipe[0],
						     .iov = p.op.iov, .nr_iov = 1, .done = pong };
		loop_call(f->fake.p.io_loop, ask, &p);
		if (i & 1)
			assert_int_equal(write(f->pipe[1], &byte, 1), 1);
		while (sem_wait(&p.done))
			assert_int_equal(errno, EINTR);
		assert_int_equal(p.op.nr_done, i);
		assert_int_equal(p.op.res, i & 1);
		assert_int_equal(p.byte, (i - 1) | 1);
	}
	loop_stop_thread(f->fake.p.io_loop);
	sem_destroy(&p.done);
}

/* --- the engines themselves ------------------ */

static int find_ring(void)
{
	char path[40], what[64];

	for (int fd = 3; fd < 1024; fd++) {
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		n = readlink(path, what, sizeof(what) - 1);
		what[MAX(n, 0)] = 0;
		if (n > 0 && !strcmp(what, "anon_inode:[io_uring]"))
			return fd;
	}
	return -1;
}

/* A ring opens no file, and lets nobody say that it may: a filter of system calls does not see what it does. */
static void test_restricted(void **state)
{
	enum { UNREGISTER_FILES = 3 };

	ready(state);
	errno = 0;
	assert_int_equal(syscall(SYS_io_uring_register, find_ring(), UNREGISTER_FILES, NULL, 0), -1);
	assert_int_equal(errno, EACCES);
}

static void test_names(void **state)
{
	struct fixture *f = *state;
	struct aio *a = NULL;

	assert_int_equal(aio_new(&a, f->fake.p.io_loop, AIO_THREADS, NULL), 0);
	assert_string_equal(aio_engine_name(a), "threads");
	aio_free(a);
	assert_int_equal(aio_new(&a, f->fake.p.io_loop, AIO_AUTO, NULL), 0);
	if (!strcmp(aio_engine_name(a), "io_uring")) {
		aio_free(a);
		assert_int_equal(aio_new(&a, f->fake.p.io_loop, AIO_URING, NULL), 0);
		assert_string_equal(aio_engine_name(a), "io_uring");
	} else {
		assert_string_equal(aio_engine_name(a), "threads");
	}
	aio_free(a);
	aio_free(NULL);
}

static void test_out_of_fds(void **state)
{
	struct fixture *f = *state;
	struct rlimit before, none;
	struct err err = { 0 };
	struct aio *a = NULL;
	int rc;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = (struct rlimit){ 0, before.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	rc = aio_new(&a, f->fake.p.io_loop, AIO_AUTO, &err);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_int_equal(rc, -EMFILE);
	assert_int_equal(err.code, -EMFILE);
	assert_says(err.msg, "aio: ");
	assert_null(a);
	fake_settle(&f->fake);			/* it left nothing on the loop */
}

/* As container runtimes do. */
static int forbid_io_uring(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { ARRAY_SIZE(code), code };

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* Runs where a cmocka assert cannot: 0, or the line that went wrong. */
static int refused(struct fixture *f)
{
	struct err err = { 0 };
	struct aio *a = NULL;
	struct op o;
	u8 byte = 0;

	if (forbid_io_uring())
		return __LINE__;
	if (aio_new(&a, f->fake.p.io_loop, AIO_URING, &err) != -EPERM || a || err.code != -EPERM ||
	    !strstr(err.msg, "--aio threads"))
		return __LINE__;
	if (aio_new(&a, f->fake.p.io_loop, AIO_AUTO, &err) || strcmp(aio_engine_name(a), "threads"))
		return __LINE__;
	f->aio = a;
	submit_rw(f, &o, AIO_READ, f->fd, 7, &byte, 1);
	if (!fake_turn_until(&f->fake, none_left, f) || o.res != 1 || byte != pattern(7))
		return __LINE__;
	aio_free(a);
	return 0;
}

/* Without io_uring: an error for who insists, and for the others threads, said aloud.
 * There is no pool here when it forks: a copy of half a pool could start no other. */
static void test_refused(void **state)
{
	struct fixture *f = *state;
	char said[1024] = "";
	size_t len = 0;
	ssize_t n;
	pid_t child;
	int status;

	child = fork();
	assert_true(child >= 0);
	if (!child) {
		int line;

		dup2(f->pipe[1], STDERR_FILENO);
		line = refused(f);
		if (line)
			dprintf(STDERR_FILENO, "refused: line %d", line);
		_exit(!!line);
	}
	close(f->pipe[1]);
	f->pipe[1] = -1;
	while ((n = read(f->pipe[0], said + len, sizeof(said) - 1 - len)) > 0)
		len += n;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_string_equal(said,
			    "vmm: no io_uring here (Operation not permitted): disks use threads\n");
	assert_int_equal(status, 0);
}

#define THREADS(name) cmocka_unit_test_setup_teardown(name, setup_threads, teardown)
#define NONE(name) cmocka_unit_test_setup_teardown(name, setup_none, teardown)
#define URING(name) cmocka_unit_test_setup_teardown(name, setup_uring, teardown)
#define BOTH(name) THREADS(name), URING(name)

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_read_and_write), BOTH(test_far_offset), BOTH(test_short_read),
		BOTH(test_short_write), BOTH(test_fallocate),
		BOTH(test_errors), THREADS(test_interrupted), BOTH(test_many), URING(test_many_backlogged),
		BOTH(test_no_order), BOTH(test_submit_from_done), BOTH(test_drain),
		URING(test_refused_for_a_while),
		BOTH(test_drain_of_one_among_two), BOTH(test_wakes_a_sleeping_loop),
		cmocka_unit_test_setup_teardown(test_restricted, setup_uring, teardown),
		NONE(test_names), NONE(test_out_of_fds), NONE(test_refused),
	};

	signal(SIGXFSZ, SIG_IGN);	/* a write beyond the limit is an error, not the end */
	alarm(900);			/* a completion that never comes is the end */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
