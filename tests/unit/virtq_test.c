/* virtq_test.c: the device's side of a split virtqueue, against good and bad drivers. */
#include "devices/virtio/virtq.h"
#include "tests/lib/fetch.h"
#include "tests/lib/ring.h"
#include "tests/lib/test.h"

enum { IN = VRING_DESC_F_WRITE, NEXT = VRING_DESC_F_NEXT, INDIRECT = VRING_DESC_F_INDIRECT };
enum { BASE = 0x10000, TABLE = 0x20000, DATA = 0x100000, QSIZE = 16 };
#define MEM_LEN	(8 * MIB)

struct fixture {
	struct mem *mem;
	struct ring r;
	struct virtq q;
	struct irq irq;
	int raises;
	struct chain c;
};

static void irq_set(struct irq *irq, bool level)
{
	container_of(irq, struct fixture, irq)->raises += level;
}

static void program(struct fixture *f)
{
	f->q.desc = GPA(f->r.desc);
	f->q.avail = GPA(f->r.avail);
	f->q.used = GPA(f->r.used);
	f->q.size = f->r.size;
	f->q.indirect = true;
	f->q.budget = VIRTQ_MAX;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	assert_int_equal(mem_new(&f->mem, MEM_LEN, false, NULL), 0);
	ring_init(&f->r, f->mem, BASE, QSIZE);
	f->irq.set = irq_set;
	f->q = (struct virtq){ .mem = f->mem, .irq = &f->irq, .max_size = VIRTQ_MAX };
	virtq_reset(&f->q);
	program(f);
	assert_int_equal(virtq_start(&f->q, NULL), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	mem_free(f->mem);
	free(f);
	return 0;
}

static u8 *host(struct fixture *f, u64 addr)
{
	return (u8 *)mem_region(f->mem, 0).host + addr;
}

/* --- start ------------------------- */

static void test_start_checks_sizes(void **state)
{
	static const u16 bad[] = { 0, 3, 5, 12, 255, 257, 512, 0x8000, 0xffff };
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct err err = { 0 };

		f->q.size = bad[i];
		assert_int_equal(virtq_start(&f->q, &err), -EINVAL);
		assert_int_equal(err.code, -EINVAL);
		assert_says(err.msg, "size");
	}
	for (unsigned n = 1; n <= VIRTQ_MAX; n *= 2) {
		f->q.size = n;
		assert_int_equal(virtq_start(&f->q, NULL), 0);
	}
}

static void test_start_checks_addresses(void **state)
{
	struct fixture *f = *state;
	static const u64 bad[] = { MEM_LEN, MEM_LEN - 16, ~0ULL, ~0ULL - 15, 1ULL << 63, 1 * GIB };
	gpa_t *field[] = { &f->q.desc, &f->q.avail, &f->q.used };

	for (unsigned k = 0; k < ARRAY_SIZE(field); k++)
		for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
			program(f);
			*field[k] = GPA(bad[i]);
			assert_int_equal(virtq_start(&f->q, NULL), -EFAULT);
			assert_null(f->q.desc_ring);
			assert_null(f->q.avail_ring);
			assert_null(f->q.used_ring);
		}
}

static void test_start_checks_alignment(void **state)
{
	struct fixture *f = *state;

	program(f);
	f->q.desc.addr += 8;
	assert_int_equal(virtq_start(&f->q, NULL), -EFAULT);
	program(f);
	f->q.avail.addr += 1;
	assert_int_equal(virtq_start(&f->q, NULL), -EFAULT);
	program(f);
	f->q.used.addr += 2;
	assert_int_equal(virtq_start(&f->q, NULL), -EFAULT);
	program(f);
	f->q.desc.addr += 16;
	f->q.avail.addr += 2;
	f->q.used.addr += 4;
	assert_int_equal(virtq_start(&f->q, NULL), 0);
}

