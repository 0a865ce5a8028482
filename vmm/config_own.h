/* config_own.h: for vmm/config*.c only: what their parts have of each other. */
#pragma once
#include "vmm/config.h"

/* --- config_text.c ------------------------------------------------------------------------ */

int config_parse_switch(const char *text, bool *value) must_check;	/* on, true, yes, 1; or -EINVAL */
/* Cut the next piece off a list with commas (",," is one in a value), in place; NULL: none is left. */
char *config_next_piece(char **list);
/* "key=value", or "key" for a switch: the value, or "true"; the key is cut off. */
const char *config_split_pair(char *piece);
/* -EINVAL, with the nearest of those that are known. */
int config_unknown_key(const char *what, const char *key, const char *const *known, unsigned nr,
		       struct err *err);

/* --- lists, each value added to them -------------------------------------------------------- */

int config_parse_disk(struct config *, const char *value, struct err *) must_check;
int config_parse_net(struct config *, const char *value, struct err *) must_check;
int config_parse_mmds(struct config *, const char *value, struct err *) must_check;
/* --vsock: what it leaves out stays as it was. */
int config_parse_vsock(struct config *, const char *value, struct err *) must_check;
int config_check_vsock(const struct config *, struct err *) must_check;
/* One by one and with each other; also those that came with a snapshot. */
int config_check_nets(const struct config *, struct err *) must_check;

/* --- config.c, config_json.c ---------------------------------------------------------------- */

const struct option *config_find_option(const char *name);		/* NULL: there is none */
const char *config_nearest_option(const char *name);
int config_parse_file(struct config *, const char *path, struct err *) must_check;
