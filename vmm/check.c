/* check.c: 'vmm check': what this host can do for a VM, and what to do about a "no". */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "devices/legacy.h"
#include "firmware/boot.h"
#include "firmware/layout.h"
#include "vmm/cgroup.h"
#include "vmm/commands.h"
#include "vmm/core/aio.h"
#include "vmm/core/log.h"
#include "vmm/kvm/irqchip.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/landlock.h"
#include "vmm/program.h"
#include "vmm/sandbox.h"

/* The loop of guest/speed.asm: two instructions a round, the rounds in rcx. */
extern const u8 speed_payload[], speed_payload_end[];

enum { PROBE_ROUNDS = 20000, LONG_ROUNDS = 20000000, TRIES = 4, GIVE_UP_S = 10 };
/* A stock kernel executes about 2 thousand million instructions to its shell. */
#define ENOUGH_PER_S	30e6

static bool all_well = true;	/* of what a stock kernel needs */

static void report(const char *what, bool yes, const char *detail, const char *cure)
{
	printf("%-18s %-4s %s\n", what, yes ? "yes" : "no", detail);
	if (!yes && *cure)
		printf("%-18s      -> %s\n", "", cure);
}

static bool read_word(const char *path, char *word, size_t room)
{
	FILE *f = fopen(path, "re");
	bool ok = f && fgets(word, room, f);

	if (f)
		fclose(f);
	if (ok)
		word[strcspn(word, "\n")] = 0;
	return ok;
}

/* --- speed at CPL 0 ------------------------------------------------------------------------- */

struct trial {
	struct platform platform;
	struct kvm kvm;
	struct mem *mem;
	struct bus mmio, pio;
	struct irqchip *irqchip;
	struct device *ports;
	struct vcpu_host host;
	struct vcpu *vcpu;
	pthread_mutex_t lock;
	pthread_cond_t ended;
	bool has_ended, finished;
};

static void end_trial(struct trial *t, bool finished)
{
	pthread_mutex_lock(&t->lock);
	t->has_ended = true;
	t->finished = finished;
	store_release(&t->host.stop, true);
	pthread_cond_signal(&t->ended);
	pthread_mutex_unlock(&t->lock);
}

static void trial_event(struct platform *p, enum machine_event event, int code)
{
	(void)code;
	end_trial(container_of(p, struct trial, platform), event == MACHINE_EXIT);
}

static void trial_fatal(struct vcpu_host *h)
{
	end_trial(container_of(h, struct trial, host), false);
}

static int start_trial(struct trial *t, u64 rounds, struct err *err)
{
	struct cpu_start start;
	int rc = kvm_open(&t->kvm, err);

	if (!rc)
		rc = mem_new(&t->mem, 16 * MIB, false, err);
	if (!rc)
		rc = kvm_set_memory(&t->kvm, t->mem, err);
	if (!rc)
		rc = kvm_create_irqchip(&t->kvm, err);
	if (!rc)
		rc = irqchip_new(&t->irqchip, &t->kvm, err);
	if (!rc)
		rc = boot_flat(t->mem, LAYOUT_HIGH, speed_payload,
			       speed_payload_end - speed_payload, &start, err);
	if (rc)
		return rc;
	start.rcx = rounds;
	t->platform = (struct platform){ .mem = t->mem, .mmio = &t->mmio, .pio = &t->pio,
					 .irqchip = t->irqchip, .event = trial_event };
	t->host = (struct vcpu_host){ .kvm = &t->kvm, .mem = t->mem, .mmio = &t->mmio,
				      .pio = &t->pio, .nr_vcpus = 1, .fatal = trial_fatal };
	rc = ports_new(&t->platform, false, &t->ports, err);
	return rc ? rc : vcpu_new(&t->vcpu, &t->host, 0, &start, err);
}

