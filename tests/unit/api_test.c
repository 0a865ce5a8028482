/* api_test.c: every request of the API, right and wrong, in each state of a VM. */
#include <fcntl.h>
#include <jansson.h>
#include <sys/stat.h>
#include "tests/lib/fake_vm.h"
#include "tests/lib/prometheus.h"
#include "tests/lib/test.h"
#include "vmm/api/route.h"
#include "vmm/version.h"

static struct fake_vm f;

static int setup(void **state)
{
	(void)state;
	fake_vm_init(&f);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_vm_fini(&f);
	return 0;
}

#define ok(method, path, body) \
	do { \
		int status_ = fake_vm_request(&f, method, path, body); \
		if (status_ != 200 && status_ != 204) \
			fail_msg("%s %s: %d %s", method, path, status_, fake_vm_answer); \
	} while (0)
#define refused(status, says, method, path, body) \
	do { \
		int status_ = fake_vm_request(&f, method, path, body); \
		if (status_ != (status)) \
			fail_msg("%s %s: %d %s", method, path, status_, fake_vm_answer); \
		assert_says(fake_vm_answer, "{\"fault_message\":\""); \
		assert_says(fake_vm_answer, says); \
	} while (0)

/* --- the contract: every row of the table ----------------------------------------------------- */

/* A value that the field takes, and one of another kind. */
static json_t *right_value(const struct field *f);

static json_t *right_object(const struct schema *s, bool all)
{
	json_t *o = json_object();

	for (unsigned i = 0; i < s->nr; i++)
		if (all || s->fields[i].required)
			json_object_set_new(o, s->fields[i].name, right_value(&s->fields[i]));
	return o;
}

static json_t *right_value(const struct field *fd)
{
	/* Ids are what is in the path. */
	static const char *const ids[] = { "drive_id", "iface_id", "id" };

	switch (fd->kind) {
	case FIELD_BOOL:
		return json_false();
	case FIELD_NUMBER:
		return json_integer(MAX(fd->min, 128U) > (fd->max ?: ~0ULL) ? fd->max :
				    MAX(fd->min, 128U));
	case FIELD_TEXT:
		for (unsigned i = 0; i < ARRAY_SIZE(ids); i++)
			if (!strcmp(fd->name, ids[i]))
				return json_string("x1");
		return json_string(!strcmp(fd->name, "guest_mac") ? "02:00:00:00:00:01" :
				   strstr(fd->name, "_path") ? "/dev/null" : "text");
	case FIELD_WORD:
		return json_string(fd->words[0]);
	case FIELD_OBJECT:
		return right_object(fd->object, true);
	case FIELD_OBJECTS:
		return json_pack("[o]", right_object(fd->object, true));
	case FIELD_TEXTS:
		return json_pack("[s]", "text");
	case FIELD_TEXT_MAP:
		return json_pack("{s:s}", "key", "text");
	default:
		return json_object();
	}
}

static json_t *wrong_value(const struct field *fd)
{
	switch (fd->kind) {
	case FIELD_TEXT:
	case FIELD_WORD:
		return json_integer(7);
	case FIELD_BOOL:
		return json_string("true");
	case FIELD_NUMBER:
		return json_real(1.5);
	default:
		return json_string("text");
	}
}

static const char *path_of(const struct route *r)
{
	static char path[128];
	const char *open = strchr(r->path, '{'), *close = strchr(r->path, '}');

	if (!open)
		return r->path;
	snprintf(path, sizeof(path), "%.*s%s%s", (int)(open - r->path), r->path, "x1", close + 1);
	return path;
}

static int send_json(const struct route *r, json_t *o)
{
	char *text = json_dumps(o, 0);
	int status = fake_vm_request(&f, r->method, path_of(r), text);

	free(text);
	return status;
}

static void give_devices(void)
{
	struct err err;

	ok("PUT", "/drives/x1",
	   "{\"drive_id\":\"x1\",\"is_root_device\":true,\"path_on_host\":\"d\"}");
	ok("PUT", "/network-interfaces/x1",
	   "{\"iface_id\":\"x1\",\"host_dev_name\":\"text\",\"guest_mac\":\"02:00:00:00:00:01\"}");
	assert_int_equal(config_set_text(&f.config.kernel, "k", &err), 0);
}

/* Fields one by one: missing, of another kind, null, out of range. */
static void wrong_fields(const struct route *r)
{
	for (unsigned i = 0; i < r->body->nr; i++) {
		const struct field *fd = &r->body->fields[i];
		json_t *o = right_object(r->body, true);
		char names[80];

		snprintf(names, sizeof(names), "'%s'", fd->name);
		json_object_set_new(o, fd->name, wrong_value(fd));
		assert_int_equal(send_json(r, o), 400);
		assert_says(fake_vm_answer, fd->kind == FIELD_OBJECT ? fd->name : names);
		json_object_set_new(o, fd->name, json_null());
		if (!fd->nullable) {
			assert_int_equal(send_json(r, o), 400);
			assert_says(fake_vm_answer, fd->kind == FIELD_OBJECT ? fd->name : names);
		}
		if (fd->required) {
			json_object_del(o, fd->name);
			assert_int_equal(send_json(r, o), 400);
			assert_says(fake_vm_answer, "missing field");
			assert_says(fake_vm_answer, names);
		}
		if (fd->kind == FIELD_WORD) {
			json_object_set_new(o, fd->name, json_string("neither"));
			assert_int_equal(send_json(r, o), 400);
			assert_says(fake_vm_answer, "'neither' is none of");
		}
		if (fd->kind == FIELD_NUMBER && fd->max) {
			json_object_set_new(o, fd->name, json_integer(fd->max + 1));
			assert_int_equal(send_json(r, o), 400);
			assert_says(fake_vm_answer, "is not between");
		}
		if (fd->kind == FIELD_NUMBER) {
			json_object_set_new(o, fd->name, json_integer((json_int_t)fd->min - 1));
			assert_int_equal(send_json(r, o), 400);
		}
		json_decref(o);
	}
}

static void wrong_bodies(const struct route *r)
{
	json_t *o = right_object(r->body, true);

	if (r->body->nr) {
		json_object_set_new(o, "no_such_field", json_true());
		assert_int_equal(send_json(r, o), 400);
		assert_says(fake_vm_answer, "unknown field 'no_such_field'");
	}
	json_decref(o);
	refused(400, r->body_optional ? "" : "needs a body", r->method, path_of(r), NULL);
	refused(400, "no valid JSON", r->method, path_of(r), "{");
	refused(400, "no valid JSON", r->method, path_of(r), "{} {}");
	refused(400, "no valid JSON", r->method, path_of(r), "{\"a\":1,\"a\":2}");
	refused(400, "no valid JSON", r->method, path_of(r), "\xff\xfe");
	refused(400, "not an object", r->method, path_of(r), "[]");
}

/* What required fields alone do not make sense for, or not in every state. */
static bool is_choosy(const struct route *r)
{
	static const char *const choosy[] = {
		"PUT /actions", "PATCH /machine-config", "PUT /drives/{drive_id}",
		"PATCH /drives/{drive_id}", "PUT /network-interfaces/{iface_id}", "PUT /metrics",
		"PUT /snapshot/create", "PUT /snapshot/load", "PUT /mmds/config",
	};
	char name[100];

	snprintf(name, sizeof(name), "%s %s", r->method, r->path);
	for (unsigned i = 0; i < ARRAY_SIZE(choosy); i++)
		if (!strcmp(name, choosy[i]))
			return true;
	return false;
}

static void expect(const struct route *r, json_t *body, bool whole)
{
	bool started = f.state != API_NOT_STARTED;
	enum api_state before = f.state;
	char *text = body ? json_dumps(body, 0) : NULL;
	int status = fake_vm_request(&f, r->method, path_of(r), text);

	if (r->when == BEFORE_START && started) {
		assert_int_equal(status, 400);
		assert_says(fake_vm_answer, "after the VM was started");
	} else if (r->when == AFTER_START && !started) {
		assert_int_equal(status, 400);
		assert_says(fake_vm_answer, "before the VM was started");
	} else if (r->lacks) {
		assert_int_equal(status, 400);
		assert_says(fake_vm_answer, "this version of vmm does not have");
		assert_says(fake_vm_answer, r->lacks);
	} else if (status != 400 || !(whole || is_choosy(r))) {
		if (status != (r->answer || r->type ? 200 : 204))
			fail_msg("%s %s: %d %s", r->method, r->path, status, fake_vm_answer);
	}
	f.state = before;
	free(text);
}

static void test_contract(void **state)
{
	(void)state;
	give_devices();
	for (unsigned i = 0; i < api_nr_routes; i++)
		for (int s = API_NOT_STARTED; s <= API_PAUSED; s++) {
			const struct route *r = &api_routes[i];

			f.state = s;
			for (int whole = 0; whole < 2; whole++) {
				json_t *body = r->body ? right_object(r->body, whole) : NULL;

				expect(r, body, whole);
				json_decref(body);
			}
			if (r->body) {
				wrong_fields(r);
				wrong_bodies(r);
			} else {
				refused(400, "has no body", r->method, path_of(r), "{}");
			}
		}
}

