# Networks that need no privileges: libslirp, passt, a socket. All of it stays within this host's loopback.
# shellcheck shell=bash

# In the guest: a DHCP lease, which it shows.
# shellcheck disable=SC2016 # the guest expands it
lease='
cat >/lease <<\S
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add $ip/$mask dev eth0
[ -z "$router" ] || ip route add default via $router
echo lease $ip $router $dns $hostname
for a in $dns; do echo nameserver $a; done >/etc/resolv.conf
S
chmod +x /lease
ip link set lo up; ip link set eth0 up
udhcpc -q -n -t 8 -T 1 -i eth0 -s /lease 2>/dev/null
echo mtu $(cat /sys/class/net/eth0/mtu)
'
# In the guest: connections from outside are answered.
serve='
while :; do echo published | nc -l -p 80; done &
until grep -q ":0050 .* 0A " /proc/net/tcp*; do usleep 10000; done
echo serving
read go
'

# A name server, and a vmm for which alone the host's resolv.conf names it.
name_server()
{
	ip link set lo up
	dnsmasq -k -C /dev/null -h -R -z -a 127.0.0.1 -x "$T/dns.pid" --address=/guest.test/192.0.2.77 &
	echo 'nameserver 127.0.0.1' >"$T/resolv.conf"
	printf '#!/bin/bash\nmount --bind %q /etc/resolv.conf && exec %q "$@"\n' "$T/resolv.conf" "$VMM" >"$T/inside"
	printf '#!/bin/bash\nexec unshare -m %q "$@"\n' "$T/inside" >"$T/vmm"
	chmod +x "$T/inside" "$T/vmm"
	VMM=$T/vmm
}

publish=hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=udp:127.0.0.1:8053-:53

published_answers()
{
	[[ $(socat -t 100 - TCP:127.0.0.1:8080 </dev/null) = published ]] || fail 'the published TCP port'
	grep -q ':1F75 ' /proc/net/udp || fail 'the published UDP port'
}

published_is_gone()
{
	! grep ':1F90 .* 0A ' /proc/net/tcp || fail 'the TCP port is still published'
	! grep ':1F75 ' /proc/net/udp || fail 'the UDP port is still published'
}

case_net_user()
{
	name_server
	net_disk
	streams_wait 1
	ip addr replace 192.0.2.1/32 dev lo
	echo 0 2147483647 >/proc/sys/net/ipv4/ping_group_range
	vm_start "${boot[@]}" --name web --disk "$disk,readonly" --net "user,$publish" --append "$(run "$lease $use_net
		nslookup guest.test; ping -c 2 10.0.2.2; ping -c 3 192.0.2.1
		six; streams 1 10.0.2.2 fec0::2; speed 1 10.0.2.2
		$serve")"
	vm_expect 100 '^put 1$'
	vm_expect 100 '^serving'
	published_answers
	vm_send go
	vm_end 100 0
	says '^lease 10.0.2.15 10.0.2.2 10.0.2.3 web$'
	says '^mtu 65520$'
	says '192.0.2.77'
	says '^2 packets transmitted, 2 packets received'
	says '^3 packets transmitted, 3 packets received'
	streams_were_right 1
	speed_was_measured
	published_is_gone
}

# Nothing gets out, and what comes in does so after a reboot, too.
case_net_user_restrict()
{
	ip link set lo up
	socat -u TCP-LISTEN:5001,reuseaddr,bind=127.0.0.1 "CREATE:$T/reached" &
	vm_start "${boot[@]}" --net "user,restrict=on,$publish" --append "$(run "$lease
		ip route add default via 10.0.2.2
		echo out | nc -w 10 10.0.2.2 5001 && echo reached || echo blocked
		$serve
		[ \$go = off ] || reboot -f")"
	for go in again off; do
		vm_expect 100 '^blocked'
		vm_expect 100 '^serving'
		published_answers
		vm_send "$go"
	done
	vm_end 100 0
	says '^lease 10.0.2.15 *$'
	[[ ! -e $T/reached ]] || fail 'the guest reached the host'
}

