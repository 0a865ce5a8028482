/* user.c: a network that needs no privileges: NAT in this process, by libslirp. */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>
#include <slirp/libslirp.h>
#include "devices/net/forward.h"
#include "devices/net/frame.h"
#include "vmm/core/limit.h"
#include "vmm/core/log.h"

#define MS	1000000ULL			/* in ns */

enum {
	FDS = 16384,		/* a guest's connections are one each; they may be half of all */
	BUSY = 256 * KIB,	/* frames that wait for the guest: read no more from sockets */
	FULL = 4 * MIB,		/* nor take what comes unasked */
	HOSTNAME_MAX = 32,
	NO_HURRY = 1000,	/* ms: what libslirp says when it waits for nothing */
	LOOK_AGAIN = 500,	/* ms: whether there may be more connections by now */
	KEPT = 240,		/* s: so long libslirp keeps a socket of datagrams that nobody uses */
	IP4 = 20, IP6 = 40, TCP_FLAGS = 13, SYN = 2, ACK = 16, ECHO6 = 128,
	BOOTP = 67, TFTP = 69,
};

/* Of a datagram that does not become whole libslirp keeps the pieces for 30 s: some 150 MiB, at most. */
static const struct limit_config fragments = {
	.bytes = { .rate = 4 * MIB, .burst = 16 * MIB }, .ops = { .rate = 1000, .burst = 4000 },
};

/* A frame for the guest. */
struct frame {
	struct frame *next;
	size_t len;
	u8 data[];
};

/* Who of the guest sends datagrams: libslirp has a socket for each. */
struct sender {
	u8 version;		/* of IP; 0: nobody */
	u8 port[2], addr[16];
};

/* One of libslirp's sockets. */
struct peer {
	struct watch watch;
	struct user *user;
	u32 wanted, ready;	/* EPOLLIN, ... */
	unsigned round;		/* in which it was last wanted */
	bool is_counted;	/* among sockets */
	bool listens;
	struct sender sender;	/* whose it is */
};

/* Of libslirp, for all cards, and how many there may be: the other descriptors are for whoever
 * asks the VM, or saves it. */
static unsigned sockets, sockets_max;

struct alarm {
	struct timer timer;
	struct user *user;
	struct alarm *next;
	SlirpTimerCb fire;
	void *arg;
	u64 at_ns;
};

struct user {
	struct net net;
	Slirp *slirp;
	struct loop *loop;			/* NULL while stopped */
	struct loop_hook hook;
	struct timer deadline;
	struct alarm *alarms;
	struct peer **peer;			/* by descriptor */
	int nr_peers;
	unsigned round;
	bool look;		/* at what is ready, or due */
	bool changed;		/* libslirp may wait for other things now */
	bool knows_time;
	bool busy, want_rx;
	bool refuses;		/* connections from outside, until some have ended */
	struct sender sender;			/* of the frame that libslirp has now */
	u64 ahead_ns, room_ns;			/* of the clock; when room was made last */
	u64 asked_ns;				/* when the host's name server was last asked for */
	bool no_names;				/* vmm may not know it any more */
	u8 flags;				/* of every header */
	size_t queued;				/* bytes of frames */
	struct frame *first, **last;
	struct log_limit noise;			/* what libslirp says of the guest */
	struct log_limit full;			/* that there may be no more sockets */
	struct limit fragments;
	u8 out[NET_FRAME_MAX];
};

/* --- the library --------------------------------------------------------------------------- */

/* Loaded, not linked: few VMs want it, and every start would pay for it and for GLib. */
static struct {
	__typeof__(&slirp_new) new;
	__typeof__(&slirp_cleanup) cleanup;
	__typeof__(&slirp_input) input;
	__typeof__(&slirp_pollfds_fill) fill;
	__typeof__(&slirp_pollfds_poll) poll;
	__typeof__(&slirp_add_hostfwd) add_hostfwd;
} slirp;

static int no_slirp = -ENOENT;	/* why there is none, or 0 */

/* As GLib's g_log_set_handler has it. */
typedef unsigned (*set_log_handler)(const char *domain, int levels,
				    void (*)(const char *, int, const char *, void *), void *);

/* What it has to say about its guest would otherwise go to stderr, as often as that likes. */
static void library_says(const char *domain, int level, const char *text, void *arg)
{
	(void)domain;
	(void)level;
	(void)arg;
	log_debug("net: libslirp: %s", text);
}

