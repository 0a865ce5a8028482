# No guest: what vmm says to what it cannot do. One line, exit status 2 for wrong usage, 1 for what is not there.
# shellcheck shell=bash

refuses() # STATUS ERE ARG...
{
	local status=0
	timeout 100 "$VMM" "${@:3}" >"$T/out" 2>"$T/err" || status=$?
	((status == $1)) || fail "vmm ${*:3}: exit status $status, not $1"
	(($(wc -l <"$T/err") == 1)) || fail "vmm ${*:3}: $(wc -l <"$T/err") lines, not one"
	grep -qE -e "$2" "$T/err" || fail "vmm ${*:3}: does not say '$2'"
	[[ ! -s $T/out ]] || fail "vmm ${*:3}: there is something on standard output"
}

case_usage()
{
	local kernel=(--kernel "$K61C/vmlinuz")
	refuses 2 'no kernel'
	refuses 2 "'--kernal'.*did you mean '--kernel'" --kernal x
	refuses 2 "unknown option '--qqqqqqqq'" --qqqqqqqq
	refuses 2 "unknown command 'frob'" frob
	refuses 2 '--kernel needs a value' --kernel
	refuses 2 "--mem: '5X'" "${kernel[@]}" --mem 5X
	refuses 2 "--mem: '1K'" "${kernel[@]}" --mem 1K
	refuses 2 "--mem: '-1'" "${kernel[@]}" --mem -1
	refuses 2 "--mem: '99999999999999999999G'" "${kernel[@]}" --mem 99999999999999999999G
	refuses 2 "--cpus: '0'" "${kernel[@]}" --cpus 0
	refuses 2 "--cpus: '65'" "${kernel[@]}" --cpus 65
	refuses 2 "--transport: 'usb'" "${kernel[@]}" --transport usb
	refuses 2 "--serial: 'foo'" "${kernel[@]}" --serial foo
	refuses 2 "'readonyl'; did you mean 'readonly'" "${kernel[@]}" --disk "a,readonyl"
	refuses 2 'no PATH' disk create
}

case_missing_files()
{
	refuses 2 "$T/none.bzImage" --kernel "$T/none.bzImage"
	refuses 2 "$T/none.initrd" --kernel "$K61C/vmlinuz" --initrd "$T/none.initrd"
	refuses 2 "$T/none.img" --kernel "$K61C/vmlinuz" --initrd none --disk "$T/none.img"
	head -c 100000 "$K61C/vmlinuz" >"$T/short"
	refuses 2 "$T/short.*truncated" --kernel "$T/short" --initrd none
	random "$T/noise" 100000
	refuses 2 "$T/noise" --kernel "$T/noise" --initrd none
}

case_disk_create()
{
	"$VMM" disk create "$T/thin" 8M
	"$VMM" disk create --thick "$T/thick" 8M
	[[ $(stat -c %s "$T/thin" "$T/thick" | tr '\n' ' ') = '8388608 8388608 ' ]] || fail 'sizes'
	(($(stat -c %b "$T/thin") < 64)) || fail 'the thin one is not'
	(($(stat -c %b "$T/thick") >= 16384)) || fail 'the thick one is not'
	refuses 2 "$T/thin" disk create "$T/thin" 8M
}
