/* counts.c: what a machine counts, by the groups and names of Firecracker's metrics. */
#include <stdio.h>
#include <string.h>
#include "vmm/api/route.h"

/*
 * A field, and what it is the sum of.  Without a name it is 0, which its readers want to see,
 * too: there is no such device, nothing of the kind can happen here, or nobody looks.
 */
struct field_of {
	const char *field, *name, *label;
	enum { SUM, HISTOGRAM, TICKS } kind;
};

#define NONE(to)		{ .field = #to }
#define ALL(to, from)		{ .field = #to, .name = from }
#define PART(to, from, of)	{ .field = #to, .name = from, .label = of }
#define TIME(to, from, of, as)	{ .field = #to, .name = from, .label = of, .kind = as }

static const struct field_of vcpu_fields[] = {
	PART(exit_io_in, "vcpu_user_exits_total", "reason=\"io_in\""),
	PART(exit_io_out, "vcpu_user_exits_total", "reason=\"io_out\""),
	PART(exit_mmio_read, "vcpu_user_exits_total", "reason=\"mmio_read\""),
	PART(exit_mmio_write, "vcpu_user_exits_total", "reason=\"mmio_write\""),
	PART(failures, "vcpu_user_exits_total", "reason=\"fatal\""),
	ALL(kvmclock_ctrl_fails, "vcpu_clock_failures_total"),
	TIME(exit_io_in_agg, "vcpu_user_exit_seconds", "reason=\"io_in\"", TICKS),
	TIME(exit_io_out_agg, "vcpu_user_exit_seconds", "reason=\"io_out\"", TICKS),
	TIME(exit_mmio_read_agg, "vcpu_user_exit_seconds", "reason=\"mmio_read\"", TICKS),
	TIME(exit_mmio_write_agg, "vcpu_user_exit_seconds", "reason=\"mmio_write\"", TICKS),
};

static const struct field_of block_fields[] = {
	ALL(activate_fails, "virtio_failed_starts_total"),
	ALL(cfg_fails, "virtio_config_errors_total"),
	ALL(no_avail_buffer, "disk_empty_kicks_total"),
	NONE(event_fails),
	ALL(execute_fails, "disk_errors_total"),
	ALL(invalid_reqs_count, "disk_invalid_requests_total"),
	PART(flush_count, "disk_requests_total", "op=\"flush\""),
	ALL(queue_event_count, "disk_kicks_total"),
	ALL(rate_limiter_event_count, "disk_released_total"),
	NONE(update_count), NONE(update_fails),		/* see add_disks */
	PART(read_bytes, "disk_bytes_total", "op=\"read\""),
	PART(write_bytes, "disk_bytes_total", "op=\"write\""),
	PART(read_count, "disk_requests_total", "op=\"read\""),
	PART(write_count, "disk_requests_total", "op=\"write\""),
	TIME(read_agg, "disk_latency_seconds", "op=\"read\"", HISTOGRAM),
	TIME(write_agg, "disk_latency_seconds", "op=\"write\"", HISTOGRAM),
	ALL(rate_limiter_throttled_events, "disk_throttled_total"),
	ALL(io_engine_throttled_events, "disk_held_back_total"),
	ALL(remaining_reqs_count, "disk_left_total"),
};

