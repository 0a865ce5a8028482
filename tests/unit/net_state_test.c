/* net_state_test.c: networks as files, users that die, the filter's text, leases. */
#include "vmm/net_state.h"
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "tests/lib/test.h"
#include "vmm/net_services.h"

static char dir[] = "/tmp/vmm-net-test-XXXXXX";
static struct err err;
static struct net_state *s;
static struct network net;
static struct network_user *users;
static unsigned nr;

static void reopen(bool to_change)
{
	net_state_close(s);
	if (net_state_open(&s, to_change, &err))
		fail_msg("%s", err.msg);
}

static struct network a_network(const char *name)
{
	struct network n = { .type = NETWORK_NAT, .subnet = { 0x0a050000, 24 }, .mtu = 9000,
			     .prefix6 = "fd12:3456:789a::", .routes6 = true };

	snprintf(n.name, sizeof(n.name), "%s", name);
	snprintf(n.bridge, sizeof(n.bridge), "vmm-%s", name);
	return n;
}

static void assert_same(const struct network *a, const struct network *b)
{
	assert_string_equal(a->name, b->name);
	assert_string_equal(a->bridge, b->bridge);
	assert_string_equal(a->prefix6, b->prefix6);
	assert_int_equal(a->type, b->type);
	assert_int_equal(a->mtu, b->mtu);
	assert_int_equal(a->subnet.addr, b->subnet.addr);
	assert_int_equal(a->subnet.len, b->subnet.len);
	assert_int_equal(a->routes6, b->routes6);
	assert_int_equal(a->vlan_filtering, b->vlan_filtering);
	assert_int_equal(a->is_kept, b->is_kept);
}

static int setup(void **state)
{
	(void)state;
	if (!mkdtemp(dir) || setenv("VMM_RUNTIME_DIR", dir, 1))
		return 1;
	return net_state_open(&s, true, &err);
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	net_state_close(s);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

static void test_names(void **state)
{
	static const char *const no[] = { "", "a/b", "..", ".a", "a.b", "-a", "twelve_chars", "a b",
					  "\xc3\xa4", "a\n" };

	(void)state;
	assert_int_equal(network_check_name("default", &err), 0);
	assert_int_equal(network_check_name("eleven_char", &err), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(no); i++)
		assert_int_equal(network_check_name(no[i], &err), -EINVAL);
}

static void test_record(void **state)
{
	struct network n = a_network("one");
	char **names, path[256];
	FILE *f;

	(void)state;
	assert_int_equal(net_state_load(s, "one", &net, &err), -ENOENT);
	assert_int_equal(net_state_save(s, &n, &err), 0);
	assert_int_equal(net_state_load(s, "one", &net, &err), 0);
	assert_same(&net, &n);
	n.type = NETWORK_BRIDGE;
	n.subnet = (struct subnet){ 0 };
	n.prefix6[0] = 0;
	n.routes6 = false;
	n.is_kept = n.vlan_filtering = true;
	assert_int_equal(net_state_save(s, &n, &err), 0);
	reopen(true);
	assert_int_equal(net_state_load(s, "one", &net, &err), 0);
	assert_same(&net, &n);
	n = a_network("two");
	assert_int_equal(net_state_save(s, &n, &err), 0);
	assert_int_equal(net_state_names(s, &names, &nr, &err), 0);
	assert_int_equal(nr, 2);
	assert_string_equal(names[0], "one");
	assert_string_equal(names[1], "two");
	while (nr)
		free(names[--nr]);
	free(names);
	/* Not what was written: said, and not taken for anything. */
	net_state_path(s, "two", "network.json", path, sizeof(path));
	f = fopen(path, "w");
	fputs("{\"type\": \"nat\", \"bridge\": \"vmm-two\", \"subnet\": \"10.0.0.0/99\"}", f);
	fclose(f);
	assert_int_equal(net_state_load(s, "two", &net, &err), -EUCLEAN);
	assert_says(err.msg, "vmm net delete two");
	net_state_remove(s, "one");
	net_state_remove(s, "two");
	assert_int_equal(net_state_load(s, "one", &net, &err), -ENOENT);
	/* Nothing is left but the lock. */
	net_state_path(s, "one", "", path, sizeof(path));
	*strrchr(path, '/') = 0;
	*strrchr(path, '/') = 0;
	assert_int_equal(access(path, F_OK), 0);
	net_state_close(s);
	s = NULL;
	assert_int_not_equal(access(path, F_OK), 0);
	/* Who only looks makes nothing. */
	reopen(false);
	assert_int_equal(net_state_load(s, "one", &net, &err), -ENOENT);
	assert_int_equal(net_state_names(s, &names, &nr, &err), 0);
	assert_int_equal(nr, 0);
	assert_int_not_equal(access(path, F_OK), 0);
	reopen(true);
}

static void count_users(unsigned expected)
{
	free(users);
	assert_int_equal(net_state_users(s, "one", &users, &nr, &err), 0);
	assert_int_equal(nr, expected);
}

/* A process that is a user until it is killed. */
static pid_t another_user(const char *tap)
{
	struct network_user u = { .mac = { 2, 0, 0, 0, 0, 9 } };
	int said[2], fd;
	char c = 0;
	pid_t pid;

	assert_int_equal(pipe(said), 0);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		u.pid = getpid();
		snprintf(u.vm, sizeof(u.vm), "vm of %s", tap);
		snprintf(u.tap, sizeof(u.tap), "%s", tap);
		c = !net_state_add_user(s, "one", &u, &fd, NULL);
		(void)!write(said[1], &c, 1);
		for (;;)
			pause();
	}
	assert_int_equal(read(said[0], &c, 1), 1);
	assert_int_equal(c, 1);
	close(said[0]);
	close(said[1]);
	return pid;
}

