/* pager.h: another process that fills RAM, page by page as it is touched: userfaultfd(2). */
#pragma once
#include <signal.h>
#include "vmm/core/base.h"
#include "vmm/core/err.h"

struct pager {
	int uffd, socket;		/* -1: none */
};
/* A range of this process, and where it begins in what the other process has of it. */
struct pager_range {
	void *host;
	u64 size, offset;		/* bytes, whole pages */
};

/*
 * Give the ranges, of private memory that nobody touched yet, to whoever listens on a
 * unix socket: it gets what Firecracker sends its page fault handlers, one message with
 * a list of ranges as JSON and the userfaultfd.  From then on whoever touches a page
 * waits until that process has filled it, if need be for ever: vmm cannot know a page
 * that is not there.  The socket stays open, so that it knows when this process ends,
 * and it, when that one does.  On the control thread.
 */
int  pager_start(struct pager *, const char *socket, const struct pager_range *, unsigned nr,
		 struct err *) must_check;
void pager_stop(struct pager *);	/* after the ranges were unmapped */

/* What to do, in a signal handler, when pages are waited for of a handler that closed its
 * socket some seconds ago, or, not gone, by who is to end meanwhile: one of the blocked signals
 * end came, or pager_hurry.  NULL: nothing. */
void pager_set_lost(void (*lost)(bool gone), const sigset_t *end);
/* On the control thread, which now waits, or no longer does, for threads that may wait for pages. */
void pager_hurry(bool);
