/*
 * net.c: loads on a network card, run in a guest, against a server on its host.
 *
 *   net serve PID                       on the host, of the VMM with that process id
 *   net ADDRESS LOAD FLOWS AMOUNT       in the guest
 *   net sink BYTES COMMAND...           runs COMMAND, and takes its one stream of as many bytes
 *   net send ADDRESS BYTES              such a stream, from one buffer
 *
 * LOAD: out, in: TCP streams of AMOUNT bytes in all, from and to the guest; rr: AMOUNT
 * one-byte requests, each answered; udp-out, udp-in: AMOUNT datagrams of 18 bytes, as
 * fast as they go, of which those that arrive count.  The server prints for each
 * "load LOAD FLOWS UNITS_PER_S EXITS_PER_UNIT CPU_NS_PER_UNIT": units are MiB, requests
 * or datagrams; the processor time is that of the VMM, the guest's included.  The sink
 * prints how many MiB a second it got, and fails unless that were all, and COMMAND ended
 * well; with CHECK in the environment every 8 bytes must be their place in the stream.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CONTROL_PORT = 7000, DATA_PORT, UDP_PORT, SINK_PORT };
enum { BLOCK = 128 << 10, FLOWS_MAX = 64, DATAGRAM = 18 };
enum op { SINK, SOURCE, ECHO, UDP_SINK, UDP_SOURCE };

struct request {
	uint32_t op, flow;
	uint64_t amount;
};

struct result {
	uint64_t units, ns;
};

static char block[BLOCK] __attribute__((aligned(8)));

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void all(int fd, void *buf, size_t len, int writing)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = writing ? write(fd, (char *)buf + done, len - done) :
				      read(fd, (char *)buf + done, len - done);

		if (n <= 0)
			die(writing ? "write" : "read");
		done += n;
	}
}

static struct sockaddr_in address(const char *host, int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };

	if (host && inet_pton(AF_INET, host, &a.sin_addr) != 1)
		die(host);
	return a;
}

static int connect_to(const char *host, int port)
{
	struct sockaddr_in a = address(host, port);
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)))
		die("connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

static int bound(int type, int port)
{
	struct sockaddr_in a = address(NULL, port);
	int fd = socket(AF_INET, type, 0), one = 1, room = 4 << 20;
	struct timeval patience = { .tv_usec = 300000 };

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (type == SOCK_DGRAM) {
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
		setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	}
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) || (type == SOCK_STREAM && listen(fd, 64)))
		die("bind");
	return fd;
}

static void stream(int fd, uint64_t len, int writing)
{
	for (uint64_t done = 0; done < len;) {
		size_t most = len - done < BLOCK ? len - done : BLOCK;
		ssize_t n = writing ? write(fd, block, most) : read(fd, block, most);

		if (n <= 0)
			die("stream");
		done += n;
	}
}

/* Until none has come for a while. */
static struct result count_datagrams(int fd)
{
	struct result r = { 0 };
	uint64_t first = 0, last = 0;
	char buf[64];

	while (recv(fd, buf, sizeof(buf), 0) > 0) {
		last = now();
		if (!r.units++)
			first = last;
	}
	r.ns = last - first;
	return r;
}

static void send_datagrams(const struct sockaddr_in *to, uint64_t nr)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (fd < 0 || connect(fd, (const struct sockaddr *)to, sizeof(*to)))
		die("datagrams");
	while (nr--)
		(void)!send(fd, block, DATAGRAM, 0);
	close(fd);
}

/* --- the host's side ------------------------------------------------------------------- */

static void *serve_one(void *arg)
{
	int fd = (intptr_t)arg, one = 1, udp;
	struct sockaddr_in peer;
	socklen_t len = sizeof(peer);
	struct request q;
	struct result r;
	char byte = 0;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	all(fd, &q, sizeof(q), 0);
	switch (q.op) {
	case SINK:
		stream(fd, q.amount, 0);
		all(fd, &byte, 1, 1);
		break;
	case SOURCE:
		stream(fd, q.amount, 1);
		break;
	case ECHO:
		while (q.amount--) {
			all(fd, &byte, 1, 0);
			all(fd, &byte, 1, 1);
		}
		break;
	case UDP_SINK:
		udp = bound(SOCK_DGRAM, UDP_PORT);
		all(fd, &byte, 1, 1);
		r = count_datagrams(udp);
		all(fd, &r, sizeof(r), 1);
		close(udp);
		break;
	case UDP_SOURCE:
		getpeername(fd, (struct sockaddr *)&peer, &len);
		peer.sin_port = htons(UDP_PORT);
		send_datagrams(&peer, q.amount);
		break;
	}
	close(fd);
	return NULL;
}

