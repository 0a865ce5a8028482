/* resources.c: files, taps and the terminal: opened once, kept over reboots. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "devices/block/blk.h"
#include "devices/chardev.h"
#include "devices/net/net.h"
#include "devices/net/pcap.h"
#include "devices/net/station.h"
#include "devices/net/vhost.h"
#include "devices/vsock_host.h"
#include "vmm/api/metadata.h"
#include "vmm/control.h"
#include "vmm/core/log.h"
#include "vmm/machine.h"
#include "vmm/net_join.h"
#include "vmm/net_state.h"

static void quit(void *arg)
{
	struct resources *r = arg;

	if (r->machine)
		machine_end(r->machine, OUTCOME_QUIT);
}

static int open_file(const char *what, const char *path, int *fd, struct err *err)
{
	struct stat st;

	/* Non-blocking, or a FIFO given by mistake would hang here for ever. */
	*fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (*fd < 0)
		return err_set(err, -errno, "%s %s: %s", what, path, strerror(errno));
	if (fstat(*fd, &st) || !S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "%s %s: not a regular file", what, path);
	return 0;
}

/* The names under which distributions put a kernel's initrd beside it. */
static char *find_initrd(const char *kernel)
{
	const char *slash = strrchr(kernel, '/'), *name = slash ? slash + 1 : kernel;
	int dir = name - kernel;
	char *path[3] = { NULL };
	char *found = NULL;

	if (asprintf(&path[0], "%s.initrd", kernel) < 0)
		path[0] = NULL;
	if (!strncmp(name, "vmlinuz-", 8)) {
		if (asprintf(&path[1], "%.*sinitrd.img-%s", dir, kernel, name + 8) < 0)
			path[1] = NULL;
		if (asprintf(&path[2], "%.*sinitramfs-%s.img", dir, kernel, name + 8) < 0)
			path[2] = NULL;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(path); i++) {
		if (path[i] && !found && !access(path[i], F_OK))
			found = path[i];
		else
			free(path[i]);
	}
	return found;
}

int resources_open_kernel(struct resources *r, struct err *err)
{
	const struct config *c = r->config;
	char *found = NULL;
	const char *initrd = c->initrd;
	int rc = open_file("kernel", c->kernel, &r->kernel_fd, err);

	if (rc)
		return rc;
	if (!initrd) {
		initrd = found = find_initrd(c->kernel);
		if (found)
			log_info("initrd: taking %s ('--initrd none' takes none)", found);
	} else if (!strcmp(initrd, "none")) {
		initrd = NULL;
	}
	if (initrd) {
		rc = open_file("initrd", initrd, &r->initrd_fd, err);
		r->initrd_path = strdup(initrd);
	}
	free(found);
	return rc;
}

/* config_check knows of disks' own files only. */
static int check_chain(const struct config *c, const struct blk *blk, const char *path, struct err *err)
{
	struct config_file written[CONFIG_FILES_WRITTEN];
	unsigned n = config_written(c, written);
	struct stat st;

	for (unsigned i = 0; i < n; i++)
		if (!stat(written[i].path, &st) && blk_has_file(blk, &st))
			return err_set(err, -EINVAL, "%s %s: a file of disk %s; choose another", written[i].what,
				       written[i].path, path);
	return 0;
}

int resources_open_disk(const struct config *c, struct blk **blk, const struct disk_config *d, struct err *err)
{
	struct blk_options o = { .format = d->format, .guessed = d->guessed, .read_only = d->read_only,
				 .direct = d->direct, .backing_anywhere = d->backing_anywhere,
				 .is = d->fresh ? &d->made : NULL };
	int rc = blk_open(blk, d->path, &o, err);

	if (rc)
		return rc;
	rc = check_chain(c, *blk, d->path, err);
	/* One of the API may be there for a file that comes later. */
	if (!rc && !d->id && !blk_info(*blk).size)
		rc = err_set(err, -EINVAL, "disk %s: too small for a disk", d->path);
	if (rc) {
		blk_close(*blk);
		*blk = NULL;
	}
	return rc;
}

