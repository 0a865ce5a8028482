/* virtio_net_control_test.c: virtio-net's control queue, filters, link, pairs of queues, dump. */
#include <errno.h>
#include <fcntl.h>
#include "tests/lib/test.h"
#include "tests/lib/vnet.h"
#include "vmm/core/state.h"

enum { CONTROL = 2 * VNET_PAIRS };

enum { COMMAND = 0x600000, ANSWER = 0x6f0000 };

/* A command; its answer, 0xee if there was none. */
static u8 command_cut(struct vnet *f, int queue, const void *data, u32 len, u32 cut)
{
	struct ring *r = &f->d.ring[queue];
	u16 used = ring_used_idx(r);
	struct piece p[3] = { { COMMAND, MIN(cut, len), false } };
	int nr = 1;
	u8 answer = 0xee;

	if (len)
		assert_int_equal(mem_write(f->fake.p.mem, GPA(COMMAND), data, len), 0);
	assert_int_equal(mem_write_obj(f->fake.p.mem, GPA(ANSWER), &answer), 0);
	if (len > cut)
		p[nr++] = (struct piece){ COMMAND + cut, len - cut, false };
	p[nr++] = (struct piece){ ANSWER, 1, true };
	ring_add(r, p, nr);
	driver_kick(&f->d, queue);
	if (ring_used_idx(r) == used)
		return 0xee;
	assert_int_equal(ring_used(r, used).len, 1);
	assert_int_equal(mem_read_obj(f->fake.p.mem, GPA(ANSWER), &answer), 0);
	return answer;
}

static u8 command(struct vnet *f, u8 class, u8 cmd, const void *data, u32 len)
{
	u8 all[65600] = { class, cmd };

	if (len)
		memcpy(all + 2, data, len);
	return command_cut(f, virtio_has(f->v, VIRTIO_NET_F_MQ) ? CONTROL : 2, all, len + 2, 2);
}

static void assert_mode(struct vnet *f, u8 cmd, u8 on)
{
	assert_int_equal(command(f, VIRTIO_NET_CTRL_RX, cmd, &on, 1), VIRTIO_NET_OK);
}

static const u64 control_features = F(VIRTIO_NET_F_CTRL_VQ) | F(VIRTIO_NET_F_CTRL_RX) |
	F(VIRTIO_NET_F_CTRL_RX_EXTRA) | F(VIRTIO_NET_F_CTRL_VLAN) | F(VIRTIO_NET_F_CTRL_MAC_ADDR) |
	F(VIRTIO_NET_F_GUEST_ANNOUNCE) | F(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) | F(VIRTIO_NET_F_STATUS);

static void start_with_control(struct vnet *f, u64 features)
{
	driver_start(&f->d, control_features | features, 3, 64);
	for (int i = 0; i < 60; i++)
		vnet_offer(f, DATA + 0x1000 * i, 2048);
	driver_kick(&f->d, RX);
}

/* Does a frame to that address, with that tag if any, reach the driver? */
static bool passes(struct vnet *f, const char *to, int vlan)
{
	u16 used = ring_used_idx(&f->d.ring[RX]);
	struct vnet_wire *w = f->wire;
	unsigned b[6];

	assert_int_equal(sscanf(to, "%x:%x:%x:%x:%x:%x", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5]), 6);
	vnet_bring(w, 100, 1);
	for (int i = 0; i < 6; i++)
		w->in[NET_HDR_LEN + i] = b[i];
	w->in[NET_HDR_LEN + 12] = vlan < 0 ? 0x08 : 0x81;
	w->in[NET_HDR_LEN + 13] = 0;
	w->in[NET_HDR_LEN + 14] = 0x20 | vlan >> 8;	/* with a priority */
	w->in[NET_HDR_LEN + 15] = vlan;
	w->net.readable(&w->net);
	assert_int_equal(w->nr_in, 0);
	return ring_used_idx(&f->d.ring[RX]) != used;
}

#define OWN	"02:00:00:01:02:03"
#define OTHER	"02:00:00:01:02:04"
#define ALL	"ff:ff:ff:ff:ff:ff"
#define GROUP	"33:33:00:00:00:01"
#define GROUP2	"01:00:5e:00:00:fb"

static void test_filter_modes(void **state)
{
	struct vnet *f = *state;

	start_with_control(f, 0);
	assert_true(passes(f, OTHER, -1) && passes(f, GROUP, 7) && passes(f, ALL, -1));
	assert_mode(f, VIRTIO_NET_CTRL_RX_PROMISC, 0);
	assert_true(passes(f, OWN, -1) && passes(f, ALL, -1));
	assert_false(passes(f, OTHER, -1) || passes(f, GROUP, -1));
	assert_mode(f, VIRTIO_NET_CTRL_RX_ALLMULTI, 1);
	assert_true(passes(f, GROUP, -1));
	assert_false(passes(f, OTHER, -1));
	assert_mode(f, VIRTIO_NET_CTRL_RX_NOMULTI, 1);
	assert_false(passes(f, GROUP, -1));
	assert_mode(f, VIRTIO_NET_CTRL_RX_ALLUNI, 1);
	assert_true(passes(f, OTHER, -1));
	assert_mode(f, VIRTIO_NET_CTRL_RX_NOUNI, 1);
	assert_false(passes(f, OTHER, -1) || passes(f, OWN, -1));
	assert_true(passes(f, ALL, -1));
	assert_mode(f, VIRTIO_NET_CTRL_RX_NOBCAST, 1);
	assert_false(passes(f, ALL, -1));
	assert_mode(f, VIRTIO_NET_CTRL_RX_PROMISC, 1);
	assert_true(passes(f, OTHER, -1) && passes(f, GROUP, -1) && passes(f, ALL, -1));
	/* A quiesce keeps it, a reset forgets. */
	assert_mode(f, VIRTIO_NET_CTRL_RX_PROMISC, 0);
	device_quiesce(f->dev);
	device_resume(f->dev);
	assert_false(passes(f, ALL, -1));
	start_with_control(f, 0);
	assert_true(passes(f, OTHER, -1));
}

