/*
 * loop.c: watches, timers and tasks are started, stopped and set off from outside and
 * from each other's callbacks.  What is stopped is not called; what is ready is, every
 * turn; a task runs once for each time it was posted, timers once and in order.
 */
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "tests/fuzz/lib/fuzz.h"
#include "vmm/core/loop.h"

enum { MOST = 6, NEVER_NS = 1U << 31 };

static struct fuzz *in;
static struct loop *loop;
static struct wired {
	struct watch watch;
	int fd;
	bool started, set;		/* set: the fd is readable */
	int called;
} wired[MOST];
static struct timed {
	struct timer timer;
	bool started, due;
	int order, called;
} timed[MOST];
static struct posted {
	struct task task;
	bool due;
	int called;
} posted[MOST];
static int next_order, last_order, depth;

static void act(void);

static void ready(struct watch *w, u32 events)
{
	struct wired *e = container_of(w, struct wired, watch);
	eventfd_t count;

	fuzz_check(e->started, "a watch was called that is stopped");
	fuzz_check(events & EPOLLIN && e->set, "a watch was called for nothing: %#x", events);
	e->called++;
	if (fuzz_u8(in) & 1) {
		fuzz_check(!eventfd_read(e->fd, &count), "nothing to read");
		e->set = false;
	}
	act();
}

static void fire(struct timer *t)
{
	struct timed *e = container_of(t, struct timed, timer);

	fuzz_check(e->started && e->due, "a timer fired that is not due");
	fuzz_check(e->order > last_order, "timer %d fired after %d", e->order, last_order);
	last_order = e->order;
	e->started = e->due = false;
	e->called++;
	act();
}

static void run(struct task *t)
{
	struct posted *e = container_of(t, struct posted, task);

	fuzz_check(e->due, "a task ran that was not posted");
	e->due = false;
	e->called++;
	act();
}

static void step(u8 b)
{
	struct wired *w = &wired[b % MOST];
	struct timed *t = &timed[b % MOST];

	switch (b >> 5) {
	case 0:
		fuzz_check(!watch_start(&w->watch, loop, w->fd, EPOLLIN), "watch_start");
		w->started = true;
		break;
	case 1:
		watch_stop(&w->watch);
		w->started = false;
		break;
	case 2:
		fuzz_check(!eventfd_write(w->fd, 1), "eventfd_write");
		w->set = true;
		break;
	case 3: case 4:
		t->due = b >> 5 == 3;
		t->order = next_order++;
		t->started = true;
		timer_start(&t->timer, loop, t->due ? 0 : NEVER_NS * 1000ULL);
		break;
	case 5:
		timer_stop(&t->timer);
		t->started = t->due = false;
		break;
	default:
		loop_post(loop, &posted[b % MOST].task);
		posted[b % MOST].due = true;
	}
}

/* In a callback: up to three steps, or everything would go on for ever. */
static void act(void)
{
	if (depth++ < 64)
		for (int n = fuzz_u8(in) & 3; n; n--)
			step(fuzz_u8(in));
}

static void stop_now(struct task *t)
{
	(void)t;
	loop_stop(loop);
}

static void turn(void)
{
	struct task stop = { .run = stop_now };
	bool due[MOST];

	depth = 0;
	for (int i = 0; i < MOST; i++) {
		due[i] = posted[i].due;
		wired[i].called = timed[i].called = posted[i].called = 0;
	}
	loop_post(loop, &stop);
	loop_run(loop);
	/* What it was asked before that it did, unless a callback took it back. */
	for (int i = 0; i < MOST; i++) {
		fuzz_check(!due[i] || posted[i].called, "task %d did not run", i);
		fuzz_check(!timed[i].due || timed[i].called || depth, "timer %d did not fire", i);
		fuzz_check(!wired[i].started || !wired[i].set || wired[i].called || depth,
			   "watch %d was not called", i);
	}
}

void fuzz_one(struct fuzz *f)
{
	in = f;
	fuzz_check(!loop_new(&loop, NULL), "no loop");
	memset(timed, 0, sizeof(timed));
	memset(posted, 0, sizeof(posted));
	next_order = 1;
	last_order = 0;
	for (int i = 0; i < MOST; i++) {
		int fd = wired[i].fd;
		eventfd_t count;

		if (!fd)
			fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		(void)!eventfd_read(fd, &count);
		wired[i] = (struct wired){ .watch.ready = ready, .fd = fd };
		timed[i].timer.fire = fire;
		posted[i].task.run = run;
	}
	while (f->left) {
		u8 b = fuzz_u8(f);

		if (b >= 0xf0)
			turn();
		else
			step(b);
	}
	turn();
	loop_free(loop);
}