/* The rings may end exactly where memory does, and not a byte later. */
static void test_start_at_end_of_memory(void **state)
{
	struct fixture *f = *state;

	f->q.desc = GPA(MEM_LEN - 16 * QSIZE);
	assert_int_equal(virtq_start(&f->q, NULL), 0);
	f->q.desc = GPA(MEM_LEN - 16 * QSIZE + 16);
	assert_int_equal(virtq_start(&f->q, NULL), -EFAULT);
	program(f);
	f->q.avail = GPA(MEM_LEN - 6 - 2 * QSIZE);
	assert_int_equal(virtq_start(&f->q, NULL), 0);
	f->q.avail = GPA(MEM_LEN - 4 - 2 * QSIZE);
	assert_int_equal(virtq_start(&f->q, NULL), -EFAULT);
	program(f);
	f->q.used = GPA(MEM_LEN - 8 - 8 * QSIZE);	/* 6 bytes of head and tail, aligned */
	assert_int_equal(virtq_start(&f->q, NULL), 0);
	f->q.used = GPA(MEM_LEN - 4 - 8 * QSIZE);
	assert_int_equal(virtq_start(&f->q, NULL), -EFAULT);
}

static void test_stopped_queue_is_silent(void **state)
{
	struct fixture *f = *state;

	ring_desc(&f->r, 0, DATA, 8, 0, 0);
	ring_offer(&f->r, 0);
	virtq_stop(&f->q);
	assert_int_equal(virtq_pop(&f->q, &f->c), 0);
	virtq_push(&f->q, 0, 0);
	virtq_flush(&f->q);
	assert_int_equal(ring_used_idx(&f->r), 0);
	assert_int_equal(f->raises, 0);
}

static void test_reset_forgets_the_driver(void **state)
{
	struct fixture *f = *state;

	f->q.index = 3;
	f->q.next_avail = 7;
	f->q.event_idx = f->q.ready = f->q.broken = true;
	virtq_reset(&f->q);
	assert_ptr_equal(f->q.mem, f->mem);
	assert_ptr_equal(f->q.irq, &f->irq);
	assert_int_equal(f->q.index, 3);
	assert_int_equal(f->q.size, VIRTQ_MAX);
	assert_int_equal(f->q.desc.addr, 0);
	assert_int_equal(f->q.next_avail, 0);
	assert_false(f->q.ready || f->q.event_idx || f->q.indirect || f->q.broken);
	assert_null(f->q.used_ring);
}

/* --- good chains ------------------------- */

static void test_empty(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(virtq_pop(&f->q, &f->c), 0);
	assert_false(f->q.broken);
	assert_int_equal(f->q.budget, VIRTQ_MAX);
}

static void test_chain_across_descriptors(void **state)
{
	struct fixture *f = *state;

	ring_desc(&f->r, 5, DATA, 16, NEXT, 2);
	ring_desc(&f->r, 2, DATA + 0x1000, 100, NEXT, 9);
	ring_desc(&f->r, 9, DATA + 0x2000, 512, NEXT | IN, 0);
	ring_desc(&f->r, 0, DATA + 0x3000, 1, IN, 77);
	ring_offer(&f->r, 5);
	assert_int_equal(virtq_pop(&f->q, &f->c), 1);
	assert_int_equal(f->c.head, 5);
	assert_int_equal(f->c.out.nr, 2);
	assert_int_equal(f->c.out.len, 116);
	assert_int_equal(f->c.in.nr, 2);
	assert_int_equal(f->c.in.len, 513);
	assert_ptr_equal(f->c.out.iov[0].iov_base, host(f, DATA));
	assert_int_equal(f->c.out.iov[0].iov_len, 16);
	assert_ptr_equal(f->c.out.iov[1].iov_base, host(f, DATA + 0x1000));
	assert_int_equal(f->c.out.iov[1].iov_len, 100);
	assert_ptr_equal(f->c.in.iov[0].iov_base, host(f, DATA + 0x2000));
	assert_int_equal(f->c.in.iov[0].iov_len, 512);
	assert_ptr_equal(f->c.in.iov[1].iov_base, host(f, DATA + 0x3000));
	assert_int_equal(f->c.in.iov[1].iov_len, 1);
	assert_int_equal(virtq_pop(&f->q, &f->c), 0);
}

static void test_whole_queue_in_one_chain(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < QSIZE; i++)
		ring_desc(&f->r, i, DATA + i * 64, 64, i + 1 < QSIZE ? NEXT : 0, i + 1);
	ring_offer(&f->r, 0);
	assert_int_equal(virtq_pop(&f->q, &f->c), 1);
	assert_int_equal(f->c.out.nr, QSIZE);
	assert_int_equal(f->c.out.len, 64 * QSIZE);
	assert_int_equal(f->c.in.nr, 0);
}

