/*
 * virtio_rng.c: a hostile driver of the entropy source.  Each sound request is
 * answered once, in order, with as much as it asked for; no other byte of the guest
 * changes; the driver is interrupted as it asked; what is broken says NEEDS_RESET,
 * and works after one.
 */
#include <string.h>
#include "tests/fuzz/lib/hostile.h"

enum { MOST = 256 };		/* bytes an answer has */

static void round_of(struct hostile *h, bool scribble)
{
	static struct hostile_chain c[VIRTQ_MAX];
	u32 len;
	u16 head;
	int nr = 0;

	hostile_look(h, true);
	while (hostile_next(h, 0, &c[nr]) > 0) {
		hostile_allow(h, &c[nr], MIN(c[nr].in, MOST));
		nr++;
	}
	hostile_before(h, scribble);
	hostile_kick(h, 0);
	fake_turn(&h->fake);
	hostile_after(h);
	if (h->entangled) {
		hostile_reset(h);
		return;
	}
	for (int i = 0; i < nr; i++) {
		fuzz_check(hostile_answer(h, 0, &head, &len), "%d answers of %d", i, nr);
		fuzz_check(head == c[i].head, "answer %d is of %u, not %u", i, head, c[i].head);
		fuzz_check(len == MIN(c[i].in, MOST), "answer %d has %u bytes", i, len);
	}
	fuzz_check(!hostile_answer(h, 0, &head, &len), "an answer to nothing: %u", head);
	if (h->sound && !h->q[0].broken)
		hostile_check_interrupts(h, (u16[HOSTILE_QUEUES]){ nr }, false);
	hostile_check_armed(h, 0);
}

/* Whatever was done to it. */
static void works(struct hostile *h)
{
	struct hostile_piece p = { HOSTILE_DATA, 32, true };
	static const u8 zero[32];

	hostile_start(h, 0, 1, true);
	memset(h->ram + HOSTILE_DATA, 0, 32);
	hostile_chain(h, 0, &p, 1);
	round_of(h, false);
	fuzz_check(h->q[0].next_used == 1 && memcmp(h->ram + HOSTILE_DATA, zero, 32),
		   "no entropy after a reset");
}

void fuzz_one(struct fuzz *f)
{
	struct hostile *h = hostile_begin(f);
	struct device *dev;
	struct virtio *v;

	fuzz_check(!virtio_rng_new(&h->fake.p, "rng0", NULL, &v, NULL), "virtio_rng_new");
	dev = hostile_plug(v);
	hostile_start(h, ~0ULL, 1, true);
	while (f->left) {
		u8 step = fuzz_u8(f);

		switch (step % 8) {
		case 0:
			hostile_start(h, fuzz_u64(f), 1, step & 0x80);
			break;
		case 1:
			hostile_poke(h, 0);
			break;
		case 2:
			if (step & 0x80)
				hostile_reset(h);
			break;
		case 3: case 4: case 5:
			hostile_offer(h, 0);
			break;
		default:
			round_of(h, step & 0x80);
		}
	}
	works(h);
	hostile_end(h, dev);
}
