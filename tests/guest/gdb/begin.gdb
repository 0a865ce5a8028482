# begin.gdb: what the other scripts begin with; $socket says where vmm is.
set pagination off
set confirm off
set remotetimeout 60
define check
	if $arg0
		echo ok - $arg1\n
	else
		echo not ok - $arg1\n
	end
end
eval "target remote %s", $socket
