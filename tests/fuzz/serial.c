/*
 * serial.c: a guest reads and writes a 16550A in any order and size, while the line
 * brings and takes bytes as it likes.  What is sent arrives once and in order; what
 * comes is read in order, and none of it is lost unless the guest threw it away; the
 * wire says what the registers say.
 */
#include <linux/serial_reg.h>
#include <string.h>
#include "devices/chardev.h"
#include "devices/legacy.h"
#include "tests/fuzz/lib/fuzz.h"
#include "tests/lib/fake.h"

enum { MOST = 1 << 16, FIFO = 16 };

static struct fake fake;

/* The far end, in place of devices/chardev.c. */
struct chardev {
	struct chardev_user user;
	u8 in[MOST], out[MOST];
	size_t in_len, in_taken, out_len, room;
	bool waits_for_room;
};
static struct chardev line;

/* What the guest has said and seen. */
static struct {
	u8 ier, lcr, mcr, scr, dll, dlm;
	u8 sent[MOST];
	size_t nr_sent;
	/* What it has to read next: the bytes in the part. */
	u8 due[FIFO];
	unsigned nr_due;
	bool fifo;
} g;

static void comes_in(u8 byte)
{
	fuzz_check(g.nr_due < (g.fifo ? FIFO : 1), "taken from the line without room for it");
	g.due[g.nr_due++] = byte;
}

size_t chardev_read(struct chardev *c, u8 *buf, size_t len)
{
	size_t n = MIN(len, c->in_len - c->in_taken);

	for (size_t i = 0; i < n; i++)
		comes_in(buf[i] = c->in[c->in_taken++]);
	return n;
}

size_t chardev_room(struct chardev *c)
{
	c->waits_for_room |= c->room < FIFO;
	return c->room;
}

void chardev_write(struct chardev *c, const u8 *buf, size_t len)
{
	fuzz_check(c->out_len + len <= MOST, "more was sent than written");
	memcpy(c->out + c->out_len, buf, len);
	c->out_len += len;
	c->room -= MIN(c->room, len);
}

void chardev_set_user(struct chardev *c, const struct chardev_user *user)
{
	c->user = user ? *user : (struct chardev_user){ 0 };
}

/* --- the guest ------------------------------------------------------------------------- */

static bool wire(void)
{
	return fake_line(&fake, FAKE_LINE, COM1_GSI)->level;
}

static u8 in(u8 reg)
{
	return bus_read(&fake.pio, PORT_COM1 + reg, 1);
}

static void read_one(u8 reg)
{
	bool dlab = g.lcr & UART_LCR_DLAB, ready = in(UART_LSR) & UART_LSR_DR, level = wire();
	u8 next = g.nr_due ? g.due[0] : 0, value;

	fuzz_check(ready == !!g.nr_due, "ready %d, with %u bytes", ready, g.nr_due);
	if (reg == UART_RX && !dlab && g.nr_due)
		memmove(g.due, g.due + 1, --g.nr_due);
	value = in(reg);

	switch (reg) {
	case UART_RX:
		if (dlab)
			fuzz_check(value == g.dll, "DLL %#x", value);
		else
			fuzz_check(value == next, "%#x was read, not %#x", value, next);
		break;
	case UART_IER:
		fuzz_check(value == (dlab ? g.dlm : g.ier), "IER %#x, DLAB %d", value, dlab);
		break;
	case UART_IIR:
		fuzz_check(!(value & UART_IIR_NO_INT) == level, "IIR %#x, wire %d", value, level);
		break;
	case UART_LCR:
		fuzz_check(value == g.lcr, "LCR %#x", value);
		break;
	case UART_MCR:
		fuzz_check(value == g.mcr, "MCR %#x", value);
		break;
	case UART_LSR:
		fuzz_check(!(value & UART_LSR_THRE) == (line.room < FIFO) ||
			   g.mcr & UART_MCR_LOOP, "LSR %#x, room %zu", value, line.room);
		break;
	case UART_SCR:
		fuzz_check(value == g.scr, "SCR %#x", value);
		break;
	}
}

static void sent(u8 value)
{
	if (!(g.mcr & UART_MCR_LOOP))
		g.sent[g.nr_sent++] = value;
	else if (g.nr_due < (g.fifo ? FIFO : 1))	/* it comes back, if there is room */
		g.due[g.nr_due++] = value;
}

