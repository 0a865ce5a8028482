/* err.h: why a control-path operation failed, in words. */
#pragma once
#include "vmm/core/base.h"

/*
 * Lives on the caller's stack; no allocation, no ownership.  A function that
 * takes one returns 0 or a negative errno, and fills it exactly when it
 * returns non-zero.  NULL is allowed and means "the code is enough".
 */
struct err {
	int code;		/* negative errno */
	char msg[508];
};

/* All return code, so that `return err_set(...)` is one line. */
int err_set(struct err *, int code, const char *fmt, ...) printf_like(3, 4);
/* Put "disk0: " in front as the error travels up. */
int err_prefix(struct err *, const char *fmt, ...) printf_like(2, 3);
/* What to do about it, behind: "; be root". */
int err_suffix(struct err *, const char *cure);

/* Whether such a code tells of the host, which ran out of something or failed, and not of
 * what was asked for: EXIT_RUNTIME, not EXIT_USAGE. */
bool err_of_host(int code);

/* What dlerror() said of a library: -ENOENT, or what the host ran out of. */
int err_of_library(const char *said);
