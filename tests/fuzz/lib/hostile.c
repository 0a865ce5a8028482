/* hostile.c: see hostile.h. */
#include "tests/fuzz/lib/hostile.h"
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <string.h>

/* Of mark: descriptors, which must be read once; what else is read; used rings; what else
 * is written. */
enum { FETCHED = 1, READ = 2, USED = 4, WRITTEN = 8 };

static struct hostile *now;		/* for __wrap_sg_read; NULL: between two */

/* --- the machine ----------------------------------------------------------------------- */

struct hostile *hostile_begin(struct fuzz *f)
{
	static struct hostile h;

	if (!h.ram) {
		fake_init(&h.fake, HOSTILE_MEM, -1);
		h.ram = mem_region(h.fake.p.mem, 0).host;
	}
	h.in = f;
	memset(h.ram, 0, HOSTILE_MEM);
	memset(h.q, 0, sizeof(h.q));
	h.prepared = h.sound = h.running = h.paused = false;
	h.stale = false;
	h.raises = 0;
	now = &h;
	return &h;
}

struct device *hostile_plug(struct virtio *v)
{
	struct device *dev;
	struct err err;

	fuzz_check(!virtio_mmio_new(v, HOSTILE_BASE, HOSTILE_GSI, &dev, &err), "%s", err.msg);
	return dev;
}

void hostile_end(struct hostile *h, struct device *dev)
{
	device_destroy(dev);
	fuzz_check(!h->fake.chip.nr_live && !h->fake.nr_bells && !h->fake.mmio.nr && !h->fake.pio.nr,
		   "left behind: %d wires, %d doorbells, %d + %d ranges", h->fake.chip.nr_live,
		   h->fake.nr_bells, h->fake.mmio.nr, h->fake.pio.nr);
	now = NULL;
}

u32 hostile_get(struct hostile *h, u32 reg)
{
	return bus_read(&h->fake.mmio, HOSTILE_BASE + reg, 4);
}

void hostile_set(struct hostile *h, u32 reg, u32 value)
{
	bus_write(&h->fake.mmio, HOSTILE_BASE + reg, 4, value);
}

u8 hostile_status(struct hostile *h)
{
	return hostile_get(h, VIRTIO_MMIO_STATUS);
}

/* --- the driver ------------------------------------------------------------------------ */

/* Where a driver would put them, or somewhere. */
static void place_rings(struct hostile *h, struct hostile_queue *q, int i, bool well)
{
	u64 base = i * HOSTILE_RING;
	u8 how = well ? 0 : fuzz_u8(h->in);

	q->desc = base + HOSTILE_DESC;
	q->avail = base + HOSTILE_AVAIL;
	q->used = base + HOSTILE_USED;
	q->size = 1U << (well ? 4 : fuzz_below(h->in, 8));
	if (how & 0x80) {
		u64 *which[] = { &q->desc, &q->avail, &q->used };

		*which[how % 3] = how & 0x40 ? fuzz_u64(h->in) : fuzz_u16(h->in) << 1;
	}
	if ((how & 0x30) == 0x30)
		q->size = fuzz_u16(h->in);
}

static bool fits(u64 addr, u64 len, u64 align)
{
	u64 end;

	return !add_overflows(addr, len, &end) && end <= HOSTILE_MEM && addr % align == 0;
}

/* What virtio 1.2, 2.7 asks of them. */
static bool rings_are_sound(const struct hostile_queue *q, u32 max)
{
	u64 n = q->size;

	return n && n <= max && !(n & (n - 1)) && fits(q->desc, 16 * n, 16) &&
	       fits(q->avail, 6 + 2 * n, 2) && fits(q->used, 6 + 8 * n, 4);
}

void hostile_put(struct hostile *h, u64 at, const void *data, size_t len)
{
	if (at >= HOSTILE_MEM || len > HOSTILE_MEM - at)
		return;
	for (int i = 0; i < HOSTILE_QUEUES; i++)
		if (h->q[i].ready && at < h->q[i].used + 4 && at + len > h->q[i].used)
			return;
	memcpy(h->ram + at, data, len);
}

