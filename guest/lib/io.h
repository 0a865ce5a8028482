/*
 * io.h: ports, device memory and processor registers: one access each, of exactly the size asked
 * for.
 *
 * Device memory goes through asm because a volatile access may be folded into another instruction
 * (test, or, cmp), and a test of a device should know what it issued.
 */
#ifndef GUEST_LIB_IO_H
#define GUEST_LIB_IO_H

#include "guest/abi.h"

typedef __SIZE_TYPE__ size_t;
typedef __UINTPTR_TYPE__ uintptr_t;
typedef _Bool bool;
enum { false, true };
#define NULL ((void *)0)
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define NOINIT __attribute__((section(".bss.noinit")))

#define DEFINE_PORT(size, bits)							\
	static inline u##bits in##size(u16 port)				\
	{									\
		u##bits v;							\
		asm volatile("in" #size " %1, %0" : "=a"(v) : "Nd"(port));	\
		return v;							\
	}									\
	static inline void out##size(u16 port, u##bits v)			\
	{									\
		asm volatile("out" #size " %0, %1" : : "a"(v), "Nd"(port));	\
	}
DEFINE_PORT(b, 8)
DEFINE_PORT(w, 16)
DEFINE_PORT(l, 32)

#define DEFINE_MMIO(bits, suffix, reg)						\
	static inline u##bits mmio_read##bits(u64 addr)				\
	{									\
		u##bits v;							\
		asm volatile("mov" suffix " (%1), %0"				\
			     : "=" reg(v) : "r"(addr) : "memory");		\
		return v;							\
	}									\
	static inline void mmio_write##bits(u64 addr, u##bits v)		\
	{									\
		asm volatile("mov" suffix " %0, (%1)"				\
			     : : reg(v), "r"(addr) : "memory");			\
	}
DEFINE_MMIO(8, "b", "q")
DEFINE_MMIO(16, "w", "r")
DEFINE_MMIO(32, "l", "r")
DEFINE_MMIO(64, "q", "r")

static inline void insb(u16 port, void *buf, size_t nr)
{
	asm volatile("rep insb" : "+D"(buf), "+c"(nr) : "d"(port) : "memory");
}

static inline void outsb(u16 port, const void *buf, size_t nr)
{
	asm volatile("rep outsb" : "+S"(buf), "+c"(nr) : "d"(port) : "memory");
}

static inline u64 rdmsr(u32 msr)
{
	u32 low, high;

	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
	return (u64)high << 32 | low;
}

static inline void wrmsr(u32 msr, u64 v)
{
	asm volatile("wrmsr" : : "a"((u32)v), "d"((u32)(v >> 32)), "c"(msr) : "memory");
}

static inline u64 rdtsc(void)
{
	u32 low, high;

	asm volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (u64)high << 32 | low;
}

struct cpuid {
	u32 eax, ebx, ecx, edx;
};

static inline struct cpuid cpuid(u32 leaf, u32 subleaf)
{
	struct cpuid c;

	asm volatile("cpuid" : "=a"(c.eax), "=b"(c.ebx), "=c"(c.ecx), "=d"(c.edx)
		     : "a"(leaf), "c"(subleaf));
	return c;
}

static inline void irq_enable(void)
{
	asm volatile("sti" : : : "memory");
}

static inline void irq_disable(void)
{
	asm volatile("cli" : : : "memory");
}

/* Interrupts must be off: sti shadows the hlt, so none is lost between the two. They are off again
 * on return. */
static inline void irq_wait(void)
{
	asm volatile("sti; hlt; cli" : : : "memory");
}

static inline void barrier(void)
{
	asm volatile("" : : : "memory");
}

/* A locked add, not mfence: KVM's instruction emulator has no mfence. */
static inline void barrier_full(void)
{
	asm volatile("lock addl $0, -4(%%rsp)" : : : "memory", "cc");
}

static inline u32 atomic_add(volatile u32 *p, u32 v)
{
	asm volatile("lock xaddl %0, %1" : "+r"(v), "+m"(*p) : : "memory", "cc");
	return v;
}

/* One step of a bounded wait. Leaving the guest makes a step cost microseconds on any host, so
 * that a number of steps bounds the time, interpreted or not. */
enum { POLL_MAX = 200000 };

static inline void poll_pause(void)
{
	inb(PORT_NOTHING);
}

#define poll_until(condition) ({					\
	u32 polls_left_ = POLL_MAX;					\
	bool met_;							\
	while (!(met_ = (condition)) && polls_left_--)			\
		poll_pause();						\
	met_; })

#endif
