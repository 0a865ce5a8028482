/*
 * rss.c: see rss.h; receive-side scaling is virtio 1.2, 5.1.6.5.7, how frames are hashed
 * 5.1.6.4.3.
 *
 * The hash is Toeplitz's: for each bit of the addresses and ports that is set, 32 bits of the
 * key from there on, all by exclusive or.  What a byte at each place comes to is looked up
 * in a table, which is made when the key comes: what is left is short, for the kernel's
 * verifier too, and without loops.
 */
#include "devices/net/rss.h"
#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/virtio_net.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Addresses, then ports, of IPv4 and of IPv6. */
enum { PORTS_LEN = 2 * 2, INPUT4_LEN = 2 * 4 + PORTS_LEN, INPUT6_LEN = 2 * 16 + PORTS_LEN };
_Static_assert(INPUT6_LEN + 4 == NET_RSS_KEY_LEN, "a key for the longest input");

/* What the program reads.  One is in use, and the other is changed: a frame on its way
 * while that happens twice may find a bit of both, which is a queue, too. */
struct steering {
	u32 current;
	struct steering_by {
		u32 hash_types;
		u16 mask, unclassified;
		u8 table[NET_RSS_TABLE_LEN];
		u32 hash[INPUT6_LEN][256];
	} by[2];
};

struct rss {
	int program;
	struct steering *steering;	/* shared with the kernel */
};

/* --- the program ---------------------------------------------------------------------------- */

/* What registers hold from start to end; 1 to 5 are for calls, or for a moment. */
enum { HASH = BPF_REG_0, SKB = BPF_REG_6, BY = BPF_REG_7, AT = BPF_REG_8, PROTOCOL = BPF_REG_9 };
/* What the stack holds: the bytes that are hashed, and what was read to find them. */
enum { INPUT = -40, HEAD = -56 };
/* Where jumps go whose target comes later. */
enum label { IPV4, IPV6, TRANSPORT6, ADDRESSES4, ADDRESSES6, UNCLASSIFIED };
enum { INSNS_MAX = 1024, JUMPS_MAX = 96 };
/* Frames with more of them are not looked into. */
enum { VLAN_TAGS_MAX = 2, EXTENSIONS_MAX = 6 };
/* Bits of a packet that is one of several fragments. */
enum { FRAGMENT4 = 0x3fff, FRAGMENT6 = 0xfff9 };

struct program {
	struct bpf_insn insn[INSNS_MAX];
	unsigned len;
	struct { unsigned at; enum label to; } jump[JUMPS_MAX];
	unsigned nr_jumps;
};

static void emit(struct program *p, u8 code, u8 dst, u8 src, int16_t off, int32_t imm)
{
	BUG_ON(p->len == INSNS_MAX);
	p->insn[p->len++] = (struct bpf_insn){ .code = code, .dst_reg = dst, .src_reg = src,
					       .off = off, .imm = imm };
}

static void alu(struct program *p, u8 op, u8 dst, int32_t imm)
{
	emit(p, BPF_ALU64 | op | BPF_K, dst, 0, 0, imm);
}

static void alu_reg(struct program *p, u8 op, u8 dst, u8 src)
{
	emit(p, BPF_ALU64 | op | BPF_X, dst, src, 0, 0);
}

static void load(struct program *p, u8 size, u8 dst, u8 base, ssize_t off)
{
	BUG_ON(off != (int16_t)off);
	emit(p, BPF_LDX | BPF_MEM | size, dst, base, (int16_t)off, 0);
}

/* Of what was read, in the network's order. */
static void load_be16(struct program *p, u8 dst, ssize_t off)
{
	load(p, BPF_H, dst, BPF_REG_10, off);
	emit(p, BPF_ALU | BPF_END | BPF_TO_BE, dst, 0, 0, 16);
}

/* Over what comes until land(). */
static unsigned skip(struct program *p, u8 op, u8 reg, int32_t imm)
{
	emit(p, BPF_JMP | op | BPF_K, reg, 0, 0, imm);
	return p->len - 1;
}

static void land(struct program *p, unsigned from)
{
	p->insn[from].off = (int16_t)(p->len - from - 1);
}

static void jump(struct program *p, u8 op, u8 reg, int32_t imm, enum label to)
{
	BUG_ON(p->nr_jumps == JUMPS_MAX);
	p->jump[p->nr_jumps].to = to;
	p->jump[p->nr_jumps++].at = skip(p, op, reg, imm);
}

