/* debugger.h: the machine as GDB sees it, over all its reboots. */
#pragma once
#include "vmm/gdb.h"
#include "vmm/machine.h"

/* All on the control thread.  Zeroed is none, with which all of these do nothing. */
struct debugger {
	struct gdb *gdb;		/* NULL: none was asked for */
	struct resources *r;
	struct task look;		/* a vCPU stopped */
	bool waited;			/* the first machine has been made */
	enum gdb_action action[GDB_MAX_CPUS];
	struct cpu_point point[CPU_POINTS];
};

int  debugger_open(struct debugger *, struct resources *, struct err *) must_check;
void debugger_close(struct debugger *);
/* There is a new machine, which has not started: it does not run if it is to wait. */
int  debugger_attach(struct debugger *, struct err *) must_check;
/* It has started: from here on a client finds one. */
int  debugger_serve(struct debugger *, struct err *) must_check;
/* Only the client makes it go on, or its end. */
bool debugger_holds(const struct debugger *);
/* Memory is as if there were no debugger, or again as it was.  While the machine is paused. */
void debugger_hide(struct debugger *, bool hide);
void debugger_ended(struct debugger *, int status);
