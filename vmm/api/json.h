/* json.h: JSON objects into structs and back, by tables. */
#pragma once
#include <jansson.h>
#include "vmm/core/err.h"

enum field_kind {			/* and the member it goes to */
	FIELD_BOOL,			/* bool */
	FIELD_NUMBER,			/* u64, from min to max; max 0: any */
	FIELD_TEXT,			/* const char *, the JSON's own */
	FIELD_WORD,			/* unsigned: which of words */
	FIELD_OBJECT,			/* a struct that begins with a bool: it was given */
	FIELD_OBJECTS,			/* const json_t *: a list of such objects */
	FIELD_TEXTS,			/* const json_t *: a list of text */
	FIELD_TEXT_MAP,			/* const json_t *: an object whose values are text */
	FIELD_ANY,			/* const json_t * */
};

struct field {
	const char *name;
	enum field_kind kind;
	bool required;
	bool nullable;			/* null is the same as leaving it out */
	bool deprecated;		/* unless it is false */
	bool any_case;			/* of words */
	bool only_checked;		/* the struct has no member for it */
	u64 min, max;
	const char *const *words;	/* ends with NULL */
	const struct schema *object;
	size_t offset;
};

/* What an object may have.  No fields: anything. */
struct schema {
	const char *name;
	const struct field *fields;
	unsigned nr;
};

struct seen {
	unsigned given;			/* fields that were there, and not null */
	bool deprecated;		/* one of them is */
};

/*
 * Strict: -EINVAL names the field that is unknown, missing, of a wrong kind or out of
 * range.  What is not given is left as it was; into may be NULL, to check only.  What
 * is text lives as long as the JSON.
 */
int json_read(const struct schema *, const json_t *, void *into, struct seen *,
	      struct err *) must_check;
/*
 * Text that is NULL, and objects that are not given, are left out, or null where that is
 * allowed; there a number that is 0 is null too.  NULL: out of memory.
 */
json_t *json_write(const struct schema *, const void *from);

/*
 * Jansson does not say of every call that memory was short: an answer would lack a part of it.
 * begin, on the control thread: from here on it is remembered of the thread's own.
 */
void json_begin(void);
bool json_starved(void);
/* On the control thread.  NULL: it is no JSON, or memory was short. */
json_t *json_parse(const char *text, size_t len, json_error_t *why);
/* Jansson's flag for numbers as people write them, 0.1 and not 0.10000000000000001, where they
 * are read as the same. */
size_t json_precision(const json_t *);
/* For the caller to free; NULL: memory was short, since begin. */
char *json_text(const json_t *);

/* A file that a user wrote: NULL: it cannot be read, or is no JSON, or has a key twice. */
json_t *json_read_file(const char *path, struct err *);
