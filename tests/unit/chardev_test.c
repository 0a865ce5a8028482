/* chardev_test.c: the far ends of a serial line: pipes, terminals, ptys, sockets; who is slow, or goes. */
#include "devices/chardev.h"
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include "devices/escape.h"
#include "tests/lib/fake.h"
#include "tests/lib/test.h"
#include "vmm/core/log.h"

enum { OUT_MAX = 64 * KIB, IN_MAX = 4096 };

static struct fake fake;
static struct chardev *line;
static struct err err;
static char path[64], spec[80];
static int nr_quits, nr_inputs, nr_rooms;

static void quit(void *arg) { ++*(int *)arg; }
static void input(void *arg) { ++*(int *)arg; }
static void room(void *arg) { (void)arg; nr_rooms++; }

static void user(bool there)
{
	struct chardev_user u = { .input = input, .room = room, .arg = &nr_inputs };

	chardev_set_user(line, there ? &u : NULL);
}

static void open_line(const char *what)
{
	if (chardev_open(&line, what, fake.p.io_loop, quit, &nr_quits, &err))
		fail_msg("%s", err.msg);
	user(true);
}

static int setup(void **state)
{
	(void)state;
	fake_init(&fake, MIB, -1);
	snprintf(path, sizeof(path), "/tmp/chardev-test-%d", getpid());
	unlink(path);
	snprintf(spec, sizeof(spec), "unix:%s", path);
	nr_quits = nr_inputs = nr_rooms = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	chardev_close(line);
	line = NULL;
	unlink(path);
	fake_fini(&fake);
	return 0;
}

static void write_text(const char *text)
{
	chardev_write(line, (const u8 *)text, strlen(text));
}

/* A terminal's other end has it a little later. */
struct text {
	int fd;				/* negative: the line itself */
	size_t len, want;
	char got[400];
};

static bool has_come(void *arg)
{
	struct text *t = arg;
	size_t room = sizeof(t->got) - 1 - t->len;
	ssize_t n = t->fd < 0 ? (ssize_t)chardev_read(line, (u8 *)t->got + t->len, room) :
				read(t->fd, t->got + t->len, room);

	t->len += MAX(n, 0);
	return t->len >= t->want;
}

/* What comes there is all of it text. */
static void assert_has(int fd, const char *text)
{
	struct text t = { .fd = fd, .want = strlen(text) };

	fake_settle(&fake);
	fake_turn_until(&fake, has_come, &t);
	assert_string_equal(t.got, text);
}

static void assert_reads(const char *text)
{
	assert_has(-1, text);
}

static bool has_quit(void *arg)
{
	(void)arg;
	return nr_quits;
}

/* Fills it: how much it took. */
static size_t fill(void)
{
	static u8 block[4096];
	size_t sent = 0, n;

	memset(block, 'f', sizeof(block));
	while ((n = MIN(chardev_room(line), sizeof(block)))) {
		chardev_write(line, block, n);
		sent += n;
		assert_true(sent < 64 * MIB);
	}
	return sent;
}

/* The kernel hands on to the other end in its own time, and has room then: until it has handed on all it ever will. */
static void fill_for_good(int other_end)
{
	enum { LINE_FULL = 4095 };
	int n;

	do {
		fill();
		fake_settle(&fake);
		assert_int_equal(ioctl(other_end, FIONREAD, &n), 0);
	} while (n < LINE_FULL);
	fill();
}

/* Takes out what is left, and counts. */
static size_t drain(int fd)
{
	static u8 got[65536];
	size_t sum = 0;
	ssize_t n;

	do {
		fake_settle(&fake);
		n = read(fd, got, sizeof(got));
		sum += MAX(n, 0);
	} while (n > 0);
	return sum;
}

/* --- opening ------------------------------------------------------------------------------------ */

static void refuse(const char *what, int code, const char *says)
{
	assert_int_equal(chardev_open(&line, what, fake.p.io_loop, quit, NULL, &err), code);
	assert_null(line);
	assert_true(!strncmp(err.msg, "serial: ", 8));
	assert_says(err.msg, says);
}

