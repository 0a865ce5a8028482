/* program.h: another program of the host, run to its end. */
#pragma once
#include "vmm/core/base.h"
#include "vmm/core/err.h"

enum { PROGRAM_OUTPUT = 65536, PROGRAM_MS = 30000 };

/* In PATH, or where administrators' programs are.  False: nowhere. */
bool program_find(const char *name, char *path, size_t room);

/*
 * Run argv[0] (no shell is between), with input as its standard input, and what
 * it writes to standard output and error in output, of which what is over room
 * is lost.  input NULL: its standard input is held, an open file, instead, which
 * what it leaves running keeps until it is a daemon.  package: what to install if it
 * is missing.  What the program leaves running is not waited for.  The error is the
 * program's own first line.  One that takes longer than PROGRAM_MS is ended.
 */
int  program_run(const char *const argv[], const char *package, const char *input, int held,
		 char *output, size_t room, struct err *) must_check;
