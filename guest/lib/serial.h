/*
 * serial.h: COM1, polled: how a payload says what it found.
 *
 * Spec: National Semiconductor PC16550D.
 */
#ifndef GUEST_LIB_SERIAL_H
#define GUEST_LIB_SERIAL_H

#include "guest/lib/io.h"

enum {
	UART_DATA = PORT_COM1,
	UART_IER = PORT_COM1 + 1,
	UART_IIR = PORT_COM1 + 2,	/* read */
	UART_FCR = PORT_COM1 + 2,	/* write */
	UART_LCR = PORT_COM1 + 3,
	UART_MCR = PORT_COM1 + 4,
	UART_LSR = PORT_COM1 + 5,
	UART_MSR = PORT_COM1 + 6,
	UART_SCR = PORT_COM1 + 7,

	IER_RDA = 1, IER_THRE = 2, IER_LINE = 4, IER_MODEM = 8,
	IIR_NONE = 1, IIR_MODEM = 0, IIR_THRE = 2, IIR_RDA = 4, IIR_LINE = 6, IIR_TIMEOUT = 12,
	IIR_ID = 0x0f, IIR_FIFO = 0xc0,
	FCR_ENABLE = 1, FCR_CLEAR_RX = 2, FCR_CLEAR_TX = 4, FCR_TRIGGER_14 = 0xc0,
	LCR_8N1 = 3, LCR_DLAB = 0x80,
	MCR_DTR = 1, MCR_RTS = 2, MCR_OUT1 = 4, MCR_OUT2 = 8, MCR_LOOP = 16,
	LSR_DATA = 1, LSR_OVERRUN = 2, LSR_BREAK = 16, LSR_THRE = 32, LSR_TEMT = 64,
	MSR_DCTS = 1, MSR_DDSR = 2, MSR_TERI = 4, MSR_DDCD = 8,
	MSR_CTS = 16, MSR_DSR = 32, MSR_RI = 64, MSR_DCD = 128,

	UART_FIFO_SIZE = 16,
};

void serial_init(void);
void serial_write(const void *buf, size_t len);
int serial_read(void);			/* a byte, or -1: none is there */
void serial_drain(void);		/* until the last bit has left */

/* %s %c %d %u %x %% with l, ll, a width and a leading 0; at most 255 characters. */
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void say_v(const char *fmt, __builtin_va_list args);

#endif