static int open_net(struct resources *r, unsigned i, struct err *err)
{
	const struct config *c = r->config;
	const struct net_config *n = &c->net[i];
	struct net **net = r->net[i];
	struct net_user_options o = {
		.forward = n->forward, .nr_forwards = n->nr_forwards, .restricted = n->restricted,
		.network = n->network, .prefix_len = n->prefix_len, .dns = n->dns,
		.hostname = c->name,
	};

	switch (n->mode) {
	case NET_USER:
		return net_open_user(net, &o, err);
	case NET_PASST:
		return net_open_passt(net, n->forward, n->nr_forwards, err);
	case NET_FD:
		return net_open_fd(net, n->fd, err);
	case NET_BRIDGE:
	case NET_NAT:
	case NET_HOSTONLY:
		return net_join(c, i, net, &r->net_user[i], err);
	default:
		return net_open_tap(net, config_net_pairs(n), n->tap, n->mtu, err);
	}
}

static void close_vhosts(struct resources *r, unsigned i)
{
	for (unsigned q = 0; q < CONFIG_MAX_PAIRS; q++) {
		vhost_close(r->vhost[i][q]);
		r->vhost[i][q] = NULL;
	}
}

/* By a route alone they may get along, but not on a bridge, nor with IPv6. */
static void check_mac(const struct config *c, unsigned i, const struct net *net)
{
	u8 mac[6];

	machine_net_mac(c, i, mac);
	if (!memcmp(mac, net->host_mac, sizeof(mac)))
		log_warn("net: the host's end of the tap has the address %s, too; give the card another "
			 "mac=", network_mac_text(mac).text);
}

/* What is on a bridge has the bridge's; all others have what was asked for, or the most. */
static int mtu_too_large(const struct net_config *n, unsigned most, struct err *err)
{
	const char *kind = config_net_kind(n), *name = config_net_name(n) ?: "";

	if (n->mode == NET_BRIDGE)
		return err_set(err, -EINVAL, "net: mtu %u is more than the %u of bridge %s; 'ip link set %s "
			       "mtu %u' first", n->mtu, most, name, name, n->mtu);
	return err_set(err, -EINVAL, "net: mtu %u is more than the %u of %s %s; make that with 'vmm net "
		       "create %s --type %s --mtu %u'", n->mtu, most, kind, name, name, kind, n->mtu);
}

/* What the guest is told that it may send. */
static int set_mtu(struct net **net, const struct net_config *n, struct err *err)
{
	if (n->mtu && net[0]->mtu && n->mtu > net[0]->mtu)
		return mtu_too_large(n, net[0]->mtu, err);
	for (unsigned q = 0; n->mtu && q < config_net_pairs(n); q++)
		net[q]->mtu = n->mtu;
	return 0;
}

/*
 * One that was not asked for by name is used where nothing speaks against it: over MMIO
 * each interrupt would wake our thread all the same.
 */
static int open_vhost(struct resources *r, unsigned i, struct err *err)
{
	const struct net_config *n = &r->config->net[i];
	bool has_tap = r->net[i][0]->ops->vhost_fd, must = n->vhost == NET_VHOST_ON;
	struct err why;
	int rc = 0;

	if (must && !has_tap)
		return err_set(err, -EINVAL, "net: fd=%d: vhost=on is for taps with headers (vnet_hdr)", n->fd);
	if (n->vhost == NET_VHOST_OFF || !has_tap ||
	    (!must && (n->dump || r->config->transport == TRANSPORT_MMIO)))
		return 0;
	for (unsigned q = 0; q < config_net_pairs(n) && !rc; q++)
		rc = vhost_open(&r->vhost[i][q], &why);
	if (!rc)
		return 0;
	if (must)
		return err_set(err, rc, "net: vhost=on: %s", why.msg);
	log_debug("net%u: without vhost-net: %s", i, why.msg);
	close_vhosts(r, i);
	return 0;
}

/* --- metadata ----------------------------------------------------------------------------------- */

#define STATION_ROW(name, label, field, help) \
	{ name, label, help, .offset = offsetof(struct responder_counters, field) }
static const struct metric station_metric[] = {
	STATION_ROW("mmds_frames_total", "direction=\"rx\"", rx_frames,
		    "Frames to and from the metadata service; rx: of the guest"),
	STATION_ROW("mmds_frames_total", "direction=\"tx\"", tx_frames, NULL),
	STATION_ROW("mmds_bytes_total", NULL, tx_bytes, "Of its frames to the guest"),
	STATION_ROW("mmds_malformed_total", NULL, rx_bad, "Frames to it that no correct guest sends"),
	STATION_ROW("mmds_unusual_total", NULL, rx_unusual, "Segments to it that came again, or too early"),
	STATION_ROW("mmds_unanswered_total", NULL, tx_errors, "What the guest was not told, or did not want to hear"),
	STATION_ROW("mmds_connections_total", NULL, connections, "Connections to it"),
	STATION_ROW("mmds_closed_total", NULL, closed, "Of these those that have ended"),
};
static const struct metric_table station_table = { "device", station_metric, ARRAY_SIZE(station_metric) };

