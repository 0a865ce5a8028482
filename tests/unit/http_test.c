/* http_test.c: the API over a real socket: clients that are slow, many, rude, or gone. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include "tests/lib/fake_vm.h"
#include "tests/lib/test.h"
#include "vmm/api/http.h"
#include "vmm/core/socket.h"

enum { GIVE_UP_MS = 20000 };

static struct fake_vm f;
static char dir[] = "/tmp/vmm-http-test-XXXXXX", path[64];
static char got[512 * 1024];

static int group_setup(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/sock", dir);
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	return rmdir(dir);		/* nothing was left in it */
}

static int setup(void **state)
{
	struct err err = { 0 };

	(void)state;
	fake_vm_init(&f);
	if (api_listen(f.api, path, &err))
		fail_msg("%s", err.msg);
	return loop_start_thread(f.loop, THREAD_IO, "main", &err);
}

static int teardown(void **state)
{
	(void)state;
	loop_stop_thread(f.loop);
	fake_vm_fini(&f);
	assert_int_equal(access(path, F_OK), -1);
	return 0;
}

/* --- a client --------------------------------------------------------------------------------- */

static int dial(void)
{
	struct err err;
	int fd, rc;

	do	/* they queue */
		rc = socket_connect(path, &fd, &err);
	while (rc == -EAGAIN && !sched_yield());
	assert_int_equal(rc, 0);
	return fd;
}

static bool wait_for(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	return poll(&p, 1, GIVE_UP_MS) == 1;
}

/* False: the other end is gone. */
static bool put(int fd, const void *data, size_t len)
{
	const char *from = data;

	while (len) {
		ssize_t n = send(fd, from, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN) {
			assert_true(wait_for(fd, POLLOUT));
			continue;
		}
		if (n < 0)
			return false;
		from += n;
		len -= n;
	}
	return true;
}

static bool say(int fd, const char *text)
{
	return put(fd, text, strlen(text));
}

/* One answer, by its Content-Length: its status; 0: the connection was closed. */
static int hear_of(int fd, bool of_head)
{
	size_t len = 0, want = ~0UL;
	const char *end;
	int status;

	*got = 0;
	while (len < want) {
		ssize_t n;

		assert_true(wait_for(fd, POLLIN));
		n = recv(fd, got + len, want == ~0UL ? 1 : want - len, 0);
		if (n <= 0)
			return 0;
		len += n;
		got[len] = 0;
		assert_true(len < sizeof(got) - 1);
		end = want == ~0UL ? strstr(got, "\r\n\r\n") : NULL;
		if (end) {
			const char *l = strcasestr(got, "content-length: ");

			want = len + (l && !of_head ? strtoul(l + 16, NULL, 10) : 0);
		}
	}
	assert_int_equal(sscanf(got, "HTTP/1.%*d %d", &status), 1);
	return status;
}

static int hear(int fd)
{
	return hear_of(fd, false);
}

#define VERSION	"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"

static void assert_alive(void)
{
	int fd = dial();

	assert_true(say(fd, VERSION));
	assert_int_equal(hear(fd), 200);
	close(fd);
}

/* --- tests ------------------------------------------------------------------------------------ */

