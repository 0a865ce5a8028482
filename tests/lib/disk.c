/* disk.c: see disk.h. */
#include "tests/lib/disk.h"
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include "devices/block/blk.h"
#include "tests/lib/test.h"

/* Room for them all beforehand: a test may let every malloc fail. */
enum { SECTOR = BLK_SECTOR, BUF = 4 * MIB, EVENTS = 1 << 22, FLUSHES = 1 << 16 };
#define TORN	((u32)-1)

u64 env_number(const char *name, u64 otherwise)
{
	const char *s = getenv(name);

	return s && *s ? strtoull(s, NULL, 0) : otherwise;
}

u64 env_seed(const char *name)
{
	return env_number(name, env_number("SEED", now_ns()));
}

void disk_fail(struct disk *d, const char *fmt, ...)
{
	char msg[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	fail_msg("%s, step %u (%s)%s: %s", d->shape->name, d->step, d->doing, d->note, msg);
	abort();
}

/* --- sectors ----------------------------------------------------------------------------- */

/* Alike eight times over, for compression to have a chance. */
static void fill(u8 *sector, u32 id)
{
	u64 word[SECTOR / 8];

	for (u64 i = 0; i < ARRAY_SIZE(word); i++)
		word[i] = id * (1 + i % 8 * 0x9e3779b97f4a7c15ULL);
	memcpy(sector, word, SECTOR);
}

u32 disk_id(const u8 *sector)
{
	u8 want[SECTOR];
	u64 id;

	memcpy(&id, sector, sizeof(id));
	fill(want, id);
	return id >= TORN || memcmp(sector, want, SECTOR) ? TORN : id;
}

static const struct span *find_span(const struct disk *d, u64 offset)
{
	for (int i = 0; i < d->nr_spans; i++)
		if (offset - d->span[i].start < d->span[i].len)
			return &d->span[i];
	return NULL;
}

static u32 sector_index(const struct span *s, u64 offset)
{
	return s->first + (offset - s->start) / SECTOR;
}

static u64 sector_offset(const struct disk *d, u32 sector)
{
	int i = 0;

	while (i + 1 < d->nr_spans && sector >= d->span[i + 1].first)
		i++;
	return d->span[i].start + (u64)(sector - d->span[i].first) * SECTOR;
}

static u32 add_event(struct disk *d, u32 sector, u32 id, bool sure)
{
	assert_in_range(d->nr_events, 0, EVENTS - 1);
	d->event[d->nr_events++] = (struct event){ sector, id, d->last[sector], recorder_mark(), sure };
	d->last[sector] = d->nr_events;
	return d->nr_events - 1;
}

enum content { WRITTEN, ZEROES, BELOW };

static void add_events(struct disk *d, u64 offset, u64 len, enum content what)
{
	for (int i = 0; i < d->nr_spans; i++) {
		u64 from = MAX(offset, d->span[i].start);
		u64 end = MIN(offset + len, d->span[i].start + d->span[i].len);

		for (; from < end; from += SECTOR) {
			u32 n = sector_index(&d->span[i], from);

			add_event(d, n, what == WRITTEN ? d->next_id++ :
				  what == ZEROES ? 0 : d->below[n], false);
		}
	}
}

static void make_sure(struct disk *d, u32 from)
{
	for (; from < d->nr_events; from++)
		d->event[from].sure = true;
}

static bool allowed(const struct disk *d, u32 sector, u32 id, u32 flushed, u32 upto)
{
	for (u32 e = d->last[sector]; e; e = d->event[e - 1].prev) {
		const struct event *v = &d->event[e - 1];

		if (e > upto)
			continue;
		if (v->id == id)
			return true;
		if (v->sure && e <= flushed)
			return false;
	}
	return d->base[sector] == id;
}

static u32 last_id(const struct disk *d, u32 sector)
{
	u32 e = d->last[sector];

	return e ? d->event[e - 1].id : d->base[sector];
}

u32 disk_sector(const struct disk *d, u64 offset)
{
	const struct span *s = find_span(d, offset);

	return s ? last_id(d, sector_index(s, offset)) : TORN;
}

static void verify_buf(struct disk *d, const u8 *buf, u64 offset, u64 len, u32 flushed, u32 upto)
{
	for (u64 at = offset; at < offset + len; at += SECTOR, buf += SECTOR) {
		const struct span *s = find_span(d, at);
		u32 id = disk_id(buf), n = s ? sector_index(s, at) : 0;

		if (s ? !allowed(d, n, id, flushed, upto) : id)
			disk_fail(d, "the sector at %#llx holds %d, not %d (events %u to %u)",
				  (unsigned long long)at, id, s ? last_id(d, n) : 0, flushed, upto);
	}
}

void disk_verify(struct disk *d, struct image *i, u32 flushed, u32 upto)
{
	int rc;

	if (i->size % SECTOR || !allowed(d, d->nr_sectors, i->size / SECTOR, flushed, upto))
		disk_fail(d, "the disk has %#llx bytes", (unsigned long long)i->size);
	for (int n = 0; n < d->nr_spans; n++) {
		u64 from = d->span[n].start, end = MIN(from + d->span[n].len, i->size), k;

		for (; from < end; from += k) {
			k = MIN(end - from, BUF);
			rc = image_read(i, from, d->buf, k);
			if (rc)
				disk_fail(d, "reading at %#llx: %s", (unsigned long long)from, strerror(-rc));
			verify_buf(d, d->buf, from, k, flushed, upto);
		}
	}
	for (int n = 0; n < 4; n++) {
		u64 at = draw(&d->seed) % (i->size / SECTOR) * SECTOR;

		rc = image_read(i, at, d->buf, SECTOR);
		if (rc)
			disk_fail(d, "reading at %#llx: %s", (unsigned long long)at, strerror(-rc));
		verify_buf(d, d->buf, at, SECTOR, flushed, upto);
	}
}

void disk_verify_now(struct disk *d)
{
	disk_verify(d, d->image, d->nr_events, d->nr_events);
}

void disk_settle(struct disk *d)
{
	for (u32 i = 0; i < d->nr_events; i++)
		d->base[d->event[i].sector] = d->event[i].id;
	disk_forget(d);
}

void disk_forget(struct disk *d)
{
	for (u32 i = 0; i < d->nr_events; i++)
		d->last[d->event[i].sector] = 0;
	d->nr_events = d->nr_flushes = 0;
	d->size = d->base[d->nr_sectors] * (u64)SECTOR;
}

/* --- a disk --------------------------------------------------------------------------------- */

const char *disk_file(struct disk *d, const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", d->dir, name);
	return path;
}

/* A small disk is one span; else its ends, the border of two L2 tables, and what
 * is its end to begin with. */
static void place_spans(struct disk *d)
{
	const struct disk_shape *shape = d->shape;
	u64 l2 = (u64)shape->cluster * (shape->cluster / 8), max = shape->max_size;
	u64 len = MAX(3ULL * shape->cluster, 256 * KIB), end = 0;
	u64 middle[DISK_SPANS] = { len / 2, l2, shape->size, max - len / 2 };

	if (max <= 4 * MIB || max <= 4 * len) {
		len = max;
		middle[0] = len / 2;
	}
	for (int i = 0; i < DISK_SPANS; i++) {
		u64 start = middle[i] - len / 2;

		if (middle[i] < len / 2 || start < end || start + len > max)
			continue;
		d->span[d->nr_spans++] = (struct span){ start, len, d->nr_sectors };
		d->nr_sectors += len / SECTOR;
		end = start + len;
	}
}

static void set_size(struct disk *d, u64 size)
{
	d->size = size;
	d->base[d->nr_sectors] = size / SECTOR;
	for (u32 n = 0; n < d->nr_sectors; n++)
		if (sector_offset(d, n) >= size)
			d->base[n] = 0;
}

static u64 random_size(struct disk *d)
{
	u64 max = d->shape->max_size / SECTOR, from = max / 4;
	const struct span *s = &d->span[draw(&d->seed) % d->nr_spans];

	if (draw(&d->seed) & 1)
		return (from + draw(&d->seed) % (max - from + 1)) * SECTOR;
	return MAX(s->start + draw(&d->seed) % (s->len / SECTOR) * SECTOR, 64 * (u64)SECTOR);
}

struct range { u64 offset, len; };

/* Inside a span: from a sector to some clusters, more often than not at a cluster's border. */
static struct range pick_near(struct disk *d)
{
	u32 cluster = d->shape->cluster;
	const struct span *s;
	u64 offset, end, len;

	do
		s = &d->span[draw(&d->seed) % d->nr_spans];
	while (s->start >= d->size);
	end = MIN(s->start + s->len, d->size);
	offset = s->start + draw(&d->seed) % ((end - s->start) / SECTOR) * SECTOR;
	/* Where the disk below ends, a cluster of this one is in part its. */
	if (draw(&d->seed) % 8 == 0 && find_span(d, d->below_size) && d->below_size < d->size) {
		s = find_span(d, d->below_size);
		end = MIN(s->start + s->len, d->size);
		offset = ALIGN_DOWN(d->below_size, (u64)cluster) + draw(&d->seed) % cluster / SECTOR * SECTOR;
		offset = MIN(MAX(offset, s->start), end - SECTOR);
	}
	if (draw(&d->seed) & 1)
		offset = MAX(s->start, ALIGN_DOWN(offset, (u64)cluster));
	switch (draw(&d->seed) % 8) {
	case 0:
		len = MIN(end - offset, BUF / 4);
		break;
	case 1: case 2: case 3:
		len = (1 + draw(&d->seed) % 8) * SECTOR;
		break;
	case 4: case 5:
		len = (1 + draw(&d->seed) % (cluster / SECTOR)) * SECTOR;
		break;
	default:
		len = (1 + draw(&d->seed) % 4) * cluster;
	}
	len = MIN(len, BUF / 2);
	if (draw(&d->seed) & 1)
		len = MAX(SECTOR, ALIGN_DOWN(offset + len, (u64)cluster) - MIN(offset,
			  ALIGN_DOWN(offset + len, (u64)cluster)));
	return (struct range){ offset, MIN(len, end - offset) };
}

static int write_at(struct disk *d, struct range r, bool packed)
{
	u32 from = d->nr_events;
	int rc;

	add_events(d, r.offset, r.len, WRITTEN);
	for (u64 n = 0; n < r.len; n += SECTOR)
		fill(d->buf + n, disk_sector(d, r.offset + n));
	rc = (packed ? image_write_packed : image_write)(d->image, r.offset, d->buf, r.len);
	if (!rc)
		make_sure(d, from);
	return rc;
}

static void create(struct disk *d, const char *path, const struct image_create *c)
{
	struct err err = { 0 };

	if (image_create(path, c, &err))
		disk_fail(d, "%s", err.msg);
}

/* An image of the chain below: somewhat written to. */
static void make_below(struct disk *d, int depth, char *above)
{
	static const u32 clusters[] = { 512, 4096, 65536 };
	bool raw = !depth && draw(&d->seed) & 1;
	struct image_create c = {
		.format = raw ? "raw" : "qcow2", .size = random_size(d),
		.cluster = clusters[draw(&d->seed) % ARRAY_SIZE(clusters)],
		.version = 2 + draw(&d->seed) % 2,
		.backing = depth ? above : NULL, .backing_format = above + strlen(above) + 1,
	};
	char name[32];

	/* Where one L2 table is 32 KiB of the disk, a large disk has no place for L1. */
	if (d->shape->max_size > GIB)
		c.cluster = MAX(c.cluster, 65536);
	sprintf(name, "below%d", depth);
	snprintf(d->path, sizeof(d->path), "%s", disk_file(d, name));
	create(d, d->path, &c);
	set_size(d, c.size);
	if (disk_open(d))
		disk_fail(d, "cannot open %s", d->path);
	for (int i = 0; i < 8; i++) {
		int rc = write_at(d, pick_near(d), false);

		if (rc)
			disk_fail(d, "%s: %s", d->path, strerror(-rc));
	}
	if (image_flush(d->image))
		disk_fail(d, "cannot flush %s", d->path);
	disk_settle(d);
	disk_close(d);
	sprintf(above, "%s%c%s", name, 0, c.format);
}

/* Containers have 64 MiB of it, unless told otherwise: a power cut's files are more. */
static bool has_room(const char *dir)
{
	struct statfs fs;

	return !access(dir, W_OK) && !statfs(dir, &fs) && (u64)fs.f_bavail * fs.f_bsize >= 256 * MIB;
}

void disk_mkdir(char dir[DISK_DIR_LEN])
{
	const char *at = getenv("DISK_DIR");

	snprintf(dir, DISK_DIR_LEN, "%s/vmm-disk-XXXXXX", at ? at : has_room("/dev/shm") ? "/dev/shm" : "/tmp");
	assert_non_null(mkdtemp(dir));
}

static bool is_direct(const char *dir)
{
	char path[DISK_DIR_LEN + 16];
	struct statfs fs;
	int fd;

	/* In memory there is nothing but the cache, whatever it says. */
	if (statfs(dir, &fs) || fs.f_type == TMPFS_MAGIC)
		return false;
	snprintf(path, sizeof(path), "%s/direct", dir);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_DIRECT | O_CLOEXEC, 0600);
	unlink(path);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

bool disk_mkdir_direct(char dir[DISK_DIR_LEN])
{
	const char *const at[] = { getenv("DIRECT_DIR"), "/var/tmp", "/tmp", "." };

	for (unsigned i = 0; i < ARRAY_SIZE(at); i++) {
		if (!at[i])
			continue;
		snprintf(dir, DISK_DIR_LEN, "%s/vmm-disk-XXXXXX", at[i]);
		if (!mkdtemp(dir))
			continue;
		if (is_direct(dir))
			return true;
		rmdir(dir);
	}
	return false;
}

void disk_new(struct disk *d, const struct disk_shape *shape, u64 seed)
{
	struct image_create c = {
		.format = shape->format, .size = shape->size, .cluster = shape->cluster,
		.version = shape->version, .refcount_bits = shape->refcount_bits,
		.lazy_refcounts = shape->lazy,
	};
	char below[64] = "";

	*d = (struct disk){ .shape = shape, .seed = seed, .next_id = 1, .doing = "making it" };
	place_spans(d);
	disk_mkdir(d->dir);
	d->base = calloc(d->nr_sectors + 1, sizeof(*d->base));
	d->below = calloc(d->nr_sectors, sizeof(*d->below));
	d->last = calloc(d->nr_sectors + 1, sizeof(*d->last));
	d->buf = malloc(BUF);
	d->event = malloc(EVENTS * sizeof(*d->event));
	d->flush = malloc(FLUSHES * sizeof(*d->flush));
	assert_true(d->base && d->below && d->last && d->buf && d->event && d->flush);
	for (int i = 0; i < shape->depth; i++)
		make_below(d, i, below);
	if (shape->depth) {
		c.backing = below;
		c.backing_format = below + strlen(below) + 1;
	}
	memcpy(d->below, d->base, d->nr_sectors * sizeof(*d->below));
	d->below_size = d->size;
	snprintf(d->path, sizeof(d->path), "%s", disk_file(d, "top"));
	create(d, d->path, &c);
	set_size(d, shape->size);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void disk_rmdir(const char *dir)
{
	nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

void disk_empty_dir(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
}

void disk_free(struct disk *d)
{
	disk_close(d);
	if (*d->dir)
		disk_rmdir(d->dir);
	free(d->base);
	free(d->below);
	free(d->last);
	free(d->event);
	free(d->flush);
	free(d->buf);
	*d = (struct disk){ 0 };
}

int disk_open(struct disk *d)
{
	bool raw = !strcmp(d->shape->format, "raw");
	struct image_options o = { .format = raw ? "raw" : NULL };
	struct err err = { 0 };
	int rc = image_open(&d->image, d->path, &o, &err);

	if (rc)
		snprintf(d->doing, sizeof(d->doing), "open: %.80s", err.msg);
	else
		snprintf(d->doing, sizeof(d->doing), "open");
	return rc;
}

void disk_close(struct disk *d)
{
	image_close(d->image);
	d->image = NULL;
}

/* --- steps -------------------------------------------------------------------------------------- */

static struct range pick(struct disk *d)
{
	u64 sectors = d->size / SECTOR, from;

	if (draw(&d->seed) % 4)
		return pick_near(d);
	from = draw(&d->seed) % sectors;
	if (draw(&d->seed) & 1)
		from = from * SECTOR / d->shape->cluster * d->shape->cluster / SECTOR;
	return (struct range){ from * SECTOR, (1 + draw(&d->seed) % (sectors - from)) * SECTOR };
}

static void say(struct disk *d, const char *what, struct range r)
{
	snprintf(d->doing, sizeof(d->doing), "%s %#llx+%#llx", what, (unsigned long long)r.offset,
		 (unsigned long long)r.len);
	if (getenv("DISK_TRACE"))
		print_message("%u %s (events %u, operations %u)\n", d->step, d->doing, d->nr_events,
			      recorder_mark());
}

static int step_read(struct disk *d)
{
	struct range r = pick_near(d);
	int rc;

	say(d, "read", r);
	rc = image_read(d->image, r.offset, d->buf, r.len);
	if (!rc)
		verify_buf(d, d->buf, r.offset, r.len, d->nr_events, d->nr_events);
	return rc;
}

static int step_write(struct disk *d)
{
	struct range r = pick_near(d);

	say(d, "write", r);
	return write_at(d, r, false);
}

/* Whole clusters only, or up to the disk's end. */
static int step_pack(struct disk *d)
{
	u64 cluster = d->shape->cluster;
	struct range r = pick_near(d);
	const struct span *s = find_span(d, r.offset);
	u64 from = ALIGN_DOWN(r.offset, cluster), end = MIN(ALIGN_UP(r.offset + r.len, cluster), d->size);

	if (!strcmp(d->shape->format, "raw") || from < s->start || end > s->start + s->len)
		return step_write(d);
	r = (struct range){ from, MIN(end - from, MAX(cluster, 64 * KIB)) };
	say(d, "write packed", r);
	return write_at(d, r, true);
}

static int step_zero(struct disk *d, bool unmap)
{
	struct range r = pick(d);
	u32 from = d->nr_events;
	int rc;

	say(d, unmap ? "zero, unmap" : "zero", r);
	add_events(d, r.offset, r.len, ZEROES);
	rc = image_zero(d->image, r.offset, r.len, unmap);
	if (!rc)
		make_sure(d, from);
	return rc;
}

/* What it has become is seen by reading; from then on it does not change. */
static int pin(struct disk *d, struct range r)
{
	for (int i = 0; i < d->nr_spans; i++) {
		u64 from = MAX(r.offset, d->span[i].start), k;
		u64 end = MIN(r.offset + r.len, d->span[i].start + d->span[i].len);

		for (; from < end; from += k) {
			int rc;

			k = MIN(end - from, BUF);
			rc = image_read(d->image, from, d->buf, k);
			if (rc)
				return rc;
			verify_buf(d, d->buf, from, k, d->nr_events, d->nr_events);
			for (u64 n = 0; n < k; n += SECTOR)
				add_event(d, sector_index(&d->span[i], from + n),
					  disk_id(d->buf + n), true);
		}
	}
	return 0;
}

static int step_discard(struct disk *d)
{
	struct range r = pick(d);
	int rc;

	say(d, "discard", r);
	add_events(d, r.offset, r.len, ZEROES);
	rc = image_discard(d->image, r.offset, r.len);
	return rc ? rc : pin(d, r);
}

int disk_flush(struct disk *d)
{
	int rc = image_flush(d->image);

	if (rc)
		return rc;
	assert_in_range(d->nr_flushes, 0, FLUSHES - 1);
	d->flush[d->nr_flushes++] = (struct disk_flush){ recorder_mark(), d->nr_events };
	return 0;
}

static int step_flush(struct disk *d, bool reclaim)
{
	int rc;

	say(d, reclaim ? "flush, reclaim" : "flush", (struct range){ 0, 0 });
	rc = disk_flush(d);
	if (!rc && reclaim)
		image_reclaim(d->image);
	return rc;
}

/* What is cut off is lost, whenever; what is added is zeroes, whatever is below. */
static int step_resize(struct disk *d)
{
	u64 old = d->size, size = random_size(d);
	u32 from = d->nr_events;
	struct err err = { 0 };
	int rc;

	switch (draw(&d->seed) % 4) {
	case 0:
		size = ALIGN_UP(size, (u64)d->shape->cluster);
		break;
	case 1:
		size = old + (draw(&d->seed) % 32) * SECTOR;
		break;
	case 2:
		size = old - (draw(&d->seed) % 32) * SECTOR;
		break;
	}
	if (size > d->shape->max_size || size < SECTOR || size > INT64_MAX)
		size = d->shape->max_size;
	say(d, "resize", (struct range){ old, size });
	if (size < old) {
		add_events(d, size, old - size, BELOW);
		add_events(d, size, old - size, ZEROES);
	} else {
		add_events(d, old, size - old, ZEROES);
	}
	add_event(d, d->nr_sectors, size / SECTOR, false);
	rc = image_resize(d->image, size, &err);
	if (rc ? rc != err.code || !allowed(d, d->nr_sectors, d->image->size / SECTOR, d->nr_events,
					    d->nr_events) : d->image->size != size)
		disk_fail(d, "resized to %#llx (%d, '%s')", (unsigned long long)d->image->size, rc,
			  err.msg);
	if (!rc)
		make_sure(d, from);
	d->size = d->image->size;
	return rc;
}

static int step_repair(struct disk *d)
{
	struct image_check c = { 0 };
	struct err err = { 0 };
	int rc;

	say(d, "repair", (struct range){ 0, 0 });
	rc = image_check(d->image, true, &c, &err);
	if (rc ? rc != err.code : c.corruptions || c.leaks)
		disk_fail(d, "%d, '%s', %llu corruptions, %llu leaks", rc, err.msg,
			  (unsigned long long)c.corruptions, (unsigned long long)c.leaks);
	return rc;
}

int disk_step(struct disk *d)
{
	u64 n = draw(&d->seed) % 100;

	d->step++;
	return n < 32 ? step_write(d) : n < 40 ? step_pack(d) : n < 60 ? step_read(d) : n < 67 ? step_zero(d, false) :
	       n < 74 ? step_zero(d, true) : n < 81 ? step_discard(d) : n < 88 ? step_flush(d, false) :
	       n < 96 ? step_flush(d, true) : n < 99 ? step_resize(d) : step_repair(d);
}

void disk_check(struct disk *d, struct image *i, bool no_leaks)
{
	struct image_check c = { 0 };
	struct err err = { 0 };

	if (image_check(i, false, &c, &err))
		disk_fail(d, "check: %s", err.msg);
	if (c.corruptions || (no_leaks && c.leaks))
		disk_fail(d, "check: %llu corruptions, %llu leaks", (unsigned long long)c.corruptions,
			  (unsigned long long)c.leaks);
}
