/* vblk.h: a virtio-blk device over real files, and a driver with many requests in flight. */
#pragma once
#include "devices/block/blk.h"
#include "tests/lib/disk.h"
#include "tests/lib/driver.h"

enum {
	VBLK_MEM = 64 * MIB, VBLK_QUEUES = 4, VBLK_SLOTS = 16, VBLK_SLOT_LEN = 128 * 1024,
	VBLK_PENDING = 0xee,		/* a status that no device gives */
};

struct vblk_setup {
	enum aio_engine engine;
	const char *format;		/* NULL: raw */
	u32 cluster;			/* of qcow2 */
	bool below;			/* qcow2 over a raw file with data */
	bool read_only;
	bool direct;			/* in a directory where that can be: see vblk_new */
	u32 direct_align;		/* as on a host with blocks of that size; 0: this one's */
	u64 size;
	unsigned nr_loops;		/* threads; 0: the test turns the fake's own */
	u64 features;			/* that the driver takes, of those offered */
	struct virtio_blk_options o;	/* nr_queues 0: one */
};

/* A request has a slot of its queue: three descriptors and a buffer of VBLK_SLOT_LEN. */
struct vblk_slot {
	bool busy;
	u8 status;			/* once it is not: as answered */
	u32 written;
};

struct vblk {
	const struct vblk_setup *setup;
	struct fake fake;
	struct driver d;
	struct blk *blk;
	struct virtio *v;
	struct device *dev;
	char dir[DISK_DIR_LEN], path[80];
	const char *format;		/* of what is at path now */
	bool read_only;
	struct io_thread io[VBLK_QUEUES];
	unsigned nr_queues;
	struct vblk_slot slot[VBLK_QUEUES][VBLK_SLOTS];
	u16 seen[VBLK_QUEUES];		/* of the used ring */
	unsigned nr_busy;
};

/* The disk below, byte by byte; the disk itself is empty. */
u8   vblk_below(u64 offset);
/* It skips the test where the setup wants what this host has not. */
void vblk_new(struct vblk *, const struct vblk_setup *);
void vblk_free(struct vblk *);
/* The driver's beginning, again after a reset; what was in flight is forgotten. */
void vblk_start(struct vblk *);
/* The device and its backend are made anew, by path, format and read_only; the files stay. */
void vblk_reopen(struct vblk *);

gpa_t vblk_data(unsigned queue, unsigned slot);
void vblk_put(struct vblk *, unsigned queue, unsigned slot, const void *, size_t);
void vblk_get(struct vblk *, unsigned queue, unsigned slot, void *, size_t);
/* Into the ring, without a kick. */
void vblk_offer(struct vblk *, unsigned queue, unsigned slot, u32 type, u64 sector, u32 len);
void vblk_kick(struct vblk *, unsigned queue);
/* Take what was answered; how many. */
unsigned vblk_reap(struct vblk *);
/* Until all of them are answered, or fn says so; a test that waits too long fails. */
void vblk_wait(struct vblk *);
void vblk_until(struct vblk *, bool (*fn)(struct vblk *));
/* All loops have had a turn, and all their requests one with the host; several times. */
void vblk_settle(struct vblk *);
/* One request, waited for; its status. */
u8   vblk_do(struct vblk *, u32 type, u64 sector, u32 len);
u8   vblk_range(struct vblk *, u32 type, u64 sector, u32 sectors, u32 flags);
u64  vblk_config(struct vblk *, u32 offset, unsigned size);
void vblk_config_write(struct vblk *, u32 offset, unsigned size, u64 value);
