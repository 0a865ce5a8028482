/* ctl.c: 'vmm ctl', 'ps', 'stop', 'pause', 'resume': what to do with VMs that run. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "vmm/client.h"
#include "vmm/commands.h"
#include "vmm/config.h"
#include "vmm/core/log.h"
#include "vmm/disk.h"
#include "vmm/pidfile.h"
#include "vmm/registry.h"
#include "vmm/subcommand.h"

enum { LOOK_PATIENCE_S = 5 };

static int misused(const char *command, const char *fmt, ...)
{
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_err("%s: %s", command, text);
	return EXIT_USAGE;
}

/* Nobody of that name or at that socket, or a request that makes no sense. */
static int failed(const struct err *err)
{
	log_err("%s", err->msg);
	return err->code == -ENOENT || err->code == -ECONNREFUSED || err->code == -EREMOTEIO ?
		EXIT_USAGE : EXIT_RUNTIME;
}

static void print_text(char *text)
{
	while (text && *text) {
		char *line = strsep(&text, "\n");

		mask_controls(line);
		puts(line);
	}
}

/* NULL: there is none. */
static void print_answer(json_t *answer)
{
	if (json_is_string(answer))
		print_text((char *)(uintptr_t)json_string_value(answer));
	else if (answer)
		subcommand_print_json(json_incref(answer));
	json_decref(answer);
}

/* For a table: what answers may be a program that its guest has taken over. */
static const char *text_of(const json_t *o, const char *key)
{
	char *text = (char *)(uintptr_t)json_string_value(json_object_get(o, key));

	if (text)
		mask_controls(text);
	return text ?: "-";
}

static u64 number_of(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

struct span_text { char text[16]; };
static struct span_text span_text(u64 ms)
{
	u64 s = ms / 1000;
	struct span_text t;

	if (s < 60)
		snprintf(t.text, sizeof(t.text), "%us", (unsigned)s);
	else if (s < 3600)
		snprintf(t.text, sizeof(t.text), "%um%02us", (unsigned)(s / 60), (unsigned)(s % 60));
	else if (s < 86400)
		snprintf(t.text, sizeof(t.text), "%uh%02um", (unsigned)(s / 3600),
			 (unsigned)(s / 60 % 60));
	else
		snprintf(t.text, sizeof(t.text), "%ud%02uh", (unsigned)(s / 86400),
			 (unsigned)(s / 3600 % 24));
	return t;
}

/* --- vmm ps ----------------------------------------------------------------------------------- */

static void print_vm(json_t *vm)
{
	bool known = json_object_get(vm, "cpus");

	printf("%-20s %8d  %-12s", text_of(vm, "name"), (int)number_of(vm, "pid"),
	       text_of(vm, "state"));
	if (known)
		printf(" %4d %8s %8s  %s", (int)number_of(vm, "cpus"),
		       disk_size_text(number_of(vm, "memory_bytes")).text,
		       span_text(number_of(vm, "uptime_ms")).text, text_of(vm, "console"));
	putchar('\n');
}

int command_ps(int argc, char **argv)
{
	bool json = argc == 1 && !strcmp(argv[0], "--json");
	struct registered *list;
	json_t *all, *vm;
	struct err err;
	unsigned nr;
	size_t i;

	if (argc == 1 && (!strcmp(argv[0], "--help") || !strcmp(argv[0], "-h"))) {
		puts("usage: vmm ps [--json]\nlist the VMs that run under a name (--name)\n\noptions:\n"
		     "  --json                 for programs\n  --help                 also -h");
		return EXIT_OK;
	}
	if (argc && !json)
		return misused("ps", "'%s' is not an option; usage: vmm ps [--json]", argv[!strcmp(argv[0], "--json")]);
	if (registry_list(&list, &nr, &err))
		return failed(&err);
	all = client_ask_all(list, nr, "/vmm/v1/vm", LOOK_PATIENCE_S);
	free(list);
	if (json) {
		subcommand_print_json(json_incref(all));
	} else {
		printf("%-20s %8s  %-12s %4s %8s %8s  %s\n", "NAME", "PID", "STATE", "CPUS", "MEMORY",
		       "UPTIME", "CONSOLE");
		json_array_foreach(all, i, vm)
			print_vm(vm);
	}
	json_decref(all);
	return EXIT_OK;
}

/* --- vmm stop, pause, resume ------------------------------------------------------------------ */

static int request(const char *socket, pid_t owner, const char *method, const char *path, const char *body)
{
	json_t *answer;
	struct err err;

	if (client_call(socket, owner, method, path, body, CLIENT_PATIENCE_S, &answer, &err))
		return failed(&err);
	json_decref(answer);
	return EXIT_OK;
}

static int find(const char *name, struct registered *r)
{
	struct err err;

	return registry_find(r, name, &err) ? failed(&err) : EXIT_OK;
}

/* NAME, and of stop --force. */
static int one_name(const char *command, int argc, char **argv, const char *what, bool *force,
		    struct registered *r)
{
	const char *name = NULL;

	for (int i = 0; i < argc; i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			printf("usage: vmm %s%s NAME\n%s\n\noptions:\n", command,
			       force ? " [--force]" : "", what);
			if (force)
				puts("  --force                do not ask the guest");
			puts("  --help                 also -h");
			return -1;
		}
		if (force && !strcmp(argv[i], "--force"))
			*force = true;
		else if (argv[i][0] == '-')
			return misused(command, "unknown option '%s'; 'vmm %s --help' lists all",
				       argv[i], command);
		else if (name)
			return misused(command, "one word too many: '%s'", argv[i]);
		else
			name = argv[i];
	}
	return name ? find(name, r) : misused(command, "no NAME of a VM; 'vmm ps' lists them");
}