static void write_one(u8 reg, u8 value)
{
	bool dlab = g.lcr & UART_LCR_DLAB;

	if (g.nr_sent == MOST)
		return;
	if (reg == UART_FCR) {
		if (g.fifo != (value & UART_FCR_ENABLE_FIFO) || value & UART_FCR_CLEAR_RCVR)
			g.nr_due = 0;
		g.fifo = value & UART_FCR_ENABLE_FIFO;
	}
	bus_write(&fake.pio, PORT_COM1 + reg, 1, value);
	switch (reg) {
	case UART_TX:
		if (dlab)
			g.dll = value;
		else
			sent(value);
		break;
	case UART_IER:
		if (dlab)
			g.dlm = value;
		else
			g.ier = value & 0x0f;
		break;
	case UART_LCR:
		g.lcr = value;
		break;
	case UART_MCR:
		g.mcr = value & 0x1f;
		break;
	case UART_SCR:
		g.scr = value;
		break;
	}
}

/* Only the low byte of a wider access is there. */
static void use_widely(u8 reg, unsigned size, u32 value)
{
	u64 addr = PORT_COM1 + reg, got;

	if (reg == UART_SCR || size == 1)
		return;
	if (reg == UART_LCR) {
		bus_write(&fake.pio, addr, size, value);
		if (reg + size <= 8)
			g.lcr = value;
	}
	if (reg == UART_LCR || reg == UART_MCR) {
		got = bus_read(&fake.pio, addr, size);
		fuzz_check(got == (reg + size > 8 ? ~0ULL >> (64 - 8 * size) :
				   reg == UART_LCR ? g.lcr : g.mcr), "%u bytes: %#llx", size,
			   (unsigned long long)got);
	}
}

/* --- the line --------------------------------------------------------------------------- */

static void bring(struct fuzz *f, unsigned nr)
{
	while (nr-- && line.in_len < MOST)
		line.in[line.in_len++] = fuzz_u8(f);
	if (line.user.input)
		line.user.input(line.user.arg);
}

static void make_room(size_t room)
{
	line.room = room;
	if (room >= FIFO && line.waits_for_room) {
		line.waits_for_room = false;
		line.user.room(line.user.arg);
	}
}

static void check_wire(void)
{
	bool ready = in(UART_LSR) & UART_LSR_DR;

	fuzz_check(g.ier || !wire(), "an interrupt that was not asked for");
	fuzz_check(!(g.ier & UART_IER_RDI) || !ready || wire(), "bytes wait without an interrupt");
	fuzz_check(line.out_len == g.nr_sent && !memcmp(line.out, g.sent, g.nr_sent),
		   "%zu bytes arrived of %zu", line.out_len, g.nr_sent);
}

/* All that was brought can be read in the end. */
static void drain(void)
{
	write_one(UART_MCR, 0);
	write_one(UART_LCR, 0);
	make_room(FIFO);
	write_one(UART_IER, 0);
	write_one(UART_IER, UART_IER_THRI);
	fuzz_check(wire() && (in(UART_IIR) & 0x0f) == UART_IIR_THRI, "it does not ask for a byte");
	while (in(UART_LSR) & UART_LSR_DR)
		read_one(UART_RX);
	fuzz_check(line.in_taken == line.in_len, "%zu bytes were not taken",
		   line.in_len - line.in_taken);
}

void fuzz_one(struct fuzz *f)
{
	struct device *dev;

	if (!fake.p.mem)
		fake_init(&fake, 0x10000, -1);
	line.in_len = line.in_taken = line.out_len = 0;
	line.waits_for_room = false;
	line.room = 1024;
	g.nr_sent = g.nr_due = 0;
	g.ier = g.mcr = g.scr = g.dlm = 0;
	g.dll = 1;
	g.lcr = UART_LCR_WLEN8;
	g.fifo = false;
	fuzz_check(!serial_new(&fake.p, "com1", PORT_COM1, COM1_GSI, &line, &dev, NULL), "no port");
	while (f->left) {
		u8 step = fuzz_u8(f), reg = step & 7;

		switch (step >> 4) {
		case 0:
			bring(f, 1 + 3 * (step & 15));
			break;
		case 1:
			make_room(step & 8 ? fuzz_u16(f) : step & 7);
			break;
		case 2:
			use_widely(reg, 2 << (step >> 3 & 1), fuzz_u32(f));
			break;
		case 3: case 4: case 5: case 6: case 7: case 8:
			read_one(reg);
			break;
		default:
			write_one(reg, fuzz_u8(f));
		}
		check_wire();
	}
	drain();
	device_destroy(dev);
	fuzz_check(!fake.pio.nr && !fake.chip.nr_live && !line.user.arg, "something was left behind");
}
