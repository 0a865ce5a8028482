/*
 * virtio_blk.c: a hostile driver of a small disk, raw or qcow2, whose file is read and
 * written when and in the order that the input says, in whole, in part, or not at all;
 * the machine pauses and goes on.  Each sound request is answered once, with the status
 * that is due; what is read is what was written last; no other byte of the guest
 * changes; nothing happens after a reset or in a pause; a disk that stops the VM on an
 * error reports none; a raw disk that was guessed to be one does not become qcow2.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_mmio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "devices/block/blk.h"
#include "devices/block/image.h"
#include "tests/fuzz/lib/hostile.h"

enum { SECTORS = 64, NR_QUEUES = 2, MOST = 512, MOST_OF_QUEUE = VIRTQ_MAX, HDR = 16 };
enum { OK = VIRTIO_BLK_S_OK, IOERR = VIRTIO_BLK_S_IOERR, UNSUPP = VIRTIO_BLK_S_UNSUPP };
static const char serial[] = "serial of 20 letters";

struct request {
	struct hostile_chain chain;
	int queue;
	u32 type;
	u64 sector;
	u32 len;			/* of data, in bytes */
	u8 status;			/* that is due */
	u32 written;			/* with status OK */
	bool taken, tainted;		/* tainted: its data may be anything */
	bool hopeless;			/* it came after a sync that failed */
	u8 data[SECTORS * BLK_SECTOR];	/* to be written */
	u32 version[SECTORS];		/* read: of the sectors, when it was taken */
};

static struct {
	struct hostile *h;
	struct device *dev;
	struct blk *blk;
	struct fuzz_file file;
	bool read_only, guessed, zeroes;	/* zeroes: it can be told to write them */
	bool faults, stops;		/* some I/O failed, whose is unknown; then the VM waits */
	int sync_fails;			/* if the call that runs syncs, with this */
	bool lost;			/* a sync failed: no flush succeeds any more */
	struct request request[MOST];
	int nr, nr_of[NR_QUEUES];	/* taken and not answered */
	struct {
		u8 data[BLK_SECTOR];
		bool known, torn;
		u32 version, writers;
	} sector[SECTORS];
} d;

/* --- I/O, when the input says so ------------------------------------------------------ */

static struct aio_req *todo[MOST];
static int nr_todo;

int aio_new(struct aio **a, struct loop *l, enum aio_engine e, struct err *err)
{
	(void)a, (void)l, (void)e, (void)err;
	abort();
}

void aio_free(struct aio *a)
{
	(void)a;
}

void aio_submit(struct aio *a, struct aio_req *r)
{
	(void)a;
	todo[nr_todo++] = r;
}

/* Not all of it, as a kernel may; at least a byte. */
static int move_some(struct aio_req *r, u32 limit)
{
	struct iovec iov[CHAIN_MAX];
	int n = 0;
	ssize_t rc;

	for (; n < r->nr_iov && limit; n++) {
		iov[n] = r->iov[n];
		iov[n].iov_len = MIN(iov[n].iov_len, limit);
		limit -= iov[n].iov_len;
	}
	rc = r->op == AIO_READ ? preadv(r->fd, iov, n, r->offset) :
				 pwritev(r->fd, iov, n, r->offset);
	return rc < 0 ? -errno : rc;
}

int __wrap_file_sync(int fd);
int __real_file_sync(int fd);

int __wrap_file_sync(int fd)
{
	if (!d.sync_fails)
		return __real_file_sync(fd);
	d.faults = d.lost = true;
	return d.sync_fails;
}

