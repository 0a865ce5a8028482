/* metadata.h: what Firecracker calls MMDS: JSON that a user leaves for the guest, who asks by HTTP. */
#pragma once
#include <jansson.h>
#include "vmm/config.h"
#include "vmm/core/metrics.h"

struct metadata;

enum {
	METADATA_TOKENS = 512,		/* at once; one more, and the oldest goes */
	METADATA_DEPTH = 128,		/* of objects and lists within each other */
	METADATA_TTL_MAX = 21600,	/* seconds */
	METADATA_TOKEN_LEN = 48,	/* characters */
};

/* limit: bytes of its shortest text. */
int  metadata_new(struct metadata **, u64 limit, struct err *) must_check;
void metadata_free(struct metadata *);		/* NULL is allowed */

/* --- on the control thread ------------------------------------------------------------------ */

/* All of it.  -EFBIG: more than limit, -EINVAL: too deep; then it is as it was. */
int  metadata_put(struct metadata *, const json_t *, struct err *) must_check;
/* A merge patch (RFC 7396). */
int  metadata_patch(struct metadata *, const json_t *, struct err *) must_check;
/* A new reference; {}: nothing was put there yet. */
json_t *metadata_get(struct metadata *);
/* How it answers from here on.  No loop runs. */
void metadata_configure(struct metadata *, const struct mmds_config *);
/* Another guest: its tokens are forgotten, counts begin at 0; what was put there stays. */
void metadata_restart(struct metadata *);

struct metadata_counters {
	u64 no_token, invalid_token;
};
const struct metadata_counters *metadata_counters(const struct metadata *);

/* --- any thread -------------------------------------------------------------------------------- */

/*
 * One request of HTTP, up to its empty line, or too_long: the first bytes of one; the answer,
 * len bytes for free(3).  NULL: out of memory.  now: ns, of a clock that does not go back.
 */
char *metadata_answer(struct metadata *, const char *request, size_t request_len, bool too_long,
		      u64 now, size_t *len);
