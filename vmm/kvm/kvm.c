/* kvm.c: /dev/kvm (Linux, Documentation/virt/kvm/api.rst). */
#include "vmm/kvm/kvm.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { CPUID_MAX = 256 };

/* Three pages that KVM on Intel needs for real mode, in the hole below 4 GiB. */
#define TSS_ADDR	0xfffbd000UL

int kvm_extension(const struct kvm *k, int cap)
{
	int rc = ioctl(k->vm_fd >= 0 ? k->vm_fd : k->sys_fd, KVM_CHECK_EXTENSION, cap);

	return MAX(rc, 0);
}

static const char *why_not(int code)
{
	switch (code) {
	case -ENOENT:
		return "this host has no /dev/kvm; load the module with 'modprobe kvm-intel' or "
		       "'modprobe kvm-amd', or switch virtualization on in its firmware";
	case -EACCES:
	case -EPERM:
		return "no permission to use /dev/kvm; join its group with "
		       "'usermod -aG kvm $USER' and log in again";
	case -ENODEV:
	case -ENXIO:
		return "/dev/kvm is there but nothing behind it; load the module with "
		       "'modprobe kvm-intel' or 'modprobe kvm-amd'";
	case -EBUSY:
		return "another hypervisor on this host holds the processor's virtualization";
	}
	return strerror(-code);
}

static int get_cpuid(struct kvm *k, struct err *err)
{
	k->cpuid = calloc(1, sizeof(*k->cpuid) + CPUID_MAX * sizeof(k->cpuid->entries[0]));
	if (!k->cpuid)
		return err_set(err, -ENOMEM, "kvm: out of memory");
	k->cpuid->nent = CPUID_MAX;
	if (ioctl(k->sys_fd, KVM_GET_SUPPORTED_CPUID, k->cpuid))
		return err_set(err, -errno, "kvm: no CPUID from the host: %s", strerror(errno));
	return 0;
}

static int check_caps(struct kvm *k, struct err *err)
{
	static const struct { int cap; const char *name; } needed[] = {
		{ KVM_CAP_USER_MEMORY, "user memory" }, { KVM_CAP_IRQCHIP, "in-kernel irqchip" },
		{ KVM_CAP_IRQFD, "irqfd" }, { KVM_CAP_IOEVENTFD, "ioeventfd" },
		{ KVM_CAP_IMMEDIATE_EXIT, "immediate exit" }, { KVM_CAP_IRQ_ROUTING, "irq routing" },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(needed); i++)
		if (!kvm_extension(k, needed[i].cap))
			return err_set(err, -ENOTSUP, "kvm: this host's kernel is too old: it has no %s",
				       needed[i].name);
	k->has_tsc_deadline = kvm_extension(k, KVM_CAP_TSC_DEADLINE_TIMER);
	k->has_any_length_doorbell = kvm_extension(k, KVM_CAP_IOEVENTFD_ANY_LENGTH);
	return 0;
}

