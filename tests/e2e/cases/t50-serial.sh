# The console, wherever it goes.
# shellcheck shell=bash

case_serial_file()
{
	vm 100 0 "${boot[@]}" --serial "file:$T/file" --append "$(run 'seq 1 2000; echo end')"
	seq 1 2000 >"$T/expect"
	tr -d '\r' <"$T/file" | grep -xE '[0-9]+' | cmp - "$T/expect" || fail 'not every line arrived'
	[[ ! -s $T/out ]] || fail 'there is something on standard output'
}

# The guest asks, whoever is connected answers.
ask='while :; do echo who; read -t 1 who && break; done; echo hello $who'

answer() # SOCAT-ADDRESS: say something once asked, note the reply
{
	local line
	coproc peer { exec timeout 100 socat - "$1"; }
	# shellcheck disable=SC2154
	exec {from_peer}<&"${peer[0]}" {to_peer}>&"${peer[1]}"
	while IFS= read -r -t 100 -u "$from_peer" line; do
		line=${line%$'\r'}
		echo "$line"
		[[ $line != who ]] || echo 'a b c' >&"$to_peer"
		[[ $line != 'hello a b c' ]] || return 0
	done
	fail "no 'hello a b c' on $1"
}

case_serial_unix()
{
	vm_start "${boot[@]}" --serial "unix:$T/socket" --append "$(run "$ask")"
	answer "UNIX-CONNECT:$T/socket,retry=100,interval=0.1"
	vm_end 100 0
	[[ ! -e $T/socket ]] || fail 'the socket is still there'
}

case_serial_pty()
{
	vm_start "${boot[@]}" --serial pty --append "$(run "$ask")"
	err_expect 20 'serial on /dev/pts/[0-9]+'
	answer "$(sed -n 's,.*serial on \(/dev/pts/[0-9]*\).*,\1,p' "$T/err"),rawer"
	vm_end 100 0
}

case_serial_none()
{
	truncate -s 1M "$T/disk"
	vm 100 0 "${boot[@]}" --serial none --disk "$T/disk" --append "$(run 'seq 1 500; echo ran >/dev/vda; sync')"
	[[ ! -s $T/out ]] || fail 'there is something on standard output'
	[[ $(head -c 3 "$T/disk") = ran ]] || fail 'the guest did not run'
}

# More than the FIFO and the pipe hold, in and out.
case_serial_paste()
{
	seq 1 3000 >"$T/lines"
	vm_start "${boot[@]}" --append "$(run 'stty -echo; echo ready; i=0; while [ $i -lt 3000 ] && read line; do i=$((i + 1)); echo got $line; done; echo end')"
	vm_expect 100 '^ready$'
	cat "$T/lines" >&"$to_vm" &
	vm_expect 100 '^got 1500$'
	echo '#+ half of it' >&"$tap"
	vm_expect 100 '^end$'
	vm_end 100 0
	sed -n 's/^got //p' "$T/out" | cmp - "$T/lines" || fail 'not every line came through'
}
