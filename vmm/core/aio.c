/* aio.c: io_uring, or a pool of threads where the host refuses it. */
#include "vmm/core/aio.h"
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "vmm/core/log.h"
#include "vmm/core/thread.h"

enum { RING_ENTRIES = 128, POOL_THREADS = 4, STACK = 128 * 1024 };

struct aio_engine_ops {
	const char *name;
	void (*submit)(struct aio *, struct aio_req *);
	bool (*reap)(struct aio *);			/* true: something completed */
};

struct aio {
	struct loop *loop;
	const struct aio_engine_ops *ops;
	struct loop_hook hook;

	struct io_uring ring;
	struct watch ring_watch;
	unsigned unsubmitted;
	struct aio_req *taken, **last_taken;	/* off the ring, not yet done */

	pthread_mutex_t lock;		/* of what follows */
	pthread_cond_t work;
	struct aio_req *todo, **last_todo, *completed;
	int event_fd;			/* some are completed */
	struct watch watch;
	pthread_t thread[POOL_THREADS];
	int nr_threads, nr_idle, nr_todo;
	bool stop;
};

/* --- io_uring ------------------------------------------------------------- */

static void uring_flush(struct aio *a)
{
	while (a->unsubmitted) {
		int n = io_uring_submit(&a->ring);

		if (n > 0)
			a->unsubmitted -= n;
		else if (n != -EINTR)	/* EAGAIN, EBUSY: completions must be taken first */
			return;
	}
}

static bool uring_take(struct aio *a)
{
	struct io_uring_cqe *cqe;
	bool any = false;

	while (!io_uring_peek_cqe(&a->ring, &cqe)) {
		struct aio_req *r = io_uring_cqe_get_data(cqe);

		r->res = cqe->res;
		r->next = NULL;
		io_uring_cqe_seen(&a->ring, cqe);
		*a->last_taken = r;
		a->last_taken = &r->next;
		any = true;
	}
	return any;
}

/* As much as one system call moves; less is no error. */
static u32 piece_len(const struct aio_req *r)
{
	return (u32)MIN(r->iov->iov_len, GIB);
}

static void uring_submit(struct aio *a, struct aio_req *r)
{
	struct io_uring_sqe *sqe;

	while (!(sqe = io_uring_get_sqe(&a->ring))) {
		unsigned before = a->unsubmitted;

		uring_flush(a);
		/* An older Linux (5.10) takes nothing while it has completions that did not fit.
		 * They are taken here, but wait for their turn: done must not run in here. */
		if (a->unsubmitted == before && !uring_take(a))
			usleep(100);	/* the kernel is out of memory for requests */
	}
	switch (r->op) {
	case AIO_READ:
		/* A vector of one costs the kernel more than its only piece. */
		if (r->nr_iov == 1)
			io_uring_prep_read(sqe, r->fd, r->iov->iov_base, piece_len(r), r->offset);
		else
			io_uring_prep_readv(sqe, r->fd, r->iov, r->nr_iov, r->offset);
		break;
	case AIO_WRITE:
		if (r->nr_iov == 1)
			io_uring_prep_write(sqe, r->fd, r->iov->iov_base, piece_len(r), r->offset);
		else
			io_uring_prep_writev(sqe, r->fd, r->iov, r->nr_iov, r->offset);
		break;
	case AIO_FALLOCATE:
		io_uring_prep_fallocate(sqe, r->fd, r->mode, r->offset, r->len);
		break;
	case AIO_CALL:
		BUG_ON(true);
	}
	io_uring_sqe_set_data(sqe, r);
	a->unsubmitted++;
}

static bool uring_reap(struct aio *a)
{
	bool any;

	uring_flush(a);
	uring_take(a);
	any = a->taken;
	while (a->taken) {
		struct aio_req *r = a->taken;

		a->taken = r->next;
		if (!a->taken)
			a->last_taken = &a->taken;
		r->done(r, r->res);
	}
	return any;
}

static const struct aio_engine_ops uring_ops = {
	.name = "io_uring", .submit = uring_submit, .reap = uring_reap,
};

static void ring_ready(struct watch *w, u32 events)
{
	(void)events;
	uring_reap(container_of(w, struct aio, ring_watch));
}

