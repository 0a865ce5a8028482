# vhost-net: the host's kernel moves the frames of a tap's card.
# shellcheck shell=bash

served() { # by it: that many pairs of queues
	local n
	n=$("$VMM" ctl card metrics | awk '/^vmm_net_vhost_pairs\{/ { n += $2 } END { print n }')
	[[ $n = "$1" ]] || fail "$2: $n pairs by vhost-net, not $1"
}
# Its threads are named after the one of vmm's that asked for them, whose they are since Linux 6.4; how much processor
# time they took.
ticks()
{
	local task pid stat sum=0
	for task in /proc/"$vm_pid"/task/*; do
		for pid in $(pgrep -x "vhost-${task##*/}") $(grep -qs ^vhost- "$task/comm" && echo "${task##*/}"); do
			stat=$(cat "/proc/$pid/stat")
			read -ra stat <<<"${stat##*) }"
			sum=$((sum + stat[12]))
		done
	done
	echo $sum
}

# Two pairs of queues; what a pause, a pulled cable, a limit and a reboot take away comes back. An interrupt goes to
# another processor with the first that comes after it was told to.
case_net_vhost()
{
	local sum n
	export VMM_RUNTIME_DIR=$T/run
	mkdir "$T/run"
	modprobe vhost_net || skip 'this host has no vhost-net'
	random "$T/there" 8M
	for n in 1 2; do socat -u "OPEN:$T/there" TCP-LISTEN:500$n,reuseaddr & done
	socat -u TCP-LISTEN:5003,reuseaddr "CREATE:$T/back" &
	n=$!
	ip tuntap add dev vmmtest4 mode tap vnet_hdr multi_queue
	ip addr replace 10.9.0.1/24 dev vmmtest4
	ip link set vmmtest4 up
	vm_start "${boot[@]}" --cpus 2 --name card --net tap=vmmtest4,queues=2,vhost=on --append "$(run '
		ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up
		echo up; read go
		for d in /proc/irq/*/virtio0-*put*; do echo 2 >${d%/*}/smp_affinity; done # masks them for a moment
		at=
		until [ "$at" = "2 2 2 2" ]; do
			for i in 1 2; do taskset $i ping -c 1 -W 5 -s 1400 10.9.0.1; done
			at=$(echo $(cat /proc/irq/*/virtio0-*put*/../effective_affinity))
		done
		echo at $at
		[ $go = off ] || {
			echo moving
			nc 10.9.0.1 5001 </dev/null >/tmp/a & nc 10.9.0.1 5002 </dev/null >/tmp/b; wait
			nc 10.9.0.1 5003 </tmp/a
			for f in a b; do echo sum $(md5sum </tmp/$f); done
			echo moved; read go; ping -c 2 -W 5 10.9.0.1; reboot -f
		}')"
	vm_expect 100 '^up$'
	served 2 'at first'
	vm_send go
	vm_expect 100 '^moving$'
	for _ in 1 2 3; do
		"$VMM" ctl card pause || fail "pause: status $?"
		served 0 paused
		"$VMM" ctl card resume || fail "resume: status $?"
		served 2 resumed
	done
	vm_expect 100 '^moved$'
	(($(ticks))) || fail 'the thread of vhost-net did nothing'
	sum=$(md5sum <"$T/there" | cut -d ' ' -f 1)
	[[ $(grep -ac "^sum $sum " "$T/out") = 2 ]] || fail 'what came is not what was sent'
	wait $n
	cmp "$T/there" "$T/back" || fail 'what came back is not what was sent'
	"$VMM" ctl card link net0 down || fail "link down: status $?"
	served 0 'without a cable'
	"$VMM" ctl card link net0 up || fail "link up: status $?"
	served 2 'with a cable'
	"$VMM" ctl card patch /network-interfaces/net0 \
		'{"iface_id":"net0","rx_rate_limiter":{"ops":{"size":1000,"refill_time":1000}}}' || fail "limit: status $?"
	served 0 limited
	ping -c 1 -W 5 -q 10.9.0.2 | grep ' 0% packet loss' || fail 'ping from the host, limited'
	"$VMM" ctl card patch /network-interfaces/net0 \
		'{"iface_id":"net0","rx_rate_limiter":{"ops":{"size":0,"refill_time":0}}}' || fail "no limit: status $?"
	served 2 'no longer limited'
	vm_send go
	vm_expect 100 '^up$'
	says '^2 packets transmitted, 2 packets received'
	says '^at 2 2 2 2$'
	served 2 'after a reboot'
	vm_send off
	vm_end 100 0
	[[ $(grep -ac '^1 packets transmitted, 1 packets received' "$T/out") -ge 4 ]] || fail 'ping'
	if grep -a '^1 packets transmitted, 0' "$T/out"; then fail 'a ping was lost'; fi
	ip link del vmmtest4
}

