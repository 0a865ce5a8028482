/* base.c: what has no better place: our own mistakes, text for a terminal. */
#include "vmm/core/base.h"
#include <stdio.h>
#include <stdlib.h>

void bug(const char *file, int line, const char *what)
{
	fprintf(stderr, "vmm: bug at %s:%d: %s\n", file, line, what);
	abort();
}

void mask_controls(char *text)
{
	for (; *text; text++)
		if ((u8)*text < ' ' || *text == 0x7f)
			*text = '?';
}
