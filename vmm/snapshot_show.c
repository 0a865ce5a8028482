/* snapshot_show.c: 'vmm snapshot': what was saved, and a whole snapshot of two. */
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "devices/block/chain.h"
#include "vmm/commands.h"
#include "vmm/core/log.h"
#include "vmm/disk.h"
#include "vmm/snapshot.h"

static int failed(const struct err *err)
{
	log_err("%s", err->msg);
	return exit_status_of(err->code);
}

/* --- info --------------------------------------------------------------------------------------------- */

struct id_text { char text[2 * SNAPSHOT_ID_LEN + 1]; };
static struct id_text id_text(const u8 id[SNAPSHOT_ID_LEN])
{
	struct id_text t;

	for (int i = 0; i < SNAPSHOT_ID_LEN; i++)
		snprintf(t.text + 2UL * i, 3, "%02x", id[i]);
	return t;
}

static const char *transport_name(const struct config *c)
{
	return c->transport == TRANSPORT_PCI ? "pci" : "mmio";
}

static void print_disk(const struct disk_config *d)
{
	print_row("disk", "%s%s%s%s", d->path, d->is_base ? " (a delta of it)" : "",
		  d->read_only ? ", read-only" : "",
		  d->backing_anywhere ? ", with backing files anywhere" : "");
}

static void print_net(const struct net_config *n)
{
	const char *name = config_net_name(n);

	print_row("net", "%s%s%s%s%s", config_net_kind(n), name ? "=" : "", name ?: "",
		  n->vlan ? ", vlan=" : "", n->vlan ?: "");
	for (unsigned i = 0; i < n->nr_forwards; i++) {
		const struct net_forward *f = &n->forward[i];
		char host[INET_ADDRSTRLEN] = "", guest[INET_ADDRSTRLEN] = "";

		if (f->host.s_addr)
			inet_ntop(AF_INET, &f->host, host, sizeof(host));
		if (f->guest.s_addr)
			inet_ntop(AF_INET, &f->guest, guest, sizeof(guest));
		print_row("", "hostfwd=%s:%s:%u-%s:%u", f->udp ? "udp" : "tcp", host, f->host_port, guest,
			  f->guest_port);
	}
}

/* What of this host it names, as a command line would; and what a reboot boots. */
static void print_config(const struct config *c)
{
	print_row("cpus", "%u", c->cpus);
	print_row("transport", "%s", transport_name(c));
	if (c->kernel)
		print_row("kernel", "%s", c->kernel);
	if (c->initrd)
		print_row("initrd", "%s", c->initrd);
	for (unsigned i = 0; i < c->nr_disks; i++)
		print_disk(&c->disk[i]);
	for (unsigned i = 0; i < c->nr_nets; i++)
		print_net(&c->net[i]);
	if (c->vsock.path)
		print_row("vsock", "cid=%u,uds=%s", c->vsock.cid, c->vsock.path);
}

static void print_info(const struct snapshot_info *i, const struct config *c)
{
	print_row("id", "%s", id_text(i->id).text);
	print_row("kind", "%s", i->diff ? "diff" : "full");
	if (i->diff)
		print_row("base", "%s", id_text(i->base).text);
	print_row("memory", "%s (%llu bytes)", disk_size_text(i->mem_size).text, (unsigned long long)i->mem_size);
	print_config(c);
}

static json_t *vsock_json(const struct config *c)
{
	return c->vsock.path ? json_pack("{s:I, s:o}", "cid", (json_int_t)c->vsock.cid, "uds",
					 disk_json(c->vsock.path)) : json_null();
}

