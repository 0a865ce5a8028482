/* sandbox_test.c: what each kind of thread may still do, and how the others' calls end: a process each. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/lib/test.h"
#include "vmm/config.h"
#include "vmm/core/thread.h"
#include "vmm/landlock.h"
#include "vmm/sandbox.h"
#include "vmm/sandbox_rules.h"

enum { CAME_BACK = 77, WENT_WRONG = 78 };
/* More than the kernel ever gives: whoever may ask for them is told that there are none. */
enum { CHILD = 0x7ffffff0, NO_PROCESS };

struct attempt {
	enum thread_kind kind;
	long nr, arg[6];
	long expected;			/* of a call that comes back: 0, or -errno */
	enum sandbox_mode mode;
	bool of_32_bits;		/* its number is i386's */
	bool has_api, user_net, vsock, passt;
	bool gives_file;		/* that, and not 0 */
	const char *says;		/* in the line about it; NULL: it comes back */
};

static const char *const thread_name[THREAD_KINDS] = { "control", "vcpu/0", "io/0", "io/1", "pool" };

static long call_of_32_bits(long nr)
{
	__asm__ volatile("int $0x80" : "+a" (nr) : : "memory");
	return nr;
}

static long make_call(const struct attempt *a)
{
	long rc = a->of_32_bits ? call_of_32_bits(a->nr) : syscall(a->nr, a->arg[0], a->arg[1], a->arg[2], a->arg[3], a->arg[4],
							     a->arg[5]);

	return rc < 0 ? -errno : a->gives_file ? 0 : rc;
}

static void *attempt_thread(void *arg)
{
	const struct attempt *a = arg;

	thread_begin(a->kind, thread_name[a->kind]);
	return (void *)(uintptr_t)make_call(a);
}

/* The pool's are begun by a disk's thread, whose list they keep. */
static void *disk_thread(void *arg)
{
	pthread_t thread;
	void *rc;

	thread_begin(THREAD_DISK, thread_name[THREAD_DISK]);
	if (pthread_create(&thread, NULL, attempt_thread, arg) || pthread_join(thread, &rc))
		_exit(WENT_WRONG);
	return rc;
}

static void not_entered(void *arg)
{
	(void)arg;
	_exit(WENT_WRONG);
}

static const pid_t children_of[CONFIG_MAX_NETS] = { 0, CHILD };

/* In a process of its own, whose standard error is the log. */
static _Noreturn void run_attempt(const struct attempt *a)
{
	struct config c = { .sandbox = a->mode, .vsock.path = a->vsock ? (char[]){ "/none/v" } : NULL };
	struct err err = { 0 };
	pthread_t thread;
	void *rc;

	if (a->user_net || a->passt) {
		c.nr_nets = 1;
		c.net[0].mode = a->passt ? NET_PASST : NET_USER;
	}
	prctl(PR_SET_NAME, thread_name[THREAD_CONTROL]);
	if (sandbox_enter(&c, a->has_api, children_of, not_entered, NULL, &err)) {
		dprintf(STDERR_FILENO, "%s\n", err.msg);
		_exit(WENT_WRONG);
	}
	if (a->kind == THREAD_CONTROL)
		rc = (void *)(uintptr_t)make_call(a);
	else if (pthread_create(&thread, NULL, a->kind == THREAD_POOL ? disk_thread : attempt_thread,
				(void *)(uintptr_t)a) || pthread_join(thread, &rc))
		_exit(WENT_WRONG);
	if (!a->says && (long)rc != a->expected)
		dprintf(STDERR_FILENO, "it gave %ld, not %ld\n", (long)rc, a->expected);
	_exit((long)rc == a->expected ? CAME_BACK : WENT_WRONG);
}

