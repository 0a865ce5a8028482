/* runtime.c: where what runs is written down. */
#include "vmm/runtime.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

bool runtime_dir(char *path, size_t room, const char *part)
{
	const char *own = getenv("VMM_RUNTIME_DIR"), *user = getenv("XDG_RUNTIME_DIR");
	int n = -1;

	if (own && *own)
		n = snprintf(path, room, "%s/%s", own, part);
	/* Root of a user namespace alone has not got it. */
	else if (!geteuid() && !access("/run", W_OK))
		n = snprintf(path, room, "/run/vmm/%s", part);
	else if (user && *user)
		n = snprintf(path, room, "%s/vmm/%s", user, part);
	return n > 0 && (size_t)n < room && *path == '/';
}
