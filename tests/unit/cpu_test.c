/* cpu_test.c: what a processor says of itself, on hosts that tell their guests more and less. */
#include <errno.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include "tests/lib/test.h"
#include "vmm/kvm/cpu.h"

enum { MAX_LEAVES = 64 };

struct leaves {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 entry[MAX_LEAVES];
};

static struct leaves host, guest;	/* guest: of the processor that was set up last */

int __wrap_ioctl(int, unsigned long, ...);

int __wrap_ioctl(int fd, unsigned long nr, ...)
{
	const struct kvm_cpuid2 *c;
	va_list ap;

	(void)fd;
	va_start(ap, nr);
	c = va_arg(ap, void *);
	va_end(ap);
	if (nr == KVM_SET_CPUID2) {
		assert_in_range(c->nent, 1, MAX_LEAVES);
		memcpy(&guest, c, sizeof(*c) + c->nent * sizeof(c->entries[0]));
	}
	return 0;
}

static void host_has(u32 function, u32 index, u32 eax)
{
	assert_in_range(host.head.nent, 0, MAX_LEAVES - 1);
	host.entry[host.head.nent++] = (struct kvm_cpuid_entry2){ .function = function, .index = index, .eax = eax };
}

/* As KVM answers: zeroes for what it was not told. */
static struct kvm_cpuid_entry2 ask(u32 function, u32 index)
{
	for (u32 i = 0; i < guest.head.nent; i++)
		if (guest.entry[i].function == function && guest.entry[i].index == index)
			return guest.entry[i];
	return (struct kvm_cpuid_entry2){ 0 };
}

/* Processor id of nr is one of a single package, by the way that Linux goes through the levels. */
static void check_package(u32 leaf, unsigned id, unsigned nr)
{
	unsigned level = 0, shift = 0, most = 0;

	for (struct kvm_cpuid_entry2 e; (e = ask(leaf, level)).ecx >> 8 & 0xff; level++) {
		assert_int_equal(e.ecx & 0xff, level);
		assert_int_equal(e.edx, id);
		shift = e.eax & 31;
		most = e.ebx & 0xffff;
	}
	assert_in_range(level, 2, 3);
	assert_int_equal(most, nr);
	assert_int_equal(id >> shift, 0);
}

static void set_up(unsigned id, unsigned nr)
{
	struct kvm k = { .cpuid = &host.head };
	struct err err = { 0 };

	assert_int_equal(cpu_setup(&k, -1, id, nr, &err), 0);
}

static void check_all(bool has_1f)
{
	for (unsigned nr = 1; nr <= CPU_MAX; nr++)
		for (unsigned id = 0; id < nr; id++) {
			set_up(id, nr);
			assert_in_range(ask(0, 0).eax, 0xb, 0x1f);
			assert_int_equal(ask(1, 0).ebx >> 24, id);
			check_package(0xb, id, nr);
			if (has_1f)
				check_package(0x1f, id, nr);
			else
				assert_int_equal(ask(0x1f, 0).ecx, 0);
		}
}

/* Linux tells since 6.2 no more of each than that it is there. */
static void test_one_package(void **state)
{
	(void)state;
	memset(&host, 0, sizeof(host));
	host_has(0, 0, 0x1f);
	host_has(1, 0, 0x606a6);
	host_has(0xb, 0, 0);
	host_has(0x1f, 0, 0);
	check_all(true);
}

static void test_one_package_of_old_hosts(void **state)
{
	(void)state;
	memset(&host, 0, sizeof(host));
	host_has(0, 0, 0x1f);
	host_has(1, 0, 0x606a6);
	for (u32 leaf = 0xb; leaf <= 0x1f; leaf += 0x1f - 0xb)
		for (u32 i = 0; i < 4; i++)
			host_has(leaf, i, 5 + i);
	check_all(true);
	memset(&host, 0, sizeof(host));
	host_has(0, 0, 7);
	host_has(1, 0, 0x206a7);
	check_all(false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_package), cmocka_unit_test(test_one_package_of_old_hosts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
