/*
 * bare.c: the least a program can do to run a guest with 512 MiB, a disk and a
 * tap on this host: the needed system calls and nothing else.  The baseline for
 * the time from exec to the guest's first instructions.
 *
 *   bare DISK TAP
 */
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static const unsigned char code[] = { 0xba, 0xf8, 0x03, 0xb0, '!', 0xee, 0xf4 };

int main(int argc, char **argv)
{
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + 256 * sizeof(cpuid->entries[0]));
	size_t size = 512 << 20;
	char *ram = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct kvm_userspace_memory_region slot = { .memory_size = size,
						    .userspace_addr = (unsigned long)ram };
	struct kvm_regs regs = { .rip = 0x1000, .rflags = 2 };
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm, vcpu, tun, run_size;
	struct kvm_sregs sregs;
	struct kvm_run *run;

	if (argc < 3 || open(argv[1], O_RDWR | O_CLOEXEC) < 0)
		return 2;
	tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	strncpy(ifr.ifr_name, argv[2], sizeof(ifr.ifr_name) - 1);
	if (ioctl(tun, TUNSETIFF, &ifr))
		return 2;
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	run_size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot);
	ioctl(vm, KVM_CREATE_IRQCHIP, 0);
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	cpuid->nent = 256;
	ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid);
	ioctl(vcpu, KVM_SET_CPUID2, cpuid);
	memcpy(ram + 0x1000, code, sizeof(code));
	ioctl(vcpu, KVM_GET_SREGS, &sregs);
	sregs.cs.base = sregs.cs.selector = 0;
	ioctl(vcpu, KVM_SET_SREGS, &sregs);
	ioctl(vcpu, KVM_SET_REGS, &regs);
	while (!ioctl(vcpu, KVM_RUN, 0) && run->exit_reason == KVM_EXIT_IO)
		if (write(1, (char *)run + run->io.data_offset, 1) != 1)
			return 1;
	return 1;
}
