/* devices.c: drives, network interfaces, entropy and vsock, as Firecracker's API has them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/api/route.h"

/* --- limits ----------------------------------------------------------------------------------- */

/* A bucket that holds nothing, or is never full again, is no limit. */
static void take_bucket(struct limit_rate *to, const struct api_bucket *from)
{
	u64 rate;

	if (!from->given)
		return;
	*to = (struct limit_rate){ 0 };
	if (!from->size || !from->refill_time)
		return;
	if (mul_overflows(from->size, 1000ULL, &rate))
		rate = ~0ULL;
	*to = (struct limit_rate){ .rate = MAX(rate / from->refill_time, 1ULL),
				   .burst = from->size, .extra = from->one_time_burst };
}

/* What is not given stays. */
static void take_limits(struct limit_config *to, const struct api_limiter *from)
{
	take_bucket(&to->bytes, &from->bandwidth);
	take_bucket(&to->ops, &from->ops);
}

static struct api_bucket show_bucket(const struct limit_rate *r)
{
	u64 units = r->burst ?: r->rate;
	unsigned __int128 ms = (unsigned __int128)units * 1000 + r->rate / 2;

	ms = r->rate ? MIN(ms / r->rate, INT64_MAX) : 0;
	return (struct api_bucket){ .given = r->rate, .size = units, .one_time_burst = r->extra,
				    .refill_time = ms };
}

static bool any_limit(const struct limit_config *l)
{
	return l->bytes.rate || l->ops.rate;
}

static struct api_limiter show_limits(const struct limit_config *l)
{
	return (struct api_limiter){ .given = any_limit(l), .bandwidth = show_bucket(&l->bytes),
				     .ops = show_bucket(&l->ops) };
}

/* --- drives ----------------------------------------------------------------------------------- */

struct disk_name api_disk_name(const struct config *c, unsigned index)
{
	struct disk_name n;

	if (c->disk[index].id)
		snprintf(n.text, sizeof(n.text), "%s", c->disk[index].id);
	else
		snprintf(n.text, sizeof(n.text), "disk%u", index);
	return n;
}

int api_find_disk(const struct config *c, const char *name)
{
	for (unsigned i = 0; i < c->nr_disks; i++)
		if (!strcmp(api_disk_name(c, i).text, name))
			return i;
	return -1;
}

const char *api_disk_format(const char *path)
{
	size_t len = strlen(path);

	return len > 6 && !strcmp(path + len - 6, ".qcow2") ? "qcow2" : "raw";
}

static int make_disk(struct disk_config *d, const struct api_drive *r, struct err *err)
{
	int rc;

	*d = (struct disk_config){
		.read_only = r->is_read_only, .is_root = r->is_root_device,
		.no_flush = r->cache_type == API_CACHE_UNSAFE,
		.async = r->io_engine == API_IO_ASYNC,
	};
	take_limits(&d->limit, &r->rate_limiter);
	/* The guest finds it by its id: /dev/disk/by-id/virtio-ID. */
	snprintf(d->serial, sizeof(d->serial), "%.*s", CONFIG_SERIAL_LEN, r->drive_id);
	rc = config_set_text(&d->format, api_disk_format(r->path_on_host), err);
	if (!rc)
		rc = config_set_text(&d->path, r->path_on_host, err);
	if (!rc)
		rc = config_set_text(&d->id, r->drive_id, err);
	if (!rc)
		rc = config_set_text(&d->partuuid, r->partuuid, err);
	if (rc)
		config_drop_disk(d);
	return rc;
}

/* The root device is the first: it is /dev/vda. */
static int place_disk(struct config *c, struct disk_config *d, struct err *err)
{
	int at = api_find_disk(c, d->id);

	if (d->is_root && c->nr_disks && c->disk[0].is_root && at)
		return err_set(err, -EEXIST, "there is a root device already: %s",
			       api_disk_name(c, 0).text);
	if (at < 0 && c->nr_disks == CONFIG_MAX_DISKS)
		return err_set(err, -ENOSPC, "more than %d drives", CONFIG_MAX_DISKS);
	if (at < 0) {
		at = d->is_root ? 0 : c->nr_disks;
		memmove(&c->disk[at + 1], &c->disk[at], (c->nr_disks - at) * sizeof(c->disk[0]));
		c->nr_disks++;
	} else {
		config_drop_disk(&c->disk[at]);
		if (d->is_root) {
			c->disk[at] = c->disk[0];
			at = 0;
		}
	}
	c->disk[at] = *d;
	return 0;
}