static void test_methods(void **state)
{
	static const char *const methods[] = { "GET", "PUT", "PATCH", "POST", "DELETE", "HEAD",
					       "OPTIONS", "TRACE", "get", "", "X" };

	(void)state;
	for (unsigned i = 0; i < api_nr_routes; i++)
		for (unsigned m = 0; m < ARRAY_SIZE(methods); m++) {
			bool known = false;

			for (unsigned j = 0; j < api_nr_routes; j++)
				known |= !strcmp(api_routes[j].path, api_routes[i].path) &&
					 !strcmp(api_routes[j].method, methods[m]);
			if (!known)
				refused(400, "invalid request", methods[m],
					path_of(&api_routes[i]), NULL);
		}
}

static void test_paths(void **state)
{
	static const char *const none[] = {
		"/foo", "/versio", "/version/x", "/versions", "/drives", "/drives/", "/vm/", "/vm",
		"/drives/a/b", "/mmds/config/x", "/vmm", "/vmm/v1", "/vmm/v2/vm", "/vmm/v1/vm/x", "*",
		"/%2e", "/snapshot", "/balloon/hinting", "/hotplug", "/../version",
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(none); i++)
		refused(400, "invalid request", "GET", none[i], NULL);
	ok("GET", "/", NULL);
	ok("GET", "", NULL);
	ok("GET", "//", NULL);
	ok("GET", "/version/", NULL);
	ok("GET", "//version", NULL);
	ok("GET", "/vm//config/", NULL);
}

/* --- ids -------------------------------------------------------------------------------------- */

static void test_ids(void **state)
{
	static const char *const bad[] = { "a-b", "a.b", "%20", "a b", "\xc3\xa4", "a'b" };
	char path[200], long_id[120];

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		snprintf(path, sizeof(path), "/drives/%s", bad[i]);
		refused(400, "is no id", "PUT", path, "{}");
	}
	memset(long_id, 'a', sizeof(long_id) - 1);
	long_id[sizeof(long_id) - 1] = 0;
	snprintf(path, sizeof(path), "/drives/%s", long_id);
	refused(400, "the id is too long", "PUT", path, "{}");
	snprintf(path, sizeof(path), "/vmm/v1/disks/%s", long_id);
	refused(400, "the id is too long", "PATCH", path, "{}");
	refused(400, "the path says 'a', and drive_id in the body 'b'", "PUT", "/drives/a",
		"{\"drive_id\":\"b\",\"is_root_device\":false,\"path_on_host\":\"d\"}");
	refused(400, "the path says 'a', and iface_id in the body 'b'", "PUT",
		"/network-interfaces/a", "{\"iface_id\":\"b\",\"host_dev_name\":\"d\"}");
}

/* --- what requests do ------------------------------------------------------------------------- */

static void test_instance(void **state)
{
	(void)state;
	ok("GET", "/", NULL);
	assert_string_equal(fake_vm_answer, "{\"app_name\":\"vmm\",\"id\":\"fake\","
			    "\"state\":\"Not started\",\"vmm_version\":\"0\"}");
	f.state = API_RUNNING;
	ok("GET", "/", NULL);
	assert_says(fake_vm_answer, "\"state\":\"Running\"");
	f.state = API_PAUSED;
	ok("GET", "/", NULL);
	assert_says(fake_vm_answer, "\"state\":\"Paused\"");
	ok("GET", "/version", NULL);
	assert_string_equal(fake_vm_answer, "{\"firecracker_version\":\"" API_VERSION "\"}");
}

static void test_machine(void **state)
{
	(void)state;
	ok("GET", "/machine-config", NULL);
	assert_string_equal(fake_vm_answer, "{\"vcpu_count\":1,\"mem_size_mib\":512,\"smt\":false,"
			    "\"track_dirty_pages\":false,\"huge_pages\":\"None\"}");
	ok("PUT", "/machine-config", "{\"vcpu_count\":4,\"mem_size_mib\":1024,\"smt\":true,"
	   "\"track_dirty_pages\":true,\"huge_pages\":\"2M\",\"cpu_template\":\"None\"}");
	assert_int_equal(f.config.cpus, 4);
	assert_int_equal(f.config.mem, GIB);
	assert_true(f.config.hugepages && f.config.track_dirty_pages);
	ok("GET", "/machine-config", NULL);
	assert_string_equal(fake_vm_answer, "{\"vcpu_count\":4,\"mem_size_mib\":1024,\"smt\":true,"
			    "\"track_dirty_pages\":true,\"huge_pages\":\"2M\"}");
	/* What is not given stays, or is the default again. */
	ok("PATCH", "/machine-config", "{\"vcpu_count\":2}");
	assert_int_equal(f.config.cpus, 2);
	assert_int_equal(f.config.mem, GIB);
	assert_true(f.config.hugepages);
	ok("PUT", "/machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":128}");
	assert_false(f.config.hugepages);
	ok("GET", "/machine-config", NULL);
	assert_says(fake_vm_answer, "\"smt\":false");

	refused(400, "changes nothing", "PATCH", "/machine-config", "{}");
	refused(400, "changes nothing", "PATCH", "/machine-config", "{\"smt\":null}");
	refused(400, "CPU templates", "PUT", "/machine-config",
		"{\"vcpu_count\":1,\"mem_size_mib\":128,\"cpu_template\":\"T2\"}");
	refused(400, "with smt", "PUT", "/machine-config",
		"{\"vcpu_count\":3,\"mem_size_mib\":128,\"smt\":true}");
	refused(400, "with huge pages", "PUT", "/machine-config",
		"{\"vcpu_count\":1,\"mem_size_mib\":129,\"huge_pages\":\"2M\"}");
	refused(400, "mem_size_mib: 15", "PUT", "/machine-config",
		"{\"vcpu_count\":1,\"mem_size_mib\":15}");
	refused(400, "mem_size_mib: 1047553", "PUT", "/machine-config",
		"{\"vcpu_count\":1,\"mem_size_mib\":1047553}");
	/* A request that fails changes nothing. */
	assert_int_equal(f.config.cpus, 1);
	assert_int_equal(f.config.mem, 128 * MIB);
}

static void test_zero_byte(void **state)
{
	static const char body[] = "{\"vcpu_count\":1,\"mem_size_mib\":64\0}";
	json_t *answer = NULL;

	(void)state;
	assert_int_equal(api_request(f.api, "PUT", "/machine-config", body, sizeof(body) - 1, &answer),
			 400);
	assert_says(json_string_value(json_object_get(answer, "fault_message")), "zero byte");
	json_decref(answer);
}

static void test_boot_source(void **state)
{
	(void)state;
	ok("PUT", "/boot-source", "{\"kernel_image_path\":\"k\"}");
	assert_string_equal(f.config.kernel, "k");
	assert_string_equal(f.config.initrd, "none");
	assert_null(f.config.cmdline);
	ok("PUT", "/boot-source",
	   "{\"kernel_image_path\":\"k2\",\"initrd_path\":\"i\",\"boot_args\":\"quiet\"}");
	assert_string_equal(f.config.kernel, "k2");
	assert_string_equal(f.config.initrd, "i");
	assert_string_equal(f.config.cmdline, "quiet");
	refused(400, "Boot source error: missing: No such", "PUT", "/boot-source",
		"{\"kernel_image_path\":\"missing\"}");
	refused(400, "Boot source error: missing: No such", "PUT", "/boot-source",
		"{\"kernel_image_path\":\"k\",\"initrd_path\":\"missing\"}");
	assert_string_equal(f.config.kernel, "k2");
	ok("GET", "/vm/config", NULL);
	assert_says(fake_vm_answer, "\"boot-source\":{\"kernel_image_path\":\"k2\","
		    "\"initrd_path\":\"i\",\"boot_args\":\"quiet\"}");
	ok("PUT", "/boot-source", "{\"kernel_image_path\":\"k\",\"initrd_path\":null,"
	   "\"boot_args\":null}");
	ok("GET", "/vm/config", NULL);
	assert_says(fake_vm_answer, "\"boot-source\":{\"kernel_image_path\":\"k\",\"initrd_path\":null,"
		    "\"boot_args\":null}");
}

#define DRIVE(id, more)	"{\"drive_id\":\"" id "\",\"path_on_host\":\"/" id "\"," more "}"
#define ROOT		"\"is_root_device\":true"
#define NO_ROOT		"\"is_root_device\":false"

