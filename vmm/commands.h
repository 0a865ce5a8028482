/* commands.h: the subcommands of vmm.  Each returns the exit status. */
#pragma once
#include "vmm/core/err.h"

enum { EXIT_OK = 0, EXIT_RUNTIME = 1, EXIT_USAGE = 2, EXIT_GUEST_PANIC = 3 };

/* Of one that failed so: what the user named is not there, or of no use, unless the host is to blame. */
static inline int exit_status_of(int code)
{
	return err_of_host(code) ? EXIT_RUNTIME : EXIT_USAGE;
}

/* argv without the program's and the subcommand's names. */
int command_run(int argc, char **argv);
int command_check(int argc, char **argv);
int command_disk(int argc, char **argv);
int command_net(int argc, char **argv);
int command_firecracker(int argc, char **argv);
int command_jailer(int argc, char **argv);
int command_restore(int argc, char **argv);
int command_clone(int argc, char **argv);
int command_snapshot(int argc, char **argv);
int command_ctl(int argc, char **argv);
int command_top(int argc, char **argv);
int command_ps(int argc, char **argv);
int command_console(int argc, char **argv);
int command_stop(int argc, char **argv);
int command_pause(int argc, char **argv);
int command_resume(int argc, char **argv);
