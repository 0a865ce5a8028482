/* vlan_test.c: lists of VLANs, and what vmm-bridge-helper's allow list says to them. */
#include <sys/stat.h>
#include "devices/net/vlan.h"
#include "tests/lib/test.h"
#include "vmm/helper/allow.h"

static struct vlans v;
static struct err err;

#define good(text)	assert_int_equal(vlans_parse(text, &v, &err), 0)

static void test_access(void **state)
{
	(void)state;
	good("1");
	assert_true(vlans_have(&v, 1) && !v.trunk && v.nr == 1);
	good("4094");
	assert_true(vlans_have(&v, 4094) && !vlans_have(&v, 4093) && !vlans_have(&v, 0));
	good("0100");
	assert_true(vlans_have(&v, 100));
	assert_false(vlans_have(&v, 4095) || vlans_have(&v, 65536 + 100));
}

static void test_trunk(void **state)
{
	static const unsigned runs[][2] = { { 7, 1 }, { 100, 3 }, { 4090, 5 } };
	unsigned id = 0;

	(void)state;
	good("100+7+101-102+4090-4094+100");
	assert_true(v.trunk);
	assert_int_equal(v.nr, 9);
	for (unsigned i = 0; i < ARRAY_SIZE(runs); i++) {
		assert_int_equal(vlans_run(&v, &id), runs[i][1]);
		assert_int_equal(id, runs[i][0]);
		id += runs[i][1];
	}
	assert_int_equal(vlans_run(&v, &id), 0);
	good("5-5");
	assert_true(v.trunk && v.nr == 1);
	good("1-4094");
	id = 0;
	assert_int_equal(vlans_run(&v, &id), 4094);
}

static void test_bad(void **state)
{
	static const char *const no[] = {
		"", "0", "4095", "-1", "+1", "1+", "1++2", "1-", "2-1", "1-2-3", " 1", "1 ", "1,2", "x",
		"0x10", "1.5", "99999999999999999999", "00001", "1-4095",
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(no); i++) {
		assert_int_equal(vlans_parse(no[i], &v, &err), -EINVAL);
		assert_says(err.msg, "vlan '");
	}
}

static void test_cover(void **state)
{
	struct vlans some;

	(void)state;
	good("100-200");
	assert_int_equal(vlans_parse("100+150+200", &some, NULL), 0);
	assert_true(vlans_cover(&v, &some));
	assert_false(vlans_cover(&some, &v));
	assert_int_equal(vlans_parse("99+100", &some, NULL), 0);
	assert_false(vlans_cover(&v, &some));
}

/* --- the allow list ------------------------------------------------------------------------ */

/* 1 allowed, 0 not, or -errno. */
static int ask(const char *lines, const char *bridge, const char *vlans)
{
	struct allow a = { .bridge = bridge, .vlans = &v };
	char *text = strdup(lines);
	int rc;

	v = (struct vlans){ 0 };
	if (vlans)
		good(vlans);
	rc = allow_read(&a, text, "list", &err);
	free(text);
	return rc ? rc : a.allowed && !a.denied;
}

static void test_allow(void **state)
{
	(void)state;
	assert_int_equal(ask("", "br0", NULL), 0);
	assert_int_equal(ask("# allow br0\n\n", "br0", NULL), 0);
	assert_int_equal(ask("allow br0", "br0", NULL), 1);
	assert_int_equal(ask("\tallow  br0 # mine\r\n", "br0", NULL), 1);
	assert_int_equal(ask("allow br0\n", "br00", NULL), 0);
	assert_int_equal(ask("allow br00\n", "br0", NULL), 0);
	assert_int_equal(ask("allow all\n", "br0", NULL), 1);
	/* A deny wins, wherever it stands. */
	assert_int_equal(ask("deny br0\nallow br0\n", "br0", NULL), 0);
	assert_int_equal(ask("allow br0\ndeny all\n", "br0", NULL), 0);
	assert_int_equal(ask("allow all\ndeny br1\n", "br0", NULL), 1);
}

