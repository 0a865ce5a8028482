/*
 * serial-echo.c: promise: what comes in on the console reaches the guest by interrupt, all of it
 * and in order. Echoes up to a sentinel (EOT), then prints how much there was and the sum of its
 * 32-bit words.
 *
 * Runs hlt-driven: a lost interrupt hangs, and the runner's time limit says so.
 *
 * Spec: PC16550D, 8.4 (FIFO), 8.5 (interrupts).
 */
#include "guest/lib/apic.h"
#include "guest/lib/start.h"
#include "guest/lib/trap.h"

enum { SENTINEL = 4, VECTOR = 0x24, MAX = 2 << 20, TRIGGER = 14 };

static u8 text[MAX] NOINIT __attribute__((aligned(4)));
static volatile u32 received;
static volatile bool done;

static void on_serial(struct trap_frame *f)
{
	u32 at = received;
	u8 iir;

	(void)f;
	/* Edge-triggered: only IIR saying "none" lets the line rise again. */
	while (!((iir = inb(UART_IIR)) & IIR_NONE)) {
		/* At the trigger level that many are there, and one exit fetches them. */
		if ((iir & IIR_ID) == IIR_RDA && at + TRIGGER <= MAX) {
			insb(UART_DATA, text + at, TRIGGER);
			at += TRIGGER;
		}
		while (at < MAX && inb(UART_LSR) & LSR_DATA)
			text[at++] = inb(UART_DATA);
		if (at == MAX || text[at - 1] == SENTINEL)
			break;
	}
	done = at == MAX || (at && text[at - 1] == SENTINEL);
	received = at;
	apic_eoi();
}

static u64 sum(u32 len)
{
	const u32 *p = (const u32 *)text;
	u64 s = 0;

	for (len /= 4; len--; p++)
		s += *p;
	return s;
}

int main(const struct start_info *info, const char *cmdline)
{
	u32 echoed = 0, upto;

	(void)info;
	(void)cmdline;
	apic_init();
	trap_set(VECTOR, on_serial);
	ioapic_route(GSI_COM1, VECTOR);
	outb(UART_FCR, FCR_ENABLE | FCR_TRIGGER_14);
	say("ready\n");
	outb(UART_IER, IER_RDA);
	for (;;) {
		irq_disable();
		upto = received;
		if (echoed == upto && !done) {
			irq_wait();
			continue;
		}
		irq_enable();
		if (done && echoed >= received - 1)
			break;
		serial_write(text + echoed, upto - (done ? 1 : 0) - echoed);
		echoed = upto;
	}
	outb(UART_IER, 0);
	say("\nbytes %d sum %lld\n", received - 1, sum(received - 1));
	return received - 1 == arg_u64("bytes", received - 1) ? 0 : 1;
}
