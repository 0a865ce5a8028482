/* gdb_session.c: the commands of GDB's remote serial protocol (Debugging with GDB, appendix E). */
#include "vmm/gdb_session.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/gdb_registers.h"

enum { INT3 = 0xcc, SIGNAL_INT = 2, SIGNAL_TRAP = 5 };

/* --- replies ----------------------------------------------------------------------------------- */

static void text(struct gdb_session *s, const char *t)
{
	gdb_reply_text(&s->reply, t);
}

/* 0: OK. */
static void result(struct gdb_session *s, int rc)
{
	char t[8];

	snprintf(t, sizeof(t), "E%02x", -rc & 0xff);
	text(s, rc ? t : "OK");
}

static void stop_reply(struct gdb_session *s)
{
	text(s, s->stop_reason);
	text(s, "thread:");
	gdb_reply_number(&s->reply, s->stop_cpu + 1);
	text(s, ";");
}

/* A thread is a processor, counted from 1; 0 and -1 are any and all. */
static bool thread(struct gdb_session *s, const char **t, unsigned *cpu, bool *all)
{
	u64 id;

	*all = gdb_word(t, "-1");
	if (*all)
		return true;
	if (!gdb_number(t, &id) || id > s->ops->nr_cpus(s->arg))
		return false;
	*cpu = id ? id - 1 : s->stop_cpu;
	return true;
}

/* --- memory ------------------------------------------------------------------------------------ */

/* Page by page; how much of it was there. */
static size_t copy(struct gdb_session *s, u64 addr, u8 *buf, size_t len, bool write)
{
	struct mem *mem = s->ops->mem(s->arg);
	size_t done = 0;

	while (done < len) {
		size_t n = MIN(len - done, MEM_PAGE - (addr + done) % MEM_PAGE);
		u64 gpa;
		int rc = s->ops->translate(s->arg, s->cpu, addr + done, &gpa);

		if (!rc)
			rc = write ? mem_write(mem, GPA(gpa), buf + done, n) :
				     mem_read(mem, GPA(gpa), buf + done, n);
		if (rc)
			break;
		done += n;
	}
	return done;
}

/* What is below our int3s is what the client sees, and changes. */
static void hide_breakpoints(struct gdb_session *s, u64 addr, u8 *buf, size_t len, bool write)
{
	for (unsigned i = 0; i < s->nr_breakpoints; i++) {
		struct gdb_breakpoint *b = &s->breakpoint[i];

		if (!b->planted || b->addr - addr >= len)
			continue;
		if (write) {
			u8 byte = buf[b->addr - addr];

			buf[b->addr - addr] = INT3;
			b->byte = byte;
		} else {
			buf[b->addr - addr] = b->byte;
		}
	}
}

static bool range(const char **t, u64 *addr, u64 *len)
{
	return gdb_number(t, addr) && gdb_word(t, ",") && gdb_number(t, len);
}

static void read_memory(struct gdb_session *s, const char *t)
{
	u8 buf[GDB_PACKET_MAX / 2];
	u64 addr, len;
	size_t done;

	if (!range(&t, &addr, &len) || *t) {
		result(s, -EINVAL);
		return;
	}
	done = copy(s, addr, buf, MIN(len, sizeof(buf)), false);
	if (!done && len) {
		result(s, -EFAULT);
		return;
	}
	hide_breakpoints(s, addr, buf, done, false);
	gdb_reply_hex(&s->reply, buf, done);
}

static void write_memory(struct gdb_session *s, u64 addr, u8 *buf, size_t len)
{
	size_t there;
	u8 probe;

	/* All or nothing, as far as pages go. */
	for (there = 0; there < len; there += MEM_PAGE - (addr + there) % MEM_PAGE)
		if (!copy(s, addr + there, &probe, 1, false)) {
			result(s, -EFAULT);
			return;
		}
	hide_breakpoints(s, addr, buf, len, true);
	result(s, copy(s, addr, buf, len, true) == len ? 0 : -EFAULT);
}

static void write_memory_hex(struct gdb_session *s, const char *t)
{
	u8 buf[GDB_PACKET_MAX / 2];
	u64 addr, len;

	if (!range(&t, &addr, &len) || !gdb_word(&t, ":") || len > sizeof(buf) ||
	    !gdb_bytes(&t, buf, len) || *t)
		result(s, -EINVAL);
	else
		write_memory(s, addr, buf, len);
}

