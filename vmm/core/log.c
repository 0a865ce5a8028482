/* log.c: one write(2) a line, so that lines of several threads do not mix. */
#include "vmm/core/log.h"
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static enum log_level max_level = LOG_INFO;
static int out = STDERR_FILENO;
static bool raw_terminal, show_level;
static const char *const level_name[] = { "err", "warn", "info", "debug" };

void log_set_level(enum log_level level)
{
	max_level = level;
}

void log_set_file(int fd)
{
	if (out != STDERR_FILENO)
		close(out);
	out = fd;
}

void log_show_level(bool show)
{
	show_level = show;
}

bool log_level_by_name(const char *name, enum log_level *level)
{
	for (unsigned i = 0; i < ARRAY_SIZE(level_name); i++)
		if (!strcmp(name, level_name[i])) {
			*level = i;
			return true;
		}
	return false;
}

void log_set_raw(bool raw)
{
	store_once(&raw_terminal, raw);
}

void log_write(enum log_level level, const char *fmt, ...)
{
	char line[640];
	int n, room = sizeof(line) - 3;
	va_list ap;
	ssize_t rc;

	if (level > max_level)
		return;
	n = snprintf(line, room, "vmm: ");
	if (show_level && max_level < LOG_DEBUG)
		n += snprintf(line + n, room - n, "%s: ", level_name[level]);
	if (max_level >= LOG_DEBUG) {
		struct timespec t;
		char thread[16] = "";

		clock_gettime(CLOCK_MONOTONIC, &t);
		pthread_getname_np(pthread_self(), thread, sizeof(thread));
		n += snprintf(line + n, room - n, "%5lld.%06ld %s %s: ", (long long)t.tv_sec,
			      t.tv_nsec / 1000, thread, level_name[level]);
	}
	va_start(ap, fmt);
	rc = vsnprintf(line + n, room - n, fmt, ap);
	va_end(ap);
	n = MIN(n + MAX(rc, 0), room - 1);
	for (int i = 0; i < n; i++)	/* of what a user or a guest wrote */
		if ((u8)line[i] < ' ' || line[i] == 0x7f)
			line[i] = '?';
	if (load_once(&raw_terminal) && out == STDERR_FILENO)
		line[n++] = '\r';
	line[n++] = '\n';
	rc = write(out, line, n);
	(void)rc;		/* nowhere left to complain */
}
