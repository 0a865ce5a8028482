/*
 * string.c: the few functions over bytes that payloads, and the compiler behind their back, need.
 */
#include "guest/lib/string.h"

void *memset(void *p, int c, size_t len)
{
	void *at = p;
	size_t words = len / 8;

	asm volatile("rep stosq" : "+D"(at), "+c"(words)
		     : "a"((u8)c * 0x0101010101010101ull) : "memory");
	len %= 8;
	asm volatile("rep stosb" : "+D"(at), "+c"(len) : "a"(c) : "memory");
	return p;
}

void *memcpy(void *to, const void *from, size_t len)
{
	void *at = to;
	size_t words = len / 8;

	asm volatile("rep movsq" : "+D"(at), "+S"(from), "+c"(words) : : "memory");
	len %= 8;
	asm volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(len) : : "memory");
	return to;
}

int memcmp(const void *a, const void *b, size_t len)
{
	const u8 *x = a, *y = b;

	for (; len; len--, x++, y++)
		if (*x != *y)
			return *x - *y;
	return 0;
}

size_t strlen(const char *s)
{
	size_t len = 0;

	while (s[len])
		len++;
	return len;
}
