# smp.gdb: two processors: who stopped, steps of one alone.
source tests/guest/gdb/begin.gdb
info threads
hbreak *here if $rdi==2
thbreak *second
continue
check $_thread==2 "the second processor stops"
check $pc==(long)&second "where it was told to"
set scheduler-locking on
set $was = $pc
stepi
check $pc!=$was "it steps"
thread 1
set $was = $pc
thread 2
stepi
thread 1
check $pc==$was "and the other one does not"
set {long}&told = {long}&told
check {long}&count==0 "nothing has been counted yet"
set scheduler-locking off
continue
check $_thread==1 "the first stops"
check {long}&count>=1000 "while the second ran"
thread 2
check $pc>=(long)&second "where it is stopped, too"
kill
quit
