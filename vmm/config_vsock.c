/* config_vsock.c: what --vsock says. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include "vmm/config_own.h"

static int check_path(const char *path, struct err *err)
{
	size_t most = sizeof(((struct sockaddr_un *)0)->sun_path) - 1, len = strlen(path);

	return !len || len > most ?
		err_set(err, -EINVAL, "vsock: uds '%s': a socket's path has 1 to %zu bytes", path, most) : 0;
}

int config_set_vsock(struct config *c, u32 cid, const char *path, struct err *err)
{
	int rc = check_path(path, err);

	if (!rc)
		rc = config_set_text(&c->vsock.path, path, err);
	if (!rc && cid)
		c->vsock.cid = cid;
	return rc;
}

static int set_key(struct vsock_config *v, const char *key, const char *value, struct err *err)
{
	static const char *const known[] = { "cid", "uds" };
	unsigned long cid;

	if (!strcmp(key, "uds"))
		return check_path(value, err) ?: config_set_text(&v->path, value, err);
	if (strcmp(key, "cid"))
		return config_unknown_key("vsock", key, known, ARRAY_SIZE(known), err);
	if (config_parse_number(value, CONFIG_MIN_CID, CONFIG_MAX_CID, &cid))
		return err_set(err, -EINVAL, "vsock: cid '%s' is not a number from %d to %u", value, CONFIG_MIN_CID,
			       CONFIG_MAX_CID);
	v->cid = cid;
	return 0;
}

int config_parse_vsock(struct config *c, const char *value, struct err *err)
{
	char *copy = strdup(value), *list = copy, *piece;
	int rc = copy ? 0 : err_set(err, -ENOMEM, "out of memory");

	while (!rc && (piece = config_next_piece(&list))) {
		const char *v = config_split_pair(piece);

		rc = set_key(&c->vsock, piece, v, err);
	}
	if (!rc && (!c->vsock.path || !c->vsock.cid))
		rc = err_set(err, -EINVAL, "vsock: '%s' has no %s; write cid=3,uds=PATH", value,
			     c->vsock.path ? "cid" : "uds");
	free(copy);
	return rc;
}

int config_check_vsock(const struct config *c, struct err *err)
{
	if (!c->vsock.path)
		return 0;
	if (c->vsock.cid < CONFIG_MIN_CID || c->vsock.cid > CONFIG_MAX_CID)
		return err_set(err, -EINVAL, "vsock: cid %u is not from %d to %u", c->vsock.cid, CONFIG_MIN_CID,
			       CONFIG_MAX_CID);
	return check_path(c->vsock.path, err);
}
