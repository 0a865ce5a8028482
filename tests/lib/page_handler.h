/* page_handler.h: a page fault handler, as Firecracker's API knows them. */
#pragma once
#include "vmm/core/base.h"

/*
 * Take one connection of a socket that listens, and fill the pages of whoever made it
 * from memory, of size bytes, until it closes.  How many were filled; -1: it did not
 * say what a handler needs to know, or wanted a page that is not there.
 * silent: NULL, or when somebody waits for the page after the first so many, it is called,
 * and nobody gets any more; if it says so, who waits is still read.
 */
long page_handler(int listener, const u8 *memory, u64 size, long pages, bool (*silent)(void));
