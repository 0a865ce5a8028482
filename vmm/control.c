/* control.c: signals by signalfd on the control thread; no handler does work. */
#include "vmm/control.h"
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include "devices/chardev.h"
#include "vmm/core/log.h"

#define SECOND		1000000000ULL
#define AGAIN_NS	(5 * SECOND)
#define PATIENCE_NS	(30 * SECOND)

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

/* Async-signal-safe; then the signal takes its course. */
static void crashed(int sig)
{
	terminal_restore();
	raise(sig);
}

void control_block_signals(void)
{
	static const int crashes[] = { SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE, SIGQUIT };
	struct sigaction sa = { .sa_handler = crashed, .sa_flags = SA_RESETHAND | SA_NODEFER };
	sigset_t set = ours();

	for (unsigned i = 0; i < ARRAY_SIZE(crashes); i++)
		sigaction(crashes[i], &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGTTIN, SIG_IGN);
	signal(SIGTTOU, SIG_IGN);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static void out_of_patience(struct timer *t)
{
	struct control *c = container_of(t, struct control, patience);

	/* A guest may answer by rebooting: the next one was not asked. */
	if (!c->resources->machine || c->pressed_boot != c->resources->nr_boots)
		return;
	log_warn("the guest did not power off in 30 s after its power button was pressed: stopped");
	machine_end(c->resources->machine, OUTCOME_STOPPED);
}

static void terminate(struct control *c)
{
	bool again = c->pressed_boot == c->resources->nr_boots;
	u64 now = now_ns();

	if (!c->resources->machine)
		return;
	if (again && now - c->pressed_ns < AGAIN_NS) {
		log_warn("second signal: stopped");
		machine_end(c->resources->machine, OUTCOME_STOPPED);
		return;
	}
	if (!again)
		timer_start(&c->patience, c->resources->main_loop, PATIENCE_NS);
	c->pressed_ns = now;
	c->pressed_boot = c->resources->nr_boots;
	log_info("power button pressed (again within 5 s: stop at once)");
	machine_press_power_button(c->resources->machine);
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
		terminal_resume();
		break;
	case SIGCONT:
		terminal_resume();
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
	c->patience.fire = out_of_patience;
	rc = watch_start(&c->watch, r->main_loop, c->fd, EPOLLIN);
	return rc ? err_set(err, rc, "signals: %s", strerror(-rc)) : 0;
}

void control_stop(struct control *c)
{
	sigset_t set = ours();

	timer_stop(&c->patience);
	watch_stop(&c->watch);
	if (c->fd >= 0)
		close(c->fd);
	/* What is left to do may wait for somebody slow: then signals end us. */
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}