static int perform(struct aio_req *r, u8 how)
{
	static const int error[] = { -EIO, -EINTR, -EAGAIN, -ENOSPC };

	if (r->op == AIO_CALL) {
		int rc;

		d.sync_fails = (how & 0xe0) == 0xe0 ? error[how & 2 ? 3 : 0] : 0;
		rc = r->call(r);
		d.sync_fails = 0;
		return rc;
	}
	if ((how & 0xe0) == 0xe0) {
		int rc = r->op == AIO_FALLOCATE && how & 4 ? -EOPNOTSUPP : error[how % 4];

		d.faults |= rc == -EIO || rc == -ENOSPC;
		return rc;
	}
	switch (r->op) {
	case AIO_READ:
	case AIO_WRITE:
		return move_some(r, how & 0x80 ? 1 + 100 * (how & 0x1f) : ~0U);
	case AIO_FALLOCATE:
		return fallocate(r->fd, r->mode, r->offset, r->len) ? -errno : 0;
	default:
		return 0;
	}
}

static void progress(unsigned which, u8 how)
{
	struct aio_req *r;

	if (!nr_todo)
		return;
	which %= nr_todo;
	r = todo[which];
	memmove(&todo[which], &todo[which + 1], (--nr_todo - which) * sizeof(r));
	r->done(r, perform(r, how));
}

void aio_drain(struct aio *a, const unsigned *count)
{
	(void)a;
	while (*count) {
		fuzz_check(nr_todo, "%u in flight, and nothing to wait for", *count);
		progress(0, 0);
	}
}

/* --- what must become of the requests --------------------------------------------------- */

static bool is_writer(const struct request *r)
{
	return r->type == VIRTIO_BLK_T_OUT || r->type == VIRTIO_BLK_T_DISCARD ||
	       r->type == VIRTIO_BLK_T_WRITE_ZEROES;
}

static bool in_disk(const struct request *r)
{
	return r->sector < SECTORS && r->len / BLK_SECTOR <= SECTORS - r->sector;
}

/* virtio 1.2, 5.2.6. */
static void judge(struct request *r, const u8 *out)
{
	struct virtio_blk_discard_write_zeroes seg;
	struct virtio_blk_outhdr hdr;
	bool in = false;

	memcpy(&hdr, out, sizeof(hdr));
	r->type = hdr.type;
	r->sector = hdr.sector;
	r->status = OK;
	r->written = 1;
	r->len = 0;
	switch (hdr.type) {
	case VIRTIO_BLK_T_IN:
		in = true;
		__attribute__((fallthrough));
	case VIRTIO_BLK_T_OUT:
		r->len = in ? r->chain.in - 1 : MIN(r->chain.out - HDR, SECTORS * BLK_SECTOR + 1ULL);
		if (!r->len || r->len % BLK_SECTOR || !in_disk(r) || (!in && d.read_only))
			r->status = IOERR;
		if (in)
			r->written = r->len + 1;
		else if (!r->status)
			memcpy(r->data, out + HDR, r->len);
		if (!in && !r->status && d.guessed && !r->sector && !memcmp(r->data, "QFI\xfb", 4))
			r->status = IOERR;
		break;
	case VIRTIO_BLK_T_FLUSH:
		break;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		memcpy(&seg, out + HDR, sizeof(seg));
		r->sector = seg.sector;
		if (d.read_only || (hdr.type == VIRTIO_BLK_T_WRITE_ZEROES && !d.zeroes))
			r->status = UNSUPP;	/* not offered */
		else if (r->chain.out != HDR + sizeof(seg))
			r->status = IOERR;
		else if (seg.flags > 1 || (seg.flags && hdr.type == VIRTIO_BLK_T_DISCARD))
			r->status = UNSUPP;
		else if (!seg.num_sectors || seg.sector >= SECTORS ||
			 seg.num_sectors > SECTORS - seg.sector)
			r->status = IOERR;
		else
			r->len = seg.num_sectors * BLK_SECTOR;
		break;
	case VIRTIO_BLK_T_GET_ID:
		r->written = MIN(r->chain.in - 1, VIRTIO_BLK_ID_BYTES) + 1;
		break;
	default:
		r->status = UNSUPP;
	}
}

static bool meet(const struct hostile_piece *a, const struct hostile_piece *b)
{
	return (a->in || b->in) && a->addr < b->addr + b->len && b->addr < a->addr + a->len;
}

