/* config_test.c: every option, good and bad, from the command line and from JSON. */
#include "tests/lib/test.h"
#include "vmm/config.h"

enum { MAX_ARGS = 80 };

static struct config c;
static struct err err;
static bool help, version;
static char path[] = "/tmp/vmm-config-test-XXXXXX";

static int parse(const char *first, ...)
{
	char *argv[MAX_ARGS];
	int argc = 0;
	va_list ap;

	config_fini(&c);
	config_init(&c);
	memset(&err, 0, sizeof(err));
	va_start(ap, first);
	for (const char *s = first; s; s = va_arg(ap, const char *))
		argv[argc++] = (char *)(uintptr_t)s;
	va_end(ap);
	return config_parse(&c, argc, argv, &help, &version, &err);
}

#define good(...)	assert_int_equal(parse("--kernel", "k", __VA_ARGS__, NULL), 0)
#define bad(says, ...) \
	do { \
		assert_int_equal(parse("--kernel", "k", __VA_ARGS__, NULL), -EINVAL); \
		assert_int_equal(err.code, -EINVAL); \
		assert_says(err.msg, says); \
	} while (0)

static void put_json(const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

#define good_json(text)		(put_json(text), good("--config", path))
#define bad_json(says, text)	do { put_json(text); bad(says, "--config", path); } while (0)

static int setup(void **state)
{
	int fd = mkstemp(path);

	(void)state;
	config_init(&c);
	close(fd);
	return fd < 0;
}

static int teardown(void **state)
{
	(void)state;
	config_fini(&c);
	unlink(path);
	return 0;
}

/* With an API nothing has to be started yet. */
static void test_api_sock(void **state)
{
	(void)state;
	assert_int_equal(parse("--api-sock", "a", NULL), 0);
	assert_string_equal(c.api_sock, "a");
	assert_null(c.kernel);
	good("--api-sock", "a");
	bad("api-sock: the value is empty", "--api-sock", "");
	assert_int_equal(parse("--api-sock", "a", "--mem", "2M", NULL), -EINVAL);
	assert_int_equal(parse("--name", "a", NULL), -EINVAL);
	assert_says(err.msg, "no kernel");
}

static void test_defaults(void **state)
{
	(void)state;
	assert_int_equal(parse("--kernel", "vmlinuz", NULL), 0);
	assert_string_equal(c.kernel, "vmlinuz");
	assert_int_equal(c.mem, 512 * MIB);
	assert_int_equal(c.cpus, 1);
	assert_int_equal(c.transport, TRANSPORT_PCI);
	assert_int_equal(c.aio, AIO_AUTO);
	assert_int_equal(c.log_level, LOG_INFO);
	assert_int_equal(c.nr_disks + c.nr_nets, 0);
	assert_null(c.initrd);
	assert_null(c.cmdline);
	assert_false(c.hugepages || c.no_reboot || help || version);
}

static void test_no_kernel(void **state)
{
	(void)state;
	assert_int_equal(parse(NULL), -EINVAL);
	assert_says(err.msg, "--kernel");
}

static void test_help_and_version(void **state)
{
	(void)state;
	assert_int_equal(parse("--help", NULL), 0);
	assert_true(help);
	assert_int_equal(parse("-h", NULL), 0);
	assert_true(help);
	assert_int_equal(parse("--version", NULL), 0);
	assert_true(version && !help);
	/* Nothing else is checked then. */
	assert_int_equal(parse("--mem", "nonsense", "--help", NULL), 0);
	assert_true(help);
}

static void test_strings(void **state)
{
	(void)state;
	good("--initrd", "i", "--cmdline=a=b c", "--name", "vm-1.x_Y", "--pidfile", "p");
	assert_string_equal(c.initrd, "i");
	assert_string_equal(c.cmdline, "a=b c");
	assert_string_equal(c.name, "vm-1.x_Y");
	assert_string_equal(c.pidfile, "p");
	good("--cmdline", "");
	assert_string_equal(c.cmdline, "");
	good("--initrd", "a", "--initrd", "b");
	assert_string_equal(c.initrd, "b");
	bad("initrd", "--initrd", "");
	bad("pidfile", "--pidfile=");
	bad("kernel", "--kernel", "");
	good("--append", "a", "--append", "b");
	assert_string_equal(c.append, "a b");
	bad("--cmdline", "--append", "a", "--cmdline", "b");
}

static void test_names(void **state)
{
	char name[66];

	(void)state;
	memset(name, 'x', 65);
	name[64] = 0;
	good("--name", name);
	name[64] = 'x';
	name[65] = 0;
	bad("name", "--name", name);
	bad("name", "--name", "");
	bad("name", "--name", ".hidden");
	bad("name", "--name", "-x");
	bad("name", "--name", "a/b");
	bad("name", "--name", "a b");
	bad("name", "--name", "\xc3\xa4");
}

static void test_mem(void **state)
{
	static const struct { const char *text; u64 mib; } ok[] = {
		{ "16", 16 }, { "512", 512 }, { "512M", 512 }, { "512m", 512 }, { "512MiB", 512 },
		{ "2G", 2048 }, { "2GB", 2048 }, { "1023G", 1023 << 10 }, { "1048576K", 1024 },
		{ "0016M", 16 },
	};
	static const char *const no[] = {
		"", "0", "15M", "-1", "+1G", "1.5G", "G", "1X", "1MM", "512 M", " 512", "0x200M",
		"1025K", "1T", "2T", "99999999999999999999", "18446744073709551615T", "16777216T", "1Mi8",
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(ok); i++) {
		good("--mem", ok[i].text);
		assert_int_equal(c.mem, ok[i].mib * MIB);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(no); i++)
		bad("mem", "--mem", no[i]);
}

static void test_sizes(void **state)
{
	u64 size = 0;

	(void)state;
	assert_int_equal(config_parse_size("7", 512, &size, &err), 0);
	assert_int_equal(size, 7 * 512);
	assert_int_equal(config_parse_size("3K", 512, &size, &err), 0);
	assert_int_equal(size, 3072);
	assert_int_equal(config_parse_size("16777215T", 1, &size, &err), 0);
	assert_int_equal(size, 16777215ULL << 40);
	assert_int_equal(config_parse_size("16777216T", 1, &size, &err), -EINVAL);
	assert_int_equal(config_parse_size("x", 1, &size, NULL), -EINVAL);
}

static void test_cpus(void **state)
{
	static const char *const no[] = { "0", "65", "-1", "", "1x", "x", "99999999999999999999",
					  " 2", "+2", "2.0" };

	(void)state;
	good("--cpus", "64");
	assert_int_equal(c.cpus, 64);
	good("--cpus=1");
	for (unsigned i = 0; i < ARRAY_SIZE(no); i++)
		bad("cpus", "--cpus", no[i]);
}

static void test_switches(void **state)
{
	(void)state;
	good("--hugepages", "--no-reboot", "--mem", "64M");
	assert_true(c.hugepages && c.no_reboot);
	assert_int_equal(c.mem, 64 * MIB);
	good("--hugepages=off", "--no-reboot=yes");
	assert_true(!c.hugepages && c.no_reboot);
	bad("hugepages", "--hugepages=maybe");
	bad("no-reboot", "--no-reboot=");
	bad("2M", "--hugepages", "--mem", "65M");
}

static void test_choices(void **state)
{
	static const char *const serials[] = { "stdio", "pty", "none", "file:x", "unix:/a/b" };
	static const char *const no_lists[] = { "", "-1", "1-", "3-2", "1024", "0,", ",0", "0 1", "0-1-2", "all" };
	static const char *const no[] = { "", "tty", "file:", "unix:", "stdio:" };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(serials); i++) {
		good("--serial", serials[i]);
		assert_string_equal(c.serial, serials[i]);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(no); i++)
		bad("serial", "--serial", no[i]);
	good("--transport", "mmio", "--aio", "threads", "--log-level", "debug");
	assert_int_equal(c.transport, TRANSPORT_MMIO);
	assert_int_equal(c.aio, AIO_THREADS);
	assert_int_equal(c.log_level, LOG_DEBUG);
	assert_int_equal(c.sandbox, SANDBOX_ON);
	good("--transport", "pci", "--aio", "io_uring", "--log-level", "err");
	assert_int_equal(c.transport, TRANSPORT_PCI);
	assert_int_equal(c.aio, AIO_URING);
	assert_int_equal(c.log_level, LOG_ERR);
	bad("transport", "--transport", "PCI");
	bad("aio", "--aio", "uring");
	bad("00:00", "--net", "tap=t,mac=00:00:00:00:00:00");
	bad("log-level", "--log-level", "loud");
	good("--sandbox", "log");
	assert_int_equal(c.sandbox, SANDBOX_LOG);
	good("--sandbox", "off");
	assert_int_equal(c.sandbox, SANDBOX_OFF);
	bad("sandbox", "--sandbox", "no");
	good("--cpu-affinity", "0-2,64,1023");
	assert_string_equal(c.affinity_list, "0-2,64,1023");
	assert_true(c.affinity[0] == 7 && c.affinity[1] == 1 && c.affinity[15] == 1ULL << 63);
	for (unsigned i = 0; i < ARRAY_SIZE(no_lists); i++)
		bad("cpu-affinity", "--cpu-affinity", no_lists[i]);
	good("--cpu-quota", "150", "--mem-limit", "1G", "--cgroup", "a/b");
	assert_int_equal(c.cpu_quota, 150);
	assert_int_equal(c.mem_limit, GIB);
	assert_string_equal(c.cgroup, "a/b");
	bad("cpu-quota: '0'", "--cpu-quota", "0");
	bad("vmm itself needs at least 528M", "--mem-limit", "527M");
	good("--uid", "1000", "--gid", "0", "--chroot", "/j", "--netns", "n");
	assert_true(c.has_uid && c.has_gid && c.uid == 1000 && !c.gid);
	assert_string_equal(c.chroot, "/j");
	assert_string_equal(c.netns, "n");
	bad("uid: '-1'", "--uid", "-1");
	bad("uid: '4294967295' is not a number from 0 to 4294967294", "--uid", "4294967295");
	bad("give --uid", "--gid", "1");
	bad("give --uid", "--chroot", "/j");
	bad("holds no root", "--chroot", "/j", "--uid", "0");
	bad("tap= and fd=", "--chroot", "/j", "--uid", "1", "--net", "user");
}

