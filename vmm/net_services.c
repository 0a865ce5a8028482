/* net_services.c: nftables(8), dnsmasq(8) and the kernel's forwarding, for a network. */
#include "vmm/net_services.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "vmm/core/log.h"
#include "vmm/program.h"

enum { END_MS = 5000, MAX_ARGS = 40 };
/* One dnsmasq that starts, and is two or three for that, has the lock. */
enum { MOST_AT_ONCE = 8 };
enum { SYSTEM_USERS = 1000 };		/* from there on they are people */

/* --- the packet filter ------------------------------------------------------------------------ */

/* option NULL: none. */
static int nft(const char *option, const char *text, char *output, size_t room, struct err *err)
{
	const char *argv[] = { "nft", "-f", "-", option, NULL };

	return program_run(argv, "nftables", text, -1, output, room, err);
}

struct text {
	char *at;
	size_t room;
	bool full;
};

static void add(struct text *t, const char *fmt, ...) printf_like(2, 3);
static void add(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->at, t->room, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= t->room) {
		t->full = true;
		return;
	}
	t->at += n;
	t->room -= n;
}

/* Out with a source of the network's own; in as an answer. */
static void add_nat(struct text *t, const struct network *n)
{
	const char *b = n->bridge;

	add(t, "iifname \"%s\" oifname \"vmm-*\" counter drop\n", b);
	add(t, "iifname \"vmm-*\" oifname \"%s\" counter drop\n", b);
	add(t, "iifname \"%s\" ip saddr %s accept\n", b, subnet_text(&n->subnet).text);
	if (n->routes6)
		add(t, "iifname \"%s\" ip6 saddr %s/64 accept\n", b, n->prefix6);
	add(t, "iifname \"%s\" counter drop\n", b);
	add(t, "oifname \"%s\" ct state established,related accept\n", b);
	add(t, "oifname \"%s\" counter drop\n}\n", b);
	add(t, "chain out {\ntype nat hook postrouting priority srcnat; policy accept;\n");
	add(t, "oifname != \"%s\" ip saddr %s masquerade\n", b, subnet_text(&n->subnet).text);
	if (n->routes6)
		add(t, "oifname != \"%s\" ip6 saddr %s/64 masquerade\n", b, n->prefix6);
	add(t, "}\n");
}

/* Nothing is forwarded, and of the host only its addresses on this network are heard. */
static void add_hostonly(struct text *t, const struct network *n)
{
	const char *b = n->bridge;

	add(t, "iifname \"%s\" counter drop\noifname \"%s\" counter drop\n}\n", b, b);
	add(t, "chain in {\ntype filter hook input priority filter; policy accept;\n");
	add(t, "iifname \"%s\" fib daddr . iif type != { local, broadcast, multicast } counter drop\n}\n",
	    b);
}

bool net_filter_text(const struct network *n, char *text, size_t room)
{
	struct text t = { text, room, false };
	const char *b = n->bridge;

	add(&t, "add table inet %s\ndelete table inet %s\ntable inet %s {\n", b, b, b);
	add(&t, "chain forward {\ntype filter hook forward priority filter; policy accept;\n");
	/* What stays on the bridge comes here too where the host filters bridges. */
	add(&t, "iifname \"%s\" oifname \"%s\" accept\n", b, b);
	if (n->type == NETWORK_NAT)
		add_nat(&t, n);
	else
		add_hostonly(&t, n);
	add(&t, "}\n");
	return !t.full;
}

int net_filter_start(const struct network *n, struct err *err)
{
	char text[4096], output[PROGRAM_OUTPUT];

	BUG_ON(!net_filter_text(n, text, sizeof(text)));
	return nft(NULL, text, output, sizeof(output), err);
}

int net_filter_stop(const struct network *n, struct err *err)
{
	char text[128], output[PROGRAM_OUTPUT], path[PATH_MAX];

	if (!program_find("nft", path, sizeof(path)))
		return err_set(err, -ENOPKG, "the program nft is not there; install nftables, and 'nft delete table "
			       "inet %s' removes what is left of it", n->bridge);
	snprintf(text, sizeof(text), "add table inet %s\ndelete table inet %s\n", n->bridge, n->bridge);
	/* An nft that can do nothing here has made nothing. */
	if (!nft(NULL, text, output, sizeof(output), NULL) ||
	    nft(NULL, "list tables\n", output, sizeof(output), NULL))
		return 0;
	return nft(NULL, text, output, sizeof(output), err);
}

static bool drops(const json_t *chain, const char *hook)
{
	const char *h = json_string_value(json_object_get(chain, "hook"));
	const char *policy = json_string_value(json_object_get(chain, "policy"));

	return h && policy && !strcmp(h, hook) && !strcmp(policy, "drop");
}

