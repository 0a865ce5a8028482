/* vblk.c: see vblk.h. */
#include "tests/lib/vblk.h"
#include <dirent.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <sched.h>
#include "devices/block/blk_own.h"
#include "tests/lib/test.h"

enum { HEADERS = 0x200000, DATA = 0x400000, PER_SLOT = 3, RING = 64 };

u8 vblk_below(u64 offset)
{
	return offset * 7 + offset / 512 * 3 + 1;
}

static void make_files(struct vblk *f)
{
	const struct vblk_setup *s = f->setup;
	struct image_create c = { .format = f->format, .size = s->size, .cluster = s->cluster };
	struct err err = { 0 };

	if (!s->direct)
		disk_mkdir(f->dir);
	else if (!disk_mkdir_direct(f->dir))
		skip();
	snprintf(f->path, sizeof(f->path), "%s/disk", f->dir);
	if (s->below) {
		char path[80];
		u8 *bytes = malloc(s->size);
		int fd;

		snprintf(path, sizeof(path), "%s/below", f->dir);
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		for (u64 i = 0; i < s->size; i++)
			bytes[i] = vblk_below(i);
		assert_int_equal(write(fd, bytes, s->size), s->size);
		close(fd);
		free(bytes);
		c.backing = "below";
		c.backing_format = "raw";
	}
	if (image_create(f->path, &c, &err))
		fail_msg("%s", err.msg);
}

static void make_loops(struct vblk *f)
{
	struct err err = { 0 };

	for (unsigned i = 0; i < f->setup->nr_loops; i++) {
		assert_int_equal(loop_new(&f->io[i].loop, &err), 0);
		assert_int_equal(aio_new(&f->io[i].aio, f->io[i].loop, f->setup->engine, &err), 0);
	}
}

static void make_device(struct vblk *f)
{
	const struct vblk_setup *s = f->setup;
	struct blk_options o = { .format = f->format, .direct = s->direct, .read_only = f->read_only };
	struct virtio_blk_options vo = s->o;
	struct err err = { 0 };

	f->nr_queues = vo.nr_queues ? vo.nr_queues : 1;
	vo.nr_queues = f->nr_queues;
	vo.serial = "serial-7";
	vo.io = f->io;
	vo.nr_io = s->nr_loops;
	if (blk_open(&f->blk, f->path, &o, &err))
		fail_msg("%s", err.msg);
	for (struct image *i = f->blk->image; i && s->direct_align; i = i->backing)
		i->direct_align = s->direct_align;
	assert_int_equal(virtio_blk_new(&f->fake.p, "disk0", f->blk, &vo, &f->v, &err), 0);
	assert_int_equal(virtio_mmio_new(f->v, DRIVER_BASE, DRIVER_GSI, &f->dev, &err), 0);
}

static void run_loops(struct vblk *f)
{
	for (unsigned i = 0; i < f->setup->nr_loops; i++)
		assert_int_equal(loop_start_thread(f->io[i].loop, THREAD_IO, "io", NULL), 0);
}

void vblk_new(struct vblk *f, const struct vblk_setup *s)
{
	*f = (struct vblk){ .setup = s, .format = s->format ? s->format : "raw", .read_only = s->read_only };
	make_files(f);
	fake_init(&f->fake, VBLK_MEM, s->engine);
	f->d.fake = &f->fake;
	make_loops(f);
	make_device(f);
	run_loops(f);
	vblk_start(f);
}

