# completion.bash: completion of vmm's command line for bash; `make install` installs it.
# shellcheck shell=bash disable=SC2207 # COMPREPLY takes words
# scripts/check-docs compares its options with those of `vmm --help`.

_vmm_files() { # [GLOB]: files that end so, and directories
	local IFS=$'\n'
	compopt -o filenames 2>/dev/null
	if [[ ${1-} ]]; then
		COMPREPLY=($(compgen -f -X "!$1" -- "$cur") $(compgen -d -- "$cur"))
	else
		COMPREPLY=($(compgen -f -- "$cur"))
	fi
}

_vmm_words() {
	COMPREPLY=($(compgen -W "$1" -- "$cur"))
	# A value that has a beginning only, like file: or tap=, goes on at once.
	[[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[:=,] ]] && compopt -o nospace 2>/dev/null
}

# After PATH, and what follows it by comma. Where = or : cuts words, $cur is the last piece only.
_vmm_disk() {
	local done=${cur%,*}
	if [[ $cur == *,* ]]; then
		COMPREPLY=($(compgen -P "$done," -W 'readonly serial= format=raw format=qcow2 backing=anywhere cache=writethrough direct discard=off write_zeroes=off queues= iothreads= bw= bw_burst= iops= iops_burst= on_error=stop' -- "${cur##*,}"))
		compopt -o nospace 2>/dev/null
	else
		_vmm_files
	fi
}

_vmm_net() {
	local taps=() path
	for path in /sys/class/net/*/tun_flags; do
		[[ -e $path ]] || continue
		path=${path%/tun_flags}
		taps+=("${path##*/}")
	done
	if [[ $cur == *,* ]]; then
		local options='mac= mtu= iothreads= dump= bw_rx= bw_tx= pps_rx= pps_tx= bw_rx_burst= bw_tx_burst= pps_rx_burst= pps_tx_burst='
		case $cur in
		user,*) options+=' hostfwd=tcp:127.0.0.1: restrict=on net= dns=' ;;
		passt,*) options+=' hostfwd=tcp:127.0.0.1:' ;;
		bridge=*) options+=' vhost= queues= vlan=' ;;
		tap=* | nat* | hostonly*) options+=' vhost= queues=' ;;
		fd=*) options+=' vhost=' ;;
		esac
		options=${options/vhost=/vhost=on vhost=off vhost=auto}
		COMPREPLY=($(compgen -P "${cur%,*}," -W "$options" -- "${cur##*,}"))
		compopt -o nospace 2>/dev/null
	else # = is a word break
		case $cut in
		*tap=) _vmm_words "${taps[*]}" ;;
		*bridge=) _vmm_words "$(cd /sys/class/net && printf '%s\n' */bridge | sed -n 's,/bridge$,,p' | grep -v '\*')" ;;
		*nat= | *hostonly=) _vmm_networks ;;
		*) _vmm_words "user passt nat hostonly bridge= fd= tap= ${taps[*]/#/tap=}" ;;
		esac
	fi
}

_vmm_networks() { _vmm_words "$("${COMP_WORDS[0]}" net list 2>/dev/null | awk 'NR > 1 { print $1 }')"; }

_vmm_net_value() { # OPTION
	case $1 in
	--type) _vmm_words 'nat hostonly bridge' ;;
	--mtu) _vmm_words '1500 9000' ;;
	--subnet) COMPREPLY=() ;;
	*) return 1 ;;
	esac
	return 0
}

_vmm_net_command() { # the word's index
	if (($1 == 2)); then
		_vmm_words 'list create delete show --help'
	elif _vmm_net_value "$prev"; then
		return
	elif [[ $cur != -* && ${COMP_WORDS[2]} == @(delete|show) ]]; then
		_vmm_networks
	else
		case ${COMP_WORDS[2]} in
		create) _vmm_words '--type --subnet --vlan-filtering --mtu --help' ;;
		list | show) _vmm_words '--json --help' ;;
		*) _vmm_words --help ;;
		esac
	fi
}

_vmm_serial() {
	case $cut in
	*file: | *unix:) _vmm_files ;;
	*) case $cur in
		file:* | unix:*)
			local kind=${cur%%:*}
			cur=${cur#*:}
			_vmm_files
			COMPREPLY=("${COMPREPLY[@]/#/$kind:}")
			;;
		*) _vmm_words 'stdio pty file: unix: none' ;;
		esac ;;
	esac
}

_vmm_vsock() { # = is a word break
	case $cut in
	*uds=) _vmm_files ;;
	*) if [[ $cur == *,* ]]; then _vmm_words "${cur%,*},uds="; else _vmm_words 'cid=3,uds='; fi ;;
	esac
}

_vmm_gdb() {
	case $cut$cur in
	*unix:*) _vmm_serial ;;
	*) _vmm_words 'tcp: unix:' ;;
	esac
}