static void test_disks(void **state)
{
	(void)state;
	good("--disk", "a.img", "--disk=b,readonly,serial=S-1", "--disk", "c,,d=e,readonly=off",
	     "--disk", "f,format=raw,serial=12345678901234567890");
	assert_int_equal(c.nr_disks, 4);
	assert_string_equal(c.disk[0].path, "a.img");
	assert_false(c.disk[0].read_only);
	assert_null(c.disk[0].format);
	assert_string_equal(c.disk[0].serial, "");
	assert_string_equal(c.disk[1].path, "b");
	assert_true(c.disk[1].read_only);
	assert_string_equal(c.disk[1].serial, "S-1");
	assert_string_equal(c.disk[2].path, "c,d=e");
	assert_false(c.disk[2].read_only);
	assert_string_equal(c.disk[3].format, "raw");
	assert_string_equal(c.disk[3].serial, "12345678901234567890");
	good("--disk", "a,,,readonly");
	assert_string_equal(c.disk[0].path, "a,");
	assert_true(c.disk[0].read_only);
	good("--disk", "a,serial=x,,y");
	assert_string_equal(c.disk[0].serial, "x,y");
	bad("no path", "--disk", "");
	bad("no path", "--disk", ",readonly");
	bad("readonly", "--disk", "a,readonly=x");
	bad("serial", "--disk", "a,serial=123456789012345678901");
	bad("vmdk", "--disk", "a,format=vmdk");
	bad("elsewhere", "--disk", "a,backing=elsewhere");
	bad("did you mean 'readonly'", "--disk", "a,readnly");
	bad("known: ", "--disk", "a,zzzzzz=1");
	bad("unknown option ''", "--disk", "a,");
}

