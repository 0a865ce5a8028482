/* top.c: 'vmm top': what the VMs that run take and do, at this moment. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "vmm/client.h"
#include "vmm/commands.h"
#include "vmm/core/log.h"
#include "vmm/disk.h"
#include "vmm/registry.h"
#include "vmm/subcommand.h"

enum { INTERVAL_MS = 1000, LOOK_PATIENCE_S = 2, ROWS_WITHOUT_SIZE = 1000 };

/* Rates: in each second since the look before. */
struct row {
	char name[NAME_MAX + 1], state[16];
	int pid;
	bool known;			/* it answered, now and the time before */
	double cpu_percent;
	u64 resident, read, write, reads, writes, rx, tx, exits;
};

static u64 number_of(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

/* --- looking ----------------------------------------------------------------------------------- */

static int look(json_t **all, struct err *err)
{
	struct registered *list;
	unsigned nr;
	int rc = registry_list(&list, &nr, err);

	if (rc)
		return rc;
	*all = client_ask_all(list, nr, "/vmm/v1/stats", LOOK_PATIENCE_S);
	free(list);
	return 0;
}

static const json_t *by_pid(const json_t *all, u64 pid)
{
	const json_t *vm;
	size_t i;

	json_array_foreach(all, i, vm)
		if (number_of(vm, "pid") == pid)
			return vm;
	return NULL;
}

/* --- rates ------------------------------------------------------------------------------------- */

/* What a guest that rebooted meanwhile did began at zero. */
static u64 since(const json_t *now, const json_t *before, const char *key)
{
	u64 new = number_of(now, key), old = number_of(before, key);

	return new >= old ? new - old : new;
}

static u64 rate(const json_t *now, const json_t *before, const char *key)
{
	u64 ns = since(now, before, "time_ns");

	return ns ? since(now, before, key) * 1e9 / ns + 0.5 : 0;
}

static void fill_row(struct row *r, const json_t *now, const json_t *before)
{
	*r = (struct row){
		.pid = number_of(now, "pid"),
		.known = before && json_object_get(before, "time_ns") &&
			 json_object_get(now, "time_ns"),
		.resident = number_of(now, "resident_bytes"),
	};
	snprintf(r->name, sizeof(r->name), "%s",
		 json_string_value(json_object_get(now, "name")) ?: "-");
	snprintf(r->state, sizeof(r->state), "%s",
		 json_string_value(json_object_get(now, "state")) ?: "-");
	mask_controls(r->name);
	mask_controls(r->state);
	if (!r->known)
		return;
	r->cpu_percent = rate(now, before, "cpu_ns") / 1e7;
	r->read = rate(now, before, "disk_read_bytes");
	r->write = rate(now, before, "disk_write_bytes");
	r->reads = rate(now, before, "disk_reads");
	r->writes = rate(now, before, "disk_writes");
	r->rx = rate(now, before, "net_rx_bytes");
	r->tx = rate(now, before, "net_tx_bytes");
	r->exits = rate(now, before, "exits");
}

static int busiest_first(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	return x->cpu_percent != y->cpu_percent ? (x->cpu_percent < y->cpu_percent) * 2 - 1 :
	       strcmp(x->name, y->name);
}

/* From malloc; NULL: out of memory. */
static struct row *make_rows(const json_t *now, const json_t *before)
{
	size_t nr = json_array_size(now);
	struct row *rows = calloc(nr + 1, sizeof(*rows));

	for (size_t i = 0; rows && i < nr; i++) {
		const json_t *vm = json_array_get(now, i);

		fill_row(&rows[i], vm, by_pid(before, number_of(vm, "pid")));
	}
	if (rows)
		qsort(rows, nr, sizeof(*rows), busiest_first);
	return rows;
}

/* --- showing ----------------------------------------------------------------------------------- */

static void print_vm(const struct row *r)
{
	printf("%-20s %8d  %-11s", r->name, r->pid, r->state);
	if (r->known)
		printf(" %6.1f %8s %8s %8s %7llu %8s %8s %8llu", r->cpu_percent,
		       disk_size_text(r->resident).text, disk_size_text(r->read).text,
		       disk_size_text(r->write).text, (unsigned long long)(r->reads + r->writes),
		       disk_size_text(r->rx).text, disk_size_text(r->tx).text,
		       (unsigned long long)r->exits);
	putchar('\n');
}

static void print_table(const struct row *rows, size_t nr, size_t most)
{
	printf("%-20s %8s  %-11s %6s %8s %8s %8s %7s %8s %8s %8s\n", "NAME", "PID", "STATE", "CPU%",
	       "MEMORY", "READ/s", "WRITE/s", "IOPS", "RX/s", "TX/s", "EXITS/s");
	for (size_t i = 0; i < MIN(nr, most); i++)
		print_vm(&rows[i]);
}

static json_t *row_json(const struct row *r)
{
	json_t *o = json_pack("{s:s, s:i, s:s}", "name", r->name, "pid", r->pid, "state", r->state);

	if (r->known)
		json_object_update_new(o, json_pack(
			"{s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "cpu_percent",
			r->cpu_percent, "resident_bytes", (json_int_t)r->resident,
			"disk_read_bytes_per_s", (json_int_t)r->read, "disk_write_bytes_per_s",
			(json_int_t)r->write, "disk_reads_per_s", (json_int_t)r->reads,
			"disk_writes_per_s", (json_int_t)r->writes, "net_rx_bytes_per_s",
			(json_int_t)r->rx, "net_tx_bytes_per_s", (json_int_t)r->tx,
			"exits_per_s", (json_int_t)r->exits));
	return o;
}

static void print_json(const struct row *rows, size_t nr)
{
	json_t *all = json_array();

	for (size_t i = 0; i < nr; i++)
		json_array_append_new(all, row_json(&rows[i]));
	subcommand_print_json(all);
}

static size_t terminal_rows(void)
{
	struct winsize w;

	return !ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) && w.ws_row > 2 ? w.ws_row - 2U :
								       ROWS_WITHOUT_SIZE;
}