static void write_memory_raw(struct gdb_session *s, const char *t, const char *end)
{
	u8 buf[GDB_PACKET_MAX];
	u64 addr, len;

	if (!range(&t, &addr, &len) || !gdb_word(&t, ":") || len != (u64)(end - t)) {
		result(s, -EINVAL);
		return;
	}
	memcpy(buf, t, len);
	write_memory(s, addr, buf, len);
}

/* --- registers --------------------------------------------------------------------------------- */

static void read_registers(struct gdb_session *s)
{
	struct cpu_registers r;
	int rc = s->ops->get(s->arg, s->cpu, &r);

	if (rc)
		result(s, rc);
	else
		gdb_reply_hex(&s->reply, &r, sizeof(r));
}

static void write_registers(struct gdb_session *s, const char *t)
{
	struct cpu_registers r;

	if (!gdb_bytes(&t, &r, sizeof(r)) || *t)
		result(s, -EINVAL);
	else
		result(s, s->ops->set(s->arg, s->cpu, &r));
}

static void read_register(struct gdb_session *s, const char *t)
{
	struct cpu_registers r;
	struct gdb_register where;
	u64 nr;
	int rc;

	if (!gdb_number(&t, &nr) || *t || !(where = gdb_register(nr)).len) {
		result(s, -EINVAL);
		return;
	}
	rc = s->ops->get(s->arg, s->cpu, &r);
	if (rc)
		result(s, rc);
	else
		gdb_reply_hex(&s->reply, (u8 *)&r + where.offset, where.len);
}

static void write_register(struct gdb_session *s, const char *t)
{
	struct cpu_registers r;
	struct gdb_register where;
	u64 nr;
	int rc = s->ops->get(s->arg, s->cpu, &r);

	if (rc)
		result(s, rc);
	else if (!gdb_number(&t, &nr) || !gdb_word(&t, "=") || !(where = gdb_register(nr)).len ||
		 !gdb_bytes(&t, (u8 *)&r + where.offset, where.len) || *t)
		result(s, -EINVAL);
	else
		result(s, s->ops->set(s->arg, s->cpu, &r));
}

/* --- breakpoints ------------------------------------------------------------------------------- */

static struct gdb_breakpoint *find_breakpoint(struct gdb_session *s, u64 addr)
{
	for (unsigned i = 0; i < s->nr_breakpoints; i++)
		if (s->breakpoint[i].addr == addr)
			return &s->breakpoint[i];
	return NULL;
}

/* The guest may have put something else there. */
static bool swap_byte(struct mem *mem, u64 gpa, u8 from, u8 to)
{
	u8 now;

	return !mem_read_obj(mem, GPA(gpa), &now) && now == from && !mem_write_obj(mem, GPA(gpa), &to);
}

static void unplant(struct gdb_session *s, struct gdb_breakpoint *b)
{
	if (b->planted)
		(void)!swap_byte(s->ops->mem(s->arg), b->gpa, INT3, b->byte);
	b->planted = false;
}

static int plant(struct gdb_session *s, u64 addr)
{
	struct gdb_breakpoint *b = find_breakpoint(s, addr), fresh = { .addr = addr };
	struct mem *mem = s->ops->mem(s->arg);
	u8 int3 = INT3;
	int rc;

	if (b && b->planted)
		return 0;
	if (!b && s->nr_breakpoints == GDB_MAX_BREAKPOINTS)
		return -ENOSPC;
	rc = s->ops->translate(s->arg, s->cpu, addr, &fresh.gpa);
	if (!rc)
		rc = mem_read_obj(mem, GPA(fresh.gpa), &fresh.byte);
	if (!rc)
		rc = mem_write_obj(mem, GPA(fresh.gpa), &int3);
	if (rc)
		return rc;
	if (!b)
		b = &s->breakpoint[s->nr_breakpoints++];
	*b = fresh;
	b->planted = true;
	return 0;
}

static int remove_breakpoint(struct gdb_session *s, u64 addr)
{
	struct gdb_breakpoint *b = find_breakpoint(s, addr);

	if (b) {
		unplant(s, b);
		*b = s->breakpoint[--s->nr_breakpoints];
	}
	return 0;
}

