/* pidfile.h: a file that says who runs, and whose lock says that it still does. */
#pragma once
#include <sys/types.h>
#include "vmm/core/err.h"

/* The lock is *fd's, until it is closed.  -EBUSY: another process has it; -EEXIST: there
 * is a file of that name that is something else. */
int  pidfile_open(const char *path, int *fd, struct err *) must_check;
/* Removes it, unless another file has its name by then; fd -1 is allowed. */
void pidfile_close(const char *path, int fd);
/* Who holds it now, 0: nobody; negative: an error, and nothing is known. */
pid_t pidfile_owner(const char *path);
/* Until nobody does. */
void pidfile_wait(const char *path);