static void try(const struct attempt *a)
{
	char text[1024] = "", thread[64];
	int fd[2], status;
	ssize_t n, len = 0;
	pid_t pid;

	assert_return_code(pipe(fd), errno);
	pid = fork();
	assert_return_code(pid, errno);
	if (!pid) {
		dup2(fd[1], STDERR_FILENO);
		run_attempt(a);
	}
	close(fd[1]);
	while ((n = read(fd[0], text + len, sizeof(text) - 1 - len)) > 0)
		len += n;
	close(fd[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != (a->says ? EXIT_FAILURE : CAME_BACK))
		print_error("call %ld of %s: status %#x: %s\n", a->nr, thread_name[a->kind], status, text);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), a->says ? EXIT_FAILURE : CAME_BACK);
	if (!a->says) {
		assert_string_equal(text, "");
		return;
	}
	snprintf(thread, sizeof(thread), "sandbox: thread %s made the system call %s (%ld", thread_name[a->kind],
		 a->says, a->nr);
	if (!strstr(text, thread))
		print_error("'%s' is not in: %s\n", thread, text);
	assert_non_null(strstr(text, thread));
}

static void all_kinds(struct attempt a)
{
	for (int kind = 0; kind < THREAD_KINDS; kind++) {
		a.kind = kind;
		try(&a);
	}
}

/* --- what never is anybody's ------------------------------------------------------------------- */

static void programs(void **state)
{
	static const char path[] = "/bin/true";

	(void)state;
	all_kinds((struct attempt){ .nr = SYS_execve, .arg = { (long)path }, .says = "execve" });
	all_kinds((struct attempt){ .nr = SYS_execveat, .arg = { AT_FDCWD, (long)path }, .says = "execveat" });
	all_kinds((struct attempt){ .nr = SYS_fork, .says = "fork" });
	all_kinds((struct attempt){ .nr = SYS_clone, .arg = { SIGCHLD }, .says = "clone" });
	all_kinds((struct attempt){ .nr = SYS_execve, .has_api = true, .user_net = true, .says = "execve" });
}

static void other_processes(void **state)
{
	(void)state;
	all_kinds((struct attempt){ .nr = SYS_ptrace, .arg = { 16, getppid() }, .says = "ptrace" });
	all_kinds((struct attempt){ .nr = SYS_process_vm_readv, .arg = { getppid() }, .says = "process_vm_readv" });
	all_kinds((struct attempt){ .nr = SYS_process_vm_writev, .arg = { getppid() },
				    .says = "process_vm_writev" });
	all_kinds((struct attempt){ .nr = SYS_kill, .arg = { getppid(), 0 }, .says = "kill" });
	all_kinds((struct attempt){ .nr = SYS_tgkill, .arg = { getppid(), getppid(), 0 }, .says = "tgkill" });
	all_kinds((struct attempt){ .nr = SYS_pidfd_open, .arg = { getppid() }, .says = "pidfd_open" });
}

/* What a VM has made for itself it ends, and nobody else: least of all, as root, everybody. */
static void children(void **state)
{
	struct attempt a = { .passt = true, .nr = SYS_kill, .arg = { NO_PROCESS, SIGKILL } };

	(void)state;
	a.says = "kill";
	all_kinds(a);
	a.arg[0] = -NO_PROCESS;
	all_kinds(a);
	/* Its own group, where who started it may be, and all: should it be let, not by a signal. */
	a.arg[1] = 0;
	a.arg[0] = 0;
	all_kinds(a);
	a.arg[0] = -1;
	all_kinds(a);
	a.arg[1] = SIGKILL;
	a.arg[0] = CHILD;
	a.kind = THREAD_VCPU;
	try(&a);
	a.says = NULL;
	a.expected = -ESRCH;
	a.kind = THREAD_IO;
	try(&a);
	a.kind = THREAD_CONTROL;
	try(&a);
}

