# A saved VM goes on: in the same process, in another one, and in copies.
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
	vm_expect 100 '^ok [2-9]$'
	vm_expect 100 '^ok [3-9]$'
	vm_send stop
	vm_end 100 0
	says '^last '
	! grep -a wrong "$T/out" || fail 'what was restored has something wrong'
	qemu-img check -q "$T/disk@one.qcow2" || fail 'the disk snapshot is damaged'
	! compgen -G "$T/.vmm-*" >/dev/null || fail 'a delta is left'
}
case_snapshot_pci() { saved --cpus 2; }
case_snapshot_mmio() { saved --transport mmio; }