static void *serve_all(void *arg)
{
	int fd = (intptr_t)arg;
	pthread_t t;

	for (;;) {
		intptr_t one = accept(fd, NULL, NULL);

		if (one < 0 || pthread_create(&t, NULL, serve_one, (void *)one))
			die("accept");
		pthread_detach(t);
	}
	return NULL;
}

static uint64_t number(const char *path)
{
	unsigned long long n = 0;
	FILE *f = fopen(path, "r");

	if (f) {
		if (fscanf(f, "%llu", &n) != 1)
			n = 0;
		fclose(f);
	}
	return n;
}

static uint64_t cpu_of_tasks(const char *dir)
{
	struct dirent *e;
	DIR *d = opendir(dir);
	uint64_t sum = 0;
	char path[512];

	while (d && (e = readdir(d))) {
		snprintf(path, sizeof(path), "%s/%s/schedstat", dir, e->d_name);
		if (*e->d_name != '.')
			sum += number(path);
	}
	if (d)
		closedir(d);
	return sum;
}

static void serve(const char *pid)
{
	int data = bound(SOCK_STREAM, DATA_PORT), control = bound(SOCK_STREAM, CONTROL_PORT), fd;
	char name[64] = "", tasks[64], byte = 0;
	pthread_t t;

	snprintf(tasks, sizeof(tasks), "/proc/%s/task", pid);
	if (pthread_create(&t, NULL, serve_all, (void *)(intptr_t)data))
		die("thread");
	while ((fd = accept(control, NULL, NULL)) >= 0) {
		uint64_t exits, cpu;
		struct result r;

		all(fd, name, sizeof(name), 0);
		exits = number("/sys/kernel/debug/kvm/exits");
		cpu = cpu_of_tasks(tasks);
		all(fd, &byte, 1, 1);
		all(fd, &r, sizeof(r), 0);
		exits = number("/sys/kernel/debug/kvm/exits") - exits;
		cpu = cpu_of_tasks(tasks) - cpu;
		printf("load %s %.0f %.2f %.0f\n", name, r.units * 1e9 / (r.ns ? r.ns : 1),
		       (double)exits / (r.units ? r.units : 1), (double)cpu / (r.units ? r.units : 1));
		fflush(stdout);
		all(fd, &byte, 1, 1);
		close(fd);
	}
}

/* --- the guest's side -------------------------------------------------------------------- */

struct flow {
	pthread_t thread;
	const char *host;
	struct request q;
	struct result r;
};

static void *run_flow(void *arg)
{
	struct flow *f = arg;
	int fd = connect_to(f->host, DATA_PORT), udp = -1;
	struct sockaddr_in to = address(f->host, UDP_PORT);
	char byte = 0;

	f->r.units = f->q.amount;
	if (f->q.op == UDP_SOURCE)
		udp = bound(SOCK_DGRAM, UDP_PORT);
	all(fd, &f->q, sizeof(f->q), 1);
	switch (f->q.op) {
	case SINK:
		stream(fd, f->q.amount, 1);
		all(fd, &byte, 1, 0);
		break;
	case SOURCE:
		stream(fd, f->q.amount, 0);
		break;
	case ECHO:
		for (uint64_t i = 0; i < f->q.amount; i++) {
			all(fd, &byte, 1, 1);
			all(fd, &byte, 1, 0);
		}
		break;
	case UDP_SINK:
		all(fd, &byte, 1, 0);
		send_datagrams(&to, f->q.amount);
		all(fd, &f->r, sizeof(f->r), 0);
		break;
	case UDP_SOURCE:
		f->r = count_datagrams(udp);
		close(udp);
		break;
	}
	close(fd);
	return NULL;
}

