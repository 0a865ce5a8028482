/* bpf.c: from rows to instructions: what is most frequent first, then a search by halves. */
#include "vmm/core/bpf.h"
#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>

/* Its bit in the number of a call of the x32 ABI, whose other numbers are ours. */
#define X32_BIT	0x40000000
/* What a tracer has put in the place of a call that is not to be made. */
#define NO_CALL	0xffffffff

enum { FEW = 4 };	/* rows that are looked at in turn */

struct program {
	struct sock_filter *at;
	unsigned len, room;
};

static void emit(struct program *p, u16 code, u32 k, u8 yes, u8 no)
{
	if (p->len < p->room)
		p->at[p->len] = (struct sock_filter){ .code = code, .jt = yes, .jf = no, .k = k };
	p->len++;
}

static void load(struct program *p, u32 offset)
{
	emit(p, BPF_LD | BPF_W | BPF_ABS, offset, 0, 0);
}

static void equal(struct program *p, u32 k, u8 yes, u8 no)
{
	emit(p, BPF_JMP | BPF_JEQ | BPF_K, k, yes, no);
}

static void act(struct program *p, u32 action)
{
	emit(p, BPF_RET | BPF_K, action, 0, 0);
}

/* The number is in the accumulator, before it and after it. */
static void row(struct program *p, const struct bpf_rule *r)
{
	u32 action = r->refuse ? SECCOMP_RET_ERRNO | r->refuse : SECCOMP_RET_ALLOW;
	u32 arg = (u32)(offsetof(struct seccomp_data, args) + 8UL * r->arg);
	u32 number = offsetof(struct seccomp_data, nr);

	switch (r->check) {
	case BPF_ALWAYS:
		equal(p, r->nr, 0, 1);
		act(p, action);
		break;
	case BPF_ONE_OF:
		equal(p, r->nr, 0, r->nr_values + 3);
		load(p, arg);
		for (unsigned i = 0; i < r->nr_values; i++) {
			u8 to_action = (u8)(r->nr_values - 1 - i);

			equal(p, r->value[i], to_action, to_action ? 0 : 1);
		}
		act(p, action);
		load(p, number);
		break;
	case BPF_BITS:
		equal(p, r->nr, 0, 5);
		load(p, arg);
		emit(p, BPF_ALU | BPF_AND | BPF_K, r->value[0], 0, 0);
		equal(p, r->value[1], 0, 1);
		act(p, action);
		load(p, number);
		break;
	}
}

/* Of the rows of a few calls one after the other; of more, which half it is. */
static void tree(struct program *p, const struct bpf_rule *rule, unsigned nr, u32 rest)
{
	unsigned half = nr / 2, to_right;

	while (half && half < nr && rule[half].nr == rule[half - 1].nr)
		half++;
	if (nr <= FEW || half == nr) {
		for (unsigned i = 0; i < nr; i++)
			row(p, &rule[i]);
		act(p, rest);
		return;
	}
	emit(p, BPF_JMP | BPF_JGE | BPF_K, rule[half].nr, 0, 1);
	to_right = p->len;
	emit(p, BPF_JMP | BPF_JA, 0, 0, 0);
	tree(p, rule, half, rest);
	if (to_right < p->room)
		p->at[to_right].k = p->len - to_right - 1;
	tree(p, rule + half, nr - half, rest);
}

int bpf_compile(const struct bpf_rule *rule, unsigned nr, u16 first, u32 rest, struct sock_filter *to,
		unsigned room)
{
	struct program p = { .at = to, .room = room };

	for (unsigned i = 1; i < nr; i++)
		BUG_ON(rule[i].nr < rule[i - 1].nr);
	load(&p, offsetof(struct seccomp_data, arch));
	equal(&p, AUDIT_ARCH_X86_64, 1, 0);
	act(&p, rest);
	load(&p, offsetof(struct seccomp_data, nr));
	equal(&p, NO_CALL, 0, 1);
	act(&p, SECCOMP_RET_ALLOW);
	emit(&p, BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1);
	act(&p, rest);
	for (unsigned i = 0; i < nr; i++)
		if (rule[i].nr == first)
			row(&p, &rule[i]);
	tree(&p, rule, nr, rest);
	return p.len > p.room || p.len > BPF_MAXINSNS ? -E2BIG : (int)p.len;
}
