# A saved VM goes on: in the same process, in another one, and in copies; and one that is paused again and again.
# shellcheck shell=bash

# The guest compares its memory and its disk with what it wrote before, again and again, until it is told to stop.
checker='
	dd if=/dev/urandom of=/tmp/ram bs=64k count=32 2>/dev/null; s=$(md5sum </tmp/ram); i=0
	while :; do
		i=$((i + 1))
		dd if=/tmp/ram of=/dev/vda bs=64k oflag=direct conv=notrunc 2>/dev/null
		b=$(dd if=/dev/vda bs=64k count=32 iflag=direct 2>/dev/null | md5sum)
		if [ "$(md5sum </tmp/ram)" = "$s" ] && [ "$b" = "$s" ]; then echo ok $i; else echo wrong $i; fi
		if read -t 1 x; then [ "$x" != id ] || dmesg | grep -ci "crng reseeded"; [ "$x" != stop ] || break; fi
	done
	echo last $i'

saved() # ARG...
{
	export VMM_RUNTIME_DIR=$T/run
	mkdir "$T/run"
	qemu-img create -q -f qcow2 "$T/disk.qcow2" 64M
	vm_start "${boot[@]}" --name saved "$@" --disk "$T/disk.qcow2" --append "$(run "$checker")"
	vm_expect 100 '^ok 1$'
	"$VMM" ctl saved save "$T/one" || fail "save: status $?"
	vm_expect 100 '^ok [23]$'
	vm_send stop
	vm_end 100 0
	says '^last '
	! grep -a wrong "$T/out" || fail 'what was saved went on with something wrong'
	fdtdump "$T/one/state" >"$T/dump" 2>/dev/null || [[ $? = 127 ]] || fail 'fdtdump cannot read it'
	qemu-img check -q "$T/disk.qcow2" || fail 'the disk is damaged'
	vm_start restore "$T/one" --name again
	vm_expect 100 '^ok ([2-9]|[1-9][0-9]+)$'
	vm_expect 100 '^ok ([3-9]|[1-9][0-9]+)$'
	vm_send stop
	vm_end 100 0
	says '^last '
	! grep -a wrong "$T/out" || fail 'what was restored has something wrong'
	qemu-img check -q "$T/disk@one.qcow2" || fail 'the disk snapshot is damaged'
	! compgen -G "$T/.vmm-*" >/dev/null || fail 'a delta is left'
}
case_snapshot_pci() { saved --cpus 2; }
case_snapshot_mmio() { saved --transport mmio; }

# Paused and resumed PAUSES times, while fio writes, reads and verifies all of a disk, and files go over a tap there and
# back. While it is paused nothing of it is counted, and after each tenth time it is heard that all of it goes on.
case_pauses()
{
	local pauses=${PAUSES:-30} got
	programs "$T/programs" fio
	truncate -s 4M "$T/raw"
	image qcow2
	random "$T/there" 1M
	: >"$T/sums"
	socat -U TCP-LISTEN:5001,reuseaddr,fork "OPEN:$T/there,rdonly" &
	socat -u TCP-LISTEN:5002,reuseaddr,fork "SYSTEM:md5sum >>$T/sums" &
	vm_start "${boot[@]}" --cpus 2 --api-sock "$T/sock" --disk "$T/disk" --disk "$T/programs,readonly" \
		--net tap=vmmtest1 --append "$(run "$use_programs"'
		ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up
		echo up; read sum
		net() {
			n=0
			until [ -e /tmp/stop ]; do
				nc 10.9.0.1 5001 </dev/null >/tmp/f
				[ "$(md5sum </tmp/f)" = "$sum  -" ] || { echo wrong by the net; break; }
				nc 10.9.0.1 5002 </tmp/f
				n=$((n + 1))
			done
			echo there and back $n
		}
		disk() {
			n=0
			until [ -e /tmp/stop ]; do
				/usr/bin/fio --name=v --filename=/dev/vda --size=2M --offset_increment=2M --numjobs=2 --thread \
					--ioengine=libaio --iodepth=8 --direct=1 --randseed=$n --rw=randrw --bsrange=4k-64k --verify=crc32c \
					--verify_backlog=16 --verify_fatal=1 --output=/tmp/fio --eta=never || { cat /tmp/fio; echo wrong; break; }
				n=$((n + 1))
				echo pass $n
			done
		}
		net & disk &
		read x
		touch /tmp/stop
		wait
		echo over')"
	vm_expect 100 '^up$'
	ip addr replace 10.9.0.1/24 dev vmmtest1
	ip link set vmmtest1 up
	vm_send "$(sum "$T/there")"
	python3 - "$T/sock" "$pauses" <<-'EOT' >&"$tap"
		import http.client, json, socket, sys

		class Unix(http.client.HTTPConnection):
		    def connect(self):
		        self.sock = socket.socket(socket.AF_UNIX)
		        self.sock.connect(sys.argv[1])

		vm = Unix("localhost", timeout=100)

		def ask(method, path, body=None, status=204):
		    vm.request(method, path, body)
		    answer = vm.getresponse()
		    text = answer.read()
		    assert answer.status == status, text
		    return text

		def stats():
		    s = json.loads(ask("GET", "/vmm/v1/stats", status=200))
		    return [s[i] for i in ("disk_reads", "disk_writes", "net_rx_bytes", "net_tx_bytes", "exits")]

		for n in range(int(sys.argv[2])):
		    ask("PATCH", "/vm", '{"state":"Paused"}')
		    before = stats() if n % 10 == 0 else None
		    if before:
		        assert stats() == before
		    ask("PATCH", "/vm", '{"state":"Resumed"}')
		    while before and any(a == b for a, b in zip(before, stats())):
		        pass
		    if n % 50 == 0:
		        print("#+ paused", n + 1, "times", flush=True)
	EOT
	vm_expect 100 '^pass '
	vm_send stop
	vm_end 100 0
	says '^there and back [1-9]'
	says '^over$'
	! grep -a '^wrong' "$T/out" || fail 'what came is not what was sent'
	got=$(sort -u "$T/sums")
	[[ $got = "$(sum "$T/there")  -" ]] || fail "what came back is not what was sent: $got"
	qemu-img check -q "$T/disk" || fail 'the disk is damaged'
}
