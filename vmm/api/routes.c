/* routes.c: every request there is. */
#include "vmm/api/route.h"

#define BALLOON	"a balloon device"
#define MMDS	"a metadata service"
#define PMEM	"a pmem device"
#define MEMORY	"memory that can be plugged in"
#define SNAPSHOT "snapshots of a whole VM"
#define PLUG	"devices that can be unplugged"

const struct route api_routes[] = {
	/* Firecracker's: src/firecracker/swagger/firecracker.yaml of its repository, and DELETE. */
	{ "GET", "/", ANY_TIME, .handle = api_get_instance, .answer = &api_instance_schema,
	  .metric = "instance_info" },
	{ "GET", "/version", ANY_TIME, .handle = api_get_version, .answer = &api_version_schema,
	  .metric = "vmm_version" },
	{ "PATCH", "/vm", AFTER_START, &api_vm_schema, .handle = api_patch_vm },
	{ "GET", "/vm/config", ANY_TIME, .handle = api_get_config, .answer = &api_full_schema },
	{ "PUT", "/actions", ANY_TIME, &api_action_schema, .handle = api_put_action,
	  .metric = "actions" },
	{ "GET", "/machine-config", ANY_TIME, .handle = api_get_machine,
	  .answer = &api_machine_schema, .metric = "machine_cfg" },
	{ "PUT", "/machine-config", BEFORE_START, &api_machine_schema, .handle = api_put_machine,
	  .metric = "machine_cfg" },
	{ "PATCH", "/machine-config", BEFORE_START, &api_machine_patch_schema,
	  .handle = api_patch_machine, .metric = "machine_cfg" },
	{ "PUT", "/boot-source", BEFORE_START, &api_boot_source_schema,
	  .handle = api_put_boot_source, .metric = "boot_source" },
	{ "PUT", "/cpu-config", BEFORE_START, &api_cpu_config_schema, .handle = api_put_cpu_config,
	  .metric = "cpu_cfg" },
	{ "PUT", "/drives/{drive_id}", ANY_TIME, &api_drive_schema, .id = "drive_id",
	  .handle = api_put_drive, .metric = "drive" },
	{ "PATCH", "/drives/{drive_id}", AFTER_START, &api_drive_patch_schema, .id = "drive_id",
	  .handle = api_patch_drive, .metric = "drive" },
	{ "DELETE", "/drives/{drive_id}", AFTER_START, .lacks = PLUG },
	{ "PUT", "/network-interfaces/{iface_id}", ANY_TIME, &api_net_schema, .id = "iface_id",
	  .handle = api_put_net, .metric = "network" },
	{ "PATCH", "/network-interfaces/{iface_id}", AFTER_START, &api_net_patch_schema,
	  .id = "iface_id", .handle = api_patch_net, .metric = "network" },
	{ "DELETE", "/network-interfaces/{iface_id}", AFTER_START, .lacks = PLUG },
	{ "PUT", "/logger", BEFORE_START, &api_logger_schema, .handle = api_put_logger,
	  .metric = "logger" },
	{ "PUT", "/metrics", BEFORE_START, &api_metrics_schema, .handle = api_put_metrics,
	  .metric = "metrics" },
	{ "PUT", "/serial", BEFORE_START, &api_serial_schema, .handle = api_put_serial,
	  .metric = "serial" },
	{ "PUT", "/entropy", BEFORE_START, &api_entropy_schema, .handle = api_put_entropy },
	{ "GET", "/balloon", ANY_TIME, .lacks = BALLOON },
	{ "PUT", "/balloon", BEFORE_START, &api_balloon_schema, .lacks = BALLOON },
	{ "PATCH", "/balloon", AFTER_START, &api_balloon_patch_schema, .lacks = BALLOON },
	{ "GET", "/balloon/statistics", AFTER_START, .lacks = BALLOON },
	{ "PATCH", "/balloon/statistics", AFTER_START, &api_balloon_stats_schema, .lacks = BALLOON },
	{ "PATCH", "/balloon/hinting/start", AFTER_START, &api_balloon_start_schema,
	  .body_optional = true, .lacks = BALLOON },
	{ "GET", "/balloon/hinting/status", AFTER_START, .lacks = BALLOON },
	{ "PATCH", "/balloon/hinting/stop", AFTER_START, .lacks = BALLOON },
	{ "PUT", "/vsock", BEFORE_START, &api_vsock_schema, .lacks = "a vsock device",
	  .metric = "vsock" },
	{ "GET", "/mmds", ANY_TIME, .lacks = MMDS, .metric = "mmds" },
	{ "PUT", "/mmds", ANY_TIME, &api_mmds_schema, .lacks = MMDS, .metric = "mmds" },
	{ "PATCH", "/mmds", ANY_TIME, &api_mmds_schema, .lacks = MMDS, .metric = "mmds" },
	{ "PUT", "/mmds/config", BEFORE_START, &api_mmds_config_schema, .lacks = MMDS,
	  .metric = "mmds" },
	{ "PUT", "/pmem/{id}", ANY_TIME, &api_pmem_schema, .id = "id", .lacks = PMEM,
	  .metric = "pmem" },
	{ "PATCH", "/pmem/{id}", AFTER_START, &api_pmem_patch_schema, .id = "id", .lacks = PMEM,
	  .metric = "pmem" },
	{ "DELETE", "/pmem/{id}", AFTER_START, .lacks = PMEM },
	{ "GET", "/hotplug/memory", AFTER_START, .lacks = MEMORY, .metric = "hotplug_memory" },
	{ "PUT", "/hotplug/memory", BEFORE_START, &api_memory_schema, .lacks = MEMORY,
	  .metric = "hotplug_memory" },
	{ "PATCH", "/hotplug/memory", AFTER_START, &api_memory_patch_schema, .lacks = MEMORY,
	  .metric = "hotplug_memory" },
	{ "PUT", "/snapshot/create", AFTER_START, &api_snapshot_create_schema, .lacks = SNAPSHOT },
	{ "PUT", "/snapshot/load", BEFORE_START, &api_snapshot_load_schema, .lacks = SNAPSHOT },

	/* Ours: vmm/api/openapi.yaml. */
	{ "GET", "/vmm/v1/vm", ANY_TIME, .handle = api_own_get_vm, .answer = &api_vm_info_schema },
	{ "POST", "/vmm/v1/vm/start", BEFORE_START, .handle = api_own_start },
	{ "POST", "/vmm/v1/vm/pause", AFTER_START, .handle = api_own_pause },
	{ "POST", "/vmm/v1/vm/resume", AFTER_START, .handle = api_own_resume },
	{ "POST", "/vmm/v1/vm/power-button", AFTER_START, .handle = api_own_power_button },
	{ "POST", "/vmm/v1/vm/stop", ANY_TIME, .handle = api_own_stop },
	{ "GET", "/vmm/v1/disks", ANY_TIME, .handle = api_own_get_disks,
	  .answer = &api_disk_list_schema },
	{ "PATCH", "/vmm/v1/disks/{disk}", AFTER_START, &api_size_schema, .handle = api_own_resize },
	{ "POST", "/vmm/v1/disks/{disk}/snapshots", AFTER_START, &api_snapshot_schema,
	  .handle = api_own_snapshot },
};
const unsigned api_nr_routes = ARRAY_SIZE(api_routes);

_Static_assert(ARRAY_SIZE(api_routes) <= API_MAX_ROUTES, "more than metrics count");
