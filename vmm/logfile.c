/* logfile.c: the log as the options want it. */
#include "vmm/logfile.h"
#include <unistd.h>

static bool elsewhere;

int logfile_start(const struct config *c, struct err *err)
{
	int fd, rc;

	log_set_level(c->log_level);
	if (c->log_file) {
		rc = log_open_sink(c->log_file, &fd, err);
		if (rc)
			return err_prefix(err, "log-file: ");
		log_set_file(fd);
		log_show_level(true);
		elsewhere = true;
	}
	log_set_format(c->log_format);
	return 0;
}

void logfile_end(const struct err *err)
{
	if (!err->code)
		return;
	log_err("%s", err->msg);
	if (!elsewhere)
		return;
	log_set_file(STDERR_FILENO);
	log_show_level(false);
	log_set_format(LOG_TEXT);
	log_err("%s", err->msg);
}