/* Buffers that others write to, too. */
static void compare_buffers(struct request *r)
{
	for (int i = 0; i < r->chain.nr; i++)
		for (int j = 0; j < i; j++)
			r->tainted |= meet(&r->chain.piece[i], &r->chain.piece[j]);
	for (struct request *o = d.request; o < d.request + MOST; o++)
		for (int i = 0; o != r && o->taken && i < r->chain.nr; i++)
			for (int j = 0; j < o->chain.nr; j++)
				if (meet(&r->chain.piece[i], &o->chain.piece[j]))
					r->tainted = o->tainted = true;
}

static void begin(struct request *r)
{
	compare_buffers(r);
	if (r->status)
		return;
	for (u64 s = r->sector; s < r->sector + r->len / BLK_SECTOR; s++) {
		if (is_writer(r)) {
			d.sector[s].torn |= d.sector[s].writers++ > 0;
			d.sector[s].version++;
		}
		r->version[s] = d.sector[s].writers ? ~0U : d.sector[s].version;
	}
}

static void end_write(struct request *r, u8 status)
{
	for (u64 s = r->sector; s < r->sector + r->len / BLK_SECTOR; s++) {
		d.sector[s].torn |= status || r->tainted || r->type == VIRTIO_BLK_T_DISCARD;
		if (r->type == VIRTIO_BLK_T_OUT)
			memcpy(d.sector[s].data, r->data + (s - r->sector) * BLK_SECTOR, BLK_SECTOR);
		else
			memset(d.sector[s].data, 0, BLK_SECTOR);
		if (--d.sector[s].writers)
			continue;
		d.sector[s].known = !d.sector[s].torn;
		d.sector[s].torn = false;
	}
}

static void check_data(const struct request *r)
{
	static u8 got[HOSTILE_MEM];

	hostile_gather(d.h, &r->chain, true, got, r->chain.in - 1);
	if (r->type == VIRTIO_BLK_T_GET_ID)
		fuzz_check(!memcmp(got, serial, r->written - 1), "another serial number");
	if (r->type != VIRTIO_BLK_T_IN)
		return;
	for (u64 s = r->sector; s < r->sector + r->len / BLK_SECTOR; s++)
		fuzz_check(!d.sector[s].known || r->version[s] != d.sector[s].version ||
			   !memcmp(got + (s - r->sector) * BLK_SECTOR, d.sector[s].data, BLK_SECTOR),
			   "sector %llu is not what was written", (unsigned long long)s);
}

static u8 status_byte(const struct request *r)
{
	for (int i = r->chain.nr - 1; i >= 0; i--)
		if (r->chain.piece[i].in)
			return d.h->ram[r->chain.piece[i].addr + r->chain.piece[i].len - 1];
	return 0xff;
}

static void end(struct request *r, u32 len)
{
	u8 status = r->tainted ? (len == r->written ? r->status : IOERR) : status_byte(r);

	fuzz_check(status == r->status || (!r->status && status == IOERR &&
					   ((d.faults && !d.stops) || d.lost)),
		   "request %u of sector %llu: status %u, not %u", r->type,
		   (unsigned long long)r->sector, status, r->status);
	fuzz_check(!r->hopeless || r->tainted || r->type != VIRTIO_BLK_T_FLUSH || status,
		   "a flush after what was lost has succeeded");
	fuzz_check(len == (status ? 1 : r->written), "request %u: %u bytes written, not %u", r->type,
		   len, r->written);
	if (!r->status && is_writer(r))
		end_write(r, status);
	if (!status && !r->tainted)
		check_data(r);
	r->taken = false;
	d.nr--;
	d.nr_of[r->queue]--;
}

/* --- rounds --------------------------------------------------------------------------------- */

static struct request *new_request(void)
{
	struct request *r = d.request;

	while (r->taken)
		r++;
	r->tainted = false;
	return r;
}