/* Two may be at one place, by two addresses: what was planted last goes first. */
void gdb_session_hide(struct gdb_session *s, bool hide)
{
	for (unsigned i = 0; i < s->nr_breakpoints; i++) {
		struct gdb_breakpoint *b = &s->breakpoint[hide ? s->nr_breakpoints - 1 - i : i];
		struct mem *mem = s->ops->mem(s->arg);

		if (hide)
			b->hidden = b->planted && swap_byte(mem, b->gpa, INT3, b->byte);
		else if (b->hidden)
			b->hidden = !swap_byte(mem, b->gpa, b->byte, INT3);
	}
}

static int change_point(struct gdb_session *s, const struct cpu_point *p, bool set)
{
	struct cpu_point *room = NULL;

	if (p->len > 8 || !p->len || p->len & (p->len - 1) || p->addr & (p->len - 1))
		return -EINVAL;
	for (unsigned i = 0; i < CPU_POINTS; i++) {
		struct cpu_point *q = &s->point[i];

		if (q->kind == p->kind && q->addr == p->addr && q->len == p->len) {
			if (!set)
				q->kind = 0;
			return 0;
		}
		if (!q->kind && !room)
			room = q;
	}
	if (!set)
		return 0;
	if (!room)
		return -ENOSPC;
	*room = *p;
	return 0;
}

/* Z or z: type,addr,kind; conditions are the client's to look at. */
static void breakpoint(struct gdb_session *s, const char *t, bool set)
{
	u64 type, addr, kind;

	if (!gdb_number(&t, &type) || !gdb_word(&t, ",") || !range(&t, &addr, &kind) || *t)
		result(s, -EINVAL);
	else if (type == 0)
		result(s, set ? plant(s, addr) : remove_breakpoint(s, addr));
	else if (type <= CPU_POINT_ACCESS)
		result(s, change_point(s, &(struct cpu_point){
			.kind = type, .addr = addr,
			.len = type == CPU_POINT_EXEC ? 1 : MIN(kind, 16U),
		}, set));
}

/* --- going on, and stopping -------------------------------------------------------------------- */

static struct cpu_point *point_hit(struct gdb_session *s, const struct cpu_stop *stop)
{
	for (unsigned i = 0; i < CPU_POINTS && stop->vector == CPU_VECTOR_DEBUG; i++)
		if (s->point[i].kind && stop->dr6 >> i & 1)
			return &s->point[i];
	return NULL;
}

static void report(struct gdb_session *s, unsigned cpu, const struct cpu_stop *stop)
{
	static const char *const name[] = { [CPU_POINT_WRITE] = "watch", [CPU_POINT_READ] = "rwatch",
					    [CPU_POINT_ACCESS] = "awatch" };
	const struct cpu_point *p = point_hit(s, stop);
	char *t = s->stop_reason;
	size_t room = sizeof(s->stop_reason);

	s->stop_cpu = s->cpu = cpu;
	snprintf(t, room, "T%02x", SIGNAL_TRAP);
	if (p && p->kind != CPU_POINT_EXEC)
		snprintf(t, room, "T%02x%s:%llx;", SIGNAL_TRAP, name[p->kind],
			 (unsigned long long)p->addr);
	else if (p && s->reports_hwbreak)
		snprintf(t, room, "T%02xhwbreak:;", SIGNAL_TRAP);
	else if (stop->vector == CPU_VECTOR_BREAKPOINT && s->reports_swbreak)
		snprintf(t, room, "T%02xswbreak:;", SIGNAL_TRAP);
	stop_reply(s);
}

/* False: it runs, and there is no reply yet. */
static bool resume(struct gdb_session *s)
{
	unsigned nr = s->ops->nr_cpus(s->arg);
	int rc;

	for (unsigned i = 0; i < nr; i++)
		if (s->pending[i]) {
			s->pending[i] = false;
			report(s, i, &s->pending_stop[i]);
			return true;
		}
	rc = s->ops->resume(s->arg, s->action, s->point);
	if (rc) {
		result(s, rc);
		return true;
	}
	s->running = true;
	return false;
}

/* c, s, C, S; a signal is of no meaning to a processor. */
static bool simple_resume(struct gdb_session *s, bool step)
{
	for (unsigned i = 0; i < GDB_MAX_CPUS; i++)
		s->action[i] = step && i == s->cpu ? GDB_STEP : GDB_RUN;
	return resume(s);
}

