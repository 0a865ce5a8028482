/* log.c: one write(2) a line, so that lines of several threads do not mix. */
#include "vmm/core/log.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MESSAGE_MAX = 600, LINE_MAX_LEN = 2 * MESSAGE_MAX + 200 };

static enum log_level max_level = LOG_INFO;
static enum log_format format;
static int out = STDERR_FILENO;
static int patience_ms = -1;
static bool raw_terminal, show_level;
static u64 lost, untold;		/* lines; those that nobody was told of yet */
static bool torn;			/* the last line has no end */
static const char *const level_name[] = { "err", "warn", "info", "debug" };
static const char *const format_name[] = { "text", "json" };

void log_set_level(enum log_level level)
{
	max_level = level;
}

void log_set_format(enum log_format f)
{
	format = f;
}

/* A named pipe is opened for both, or this would need a reader; one that does not read
 * loses lines, and holds nobody up. */
int log_open_sink(const char *path, int *fd, struct err *err)
{
	*fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0644);
	return *fd < 0 ? err_set(err, -errno, "%s: %s", path, strerror(errno)) : 0;
}

void log_set_file(int fd)
{
	if (out != STDERR_FILENO)
		close(out);
	out = fd;
}

void log_set_patience(int ms)
{
	store_once(&patience_ms, ms);
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

bool log_format_by_name(const char *name, enum log_format *f)
{
	for (unsigned i = 0; i < ARRAY_SIZE(format_name); i++)
		if (!strcmp(name, format_name[i])) {
			*f = i;
			return true;
		}
	return false;
}

u64 log_lost(void)
{
	return load_once(&lost);
}

void log_set_raw(bool raw)
{
	store_once(&raw_terminal, raw);
}

/* --- a line ------------------------------------------------------------------------------------ */

struct utc { char text[32]; };
static struct utc utc_now(void)
{
	struct timespec t;
	struct utc u;
	struct tm tm;
	size_t n;

	clock_gettime(CLOCK_REALTIME, &t);
	gmtime_r(&t.tv_sec, &tm);
	n = strftime(u.text, sizeof(u.text), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(u.text + n, sizeof(u.text) - n, ".%06ldZ", t.tv_nsec / 1000);
	return u;
}

static int put_text(char *line, int room, enum log_level level, const char *thread,
		    const char *message)
{
	bool file = out != STDERR_FILENO;
	struct timespec t;
	int n = snprintf(line, room, "%s%svmm: ", file ? utc_now().text : "", file ? " " : "");

	if (max_level >= LOG_DEBUG && !file) {
		clock_gettime(CLOCK_MONOTONIC, &t);
		n += snprintf(line + n, room - n, "%5lld.%06ld ", (long long)t.tv_sec,
			      t.tv_nsec / 1000);
	}
	if (max_level >= LOG_DEBUG)
		n += snprintf(line + n, room - n, "%s ", thread);
	if (max_level >= LOG_DEBUG || show_level)
		n += snprintf(line + n, room - n, "%s: ", level_name[level]);
	return n + snprintf(line + n, room - n, "%s", message);
}

/* The length of the UTF-8 character at s (RFC 3629); 0: there is none. */
static int character(const char *s)
{
	const u8 *c = (const u8 *)s;
	int n = c[0] < 0x80 ? 1 : c[0] < 0xc2 ? 0 : c[0] < 0xe0 ? 2 : c[0] < 0xf0 ? 3 :
		c[0] < 0xf5 ? 4 : 0;

	for (int i = 1; i < n; i++)
		if ((c[i] & 0xc0) != 0x80)
			return 0;
	if ((c[0] == 0xe0 && c[1] < 0xa0) || (c[0] == 0xed && c[1] > 0x9f) ||
	    (c[0] == 0xf0 && c[1] < 0x90) || (c[0] == 0xf4 && c[1] > 0x8f))
		return 0;
	return n;
}

static int put_quoted(char *to, const char *text)
{
	char *start = to;

	for (int n; *text; text += MAX(n, 1)) {
		n = character(text);
		if (*text == '"' || *text == '\\')
			*to++ = '\\';
		if (n)
			to = mempcpy(to, text, n);
		else
			*to++ = '?';
	}
	return (int)(to - start);
}

static int put_json(char *line, int room, enum log_level level, const char *thread,
		    const char *message)
{
	int n = snprintf(line, room, "{\"time\":\"%s\",\"level\":\"%s\",\"thread\":\"",
			 utc_now().text, level_name[level]);

	n += put_quoted(line + n, thread);
	n += snprintf(line + n, room - n, "\",\"message\":\"");
	n += put_quoted(line + n, message);
	line[n++] = '"';
	line[n++] = '}';
	return n;
}

/* Between the look and the write nobody else of ours takes the room that there is. */
static ssize_t write_line(const char *line, size_t len)
{
	static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
	struct pollfd p = { .fd = out, .events = POLLOUT };
	int ms = load_once(&patience_ms);
	ssize_t rc = -1;

	if (ms < 0)
		return write(out, line, len);
	pthread_mutex_lock(&one_at_a_time);
	if (poll(&p, 1, ms) > 0)
		rc = write(out, line, len);
	pthread_mutex_unlock(&one_at_a_time);
	return rc;
}

static bool put(enum log_level level, const char *message)
{
	char line[LINE_MAX_LEN], thread[16] = "";
	int n = 0;
	ssize_t rc;

	pthread_getname_np(pthread_self(), thread, sizeof(thread));
	if (load_once(&torn))
		line[n++] = '\n';
	n += (format == LOG_JSON ? put_json : put_text)(line + n, sizeof(line) - n - 2, level,
							thread, message);
	if (load_once(&raw_terminal) && out == STDERR_FILENO)
		line[n++] = '\r';
	line[n++] = '\n';
	rc = write_line(line, n);
	if (rc == n) {
		store_once(&torn, false);
		return true;
	}
	if (rc > 0)
		store_once(&torn, true);
	__atomic_add_fetch(&lost, 1, __ATOMIC_RELAXED);
	return false;
}

/* After a line that could be written: of those before it that could not. */
static void tell_lost(void)
{
	u64 n = load_once(&untold) ? __atomic_exchange_n(&untold, 0, __ATOMIC_RELAXED) : 0;
	char text[80];

	if (!n)
		return;
	snprintf(text, sizeof(text), "log: %llu lines before this could not be written",
		 (unsigned long long)n);
	if (!put(LOG_WARN, text))
		__atomic_add_fetch(&untold, n, __ATOMIC_RELAXED);
}

void log_write(enum log_level level, const char *fmt, ...)
{
	char message[MESSAGE_MAX];
	va_list ap;

	if (level > max_level)
		return;
	va_start(ap, fmt);
	if (vsnprintf(message, sizeof(message), fmt, ap) < 0)
		*message = 0;
	va_end(ap);
	mask_controls(message);
	if (put(level, message))
		tell_lost();
	else
		__atomic_add_fetch(&untold, 1, __ATOMIC_RELAXED);
}

/* --- what a guest can cause ---------------------------------------------------------------------- */

static u64 suppressed;

u64 log_suppressed(void)
{
	return load_once(&suppressed);
}

unsigned log_allows(struct log_limit *l, u64 now_ns, u64 *missed)
{
	u64 since = load_once(&l->since_ns);
	u32 n;

	*missed = 0;
	if ((!since || now_ns - since >= LOG_LIMIT_S * 1000000000ULL) &&
	    __atomic_compare_exchange_n(&l->since_ns, &since, now_ns, false, __ATOMIC_RELAXED,
					__ATOMIC_RELAXED)) {
		store_once(&l->lines, 0);
		*missed = __atomic_exchange_n(&l->suppressed, 0, __ATOMIC_RELAXED);
	}
	n = __atomic_add_fetch(&l->lines, 1, __ATOMIC_RELAXED);
	if (n <= LOG_LIMIT_LINES)
		return LOG_LIMIT_LINES - n + 1;
	__atomic_add_fetch(&l->suppressed, 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&suppressed, 1, __ATOMIC_RELAXED);
	return 0;
}
