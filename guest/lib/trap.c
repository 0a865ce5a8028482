/*
 * trap.c: interrupts and exceptions: the IDT and who is called from it.
 *
 * Spec: Intel SDM vol. 3, 6.14.
 */
#include "guest/lib/trap.h"

#include "guest/lib/serial.h"
#include "guest/lib/start.h"

enum { STUB_SIZE = 16, CODE64 = 8, GATE_INTERRUPT = 0x8e };

struct gate {
	u16 offset_low, selector;
	u8 ist, type;
	u16 offset_mid;
	u32 offset_high, reserved;
};

struct idtr {
	u16 limit;
	u64 base;
} __attribute__((packed));

extern const u8 trap_stubs[];
void trap_dispatch(struct trap_frame *f);

static struct gate idt[TRAP_VECTORS] __attribute__((aligned(16)));
static void (*handlers[TRAP_VECTORS])(struct trap_frame *);

void trap_load(void)
{
	struct idtr r = { sizeof(idt) - 1, (uintptr_t)idt };

	asm volatile("lidt %0" : : "m"(r));
}

void trap_gate(u8 vector, const u8 *code)
{
	struct gate *g = &idt[vector];

	g->offset_low = (u16)(uintptr_t)code;
	g->offset_mid = (u16)((uintptr_t)code >> 16);
	g->selector = CODE64;
	g->type = GATE_INTERRUPT;
}

void trap_init(void)
{
	unsigned i;

	for (i = 0; i < TRAP_VECTORS; i++)
		trap_gate((u8)i, trap_stubs + i * STUB_SIZE);
	trap_load();
}

void trap_set(u8 vector, void (*handler)(struct trap_frame *))
{
	handlers[vector] = handler;
	barrier();
}

void trap_dispatch(struct trap_frame *f)
{
	if (handlers[f->vector]) {
		handlers[f->vector](f);
		return;
	}
	if (f->vector == TRAP_SPURIOUS)
		return;
	say("not ok - trap %lld at %llx, error %llx, rsp %llx\n", f->vector, f->rip, f->error,
	    f->rsp);
	guest_exit(EXIT_TRAP);
}
