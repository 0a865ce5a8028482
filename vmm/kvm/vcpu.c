/* vcpu.c: the KVM_RUN loop and what the guest's exits mean. */
#include "vmm/kvm/vcpu.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "vmm/core/log.h"
#include "vmm/core/thread.h"
#include "vmm/kvm/allow.h"
#include "vmm/kvm/cpu.h"
#include "vmm/kvm/cpu_state.h"
#include "vmm/kvm/stats.h"

enum { STACK = 256 * 1024 };

struct vcpu_counters {
	/* By its thread: exits that came as far as this program. */
	struct ticks io_in, io_out, mmio_read, mmio_write;
	u64 halt, interrupted, debug, fatal;
	/* By who resumes it. */
	u64 clock_fails;
	/* As it was when somebody asked. */
	struct kvm_counts kvm;
	u64 cpu_ns, steal_ns;
};

struct vcpu {
	struct vcpu_host *host;
	unsigned index;
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	pid_t tid;			/* atomic; 0: it did not begin yet */
	bool has_thread;
	char name[8];			/* the index, as text */
	struct kvm_stats stats;
	struct metric_set metrics;
	struct vcpu_counters *counters;
	bool held, stopped;		/* under host->lock */
	struct cpu_stop stop;		/* if stopped */
};

/* --- counting ------------------------------------------------------------------------------------- */

#define EXIT(member, reason, help) \
	{ "vcpu_user_exits_total", "reason=\"" reason "\"", help, \
	  .offset = offsetof(struct vcpu_counters, member) }
#define TIME(member, help) \
	{ "vcpu_user_exit_seconds", "reason=\"" #member "\"", help, METRIC_TICKS, \
	  .offset = offsetof(struct vcpu_counters, member) }
#define IN_KVM(member, help) \
	{ "vcpu_kvm_exits_total", "reason=\"" #member "\"", help, \
	  .offset = offsetof(struct vcpu_counters, kvm.member) }
#define ROW(name, member, help, ...) \
	{ name, NULL, help, .offset = offsetof(struct vcpu_counters, member), __VA_ARGS__ }

static const struct metric vcpu_metric[] = {
	EXIT(io_in.count, "io_in", "Exits from the guest that vmm handled, by reason"),
	EXIT(io_out.count, "io_out", NULL), EXIT(mmio_read.count, "mmio_read", NULL),
	EXIT(mmio_write.count, "mmio_write", NULL), EXIT(halt, "halt", NULL),
	EXIT(interrupted, "interrupted", NULL), EXIT(debug, "debug", NULL),
	EXIT(fatal, "fatal", NULL),
	TIME(io_in, "How long devices took for an exit that vmm handled"),
	TIME(io_out, NULL), TIME(mmio_read, NULL), TIME(mmio_write, NULL),
	ROW("vcpu_clock_failures_total", clock_fails, "Pauses that KVM could not tell the guest's clock"),
	ROW("vcpu_exits_total", kvm.exits, "Exits from the guest, all that KVM saw"),
	IN_KVM(irq, "Of these, by reason, as far as KVM tells"),
	IN_KVM(irq_window, NULL), IN_KVM(nmi_window, NULL), IN_KVM(io, NULL),
	IN_KVM(mmio, NULL), IN_KVM(signal, NULL), IN_KVM(request, NULL),
	ROW("vcpu_halts_total", kvm.halts, "How often the guest had nothing to do"),
	ROW("vcpu_halted_seconds_total", kvm.halt_ns, "How long the thread slept then", .ns = true),
	ROW("vcpu_interrupts_total", kvm.injected, "Interrupts that KVM injected"),
	ROW("vcpu_nmis_total", kvm.injected_nmi, "NMIs that KVM injected"),
	ROW("vcpu_page_faults_total", kvm.page_faults, "Faults of the second level of paging"),
	ROW("vcpu_emulated_total", kvm.emulated, "Instructions that KVM emulated"),
	ROW("vcpu_hypercalls_total", kvm.hypercalls, "Hypercalls"),
	ROW("vcpu_tlb_flushes_total", kvm.tlb_flushes, "Flushes of the TLB"),
	ROW("vcpu_cpu_seconds_total", cpu_ns, "Processor time of the thread", .ns = true),
	ROW("vcpu_steal_seconds_total", steal_ns,
	    "How long it was ready to run, and the host ran others", .ns = true),
};
static const struct metric_table vcpu_table = { "vcpu", vcpu_metric, ARRAY_SIZE(vcpu_metric) };