static void load(void)
{
	void *lib = dlopen("libslirp.so.0", RTLD_NOW | RTLD_LOCAL);
	set_log_handler set_handler;

	if (!lib) {
		no_slirp = err_of_library(dlerror());
		return;
	}
	slirp.new = (__typeof__(slirp.new))dlsym(lib, "slirp_new");
	slirp.cleanup = (__typeof__(slirp.cleanup))dlsym(lib, "slirp_cleanup");
	slirp.input = (__typeof__(slirp.input))dlsym(lib, "slirp_input");
	slirp.fill = (__typeof__(slirp.fill))dlsym(lib, "slirp_pollfds_fill");
	slirp.poll = (__typeof__(slirp.poll))dlsym(lib, "slirp_pollfds_poll");
	slirp.add_hostfwd = (__typeof__(slirp.add_hostfwd))dlsym(lib, "slirp_add_hostfwd");
	set_handler = (set_log_handler)dlsym(lib, "g_log_set_handler");
	if (set_handler)
		set_handler("Slirp", -1, library_says, NULL);
	if (slirp.new && slirp.cleanup && slirp.input && slirp.fill && slirp.poll && slirp.add_hostfwd)
		no_slirp = 0;
}

/* --- what it waits for ---------------------------------------------------------------------- */

static void peer_ready(struct watch *w, u32 events)
{
	struct peer *p = container_of(w, struct peer, watch);

	p->ready |= events;
	p->user->look = true;
}

/* libslirp's index of a descriptor is the descriptor.  NULL: out of memory. */
static struct peer *peer_of(struct user *u, int fd)
{
	struct peer **all;

	if (fd >= u->nr_peers) {
		all = reallocarray(u->peer, fd + 1, sizeof(*all));
		if (!all)
			return NULL;
		memset(all + u->nr_peers, 0, (fd + 1 - u->nr_peers) * sizeof(*all));
		u->peer = all;
		u->nr_peers = fd + 1;
	}
	if (!u->peer[fd]) {
		u->peer[fd] = calloc(1, sizeof(**u->peer));
		if (!u->peer[fd])
			return NULL;
		u->peer[fd]->user = u;
		u->peer[fd]->watch.ready = peer_ready;
	}
	return u->peer[fd];
}

/* Its descriptor is about to be closed, and may be another one's next. */
static void forget_peer(int fd, void *arg)
{
	struct user *u = arg;
	struct peer *p = fd >= 0 && fd < u->nr_peers ? u->peer[fd] : NULL;

	if (!p)
		return;
	watch_stop(&p->watch);
	p->wanted = p->ready = 0;
}

static void count_peer(int fd, void *arg)
{
	struct peer *p = fd >= 0 ? peer_of(arg, fd) : NULL;

	if (!p || p->is_counted)
		return;
	p->is_counted = true;
	p->sender = p->user->sender;
	__atomic_add_fetch(&sockets, 1, __ATOMIC_RELAXED);
}

static void drop_peer(int fd, void *arg)
{
	struct user *u = arg;

	forget_peer(fd, u);
	if (fd < 0 || fd >= u->nr_peers || !u->peer[fd])
		return;
	if (u->peer[fd]->is_counted)
		__atomic_sub_fetch(&sockets, 1, __ATOMIC_RELAXED);
	*u->peer[fd] = (struct peer){ .watch.ready = peer_ready, .user = u };
}

static bool is_full(void)
{
	return __atomic_load_n(&sockets, __ATOMIC_RELAXED) >= sockets_max;
}

static bool listens(int fd)
{
	int does = 0;
	socklen_t len = sizeof(does);

	return !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &does, &len) && does;
}

static int want_peer(int fd, int events, void *arg)
{
	struct user *u = arg;
	struct peer *p = peer_of(u, fd);
	u32 wanted = (events & SLIRP_POLL_OUT ? EPOLLOUT : 0);

	if (!p)
		return -1;
	if (!p->round)
		p->listens = listens(fd);
	if (p->listens && is_full())
		u->refuses = true;
	else if (u->queued < BUSY)
		wanted |= (events & SLIRP_POLL_IN ? EPOLLIN : 0) |
			  (events & SLIRP_POLL_PRI ? EPOLLPRI : 0);
	else
		u->busy = true;
	p->round = u->round;
	if (wanted == p->wanted)
		return fd;
	watch_stop(&p->watch);
	p->wanted = wanted && !watch_start(&p->watch, u->loop, fd, wanted) ? wanted : 0;
	return fd;
}

