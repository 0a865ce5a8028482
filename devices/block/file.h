/* file.h: the file under an image, read and written in place; the one way image code reaches the disk. */
#pragma once
#include "vmm/core/base.h"

/*
 * Any thread.  Whole or -errno, never short; reading past the end gives zeroes.
 * tests/lib has another implementation, which forgets, tears and fails.
 */
int file_read(int fd, u64 offset, void *buf, size_t len) must_check;
int file_write(int fd, u64 offset, const void *buf, size_t len) must_check;
int file_sync(int fd) must_check;			/* data, and what is needed to find it */
int file_size(int fd, u64 *size) must_check;		/* of a block device too */
bool file_is_device(int fd);				/* a block device */
int file_truncate(int fd, u64 size) must_check;	/* -ENOSPC: a device ends before that */
int file_allocate(int fd, u64 offset, u64 len) must_check;	/* space for certain; grows the file */
/* From here on the range reads as zeroes.  unmap: its space may be given back.
 * -EOPNOTSUPP: write them. */
int file_zero(int fd, u64 offset, u64 len, bool unmap) must_check;
/* Data (true) or a hole from offset on, and where that ends, at most at end. */
bool file_is_data(int fd, u64 offset, u64 end, u64 *until);
