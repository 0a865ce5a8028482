/* gdb_session.h: one client of GDB's protocol: its commands, and the breakpoints it set. */
#pragma once
#include "vmm/gdb.h"
#include "vmm/gdb_packet.h"

enum { GDB_MAX_BREAKPOINTS = 1024 };	/* in memory */

struct gdb_breakpoint {
	u64 addr, gpa;			/* linear; where that was when it was planted */
	u8 byte;			/* what int3 stands for, if planted */
	bool planted, hidden;		/* hidden: byte is there now, for a while */
};

/* Zeroed but for ops and arg it is ready to begin. */
struct gdb_session {
	const struct gdb_ops *ops;
	void *arg;
	struct gdb_reply reply;
	bool no_ack, reports_swbreak, reports_hwbreak;	/* as agreed upon */
	bool running;
	bool over;			/* it detached or killed: nothing more is read */
	unsigned cpu;			/* that registers and addresses are of */
	unsigned stop_cpu;		/* the last that stopped, and why */
	char stop_reason[64];
	enum gdb_action action[GDB_MAX_CPUS];
	bool pending[GDB_MAX_CPUS];	/* stopped when another one already had */
	struct cpu_stop pending_stop[GDB_MAX_CPUS];
	struct gdb_breakpoint breakpoint[GDB_MAX_BREAKPOINTS];
	unsigned nr_breakpoints;
	struct cpu_point point[CPU_POINTS];
};

/* Each returns whether there is something to send in reply. */
void gdb_session_begin(struct gdb_session *);		/* stops what is debugged */
bool gdb_session_command(struct gdb_session *, const char *data, size_t len);
bool gdb_session_interrupt(struct gdb_session *);
bool gdb_session_ended(struct gdb_session *, int status);
/* As gdb_stopped. */
bool gdb_session_stopped(struct gdb_session *, unsigned cpu, const struct cpu_stop *, bool *reply);
/* As gdb_hide. */
void gdb_session_hide(struct gdb_session *, bool hide);
/* The client is gone, or goes: as if it had never been. */
void gdb_session_end(struct gdb_session *);
