/*
 * hello.c: promise: what is written to COM1 arrives, all of it and in order. bytes=N of numbered
 * lines of 16 bytes: what `seq -f %015.0f 0 M` prints.
 */
#include "guest/lib/start.h"

int main(const struct start_info *info, const char *cmdline)
{
	char line[17] = "000000000000000\n";
	u64 left = arg_u64("bytes", 16);
	char *p;

	(void)info;
	(void)cmdline;
	while (left) {
		u64 nr = left < 16 ? left : 16;

		serial_write(line, nr);
		left -= nr;
		/* Counting in place: a division per digit and line is seconds when interpreted. */
		for (p = line + 14; *p == '9'; p--)
			*p = '0';
		++*p;
	}
	return 0;
}
