/* config_disk.c: what --disk says. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/config_own.h"

#define DISK(d)		struct disk_config *d, const char *key, const char *value, struct err *err

static int disk_serial(DISK(d))
{
	(void)key;
	if (strlen(value) > CONFIG_SERIAL_LEN)
		return err_set(err, -EINVAL, "disk: serial '%s' is longer than %d characters",
			       value, CONFIG_SERIAL_LEN);
	snprintf(d->serial, sizeof(d->serial), "%s", value);
	return 0;
}

static int disk_format(DISK(d))
{
	(void)key;
	if (strcmp(value, "raw") && strcmp(value, "qcow2"))
		return err_set(err, -EINVAL, "disk: format '%s' is not known; known: raw, qcow2",
			       value);
	return config_set_text(&d->format, value, err);
}

/* One of two words: is it the second? */
static int disk_choice(const char *key, const char *value, const char *a, const char *b,
		       bool *second, struct err *err)
{
	*second = !strcmp(value, b);
	return *second || !strcmp(value, a) ? 0 :
		err_set(err, -EINVAL, "disk: %s is %s or %s, not '%s'", key, a, b, value);
}

static int disk_backing(DISK(d))
{
	return disk_choice(key, value, "beside", "anywhere", &d->backing_anywhere, err);
}

static int disk_cache(DISK(d))
{
	return disk_choice(key, value, "writeback", "writethrough", &d->write_through, err);
}

static int disk_on_error(DISK(d))
{
	return disk_choice(key, value, "report", "stop", &d->stop_on_error, err);
}

static int disk_switch(DISK(d))
{
	bool on;

	if (config_parse_switch(value, &on))
		return err_set(err, -EINVAL, "disk: %s is on or off, not '%s'", key, value);
	if (!strcmp(key, "readonly"))
		d->read_only = on;
	else if (!strcmp(key, "direct"))
		d->direct = on;
	else if (!strcmp(key, "discard"))
		d->no_discard = !on;
	else
		d->no_write_zeroes = !on;
	return 0;
}

static int disk_number(DISK(d))
{
	bool queues = !strcmp(key, "queues");
	unsigned long n, max = CONFIG_MAX_QUEUES;

	if (config_parse_number(value, 1, max, &n))
		return err_set(err, -EINVAL, "disk: %s '%s' is not a number from 1 to %lu", key, value,
			       max);
	*(queues ? &d->queues : &d->iothreads) = n;
	return 0;
}

/* Bytes or operations a second. */
static int disk_limit(DISK(d))
{
	struct limit_rate *r = *key == 'b' ? &d->limit.bytes : &d->limit.ops;
	u64 *field = strstr(key, "_burst") ? &r->burst : &r->rate;

	return config_parse_size(value, 1, field, err) ? err_prefix(err, "disk: %s: ", key) : 0;
}

static const struct disk_key {
	const char *name;
	int (*set)(struct disk_config *, const char *key, const char *value, struct err *);
} disk_keys[] = {
	{ "readonly", disk_switch }, { "serial", disk_serial }, { "format", disk_format },
	{ "backing", disk_backing }, { "cache", disk_cache }, { "direct", disk_switch },
	{ "discard", disk_switch }, { "write_zeroes", disk_switch }, { "on_error", disk_on_error },
	{ "queues", disk_number }, { "iothreads", disk_number },
	{ "bw", disk_limit }, { "bw_burst", disk_limit },
	{ "iops", disk_limit }, { "iops_burst", disk_limit },
};

static int set_disk_key(struct disk_config *d, const char *key, const char *value, struct err *err)
{
	const char *known[ARRAY_SIZE(disk_keys)];

	for (unsigned i = 0; i < ARRAY_SIZE(disk_keys); i++) {
		if (!strcmp(key, disk_keys[i].name))
			return disk_keys[i].set(d, key, value, err);
		known[i] = disk_keys[i].name;
	}
	return config_unknown_key("disk", key, known, ARRAY_SIZE(known), err);
}

static int check_disk(const struct disk_config *d, struct err *err)
{
	if ((d->limit.bytes.burst && !d->limit.bytes.rate) ||
	    (d->limit.ops.burst && !d->limit.ops.rate))
		return err_set(err, -EINVAL, "disk %s: a burst without a limit; add %s=", d->path,
			       d->limit.bytes.burst && !d->limit.bytes.rate ? "bw" : "iops");
	return 0;
}

int config_parse_disk(struct config *c, const char *value, struct err *err)
{
	char *copy = strdup(value), *list = copy, *piece;
	struct disk_config *d = &c->disk[c->nr_disks];
	int rc = 0;

	if (!copy)
		return err_set(err, -ENOMEM, "out of memory");
	if (c->nr_disks == CONFIG_MAX_DISKS) {
		rc = err_set(err, -EINVAL, "disk: more than %d", CONFIG_MAX_DISKS);
		goto out;
	}
	*d = (struct disk_config){ 0 };
	c->nr_disks++;
	piece = config_next_piece(&list);
	if (!*piece)
		rc = err_set(err, -EINVAL, "disk: '%s' begins with no path", value);
	else
		rc = config_set_text(&d->path, piece, err);
	while (!rc && (piece = config_next_piece(&list))) {
		const char *v = config_split_pair(piece);

		rc = set_disk_key(d, piece, v, err);
	}
	if (!rc)
		rc = check_disk(d, err);
out:
	free(copy);
	return rc;
}

void config_drop_disk(struct disk_config *d)
{
	free(d->path);
	free(d->format);
	free(d->id);
	free(d->partuuid);
	*d = (struct disk_config){ 0 };
}
