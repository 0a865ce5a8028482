/* landlock.c: its three system calls, and what its versions differ in. */
#include "vmm/landlock.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Of access to files by version, and what can be allowed of a file that is no directory. */
static const u32 known[] = { 0, 0x1fff, 0x3fff, 0x7fff, 0x7fff, 0xffff };
enum { SCOPE_ABSTRACT_SOCKETS = 1 << 0 };
enum { OF_FILES = LANDLOCK_EXECUTE | LANDLOCK_WRITE | 1 << 2 | LANDLOCK_DEVICE_IOCTL };

static u32 known_here(void)
{
	static u32 here;
	unsigned abi;

	if (!here) {
		abi = landlock_abi();
		here = known[MIN(abi, ARRAY_SIZE(known) - 1)];
	}
	return here;
}

int landlock_abi(void)
{
	int abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	return MAX(abi, 0);
}

int landlock_new(u32 handled)
{
	/* As version 6 has it; Debian 12's headers are of an older one, which has the first. */
	const u64 attr[] = { handled & known_here(), 0, SCOPE_ABSTRACT_SOCKETS };
	size_t len = landlock_abi() >= 6 ? sizeof(attr) : sizeof(attr[0]);
	int fd = syscall(SYS_landlock_create_ruleset, attr, len, 0);

	return fd < 0 ? -errno : fd;
}

void landlock_allow(int rules, const char *path, u32 access)
{
	struct landlock_path_beneath_attr attr = { .allowed_access = access & known_here() };
	struct stat st;

	attr.parent_fd = open(path, O_PATH | O_CLOEXEC);
	if (attr.parent_fd < 0)
		return;
	if (!fstat(attr.parent_fd, &st) && !S_ISDIR(st.st_mode))
		attr.allowed_access &= OF_FILES;
	(void)!syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &attr, 0);
	close(attr.parent_fd);
}

int landlock_enter(int rules)
{
	return syscall(SYS_landlock_restrict_self, rules, 0) ? -errno : 0;
}