/* False: the device has to say NEEDS_RESET. */
static bool set_up_queue(struct hostile *h, int i, u64 features, bool well)
{
	struct hostile_queue *q = &h->q[i];
	u32 max;

	place_rings(h, q, i, well);
	memset(h->ram + i * HOSTILE_RING, 0, HOSTILE_RING);
	hostile_put(h, q->used, (u8[4]){ 0 }, 4);
	hostile_set(h, VIRTIO_MMIO_QUEUE_SEL, i);
	max = hostile_get(h, VIRTIO_MMIO_QUEUE_NUM_MAX);
	if (!max)
		return true;
	hostile_set(h, VIRTIO_MMIO_QUEUE_NUM, q->size);
	hostile_set(h, VIRTIO_MMIO_QUEUE_DESC_LOW, q->desc);
	hostile_set(h, VIRTIO_MMIO_QUEUE_DESC_HIGH, q->desc >> 32);
	hostile_set(h, VIRTIO_MMIO_QUEUE_AVAIL_LOW, q->avail);
	hostile_set(h, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, q->avail >> 32);
	hostile_set(h, VIRTIO_MMIO_QUEUE_USED_LOW, q->used);
	hostile_set(h, VIRTIO_MMIO_QUEUE_USED_HIGH, q->used >> 32);
	q->ready = well || fuzz_u8(h->in) & 0xf;
	if (q->ready)
		hostile_set(h, VIRTIO_MMIO_QUEUE_READY, 1);
	q->event_idx = features >> VIRTIO_RING_F_EVENT_IDX & 1;
	q->indirect = features >> VIRTIO_RING_F_INDIRECT_DESC & 1;
	return !q->ready || rings_are_sound(q, max);
}

