# What the cases are written with. A case is a function case_NAME in cases/, run in a shell of its own with errexit
# on and a scratch directory $T; it fails by fail(), or by any command that fails, and nothing is run twice.
#
#   vm_start ARG...          start vmm with its console on a pipe; $vm_pid
#   vm_expect SECONDS ERE    read the console up to a line that matches
#   vm_send TEXT             type a line
#   vm_end SECONDS STATUS    read the rest, wait for vmm, compare its exit status
#   vm SECONDS STATUS ARG... all of it
#   says ERE, err_says ERE   the console, or vmm's own messages, have a line that matches
#   run TEXT                 a word for the kernel command line: the guest's initrd runs TEXT, then powers off
#   boot                     array: vmm's arguments for the usual kernel, $K61C; $K61, $K612C: the directories
#
# In the lab a guest can also die of the emulated processor, no fault of vmm's (see lost()): then tests/e2e/run is told,
# and runs the case again in a fresh L1.
# shellcheck shell=bash

vm_pid='' to_vm='' from_vm=''

fail() { printf '%s\n' "$*" >"$T/.why"; exit 1; }
skip() { printf '%s\n' "$*" >"$T/.skip"; exit 0; }

vm_start()
{
	# A line for whoever watches that L1 is alive; the runner keeps it to itself.
	echo "#+ ${FUNCNAME[1]}: vmm ${*@Q}" >&"$tap"
	rm -f "$T/.in" "$T/.console"
	mkfifo "$T/.in" "$T/.console"
	: >"$T/out"
	"$VMM" "$@" <"$T/.in" >"$T/.console" 2>"$T/err" {tap}>&- &
	vm_pid=$!
	exec {to_vm}>"$T/.in" {from_vm}<"$T/.console"
}

vm_expect()
{
	local line end=$((SECONDS + $1))
	while ((SECONDS < end)) && IFS= read -r -t $((end - SECONDS)) -u "$from_vm" line; do
		line=${line%$'\r'}
		printf '%s\n' "$line" >>"$T/out"
		[[ ! $line =~ $2 ]] || return 0
	done
	((SECONDS >= end)) || fail "no line '$2' until the console ended"
	look_at_vm
	fail "no line '$2' within $1 s: $seen"
}

vm_send() { printf '%s\n' "$1" >&"$to_vm"; }

# The lab's emulator now and then takes an interrupt into a nested guest that has them disabled, or does not find the
# page that the guest runs in (see scripts/lab). As that counts only what L1's KVM testifies:
#  - A processor of the guest runs on for two seconds, but takes no interrupt, not even its timer's, which is KVM's, and
#    asks for nothing: it has disabled them for good.
#  - A processor of the guest is, by its own RIP, in the midst of L1's function that runs guests, and exits there over and
#    over (its page tables are L1's too, which lead nowhere): the emulator has put L1's state where the guest's was.
#  - A triple fault that began with an instruction fetch of the guest's kernel from a page that is not present, or whose
#    entry has reserved bits set, or with the delivery of an interrupt that KVM injected (which the emulator may do a
#    second time: see scripts/lab).
# No device, lost request or lost interrupt of vmm's looks like this; memory or registers that vmm spoilt could, which
# is why tests/e2e/run is told, says so, and lets it happen only so often. The case is given up unfinished, and
# this L1 with it, for it may go on so.
#
# And now and then a whole L1 gets the timers of its guests late, by seconds each, from its first guest on. So a payload
# that waits for eight of them, a millisecond at most, is run before the first case and after each that failed: all that
# it needs is KVM's, and that vmm lets it have them is a test of the layer `guest`, on this machine's own KVM. And of a
# guest that does not come to its end, L1 is asked when the timer that KVM keeps for it is due: one that was, a second
# ago, L1 does not see to; and as Linux wants one for its watchdog every four seconds, one that is due later than in ten
# was asked for by a clock that leapt, and clocks are KVM's.
traces=/sys/kernel/debug/tracing
lost()
{
	{
		echo "#+ lost: $*"
		{ tail -n 30 "$T/err" "$T/out" 2>/dev/null || true; } | tr -d '\r\000' | cut -c 1-300 | sed 's/^/# /'
	} >&"$tap"
	kill -TERM $$ # tests/e2e/inside
	exit 1
}