static void here(struct program *p, enum label label)
{
	for (unsigned i = 0; i < p->nr_jumps; i++)
		if (p->jump[i].to == label)
			land(p, p->jump[i].at);
}

/* len bytes of the frame from AT + from on; one that is too short goes elsewhere. */
static void read_frame(struct program *p, int from, int to, unsigned len, enum label too_short)
{
	alu_reg(p, BPF_MOV, BPF_REG_1, SKB);
	alu_reg(p, BPF_MOV, BPF_REG_2, AT);
	alu(p, BPF_ADD, BPF_REG_2, from);
	alu_reg(p, BPF_MOV, BPF_REG_3, BPF_REG_10);
	alu(p, BPF_ADD, BPF_REG_3, to);
	alu(p, BPF_MOV, BPF_REG_4, (int32_t)len);
	emit(p, BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_skb_load_bytes);
	jump(p, BPF_JNE, BPF_REG_0, 0, too_short);
}

/* BY: what is in use of what the map holds. */
static void find_steering(struct program *p, int map)
{
	alu_reg(p, BPF_MOV, SKB, BPF_REG_1);
	/* The value's address, which takes two (BPF_IMM, which is 0). */
	emit(p, BPF_LD | BPF_DW, BY, BPF_PSEUDO_MAP_VALUE, 0, map);
	emit(p, 0, 0, 0, 0, 0);
	load(p, BPF_W, BPF_REG_1, BY, offsetof(struct steering, current));
	alu(p, BPF_AND, BPF_REG_1, 1);
	alu(p, BPF_MUL, BPF_REG_1, sizeof(struct steering_by));
	alu_reg(p, BPF_ADD, BY, BPF_REG_1);
	alu(p, BPF_ADD, BY, offsetof(struct steering, by));
}

/* AT: the network's header. */
static void find_network(struct program *p)
{
	alu(p, BPF_MOV, AT, ETH_HLEN);
	for (unsigned i = 0; i <= VLAN_TAGS_MAX; i++) {
		unsigned tagged;

		read_frame(p, -2, HEAD, 2, UNCLASSIFIED);
		load_be16(p, BPF_REG_1, HEAD);
		jump(p, BPF_JEQ, BPF_REG_1, ETH_P_IP, IPV4);
		jump(p, BPF_JEQ, BPF_REG_1, ETH_P_IPV6, IPV6);
		tagged = skip(p, BPF_JEQ, BPF_REG_1, ETH_P_8021Q);
		jump(p, BPF_JNE, BPF_REG_1, ETH_P_8021AD, UNCLASSIFIED);
		land(p, tagged);
		alu(p, BPF_ADD, AT, 4);
	}
	jump(p, BPF_JA, 0, 0, UNCLASSIFIED);
}

static void find_transport4(struct program *p)
{
	here(p, IPV4);
	read_frame(p, 0, HEAD, offsetof(struct iphdr, saddr), UNCLASSIFIED);
	read_frame(p, offsetof(struct iphdr, saddr), INPUT, 8, UNCLASSIFIED);
	load(p, BPF_B, PROTOCOL, BPF_REG_10, HEAD + offsetof(struct iphdr, protocol));
	load_be16(p, BPF_REG_1, HEAD + offsetof(struct iphdr, frag_off));
	alu(p, BPF_AND, BPF_REG_1, FRAGMENT4);
	jump(p, BPF_JNE, BPF_REG_1, 0, ADDRESSES4);
	load(p, BPF_B, BPF_REG_1, BPF_REG_10, HEAD);
	alu(p, BPF_AND, BPF_REG_1, 0xf);
	alu(p, BPF_LSH, BPF_REG_1, 2);
	alu_reg(p, BPF_ADD, AT, BPF_REG_1);
}

