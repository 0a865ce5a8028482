# Sockets between guest and host: Linux's driver of a vsock device.
# shellcheck shell=bash

# So many at a time: all that is sent to the guest's port 52 by the socket comes back, and then the end of it.
echoes() # SOCKET NUMBER
{
	python3 - "$@" <<-'EOT' || fail "by ${1##*/}"
		import os, socket, sys, threading, time

		def ask(port):
		    s = socket.socket(socket.AF_UNIX)
		    s.settimeout(100)
		    s.connect(sys.argv[1])
		    s.sendall(b"CONNECT %d\n" % port)
		    line = b""
		    while not line.endswith(b"\n"):
		        c = s.recv(1)
		        if not c:
		            return None
		        line += c
		    assert line.startswith(b"OK "), line
		    return s

		def echo(size):
		    data = os.urandom(size)
		    while not (s := ask(52)):	# its server is about to listen
		        time.sleep(0.1)
		    def send():
		        s.sendall(data)
		        s.shutdown(socket.SHUT_WR)
		    threading.Thread(target=send).start()
		    back = b""
		    while piece := s.recv(1 << 16):
		        back += piece
		    if back != data:
		        wrong.append((size, len(back)))

		wrong = []
		all = [threading.Thread(target=echo, args=(30000 * n + n,)) for n in range(int(sys.argv[2]))]
		[t.start() for t in all]
		[t.join() for t in all]
		assert not wrong, wrong
		assert ask(53) is None
	EOT
}

# Files to the host and from it, connections from there, with ends of either kind; all of that again in a VM that goes on
# from a snapshot, where those that were are reset.
vsock() # ARG...
{
	local back
	export VMM_RUNTIME_DIR=$T/run
	mkdir "$T/run"
	programs "$T/programs" socat
	random "$T/there" 1M
	socat -u "OPEN:$T/there" "UNIX-LISTEN:$T/v_5001" &
	socat -u "UNIX-LISTEN:$T/v_5002" "CREATE:$T/back" &
	back=$!
	socat -u "UNIX-LISTEN:$T/v_5004" - >/dev/null &
	vm_start "${boot[@]}" --name one --disk "$T/programs,readonly" --vsock "cid=3,uds=$T/v" "$@" \
		--append "$(run "${use_programs/vdb/vda}"'
		s=/usr/bin/socat
		$s -u VSOCK-CONNECT:2:5001 CREATE:/tmp/f; echo sum $(md5sum </tmp/f)
		$s -u OPEN:/tmp/f VSOCK-CONNECT:2:5002; echo sent $?
		$s -u OPEN:/tmp/f VSOCK-CONNECT:2:5003 2>/dev/null || echo nobody
		$s -t 100 VSOCK-LISTEN:52,fork EXEC:"/bin/busybox cat" &
		($s -u VSOCK-CONNECT:2:5004 CREATE:/tmp/held 2>/dev/null; echo held $?) &
		echo serves
		while read word && [ "$word" != stop ]; do echo "heard $word"; done')"
	vm_expect 100 '^serves$'
	says "^sum $(sum "$T/there") "
	says '^sent 0$'
	says '^nobody$'
	wait "$back"
	cmp "$T/there" "$T/back" || fail 'what the guest sent is not what came'
	echoes "$T/v" 8
	"$VMM" ctl one pause
	"$VMM" ctl one resume
	echoes "$T/v" 2
	"$VMM" ctl one save "$T/saved" || fail "save: status $?"
	echoes "$T/v" 2
	vm_send still
	vm_expect 100 '^heard still$'
	! grep -aq '^held' "$T/out" || fail 'saving ended a connection'
	vm_send stop
	vm_end 100 0
	[[ ! -e $T/v ]] || fail 'the socket is left'
	vm_start restore "$T/saved" --name two --vsock "uds=$T/w"
	vm_expect 100 '^held [1-9]'
	echoes "$T/w" 4
	vm_send stop
	vm_end 100 0
}
case_vsock() { vsock --cpus 2; }
case_vsock_mmio() { vsock --transport mmio; }
