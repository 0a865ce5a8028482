/* usage.c: what a VM takes of its host, for its metrics. */
#include "vmm/usage.h"
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include "vmm/core/log.h"

#define ROW(name, label, member, help, ...) \
	{ name, label, help, .offset = offsetof(struct usage, member), __VA_ARGS__ }
#define GAUGE	.kind = METRIC_GAUGE

static const struct metric usage_metric[] = {
	ROW("running", NULL, running, "1: it runs, 0: it is paused, or was not started", GAUGE),
	ROW("paused", NULL, paused, "1: it is paused", GAUGE),
	ROW("uptime_seconds", NULL, uptime_ns, "Since it was started", GAUGE, .ns = true),
	ROW("memory_bytes", NULL, memory, "That the guest has", GAUGE),
	ROW("process_resident_bytes", "kind=\"anonymous\"", anonymous,
	    "Memory of the host that vmm has in use, the guest's included", GAUGE),
	ROW("process_resident_bytes", "kind=\"file\"", file, NULL, GAUGE),
	ROW("process_resident_bytes", "kind=\"shared\"", shared, NULL, GAUGE),
	ROW("process_page_faults_total", "kind=\"minor\"", minor_faults,
	    "Page faults of vmm; major: the disk had to be read"),
	ROW("process_page_faults_total", "kind=\"major\"", major_faults, NULL),
	ROW("process_cpu_seconds_total", NULL, cpu_ns, "Processor time, the guest's included",
	    .ns = true),
	ROW("log_lost_lines_total", NULL, lost_lines, "Lines that the log had no room for"),
};
static const struct metric_table usage_table = { NULL, usage_metric, ARRAY_SIZE(usage_metric) };

void usage_init(struct usage *u, struct metrics *m, void (*refresh)(struct metric_set *))
{
	*u = (struct usage){
		.metrics = { .table = &usage_table, .counters = u, .refresh = refresh },
	};
	metrics_add(m, &u->metrics);
}

void usage_fini(struct usage *u)
{
	metrics_remove(&u->metrics);
}

/* "RssAnon:	    1234 kB" */
static void read_status(struct usage *u)
{
	FILE *file = fopen("/proc/self/status", "re");
	unsigned long long kib;
	char line[200];

	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "RssAnon: %llu", &kib) == 1)
			u->anonymous = kib * KIB;
		else if (sscanf(line, "RssFile: %llu", &kib) == 1)
			u->file = kib * KIB;
		else if (sscanf(line, "RssShmem: %llu", &kib) == 1)
			u->shared = kib * KIB;
	}
	if (file)
		fclose(file);
}

void usage_read(struct usage *u)
{
	struct timespec t;
	struct rusage r;

	if (!clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t))
		u->cpu_ns = t.tv_sec * 1000000000ULL + t.tv_nsec;
	if (!getrusage(RUSAGE_SELF, &r)) {
		u->minor_faults = r.ru_minflt;
		u->major_faults = r.ru_majflt;
	}
	u->lost_lines = log_lost();
	read_status(u);
}
