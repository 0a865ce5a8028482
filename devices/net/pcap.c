/* pcap.c: see pcap.h. */
#include "devices/net/pcap.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_net.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "devices/net/frame.h"
#include "vmm/core/log.h"

enum { ETHERNET = 1, SNAP_LEN = 262144 };
#define MAGIC_NS	0xa1b23c4dU	/* in the writer's byte order; with nanoseconds */

struct head {
	u32 magic;
	u16 major, minor;
	u32 zone, accuracy, snap_len, link_type;
};

struct record {
	u32 seconds, ns, captured, len;
	u8 data[NET_FRAME_MAX];
};

struct pcap {
	int fd;
	pthread_mutex_t lock;
	bool full;
	char *path;
	struct record record;
};

static int open_file(const char *path, struct err *err)
{
	struct head head = { MAGIC_NS, 2, 4, 0, 0, SNAP_LEN, ETHERNET };
	/* Non-blocking, or a FIFO given by mistake would hang here for ever. */
	int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK;
	int fd = open(path, flags | O_EXCL, 0600);
	bool made = fd >= 0;
	struct stat st;
	ssize_t n;

	if (!made && errno == EEXIST)
		fd = open(path, flags, 0600);

	if (fd < 0)
		return err_set(err, -errno, "dump %s: %s", path, strerror(errno));
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		close(fd);
		return err_set(err, -EINVAL, "dump %s: not a regular file", path);
	}
	n = ftruncate(fd, 0) ? -1 : write(fd, &head, sizeof(head));
	if (n == sizeof(head))
		return fd;
	err_set(err, n < 0 ? -errno : -ENOSPC, "dump %s: %s", path,
		strerror(n < 0 ? errno : ENOSPC));
	if (made)
		unlink(path);
	close(fd);
	return err->code;
}

int pcap_open(struct pcap **out, const char *path, struct err *err)
{
	struct pcap *p = calloc(1, sizeof(*p));
	char *copy = strdup(path);
	int fd = p && copy ? open_file(path, err) : err_set(err, -ENOMEM, "out of memory");

	if (fd < 0) {
		free(p);
		free(copy);
		return fd;
	}
	pthread_mutex_init(&p->lock, NULL);
	p->fd = fd;
	p->path = copy;
	*out = p;
	return 0;
}

void pcap_close(struct pcap *p)
{
	if (!p)
		return;
	close(p->fd);
	pthread_mutex_destroy(&p->lock);
	free(p->path);
	free(p);
}

static void write_record(struct pcap *p, size_t len)
{
	size_t whole = offsetof(struct record, data) + len;
	off_t end = lseek(p->fd, 0, SEEK_END);
	ssize_t n = write(p->fd, &p->record, whole);

	if (n == (ssize_t)whole)
		return;
	log_warn("dump %s: %s; it ends here", p->path, n < 0 ? strerror(errno) : "no space");
	p->full = true;
	(void)!ftruncate(p->fd, end);
}

void pcap_frame(struct pcap *p, const struct iovec *iov, int nr, size_t len)
{
	struct virtio_net_hdr_v1 hdr;
	struct timespec now;
	size_t done = 0;

	BUG_ON(len < NET_HDR_LEN);
	pthread_mutex_lock(&p->lock);
	if (p->full || len > sizeof(p->record.data)) {
		pthread_mutex_unlock(&p->lock);
		return;
	}
	for (int i = 0; i < nr && done < len; i++) {
		size_t k = MIN(iov[i].iov_len, len - done);

		memcpy(p->record.data + done, iov[i].iov_base, k);
		done += k;
	}
	memcpy(&hdr, p->record.data, NET_HDR_LEN);
	len = done - NET_HDR_LEN;
	memmove(p->record.data, p->record.data + NET_HDR_LEN, len);
	/* Nonsense is shown as it is. */
	(void)!frame_sum(&hdr, p->record.data, len);
	clock_gettime(CLOCK_REALTIME, &now);
	p->record.seconds = now.tv_sec;
	p->record.ns = now.tv_nsec;
	p->record.captured = p->record.len = len;
	write_record(p, len);
	pthread_mutex_unlock(&p->lock);
}