static void test_indirect(void **state)
{
	struct fixture *f = *state;

	ring_desc_at(f->mem, TABLE, 0, DATA, 8, NEXT, 2);
	ring_desc_at(f->mem, TABLE, 2, DATA + 0x100, 32, IN, 0);
	ring_desc(&f->r, 1, TABLE, 48, INDIRECT, 0);
	ring_offer(&f->r, 1);
	assert_int_equal(virtq_pop(&f->q, &f->c), 1);
	assert_int_equal(f->c.head, 1);
	assert_int_equal(f->c.out.len, 8);
	assert_ptr_equal(f->c.out.iov[0].iov_base, host(f, DATA));
	assert_int_equal(f->c.in.len, 32);
	assert_ptr_equal(f->c.in.iov[0].iov_base, host(f, DATA + 0x100));
}

/* The write flag means nothing on an indirect descriptor (2.7.5.3.2). */
static void test_indirect_ignores_write_flag(void **state)
{
	struct fixture *f = *state;

	ring_desc_at(f->mem, TABLE, 0, DATA, 8, 0, 0);
	ring_desc(&f->r, 0, TABLE, 16, INDIRECT | IN, 0);
	ring_offer(&f->r, 0);
	assert_int_equal(virtq_pop(&f->q, &f->c), 1);
	assert_int_equal(f->c.out.len, 8);
	assert_int_equal(f->c.in.len, 0);
}

/* Longer than the queue, as indirect tables may be, up to CHAIN_MAX. */
static void test_indirect_longest(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < CHAIN_MAX; i++)
		ring_desc_at(f->mem, TABLE, i, DATA + 16 * i, 16, i + 1 < CHAIN_MAX ? NEXT : 0,
			     i + 1);
	ring_desc(&f->r, 0, TABLE, 16 * CHAIN_MAX, INDIRECT, 0);
	ring_offer(&f->r, 0);
	assert_int_equal(virtq_pop(&f->q, &f->c), 1);
	assert_int_equal(f->c.out.nr, CHAIN_MAX);
	assert_int_equal(f->c.out.len, 16 * CHAIN_MAX);
}

static void test_index_wraps(void **state)
{
	struct fixture *f = *state;

	f->q.next_avail = f->q.next_used = f->q.signalled = 0xfffe;
	ring_set_avail_idx(&f->r, 0xfffe);
	for (int i = 0; i < 5; i++) {
		ring_desc(&f->r, i, DATA + i, 1, 0, 0);
		ring_offer(&f->r, i);
	}
	for (int i = 0; i < 5; i++) {
		assert_int_equal(virtq_pop(&f->q, &f->c), 1);
		assert_int_equal(f->c.head, i);
		virtq_push(&f->q, f->c.head, i);
	}
	assert_int_equal(virtq_pop(&f->q, &f->c), 0);
	virtq_flush(&f->q);
	assert_int_equal(ring_used_idx(&f->r), 3);
	assert_int_equal(ring_used(&f->r, 0xffff).id, 1);
	assert_int_equal(ring_used(&f->r, 2).id, 4);
	assert_int_equal(ring_used(&f->r, 2).len, 4);
}

/* --- bad chains: -EPROTO, and then nothing any more ------------------------- */

static void refused(struct fixture *f)
{
	assert_int_equal(virtq_pop(&f->q, &f->c), -EPROTO);
	assert_true(f->q.broken);
	assert_int_equal(virtq_pop(&f->q, &f->c), 0);
}

static void refused_head(struct fixture *f, u16 head)
{
	ring_offer(&f->r, head);
	refused(f);
}

static void test_head_out_of_range(void **state)
{
	refused_head(*state, QSIZE);
}

static void test_head_far_out_of_range(void **state)
{
	refused_head(*state, 0xffff);
}

static void test_next_out_of_range(void **state)
{
	struct fixture *f = *state;

	ring_desc(&f->r, 0, DATA, 8, NEXT, QSIZE);
	refused_head(f, 0);
}

static void test_loop_on_itself(void **state)
{
	struct fixture *f = *state;

	ring_desc(&f->r, 3, DATA, 8, NEXT, 3);
	refused_head(f, 3);
}

static void test_loop_of_empty_descriptors(void **state)
{
	struct fixture *f = *state;

	ring_desc(&f->r, 0, DATA, 0, NEXT, 1);
	ring_desc(&f->r, 1, DATA, 0, NEXT, 0);
	refused_head(f, 0);
}