int kvm_open(struct kvm *k, struct err *err)
{
	int rc;

	*k = (struct kvm){ .sys_fd = -1, .vm_fd = -1 };
	k->sys_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (k->sys_fd < 0)
		return err_set(err, -errno, "kvm: %s", why_not(-errno));
	rc = ioctl(k->sys_fd, KVM_GET_API_VERSION, 0);
	if (rc < 0) {
		rc = err_set(err, -ENODEV, "kvm: /dev/kvm is something else: %s; 'mknod /dev/kvm c 10 232' makes it",
			     strerror(errno));
		goto fail;
	}
	if (rc != KVM_API_VERSION) {
		rc = err_set(err, -ENOTSUP, "kvm: /dev/kvm speaks API version %d, not %d", rc,
			     KVM_API_VERSION);
		goto fail;
	}
	/* A signal may interrupt it: it is tried again, as the kernel says. */
	do
		k->vm_fd = ioctl(k->sys_fd, KVM_CREATE_VM, 0);
	while (k->vm_fd < 0 && errno == EINTR);
	if (k->vm_fd < 0) {
		rc = err_set(err, -errno, "kvm: cannot make a VM: %s", why_not(-errno));
		goto fail;
	}
	rc = ioctl(k->sys_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (rc < 0) {
		rc = err_set(err, -errno, "kvm: %s", strerror(errno));
		goto fail;
	}
	k->run_size = rc;
	rc = check_caps(k, err);
	if (!rc)
		rc = get_cpuid(k, err);
	if (!rc)
		return 0;
fail:
	kvm_close(k);
	return rc;
}

void kvm_close(struct kvm *k)
{
	if (k->vm_fd >= 0)
		close(k->vm_fd);
	if (k->sys_fd >= 0)
		close(k->sys_fd);
	free(k->cpuid);
	*k = (struct kvm){ .sys_fd = -1, .vm_fd = -1 };
}

int kvm_set_memory(struct kvm *k, struct mem *m, struct err *err)
{
	for (int i = 0; i < mem_nr_regions(m); i++) {
		struct mem_region r = mem_region(m, i);
		struct kvm_userspace_memory_region slot = {
			.slot = i, .guest_phys_addr = r.base, .memory_size = r.size,
			.userspace_addr = (uintptr_t)r.host,
			.flags = mem_tracks_dirty(m) ? KVM_MEM_LOG_DIRTY_PAGES : 0,
		};

		if (ioctl(k->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot))
			return err_set(err, -errno, "kvm: memory slot of %llu MiB at %#llx: %s",
				       (unsigned long long)(r.size >> 20),
				       (unsigned long long)r.base, strerror(errno));
	}
	return 0;
}

int kvm_fetch_dirty(struct kvm *k, struct mem *m, struct err *err)
{
	u64 *pages = calloc(1, mem_dirty_len(m));
	int rc = pages ? 0 : -ENOMEM;

	for (int i = 0; i < mem_nr_regions(m) && !rc; i++) {
		struct kvm_dirty_log log = { .slot = i, .dirty_bitmap = pages };
		u64 *to = mem_dirty_pages(m, i);

		if (ioctl(k->vm_fd, KVM_GET_DIRTY_LOG, &log))
			rc = -errno;
		for (u64 n = 0; n < mem_region(m, i).size / MEM_PAGE / 64 && !rc; n++)
			if (pages[n])
				__atomic_or_fetch(&to[n], pages[n], __ATOMIC_RELAXED);
	}
	free(pages);
	return rc ? err_set(err, rc, "kvm: which pages were written to: %s", strerror(-rc)) : 0;
}

int kvm_create_irqchip(struct kvm *k, struct err *err)
{
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	struct kvm_enable_cap emulation = { .cap = KVM_CAP_EXIT_ON_EMULATION_FAILURE, .args = { 1 } };

	if (ioctl(k->vm_fd, KVM_SET_TSS_ADDR, TSS_ADDR))
		return err_set(err, -errno, "kvm: TSS address: %s", strerror(errno));
	if (ioctl(k->vm_fd, KVM_CREATE_IRQCHIP, 0))
		return err_set(err, -errno, "kvm: irqchip: %s", strerror(errno));
	if (ioctl(k->vm_fd, KVM_CREATE_PIT2, &pit))
		return err_set(err, -errno, "kvm: timer: %s", strerror(errno));
	/* So that a failure shows the instruction; an older kernel has it not. */
	(void)!ioctl(k->vm_fd, KVM_ENABLE_CAP, &emulation);
	return 0;
}

void kvm_irqchip_state(struct kvm *k, struct state *s)
{
	static const char *const name[] = { "pic-master", "pic-slave", "ioapic" };
	struct kvm_pit_state2 pit;

	state_enter(s, "irqchip", 0);
	for (u32 i = 0; i < ARRAY_SIZE(name); i++) {
		struct kvm_irqchip chip = { .chip_id = i };

		if (!state_loading(s) && ioctl(k->vm_fd, KVM_GET_IRQCHIP, &chip))
			state_error(s, -errno, name[i]);
		state_bytes(s, name[i], &chip.chip, sizeof(chip.chip));
		if (state_loading(s) && !state_failed(s) && ioctl(k->vm_fd, KVM_SET_IRQCHIP, &chip))
			state_error(s, -errno, name[i]);
	}
	if (!state_loading(s) && ioctl(k->vm_fd, KVM_GET_PIT2, &pit))
		state_error(s, -errno, "pit");
	state_bytes(s, "pit", &pit, sizeof(pit));
	if (state_loading(s) && !state_failed(s) && ioctl(k->vm_fd, KVM_SET_PIT2, &pit))
		state_error(s, -errno, "pit");
	state_leave(s);
}

void kvm_clock_state(struct kvm *k, struct state *s)
{
	struct kvm_clock_data data = { 0 };
	u64 clock;

	state_enter(s, "clock", 0);
	if (!state_loading(s) && ioctl(k->vm_fd, KVM_GET_CLOCK, &data))
		state_error(s, -errno, NULL);
	clock = data.clock;
	state_u64(s, "kvmclock-ns", &clock);
	/* Flags other than 0 would add the time that passed meanwhile on this host. */
	data = (struct kvm_clock_data){ .clock = clock };
	if (state_loading(s) && !state_failed(s) && ioctl(k->vm_fd, KVM_SET_CLOCK, &data))
		state_error(s, -errno, NULL);
	state_leave(s);
}

static int ring(struct kvm *k, const struct doorbell *b, bool on, u32 flags)
{
	struct kvm_ioeventfd e = {
		.addr = b->addr, .len = b->size, .fd = b->fd, .datamatch = b->value,
		.flags = flags | (b->match ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0) |
			 (on ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN),
	};

	if (!e.len && !k->has_any_length_doorbell)
		e.len = 2;	/* what drivers of virtio 1 over PCI write */
	return ioctl(k->vm_fd, KVM_IOEVENTFD, &e) ? -errno : 0;
}

static int ring_mmio(struct bus *bus, const struct doorbell *b, bool on)
{
	return ring(bus->owner, b, on, 0);
}

static int ring_pio(struct bus *bus, const struct doorbell *b, bool on)
{
	return ring(bus->owner, b, on, KVM_IOEVENTFD_FLAG_PIO);
}

void kvm_attach_bus(struct kvm *k, struct bus *bus, bool mmio)
{
	bus->owner = k;
	bus->doorbell = mmio ? ring_mmio : ring_pio;
}