static void test_allow_vlans(void **state)
{
	(void)state;
	assert_int_equal(ask("allow br0\n", "br0", "100"), 0);
	assert_int_equal(ask("allow br0 vlan=100\n", "br0", "100"), 1);
	assert_int_equal(ask("allow br0 vlan=100\n", "br0", NULL), 0);
	assert_int_equal(ask("allow br0 vlan=100\n", "br0", "100+101"), 0);
	assert_int_equal(ask("allow br0 vlan=100\nallow br0 vlan=101\n", "br0", "100+101"), 0);
	assert_int_equal(ask("allow br0 vlan=100-199\n", "br0", "100+150-160"), 1);
	assert_int_equal(ask("allow br0 vlan=100\nallow br0\n", "br0", NULL), 1);
	assert_int_equal(ask("allow br0 vlan=all\n", "br0", "4094"), 1);
	assert_int_equal(ask("allow br0 vlan=all\n", "br0", NULL), 1);
	assert_int_equal(ask("allow br1 vlan=all\n", "br0", "5"), 0);
}

static void test_allow_errors(void **state)
{
	static const char *const no[] = {
		"alow br0", "allow", "allow br0 br1", "allow br0 vlan=", "allow br0 vlan=0",
		"allow br0 vlan=1 vlan=2", "deny", "deny br0 vlan=1", "include", "include conf.d/x",
		"include /a /b", "allow\nbr0",
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(no); i++) {
		assert_int_equal(ask(no[i], "br0", NULL), -EINVAL);
		assert_says(err.msg, "list, line 1: ");
	}
	assert_int_equal(ask("allow br0\n\nallow br0 x\n", "br0", NULL), -EINVAL);
	assert_says(err.msg, "list, line 3: ");
}

static char *path;

static void put(const char *text, mode_t mode)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	assert_int_equal(chmod(path, mode), 0);
}

static void test_allow_files(void **state)
{
	char lines[128];

	(void)state;
	if (getuid())
		skip();
	v = (struct vlans){ 0 };
	put("allow br0\n", 0644);
	assert_int_equal(allow_check(path, "br0", &v, &err), 0);
	assert_int_equal(allow_check(path, "br1", &v, &err), -EACCES);
	assert_says(err.msg, "'allow br1'");
	snprintf(lines, sizeof(lines), "include %s\n", path);
	assert_int_equal(ask(lines, "br0", NULL), 1);
	/* A file that includes itself ends. */
	put(lines, 0644);
	assert_int_equal(allow_check(path, "br0", &v, &err), -ELOOP);
	/* Nor is what stands behind a zero byte overlooked. */
	put("allow br0\n", 0644);
	assert_int_equal(truncate(path, 20), 0);
	assert_int_equal(allow_check(path, "br0", &v, &err), -EINVAL);
	assert_says(err.msg, "zero byte");
	put("allow br0\n", 0666);
	assert_int_equal(allow_check(path, "br0", &v, &err), -EPERM);
	assert_int_equal(ask(lines, "br0", NULL), -EPERM);
	put("allow br0\n", 0644);
	assert_int_equal(chown(path, 1, 0), 0);
	assert_int_equal(allow_check(path, "br0", &v, &err), -EPERM);
	assert_int_equal(truncate(path, 1 << 20), 0);
	assert_int_equal(chown(path, 0, 0), 0);
	assert_int_equal(allow_check(path, "br0", &v, &err), -EFBIG);
	unlink(path);
	assert_int_equal(allow_check(path, "br0", &v, &err), -ENOENT);
	assert_says(err.msg, "no user may");
	/* One that is included and not there says nothing. */
	assert_int_equal(ask(lines, "br0", NULL), 0);
	assert_int_equal(allow_check("/proc", "br0", &v, &err), -EPERM);
}

static int setup(void **state)
{
	static char name[] = "/tmp/vmm-allow-test-XXXXXX";
	int fd = mkstemp(name);

	(void)state;
	path = name;
	close(fd);
	return fd < 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(path);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_access), cmocka_unit_test(test_trunk),
		cmocka_unit_test(test_bad), cmocka_unit_test(test_cover),
		cmocka_unit_test(test_allow), cmocka_unit_test(test_allow_vlans),
		cmocka_unit_test(test_allow_errors), cmocka_unit_test(test_allow_files),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
