/* err_test.c: error messages: set, prefixed, cut to fit, and our own mistakes. */
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include "tests/lib/test.h"
#include "vmm/core/err.h"

enum { ROOM = sizeof(((struct err *)0)->msg) };

static char *of(char c, size_t len)
{
	static char text[2048];

	assert_true(len < sizeof(text));
	memset(text, c, len);
	text[len] = 0;
	return text;
}

/* Nothing behind the message may be touched. */
struct guarded {
	struct err err;
	u8 after[16];
};

static struct guarded fresh(void)
{
	struct guarded g;

	memset(&g, 0xee, sizeof(g));
	return g;
}

static void check_guard(const struct guarded *g)
{
	for (unsigned i = 0; i < sizeof(g->after); i++)
		assert_int_equal(g->after[i], 0xee);
	assert_non_null(memchr(g->err.msg, 0, ROOM));
}

static void test_set(void **state)
{
	struct guarded g = fresh();

	(void)state;
	assert_int_equal(err_set(&g.err, -ENOENT, "disk %d: %s", 7, "not there"), -ENOENT);
	assert_int_equal(g.err.code, -ENOENT);
	assert_string_equal(g.err.msg, "disk 7: not there");
	assert_int_equal(err_set(&g.err, -EIO, "%%"), -EIO);
	assert_int_equal(g.err.code, -EIO);
	assert_string_equal(g.err.msg, "%");
	check_guard(&g);
}

static void test_nobody_wants_to_know(void **state)
{
	(void)state;
	assert_int_equal(err_set(NULL, -ENOENT, "%s", "unheard"), -ENOENT);
	assert_true(err_prefix(NULL, "%s", "unheard") < 0);
	assert_true(err_suffix(NULL, "unheard") < 0);
}

static void test_prefixes_in_order(void **state)
{
	struct guarded g = fresh();

	(void)state;
	err_set(&g.err, -EINVAL, "100%% wrong");
	assert_int_equal(err_prefix(&g.err, "line %d: ", 3), -EINVAL);
	assert_int_equal(err_prefix(&g.err, "%s: ", "config a%sb"), -EINVAL);
	assert_string_equal(g.err.msg, "config a%sb: line 3: 100% wrong");
	assert_int_equal(g.err.code, -EINVAL);
	err_prefix(&g.err, "%s", "");
	assert_string_equal(g.err.msg, "config a%sb: line 3: 100% wrong");
	check_guard(&g);
}

static void test_long_message_is_cut(void **state)
{
	struct guarded g = fresh();

	(void)state;
	for (size_t len = ROOM - 2; len <= ROOM + 1; len++) {
		g = fresh();
		assert_int_equal(err_set(&g.err, -EIO, "%s", of('a', len)), -EIO);
		assert_int_equal(strlen(g.err.msg), MIN(len, ROOM - 1));
		assert_int_equal(g.err.msg[strlen(g.err.msg) - 1], 'a');
		check_guard(&g);
	}
}

/* A prefix says where: it is the end of the message that goes. */
static void test_prefix_cuts_the_end(void **state)
{
	static const size_t prefix[] = { 1, 2, 100, ROOM - 2, ROOM - 1, ROOM, 2000 };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(prefix); i++)
		for (size_t len = ROOM - 3; len < ROOM; len++) {
			struct guarded g = fresh();
			size_t a = MIN(prefix[i], ROOM - 1), b = MIN(len, ROOM - 1 - a);

			err_set(&g.err, -EIO, "%s", of('m', len));
			assert_int_equal(err_prefix(&g.err, "%s", of('p', prefix[i])), -EIO);
			assert_int_equal(strlen(g.err.msg), a + b);
			assert_memory_equal(g.err.msg, of('p', a), a);
			assert_memory_equal(g.err.msg + a, of('m', b), b);
			check_guard(&g);
		}
}

static void test_suffix_is_cut(void **state)
{
	(void)state;
	for (size_t len = ROOM - 6; len < ROOM; len++) {
		struct guarded g = fresh();

		err_set(&g.err, -EPERM, "%s", of('m', len));
		assert_int_equal(err_suffix(&g.err, "; 5%s"), -EPERM);
		assert_memory_equal(g.err.msg, of('m', len), len);
		assert_int_equal(strncmp(g.err.msg + len, "; 5%s", ROOM - 1 - len), 0);
		assert_int_equal(strlen(g.err.msg), MIN(len + 5, ROOM - 1));
		check_guard(&g);
	}
}

/* An error without a code is a bug of ours, and says where. */
static void test_success_is_no_error(void **state)
{
	static const int code[] = { 0, 1, ENOENT };
	char said[512];
	int fd[2], status;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(code); i++) {
		struct err err;
		ssize_t n;
		pid_t child;

		assert_int_equal(pipe2(fd, O_CLOEXEC), 0);
		child = fork();
		assert_true(child >= 0);
		if (!child) {
			signal(SIGABRT, SIG_DFL);
			dup2(fd[1], STDERR_FILENO);
			err_set(&err, code[i], "fine");
			_exit(0);
		}
		close(fd[1]);
		n = read(fd[0], said, sizeof(said) - 1);
		close(fd[0]);
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), SIGABRT);
		said[MAX(n, 0)] = 0;
		assert_says(said, "vmm: bug at ");
		assert_says(said, "err.c:");
	}
}

/* Its words are all that there is. */
static void test_library(void **state)
{
	(void)state;
	assert_int_equal(err_of_library("liba.so: cannot open it: Too many open files"), -EMFILE);
	assert_int_equal(err_of_library("liba.so: failed to map segment: Cannot allocate memory"), -ENOMEM);
	assert_int_equal(err_of_library("liba.so: failed to map segment from shared object"), -ENOMEM);
	assert_int_equal(err_of_library("liba.so: cannot allocate memory in static TLS block"), -ENOMEM);
	assert_int_equal(err_of_library("liba.so: No such file or directory"), -ENOENT);
	assert_int_equal(err_of_library(NULL), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set), cmocka_unit_test(test_nobody_wants_to_know),
		cmocka_unit_test(test_prefixes_in_order),
		cmocka_unit_test(test_long_message_is_cut),
		cmocka_unit_test(test_prefix_cuts_the_end), cmocka_unit_test(test_suffix_is_cut),
		cmocka_unit_test(test_success_is_no_error), cmocka_unit_test(test_library),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
