/* log_test.c: what stands in a line, which lines are written, and each in one piece. */
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include "tests/lib/test.h"
#include "vmm/core/device.h"
#include "vmm/core/log.h"

enum { THREADS = 4, LINES = 200 };

static int saved, end;

/* stderr is a socket that keeps writes apart: what comes out of it is one each. */
static int setup(void **state)
{
	int fd[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd), 0);
	fflush(stderr);
	saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	assert_int_equal(dup2(fd[1], STDERR_FILENO), STDERR_FILENO);
	close(fd[1]);
	end = fd[0];
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	log_set_level(LOG_INFO);
	log_set_raw(false);
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(end);
	return 0;
}

/* The next write, or "" if there was none. */
static const char *written(void)
{
	static char line[2048];
	ssize_t n = recv(end, line, sizeof(line) - 1, MSG_DONTWAIT);

	line[MAX(n, 0)] = 0;
	return line;
}

/* First of all tests: nobody has set a level yet. */
static void test_default(void **state)
{
	(void)state;
	log_debug("no");
	log_info("yes");
	assert_string_equal(written(), "vmm: yes\n");
	assert_string_equal(written(), "");
}

static void test_levels(void **state)
{
	static const char *const name[] = { "err", "warn", "info", "debug" };

	(void)state;
	for (enum log_level max = LOG_ERR; max <= LOG_DEBUG; max++) {
		log_set_level(max);
		for (enum log_level level = LOG_ERR; level <= LOG_DEBUG; level++) {
			char text[32];
			const char *line;

			log_write(level, "line %d", level);
			line = written();
			snprintf(text, sizeof(text), "line %d\n", level);
			if (level > max) {
				assert_string_equal(line, "");
				continue;
			}
			assert_int_equal(strncmp(line, "vmm: ", 5), 0);
			assert_string_equal(line + strlen(line) - strlen(text), text);
			if (max == LOG_DEBUG)
				assert_says(line, name[level]);
			else
				assert_int_equal(strlen(line), 5 + strlen(text));
		}
	}
}

static void test_each_has_its_level(void **state)
{
	(void)state;
	log_set_level(LOG_ERR);
	log_warn("no");
	log_info("no");
	log_debug("no");
	log_err("%d%%", 50);
	assert_string_equal(written(), "vmm: 50%\n");
	assert_string_equal(written(), "");
	log_set_level(LOG_WARN);
	log_warn("yes");
	assert_string_equal(written(), "vmm: yes\n");
	log_info("no");
	log_set_level(LOG_INFO);
	log_info("yes");
	log_debug("no");
	assert_string_equal(written(), "vmm: yes\n");
	assert_string_equal(written(), "");
}

static void test_debug_says_when_and_who(void **state)
{
	char own[16], who[16], rest[16];
	u64 before = now_ns() / 1000, after, s, us;

	(void)state;
	log_set_level(LOG_DEBUG);
	assert_int_equal(pthread_getname_np(pthread_self(), own, sizeof(own)), 0);
	pthread_setname_np(pthread_self(), "fifteen-letters");
	log_debug("text");
	pthread_setname_np(pthread_self(), own);
	after = now_ns() / 1000;
	assert_int_equal(sscanf(written(), "vmm: %lu.%6lu %15s debug: %15s", &s, &us, who, rest),
			 4);
	assert_in_range(s * 1000000 + us, before, after);
	assert_string_equal(who, "fifteen-letters");
	assert_string_equal(rest, "text");
}

static void test_raw_terminal(void **state)
{
	(void)state;
	log_set_raw(true);
	log_err("stairs");
	assert_string_equal(written(), "vmm: stairs\r\n");
	log_set_raw(false);
	log_err("none");
	assert_string_equal(written(), "vmm: none\n");
}

/* Whatever does not fit is left out; what ends the line is not. */
static void test_long_lines_are_cut(void **state)
{
	static char text[3000];

	(void)state;
	for (int level = LOG_INFO; level <= LOG_DEBUG; level++)
		for (int raw = 0; raw <= 1; raw++) {
			size_t longest = 0;

			log_set_level(level);
			log_set_raw(raw);
			for (unsigned len = 500; len < sizeof(text); len += len < 700 ? 1 : 1000) {
				const char *eol = raw ? "\r\n" : "\n";
				const char *line;
				size_t n;

				memset(text, 'a', len);
				text[len] = 0;
				log_info("%s", text);
				line = written();
				n = strlen(line);
				assert_int_equal(strncmp(line, "vmm: ", 5), 0);
				assert_ptr_equal(strpbrk(line, "\r\n"), line + n - strlen(eol));
				assert_string_equal(line + n - strlen(eol), eol);
				assert_int_equal(line[n - strlen(eol) - 1], 'a');
				assert_string_equal(written(), "");
				assert_true(n >= longest);
				longest = n;
			}
			assert_in_range(longest, 600, 700);
		}
}