static json_t *config_json(const struct config *c)
{
	json_t *disks = json_array(), *nets = json_array();

	for (unsigned i = 0; i < c->nr_disks; i++)
		json_array_append_new(disks, json_pack("{s:o, s:b, s:b}", "path", disk_json(c->disk[i].path), "delta",
						       (int)c->disk[i].is_base, "read_only",
						       (int)c->disk[i].read_only));
	for (unsigned i = 0; i < c->nr_nets; i++)
		json_array_append_new(nets, json_pack("{s:s, s:o}", "kind", config_net_kind(&c->net[i]), "name",
						      disk_json_or_null(config_net_name(&c->net[i]))));
	return json_pack("{s:i, s:s, s:o, s:o, s:o, s:o, s:o}", "cpus", (int)c->cpus, "transport", transport_name(c),
			 "kernel", disk_json_or_null(c->kernel), "initrd", disk_json_or_null(c->initrd), "disks", disks,
			 "nets", nets, "vsock", vsock_json(c));
}

static void print_info_json(const struct snapshot_info *i, const struct config *c)
{
	json_t *root = json_pack("{s:s, s:s, s:s*, s:I}", "id", id_text(i->id).text, "kind",
				 i->diff ? "diff" : "full", "base", i->diff ? id_text(i->base).text : NULL,
				 "memory_bytes", (json_int_t)i->mem_size);

	json_object_update_new(root, config_json(c));
	subcommand_print_json(root);
}

static int info(const struct subcommand_args *a)
{
	struct snapshot_info i;
	struct snapshot *s;
	struct config c;
	struct err err;
	int rc;

	if (snapshot_open_directory(&s, a->word[0], &err))
		return failed(&err);
	i = snapshot_info(s);
	config_init(&c);
	rc = snapshot_config(s, &c, &err);
	if (!rc)
		(a->value[0] ? print_info_json : print_info)(&i, &c);
	config_fini(&c);
	snapshot_close(s);
	return rc ? failed(&err) : EXIT_OK;
}

/* --- merge -------------------------------------------------------------------------------------------- */

static void in_directory(char path[PATH_MAX], const char *dir, const char *file)
{
	snprintf(path, PATH_MAX, "%.*s/%s", (int)snapshot_directory_len(dir), dir, file);
}

/* The memory first: with the state it is a snapshot. */
static int merge(const struct subcommand_args *a)
{
	const char *base = a->word[0], *diff = a->word[1], *out = a->word[2];
	char from[2][PATH_MAX], memory[PATH_MAX], state[PATH_MAX], dir[PATH_MAX];
	struct err err;
	int rc;

	if (mkdir(out, 0777)) {
		err_set(&err, -errno, "snapshot %s: %s", out, errno == EEXIST ?
			"there is something already; choose another directory" : strerror(errno));
		return failed(&err);
	}
	in_directory(from[0], base, "memory");
	in_directory(from[1], diff, "memory");
	in_directory(memory, out, "memory");
	in_directory(state, out, "state");
	rc = snapshot_merge_memory(from[0], from[1], memory, &err);
	in_directory(from[1], diff, "state");
	if (!rc)
		rc = snapshot_copy_state(from[1], state, &err);
	snprintf(dir, sizeof(dir), "%.*s", (int)snapshot_directory_len(out), out);
	if (!rc)
		rc = chain_sync_dir(dir, &err);
	if (!rc)
		return EXIT_OK;
	unlink(state);
	unlink(memory);
	rmdir(out);
	return failed(&err);
}

int command_snapshot(int argc, char **argv)
{
	static const struct subcommand_option options[] = {
		{ "json", NULL, "for programs" },
	};
	static const struct subcommand commands[] = {
		{ "info", "DIR", 1, 1, 1, "what a saved VM is, and what of this host it names", info },
		{ "merge", "BASE DIFF DIR", 3, 3, 0, "a whole one of a diff and its base", merge },
	};
	static const struct subcommands snapshot = {
		"snapshot", "vmm snapshot looks at VMs that were saved, by 'vmm ctl NAME save DIR', and\n"
		"go on by 'vmm restore DIR'.", options, ARRAY_SIZE(options), commands, ARRAY_SIZE(commands),
	};

	return subcommand_run(&snapshot, argc, argv);
}