_vmm_value() { # OPTION
	case $1 in
	--kernel | --pidfile | --api-sock | --log-file | --metadata) _vmm_files ;;
	--initrd)
		_vmm_files
		[[ none == "$cur"* ]] && COMPREPLY+=(none)
		;;
	--config) _vmm_files '*.json' ;;
	--disk) _vmm_disk ;;
	--net) _vmm_net ;;
	--vsock) _vmm_vsock ;;
	--mmds) _vmm_words 'net0 net0,version=V2' ;;
	--serial) _vmm_serial ;;
	--gdb) _vmm_gdb ;;
	--transport) _vmm_words 'pci mmio' ;;
	--aio) _vmm_words 'auto io_uring threads' ;;
	--sandbox) _vmm_words 'on log off' ;;
	--log-level) _vmm_words 'err warn info debug' ;;
	--log-format) _vmm_words 'text json' ;;
	--mem) _vmm_words '256M 512M 1G 2G 4G' ;;
	--cpus) _vmm_words '1 2 4 8' ;;
	--netns) _vmm_words "$(ls /run/netns 2>/dev/null)" ;;
	--chroot) _vmm_files ;;
	--append | --cmdline | --name | --cpu-affinity | --cpu-quota | --mem-limit | --cgroup | --uid | --gid) COMPREPLY=() ;;
	*) return 1 ;;
	esac
	return 0
}

_vmm_disk_value() { # OPTION
	case $1 in
	--format | --backing-format | --source-format) _vmm_words 'raw qcow2' ;;
	--preallocation) _vmm_words 'off metadata falloc full' ;;
	--cluster-size) _vmm_words '4K 16K 64K 256K 1M 2M' ;;
	--refcount-bits) _vmm_words '1 2 4 8 16 32 64' ;;
	--compat) _vmm_words 'v3 v2' ;;
	--compression) _vmm_words 'zlib zstd' ;;
	--backing)
		_vmm_files
		[[ ${COMP_WORDS[2]} == rebase && none == "$cur"* ]] && COMPREPLY+=(none)
		;;
	*) return 1 ;;
	esac
	return 0
}

# Names of snapshots: DISK@NAME.EXT beside the DISK.EXT that was named before.
_vmm_snapshots() {
	local disk=${prev/#\~/$HOME} file ext='' names=()
	[[ ${disk##*/} == ?*.* ]] && ext=.${disk##*.}
	for file in "${disk%"$ext"}"@*"$ext"; do
		[[ -e $file ]] || continue
		file=${file#"${disk%"$ext"}@"}
		names+=("${file%"$ext"}")
	done
	_vmm_words "${names[*]}"
}

_vmm_disk_command() { # the word's index
	local made='--format --thin --thick --preallocation --cluster-size --refcount-bits --compat --lazy-refcounts
		--compression --backing --backing-format'
	if (($1 == 2)); then
		_vmm_words 'create info check map convert resize snapshot list revert delete commit rebase compact --help'
	elif _vmm_disk_value "$prev"; then
		return
	elif [[ $cur != -* ]]; then
		if [[ ${COMP_WORDS[2]} == @(revert|delete) && -e $prev ]]; then _vmm_snapshots; else _vmm_files; fi
	else
		case ${COMP_WORDS[2]} in
		create) _vmm_words "$made --help" ;;
		convert) _vmm_words "$made --source-format --compress --backing-anywhere --help" ;;
		info | list) _vmm_words '--format --json --help' ;;
		check) _vmm_words '--format --json --repair --help' ;;
		map) _vmm_words '--format --json --backing-anywhere --help' ;;
		resize) _vmm_words '--format --shrink --backing-anywhere --help' ;;
		snapshot) _vmm_words '--format --json --help' ;;
		rebase) _vmm_words '--backing --format --unsafe --backing-anywhere --json --help' ;;
		compact) _vmm_words '--format --backing-anywhere --json --help' ;;
		commit | delete) _vmm_words '--backing-anywhere --json --help' ;;
		revert) _vmm_words '--json --help' ;;
		*) _vmm_words --help ;;
		esac
	fi
}

_vmm_snapshot_command() { # the word's index
	if [[ $cur == -* ]]; then
		_vmm_words "--help$([[ ${COMP_WORDS[2]} != info ]] || echo ' --json')"
	elif (($1 == 2)); then
		_vmm_words 'info merge --help'
	else
		_vmm_files
	fi
}

_vmm_names() { _vmm_words "$("${COMP_WORDS[0]}" ps 2>/dev/null | awk 'NR > 1 { print $1 }')"; }

