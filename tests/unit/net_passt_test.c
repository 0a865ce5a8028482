/* net_passt_test.c: --net passt, with a program that stands in for it. */
#include <linux/virtio_net.h>
#include <netinet/in.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include "devices/net/forward.h"
#include "tests/lib/test.h"
#include "tests/lib/wire.h"

static struct wire wire;
static struct err err;
static u8 data[60000];

static char dir[] = "/tmp/vmm-passt-test-XXXXXX";

/* Its arguments go into a file, then it does what text says; $fd is the socket. */
static void install(const char *text)
{
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "%s/passt", dir);
	f = fopen(path, "w");
	assert_non_null(f);
	fprintf(f, "#!/bin/bash\necho \"$*\" >%s/args\npid=$(sed 's/.*--pid \\([^ ]*\\).*/\\1/' <<<\"$*\")\n"
		   "fd=$(sed 's/.*--fd \\([^ ]*\\).*/\\1/' <<<\"$*\")\n%s\n", dir, text);
	fclose(f);
	assert_int_equal(chmod(path, 0755), 0);
}

static int make_dir(void **state)
{
	char *path;

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = i * 11 + i / 253;
	assert_non_null(mkdtemp(dir));
	assert_true(asprintf(&path, "%s:%s", dir, getenv("PATH")) > 0);
	assert_int_equal(setenv("PATH", path, 1), 0);
	free(path);
	return 0;
}

static int remove_dir(void **state)
{
	static const char *const file[] = { "passt", "args", "pid" };
	char path[64];

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(file); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, file[i]);
		unlink(path);
	}
	return rmdir(dir);
}

static void read_file(const char *name, char *text, size_t room)
{
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "r");
	assert_non_null(f);
	text[fread(text, 1, room - 1, f)] = 0;
	fclose(f);
}

static const struct net_forward forwards[] = {
	{ .host_port = 21081, .guest_port = 80 },
	{ .udp = true, .host = { 0x0100007f }, .host_port = 21053, .guest_port = 53 },
};

static bool any(const u8 *f, size_t len, void *arg)
{
	(void)f;
	(void)len;
	(void)arg;
	return true;
}

static void test_passt(void **state)
{
	char args[300], pid[16];
	struct net *n;
	const u8 *f;
	size_t len;

	(void)state;
	install("echo $$ >${0%/*}/pid; echo $$ >$pid; exec cat <&$fd >&$fd");
	if (net_open_passt(&n, forwards, 2, &err))
		fail_msg("%s", err.msg);
	read_file("args", args, sizeof(args));
	assert_says(args, "--foreground");
	assert_says(args, "--mtu 65520");
	assert_says(args, "--tcp-ports 21081:80");
	assert_says(args, "--udp-ports 127.0.0.1/21053:53");
	read_file("pid", pid, sizeof(pid));
	assert_int_equal(kill(atoi(pid), 0), 0);
	assert_int_equal(n->mtu, 65520);
	wire_init(&wire, n, 1ULL << VIRTIO_NET_F_GUEST_CSUM);
	assert_int_equal(wire_send(&wire, data, sizeof(data), 0, 0), 0);
	f = wire_expect(&wire, any, NULL, &len);
	assert_non_null(f);
	assert_int_equal(len, sizeof(data));
	assert_memory_equal(f, data, len);
	assert_int_equal(wire.frame[0].data[0], VIRTIO_NET_HDR_F_DATA_VALID);
	wire_fini(&wire);
	assert_int_equal(kill(atoi(pid), 0), -1);
}

/* It dies while the guest runs: said once, and there is no child left, not even a dead one. */
static void test_passt_dies(void **state)
{
	char pid[16];
	struct net *n;

	(void)state;
	install("echo $$ >${0%/*}/pid; echo $$ >$pid; read -r -N 1 -u $fd; echo 'cannot go on' >&2; "
		"exit 1");
	assert_int_equal(net_open_passt(&n, NULL, 0, &err), 0);
	read_file("pid", pid, sizeof(pid));
	wire_init(&wire, n, 0);
	assert_int_equal(wire_send(&wire, data, 100, 0, 0), 0);
	do
		wire_turn(&wire, 1);
	while (!kill(atoi(pid), 0));
	assert_int_equal(wire_send(&wire, data, 100, 0, 0), -EPIPE);
	assert_int_equal(wire.nr_lost, 1);
	wire_fini(&wire);
}