static void test_too_many_disks(void **state)
{
	char *argv[2 + CONFIG_MAX_DISKS + 1] = { "--kernel", "k" };

	(void)state;
	for (int i = 0; i <= CONFIG_MAX_DISKS; i++)
		argv[2 + i] = "--disk=x";
	config_fini(&c);
	config_init(&c);
	assert_int_equal(config_parse(&c, 2 + CONFIG_MAX_DISKS, argv, &help, &version, &err), 0);
	assert_int_equal(c.nr_disks, CONFIG_MAX_DISKS);
	config_fini(&c);
	config_init(&c);
	assert_int_equal(config_parse(&c, 3 + CONFIG_MAX_DISKS, argv, &help, &version, &err),
			 -EINVAL);
	assert_says(err.msg, "more than 30");
}

static void test_nets(void **state)
{
	static const u8 mac[] = { 0x02, 0xAb, 0, 0x12, 0x34, 0xff };
	static const char *const no[] = {
		"", "02", "03:00:00:00:00:01", "ff:ff:ff:ff:ff:ff", "02:00:00:00:00", "2:0:0:0:0:1",
		"02:00:00:00:00:01:02", "02-00-00-00-00-01", "02:00:00:00:00:0g", "true",
	};

	(void)state;
	bad("mac", "--net", "tap=t,mac=02:+1:00:12:34:56");
	good("--net", "tap=t0", "--net", "mac=02:aB:00:12:34:FF,tap=t1");
	assert_int_equal(c.nr_nets, 2);
	assert_string_equal(c.net[0].tap, "t0");
	assert_false(c.net[0].has_mac);
	assert_true(c.net[1].has_mac);
	assert_memory_equal(c.net[1].mac, mac, 6);
	for (unsigned i = 0; i < ARRAY_SIZE(no); i++) {
		char text[64];

		snprintf(text, sizeof(text), "tap=t0,mac=%s", no[i]);
		bad("mac", "--net", text);
	}
	bad("tap", "--net", "mac=02:00:00:00:00:01");
	bad("tap", "--net", "tap=");
	bad("tap", "--net", "tap=sixteen-letters!");
	good("--net", "tap=fifteen-letters");
	bad("given twice", "--net", "tap=a", "--net", "tap=a");
	bad("did you mean 'tap'", "--net", "tao=a");
}