void vblk_start(struct vblk *f)
{
	u8 status = driver_start(&f->d, f->setup->features & driver_offered(&f->d), f->nr_queues, RING);

	assert_false(status & VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_true(status & VIRTIO_CONFIG_S_DRIVER_OK);
	memset(f->slot, 0, sizeof(f->slot));
	memset(f->seen, 0, sizeof(f->seen));
	f->nr_busy = 0;
}

static void unmake(struct vblk *f)
{
	device_destroy(f->dev);
	for (unsigned i = 0; i < f->setup->nr_loops; i++) {
		loop_stop_thread(f->io[i].loop);
		aio_free(f->io[i].aio);
		loop_free(f->io[i].loop);
	}
	blk_close(f->blk);
}

void vblk_reopen(struct vblk *f)
{
	unmake(f);
	make_loops(f);
	make_device(f);
	run_loops(f);
	vblk_start(f);
}

void vblk_free(struct vblk *f)
{
	DIR *d;
	struct dirent *e;

	unmake(f);
	fake_fini(&f->fake);
	d = opendir(f->dir);
	while ((e = readdir(d)))
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			unlinkat(dirfd(d), e->d_name, 0);
	closedir(d);
	assert_int_equal(rmdir(f->dir), 0);
}

/* --- requests ------------------------------------------------------------------------------- */

gpa_t vblk_data(unsigned queue, unsigned slot)
{
	return GPA(DATA + (u64)(queue * VBLK_SLOTS + slot) * VBLK_SLOT_LEN);
}

void vblk_put(struct vblk *f, unsigned queue, unsigned slot, const void *data, size_t len)
{
	assert_int_equal(mem_write(f->fake.p.mem, vblk_data(queue, slot), data, len), 0);
}

void vblk_get(struct vblk *f, unsigned queue, unsigned slot, void *data, size_t len)
{
	assert_int_equal(mem_read(f->fake.p.mem, vblk_data(queue, slot), data, len), 0);
}

static u64 header(unsigned queue, unsigned slot)
{
	return HEADERS + (queue * VBLK_SLOTS + slot) * 64;
}

void vblk_offer(struct vblk *f, unsigned queue, unsigned slot, u32 type, u64 sector, u32 len)
{
	struct virtio_blk_outhdr hdr = { .type = type, .sector = sector };
	struct vblk_slot *s = &f->slot[queue][slot];
	bool in = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
	u64 head = header(queue, slot), status = head + 32;
	struct ring *r = &f->d.ring[queue];
	u16 at = slot * PER_SLOT;

	assert_false(s->busy);
	*s = (struct vblk_slot){ .busy = true, .status = VBLK_PENDING };
	f->nr_busy++;
	assert_int_equal(mem_write_obj(f->fake.p.mem, GPA(head), &hdr), 0);
	assert_int_equal(mem_write_obj(f->fake.p.mem, GPA(status), &s->status), 0);
	ring_desc(r, at, head, sizeof(hdr), VRING_DESC_F_NEXT, len ? at + 1 : at + 2);
	if (len)
		ring_desc(r, at + 1, vblk_data(queue, slot).addr, len,
			  VRING_DESC_F_NEXT | (in ? VRING_DESC_F_WRITE : 0), at + 2);
	ring_desc(r, at + 2, status, 1, VRING_DESC_F_WRITE, 0);
	ring_offer(r, at);
}

void vblk_kick(struct vblk *f, unsigned queue)
{
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_NOTIFY, queue);
}

unsigned vblk_reap(struct vblk *f)
{
	unsigned nr = 0;

	for (unsigned q = 0; q < f->nr_queues; q++) {
		struct ring *r = &f->d.ring[q];

		for (; f->seen[q] != ring_used_idx(r); f->seen[q]++, nr++) {
			struct vring_used_elem e;
			struct vblk_slot *s;
			unsigned n;

			e = ring_used(r, f->seen[q]);
			n = e.id / PER_SLOT;
			assert_int_equal(e.id % PER_SLOT, 0);
			assert_in_range(n, 0, VBLK_SLOTS - 1);
			s = &f->slot[q][n];
			assert_true(s->busy);		/* answered once, and only what was asked */
			s->busy = false;
			s->written = e.len;
			f->nr_busy--;
			assert_int_equal(mem_read_obj(f->fake.p.mem, GPA(header(q, n) + 32), &s->status),
					 0);
			assert_int_not_equal(s->status, VBLK_PENDING);
		}
	}
	return nr;
}

static void turn(struct vblk *f)
{
	if (!f->setup->nr_loops)
		fake_turn(&f->fake);
	else
		usleep(20);	/* the threads need the processor */
	sched_yield();
}

void vblk_until(struct vblk *f, bool (*fn)(struct vblk *))
{
	time_t end = time(NULL) + 300;

	while (!fn(f)) {
		assert_true(time(NULL) < end);
		turn(f);
	}
}

static bool all_answered(struct vblk *f)
{
	vblk_reap(f);
	return !f->nr_busy;
}

void vblk_wait(struct vblk *f)
{
	vblk_until(f, all_answered);
}

static void nothing(void *arg)
{
	(void)arg;
}

void vblk_settle(struct vblk *f)
{
	for (int n = 0; n < 20; n++) {
		turn(f);
		for (unsigned i = 0; i < f->setup->nr_loops; i++)
			loop_call(f->io[i].loop, nothing, NULL);
	}
}

u8 vblk_do(struct vblk *f, u32 type, u64 sector, u32 len)
{
	vblk_offer(f, 0, 0, type, sector, len);
	vblk_kick(f, 0);
	vblk_wait(f);
	return f->slot[0][0].status;
}

u8 vblk_range(struct vblk *f, u32 type, u64 sector, u32 sectors, u32 flags)
{
	struct virtio_blk_discard_write_zeroes seg = { sector, sectors, flags };

	vblk_put(f, 0, 0, &seg, sizeof(seg));
	return vblk_do(f, type, 0, sizeof(seg));
}

u64 vblk_config(struct vblk *f, u32 offset, unsigned size)
{
	u64 value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= bus_read(&f->fake.mmio, DRIVER_BASE + VIRTIO_MMIO_CONFIG + offset + i, 1) << 8 * i;
	return value;
}

void vblk_config_write(struct vblk *f, u32 offset, unsigned size, u64 value)
{
	bus_write(&f->fake.mmio, DRIVER_BASE + VIRTIO_MMIO_CONFIG + offset, size, value);
}
