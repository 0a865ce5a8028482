/* snapshot.c: saving a VM and starting one from what was saved. */
#include <errno.h>
#include "vmm/api/route.h"

int api_put_snapshot_create(struct api *a, struct call *call)
{
	struct api_snapshot_create r = { 0 };
	bool diff;
	u64 start;
	int rc;

	api_take(call, &r);
	if (!a->vm->ops->save)
		return api_cannot(call, "saved");
	if (a->vm->ops->state(a->vm) != API_PAUSED)
		return err_set(&call->err, -EBUSY, "only a paused microVM can be saved: PATCH /vm first");
	diff = r.snapshot_type == API_SNAPSHOT_DIFF;
	start = now_ns();
	rc = a->vm->ops->save(a->vm, r.snapshot_path, r.mem_file_path, diff, &call->err);
	if (!rc)
		api_time(a, diff ? API_SAVE_DIFF : API_SAVE_FULL, start);
	return rc;
}

int api_put_snapshot_load(struct api *a, struct call *call)
{
	struct api_snapshot_load r = { 0 };
	bool paged;
	u64 start = now_ns();
	int rc;

	api_take(call, &r);
	paged = r.mem_backend.given && r.mem_backend.backend_type == API_BACKEND_UFFD;
	if (!a->vm->ops->load)
		return api_cannot(call, "loaded");
	if (!r.mem_file_path == !r.mem_backend.given)
		return err_set(&call->err, -EINVAL, "either mem_file_path or mem_backend says where the "
			       "memory is");
	if (r.clock_realtime ||
	    (r.huge_pages != API_LOAD_HUGE_SNAPSHOT && r.huge_pages != API_LOAD_HUGE_NONE))
		return err_set(&call->err, -ENOTSUP, "this version of vmm does not have %s for a loaded "
			       "snapshot", r.clock_realtime ? "a clock that catches up" : "huge pages");
	if (a->configured)
		return err_set(&call->err, -EBUSY, "a snapshot cannot be loaded after the microVM was "
			       "configured");
	rc = a->vm->ops->load(a->vm, &(struct api_load){
		.state = r.snapshot_path, .pager = paged ? r.mem_backend.backend_path : NULL,
		.memory = paged ? NULL : r.mem_file_path ?: r.mem_backend.backend_path,
		.track_dirty_pages = r.track_dirty_pages || r.enable_diff_snapshots,
		.resume = r.resume_vm, .taps = r.network_overrides,
		.vsock = r.vsock_override.given ? r.vsock_override.uds_path : NULL,
	}, &call->err);
	if (!rc)
		api_time(a, API_LOAD, start);
	return rc;
}

int api_own_save(struct api *a, struct call *call)
{
	struct api_save_request r = { 0 };

	api_take(call, &r);
	return a->vm->ops->save_directory ?
		a->vm->ops->save_directory(a->vm, r.directory, r.type == API_SNAPSHOT_DIFF,
					   &call->err) : api_cannot(call, "saved");
}

int api_own_working_set(struct api *a, struct call *call)
{
	struct api_directory_request r = { 0 };

	api_take(call, &r);
	return a->vm->ops->save_working_set ?
		a->vm->ops->save_working_set(a->vm, r.directory, &call->err) : api_cannot(call, "saved");
}