#define METADATA_ROW(label, field, help) \
	{ "mmds_unauthorized_total", label, help, .offset = offsetof(struct metadata_counters, field) }
static const struct metric metadata_metric[] = {
	METADATA_ROW("reason=\"no_token\"", no_token, "Questions to it without a token that is valid"),
	METADATA_ROW("reason=\"invalid_token\"", invalid_token, NULL),
};
static const struct metric_table metadata_table = { NULL, metadata_metric, ARRAY_SIZE(metadata_metric) };

static char *answer(void *arg, const char *request, size_t len, bool too_long, size_t *answer_len)
{
	return metadata_answer(arg, request, len, too_long, now_ns(), answer_len);
}

/* Below all that counts and limits, above whatever the far end is. */
static int open_station(struct resources *r, unsigned i, struct err *err)
{
	const struct config *c = r->config;
	struct responder_options o = { .address = c->mmds.address, .port = 80, .answer = answer,
				       .arg = r->metadata };
	int rc;

	if (!(c->mmds.cards >> i & 1))
		return 0;
	rc = station_new(&r->station[i], r->net[i], config_net_pairs(&c->net[i]), &o, err);
	if (rc)
		return rc;
	snprintf(r->station_name[i], sizeof(r->station_name[i]), "net%u", i);
	r->station_metrics[i] = (struct metric_set){ .table = &station_table, .owner = r->station_name[i],
						     .counters = station_counters(r->station[i]) };
	metrics_add(&r->metrics, &r->station_metrics[i]);
	return 0;
}

static void open_metadata(struct resources *r)
{
	if (!r->config->mmds.cards)
		return;
	metadata_configure(r->metadata, &r->config->mmds);
	r->metadata_metrics = (struct metric_set){ .table = &metadata_table,
						   .counters = metadata_counters(r->metadata) };
	metrics_add(&r->metrics, &r->metadata_metrics);
}

static void close_metadata(struct resources *r)
{
	metrics_remove(&r->metadata_metrics);
	for (unsigned i = 0; i < CONFIG_MAX_NETS; i++) {
		metrics_remove(&r->station_metrics[i]);
		r->station[i] = NULL;
	}
}

void resources_machine_ended(struct resources *r)
{
	for (unsigned i = 0; i < CONFIG_MAX_NETS; i++)
		if (r->station[i])
			station_restart(r->station[i]);
	if (r->metadata)
		metadata_restart(r->metadata);
}

/* --- all of it ----------------------------------------------------------------------------------- */

static int open_backends(struct resources *r, struct err *err)
{
	const struct config *c = r->config;
	int rc = 0;

	for (unsigned i = 0; i < c->nr_disks && !rc; i++) {
		limit_set(&r->limit[i], &c->disk[i].limit);
		rc = resources_open_disk(c, &r->disk[i], &c->disk[i], err);
	}
	open_metadata(r);
	for (unsigned i = 0; i < c->nr_nets && !rc; i++) {
		limit_set(&r->rx_limit[i], &c->net[i].rx);
		limit_set(&r->tx_limit[i], &c->net[i].tx);
		rc = open_net(r, i, err);
		if (!rc)
			rc = set_mtu(r->net[i], &c->net[i], err);
		if (!rc)
			check_mac(c, i, r->net[i][0]);
		if (!rc)
			rc = open_station(r, i, err);
		if (!rc)
			rc = open_vhost(r, i, err);
	}
	if (!rc && c->vsock.path)
		rc = vsock_host_open(&r->vsock, c->vsock.path, err);
	return rc;
}

int resources_check_file(const char *what, const char *path, struct err *err)
{
	int fd, rc = open_file(what, path, &fd, err);

	if (fd >= 0)
		close(fd);
	return rc;
}

