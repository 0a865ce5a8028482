/* debugger.c: what GDB asks of a machine, by its vCPUs. */
#include "vmm/debugger.h"
#include <errno.h>
#include <string.h>
#include "vmm/core/log.h"
#include "vmm/kvm/debug.h"
#include "vmm/kvm/vcpu.h"

static struct vcpu_host *vcpus(struct debugger *d, struct vcpu *const **vcpu)
{
	return machine_vcpus(d->r->machine, vcpu);
}

/* -EBUSY: it runs, and an ioctl on a vCPU would wait for it. */
static int fd_of(struct debugger *d, unsigned cpu, int *fd)
{
	struct vcpu *const *vcpu;

	vcpus(d, &vcpu);
	*fd = vcpu_fd(vcpu[cpu]);
	return machine_is_paused(d->r->machine) ? 0 : -EBUSY;
}

static unsigned nr_cpus(void *arg)
{
	struct debugger *d = arg;

	return d->r->config->cpus;
}

static struct mem *mem(void *arg)
{
	struct debugger *d = arg;

	return machine_mem(d->r->machine);
}

static int get(void *arg, unsigned cpu, struct cpu_registers *r)
{
	int fd, rc = fd_of(arg, cpu, &fd);

	return rc ? rc : cpu_get_registers(fd, r);
}

static int set(void *arg, unsigned cpu, const struct cpu_registers *r)
{
	int fd, rc = fd_of(arg, cpu, &fd);

	return rc ? rc : cpu_set_registers(fd, r);
}

static int translate(void *arg, unsigned cpu, u64 linear, u64 *gpa)
{
	int fd, rc = fd_of(arg, cpu, &fd);

	return rc ? rc : cpu_translate(fd, linear, gpa);
}

static struct cpu_debug debug_of(const struct debugger *d, unsigned cpu)
{
	struct cpu_debug debug = { .on = true, .step = d->action[cpu] == GDB_STEP };

	memcpy(debug.point, d->point, sizeof(debug.point));
	return debug;
}

/* That of the guest itself: a breakpoint or a step of its own. */
static void give_to_guest(struct debugger *d, struct vcpu *v, unsigned cpu, unsigned vector)
{
	struct cpu_debug debug = gdb_attached(d->gdb) ? debug_of(d, cpu) : (struct cpu_debug){ 0 };
	int rc = cpu_inject(vcpu_fd(v), &debug, vector);

	if (rc)
		log_warn("gdb: vcpu %u: exception %u is lost: %s", cpu, vector, strerror(-rc));
	vcpu_hold(v, false);
}

static void look(struct debugger *d)
{
	struct vcpu *const *vcpu;
	struct cpu_stop stop;
	bool any;

	if (!d->r->machine)
		return;
	vcpus(d, &vcpu);
	do {	/* while one is looked at, another may stop */
		any = false;
		for (unsigned i = 0; i < nr_cpus(d); i++) {
			if (!vcpu_take_stop(vcpu[i], &stop))
				continue;
			any = true;
			if (!gdb_stopped(d->gdb, i, &stop))
				give_to_guest(d, vcpu[i], i, stop.vector);
		}
	} while (any);
}

static void look_task(struct task *t)
{
	look(container_of(t, struct debugger, look));
}

static void stop(void *arg)
{
	struct debugger *d = arg;

	machine_hold(d->r->machine, HOLD_DEBUGGER);
	look(d);
}

static int set_debug(struct debugger *d, bool on)
{
	struct vcpu *const *vcpu;
	struct vcpu_host *h = vcpus(d, &vcpu);
	int rc = 0;

	store_release(&h->debugged, on);
	for (unsigned i = 0; i < h->nr_vcpus && !rc; i++) {
		struct cpu_debug debug = on ? debug_of(d, i) : (struct cpu_debug){ 0 };

		rc = cpu_set_debug(h->kvm, vcpu_fd(vcpu[i]), &debug);
		vcpu_hold(vcpu[i], on && d->action[i] == GDB_HOLD);
	}
	return rc;
}

static void go_on(struct debugger *d)
{
	machine_let_go(d->r->machine, HOLD_DEBUGGER);
	if (machine_is_paused(d->r->machine))
		log_info("gdb: the VM goes on when %s", hold_end(d->r->held));
}

static int resume(void *arg, const enum gdb_action *action, const struct cpu_point *point)
{
	struct debugger *d = arg;
	int rc;

	memcpy(d->action, action, sizeof(d->action));
	memcpy(d->point, point, sizeof(d->point));
	rc = set_debug(d, true);
	if (!rc)
		go_on(d);
	return rc;
}

static void detach(void *arg)
{
	struct debugger *d = arg;
	int rc = set_debug(d, false);

	if (rc)
		log_warn("gdb: a vCPU keeps its breakpoints: %s", strerror(-rc));
	go_on(d);
}

static void end(void *arg)
{
	struct debugger *d = arg;

	machine_end(d->r->machine, OUTCOME_QUIT);
}

static const struct gdb_ops ops = {
	.nr_cpus = nr_cpus, .mem = mem, .get = get, .set = set, .translate = translate,
	.stop = stop, .resume = resume, .detach = detach, .kill = end,
};

int debugger_open(struct debugger *d, struct resources *r, struct err *err)
{
	const char *where = r->config->gdb;

	*d = (struct debugger){ .r = r, .look.run = look_task };
	r->debug_stop = &d->look;
	return where ? gdb_new(&d->gdb, where, r->main_loop, &ops, d, err) : 0;
}

void debugger_close(struct debugger *d)
{
	gdb_free(d->gdb);
	d->gdb = NULL;
}

int debugger_attach(struct debugger *d, struct err *err)
{
	const char *where = d->r->config->gdb;
	int rc;

	if (!d->gdb)
		return 0;
	if (!d->waited && gdb_waits(where)) {
		d->r->held |= HOLD_DEBUGGER;
		log_info("gdb: waiting for a debugger on %.*s", (int)(strrchr(where, ',') - where), where);
	}
	d->waited = true;
	if (!gdb_attached(d->gdb))
		return 0;
	for (unsigned i = 0; i < ARRAY_SIZE(d->action); i++)
		d->action[i] = GDB_RUN;
	memcpy(d->point, gdb_rebooted(d->gdb), sizeof(d->point));
	rc = set_debug(d, true);
	return rc ? err_set(err, rc, "gdb: debug registers: %s", strerror(-rc)) : 0;
}

int debugger_serve(struct debugger *d, struct err *err)
{
	return d->gdb ? gdb_serve(d->gdb, err) : 0;
}

bool debugger_holds(const struct debugger *d)
{
	return d->r->held & HOLD_DEBUGGER;
}

void debugger_hide(struct debugger *d, bool hide)
{
	if (d->gdb)
		gdb_hide(d->gdb, hide);
}

void debugger_ended(struct debugger *d, int status)
{
	if (d->gdb)
		gdb_ended(d->gdb, status);
}