static void show(const struct row *rows, size_t nr, bool json, bool again)
{
	if (again)		/* from the top of the terminal, cleared */
		fputs("\033[H\033[J", stdout);
	if (json)
		print_json(rows, nr);
	else
		print_table(rows, nr, again ? terminal_rows() : nr);
	fflush(stdout);
}

static int run(bool json, bool once)
{
	json_t *before = NULL, *now = NULL;
	struct row *rows;
	struct err err;
	int rc = look(&before, &err);

	while (!rc) {
		if (json_array_size(before))
			poll(NULL, 0, INTERVAL_MS);
		rc = look(&now, &err);
		rows = rc ? NULL : make_rows(now, before);
		if (rc)
			break;
		if (rows)
			show(rows, json_array_size(now), json, !once);
		free(rows);
		json_decref(before);
		before = now;
		if (once || ferror(stdout))
			break;
		if (!json_array_size(now))
			poll(NULL, 0, INTERVAL_MS);
	}
	json_decref(before);
	if (rc)
		log_err("top: %s", err.msg);
	return rc ? EXIT_RUNTIME : EXIT_OK;
}

int command_top(int argc, char **argv)
{
	bool json = false, once = !isatty(STDOUT_FILENO);

	for (int i = 0; i < argc; i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			puts("usage: vmm top [--once] [--json]\nwhat the VMs that run under a name take and "
			     "do, each second, the busiest first; Ctrl-C ends it\n\noptions:\n"
			     "  --once                 once, over one second; so it is too if standard\n"
			     "                         output is no terminal\n"
			     "  --json                 once, for programs\n"
			     "  --help                 also -h");
			return EXIT_OK;
		}
		if (!strcmp(argv[i], "--json")) {
			json = once = true;
		} else if (!strcmp(argv[i], "--once")) {
			once = true;
		} else {
			log_err("top: '%s' is not an option; usage: vmm top [--once] [--json]", argv[i]);
			return EXIT_USAGE;
		}
	}
	return run(json, once);
}