static void test_net_modes(void **state)
{
	static const struct { const char *net, *says; } no[] = {
		{ "", "unknown option ''" }, { "usr", "did you mean 'user'" },
		{ "past", "did you mean 'passt'" }, { "user=1", "leave '=1' out" },
		{ "passt=", "leave '=' out" }, { "user,passt", "'passt' says again" },
		{ "tap=a,user", "'user' says again" }, { "fd=3,fd=4", "'fd' says again" },
		{ "mac=02:00:00:00:00:01", "begin with user, passt, nat" },
		{ "fd=", "fd ''" }, { "fd=2", "fd '2'" }, { "fd=-3", "fd '-3'" },
		{ "fd=0x5", "fd '0x5'" }, { "fd", "fd 'true'" },
		{ "tap=a,hostfwd=tcp::1-:1", "hostfwd is an option of user and passt only" },
		{ "hostfwd=tcp::1-:1,fd=5", "hostfwd is an option of user and passt only" },
		{ "passt,restrict=on", "restrict is an option of user only" },
		{ "net=10.0.0.0/24,passt", "net is an option of user only" },
		{ "tap=a,dns=1.1.1.1", "dns is an option of user only" },
		{ "user,restrict=perhaps", "not 'perhaps'" },
		{ "tap=a,mtu=67", "from 68 to 65520" }, { "tap=a,mtu=65521", "from 68 to 65520" },
		{ "tap=a,mtu=large", "mtu 'large'" }, { "tap=a,queues=0", "from 1 to 8" },
		{ "tap=a,queues=9", "queues '9'" }, { "user,queues=2", "for tap=, bridge=" },
		{ "queues=2,passt", "for tap=, bridge=" }, { "tap=a,iothreads=9", "iothreads '9'" },
		{ "iothreads=2,tap=a", "2 iothreads for 1 queues" },
		{ "tap=a,bw_rx_burst=5", "add bw_rx=" }, { "tap=a,pps_tx_burst=5", "add pps_tx=" },
		{ "user,dump=", "dump names no file" }, { "user,dump", "dump names no file" },
		{ "tap", "write tap=NAME" }, { "tap=false", "write tap=NAME" },
		{ "bridge", "write bridge=NAME" },
		{ "tap=a,vhost=maybe", "on, off or auto, not 'maybe'" }, { "user,vhost=on", "user has none" },
		{ "vhost=on,passt", "for taps; passt has none" },
		{ "tap=a,vhost=on,dump=f", "vhost=on, and dump=" },
		{ "pps_tx=5,nat,vhost=on", "vhost=on, and pps_tx=" },
		{ "tap=a,vhost=on,bw_rx=5,vhost=on", "vhost=on, and bw_rx=" },
		{ "tap=a,bw_rx=fast", "net: bw_rx: " }, { "tap=a,bw_up=5", "unknown option 'bw_up'" },
		{ "user,dns=example.org", "dns 'example.org'" }, { "user,dns=0.0.0.0", "dns '0.0.0.0'" },
		{ "user,net=10.0.0.0", "net '10.0.0.0'" }, { "user,net=10.0.0.1/24", "10.0.0.1/24" },
		{ "user,net=10.0.0.0/28", "8 to 27 bits" }, { "user,net=10.0.0.0/7", "8 to 27 bits" },
		{ "user,net=127.0.0.0/8", "127.0.0.0/8" }, { "user,net=224.0.0.0/8", "224.0.0.0/8" },
		{ "user,net=0.0.0.0/8", "0.0.0.0/8" }, { "user,net=1.2.3.4.5.6.7.8.9/24", "1.2.3" },
		{ "user,hostfwd=80", "not like tcp:127.0.0.1:8080-:80" },
		{ "user,hostfwd=tcp:8080-:80", "'8080' has no ':'" }, { "user,hostfwd=8080:80", "not like" },
		{ "user,hostfwd=tcp::8080", "not like" }, { "user,hostfwd", "not like" },
		{ "user,hostfwd=sctp::1-:1", "'sctp' is neither tcp nor udp" },
		{ "user,hostfwd=tcp::0-:80", "port '0'" }, { "user,hostfwd=tcp::80-:0", "port '0'" },
		{ "user,hostfwd=tcp::65536-:80", "port '65536'" },
		{ "user,hostfwd=tcp::80-:", "port ''" }, { "user,hostfwd=tcp::8x-:80", "port '8x'" },
		{ "user,hostfwd=tcp::+8-:80", "port '+8'" },
		{ "user,hostfwd=tcp:localhost:80-:80", "'localhost' is not an IPv4" },
		{ "user,hostfwd=tcp:[::1]:80-:80", "'[::1]' is not an IPv4" },
		{ "user,hostfwd=tcp::80-10.0.2.15", "'10.0.2.15' has no ':'" },
		{ "passt,hostfwd=tcp::80-10.0.2.15:80", "only the port" },
		{ "user,hostfwd=tcp::80-10.0.3.15:80", "10.0.3.15 is not in the guest's network, 10.0.2.0/24" },
		{ "user,hostfwd=tcp::80-10.0.2.15:80,net=192.168.7.0/25", "10.0.2.15 is not in the guest's network, 192.168.7.0/25" },
		{ "user,net=192.168.7.0/25,hostfwd=tcp::80-192.168.7.128:80", "192.168.7.128 is not in" },
		{ "user,hostfwd=tcp::80-:80,hostfwd=:0.0.0.0:80-:81", "port 80 is published twice" },
		{ "user,hostfwd=tcp::80-:80,hostfwd=tcp:127.0.0.1:80-:81", "port 80 is published twice" },
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(no); i++)
		bad(no[i].says, "--net", no[i].net);
	good("--net", "user", "--net", "mac=02:00:00:00:00:01,passt", "--net", "fd=7", "--net", "user");
	assert_int_equal(c.nr_nets, 4);
	assert_int_equal(c.net[0].mode, NET_USER);
	assert_false(c.net[0].restricted || c.net[0].nr_forwards || c.net[0].network.s_addr);
	assert_int_equal(c.net[1].mode, NET_PASST);
	assert_true(c.net[1].has_mac);
	assert_int_equal(c.net[2].mode, NET_FD);
	assert_int_equal(c.net[2].fd, 7);
	bad_json("write tap=NAME", "{\"net\": {\"tap\": true}}");
	good("--net", "user,hostfwd=tcp::80-:80,hostfwd=udp::80-:80,hostfwd=tcp:127.0.0.1:81-:80", "--net",
	     "passt,hostfwd=tcp:127.0.0.2:81-:80,hostfwd=tcp::82-:80");
	bad("tcp port 8080 is published twice", "--net", "user,hostfwd=tcp::8080-:80", "--net",
	    "user,hostfwd=tcp::8080-:80");
	bad("udp port 53 is published twice", "--net", "user,hostfwd=udp:127.0.0.1:53-:53", "--net", "tap=a",
	    "--net", "passt,hostfwd=tcp::53-:53,hostfwd=udp::53-:53");
	bad("dump x: that is the file of dump x, too", "--net", "user,dump=x", "--net", "tap=a,dump=x");
	bad("fd 7 is given twice", "--net", "fd=7", "--net", "tap=a", "--net", "fd=7");
}