/* It can do for nobody what the thread's own system calls could not: open files, connect. */
static int restrict_ring(struct io_uring *ring)
{
	static const u8 ops[] = { IORING_OP_READ, IORING_OP_READV, IORING_OP_WRITE, IORING_OP_WRITEV,
				  IORING_OP_FALLOCATE };
	struct io_uring_restriction r[ARRAY_SIZE(ops)] = { 0 };

	for (unsigned i = 0; i < ARRAY_SIZE(ops); i++) {
		r[i].opcode = IORING_RESTRICTION_SQE_OP;
		r[i].sqe_op = ops[i];
	}
	/* Debian 12's liburing.so lacks these two. */
	return syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_RESTRICTIONS, r, ARRAY_SIZE(r)) ||
	       syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) ?
		-errno : 0;
}

/* The ring itself is watched: what was reaped before the loop sleeps does not
 * wake it, as an eventfd would. */
static int uring_init(struct aio *a)
{
	int rc = io_uring_queue_init(RING_ENTRIES, &a->ring, IORING_SETUP_R_DISABLED);

	if (rc)
		return rc;
	a->ring_watch.ready = ring_ready;
	rc = restrict_ring(&a->ring);
	if (!rc)
		rc = watch_start(&a->ring_watch, a->loop, a->ring.ring_fd, EPOLLIN);
	if (rc) {
		io_uring_queue_exit(&a->ring);
		return rc;
	}
	a->ops = &uring_ops;
	return 0;
}

/* --- threads ---------------------------------------------------------------- */

static int perform(struct aio_req *r)
{
	ssize_t n = -1;

	if (r->op == AIO_CALL)
		return r->call(r);
	do {
		switch (r->op) {
		case AIO_READ:
			n = preadv(r->fd, r->iov, r->nr_iov, r->offset);
			break;
		case AIO_WRITE:
			n = pwritev(r->fd, r->iov, r->nr_iov, r->offset);
			break;
		case AIO_FALLOCATE:
			n = fallocate(r->fd, r->mode, r->offset, r->len);
			break;
		case AIO_CALL:
			BUG_ON(true);
		}
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : (int)n;
}

/* Under lock. */
static void complete(struct aio *a, struct aio_req *r, int res)
{
	u64 one = 1;
	ssize_t rc;

	r->res = res;
	r->next = a->completed;
	store_release(&a->completed, r);
	rc = write(a->event_fd, &one, sizeof(one));
	(void)rc;
}

static void *pool_main(void *arg)
{
	struct aio *a = arg;

	thread_begin(THREAD_POOL, "pool");
	pthread_mutex_lock(&a->lock);
	for (;;) {
		struct aio_req *r = a->todo;
		int res;

		if (!r && a->stop)
			break;
		if (!r) {
			a->nr_idle++;
			pthread_cond_wait(&a->work, &a->lock);
			a->nr_idle--;
			continue;
		}
		a->nr_todo--;
		a->todo = r->next;
		if (!a->todo)
			a->last_todo = &a->todo;
		pthread_mutex_unlock(&a->lock);
		res = perform(r);
		pthread_mutex_lock(&a->lock);
		complete(a, r, res);
	}
	pthread_mutex_unlock(&a->lock);
	return NULL;
}

/* Under lock.  One more, if those that there are have enough to do. */
static int pool_grow(struct aio *a)
{
	pthread_attr_t attr;
	int rc;

	if (a->nr_idle > a->nr_todo || a->nr_threads == POOL_THREADS)
		return 0;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK);
	rc = pthread_create(&a->thread[a->nr_threads], &attr, pool_main, a);
	pthread_attr_destroy(&attr);
	if (!rc)
		a->nr_threads++;
	return a->nr_threads ? 0 : -rc;
}

static void pool_submit(struct aio *a, struct aio_req *r)
{
	int rc;

	r->next = NULL;
	pthread_mutex_lock(&a->lock);
	rc = pool_grow(a);
	if (rc) {
		complete(a, r, rc);
	} else {
		*a->last_todo = r;
		a->last_todo = &r->next;
		a->nr_todo++;
		pthread_cond_signal(&a->work);
	}
	pthread_mutex_unlock(&a->lock);
}

static bool pool_reap(struct aio *a)
{
	struct aio_req *r;
	bool any;

	if (!load_acquire(&a->completed))
		return false;
	pthread_mutex_lock(&a->lock);
	r = a->completed;
	a->completed = NULL;
	pthread_mutex_unlock(&a->lock);
	any = r;
	while (r) {
		struct aio_req *next = r->next;

		r->done(r, r->res);
		r = next;
	}
	return any;
}

