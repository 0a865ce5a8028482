/* sandbox.c: gives up what a VM that runs does not need. */
#include "vmm/sandbox.h"
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>
#include "devices/chardev.h"
#include "vmm/commands.h"
#include "vmm/core/log.h"
#include "vmm/landlock.h"
#include "vmm/sandbox_rules.h"

enum { MAX_ROWS = 192, MAX_LEN = 768 };

static struct {
	bool entered;
	unsigned needs;			/* NEEDS_*, of when it was */
	u64 caps[THREAD_KINDS];		/* what each kind keeps of its capabilities */
	bool has_caps;
	void (*failed)(void *arg);
	void *arg;
	int files;			/* the threads' Landlock rules, -1: none */
	struct sock_filter code[THREAD_KINDS][MAX_LEN];
	int len[THREAD_KINDS];
} sandbox = { .files = -1 };

/* --- capabilities ----------------------------------------------------------------------------- */

static int capabilities(u64 *had)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { { 0 } };

	if (syscall(SYS_capget, &head, data))
		return -errno;
	*had = data[0].permitted | (u64)data[1].permitted << 32;
	return 0;
}

static int keep_capabilities(u64 keep)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {
		{ .effective = keep, .permitted = keep },
		{ .effective = keep >> 32, .permitted = keep >> 32 },
	};

	return syscall(SYS_capset, &head, data) ? -errno : 0;
}

/*
 * Root's VM still opens and removes files in other users' directories, and what it makes
 * beside their disks, a snapshot, is theirs; libslirp needs raw sockets for a guest's
 * ping where the host's ping_group_range is empty; passt ends by a signal, and has
 * become another user.
 */
static int drop_capabilities(unsigned needs)
{
	u64 had = 0;
	int rc = capabilities(&had);

	sandbox.has_caps = had;
	if (!had)
		return rc;
	sandbox.caps[THREAD_CONTROL] = 1ULL << CAP_DAC_OVERRIDE;
	if (needs & NEEDS_API)
		sandbox.caps[THREAD_CONTROL] |= 1ULL << CAP_CHOWN | 1ULL << CAP_FOWNER;
	if (needs & NEEDS_USER_NET)
		sandbox.caps[THREAD_IO] |= 1ULL << CAP_NET_RAW;
	if (needs & NEEDS_PASST)
		sandbox.caps[THREAD_IO] |= 1ULL << CAP_KILL;
	for (int i = 0; i < THREAD_KINDS; i++)
		sandbox.caps[i] &= had;
	sandbox.caps[THREAD_CONTROL] |= sandbox.caps[THREAD_IO];
	if (had >> CAP_SETPCAP & 1)
		for (int cap = 0; !prctl(PR_CAPBSET_DROP, cap); cap++)
			;
	return keep_capabilities(sandbox.caps[THREAD_CONTROL]);
}

/* --- files ------------------------------------------------------------------------------------ */

static void allow_beside(int rules, const char *path, u32 access)
{
	char whole[PATH_MAX];

	if (!path || snprintf(whole, sizeof(whole), "%s", path) >= (int)sizeof(whole))
		return;
	landlock_allow(rules, dirname(whole), access);
}

static const char *unix_path(const char *where)
{
	return where && !strncmp(where, "unix:", 5) ? where + 5 : NULL;
}

/* Whoever manages that file makes a new one of its name.  But of what is beside it in /etc root may read all: then it is
 * that one alone, unless a link leads to a directory of its manager's. */
static void allow_resolver(int rules)
{
	char whole[PATH_MAX];
	bool found = realpath("/etc/resolv.conf", whole);

	if (geteuid())
		landlock_allow(rules, "/etc", LANDLOCK_READ);
	if (found && (geteuid() || (!strncmp(whole, "/run/", 5) && strchr(whole + 5, '/'))))
		allow_beside(rules, whole, LANDLOCK_READ);
	else if (found)
		landlock_allow(rules, whole, LANDLOCK_READ);
}