static void test_net_user(void **state)
{
	const struct net_forward *f;

	(void)state;
	good("--net", "user,restrict=on,net=172.20.0.0/16,dns=9.9.9.9,hostfwd=tcp:127.0.0.1:8080-:80,"
	     "hostfwd=udp::53-172.20.0.9:5353,hostfwd=::1-:65535");
	assert_true(c.net[0].restricted);
	assert_int_equal(c.net[0].network.s_addr, htonl(0xac140000));
	assert_int_equal(c.net[0].prefix_len, 16);
	assert_int_equal(c.net[0].dns.s_addr, htonl(0x09090909));
	assert_int_equal(c.net[0].nr_forwards, 3);
	f = c.net[0].forward;
	assert_false(f[0].udp || f[2].udp || f[0].guest.s_addr || f[1].host.s_addr);
	assert_int_equal(f[0].host.s_addr, htonl(INADDR_LOOPBACK));
	assert_int_equal(f[0].host_port, 8080);
	assert_int_equal(f[0].guest_port, 80);
	assert_true(f[1].udp);
	assert_int_equal(f[1].guest.s_addr, htonl(0xac140009));
	assert_int_equal(f[1].guest_port, 5353);
	assert_int_equal(f[2].guest_port, 65535);
	good("--net", "passt,hostfwd=tcp::22-:22");
	assert_int_equal(c.net[0].forward->host_port, 22);
	good_json("{\"net\": [\"user\", {\"user\": true, \"restrict\": true, \"hostfwd\":"
		  " [\"tcp::80-:80\", \"udp::53-:53\"]}, {\"passt\": true, \"hostfwd\": \"tcp::81-:80\"},"
		  " {\"fd\": 9}]}");
	assert_int_equal(c.nr_nets, 4);
	assert_true(c.net[1].mode == NET_USER && c.net[1].restricted);
	assert_int_equal(c.net[1].nr_forwards, 2);
	assert_true(c.net[1].forward[1].udp);
	assert_int_equal(c.net[2].mode, NET_PASST);
	assert_int_equal(c.net[3].fd, 9);
	bad_json("leave '=false' out", "{\"net\": {\"user\": false}}");
	bad_json("neither text, a whole number", "{\"net\": {\"user\": true, \"hostfwd\": [[]]}}");
}

static void test_vhost(void **state)
{
	(void)state;
	good("--net", "tap=a", "--net", "tap=b,vhost=on,queues=2", "--net",
	     "nat,vhost=auto,dump=f,bw_rx=1M", "--net", "user,vhost=auto");
	assert_int_equal(c.net[0].vhost, NET_VHOST_OFF);
	assert_int_equal(c.net[1].vhost, NET_VHOST_ON);
	assert_int_equal(c.net[2].vhost, NET_VHOST_AUTO);
	assert_int_equal(c.net[3].vhost, NET_VHOST_AUTO);
	good("--net", "vhost=on,fd=5", "--net", "bridge=b,vhost=on", "--net", "hostonly,vhost=on", "--net",
	     "user,vhost=off");
	assert_int_equal(c.net[0].vhost, NET_VHOST_ON);
	assert_int_equal(c.net[3].vhost, NET_VHOST_OFF);
	good_json("{\"net\": [{\"tap\": \"a\", \"vhost\": true}, {\"tap\": \"b\", \"vhost\": \"auto\"}]}");
	assert_int_equal(c.net[0].vhost, NET_VHOST_ON);
	assert_int_equal(c.net[1].vhost, NET_VHOST_AUTO);
}

