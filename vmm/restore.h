/* restore.h: the way from a snapshot's configuration to one that runs here. */
#pragma once
#include "vmm/config.h"

/*
 * A delta of each disk that is a snapshot's base: in dir, NAME-diskN.qcow2 (without a
 * name vm-diskN.qcow2), which is kept; dir NULL: beside the base, to be removed by
 * restore_unlink once it is open.
 */
int  restore_disks(struct config *, const char *dir, struct err *) must_check;
void restore_unlink(struct config *);		/* only those made without a dir */
void restore_keep(struct config *);		/* the VM has begun: the others are its own */
void restore_undo(struct config *);		/* if it has not, none is left */
