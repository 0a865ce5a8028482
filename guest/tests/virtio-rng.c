/*
 * virtio-rng.c: promise: a virtio ring works, over either transport (transport=pci|mmio): round
 * trips, interrupts and their suppression, indirect descriptors, EVENT_IDX, MSI-X masking.
 * virtio-rng is the device.
 *
 * Spec: virtio 1.2, 2.7, 4.1.4, 4.2.2, 5.4; PCI 3.0, 6.8.2.9 (MSI-X pending bits).
 */
#include "guest/lib/apic.h"
#include "guest/lib/start.h"
#include "guest/lib/string.h"
#include "guest/lib/virtq.h"

static struct virtio v;
static struct virtq q;
static u8 bytes[2][256] __attribute__((aligned(4096)));

static bool set_up(u64 features, u16 size)
{
	if (!virtio_negotiate(&v, features))
		return false;
	virtio_enable_interrupts(&v);
	if (!virtq_init(&q, &v, 0, size))
		return false;
	virtio_add_status(&v, STATUS_DRIVER_OK);
	return true;
}

static bool random_enough(const u8 *p, u32 len)
{
	u32 i, zeroes = 0;

	for (i = 0; i < len; i++)
		zeroes += !p[i];
	return len > 0 && zeroes < len / 2 + 1;
}

static bool request(struct virtq_desc *table)
{
	struct virtq_buf b = { bytes[0], 64, true };
	u32 len = 0;

	memset(bytes[0], 0, 64);
	return virtq_do(&q, &b, 1, table, &len) && len > 0 && len <= 64 &&
		random_enough(bytes[0], len);
}

static void test_start(void)
{
	u32 len;
	struct virtq_buf b[2] = { { bytes[0], 64, true }, { bytes[1], 100, true } };

	check(virtio_features(&v) & FEATURE(F_VERSION_1), "offers VERSION_1");
	check(virtio_reset(&v) && !virtio_status(&v), "reset leaves status 0");
	check(virtio_queue_max(&v, 0) >= 2, "queue 0 has %d entries", virtio_queue_max(&v, 0));
	check(!virtio_queue_max(&v, 1), "there is no queue 1");
	if (!check(set_up(0, VIRTQ_SIZE), "negotiates, with one queue"))
		guest_exit(1);
	check(request(NULL), "a request is answered");
	check(virtq_do(&q, b, 2, NULL, &len) && len > 0 && len <= 164, "and one in two parts");
}

static void test_interrupt(void)
{
	u32 before = virtio_irqs();

	check(request(NULL) && poll_until(virtio_irqs() > before), "a use interrupts");
	q.avail.flags = AVAIL_NO_INTERRUPT;
	barrier_full();
	poll_pause();
	before = virtio_irqs();
	check(request(NULL) && request(NULL) && virtio_irqs() == before,
	      "not with NO_INTERRUPT");
	q.avail.flags = 0;
	barrier_full();
	check(request(NULL) && poll_until(virtio_irqs() > before), "and again without");
}

/* Fewer entries than the device has, and more requests than entries: indices wrap. */
static void test_wrap(void)
{
	unsigned i;
	bool held = set_up(0, 4);

	for (i = 0; held && i < 11; i++)
		held = request(NULL);
	check(held, "11 requests in a ring of 4");
}

static void test_batch(void)
{
	struct virtq_buf b = { bytes[0], 8, true };
	u32 id, len, seen = 0;
	unsigned i;
	bool held;

	held = set_up(0, VIRTQ_SIZE);
	for (i = 0; i < q.size; i++)
		virtq_add(&q, &b, 1, NULL);
	virtq_kick(&q);
	for (i = 0; held && i < q.size; i++) {
		held = virtq_wait(&q) && virtq_pop(&q, &id, &len) && len <= 8;
		seen |= 1u << id;
	}
	check(held && seen == (1u << q.size) - 1, "one kick for a full ring of %d", q.size);
}

static void test_indirect(void)
{
	static struct virtq_desc table[3] __attribute__((aligned(16)));
	struct virtq_buf b[3] = {
		{ bytes[0], 16, true }, { bytes[0] + 16, 16, true }, { bytes[1], 32, true },
	};
	u32 len = 0;

	if (!(virtio_features(&v) & FEATURE(F_INDIRECT))) {
		check_skip("INDIRECT_DESC is not offered");
		return;
	}
	memset(bytes, 0, sizeof(bytes));
	check(set_up(FEATURE(F_INDIRECT), VIRTQ_SIZE) && virtq_do(&q, b, 3, table, &len) &&
	      len > 0 && len <= 64 && random_enough(bytes[0], len < 32 ? len : 32),
	      "three buffers by an indirect table");
	check(request(NULL), "and a direct one after that");
}

