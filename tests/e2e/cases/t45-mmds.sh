# Metadata: a stock kernel asks for it by busybox's wget and nc, over a tap whose other end is not asked.
# shellcheck shell=bash

# As flintlock and others have it: a configuration file, and --metadata. The host's end has a route to the address, and
# hears nothing of it; all else goes there as ever.
case_mmds()
{
	# shellcheck disable=SC2016 # the guest expands it
	local guest='
		ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up; ip route add 169.254.169.254 dev eth0
		u=http://169.254.169.254/latest
		echo list $(wget -q -O - $u/meta-data | tr "\n" " ")
		echo json $(wget -q -O - --header "Accept: application/json" $u/meta-data/o)
		echo none $(wget -q -O - $u/none 2>&1)
		wget -q -O /tmp/l $u/long; echo long $(md5sum </tmp/l)
		echo nc $(printf "GET /latest/meta-data/id HTTP/1.0\r\n\r\n" | nc 169.254.169.254 80 | tr -d "\r" | tr "\n" " ")
		for i in 1 2 3 4 5 6 7 8; do wget -q -O /tmp/l$i $u/long & done; wait
		echo same $(cat /tmp/l? | wc -c) $(md5sum /tmp/l? | cut -c 1-32 | sort -u | wc -l)
		ping -c 3 -W 5 10.9.0.1
		echo ready; read go
		echo id $(wget -q -O - $u/meta-data/id)
		wget -q -O /tmp/l 169.254.169.254:81/x 2>&1 || echo refused'
	local long args sum
	long=$(head -c 22500 /dev/urandom | base64 -w 0)
	sum=$(printf %s "$long" | md5sum | cut -d ' ' -f 1)
	ip tuntap add dev vmmtest5 mode tap vnet_hdr
	ip addr add 10.9.0.1/24 dev vmmtest5
	ip addr add 169.254.169.254/32 dev vmmtest5
	ip link set vmmtest5 up
	args="console=ttyS0 quiet $(run "$guest")"
	cat >"$T/config.json" <<-END
		{
		  "boot-source": {
		    "kernel_image_path": "$K61C/vmlinuz", "initrd_path": "$K61C/initrd", "boot_args": "$args"
		  },
		  "drives": [],
		  "machine-config": { "vcpu_count": 1, "mem_size_mib": 256 },
		  "network-interfaces": [{ "iface_id": "eth0", "host_dev_name": "vmmtest5" }],
		  "mmds-config": { "network_interfaces": ["eth0"], "version": "V1" }
		}
	END
	echo "{\"latest\": {\"meta-data\": {\"id\": \"i-1\", \"o\": {\"k\": [1, 2]}}, \"long\": \"$long\"}}" >"$T/metadata"
	vm_start firecracker --api-sock "$T/sock" --config-file "$T/config.json" --metadata "$T/metadata"
	vm_expect 100 '^ready$'
	says '^list id o/ *$'
	says '^json \{"k":\[1,2\]\}$'
	says '^none .*404'
	says "^long $sum "
	says '^nc HTTP/1.1 200 OK .* i-1 *$'
	says '^same 240000 1$'
	says '3 packets received, 0% packet loss'
	"$VMM" ctl "$T/sock" patch /mmds '{"latest": {"meta-data": {"id": "i-2"}}}' || fail 'PATCH /mmds'
	vm_send go
	vm_end 100 0
	says '^id i-2$'
	says '^refused$'
	ip link del vmmtest5
}

# Version 2, with a token, asked for by hand: busybox's wget has no PUT.
case_mmds_v2()
{
	# shellcheck disable=SC2016 # the guest expands it
	local guest='
		ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up; ip route add 169.254.169.254 dev eth0
		a=169.254.169.254
		put() { printf "PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: $1\r\n\r\n" | nc $a 80 | tr -d "\r"; }
		echo without $(wget -q -O - http://$a/id 2>&1)
		echo wrong $(put 0 | head -n 1)
		t=$(put 60 | tail -n 1); echo token ${#t}
		echo with $(wget -q -O - --header "X-metadata-token: $t" http://$a/id)'
	echo '{"id": "i-1"}' >"$T/metadata"
	vm_start "${boot[@]}" --net tap=vmmtest6 --mmds net0,version=V2 --metadata "$T/metadata" --append "$(run "$guest")"
	vm_end 100 0
	says '^without .*401'
	says '^wrong HTTP/1.1 400 Bad Request$'
	says '^token 48$'
	says '^with i-1$'
}