static void test_passt_fails(void **state)
{
	struct net *n;

	(void)state;
	install("echo 'External interface not usable' >&2; echo 'Failed to send 3 bytes to syslog' >&2; "
		"exit 1");
	assert_int_equal(net_open_passt(&n, NULL, 0, &err), -EIO);
	assert_says(err.msg, "does not start: External interface not usable; --net user may do");
}

/* The last line of many, and of one that lives on, and will never be ready. */
static void test_passt_talks(void **state)
{
	struct net *n;

	(void)state;
	install("for ((n = 0; n < 500; n++)); do echo 'Only a warning, and of no interest' >&2; done; "
		"echo 'No template interface' >&2; exit 1");
	assert_int_equal(net_open_passt(&n, NULL, 0, &err), -EIO);
	assert_says(err.msg, "does not start: No template interface; --net user may do");
	install("echo 'Nothing to say' >&2; exec >&-; exec sleep 1000");
	assert_int_equal(net_open_passt(&n, NULL, 0, &err), -EIO);
	assert_says(err.msg, "does not start: Nothing to say; --net user may do");
}

static void test_passt_is_missing(void **state)
{
	char *path = strdup(getenv("PATH"));
	struct net *n;

	(void)state;
	setenv("PATH", "/nowhere", 1);
	assert_int_equal(net_open_passt(&n, NULL, 0, &err), -ENOENT);
	assert_says(err.msg, "install the package passt");
	setenv("PATH", path, 1);
	free(path);
}

static void test_why_not(void **state)
{
	struct net_forward f = { .host = { htonl(INADDR_LOOPBACK) }, .host_port = 80, .guest_port = 80 };

	(void)state;
	assert_int_equal(forward_failed(&f, -EACCES, &err), -EACCES);
	assert_string_equal(err.msg, "net: hostfwd tcp:127.0.0.1:80: not permitted; choose a port of 1024 or "
			    "more, or be root");
	f.udp = true;
	assert_int_equal(forward_failed(&f, -EADDRNOTAVAIL, &err), -EADDRNOTAVAIL);
	assert_says(err.msg, "udp:127.0.0.1:80: this host does not have that address");
	f.host.s_addr = 0;
	assert_int_equal(forward_failed(&f, -ENOMEM, &err), -ENOMEM);
	assert_string_equal(err.msg, "net: hostfwd udp::80: Cannot allocate memory");
}

/* From the first descriptor that cannot be had to the last: nothing is left of what could. */
static void test_passt_without_files(void **state)
{
	int next = fcntl(0, F_DUPFD_CLOEXEC, 0), nr = 0, rc;
	struct rlimit old;
	struct net *n;

	(void)state;
	install("echo $$ >$pid; exec cat <&$fd >&$fd");
	close(next);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	do {
		struct rlimit few = { next + nr, old.rlim_max };

		assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
		rc = net_open_passt(&n, NULL, 0, &err);
		if (!nr)
			assert_int_equal(forward_probe(&forwards[0], &err), -EMFILE);
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
		assert_int_equal(fcntl(next, F_GETFD), rc ? -1 : FD_CLOEXEC);
	} while (rc == -EMFILE && ++nr < 20);
	assert_int_equal(nr, 6);		/* a socket of two ends, and two pipes */
	if (!rc)
		net_close(n);
}

static void test_passt_port_in_use(void **state)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	struct net_forward f = { .host = a.sin_addr, .guest_port = 80 };
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct net *n;

	(void)state;
	assert_int_equal(bind(fd, (void *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(getsockname(fd, (void *)&a, &len), 0);
	f.host_port = ntohs(a.sin_port);
	assert_int_equal(net_open_passt(&n, &f, 1, &err), -EADDRINUSE);
	assert_says(err.msg, "hostfwd tcp:127.0.0.1:");
	assert_says(err.msg, "in use");
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_passt), cmocka_unit_test(test_passt_dies),
		cmocka_unit_test(test_passt_fails), cmocka_unit_test(test_passt_talks),
		cmocka_unit_test(test_passt_is_missing),
		cmocka_unit_test(test_passt_port_in_use), cmocka_unit_test(test_why_not),
		cmocka_unit_test(test_passt_without_files),
	};

	closefrom(3);		/* what was inherited has holes */
	signal(SIGPIPE, SIG_IGN);
	alarm(120);		/* a socket here may wait for ever */
	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
