/* loop_test.c: order of tasks and timers, calls across threads, watches. */
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include "tests/lib/test.h"
#include "vmm/core/loop.h"

static struct loop *loop;
static char order[32];

struct named { struct task task; struct timer timer; char name; };

static void note(char c)
{
	size_t n = strlen(order);

	order[n] = c;
	order[n + 1] = 0;
}

static void run_task(struct task *t) { note(container_of(t, struct named, task)->name); }
static void fire(struct timer *t) { note(container_of(t, struct named, timer)->name); }
static void stop_timer(struct timer *t) { (void)t; loop_stop(loop); }
static void stop_task(struct task *t) { (void)t; loop_stop(loop); }
static void on_call(void *arg) { *(pthread_t *)arg = pthread_self(); }

static int setup(void **state)
{
	(void)state;
	order[0] = 0;
	return loop_new(&loop, NULL);
}

static int teardown(void **state)
{
	(void)state;
	loop_free(loop);
	return 0;
}

static void test_tasks_in_order_and_once(void **state)
{
	struct named a = { .task.run = run_task, .name = 'a' }, b = a, c = a;
	struct task stop = { .run = stop_task };

	(void)state;
	b.name = 'b';
	c.name = 'c';
	loop_post(loop, &a.task);
	loop_post(loop, &b.task);
	loop_post(loop, &a.task);
	loop_post(loop, &c.task);
	loop_post(loop, &stop);
	loop_run(loop);
	assert_string_equal(order, "abc");
}

static struct task victim;
static void run_and_unpost(struct task *t) { run_task(t); loop_unpost(loop, &victim); }

/* Also of the turn that is under way. */
static void test_unpost_in_a_task(void **state)
{
	struct named a = { .task.run = run_and_unpost, .name = 'a' };
	struct named b = { .task.run = run_task, .name = 'b' };
	struct task stop = { .run = stop_task };

	(void)state;
	victim.run = run_and_unpost;
	loop_post(loop, &a.task);
	loop_post(loop, &victim);
	loop_post(loop, &b.task);
	loop_post(loop, &stop);
	loop_run(loop);
	assert_string_equal(order, "ab");
	assert_false(victim.queued);
}

static void test_unpost(void **state)
{
	struct named a = { .task.run = run_task, .name = 'a' }, b = a, c = a;
	struct task stop = { .run = stop_task };

	(void)state;
	b.name = 'b';
	c.name = 'c';
	loop_unpost(loop, &a.task);
	loop_post(loop, &a.task);
	loop_post(loop, &b.task);
	loop_post(loop, &c.task);
	loop_unpost(loop, &c.task);
	loop_unpost(loop, &a.task);
	loop_post(loop, &c.task);
	loop_post(loop, &a.task);
	loop_unpost(loop, &b.task);
	loop_post(loop, &stop);
	loop_run(loop);
	assert_string_equal(order, "ca");
}

static void test_timers_by_time(void **state)
{
	struct named a = { .timer.fire = fire, .name = 'a' }, b = a, c = a;
	struct timer stop = { .fire = stop_timer };

	(void)state;
	b.name = 'b';
	c.name = 'c';
	timer_start(&stop, loop, 3000);
	timer_start(&b.timer, loop, 2000);
	timer_start(&a.timer, loop, 0);
	timer_start(&c.timer, loop, 1000);
	timer_stop(&c.timer);
	timer_stop(&c.timer);
	stop.at_ns = b.timer.at_ns;
	timer_stop(&stop);
	timer_start(&stop, loop, 1000000);
	loop_run(loop);
	assert_string_equal(order, "ab");
	assert_null(b.timer.loop);
}

static void test_call_runs_on_the_owner(void **state)
{
	pthread_t who = pthread_self(), none;

	(void)state;
	memset(&none, 0, sizeof(none));
	who = none;
	loop_call(loop, on_call, &who);			/* not running: here */
	assert_true(pthread_equal(who, pthread_self()));
	assert_int_equal(loop_start_thread(loop, THREAD_IO, "test", NULL), 0);
	loop_call(loop, on_call, &who);
	assert_false(pthread_equal(who, pthread_self()));
	loop_stop_thread(loop);
	loop_stop_thread(loop);
}

struct bell { struct task task; u64 asked, seen; };

static void answer(struct task *t)
{
	struct bell *b = container_of(t, struct bell, task);

	store_once(&b->seen, load_once(&b->asked));
	for (int i = 0; i < 200; i++)
		compiler_barrier();
}

static void do_nothing(void *arg) { (void)arg; }

/* What was said before a post is known to a run that begins after it, also when the task
 * is just being run for the post before.  A call comes after what was posted before it. */
static void test_posted_while_it_begins(void **state)
{
	struct bell b = { .task.run = answer };

	(void)state;
	assert_int_equal(loop_start_thread(loop, THREAD_IO, "test", NULL), 0);
	for (u64 n = 1, wait = 0; n < 160000; n++, wait = (wait + 61) % 4096) {
		store_once(&b.asked, n);
		loop_post(loop, &b.task);
		for (u64 i = 0; i < wait; i++)
			compiler_barrier();
		if (n % 8)
			continue;
		loop_call(loop, do_nothing, NULL);
		assert_int_equal(load_once(&b.seen), n);
	}
	loop_stop_thread(loop);
}

struct pair { struct watch a, b; int fired; };
static struct pair pair;

static void stop_other(struct watch *w, u32 events)
{
	assert_true(events & EPOLLIN);
	watch_stop(w == &pair.a ? &pair.b : &pair.a);
	pair.fired++;
	loop_stop(loop);
}

/* A watch stopped by another of the same turn is not called any more. */
static void test_watch_stopped_in_a_callback(void **state)
{
	int fd[2] = { eventfd(1, EFD_CLOEXEC), eventfd(1, EFD_CLOEXEC) };

	(void)state;
	pair = (struct pair){ .a.ready = stop_other, .b.ready = stop_other };
	assert_int_equal(watch_start(&pair.a, loop, fd[0], EPOLLIN), 0);
	assert_int_equal(watch_start(&pair.b, loop, fd[1], EPOLLIN), 0);
	loop_run(loop);
	assert_int_equal(pair.fired, 1);
	watch_stop(&pair.a);
	watch_stop(&pair.b);
	close(fd[0]);
	close(fd[1]);
	assert_true(watch_start(&pair.a, loop, -1, EPOLLIN) < 0);
}

static void count(struct watch *w, u32 events)
{
	(void)events;
	container_of(w, struct pair, a)->fired++;
}

/* Other events from now on; with none it stays quiet, and is not forgotten. */
static void test_watch_changed(void **state)
{
	struct timer stop = { .fire = stop_timer };
	int fd = eventfd(1, EFD_CLOEXEC);

	(void)state;
	pair = (struct pair){ .a.ready = count };
	assert_int_equal(watch_start(&pair.a, loop, fd, 0), 0);
	for (int turn = 0; turn < 3; turn++) {
		watch_change(&pair.a, turn == 1 ? EPOLLIN : 0);
		timer_start(&stop, loop, 0);
		loop_run(loop);
		assert_int_equal(pair.fired, turn > 0);
	}
	watch_stop(&pair.a);
	close(fd);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_tasks_in_order_and_once), T(test_unpost), T(test_unpost_in_a_task), T(test_timers_by_time),
		T(test_call_runs_on_the_owner), T(test_posted_while_it_begins),
		T(test_watch_stopped_in_a_callback), T(test_watch_changed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
