/* machine.c: which devices a machine has, where they are, and how it starts. */
#include "vmm/machine.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include "devices/block/blk.h"
#include "devices/chardev.h"
#include "devices/legacy.h"
#include "devices/net/net.h"
#include "devices/pci/pci.h"
#include "devices/virtio/virtio.h"
#include "firmware/boot.h"
#include "firmware/layout.h"
#include "vmm/core/log.h"
#include "vmm/core/pager.h"
#include "vmm/core/state.h"
#include "vmm/kvm/cpu.h"
#include "vmm/kvm/irqchip.h"
#include "vmm/kvm/kvm.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/snapshot.h"

enum { MAX_DEVICES = 80 };

struct machine {
	struct platform platform;
	struct resources *resources;
	struct kvm kvm;
	struct mem *mem;
	struct bus mmio, pio;
	struct irqchip *irqchip;
	struct io_thread io[1 + CONFIG_MAX_IOTHREADS];	/* the first is everybody's */
	unsigned nr_io;
	struct virtio *disk[CONFIG_MAX_DISKS], *net[CONFIG_MAX_NETS];
	struct device *device[MAX_DEVICES];	/* destroyed from the last to the first */
	unsigned nr_devices;
	struct pci_bus *pci;			/* NULL: virtio over MMIO */
	struct device *acpi;
	struct boot_machine boot;
	bool bad_input;				/* the user's files cannot be booted */
	struct vcpu_host host;
	struct vcpu *vcpu[CONFIG_MAX_CPUS];
	int outcome;				/* atomic enum outcome */
	int exit_code;
	struct task end;
	struct task io_error;
	bool paused, vcpus_run;
	u8 snapshot_id[SNAPSHOT_ID_LEN];
};

/* Pins that nothing else uses, for virtio over MMIO. */
static const u8 mmio_gsi[] = { 5, 6, 7, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23 };

/* --- its end -------------------------------------------------------------------------------- */

static void leave_loop(struct task *t)
{
	struct machine *m = container_of(t, struct machine, end);

	loop_stop(m->resources->main_loop);
}

static bool is_users(enum outcome why)
{
	return why == OUTCOME_QUIT || why == OUTCOME_STOPPED;
}