static u64 offered(struct hostile *h)
{
	u64 low;

	hostile_set(h, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	low = hostile_get(h, VIRTIO_MMIO_DEVICE_FEATURES);
	hostile_set(h, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	return low | (u64)hostile_get(h, VIRTIO_MMIO_DEVICE_FEATURES) << 32;
}

void hostile_start(struct hostile *h, u64 features, int nr_queues, bool well)
{
	hostile_reset(h);
	features = (features & offered(h)) | 1ULL << VIRTIO_F_VERSION_1;
	h->features = features;
	hostile_set(h, VIRTIO_MMIO_STATUS, STATUS_ACK | STATUS_DRIVER);
	hostile_set(h, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	hostile_set(h, VIRTIO_MMIO_DRIVER_FEATURES, features);
	hostile_set(h, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	hostile_set(h, VIRTIO_MMIO_DRIVER_FEATURES, features >> 32);
	hostile_set(h, VIRTIO_MMIO_STATUS, STATUS_ACK | STATUS_DRIVER | STATUS_FEATURES_OK);
	h->prepared = h->sound = true;
	for (int i = 0; i < nr_queues; i++)
		h->sound &= set_up_queue(h, i, features, well);
	fuzz_check(hostile_status(h) == (STATUS_RUNNING & ~STATUS_DRIVER_OK), "status %#x",
		   hostile_status(h));
}

void hostile_reset(struct hostile *h)
{
	hostile_set(h, VIRTIO_MMIO_STATUS, 0);
	fuzz_check(!hostile_status(h), "status %#x after a reset", hostile_status(h));
	fuzz_check(!hostile_get(h, VIRTIO_MMIO_INTERRUPT_STATUS), "a reset left an interrupt");
	memset(h->q, 0, sizeof(h->q));
	h->prepared = h->sound = h->running = false;
	h->raises = fake_line(&h->fake, FAKE_EDGE, HOSTILE_GSI)->raises;
}

static void put16(struct hostile *h, u64 at, u16 value)
{
	hostile_put(h, at, &value, sizeof(value));
}

static void put_desc(struct hostile *h, u64 at, const struct hostile_piece *p, u16 flags, u16 next)
{
	struct vring_desc d = { .addr = p->addr, .len = p->len, .next = next,
				.flags = flags | (p->in ? VRING_DESC_F_WRITE : 0) };

	hostile_put(h, at, &d, sizeof(d));
}

static void offer_head(struct hostile *h, struct hostile_queue *q, u16 head)
{
	put16(h, q->avail + 4 + 2 * (q->offered % q->size), head);
	put16(h, q->avail + 2, ++q->offered);
}

u16 hostile_chain(struct hostile *h, int queue, const struct hostile_piece *p, int nr)
{
	struct hostile_queue *q = &h->q[queue];
	u16 head = q->next_desc % q->size;

	for (int i = 0; i < nr; i++) {
		u16 at = q->next_desc++ % q->size;

		put_desc(h, q->desc + 16 * at, &p[i], i + 1 < nr ? VRING_DESC_F_NEXT : 0,
			 (at + 1) % q->size);
	}
	offer_head(h, q, head);
	return head;
}

static u32 pick_len(struct fuzz *f)
{
	static const u32 len[] = { 0, 1, 2, 8, 10, 12, 13, 16, 64, 255, 256, 257, 512, 1024, 4096 };
	u8 b = fuzz_u8(f);

	return b < 240 ? len[b % ARRAY_SIZE(len)] : b < 248 ? fuzz_u16(f) : fuzz_u32(f);
}

static struct hostile_piece pick_piece(struct fuzz *f)
{
	u8 b = fuzz_u8(f);
	struct hostile_piece p = { .in = b & 1, .len = pick_len(f) };

	if (b < 0xe0)
		p.addr = HOSTILE_DATA + fuzz_u16(f) % HOSTILE_DATA_LEN;
	else if (b < 0xf8)
		p.addr = fuzz_u16(f);			/* over rings */
	else
		p.addr = fuzz_u64(f);			/* anywhere */
	return p;
}

static void offer_indirect(struct hostile *h, int queue, const struct hostile_piece *p, int nr)
{
	struct hostile_queue *q = &h->q[queue];
	/* Each entry of the ring has a table of its own, of eight. */
	u16 at = q->next_desc++ % q->size;
	u64 table = (u64)queue * HOSTILE_RING + HOSTILE_TABLE + at % 32 * 128;
	struct hostile_piece t = { .addr = table, .len = 16 * nr };

	for (int i = 0; i < nr; i++)
		put_desc(h, table + 16 * i, &p[i], i + 1 < nr ? VRING_DESC_F_NEXT : 0, i + 1);
	put_desc(h, q->desc + 16 * at, &t, VRING_DESC_F_INDIRECT, 0);
	offer_head(h, q, at);
}

void hostile_offer(struct hostile *h, int queue)
{
	u8 how = fuzz_u8(h->in);
	int nr = 1 + how % 7;
	struct hostile_piece p[8];
	bool in = false;

	if (!h->q[queue].ready || !h->sound)
		return;
	for (int i = 0; i < nr; i++) {
		p[i] = pick_piece(h->in);
		in |= p[i].in;
		if (!(how & 0x80))
			p[i].in = in;			/* readable ones first, as it should be */
	}
	if (how & 0x40)
		offer_indirect(h, queue, p, nr);
	else
		hostile_chain(h, queue, p, nr);
}

void hostile_poke(struct hostile *h, int queue)
{
	struct hostile_queue *q = &h->q[queue];
	struct hostile_piece p;
	u8 how = fuzz_u8(h->in);
	u64 value;

	if (!q->ready || !h->sound)
		return;
	switch (how % 8) {
	case 0:
		q->offered = how & 0x80 ? fuzz_u16(h->in) : q->offered + (how >> 3);
		put16(h, q->avail + 2, q->offered);
		break;
	case 1:
		put16(h, q->avail, fuzz_u16(h->in));
		break;
	case 2:
		put16(h, q->avail + 4 + 2 * q->size, q->next_used + (how >> 3) - 4);
		break;
	case 3:
		put16(h, q->avail + 4 + 2 * fuzz_below(h->in, q->size), fuzz_u16(h->in));
		break;
	case 4:
		p = pick_piece(h->in);
		put_desc(h, q->desc + 16 * fuzz_below(h->in, q->size), &p, how >> 4,
			 fuzz_u8(h->in));
		break;
	case 5:
		p = pick_piece(h->in);
		put_desc(h, (u64)queue * HOSTILE_RING + HOSTILE_TABLE + 16 * (fuzz_u8(h->in)), &p,
			 how >> 4, fuzz_u8(h->in));
		break;
	case 6:
		value = fuzz_u64(h->in);
		hostile_put(h, fuzz_u16(h->in), &value, 1U << (how >> 6));
		break;
	case 7:
		value = fuzz_u64(h->in);
		hostile_put(h, HOSTILE_DATA + fuzz_u16(h->in), &value, 1U << (how >> 6));
		break;
	}
}

void hostile_kick(struct hostile *h, int queue)
{
	if (h->prepared) {
		h->prepared = false;
		hostile_set(h, VIRTIO_MMIO_STATUS, STATUS_RUNNING);
		return;
	}
	h->stale |= !hostile_live(h, queue);
	hostile_set(h, VIRTIO_MMIO_QUEUE_NOTIFY, queue);
}

/* --- the second opinion ------------------------------------------------------------------- */

static u16 get16(struct hostile *h, u64 at)
{
	u16 value;

	memcpy(&value, h->ram + at, sizeof(value));
	return value;
}

static void mark_read(struct hostile *h, u64 at, u64 len, u8 how)
{
	for (u64 i = at; i < at + len && i < HOSTILE_MEM; i++) {
		h->entangled |= h->mark[i] & (USED | WRITTEN);
		h->again |= h->mark[i] & (how == FETCHED ? FETCHED | READ : FETCHED);
		h->twice |= h->mark[i] & READ;
		h->mark[i] |= how;
	}
}

static void mark_written(struct hostile *h, u64 at, u64 len, u8 how)
{
	for (u64 i = at; i < at + len && i < HOSTILE_MEM; i++) {
		h->entangled |= h->mark[i] & (FETCHED | READ | USED) ||
				(how == USED && h->mark[i]);
		h->overlap |= h->mark[i] & WRITTEN;
		h->mark[i] |= how;
	}
}

bool hostile_live(const struct hostile *h, int queue)
{
	return h->running && h->sound && !h->paused && h->q[queue].ready;
}

void hostile_look(struct hostile *h, bool kick)
{
	memset(h->mark, 0, sizeof(h->mark));
	h->entangled = h->again = h->twice = h->overlap = h->scribble = false;
	if (h->prepared && kick) {
		h->running = true;
		h->again = h->stale;
		h->stale = false;
	}
	for (int i = 0; i < HOSTILE_QUEUES; i++) {
		struct hostile_queue *q = &h->q[i];

		if (!hostile_live(h, i))
			continue;
		mark_read(h, q->avail, 6 + 2 * q->size, READ);
		mark_written(h, q->used, 6 + 8 * q->size, USED);
	}
}

/* 1: go on in the table that d points at. */
static int enter_table(const struct hostile_queue *q, const struct vring_desc *d, bool inside)
{
	return !q->indirect || inside || d->flags & VRING_DESC_F_NEXT || !d->len || d->len % 16 ||
	       d->len / 16 > 32768 || !fits(d->addr, d->len, 1) ? -1 : 1;
}

static int add_piece(struct hostile_chain *c, const struct vring_desc *d)
{
	bool in = d->flags & VRING_DESC_F_WRITE;

	/* An empty one is sound wherever it points, but not in the wrong place. */
	if ((!in && c->in_seen) || !fits(d->len ? d->addr : 0, d->len, 1))
		return -1;
	c->in_seen |= in && d->len;
	if (c->nr == CHAIN_MAX && d->len)
		return -1;
	if (d->len)
		c->piece[c->nr++] = (struct hostile_piece){ d->addr, d->len, in };
	*(in ? &c->in : &c->out) += d->len;
	return 0;
}

/* One queue that is broken stops the device. */
static bool is_broken(const struct hostile *h)
{
	bool broken = !h->sound;

	for (int i = 0; i < HOSTILE_QUEUES; i++)
		broken |= h->q[i].broken;
	return broken;
}

int hostile_next(struct hostile *h, int queue, struct hostile_chain *c)
{
	struct hostile_queue *q = &h->q[queue];
	u64 table = q->desc, nr = q->size, left = q->size, i;
	bool inside = false;
	u16 waiting;

	if (!hostile_live(h, queue) || is_broken(h))
		return 0;
	waiting = get16(h, q->avail + 2) - q->next_avail;
	if (!waiting)
		return 0;
	q->broken = true;			/* until it proves sound */
	if (waiting > q->size)
		return -1;
	*c = (struct hostile_chain){ .head = get16(h, q->avail + 4 +
						   2 * (q->next_avail++ % q->size)) };
	for (i = c->head;;) {
		struct vring_desc d;

		if (i >= nr || !left--)
			return -1;
		mark_read(h, table + 16 * i, 16, FETCHED);
		memcpy(&d, h->ram + table + 16 * i, sizeof(d));
		if (d.flags & VRING_DESC_F_INDIRECT) {
			if (enter_table(q, &d, inside) < 0)
				return -1;
			table = d.addr;
			nr = d.len / 16;
			left = MIN(nr, CHAIN_MAX);
			inside = true;
			i = 0;
			continue;
		}
		if (add_piece(c, &d))
			return -1;
		if (!(d.flags & VRING_DESC_F_NEXT))
			break;
		i = d.next;
	}
	q->broken = false;
	return 1;
}

static void mark_pieces(struct hostile *h, const struct hostile_chain *c, bool in, u64 len)
{
	for (int i = 0; i < c->nr && len; i++) {
		u64 k = MIN(len, c->piece[i].len);

		if (c->piece[i].in != in)
			continue;
		if (in)
			mark_written(h, c->piece[i].addr, k, WRITTEN);
		else
			mark_read(h, c->piece[i].addr, k, READ);
		len -= k;
	}
}

void hostile_allow(struct hostile *h, const struct hostile_chain *c, u64 len)
{
	mark_pieces(h, c, true, len);
}

void hostile_reads(struct hostile *h, const struct hostile_chain *c, u64 len)
{
	mark_pieces(h, c, false, len);
}

/* --- the device's turn -------------------------------------------------------------------- */

size_t __real_sg_read(struct sg *, void *dst, size_t len);
size_t __wrap_sg_read(struct sg *, void *dst, size_t len);
size_t __wrap_sg_read(struct sg *sg, void *dst, size_t len)
{
	struct iovec was[CHAIN_MAX];
	size_t done, left;

	for (int n = 0; n < sg->nr; n++)
		was[n] = sg->iov[n];
	done = left = __real_sg_read(sg, dst, len);
	for (int n = 0; now && now->scribble && left; n++) {
		u8 *at = was[n].iov_base, *end = at + MIN(was[n].iov_len, left);

		for (left -= end - at; at < end; at++)
			now->before[at - now->ram] = *at ^= 0xff;
	}
	return done;
}

void hostile_before(struct hostile *h, bool scribble)
{
	memcpy(h->before, h->ram, HOSTILE_MEM);
	h->scribble = scribble && !h->entangled && !h->again && !h->twice;
}

static u8 expected_status(const struct hostile *h)
{
	if (!h->running)
		return h->prepared ? STATUS_RUNNING & ~STATUS_DRIVER_OK : 0;
	return STATUS_RUNNING | (is_broken(h) ? STATUS_NEEDS_RESET : 0);
}

void hostile_after(struct hostile *h)
{
	enum { PAGE = 4096 };

	h->scribble = false;
	if (h->entangled)
		return;
	fuzz_check(hostile_status(h) == expected_status(h), "status %#x, not %#x",
		   hostile_status(h), expected_status(h));
	for (int page = 0; page < HOSTILE_MEM; page += PAGE) {
		if (!memcmp(h->ram + page, h->before + page, PAGE))
			continue;
		for (int i = page; i < page + PAGE; i++)
			fuzz_check(h->ram[i] == h->before[i] || h->mark[i] & (USED | WRITTEN),
				   "the byte at %#x was written to: %#x, was %#x", i, h->ram[i],
				   h->before[i]);
	}
}

bool hostile_answer(struct hostile *h, int queue, u16 *head, u32 *len)
{
	struct hostile_queue *q = &h->q[queue];
	struct vring_used_elem e;

	if (!hostile_live(h, queue) || get16(h, q->used + 2) == q->next_used)
		return false;
	memcpy(&e, h->ram + q->used + 4 + 8 * (q->next_used++ % q->size), sizeof(e));
	*head = e.id;
	*len = e.len;
	return true;
}

size_t hostile_gather(struct hostile *h, const struct hostile_chain *c, bool in, u8 *to, size_t max)
{
	size_t done = 0;

	for (int i = 0; i < c->nr && done < max; i++) {
		size_t k = MIN(max - done, c->piece[i].len);

		if (c->piece[i].in != in)
			continue;
		memcpy(to + done, h->ram + c->piece[i].addr, k);
		done += k;
	}
	return done;
}

void hostile_check_interrupts(struct hostile *h, const u16 answers[HOSTILE_QUEUES], bool others)
{
	struct fake_irq *wire = fake_line(&h->fake, FAKE_EDGE, HOSTILE_GSI);
	bool wanted = false, came = wire->raises != h->raises;

	for (int i = 0; i < HOSTILE_QUEUES; i++) {
		struct hostile_queue *q = &h->q[i];
		u16 nr = answers[i], used = q->next_used;

		if (!nr)
			continue;
		wanted |= q->event_idx ?
			vring_need_event(get16(h, q->avail + 4 + 2 * q->size), used, used - nr) :
			!(get16(h, q->avail) & VRING_AVAIL_F_NO_INTERRUPT);
	}
	h->raises = wire->raises;
	fuzz_check(others ? came || !wanted : came == wanted, "interrupt %d, wanted %d", came, wanted);
}

void hostile_check_armed(struct hostile *h, int queue)
{
	struct hostile_queue *q = &h->q[queue];

	if (!hostile_live(h, queue) || q->broken || q->next_avail != get16(h, q->avail + 2))
		return;
	if (q->event_idx)
		fuzz_check(get16(h, q->used + 4 + 8 * q->size) == q->next_avail,
			   "queue %d: idle, but not to be kicked for the next", queue);
	else
		fuzz_check(!(get16(h, q->used) & VRING_USED_F_NO_NOTIFY),
			   "queue %d: idle, but not to be kicked", queue);
}
