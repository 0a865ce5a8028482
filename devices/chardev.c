/* chardev.c: bytes in and out without ever blocking the loop. */
#include "devices/chardev.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>
#include "devices/escape.h"
#include "vmm/core/log.h"
#include "vmm/core/socket.h"

enum {
	CHUNK = 4096,
	OUT_MAX = 64 * 1024,
	IN_MAX = CHUNK,			/* a pipe can wait... */
	IN_MAX_TERMINAL = 4 << 20,	/* ...a paste must not hide the escape behind it */
};
#define LOOK_NS	500000000ULL		/* from the background, whether it is one still */
#define AGAIN_NS	100000000ULL		/* whether there are files for a client */

/* A queue of bytes that grows as needed. */
struct fifo {
	u8 *data;
	size_t start, len, room;
};

struct chardev {
	struct loop *loop;
	int in_fd, out_fd, listen_fd;
	bool discard;			/* "none", or nobody is connected */
	bool is_pty, is_terminal;
	bool out_is_socket;
	char pty[64];			/* the name of its other end */
	struct socket_file file;

	pthread_mutex_t lock;		/* of what follows */
	pthread_cond_t drained;
	struct fifo in, out;
	size_t in_max;
	bool hurry, swallow, user_waits_for_room;
	bool told;			/* that output is lost */
	bool told_of_client;		/* that one is not let in */

	struct watch in_watch, out_watch, aux_watch;
	struct task rearm;
	struct timer foreground, again;
	struct chardev_user user;
	struct escape escape;
	void (*quit)(void *);
	void *quit_arg;
};

/* --- queue of bytes -------------------------------------------------------------------- */

static bool fifo_make_room(struct fifo *f, size_t len)
{
	size_t room = MAX(f->room * 2, ALIGN_UP(f->len + len, (size_t)CHUNK));
	u8 *data;

	if (f->start && f->start + f->len + len > f->room) {
		memmove(f->data, f->data + f->start, f->len);
		f->start = 0;
	}
	if (f->len + len <= f->room)
		return true;
	data = realloc(f->data, room);
	if (!data)
		return false;
	f->data = data;
	f->room = room;
	return true;
}

static bool fifo_put(struct fifo *f, const u8 *buf, size_t len)
{
	if (!fifo_make_room(f, len))
		return false;
	memcpy(f->data + f->start + f->len, buf, len);
	f->len += len;
	return true;
}

static void fifo_drop(struct fifo *f, size_t len)
{
	f->start += len;
	f->len -= len;
	if (!f->len)
		f->start = 0;
}

/* --- the terminal ------------------------------------------------------------------------ */

static struct termios terminal_saved;
static int terminal_fd = -1;		/* the one that is raw, or was before a stop */
static bool terminal_is_raw;

static void terminal_make_raw(void)
{
	struct termios t = terminal_saved;

	/* In the background a change of modes would stop us. */
	if (terminal_fd < 0 || tcgetpgrp(terminal_fd) != getpgrp())
		return;
	cfmakeraw(&t);
	t.c_cc[VMIN] = 1;
	t.c_cc[VTIME] = 0;
	if (!tcsetattr(terminal_fd, TCSANOW, &t)) {
		terminal_is_raw = true;
		log_set_raw(true);
	}
}

void terminal_restore(void)
{
	if (!terminal_is_raw)
		return;
	terminal_is_raw = false;
	log_set_raw(false);
	tcsetattr(terminal_fd, TCSANOW, &terminal_saved);
}


/* --- output --------------------------------------------------------------------------------- */

/* A file of our own that does not wait; the flag on the one we were given would
 * be seen by everybody who shares it, after us too. */