static void privileges(void **state)
{
	static const long nr[] = { SYS_setuid, SYS_mount, SYS_chroot, SYS_unshare, SYS_setns, SYS_bpf,
				   SYS_keyctl, SYS_userfaultfd, SYS_perf_event_open, SYS_init_module };
	static const u64 more[] = { CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWIPC, CLONE_NEWUTS,
				    CLONE_NEWCGROUP, CLONE_PTRACE, CLONE_VFORK, CLONE_IO };
	const u64 thread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(nr); i++)
		all_kinds((struct attempt){ .nr = nr[i], .says = sandbox_call_name(nr[i]) });
	/* A new thread, but in a namespace of its own, or traced, or without what all have in common. */
	for (unsigned i = 0; i < ARRAY_SIZE(more); i++)
		all_kinds((struct attempt){ .nr = SYS_clone, .says = "clone", .arg = { thread | more[i] } });
	for (unsigned i = 0; i < 32; i++)
		if (thread >> i & 1)
			all_kinds((struct attempt){ .nr = SYS_clone, .says = "clone", .arg = { thread & ~(1UL << i) } });
	all_kinds((struct attempt){ .nr = SYS_prctl, .arg = { PR_SET_DUMPABLE, 1 }, .says = "prctl" });
}

/* Nobody has said that it has a name: a number is enough. */
static void calls_that_come_later(void **state)
{
	(void)state;
	all_kinds((struct attempt){ .nr = 5000, .says = "number" });
}

/* Other numbers for the same calls: these are getpid()'s, which all may ask for. */
static void other_numbers(void **state)
{
	enum { GETPID_I386 = 20, X32_BIT = 1 << 30 };
	pid_t pid;
	int status;

	(void)state;
	all_kinds((struct attempt){ .nr = X32_BIT | SYS_getpid, .says = "number" });
	pid = fork();
	if (!pid)
		_exit(call_of_32_bits(GETPID_I386) == getpid() ? CAME_BACK : WENT_WRONG);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != CAME_BACK)
		skip();		/* this kernel has none */
	all_kinds((struct attempt){ .nr = GETPID_I386, .of_32_bits = true, .says = "of 32 bits" });
}

/* Then no call would end it any more. */
static void the_end_itself(void **state)
{
	(void)state;
	all_kinds((struct attempt){ .nr = SYS_rt_sigaction, .arg = { SIGSYS, 0, 0, 8 }, .says = "rt_sigaction" });
	all_kinds((struct attempt){ .nr = SYS_rt_sigaction, .arg = { SIGABRT, 0, 0, 8 } });
}

static void memory_as_code(void **state)
{
	static u8 page[2 * 4096];
	long at = ALIGN_UP((uintptr_t)page, 4096ul);

	(void)state;
	all_kinds((struct attempt){ .nr = SYS_mprotect, .arg = { at, 4096, PROT_READ | PROT_EXEC },
				    .says = "mprotect" });
	all_kinds((struct attempt){ .nr = SYS_mmap, .says = "mmap",
		.arg = { 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1 } });
	all_kinds((struct attempt){ .nr = SYS_mmap, .says = "mmap", .has_api = true,
		.arg = { 0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1 } });
}

/* Calls that all have, but not with these: signals to others, a program that is its owner, another's limits, broken memory. */
static void arguments(void **state)
{
	enum { POISON = 100 };
	static const long set[] = { F_SETOWN, F_SETSIG, F_NOTIFY, F_SETLEASE };

	(void)state;
	for (int kind = 0; kind < THREAD_KINDS; kind++)
		for (unsigned i = 0; i < ARRAY_SIZE(set); i++)
			try(&(struct attempt){ .kind = kind, .nr = SYS_fcntl, .arg = { -1, set[i] }, .says = "fcntl" });
	all_kinds((struct attempt){ .nr = SYS_chmod, .arg = { (long)"/none", 04755 }, .has_api = true, .says = "chmod" });
	all_kinds((struct attempt){ .nr = SYS_prlimit64, .arg = { getppid() }, .says = "prlimit64" });
	all_kinds((struct attempt){ .nr = SYS_madvise, .arg = { 1, 4096, POISON }, .says = "madvise" });
}

/* --- what is others' ---------------------------------------------------------------------------- */

