/* mmds.c: the metadata service, as Firecracker's API has it. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include "vmm/api/metadata.h"
#include "vmm/api/route.h"

int api_get_mmds(struct api *a, struct call *call)
{
	call->answer = metadata_get(a->vm->metadata);
	return call->answer ? 0 : err_set(&call->err, -ENOMEM, "out of memory");
}

int api_put_mmds(struct api *a, struct call *call)
{
	return metadata_put(a->vm->metadata, call->body, &call->err);
}

int api_patch_mmds(struct api *a, struct call *call)
{
	return metadata_patch(a->vm->metadata, call->body, &call->err);
}

static int check_config(const struct config *c, const struct api_mmds_config *m, struct in_addr *address,
			struct err *err)
{
	const json_t *id;
	size_t i;

	if (m->ipv4_address && inet_pton(AF_INET, m->ipv4_address, address) != 1)
		return err_set(err, -EINVAL, "ipv4_address: '%s' is not an address of IPv4", m->ipv4_address);
	if (!json_array_size(m->network_interfaces))
		return err_set(err, -EINVAL, "The list of network interface IDs that allow forwarding MMDS "
			       "requests is empty.");
	if (!config_mmds_address_valid(*address))
		return err_set(err, -EINVAL, "The MMDS IPv4 address is not link local.");
	json_array_foreach(m->network_interfaces, i, id)
		if (api_find_net(c, json_string_value(id)) < 0)
			return err_set(err, -ENOENT, "The list of network interface IDs provided contains at "
				       "least one ID that does not correspond to any existing network "
				       "interface.");
	return 0;
}

int api_put_mmds_config(struct api *a, struct call *call)
{
	struct in_addr address = { htonl(MMDS_ADDRESS) };
	struct config *c = a->vm->config;
	struct api_mmds_config m = { 0 };
	const json_t *id;
	size_t i;

	api_take(call, &m);
	if (check_config(c, &m, &address, &call->err))
		return err_prefix(&call->err, "MMDS config error: ");
	c->mmds = (struct mmds_config){ .v2 = m.version == API_MMDS_V2, .imds_compat = m.imds_compat,
					.address = address };
	json_array_foreach(m.network_interfaces, i, id)
		c->mmds.cards |= 1U << api_find_net(c, json_string_value(id));
	call->deprecated |= !c->mmds.v2;
	return 0;
}

json_t *api_mmds_json(const struct config *c)
{
	json_t *list = c->mmds.cards ? json_array() : NULL, *o;
	char address[INET_ADDRSTRLEN], name[16];

	if (!list)
		return json_null();
	for (unsigned i = 0; i < c->nr_nets; i++) {
		snprintf(name, sizeof(name), "net%u", i);
		if (c->mmds.cards >> i & 1)
			json_array_append_new(list, json_string(c->net[i].id ?: name));
	}
	inet_ntop(AF_INET, &c->mmds.address, address, sizeof(address));
	o = json_write(&api_mmds_config_schema, &(struct api_mmds_config){
		.version = c->mmds.v2 ? API_MMDS_V2 : API_MMDS_V1, .network_interfaces = list,
		.ipv4_address = address, .imds_compat = c->mmds.imds_compat,
	});
	json_decref(list);
	return o;
}
