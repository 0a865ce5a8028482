/* cgroup.h: this process in a control group of its own. */
#pragma once
#include "vmm/core/base.h"
#include "vmm/core/err.h"

/*
 * Make the group (a path below the mounted hierarchy; its parents as well), write each
 * "FILE=VALUE" to it, and move this process in.  version 1: each to the hierarchy of
 * the controller that FILE begins with.  For version 2 the controllers are switched on
 * in the parents.
 */
int cgroup_enter(unsigned version, const char *group, const char *const *setting, unsigned nr,
		 struct err *) must_check;
