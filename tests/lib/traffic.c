/* traffic.c: see traffic.h. */
#include "tests/lib/traffic.h"
#include <linux/virtio_blk.h>
#include <stdlib.h>
#include "tests/lib/test.h"

enum {
	IN = VIRTIO_BLK_T_IN, OUT = VIRTIO_BLK_T_OUT, FLUSH = VIRTIO_BLK_T_FLUSH,
	DISCARD = VIRTIO_BLK_T_DISCARD, ZEROES = VIRTIO_BLK_T_WRITE_ZEROES,
};

void traffic_new(struct traffic *t, struct vblk_setup *s, u32 region, u64 seed)
{
	*t = (struct traffic){ .region = region, .size = (u64)region * TRAFFIC_REGIONS, .seed = seed };
	s->size = t->size;
	s->features = ~0ULL;
	s->o.discard = s->o.write_zeroes = true;
	t->model = calloc(1, t->size);
	for (u64 i = 0; i < t->size && s->below; i++)
		t->model[i] = vblk_below(i);
	for (unsigned q = 0; q < VBLK_QUEUES; q++)
		for (unsigned n = 0; n < VBLK_SLOTS; n++)
			t->work[q][n].data = malloc(region);
	vblk_new(&t->v, s);
}

void traffic_free(struct traffic *t)
{
	if (t->v.dev)
		vblk_free(&t->v);
	for (unsigned q = 0; q < VBLK_QUEUES; q++)
		for (unsigned n = 0; n < VBLK_SLOTS; n++)
			free(t->work[q][n].data);
	free(t->model);
	*t = (struct traffic){ 0 };
}

static int free_region(struct traffic *t)
{
	int n = draw(&t->seed) % TRAFFIC_REGIONS;

	while (t->taken[n])
		n = (n + 1) % TRAFFIC_REGIONS;
	t->taken[n] = true;
	return n;
}

static void offer(struct traffic *t, unsigned q, unsigned n)
{
	static const u32 types[] = { IN, IN, IN, OUT, OUT, OUT, OUT, ZEROES, DISCARD, FLUSH };
	struct work *w = &t->work[q][n];
	u64 in = draw(&t->seed) % (t->region / 512) * 512;

	w->type = types[draw(&t->seed) % ARRAY_SIZE(types)];
	w->pinning = false;
	w->region = -1;
	if (w->type == FLUSH) {
		vblk_offer(&t->v, q, n, FLUSH, 0, 0);
		return;
	}
	w->region = free_region(t);
	w->offset = (u64)w->region * t->region + in;
	w->len = 512 + draw(&t->seed) % ((t->region - in) / 512) * 512;
	if (draw(&t->seed) & 1)
		w->len = MIN(w->len, 4096);
	if (w->type == OUT) {
		for (u32 i = 0; i < w->len; i += 8) {
			u64 word = draw(&t->seed);

			memcpy(w->data + i, &word, 8);
		}
		vblk_put(&t->v, q, n, w->data, w->len);
	} else if (w->type != IN) {
		struct virtio_blk_discard_write_zeroes seg = { w->offset / 512, w->len / 512,
							       w->type == ZEROES && draw(&t->seed) & 1 };

		vblk_put(&t->v, q, n, &seg, sizeof(seg));
		vblk_offer(&t->v, q, n, w->type, 0, sizeof(seg));
		return;
	}
	vblk_offer(&t->v, q, n, w->type, w->offset / 512, w->len);
}

void traffic_offer(struct traffic *t, unsigned nr)
{
	while (nr--) {
		unsigned q = draw(&t->seed) % t->v.nr_queues, n = 0;

		while (n < VBLK_SLOTS && t->v.slot[q][n].busy)
			n++;
		if (n == VBLK_SLOTS)
			continue;
		offer(t, q, n);
		if (draw(&t->seed) % 3)
			vblk_kick(&t->v, q);
	}
	for (unsigned q = 0; q < t->v.nr_queues; q++)
		vblk_kick(&t->v, q);
}

/* --- answers --------------------------------------------------------------------------------- */

/* What was it that this one did?  Read it, before anything else uses the region. */
static void offer_pin(struct traffic *t, unsigned q, unsigned n)
{
	struct work *w = &t->work[q][n];

	if (!w->pinning)
		w->unsure = w->type;
	w->type = IN;
	w->pinning = true;
	vblk_offer(&t->v, q, n, IN, w->offset / 512, w->len);
	vblk_kick(&t->v, q);
}

static const u8 zeroes[512];

/* All of it, or nothing; but a discard may do what it likes with each sector. */
static void pin(struct traffic *t, struct work *w, const u8 *got)
{
	u8 *at = t->model + w->offset;

	if (w->unsure == DISCARD) {
		for (u32 i = 0; i < w->len; i += 512)
			if (memcmp(got + i, at + i, 512))
				assert_memory_equal(got + i, zeroes, 512);
	} else if (memcmp(got, at, w->len)) {
		if (w->unsure == ZEROES)
			memset(w->data, 0, w->len);
		assert_memory_equal(got, w->data, w->len);
	}
	memcpy(at, got, w->len);
}