static void test_networks(void **state)
{
	static const char *const no[] = { "", "..", "a/b", "twelve_chars", "-a", "a b", "\xc3\xa4" };
	char text[64];

	(void)state;
	good("--net", "nat", "--net", "nat=lab", "--net", "hostonly,mac=02:00:00:00:00:01", "--net",
	     "hostonly=eleven_char");
	assert_string_equal(c.net[0].host_network, "default");
	assert_string_equal(c.net[1].host_network, "lab");
	assert_string_equal(c.net[2].host_network, "hostonly");
	assert_int_equal(c.net[1].mode, NET_NAT);
	assert_int_equal(c.net[2].mode, NET_HOSTONLY);
	assert_string_equal(c.net[3].host_network, "eleven_char");
	good("--net", "bridge=br0", "--net", "bridge=br0,vlan=100", "--net", "vlan=100+200-299,bridge=b");
	assert_string_equal(c.net[0].bridge, "br0");
	assert_null(c.net[0].vlan);
	assert_string_equal(c.net[1].vlan, "100");
	assert_string_equal(c.net[2].vlan, "100+200-299");
	good_json("{\"net\": [{\"nat\": true}, {\"hostonly\": \"x\"}, {\"bridge\": \"b\","
		  " \"vlan\": 7}, \"nat=y\"]}");
	assert_int_equal(c.net[0].mode, NET_NAT);
	assert_string_equal(c.net[1].host_network, "x");
	assert_int_equal(c.net[2].mode, NET_BRIDGE);
	assert_string_equal(c.net[3].host_network, "y");
	bad_json("leave it out", "{\"net\": {\"nat\": false}}");
	for (unsigned i = 0; i < ARRAY_SIZE(no); i++) {
		snprintf(text, sizeof(text), "nat=%s", no[i]);
		bad("network name", "--net", text);
		snprintf(text, sizeof(text), "hostonly=%s", no[i]);
		bad("network name", "--net", text);
	}
	bad("not a bridge's name", "--net", "bridge=");
	bad("not a bridge's name", "--net", "bridge=a/b");
	bad("not a bridge's name", "--net", "bridge=..");
	bad("not a bridge's name", "--net", "bridge=vmm%d");
	bad("not a bridge's name", "--net", "bridge=sixteen-letters!");
	bad("vlan '4095'", "--net", "bridge=b,vlan=4095");
	bad("vlan 'true'", "--net", "bridge=b,vlan");
	bad("vlan '200' beside '100'; several are written 100+200", "--net", "bridge=b,vlan=100,vlan=200");
	bad_json("several are written 100+200", "{\"net\": {\"bridge\": \"b\", \"vlan\": [100, 200]}}");
	bad("bridge=NAME only", "--net", "nat,vlan=5");
	bad("bridge=NAME only", "--net", "tap=t,vlan=5");
	bad("what kind of network", "--net", "vlan=5");
	bad("user, passt, nat, hostonly, bridge=NAME", "--net", "mac=02:00:00:00:00:01");
	bad("mac 02:00:00:00:00:01 is given twice on b", "--net", "bridge=b,mac=02:00:00:00:00:01", "--net",
	    "vlan=5,bridge=b,mac=02:00:00:00:00:01");
	bad("is given twice on default", "--net", "nat,mac=02:00:00:00:00:01", "--net",
	    "mac=02:00:00:00:00:01,nat");
	good("--net", "nat,mac=02:00:00:00:00:01", "--net", "nat=x,mac=02:00:00:00:00:01", "--net",
	     "bridge=x,mac=02:00:00:00:00:01", "--net", "user,mac=02:00:00:00:00:01", "--net",
	     "user,mac=02:00:00:00:00:01", "--net", "bridge=x", "--net", "bridge=x");
	bad("says again", "--net", "nat,hostonly");
	bad("says again", "--net", "nat,tap=t");
	bad("did you mean 'hostonly'", "--net", "host-only");
}