static const struct field_of net_fields[] = {
	ALL(activate_fails, "virtio_failed_starts_total"),
	ALL(cfg_fails, "virtio_config_errors_total"),
	PART(no_rx_avail_buffer, "net_waits_total", "direction=\"rx\""),
	PART(no_tx_avail_buffer, "net_empty_kicks_total", "direction=\"tx\""),
	NONE(event_fails),
	PART(rx_queue_event_count, "net_kicks_total", "direction=\"rx\""),
	PART(rx_event_rate_limiter_count, "net_released_total", "direction=\"rx\""),
	PART(rx_rate_limiter_throttled, "net_throttled_total", "direction=\"rx\""),
	PART(rx_tap_event_count, "net_ready_total", "direction=\"rx\""),
	PART(rx_bytes_count, "net_bytes_total", "direction=\"rx\""),
	PART(rx_packets_count, "net_frames_total", "direction=\"rx\""),
	PART(rx_fails, "net_dropped_total", "direction=\"rx\""),
	PART(rx_count, "net_frames_total", "direction=\"rx\""),
	PART(tap_read_fails, "net_errors_total", "direction=\"rx\""),
	PART(tap_write_fails, "net_errors_total", "direction=\"tx\""),
	TIME(tap_write_agg, "net_send_seconds", NULL, TICKS),
	PART(tx_bytes_count, "net_bytes_total", "direction=\"tx\""),
	PART(tx_malformed_frames, "net_malformed_total", "direction=\"tx\""),
	PART(tx_fails, "net_dropped_total", "direction=\"tx\""),
	PART(tx_count, "net_frames_total", "direction=\"tx\""),
	PART(tx_packets_count, "net_frames_total", "direction=\"tx\""),
	PART(tx_queue_event_count, "net_kicks_total", "direction=\"tx\""),
	PART(tx_rate_limiter_event_count, "net_released_total", "direction=\"tx\""),
	PART(tx_rate_limiter_throttled, "net_throttled_total", "direction=\"tx\""),
	NONE(tx_spoofed_mac_count),
	PART(tx_remaining_reqs_count, "net_left_total", "direction=\"tx\""),
};

static const struct field_of uart_fields[] = {
	NONE(error_count), NONE(flush_count), NONE(missed_read_count), NONE(missed_write_count),
	PART(read_count, "serial_bytes_total", "direction=\"rx\""),
	PART(write_count, "serial_bytes_total", "direction=\"tx\""),
	NONE(rate_limiter_dropped_bytes),
};

static const struct field_of i8042_fields[] = {
	NONE(error_count), NONE(missed_read_count),
	ALL(missed_write_count, "i8042_ignored_total"),
	PART(read_count, "i8042_accesses_total", "op=\"read\""),
	ALL(reset_count, "i8042_resets_total"),
	PART(write_count, "i8042_accesses_total", "op=\"write\""),
};

static const struct field_of entropy_fields[] = {
	ALL(activate_fails, "virtio_failed_starts_total"),
	ALL(entropy_event_fails, "entropy_errors_total"),
	ALL(entropy_event_count, "entropy_requests_total"),
	ALL(entropy_bytes, "entropy_bytes_total"),
	ALL(host_rng_fails, "entropy_errors_total"),
	ALL(entropy_rate_limiter_throttled, "entropy_throttled_total"),
	ALL(rate_limiter_event_count, "entropy_released_total"),
};

static const struct field_of interrupts_fields[] = {
	ALL(triggers, "virtio_interrupts_total"),
	ALL(config_updates, "virtio_vector_changes_total"),
};

/* A process that such a thing happens to writes no more lines. */
static const struct field_of signals_fields[] = {
	NONE(sigbus), NONE(sigsegv), NONE(sigxfsz), NONE(sigxcpu), NONE(sigpipe), NONE(sighup),
	NONE(sigill),
};
static const struct field_of seccomp_fields[] = { NONE(num_faults) };
static const struct field_of vmm_fields[] = { NONE(panic_count) };