static void test_names(void **state)
{
	static const char *const name[] = { "err", "warn", "info", "debug" };
	static const char *const none[] = { "", "ERR", "error", "inf", "info ", "3" };
	enum log_level level;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(name); i++) {
		level = -1;
		assert_true(log_level_by_name(name[i], &level));
		assert_int_equal(level, i);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(none); i++) {
		level = 42;
		assert_false(log_level_by_name(none[i], &level));
		assert_int_equal(level, 42);
	}
}

static void *chatter(void *arg)
{
	for (int i = 0; i < LINES; i++)
		log_info("%d %03d %0*d", (int)(intptr_t)arg, i, 100 * (int)(intptr_t)arg + 1, 0);
	return NULL;
}

static void test_threads_do_not_mix(void **state)
{
	pthread_t thread[THREADS];
	int next[THREADS] = { 0 };

	(void)state;
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, chatter, (void *)(intptr_t)i), 0);
	for (int i = 0; i < THREADS * LINES; i++) {
		char line[2048], want[512];
		ssize_t n = recv(end, line, sizeof(line) - 1, 0);
		int who;

		assert_true(n > 0);
		line[n] = 0;
		assert_int_equal(sscanf(line, "vmm: %d", &who), 1);
		assert_in_range(who, 0, THREADS - 1);
		snprintf(want, sizeof(want), "vmm: %d %03d %0*d\n", who, next[who]++,
			 100 * who + 1, 0);
		assert_string_equal(line, want);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	assert_string_equal(written(), "");
}

/* --- what a guest can cause -------------------------------------------------------------------- */

enum { MINUTE_S = LOG_LIMIT_S };
#define S	1000000000ULL

static void test_limit(void **state)
{
	struct log_limit l = { 0 };
	u64 missed, at = 7 * S, before = log_suppressed();

	(void)state;
	for (unsigned left = LOG_LIMIT_LINES; left; left--) {
		assert_int_equal(log_allows(&l, at += S, &missed), left);
		assert_int_equal(missed, 0);
	}
	for (int i = 0; i < 100; i++)
		assert_int_equal(log_allows(&l, at, &missed), 0);
	at = 8 * S + MINUTE_S * S;		/* counted from the first line */
	assert_int_equal(log_allows(&l, at - 1, &missed), 0);
	assert_int_equal(log_allows(&l, at, &missed), LOG_LIMIT_LINES);
	assert_int_equal(missed, 101);
	assert_int_equal(log_suppressed() - before, 101);
	assert_int_equal(log_allows(&l, at + 1, &missed), LOG_LIMIT_LINES - 1);
	assert_int_equal(missed, 0);
}

/* Its errors are said five times, and then only counted; at the end, how many. */
static void test_guest_errors_are_limited(void **state)
{
	static const struct device_ops ops = { .kind = "test" };
	struct device dev = { 0 };

	(void)state;
	device_init(&dev, &ops, "disk0");
	for (int i = 1; i <= 1000; i++) {
		char want[100] = "";

		device_guest_error(&dev, "number %d", i);
		if (i <= 5)
			snprintf(want, sizeof(want), "vmm: disk0: guest error: number %d%s\n", i,
				 i == 5 ? " (further ones in this minute are only counted)" : "");
		assert_string_equal(written(), want);
	}
	assert_int_equal(dev.guest_errors, 1000);
	/* A minute later, as far as it knows. */
	dev.noise.since_ns -= MIN(dev.noise.since_ns, MINUTE_S * S) - 1;
	device_guest_error(&dev, "again");
	if (now_ns() > MINUTE_S * S) {		/* the host's clock began longer ago */
		assert_string_equal(written(), "vmm: disk0: 995 more guest errors before this\n");
		assert_string_equal(written(), "vmm: disk0: guest error: again\n");
		for (int i = 0; i < 10; i++)
			device_guest_error(&dev, "more");
		for (int i = 0; i < 4; i++)
			written();
	}
	device_fini(&dev);
	assert_says(written(), " more guest errors\n");
	assert_string_equal(written(), "");
}

/* --- files and JSON ----------------------------------------------------------------------------- */