static void test_drives(void **state)
{
	(void)state;
	ok("PUT", "/drives/a", DRIVE("a", NO_ROOT));
	ok("PUT", "/drives/b", DRIVE("b", NO_ROOT ",\"is_read_only\":true,"
	   "\"cache_type\":\"Writeback\",\"io_engine\":\"Async\",\"partuuid\":\"1234-01\""));
	ok("PUT", "/drives/root", DRIVE("root", ROOT));
	/* The root device is first, and there is one. */
	assert_int_equal(f.config.nr_disks, 3);
	assert_string_equal(f.config.disk[0].id, "root");
	assert_true(f.config.disk[0].is_root);
	assert_string_equal(f.config.disk[1].id, "a");
	assert_true(f.config.disk[1].no_flush);
	assert_string_equal(f.config.disk[2].path, "/b");
	assert_true(f.config.disk[2].read_only && f.config.disk[2].async);
	assert_false(f.config.disk[2].no_flush);
	assert_string_equal(f.config.disk[2].partuuid, "1234-01");
	assert_string_equal(f.config.disk[2].serial, "b");
	refused(400, "root device already: root", "PUT", "/drives/c", DRIVE("c", ROOT));
	refused(400, "root device already: root", "PUT", "/drives/a", DRIVE("a", ROOT));
	assert_int_equal(f.config.nr_disks, 3);

	/* The same id again is another drive in its place. */
	ok("PUT", "/drives/a", "{\"drive_id\":\"a\",\"path_on_host\":\"/other\"," NO_ROOT "}");
	assert_int_equal(f.config.nr_disks, 3);
	assert_string_equal(f.config.disk[1].path, "/other");
	ok("PUT", "/drives/root", DRIVE("root", NO_ROOT));
	ok("PUT", "/drives/b", DRIVE("b", ROOT));
	assert_string_equal(f.config.disk[0].id, "b");
	assert_string_equal(f.config.disk[2].id, "root");

	refused(400, "path_on_host is missing", "PUT", "/drives/c",
		"{\"drive_id\":\"c\"," NO_ROOT "}");
	refused(400, "vhost-user", "PUT", "/drives/c",
		"{\"drive_id\":\"c\",\"socket\":\"/s\"," NO_ROOT "}");
	refused(400, "Drive config error: /missing: No such", "PUT", "/drives/missing",
		DRIVE("missing", NO_ROOT));
	ok("GET", "/vm/config", NULL);
	assert_says(fake_vm_answer, "{\"drive_id\":\"b\",\"partuuid\":null,\"is_root_device\":true,"
		    "\"cache_type\":\"Unsafe\",\"is_read_only\":false,\"path_on_host\":\"/b\","
		    "\"rate_limiter\":null,\"io_engine\":\"Sync\",\"socket\":null}");
}

static void test_too_many_drives(void **state)
{
	char path[32], body[128];

	(void)state;
	for (int i = 0; i <= CONFIG_MAX_DISKS; i++) {
		snprintf(path, sizeof(path), "/drives/d%d", i);
		snprintf(body, sizeof(body),
			 "{\"drive_id\":\"d%d\",\"path_on_host\":\"p\",\"is_root_device\":false}", i);
		if (i < CONFIG_MAX_DISKS)
			ok("PUT", path, body);
		else
			refused(400, "more than 30 drives", "PUT", path, body);
	}
	assert_int_equal(f.config.nr_disks, CONFIG_MAX_DISKS);
}

static void test_drive_limits(void **state)
{
	(void)state;
	ok("PUT", "/drives/a", DRIVE("a", NO_ROOT ",\"rate_limiter\":{\"bandwidth\":{\"size\":1000,"
	   "\"refill_time\":100,\"one_time_burst\":5000},\"ops\":{\"size\":10,\"refill_time\":0}}"));
	assert_int_equal(f.config.disk[0].limit.bytes.rate, 10000);
	assert_int_equal(f.config.disk[0].limit.bytes.burst, 1000);
	assert_int_equal(f.config.disk[0].limit.bytes.extra, 5000);
	assert_int_equal(f.config.disk[0].limit.ops.rate, 0);
	ok("PUT", "/drives/b", DRIVE("b", NO_ROOT ",\"rate_limiter\":{\"bandwidth\":null}"));
	assert_int_equal(f.config.disk[1].limit.bytes.rate, 0);
	f.state = API_RUNNING;
	ok("PATCH", "/drives/a", "{\"drive_id\":\"a\",\"rate_limiter\":{\"ops\":{\"size\":7,"
	   "\"refill_time\":1000}}}");
	assert_string_equal(f.asked, "disk_limit 0 10000/1000+5000 7/7+0");
	ok("GET", "/vm/config", NULL);
	assert_says(fake_vm_answer, "\"rate_limiter\":{\"bandwidth\":{\"size\":1000,"
		    "\"one_time_burst\":5000,\"refill_time\":100},\"ops\":{\"size\":7,"
		    "\"one_time_burst\":null,\"refill_time\":1000}}");
	/* An empty bucket takes the limit away. */
	ok("PATCH", "/drives/a", "{\"drive_id\":\"a\",\"rate_limiter\":{\"bandwidth\":{\"size\":0,"
	   "\"refill_time\":0}}}");
	assert_string_equal(f.asked, "disk_limit 0 0/0+0 7/7+0");
	f.fail = -EIO;
	refused(400, "Drive config error: told to fail", "PATCH", "/drives/a",
		"{\"drive_id\":\"a\",\"rate_limiter\":{\"ops\":{\"size\":8,\"refill_time\":1}}}");
	assert_int_equal(f.config.disk[0].limit.ops.rate, 7);
	f.ops.disk_limit = NULL;
	refused(400, "cannot limit", "PATCH", "/drives/a",
		"{\"drive_id\":\"a\",\"rate_limiter\":{}}");
}

static void test_patch_drive(void **state)
{
	(void)state;
	ok("PUT", "/drives/a", DRIVE("a", NO_ROOT));
	refused(400, "before the VM was started", "PATCH", "/drives/a",
		"{\"drive_id\":\"a\",\"path_on_host\":\"/new\"}");
	f.state = API_RUNNING;
	ok("PATCH", "/drives/a", "{\"drive_id\":\"a\",\"path_on_host\":\"/new\"}");
	assert_string_equal(f.asked, "disk_replace 0 /new");
	refused(400, "there is no drive 'b'", "PATCH", "/drives/b",
		"{\"drive_id\":\"b\",\"path_on_host\":\"/new\"}");
	refused(400, "neither path_on_host nor", "PATCH", "/drives/a", "{\"drive_id\":\"a\"}");
	refused(400, "path_on_host is empty", "PATCH", "/drives/a",
		"{\"drive_id\":\"a\",\"path_on_host\":\"\"}");
	refused(400, "/missing: No such", "PATCH", "/drives/a",
		"{\"drive_id\":\"a\",\"path_on_host\":\"/missing\"}");
	refused(400, "unplugged", "DELETE", "/drives/a", NULL);
	refused(400, "plugged in", "PUT", "/drives/z", DRIVE("z", NO_ROOT));
	f.ops.disk_replace = NULL;
	refused(400, "cannot change the file", "PATCH", "/drives/a",
		"{\"drive_id\":\"a\",\"path_on_host\":\"/new\"}");
}

#define NET(id, tap, more) \
	"{\"iface_id\":\"" id "\",\"host_dev_name\":\"" tap "\"" more "}"

static void test_nets(void **state)
{
	(void)state;
	ok("PUT", "/network-interfaces/eth0", NET("eth0", "tap0", ""));
	ok("PUT", "/network-interfaces/eth1", NET("eth1", "tap1",
	   ",\"guest_mac\":\"AA:FC:00:00:00:01\",\"mtu\":9000,\"rx_rate_limiter\":{},"
	   "\"tx_rate_limiter\":null"));
	assert_int_equal(f.config.nr_nets, 2);
	assert_string_equal(f.config.net[0].tap, "tap0");
	assert_false(f.config.net[0].has_mac);
	assert_true(f.config.net[1].has_mac);
	assert_int_equal(f.config.net[1].mac[1], 0xfc);
	assert_int_equal(f.config.net[1].mtu, 9000);
	refused(400, "is that of eth1 already", "PUT", "/network-interfaces/eth2",
		NET("eth2", "tap2", ",\"guest_mac\":\"aa:fc:00:00:00:01\""));
	refused(400, "'tap0' is that of another", "PUT", "/network-interfaces/eth2",
		NET("eth2", "tap0", ""));
	refused(400, "guest_mac: 'x'", "PUT", "/network-interfaces/eth2",
		NET("eth2", "tap2", ",\"guest_mac\":\"x\""));
	refused(400, "1 to 15 characters", "PUT", "/network-interfaces/eth2",
		NET("eth2", "a-very-long-name", ""));
	refused(400, "1 to 15 characters", "PUT", "/network-interfaces/eth2", NET("eth2", "", ""));
	refused(400, "'mtu': 67", "PUT", "/network-interfaces/eth2",
		NET("eth2", "tap2", ",\"mtu\":67"));
	assert_int_equal(f.config.nr_nets, 2);
	ok("PUT", "/network-interfaces/eth0", NET("eth0", "tap0", ",\"mtu\":1400"));
	assert_int_equal(f.config.nr_nets, 2);
	assert_int_equal(f.config.net[0].mtu, 1400);
	ok("GET", "/vm/config", NULL);
	assert_says(fake_vm_answer, "\"network-interfaces\":[{\"iface_id\":\"eth0\","
		    "\"host_dev_name\":\"tap0\",\"guest_mac\":null,\"mtu\":1400,"
		    "\"rx_rate_limiter\":null,\"tx_rate_limiter\":null},{\"iface_id\":\"eth1\","
		    "\"host_dev_name\":\"tap1\",\"guest_mac\":\"aa:fc:00:00:00:01\",\"mtu\":9000,"
		    "\"rx_rate_limiter\":null,\"tx_rate_limiter\":null}]");
	f.state = API_RUNNING;
	ok("PATCH", "/network-interfaces/eth1", "{\"iface_id\":\"eth1\",\"rx_rate_limiter\":"
	   "{\"bandwidth\":{\"size\":9,\"refill_time\":1}}}");
	assert_string_equal(f.asked, "net_limit 1 9000 0");
	refused(400, "no network interface 'eth9'", "PATCH", "/network-interfaces/eth9",
		"{\"iface_id\":\"eth9\"}");
	refused(400, "unplugged", "DELETE", "/network-interfaces/eth1", NULL);
}

