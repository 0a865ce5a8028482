# die.gdb: gdb is killed, with a breakpoint in the guest's memory; the guest goes on.
source tests/guest/gdb/begin.gdb
set breakpoint always-inserted on
hbreak *main
continue
break *here
check 1 "a breakpoint is there"
shell kill -KILL $PPID
