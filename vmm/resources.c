/* resources.c: files, taps and the terminal: opened once, kept over reboots. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "devices/block/blk.h"
#include "devices/chardev.h"
#include "devices/net/net.h"
#include "vmm/control.h"
#include "vmm/core/log.h"
#include "vmm/machine.h"

static void quit(void *arg)
{
	struct resources *r = arg;

	if (r->machine)
		machine_end(r->machine, OUTCOME_QUIT);
}

static int open_file(const char *what, const char *path, int *fd, struct err *err)
{
	struct stat st;

	/* Non-blocking, or a FIFO given by mistake would hang here for ever. */
	*fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (*fd < 0)
		return err_set(err, -errno, "%s %s: %s", what, path, strerror(errno));
	if (fstat(*fd, &st) || !S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "%s %s: not a regular file", what, path);
	return 0;
}

/* The names under which distributions put a kernel's initrd beside it. */
static char *find_initrd(const char *kernel)
{
	const char *slash = strrchr(kernel, '/'), *name = slash ? slash + 1 : kernel;
	int dir = name - kernel;
	char *path[3] = { NULL };
	char *found = NULL;

	if (asprintf(&path[0], "%s.initrd", kernel) < 0)
		path[0] = NULL;
	if (!strncmp(name, "vmlinuz-", 8)) {
		if (asprintf(&path[1], "%.*sinitrd.img-%s", dir, kernel, name + 8) < 0)
			path[1] = NULL;
		if (asprintf(&path[2], "%.*sinitramfs-%s.img", dir, kernel, name + 8) < 0)
			path[2] = NULL;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(path); i++) {
		if (path[i] && !found && !access(path[i], F_OK))
			found = path[i];
		else
			free(path[i]);
	}
	return found;
}

static int open_boot_files(struct resources *r, struct err *err)
{
	const struct config *c = r->config;
	char *found = NULL;
	const char *initrd = c->initrd;
	int rc = open_file("kernel", c->kernel, &r->kernel_fd, err);

	if (rc)
		return rc;
	if (!initrd) {
		initrd = found = find_initrd(c->kernel);
		if (found)
			log_info("initrd: taking %s ('--initrd none' takes none)", found);
	} else if (!strcmp(initrd, "none")) {
		initrd = NULL;
	}
	if (initrd) {
		rc = open_file("initrd", initrd, &r->initrd_fd, err);
		r->initrd_path = strdup(initrd);
	}
	free(found);
	return rc;
}

static int open_backends(struct resources *r, struct err *err)
{
	const struct config *c = r->config;
	int rc = 0;

	for (unsigned i = 0; i < c->nr_disks && !rc; i++) {
		struct blk_options o = { .format = c->disk[i].format,
					 .read_only = c->disk[i].read_only,
					 .direct = c->disk[i].direct,
					 .backing_anywhere = c->disk[i].backing_anywhere };

		limit_set(&r->limit[i], &c->disk[i].limit);
		rc = blk_open(&r->disk[i], c->disk[i].path, &o, err);
	}
	for (unsigned i = 0; i < c->nr_nets && !rc; i++)
		rc = net_open_tap(&r->net[i], c->net[i].tap, err);
	return rc;
}

/*
 * quiet: thousands of exits for the serial port less.  nr_uarts: there is one;
 * looking for more takes dozens of exits.  notests: half of a stock kernel's
 * boot are its crypto code's tests of itself.  pci: the early scan for real
 * chipsets' bugs, or all of it where there is no bus, is spared.  The rest says
 * where root is.
 */
static char *make_cmdline(const struct config *c)
{
	const char *root = !c->nr_disks ? "" : c->disk[0].read_only ? " root=/dev/vda ro" :
								     " root=/dev/vda rw";
	char *text;

	if (c->cmdline)
		return strdup(c->cmdline);
	if (asprintf(&text, "console=ttyS0%s quiet 8250.nr_uarts=1 cryptomgr.notests %s%s%s", root,
		     c->transport == TRANSPORT_MMIO ? "pci=off" : "pci=noearly",
		     c->append ? " " : "", c->append ? c->append : "") < 0)
		return NULL;
	return text;
}

int resources_open(struct resources *r, const struct config *c, struct err *err)
{
	int rc;

	*r = (struct resources){ .config = c, .kernel_fd = -1, .initrd_fd = -1 };
	for (unsigned i = 0; i < CONFIG_MAX_DISKS; i++)
		limit_init(&r->limit[i], &(struct limit_config){ 0 });
	r->cmdline = make_cmdline(c);
	rc = r->cmdline ? loop_new(&r->main_loop, err) : err_set(err, -ENOMEM, "out of memory");
	if (!rc)
		rc = open_boot_files(r, err);
	if (!rc)
		rc = open_backends(r, err);
	/* The terminal is last: until here, errors go to one that is not raw. */
	if (!rc)
		rc = chardev_open(&r->serial, c->serial ? c->serial : "stdio", r->main_loop, quit, r,
				  err);
	if (rc)
		resources_close(r);
	return rc;
}

void resources_close(struct resources *r)
{
	for (unsigned i = 0; i < CONFIG_MAX_DISKS; i++)
		blk_close(r->disk[i]);
	for (unsigned i = 0; i < CONFIG_MAX_NETS; i++)
		net_close(r->net[i]);
	/* The console's rest may wait for somebody slow; nothing else does then. */
	chardev_leave(r->serial);
	control_unblock_signals();
	chardev_close(r->serial);
	if (r->kernel_fd >= 0)
		close(r->kernel_fd);
	if (r->initrd_fd >= 0)
		close(r->initrd_fd);
	loop_free(r->main_loop);
	free(r->cmdline);
	free(r->initrd_path);
	*r = (struct resources){ .kernel_fd = -1, .initrd_fd = -1 };
}
