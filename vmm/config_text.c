/* config_text.c: words of a user's: sizes, switches, lists with commas, names that were almost right. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/config_own.h"

/* --- values ------------------------------------------------------------------------------ */

int config_set_text(char **field, const char *value, struct err *err)
{
	char *copy = value ? strdup(value) : NULL;

	if (value && !copy)
		return err_set(err, -ENOMEM, "out of memory");
	free(*field);
	*field = copy;
	return 0;
}

int config_set_texts(const struct config_text *text, unsigned nr, struct err *err)
{
	char *old[CONFIG_TEXTS];

	BUG_ON(nr > CONFIG_TEXTS);
	for (unsigned i = 0; i < nr; i++) {
		old[i] = *text[i].field;
		*text[i].field = NULL;
		if (!config_set_text(text[i].field, text[i].value, err))
			continue;
		do {
			free(*text[i].field);
			*text[i].field = old[i];
		} while (i--);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < nr; i++)
		free(old[i]);
	return 0;
}

int config_parse_number(const char *text, unsigned long min, unsigned long max,
			unsigned long *value)
{
	char *end;

	errno = 0;
	*value = strtoul(text, &end, 10);
	return !isdigit((unsigned char)*text) || *end || errno || *value < min || *value > max ?
		-EINVAL : 0;
}

int config_parse_switch(const char *text, bool *value)
{
	static const char *const yes[] = { "true", "on", "yes", "1" };
	static const char *const no[] = { "false", "off", "no", "0" };

	for (unsigned i = 0; i < ARRAY_SIZE(yes); i++) {
		*value = !strcmp(text, yes[i]);
		if (*value || !strcmp(text, no[i]))
			return 0;
	}
	return -EINVAL;
}

int config_parse_size(const char *text, u64 unit, u64 *size, struct err *err)
{
	static const char suffix[] = "KMGT";
	unsigned long long n;
	const char *s;
	char *end;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (!isdigit((unsigned char)*text) || errno)
		goto bad;
	if (*end) {
		s = strchr(suffix, toupper((unsigned char)*end));
		if (!s)
			goto bad;
		unit = KIB << 10 * (s - suffix);
		end++;
		if (*end == 'i')
			end++;
		if (toupper((unsigned char)*end) == 'B')
			end++;
	}
	if (!*end && n && !mul_overflows(n, unit, size))
		return 0;
bad:
	return err_set(err, -EINVAL, "'%s' is not a size, or too large; write a number from 1, and K, M, G or T "
		       "if it is meant, like 512M", text);
}

/* --- key=value lists -------------------------------------------------------------------------- */

/* Cut the next piece off a list with commas (",," is one in a value), in place. */
char *config_next_piece(char **list)
{
	char *piece = *list, *to = piece, *from = piece;

	if (!piece)
		return NULL;
	while (*from && (*from != ',' || from[1] == ',')) {
		if (*from == ',')
			from++;
		*to++ = *from++;
	}
	*list = *from ? from + 1 : NULL;
	*to = 0;
	return piece;
}

/* "key=value", or "key" for a switch: the value, or "true". */
const char *config_split_pair(char *piece)
{
	char *eq = strchr(piece, '=');

	if (!eq)
		return "true";
	*eq = 0;
	return eq + 1;
}

int config_unknown_key(const char *what, const char *key, const char *const *known, unsigned nr,
		       struct err *err)
{
	const char *near = config_nearest(key, known, nr);
	char list[256] = "";

	for (unsigned i = 0; i < nr && !near; i++)
		snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", i ? ", " : "",
			 known[i]);
	if (near)
		return err_set(err, -EINVAL, "%s: unknown option '%s'; did you mean '%s'?", what, key,
			       near);
	return err_set(err, -EINVAL, "%s: unknown option '%s'; known: %s", what, key, list);
}


/* --- names ------------------------------------------------------------------------------------------ */

/* Edit distance, where two neighbours that changed places count as one. */
static unsigned distance(const char *a, const char *b)
{
	enum { LONGEST = 32 };
	unsigned d[LONGEST + 1][LONGEST + 1], la = strlen(a), lb = strlen(b);

	if (la > LONGEST || lb > LONGEST)
		return ~0U;
	for (unsigned i = 0; i <= la; i++)
		for (unsigned j = 0; j <= lb; j++) {
			d[i][j] = MAX(i, j);
			if (!i || !j)
				continue;
			d[i][j] = MIN(d[i - 1][j - 1] + (a[i - 1] != b[j - 1]),
				      MIN(d[i - 1][j], d[i][j - 1]) + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				d[i][j] = MIN(d[i][j], d[i - 2][j - 2] + 1);
		}
	return d[la][lb];
}

const char *config_nearest(const char *name, const char *const *names, unsigned nr)
{
	unsigned best = MAX(strlen(name) / 3, 1U) + 1;
	const char *near = NULL;

	for (unsigned i = 0; i < nr; i++) {
		unsigned d = distance(name, names[i]);

		if (strlen(name) >= 3 && !strncmp(name, names[i], strlen(name)))
			d = MIN(d, 1U);		/* the beginning of it... */
		if (strlen(names[i]) >= 3 && !strncmp(name, names[i], strlen(names[i])))
			d = MIN(d, 1U);		/* ...or more than all of it */
		if (d < best) {
			best = d;
			near = names[i];
		}
	}
	return near;
}
