# A stock kernel by the API, and as Firecracker's clients start it.
# shellcheck shell=bash

put() { "$VMM" ctl "$T/sock" put "$1" "$2" || fail "PUT $1: status $?"; }
patch() { "$VMM" ctl "$T/sock" patch "$1" "$2" || fail "PATCH $1: status $?"; }

# shellcheck disable=SC2016 # the guest expands it
look='echo cmdline $(cat /proc/cmdline); for d in vda vdb; do echo $d: $(cat /sys/block/$d/serial) $(cat /sys/block/$d/size) ro $(cat /sys/block/$d/ro) $(cat /sys/block/$d/queue/write_cache); done'

case_api()
{
	local args n
	truncate -s 1M "$T/a"
	: >"$T/b"
	truncate -s 3M "$T/c"
	vm_start --api-sock "$T/sock"
	err_expect 60 'waiting on'
	args="console=ttyS0 quiet $(run "$look; echo ready; while read x; do echo size \$(cat /sys/block/vdb/size); done")"
	put /machine-config '{"vcpu_count": 2, "mem_size_mib": 256}'
	put /boot-source "{\"kernel_image_path\": \"$K61C/vmlinuz\", \"initrd_path\": \"$K61C/initrd\", \"boot_args\": \"$args\"}"
	put /drives/later "{\"drive_id\": \"later\", \"path_on_host\": \"$T/b\", \"is_root_device\": false}"
	put /drives/sys "{\"drive_id\": \"sys\", \"path_on_host\": \"$T/a\", \"is_root_device\": true, \"is_read_only\": true, \"cache_type\": \"Writeback\"}"
	put /actions '{"action_type": "InstanceStart"}'
	vm_expect 100 '^ready$'
	says '^cmdline .* root=/dev/vda ro$'
	says '^vda: sys 2048 ro 1 write back$'
	says '^vdb: later 0 ro 0 write through$'
	patch /drives/later "{\"drive_id\": \"later\", \"path_on_host\": \"$T/c\"}"
	patch /vm '{"state": "Paused"}'
	patch /vm '{"state": "Resumed"}'
	for ((n = 0; n < 100; n++)); do # until the driver has heard of it
		vm_send size
		vm_expect 100 '^size [0-9]+$'
		[[ $(tail -n 1 "$T/out") != 'size 6144' ]] || break
	done
	says '^size 6144$'
	put /actions '{"action_type": "SendCtrlAltDel"}'
	vm_end 100 0
	says 'initrd: power button'
}

# tests/guest/api's of control groups, which a host without those of version 2 leaves out.
case_limits()
{
	local groups='mount -t cgroup2 none /sys/fs/cgroup && grep -q "cpu.*memory" /sys/fs/cgroup/cgroup.controllers'
	if ! unshare -m sh -c "$groups"; then
		[[ $LAB != lab ]] || fail 'no control groups in the lab'
		skip 'no control groups of version 2 with controllers here'
	fi
	PAYLOADS=${VMM%/*}/guest unshare -m sh -c "$groups && exec \"\$@\"" sh \
		"$here/../guest/api" limits jailer_cgroup >"$T/out" 2>&1 || fail 'not all passed'
	says '^2 passed, 0 failed, 0 skipped'
}

case_firecracker()
{
	truncate -s 1M "$T/a"
	cat >"$T/config.json" <<-END
		{
		  "boot-source": {
		    "kernel_image_path": "$K61C/vmlinuz", "initrd_path": "$K61C/initrd",
		    "boot_args": "console=ttyS0 reboot=k panic=1 quiet $(run 'cat /proc/cmdline; ls /sys/bus/virtio/devices/virtio0/..; reboot -f')"
		  },
		  "drives": [ { "drive_id": "rootfs", "path_on_host": "$T/a", "is_root_device": true, "partuuid": "0eaa91a0-01" } ],
		  "machine-config": { "vcpu_count": 1, "mem_size_mib": 256 }
		}
	END
	vm 100 0 firecracker --no-api --id e2e-1 --config-file "$T/config.json" # a reboot is the end
	says ' root=PARTUUID=0eaa91a0-01 rw$'
	says '^LNRO0005|virtio0'
}
