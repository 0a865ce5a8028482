/* machine.h: one virtual machine, from parts to its end.  The composition root. */
#pragma once
#include "vmm/config.h"
#include "vmm/core/loop.h"
#include "vmm/core/mem.h"
#include "vmm/core/metrics.h"

/* Why a machine ended. */
enum outcome {
	OUTCOME_NONE,
	OUTCOME_POWEROFF, OUTCOME_RESET, OUTCOME_PANIC, OUTCOME_EXIT,
	OUTCOME_FATAL,			/* explained in the log */
	OUTCOME_QUIT,			/* the user typed Ctrl-A x */
	OUTCOME_STOPPED,		/* signals, and a guest that did not listen */
};

/* Who keeps a machine from running, each for himself: bits. */
enum hold {
	HOLD_USER = 1,		/* by the API */
	HOLD_DEBUGGER = 2,
	HOLD_ERROR = 4,		/* of a disk; not over a reboot */
	HOLD_SAVE = 8,		/* while it is saved */
};

/* What outlives a reboot: everything that was opened by path. */
struct resources {
	const struct config *config;
	struct loop *main_loop;
	struct chardev *serial;
	int kernel_fd, initrd_fd;	/* initrd_fd -1: none */
	char *initrd_path;		/* NULL: none */
	struct blk *disk[CONFIG_MAX_DISKS];
	struct limit limit[CONFIG_MAX_DISKS];
	struct pcap *dump[CONFIG_MAX_NETS];	/* NULL: none */
	bool unplugged[CONFIG_MAX_NETS];
	struct limit rx_limit[CONFIG_MAX_NETS], tx_limit[CONFIG_MAX_NETS];
	struct net *net[CONFIG_MAX_NETS][CONFIG_MAX_PAIRS];
	struct vhost *vhost[CONFIG_MAX_NETS][CONFIG_MAX_PAIRS];	/* NULL: none */
	struct vsock_host *vsock;	/* NULL: none */
	int net_user[CONFIG_MAX_NETS];	/* net_join.h: -1: of no network of ours */
	struct metadata *metadata;	/* the VM's; NULL: nobody asks */
	struct station *station[CONFIG_MAX_NETS];	/* where a guest asks for it; NULL: not there */
	char station_name[CONFIG_MAX_NETS][16];
	struct metric_set station_metrics[CONFIG_MAX_NETS], metadata_metrics;
	char *cmdline;
	struct task *debug_stop;	/* run when a vCPU stopped for the debugger */
	struct machine *machine;	/* the one that runs, NULL between two */
	unsigned held;			/* enum hold: it, and the next one, do not run */
	struct snapshot *from;		/* how it begins; NULL: by booting the kernel */
	struct metrics metrics;		/* of the process, and of the machine that runs */
};

/* With a loop, and nothing open. */
int  resources_init(struct resources *, const struct config *, struct err *) must_check;
void resources_fini(struct resources *);
/* What the configuration names; after a failure nothing of it is open. */
int  resources_open(struct resources *, struct err *) must_check;
void resources_close(struct resources *);	/* idempotent */
/* What the next one is not to know of this one.  No loop of it runs. */
void resources_machine_ended(struct resources *);
/* What open leaves out where the machine is to come from a snapshot. */
int  resources_open_kernel(struct resources *, struct err *) must_check;
/* Would it open? */
int  resources_check_file(const char *what, const char *path, struct err *) must_check;
int  resources_open_disk(const struct config *, struct blk **, const struct disk_config *, struct err *) must_check;

/* All on the control thread, whose loop is resources->main_loop. */
struct machine;
/* From resources->from it comes paused.  *bad_input: it failed for what the user gave, not for what the host lacks. */
int  machine_new(struct machine **, struct resources *, bool *bad_input, struct err *) must_check;
/* From here on it runs, unless it is held; at its end it stops the loop. */
int  machine_start(struct machine *, struct err *) must_check;
enum outcome machine_outcome(const struct machine *, int *exit_code);
void machine_free(struct machine *);			/* NULL is allowed */

/*
 * As long as anybody holds it nothing of it runs and no I/O is in flight; the guest's
 * clocks go on.  Idempotent.
 */
void machine_hold(struct machine *, enum hold);
void machine_let_go(struct machine *, unsigned holds);	/* of enum hold */
const char *hold_end(unsigned holds);	/* what is waited for, for a message: "goes on when ..." */
bool machine_is_paused(const struct machine *);
/* After an I/O error. */
void machine_retry(struct machine *);

/* All that it remembers but for RAM.  Paused; loading: by machine_new. */
struct state;
void machine_state(struct machine *, struct state *);
struct mem *machine_mem(struct machine *);
/* For debugger.c. */
struct vcpu;
struct vcpu_host *machine_vcpus(struct machine *, struct vcpu *const **);
/* For snapshot_save.c: what the last one, or the one it was made from, has as id. */
u8 *machine_snapshot_id(struct machine *);
/* What the guest wrote to is among mem's dirty pages now. */
int  machine_fetch_dirty(struct machine *, struct err *) must_check;
/* A card's address: the given one, or one that is always the same for the same VM; without a
 * name, if it is alone on its network, else until the program ends. */
void machine_net_mac(const struct config *, unsigned net, u8 mac[6]);
const struct resources *machine_resources(const struct machine *);
const struct config *machine_config(const struct machine *);

/* While the guest runs, or is paused.  All other programs find the snapshot as
 * 'vmm disk snapshot' would have made it. */
int  machine_snapshot_disk(struct machine *, unsigned disk, const char *name,
			   struct err *) must_check;
/* It can only grow; size 0: what the file or device has now. */
int  machine_resize_disk(struct machine *, unsigned disk, u64 size, struct err *) must_check;
/* Another disk in the place of resources->disk[disk], which is closed. */
void machine_replace_disk(struct machine *, unsigned disk, struct blk *);

/* From now on, also for what waits. */
void machine_limit_disk(struct machine *, unsigned disk, const struct limit_config *);
void machine_limit_net(struct machine *, unsigned net, const struct limit_config *rx,
		       const struct limit_config *tx);
/* The cable of a network card is in, or was pulled.  -ENODEV: its far end is gone. */
int  machine_set_link(struct machine *, unsigned net, bool up, struct err *) must_check;

void machine_press_power_button(struct machine *);
/* The first one wins, but a user's over a reset.  Any thread. */
void machine_end(struct machine *, enum outcome);
