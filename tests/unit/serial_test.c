/* serial_test.c: the 16550A's registers, interrupts and FIFOs, and bytes on the line. */
#include <linux/serial_reg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "devices/chardev.h"
#include "devices/legacy.h"
#include "tests/lib/fake.h"
#include "tests/lib/test.h"
#include "vmm/core/state.h"

static struct fake fake;
static struct chardev *line;
static struct device *dev;
static char path[64];

static void quit(void *arg) { (void)arg; }
static u8 in(u8 reg) { return bus_read(&fake.pio, PORT_COM1 + reg, 1); }
static void out(u8 reg, u8 value) { bus_write(&fake.pio, PORT_COM1 + reg, 1, value); }
static bool wire(void) { return fake_line(&fake, FAKE_LINE, COM1_GSI)->level; }

static void open_line(const char *spec)
{
	struct err err;

	assert_int_equal(chardev_open(&line, spec, fake.p.io_loop, quit, NULL, &err), 0);
	assert_int_equal(serial_new(&fake.p, "com1", PORT_COM1, COM1_GSI, line, &dev, &err), 0);
}

static int setup(void **state)
{
	(void)state;
	fake_init(&fake, 8 * MIB, -1);
	snprintf(path, sizeof(path), "/tmp/serial-test-%d", getpid());
	unlink(path);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	device_destroy(dev);
	chardev_close(line);
	dev = NULL;
	line = NULL;
	unlink(path);
	fake_fini(&fake);
	return 0;
}

static void test_registers(void **state)
{
	(void)state;
	open_line("none");
	assert_int_equal(in(UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
	out(UART_SCR, 0xa5);
	assert_int_equal(in(UART_SCR), 0xa5);
	out(UART_IER, 0xff);
	assert_int_equal(in(UART_IER), 0x0f);
	out(UART_LCR, UART_LCR_DLAB | UART_LCR_WLEN8);
	out(UART_DLL, 12);
	out(UART_DLM, 3);
	assert_int_equal(in(UART_DLL), 12);
	assert_int_equal(in(UART_DLM), 3);
	out(UART_LCR, UART_LCR_WLEN8);
	assert_int_equal(in(UART_IER), 0x0f);
	assert_int_equal(in(UART_IIR) & 0xc0, 0);
	out(UART_FCR, UART_FCR_ENABLE_FIFO);
	assert_int_equal(in(UART_IIR) & 0xc0, 0xc0);
	/* Every register at every size: nothing beyond the part is there. */
	for (unsigned reg = 0; reg < 8; reg++)
		for (unsigned size = 1; size <= 4; size *= 2) {
			bus_write(&fake.pio, PORT_COM1 + reg, size, 0);
			bus_read(&fake.pio, PORT_COM1 + reg, size);
		}
}

static void test_transmit_interrupt(void **state)
{
	(void)state;
	open_line("none");
	assert_false(wire());
	out(UART_IER, UART_IER_THRI);
	assert_true(wire());
	assert_int_equal(in(UART_IIR) & 0x0f, UART_IIR_THRI);
	assert_false(wire());			/* reading it took it */
	assert_int_equal(in(UART_IIR) & 0x0f, UART_IIR_NO_INT);
	out(UART_TX, 'x');
	assert_true(wire());			/* empty again */
	out(UART_IER, 0);
	assert_false(wire());
}

static void test_loopback(void **state)
{
	(void)state;
	open_line("none");
	out(UART_MCR, UART_MCR_LOOP | UART_MCR_RTS | UART_MCR_OUT2);
	assert_int_equal(in(UART_MSR) & 0xf0, UART_MSR_CTS | UART_MSR_DCD);
	assert_int_equal(in(UART_MSR) & 0x0f, 0);	/* deltas were read */
	out(UART_IER, UART_IER_RDI | UART_IER_RLSI);
	out(UART_TX, 'a');
	assert_true(wire());
	assert_int_equal(in(UART_IIR) & 0x0f, UART_IIR_RDI);
	out(UART_TX, 'b');				/* without FIFO: no room */
	assert_int_equal(in(UART_IIR) & 0x0f, UART_IIR_RLSI);
	assert_int_equal(in(UART_LSR) & (UART_LSR_OE | UART_LSR_DR), UART_LSR_OE | UART_LSR_DR);
	assert_int_equal(in(UART_LSR) & UART_LSR_OE, 0);
	assert_int_equal(in(UART_RX), 'a');
	assert_false(wire());
	out(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_4);
	for (int i = 0; i < 17; i++) {
		out(UART_TX, 'A' + i);
		assert_int_equal(in(UART_IIR) & 0x0f, i == 16 ? UART_IIR_RLSI :
				 i < 3 ? UART_IIR_RX_TIMEOUT : UART_IIR_RDI);
	}
	for (int i = 0; i < 16; i++)
		assert_int_equal(in(UART_RX), 'A' + i);
	assert_int_equal(in(UART_LSR) & UART_LSR_DR, 0);
}

static void test_output_arrives(void **state)
{
	char spec[80], got[300001];
	size_t len;
	FILE *f;

	(void)state;
	snprintf(spec, sizeof(spec), "file:%s", path);
	open_line(spec);
	for (int i = 0; i < 300000; i++)
		out(UART_TX, i * 7);
	fake_settle(&fake);
	f = fopen(path, "r");
	assert_non_null(f);
	len = fread(got, 1, sizeof(got), f);
	fclose(f);
	assert_int_equal(len, 300000);
	for (int i = 0; i < 300000; i++)
		if ((u8)got[i] != (u8)(i * 7))
			fail_msg("byte %d", i);
}

/* More than the FIFO and the line's own buffer hold: nothing may be lost. */
static void test_input_arrives(void **state)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0), sent = 0, got = 0;
	char spec[80];

	(void)state;
	snprintf(spec, sizeof(spec), "unix:%s", path);
	open_line(spec);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	out(UART_FCR, UART_FCR_ENABLE_FIFO);
	out(UART_IER, UART_IER_RDI);
	for (int turns = 0; got < 50000 && turns < 200000; turns++) {
		u8 byte = sent * 13;

		while (sent < 50000 && send(fd, &byte, 1, MSG_NOSIGNAL) == 1)
			byte = ++sent * 13;
		fake_turn(&fake);
		if (in(UART_LSR) & UART_LSR_DR)
			assert_true(wire());
		while (in(UART_LSR) & UART_LSR_DR) {
			assert_int_equal(in(UART_RX), (u8)(got * 13));
			got++;
		}
	}
	assert_int_equal(got, 50000);
	close(fd);
	fake_settle(&fake);
}

