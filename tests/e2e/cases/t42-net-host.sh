# Networks of the host, with Debian's kernel as the guest: nat, hostonly, bridge. What needs no guest is in tests/net.
# shellcheck shell=bash

# A namespace, $1 its name, held by a process, so that nothing of it is anywhere in the file tree.
declare -A namespace=()
new_namespace()
{
	unshare -n sleep 1000 {tap}>&- &
	namespace[$1]=$!
	until [[ $(readlink "/proc/$!/ns/net") != "$(readlink /proc/self/ns/net)" ]]; do kill -0 $!; done
	within "$1" ip link set lo up
}
within() { nsenter -t "${namespace[$1]}" -n -- "${@:2}"; }

# Beyond the host.
internet()
{
	new_namespace inet
	ip link add vmmtest0 type veth peer name eth0 netns "${namespace[inet]}"
	ip addr add 198.51.100.2/24 dev vmmtest0
	ip addr add 2001:db8:1::2/64 dev vmmtest0 nodad
	ip link set vmmtest0 up
	within inet ip addr add 198.51.100.1/24 dev eth0
	within inet ip addr add 2001:db8:1::1/64 dev eth0 nodad
	within inet ip link set eth0 up
	within inet ip addr add 203.0.113.5/32 dev lo
	within inet ip addr add 2001:db8:2::5/128 dev lo
	ip route add default via 198.51.100.1
	ip -6 route add default via 2001:db8:1::1
}
pings_seen() { within inet awk '$1 == "Icmp:" && !n { for (n = 1; $n != "InEchos"; n++); next } $1 == "Icmp:" { print $n }' /proc/net/snmp; }
dropped() { nft list table inet "vmm-$1" | awk '/counter/ { for (i = 1; i < NF; i++) if ($i == "packets") n += $(i + 1) } END { print n }'; }

host_network() # ARG...: vmm net
{
	VMM_RUNTIME_DIR=$T/run "$VMM" net "$@"
}
# What a VM that was killed has left to look after them looks once, and makes a directory for that.
nothing_left()
{
	local left
	timeout 100 bash -c 'while pgrep -x --ns $$ --nslist net vmm-net >/dev/null; do sleep 0.1; done' || fail 'what cleans up does not end'
	host_network list >/dev/null
	left=$(ip -br link | grep -E '^vmm(-|[0-9])' || true
		nft list tables | grep vmm || true
		pgrep -af "dnsmasq.*$T/run" || true
		find "$T/run/net" -mindepth 1 ! -name lock)
	[[ ! $left ]] || fail "left behind: $left"
	# What this case needed goes, too.
	ip link del vmmtest0 2>/dev/null || true
	for ns in "${namespace[@]}"; do kill -KILL "$ns"; done
	namespace=()
}

# For a guest: a lease, and the address in $ip; $gateway, if there is one.
host_lease='
	cat >/tmp/dhcp <<-"END"
	#!/bin/sh
	[ $1 = bound ] || exit 0
	ip addr add $ip/$mask dev $interface
	[ -z "$router" ] || ip route add default via $router
	echo "ip=$ip gateway=$router dns=$dns" >/tmp/lease
	END
	chmod +x /tmp/dhcp; ip link set eth0 up
	udhcpc -i eth0 -n -q -t 20 -T 1 -x hostname:guest -s /tmp/dhcp && cat /tmp/lease; . /tmp/lease'

case_host_nat()
{
	export VMM_RUNTIME_DIR=$T/run
	internet
	vm_start "${boot[@]}" --name web --net nat,vhost=auto,mac=02:00:00:12:34:56 --append "$(run "$host_lease"'
		nslookup -type=a guest.vmm.internal $dns | grep -A1 "^Name:" | grep "^Address: $ip$"
		ping -c 2 -W 5 203.0.113.5 | grep received
		until ip addr show dev eth0 | grep "inet6 fd" | grep -qv tentative; do usleep 50000; done
		ping -6 -c 2 -W 5 2001:db8:2::5 | grep received
		echo up; read go')"
	vm_expect 100 '^up$'
	says '^ip=192.168.[0-9]*.[0-9]* gateway=192.168.[0-9]*.1 dns=192.168.[0-9]*.1$'
	says '^Address: 192.168'
	(($(grep -c '^2 packets transmitted, 2 packets received' "$T/out") == 2)) || fail 'it does not get out'
	[[ ! -e /dev/vhost-net ]] || "$VMM" ctl web metrics | grep 'net_vhost_pairs.* 1$' || fail 'vhost-net is not used'
	host_network show default >"$T/show"
	cat "$T/show"
	grep -qE "^vmm$vm_pid-0 +web +02:00:00:12:34:56 +- +[0-9]+s .*192\.168\." "$T/show" || fail 'the MAC table'
	grep -qE '^192\.168\.[0-9.]+ +guest +02:00:00:12:34:56 ' "$T/show" || fail 'the lease'
	! host_network delete default 2>"$T/delete" || fail 'deleted under a VM'
	grep -q "in use by VM 'web', process $vm_pid" "$T/delete" || fail "delete: $(<"$T/delete")"
	vm_send go
	vm_end 100 0
	nothing_left
}