static void pool_stop(struct aio *a)
{
	pthread_mutex_lock(&a->lock);
	a->stop = true;
	pthread_cond_broadcast(&a->work);
	pthread_mutex_unlock(&a->lock);
	for (int i = 0; i < a->nr_threads; i++)
		pthread_join(a->thread[i], NULL);
}

static const struct aio_engine_ops pool_ops = {
	.name = "threads", .submit = pool_submit, .reap = pool_reap,
};

/* --- both --------------------------------------------------------------------- */

static bool reap(struct aio *a)
{
	bool any = a->ops->reap(a);

	/* Calls go to threads whatever the engine. */
	return (a->ops != &pool_ops && pool_reap(a)) || any;
}

static bool before_sleep(struct loop_hook *h)
{
	struct aio *a = container_of(h, struct aio, hook);

	/* Much completes at once: take it now, and what it led to, and save a trip
	 * through epoll. */
	while (reap(a))
		;
	return a->unsubmitted;
}

static void completions_ready(struct watch *w, u32 events)
{
	struct aio *a = container_of(w, struct aio, watch);
	u64 count;
	ssize_t rc = read(a->event_fd, &count, sizeof(count));

	(void)events, (void)rc;
	pool_reap(a);
}

int aio_new(struct aio **out, struct loop *loop, enum aio_engine engine, struct err *err)
{
	struct aio *a = calloc(1, sizeof(*a));
	int rc = -ENOSYS;

	if (!a)
		return err_set(err, -ENOMEM, "out of memory");
	a->loop = loop;
	pthread_mutex_init(&a->lock, NULL);
	pthread_cond_init(&a->work, NULL);
	a->last_todo = &a->todo;
	a->last_taken = &a->taken;
	a->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (a->event_fd < 0) {
		rc = -errno;
		goto fail;
	}
	if (engine != AIO_THREADS) {
		rc = uring_init(a);
		if (rc && engine == AIO_URING) {
			aio_free(a);
			return err_set(err, rc, "aio: this host refuses io_uring: %s; leave out "
				       "--aio or say --aio threads", strerror(-rc));
		}
		if (rc)
			log_info("no io_uring here (%s): disks use threads", strerror(-rc));
	}
	/* The threads come with the first request: none is there before a sandbox. */
	if (rc)
		a->ops = &pool_ops;
	a->watch.ready = completions_ready;
	rc = watch_start(&a->watch, loop, a->event_fd, EPOLLIN);
	if (rc)
		goto fail;
	a->hook.before_sleep = before_sleep;
	loop_add_hook(loop, &a->hook);
	*out = a;
	return 0;
fail:
	aio_free(a);
	return err_set(err, rc, "aio: %s", strerror(-rc));
}

void aio_free(struct aio *a)
{
	if (!a)
		return;
	if (a->hook.before_sleep)
		loop_remove_hook(a->loop, &a->hook);
	watch_stop(&a->watch);
	pool_stop(a);
	if (a->ops == &uring_ops) {
		watch_stop(&a->ring_watch);
		io_uring_queue_exit(&a->ring);
	}
	if (a->event_fd >= 0)
		close(a->event_fd);
	pthread_cond_destroy(&a->work);
	pthread_mutex_destroy(&a->lock);
	free(a);
}

const char *aio_engine_name(const struct aio *a)
{
	return a->ops->name;
}

void aio_submit(struct aio *a, struct aio_req *r)
{
	if (r->op == AIO_CALL)
		pool_submit(a, r);
	else
		a->ops->submit(a, r);
}

void aio_drain(struct aio *a, const unsigned *count)
{
	struct pollfd p[] = {
		{ .fd = a->event_fd, .events = POLLIN },
		{ .fd = a->ops == &uring_ops ? a->ring.ring_fd : -1, .events = POLLIN },
	};
	u64 news;
	ssize_t rc;

	while (*count) {
		if (reap(a))
			continue;
		/* What the kernel has no memory for nobody tells us to offer again. */
		poll(p, ARRAY_SIZE(p), a->unsubmitted ? 1 : -1);
		rc = read(a->event_fd, &news, sizeof(news));
		(void)rc;
	}
}
