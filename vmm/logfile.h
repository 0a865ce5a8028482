/* logfile.h: the log as the options want it. */
#pragma once
#include "vmm/config.h"

/* Before threads exist. */
int  logfile_start(const struct config *, struct err *) must_check;
/* The last words: also on stderr, where the log is elsewhere.  code 0: there are none. */
void logfile_end(const struct err *);