static void test_users(void **state)
{
	struct network n = a_network("one");
	struct network_user u = { .pid = 7, .vm = "web", .tap = "vmm7-0", .mac = { 2, 0, 0xff, 0, 0, 1 } };
	pid_t pid[2];
	int fd;

	(void)state;
	assert_int_equal(net_state_save(s, &n, &err), 0);
	count_users(0);
	assert_int_equal(net_state_add_user(s, "one", &u, &fd, &err), 0);
	count_users(1);
	assert_int_equal(users[0].pid, 7);
	assert_string_equal(users[0].vm, "web");
	assert_string_equal(users[0].tap, "vmm7-0");
	assert_memory_equal(users[0].mac, u.mac, 6);
	close(fd);
	count_users(0);
	/* These first: a child has what is open already. */
	pid[0] = another_user("vmm8-0");
	pid[1] = another_user("vmm9-0");
	assert_int_equal(net_state_add_user(s, "one", &u, &fd, &err), 0);
	count_users(3);
	kill(pid[0], SIGKILL);
	waitpid(pid[0], NULL, 0);
	count_users(2);
	count_users(2);
	close(fd);
	count_users(1);
	assert_string_equal(users[0].tap, "vmm9-0");
	assert_string_equal(users[0].vm, "vm of vmm9-0");
	assert_int_equal(users[0].pid, pid[1]);
	kill(pid[1], SIGKILL);
	waitpid(pid[1], NULL, 0);
	count_users(0);
	net_state_remove(s, "one");
}

/* What is in the file of one that lives does not matter: it lives. */
static void test_odd_user(void **state)
{
	struct network n = a_network("one");
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	char path[256];
	int fd;

	(void)state;
	assert_int_equal(net_state_save(s, &n, &err), 0);
	net_state_path(s, "one", "users/vmm5-0", path, sizeof(path));
	fd = open(path, O_RDWR | O_CREAT, 0600);
	assert_int_equal(write(fd, "{\"pid\": [", 9), 9);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
	count_users(1);
	assert_string_equal(users[0].tap, "vmm5-0");
	close(fd);
	count_users(0);
	net_state_remove(s, "one");
}