/* With an API it is users who say which files: then it is programs and devices that are out. */
static int control_files(const struct config *c, unsigned needs)
{
	int rules;

	if (needs & NEEDS_API)
		return landlock_new(LANDLOCK_EXECUTE | LANDLOCK_MAKE_DEVICE);
	rules = landlock_new(LANDLOCK_ALL);
	if (rules < 0)
		return rules;
	landlock_allow(rules, "/dev/kvm", LANDLOCK_READ | LANDLOCK_WRITE | LANDLOCK_DEVICE_IOCTL);
	landlock_allow(rules, "/sys/kernel/mm/transparent_hugepage", LANDLOCK_READ);
	allow_beside(rules, c->kernel, LANDLOCK_READ);
	allow_beside(rules, c->initrd, LANDLOCK_READ);
	allow_beside(rules, c->pidfile, LANDLOCK_REMOVE);
	allow_beside(rules, unix_path(c->serial), LANDLOCK_REMOVE);
	allow_beside(rules, unix_path(c->gdb), LANDLOCK_REMOVE);
	allow_beside(rules, c->vsock.path, LANDLOCK_REMOVE);
	if (needs & NEEDS_USER_NET)
		allow_resolver(rules);
	return rules;
}

static int restrict_files(const struct config *c, unsigned needs)
{
	int rc, rules;

	if (!landlock_abi())
		return 0;
	sandbox.files = landlock_new(LANDLOCK_ALL);
	if (sandbox.files < 0)
		return sandbox.files;
	if (needs & NEEDS_USER_NET)
		allow_resolver(sandbox.files);
	rules = control_files(c, needs);
	rc = rules < 0 ? rules : landlock_enter(rules);
	if (rules >= 0)
		close(rules);
	return rc;
}

/* --- system calls ----------------------------------------------------------------------------- */

bool sandbox_has_filters(void)
{
	u32 action = SECCOMP_RET_TRAP;

	return !syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action);
}

bool sandbox_is_entered(void)
{
	return sandbox.entered;
}

bool sandbox_has_user_net(void)
{
	return sandbox.needs & NEEDS_USER_NET;
}

static int filter(enum thread_kind kind)
{
	struct sock_fprog program = { .len = sandbox.len[kind], .filter = sandbox.code[kind] };

	/* The processor may go on guessing: nobody's code but ours is in these threads. */
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program) ?
		-errno : 0;
}

/*
 * What an attacker gives for a name may lead nowhere: so the kernel reads there first, a set of
 * signals, before it refuses what is to be done with them.  At 0 there is no set: nothing to refuse.
 */
static bool reads(const char *at, const char *text)
{
	for (; ; at++, text++) {
		if (!syscall(SYS_rt_sigprocmask, -1, (uintptr_t)at & ~7ul, NULL, 8ul) || errno != EINVAL)
			return false;
		if (*at != *text || !*text)
			return *at == *text;
	}
}

/* malloc asks at times, and takes a no for an answer. */
static bool is_mallocs(const siginfo_t *info, const greg_t *regs)
{
	static const char *const path[] = {
		"/proc/sys/vm/overcommit_memory", "/sys/devices/system/cpu/online", "/proc/stat",
	};
	const char *name = (const char *)regs[info->si_syscall == SYS_openat ? REG_RSI : REG_RDI];

	if (info->si_syscall != SYS_openat && info->si_syscall != SYS_open)
		return false;
	for (unsigned i = 0; i < ARRAY_SIZE(path); i++)
		if (reads(name, path[i]))
			return true;
	return false;
}

/* libc's fstat(), of which the filter does not see that the path is none. */
static bool is_fstat(const siginfo_t *info, const greg_t *regs)
{
	return info->si_syscall == SYS_newfstatat && regs[REG_R10] == AT_EMPTY_PATH &&
		reads((const char *)regs[REG_RSI], "");
}

/* In the thread that made it, in the middle of anything. */
static void forbidden(int sig, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
	bool ours = info->si_arch == AUDIT_ARCH_X86_64;
	const char *name = ours ? sandbox_call_name(info->si_syscall) : "of 32 bits";
	char thread[16] = "?";
	int was = errno;

	(void)sig;
	if (info->si_code <= 0) {	/* not from the kernel */
		terminal_restore();
		log_err("stopped: process %d sent SIGSYS", (int)info->si_pid);
		_exit(EXIT_RUNTIME);
	}
	if (ours && is_mallocs(info, regs)) {
		regs[REG_RAX] = -EACCES;
		errno = was;
		return;
	}
	if (ours && is_fstat(info, regs)) {
		regs[REG_RAX] = syscall(SYS_fstat, regs[REG_RDI], regs[REG_RDX]) ? -errno : 0;
		errno = was;
		return;
	}
	terminal_restore();
	prctl(PR_GET_NAME, thread);
	log_err("sandbox: thread %s made the system call %s (%d, %#llx), which it never needs: stopped; a "
		"guest has broken into vmm, or --sandbox log shows a fault of vmm's", thread, name ?: "number",
		info->si_syscall, (unsigned long long)regs[info->si_syscall == SYS_ioctl ? REG_RSI : REG_RDI]);
	_exit(EXIT_RUNTIME);
}