static void test_event_idx(void)
{
	struct virtq_buf b = { bytes[0], 8, true };
	u32 before, id, len;
	unsigned i;
	bool held;

	if (!(virtio_features(&v) & FEATURE(F_EVENT_IDX))) {
		check_skip("EVENT_IDX is not offered");
		return;
	}
	if (!check(set_up(FEATURE(F_EVENT_IDX), VIRTQ_SIZE), "negotiates EVENT_IDX"))
		return;
	check(request(NULL), "a request is answered");
	check(poll_until(virtq_avail_event(&q) == q.avail.idx), "and the next kick asked for");
	poll_until(virtio_irqs() > 0);
	before = virtio_irqs();
	virtq_want_irq_after(&q, (u16)(q.seen + 2));
	for (i = 1, held = true; held && i <= 3; i++) {
		held = poll_until(virtq_avail_event(&q) == q.avail.idx);
		virtq_add(&q, &b, 1, NULL);
		virtq_kick(&q);
		held = held && poll_until((u16)(q.used.idx - q.seen) == i);
		if (i == 2)
			check(virtio_irqs() == before, "two uses before used_event: quiet");
	}
	check(held && poll_until(virtio_irqs() == before + 1), "the third interrupts");
	while (virtq_pop(&q, &id, &len))
		;
	before = virtio_irqs();
	check(request(NULL) && poll_until(virtio_irqs() > before), "and the next one, too");
}

static void test_queue_ready(void)
{
	if (!v.mmio)
		return;
	check(virtio_negotiate(&v, 0) && virtq_init(&q, &v, 0, VIRTQ_SIZE),
	      "QueueReady reads back as 1");
	virtio_mmio_queue_disable(&v, 0);
	check(!virtio_queue_is_enabled(&v, 0), "and as 0, before DRIVER_OK");
	set_up(0, VIRTQ_SIZE);
	request(NULL);
	virtio_mmio_queue_disable(&v, 0);
	check(!virtio_queue_is_enabled(&v, 0), "and after");
	check(set_up(0, VIRTQ_SIZE) && request(NULL), "after a reset it works again");
}

static void test_msix_mask(void)
{
	u32 before;

	if (v.mmio)
		return;
	set_up(0, VIRTQ_SIZE);
	pci_msix_mask(&v.msix, 1, true);
	before = virtio_irqs();
	check(request(NULL) && virtio_irqs() == before, "a masked MSI-X entry is quiet");
	check(poll_until(pci_msix_pending(&v.msix, 1)), "its pending bit is set");
	pci_msix_mask(&v.msix, 1, false);
	check(poll_until(virtio_irqs() == before + 1), "unmasked, it delivers once");
	check(!pci_msix_pending(&v.msix, 1), "the pending bit is clear");

	pci_msix_enable(&v.pci, &v.msix, true, true);
	before = virtio_irqs();
	check(request(NULL) && virtio_irqs() == before, "the function mask holds it, too");
	pci_msix_enable(&v.pci, &v.msix, true, false);
	check(poll_until(virtio_irqs() == before + 1), "and lets it go");

	v.queue_entry = NO_VECTOR;
	set_up(0, VIRTQ_SIZE);
	before = virtio_irqs();
	check(request(NULL) && virtio_irqs() == before, "no vector, no interrupt");
	v.queue_entry = 0x7fe;
	set_up(0, VIRTQ_SIZE);
	check(virtio_queue_entry(&v, 0) == NO_VECTOR,
	      "a vector beyond the table reads back as none");
	v.queue_entry = 1;
	set_up(0, VIRTQ_SIZE);
	check(virtio_queue_entry(&v, 0) == 1, "one that is there as itself");
	check(request(NULL) && poll_until(virtio_irqs() > before), "and it interrupts");
}

int main(const struct start_info *info, const char *cmdline)
{
	(void)info;
	(void)cmdline;
	apic_init();
	if (!check(virtio_find(&v, VIRTIO_RNG, 0), "there is a virtio-rng"))
		return 1;
	irq_enable();
	test_start();
	test_interrupt();
	test_wrap();
	test_batch();
	test_indirect();
	test_event_idx();
	test_queue_ready();
	test_msix_mask();
	check(virtio_reset(&v), "reset at the end");
	return check_result();
}
