/* allow.c: reads /etc/vmm/bridge.conf.  Whoever calls may be hostile, the file's writer is not. */
#include "vmm/helper/allow.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_DEPTH = 8, MAX_WORDS = 3, MAX_FILE = 65536 };

static int read_file(const char *path, char **text, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), rc = 0;
	struct stat st;
	ssize_t n = 0;

	*text = NULL;
	if (fd < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_uid || st.st_mode & (S_IWGRP | S_IWOTH))
		rc = err_set(err, -EPERM, "%s: must be a file of root's that only root can write", path);
	else if (st.st_size >= MAX_FILE || !(*text = malloc(MAX_FILE)))
		rc = err_set(err, -EFBIG, "%s: larger than %d bytes", path, MAX_FILE - 1);
	else if ((n = read(fd, *text, MAX_FILE - 1)) < 0)
		rc = err_set(err, -errno, "%s: %s", path, strerror(errno));
	else if (memchr(*text, 0, n))
		rc = err_set(err, -EINVAL, "%s: has a zero byte; it must be plain text", path);
	else
		(*text)[n] = 0;
	close(fd);
	return rc;
}

static int include(struct allow *a, const char *path, struct err *err)
{
	char *text;
	int rc;

	if (*path != '/')
		return err_set(err, -EINVAL, "include %s: the path must begin with /", path);
	if (a->depth == MAX_DEPTH)
		return err_set(err, -ELOOP, "include %s: more than %d files deep", path, MAX_DEPTH);
	rc = read_file(path, &text, err);
	if (rc == -EACCES || rc == -ENOENT)
		return 0;
	a->depth++;
	if (!rc)
		rc = allow_read(a, text, path, err);
	a->depth--;
	free(text);
	return rc;
}

static bool names(const char *word, const struct allow *a)
{
	return !strcmp(word, "all") || !strcmp(word, a->bridge);
}

static int allow(struct allow *a, const char *bridge, const char *option, struct err *err)
{
	struct vlans some = { 0 };
	bool fits = !a->vlans->nr;
	int rc;

	if (option && strncmp(option, "vlan=", 5))
		return err_set(err, -EINVAL, "'%s' is not vlan=LIST", option);
	if (option && !strcmp(option + 5, "all")) {
		fits = true;
	} else if (option) {
		rc = vlans_parse(option + 5, &some, err);
		if (rc)
			return rc;
		fits = a->vlans->nr && vlans_cover(&some, a->vlans);
	}
	a->allowed |= fits && names(bridge, a);
	return 0;
}

static int one_line(struct allow *a, char *line, struct err *err)
{
	static const char blank[] = " \t\r";
	char *word[MAX_WORDS + 1] = { NULL }, *rest = line;
	unsigned nr = 0;

	line[strcspn(line, "#")] = 0;
	while (nr <= MAX_WORDS && (word[nr] = strtok_r(rest, blank, &rest)))
		nr++;
	if (!nr)
		return 0;
	if (!strcmp(word[0], "allow") && (nr == 2 || nr == 3))
		return allow(a, word[1], word[2], err);
	if (!strcmp(word[0], "deny") && nr == 2) {
		a->denied |= names(word[1], a);
		return 0;
	}
	if (!strcmp(word[0], "include") && nr == 2)
		return include(a, word[1], err);
	return err_set(err, -EINVAL, "neither allow BRIDGE [vlan=LIST], deny BRIDGE nor include PATH");
}

int allow_read(struct allow *a, char *text, const char *path, struct err *err)
{
	unsigned nr = 0;
	char *line;

	while ((line = strsep(&text, "\n"))) {
		nr++;
		if (one_line(a, line, err))
			return err_prefix(err, "%s, line %u: ", path, nr);
	}
	return 0;
}

int allow_check(const char *path, const char *bridge, const struct vlans *vlans, struct err *err)
{
	struct allow a = { .bridge = bridge, .vlans = vlans };
	char *text;
	int rc = read_file(path, &text, err);

	if (!rc)
		rc = allow_read(&a, text, path, err);
	free(text);
	if (rc == -ENOENT)
		return err_set(err, rc, "no user may put a tap on it: there is no %s; root allows it by the "
			       "line 'allow %s' there", path, bridge);
	if (!rc && a.denied)
		return err_set(err, -EACCES, "%s denies it to users", path);
	if (!rc && !a.allowed)
		return err_set(err, -EACCES, "users may not put a tap on it%s; root allows it by the line "
			       "'allow %s%s' in %s", vlans->nr ? " in these VLANs" : "", bridge,
			       vlans->nr ? " vlan=LIST" : "", path);
	return rc;
}