int command_pause(int argc, char **argv)
{
	struct registered r;
	int status = one_name("pause", argc, argv, "stop the VM's processors and devices, for a while",
			      NULL, &r);

	return status ? MAX(status, 0) : request(r.socket, r.pid, "POST", "/vmm/v1/vm/pause", NULL);
}

int command_resume(int argc, char **argv)
{
	struct registered r;
	int status = one_name("resume", argc, argv, "let a paused VM go on", NULL, &r);

	return status ? MAX(status, 0) : request(r.socket, r.pid, "POST", "/vmm/v1/vm/resume", NULL);
}

/* By SIGSTOP, a terminal, or who debugs it. */
static bool is_stopped(pid_t pid)
{
	char path[32], state = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (f && fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
		state = 0;
	if (f)
		fclose(f);
	return state == 'T' || state == 't';
}

/* Until its process is gone, and so its locks and all it had open.  Where the kernel has
 * no such descriptors (before 5.3): until it has given its name back. */
static int wait_for_end(const struct registered *r, int process)
{
	struct pollfd p = { .fd = process, .events = POLLIN };
	char pid[PATH_MAX], *end;
	int looks = 0, n;

	/* Who is stopped hears nothing; looked at twice, it is not about to go on. */
	while (process >= 0 && (n = poll(&p, 1, 1000)) <= 0) {
		looks = !n && is_stopped(r->pid) ? looks + 1 : 0;
		if (looks == 2) {
			log_err("stop: process %d is stopped; 'kill -CONT %d' lets it go on, and end", (int)r->pid,
				(int)r->pid);
			return EXIT_RUNTIME;
		}
	}
	snprintf(pid, sizeof(pid), "%s", r->socket);
	end = strrchr(pid, '/');
	if (process < 0 && end && (size_t)(end - pid) + sizeof("/pid") <= sizeof(pid)) {
		memcpy(end, "/pid", sizeof("/pid"));
		pidfile_wait(pid);
	}
	return EXIT_OK;
}

/* SIGTERM is the power button, pressed until the guest listens or 30 s are over. */
int command_stop(int argc, char **argv)
{
	struct registered r = { 0 };
	bool force = false;
	int process;
	int status = one_name("stop", argc, argv, "switch the VM off, and wait until it is; without "
			      "--force\nby its power button, for 30 s", &force, &r);

	if (status)
		return MAX(status, 0);
	process = syscall(SYS_pidfd_open, r.pid, 0);
	if (force)
		status = request(r.socket, r.pid, "POST", "/vmm/v1/vm/stop", NULL);
	else if (kill(r.pid, SIGTERM) && errno != ESRCH)
		status = misused("stop", "process %d: %s", (int)r.pid, strerror(errno));
	if (!status)
		status = wait_for_end(&r, process);
	if (process >= 0)
		close(process);
	return status;
}

/* --- vmm ctl ---------------------------------------------------------------------------------- */

struct ctl {
	const char *socket, *verb;
	pid_t pid;			/* 0: whoever listens there */
	const char *word[2];
	bool json;
};

static int call(const struct ctl *c, const char *method, const char *path, const char *body,
		json_t **answer)
{
	struct err err;

	return client_call(c->socket, c->pid, method, path, body, CLIENT_PATIENCE_S, answer, &err) ?
		failed(&err) : EXIT_OK;
}

static int show_info(const struct ctl *c)
{
	json_t *info;
	int status = call(c, "GET", "/vmm/v1/vm", NULL, &info);
	const char *key;
	json_t *v;

	if (status)
		return status;
	if (c->json)
		subcommand_print_json(json_incref(info));
	else
		json_object_foreach(info, key, v) {
			if (json_is_string(v))
				print_row(key, "%s", json_string_value(v));
			else
				print_row(key, "%lld", (long long)json_integer_value(v));
		}
	json_decref(info);
	return EXIT_OK;
}

static int show_disks(const struct ctl *c)
{
	json_t *root, *disk;
	int status = call(c, "GET", "/vmm/v1/disks", NULL, &root);
	size_t i;

	if (status)
		return status;
	if (c->json) {
		subcommand_print_json(json_incref(root));
	} else {
		printf("%-20s %8s  %-4s %s\n", "DISK", "SIZE", "", "FILE");
		json_array_foreach(json_object_get(root, "disks"), i, disk)
			printf("%-20s %8s  %-4s %s\n", text_of(disk, "disk"),
			       disk_size_text(number_of(disk, "size")).text,
			       json_is_true(json_object_get(disk, "read_only")) ? "ro" : "rw",
			       text_of(disk, "path"));
	}
	json_decref(root);
	return EXIT_OK;
}

static int show_metrics(const struct ctl *c)
{
	json_t *answer;
	int status = call(c, "GET", c->json ? "/vmm/v1/stats" : "/vmm/v1/metrics", NULL, &answer);

	if (!status)
		print_answer(answer);
	return status;
}

static int too_long(const struct ctl *c)
{
	return misused("ctl", "%s: '%.40s...' is too long for a name", c->verb, c->word[0]);
}

/* body is freed.  NULL, as from json_pack: not all of it can be said in JSON. */
static int tell(const struct ctl *c, const char *method, const char *path, json_t *body)
{
	char *text = body ? json_dumps(body, 0) : NULL;
	int status = text ? request(c->socket, c->pid, method, path, text) :
		misused("ctl", "%s: a name that is not UTF-8 cannot be told to the VM", c->verb);

	free(text);
	json_decref(body);
	return status;
}

/* what: "disks" or "nets"; of the one that the first word names. */
static int of_part(const struct ctl *c, const char *method, const char *what, const char *rest,
		   json_t *body)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "/vmm/v1/%s/%s%s", what, c->word[0], rest) < PATH_MAX)
		return tell(c, method, path, body);
	json_decref(body);
	return too_long(c);
}