void net_filter_warn(const struct network *n)
{
	char output[PROGRAM_OUTPUT];
	json_t *root, *item, *chain;
	size_t i;

	if (n->type == NETWORK_BRIDGE || nft("-j", "list chains\n", output, sizeof(output), NULL))
		return;
	root = json_loads(output, 0, NULL);
	json_array_foreach(json_object_get(root, "nftables"), i, item) {
		chain = json_object_get(item, "chain");
		if (drops(chain, "input") || (n->type == NETWORK_NAT && drops(chain, "forward")))
			log_warn("network %s: this host's firewall (table %s %s, chain %s) drops what it "
				 "does not know; let the interface %s through there", n->name,
				 json_string_value(json_object_get(chain, "family")),
				 json_string_value(json_object_get(chain, "table")),
				 json_string_value(json_object_get(chain, "name")), n->bridge);
	}
	json_decref(root);
}

/* --- DHCP and DNS ---------------------------------------------------------------------------------- */

struct arguments {
	const char *argv[MAX_ARGS + 1];
	char text[MAX_ARGS][PATH_MAX];
	unsigned nr;
};

static void argument(struct arguments *a, const char *fmt, ...) printf_like(2, 3);
static void argument(struct arguments *a, const char *fmt, ...)
{
	va_list ap;

	BUG_ON(a->nr == MAX_ARGS);
	va_start(ap, fmt);
	vsnprintf(a->text[a->nr], PATH_MAX, fmt, ap);
	va_end(ap);
	a->argv[a->nr] = a->text[a->nr];
	a->nr++;
}

/* It starts as root to become nobody in particular; in a user namespace of one user it cannot. */
static void argue_user(struct arguments *a)
{
	FILE *f = fopen("/proc/self/uid_map", "re");
	u32 in, out, nr = 0;

	if (f && fscanf(f, "%" SCNu32 " %" SCNu32 " %" SCNu32, &in, &out, &nr) == 3 && nr != ~0u) {
		argument(a, "--user=root");
		argument(a, "--group=");
	} else if (getpwnam("dnsmasq")) {
		argument(a, "--user=dnsmasq");
	}
	if (f)
		fclose(f);
}

static void argue_addresses(struct arguments *a, const struct network *n)
{
	u32 size = subnet_size(&n->subnet), first = size >= 256 ? 10 : 2;

	argument(a, "--dhcp-range=%s,%s,1h", subnet_address(&n->subnet, first).text,
		 subnet_address(&n->subnet, size - 2).text);
	argument(a, "--dhcp-lease-max=%u", MIN(size, 65536u));
	argument(a, "--dhcp-authoritative");
	/* Whether somebody else has the address is known: nobody does. */
	argument(a, "--no-ping");
	if (n->mtu != 1500)
		argument(a, "--dhcp-option=option:mtu,%u", n->mtu);
	if (*n->prefix6) {
		argument(a, "--enable-ra");
		argument(a, "--dhcp-range=%s,ra-stateless,64,1h", n->prefix6);
		/* A prefix, and no way out: no router. */
		if (!n->routes6)
			argument(a, "--ra-param=%s,0,0", n->bridge);
	}
	/* Nor a route, nor names of elsewhere, which could carry anything out. */
	if (n->type == NETWORK_HOSTONLY) {
		argument(a, "--dhcp-option=option:router");
		argument(a, "--no-resolv");
	}
}

/* By which argument a dnsmasq is known as this network's. */
static void pid_argument(struct net_state *s, const struct network *n, char *text, size_t room)
{
	char path[PATH_MAX - 16];

	net_state_path(s, n->name, "dnsmasq.pid", path, sizeof(path));
	snprintf(text, room, "--pid-file=%s", path);
}

/* *rc: why the host does not say; a process that is gone is no such reason. */
static FILE *open_of(int pid, const char *file, int *rc)
{
	char path[32];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	f = fopen(path, "re");
	if (!f && err_of_host(-errno))
		*rc = -errno;
	return f;
}

/* Among what we say to one: others' arguments may have no end. */
static bool has_argument(int pid, const char *argument_text, int *rc)
{
	enum { ROOM = MAX_ARGS * PATH_MAX };
	FILE *f = open_of(pid, "cmdline", rc);
	char *all = f ? malloc(ROOM + 1) : NULL;
	size_t len = all ? fread(all, 1, ROOM, f) : 0, at = 0;
	bool found = false;

	if (f && !all)
		*rc = -ENOMEM;
	for (; at < len && !found; at += strlen(all + at) + 1) {
		all[len] = 0;
		found = !strcmp(all + at, argument_text);
	}
	free(all);
	if (f)
		fclose(f);
	return found;
}

