/* client.c: a request to the API of a VM: HTTP/1.1, one a connection. */
#include "vmm/client.h"
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "vmm/core/loop.h"
#include "vmm/core/socket.h"
#include "vmm/registry.h"

enum { ANSWER_MAX = 16 << 20, ASKED_AT_ONCE = 250 };	/* a descriptor each */

static int failed(const char *socket, int rc, struct err *err)
{
	return err_set(err, rc, "%s: %s", socket, rc == -EAGAIN ? "no answer" : strerror(-rc));
}

static int open_connection(const char *path, u64 end_ns, int *fd, struct err *err)
{
	int rc;

	do	/* others queue there */
		rc = socket_connect(path, fd, err);
	while (rc == -EAGAIN && now_ns() < end_ns && !poll(NULL, 0, 1));
	if (rc == -EAGAIN)
		failed(path, rc, err);
	else if (rc == -ECONNREFUSED || rc == -ENOENT)
		err_set(err, rc, "%s: no VM listens there: %s; 'vmm ps' lists those that run", path, strerror(-rc));
	return rc;
}

/* The socket of a VM may have been removed, and another's be there now. */
static int check_owner(int fd, const char *path, pid_t owner, struct err *err)
{
	struct ucred peer = { 0 };
	socklen_t len = sizeof(peer);

	if (!owner || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) || !peer.pid || peer.pid == owner)
		return 0;
	return err_set(err, -ESRCH, "%s: process %d listens there, and not the VM's, %d", path, (int)peer.pid,
		       (int)owner);
}

/* -EAGAIN: not until then. */
static int wait_for(int fd, short events, u64 end_ns)
{
	struct pollfd p = { .fd = fd, .events = events };
	u64 now = now_ns();

	return poll(&p, 1, now < end_ns ? (end_ns - now) / 1000000 + 1 : 0) ? 0 : -EAGAIN;
}

static int send_all(int fd, const char *text, size_t len, u64 end_ns)
{
	int rc = 0;

	while (len && !rc) {
		ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

		if (n >= 0) {
			text += n;
			len -= n;
		} else if (errno != EINTR) {
			rc = errno == EAGAIN ? wait_for(fd, POLLOUT, end_ns) : -errno;
		}
	}
	return rc;
}

static int receive_all(int fd, char **text, u64 end_ns)
{
	size_t len = 0, room = 4096;
	char *more;
	ssize_t n;

	*text = malloc(room);
	while (*text) {
		if (wait_for(fd, POLLIN, end_ns))
			return -EAGAIN;
		n = recv(fd, *text + len, room - len - 1, 0);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n < 0)
			return -errno;
		len += n;
		(*text)[len] = 0;
		if (!n)
			return 0;
		if (len + 1 < room)
			continue;
		room *= 2;
		more = room > ANSWER_MAX ? NULL : realloc(*text, room);
		if (!more)
			break;
		*text = more;
	}
	return -ENOMEM;
}

/* Of the lines before the body. */
static bool is_text(const char *head, const char *body)
{
	const char *type = strcasestr(head, "\r\nContent-Type: text/plain");

	return type && type < body;
}

/* The answer says how it ends by closing: it was asked to. */
static int read_answer(const char *socket, const char *text, json_t **answer, struct err *err)
{
	const char *body = strstr(text, "\r\n\r\n"), *fault;
	json_error_t why = { .text = "its text is not in UTF-8" };
	int status, rc;

	if (!*text)
		return err_set(err, -ECONNRESET, "%s: it ended the connection without an answer; what was "
			       "asked for may have been done", socket);
	if (sscanf(text, "HTTP/1.1 %3d", &status) != 1 || !body)
		return err_set(err, -EPROTO, "%s: what answers there is not a VM's API", socket);
	body += 4;
	*answer = is_text(text, body) ? json_string(body) : *body ? json_loads(body, 0, &why) : NULL;
	if (*body && !*answer)
		return err_set(err, -EPROTO, "%s: what answers there is not a VM's API: %s", socket,
			       why.text);
	if (status < 300)
		return 0;
	fault = json_string_value(json_object_get(*answer, "fault_message"));
	rc = err_set(err, status < 500 ? -EREMOTEIO : -EIO, "%s",
		     fault ?: "refused, without saying why");
	json_decref(*answer);
	*answer = NULL;
	return rc;
}

/* *fd is the connection, on which the answer comes. */
static int send_request(const char *socket, pid_t owner, const char *method, const char *path, const char *body,
			u64 end_ns, int *fd, struct err *err)
{
	char *text;
	int len, rc = open_connection(socket, end_ns, fd, err);

	if (rc)
		return rc;
	rc = check_owner(*fd, socket, owner, err);
	if (!rc) {
		len = asprintf(&text, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
			       "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", method,
			       path, body ? strlen(body) : 0, body ?: "");
		rc = len < 0 ? -ENOMEM : send_all(*fd, text, len, end_ns);
		if (rc)
			failed(socket, rc, err);
		if (len >= 0)
			free(text);
	}
	if (rc)
		close(*fd);
	return rc;
}

/* Closes fd. */
static int receive_answer(const char *socket, int fd, u64 end_ns, json_t **answer, struct err *err)
{
	char *text = NULL;
	int rc = receive_all(fd, &text, end_ns);

	rc = rc ? failed(socket, rc, err) : read_answer(socket, text, answer, err);
	free(text);
	close(fd);
	return rc;
}

int client_call(const char *socket, pid_t owner, const char *method, const char *path,
		const char *body, unsigned patience_s, json_t **answer, struct err *err)
{
	u64 end_ns = now_ns() + patience_s * 1000000000ULL;
	char how_long[16];
	int fd, rc = send_request(socket, owner, method, path, body, end_ns, &fd, err);

	*answer = NULL;
	if (!rc)
		rc = receive_answer(socket, fd, end_ns, answer, err);
	snprintf(how_long, sizeof(how_long), " in %u s", patience_s);
	if (rc == -EAGAIN)
		err_suffix(err, how_long);
	return rc;
}

/* --- many at once ------------------------------------------------------------------------------ */

/* Of one whose queue of connections is full nobody waits for the end before all are asked. */
static void ask_some(const struct registered *vm, unsigned nr, const char *path, u64 end_ns, json_t *all)
{
	int fd[ASKED_AT_ONCE], rc[ASKED_AT_ONCE];

	for (unsigned i = 0; i < nr; i++)
		rc[i] = send_request(vm[i].socket, vm[i].pid, "GET", path, NULL, 0, &fd[i], NULL);
	for (unsigned i = 0; i < nr; i++) {
		json_t *answer = NULL;

		if (rc[i] == -EAGAIN || rc[i] == -EMFILE || rc[i] == -ENFILE)
			rc[i] = send_request(vm[i].socket, vm[i].pid, "GET", path, NULL, end_ns, &fd[i], NULL);
		if (!rc[i])
			rc[i] = receive_answer(vm[i].socket, fd[i], end_ns, &answer, NULL);
		json_array_append_new(all, !rc[i] && answer ? answer :
			json_pack("{s:s, s:i, s:s}", "name", vm[i].name, "pid", (int)vm[i].pid, "state",
				  "unknown"));
	}
}

json_t *client_ask_all(const struct registered *vm, unsigned nr, const char *path, unsigned patience_s)
{
	json_t *all = json_array();

	for (unsigned i = 0; i < nr; i += ASKED_AT_ONCE)
		ask_some(vm + i, MIN(nr - i, (unsigned)ASKED_AT_ONCE), path,
			 now_ns() + patience_s * 1000000000ULL, all);
	return all;
}
