/* model.h: what the API's requests and answers hold, as structs and as tables. */
#pragma once
#include "vmm/api/json.h"

/*
 * The names are those of Firecracker's published definition of its API, version 1.17.
 * Text belongs to the JSON that it was read from; NULL: not given.  Of what no device
 * is there for, there is a schema alone.
 */

struct api_bucket {
	bool given;
	u64 size, one_time_burst, refill_time;	/* tokens, tokens, ms */
};

struct api_limiter {
	bool given;
	struct api_bucket bandwidth, ops;
};

enum api_action { API_FLUSH_METRICS, API_INSTANCE_START, API_SEND_CTRL_ALT_DEL };
struct api_action_info {
	unsigned action_type;
};

struct api_boot_source {
	const char *kernel_image_path, *initrd_path, *boot_args;
};

enum api_huge_pages { API_HUGE_NONE, API_HUGE_TRANSPARENT, API_HUGE_2M };
enum { API_CPU_TEMPLATE_NONE };
struct api_machine {
	u64 vcpu_count, mem_size_mib;
	bool smt, track_dirty_pages;
	unsigned huge_pages, cpu_template;
};

enum api_cache { API_CACHE_UNSAFE, API_CACHE_WRITEBACK };
enum api_io_engine { API_IO_SYNC, API_IO_ASYNC };
struct api_drive {
	const char *drive_id, *partuuid, *path_on_host, *socket;
	bool is_root_device, is_read_only;
	unsigned cache_type, io_engine;
	struct api_limiter rate_limiter;
};

struct api_net {
	const char *iface_id, *host_dev_name, *guest_mac;
	u64 mtu;			/* 0: not given */
	struct api_limiter rx_rate_limiter, tx_rate_limiter;
};

enum api_log_level { API_LOG_OFF, API_LOG_TRACE, API_LOG_DEBUG, API_LOG_INFO, API_LOG_WARNING,
		     API_LOG_WARN, API_LOG_ERROR };
struct api_logger {
	const char *log_path, *module;
	unsigned level;
	bool show_level, show_log_origin;
};

struct api_metrics_config {
	const char *metrics_path;
	bool emit_id;
	const json_t *properties;
};

struct api_serial {
	const char *serial_out_path;
	struct api_bucket rate_limiter;
};

struct api_entropy {
	struct api_limiter rate_limiter;
};

struct api_vsock {
	u64 guest_cid;
	const char *uds_path;
};

enum { API_MMDS_V1, API_MMDS_V2 };
struct api_mmds_config {
	unsigned version;
	const json_t *network_interfaces;
	const char *ipv4_address;
	bool imds_compat;
};

enum api_vm_state { API_PAUSED_STATE, API_RESUMED_STATE };
struct api_vm_request {
	unsigned state;
};

struct api_instance {
	const char *app_name, *id, *vmm_version;
	unsigned state;			/* enum api_state */
};

struct api_cpu_config {
	const json_t *kvm_capabilities, *cpuid_modifiers, *msr_modifiers, *reg_modifiers,
		     *vcpu_features;
};

enum api_snapshot_type { API_SNAPSHOT_FULL, API_SNAPSHOT_DIFF };
struct api_snapshot_create {
	const char *mem_file_path, *snapshot_path;
	unsigned snapshot_type;
};

enum { API_LOAD_HUGE_SNAPSHOT, API_LOAD_HUGE_NONE };
enum { API_BACKEND_FILE, API_BACKEND_UFFD };
struct api_backend {
	bool given;
	unsigned backend_type;
	const char *backend_path;
};
struct api_vsock_override {
	bool given;
	const char *uds_path;
};
struct api_snapshot_load {
	const char *snapshot_path, *mem_file_path;
	struct api_backend mem_backend;
	bool enable_diff_snapshots, track_dirty_pages, resume_vm, clock_realtime;
	const json_t *network_overrides;
	struct api_vsock_override vsock_override;
	unsigned huge_pages;
};

/* --- our own, below /vmm/v1 ---------------------------------------------------------------- */

struct api_vm_info {
	const char *name, *version, *kernel, *console;
	unsigned state;			/* enum api_state */
	u64 pid, cpus, memory_bytes, uptime_ms;
};

/* Sums since the machine began to run; a reboot begins a new one. */
struct api_stats {
	const char *name;
	unsigned state;			/* enum api_state */
	u64 pid, time_ns, cpu_ns, memory_bytes, resident_bytes, exits, halts, steal_ns,
	    disk_read_bytes, disk_write_bytes, disk_reads, disk_writes, disk_errors,
	    net_rx_bytes, net_tx_bytes, guest_errors;
};

struct api_disk_info {
	const char *disk, *path, *format;
	u64 size;
	bool read_only, root;
};

struct api_disk_list {
	const json_t *disks;
};

struct api_snapshot_request {
	const char *name;
};

struct api_save_request {
	const char *directory;
	unsigned type;			/* enum api_snapshot_type */
};

struct api_directory_request {
	const char *directory;
};

struct api_link_request {
	unsigned link;			/* 0: down, 1: up */
};

struct api_size_request {
	u64 size;
};

extern const struct schema
	api_action_schema, api_boot_source_schema, api_machine_schema, api_machine_patch_schema,
	api_drive_schema, api_drive_patch_schema, api_net_schema, api_net_patch_schema,
	api_logger_schema, api_metrics_schema, api_serial_schema, api_entropy_schema, api_vsock_schema,
	api_vm_schema, api_cpu_config_schema, api_file_schema, api_mmds_schema, api_mmds_config_schema,
	/* checked, then refused: there is no such device */
	api_balloon_schema, api_balloon_patch_schema, api_balloon_stats_schema,
	api_balloon_start_schema,
	api_pmem_schema, api_pmem_patch_schema, api_memory_schema, api_memory_patch_schema,
	api_snapshot_create_schema, api_snapshot_load_schema,
	/* answers of the published API */
	api_instance_schema, api_version_schema, api_full_schema,
	/* our own */
	api_vm_info_schema, api_stats_schema, api_disk_info_schema, api_disk_list_schema,
	api_snapshot_schema, api_save_schema, api_directory_schema, api_size_schema, api_link_schema,
	api_error_schema;