static void test_refused(void **state)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	char many[300] = "unix:";
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	(void)state;
	close(fd);
	refuse("file:/nowhere/at/all", -ENOENT, "/nowhere/at/all: No such file or directory");
	refuse("file:/tmp", -EISDIR, "/tmp: Is a directory");
	refuse(spec, -EADDRINUSE, "a file of that name that is no socket");
	assert_int_equal(access(path, F_OK), 0);	/* and it is still there */
	memset(many + 5, 'x', sizeof(many) - 6);
	refuse(many, -ENAMETOOLONG, "1 to 107 bytes");
	refuse("unix:", -ENAMETOOLONG, "1 to 107 bytes");
	refuse("unix:/nowhere/socket", -ENOENT, "No such file or directory");
	/* Another's is left to it; what one left that was killed is not. */
	unlink(path);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (void *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 1), 0);
	refuse(spec, -EADDRINUSE, "another socket of this VM has that name");
	close(fd);
	open_line(spec);
	assert_null(chardev_pty(line));
	chardev_leave(line);
	assert_int_equal(access(path, F_OK), -1);
	chardev_leave(line);
	chardev_leave(NULL);
	assert_null(chardev_pty(NULL));
}

/* --- pipes: standard input and output ------------------------------------------------------------- */

struct stdio {
	int saved[2];
	int far[2];			/* [0]: what is read there is our output; [1]: our input */
};

/* This program's own, for a while: cmocka's go on afterwards. */
static void take_stdio(struct stdio *s, int in, int out)
{
	fflush(stdout);
	for (int i = 0; i < 2; i++) {
		s->saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 10);
		assert_true(s->saved[i] >= 0);
	}
	assert_true(dup2(in, 0) == 0 && dup2(out, 1) == 1);
	close(in);
	if (out != in)
		close(out);
}

static void give_stdio(struct stdio *s)
{
	for (int i = 0; i < 2; i++) {
		assert_true(dup2(s->saved[i], i) == i);
		close(s->saved[i]);
	}
}

static void open_pipes(struct stdio *s)
{
	int in[2], out[2];

	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	s->far[0] = out[0];
	s->far[1] = in[1];
	assert_int_equal(fcntl(out[0], F_SETFL, O_NONBLOCK), 0);
	take_stdio(s, in[0], out[1]);
	open_line("stdio");
	/* Whoever shares them does not find them changed. */
	assert_int_equal(fcntl(0, F_GETFL) & O_NONBLOCK, 0);
	assert_int_equal(fcntl(1, F_GETFL) & O_NONBLOCK, 0);
	give_stdio(s);
}

static void close_far(struct stdio *s)
{
	close(s->far[0]);
	close(s->far[1]);
}

static void test_pipes(void **state)
{
	struct stdio s;

	(void)state;
	open_pipes(&s);
	write_text("hello");
	assert_has(s.far[0], "hello");
	/* Ctrl-A is of terminals. */
	assert_int_equal(write(s.far[1], "a\1x\1", 4), 4);
	assert_reads("a\1x\1");
	assert_int_equal(nr_inputs, 1);
	assert_int_equal(nr_quits, 0);
	/* What nobody asks for waits, and its user is told as soon as there is one. */
	user(false);
	assert_int_equal(write(s.far[1], "later", 5), 5);
	fake_settle(&fake);
	assert_int_equal(nr_inputs, 1);
	user(true);
	assert_int_equal(nr_inputs, 2);
	assert_reads("later");
	/* The end of its input is not the end of its output; and a reader's not that of the guest. */
	close(s.far[1]);
	assert_reads("");
	write_text("still here");
	assert_has(s.far[0], "still here");
	close(s.far[0]);
	write_text("nobody");
	fake_settle(&fake);
	assert_int_equal(chardev_room(line), OUT_MAX);
}

/* A guest that does not read: it waits in the pipe, all of it. */
static void test_input_waits(void **state)
{
	u8 got[1000], next = 0, text[20000];
	struct stdio s;
	size_t sum = 0, n;

	(void)state;
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = i % 251;
	open_pipes(&s);
	assert_int_equal(write(s.far[1], text, sizeof(text)), sizeof(text));
	for (int i = 0; i < 20; i++)
		fake_settle(&fake);
	assert_int_equal(nr_inputs, 1);
	while ((n = chardev_read(line, got, sizeof(got)))) {
		for (size_t i = 0; i < n; i++, next = (next + 1) % 251)
			assert_int_equal(got[i], next);
		sum += n;
		fake_settle(&fake);
	}
	assert_int_equal(sum, sizeof(text));
	close_far(&s);
}

