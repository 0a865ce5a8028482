/*
 * start.h: a payload's frame: main's caller, the command line, checks and the way out.
 */
#ifndef GUEST_LIB_START_H
#define GUEST_LIB_START_H

#include "guest/lib/io.h"
#include "guest/lib/serial.h"

/* Each payload has one; what it returns becomes vmm's exit status. */
int main(const struct start_info *info, const char *cmdline);

extern const struct start_info *start_info;

void guest_exit(int code) __attribute__((noreturn));
void guest_stop(void) __attribute__((noreturn));	/* hlt, without interrupts, for ever */

/* The command line is words of the form name or name=value. Numbers may be hexadecimal (0x) and
 * end in K, M or G. */
const char *arg_find(const char *name);			/* the value, up to a blank; or NULL */
bool arg_is(const char *name, const char *value);
u64 arg_u64(const char *name, u64 otherwise);

/* One line on COM1 per check: "ok - ..." or "not ok - ...". Returns whether it held. */
bool check(bool held, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void check_skip(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int check_result(void);					/* for main to return: 0, or 1 */

#endif
