/*
 * string.h: the few functions over bytes that payloads, and the compiler behind their back, need.
 */
#ifndef GUEST_LIB_STRING_H
#define GUEST_LIB_STRING_H

#include "guest/lib/io.h"

void *memset(void *p, int c, size_t len);
void *memcpy(void *to, const void *from, size_t len);
int memcmp(const void *a, const void *b, size_t len);
size_t strlen(const char *s);

#endif
