/* station.c: what stands between a card and its far end, and takes some frames out. */
#include "devices/net/station.h"
#include <errno.h>
#include <linux/virtio_net.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "devices/net/frame.h"

/* One pair's. */
struct junction {
	struct net net;
	struct net_ops ops;		/* without what the far end does not have */
	struct net *far;
	struct station *station;
	struct loop *loop;		/* NULL while stopped */
	struct loop_hook hook;
	struct timer late;
	bool want_rx;
	bool attached;			/* answers come to this one, as the far end's frames do; atomic */
	u8 in[NET_FRAME_MAX];
};

/* A driver may send frames of one connection by any pair, each of which has a thread. */
struct station {
	pthread_mutex_t lock;
	struct responder *responder;
	unsigned nr_open;
};

static struct junction *of(struct net *n)
{
	return container_of(n, struct junction, net);
}

/* --- from the guest ---------------------------------------------------------------------------- */

/* The frame's first bytes, wherever the driver has cut it. */
static size_t peek(const struct iovec *iov, int nr, u8 head[RESPONDER_HEAD])
{
	size_t skip = NET_HDR_LEN, done = 0;

	for (int i = 0; i < nr && done < RESPONDER_HEAD; i++) {
		size_t past = MIN(skip, iov[i].iov_len);
		size_t n = MIN(iov[i].iov_len - past, RESPONDER_HEAD - done);

		memcpy(head + done, (const u8 *)iov[i].iov_base + past, n);
		skip -= past;
		done += n;
	}
	return done;
}

static void wait_for_late(struct junction *j)
{
	u64 due, now = now_ns();

	pthread_mutex_lock(&j->station->lock);
	due = responder_due(j->station->responder);
	pthread_mutex_unlock(&j->station->lock);
	if (due)
		timer_start(&j->late, j->loop, due > now ? due - now : 0);
	else
		timer_stop(&j->late);
}

static int send_frame(struct net *n, const struct iovec *iov, int nr)
{
	struct junction *j = of(n);
	const u8 *frame = j->in + NET_HDR_LEN;
	struct virtio_net_hdr_v1 hdr;
	u8 head[RESPONDER_HEAD];
	ssize_t len;

	if (!responder_takes(j->station->responder, head, peek(iov, nr, head)))
		return j->far->ops->send(j->far, iov, nr);
	len = frame_copy(iov, nr, j->in, &hdr);
	if (len < 0)
		return len;
	/* The driver may have written another frame there since; this one cannot go elsewhere. */
	if (!responder_takes(j->station->responder, frame, len))
		return -EPROTO;
	pthread_mutex_lock(&j->station->lock);
	/* What segmentation is left for has a checksum to come, too. */
	responder_input(j->station->responder, frame, len, hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM,
			now_ns());
	pthread_mutex_unlock(&j->station->lock);
	wait_for_late(j);
	return 0;
}

/* --- to the guest -------------------------------------------------------------------------------- */

static bool has_answer(struct junction *j)
{
	bool has;

	if (!__atomic_load_n(&j->attached, __ATOMIC_RELAXED))
		return false;
	pthread_mutex_lock(&j->station->lock);
	has = responder_has_output(j->station->responder);
	pthread_mutex_unlock(&j->station->lock);
	return has;
}

static ssize_t recv_frame(struct net *n, const struct iovec *iov, int nr)
{
	struct junction *j = of(n);
	u8 frame[RESPONDER_FRAME_MAX];
	size_t len = 0;

	if (__atomic_load_n(&j->attached, __ATOMIC_RELAXED)) {
		pthread_mutex_lock(&j->station->lock);
		len = responder_output(j->station->responder, frame, now_ns());
		pthread_mutex_unlock(&j->station->lock);
	}
	if (!len)
		return j->far->ops->recv(j->far, iov, nr);
	wait_for_late(j);
	return frame_give(iov, nr, 0, frame, len);
}

/* No descriptor tells of an answer. */
static bool before_sleep(struct loop_hook *h)
{
	struct junction *j = container_of(h, struct junction, hook);

	if (j->want_rx && has_answer(j))
		j->net.readable(&j->net);
	return j->loop && j->want_rx && has_answer(j);
}

static void late(struct timer *timer)
{
	struct junction *j = container_of(timer, struct junction, late);

	pthread_mutex_lock(&j->station->lock);
	responder_late(j->station->responder, now_ns());
	pthread_mutex_unlock(&j->station->lock);
	wait_for_late(j);
}

static void readable(struct net *far)
{
	struct junction *j = far->card;

	j->net.readable(&j->net);
}

static void writable(struct net *far)
{
	struct junction *j = far->card;

	j->net.writable(&j->net);
}