static void answered(struct traffic *t, unsigned q, unsigned n)
{
	static u8 got[TRAFFIC_REGION_MAX];
	struct work *w = &t->work[q][n];

	assert_int_equal(t->v.slot[q][n].status, VIRTIO_BLK_S_OK);
	if (w->type == DISCARD) {
		offer_pin(t, q, n);
		return;
	}
	if (w->type == IN) {
		assert_int_equal(t->v.slot[q][n].written, w->len + 1);
		vblk_get(&t->v, q, n, got, w->len);
		if (w->pinning)
			pin(t, w, got);
		else
			assert_memory_equal(got, t->model + w->offset, w->len);
	} else if (w->type == OUT) {
		memcpy(t->model + w->offset, w->data, w->len);
	} else if (w->type == ZEROES) {
		memset(t->model + w->offset, 0, w->len);
	}
	if (w->region >= 0)
		t->taken[w->region] = false;
	w->pinning = false;
}

void traffic_reap(struct traffic *t)
{
	bool busy[VBLK_QUEUES][VBLK_SLOTS];

	for (unsigned q = 0; q < t->v.nr_queues; q++)
		for (unsigned n = 0; n < VBLK_SLOTS; n++)
			busy[q][n] = t->v.slot[q][n].busy;
	vblk_reap(&t->v);
	for (unsigned q = 0; q < t->v.nr_queues; q++)
		for (unsigned n = 0; n < VBLK_SLOTS; n++)
			if (busy[q][n] && !t->v.slot[q][n].busy)
				answered(t, q, n);
}

static bool has_room(struct vblk *v)
{
	traffic_reap(container_of(v, struct traffic, v));
	return v->nr_busy < v->nr_queues * VBLK_SLOTS - 4;
}

static bool is_idle(struct vblk *v)
{
	traffic_reap(container_of(v, struct traffic, v));
	return !v->nr_busy;
}

void traffic_wait_for_room(struct traffic *t)	{ vblk_until(&t->v, has_room); }
void traffic_wait(struct traffic *t)		{ vblk_until(&t->v, is_idle); }

void traffic_start_over(struct traffic *t)
{
	bool busy[VBLK_QUEUES][VBLK_SLOTS];

	traffic_reap(t);
	for (unsigned q = 0; q < t->v.nr_queues; q++)
		for (unsigned n = 0; n < VBLK_SLOTS; n++)
			busy[q][n] = t->v.slot[q][n].busy;
	vblk_start(&t->v);
	for (unsigned q = 0; q < t->v.nr_queues; q++)
		for (unsigned n = 0; n < VBLK_SLOTS; n++) {
			struct work *w = &t->work[q][n];

			if (!busy[q][n] || w->region < 0)
				continue;
			if (w->type != IN || w->pinning)
				offer_pin(t, q, n);
			else
				t->taken[w->region] = false;
		}
}

bool traffic_is_unsure(const struct traffic *t, u64 offset)
{
	for (unsigned q = 0; q < t->v.nr_queues; q++)
		for (unsigned n = 0; n < VBLK_SLOTS; n++) {
			const struct work *w = &t->work[q][n];

			if (t->v.slot[q][n].busy && w->pinning && offset - w->offset < w->len)
				return true;
		}
	return false;
}

void traffic_compare(struct traffic *t)
{
	u8 *got = malloc(t->region);

	for (int first = 0; first < TRAFFIC_REGIONS; first += VBLK_SLOTS) {
		int nr = MIN(VBLK_SLOTS, TRAFFIC_REGIONS - first);

		for (int n = 0; n < nr; n++)
			vblk_offer(&t->v, 0, n, IN, (u64)(first + n) * t->region / 512, t->region);
		vblk_kick(&t->v, 0);
		vblk_wait(&t->v);
		for (int n = 0; n < nr; n++) {
			assert_int_equal(t->v.slot[0][n].status, VIRTIO_BLK_S_OK);
			vblk_get(&t->v, 0, n, got, t->region);
			assert_memory_equal(got, t->model + (u64)(first + n) * t->region, t->region);
		}
	}
	free(got);
}

void traffic_compare_file(struct traffic *t, const char *path, const char *format, const u8 *expect,
			  bool no_leaks)
{
	struct image_options o = { .format = format, .read_only = true };
	struct image_check c = { 0 };
	u8 *got = malloc(t->size);
	struct err err = { 0 };
	struct image *i;

	if (image_open(&i, path, &o, &err))
		fail_msg("%s", err.msg);
	assert_int_equal(image_read(i, 0, got, t->size), 0);
	assert_memory_equal(got, expect ? expect : t->model, t->size);
	assert_int_equal(image_check(i, false, &c, &err), 0);
	assert_int_equal(c.corruptions, 0);
	assert_true(!no_leaks || !c.leaks);
	image_close(i);
	free(got);
}