/* A reader that does not: the line fills, says so, and goes on when there is room; nothing is lost. */
static void test_output_waits(void **state)
{
	struct stdio s;
	size_t sent;

	(void)state;
	open_pipes(&s);
	sent = fill();
	assert_true(sent > OUT_MAX);
	fake_settle(&fake);
	assert_int_equal(chardev_room(line), 0);
	assert_int_equal(nr_rooms, 0);
	assert_int_equal(drain(s.far[0]), sent);
	assert_int_equal(nr_rooms, 1);
	assert_int_equal(chardev_room(line), OUT_MAX);
	write_text("once more");
	assert_has(s.far[0], "once more");
	assert_int_equal(nr_rooms, 1);
	close_far(&s);
}

/* --- writers that wait ----------------------------------------------------------------------------- */

int __real_pthread_cond_wait(pthread_cond_t *, pthread_mutex_t *);
int __wrap_pthread_cond_wait(pthread_cond_t *, pthread_mutex_t *);

static int nr_waits;

int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
	__atomic_add_fetch(&nr_waits, 1, __ATOMIC_SEQ_CST);
	return __real_pthread_cond_wait(c, m);
}

/* Until a writer does; it has the lock till then. */
static void await_waiter(int before)
{
	while (load_once(&nr_waits) == before)
		sched_yield();
}

static void *late_writer(void *arg)
{
	chardev_write(line, (const u8 *)"late", 4);
	store_once((int *)arg, 1);
	return NULL;
}

/* hurry: what cannot be written is lost; swallow: nothing is, and nobody waits. */
static void test_hurry_and_swallow(void **state)
{
	int done = 0, waits = nr_waits;
	pthread_t thread;
	struct stdio s;
	size_t sent, sum;

	(void)state;
	open_pipes(&s);
	sent = fill();
	assert_int_equal(pthread_create(&thread, NULL, late_writer, &done), 0);
	await_waiter(waits);
	chardev_hurry(line, true);
	assert_int_equal(pthread_join(thread, NULL), 0);
	write_text("lost as well");
	chardev_hurry(line, false);
	waits = nr_waits;
	assert_int_equal(pthread_create(&thread, NULL, late_writer, &done), 0);
	await_waiter(waits);
	chardev_swallow(line, true);
	assert_int_equal(pthread_join(thread, NULL), 0);
	write_text("kept");
	chardev_swallow(line, false);
	/* It waits until the loop has made room. */
	done = 0;
	waits = nr_waits;
	assert_int_equal(pthread_create(&thread, NULL, late_writer, &done), 0);
	await_waiter(waits);
	assert_int_equal(load_once(&done), 0);
	sum = drain(s.far[0]);
	assert_true(sum > 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(done, 1);
	assert_int_equal(sum + drain(s.far[0]), sent + strlen("late") + strlen("kept") + strlen("late"));
	close_far(&s);
}

/* What was written before the end is there afterwards, however slow its reader is. */
static void *slow_reader(void *arg)
{
	struct pollfd p = { .fd = *(int *)arg, .events = POLLIN };
	static u8 got[1000];
	size_t sum = 0;
	ssize_t n;

	while (poll(&p, 1, -1) == 1 && (n = read(p.fd, got, sizeof(got))) > 0)
		sum += n;
	return (void *)sum;
}

static void test_closing_waits(void **state)
{
	pthread_t thread;
	struct stdio s;
	size_t sent;
	void *sum;

	(void)state;
	open_pipes(&s);
	sent = fill();
	assert_int_equal(pthread_create(&thread, NULL, slow_reader, &s.far[0]), 0);
	chardev_close(line);
	line = NULL;
	assert_int_equal(pthread_join(thread, &sum), 0);
	assert_int_equal((size_t)sum, sent);
	close_far(&s);
}

/* --- a terminal ------------------------------------------------------------------------------------- */

static void test_escape(void **state)
{
	static const struct { const char *typed, *left; unsigned orders; } row[] = {
		{ "plain", "plain", 0 }, { "a\1\1b", "a\1b", 0 }, { "\1x", "", ESCAPE_QUIT },
		{ "\1hxx", "xx", ESCAPE_HELP }, { "\1h\1x", "", ESCAPE_HELP | ESCAPE_QUIT },
		{ "1\1z2", "12", 0 }, { "end\1", "end", 0 }, { "x", "", ESCAPE_QUIT }, { "x", "x", 0 },
	};
	struct escape e = { 0 };
	unsigned orders;
	u8 buf[16];

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(row); i++) {
		memcpy(buf, row[i].typed, strlen(row[i].typed));
		assert_int_equal(escape_filter(&e, buf, strlen(row[i].typed), &orders), strlen(row[i].left));
		assert_memory_equal(buf, row[i].left, strlen(row[i].left));
		assert_int_equal(orders, row[i].orders);
	}
}