static void files(void **state)
{
	static const char path[] = "/etc/passwd";

	(void)state;
	for (int kind = THREAD_VCPU; kind < THREAD_KINDS; kind++) {
		try(&(struct attempt){ .kind = kind, .nr = SYS_openat, .arg = { AT_FDCWD, (long)path },
				       .says = "openat" });
		try(&(struct attempt){ .kind = kind, .nr = SYS_open, .arg = { (long)path }, .says = "open" });
		try(&(struct attempt){ .kind = kind, .nr = SYS_rename, .arg = { (long)path, (long)path },
				       .says = "rename" });
		/* A crash would: that of a pid file, which is not worth another line. */
		try(&(struct attempt){ .kind = kind, .nr = SYS_unlink, .arg = { (long)"/none" },
				       .expected = -EACCES });
		/* What malloc wants to know, and can do without. */
		try(&(struct attempt){ .kind = kind, .nr = SYS_openat, .expected = -EACCES,
				       .arg = { AT_FDCWD, (long)"/proc/sys/vm/overcommit_memory" } });
	}
	try(&(struct attempt){ .kind = THREAD_CONTROL, .nr = SYS_unlink, .arg = { (long)"/none" },
			       .expected = -ENOENT, .has_api = true });
}

/* libc's fstat() has a path, an empty one; with its flag any other is one, too. */
static void what_files_are(void **state)
{
	static const char path[] = "/etc/passwd", none[] = "";
	static struct stat st;

	(void)state;
	for (int kind = THREAD_VCPU; kind < THREAD_KINDS; kind++) {
		try(&(struct attempt){ .kind = kind, .nr = SYS_newfstatat, .says = "newfstatat",
				       .arg = { AT_FDCWD, (long)path, (long)&st, AT_EMPTY_PATH } });
		try(&(struct attempt){ .kind = kind, .nr = SYS_statx, .says = "statx",
				       .arg = { AT_FDCWD, (long)path, 0, 0, (long)&st } });
		try(&(struct attempt){ .kind = kind, .nr = SYS_newfstatat,
				       .arg = { STDERR_FILENO, (long)none, (long)&st, AT_EMPTY_PATH } });
		try(&(struct attempt){ .kind = kind, .nr = SYS_newfstatat, .expected = -EBADF,
				       .arg = { -1, (long)none, (long)&st, AT_EMPTY_PATH } });
	}
}

/* What is to be a name leads nowhere, or out of what there is. */
static void no_names(void **state)
{
	static const char begin[] = "/proc/s";
	char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *cut;

	(void)state;
	assert_ptr_not_equal(page, MAP_FAILED);
	munmap(page + 4096, 4096);
	cut = memcpy(page + 4096 - strlen(begin), begin, strlen(begin));
	for (int kind = THREAD_VCPU; kind < THREAD_KINDS; kind++) {
		try(&(struct attempt){ .kind = kind, .nr = SYS_openat, .arg = { AT_FDCWD, 1 }, .says = "openat" });
		try(&(struct attempt){ .kind = kind, .nr = SYS_openat, .arg = { AT_FDCWD, LONG_MIN },
				       .says = "openat" });
		try(&(struct attempt){ .kind = kind, .nr = SYS_openat, .arg = { AT_FDCWD, (long)cut },
				       .says = "openat" });
		try(&(struct attempt){ .kind = kind, .nr = SYS_open, .says = "open" });
	}
	munmap(page, 4096);
}