/* uni and multi entries from :0: on, and what is said of how many there are. */
static u8 set_table(struct vnet *f, u32 nr_uni, u32 nr_multi, u32 say_uni, u32 say_multi)
{
	u8 t[8 + 6 * 300] = { say_uni & 0xff, say_uni >> 8, say_uni >> 16, say_uni >> 24 }, *at = t + 4;

	for (u32 i = 0; i < nr_uni; i++, at += 6)
		memcpy(at, (u8[]){ 2, 0, 0, 2, i >> 8, i }, 6);
	memcpy(at, (u8[]){ say_multi & 0xff, say_multi >> 8, say_multi >> 16, say_multi >> 24 }, 4);
	at += 4;
	for (u32 i = 0; i < nr_multi; i++, at += 6)
		memcpy(at, (u8[]){ 0x33, 0x33, 0, 2, i >> 8, i }, 6);
	return command(f, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, t, at - t);
}

static void test_filter_table(void **state)
{
	struct vnet *f = *state;

	start_with_control(f, 0);
	assert_mode(f, VIRTIO_NET_CTRL_RX_PROMISC, 0);
	assert_int_equal(set_table(f, 3, 2, 3, 2), VIRTIO_NET_OK);
	assert_true(passes(f, "02:00:00:02:00:02", -1) && passes(f, "33:33:00:02:00:01", -1));
	assert_true(passes(f, OWN, -1));
	assert_false(passes(f, "02:00:00:02:00:03", -1) || passes(f, "33:33:00:02:00:02", -1));
	/* The whole table goes, or nothing of it. */
	assert_int_equal(set_table(f, 1, 1, 2, 1), VIRTIO_NET_ERR);
	assert_int_equal(set_table(f, 1, 1, 1, 2), VIRTIO_NET_ERR);
	assert_int_equal(set_table(f, 1, 1, 1, 0), VIRTIO_NET_ERR);
	assert_int_equal(set_table(f, 1, 1, 0xffffffff, 1), VIRTIO_NET_ERR);
	assert_int_equal(set_table(f, 1, 1, 1, 0x80000000), VIRTIO_NET_ERR);
	assert_true(passes(f, "02:00:00:02:00:02", -1));
	/* More than there is room for: all of that kind, as 5.1.6.5.2 has it. */
	assert_int_equal(set_table(f, 3, 200, 3, 200), VIRTIO_NET_OK);
	assert_true(passes(f, GROUP2, -1));
	assert_false(passes(f, OTHER, -1));
	assert_int_equal(set_table(f, 65, 0, 65, 0), VIRTIO_NET_OK);
	assert_true(passes(f, OTHER, -1));
	assert_false(passes(f, GROUP2, -1));
	assert_int_equal(set_table(f, 0, 0, 0, 0), VIRTIO_NET_OK);
	assert_false(passes(f, OTHER, -1) || passes(f, "02:00:00:02:00:02", -1));
}

static void test_filter_own_address(void **state)
{
	struct vnet *f = *state;
	u8 other[7] = { 2, 0, 0, 1, 2, 4 }, group[6] = { 3, 0, 0, 0, 0, 0 };

	start_with_control(f, 0);
	assert_mode(f, VIRTIO_NET_CTRL_RX_PROMISC, 0);
	assert_int_equal(command(f, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, other, 6),
			 VIRTIO_NET_OK);
	assert_true(passes(f, OTHER, -1));
	assert_false(passes(f, OWN, -1));
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_CONFIG), 0x01000002);
	assert_int_equal(bus_read(&f->fake.mmio, DRIVER_BASE + VIRTIO_MMIO_CONFIG + 4, 2), 0x0402);
	assert_int_equal(command(f, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, group, 6),
			 VIRTIO_NET_ERR);
	assert_int_equal(command(f, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, other, 5),
			 VIRTIO_NET_ERR);
	assert_int_equal(command(f, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, other, 7),
			 VIRTIO_NET_ERR);
	assert_true(passes(f, OTHER, -1));
	driver_set(&f->d, VIRTIO_MMIO_STATUS, 0);
	assert_int_equal(bus_read(&f->fake.mmio, DRIVER_BASE + VIRTIO_MMIO_CONFIG + 4, 2), 0x0302);
}

static u8 set_vlan(struct vnet *f, u8 cmd, u16 id)
{
	return command(f, VIRTIO_NET_CTRL_VLAN, cmd, &id, 2);
}

static void test_filter_vlan(void **state)
{
	struct vnet *f = *state;

	start_with_control(f, 0);
	assert_mode(f, VIRTIO_NET_CTRL_RX_PROMISC, 0);
	assert_true(passes(f, OWN, -1));
	assert_false(passes(f, OWN, 0) || passes(f, OWN, 100) || passes(f, ALL, 100));
	assert_int_equal(set_vlan(f, VIRTIO_NET_CTRL_VLAN_ADD, 100), VIRTIO_NET_OK);
	assert_int_equal(set_vlan(f, VIRTIO_NET_CTRL_VLAN_ADD, 4095), VIRTIO_NET_OK);
	assert_int_equal(set_vlan(f, VIRTIO_NET_CTRL_VLAN_ADD, 4096), VIRTIO_NET_ERR);
	assert_true(passes(f, OWN, 100) && passes(f, OWN, 4095) && passes(f, ALL, 100));
	assert_false(passes(f, OWN, 101) || passes(f, OTHER, 100));
	assert_int_equal(set_vlan(f, VIRTIO_NET_CTRL_VLAN_DEL, 100), VIRTIO_NET_OK);
	assert_int_equal(set_vlan(f, VIRTIO_NET_CTRL_VLAN_DEL, 0xffff), VIRTIO_NET_ERR);
	assert_false(passes(f, OWN, 100));
	assert_true(passes(f, OWN, 4095));
	/* Who did not ask for a filter has none. */
	driver_start(&f->d, F(VIRTIO_NET_F_CTRL_VQ) | F(VIRTIO_NET_F_CTRL_RX), 3, 64);
	for (int i = 0; i < 60; i++)
		vnet_offer(f, DATA + 0x1000 * i, 2048);
	assert_mode(f, VIRTIO_NET_CTRL_RX_PROMISC, 0);
	assert_true(passes(f, OWN, 100));
	assert_int_equal(set_vlan(f, VIRTIO_NET_CTRL_VLAN_ADD, 100), VIRTIO_NET_ERR);
}