static char file_path[] = "/tmp/vmm-log-test-XXXXXX";

static void to_file(void)
{
	struct err err = { 0 };
	int fd;

	close(mkstemp(strcpy(file_path, "/tmp/vmm-log-test-XXXXXX")));
	if (log_open_sink(file_path, &fd, &err))
		fail_msg("%s", err.msg);
	log_set_file(fd);
}

static const char *file_text(void)
{
	static char text[8192];
	FILE *file = fopen(file_path, "r");
	size_t n;

	assert_non_null(file);
	n = fread(text, 1, sizeof(text) - 1, file);
	text[n] = 0;
	fclose(file);
	return text;
}

static int file_teardown(void **state)
{
	log_set_file(STDERR_FILENO);
	log_set_format(LOG_TEXT);
	log_show_level(false);
	unlink(file_path);
	return teardown(state);
}

static void assert_is_now(const char *text)
{
	struct timespec now;	/* time() may be behind it: it goes on with the timer's ticks */
	struct tm tm = { 0 };
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	time_t then;

	if (!rest || *rest != '.' || strspn(rest + 1, "0123456789") != 6 || rest[7] != 'Z')
		fail_msg("'%s' begins with no time", text);
	then = timegm(&tm);
	clock_gettime(CLOCK_REALTIME, &now);
	assert_true(then <= now.tv_sec && now.tv_sec - then < 60);
}

static void test_file(void **state)
{
	const char *text;

	(void)state;
	to_file();
	log_show_level(true);
	log_warn("one");
	log_set_raw(true);		/* of the terminal, which this is not */
	log_info("two");
	text = file_text();
	assert_is_now(text);
	assert_string_equal(text + 27, strstr(text, " vmm: warn: one\n"));
	assert_says(text, " vmm: info: two\n");
	assert_null(strchr(text, '\r'));
	log_set_level(LOG_DEBUG);
	log_debug("three");
	assert_says(file_text(), " debug: three\n");
	assert_string_equal(written(), "");
}

static void test_no_such_file(void **state)
{
	struct err err = { 0 };
	int fd;

	(void)state;
	assert_int_equal(log_open_sink("/nonexistent/log", &fd, &err), -ENOENT);
	assert_says(err.msg, "/nonexistent/log: No such file");
}

/* What the message was, read by a library that knows JSON. */
static char *json_line(const char *level)
{
	json_t *o = json_loads(written(), 0, NULL);
	char *message;

	assert_non_null(o);
	assert_int_equal(json_object_size(o), 4);
	assert_is_now(json_string_value(json_object_get(o, "time")));
	assert_string_equal(json_string_value(json_object_get(o, "level")), level);
	assert_non_null(json_string_value(json_object_get(o, "thread")));
	message = strdup(json_string_value(json_object_get(o, "message")));
	json_decref(o);
	return message;
}

static void test_json(void **state)
{
	static const struct { const char *text, *want; } one[] = {
		{ "plain", "plain" }, { "a \"b\" \\c", "a \"b\" \\c" }, { "", "" },
		{ "line\nand\ttab\x1b", "line?and?tab?" }, { "gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f" },
		{ "\xe2\x82\xac \xf0\x9f\x90\xa7", "\xe2\x82\xac \xf0\x9f\x90\xa7" },
		{ "\xff|\xc3|\xc0\x80|\xed\xa0\x80|\xf4\x90\x80\x80|\xe0\x80\x80", "?|?|??|???|????|???" },
		{ "\xe2\x82", "??" },
	};

	(void)state;
	log_set_format(LOG_JSON);
	for (unsigned i = 0; i < ARRAY_SIZE(one); i++) {
		char *message;

		log_warn("%s", one[i].text);
		message = json_line("warn");
		assert_string_equal(message, one[i].want);
		free(message);
	}
	log_debug("no");
	assert_string_equal(written(), "");
}

/* All of it quoted, and more than there is room for: still one object in one line. */
static void test_json_is_cut(void **state)
{
	static const char *const unit[] = { "\"", "\\", "a", "\xc3\xbc", "\xf0\x9f\x90\xa7" };
	static char text[4000];

	(void)state;
	log_set_format(LOG_JSON);
	for (unsigned i = 0; i < ARRAY_SIZE(unit); i++) {
		char *message;

		*text = 0;
		for (unsigned n = 0; n + 5 < sizeof(text); n += strlen(unit[i]))
			strcpy(text + n, unit[i]);
		for (unsigned skip = 0; skip < 4; skip++) {
			log_info("%.*s%s", (int)skip, "xyz", text);
			message = json_line("info");
			assert_true(strlen(message) > 500);
			free(message);
		}
	}
}