/* ;ACTION[:THREAD]...: of those that fit a processor the first counts. */
static bool vcont(struct gdb_session *s, const char *t)
{
	unsigned nr = s->ops->nr_cpus(s->arg), cpu = 0;
	bool given[GDB_MAX_CPUS] = { 0 };

	memset(s->action, 0, sizeof(s->action));
	while (gdb_word(&t, ";")) {
		bool step = *t == 's' || *t == 'S', all = true;
		u64 sig;

		if (!*t || !strchr("cCsS", *t))
			goto bad;
		if ((*t++ & 0x20) == 0 && !gdb_number(&t, &sig))
			goto bad;
		if (gdb_word(&t, ":") && !thread(s, &t, &cpu, &all))
			goto bad;
		for (unsigned i = 0; i < nr; i++) {
			if (given[i] || (!all && i != cpu))
				continue;
			given[i] = true;
			s->action[i] = step ? GDB_STEP : GDB_RUN;
		}
	}
	for (unsigned i = 0; i < nr && !*t; i++)
		if (given[i])
			return resume(s);
bad:
	result(s, -EINVAL);
	return true;
}

bool gdb_session_stopped(struct gdb_session *s, unsigned cpu, const struct cpu_stop *stop, bool *reply)
{
	const struct cpu_point *p = point_hit(s, stop);
	bool int3 = stop->vector == CPU_VECTOR_BREAKPOINT;
	const struct gdb_breakpoint *b = int3 ? find_breakpoint(s, stop->pc) : NULL;
	bool stepped = !int3 && stop->dr6 & CPU_DR6_STEP && s->action[cpu] == GDB_STEP;

	*reply = false;
	if (!p && !stepped && !(b && b->planted))
		return false;
	if (!s->running) {
		/* It will meet a breakpoint again; all else would be lost. */
		s->pending[cpu] = stepped || (p && p->kind != CPU_POINT_EXEC);
		s->pending_stop[cpu] = *stop;
		return true;
	}
	s->running = false;		/* first: to stop may show more of them */
	s->ops->stop(s->arg);
	gdb_reply_begin(&s->reply);
	report(s, cpu, stop);
	gdb_reply_end(&s->reply);
	return *reply = true;
}

bool gdb_session_interrupt(struct gdb_session *s)
{
	if (!s->running)
		return false;
	s->running = false;
	s->ops->stop(s->arg);
	snprintf(s->stop_reason, sizeof(s->stop_reason), "T%02x", SIGNAL_INT);
	gdb_reply_begin(&s->reply);
	stop_reply(s);
	gdb_reply_end(&s->reply);
	return true;
}

bool gdb_session_ended(struct gdb_session *s, int status)
{
	u8 byte = status;

	s->over = true;
	gdb_reply_begin(&s->reply);
	text(s, "W");
	gdb_reply_hex(&s->reply, &byte, 1);
	gdb_reply_end(&s->reply);
	return true;
}

void gdb_session_begin(struct gdb_session *s)
{
	s->ops->stop(s->arg);
	snprintf(s->stop_reason, sizeof(s->stop_reason), "T%02x", SIGNAL_TRAP);
}

void gdb_session_end(struct gdb_session *s)
{
	s->running = false;
	s->ops->stop(s->arg);
	while (s->nr_breakpoints)
		unplant(s, &s->breakpoint[--s->nr_breakpoints]);
	memset(s->point, 0, sizeof(s->point));
	s->ops->detach(s->arg);
	s->over = true;
}

/* --- questions --------------------------------------------------------------------------------- */

static void supported(struct gdb_session *s, const char *t)
{
	char limit[64];

	s->reports_swbreak = strstr(t, "swbreak+");
	s->reports_hwbreak = strstr(t, "hwbreak+");
	snprintf(limit, sizeof(limit), "PacketSize=%x", GDB_PACKET_MAX);
	text(s, limit);
	text(s, ";qXfer:features:read+;QStartNoAckMode+;vContSupported+;swbreak+;hwbreak+");
}

static void features(struct gdb_session *s, const char *t)
{
	size_t len = strlen(gdb_target_xml), n;
	u64 offset, most;

	if (!gdb_word(&t, "target.xml:") || !range(&t, &offset, &most) || *t || offset > len) {
		text(s, "E00");
		return;
	}
	n = MIN(MIN(most, (u64)GDB_PACKET_MAX / 2), len - offset);
	text(s, offset + n < len ? "m" : "l");
	gdb_reply_raw(&s->reply, gdb_target_xml + offset, n);
}

