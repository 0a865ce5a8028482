/* serial.c: 16550A UART (National Semiconductor PC16550D). */
#include <errno.h>
#include <linux/serial_reg.h>
#include <stdlib.h>
#include <string.h>
#include "devices/chardev.h"
#include "devices/legacy.h"
#include "vmm/core/bus.h"
#include "vmm/core/state.h"

enum { FIFO_LEN = 16, UART_LEN = 8 };

struct serial {
	struct device dev;
	struct platform *platform;
	struct chardev *line;
	struct io_range range;
	struct irq *irq;
	struct metric_set metrics;
	struct serial_counters { u64 tx, rx; } counters;	/* under dev.lock */
	u8 ier, lcr, mcr, msr, scr, fcr;
	u8 dll, dlm;
	bool overrun, thr_empty, thri;	/* thri: the interrupt for it waits to be seen */
	u8 rx[FIFO_LEN];
	unsigned rx_len;
};

static const u8 trigger_level[] = { 1, 4, 8, 14 };

static struct serial *to_serial(struct device *dev)
{
	return container_of(dev, struct serial, dev);
}

static unsigned rx_capacity(const struct serial *s)
{
	return s->fcr & UART_FCR_ENABLE_FIFO ? FIFO_LEN : 1;
}

/* The source with the highest priority (table 3 of the data sheet). */
static u8 interrupt_id(const struct serial *s)
{
	if (s->ier & UART_IER_RLSI && s->overrun)
		return UART_IIR_RLSI;
	if (s->ier & UART_IER_RDI && s->rx_len)
		return !(s->fcr & UART_FCR_ENABLE_FIFO) || s->rx_len >= trigger_level[s->fcr >> 6] ?
			UART_IIR_RDI : UART_IIR_RX_TIMEOUT;
	if (s->ier & UART_IER_THRI && s->thri)
		return UART_IIR_THRI;
	if (s->ier & UART_IER_MSI && s->msr & UART_MSR_ANY_DELTA)
		return UART_IIR_MSI;
	return UART_IIR_NO_INT;
}

static void update_irq(struct serial *s)
{
	s->irq->set(s->irq, interrupt_id(s) != UART_IIR_NO_INT);
}

static void refill(struct serial *s)
{
	if (!(s->mcr & UART_MCR_LOOP) && s->rx_len < rx_capacity(s))
		s->rx_len += chardev_read(s->line, s->rx + s->rx_len, rx_capacity(s) - s->rx_len);
}

/* Room for a FIFO's worth: a driver fills it without looking again. */
static void update_thr(struct serial *s)
{
	bool empty = chardev_room(s->line) >= FIFO_LEN;

	if (empty && !s->thr_empty)
		s->thri = true;
	s->thr_empty = empty;
}

/* --- what the line says, on the loop ------------------------------------------------- */

static void line_input(void *arg)
{
	struct serial *s = arg;

	pthread_mutex_lock(&s->dev.lock);
	refill(s);
	update_irq(s);
	pthread_mutex_unlock(&s->dev.lock);
}

static void line_room(void *arg)
{
	struct serial *s = arg;

	pthread_mutex_lock(&s->dev.lock);
	update_thr(s);
	update_irq(s);
	pthread_mutex_unlock(&s->dev.lock);
}

/* --- registers --------------------------------------------------------------------------- */

static void transmit(struct serial *s, u8 byte)
{
	s->thri = false;
	if (s->mcr & UART_MCR_LOOP) {
		if (s->rx_len < rx_capacity(s))
			s->rx[s->rx_len++] = byte;
		else
			s->overrun = true;
		s->thri = true;
		return;
	}
	counter_add(&s->counters.tx, 1);
	/* The loop that makes room takes our lock to say so. */
	pthread_mutex_unlock(&s->dev.lock);
	chardev_write(s->line, &byte, 1);
	pthread_mutex_lock(&s->dev.lock);
	s->thr_empty = false;
	update_thr(s);
}