static void test_format_names(void **state)
{
	enum log_format f = LOG_TEXT;

	(void)state;
	assert_true(log_format_by_name("json", &f) && f == LOG_JSON);
	assert_true(log_format_by_name("text", &f) && f == LOG_TEXT);
	assert_false(log_format_by_name("xml", &f));
}

/* --- no room ---------------------------------------------------------------------------------------- */

/* A disk that is full takes nothing, and a part of the last line; nobody waits, and
 * when there is room again, it is told what is missing. */
static void test_full_disk(void **state)
{
	struct rlimit old, little;
	u64 before = log_lost();
	const char *text;
	size_t len;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	to_file();
	log_info("first");
	len = strlen(file_text());
	getrlimit(RLIMIT_FSIZE, &old);
	little = (struct rlimit){ len + 10, old.rlim_max };
	setrlimit(RLIMIT_FSIZE, &little);
	for (int i = 0; i < 100; i++)
		log_info("lost");
	setrlimit(RLIMIT_FSIZE, &old);
	assert_int_equal(log_lost() - before, 100);
	log_info("second");
	text = file_text() + len;
	assert_int_equal(strcspn(text, "\n"), 10);	/* the part, with an end */
	assert_is_now(text + 11);
	assert_string_equal(text + 11 + 27, strstr(text, " vmm: second\n"));
	assert_says(text, " vmm: log: 100 lines before this could not be written\n");
	log_info("third");
	assert_null(strstr(strstr(file_text(), "third"), "could not"));
	assert_int_equal(log_lost() - before, 100);
}

/* A pipe that nobody reads from. */
static void test_full_pipe(void **state)
{
	char dir[] = "/tmp/vmm-log-test-XXXXXX", fifo[64], some[4097] = "";
	u64 before = log_lost();
	struct err err;
	int fd, reader;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(fifo, sizeof(fifo), "%s/fifo", dir);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	assert_int_equal(log_open_sink(fifo, &fd, &err), 0);
	log_set_file(fd);
	while (log_lost() - before < 10)
		log_info("%0500d", 0);
	reader = open(fifo, O_RDONLY | O_NONBLOCK);
	while (read(reader, some, sizeof(some) - 1) > 0)
		continue;
	memset(some, 0, sizeof(some));
	log_info("again");
	assert_true(read(reader, some, sizeof(some) - 1) > 0);
	assert_says(some, "again\n");
	assert_says(some, "10 lines before this");
	close(reader);
	unlink(fifo);
	rmdir(dir);
}

/* A pipe that nobody reads holds nobody up. */
static void test_patience(void **state)
{
	static char rest[1 << 20];
	int fd[2];
	u64 lost = log_lost();
	ssize_t n;

	(void)state;
	assert_int_equal(pipe2(fd, O_CLOEXEC), 0);
	assert_int_equal(fcntl(fd[1], F_SETFL, O_NONBLOCK), 0);
	while (write(fd[1], rest, sizeof(rest)) > 0)
		;
	assert_int_equal(fcntl(fd[1], F_SETFL, 0), 0);
	assert_int_equal(dup2(fd[1], STDERR_FILENO), STDERR_FILENO);
	log_set_patience(0);
	log_warn("lost");
	assert_int_equal(log_lost(), lost + 1);
	log_set_patience(10);
	log_warn("lost, too");
	assert_int_equal(log_lost(), lost + 2);
	assert_true(read(fd[0], rest, sizeof(rest)) > 0);
	log_set_patience(0);
	log_warn("read");
	log_set_patience(-1);
	n = read(fd[0], rest, sizeof(rest) - 1);
	assert_true(n > 0);
	rest[n] = 0;
	assert_string_equal(rest, "vmm: read\nvmm: log: 2 lines before this could not be written\n");
	close(fd[0]);
	close(fd[1]);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define F(name) cmocka_unit_test_setup_teardown(name, setup, file_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_default), T(test_patience), T(test_levels), T(test_each_has_its_level),
		T(test_debug_says_when_and_who), T(test_raw_terminal), T(test_long_lines_are_cut),
		T(test_names), T(test_threads_do_not_mix), T(test_guest_errors_are_limited),
		T(test_limit), F(test_file), T(test_no_such_file), F(test_json),
		F(test_json_is_cut), T(test_format_names), F(test_full_disk), F(test_full_pipe),
	};

	alarm(60);	/* a line that is not written is the end */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