static int take_ready(int fd, void *arg)
{
	struct user *u = arg;
	u32 ready = u->peer[fd]->ready;

	u->peer[fd]->ready = 0;
	return (ready & EPOLLIN ? SLIRP_POLL_IN : 0) | (ready & EPOLLOUT ? SLIRP_POLL_OUT : 0) |
	       (ready & EPOLLPRI ? SLIRP_POLL_PRI : 0) | (ready & EPOLLERR ? SLIRP_POLL_ERR : 0) |
	       (ready & EPOLLHUP ? SLIRP_POLL_HUP : 0);
}

/* Wait for what libslirp wants now. */
static void wait_anew(struct user *u)
{
	u32 timeout = UINT32_MAX;

	u->changed = u->refuses = false;
	u->round++;
	slirp.fill(u->slirp, &timeout, want_peer, u);
	for (int fd = 0; fd < u->nr_peers; fd++)
		if (u->peer[fd] && u->peer[fd]->round != u->round)
			forget_peer(fd, u);
	if (u->refuses)
		timeout = MIN(timeout, (u32)LOOK_AGAIN);
	if (timeout < NO_HURRY)
		timer_start(&u->deadline, u->loop, timeout * MS);
	else
		timer_stop(&u->deadline);
}

static void deadline(struct timer *t)
{
	container_of(t, struct user, deadline)->look = true;
}

/* Once a turn of the loop, after all that was ready, and before it sleeps. */
static bool before_sleep(struct loop_hook *h)
{
	struct user *u = container_of(h, struct user, hook);

	u->knows_time = false;
	if (u->look) {
		u->look = false;
		u->changed = true;
		slirp.poll(u->slirp, 0, take_ready, u);
	}
	if (u->want_rx && u->first)
		u->net.readable(&u->net);
	if (u->changed && u->loop)
		wait_anew(u);
	return u->loop && u->want_rx && u->first;
}

/* --- what it asks of us --------------------------------------------------------------------- */

static ssize_t to_guest(const void *data, size_t len, void *arg)
{
	struct user *u = arg;
	struct frame *f = u->loop && u->queued + len <= FULL ? malloc(sizeof(*f) + len) : NULL;

	/* Lost, as on any wire: TCP sends it again. */
	if (!f)
		return len;
	f->next = NULL;
	f->len = len;
	memcpy(f->data, data, len);
	u->queued += len;
	*u->last = f;
	u->last = &f->next;
	return len;
}

static void guest_error(const char *text, void *arg)
{
	struct user *u = arg;
	u64 missed;

	if (!log_allows(&u->noise, now_ns(), &missed))
		return;
	log_debug("net: libslirp: %s", text);
	if (missed)
		log_debug("net: libslirp: %llu more before this", (unsigned long long)missed);
}

static int64_t clock_ns(void *arg)
{
	const struct user *u = arg;

	return now_ns() + u->ahead_ns;
}

static void alarm_fire(struct timer *t)
{
	struct alarm *a = container_of(t, struct alarm, timer);

	a->at_ns = 0;
	a->user->changed = true;
	a->fire(a->arg);
}

/* Stopped, or to go off at at_ns. */
static void alarm_start(struct alarm *a)
{
	u64 now = now_ns();

	if (a->at_ns && a->user->loop)
		timer_start(&a->timer, a->user->loop, a->at_ns > now ? a->at_ns - now : 0);
}

static void *alarm_new(SlirpTimerCb fire, void *fire_arg, void *arg)
{
	struct user *u = arg;
	struct alarm *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	*a = (struct alarm){ .timer.fire = alarm_fire, .user = u, .next = u->alarms,
			     .fire = fire, .arg = fire_arg };
	u->alarms = a;
	return a;
}

static void alarm_free(void *timer, void *arg)
{
	struct alarm *a = timer;
	struct user *u = arg;

	for (struct alarm **p = &u->alarms; *p; p = &(*p)->next)
		if (*p == a) {
			*p = a->next;
			timer_stop(&a->timer);
			free(a);
			return;
		}
}

