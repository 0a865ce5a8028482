/* socket_test.c: several who take over one socket that was left. */
#include "vmm/core/socket.h"
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include "tests/lib/test.h"

enum { ROUNDS = 200, RIVALS = 4 };

static char dir[64], path[80];
static pthread_barrier_t ready, done;
static int listener[RIVALS], result[RIVALS];

int __real_connect(int, const struct sockaddr *, socklen_t);
int __wrap_connect(int, const struct sockaddr *, socklen_t);

/* Who found that nobody is there lets the others have their turn. */
int __wrap_connect(int fd, const struct sockaddr *a, socklen_t len)
{
	int rc = __real_connect(fd, a, len), was = errno;

	for (int i = 0; rc && i < 20; i++)
		sched_yield();
	errno = was;
	return rc;
}

static void leave_one(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(a.sun_path, path, strlen(path));
	assert_int_equal(bind(fd, (void *)&a, sizeof(a)), 0);
	close(fd);
}

static void *rival(void *arg)
{
	int n = (int *)arg - listener;
	struct err err;

	for (int i = 0; i < ROUNDS; i++) {
		pthread_barrier_wait(&ready);
		result[n] = socket_listen(path, &listener[n], &err);
		pthread_barrier_wait(&done);
	}
	return NULL;
}

/* One has it, and is found there; the others are told so. */
static void test_rivals(void **state)
{
	pthread_t thread[RIVALS];

	(void)state;
	pthread_barrier_init(&ready, NULL, RIVALS + 1);
	pthread_barrier_init(&done, NULL, RIVALS + 1);
	for (int n = 0; n < RIVALS; n++)
		assert_int_equal(pthread_create(&thread[n], NULL, rival, &listener[n]), 0);
	for (int i = 0; i < ROUNDS; i++) {
		int client, fd = -1;

		leave_one();
		pthread_barrier_wait(&ready);
		pthread_barrier_wait(&done);
		for (int n = 0; n < RIVALS; n++) {
			assert_true(!result[n] || result[n] == -EADDRINUSE);
			assert_true(result[n] || fd < 0);
			if (!result[n])
				fd = listener[n];
		}
		assert_true(fd >= 0);
		assert_int_equal(socket_connect(path, &client, NULL), 0);
		close(client);
		client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		assert_true(client >= 0);
		close(client);
		close(fd);
		unlink(path);
	}
	for (int n = 0; n < RIVALS; n++)
		pthread_join(thread[n], NULL);
	pthread_barrier_destroy(&ready);
	pthread_barrier_destroy(&done);
}

/* Whoever can read a directory can hold it, and for ever: that keeps nobody from listening there, nor does
 * one that may not be read. */
static void test_held_directory(void **state)
{
	int fd, lock = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct socket_file file;
	struct err err;

	(void)state;
	assert_int_equal(flock(lock, LOCK_EX), 0);
	leave_one();
	assert_int_equal(socket_listen(path, &fd, &err), 0);
	socket_file_note(&file, path);
	close(lock);
	assert_int_equal(socket_listen(path, &lock, &err), -EADDRINUSE);
	assert_says(err.msg, "another socket of this VM has that name");
	socket_file_remove(&file);
	assert_int_equal(access(path, F_OK), -1);
	close(fd);
}

/* Without a slash it is here. */
static void test_here(void **state)
{
	int fd, here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct err err;

	(void)state;
	assert_int_equal(chdir(dir), 0);
	assert_int_equal(socket_listen("socket", &fd, &err), 0);
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(fchdir(here), 0);
	close(here);
	close(fd);
	unlink(path);
}

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/socket-test-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/socket", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rivals), cmocka_unit_test(test_held_directory), cmocka_unit_test(test_here),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