int api_put_drive(struct api *a, struct call *call)
{
	struct api_drive r = { 0 };
	struct disk_config d;
	int rc;

	api_take(call, &r);
	if (a->vm->ops->state(a->vm) != API_NOT_STARTED)
		return err_set(&call->err, -ENOTSUP, "Drive config error: this version of vmm does not "
			       "have drives that can be plugged in");
	if (r.socket)
		return err_set(&call->err, -ENOTSUP, "Drive config error: this version of vmm does not "
			       "have vhost-user drives");
	if (!r.path_on_host || !*r.path_on_host)
		return err_set(&call->err, -EINVAL, "Drive config error: path_on_host is missing");
	rc = make_disk(&d, &r, &call->err);
	if (rc)
		return rc;
	rc = a->vm->ops->check_disk(a->vm, &d, &call->err);
	if (!rc)
		rc = place_disk(a->vm->config, &d, &call->err);
	if (rc) {
		config_drop_disk(&d);
		err_prefix(&call->err, "Drive config error: ");
	}
	return rc;
}

int api_patch_drive(struct api *a, struct call *call)
{
	const struct api_vm_ops *ops = a->vm->ops;
	struct config *c = a->vm->config;
	struct api_drive r = { 0 };
	struct limit_config limits;
	int i = api_find_disk(c, call->id), rc = 0;

	api_take(call, &r);
	if (i < 0)
		rc = err_set(&call->err, -ENOENT, "there is no drive '%s'", call->id);
	else if (!r.path_on_host && !r.rate_limiter.given)
		rc = err_set(&call->err, -EINVAL, "neither path_on_host nor rate_limiter is given");
	else if (r.path_on_host && !*r.path_on_host)
		rc = err_set(&call->err, -EINVAL, "path_on_host is empty");
	else if (r.path_on_host && !ops->disk_replace)
		rc = err_set(&call->err, -ENOTSUP, "this VM cannot change the file of a drive");
	else if (r.rate_limiter.given && !ops->disk_limit)
		rc = err_set(&call->err, -ENOTSUP, "this VM cannot limit a drive");
	if (!rc && r.path_on_host) {
		rc = ops->disk_replace(a->vm, i, r.path_on_host, &call->err);
		a->metrics.updates[i] += !rc;
		a->metrics.update_fails[i] += !!rc;
	}
	if (!rc && r.rate_limiter.given) {
		limits = c->disk[i].limit;
		take_limits(&limits, &r.rate_limiter);
		rc = ops->disk_limit(a->vm, i, &limits, &call->err);
		if (!rc)
			c->disk[i].limit = limits;
	}
	return rc ? err_prefix(&call->err, "Drive config error: ") : 0;
}

json_t *api_drives_json(const struct config *c)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < c->nr_disks; i++) {
		const struct disk_config *d = &c->disk[i];
		struct disk_name name = api_disk_name(c, i);

		json_array_append_new(list, json_write(&api_drive_schema, &(struct api_drive){
			.drive_id = name.text, .partuuid = d->partuuid,
			.path_on_host = d->path, .is_root_device = d->is_root,
			.is_read_only = d->read_only,
			.cache_type = d->no_flush ? API_CACHE_UNSAFE : API_CACHE_WRITEBACK,
			.io_engine = d->async ? API_IO_ASYNC : API_IO_SYNC,
			.rate_limiter = show_limits(&d->limit),
		}));
	}
	return list;
}

/* --- network interfaces ----------------------------------------------------------------------- */

int api_find_net(const struct config *c, const char *id)
{
	char name[16];

	for (unsigned i = 0; i < c->nr_nets; i++) {
		snprintf(name, sizeof(name), "net%u", i);
		if (!strcmp(c->net[i].id ?: name, id))
			return i;
	}
	return -1;
}

static int make_net(struct net_config *n, const struct api_net *r, struct err *err)
{
	int rc;

	*n = (struct net_config){ .mode = NET_TAP, .mtu = r->mtu, .has_mac = r->guest_mac };
	take_limits(&n->rx, &r->rx_rate_limiter);
	take_limits(&n->tx, &r->tx_rate_limiter);
	if (!*r->host_dev_name || strlen(r->host_dev_name) > 15)
		return err_set(err, -EINVAL, "host_dev_name: '%s' does not have 1 to 15 characters",
			       r->host_dev_name);
	if (r->guest_mac && config_parse_mac(r->guest_mac, n->mac))
		return err_set(err, -EINVAL, "guest_mac: '%s' is not a station's address, like "
			       "02:00:00:12:34:56", r->guest_mac);
	rc = config_set_text(&n->tap, r->host_dev_name, err);
	if (!rc)
		rc = config_set_text(&n->id, r->iface_id, err);
	if (rc)
		config_drop_net(n);
	return rc;
}