/* Who comes second waits for who is first. */
static void test_lock(void **state)
{
	int said[2], status;
	char c = 0;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(said), 0);
	assert_int_equal(net_state_set_mark(s, "ipv4", &err), 0);
	pid = fork();
	if (!pid) {
		struct net_state *mine;
		int rc;

		/* Our copy of the lock goes with the parent's. */
		net_state_close(s);
		rc = net_state_open(&mine, true, NULL);
		c = rc || net_state_has_mark(mine, "ipv4");
		net_state_close(mine);
		_exit(c);
	}
	net_state_clear_mark(s, "ipv4");
	net_state_close(s);
	s = NULL;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	reopen(true);
}

static void test_strangers_directory(void **state)
{
	struct net_state *no;

	(void)state;
	assert_int_equal(chmod(dir, 0777), 0);
	assert_int_equal(net_state_open(&no, true, &err), -EPERM);
	assert_says(err.msg, dir);
	assert_int_equal(chmod(dir, 0700), 0);
	setenv("VMM_RUNTIME_DIR", "relative", 1);
	assert_int_equal(net_state_open(&no, true, &err), -ENOENT);
	assert_says(err.msg, "VMM_RUNTIME_DIR");
	setenv("VMM_RUNTIME_DIR", dir, 1);
}

static void test_filter(void **state)
{
	struct network n = a_network("one");
	char text[4096], small[256];

	(void)state;
	assert_true(net_filter_text(&n, text, sizeof(text)));
	assert_says(text, "iifname \"vmm-one\" oifname \"vmm-*\" counter drop");
	assert_says(text, "ip saddr 10.5.0.0/24 masquerade");
	assert_says(text, "ip6 saddr fd12:3456:789a::/64 masquerade");
	n.routes6 = false;
	assert_true(net_filter_text(&n, text, sizeof(text)));
	assert_null(strstr(text, "ip6"));
	n.type = NETWORK_HOSTONLY;
	assert_true(net_filter_text(&n, text, sizeof(text)));
	assert_null(strstr(text, "masquerade"));
	assert_says(text, "iifname \"vmm-one\" counter drop\noifname \"vmm-one\" counter drop");
	assert_false(net_filter_text(&n, small, sizeof(small)));
}

static void test_leases(void **state)
{
	struct network n = a_network("one");
	struct net_lease *lease;
	char path[256];
	FILE *f;

	(void)state;
	assert_int_equal(net_state_save(s, &n, &err), 0);
	assert_int_equal(net_names_leases(s, &n, &lease, &nr, &err), 0);
	assert_int_equal(nr, 0);
	net_state_path(s, "one", "leases", path, sizeof(path));
	f = fopen(path, "w");
	fputs("1700000000 02:00:00:12:34:ff 10.5.0.10 web 01:02\n"
	      "duid 00:01:00:01\n"
	      "1700000001 99 fd00::5 * 00:01\n"
	      "\n1 2 3\n"
	      "1700000002 02:00:00:12:34:01 10.5.0.11 \033[2Jx *\n", f);
	fclose(f);
	assert_int_equal(net_names_leases(s, &n, &lease, &nr, &err), 0);
	assert_int_equal(nr, 2);
	assert_string_equal(lease[0].address, "10.5.0.10");
	assert_string_equal(lease[0].host, "web");
	assert_int_equal(lease[0].mac[5], 0xff);
	assert_int_equal(lease[0].expires_s, 1700000000);
	assert_string_equal(lease[1].host, "?[2Jx");
	free(lease);
	net_state_remove(s, "one");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names), cmocka_unit_test(test_record),
		cmocka_unit_test(test_users), cmocka_unit_test(test_odd_user),
		cmocka_unit_test(test_lock), cmocka_unit_test(test_strangers_directory),
		cmocka_unit_test(test_filter), cmocka_unit_test(test_leases),
	};
	int rc = cmocka_run_group_tests(tests, setup, teardown);

	free(users);
	return rc;
}
