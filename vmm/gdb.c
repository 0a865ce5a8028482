/* gdb.c: where GDB connects, and its bytes; gdb_session.c has what they mean. */
#include "vmm/gdb.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "vmm/core/log.h"
#include "vmm/core/socket.h"
#include "vmm/gdb_session.h"

/* Half-open: a client's machine that went down is noticed in a minute and a half. */
enum { KEEPALIVE_IDLE_S = 60, KEEPALIVE_STEP_S = 10, KEEPALIVE_TRIES = 3 };

struct gdb {
	struct loop *loop;
	struct watch listener, client;
	int listen_fd, client_fd;	/* -1: none */
	bool is_tcp;
	struct socket_file file;
	size_t sent;			/* of the session's reply */
	bool has_reply;
	size_t in_at, in_len;		/* of in: not looked at yet */
	u8 in[4096];
	struct gdb_parser parser;
	struct gdb_session session;
};

/* --- where ------------------------------------------------------------------------------------- */

struct where {
	char *path;			/* NULL: TCP */
	char host[64];
	u16 port;
	bool wait;
};

static int parse_port(const char *text, u16 *port)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || !n || n > 65535)
		return -EINVAL;
	*port = n;
	return 0;
}

/* [ADDRESS]:PORT; that of IPv6 is in brackets. */
static int parse_tcp(char *text, struct where *w)
{
	char *colon = strrchr(text, ':');
	size_t len;

	if (!colon)
		return -EINVAL;
	*colon = 0;
	len = strlen(text);
	if (*text == '[' && text[len - 1] == ']') {
		text[len - 1] = 0;
		text++;
	}
	snprintf(w->host, sizeof(w->host), "%s", *text ? text : "127.0.0.1");
	return parse_port(colon + 1, &w->port);
}

static int parse_where(struct where *w, const char *where, struct err *err)
{
	char *text = strdup(where);
	size_t len = strlen(where);
	int rc = 0;

	*w = (struct where){ .host = "127.0.0.1", .wait = gdb_waits(where) };
	if (!text)
		return err_set(err, -ENOMEM, "out of memory");
	if (w->wait)
		text[len - strlen(",wait")] = 0;
	if (!strncmp(text, "unix:", 5) && text[5]) {
		w->path = strdup(text + 5);
		rc = w->path ? 0 : -ENOMEM;
	} else {
		rc = strncmp(text, "tcp:", 4) ? parse_port(text, &w->port) : parse_tcp(text + 4, w);
	}
	free(text);
	return rc ? err_set(err, rc, "gdb: '%s' is none of PORT (1 to 65535), tcp:[ADDRESS]:PORT, "
			    "unix:PATH, with ',wait' behind it or not", where) : 0;
}

int gdb_check_where(const char *where, struct err *err)
{
	struct where w;
	int rc = parse_where(&w, where, err);

	free(w.path);
	return rc;
}

bool gdb_waits(const char *where)
{
	size_t len = strlen(where), wait = strlen(",wait");

	return len > wait && !strcmp(where + len - wait, ",wait");
}

/* --- the client's bytes ------------------------------------------------------------------------ */

static void drop_client(struct gdb *g)
{
	if (g->client_fd < 0)
		return;
	watch_stop(&g->client);
	/* Still attached: what stops until this is done is ours. */
	if (!g->session.over)
		gdb_session_end(&g->session);
	close(g->client_fd);
	g->client_fd = -1;
	log_info("gdb: the debugger is gone");
}

/* False: the client is gone. */
static bool send_bytes(struct gdb *g, const char *data, size_t len, size_t *sent)
{
	ssize_t n = send(g->client_fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		drop_client(g);
		return false;
	}
	*sent = MAX(n, 0);
	return true;
}

/* True: all is out. */
static bool flush_reply(struct gdb *g)
{
	const struct gdb_reply *r = &g->session.reply;
	size_t n;

	while (g->has_reply) {
		if (!send_bytes(g, r->data + g->sent, r->len - g->sent, &n))
			return false;
		g->sent += n;
		if (!n)
			return false;
		g->has_reply = g->sent < r->len;
	}
	return true;
}

static void reply(struct gdb *g)
{
	g->sent = 0;
	g->has_reply = true;
}

static void acknowledge(struct gdb *g, const char *sign)
{
	size_t n;

	if (!g->session.no_ack)
		(void)!send_bytes(g, sign, 1, &n);
}

static void obey(struct gdb *g, enum gdb_event e)
{
	struct gdb_session *s = &g->session;

	switch (e) {
	case GDB_PACKET:
		acknowledge(g, "+");
		if (g->client_fd >= 0 && gdb_session_command(s, g->parser.data, g->parser.len))
			reply(g);
		break;
	case GDB_DAMAGED:
		acknowledge(g, "-");
		break;
	case GDB_INTERRUPT:
		if (gdb_session_interrupt(s))
			reply(g);
		break;
	case GDB_NAK:
		if (!s->no_ack && s->reply.len && !s->running)
			reply(g);
		break;
	case GDB_ACK:
	case GDB_MORE:
		break;
	}
}

/* A client that does not read its replies is not listened to. */
static void watch_client(struct gdb *g)
{
	if (g->client_fd < 0)
		return;
	watch_stop(&g->client);
	if (watch_start(&g->client, g->loop, g->client_fd, g->has_reply ? EPOLLOUT : EPOLLIN))
		drop_client(g);
}

