/* fd.c: a descriptor that somebody else opened as the far end of a network card. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "devices/net/net.h"
#include "devices/net/packet.h"
#include "devices/net/stream.h"
#include "vmm/core/log.h"

static void stream_ended(struct stream *s, const char *why)
{
	log_warn("net: fd=%d: the other end: %s", s->fd, why);
}

static void stream_release(struct stream *s)
{
	free(s);
}

static int open_stream(struct net **out, int fd, struct err *err)
{
	struct stream *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return err_set(err, -ENOMEM, "net: out of memory");
	s->ended = stream_ended;
	s->release = stream_release;
	rc = stream_init(s, fd, err);
	if (rc)
		free(s);
	else
		*out = &s->net;
	return rc;
}

/* Whether IFF_NO_PI was given does not show: the bit is another one's here. */
static int open_tap(struct net **out, int fd, unsigned flags, struct err *err)
{
	if (!(flags & IFF_TAP))
		return err_set(err, -EINVAL, "net: fd=%d: a tun, which has no Ethernet frames; give a tap",
			       fd);
	return flags & IFF_VNET_HDR ? net_open_tap_fd(out, fd, err) : packet_new(out, fd, err);
}

static int open_socket(struct net **out, int fd, int type, struct err *err)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);

	if (getpeername(fd, (struct sockaddr *)&peer, &len))
		return err_set(err, -ENOTCONN, "net: fd=%d: a socket that is not connected; connect it "
			       "first", fd);
	if (type == SOCK_STREAM)
		return open_stream(out, fd, err);
	if (type == SOCK_DGRAM)
		return packet_new(out, fd, err);
	return err_set(err, -EINVAL, "net: fd=%d: a socket of an unknown type; stream and datagram are "
		       "known", fd);
}

int net_open_fd(struct net **out, int fd, struct err *err)
{
	int type, flags = fcntl(fd, F_GETFD);
	socklen_t len = sizeof(type);
	struct ifreq ifr;
	bool tap;
	int rc;

	/* What has the flag was not inherited: it is one of our own. */
	if (flags < 0 || flags & FD_CLOEXEC)
		return err_set(err, -EBADF, "net: fd=%d: no such descriptor was given to vmm; as from a "
			       "shell by %d<>FILE", fd, fd);
	tap = !ioctl(fd, TUNGETIFF, &ifr);
	if (!tap && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len))
		return err_set(err, -EINVAL, "net: fd=%d: neither a tap nor a socket", fd);
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || (flags & O_ACCMODE) != O_RDWR || fcntl(fd, F_SETFL, flags | O_NONBLOCK))
		return err_set(err, -EACCES, "net: fd=%d: open it for reading and writing", fd);
	rc = tap ? open_tap(out, fd, (unsigned short)ifr.ifr_flags, err) :
		   open_socket(out, fd, type, err);
	if (!rc)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
	return rc;
}
