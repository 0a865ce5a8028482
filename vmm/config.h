/* config.h: what the user asked for, from the command line and from JSON. */
#pragma once
#include <sys/stat.h>
#include "devices/net/forward.h"
#include "vmm/core/aio.h"
#include "vmm/core/base.h"
#include "vmm/core/err.h"
#include "vmm/core/limit.h"
#include "vmm/core/log.h"

enum { CONFIG_MAX_QUEUES = 16, CONFIG_MAX_IOTHREADS = 64 };	/* of a disk; in all */
/* With the hole below 4 GiB, what 40 address bits hold. */
#define CONFIG_MEM_MAX_MIB	(1023ULL << 10)
enum { CONFIG_MEM_MIN_MIB = 16 };
enum { CONFIG_MIN_CID = 3 };		/* the host's is 2 */
#define CONFIG_MAX_CID	(UINT32_MAX - 1)	/* the last is VMADDR_CID_ANY */
enum { CONFIG_MAX_HOST_CPUS = 1024 };
enum { CONFIG_MAX_FORWARDS = 256, CONFIG_MAX_PAIRS = 8 };	/* of a network card; of its queues */
enum { CONFIG_MAX_DISKS = 30, CONFIG_MAX_NETS = 30, CONFIG_MAX_CPUS = 64, CONFIG_SERIAL_LEN = 20 };

enum sandbox_mode { SANDBOX_ON, SANDBOX_LOG, SANDBOX_OFF };
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
	/* By the API only: */
	char *id, *partuuid;
	bool is_root;			/* the kernel's command line is told */
	bool guessed;			/* of a saved VM: its format nobody had named */
	bool is_base;			/* of a saved VM: a delta of it is to be made */
	bool fresh;			/* that was made, and has nothing in it... */
	struct stat made;		/* ...which file that is */
	bool no_flush;			/* what the guest flushes need not be on the host's disk */
	bool async;			/* told again, no more: aio below decides */
};

/* Numbers in snapshots: add at the end. */
enum net_mode {
	NET_NONE, NET_USER, NET_PASST, NET_TAP, NET_FD, NET_BRIDGE, NET_NAT, NET_HOSTONLY,
};

/* Who moves a tap's frames: the host's kernel by vhost-net, or a thread of this program's. */
enum net_vhost { NET_VHOST_OFF, NET_VHOST_AUTO, NET_VHOST_ON };

struct net_config {
	enum net_mode mode;
	char *tap;			/* NULL in the other modes */
	int fd;
	struct net_forward *forward;	/* of NET_USER and NET_PASST */
	unsigned nr_forwards;
	bool restricted;		/* these of NET_USER */
	struct in_addr network, dns;	/* 0: not given */
	u8 prefix_len;
	char *bridge, *vlan;		/* of NET_BRIDGE; vlan: a list, as written */
	char *host_network;		/* of NET_NAT and NET_HOSTONLY: its name */
	bool has_mac;
	u8 mac[6];
	u16 mtu;			/* 0: what the far end has */
	unsigned queues;		/* pairs; 0: one */
	unsigned iothreads;		/* of its own; 0: the common one */
	enum net_vhost vhost;
	char *id;			/* by the API */
	struct limit_config rx, tx;
	bool plain;			/* from a snapshot of 0.1: without a control queue */
	char *dump;			/* its traffic goes to this file; NULL: nowhere */
};

struct vsock_config {
	char *path;			/* of the host's socket; NULL: there is no such device */
	u32 cid;			/* the guest's */
};
/* The metadata service. */
struct mmds_config {
	u32 cards;			/* bit n: at card n the guest can ask; 0: there is none */
	bool v2;			/* who asks must have a token */
	bool imds_compat;		/* plain text, whatever is asked for */
	struct in_addr address;
};
#define MMDS_ADDRESS	0xa9fea9feU	/* 169.254.169.254, in the host's order */

