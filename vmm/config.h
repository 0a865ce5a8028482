/* config.h: what the user asked for, from the command line and from JSON. */
#pragma once
#include "vmm/core/aio.h"
#include "vmm/core/base.h"
#include "vmm/core/err.h"
#include "vmm/core/limit.h"
#include "vmm/core/log.h"

enum { CONFIG_MAX_QUEUES = 16, CONFIG_MAX_IOTHREADS = 64 };	/* of a disk; in all */
enum { CONFIG_MAX_DISKS = 30, CONFIG_MAX_NETS = 30, CONFIG_MAX_CPUS = 64, CONFIG_SERIAL_LEN = 20 };

enum transport { TRANSPORT_PCI, TRANSPORT_MMIO };

struct disk_config {
	char *path, *format;		/* format NULL: find out */
	char serial[CONFIG_SERIAL_LEN + 1];
	bool read_only;
	bool backing_anywhere;		/* else backing files lie in the image's directory */
	bool direct;			/* past the host's page cache */
	bool write_through;		/* until the guest says otherwise */
	bool no_discard, no_write_zeroes;
	bool stop_on_error;
	unsigned queues;		/* 0: by the number of CPUs */
	unsigned iothreads;		/* of its own; 0: the common one */
	struct limit_config limit;
};

struct net_config {
	char *tap;
	bool has_mac;
	u8 mac[6];
};

struct config {
	char *kernel, *initrd, *append, *cmdline, *serial, *name, *pidfile;
	u64 mem;			/* bytes */
	unsigned cpus;
	bool hugepages, no_reboot, track_dirty_pages;
	enum transport transport;
	enum aio_engine aio;
	enum log_level log_level;
	struct disk_config disk[CONFIG_MAX_DISKS];
	unsigned nr_disks;
	struct net_config net[CONFIG_MAX_NETS];
	unsigned nr_nets;
};

/* One row per option, the same for the command line and for JSON. */
struct option {
	const char *name;
	const char *metavar;		/* NULL: a switch */
	const char *help;		/* for vmm --help; lines after the first are indented there */
	bool is_list;			/* may stand several times */
	/* value: "true" for a switch that is on.  -errno with a message. */
	int (*set)(struct config *, const char *value, struct err *);
};
extern const struct option config_options[];
extern const unsigned config_nr_options;

void config_init(struct config *);		/* the defaults */
void config_fini(struct config *);
/* What the guest's machine depends on; loading wants a config after config_init, whose
 * values are as hostile as the stream until config_check. */
struct state;
void config_state(struct config *, struct state *);
/* Options that do not go together, or are missing. */
int  config_check(const struct config *, struct err *) must_check;

/*
 * argv without the program's name: sets config from a --config file first, then
 * from the command line, which wins; of a list it replaces all.  *help, *version:
 * asked for; then nothing is checked.  All errors are the user's.
 */
int config_parse(struct config *, int argc, char **argv, bool *help, bool *version,
		 struct err *) must_check;

/* "512M", "2G"; a bare number counts in unit.  Shared with 'vmm disk'. */
int config_parse_size(const char *text, u64 unit, u64 *size, struct err *) must_check;

/* The nearest name to a mistyped one, NULL if none is near. */
const char *config_nearest(const char *name, const char *const *names, unsigned nr);
