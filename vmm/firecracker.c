/* firecracker.c: 'vmm firecracker': the command line of Firecracker, version 1.17. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/api/json.h"
#include "vmm/commands.h"
#include "vmm/core/log.h"
#include "vmm/snapshot.h"
#include "vmm/version.h"
#include "vmm/vm.h"

#define DEFAULT_SOCKET	"/run/firecracker.socket"

enum option_id {
	API_SOCK, ID, CONFIG_FILE, NO_API, METADATA, LOG_PATH, LEVEL, SHOW_LEVEL, SHOW_LOG_ORIGIN,
	MODULE, METRICS_PATH, BOOT_TIMER, ENABLE_PCI, HTTP_MAX, MMDS_LIMIT, START_TIME,
	START_TIME_CPU, PARENT_CPU_TIME, NO_SECCOMP, SECCOMP_FILTER, VERSION, FORMAT,
	DESCRIBE_SNAPSHOT, HELP, NR_OPTIONS
};

static const struct {
	const char *name, *metavar;	/* NULL: a switch */
	const char *help;
} known[NR_OPTIONS] = {
	[API_SOCK] = { "api-sock", "PATH", "the API's socket (default " DEFAULT_SOCKET ")" },
	[ID] = { "id", "ID", "the VM's id, letters, digits and '-' (default anonymous-instance)" },
	[CONFIG_FILE] = { "config-file", "FILE", "configure the VM from this JSON file, and start it" },
	[NO_API] = { "no-api", NULL, "no socket; needs --config-file" },
	[METADATA] = { "metadata", "FILE", "JSON that the guest can ask for, if mmds-config says where" },
	[LOG_PATH] = { "log-path", "FILE", "the log goes there, else to standard error" },
	[LEVEL] = { "level", "LEVEL", "Off, Error, Warning, Info (default), Debug or Trace" },
	[SHOW_LEVEL] = { "show-level", NULL, "put the level into each line of the log" },
	[SHOW_LOG_ORIGIN] = { "show-log-origin", NULL, "no effect: a line says where it is from" },
	[MODULE] = { "module", "NAME", "no effect: the log is not divided" },
	[METRICS_PATH] = { "metrics-path", "FILE", "metrics go there, as lines of JSON" },
	[BOOT_TIMER] = { "boot-timer", NULL, "no effect: there is no such device" },
	[ENABLE_PCI] = { "enable-pci", NULL, "virtio over PCI instead of MMIO" },
	[HTTP_MAX] = { "http-api-max-payload-size", "N", "the longest body, in bytes (default 51200)" },
	[MMDS_LIMIT] = { "mmds-size-limit", "N", "the most metadata, in bytes (default: the longest body)" },
	[START_TIME] = { "start-time-us", "N", "when this was started, for the metrics" },
	[START_TIME_CPU] = { "start-time-cpu-us", "N", "the same, in CPU time" },
	[PARENT_CPU_TIME] = { "parent-cpu-time-us", "N", "CPU time that was spent before" },
	[NO_SECCOMP] = { "no-seccomp", NULL, "as --sandbox off of 'vmm run'" },
	[SECCOMP_FILTER] = { "seccomp-filter", "FILE", "refused: vmm has filters of its own" },
	[VERSION] = { "version", NULL, "which version of Firecracker's API this is" },
	[FORMAT] = { "snapshot-version", NULL, "which format snapshots of VMs are saved in" },
	[DESCRIBE_SNAPSHOT] = { "describe-snapshot", "FILE", "the same, of this state file" },
	[HELP] = { "help", NULL, "also -h" },
};

struct arguments {
	const char *value[NR_OPTIONS];	/* "" of a switch; NULL: not given */
	u64 number[NR_OPTIONS];
};

/* --- the command line ------------------------------------------------------------------------- */