/* --- metadata --------------------------------------------------------------------------------- */

#define give_net(id) \
	ok("PUT", "/network-interfaces/" id, "{\"iface_id\":\"" id "\",\"host_dev_name\":\"tap-" id "\"}")

static void test_mmds(void **state)
{
	static char text[API_MAX_BODY + 100], xs[API_MAX_BODY + 1];

	(void)state;
	ok("GET", "/mmds", NULL);
	assert_string_equal(fake_vm_answer, "{}");
	refused(400, "The MMDS data store is not initialized.", "PATCH", "/mmds", "{\"a\":1}");
	refused(400, "not an object", "PUT", "/mmds", "[1]");
	ok("PUT", "/mmds", "{\"a\":{\"b\":\"c\"}}");
	/* Another's copy: a body's life is short. */
	ok("GET", "/mmds", NULL);
	assert_string_equal(fake_vm_answer, "{\"a\":{\"b\":\"c\"}}");
	f.state = API_RUNNING;
	ok("PATCH", "/mmds", "{\"a\":{\"b\":null,\"d\":1}}");
	ok("GET", "/mmds", NULL);
	assert_string_equal(fake_vm_answer, "{\"a\":{\"d\":1}}");
	f.state = API_PAUSED;
	ok("PUT", "/mmds", "{}");
	/* Exactly as much as there may be, and by one more. */
	memset(xs, 'x', API_MAX_BODY);
	snprintf(text, sizeof(text), "{\"a\":\"%.*s\"}", API_MAX_BODY - 8, xs);
	ok("PUT", "/mmds", text);
	refused(413, "The MMDS patch request doesn't fit.", "PATCH", "/mmds", "{\"b\":1}");
	snprintf(text, sizeof(text), "{\"a\":\"%.*s\"}", API_MAX_BODY - 7, xs);
	refused(413, "The MMDS patch request doesn't fit.", "PUT", "/mmds", text);
	ok("PATCH", "/mmds", "{\"a\":null,\"b\":1}");
	ok("GET", "/mmds", NULL);
	assert_string_equal(fake_vm_answer, "{\"b\":1}");
}

static void test_mmds_config(void **state)
{
	static const char *const not_local[] = { "1.1.1.1", "169.254.0.1", "169.254.255.1", "169.253.1.1" };
	char body[120];

	(void)state;
	ok("GET", "/vm/config", NULL);
	assert_says(fake_vm_answer, "\"mmds-config\":null");
	refused(400, "is empty", "PUT", "/mmds/config", "{\"network_interfaces\":[]}");
	refused(400, "does not correspond to any existing network interface.", "PUT", "/mmds/config",
		"{\"network_interfaces\":[\"eth0\"]}");
	give_net("eth0");
	give_net("eth1");
	for (unsigned i = 0; i < ARRAY_SIZE(not_local); i++) {
		snprintf(body, sizeof(body), "{\"network_interfaces\":[\"eth0\"],\"ipv4_address\":\"%s\"}",
			 not_local[i]);
		refused(400, "The MMDS IPv4 address is not link local.", "PUT", "/mmds/config", body);
	}
	refused(400, "'' is not an address", "PUT", "/mmds/config",
		"{\"network_interfaces\":[\"eth0\"],\"ipv4_address\":\"\"}");
	refused(400, "any existing", "PUT", "/mmds/config", "{\"network_interfaces\":[\"eth0\",\"eth2\"]}");
	assert_int_equal(f.config.mmds.cards, 0);
	ok("PUT", "/mmds/config", "{\"network_interfaces\":[\"eth1\"]}");
	ok("GET", "/vm/config", NULL);
	assert_says(fake_vm_answer, "\"mmds-config\":{\"version\":\"V1\",\"network_interfaces\":[\"eth1\"],"
		    "\"ipv4_address\":\"169.254.169.254\",\"imds_compat\":false}");
	/* Anew: nothing of the old one stays; an interface that is replaced has it still. */
	ok("PUT", "/mmds/config", "{\"network_interfaces\":[\"eth0\"],\"version\":\"V2\","
	   "\"ipv4_address\":\"169.254.170.2\",\"imds_compat\":true}");
	give_net("eth0");
	ok("GET", "/vm/config", NULL);
	assert_says(fake_vm_answer, "\"mmds-config\":{\"version\":\"V2\",\"network_interfaces\":[\"eth0\"],"
		    "\"ipv4_address\":\"169.254.170.2\",\"imds_compat\":true}");
	f.state = API_RUNNING;
	refused(400, "after the VM was started", "PUT", "/mmds/config", "{\"network_interfaces\":[\"eth0\"]}");
}

/* V1 is, by the definition; a snapshot does not begin after it. */
static void test_mmds_deprecated(void **state)
{
	(void)state;
	give_net("eth0");
	ok("PUT", "/mmds/config", "{\"network_interfaces\":[\"eth0\"]}");
	assert_int_equal(f.api->metrics.deprecated, 1);
	ok("PUT", "/mmds/config", "{\"network_interfaces\":[\"eth0\"],\"version\":\"V1\"}");
	assert_int_equal(f.api->metrics.deprecated, 2);
	ok("PUT", "/mmds/config", "{\"network_interfaces\":[\"eth0\"],\"version\":\"V2\"}");
	assert_int_equal(f.api->metrics.deprecated, 2);
}

static void test_no_net_limits(void **state)
{
	(void)state;
	f.ops.net_limit = NULL;
	ok("PUT", "/network-interfaces/a", NET("a", "tap0", ",\"rx_rate_limiter\":{}"));
	refused(400, "cannot limit", "PUT", "/network-interfaces/b", NET("b", "tap1",
		",\"tx_rate_limiter\":{\"ops\":{\"size\":1,\"refill_time\":1}}"));
	f.state = API_RUNNING;
	refused(400, "cannot limit", "PATCH", "/network-interfaces/a", "{\"iface_id\":\"a\"}");
}

static void test_actions(void **state)
{
	(void)state;
	refused(400, "Start error: there is no kernel", "PUT", "/actions",
		"{\"action_type\":\"InstanceStart\"}");
	ok("PUT", "/boot-source", "{\"kernel_image_path\":\"k\"}");
	refused(400, "before the VM was started", "PUT", "/actions",
		"{\"action_type\":\"SendCtrlAltDel\"}");
	refused(400, "before the VM was started", "PUT", "/actions",
		"{\"action_type\":\"FlushMetrics\"}");
	f.fail = -ENOMEM;
	refused(400, "Start error: told to fail", "PUT", "/actions",
		"{\"action_type\":\"InstanceStart\"}");
	assert_int_equal(f.state, API_NOT_STARTED);
	ok("PUT", "/actions", "{\"action_type\":\"InstanceStart\"}");
	assert_int_equal(f.starts, 1);
	refused(400, "after the VM was started", "PUT", "/actions",
		"{\"action_type\":\"InstanceStart\"}");
	assert_int_equal(f.starts, 1);
	ok("PUT", "/actions", "{\"action_type\":\"SendCtrlAltDel\"}");
	assert_string_equal(f.asked, "power_button");
	ok("PUT", "/actions", "{\"action_type\":\"FlushMetrics\"}");
}

static void test_pause(void **state)
{
	(void)state;
	f.state = API_RUNNING;
	ok("PATCH", "/vm", "{\"state\":\"Paused\"}");
	assert_int_equal(f.state, API_PAUSED);
	ok("PATCH", "/vm", "{\"state\":\"Paused\"}");
	ok("PATCH", "/vm", "{\"state\":\"Resumed\"}");
	assert_int_equal(f.state, API_RUNNING);
	f.fail = -EIO;
	refused(400, "told to fail", "PATCH", "/vm", "{\"state\":\"Paused\"}");
	f.ops.pause = f.ops.resume = NULL;
	refused(400, "cannot be paused", "PATCH", "/vm", "{\"state\":\"Paused\"}");
	refused(400, "cannot be resumed", "PATCH", "/vm", "{\"state\":\"Resumed\"}");
	refused(400, "cannot be paused", "POST", "/vmm/v1/vm/pause", NULL);
	refused(400, "cannot be resumed", "POST", "/vmm/v1/vm/resume", NULL);
}

