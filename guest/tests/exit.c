/*
 * exit.c: promise: a byte written to the exit port ends vmm with that status. code=N says which.
 */
#include "guest/lib/start.h"

int main(const struct start_info *info, const char *cmdline)
{
	(void)info;
	(void)cmdline;
	return (int)arg_u64("code", 0);
}
