/* bridge_ask_test.c: vmm-bridge-helper asked for a tap; this program stands in for it, and says what the bridge's name says. */
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "devices/net/bridge.h"
#include "tests/lib/test.h"

enum { SOCKET = 3 };

static char dir[] = "/tmp/vmm-bridge-ask-test-XXXXXX";
static char name[IFNAMSIZ];
static struct err err;

/* --- the helper ------------------------------------------------------------------------------------ */

static int say(const char *text, size_t len, const int *fd, unsigned nr)
{
	union { char buf[CMSG_SPACE(2 * sizeof(int))]; struct cmsghdr align; } control = { { 0 } };
	struct iovec iov = { (void *)(uintptr_t)text, len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (nr) {
		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(nr * sizeof(int));
		*CMSG_FIRSTHDR(&m) = (struct cmsghdr){ CMSG_LEN(nr * sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), fd, nr * sizeof(int));
	}
	return sendmsg(SOCKET, &m, MSG_NOSIGNAL) < 0;
}

static int help(int argc, char **argv)
{
	const char *bridge = argv[1] + strlen("--bridge=");
	int fd[2] = { open("/dev/zero", O_RDONLY), 2 };
	char text[1000] = "";

	if (!strcmp(bridge, "gives"))
		return say("vmm77-0", 7, fd, 1);
	if (!strcmp(bridge, "gives-two"))
		return say("vmm77-0", 7, fd, 2);
	if (!strcmp(bridge, "refuses"))
		return say("users may not", 13, NULL, 0);
	if (!strcmp(bridge, "talks")) {
		memset(text, 't', sizeof(text));
		return say(text, sizeof(text), NULL, 0);
	}
	if (!strcmp(bridge, "talks-and-gives")) {
		memset(text, 't', sizeof(text));
		return say(text, sizeof(text), fd, 1);
	}
	if (!strcmp(bridge, "is-killed"))
		raise(SIGKILL);
	if (strcmp(bridge, "repeats"))
		return 3;		/* without a word */
	for (int i = 0; i < argc; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s ", argv[i]);
	snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s", environ[0] ? environ[0] : "bare");
	return say(text, strlen(text), NULL, 0);
}

/* --- where it is found: vmm is DIR/bin/vmm ------------------------------------------------------------- */

ssize_t __wrap_readlink(const char *, char *, size_t);

static bool self_is_unknown;

ssize_t __wrap_readlink(const char *path, char *buf, size_t len)
{
	assert_string_equal(path, "/proc/self/exe");
	if (self_is_unknown) {
		errno = ENOENT;
		return -1;
	}
	return snprintf(buf, len, "%s/bin/vmm", dir);
}

static void place(const char *what, const char *target)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", dir, what);
	if (!target)
		assert_int_equal(unlink(path), 0);
	else if (*target)
		assert_int_equal(symlink(target, path), 0);
	else
		assert_int_equal(mkdir(path, 0700), 0);
}

#define INSTALLED	"libexec/vmm/vmm-bridge-helper"
#define BESIDE		"bin/vmm-bridge-helper"
#define SELF		"/proc/self/exe"

/* /proc/self is another one's for whoever starts it. */
static char self[PATH_MAX];

static int make_dirs(void **state)
{
	(void)state;
	assert_non_null(realpath(SELF, self));
	assert_non_null(mkdtemp(dir));
	place("bin", "");
	place("libexec", "");
	place("libexec/vmm", "");
	place(INSTALLED, self);
	return 0;
}

static int remove_dirs(void **state)
{
	static const char *const all[] = { "libexec/vmm", "libexec", "bin", "" };
	char path[PATH_MAX];

	(void)state;
	place(INSTALLED, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, all[i]);
		assert_int_equal(rmdir(path), 0);
	}
	return 0;
}

static int ask(const char *bridge)
{
	memset(name, 'n', sizeof(name));
	err.msg[0] = 0;
	return bridge_ask_helper(bridge, NULL, false, name, &err);
}

