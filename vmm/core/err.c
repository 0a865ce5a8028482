/* err.c: error messages, made where the fact is known. */
#include "vmm/core/err.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *e, int code, const char *fmt, ...)
{
	BUG_ON(code >= 0);
	if (e) {
		va_list ap;

		va_start(ap, fmt);
		vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
		va_end(ap);
		e->code = code;
	}
	return code;
}

int err_prefix(struct err *e, const char *fmt, ...)
{
	char tail[sizeof(e->msg)];
	va_list ap;
	int n;

	if (!e)
		return -EINVAL;
	memcpy(tail, e->msg, sizeof(tail));
	va_start(ap, fmt);
	n = vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof(e->msg))
		snprintf(e->msg + n, sizeof(e->msg) - n, "%.*s",
			 (int)(sizeof(e->msg) - n - 1), tail);
	return e->code;
}

int err_suffix(struct err *e, const char *cure)
{
	size_t len;

	if (!e)
		return -EINVAL;
	len = strlen(e->msg);
	snprintf(e->msg + len, sizeof(e->msg) - len, "%s", cure);
	return e->code;
}

bool err_of_host(int code)
{
	switch (-code) {
	case ENOSPC: case EDQUOT: case EFBIG: case EIO: case ENOTRECOVERABLE:
	case ENOMEM: case EMFILE: case ENFILE: case EAGAIN: case ENOBUFS: case ENOLCK: case ETIMEDOUT:
		return true;
	default:
		return false;
	}
}

/* dlopen() leaves errno as it was. */
int err_of_library(const char *said)
{
	static const int codes[] = { EMFILE, ENFILE, ENOMEM, EIO };

	for (unsigned i = 0; i < ARRAY_SIZE(codes); i++)
		if (strstr(said ?: "", strerror(codes[i])))
			return -codes[i];
	/* It has no words for why. */
	return strstr(said ?: "", " map ") || strstr(said ?: "", "memory") ? -ENOMEM : -ENOENT;
}