static void test_loop_after_a_tail(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < QSIZE; i++)
		ring_desc(&f->r, i, DATA, 8, NEXT, i + 1 < QSIZE ? i + 1 : QSIZE / 2);
	refused_head(f, 0);
}

static void test_loop_in_indirect(void **state)
{
	struct fixture *f = *state;

	ring_desc_at(f->mem, TABLE, 0, DATA, 8, NEXT, 1);
	ring_desc_at(f->mem, TABLE, 1, DATA, 8, NEXT, 0);
	ring_desc(&f->r, 0, TABLE, 32, INDIRECT, 0);
	refused_head(f, 0);
}

static void test_indirect_in_indirect(void **state)
{
	struct fixture *f = *state;

	ring_desc_at(f->mem, TABLE, 0, TABLE + 0x100, 16, INDIRECT, 0);
	ring_desc_at(f->mem, TABLE + 0x100, 0, DATA, 8, 0, 0);
	ring_desc(&f->r, 0, TABLE, 16, INDIRECT, 0);
	refused_head(f, 0);
}

static void test_indirect_with_next(void **state)
{
	struct fixture *f = *state;

	ring_desc_at(f->mem, TABLE, 0, DATA, 8, 0, 0);
	ring_desc(&f->r, 0, TABLE, 16, INDIRECT | NEXT, 1);
	ring_desc(&f->r, 1, DATA, 8, 0, 0);
	refused_head(f, 0);
}

static void test_indirect_not_negotiated(void **state)
{
	struct fixture *f = *state;

	f->q.indirect = false;
	ring_desc_at(f->mem, TABLE, 0, DATA, 8, 0, 0);
	ring_desc(&f->r, 0, TABLE, 16, INDIRECT, 0);
	refused_head(f, 0);
}

static void test_indirect_table_lengths(void **state)
{
	static const u32 bad[] = { 0, 1, 15, 17, 31, 0xffffffff };
	struct fixture *f = *state;

	ring_desc_at(f->mem, TABLE, 0, DATA, 8, 0, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		f->q.broken = false;
		ring_desc(&f->r, i, TABLE, bad[i], INDIRECT, 0);
		refused_head(f, i);
	}
}

static void test_indirect_next_outside_table(void **state)
{
	struct fixture *f = *state;

	ring_desc_at(f->mem, TABLE, 0, DATA, 8, NEXT, 1);
	ring_desc_at(f->mem, TABLE, 1, DATA, 8, 0, 0);
	ring_desc(&f->r, 0, TABLE, 16, INDIRECT, 0);
	refused_head(f, 0);
}

static void test_indirect_table_outside_memory(void **state)
{
	static const u64 bad[] = { MEM_LEN, MEM_LEN - 8, ~0ULL - 15, ~0ULL - 7, 1ULL << 40 };
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		f->q.broken = false;
		ring_desc(&f->r, i, bad[i], 32, INDIRECT, 0);
		refused_head(f, i);
	}
}

/* The first entry is the last of memory; the length promises more, whether it is used or not. */
static void test_indirect_table_leaves_memory(void **state)
{
	static const u32 len[] = { 32, 16 * 32768, 0xfffffff0 };
	struct fixture *f = *state;

	for (unsigned i = 0; i < 2 * ARRAY_SIZE(len); i++) {
		f->q.broken = false;
		ring_desc_at(f->mem, MEM_LEN - 16, 0, DATA, 8, i % 2 ? NEXT : 0, 1);
		ring_desc(&f->r, 0, MEM_LEN - 16, len[i / 2], INDIRECT, 0);
		refused_head(f, 0);
	}
}

static void test_buffers_outside_memory(void **state)
{
	static const struct { u64 addr; u32 len; } bad[] = {
		{ MEM_LEN, 1 }, { MEM_LEN - 1, 2 }, { MEM_LEN - 4096, 4097 }, { ~0ULL, 1 },
		{ ~0ULL, 2 }, { ~0ULL - 4095, 4096 }, { 0, 0xffffffff }, { DATA, 0x80000000 },
		{ 1ULL << 63, 16 }, { 4 * GIB, 16 },
	};
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		f->q.broken = false;
		ring_desc(&f->r, 0, bad[i].addr, bad[i].len, i % 2 ? IN : 0, 0);
		refused_head(f, 0);
	}
}

