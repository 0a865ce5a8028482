/*
 * api_replay_test.c: what Firecracker's clients ask for, in their order, from its Go SDK 1.0, Kata Containers 3
 * (both of its runtimes) and flintlock.  Of what no device is there for, the refusal is expected.
 */
#include <stdio.h>
#include "tests/lib/fake_vm.h"
#include "tests/lib/test.h"

struct step {
	const char *method, *path, *body;
	int status;
	const char *says;	/* in the answer; NULL: anything */
};

static struct fake_vm f;
static char log_path[] = "/tmp/vmm-replay-XXXXXX";

static int setup(void **state)
{
	int fd = mkstemp(log_path);

	(void)state;
	close(fd);
	fake_vm_init(&f);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_vm_fini(&f);
	unlink(log_path);
	strcpy(log_path + sizeof(log_path) - 7, "XXXXXX");
	return 0;
}

static void replay(const struct step *steps, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		const struct step *s = &steps[i];
		int status = fake_vm_request(&f, s->method, s->path, s->body);

		if (status != s->status)
			fail_msg("step %u, %s %s: %d, not %d: %s", i, s->method, s->path, status,
				 s->status, fake_vm_answer);
		if (s->says)
			assert_says(fake_vm_answer, s->says);
		if (status == 204)
			assert_string_equal(fake_vm_answer, "");
	}
}

static void put_logs(void)
{
	char body[128];
	struct step step = { "PUT", "/logger", body, 204, NULL };

	snprintf(body, sizeof(body), "{\"level\":\"Info\",\"log_path\":\"%s\",\"show_level\":true,"
		 "\"show_log_origin\":false}", log_path);
	replay(&step, 1);
	step.path = "/metrics";
	snprintf(body, sizeof(body), "{\"metrics_path\":\"%s\"}", log_path);
	replay(&step, 1);
}

/* NewMachine, Start, PauseVM, ResumeVM, UpdateGuestDrive, Shutdown. */
static void test_go_sdk(void **state)
{
	static const struct step wait[] = {	/* until it answers */
		{ "GET", "/machine-config", NULL, 200, "\"vcpu_count\":1" },
	};
	static const struct step start[] = {
		{ "PUT", "/machine-config",
		  "{\"mem_size_mib\":256,\"smt\":false,\"vcpu_count\":1}\n", 204, NULL },
		{ "GET", "/machine-config", NULL, 200, "\"mem_size_mib\":256" },
		{ "PUT", "/boot-source", "{\"boot_args\":\"console=ttyS0 reboot=k panic=1 pci=off\","
		  "\"kernel_image_path\":\"/vmlinux\"}\n", 204, NULL },
		{ "PUT", "/drives/1", "{\"drive_id\":\"1\",\"is_read_only\":false,"
		  "\"is_root_device\":true,\"path_on_host\":\"/root.img\"}\n", 204, NULL },
		{ "PUT", "/drives/2", "{\"cache_type\":\"Writeback\",\"drive_id\":\"2\","
		  "\"io_engine\":\"Async\",\"is_read_only\":true,\"is_root_device\":false,"
		  "\"path_on_host\":\"/data.img\",\"rate_limiter\":{\"bandwidth\":{"
		  "\"one_time_burst\":0,\"refill_time\":1000,\"size\":1000000}}}\n", 204, NULL },
		{ "PUT", "/network-interfaces/1", "{\"guest_mac\":\"AA:FC:00:00:00:01\","
		  "\"host_dev_name\":\"tap0\",\"iface_id\":\"1\"}\n", 204, NULL },
		{ "PUT", "/vsock", "{\"guest_cid\":3,\"uds_path\":\"/v.sock\",\"vsock_id\":\"1\"}\n",
		  204, NULL },
		{ "PUT", "/mmds/config", "{\"network_interfaces\":[\"1\"],\"version\":\"V1\"}\n", 204, NULL },
		{ "PUT", "/mmds", "{\"latest\":{\"meta-data\":{}}}\n", 204, NULL },
		{ "PUT", "/balloon", "{\"amount_mib\":64,\"deflate_on_oom\":true,"
		  "\"stats_polling_interval_s\":5}\n", 400, "balloon device" },
		{ "PUT", "/actions", "{\"action_type\":\"InstanceStart\"}\n", 204, NULL },
		{ "GET", "/", NULL, 200, "\"state\":\"Running\"" },
		{ "GET", "/version", NULL, 200, "firecracker_version" },
		{ "PATCH", "/vm", "{\"state\":\"Paused\"}\n", 204, NULL },
		{ "GET", "/", NULL, 200, "\"state\":\"Paused\"" },
		{ "PUT", "/snapshot/create", "{\"mem_file_path\":\"/m\",\"snapshot_path\":\"/s\"}\n",
		  204, NULL },
		{ "PATCH", "/vm", "{\"state\":\"Resumed\"}\n", 204, NULL },
		{ "PUT", "/mmds", "{\"latest\":{\"meta-data\":{\"id\":\"a\"}}}\n", 204, NULL },
		{ "PATCH", "/mmds", "{\"latest\":{\"meta-data\":{\"id\":\"b\"}}}\n", 204, NULL },
		{ "GET", "/mmds", NULL, 200, "{\"latest\":{\"meta-data\":{\"id\":\"b\"}}}" },
		{ "PATCH", "/drives/2", "{\"drive_id\":\"2\",\"path_on_host\":\"/other.img\"}\n", 204,
		  NULL },
		{ "PATCH", "/network-interfaces/1", "{\"iface_id\":\"1\",\"rx_rate_limiter\":{"
		  "\"bandwidth\":{\"one_time_burst\":1,\"refill_time\":2,\"size\":3}}}\n", 204, NULL },
		{ "PUT", "/actions", "{\"action_type\":\"SendCtrlAltDel\"}\n", 204, NULL },
	};

	(void)state;
	replay(wait, ARRAY_SIZE(wait));
	put_logs();
	replay(start, ARRAY_SIZE(start));
	assert_string_equal(f.asked, "power_button");
	assert_int_equal(f.starts, 1);
	assert_int_equal(f.config.cpus, 1);
	assert_int_equal(f.config.mem, 256 * MIB);
	assert_string_equal(f.config.disk[0].path, "/root.img");
	assert_string_equal(f.config.disk[1].path, "/other.img");
	assert_int_equal(f.config.disk[1].limit.bytes.rate, 1000000);
	assert_string_equal(f.config.net[0].tap, "tap0");
	assert_string_equal(f.config.vsock.path, "/v.sock");
	assert_int_equal(f.config.vsock.cid, 3);
}

