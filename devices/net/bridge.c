/* bridge.c: makes a tap and puts it on a bridge. */
#include "devices/net/bridge.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int find_bridge(struct netlink *nl, const char *name, const struct vlans *vlans,
		       struct link *bridge, struct err *err)
{
	int rc = link_find(nl, 0, name, bridge);

	if (rc == -ENODEV)
		return err_set(err, rc, "there is no such interface; 'ip link add %s type bridge' makes "
			       "it, 'vmm net list' shows vmm's", name);
	if (rc)
		return err_set(err, rc, "%s", strerror(-rc));
	/* Users are let in by the first name: no deny would be met by an alternative one. */
	if (strcmp(bridge->name, name))
		return err_set(err, -EINVAL, "this is another name of %s; write bridge=%s", bridge->name,
			       bridge->name);
	if (!bridge->is_bridge)
		return err_set(err, -EINVAL, "this interface is not a bridge; 'ip link show type bridge' "
			       "lists them");
	if (vlans->nr && !bridge->vlan_filtering)
		return err_set(err, -EINVAL, "it does not keep VLANs apart; turn that on with 'ip link set "
			       "%s type bridge vlan_filtering 1'", name);
	return 0;
}

int tun_open(struct err *err)
{
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	const char *cure = "";

	if (fd >= 0)
		return fd;
	switch (errno) {
	case EACCES:
		cure = "; be root or in its group (under --uid: by --gid)";
		break;
	case ENOENT: case ENODEV: case ENXIO:
		cure = "; load the module with 'modprobe tun'";
	}
	return err_set(err, -errno, "/dev/net/tun: %s%s", strerror(errno), cure);
}

static int make_tap(int owner, bool multi_queue, struct link *tap, struct err *err)
{
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL };
	int rc, fd = tun_open(err);

	if (fd < 0)
		return fd;
	if (multi_queue)
		ifr.ifr_flags |= IFF_MULTI_QUEUE;
	/* The kernel puts the first free number for %d. */
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "vmm%d-%%d", owner);
	if (ioctl(fd, TUNSETIFF, &ifr) || ioctl(fd, TUNSETOWNER, getuid())) {
		rc = err_set(err, -errno, "a tap cannot be made: %s", strerror(errno));
		close(fd);
		return rc;
	}
	snprintf(tap->name, sizeof(tap->name), "%.*s", IFNAMSIZ - 1, ifr.ifr_name);
	return fd;
}

static int put_on(struct netlink *nl, const struct link *bridge, const struct link *tap,
		  const struct vlans *vlans)
{
	struct link_change join = { .mtu = bridge->mtu, .master = bridge->index };
	struct link_change up = { .up = true };
	u8 mac[6];
	int rc;

	/* A bridge without an address of its own takes its ports' lowest: not this. */
	memcpy(mac, tap->mac, sizeof(mac));
	mac[0] = 0xfe;
	join.mac = mac;
	link_no_address(nl, tap->index);
	rc = link_change(nl, tap->index, &join);
	if (!rc && vlans->nr)
		rc = link_join_vlans(nl, tap->index, vlans, bridge->default_pvid);
	return rc ? rc : link_change(nl, tap->index, &up);
}

int bridge_new_tap(const char *bridge_name, const struct vlans *vlans, int owner,
		   bool multi_queue, char name[IFNAMSIZ], struct err *err)
{
	struct netlink *nl;
	struct link bridge, tap;
	int fd, rc = netlink_open(&nl, err);

	if (rc)
		return rc;
	rc = find_bridge(nl, bridge_name, vlans, &bridge, err);
	fd = rc ? rc : make_tap(owner, multi_queue, &tap, err);
	if (fd >= 0) {
		rc = link_find(nl, 0, tap.name, &tap);
		if (!rc)
			rc = put_on(nl, &bridge, &tap, vlans);
		if (rc) {
			err_set(err, rc, "the tap %s cannot join it: %s", tap.name, strerror(-rc));
			close(fd);
			fd = rc;
		} else {
			memcpy(name, tap.name, IFNAMSIZ);
		}
	}
	netlink_close(nl);
	return fd;
}