static void test_buffer_up_to_the_end_of_memory(void **state)
{
	struct fixture *f = *state;

	ring_desc(&f->r, 0, MEM_LEN - 4096, 4096, IN, 0);
	ring_offer(&f->r, 0);
	assert_int_equal(virtq_pop(&f->q, &f->c), 1);
	assert_int_equal(f->c.in.len, 4096);
}

static void test_writable_before_readable(void **state)
{
	struct fixture *f = *state;

	ring_desc(&f->r, 0, DATA, 8, IN | NEXT, 1);
	ring_desc(&f->r, 1, DATA, 8, 0, 0);
	refused_head(f, 0);
}

static void test_too_many_pieces(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i <= CHAIN_MAX; i++)
		ring_desc_at(f->mem, TABLE, i, DATA + i, 1, i < CHAIN_MAX ? NEXT : 0, i + 1);
	ring_desc(&f->r, 0, TABLE, 16 * (CHAIN_MAX + 1), INDIRECT, 0);
	refused_head(f, 0);
}

/* Descriptors may lie over each other, so that memory does not bound their sum. */
static void test_longer_than_a_length(void **state)
{
	enum { LEN = 16 * MIB, PIECES = 256 };
	struct fixture *f = *state;

	mem_free(f->mem);
	assert_int_equal(mem_new(&f->mem, LEN, false, NULL), 0);
	f->q.mem = f->mem;
	for (unsigned more = 0; more <= 1; more++) {
		ring_init(&f->r, f->mem, BASE, QSIZE);
		virtq_reset(&f->q);
		program(f);
		assert_int_equal(virtq_start(&f->q, NULL), 0);
		for (u16 i = 0; i < PIECES; i++)
			ring_desc_at(f->mem, TABLE, i, 0, i || more ? LEN : LEN - 1,
				     (i ? IN : 0) | (i + 1 < PIECES ? NEXT : 0), i + 1);
		ring_desc(&f->r, 0, TABLE, 16 * PIECES, INDIRECT, 0);
		if (more) {
			refused_head(f, 0);
			continue;
		}
		ring_offer(&f->r, 0);
		assert_int_equal(virtq_pop(&f->q, &f->c), 1);
		assert_int_equal(f->c.out.len + f->c.in.len, UINT32_MAX);
	}
}

static void test_avail_index_too_far(void **state)
{
	struct fixture *f = *state;

	ring_set_avail_idx(&f->r, QSIZE + 1);
	refused(f);
}

static void test_avail_index_backwards(void **state)
{
	struct fixture *f = *state;

	ring_set_avail_idx(&f->r, 0xffff);
	refused(f);
}

static void test_avail_full_is_fine(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < QSIZE; i++) {
		ring_desc(&f->r, i, DATA, 1, 0, 0);
		ring_offer(&f->r, i);
	}
	for (int i = 0; i < QSIZE; i++)
		assert_int_equal(virtq_pop(&f->q, &f->c), 1);
	assert_int_equal(virtq_pop(&f->q, &f->c), 0);
}

/* --- what changes while it is looked at ------------------------- */

/* What was taken is all in memory, and as long as it says. */
static void check_taken(struct fixture *f)
{
	const struct sg *sg[] = { &f->c.out, &f->c.in };

	for (unsigned i = 0; i < ARRAY_SIZE(sg); i++) {
		size_t len = 0;

		for (int k = 0; k < sg[i]->nr; k++) {
			const struct iovec *v = &sg[i]->iov[k];

			assert_in_range((uintptr_t)v->iov_base, (uintptr_t)host(f, 0),
					(uintptr_t)host(f, MEM_LEN) - v->iov_len);
			len += v->iov_len;
		}
		assert_int_equal(sg[i]->len, len);
	}
}

/* A chain of which len bytes at addr change after each of the reads that it takes, in turn.
 * What is judged is what is used: it is as it was, or refused. */
static void change_between_reads(struct fixture *f, u64 addr, const void *now, size_t len,
				 bool sound)
{
	u8 was[64];
	unsigned after = 0, reads;

	assert_int_equal(mem_read(f->mem, GPA(addr), was, len), 0);
	do {
		int rc;

		assert_int_equal(mem_write(f->mem, GPA(addr), was, len), 0);
		f->q.broken = false;
		f->q.next_avail = 0;
		fetch_begin(host(f, addr), now, len, ++after);
		rc = virtq_pop(&f->q, &f->c);
		reads = fetch_end();
		assert_true(rc == -EPROTO || (rc == 1 && sound));
		if (rc == 1) {
			assert_int_equal(f->c.head, 0);
			check_taken(f);
		}
	} while (after < reads);
	assert_true(reads > 0);
}