static void lost(struct net *far)
{
	struct junction *j = far->card;

	j->net.lost(&j->net);
}

/* --- what is passed on ---------------------------------------------------------------------------- */

static int start(struct net *n, struct loop *loop)
{
	struct junction *j = of(n);
	int rc;

	j->far->card = j;
	j->far->readable = readable;
	j->far->writable = writable;
	j->far->lost = lost;
	rc = j->far->ops->start(j->far, loop);
	if (rc)
		return rc;
	j->loop = loop;
	j->want_rx = false;
	j->hook.before_sleep = before_sleep;
	j->late.fire = late;
	loop_add_hook(loop, &j->hook);
	pthread_mutex_lock(&j->station->lock);
	responder_goes_on(j->station->responder, now_ns());
	pthread_mutex_unlock(&j->station->lock);
	wait_for_late(j);
	return 0;
}

static void stop(struct net *n)
{
	struct junction *j = of(n);

	if (j->loop) {
		loop_remove_hook(j->loop, &j->hook);
		timer_stop(&j->late);
	}
	j->loop = NULL;
	j->want_rx = false;
	j->far->ops->stop(j->far);
}

static void want(struct net *n, bool rx, bool tx)
{
	of(n)->want_rx = rx;
	of(n)->far->ops->want(of(n)->far, rx, tx);
}

static int set_offload(struct net *n, u64 features)
{
	return of(n)->far->ops->set_offload(of(n)->far, features);
}

static int attach(struct net *n, bool on)
{
	struct junction *j = of(n);
	int rc = j->far->ops->attach(j->far, on);

	if (!rc)
		__atomic_store_n(&j->attached, on, __ATOMIC_RELAXED);
	return rc;
}

static void set_link(struct net *n, bool up)
{
	of(n)->far->ops->set_link(of(n)->far, up);
}

static int set_rss(struct net *n, const struct net_rss *rss)
{
	return of(n)->far->ops->set_rss(of(n)->far, rss);
}

static void set_filter(struct net *n, const struct net_filter *filter)
{
	of(n)->far->ops->set_filter(of(n)->far, filter);
}

/* --- its life ---------------------------------------------------------------------------------------- */

static void station_free(struct station *s)
{
	pthread_mutex_destroy(&s->lock);
	responder_free(s->responder);
	free(s);
}

static void close_net(struct net *n)
{
	struct junction *j = of(n);

	net_close(j->far);
	if (!--j->station->nr_open)
		station_free(j->station);
	free(j);
}

static struct junction *new_junction(struct station *s, struct net *far)
{
	struct junction *j = calloc(1, sizeof(*j));

	if (!j)
		return NULL;
	j->ops = (struct net_ops){
		.kind = far->ops->kind, .send = send_frame, .recv = recv_frame, .start = start,
		.stop = stop, .want = want, .set_offload = set_offload,
		.attach = far->ops->attach ? attach : NULL,
		.set_link = far->ops->set_link ? set_link : NULL,
		.set_rss = far->ops->set_rss ? set_rss : NULL,
		.set_filter = far->ops->set_filter ? set_filter : NULL,
		.close = close_net,
	};
	j->net.ops = &j->ops;
	j->net.offload = far->offload;
	j->net.mtu = far->mtu;
	j->net.child = far->child;
	j->net.calls_again = far->calls_again;
	memcpy(j->net.host_mac, far->host_mac, sizeof(j->net.host_mac));
	j->far = far;
	j->station = s;
	j->attached = true;
	return j;
}

int station_new(struct station **out, struct net *queue[], unsigned nr,
		const struct responder_options *o, struct err *err)
{
	struct station *s = calloc(1, sizeof(*s));
	struct junction *j;

	if (!s)
		return err_set(err, -ENOMEM, "out of memory");
	pthread_mutex_init(&s->lock, NULL);
	if (responder_new(&s->responder, o, err)) {
		station_free(s);
		return err->code;
	}
	for (; s->nr_open < nr; s->nr_open++) {
		j = new_junction(s, queue[s->nr_open]);
		if (!j)
			break;
		queue[s->nr_open] = &j->net;
	}
	if (s->nr_open == nr) {
		*out = s;
		return 0;
	}
	for (unsigned i = 0; i < s->nr_open; i++) {
		j = of(queue[i]);
		queue[i] = j->far;
		free(j);
	}
	station_free(s);
	return err_set(err, -ENOMEM, "out of memory");
}

void station_restart(struct station *s)
{
	responder_reset(s->responder);
	*responder_counters(s->responder) = (struct responder_counters){ 0 };
}

const struct responder_counters *station_counters(struct station *s)
{
	return responder_counters(s->responder);
}