lost_to_overdue()
{
	local due
	[[ ${LAB:-} = lab ]] || return 0
	due=$(awk '/ apic_timer_fn / { getline; print $7 / 1e9 }' /proc/timer_list)
	seen+=", due in ${due//$'\n'/, }"
	echo "the guests' timers are due in ${due//$'\n'/, } s"
	! awk 'NF && ($1 < -1 || $1 > 10) { late = 1 } END { exit !late }' <<<"$due" ||
		lost "L1's KVM has the guest's timers due in ${due//$'\n'/, } s"
}

lost_to_lateness()
{
	local status=0 began=${EPOCHREALTIME/./} log=$all/timer ticks
	[[ ${LAB:-} = lab ]] || return 0
	ticks() { awk '$1 == "LOC:" { print $2, $3 }' /proc/interrupts; }
	ticks=$(ticks)
	timeout -s KILL 15 "$VMM" --kernel "${VMM%/*}/guest/timer.elf" --mem 16M </dev/null >"$log" 2>&1 || status=$?
	((status != 137)) || lost "a payload waited 15 s for eight timers of L1's KVM; ticks of L1's processors" \
		"before: $ticks, after: $(ticks), its clock: $(cat /sys/devices/system/clocksource/*/current_clocksource)"
	((!status)) || { echo "the payload that waits for timers: status $status"; cat "$log"; return 1; }
	echo "the payload that waits for timers took $(((${EPOCHREALTIME/./} - began) / 1000)) ms"
}

watch_triple_faults()
{
	echo 'exit_reason == 0x7f' >$traces/events/kvm/kvm_exit/filter
	echo 1 >$traces/events/kvm/kvm_exit/enable
}
lost_to_fault()
{
	local exit
	[[ ${LAB:-} = lab ]] && grep -qs 'triple fault' "$T/err" || return 0
	exit=$(grep -ao 'kvm_exit:.* reason shutdown .*' $traces/trace | tail -n 1) || return 0
	echo "$exit"
	[[ ! $exit =~ ' intr_info 0x80000b0e error_code 0x0000001'[08]|' intr_info 0x800000'[0-9a-f]{2}' ' ]] || lost "$exit"
}