/* Of 512 bytes that the device writes, at first. */
static void change_descriptor(struct fixture *f, u64 table)
{
	static const struct vring_desc now[] = {
		{ MEM_LEN, 512, IN, 0 }, { DATA, 0xfffffff0, IN, 0 }, { DATA, 4096, IN, 0 },
		{ DATA, 512, 0, 0 }, { DATA, 512, IN | NEXT, QSIZE },
		{ TABLE, 0xfffffff0, INDIRECT, 0 },
	};

	ring_desc_at(f->mem, table, 0, DATA, 512, IN, 0);
	ring_offer(&f->r, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(now); i++)
		change_between_reads(f, table, &now[i], sizeof(now[i]), true);
}

static void test_descriptor_changes(void **state)
{
	struct fixture *f = *state;

	change_descriptor(f, f->r.desc);
}

static void test_table_entry_changes(void **state)
{
	struct fixture *f = *state;

	ring_desc(&f->r, 0, TABLE, 16, INDIRECT, 0);
	change_descriptor(f, TABLE);
}

/* The table is the last of memory, and its chain goes on behind it. */
static void test_table_grows(void **state)
{
	static const struct vring_desc now = { MEM_LEN - 32, 48, INDIRECT, 0 };
	struct fixture *f = *state;

	ring_desc_at(f->mem, MEM_LEN - 32, 0, DATA, 8, NEXT, 2);
	ring_desc(&f->r, 0, MEM_LEN - 32, 32, INDIRECT, 0);
	ring_offer(&f->r, 0);
	change_between_reads(f, f->r.desc, &now, sizeof(now), false);
}

static void test_head_changes(void **state)
{
	static const u16 now = 0xffff;
	struct fixture *f = *state;

	ring_desc(&f->r, 0, DATA, 512, IN, 0);
	ring_offer(&f->r, 0);
	change_between_reads(f, f->r.avail + 4, &now, sizeof(now), true);
}

/* --- answers, notifications ------------------------- */

static void offer_simple(struct fixture *f, int nr)
{
	while (nr--) {
		u16 i = f->r.next_avail % QSIZE;

		ring_desc(&f->r, i, DATA, 8, IN, 0);
		ring_offer(&f->r, i);
	}
}

static void answer(struct fixture *f, int nr)
{
	while (nr--) {
		assert_int_equal(virtq_pop(&f->q, &f->c), 1);
		virtq_push(&f->q, f->c.head, 3);
	}
	virtq_flush(&f->q);
}

static void test_push_is_staged_until_flush(void **state)
{
	struct fixture *f = *state;

	offer_simple(f, 2);
	assert_int_equal(virtq_pop(&f->q, &f->c), 1);
	virtq_push(&f->q, f->c.head, 8);
	assert_int_equal(virtq_pop(&f->q, &f->c), 1);
	virtq_push(&f->q, f->c.head, 5);
	assert_int_equal(ring_used_idx(&f->r), 0);
	assert_int_equal(f->raises, 0);
	virtq_flush(&f->q);
	assert_int_equal(ring_used_idx(&f->r), 2);
	assert_int_equal(ring_used(&f->r, 0).id, 0);
	assert_int_equal(ring_used(&f->r, 0).len, 8);
	assert_int_equal(ring_used(&f->r, 1).id, 1);
	assert_int_equal(ring_used(&f->r, 1).len, 5);
	assert_int_equal(f->raises, 1);
	virtq_flush(&f->q);
	assert_int_equal(f->raises, 1);
}

static void test_no_interrupt_flag(void **state)
{
	struct fixture *f = *state;

	offer_simple(f, 2);
	ring_set_avail_flags(&f->r, VRING_AVAIL_F_NO_INTERRUPT);
	answer(f, 1);
	assert_int_equal(ring_used_idx(&f->r), 1);
	assert_int_equal(f->raises, 0);
	ring_set_avail_flags(&f->r, 0);
	answer(f, 1);
	assert_int_equal(f->raises, 1);
}