/* runtime-rs: prepare_vm, start_vm, and a container's root later, in a drive kept for it. */
static void test_kata(void **state)
{
	static const struct step prepare[] = {
		{ "PUT", "/boot-source", "{\"boot_args\":\"reboot=k panic=1 pci=off iommu=off "
		  "root=/dev/vda1 rootflags=data=ordered rootfstype=ext4 ro\","
		  "\"kernel_image_path\":\"/vmlinux\"}", 204, NULL },
		{ "PUT", "/machine-config", "{\"mem_size_mib\":2048,\"vcpu_count\":1}", 204, NULL },
		{ "PUT", "/drives/rootfs", "{\"drive_id\":\"rootfs\",\"is_read_only\":true,"
		  "\"is_root_device\":false,\"path_on_host\":\"/kata.img\"}", 204, NULL },
	};
	static const struct step start[] = {
		{ "PUT", "/vsock", "{\"guest_cid\":3,\"uds_path\":\"kata.hvsock\",\"vsock_id\":\"root\"}",
		  204, NULL },
		{ "PUT", "/network-interfaces/eth0", "{\"guest_mac\":\"02:42:ac:11:00:02\","
		  "\"host_dev_name\":\"tap0_kata\",\"iface_id\":\"eth0\"}", 204, NULL },
		{ "PUT", "/actions", "{\"action_type\":\"InstanceStart\"}", 204, NULL },
		{ "PATCH", "/drives/drive1", "{\"drive_id\":\"drive1\",\"path_on_host\":\"/c.img\","
		  "\"rate_limiter\":null}", 204, NULL },
		{ "PATCH", "/drives/drive2", "{\"drive_id\":\"drive2\",\"path_on_host\":\"/d.img\","
		  "\"rate_limiter\":{\"bandwidth\":{\"one_time_burst\":null,\"refill_time\":1000,"
		  "\"size\":4096},\"ops\":null}}", 204, NULL },
	};
	char path[32], body[128];
	struct step drive = { "PUT", path, body, 204, NULL };

	(void)state;
	replay(prepare, ARRAY_SIZE(prepare));
	for (int i = 1; i < 6; i++) {
		snprintf(path, sizeof(path), "/drives/drive%d", i);
		snprintf(body, sizeof(body), "{\"drive_id\":\"drive%d\",\"is_read_only\":false,"
			 "\"is_root_device\":false,\"path_on_host\":\"/pool/drive%d\"}", i, i);
		replay(&drive, 1);
	}
	replay(start, ARRAY_SIZE(start));
	assert_string_equal(f.asked, "disk_limit 2 4096/4096+0 0/0+0");
	assert_string_equal(f.config.disk[1].path, "/c.img");
	assert_string_equal(f.config.disk[2].path, "/d.img");
	assert_string_equal(f.config.vsock.path, "kata.hvsock");
	/* root= is theirs. */
	assert_false(f.config.disk[0].is_root);
}

/* Another process. */
static void again(void)
{
	fake_vm_fini(&f);
	fake_vm_init(&f);
}

static int read_file(const char *text, struct err *err)
{
	FILE *file = fopen(log_path, "w");

	fputs(text, file);
	fclose(file);
	return api_read_file(f.api, log_path, err);
}

