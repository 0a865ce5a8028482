/* run.c: 'vmm run': one VM from its options to its exit status. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "vmm/commands.h"
#include "vmm/config.h"
#include "vmm/control.h"
#include "vmm/core/log.h"
#include "vmm/machine.h"
#include "vmm/version.h"

static void print_option(const char *name, const char *metavar, const char *help)
{
	char left[64];
	int n = snprintf(left, sizeof(left), "  --%s%s%s", name, metavar ? " " : "",
			 metavar ? metavar : "");

	printf(n < 27 ? "%-27s" : "%s\n%27s", left, "");
	for (; *help; help++) {
		putchar(*help);
		if (*help == '\n')
			printf("%27s", "");
	}
	putchar('\n');
}

static void print_help(void)
{
	puts("vmm runs a virtual machine on KVM.\n\n"
	     "usage: vmm [run] --kernel FILE [options]    run a VM on this terminal\n"
	     "       vmm check                            what this host can do\n"
	     "       vmm disk COMMAND ...                 make, show, change disk images\n"
	     "       vmm --help | --version\n\noptions:");
	for (unsigned i = 0; i < config_nr_options; i++)
		print_option(config_options[i].name, config_options[i].metavar,
			     config_options[i].help);
	print_option("config", "FILE.json", "read options from a JSON object with the same names;\n"
		     "the command line wins");
	print_option("help", NULL, "also -h");
	print_option("version", NULL, "");
	puts("\nOn a terminal Ctrl-A x quits, Ctrl-A h helps. SIGTERM presses the guest's power button.\n"
	     "Exit status: 0 powered off, 1 failed, 2 wrong usage, 3 guest panic, or what the guest\n"
	     "wrote to port 0xf4. See vmm(1).");
}

/* --- pid file ----------------------------------------------------------------------------------- */

/* What a killed vmm left, or nothing: no other file is overwritten, or removed later. */
static bool is_pidfile(int fd)
{
	struct stat st;
	char text[16];
	ssize_t n;

	if (fstat(fd, &st) || !S_ISREG(st.st_mode))
		return false;
	n = pread(fd, text, sizeof(text), 0);
	for (ssize_t i = 0; i < n; i++)
		if (!isdigit((unsigned char)text[i]) && text[i] != '\n')
			return false;
	return n >= 0 && n < (ssize_t)sizeof(text);
}

/* The lock says that its owner lives. */
static int write_pidfile(const char *path, int *out, struct err *err)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int rc, fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0644);

	if (fd < 0)
		return err_set(err, -errno, "pidfile %s: %s", path, strerror(errno));
	if (!is_pidfile(fd))
		rc = err_set(err, -EEXIST, "pidfile %s: there is something else of that name", path);
	else if (fcntl(fd, F_OFD_SETLK, &lock))
		rc = err_set(err, -EBUSY, "pidfile %s: in use by another VM", path);
	else if (ftruncate(fd, 0) || dprintf(fd, "%d\n", getpid()) < 0)
		rc = err_set(err, -errno, "pidfile %s: %s", path, strerror(errno));
	else
		rc = 0;
	if (rc) {
		close(fd);
		return rc;
	}
	control_doom(path);
	*out = fd;
	return 0;
}

static void remove_pidfile(const char *path, int fd)
{
	if (fd < 0)
		return;
	control_doom(NULL);
	unlink(path);
	close(fd);
}

/* --- the life of a VM ----------------------------------------------------------------------------- */

static int status_of(enum outcome why, int code)
{
	switch (why) {
	case OUTCOME_EXIT:
		return code;
	case OUTCOME_PANIC:
		log_warn("the guest's kernel panicked");
		return EXIT_GUEST_PANIC;
	case OUTCOME_FATAL:
	case OUTCOME_STOPPED:
		return EXIT_RUNTIME;
	default:
		return EXIT_OK;
	}
}

static int live(struct resources *r, int *status, struct err *err)
{
	enum outcome why = OUTCOME_RESET;
	bool bad_input = false;
	int code = 0, rc = 0;

	while (why == OUTCOME_RESET && !rc) {
		struct machine *m;

		rc = machine_new(&m, r, &bad_input, err);
		if (rc)
			break;
		rc = machine_run(m, &why, &code, err);
		machine_free(m);
		if (why == OUTCOME_RESET && r->config->no_reboot)
			break;
	}
	*status = !rc ? status_of(why, code) : bad_input ? EXIT_USAGE : EXIT_RUNTIME;
	return rc;
}

static int run(const struct config *c, struct err *err)
{
	struct resources r;
	struct control control = { .fd = -1 };
	int status = EXIT_RUNTIME, pidfile = -1, rc;

	/* What the user named is not there, or not usable: EXIT_USAGE. */
	control_block_signals();
	rc = c->pidfile ? write_pidfile(c->pidfile, &pidfile, err) : 0;
	if (!rc)
		rc = resources_open(&r, c, err);
	if (rc) {
		remove_pidfile(c->pidfile, pidfile);
		return EXIT_USAGE;
	}
	rc = control_start(&control, &r, err);
	if (!rc)
		rc = live(&r, &status, err);
	remove_pidfile(c->pidfile, pidfile);
	control_stop(&control);
	resources_close(&r);
	return status;
}

int command_run(int argc, char **argv)
{
	struct err err = { 0 };
	struct config c;
	bool help, version;
	int status;

	config_init(&c);
	if (config_parse(&c, argc, argv, &help, &version, &err)) {
		log_err("%s", err.msg);
		config_fini(&c);
		return EXIT_USAGE;
	}
	if (help || version) {
		if (help)
			print_help();
		else
			puts("vmm " VMM_VERSION);
		config_fini(&c);
		return EXIT_OK;
	}
	log_set_level(c.log_level);
	if (c.name)
		prctl(PR_SET_NAME, c.name);
	status = run(&c, &err);
	if (err.code)
		log_err("%s", err.msg);
	config_fini(&c);
	return status;
}