static void test_no_notify_flag(void **state)
{
	struct fixture *f = *state;

	offer_simple(f, 1);
	assert_int_equal(virtq_pop(&f->q, &f->c), 1);
	assert_int_equal(ring_used_flags(&f->r), VRING_USED_F_NO_NOTIFY);
	assert_int_equal(virtq_pop(&f->q, &f->c), 0);
	assert_int_equal(ring_used_flags(&f->r), 0);
}

static void test_event_idx_interrupts(void **state)
{
	struct fixture *f = *state;

	f->q.event_idx = true;
	/* The flag does not count when events are negotiated. */
	ring_set_avail_flags(&f->r, VRING_AVAIL_F_NO_INTERRUPT);
	ring_set_used_event(&f->r, 2);
	offer_simple(f, 6);
	answer(f, 2);		/* used 0 and 1: the driver waits for number 2 */
	assert_int_equal(f->raises, 0);
	answer(f, 1);
	assert_int_equal(f->raises, 1);
	answer(f, 1);
	assert_int_equal(f->raises, 1);
	ring_set_used_event(&f->r, 4);
	answer(f, 2);		/* passes 4 in one batch */
	assert_int_equal(f->raises, 2);
}

static void test_event_idx_kicks(void **state)
{
	struct fixture *f = *state;

	f->q.event_idx = true;
	offer_simple(f, 3);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(virtq_pop(&f->q, &f->c), 1);
		assert_int_equal(ring_avail_event(&f->r), 0);
	}
	assert_int_equal(virtq_pop(&f->q, &f->c), 0);
	assert_int_equal(ring_avail_event(&f->r), 3);
	assert_int_equal(ring_used_flags(&f->r), 0);
}

static void test_budget(void **state)
{
	struct fixture *f = *state;

	offer_simple(f, 3);
	f->q.budget = 2;
	assert_int_equal(virtq_pop(&f->q, &f->c), 1);
	assert_int_equal(virtq_pop(&f->q, &f->c), 1);
	assert_int_equal(virtq_pop(&f->q, &f->c), 0);
	assert_int_equal(f->q.budget, 0);
	f->q.budget = 1;
	assert_int_equal(virtq_pop(&f->q, &f->c), 1);
	assert_int_equal(f->c.head, 2);
}

static void test_unpop(void **state)
{
	struct fixture *f = *state;

	offer_simple(f, 2);
	assert_int_equal(virtq_pop(&f->q, &f->c), 1);
	assert_int_equal(f->c.head, 0);
	virtq_unpop(&f->q);
	assert_int_equal(virtq_pop(&f->q, &f->c), 1);
	assert_int_equal(f->c.head, 0);
	assert_int_equal(virtq_pop(&f->q, &f->c), 1);
	assert_int_equal(f->c.head, 1);
	virtq_flush(&f->q);
	assert_int_equal(ring_used_idx(&f->r), 0);
}

/* --- cursors ------------------------- */

static void test_sg_read(void **state)
{
	char a[] = "abc", b[] = "defgh", got[16] = "";
	struct iovec iov[] = { { a, 3 }, { a, 0 }, { b, 5 } };
	struct sg sg = { iov, 3, 8 };

	(void)state;
	assert_int_equal(sg_read(&sg, got, 2), 2);
	assert_memory_equal(got, "ab", 2);
	assert_int_equal(sg.len, 6);
	assert_int_equal(sg_read(&sg, got, 3), 3);
	assert_memory_equal(got, "cde", 3);
	assert_int_equal(sg_read(&sg, got, 100), 3);
	assert_memory_equal(got, "fgh", 3);
	assert_int_equal(sg.len, 0);
	assert_int_equal(sg.nr, 0);
	assert_int_equal(sg_read(&sg, got, 1), 0);
}

static void test_sg_write(void **state)
{
	char a[4] = "....", b[4] = "....";
	struct iovec iov[] = { { a, 3 }, { b, 2 } };
	struct sg sg = { iov, 2, 5 };

	(void)state;
	assert_int_equal(sg_write(&sg, "12", 2), 2);
	assert_int_equal(sg_write(&sg, "3456789", 7), 3);
	assert_memory_equal(a, "123.", 4);
	assert_memory_equal(b, "45..", 4);
	assert_int_equal(sg.len, 0);
	assert_int_equal(sg_write(&sg, "x", 1), 0);
}