static void test_control_abuse(void **state)
{
	struct vnet *f = *state;
	struct piece no_answer = { COMMAND, 3, false }, only_answer = { ANSWER, 1, true };
	struct piece backwards[] = { { ANSWER, 1, true }, { COMMAND, 3, false } };
	struct piece outside[] = { { 64 * MIB, 3, false }, { ANSWER, 1, true } };
	static u8 zeroes[65540], data[8];
	u64 one = 1;

	start_with_control(f, 0);
	/* Any class, any command, no data, too much of it, and more than any has. */
	for (int class = 0; class < 256; class++)
		for (int cmd = 0; cmd < 256; cmd += class < 8 ? 1 : 37) {
			assert_in_range(command(f, class, cmd, data, 0), 0, 1);
			assert_int_equal(command(f, class, cmd, zeroes, class < 8 ? 999 : 40), 1);
		}
	assert_int_equal(command(f, VIRTIO_NET_CTRL_MAC, 0, zeroes, sizeof(zeroes)), VIRTIO_NET_ERR);
	/* A table of addresses may have more than there is room for, but not any number of them. */
	zeroes[0] = 10000 & 0xff;
	zeroes[1] = 10000 >> 8;
	assert_int_equal(command(f, VIRTIO_NET_CTRL_MAC, 0, zeroes, 8 + 10000 * 6), VIRTIO_NET_OK);
	zeroes[0] = 10921 & 0xff;
	zeroes[1] = 10921 >> 8;
	assert_int_equal(command(f, VIRTIO_NET_CTRL_MAC, 0, zeroes, 8 + 10921 * 6), VIRTIO_NET_OK);
	zeroes[0]++;
	assert_int_equal(command(f, VIRTIO_NET_CTRL_MAC, 0, zeroes, 8 + 10922 * 6), VIRTIO_NET_ERR);
	for (u8 cmd = 0; cmd < 8; cmd++)
		assert_int_equal(command(f, VIRTIO_NET_CTRL_RX, cmd, data, 2), VIRTIO_NET_ERR);
	assert_int_equal(command(f, VIRTIO_NET_CTRL_MQ, 0, &one, 2), VIRTIO_NET_ERR);
	assert_int_equal(f->dev->guest_errors, 0);
	/* The header may be cut, also with the data. */
	memcpy(data, (u8[]){ VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 0 }, 3);
	for (u32 at = 1; at <= 3; at++)
		assert_int_equal(command_cut(f, 2, data, 3, at), VIRTIO_NET_OK);
	/* And what is no command at all. */
	assert_int_equal(command_cut(f, 2, data, 1, 1), 0xee);
	assert_true(driver_get(&f->d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
#define REFUSED(p, nr) \
	do { \
		start_with_control(f, 0); \
		ring_add(&f->d.ring[2], p, nr); \
		driver_kick(&f->d, 2); \
		assert_true(driver_get(&f->d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET); \
		assert_int_equal(ring_used_idx(&f->d.ring[2]), 0); \
	} while (0)
	REFUSED(&no_answer, 1);
	REFUSED(&only_answer, 1);
	REFUSED(backwards, 2);
	REFUSED(outside, 2);
	start_with_control(f, 0);
	assert_mode(f, VIRTIO_NET_CTRL_RX_PROMISC, 0);
}

/* Some commands take the host's kernel long: others on the loop have their turn between them. */
static void test_many_commands(void **state)
{
	struct vnet *f = *state;
	const u8 data[] = { VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 1 };
	const struct piece p[] = { { COMMAND, sizeof(data), false }, { ANSWER, 1, true } };

	start_with_control(f, 0);
	assert_int_equal(mem_write_obj(f->fake.p.mem, GPA(COMMAND), &data), 0);
	for (int i = 0; i < 32; i++)
		ring_add(&f->d.ring[2], p, 2);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_NOTIFY, 2);
	fake_turn(&f->fake);
	assert_in_range(ring_used_idx(&f->d.ring[2]), 1, 8);
	fake_settle(&f->fake);
	assert_int_equal(ring_used_idx(&f->d.ring[2]), 32);
}

static u8 set_offloads(struct vnet *f, u64 on)
{
	return command(f, VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, &on, 8);
}

static void test_offloads(void **state)
{
	struct vnet *f = *state;
	u64 taken = F(VIRTIO_NET_F_GUEST_CSUM) | F(VIRTIO_NET_F_GUEST_TSO4) | F(NET_F_GUEST_USO4);

	assert_int_equal(driver_offered(&f->d) & NET_GUEST_OFFLOADS, NET_GUEST_OFFLOADS);
	start_with_control(f, taken);
	assert_int_equal(f->wire->offload & NET_GUEST_OFFLOADS, taken);
	assert_int_equal(set_offloads(f, F(VIRTIO_NET_F_GUEST_CSUM)), VIRTIO_NET_OK);
	assert_int_equal(f->wire->offload & NET_GUEST_OFFLOADS, F(VIRTIO_NET_F_GUEST_CSUM));
	device_quiesce(f->dev);
	device_resume(f->dev);
	assert_int_equal(f->wire->offload & NET_GUEST_OFFLOADS, F(VIRTIO_NET_F_GUEST_CSUM));
	assert_int_equal(set_offloads(f, taken | F(VIRTIO_NET_F_GUEST_TSO6)), VIRTIO_NET_ERR);
	assert_int_equal(set_offloads(f, taken | 1), VIRTIO_NET_ERR);
	assert_int_equal(set_offloads(f, taken), VIRTIO_NET_OK);
	assert_int_equal(f->wire->offload & NET_GUEST_OFFLOADS, taken);
	assert_int_equal(set_offloads(f, 0), VIRTIO_NET_OK);
	start_with_control(f, taken);
	assert_int_equal(f->wire->offload & NET_GUEST_OFFLOADS, taken);
}

/* Every set of them reaches the far end as it is. */
static void test_offload_combinations(void **state)
{
	static const u8 bit[] = { VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4,
		VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_UFO,
		NET_F_GUEST_USO4, NET_F_GUEST_USO6, VIRTIO_NET_F_MRG_RXBUF };
	struct vnet *f = *state;

	for (unsigned set = 0; set < 1 << ARRAY_SIZE(bit); set++) {
		u64 taken = 0;

		for (unsigned i = 0; i < ARRAY_SIZE(bit); i++)
			if (set >> i & 1)
				taken |= F(bit[i]);
		start_with_control(f, taken);
		assert_int_equal(f->wire->offload & (NET_GUEST_OFFLOADS | MRG), taken);
		vnet_arrive(f, 1400);
		assert_int_equal(ring_used_idx(&f->d.ring[RX]), 1);
		assert_int_equal(vnet_num_buffers(f, DATA), 1);
	}
}

static u16 status(struct vnet *f)
{
	return bus_read(&f->fake.mmio, DRIVER_BASE + VIRTIO_MMIO_CONFIG + 6, 2);
}

static void test_announce(void **state)
{
	struct vnet *f = *state;
	u32 generation;
	int irqs;

	start_with_control(f, 0);
	irqs = driver_irqs(&f->d);
	generation = driver_get(&f->d, VIRTIO_MMIO_CONFIG_GENERATION);
	virtio_net_announce(f->v);
	assert_int_equal(status(f), VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
	assert_int_equal(driver_irqs(&f->d), irqs + 1);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_CONFIG,
			 VIRTIO_MMIO_INT_CONFIG);
	assert_int_not_equal(driver_get(&f->d, VIRTIO_MMIO_CONFIG_GENERATION), generation);
	assert_int_equal(command(f, VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, NULL, 0),
			 VIRTIO_NET_OK);
	assert_int_equal(status(f), VIRTIO_NET_S_LINK_UP);
	/* Who cannot is not asked to. */
	driver_start(&f->d, F(VIRTIO_NET_F_CTRL_VQ), 3, 64);
	virtio_net_announce(f->v);
	assert_int_equal(status(f), VIRTIO_NET_S_LINK_UP);
	assert_int_equal(command(f, VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, NULL, 0),
			 VIRTIO_NET_ERR);
}

/* --- the link ------------------------------------------------------------------------------- */

static void let_go(struct vnet *f)
{
	device_destroy(f->dev);
	fake_fini(&f->fake);
	free(f);
}

static void set_link(struct vnet *f, bool up)
{
	device_quiesce(f->dev);
	assert_int_equal(virtio_net_set_link(f->v, up), 0);
	device_resume(f->dev);
}

static void test_link(void **state)
{
	struct vnet *f = *state;
	struct piece p = { DATA, 72, false };
	int irqs;

	start_with_control(f, 0);
	irqs = driver_irqs(&f->d);
	set_link(f, false);
	assert_int_equal(status(f), 0);
	assert_int_equal(driver_irqs(&f->d), irqs + 1);
	assert_false(f->wire->link);
	/* Frames are lost, both ways, and neither side's queue fills up. */
	vnet_arrive(f, 100);
	assert_int_equal(f->wire->nr_in, 0);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 0);
	ring_add(&f->d.ring[TX], &p, 1);
	driver_kick(&f->d, TX);
	assert_int_equal(ring_used_idx(&f->d.ring[TX]), 1);
	assert_int_equal(f->wire->nr_sent, 0);
	set_link(f, true);
	set_link(f, true);
	assert_int_equal(status(f), VIRTIO_NET_S_LINK_UP);
	assert_true(f->wire->link);
	vnet_arrive(f, 100);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 1);
	ring_add(&f->d.ring[TX], &p, 1);
	driver_kick(&f->d, TX);
	assert_int_equal(f->wire->nr_sent, 1);
}

