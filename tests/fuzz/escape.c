/*
 * escape.c: keys, in pieces as they come.  The guest gets all but what is for vmm, vmm
 * gets what is for it, and it makes no difference where the pieces end.
 */
#include <string.h>
#include "devices/escape.h"
#include "tests/fuzz/lib/fuzz.h"

enum { MOST = 4096, CTRL_A = 1 };

void fuzz_one(struct fuzz *f)
{
	static u8 keys[MOST], want[MOST], got[MOST];
	size_t nr_want = 0, nr_got = 0, len = 0, k;
	unsigned said = 0, heard = 0, orders;
	struct escape e = { 0 };

	/* In pairs: what follows a Ctrl-A is part of it. */
	for (size_t i = 0; i < MIN(f->left, MOST); i++) {
		u8 b = f->data[i];

		if (b != CTRL_A) {
			want[nr_want++] = b;
			continue;
		}
		if (++i == MIN(f->left, MOST))
			break;
		b = f->data[i];
		said |= b == 'x' ? ESCAPE_QUIT : b == 'h' ? ESCAPE_HELP : 0;
		if (b == CTRL_A)
			want[nr_want++] = b;
	}
	while (f->left && len < MOST) {
		/* A piece is as long as its first byte says. */
		k = MIN(MIN(f->left, 1 + f->data[0] % 16U), MOST - len);
		fuzz_bytes(f, keys, k);
		len += k;
		k = escape_filter(&e, keys, k, &orders);
		memcpy(got + nr_got, keys, k);
		nr_got += k;
		heard |= orders;
	}
	fuzz_check(heard == said, "orders %#x, not %#x", heard, said);
	fuzz_check(nr_got == nr_want && !memcmp(got, want, nr_got), "%zu bytes came, not %zu", nr_got,
		   nr_want);
}
