/* log.h: lines for people or for programs, on stderr or in a file. */
#pragma once
#include "vmm/core/base.h"
#include "vmm/core/err.h"

enum log_level { LOG_OFF = -1, LOG_ERR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_TEXT, LOG_JSON };

/*
 * Any thread.  One call is one line; the format has no newline.  A line of text is
 * "vmm: text"; in a file the time (UTC) stands in front; at level debug the thread's name
 * and the level stand before the text, and on stderr the time since the host's start.  A
 * line of JSON is an object of time, level, thread and message.  What cannot be written
 * is lost.  Never on a data path: counters are for that.
 */
void log_write(enum log_level, const char *fmt, ...) printf_like(2, 3);
#define log_err(...)	log_write(LOG_ERR, __VA_ARGS__)
#define log_warn(...)	log_write(LOG_WARN, __VA_ARGS__)
#define log_info(...)	log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...)	log_write(LOG_DEBUG, __VA_ARGS__)

/* --- before threads exist ------------------------------------------------------------ */

void log_set_level(enum log_level);
void log_set_format(enum log_format);
/* A file, or a named pipe that need not have a reader, for lines that need not all get
 * there. */
int  log_open_sink(const char *path, int *fd, struct err *) must_check;
/* fd is the log's from now on. */
void log_set_file(int fd);
/* How long a line waits for who reads standard error by a pipe, and does not; -1, as at first:
 * for ever.  Any thread. */
void log_set_patience(int ms);
void log_show_level(bool);	/* in every line of text, as at the level debug */
/* The names are "err", "warn", "info", "debug"; "text", "json".  False: there is no such. */
bool log_level_by_name(const char *name, enum log_level *);
bool log_format_by_name(const char *name, enum log_format *);

/* --- any thread ------------------------------------------------------------------------ */

/* The terminal is raw: a line must bring its own carriage return. */
void log_set_raw(bool raw);
/* Lines that could not be written, as of a full disk; the next that can says so, too. */
u64  log_lost(void);

/*
 * For lines that a guest can cause: a few in a minute, all others are counted.  Zeroed is
 * fresh.
 */
struct log_limit {
	u64 since_ns, suppressed;
	u32 lines;
};
enum { LOG_LIMIT_LINES = 5, LOG_LIMIT_S = 60 };
u64  log_suppressed(void);	/* of all limits, ever */
/* How many lines there are left in this minute, with this one; 0: do not write it.
 * *missed: of the minute before, so many were not written. */
unsigned log_allows(struct log_limit *, u64 now_ns, u64 *missed);