static void serve(struct gdb *g)
{
	while (g->client_fd >= 0 && flush_reply(g)) {
		const u8 *from = g->in + g->in_at;

		if (g->session.over) {
			drop_client(g);
			break;
		}
		if (g->in_at == g->in_len)
			break;
		obey(g, gdb_parse(&g->parser, &from, g->in + g->in_len));
		g->in_at = from - g->in;
	}
	watch_client(g);
}

static void client_ready(struct watch *w, u32 events)
{
	struct gdb *g = container_of(w, struct gdb, client);
	ssize_t n;

	if (!g->has_reply && g->in_at == g->in_len) {
		n = recv(g->client_fd, g->in, sizeof(g->in), MSG_DONTWAIT);
		if (!n || (n < 0 && errno != EAGAIN && errno != EINTR)) {
			drop_client(g);
			return;
		}
		g->in_at = 0;
		g->in_len = MAX(n, 0);
	} else if (events & (EPOLLHUP | EPOLLERR)) {
		drop_client(g);
		return;
	}
	serve(g);
}

static void admit(struct gdb *g, int fd)
{
	int idle = KEEPALIVE_IDLE_S, step = KEEPALIVE_STEP_S, tries = KEEPALIVE_TRIES, yes = 1;
	struct pollfd p = { .fd = fd, .events = POLLRDHUP };

	/* One who has gone while he waited keeps nobody out, whatever he has said before. */
	if (poll(&p, 1, 0) > 0) {
		close(fd);
		return;
	}
	if (g->client_fd >= 0) {
		log_warn("gdb: there is a debugger already; another one was turned away");
		close(fd);
		return;
	}
	if (g->is_tcp) {
		(void)!setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
		(void)!setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof(yes));
		(void)!setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
		(void)!setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &step, sizeof(step));
		(void)!setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &tries, sizeof(tries));
	}
	g->client_fd = fd;
	g->has_reply = false;
	g->in_at = g->in_len = 0;
	g->parser.state = GDB_OUTSIDE;
	g->session = (struct gdb_session){ .ops = g->session.ops, .arg = g->session.arg };
	gdb_session_begin(&g->session);
	log_info("gdb: a debugger is here; the VM waits for it");
	watch_client(g);
}

/* By the edge: who comes while no more files may be open waits for the next one, and we do not. */
static void accept_clients(struct watch *w, u32 events)
{
	struct gdb *g = container_of(w, struct gdb, listener);
	int fd;

	(void)events;
	while ((fd = accept4(g->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0 ||
	       errno == EINTR || errno == ECONNABORTED)
		if (fd >= 0)
			admit(g, fd);
}

/* --- from outside ------------------------------------------------------------------------------ */

bool gdb_attached(const struct gdb *g)
{
	return g->client_fd >= 0;
}

void gdb_hide(struct gdb *g, bool hide)
{
	gdb_session_hide(&g->session, hide);
}

bool gdb_stopped(struct gdb *g, unsigned cpu, const struct cpu_stop *stop)
{
	bool has_reply, ours;

	if (g->client_fd < 0)
		return false;
	ours = gdb_session_stopped(&g->session, cpu, stop, &has_reply);
	if (has_reply) {
		reply(g);
		serve(g);
	}
	return ours;
}

const struct cpu_point *gdb_rebooted(struct gdb *g)
{
	for (unsigned i = 0; i < g->session.nr_breakpoints; i++)
		g->session.breakpoint[i].planted = false;
	memset(g->session.pending, 0, sizeof(g->session.pending));
	return g->session.point;
}

void gdb_ended(struct gdb *g, int status)
{
	if (g->client_fd < 0)
		return;
	if (gdb_session_ended(&g->session, status))
		reply(g);
	flush_reply(g);
	drop_client(g);
}

int gdb_new(struct gdb **out, const char *where, struct loop *loop, const struct gdb_ops *ops,
	    void *arg, struct err *err)
{
	struct gdb *g = calloc(1, sizeof(*g));
	struct where w;
	int rc;

	if (!g)
		return err_set(err, -ENOMEM, "out of memory");
	g->loop = loop;
	g->session = (struct gdb_session){ .ops = ops, .arg = arg };
	g->client_fd = g->listen_fd = -1;
	g->listener.ready = accept_clients;
	g->client.ready = client_ready;
	rc = parse_where(&w, where, err);
	if (!rc)
		rc = w.path ? socket_listen(w.path, &g->listen_fd, err) :
			      socket_listen_tcp(w.host, w.port, &g->listen_fd, err);
	g->is_tcp = !w.path;
	if (!rc && w.path)
		socket_file_note(&g->file, w.path);
	free(w.path);
	if (rc) {
		gdb_free(g);
		return err_prefix(err, "gdb: ");
	}
	*out = g;
	return 0;
}

int gdb_serve(struct gdb *g, struct err *err)
{
	int rc = g->listener.loop ? 0 : watch_start(&g->listener, g->loop, g->listen_fd, EPOLLIN | EPOLLET);

	return rc ? err_set(err, rc, "gdb: %s", strerror(-rc)) : 0;
}

void gdb_free(struct gdb *g)
{
	if (!g)
		return;
	watch_stop(&g->listener);
	watch_stop(&g->client);
	socket_file_remove(&g->file);
	if (g->client_fd >= 0)
		close(g->client_fd);
	if (g->listen_fd >= 0)
		close(g->listen_fd);
	free(g);
}