/* The second number of its schedstat: what KVM tells the guest as steal time, too. */
static u64 read_steal(pid_t tid)
{
	unsigned long long steal = 0;
	char path[64], text[100] = "";
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/schedstat", (int)tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	if (read(fd, text, sizeof(text) - 1) < 0 || sscanf(text, "%*s %llu", &steal) != 1)
		steal = 0;
	close(fd);
	return steal;
}

static void refresh(struct metric_set *s)
{
	struct vcpu *v = container_of(s, struct vcpu, metrics);
	struct vcpu_counters *n = v->counters;
	pid_t tid = load_acquire(&v->tid);
	struct timespec t;
	clockid_t clock;

	if (!tid)
		return;
	kvm_stats_read(&v->stats, &n->kvm);
	/* A kernel that does not tell: those that we saw. */
	if (v->stats.fd < 0)
		n->kvm.exits = load_once(&n->io_in.count) + load_once(&n->io_out.count) +
			       load_once(&n->mmio_read.count) + load_once(&n->mmio_write.count) +
			       load_once(&n->halt) + load_once(&n->interrupted);
	if (v->has_thread && !pthread_getcpuclockid(v->thread, &clock) && !clock_gettime(clock, &t))
		n->cpu_ns = t.tv_sec * 1000000000ULL + t.tv_nsec;
	n->steal_ns = MAX(n->steal_ns, read_steal(tid));
}

static int start_counting(struct vcpu *v, struct err *err)
{
	v->counters = counters_new(sizeof(*v->counters));
	if (!v->counters)
		return err_set(err, -ENOMEM, "vcpu: out of memory");
	kvm_stats_open(&v->stats, v->fd);
	snprintf(v->name, sizeof(v->name), "%u", v->index);
	v->metrics = (struct metric_set){ .table = &vcpu_table, .owner = v->name,
					  .counters = v->counters, .refresh = refresh };
	metrics_add(v->host->metrics, &v->metrics);
	return 0;
}

/* --- life ----------------------------------------------------------------------------------------- */

/* It only has to end KVM_RUN; immediate_exit does the rest. */
static void kicked(int sig)
{
	(void)sig;
}