static void threads(struct gdb_session *s)
{
	for (unsigned i = 0; i < s->ops->nr_cpus(s->arg); i++) {
		text(s, i ? "," : "m");
		gdb_reply_number(&s->reply, i + 1);
	}
}

static void thread_name(struct gdb_session *s, const char *t)
{
	unsigned cpu = 0;
	char name[16];
	bool all;

	if (!thread(s, &t, &cpu, &all) || all || *t) {
		result(s, -EINVAL);
		return;
	}
	snprintf(name, sizeof(name), "CPU %u", cpu);
	gdb_reply_hex(&s->reply, name, strlen(name));
}

/* What is not known is answered with nothing, by which the client knows it. */
static void query(struct gdb_session *s, const char *t)
{
	if (gdb_word(&t, "qSupported")) {
		supported(s, t);
	} else if (gdb_word(&t, "qXfer:features:read:")) {
		features(s, t);
	} else if (gdb_word(&t, "qfThreadInfo")) {
		threads(s);
	} else if (gdb_word(&t, "qsThreadInfo")) {
		text(s, "l");
	} else if (gdb_word(&t, "qThreadExtraInfo,")) {
		thread_name(s, t);
	} else if (gdb_word(&t, "qAttached")) {
		text(s, "1");
	} else if (!strcmp(t, "qC")) {
		text(s, "QC");
		gdb_reply_number(&s->reply, s->cpu + 1);
	} else if (!strcmp(t, "QStartNoAckMode")) {
		s->no_ack = true;
		result(s, 0);
	}
}

static void select_thread(struct gdb_session *s, const char *t)
{
	unsigned cpu = s->cpu;
	bool for_registers = *t == 'g', all;

	/* Hc is of the older commands, whose step is of the processor that is looked at. */
	if (!*t++ || !thread(s, &t, &cpu, &all) || *t) {
		result(s, -EINVAL);
		return;
	}
	if (for_registers)
		s->cpu = cpu;
	result(s, 0);
}

static void thread_alive(struct gdb_session *s, const char *t)
{
	unsigned cpu;
	bool all;

	result(s, thread(s, &t, &cpu, &all) && !*t ? 0 : -ESRCH);
}

/* --- commands ---------------------------------------------------------------------------------- */

static bool verbose(struct gdb_session *s, const char *t)
{
	if (!strcmp(t, "vCont?"))
		text(s, "vCont;c;C;s;S");
	else if (gdb_word(&t, "vCont"))
		return vcont(s, t);
	return true;
}

static bool leave(struct gdb_session *s, bool kill)
{
	if (!kill)
		result(s, 0);
	gdb_session_end(s);
	if (kill)
		s->ops->kill(s->arg);
	return !kill;
}

static bool dispatch(struct gdb_session *s, const char *t, const char *end)
{
	switch (*t) {
	case '?': stop_reply(s); break;
	case 'g': read_registers(s); break;
	case 'G': write_registers(s, t + 1); break;
	case 'p': read_register(s, t + 1); break;
	case 'P': write_register(s, t + 1); break;
	case 'm': read_memory(s, t + 1); break;
	case 'M': write_memory_hex(s, t + 1); break;
	case 'X': write_memory_raw(s, t + 1, end); break;
	case 'Z': breakpoint(s, t + 1, true); break;
	case 'z': breakpoint(s, t + 1, false); break;
	case 'H': select_thread(s, t + 1); break;
	case 'T': thread_alive(s, t + 1); break;
	case 'q':
	case 'Q': query(s, t); break;
	case 'c':
	case 'C': return simple_resume(s, false);
	case 's':
	case 'S': return simple_resume(s, true);
	case 'v': return verbose(s, t);
	case 'D': return leave(s, false);
	case 'k': return leave(s, true);
	}
	return true;
}

bool gdb_session_command(struct gdb_session *s, const char *data, size_t len)
{
	bool answer;

	/* All-stop: until it has stopped there is only the interrupt. */
	if (s->running || s->over)
		return false;
	gdb_reply_begin(&s->reply);
	answer = dispatch(s, data, data + len);
	if (answer)
		gdb_reply_end(&s->reply);
	return answer;
}