static int place_net(struct config *c, struct net_config *n, struct err *err)
{
	int at = api_find_net(c, n->id);

	for (unsigned i = 0; i < c->nr_nets; i++) {
		const struct net_config *other = &c->net[i];

		if ((int)i == at)
			continue;
		if (n->has_mac && other->has_mac && !memcmp(n->mac, other->mac, sizeof(n->mac)))
			return err_set(err, -EEXIST, "guest_mac is that of %s already",
				       other->id ?: "another");
		if (other->tap && !strcmp(n->tap, other->tap))
			return err_set(err, -EEXIST, "host_dev_name '%s' is that of another already",
				       n->tap);
	}
	if (at < 0 && c->nr_nets == CONFIG_MAX_NETS)
		return err_set(err, -ENOSPC, "more than %d network interfaces", CONFIG_MAX_NETS);
	if (at < 0)
		at = c->nr_nets++;
	else
		config_drop_net(&c->net[at]);
	c->net[at] = *n;
	return 0;
}

int api_put_net(struct api *a, struct call *call)
{
	struct api_net r = { 0 };
	struct net_config n;
	int rc = 0;

	api_take(call, &r);
	if (a->vm->ops->state(a->vm) != API_NOT_STARTED)
		rc = err_set(&call->err, -ENOTSUP, "this version of vmm does not have interfaces that "
			     "can be plugged in");
	if (!rc)
		rc = make_net(&n, &r, &call->err);
	if (rc)
		return err_prefix(&call->err, "Network config error: ");
	if ((any_limit(&n.rx) || any_limit(&n.tx)) && !a->vm->ops->net_limit)
		rc = err_set(&call->err, -ENOTSUP, "this VM cannot limit a network interface");
	else
		rc = place_net(a->vm->config, &n, &call->err);
	if (rc) {
		config_drop_net(&n);
		err_prefix(&call->err, "Network config error: ");
	}
	return rc;
}

int api_patch_net(struct api *a, struct call *call)
{
	struct config *c = a->vm->config;
	struct api_net r = { 0 };
	struct net_config n;
	int i = api_find_net(c, call->id), rc;

	api_take(call, &r);
	if (i < 0) {
		rc = err_set(&call->err, -ENOENT, "there is no network interface '%s'", call->id);
	} else if (!a->vm->ops->net_limit) {
		rc = err_set(&call->err, -ENOTSUP, "this VM cannot limit a network interface");
	} else {
		n = c->net[i];
		take_limits(&n.rx, &r.rx_rate_limiter);
		take_limits(&n.tx, &r.tx_rate_limiter);
		rc = a->vm->ops->net_limit(a->vm, i, &n.rx, &n.tx, &call->err);
		if (!rc)
			c->net[i] = n;
	}
	return rc ? err_prefix(&call->err, "Network config error: ") : 0;
}

json_t *api_nets_json(const struct config *c)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < c->nr_nets; i++) {
		const struct net_config *n = &c->net[i];
		char name[16], mac[18];

		snprintf(name, sizeof(name), "net%u", i);
		snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", n->mac[0], n->mac[1],
			 n->mac[2], n->mac[3], n->mac[4], n->mac[5]);
		json_array_append_new(list, json_write(&api_net_schema, &(struct api_net){
			.iface_id = n->id ?: name,
			.host_dev_name = config_net_name(n) ?: config_net_kind(n),
			.guest_mac = n->has_mac ? mac : NULL, .mtu = n->mtu,
			.rx_rate_limiter = show_limits(&n->rx),
			.tx_rate_limiter = show_limits(&n->tx),
		}));
	}
	return list;
}

/* --- entropy ---------------------------------------------------------------------------------- */

int api_put_entropy(struct api *a, struct call *call)
{
	struct api_entropy e = { 0 };

	api_take(call, &e);
	a->vm->config->entropy = (struct limit_config){ 0 };
	take_limits(&a->vm->config->entropy, &e.rate_limiter);
	a->has_entropy = true;	/* the device is there in any case */
	return 0;
}

json_t *api_entropy_json(const struct api *a)
{
	const struct limit_config *limit = &a->vm->config->entropy;

	return !a->has_entropy && !any_limit(limit) ? json_null() :
		json_write(&api_entropy_schema, &(struct api_entropy){
			.rate_limiter = show_limits(limit) });
}

/* --- vsock ------------------------------------------------------------------------------------ */

int api_put_vsock(struct api *a, struct call *call)
{
	struct api_vsock v = { 0 };

	api_take(call, &v);
	return config_set_vsock(a->vm->config, v.guest_cid, v.uds_path, &call->err) ?
		err_prefix(&call->err, "Vsock config error: ") : 0;
}

json_t *api_vsock_json(const struct config *c)
{
	json_t *o;

	if (!c->vsock.path)
		return json_null();
	o = json_write(&api_vsock_schema, &(struct api_vsock){
		.guest_cid = c->vsock.cid, .uds_path = c->vsock.path });
	json_object_del(o, "vsock_id");
	return o;
}