int vcpu_new(struct vcpu **out, struct vcpu_host *host, unsigned index,
	     const struct cpu_start *start, struct err *err)
{
	struct vcpu *v = calloc(1, sizeof(*v));
	struct sigaction sa = { .sa_handler = kicked };
	int rc;

	if (!v)
		return err_set(err, -ENOMEM, "vcpu: out of memory");
	v->stats.fd = -1;
	sigaction(VCPU_KICK_SIGNAL, &sa, NULL);
	v->host = host;
	v->index = index;
	v->run = MAP_FAILED;
	v->fd = ioctl(host->kvm->vm_fd, KVM_CREATE_VCPU, (unsigned long)index);
	if (v->fd < 0) {
		rc = err_set(err, -errno, "vcpu %u: %s", index, strerror(errno));
		goto fail;
	}
	v->run = mmap(NULL, host->kvm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (v->run == MAP_FAILED) {
		rc = err_set(err, -errno, "vcpu %u: %s", index, strerror(errno));
		goto fail;
	}
	rc = cpu_setup(host->kvm, v->fd, index, host->nr_vcpus, err);
	if (!rc && start)
		rc = cpu_start(v->fd, start, err);
	if (!rc)
		rc = start_counting(v, err);
	if (rc)
		goto fail;
	*out = v;
	return 0;
fail:
	vcpu_free(v);
	return rc;
}

void vcpu_free(struct vcpu *v)
{
	if (!v)
		return;
	if (v->run != MAP_FAILED)
		munmap(v->run, v->host->kvm->run_size);
	kvm_stats_close(&v->stats);
	if (v->fd >= 0)
		close(v->fd);
	metrics_remove(&v->metrics);
	free(v->counters);
	free(v);
}

/* --- exits ---------------------------------------------------------------------------------------- */

static void port_io(struct vcpu *v)
{
	struct kvm_run *r = v->run;
	u8 *data = (u8 *)r + r->io.data_offset;

	for (u32 i = 0; i < r->io.count; i++, data += r->io.size) {
		u64 value = 0;

		if (r->io.direction == KVM_EXIT_IO_OUT) {
			memcpy(&value, data, r->io.size);
			bus_write(v->host->pio, r->io.port, r->io.size, value);
		} else {
			value = bus_read(v->host->pio, r->io.port, r->io.size);
			memcpy(data, &value, r->io.size);
		}
	}
}

static void memory_io(struct vcpu *v)
{
	struct kvm_run *r = v->run;
	unsigned len = MIN(r->mmio.len, sizeof(r->mmio.data));
	u64 value = 0;

	/* Odd lengths come from string instructions at a page's end. */
	if (len & (len - 1)) {
		for (unsigned i = 0; i < len; i++) {
			if (r->mmio.is_write)
				bus_write(v->host->mmio, r->mmio.phys_addr + i, 1, r->mmio.data[i]);
			else
				r->mmio.data[i] = bus_read(v->host->mmio, r->mmio.phys_addr + i, 1);
		}
		return;
	}
	if (r->mmio.is_write) {
		memcpy(&value, r->mmio.data, len);
		bus_write(v->host->mmio, r->mmio.phys_addr, len, value);
	} else {
		value = bus_read(v->host->mmio, r->mmio.phys_addr, len);
		memcpy(r->mmio.data, &value, len);
	}
}

static void timed(struct vcpu *v, void (*handle)(struct vcpu *), struct ticks *time)
{
	u64 since = ticks_now();

	handle(v);
	ticks_add(time, since);
}

static void explain_internal_error(struct vcpu *v)
{
	const struct kvm_run *r = v->run;
	char text[3 * 15 + 1] = "";

	switch (r->internal.suberror) {
	case KVM_INTERNAL_ERROR_EMULATION:
		if (r->internal.ndata >= 1 && r->emulation_failure.flags &
		    KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES)
			for (unsigned i = 0; i < MIN(r->emulation_failure.insn_size, 15); i++)
				snprintf(text + 3UL * i, 4, " %02x",
					 r->emulation_failure.insn_bytes[i]);
		log_err("vcpu %u: KVM could not emulate an instruction%s%s: the host's KVM lacks it "
			"('vmm check' tells what kind of KVM this is), or the guest jumped into "
			"memory that holds no code", v->index, *text ? ":" : "", text);
		break;
	case KVM_INTERNAL_ERROR_DELIVERY_EV:
		log_err("vcpu %u: KVM could not deliver an interrupt or exception: the guest's "
			"descriptor tables or stack lie outside its memory", v->index);
		break;
	default:
		log_err("vcpu %u: internal KVM error %u: a fault of the host's kernel, whose log may "
			"say more ('dmesg')", v->index, r->internal.suberror);
	}
}

static void park(struct vcpu *v);

static void stop_for_debugger(struct vcpu *v, struct cpu_stop stop)
{
	pthread_mutex_lock(&v->host->lock);
	v->stop = stop;
	v->stopped = v->held = true;
	pthread_mutex_unlock(&v->host->lock);
	v->host->stopped(v->host);
	park(v);
}

/* A KVM that interprets the guest may know no int3, which is the debugger's all the same. */
static bool failed_at_int3(struct vcpu *v, struct cpu_stop *stop)
{
	const struct kvm_run *r = v->run;
	struct kvm_regs regs;
	struct kvm_sregs sregs;

	if (!load_acquire(&v->host->debugged) ||
	    r->internal.suberror != KVM_INTERNAL_ERROR_EMULATION || !r->internal.ndata ||
	    !(r->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) ||
	    !r->emulation_failure.insn_size || r->emulation_failure.insn_bytes[0] != 0xcc ||
	    ioctl(v->fd, KVM_GET_REGS, &regs) || ioctl(v->fd, KVM_GET_SREGS, &sregs))
		return false;
	*stop = (struct cpu_stop){ .vector = CPU_VECTOR_BREAKPOINT,
				   .pc = sregs.cs.base + regs.rip };
	return true;
}

/* True: go on.  False: this vCPU is at its end. */
static bool handle_exit(struct vcpu *v)
{
	struct kvm_run *r = v->run;
	struct cpu_stop stop;

	switch (r->exit_reason) {
	case KVM_EXIT_IO:
		timed(v, port_io, r->io.direction == KVM_EXIT_IO_OUT ? &v->counters->io_out :
								       &v->counters->io_in);
		return true;
	case KVM_EXIT_MMIO:
		timed(v, memory_io, r->mmio.is_write ? &v->counters->mmio_write :
						       &v->counters->mmio_read);
		return true;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		counter_add(&v->counters->interrupted, 1);
		return true;
	case KVM_EXIT_HLT:
		counter_add(&v->counters->halt, 1);
		return true;
	case KVM_EXIT_DEBUG:
		counter_add(&v->counters->debug, 1);
		stop_for_debugger(v, (struct cpu_stop){ .vector = r->debug.arch.exception,
				  .pc = r->debug.arch.pc, .dr6 = r->debug.arch.dr6 });
		return true;
	case KVM_EXIT_SHUTDOWN:
		log_err("vcpu %u: triple fault: the guest met an exception, then failed twice to "
			"handle it (no valid interrupt table, or no stack)", v->index);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		log_err("vcpu %u: the processor refused to enter the guest, reason %#llx: a register "
			"state that it does not support", v->index,
			(unsigned long long)r->fail_entry.hardware_entry_failure_reason);
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		if (failed_at_int3(v, &stop)) {
			stop_for_debugger(v, stop);
			return true;
		}
		explain_internal_error(v);
		break;
	case KVM_EXIT_SYSTEM_EVENT:
		log_err("vcpu %u: system event %u", v->index, r->system_event.type);
		break;
	default:
		log_err("vcpu %u: unknown KVM exit %u", v->index, r->exit_reason);
	}
	counter_add(&v->counters->fatal, 1);
	cpu_dump(v->fd, v->index, v->host->mem);
	return false;
}

static bool must_park(const struct vcpu *v)
{
	return v->host->pause || (v->held && !load_acquire(&v->host->stop));
}

/* Only after KVM_RUN came back without an exit: then it has completed the last one; or
 * with one that has nothing to complete. */
static void park(struct vcpu *v)
{
	struct vcpu_host *h = v->host;

	pthread_mutex_lock(&h->lock);
	if (must_park(v)) {
		h->nr_parked++;
		pthread_cond_broadcast(&h->changed);
		while (must_park(v))
			pthread_cond_wait(&h->changed, &h->lock);
		h->nr_parked--;
	}
	if (!load_acquire(&h->stop))
		store_release(&v->run->immediate_exit, 0);
	pthread_mutex_unlock(&h->lock);
}

static void run_loop(struct vcpu *v)
{
	while (!load_acquire(&v->host->stop)) {
		if (!ioctl(v->fd, KVM_RUN, 0)) {
			if (handle_exit(v))
				continue;
			v->host->fatal(v->host);
			return;
		}
		/* EAGAIN: an AP that was woken before its SIPI; run it again. */
		if (errno == EINTR || errno == EAGAIN) {
			counter_add(&v->counters->interrupted, 1);
			if (load_acquire(&v->host->pause))
				park(v);
			continue;
		}
		log_err("vcpu %u: KVM_RUN: %s%s", v->index, strerror(errno), errno == EFAULT ?
			": the host could not give the guest memory" : "");
		cpu_dump(v->fd, v->index, v->host->mem);
		v->host->fatal(v->host);
		return;
	}
}

static void *thread_main(void *arg)
{
	struct vcpu *v = arg;
	char name[16];

	snprintf(name, sizeof(name), "vcpu/%u", v->index);
	store_release(&v->tid, syscall(SYS_gettid));
	thread_begin(THREAD_VCPU, name);
	park(v);		/* a debugger may hold it from the start */
	run_loop(v);
	pthread_mutex_lock(&v->host->lock);
	v->host->nr_running--;
	pthread_cond_broadcast(&v->host->changed);
	pthread_mutex_unlock(&v->host->lock);
	return NULL;
}

int vcpu_run(struct vcpu *v, struct err *err)
{
	pthread_attr_t attr;
	int rc;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK);
	/* Nobody waits for one that there is not, nor takes one that is there for parked. */
	pthread_mutex_lock(&v->host->lock);
	rc = pthread_create(&v->thread, &attr, thread_main, v);
	v->host->nr_running += !rc;
	pthread_mutex_unlock(&v->host->lock);
	pthread_attr_destroy(&attr);
	if (rc)
		return err_set(err, -rc, "vcpu %u: cannot start its thread: %s", v->index, strerror(rc));
	v->has_thread = true;
	return 0;
}

