/* chain_copy.c: bytes from one image to another. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "devices/block/blk.h"
#include "devices/block/chain.h"
#include "devices/block/file.h"

/* A multiple of every cluster size; zeroes smaller than UNIT_MIN are not looked for. */
enum { WINDOW = CLUSTER_MAX, UNIT_MIN = 4096 };

struct copier {
	struct image *from, *to;
	struct chain_copy how;
	struct chain_job *job;
	u8 *buf, *old;
	u32 unit;
};

static int step(struct chain_job *job, u64 done, u64 total)
{
	return job && job->step ? job->step(job, done, total) : 0;
}

static bool all_zero(const u8 *buf, size_t len)
{
	return !buf[0] && !memcmp(buf, buf + 1, len - 1);
}

/* It is known to read as zeroes, without looking at bytes. */
static int is_void(struct image *i, u64 at, u64 len, bool *yes)
{
	struct image_where w;

	*yes = true;
	while (len && *yes) {
		int rc = image_where(i, at, len, &w);

		if (rc)
			return rc;
		*yes = w.depth < 0;
		at += w.extent.len;
		len -= w.extent.len;
	}
	return 0;
}

static int start(struct copier *c, struct err *err)
{
	c->unit = MAX(c->to->cluster, UNIT_MIN);
	c->buf = malloc(WINDOW);
	c->old = malloc(WINDOW);
	return c->buf && c->old ? 0 : err_set(err, -ENOMEM, "out of memory");
}

static void finish(struct copier *c)
{
	free(c->buf);
	free(c->old);
}

static int failed(const struct image *from, const struct image *to, int rc, struct err *err)
{
	if (rc == -EINTR)
		return err_set(err, rc, "interrupted");
	if (from == to)
		return err_set(err, rc, "disk %s: %s", to->path, strerror(-rc));
	return err_set(err, rc, "copying %s to %s: %s", from->path, to->path, strerror(-rc));
}

/* --- one piece -------------------------------------------------------------------------- */

static int put_zeroes(struct copier *c, u64 at, u64 len)
{
	while (len && !c->how.blank) {
		struct image_where w;
		int rc = image_where(c->to, at, len, &w);

		if (!rc && w.depth >= 0)
			rc = image_zero(c->to, at, w.extent.len, true);
		if (rc)
			return rc;
		at += w.extent.len;
		len -= w.extent.len;
	}
	return 0;
}

enum deed { SKIP, ZERO, WRITE };

static int judge(struct copier *c, u64 at, const u8 *buf, size_t len, enum deed *deed)
{
	bool zero = all_zero(buf, len), blank = c->how.blank;
	int rc = 0;

	*deed = zero ? ZERO : WRITE;
	if (!blank && (zero || c->how.compare))
		rc = is_void(c->to, at, len, &blank);
	if (rc || !c->how.compare || blank) {
		*deed = zero && blank ? SKIP : *deed;
		return rc;
	}
	rc = image_read(c->to, at, c->old, len);
	if (!rc && !memcmp(c->old, buf, len))
		*deed = SKIP;
	return rc;
}

static int act(struct copier *c, enum deed deed, u64 at, const u8 *buf, size_t len, bool pack)
{
	switch (deed) {
	case SKIP:
		return 0;
	case ZERO:
		return put_zeroes(c, at, len);
	case WRITE:
		return pack ? image_write_packed(c->to, at, buf, len) :
			      image_write(c->to, at, buf, len);
	}
	return 0;
}

/* At most a window: neighbours of the same fate together. */
static int put(struct copier *c, u64 at, const u8 *buf, size_t len, bool pack)
{
	enum deed deed = SKIP, next;
	size_t from = 0;
	int rc = 0;

	for (size_t n = 0; n < len && !rc; ) {
		size_t k = MIN(len - n, c->unit - (at + n) % c->unit);

		rc = judge(c, at + n, buf + n, k, &next);
		if (!rc && next != deed) {
			rc = act(c, deed, at + from, buf + from, n - from, pack);
			from = n;
			deed = next;
		}
		n += k;
	}
	return rc ? rc : act(c, deed, at + from, buf + from, len - from, pack);
}

/* --- a whole image ------------------------------------------------------------------------ */

static u64 to_window_end(u64 at, u64 size)
{
	return MIN(size - at, WINDOW - at % WINDOW);
}

/* What one reads there, whatever file it is in: windows, so that clusters are whole. */
static int copy_window(struct copier *c, u64 at, u64 *len)
{
	struct image_where w;
	int rc = image_where(c->from, at, c->from->size - at, &w);

	*len = to_window_end(at, c->from->size);
	if (rc)
		return rc;
	if (w.depth < 0 && w.extent.len >= *len) {
		*len = MAX(*len, ALIGN_DOWN(w.extent.len, (u64)WINDOW));
		return put_zeroes(c, at, *len);
	}
	rc = image_read(c->from, at, c->buf, *len);
	return rc ? rc : put(c, at, c->buf, *len, c->how.pack);
}

