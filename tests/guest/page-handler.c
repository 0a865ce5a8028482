/* page-handler.c: page-handler SOCKET FILE [PAGES [reads]]: a page fault handler for one VM, whose memory is in the file;
 * it gives so many pages, and then only says that one more is waited for; reads: it still hears of who waits. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "tests/lib/page_handler.h"
#include "vmm/core/socket.h"

static void say(const char *what)
{
	puts(what);
	fflush(stdout);
}

static bool reads;

static bool silent(void)
{
	say("silent");
	return reads;
}

int main(int argc, char **argv)
{
	int listener, fd = argc >= 3 && argc <= 5 ? open(argv[2], O_RDONLY) : -1, flags;
	void *memory;
	struct stat st;
	struct err err;
	long filled;

	if (fd < 0 || fstat(fd, &st)) {
		fputs("usage: page-handler SOCKET FILE [PAGES [reads]]\n", stderr);
		return 2;
	}
	memory = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (memory == MAP_FAILED || socket_listen(argv[1], &listener, &err))
		return 1;
	flags = fcntl(listener, F_GETFL);
	fcntl(listener, F_SETFL, flags & ~O_NONBLOCK);
	say("ready");
	reads = argc == 5;
	filled = page_handler(listener, memory, st.st_size, argc > 3 ? atol(argv[3]) : 0, argc > 3 ? silent : NULL);
	unlink(argv[1]);
	printf("filled %ld\n", filled);
	return filled <= 0;
}