static void test_small_ones(void **state)
{
	(void)state;
	ok("PUT", "/serial", "{\"serial_out_path\":\"/tmp/out\"}");
	assert_string_equal(f.config.serial, "file:/tmp/out");
	ok("PUT", "/serial", "{}");
	assert_null(f.config.serial);
	refused(400, "Serial error", "PUT", "/serial",
		"{\"rate_limiter\":{\"size\":1,\"refill_time\":1}}");
	refused(400, "serial_out_path is empty", "PUT", "/serial", "{\"serial_out_path\":\"\"}");
	ok("GET", "/vm/config", NULL);
	assert_says(fake_vm_answer, "\"entropy\":null");
	ok("PUT", "/entropy", "{}");
	ok("PUT", "/entropy", "{\"rate_limiter\":{}}");
	ok("GET", "/vm/config", NULL);
	assert_says(fake_vm_answer, "\"entropy\":{\"rate_limiter\":null}");
	ok("PUT", "/entropy", "{\"rate_limiter\":{\"ops\":{\"size\":3,\"refill_time\":100}}}");
	assert_int_equal(f.config.entropy.ops.rate, 30);
	assert_int_equal(f.config.entropy.bytes.rate, 0);
	ok("GET", "/vm/config", NULL);
	assert_says(fake_vm_answer, "\"entropy\":{\"rate_limiter\":{\"bandwidth\":null,\"ops\":{"
		    "\"size\":3,\"one_time_burst\":null,\"refill_time\":100}}}");
	ok("PUT", "/entropy", "{}");
	assert_int_equal(f.config.entropy.ops.rate, 0);
	ok("PUT", "/cpu-config", "{}");
	ok("PUT", "/cpu-config", "{\"cpuid_modifiers\":[],\"msr_modifiers\":null}");
	refused(400, "Configure CPU error", "PUT", "/cpu-config", "{\"kvm_capabilities\":[\"121\"]}");
	refused(400, "cpuid_modifiers[0]: missing field 'leaf'", "PUT", "/cpu-config",
		"{\"cpuid_modifiers\":[{\"subleaf\":\"0x0\",\"flags\":0,\"modifiers\":[]}]}");
}

/* --- logs ------------------------------------------------------------------------------------- */

static json_t *last_line(const char *path)
{
	static char line[1 << 16], last[1 << 16];
	FILE *file = fopen(path, "r");
	json_t *root;

	assert_non_null(file);
	while (fgets(line, sizeof(line), file))
		memcpy(last, line, sizeof(last));
	fclose(file);
	root = json_loads(last, 0, NULL);
	assert_non_null(root);
	return root;
}

static int number(const json_t *root, const char *group, const char *key)
{
	const json_t *n = json_object_get(json_object_get(root, group), key);

	if (!json_is_integer(n))
		fail_msg("no %s.%s", group, key);
	return json_integer_value(n);
}

static void test_metrics(void **state)
{
	char path[] = "/tmp/vmm-api-test-XXXXXX", body[128];
	int fd = mkstemp(path);
	json_t *line;

	(void)state;
	close(fd);
	refused(400, "Metrics error: /nonexistent/", "PUT", "/metrics",
		"{\"metrics_path\":\"/nonexistent/m\"}");
	snprintf(body, sizeof(body), "{\"metrics_path\":\"%s\",\"emit_id\":true,"
		 "\"properties\":{\"rack\":\"7\"}}", path);
	ok("PUT", "/metrics", body);
	refused(400, "they go to", "PUT", "/metrics", body);
	ok("GET", "/vm/config", NULL);
	assert_says(fake_vm_answer, path);
	give_devices();
	refused(400, "", "PUT", "/boot-source", "{}");
	f.state = API_RUNNING;
	ok("PUT", "/actions", "{\"action_type\":\"FlushMetrics\"}");
	line = last_line(path);
	assert_string_equal(json_string_value(json_object_get(line, "id")), "fake");
	assert_int_equal(number(line, "put_api_requests", "drive_count"), 1);
	assert_int_equal(number(line, "put_api_requests", "boot_source_count"), 1);
	assert_int_equal(number(line, "put_api_requests", "boot_source_fails"), 1);
	assert_int_equal(number(line, "put_api_requests", "metrics_count"), 3);
	assert_int_equal(number(line, "put_api_requests", "metrics_fails"), 2);
	assert_true(json_integer_value(json_object_get(line, "utc_timestamp_ms")) > 0);
	json_decref(line);
	ok("PUT", "/actions", "{\"action_type\":\"FlushMetrics\"}");
	line = last_line(path);		/* what is new */
	assert_int_equal(number(line, "put_api_requests", "drive_count"), 0);
	assert_int_equal(number(line, "put_api_requests", "actions_count"), 1);
	json_decref(line);
	unlink(path);
}

/* All that Firecracker 1.17 writes, and its readers insist on, no more and no less; "agg" has
 * fields of its own. */
static const struct { const char *group, *fields; } line_has[] = {
	{ "api_server", "process_startup_time_us process_startup_time_cpu_us" },
	{ "balloon", "activate_fails inflate_count stats_updates_count stats_update_fails deflate_count "
	  "event_fails free_page_report_count free_page_report_freed free_page_report_fails "
	  "free_page_hint_count free_page_hint_freed free_page_hint_fails" },
	{ "block", "activate_fails cfg_fails no_avail_buffer event_fails execute_fails "
	  "invalid_reqs_count flush_count queue_event_count rate_limiter_event_count update_count "
	  "update_fails read_bytes write_bytes read_count write_count rate_limiter_throttled_events "
	  "io_engine_throttled_events remaining_reqs_count read_agg write_agg" },
	{ "deprecated_api", "deprecated_http_api_calls" },
	{ "entropy", "activate_fails entropy_event_fails entropy_event_count entropy_bytes "
	  "host_rng_fails entropy_rate_limiter_throttled rate_limiter_event_count" },
	{ "get_api_requests", "instance_info_count machine_cfg_count mmds_count vmm_version_count "
	  "hotplug_memory_count" },
	{ "i8042", "error_count missed_read_count missed_write_count read_count reset_count "
	  "write_count" },
	{ "interrupts", "triggers config_updates" },
	{ "latencies_us", "full_create_snapshot diff_create_snapshot load_snapshot pause_vm resume_vm "
	  "vmm_full_create_snapshot vmm_diff_create_snapshot vmm_load_snapshot vmm_pause_vm "
	  "vmm_resume_vm" },
	{ "logger", "missed_metrics_count metrics_fails missed_log_count rate_limited_log_count" },
	{ "memory_hotplug", "activate_fails queue_event_fails queue_event_count plug_count plug_bytes "
	  "plug_fails plug_agg unplug_count unplug_bytes unplug_fails unplug_discard_fails unplug_agg "
	  "unplug_all_count unplug_all_fails unplug_all_agg state_count state_fails state_agg" },
	{ "mmds", "rx_accepted rx_accepted_err rx_accepted_unusual rx_bad_eth rx_invalid_token "
	  "rx_no_token rx_count tx_bytes tx_count tx_errors tx_frames connections_created "
	  "connections_destroyed" },
	{ "net", "activate_fails cfg_fails no_rx_avail_buffer no_tx_avail_buffer event_fails "
	  "rx_queue_event_count rx_event_rate_limiter_count rx_rate_limiter_throttled "
	  "rx_tap_event_count rx_bytes_count rx_packets_count rx_fails rx_count tap_read_fails "
	  "tap_write_fails tap_write_agg tx_bytes_count tx_malformed_frames tx_fails tx_count "
	  "tx_packets_count tx_queue_event_count tx_rate_limiter_event_count tx_rate_limiter_throttled "
	  "tx_spoofed_mac_count tx_remaining_reqs_count" },
	{ "patch_api_requests", "drive_count drive_fails network_count network_fails machine_cfg_count "
	  "machine_cfg_fails mmds_count mmds_fails hotplug_memory_count hotplug_memory_fails pmem_count "
	  "pmem_fails" },
	{ "pmem", "activate_fails cfg_fails event_fails queue_event_count "
	  "rate_limiter_throttled_events rate_limiter_event_count" },
	{ "put_api_requests", "actions_count actions_fails boot_source_count boot_source_fails "
	  "drive_count drive_fails logger_count logger_fails machine_cfg_count machine_cfg_fails "
	  "cpu_cfg_count cpu_cfg_fails metrics_count metrics_fails network_count network_fails "
	  "mmds_count mmds_fails vsock_count vsock_fails pmem_count pmem_fails serial_count "
	  "serial_fails hotplug_memory_count hotplug_memory_fails" },
	{ "seccomp", "num_faults" },
	{ "signals", "sigbus sigsegv sigxfsz sigxcpu sigpipe sighup sigill" },
	{ "uart", "error_count flush_count missed_read_count missed_write_count read_count "
	  "write_count rate_limiter_dropped_bytes" },
	{ "vcpu", "exit_io_in exit_io_out exit_mmio_read exit_mmio_write failures kvmclock_ctrl_fails "
	  "exit_io_in_agg exit_io_out_agg exit_mmio_read_agg exit_mmio_write_agg" },
	{ "vmm", "panic_count" },
	{ "vsock", "activate_fails cfg_fails rx_queue_event_fails tx_queue_event_fails "
	  "ev_queue_event_fails muxer_event_fails conn_event_fails rx_queue_event_count "
	  "tx_queue_event_count rx_bytes_count tx_bytes_count rx_packets_count tx_packets_count "
	  "conns_added conns_killed conns_removed killq_resync tx_flush_fails tx_write_fails "
	  "rx_read_fails" },
};