/* Pulled before the guest is there, as over a reboot. */
static void test_link_from_the_start(void **state)
{
	struct vnet *f = calloc(1, sizeof(*f));

	(void)state;
	fake_init(&f->fake, 8 * MIB, -1);
	vnet_plug(f, (struct virtio_net_options){ .unplugged = true }, 1);
	assert_false(f->wire->link);
	start_with_control(f, 0);
	assert_int_equal(status(f), 0);
	set_link(f, true);
	assert_int_equal(status(f), VIRTIO_NET_S_LINK_UP);
	assert_true(f->wire->link && passes(f, OWN, -1));
	let_go(f);
}

static void test_link_lost(void **state)
{
	struct vnet *f = *state;

	start_with_control(f, 0);
	f->wire->net.lost(&f->wire->net);
	assert_int_equal(status(f), 0);
	assert_true(driver_get(&f->d, VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_CONFIG);
	device_quiesce(f->dev);
	assert_int_equal(virtio_net_set_link(f->v, true), -ENODEV);
	device_resume(f->dev);
	assert_int_equal(status(f), 0);
}

/* A tap that was deleted while nobody used it takes no offloads, and says that it is lost once it
 * is started. */
static void test_link_lost_before(void **state)
{
	static const int why[] = { -EBADFD, -EINVAL };
	struct vnet *f = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(why); i++) {
		bool starts = why[i] == -EBADFD;
		int before = f->wire->nr_starts;

		f->wire->offload_result = why[i];
		start_with_control(f, 0);
		assert_int_equal(f->wire->nr_starts, before + starts);
		assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET,
				 starts ? 0 : VIRTIO_CONFIG_S_NEEDS_RESET);
		driver_set(&f->d, VIRTIO_MMIO_STATUS, 0);
	}
}

/* --- several pairs -------------------------------------------------------------------------- */

static u8 set_pairs(struct vnet *f, u16 nr)
{
	return command(f, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, &nr, 2);
}

static unsigned attached(struct vnet *f)
{
	unsigned nr = 0;

	while (nr < VNET_PAIRS && f->wire[nr].attached)
		nr++;
	for (unsigned i = nr; i < VNET_PAIRS; i++)
		assert_false(f->wire[i].attached);
	return nr;
}