static void test_vsock(void **state)
{
	char text[160];

	(void)state;
	good("--mem", "64M");
	assert_null(c.vsock.path);
	good("--vsock", "cid=3,uds=/run/v.sock");
	assert_int_equal(c.vsock.cid, 3);
	assert_string_equal(c.vsock.path, "/run/v.sock");
	/* The last of each wins, and a comma is doubled. */
	good("--vsock", "uds=a,cid=4294967294", "--vsock", "uds=b,,c");
	assert_int_equal(c.vsock.cid, UINT32_MAX - 1);
	assert_string_equal(c.vsock.path, "b,c");
	bad("--vsock: 'cid=3' has no uds", "--vsock", "cid=3");
	bad("has no cid", "--vsock", "uds=v");
	bad("vsock: cid '2' is not a number from 3 to 4294967294", "--vsock", "cid=2,uds=v");
	bad("vsock: cid '4294967295' is not a number", "--vsock", "cid=4294967295,uds=v");
	bad("vsock: cid '4294967296'", "--vsock", "cid=4294967296,uds=v");
	bad("vsock: cid 'x'", "--vsock", "cid=x,uds=v");
	bad("uds '': a socket's path has 1 to 107 bytes", "--vsock", "cid=3,uds=");
	snprintf(text, sizeof(text), "cid=3,uds=%0108d", 0);
	bad("a socket's path has 1 to 107 bytes", "--vsock", text);
	snprintf(text, sizeof(text), "cid=3,uds=%0107d", 0);
	good("--vsock", text);
	bad("unknown option 'port'", "--vsock", "cid=3,uds=v,port=5");
	bad("", "--vsock", "");
	good_json("{\"vsock\": {\"cid\": 5, \"uds\": \"a,b\"}}");
	assert_int_equal(c.vsock.cid, 5);
	assert_string_equal(c.vsock.path, "a,b");
	good_json("{\"vsock\": \"cid=6,uds=v\"}");
	assert_int_equal(c.vsock.cid, 6);
	bad_json("vsock: must be text or an object", "{\"vsock\": 3}");
	bad_json("vsock: must be text or an object", "{\"vsock\": [{\"cid\": 5, \"uds\": \"v\"}]}");
	put_json("{\"vsock\": {\"cid\": 5, \"uds\": \"v\"}}");
	good("--vsock", "uds=w", "--config", path);
	assert_int_equal(c.vsock.cid, 5);
	assert_string_equal(c.vsock.path, "w");
	/* It takes a place of the bus. */
	good_json("{\"vsock\": {\"cid\": 5, \"uds\": \"v\"}, \"transport\": \"mmio\", \"net\": "
		  "[\"tap=a\", \"tap=b\", \"tap=c\", \"tap=d\", \"tap=e\", \"tap=f\", \"tap=g\", \"tap=h\", "
		  "\"tap=i\", \"tap=j\", \"tap=k\", \"tap=l\", \"tap=m\", \"tap=n\", \"tap=o\"]}");
	bad("16 disks and networks are too many: with --transport mmio and --vsock at most 15", "--config", path,
	    "--disk", "a");
}

static void test_mmds(void **state)
{
	(void)state;
	good("--net", "user");
	assert_int_equal(c.mmds.cards, 0);
	good("--mmds", "net0", "--net", "user");
	assert_int_equal(c.mmds.cards, 1);
	assert_false(c.mmds.v2);
	assert_int_equal(ntohl(c.mmds.address.s_addr), MMDS_ADDRESS);
	good("--net", "user", "--net", "tap=t,vhost=on", "--net", "tap=u,vhost=auto", "--mmds",
	     "net2,version=V2,net0,address=169.254.254.255", "--metadata", "f");
	assert_int_equal(c.mmds.cards, 5);
	assert_true(c.mmds.v2);
	assert_int_equal(ntohl(c.mmds.address.s_addr), 0xa9fefeff);
	assert_string_equal(c.metadata, "f");
	bad("no card net1", "--net", "user", "--mmds", "net0,net1");
	bad("no card net29", "--net", "user", "--mmds", "net29");
	bad("unknown option 'net30'", "--net", "user", "--mmds", "net30");
	bad("unknown option 'eth0'", "--net", "user", "--mmds", "eth0");
	bad("did you mean 'version'", "--net", "user", "--mmds", "net0,versoin=V1");
	bad("not 'V3'", "--net", "user", "--mmds", "net0,version=V3");
	bad("not 'true'", "--net", "user", "--mmds", "net0,version");
	bad("no card", "--net", "user", "--mmds", "version=V2");
	bad("address '10.0.0.1'", "--net", "user", "--mmds", "net0,address=10.0.0.1");
	bad("address '169.254.255.0'", "--net", "user", "--mmds", "net0,address=169.254.255.0");
	bad("address ''", "--net", "user", "--mmds", "net0,address=");
	bad("vhost=on is not for net1", "--net", "user", "--net", "tap=t,vhost=on", "--mmds", "net1");
	bad("--metadata is for --mmds", "--net", "user", "--metadata", "f");
	bad("no name", "--net", "user", "--mmds", "net0", "--metadata", "");
}

static void test_unknown_options(void **state)
{
	(void)state;
	bad("did you mean '--kernel'", "--kernal", "x");
	bad("did you mean '--cpus'", "--cpu", "2");
	bad("did you mean '--hugepages'", "--huge");
	bad("did you mean '--help'", "--helpp");
	bad("did you mean '--mem'", "--mme", "1");
	bad("did you mean '--mem'", "-mem", "1");
	bad("did you mean '--mem'", "--memory=512M");
	bad("'vmm --help' lists all", "--frobnicate-the-guest");
	bad("not an option", "stray");
	bad("not an option", "--");
	bad("not an option", "-m");
	bad("unknown option", "--=x");
	bad("needs a value", "--mem");
	bad("needs a value", "--config");
	bad("config: the value is empty", "--config=");
	bad("unknown option",
	    "--a-name-that-is-much-longer-than-any-buffer-for-the-names-of-options-could-be");
}

static void test_nearest(void **state)
{
	static const char *const names[] = { "kernel", "initrd", "mem", "no-reboot" };

	(void)state;
	assert_ptr_equal(config_nearest("kernle", names, 4), names[0]);
	assert_ptr_equal(config_nearest("no-", names, 4), names[3]);
	assert_ptr_equal(config_nearest("men", names, 4), names[2]);
	assert_null(config_nearest("xyzzy", names, 4));
	assert_null(config_nearest("", names, 4));
	assert_null(config_nearest("a-name-longer-than-the-thirty-two-letters", names, 4));
}