/* Past one header, if it is an extension. */
static void skip_extension(struct program *p)
{
	static const u8 known[] = { IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_DSTOPTS };
	unsigned found[ARRAY_SIZE(known)], fragment, end;

	for (unsigned i = 0; i < ARRAY_SIZE(known); i++)
		found[i] = skip(p, BPF_JEQ, PROTOCOL, known[i]);
	fragment = skip(p, BPF_JEQ, PROTOCOL, IPPROTO_FRAGMENT);
	jump(p, BPF_JA, 0, 0, TRANSPORT6);
	for (unsigned i = 0; i < ARRAY_SIZE(known); i++)
		land(p, found[i]);
	read_frame(p, 0, HEAD, 2, ADDRESSES6);
	load(p, BPF_B, BPF_REG_1, BPF_REG_10, HEAD + 1);
	alu(p, BPF_ADD, BPF_REG_1, 1);
	alu(p, BPF_LSH, BPF_REG_1, 3);
	alu_reg(p, BPF_ADD, AT, BPF_REG_1);
	end = skip(p, BPF_JA, 0, 0);
	land(p, fragment);
	read_frame(p, 0, HEAD, 4, ADDRESSES6);
	load_be16(p, BPF_REG_1, HEAD + 2);
	alu(p, BPF_AND, BPF_REG_1, FRAGMENT6);
	jump(p, BPF_JNE, BPF_REG_1, 0, ADDRESSES6);
	alu(p, BPF_ADD, AT, 8);
	land(p, end);
	load(p, BPF_B, PROTOCOL, BPF_REG_10, HEAD);
}

static void find_transport6(struct program *p)
{
	here(p, IPV6);
	read_frame(p, offsetof(struct ipv6hdr, nexthdr), HEAD, 1, UNCLASSIFIED);
	read_frame(p, offsetof(struct ipv6hdr, saddr), INPUT, 32, UNCLASSIFIED);
	load(p, BPF_B, PROTOCOL, BPF_REG_10, HEAD);
	alu(p, BPF_ADD, AT, sizeof(struct ipv6hdr));
	for (unsigned i = 0; i < EXTENSIONS_MAX; i++)
		skip_extension(p);
	here(p, TRANSPORT6);
}

/* The addresses are in INPUT; after them the ports, at AT, or zeroes, which add nothing. */
static void find_ports(struct program *p, unsigned input_len, u32 ip, u32 tcp, u32 udp,
		       enum label addresses)
{
	int ports = INPUT + (int)(input_len - PORTS_LEN);
	unsigned is_tcp, end;

	load(p, BPF_W, BPF_REG_1, BY, offsetof(struct steering_by, hash_types));
	is_tcp = skip(p, BPF_JEQ, PROTOCOL, IPPROTO_TCP);
	jump(p, BPF_JNE, PROTOCOL, IPPROTO_UDP, addresses);
	alu(p, BPF_AND, BPF_REG_1, (int32_t)udp);
	end = skip(p, BPF_JA, 0, 0);
	land(p, is_tcp);
	alu(p, BPF_AND, BPF_REG_1, (int32_t)tcp);
	land(p, end);
	jump(p, BPF_JEQ, BPF_REG_1, 0, addresses);
	read_frame(p, 0, ports, PORTS_LEN, addresses);
	end = skip(p, BPF_JA, 0, 0);
	here(p, addresses);
	load(p, BPF_W, BPF_REG_1, BY, offsetof(struct steering_by, hash_types));
	alu(p, BPF_AND, BPF_REG_1, (int32_t)ip);
	jump(p, BPF_JEQ, BPF_REG_1, 0, UNCLASSIFIED);
	emit(p, BPF_ST | BPF_MEM | BPF_W, BPF_REG_10, 0, (int16_t)ports, 0);
	land(p, end);
}

/* From the tables' middle an offset reaches them all. */
static void hash_input(struct program *p, int len)
{
	enum { MIDDLE = INPUT6_LEN / 2 };

	alu_reg(p, BPF_MOV, BPF_REG_2, BY);
	alu(p, BPF_ADD, BPF_REG_2, offsetof(struct steering_by, hash[MIDDLE]));
	alu(p, BPF_MOV, HASH, 0);
	for (int i = 0; i < len; i++) {
		load(p, BPF_B, BPF_REG_1, BPF_REG_10, INPUT + i);
		alu(p, BPF_LSH, BPF_REG_1, 2);
		alu_reg(p, BPF_ADD, BPF_REG_1, BPF_REG_2);
		load(p, BPF_W, BPF_REG_1, BPF_REG_1, (i - MIDDLE) * 256L * 4);
		alu_reg(p, BPF_XOR, HASH, BPF_REG_1);
	}
}