static void test_pairs(void **state)
{
	struct vnet *f = *state;
	struct piece in = { DATA, 2048, true }, out = { DATA + 0x1000, 72, false };

	assert_int_equal(bus_read(&f->fake.mmio, DRIVER_BASE + VIRTIO_MMIO_CONFIG + 8, 2), VNET_PAIRS);
	driver_start(&f->d, control_features | F(VIRTIO_NET_F_MQ), CONTROL + 1, 64);
	assert_int_equal(attached(f), 1);
	assert_int_equal(set_pairs(f, 3), VIRTIO_NET_OK);
	assert_int_equal(attached(f), 3);
	assert_int_equal(set_pairs(f, 0), VIRTIO_NET_ERR);
	assert_int_equal(set_pairs(f, VNET_PAIRS + 1), VIRTIO_NET_ERR);
	assert_int_equal(attached(f), 3);
	device_quiesce(f->dev);
	device_resume(f->dev);
	assert_int_equal(attached(f), 3);
	for (int i = 0; i < VNET_PAIRS; i++) {
		struct vnet_wire *w = &f->wire[i];

		ring_add(&f->d.ring[2 * i], &in, 1);
		driver_kick(&f->d, 2 * i);
		assert_true(w->want_rx);
		vnet_bring(w, 100, 1);
		w->net.readable(&w->net);
		assert_int_equal(ring_used_idx(&f->d.ring[2 * i]), 1);
		ring_add(&f->d.ring[2 * i + 1], &out, 1);
		driver_kick(&f->d, 2 * i + 1);
		assert_int_equal(w->nr_sent, 1);
	}
	driver_set(&f->d, VIRTIO_MMIO_STATUS, 0);
	for (int i = 0; i < VNET_PAIRS; i++)
		assert_int_equal(f->wire[i].nr_stops, f->wire[i].nr_starts);
	driver_start(&f->d, control_features | F(VIRTIO_NET_F_MQ), CONTROL + 1, 64);
	assert_int_equal(attached(f), 1);
}

/* Without MQ the third queue is the control queue, whatever else there is. */
static void test_pairs_not_taken(void **state)
{
	struct vnet *f = *state;
	struct piece p = { DATA, 72, false };

	start_with_control(f, 0);
	assert_int_equal(attached(f), 1);
	assert_mode(f, VIRTIO_NET_CTRL_RX_PROMISC, 0);
	assert_int_equal(set_pairs(f, 1), VIRTIO_NET_ERR);
	assert_int_equal(f->wire[1].nr_starts, 0);
	driver_start(&f->d, control_features, CONTROL + 1, 64);
	for (int i = 3; i <= CONTROL; i++) {
		ring_add(&f->d.ring[i], &p, 1);
		driver_kick(&f->d, i);
		assert_int_equal(ring_used_idx(&f->d.ring[i]), 0);
	}
}

/* --- by hashes -------------------------------------------------------------------------------- */

/* What a command says, and how much of it there is. */
struct rss {
	u32 hash_types;
	u16 mask, unclassified;
	u16 table[300];
	unsigned table_len;		/* that is there */
	u16 nr_tx;
	u8 key_len;			/* that is said */
	unsigned key_there;
	unsigned more;			/* bytes at the end */
};

static const struct rss good = {
	.hash_types = NET_HASH_TYPES, .mask = 3, .unclassified = 1, .table = { 2, 0, 1, 2 }, .table_len = 4,
	.nr_tx = 2, .key_len = 40, .key_there = 40,
};

/* Its first part is a piece of its own. */
static u8 set_rss(struct vnet *f, const struct rss *r)
{
	u8 c[2 + 8 + 600 + 3 + 300 + 100] = { VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_RSS_CONFIG }, *at = c + 2;
	int queue = virtio_has(f->v, VIRTIO_NET_F_MQ) || virtio_has(f->v, VIRTIO_NET_F_RSS) ? CONTROL : 2;

	memcpy(at, &r->hash_types, 4);
	memcpy(at + 4, &r->mask, 2);
	memcpy(at + 6, &r->unclassified, 2);
	memcpy(at += 8, r->table, 2UL * r->table_len);
	memcpy(at += 2UL * r->table_len, &r->nr_tx, 2);
	at[2] = r->key_len;
	at += 3;
	for (unsigned i = 0; i < r->key_there; i++)
		*at++ = 7 * i + 1;
	return command_cut(f, queue, c, at + r->more - c, 10);
}

static void start_with_rss(struct vnet *f, u64 features)
{
	driver_start(&f->d, control_features | features, CONTROL + 1, 64);
}

static void assert_steered(struct vnet *f, const struct rss *r, unsigned nr_active)
{
	const struct net_rss *is = &f->wire->rss;

	assert_true(f->wire->by_hash);
	assert_int_equal(attached(f), nr_active);
	assert_int_equal(is->hash_types, r->hash_types);
	assert_int_equal(is->mask, r->mask);
	assert_int_equal(is->unclassified, r->unclassified);
	for (unsigned i = 0; i <= r->mask; i++)
		assert_int_equal(is->table[i], r->table[i]);
	for (unsigned i = 0; i < NET_RSS_KEY_LEN; i++)
		assert_int_equal(is->key[i], i < r->key_len ? (u8)(7 * i + 1) : 0);
}

static void test_rss(void **state)
{
	u64 config = DRIVER_BASE + VIRTIO_MMIO_CONFIG;
	struct vnet *f = *state;
	struct rss r = good;

	assert_true(driver_offered(&f->d) >> VIRTIO_NET_F_RSS & 1);
	assert_int_equal(bus_read(&f->fake.mmio, config + 17, 1), 40);
	assert_int_equal(bus_read(&f->fake.mmio, config + 18, 2), 128);
	assert_int_equal(bus_read(&f->fake.mmio, config + 20, 4), 0x3f);
	start_with_rss(f, F(VIRTIO_NET_F_MQ) | F(VIRTIO_NET_F_RSS));
	assert_false(f->wire->by_hash);
	assert_int_equal(set_rss(f, &r), VIRTIO_NET_OK);
	assert_steered(f, &r, 3);
	/* What comes after it is Linux's, which says nothing. */
	r.more = 1;
	assert_int_equal(set_rss(f, &r), VIRTIO_NET_OK);
	assert_steered(f, &r, 3);
	r.more = 0;
	/* As many as anything names: the table, what is not hashed, what is sent by. */
	r.unclassified = 3;
	assert_int_equal(set_rss(f, &r), VIRTIO_NET_OK);
	assert_steered(f, &r, 4);
	r = (struct rss){ .table_len = 1, .nr_tx = 2 };
	assert_int_equal(set_rss(f, &r), VIRTIO_NET_OK);
	assert_steered(f, &r, 2);
	r.nr_tx = 1;
	r.key_len = r.key_there = 7;
	assert_int_equal(set_rss(f, &r), VIRTIO_NET_OK);
	assert_steered(f, &r, 1);
	r = good;
	r.mask = 127;
	r.table_len = 128;
	assert_int_equal(set_rss(f, &r), VIRTIO_NET_OK);
	assert_steered(f, &r, 3);
	device_quiesce(f->dev);
	device_resume(f->dev);
	assert_steered(f, &r, 3);
	/* Until it is told how many to take. */
	assert_int_equal(set_pairs(f, 4), VIRTIO_NET_OK);
	assert_false(f->wire->by_hash);
	assert_int_equal(attached(f), 4);
	/* A reset forgets. */
	assert_int_equal(set_rss(f, &good), VIRTIO_NET_OK);
	start_with_rss(f, F(VIRTIO_NET_F_MQ) | F(VIRTIO_NET_F_RSS));
	assert_false(f->wire->by_hash);
	assert_int_equal(attached(f), 1);
}