static u8 receive(struct serial *s)
{
	u8 byte;

	if (!s->rx_len)
		return 0;
	counter_add(&s->counters.rx, 1);
	byte = s->rx[0];
	memmove(s->rx, s->rx + 1, --s->rx_len);
	if (!s->rx_len)
		refill(s);
	return byte;
}

static u8 loopback_msr(const struct serial *s)
{
	return (s->mcr & UART_MCR_RTS ? UART_MSR_CTS : 0) |
	       (s->mcr & UART_MCR_DTR ? UART_MSR_DSR : 0) |
	       (s->mcr & UART_MCR_OUT1 ? UART_MSR_RI : 0) |
	       (s->mcr & UART_MCR_OUT2 ? UART_MSR_DCD : 0);
}

static void set_mcr(struct serial *s, u8 value)
{
	u8 lines, changed;

	s->mcr = value & 0x1f;
	lines = s->mcr & UART_MCR_LOOP ? loopback_msr(s) :
					 UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS;
	changed = (lines ^ s->msr) & 0xf0;
	/* The delta bits lie four below; ring's is set at its falling edge only. */
	s->msr = lines | (s->msr & UART_MSR_ANY_DELTA) | (changed & ~UART_MSR_RI) >> 4 |
		 (changed & UART_MSR_RI && !(lines & UART_MSR_RI) ? UART_MSR_TERI : 0);
	refill(s);
}

static void set_fcr(struct serial *s, u8 value)
{
	if ((value ^ s->fcr) & UART_FCR_ENABLE_FIFO || value & UART_FCR_CLEAR_RCVR)
		s->rx_len = 0;
	s->fcr = value & (UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_MASK);
	if (!(s->fcr & UART_FCR_ENABLE_FIFO))
		s->fcr = 0;
	refill(s);
}

static u64 serial_read(struct device *dev, u64 offset, unsigned size)
{
	struct serial *s = to_serial(dev);
	u8 value = 0;

	(void)size;	/* an 8-bit part: the rest of a wider read is zero */
	switch (offset) {
	case UART_RX:
		value = s->lcr & UART_LCR_DLAB ? s->dll : receive(s);
		break;
	case UART_IER:
		value = s->lcr & UART_LCR_DLAB ? s->dlm : s->ier;
		break;
	case UART_IIR:
		value = interrupt_id(s);
		if (value == UART_IIR_THRI)
			s->thri = false;
		if (s->fcr & UART_FCR_ENABLE_FIFO)
			value |= 0xc0;
		break;
	case UART_LCR:
		value = s->lcr;
		break;
	case UART_MCR:
		value = s->mcr;
		break;
	case UART_LSR:
		update_thr(s);
		value = (s->rx_len ? UART_LSR_DR : 0) | (s->overrun ? UART_LSR_OE : 0) |
			(s->thr_empty ? UART_LSR_THRE | UART_LSR_TEMT : 0);
		s->overrun = false;
		break;
	case UART_MSR:
		value = s->msr;
		s->msr &= ~UART_MSR_ANY_DELTA;
		break;
	case UART_SCR:
		value = s->scr;
		break;
	}
	update_irq(s);
	return value;
}

static void serial_write(struct device *dev, u64 offset, unsigned size, u64 wide)
{
	struct serial *s = to_serial(dev);
	u8 value = wide;

	(void)size;
	switch (offset) {
	case UART_TX:
		if (s->lcr & UART_LCR_DLAB)
			s->dll = value;
		else
			transmit(s, value);
		break;
	case UART_IER:
		if (s->lcr & UART_LCR_DLAB) {
			s->dlm = value;
			break;
		}
		/* Enabling it while the register is empty asks for one. */
		if (value & UART_IER_THRI && !(s->ier & UART_IER_THRI) && s->thr_empty)
			s->thri = true;
		s->ier = value & 0x0f;
		break;
	case UART_FCR:
		set_fcr(s, value);
		break;
	case UART_LCR:
		s->lcr = value;
		break;
	case UART_MCR:
		set_mcr(s, value);
		break;
	case UART_SCR:
		s->scr = value;
		break;
	}
	update_irq(s);
}