/* What is in the file itself. */
static int copy_own(struct copier *c, u64 at, u64 *len)
{
	struct extent e;
	int rc = c->from->ops->map(c->from, at, c->from->size - at, false, &e);

	if (rc)
		return rc;
	*len = e.len;
	if (e.kind == EXTENT_ABSENT)
		return 0;
	if (e.kind == EXTENT_ZERO)
		return put_zeroes(c, at, *len);
	*len = MIN(*len, to_window_end(at, c->from->size));
	rc = image_read(c->from, at, c->buf, *len);
	return rc ? rc : put(c, at, c->buf, *len, c->how.keep_packed && e.kind == EXTENT_PACKED);
}

int chain_copy(struct image *from, struct image *to, const struct chain_copy *how,
	       struct chain_job *job, struct err *err)
{
	struct copier c = { .from = from, .to = to, .how = *how, .job = job };
	int rc = start(&c, err);

	for (u64 at = 0, len = 0; at < from->size && !rc; at += len) {
		rc = step(job, at, from->size);
		if (!rc)
			rc = how->own ? copy_own(&c, at, &len) : copy_window(&c, at, &len);
	}
	if (!rc)
		rc = step(job, from->size, from->size);
	if (!rc)
		rc = chain_settle(to);
	if (rc && c.buf && c.old)
		failed(from, to, rc, err);
	finish(&c);
	return rc;
}

/* --- what another backing file would change --------------------------------------------- */

static int read_below(struct image *i, u64 at, u8 *buf, u64 len)
{
	u64 k = !i || at >= i->size ? 0 : MIN(len, i->size - at);
	int rc = k ? image_read(i, at, buf, k) : 0;

	memset(buf + k, 0, len - k);
	return rc;
}

static int is_void_below(struct image *i, u64 at, u64 len, bool *yes)
{
	*yes = true;
	return !i || at >= i->size ? 0 : is_void(i, at, MIN(len, i->size - at), yes);
}

static bool same_cluster(const struct copier *c, u64 n, u64 len)
{
	return !memcmp(c->buf + n, c->old + n, MIN(len - n, c->to->cluster));
}

/* Bytes that are not in the file itself, and read otherwise from the new chain. */
static int keep_window(struct copier *c, u64 at, u64 len)
{
	struct image *top = c->to, *below = c->from;
	bool old_void, new_void;
	int rc = is_void_below(top->backing, at, len, &old_void);

	if (!rc)
		rc = is_void_below(below, at, len, &new_void);
	if (rc || (old_void && new_void))
		return rc;
	rc = image_read(top, at, c->buf, len);
	if (!rc)
		rc = read_below(below, at, c->old, len);
	for (u64 n = 0, end; n < len && !rc; n = end) {
		bool same = same_cluster(c, n, len);

		for (end = n; end < len && same_cluster(c, end, len) == same; )
			end += MIN(len - end, top->cluster);
		/* Zeroes, too: what reads as such without a backing file cannot be marked. */
		if (!same)
			rc = image_write(top, at + n, c->buf + n, end - n);
	}
	return rc;
}

int chain_keep(struct image *top, struct image *below, struct chain_job *job, struct err *err)
{
	struct copier c = { .from = below, .to = top, .job = job };
	int rc = start(&c, err);

	for (u64 at = 0, len; at < top->size && !rc; at += len) {
		struct extent e;

		rc = step(job, at, top->size);
		if (!rc)
			rc = top->ops->map(top, at, top->size - at, false, &e);
		if (rc)
			break;
		len = e.kind == EXTENT_ABSENT ? MIN(e.len, to_window_end(at, top->size)) : e.len;
		if (e.kind == EXTENT_ABSENT)
			rc = keep_window(&c, at, len);
	}
	if (!rc)
		rc = step(job, top->size, top->size);
	if (!rc)
		rc = chain_settle(top);
	if (rc && c.buf && c.old)
		failed(top, top, rc, err);
	finish(&c);
	return rc;
}

/* --- a raw file's zeroes ---------------------------------------------------------------- */

static int punch_window(struct image *i, u64 at, const u8 *buf, u64 len)
{
	int rc = 0;

	for (u64 n = 0, k; n < len && !rc; n += k) {
		u64 zeroes = 0;

		for (k = 0; n + zeroes < len; zeroes += k) {
			k = MIN(len - n - zeroes, UNIT_MIN - (at + n + zeroes) % UNIT_MIN);
			if (!all_zero(buf + n + zeroes, k))
				break;
		}
		if (zeroes) {
			rc = image_discard(i, at + n, zeroes);
			k = zeroes;
		}
	}
	return rc;
}

int chain_punch(struct image *i, struct chain_job *job, struct err *err)
{
	u8 *buf = malloc(WINDOW);
	int rc = buf ? 0 : -ENOMEM;

	for (u64 at = 0, until; at < i->size && !rc; at = until) {
		bool data = file_is_data(i->fd, at, at + to_window_end(at, i->size), &until);

		rc = step(job, at, i->size);
		if (!rc && data)
			rc = image_read(i, at, buf, until - at);
		if (!rc && data)
			rc = punch_window(i, at, buf, until - at);
	}
	if (!rc)
		rc = step(job, i->size, i->size);
	if (!rc)
		rc = image_flush(i);
	free(buf);
	return rc ? failed(i, i, rc, err) : 0;
}
