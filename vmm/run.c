/* run.c: 'vmm run': a VM from the command line. */
#include <stdio.h>
#include <sys/prctl.h>
#include "vmm/commands.h"
#include "vmm/config.h"
#include "vmm/core/log.h"
#include "vmm/jail.h"
#include "vmm/logfile.h"
#include "vmm/version.h"
#include "vmm/vm.h"

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
	     "       vmm net COMMAND ...                  make, show, remove networks\n"
	     "       vmm restore DIR [options]            go on with a VM that was saved\n"
	     "       vmm clone DIR [-n N] [options]       start copies of it\n"
	     "       vmm snapshot info|merge ...          look at what was saved\n"
	     "       vmm ps                               list the VMs that run under a name\n"
	     "       vmm top                              what they take and do\n"
	     "       vmm console|stop|pause|resume NAME   one of them\n"
	     "       vmm ctl SOCKET|NAME VERB ...         whatever a VM that runs can be told\n"
	     "       vmm firecracker ...                  with Firecracker's options and API\n"
	     "       vmm jailer ...                       the same in a jail, with its jailer's options\n"
	     "       vmm --help | --version\n\noptions:");
	for (unsigned i = 0; i < config_nr_options; i++)
		print_option(config_options[i].name, config_options[i].metavar,
			     config_options[i].help);
	print_option("config", "FILE.json", "read options from a JSON object with the same names;\n"
		     "the command line wins");
	print_option("help", NULL, "also -h");
	print_option("version", NULL, "print the version");
	puts("\nOn a terminal Ctrl-A x quits, Ctrl-A h helps. SIGTERM presses the guest's power button.\n"
	     "Exit status: 0 powered off, 1 failed, 2 wrong usage, 3 guest panic, or what the guest\n"
	     "wrote to port 0xf4. See vmm(1).");
}

/* Before there is a log to say it in. */
static int failed_early(struct config *c, const struct err *err)
{
	log_err("%s", err->msg);
	config_fini(c);
	return exit_status_of(err->code);
}

int command_run(int argc, char **argv)
{
	struct err err = { 0 };
	struct config c;
	bool help, version;
	int status;

	config_init(&c);
	if (config_parse(&c, argc, argv, &help, &version, &err))
		return failed_early(&c, &err);
	if (help || version) {
		if (help)
			print_help();
		else
			puts("vmm " VMM_VERSION);
		config_fini(&c);
		return EXIT_OK;
	}
	if (c.name)
		prctl(PR_SET_NAME, c.name);
	jail_forget_starter(&c);
	if (jail_enter(&c, &err) || logfile_start(&c, &err))
		status = exit_status_of(err.code);
	else
		status = vm_run(&c, &(struct vm_options){
			.api = { .app = "vmm", .version = VMM_VERSION, .id = c.name ?: "anonymous-instance",
				 .max_body = API_MAX_BODY },
			.named = true,
		}, &err);
	logfile_end(&err);
	config_fini(&c);
	return status;
}