static void check_group(const json_t *line, const char *name, const char *fields)
{
	const json_t *group = json_object_get(line, name);
	char *list = strdup(fields), *save;
	size_t nr = 0;

	for (char *s = strtok_r(list, " ", &save); s; s = strtok_r(NULL, " ", &save), nr++) {
		const json_t *v = json_object_get(group, s);
		size_t len = strlen(s);

		if (len > 4 && !strcmp(s + len - 4, "_agg"))
			check_group(group, s, "min_us max_us sum_us");
		else if (!json_is_integer(v) || json_integer_value(v) < 0)
			fail_msg("no %s.%s", name, s);
	}
	if (json_object_size(group) != nr)
		fail_msg("%s has %zu fields, not %zu", name, json_object_size(group), nr);
	free(list);
}

/* path: of mkstemp; the lines go there. */
static void give_metrics_file(char *path)
{
	int fd = mkstemp(path);
	char body[128];

	close(fd);
	snprintf(body, sizeof(body), "{\"metrics_path\":\"%s\"}", path);
	ok("PUT", "/metrics", body);
}

static json_t *flush(const char *path)
{
	ok("PUT", "/actions", "{\"action_type\":\"FlushMetrics\"}");
	return last_line(path);
}

static void test_metrics_are_all(void **state)
{
	char path[] = "/tmp/vmm-api-test-XXXXXX";
	json_t *line;

	(void)state;
	give_metrics_file(path);
	give_devices();
	f.state = API_RUNNING;
	line = flush(path);
	for (unsigned i = 0; i < ARRAY_SIZE(line_has); i++) {
		check_group(line, line_has[i].group, line_has[i].fields);
		if (!strcmp(line_has[i].group, "block"))
			check_group(line, "block_x1", line_has[i].fields);
		if (!strcmp(line_has[i].group, "net"))
			check_group(line, "net_x1", line_has[i].fields);
	}
	/* The time, a disk, a card. */
	assert_int_equal(json_object_size(line), ARRAY_SIZE(line_has) + 3);
	json_decref(line);
	unlink(path);
}

/* A pipe that has no room for all of a line. */
static void test_torn_line(void **state)
{
	char path[] = "/tmp/vmm-api-test-XXXXXX", body[128], *text, *line;
	struct err err;
	int fd = mkstemp(path), room;
	json_t *root;
	ssize_t len;

	(void)state;
	close(fd);
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	snprintf(body, sizeof(body), "{\"metrics_path\":\"%s\"}", path);
	ok("PUT", "/metrics", body);
	fd = open(path, O_RDONLY | O_NONBLOCK);
	room = fcntl(fd, F_GETPIPE_SZ);
	text = calloc(1, room + 1);
	for (int i = 0; i < 100; i++)
		assert_int_equal(api_metrics_flush(f.api, &err), 0);
	for (int i = 0; i < 2; i++) {
		/* The end of the first half is torn; after it all are whole. */
		len = read(fd, text, room);
		assert_true(len > 0);
		text[len] = 0;
		assert_int_equal(api_metrics_flush(f.api, &err), 0);
	}
	line = text + (*text == '\n');
	root = json_loads(line, JSON_DISABLE_EOF_CHECK, NULL);
	assert_non_null(root);
	assert_true(number(root, "logger", "missed_metrics_count") >= 1);
	json_decref(root);
	close(fd);
	free(text);
	unlink(path);
}

/* A disk and a network card, as their devices count. */
static struct { u64 bytes, requests; struct histogram latency; } disk_counts[2];
static u64 net_bytes;
static const struct metric disk_metric[] = {
	{ "disk_bytes_total", "op=\"read\"", "Bytes", .offset = 0 },
	{ "disk_requests_total", "op=\"read\"", "Requests", .offset = 8 },
	{ "disk_latency_seconds", "op=\"read\"", "Latency", METRIC_HISTOGRAM, .offset = 16 },
};
static const struct metric net_metric[] = {
	{ "net_bytes_total", "direction=\"tx\"", "Bytes", .offset = 0 },
};
static const struct metric_table disk_table = { "device", disk_metric, ARRAY_SIZE(disk_metric) };
static const struct metric_table net_table = { "device", net_metric, 1 };
static struct metric_set counted[] = {
	{ .table = &disk_table, .owner = "disk0", .counters = &disk_counts[0] },
	{ .table = &disk_table, .owner = "disk1", .counters = &disk_counts[1] },
	{ .table = &net_table, .owner = "net0", .counters = &net_bytes },
};

static void give_counters(void)
{
	memset(disk_counts, 0, sizeof(disk_counts));
	net_bytes = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(counted); i++)
		metrics_add(&f.metrics, &counted[i]);
}

static void test_device_metrics(void **state)
{
	char path[] = "/tmp/vmm-api-test-XXXXXX";
	json_t *line;

	(void)state;
	give_metrics_file(path);
	give_devices();
	give_counters();
	ok("PUT", "/drives/x2", DRIVE("x2", NO_ROOT));
	f.state = API_RUNNING;
	disk_counts[0].bytes = 4096;
	disk_counts[1].bytes = 512;
	histogram_add(&disk_counts[0].latency, 7000);
	net_bytes = 60;
	line = flush(path);
	assert_int_equal(number(line, "block", "read_bytes"), 4608);
	assert_int_equal(number(line, "block_x1", "read_bytes"), 4096);
	assert_int_equal(number(line, "block_x2", "read_bytes"), 512);
	assert_int_equal(number(line, "net", "tx_bytes_count"), 60);
	assert_int_equal(number(line, "net_x1", "tx_bytes_count"), 60);
	assert_int_equal(number(line, "vcpu", "exit_io_in"), 0);
	assert_int_equal(number(line, "uart", "write_count"), 0);
	assert_int_equal(number(line, "entropy", "entropy_bytes"), 0);
	assert_int_equal(number(json_object_get(line, "block_x1"), "read_agg", "sum_us"), 7);
	json_decref(line);
	disk_counts[0].bytes += 100;
	line = flush(path);			/* what is new */
	assert_int_equal(number(line, "block", "read_bytes"), 100);
	assert_int_equal(number(line, "block_x2", "read_bytes"), 0);
	assert_int_equal(number(json_object_get(line, "block_x1"), "read_agg", "sum_us"), 0);
	assert_int_equal(number(json_object_get(line, "block_x1"), "read_agg", "min_us"), 7);
	json_decref(line);
	disk_counts[0].bytes += 5;		/* the guest reboots */
	api_machine_ends(f.api);
	disk_counts[0].bytes = 30;
	line = flush(path);
	assert_int_equal(number(line, "block_x1", "read_bytes"), 35);
	assert_int_equal(number(line, "block", "read_bytes"), 35 + 512);
	json_decref(line);
	ok("PATCH", "/drives/x2", "{\"drive_id\":\"x2\",\"path_on_host\":\"/other\"}");
	refused(400, "", "PATCH", "/drives/x2", "{\"drive_id\":\"x2\",\"path_on_host\":\"/missing\"}");
	line = flush(path);
	assert_int_equal(number(line, "block_x2", "update_count"), 1);
	assert_int_equal(number(line, "block_x2", "update_fails"), 1);
	assert_int_equal(number(line, "block", "update_count"), 1);
	json_decref(line);
	line = flush(path);
	assert_int_equal(number(line, "block_x2", "update_count"), 0);
	json_decref(line);
	ok("PATCH", "/vm", "{\"state\":\"Paused\"}");
	line = flush(path);
	assert_true(number(line, "latencies_us", "pause_vm") >= 0);
	json_decref(line);
	unlink(path);
}

static void test_own_metrics(void **state)
{
	(void)state;
	ok("GET", "/vmm/v1/metrics", NULL);
	prometheus_check(fake_vm_answer);
	assert_true(prometheus_value(fake_vm_answer, "vmm_info{name=\"fake\",version=\""
				     VMM_VERSION "\"}") == 1);
	give_counters();
	f.state = API_RUNNING;
	disk_counts[0].bytes = 4096;
	disk_counts[1].bytes = 512;
	disk_counts[1].requests = 1;
	net_bytes = 60;
	ok("GET", "/vmm/v1/metrics", NULL);
	prometheus_check(fake_vm_answer);
	assert_true(prometheus_value(fake_vm_answer,
		"vmm_disk_bytes_total{device=\"disk1\",op=\"read\"}") == 512);
	ok("GET", "/vmm/v1/stats", NULL);
	assert_says(fake_vm_answer, "\"state\":\"running\"");
	assert_says(fake_vm_answer, "\"disk_read_bytes\":4608,");
	assert_says(fake_vm_answer, "\"disk_reads\":1,");
	assert_says(fake_vm_answer, "\"net_tx_bytes\":60,");
	refused(400, "no body", "GET", "/vmm/v1/metrics", "{}");
}

static void test_logger(void **state)
{
	char path[] = "/tmp/vmm-api-test-XXXXXX", body[160], line[200] = "";
	int fd = mkstemp(path);
	FILE *file;

	(void)state;
	close(fd);
	snprintf(body, sizeof(body), "{\"log_path\":\"%s\",\"level\":\"WARNING\","
		 "\"show_level\":true,\"show_log_origin\":false,\"module\":\"x\"}", path);
	ok("PUT", "/logger", body);
	log_info("not this");
	log_warn("but this");
	ok("PUT", "/logger", "{\"level\":\"Off\"}");
	log_err("nor that");
	file = fopen(path, "r");
	assert_non_null(fgets(line, sizeof(line), file));
	assert_string_equal(line + strlen("2026-01-01T00:00:00.000000Z"),
			    " vmm: warn: but this\n");
	assert_null(fgets(line, sizeof(line), file));
	fclose(file);
	ok("GET", "/vm/config", NULL);
	assert_says(fake_vm_answer, path);
	refused(400, "Logger error: /nonexistent/", "PUT", "/logger",
		"{\"log_path\":\"/nonexistent/l\"}");
	ok("PUT", "/logger", "{\"log_path\":\"/dev/null\",\"show_level\":false}");
	unlink(path);
}