static void connections(void **state)
{
	(void)state;
	for (int domain = AF_UNIX; domain <= AF_PACKET; domain++) {
		all_kinds((struct attempt){ .nr = SYS_socket, .arg = { domain, SOCK_STREAM }, .says = "socket" });
		if (domain == AF_INET)
			domain = AF_PACKET - 1;
	}
	/* libslirp's are of the internet, and on its thread. */
	for (int kind = THREAD_VCPU; kind < THREAD_KINDS; kind++)
		try(&(struct attempt){ .kind = kind, .nr = SYS_socket, .arg = { AF_PACKET, SOCK_RAW },
				       .user_net = true, .says = "socket" });
	try(&(struct attempt){ .kind = THREAD_IO, .nr = SYS_socket, .arg = { AF_INET, 99 }, .user_net = true,
			       .expected = -EINVAL });
	/* libc asks for one to name an interface, and has another way. */
	try(&(struct attempt){ .kind = THREAD_IO, .nr = SYS_socket, .arg = { AF_UNIX, SOCK_STREAM },
			       .user_net = true, .expected = -EAFNOSUPPORT });
	try(&(struct attempt){ .kind = THREAD_VCPU, .nr = SYS_socket, .arg = { AF_INET, SOCK_STREAM },
			       .user_net = true, .says = "socket" });
	try(&(struct attempt){ .kind = THREAD_VCPU, .nr = SYS_connect, .user_net = true, .says = "connect" });
	try(&(struct attempt){ .kind = THREAD_DISK, .nr = SYS_connect, .user_net = true, .says = "connect" });
	try(&(struct attempt){ .kind = THREAD_DISK, .nr = SYS_kill, .arg = { CHILD }, .passt = true, .says = "kill" });
	/* A vsock's are unix sockets, and on that thread, too; also beside libslirp's. */
	for (int user_net = 0; user_net < 2; user_net++) {
		struct attempt a = { .kind = THREAD_IO, .nr = SYS_socket, .arg = { AF_UNIX, 99 },
				     .user_net = user_net, .vsock = true };

		a.expected = -EINVAL;
		try(&a);
		a.expected = 0;
		a.kind = THREAD_VCPU;
		a.says = "socket";
		try(&a);
		a.kind = THREAD_DISK;
		try(&a);
		a.kind = THREAD_POOL;
		try(&a);
	}
	all_kinds((struct attempt){ .nr = SYS_socket, .arg = { AF_INET, SOCK_STREAM }, .vsock = true,
				    .says = "socket" });
	try(&(struct attempt){ .kind = THREAD_IO, .nr = SYS_connect, .arg = { -1 }, .vsock = true,
			       .expected = -EBADF });
	try(&(struct attempt){ .kind = THREAD_IO, .nr = SYS_accept4, .arg = { -1 }, .vsock = true,
			       .expected = -EBADF });
	try(&(struct attempt){ .kind = THREAD_IO, .nr = SYS_bind, .arg = { -1 }, .vsock = true, .says = "bind" });
	try(&(struct attempt){ .kind = THREAD_IO, .nr = SYS_listen, .arg = { -1 }, .vsock = true,
			       .says = "listen" });
	try(&(struct attempt){ .kind = THREAD_VCPU, .nr = SYS_connect, .vsock = true, .says = "connect" });
}

/* Such as have a name, but no file, which no user or directory would keep a VM from. */
static void abstract_sockets(void **state)
{
	static struct sockaddr_un to = { .sun_family = AF_UNIX };
	int len, listener = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);

	(void)state;
	assert_true(listener >= 0 && client >= 0);
	len = (int)offsetof(struct sockaddr_un, sun_path) + 1 +
	      snprintf(to.sun_path + 1, sizeof(to.sun_path) - 1, "vmm-sandbox-test-%d", (int)getpid());
	assert_return_code(bind(listener, (struct sockaddr *)&to, len), errno);
	assert_return_code(listen(listener, 8), errno);
	if (landlock_abi() >= 6)
		try(&(struct attempt){ .kind = THREAD_IO, .nr = SYS_connect, .arg = { client, (long)&to, len },
				       .vsock = true, .expected = -EPERM });
	close(client);
	close(listener);
}

/* A socket that somebody else has connected, --net fd=N's, leads there and nowhere else; no descriptor leaves by it. */
static void where_to(void **state)
{
	struct attempt to = { .nr = SYS_sendto, .arg = { -1, 0, 0, 0, 0, 16 }, .says = "sendto" };

	(void)state;
	all_kinds(to);
	for (int kind = THREAD_VCPU; kind < THREAD_KINDS; kind++) {
		try(&(struct attempt){ .kind = kind, .nr = SYS_sendmsg, .arg = { -1 }, .says = "sendmsg" });
		try(&(struct attempt){ .kind = kind, .nr = SYS_recvmsg, .arg = { -1 }, .says = "recvmsg" });
	}
	all_kinds((struct attempt){ .nr = SYS_sendto, .arg = { -1 }, .expected = -EBADF });
	/* libslirp's are nobody's yet. */
	to.user_net = true;
	to.kind = THREAD_VCPU;
	try(&to);
	to.kind = THREAD_IO;
	to.says = NULL;
	to.expected = -EBADF;
	try(&to);
}