static int compile(unsigned needs, const pid_t *child, u32 rest)
{
	struct bpf_rule rows[MAX_ROWS];

	sandbox_own_pid = getpid();
	for (unsigned i = 0; i < ARRAY_SIZE(sandbox_child); i++)
		sandbox_child[i] = child[i] ? (u32)child[i] : sandbox_own_pid;
	for (int kind = 0; kind < THREAD_KINDS; kind++) {
		int n = sandbox_select(kind, needs, rows, ARRAY_SIZE(rows));

		sandbox.len[kind] = n < 0 ? n : bpf_compile(rows, n, SYS_ioctl, rest, sandbox.code[kind],
							    MAX_LEN);
		if (sandbox.len[kind] < 0)
			return sandbox.len[kind];
	}
	return 0;
}

/* --- all of it -------------------------------------------------------------------------------- */

static void enter_thread(enum thread_kind kind)
{
	int rc = sandbox.has_caps ? keep_capabilities(sandbox.caps[kind]) : 0;

	if (!rc && sandbox.files >= 0)
		rc = landlock_enter(sandbox.files);
	if (!rc)
		rc = filter(kind);
	if (rc) {
		log_err("sandbox: a new thread cannot enter it: %s", strerror(-rc));
		sandbox.failed(sandbox.arg);
	}
}

static unsigned needs_of(const struct config *c, bool has_api)
{
	unsigned needs = (has_api ? NEEDS_API : 0) | (c->vsock.path ? NEEDS_VSOCK : 0);

	for (unsigned i = 0; i < c->nr_nets; i++) {
		if (c->net[i].vhost != NET_VHOST_OFF)
			needs |= NEEDS_VHOST;
		needs |= c->net[i].mode == NET_USER ? NEEDS_USER_NET :
			 c->net[i].mode == NET_PASST ? NEEDS_PASST :
			 c->net[i].mode >= NET_BRIDGE ? NEEDS_HOST_NET : 0;
	}
	return needs;
}

int sandbox_enter(const struct config *c, bool has_api, const pid_t child[CONFIG_MAX_NETS],
		  void (*failed)(void *arg), void *arg, struct err *err)
{
	struct sigaction sa = { .sa_sigaction = forbidden, .sa_flags = SA_SIGINFO };
	bool log = c->sandbox == SANDBOX_LOG;
	unsigned needs = needs_of(c, has_api) | (log ? NEEDS_LOG : 0);
	struct stat threads;
	int rc;

	if (sandbox.entered || c->sandbox == SANDBOX_OFF)
		return 0;
	/* "." and ".." and our own. */
	BUG_ON(!stat("/proc/self/task", &threads) && threads.st_nlink != 3);
	tzset();		/* a file, that the guest's clock would be the first to need */
	rc = compile(needs, child, log ? SECCOMP_RET_LOG : SECCOMP_RET_TRAP);
	if (!rc && (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 0) ||
		    setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 }) || sigaction(SIGSYS, &sa, NULL)))
		rc = -errno;
	if (!rc)
		rc = drop_capabilities(needs);
	if (!rc && !log)
		rc = restrict_files(c, needs);
	if (!rc)
		rc = filter(THREAD_CONTROL);
	if (rc)
		return err_of_host(rc) ? err_set(err, rc, "sandbox: %s", strerror(-rc)) :
			err_set(err, rc, "sandbox: this host refuses it: %s; --sandbox off goes without",
				strerror(-rc));
	sandbox.failed = failed;
	sandbox.arg = arg;
	sandbox.needs = needs;
	thread_set_sandbox(enter_thread);
	sandbox.entered = true;
	return 0;
}
