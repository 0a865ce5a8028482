/* aio.h: file I/O that does not block the loop it was asked on. */
#pragma once
#include <sys/uio.h>
#include "vmm/core/base.h"
#include "vmm/core/err.h"
#include "vmm/core/loop.h"

struct aio;

enum aio_engine { AIO_AUTO, AIO_URING, AIO_THREADS };
enum aio_op { AIO_READ, AIO_WRITE, AIO_FALLOCATE, AIO_CALL };

/*
 * Embedded in the caller's request, who keeps it and the iovecs until done.
 * done runs on the loop, never inside aio_submit; res is the number of bytes
 * moved (it may be short), 0, or -errno.
 */
struct aio_req {
	enum aio_op op;
	int fd;
	u64 offset, len;		/* len, mode: AIO_FALLOCATE */
	int mode;
	const struct iovec *iov;
	int nr_iov;
	int (*call)(struct aio_req *);	/* AIO_CALL: on a thread that may block; its value is res */
	void (*done)(struct aio_req *, int res);
	int res;			/* aio.c's own */
	struct aio_req *next;
};

/*
 * io_uring where the host has it, else (or when asked) a few threads; AIO_AUTO
 * says in the log when it has to fall back.  The loop must not be running yet.
 */
int  aio_new(struct aio **, struct loop *, enum aio_engine, struct err *) must_check;
void aio_free(struct aio *);		/* nothing in flight, loop stopped; NULL is allowed */
const char *aio_engine_name(const struct aio *);	/* "io_uring", "threads" */

/* On the loop.  Requests of one turn go to the kernel together. */
void aio_submit(struct aio *, struct aio_req *);
/* On the loop: run completions until *count is 0. */
void aio_drain(struct aio *, const unsigned *count);
