/* loop.c: epoll, an eventfd to be woken by, a timerfd, and a few lists. */
#include "vmm/core/loop.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#include "vmm/core/thread.h"

enum { BATCH = 32, STACK = 256 * 1024 };

struct loop {
	int epoll_fd, wake_fd, clock_fd;
	bool stop;
	pthread_t owner;		/* atomic */
	pthread_t thread;
	bool running, has_thread;
	enum thread_kind kind;		/* of that thread */
	char name[16];

	pthread_mutex_t lock;		/* of tasks */
	struct task *tasks, **last_task;
	struct task *turn;		/* the owner's: of the turn under way */

	struct timer *timers;		/* soonest first */
	struct watch clock;		/* the timerfd... */
	u64 clock_ns;			/* ...and for when it is set; 0: it is not */
	struct watch *always;		/* fds that epoll does not take: files */
	struct loop_hook *hooks;
	struct epoll_event event[BATCH];
	int nr_events;			/* of the turn under way */
};

u64 now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static bool on_owner(struct loop *l)
{
	return !load_acquire(&l->running) || pthread_equal(load_once(&l->owner), pthread_self());
}

static void clock_ready(struct watch *w, u32 events)
{
	struct loop *l = container_of(w, struct loop, clock);
	u64 count;
	ssize_t rc = read(l->clock_fd, &count, sizeof(count));

	(void)rc;
	(void)events;
	l->clock_ns = 0;	/* run_timers follows */
}

int loop_new(struct loop **out, struct err *err)
{
	struct loop *l = calloc(1, sizeof(*l));
	struct epoll_event e = { .events = EPOLLIN };

	if (!l)
		return err_set(err, -ENOMEM, "out of memory");
	pthread_mutex_init(&l->lock, NULL);
	l->last_task = &l->tasks;
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	l->clock_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	l->clock.ready = clock_ready;
	if (l->epoll_fd < 0 || l->wake_fd < 0 || l->clock_fd < 0 ||
	    epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->wake_fd, &e) ||
	    watch_start(&l->clock, l, l->clock_fd, EPOLLIN)) {
		int rc = -errno;

		loop_free(l);
		return err_set(err, rc, "event loop: %s", strerror(-rc));
	}
	*out = l;
	return 0;
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	BUG_ON(l->running);
	if (l->epoll_fd >= 0)
		close(l->epoll_fd);
	if (l->wake_fd >= 0)
		close(l->wake_fd);
	if (l->clock_fd >= 0)
		close(l->clock_fd);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

static void wake(struct loop *l)
{
	u64 one = 1;
	ssize_t rc = write(l->wake_fd, &one, sizeof(one));

	(void)rc;		/* EAGAIN: it is awake already */
}

static bool run_tasks(struct loop *l)
{
	struct task *t;

	if (!load_acquire(&l->tasks))	/* one posted now wakes the loop */
		return false;
	pthread_mutex_lock(&l->lock);
	l->turn = l->tasks;
	l->tasks = NULL;
	l->last_task = &l->tasks;
	pthread_mutex_unlock(&l->lock);
	while ((t = l->turn)) {
		l->turn = t->next;
		/* From here on it may be posted again, or its owner may be gone. */
		store_release(&t->queued, false);
		/* Pairs with the lock in loop_post: who finds it queued still, has said
		 * before whatever this run is to see. */
		full_barrier();
		t->run(t);
	}
	return true;
}

static void run_timers(struct loop *l)
{
	u64 now = l->timers ? now_ns() : 0;

	while (l->timers && l->timers->at_ns <= now) {
		struct timer *t = l->timers;

		timer_stop(t);
		t->fire(t);
	}
}

static bool run_hooks(struct loop *l)
{
	bool again = false;

	for (struct loop_hook *h = l->hooks; h; h = h->next)
		again |= h->before_sleep(h);
	return again;
}

/* Set anew only for what is sooner; to wake up once for a timer that was stopped, or put
 * off, is cheaper than to set it each time. */
static void set_clock(struct loop *l)
{
	u64 at = l->timers ? MAX(l->timers->at_ns, 1ULL) : 0;
	struct itimerspec t = { .it_value = { at / 1000000000, at % 1000000000 } };

	if (!at || (l->clock_ns && l->clock_ns <= at))
		return;
	timerfd_settime(l->clock_fd, TFD_TIMER_ABSTIME, &t, NULL);
	l->clock_ns = at;
}

static void run_watches(struct loop *l, int timeout_ms)
{
	int n = epoll_wait(l->epoll_fd, l->event, BATCH, timeout_ms);

	l->nr_events = MAX(n, 0);
	for (int i = 0; i < l->nr_events; i++) {
		struct watch *w = l->event[i].data.ptr;
		u64 count;

		if (w) {
			w->ready(w, l->event[i].events);
		} else if (l->event[i].events) {	/* not one that watch_stop struck out */
			ssize_t rc = read(l->wake_fd, &count, sizeof(count));

			(void)rc;
		}
	}
	l->nr_events = 0;
	/* One a turn: its callback may stop, or free, any of the others.  It goes to
	 * the end of the list, so that all have their turn. */
	if (l->always) {
		struct watch *w = l->always, **p = &l->always;

		l->always = w->next;
		while (*p)
			p = &(*p)->next;
		w->next = NULL;
		*p = w;
		w->ready(w, EPOLLIN | EPOLLOUT);
	}
}

void loop_run(struct loop *l)
{
	store_once(&l->owner, pthread_self());
	store_release(&l->running, true);
	while (!load_acquire(&l->stop)) {
		bool tasks = run_tasks(l), hooks = run_hooks(l);

		set_clock(l);
		run_watches(l, tasks || hooks || l->always ? 0 : -1);
		run_timers(l);
	}
	run_tasks(l);
	store_release(&l->stop, false);
	store_release(&l->running, false);
}