/* Seconds for that many rounds; 0: it did not finish. */
static double measure(u64 rounds, struct err *err)
{
	struct trial t = { .kvm = { .sys_fd = -1, .vm_fd = -1 },
			   .lock = PTHREAD_MUTEX_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER };
	struct timespec until;
	double seconds = 0;
	u64 from;
	int rc;

	bus_init(&t.mmio, "mmio");
	bus_init(&t.pio, "pio");
	rc = start_trial(&t, rounds, err);
	from = now_ns();
	if (!rc)
		rc = vcpu_run(t.vcpu, err);
	if (!rc) {
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec += GIVE_UP_S;
		pthread_mutex_lock(&t.lock);
		while (!rc && !t.has_ended)
			rc = -pthread_cond_timedwait(&t.ended, &t.lock, &until);
		pthread_mutex_unlock(&t.lock);
		seconds = t.finished ? (now_ns() - from) / 1e9 : 0;
		store_release(&t.host.stop, true);
		vcpu_kick(t.vcpu);
		vcpu_join(t.vcpu);
		if (!seconds)
			err_set(err, -EIO, "a loop of a few instructions did not finish");
	}
	vcpu_free(t.vcpu);
	device_destroy(t.ports);
	irqchip_free(t.irqchip);
	kvm_close(&t.kvm);
	mem_free(t.mem);
	bus_fini(&t.mmio);
	bus_fini(&t.pio);
	return seconds;
}

static void check_speed(void)
{
	static const char cure[] = "this KVM interprets kernel code: use a host with VT-x or AMD-V, "
				   "or the project's scripts/lab";
	struct err err = { 0 };
	u64 rounds = PROBE_ROUNDS;
	double s = measure(rounds, &err);
	char text[128];

	/* The first warms up, and others may be busy here: the best of a few counts. */
	for (int i = 0; i < TRIES && s >= 0.02; i++) {
		double again = measure(rounds, &err);

		s = again ? MIN(s, again) : 0;
	}
	if (s && s < 0.02) {
		rounds = LONG_ROUNDS;
		s = measure(rounds, &err);
	}
	if (!s) {
		report("kernel code", false, err.msg, cure);
		all_well = false;
		return;
	}
	snprintf(text, sizeof(text), "%.3g million instructions/s at CPL 0", 2 * rounds / s / 1e6);
	report("kernel code", 2 * rounds / s >= ENOUGH_PER_S, text, cure);
	all_well &= 2 * rounds / s >= ENOUGH_PER_S;
}

/* --- the rest ---------------------------------------------------------------------------------- */

static bool check_kvm(void)
{
	char kind[64] = "of a kind unknown to vmm", flag[8] = "";
	bool paging = false;
	struct err err;
	struct kvm k;

	if (!access("/sys/module/kvm_intel", F_OK)) {
		strcpy(kind, "kvm-intel (VT-x)");
		paging = read_word("/sys/module/kvm_intel/parameters/ept", flag, sizeof(flag)) &&
			 *flag == 'Y';
	} else if (!access("/sys/module/kvm_amd", F_OK)) {
		strcpy(kind, "kvm-amd (AMD-V)");
		paging = read_word("/sys/module/kvm_amd/parameters/npt", flag, sizeof(flag)) &&
			 (*flag == 'Y' || *flag == '1');
	}
	if (kvm_open(&k, &err)) {
		char *cure = strstr(err.msg, "; ");

		if (cure)
			*cure = 0;
		report("KVM", false, err.msg + strlen("kvm: "), cure ? cure + 2 : "");
		all_well = false;
		return false;
	}
	report("KVM", true, kind, "");
	report("nested paging", paging, paging ? "EPT or NPT" : "not by EPT or NPT",
	       "load kvm-intel with ept=1, or kvm-amd with npt=1; without, memory is slow");
	report("ioeventfd, irqfd", true, "I/O without leaving the kernel", "");
	report("TSC deadline", k.has_tsc_deadline, k.has_tsc_deadline ? "cheap timers" : "",
	       "a newer host kernel has it");
	kvm_close(&k);
	return true;
}

static void check_device(const char *what, const char *path, const char *cure)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	char text[128];

	snprintf(text, sizeof(text), "%s%s%s", path, fd < 0 ? ": " : "",
		 fd < 0 ? strerror(errno) : "");
	report(what, fd >= 0, text, cure);
	if (fd >= 0)
		close(fd);
}