/* -EBADF: it came as far as the kernel's own look at the arguments. */
static void devices(void **state)
{
	static const struct {
		enum thread_kind kind;
		u32 request;
		bool allowed;
	} of[] = {
		{ THREAD_VCPU, KVM_RUN, true }, { THREAD_VCPU, KVM_IRQFD, true },
		{ THREAD_VCPU, KVM_TRANSLATE, true }, { THREAD_VCPU, KVM_CREATE_VM, false },
		{ THREAD_VCPU, KVM_SET_USER_MEMORY_REGION, false }, { THREAD_VCPU, KVM_SET_REGS, false },
		{ THREAD_CONTROL, KVM_CREATE_VM, true }, { THREAD_IO, KVM_RUN, false },
		{ THREAD_POOL, KVM_RUN, false }, { THREAD_VCPU, TIOCSTI, false },
		{ THREAD_POOL, BLKGETSIZE64, true }, { THREAD_DISK, BLKGETSIZE64, true },
		{ THREAD_DISK, TUNSETQUEUE, false }, { THREAD_VCPU, BLKGETSIZE64, false },
		{ THREAD_CONTROL, TIOCSTI, false }, { THREAD_IO, TIOCSTI, false },
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(of); i++)
		try(&(struct attempt){ .kind = of[i].kind, .nr = SYS_ioctl, .arg = { -1, of[i].request },
				       .expected = -EBADF, .says = of[i].allowed ? NULL : "ioctl" });
}

/* --- what all do ---------------------------------------------------------------------------------- */

static void what_libc_needs(void **state)
{
	(void)state;
	all_kinds((struct attempt){ .nr = SYS_clone3, .expected = -ENOSYS });
	all_kinds((struct attempt){ .nr = -1, .expected = -ENOSYS });	/* as a tracer leaves it */
	all_kinds((struct attempt){ .nr = SYS_sched_yield });
	all_kinds((struct attempt){ .nr = SYS_futex, .arg = { 0, 127 }, .expected = -ENOSYS });
	all_kinds((struct attempt){ .nr = SYS_madvise, .arg = { 1, 4096, MADV_DONTNEED }, .expected = -EINVAL });
	all_kinds((struct attempt){ .nr = SYS_clock_gettime, .arg = { 99, 0 }, .expected = -EINVAL });
}

/* Only the kernel's log tells. */
static void log_mode(void **state)
{
	(void)state;
	all_kinds((struct attempt){ .nr = SYS_execve, .mode = SANDBOX_LOG, .expected = -EFAULT,
				    .arg = { 1 } });
	all_kinds((struct attempt){ .nr = SYS_setns, .mode = SANDBOX_LOG, .arg = { -1 }, .expected = -EBADF });
	all_kinds((struct attempt){ .nr = SYS_setns, .mode = SANDBOX_OFF, .arg = { -1 }, .expected = -EBADF });
}

/* --- these and no more -------------------------------------------------------------------------------- */

static void write_rule(FILE *f, const char *who, const char *need, const struct bpf_rule *r)
{
	static const char *const checks[] = { "", "one of", "bits" };

	fprintf(f, "%s%s %s", who, need, sandbox_call_name(r->nr));
	if (r->check)
		fprintf(f, ", %d is %s", r->arg, checks[r->check]);
	for (unsigned i = 0; i < r->nr_values && r->check; i++) {
		if (r->value == &sandbox_own_pid || (r->value >= sandbox_child && r->value < &sandbox_child[CONFIG_MAX_NETS]))
			fputs(" own", f);	/* process */
		else
			fprintf(f, " %#x", r->value[i]);
	}
	fputs(r->refuse ? ", refused\n" : "\n", f);
}

static bool is_among(const struct bpf_rule *r, const struct bpf_rule *list, int nr)
{
	for (int i = 0; i < nr; i++)
		if (!memcmp(r, &list[i], sizeof(*r)))
			return true;
	return false;
}