static void *thread_main(void *arg)
{
	struct loop *l = arg;

	thread_begin(l->kind, l->name);
	loop_run(l);
	return NULL;
}

int loop_start_thread(struct loop *l, enum thread_kind kind, const char *name, struct err *err)
{
	pthread_attr_t attr;
	int rc;

	l->kind = kind;
	strncpy(l->name, name, sizeof(l->name) - 1);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK);
	/* Tasks posted from here on wait for the thread; none may think itself owner. */
	l->running = true;
	rc = pthread_create(&l->thread, &attr, thread_main, l);
	pthread_attr_destroy(&attr);
	if (rc) {
		l->running = false;
		return err_set(err, -rc, "cannot start thread %s: %s", name, strerror(rc));
	}
	store_once(&l->owner, l->thread);
	l->has_thread = true;
	return 0;
}

void loop_stop_thread(struct loop *l)
{
	if (!l || !l->has_thread)
		return;
	loop_stop(l);
	pthread_join(l->thread, NULL);
	l->has_thread = false;
}

void loop_stop(struct loop *l)
{
	store_release(&l->stop, true);
	wake(l);
}

void loop_post(struct loop *l, struct task *t)
{
	bool first = false;

	pthread_mutex_lock(&l->lock);
	if (!load_acquire(&t->queued)) {
		t->queued = true;
		t->next = NULL;
		first = !l->tasks;
		store_release(l->last_task, t);
		l->last_task = &t->next;
	}
	pthread_mutex_unlock(&l->lock);
	if (first)
		wake(l);
}

static bool take_out(struct task **p, struct task *t)
{
	while (*p && *p != t)
		p = &(*p)->next;
	if (!*p)
		return false;
	store_release(p, t->next);
	return true;
}

void loop_unpost(struct loop *l, struct task *t)
{
	BUG_ON(!on_owner(l));
	pthread_mutex_lock(&l->lock);
	if (take_out(&l->turn, t) || take_out(&l->tasks, t))
		t->queued = false;
	for (l->last_task = &l->tasks; *l->last_task; )
		l->last_task = &(*l->last_task)->next;
	pthread_mutex_unlock(&l->lock);
}

struct call {
	struct task task;
	void (*fn)(void *);
	void *arg;
	pthread_mutex_t lock;
	pthread_cond_t done_cond;
	bool done;
};

static void run_call(struct task *t)
{
	struct call *c = container_of(t, struct call, task);

	c->fn(c->arg);
	pthread_mutex_lock(&c->lock);
	c->done = true;
	pthread_cond_signal(&c->done_cond);
	pthread_mutex_unlock(&c->lock);	/* the caller's stack may be gone after this */
}

void loop_call(struct loop *l, void (*fn)(void *), void *arg)
{
	struct call c = {
		.task.run = run_call, .fn = fn, .arg = arg,
		.lock = PTHREAD_MUTEX_INITIALIZER, .done_cond = PTHREAD_COND_INITIALIZER,
	};

	if (on_owner(l)) {
		fn(arg);
		return;
	}
	loop_post(l, &c.task);
	pthread_mutex_lock(&c.lock);
	while (!c.done)
		pthread_cond_wait(&c.done_cond, &c.lock);
	pthread_mutex_unlock(&c.lock);
}

int watch_start(struct watch *w, struct loop *l, int fd, u32 events)
{
	struct epoll_event e = { .events = events, .data.ptr = w };

	BUG_ON(!on_owner(l));
	watch_stop(w);
	w->fd = fd;
	if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &e)) {
		if (errno != EPERM)	/* EPERM: a file or /dev/null, never not ready */
			return -errno;
		w->next = l->always;
		l->always = w;
	}
	w->loop = l;
	return 0;
}

void watch_change(struct watch *w, u32 events)
{
	struct epoll_event e = { .events = events, .data.ptr = w };

	BUG_ON(!w->loop || !on_owner(w->loop));
	/* Fails for what epoll does not take, which is always ready. */
	epoll_ctl(w->loop->epoll_fd, EPOLL_CTL_MOD, w->fd, &e);
}

void watch_stop(struct watch *w)
{
	struct loop *l = w->loop;

	if (!l)
		return;
	BUG_ON(!on_owner(l));
	w->loop = NULL;
	for (struct watch **p = &l->always; *p; p = &(*p)->next)
		if (*p == w) {
			*p = w->next;
			return;
		}
	epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
	for (int i = 0; i < l->nr_events; i++)
		if (l->event[i].data.ptr == w)
			l->event[i] = (struct epoll_event){ 0 };
}

void timer_start(struct timer *t, struct loop *l, u64 delay_ns)
{
	struct timer **p = &l->timers;

	BUG_ON(!on_owner(l));
	timer_stop(t);
	t->at_ns = now_ns() + delay_ns;
	t->loop = l;
	while (*p && (*p)->at_ns <= t->at_ns)
		p = &(*p)->next;
	t->next = *p;
	*p = t;
}

void timer_stop(struct timer *t)
{
	if (!t->loop)
		return;
	BUG_ON(!on_owner(t->loop));
	for (struct timer **p = &t->loop->timers; *p; p = &(*p)->next)
		if (*p == t) {
			*p = t->next;
			break;
		}
	t->loop = NULL;
}

void loop_add_hook(struct loop *l, struct loop_hook *h)
{
	struct loop_hook **p = &l->hooks;

	while (*p)
		p = &(*p)->next;
	h->next = NULL;
	*p = h;
}

void loop_remove_hook(struct loop *l, struct loop_hook *h)
{
	for (struct loop_hook **p = &l->hooks; *p; p = &(*p)->next)
		if (*p == h) {
			*p = h->next;
			return;
		}
}
