# Disks: what the guest wrote is what the host reads.
# shellcheck shell=bash

sum() { md5sum <"$1" | cut -d ' ' -f 1; }

# Two disks, told apart; one is read-only; writes of odd sizes, synced, compared by the host.
disks() # [ARG...]
{
	random "$T/a" 8M
	truncate -s 8M "$T/b"
	cp "$T/a" "$T/a.before"
	vm 90 0 "${boot[@]}" "$@" --disk "$T/a,serial=the-first,readonly" --disk "$T/b,serial=the-second" --append "$(run '
		for d in vda vdb; do echo $d: serial $(cat /sys/block/$d/serial), ro $(cat /sys/block/$d/ro), $(cat /sys/block/$d/size); done
		echo sum $(md5sum </dev/vda)
		blockdev --setrw /dev/vda
		if dd if=/dev/zero of=/dev/vda bs=4k count=1 conv=fsync; then echo wrote; else echo refused; fi
		dd if=/dev/vda of=/dev/vdb bs=12345 conv=fsync
		dd if=/dev/vda of=/dev/vdb bs=64k skip=3 seek=3 count=50 iflag=direct oflag=direct conv=notrunc && echo done')"
	says '^vda: serial the-first, ro 1, 16384$'
	says '^vdb: serial the-second, ro 0, 16384$'
	says "^sum $(sum "$T/a.before") "
	says '^refused$'
	says '^done$'
	cmp "$T/a.before" "$T/a" || fail 'the read-only disk was written to'
	cmp "$T/a" "$T/b" || fail 'what the guest wrote is not what the host reads'
}
case_disks_pci() { disks; }
case_disks_mmio() { disks --transport mmio; }
case_disks_threads() { disks --aio threads --cpus 2; }

case_discard()
{
	local before after
	random "$T/a" 16M
	cp "$T/a" "$T/expect"
	dd if=/dev/zero of="$T/expect" bs=1M seek=4 count=8 conv=notrunc status=none
	before=$(stat -c %b "$T/a")
	vm 100 0 "${boot[@]}" --disk "$T/a" --append "$(run 'blkdiscard -o 4194304 -l 8388608 /dev/vda && echo done; sync')"
	says '^done$'
	after=$(stat -c %b "$T/a")
	((before - after >= 16000)) || fail "$before blocks before, $after after: not freed"
	cmp "$T/expect" "$T/a" || fail 'not zeros where it was discarded, or something else was'
}

# The guest's disk, $T/disk, of what is in $T/raw; for qcow2 the upper two of a chain of three.
image() # FORMAT
{
	if [[ $1 = raw ]]; then
		mv "$T/raw" "$T/disk"
	else
		qemu-img create -q -f qcow2 -b raw -F raw "$T/middle"
		qemu-img create -q -f qcow2 -o cluster_size=4k -b middle -F qcow2 "$T/disk"
	fi
}

# Its bytes as they are now, in a plain file of the same name.
unwrap() # FORMAT FILE
{
	[[ $1 = qcow2 ]] || return 0
	qemu-img check -q "$2" || fail "qemu-img check ${2##*/}: status $?"
	qemu-img convert -O raw "$2" "$2.raw"
	mv "$2.raw" "$2"
}

# A root made by the host, with an init that boots twice: what it wrote survives a reset without unmounting, the file
# system is clean after a remount, and the host reads the same bytes.
ext4_root() # FORMAT
{
	local root=$T/root f
	mkdir -p "$root"/{bin,sbin,proc,sys,dev}
	cp "$(command -v busybox)" "$root/bin/busybox"
	ln -s busybox "$root/bin/sh"
	random "$root/seed" 3000001
	cat >"$root/sbin/init" <<-'INIT'
		#!/bin/busybox sh
		export PATH=/bin
		/bin/busybox --install -s /bin
		exec </dev/console >/dev/console 2>&1
		n=$(cat /count 2>/dev/null)
		n=$((${n:-0} + 1))
		echo $n >/count
		echo "init: boot $n on $(awk '$2 == "/" && $3 == "ext4" { print $1, $3 }' /proc/mounts)"
		if [ $n = 1 ]; then
			cat /seed /seed >/data
			mkdir -p /many; i=0
			while [ $i -lt 200 ]; do echo file $i >/many/$i; i=$((i + 1)); done
			sync
			reboot -f
		fi
		cat /seed /seed | cmp - /data && echo "init: data is as written"
		ls /many | wc -l | sed 's/^/init: files /'
		rm /many/7
		cp /data /data2
		sync
		mount -o remount,ro /
		poweroff -f
	INIT
	chmod +x "$root/sbin/init"
	mke2fs -q -F -t ext4 -d "$root" "$T/raw" 64M
	image "$1"
	vm_start "${boot[@]}" --cpus 2 --disk "$T/disk"
	vm_expect 100 '^init: boot 1 on /dev/vda ext4'
	vm_expect 100 '^init: boot 2 on /dev/vda ext4'
	vm_end 100 0
	says '^init: data is as written$'
	says '^init: files 200$'
	unwrap "$1" "$T/disk"
	e2fsck -fn "$T/disk" || fail "e2fsck: status $?"
	for f in data data2; do
		debugfs -R "dump /$f $T/$f" "$T/disk"
		cat "$root/seed" "$root/seed" | cmp - "$T/$f" || fail "/$f is not what the guest wrote"
	done
	debugfs -R "dump /many/199 $T/199" "$T/disk"
	[[ $(<"$T/199") = 'file 199' ]] || fail '/many/199'
}
case_ext4_root() { ext4_root raw; }
case_ext4_root_qcow2() { ext4_root qcow2; }

# Whatever the guest was told is on the disk, is there after vmm was killed in the middle of it.
sigkill() # FORMAT
{
	local image last i=0
	truncate -s 64M "$T/raw"
	mke2fs -q -F -t ext4 "$T/raw"
	image "$1"
	vm_start "${boot[@]}" --disk "$T/disk" --append "$(run '
		mkdir -p /mnt; mount -t ext4 /dev/vda /mnt
		i=0
		while :; do i=$((i + 1)); seq $i $((i + 999)) | dd of=/mnt/f$i conv=fsync 2>/dev/null && echo synced $i; done')"
	vm_expect 100 '^synced 25$'
	kill -KILL "$vm_pid"
	vm_end 100 137
	last=$(sed -n 's/^synced \([0-9]*\)$/\1/p' "$T/out" | tail -n 1)
	cp "$T/disk" "$T/killed"
	vm 100 0 "${boot[@]}" --disk "$T/disk" --append "$(run 'mkdir -p /mnt; mount -t ext4 /dev/vda /mnt && echo mounted; ls /mnt | wc -l; umount /mnt; sync')"
	says '^mounted$'
	unwrap "$1" "$T/disk"
	unwrap "$1" "$T/killed"
	e2fsck -fn "$T/disk" || fail "e2fsck after the guest's mount: status $?"
	e2fsck -fp "$T/killed" || i=$?
	((i <= 1)) || fail "e2fsck -fp of what SIGKILL left: status $i"
	for image in "$T/disk" "$T/killed"; do
		mkdir "$T/files"
		debugfs -R "rdump / $T/files" "$image"
		for ((i = 1; i <= last; i++)); do
			seq $i $((i + 999)) | cmp - "$T/files/f$i" || fail "f$i of $last was synced, and is not on ${image##*/}"
		done
		rm -rf "$T/files"
	done
}
case_sigkill() { sigkill raw; }
case_sigkill_qcow2() { sigkill qcow2; }
