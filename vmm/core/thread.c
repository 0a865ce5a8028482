/* thread.c: threads get a name, and into the sandbox. */
#include "vmm/core/thread.h"
#include <stddef.h>
#include <sys/prctl.h>

static void (*sandbox)(enum thread_kind);

void thread_set_sandbox(void (*enter)(enum thread_kind))
{
	sandbox = enter;
}

void thread_begin(enum thread_kind kind, const char *name)
{
	prctl(PR_SET_NAME, name);
	if (sandbox)
		sandbox(kind);
}
