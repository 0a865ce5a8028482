# cases.sh: what tests/guest/api and its like are written with. A case runs in a shell of its own, in a scratch directory,
# with names and sockets that no other sees; `case_NAME` returns, or ends by fail or skip.
#
#   VMM=build/vmm PAYLOADS=build/guest  what is run
# shellcheck shell=bash
set -euo pipefail
self=$(realpath "$0")
cd "$(dirname "$self")/../.."

VMM=$(realpath "${VMM:-build/vmm}")
PAYLOADS=$(realpath "${PAYLOADS:-build/guest}")
FAULTY=${VMM%/*}/vmm-faulty
[[ -x $VMM ]] || { echo "Bail out! $VMM is not there: make"; exit 1; }
why_not=
[[ -r /dev/kvm && -w /dev/kvm ]] || why_not='/dev/kvm is not there, or cannot be opened'
tmp=$(mktemp -d "${TMPDIR:-/tmp}/vmm-api-XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM HUP

pids=() vm='' from_vm=''

# Wherever it is by now.
fail() { printf '%s\n' "$*" >"$case_dir/.why"; exit 1; }
skip() { printf '%s\n' "$*" >"$case_dir/.why"; exit 77; }
note() { printf '# %s\n' "$*" >>"$case_dir/.note"; }	# what a case that passed found

# vm_start ARG...: its console can be read; what it says itself goes to err, and is waited for by err_expect.
vm_start()
{
	rm -f .console .in
	mkfifo .console .in
	: >out
	"$VMM" "$@" 2>err <.in >.console &
	vm=$!
	pids+=("$vm")
	exec {to_vm}>.in {from_vm}<.console
}

# A line of the console that matches.
expect()
{
	local line
	while IFS= read -r -t 60 -u "$from_vm" line; do
		printf '%s\n' "$line" >>out
		[[ ! $line =~ $1 ]] || return 0
	done
	fail "the guest did not say '$1': $(cat out err)"
}

err_expect()
{
	grep -qE -m 1 -e "$1" < <(exec timeout 60 tail -n +1 -f --pid="$vm" err 2>/dev/null) || fail "vmm did not say '$1'"
}

vm_end() # STATUS
{
	local status=0
	timeout 60 cat <&"$from_vm" >>out || fail 'no end within 60 s'
	wait "$vm" || status=$?
	exec {from_vm}<&- {to_vm}>&-
	((status == $1)) || fail "exit status $status, not $1: $(cat err)"
}

# request STATUS METHOD PATH [JSON]: by curl; the answer is in answer.
request()
{
	local args=(-s -S -o answer -w '%{http_code}' --max-time 60 --unix-socket sock -X "$2" "http://localhost$3") got
	(($# < 4)) || args+=(-H 'Content-Type: application/json' -d "$4")
	: >answer
	got=$(curl "${args[@]}") || fail "$2 $3: curl failed"
	[[ $got == "$1" ]] || fail "$2 $3: status $got, not $1: $(cat answer)"
}
put() { request 204 PUT "$@"; }
get() { request 200 GET "$@"; }
answer_has() { grep -qF -e "$1" answer || fail "the answer has no '$1': $(cat answer)"; }

# refuses STATUS ERE ARG...: vmm says one line, and ends so.
refuses()
{
	local status=0
	timeout 60 "$VMM" "${@:3}" </dev/null >out 2>err || status=$?
	((status == $1)) || fail "vmm ${*:3}: exit status $status, not $1: $(cat err)"
	(($(wc -l <err) == 1)) || fail "vmm ${*:3}: not one line: $(cat err)"
	grep -qE -e "$2" err || fail "vmm ${*:3}: does not say '$2': $(cat err)"
}

# What tests/guest/faulty.c is told by the file $FAULTS, which it has mapped: its Nth allocation from now on fails, 0: none;
# and the time of day is wrong by so much.
tell_faulty() # N SECONDS
{
	local number byte bytes=
	[[ -x $FAULTY ]] || skip "$FAULTY is not there: make"
	for number; do
		for ((byte = 0; byte < 64; byte += 8)); do
			printf -v bytes '%s\\x%02x' "$bytes" "$((number >> byte & 255))"
		done
	done
	export FAULTS=$case_dir/.faults
	# shellcheck disable=SC2059 # bytes it is
	printf "$bytes" 1<>"$FAULTS"
}
allocation_failed() { cmp -s -n 8 "$FAULTS" /dev/zero; }

# Of a VM with a socket: KiB that are its own, descriptors, threads.
measure() # PID
{
	get / # whoever was before is forgotten when this is answered
	awk '/^Private_Dirty/ { print $2 }' "/proc/$1/smaps_rollup"
	# The least of many: the request's own connection is closed at some time after its answer.
	for _ in {1..100}; do find "/proc/$1/fd" -type l | wc -l; done | sort -n | head -n 1
	find "/proc/$1/task" -mindepth 1 -maxdepth 1 | wc -l
}

boot_source() # PAYLOAD [ARGS]
{
	put /boot-source "{\"kernel_image_path\":\"$PAYLOADS/$1.elf\",\"boot_args\":\"${2-}\"}"
}
start() { put /actions '{"action_type":"InstanceStart"}'; }

# A VM that waits for the API.
waiting()
{
	vm_start --api-sock sock
	err_expect 'waiting on sock'
}

wanted()
{
	local pattern
	for pattern in "${@:2}"; do
		# shellcheck disable=SC2053 # a pattern it is
		[[ $1 != $pattern ]] || return 0
	done
	return 1
}

leave()
{
	local pid
	for pid in "${pids[@]}" $(jobs -p); do kill -KILL "$pid" 2>/dev/null || true; done
	wait 2>/dev/null || true
}

# The first line of FILE, for that of a case that failed.
reason() { [[ ! -s $1 ]] || head -n 1 "$1" | tr -d '#' | cut -c 1-150 | sed 's/^/: /'; }

# Those of the script whose name matches one of the patterns, or all; in TAP, and their sum.
run_cases() # [PATTERN...]
{
	local name status count=0 passed=0 failed=0 skipped=0
	for name in $(sed -n 's/^case_\([a-z_]*\)().*/\1/p' "$self"); do
		wanted "$name" "${@:-*}" || continue
		count=$((count + 1))
		if [[ $why_not ]]; then
			skipped=$((skipped + 1))
			echo "ok $count - ${self##*/}-$name # SKIP $why_not"
			continue
		fi
		case_dir=$tmp/$name
		mkdir -p "$case_dir/names"
		set +e
		(
			set -e
			cd "$case_dir"
			export VMM_RUNTIME_DIR=$PWD/names
			trap leave EXIT
			"case_$name"
		) >"$tmp/log" 2>&1
		status=$?
		set -e
		if ((status == 0)); then
			passed=$((passed + 1))
			echo "ok $count - ${self##*/}-$name"
			cat "$case_dir/.note" 2>/dev/null || true
		elif ((status == 77)); then
			skipped=$((skipped + 1))
			echo "ok $count - ${self##*/}-$name # SKIP $(<"$case_dir/.why")"
		else
			failed=$((failed + 1))
			echo "not ok $count - ${self##*/}-$name$(reason "$case_dir/.why")"
			cat "$case_dir/.why" "$tmp/log" 2>/dev/null | head -n 30 | sed 's/^/# /' || true
		fi
		rm -rf "${case_dir:?}"
	done
	echo "1..$count"
	echo "$passed passed, $failed failed, $skipped skipped"
	((failed == 0))
}
