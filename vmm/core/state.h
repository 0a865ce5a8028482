/* state.h: a visitor over everything a machine has to remember, for saving and for loading. */
#pragma once
#include "vmm/core/base.h"
#include "vmm/core/err.h"

/*
 * The state is a flattened device tree (Devicetree Specification 0.4, 5): a node
 * for each part, a property for each field; numbers are cells of 4 or 8 bytes,
 * big-endian, so `fdtdump` shows them.  The same function saves and loads a part.
 * A stream may come from anybody: what is missing, left over, or of the wrong size
 * is an error, which sticks; it is asked for once, at the end.  What a field may
 * hold is checked by its owner, with state_fail.  Control thread.
 *
 * Compatibility: add fields freely, those that are rarely needed under state_if;
 * never change what a field means.
 */
struct state;

int  state_new_save(struct state **, struct err *) must_check;
/* blob stays the caller's until state_free. */
int  state_new_load(struct state **, const void *blob, size_t len, struct err *) must_check;
/* What was saved; the memory is the state's.  Fails with the error that stuck. */
int  state_finish_save(struct state *, const void **blob, size_t *len, struct err *) must_check;
int  state_finish_load(struct state *, struct err *) must_check;
void state_free(struct state *);		/* NULL is allowed */

bool state_loading(const struct state *);
bool state_failed(const struct state *);
/* Names the place in front. */
void state_fail(struct state *, const char *fmt, ...) printf_like(2, 3);
/* The same of a call that failed, which need not be the state's fault. */
void state_error(struct state *, int rc, const char *what);

/* A part: everything until leave is in it.  Several of one name by number.  The fields
 * of a part come before the parts in it. */
void state_enter(struct state *, const char *name, unsigned number);
void state_leave(struct state *);
/* Saving: needed, and then its fields follow.  Loading: whether it is there. */
bool state_if(struct state *, const char *name, bool needed);

/* After an error loading leaves the fields as they are. */
void state_u8(struct state *, const char *name, u8 *);
void state_u16(struct state *, const char *name, u16 *);
void state_u32(struct state *, const char *name, u32 *);
void state_u64(struct state *, const char *name, u64 *);
void state_bool(struct state *, const char *name, bool *);
void state_bytes(struct state *, const char *name, void *, size_t len);	/* exactly len */
/* At most max bytes; loading sets *len. */
void state_some_bytes(struct state *, const char *name, void *, size_t *len, size_t max);
/* NULL is a value; loading frees what is there. */
void state_string(struct state *, const char *name, char **);
/* A number that has to be the same; else the load fails. */
void state_same(struct state *, const char *name, u64 value);