static int take_snapshot(const struct ctl *c)
{
	return of_part(c, "POST", "disks", "/snapshots",
		       json_pack("{s:s}", "name", c->word[1]));
}

/* The VM's directory is not ours: it is told a whole path.  type NULL: none. */
static int of_directory(const struct ctl *c, const char *request_path, const char *type)
{
	const char *dir = c->word[0];
	char path[2 * PATH_MAX], cwd[PATH_MAX] = "";

	if (strlen(dir) >= PATH_MAX)
		return too_long(c);
	if (*dir != '/' && !getcwd(cwd, sizeof(cwd)))
		return misused("ctl", "%s: where '%s' would be: %s", c->verb, dir, strerror(errno));
	snprintf(path, sizeof(path), "%s%s%s", cwd, *cwd ? "/" : "", dir);
	return tell(c, "POST", request_path, json_pack("{s:s, s:s*}", "directory", path, "type", type));
}

static int save(const struct ctl *c)
{
	return of_directory(c, "/vmm/v1/vm/snapshots", strcmp(c->verb, "save") ? "Diff" : "Full");
}

static int save_working_set(const struct ctl *c)
{
	return of_directory(c, "/vmm/v1/vm/working-set", NULL);
}

static int resize(const struct ctl *c)
{
	struct err err;
	u64 size;

	if (config_parse_size(c->word[1], 1, &size, &err))
		return misused("ctl resize", "%s", err.msg);
	return of_part(c, "PATCH", "disks", "", json_pack("{s:I}", "size", (json_int_t)size));
}

static int set_link(const struct ctl *c)
{
	if (strcmp(c->word[1], "up") && strcmp(c->word[1], "down"))
		return misused("ctl link", "'%s' is neither up nor down", c->word[1]);
	return of_part(c, "PATCH", "nets", "", json_pack("{s:s}", "link", c->word[1]));
}