/* --- our own ---------------------------------------------------------------------------------- */

static void test_own_vm(void **state)
{
	(void)state;
	ok("GET", "/vmm/v1/vm", NULL);
	assert_says(fake_vm_answer, "\"state\":\"not-started\"");
	assert_says(fake_vm_answer, "\"uptime_ms\":0,\"console\":\"stdio\"");
	refused(400, "no kernel", "POST", "/vmm/v1/vm/start", NULL);
	ok("PUT", "/boot-source", "{\"kernel_image_path\":\"k\"}");
	ok("POST", "/vmm/v1/vm/start", NULL);
	refused(400, "after", "POST", "/vmm/v1/vm/start", NULL);
	ok("POST", "/vmm/v1/vm/pause", NULL);
	ok("GET", "/vmm/v1/vm", NULL);
	assert_says(fake_vm_answer, "\"state\":\"paused\"");
	assert_says(fake_vm_answer, "\"kernel\":\"k\"");
	ok("POST", "/vmm/v1/vm/resume", NULL);
	assert_int_equal(f.state, API_RUNNING);
	ok("POST", "/vmm/v1/vm/power-button", NULL);
	assert_string_equal(f.asked, "power_button");
	ok("POST", "/vmm/v1/vm/stop", NULL);
	assert_string_equal(f.asked, "stop");
}

static void test_own_disks(void **state)
{
	(void)state;
	ok("GET", "/vmm/v1/disks", NULL);
	assert_string_equal(fake_vm_answer, "{\"disks\":[]}");
	ok("PUT", "/drives/a", DRIVE("a", ROOT));
	ok("PUT", "/drives/b", DRIVE("b", NO_ROOT ",\"is_read_only\":true"));
	ok("GET", "/vmm/v1/disks", NULL);
	assert_string_equal(fake_vm_answer, "{\"disks\":["
		"{\"disk\":\"a\",\"path\":\"/a\",\"format\":\"raw\","
		"\"size\":1048576,\"read_only\":false,\"root\":true},"
		"{\"disk\":\"b\",\"path\":\"/b\",\"format\":\"raw\","
		"\"size\":2097152,\"read_only\":true,\"root\":false}]}");
	f.state = API_RUNNING;
	ok("POST", "/vmm/v1/disks/b/snapshots", "{\"name\":\"before\"}");
	assert_string_equal(f.asked, "disk_snapshot 1 before");
	ok("PATCH", "/vmm/v1/disks/a", "{\"size\":4194304}");
	assert_string_equal(f.asked, "disk_resize 0 4194304");
	refused(404, "no disk 'c'", "PATCH", "/vmm/v1/disks/c", "{\"size\":4194304}");
	refused(404, "no disk 'c'", "POST", "/vmm/v1/disks/c/snapshots", "{\"name\":\"x\"}");
	f.fail = -ENOSPC;
	refused(500, "told to fail", "PATCH", "/vmm/v1/disks/a", "{\"size\":4194304}");
	f.ops.disk_resize = NULL;
	f.ops.disk_snapshot = NULL;
	refused(400, "cannot resize", "PATCH", "/vmm/v1/disks/a", "{\"size\":4194304}");
	refused(400, "cannot take a snapshot", "POST", "/vmm/v1/disks/a/snapshots",
		"{\"name\":\"x\"}");
}

static void test_own_nets(void **state)
{
	(void)state;
	ok("PUT", "/network-interfaces/eth", "{\"iface_id\":\"eth\",\"host_dev_name\":\"t0\"}");
	f.state = API_RUNNING;
	ok("PATCH", "/vmm/v1/nets/eth", "{\"link\":\"down\"}");
	assert_string_equal(f.asked, "net_link 0 down");
	ok("PATCH", "/vmm/v1/nets/eth", "{\"link\":\"up\"}");
	assert_string_equal(f.asked, "net_link 0 up");
	refused(404, "no network interface 'net1'", "PATCH", "/vmm/v1/nets/net1", "{\"link\":\"up\"}");
	refused(400, "link", "PATCH", "/vmm/v1/nets/eth", "{\"link\":\"sideways\"}");
	f.fail = -ENODEV;
	refused(400, "told to fail", "PATCH", "/vmm/v1/nets/eth", "{\"link\":\"up\"}");
	f.ops.net_link = NULL;
	refused(400, "cannot change a link", "PATCH", "/vmm/v1/nets/eth", "{\"link\":\"up\"}");
}

static void test_vsock(void **state)
{
	char body[200];

	(void)state;
	ok("GET", "/vm/config", NULL);
	assert_says(fake_vm_answer, "\"vsock\":null");
	refused(400, "guest_cid", "PUT", "/vsock", "{\"guest_cid\":2,\"uds_path\":\"/v\"}");
	refused(400, "guest_cid", "PUT", "/vsock", "{\"guest_cid\":4294967295,\"uds_path\":\"/v\"}");
	refused(400, "Vsock config error: vsock: uds '': a socket's path has 1 to 107 bytes", "PUT", "/vsock",
		"{\"guest_cid\":3,\"uds_path\":\"\"}");
	snprintf(body, sizeof(body), "{\"guest_cid\":3,\"uds_path\":\"%0108d\"}", 0);
	refused(400, "a socket's path has", "PUT", "/vsock", body);
	assert_null(f.config.vsock.path);
	ok("PUT", "/vsock", "{\"guest_cid\":3,\"uds_path\":\"/v\"}");
	ok("PUT", "/vsock", "{\"guest_cid\":4294967294,\"uds_path\":\"./w\",\"vsock_id\":null}");
	assert_string_equal(f.config.vsock.path, "./w");
	assert_int_equal(f.config.vsock.cid, UINT32_MAX - 1);
	ok("GET", "/vm/config", NULL);
	assert_says(fake_vm_answer, "\"vsock\":{\"guest_cid\":4294967294,\"uds_path\":\"./w\"}");
	refused(400, "after the microVM was configured", "PUT", "/snapshot/load",
		"{\"snapshot_path\":\"/s\",\"mem_file_path\":\"/m\"}");
	f.api->metrics.deprecated = 0;
	ok("PUT", "/vsock", "{\"guest_cid\":3,\"uds_path\":\"/v\",\"vsock_id\":\"old\"}");
	assert_int_equal(f.api->metrics.deprecated, 1);
	f.state = API_RUNNING;
	refused(400, "", "PUT", "/vsock", "{\"guest_cid\":3,\"uds_path\":\"/v\"}");
}

static void test_snapshots(void **state)
{
	(void)state;
	refused(400, "either mem_file_path or mem_backend", "PUT", "/snapshot/load",
		"{\"snapshot_path\":\"/s\"}");
	refused(400, "either mem_file_path or mem_backend", "PUT", "/snapshot/load",
		"{\"snapshot_path\":\"/s\",\"mem_file_path\":\"/m\",\"mem_backend\":"
		"{\"backend_type\":\"File\",\"backend_path\":\"/m\"}}");
	ok("PUT", "/snapshot/load", "{\"snapshot_path\":\"/s\","
	   "\"mem_file_path\":\"/m\",\"vsock_override\":{\"uds_path\":\"/v\"}}");
	assert_string_equal(f.asked, "load /s /m taps 0 vsock /v");
	refused(400, "huge pages", "PUT", "/snapshot/load",
		"{\"snapshot_path\":\"/s\",\"mem_file_path\":\"/m\",\"huge_pages\":\"2M\"}");
	ok("PUT", "/snapshot/load", "{\"snapshot_path\":\"/s\",\"mem_file_path\":\"/m\"}");
	assert_string_equal(f.asked, "load /s /m taps 0");
	ok("PUT", "/snapshot/load", "{\"snapshot_path\":\"/s\",\"mem_backend\":{\"backend_type\":"
	   "\"File\",\"backend_path\":\"/n\"},\"track_dirty_pages\":true,\"resume_vm\":true,"
	   "\"network_overrides\":[{\"iface_id\":\"1\",\"host_dev_name\":\"t1\"}]}");
	assert_string_equal(f.asked, "load /s /n track resume taps 1");
	ok("PUT", "/snapshot/load", "{\"snapshot_path\":\"/s\",\"mem_backend\":{\"backend_type\":"
	   "\"Uffd\",\"backend_path\":\"/u\"}}");
	assert_string_equal(f.asked, "load /s pager /u taps 0");
	f.api->metrics.deprecated = 0;
	ok("PUT", "/snapshot/load", "{\"snapshot_path\":\"/s\",\"mem_backend\":{\"backend_type\":"
	   "\"File\",\"backend_path\":\"/n\"},\"enable_diff_snapshots\":false}");
	assert_int_equal(f.api->metrics.deprecated, 0);
	ok("PUT", "/snapshot/load", "{\"snapshot_path\":\"/s\",\"mem_backend\":{\"backend_type\":"
	   "\"File\",\"backend_path\":\"/n\"},\"enable_diff_snapshots\":true}");
	assert_int_equal(f.api->metrics.deprecated, 1);
	ok("PUT", "/drives/a", DRIVE("a", ROOT));
	refused(400, "after the microVM was configured", "PUT", "/snapshot/load",
		"{\"snapshot_path\":\"/s\",\"mem_file_path\":\"/m\"}");
	f.state = API_RUNNING;
	refused(400, "only a paused microVM", "PUT", "/snapshot/create",
		"{\"snapshot_path\":\"/s\",\"mem_file_path\":\"/m\"}");
	ok("POST", "/vmm/v1/vm/snapshots", "{\"directory\":\"/d\"}");
	assert_string_equal(f.asked, "save_directory /d full");
	ok("POST", "/vmm/v1/vm/snapshots", "{\"directory\":\"/d\",\"type\":\"Diff\"}");
	assert_string_equal(f.asked, "save_directory /d diff");
	ok("POST", "/vmm/v1/vm/working-set", "{\"directory\":\"/d\"}");
	assert_string_equal(f.asked, "working_set /d");
	f.state = API_PAUSED;
	ok("PUT", "/snapshot/create", "{\"snapshot_path\":\"/s\",\"mem_file_path\":\"/m\"}");
	assert_string_equal(f.asked, "save /s /m full");
	ok("PUT", "/snapshot/create", "{\"snapshot_path\":\"/s\",\"mem_file_path\":\"/m\","
	   "\"snapshot_type\":\"Diff\"}");
	assert_string_equal(f.asked, "save /s /m diff");
}

