/* client.c: a request to the API of a VM: HTTP/1.1, one a connection. */
#include "vmm/client.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include "vmm/core/loop.h"
#include "vmm/core/socket.h"

enum { ANSWER_MAX = 16 << 20 };

static int open_connection(const char *path, unsigned patience_s, int *fd, struct err *err)
{
	struct timeval patience = { .tv_sec = patience_s };
	u64 end = now_ns() + patience_s * 1000000000ULL;
	int rc;

	do	/* others queue there */
		rc = socket_connect(path, fd, err);
	while (rc == -EAGAIN && now_ns() < end && !poll(NULL, 0, 1));
	if (rc)
		return rc;
	fcntl(*fd, F_SETFL, 0);
	setsockopt(*fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(*fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	return 0;
}

static int send_all(int fd, const char *text, size_t len)
{
	while (len) {
		ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text += n;
		len -= n;
	}
	return 0;
}

static int receive_all(int fd, char **text)
{
	size_t len = 0, room = 4096;
	char *more;
	ssize_t n;

	*text = malloc(room);
	while (*text) {
		n = recv(fd, *text + len, room - len - 1, 0);
		if (n < 0 && errno == EINTR)
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

int client_call(const char *socket, const char *method, const char *path, const char *body,
		unsigned patience_s, json_t **answer, struct err *err)
{
	char *request = NULL, *text = NULL;
	int fd, len, rc = open_connection(socket, patience_s, &fd, err);

	*answer = NULL;
	if (rc)
		return rc;
	len = asprintf(&request, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
		       "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", method, path,
		       body ? strlen(body) : 0, body ?: "");
	rc = len < 0 ? -ENOMEM : send_all(fd, request, len);
	if (!rc)
		rc = receive_all(fd, &text);
	if (rc)
		err_set(err, rc, "%s: %s", socket, rc == -EAGAIN ? "no answer" : strerror(-rc));
	else
		rc = read_answer(socket, text, answer, err);
	free(request);
	free(text);
	close(fd);
	return rc;
}
