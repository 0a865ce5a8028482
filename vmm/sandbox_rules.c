/* sandbox_rules.c: the table.  A call that is not in it ends the VM. */
#include "vmm/sandbox_rules.h"
#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <linux/userfaultfd.h>
#include <linux/vhost.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "vmm/kvm/allow.h"

enum {
	C = 1 << THREAD_CONTROL, V = 1 << THREAD_VCPU, I = 1 << THREAD_IO, D = 1 << THREAD_DISK,
	P = 1 << THREAD_POOL,
	ALL = C | V | I | D | P,
};
enum { MAX_CALLS = 512 };

/* Of Debian 12's headers newer ones are not; kernels without them say ENOSYS. */
enum { MADV_GUARD = 102, MADV_UNGUARD = 103 };

static const u32 kvm_type[] = { 0xff00, KVM_REQUEST_TYPE << 8 };
static const u32 tap[] = { TUNSETOFFLOAD, TUNSETQUEUE, TUNSETCARRIER, TUNSETTXFILTER,
			   TUNSETSTEERINGEBPF };
static const u32 vhost[] = { VHOST_SET_OWNER, VHOST_SET_FEATURES, VHOST_SET_MEM_TABLE, VHOST_SET_LOG_BASE,
			     VHOST_SET_VRING_NUM, VHOST_SET_VRING_BASE, VHOST_SET_VRING_ADDR,
			     VHOST_SET_VRING_KICK, VHOST_SET_VRING_CALL, VHOST_SET_VRING_ERR,
			     VHOST_GET_VRING_BASE, VHOST_NET_SET_BACKEND };
static const u32 vhost_call[] = { VHOST_SET_VRING_CALL };
static const u32 wake[] = { UFFDIO_WAKE };
static const u32 terminal[] = { TCGETS, TCSETS, TCSETSW, TCSETSF, TIOCGPGRP,
				TCGETS2, TCSETS2, TCSETSW2, TCSETSF2 };	/* newer versions of libc */
static const u32 terminal_back[] = { TCSETS, TCSETS2 };
static const u32 block_device[] = { BLKGETSIZE64, BLKSSZGET, BLKPBSZGET, BLKIOMIN, BLKIOOPT, BLKALIGNOFF,
				    BLKROGET };
static const u32 socket_state[] = { FIONBIO, FIONREAD };
static const u32 interface[] = { SIOCGIFINDEX };
static const u32 not_executable[] = { PROT_EXEC, 0 };
static const u32 advice[] = { MADV_DONTNEED, MADV_FREE, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTDUMP,
			      MADV_WILLNEED, MADV_POPULATE_READ, MADV_SEQUENTIAL, MADV_RANDOM, MADV_REMOVE,
			      MADV_GUARD, MADV_UNGUARD };
/* A thread of this process in all its namespaces, as pthread_create() makes one. */
static const u32 thread_flags[] = {
	CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_VFORK |
	CLONE_PTRACE | CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |
	CLONE_NEWPID | CLONE_NEWNET | CLONE_IO,
	CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM,
};
static const u32 no_path[] = { AT_EMPTY_PATH, AT_EMPTY_PATH };
static const u32 to_read[] = { ~(u32)O_CLOEXEC, O_RDONLY };
static const u32 names[] = { PR_SET_NAME, PR_GET_NAME };
static const u32 file_control[] = { F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD, F_DUPFD_CLOEXEC,
				    F_OFD_SETLK, F_OFD_SETLKW, F_OFD_GETLK, F_GETLK };
static const u32 plain_mode[] = { ~0777, 0 };
static const u32 internet[] = { AF_INET, AF_INET6 };
static const u32 local[] = { AF_UNIX };
/* Whatever is done with SIGSYS is done. */
static const u32 signals[] = { VCPU_KICK_SIGNAL, SIGTERM, SIGINT, SIGHUP };
static const u32 crashes[] = { SIGABRT, SIGBUS };
static const u32 libc_signals[] = { 32, 33, 34 };	/* below SIGRTMIN, of one libc or another */
static const u32 ourselves[] = { 0 };
static const u32 no_address[] = { 0 };

u32 sandbox_own_pid, sandbox_child[CONFIG_MAX_NETS];