static void alarm_set(void *timer, int64_t at_ms, void *arg)
{
	struct alarm *a = timer;

	(void)arg;
	if (!a)
		return;
	a->at_ns = at_ms * MS;
	alarm_start(a);
}

static void look_again(void *arg)
{
	struct user *u = arg;

	u->changed = true;
}

static const SlirpCb callbacks = {
	.send_packet = to_guest, .guest_error = guest_error, .clock_get_ns = clock_ns,
	.timer_new = alarm_new, .timer_free = alarm_free, .timer_mod = alarm_set,
	.register_poll_fd = count_peer, .unregister_poll_fd = drop_peer, .notify = look_again,
};

/* --- what the card asks of us --------------------------------------------------------------- */

static bool is_fragment(const u8 *ip)
{
	return (ip[6] & 0x3f) | ip[7];
}

/* May libslirp open a socket for this frame?  It does for the first of a connection; datagrams are not told apart here,
 * but for those that it answers itself. */
static bool opens(const u8 *frame, size_t len, u16 type)
{
	const u8 *ip = frame + ETHER_HDR_LEN;
	bool six = type == ETHERTYPE_IPV6;
	size_t tcp = ETHER_HDR_LEN + (six ? IP6 : (ip[0] & 15) * 4U);
	u8 protocol = ip[six ? 6 : 9];

	if (type == ETHERTYPE_ARP || len < ETHER_HDR_LEN + (six ? IP6 : IP4))
		return false;
	if (six && protocol == IPPROTO_ICMPV6)
		return len > tcp && frame[tcp] == ECHO6;
	/* In pieces it shows too late. */
	if (!six && is_fragment(ip))
		return true;
	if (protocol == IPPROTO_UDP && !six && len > tcp + 3) {
		u16 port = frame[tcp + 2] << 8 | frame[tcp + 3];

		return port != BOOTP && port != TFTP;
	}
	if (protocol != IPPROTO_TCP)
		return true;
	return len > tcp + TCP_FLAGS && (frame[tcp + TCP_FLAGS] & (SYN | ACK)) == SYN;
}

/* In pieces, nobody's. */
static struct sender sender_of(const u8 *frame, size_t len, u16 type)
{
	const u8 *ip = frame + ETHER_HDR_LEN;
	bool six = type == ETHERTYPE_IPV6;
	size_t udp = ETHER_HDR_LEN + (six ? IP6 : (ip[0] & 15) * 4U);
	struct sender s = { 0 };

	if (type == ETHERTYPE_ARP || len < ETHER_HDR_LEN + (six ? IP6 : IP4) || len < udp + 2 ||
	    ip[six ? 6 : 9] != IPPROTO_UDP || (!six && is_fragment(ip)))
		return s;
	s.version = six ? 6 : 4;
	memcpy(s.port, frame + udp, 2);
	memcpy(s.addr, ip + (six ? 8 : 12), six ? 16 : 4);
	return s;
}

static bool is_known(const struct user *u, const struct sender *s)
{
	for (int fd = 0; fd < u->nr_peers && s->version; fd++)
		if (u->peer[fd] && !memcmp(&u->peer[fd]->sender, s, sizeof(*s)))
			return true;
	return false;
}

/*
 * By its clock, which is ours: when it looks at it that far ahead of the time, it forgets the sockets of datagrams
 * that nobody has used for the rest of what it keeps them.
 */
static void make_room(struct user *u)
{
	static const u64 idle_s[] = { 180, 120, 60, 20 };
	u64 now = now_ns();

	if (now < u->room_ns + LOOK_AGAIN * MS)
		return;
	u->room_ns = now;
	for (unsigned i = 0; i < ARRAY_SIZE(idle_s) && is_full(); i++) {
		u->ahead_ns = (KEPT - idle_s[i]) * 1000 * MS;
		slirp.poll(u->slirp, 1, take_ready, u);
		wait_anew(u);
	}
	u->ahead_ns = 0;
	slirp.poll(u->slirp, 1, take_ready, u);
	u->changed = true;
}

static bool has_room(struct user *u)
{
	if (is_full())
		make_room(u);
	return !is_full();
}

