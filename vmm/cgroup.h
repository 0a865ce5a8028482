/* cgroup.h: this process in a control group of its own. */
#pragma once
#include "vmm/config.h"

/* Whether it is a path of groups below the hierarchy. */
int cgroup_check(const char *group, struct err *) must_check;
/* Whether it is "FILE=VALUE", as below. */
int cgroup_check_setting(const char *setting, struct err *) must_check;
/*
 * Make the group (a path below the mounted hierarchy; its parents as well), write each
 * "FILE=VALUE" to it, and move this process in.  version 1: each to the hierarchy of
 * the controller that FILE begins with.  For version 2 the controllers are switched on
 * in the parents.
 */
int cgroup_enter(unsigned version, const char *group, const char *const *setting, unsigned nr,
		 struct err *) must_check;
/* Move this process into a group of version 2 that is there already; else do nothing. */
int cgroup_join(const char *group, struct err *) must_check;
/*
 * What --cgroup, --cpu-quota and --mem-limit say, by version 2; nothing, if they say
 * nothing.  The group is gone when the process is, unless others are in it; its parents
 * stay: another VM may be about to make its own in there.
 */
int cgroup_limit(const struct config *, struct err *) must_check;
/* Whether the options above can be had here: where, or what is in the way (for `vmm check`). */
bool cgroup_usable(char *why, size_t room);
