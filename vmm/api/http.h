/* http.h: HTTP/1.1 over a unix socket, on a loop that never waits for a client. */
#pragma once
#include "vmm/core/err.h"
#include "vmm/core/loop.h"

struct http;

struct http_request {
	const char *method, *path;	/* the path without a query */
	const char *body;		/* ends with a 0 that does not count; "": there is none */
	size_t len;
	bool too_long;			/* than max_body: it was dropped */
};

struct http_answer {
	int status;
	char *body;			/* from malloc, passed on; NULL: none */
	const char *type;		/* of the body; NULL: JSON */
	bool deprecated;		/* say so in a header */
};

struct http_user {
	/* On the loop: one whole request. */
	void (*serve)(void *arg, const struct http_request *, struct http_answer *);
	void *arg;
	size_t max_body;
};

/* As many connections at once; one more, and of those that have their answers the one
 * that asked for nothing for the longest time is closed.  Where none has, there may be
 * HTTP_ASKING, and then it is the oldest. */
enum { HTTP_CONNECTIONS = 32, HTTP_ASKING = 48 };

/* All on the loop's owner. */
int  http_listen(struct http **, struct loop *, const char *path, const struct http_user *,
		 struct err *) must_check;
void http_close(struct http *);		/* not from within serve; NULL is allowed */
