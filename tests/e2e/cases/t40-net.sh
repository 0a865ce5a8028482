# The network over a tap: ping, 64 MiB by TCP there, 8 MiB back (nc sends a KiB at a time).
# shellcheck shell=bash

network() # TAP [ARG...]
{
	local dev=$1 sums
	random "$T/there" 64M
	socat -u "OPEN:$T/there" TCP-LISTEN:5001,reuseaddr &
	socat -u TCP-LISTEN:5002,reuseaddr "CREATE:$T/back" &
	vm_start "${boot[@]}" "${@:2}" --net "tap=$dev,mac=02:00:00:12:34:56" --append "$(run '
		ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up
		echo mac $(cat /sys/class/net/eth0/address)
		echo up; read go
		ping -c 3 -W 5 10.9.0.1
		nc 10.9.0.1 5001 </dev/null >/tmp/f
		echo there
		head -c 8388608 /tmp/f | nc 10.9.0.1 5002
		echo sum $(md5sum </tmp/f)')"
	vm_expect 100 '^up$'
	ip addr replace 10.9.0.1/24 dev "$dev"
	ip link set "$dev" up
	ping -c 3 -W 5 -q 10.9.0.2 | grep ' 0% packet loss' || fail 'ping from the host'
	vm_send go
	vm_expect 100 '^there$'
	echo '#+ it went there' >&"$tap"
	vm_end 100 0
	says '^mac 02:00:00:12:34:56$'
	says '3 packets received, 0% packet loss'
	sums=$(md5sum <"$T/there" | cut -d ' ' -f 1)
	says "^sum $sums "
	wait %2
	cmp <(head -c 8M "$T/there") "$T/back" || fail 'what came back is not what was sent'
}

case_net_pci() # a tap of somebody else's making
{
	ip tuntap add dev vmmtest0 mode tap vnet_hdr
	network vmmtest0 --cpus 2
	ip link show vmmtest0 || fail 'vmm removed a tap it did not make'
	ip link del vmmtest0
}

case_net_mmio() # vmm's own
{
	network vmmtest1 --transport mmio
	! ip link show vmmtest1 2>/dev/null || fail 'vmm left its tap behind'
}

# Of each frame in a pcap file, as the host's processor writes it.
frame_lengths()
{
	od -An -v -tu1 -w1 "$1" | awk '{ b[NR - 1] = $1 }
		END { for (i = 24; i < NR; i += 16 + n) print n = b[i + 8] + 256 * (b[i + 9] + 256 * b[i + 10]) }'
}

# A card with all there is to it: two pairs of queues, large packets, a cable that is pulled, a limit, a dump.
case_net_card()
{
	export VMM_RUNTIME_DIR=$T/run
	mkdir "$T/run"
	ip tuntap add dev vmmtest2 mode tap vnet_hdr multi_queue
	vm_start "${boot[@]}" --cpus 2 --name card \
		--net "tap=vmmtest2,queues=2,mtu=9000,dump=$T/pcap,pps_tx=1000" --append "$(run '
		c=/sys/class/net/eth0
		echo pairs $(ls -d $c/queues/tx-* | wc -l) mtu $(cat $c/mtu)
		ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up
		for i in 1 2; do taskset $i ping -c 3 -W 5 -s 8900 10.9.0.1; done
		echo up; until [ $(cat $c/carrier) = 0 ]; do usleep 10000; done
		ping -c 1 -W 1 10.9.0.1
		echo down; until [ $(cat $c/carrier) = 1 ]; do usleep 10000; done
		ping -c 4 -W 5 10.9.0.1')"
	ip addr replace 10.9.0.1/24 dev vmmtest2
	vm_expect 100 '^up$'
	[[ $(cat /sys/class/net/vmmtest2/mtu) = 9000 ]] || fail 'the MTU of the tap'
	"$VMM" ctl card link net0 down || fail "link down: status $?"
	vm_expect 100 '^down$'
	[[ $(cat /sys/class/net/vmmtest2/carrier) = 0 ]] || fail 'the tap has a carrier yet'
	"$VMM" ctl card link net0 up || fail "link up: status $?"
	vm_end 100 0
	says '^pairs 2 mtu 9000$'
	[[ $(grep -ac '3 packets received, 0% packet loss' "$T/out") = 2 ]] || fail 'large packets'
	says '1 packets transmitted, 0 packets received'
	says '4 packets received, 0% packet loss'
	# 8900 bytes of data with the heads of ICMP, IP and Ethernet, there and back.
	[[ $(frame_lengths "$T/pcap" | grep -cx 8942) = 12 ]] || fail 'the dump'
	ip link del vmmtest2
}