/* What each kind of thread has in every VM, and what for a need of some. */
static char *write_lists(void)
{
	static const char *const needs[] = { " with API", " with user", " with passt", " with a network of the host",
					     " with vhost", " with vsock", " with log" };
	struct bpf_rule always[192], all[192];
	char *text;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	for (int kind = 0; kind < THREAD_KINDS; kind++) {
		int n = sandbox_select(kind, 0, always, ARRAY_SIZE(always));

		assert_true(n > 0);
		for (int i = 0; i < n; i++)
			write_rule(f, thread_name[kind], "", &always[i]);
		for (unsigned need = 0; need < ARRAY_SIZE(needs); need++) {
			int m = sandbox_select(kind, 1 << need, all, ARRAY_SIZE(all));

			assert_true(m >= n);
			for (int i = 0; i < m; i++)
				if (!is_among(&all[i], always, n))
					write_rule(f, thread_name[kind], needs[need], &all[i]);
		}
	}
	fclose(f);
	return text;
}

/* A list that became longer is seen: the new lines belong into the file, each for a reason in sandbox_rules.c. With
 * WRITE_LISTS in the environment it is written. */
static void lists(void **state)
{
	static const char path[] = "tests/unit/sandbox.lists";
	char *text = write_lists(), *at = text, line[512];
	FILE *f = fopen(path, getenv("WRITE_LISTS") ? "w+e" : "re");

	(void)state;
	assert_non_null(f);
	if (getenv("WRITE_LISTS"))
		fputs(text, f);
	rewind(f);
	while (fgets(line, sizeof(line), f)) {
		if (strncmp(at, line, strlen(line)))
			fail_msg("%s has '%s' where it is '%.*s'", path, line, (int)strcspn(at, "\n"), at);
		at += strlen(line);
	}
	if (*at)
		fail_msg("%s lacks '%.*s'", path, (int)strcspn(at, "\n"), at);
	fclose(f);
	free(text);
}

/* --- what the process has left --------------------------------------------------------------------- */

struct look {
	enum thread_kind kind;
	FILE *status;			/* open already; NULL: to be opened */
	char text[1024];
};

static void *look_at_thread(void *arg)
{
	struct look *look = arg;
	char line[128], *text = look->text;
	FILE *f = look->status ?: fopen("/proc/thread-self/status", "r");

	/* With the file open: after this none is. */
	if (look->kind != THREAD_CONTROL)
		thread_begin(look->kind, thread_name[look->kind]);
	*text = 0;
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, "Cap", 3) || !strncmp(line, "NoNew", 5) || !strncmp(line, "Seccomp:", 8))
			strcat(text, line);
	return NULL;
}

/* Pings and the end of passt are of the threads that serve cards; others' files of the one that has the API. */
static u64 privileges_of(enum thread_kind kind)
{
	const u64 cards = 1ULL << CAP_NET_RAW | 1ULL << CAP_KILL;
	const u64 files = 1ULL << CAP_DAC_OVERRIDE | 1ULL << CAP_CHOWN | 1ULL << CAP_FOWNER;

	if (geteuid())
		return 0;
	return kind == THREAD_IO ? cards : kind == THREAD_CONTROL ? cards | files : 0;
}

static void privileges_left_to(enum thread_kind kind)
{
	u64 expected = privileges_of(kind);
	char effective[64], permitted[64];
	struct look look = { .kind = kind };
	int status;
	pid_t pid = fork();

	snprintf(effective, sizeof(effective), "CapEff:\t%016llx", (unsigned long long)expected);
	snprintf(permitted, sizeof(permitted), "CapPrm:\t%016llx", (unsigned long long)expected);
	if (!pid) {
		struct config c = { .sandbox = SANDBOX_ON, .nr_nets = 2, .net[0].mode = NET_USER, .net[1].mode = NET_PASST };
		struct rlimit core;
		pthread_t thread;
		bool ok;

		if (kind == THREAD_CONTROL)
			look.status = fopen("/proc/thread-self/status", "r");
		ok = !sandbox_enter(&c, true, children_of, not_entered, NULL, &(struct err){ 0 });
		if (kind == THREAD_CONTROL)
			look_at_thread(&look);
		else
			ok = ok && !pthread_create(&thread, NULL, look_at_thread, &look) && !pthread_join(thread, NULL);

		ok = ok && strstr(look.text, effective) && strstr(look.text, permitted) &&
		     strstr(look.text, "NoNewPrivs:\t1") && strstr(look.text, "Seccomp:\t2") &&
		     !getrlimit(RLIMIT_CORE, &core) && !core.rlim_max;
		if (!ok)
			dprintf(STDERR_FILENO, "%s\n", look.text);
		_exit(ok ? CAME_BACK : WENT_WRONG);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), CAME_BACK);
}

