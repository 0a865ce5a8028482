/* escape.c: see escape.h. */
#include "devices/escape.h"

enum { CTRL_A = 1 };

const char escape_help[] =
	"\r\nCtrl-A x  quit: stop the guest at once\r\n"
	"Ctrl-A h  this help\r\n"
	"Ctrl-A Ctrl-A  send Ctrl-A to the guest\r\n";

size_t escape_filter(struct escape *e, u8 *buf, size_t len, unsigned *orders)
{
	size_t n = 0;

	*orders = 0;
	for (size_t i = 0; i < len; i++) {
		u8 b = buf[i];

		if (!e->began) {
			e->began = b == CTRL_A;
			if (!e->began)
				buf[n++] = b;
			continue;
		}
		e->began = false;
		if (b == 'x')
			*orders |= ESCAPE_QUIT;
		else if (b == 'h')
			*orders |= ESCAPE_HELP;
		else if (b == CTRL_A)
			buf[n++] = b;
	}
	return n;
}