#define ROW(call, threads_, needs_, check_, arg_, values, why_) \
	{ { .nr = SYS_##call, .check = check_, .arg = arg_, .nr_values = ARRAY_SIZE(values), \
	    .value = values }, #call, threads_, needs_, why_ }
#define ANY(call, threads, why) { { .nr = SYS_##call }, #call, threads, 0, why }
#define ANY_FOR(call, threads, needs, why) { { .nr = SYS_##call }, #call, threads, needs, why }
#define ONE_OF(call, arg, values, threads, needs, why) \
	ROW(call, threads, needs, BPF_ONE_OF, arg, values, why)
#define BITS(call, arg, values, threads, needs, why) ROW(call, threads, needs, BPF_BITS, arg, values, why)
/* No thread's need, but one that libc meets well when it is told no. */
#define REFUSE(call, threads, error, why) { { .nr = SYS_##call, .refuse = error }, #call, threads, 0, why }

const struct sandbox_rule sandbox_rules[] = {
	/* Devices of the kernel; the first are the most frequent. */
	{ { .nr = SYS_ioctl, .check = BPF_ONE_OF, .arg = 1, .nr_values = KVM_NR_VCPU_REQUESTS,
	    .value = kvm_vcpu_requests },
	  "ioctl", V, 0, "runs the guest; what it sets up by its registers" },
	BITS(ioctl, 1, kvm_type, C, 0, "pause, debugger, a machine made anew when the guest reboots"),
	ONE_OF(ioctl, 1, tap, C | I, 0, "what a driver takes of checksums and large frames; its queues; filters; the cable"),
	ONE_OF(ioctl, 1, vhost, C | I, NEEDS_VHOST, "vhost-net takes a card's queues over, and gives them back"),
	ONE_OF(ioctl, 1, vhost_call, V, NEEDS_VHOST, "a guest masks the interrupts of such a card"),
	ONE_OF(ioctl, 1, wake, C, 0, "who waits for a page of a handler that is gone"),
	ONE_OF(ioctl, 1, terminal, C, 0, "the terminal: raw, back, whether we are in front"),
	ONE_OF(ioctl, 1, terminal_back, V | I | D | P, 0, "a thread that crashes leaves it usable"),
	ONE_OF(ioctl, 1, block_device, C | I | D | P, 0, "disks that are block devices"),
	ONE_OF(ioctl, 1, socket_state, C, NEEDS_API, "libmicrohttpd"),
	ONE_OF(ioctl, 1, socket_state, I, NEEDS_USER_NET, "libslirp"),
	ONE_OF(ioctl, 1, interface, I, NEEDS_USER_NET, "a name server of the host's, like fe80::1%eth0"),

	/* Data, by descriptors that are open. */
	ANY(read, ALL, "eventfds, taps, consoles, images' tables"),
	ANY(write, ALL, "eventfds, the console, the log"),
	ANY(readv, C | I | D | P, "frames"),
	ANY(writev, ALL, "frames, lines of metrics"),
	ANY(pread64, C | I | D | P, "images"),
	ANY(pwrite64, C | I | D | P, "images"),
	ANY(preadv, C | I | D | P, "images without io_uring"),
	ANY(pwritev, C | I | D | P, "images without io_uring"),
	ANY(preadv2, C | I | D | P, "the same, as other versions of libc have it"),
	ANY(pwritev2, C | I | D | P, "the same"),
	ANY(io_uring_enter, C | I | D, "images; its rings do nothing but what aio.c lists"),
	ANY(epoll_wait, C | I | D, "the event loop"),
	ANY(epoll_pwait, C | I | D, "the same, as other versions of libc have it"),
	ANY(epoll_pwait2, C | I | D, "the same"),
	ANY(epoll_ctl, C | I | D, "the event loop"),
	ANY(timerfd_settime, C | I | D, "the event loop's timers"),
	ANY(poll, ALL, "the log; waits for requests in flight; a console's slow reader"),
	ANY(ppoll, ALL, "the same, as other versions of libc have it"),
	ANY(fsync, C | I | D | P, "images"),
	ANY(fdatasync, C | I | D | P, "images"),
	ANY(fallocate, C | I | D | P, "images: room, holes"),
	ANY(fstatfs, C | I | D | P, "the same, where the file system does it by writing"),
	ANY(ftruncate, C | I | D | P, "images grow; a snapshot's memory"),
	ANY(lseek, C | I | D | P, "an image's holes; is it a file?"),
	ANY(fstat, ALL, "an image's size"),
	BITS(newfstatat, 3, no_path, ALL, NEEDS_LOG, "the same, as newer versions of libc have it; but a path may be there"),
	ANY(statx, C, "what direct I/O must be aligned to"),
	ANY(fadvise64, C | I | D | P, "images"),
	ANY(close, ALL, "descriptors"),
	ONE_OF(fcntl, 1, file_control, C | I | D | P, 0, "locks of images; flags"),
	ANY(dup, C, "a console's client"),
	ONE_OF(sendto, 5, no_address, ALL, 0, "send(): a console that is a socket; networks"),
	ANY(recvfrom, C | I, "the API, the debugger, networks"),
	ANY(sendmsg, C, "the API"),
	ANY(recvmsg, C, "the API"),
	ANY(shutdown, C | I, "the API, networks"),
	ANY(getsockopt, C | I, "the API, networks"),
	ANY(setsockopt, C | I, "the debugger's connection, networks"),
	ANY(getsockname, C | I, "the API, networks"),
	ANY(getpeername, C | I, "the API, networks"),
	ANY(accept4, C, "clients of the API, a console, a debugger"),

	/* Memory: none becomes code. */
	BITS(mmap, 2, not_executable, ALL, 0, "malloc; the memory of a guest that reboots"),
	BITS(mprotect, 2, not_executable, ALL, 0, "malloc; a new thread's stack"),
	ANY(munmap, ALL, "malloc; a thread's end"),
	ANY(mremap, ALL, "malloc"),
	ANY(brk, ALL, "malloc"),
	ONE_OF(madvise, 2, advice, ALL, 0, "malloc; a thread's stack when it ends; a working set"),
	ANY(memfd_create, C, "the memory of a guest that reboots"),

	/* Threads, time, signals. */
	ANY(futex, ALL, "locks"),
	ANY(sched_yield, ALL, "locks"),
	ANY(rseq, ALL, "a new thread, by libc"),
	ANY(set_robust_list, ALL, "a new thread, by libc"),
	ANY(set_tid_address, C, "a new thread, by libc"),
	BITS(clone, 0, thread_flags, C | I | D, 0, "threads: all when the guest reboots; the pool on its first use"),
	REFUSE(clone3, ALL, ENOSYS, "libc takes clone then, whose flags can be checked"),
	ANY(seccomp, C | I | D, "a new thread has a list of its own; lists only get shorter"),
	ANY(capset, C | I | D, "a new thread drops what it has; that only gets less"),
	ANY(landlock_restrict_self, C | I | D, "likewise"),
	ONE_OF(prctl, 0, names, ALL, 0, "a new thread's name; a line of the log"),
	ANY(exit, ALL, "a thread's end"),
	ANY(exit_group, ALL, "the end"),
	ANY(rt_sigreturn, ALL, "kicks of a vCPU"),
	ANY(rt_sigprocmask, ALL, "a new thread, by libc; abort()"),
	ANY(rt_sigpending, C, "is who waits for a page to end?"),
	ONE_OF(rt_sigaction, 0, signals, C, 0, "kicks of a new vCPU; the end is near: signals take their course"),
	ONE_OF(rt_sigaction, 0, libc_signals, ALL, 0, "libc, with the first thread"),
	ONE_OF(rt_sigaction, 0, crashes, ALL, 0, "abort(); a file that memory comes from fails"),
	ANY(sigaltstack, ALL, "libc"),
	ANY(restart_syscall, ALL, "waits that a stop interrupted"),
	{ { .nr = SYS_tgkill, .check = BPF_ONE_OF, .nr_values = 1, .value = &sandbox_own_pid },
	  "tgkill", ALL, 0, "kicks of a vCPU; abort(); stopped by the terminal" },
	ANY(getpid, ALL, "the log; abort()"),
	ANY(gettid, ALL, "abort()"),
	ANY(clock_gettime, ALL, "clocks, where the kernel does not lend its own"),
	ANY(clock_getres, ALL, "the same"),
	ANY(gettimeofday, ALL, "the same"),
	ANY(time, ALL, "the same"),
	ANY(getcpu, ALL, "the same; malloc"),
	ANY(clock_nanosleep, C | I | D, "the kernel is out of memory for requests"),
	ANY(nanosleep, C | I | D, "the same"),
	ANY(getrandom, ALL, "virtio-rng; malloc"),
	ANY(sched_getaffinity, ALL, "malloc"),

	/* Files by path.  What they may be is Landlock's. */
	ANY(openat, C, "/dev/kvm and a saved VM's kernel when it reboots; what the API is told"),
	ANY(open, C, "the same, as other versions of libc have it"),
	ANY(newfstatat, C, "images"),
	ANY(stat, C, "the same, as other versions of libc have it"),
	ANY(lstat, C, "images"),
	ANY(access, C, "a kernel's initrd"),
	ANY(faccessat, C, "the same"),
	ANY(faccessat2, C, "the same"),
	ANY(readlink, C, "images that are links"),
	ANY(readlinkat, C, "the same"),
	ANY(getcwd, C, "images"),
	ANY(getdents64, C, "snapshots of a disk; who has an image"),
	ANY(unlink, C, "the pid file, sockets, what a failed save left"),
	REFUSE(unlink, V | I | D | P, EACCES, "a crash would remove the pid file; the next VM takes it over"),
	ANY(unlinkat, C, "the same"),
	ANY(rmdir, C, "the VM's name"),
	ANY(rename, C, "snapshots"),
	ANY(renameat, C, "snapshots"),
	ANY(renameat2, C, "snapshots"),
	ANY(link, C, "snapshots"),
	ANY(linkat, C, "snapshots"),
	ANY(mkdir, C, "a saved VM"),
	ANY(mkdirat, C, "a saved VM"),
	BITS(fchmod, 1, plain_mode, C, 0, "a snapshot belongs to whom the disk does"),
	ANY(fchown, C, "the same"),
	ANY(flock, C, "the VM's name"),
	ANY_FOR(getrusage, C, NEEDS_API, "statistics"),
	ANY_FOR(geteuid, C, NEEDS_API, "where the names of VMs are"),
	ANY_FOR(sysinfo, C, NEEDS_API, "libc, for qsort"),

	/* What a machine is made of, when its guest reboots. */
	ANY(eventfd2, C | V, "interrupts that the guest sets up; doorbells"),
	ANY(epoll_create1, C, "event loops; libmicrohttpd"),
	ANY(timerfd_create, C, "event loops"),
	ANY(io_uring_setup, C, "images"),
	ANY(io_uring_register, C, "images: a ring's restrictions"),
	ANY(getpgrp, C, "is the terminal ours?"),
	ANY(getpgid, C, "is the terminal ours?"),
	ONE_OF(prlimit64, 0, ourselves, C, 0, "libc, for a thread's stack"),
	ANY(getrlimit, C, "the same"),

	/* Networks. */
	ONE_OF(socket, 0, internet, I, NEEDS_USER_NET, "the guest's connections, by libslirp"),
	ONE_OF(socket, 0, local, I, NEEDS_VSOCK, "a guest's connections to programs of the host"),
	{ { .nr = SYS_socket, .check = BPF_ONE_OF, .nr_values = 1, .value = local, .refuse = EAFNOSUPPORT },
	  "socket", C | I, NEEDS_USER_NET, "if_nametoindex() takes another then" },
	ANY_FOR(access, I, NEEDS_USER_NET, "if_nametoindex(), too"),
	ANY_FOR(faccessat, I, NEEDS_USER_NET, "the same"),
	ANY_FOR(faccessat2, I, NEEDS_USER_NET, "the same"),
	ANY_FOR(sendto, I, NEEDS_USER_NET, "the guest's datagrams"),
	ANY_FOR(recvmsg, I, NEEDS_USER_NET, "what answers them"),
	ANY_FOR(connect, I, NEEDS_USER_NET | NEEDS_VSOCK, "the guest's connections"),
	ANY_FOR(bind, I, NEEDS_USER_NET, "the guest's connections"),
	ANY_FOR(listen, I, NEEDS_USER_NET, "libslirp"),
	ANY_FOR(accept, I, NEEDS_USER_NET, "connections to forwarded ports"),
	ANY_FOR(accept4, I, NEEDS_USER_NET | NEEDS_VSOCK, "the same; those to a guest's vsock"),
	BITS(openat, 2, to_read, I, NEEDS_USER_NET, "/etc/resolv.conf, when it has changed"),
	BITS(open, 1, to_read, I, NEEDS_USER_NET, "the same"),
	ANY_FOR(stat, I, NEEDS_USER_NET, "the same"),
	ANY_FOR(newfstatat, I, NEEDS_USER_NET, "the same"),
	ONE_OF(kill, 0, sandbox_child, C | I, NEEDS_PASST, "passt, when the VM ends"),
	ANY_FOR(wait4, C | I, NEEDS_PASST, "passt's exit status"),
	ANY_FOR(wait4, C, NEEDS_HOST_NET, "the process that removes the network"),
};
const unsigned sandbox_nr_rules = ARRAY_SIZE(sandbox_rules);
_Static_assert(ARRAY_SIZE(sandbox_rules) < 255, "sandbox_select() counts in bytes");

static bool has(const struct sandbox_rule *r, enum thread_kind kind, unsigned needs)
{
	if (r->needs && !(r->needs & needs))
		return false;
	return r->threads >> kind & 1 || (kind == THREAD_CONTROL && !r->bpf.refuse);
}

int sandbox_select(enum thread_kind kind, unsigned needs, struct bpf_rule *to, unsigned room)
{
	/* The rows of each call, as a list; from 1, 0 is its end. */
	u8 first[MAX_CALLS] = { 0 }, next[ARRAY_SIZE(sandbox_rules)];
	unsigned n = 0;

	for (unsigned i = sandbox_nr_rules; i-- > 0; ) {
		u16 nr = sandbox_rules[i].bpf.nr;

		BUG_ON(nr >= MAX_CALLS);
		next[i] = first[nr];
		first[nr] = i + 1;
	}
	for (unsigned nr = 0; nr < MAX_CALLS; nr++)
		for (unsigned i = first[nr]; i; i = next[i - 1]) {
			if (!has(&sandbox_rules[i - 1], kind, needs))
				continue;
			if (n == room)
				return -E2BIG;
			to[n++] = sandbox_rules[i - 1].bpf;
		}
	return n;
}

const char *sandbox_call_name(unsigned nr)
{
	static const struct {
		unsigned nr;
		const char *name;
	} others[] = {
#define OTHER(call) { SYS_##call, #call }
		OTHER(execve), OTHER(execveat), OTHER(fork), OTHER(vfork), OTHER(ptrace), OTHER(socketpair),
		OTHER(process_vm_readv), OTHER(process_vm_writev), OTHER(tkill), OTHER(setuid), OTHER(setgid),
		OTHER(mount), OTHER(umount2), OTHER(chroot), OTHER(pivot_root), OTHER(unshare), OTHER(setns),
		OTHER(bpf), OTHER(userfaultfd), OTHER(perf_event_open), OTHER(keyctl), OTHER(init_module),
		OTHER(finit_module), OTHER(kexec_load), OTHER(personality), OTHER(openat2), OTHER(chmod),
		OTHER(chown), OTHER(symlink), OTHER(mknod), OTHER(truncate), OTHER(creat), OTHER(splice),
		OTHER(pidfd_open), OTHER(pidfd_getfd), OTHER(shmat), OTHER(inotify_add_watch), OTHER(select),
		OTHER(dup2), OTHER(dup3), OTHER(pipe), OTHER(signalfd4),
	};

	for (unsigned i = 0; i < sandbox_nr_rules; i++)
		if (sandbox_rules[i].bpf.nr == nr)
			return sandbox_rules[i].name;
	for (unsigned i = 0; i < ARRAY_SIZE(others); i++)
		if (others[i].nr == nr)
			return others[i].name;
	return NULL;
}
