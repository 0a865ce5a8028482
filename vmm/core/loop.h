/* loop.h: one thread of events: fds, timers and posted tasks. */
#pragma once
#include "vmm/core/base.h"
#include "vmm/core/err.h"
#include "vmm/core/thread.h"

struct loop;

/*
 * Handles are embedded in their owner; the callback finds it with container_of.
 * Embedded means: no allocation, and the owner's lifetime is the handle's.
 * Zeroed is stopped.
 */
struct watch {
	void (*ready)(struct watch *, u32 events);	/* EPOLLIN, EPOLLOUT, ... */
	struct loop *loop;	/* NULL while stopped */
	int fd;
	struct watch *next;	/* loop.c's own: fds that are always ready */
};

struct timer {
	void (*fire)(struct timer *);
	struct loop *loop;	/* NULL while stopped */
	u64 at_ns;
	struct timer *next;
};

struct task {
	void (*run)(struct task *);
	struct task *next;
	bool queued;
};

/* Runs on the owner before it sleeps: where batches are handed to the kernel.
 * True: something was done that may need another look before sleeping.  In the
 * order they were added. */
struct loop_hook {
	bool (*before_sleep)(struct loop_hook *);
	struct loop_hook *next;
};

/* The caller's thread becomes the owner when it calls loop_run. */
int  loop_new(struct loop **, struct err *) must_check;
void loop_free(struct loop *);			/* not running; NULL is allowed */
void loop_run(struct loop *);			/* until loop_stop */

/* Give the loop a thread of its own, of this kind, under this name. */
int  loop_start_thread(struct loop *, enum thread_kind, const char *name, struct err *) must_check;
void loop_stop_thread(struct loop *);		/* waits; idempotent */

/* Any thread.  A task posted again before it ran runs once. */
void loop_post(struct loop *, struct task *);
/* Run fn(arg) on the owner and wait for it; on the owner itself: just run it. */
void loop_call(struct loop *, void (*fn)(void *), void *arg);
void loop_stop(struct loop *);

/* Owner thread only, or before the loop runs. */
int  watch_start(struct watch *, struct loop *, int fd, u32 events) must_check;
/* Of a started one: other events.  With none it still hears EPOLLERR and EPOLLHUP. */
void watch_change(struct watch *, u32 events);
void watch_stop(struct watch *);	/* idempotent; no callback after this returns */
void timer_start(struct timer *, struct loop *, u64 delay_ns);	/* restarts */
void timer_stop(struct timer *);	/* idempotent */
void loop_unpost(struct loop *, struct task *);	/* one that nobody posts any more; idempotent */
void loop_add_hook(struct loop *, struct loop_hook *);
void loop_remove_hook(struct loop *, struct loop_hook *);

u64  now_ns(void);			/* CLOCK_MONOTONIC */
