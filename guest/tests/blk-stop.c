/*
 * blk-stop.c: promise: with on_error=stop, requests that the host could not do, on two queues, are done
 * once it can: each is answered once, with OK, and the disk has what was written. Says "ready", and
 * waits for a byte on the console, so that the host can take something away from the disk meanwhile.
 *
 * The disk becomes lines of 16 bytes, numbered from 0.
 *
 * Spec: virtio 1.2, 5.2.6.
 */
#include "guest/lib/blk.h"
#include "guest/lib/start.h"
#include "guest/lib/string.h"

enum {
	QUEUES = 2, EACH = 8, REQUESTS = QUEUES * EACH, LEN = 16384, LINE = 16,
	BLK_NUM_QUEUES = 34,		/* in the configuration */
};

static struct virtio v;
static struct virtq q[QUEUES];
static u8 text[REQUESTS * LEN] NOINIT __attribute__((aligned(8)));
static u8 back[LEN] NOINIT __attribute__((aligned(8)));
static struct { u32 type, reserved; u64 sector; } head[REQUESTS];
static struct virtq_desc table[REQUESTS][3] __attribute__((aligned(16)));
static volatile u8 status[REQUESTS];

static void fill(void)
{
	char line[LINE + 1] = "000000000000000\n";
	u8 *at;
	u32 i;

	for (at = text; at < text + sizeof(text); at += LINE) {
		memcpy(at, line, LINE);
		for (i = LINE - 2; line[i]++ == '9'; i--)
			line[i] = '0';
	}
}

static bool start(void)
{
	u16 i;

	if (!virtio_find(&v, VIRTIO_BLK, 0) ||
	    !virtio_negotiate(&v, FEATURE(BLK_F_MQ) | FEATURE(BLK_F_FLUSH) | FEATURE(F_INDIRECT) |
			      FEATURE(F_EVENT_IDX)))
		return false;
	if (!check(virtio_config(&v, BLK_NUM_QUEUES, 2) == QUEUES, "it has two queues"))
		return false;
	for (i = 0; i < QUEUES; i++)
		if (!virtq_init(&q[i], &v, i, VIRTQ_SIZE))
			return false;
	virtio_add_status(&v, STATUS_DRIVER_OK);
	return true;
}

/* All at once, neighbours on different queues. */
static void write_all(void)
{
	u32 i;

	for (i = 0; i < REQUESTS; i++) {
		struct virtq_buf b[] = {
			{ &head[i], sizeof(head[i]), false }, { text + i * LEN, LEN, false },
			{ (u8 *)(u64)&status[i], 1, true },
		};

		head[i].type = BLK_OUT;
		head[i].sector = i * (LEN / SECTOR);
		status[i] = BLK_LOST;
		virtq_add(&q[i % QUEUES], b, 3, table[i]);
	}
	for (i = 0; i < QUEUES; i++)
		virtq_kick(&q[i]);
}

static void take_answers(struct virtq *of)
{
	u32 i, id, len, seen = 0;
	bool held = true;

	for (i = 0; held && i < EACH; i++) {
		held = virtq_wait(of) && virtq_pop(of, &id, &len) && id < VIRTQ_SIZE &&
			!(seen >> id & 1) && len == 1;
		seen |= 1u << (id & 31);
	}
	check(held && of->used.idx == of->seen, "each request of queue %d is answered, once", of->queue);
}

static bool reads_back(u32 i)
{
	const u64 *want = (const u64 *)(text + i * LEN), *got = (const u64 *)back;
	u32 n = 0;

	if (blk_do(&q[(i + 1) % QUEUES], BLK_IN, i * (LEN / SECTOR), back, LEN, 1, NULL) != BLK_OK)
		return false;
	while (n < LEN / 8 && got[n] == want[n])
		n++;
	return n == LEN / 8;
}

int main(const struct start_info *info, const char *cmdline)
{
	u32 i, good = 0, same = 0;

	(void)info;
	(void)cmdline;
	if (!check(start(), "the disk starts"))
		return 1;
	fill();
	say("ready\n");
	while (serial_read() < 0)
		;
	write_all();
	for (i = 0; i < QUEUES; i++)
		take_answers(&q[i]);
	for (i = 0; i < REQUESTS; i++)
		good += status[i] == BLK_OK;
	check(good == REQUESTS, "%d of %d writes are OK", good, REQUESTS);
	for (i = 0; i < QUEUES; i++)
		check(blk_do(&q[i], BLK_FLUSH, 0, NULL, 0, 1, NULL) == BLK_OK, "queue %d flushes", i);
	for (i = 0; i < REQUESTS; i++)
		same += reads_back(i);
	check(same == REQUESTS, "%d of %d reads bring what was written", same, REQUESTS);
	return check_result();
}
