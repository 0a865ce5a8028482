# GDB on a stock kernel. A breakpoint in memory is tests/guest's: the lab's emulator gives int3 to a nested guest itself.
# shellcheck shell=bash

case_gdb()
{
	local addr what
	vm_start "${boot[@]}" --cpus 2 --gdb "unix:$T/gdb" --append \
		"$(run 'grep " __x64_sys_sethostname$" /proc/kallsyms; echo ready; read x; busybox hostname other; echo went on')"
	vm_expect 100 '^ready$'
	addr=0x$(sed -n 's/ . __x64_sys_sethostname.*//p' "$T/out")
	timeout 100 gdb -nx -nh --batch -ex 'set pagination off' -ex 'set remotetimeout 100' \
		-ex "target remote $T/gdb" -ex 'info threads' -ex "hbreak *$addr" -ex "shell echo go >$T/.in" -ex continue \
		-ex "printf \"pc %#lx\n\", \$pc" -ex "x/2i \$pc" -ex stepi -ex "printf \"step %d\n\", \$pc > $addr" \
		-ex "printf \"paging %d\n\", (\$cr0 >> 31) & 1" -ex "x/2gx \$rsp" -ex detach >"$T/gdb.log" 2>&1 ||
		fail "gdb: $(cat "$T/gdb.log")"
	for what in 'Thread 2 \(CPU 1\)' "^pc $addr\$" '^step 1$' '^paging 1$' 'detached'; do
		grep -qE -e "$what" "$T/gdb.log" || fail "gdb did not say '$what': $(cat "$T/gdb.log")"
	done
	vm_expect 100 '^went on$'
	vm_end 100 0
}