static void say_full(struct user *u)
{
	u64 missed;

	if (!log_allows(&u->full, now_ns(), &missed))
		return;
	if (sockets_max < FDS / 2)
		log_warn("net: user: there are %u connections, half of the open files that vmm may have; for "
			 "more raise that before it starts, up to %u: 'ulimit -n', LimitNOFILE=", sockets_max, FDS);
	else
		log_warn("net: user: there are %u connections, and may not be more; with --net passt, nat or a tap "
			 "there may", sockets_max);
}

/* The sandbox lets root see that file, and no other that has come in its place: then libslirp looks up nothing. */
static void check_names(struct user *u)
{
	u64 now = now_ns();
	int fd;

	if (u->no_names || now < u->asked_ns + 1000 * MS)
		return;
	u->asked_ns = now;
	fd = open("/etc/resolv.conf", O_RDONLY | O_CLOEXEC);
	u->no_names = fd < 0 && errno == EACCES;
	if (fd >= 0)
		close(fd);
	if (u->no_names)
		log_warn("net: user: the host's /etc/resolv.conf is another since, which vmm may not read in its "
			 "sandbox: the guest's names are not looked up any more; start vmm anew, or with --net "
			 "user,dns=ADDRESS");
}

static int user_send(struct net *n, const struct iovec *iov, int nr)
{
	struct user *u = container_of(n, struct user, net);
	const u8 *frame = u->out + NET_HDR_LEN;
	ssize_t len = frame_take(iov, nr, u->out);
	struct sender sender;
	u16 type;

	if (len < 0)
		return len;
	type = frame[12] << 8 | frame[13];
	if (type != ETHERTYPE_IP && type != ETHERTYPE_IPV6 && type != ETHERTYPE_ARP)
		return 0;
	sender = sender_of(frame, len, type);
	if (sender.version)
		check_names(u);
	if (is_full() && opens(frame, len, type) && !is_known(u, &sender) && !has_room(u)) {
		say_full(u);
		return -ENOBUFS;
	}
	if (type == ETHERTYPE_IP && len >= ETHER_HDR_LEN + IP4 && is_fragment(frame + ETHER_HDR_LEN) &&
	    limit_take(&u->fragments, len, now_ns()))
		return -ENOBUFS;
	/* It looks at the clock here only: entries made with an old time expire at once. */
	if (!u->knows_time)
		slirp.poll(u->slirp, 1, take_ready, u);
	u->knows_time = true;
	u->sender = sender;
	slirp.input(u->slirp, frame, len);
	u->sender.version = 0;
	u->look = true;		/* what waited for an answer to ARP goes out then */
	return 0;
}

static ssize_t user_recv(struct net *n, const struct iovec *iov, int nr)
{
	struct user *u = container_of(n, struct user, net);
	struct frame *f = u->first;
	ssize_t len;

	if (!f)
		return -EAGAIN;
	len = frame_give(iov, nr, u->flags, f->data, f->len);
	u->first = f->next;
	if (!u->first)
		u->last = &u->first;
	u->queued -= f->len;
	free(f);
	if (u->busy && u->queued < BUSY / 2) {
		u->busy = false;
		u->changed = true;
	}
	return len;
}

static int user_start(struct net *n, struct loop *loop)
{
	struct user *u = container_of(n, struct user, net);

	u->loop = loop;
	u->want_rx = false;
	u->look = true;
	u->hook.before_sleep = before_sleep;
	u->deadline.fire = deadline;
	loop_add_hook(loop, &u->hook);
	for (struct alarm *a = u->alarms; a; a = a->next)
		alarm_start(a);
	return 0;
}

static void user_stop(struct net *n)
{
	struct user *u = container_of(n, struct user, net);
	struct frame *f;

	if (!u->loop)
		return;
	loop_remove_hook(u->loop, &u->hook);
	timer_stop(&u->deadline);
	for (struct alarm *a = u->alarms; a; a = a->next)
		timer_stop(&a->timer);
	for (int fd = 0; fd < u->nr_peers; fd++)
		forget_peer(fd, u);
	while ((f = u->first)) {
		u->first = f->next;
		free(f);
	}
	u->last = &u->first;
	u->queued = 0;
	u->busy = u->want_rx = false;
	u->loop = NULL;
}

static void user_want(struct net *n, bool rx, bool tx)
{
	(void)tx;		/* send never says -EAGAIN */
	container_of(n, struct user, net)->want_rx = rx;
}

