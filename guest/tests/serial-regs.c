/*
 * serial-regs.c: promise: COM1 is a 16550A, register by register.
 *
 * What is found is kept until the UART is back in the state that say() needs.
 *
 * Spec: PC16550D, 8.0 (registers), 8.4 (FIFO), 8.5 (IIR priorities), 8.6.7 (modem status).
 */
#include "guest/lib/start.h"

enum { LOOP = MCR_LOOP };

/* Nothing pending, nothing received, no deltas. */
static void quiet(u8 fcr)
{
	outb(UART_LCR, LCR_8N1);
	outb(UART_IER, 0);
	outb(UART_MCR, LOOP);
	outb(UART_FCR, 0);
	if (fcr)
		outb(UART_FCR, fcr | FCR_CLEAR_RX | FCR_CLEAR_TX);
	inb(UART_LSR);
	inb(UART_DATA);
	inb(UART_IIR);
	inb(UART_MSR);
}

static void test_plain_registers(void)
{
	u8 scratch, divisor_low, divisor_high, ier, ier_dlab, lcr, mcr, lsr;

	serial_drain();
	lsr = inb(UART_LSR);
	outb(UART_SCR, 0x5a);
	scratch = inb(UART_SCR) == 0x5a;
	outb(UART_SCR, 0xa5);
	scratch = scratch && inb(UART_SCR) == 0xa5;

	outb(UART_IER, 0);
	outb(UART_LCR, LCR_DLAB | LCR_8N1);
	outb(UART_DATA, 0x34);
	outb(UART_IER, 0x12);
	divisor_low = inb(UART_DATA);
	divisor_high = inb(UART_IER);
	outb(UART_LCR, LCR_8N1);
	ier_dlab = inb(UART_IER);
	outb(UART_MCR, LOOP);
	outb(UART_IER, 0xf5);
	ier = inb(UART_IER);
	outb(UART_IER, 0);
	outb(UART_LCR, 0x1b);
	lcr = inb(UART_LCR);
	outb(UART_LCR, LCR_8N1);
	outb(UART_MCR, 0xff);
	mcr = inb(UART_MCR);

	serial_init();
	check(lsr == (LSR_THRE | LSR_TEMT), "idle LSR is 60, got %x", lsr);
	check(scratch, "scratch register");
	check(divisor_low == 0x34 && divisor_high == 0x12, "divisor by DLAB");
	check(!ier_dlab, "which is not IER");
	check(ier == 5, "IER has 4 bits, f5 gives %x", ier);
	check(lcr == 0x1b, "LCR reads back");
	check(mcr == 0x1f, "MCR has 5 bits, ff gives %x", mcr);
}

static void test_fifo_bits(void)
{
	u8 on, off;

	outb(UART_FCR, FCR_ENABLE);
	on = inb(UART_IIR);
	outb(UART_FCR, 0);
	off = inb(UART_IIR);
	serial_init();
	check((on & IIR_FIFO) == IIR_FIFO && on & IIR_NONE, "IIR with FIFOs is c1, got %x", on);
	check(off == IIR_NONE, "without it is 1, got %x", off);
}

static void test_loop_modem(void)
{
	static const struct { u8 out, in; } line[] = {
		{ MCR_DTR, MSR_DSR }, { MCR_RTS, MSR_CTS },
		{ MCR_OUT1, MSR_RI }, { MCR_OUT2, MSR_DCD },
	};
	u8 delta, again, ring, wrong = 0;
	unsigned i;

	quiet(0);
	for (i = 0; i < ARRAY_SIZE(line); i++) {
		outb(UART_MCR, LOOP | line[i].out);
		if ((inb(UART_MSR) & 0xf0) != line[i].in)
			wrong++;
	}
	outb(UART_MCR, LOOP);
	inb(UART_MSR);
	outb(UART_MCR, LOOP | MCR_DTR | MCR_RTS | MCR_OUT2);
	delta = inb(UART_MSR);
	again = inb(UART_MSR);
	outb(UART_MCR, LOOP | MCR_OUT1);
	inb(UART_MSR);
	outb(UART_MCR, LOOP);
	ring = inb(UART_MSR);
	serial_init();
	check(!wrong, "loopback: MCR's outputs are MSR's inputs (%d wrong)", wrong);
	check((delta & 0x0f) == (MSR_DCTS | MSR_DDSR | MSR_DDCD), "deltas, got %x", delta);
	check(!(again & 0x0f), "which reading clears");
	check((ring & 0x0f) == MSR_TERI, "RI's trailing edge, got %x", ring);
}

