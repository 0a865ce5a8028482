/* gdb.h: a server for GDB: its connection, its commands, and the breakpoints it set. */
#pragma once
#include "vmm/core/cpu_debug.h"
#include "vmm/core/err.h"
#include "vmm/core/loop.h"
#include "vmm/core/mem.h"

struct gdb;

enum { GDB_MAX_CPUS = 64 };
enum gdb_action { GDB_HOLD, GDB_RUN, GDB_STEP };

/* What is debugged.  All on the loop's owner; all but stop only while it is stopped.
 * 0 or -errno. */
struct gdb_ops {
	unsigned (*nr_cpus)(void *arg);			/* 1 to GDB_MAX_CPUS */
	struct mem *(*mem)(void *arg);
	int (*get)(void *arg, unsigned cpu, struct cpu_registers *);
	int (*set)(void *arg, unsigned cpu, const struct cpu_registers *);
	int (*translate)(void *arg, unsigned cpu, u64 linear, u64 *gpa);
	void (*stop)(void *arg);			/* all of them; idempotent */
	/* An action for each, and the debug registers of all. */
	int (*resume)(void *arg, const enum gdb_action *, const struct cpu_point *);
	void (*detach)(void *arg);			/* as it would be without a debugger */
	void (*kill)(void *arg);
};

/* "PORT", "tcp:[ADDRESS]:PORT" or "unix:PATH", and perhaps ",wait".  Without an address:
 * this host alone.  The message says what is wrong. */
int  gdb_check_where(const char *where, struct err *) must_check;
bool gdb_waits(const char *where);

/* All on the loop's owner. */
/* Bound at once; clients are served from gdb_serve on, one at a time. */
int  gdb_new(struct gdb **, const char *where, struct loop *, const struct gdb_ops *, void *arg,
	     struct err *) must_check;
int  gdb_serve(struct gdb *, struct err *) must_check;	/* idempotent */
void gdb_free(struct gdb *);			/* NULL is allowed */
bool gdb_attached(const struct gdb *);
/* What the client has put into memory is out of it for a while.  Stopped. */
void gdb_hide(struct gdb *, bool hide);

/* A processor met a breakpoint or made its step, and is held.  False: that was not the
 * client's, but the guest's own. */
bool gdb_stopped(struct gdb *, unsigned cpu, const struct cpu_stop *);
/* The guest was booted anew, and its memory has none of our breakpoints.  The points it runs
 * with. */
const struct cpu_point *gdb_rebooted(struct gdb *);
void gdb_ended(struct gdb *, int status);	/* there is nothing to debug any more */