# Of each hundred of ports from 5100 on: how many frames of TCP a pcap file has, how many of them are longer than a wire
# takes, in and out, and how many have a wrong checksum. What sums up right divides by 65535, read as one number.
checksums()
{
	python3 - "$1" <<-'EOT'
		import struct, sys
		seen, at, file = {}, 24, open(sys.argv[1], 'rb').read()
		while at < len(file):
		    size, = struct.unpack_from('<I', file, at + 8)
		    frame, at = file[at + 16:at + 16 + size], at + 16 + size
		    ip, kind = frame[14:], frame[12:14]
		    if kind == b'\x08\x00' and ip[9] == 6:
		        n = ip[0] % 16 * 4
		        head, ends, tcp = ip[:n], ip[12:20], ip[n:int.from_bytes(ip[2:4], 'big')]
		    elif kind == b'\x86\xdd' and ip[6] == 6:
		        head, ends, tcp = b'\xff\xff', ip[8:40], ip[40:40 + int.from_bytes(ip[4:6], 'big')]
		    else:
		        continue
		    ports = struct.unpack('!HH', tcp[:4])
		    is_in = 5100 <= ports[0] < 6000
		    n = seen.setdefault(ports[not is_in] // 100, [0, 0, 0, 0])
		    n[0] += 1
		    n[1 if is_in else 2] += size > 1514
		    tcp = ends + struct.pack('!II', len(tcp), 6) + tcp + bytes(len(tcp) % 2)
		    n[3] += int.from_bytes(head, 'big') % 65535 != 0 or int.from_bytes(tcp, 'big') % 65535 != 0
		for hundred, n in sorted(seen.items()):
		    print(hundred, 'frames %d, large in %d out %d, wrong %d' % tuple(n))
	EOT
}

# Eight streams at once each way, half of them over IPv6: this end of SET, a digit, here or in the network namespace of
# process PID; then whether each arrived as what it was. In the guest: streams SET IPV4 IPV6. And iperf3 for eight
# streams, in the guest speed SET ADDRESS; whether it came to figures, both ways.
stream_ends=()
streams_wait() # SET [PID]
{
	local i where=(nsenter ${2:+-t "$2" -n} --)
	for i in 1 2 3 4 5 6 7 8; do
		[[ -e $T/there$i ]] || random "$T/there$i" 512K
		"${where[@]}" socat -u "OPEN:$T/there$i" "TCP6-LISTEN:5${1}0$i,ipv6-v6only=0,reuseaddr" {tap}>&- &
		"${where[@]}" socat -u "TCP6-LISTEN:5${1}1$i,ipv6-v6only=0,reuseaddr" "CREATE:$T/back$1$i" {tap}>&- &
		stream_ends+=($!)
	done
	"${where[@]}" iperf3 -s -p "400$1" >/dev/null {tap}>&- &
}
streams_were_right() # SET...
{
	local i set sum
	! grep -a '^lost' "$T/out" || fail 'a stream from the guest did not come about'
	wait "${stream_ends[@]}"
	for i in 1 2 3 4 5 6 7 8; do
		sum=$(md5sum <"$T/there$i" | cut -d ' ' -f 1)
		for set; do
			says "^sum $set$i $sum "
			cmp "$T/there$i" "$T/back$set$i" || fail "stream $i of set $set came back as another"
		done
	done
}
speed_was_measured()
{
	(($(grep -ac '^\[SUM\].*receiver' "$T/out") == 2)) || fail 'iperf3'
}

# $disk is a disk with these for a guest, more than its command line holds: `$use_net`. six: its address of IPv6, once
# it has one that was announced. What `nc` has nothing to send from stays open: busybox ends where the other end closed
# its own, and Debian 12's passt begins again with the same bytes where the guest's is closed first.
# shellcheck disable=SC2016 # the guest expands it
on_net_disk='
	mkfifo /tmp/open
	each() {
		for i in 1 2 3 4; do $1 $2 $i $3; done
		for i in 5 6 7 8; do $1 $2 $i $4; done
		wait
	}
	get() { nc $3 5${1}0$2 <>/tmp/open >/tmp/f$2 & }
	put() { nc $3 5${1}1$2 </tmp/f$2 || echo lost $1$2 & }
	sum() { echo sum $1$2 $(md5sum </tmp/f$2); }
	streams() { each get "$@"; echo got $1; each sum "$@"; each put "$@"; echo put $1; }
	speed() {
		for way in "" -R; do
			iperf3 -c $2 -p 400$1 -P 8 -n 2M $way >/tmp/speed || cat /tmp/speed
			grep "^.SUM.*receiver" /tmp/speed
		done
	}
	six() {
		until ip addr show dev eth0 | grep -E "inet6 (fd|fec0)" | grep -qv tentative; do usleep 50000; done
		ip addr show dev eth0 | sed -nE "s/.*inet6 ((fd|fec0)[^/]*).*/\1/p" | head -n 1
	}'
use_net="${use_programs/vdb/vda}; . /net"
net_disk()
{
	disk=$all/.net
	[[ ! -e $disk ]] || return 0
	mkdir "$disk.new.files"
	echo "$on_net_disk" >"$disk.new.files/net"
	programs "$disk.new" iperf3 ethtool
	mv "$disk.new" "$disk"
}

# Those streams with all that the card can do for the guest, with nothing of it, and with nothing but checksums on the
# way out. What is dumped is what another host would see.
case_net_offloads()
{
	local set
	net_disk
	for set in 1 2 3; do streams_wait $set; done
	ip tuntap add dev vmmtest9 mode tap vnet_hdr multi_queue
	ip addr replace 10.9.0.1/24 dev vmmtest9
	ip addr replace fd09::1/64 dev vmmtest9 nodad
	ip link set vmmtest9 up
	vm_start "${boot[@]}" --cpus 2 --disk "$disk,readonly" --net "tap=vmmtest9,queues=2,dump=$T/pcap" \
		--append "$(run "$use_net"'
		can() { /usr/sbin/ethtool -K eth0 "$@"; }
		all() { can tx $1 sg $1 tso $1 gso $1 gro $1 rx-gro-hw $1; }
		try() { streams $1 10.9.0.1 fd09::1; }
		echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad
		ip addr add 10.9.0.2/24 dev eth0; ip addr add fd09::2/64 dev eth0; ip link set eth0 up
		echo up; all on; try 1; all off; try 2
		can tx on rx-gro-hw on; try 3; speed 1 10.9.0.1')"
	vm_expect 100 '^up$'
	echo '#+ the guest is up' >&"$tap"
	for set in 1 2 3; do
		vm_expect 100 "^got $set\$"
		vm_expect 100 "^put $set\$"
		echo "#+ the streams of set $set came and went" >&"$tap"
	done
	vm_end 100 0
	streams_were_right 1 2 3
	speed_was_measured
	checksums "$T/pcap" >"$T/sums"
	sums() { grep -qE "^$1, wrong 0$" "$T/sums" || fail "not '$1', but $(grep "^${1%% *} " "$T/sums")"; }
	sums '51 frames [0-9]{3,}, large in [1-9][0-9]* out [1-9][0-9]*'
	sums '52 frames [0-9]{4,}, large in 0 out 0'
	sums '53 frames [0-9]{4,}, large in [1-9][0-9]* out 0'
	ip link del vmmtest9
}

# Which of the two queues the packets of 40 flows come to is the guest's to say, and what it said last is saved; by our own
# thread, then by vhost-net. A host that cannot do it refuses what was saved. A queue that nothing comes to does not
# interrupt; what is not hashed, like ARP, there is none of.
steered() # KERNEL
{
	local kernel=(--kernel "$1/vmlinuz" --initrd "$1/initrd" --mem 256M) port n vhost=auto
	flows() # TO ERE
	{
		vm_expect 100 '^ready$'
		for ((port = 20000; port < 20040; port++)); do echo >/dev/udp/10.9.0.2/$port; done
		vm_expect 100 '^came '
		tail -n 1 "$T/out" | grep -qE "^came $2\$" || fail "$1: $(tail -n 1 "$T/out")"
	}
	export VMM_RUNTIME_DIR=$T/run
	mkdir "$T/run"
	! modprobe vhost_net || vhost=on
	net_disk
	ip tuntap add dev vmmtest8 mode tap vnet_hdr multi_queue
	echo 1 >/proc/sys/net/ipv6/conf/vmmtest8/disable_ipv6
	ip link set vmmtest8 address 02:00:00:00:00:01 up
	ip addr replace 10.9.0.1/24 dev vmmtest8
	ip neigh replace 10.9.0.2 lladdr 02:00:00:12:34:56 dev vmmtest8 nud permanent
	vm_start "${kernel[@]}" --cpus 2 --name card --disk "$disk,readonly" \
		--net tap=vmmtest8,queues=2,vhost=off,mac=02:00:00:12:34:56 \
		--append "$(run "$use_net"'
		e=/usr/sbin/ethtool
		q() { awk -v name="-input.$1\$" "\$NF ~ name { print \$2 + \$3 }" /proc/interrupts; }
		all() { cat /sys/class/net/eth0/statistics/rx_packets; }
		came() {
			a=$(q 0) b=$(q 1) n=$(($(all) + 40))
			echo ready
			until [ $(all) -ge $n ]; do usleep 10000; done
			echo came $(($(q 0) - a)) $(($(q 1) - b))
		}
		echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6
		ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up
		arp -s 10.9.0.1 02:00:00:00:00:01
		$e -x eth0
		for x in "equal 1" "equal 2" "weight 0 1"; do $e -X eth0 $x && came; done
		read go; came; read go; $e -X eth0 default; $e -L eth0 combined 1 && ping -c 2 -W 5 10.9.0.1')"
	flows 'equal 1' '[1-9][0-9]* 0'
	flows 'equal 2' '[1-9][0-9]* [1-9][0-9]*'
	flows 'weight 0 1' '0 [1-9][0-9]*'
	says '^RX flow hash indirection table for eth0 with 2 RX ring'
	says '^  120:'
	says '^([0-9a-f]{2}:){39}[0-9a-f]{2}$'
	"$VMM" ctl card save "$T/one" || fail "save: status $?"
	kill -KILL "$vm_pid"
	vm_end 100 137
	n=0
	setpriv --bounding-set=-bpf,-sys_admin "$VMM" restore "$T/one" --name poor </dev/null 2>"$T/poor" || n=$?
	((n)) || fail 'a host without it takes it'
	[[ $(wc -l <"$T/poor") = 1 ]] || fail "refused with $(cat "$T/poor")"
	grep 'net0.*features .* has not 0x1000000000000000' "$T/poor" || fail "refused with $(cat "$T/poor")"
	vm_start restore "$T/one" --name again --net "tap=vmmtest8,queues=2,vhost=$vhost"
	vm_send go
	flows restored '0 [1-9][0-9]*'
	vm_send go
	vm_end 100 0
	says '^2 packets transmitted, 2 packets received'
	ip link del vmmtest8
}
case_net_rss() { steered "$K61C"; }
case_net_rss_612() # which says so as it comes up
{
	[[ $K612C ]] || skip "$K612C_WHY"
	steered "$K612C"
}

# One that was saved goes on elsewhere, and tells the network so before anybody asks.
case_net_restored()
{
	export VMM_RUNTIME_DIR=$T/run
	mkdir "$T/run"
	ip tuntap add dev vmmtest3 mode tap vnet_hdr
	vm_start "${boot[@]}" --name card --net tap=vmmtest3 --append "$(run '
		ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up
		echo up; read go
		ping -c 3 -W 5 10.9.0.1')"
	ip addr replace 10.9.0.1/24 dev vmmtest3
	vm_expect 100 '^up$'
	ping -c 1 -W 5 -q 10.9.0.2 | grep ' 0% packet loss' || fail 'ping from the host'
	"$VMM" ctl card save "$T/one" || fail "save: status $?"
	vm_send go
	vm_end 100 0
	ip neigh flush dev vmmtest3
	vm_start restore "$T/one" --name again --net "tap=vmmtest3,dump=$T/pcap"
	for ((i = 0; i < 1000; i++)); do # a frame of ARP
		! frame_lengths "$T/pcap" 2>/dev/null | grep -qx 42 || break
		sleep 0.1
	done
	((i < 1000)) || fail 'it was not announced'
	ping -c 3 -W 5 -q 10.9.0.2 | grep ' 0% packet loss' || fail 'ping from the host, restored'
	vm_send go
	vm_end 100 0
	says '3 packets received, 0% packet loss'
	ip link del vmmtest3
}