/* Its checksums are right: it made them just now. */
static int user_set_offload(struct net *n, u64 features)
{
	struct user *u = container_of(n, struct user, net);

	u->flags = features >> VIRTIO_NET_F_GUEST_CSUM & 1 ? VIRTIO_NET_HDR_F_DATA_VALID : 0;
	return 0;
}

static void user_close(struct net *n)
{
	struct user *u = container_of(n, struct user, net);

	if (u->slirp)
		slirp.cleanup(u->slirp);
	for (int fd = 0; fd < u->nr_peers; fd++) {
		drop_peer(fd, u);
		free(u->peer[fd]);
	}
	free(u->peer);
	limit_fini(&u->fragments);
	free(u);
}

static const struct net_ops user_ops = {
	.kind = "user", .send = user_send, .recv = user_recv, .start = user_start,
	.stop = user_stop, .want = user_want, .set_offload = user_set_offload,
	.close = user_close,
};

/* --- its making ------------------------------------------------------------------------------ */

static struct in_addr host_of(const struct net_user_options *o, u32 number)
{
	u32 network = o->network.s_addr ? ntohl(o->network.s_addr) : USER_NETWORK;

	return (struct in_addr){ htonl(network + number) };
}

static Slirp *make(struct user *u, const struct net_user_options *o)
{
	u8 prefix_len = o->network.s_addr ? o->prefix_len : USER_PREFIX_LEN;
	SlirpConfig c = {
		.version = 1, .restricted = o->restricted,
		.in_enabled = true, .vnetwork = host_of(o, 0),
		.vnetmask = { htonl(~0U << (32 - prefix_len)) },
		.vhost = host_of(o, 2), .vnameserver = host_of(o, 3), .vdhcp_start = host_of(o, 15),
		.in6_enabled = true, .vprefix_len = 64,
		.if_mtu = NET_MTU_MOST, .if_mru = NET_MTU_MOST,
	};

	if (o->dns.s_addr)
		c.vnameserver = o->dns;
	u->no_names = o->restricted || o->dns.s_addr;
	/* It would cut a longer one. */
	if (o->hostname && strlen(o->hostname) <= HOSTNAME_MAX)
		c.vhostname = o->hostname;
	inet_pton(AF_INET6, "fec0::", &c.vprefix_addr6);
	inet_pton(AF_INET6, "fec0::2", &c.vhost6);
	inet_pton(AF_INET6, "fec0::3", &c.vnameserver6);
	return slirp.new(&c, &callbacks, u);
}

/* The usual limit, 1024, is for programs that use select(). */
static void raise_fd_limit(void)
{
	struct rlimit limit = { .rlim_cur = FDS };

	if (!getrlimit(RLIMIT_NOFILE, &limit) && limit.rlim_cur < FDS) {
		limit.rlim_cur = MIN((rlim_t)FDS, limit.rlim_max);
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	sockets_max = MIN(limit.rlim_cur, (rlim_t)FDS) / 2;
}

int net_open_user(struct net **out, const struct net_user_options *o, struct err *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct user *u;
	int rc = 0;

	pthread_once(&once, load);
	if (no_slirp == -ENOENT)
		return err_set(err, no_slirp, "net: user needs the library libslirp.so.0: install "
			       "libslirp0");
	if (no_slirp)
		return err_set(err, no_slirp, "net: libslirp.so.0: %s", strerror(-no_slirp));
	u = calloc(1, sizeof(*u));
	if (!u)
		return err_set(err, -ENOMEM, "net: out of memory");
	u->net.ops = &user_ops;
	u->net.offload = FRAME_OFFLOAD | 1ULL << VIRTIO_NET_F_GUEST_CSUM;
	u->net.mtu = NET_MTU_MOST;
	u->last = &u->first;
	limit_init(&u->fragments, &fragments);
	u->slirp = make(u, o);
	if (!u->slirp)
		rc = err_set(err, -EINVAL, "net: libslirp refuses its settings");
	for (unsigned i = 0; i < o->nr_forwards && !rc; i++) {
		const struct net_forward *f = &o->forward[i];

		if (slirp.add_hostfwd(u->slirp, f->udp, f->host, f->host_port, f->guest,
				      f->guest_port))
			rc = forward_failed(f, -errno, err);
	}
	if (rc) {
		user_close(&u->net);
		return rc;
	}
	raise_fd_limit();
	*out = &u->net;
	return 0;
}
