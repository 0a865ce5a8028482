/* config.c: the table of options, and how each value is read and judged. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/config_own.h"
#include "vmm/gdb.h"

enum { NAME_MAX_LEN = 64 };
#define DEFAULT_MEM	(512 * MIB)

/* --- the options ---------------------------------------------------------------------------------- */

#define STRING_OPTION(field, text) \
	static int set_##field(struct config *c, const char *v, struct err *err) \
	{ \
		return *v ? config_set_text(&c->field, v, err) : \
			    err_set(err, -EINVAL, text ": the value is empty"); \
	}
STRING_OPTION(kernel, "kernel")
STRING_OPTION(initrd, "initrd")
STRING_OPTION(pidfile, "pidfile")
STRING_OPTION(api_sock, "api-sock")
STRING_OPTION(chroot, "chroot")
STRING_OPTION(cgroup, "cgroup")
STRING_OPTION(netns, "netns")

#define SWITCH_OPTION(field, text) \
	static int set_##field(struct config *c, const char *v, struct err *err) \
	{ \
		return config_parse_switch(v, &c->field) ? \
			err_set(err, -EINVAL, text ": '%s' is neither on nor off", v) : 0; \
	}
SWITCH_OPTION(hugepages, "hugepages")
SWITCH_OPTION(no_reboot, "no-reboot")
SWITCH_OPTION(track_dirty_pages, "track-dirty-pages")

static int set_cmdline(struct config *c, const char *v, struct err *err)
{
	return config_set_text(&c->cmdline, v, err);
}

