/* model.c: the tables of what requests and answers hold (Firecracker's API, 1.17). */
#include "vmm/api/model.h"

/* A member of struct STRUCT; only checked; the rest of a row are its further members. */
#define IN(kind_, name_, ...) \
	{ .name = #name_, .kind = FIELD_##kind_, .offset = offsetof(struct STRUCT, name_), \
	  ##__VA_ARGS__ }
#define CHECK(kind_, name_, ...) \
	{ .name = #name_, .kind = FIELD_##kind_, .only_checked = true, ##__VA_ARGS__ }
#define MUST		.required = true
#define MAYBE		.nullable = true
#define OLD		.nullable = true, .deprecated = true
#define SCHEMA(id, title) \
	const struct schema api_##id##_schema = { #title, id##_fields, ARRAY_SIZE(id##_fields) }

#define U8_MAX	255ULL
#define U32_MAX	4294967295ULL

/* --- limits ----------------------------------------------------------------------------------- */

#define STRUCT api_bucket
static const struct field bucket_fields[] = {
	IN(NUMBER, size, MUST), IN(NUMBER, one_time_burst, MAYBE), IN(NUMBER, refill_time, MUST),
};
static const struct schema bucket = { "TokenBucket", bucket_fields, ARRAY_SIZE(bucket_fields) };
#undef STRUCT

#define STRUCT api_limiter
static const struct field limiter_fields[] = {
	IN(OBJECT, bandwidth, MAYBE, .object = &bucket), IN(OBJECT, ops, MAYBE, .object = &bucket),
};
static const struct schema limiter = { "RateLimiter", limiter_fields, ARRAY_SIZE(limiter_fields) };
#undef STRUCT

/* --- the machine ------------------------------------------------------------------------------ */

#define STRUCT api_action_info
static const char *const actions[] = { "FlushMetrics", "InstanceStart", "SendCtrlAltDel", NULL };
static const struct field action_fields[] = {
	IN(WORD, action_type, MUST, .words = actions),
};
SCHEMA(action, InstanceActionInfo);
#undef STRUCT

#define STRUCT api_boot_source
static const struct field boot_source_fields[] = {
	IN(TEXT, kernel_image_path, MUST), IN(TEXT, initrd_path, MAYBE), IN(TEXT, boot_args, MAYBE),
};
SCHEMA(boot_source, BootSource);
#undef STRUCT

#define STRUCT api_machine
static const char *const huge_pages[] = { "None", "Transparent", "2M", NULL };
static const char *const cpu_templates[] = { "None", "C3", "T2", "T2S", "T2CL", "T2A", "V1N1",
					     NULL };
static const struct field machine_fields[] = {
	IN(NUMBER, vcpu_count, MUST, .min = 1, .max = 32), IN(NUMBER, mem_size_mib, MUST, .min = 1),
	IN(BOOL, smt), IN(WORD, cpu_template, OLD, .words = cpu_templates),
	IN(BOOL, track_dirty_pages), IN(WORD, huge_pages, .words = huge_pages),
};
SCHEMA(machine, MachineConfiguration);
static const struct field machine_patch_fields[] = {
	IN(NUMBER, vcpu_count, MAYBE, .min = 1, .max = 32),
	IN(NUMBER, mem_size_mib, MAYBE, .min = 1), IN(BOOL, smt, MAYBE),
	IN(WORD, cpu_template, OLD, .words = cpu_templates), IN(BOOL, track_dirty_pages, MAYBE),
	IN(WORD, huge_pages, MAYBE, .words = huge_pages),
};
SCHEMA(machine_patch, MachineConfiguration);
#undef STRUCT

#define STRUCT api_drive
static const char *const cache_types[] = { "Unsafe", "Writeback", NULL };
static const char *const io_engines[] = { "Sync", "Async", NULL };
static const struct field drive_fields[] = {
	IN(TEXT, drive_id, MUST), IN(TEXT, partuuid, MAYBE), IN(BOOL, is_root_device, MUST),
	IN(WORD, cache_type, .words = cache_types), IN(BOOL, is_read_only, MAYBE),
	IN(TEXT, path_on_host, MAYBE), IN(OBJECT, rate_limiter, MAYBE, .object = &limiter),
	IN(WORD, io_engine, MAYBE, .words = io_engines), IN(TEXT, socket, MAYBE),
};
SCHEMA(drive, Drive);
static const struct field drive_patch_fields[] = {
	IN(TEXT, drive_id, MUST), IN(TEXT, path_on_host, MAYBE),
	IN(OBJECT, rate_limiter, MAYBE, .object = &limiter),
};
SCHEMA(drive_patch, PartialDrive);
#undef STRUCT

#define STRUCT api_net
static const struct field net_fields[] = {
	IN(TEXT, iface_id, MUST), IN(TEXT, host_dev_name, MUST), IN(TEXT, guest_mac, MAYBE),
	IN(NUMBER, mtu, MAYBE, .min = 68, .max = 65535),
	IN(OBJECT, rx_rate_limiter, MAYBE, .object = &limiter),
	IN(OBJECT, tx_rate_limiter, MAYBE, .object = &limiter),
};
SCHEMA(net, NetworkInterface);
static const struct field net_patch_fields[] = {
	IN(TEXT, iface_id, MUST), IN(OBJECT, rx_rate_limiter, MAYBE, .object = &limiter),
	IN(OBJECT, tx_rate_limiter, MAYBE, .object = &limiter),
};
SCHEMA(net_patch, PartialNetworkInterface);
#undef STRUCT

#define STRUCT api_serial
static const struct field serial_fields[] = {
	IN(TEXT, serial_out_path, MAYBE), IN(OBJECT, rate_limiter, MAYBE, .object = &bucket),
};
SCHEMA(serial, SerialDevice);
#undef STRUCT

#define STRUCT api_entropy
static const struct field entropy_fields[] = {
	IN(OBJECT, rate_limiter, MAYBE, .object = &limiter),
};
SCHEMA(entropy, EntropyDevice);
#undef STRUCT

#define STRUCT api_vsock
static const struct field vsock_fields[] = {
	IN(NUMBER, guest_cid, MUST, .min = 3, .max = U32_MAX - 1), IN(TEXT, uds_path, MUST),
	CHECK(TEXT, vsock_id, OLD),
};
SCHEMA(vsock, Vsock);
#undef STRUCT

/* Any object. */
const struct schema api_mmds_schema = { "MmdsContentsObject", NULL, 0 };

#define STRUCT api_mmds_config
static const char *const mmds_versions[] = { "V1", "V2", NULL };
static const struct field mmds_config_fields[] = {
	IN(WORD, version, .words = mmds_versions), IN(TEXTS, network_interfaces, MUST),
	IN(TEXT, ipv4_address, MAYBE), IN(BOOL, imds_compat),
};
SCHEMA(mmds_config, MmdsConfig);
#undef STRUCT

#define STRUCT api_vm_request
static const char *const vm_states[] = { "Paused", "Resumed", NULL };
static const struct field vm_fields[] = { IN(WORD, state, MUST, .words = vm_states) };
SCHEMA(vm, Vm);
#undef STRUCT

/* --- logs and figures ------------------------------------------------------------------------- */

#define STRUCT api_logger
static const char *const levels[] = { "Off", "Trace", "Debug", "Info", "Warning", "Warn", "Error",
				      NULL };
static const struct field logger_fields[] = {
	IN(TEXT, log_path, MAYBE), IN(WORD, level, MAYBE, .words = levels, .any_case = true),
	IN(BOOL, show_level, MAYBE), IN(BOOL, show_log_origin, MAYBE), IN(TEXT, module, MAYBE),
};
SCHEMA(logger, Logger);
#undef STRUCT

#define STRUCT api_metrics_config
static const struct field metrics_fields[] = {
	IN(TEXT, metrics_path, MUST), IN(BOOL, emit_id), IN(TEXT_MAP, properties, MAYBE),
};
SCHEMA(metrics, Metrics);
#undef STRUCT

/* --- processors ------------------------------------------------------------------------------- */

static const char *const registers[] = { "eax", "ebx", "ecx", "edx", NULL };
static const struct field cpuid_register_fields[] = {
	CHECK(WORD, register, MUST, .words = registers), CHECK(TEXT, bitmap, MUST),
};
static const struct schema cpuid_register = { "CpuidRegisterModifier", cpuid_register_fields,
					      ARRAY_SIZE(cpuid_register_fields) };
static const struct field cpuid_fields[] = {
	CHECK(TEXT, leaf, MUST), CHECK(TEXT, subleaf, MUST),
	CHECK(NUMBER, flags, MUST, .max = U32_MAX),
	CHECK(OBJECTS, modifiers, MUST, .object = &cpuid_register),
};
static const struct schema cpuid_leaf = { "CpuidLeafModifier", cpuid_fields,
					  ARRAY_SIZE(cpuid_fields) };
static const struct field msr_fields[] = { CHECK(TEXT, addr, MUST), CHECK(TEXT, bitmap, MUST) };
static const struct schema msr = { "MsrModifier", msr_fields, ARRAY_SIZE(msr_fields) };
static const struct schema arm_register = { "ArmRegisterModifier", msr_fields,
					    ARRAY_SIZE(msr_fields) };
static const struct field feature_fields[] = {
	CHECK(NUMBER, index, MUST, .max = U32_MAX), CHECK(TEXT, bitmap, MUST),
};
static const struct schema feature = { "VcpuFeatures", feature_fields,
				       ARRAY_SIZE(feature_fields) };

#define STRUCT api_cpu_config
static const struct field cpu_config_fields[] = {
	IN(TEXTS, kvm_capabilities, MAYBE), IN(OBJECTS, cpuid_modifiers, MAYBE, .object = &cpuid_leaf),
	IN(OBJECTS, msr_modifiers, MAYBE, .object = &msr),
	IN(OBJECTS, reg_modifiers, MAYBE, .object = &arm_register),
	IN(OBJECTS, vcpu_features, MAYBE, .object = &feature),
};
SCHEMA(cpu_config, CpuConfig);
#undef STRUCT

/* --- what no device is there for -------------------------------------------------------------- */

static const struct field balloon_fields[] = {
	CHECK(NUMBER, amount_mib, MUST, .max = U32_MAX), CHECK(BOOL, deflate_on_oom, MUST),
	CHECK(NUMBER, stats_polling_interval_s, .max = 65535), CHECK(BOOL, free_page_hinting),
	CHECK(BOOL, free_page_reporting),
};
SCHEMA(balloon, Balloon);
static const struct field balloon_patch_fields[] = {
	CHECK(NUMBER, amount_mib, MUST, .max = U32_MAX),
};
SCHEMA(balloon_patch, BalloonUpdate);
static const struct field balloon_stats_fields[] = {
	CHECK(NUMBER, stats_polling_interval_s, MUST, .max = 65535),
};
SCHEMA(balloon_stats, BalloonStatsUpdate);
static const struct field balloon_start_fields[] = { CHECK(BOOL, acknowledge_on_stop) };
SCHEMA(balloon_start, BalloonStartCmd);


static const struct field pmem_fields[] = {
	CHECK(TEXT, id, MUST), CHECK(TEXT, path_on_host, MUST), CHECK(BOOL, root_device),
	CHECK(BOOL, read_only), CHECK(OBJECT, rate_limiter, MAYBE, .object = &limiter),
};
SCHEMA(pmem, Pmem);
static const struct field pmem_patch_fields[] = {
	CHECK(TEXT, id, MUST), CHECK(OBJECT, rate_limiter, MAYBE, .object = &limiter),
};
SCHEMA(pmem_patch, PartialPmem);

static const struct field memory_fields[] = {
	CHECK(NUMBER, total_size_mib, MUST, .max = U32_MAX),
	CHECK(NUMBER, slot_size_mib, .min = 128, .max = U32_MAX),
	CHECK(NUMBER, block_size_mib, .min = 2, .max = U32_MAX),
};
SCHEMA(memory, MemoryHotplugConfig);
static const struct field memory_patch_fields[] = {
	CHECK(NUMBER, requested_size_mib, MUST, .max = U32_MAX),
};
SCHEMA(memory_patch, MemoryHotplugSizeUpdate);

static const char *const snapshot_types[] = { "Full", "Diff", NULL };
#define STRUCT api_snapshot_create
static const struct field snapshot_create_fields[] = {
	IN(TEXT, mem_file_path, MUST), IN(TEXT, snapshot_path, MUST),
	IN(WORD, snapshot_type, .words = snapshot_types),
};
SCHEMA(snapshot_create, SnapshotCreateParams);
#undef STRUCT
static const char *const backend_types[] = { "File", "Uffd", NULL };
#define STRUCT api_backend
static const struct field backend_fields[] = {
	IN(WORD, backend_type, MUST, .words = backend_types), IN(TEXT, backend_path, MUST),
};
#undef STRUCT
static const struct schema backend = { "MemoryBackend", backend_fields,
				       ARRAY_SIZE(backend_fields) };
static const struct field net_override_fields[] = {
	CHECK(TEXT, iface_id, MUST), CHECK(TEXT, host_dev_name, MUST),
};
static const struct schema net_override = { "NetworkOverride", net_override_fields,
					    ARRAY_SIZE(net_override_fields) };
#define STRUCT api_vsock_override
static const struct field vsock_override_fields[] = { IN(TEXT, uds_path, MUST) };
#undef STRUCT
static const struct schema vsock_override = { "VsockOverride", vsock_override_fields,
					      ARRAY_SIZE(vsock_override_fields) };
static const char *const load_huge_pages[] = { "Snapshot", "None", "Transparent", "2M", NULL };
#define STRUCT api_snapshot_load
static const struct field snapshot_load_fields[] = {
	IN(TEXT, snapshot_path, MUST), IN(TEXT, mem_file_path, OLD),
	IN(OBJECT, mem_backend, MAYBE, .object = &backend),
	IN(BOOL, enable_diff_snapshots, .deprecated = true), IN(BOOL, track_dirty_pages),
	IN(BOOL, resume_vm), IN(OBJECTS, network_overrides, .object = &net_override),
	IN(OBJECT, vsock_override, MAYBE, .object = &vsock_override), IN(BOOL, clock_realtime),
	IN(WORD, huge_pages, .words = load_huge_pages),
};
SCHEMA(snapshot_load, SnapshotLoadParams);
#undef STRUCT

/* --- a configuration file --------------------------------------------------------------------- */

/* Each is checked as the body of a request: file.c. */
#define SECTION(text, ...) \
	{ .name = text, .kind = FIELD_ANY, .only_checked = true, ##__VA_ARGS__ }
static const struct field file_fields[] = {
	SECTION("machine-config", MAYBE), SECTION("boot-source", MUST), SECTION("drives", MUST),
	SECTION("network-interfaces"), SECTION("cpu-config", MAYBE), SECTION("logger", MAYBE),
	SECTION("metrics", MAYBE), SECTION("vsock", MAYBE), SECTION("balloon", MAYBE),
	SECTION("mmds-config", MAYBE), SECTION("entropy", MAYBE), SECTION("pmem"),
	SECTION("memory-hotplug", MAYBE), SECTION("serial", MAYBE),
};
SCHEMA(file, FullVmConfiguration);

/* --- answers ---------------------------------------------------------------------------------- */

static const char *const instance_states[] = { "Not started", "Running", "Paused", NULL };
#define STRUCT api_instance
static const struct field instance_fields[] = {
	IN(TEXT, app_name, MUST), IN(TEXT, id, MUST),
	IN(WORD, state, MUST, .words = instance_states), IN(TEXT, vmm_version, MUST),
};
SCHEMA(instance, InstanceInfo);
#undef STRUCT
static const struct field version_fields[] = { CHECK(TEXT, firecracker_version, MUST) };
SCHEMA(version, FirecrackerVersion);
const struct schema api_full_schema = { "FullVmConfiguration", NULL, 0 };
static const struct field error_fields[] = { CHECK(TEXT, fault_message, MUST) };
SCHEMA(error, Error);

/* --- our own ---------------------------------------------------------------------------------- */

#define STRUCT api_vm_info
static const char *const states[] = { "not-started", "running", "paused", NULL };
static const struct field vm_info_fields[] = {
	IN(TEXT, name), IN(NUMBER, pid, MUST), IN(WORD, state, MUST, .words = states),
	IN(TEXT, version, MUST), IN(NUMBER, cpus, MUST), IN(NUMBER, memory_bytes, MUST),
	IN(NUMBER, uptime_ms, MUST), IN(TEXT, kernel), IN(TEXT, console, MUST),
};
SCHEMA(vm_info, VmInfo);
#undef STRUCT

#define STRUCT api_stats
static const struct field stats_fields[] = {
	IN(TEXT, name), IN(NUMBER, pid, MUST), IN(WORD, state, MUST, .words = states),
	IN(NUMBER, time_ns, MUST), IN(NUMBER, cpu_ns, MUST), IN(NUMBER, memory_bytes, MUST),
	IN(NUMBER, resident_bytes, MUST), IN(NUMBER, exits, MUST), IN(NUMBER, halts, MUST),
	IN(NUMBER, steal_ns, MUST), IN(NUMBER, disk_read_bytes, MUST),
	IN(NUMBER, disk_write_bytes, MUST), IN(NUMBER, disk_reads, MUST),
	IN(NUMBER, disk_writes, MUST), IN(NUMBER, disk_errors, MUST),
	IN(NUMBER, net_rx_bytes, MUST), IN(NUMBER, net_tx_bytes, MUST),
	IN(NUMBER, guest_errors, MUST),
};
SCHEMA(stats, VmStats);
#undef STRUCT

#define STRUCT api_disk_info
static const struct field disk_info_fields[] = {
	IN(TEXT, disk, MUST), IN(TEXT, path, MUST), IN(TEXT, format, MUST), IN(NUMBER, size, MUST),
	IN(BOOL, read_only, MUST), IN(BOOL, root, MUST),
};
SCHEMA(disk_info, DiskInfo);
#undef STRUCT

#define STRUCT api_disk_list
static const struct field disk_list_fields[] = {
	IN(OBJECTS, disks, MUST, .object = &api_disk_info_schema),
};
SCHEMA(disk_list, DiskList);
#undef STRUCT

#define STRUCT api_snapshot_request
static const struct field snapshot_fields[] = { IN(TEXT, name, MUST) };
SCHEMA(snapshot, DiskSnapshot);
#undef STRUCT

#define STRUCT api_save_request
static const struct field save_fields[] = {
	IN(TEXT, directory, MUST), IN(WORD, type, .words = snapshot_types),
};
SCHEMA(save, VmSnapshot);
#undef STRUCT

#define STRUCT api_directory_request
static const struct field directory_fields[] = { IN(TEXT, directory, MUST) };
SCHEMA(directory, SnapshotDirectory);
#undef STRUCT

#define STRUCT api_link_request
static const char *const links[] = { "down", "up", NULL };
static const struct field link_fields[] = { IN(WORD, link, MUST, .words = links) };
SCHEMA(link, NetLink);
#undef STRUCT

#define STRUCT api_size_request
static const struct field size_fields[] = { IN(NUMBER, size, MUST, .min = 1) };
SCHEMA(size, DiskSize);
#undef STRUCT