static bool replace_outcome(struct machine *m, int was, int why)
{
	return __atomic_compare_exchange_n(&m->outcome, &was, why, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

void machine_end(struct machine *m, enum outcome why)
{
	if (!replace_outcome(m, OUTCOME_NONE, why) && !(is_users(why) && replace_outcome(m, OUTCOME_RESET, why)))
		return;
	store_release(&m->host.stop, true);
	loop_post(m->resources->main_loop, &m->end);
}

static void guest_event(struct platform *p, enum machine_event event, int code)
{
	static const enum outcome outcome_of[] = {
		[MACHINE_POWEROFF] = OUTCOME_POWEROFF, [MACHINE_RESET] = OUTCOME_RESET,
		[MACHINE_PANIC] = OUTCOME_PANIC, [MACHINE_EXIT] = OUTCOME_EXIT,
	};
	struct machine *m = container_of(p, struct machine, platform);

	if (event == MACHINE_IO_ERROR) {
		loop_post(m->resources->main_loop, &m->io_error);
		return;
	}
	if (event == MACHINE_EXIT && load_acquire(&m->outcome) == OUTCOME_NONE)
		m->exit_code = code;
	machine_end(m, outcome_of[event]);
}

static void fatal(struct vcpu_host *h)
{
	machine_end(container_of(h, struct machine, host), OUTCOME_FATAL);
}

static void debug_stop(struct vcpu_host *h)
{
	struct resources *r = container_of(h, struct machine, host)->resources;

	loop_post(r->main_loop, r->debug_stop);
}

/* --- pause ------------------------------------------------------------------------------------- */

static void pause_all(struct machine *m)
{
	if (m->paused)
		return;
	/* The console waits for nobody meanwhile: its loop is ours. */
	chardev_swallow(m->resources->serial, true);
	vcpus_pause(&m->host, m->vcpu);
	for (unsigned i = m->nr_devices; i-- > 0; )
		device_quiesce(m->device[i]);
	m->paused = true;
}

static int start_vcpus(struct machine *m, struct err *err)
{
	int rc = 0;

	m->vcpus_run = true;
	for (unsigned i = 0; i < m->host.nr_vcpus && !rc; i++)
		rc = vcpu_run(m->vcpu[i], err);
	return rc;
}

/* Paused, or not started yet. */
static int run_all(struct machine *m, struct err *err)
{
	if (m->paused) {
		chardev_swallow(m->resources->serial, false);
		for (unsigned i = 0; i < m->nr_devices; i++)
			device_resume(m->device[i]);
		m->paused = false;
		vcpus_resume(&m->host, m->vcpu);
	}
	return m->vcpus_run ? 0 : start_vcpus(m, err);
}

void machine_hold(struct machine *m, enum hold by)
{
	m->resources->held |= by;
	pause_all(m);
}

void machine_let_go(struct machine *m, unsigned holds)
{
	struct err err;

	m->resources->held &= ~holds;
	if (m->resources->held || !m->paused)
		return;
	if (run_all(m, &err)) {
		log_err("%s", err.msg);
		machine_end(m, OUTCOME_FATAL);
	}
}

const char *hold_end(unsigned holds)
{
	return holds & HOLD_USER ? "the API resumes it" :
	       holds & HOLD_DEBUGGER ? "its debugger lets it go" :
	       "the cause of its disk's error is gone, and by SIGCONT";
}

void machine_retry(struct machine *m)
{
	if (!(m->resources->held & HOLD_ERROR))
		return;
	machine_let_go(m, HOLD_ERROR);
	if (!m->paused)
		log_info("resumed");
	else
		log_info("the VM goes on when %s", hold_end(m->resources->held));
}

bool machine_is_paused(const struct machine *m)
{
	return m->paused;
}

static void pause_for_error(struct task *t)
{
	struct machine *m = container_of(t, struct machine, io_error);

	if (m->paused)
		return;
	machine_hold(m, HOLD_ERROR);
	log_warn("paused; when the cause is gone, 'kill -CONT %d' goes on", getpid());
}

/* One device, while it is changed; of a VM that is paused all stand still. */
static void hold(struct machine *m, struct device *dev)
{
	if (!m->paused)
		device_quiesce(dev);
}

static void let_go(struct machine *m, struct device *dev)
{
	if (!m->paused)
		device_resume(dev);
}

/* --- disks ------------------------------------------------------------------------------------- */

int machine_snapshot_disk(struct machine *m, unsigned disk, const char *name, struct err *err)
{
	struct blk *blk = m->resources->disk[disk];
	struct device *dev = &m->disk[disk]->dev;
	int rc = blk_snapshot_prepare(blk, name, err);

	if (rc)
		return rc;
	hold(m, dev);
	blk_snapshot_take(blk);
	let_go(m, dev);
	return blk_snapshot_settle(blk, err);
}

void machine_replace_disk(struct machine *m, unsigned disk, struct blk *blk)
{
	struct blk *old = m->resources->disk[disk];
	struct device *dev = &m->disk[disk]->dev;

	hold(m, dev);
	m->resources->disk[disk] = blk;
	virtio_blk_replaced(m->disk[disk], blk);
	let_go(m, dev);
	blk_close(old);
}

int machine_resize_disk(struct machine *m, unsigned disk, u64 size, struct err *err)
{
	struct blk *blk = m->resources->disk[disk];
	u64 old = blk_info(blk).size;
	int rc = blk_resize(blk, size, err);

	if (!rc && blk_info(blk).size != old)
		virtio_blk_resized(m->disk[disk]);
	return rc;
}

/* --- networks ---------------------------------------------------------------------------------- */

/* Who waits by the old one asks the new one. */
void machine_limit_disk(struct machine *m, unsigned disk, const struct limit_config *limit)
{
	struct device *dev = &m->disk[disk]->dev;

	hold(m, dev);
	limit_set(&m->resources->limit[disk], limit);
	let_go(m, dev);
}

void machine_limit_net(struct machine *m, unsigned net, const struct limit_config *rx,
		       const struct limit_config *tx)
{
	struct device *dev = &m->net[net]->dev;

	hold(m, dev);
	limit_set(&m->resources->rx_limit[net], rx);
	limit_set(&m->resources->tx_limit[net], tx);
	let_go(m, dev);
}

int machine_set_link(struct machine *m, unsigned net, bool up, struct err *err)
{
	struct device *dev = &m->net[net]->dev;
	int rc;

	hold(m, dev);
	rc = virtio_net_set_link(m->net[net], up);
	let_go(m, dev);
	if (!rc)
		m->resources->unplugged[net] = !up;
	return rc ? err_set(err, rc, "its %s on the host is gone",
			    m->resources->net[net][0]->ops->kind) : 0;
}

void machine_press_power_button(struct machine *m)
{
	acpi_event(m->acpi, ACPI_EVENT_POWER_BUTTON);
}

/* --- its parts --------------------------------------------------------------------------------- */

static int add(struct machine *m, int rc, struct device *dev)
{
	if (rc)
		return rc;
	m->device[m->nr_devices++] = dev;
	metrics_add(&m->resources->metrics, &dev->metrics);
	return 0;
}

/* The transport owns the device from here on, also when it fails. */
static int attach(struct machine *m, struct virtio *v, struct err *err)
{
	unsigned n = m->boot.nr_mmio_dev;
	struct device *dev = NULL;
	int rc;

	if (m->pci) {
		rc = virtio_pci_new(v, m->pci, &dev, err);
	} else if (n == ARRAY_SIZE(mmio_gsi)) {
		rc = err_set(err, -ENOSPC, "%s: virtio over MMIO has room for %zu devices; use fewer, "
			     "or --transport pci", v->dev.name, ARRAY_SIZE(mmio_gsi));
		device_destroy(&v->dev);
	} else {
		u64 base = LAYOUT_VIRTIO_MMIO + n * LAYOUT_VIRTIO_MMIO_STEP;

		rc = virtio_mmio_new(v, base, mmio_gsi[n], &dev, err);
		m->boot.mmio_dev[n].base = base;
		m->boot.mmio_dev[n].gsi = mmio_gsi[n];
		m->boot.nr_mmio_dev++;
	}
	return add(m, rc, dev);
}

/* Another one for each VM that has no name: others on its networks may have none either. */
static u64 nameless(void)
{
	static u64 number;

	while (!number)
		if (getrandom(&number, sizeof(number), 0) != sizeof(number))
			number = now_ns() ^ (u64)getpid() << 40;
	return number;
}

/* Locally administered. */
static void derive_mac(const struct config *c, unsigned i, u8 mac[6])
{
	bool alone = c->net[i].mode == NET_USER || c->net[i].mode == NET_PASST;
	u64 hash = 0xcbf29ce484222325;		/* FNV-1a */
	char name[24] = "vmm", text[128];

	if (!alone)
		snprintf(name, sizeof(name), "/%llx", (unsigned long long)nameless());
	snprintf(text, sizeof(text), "%s/%u", c->name ?: name, i);
	for (const char *s = text; *s; s++)
		hash = (hash ^ (u8)*s) * 0x100000001b3;
	mac[0] = 0x02;
	for (int b = 1; b < 6; b++)
		mac[b] = hash >> 8 * b;
}

void machine_net_mac(const struct config *c, unsigned i, u8 mac[6])
{
	if (c->net[i].has_mac)
		memcpy(mac, c->net[i].mac, sizeof(c->net[i].mac));
	else
		derive_mac(c, i, mac);
}

static int add_io_thread(struct machine *m, bool for_disks, struct err *err)
{
	struct io_thread *io = &m->io[m->nr_io];
	int rc = loop_new(&io->loop, err);

	if (rc)
		return rc;
	m->nr_io++;
	return for_disks ? aio_new(&io->aio, io->loop, m->resources->config->aio, err) : 0;
}

static int add_disk(struct machine *m, unsigned i, struct err *err)
{
	enum { QUEUES_BY_DEFAULT = 4 };
	const struct config *c = m->resources->config;
	const struct disk_config *d = &c->disk[i];
	struct virtio_blk_options o = {
		.serial = d->serial, .limit = &m->resources->limit[i],
		.nr_queues = d->queues ? d->queues : MIN(c->cpus, QUEUES_BY_DEFAULT),
		.write_through = d->write_through, .no_flush = d->no_flush, .discard = !d->no_discard,
		.write_zeroes = !d->no_write_zeroes, .stop_on_error = d->stop_on_error,
		.io = &m->io[m->nr_io], .nr_io = d->iothreads,
	};
	char name[32];
	int rc = 0;

	for (unsigned n = 0; n < d->iothreads && !rc; n++)
		rc = add_io_thread(m, true, err);
	snprintf(name, sizeof(name), "disk%u", i);
	if (!rc)
		rc = virtio_blk_new(&m->platform, name, m->resources->disk[i], &o, &m->disk[i], err);
	return rc ? rc : attach(m, m->disk[i], err);
}

static int add_net(struct machine *m, unsigned i, struct err *err)
{
	struct resources *r = m->resources;
	const struct net_config *c = &r->config->net[i];
	u8 mac[6];
	struct virtio_net_options o = {
		.mac = mac, .net = r->net[i], .vhost = r->vhost[i], .nr_pairs = config_net_pairs(c),
		.io = &m->io[m->nr_io], .nr_io = c->iothreads,
		.rx_limit = &r->rx_limit[i], .tx_limit = &r->tx_limit[i],
		.dump = r->dump[i], .unplugged = r->unplugged[i], .plain = c->plain,
	};
	char name[32];
	int rc = 0;

	machine_net_mac(r->config, i, mac);
	for (unsigned n = 0; n < c->iothreads && !rc; n++)
		rc = add_io_thread(m, false, err);
	snprintf(name, sizeof(name), "net%u", i);
	if (!rc)
		rc = virtio_net_new(&m->platform, name, &o, &m->net[i], err);
	return rc ? rc : attach(m, m->net[i], err);
}

static int add_vsock(struct machine *m, struct err *err)
{
	const struct resources *r = m->resources;
	struct virtio *v;
	int rc = virtio_vsock_new(&m->platform, "vsock0", r->config->vsock.cid, r->vsock, &v, err);

	return rc ? rc : attach(m, v, err);
}

static int add_virtio(struct machine *m, struct err *err)
{
	const struct config *c = m->resources->config;
	struct platform *p = &m->platform;
	struct virtio *v;
	int rc = 0;

	for (unsigned i = 0; i < c->nr_disks && !rc; i++)
		rc = add_disk(m, i, err);
	for (unsigned i = 0; i < c->nr_nets && !rc; i++)
		rc = add_net(m, i, err);
	if (!rc)
		rc = virtio_rng_new(p, "rng0", &c->entropy, &v, err);
	if (!rc)
		rc = attach(m, v, err);
	if (!rc && c->vsock.path)
		rc = add_vsock(m, err);
	return rc;
}

static int add_devices(struct machine *m, struct err *err)
{
	bool has_pci = m->resources->config->transport == TRANSPORT_PCI;
	struct platform *p = &m->platform;
	struct device *dev = NULL;
	int rc;

	rc = serial_new(p, "com1", PORT_COM1, COM1_GSI, m->resources->serial, &dev, err);
	rc = add(m, rc, dev);
	if (!rc)
		rc = rtc_new(p, &dev, err);
	rc = add(m, rc, dev);
	if (!rc)
		rc = ports_new(p, !has_pci, &dev, err);
	rc = add(m, rc, dev);
	if (!rc)
		rc = acpi_ports_new(p, &m->acpi, err);
	rc = add(m, rc, m->acpi);
	if (!rc && has_pci) {
		rc = pci_bus_new(&m->pci, p, LAYOUT_PCI_ECAM, LAYOUT_PCI_WINDOW,
				 LAYOUT_PCI_WINDOW_LEN, err);
		if (!rc)
			add(m, 0, pci_bus_device(m->pci));
	}
	return rc ? rc : add_virtio(m, err);
}

static int add_vcpus(struct machine *m, const struct cpu_start *start, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; i < m->host.nr_vcpus && !rc; i++)
		rc = vcpu_new(&m->vcpu[i], &m->host, i, i ? NULL : start, err);
	return rc;
}

struct mem *machine_mem(struct machine *m)
{
	return m->mem;
}

struct vcpu_host *machine_vcpus(struct machine *m, struct vcpu *const **vcpu)
{
	*vcpu = m->vcpu;
	return &m->host;
}

u8 *machine_snapshot_id(struct machine *m)
{
	return m->snapshot_id;
}

int machine_fetch_dirty(struct machine *m, struct err *err)
{
	return kvm_fetch_dirty(&m->kvm, m->mem, err);
}

const struct resources *machine_resources(const struct machine *m)
{
	return m->resources;
}

const struct config *machine_config(const struct machine *m)
{
	return m->resources->config;
}

void machine_state(struct machine *m, struct state *s)
{
	BUG_ON(!m->paused);
	kvm_irqchip_state(&m->kvm, s);
	for (unsigned i = 0; i < m->host.nr_vcpus; i++)
		vcpu_state(m->vcpu[i], s);
	kvm_clock_state(&m->kvm, s);
	for (unsigned i = 0; i < m->nr_devices; i++)
		device_state(m->device[i], s);
	for (unsigned i = 0; i < m->resources->config->nr_nets; i++)
		m->resources->unplugged[i] = !virtio_net_is_plugged(m->net[i]);
}

/* By it a guest knows that it was copied, and mixes new randomness. */
static int new_generation(struct machine *m, struct err *err)
{
	u8 id[16];

	if (getrandom(id, sizeof(id), 0) != sizeof(id) ||
	    mem_write_obj(m->mem, GPA(LAYOUT_GENERATION_ID), &id))
		return err_set(err, -EIO, "generation id: %s", strerror(errno));
	return 0;
}

static int load_state(struct machine *m, struct err *err)
{
	int rc;

	m->paused = true;
	for (unsigned i = m->nr_devices; i-- > 0; )
		device_quiesce(m->device[i]);
	m->bad_input = true;
	rc = snapshot_load(m->resources->from, m, err);
	memcpy(m->snapshot_id, snapshot_info(m->resources->from).id, sizeof(m->snapshot_id));
	if (!rc)
		rc = new_generation(m, err);
	if (rc)
		return rc;
	acpi_event(m->acpi, ACPI_EVENT_GENERATION);
	for (unsigned i = 0; i < m->resources->config->nr_nets; i++)
		virtio_net_announce(m->net[i]);
	return 0;
}

/* The loader knows which of the files is wrong, but not its path. */
static int load(struct machine *m, struct cpu_start *start, struct err *err)
{
	const struct resources *r = m->resources;
	int rc = boot_load(m->mem, &m->boot, r->kernel_fd, r->initrd_fd, r->cmdline, start, err);
	char why[sizeof(err->msg)];

	if (!rc)
		return 0;
	snprintf(why, sizeof(why), "%s", err->msg);
	if (!strncmp(why, "kernel: ", 8))
		err_set(err, rc, "kernel %s: %s", r->config->kernel, why + 8);
	else if (!strncmp(why, "initrd: ", 8) && r->initrd_path)
		err_set(err, rc, "initrd %s: %s", r->initrd_path, why + 8);
	m->bad_input = true;
	return rc;
}

/* Who became somebody else is in no group that another could be put into. */
static int open_kvm(struct kvm *k, const struct config *c, struct err *err)
{
	int rc = kvm_open(k, err);

	if (rc != -EACCES || !c->has_uid)
		return rc;
	return c->chroot ?
		err_set(err, rc, "kvm: no permission to use /dev/kvm in %s; choose a directory on a file "
			"system that is not mounted 'nodev'", c->chroot) :
		err_set(err, rc, "kvm: user %u has no permission to use /dev/kvm; give its group by --gid "
			"('stat -c %%g /dev/kvm' says which), or --chroot, where one is made", c->uid);
}

static int build(struct machine *m, struct err *err)
{
	const struct config *c = m->resources->config;
	struct snapshot *from = m->resources->from;
	struct cpu_start start;
	int rc = open_kvm(&m->kvm, c, err);

	if (!rc)
		rc = from ? snapshot_make_mem(from, &m->mem, err) :
			    mem_new(&m->mem, c->mem, c->hugepages, err);
	if (!rc && c->track_dirty_pages)
		rc = mem_track_dirty(m->mem, err);
	if (!rc)
		rc = kvm_set_memory(&m->kvm, m->mem, err);
	if (!rc)
		rc = kvm_create_irqchip(&m->kvm, err);
	if (!rc)
		rc = irqchip_new(&m->irqchip, &m->kvm, err);
	if (!rc)
		rc = add_io_thread(m, c->nr_disks, err);
	if (rc)
		return rc;
	kvm_attach_bus(&m->kvm, &m->mmio, true);
	kvm_attach_bus(&m->kvm, &m->pio, false);
	m->platform = (struct platform){
		.mem = m->mem, .mmio = &m->mmio, .pio = &m->pio, .irqchip = m->irqchip,
		.main_loop = m->resources->main_loop, .io_loop = m->io[0].loop, .aio = m->io[0].aio,
		.metrics = &m->resources->metrics, .event = guest_event,
	};
	m->host.kvm = &m->kvm;
	m->host.mem = m->mem;
	m->host.mmio = &m->mmio;
	m->host.pio = &m->pio;
	m->host.nr_vcpus = c->cpus;
	m->host.metrics = &m->resources->metrics;
	m->host.fatal = fatal;
	m->host.stopped = debug_stop;
	rc = add_devices(m, err);
	m->boot.nr_cpus = c->cpus;
	m->boot.has_pci = m->pci;
	m->boot.pci_ecam = LAYOUT_PCI_ECAM;
	m->boot.pci_ecam_len = PCI_ECAM_LEN;
	if (!rc && !from)
		rc = load(m, &start, err);
	if (!rc && !from)
		rc = new_generation(m, err);
	if (!rc)
		rc = add_vcpus(m, from ? NULL : &start, err);
	return !rc && from ? load_state(m, err) : rc;
}

int machine_new(struct machine **out, struct resources *r, bool *bad_input, struct err *err)
{
	struct machine *m = calloc(1, sizeof(*m));
	int rc;

	*bad_input = false;
	if (!m)
		return err_set(err, -ENOMEM, "out of memory");
	m->resources = r;
	m->kvm.sys_fd = m->kvm.vm_fd = -1;
	m->end.run = leave_loop;
	m->io_error.run = pause_for_error;
	vcpu_host_init(&m->host);
	bus_init(&m->mmio, "mmio");
	bus_init(&m->pio, "pio");
	rc = build(m, err);
	*bad_input = rc && m->bad_input && !err_of_host(rc);
	if (rc) {
		machine_free(m);
		return rc;
	}
	r->machine = m;
	*out = m;
	return 0;
}

int machine_start(struct machine *m, struct err *err)
{
	char name[16];
	int rc = 0;

	mem_start(m->mem);
	if (m->resources->held)
		pause_all(m);
	for (unsigned i = 0; i < m->nr_io && !rc; i++) {
		snprintf(name, sizeof(name), "io/%u", i);
		rc = loop_start_thread(m->io[i].loop, i && m->io[i].aio ? THREAD_DISK : THREAD_IO, name, err);
	}
	return rc || m->resources->held ? rc : run_all(m, err);
}

enum outcome machine_outcome(const struct machine *m, int *exit_code)
{
	*exit_code = m->exit_code;
	return load_acquire(&m->outcome);
}

static void stop_vcpus(struct machine *m)
{
	store_release(&m->host.stop, true);
	if (m->paused)
		vcpus_resume(&m->host, m->vcpu);
	/* One may wait for a terminal that nobody reads. */
	chardev_hurry(m->resources->serial, true);
	for (unsigned i = 0; i < CONFIG_MAX_CPUS && m->vcpu[i]; i++)
		vcpu_kick(m->vcpu[i]);
	for (unsigned i = 0; i < CONFIG_MAX_CPUS && m->vcpu[i]; i++)
		vcpu_join(m->vcpu[i]);
	chardev_hurry(m->resources->serial, false);
	chardev_swallow(m->resources->serial, false);
}

void machine_free(struct machine *m)
{
	if (!m)
		return;
	m->resources->machine = NULL;
	m->resources->held &= ~HOLD_ERROR;
	/* Each that is waited for may itself wait for a page. */
	pager_hurry(is_users(load_acquire(&m->outcome)));
	stop_vcpus(m);
	while (m->nr_devices)
		device_destroy(m->device[--m->nr_devices]);
	for (unsigned i = 0; i < m->nr_io; i++) {
		loop_stop_thread(m->io[i].loop);
		aio_free(m->io[i].aio);
		loop_free(m->io[i].loop);
	}
	pager_hurry(false);
	/* A disk may have failed since the main loop ended. */
	loop_unpost(m->resources->main_loop, &m->io_error);
	loop_unpost(m->resources->main_loop, &m->end);
	resources_machine_ended(m->resources);
	for (unsigned i = 0; i < CONFIG_MAX_CPUS; i++)
		vcpu_free(m->vcpu[i]);
	irqchip_free(m->irqchip);
	kvm_close(&m->kvm);
	mem_free(m->mem);
	vcpu_host_fini(&m->host);
	bus_fini(&m->mmio);
	bus_fini(&m->pio);
	free(m);
}