static void take_all(struct hostile *h, int queue)
{
	static u8 out[HOSTILE_MEM];

	while (d.nr_of[queue] < MOST_OF_QUEUE) {
		struct request *r = new_request();

		if (hostile_next(h, queue, &r->chain) <= 0)
			return;
		hostile_gather(h, &r->chain, false, out, sizeof(out));
		hostile_reads(h, &r->chain, r->chain.out);
		hostile_allow(h, &r->chain, r->chain.in);
		if (r->chain.out < HDR || !r->chain.in) {
			h->q[queue].broken = true;
			return;
		}
		r->taken = true;
		r->hopeless = d.lost && !d.read_only;
		r->queue = queue;
		d.nr++;
		d.nr_of[queue]++;
		judge(r, out);
		begin(r);
	}
}

static void forget(bool all)
{
	for (struct request *r = d.request; r < d.request + MOST; r++) {
		if (r->taken && !r->status && is_writer(r))
			end_write(r, IOERR);
		r->taken = false;
	}
	d.nr = d.nr_of[0] = d.nr_of[1] = 0;
	for (int s = 0; s < SECTORS && all; s++)
		d.sector[s].known = false;
}

static void allow_taken(struct hostile *h)
{
	for (struct request *r = d.request; r < d.request + MOST; r++)
		if (r->taken)
			hostile_allow(h, &r->chain, r->chain.in);
}

/* What is in flight is done when the reset is; after it nothing is. */
static void reset(struct hostile *h)
{
	hostile_look(h, false);
	allow_taken(h);
	hostile_before(h, false);
	hostile_set(h, VIRTIO_MMIO_STATUS, 0);
	h->running = h->prepared = false;
	fuzz_check(!nr_todo, "%d I/Os under way after a reset", nr_todo);
	hostile_after(h);
	hostile_reset(h);
	forget(h->entangled);
}

static u16 collect(struct hostile *h, int queue)
{
	u16 head, nr = 0;
	u32 len;

	for (; hostile_answer(h, queue, &head, &len); nr++) {
		struct request *r = d.request, *other;

		while (r < d.request + MOST &&
		       !(r->taken && r->queue == queue && r->chain.head == head))
			r++;
		fuzz_check(r < d.request + MOST, "queue %d: an answer to nothing: %u", queue, head);
		/* Offered twice: which of them this is nobody knows. */
		for (other = r + 1; other < d.request + MOST; other++)
			h->entangled |= other->taken && other->queue == queue &&
					other->chain.head == head;
		if (h->entangled)
			break;
		end(r, len);
	}
	return nr;
}

enum { KICK, PROGRESS, PAUSE, RESUME };

static void do_it(struct hostile *h, int what, int queue, u8 how)
{
	switch (what) {
	case KICK:
		hostile_kick(h, queue);
		break;
	case PROGRESS:
		progress(how & 7, how & 0xf8);
		break;
	case PAUSE:
		device_quiesce(d.dev);
		fuzz_check(!nr_todo, "%d I/Os under way in a pause", nr_todo);
		break;
	case RESUME:
		device_resume(d.dev);
		break;
	}
	fake_turn(&h->fake);
	fake_turn(&h->fake);
}

static void round_of(struct hostile *h, int what, int queue, u8 how, bool scribble)
{
	bool all = (what == KICK && h->prepared) || (what == RESUME && h->paused), idle = !d.nr;
	u16 answers[HOSTILE_QUEUES] = { 0 };

	if (what == RESUME)
		h->paused = false;
	hostile_look(h, what == KICK);
	allow_taken(h);
	for (int i = 0; i < NR_QUEUES; i++)
		if (all || (what == KICK && i == queue))
			take_all(h, i);
	hostile_before(h, scribble && what == KICK && idle);
	do_it(h, what, queue, how);
	hostile_after(h);
	for (int i = 0; i < NR_QUEUES && !h->entangled; i++)
		answers[i] = collect(h, i);
	if (what == PAUSE)
		h->paused = true;
	if (h->entangled) {
		reset(h);
		forget(true);
		return;
	}
	if (h->sound && !h->q[0].broken && !h->q[1].broken)
		hostile_check_interrupts(h, answers, false);
	if (what == KICK && !h->paused)
		hostile_check_armed(h, queue);
	if (!d.nr)
		d.faults = false;
}