static int reopen(int fd, int flags)
{
	char path[32];
	struct stat st;

	if (fstat(fd, &st) || !(S_ISFIFO(st.st_mode) || isatty(fd)))
		return dup(fd);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	fd = open(path, flags | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	return fd;
}

/* Nobody has the other end of it, or has it any more. */
static bool is_gone(int fd)
{
	struct pollfd p = { .fd = fd };

	return poll(&p, 1, 0) > 0;
}

static ssize_t put(struct chardev *c, const u8 *buf, size_t len)
{
	ssize_t n;

	if (c->discard)
		return len;
	do
		n = c->out_is_socket ? send(c->out_fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL) :
				   write(c->out_fd, buf, len);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	/* A pty that nobody looks at keeps the beginning, then forgets. */
	if (errno == EAGAIN)
		return c->is_pty && is_gone(c->out_fd) ? (ssize_t)len : 0;
	if (err_of_host(-errno) && !c->told) {
		c->told = true;
		log_warn("serial: %s; output is lost", strerror(errno));
	}
	return len;		/* gone for good: a closed pipe, a full disk */
}

static void flush_out(struct chardev *c)
{
	while (c->out.len) {
		ssize_t n = put(c, c->out.data + c->out.start, c->out.len);

		if (!n)
			return;
		fifo_drop(&c->out, n);
	}
}

/* Write what can be, and tell those who wait for room. */
static void move_out(struct chardev *c)
{
	bool tell;

	pthread_mutex_lock(&c->lock);
	flush_out(c);
	if (!c->out.len)
		watch_stop(&c->out_watch);
	tell = c->user_waits_for_room && c->out.len <= OUT_MAX / 2;
	if (tell)
		c->user_waits_for_room = false;
	pthread_cond_broadcast(&c->drained);
	pthread_mutex_unlock(&c->lock);
	if (tell && c->user.room)
		c->user.room(c->user.arg);
}

static void out_ready(struct watch *w, u32 events)
{
	(void)events;
	move_out(container_of(w, struct chardev, out_watch));
}

size_t chardev_room(struct chardev *c)
{
	size_t room;

	pthread_mutex_lock(&c->lock);
	room = c->out.len < OUT_MAX ? OUT_MAX - c->out.len : 0;
	if (room < 16)
		c->user_waits_for_room = true;
	pthread_mutex_unlock(&c->lock);
	return room;
}

void chardev_write(struct chardev *c, const u8 *buf, size_t len)
{
	pthread_mutex_lock(&c->lock);
	while (c->out.len >= OUT_MAX && !c->hurry && !c->swallow)
		pthread_cond_wait(&c->drained, &c->lock);
	if (!c->out.len) {
		ssize_t n = put(c, buf, len);

		buf += n;
		len -= n;
	}
	if (len && (c->out.len < OUT_MAX || c->swallow)) {
		fifo_put(&c->out, buf, len);
		loop_post(c->loop, &c->rearm);
	}
	pthread_mutex_unlock(&c->lock);
}

void chardev_hurry(struct chardev *c, bool hurry)
{
	pthread_mutex_lock(&c->lock);
	c->hurry = hurry;
	pthread_cond_broadcast(&c->drained);
	pthread_mutex_unlock(&c->lock);
}

void chardev_swallow(struct chardev *c, bool swallow)
{
	pthread_mutex_lock(&c->lock);
	c->swallow = swallow;
	pthread_cond_broadcast(&c->drained);
	pthread_mutex_unlock(&c->lock);
}

/* --- input ---------------------------------------------------------------------------------- */

/* What was typed: do what is for us; returns what is left for the guest. */
static size_t typed(struct chardev *c, u8 *buf, size_t len)
{
	unsigned orders;
	size_t n = escape_filter(&c->escape, buf, len, &orders);

	if (orders & ESCAPE_HELP)
		put(c, (const u8 *)escape_help, strlen(escape_help));
	if (orders & ESCAPE_QUIT)
		c->quit(c->quit_arg);
	return n;
}

static void client_gone(struct chardev *c)
{
	watch_stop(&c->in_watch);
	watch_stop(&c->out_watch);
	pthread_mutex_lock(&c->lock);
	c->discard = true;
	pthread_mutex_unlock(&c->lock);
	move_out(c);
	close(c->in_fd);
	close(c->out_fd);
	c->in_fd = c->out_fd = -1;
}

/* It has said all that it has to say, and may still listen: only its end counts now. */
static void client_silent(struct chardev *c)
{
	watch_stop(&c->in_watch);
	if (watch_start(&c->in_watch, c->loop, c->in_fd, 0))
		client_gone(c);
}

/* That nobody has it, a pty says without end.  So it is heard once, and then the first byte of who comes
 * next; for what is left to read the watch is told to look again. */
static u32 in_events(const struct chardev *c)
{
	return c->is_pty ? EPOLLIN | EPOLLET : EPOLLIN;
}

static void look_again(struct chardev *c)
{
	if (c->is_pty)
		watch_change(&c->in_watch, in_events(c));
}

static void in_ready(struct watch *w, u32 events)
{
	struct chardev *c = container_of(w, struct chardev, in_watch);
	u8 buf[CHUNK];
	bool holds;
	size_t room;
	ssize_t n;

	pthread_mutex_lock(&c->lock);
	room = c->in.len < c->in_max ? c->in_max - c->in.len : 0;
	holds = fifo_make_room(&c->in, MIN(room, sizeof(buf)));
	pthread_mutex_unlock(&c->lock);
	if (!holds) {
		look_again(c);	/* what is not read yet is not lost */
		return;
	}
	if (!room) {
		watch_stop(w);	/* chardev_read starts it again */
		return;
	}
	n = read(c->in_fd, buf, MIN(room, sizeof(buf)));
	if (n > 0 || (n < 0 && errno == EINTR))
		look_again(c);
	if (n < 0 && (errno == EAGAIN || errno == EINTR || c->is_pty))
		return;
	if (n <= 0 && c->listen_fd >= 0) {
		if (n || events & EPOLLHUP)
			client_gone(c);
		else
			client_silent(c);
		return;
	}
	if (n <= 0) {
		watch_stop(w);
		if (n && c->is_terminal) {	/* it is another's: we are in the background */
			timer_start(&c->foreground, c->loop, LOOK_NS);
			return;
		}
		close(c->in_fd);
		c->in_fd = -1;
		return;
	}
	if (c->is_terminal)
		n = typed(c, buf, n);
	if (!n)
		return;
	pthread_mutex_lock(&c->lock);
	fifo_put(&c->in, buf, n);
	pthread_mutex_unlock(&c->lock);
	if (c->user.input)
		c->user.input(c->user.arg);
}

size_t chardev_read(struct chardev *c, u8 *buf, size_t len)
{
	size_t n;
	bool was_full;

	pthread_mutex_lock(&c->lock);
	n = MIN(len, c->in.len);
	was_full = c->in.len >= c->in_max;
	if (n) {
		memcpy(buf, c->in.data + c->in.start, n);
		fifo_drop(&c->in, n);
	}
	pthread_mutex_unlock(&c->lock);
	if (was_full && n)
		loop_post(c->loop, &c->rearm);
	return n;
}

static void rearm(struct task *t)
{
	struct chardev *c = container_of(t, struct chardev, rearm);
	bool out, in;

	pthread_mutex_lock(&c->lock);
	out = c->out.len;
	in = c->in.len < c->in_max;
	pthread_mutex_unlock(&c->lock);
	if (out && !c->out_watch.loop && c->out_fd >= 0 &&
	    watch_start(&c->out_watch, c->loop, c->out_fd, EPOLLOUT))
		log_warn("serial: cannot watch its output");
	if (in && !c->in_watch.loop && c->in_fd >= 0 &&
	    watch_start(&c->in_watch, c->loop, c->in_fd, in_events(c)))
		log_warn("serial: cannot watch its input");
}

void chardev_set_user(struct chardev *c, const struct chardev_user *user)
{
	c->user = user ? *user : (struct chardev_user){ 0 };
	if (user && c->in.len)
		c->user.input(c->user.arg);
}

/* No signal says that the shell's fg made the terminal ours. */
static void look_for_foreground(struct timer *t)
{
	struct chardev *c = container_of(t, struct chardev, foreground);

	if (!terminal_is_raw)
		terminal_make_raw();
	if (terminal_is_raw)
		rearm(&c->rearm);
	else
		timer_start(t, c->loop, LOOK_NS);
}

void chardev_resume(struct chardev *c)
{
	if (c->is_terminal)
		look_for_foreground(&c->foreground);
}

/* --- kinds ------------------------------------------------------------------------------------- */

static int open_stdio(struct chardev *c, struct err *err)
{
	struct stat st;

	c->is_terminal = isatty(STDIN_FILENO);
	c->in_fd = reopen(STDIN_FILENO, O_RDONLY);
	c->out_fd = reopen(STDOUT_FILENO, O_WRONLY);
	/* Not ours to open (after su): then share what we were given. */
	if (c->in_fd < 0)
		c->in_fd = dup(STDIN_FILENO);
	if (c->out_fd < 0)
		c->out_fd = dup(STDOUT_FILENO);
	if (c->out_fd < 0)
		c->discard = true;
	c->out_is_socket = !fstat(c->out_fd, &st) && S_ISSOCK(st.st_mode);
	if (c->is_terminal) {
		c->in_max = IN_MAX_TERMINAL;
		if (tcgetattr(STDIN_FILENO, &terminal_saved))
			return err_set(err, -errno, "terminal: %s", strerror(errno));
		terminal_fd = STDIN_FILENO;
		chardev_resume(c);
	}
	return 0;
}

static int watch_aux(struct chardev *c, int fd, const char *path, struct err *err)
{
	int rc = watch_start(&c->aux_watch, c->loop, fd, EPOLLIN);

	return rc ? err_set(err, rc, "%s: %s", path, strerror(-rc)) : 0;
}

static int open_pty(struct chardev *c, struct err *err)
{
	struct termios t;
	int fd, rc;

	c->is_pty = true;
	c->in_fd = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (c->in_fd < 0 && errno == ENOENT)
		return err_set(err, -ENOENT, "pty: there is no /dev/ptmx here; in a jail use unix:PATH");
	if (c->in_fd < 0 || grantpt(c->in_fd) || unlockpt(c->in_fd) ||
	    ptsname_r(c->in_fd, c->pty, sizeof(c->pty)))
		return err_set(err, -errno, "pty: %s", strerror(errno));
	c->out_fd = dup(c->in_fd);	/* two watches want two of them */
	/* Its modes are set there, and stay; and a master says that nobody is there once somebody was. */
	fd = open(c->pty, O_RDWR | O_NOCTTY | O_CLOEXEC);
	rc = c->out_fd < 0 || fd < 0 || tcgetattr(fd, &t) ? -errno : 0;
	if (!rc) {
		cfmakeraw(&t);
		tcsetattr(fd, TCSANOW, &t);
		log_info("serial on %s", c->pty);
	}
	if (fd >= 0)
		close(fd);
	return rc ? err_set(err, rc, "%s: %s", c->pty, strerror(-rc)) : 0;
}

static int open_file(struct chardev *c, const char *path, struct err *err)
{
	c->out_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0644);
	if (c->out_fd < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	return 0;
}

static void accept_client(struct watch *w, u32 events)
{
	struct chardev *c = container_of(w, struct chardev, aux_watch);
	int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), out;

	(void)events;
	if (fd < 0 && errno != EAGAIN && err_of_host(-errno)) {
		if (!c->told_of_client)
			log_warn("serial: no client can be let in for now: %s", strerror(errno));
		c->told_of_client = true;
		watch_stop(w);
		timer_start(&c->again, c->loop, AGAIN_NS);
	}
	if (fd < 0)
		return;
	c->told_of_client = false;
	/* While there is no room for its input no watch says so. */
	if (c->in_fd >= 0 && is_gone(c->in_fd))
		client_gone(c);		/* what the guest has not read of it is lost */
	if (c->in_fd >= 0) {
		static const char busy[] = "vmm: this serial line has a client already\r\n";

		(void)!send(fd, busy, sizeof(busy) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
		close(fd);
		return;
	}
	out = dup(fd);		/* two watches want two of them */
	if (out < 0) {
		close(fd);
		return;
	}
	c->in_fd = fd;
	pthread_mutex_lock(&c->lock);
	c->out_fd = out;
	c->discard = false;
	pthread_mutex_unlock(&c->lock);
	rearm(&c->rearm);
}

static void listen_again(struct timer *t)
{
	struct chardev *c = container_of(t, struct chardev, again);

	if (watch_start(&c->aux_watch, c->loop, c->listen_fd, EPOLLIN))
		timer_start(t, c->loop, AGAIN_NS);
}

static int open_socket(struct chardev *c, const char *path, struct err *err)
{
	int rc = socket_listen(path, &c->listen_fd, err);

	c->out_is_socket = true;
	c->discard = true;
	if (rc)
		return rc;
	socket_file_note(&c->file, path);
	c->aux_watch.ready = accept_client;
	return watch_aux(c, c->listen_fd, path, err);
}

int chardev_open(struct chardev **out, const char *spec, struct loop *loop, void (*quit)(void *),
		 void *quit_arg, struct err *err)
{
	struct chardev *c = calloc(1, sizeof(*c));
	int rc = 0;

	if (!c)
		return err_set(err, -ENOMEM, "serial: out of memory");
	c->in_fd = c->out_fd = c->listen_fd = -1;
	c->loop = loop;
	c->in_max = IN_MAX;
	c->quit = quit;
	c->quit_arg = quit_arg;
	c->in_watch.ready = in_ready;
	c->out_watch.ready = out_ready;
	c->rearm.run = rearm;
	c->foreground.fire = look_for_foreground;
	c->again.fire = listen_again;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->drained, NULL);
	if (!strcmp(spec, "stdio"))
		rc = open_stdio(c, err);
	else if (!strcmp(spec, "pty"))
		rc = open_pty(c, err);
	else if (!strncmp(spec, "file:", 5))
		rc = open_file(c, spec + 5, err);
	else if (!strncmp(spec, "unix:", 5))
		rc = open_socket(c, spec + 5, err);
	else
		c->discard = true;
	if (rc) {
		chardev_close(c);
		err_prefix(err, "serial: ");
		return rc;
	}
	rearm(&c->rearm);
	*out = c;
	return 0;
}

