# The ways a guest ends, and the exit status of each.
# shellcheck shell=bash

case_poweroff() { vm 100 0 "${boot[@]}" --append "$(run 'poweroff -f')"; }

# The disk tells the second boot from the first.
twice='if [ "$(head -c 6 /dev/vda)" = second ]; then echo boot 2; else echo boot 1; printf second | dd of=/dev/vda conv=fsync 2>/dev/null; reboot -f; fi'
case_reboot()
{
	truncate -s 1M "$T/disk"
	vm_start "${boot[@]}" --cpus 2 --disk "$T/disk" --append "$(run "$twice")"
	vm_expect 100 '^boot 1$'
	vm_expect 100 '^boot 2$'
	vm_end 100 0
}
case_no_reboot()
{
	truncate -s 1M "$T/disk"
	vm 100 0 "${boot[@]}" --disk "$T/disk" --no-reboot --append "$(run "$twice")"
	says '^boot 1$'
	! grep -q '^boot 2$' "$T/out" || fail 'it booted again'
	[[ $(head -c 6 "$T/disk") = second ]] || fail 'what was synced is not on the disk'
}

case_panic()
{
	vm 100 3 "${boot[@]}" --append "$(run 'echo before; echo c >/proc/sysrq-trigger')"
	says '^before$'
	err_says 'panic'
}

# Debian's cloud kernels have no /dev/port.
case_test_exit()
{
	[[ $K61 ]] || skip "no kernel: ${K61_WHY-}"
	vm 100 42 --kernel "$K61/vmlinuz" --initrd "$K61/initrd" \
		--append "$(run 'printf \\052 | dd of=/dev/port bs=1 seek=$((0xf4)) 2>/dev/null; echo still here')"
	! grep -q 'still here' "$T/out" || fail 'the guest went on'
}

case_sigterm()
{
	vm_start "${boot[@]}" --append "$(run 'echo ready; while :; do sleep 100; done')"
	vm_expect 100 '^ready$'
	kill -TERM "$vm_pid"
	vm_end 100 0
	says 'initrd: power button'
}
case_sigint()
{
	vm_start "${boot[@]}" --append "$(run 'echo ready; while :; do sleep 100; done')"
	vm_expect 100 '^ready$'
	kill -INT "$vm_pid"
	vm_end 100 0
	says 'initrd: power button'
}

case_sigterm_twice()
{
	vm_start "${boot[@]}" --append "$(run 'killall acpid; echo ready; while :; do sleep 100; done')"
	vm_expect 100 '^ready$'
	kill -TERM "$vm_pid"
	err_expect 100 'power button pressed'
	kill -TERM "$vm_pid"
	vm_end 100 1
	err_says 'second signal: stopped'
}

case_pidfile()
{
	vm_start "${boot[@]}" --pidfile "$T/pid" --append "$(run 'echo ready; read line; echo got $line')"
	vm_expect 100 '^ready$'
	[[ $(<"$T/pid") = "$vm_pid" ]] || fail "it holds '$(<"$T/pid")', not $vm_pid"
	vm_send on
	vm_end 100 0
	says '^got on$'
	[[ ! -e $T/pid ]] || fail 'it is still there'
}