static int find(const char *arg, unsigned *id, struct err *err)
{
	const char *names[NR_OPTIONS], *near;

	for (*id = 0; *id < NR_OPTIONS; (*id)++) {
		names[*id] = known[*id].name;
		if (!strncmp(arg, "--", 2) && !strcmp(arg + 2, names[*id]))
			return 0;
	}
	if (!strcmp(arg, "-h")) {
		*id = HELP;
		return 0;
	}
	near = config_nearest(arg + strspn(arg, "-"), names, NR_OPTIONS);
	return near ? err_set(err, -EINVAL, "unknown option '%s'; did you mean '--%s'?", arg, near) :
		      err_set(err, -EINVAL, "unknown option '%s'; 'vmm firecracker --help' lists all",
			      arg);
}

static int read_number(struct arguments *a, unsigned id, struct err *err)
{
	char *end;

	if (!a->value[id])
		return 0;
	errno = 0;
	a->number[id] = strtoull(a->value[id], &end, 10);
	if (!isdigit((unsigned char)*a->value[id]) || *end || errno)
		return err_set(err, -EINVAL, "--%s: '%s' is not a number", known[id].name,
			       a->value[id]);
	return 0;
}

static int check(struct arguments *a, struct err *err)
{
	const char *id = a->value[ID];

	for (unsigned i = HTTP_MAX; i <= PARENT_CPU_TIME; i++)
		if (read_number(a, i, err))
			return err->code;
	if (a->value[SECCOMP_FILTER])
		return err_set(err, -ENOTSUP, "--seccomp-filter: this version of vmm does not have filters "
			       "but its own");
	if (a->value[NO_API] && !a->value[CONFIG_FILE])
		return err_set(err, -EINVAL, "--no-api needs --config-file: else nothing starts the VM");
	for (const char *s = id; s && *s; s++)
		if (!isalnum((unsigned char)*s) && *s != '-')
			return err_set(err, -EINVAL, "--id: '%s' has other characters than letters, "
				       "digits and '-'", id);
	if (id && (!*id || strlen(id) > 64))
		return err_set(err, -EINVAL, "--id: '%s' does not have 1 to 64 characters", id);
	return 0;
}

/* What stands behind "--" is nobody's. */
static int parse(struct arguments *a, int argc, char **argv, struct err *err)
{
	for (int i = 0; i < argc && strcmp(argv[i], "--"); i++) {
		unsigned id;
		int rc = find(argv[i], &id, err);

		if (rc)
			return rc;
		if (a->value[id])
			return err_set(err, -EINVAL, "%s stands twice", argv[i]);
		a->value[id] = "";
		if (!known[id].metavar)
			continue;
		if (i + 1 == argc || !strncmp(argv[i + 1], "--", 2))
			return err_set(err, -EINVAL, "%s needs a value: %s %s", argv[i], argv[i],
				       known[id].metavar);
		a->value[id] = argv[++i];
	}
	return a->value[HELP] || a->value[VERSION] || a->value[FORMAT] || a->value[DESCRIBE_SNAPSHOT] ?
		0 : check(a, err);
}

static void print_help(void)
{
	char left[64];

	puts("vmm firecracker takes the options of Firecracker " API_VERSION ", and speaks its API.\n\n"
	     "usage: vmm firecracker [options]      (also: run by the name of 'firecracker')\n\n"
	     "options:");
	for (unsigned i = 0; i < NR_OPTIONS; i++) {
		snprintf(left, sizeof(left), "--%s%s%s", known[i].name, known[i].metavar ? " " : "",
			 known[i].metavar ?: "");
		printf("  %-29s %s\n", left, known[i].help);
	}
	puts("\nSIGTERM, SIGINT and SIGHUP stop the VM at once; a reboot of the guest ends it. Exit\n"
	     "status as of 'vmm run'. See vmm(1).");
}

/* --- what comes of it ------------------------------------------------------------------------- */

/* As if a client had asked for it. */
static int put(struct api *api, const char *path, json_t *body, struct err *err)
{
	char *text = json_dumps(body, 0);
	json_t *answer = NULL;
	int status = text ? api_request(api, "PUT", path, text, strlen(text), &answer) : 500;

	if (status >= 300)
		err_set(err, status < 500 ? -EINVAL : -EIO, "%s", text ?
			json_string_value(json_object_get(answer, "fault_message")) :
			"out of memory");
	json_decref(answer);
	json_decref(body);
	free(text);
	return status >= 300 ? err->code : 0;
}