void vcpu_kick(struct vcpu *v)
{
	if (!v->has_thread)
		return;
	store_release(&v->run->immediate_exit, 1);
	pthread_kill(v->thread, VCPU_KICK_SIGNAL);
}

void vcpu_host_init(struct vcpu_host *h)
{
	pthread_mutex_init(&h->lock, NULL);
	pthread_cond_init(&h->changed, NULL);
}

void vcpu_host_fini(struct vcpu_host *h)
{
	pthread_cond_destroy(&h->changed);
	pthread_mutex_destroy(&h->lock);
}

void vcpus_pause(struct vcpu_host *h, struct vcpu *const *vcpu)
{
	pthread_mutex_lock(&h->lock);
	store_release(&h->pause, true);
	pthread_mutex_unlock(&h->lock);
	for (unsigned i = 0; i < h->nr_vcpus; i++)
		vcpu_kick(vcpu[i]);
	pthread_mutex_lock(&h->lock);
	while (h->nr_parked < h->nr_running)
		pthread_cond_wait(&h->changed, &h->lock);
	pthread_mutex_unlock(&h->lock);
}

void vcpus_resume(struct vcpu_host *h, struct vcpu *const *vcpu)
{
	/* The guest is told, or it would take the pause for a lockup.  Without
	 * kvmclock there is nobody to tell. */
	for (unsigned i = 0; i < h->nr_vcpus; i++)
		counter_add(&vcpu[i]->counters->clock_fails,
			    !!ioctl(vcpu[i]->fd, KVM_KVMCLOCK_CTRL, 0));
	pthread_mutex_lock(&h->lock);
	store_release(&h->pause, false);
	pthread_cond_broadcast(&h->changed);
	pthread_mutex_unlock(&h->lock);
}

void vcpu_state(struct vcpu *v, struct state *s)
{
	state_enter(s, "vcpu", v->index);
	cpu_state(s, v->host->kvm, v->fd);
	state_leave(s);
}

void vcpu_hold(struct vcpu *v, bool hold)
{
	pthread_mutex_lock(&v->host->lock);
	v->held = hold;
	pthread_cond_broadcast(&v->host->changed);
	pthread_mutex_unlock(&v->host->lock);
}

bool vcpu_take_stop(struct vcpu *v, struct cpu_stop *stop)
{
	bool stopped;

	pthread_mutex_lock(&v->host->lock);
	stopped = v->stopped;
	*stop = v->stop;
	v->stopped = false;
	pthread_mutex_unlock(&v->host->lock);
	return stopped;
}

int vcpu_fd(const struct vcpu *v)
{
	return v->fd;
}

void vcpu_join(struct vcpu *v)
{
	vcpu_hold(v, false);
	if (v->has_thread)
		pthread_join(v->thread, NULL);
	v->has_thread = false;
}
