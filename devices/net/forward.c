/* forward.c: the text of a published port, and why one cannot be had. */
#include "devices/net/forward.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* "[ADDRESS]:PORT".  The error, if any, is about what is not like that. */
static int parse_end(const char *text, struct in_addr *addr, u16 *port, struct err *err)
{
	const char *colon = strrchr(text, ':');
	char host[INET_ADDRSTRLEN], *end;
	unsigned long n;

	if (!colon)
		return err_set(err, -EINVAL, "'%s' has no ':' before the port", text);
	snprintf(host, sizeof(host), "%.*s", (int)(colon - text), text);
	addr->s_addr = 0;
	if (colon > text && ((size_t)(colon - text) >= sizeof(host) ||
			     inet_pton(AF_INET, host, addr) != 1))
		return err_set(err, -EINVAL, "'%.*s' is not an IPv4 address", (int)(colon - text), text);
	errno = 0;
	n = strtoul(colon + 1, &end, 10);
	if (!isdigit((unsigned char)colon[1]) || *end || errno || !n || n > 65535)
		return err_set(err, -EINVAL, "port '%s' is not a number from 1 to 65535", colon + 1);
	*port = n;
	return 0;
}

int forward_parse(struct net_forward *f, const char *text, struct err *err)
{
	char host[64];
	const char *colon = strchr(text, ':'), *dash = strchr(text, '-');
	int rc;

	*f = (struct net_forward){ 0 };
	if (!colon || !dash || dash < colon || (size_t)(dash - colon) > sizeof(host))
		return err_set(err, -EINVAL, "hostfwd '%s' is not like tcp:127.0.0.1:8080-:80", text);
	f->udp = !strncmp(text, "udp:", 4);
	if (!f->udp && strncmp(text, "tcp:", 4) && colon != text)
		return err_set(err, -EINVAL, "hostfwd '%s': '%.*s' is neither tcp nor udp", text,
			       (int)(colon - text), text);
	snprintf(host, sizeof(host), "%.*s", (int)(dash - colon - 1), colon + 1);
	rc = parse_end(host, &f->host, &f->host_port, err);
	if (!rc)
		rc = parse_end(dash + 1, &f->guest, &f->guest_port, err);
	return rc ? err_prefix(err, "hostfwd '%s': ", text), rc : 0;
}

int forward_failed(const struct net_forward *f, int code, struct err *err)
{
	char host[INET_ADDRSTRLEN] = "";
	const char *why = strerror(-code);

	if (f->host.s_addr)
		inet_ntop(AF_INET, &f->host, host, sizeof(host));
	switch (code) {
	case -EADDRINUSE:
		why = "in use by another program; choose another port";
		break;
	case -EACCES:
		why = "not permitted; choose a port of 1024 or more, or be root";
		break;
	case -EADDRNOTAVAIL:
		why = "this host does not have that address; 'ip addr' shows what it has";
		break;
	}
	return err_set(err, code, "net: hostfwd %s:%s:%u: %s", f->udp ? "udp" : "tcp", host,
		       f->host_port, why);
}

int forward_probe(const struct net_forward *f, struct err *err)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr = f->host,
				    .sin_port = htons(f->host_port) };
	int fd = socket(AF_INET, (f->udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
	int one = 1, rc = 0;

	if (fd < 0)
		return forward_failed(f, -errno, err);
	/* Else a port whose last connections are only just gone would seem in use. */
	if (!f->udp)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || (!f->udp && listen(fd, 1)))
		rc = -errno;
	close(fd);
	return rc ? forward_failed(f, rc, err) : 0;
}