/* Ring says when it ends, not when it begins; the others at both. */
static void test_modem_interrupt(void **state)
{
	(void)state;
	open_line("none");
	out(UART_IER, UART_IER_MSI);
	out(UART_MCR, UART_MCR_LOOP);
	assert_true(wire());
	assert_int_equal(in(UART_IIR) & 0x0f, UART_IIR_MSI);
	assert_int_equal(in(UART_MSR), UART_MSR_DCTS | UART_MSR_DDSR | UART_MSR_DDCD);
	assert_false(wire());
	out(UART_MCR, UART_MCR_LOOP | UART_MCR_OUT1);
	assert_false(wire());
	assert_int_equal(in(UART_MSR), UART_MSR_RI);
	out(UART_MCR, UART_MCR_LOOP);
	assert_true(wire());
	assert_int_equal(in(UART_MSR), UART_MSR_TERI);
	out(UART_MCR, UART_MCR_LOOP | UART_MCR_DTR);
	assert_int_equal(in(UART_MSR), UART_MSR_DSR | UART_MSR_DDSR);
	assert_int_equal(in(UART_IIR) & 0x0f, UART_IIR_NO_INT);
}

/* A port or a wire that cannot be had: fake_fini looks that nothing is left. */
static void test_not_made(void **state)
{
	struct device *second = NULL;
	struct err err;

	(void)state;
	open_line("none");
	assert_true(serial_new(&fake.p, "com1", PORT_COM1, 5, line, &second, &err) < 0);
	assert_null(second);
	fake.chip.fail_next = -ENOSPC;
	assert_int_equal(serial_new(&fake.p, "com2", PORT_COM1 + 0x100, 5, line, &second, &err), -ENOSPC);
	assert_says(err.msg, "no wire");
	assert_null(second);
	out(UART_SCR, 0x11);
	assert_int_equal(in(UART_SCR), 0x11);	/* the first one is as it was */
}