static void test_json(void **state)
{
	(void)state;
	good_json("{\"mem\": \"1G\", \"cpus\": 4, \"hugepages\": true, \"no-reboot\": false,"
		  " \"disk\": [\"a,readonly\", {\"readonly\": true, \"path\": \"b,c=d\","
		  " \"serial\": \"x,y\"}], \"net\": {\"tap\": \"t\","
		  " \"mac\": \"02:00:00:00:00:05\"}, \"append\": \"quiet\"}");
	assert_int_equal(c.mem, GIB);
	assert_int_equal(c.cpus, 4);
	assert_true(c.hugepages && !c.no_reboot);
	assert_int_equal(c.nr_disks, 2);
	assert_string_equal(c.disk[0].path, "a");
	assert_true(c.disk[0].read_only);
	assert_string_equal(c.disk[1].path, "b,c=d");
	assert_string_equal(c.disk[1].serial, "x,y");
	assert_true(c.disk[1].read_only);
	assert_int_equal(c.nr_nets, 1);
	assert_string_equal(c.net[0].tap, "t");
	assert_int_equal(c.net[0].mac[5], 5);
	assert_string_equal(c.append, "quiet");
	good_json("{\"mem\": 64, \"disk\": \"one\"}");
	assert_int_equal(c.mem, 64 * MIB);
	assert_int_equal(c.nr_disks, 1);
	put_json("{\"kernel\": \"from-file\"}");
	assert_int_equal(parse("--config", path, NULL), 0);
	assert_string_equal(c.kernel, "from-file");
}

/* The command line wins wherever it stands, and replaces whole lists. */
static void test_json_precedence(void **state)
{
	(void)state;
	put_json("{\"mem\": 64, \"cpus\": 3, \"disk\": [\"a\", \"b\"], \"net\": \"tap=n\","
		 " \"append\": \"file\"}");
	good("--mem", "128M", "--disk", "c", "--append", "line", "--config", path);
	assert_int_equal(c.mem, 128 * MIB);
	assert_int_equal(c.cpus, 3);
	assert_int_equal(c.nr_disks, 1);
	assert_string_equal(c.disk[0].path, "c");
	assert_int_equal(c.nr_nets, 1);
	assert_string_equal(c.append, "line");
	good("--config", path, "--net", "tap=x", "--net", "tap=y");
	assert_int_equal(c.nr_disks, 2);
	assert_int_equal(c.nr_nets, 2);
	assert_string_equal(c.net[0].tap, "x");
}

static void test_json_errors(void **state)
{
	(void)state;
	bad_json("path", "{\"kernel\": \"k\", \"disk\": {\"readonly\": true}}");
	bad_json("path", "{\"kernel\": \"k\", \"disk\": [{\"path\": \"\"}]}");
	bad_json("line 2", "{\n\"mem\": }");
	bad_json("must be an object", "[1]");
	bad_json("did you mean 'cpus'", "{\"cpu\": 1}");
	bad_json("mem", "{\"mem\": 1.5}");
	bad_json("mem", "{\"mem\": -64}");
	bad_json("mem", "{\"mem\": true}");
	bad_json("mem", "{\"mem\": [64]}");
	bad_json("mem", "{\"mem\": null}");
	bad_json("hugepages: must be true or false", "{\"hugepages\": \"on\"}");
	bad_json("a list in a list", "{\"disk\": [[\"a\"]]}");
	bad_json("disk", "{\"disk\": 5}");
	bad_json("disk", "{\"disk\": [5]}");
	bad_json("neither text, a whole number", "{\"disk\": {\"path\": \"a\", \"serial\": 1.5}}");
	bad_json("did you mean 'serial'", "{\"disk\": {\"path\": \"a\", \"seriel\": \"b\"}}");
	bad_json("config", "{\"mem\": 64, \"mem\": 65}");
	bad_json("config", "");
	assert_int_equal(parse("--config", "/nonexistent/c.json", NULL), -ENOENT);
	assert_string_equal(err.msg, "config /nonexistent/c.json: No such file or directory");
	assert_int_equal(parse("--config", "/", NULL), -EISDIR);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_api_sock), cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_no_kernel),
		cmocka_unit_test(test_help_and_version), cmocka_unit_test(test_strings),
		cmocka_unit_test(test_names), cmocka_unit_test(test_mem),
		cmocka_unit_test(test_sizes), cmocka_unit_test(test_cpus),
		cmocka_unit_test(test_switches), cmocka_unit_test(test_choices),
		cmocka_unit_test(test_disks), cmocka_unit_test(test_too_many_disks),
		cmocka_unit_test(test_nets), cmocka_unit_test(test_net_modes),
		cmocka_unit_test(test_vhost), cmocka_unit_test(test_networks),
		cmocka_unit_test(test_net_user), cmocka_unit_test(test_vsock), cmocka_unit_test(test_mmds),
		cmocka_unit_test(test_unknown_options),
		cmocka_unit_test(test_nearest), cmocka_unit_test(test_json),
		cmocka_unit_test(test_json_precedence), cmocka_unit_test(test_json_errors),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