static int put_metadata(struct api *api, const char *path, struct err *err)
{
	json_t *root = json_read_file(path, err);

	if (!root || put(api, "/mmds", root, err))
		return err_prefix(err, "--metadata: ");
	return 0;
}

static int prepare(struct api *api, void *arg, struct err *err)
{
	const struct arguments *a = arg;
	json_t *logger = json_object();
	int rc = 0;

	if (a->value[LOG_PATH])
		json_object_set_new(logger, "log_path", json_string(a->value[LOG_PATH]));
	if (a->value[LEVEL])
		json_object_set_new(logger, "level", json_string(a->value[LEVEL]));
	if (a->value[SHOW_LEVEL])
		json_object_set_new(logger, "show_level", json_true());
	if (json_object_size(logger)) {
		if (put(api, "/logger", logger, err))
			return err_prefix(err, "--level, --log-path: ");
	} else {
		json_decref(logger);
	}
	if (a->value[METRICS_PATH] &&
	    put(api, "/metrics", json_pack("{s:s}", "metrics_path", a->value[METRICS_PATH]), err))
		return err_prefix(err, "--metrics-path: ");
	if (a->value[CONFIG_FILE])
		rc = api_read_file(api, a->value[CONFIG_FILE], err) ? err_prefix(err, "--config-file ") : 0;
	if (!rc && a->value[METADATA])
		rc = put_metadata(api, a->value[METADATA], err);
	return rc;
}

static int run(struct arguments *a, struct err *err)
{
	struct vm_options o = {
		.api = {
			.app = "Firecracker", .version = API_VERSION,
			.id = a->value[ID] ?: "anonymous-instance",
			.max_body = a->value[HTTP_MAX] ? a->number[HTTP_MAX] : API_MAX_BODY,
			.mmds_limit = a->value[MMDS_LIMIT] ? a->number[MMDS_LIMIT] :
				      a->number[HTTP_MAX],
			.start_time_us = a->number[START_TIME],
			.start_time_cpu_us = a->number[START_TIME_CPU],
			.parent_cpu_time_us = a->number[PARENT_CPU_TIME],
		},
		.prepare = prepare, .arg = a,
	};
	struct config c;
	int status = EXIT_RUNTIME;

	config_init(&c);
	c.mem = 128 * MIB;
	c.transport = a->value[ENABLE_PCI] ? TRANSPORT_PCI : TRANSPORT_MMIO;
	c.no_reboot = c.signals_stop = true;
	c.sandbox = a->value[NO_SECCOMP] ? SANDBOX_OFF : SANDBOX_ON;
	if (a->value[NO_API] ||
	    !config_set_text(&c.api_sock, a->value[API_SOCK] ?: DEFAULT_SOCKET, err))
		status = vm_run(&c, &o, err);
	config_fini(&c);
	return status;
}

/* A state of another version is refused: there is one. */
static int describe(const struct arguments *a, struct err *err)
{
	const char *path = a->value[DESCRIBE_SNAPSHOT];

	if (path && snapshot_check_state(path, err))
		return EXIT_USAGE;
	printf("v%d.0.0\n", SNAPSHOT_VERSION);
	return EXIT_OK;
}

int command_firecracker(int argc, char **argv)
{
	struct arguments a = { 0 };
	struct err err = { 0 };
	int status = EXIT_USAGE;

	if (!parse(&a, argc, argv, &err)) {
		if (a.value[HELP]) {
			print_help();
			return EXIT_OK;
		}
		if (a.value[VERSION]) {
			puts("Firecracker v" API_VERSION "\n\nspoken by vmm " VMM_VERSION);
			return EXIT_OK;
		}
		status = a.value[FORMAT] || a.value[DESCRIBE_SNAPSHOT] ? describe(&a, &err) : run(&a, &err);
	}
	if (err.code)
		log_err("%s", err.msg);
	return status;
}
