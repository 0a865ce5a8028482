/* http.c: HTTP/1.1 over a unix socket (RFC 9112), by libmicrohttpd in the loop's epoll. */
#include "vmm/api/http.h"
#include <errno.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "vmm/core/log.h"
#include "vmm/core/socket.h"

/* A body that is too long is read to its end, so that its sender gets to read the answer;
 * but not for ever. */
#define DRAIN_MAX	(8 * MIB)
#define FULL_NS		100000000ULL

struct connection {
	int fd;				/* -1: free */
	u64 used;			/* when it last asked for something, by http->clock */
	bool asks;			/* or is about to: it has no answer yet */
};

struct http {
	struct http_user user;
	struct loop *loop;
	struct watch watch;		/* of the library's epoll */
	int epoll_fd;
	struct task again;
	struct timer full;		/* no more files may be open: look again then */
	bool closing;
	struct socket_file file;
	struct MHD_Daemon *daemon;
	/* Those that are told to go are still there for a while. */
	struct connection connection[2 * HTTP_CONNECTIONS];
	u64 clock;
};

/* What has come of a request so far. */
struct upload {
	char *data;
	size_t len;
	u64 dropped;
};

/* --- no TLS ------------------------------------------------------------------------------------
 * The library is linked in without the one for TLS that it was built for: there are unix sockets
 * only.  The Makefile makes its calls there weak, and so they lead nowhere; these two are made
 * before anybody asked for TLS, and data cannot be weak. */
int gnutls_global_init(void);
void gnutls_global_deinit(void);
extern void *(*gnutls_malloc)(size_t);

void *(*gnutls_malloc)(size_t);

int gnutls_global_init(void)
{
	return 0;
}

void gnutls_global_deinit(void)
{
}

/* --- connections ------------------------------------------------------------------------------ */

/* The fd is the library's, which closes it when it finds it shut. */
static void make_room(struct http *h)
{
	struct connection *oldest = NULL, *answered = NULL;
	unsigned n = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(h->connection); i++) {
		struct connection *c = &h->connection[i];

		if (c->fd < 0 || !c->used)
			continue;
		n++;
		if (!oldest || c->used < oldest->used)
			oldest = c;
		if (!c->asks && (!answered || c->used < answered->used))
			answered = c;
	}
	if (n > HTTP_CONNECTIONS && answered)
		oldest = answered;
	else if (n <= HTTP_ASKING)
		return;
	shutdown(oldest->fd, SHUT_RDWR);
	oldest->used = 0;
}

static void connected(void *arg, struct MHD_Connection *mc, void **context,
		      enum MHD_ConnectionNotificationCode what)
{
	struct http *h = arg;
	struct connection *c = *context;

	if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
		if (c)
			c->fd = -1;
		return;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(h->connection) && !c; i++)
		if (h->connection[i].fd < 0)
			c = &h->connection[i];
	if (!c)
		return;
	c->fd = MHD_get_connection_info(mc, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
	c->used = ++h->clock;
	c->asks = true;
	*context = c;
	make_room(h);
}

/* NULL: there was no room for it. */
static struct connection *connection_of(struct MHD_Connection *mc)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(mc, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info ? info->socket_context : NULL;
}

/* --- requests --------------------------------------------------------------------------------- */

static enum MHD_Result take(struct http *h, struct upload *u, const char *data, size_t len)
{
	char *more;

	if (u->dropped || u->len + len > h->user.max_body) {
		u->dropped += len;
		return u->dropped <= DRAIN_MAX ? MHD_YES : MHD_NO;
	}
	more = realloc(u->data, u->len + len + 1);
	if (!more)
		return MHD_NO;
	memcpy(more + u->len, data, len);
	u->data = more;
	u->len += len;
	u->data[u->len] = 0;
	return MHD_YES;
}

static enum MHD_Result reply(struct MHD_Connection *mc, struct http_answer *a)
{
	struct MHD_Response *r;
	enum MHD_Result rc;

	r = MHD_create_response_from_buffer(a->body ? strlen(a->body) : 0, a->body,
					    a->body ? MHD_RESPMEM_MUST_FREE :
						      MHD_RESPMEM_PERSISTENT);
	if (!r) {
		free(a->body);
		return MHD_NO;
	}
	MHD_add_response_header(r, "Server", "vmm");
	if (a->body)
		MHD_add_response_header(r, "Content-Type", a->type ?: "application/json");
	if (a->deprecated)
		MHD_add_response_header(r, "Deprecation", "true");
	rc = MHD_queue_response(mc, a->status, r);
	MHD_destroy_response(r);
	return rc;
}

/* "http://host/path", as proxies are asked: the same as "/path". */
static const char *path_of(const char *url)
{
	const char *slash;

	if (strncasecmp(url, "http://", 7))
		return url;
	slash = strchr(url + 7, '/');
	return slash ? slash : "/";
}

/* "/vm%00x" is not "/vm". */
static size_t unescape(void *arg, struct MHD_Connection *mc, char *text)
{
	size_t len = MHD_http_unescape(text);

	(void)arg;
	(void)mc;
	for (char *zero; (zero = memchr(text, 0, len)); )
		*zero = '?';
	return len;
}

