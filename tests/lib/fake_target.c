/* fake_target.c: see fake_target.h. */
#include "tests/lib/fake_target.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* As with KVM, whose ioctls would wait: only what is stopped is looked at. */
static struct fake_target *stopped_one(void *arg, unsigned cpu)
{
	struct fake_target *f = arg;

	if (!f->stopped || cpu >= FAKE_CPUS)
		abort();
	return f;
}

static unsigned nr_cpus(void *arg)
{
	(void)arg;
	return FAKE_CPUS;
}

static struct mem *mem(void *arg)
{
	return ((struct fake_target *)arg)->mem;
}

static int get(void *arg, unsigned cpu, struct cpu_registers *r)
{
	*r = stopped_one(arg, cpu)->regs[cpu];
	return 0;
}

static int set(void *arg, unsigned cpu, const struct cpu_registers *r)
{
	stopped_one(arg, cpu)->regs[cpu] = *r;
	return 0;
}

static int translate(void *arg, unsigned cpu, u64 linear, u64 *gpa)
{
	stopped_one(arg, cpu);
	*gpa = linear - FAKE_BASE;
	return linear < FAKE_BASE || ALIGN_DOWN(linear, MEM_PAGE) == FAKE_HOLE ? -EFAULT : 0;
}

static void stop(void *arg)
{
	struct fake_target *f = arg;

	f->stopped = true;
	f->nr_stops++;
}

static int resume(void *arg, const enum gdb_action *action, const struct cpu_point *point)
{
	struct fake_target *f = stopped_one(arg, 0);

	memcpy(f->action, action, sizeof(f->action));
	memcpy(f->point, point, sizeof(f->point));
	f->stopped = false;
	f->nr_resumes++;
	return 0;
}

static void detach(void *arg)
{
	struct fake_target *f = stopped_one(arg, 0);

	f->detached = true;
	f->stopped = false;
}

static void end(void *arg)
{
	((struct fake_target *)arg)->killed = true;
}

const struct gdb_ops fake_target_ops = {
	.nr_cpus = nr_cpus, .mem = mem, .get = get, .set = set, .translate = translate,
	.stop = stop, .resume = resume, .detach = detach, .kill = end,
};

void fake_target_init(struct fake_target *f)
{
	*f = (struct fake_target){ 0 };
	if (mem_new(&f->mem, FAKE_RAM, false, NULL))
		abort();
	for (unsigned i = 0; i < FAKE_CPUS; i++)
		f->regs[i].rip = FAKE_BASE + 0x100 * i;
}

void fake_target_fini(struct fake_target *f)
{
	mem_free(f->mem);
}
