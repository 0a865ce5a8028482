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
# shellcheck disable=SC2016 # the guest expands it
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
	net_disk
	streams_wait 1 "${namespace[inet]}"
	vm_start "${boot[@]}" --name web --disk "$disk,readonly" --net nat,vhost=auto,mac=02:00:00:12:34:56 \
		--append "$(run "$host_lease; $use_net"'
		nslookup -type=a guest.vmm.internal $dns | grep -A1 "^Name:" | grep "^Address: $ip$"
		ping -c 2 -W 5 203.0.113.5 | grep received
		echo six $(six); ping -6 -c 2 -W 5 2001:db8:2::5 | grep received
		streams 1 203.0.113.5 2001:db8:2::5; speed 1 203.0.113.5
		echo published | nc -l -p 80 & until grep -q ":0050 .* 0A " /proc/net/tcp*; do usleep 10000; done
		echo up; read go')"
	vm_expect 100 '^six'
	echo '#+ the guest is on the network' >&"$tap"
	vm_expect 100 '^put 1$'
	vm_expect 100 '^up$'
	[[ $(socat -t 100 - "TCP:$(sed -n 's/^ip=\([0-9.]*\) .*/\1/p' "$T/out"):80" </dev/null) = published ]] || fail 'its port'
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
	streams_were_right 1
	speed_was_measured
	nothing_left
}

two_says()
{
	grep -aq -m 1 "^$1" < <(exec timeout 100 tail -n +1 -f --pid="$two" "$T/two") ||
		fail "the second guest did not say '$1', but '$(tail -n 3 "$T/two" | tr -d '\r\000')'"
}

# Two VMs on a network with no way out, and large frames.
case_host_only()
{
	local two ip six before i
	export VMM_RUNTIME_DIR=$T/run
	internet
	net_disk
	# Whatever comes out there that is not the host's own.
	within inet nft 'table netdev t { chain c { type filter hook ingress device eth0 priority 0;
		ip saddr != 198.51.100.2 counter; ip6 saddr != { ::, 2001:db8:1::2, fe80::/10 } counter; }; }'
	# Neither of these is what keeps it in.
	for i in ipv4 ipv6; do echo 1 >/proc/sys/net/$i/conf/all/forwarding; done
	host_network create h --type hostonly --mtu 9000
	"$VMM" "${boot[@]}" --name two --disk "$disk,readonly" --net hostonly=h --serial "file:$T/two" \
		--append "$(run "$host_lease; $use_net"'
		for i in 1 2 3 4 5 6 7 8; do
			head -c 524288 /dev/urandom >/tmp/f$i
			nc -l -p 510$i </tmp/f$i & nc -l -p 511$i <>/tmp/open >/tmp/b$i &
			ends="$ends $!"
		done
		iperf3 -s -p 4001 >/tmp/served &
		until [ $(grep -c " 0A " /proc/net/tcp6) = 17 ]; do usleep 10000; done
		echo six $(six); echo up
		wait $ends
		for i in 1 2 3 4 5 6 7 8; do echo sum 1$i $(md5sum </tmp/f$i); cmp /tmp/f$i /tmp/b$i; done
		echo compared; while :; do sleep 1000; done')" 2>"$T/two.err" {tap}>&- &
	two=$!
	vm_start "${boot[@]}" --cpus 2 --name one --disk "$disk,readonly" --net "hostonly=h,queues=2,dump=$T/pcap" \
		--append "$(run "$host_lease; $use_net"'
		echo pairs $(ls -d /sys/class/net/eth0/queues/tx-* | wc -l) mtu $(cat /sys/class/net/eth0/mtu)
		six; echo up; read ip six router
		ping -c 2 -W 5 -s 8900 $ip | grep received
		streams 1 $ip $six; speed 1 $ip
		ip route add default via $dns; ip -6 route add default via $router dev eth0; echo routed; read go
		ping -c 1 -W 1 203.0.113.5 | grep received
		ping -c 1 -W 1 198.51.100.2 | grep received
		ping -c 1 -W 1 2001:db8:2::5 | grep received
		nc -w 1 203.0.113.5 80; nslookup www.example $dns; echo done
		read go; ping -c 1 -W 1 203.0.113.5; echo seen; read go')"
	vm_expect 100 '^up$'
	echo '#+ the first guest is up' >&"$tap"
	says '^ip=[0-9.]* gateway= dns=[0-9.]*$'
	two_says up
	echo '#+ so is the second' >&"$tap"
	ip=$(sed -n 's/^ip=\([0-9.]*\) .*/\1/p' "$T/two")
	six=$(tr -d '\r' <"$T/two" | sed -n 's/^six \(.*\)/\1/p')
	vm_send "$ip $six $(ip -6 -br addr show vmm-h | grep -o 'fe80[:0-9a-f]*')"
	vm_expect 100 '^got 1$'
	echo '#+ the streams came' >&"$tap"
	vm_expect 100 '^put 1$'
	echo '#+ and went' >&"$tap"
	vm_expect 100 '^routed$'
	two_says compared
	echo '#+ and are compared' >&"$tap"
	before=$(dropped h)
	vm_send go
	vm_expect 100 '^done'
	echo '#+ the first guest tried to get out' >&"$tap"
	says '^pairs 2 mtu 9000$'
	says '^2 packets transmitted, 2 packets received'
	# As many bytes as were asked for with the heads of ICMP, IP and Ethernet, there and back: before the streams.
	head -c 100000 "$T/pcap" >"$T/pings"
	[[ $(frame_lengths "$T/pings" | grep -cx 8942) = 4 ]] || fail 'the large packets were not whole'
	[[ $(tr -d '\r' <"$T/two" | grep -a '^sum ' | sort) = "$(tr -d '\r' <"$T/out" | grep -a '^sum ' | sort)" ]] ||
		fail 'what came is not what was sent'
	! grep -a '/tmp/b' "$T/two" || fail 'what came back is not what was sent'
	speed_was_measured
	checksums "$T/pcap" >"$T/sums"
	grep -qE '^51 frames [0-9]{3,}, .*, wrong 0$' "$T/sums" || fail "checksums: $(<"$T/sums")"
	(($(grep -c '^1 packets transmitted, 0 packets received' "$T/out") == 3)) || fail 'it gets out'
	(($(dropped h) >= before + 4)) || fail "$(dropped h) packets dropped, $before before"
	[[ $(counted inet) = 0 ]] || fail 'the internet saw it'
	nft delete table inet vmm-h # which is
	vm_send go
	vm_expect 100 '^seen'
	[[ $(counted inet) = 1 ]] || fail "the internet would not have seen it: $(counted inet) packets"
	vm_send go
	vm_end 100 0
	host_network list | grep -E '^h +hostonly .* 1 +deleted$' || fail 'one VM should be left'
	kill -KILL $two
	wait $two || true
	host_network delete h
	for i in ipv4 ipv6; do echo 0 >/proc/sys/net/$i/conf/all/forwarding; done
	nothing_left
}

