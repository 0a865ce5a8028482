/* fake_vm.h: a VM for the API that only writes down what it was asked. */
#pragma once
#include "vmm/api/api.h"

struct fake_vm {
	struct api_vm vm;
	struct config config;
	enum api_state state;
	struct loop *loop;
	struct api *api;
	struct metrics metrics;		/* empty, until a test adds to it */
	struct api_vm_ops ops;		/* tests may take some away */
	int fail;			/* -errno for the next thing that is asked of it, then 0 */
	char asked[256];		/* what was done last: "pause", "disk_resize 1 4096" */
	unsigned starts;
};

/* Every file is there, but for those whose name has "missing" in it. */
void fake_vm_init(struct fake_vm *);
void fake_vm_fini(struct fake_vm *);

/* A request without a socket: its status.  The answer's text, "" if there was none, is
 * good until the next one. */
int  fake_vm_request(struct fake_vm *, const char *method, const char *path, const char *body);
extern char fake_vm_answer[8192];
