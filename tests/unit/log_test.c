/* log_test.c: what stands in a line, which lines are written, and each in one piece. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
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

/* A guest cannot fill a log: its errors are said five times, and then only counted. */
static void test_guest_errors_are_limited(void **state)
{
	static const struct device_ops ops = { .kind = "test" };
	struct device dev;

	(void)state;
	device_init(&dev, &ops, "disk0");
	for (int i = 1; i <= 1000; i++) {
		char want[100] = "";

		device_guest_error(&dev, "number %d", i);
		if (i <= 5)
			snprintf(want, sizeof(want), "vmm: disk0: guest error: number %d%s\n", i,
				 i == 5 ? " (further ones are only counted)" : "");
		assert_string_equal(written(), want);
	}
	assert_int_equal(dev.guest_errors, 1000);
	device_fini(&dev);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_default), T(test_levels), T(test_each_has_its_level),
		T(test_debug_says_when_and_who), T(test_raw_terminal), T(test_long_lines_are_cut),
		T(test_names), T(test_threads_do_not_mix), T(test_guest_errors_are_limited),
	};

	alarm(60);	/* a line that is not written is the end */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
