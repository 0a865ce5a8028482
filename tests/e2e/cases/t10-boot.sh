# Kernels and the ways into them.
# shellcheck shell=bash

case_boot_shell()
{
	vm_start "${boot[@]}" --cmdline 'console=ttyS0 quiet'
	vm_expect 100 'no root=: a shell'
	vm_send "uname -sr; echo \$((6 * 7)) of \$(nproc)"
	vm_expect 100 '^Linux 6\.1\.'
	vm_expect 100 '^42 of 1$'
	vm_send 'exit 0'
	vm_end 100 0
}

boots() # DIR WHY-NOT KERNEL-FILE RELEASE
{
	[[ $1 ]] || skip "no kernel: $2"
	vm 90 0 --kernel "$1/$3" --initrd "$1/initrd" --mem 256M --append "$(run 'echo up: $(uname -r)')"
	says "^up: $4"
}
case_boot_full() { boots "$K61" "${K61_WHY-}" vmlinuz '6\.1\..*[0-9]-amd64'; }
case_boot_612_cloud() { boots "$K612C" "${K612C_WHY-}" vmlinuz '6\.12\..*-cloud-amd64'; }
case_boot_pvh() { boots "$K61C" '' vmlinux '6\.1\.'; }
case_boot_pvh_612() { boots "$K612C" "${K612C_WHY-}" vmlinux '6\.12\.'; }

# XLF_KERNEL_64, bit 0 of xloadflags, says that there is a 64-bit entry.
case_boot_32bit()
{
	local flags
	cp "$K61C/vmlinuz" "$T/vmlinuz"
	flags=$(od -An -v -t u1 -j $((0x236)) -N 1 "$T/vmlinuz")
	((flags & 1)) || fail "the kernel has no 64-bit entry to hide"
	# shellcheck disable=SC2059
	printf "\\x$(printf %x $((flags & ~1)))" | dd of="$T/vmlinuz" bs=1 seek=$((0x236)) conv=notrunc status=none
	cmp -s "$K61C/vmlinuz" "$T/vmlinuz" && fail 'the flag is as it was'
	vm 90 0 --kernel "$T/vmlinuz" --initrd "$K61C/initrd" --mem 256M --append "$(run 'echo up: $(uname -r)')"
	says '^up: 6\.1\.'
}

cpus()
{
	vm 90 0 "${boot[@]}" --cpus "$1" --append "$(run 'echo cpus: $(nproc) of $(grep -c ^processor /proc/cpuinfo)')"
	says "^cpus: $1 of $1\$"
}
case_cpus_1() { cpus 1; }
case_cpus_2() { cpus 2; }
case_cpus_4() { cpus 4; }

memory() # SIZE KIB-AT-LEAST KIB-AT-MOST
{
	local total
	vm 90 0 --kernel "$K61C/vmlinuz" --initrd "$K61C/initrd" --mem "$1" \
		--append "$(run 'grep MemTotal /proc/meminfo; grep -i ram /proc/iomem')"
	total=$(awk '/^MemTotal:/ { print $2 }' "$T/out")
	((total >= $2 && total <= $3)) || fail "MemTotal is '$total', not $2 to $3"
}

# A bzImage moves itself up to its preferred address when it is loaded below it (x86 boot protocol, pref_address), so
# with less than that plus its init_size it cannot start, and vmm is to say so. Debian's 6.1-cloud needs 68 MiB.
case_mem_64M()
{
	local field need=0
	for field in $((0x258)) $((0x260)); do
		need=$((need + $(od -An -v -t u4 -j "$field" -N 4 "$K61C/vmlinuz")))
	done
	if ((need <= 64 << 20)); then
		memory 64M 30000 65536
	else
		vm 100 2 --kernel "$K61C/vmlinuz" --initrd "$K61C/initrd" --mem 64M
		err_says 'kernel.*--mem'
		(($(wc -l <"$T/err") == 1)) || fail "more than a line"
	fi
}
case_mem_96M() { memory 96M 40000 98304; }
case_mem_1G() { memory 1G 950000 1048576; }
case_mem_5G()
{
	memory 5G 4900000 5242880
	says '^100000000-[0-9a-f]+ : System RAM' # what the hole displaced
}
case_mmio()
{
	random "$T/disk" 1M
	vm 100 0 "${boot[@]}" --transport mmio --disk "$T/disk" \
		--append "$(run 'ls -d /sys/bus/pci/devices/*; readlink -f /sys/block/vda; md5sum /dev/vda')"
	says 'LNRO0005'
	says "^$(md5sum <"$T/disk" | cut -d ' ' -f 1) "
}
