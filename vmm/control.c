/* control.c: signals by signalfd on the control thread; no handler does work. */
#include "vmm/control.h"
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include "devices/chardev.h"
#include "vmm/commands.h"
#include "vmm/core/log.h"
#include "vmm/core/pager.h"

#define SECOND		1000000000ULL
#define AGAIN_NS	(5 * SECOND)
#define PRESS_NS	(3 * SECOND)

enum { PRESSES = 10 };			/* 30 s */

static sigset_t ours(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGTSTP);
	sigaddset(&set, SIGCONT);
	return set;
}

static const char *doomed;		/* a file that is not to outlive us */

/* Async-signal-safe. */
static void clear_up(void)
{
	terminal_restore();
	if (doomed)
		unlink(doomed);
}

/* Then the signal takes its course. */
static void crashed(int sig)
{
	clear_up();
	raise(sig);
}

/* What a mapped file had to give, and cannot any more: it is shorter now, or its disk failed. */
static void bereft(int sig, siginfo_t *info, void *context)
{
	(void)context;
	if (info->si_code != BUS_ADRERR) {
		signal(sig, SIG_DFL);
		crashed(sig);
		return;
	}
	clear_up();
	log_err("memory: a file that it comes from cannot be read any more: stopped; leave a "
		"snapshot's files as they are while a VM that was restored from it runs");
	_exit(EXIT_RUNTIME);
}

static void pages_lost(bool gone)
{
	clear_up();
	log_err("memory: the page fault handler %s, and the VM needs pages that it has: stopped",
		gone ? "is gone" : "does not answer");
	_exit(EXIT_RUNTIME);
}

static void die_neatly(int sig)
{
	struct sigaction sa = { .sa_handler = crashed, .sa_flags = SA_RESETHAND | SA_NODEFER };

	sigaction(sig, &sa, NULL);
}

void control_doom(const char *path)
{
	doomed = path;
}

void control_block_signals(void)
{
	static const int deadly[] = { SIGSEGV, SIGABRT, SIGILL, SIGFPE, SIGQUIT, SIGTRAP, SIGSYS,
				      SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGPWR,
				      SIGXCPU, SIGSTKFLT };
	sigset_t set = ours(), end = set;

	sigdelset(&end, SIGTSTP);
	sigdelset(&end, SIGCONT);
	for (unsigned i = 0; i < ARRAY_SIZE(deadly); i++)
		die_neatly(deadly[i]);
	sigaction(SIGBUS, &(struct sigaction){ .sa_sigaction = bereft, .sa_flags = SA_SIGINFO }, NULL);
	for (int sig = SIGRTMIN; sig <= SIGRTMAX; sig++)
		die_neatly(sig);
	pager_set_lost(pages_lost, &end);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGTTIN, SIG_IGN);
	signal(SIGTTOU, SIG_IGN);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

/* Again and again: a guest that boots does not feel the first. */
static void press(struct timer *t)
{
	struct control *c = container_of(t, struct control, patience);

	if (c->presses++ == PRESSES) {
		log_warn("the guest did not power off in 30 s after its power button was pressed: "
			 "stopped");
		if (c->resources->machine)
			machine_end(c->resources->machine, OUTCOME_STOPPED);
		return;
	}
	if (c->resources->machine)
		machine_press_power_button(c->resources->machine);
	timer_start(&c->patience, c->resources->main_loop, PRESS_NS);
}

static void terminate(struct control *c)
{
	u64 now = now_ns();

	if (!c->resources->machine) {
		loop_stop(c->resources->main_loop);
		return;
	}
	if (c->resources->config->signals_stop) {
		machine_end(c->resources->machine, OUTCOME_STOPPED);
		return;
	}
	if (c->presses && now - c->pressed_ns < AGAIN_NS) {
		log_warn("second signal: stopped");
		machine_end(c->resources->machine, OUTCOME_STOPPED);
		return;
	}
	c->pressed_ns = now;
	log_info("power button pressed (again within 5 s: stop at once)");
	if (c->presses)
		machine_press_power_button(c->resources->machine);
	else
		press(&c->patience);
}

static void signalled(struct watch *w, u32 events)
{
	struct control *c = container_of(w, struct control, watch);
	struct signalfd_siginfo info;

	(void)events;
	if (read(c->fd, &info, sizeof(info)) != sizeof(info))
		return;
	switch (info.ssi_signo) {
	case SIGTSTP:
		terminal_restore();
		raise(SIGSTOP);
		/* fall through */
	case SIGCONT:
		if (c->resources->serial)
			chardev_resume(c->resources->serial);
		if (c->resources->machine)
			machine_retry(c->resources->machine);
		break;
	default:
		terminate(c);
	}
}

int control_start(struct control *c, struct resources *r, struct err *err)
{
	sigset_t set = ours();
	int rc;

	*c = (struct control){ .resources = r };
	c->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (c->fd < 0)
		return err_set(err, -errno, "signals: %s", strerror(errno));
	c->watch.ready = signalled;
	c->patience.fire = press;
	rc = watch_start(&c->watch, r->main_loop, c->fd, EPOLLIN);
	return rc ? err_set(err, rc, "signals: %s", strerror(-rc)) : 0;
}

void control_stop(struct control *c)
{
	timer_stop(&c->patience);
	watch_stop(&c->watch);
	if (c->fd >= 0)
		close(c->fd);
}

void control_unblock_signals(void)
{
	sigset_t set = ours();

	die_neatly(SIGTERM);
	die_neatly(SIGINT);
	die_neatly(SIGHUP);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}
