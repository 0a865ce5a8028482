/*
 * reset.c: promise: a reset, by how=i8042|cf9|triple, ends vmm or boots the guest again from a
 * clean machine. by=ap: another processor asks for it. disk: counts boots in the first byte of the
 * first disk, as a digit, and ends with status 0 at the third. wait: a byte of the console's is
 * waited for before it. write: with disk, its second sector is being written meanwhile.
 *
 * Before each reset the machine is left as untidy as can be: processors running, x2APIC, a live
 * queue with requests in it, an unmasked line.
 *
 * Spec: Intel SDM vol. 3, 9.1 (reset state); virtio 1.2, 2.4 (device reset).
 */
#include "guest/lib/acpi.h"
#include "guest/lib/apic.h"
#include "guest/lib/blk.h"
#include "guest/lib/start.h"
#include "guest/lib/string.h"

enum { BOOTS = '3', MAX_CPUS = 64, REDIRECTION_COM1 = 0x10 + GSI_COM1 * 2 };

static struct virtio rng, disk;
static struct virtq rng_queue, disk_queue;
static u8 bytes[64], sector[SECTOR];
static u32 ids[MAX_CPUS];
static unsigned nr_cpus;
static volatile bool go;

/* Not in .bss, which our own start clears: what the loader leaves there is what is tested. */
static u32 marker NOINIT;

static void reset(void)
{
	struct { u16 limit; u64 base; } __attribute__((packed)) none = { 0, 0 };

	if (arg_is("how", "i8042")) {
		outb(PORT_KBC_STATUS, KBC_RESET);
	} else if (arg_is("how", "cf9")) {
		outb(PORT_RESET, RESET_FULL & ~4);
		outb(PORT_RESET, RESET_FULL);
	} else {
		/* A page fault, and no way to deliver it nor what follows. */
		asm volatile("lidt %0" : : "m"(none));
		mmio_read8(1ull << 46);
	}
}

static void run(u32 n)
{
	apic_init();
	if (n)
		return;
	while (!go)
		poll_pause();
	reset();
}

static void test_clean(void)
{
	u64 base = rdmsr(MSR_APIC_BASE);

	check(base & APIC_BASE_BSP && base & APIC_BASE_ENABLE && !(base & APIC_BASE_X2),
	      "this is the boot processor, in xAPIC mode");
	check(ioapic_read(REDIRECTION_COM1) & IOAPIC_MASKED, "IOAPIC pin 4 is masked");
	if (!virtio_use_mmio() && pci_find(0x1af4, 0x1040 + VIRTIO_RNG, 0, &rng.pci))
		check(!(pci_read(&rng.pci, PCI_COMMAND, 2) & (COMMAND_MASTER | COMMAND_NO_INTX)),
		      "PCI: virtio-rng is not yet switched on");
	check(virtio_find(&rng, VIRTIO_RNG, 0) && !virtio_status(&rng), "virtio-rng is reset");
	check(!marker, "memory that is not in the file is 0");
}

static void make_untidy(void)
{
	struct virtq_buf b = { bytes, sizeof(bytes), true };
	unsigned i;
	u32 me = apic_id();

	for (i = 0; i < nr_cpus; i++)
		if (ids[i] != me)
			check(ap_start(ids[i], run), "processor %d starts", ids[i]);
	ioapic_route(GSI_COM1, 0x24);
	check(virtio_negotiate(&rng, 0), "virtio-rng starts");
	virtio_enable_interrupts(&rng);
	virtq_init(&rng_queue, &rng, 0, VIRTQ_SIZE);
	virtio_add_status(&rng, STATUS_DRIVER_OK);
	for (i = 0; i < rng_queue.size; i++)
		virtq_add(&rng_queue, &b, 1, NULL);
}

/* The digit in the disk's first byte, one more than it was; 0 if that failed. */
static u8 count_boot(void)
{
	u8 digit;

	if (!blk_start(&disk, &disk_queue, 0, FEATURE(BLK_F_FLUSH)) ||
	    blk_do(&disk_queue, BLK_IN, 0, sector, SECTOR, 1, NULL) != BLK_OK)
		return 0;
	digit = sector[0] ? (u8)(sector[0] + 1) : '1';
	sector[0] = digit;
	if (blk_do(&disk_queue, BLK_OUT, 0, sector, SECTOR, 1, NULL) != BLK_OK ||
	    blk_do(&disk_queue, BLK_FLUSH, 0, NULL, 0, 1, NULL) != BLK_OK)
		return 0;
	return digit;
}

static void write_unheard(void)
{
	static struct { u32 type, reserved; u64 sector; } head = { BLK_OUT, 0, 1 };
	static u8 status;
	struct virtq_buf b[] = {
		{ &head, sizeof(head), false }, { sector, SECTOR, false }, { &status, 1, true },
	};

	virtq_add(&disk_queue, b, 3, NULL);
	virtq_kick(&disk_queue);
}

int main(const struct start_info *info, const char *cmdline)
{
	bool by_ap = arg_is("by", "ap");
	u8 boot;

	(void)info;
	(void)cmdline;
	test_clean();
	apic_init();
	nr_cpus = acpi_cpus(ids, MAX_CPUS);
	if (arg_find("disk")) {
		boot = count_boot();
		if (!check(boot >= '1' && boot <= BOOTS, "boot %c", boot ? boot : '?'))
			return 1;
		if (boot == BOOTS)
			return check_result();
	}
	make_untidy();
	if (check_result())
		return 1;
	marker = START_MAGIC;
	if (arg_find("wait")) {
		say("waiting\n");
		while (serial_read() < 0)
			poll_pause();
	}
	say("resetting\n");
	serial_drain();
	if (arg_find("write"))
		write_unheard();
	virtio_notify(&rng, 0);
	if (cpuid(1, 0).ecx >> 21 & 1 && !by_ap)
		apic_enable_x2();
	if (by_ap)
		go = true;
	else
		reset();
	poll_until(false);
	return 2;
}
