/* spawn.h: starts another program. */
#pragma once
#include <sys/types.h>
#include "vmm/core/base.h"

struct spawn_file { int fd, as; };	/* which of our descriptors, by which number */

/*
 * Any thread.  It has none of our signals, blocked or ignored, and of our files what
 * is not closed on exec, and these.  0, or -errno: nothing was started.
 */
int spawn(pid_t *, const char *path, const char *const argv[], const char *const env[],
	  const struct spawn_file *, unsigned nr) must_check;