static void finish(struct hostile *h)
{
	while (nr_todo)
		round_of(h, PROGRESS, 0, 0, false);
	/* What failed is tried again after a pause; now nothing fails any more. */
	while ((d.nr && d.stops) || h->paused) {
		round_of(h, PAUSE, 0, 0, false);
		round_of(h, RESUME, 0, 0, false);
		while (nr_todo)
			round_of(h, PROGRESS, 0, 0, false);
	}
	fuzz_check(!d.nr, "%d requests were not answered", d.nr);
}

/* --- what a guest does ------------------------------------------------------------------------- */

static void put_header(struct hostile *h, u64 at, struct fuzz *f)
{
	static const u32 types[] = { VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_IN,
				     VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID,
				     VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES };
	u8 b = fuzz_u8(f), s = fuzz_u8(f);
	struct virtio_blk_outhdr hdr = { .type = b & 0x80 ? b : types[b % 8],
					 .sector = s < 0xf0 ? s % SECTORS : fuzz_u64(f) };
	struct virtio_blk_discard_write_zeroes seg = { .sector = hdr.sector,
						       .num_sectors = b >> 3 & 15 };

	if (s >= 0xe0)
		seg.flags = s & 3;
	hostile_put(h, at, &hdr, sizeof(hdr));
	hostile_put(h, at + HDR, &seg, sizeof(seg));
}

/* As drivers make them: header, data, status; each slot has a page of its own. */
static void request(struct hostile *h, struct fuzz *f, int queue)
{
	u8 b = fuzz_u8(f);
	u64 page = HOSTILE_DATA + (b & 7) * 0x1800;
	u32 len = (b >> 3 & 7) * BLK_SECTOR;
	u8 data[7 * BLK_SECTOR];
	struct hostile_piece p[5] = { { page, HDR, false } };
	bool range, in;
	int n = 1;

	if (!h->q[queue].ready || !h->sound)
		return;
	put_header(h, page, f);
	range = h->ram[page] == VIRTIO_BLK_T_DISCARD || h->ram[page] == VIRTIO_BLK_T_WRITE_ZEROES;
	in = h->ram[page] == VIRTIO_BLK_T_IN || h->ram[page] == VIRTIO_BLK_T_GET_ID;
	if (range)
		p[0].len += 16;
	if (len && !range && b & 0x40)
		p[n++] = (struct hostile_piece){ page + 0x200, len, in };
	else if (len && !range) {
		p[n++] = (struct hostile_piece){ page + 0x200, len / 2 - 1, in };
		p[n++] = (struct hostile_piece){ page + 0x1ff + len / 2, len / 2 + 1, in };
	}
	p[n++] = (struct hostile_piece){ page + 0x100, 1, true };
	if (b & 0x80) {
		memset(data, fuzz_u8(f), len);
		hostile_put(h, page + 0x200, data, len);
	}
	if (h->q[queue].size >= n)
		hostile_chain(h, queue, p, n);
}

/* A guest changes what a request under way is about. */
static void taint(struct hostile *h)
{
	for (struct request *r = d.request; r < d.request + MOST; r++)
		for (int i = 0; r->taken && i < r->chain.nr; i++)
			r->tainted |= !!memcmp(h->ram + r->chain.piece[i].addr,
					       h->before + r->chain.piece[i].addr,
					       r->chain.piece[i].len);
}

static void works(struct hostile *h)
{
	struct hostile_piece p[] = { { HOSTILE_DATA, HDR, false }, { HOSTILE_DATA + 512, 512, true },
				     { HOSTILE_DATA + 256, 1, true } };

	finish(h);
	reset(h);
	hostile_start(h, 0, NR_QUEUES, true);
	memset(h->ram + HOSTILE_DATA, 0, HDR);
	hostile_chain(h, 0, p, 3);
	round_of(h, KICK, 0, 0, false);
	finish(h);
	fuzz_check(h->q[0].next_used == 1 && !h->ram[HOSTILE_DATA + 256], "no reading after a reset");
}

