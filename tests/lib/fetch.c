/* fetch.c: a page without access, and one step of the processor at a time with it. */
#include "tests/lib/fetch.h"
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

enum { PAGE = 4096, SINGLE_STEP = 0x100 };

static struct {
	u8 *page, *at;
	const void *replacement;
	size_t len;
	unsigned after, nr;
	bool stepping;
	struct sigaction segv, trap;
} fetch;

static void touched(int signal, siginfo_t *info, void *context)
{
	ucontext_t *u = context;
	uintptr_t offset = (uintptr_t)info->si_addr - (uintptr_t)fetch.page;

	(void)signal;
	if (fetch.stepping || offset >= PAGE) {
		sigaction(SIGSEGV, &fetch.segv, NULL);		/* and there it goes again */
		return;
	}
	fetch.stepping = true;
	BUG_ON(mprotect(fetch.page, PAGE, PROT_READ | PROT_WRITE));
	u->uc_mcontext.gregs[REG_EFL] |= SINGLE_STEP;
}

static void stepped(int signal, siginfo_t *info, void *context)
{
	ucontext_t *u = context;

	(void)signal;
	(void)info;
	if (++fetch.nr == fetch.after)
		memcpy(fetch.at, fetch.replacement, fetch.len);
	fetch.stepping = false;
	BUG_ON(mprotect(fetch.page, PAGE, PROT_NONE));
	u->uc_mcontext.gregs[REG_EFL] &= ~SINGLE_STEP;
}

void fetch_begin(void *at, const void *replacement, size_t len, unsigned after)
{
	struct sigaction sa = { .sa_sigaction = touched, .sa_flags = SA_SIGINFO };

	fetch.page = (u8 *)at - (uintptr_t)at % PAGE;
	fetch.at = at;
	fetch.replacement = replacement;
	fetch.len = len;
	fetch.after = after;
	fetch.nr = 0;
	BUG_ON((uintptr_t)at % PAGE + len > PAGE);
	sigaction(SIGSEGV, &sa, &fetch.segv);
	sa.sa_sigaction = stepped;
	sigaction(SIGTRAP, &sa, &fetch.trap);
	BUG_ON(mprotect(fetch.page, PAGE, PROT_NONE));
}

unsigned fetch_end(void)
{
	BUG_ON(mprotect(fetch.page, PAGE, PROT_READ | PROT_WRITE));
	sigaction(SIGSEGV, &fetch.segv, NULL);
	sigaction(SIGTRAP, &fetch.trap, NULL);
	return fetch.nr;
}
