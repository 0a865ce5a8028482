/* api.h: the HTTP API: Firecracker's, by its published definition, and our own below /vmm/v1. */
#pragma once
#include <jansson.h>
#include "vmm/config.h"
#include "vmm/core/loop.h"
#include "vmm/core/metrics.h"

enum api_state { API_NOT_STARTED, API_RUNNING, API_PAUSED };

struct api_disk {
	u64 size;			/* bytes */
	const char *format;		/* "raw", "qcow2" */
};

struct api_load {
	const char *state, *memory;	/* files */
	const char *pager;		/* instead of memory: a page fault handler's socket */
	bool track_dirty_pages, resume;
	const json_t *taps;		/* [{"iface_id", "host_dev_name"}]; NULL: as saved */
	const char *vsock;		/* the socket of its vsock device; NULL: as saved */
};

/*
 * What the API can ask of a VM; all on the control thread, and of a VM in the state
 * that the name suggests: the API checks.  0, or -errno with a message for the client.
 * Members that are NULL are refused: this VM cannot do that.
 */
struct api_vm;
struct api_vm_ops {
	enum api_state (*state)(struct api_vm *);
	u64  (*uptime_ms)(struct api_vm *);		/* since it was started */
	struct metrics *(*metrics)(struct api_vm *);	/* all that is counted of it */
	int  (*check_file)(struct api_vm *, const char *what, const char *path, struct err *);
	int  (*check_disk)(struct api_vm *, const struct disk_config *, struct err *);
	/* As *config says.  After a failure it can be tried again. */
	int  (*start)(struct api_vm *, struct err *);
	int  (*pause)(struct api_vm *, struct err *);	/* all of these three: idempotent */
	int  (*resume)(struct api_vm *, struct err *);
	int  (*stop)(struct api_vm *, struct err *);	/* at once; also before the start */
	int  (*power_button)(struct api_vm *, struct err *);
	int  (*console)(struct api_vm *, char *text, size_t room);	/* where it is */
	int  (*disk)(struct api_vm *, unsigned index, struct api_disk *, struct err *);
	int  (*disk_snapshot)(struct api_vm *, unsigned index, const char *name, struct err *);
	int  (*disk_resize)(struct api_vm *, unsigned index, u64 size, struct err *);
	/* Of a paused VM. */
	int  (*save)(struct api_vm *, const char *state, const char *memory, bool diff, struct err *);
	/* Of one that runs, too: a directory with both files, and a snapshot of each disk. */
	int  (*save_directory)(struct api_vm *, const char *dir, bool diff, struct err *);
	/* Of one that was restored from dir: what of its memory it has needed. */
	int  (*save_working_set)(struct api_vm *, const char *dir, struct err *);
	/* Before the start, with nothing configured but the VM's name. */
	int  (*load)(struct api_vm *, const struct api_load *, struct err *);
	int  (*disk_replace)(struct api_vm *, unsigned index, const char *path, struct err *);
	int  (*disk_limit)(struct api_vm *, unsigned index, const struct limit_config *,
			   struct err *);
	/* The cable of a network interface. */
	int  (*net_link)(struct api_vm *, unsigned index, bool up, struct err *);
	int  (*net_limit)(struct api_vm *, unsigned index, const struct limit_config *rx,
			  const struct limit_config *tx, struct err *);
};
struct api_vm {
	const struct api_vm_ops *ops;
	struct config *config;		/* changed by requests, until the start */
	struct metadata *metadata;	/* metadata.h */
};

struct api_options {
	const char *app, *version;	/* what a client is told that it speaks to */
	const char *id;
	u64 max_body;			/* bytes */
	u64 mmds_limit;			/* bytes of metadata; 0: API_MAX_BODY */
	/* For the metrics; 0: not known. */
	u64 start_time_us, start_time_cpu_us, parent_cpu_time_us;
};

enum { API_MAX_BODY = 51200 };
/* Of the published definition that this follows. */
#define API_VERSION	"1.17.0"

struct api;
/* Text in options is copied. */
int  api_new(struct api **, struct loop *, struct api_vm *, const struct api_options *,
	     struct err *) must_check;
void api_free(struct api *);		/* not from within a request; NULL is allowed */
int  api_listen(struct api *, const char *path, struct err *) must_check;

/* What it counted is about to be forgotten. */
void api_machine_ends(struct api *);

/* One request, without a socket: its status.  *answer is new, NULL: none. */
int  api_request(struct api *, const char *method, const char *path, const char *body, size_t len,
		 json_t **answer);
/* By its name: what is in it, a guest may have written. */
const char *api_disk_format(const char *path);
/* A file of the published definition's FullVmConfiguration; the VM is not started. */
int  api_read_file(struct api *, const char *path, struct err *) must_check;
