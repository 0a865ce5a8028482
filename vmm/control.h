/* control.h: signals while a machine runs. */
#pragma once
#include "vmm/machine.h"

/*
 * SIGTERM, SIGINT, SIGHUP press the power button; a second one within 5 s, or a
 * guest that does not power off in 30 s, stops it.  SIGTSTP gives the terminal
 * back first.  control_block is called before any thread exists.
 */
struct control {
	struct resources *resources;
	struct watch watch;
	struct timer patience;
	u64 pressed_ns;			/* when, in the boot of that number */
	unsigned pressed_boot;		/* 0: never */
	int fd;
};

void control_block_signals(void);
int  control_start(struct control *, struct resources *, struct err *) must_check;
void control_stop(struct control *);