# Frames of the VM's cards that come there.
count_vm()
{
	within "$1" nft 'table netdev t { chain c { type filter hook ingress device eth0 priority 0;
		ether saddr 02:00:00:12:34:56 counter; ether saddr 02:00:00:12:34:57 counter; }; }'
}
counted() # NAMESPACE [RULE]
{
	within "$1" nft list table netdev t | awk -v rule="${2-}" '
		/counter/ && $0 ~ rule { for (i = 1; i < NF; i++) if ($i == "packets") n += $(i + 1) }
		END { print n }'
}

# A VM in VLAN 100: what is there reaches it, what is in VLAN 200 does not, a trunk does by its tags. And its other
# card, which is a trunk itself: VLANs 100 and 200 come to it by their tags, and go, but not VLAN 300.
case_host_vlan()
{
	local name vlan access
	export VMM_RUNTIME_DIR=$T/run
	net_disk
	ip link add vmmtest1 type bridge vlan_filtering 1
	ip link set vmmtest1 up
	for name in same other third trunk; do
		new_namespace $name
		ip link add "vmm$name" type veth peer name eth0 netns "${namespace[$name]}"
		ip link set "vmm$name" master vmmtest1 up
		within $name ip link set eth0 up
		bridge vlan del dev "vmm$name" vid 1
		count_vm $name
	done
	for name in same:1 other:2 third:3; do
		vlan=${name#*:} name=${name%:*}
		bridge vlan add dev "vmm$name" vid "${vlan}00" pvid untagged
		within "$name" ip addr add "10.9.0.$vlan/24" dev eth0
		within "$name" ip addr add "10.9.$vlan.1/24" dev eth0
		within "$name" ip addr add "fd09:$vlan::1/64" dev eth0 nodad
	done
	for vlan in 100 200; do
		bridge vlan add dev vmmtrunk vid $vlan
		within trunk ip link add link eth0 name "v$vlan" type vlan id $vlan
		within trunk ip addr add "10.9.0.$((vlan / 100 + 3))/24" dev "v$vlan"
		within trunk ip link set "v$vlan" up
	done
	within same ip addr add fd09::1/64 dev eth0 nodad
	streams_wait 1 "${namespace[same]}"
	streams_wait 2 "${namespace[other]}"
	vm_start "${boot[@]}" --disk "$disk,readonly" --net bridge=vmmtest1,vlan=100,mac=02:00:00:12:34:56 \
		--net bridge=vmmtest1,vlan=100+200,mac=02:00:00:12:34:57 --append "$(run "$use_net"'
		for ko in /modules/later/*; do insmod $ko; done
		card() { ip addr add 10.9.$2.9/24 dev $1; ip addr add fd09:$2::9/64 dev $1; ip link set $1 up; }
		echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
		echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad
		echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore # each card is asked for its own addresses
		card eth0 0; ip link set eth1 up
		for i in 1 2 3; do
			ip link add link eth1 name v$i type vlan id ${i}00
			card v$i $i
		done
		echo up; read go
		ping -c 1 -W 1 10.9.0.2 | grep received; ip neigh show 10.9.0.2
		ping -c 1 -W 1 10.9.3.1 | grep received
		echo third $(cat /sys/class/net/v3/statistics/rx_packets); read go
		# A question for the address that was under way may still fail.
		until ping -c 1 -W 1 10.9.3.1 | grep " 1 packets received"; do :; done
		streams 1 10.9.0.1 fd09::1; streams 2 10.9.2.1 fd09:2::1; speed 2 10.9.2.1; echo moved; read go')"
	vm_expect 100 '^up$'
	within same ping -c 2 -w 20 -q 10.9.0.9 || fail 'the same VLAN'
	within trunk ping -c 2 -w 20 -q -I v100 10.9.0.9 || fail 'a trunk'
	! within trunk ping -c 1 -W 1 -q -I v200 10.9.0.9 || fail "a trunk's other VLAN"
	! within other ping -c 1 -W 1 -q 10.9.0.9 || fail 'another VLAN'
	! within third ping -c 1 -W 1 -q 10.9.3.9 || fail 'a VLAN that the trunk has not'
	# After these had come, so would have that.
	within same ping -c 2 -w 20 -q 10.9.1.9 || fail "the trunk's first VLAN"
	within other ping -c 2 -w 20 -q 10.9.2.9 || fail "the trunk's second VLAN"
	host_network show vmmtest1 >"$T/show"
	cat "$T/show"
	grep -qE "^vmm$vm_pid-0 +[^ ]+ +02:00:00:12:34:56 +100 " "$T/show" || fail 'the MAC table'
	for vlan in 100 200; do
		grep -qE "^vmm$vm_pid-1 +[^ ]+ +02:00:00:12:34:57 +$vlan " "$T/show" || fail "the MAC table, VLAN $vlan"
	done
	vm_send go
	vm_expect 100 '^third 0$'
	(($(grep -ac '^1 packets transmitted, 0 packets received' "$T/out") == 2)) || fail 'it reaches another VLAN'
	# What it asked of all was heard in its VLANs, and not in another.
	access=02:00:00:12:34:56
	[[ $(counted same $access) -ge 2 && $(counted trunk $access) -ge 2 && $(counted other $access) = 0 ]] ||
		fail "frames that came: $(counted same $access) to the same, $(counted trunk $access) to the trunk," \
			"$(counted other $access) to another VLAN"
	[[ $(counted third) = 0 ]] || fail "$(counted third) frames came to the third VLAN"
	bridge vlan add dev "vmm$vm_pid-1" vid 300 # which alone was missing
	vm_send go
	vm_expect 100 '^put 2$'
	echo '#+ the streams came and went' >&"$tap"
	vm_expect 100 '^moved$'
	says '^1 packets transmitted, 1 packets received'
	vm_send go
	vm_end 100 0
	streams_were_right 1 2
	speed_was_measured
	ip link del vmmtest1
	for name in same other third trunk; do ip link del "vmm$name"; done
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