/* As it has written it, when it was root. */
static bool is_recorded(int pid, const char *argument_text, int *rc)
{
	FILE *f = fopen(strchr(argument_text, '=') + 1, "re");
	int recorded = 0;

	if (!f && err_of_host(-errno))
		*rc = -errno;
	if (f && fscanf(f, "%d", &recorded) != 1)
		recorded = 0;
	if (f)
		fclose(f);
	return recorded == pid;
}

/* Not known, for whatever reason: it may be he. */
static bool may_be(u32 uid, const char *user)
{
	const struct passwd *p = getpwnam(user);

	return !p || uid == p->pw_uid;
}

/* Whose it really is: who owns its files in /proc any user can make root.  Of nobody are other programs, too: without a user
 * of its own it runs so, and goes on when there is one. */
static bool has_our_user(int pid, const char *argument_text, int *rc)
{
	FILE *f = open_of(pid, "status", rc);
	const struct passwd *p;
	bool found = false;
	char line[128];
	u32 uid;

	while (f && !found && fgets(line, sizeof(line), f))
		found = sscanf(line, "Uid: %" SCNu32, &uid) == 1;
	if (f)
		fclose(f);
	if (!found)
		return false;
	p = getpwnam("dnsmasq");
	if (uid == geteuid() || (p && uid == p->pw_uid))
		return true;
	return (may_be(uid, "nobody") || (!p && uid < SYSTEM_USERS)) && is_recorded(pid, argument_text, rc);
}

/* Not another program that a user may start as root.  What we may not look at is none of a user's. */
static bool runs_dnsmasq(int pid, int *rc)
{
	char path[32], exe[PATH_MAX], *name;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	n = readlink(path, exe, sizeof(exe) - 1);
	if (n < 0) {
		if (err_of_host(-errno))
			*rc = -errno;
		return errno == EACCES || errno == EPERM;
	}
	exe[n] = 0;
	name = strrchr(exe, '/');
	/* An upgrade may have replaced it. */
	return name && (!strcmp(name, "/dnsmasq") || !strcmp(name, "/dnsmasq (deleted)"));
}

static bool is_dnsmasq(int pid, const char *argument_text, int *rc)
{
	return runs_dnsmasq(pid, rc) && has_our_user(pid, argument_text, rc) &&
		has_argument(pid, argument_text, rc);
}

/*
 * Of a dnsmasq that runs for this network: a pidfd; -ENOENT without a message: none does.
 * By its arguments: the number in its pid file may be another's by now.
 */
static int find_dnsmasq(struct net_state *s, const struct network *n, int *pid, struct err *err)
{
	DIR *proc = opendir("/proc");
	char ours[PATH_MAX];
	struct dirent *e;
	int fd = -1, rc = proc ? 0 : -errno;

	pid_argument(s, n, ours, sizeof(ours));
	while (!rc && fd < 0 && (errno = 0, e = readdir(proc))) {
		*pid = atoi(e->d_name);
		if (*pid <= 0 || !is_dnsmasq(*pid, ours, &rc))
			continue;
		/* Looked at again: the number may have become another's. */
		fd = syscall(SYS_pidfd_open, *pid, 0);
		if (fd < 0 && err_of_host(-errno))
			rc = -errno;
		if (fd >= 0 && !is_dnsmasq(*pid, ours, &rc)) {
			close(fd);
			fd = -1;
		}
	}
	if (!rc && fd < 0 && errno)
		rc = -errno;
	if (proc)
		closedir(proc);
	if (!rc)
		return fd >= 0 ? fd : -ENOENT;
	if (fd >= 0)
		close(fd);
	return err_set(err, rc, "does its dnsmasq run? %s", strerror(-rc));
}

int net_names_start(struct net_state *s, const struct network *n, struct err *err)
{
	struct arguments *a;
	char path[PATH_MAX], *output;
	int pid, fd = find_dnsmasq(s, n, &pid, err), rc = -ENOMEM;
	struct err why;

	if (fd >= 0) {
		close(fd);
		return 0;
	}
	if (fd != -ENOENT)
		return fd;
	a = calloc(1, sizeof(*a));
	output = malloc(PROGRAM_OUTPUT);
	if (!a || !output) {
		err_set(err, rc, "out of memory");
		goto out;
	}
	argument(a, "dnsmasq");
	argument(a, "--conf-file=");
	pid_argument(s, n, path, sizeof(path));
	argument(a, "%s", path);
	net_state_path(s, n->name, "leases", path, sizeof(path));
	argument(a, "--dhcp-leasefile=%s", path);
	argue_user(a);
	argument(a, "--interface=%s", n->bridge);
	argument(a, "--except-interface=lo");
	argument(a, "--bind-dynamic");
	argument(a, "--no-hosts");
	argument(a, "--domain-needed");
	argument(a, "--bogus-priv");
	argument(a, "--domain=vmm.internal");
	argument(a, "--local=/vmm.internal/");
	argue_addresses(a, n);
	rc = program_run(a->argv, "dnsmasq-base", NULL, net_state_lock(s), output, PROGRAM_OUTPUT, &why);
	if (rc)
		err_set(err, rc, "%s%s", why.msg, !strstr(why.msg, "in use") ? "" : "; another DNS server "
			"of this host listens on all addresses: have it listen on those it is for");
out:
	free(output);
	free(a);
	return rc;
}