/* Alone it makes as many queues as VIRTIO_NET_F_MQ (5.1.2), and there is one way to say how many. */
static void test_rss_alone(void **state)
{
	struct vnet *f = *state;
	u16 two = 2;

	start_with_rss(f, F(VIRTIO_NET_F_RSS));
	assert_int_equal(set_rss(f, &good), VIRTIO_NET_OK);
	assert_steered(f, &good, 3);
	for (int i = 0; i < VNET_PAIRS; i++)
		assert_int_equal(f->wire[i].nr_starts, 1);
	assert_int_equal(command_cut(f, CONTROL, (u8[]){ 4, 0, two, 0 }, 4, 2), VIRTIO_NET_ERR);
	assert_steered(f, &good, 3);
	/* And without it there is none. */
	start_with_rss(f, F(VIRTIO_NET_F_MQ));
	assert_int_equal(set_rss(f, &good), VIRTIO_NET_ERR);
	assert_false(f->wire->by_hash);
}

static void test_rss_abuse(void **state)
{
	struct vnet *f = *state;
	u8 cut[70] = { VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_RSS_CONFIG };
	int nr;

	start_with_rss(f, F(VIRTIO_NET_F_MQ) | F(VIRTIO_NET_F_RSS));
	assert_int_equal(set_rss(f, &good), VIRTIO_NET_OK);
	nr = f->wire->nr_rss;
#define BAD(change) \
	do { \
		struct rss r = good; \
		change; \
		assert_int_equal(set_rss(f, &r), VIRTIO_NET_ERR); \
	} while (0)
	/* Types that are not there; a table that is too long, or no power of two, or that ends
	 * sooner than it says; pairs that are not there; keys like tables. */
	BAD(r.hash_types = 0x40);
	BAD(r.hash_types = ~0U);
	BAD(r.mask = 2; r.table_len = 3);
	BAD(r.mask = 255; r.table_len = 256);
	BAD(r.mask = 0xffff; r.table_len = 300);
	BAD(r.mask = 0xff80; r.table_len = 128);
	BAD(r.mask = 127);
	BAD(r.table[3] = VNET_PAIRS);
	BAD(r.table[0] = 0x102);
	BAD(r.unclassified = VNET_PAIRS);
	BAD(r.unclassified = 0x8001);
	BAD(r.nr_tx = 0);
	BAD(r.nr_tx = VNET_PAIRS + 1);
	BAD(r.key_len = r.key_there = 41);
	BAD(r.key_len = r.key_there = 255);
	BAD(r.key_there = 39);
	for (u32 len = 2; len < 10; len++)
		assert_int_equal(command_cut(f, CONTROL, cut, len, 2), VIRTIO_NET_ERR);
	assert_int_equal(f->wire->nr_rss, nr);
	assert_steered(f, &good, 3);
	assert_int_equal(f->dev->guest_errors, 0);
}

/* The host fails: all is as it was. */
static void test_rss_refused(void **state)
{
	struct vnet *f = *state;
	struct rss other = good;

	start_with_rss(f, F(VIRTIO_NET_F_MQ) | F(VIRTIO_NET_F_RSS));
	f->wire->rss_result = -EINVAL;
	assert_int_equal(set_rss(f, &good), VIRTIO_NET_ERR);
	assert_int_equal(attached(f), 1);
	f->wire->rss_result = 0;
	assert_int_equal(set_rss(f, &good), VIRTIO_NET_OK);
	f->wire->rss_result = -EINVAL;
	other.unclassified = 3;
	assert_int_equal(set_rss(f, &other), VIRTIO_NET_ERR);
	assert_int_equal(set_pairs(f, 1), VIRTIO_NET_ERR);
	f->wire->rss_result = 0;
	device_quiesce(f->dev);
	device_resume(f->dev);
	assert_steered(f, &good, 3);
}

/* Each on the loop it was given. */
static void test_pairs_on_loops(void **state)
{
	struct vnet *f = calloc(1, sizeof(*f));
	struct io_thread io[2] = { { 0 } };
	struct piece out = { DATA, 72, false };

	(void)state;
	fake_init(&f->fake, 8 * MIB, -1);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(loop_new(&io[i].loop, NULL), 0);
		assert_int_equal(loop_start_thread(io[i].loop, THREAD_IO, "pair", NULL), 0);
	}
	vnet_plug(f, (struct virtio_net_options){ .io = io, .nr_io = 2 }, VNET_PAIRS);
	for (int round = 0; round < 20; round++) {
		driver_start(&f->d, control_features | F(VIRTIO_NET_F_MQ), CONTROL + 1, 64);
		assert_int_equal(set_pairs(f, VNET_PAIRS), VIRTIO_NET_OK);
		for (int i = 0; i < 20; i++)
			for (int k = 0; k < VNET_PAIRS; k++) {
				ring_add(&f->d.ring[2 * k + 1], &out, 1);
				driver_set(&f->d, VIRTIO_MMIO_QUEUE_NOTIFY, 2 * k + 1);
			}
		device_quiesce(f->dev);
		device_resume(f->dev);
		driver_set(&f->d, VIRTIO_MMIO_STATUS, 0);
	}
	device_destroy(f->dev);
	for (int i = 0; i < VNET_PAIRS; i++) {
		assert_int_equal(f->wire[i].nr_starts, 40);
		assert_int_equal(f->wire[i].nr_stops, 40);
		assert_int_equal(f->wire[i].nr_sent, 20 * 20);
	}
	for (int i = 0; i < 2; i++) {
		loop_stop_thread(io[i].loop);
		loop_free(io[i].loop);
	}
	fake_fini(&f->fake);
	free(f);
}

