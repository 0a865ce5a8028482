/* vlan.h: which VLANs a card is in. */
#pragma once
#include "vmm/core/base.h"
#include "vmm/core/err.h"

enum { VLAN_MIN = 1, VLAN_MAX = 4094 };

/* Zeroed: none were named, which is whatever the bridge gives a new port. */
struct vlans {
	u64 bits[(VLAN_MAX + 64) / 64];
	unsigned nr;
	u16 first;
	bool trunk;		/* frames have tags; else the card is in one VLAN, and sees none */
};

/* "100": an access port; "100+200" or "100-199+300": a trunk. */
int  vlans_parse(const char *text, struct vlans *, struct err *) must_check;
bool vlans_have(const struct vlans *, unsigned id);
/* All of sub are in v. */
bool vlans_cover(const struct vlans *v, const struct vlans *sub);
/* The next run of neighbours from *id on: their number, and *id the first; 0: no more. */
unsigned vlans_run(const struct vlans *, unsigned *id);
