/* chardev.h: the far end of a serial line: terminal, pty, file, socket. */
#pragma once
#include "vmm/core/base.h"
#include "vmm/core/err.h"
#include "vmm/core/loop.h"

struct chardev;

/*
 * spec: "stdio", "pty", "file:PATH", "unix:PATH" (listens; one client at a time;
 * an old socket of that name is replaced) or "none".  On a terminal, stdio takes
 * it raw with Ctrl-A as escape: x quits (quit is called, on the loop), h helps,
 * Ctrl-A sends itself.
 */
struct chardev_user {
	void (*input)(void *);		/* on the loop: there is something to read */
	void (*room)(void *);		/* on the loop: there is room to write again */
	void *arg;
};
int  chardev_open(struct chardev **, const char *spec, struct loop *, void (*quit)(void *),
		  void *quit_arg, struct err *) must_check;
/* Give back what others see, the terminal and a socket's name; NULL is allowed. */
void chardev_leave(struct chardev *);
void chardev_close(struct chardev *);	/* the same, and waits until all is written */
/* The name of the pty's other end; NULL: it is none.  NULL is allowed. */
const char *chardev_pty(const struct chardev *);
/* On the loop, after a stop: take the terminal again when it is ours. */
void chardev_resume(struct chardev *);

/* On the loop.  NULL: nobody; input waits, output goes on. */
void chardev_set_user(struct chardev *, const struct chardev_user *);

/* Any thread.  How much was there, at most len; never waits. */
size_t chardev_read(struct chardev *, u8 *buf, size_t len);
/* Any thread.  How much may be written without waiting. */
size_t chardev_room(struct chardev *);
/* Any thread but the loop.  Waits for room; gives up when told to. */
void chardev_write(struct chardev *, const u8 *buf, size_t len);
/* Writers do not wait any more, and what they could not write is lost; until
 * it is taken back. */
void chardev_hurry(struct chardev *, bool hurry);
/* Writers do not wait any more, but nothing is lost: for a pause, where each
 * writes little more. */
void chardev_swallow(struct chardev *, bool swallow);

/* Async-signal-safe: give the terminal back as it was. */
void terminal_restore(void);
