/* vlan.c: lists of VLANs (IEEE 802.1Q identifiers, 1 to 4094). */
#include "devices/net/vlan.h"
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool vlans_have(const struct vlans *v, unsigned id)
{
	return id <= VLAN_MAX && v->bits[id / 64] >> id % 64 & 1;
}

static bool read_id(const char **text, unsigned *id)
{
	char *end;

	/* At most four digits: no more can be right, and none overflow. */
	if (!isdigit((unsigned char)**text) || strspn(*text, "0123456789") > 4)
		return false;
	*id = strtoul(*text, &end, 10);
	*text = end;
	return *id >= VLAN_MIN && *id <= VLAN_MAX;
}

int vlans_parse(const char *text, struct vlans *v, struct err *err)
{
	const char *s = text;
	unsigned from, to;

	*v = (struct vlans){ 0 };
	for (;;) {
		if (!read_id(&s, &from))
			goto bad;
		to = from;
		if (*s == '-') {
			s++;
			v->trunk = true;
			if (!read_id(&s, &to) || to < from)
				goto bad;
		}
		if (!v->nr)
			v->first = from;
		for (unsigned id = from; id <= to; id++) {
			v->nr += !vlans_have(v, id);
			v->bits[id / 64] |= 1ULL << id % 64;
		}
		if (!*s)
			return 0;
		if (*s++ != '+')
			goto bad;
		v->trunk = true;
	}
bad:
	return err_set(err, -EINVAL, "vlan '%s' is not a number from %d to %d, nor several like "
		       "100+200-299", text, VLAN_MIN, VLAN_MAX);
}

bool vlans_cover(const struct vlans *v, const struct vlans *sub)
{
	for (unsigned i = 0; i < ARRAY_SIZE(v->bits); i++)
		if (sub->bits[i] & ~v->bits[i])
			return false;
	return true;
}

unsigned vlans_run(const struct vlans *v, unsigned *id)
{
	unsigned nr = 0;

	while (*id <= VLAN_MAX && !vlans_have(v, *id))
		++*id;
	while (vlans_have(v, *id + nr))
		nr++;
	return nr;
}
