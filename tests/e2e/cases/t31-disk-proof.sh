# Disks: what is kept when snapshots are taken under load, and when vmm is killed at any moment.
# shellcheck shell=bash

# A disk with programs of Debian's that the initrd does not have, and the libraries they need.
programs() # FILE PROGRAM...
{
	local dir=$1.files program file
	for program in "${@:2}"; do
		program=$(command -v "$program") || fail "no ${program##*/} here: scripts/deps test"
		for file in "$program" $(ldd "$program" | grep -o '/[^ ]*'); do
			mkdir -p "$dir${file%/*}"
			cp -n "$(realpath "$file")" "$dir$file"
		done
	done
	mke2fs -q -F -t ext4 -O ^has_journal -d "$dir" "$1" "$(du -sm "$dir" | awk '{ print int($1 * 1.2) + 8 }')M"
	rm -r "$dir"
}
use_programs='mkdir -p /programs; mount -t ext4 -o ro /dev/vdb /programs; ln -s /programs/* /'

# fio writes, reads and verifies all of the disk again and again, by two jobs on two processors, so by two queues, over a
# chain of three. Snapshots are taken in the middle of that; in the end the host compares.
case_disk_fio()
{
	local name
	export VMM_RUNTIME_DIR=$T/run
	mkdir "$T/run"
	programs "$T/programs" fio
	random "$T/raw" 16M
	image qcow2
	echo "#+ the disk with fio is made" >&"$tap"
	vm_start "${boot[@]}" --name fio --cpus 2 --disk "$T/disk" --disk "$T/programs,readonly" --append "$(run "$use_programs"'
		echo queues $(ls /sys/block/vda/mq | wc -l)
		at=100
		while :; do
			set -- $(cat /sys/block/vda/stat)
			[ $5 -lt $at ] || { echo wrote $5; at=$(($5 + 100)); }
			usleep 200000
		done &
		n=0
		until [ -e /tmp/stop ]; do
			n=$((n + 1))
			/usr/bin/fio --name=v --filename=/dev/vda --size=8M --offset_increment=8M --numjobs=2 --thread --loops=2 \
				--cpus_allowed=0,1 --cpus_allowed_policy=split --ioengine=libaio --iodepth=8 --direct=1 --randseed=$n \
				--rw=randrw --bsrange=4k-64k --verify=crc32c --verify_backlog=16 --verify_fatal=1 --output=/tmp/fio --eta=never ||
				{ cat /tmp/fio; echo wrong; break; }
			echo pass $n
		done &
		read x
		touch /tmp/stop
		wait $!
		echo sum $(md5sum </dev/vda)')"
	for name in one two three; do
		vm_expect 100 '^wrote '
		"$VMM" ctl fio snapshot disk0 $name || fail "snapshot $name: status $?"
		echo "#+ snapshot $name" >&"$tap"
	done
	vm_expect 100 '^wrote '
	vm_expect 100 '^pass '
	vm_send stop
	vm_end 100 0
	says '^queues 2$'
	! grep -a '^wrong' "$T/out" || fail 'fio found something else than it wrote'
	"$VMM" disk list "$T/disk" >"$T/list"
	for name in one two three; do
		grep -q "^$name .*$T/disk@$name\$" "$T/list" || fail "no snapshot $name: $(cat "$T/list")"
		"$VMM" disk check "$T/disk@$name" || fail "snapshot $name is damaged"
		qemu-img check -q "$T/disk@$name" || fail "snapshot $name: qemu-img check: status $?"
	done
	"$VMM" disk check "$T/disk"
	unwrap qcow2 "$T/disk"
	says "^sum $(sum "$T/disk") "
}

# What a writer has synced, if it came to that number.
written() # N
{
	local n
	for ((n = 1; n <= $1; n++)); do seq "$n" $((n + 999)); done
}
last_synced() { sed -n "s/^synced $1 \([0-9]*\)\$/\1/p" "$T/out" | tail -n 1 | grep . || echo 0; }

# vmm is killed KILLS times at random moments: while the guest replays its journal, and while two writers, each with files
# of its own, append and sync. Each time the image is sound, and the next boot finds all that was ever synced.
case_disk_kills()
{
	local kills=${KILLS:-2} seed=${KILLS_SEED:-$((RANDOM * 32768 + RANDOM))} n k w all='' dash='' wait
	local -a sums=()
	echo "# disk_kills: KILLS=$kills KILLS_SEED=$seed" >&"$tap"
	RANDOM=$((seed % 32768))
	truncate -s 256M "$T/raw"
	mke2fs -q -F -t ext4 -E assume_storage_prezeroed=1 "$T/raw"
	image qcow2
	mkfifo "$T/never"
	exec {never}<>"$T/never"
	for ((n = 1; n <= kills + 1; n++)); do
		vm_start "${boot[@]}" --cpus 2 --disk "$T/disk" --append "$(run '
			stty -echo; echo ready; read n all
			mkdir -p /mnt; mount -t ext4 /dev/vda /mnt && echo mounted
			dmesg | grep "EXT4-fs (vda): recovery complete" | sed "s/.*/replayed/"
			for f in $all; do echo is ${f%=*} $(head -c ${f#*=} /mnt/${f%=*} | md5sum); done
			echo found all
			w() {
				i=0
				while :; do i=$((i + 1)); seq $i $((i + 999)) | dd of=/mnt/$1$n oflag=append conv=notrunc,fsync 2>/dev/null && echo synced $1 $i; done
			}
			[ $n = last ] && umount /mnt || { w a & w b; }')"
		vm_expect 100 '^ready$'
		vm_send "$( ((n > kills)) && echo last || echo $n) $all"
		wait=$(printf 0.%03d $((RANDOM % 500)))
		if ((n > kills)); then
			vm_end 100 0
		elif ((RANDOM % 5 || n == kills)); then # the last when something was synced
			vm_expect 100 '^found all$'
			for ((k = RANDOM % 25 + (n == kills); k; k--)); do vm_expect 100 '^synced '; done
		fi
		if ((n <= kills)); then
			read -r -t "$wait" -u "$never" || true # a moment that nothing marks
			kill -KILL "$vm_pid"
			vm_end 100 137
		fi
		# What was known before this boot, if it came so far to say it.
		if grep -qa '^found all$' "$T/out"; then
			((${#sums[@]} == 0)) || says '^replayed$'
			for w in "${sums[@]}"; do says "^is $w "; done
		fi
		for w in a b; do
			k=$(last_synced $w)
			((k)) || continue
			all+="$dash$w$n=$(written "$k" | wc -c)" dash=' '
			sums+=("$w$n $(written "$k" | md5sum | cut -d ' ' -f 1)")
		done
		"$VMM" disk check "$T/disk" >"$T/check" || fail "after kill $n: $(cat "$T/check")"
		echo "#+ boot $n: $(last_synced a) and $(last_synced b) synced; $(tr '\n' ' ' <"$T/check")" >&"$tap"
	done
	says '^found all$'
	((${#sums[@]})) || fail 'nothing was ever synced'
	unwrap qcow2 "$T/disk"
	e2fsck -fn "$T/disk" || fail "e2fsck: status $?"
}