/*
 * quiet: thousands of exits for the serial port less.  nr_uarts: there is one;
 * looking for more takes dozens of exits.  notests: half of a stock kernel's
 * boot are its crypto code's tests of itself.  pci: the early scan for real
 * chipsets' bugs, or all of it where there is no bus, is spared.  The rest says
 * where root is.
 */
static char *make_cmdline(const struct config *c)
{
	const struct disk_config *d = &c->disk[0];
	char root[128] = "", *text;
	int n;

	/* The API says which disk is root; else it is the first, unless --cmdline says. */
	if (c->nr_disks && (d->is_root || (!d->id && !c->cmdline)))
		snprintf(root, sizeof(root), " root=%s%s %s", d->partuuid ? "PARTUUID=" : "/dev/vda",
			 d->partuuid ?: "", d->read_only ? "ro" : "rw");
	if (c->cmdline)
		n = asprintf(&text, "%s%s", c->cmdline, root);
	else
		n = asprintf(&text, "console=ttyS0%s quiet 8250.nr_uarts=1 cryptomgr.notests %s%s%s",
			     root, c->transport == TRANSPORT_MMIO ? "pci=off" : "pci=noearly",
			     c->append ? " " : "", c->append ?: "");
	return n < 0 ? NULL : text;
}

int resources_init(struct resources *r, const struct config *c, struct err *err)
{
	*r = (struct resources){ .config = c, .kernel_fd = -1, .initrd_fd = -1 };
	for (unsigned i = 0; i < CONFIG_MAX_DISKS; i++)
		limit_init(&r->limit[i], &(struct limit_config){ 0 });
	for (unsigned i = 0; i < CONFIG_MAX_NETS; i++) {
		limit_init(&r->rx_limit[i], &(struct limit_config){ 0 });
		limit_init(&r->tx_limit[i], &(struct limit_config){ 0 });
		r->net_user[i] = -1;
	}
	return loop_new(&r->main_loop, err);
}

int resources_open(struct resources *r, struct err *err)
{
	const struct config *c = r->config;
	int rc = 0;

	r->cmdline = make_cmdline(c);
	if (!r->cmdline)
		rc = err_set(err, -ENOMEM, "out of memory");
	if (!rc && !r->from)
		rc = resources_open_kernel(r, err);
	if (!rc)
		rc = open_backends(r, err);
	/* They are emptied: not before all else could be opened. */
	for (unsigned i = 0; i < c->nr_nets && !rc; i++)
		if (c->net[i].dump && pcap_open(&r->dump[i], c->net[i].dump, err))
			rc = err_prefix(err, "net: ");
	/* The terminal is last: until here, errors go to one that is not raw. */
	if (!rc)
		rc = chardev_open(&r->serial, c->serial ? c->serial : "stdio", r->main_loop, quit, r,
				  err);
	if (rc)
		resources_close(r);
	return rc;
}

static void close_backends(struct resources *r)
{
	close_metadata(r);
	for (unsigned i = 0; i < CONFIG_MAX_DISKS; i++)
		blk_close(r->disk[i]);
	for (unsigned i = 0; i < CONFIG_MAX_NETS; i++) {
		close_vhosts(r, i);
		for (unsigned q = 0; q < CONFIG_MAX_PAIRS; q++)
			net_close(r->net[i][q]);
		pcap_close(r->dump[i]);
	}
	net_leave(r->net_user, CONFIG_MAX_NETS);
	vsock_host_close(r->vsock);
	r->vsock = NULL;
	memset(r->disk, 0, sizeof(r->disk));
	memset(r->net, 0, sizeof(r->net));
	memset(r->dump, 0, sizeof(r->dump));
	memset(r->unplugged, 0, sizeof(r->unplugged));
	chardev_leave(r->serial);
}

void resources_close(struct resources *r)
{
	close_backends(r);
	chardev_close(r->serial);
	if (r->kernel_fd >= 0)
		close(r->kernel_fd);
	if (r->initrd_fd >= 0)
		close(r->initrd_fd);
	free(r->cmdline);
	free(r->initrd_path);
	r->kernel_fd = r->initrd_fd = -1;
	r->cmdline = r->initrd_path = NULL;
	r->serial = NULL;
}

void resources_fini(struct resources *r)
{
	/* The console's rest may wait for somebody slow; nothing else does then. */
	close_backends(r);
	control_unblock_signals();
	resources_close(r);
	loop_free(r->main_loop);
	r->main_loop = NULL;
}