# Two VMs on a network with no way out.
case_host_only()
{
	local two ip before
	export VMM_RUNTIME_DIR=$T/run
	internet
	echo 1 >/proc/sys/net/ipv4/ip_forward # which is not what keeps it in
	host_network create h --type hostonly
	"$VMM" "${boot[@]}" --name two --net hostonly=h --serial "file:$T/two" --append "$(run "$host_lease"'
		echo up; while :; do sleep 1000; done')" 2>"$T/two.err" {tap}>&- &
	two=$!
	vm_start "${boot[@]}" --cpus 2 --name one --net hostonly=h,queues=2 --append "$(run "$host_lease"'
		echo pairs $(ls -d /sys/class/net/eth0/queues/tx-* | wc -l)
		echo up; read other
		ping -c 2 -W 5 $other | grep received
		ip route add default via $dns; echo routed; read go
		ping -c 1 -W 1 203.0.113.5 | grep received
		ping -c 1 -W 1 198.51.100.2 | grep received
		nslookup www.example $dns; echo done')"
	vm_expect 100 '^up$'
	says '^ip=[0-9.]* gateway= dns=[0-9.]*$'
	until grep -aq '^up' "$T/two"; do kill -0 $two; read -r -t 0.1 <> <(:) || true; done
	ip=$(sed -n 's/^ip=\([0-9.]*\) .*/\1/p' "$T/two")
	vm_send "$ip"
	vm_expect 100 '^routed$'
	before=$(dropped h)
	vm_send go
	vm_expect 100 '^done'
	says '^pairs 2$'
	says '^2 packets transmitted, 2 packets received'
	(($(grep -c '^1 packets transmitted, 0 packets received' "$T/out") == 2)) || fail 'it gets out'
	(($(dropped h) >= before + 2)) || fail "$(dropped h) packets dropped, $before before"
	[[ $(pings_seen) = 0 ]] || fail 'the internet saw it'
	vm_end 100 0
	host_network list | grep -E '^h +hostonly .* 1 +deleted$' || fail 'one VM should be left'
	kill -KILL $two
	wait $two || true
	host_network delete h
	echo 0 >/proc/sys/net/ipv4/ip_forward
	nothing_left
}

# Frames of the VM that come there.
count_vm() { within "$1" nft 'table netdev t { chain c { type filter hook ingress device eth0 priority 0; ether saddr 02:00:00:12:34:56 counter; }; }'; }
counted() { within "$1" nft list table netdev t | sed -n 's/.*packets \([0-9]*\).*/\1/p'; }

# A VM in VLAN 100: what is there reaches it, what is in VLAN 200 does not, a trunk does by its tags.
case_host_vlan()
{
	local name vlan
	export VMM_RUNTIME_DIR=$T/run
	ip link add vmmtest1 type bridge vlan_filtering 1
	ip link set vmmtest1 up
	for name in same other trunk; do
		new_namespace $name
		ip link add "vmm$name" type veth peer name eth0 netns "${namespace[$name]}"
		ip link set "vmm$name" master vmmtest1 up
		within $name ip link set eth0 up
		bridge vlan del dev "vmm$name" vid 1
		count_vm $name
	done
	bridge vlan add dev vmmsame vid 100 pvid untagged
	bridge vlan add dev vmmother vid 200 pvid untagged
	bridge vlan add dev vmmtrunk vid 100
	bridge vlan add dev vmmtrunk vid 200
	within same ip addr add 10.9.0.1/24 dev eth0
	within other ip addr add 10.9.0.3/24 dev eth0
	for vlan in 100 200; do
		within trunk ip link add link eth0 name "v$vlan" type vlan id $vlan
		within trunk ip addr add "10.9.0.$((vlan / 100 + 3))/24" dev "v$vlan"
		within trunk ip link set "v$vlan" up
	done
	vm_start "${boot[@]}" --net bridge=vmmtest1,vlan=100,mac=02:00:00:12:34:56 --append "$(run 'ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up
		echo up; read go; ping -c 1 -W 1 10.9.0.3 | grep received; ip neigh show 10.9.0.3')"
	vm_expect 100 '^up$'
	within same ping -c 2 -w 20 -q 10.9.0.2 || fail 'the same VLAN'
	within trunk ping -c 2 -w 20 -q -I v100 10.9.0.2 || fail 'a trunk'
	! within trunk ping -c 1 -W 1 -q -I v200 10.9.0.2 || fail "a trunk's other VLAN"
	! within other ping -c 1 -W 1 -q 10.9.0.2 || fail 'another VLAN'
	host_network show vmmtest1 >"$T/show"
	cat "$T/show"
	grep -qE "^vmm$vm_pid-0 +[^ ]+ +02:00:00:12:34:56 +100 " "$T/show" || fail 'the MAC table'
	vm_send go
	vm_end 100 0
	says '^1 packets transmitted, 0 packets received'
	# What it asked of all was heard in its VLAN, and not in another.
	[[ $(counted same) -ge 2 && $(counted trunk) -ge 2 && $(counted other) = 0 ]] ||
		fail "frames that came: $(counted same) to the same, $(counted trunk) to the trunk, $(counted other) to another VLAN"
	ip link del vmmtest1
	for name in same other trunk; do ip link del "vmm$name"; done
	mkdir -p "$T/run/net"
	nothing_left
}

# After SIGKILL the next command finds, and leaves, nothing.
case_host_killed()
{
	export VMM_RUNTIME_DIR=$T/run
	vm_start "${boot[@]}" --net nat --net hostonly --append "$(run 'ip link set eth0 up; ip link set eth1 up; echo up; read go')"
	vm_expect 100 '^up$'
	host_network list | grep -E '^default .* 1 +its last VM ends' || fail 'no network'
	kill -KILL "$vm_pid"
	vm_end 100 137
	nothing_left
}