/* --- images --------------------------------------------------------------------------------------- */

/* A new one of each kind, to copy: making one takes its time. */
static struct fuzz_file new_image(bool qcow2)
{
	static struct { u8 data[64 * 1024]; size_t len; } made[2];
	struct image_create c = { .format = qcow2 ? "qcow2" : "raw", .size = SECTORS * BLK_SECTOR,
				  .cluster = 1024 };
	struct err err;
	int fd;

	if (!made[qcow2].len) {
		const char *path = fuzz_temp(c.format);

		fuzz_check(!image_create(path, &c, &err), "%s", err.msg);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		made[qcow2].len = read(fd, made[qcow2].data, sizeof(made[qcow2].data));
		close(fd);
	}
	return fuzz_file(made[qcow2].data, made[qcow2].len);
}

static void open_disk(u8 how)
{
	bool qcow2 = how & 1;
	struct blk_options o = { .read_only = (how & 0x0e) == 0x0e };
	struct err err;

	memset(&d.sector, 0, sizeof(d.sector));
	for (int s = 0; s < SECTORS; s++)
		d.sector[s].known = true;
	d.guessed = !qcow2 && how & 0x10;
	o.format = how & 0x10 ? NULL : qcow2 ? "qcow2" : "raw";
	d.read_only = o.read_only;
	d.file = new_image(qcow2);
	fuzz_check(!blk_open(&d.blk, d.file.path, &o, &err), "%s", err.msg);
}

/* A guest must not choose the format of its disk. */
static void close_disk(void)
{
	char head[4];

	blk_close(d.blk);
	fuzz_check(pread(d.file.fd, head, 4, 0) == 4, "no first bytes");
	fuzz_check(!d.guessed || memcmp(head, "QFI\xfb", 4), "a raw disk became qcow2");
	close(d.file.fd);
}

static struct device *plug_disk(struct hostile *h, u8 how)
{
	struct virtio_blk_options o = { .serial = serial, .nr_queues = NR_QUEUES, .discard = true,
					.write_zeroes = !(how & 4), .write_through = how & 1,
					.stop_on_error = how & 2 };
	struct virtio *v;
	struct err err;

	d.stops = o.stop_on_error;
	d.zeroes = o.write_zeroes;
	fuzz_check(!virtio_blk_new(&h->fake.p, "disk0", d.blk, &o, &v, &err), "%s", err.msg);
	return hostile_plug(v);
}

void fuzz_one(struct fuzz *f)
{
	struct hostile *h = hostile_begin(f);

	d.h = h;
	d.faults = d.lost = false;
	d.sync_fails = 0;
	open_disk(fuzz_u8(f));
	d.dev = plug_disk(h, fuzz_u8(f));
	hostile_start(h, ~0ULL, NR_QUEUES, true);
	while (f->left) {
		u8 step = fuzz_u8(f);
		int queue = step >> 6 & 1;

		hostile_before(h, false);
		switch (step % 16) {
		case 0:
			reset(h);
			hostile_start(h, fuzz_u64(f), NR_QUEUES, step & 0x80);
			break;
		case 1:
			hostile_poke(h, queue);
			taint(h);
			break;
		case 2:
			if ((step & 0xe0) == 0xe0)
				reset(h);
			else if (step & 0x10)
				round_of(h, step & 0x20 ? PAUSE : RESUME, 0, 0, false);
			else	/* write-through or not */
				bus_write(&h->fake.mmio, HOSTILE_BASE + VIRTIO_MMIO_CONFIG + 32, 1,
					  queue);
			break;
		case 3:
			hostile_offer(h, queue);
			taint(h);
			break;
		case 4: case 5: case 6: case 7: case 8:
			request(h, f, queue);
			taint(h);
			break;
		case 9: case 10:
			finish(h);
			break;
		case 11: case 12:
			round_of(h, PROGRESS, 0, fuzz_u8(f), false);
			break;
		default:
			round_of(h, KICK, queue, 0, step & 0x80);
		}
	}
	works(h);
	hostile_end(h, d.dev);
	close_disk();
}