lost_to_deafness()
{
	local events=$traces/events/kvm task cpu own other most rip vmrun
	[[ ${LAB:-} = lab ]] || return 0
	vmrun=$((0x$(awk '$3 == "__svm_vcpu_run" { print $1 }' /proc/kallsyms)))
	echo 0 >$events/kvm_exit/filter
	echo >$traces/trace
	echo 1 >$events/kvm_inj_virq/enable
	sleep 2
	echo 0 >$events/kvm_exit/enable
	echo 0 >$events/kvm_inj_virq/enable
	for task in /proc/"$vm_pid"/task/*; do
		cpu=$(cat "$task/comm" 2>/dev/null) || continue
		[[ $cpu = vcpu/* ]] || continue
		read -r own other most < <(awk -v task="-${task##*/}\$" '
			$1 !~ task { next }
			!/: kvm_exit: / { other++; next }
			{
				sub(/.* reason /, ""); sub(/ info1 .*/, ""); sub(/ rip /, "@"); gsub(/ /, "_")
				if (/^interrupt@/) own++; else other++
				if (++times[$0] > times[most]) most = $0
			}
			END { print own + 0, other + 0, most "*" times[most] + 0 }' $traces/trace)
		echo "$cpu: $own exits for interrupts of L1, $other other exits and interrupts for it, most: $most"
		seen+=", $cpu $own:$other $most"
		((own < 10 || other)) || lost "$cpu takes no interrupts; in two seconds $own exits for interrupts of L1"
		rip=${most#*@} rip=${rip%\**}
		((${most#*\*} < 1000 || rip < vmrun || rip >= vmrun + 0x210)) || lost "$cpu is where L1 itself goes on" \
			"after VMRUN ($(printf '%#x' $vmrun)); in two seconds, $most"
	done
	watch_triple_faults
}
[[ ${LAB:-} != lab ]] || watch_triple_faults

# Of a VM that does not come to its end: is it the guest that turns in circles, does vmm, or does nobody do anything?
# $seen is that in a line: the last one of the guest, what its threads were at, when L1 sees to its timers, and what came
# to a processor in two seconds (exits for interrupts of L1:others).
seen=''
look_at_vm()
{
	local task stat n dir
	seen="after '$(tr -d '\r\000' <"$T/out" | sed '/^ *$/d' | tail -n 1 | cut -c 1-60)'"
	for n in 1 2; do
		for task in /proc/"$vm_pid"/task/*; do
			# Not $(<...): where a thread has ended meanwhile, that ends bash, whatever comes after it.
			stat=$(cat "$task/stat" 2>/dev/null) || continue
			read -ra stat <<<"${stat##*) }"
			echo "thread $(cat "$task/comm"): ${stat[0]} in $(cat "$task/wchan"), ticks ${stat[11]} ${stat[12]}"
			((n == 1)) || seen+=", $(cat "$task/comm") ${stat[0]} ${stat[11]}+${stat[12]}"
		done
		for dir in /sys/kernel/debug/kvm/"$vm_pid"-*; do
			[[ ! -d $dir ]] || echo "kvm: $(cd "$dir" && grep -H . exits halt_exits halt_wakeup irq_injections \
				irq_window_exits nmi_injections io_exits mmio_exits request_irq_exits tlb_flush vcpu*/tsc-offset |
				tr '\n' ' ') L1 up $(cut -d ' ' -f 1 /proc/uptime) s"
		done
		((n == 2)) || sleep 2
	done
	lost_to_overdue
	lost_to_deafness
}

vm_end()
{
	local status=0 late=
	timeout "$1" cat <&"$from_vm" >"$T/.rest" || late=1
	tr -d '\r\000' <"$T/.rest" >>"$T/out"
	if [[ $late ]]; then
		look_at_vm
		kill -KILL "$vm_pid" || true
		wait "$vm_pid" || true
		vm_pid=
		fail "no end within $1 s: $seen"
	fi
	wait "$vm_pid" || status=$?
	vm_pid=
	exec {to_vm}>&- {from_vm}<&-
	((status == $2)) || fail "exit status $status, not $2"
}

vm()
{
	vm_start "${@:3}"
	vm_end "$1" "$2"
}

says() { grep -aqE -e "$1" "$T/out" || fail "the guest did not say '$1'"; }
err_says() { grep -aqE -e "$1" "$T/err" || fail "vmm did not say '$1'"; }
err_expect()
{
	grep -qE -m 1 -e "$2" < <(exec timeout "$1" tail -n +1 -f --pid="$vm_pid" "$T/err" 2>/dev/null) ||
		fail "vmm did not say '$2' within $1 s"
}
# At the end stty waits until the console has sent all: powering off does not.
run() { printf 'vmm.run64=%s' "$(printf '%s\nstty opost' "$1" | base64 -w 0)"; }

# shellcheck disable=SC2034 # the cases use it
boot=(--kernel "$K61C/vmlinuz" --initrd "$K61C/initrd" --mem 256M)

random() { head -c "$2" /dev/urandom >"$1"; }

# What is left when a case ends, however it does.
leave()
{
	local pid link
	if [[ -n $vm_pid ]]; then kill -KILL "$vm_pid" 2>/dev/null || true; fi
	for pid in $(jobs -p); do kill -KILL "$pid" 2>/dev/null || true; done
	wait 2>/dev/null || true
	if [[ -d $T/run/net ]]; then
		for pid in $(VMM_RUNTIME_DIR=$T/run "$VMM" net list | awk 'NR > 1 { print $1 }'); do
			VMM_RUNTIME_DIR=$T/run "$VMM" net delete "$pid" || true
		done
	fi
	# Of t4*-net*.sh: the next case gives its own the same addresses.
	for link in $(ip -o link 2>/dev/null | sed -n 's/^[0-9]*: \(vmm[^:@]*\).*/\1/p'); do ip link del "$link" 2>/dev/null || true; done
}