static const struct field_of balloon_fields[] = {
	NONE(activate_fails), NONE(inflate_count), NONE(stats_updates_count), NONE(stats_update_fails),
	NONE(deflate_count), NONE(event_fails), NONE(free_page_report_count),
	NONE(free_page_report_freed), NONE(free_page_report_fails), NONE(free_page_hint_count),
	NONE(free_page_hint_freed), NONE(free_page_hint_fails),
};
static const struct field_of vsock_fields[] = {
	ALL(activate_fails, "virtio_failed_starts_total"), ALL(cfg_fails, "virtio_config_errors_total"),
	NONE(rx_queue_event_fails), NONE(tx_queue_event_fails), NONE(ev_queue_event_fails),
	NONE(muxer_event_fails), NONE(conn_event_fails),
	PART(rx_queue_event_count, "vsock_kicks_total", "queue=\"rx\""),
	PART(tx_queue_event_count, "vsock_kicks_total", "queue=\"tx\""),
	PART(rx_bytes_count, "vsock_bytes_total", "direction=\"rx\""),
	PART(tx_bytes_count, "vsock_bytes_total", "direction=\"tx\""),
	PART(rx_packets_count, "vsock_packets_total", "direction=\"rx\""),
	PART(tx_packets_count, "vsock_packets_total", "direction=\"tx\""),
	ALL(conns_added, "vsock_opened_total"), NONE(conns_killed),
	ALL(conns_removed, "vsock_ended_total"), NONE(killq_resync),
	ALL(tx_flush_fails, "vsock_flush_errors_total"),
	PART(tx_write_fails, "vsock_errors_total", "direction=\"tx\""),
	PART(rx_read_fails, "vsock_errors_total", "direction=\"rx\""),
};
static const struct field_of mmds_fields[] = {
	PART(rx_accepted, "mmds_frames_total", "direction=\"rx\""),
	ALL(rx_accepted_err, "mmds_malformed_total"), ALL(rx_accepted_unusual, "mmds_unusual_total"),
	NONE(rx_bad_eth),		/* a frame is looked at when it is whole */
	PART(rx_invalid_token, "mmds_unauthorized_total", "reason=\"invalid_token\""),
	PART(rx_no_token, "mmds_unauthorized_total", "reason=\"no_token\""),
	PART(rx_count, "mmds_frames_total", "direction=\"rx\""),
	ALL(tx_bytes, "mmds_bytes_total"), PART(tx_count, "mmds_frames_total", "direction=\"tx\""),
	ALL(tx_errors, "mmds_unanswered_total"),
	PART(tx_frames, "mmds_frames_total", "direction=\"tx\""),
	ALL(connections_created, "mmds_connections_total"), ALL(connections_destroyed, "mmds_closed_total"),
};
static const struct field_of pmem_fields[] = {
	NONE(activate_fails), NONE(cfg_fails), NONE(event_fails), NONE(queue_event_count),
	NONE(rate_limiter_throttled_events), NONE(rate_limiter_event_count),
};
static const struct field_of memory_fields[] = {
	NONE(activate_fails), NONE(queue_event_fails), NONE(queue_event_count), NONE(plug_count),
	NONE(plug_bytes), NONE(plug_fails), TIME(plug_agg, NULL, NULL, TICKS), NONE(unplug_count),
	NONE(unplug_bytes), NONE(unplug_fails), NONE(unplug_discard_fails),
	TIME(unplug_agg, NULL, NULL, TICKS), NONE(unplug_all_count), NONE(unplug_all_fails),
	TIME(unplug_all_agg, NULL, NULL, TICKS), NONE(state_count), NONE(state_fails),
	TIME(state_agg, NULL, NULL, TICKS),
};

#define GROUP(name, owner) { #name, owner, name##_fields, ARRAY_SIZE(name##_fields) }
static const struct {
	const char *name, *owner;	/* owner NULL: of all */
	const struct field_of *field;
	unsigned nr;
} groups[] = {
	GROUP(vcpu, NULL), GROUP(uart, NULL), GROUP(i8042, NULL), GROUP(entropy, "rng0"),
	GROUP(interrupts, NULL), GROUP(signals, NULL), GROUP(seccomp, NULL), GROUP(vmm, NULL),
	GROUP(balloon, NULL), GROUP(vsock, "vsock0"), GROUP(mmds, NULL), GROUP(pmem, NULL),
	{ "memory_hotplug", NULL, memory_fields, ARRAY_SIZE(memory_fields) },
};

static json_t *aggregate(u64 min_ns, u64 max_ns, u64 sum_ns)
{
	return json_pack("{s:I, s:I, s:I}", "min_us", (json_int_t)min_ns / 1000, "max_us",
			 (json_int_t)max_ns / 1000, "sum_us", (json_int_t)sum_ns / 1000);
}

