/* configs.h: for fuzzers: is a configuration one that the rest of the program can rely on? */
#pragma once
#include "tests/fuzz/lib/fuzz.h"
#include "vmm/config.h"

/* Parse, and look at what came out: 0, or -EINVAL and why. */
int  configs_parse(struct config *, int argc, char **argv, struct err *);
bool configs_same(const struct config *, const struct config *);
/* The input's next option, with a value that it may like; not --config. */
const struct option *configs_pick(struct fuzz *, char *value, size_t len);