static void test_sg_take_last(void **state)
{
	u8 a[2], b[1];
	struct iovec iov[] = { { a, 2 }, { b, 1 }, { a, 0 } };
	struct sg sg = { iov, 3, 3 };

	(void)state;
	assert_ptr_equal(sg_take_last(&sg), &b[0]);
	assert_int_equal(sg.len, 2);
	assert_ptr_equal(sg_take_last(&sg), &a[1]);
	assert_int_equal(sg.nr, 1);
	assert_int_equal(iov[0].iov_len, 1);
	assert_ptr_equal(sg_take_last(&sg), &a[0]);
	assert_int_equal(sg.nr, 0);
	assert_int_equal(sg.len, 0);
	assert_null(sg_take_last(&sg));
}

/* --- what is written is in the next diff -------------------- */

static u64 dirty(struct fixture *f, u64 addr)
{
	return mem_dirty_pages(f->mem, 0)[addr / MEM_PAGE / 64] >> addr / MEM_PAGE % 64 & 1;
}

static void test_dirty(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(mem_track_dirty(f->mem, NULL), 0);
	ring_desc(&f->r, 0, DATA, 16, NEXT, 1);
	ring_desc(&f->r, 1, DATA + 2 * MEM_PAGE - 1, MEM_PAGE + 2, IN, 0);
	ring_offer(&f->r, 0);

	mem_forget_dirty(f->mem);
	assert_int_equal(virtq_pop(&f->q, &f->c), 1);
	assert_int_equal(dirty(f, DATA), 0);
	for (int page = 1; page <= 3; page++)
		assert_int_equal(dirty(f, DATA + page * MEM_PAGE), 1);
	assert_int_equal(dirty(f, DATA + 4 * MEM_PAGE), 0);
	assert_int_equal(dirty(f, f->r.used), 1);	/* no kicks now */

	mem_forget_dirty(f->mem);
	virtq_push(&f->q, f->c.head, 1);
	virtq_flush(&f->q);
	assert_int_equal(dirty(f, f->r.used), 1);
	assert_int_equal(dirty(f, f->r.avail), 0);

	mem_forget_dirty(f->mem);
	assert_int_equal(virtq_pop(&f->q, &f->c), 0);
	assert_int_equal(dirty(f, f->r.used), 1);	/* kicks again */
	f->q.event_idx = true;
	mem_forget_dirty(f->mem);
	assert_int_equal(virtq_pop(&f->q, &f->c), 0);
	assert_int_equal(dirty(f, f->r.used), 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_start_checks_sizes), T(test_start_checks_addresses),
		T(test_start_checks_alignment), T(test_start_at_end_of_memory),
		T(test_stopped_queue_is_silent), T(test_reset_forgets_the_driver),
		T(test_empty), T(test_chain_across_descriptors), T(test_whole_queue_in_one_chain),
		T(test_indirect), T(test_indirect_ignores_write_flag), T(test_indirect_longest),
		T(test_index_wraps),
		T(test_head_out_of_range), T(test_head_far_out_of_range),
		T(test_next_out_of_range), T(test_loop_on_itself),
		T(test_loop_of_empty_descriptors), T(test_loop_after_a_tail),
		T(test_loop_in_indirect), T(test_indirect_in_indirect), T(test_indirect_with_next),
		T(test_indirect_not_negotiated), T(test_indirect_table_lengths),
		T(test_indirect_next_outside_table), T(test_indirect_table_outside_memory),
		T(test_indirect_table_leaves_memory), T(test_buffers_outside_memory),
		T(test_buffer_up_to_the_end_of_memory), T(test_writable_before_readable),
		T(test_too_many_pieces), T(test_longer_than_a_length), T(test_avail_index_too_far),
		T(test_avail_index_backwards), T(test_avail_full_is_fine),
		T(test_descriptor_changes), T(test_table_entry_changes), T(test_table_grows),
		T(test_head_changes),
		T(test_push_is_staged_until_flush), T(test_no_interrupt_flag),
		T(test_no_notify_flag), T(test_event_idx_interrupts), T(test_event_idx_kicks),
		T(test_budget), T(test_unpop), T(test_dirty),
		cmocka_unit_test(test_sg_read), cmocka_unit_test(test_sg_write),
		cmocka_unit_test(test_sg_take_last),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
