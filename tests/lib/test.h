/* test.h: cmocka, and what it wants included before it. */
#pragma once
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "vmm/core/base.h"

/* The message of a struct err, or of anything, must say this somewhere. */
#define assert_says(text, part) \
	do { \
		const char *text_ = (text); \
		if (!strstr(text_, (part))) \
			fail_msg("'%s' does not say '%s'", text_, (part)); \
	} while (0)
