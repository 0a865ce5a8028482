/* prefetch.c: reads pages of a mapping in, in the background. */
#include "vmm/core/prefetch.h"
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "vmm/core/log.h"
#include "vmm/core/thread.h"

enum { PAGE = 4096, MAX_RANGES = 4, STACK = 128 << 10, AT_ONCE = 512 /* pages: then it looks whether to stop */ };

struct prefetch {
	pthread_t thread;
	struct prefetch_range range[MAX_RANGES];
	unsigned nr;
	u64 *bits;
	bool stop;			/* atomic */
};

static bool is_set(const struct prefetch *p, u64 n)
{
	return p->bits[n / 64] >> n % 64 & 1;
}

/* Linux before 5.14 does not know to map them; that they are in memory is most of it. */
static void read_in(u8 *host, u64 len)
{
	if (madvise(host, len, MADV_POPULATE_READ))
		madvise(host, len, MADV_WILLNEED);
}

/* first: the number of the range's first page in bits. */
static u64 read_range(struct prefetch *p, const struct prefetch_range *r, u64 first)
{
	u64 nr = r->size / PAGE, sum = 0;

	for (u64 at = 0; at < nr && !load_once(&p->stop); ) {
		u64 end = at;

		while (end < nr && end - at < AT_ONCE && is_set(p, first + end))
			end++;
		if (end > at)
			read_in((u8 *)r->host + at * PAGE, (end - at) * PAGE);
		sum += end - at;
		at = end + (end == at);
	}
	return sum;
}

static void *read_all(void *arg)
{
	struct prefetch *p = arg;
	u64 first = 0, sum = 0;

	thread_begin(THREAD_POOL, "prefetch");
	for (unsigned i = 0; i < p->nr; i++) {
		sum += read_range(p, &p->range[i], first);
		first += p->range[i].size / PAGE;
	}
	log_debug("prefetch: %llu pages of the working set", (unsigned long long)sum);
	return NULL;
}

struct prefetch *prefetch_start(const struct prefetch_range *range, unsigned nr, u64 *bits)
{
	struct prefetch *p = calloc(1, sizeof(*p));
	pthread_attr_t attr;
	int rc;

	BUG_ON(nr > MAX_RANGES);
	if (!p) {
		free(bits);
		return NULL;
	}
	for (unsigned i = 0; i < nr; i++)
		p->range[i] = range[i];
	p->nr = nr;
	p->bits = bits;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK);
	rc = pthread_create(&p->thread, &attr, read_all, p);
	pthread_attr_destroy(&attr);
	if (!rc)
		return p;
	free(bits);
	free(p);
	return NULL;
}

void prefetch_stop(struct prefetch *p)
{
	if (!p)
		return;
	store_release(&p->stop, true);
	pthread_join(p->thread, NULL);
	free(p->bits);
	free(p);
}