/* The kernel takes what is returned modulo the number of queues. */
static void find_queue(struct program *p)
{
	load(p, BPF_H, BPF_REG_1, BY, offsetof(struct steering_by, mask));
	alu_reg(p, BPF_AND, HASH, BPF_REG_1);
	alu(p, BPF_AND, HASH, NET_RSS_TABLE_LEN - 1);
	alu_reg(p, BPF_ADD, BY, HASH);
	load(p, BPF_B, BPF_REG_0, BY, offsetof(struct steering_by, table));
	emit(p, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
	here(p, UNCLASSIFIED);
	load(p, BPF_H, BPF_REG_0, BY, offsetof(struct steering_by, unclassified));
	emit(p, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

static void make_program(struct program *p, int map)
{
	unsigned end;

	find_steering(p, map);
	find_network(p);
	find_transport4(p);
	find_ports(p, INPUT4_LEN, VIRTIO_NET_RSS_HASH_TYPE_IPv4, VIRTIO_NET_RSS_HASH_TYPE_TCPv4,
		   VIRTIO_NET_RSS_HASH_TYPE_UDPv4, ADDRESSES4);
	hash_input(p, INPUT4_LEN);
	end = skip(p, BPF_JA, 0, 0);
	find_transport6(p);
	find_ports(p, INPUT6_LEN, VIRTIO_NET_RSS_HASH_TYPE_IPv6, VIRTIO_NET_RSS_HASH_TYPE_TCPv6,
		   VIRTIO_NET_RSS_HASH_TYPE_UDPv6, ADDRESSES6);
	hash_input(p, INPUT6_LEN);
	land(p, end);
	find_queue(p);
}

/* --- its life ------------------------------------------------------------------------------- */

static int bpf(unsigned command, union bpf_attr *attr)
{
	return (int)syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static int new_map(void)
{
	union bpf_attr attr = {
		.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = sizeof(struct steering),
		.max_entries = 1, .map_flags = BPF_F_MMAPABLE, .map_name = "vmm_rss",
	};

	return bpf(BPF_MAP_CREATE, &attr);
}

static int load_program(int map)
{
	struct program p;
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_SOCKET_FILTER, .insns = (uintptr_t)p.insn,
		.license = (uintptr_t)"", .prog_name = "vmm_rss",
	};

	p.len = p.nr_jumps = 0;
	make_program(&p, map);
	attr.insn_cnt = p.len;
	return bpf(BPF_PROG_LOAD, &attr);
}

int rss_open(struct rss **out, struct err *err)
{
	struct rss *r = calloc(1, sizeof(*r));
	int map, rc = 0;

	if (!r)
		return err_set(err, -ENOMEM, "out of memory");
	r->program = -1;
	r->steering = MAP_FAILED;
	map = new_map();
	if (map >= 0)
		r->steering = mmap(NULL, sizeof(*r->steering), PROT_READ | PROT_WRITE, MAP_SHARED, map, 0);
	if (r->steering != MAP_FAILED)
		r->program = load_program(map);
	if (r->program < 0)
		rc = err_set(err, -errno, "bpf: %s", strerror(errno));
	if (map >= 0)
		close(map);
	if (rc)
		rss_close(r);
	else
		*out = r;
	return rc;
}

void rss_close(struct rss *r)
{
	if (!r)
		return;
	if (r->program >= 0)
		close(r->program);
	if (r->steering != MAP_FAILED)
		munmap(r->steering, sizeof(*r->steering));
	free(r);
}

int rss_program(const struct rss *r)
{
	return r->program;
}

/* --- its tables ----------------------------------------------------------------------------- */

/* 32 bits of the key. */
static u32 key_from(const u8 *key, unsigned bit)
{
	u64 bits = 0;

	for (unsigned i = 0; i < 5; i++)
		bits = bits << 8 | key[bit / 8 + i];
	return (u32)(bits >> (8 - bit % 8));
}

void rss_configure(struct rss *r, const struct net_rss *to)
{
	u32 next = !r->steering->current;
	struct steering_by *by = &r->steering->by[next];

	by->hash_types = to->hash_types;
	by->mask = to->mask;
	by->unclassified = to->unclassified;
	memcpy(by->table, to->table, sizeof(by->table));
	for (unsigned i = 0; i < INPUT6_LEN; i++)
		for (unsigned v = 1; v < 256; v++)	/* of one bit less, and the lowest */
			by->hash[i][v] = by->hash[i][v & (v - 1)] ^
					 key_from(to->key, 8 * i + 7 - __builtin_ctz(v));
	store_release(&r->steering->current, next);
}