static void test_loop_data(void)
{
	u8 before, after, got, lost, clear, first, wrong = 0;
	unsigned i;

	quiet(0);
	before = inb(UART_LSR);
	outb(UART_DATA, 0x81);
	after = inb(UART_LSR);
	got = inb(UART_DATA);
	clear = inb(UART_LSR);
	outb(UART_DATA, 1);
	outb(UART_DATA, 2);
	lost = inb(UART_LSR);
	clear |= inb(UART_LSR) & LSR_OVERRUN;

	quiet(FCR_ENABLE);
	for (i = 0; i < UART_FIFO_SIZE; i++)
		outb(UART_DATA, (u8)(0x80 + i));
	for (i = 0; i < UART_FIFO_SIZE; i++)
		if (!(inb(UART_LSR) & LSR_DATA) || inb(UART_DATA) != 0x80 + i)
			wrong++;
	if (inb(UART_LSR) & LSR_DATA)
		wrong++;
	for (i = 0; i <= UART_FIFO_SIZE; i++)
		outb(UART_DATA, (u8)(0x80 + i));
	lost &= inb(UART_LSR);
	first = inb(UART_DATA);
	outb(UART_FCR, FCR_ENABLE | FCR_CLEAR_RX);
	clear |= inb(UART_LSR) & LSR_DATA;

	serial_init();
	check(!(before & LSR_DATA) && after & LSR_DATA && got == 0x81, "loopback: a byte");
	check(!wrong, "16 in the FIFO, in order (%d wrong)", wrong);
	check(lost & LSR_OVERRUN, "one too many is an overrun, with and without FIFO");
	check(first == 0x80, "which keeps what the FIFO held");
	check(!(clear & (LSR_DATA | LSR_OVERRUN)), "reading, or clearing the FIFO, clears");
}

static void test_priorities(void)
{
	u8 iir[6];
	unsigned i;
	static const u8 want[6] = {
		IIR_LINE, IIR_RDA, IIR_THRE, IIR_MODEM, IIR_NONE, IIR_THRE,
	};
	unsigned wrong = 0;

	quiet(0);
	outb(UART_MCR, LOOP | MCR_DTR);
	outb(UART_DATA, 1);
	outb(UART_DATA, 2);
	outb(UART_IER, IER_RDA | IER_THRE | IER_LINE | IER_MODEM);
	iir[0] = inb(UART_IIR);
	inb(UART_LSR);
	iir[1] = inb(UART_IIR);
	inb(UART_DATA);
	iir[2] = inb(UART_IIR);		/* and this clears it */
	iir[3] = inb(UART_IIR);
	inb(UART_MSR);
	iir[4] = inb(UART_IIR);
	outb(UART_IER, 0);
	outb(UART_IER, IER_THRE);
	iir[5] = inb(UART_IIR);
	outb(UART_IER, 0);
	serial_init();
	for (i = 0; i < ARRAY_SIZE(iir); i++)
		wrong += (iir[i] & IIR_ID) != want[i];
	check(!wrong, "IIR: line, data, THRE, modem, none, THRE; got %x %x %x %x %x %x", iir[0],
	      iir[1], iir[2], iir[3], iir[4], iir[5]);
}

static void fill(u8 nr)
{
	quiet(FCR_ENABLE | FCR_TRIGGER_14);
	outb(UART_IER, IER_RDA);
	while (nr--)
		outb(UART_DATA, nr);
}

static void test_trigger(void)
{
	u8 few, enough, after;
	unsigned i;
	bool timeout;

	fill(14);
	enough = inb(UART_IIR) & IIR_ID;
	for (i = 0; i < 14; i++)
		inb(UART_DATA);
	after = inb(UART_IIR) & IIR_ID;
	fill(13);
	few = inb(UART_IIR) & IIR_ID;
	timeout = poll_until((inb(UART_IIR) & IIR_ID) == IIR_TIMEOUT);
	outb(UART_IER, 0);
	serial_init();
	check(enough == IIR_RDA, "14 bytes reach a trigger of 14, got %x", enough);
	check(after == IIR_NONE, "and reading them leaves nothing");
	check(few == IIR_NONE || few == IIR_TIMEOUT, "13 do not, got %x", few);
	check(timeout, "but do not wait for ever: character timeout");
}

int main(const struct start_info *info, const char *cmdline)
{
	(void)info;
	(void)cmdline;
	test_plain_registers();
	test_fifo_bits();
	test_loop_modem();
	test_loop_data();
	test_priorities();
	test_trigger();
	return check_result();
}