struct config {
	char *kernel, *initrd, *append, *cmdline, *serial, *name, *pidfile;
	char *gdb;			/* where a debugger connects; NULL: nowhere */
	char *api_sock;			/* without a kernel: wait for the API to start the VM */
	u64 mem;			/* bytes */
	unsigned cpus;
	bool hugepages, no_reboot, track_dirty_pages;
	bool smt;			/* the API's: to be told again, and nothing else */
	enum transport transport;
	enum sandbox_mode sandbox;
	enum aio_engine aio;
	enum log_level log_level;
	enum log_format log_format;
	char *log_file;			/* NULL: stderr */
	char *logger_file, *metrics_file;	/* the API's */
	struct disk_config disk[CONFIG_MAX_DISKS];
	unsigned nr_disks;
	struct net_config net[CONFIG_MAX_NETS];
	unsigned nr_nets;
	struct vsock_config vsock;
	struct mmds_config mmds;
	char *metadata;			/* what it holds at first: a file; NULL: nothing */
	struct limit_config entropy;	/* of the entropy device; by the API only */
	char *affinity_list;		/* as it was given; NULL: all that this process has */
	u64 affinity[CONFIG_MAX_HOST_CPUS / 64];	/* a bit for each of the host's processors */
	char *cgroup;			/* NULL: one of its own, if there are limits */
	unsigned cpu_quota;		/* percent of one processor; 0: no limit */
	u64 mem_limit;			/* bytes; 0: no limit */
	char *chroot, *netns;		/* jail.h; NULL: where it was started */
	bool has_uid, has_gid;
	u32 uid, gid;
	bool signals_stop;		/* at once; else they press the power button */
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
/* What describes the machine goes to was, whose rest is c's still; c is as before any was described. */
void config_set_aside(struct config *c, struct config *was);
void config_drop_machine(struct config *);	/* takes the strings of that back, and no others */
/* What the guest's machine depends on; loading wants a config after config_init, whose
 * values are as hostile as the stream until config_check. */
struct state;
void config_state(struct config *, struct state *);
/* Options that do not go together.  That there is a kernel is not among it. */
int  config_check(const struct config *, struct err *) must_check;

/* A file that a VM reads, or writes, by name; what: which of its. */
enum config_use { FILE_READ, FILE_APPENDED, FILE_REPLACED };
struct config_file {
	const char *what, *path;
	enum config_use use;
};
enum { CONFIG_FILES_WRITTEN = CONFIG_MAX_NETS + 4 };
/* What it writes is none of what it reads, nor does it take the place of another of these: of its
 * own, part of config_check; and of one more, which comes instead of what is called so. */
int  config_check_files(const struct config *, struct err *) must_check;
int  config_check_file(const struct config *, const struct config_file *, struct err *) must_check;
/* Those that it writes; how many. */
unsigned config_written(const struct config *, struct config_file to[CONFIG_FILES_WRITTEN]);

/*
 * argv without the program's name: sets config from a --config file first, then
 * from the command line, which wins; of a list it replaces all.  *help, *version:
 * asked for; then nothing is checked.  All errors are the user's.
 */
int config_parse(struct config *, int argc, char **argv, bool *help, bool *version,
		 struct err *) must_check;

/* Take its strings back; it is zeroed. */
void config_drop_disk(struct disk_config *);
void config_drop_net(struct net_config *);
/* Another socket, and another cid, unless that is 0; CONFIG_MIN_CID to CONFIG_MAX_CID. */
int  config_set_vsock(struct config *, u32 cid, const char *path, struct err *) must_check;
/* It is on that tap, whatever it was on. */
int  config_use_tap(struct net_config *, const char *tap, struct err *) must_check;
/* A new string in the place of the old one; NULL: none. */
int config_set_text(char **field, const char *value, struct err *) must_check;
/* Several, or none of them. */
enum { CONFIG_TEXTS = 4 };
struct config_text {
	char **field;
	const char *value;
};
int config_set_texts(const struct config_text *, unsigned nr, struct err *);
/* What a metadata service can have: 169.254.1.0 to 169.254.254.255. */
bool config_mmds_address_valid(struct in_addr);
/* "02:00:00:12:34:56", of a station. */
int config_parse_mac(const char *text, u8 mac[6]) must_check;

/* Decimal, in that range; or -EINVAL. */
int config_parse_number(const char *text, unsigned long min, unsigned long max,
			unsigned long *value) must_check;
/* "512M", "2G"; a bare number counts in unit.  Shared with 'vmm disk'. */
int config_parse_size(const char *text, u64 unit, u64 *size, struct err *) must_check;

/* Are its far ends a tap's?  Of NET_FD only they know. */
bool config_net_is_tap(const struct net_config *);
unsigned config_net_pairs(const struct net_config *);		/* at least one */
/* "user", "passt", "tap", "fd", "bridge", "nat", "hostonly"; and what of that kind, if it
 * has a name. */
const char *config_net_kind(const struct net_config *);
const char *config_net_name(const struct net_config *);

/* The nearest name to a mistyped one, NULL if none is near. */
const char *config_nearest(const char *name, const char *const *names, unsigned nr);
