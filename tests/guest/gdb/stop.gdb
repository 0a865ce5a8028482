# stop.gdb: one processor: breakpoints of both kinds, steps, registers, memory, detach.
source tests/guest/gdb/begin.gdb
check $pc==(long)&pvh_entry "it waits at its first instruction"
check $cr0%2==1 "protected mode"
hbreak *here
continue
check $pc==(long)&here "a hardware breakpoint"
check $rdi==1 "an argument"
check ($efer>>10)%2==1 "long mode"
check {char}$pc!=-52 "code as it is"
set $rdi = 77
set {long}&told = 0x1122334455667788
check $rdi==77 "a register is written"
check {long}&told==0x1122334455667788 "memory is written"
set $was = $pc
stepi
check $pc!=$was "a step"
check $pc<$was+16 "a step is short"
delete
break *guest_exit
continue
check $pc==(long)&guest_exit "a breakpoint in memory"
check $rdi==0 "the guest saw what was written"
stepi
check $pc>(long)&guest_exit "a step off a breakpoint"
detach
quit