static const struct metric serial_metric[] = {
	{ "serial_bytes_total", "direction=\"tx\"", "Through the serial line; tx: from the guest",
	  .offset = offsetof(struct serial_counters, tx) },
	{ "serial_bytes_total", "direction=\"rx\"",
	  .offset = offsetof(struct serial_counters, rx) },
};
static const struct metric_table serial_table = { "device", serial_metric,
						  ARRAY_SIZE(serial_metric) };

static const struct io_ops serial_io = { .read = serial_read, .write = serial_write };

/* --- life ------------------------------------------------------------------------------------ */

static void serial_quiesce(struct device *dev)
{
	chardev_set_user(to_serial(dev)->line, NULL);
}

static void serial_resume(struct device *dev)
{
	struct serial *s = to_serial(dev);
	struct chardev_user user = { .input = line_input, .room = line_room, .arg = s };

	chardev_set_user(s->line, &user);
	line_room(s);		/* that came meanwhile nobody was told of */
}

static void serial_state(struct device *dev, struct state *st)
{
	struct serial *s = to_serial(dev);
	size_t rx_len = s->rx_len;

	state_u8(st, "ier", &s->ier);
	state_u8(st, "lcr", &s->lcr);
	state_u8(st, "mcr", &s->mcr);
	state_u8(st, "msr", &s->msr);
	state_u8(st, "scr", &s->scr);
	state_u8(st, "fcr", &s->fcr);
	state_u8(st, "dll", &s->dll);
	state_u8(st, "dlm", &s->dlm);
	state_bool(st, "overrun", &s->overrun);
	state_bool(st, "thr-empty", &s->thr_empty);
	state_bool(st, "thri", &s->thri);
	state_some_bytes(st, "rx", s->rx, &rx_len, sizeof(s->rx));
	s->rx_len = rx_len;
	if (state_loading(st))
		update_irq(s);
}

static void serial_destroy(struct device *dev)
{
	struct serial *s = to_serial(dev);

	serial_quiesce(dev);
	bus_unmap(s->platform->pio, &s->range);
	s->platform->irqchip->ops->free(s->platform->irqchip, s->irq);
	metrics_remove(&s->metrics);
	device_fini(dev);
	free(s);
}

static const struct device_ops serial_ops = {
	.kind = "serial", .quiesce = serial_quiesce, .resume = serial_resume,
	.state = serial_state, .destroy = serial_destroy,
};

int serial_new(struct platform *p, const char *name, u64 port, u32 gsi, struct chardev *line,
	       struct device **out, struct err *err)
{
	struct serial *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return err_set(err, -ENOMEM, "%s: out of memory", name);
	device_init(&s->dev, &serial_ops, name);
	s->platform = p;
	s->line = line;
	s->range = (struct io_range){ .ops = &serial_io, .dev = &s->dev, .len = UART_LEN,
				      .name = s->dev.name };
	s->dll = 1;			/* 115200 baud, 8N1: what a loader leaves */
	s->lcr = UART_LCR_WLEN8;
	s->msr = UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS;
	s->thr_empty = true;
	rc = p->irqchip->ops->line(p->irqchip, gsi, &s->irq, err);
	if (!rc)
		rc = bus_map(p->pio, &s->range, port, err);
	if (rc) {
		serial_destroy(&s->dev);
		return rc;
	}
	s->metrics = (struct metric_set){ .table = &serial_table, .owner = s->dev.name,
					  .counters = &s->counters };
	metrics_add(p->metrics, &s->metrics);
	serial_resume(&s->dev);
	*out = &s->dev;
	return 0;
}