/* Disks of the command line have names, too. */
static void test_own_names(void **state)
{
	(void)state;
	f.config.nr_disks = 2;
	assert_non_null(f.config.disk[0].path = strdup("a"));
	assert_non_null(f.config.disk[1].path = strdup("b"));
	f.state = API_RUNNING;
	ok("PATCH", "/vmm/v1/disks/disk1", "{\"size\":512}");
	assert_string_equal(f.asked, "disk_resize 1 512");
	ok("PATCH", "/drives/disk0", "{\"drive_id\":\"disk0\",\"path_on_host\":\"c\"}");
	assert_string_equal(f.asked, "disk_replace 0 c");
}

/* --- a configuration file --------------------------------------------------------------------- */

static char file_path[] = "/tmp/vmm-api-file-XXXXXX";

static void write_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	fputs(text, file);
	fclose(file);
}

static int read_file(const char *text, struct err *err)
{
	write_file(file_path, text);
	return api_read_file(f.api, file_path, err);
}

#define good_file(text) \
	do { \
		struct err err_ = { 0 }; \
		if (read_file(text, &err_)) \
			fail_msg("%s", err_.msg); \
	} while (0)
#define bad_file(says, text) \
	do { \
		struct err err_ = { 0 }; \
		assert_true(read_file(text, &err_) < 0); \
		assert_says(err_.msg, file_path); \
		assert_says(err_.msg, says); \
	} while (0)

static void test_file(void **state)
{
	struct err err = { 0 };
	int fd = mkstemp(file_path);

	(void)state;
	close(fd);
	good_file("{\"boot-source\":{\"kernel_image_path\":\"k\",\"boot_args\":\"a=b\","
		  "\"initrd_path\":null},"
		  "\"drives\":[{\"drive_id\":\"with-dash\",\"path_on_host\":\"p\","
		  "\"is_root_device\":true,\"partuuid\":null,\"is_read_only\":false,"
		  "\"cache_type\":\"Unsafe\",\"rate_limiter\":null}],"
		  "\"machine-config\":{\"vcpu_count\":2,\"mem_size_mib\":1024,\"smt\":true,"
		  "\"track_dirty_pages\":false},"
		  "\"balloon\":null,\"network-interfaces\":[{\"iface_id\":\"eth0\","
		  "\"host_dev_name\":\"tap0\"}],\"vsock\":null,\"logger\":null,\"metrics\":null,"
		  "\"mmds-config\":null,\"entropy\":{},\"pmem\":[]}");
	assert_string_equal(f.config.kernel, "k");
	assert_string_equal(f.config.disk[0].id, "with-dash");
	assert_int_equal(f.config.cpus, 2);
	assert_string_equal(f.config.net[0].tap, "tap0");
	assert_int_equal(f.state, API_NOT_STARTED);

	bad_file("line 1", "{");
	bad_file("missing field 'drives'", "{\"boot-source\":{\"kernel_image_path\":\"k\"}}");
	bad_file("missing field 'boot-source'", "{\"drives\":[]}");
	bad_file("field 'boot-source' must be an object or a list",
		 "{\"boot-source\":null,\"drives\":[]}");
	bad_file("field 'drives' must be",
		 "{\"boot-source\":{\"kernel_image_path\":\"k\"},\"drives\":null}");
	bad_file("field 'network-interfaces' must be",
		 "{\"boot-source\":{\"kernel_image_path\":\"k\"},\"drives\":[],"
		 "\"network-interfaces\":null}");
	bad_file("boot-source: unknown field 'kernel'",
		 "{\"boot-source\":{\"kernel\":\"k\"},\"drives\":[]}");
	bad_file("unknown field 'drive'; did you mean 'drives'?",
		 "{\"boot-source\":{\"kernel_image_path\":\"k\"},\"drives\":[],\"drive\":[]}");
	bad_file("drives: must be a list",
		 "{\"boot-source\":{\"kernel_image_path\":\"k\"},\"drives\":{}}");
	bad_file("drives[0]: missing field 'drive_id'",
		 "{\"boot-source\":{\"kernel_image_path\":\"k\"},\"drives\":[{}]}");
	good_file("{\"boot-source\":{\"kernel_image_path\":\"k\"},\"drives\":[],"
		  "\"vsock\":{\"guest_cid\":7,\"uds_path\":\"v\",\"vsock_id\":\"root\"}}");
	assert_int_equal(f.config.vsock.cid, 7);
	assert_string_equal(f.config.vsock.path, "v");
	bad_file("balloon: this version of vmm does not have a balloon device",
		 "{\"boot-source\":{\"kernel_image_path\":\"k\"},\"drives\":[],"
		 "\"balloon\":{\"amount_mib\":64,\"deflate_on_oom\":true}}");
#define WITH_DRIVE(id)	"{\"boot-source\":{\"kernel_image_path\":\"k\"},\"drives\":[" DRIVE(id, NO_ROOT) "]}"
#define WITH_NET(id)	"{\"boot-source\":{\"kernel_image_path\":\"k\"},\"drives\":[]," \
			"\"network-interfaces\":[{\"iface_id\":\"" id "\",\"host_dev_name\":\"tap9\"}]}"
	bad_file("drives[0]: field 'drive_id' is empty", WITH_DRIVE(""));
	bad_file("network-interfaces[0]: field 'iface_id' is empty", WITH_NET(""));
	bad_file("drives[0]: the id is too long: it has more than 78 characters",
		 WITH_DRIVE("0123456789012345678901234567890123456789012345678901234567890123456789012345678"));
	good_file(WITH_DRIVE("0123456789012345678901234567890123456789012345678901234567890123456789"));
	bad_file("not an object", "[]");
	unlink(file_path);
	assert_true(api_read_file(f.api, file_path, &err) < 0);
	assert_says(err.msg, file_path);
}

/* As text the section is the name of a file, as Firecracker has it. */
static void test_file_of_processors(void **state)
{
	char path[] = "/tmp/vmm-api-cpu-XXXXXX", text[256];
	int fd = mkstemp(path);

	(void)state;
	close(fd);
	snprintf(text, sizeof(text), "{\"boot-source\":{\"kernel_image_path\":\"k\"},\"drives\":[],"
		 "\"cpu-config\":\"%s\"}", path);
	write_file(path, "{\"msr_modifiers\":[]}");
	good_file(text);
	write_file(path, "{\"kvm_capabilities\":[\"121\"]}");
	bad_file("cpu-config: Configure CPU error", text);
	write_file(path, "\"another\"");
	bad_file(path, text);
	unlink(path);
	bad_file("No such file", text);
	bad_file("vsock: not an object",
		 "{\"boot-source\":{\"kernel_image_path\":\"k\"},\"drives\":[],\"vsock\":\"a file\"}");
	unlink(file_path);
}

int main(void)
{
#define T(name)	cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_contract), T(test_methods), T(test_paths), T(test_ids), T(test_instance),
		T(test_machine), T(test_zero_byte), T(test_boot_source), T(test_drives), T(test_too_many_drives),
		T(test_drive_limits), T(test_patch_drive), T(test_nets), T(test_no_net_limits),
		T(test_mmds), T(test_mmds_config), T(test_mmds_deprecated),
		T(test_actions), T(test_pause), T(test_vsock), T(test_snapshots), T(test_small_ones), T(test_metrics),
		T(test_metrics_are_all), T(test_torn_line),
		T(test_logger), T(test_device_metrics), T(test_own_metrics), T(test_own_vm), T(test_own_disks),
		T(test_own_nets), T(test_own_names), T(test_file),
		T(test_file_of_processors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
