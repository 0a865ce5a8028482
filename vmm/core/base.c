/* base.c: the end of the line for our own mistakes. */
#include "vmm/core/base.h"
#include <stdio.h>
#include <stdlib.h>

void bug(const char *file, int line, const char *what)
{
	fprintf(stderr, "vmm: bug at %s:%d: %s\n", file, line, what);
	abort();
}