static void privileges_left(void **state)
{
	(void)state;
	for (int kind = 0; kind < THREAD_KINDS; kind++)
		privileges_left_to(kind);
}

/* Where the kernel has Landlock, the control thread's opens are of known files only. */
static void files_of_control(void **state)
{
	static const char path[] = "/etc/hostname";

	(void)state;
	if (!landlock_abi())
		skip();
	try(&(struct attempt){ .kind = THREAD_CONTROL, .nr = SYS_openat, .arg = { AT_FDCWD, (long)path },
			       .expected = -EACCES });
}

/* Clients of the API say which files, guests do not: of those of a thread that opens some few are left. */
static void files_of_a_thread(void **state)
{
	static const char path[] = "/bin/true", hosts[] = "/etc/none", names[] = "/etc/resolv.conf", other[] = "/etc/passwd";
	struct attempt a = { .kind = THREAD_IO, .nr = SYS_openat, .arg = { AT_FDCWD, (long)names, O_WRONLY },
			     .user_net = true, .says = "openat" };

	(void)state;
	try(&a);
	if (!landlock_abi())
		skip();
	/* Of who may read all that is in /etc: that alone. */
	a = (struct attempt){ .kind = THREAD_IO, .nr = SYS_openat, .arg = { AT_FDCWD, (long)other }, .user_net = true,
			      .expected = geteuid() ? 0 : -EACCES, .gives_file = true };
	try(&a);
	a.arg[1] = (long)names;
	a.expected = access(names, R_OK) ? -errno : 0;
	try(&a);
	try(&(struct attempt){ .kind = THREAD_IO, .nr = SYS_openat, .arg = { AT_FDCWD, (long)path }, .has_api = true,
			       .user_net = true, .expected = -EACCES });
	try(&(struct attempt){ .kind = THREAD_IO, .nr = SYS_openat, .arg = { AT_FDCWD, (long)hosts }, .has_api = true,
			       .user_net = true, .expected = -ENOENT });
}

/* Who asks is let, where nothing is stopped. */
static void not_dumpable(void **state)
{
	(void)state;
	try(&(struct attempt){ .nr = SYS_prctl, .arg = { PR_GET_DUMPABLE }, .mode = SANDBOX_OFF, .expected = 1 });
	try(&(struct attempt){ .nr = SYS_prctl, .arg = { PR_GET_DUMPABLE }, .mode = SANDBOX_LOG });
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(programs), cmocka_unit_test(other_processes), cmocka_unit_test(children),
		cmocka_unit_test(privileges),
		cmocka_unit_test(calls_that_come_later), cmocka_unit_test(other_numbers),
		cmocka_unit_test(the_end_itself), cmocka_unit_test(memory_as_code),
		cmocka_unit_test(arguments),
		cmocka_unit_test(files), cmocka_unit_test(what_files_are), cmocka_unit_test(no_names), cmocka_unit_test(connections),
		cmocka_unit_test(abstract_sockets), cmocka_unit_test(where_to),
		cmocka_unit_test(devices), cmocka_unit_test(what_libc_needs), cmocka_unit_test(log_mode),
		cmocka_unit_test(lists),
		cmocka_unit_test(privileges_left), cmocka_unit_test(files_of_control),
		cmocka_unit_test(files_of_a_thread), cmocka_unit_test(not_dumpable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
