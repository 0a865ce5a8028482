/* control.h: signals while a machine runs. */
#pragma once
#include "vmm/machine.h"

/*
 * SIGTERM, SIGINT, SIGHUP press the power button, now and every 3 s; a second one
 * within 5 s, or a guest that has not powered off in 30 s, stops it; where the configuration
 * says so, the first one does.  Before there is a machine they stop the loop.  SIGTSTP gives the terminal
 * back first.  control_block is called before any thread exists.
 */
struct control {
	struct resources *resources;
	struct watch watch;
	struct timer patience;
	u64 pressed_ns;
	unsigned presses;		/* of the button, by the timer; 0: nobody asked yet */
	int fd;
};

void control_block_signals(void);
/* When all that must not be lost is safe: signals end the program again. */
void control_unblock_signals(void);
/* A signal that ends us unlinks path, which stays the caller's; NULL: nothing. */
void control_doom(const char *path);
int  control_start(struct control *, struct resources *, struct err *) must_check;
void control_stop(struct control *);