static int set_append(struct config *c, const char *v, struct err *err)
{
	char *both = NULL;

	if (!c->append)
		return config_set_text(&c->append, v, err);
	if (asprintf(&both, "%s %s", c->append, v) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	free(c->append);
	c->append = both;
	return 0;
}

static int set_mem(struct config *c, const char *v, struct err *err)
{
	u64 size;
	int rc = config_parse_size(v, MIB, &size, err);

	if (rc)
		return err_prefix(err, "mem: ");
	if (size % MIB || size / MIB < CONFIG_MEM_MIN_MIB || size / MIB > CONFIG_MEM_MAX_MIB)
		return err_set(err, -EINVAL, "mem: '%s' is not between %dM and %lluG in whole MiB", v,
			       CONFIG_MEM_MIN_MIB, CONFIG_MEM_MAX_MIB >> 10);
	c->mem = size;
	return 0;
}

static int set_cpus(struct config *c, const char *v, struct err *err)
{
	unsigned long n;

	if (config_parse_number(v, 1, CONFIG_MAX_CPUS, &n))
		return err_set(err, -EINVAL, "cpus: '%s' is not a number from 1 to %d", v,
			       CONFIG_MAX_CPUS);
	c->cpus = n;
	return 0;
}

static int set_serial(struct config *c, const char *v, struct err *err)
{
	bool ok = !strcmp(v, "stdio") || !strcmp(v, "pty") || !strcmp(v, "none") ||
		  (!strncmp(v, "file:", 5) && v[5]) || (!strncmp(v, "unix:", 5) && v[5]);

	return ok ? config_set_text(&c->serial, v, err) :
		    err_set(err, -EINVAL, "serial: '%s' is none of stdio, pty, file:PATH, unix:PATH, "
			    "none", v);
}

static int set_transport(struct config *c, const char *v, struct err *err)
{
	if (strcmp(v, "pci") && strcmp(v, "mmio"))
		return err_set(err, -EINVAL, "transport: '%s' is neither pci nor mmio", v);
	c->transport = strcmp(v, "pci") ? TRANSPORT_MMIO : TRANSPORT_PCI;
	return 0;
}

static int set_aio(struct config *c, const char *v, struct err *err)
{
	static const char *const name[] = { "auto", "io_uring", "threads" };

	for (unsigned i = 0; i < ARRAY_SIZE(name); i++)
		if (!strcmp(v, name[i])) {
			c->aio = i;
			return 0;
		}
	return err_set(err, -EINVAL, "aio: '%s' is none of auto, io_uring, threads", v);
}

static int set_sandbox(struct config *c, const char *v, struct err *err)
{
	static const char *const name[] = { "on", "log", "off" };

	for (unsigned i = 0; i < ARRAY_SIZE(name); i++)
		if (!strcmp(v, name[i])) {
			c->sandbox = i;
			return 0;
		}
	return err_set(err, -EINVAL, "sandbox: '%s' is none of on, log, off", v);
}

static int set_id(const char *what, const char *v, bool *has, u32 *id, struct err *err)
{
	unsigned long n;

	if (config_parse_number(v, 0, UINT32_MAX - 1, &n))
		return err_set(err, -EINVAL, "%s: '%s' is not a number from 0 to %u", what, v, UINT32_MAX - 1);
	*has = true;
	*id = n;
	return 0;
}

static int set_cpu_quota(struct config *c, const char *v, struct err *err)
{
	unsigned long n;

	if (config_parse_number(v, 1, 100UL * CONFIG_MAX_HOST_CPUS, &n))
		return err_set(err, -EINVAL, "cpu-quota: '%s' is not a number of percent of one processor, like "
			       "150, and at most %d", v, 100 * CONFIG_MAX_HOST_CPUS);
	c->cpu_quota = n;
	return 0;
}

static int set_mem_limit(struct config *c, const char *v, struct err *err)
{
	return config_parse_size(v, MIB, &c->mem_limit, err) ? err_prefix(err, "mem-limit: ") : 0;
}

static int set_uid(struct config *c, const char *v, struct err *err)
{
	return set_id("uid", v, &c->has_uid, &c->uid, err);
}

static int set_gid(struct config *c, const char *v, struct err *err)
{
	return set_id("gid", v, &c->has_gid, &c->gid, err);
}

/* "0-3,8" */
static int set_affinity(struct config *c, const char *v, struct err *err)
{
	const char *s = v;

	memset(c->affinity, 0, sizeof(c->affinity));
	do {
		unsigned long from, to;
		char *end;

		if (!isdigit((unsigned char)*s))
			goto bad;
		from = to = strtoul(s, &end, 10);
		if (*end == '-') {
			if (!isdigit((unsigned char)end[1]))
				goto bad;
			to = strtoul(end + 1, &end, 10);
		}
		if (from > to || to >= CONFIG_MAX_HOST_CPUS || (*end && *end != ','))
			goto bad;
		for (unsigned long i = from; i <= to; i++)
			c->affinity[i / 64] |= 1ULL << i % 64;
		s = end;
	} while (*s++);
	return config_set_text(&c->affinity_list, v, err);
bad:
	return err_set(err, -EINVAL, "cpu-affinity: '%s' is not a list of processors like 0-3,8, from 0 to %d", v,
		       CONFIG_MAX_HOST_CPUS - 1);
}

static int set_name(struct config *c, const char *v, struct err *err)
{
	size_t len = strspn(v, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

	if (!len || v[len] || len > NAME_MAX_LEN || *v == '.' || *v == '-')
		return err_set(err, -EINVAL, "name: '%s' is not 1 to %d letters, digits, '.', '_' or "
			       "'-', the first a letter or digit", v, NAME_MAX_LEN);
	return config_set_text(&c->name, v, err);
}

static int set_gdb(struct config *c, const char *v, struct err *err)
{
	int rc = gdb_check_where(v, err);

	return rc ? rc : config_set_text(&c->gdb, v, err);
}

static int set_metadata(struct config *c, const char *v, struct err *err)
{
	return *v ? config_set_text(&c->metadata, v, err) :
		    err_set(err, -EINVAL, "metadata: no name of a file");
}

static int set_log_level(struct config *c, const char *v, struct err *err)
{
	return log_level_by_name(v, &c->log_level) ? 0 :
		err_set(err, -EINVAL, "log-level: '%s' is none of err, warn, info, debug", v);
}

static int set_log_format(struct config *c, const char *v, struct err *err)
{
	return log_format_by_name(v, &c->log_format) ? 0 :
		err_set(err, -EINVAL, "log-format: '%s' is neither text nor json", v);
}

static int set_log_file(struct config *c, const char *v, struct err *err)
{
	return *v ? config_set_text(&c->log_file, v, err) :
		    err_set(err, -EINVAL, "log-file: no name of a file");
}

const struct option config_options[] = {
	{ "kernel", "FILE", "the kernel: a bzImage (vmlinuz), or an ELF file with a PVH entry", false,
	  set_kernel },
	{ "initrd", "FILE", "its initial RAM disk; without this option one beside the kernel is\n"
	  "taken (vmlinuz-V: initrd.img-V, initramfs-V.img; any K: K.initrd);\n"
	  "'none': do not", false, set_initrd },
	{ "append", "TEXT", "add TEXT to the default kernel command line", false, set_append },
	{ "cmdline", "TEXT", "the whole kernel command line, instead of the default", false,
	  set_cmdline },
	{ "mem", "SIZE", "memory, like 512M or 2G (default 512M)", false, set_mem },
	{ "hugepages", NULL, "take it from the host's reserved huge pages", false, set_hugepages },
	{ "cpus", "N", "processors, 1 to 64 (default 1)", false, set_cpus },
	{ "disk", "PATH[,OPT...]", "a disk: an image or a block device; several: vda, vdb, ...\n"
	  "options: readonly, serial=TEXT, format=raw|qcow2, backing=anywhere,\n"
	  "cache=writeback|writethrough, direct, discard=off, write_zeroes=off,\n"
	  "queues=N, iothreads=N, bw=BYTES, bw_burst=BYTES, iops=N, iops_burst=N,\n"
	  "on_error=report|stop; see vmm(1)", true, config_parse_disk },
	{ "net", "KIND[,OPT...]", "a network card; KIND is one of\n"
	  "  user            NAT, DHCP and DNS by libslirp, without privileges\n"
	  "  passt           the like by the program passt\n"
	  "  nat[=NET]       a network of this host's with NAT, DHCP and DNS, made if\n"
	  "                  need be ('vmm net --help')\n"
	  "  hostonly[=NET]  the like with no way out\n"
	  "  bridge=NAME     a bridge; vlan=N: in VLAN N; vlan=N+N: in these, tagged\n"
	  "  tap=NAME        the tap NAME, which is made if need be\n"
	  "  fd=N            an open tap, or a connected socket\n"
	  "options: mac=02:00:00:12:34:56, mtu=N, iothreads=N, bw_rx=BYTES, bw_tx=BYTES,\n"
	  "pps_rx=N, pps_tx=N, a _burst= for each of these, dump=FILE.pcap;\n"
	  "of those with a tap also vhost=on|off|auto (frames by the host's kernel;\n"
	  "default off), of tap also queues=N;\n"
	  "of user and passt also\n"
	  "hostfwd=tcp:127.0.0.1:8080-:80 (publish a port; repeatable);\n"
	  "of user also restrict=on, net=10.0.2.0/24, dns=ADDRESS", true, config_parse_net },
	{ "mmds", "CARD[,OPT...]", "net0, net1, ...: on these cards, one or more, the guest asks by HTTP for\n"
	  "what --metadata or the API put there; options: version=V1|V2 (default V1;\n"
	  "V2: with a token only), address=ADDRESS (default 169.254.169.254)", false, config_parse_mmds },
	{ "metadata", "FILE", "an object of JSON for --mmds", false, set_metadata },
	{ "vsock", "cid=N,uds=PATH", "sockets between guest and host: the host's are the unix sockets\n"
	  "PATH (from the host: 'CONNECT PORT') and PATH_PORT (from the guest)", false, config_parse_vsock },
	{ "serial", "WHERE", "the console: stdio (default), pty, file:PATH, unix:PATH, none", false,
	  set_serial },
	{ "transport", "T", "how disks and networks are attached: pci (default) or mmio", false,
	  set_transport },
	{ "aio", "ENGINE", "disk I/O by io_uring, by threads, or auto (default)", false, set_aio },
	{ "name", "NAME", "the VM's name; network addresses are derived from it", false, set_name },
	{ "api-sock", "PATH", "answer the HTTP API on this unix socket; without --kernel, it\n"
	  "starts the VM", false, set_api_sock },
	{ "gdb", "WHERE", "let GDB debug the guest: PORT of this host, tcp:[ADDRESS]:PORT, or\n"
	  "unix:PATH; with ',wait' behind it, wait for it first", false, set_gdb },
	{ "pidfile", "FILE", "write the process id there, and remove it at the end", false,
	  set_pidfile },
	{ "no-reboot", NULL, "when the guest reboots, exit with status 0", false, set_no_reboot },
	{ "track-dirty-pages", NULL, "remember what the guest writes to, for diff snapshots", false,
	  set_track_dirty_pages },
	{ "sandbox", "MODE", "on (default): once the guest runs, vmm can do only what it needs;\n"
	  "log: the host's kernel logs what else it does; off", false, set_sandbox },
	{ "cpu-affinity", "LIST", "run on these of the host's processors only, like 0-3,8", false,
	  set_affinity },
	{ "cpu-quota", "PERCENT", "use no more of the host than this, of one processor, like 150", false,
	  set_cpu_quota },
	{ "mem-limit", "SIZE", "and no more memory than this, for guest and vmm", false, set_mem_limit },
	{ "cgroup", "GROUP", "the control group of these limits, made if it is not there (default\n"
	  "vmm/PID)", false, set_cgroup },
	{ "uid", "N", "become this user, and --gid this group, before anything is opened", false,
	  set_uid },
	{ "gid", "N", "by default the group of the same number", false, set_gid },
	{ "chroot", "DIR", "in this directory, where all paths are from then on; needs --uid", false,
	  set_chroot },
	{ "netns", "NAME", "in this network namespace, a name of ip-netns(8) or a path", false,
	  set_netns },
	{ "log-level", "LEVEL", "err, warn, info (default) or debug", false, set_log_level },
	{ "log-file", "PATH", "the log goes there, not to standard error", false, set_log_file },
	{ "log-format", "FORMAT", "text (default), or json: an object a line", false,
	  set_log_format },
};
const unsigned config_nr_options = ARRAY_SIZE(config_options);

const struct option *config_find_option(const char *name)
{
	for (unsigned i = 0; i < config_nr_options; i++)
		if (!strcmp(config_options[i].name, name))
			return &config_options[i];
	return NULL;
}

const char *config_nearest_option(const char *name)
{
	const char *names[ARRAY_SIZE(config_options) + 3];
	unsigned n = 0;

	for (unsigned i = 0; i < config_nr_options; i++)
		names[n++] = config_options[i].name;
	names[n++] = "config";
	names[n++] = "help";
	names[n++] = "version";
	return config_nearest(name, names, n);
}

/* --- the command line ------------------------------------------------------------------------------------ */

struct argument {
	const char *name, *value;	/* value NULL: none was given */
	int used;			/* of argv */
};

static struct argument next_argument(int argc, char **argv, char *name, size_t room)
{
	char *eq = strchr(argv[0], '=');
	size_t len = eq ? (size_t)(eq - argv[0]) : strlen(argv[0]);

	snprintf(name, room, "%.*s", (int)(len - 2), argv[0] + 2);
	if (eq)
		return (struct argument){ name, eq + 1, 1 };
	return (struct argument){ name, argc > 1 ? argv[1] : NULL, 2 };
}

static void clear_list(struct config *c, const struct option *o)
{
	if (o->set == config_parse_disk)
		while (c->nr_disks)
			config_drop_disk(&c->disk[--c->nr_disks]);
	else
		while (c->nr_nets)
			config_drop_net(&c->net[--c->nr_nets]);
}

static int unknown_option(const char *arg, const char *name, struct err *err)
{
	const char *near = config_nearest_option(name);

	return near ? err_set(err, -EINVAL, "unknown option '%s'; did you mean '--%s'?", arg, near) :
		      err_set(err, -EINVAL, "unknown option '%s'; 'vmm --help' lists all", arg);
}

/* One pass over argv: pass 0 takes --config, --help and --version, pass 1 all else. */
static int parse_args(struct config *c, int argc, char **argv, int pass, bool *help, bool *version,
		      struct err *err)
{
	const struct option *cleared[2] = { NULL, NULL };
	bool cmdline_seen = false;
	int rc = 0;

	for (int i = 0, used; i < argc && !rc; i += used) {
		const struct option *o;
		struct argument a;
		char name[40];

		used = 1;
		if (!strcmp(argv[i], "-h") || !strcmp(argv[i], "--help")) {
			*help = true;
			continue;
		}
		if (!strcmp(argv[i], "--version")) {
			*version = true;
			continue;
		}
		if (argv[i][0] == '-' && argv[i][1] && argv[i][1] != '-' && argv[i][2])
			return unknown_option(argv[i], argv[i] + 1, err);
		if (strncmp(argv[i], "--", 2) || !argv[i][2])
			return err_set(err, -EINVAL, "'%s' is not an option; 'vmm --help' lists all",
				       argv[i]);
		a = next_argument(argc - i, argv + i, name, sizeof(name));
		used = a.used;
		o = config_find_option(a.name);
		if (!o && strcmp(a.name, "config"))
			return unknown_option(argv[i], a.name, err);
		if (o && !o->metavar) {
			if (used == 2)
				a.value = "true";
			used = 1;
		}
		if (!a.value)
			return err_set(err, -EINVAL, "--%s needs a value: --%s %s", a.name, a.name,
				       o ? o->metavar : "FILE.json");
		if (!o) {
			if (!*a.value)
				rc = err_set(err, -EINVAL, "--config: the value is empty");
			else if (pass == 0)
				rc = config_parse_file(c, a.value, err);
			continue;
		}
		if (pass == 0)
			continue;
		if (o->is_list && cleared[o->set == config_parse_disk] != o) {
			cleared[o->set == config_parse_disk] = o;
			clear_list(c, o);
		}
		/* Added text is a list of its own: the file's is replaced, too, also by
		 * the other of these two, which exclude each other. */
		if (!cmdline_seen && (o->set == set_append || o->set == set_cmdline)) {
			free(c->append);
			free(c->cmdline);
			c->append = c->cmdline = NULL;
			cmdline_seen = true;
		}
		rc = o->set(c, a.value, err);
		if (rc)
			err_prefix(err, "--");
	}
	return rc;
}

int config_check(const struct config *c, struct err *err)
{
	/* PCI: a bus's slots but the host bridge's and the entropy source's. */
	unsigned most = (c->transport == TRANSPORT_MMIO ? 16 : 30) - !!c->vsock.path, threads = 0;

	if (c->cmdline && c->append)
		return err_set(err, -EINVAL, "--cmdline replaces the default that --append adds to; use "
			       "one of them");
	if (c->mem % MIB || c->mem / MIB < CONFIG_MEM_MIN_MIB || c->mem / MIB > CONFIG_MEM_MAX_MIB || !c->cpus)
		return err_set(err, -EINVAL, "%llu bytes of memory and %u processors are no machine",
			       (unsigned long long)c->mem, c->cpus);
	for (unsigned i = 0; i < c->nr_disks; i++)
		threads += c->disk[i].iothreads;
	for (unsigned i = 0; i < c->nr_nets; i++)
		threads += c->net[i].iothreads;
	if (threads > CONFIG_MAX_IOTHREADS)
		return err_set(err, -EINVAL, "iothreads are %u in all; at most %d are possible",
			       threads, CONFIG_MAX_IOTHREADS);
	if (c->nr_disks + c->nr_nets > most)
		return err_set(err, -EINVAL, "%u disks and networks are too many: with --transport %s%s at "
			       "most %u", c->nr_disks + c->nr_nets, c->transport == TRANSPORT_MMIO ? "mmio" : "pci",
			       c->vsock.path ? " and --vsock" : "", most);
	if (c->mem_limit && c->mem_limit < c->mem + 16 * MIB)
		return err_set(err, -EINVAL, "--mem-limit %lluM: with --mem %lluM vmm itself needs at least "
			       "%lluM", (unsigned long long)(c->mem_limit / MIB), (unsigned long long)(c->mem / MIB),
			       (unsigned long long)(c->mem / MIB + 16));
	if (c->has_gid && !c->has_uid)
		return err_set(err, -EINVAL, "--gid is of a user: give --uid, too");
	if (c->chroot && !c->uid)
		return err_set(err, -EINVAL, "--chroot holds no root: give --uid, of one who is nobody else");
	if (c->hugepages && c->mem % (2 * MIB))
		return err_set(err, -EINVAL, "--mem: with --hugepages a multiple of 2M, not %lluM",
			       (unsigned long long)(c->mem / MIB));
	return config_check_vsock(c, err) ?: config_check_nets(c, err) ?: config_check_files(c, err);
}

int config_parse(struct config *c, int argc, char **argv, bool *help, bool *version,
		 struct err *err)
{
	int rc;

	*help = *version = false;
	rc = parse_args(c, argc, argv, 0, help, version, err);
	if (rc || *help || *version)
		return rc;
	rc = parse_args(c, argc, argv, 1, help, version, err);
	if (!rc && !c->kernel && !c->api_sock)
		rc = err_set(err, -EINVAL, "no kernel: give one with --kernel FILE ('vmm --help' shows "
			     "the options)");
	return rc ? rc : config_check(c, err);
}

void config_init(struct config *c)
{
	memset(c, 0, sizeof(*c));
	c->mem = DEFAULT_MEM;
	c->cpus = 1;
	c->log_level = LOG_INFO;
}

void config_set_aside(struct config *c, struct config *was)
{
	*was = *c;
	c->kernel = c->initrd = c->append = c->cmdline = NULL;
	memset(c->disk, 0, sizeof(c->disk));
	memset(c->net, 0, sizeof(c->net));
	c->nr_disks = c->nr_nets = 0;
	c->vsock = (struct vsock_config){ 0 };
	c->mmds = (struct mmds_config){ 0 };
	c->entropy = (struct limit_config){ 0 };
	c->mem = DEFAULT_MEM;
	c->cpus = 1;
	c->smt = c->track_dirty_pages = false;
	c->transport = TRANSPORT_PCI;
}

void config_drop_machine(struct config *c)
{
	for (unsigned i = 0; i < config_nr_options; i++)
		if (config_options[i].is_list)
			clear_list(c, &config_options[i]);
	free(c->kernel);
	free(c->initrd);
	free(c->append);
	free(c->cmdline);
	free(c->vsock.path);
}

void config_fini(struct config *c)
{
	config_drop_machine(c);
	free(c->serial);
	free(c->name);
	free(c->pidfile);
	free(c->gdb);
	free(c->api_sock);
	free(c->metadata);
	free(c->log_file);
	free(c->logger_file);
	free(c->metrics_file);
	free(c->affinity_list);
	free(c->cgroup);
	free(c->chroot);
	free(c->netns);
}