static int connected(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	fake_settle(&fake);
	return fd;
}

static int open_to_client(void)
{
	char spec[80];

	snprintf(spec, sizeof(spec), "unix:%s", path);
	open_line(spec);
	return connected();
}

/* A client that shut its own side down, as `printf x | nc -U` does, still gets what is said. */
static void test_client_listens(void **state)
{
	char got[8];
	int fd;

	(void)state;
	fd = open_to_client();
	assert_int_equal(send(fd, "x", 1, 0), 1);
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	fake_settle(&fake);
	assert_int_equal(in(UART_RX), 'x');
	fake_settle(&fake);
	out(UART_TX, 'y');
	fake_settle(&fake);
	assert_int_equal(recv(fd, got, sizeof(got), 0), 1);
	assert_int_equal(got[0], 'y');
	/* It is the client until it goes. */
	close(fd);
	fake_settle(&fake);
	fd = connected();
	out(UART_TX, 'z');
	fake_settle(&fake);
	assert_int_equal(recv(fd, got, sizeof(got), 0), 1);
	assert_int_equal(got[0], 'z');
	close(fd);
	fake_settle(&fake);
}

/* Until there is no more room, as the other end does not read; returns how much that is. */
static int fill_line(void)
{
	int sent = 0;

	while (in(UART_LSR) & UART_LSR_THRE) {
		out(UART_TX, 'x');
		assert_in_range(++sent, 1, 16 * MIB);
	}
	fake_settle(&fake);
	out(UART_IER, UART_IER_THRI);
	assert_false(wire());
	return sent;
}

static ssize_t read_all(int fd)
{
	static char got[65536];
	ssize_t n, sum = 0;

	do {
		n = recv(fd, got, sizeof(got), 0);
		sum += MAX(n, 0);
		fake_settle(&fake);
	} while (n > 0);
	return sum;
}

/* The guest waited for room, and its interrupt says that there is some. */
static void check_told(void)
{
	assert_true(wire());
	assert_int_equal(in(UART_IIR) & 0x0f, UART_IIR_THRI);
}

/* The other end does not read: the guest sees that, waits, and is told when there is room. */
static void test_transmit_waits(void **state)
{
	int fd, sent;

	(void)state;
	fd = open_to_client();
	sent = fill_line();
	assert_int_equal(read_all(fd), sent);
	check_told();
	assert_true(in(UART_LSR) & UART_LSR_THRE);
	close(fd);
	fake_settle(&fake);
}

/* It reads while the machine is paused: the guest, which waits for its interrupt, is told then. */
static void test_room_in_a_pause(void **state)
{
	int fd, sent;

	(void)state;
	fd = open_to_client();
	sent = fill_line();
	device_quiesce(dev);
	assert_int_equal(read_all(fd), sent);
	device_resume(dev);
	check_told();
	close(fd);
	fake_settle(&fake);
}

/* A guest that waited goes on elsewhere, where there is room. */
static void test_room_in_a_copy(void **state)
{
	struct state *save, *load;
	const void *blob;
	size_t len;
	struct err err;
	int fd;

	(void)state;
	fd = open_to_client();
	fill_line();
	device_quiesce(dev);
	assert_int_equal(state_new_save(&save, &err), 0);
	device_state(dev, save);
	assert_int_equal(state_finish_save(save, &blob, &len, &err), 0);
	close(fd);
	fake_settle(&fake);
	device_destroy(dev);
	assert_int_equal(serial_new(&fake.p, "com1", PORT_COM1, COM1_GSI, line, &dev, &err), 0);
	device_quiesce(dev);
	assert_int_equal(state_new_load(&load, blob, len, &err), 0);
	device_state(dev, load);
	assert_int_equal(state_finish_load(load, &err), 0);
	state_free(load);
	state_free(save);
	assert_false(wire());
	device_resume(dev);
	assert_true(wire());
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_registers), T(test_transmit_interrupt), T(test_loopback),
		T(test_output_arrives), T(test_input_arrives), T(test_client_listens),
		T(test_modem_interrupt), T(test_not_made), T(test_transmit_waits),
		T(test_room_in_a_pause), T(test_room_in_a_copy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
