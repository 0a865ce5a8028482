/*
 * saved.c: promise: a VM that is saved at any moment and goes on, here or elsewhere, has lost
 * nothing: no processor a register or a byte of memory, the disk no block and no request that was
 * in flight; time goes on, forwards. All of that is compared again and again, until the console
 * says what is wanted: '?' a line "step N ID RANDOM", with the VM's generation id and 8 random
 * bytes; 'q' the end. cpus=N What was not so makes a line "wrong N, refused N", and status 1;
 * refused are requests that the disk answered with an error.
 *
 * Spec: virtio 1.2, 5.2, 5.4; Virtual Machine Generation ID (Microsoft, 2012).
 */
#include "guest/lib/acpi.h"
#include "guest/lib/apic.h"
#include "guest/lib/blk.h"
#include "guest/lib/start.h"
#include "guest/lib/string.h"

enum { MAX_CPUS = 64, BLOCKS = 64, BLOCK = 4096, GENERATION_ID = 0xfffe0 };

static struct virtio disk, rng;
static struct virtq disk_q, rng_q;
static u64 block[BLOCK / 8] __attribute__((aligned(4096)));
static u64 expected[BLOCKS];
static volatile u32 arrived, wrong;
static u32 refused;		/* requests of the disk; the first processor's */

/* Each processor's: what a register has, memory has as well. */
static volatile u64 sums[MAX_CPUS][8];

static void count(u32 n)
{
	volatile u64 *mine = sums[n];
	u64 sum = n, tsc = rdtsc(), now;
	unsigned i;

	for (i = 0; i < 8; i++)
		mine[i] = sum;
	atomic_add(&arrived, 1);
	for (;; tsc = now) {
		for (i = 0; i < 8; i++) {
			if (mine[i] != sum)
				atomic_add(&wrong, 1);
			mine[i] = sum * 6364136223846793005ull + 1442695040888963407ull;
		}
		sum = mine[0];
		now = rdtsc();
		if (now < tsc)
			atomic_add(&wrong, 1);
	}
}

static void step_disk(u64 step)
{
	u64 n = step % BLOCKS, before = (step + BLOCKS - 1) % BLOCKS;
	unsigned i;

	for (i = 0; i < BLOCK / 8; i++)
		block[i] = step + i;
	expected[n] = step;
	if (blk_do(&disk_q, BLK_OUT, n * BLOCK / SECTOR, block, BLOCK, 1, NULL) != BLK_OK) {
		refused++;
		expected[n] = 0;
	}
	if (blk_do(&disk_q, BLK_IN, before * BLOCK / SECTOR, block, BLOCK, 2, NULL) != BLK_OK) {
		refused++;
		return;
	}
	for (i = 0; expected[before] && i < BLOCK / 8; i++)
		if (block[i] != expected[before] + i)
			atomic_add(&wrong, 1);
}

static void say_step(u64 step)
{
	const u64 *id = (const u64 *)GENERATION_ID;
	static u64 random;
	struct virtq_buf b = { &random, sizeof(random), true };
	u32 len;

	if (!virtq_do(&rng_q, &b, 1, NULL, &len) || len != sizeof(random))
		atomic_add(&wrong, 1);
	say("step %lld %016llx%016llx %016llx\n", step, id[0], id[1], random);
	if (wrong || refused)
		say("wrong %d, refused %d\n", wrong, refused);
}

static bool start_all(void)
{
	static u32 ids[MAX_CPUS];
	unsigned nr = acpi_cpus(ids, MAX_CPUS);

	if (!check(nr == arg_u64("cpus", 1), "%d processors", nr) ||
	    !check(blk_start(&disk, &disk_q, 0, 0), "the disk starts") ||
	    !check(virtio_find(&rng, VIRTIO_RNG, 0) && virtio_negotiate(&rng, 0) &&
		   virtq_init(&rng_q, &rng, 0, VIRTQ_SIZE), "a source of random numbers"))
		return false;
	virtio_add_status(&rng, STATUS_DRIVER_OK);
	return check(nr == 1 || (ap_start_all(nr - 1, count) && poll_until(arrived == nr - 1)),
		     "all others count");
}

int main(const struct start_info *info, const char *cmdline)
{
	u64 step = 1;
	int c = 0;

	(void)info;
	(void)cmdline;
	apic_init();
	if (!start_all())
		return 1;
	say("ready\n");
	for (; c != 'q'; step++) {
		step_disk(step);
		c = serial_read();
		if (c == '?')
			say_step(step);
	}
	if (wrong || refused)
		say("wrong %d, refused %d\n", wrong, refused);
	return wrong || refused ? 1 : 0;
}