static json_t *count(const struct metrics *m, const char *owner, const struct field_of *f)
{
	struct histogram h = { 0 };
	struct ticks s = { 0 };

	switch (f->kind) {
	case HISTOGRAM:
		h = metrics_histogram(m, owner, f->name, f->label);
		return aggregate(h.min_ns, h.max_ns, h.sum_ns);
	case TICKS:
		if (f->name)
			s = metrics_ticks(m, owner, f->name, f->label);
		return aggregate(s.min, s.max, s.sum);
	default:
		return json_integer(f->name ? metrics_sum(m, owner, f->name, f->label) : 0);
	}
}

static json_t *counts(const struct metrics *m, const char *owner, const struct field_of *f, unsigned nr)
{
	json_t *o = json_object();

	for (unsigned i = 0; i < nr; i++)
		json_object_set_new(o, f[i].field, count(m, owner, &f[i]));
	return o;
}

void api_add_counts(json_t *to, const json_t *more)
{
	const char *key;
	json_t *v;

	json_object_foreach(to, key, v) {
		const json_t *other = json_object_get(more, key);
		json_int_t a = json_integer_value(v), b = json_integer_value(other);

		if (json_is_object(v))
			api_add_counts(v, other);
		else if (!strcmp(key, "min_us"))
			json_integer_set(v, a && b ? MIN(a, b) : a + b);
		else
			json_integer_set(v, !strcmp(key, "max_us") ? MAX(a, b) : a + b);
	}
}

/* Of all devices of a kind, then of each by what it is called. */
static void add_devices(json_t *root, const char *kind, json_t *each[], const char *const name[],
			unsigned nr, const struct field_of *f, unsigned nr_fields)
{
	json_t *all = counts(&(struct metrics){ 0 }, NULL, f, nr_fields);
	char group[96];

	json_object_set_new(root, kind, all);
	for (unsigned i = 0; i < nr; i++) {
		api_add_counts(all, each[i]);
		snprintf(group, sizeof(group), "%s_%s", kind, name[i]);
		json_object_set_new(root, group, each[i]);
	}
}

static void add_disks(struct api *a, const struct metrics *m, json_t *root)
{
	const struct config *c = a->vm->config;
	struct disk_name text[CONFIG_MAX_DISKS];
	const char *name[CONFIG_MAX_DISKS];
	json_t *each[CONFIG_MAX_DISKS];
	char owner[32];

	for (unsigned i = 0; i < c->nr_disks; i++) {
		snprintf(owner, sizeof(owner), "disk%u", i);
		text[i] = api_disk_name(c, i);
		name[i] = text[i].text;
		each[i] = counts(m, owner, block_fields, ARRAY_SIZE(block_fields));
		json_object_set_new(each[i], "update_count", json_integer(a->metrics.updates[i]));
		json_object_set_new(each[i], "update_fails", json_integer(a->metrics.update_fails[i]));
	}
	add_devices(root, "block", each, name, c->nr_disks, block_fields, ARRAY_SIZE(block_fields));
}

static void add_nets(struct api *a, const struct metrics *m, json_t *root)
{
	const struct config *c = a->vm->config;
	const char *name[CONFIG_MAX_NETS];
	char owner[CONFIG_MAX_NETS][32];
	json_t *each[CONFIG_MAX_NETS];

	for (unsigned i = 0; i < c->nr_nets; i++) {
		snprintf(owner[i], sizeof(owner[i]), "net%u", i);
		name[i] = c->net[i].id ?: owner[i];
		each[i] = counts(m, owner[i], net_fields, ARRAY_SIZE(net_fields));
	}
	add_devices(root, "net", each, name, c->nr_nets, net_fields, ARRAY_SIZE(net_fields));
}

json_t *api_machine_counts(struct api *a)
{
	struct metrics *m = a->vm->ops->metrics(a->vm);
	json_t *root = json_object();

	metrics_refresh(m);
	for (unsigned i = 0; i < ARRAY_SIZE(groups); i++)
		json_object_set_new(root, groups[i].name, counts(m, groups[i].owner, groups[i].field,
								groups[i].nr));
	add_disks(a, m, root);
	add_nets(a, m, root);
	return root;
}