case_net_vhost_messages()
{
	local kernel=(--kernel "$K61C/vmlinuz" --initrd none) node
	ip tuntap add dev vmmtest6 mode tap vnet_hdr
	mkdir -p "$T/dev/net"
	for node in kvm net/tun; do touch "$T/dev/$node"; done
	cat >"$T/vmm" <<-END
		#!/bin/bash
		exec unshare -m bash -c 'for node in kvm net/tun; do mount --bind /dev/\$node $T/dev/\$node; done
			mount --rbind $T/dev /dev; exec "\$@"' bash $VMM "\$@"
	END
	chmod +x "$T/vmm"
	VMM=$T/vmm
	refuses 2 "vhost=on: /dev/vhost-net: .*load the module with 'modprobe vhost_net'" "${kernel[@]}" --net tap=vmmtest6,vhost=on
	ip link del vmmtest6
}

# tests/guest/running's, whose ways by vhost-net a host without it takes without it.
case_net_vhost_gone()
{
	modprobe vhost_net || skip 'this host has no vhost-net'
	PAYLOADS=${VMM%/*}/guest "$here/../guest/running" tap_gone >"$T/out" 2>&1 || fail 'not all passed'
	says '^1 passed, 0 failed, 0 skipped'
}

# What the host's kernel wrote to the guest's memory is in a diff: nobody has read it yet when it is saved.
case_net_vhost_saved()
{
	local sum
	export VMM_RUNTIME_DIR=$T/run
	mkdir "$T/run"
	modprobe vhost_net || skip 'this host has no vhost-net'
	random "$T/there" 1M
	socat -u "OPEN:$T/there" TCP-LISTEN:5001,reuseaddr &
	ip tuntap add dev vmmtest5 mode tap vnet_hdr
	ip addr replace 10.9.0.1/24 dev vmmtest5
	ip link set vmmtest5 up
	vm_start "${boot[@]}" --transport mmio --track-dirty-pages --name card --net tap=vmmtest5,vhost=on --append "$(run '
		ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up
		mkfifo /p; ping -c 2 -W 5 10.9.0.1; echo up; read go
		nc 10.9.0.1 5001 </dev/null >/p & exec 3</p
		until awk "\$3 ~ /:1389\$/ { split(\$5, q, \":\"); full = q[2] > \"00008000\" } END { exit !full }" /proc/net/tcp
		do usleep 10000; done
		echo full; read go
		echo sum $(md5sum <&3)')"
	vm_expect 100 '^up$'
	says '^2 packets transmitted, 2 packets received'
	"$VMM" ctl card save "$T/one" || fail "save: status $?"
	served 1 'after it was saved'
	vm_send go
	vm_expect 100 '^full$'
	"$VMM" ctl card save-diff "$T/two" || fail "save-diff: status $?"
	kill -KILL "$vm_pid"
	vm_end 100 137
	"$VMM" snapshot merge "$T/one" "$T/two" "$T/whole" || fail "merge: status $?"
	vm_start restore "$T/whole" --name card
	vm_send go
	vm_expect 100 '^sum '
	vm_end 100 0
	sum=$(md5sum <"$T/there" | cut -d ' ' -f 1)
	says "^sum $sum "
	ip link del vmmtest5
}