static bool ended(int pidfd, int signal)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0);
	return poll(&p, 1, END_MS) == 1;
}

int net_names_stop(struct net_state *s, const struct network *n, struct err *err)
{
	int fd, pid, left = MOST_AT_ONCE;
	bool gone = true;

	while (gone && (fd = find_dnsmasq(s, n, &pid, err)) >= 0) {
		gone = left-- && (ended(fd, SIGTERM) || ended(fd, SIGKILL));
		close(fd);
	}
	if (gone)
		return fd == -ENOENT ? 0 : fd;
	return err_set(err, -EBUSY, left < 0 ? "somebody starts its dnsmasq again and again; process %d is the "
		       "last" : "its dnsmasq, process %d, does not end", pid);
}

/* "EXPIRES MAC ADDRESS HOST CLIENT"; HOST is * or what a guest says of itself. */
static bool read_lease(char *line, struct net_lease *l)
{
	unsigned m[6];

	*l = (struct net_lease){ 0 };
	if (sscanf(line, "%" SCNu64 " %2x:%2x:%2x:%2x:%2x:%2x %45s %63s", &l->expires_s, &m[0], &m[1],
		   &m[2], &m[3], &m[4], &m[5], l->address, l->host) != 9)
		return false;
	for (unsigned i = 0; i < 6; i++)
		l->mac[i] = m[i];
	for (char *c = l->host; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
	return true;
}

int net_names_leases(struct net_state *s, const struct network *n, struct net_lease **out,
		     unsigned *nr, struct err *err)
{
	char path[PATH_MAX], *line = NULL;
	struct net_lease *leases = NULL, *more, l;
	size_t room = 0;
	int rc = 0;
	FILE *f;

	net_state_path(s, n->name, "leases", path, sizeof(path));
	f = fopen(path, "re");
	*nr = 0;
	while (f && !rc && getline(&line, &room, f) > 0) {
		if (!read_lease(line, &l))
			continue;
		more = reallocarray(leases, *nr + 1, sizeof(*leases));
		if (more) {
			leases = more;
			leases[(*nr)++] = l;
		} else {
			rc = err_set(err, -ENOMEM, "out of memory");
		}
	}
	free(line);
	if (f)
		fclose(f);
	if (rc)
		free(leases);
	else
		*out = leases;
	return rc;
}

/* --- the kernel's switches --------------------------------------------------------------------------- */

static int open_switch(const char *path, int flags, struct err *err)
{
	char full[128];
	int fd;

	snprintf(full, sizeof(full), "/proc/sys/net/%s", path);
	fd = open(full, flags | O_CLOEXEC);
	return fd < 0 ? err_set(err, -errno, "%s: %s", full, strerror(errno)) : fd;
}

int net_switch_get(const char *path, struct err *err)
{
	int fd = open_switch(path, O_RDONLY, err);
	char text[16] = "";
	ssize_t n;

	if (fd < 0)
		return fd;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	return n > 0 ? MAX(atoi(text), 0) : 0;
}

int net_switch_set(const char *path, int value, struct err *err)
{
	int fd = open_switch(path, O_WRONLY, err), rc = 0;

	if (fd < 0)
		return fd;
	if (dprintf(fd, "%d\n", value) < 0)
		rc = err_set(err, -errno, "/proc/sys/net/%s: %s", path, strerror(errno));
	close(fd);
	return rc;
}

int net_forward_start(struct net_state *s, const char *mark, const char *path, struct err *err)
{
	int now = net_switch_get(path, err);

	if (now)
		return MIN(now, 0);
	return net_state_set_mark(s, mark, err) ?: net_switch_set(path, 1, err);
}

void net_forward_stop(struct net_state *s, const char *mark, const char *path, bool leave_on)
{
	if (!net_state_has_mark(s, mark))
		return;
	if (leave_on || !net_switch_set(path, 0, NULL))
		net_state_clear_mark(s, mark);
}
