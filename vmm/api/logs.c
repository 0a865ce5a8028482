/* logs.c: where the log of Firecracker's API goes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/api/route.h"
#include "vmm/core/log.h"

static int log_level_of(unsigned level)
{
	static const int of[] = {
		[API_LOG_OFF] = LOG_OFF, [API_LOG_TRACE] = LOG_DEBUG, [API_LOG_DEBUG] = LOG_DEBUG,
		[API_LOG_INFO] = LOG_INFO, [API_LOG_WARNING] = LOG_WARN, [API_LOG_WARN] = LOG_WARN,
		[API_LOG_ERROR] = LOG_ERR,
	};

	return of[level];
}

int api_put_logger(struct api *a, struct call *call)
{
	struct api_logger l = a->logger;
	struct config *c = a->vm->config;
	char *path;
	int fd = -1, rc;

	l.level = API_LOG_INFO;
	api_take(call, &l);
	if (l.log_path != c->logger_file) {
		path = strdup(l.log_path);
		rc = path ? config_check_file(c, &(struct config_file){ "logger", path, FILE_APPENDED }, &call->err) :
			    err_set(&call->err, -ENOMEM, "out of memory");
		if (!rc)
			rc = log_open_sink(path, &fd, &call->err);
		if (rc) {
			free(path);
			return err_prefix(&call->err, "Logger error: ");
		}
		free(c->logger_file);
		l.log_path = c->logger_file = path;
		log_set_file(fd);
	}
	l.module = NULL;	/* everything of ours is one */
	a->logger = l;
	a->has_logger = true;
	log_set_level(log_level_of(l.level));
	log_show_level(l.show_level);
	return 0;
}