static bool is_raw(int fd)
{
	struct termios t;

	assert_int_equal(tcgetattr(fd, &t), 0);
	return !(t.c_lflag & (ICANON | ECHO | ISIG)) && t.c_cc[VMIN] == 1 && !t.c_cc[VTIME];
}

static int new_terminal(int *slave)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	char name[64];

	assert_true(master >= 0 && !grantpt(master) && !unlockpt(master));
	assert_int_equal(ptsname_r(master, name, sizeof(name)), 0);
	*slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(*slave >= 0);
	return master;
}

/* A shell's child: it has that terminal, in the foreground. */
static void use_terminal(int master, int slave)
{
	struct stdio s;

	assert_true(setsid() == getpid());
	assert_int_equal(ioctl(slave, TIOCSCTTY, 0), 0);
	take_stdio(&s, slave, fcntl(slave, F_DUPFD_CLOEXEC, 10));
	assert_false(is_raw(0));
	open_line("stdio");
	assert_true(is_raw(0));
	write_text("out");
	assert_has(master, "out");
	assert_int_equal(write(master, "in\3\1\1", 5), 5);
	assert_reads("in\3\1");
	/* The help is for who typed, and nothing of it for the guest. */
	assert_int_equal(write(master, "\1h", 2), 2);
	assert_has(master, escape_help);
	assert_reads("");
	assert_int_equal(nr_quits, 0);
	assert_int_equal(write(master, "\1x", 2), 2);
	assert_true(fake_turn_until(&fake, has_quit, NULL));
	assert_reads("");
	/* Stopped and continued; the shell had it in between. */
	terminal_restore();
	assert_false(is_raw(0));
	terminal_restore();
	chardev_resume(line);
	assert_true(is_raw(0));
	assert_int_equal(write(master, "again", 5), 5);
	assert_reads("again");
	chardev_leave(line);
	assert_false(is_raw(0));
	chardev_close(line);
	line = NULL;
	give_stdio(&s);
}

/* In a process of its own: a session has one terminal, and this one's is not to be taken. */
static void test_terminal(void **state)
{
	int slave, status, master = new_terminal(&slave);
	pid_t pid;

	(void)state;
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		alarm(60);
		signal(SIGHUP, SIG_IGN);
		use_terminal(master, slave);
		exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	close(master);
	close(slave);
}

/* One that is another session's is never made raw. */
static void test_not_our_terminal(void **state)
{
	int slave, master = new_terminal(&slave);
	struct stdio s;

	(void)state;
	take_stdio(&s, slave, fcntl(slave, F_DUPFD_CLOEXEC, 10));
	open_line("stdio");
	assert_false(is_raw(0));
	chardev_resume(line);
	assert_false(is_raw(0));
	write_text("x");
	assert_has(master, "x");
	chardev_close(line);
	line = NULL;
	give_stdio(&s);
	close(master);
}

/* --- a pty ------------------------------------------------------------------------------------------- */

int __real_epoll_wait(int, struct epoll_event *, int, int);
int __wrap_epoll_wait(int, struct epoll_event *, int, int);

static int nr_turns_with_events;

/* But for the task that ends a turn, which wakes the loop. */
int __wrap_epoll_wait(int fd, struct epoll_event *event, int max, int timeout)
{
	int n = __real_epoll_wait(fd, event, max, timeout);

	for (int i = 0; i < n; i++)
		nr_turns_with_events += event[i].data.ptr ? 1 : 0;
	return n;
}