static const struct verb {
	const char *name, *words;
	int min, max;			/* of words */
	const char *help;
	const char *method, *path;	/* path NULL: the first word, with the second as body */
	int (*run)(const struct ctl *);	/* instead */
} verbs[] = {
	{ "info", "", 0, 0, "what it is, and how it is", .run = show_info },
	{ "start", "", 0, 0, "start one that waits for this",
	  .method = "POST", .path = "/vmm/v1/vm/start" },
	{ "pause", "", 0, 0, "stop its processors and devices, for a while",
	  .method = "POST", .path = "/vmm/v1/vm/pause" },
	{ "resume", "", 0, 0, "let it go on", .method = "POST", .path = "/vmm/v1/vm/resume" },
	{ "power-button", "", 0, 0, "ask the guest to switch off",
	  .method = "POST", .path = "/vmm/v1/vm/power-button" },
	{ "stop", "", 0, 0, "end it at once", .method = "POST", .path = "/vmm/v1/vm/stop" },
	{ "disks", "", 0, 0, "list its disks", .run = show_disks },
	{ "metrics", "", 0, 0, "all that is counted, as Prometheus reads it", .run = show_metrics },
	{ "snapshot", "DISK NAME", 2, 2, "keep a disk as it is now, and go on in a delta",
	  .run = take_snapshot },
	{ "save", "DIR", 1, 1, "save the VM into a new directory, for 'vmm restore' and 'clone'",
	  .run = save },
	{ "save-diff", "DIR", 1, 1, "the same, but of its memory only what changed since",
	  .run = save },
	{ "working-set", "DIR", 1, 1, "have others restored from DIR read at once what it has needed",
	  .run = save_working_set },
	{ "link", "NET up|down", 2, 2, "plug a network card's cable in, or pull it", .run = set_link },
	{ "resize", "DISK SIZE", 2, 2, "make a disk larger", .run = resize },
	{ "get", "PATH", 1, 1, "any request of the API: print what is there", .method = "GET" },
	{ "put", "PATH JSON", 1, 2, "the same, with a body", .method = "PUT" },
	{ "patch", "PATH JSON", 1, 2, "", .method = "PATCH" },
	{ "post", "PATH [JSON]", 1, 2, "", .method = "POST" },
	{ "delete", "PATH", 1, 1, "", .method = "DELETE" },
};

static int run_verb(const struct verb *v, const struct ctl *c)
{
	json_t *answer;
	int status;

	if (v->run)
		return v->run(c);
	status = call(c, v->method, v->path ?: c->word[0], v->path ? NULL : c->word[1], &answer);
	if (!status)
		print_answer(answer);
	return status;
}

static int print_verbs(void)
{
	char left[40];

	puts("vmm ctl speaks to a VM that runs, by the socket that --api-sock or its name gave it.\n\n"
	     "usage: vmm ctl SOCKET|NAME VERB ...\n");
	for (unsigned i = 0; i < ARRAY_SIZE(verbs); i++) {
		snprintf(left, sizeof(left), "%s %s", verbs[i].name, verbs[i].words);
		printf("  %-24s %s\n", left, verbs[i].help);
	}
	puts("\noptions:\n"
	     "  --json                 for programs; of info, disks and metrics\n"
	     "  --help                 also -h\n\n"
	     "A word with a slash in it is a socket. A DISK is disk0, disk1, ..., as 'vmm ctl NAME disks'\n"
	     "lists them; a NET is net0, net1, ... See vmm(1).");
	return EXIT_OK;
}

static const struct verb *find_verb(const char *name)
{
	const char *names[ARRAY_SIZE(verbs)], *near;

	for (unsigned i = 0; i < ARRAY_SIZE(verbs); i++) {
		names[i] = verbs[i].name;
		if (!strcmp(name, names[i]))
			return &verbs[i];
	}
	near = config_nearest(name, names, ARRAY_SIZE(verbs));
	misused("ctl", near ? "unknown verb '%s'; did you mean '%s'?" :
		"unknown verb '%s'; 'vmm ctl --help' lists all", name, near);
	return NULL;
}

int command_ctl(int argc, char **argv)
{
	struct ctl c = { 0 };
	const struct verb *v;
	struct registered r;
	const char *word[4] = { NULL };
	int n = 0, status;

	for (int i = 0; i < argc; i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
			return print_verbs();
		if (!strcmp(argv[i], "--json"))
			c.json = true;
		else if (!strncmp(argv[i], "--", 2))
			return misused("ctl", "unknown option '%s'; 'vmm ctl --help' lists all",
				       argv[i]);
		else if (!*argv[i])
			return misused("ctl", "an empty word; usage: vmm ctl SOCKET|NAME VERB ...");
		else if (n == 4)
			return misused("ctl", "one word too many: '%s'", argv[i]);
		else
			word[n++] = argv[i];
	}
	if (n < 2)
		return misused("ctl", "no %s; usage: vmm ctl SOCKET|NAME VERB ...",
			       n ? "VERB" : "SOCKET");
	v = find_verb(word[1]);
	if (!v)
		return EXIT_USAGE;
	if (n - 2 < v->min || n - 2 > v->max)
		return misused("ctl", "usage: vmm ctl SOCKET|NAME %s%s%s", v->name, *v->words ? " " : "",
			       v->words);
	c.verb = v->name;
	c.word[0] = word[2];
	c.word[1] = word[3];
	if (strchr(word[0], '/')) {
		c.socket = word[0];
	} else {
		status = find(word[0], &r);
		if (status)
			return status;
		c.socket = r.socket;
		c.pid = r.pid;
	}
	return run_verb(v, &c);
}