static void test_headers(void **state)
{
	int fd = dial();

	(void)state;
	say(fd, VERSION);
	assert_int_equal(hear(fd), 200);
	assert_says(got, "Content-Type: application/json\r\n");
	assert_says(got, "Server: vmm\r\n");
	assert_says(got, "\r\n\r\n{\"firecracker_version\":\"" API_VERSION "\"}");
	say(fd, "PUT /entropy HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}");
	assert_int_equal(hear(fd), 204);
	assert_null(strstr(got, "Content-Type"));
	assert_null(strstr(got, "Deprecation"));
	say(fd, "PATCH /machine-config HTTP/1.1\r\nHost: x\r\nContent-Length: 23\r\n\r\n"
		"{\"cpu_template\":\"None\"}\n");
	assert_int_equal(hear(fd), 204);
	assert_says(got, "Deprecation: true\r\n");
	/* No Host, and the form that a proxy gets. */
	say(fd, "GET http://localhost/version HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_int_equal(hear(fd), 200);
	say(fd, "GET http://localhost HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_int_equal(hear(fd), 200);
	assert_says(got, "app_name");
	say(fd, "GET /version?x=y HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_int_equal(hear(fd), 200);
	/* A path is all of it. */
	say(fd, "GET /v%65rsion HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_int_equal(hear(fd), 200);
	say(fd, "GET /version%00x HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_int_equal(hear(fd), 400);
	say(fd, "GET /%00version HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_int_equal(hear(fd), 400);
	say(fd, "GET /vmm/v1/metrics HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_int_equal(hear(fd), 200);
	assert_says(got, "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n");
	assert_says(got, "\r\n\r\n# HELP vmm_info ");
	close(fd);
}

static void test_keep_alive(void **state)
{
	int fd = dial();

	(void)state;
	for (int i = 0; i < 1000; i++) {
		assert_true(say(fd, i % 2 ? VERSION : "GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
		assert_int_equal(hear(fd), 200);
		assert_says(got, i % 2 ? "firecracker_version" : "app_name");
	}
	say(fd, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
	assert_int_equal(hear(fd), 200);
	assert_int_equal(hear(fd), 0);
	close(fd);
	fd = dial();
	say(fd, "GET / HTTP/1.0\r\n\r\n");
	assert_int_equal(hear(fd), 200);
	assert_int_equal(hear(fd), 0);
	close(fd);
}

static void test_pipelining(void **state)
{
	int fd = dial();

	(void)state;
	for (int i = 0; i < 50; i++)
		assert_true(say(fd, VERSION "PUT /entropy HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
			       "\r\n{}GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /no HTTP/1.1\r\nHost: x\r\n\r\n"));
	for (int i = 0; i < 50; i++) {
		assert_int_equal(hear(fd), 200);
		assert_says(got, "firecracker_version");
		assert_int_equal(hear(fd), 204);
		assert_int_equal(hear(fd), 200);
		assert_says(got, "app_name");
		assert_int_equal(hear(fd), 400);
	}
	close(fd);
}

/* Byte by byte; between any two of them others are served. */
static void test_slow(void **state)
{
	static const char text[] = "PUT /entropy HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{ \n }";
	int slow = dial(), quick = dial();

	(void)state;
	for (unsigned i = 0; i < sizeof(text) - 1; i++) {
		assert_true(put(slow, text + i, 1));
		say(quick, VERSION);
		assert_int_equal(hear(quick), 200);
	}
	assert_int_equal(hear(slow), 204);
	close(slow);
	close(quick);
}

/* One that asks and asks, and does not read. */
static void test_not_reading(void **state)
{
	int fd = dial(), sent = 0;

	(void)state;
	while (send(fd, VERSION, sizeof(VERSION) - 1, MSG_NOSIGNAL) == sizeof(VERSION) - 1 &&
	       sent < 100000)
		sent++;
	assert_alive();
	close(fd);
	assert_alive();
}

static void test_gone(void **state)
{
	static const char text[] = "PUT /entropy HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{}";

	(void)state;
	for (unsigned i = 0; i < sizeof(text); i++) {
		int fd = dial();

		assert_true(put(fd, text, i));
		if (i % 2)
			shutdown(fd, SHUT_WR);
		close(fd);
	}
	/* Not there any more for the answer. */
	for (int i = 0; i < 100; i++) {
		int fd = dial();

		say(fd, VERSION);
		close(fd);
	}
	assert_alive();
}

static char *body(size_t len, const char *header)
{
	static char text[20 << 20];
	int n = snprintf(text, 200, "PUT /entropy HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", header);

	memset(text + n, ' ', len);
	text[n] = '{';
	text[n + len - 1] = '}';
	text[n + len] = 0;
	return text;
}

static void test_payload_limit(void **state)
{
	int fd = dial();

	(void)state;
	say(fd, body(API_MAX_BODY, "Content-Length: 51200"));
	assert_int_equal(hear(fd), 204);
	/* The answer comes when all was read, so that the client gets to see it. */
	say(fd, body(API_MAX_BODY + 1, "Content-Length: 51201"));
	assert_int_equal(hear(fd), 400);
	assert_says(got, "{\"fault_message\":\"the body is longer than 51200 bytes\"}");
	say(fd, body(1 << 20, "Content-Length: 1048576"));
	assert_int_equal(hear(fd), 400);
	say(fd, VERSION);
	assert_int_equal(hear(fd), 200);
	/* What has no end is ended. */
	say(fd, body(20000000, "Content-Length: 20000000"));
	assert_int_equal(hear(fd), 0);
	close(fd);
	assert_alive();
}

static void test_chunks(void **state)
{
	int fd = dial();

	(void)state;
	say(fd, "PUT /entropy HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
		"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n");
	assert_int_equal(hear(fd), 204);
	say(fd, "PUT /entropy HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
	for (int i = 0; i < 60; i++) {
		char chunk[1100];

		memset(chunk, ' ', sizeof(chunk));
		memcpy(chunk, "400\r\n", 5);
		memcpy(chunk + 5 + 1024, "\r\n", 2);
		assert_true(put(fd, chunk, 5 + 1024 + 2));
	}
	say(fd, "0\r\n\r\n");
	assert_int_equal(hear(fd), 400);
	assert_says(got, "longer than");
	say(fd, "PUT /entropy HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
	assert_int_equal(hear(fd), 100);
	say(fd, "{}");
	assert_int_equal(hear(fd), 204);
	close(fd);
}

static void test_methods(void **state)
{
	int fd = dial();

	(void)state;
	say(fd, "HEAD /version HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_int_equal(hear_of(fd, true), 400);
	say(fd, "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_int_equal(hear(fd), 400);
	say(fd, "FOO /version HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_int_equal(hear(fd), 400);
	assert_says(got, "invalid request: FOO");
	say(fd, "POST /version HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
	assert_int_equal(hear(fd), 400);
	say(fd, "GET /version HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}");
	assert_int_equal(hear(fd), 400);
	assert_says(got, "has no body");
	say(fd, "GET /%ff%00 HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_int_equal(hear(fd), 400);
	assert_says(got, "invalid request: GET /??: there is no such path");
	close(fd);
}

static void test_bad_http(void **state)
{
	static const char *const bad[] = {
		"GET\r\n\r\n", "GET /version\r\n\r\n", " / HTTP/1.1\r\n\r\n",
		"GET /version HTTP/9.9\r\n\r\n", "GET /version FTP/1.1\r\nHost: x\r\n\r\n",
		"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
		"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
		"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
		"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"\xff\xff\xff\xff\r\n\r\n", "GET /version HTTP/1.1\r\n: x\r\nHost x\r\n\r\n",
	};
	/* No request begins yet: it waits for more. */
	static const char *const unfinished[] = {
		"\r\n\r\n\r\n", "\x16\x03\x01\x02\x01\x01\xfc\x03\x03 this is TLS", "G",
	};
	char *large;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		int fd = dial();

		say(fd, bad[i]);
		while (hear(fd))
			assert_null(strstr(got, " 200 "));
		close(fd);
		assert_alive();
	}
	for (unsigned i = 0; i < ARRAY_SIZE(unfinished); i++) {
		int fd = dial();

		say(fd, unfinished[i]);
		assert_alive();
		close(fd);
		assert_alive();
	}
	/* Headers without an end. */
	large = malloc(1 << 20);
	memset(large, 'a', 1 << 20);
	for (int i = 0; i < 2; i++) {
		int fd = dial();

		say(fd, i ? "GET /" : "GET /version HTTP/1.1\r\nHost: x\r\nX: ");
		put(fd, large, 1 << 20);
		say(fd, " HTTP/1.1\r\n\r\n");
		while (hear(fd))
			assert_null(strstr(got, " 200 "));
		close(fd);
		assert_alive();
	}
	free(large);
}

/* The one that has been quiet for the longest goes. */
static void test_many(void **state)
{
	int first = dial(), fd[3 * HTTP_CONNECTIONS], open = 0;

	(void)state;
	say(first, VERSION);
	assert_int_equal(hear(first), 200);
	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++) {
		fd[i] = dial();
		say(fd[i], VERSION);
		assert_int_equal(hear(fd[i]), 200);
		say(first, VERSION);
		assert_int_equal(hear(first), 200);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++) {
		if (say(fd[i], VERSION) && hear(fd[i]) == 200) {
			assert_true(i >= ARRAY_SIZE(fd) - HTTP_CONNECTIONS);
			open++;
		}
		close(fd[i]);
	}
	assert_int_equal(open, HTTP_CONNECTIONS - 1);
	say(first, VERSION);
	assert_int_equal(hear(first), 200);
	close(first);
}

static void hold(void *sem)
{
	sem_wait(sem);
}

static void *hold_loop(void *sem)
{
	loop_call(f.loop, hold, sem);
	return NULL;
}

/* Each of a hundred that ask at once is answered, however late the loop comes to it. */
static void test_all_at_once(void **state)
{
	int fd[100];
	pthread_t thread;
	sem_t go;

	(void)state;
	assert_alive();
	sem_init(&go, 0, 0);
	assert_int_equal(pthread_create(&thread, NULL, hold_loop, &go), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++) {
		fd[i] = dial();
		assert_true(say(fd[i], VERSION));
	}
	sem_post(&go);
	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++)
		assert_int_equal(hear(fd[i]), 200);
	pthread_join(thread, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++)
		close(fd[i]);
	assert_alive();
}

/* A crowd that says half a word each does not keep anybody out. */
static void test_half_words(void **state)
{
	int fd[4 * HTTP_CONNECTIONS];

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++) {
		fd[i] = dial();
		say(fd[i], "PUT /entropy HTTP/1.1\r\nContent-");
		if (i % 16 == 0)
			assert_alive();
	}
	assert_alive();
	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++)
		close(fd[i]);
}

/* teardown is in the middle of all this. */
static void test_close_with_clients(void **state)
{
	(void)state;
	for (int i = 0; i < 10; i++) {
		int fd = dial();

		say(fd, "PUT /entropy HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{}");
		if (!i)
			assert_alive();
	}
}

static void test_socket_names(void **state)
{
	char other[80], longer[200];
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct err err = { 0 };
	struct fake_vm two;
	int fd;

	(void)state;
	fake_vm_init(&two);
	/* In use; no socket; too long; nowhere. */
	assert_int_equal(api_listen(two.api, path, &err), -EADDRINUSE);
	assert_says(err.msg, "another socket of this VM has that name");
	assert_alive();
	snprintf(other, sizeof(other), "%s/file", dir);
	close(open(other, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	assert_int_equal(api_listen(two.api, other, &err), -EADDRINUSE);
	assert_says(err.msg, "no socket");
	assert_int_equal(access(other, F_OK), 0);
	unlink(other);
	memset(longer, 'a', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = 0;
	assert_int_equal(api_listen(two.api, longer, &err), -ENAMETOOLONG);
	assert_int_equal(api_listen(two.api, "/nonexistent/sock", &err), -ENOENT);

	/* Left over by one that is dead. */
	strcpy(a.sun_path, other);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	close(fd);
	assert_int_equal(api_listen(two.api, other, &err), 0);
	assert_int_equal(socket_connect(other, &fd, &err), 0);
	close(fd);
	fake_vm_fini(&two);
	assert_int_equal(access(other, F_OK), -1);
}

/* Nobody has come to accept them yet. */
static void test_crowd_at_the_door(void **state)
{
	char other[80];
	int listener, fd[100];
	struct err err = { 0 };

	(void)state;
	snprintf(other, sizeof(other), "%s/crowd", dir);
	assert_int_equal(socket_listen(other, &listener, &err), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++)
		assert_int_equal(socket_connect(other, &fd[i], &err), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++)
		close(fd[i]);
	close(listener);
	unlink(other);
}

static struct {
	struct loop_hook hook;
	unsigned sleeps;		/* atomic */
} sleeper;

static bool count_sleep(struct loop_hook *h)
{
	(void)h;
	__atomic_add_fetch(&sleeper.sleeps, 1, __ATOMIC_SEQ_CST);
	return false;
}

static void add_hook(void *arg)
{
	loop_add_hook(arg, &sleeper.hook);
}

static void remove_hook(void *arg)
{
	loop_remove_hook(arg, &sleeper.hook);
}

/* No more files may be open, and nobody is there who could leave: who comes waits, and we look now and then. */
static void test_few_files(void **state)
{
	enum { LOOKS = 5 };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), free_fd = dup(0);
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct rlimit was, few;
	unsigned from;
	u64 begin;

	(void)state;
	sleeper.hook.before_sleep = count_sleep;
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	loop_call(f.loop, add_hook, f.loop);
	close(free_fd);
	getrlimit(RLIMIT_NOFILE, &was);
	few = (struct rlimit){ free_fd, was.rlim_max };
	begin = now_ns();
	setrlimit(RLIMIT_NOFILE, &few);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	from = __atomic_load_n(&sleeper.sleeps, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&sleeper.sleeps, __ATOMIC_SEQ_CST) - from < LOOKS)
		sched_yield();
	assert_true(now_ns() - begin > 100000000);
	setrlimit(RLIMIT_NOFILE, &was);
	say(fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_int_equal(hear(fd), 200);
	loop_call(f.loop, remove_hook, f.loop);
	close(fd);
}

/* Whatever cannot be opened, it is said why. */
static void test_no_files(void **state)
{
	char other[sizeof(path) + 1];
	struct rlimit was, few;
	struct fake_vm two;
	struct err err;
	int rc;

	(void)state;
	fake_vm_init(&two);
	snprintf(other, sizeof(other), "%s2", path);
	getrlimit(RLIMIT_NOFILE, &was);
	few = (struct rlimit){ 0, was.rlim_max };
	do {
		setrlimit(RLIMIT_NOFILE, &few);
		rc = api_listen(two.api, other, &err);
		setrlimit(RLIMIT_NOFILE, &was);
		if (rc)
			assert_says(err.msg, "Too many open files");
		assert_int_equal(access(other, F_OK), rc ? -1 : 0);
		few.rlim_cur++;
	} while (rc);
	fake_vm_fini(&two);
}

int main(void)
{
#define T(name)	cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_headers), T(test_keep_alive), T(test_pipelining),
		T(test_slow), T(test_not_reading), T(test_gone), T(test_payload_limit),
		T(test_chunks), T(test_methods), T(test_bad_http), T(test_many),
		T(test_half_words), T(test_close_with_clients), T(test_socket_names),
		T(test_crowd_at_the_door), T(test_all_at_once), T(test_few_files), T(test_no_files),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