/* --- saved and loaded ------------------------------------------------------------------------- */

/* As it is now, into one that has just been made; what loading said of it. */
static int copy(struct vnet *f, struct vnet *to)
{
	struct state *s, *l;
	struct err err;
	const void *blob;
	size_t len;
	int rc;

	device_quiesce(f->dev);
	assert_int_equal(state_new_save(&s, &err), 0);
	device_state(f->dev, s);
	assert_int_equal(state_finish_save(s, &blob, &len, &err), 0);
	device_resume(f->dev);
	fake_init(&to->fake, 8 * MIB, -1);
	memcpy(mem_region(to->fake.p.mem, 0).host, mem_region(f->fake.p.mem, 0).host, 8 * MIB);
	vnet_plug(to, (struct virtio_net_options){ 0 }, (f->v->nr_queues - 1) / 2);
	memcpy(to->d.ring, f->d.ring, sizeof(to->d.ring));
	for (unsigned i = 0; i < ARRAY_SIZE(to->d.ring); i++)
		to->d.ring[i].mem = to->fake.p.mem;
	device_quiesce(to->dev);
	assert_int_equal(state_new_load(&l, blob, len, &err), 0);
	device_state(to->dev, l);
	rc = state_finish_load(l, &err);
	state_free(l);
	state_free(s);
	device_resume(to->dev);
	return rc;
}

