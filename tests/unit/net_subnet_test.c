/* net_subnet_test.c: subnets read, compared, and chosen beside those in use. */
#include "vmm/net_subnet.h"
#include "tests/lib/test.h"

static struct err err;

static struct subnet subnet(const char *text)
{
	struct subnet s;

	if (subnet_parse(text, &s, &err))
		fail_msg("%s", err.msg);
	return s;
}

static void test_parse(void **state)
{
	static const struct { const char *text, *says; } no[] = {
		{ "", "not a subnet" }, { "10.0.0.0", "not a subnet" }, { "/24", "not a subnet" },
		{ "10.0.0/24", "not a subnet" }, { "10.0.0.0/", "not a subnet" },
		{ "10.0.0.0/24x", "not a subnet" }, { "10.0.0.0/024", "not a subnet" },
		{ "10.0.0.0/-8", "not a subnet" }, { "10.0.0.256/24", "not a subnet" },
		{ " 10.0.0.0/24", "not a subnet" }, { "10.0.0.0/24/24", "not a subnet" },
		{ "fd00::/64", "not a subnet" }, { "10.0.0.0/999", "not a subnet" },
		{ "255.255.255.2550000000/24", "not a subnet" },
		{ "10.0.0.0/30", "/8 to /29" }, { "10.0.0.0/7", "/8 to /29" },
		{ "10.0.0.0/32", "/8 to /29" }, { "10.0.0.1/24", "the subnet is 10.0.0.0/24" },
		{ "10.1.0.0/8", "the subnet is 10.0.0.0/8" }, { "127.0.0.0/8", "not for hosts" },
		{ "0.0.0.0/8", "not for hosts" }, { "224.0.0.0/24", "not for hosts" },
	};
	struct subnet s = subnet("192.168.7.0/24");

	(void)state;
	assert_int_equal(s.addr, 0xc0a80700);
	assert_int_equal(subnet_size(&s), 256);
	assert_string_equal(subnet_text(&s).text, "192.168.7.0/24");
	assert_string_equal(subnet_address(&s, 254).text, "192.168.7.254");
	s = subnet("10.0.0.0/8");
	assert_string_equal(subnet_address(&s, subnet_size(&s) - 2).text, "10.255.255.254");
	subnet("198.51.100.248/29");
	for (unsigned i = 0; i < ARRAY_SIZE(no); i++) {
		assert_int_equal(subnet_parse(no[i].text, &s, &err), -EINVAL);
		assert_says(err.msg, no[i].says);
	}
}

static void test_overlap(void **state)
{
	struct subnet a = subnet("10.5.0.0/16"), in = subnet("10.5.7.0/24"), no = subnet("10.6.0.0/16"),
		      all = subnet("10.0.0.0/8");

	(void)state;
	assert_true(subnet_overlaps(&a, &a));
	assert_true(subnet_overlaps(&a, &in) && subnet_overlaps(&in, &a));
	assert_true(subnet_overlaps(&all, &no));
	assert_false(subnet_overlaps(&a, &no) || subnet_overlaps(&in, &no));
}

static void test_choose(void **state)
{
	struct subnet used[300], got, again, first;
	struct subnet_list list = { used, 0 };

	(void)state;
	assert_int_equal(subnet_choose("default", &list, &first, &err), 0);
	assert_int_equal(first.len, 24);
	assert_int_equal(first.addr >> 16, 0xc0a8);
	assert_int_equal(subnet_choose("default", &list, &again, &err), 0);
	assert_int_equal(first.addr, again.addr);
	assert_int_equal(subnet_choose("other", &list, &got, &err), 0);
	assert_int_not_equal(first.addr, got.addr);
	/* What is taken is passed by, until nothing of that space is left. */
	for (int i = 0; i < 256; i++) {
		assert_int_equal(subnet_choose("default", &list, &got, &err), 0);
		assert_int_equal(got.addr >> 16, 0xc0a8);
		for (unsigned n = 0; n < list.nr; n++)
			assert_false(subnet_overlaps(&got, &used[n]));
		used[list.nr++] = got;
	}
	assert_int_equal(subnet_choose("default", &list, &got, &err), 0);
	assert_int_equal(got.addr >> 20, 0xac1);
	/* A host address or half of a subnet is enough to take it. */
	used[0] = subnet("192.168.0.0/16");
	used[1] = subnet("172.16.0.0/12");
	used[2] = (struct subnet){ 0x0a000000, 9 };
	used[3] = (struct subnet){ 0x0a800000, 10 };
	used[4] = (struct subnet){ 0x0ac00001, 32 };
	list.nr = 5;
	for (int i = 0; i < 250; i++) {
		assert_int_equal(subnet_choose("default", &list, &got, &err), 0);
		assert_int_equal(got.addr >> 22, 0x0ac00000 >> 22);
		assert_int_not_equal(got.addr, 0x0ac00000);
	}
	used[0] = (struct subnet){ 0, 0 };
	list.nr = 1;
	assert_int_equal(subnet_choose("default", &list, &got, &err), -EADDRNOTAVAIL);
	assert_says(err.msg, "--subnet");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse), cmocka_unit_test(test_overlap),
		cmocka_unit_test(test_choose),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