/* Called with the headers, with each piece of the body, and when all is there. */
static enum MHD_Result handle(void *arg, struct MHD_Connection *mc, const char *url,
			      const char *method, const char *version, const char *data,
			      size_t *len, void **context)
{
	struct http *h = arg;
	struct upload *u = *context;
	struct http_answer answer = { .status = MHD_HTTP_INTERNAL_SERVER_ERROR };
	struct connection *c;

	(void)version;
	if (!u && h->closing)
		return MHD_NO;
	c = connection_of(mc);
	if (!u) {
		if (c)
			c->asks = true;
		*context = calloc(1, sizeof(*u));
		return *context ? MHD_YES : MHD_NO;
	}
	if (*len) {
		size_t n = *len;

		*len = 0;
		return take(h, u, data, n);
	}
	h->user.serve(h->user.arg, &(struct http_request){
		.method = method, .path = path_of(url), .body = u->data ?: "",
		.len = u->len, .too_long = u->dropped,
	}, &answer);
	if (c && c->used)
		c->used = ++h->clock;
	return reply(mc, &answer);
}

/* The answer is sent; also of a request whose client died in the middle of it. */
static void completed(void *arg, struct MHD_Connection *mc, void **context,
		      enum MHD_RequestTerminationCode how)
{
	struct connection *c = connection_of(mc);
	struct upload *u = *context;

	(void)arg;
	(void)how;
	if (c)
		c->asks = false;
	if (u)
		free(u->data);
	free(u);
	*context = NULL;
}

/* --- the library ------------------------------------------------------------------------------ */

static void run(struct http *h)
{
	MHD_UNSIGNED_LONG_LONG wait;

	MHD_run(h->daemon);
	/* What it has read already, no descriptor tells of any more. */
	if (MHD_get_timeout(h->daemon, &wait) == MHD_YES && !wait)
		loop_post(h->loop, &h->again);
}

static void run_again(struct task *t)
{
	struct http *h = container_of(t, struct http, again);

	run(h);
}

/* Of whoever waits to be let in, and cannot be, its epoll would tell without end. */
static bool is_full(const struct http *h)
{
	int fd = dup(h->epoll_fd);

	if (fd >= 0)
		close(fd);
	return fd < 0;
}

static void ready(struct watch *w, u32 events)
{
	struct http *h = container_of(w, struct http, watch);

	(void)events;
	run(h);
	if (!is_full(h))
		return;
	watch_stop(w);
	timer_start(&h->full, h->loop, FULL_NS);
}

static void look_again(struct timer *t)
{
	struct http *h = container_of(t, struct http, full);

	run(h);
	if (is_full(h) || watch_start(&h->watch, h->loop, h->epoll_fd, EPOLLIN))
		timer_start(t, h->loop, FULL_NS);
}

/* Once there is a daemon listen_fd is the library's. */
static int start(struct http *h, int listen_fd)
{
	errno = 0;	/* the library says no more than that it cannot */
	h->daemon = MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, handle, h,
				     MHD_OPTION_LISTEN_SOCKET, listen_fd,
				     MHD_OPTION_CONNECTION_LIMIT, ARRAY_SIZE(h->connection),
				     MHD_OPTION_NOTIFY_CONNECTION, connected, h,
				     MHD_OPTION_NOTIFY_COMPLETED, completed, NULL,
				     MHD_OPTION_UNESCAPE_CALLBACK, unescape, NULL,
				     MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
	if (!h->daemon)
		return err_of_host(-errno) ? -errno : -EIO;
	h->epoll_fd = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
	return watch_start(&h->watch, h->loop, h->epoll_fd, EPOLLIN);
}

int http_listen(struct http **out, struct loop *loop, const char *path,
		const struct http_user *user, struct err *err)
{
	struct http *h = calloc(1, sizeof(*h));
	int fd, rc;

	if (!h)
		return err_set(err, -ENOMEM, "out of memory");
	h->user = *user;
	h->loop = loop;
	h->watch.ready = ready;
	h->again.run = run_again;
	h->full.fire = look_again;
	for (unsigned i = 0; i < ARRAY_SIZE(h->connection); i++)
		h->connection[i] = (struct connection){ .fd = -1 };
	rc = socket_listen(path, &fd, err);
	if (rc) {
		free(h);
		return rc;
	}
	socket_file_note(&h->file, path);
	rc = start(h, fd);
	if (rc) {
		if (!h->daemon)
			close(fd);
		http_close(h);
		return err_set(err, rc, "%s: %s", path, strerror(-rc));
	}
	*out = h;
	return 0;
}

void http_close(struct http *h)
{
	if (!h)
		return;
	watch_stop(&h->watch);
	timer_stop(&h->full);
	socket_file_remove(&h->file);
	h->closing = true;
	if (h->daemon) {
		/* The answer to what ended us may wait to hear that it can be written. */
		MHD_run(h->daemon);
		MHD_run(h->daemon);
		MHD_stop_daemon(h->daemon);
	}
	loop_unpost(h->loop, &h->again);
	free(h);
}
