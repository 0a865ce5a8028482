# The network over a tap: ping, and 64 MiB by TCP there and back.
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
		ls -l /tmp/f
		nc 10.9.0.1 5002 </tmp/f
		echo sum $(md5sum </tmp/f)')"
	vm_expect 100 '^up$'
	ip addr replace 10.9.0.1/24 dev "$dev"
	ip link set "$dev" up
	ping -c 3 -W 5 -q 10.9.0.2 | grep ' 0% packet loss' || fail 'ping from the host'
	vm_send go
	vm_end 100 0
	says '^mac 02:00:00:12:34:56$'
	says '3 packets received, 0% packet loss'
	sums=$(md5sum <"$T/there" | cut -d ' ' -f 1)
	says "^sum $sums "
	wait %2
	cmp "$T/there" "$T/back" || fail 'what came back is not what was sent'
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
