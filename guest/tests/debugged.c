/*
 * debugged.c: promise: a debugger stops it where it said, sees what is there and changes it:
 * tests/guest/gdb is its other half. With `alone` it does not need one. cpus=2: the second
 * processor counts until the first is done.
 */
#include "guest/lib/acpi.h"
#include "guest/lib/apic.h"
#include "guest/lib/start.h"

volatile u64 told, count;
static u32 ids[2];

u64 here(u64 n);
void second(u32 n);

/* Its value is what the debugger makes of it. */
__attribute__((noinline)) u64 here(u64 n)
{
	asm volatile("" : "+r"(n));
	return n;
}

__attribute__((noinline)) void second(u32 n)
{
	(void)n;
	for (;;)
		count++;
}

int main(const struct start_info *info, const char *cmdline)
{
	bool alone = arg_find("alone");
	u64 before;

	(void)info;
	(void)cmdline;
	check(here(1) == (alone ? 1 : 77), "a register");
	check(told == (alone ? 0 : 0x1122334455667788), "memory");
	if (acpi_cpus(ids, 2) == 2) {
		apic_init();
		check(ap_start(ids[0] == apic_id() ? ids[1] : ids[0], second), "the second one starts");
		before = count;
		while (count < before + 1000)
			;
		here(2);
	}
	here(3);
	say("the end\n");
	return check_result();
}