static int nr_files(void)
{
	int nr = 0;

	for (int fd = 0; fd < 100; fd++)
		nr += fcntl(fd, F_GETFD) >= 0;
	return nr;
}

/* --- tests ------------------------------------------------------------------------------------------------ */

static void test_given(void **state)
{
	int before = nr_files(), fd = ask("gives");
	u8 zero = 1;

	(void)state;
	if (fd < 0)
		fail_msg("%s", err.msg);
	assert_string_equal(name, "vmm77-0");
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	assert_int_equal(read(fd, &zero, 1), 1);
	assert_int_equal(zero, 0);
	close(fd);
	assert_int_equal(nr_files(), before);
	/* Of two the second is not let in. */
	fd = ask("gives-two");
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(nr_files(), before);
	/* A name as long as no interface's is cut, and ends. */
	fd = ask("talks-and-gives");
	assert_true(fd >= 0);
	assert_int_equal(strlen(name), IFNAMSIZ - 1);
	close(fd);
	/* Nor is there a child left, not even a dead one. */
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

static void test_not_given(void **state)
{
	int before = nr_files();

	(void)state;
	assert_int_equal(ask("refuses"), -EPERM);
	assert_string_equal(err.msg, "users may not");
	assert_int_equal(ask("talks"), -EPERM);
	assert_int_equal(strspn(err.msg, "t"), strlen(err.msg));
	assert_int_equal(ask("says-nothing"), -EPIPE);
	assert_says(err.msg, "ended without an answer");
	assert_int_equal(ask("is-killed"), -EPIPE);
	assert_says(err.msg, "ended without an answer");
	assert_int_equal(nr_files(), before);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

static void test_arguments(void **state)
{
	(void)state;
	assert_int_equal(ask("repeats"), -EPERM);
	assert_string_equal(err.msg, "vmm-bridge-helper --bridge=repeats bare");
	assert_int_equal(bridge_ask_helper("repeats", "100+200-299", false, name, &err), -EPERM);
	assert_string_equal(err.msg, "vmm-bridge-helper --bridge=repeats --vlan=100+200-299 bare");
	assert_int_equal(bridge_ask_helper("repeats", NULL, true, name, &err), -EPERM);
	assert_string_equal(err.msg, "vmm-bridge-helper --bridge=repeats --multi-queue bare");
	assert_int_equal(bridge_ask_helper("repeats", "7", true, name, &err), -EPERM);
	assert_string_equal(err.msg, "vmm-bridge-helper --bridge=repeats --vlan=7 --multi-queue bare");
}

/* As it is built, beside vmm; not there at all; there, but no program, or no way to ask it. */
static void test_places(void **state)
{
	struct rlimit old, none;
	int fd;

	(void)state;
	place(INSTALLED, NULL);
	assert_int_equal(ask("gives"), -ENOENT);
	assert_says(err.msg, "needs root, or the program vmm-bridge-helper");
	place(BESIDE, self);
	fd = ask("gives");
	assert_true(fd >= 0);
	close(fd);
	place(BESIDE, NULL);
	place(INSTALLED, "/");			/* it may be entered, not run */
	assert_int_equal(ask("gives"), -EACCES);
	assert_says(err.msg, "libexec/vmm/vmm-bridge-helper: Permission denied");
	place(INSTALLED, NULL);
	place(INSTALLED, self);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = (struct rlimit){ 0, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_int_equal(ask("gives"), -EMFILE);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_says(err.msg, "a socket: Too many open files");
	self_is_unknown = true;
	assert_int_equal(ask("gives"), -ENOENT);
	assert_says(err.msg, "/proc/self/exe: ");
	self_is_unknown = false;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_given), cmocka_unit_test(test_not_given),
		cmocka_unit_test(test_arguments), cmocka_unit_test(test_places),
	};

	if (!strcmp(argv[0], "vmm-bridge-helper"))
		return help(argc, argv);
	alarm(120);		/* an answer that never comes */
	return cmocka_run_group_tests(tests, make_dirs, remove_dirs);
}