case_net_passt()
{
	local pid
	name_server
	net_disk
	streams_wait 1
	# passt shows the guest the interface with the default route.
	ip link add vmmtest0 type bridge
	ip link set vmmtest0 up
	ip addr add 192.0.2.1/24 dev vmmtest0
	ip route replace default via 192.0.2.254
	vm_start "${boot[@]}" --disk "$disk,readonly" --net "passt,$publish" --append "$(run "$lease $use_net
		nslookup guest.test
		streams 1 192.0.2.254 192.0.2.254; speed 1 192.0.2.254
		$serve")"
	vm_expect 100 '^put 1$'
	vm_expect 100 '^serving'
	pid=$(pgrep -P "$vm_pid" -x 'passt.*')
	published_answers
	says '^lease 192.0.2.1 192.0.2.254 192.0.2.254'
	says '^mtu 65520$'
	says '192.0.2.77'
	streams_were_right 1
	speed_was_measured
	kill -KILL "$vm_pid"
	wait "$vm_pid" || true
	vm_pid=
	timeout 100 tail -f --pid="$pid" /dev/null || fail 'passt outlived vmm'
	published_is_gone
}

# Two VMs, a stream socket between them.
case_net_fd()
{
	local n args sum both vms found=()
	for n in 1 2; do
		args=("${boot[@]}" --net "fd=3,mac=02:00:00:00:00:0$n" --append "$(run "
			ip addr add 10.9.0.$n/24 dev eth0; ip link set eth0 up
			[ $n = 1 ] || until seq 200000 | nc 10.9.0.1 80; do usleep 100000; done
			[ $n = 2 ] || nc -l -p 80 | md5sum")")
		printf '#!/bin/bash\nexec %s >%q 2>>%q\n' "${VMM@Q} ${args[*]@Q}" "$T/out$n" "$T/err" >"$T/vm$n"
		chmod +x "$T/vm$n"
	done
	socat -t 100 "EXEC:$T/vm1,fdin=3,fdout=3" "EXEC:$T/vm2,fdin=3,fdout=3" &
	both=$!
	if ! timeout 100 tail -f --pid="$both" /dev/null; then
		mapfile -t vms < <(pgrep -P "$both")
		for vm_pid in "${vms[@]}"; do
			cat "$T/out1" "$T/out2" >"$T/out"
			look_at_vm
			found+=("$seen")
		done
		kill -KILL "${vms[@]}"
		fail "no end within 100 s: ${found[*]}"
	fi
	wait "$both"
	sum=$(seq 200000 | md5sum | cut -d ' ' -f 1)
	cat "$T/out1" "$T/out2" >"$T/out"
	says "^$sum"
}

case_net_user_messages()
{
	local kernel=(--kernel "$K61C/vmlinuz" --initrd none)
	ip link set lo up
	socat -u TCP-LISTEN:8080,bind=127.0.0.1 - &
	until grep -q ':1F90 .* 0A ' /proc/net/tcp; do :; done
	refuses 2 'hostfwd tcp:127.0.0.1:8080: in use.*choose another port' "${kernel[@]}" \
		--net user,hostfwd=tcp:127.0.0.1:8080-:80
	refuses 2 'hostfwd tcp::8080: in use.*choose another port' "${kernel[@]}" --net passt,hostfwd=tcp::8080-:80
	refuses 2 'hostfwd udp:203.0.113.1:53: this host does not have that address' "${kernel[@]}" \
		--net user,hostfwd=udp:203.0.113.1:53-:53
	refuses 2 'fd=77: no such descriptor' "${kernel[@]}" --net fd=77
	printf '#!/bin/bash\nPATH=/nowhere exec %q "$@"\n' "$VMM" >"$T/vmm"
	chmod +x "$T/vmm"
	VMM=$T/vmm refuses 2 'install the package passt' "${kernel[@]}" --net passt
	kill %1
}
