/* route.h: the table of requests, for those who answer them and for the tests. */
#pragma once
#include "vmm/api/api.h"
#include "vmm/api/model.h"

struct call;
struct http;

enum when { ANY_TIME, BEFORE_START, AFTER_START };

struct route {
	const char *method, *path;	/* "/drives/{drive_id}" */
	enum when when;
	const struct schema *body;	/* NULL: it may have none */
	bool body_optional;
	const char *id;			/* the field of the body that repeats what is in {} */
	const struct schema *answer;	/* NULL: none, status 204 */
	int (*handle)(struct api *, struct call *);
	const char *lacks;		/* instead of handle: what there is not */
	const char *type;		/* the answer is text of this type, not JSON */
	const char *metric;		/* under which name it is counted; NULL: it is not */
	bool configures;		/* after it, this VM does not begin as a snapshot */
};
extern const struct route api_routes[];
extern const unsigned api_nr_routes;

enum { API_MAX_ID = 78 };
struct call {
	const struct route *route;
	char id[API_MAX_ID + 2];	/* what stands for {...} in the path; too long: its beginning */
	const json_t *body;
	json_t *answer;			/* set by the handler, who passes it on */
	bool deprecated;
	struct err err;
};

enum { API_MAX_ROUTES = 80 };
enum api_latency { API_PAUSE, API_RESUME, API_SAVE_FULL, API_SAVE_DIFF, API_LOAD,
		   API_NR_LATENCIES };
struct api_metrics {
	int fd;				/* -1: nowhere */
	u64 count[API_MAX_ROUTES], fails[API_MAX_ROUTES];	/* since the last line, by route */
	u64 deprecated;
	u64 latency_us[API_NR_LATENCIES];	/* of the last of each */
	json_t *before;			/* the machine's counts when the last line was written */
	json_t *kept;			/* of one that ended since then */
	u64 lost, write_fails;		/* lines that there was no room for, or that failed otherwise */
	bool torn;			/* the last line has no end */
	u64 log_lost, log_suppressed;	/* of the log, by then */
	u64 updates[CONFIG_MAX_DISKS], update_fails[CONFIG_MAX_DISKS];	/* other files for a disk */
	struct timer timer;
	bool emit_id;
	json_t *properties;
};

struct api {
	struct api_vm *vm;
	struct api_options options;
	char *app, *version, *id;	/* options' text */
	struct loop *loop;
	struct http *http;		/* NULL: no socket */
	struct api_metrics metrics;
	u64 started_us, started_cpu_us;	/* CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID */
	/* What no machine needs to know, to be told again. */
	struct api_machine machine;	/* huge_pages: the rest is in the configuration */
	struct api_logger logger;	/* log_path is ours */
	bool has_logger, has_entropy;
	bool configured;		/* by more than a log and metrics */
};

/* The body, which was checked, into the struct of its schema. */
void api_take(const struct call *, void *into);

/* What stands for {...} is all there. */
int api_check_id(const struct call *, struct err *) must_check;

/* Handlers.  0, or -errno with a message: status 400, of -ENOENT below /vmm/v1: 404. */
int api_get_instance(struct api *, struct call *);
int api_get_version(struct api *, struct call *);
int api_get_config(struct api *, struct call *);
int api_put_action(struct api *, struct call *);
int api_patch_vm(struct api *, struct call *);
int api_get_machine(struct api *, struct call *);
int api_put_machine(struct api *, struct call *);
int api_patch_machine(struct api *, struct call *);
int api_put_boot_source(struct api *, struct call *);
int api_put_cpu_config(struct api *, struct call *);
int api_put_drive(struct api *, struct call *);
int api_patch_drive(struct api *, struct call *);
int api_put_net(struct api *, struct call *);
int api_patch_net(struct api *, struct call *);
int api_put_logger(struct api *, struct call *);
int api_put_metrics(struct api *, struct call *);
int api_put_serial(struct api *, struct call *);
int api_put_entropy(struct api *, struct call *);
int api_put_vsock(struct api *, struct call *);

int api_get_mmds(struct api *, struct call *);
int api_put_mmds(struct api *, struct call *);
int api_patch_mmds(struct api *, struct call *);
int api_put_mmds_config(struct api *, struct call *);

int api_put_snapshot_create(struct api *, struct call *);
int api_put_snapshot_load(struct api *, struct call *);

int api_own_get_vm(struct api *, struct call *);
int api_own_start(struct api *, struct call *);
int api_own_pause(struct api *, struct call *);
int api_own_resume(struct api *, struct call *);
int api_own_stop(struct api *, struct call *);
int api_own_power_button(struct api *, struct call *);
int api_own_get_disks(struct api *, struct call *);
int api_own_snapshot(struct api *, struct call *);
int api_own_resize(struct api *, struct call *);
int api_own_set_link(struct api *, struct call *);
int api_own_save(struct api *, struct call *);
int api_own_working_set(struct api *, struct call *);
int api_own_metrics(struct api *, struct call *);
int api_own_stats(struct api *, struct call *);

/* "this VM cannot be paused" */
int api_cannot(struct call *, const char *what);

/* --- counts.c ------------------------------------------------------------------------------- */

/* Groups of fields, sums since the machine began. */
json_t *api_machine_counts(struct api *);
void    api_add_counts(json_t *to, const json_t *more);	/* the fields of to */

/* --- logs.c, metrics.c ------------------------------------------------------------------ */

void    api_metrics_open(struct api *);
/* How long it took, of the last one. */
void    api_time(struct api *, enum api_latency, u64 since_ns);
int     api_metrics_flush(struct api *, struct err *) must_check;	/* a line, now */
void    api_metrics_close(struct api *);	/* with a last line */
json_t *api_metrics_json(const struct api *);	/* how it was configured; null */

/* --- devices.c -------------------------------------------------------------------------- */

/* What a disk is called: its id, or "disk0", ...  -1: there is none of that name. */
struct disk_name { char text[80]; };
struct disk_name api_disk_name(const struct config *, unsigned index);
int     api_find_disk(const struct config *, const char *name);
int     api_find_net(const struct config *, const char *id);
json_t *api_drives_json(const struct config *);
json_t *api_nets_json(const struct config *);
json_t *api_entropy_json(const struct api *);
json_t *api_vsock_json(const struct config *);

/* --- mmds.c ------------------------------------------------------------------------------- */

json_t *api_mmds_json(const struct config *);	/* null: it is not configured */