static int open_other_end(void)
{
	int fd = open(chardev_pty(line), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

	assert_true(fd >= 0);
	fake_settle(&fake);
	return fd;
}

static void test_pty(void **state)
{
	int fd;

	(void)state;
	open_line("pty");
	assert_non_null(chardev_pty(line));
	write_text("before anybody came\n");
	fd = open_other_end();
	assert_true(!isatty(fd) || is_raw(fd));
	assert_has(fd, "before anybody came\n");
	assert_int_equal(write(fd, "\1x\r\n", 4), 4);
	assert_reads("\1x\r\n");
	assert_int_equal(nr_quits, 0);
	close(fd);
	fake_settle(&fake);
	fd = open_other_end();
	write_text("for the next\n");
	assert_has(fd, "for the next\n");
	close(fd);
	fake_settle(&fake);
}

/* Nobody is there, or went without reading: the guest is not held up, and nor is the end. */
static void test_pty_without_a_reader(void **state)
{
	int fd;

	(void)state;
	open_line("pty");
	for (int i = 0; i < 2 * OUT_MAX; i++)
		write_text("x");
	assert_int_equal(chardev_room(line), OUT_MAX);
	fd = open_other_end();
	assert_true(fill() >= OUT_MAX);
	assert_int_equal(chardev_room(line), 0);
	close(fd);
	fake_settle(&fake);
	assert_int_equal(chardev_room(line), OUT_MAX);
	assert_int_equal(nr_rooms, 1);
}

/* One that is killed closes all that it had at once. */
static void test_pty_opened_twice(void **state)
{
	int fd[2];

	(void)state;
	open_line("pty");
	for (int i = 0; i < 3; i++) {
		fd[0] = open_other_end();
		fd[1] = open_other_end();
		fill_for_good(fd[1]);
		assert_int_equal(chardev_room(line), 0);
		close(fd[0]);
		fake_settle(&fake);
		assert_int_equal(chardev_room(line), 0);	/* the other one is there still */
		fd[0] = open_other_end();
		close(fd[0]);
		close(fd[1]);
		fake_settle(&fake);
		assert_int_equal(chardev_room(line), OUT_MAX);
		assert_int_equal(nr_rooms, i + 1);
	}
}

/* While nobody has it the loop has nothing to do; who comes then is heard, to the last byte. */
static void test_pty_with_nobody(void **state)
{
	static u8 much[3 * 4096], got[sizeof(much)];
	size_t sum = 0;
	int fd;

	(void)state;
	memset(much, 'x', sizeof(much));
	open_line("pty");
	for (int i = 0; i < 5; i++) {
		fake_settle(&fake);
		nr_turns_with_events = 0;
		fake_settle(&fake);
		assert_int_equal(nr_turns_with_events, 0);
		fd = open_other_end();
		assert_int_equal(write(fd, "come and gone", 13), 13);
		close(fd);
		assert_reads("come and gone");
		fd = open_other_end();
		assert_true(!isatty(fd) || is_raw(fd));
		assert_int_equal(write(fd, "a", 1), 1);
		assert_reads("a");
		assert_int_equal(write(fd, "b", 1), 1);
		assert_reads("b");
		write_text("c");
		assert_has(fd, "c");
		close(fd);
	}
	/* More than the line holds, and than one read takes. */
	fd = open_other_end();
	for (size_t sent = 0; sent < sizeof(much) || sum < sizeof(much); fake_settle(&fake)) {
		ssize_t n = write(fd, much, sizeof(much) - sent);

		sent += MAX(n, 0);
		sum += chardev_read(line, got, sizeof(got));
	}
	assert_int_equal(sum, sizeof(much));
	close(fd);
}

/* As many as a host has terminals for. */
static void test_many_ptys(void **state)
{
	static struct chardev *many[150];

	(void)state;
	log_set_level(LOG_WARN);
	for (unsigned i = 0; i < ARRAY_SIZE(many); i++)
		if (chardev_open(&many[i], "pty", fake.p.io_loop, quit, &nr_quits, &err))
			fail_msg("%u: %s", i, err.msg);
	for (unsigned i = 0; i < ARRAY_SIZE(many); i++)
		chardev_close(many[i]);
	log_set_level(LOG_INFO);
}

/* It went while the end waited for it. */
static void test_pty_closes(void **state)
{
	int fd;

	(void)state;
	open_line("pty");
	fd = open_other_end();
	fill();
	assert_int_equal(chardev_room(line), 0);
	close(fd);
	chardev_close(line);
	line = NULL;
}

/* --- a socket ------------------------------------------------------------------------------------------ */

static int connect_client(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	assert_int_equal(connect(fd, (void *)&a, sizeof(a)), 0);
	fake_settle(&fake);
	return fd;
}

static void test_one_client(void **state)
{
	int fd, second;
	char c;

	(void)state;
	open_line(spec);
	write_text("to nobody");		/* and so it is not kept */
	fd = connect_client();
	second = connect_client();
	assert_has(second, "vmm: this serial line has a client already\r\n");
	assert_int_equal(read(second, &c, 1), 0);
	close(second);
	write_text("one");
	assert_has(fd, "one");
	close(fd);
	fake_settle(&fake);
	write_text("to nobody");
	fd = connect_client();
	write_text("two");
	assert_has(fd, "two");
	close(fd);
	fake_settle(&fake);
}

static bool is_let_in(void *arg)
{
	char c;

	write_text(".");
	return read(*(int *)arg, &c, 1) == 1;
}

/* There was no file for him: he is let in when there is. */
static void test_client_later(void **state)
{
	struct rlimit before, none;
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	(void)state;
	open_line(spec);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	assert_int_equal(connect(fd, (void *)&a, sizeof(a)), 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = (struct rlimit){ 0, before.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	fake_settle(&fake);
	assert_false(is_let_in(&fd));
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_true(fake_turn_until(&fake, is_let_in, &fd));
	close(fd);
	fake_settle(&fake);
}

/* A client that is gone while output waits for it: what waits is dropped, and the guest told. */
static void test_client_goes(void **state)
{
	int fd;

	(void)state;
	open_line(spec);
	fd = connect_client();
	assert_true(fill() >= OUT_MAX);
	fake_settle(&fake);
	assert_int_equal(nr_rooms, 0);
	close(fd);
	fake_settle(&fake);
	assert_int_equal(nr_rooms, 1);
	assert_int_equal(chardev_room(line), OUT_MAX);
	fd = connect_client();
	write_text("new");
	assert_has(fd, "new");
	close(fd);
	fake_settle(&fake);
}

/* A client that went with input left that the guest does not read, keeps nobody out. */
static void test_unread_client_goes(void **state)
{
	char much[3 * 4096];
	int fd;

	(void)state;
	open_line(spec);
	fd = connect_client();
	memset(much, 'x', sizeof(much));
	assert_int_equal(write(fd, much, sizeof(much)), sizeof(much));
	fake_settle(&fake);
	close(fd);
	fake_settle(&fake);
	fd = connect_client();
	write_text("for whom it may concern");
	assert_has(fd, "for whom it may concern");
	close(fd);
	fake_settle(&fake);
}

/* The limit is reached: said once, instead of a loop that never sleeps. */
static void test_no_more_files(void **state)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct rlimit old, none;

	(void)state;
	open_line(spec);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	assert_int_equal(connect(fd, (void *)&a, sizeof(a)), 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = (struct rlimit){ 0, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	fake_settle(&fake);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	fake_settle(&fake);
	write_text("x");
	assert_int_equal(read(fd, &(char){ 0 }, 1), -1);
	assert_int_equal(errno, EAGAIN);
	close(fd);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_refused), T(test_pipes), T(test_input_waits), T(test_output_waits),
		T(test_hurry_and_swallow), T(test_closing_waits), cmocka_unit_test(test_escape),
		T(test_terminal), T(test_not_our_terminal), T(test_pty), T(test_pty_without_a_reader),
		T(test_pty_opened_twice), T(test_pty_with_nobody), T(test_many_ptys), T(test_pty_closes), T(test_one_client), T(test_client_later), T(test_client_goes), T(test_unread_client_goes),
		T(test_no_more_files),
	};

	signal(SIGPIPE, SIG_IGN);
	alarm(120);		/* a writer that waits for ever is what is tested */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