static void check_networks(void)
{
	char path[PATH_MAX];
	bool filter = program_find("nft", path, sizeof(path));
	bool names = program_find("dnsmasq", path, sizeof(path));

	report("networks", filter && names, filter && names ? "nft and dnsmasq, for --net nat" :
	       filter ? "no dnsmasq" : names ? "no nft" : "neither nft nor dnsmasq",
	       "install nftables and dnsmasq-base");
}

static void check_hugepages(void)
{
	char word[128] = "";
	bool ok;

	ok = read_word("/sys/kernel/mm/transparent_hugepage/enabled", word, sizeof(word)) &&
	     !strstr(word, "[never]");
	report("huge pages", ok, ok ? word : "transparent ones are off",
	       "echo madvise >/sys/kernel/mm/transparent_hugepage/enabled");
	ok = read_word("/sys/kernel/mm/transparent_hugepage/shmem_enabled", word, sizeof(word)) &&
	     !strstr(word, "[never]") && !strstr(word, "[deny]");
	report("  for shared RAM", ok, ok ? word : "guest RAM is private memory instead of a memfd",
	       "echo advise >/sys/kernel/mm/transparent_hugepage/shmem_enabled");
	ok = read_word("/proc/sys/vm/nr_hugepages", word, sizeof(word)) && atoi(word) > 0;
	report("  reserved", ok, ok ? word : "none", "for --hugepages: sysctl vm.nr_hugepages=N");
}

static void check_uring(void)
{
	struct loop *loop = NULL;
	struct aio *aio = NULL;
	struct err err = { 0 };
	bool ok = !loop_new(&loop, &err) && !aio_new(&aio, loop, AIO_URING, &err);

	report("io_uring", ok, ok ? "disks use it" : "disks use threads",
	       "sysctl kernel.io_uring_disabled=0, or lift the container's filter");
	aio_free(aio);
	loop_free(loop);
}

static void check_sandbox(void)
{
	char text[64];
	int abi = landlock_abi();

	report("seccomp", sandbox_has_filters(), sandbox_has_filters() ? "each thread has its system calls" :
	       "nothing filters system calls", "a kernel with CONFIG_SECCOMP_FILTER, or --sandbox off");
	snprintf(text, sizeof(text), abi ? "version %d: threads open no files" : "threads may open files", abi);
	report("Landlock", abi, text, "boot the host with lsm=landlock,... (a kernel from 5.13 on)");
}

static void check_limits(void)
{
	char text[PATH_MAX];
	struct rlimit files;
	bool ok;

	ok = cgroup_usable(text, sizeof(text));
	report("cgroups", ok, text, "boot the host with systemd.unified_cgroup_hierarchy=1, and be root or owner");
	getrlimit(RLIMIT_NOFILE, &files);
	snprintf(text, sizeof(text), "%llu open files", (unsigned long long)files.rlim_cur);
	report("limits", files.rlim_cur >= 256, text, "ulimit -n 1024");
}

int command_check(int argc, char **argv)
{
	if (argc == 1 && (!strcmp(argv[0], "--help") || !strcmp(argv[0], "-h"))) {
		puts("usage: vmm check\nwhat this host can do for a VM, and what to do about a \"no\"; status 0: a "
		     "stock kernel\nboots here at speed\n\noptions:\n  --help                 also -h");
		return EXIT_OK;
	}
	if (argc) {
		log_err("check: it takes no arguments, not '%s'", argv[0]);
		return EXIT_USAGE;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (check_kvm())
		check_speed();
	check_uring();
	check_device("vhost-net", "/dev/vhost-net", "modprobe vhost_net");
	check_device("tun", "/dev/net/tun", "modprobe tun, and be root or own the tap");
	check_networks();
	check_hugepages();
	check_sandbox();
	check_limits();
	puts(all_well ? "A stock kernel boots here at speed." :
			"A stock kernel does not boot here at speed.");
	return all_well ? EXIT_OK : EXIT_RUNTIME;
}