/* Kata's runtime in Go, by --config-file, then GET / until it runs. */
static void test_kata_file(void **state)
{
	static const struct step wait[] = {
		{ "GET", "/", NULL, 200, "\"state\":\"Running\"" },
		{ "PATCH", "/drives/drive_0", "{\"drive_id\":\"drive_0\",\"path_on_host\":\"/c\"}", 204,
		  NULL },
	};
	static const char text[] =
		"{\n\t\"boot-source\": {\n\t\t\"boot_args\": \"root=/dev/vda1 pci=off\",\n"
		"\t\t\"kernel_image_path\": \"/vmlinux\"\n\t},\n"
		"\t\"drives\": [\n\t\t{\"drive_id\": \"rootfs\", \"is_read_only\": true, "
		"\"is_root_device\": false, \"path_on_host\": \"/rootfs\"},\n"
		"\t\t{\"cache_type\": \"Unsafe\", \"drive_id\": \"drive_0\", \"is_read_only\": false, "
		"\"is_root_device\": false, \"path_on_host\": \"/drive_0\"}\n\t],\n"
		"\t\"logger\": {\"level\": \"Error\", \"log_path\": \"/dev/null\"},\n"
		"\t\"machine-config\": {\"mem_size_mib\": 2048, \"smt\": false, \"vcpu_count\": 1},\n"
		"\t\"metrics\": {\"metrics_path\": \"/dev/null\"},\n"
		"\t\"network-interfaces\": [{\"guest_mac\": \"02:42:ac:11:00:02\", "
		"\"host_dev_name\": \"tap0_kata\", \"iface_id\": \"eth0\", "
		"\"rx_rate_limiter\": {}, \"tx_rate_limiter\": {}}]%s\n}\n";
	char whole[sizeof(text) + 100];
	struct err err = { 0 };

	(void)state;
	snprintf(whole, sizeof(whole), text, "");
	if (read_file(whole, &err))
		fail_msg("%s", err.msg);
	f.state = API_RUNNING;
	replay(wait, ARRAY_SIZE(wait));
	again();
	snprintf(whole, sizeof(whole), text, ",\"vsock\":{\"guest_cid\":3,\"uds_path\":\"k\","
		 "\"vsock_id\":\"root\"}");
	if (read_file(whole, &err))
		fail_msg("%s", err.msg);
	assert_string_equal(f.config.vsock.path, "k");
}

/* flintlock, by --config-file; its file in the order that it writes. */
static void test_flintlock(void **state)
{
	static const char text[] =
		"{\n \"drives\": [\n  {\"drive_id\": \"root\", \"path_on_host\": \"/dev/mapper/snap-1\", "
		"\"is_root_device\": true, \"is_read_only\": false, \"cache_type\": \"Unsafe\"},\n"
		"  {\"drive_id\": \"modules-volume\", \"path_on_host\": \"/dev/mapper/snap-2\", "
		"\"is_root_device\": false, \"is_read_only\": true, \"cache_type\": \"Unsafe\"}\n ],\n"
		" \"boot-source\": {\"kernel_image_path\": \"/kernel/boot/vmlinux\", "
		"\"boot_args\": \"console=ttyS0 reboot=k panic=1 pci=off i8042.noaux\"},\n"
		" \"logger\": {\"log_path\": \"/dev/null\", \"level\": \"Debug\", \"show_level\": true, "
		"\"show_log_origin\": true},\n"
		" \"machine-config\": {\"vcpu_count\": 2, \"mem_size_mib\": 2048, \"smt\": true, "
		"\"track_dirty_pages\": false},\n"
		" \"metrics\": {\"metrics_path\": \"/dev/null\"},\n"
		" \"network-interfaces\": [{\"iface_id\": \"eth0\", \"host_dev_name\": \"fltap1\", "
		"\"guest_mac\": \"AA:FF:00:00:00:01\"}, "
		"{\"iface_id\": \"eth1\", \"host_dev_name\": \"/dev/tap33\"}]%s\n}";
	char whole[sizeof(text) + 100];
	struct err err = { 0 };

	(void)state;
	snprintf(whole, sizeof(whole), text, "");
	if (read_file(whole, &err))
		fail_msg("%s", err.msg);
	assert_string_equal(f.config.disk[0].id, "root");
	assert_true(f.config.disk[0].is_root);
	assert_string_equal(f.config.disk[1].id, "modules-volume");
	assert_int_equal(f.config.cpus, 2);
	assert_string_equal(f.config.net[1].tap, "/dev/tap33");
	again();
	snprintf(whole, sizeof(whole), text,
		 ",\"mmds-config\":{\"version\":\"V1\",\"network_interfaces\":[\"eth0\"]}");
	if (read_file(whole, &err))
		fail_msg("%s", err.msg);
	assert_int_equal(f.config.mmds.cards, 1);
	assert_false(f.config.mmds.v2);
}

int main(void)
{
#define T(name)	cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_go_sdk), T(test_kata), T(test_kata_file), T(test_flintlock),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