const char *chardev_pty(const struct chardev *c)
{
	return c && c->is_pty ? c->pty : NULL;
}

void chardev_leave(struct chardev *c)
{
	if (!c)
		return;
	timer_stop(&c->foreground);
	timer_stop(&c->again);
	watch_stop(&c->in_watch);
	watch_stop(&c->out_watch);
	watch_stop(&c->aux_watch);
	flush_out(c);
	if (c->is_terminal) {
		terminal_restore();
		terminal_fd = -1;
	}
	socket_file_remove(&c->file);
}

void chardev_close(struct chardev *c)
{
	if (!c)
		return;
	chardev_leave(c);
	loop_unpost(c->loop, &c->rearm);
	/* A reader that pauses gets the rest when it comes back. */
	while (c->out.len) {
		struct pollfd p = { .fd = c->out_fd, .events = POLLOUT };

		if (poll(&p, 1, -1) < 0 && errno != EINTR)
			break;
		flush_out(c);
	}
	if (c->in_fd >= 0)
		close(c->in_fd);
	if (c->out_fd >= 0)
		close(c->out_fd);
	if (c->listen_fd >= 0)
		close(c->listen_fd);
	free(c->in.data);
	free(c->out.data);
	pthread_cond_destroy(&c->drained);
	pthread_mutex_destroy(&c->lock);
	free(c);
}