static void test_copy(void **state)
{
	struct vnet *f = *state, *to = calloc(1, sizeof(*to));
	u64 taken = F(VIRTIO_NET_F_GUEST_CSUM) | F(VIRTIO_NET_F_GUEST_TSO4);
	u8 other[6] = { 2, 0, 0, 1, 2, 4 };

	start_with_control(f, taken);
	assert_mode(f, VIRTIO_NET_CTRL_RX_PROMISC, 0);
	assert_int_equal(set_table(f, 1, 200, 1, 200), VIRTIO_NET_OK);
	assert_int_equal(set_vlan(f, VIRTIO_NET_CTRL_VLAN_ADD, 100), VIRTIO_NET_OK);
	assert_int_equal(command(f, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, other, 6),
			 VIRTIO_NET_OK);
	assert_int_equal(set_offloads(f, F(VIRTIO_NET_F_GUEST_CSUM)), VIRTIO_NET_OK);
	virtio_net_announce(f->v);
	assert_int_equal(copy(f, to), 0);
	assert_int_equal(bus_read(&to->fake.mmio, DRIVER_BASE + VIRTIO_MMIO_CONFIG + 4, 2), 0x0402);
	assert_int_equal(status(to), VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
	assert_true(passes(to, OTHER, 100) && passes(to, GROUP2, -1));
	assert_true(passes(to, "02:00:00:02:00:00", -1));
	assert_false(passes(to, OWN, -1) || passes(to, OTHER, 101));
	assert_int_equal(to->wire->offload & NET_GUEST_OFFLOADS, F(VIRTIO_NET_F_GUEST_CSUM));
	let_go(to);
}

static void test_copy_of_rss(void **state)
{
	struct vnet *f = *state, *to = calloc(1, sizeof(*to));

	start_with_rss(f, F(VIRTIO_NET_F_MQ) | F(VIRTIO_NET_F_RSS));
	assert_int_equal(set_rss(f, &good), VIRTIO_NET_OK);
	assert_int_equal(copy(f, to), 0);
	assert_steered(to, &good, 3);
	let_go(to);
	/* Where there is none it cannot go on, whether it was used or not. */
	for (int i = 0; i < 2; i++) {
		to = calloc(1, sizeof(*to));
		to->no_rss = true;
		assert_int_equal(copy(f, to), -EINVAL);
		assert_int_equal(to->wire->nr_rss, 0);
		let_go(to);
		assert_int_equal(set_pairs(f, 1), VIRTIO_NET_OK);
	}
	/* Who had none needs none, and has none. */
	start_with_rss(f, F(VIRTIO_NET_F_MQ));
	for (int i = 0; i < 2; i++) {
		to = calloc(1, sizeof(*to));
		to->no_rss = i;
		assert_int_equal(copy(f, to), 0);
		assert_false(to->wire->by_hash);
		let_go(to);
	}
}

static void test_copy_of_rss_nonsense(void **state)
{
	struct vnet *f = *state;
	struct virtio_net *n = container_of(f->v, struct virtio_net, v);

	for (int i = 0; i < 6; i++) {
		struct vnet *to = calloc(1, sizeof(*to));

		start_with_rss(f, F(VIRTIO_NET_F_MQ) | (i == 5 ? 0 : F(VIRTIO_NET_F_RSS)));
		if (i < 5)
			assert_int_equal(set_rss(f, &good), VIRTIO_NET_OK);
		n->by_hash = true;
		if (i == 0)
			n->rss.mask = 128;
		else if (i == 1)
			n->rss.mask = 2;
		else if (i == 2)
			n->rss.table[3] = VNET_PAIRS;
		else if (i == 3)
			n->rss.unclassified = VNET_PAIRS;
		else if (i == 4)
			n->rss.hash_types = 0x40;
		assert_int_equal(copy(f, to), -EINVAL);
		assert_false(to->wire->by_hash);
		start_with_rss(to, F(VIRTIO_NET_F_MQ) | F(VIRTIO_NET_F_RSS));
		assert_int_equal(set_rss(to, &good), VIRTIO_NET_OK);
		let_go(to);
	}
}

/* A cable that was out stays out, at the far end as well. */
static void test_copy_without_link(void **state)
{
	struct vnet *f = *state, *to = calloc(1, sizeof(*to));

	start_with_control(f, 0);
	set_link(f, false);
	assert_int_equal(copy(f, to), 0);
	assert_int_equal(status(to), 0);
	assert_false(to->wire->link);
	set_link(to, true);
	assert_true(to->wire->link && passes(to, OWN, -1));
	let_go(to);
}

/* That the far end is gone is not copied to where there is one; that the cable was out is. */
static void test_copy_of_lost(void **state)
{
	struct vnet *f = *state;

	start_with_control(f, 0);
	f->wire->net.lost(&f->wire->net);
	assert_int_equal(status(f), 0);
	for (int pulled = 0; pulled < 2; pulled++) {
		struct vnet *to = calloc(1, sizeof(*to));

		if (pulled)
			set_link(f, false);
		assert_int_equal(copy(f, to), 0);
		assert_int_equal(virtio_net_is_plugged(to->v), !pulled);
		assert_int_equal(status(to), pulled ? 0 : VIRTIO_NET_S_LINK_UP);
		assert_int_equal(passes(to, OWN, -1), !pulled);
		let_go(to);
	}
}

/* What makes no sense is refused, and does no harm. */
static void test_copy_of_nonsense(void **state)
{
	struct vnet *f = *state;
	struct virtio_net *n = container_of(f->v, struct virtio_net, v);

	start_with_control(f, 0);
	for (int i = 0; i < 4; i++) {
		struct vnet *to = calloc(1, sizeof(*to));

		n->filter.nr_macs = i == 0 ? MACS_MAX + 1 : 0;
		n->active = i == 1 ? 2 : i == 2 ? 0 : 1;
		n->config.mac[0] = i == 3 ? 3 : 2;
		assert_int_equal(copy(f, to), -EINVAL);
		start_with_control(to, 0);
		assert_true(passes(to, OTHER, -1));
		let_go(to);
	}
	n->config.mac[0] = 2;
}

/* --- the dump ----------------------------------------------------------------------------------- */

struct record {
	u32 seconds, ns, captured, len;
	u8 data[2048];
};

static void next_record(int fd, struct record *r)
{
	assert_int_equal(read(fd, r, 16), 16);
	assert_int_equal(r->captured, r->len);
	assert_in_range(r->len, 1, sizeof(r->data));
	assert_in_range(r->ns, 0, 999999999);
	assert_int_equal(read(fd, r->data, r->len), r->len);
}

static void test_dump(void **state)
{
	struct vnet *f = *state;
	struct piece p[] = { { DATA, 5, false }, { DATA + 5, 7 + 60, false } };
	struct virtio_net_hdr_v1 hdr = { .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 20,
					 .csum_offset = 6 };
	u32 head[6], sum = 0;
	struct record r;
	int fd;

	start_with_control(f, 0);
	assert_mode(f, VIRTIO_NET_CTRL_RX_PROMISC, 0);
	assert_false(passes(f, OTHER, -1));
	assert_true(passes(f, OWN, -1));
	f->wire->in_len = 73;				/* odd */
	assert_int_equal(mem_fill(f->fake.p.mem, GPA(DATA), 0x77, 200), 0);
	assert_int_equal(mem_write_obj(f->fake.p.mem, GPA(DATA), &hdr), 0);
	ring_add(&f->d.ring[TX], p, 2);
	driver_kick(&f->d, TX);
	f->wire->send_result = -EIO;			/* lost, so not there */
	ring_add(&f->d.ring[TX], p, 2);
	driver_kick(&f->d, TX);
	fd = open(f->path, O_RDONLY);
	assert_int_equal(read(fd, head, sizeof(head)), sizeof(head));
	assert_int_equal(head[0], 0xa1b23c4d);
	assert_int_equal(head[1], 2 | 4 << 16);
	assert_int_equal(head[4], 262144);
	assert_int_equal(head[5], 1);
	next_record(fd, &r);
	assert_int_equal(r.len, 88);
	assert_memory_equal(r.data, f->wire->in + NET_HDR_LEN, 88);
	next_record(fd, &r);
	assert_int_equal(r.len, 60);
	assert_int_equal(r.data[19], 0x77);
	/* With the checksum in it, the sum over all is what it has to be: all ones, less what
	 * stood there before, which the driver had put there to be added. */
	for (int i = 20; i < 60; i += 2)
		sum += i == 26 ? 0x7777 : r.data[i] << 8 | r.data[i + 1];
	sum = (sum & 0xffff) + (sum >> 16);
	assert_int_equal(r.data[26] << 8 | r.data[27], (u16)~((sum & 0xffff) + (sum >> 16)));
	assert_int_equal(read(fd, &r, 1), 0);
	close(fd);
}

/* As the first release had it: what that one saved has to find its like. */
static void test_plain(void **state)
{
	struct vnet *f = calloc(1, sizeof(*f));

	(void)state;
	fake_init(&f->fake, 8 * MIB, -1);
	vnet_plug(f, (struct virtio_net_options){ .plain = true }, 1);
	assert_int_equal(driver_offered(&f->d) & (control_features | F(VIRTIO_NET_F_MQ)),
			 F(VIRTIO_NET_F_STATUS));
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_SEL, 2);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
	driver_start(&f->d, 0, 2, 64);
	vnet_offer(f, DATA, 2048);
	assert_true(passes(f, OTHER, 7));
	let_go(f);
}

#define T(name)	cmocka_unit_test_setup_teardown(name, vnet_setup, vnet_teardown)
#define MQ(name) cmocka_unit_test_setup_teardown(name, vnet_setup_pairs, vnet_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_filter_modes), T(test_filter_table), T(test_filter_own_address),
		T(test_filter_vlan), T(test_control_abuse), T(test_many_commands), T(test_offloads),
		T(test_offload_combinations), T(test_announce), T(test_link),
		cmocka_unit_test(test_link_from_the_start), T(test_link_lost), T(test_link_lost_before),
		MQ(test_pairs), MQ(test_pairs_not_taken), MQ(test_rss), MQ(test_rss_alone),
		MQ(test_rss_abuse), MQ(test_rss_refused), MQ(test_copy_of_rss),
		MQ(test_copy_of_rss_nonsense), cmocka_unit_test(test_pairs_on_loops),
		T(test_copy), T(test_copy_without_link), T(test_copy_of_lost),
		T(test_copy_of_nonsense),
		cmocka_unit_test(test_plain),
		cmocka_unit_test_setup_teardown(test_dump, vnet_setup_dump, vnet_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