_vmm_ctl() { # the word's index
	case $1 in
	2)
		_vmm_names
		if [[ $cur == */* || ! ${COMPREPLY[*]} ]]; then _vmm_files; fi
		;;
	3) _vmm_words 'info start pause resume power-button stop disks metrics snapshot save save-diff working-set link resize
		get put patch post delete --json --help' ;;
	*)
		case ${COMP_WORDS[3]} in
		info | disks | metrics) _vmm_words --json ;;
		save | save-diff | working-set) _vmm_files ;;
		esac
		;;
	esac
}

_vmm_firecracker() {
	case $prev in
	--api-sock | --config-file | --log-path | --metrics-path | --metadata | --seccomp-filter | --describe-snapshot)
		_vmm_files ;;
	--level) _vmm_words 'Off Error Warning Info Debug Trace' ;;
	--id | --module | --http-api-max-payload-size | --mmds-size-limit | --start-time-us | --start-time-cpu-us | \
		--parent-cpu-time-us) COMPREPLY=() ;;
	*) _vmm_words '--api-sock --id --config-file --no-api --metadata --log-path --level --show-level
		--show-log-origin --module --metrics-path --boot-timer --enable-pci --http-api-max-payload-size
		--mmds-size-limit --start-time-us --start-time-cpu-us --parent-cpu-time-us --no-seccomp --seccomp-filter
		--version --snapshot-version --describe-snapshot --help' ;;
	esac
}

_vmm_jailer() {
	case $prev in
	--exec-file | --chroot-base-dir | --netns) _vmm_files ;;
	--cgroup-version) _vmm_words '1 2' ;;
	--id | --uid | --gid | --cgroup | --parent-cgroup | --resource-limit) COMPREPLY=() ;;
	*) _vmm_words '--id --exec-file --uid --gid --chroot-base-dir --netns --daemonize --new-pid-ns --cgroup
		--cgroup-version --parent-cgroup --resource-limit --version --help' ;;
	esac
}

_vmm() {
	local cur prev cut='' option
	local run='--kernel --initrd --append --cmdline --mem --hugepages --cpus --disk --net --mmds --metadata --vsock --serial --transport
		--aio --name --api-sock --gdb --pidfile --no-reboot --track-dirty-pages --sandbox --cpu-affinity --cpu-quota --mem-limit --cgroup --uid --gid --chroot --netns --log-level --log-file --log-format --config --help --version'
	local i=$COMP_CWORD
	COMPREPLY=()
	cur=${COMP_WORDS[i]}
	# bash cuts words at = and :; go back to where this argument began.
	if [[ $cur == [=:] ]]; then
		cut=$cur cur=''
		((i--))
	elif ((i > 1)) && [[ ${COMP_WORDS[i - 1]} == [=:] ]]; then
		cut=${COMP_WORDS[i - 1]}
		((i -= 2))
	fi
	if [[ $cut ]]; then
		cut=${COMP_WORDS[i]}$cut
		if [[ ${COMP_WORDS[i]} == --* ]]; then # --serial=
			option=${COMP_WORDS[i]} cut=''
		elif ((i > 1)) && [[ ${COMP_WORDS[i - 1]} == = ]]; then # --serial=file:
			option=${COMP_WORDS[i - 2]}
		else
			option=${COMP_WORDS[i - 1]}
		fi
		case ${COMP_WORDS[1]} in
		disk) _vmm_disk_value "$option" ;;
		net) _vmm_net_value "$option" ;;
		*) _vmm_value "$option" ;;
		esac
		return
	fi
	prev=${COMP_WORDS[i - 1]}

	case ${COMP_WORDS[1]} in
	check) ((i == 1)) || return ;;
	disk)
		if ((i > 1)); then
			_vmm_disk_command "$i"
			return
		fi
		;;
	net)
		if ((i > 1)); then
			_vmm_net_command "$i"
			return
		fi
		;;
	snapshot)
		if ((i > 1)); then
			_vmm_snapshot_command "$i"
			return
		fi
		;;
	restore | clone)
		run="--disk-dir ${run/--version/}"
		if ((i > 1)) && [[ $cur != -* && ($prev != --* || $prev == --disk-dir) ]]; then
			_vmm_files
			return
		fi
		;;
	ps)
		if ((i > 1)); then
			_vmm_words '--json --help'
			return
		fi
		;;
	top)
		if ((i > 1)); then
			_vmm_words '--once --json --help'
			return
		fi
		;;
	stop | pause | resume | console)
		if ((i > 1)); then
			if [[ $cur != -* ]]; then
				_vmm_names
			elif [[ ${COMP_WORDS[1]} == stop ]]; then
				_vmm_words '--force --help'
			else
				_vmm_words --help
			fi
			return
		fi
		;;
	ctl)
		if ((i > 1)); then
			_vmm_ctl "$i"
			return
		fi
		;;
	firecracker)
		if ((i > 1)); then
			_vmm_firecracker
			return
		fi
		;;
	jailer)
		if ((i > 1)); then
			_vmm_jailer
			return
		fi
		;;
	esac
	_vmm_value "$prev" && return
	if ((i == 1)) && [[ $cur != -* ]]; then
		_vmm_words 'run check disk net restore clone snapshot ps top ctl console stop pause resume
			firecracker jailer'
	else
		_vmm_words "$run"
	fi
}

complete -F _vmm vmm
