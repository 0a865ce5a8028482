/* log.h: lines for people, on stderr or in a file. */
#pragma once
#include "vmm/core/base.h"

enum log_level { LOG_OFF = -1, LOG_ERR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/*
 * Any thread.  One call is one line; the format has no newline.  A line is
 * "vmm: text"; at level debug the time since start and the thread's name stand
 * in front of the text.  Never on a data path: counters are for that.
 */
void log_write(enum log_level, const char *fmt, ...) printf_like(2, 3);
#define log_err(...)	log_write(LOG_ERR, __VA_ARGS__)
#define log_warn(...)	log_write(LOG_WARN, __VA_ARGS__)
#define log_info(...)	log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...)	log_write(LOG_DEBUG, __VA_ARGS__)

/* Before threads exist. */
void log_set_level(enum log_level);
/* fd is the log's from now on, and need not take everything. */
void log_set_file(int fd);
void log_show_level(bool);	/* in every line, as at the level debug */
/* The names are "err", "warn", "info", "debug".  False: no such level. */
bool log_level_by_name(const char *name, enum log_level *);
/* The terminal is raw: a line must bring its own carriage return. */
void log_set_raw(bool raw);