static int run(const char *host, const char *load, unsigned flows, uint64_t amount)
{
	static const char *const name[] = { "out", "in", "rr", "udp-out", "udp-in" };
	static struct flow flow[FLOWS_MAX];
	int control = connect_to(host, CONTROL_PORT), is_udp;
	char label[64] = "", byte;
	struct result sum = { 0 };
	unsigned op = 0;

	while (op < 5 && strcmp(load, name[op]))
		op++;
	if (op == 5 || !flows || flows > FLOWS_MAX)
		return 2;
	is_udp = op == UDP_SINK || op == UDP_SOURCE;
	snprintf(label, sizeof(label), "%s %u", load, flows);
	all(control, label, sizeof(label), 1);
	all(control, &byte, 1, 0);
	sum.ns = now();
	for (unsigned i = 0; i < flows; i++) {
		flow[i].host = host;
		flow[i].q = (struct request){ .op = op, .flow = i, .amount = amount / flows };
		if (pthread_create(&flow[i].thread, NULL, run_flow, &flow[i]))
			die("thread");
	}
	for (unsigned i = 0; i < flows; i++) {
		pthread_join(flow[i].thread, NULL);
		sum.units += flow[i].r.units;
	}
	sum.ns = is_udp ? flow[0].r.ns : now() - sum.ns;
	if (op == SINK || op == SOURCE)
		sum.units >>= 20;
	all(control, &sum, sizeof(sum), 1);
	all(control, &byte, 1, 0);
	return 0;
}

/* --- one stream, without a guest or with one that has no operating system ------------------- */

/* Who pays for the check is who asked for it. */
static void check_places(const char *buf, uint64_t at, size_t len)
{
	for (size_t i = 0; i < len; i++, at++)
		if ((unsigned char)buf[i] != (unsigned char)(at / 8 >> at % 8 * 8)) {
			fprintf(stderr, "net: wrong at byte %llu\n", (unsigned long long)at);
			exit(1);
		}
}

static pid_t start_sender(char **command)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(STDERR_FILENO, STDOUT_FILENO);
		execvp(command[0], command);
		die(command[0]);
	}
	return pid;
}

static int sink(uint64_t amount, char **command)
{
	struct timeval patience = { .tv_sec = 20 };
	int listener = bound(SOCK_STREAM, SINK_PORT), fd, status;
	int check = getenv("CHECK") != NULL;
	uint64_t got = 0, ns;
	pid_t sender;
	ssize_t n;

	setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	fcntl(listener, F_SETFD, FD_CLOEXEC);
	sender = start_sender(command);
	fd = accept(listener, NULL, NULL);
	if (fd < 0)
		die("accept");
	ns = now();
	while ((n = read(fd, block, BLOCK)) > 0) {
		if (check)
			check_places(block, got, n);
		got += n;
	}
	ns = now() - ns;
	if (n < 0)
		die("read");
	close(fd);
	if (waitpid(sender, &status, 0) != sender || status || got != amount) {
		fprintf(stderr, "net: %llu bytes came, and the sender's status is %x\n",
			(unsigned long long)got, status);
		return 1;
	}
	printf("%.0f\n", got * 1e9 / ns / (1 << 20));
	return 0;
}

/* By the congestion control that is the fastest where nothing is ever lost. */
static int send_stream(const char *host, uint64_t amount)
{
	struct sockaddr_in a = address(host, SINK_PORT);
	int fd = socket(AF_INET, SOCK_STREAM, 0), fill = getenv("CHECK") != NULL;
	static const char cubic[] = "cubic";

	(void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, cubic, sizeof(cubic) - 1);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)))
		die("connect");
	for (uint64_t done = 0; done < amount;) {
		size_t len = amount - done < BLOCK ? amount - done : BLOCK;

		for (size_t i = 0; fill && i < len / 8; i++)
			((uint64_t *)block)[i] = done / 8 + i;
		all(fd, block, len, 1);
		done += len;
	}
	close(fd);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc > 3 && !strcmp(argv[1], "sink"))
		return sink(strtoull(argv[2], NULL, 0), argv + 3);
	if (argc == 4 && !strcmp(argv[1], "send"))
		return send_stream(argv[2], strtoull(argv[3], NULL, 0));
	if (argc == 3 && !strcmp(argv[1], "serve")) {
		serve(argv[2]);
		return 0;
	}
	return argc == 5 ? run(argv[1], argv[2], atoi(argv[3]), strtoull(argv[4], NULL, 0)) : 2;
}
