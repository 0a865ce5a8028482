/* client.h: a request to the API of a VM. */
#pragma once
#include <jansson.h>
#include <sys/types.h>
#include "vmm/core/err.h"

enum { CLIENT_PATIENCE_S = 60 };	/* a snapshot may take its time */

/*
 * owner: the process that has to listen there; 0: any.
 * body: JSON, NULL: none.  *answer: JSON that is the caller's, NULL: there was none; a
 * string: it was plain text.  -EAGAIN: not all of it has come within patience_s.
 * -EREMOTEIO: the VM refused, -EIO: its host failed it, and it says why in err; others: it
 * was not reached, or is no such API.
 */
int client_call(const char *socket, pid_t owner, const char *method, const char *path,
		const char *body, unsigned patience_s, json_t **answer, struct err *) must_check;

/* What one of the VMs that run under a name answers to GET path, an array that is the caller's,
 * in their order; { name, pid, state: "unknown" } of one that does not within patience_s: it is
 * there all the same.  They are asked at once: one that is silent takes no other's time. */
struct registered;
json_t *client_ask_all(const struct registered *, unsigned nr, const char *path, unsigned patience_s);
